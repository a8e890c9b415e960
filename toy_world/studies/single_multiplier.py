"""A single multiplier under the fixed-observations KL: a shortcut, and what it costs.

A worst-case reading of the KL constraint has one multiplier for each observation sequence. The
shortcut of a single one, the soft policy `pi ∝ beta exp(Q / lambda)` with lambda tuned until the
greatest KL meets the budget, gives away part of the gain, and the optimum of the expected reading
exceeds the budget. Both are measured here, in the shop and on random problems.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.optimize import brentq

from mightnt.progress import track
from theory.constraints import fixed_kl_nats
from theory.process import HistoryTree, PolicyTable, values
from toy_world.planners.expected_kl import expected_kl_optimum
from toy_world.planners.fixed_kl import fixed_kl_optimum
from toy_world.studies.frontiers import BUDGETS_NATS, Point, Problem, frontiers, shop
from toy_world.studies.theorem2 import random_tables

RANDOM_BUDGETS_NATS: Final = (0.01, 0.1, 0.5)
RANDOM_SHAPES: Final = ((2, 2, 2), (3, 2, 2), (4, 2, 2), (3, 3, 2))
"""(steps, actions, observations)."""


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


@dataclass(frozen=True, kw_only=True)
class RandomShortcut(Shortcut):
    """The same on a random problem.

    Attributes:
        shape: (steps, actions, observations).
    """

    shape: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class BudgetStudy:
    """What budgets buy in the shop, and what a single multiplier loses there and elsewhere.

    Attributes:
        horizon: steps in the shop.
        points: of every constraint's frontier.
        shortcut: in the shop, for each budget.
        random_shortcuts: by shape and budget, so many each.
    """

    horizon: int
    points: tuple[Point, ...]
    shortcut: tuple[Shortcut, ...]
    random_shortcuts: tuple[RandomShortcut, ...]


def budget_study(*, horizon: int, n_problems: int, rng: np.random.Generator) -> BudgetStudy:
    """All frontiers in the shop, and the shortcut there and on random problems.

    Args:
        horizon: steps in the shop, at least 2.
        n_problems: random problems of each shape.
        rng: draws them.
    """
    return BudgetStudy(
        horizon=horizon,
        points=frontiers(horizon),
        shortcut=tuple(
            shortcut(shop(horizon), budget_nats=budget)
            for budget in track(BUDGETS_NATS[1:], "single multipliers")
        ),
        random_shortcuts=random_shortcuts(n_problems, rng=rng),
    )


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


def random_shortcuts(n_problems: int, *, rng: np.random.Generator) -> tuple[RandomShortcut, ...]:
    """The shortcut on random problems of every shape, by shape and budget."""
    sampled: dict[tuple[tuple[int, int, int], float], list[RandomShortcut]] = {
        (shape, budget): [] for shape in RANDOM_SHAPES for budget in RANDOM_BUDGETS_NATS
    }
    for shape in track(RANDOM_SHAPES, "random problems"):
        horizon, n_actions, n_observations = shape
        tree = HistoryTree(n_actions=n_actions, n_observations=n_observations, horizon=horizon)
        for _ in range(n_problems):
            problem = random_tables(tree, rng=rng)
            for budget in RANDOM_BUDGETS_NATS:
                found = shortcut(problem, budget_nats=budget)
                sampled[shape, budget].append(RandomShortcut(shape=shape, **vars(found)))
    return tuple(each for found in sampled.values() for each in found)
