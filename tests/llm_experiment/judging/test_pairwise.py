"""Pairs, their order of showing, and what answers amount to."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from llm_experiment.judging.pairwise import (
    Pair,
    Source,
    Unit,
    Verdict,
    compare_numbers,
    draw_pairs,
    summarise,
    tally,
)
from mightnt.statistics import ShareInterval, share_interval
from theory.errors import InvalidArgumentError, InvalidShapeError

FIRST, SECOND, TIE, UNPARSABLE = Verdict


def unit(seed=0, *, first=6, second=4):
    return Unit(
        seed=seed,
        first=Source(folder="agents/a", n_episodes=first),
        second=Source(folder="base", n_episodes=second),
    )


def pairs_of(n, *, seed=0, swapped=False):
    return [Pair(seed=seed, first=i, second=i, swapped=swapped) for i in range(n)]


# ----------------------------------------------------------------- pairs


@given(st.integers(1, 8), st.integers(1, 8), st.data())
def test_pairs_differ_and_use_every_transcript_equally_often(n, m, data):
    n_pairs = data.draw(st.integers(1, n * m))
    seed = data.draw(st.integers(0, 99))
    pairs = draw_pairs([unit(first=n, second=m)], n_pairs, rng=np.random.default_rng(seed))
    assert len(pairs) == n_pairs
    assert len({(pair.first, pair.second) for pair in pairs}) == n_pairs
    for size, used in (
        (n, Counter(pair.first for pair in pairs)),
        (m, Counter(pair.second for pair in pairs)),
    ):
        assert set(used) <= set(range(size))
        uses = [used[i] for i in range(size)]
        assert max(uses) - min(uses) <= 1


@given(st.integers(1, 5), st.integers(0, 60), st.integers(0, 99))
def test_units_share_the_pairs_and_half_of_each_is_swapped(n_units, extra, seed):
    units = [unit(seed=number, first=9, second=9) for number in range(n_units)]
    pairs = draw_pairs(units, n_units + extra, rng=np.random.default_rng(seed))
    sizes = Counter(pair.seed for pair in pairs)
    assert sum(sizes.values()) == n_units + extra
    assert max(sizes.values()) - min(sizes.values()) <= 1
    for number, size in sizes.items():
        swapped = sum(pair.swapped for pair in pairs if pair.seed == number)
        assert swapped in {size // 2, size - size // 2}


def test_an_odd_pair_is_tossed_for_and_the_order_is_random():
    drawn = [draw_pairs([unit()], 3, rng=np.random.default_rng(seed)) for seed in range(400)]
    n_swapped = Counter(sum(pair.swapped for pair in pairs) for pairs in drawn)
    assert stats.binomtest(n_swapped[1], 400).pvalue > 1e-4
    assert n_swapped[1] + n_swapped[2] == 400
    # The first of three is swapped in half of all draws, too.
    assert stats.binomtest(sum(pairs[0].swapped for pairs in drawn), 400).pvalue > 1e-4


def test_equal_seeds_draw_equal_pairs():
    units = [unit(seed=0), unit(seed=1)]
    draws = [draw_pairs(units, 20, rng=np.random.default_rng(seed)) for seed in (5, 5, 6)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(
    ("units", "n_pairs", "words"),
    [
        ([], 3, r"at least 1 seed, .* got \[\]"),
        ([unit(), unit()], 3, r"different seeds, got \[0, 0\]"),
        ([unit(), unit(seed=1)], 1, "n_pairs must be >= 2, one for each seed, got 1"),
        ([unit()], 25, "agents/a and base have 24 pairs of episodes, not 25"),
    ],
)
def test_pairs_that_cannot_be_drawn_are_refused(units, n_pairs, words, rng):
    with pytest.raises(InvalidArgumentError, match=words):
        draw_pairs(units, n_pairs, rng=rng)


# ----------------------------------------------------------------- answers


@pytest.mark.parametrize("n_pairs", [2, 20, 300])
def test_a_judge_that_heeds_position_alone_gives_each_side_half(n_pairs, rng):
    pairs = draw_pairs([unit(seed=0, first=30, second=30)], n_pairs, rng=rng)
    verdicts = [SECOND if pair.swapped else FIRST for pair in pairs]
    outcome = summarise(pairs, verdicts)
    assert outcome.all.share == 0.5
    assert outcome.in_front == 1.0
    behind = summarise(pairs, [FIRST if pair.swapped else SECOND for pair in pairs])
    assert behind.all.share == 0.5
    assert behind.in_front == 0.0


def test_answers_are_counted_and_only_decided_pairs_have_a_share():
    verdicts = [FIRST] * 3 + [SECOND] * 1 + [TIE] * 4 + [UNPARSABLE] * 2
    counted = tally(verdicts)
    assert (counted.first, counted.second, counted.ties, counted.unparsable) == (3, 1, 4, 2)
    assert counted.n_pairs == 10
    assert counted.share == 3 / 4
    outcome = summarise(pairs_of(10), verdicts)
    expected = share_interval(3, 4, kind=ShareInterval.WILSON)
    assert (outcome.pairs_low, outcome.pairs_high) == (expected.low, expected.high)
    assert outcome.in_front == 3 / 4


def test_without_a_decided_pair_there_is_no_share_and_no_interval():
    outcome = summarise(pairs_of(2), [TIE, UNPARSABLE])
    assert math.isnan(outcome.all.share)
    assert math.isnan(outcome.in_front)
    assert outcome.pairs_low is outcome.pairs_high is outcome.over_runs.low is None


def test_the_interval_over_runs_is_students_of_the_units_shares():
    """The transcripts of a run count once, however many there are."""
    pairs, verdicts = [], []
    for seed, wins in enumerate((6, 5, 7)):
        pairs += pairs_of(10, seed=seed)
        verdicts += [FIRST] * wins + [SECOND] * (10 - wins)
    outcome = summarise(pairs, verdicts)
    expected = stats.ttest_1samp([0.6, 0.5, 0.7], 0).confidence_interval(0.95)
    assert outcome.over_runs.values == (0.6, 0.5, 0.7)
    assert outcome.over_runs.low == pytest.approx(expected.low, rel=1e-12)
    assert outcome.over_runs.high == pytest.approx(expected.high, rel=1e-12)
    assert [outcome.units[seed].first for seed in range(3)] == [6, 5, 7]
    few = summarise(pairs_of(5) + pairs_of(5, seed=1), [SECOND] * 9 + [FIRST])
    assert (few.over_runs.values, few.over_runs.low) == ((0.0, 0.2), 0.0)  # a share is no less
    one = summarise(pairs[:10], verdicts[:10])
    assert one.over_runs.low is one.over_runs.high is None


def test_numbers_are_compared_and_nan_is_no_answer():
    first = np.array([2.0, 1.0, 1.0, math.nan, 0.0])
    second = np.array([1.0, 2.0, 1.0, 0.0, math.nan])
    assert compare_numbers(first, second) == [FIRST, SECOND, TIE, UNPARSABLE, UNPARSABLE]


def test_bad_counts_are_refused():
    with pytest.raises(InvalidArgumentError, match="at least 1 pair, got none"):
        summarise([], [])
    with pytest.raises(InvalidShapeError, match="got 1 verdicts on 2 pairs"):
        summarise(pairs_of(2), [FIRST])
