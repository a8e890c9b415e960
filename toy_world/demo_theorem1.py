"""Little constraint in novel situations: what deviating from an enumerated imitator costs.

The imitator is the policy mixture over every program of at most L bits; see
`toy_world.studies.theorem1` for the situations and the bound. All KL are in nats and for a
posterior that every action goes on updating (with that, Theorem 1 telescopes).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, unique
from typing import Any, Final

import numpy as np
from joblib import cpu_count, parallel_config
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mightnt.clusters import Cluster, on_cluster
from mightnt.figure_style import BLACK, BLUE, GREEN, GREY, VERMILLION, new_figure
from mightnt.progress import track
from theory.bounds import NATS_PER_BIT
from theory.errors import InvalidArgumentError
from theory.paper import Statement
from toy_world import demo_joint_predictor
from toy_world.demo import Column, Demo, DemoOptions, DemoResult, DemoTable, Evidence
from toy_world.demo_joint_predictor import JointPredictorOptions
from toy_world.planners.expected_kl import expected_kl_frontier
from toy_world.programs.enumeration import Enumeration
from toy_world.programs.language import Language
from toy_world.studies.theorem1 import Kind, Price, Setting, prices, setting_of
from toy_world.worlds.environments import WorldName

_BEYOND: Final = "beyond L"
_LOOKS: Final[dict[Kind, Any]] = {
    Kind.FAMILIAR: {"color": VERMILLION, "marker": "s"},
    Kind.ROUND: {"color": GREEN, "marker": "D"},
    Kind.NOVEL: {"color": BLUE, "marker": "o"},
}
_N_BUDGETS: Final = 25
_RANGES: Final = (("bits", 2, 34), ("steps", 100, 10**6), ("horizon", 1, 5))


@unique
class Imitator(Enum):
    """What the imitator's models predict."""

    POLICY = "policy"
    JOINT = "joint"


