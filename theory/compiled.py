"""Compilation to machine code by numba, with the same options everywhere.

Compiled code is kept on disk beside its module (or in the user's cache folder), so only the
first run after a change waits for the compiler. What is kept is looked up by the file of the
function that was called: what it calls should stand in the same file. Functions release the
interpreter lock: threads run them side by side.
"""

import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import numba
from numba.core import event

LOGGER: Final = logging.getLogger(__name__)
"""Hears of every compilation beforehand; `mightnt.compiling` shows the first on a screen."""


class _Announcer(event.Listener):
    def on_start(self, event: event.Event) -> None:
        LOGGER.info("compiling %s", event.data["dispatcher"].py_func.__qualname__)

    def on_end(self, event: event.Event) -> None:
        """Nobody asks."""


event.register("numba:compile", _Announcer())  # type: ignore[no-untyped-call] # numba's own

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def compiled(function: FunctionT) -> FunctionT:
    """`function`, compiled at its first call."""
    return cast(FunctionT, numba.njit(cache=True, nogil=True)(function))


def numeric(function: FunctionT) -> FunctionT:
    """`function` of floats, in a form that loops which call it can take several numbers at a time.

    Products are added in one rounding where the machine can, and x / 0 is inf. Nothing else is
    reordered: exact differences stay exact.
    """
    compile_it = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
    return cast(FunctionT, compile_it(function))


def summing(function: FunctionT) -> FunctionT:
    """As `numeric`, for loops that sum: the order of *its own* sums is the compiler's.

    It depends on the number of terms alone, so that the same row gives the same bits, wherever it
    lies. Functions that are called keep their order.
    """
    flags = {"contract", "reassoc"}
    compile_it = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=flags)
    return cast(FunctionT, compile_it(function))
