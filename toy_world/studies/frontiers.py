"""What a budget buys in a small shop: V*(budget) under every constraint, with certificates.

In each step the agent recommends something plain (a0) or pushes (a1); then the next customer is
indifferent (o0) or interested (o1), interested more often after a push. Utility is the share of
steps in which the agent pushes an interested customer. Its base policy, an imitation of a trusted
salesperson, pushes one interested customer in five and otherwise one in twenty. The planners know
the world and ask how well one can do within a budget:

- expected, fixed-observations and adaptive KL, the three readings of Definition 2;
- TVD in the same three readings (Theorem 2);
- expected KL to a pessimistic imitator, which sometimes asks for help, with asking as an action.

A worst-case reading makes the agent pay for every customer as if he were interested, which is the
only case in which it wants to deviate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, TypeAlias

import numpy as np

from mightnt.progress import track
from theory.bayes_mixture import Update, stack_tables
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
)
from toy_world.planners.adaptive_kl import adaptive_kl_optimum
from toy_world.planners.ask import asking_optimum
from toy_world.planners.expected_kl import expected_kl_optimum
from toy_world.planners.fixed_kl import fixed_kl_optimum
from toy_world.planners.problem import Reading
from toy_world.planners.tvd import tvd_optimum

BUDGETS_NATS: Final = (0.0, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
TVD_BUDGETS: Final = tuple(k / 10 for k in range(11))
ALPHA: Final = Fraction(1, 4)
"""The pessimistic imitator's threshold: both of its models are in its top set."""
INTERESTED: Final = 1
PUSH: Final = 1

Problem: TypeAlias = tuple[PolicyTable, EnvironmentTable, UtilityTable]
"""Base policy, world and utility."""


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


def shop(horizon: int) -> Problem:
    """The shop of the module's docstring, exact; `horizon` is at least 2."""
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


def frontiers(horizon: int) -> tuple[Point, ...]:
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
    return tuple(points)
