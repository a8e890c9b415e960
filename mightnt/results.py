"""Results on disk: written whole or not at all.

A file is first written beside its place under a temporary name, flushed to the disk and then
renamed over the old one, so that an interrupted command never leaves half a file.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from theory.errors import ResultsError


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in `path`'s folder (made if need be); renamed to `path` on success.

    Raises:
        ResultsError: the folder cannot be made, or the file cannot be written (disk full,
            no permission); what stood at `path` before is untouched.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix
        )
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise ResultsError(
            f"cannot write {path}: {error.strerror or error}; free some space or name another "
            "place with --out"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file at a temporary path, then move it to `path`."""
    with atomic_path(path) as temporary:
        write(temporary)


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON (see `to_jsonable`), atomically."""
    text = json.dumps(to_jsonable(value), indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def to_jsonable(value: Any) -> Any:  # noqa: C901, PLR0911 - one case a type
    """`value` in JSON's types.

    Dataclasses become objects, enums their values, fractions `"p/q"`, arrays lists, paths
    strings; the floats that JSON lacks become the strings `"inf"`, `"-inf"`, `"nan"`.
    """
    match value:
        case Enum():
            return to_jsonable(value.value)
        case None | bool() | int() | str():
            return value
        case float() | np.floating():
            return float(value) if np.isfinite(value) else str(float(value))
        case np.bool_() | np.integer():
            return value.item()
        case Fraction():
            return str(value)
        case np.ndarray():
            return to_jsonable(value.tolist())
        case dict():
            return {str(to_jsonable(key)): to_jsonable(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [to_jsonable(item) for item in value]
        case Path():
            return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_jsonable(getattr(value, f.name)) for f in fields(value)}
    raise ResultsError(f"cannot write a {type(value).__name__} as JSON; convert it first")
