import math
from dataclasses import dataclass, fields, replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from torch import Tensor

from llm_experiment.agent.policy import FixedKLPolicy
from llm_experiment.agent.rollout import (
    BATCH_STREAM,
    Rollout,
    batches,
    join_rollouts,
    play_episodes,
    random_stream,
)
from llm_experiment.agent.step_policy import StepPolicy
from llm_experiment.base.protocol import BaseStep
from llm_experiment.chat.observation import LARGEST, pack_observation, unpack_observation
from llm_experiment.chat.turn_records import Speaker
from llm_experiment.config import ConstraintConfig, Stage, TargetRule
from tests.llm_experiment.fakes.small_world import (
    COLON,
    NEWLINE,
    NO,
    PIECES,
    PLEASE,
    YES,
    S,
    T,
    encode,
    score,
    small_config,
    small_world,
)
from theory.budget import Accounting
from theory.constraints import expected_kl_nats, expected_tvd
from theory.errors import InvalidArgumentError, InvalidBudgetError
from theory.process import joint_law

N_TOKENS = len(PIECES)


def random_agent(world, *, rule=TargetRule.ATTAINABLE, seed=0, scale=0.5) -> FixedKLPolicy:
    """A policy with random layers."""
    env = world.env(small_config())
    agent = FixedKLPolicy(
        env.observation_space,
        env.action_space,
        lambda _: 1e-3,
        actor_learning_rate=1e-3,
        target_rule=rule,
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.normal_(std=scale, generator=generator)
    return agent


def played(agent, world, **changes) -> Rollout:
    settings = {
        "n_episodes": 12,
        "n_tokens": 30,
        "budget_nats": 2.0,
        "accounting": Accounting.EXACT,
        "seed": 0,
        "stream": (0,),
        "keep_observations": True,
    }
    return play_episodes(agent, world, **(settings | changes))


@pytest.fixture(scope="module")
def world():
    return small_world()


@pytest.fixture(scope="module")
def agent(world):
    return random_agent(world)


@pytest.fixture(scope="module")
def rollout(agent, world):
    return played(agent, world)


def test_arrays_are_aligned_with_the_tokens(rollout, world):
    for name, array in rollout.arrays().items():
        if array.ndim == 2:
            assert array.shape == (12, 30), name
    prompt = world.prompt_tokens.numpy()
    assert (rollout.tokens[:, : rollout.prompt_length] == prompt).all()
    assert not rollout.agent_steps[:, : rollout.prompt_length].any()
    assert (rollout.writers == world.parser.writers(torch.tensor(rollout.tokens)).numpy()).all()
    elsewhere = ~rollout.agent_steps
    for numbers in (rollout.kl_nats, rollout.log_ratio_nats, rollout.rewards):
        assert not numbers[elsewhere].any()


def test_what_was_recorded_is_what_the_policy_says_of_what_it_saw(rollout, agent):
    """Acting and learning cannot disagree, the budget before the step included."""
    steps = rollout.agent_steps
    with torch.no_grad():
        step, values = agent.learn_on(rollout.kept_observations)
    tokens = torch.tensor(rollout.tokens[steps])
    np.testing.assert_allclose(
        step.log_prob(tokens), rollout.log_probs[steps], rtol=1e-6, atol=1e-12
    )
    np.testing.assert_allclose(
        step.log_ratio_nats(tokens), rollout.log_ratio_nats[steps], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(step.kl_nats, rollout.kl_nats[steps], rtol=1e-5, atol=1e-9)
    assert values.abs().min() > 0


def test_the_agent_sees_the_ledgers_budget_and_the_share_of_the_episode_left(rollout, world):
    seen = unpack_observation(rollout.kept_observations, n_tokens=N_TOKENS)
    steps = rollout.agent_steps
    np.testing.assert_allclose(seen.budget_nats, rollout.budget_nats[steps], rtol=1e-6)
    position = np.nonzero(steps)[1]
    np.testing.assert_allclose(seen.fraction_left, 1 - position / 30, rtol=1e-6)
    features = torch.nn.functional.one_hot(torch.tensor(rollout.tokens), N_TOKENS).numpy()
    last = features[np.nonzero(steps)[0], position - 1]
    np.testing.assert_array_equal(seen.features[:, N_TOKENS:], last)


def test_the_kls_of_an_episode_sum_to_its_ledger_and_never_exceed_an_exact_budget(agent, world):
    for budget in (0.0, 1e-9, 0.5, 4.0):
        rollout = played(agent, world, budget_nats=budget, n_episodes=40)
        total = rollout.kl_nats.sum(axis=1)
        np.testing.assert_allclose(total, rollout.spent_nats, rtol=1e-12)
        assert (total <= budget * (1 + 1e-12)).all()
        assert rollout.leak_nats.max() <= 1e-12 * budget
        spent_before = np.cumsum(rollout.kl_nats, axis=1) - rollout.kl_nats
        np.testing.assert_allclose(rollout.budget_nats, budget - spent_before, atol=1e-12)


def test_realised_accounting_charges_the_log_ratio_clamped_and_leaks(world):
    bold = random_agent(world, rule=TargetRule.PUBLISHED, scale=2.0)
    rollout = played(
        bold, world, budget_nats=1.0, accounting=Accounting.REALIZED, n_episodes=100, n_tokens=60
    )
    budget = np.full(100, 1.0)
    for t in range(60):
        np.testing.assert_allclose(rollout.budget_nats[:, t], budget, atol=1e-12)
        budget = np.maximum(budget - rollout.log_ratio_nats[:, t], 0.0)
    assert rollout.leak_nats.max() > 0.5
    np.testing.assert_allclose(
        rollout.leak_nats, np.maximum(rollout.spent_nats - 1.0, 0.0), atol=1e-12
    )


def test_a_policy_that_overspends_an_exact_budget_is_found_out(world):
    bold = random_agent(world, rule=TargetRule.PUBLISHED, scale=2.0)
    with pytest.raises(InvalidBudgetError, match="must not be overspent"):
        played(bold, world, budget_nats=0.0)


def test_without_a_budget_nothing_is_charged_against_it(world):
    rollout = played(random_agent(world, rule=None), world, budget_nats=math.inf)
    assert np.isinf(rollout.budget_nats).all()
    assert (rollout.leak_nats == 0).all()
    assert rollout.spent_nats.min() > 0


def test_every_reply_is_paid_for_at_the_step_that_handed_over_the_turn(rollout, world):
    assert len(rollout.replies) > 5
    expected = np.zeros_like(rollout.rewards)
    for reply in rollout.replies:
        # The token that the reward belongs to is the colon after the partner's name.
        t = rollout.prompt_length + reply.agent_step
        assert rollout.tokens[reply.episode, t - 1 : t + 1].tolist() == [S, COLON]
        assert rollout.agent_steps[reply.episode, t]
        expected[reply.episode, t] = score([reply.text])[0]
    np.testing.assert_array_equal(rollout.rewards, expected)
    np.testing.assert_array_equal(rollout.returns, expected.sum(axis=1))
    shifted = played(random_agent(world), replace(world, reward_shift=-0.5))
    np.testing.assert_allclose(shifted.reply_rewards, rollout.reply_rewards - 0.5)


def test_all_replies_of_a_rollout_are_scored_in_one_batch(agent, world):
    batches = []

    def counting(replies):
        batches.append(len(replies))
        return score(replies)

    rollout = played(agent, replace(world, score=counting))
    assert batches == [len(rollout.replies)]


def test_empty_turns_are_counted_from_the_first_turn_that_the_agent_opens():
    # After `S: no\nT` everyone is certain of what comes next.
    text = encode(": no\nS: yes\nT:\nS:")
    table = np.full((N_TOKENS,) * 3, -np.inf)
    for a, b, c in zip(text, text[1:], text[2:], strict=False):
        table[a, b, c] = 0.0
    world = small_world(table, prompt="S: no\nT: no")
    rollout = played(random_agent(world, scale=0.0), world, n_tokens=20, budget_nats=0.0)
    turns = rollout.turns
    own = (
        (turns.speaker == Speaker.AGENT)
        & turns.finished
        & (turns.opened >= len(world.prompt_tokens))
    )
    assert rollout.empty_share == rollout.empty_turns[own].mean() == 1.0


def test_an_agent_that_never_ends_a_turn_has_no_share_of_empty_ones(world):
    table = np.full((N_TOKENS,) * 2, -np.inf)
    table[:, 4] = 0.0
    rambling = small_world(table)
    rollout = played(random_agent(rambling, scale=0.0), rambling)
    assert math.isnan(rollout.empty_share)
    assert rollout.replies == ()
    assert (rollout.returns == 0).all()


def test_the_same_seed_and_stream_give_the_same_episodes_and_others_do_not(agent, world):
    first, again = played(agent, world), played(agent, world)
    for name, array in first.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[name])
    assert torch.equal(first.kept_observations, again.kept_observations)
    for other in ({"seed": 1}, {"stream": (1,)}, {"stream": (0, 0)}):
        assert (played(agent, world, **other).tokens != first.tokens).any()


def test_batches_add_up_and_the_first_draws_as_a_single_one_would():
    assert list(batches(7, 3, stream=(5, 1))) == [
        (3, (5, 1)),
        (3, (5, 1, BATCH_STREAM, 1)),
        (1, (5, 1, BATCH_STREAM, 2)),
    ]
    assert list(batches(3, 9, stream=())) == [(3, ())]
    for n_episodes, at_once, name in ((0, 3, "n_episodes"), (3, 0, "at_once")):
        with pytest.raises(InvalidArgumentError, match=f"{name} must be >= 1, got 0"):
            list(batches(n_episodes, at_once, stream=()))


def test_joined_rollouts_are_their_episodes_in_order(agent, world):
    parts = [played(agent, world, n_episodes=n, stream=(n,)) for n in (4, 1, 3)]
    whole = join_rollouts(parts)
    assert whole.observations is None
    offsets = (0, 4, 5)
    for name, array in whole.arrays().items():
        own = [part.arrays()[name] for part in parts]
        if name == "prompt_length":
            assert {int(array), *map(int, own)} == {whole.prompt_length}
            continue
        if name in ("turn_episode", "reply_episode"):
            own = [row + offset for row, offset in zip(own, offsets, strict=True)]
        np.testing.assert_array_equal(array, np.concatenate(own))
        assert array.dtype == own[0].dtype
    for episode, row in enumerate(whole.tokens):
        turns = world.parser.find_turns(torch.from_numpy(row[None]))
        assert whole.turns.opened[whole.turns.episode == episode].tolist() == turns.opened.tolist()
    assert np.isclose(sum(whole.reply_rewards), whole.rewards.sum())


def test_streams_are_functions_of_their_path():
    draws = {
        path: torch.rand(4, generator=random_stream(*path)).tolist()
        for path in [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0)]
    }
    assert len({tuple(values) for values in draws.values()}) == len(draws)
    assert torch.rand(4, generator=random_stream(0, 1)).tolist() == draws[0, 1]


