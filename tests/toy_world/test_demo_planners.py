import json
import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from mightnt.command_line import BAD_USAGE
from theory.constraints import fixed_kl_nats
from theory.process import optimal_values, values
from toy_world.demo_planners import (
    BUDGETS_NATS,
    DEMO,
    TVD_BUDGETS,
    PlannersOptions,
    compute,
    shop,
    shop_imitator,
    shortcut,
    single_multiplier_policy,
)
from toy_world.planners.fixed_kl import fixed_kl_optimum


@pytest.fixture(scope="module")
def result():
    return compute(PlannersOptions(horizon=3, problems=1))


def frontier(result, constraint):
    return [p for p in result.data["points"] if p.constraint == constraint]


def test_every_point_of_every_frontier_is_certified(result):
    points = result.data["points"]
    assert len(points) == 4 * len(BUDGETS_NATS) + 3 * len(TVD_BUDGETS)
    for p in points:
        assert -1e-12 <= p.bound - p.value <= 1e-8
        assert p.attained <= p.budget + 1e-9


def test_frontiers_start_at_beta_rise_and_bend_down(result):
    beta, nu, utility = shop(3)
    without = float(values(beta, nu, utility)[0][0])
    for constraint in {p.constraint for p in result.data["points"]}:
        points = frontier(result, constraint)
        assert points[0].value == pytest.approx(without, abs=1e-9)
        slopes = [(q.value - p.value) / (q.budget - p.budget) for p, q in pairwise(points)]
        assert all(slope >= -1e-8 for slope in slopes)
        assert all(a >= b - 1e-7 for a, b in pairwise(slopes))


def test_a_tvd_of_one_allows_the_best_policy_of_all(result):
    _, nu, utility = shop(3)
    best = float(optimal_values(nu, utility)[0][0])
    for reading in ("expected", "fixed", "adaptive"):
        assert frontier(result, f"{reading} TVD")[-1].value == pytest.approx(best, abs=1e-9)


def test_the_adaptive_adversary_is_the_strictest(result):
    for kind in ("KL", "TVD"):
        adaptive = frontier(result, f"adaptive {kind}")
        for reading in ("expected", "fixed"):
            other = frontier(result, f"{reading} {kind}")
            assert all(a.value <= p.value + 1e-9 for a, p in zip(adaptive, other, strict=True))


def test_the_imitator_of_two_salespeople_is_the_less_pushy_one_with_less_mass():
    beta, _, _ = shop(2)
    for pessimistic, trusted in zip(shop_imitator(2), beta, strict=True):
        assert (pessimistic <= trusted).all()
        assert (pessimistic[:, 1] == Fraction(1, 100)).all()
        assert (pessimistic.sum(axis=-1) < 1).all()


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


def test_the_same_seed_gives_the_same_numbers(result):
    again = compute(PlannersOptions(horizon=3, problems=1))
    assert again.data["random_shortcuts"] == result.data["random_shortcuts"]
    assert again.findings == result.findings


def test_the_demo_prints_and_writes_its_files(tmp_path, capsys):
    DEMO.main(["--horizon", "2", "--problems", "1", "--out", str(tmp_path), "--json"])
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "planners.json").read_text())
    assert printed["tables"] == written["tables"]
    assert all(math.isfinite(s["lost_share"]) for s in written["data"]["shortcut"])
    assert np.array(written["tables"][0]["rows"]).shape == (4 * 13 + 3 * 11, 6)
    for suffix in ("png", "pdf"):
        assert (tmp_path / f"planners.{suffix}").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--horizon", "9", "--horizon must lie in 2..7, got 9"),
        ("--problems", "0", "--problems must lie in 1..10000, got 0"),
    ],
)
def test_a_bad_option_is_one_line_and_exit_code_2(option, value, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        DEMO.main([option, value])
    assert exit_.value.code == BAD_USAGE
    assert message in capsys.readouterr().err
