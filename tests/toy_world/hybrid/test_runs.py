"""Learners: offline is no episode of their own, online is none of another's."""

import numpy as np
import pytest

from tests.toy_world.hybrid.brute_force import small_mdp
from theory.errors import InvalidArgumentError
from toy_world.hybrid.environments import behaviour_policy
from toy_world.hybrid.mdp import demonstrations, no_data
from toy_world.hybrid.oracle import Attitude
from toy_world.hybrid.runs import learn
from toy_world.hybrid.tabular import TabularOracle

MDP = small_mdp(3)
ORACLE = TabularOracle.of(MDP, n_episodes=400, delta=0.1, scale=0.1)


def demonstrated(*, other_share, n_episodes=100, n_runs=20):
    best = MDP.model(1).optimum().policies[0]
    behaviour = behaviour_policy(MDP, best, other_share=other_share)
    return demonstrations(MDP, behaviour, n_episodes, n_runs=n_runs, rng=np.random.default_rng(0))


def test_offline_learning_hands_over_the_pessimists_policy_and_has_no_regret():
    data = demonstrated(other_share=0.5)
    learned = learn(MDP, ORACLE, data, checkpoints=(0,), rng=np.random.default_rng(0))
    expected = ORACLE(data).best(Attitude.PESSIMISM).policies
    np.testing.assert_array_equal(learned.final, expected)
    assert not learned.regrets.any()
    np.testing.assert_array_equal(learned.data.visits, data.visits)


def test_demonstrations_of_the_best_policy_alone_are_repeated():
    mdp = small_mdp(3, n_states=3, horizon=1)
    best = mdp.model(20).optimum()
    behaviour = behaviour_policy(mdp, best.policies[0], other_share=0.0)
    data = demonstrations(mdp, behaviour, 100, n_runs=20, rng=np.random.default_rng(0))
    oracle = TabularOracle.of(mdp, n_episodes=100, delta=0.1)
    learned = learn(mdp, oracle, data, checkpoints=(0,), rng=np.random.default_rng(0))
    np.testing.assert_array_equal(learned.final, best.policies)


def test_online_learning_finds_the_best_policy():
    learned = learn(
        MDP, ORACLE, no_data(MDP, 20), checkpoints=(0, 200, 400), rng=np.random.default_rng(0)
    )
    gaps, regrets = learned.gaps.mean(axis=1), learned.regrets.mean(axis=1)
    assert gaps[0] > 0.1
    assert gaps[2] < gaps[0] / 5
    assert regrets[0] == 0
    assert 0 < regrets[2] - regrets[1] < regrets[1]
    assert (learned.data.counts.sum(axis=(1, 2)) == 400 * MDP.horizon).all()


def test_regret_is_what_the_policies_that_act_are_short_of():
    """One episode of regret is the gap of the optimist's policy for the data before it."""
    data = demonstrated(other_share=0.5, n_episodes=5)
    learned = learn(MDP, ORACLE, data, checkpoints=(1,), rng=np.random.default_rng(0))
    acting = ORACLE(data).best(Attitude.OPTIMISM).policies
    truth = MDP.model(data.n_runs)
    np.testing.assert_allclose(
        learned.regrets[0], truth.optimum().values - truth.values(acting), atol=1e-12
    )


def test_what_covers_other_policies_saves_regret_and_the_best_policys_data_do_not():
    regret = {
        share: learn(
            MDP,
            ORACLE,
            demonstrated(other_share=share),
            checkpoints=(100,),
            rng=np.random.default_rng(1),
        ).regrets.mean()
        for share in (0.0, 0.5)
    }
    assert regret[0.5] < 0.6 * regret[0.0]


def test_checkpoints_do_not_change_what_is_learnt_and_one_seed_gives_one_result():
    data = demonstrated(other_share=0.5)
    often, seldom = (
        learn(MDP, ORACLE, data, checkpoints=times, rng=np.random.default_rng(5))
        for times in ((0, 10, 30), (30,))
    )
    np.testing.assert_array_equal(often.gaps[-1], seldom.gaps[-1])
    np.testing.assert_array_equal(often.regrets[-1], seldom.regrets[-1])
    assert abs(often.certificate_gap) < 1e-12


def test_uncertainty_of_full_width_covers_and_of_next_to_none_does_not():
    found = {
        scale: learn(
            MDP,
            TabularOracle.of(MDP, n_episodes=50, delta=0.1, scale=scale),
            no_data(MDP, 50),
            checkpoints=(10, 50),
            rng=np.random.default_rng(0),
        ).uncovered
        for scale in (1.0, 1e-3)
    }
    assert not found[1.0].any()
    assert found[1e-3].mean() > 0.5


@pytest.mark.parametrize("times", [(), (3, 3), (-1, 2)])
def test_checkpoints_that_do_not_increase_are_refused(times):
    with pytest.raises(InvalidArgumentError, match="checkpoints must increase"):
        learn(MDP, ORACLE, no_data(MDP, 1), checkpoints=times, rng=np.random.default_rng(0))