def test_observations_that_were_not_kept_are_not_there(agent, world):
    rollout = played(agent, world, keep_observations=False)
    assert rollout.observations is None
    with pytest.raises(InvalidArgumentError, match="keep_observations"):
        _ = rollout.kept_observations


def test_one_episode_behind_gymnasiums_interface_is_the_same_game():
    """`ChatEnv` and the lockstep show the agent the same, given the same tokens."""
    certain = np.full((N_TOKENS,) * 2, -np.inf)
    cycle = [NEWLINE, S, COLON, NO, NEWLINE, T, COLON, YES]  # what the student says is certain
    for before, after in pairwise([*cycle, NEWLINE]):
        certain[before, after] = 0.0
    certain[COLON, NO] = certain[COLON, YES] = np.log(0.5)
    certain[[YES, NO], NEWLINE] = 0.0
    certain[NEWLINE, S] = certain[NEWLINE, T] = np.log(0.5)
    certain[PLEASE, NEWLINE] = 0.0
    world = small_world(certain)
    rollout = played(random_agent(world), world, n_episodes=20, n_tokens=25)
    config = small_config(stages=(Stage(agent_steps=1, n_tokens=25),))
    env = world.env(replace(config, constraint=ConstraintConfig(budget_nats=2.0)))
    seen = np.split(
        rollout.kept_observations.numpy(), np.cumsum(rollout.agent_steps.sum(axis=1))[:-1]
    )
    compared = 0
    for episode in range(20):
        observation, _ = env.reset(seed=episode)
        for i, t in enumerate(np.nonzero(rollout.agent_steps[episode])[0]):
            if env.chat.tokens[0].tolist() != rollout.tokens[episode, :t].tolist():
                break  # the student said something else here
            np.testing.assert_array_equal(
                np.nan_to_num(observation, neginf=-LARGEST),
                np.nan_to_num(seen[episode][i], neginf=-LARGEST),
            )
            env.charge(kl_nats=rollout.kl_nats[episode, t])
            observation, reward, *_ = env.step(rollout.tokens[episode, t])
            if env.chat.tokens[0].tolist() == rollout.tokens[episode, : env.chat.position].tolist():
                assert reward == rollout.rewards[episode, t]
            compared += 1
    assert compared > 100


