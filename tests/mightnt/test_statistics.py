"""Intervals: against their definitions, by other means than SciPy's own."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from mightnt.statistics import (
    MeanOverRuns,
    ShareInterval,
    difference_interval,
    mean_over_runs,
    normal_interval,
    share_interval,
)
from theory.errors import InvalidArgumentError

NUMBERS = st.lists(st.floats(-100, 100), min_size=2, max_size=8)


@given(numbers=NUMBERS, confidence=st.sampled_from([0.5, 0.9, 0.95]))
def test_students_interval_is_that_of_a_t_test(numbers, confidence):
    found = mean_over_runs(numbers, confidence=confidence)
    assert found.mean == pytest.approx(math.fsum(numbers) / len(numbers), abs=1e-12)
    if np.std(numbers) > 1e-6:
        low, high = stats.ttest_1samp(numbers, 0.0).confidence_interval(confidence)
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


def test_one_run_has_no_interval_and_no_run_no_mean():
    assert mean_over_runs([0.25, math.nan]) == MeanOverRuns(
        values=(0.25, pytest.approx(math.nan, nan_ok=True)), mean=0.25, low=None, high=None
    )
    nothing = mean_over_runs([])
    assert math.isnan(nothing.mean)
    assert nothing.low is nothing.high is None


def test_an_interval_is_cut_at_what_a_share_can_be():
    wide = mean_over_runs([0.9, 1.0])
    cut = mean_over_runs([0.9, 1.0], within=(0.0, 1.0))
    assert wide.high > 1
    assert cut.high == 1.0
    assert cut.low == wide.low


@given(trials=st.integers(1, 60), data=st.data())
def test_clopper_pearson_ends_where_the_tail_has_half_of_what_is_left(trials, data):
    successes = data.draw(st.integers(0, trials))
    found = share_interval(successes, trials)
    below = special.bdtr(successes, trials, found.high) if successes < trials else 0.025
    above = special.bdtrc(successes - 1, trials, found.low) if successes else 0.025
    assert (below, above) == pytest.approx((0.025, 0.025), rel=1e-6)


def test_a_tiny_share_keeps_its_digits():
    # One success: the lower end is where none has all but the tail, (1 - low)^n = 0.975.
    found = share_interval(1, 10**9)
    assert found.low == pytest.approx(-math.expm1(math.log1p(-0.025) / 10**9), rel=1e-9)


@given(numbers=NUMBERS)
def test_the_normal_interval_is_students_with_infinitely_many_degrees_of_freedom(numbers):
    found = normal_interval(numbers, confidence=0.9)
    mean, error = math.fsum(numbers) / len(numbers), stats.sem(numbers)
    low, high = (mean + stats.t.ppf(q, math.inf) * error for q in (0.05, 0.95))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


def test_one_draw_has_no_normal_interval():
    with pytest.raises(InvalidArgumentError, match="at least 2 draws, got 1"):
        normal_interval([0.5])


@given(first=NUMBERS, second=NUMBERS)
def test_the_interval_of_a_difference_is_welchs(first, second):
    found = difference_interval(first, second, confidence=0.9)
    assert found.low <= np.mean(first) - np.mean(second) <= found.high
    if min(np.std(first), np.std(second)) > 1e-6:
        welch = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.9)
        assert (found.low, found.high) == pytest.approx((welch.low, welch.high), abs=1e-9)


def test_of_one_draw_there_is_no_interval_of_a_difference_and_of_constants_it_is_one_number():
    with pytest.raises(InvalidArgumentError, match="at least 2 draws, got 1"):
        difference_interval([1.0, 2.0], [1.0])
    found = difference_interval([2.0, 2.0], [0.5, 0.5, 0.5])
    assert (found.low, found.high) == (1.5, 1.5)


@given(trials=st.integers(1, 60), data=st.data())
def test_wilsons_ends_are_where_the_score_is_the_normal_quantile(trials, data):
    successes = data.draw(st.integers(1, trials)) if trials > 1 else 1
    found = share_interval(successes, trials, kind=ShareInterval.WILSON)
    for p in {found.low, found.high} - {0.0, 1.0}:
        score = (successes / trials - p) / math.sqrt(p * (1 - p) / trials)
        assert abs(score) == pytest.approx(1.959963984540054, rel=1e-6)


@pytest.mark.parametrize(("successes", "trials"), [(-1, 3), (4, 3), (0, 0)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(InvalidArgumentError, match=f"got {successes} of {trials}"):
        share_interval(successes, trials)


@pytest.mark.parametrize("confidence", [0.0, 1.0, math.nan])
def test_a_confidence_lies_between_0_and_1(confidence):
    with pytest.raises(InvalidArgumentError, match="confidence must lie in"):
        mean_over_runs([1.0], confidence=confidence)
    with pytest.raises(InvalidArgumentError, match="confidence must lie in"):
        share_interval(1, 2, confidence=confidence)
