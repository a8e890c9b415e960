"""What a budget buys in the shop: certified, concave, ordered by the strength of the reading."""

from fractions import Fraction
from itertools import pairwise

import pytest

from theory.process import optimal_values, values
from toy_world.studies.frontiers import (
    BUDGETS_NATS,
    TVD_BUDGETS,
    frontiers,
    shop,
    shop_imitator,
)


@pytest.fixture(scope="module")
def points():
    return frontiers(3)


def frontier(points, constraint):
    return [p for p in points if p.constraint == constraint]


def test_every_point_of_every_frontier_is_certified(points):
    assert len(points) == 4 * len(BUDGETS_NATS) + 3 * len(TVD_BUDGETS)
    for p in points:
        assert -1e-12 <= p.bound - p.value <= 1e-8
        assert p.attained <= p.budget + 1e-9


def test_frontiers_start_at_beta_rise_and_bend_down(points):
    beta, nu, utility = shop(3)
    without = float(values(beta, nu, utility)[0][0])
    for constraint in {p.constraint for p in points}:
        own = frontier(points, constraint)
        assert own[0].value == pytest.approx(without, abs=1e-9)
        slopes = [(q.value - p.value) / (q.budget - p.budget) for p, q in pairwise(own)]
        assert all(slope >= -1e-8 for slope in slopes)
        assert all(a >= b - 1e-7 for a, b in pairwise(slopes))


def test_a_tvd_of_one_allows_the_best_policy_of_all(points):
    _, nu, utility = shop(3)
    best = float(optimal_values(nu, utility)[0][0])
    for reading in ("expected", "fixed", "adaptive"):
        assert frontier(points, f"{reading} TVD")[-1].value == pytest.approx(best, abs=1e-9)


def test_the_adaptive_adversary_is_the_strictest(points):
    for kind in ("KL", "TVD"):
        adaptive = frontier(points, f"adaptive {kind}")
        for reading in ("expected", "fixed"):
            other = frontier(points, f"{reading} {kind}")
            assert all(a.value <= p.value + 1e-9 for a, p in zip(adaptive, other, strict=True))


def test_the_imitator_of_two_salespeople_is_the_less_pushy_one_with_less_mass():
    beta, _, _ = shop(2)
    for pessimistic, trusted in zip(shop_imitator(2), beta, strict=True):
        assert (pessimistic <= trusted).all()
        assert (pessimistic[:, 1] == Fraction(1, 100)).all()
        assert (pessimistic.sum(axis=-1) < 1).all()