@dataclass(frozen=True, kw_only=True)
class Theorem1Options(DemoOptions):
    """What deviating costs in familiar and in novel situations, by every policy up to L bits."""

    imitator: Imitator = Imitator.POLICY
    """policy: a mixture of policies; joint: runs toy_world.demo_joint_predictor instead."""
    bits: int = 26
    """L: the imitator is the mixture of every policy program of at most so many bits, 2 to 34.
    Two bits more take about three times the time and memory (30: minutes, 3 GiB)."""
    world: WorldName = WorldName.DOORBELL
    """The world, with its demonstrator; `toy_world/worlds/environments.py` describes each."""
    steps: int = 100_000
    """The longest demonstration, 100 to 1000000 steps."""
    horizon: int = 3
    """How many steps the agent acts, 1 to 5."""
    jobs: int = field(default_factory=cpu_count)
    """How many threads enumerate."""
    cluster: str | None = None
    """Enumerate there, on all processors, in place of threads here; the result is the same. A
    running Ray or Dask cluster: `ray`, `ray:HOST:PORT` or `dask:HOST:PORT`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least, most in _RANGES:
            value = getattr(self, name)
            if not least <= value <= most:
                raise InvalidArgumentError(f"--{name} must lie in {least}..{most}, got {value}")
        if self.jobs < 1:
            raise InvalidArgumentError(f"--jobs must be >= 1, got {self.jobs}")
        if self.cluster is not None:
            Cluster.parse(self.cluster)


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """V*(budget) in one situation.

    Attributes:
        price: the situation.
        budgets_nats: budgets of expected KL, increasing.
        values: the greatest value within each.
    """

    price: Price
    budgets_nats: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def label(self) -> str:
        """Kind and k."""
        kind = "familiar" if self.price.kind is Kind.ROUND else self.price.kind.value
        return f"{kind}, k = {self.price.n_steps:,}"


def run(options: Theorem1Options) -> DemoResult:
    """Price deviations under the imitator that was asked for.

    Raises:
        UnreachableLengthError: L cannot hold the demonstrator's switched version.
    """
    if options.imitator is Imitator.JOINT:
        return demo_joint_predictor.compute(
            JointPredictorOptions(out=options.out, seed=options.seed, json=options.json)
        )
    return _run_policy_mixture(options)


def _run_policy_mixture(options: Theorem1Options) -> DemoResult:
    """Price deviations after ever longer demonstrations.

    Raises:
        UnreachableLengthError: L cannot hold the demonstrator's switched version.
    """
    setting = setting_of(options.world, horizon=options.horizon)
    workers = (
        parallel_config(n_jobs=options.jobs)
        if options.cluster is None
        else on_cluster(options.cluster, "--cluster")
    )
    with workers:
        found, enumeration = prices(
            setting, limit_bits=options.bits, n_steps=options.steps, rng=options.rng()
        )
    frontiers = _frontiers(found)
    return DemoResult(
        name="theorem1",
        statements=(Statement.LITTLE_CONSTRAINT,),
        findings=_findings(setting, found, enumeration, frontiers),
        tables=(
            _price_table(setting, found, Kind.NOVEL),
            _price_table(setting, found, Kind.FAMILIAR, Kind.ROUND),
            _gain_table(found),
            _frontier_table(frontiers),
        ),
        data={
            "world": options.world,
            "demonstrator": setting.language.show(setting.tau),
            "demonstrator_bits": found[-1].demonstrator_bits,
            "limit_bits": options.bits,
            "constant_bits": _constant_bits(setting),
            "prices": [_price_record(price, setting.language) for price in found],
            "frontiers": [
                {
                    "label": frontier.label,
                    "kind": frontier.price.kind,
                    "within_limit": frontier.price.is_within_limit,
                    "budgets_nats": frontier.budgets_nats,
                    "values": frontier.values,
                    "kl_nats": frontier.price.expected_kl_nats,
                    "value": frontier.price.value,
                }
                for frontier in frontiers
            ],
        },
    )


def _of_kind(found: Sequence[Price], *kinds: Kind) -> list[Price]:
    return [price for price in found if price.kind in kinds]


def _frontiers(found: Sequence[Price]) -> tuple[Frontier, ...]:
    """V*(budget) in a few situations that show the rest."""
    novel, familiar = _of_kind(found, Kind.NOVEL), _of_kind(found, Kind.FAMILIAR)
    within = [price for price in familiar if price.is_within_limit]
    chosen = [novel[0], novel[-1], *within[-1:], familiar[-1]]
    chosen += [price for price in _of_kind(found, Kind.ROUND)[-1:] if price.is_within_limit]
    dearest = max(price.bound.bound_nats for price in chosen if price.is_within_limit)
    budgets = tuple(np.linspace(0.0, math.ceil(dearest), _N_BUDGETS).tolist())
    unique = {id(price): price for price in chosen}
    return tuple(
        Frontier(
            price=price,
            budgets_nats=budgets,
            values=tuple(
                plan.value
                for plan in expected_kl_frontier(price.xi, price.nu, price.utility, budgets)
            ),
        )
        for price in track(list(unique.values()), "planning")
    )


def _constant_bits(setting: Setting) -> int:
    """What "time k reached" costs besides `log2 k + 2 log2 log2 k`, with switch and pi."""
    language = setting.language
    clock = language.events.parse("latch(reached(steps, 1))")
    return language.switch_bits + language.length(clock) + language.length(setting.pi)


def _price_table(setting: Setting, found: Sequence[Price], *kinds: Kind) -> DemoTable:
    chosen = _of_kind(found, *kinds)
    which = "novel" if Kind.NOVEL in kinds else "familiar"
    return DemoTable(
        title=f"Price of deviating in the {which} situation, L = {chosen[0].limit_bits}",
        columns=(
            Column(header="k"),
            Column(header="shortest new\nevent E", evidence=Evidence.EXACT),
            Column(header="len(E),\nDelta\nbits", evidence=Evidence.EXACT),
            Column(header="KL\nnats", evidence=Evidence.FLOAT),
            Column(header="bound\nnats", evidence=Evidence.FLOAT),
            Column(header="as\nprinted", evidence=Evidence.FLOAT),
            Column(header="L = inf\nnats", evidence=Evidence.EXACT),
        ),
        rows=tuple(
            (
                price.n_steps,
                setting.language.show(price.event.event.predicate),
                f"{'' if price.event.is_shortest else '<='}{price.event.bits}, {price.delta_bits}",
                price.fixed_kl_nats if price.is_within_limit else _BEYOND,
                price.bound.bound_nats if price.is_within_limit else None,
                price.bound.bound_as_printed_nats if price.is_within_limit else None,
                price.bound_over_all_programs.bound_nats,
            )
            for price in chosen
        ),
        note=_price_note(setting, chosen),
    )


def _price_note(setting: Setting, chosen: Sequence[Price]) -> str:
    notes = [
        "KL: of pi to xi, with fixed observations (the paper's reading). bound: Delta ln 2 - "
        "ln rho; as printed: Delta / ln 2 - ln rho; L = inf: Delta ln 2, for programs of every "
        "length."
    ]
    if not all(price.is_within_limit for price in chosen):
        notes.append(
            f"{_BEYOND}: len(tau) + Delta = {chosen[0].demonstrator_bits} + Delta > L, so the "
            f"mixture does not hold switch(E, {setting.language.show(setting.pi)}, tau)."
        )
    if not all(price.event.is_shortest for price in chosen):
        notes.append(f"<=: no event of up to {chosen[0].event.searched_bits} bits would do.")
    return " ".join(notes)


def _gain_table(found: Sequence[Price]) -> DemoTable:
    ends = []
    for kind in (Kind.NOVEL, Kind.FAMILIAR, Kind.ROUND):
        within = [price for price in _of_kind(found, kind) if price.is_within_limit]
        ends += within[:1] + within[1:][-1:]
    return DemoTable(
        title="What the constructed policy pi costs in each reading, nats, and gains",
        columns=(
            Column(header="situation"),
            Column(header="k"),
            Column(header="fixed", evidence=Evidence.FLOAT),
            Column(header="adaptive", evidence=Evidence.FLOAT),
            Column(header="expected", evidence=Evidence.FLOAT),
            Column(header="KL\nto tau", evidence=Evidence.EXACT),
            Column(header="V^pi / V*", evidence=Evidence.FLOAT),
        ),
        rows=tuple(
            (
                price.kind.value,
                price.n_steps,
                price.fixed_kl_nats,
                price.adaptive_kl_nats,
                price.expected_kl_nats,
                price.kl_to_tau_nats,
                f"{price.value:.4g} / {price.best_value:.4g}",
            )
            for price in ends
        ),
        note="The first and the last k of each kind within L; the JSON holds them all.",
    )


def _frontier_table(frontiers: Sequence[Frontier]) -> DemoTable:
    return DemoTable(
        title="V*(budget): the greatest value within a budget of expected KL to xi",
        columns=(
            Column(header="budget\nnats"),
            *(
                Column(
                    header=f"{frontier.price.kind.value}\n{frontier.price.n_steps}",
                    evidence=Evidence.CERTIFIED,
                )
                for frontier in frontiers
            ),
        ),
        rows=tuple(
            (frontiers[0].budgets_nats[i], *(frontier.values[i] for frontier in frontiers))
            for i in range(0, _N_BUDGETS, 3)
        ),
        note="By soft value iteration; every value has a dual bound.",
    )


def _price_record(price: Price, language: Language) -> dict[str, Any]:
    return {
        "k": price.n_steps,
        "kind": price.kind,
        "event": language.show(price.event.event),
        "event_bits": price.event.bits,
        "event_is_shortest": price.event.is_shortest,
        "delta_bits": price.delta_bits,
        "demonstrator_bits": price.demonstrator_bits,
        "within_limit": price.is_within_limit,
        "log_rho": price.log_rho,
        "bound_nats": price.bound.bound_nats,
        "bound_as_printed_nats": price.bound.bound_as_printed_nats,
        "bound_over_all_programs_nats": price.bound_over_all_programs.bound_nats,
        "bound_as_printed_over_all_programs_nats": (
            price.bound_over_all_programs.bound_as_printed_nats
        ),
        "fixed_kl_nats": price.fixed_kl_nats,
        "adaptive_kl_nats": price.adaptive_kl_nats,
        "expected_kl_nats": price.expected_kl_nats,
        "kl_to_tau_nats": price.kl_to_tau_nats,
        "value": price.value,
        "best_value": price.best_value,
    }


def _findings(
    setting: Setting,
    found: Sequence[Price],
    enumeration: Enumeration,
    frontiers: Sequence[Frontier],
) -> tuple[str, ...]:
    novel, familiar = _of_kind(found, Kind.NOVEL), _of_kind(found, Kind.FAMILIAR)
    kl, bound, printed = (
        f"{min(numbers):.2f} to {max(numbers):.2f}"
        for numbers in (
            [price.fixed_kl_nats for price in novel],
            [price.bound.bound_nats for price in novel],
            [price.bound.bound_as_printed_nats for price in novel],
        )
    )
    last, first = familiar[-1], familiar[0]
    beyond = [price for price in familiar if not price.is_within_limit]
    return (
        f"Novel situation ({setting.language.show(novel[-1].event.event)}): KL(pi||xi) = "
        f"{kl} nats for k = {novel[0].n_steps:,} to {novel[-1].n_steps:,} steps of demonstration, "
        f"under a bound of {bound} ({printed} as printed): more data buys no more safety. "
        f"pi reaches {novel[-1].value:.3g} of V* = {novel[-1].best_value:.3g}, and "
        f"KL(pi||tau) = {novel[-1].kl_to_tau_nats}.",
        f"Familiar situation: only the clock is new. Delta grows from {first.delta_bits} bits at "
        f"k = {first.n_steps:,} to {last.delta_bits} bits at k = {last.n_steps:,}, like log2 k + "
        "2 log2 log2 k; the bound over all programs from "
        f"{first.bound_over_all_programs.bound_nats:.1f} to "
        f"{last.bound_over_all_programs.bound_nats:.1f} nats."
        + (
            f" From k = {beyond[0].n_steps:,} on it takes a mixture of L >= "
            f"{beyond[0].needed_bits} bits to hold the switched version of tau."
            if beyond
            else ""
        ),
        *_round_finding(found),
        _frontier_finding(frontiers),
        f"The mixture: {enumeration.n_programs:,} policy programs of at most "
        f"{enumeration.limit_bits} bits in {enumeration.n_classes:,} classes that are alive after "
        f"{enumeration.layout.points[0].n_steps} steps; prior mass left out "
        f"{float(enumeration.prior_mass_left_out):.4f}, exactly {enumeration.prior_mass_left_out}.",
        "Readings: for a policy mixture that every action updates the bound holds in all three "
        "readings of the constraint. For a joint predictor it does not in general.",
    )


def _round_finding(found: Sequence[Price]) -> tuple[str, ...]:
    cheap = [price for price in _of_kind(found, Kind.ROUND) if price.is_within_limit]
    return tuple(
        f"Round times are simple: at k = {price.n_steps:,} the event has {price.event.bits} bits "
        f"and KL(pi||xi) = {price.fixed_kl_nats:.2f} nats (Proposition 2 at work)."
        for price in cheap[-1:]
    )


def _frontier_finding(frontiers: Sequence[Frontier]) -> str:
    parts = []
    for frontier in frontiers:
        enough = [
            budget
            for budget, value in zip(frontier.budgets_nats, frontier.values, strict=True)
            if value >= frontier.price.best_value / 2
        ]
        need = f"{enough[0]:.1f}" if enough else f"over {frontier.budgets_nats[-1]:.1f}"
        parts.append(f"{frontier.label}: {need}")
    return (
        "The planner's best policy reaches half of V* within an expected KL, in nats, of "
        f"{'; '.join(parts)}."
    )


def draw(result: DemoResult) -> Figure:
    """Price against k, and V* against the budget; or the joint predictor's figure."""
    if result.name == demo_joint_predictor.DEMO.name:
        return demo_joint_predictor.draw(result)
    figure = new_figure(height_inches=3.6)
    against_k, against_budget = figure.subplots(1, 2, width_ratios=(1.5, 1.0))
    _draw_prices(against_k, result.data)
    _draw_frontiers(against_budget, result.data["frontiers"])
    return figure


