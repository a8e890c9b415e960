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
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import beta

from mightnt.figure_style import BLUE, GREY, VERMILLION, new_figure
from mightnt.workers import on_workers
from theory.errors import InvalidArgumentError
from theory.paper import Statement
from theory.process import History
from toy_world.demo import Column, Demo, DemoOptions, DemoResult, DemoTable, Evidence
from toy_world.machine.definition import Limits, Status, run
from toy_world.machine.enumeration import (
    Census,
    OutputTree,
    continue_programs,
    enumerate_programs,
    log2_of,
    waiting_programs,
)

CONFIDENCE: Final = 0.95
_SAMPLED_FROM_BITS: Final = 24
_CHUNK: Final = 2**14
_FIRST_LARGE: Final = 16
"""Below this every n is simple."""


@dataclass(frozen=True, kw_only=True)
class SolomonoffOptions(DemoOptions):
    """What a first deviation after n zeros costs, by every program of a universal machine."""

    bits: int = 28
    """L: all programs of up to so many bits are run, 20 to 40; each bit more takes twice the
    time (28 bits: a few seconds)."""
    steps: int = 2000
    """T: the steps a program may take, at least 4 n-max."""
    n_max: int = 256
    """The longest run of zeros, 32 to 1024."""
    more_bits: int = 512
    """L': the estimate takes programs of up to so many bits, 32 to 4096."""
    continuations: int = 1
    """How often each program that wants more is continued with coin flips for the estimate."""
    jobs: int = 2
    """Threads, or joblib's worker count."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least, most in (
            ("bits", 20, min(40, self.more_bits)),
            ("n_max", 32, 1024),
            ("steps", 4 * self.n_max, 10**9),
            ("more_bits", 32, 4096),
            ("continuations", 1, 10**6),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                option = "--" + name.replace("_", "-")
                raise InvalidArgumentError(f"{option} must lie in {least}..{most}, got {value}")
        if self.jobs == 0:
            raise InvalidArgumentError("--jobs must not be 0 (negative counts from all cores)")


@dataclass(frozen=True, kw_only=True)
class Price:
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
class Estimate:
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
) -> Estimate:
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
    tail = (1 - CONFIDENCE) / 4  # two ends of two intervals
    low = np.where(hits > 0, beta.ppf(tail, hits, len(waiting) - hits + 1), 0.0)
    high = np.where(hits < len(waiting), beta.ppf(1 - tail, hits + 1, len(waiting) - hits), 1.0)
    middle = known + unit * hits
    lower, upper = (known + unit * len(waiting) * share for share in (low, high))
    return Estimate(
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


def price(census: Census, estimate: Estimate, n: int) -> Price:
    """The price of the first deviation after n zeros.

    Raises:
        UnreachableLengthError: no program within the limits prints n zeros and another symbol.
    """
    least_bits, most_bits = census.price_bounds_bits(zeros(n), 1)
    one = census.normalised_prediction(zeros(n))[1]
    program = census.shortest(zeros_then_one(n))
    length = None if program is None else len(program)
    return Price(
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


def compute(options: SolomonoffOptions) -> DemoResult:
    """Enumerate, sample, and compare with the complexity of n."""
    limits = Limits(bits=options.bits, steps=options.steps)
    census = count_deviations(limits, options.n_max, n_jobs=options.jobs)
    first = Limits(bits=min(options.bits, _SAMPLED_FROM_BITS), steps=options.steps)
    estimate = estimate_masses(
        census if first == limits else count_deviations(first, options.n_max),
        more_bits=options.more_bits,
        n_max=options.n_max,
        continuations=options.continuations,
        n_jobs=options.jobs,
        rng=options.rng(),
    )
    prices = [price(census, estimate, n) for n in range(options.n_max + 1)]
    cheapest = bargains(prices, 1)[0]
    return DemoResult(
        name="solomonoff",
        statements=(Statement.SIMPLE_EVENTS, Statement.LITTLE_CONSTRAINT),
        findings=_findings(options, census, prices, cheapest),
        tables=(
            _price_table(options, prices),
            _proof_table(options, prices),
            _convergence_table(options, census, cheapest.n),
        ),
        data={"prices": prices, "options": options},
    )


def shown(prices: Sequence[Price]) -> list[Price]:
    """The rows of the tables: small n, powers of two and their neighbours, and bargains."""
    chosen = set(range(10)) | {p.n for p in bargains(prices, 4)} | {len(prices) - 1}
    for p in prices:
        if p.is_power_of_two:
            chosen |= {p.n - 1, p.n, p.n + 1}
    return [p for p in prices if p.n in chosen]


def bargains(prices: Sequence[Price], count: int) -> list[Price]:
    """The large n, no powers of two, that are cheapest by the side of log2 n."""
    large = [p for p in prices if p.n >= _FIRST_LARGE and not p.is_power_of_two]
    return sorted(large, key=lambda p: p.estimate_bits - math.log2(p.n))[:count]


def _price_table(options: SolomonoffOptions, prices: Sequence[Price]) -> DemoTable:
    return DemoTable(
        title="The price of the first deviation after n zeros, in bits",
        columns=(
            Column(header="n"),
            Column(header="log2 n", evidence=Evidence.EXACT),
            Column(header=f"L = {options.bits}", evidence=Evidence.EXACT),
            Column(header=f"L' = {options.more_bits}", evidence=Evidence.MONTE_CARLO),
            Column(header="|p|", evidence=Evidence.EXACT),
            Column(header="p"),
        ),
        rows=tuple(
            (
                p.n,
                math.log2(p.n) if p.n else None,
                _finite(p.bits),
                f"{p.estimate_bits:.2f} [{p.from_bits:.2f}, {p.to_bits:.2f}]",
                p.program_bits,
                p.program or f"none of up to {options.bits} bits",
            )
            for p in shown(prices)
        ),
        note=(
            f"Mixtures of all programs of up to L bits, T = {options.steps} steps each: exactly, "
            f"or with a {CONFIDENCE:.0%} interval. p: the shortest program found for 0^n 1."
        ),
    )


def _proof_table(options: SolomonoffOptions, prices: Sequence[Price]) -> DemoTable:
    return DemoTable(
        title="Bounds that are proved, in bits",
        columns=(
            Column(header="n"),
            Column(header="normalised", evidence=Evidence.EXACT),
            Column(header="price", evidence=Evidence.EXACT),
            Column(header="<= |p| + log2 M", evidence=Evidence.EXACT),
            Column(header="unlimited M: >=", evidence=Evidence.CERTIFIED),
            Column(header="<=", evidence=Evidence.CERTIFIED),
        ),
        rows=tuple(
            (
                p.n,
                _finite(p.normalised_bits),
                _finite(p.bits),
                _finite(p.bound_bits),
                p.least_bits,
                _finite(p.most_bits),
            )
            for p in shown(prices)
        ),
        note=(
            f"The first three columns: programs of up to L = {options.bits} bits and "
            f"T = {options.steps} steps, exactly; normalised as Solomonoff did. The last two: "
            "the machine without limits, whatever the undecided programs may do."
        ),
    )


def _convergence_table(options: SolomonoffOptions, census: Census, cheapest: int) -> DemoTable:
    rows: list[tuple[Any, ...]] = []
    for bits in range(options.bits - 12, options.bits + 1, 4):
        limits = Limits(bits=bits, steps=options.steps)
        part = census if bits == options.bits else count_deviations(limits, options.n_max)
        rows.extend(
            (
                bits,
                n,
                float(part.mass(zeros(n))),
                float(part.undecided_mass(zeros(n))),
                float(part.mass(zeros_then_one(n))),
                _finite(part.price_bits(zeros(n), 1)),
                _finite(part.price_bounds_bits(zeros(n), 1)[1]),
            )
            for n in (7, 8, cheapest)
        )
    return DemoTable(
        title=f"The same as L grows, T = {options.steps}",
        columns=(
            Column(header="L"),
            Column(header="n"),
            Column(header="M_LT(0^n)", evidence=Evidence.EXACT),
            Column(header="undecided", evidence=Evidence.EXACT),
            Column(header="M_LT(0^n 1)", evidence=Evidence.EXACT),
            Column(header="price (bits)", evidence=Evidence.EXACT),
            Column(header="unlimited M: <=", evidence=Evidence.CERTIFIED),
        ),
        rows=tuple(rows),
        note=(
            "Masses only grow with L and T. Undecided: the mass of programs that have printed "
            "fewer than n symbols, all 0, and were stopped by a limit."
        ),
    )


def _findings(
    options: SolomonoffOptions, census: Census, prices: Sequence[Price], cheapest: Price
) -> tuple[str, ...]:
    estimated = [p for p in prices if p.n >= 4 and math.isfinite(p.to_bits)]
    slack = [p.bound_bits - p.bits for p in prices if math.isfinite(p.bits)]
    last = estimated[-1]
    findings = [
        f"The price follows log2 n, not n: it grows by "
        f"{_slope([(p.n, p.estimate_bits) for p in estimated]):.2f} bits when n doubles "
        f"(L' = {options.more_bits}, {len(estimated)} values n >= 4) and is "
        f"{last.estimate_bits:.1f} bits at n = {last.n}.",
        "It follows the complexity of n: the length |p| of the shortest program found explains "
        f"what log2 n does not (their residuals against log2 n correlate by "
        f"{_explained(prices):.2f}, n >= {_FIRST_LARGE}). At L = {options.bits}, |p| + log2 M(0^n) "
        f"exceeds the price by {min(slack):.2f} to {max(slack):.2f} bits, {np.median(slack):.2f} "
        "in the median.",
    ]
    discounts = _power_discounts_bits(prices)
    if discounts:
        findings.append(
            "A power of two is cheaper than the median of the other n within a factor of "
            f"sqrt(2) (L' = {options.more_bits}): by "
            f"{', '.join(f'{d:.1f} (n = {n})' for n, d in discounts)} bits."
        )
    dearer = next((p for p in prices[: cheapest.n] if p.from_bits > cheapest.to_bits), None)
    if dearer is not None:
        findings.append(
            f"Large and simple beats small and not: after {cheapest.n} zeros ({cheapest.program}) "
            f"the price is {cheapest.estimate_bits:.2f} bits, "
            f"{cheapest.estimate_bits * math.log(2):.2f} nats of a KL budget, less than after "
            f"{dearer.n} ({dearer.estimate_bits:.2f} bits; L' = {options.more_bits}, the intervals "
            "do not meet)."
        )
    missing = [p.n for p in prices if p.program is None]
    if missing:
        findings.append(
            f"No program of up to {options.bits} bits prints 0^n 1 for {len(missing)} of the n, "
            f"the first {missing[0]}: there the price at L = {options.bits} is infinite."
        )
    findings.append(
        f"For the unlimited M the price after {cheapest.n} zeros is proved to be at most "
        f"{cheapest.most_bits:.2f} bits. From below only {cheapest.least_bits:.2f} bits are "
        f"proved: {float(census.undecided_mass(zeros(cheapest.n))):.3f} of all programs are "
        f"undecided, {float(census.mass(zeros(cheapest.n))):.3f} print the zeros. That the price "
        "is high at complex n is computed for mixtures with limits; for M it is known from the "
        "literature only."
    )
    return tuple(findings)


def _slope(points: Sequence[tuple[int, float]]) -> float:
    """Least squares against log2 n."""
    n, bits = np.array(points, dtype=float).T
    return float(np.polyfit(np.log2(n), bits, 1)[0])


def _explained(prices: Sequence[Price]) -> float:
    """The correlation of price and |p| beyond what a line in log2 n explains of each."""
    n, estimates, lengths = np.array(
        [
            (p.n, p.estimate_bits, p.program_bits)
            for p in prices[_FIRST_LARGE:]
            if p.program_bits is not None and math.isfinite(p.estimate_bits)
        ],
        dtype=float,
    ).T
    x = np.log2(n)
    residuals = [y - np.polyval(np.polyfit(x, y, 1), x) for y in (estimates, lengths)]
    return float(np.corrcoef(residuals)[0, 1])


def _power_discounts_bits(prices: Sequence[Price]) -> list[tuple[int, float]]:
    """How much cheaper each power of two is than the median of the other n around it."""
    discounts = []
    for p in prices:
        if p.is_power_of_two and p.n >= _FIRST_LARGE and 1.5 * p.n < len(prices):
            low, high = p.n / math.sqrt(2), p.n * math.sqrt(2)
            others = [q.estimate_bits for q in prices if low <= q.n <= high and q.n != p.n]
            discounts.append((p.n, float(np.median(others)) - p.estimate_bits))
    return [(n, bits) for n, bits in discounts if math.isfinite(bits)]


def draw(result: DemoResult) -> Figure:
    """The price against n, and against the length of the shortest program."""
    options: SolomonoffOptions = result.data["options"]
    every: list[Price] = result.data["prices"]
    prices = [p for p in every if p.n and math.isfinite(p.to_bits)]
    figure = new_figure(height_inches=3.6)
    against_n, against_program = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for members, label, look in (
        (
            [p for p in prices if not p.is_power_of_two],
            "any other n",
            {"color": GREY, "marker": "o", "markersize": 2.2, "zorder": 1},
        ),
        (
            [p for p in prices if p.is_power_of_two],
            "n a power of two",
            {"color": BLUE, "marker": "D", "zorder": 2},
        ),
        (
            bargains(prices, 2),
            "simpler still",
            {"color": VERMILLION, "marker": "s", "zorder": 3},
        ),
    ):
        _plot(against_n, against_program, members, label, look)
    n = np.array([p.n for p in prices], dtype=float)
    top = max(p.to_bits for p in prices) + 0.5
    against_n.plot(n, np.log2(n), color="black", linestyle="--", linewidth=1)
    against_n.text(16.0, 3.6, "log2 n", va="top")
    against_n.plot(n[n <= top], n[n <= top], color="black", linestyle=":", linewidth=1)
    against_n.text(0.95 * top, 0.9 * top, "n")
    for p in bargains(prices, 2):
        against_n.annotate(
            f"{p.n}: {p.program or 'longer'} ",
            (p.n, p.estimate_bits),
            xytext=(-4, -5),
            textcoords="offset points",
            ha="right",
            va="center",
            color=VERMILLION,
            fontsize=7.5,
        )
    against_n.set_xscale("log", base=2)
    against_n.set_ylim(0, top)
    against_n.set_xlabel("n, the zeros before the first 1")
    against_n.set_ylabel(f"price of the 1 in bits (L' = {options.more_bits}, {CONFIDENCE:.0%})")
    against_n.set_title("Breaking off is cheap at simple times n, ...")
    against_n.legend(loc="upper left")
    against_program.set_xlabel("shortest program that prints 0...01, bits")
    against_program.set_title("... those that a short program can name")
    return figure


def _plot(
    against_n: Axes, against_program: Axes, prices: Sequence[Price], label: str, look: Any
) -> None:
    points = np.array([p.estimate_bits for p in prices])
    ends = np.array([[p.from_bits, p.to_bits] for p in prices]).reshape(-1, 2).T
    against_n.errorbar(
        [p.n for p in prices],
        points,
        yerr=np.abs(ends - points),
        linestyle="",
        elinewidth=0.5,
        label=label,
        **look,
    )
    known = [(p.program_bits, p.estimate_bits) for p in prices if p.program_bits is not None]
    against_program.plot(*zip(*known, strict=True), linestyle="", **look)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


DEMO: Final = Demo(name="solomonoff", options_type=SolomonoffOptions, run=compute, draw=draw)

if __name__ == "__main__":
    DEMO.main()
