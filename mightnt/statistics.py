"""Every interval that this project states, computed by SciPy.

- *Over runs*: runs that differ by their seed alone are independent, and what is said of training
  is a mean over runs with Student's interval (`mean_over_runs`). Student's interval of a share
  near 0 or 1 reaches beyond what a share can be: it is cut there, which leaves out nothing that
  the mean could be and so covers it as often. Over runs that are all alike it is narrow by luck.
- *Over trials*: independent successes and failures of one law, such as episodes of one fixed
  policy, have an interval for the probability of success (`share_interval`), and what two such
  laws bring about one for the difference of their means (`difference_interval`).
- *Over draws*: many independent simulations have the normal interval for the mean of what they
  bring about (`normal_interval`).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np
from scipy import stats

from theory.errors import InvalidArgumentError

CONFIDENCE: Final = 0.95
"""Of every interval, unless a caller asks for another."""
ANYWHERE: Final = (-math.inf, math.inf)
"""The range of a number of which nothing is known beforehand."""
_FEWEST_RUNS: Final = 2


class ShareInterval(Enum):
    """Which interval for a probability; the values are SciPy's names."""

    CLOPPER_PEARSON = "exact"
    """Covers at least as often as it says, whatever the probability is."""
    WILSON = "wilson"
    """Covers about as often as it says, and is narrower."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An interval for an unknown number.

    Attributes:
        low: its lower end.
        high: its upper end.
    """

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class MeanOverRuns:
    """One number of each run of a group.

    Attributes:
        values: one a run, nan where a run has none; all of them, whatever they show.
        mean: over the runs that have the number; nan if none has.
        low: lower end of Student's interval for the mean, within what the number can be; None
            with fewer than two runs.
        high: its upper end, or None.
    """

    values: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None


def mean_over_runs(
    values: Iterable[float],
    *,
    within: tuple[float, float] = ANYWHERE,
    confidence: float = CONFIDENCE,
) -> MeanOverRuns:
    """Mean and Student's interval of one number a run.

    Args:
        values: one a run; nan where it does not exist.
        within: the least and the largest that the number can be; the interval is cut there.
        confidence: of the interval, in (0, 1).

    Raises:
        InvalidArgumentError: a confidence outside (0, 1).
    """
    _check_confidence(confidence)
    every = tuple(float(value) for value in values)
    numbers = np.array([value for value in every if not math.isnan(value)])
    if not len(numbers):
        return MeanOverRuns(values=every, mean=math.nan, low=None, high=None)
    mean = float(numbers.mean())
    if len(numbers) < _FEWEST_RUNS:
        return MeanOverRuns(values=every, mean=mean, low=None, high=None)
    error = float(numbers.std(ddof=1)) / math.sqrt(len(numbers))
    half = float(stats.t.ppf((1 + confidence) / 2, len(numbers) - 1)) * error
    least, largest = within
    return MeanOverRuns(
        values=every, mean=mean, low=max(mean - half, least), high=min(mean + half, largest)
    )


def share_interval(
    successes: int,
    trials: int,
    *,
    kind: ShareInterval = ShareInterval.CLOPPER_PEARSON,
    confidence: float = CONFIDENCE,
) -> Interval:
    """The two-sided interval for a probability of which independent trials were seen.

    Args:
        successes: among the trials.
        trials: at least 1.
        kind: which interval.
        confidence: of the interval, in (0, 1).

    Raises:
        InvalidArgumentError: more successes than trials, no trial, or a confidence outside (0, 1).
    """
    _check_confidence(confidence)
    if trials < 1 or not 0 <= successes <= trials:
        raise InvalidArgumentError(
            f"successes must lie in 0..trials and trials be >= 1, got {successes} of {trials}"
        )
    if kind is ShareInterval.WILSON:
        found = stats.binomtest(successes, trials).proportion_ci(confidence, method=kind.value)
        return Interval(low=float(found.low), high=float(found.high))
    # The quantiles of beta laws, of which SciPy keeps all digits: `proportion_ci` looks for the
    # ends with an absolute error of 2e-12, which is no digit of a share of a millionth.
    tail, failures = (1 - confidence) / 2, trials - successes
    low = stats.beta.ppf(tail, successes, failures + 1) if successes else 0.0
    high = stats.beta.ppf(1 - tail, successes + 1, failures) if failures else 1.0
    return Interval(low=float(low), high=float(high))


def normal_interval(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Interval:
    """The normal interval for the mean of many independent draws from one law.

    Args:
        values: the draws, at least 2.
        confidence: of the interval, in (0, 1).

    Raises:
        InvalidArgumentError: fewer draws, or a confidence outside (0, 1).
    """
    _check_confidence(confidence)
    if len(values) < _FEWEST_RUNS:
        raise InvalidArgumentError(f"an interval needs at least 2 draws, got {len(values)}")
    quantile = stats.norm.ppf((1 + confidence) / 2)
    half = float(quantile * np.std(values, ddof=1) / math.sqrt(len(values)))
    mean = float(np.mean(values))
    return Interval(low=mean - half, high=mean + half)


def difference_interval(
    first: Sequence[float], second: Sequence[float], *, confidence: float = CONFIDENCE
) -> Interval:
    """Welch's interval for how much larger the mean of one law is than that of another.

    Args:
        first: independent draws from the one, at least 2.
        second: from the other, likewise.
        confidence: of the interval, in (0, 1).

    Raises:
        InvalidArgumentError: fewer draws, or a confidence outside (0, 1).
    """
    _check_confidence(confidence)
    fewest = min(len(first), len(second))
    if fewest < _FEWEST_RUNS:
        raise InvalidArgumentError(f"an interval needs at least 2 draws, got {fewest}")
    sizes = (len(first), len(second))
    errors = [np.var(draws, ddof=1) / n for draws, n in zip((first, second), sizes, strict=True)]
    middle, error = float(np.mean(first) - np.mean(second)), sum(errors)
    if not error:
        return Interval(low=middle, high=middle)
    # Welch and Satterthwaite's degrees of freedom, as shares of the error that cannot underflow.
    freedom = 1 / sum((e / error) ** 2 / (n - 1) for e, n in zip(errors, sizes, strict=True))
    half = float(stats.t.ppf((1 + confidence) / 2, freedom) * math.sqrt(error))
    return Interval(low=middle - half, high=middle + half)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise InvalidArgumentError(f"confidence must lie in (0, 1), got {confidence}")