def _draw_prices(axes: Axes, data: dict[str, Any]) -> None:
    points = data["prices"]
    top = 1.12 * max(point["bound_over_all_programs_nats"] for point in points)
    of_kind = {kind: [point for point in points if point["kind"] is kind] for kind in Kind}
    k = np.geomspace(10, max(point["k"] for point in points), 200)
    reference = data["constant_bits"] + np.log2(k) + 2 * np.log2(np.log2(k))
    axes.plot(k, reference * NATS_PER_BIT, color=BLACK, linestyle=":", linewidth=1.0)
    for kind, look in _LOOKS.items():
        for within, filled in ((True, "full"), (False, "none")):
            chosen = [point for point in of_kind[kind] if point["within_limit"] is within]
            price = "fixed_kl_nats" if within else "bound_over_all_programs_nats"
            axes.plot(*_columns(chosen, price), linestyle="", fillstyle=filled, zorder=3, **look)
    for kind, bound, style in (
        (Kind.NOVEL, "bound_nats", "-"),
        (Kind.NOVEL, "bound_as_printed_nats", "--"),
        (Kind.FAMILIAR, "bound_nats", "-"),
    ):
        chosen = [point for point in of_kind[kind] if point["within_limit"]]
        axes.plot(*_columns(chosen, bound), linestyle=style, color=_LOOKS[kind]["color"])
    limit = (data["limit_bits"] - data["demonstrator_bits"]) * NATS_PER_BIT
    if limit < top:
        axes.axhspan(limit, top, facecolor="none", edgecolor=GREY, hatch="///", alpha=0.25, lw=0)
        beyond = f"hatched: beyond the mixture of L = {data['limit_bits']} bits"
        _say(axes, beyond, (0.02, 0.97), GREY, transform=axes.transAxes, va="top")
    novel, familiar, round_ = (of_kind[kind] for kind in (Kind.NOVEL, Kind.FAMILIAR, Kind.ROUND))
    above = familiar[int(0.55 * len(familiar))]
    place = (above["k"], above["bound_over_all_programs_nats"] + 0.1 * top)
    _say(axes, "familiar: only the clock is new", place, VERMILLION, va="bottom", ha="right")
    place = (novel[-1]["k"], novel[-1]["fixed_kl_nats"] - 0.03 * top)
    _say(axes, "novel: a short event has just occurred", place, BLUE, va="top", ha="right")
    simple = round_[int(0.5 * len(round_))]
    place = (simple["k"], simple["bound_over_all_programs_nats"] + 0.03 * top)
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


