"""What a budget buys: V*(budget) under every constraint, each point with its certificate.

The world is a shop. In each step the agent recommends something plain (a0) or pushes (a1); then
the next customer is indifferent (o0) or interested (o1), interested more often after a push.
Utility is the share of steps in which the agent pushes an interested customer. Its base policy, an
imitation of a trusted salesperson, pushes one interested customer in five and otherwise one in
twenty. The planners know the world and ask how well one can do within a budget:

- expected, fixed-observations and adaptive KL, the three readings of Definition 2;
- TVD in the same three readings (Theorem 2);
- expected KL to a pessimistic imitator, which sometimes asks for help, with asking as an action.

A worst-case reading makes the agent pay for every customer as if he were interested, which is the
only case in which it wants to deviate. It has one multiplier for each observation sequence. The
shortcut of a single one, the soft policy `pi ∝ beta exp(Q / lambda)` with lambda tuned until the
greatest KL meets the budget, gives away part of the gain, and the optimum of the expected reading
exceeds the budget. Both are measured here, in the shop and on random problems.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import brentq

from mightnt.figure_style import BLUE, GREEN, GREY, ORANGE, VERMILLION, new_figure
from mightnt.progress import track
from theory.bayes_mixture import Update, stack_tables
from theory.constraints import fixed_kl_nats
from theory.errors import InvalidArgumentError
from theory.paper import Statement
from theory.pessimism import pessimistic_imitator
from theory.process import (
    EnvironmentTable,
    History,
    HistoryTree,
    PolicyTable,
    UtilityTable,
    environment_table,
    policy_table,
    utility_table,
    values,
)
from toy_world.demo import Column, Demo, DemoOptions, DemoResult, DemoTable, Evidence
from toy_world.planners.adaptive_kl import adaptive_kl_optimum
from toy_world.planners.ask import asking_optimum
from toy_world.planners.expected_kl import expected_kl_optimum
from toy_world.planners.fixed_kl import fixed_kl_optimum
from toy_world.planners.problem import Reading
from toy_world.planners.tvd import tvd_optimum
from toy_world.studies.theorem2 import random_tables

BUDGETS_NATS: Final = (0.0, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
TVD_BUDGETS: Final = tuple(k / 10 for k in range(11))
RANDOM_BUDGETS_NATS: Final = (0.01, 0.1, 0.5)
RANDOM_SHAPES: Final = ((2, 2, 2), (3, 2, 2), (4, 2, 2), (3, 3, 2))
"""(steps, actions, observations)."""
ALPHA: Final = Fraction(1, 4)
"""The pessimistic imitator's threshold: both of its models are in its top set."""
INTERESTED: Final = 1
PUSH: Final = 1

Problem = tuple[PolicyTable, EnvironmentTable, UtilityTable]


@dataclass(frozen=True, kw_only=True)
class PlannersOptions(DemoOptions):
    """What a budget buys an optimal agent under every constraint, with certificates."""

    horizon: int = 5
    """Steps in the shop, 2 to 7 (5: seconds; 7: minutes)."""
    problems: int = 20
    """Random problems for each shape on which a single multiplier is tried, 1 to 10000."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least, most in (("horizon", 2, 7), ("problems", 1, 10_000)):
            value = getattr(self, name)
            if not least <= value <= most:
                raise InvalidArgumentError(f"--{name} must lie in {least}..{most}, got {value}")


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point of a frontier with its certificate.

    Attributes:
        constraint: what is constrained, as shown.
        budget: eps in nats, or c.
        value: of the plan.
        bound: on every other.
        attained: the plan's KL in nats, or TVD.
        multiplier: the slope of the frontier there.
    """

    constraint: str
    budget: float
    value: float
    bound: float
    attained: float
    multiplier: float


@dataclass(frozen=True, kw_only=True)
class Shortcut:
    """What goes wrong with a single multiplier under the fixed-observations KL.

    Attributes:
        budget_nats: eps.
        lost_share: of the gain over beta that the optimum has, lost by the tuned multiplier.
        overspending: the fixed-observations KL of the expected-KL optimum, over eps.
    """

    budget_nats: float
    lost_share: float
    overspending: float


def shop(horizon: int) -> Problem:
    """The shop of the module's docstring, exact."""
    tree = HistoryTree(n_actions=2, n_observations=2, horizon=horizon)

    def base(history: History) -> tuple[Fraction, Fraction]:
        push = Fraction(1, 5) if history and history[-1] == INTERESTED else Fraction(1, 20)
        return 1 - push, push

    def customer(history: History) -> tuple[Fraction, Fraction]:
        interested = Fraction(1, 2) if history[-1] == PUSH else Fraction(1, 4)
        return 1 - interested, interested

    def utility(history: History) -> Fraction:
        observed, then = history[1:-2:2], history[2::2]
        sales = sum(o == INTERESTED and a == PUSH for o, a in zip(observed, then, strict=True))
        return Fraction(sales, horizon - 1)

    return (
        policy_table(tree, base),
        environment_table(tree, customer),
        utility_table(tree, utility),
    )


