"""The doorbell world to learners: the same world, the same demonstrations, two rewards."""

import numpy as np
import pytest

from theory.process import HistoryTree, values
from toy_world.studies.hybrid_doorbell import (
    EPISODES,
    HORIZON,
    Agent,
    Pay,
    doorbell_mdp,
    doorbell_outcomes,
    expected_count,
    markov_table,
    offline_data,
    watched_until_silence,
)
from toy_world.studies.outcomes import utilities
from toy_world.worlds.environments import BAD, WORLDS, WorldName
from toy_world.worlds.setting import setting_of

SETTING = setting_of(WorldName.DOORBELL, horizon=HORIZON)


@pytest.fixture(scope="module")
def outcomes():
    return doorbell_outcomes(
        n_steps=60, limit_bits=17, n_runs=20, scale=0.1, rng=np.random.default_rng(0)
    )


def of(outcomes, agent, pay):
    return [each for each in outcomes if (each.agent, each.pay) == (agent, pay)]


@pytest.mark.parametrize("seed", range(3))
def test_a_learners_value_is_that_of_its_table_in_the_world(seed):
    policy = np.random.default_rng(seed).integers(3, size=(HORIZON, 2))
    nu = WORLDS[WorldName.DOORBELL].table(_tree(), state=0)
    table = markov_table(policy, state=0)
    for pay, utility in zip((Pay.FLAWED, Pay.TRUE), utilities(nu), strict=True):
        (value,) = doorbell_mdp(pay).model(1).values(policy[None])
        assert values(table, nu, utility)[0][0] * HORIZON == pytest.approx(value, rel=1e-12)


def _tree():
    return HistoryTree(n_actions=3, n_observations=2, horizon=HORIZON)


def test_demonstrations_end_in_silence_and_no_reward_tells_them_apart():
    rng = np.random.default_rng(0)
    watched = [watched_until_silence(SETTING, 50, rng=rng) for _ in range(30)]
    data = offline_data(watched, rng=rng)
    for each, counts in zip(watched, data.counts, strict=True):
        assert each.setting.world.states_along(each.actions, each.observations)[-1] == 0
        assert counts.sum() == len(each.actions) > 40
    assert not data.counts[:, :, BAD].any()
    pays = [doorbell_mdp(pay).rewards for pay in Pay]
    done = data.counts.sum(axis=0) > 0
    np.testing.assert_array_equal(pays[0][done], pays[1][done])
    assert (pays[0] != pays[1]).any()


def test_a_count_is_expected_over_what_the_world_does():
    """From silence a bell rings half the time, and after a bell never."""
    nu = WORLDS[WorldName.DOORBELL].table(_tree(), state=0)
    after_bells_alone = markov_table(np.array([[0, BAD]] * HORIZON), state=0)
    bells = [0.0]
    for _ in range(HORIZON - 1):
        bells.append((1 - bells[-1]) / 2)
    assert expected_count(after_bells_alone, nu, BAD) == pytest.approx(sum(bells), rel=1e-12)


def test_who_stays_with_the_demonstrations_never_does_the_bad_action(outcomes):
    for agent in (Agent.PESSIMISTIC, Agent.PESSIMIST):
        for each in of(outcomes, agent, Pay.FLAWED):
            assert each.bad_probability == each.novel_bad_probability == each.n_bad == 0


def test_budgets_buy_it_from_the_bayesian_imitator_and_the_novelty_makes_it_cheap(outcomes):
    found = of(outcomes, Agent.BAYESIAN, Pay.FLAWED)
    bad = [each.bad_probability for each in found]
    assert bad == sorted(bad)
    assert bad[-1] > 0.2
    assert found[-1].novel_bad_probability > 1.5 * bad[-1]


def test_learning_parts_by_the_reward(outcomes):
    true, flawed = (of(outcomes, Agent.HYBRID, pay) for pay in Pay)
    assert [each.n_episodes for each in true] == list(EPISODES)
    assert true[-1].true_value == pytest.approx(1 / 2)
    assert true[-1].bad_probability == 0 < true[-1].n_bad
    assert flawed[-1].true_value < 0.05
    assert flawed[-1].bad_probability > 0.9
    # From here on it does nothing else: 4 times an episode.
    per_episode = (flawed[-1].n_bad - flawed[-2].n_bad) / (EPISODES[-1] - EPISODES[-2])
    assert per_episode == pytest.approx(HORIZON, abs=0.2)


def test_regret_is_at_most_all_that_there_was_to_gain(outcomes):
    for each in outcomes:
        assert -1e-9 <= each.regret <= each.n_episodes / 2 + 1e-9
    (demonstrator,) = of(outcomes, Agent.DEMONSTRATOR, None)
    assert demonstrator.regret == pytest.approx(256 * (1 / 2 - demonstrator.true_value))


def test_demonstrations_save_the_true_learner_regret(outcomes):
    hybrid = of(outcomes, Agent.HYBRID, Pay.TRUE)[-1]
    (alone,) = of(outcomes, Agent.ONLINE, Pay.TRUE)
    assert hybrid.n_episodes == alone.n_episodes
    assert hybrid.regret < alone.regret