# ----------------------------------------------- identical accounting with the theory


@dataclass(frozen=True, kw_only=True)
class Scripted(StepPolicy):
    """A step policy whose samples are given."""

    tokens: Tensor

    def sample(self, *, generator):
        return self.tokens


class Actor:
    """Plays an agent's policy in float64, but writes given transcripts, (n, tokens)."""

    device = torch.device("cpu")

    def __init__(self, agent, transcripts):
        self.agent, self.columns = agent.double(), iter(transcripts.T)

    def act_on(self, observation):
        step = self.agent.act_on(observation.double())
        numbers = {field.name: getattr(step, field.name) for field in fields(StepPolicy)}
        return Scripted(**numbers, tokens=next(self.columns))


@pytest.mark.parametrize("accounting", Accounting)
def test_kl_and_tvd_of_all_transcripts_are_the_theorys(accounting):
    """Three words, four steps: enumerated by the engine, and as tables of a finite tree."""
    words, horizon, budget = [YES, NO, PLEASE], 4, 0.6
    rng = np.random.default_rng(5)
    table = np.full((N_TOKENS,) * 3, -np.inf)
    table[..., words] = np.log(rng.dirichlet(np.ones(3), size=(N_TOKENS, N_TOKENS)))
    world = small_world(table)
    agent = random_agent(world)
    p = len(world.prompt_tokens)

    transcripts = torch.tensor(list(product(words, repeat=horizon)))
    rollout = played(
        Actor(agent, transcripts),
        world,
        n_episodes=len(transcripts),
        n_tokens=p + horizon,
        budget_nats=budget,
        accounting=accounting,
    )
    assert (rollout.tokens[:, p:] == transcripts.numpy()).all()
    law = np.exp(rollout.log_probs.sum(axis=1))
    base_law = np.exp((rollout.log_probs - rollout.log_ratio_nats).sum(axis=1))

    # The same policy as tables: the budget by the definition, in plain Python.
    pi, beta = [], []
    for t in range(horizon):
        pi_rows, beta_rows = [], []
        for history in product(words, repeat=t):
            left = budget
            for i in range(t + 1):
                tokens = [*world.prompt_tokens.tolist(), *history[:i]]
                base = np.exp(table[tokens[-2], tokens[-1]])
                context = torch.nn.functional.one_hot(torch.tensor(tokens[-2:]), N_TOKENS)
                observation = pack_observation(
                    BaseStep(
                        log_probs=world.base.table[tokens[-2], tokens[-1]][None],
                        features=context.reshape(1, -1).float(),
                        missing_mass=torch.zeros(1),
                    ),
                    fraction_left=1 - len(tokens) / (p + horizon),
                    budget_nats=torch.tensor([left], dtype=torch.float64),
                )
                with torch.no_grad():
                    step = agent.act_on(observation)
                x, b = (np.exp(q.numpy()[0, words]) for q in (step.log_probs, step.base_log_probs))
                np.testing.assert_allclose(b, base[words], rtol=1e-6)
                if i == t:
                    break
                taken = words.index(history[i])
                kl = (x * np.log(x / b)).sum()
                cost = kl if accounting is Accounting.EXACT else np.log(x[taken] / b[taken])
                left = max(left - cost, 0.0)
            pi_rows.append(x / x.sum())
            beta_rows.append(b / b.sum())
        pi.append(np.array(pi_rows))
        beta.append(np.array(beta_rows))
    nothing = [np.ones((3**t, 3, 1)) for t in range(horizon)]

    np.testing.assert_allclose(law, joint_law(pi, nothing), rtol=1e-9)
    expected_kl = expected_kl_nats(tuple(pi), tuple(beta), tuple(nothing))
    assert law @ rollout.kl_nats.sum(axis=1) == pytest.approx(expected_kl, abs=1e-10)
    assert law @ rollout.spent_nats == pytest.approx(expected_kl, abs=1e-10)
    assert law @ rollout.log_ratio_nats.sum(axis=1) == pytest.approx(expected_kl, abs=1e-10)
    tvd = expected_tvd(tuple(pi), tuple(beta), tuple(nothing))
    assert 0.5 * np.abs(law - base_law).sum() == pytest.approx(tvd, abs=1e-10)
    if accounting is Accounting.EXACT:
        assert rollout.spent_nats.max() <= budget * (1 + 1e-12)
