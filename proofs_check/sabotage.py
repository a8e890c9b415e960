"""Faults put into the toolkit's code while a check runs, and whether that code runs at all.

A `Sabotage` replaces one function, method or property by a faulty one. It is put in place wherever
the toolkit's modules hold the original, so that `from theory.bounds import f` is no way around it.

That code ran is seen by a profiling function. It slows everything down, so it takes itself away
once all of the code has been seen.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import unwrap
from types import CodeType, FrameType, ModuleType
from typing import Any, Final

PACKAGES: Final = ("theory", "toy_world", "proofs_check")
"""Whose modules hold the code that checks cover."""


@dataclass(frozen=True, kw_only=True)
class Sabotage:
    """A fault in the code.

    Attributes:
        name: what goes wrong, in words.
        owner: the module or class that the code stands in.
        attribute: its name there, of a function, method or property.
        fault: the original in, the faulty one out.
    """

    name: str
    owner: ModuleType | type
    attribute: str
    fault: Callable[[Any], Any]

    @property
    def covers(self) -> str:
        """The code, as `function` or `Class.method`."""
        inside = f"{self.owner.__name__}." if isinstance(self.owner, type) else ""
        return f"{inside}{self.attribute}"

    @property
    def code(self) -> CodeType:
        """The code object that has to run; a property's is its getter's."""
        original = getattr(self.owner, self.attribute)
        function: Any = original.fget if isinstance(original, property) else original
        code: CodeType = unwrap(function).__code__
        return code


@contextmanager
def sabotaged(sabotage: Sabotage) -> Iterator[None]:
    """Has the fault in place."""
    original = getattr(sabotage.owner, sabotage.attribute)
    faulty = sabotage.fault(original)
    places: list[tuple[Any, str]] = [(sabotage.owner, sabotage.attribute)]
    if isinstance(sabotage.owner, ModuleType):
        places = [
            (module, name)
            for module in tuple(sys.modules.values())
            if module.__name__.partition(".")[0] in PACKAGES
            for name, value in tuple(vars(module).items())
            if value is original
        ]
    for place, name in places:
        setattr(place, name, faulty)
    try:
        yield
    finally:
        for place, name in places:
            setattr(place, name, original)


@contextmanager
def watch_calls(codes: Iterable[CodeType]) -> Iterator[set[CodeType]]:
    """Watches until the end of the block, or until all of `codes` ran; yields what has not."""
    missing = set(codes)
    before = sys.getprofile()

    if missing:
        sys.setprofile(cross_off(missing, lambda: sys.setprofile(before)))
    try:
        yield missing
    finally:
        sys.setprofile(before)


def cross_off(
    missing: set[CodeType], when_empty: Callable[[], None]
) -> Callable[[FrameType, str, Any], None]:
    """A profiling function that removes from `missing` what is called."""

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code in missing:
            missing.discard(frame.f_code)
            if not missing:
                when_empty()

    return profile


def with_result(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The fault of returning `change(result)`, of a function, method or property."""

    def fault(original: Any) -> Any:
        if isinstance(original, property):
            getter: Any = original.fget
            return property(lambda self: change(getter(self)))
        return lambda *args, **kwargs: change(original(*args, **kwargs))

    return fault


def with_keyword(name: str, change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The fault of reading `change(value)` for the keyword argument `name`."""

    def fault(original: Any) -> Any:
        return lambda *args, **kwargs: original(*args, **(kwargs | {name: change(kwargs[name])}))

    return fault


def returning(value: Any) -> Callable[[Any], Any]:
    """The fault of returning `value`, whatever the arguments."""

    def fault(original: Any) -> Any:
        faulty = lambda *_args, **_kwargs: value  # noqa: E731 - read as what it is
        return property(faulty) if isinstance(original, property) else faulty

    return fault
