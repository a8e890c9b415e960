"""How a cost grows with a size: an exponent, least squares in log-log, with an interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Exponent:
    """`cost ~ size^value`.

    Attributes:
        value: the slope of log cost against log size.
        low: the interval's lower end, by Student's distribution of the slope.
        high: its upper end.
    """

    value: float
    low: float
    high: float

    def exceeds(self, expected: float) -> bool:
        """Whether even the lower end is above what the algorithm should have."""
        return self.low > expected

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> Exponent:
    """The exponent of a cost that was measured at some sizes.

    Args:
        sizes: at least three different ones, positive.
        costs: of each, positive.
    """
    log_size, log_cost = np.log(sizes), np.log(costs)
    away = log_size - log_size.mean()
    slope = float(away @ log_cost / (away @ away))
    residuals = log_cost - log_cost.mean() - slope * away
    free = len(sizes) - 2
    error = np.sqrt(residuals @ residuals / free / (away @ away))
    spread = float(stats.t.ppf(0.5 + CONFIDENCE / 2, free) * error)
    return Exponent(value=slope, low=slope - spread, high=slope + spread)
