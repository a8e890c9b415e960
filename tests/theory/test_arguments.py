"""Every check names the argument, lets the ends of its domain pass and refuses what is outside."""

import math
from fractions import Fraction

import pytest

from theory import arguments
from theory.errors import InvalidArgumentError, InvalidBudgetError, InvalidDistributionError

INF = math.inf


@pytest.mark.parametrize(
    ("check", "good", "bad", "error"),
    [
        (arguments.check_count, [1, 10**9], [0, -1], InvalidArgumentError),
        (arguments.check_bits, [0, 1e300], [-1, INF, math.nan], InvalidArgumentError),
        (
            arguments.check_probability,
            [0, Fraction(1, 3), 1.0],
            [-0.1, 1.1, math.nan],
            InvalidDistributionError,
        ),
        (
            arguments.check_positive_probability,
            [1e-300, Fraction(1)],
            [0, 1.1, math.nan],
            InvalidDistributionError,
        ),
        (arguments.check_log_probability, [0.0, -INF], [0.1, math.nan], InvalidArgumentError),
        (arguments.check_budget, [0.0, INF], [-0.1, math.nan], InvalidBudgetError),
        (arguments.check_finite_budget, [0.0, 1e300], [-0.1, INF, math.nan], InvalidBudgetError),
    ],
)
def test_a_number_is_checked_by_name(check, good, bad, error):
    for value in good:
        check(number=value)
    for value in bad:
        with pytest.raises(error, match=f"number must .*got {value}"):
            check(first=good[0], number=value)


def test_the_threshold_of_a_top_set_lies_in_the_half_open_interval():
    for alpha in (1e-9, Fraction(1)):
        arguments.check_alpha(alpha)
    for alpha in (0, 1.1, math.nan):
        with pytest.raises(InvalidArgumentError, match=rf"alpha must lie in \(0, 1\], got {alpha}"):
            arguments.check_alpha(alpha)
