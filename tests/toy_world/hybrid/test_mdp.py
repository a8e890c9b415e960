"""Values, plans and occupancies are those of every path; data are what episodes bring."""

from dataclasses import replace

import numpy as np
import pytest

from tests.toy_world.hybrid.brute_force import every_policy, small_mdp, walked
from theory.errors import InvalidArgumentError, InvalidDistributionError, InvalidShapeError
from toy_world.hybrid.mdp import (
    demonstrations,
    no_data,
    occupancies,
    one_hot,
    with_an_episode,
)


@pytest.mark.parametrize("seed", range(3))
def test_values_are_means_over_all_paths(seed):
    mdp = small_mdp(seed)
    policies = every_policy(mdp)
    found = mdp.model(len(policies)).values(policies)
    expected = [walked(mdp, policy, lambda _, s, a: mdp.rewards[s, a]) for policy in policies]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_pay_left_counts_for_every_step_that_is_left():
    mdp = small_mdp(1)
    left = np.random.default_rng(0).random(mdp.rewards.shape)
    policies = every_policy(mdp)
    model = replace(mdp.model(len(policies)), pay_left=np.broadcast_to(left, (64, 2, 2)).copy())
    expected = [
        walked(mdp, p, lambda h, s, a: mdp.rewards[s, a] + (mdp.horizon - h) * left[s, a])
        for p in policies
    ]
    np.testing.assert_allclose(model.values(policies), expected, rtol=1e-12)
    (greatest,) = replace(mdp.model(1), pay_left=left[None]).optimum().values
    assert greatest == pytest.approx(max(expected), rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_optimum_is_the_greatest_of_all_policies_and_its_bound_says_so(seed):
    mdp = small_mdp(seed)
    policies = every_policy(mdp)
    optimum = mdp.model(1).optimum()
    assert optimum.values[0] == pytest.approx(
        mdp.model(len(policies)).values(policies).max(), rel=1e-12
    )
    assert abs(optimum.gap) <= 1e-12


def test_among_equal_actions_the_first_is_taken():
    mdp = small_mdp(0)
    even = replace(mdp, rewards=np.ones((2, 2)))
    assert not even.model(1).optimum().policies.any()


def test_occupancies_of_a_policy_sum_its_rewards():
    mdp = small_mdp(2)
    for policy in every_policy(mdp)[::7]:
        met = occupancies(mdp, one_hot(policy, 2))
        np.testing.assert_allclose(met.sum(axis=(1, 2)), 1, rtol=1e-12)
        assert (met.sum(axis=0) * mdp.rewards).sum() == pytest.approx(
            walked(mdp, policy, lambda _, s, a: mdp.rewards[s, a]), rel=1e-12
        )


def test_demonstrations_come_as_often_as_occupancies_and_rewards_say():
    mdp = small_mdp(3)
    behaviour = np.full((3, 2, 2), 0.5)
    data = demonstrations(mdp, behaviour, 50, n_runs=200, rng=np.random.default_rng(0))
    assert (data.counts.sum(axis=(1, 2)) == 150).all()
    episodes = 50 * 200
    expected = occupancies(mdp, behaviour).sum(axis=0)[..., None] * mdp.probabilities
    # A pair may come up to 3 times an episode: its count varies by at most 1.5^2 an episode.
    np.testing.assert_allclose(
        data.visits.sum(axis=0) / episodes, expected, atol=5 * 1.5 / np.sqrt(episodes)
    )
    counts = data.counts.sum(axis=0)
    np.testing.assert_allclose(
        data.rewards.sum(axis=0) / counts, mdp.rewards, atol=5 * 0.5 / np.sqrt(counts.min())
    )


def test_an_episode_follows_its_own_runs_policy_and_leaves_the_old_data_alone():
    mdp = small_mdp(4)
    before = no_data(mdp, 2)
    policies = np.stack([np.zeros((3, 2), dtype=np.int64), np.ones((3, 2), dtype=np.int64)])
    after = with_an_episode(mdp, policies, before, np.random.default_rng(0))
    assert not before.visits.any()
    np.testing.assert_array_equal(after.counts.sum(axis=1), [[3, 0], [0, 3]])
    assert (after.rewards <= after.counts).all()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"rewards": np.ones((2, 3))}, InvalidShapeError, r"belong together, got \(2, 3\)"),
        ({"successors": np.full((2, 2, 2), 2)}, InvalidShapeError, "must be states 0 to 1"),
        ({"rewards": np.full((2, 2), 1.5)}, InvalidDistributionError, r"rewards must lie in"),
        ({"initial": np.array([0.5, 0.4])}, InvalidDistributionError, "initial must be >= 0"),
        ({"horizon": 0}, InvalidArgumentError, "horizon must be >= 1, got 0"),
    ],
)
def test_what_is_no_process_is_refused(changes, error, words):
    with pytest.raises(error, match=words):
        replace(small_mdp(0), **changes)
