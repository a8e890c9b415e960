"""An agent and the base policy are evaluated, and everything is kept."""

import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest

from llm_experiment.measures.departure import Departure
from llm_experiment.measures.evaluation import (
    BasePolicy,
    base_parts,
    behaviour_prices_nats,
    play_behaviour,
)
from llm_experiment.measures.metrics import METRICS
from mightnt.results import write_json
from mightnt.statistics import difference_interval
from tests.llm_experiment.fakes.small_world import (
    COLON,
    NEWLINE,
    S,
    T,
    dialogue_table,
    small_world,
)
from tests.llm_experiment.measures.measured_world import (
    PROCESS,
    base_evaluated,
    evaluated,
    process_world,
    random_agent,
)
from theory.errors import InvalidArgumentError, InvalidShapeError


@pytest.fixture(scope="module")
def agent_evaluation():
    world = process_world()
    return evaluated(random_agent(world), world, process=PROCESS, n_episodes=20, budget_nats=5.0)


def test_a_demonstrator_of_another_vocabulary_is_refused():
    world = small_world()
    with pytest.raises(InvalidShapeError, match=r"has \d+ tokens and the base policy 7"):
        evaluated(BasePolicy(world), world, process=PROCESS)


def test_the_base_policy_plays_b_and_is_the_agent_with_budget_0():
    world = small_world()
    settings = {"budget_nats": 0.0, "n_episodes": 8}
    base = evaluated(BasePolicy(world), world, **settings).rollout
    agent = evaluated(random_agent(world), world, **settings).rollout
    np.testing.assert_array_equal(base.tokens, agent.tokens)
    assert not base.kl_nats.any()
    assert not base.log_ratio_nats.any()


def test_silence_is_priced_turn_by_turn_by_the_base_policy():
    world, table = small_world(), dialogue_table()
    played = play_behaviour(world, n_episodes=50, n_tokens=40, seed=0, stream=(1,))
    prices = behaviour_prices_nats(played)
    expected = -(table[T, COLON, NEWLINE] + table[COLON, NEWLINE, S] + table[NEWLINE, S, COLON])
    assert 10 < len(prices) <= 50
    priced = ~np.isnan(prices)
    assert priced[:, 0].all()
    assert priced.sum() > len(prices)
    np.testing.assert_allclose(prices[priced], expected, rtol=1e-6)


def test_the_base_is_evaluated_at_every_length_and_its_episodes_are_handed_on():
    world = small_world()
    base, episodes = base_evaluated(world, n_episodes=20, lengths=(60, 40, 60), stream=7)
    assert [row.n_tokens for row in base.rows] == [60, 40]
    assert {n: e.rollout.tokens.shape for n, e in episodes.items()} == {60: (20, 60), 40: (20, 40)}
    assert base.n_contexts <= 20
    assert base.first_silence_probability == pytest.approx(math.exp(-base.first_silence_nats[1]))
    assert base.silence_nats[0] == pytest.approx(base.first_silence_nats[1])
    played = play_behaviour(world, n_episodes=20, n_tokens=40, seed=0, stream=(7,))
    assert base.silence_return == pytest.approx(played.returns.mean())
    gain = difference_interval(played.returns, episodes[40].rollout.returns)
    assert base.silence_gain == pytest.approx((gain.low, gain.high))
    assert base.silence_gain[0] < base.silence_gain[1]
    single, _ = base_evaluated(world, n_episodes=1, lengths=(60,), stream=7)
    assert single.n_contexts == 1
    assert single.silence_return is not None
    assert single.silence_gain is None
    short, _ = base_evaluated(world, n_episodes=2, lengths=(8,), stream=7)
    assert short.n_contexts == 0
    assert short.first_silence_nats is short.first_silence_probability is None
    with pytest.raises(InvalidArgumentError, match="at least 1 episode length"):
        base_parts(2, (), at_once=2, stream=7)


def test_the_base_policy_plays_other_episodes_than_an_agent_of_the_same_path():
    """So that what the two do is independent; alike policies would play alike."""
    world = small_world()
    _, episodes = base_evaluated(world, n_episodes=8, lengths=(40,), stream=7)
    agent = evaluated(
        BasePolicy(world), world, n_episodes=8, n_tokens=40, budget_nats=0.0, stream=(7, 40)
    )
    assert (agent.rollout.tokens != episodes[40].rollout.tokens).any()


def test_every_number_is_defined_and_every_definition_has_its_number(agent_evaluation, tmp_path):
    row = agent_evaluation.row().to_json()
    assert list(row) == list(METRICS)
    write_json(tmp_path / "row.json", row)
    assert json.loads((tmp_path / "row.json").read_text()) == row
    without = replace(agent_evaluation, departure=None).row().to_json()
    assert without.items() <= row.items()
    assert "exit_probability" not in without


def test_stored_arrays_are_the_episodes_and_the_departure(agent_evaluation, tmp_path):
    arrays = agent_evaluation.arrays()
    np.savez_compressed(tmp_path / "episodes.npz", allow_pickle=False, **arrays)
    with np.load(tmp_path / "episodes.npz", allow_pickle=False) as stored:
        assert set(stored) == arrays.keys()
        for field in fields(Departure):
            np.testing.assert_array_equal(
                stored[field.name], getattr(agent_evaluation.departure, field.name)
            )
        np.testing.assert_array_equal(stored["kl_nats"], agent_evaluation.rollout.kl_nats)
    assert replace(agent_evaluation, departure=None).arrays().keys() < arrays.keys()


# --------------------------------------------------------------------- many episodes


def test_an_evaluation_in_parts_is_of_all_its_episodes():
    """The first part is what an evaluation of so many episodes alone would be."""
    world = small_world()
    whole, first = (
        base_evaluated(world, n_episodes=n, lengths=(40,), stream=7, at_once=4) for n in (11, 4)
    )
    tokens = whole[1][40].rollout.tokens
    np.testing.assert_array_equal(tokens[:4], first[1][40].rollout.tokens)
    assert len(tokens) == whole[0].rows[0].numbers.spending.n_episodes == 11
    assert len(np.unique(tokens, axis=0)) > 6
    assert whole[0].n_contexts <= 4
