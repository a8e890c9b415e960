"""Checks of arguments that are plain numbers; `theory.arrays` checks arrays.

Each takes its arguments by name, `check_count(horizon=horizon)`, for the message. NaN never passes.
"""

import math
from fractions import Fraction

from theory.errors import InvalidArgumentError, InvalidBudgetError, InvalidDistributionError


def check_count(**counts: int) -> None:
    """Raise `InvalidArgumentError` unless every count is at least 1."""
    for name, count in counts.items():
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