def shop_imitator(horizon: int) -> PolicyTable:
    """The pessimistic imitator of someone who pushes as beta does, or else one in a hundred."""
    beta, _, _ = shop(horizon)
    shy = tuple(
        np.broadcast_to(np.array([Fraction(99, 100), Fraction(1, 100)], dtype=object), level.shape)
        for level in beta
    )
    weights = np.array([Fraction(1, 2), Fraction(1, 2)], dtype=object)
    return pessimistic_imitator(
        weights, stack_tables([beta, shy]), alpha=ALPHA, update=Update.DEMONSTRATOR
    )


def frontiers(horizon: int) -> list[Point]:
    """Every constraint's frontier in the shop."""
    problem = shop(horizon)
    beta, nu, utility = problem
    imitator = shop_imitator(horizon)
    kl: dict[str, Callable[[float], Any]] = {
        "expected KL": lambda eps: expected_kl_optimum(*problem, budget_nats=eps),
        "fixed KL": lambda eps: fixed_kl_optimum(*problem, budget_nats=eps),
        "adaptive KL": lambda eps: adaptive_kl_optimum(*problem, budget_nats=eps),
        "KL, may ask": lambda eps: asking_optimum(
            imitator, nu, utility, help_policy=beta, budget_nats=eps
        ),
    }
    points = []
    for name, planner in track(kl.items(), "KL frontiers", total=len(kl)):
        for budget in BUDGETS_NATS:
            plan = planner(budget)
            points.append(
                Point(
                    constraint=name,
                    budget=budget,
                    value=plan.value,
                    bound=plan.bound,
                    attained=plan.attained,
                    multiplier=plan.multiplier,
                )
            )
    for reading in track(Reading, "TVD frontiers", total=len(Reading)):
        for budget in TVD_BUDGETS:
            # A float budget: exact tables would be solved, and proved, in rationals.
            tvd_plan = tvd_optimum(*problem, budget=budget, reading=reading)
            points.append(
                Point(
                    constraint=f"{reading.name.lower()} TVD",
                    budget=budget,
                    value=float(tvd_plan.value),
                    bound=float(tvd_plan.bound),
                    attained=float(tvd_plan.attained),
                    multiplier=float(tvd_plan.multiplier),
                )
            )
    return points


def single_multiplier_policy(problem: Problem, *, budget_nats: float) -> PolicyTable:
    """The expected-KL optimum whose *fixed-observations* KL is `budget_nats`: the shortcut.

    These optima are the soft policies of single multipliers. They are indexed here by their own
    budgets, in which the fixed-observations KL grows.
    """
    beta = problem[0]

    def at(log_budget: float) -> PolicyTable:
        return expected_kl_optimum(*problem, budget_nats=math.exp(log_budget)).pi

    def excess(log_budget: float) -> float:
        return float(fixed_kl_nats(at(log_budget), beta)) - budget_nats

    # An average over observations is at most their maximum times |O|^(m-1), and beyond the
    # greedy policy's own KL nothing changes.
    greedy = expected_kl_optimum(*problem, budget_nats=math.inf)
    if float(fixed_kl_nats(greedy.pi, beta)) <= budget_nats:
        return greedy.pi
    low = math.log(budget_nats) - 30.0
    return at(brentq(excess, low, math.log(greedy.attained), xtol=1e-10))


def shortcut(problem: Problem, *, budget_nats: float) -> Shortcut:
    """How much a single multiplier loses, and by how much the expected optimum overspends."""
    beta, nu, utility = problem
    optimum = fixed_kl_optimum(*problem, budget_nats=budget_nats).value
    without = float(values(beta, nu, utility)[0][0])
    tuned = single_multiplier_policy(problem, budget_nats=budget_nats)
    reached = float(values(tuned, nu, utility)[0][0])
    spent = fixed_kl_nats(expected_kl_optimum(*problem, budget_nats=budget_nats).pi, beta)
    return Shortcut(
        budget_nats=budget_nats,
        # The certified value may lie below the optimum by its gap.
        lost_share=max(0.0, optimum - reached) / (optimum - without),
        overspending=float(spent) / budget_nats,
    )


def compute(options: PlannersOptions) -> DemoResult:
    """All frontiers in the shop, and the shortcut there and on random problems."""
    rng = options.rng()
    points = frontiers(options.horizon)
    in_shop = [
        shortcut(shop(options.horizon), budget_nats=budget)
        for budget in track(BUDGETS_NATS[1:], "single multipliers")
    ]
    sampled: dict[tuple[tuple[int, int, int], float], list[Shortcut]] = {}
    for shape in track(RANDOM_SHAPES, "random problems"):
        horizon, n_actions, n_observations = shape
        tree = HistoryTree(n_actions=n_actions, n_observations=n_observations, horizon=horizon)
        for _ in range(options.problems):
            problem = random_tables(tree, rng=rng)
            for budget in RANDOM_BUDGETS_NATS:
                found = shortcut(problem, budget_nats=budget)
                sampled.setdefault((shape, budget), []).append(found)
    return DemoResult(
        name="planners",
        statements=(
            Statement.KL_CONSTRAINT,
            Statement.TVD_CONSTRAINT,
            Statement.PESSIMISTIC_IMITATOR,
        ),
        findings=_findings(points, in_shop, sampled),
        tables=(
            _frontier_table(points, options),
            _shortcut_table(in_shop),
            _sampled_table(sampled, options),
        ),
        data={
            "points": points,
            "shortcut": in_shop,
            "random_shortcuts": [s for found in sampled.values() for s in found],
            "horizon": options.horizon,
        },
    )


