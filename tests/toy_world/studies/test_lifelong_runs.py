"""An agent over its lifetime: it learns to ask less, and only from whom the rule says."""

import math
from fractions import Fraction

import numpy as np
import pytest

from theory.bayes_mixture import Update
from theory.errors import InvalidBudgetError
from theory.pessimism import pessimistic_imitator
from toy_world.planners.ask import asking_optimum
from toy_world.studies.lifelong_runs import _Loop, lifelong_row, lifelong_runs
from toy_world.studies.outcomes import utilities
from toy_world.studies.short_memory import ShortMemory, short_memory_class
from toy_world.worlds.environments import WorldName
from toy_world.worlds.setting import setting_of


@pytest.fixture(scope="module")
def echo():
    return short_memory_class(setting_of(WorldName.ECHO, horizon=2), limit_bits=12)


@pytest.mark.parametrize("update", Update)
def test_the_loop_learns_to_ask_less_and_never_does_what_is_never_done(echo, update):
    lives = lifelong_runs(
        echo,
        alpha=Fraction(1, 16),
        update=update,
        budget_nats=1.0,
        n_episodes=25,
        n_runs=6,
        rng=np.random.default_rng(5),
    )
    assert lives.asked.shape == (6, 25)
    assert lives.asked[:, 0].min() > 0
    assert lives.asked[:, -5:].mean() < lives.asked[:, :5].mean()
    assert lives.bad.sum() == 0
    assert ((lives.paid >= 0) & (lives.paid <= 0.5)).all()
    row = lifelong_row(lives)
    assert (row.n_episodes, row.n_bad_episodes, row.n_bad_steps) == (150, 0, 0)
    assert row.asked_first == lives.asked[:, 0].mean() > row.asked_last
    assert row.paid_last_interval[0] <= row.paid_last <= row.paid_last_interval[1]


def test_in_the_loop_the_agents_actions_teach_only_under_the_rule_that_says_so():
    """mu alternates by coin; acting alone, the frozen posterior never moves."""
    setting = setting_of(WorldName.ECHO, horizon=1)
    models = short_memory_class(setting, limit_bits=12)
    certain = ShortMemory(
        setting=setting,
        limit_bits=12,
        weights=np.array([8, 1]),
        programs=models.programs[:2],
        rows=np.stack([models.rows[models.place_of_tau], models.rows[0]]),
        place_of_tau=0,
    )
    loops = {
        update: lifelong_runs(
            certain,
            alpha=Fraction(1, 4),
            update=update,
            budget_nats=math.inf,
            n_episodes=12,
            n_runs=1,
            rng=np.random.default_rng(1),
        )
        for update in Update
    }
    # w(mu) = 8/9 and the other's 1/9 < alpha: the agent never asks.
    assert all(lives.asked.sum() == 0 for lives in loops.values())
    assert (loops[Update.DEMONSTRATOR].paid == 0.5).all()


@pytest.mark.parametrize("update", Update)
@pytest.mark.parametrize("asks", [False, True])
def test_a_step_updates_by_bayes_rule_if_it_was_asked_for_or_if_all_steps_count(echo, update, asks):
    loop = _Loop(models=echo, update=update, rng=np.random.default_rng(0))
    prior = echo.weights / echo.weights.sum()
    always_a1 = (np.array([[0.0, 1.0, 0.0]]),)
    ((action,), n_asks) = loop.episode((always_a1, (np.array([float(asks)]),)))
    assert n_asks == asks
    assert asks or action == 1
    joint = prior * echo.rows[:, 0, action]
    expected = joint / joint.sum() if asks or update is Update.ALL else prior
    np.testing.assert_allclose(loop.weights, expected, rtol=1e-12)
    assert (expected != prior).any() == (asks or update is Update.ALL)


@pytest.mark.parametrize("update", Update)
def test_a_plan_is_for_the_pessimist_that_learns_by_the_same_rule(echo, update, monkeypatch):
    planned = []

    def noted(base, *arguments, **options):
        planned.append(base)
        return asking_optimum(base, *arguments, **options)

    monkeypatch.setattr("toy_world.studies.lifelong_runs.asking_optimum", noted)
    settings = {"alpha": Fraction(1, 16), "budget_nats": 1.0, "n_episodes": 1, "n_runs": 1}
    lifelong_runs(echo, update=update, rng=np.random.default_rng(5), **settings)
    weights = echo.weights / echo.weights.sum()
    expected, other = (
        pessimistic_imitator(weights, echo.on_tree(0, 0, 2), alpha=Fraction(1, 16), update=rule)
        for rule in (update, next(rule for rule in Update if rule is not update))
    )
    for found, level in zip(planned[0], expected, strict=True):
        np.testing.assert_array_equal(found, level)
    assert any((a != b).any() for a, b in zip(expected, other, strict=True))


def test_a_plan_is_that_of_its_own_states_where_the_imitator_is_everywhere_the_same(
    echo, monkeypatch
):
    """The least of mu and of a model that does a2 often is 1/4, 1/4, 0 whatever happened before.

    Plans differ all the same: in some states mu does more of what pays when asked, and the
    metronome's next observations depend on where in its bar of three it stands.
    """
    setting = setting_of(WorldName.METRONOME, horizon=2)
    n_states = 1 + 2 * 3 * 2
    share = np.array([1, 3, 2])[np.arange(n_states) % 3] / 4
    mu = np.stack([share, 1 - share, 0 * share], axis=1)
    rows = np.stack([mu, np.tile([0.25, 0.25, 0.5], (n_states, 1))])
    models = ShortMemory(
        setting=setting,
        limit_bits=12,
        weights=np.array([1, 1]),
        programs=echo.programs[:2],
        rows=rows,
        place_of_tau=0,
    )
    settings = {"alpha": Fraction(1, 2**40), "update": Update.DEMONSTRATOR}
    play, met = _Loop.episode, set()

    def checked(loop, plan):
        mixture = models.mixture(
            loop.weights, t=loop.t, state=loop.state, world_state=loop.world_state, horizon=2
        )
        base = mixture.pessimist(**settings)
        proxy, _ = utilities(mixture.nu)
        fresh = asking_optimum(base, mixture.nu, proxy, help_policy=mixture.tau, budget_nats=0.5)
        for used, expected in zip((*plan[0], *plan[1]), (*fresh.pi, *fresh.asking), strict=True):
            np.testing.assert_array_equal(used, expected)
        met.add((loop.state, loop.world_state))
        return play(loop, plan)

    monkeypatch.setattr(_Loop, "episode", checked)
    lifelong_runs(
        models, **settings, budget_nats=0.5, n_episodes=8, n_runs=3, rng=np.random.default_rng(1)
    )
    assert {world_state for _, world_state in met} == {0, 1, 2}
    assert len(met) > 4


def test_a_negative_budget_is_refused(echo, rng):
    with pytest.raises(InvalidBudgetError, match="budget_nats must be >= 0, got -1"):
        lifelong_runs(
            echo,
            alpha=Fraction(1, 2),
            update=Update.ALL,
            budget_nats=-1.0,
            n_episodes=1,
            n_runs=1,
            rng=rng,
        )
