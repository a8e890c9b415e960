"""What is no planning problem is refused by every planner, by name."""

import math
from functools import partial
from inspect import signature

import numpy as np
import pytest

from tests.toy_world.planning_problems import opposite_worlds
from theory.errors import (
    InvalidArgumentError,
    InvalidBudgetError,
    InvalidDistributionError,
    InvalidShapeError,
)
from toy_world.planners.adaptive_kl import adaptive_kl_optimum
from toy_world.planners.ask import asking_optimum
from toy_world.planners.certificate import Divergence
from toy_world.planners.divergence import divergence_optimum
from toy_world.planners.expected_kl import expected_kl_frontier, expected_kl_optimum
from toy_world.planners.fixed_kl import fixed_kl_optimum
from toy_world.planners.problem import Reading
from toy_world.planners.tvd import tvd_optimum


def asked(beta, nu, utility, *, budget_nats):
    return asking_optimum(
        beta, nu, utility, help_policy=opposite_worlds()[0], budget_nats=budget_nats
    )


def one_budget(beta, nu, utility, *, budget_nats):
    return expected_kl_frontier(beta, nu, utility, [0.5, budget_nats])


PLANNERS = {
    "expected KL": expected_kl_optimum,
    "frontier": one_budget,
    "fixed KL": fixed_kl_optimum,
    "adaptive KL": adaptive_kl_optimum,
    "asking": asked,
    **{
        f"TVD, {reading.value}": partial(tvd_optimum, reading=reading)
        for reading in (Reading.EXPECTED, Reading.FIXED)
    },
    "chi-squared": partial(divergence_optimum, divergence=Divergence.CHI_SQUARED),
}


def planned(planner, beta, nu, utility, *, budget=0.25):
    name = "budget_nats" if "budget_nats" in signature(planner).parameters else "budget"
    return planner(beta, nu, utility, **{name: budget})


each = pytest.mark.parametrize("planner", PLANNERS.values(), ids=PLANNERS)


@each
@pytest.mark.parametrize("budget", [-0.1, math.nan])
def test_a_budget_below_0_or_none_at_all(planner, budget):
    with pytest.raises(InvalidBudgetError, match=r"budget(_nats)? must .*, got (-0\.1|nan)"):
        planned(planner, *opposite_worlds(), budget=budget)


@each
def test_tables_that_are_none_of_one_tree(planner):
    beta, nu, utility = opposite_worlds()
    with pytest.raises(InvalidShapeError):
        planned(planner, beta, nu, utility[:-1])
    with pytest.raises(InvalidShapeError):
        planned(planner, beta, nu[:1], utility)


@each
def test_rows_that_are_no_distributions(planner):
    beta, nu, utility = opposite_worlds()
    with pytest.raises(InvalidDistributionError):
        planned(planner, (beta[0], beta[1] * 3), nu, utility)
    with pytest.raises(InvalidDistributionError):
        planned(planner, beta, (nu[0], -nu[1]), utility)


@each
def test_utilities_outside_what_a_utility_may_be(planner):
    beta, nu, utility = opposite_worlds()
    for outside in (2 * utility, utility - 0.5, np.full_like(utility, math.nan)):
        with pytest.raises(InvalidArgumentError, match=r"must lie in \[0, 1\], got"):
            planned(planner, beta, nu, outside)
