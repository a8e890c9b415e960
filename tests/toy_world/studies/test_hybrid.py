"""Stages, rates and reach fit together."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from theory.errors import InvalidArgumentError
from toy_world.hybrid.concentrability import tabular_step_levels
from toy_world.hybrid.environments import behaviour_policy
from toy_world.hybrid.mdp import FiniteMDP, one_hot
from toy_world.studies.hybrid import (
    OTHER_SHARES,
    StageName,
    reach_of,
    run_stage,
    stage_of,
)

SIZES = {"n_offline": 30, "n_online": 60, "n_runs": 6, "scale": 0.1}


@pytest.fixture(scope="module")
def random_stage():
    return run_stage(stage_of(StageName.RANDOM), rng=np.random.default_rng(0), **SIZES)


def test_every_learner_is_looked_at_from_no_episode_to_the_last(random_stage):
    _, reach, curves = random_stage
    learners = {each.other_share for each in curves}
    assert learners == {None, *OTHER_SHARES}
    assert {each.other_share for each in reach} == set(OTHER_SHARES)
    for share in learners:
        times = [each.n_online for each in curves if each.other_share == share]
        assert (times[0], times[-1]) == (0, 60)
        assert times == sorted(times)


def test_no_mean_lies_outside_its_band_and_regret_grows(random_stage):
    _, _, curves = random_stage
    for each in curves:
        assert each.sub_optimality.low <= each.sub_optimality.mean <= each.sub_optimality.high
    for share in (None, *OTHER_SHARES):
        regret = [each.regret.mean for each in curves if each.other_share == share]
        assert (np.diff(regret) >= -1e-12).all()


def test_rates_are_fitted_with_one_constant_a_stage(random_stage):
    facts, reach, curves = random_stage
    for each in curves:
        told = sum(30 / r.optimal for r in reach if r.other_share == each.other_share)
        told += each.n_online
        expected = math.inf if told == 0 else facts.sub_optimality_constant / math.sqrt(told)
        assert each.sub_optimality_rate == pytest.approx(expected, rel=1e-12)


def test_the_best_data_reach_the_best_policy_and_no_other():
    stage = stage_of(StageName.RIVER)
    best = stage.mdp.model(1).optimum().policies[0]
    optimal = one_hot(best, 2)
    found = reach_of(stage, optimal, optimal, other_share=0.0, least_gap=0.03)
    assert found.optimal == 1
    assert found.suboptimal == found.bound == math.inf


def test_data_of_mixtures_reach_the_farther_policies_no_nearer_than_the_best():
    stage = stage_of(StageName.RATINGS)
    best = stage.mdp.model(1).optimum().policies[0]
    optimal = one_hot(best, stage.mdp.n_actions)
    behaviour = behaviour_policy(stage.mdp, best, other_share=0.25)
    found = reach_of(stage, optimal, behaviour, other_share=0.25, least_gap=0.01)
    assert found.optimal < found.suboptimal <= found.bound * (1 + 1e-12)


def test_the_farthest_of_two_arms_is_the_worse_one_at_its_closed_form():
    mdp = FiniteMDP(
        rewards=np.array([[0.25, 0.75]]),
        successors=np.zeros((1, 2, 1), dtype=np.int64),
        probabilities=np.ones((1, 2, 1)),
        initial=np.ones(1),
        horizon=1,
    )
    stage = replace(
        stage_of(StageName.RIVER), mdp=mdp, step_levels=partial(tabular_step_levels, mdp)
    )
    behaviour, optimal = np.array([[[0.2, 0.8]]]), np.array([[[0.0, 1.0]]])
    found = reach_of(stage, optimal, behaviour, other_share=0.2, least_gap=0.5)
    own = math.sqrt(0.2) + math.sqrt(0.8)
    assert found.optimal == pytest.approx(1 / 0.8 / own**2, rel=1e-12)
    assert found.suboptimal == pytest.approx(1 / 0.2 / own**2, rel=1e-12)


def test_where_no_policy_is_so_bad_more_episodes_are_asked_for():
    stage = stage_of(StageName.RANDOM)
    even = np.full((4, 6, 4), 0.25)
    with pytest.raises(InvalidArgumentError, match="is worse than the best by 4; ask for more"):
        reach_of(stage, even, even, other_share=0.75, least_gap=4.0)


def test_a_file_of_ratings_takes_the_place_of_drawn_ones(tmp_path):
    rng = np.random.default_rng(0)
    lines = [f"{user}\t{film}\t{rng.integers(1, 6)}\t0" for user in range(45) for film in range(20)]
    path = tmp_path / "u.data"
    path.write_text("\n".join(lines))
    given, drawn = stage_of(StageName.RATINGS, ratings=path), stage_of(StageName.RATINGS)
    assert given.mdp.rewards.shape == drawn.mdp.rewards.shape
    assert not np.allclose(given.mdp.rewards, drawn.mdp.rewards)
