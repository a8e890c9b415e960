"""Checks of arguments that are plain numbers; `theory.arrays` checks arrays.

Each takes its arguments by name, `check_count(horizon=horizon)`, for the message. NaN never passes.
"""

import math
from enum import Enum
from fractions import Fraction
from typing import Any, TypeVar

from theory.errors import InvalidArgumentError, InvalidBudgetError, InvalidDistributionError

EnumT = TypeVar("EnumT", bound=Enum)


def as_member(kind: type[EnumT], given: Any, *, name: str) -> EnumT:
    """`given`, if it is a member of the enum `kind`, or the member with that name or value.

    Names count in any case. So a mode that is no member never takes another one's branch.

    Raises:
        InvalidArgumentError: no such member.
    """
    if isinstance(given, kind):
        return given
    if isinstance(given, str):
        for member in kind:
            if given.upper() == member.name or given == member.value:
                return member
    members = ", ".join(f"{kind.__name__}.{member.name}" for member in kind)
    raise InvalidArgumentError(f"{name} must be one of {members}, got {given!r}")


def check_count(**counts: int) -> None:
    """Raise `InvalidArgumentError` unless every count is an integer of at least 1."""
    for name, count in counts.items():
        if not hasattr(count, "__index__"):  # as integers of every library have it
            raise InvalidArgumentError(f"{name} must be an integer, got {count!r}")
        if count < 1:
            raise InvalidArgumentError(f"{name} must be >= 1, got {count}")


def check_bits(**lengths: float) -> None:
    """Raise `InvalidArgumentError` unless every length is at least 0 and finite."""
    for name, bits in lengths.items():
        if not 0 <= bits < math.inf:
            raise InvalidArgumentError(f"{name} must be >= 0 and finite, got {bits}")


def check_probability(**probabilities: Fraction | float) -> None:
    """Raise `InvalidDistributionError` unless every probability lies in [0, 1]."""
    for name, probability in probabilities.items():
        if not 0 <= probability <= 1:
            raise InvalidDistributionError(f"{name} must lie in [0, 1], got {probability}")


def check_positive_probability(**probabilities: Fraction | float) -> None:
    """Raise `InvalidDistributionError` unless every probability lies in (0, 1]."""
    for name, probability in probabilities.items():
        if not 0 < probability <= 1:
            raise InvalidDistributionError(f"{name} must lie in (0, 1], got {probability}")


def check_log_probability(**log_probabilities: float) -> None:
    """Raise `InvalidArgumentError` unless every logarithm of a probability is at most 0."""
    for name, log_p in log_probabilities.items():
        if not log_p <= 0:
            raise InvalidArgumentError(
                f"{name} must be at most 0 (the logarithm of a probability), got {log_p}"
            )


def check_alpha(alpha: Fraction | float) -> None:
    """Raise `InvalidArgumentError` unless `0 < alpha <= 1`, as a top set's threshold must be."""
    if not 0 < alpha <= 1:
        raise InvalidArgumentError(f"alpha must lie in (0, 1], got {alpha}")


def check_budget(**budgets: float) -> None:
    """Raise `InvalidBudgetError` unless every budget is at least 0; inf is."""
    for name, nats in budgets.items():
        if not nats >= 0:
            raise InvalidBudgetError(f"{name} must be >= 0, got {nats}")


def check_finite_budget(**budgets: float) -> None:
    """Raise `InvalidBudgetError` unless every budget is at least 0 and finite."""
    for name, nats in budgets.items():
        if not 0 <= nats < math.inf:
            raise InvalidBudgetError(f"{name} must lie in [0, inf), got {nats}")
