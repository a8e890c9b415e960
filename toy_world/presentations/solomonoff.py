"""What a first deviation after n zeros costs on a universal machine.

See `toy_world.studies.first_deviation`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mightnt.figure_style import BLUE, GREY, VERMILLION, new_figure
from mightnt.statistics import CONFIDENCE
from mightnt.tables import Column, Evidence, Table, Written
from theory.paper import Statement
from toy_world.demo import Presentation
from toy_world.demo_solomonoff import SolomonoffOptions
from toy_world.machine.definition import Limits
from toy_world.studies.first_deviation import (
    FIRST_LARGE,
    Convergence,
    DeviationPrice,
    FirstDeviations,
    bargains,
    bits_per_doubling,
    correlation_beyond_log2,
    first_deviations,
    power_discounts_bits,
)


@dataclass(frozen=True, kw_only=True)
class SolomonoffData(FirstDeviations):
    """The prices, and the options behind them for those who read `data` alone."""

    options: SolomonoffOptions


def compute(options: SolomonoffOptions) -> SolomonoffData:
    """Enumerate, sample, and compare with the complexity of n."""
    found = first_deviations(
        limits=Limits(bits=options.bits, steps=options.steps),
        n_max=options.n_max,
        more_bits=options.more_bits,
        continuations=options.continuations,
        n_jobs=options.jobs,
        rng=options.rng(),
    )
    return SolomonoffData(prices=found.prices, convergence=found.convergence, options=options)


def tables(options: SolomonoffOptions, data: FirstDeviations) -> tuple[Table, ...]:
    """Prices, bounds that are proved, and convergence."""
    return (
        _price_table(options, data.prices),
        _proof_table(options, data.prices),
        _convergence_table(options, data.convergence),
    )


def shown(prices: Sequence[DeviationPrice]) -> list[DeviationPrice]:
    """The rows of the tables: small n, powers of two and their neighbours, and bargains."""
    chosen = set(range(10)) | {p.n for p in bargains(prices, 4)} | {len(prices) - 1}
    for p in prices:
        if p.is_power_of_two:
            chosen |= {p.n - 1, p.n, p.n + 1}
    return [p for p in prices if p.n in chosen]


def _price_table(options: SolomonoffOptions, prices: Sequence[DeviationPrice]) -> Table:
    return Table(
        name="prices",
        title="The price of the first deviation after n zeros, in bits",
        columns=(
            Column(header="n"),
            Column(header="log2 n", evidence=Evidence.EXACT),
            Column(header=f"L = {options.bits}", evidence=Evidence.EXACT),
            Column(header=f"L' = {options.more_bits}", evidence=Evidence.MONTE_CARLO),
            Column(header="|p|", evidence=Evidence.EXACT, key="p_bits"),
            Column(header="p"),
        ),
        rows=tuple(
            (
                p.n,
                math.log2(p.n) if p.n else None,
                _finite(p.bits),
                Written(
                    f"{p.estimate_bits:.2f} [{p.from_bits:.2f}, {p.to_bits:.2f}]",
                    {"": p.estimate_bits, "low": p.from_bits, "high": p.to_bits},
                ),
                p.program_bits,
                p.program or Written(f"none of up to {options.bits} bits", {"": None}),
            )
            for p in shown(prices)
        ),
        notes=(
            f"Mixtures of all programs of up to L bits, T = {options.steps} steps each: exactly, "
            f"or with a {CONFIDENCE:.0%} interval. p: the shortest program found for 0^n 1.",
        ),
    )


def _proof_table(options: SolomonoffOptions, prices: Sequence[DeviationPrice]) -> Table:
    return Table(
        name="bounds",
        title="Bounds that are proved, in bits",
        columns=(
            Column(header="n"),
            Column(header="normalised", evidence=Evidence.EXACT),
            Column(header="price", evidence=Evidence.EXACT),
            Column(header="<= |p| + log2 M", evidence=Evidence.EXACT, key="price_bound"),
            Column(header="unlimited M: >=", evidence=Evidence.CERTIFIED, key="unlimited_at_least"),
            Column(header="<=", evidence=Evidence.CERTIFIED, key="unlimited_at_most"),
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
        notes=(
            f"The first three columns: programs of up to L = {options.bits} bits and "
            f"T = {options.steps} steps, exactly; normalised as Solomonoff did. The last two: "
            "the machine without limits, whatever the undecided programs may do.",
        ),
    )


def _convergence_table(options: SolomonoffOptions, rows: Sequence[Convergence]) -> Table:
    return Table(
        name="convergence",
        title=f"The same as L grows, T = {options.steps}",
        columns=(
            Column(header="L"),
            Column(header="n"),
            Column(header="M_LT(0^n)", evidence=Evidence.EXACT),
            Column(header="undecided", evidence=Evidence.EXACT),
            Column(header="M_LT(0^n 1)", evidence=Evidence.EXACT),
            Column(header="price (bits)", evidence=Evidence.EXACT),
            Column(header="unlimited M: <=", evidence=Evidence.CERTIFIED, key="unlimited_at_most"),
        ),
        rows=tuple(
            (
                row.bits,
                row.n,
                row.zeros_mass,
                row.undecided_mass,
                row.deviation_mass,
                _finite(row.price_bits),
                _finite(row.most_bits),
            )
            for row in rows
        ),
        notes=(
            "Masses only grow with L and T. Undecided: the mass of programs that have printed "
            "fewer than n symbols, all 0, and were stopped by a limit.",
        ),
    )


def findings(options: SolomonoffOptions, data: FirstDeviations) -> tuple[str, ...]:
    """What the price follows, where it is low, and what is proved."""
    prices, last_convergence = data.prices, data.convergence[-1]
    cheapest = bargains(prices, 1)[0]
    estimated = [p for p in prices if p.n >= 4 and math.isfinite(p.to_bits)]
    slack = [p.bound_bits - p.bits for p in prices if math.isfinite(p.bits)]
    last = estimated[-1]
    findings = [
        f"The price follows log2 n, not n: it grows by "
        f"{bits_per_doubling(estimated):.2f} bits when n doubles "
        f"(L' = {options.more_bits}, {len(estimated)} values n >= 4) and is "
        f"{last.estimate_bits:.1f} bits at n = {last.n}.",
        "It follows the complexity of n: the length |p| of the shortest program found explains "
        f"what log2 n does not (their residuals against log2 n correlate by "
        f"{correlation_beyond_log2(prices):.2f}, n >= {FIRST_LARGE}). "
        f"At L = {options.bits}, |p| + log2 M(0^n) exceeds the price by {min(slack):.2f} "
        f"to {max(slack):.2f} bits, {np.median(slack):.2f} in the median.",
    ]
    discounts = power_discounts_bits(prices)
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
        f"proved: {last_convergence.undecided_mass:.3f} of all programs are "
        f"undecided, {last_convergence.zeros_mass:.3f} print the zeros. That the price "
        "is high at complex n is computed for mixtures with limits; for M it is known from the "
        "literature only."
    )
    return tuple(findings)


def draw(options: SolomonoffOptions, data: FirstDeviations) -> Figure:
    """The price against n, and against the length of the shortest program."""
    prices = [p for p in data.prices if p.n and math.isfinite(p.to_bits)]
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
    against_n: Axes, against_program: Axes, prices: Sequence[DeviationPrice], label: str, look: Any
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


PRESENTATION: Final = Presentation(
    name="solomonoff",
    statements=(Statement.SIMPLE_EVENTS, Statement.LITTLE_CONSTRAINT),
    options_type=SolomonoffOptions,
    data_type=SolomonoffData,
    compute=compute,
    tables=tables,
    findings=findings,
    draw=draw,
)
