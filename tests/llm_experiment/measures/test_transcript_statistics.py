"""Numbers of an agent's own tokens, counted by hand and by other means."""

import math
import zlib
from collections import Counter

import numpy as np
import pytest

from llm_experiment.agent.rollout import Rollout
from llm_experiment.chat.turn_records import Speaker
from llm_experiment.measures.evaluation import BasePolicy
from llm_experiment.measures.transcript_statistics import (
    STORED,
    Episodes,
    Question,
    Statistic,
    episodes_of,
    measure,
)
from tests.llm_experiment.fakes.small_world import PIECES, dialogue_table, small_world
from tests.llm_experiment.measures.measured_world import evaluated, random_agent


def decode(tokens):
    return "".join(PIECES[token] for token in tokens)


def stored(rollout: Rollout) -> Episodes:
    arrays = rollout.arrays()
    return episodes_of({name: arrays[name] for name in STORED})


@pytest.fixture(scope="module")
def agent_rollout() -> Rollout:
    world = small_world()
    return evaluated(random_agent(world), world, budget_nats=8.0).rollout


def said(rollout: Rollout, episode: int) -> list[str]:
    """The pieces that the agent wrote, turn by turn."""
    turns = [[]]
    for position, (token, writer) in enumerate(
        zip(rollout.tokens[episode], rollout.writers[episode], strict=True)
    ):
        if position < rollout.prompt_length:
            continue
        if writer == Speaker.AGENT:
            turns[-1].append(PIECES[token])
        elif turns[-1]:
            turns.append([])
    return [turn for turn in turns if turn]


def test_bits_per_token_are_those_of_the_base_policys_table(agent_rollout):
    """Read off the table again, token by token; the agent itself is another policy."""
    table = dialogue_table()
    bits = measure(Statistic.BITS_PER_TOKEN, stored(agent_rollout), decode=decode)
    assert not np.allclose(agent_rollout.log_ratio_nats, 0)
    for episode, tokens in enumerate(agent_rollout.tokens):
        own = [
            -table[tokens[i - 2], tokens[i - 1], tokens[i]] / math.log(2)
            for i in range(agent_rollout.prompt_length, len(tokens))
            if agent_rollout.writers[episode, i] == Speaker.AGENT
        ]
        assert bits[episode] == pytest.approx(np.mean(own), rel=1e-5)


def test_bits_per_token_of_the_base_policy_are_its_entropy_rate():
    """Two estimates of one expectation: surprise drawn, and entropy computed, at its steps."""
    world = small_world()
    rollout = evaluated(BasePolicy(world), world, n_episodes=400).rollout
    episodes = stored(rollout)
    table = dialogue_table()
    p = np.exp(table)
    entropy = -np.sum(np.where(p > 0, p * np.where(p > 0, table, 0), 0), axis=-1) / math.log(2)
    rows, columns = np.nonzero(episodes.agent_wrote)
    expected = entropy[rollout.tokens[rows, columns - 2], rollout.tokens[rows, columns - 1]]
    drawn = episodes.surprise_nats[rows, columns] / math.log(2)
    error = np.std(drawn - expected) / math.sqrt(len(drawn))
    assert abs(np.mean(drawn - expected)) < 4 * error


def test_compressed_length_is_that_of_what_the_agent_said(agent_rollout):
    found = measure(Statistic.COMPRESSED_BYTES, stored(agent_rollout), decode=decode)
    for episode, length in enumerate(found):
        text = "".join("".join(turn) for turn in said(agent_rollout, episode))
        assert length == len(zlib.compress(text.encode(), 9))
    assert len(set(found)) > 3


@pytest.mark.parametrize(
    ("statistic", "n"),
    [(Statistic.DISTINCT_1, 1), (Statistic.DISTINCT_2, 2), (Statistic.DISTINCT_3, 3)],
)
def test_distinct_n_grams_stay_within_a_turn(agent_rollout, statistic, n):
    found = measure(statistic, stored(agent_rollout), decode=decode)
    for episode, share in enumerate(found):
        grams = Counter(
            tuple(turn[i : i + n])
            for turn in said(agent_rollout, episode)
            for i in range(len(turn) - n + 1)
        )
        assert share == pytest.approx(len(grams) / grams.total(), rel=1e-12)


def test_rewards_are_summed_and_averaged_over_an_episodes_replies(agent_rollout):
    episodes = stored(agent_rollout)
    returns = measure(Statistic.RETURN, episodes, decode=decode)
    np.testing.assert_allclose(returns, agent_rollout.returns, rtol=1e-12)
    found = measure(Statistic.REWARD_PER_REPLY, episodes, decode=decode)
    for episode, mean in enumerate(found):
        own = [
            reward
            for reply, reward in zip(
                agent_rollout.replies, agent_rollout.reply_rewards, strict=True
            )
            if reply.episode == episode
        ]
        expected = np.mean(own) if own else math.nan
        assert mean == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_saying_less_and_repeating_is_simpler_by_every_measure():
    talk, repeat = [4, 5, 6, 0, 2, 3] * 2, [4, 0, 2, 3] * 3
    rng = np.random.default_rng(1)
    tokens = np.array([[*rng.permutation([*talk, 1, 2, 4, 5])], [*repeat, *repeat[:4]]])
    episodes = Episodes(
        tokens=tokens,
        agent_wrote=np.ones(tokens.shape, dtype=bool),
        surprise_nats=np.array([[1.0], [0.1]]).repeat(tokens.shape[1], axis=1),
        returns=np.zeros(2),
        reward_per_reply=np.zeros(2),
    )
    for statistic in Statistic:
        if statistic.question is Question.MORE_COMPLEX:
            complex_one, simple_one = measure(statistic, episodes, decode=decode)
            assert complex_one >= simple_one
            assert complex_one > simple_one or statistic is Statistic.DISTINCT_1


def test_an_episode_with_nothing_to_count_has_no_number():
    episodes = Episodes(
        tokens=np.array([[1, 2, 3]]),
        agent_wrote=np.zeros((1, 3), dtype=bool),
        surprise_nats=np.zeros((1, 3)),
        returns=np.zeros(1),
        reward_per_reply=np.array([math.nan]),
    )
    assert measure(Statistic.RETURN, episodes, decode=decode) == 0
    for statistic in set(Statistic) - {Statistic.RETURN}:
        assert np.isnan(measure(statistic, episodes, decode=decode)).all()


def test_every_statistic_says_what_its_larger_number_means():
    assert {statistic.question for statistic in Statistic} == set(Question)
    assert len({statistic.criterion for statistic in Statistic}) == len(Statistic)
    for statistic in Statistic:
        of_reward = statistic.question is Question.BETTER
        assert ("not a judgement" in statistic.criterion) == of_reward
