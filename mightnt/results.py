"""Results on disk: written whole or not at all.

A file is first written beside its place under a temporary name, flushed to the disk and then
renamed over the old one, so that an interrupted command never leaves half a file.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, fields, is_dataclass
from enum import Enum
from fractions import Fraction
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from theory.errors import InvalidArgumentError, ResultsError

ValueT = TypeVar("ValueT")
_JSON_KEY: Final = "json_key"


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


def check_writable(*paths: Path) -> None:
    """Raise unless files can be written at `paths`: asked before work, not after it.

    The folders are made if need be.

    Args:
        paths: of files to be written.

    Raises:
        ResultsError: one of them cannot be.
    """
    for path in paths:
        if path.is_dir():
            raise ResultsError(f"cannot write {path}: it is a folder; name a file")
        check_folder(path.parent)


def check_folder(folder: Path) -> None:
    """Raise unless files can be written into `folder`, which is made if need be.

    Raises:
        ResultsError: none can be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ResultsError(
            f"cannot write into {folder}: {error.strerror or error}; free some space or name "
            "another place"
        ) from error


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file at a temporary path, then move it to `path`."""
    with atomic_path(path) as temporary:
        write(temporary)


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, which takes its place on success.

    Raises:
        ResultsError: it cannot be written; what stood there before is untouched.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            new, old = Path(scratch) / "new", Path(scratch) / "old"
            new.mkdir()
            yield new
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
    except OSError as error:
        raise ResultsError(
            f"cannot write {folder}: {error.strerror or error}; free some space or name another "
            "place with --out"
        ) from error


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON (see `to_jsonable`), atomically."""
    text = json.dumps(to_jsonable(value), indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path, parse: Callable[[Any], ValueT], *, remedy: str) -> ValueT | None:
    """What a JSON file says; None if there is no such file.

    Args:
        path: of the file.
        parse: makes it of the file's content, and may raise whatever content of another shape
            makes it raise.
        remedy: what the error tells its reader to do.

    Raises:
        ResultsError: the file cannot be read, is no JSON, or `parse` does not take it.
    """
    try:
        return parse(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except RecursionError:
        raise ResultsError(f"cannot read {path}: it is nested too deeply; {remedy}") from None
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise ResultsError(f"cannot read {path}: {error}; {remedy}") from error


def json_key(key: str) -> Mapping[str, str]:
    """Metadata of a dataclass's field that is called `key` in JSON, such as `from`."""
    return {_JSON_KEY: key}


def _key_of(field: Field[Any]) -> str:
    return str(field.metadata.get(_JSON_KEY, field.name))


def to_jsonable(value: Any) -> Any:  # noqa: C901, PLR0911 - one case a type
    """`value` in JSON's types.

    Dataclasses become objects (`json_key` names a field), enums their values, fractions `"p/q"`,
    arrays lists, paths strings; the floats that JSON lacks become the strings `"inf"`, `"-inf"`,
    `"nan"`.
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
        return {_key_of(f): to_jsonable(getattr(value, f.name)) for f in fields(value)}
    raise ResultsError(f"cannot write a {type(value).__name__} as JSON; convert it first")


def from_jsonable(kind: type[ValueT], value: Any) -> ValueT:
    """The value of type `kind` that `to_jsonable` made `value` from.

    Args:
        kind: a dataclass, an enum, a plain JSON type, `Fraction`, `Path`, `Any`, or a tuple, list,
            dictionary or union of these. Fields that a dataclass's object lacks take their
            defaults.
        value: in JSON's types.

    Raises:
        InvalidArgumentError: `value` does not fit.
    """
    try:
        read: ValueT = _read(kind, value)
    except (TypeError, ValueError, KeyError, RecursionError) as error:
        name = getattr(kind, "__name__", str(kind))
        raise InvalidArgumentError(f"cannot read a {name}: {error}") from error
    return read


def _read(kind: Any, value: Any) -> Any:  # noqa: PLR0911 - one case a type
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if isinstance(kind, type) and is_dataclass(kind):
        if not isinstance(value, dict):
            raise TypeError(f"an object is needed, got {value!r:.40}")
        types, names = get_type_hints(kind), {_key_of(f): f.name for f in fields(kind)}
        return kind(**{names[key]: _read(types[names[key]], item) for key, item in value.items()})
    if origin in (Union, UnionType):
        return _read_member(arguments, value)
    if origin is Literal:
        return _one_of(arguments, value)
    if origin in (tuple, list):
        return _read_items(origin, arguments, value)
    if origin is dict:
        return {_read(arguments[0], key): _read(arguments[1], v) for key, v in value.items()}
    if kind is float and isinstance(value, bool | list | dict):
        raise TypeError(f"a number is needed, got {value!r:.40}")
    if kind in (int, str, bool) and type(value) is not kind:
        raise TypeError(f"{kind.__name__} is needed, got {value!r:.40}")
    return None if kind is NoneType else kind(value)


def _read_member(kinds: tuple[Any, ...], value: Any) -> Any:
    if value is None and NoneType in kinds:
        return None
    failures = []
    for kind in kinds:
        if kind is NoneType:
            continue
        try:
            return _read(kind, value)
        except (TypeError, ValueError, KeyError) as error:
            failures.append(str(error))
    raise TypeError("; ".join(failures) or f"got {value!r:.40}")


def _read_items(kind: Any, kinds: tuple[Any, ...], value: Any) -> Any:
    if not isinstance(value, list):
        raise TypeError(f"a list is needed, got {value!r:.40}")
    if kind is tuple and kinds[-1] is not Ellipsis:
        return tuple(_read(each, item) for each, item in zip(kinds, value, strict=True))
    return kind(_read(kinds[0], item) for item in value)


def _one_of(allowed: tuple[Any, ...], value: Any) -> Any:
    if value not in allowed:
        raise ValueError(f"{value!r:.40} is none of {allowed}")
    return value
