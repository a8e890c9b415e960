"""Compilation to machine code, typed and with the same options everywhere.

Compiled code is kept on disk beside its module (or in the user's cache folder), so only the
first run after a change waits for the compiler. Functions release the interpreter lock: threads
run them side by side.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba.core import types
from numba.extending import intrinsic

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def compiled(function: FunctionT) -> FunctionT:
    """`function`, compiled by numba at its first call."""
    return cast(FunctionT, numba.njit(cache=True, nogil=True)(function))


def _count_ones(_context: Any, _word: Any) -> Any:
    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


count_ones = cast(Callable[[Any], Any], intrinsic(_count_ones))
"""The number of ones of a 64-bit word, one machine instruction; for compiled code only."""
