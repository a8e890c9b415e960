"""Three-valued comparison of balls (python-flint's `arb`).

A ball encloses a real number. `a <= b` of two balls is true only if it is true of every pair of
numbers in them, so `not (a <= b)` proves nothing: both directions are asked.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, Final, TypeAlias

from flint import arb, ctx, fmpq

from proofs_check.verdict import Verdict

Ball: TypeAlias = Any
"""`flint.arb`, which has no type stubs."""

PRECISIONS_BITS: Final = (64, 128, 256, 512)
"""Tried in turn until a comparison is decided."""


@contextmanager
def precision(bits: int) -> Iterator[None]:
    """Ball arithmetic with `bits` bits."""
    before = ctx.prec
    ctx.prec = bits
    try:
        yield
    finally:
        ctx.prec = before


def ball(value: Fraction | int) -> Ball:
    """An enclosure of a rational at the current precision."""
    fraction = Fraction(value)
    return arb(fmpq(fraction.numerator, fraction.denominator))


def at_most(left: Callable[[], Ball], right: Callable[[], Ball]) -> Verdict:
    """Whether `left() <= right()`, at increasing precision.

    Args:
        left: computed anew at each precision.
        right: likewise. Equal numbers are told apart from
            unequal ones only where both balls are exact; else they stay UNDECIDED.
    """
    for bits in PRECISIONS_BITS:
        with precision(bits):
            a, b = left(), right()
            if a <= b:
                return Verdict.HOLDS
            if a > b:
                return Verdict.FAILS
    return Verdict.UNDECIDED


def within(value: Callable[[], Ball], target: Fraction, tolerance: Fraction) -> Verdict:
    """Whether `|value() - target| <= tolerance`, at increasing precision."""
    return at_most(lambda: abs(value() - ball(target)), lambda: ball(tolerance))
