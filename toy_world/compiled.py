"""What compiled code asks of the processor here; `theory.compiled` says how code is compiled."""

from collections.abc import Callable
from typing import Any, cast

from numba.core import types
from numba.extending import intrinsic


def _count_ones(_context: Any, _word: Any) -> Any:
    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


count_ones = cast(Callable[[Any], Any], intrinsic(_count_ones))
"""The number of ones of a 64-bit word, one machine instruction; for compiled code only."""
