"""What a single multiplier loses under the fixed-observations KL."""

import numpy as np
import pytest

from theory.constraints import fixed_kl_nats
from theory.process import optimal_values, values
from toy_world.planners.fixed_kl import fixed_kl_optimum
from toy_world.studies.frontiers import shop
from toy_world.studies.single_multiplier import (
    RANDOM_BUDGETS_NATS,
    RANDOM_SHAPES,
    random_shortcuts,
    shortcut,
    single_multiplier_policy,
)


@pytest.mark.parametrize("budget", [0.01, 0.3, 2.0])
def test_the_single_multiplier_meets_the_budget_and_reaches_less(budget):
    beta, nu, utility = shop(3)
    pi = single_multiplier_policy(shop(3), budget_nats=budget)
    assert float(fixed_kl_nats(pi, beta)) == pytest.approx(budget, rel=1e-6)
    found = shortcut(shop(3), budget_nats=budget)
    optimum = fixed_kl_optimum(*shop(3), budget_nats=budget).value
    reached, without = (float(values(p, nu, utility)[0][0]) for p in (pi, beta))
    assert found.lost_share == pytest.approx((optimum - reached) / (optimum - without))
    assert found.lost_share > 0.1
    assert found.overspending > 1


def test_a_budget_beyond_need_leaves_the_single_multiplier_at_the_optimum():
    _, nu, utility = shop(3)
    pi = single_multiplier_policy(shop(3), budget_nats=50.0)
    best = float(optimal_values(nu, utility)[0][0])
    assert float(values(pi, nu, utility)[0][0]) == pytest.approx(best, abs=1e-12)


def test_random_problems_come_by_shape_and_budget_and_the_same_seed_gives_the_same():
    found = random_shortcuts(1, rng=np.random.default_rng(3))
    keys = [(shape, budget) for shape in RANDOM_SHAPES for budget in RANDOM_BUDGETS_NATS]
    assert [(each.shape, each.budget_nats) for each in found] == keys
    assert all(0 <= each.lost_share < 1 for each in found)
    assert random_shortcuts(1, rng=np.random.default_rng(3)) == found
