"""Which version of the code a result was made by, so that an old result is not taken for a new one.

The version is a hash of the source files that toy worlds' numbers depend on. It changes with every
change of these files, also with one that leaves the numbers alone: then a result is computed
again that need not have been, which is slow but never wrong.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Final

_PACKAGES: Final = ("mightnt", "theory", "toy_world")
_DIGITS: Final = 16


@cache
def code_version() -> str:
    """The version of the code that is running, 16 hexadecimal digits."""
    house = Path(__file__).parents[1]
    found = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((house / package).rglob("*.py")):
            found.update(path.relative_to(house).as_posix().encode())
            found.update(path.read_bytes())
    return found.hexdigest()[:_DIGITS]