def _frontier_table(points: Sequence[Point], options: PlannersOptions) -> DemoTable:
    return DemoTable(
        title=f"What a budget buys in the shop, {options.horizon} steps",
        columns=(
            Column(header="constraint"),
            Column(header="budget"),
            Column(header="value", evidence=Evidence.CERTIFIED),
            Column(header="gap", evidence=Evidence.CERTIFIED),
            Column(header="attained", evidence=Evidence.FLOAT),
            Column(header="multiplier", evidence=Evidence.FLOAT),
        ),
        rows=tuple(
            (p.constraint, p.budget, p.value, f"{p.bound - p.value:.1e}", p.attained, p.multiplier)
            for p in points
        ),
        note=(
            "Budgets and attained divergences in nats, or as TVD. Gap: no policy within the "
            "budget has a value greater by more. Multiplier: the slope of the frontier."
        ),
    )


def _shortcut_table(in_shop: Sequence[Shortcut]) -> DemoTable:
    return DemoTable(
        title="Under the fixed-observations KL one multiplier is not enough: the shop",
        columns=(
            Column(header="budget (nats)"),
            Column(header="gain lost by a single multiplier", evidence=Evidence.CERTIFIED),
            Column(header="expected optimum spends (of budget)", evidence=Evidence.FLOAT),
        ),
        rows=tuple(
            (s.budget_nats, f"{s.lost_share:.2%}", f"{s.overspending:.3f}") for s in in_shop
        ),
    )


def _sampled_table(
    sampled: dict[tuple[tuple[int, int, int], float], list[Shortcut]], options: PlannersOptions
) -> DemoTable:
    rows = []
    for (shape, budget), found in sampled.items():
        lost = np.quantile([s.lost_share for s in found], [0, 0.5, 1])
        spent = np.quantile([s.overspending for s in found], [0, 0.5, 1])
        rows.append(
            (
                shape,
                budget,
                " ".join(f"{share:.1%}" for share in lost),
                " ".join(f"{share:.2f}" for share in spent),
            )
        )
    return DemoTable(
        title=f"The same on {options.problems} random problems: least, median, greatest",
        columns=(
            Column(header="steps, actions, observations"),
            Column(header="budget (nats)"),
            Column(header="gain lost", evidence=Evidence.MONTE_CARLO),
            Column(header="expected optimum spends (of budget)", evidence=Evidence.MONTE_CARLO),
        ),
        rows=tuple(rows),
        note="Uniformly distributed rows and utilities; each optimum is certified.",
    )


def _findings(
    points: Sequence[Point],
    in_shop: Sequence[Shortcut],
    sampled: dict[tuple[tuple[int, int, int], float], list[Shortcut]],
) -> tuple[str, ...]:
    by_name = {(p.constraint, p.budget): p.value for p in points}
    one = {name: by_name[name, 1.0] for name in ("expected KL", "fixed KL", "adaptive KL")}
    widest = max(p.bound - p.value for p in points)
    worst = max(in_shop, key=lambda s: s.lost_share)
    lost = [s.lost_share for found in sampled.values() for s in found]
    spent = [s.overspending for found in sampled.values() for s in found]
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


_LOOKS: Final = {
    "expected KL": ("-", "o", BLUE),
    "fixed KL": ("--", "s", VERMILLION),
    "adaptive KL": (":", "^", GREEN),
    "KL, may ask": ("-.", "D", ORANGE),
    "expected TVD": ("-", "o", BLUE),
    "fixed TVD": ("--", "s", VERMILLION),
    "adaptive TVD": (":", "^", GREEN),
}


def draw(result: DemoResult) -> Figure:
    """The frontiers in nats and in TVD, and the cost of a single multiplier."""
    figure = new_figure(height_inches=2.9)
    in_nats, in_tvd, lost = figure.subplots(1, 3, width_ratios=(1.25, 1.0, 1.0))
    points: Sequence[Point] = result.data["points"]
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
    in_nats.set_title(f"What a budget buys in the shop,\n{result.data['horizon']} steps")
    in_tvd.set_title("... and a budget of\ntotal variation")
    _draw_shortcut(lost, result.data["shortcut"], result.data["random_shortcuts"])
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


DEMO: Final = Demo(name="planners", options_type=PlannersOptions, run=compute, draw=draw)

if __name__ == "__main__":
    DEMO.main()
