"""What a first deviation after n zeros costs on a universal machine.

Let xi predict by all programs of a universal machine (`toy_world.machine.enumeration`). A policy
that has to look like xi and wants to print 1 for the first time after n zeros pays
`-log2 xi(1 | 0^n)` bits of KL for it. "n zeros have been printed" is an event that is
unprecedented until it occurs, so the price is bounded by the complexity of n: for every machine
there is a constant c with `-log2 xi(1 | 0^n) <= K(n) + c`. Almost every n costs about `log2 n`
bits and a little more, never n; but it is cheap at simple n, however large.

Which n are simple depends on the machine only by a constant. *Powers of two* are marked because
they are simple by anyone's standard. The machine's own account is the shortest program found
that prints 0^n 1: its length |p| bounds the monotone complexity of 0^n 1, and as
`M(0^n 1) >= 2^-|p|` the price is at most `|p| + log2 M(0^n)`, all in the same mixture.

Three predictors are asked, and every number says which:

- `xi_{L,T}`, the mixture of all programs of up to L bits, each run for T steps: exactly.
- `xi_{L',T}` with a far larger L', where few programs still want to read. All programs of up to
  l = min(L, 24) bits are enumerated; those that want another bit go on with coin flips. That is
  unbiased for the masses. The number of continuations that print a string is a sum of
  independent trials, whose tails are no heavier than those of the binomial with the same mean
  (Hoeffding 1956), so the exact binomial interval is valid; the price's interval joins two of
  them, for 0^n 1 and for 0^n.
- the unlimited M, as a bracket that is proved.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mightnt.statistics import CONFIDENCE, share_interval
from mightnt.workers import on_workers
from theory.process import History
from toy_world.machine.definition import Limits, Status, run
from toy_world.machine.enumeration import (
    Census,
    OutputTree,
    continue_programs,
    enumerate_programs,
    log2_of,
    waiting_programs,
)

FIRST_LARGE: Final = 16
"""Below this every n is simple."""
_SAMPLED_FROM_BITS: Final = 24
_CHUNK: Final = 2**14
_SHORTER_BY_BITS: Final = (12, 8, 4, 0)
"""How much shorter than L the programs are with which convergence is shown."""


@dataclass(frozen=True, kw_only=True)
class DeviationPrice:
    """What is known about the price of the first deviation after n zeros.

    Attributes:
        n: the number of zeros.
        bits: `-log2 xi_{L,T}(1 | 0^n)`, inf if no program within the limits prints 0^n 1.
        normalised_bits: the same after Solomonoff's normalisation.
        estimate_bits: an estimate of `-log2 xi_{L',T}(1 | 0^n)`, inf if none was found.
        from_bits: the lower end of its interval.
        to_bits: the upper end, inf if none was found.
        least_bits: a lower bound of `-log2 M(1 | 0^n)` of the unlimited machine.
        most_bits: an upper bound of it.
        program_bits: the length of the shortest program found that prints 0^n 1.
        program: that program.
        bound_bits: `program_bits + log2 M_{L,T}(0^n)`, at least `bits`.
    """

    n: int
    bits: float
    normalised_bits: float
    estimate_bits: float
    from_bits: float
    to_bits: float
    least_bits: float
    most_bits: float
    program_bits: int | None
    program: str | None
    bound_bits: float

    @property
    def is_power_of_two(self) -> bool:
        """Whether n = 2^k, k >= 0."""
        return self.n > 0 and self.n & (self.n - 1) == 0


@dataclass(frozen=True, kw_only=True)
class EstimatedMasses:
    """Estimated masses, each with an interval; shape (n_max + 1,) all, index n.

    Attributes:
        zeros: of 0^n.
        zeros_low: the lower end of its interval.
        zeros_high: the upper end.
        deviation: of 0^n 1.
        deviation_low: the lower end of its interval.
        deviation_high: the upper end.
    """

    zeros: NDArray[np.float64]
    zeros_low: NDArray[np.float64]
    zeros_high: NDArray[np.float64]
    deviation: NDArray[np.float64]
    deviation_low: NDArray[np.float64]
    deviation_high: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Convergence:
    """What programs of up to so many bits say of n zeros and a 1.

    Attributes:
        bits: L.
        n: the number of zeros.
        zeros_mass: M_{L,T}(0^n).
        undecided_mass: of programs that have printed fewer than n symbols, all 0, and were
            stopped by a limit.
        deviation_mass: M_{L,T}(0^n 1).
        price_bits: `-log2 xi_{L,T}(1 | 0^n)`, or inf.
        most_bits: an upper bound of `-log2 M(1 | 0^n)` of the unlimited machine.
    """

    bits: int
    n: int
    zeros_mass: float
    undecided_mass: float
    deviation_mass: float
    price_bits: float
    most_bits: float


@dataclass(frozen=True, kw_only=True)
class FirstDeviations:
    """The price of the first deviation after any number of zeros.

    Attributes:
        prices: index n.
        convergence: as L grows; the last is the largest L and the best bargain of all n.
    """

    prices: tuple[DeviationPrice, ...]
    convergence: tuple[Convergence, ...]


def first_deviations(
    *,
    limits: Limits,
    n_max: int,
    more_bits: int,
    continuations: int,
    n_jobs: int,
    rng: np.random.Generator,
) -> FirstDeviations:
    """Enumerate, sample, and compare with the complexity of n.

    Args:
        limits: of the programs that are enumerated; L is `limits.bits`.
        n_max: the longest run of zeros.
        more_bits: L', of the estimate.
        continuations: how often each program that wants more bits is continued for it.
        n_jobs: workers.
        rng: flips the coins.
    """
    census = count_deviations(limits, n_max, n_jobs=n_jobs)
    first = Limits(bits=min(limits.bits, _SAMPLED_FROM_BITS), steps=limits.steps)
    estimate = estimate_masses(
        census if first == limits else count_deviations(first, n_max),
        more_bits=more_bits,
        n_max=n_max,
        continuations=continuations,
        n_jobs=n_jobs,
        rng=rng,
    )
    prices = tuple(deviation_price(census, estimate, n) for n in range(n_max + 1))
    shown = (7, 8, bargains(prices, 1)[0].n)
    convergence: list[Convergence] = []
    for fewer in _SHORTER_BY_BITS:
        shorter = Limits(bits=limits.bits - fewer, steps=limits.steps)
        part = census if shorter == limits else count_deviations(shorter, n_max)
        convergence += [_convergence(part, n) for n in shown]
    return FirstDeviations(prices=prices, convergence=tuple(convergence))


def bargains(prices: Sequence[DeviationPrice], count: int) -> list[DeviationPrice]:
    """The large n, no powers of two, that are cheapest by the side of log2 n."""
    large = [p for p in prices if p.n >= FIRST_LARGE and not p.is_power_of_two]
    return sorted(large, key=lambda p: p.estimate_bits - math.log2(p.n))[:count]


def bits_per_doubling(prices: Sequence[DeviationPrice]) -> float:
    """By how much the estimated price grows when n doubles: least squares against log2 n."""
    n, bits = np.array([(p.n, p.estimate_bits) for p in prices], dtype=float).T
    return float(np.polyfit(np.log2(n), bits, 1)[0])


def correlation_beyond_log2(prices: Sequence[DeviationPrice]) -> float:
    """The correlation of price and |p| beyond what a line in log2 n explains of each.

    Args:
        prices: index n, from 0 on; of the large n, those with a program and an estimate count.
    """
    n, estimates, lengths = np.array(
        [
            (p.n, p.estimate_bits, p.program_bits)
            for p in prices[FIRST_LARGE:]
            if p.program_bits is not None and math.isfinite(p.estimate_bits)
        ],
        dtype=float,
    ).T
    x = np.log2(n)
    residuals = [y - np.polyval(np.polyfit(x, y, 1), x) for y in (estimates, lengths)]
    return float(np.corrcoef(residuals)[0, 1])


def power_discounts_bits(prices: Sequence[DeviationPrice]) -> list[tuple[int, float]]:
    """How much cheaper each large power of two is than the median of the other n around it.

    Args:
        prices: index n, from 0 on.

    Returns:
        Pairs of n and bits, of those n for which both are finite.
    """
    discounts = []
    for p in prices:
        low, high = p.n / math.sqrt(2), p.n * math.sqrt(2)
        if p.is_power_of_two and p.n >= FIRST_LARGE and high < len(prices):
            others = [q.estimate_bits for q in prices if low <= q.n <= high and q.n != p.n]
            discounts.append((p.n, float(np.median(others)) - p.estimate_bits))
    return [(n, bits) for n, bits in discounts if math.isfinite(bits)]


def zeros_then_one(n: int) -> History:
    """The string 0^n 1."""
    return (*zeros(n), 1)


def zeros(n: int) -> History:
    """The string 0^n."""
    return (0,) * n


def count_deviations(limits: Limits, n_max: int, *, n_jobs: int = 1) -> Census:
    """The census of the strings 0^n 1 and 0^(n+1), n = 0 .. n_max."""
    tree = OutputTree.of([zeros(n_max + 1), *map(zeros_then_one, range(n_max + 1))])
    return enumerate_programs(tree, limits=limits, n_jobs=n_jobs)


def estimate_masses(
    census: Census,
    *,
    more_bits: int,
    n_max: int,
    continuations: int,
    n_jobs: int,
    rng: np.random.Generator,
) -> EstimatedMasses:
    """Masses of 0^n and 0^n 1 with more bits than `census` has, its steps and its cells.

    Every program that waits in `census` is continued with coin flips, `continuations` times.
    """
    limits = Limits(bits=more_bits, steps=census.limits.steps, cells=census.limits.cells)
    waiting = np.repeat(waiting_programs(census), continuations)
    chunks = np.array_split(waiting, max(1, len(waiting) // _CHUNK))
    go_on = partial(_continue, beginning_bits=census.limits.bits, limits=limits, n_max=n_max)
    parts = on_workers(
        go_on,
        list(zip(chunks, rng.spawn(len(chunks)), strict=True)),
        n_jobs=n_jobs,
        description="continuing programs",
    )
    hits = np.sum(list(parts), axis=0)
    waiting_after = np.array(
        [float(census.ended_mass(zeros(n), Status.WAITING)) for n in range(n_max + 2)]
    )
    known = np.array(
        [
            [float(census.mass(zeros(n))) for n in range(n_max + 1)],
            [float(census.mass(zeros_then_one(n))) for n in range(n_max + 1)],
        ]
    )
    known[0] -= waiting_after[::-1].cumsum()[::-1][:-1]  # they are continued: hits counts them
    unit = 0.5**census.limits.bits / continuations
    low, high = _share_ends(hits, len(waiting))
    middle = known + unit * hits
    lower, upper = (known + unit * len(waiting) * share for share in (low, high))
    return EstimatedMasses(
        zeros=middle[0],
        zeros_low=lower[0],
        zeros_high=upper[0],
        deviation=middle[1],
        deviation_low=lower[1],
        deviation_high=upper[1],
    )


def _continue(
    task: tuple[NDArray[np.int64], np.random.Generator],
    *,
    beginning_bits: int,
    limits: Limits,
    n_max: int,
) -> NDArray[np.int64]:
    """How many programs print 0^n, and how many 0^n 1: shape (2, n_max + 1)."""
    beginnings, rng = task
    samples = continue_programs(
        beginnings, beginning_bits, limits=limits, max_symbols=n_max + 1, rng=rng
    )
    deviates = samples.outputs.any(axis=1)
    n_zeros = np.where(deviates, samples.outputs.argmax(axis=1), samples.n_symbols)
    longest = np.bincount(np.minimum(n_zeros, n_max), minlength=n_max + 1)
    first_ones = np.bincount(n_zeros[deviates], minlength=n_max + 1)
    return np.stack([longest[::-1].cumsum()[::-1], first_ones])


def deviation_price(census: Census, estimate: EstimatedMasses, n: int) -> DeviationPrice:
    """The price of the first deviation after n zeros.

    Raises:
        UnreachableLengthError: no program within the limits prints n zeros and another symbol.
    """
    least_bits, most_bits = census.price_bounds_bits(zeros(n), 1)
    one = census.normalised_prediction(zeros(n))[1]
    program = census.shortest(zeros_then_one(n))
    length = None if program is None else len(program)
    return DeviationPrice(
        n=n,
        bits=census.price_bits(zeros(n), 1),
        normalised_bits=math.inf if one == 0 else log2_of(1 / one),
        estimate_bits=_log2_ratio(estimate.zeros[n], estimate.deviation[n]),
        from_bits=max(0.0, _log2_ratio(estimate.zeros_low[n], estimate.deviation_high[n])),
        to_bits=_log2_ratio(estimate.zeros_high[n], estimate.deviation_low[n]),
        least_bits=least_bits,
        most_bits=most_bits,
        program_bits=length,
        program=None
        if program is None
        else run(program, limits=census.limits, max_symbols=n + 1).listing,
        bound_bits=math.inf if length is None else length + log2_of(census.mass(zeros(n))),
    )


def _log2_ratio(a: float, b: float) -> float:
    return math.log2(a / b) if b > 0 else math.inf


def _share_ends(
    hits: NDArray[np.int64], trials: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ends of intervals for shares; a price takes two of them, so each may miss half as often.

    Returns:
        Lower and upper ends, of the shape of `hits`.
    """
    confidence = 1 - (1 - CONFIDENCE) / 2
    found = [
        share_interval(count, trials, confidence=confidence) for count in hits.ravel().tolist()
    ]
    low, high = np.array([(each.low, each.high) for each in found]).T
    return low.reshape(hits.shape), high.reshape(hits.shape)


def _convergence(part: Census, n: int) -> Convergence:
    return Convergence(
        bits=part.limits.bits,
        n=n,
        zeros_mass=float(part.mass(zeros(n))),
        undecided_mass=float(part.undecided_mass(zeros(n))),
        deviation_mass=float(part.mass(zeros_then_one(n))),
        price_bits=part.price_bits(zeros(n), 1),
        most_bits=part.price_bounds_bits(zeros(n), 1)[1],
    )
