"""What deviating costs, and what a budget buys, in familiar and in novel situations.

See `toy_world.studies.theorem1`.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from joblib import cpu_count, parallel_config
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mightnt.clusters import on_cluster
from mightnt.figure_style import BLACK, BLUE, GREEN, GREY, VERMILLION, new_figure
from mightnt.tables import Column, Evidence, Table, Written
from theory.bounds import NATS_PER_BIT
from theory.paper import Statement
from toy_world.demo import Presentation
from toy_world.demo_theorem1 import Theorem1Options
from toy_world.studies.theorem1 import (
    N_BUDGETS,
    DeviationPrices,
    Frontier,
    Kind,
    Price,
    deviation_prices,
)
from toy_world.worlds.setting import setting_of

_BEYOND: Final = "beyond L"
_LOOKS: Final[dict[Kind, Any]] = {
    Kind.FAMILIAR: {"color": VERMILLION, "marker": "s"},
    Kind.ROUND: {"color": GREEN, "marker": "D"},
    Kind.NOVEL: {"color": BLUE, "marker": "o"},
}
_TABLE_STEP: Final = 3
"""The table of frontiers holds every third of their points."""


def compute(options: Theorem1Options) -> DeviationPrices:
    """Price deviations after ever longer demonstrations.

    Raises:
        UnreachableLengthError: L cannot hold the demonstrator's switched version.
    """
    workers = (
        parallel_config(n_jobs=options.jobs or cpu_count())
        if options.cluster is None
        else on_cluster(options.cluster, "--cluster")
    )
    with workers:
        return deviation_prices(
            setting_of(options.world, horizon=options.horizon),
            limit_bits=options.bits,
            n_steps=options.steps,
            rng=options.rng(),
        )


def _of_kind(prices: Sequence[Price], *kinds: Kind) -> list[Price]:
    return [price for price in prices if price.kind in kinds]


def tables(options: Theorem1Options, data: DeviationPrices) -> tuple[Table, ...]:
    """Prices in both situations, what pi gains, and the frontiers."""
    del options
    return (
        _price_table(data, Kind.NOVEL),
        _price_table(data, Kind.FAMILIAR, Kind.ROUND),
        _gain_table(data.prices),
        _frontier_table(data.frontiers),
    )


def _price_table(data: DeviationPrices, *kinds: Kind) -> Table:
    chosen = _of_kind(data.prices, *kinds)
    which = "novel" if Kind.NOVEL in kinds else "familiar"
    return Table(
        name=which,
        title=f"Price of deviating in the {which} situation, L = {data.limit_bits}",
        columns=(
            Column(header="k"),
            Column(header="shortest new\nevent E", evidence=Evidence.EXACT),
            Column(header="len(E),\nDelta\nbits", evidence=Evidence.EXACT, key="bits"),
            Column(header="KL\nnats", evidence=Evidence.FLOAT),
            Column(header="bound\nnats", evidence=Evidence.FLOAT),
            Column(header="as\nprinted", evidence=Evidence.FLOAT),
            Column(header="L = inf\nnats", evidence=Evidence.EXACT),
        ),
        rows=tuple(
            (
                price.n_steps,
                price.predicate,
                _bits(price),
                price.fixed_kl_nats if price.within_limit else Written(_BEYOND, {"": None}),
                price.bound_nats if price.within_limit else None,
                price.bound_as_printed_nats if price.within_limit else None,
                price.bound_over_all_programs_nats,
            )
            for price in chosen
        ),
        notes=(_price_note(data.agent, chosen),),
    )


def _bits(price: Price) -> Written:
    """Lengths of the event and of what the switch adds."""
    at_most = "" if price.event_is_shortest else "<="
    return Written(
        f"{at_most}{price.event_bits}, {price.delta_bits}",
        {
            "of_event": price.event_bits,
            "delta": price.delta_bits,
            "of_event_are_least": price.event_is_shortest,
        },
    )


def _price_note(agent: str, chosen: Sequence[Price]) -> str:
    notes = [
        "KL: of pi to xi, with fixed observations (the paper's reading). bound: Delta ln 2 - "
        "ln rho; as printed: Delta / ln 2 - ln rho; L = inf: Delta ln 2, for programs of every "
        "length."
    ]
    if not all(price.within_limit for price in chosen):
        notes.append(
            f"{_BEYOND}: len(tau) + Delta = {chosen[0].demonstrator_bits} + Delta > L, so the "
            f"mixture does not hold switch(E, {agent}, tau)."
        )
    if not all(price.event_is_shortest for price in chosen):
        notes.append(f"<=: no event of up to {chosen[0].searched_bits} bits would do.")
    return " ".join(notes)


def _gain_table(prices: Sequence[Price]) -> Table:
    ends = []
    for kind in (Kind.NOVEL, Kind.FAMILIAR, Kind.ROUND):
        within = [price for price in _of_kind(prices, kind) if price.within_limit]
        ends += within[:1] + within[1:][-1:]
    return Table(
        name="costs",
        title="What the constructed policy pi costs in each reading, nats, and gains",
        columns=(
            Column(header="situation"),
            Column(header="k"),
            Column(header="fixed", evidence=Evidence.FLOAT),
            Column(header="adaptive", evidence=Evidence.FLOAT),
            Column(header="expected", evidence=Evidence.FLOAT),
            Column(header="KL\nto tau", evidence=Evidence.EXACT),
            Column(header="V^pi / V*", evidence=Evidence.FLOAT, key="value"),
        ),
        rows=tuple(
            (
                price.kind.value,
                price.n_steps,
                price.fixed_kl_nats,
                price.adaptive_kl_nats,
                price.expected_kl_nats,
                price.kl_to_tau_nats,
                Written(
                    f"{price.value:.4g} / {price.best_value:.4g}",
                    {"": price.value, "best": price.best_value},
                ),
            )
            for price in ends
        ),
        notes=("The first and the last k of each kind within L; the JSON holds them all.",),
    )


def _frontier_table(frontiers: Sequence[Frontier]) -> Table:
    return Table(
        name="frontier",
        title="V*(budget): the greatest value within a budget of expected KL to xi",
        columns=(
            Column(header="budget\nnats"),
            *(
                Column(
                    header=f"{frontier.kind.value}\n{frontier.n_steps}",
                    evidence=Evidence.CERTIFIED,
                )
                for frontier in frontiers
            ),
        ),
        rows=tuple(
            (frontiers[0].budgets_nats[i], *(frontier.values[i] for frontier in frontiers))
            for i in range(0, N_BUDGETS, _TABLE_STEP)
        ),
        notes=("By soft value iteration; every value has a dual bound.",),
    )


def findings(options: Theorem1Options, data: DeviationPrices) -> tuple[str, ...]:
    """Novel, familiar and round situations, the frontiers, and the mixture."""
    del options
    novel, familiar = _of_kind(data.prices, Kind.NOVEL), _of_kind(data.prices, Kind.FAMILIAR)
    kl, bound, printed = (
        f"{min(numbers):.2f} to {max(numbers):.2f}"
        for numbers in (
            [price.fixed_kl_nats for price in novel],
            [price.bound_nats for price in novel],
            [price.bound_as_printed_nats for price in novel],
        )
    )
    last, first = familiar[-1], familiar[0]
    beyond = [price for price in familiar if not price.within_limit]
    mixture = data.mixture
    return (
        f"Novel situation ({novel[-1].event}): KL(pi||xi) = "
        f"{kl} nats for k = {novel[0].n_steps:,} to {novel[-1].n_steps:,} steps of demonstration, "
        f"under a bound of {bound} ({printed} as printed): more data buys no more safety. "
        f"pi reaches {novel[-1].value:.3g} of V* = {novel[-1].best_value:.3g}, and "
        f"KL(pi||tau) = {novel[-1].kl_to_tau_nats}.",
        f"Familiar situation: only the clock is new. Delta grows from {first.delta_bits} bits at "
        f"k = {first.n_steps:,} to {last.delta_bits} bits at k = {last.n_steps:,}, like log2 k + "
        "2 log2 log2 k; the bound over all programs from "
        f"{first.bound_over_all_programs_nats:.1f} to "
        f"{last.bound_over_all_programs_nats:.1f} nats."
        + (
            f" From k = {beyond[0].n_steps:,} on it takes a mixture of L >= "
            f"{beyond[0].needed_bits} bits to hold the switched version of tau."
            if beyond
            else ""
        ),
        *_round_finding(data.prices),
        _frontier_finding(data.frontiers),
        f"The mixture: {mixture.n_programs:,} policy programs of at most "
        f"{data.limit_bits} bits in {mixture.n_classes:,} classes that are alive after "
        f"{mixture.n_first_steps} steps; prior mass left out "
        f"{float(mixture.prior_mass_left_out):.4f}, exactly {mixture.prior_mass_left_out}.",
        "Readings: for a policy mixture that every action updates the bound holds in all three "
        "readings of the constraint. For a joint predictor it does not in general.",
    )


def _round_finding(prices: Sequence[Price]) -> tuple[str, ...]:
    cheap = [price for price in _of_kind(prices, Kind.ROUND) if price.within_limit]
    return tuple(
        f"Round times are simple: at k = {price.n_steps:,} the event has {price.event_bits} bits "
        f"and KL(pi||xi) = {price.fixed_kl_nats:.2f} nats (Proposition 2 at work)."
        for price in cheap[-1:]
    )


def _frontier_finding(frontiers: Sequence[Frontier]) -> str:
    parts = []
    for frontier in frontiers:
        enough = [
            budget
            for budget, value in zip(frontier.budgets_nats, frontier.values, strict=True)
            if value >= frontier.best_value / 2
        ]
        need = f"{enough[0]:.1f}" if enough else f"over {frontier.budgets_nats[-1]:.1f}"
        parts.append(f"{frontier.label}: {need}")
    return (
        "The planner's best policy reaches half of V* within an expected KL, in nats, of "
        f"{'; '.join(parts)}."
    )


def draw(options: Theorem1Options, data: DeviationPrices) -> Figure:
    """Price against k, and V* against the budget."""
    del options
    figure = new_figure(height_inches=3.6)
    against_k, against_budget = figure.subplots(1, 2, width_ratios=(1.5, 1.0))
    _draw_prices(against_k, data)
    _draw_frontiers(against_budget, data.frontiers)
    return figure


def _draw_prices(axes: Axes, data: DeviationPrices) -> None:
    points = data.prices
    top = 1.12 * max(point.bound_over_all_programs_nats for point in points)
    of_kind = {kind: [point for point in points if point.kind is kind] for kind in Kind}
    k = np.geomspace(10, max(point.n_steps for point in points), 200)
    reference = data.constant_bits + np.log2(k) + 2 * np.log2(np.log2(k))
    axes.plot(k, reference * NATS_PER_BIT, color=BLACK, linestyle=":", linewidth=1.0)
    for kind, look in _LOOKS.items():
        for within, filled in ((True, "full"), (False, "none")):
            chosen = [point for point in of_kind[kind] if point.within_limit is within]
            price = "fixed_kl_nats" if within else "bound_over_all_programs_nats"
            axes.plot(*_columns(chosen, price), linestyle="", fillstyle=filled, zorder=3, **look)
    for kind, bound, style in (
        (Kind.NOVEL, "bound_nats", "-"),
        (Kind.NOVEL, "bound_as_printed_nats", "--"),
        (Kind.FAMILIAR, "bound_nats", "-"),
    ):
        chosen = [point for point in of_kind[kind] if point.within_limit]
        axes.plot(*_columns(chosen, bound), linestyle=style, color=_LOOKS[kind]["color"])
    limit = (data.limit_bits - data.demonstrator_bits) * NATS_PER_BIT
    if limit < top:
        axes.axhspan(limit, top, facecolor="none", edgecolor=GREY, hatch="///", alpha=0.25, lw=0)
        beyond = f"hatched: beyond the mixture of L = {data.limit_bits} bits"
        _say(axes, beyond, (0.02, 0.97), GREY, transform=axes.transAxes, va="top")
    novel, familiar, round_ = (of_kind[kind] for kind in (Kind.NOVEL, Kind.FAMILIAR, Kind.ROUND))
    above = familiar[int(0.55 * len(familiar))]
    place = (above.n_steps, above.bound_over_all_programs_nats + 0.1 * top)
    _say(axes, "familiar: only the clock is new", place, VERMILLION, va="bottom", ha="right")
    place = (novel[-1].n_steps, novel[-1].fixed_kl_nats - 0.03 * top)
    _say(axes, "novel: a short event has just occurred", place, BLUE, va="top", ha="right")
    simple = round_[int(0.5 * len(round_))]
    place = (simple.n_steps, simple.bound_over_all_programs_nats + 0.03 * top)
    _say(axes, "familiar, round k", place, GREEN, va="bottom", ha="center")
    axes.set(xscale="log", ylim=(0, top), xlabel="k, steps of demonstration")
    axes.set_ylabel("price of deviating, nats")
    axes.set_title("(a) More data protects in familiar situations only")
    axes.legend(handles=_legend(), loc="lower left", ncols=2, columnspacing=1.2, fontsize=7.0)


def _legend() -> list[Line2D]:
    return [
        Line2D([], [], color=BLACK, label="bound, Δ ln 2 − ln ρ"),
        Line2D([], [], color=BLACK, linestyle="--", label="as printed, Δ / ln 2 − ln ρ"),
        Line2D([], [], color=BLACK, linestyle=":", label="log₂ k + 2 log₂ log₂ k + const"),
        Line2D([], [], color=BLACK, marker="o", linestyle="", label="KL(π‖ξ)"),
        Line2D(
            [],
            [],
            color=BLACK,
            marker="s",
            linestyle="",
            fillstyle="none",
            label="Δ ln 2, bound for L = ∞",
        ),
    ]


def _columns(points: Sequence[Price], price: str) -> tuple[list[float], list[float]]:
    return [point.n_steps for point in points], [getattr(point, price) for point in points]


def _say(axes: Axes, text: str, place: tuple[float, float], color: str, **how: Any) -> None:
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.0}
    axes.text(*place, text, color=color, fontsize=7.5, bbox=box, zorder=4, **how)


def _draw_frontiers(axes: Axes, frontiers: Sequence[Frontier]) -> None:
    styles = {kind: iter(("-", "--", ":")) for kind in Kind}
    for frontier in frontiers:
        kind = frontier.kind
        style = next(styles[kind])
        color = _LOOKS[kind]["color"]
        axes.plot(
            frontier.budgets_nats,
            frontier.values,
            linestyle=style,
            color=color,
            label=frontier.label if frontier.within_limit else "",
        )
        if frontier.within_limit:
            axes.plot(frontier.kl_nats, frontier.value, zorder=3, **_LOOKS[kind])
        else:  # the mixture does not hold pi's switch, and the legend has no room
            place = (frontier.budgets_nats[-1], frontier.values[-1] + 0.02)
            text = f"{frontier.label}: {_BEYOND}"
            _say(axes, text, place, color, va="bottom", ha="right")
    axes.set_xlim(0, frontiers[0].budgets_nats[-1])
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("budget, nats of expected KL to ξ")
    axes.set_ylabel("V*(budget)")
    axes.set_title("(b) What a budget buys")
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 0.1),
        title="best policy (mark: π)",
        alignment="left",
        fontsize=7.0,
    )


PRESENTATION: Final = Presentation(
    name="theorem1",
    statements=(Statement.LITTLE_CONSTRAINT,),
    options_type=Theorem1Options,
    data_type=DeviationPrices,
    compute=compute,
    tables=tables,
    findings=findings,
    draw=draw,
)
