"""What a budget buys under every constraint, and what a single multiplier loses.

See `toy_world.studies.frontiers` and `toy_world.studies.single_multiplier`.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mightnt.figure_style import BLUE, GREEN, GREY, ORANGE, VERMILLION, new_figure
from mightnt.tables import Column, Evidence, Table, Written
from theory.paper import Statement
from toy_world.demo import Presentation
from toy_world.demo_planners import PlannersOptions
from toy_world.studies.frontiers import Point
from toy_world.studies.single_multiplier import (
    BudgetStudy,
    RandomShortcut,
    Shortcut,
    budget_study,
)

_LOOKS: Final = {
    "expected KL": ("-", "o", BLUE),
    "fixed KL": ("--", "s", VERMILLION),
    "adaptive KL": (":", "^", GREEN),
    "KL, may ask": ("-.", "D", ORANGE),
    "expected TVD": ("-", "o", BLUE),
    "fixed TVD": ("--", "s", VERMILLION),
    "adaptive TVD": (":", "^", GREEN),
}


def compute(options: PlannersOptions) -> BudgetStudy:
    """All frontiers in the shop, and the shortcut there and on random problems."""
    return budget_study(horizon=options.horizon, n_problems=options.problems, rng=options.rng())


def tables(options: PlannersOptions, data: BudgetStudy) -> tuple[Table, ...]:
    """The frontiers, and the shortcut in the shop and elsewhere."""
    return (
        _frontier_table(data.points, options),
        _shortcut_table(data.shortcut),
        _sampled_table(data.random_shortcuts, options),
    )


def _frontier_table(points: Sequence[Point], options: PlannersOptions) -> Table:
    return Table(
        name="frontier",
        title=f"What a budget buys in the shop, {options.horizon} steps",
        columns=(
            Column(header="constraint"),
            Column(header="budget"),
            Column(header="value", evidence=Evidence.CERTIFIED),
            Column(header="gap", evidence=Evidence.CERTIFIED, format=".1e"),
            Column(header="attained", evidence=Evidence.FLOAT),
            Column(header="multiplier", evidence=Evidence.FLOAT),
        ),
        rows=tuple(
            (p.constraint, p.budget, p.value, p.bound - p.value, p.attained, p.multiplier)
            for p in points
        ),
        notes=(
            "Budgets and attained divergences in nats, or as TVD. Gap: no policy within the "
            "budget has a value greater by more. Multiplier: the slope of the frontier.",
        ),
    )


def _shortcut_table(in_shop: Sequence[Shortcut]) -> Table:
    return Table(
        name="shortcut",
        title="Under the fixed-observations KL one multiplier is not enough: the shop",
        columns=(
            Column(header="budget (nats)"),
            Column(
                header="gain lost by a single multiplier", evidence=Evidence.CERTIFIED, format=".2%"
            ),
            Column(
                header="expected optimum spends (of budget)", evidence=Evidence.FLOAT, format=".3f"
            ),
        ),
        rows=tuple((s.budget_nats, s.lost_share, s.overspending) for s in in_shop),
    )


def _sampled_table(shortcuts: Sequence[RandomShortcut], options: PlannersOptions) -> Table:
    rows = []
    for shape, budget in dict.fromkeys((s.shape, s.budget_nats) for s in shortcuts):
        found = [s for s in shortcuts if (s.shape, s.budget_nats) == (shape, budget)]
        lost = np.quantile([s.lost_share for s in found], [0, 0.5, 1])
        spent = np.quantile([s.overspending for s in found], [0, 0.5, 1])
        rows.append(
            (
                shape,
                budget,
                _three(lost, ".1%"),
                _three(spent, ".2f"),
            )
        )
    return Table(
        name="random_shortcuts",
        title=f"The same on {options.problems} random problems: least, median, greatest",
        columns=(
            Column(header="steps, actions, observations"),
            Column(header="budget (nats)"),
            Column(header="gain lost", evidence=Evidence.MONTE_CARLO),
            Column(header="expected optimum spends (of budget)", evidence=Evidence.MONTE_CARLO),
        ),
        rows=tuple(rows),
        notes=("Uniformly distributed rows and utilities; each optimum is certified.",),
    )


def _three(least_median_greatest: Iterable[float], format_: str) -> Written:
    least, median, greatest = map(float, least_median_greatest)
    text = " ".join(format(share, format_) for share in (least, median, greatest))
    return Written(text, {"": median, "least": least, "greatest": greatest})


def findings(options: PlannersOptions, data: BudgetStudy) -> tuple[str, ...]:
    """What a nat buys, and what a single multiplier loses."""
    del options
    points, in_shop = data.points, data.shortcut
    by_name = {(p.constraint, p.budget): p.value for p in points}
    one = {name: by_name[name, 1.0] for name in ("expected KL", "fixed KL", "adaptive KL")}
    widest = max(p.bound - p.value for p in points)
    worst = max(in_shop, key=lambda s: s.lost_share)
    lost = [s.lost_share for s in data.random_shortcuts]
    spent = [s.overspending for s in data.random_shortcuts]
    return (
        f"Every point is certified: the widest duality gap of {len(points)} plans is {widest:.1e}.",
        "One nat buys a value of "
        + ", ".join(f"{value:.3f} ({name})" for name, value in one.items())
        + f"; beta alone has {by_name['expected KL', 0.0]:.3f}.",
        f"A single multiplier under the fixed-observations KL loses up to {worst.lost_share:.1%} "
        f"of the gain in the shop (at {worst.budget_nats:g} nats), and {min(lost):.1%} to "
        f"{max(lost):.1%} on the random problems (median {np.median(lost):.1%}).",
        f"In the fixed-observations reading the expected-KL optimum spends {min(spent):.2f} to "
        f"{max(spent):.2f} times the budget on the random problems (the two readings are not "
        f"ordered), and up to {max(s.overspending for s in in_shop):.2f} times in the shop.",
        "An agent that may ask gains in proportion to a small budget: it draws lots between "
        "asking and one costly deviation.",
    )


def draw(options: PlannersOptions, data: BudgetStudy) -> Figure:
    """The frontiers in nats and in TVD, and the cost of a single multiplier."""
    del options
    figure = new_figure(height_inches=2.9)
    in_nats, in_tvd, lost = figure.subplots(1, 3, width_ratios=(1.25, 1.0, 1.0))
    points = data.points
    for name, (line, marker, colour) in _LOOKS.items():
        mine = [p for p in points if p.constraint == name]
        (in_tvd if "TVD" in name else in_nats).plot(
            [p.budget for p in mine],
            [p.value for p in mine],
            linestyle=line,
            marker=marker,
            color=colour,
            label=name,
        )
    top = max(p.value for p in points) * 1.05
    for axes, unit in ((in_nats, "nats"), (in_tvd, "TVD")):
        axes.set_ylim(0, top)
        axes.set_xlabel(f"budget, {unit}")
        axes.legend(loc="lower right")
    in_nats.set_ylabel("greatest value within the budget")
    in_nats.set_title(f"What a budget buys in the shop,\n{data.horizon} steps")
    in_tvd.set_title("... and a budget of\ntotal variation")
    _draw_shortcut(lost, data.shortcut, data.random_shortcuts)
    return figure


def _draw_shortcut(axes: Axes, in_shop: Sequence[Shortcut], drawn: Sequence[Shortcut]) -> None:
    axes.plot(
        [s.budget_nats for s in drawn],
        [100 * s.lost_share for s in drawn],
        linestyle="",
        marker=".",
        color=GREY,
        alpha=0.4,
        label="random problems",
    )
    axes.plot(
        [s.budget_nats for s in in_shop],
        [100 * s.lost_share for s in in_shop],
        color=VERMILLION,
        marker="s",
        label="shop",
    )
    axes.set_xscale("log")
    axes.set_ylim(0, 100)
    axes.set_xlabel("budget, nats")
    axes.set_ylabel("% of the gain lost")
    axes.set_title("One multiplier is not\nenough for the fixed KL")
    axes.legend(loc="upper right")


PRESENTATION: Final = Presentation(
    name="planners",
    statements=(
        Statement.KL_CONSTRAINT,
        Statement.TVD_CONSTRAINT,
        Statement.PESSIMISTIC_IMITATOR,
    ),
    options_type=PlannersOptions,
    data_type=BudgetStudy,
    compute=compute,
    tables=tables,
    findings=findings,
    draw=draw,
)
