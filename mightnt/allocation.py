"""Memory that was used is kept for what comes next.

The C library gives large blocks back to the operating system as soon as they are free, and fetches
new ones, zeroed page by page, for the next array. Arithmetic on rows of a large vocabulary makes
one such array after another, and then spends more time on pages than on numbers.
"""

import ctypes
import platform
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_NEVER: Final = 2**31 - 1


def keep_freed_memory() -> bool:
    """Ask the C library to keep what this process frees; its use of memory then only grows.

    Returns:
        Whether it does: glibc can be asked, other libraries are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return all(library.mallopt(name, _NEVER) for name in (_MMAP_THRESHOLD, _TRIM_THRESHOLD))
