"""Identities and signs in positive symbols, by sympy, with refutation by example."""

from collections.abc import Callable
from itertools import product
from typing import Any, Final

import sympy as sp

from proofs_check.verdict import Outcome, Verdict

_GRID: Final = tuple(
    sp.Rational(value)
    for value in ("1/3", "2", "9/10", "10/9", "1/7", "5", "1/40", "30", "1/3000", "2000")
)
"""Where refutations are looked for; the order is that of growing distance from 1."""
_SURELY_NOT_ZERO: Final = sp.Float("1e-30")
"""Far above the rounding of 50 digits."""


def symbolic(expression: Any, *, cases: int = 1, note: str = "") -> Outcome:
    """HOLDS if `expression`, in positive symbols, is identically 0.

    A nonzero normal form is refuted by a point at which the expression is not 0; where no such
    point is met either, the verdict is UNDECIDED.
    """
    reduced = sp.simplify(sp.expand(sp.expand_log(expression)))
    if reduced == 0:
        return Outcome(verdict=Verdict.HOLDS, cases=cases, note=note)
    return refute(reduced, lambda value: value != 0, "not identically 0", cases)


def nonnegative(expression: Any, *, cases: int = 1, note: str = "") -> Outcome:
    """HOLDS if `expression` is seen to be >= 0 by sympy's assumptions; else as `symbolic`."""
    reduced = sp.factor(sp.simplify(expression))
    if reduced.is_nonnegative:
        return Outcome(verdict=Verdict.HOLDS, cases=cases, note=note or f"= {reduced}")
    return refute(reduced, lambda value: value < 0, "negative", cases)


def refute(expression: Any, refutes: Callable[[Any], bool], what: str, cases: int) -> Outcome:
    """FAILS with the first point of a fixed rational grid where `refutes(value)`."""
    symbols = sorted(expression.free_symbols, key=str)
    for point in product(_GRID, repeat=len(symbols)):
        value = sp.N(expression.subs(dict(zip(symbols, point, strict=True))), 50)
        if value.is_real and refutes(value) and abs(value) > _SURELY_NOT_ZERO:
            shown = ", ".join(f"{s} = {v}" for s, v in zip(symbols, point, strict=True))
            return Outcome(
                verdict=Verdict.FAILS,
                cases=cases,
                counterexample=f"{what} ({sp.N(value, 6)}) at {shown or 'the constants'}",
            )
    return Outcome(verdict=Verdict.UNDECIDED, cases=cases, note=f"undecided: {expression}")


def kl_of(p: Any, q: Any) -> Any:
    """`sum_i p_i ln(p_i / q_i)` of symbols."""
    return sum(a * sp.log(a / b) for a, b in zip(p, q, strict=True))


def positive(names: str) -> tuple[Any, ...]:
    """Positive symbols."""
    return tuple(sp.symbols(names, positive=True, seq=True))