def _columns(points: Sequence[dict[str, Any]], price: str) -> tuple[list[float], list[float]]:
    return [point["k"] for point in points], [point[price] for point in points]


def _say(axes: Axes, text: str, place: tuple[float, float], color: str, **how: Any) -> None:
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.0}
    axes.text(*place, text, color=color, fontsize=7.5, bbox=box, zorder=4, **how)


def _draw_frontiers(axes: Axes, frontiers: Sequence[dict[str, Any]]) -> None:
    styles = {kind: iter(("-", "--", ":")) for kind in Kind}
    for frontier in frontiers:
        kind = frontier["kind"]
        style = next(styles[kind])
        color = _LOOKS[kind]["color"]
        axes.plot(
            frontier["budgets_nats"],
            frontier["values"],
            linestyle=style,
            color=color,
            label=frontier["label"] if frontier["within_limit"] else "",
        )
        if frontier["within_limit"]:
            axes.plot(frontier["kl_nats"], frontier["value"], zorder=3, **_LOOKS[kind])
        else:  # the mixture does not hold pi's switch, and the legend has no room
            place = (frontier["budgets_nats"][-1], frontier["values"][-1] + 0.02)
            text = f"{frontier['label']}: {_BEYOND}"
            _say(axes, text, place, color, va="bottom", ha="right")
    axes.set_xlim(0, frontiers[0]["budgets_nats"][-1])
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


DEMO: Final = Demo(name="theorem1", options_type=Theorem1Options, run=run, draw=draw)

if __name__ == "__main__":
    DEMO.main()
