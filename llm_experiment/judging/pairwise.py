"""Pairwise comparisons: which pairs of transcripts are shown, and what the answers amount to.

Two *sides* are compared, such as agents with a budget of 10 nats and the base policy. A side is
one run or several that differ by their seed; pairs are drawn within a *unit*: a run of the first
side and the run of the second with the same seed (or the base policy, which has no seed).
No pair is drawn twice, and within a unit every transcript is used equally often, up to one.

Who of a pair is shown in front is drawn so that in every unit it is the first side in half of the
pairs (an odd pair is tossed for). Whatever a judge owes to position alone then cancels: one that
always names the transcript in front gives each side half of the answers.

The *share* is that of the first side among the pairs that were decided; ties and answers that
name neither transcript are counted beside it. Two intervals, which answer two questions:

- *over pairs*, Wilson's score interval for a Bernoulli probability, as if pairs were independent.
  This is the published kind. It is about these trained agents, and too narrow where transcripts
  recur in several pairs;
- *over runs*, Student's interval for the mean of the units' shares. It is about training as such:
  the transcripts of one trained agent share its training. It is cut at 0 and 1, does not exist
  with one unit, and has width 0 where all units agree.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from mightnt.statistics import MeanOverRuns, ShareInterval, mean_over_runs, share_interval
from theory.errors import InvalidArgumentError, InvalidShapeError


class Verdict(Enum):
    """What was answered about a pair."""

    FIRST = "first"
    """The transcript of the first side, wherever it was shown."""
    SECOND = "second"
    """The transcript of the second side."""
    TIE = "tie"
    """Both alike; only judges that compare numbers say so."""
    UNPARSABLE = "unparsable"
    """Nothing that names one of the two, or no number to compare."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where transcripts come from.

    Attributes:
        folder: of the episodes, within the run's folder.
        n_episodes: how many there are.
    """

    folder: str
    n_episodes: int


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What is compared within a comparison: one run against another.

    Attributes:
        seed: of the runs.
        first: the run of the first side.
        second: the run of the second side.
    """

    seed: int
    first: Source
    second: Source


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two transcripts to compare.

    Attributes:
        seed: of the unit.
        first: index of the episode of the first side.
        second: index of the episode of the second side.
        swapped: the second side's transcript is shown in front.
    """

    seed: int
    first: int
    second: int
    swapped: bool


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Answers, counted.

    Attributes:
        n_pairs: how many there are.
        first: for the first side.
        second: for the second side.
        ties: for both.
        unparsable: for none.
        share: `first / (first + second)`; nan if no pair was decided.
    """

    n_pairs: int
    first: int
    second: int
    ties: int
    unparsable: int
    share: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the answers to one question about one comparison amount to.

    Attributes:
        all: every answer.
        units: the answers of each unit, by seed.
        pairs_low: lower end of Wilson's interval over pairs; None if no pair was decided.
        pairs_high: its upper end, or None.
        over_runs: the units' shares, their mean and Student's interval.
        in_front: share of the decided pairs in which the transcript in front was named; one half
            up to chance unless the judge heeds position. nan if none was decided.
    """

    all: Tally
    units: dict[int, Tally]
    pairs_low: float | None
    pairs_high: float | None
    over_runs: MeanOverRuns
    in_front: float


def draw_pairs(
    units: Sequence[Unit], n_pairs: int, *, rng: np.random.Generator
) -> tuple[Pair, ...]:
    """Draw the pairs of a comparison, as many from each unit as from any other, up to one.

    Args:
        units: of the comparison, with different seeds; earlier ones get the pairs left over.
        n_pairs: in all.
        rng: of the drawing.

    Returns:
        `n_pairs` pairs, unit by unit.

    Raises:
        InvalidArgumentError: fewer pairs than units, no units, one seed twice, or a unit without
            as many pairs as asked for.
    """
    seeds = [unit.seed for unit in units]
    if not seeds or len(set(seeds)) < len(seeds):
        raise InvalidArgumentError(
            f"a comparison needs runs of at least 1 seed, and of different seeds, got {seeds}"
        )
    if n_pairs < len(units):
        raise InvalidArgumentError(
            f"n_pairs must be >= {len(units)}, one for each seed, got {n_pairs}"
        )
    each, left = divmod(n_pairs, len(units))
    return tuple(
        pair
        for number, unit in enumerate(units)
        for pair in _draw_unit(unit, each + (number < left), rng)
    )


def _draw_unit(unit: Unit, n_pairs: int, rng: np.random.Generator) -> list[Pair]:
    n, m = unit.first.n_episodes, unit.second.n_episodes
    if n_pairs > n * m:
        raise InvalidArgumentError(
            f"{unit.first.folder} and {unit.second.folder} have {n * m} pairs of episodes, not "
            f"{n_pairs}; ask for fewer pairs or evaluate more episodes"
        )
    number = np.arange(n_pairs)
    # k -> (k mod n, k + k // lcm mod m) visits every one of the n m pairs once.
    first = rng.permutation(n)[number % n]
    second = rng.permutation(m)[(number + number // math.lcm(n, m)) % m]
    swapped = rng.permutation((number + rng.integers(2)) % 2 == 0)
    return [
        Pair(seed=unit.seed, first=int(i), second=int(j), swapped=bool(s))
        for i, j, s in zip(first, second, swapped, strict=True)
    ]


def summarise(pairs: Sequence[Pair], verdicts: Sequence[Verdict]) -> Outcome:
    """Count answers and estimate the share of the first side.

    Args:
        pairs: of one comparison, at least one.
        verdicts: one a pair.

    Raises:
        InvalidArgumentError: no pairs.
        InvalidShapeError: not as many verdicts as pairs.
    """
    if not pairs:
        raise InvalidArgumentError("a comparison needs at least 1 pair, got none")
    if len(pairs) != len(verdicts):
        raise InvalidShapeError(f"got {len(verdicts)} verdicts on {len(pairs)} pairs")
    both = list(zip(pairs, verdicts, strict=True))
    units = {
        seed: tally([verdict for pair, verdict in both if pair.seed == seed])
        for seed in dict.fromkeys(pair.seed for pair in pairs)
    }
    every = tally(verdicts)
    in_front = [
        verdict is (Verdict.SECOND if pair.swapped else Verdict.FIRST)
        for pair, verdict in both
        if verdict in (Verdict.FIRST, Verdict.SECOND)
    ]
    decided = len(in_front)
    over_pairs = (
        share_interval(every.first, decided, kind=ShareInterval.WILSON) if decided else None
    )
    return Outcome(
        all=every,
        units=units,
        pairs_low=over_pairs.low if over_pairs else None,
        pairs_high=over_pairs.high if over_pairs else None,
        over_runs=mean_over_runs((unit.share for unit in units.values()), within=(0.0, 1.0)),
        in_front=float(np.mean(in_front)) if in_front else math.nan,
    )


def tally(verdicts: Sequence[Verdict]) -> Tally:
    """Count answers."""
    first, second, ties, unparsable = (list(verdicts).count(verdict) for verdict in Verdict)
    decided = first + second
    return Tally(
        n_pairs=len(verdicts),
        first=first,
        second=second,
        ties=ties,
        unparsable=unparsable,
        share=first / decided if decided else math.nan,
    )


def compare_numbers(first: NDArray[np.float64], second: NDArray[np.float64]) -> list[Verdict]:
    """The larger of two numbers of each pair; nan on either side is no answer.

    Args:
        first: of the first side's transcripts, shape (pairs,).
        second: of the second side's, shape (pairs,).
    """
    return [_larger(x, y) for x, y in zip(first.tolist(), second.tolist(), strict=True)]


def _larger(first: float, second: float) -> Verdict:
    if math.isnan(first) or math.isnan(second):
        return Verdict.UNPARSABLE
    if first == second:
        return Verdict.TIE
    return Verdict.FIRST if first > second else Verdict.SECOND
