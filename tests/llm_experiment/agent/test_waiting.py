"""Rollouts where reading a tensor waits for its device, and observations that have a head."""

from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch

from llm_experiment.agent import policy
from llm_experiment.agent.policy import FixedKLPolicy
from llm_experiment.agent.ppo import LockstepPPO
from llm_experiment.agent.rollout import play_episodes, play_positions
from llm_experiment.base.hugging_face import HuggingFaceBase
from llm_experiment.base.protocol import BaseStep
from llm_experiment.chat import lockstep
from llm_experiment.chat.observation import N_SCALARS, pack_observation, unpack_observation
from llm_experiment.chat.turns import TurnParser
from llm_experiment.chat.world import World
from llm_experiment.config import ConstraintConfig, Stage, TargetRule
from tests.llm_experiment.fakes.host_sync import nothing_waits
from tests.llm_experiment.fakes.small_world import (
    NEWLINE,
    PIECES,
    PROMPT,
    RULES,
    S,
    encode,
    score,
    small_config,
    small_world,
)
from tests.llm_experiment.fakes.tiny_hf import tiny_model
from theory.budget import Accounting, open_ledger

N_EPISODES = 6
N_TOKENS = 30
MANY_TOKENS = 64
META = torch.device("meta")


def random_agent(world, *, seed=0, scale=0.5) -> FixedKLPolicy:
    env = world.env(small_config())
    agent = FixedKLPolicy(
        env.observation_space,
        env.action_space,
        lambda _: 1e-3,
        actor_learning_rate=1e-3,
        target_rule=TargetRule.ATTAINABLE,
        head=world.base.head,
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.normal_(std=scale, generator=generator)
    return agent


def played(agent, world):
    return play_episodes(
        agent,
        world,
        n_episodes=N_EPISODES,
        n_tokens=N_TOKENS,
        budget_nats=3.0,
        accounting=Accounting.EXACT,
        seed=1,
        stream=(0,),
        keep_observations=True,
    )


@pytest.fixture
def likeliest_tokens(monkeypatch):
    """The agent's draws take no randomness."""
    monkeypatch.setattr(
        policy.StepPolicy, "sample", lambda self, *, generator: self.log_probs.argmax(dim=-1)
    )


@pytest.fixture
def brief_turns(monkeypatch):
    """The agent's draws take no randomness, so that who draws too changes nothing.

    It hands over as soon as it can, so that its partner, who draws, has turns too.
    """

    def hand_over(step, *, generator):
        del generator
        bonus = torch.zeros(len(PIECES), dtype=torch.float64)
        bonus[[NEWLINE, S]] = 1e6
        return (step.log_probs + bonus).argmax(dim=-1)

    monkeypatch.setattr(policy.StepPolicy, "sample", hand_over)


def test_deciding_in_all_episodes_records_what_deciding_where_the_agent_acts_does(
    monkeypatch, brief_turns
):
    world = small_world()
    agent = random_agent(world)
    expected = played(agent, world)
    acting = expected.agent_steps.sum(axis=0)
    assert ((acting > 0) & (acting < N_EPISODES)).any(), "some positions have both"
    monkeypatch.setattr("llm_experiment.agent.rollout.reading_waits", lambda array: True)
    found = played(agent, world)
    for name, array in expected.arrays().items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(found.arrays()[name], array, rtol=1e-5, atol=1e-9)
        else:
            np.testing.assert_array_equal(found.arrays()[name], array)
    torch.testing.assert_close(found.kept_observations, expected.kept_observations)


@dataclass
class EmptyBase:
    """A base policy without data."""

    n_tokens: int = len(PIECES)
    n_features: int = 5
    device: torch.device = META
    head: None = None

    def begin(self, prompt_tokens, *, n_episodes, n_positions):
        step = BaseStep(
            log_probs=torch.empty(n_episodes, self.n_tokens, device="meta"),
            features=torch.empty(n_episodes, self.n_features, device="meta"),
            missing_mass=torch.empty(n_episodes, device="meta"),
        )

        class Session:
            def append(self, tokens, *, agent_wrote=None):
                return step

        return Session(), step


# The ledger and the rule know nothing of one another: each of them once.
@pytest.mark.parametrize(
    ("rule", "accounting"),
    [
        (TargetRule.ATTAINABLE, Accounting.EXACT),
        (TargetRule.PUBLISHED, Accounting.REALIZED),
        (None, Accounting.EXACT),
    ],
)
def test_between_positions_nothing_waits_for_the_device(monkeypatch, rule, accounting):
    monkeypatch.setattr(lockstep, "check_chat", lambda *args, **kwargs: None)
    base = EmptyBase()
    parser = TurnParser(RULES, pieces=PIECES, encode=encode, decode=str).to(base.device)
    world = World(
        base=base,
        parser=parser,
        prompt_tokens=torch.empty(len(encode(PROMPT)), dtype=torch.int64, device="meta"),
        score=score,
        partner_temperature=0.5,
    )
    chat = world.chat(n_episodes=N_EPISODES, n_tokens=N_TOKENS, generator=torch.Generator())
    env = small_world().env(small_config())
    width = base.n_features + N_SCALARS + base.n_tokens
    env.observation_space = type(env.observation_space)(-1.0, 1.0, (width,))
    agent = FixedKLPolicy(
        env.observation_space,
        env.action_space,
        lambda _: 1e-3,
        actor_learning_rate=1e-3,
        target_rule=rule,
    ).to("meta")
    budget = torch.full((N_EPISODES,), 3.0, dtype=torch.float64, device="meta")
    ledger = open_ledger(budget, accounting=accounting, unchecked=True)
    with nothing_waits():
        played = play_positions(
            agent,
            chat,
            ledger,
            generator=torch.Generator(),
            head=None,
            keep_observations=True,
        )
    assert chat.done
    assert played.numbers.shape == (4, N_EPISODES, N_TOKENS)


def large_vocabulary_world(dtype) -> World:
    """A random language model whose vocabulary is larger than its features."""
    model = tiny_model("mixtral", n_tokens=MANY_TOKENS)
    model.set_experts_implementation("grouped_mm")
    pieces = (*PIECES, *(f" w{i}" for i in range(MANY_TOKENS - len(PIECES))))
    parser = TurnParser(
        RULES,
        pieces=pieces,
        encode=lambda text: encode(text, pieces),
        decode=lambda ids: "".join(pieces[i] for i in ids),
    )
    return World(
        base=HuggingFaceBase(model.to(dtype)),
        parser=parser,
        prompt_tokens=torch.tensor(encode(PROMPT)),
        score=score,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_with_a_head_the_importance_ratio_starts_at_1_whatever_the_minibatch(dtype):
    world = large_vocabulary_world(dtype)
    assert world.base.head is not None
    agent = random_agent(world, scale=0.05)
    rollout = played(agent, world)
    observations = rollout.kept_observations
    assert observations.shape[1] == world.base.n_features + N_SCALARS < MANY_TOKENS
    tokens = torch.from_numpy(rollout.tokens[rollout.agent_steps])
    recorded = torch.from_numpy(rollout.log_probs[rollout.agent_steps])
    for size in (1, 7, len(tokens)):
        log_rho = torch.cat(
            [
                agent.act_on(part).log_prob(token) - old
                for part, token, old in zip(
                    *(array.split(size) for array in (observations, tokens, recorded)), strict=True
                )
            ]
        )
        assert log_rho.abs().max() < 2e-5


def test_with_a_head_the_agent_is_the_one_that_sees_all_log_probabilities(likeliest_tokens):
    world = large_vocabulary_world(torch.float32)
    step = world.base.begin(world.prompt_tokens, n_episodes=3, n_positions=9)[1]
    left = {"fraction_left": 0.5, "budget_nats": torch.full((3,), 2.0)}
    short = pack_observation(step, **left, head=world.base.head)
    whole = pack_observation(step, **left)
    assert whole.shape[1] == short.shape[1] + MANY_TOKENS
    seen = unpack_observation(short, n_tokens=MANY_TOKENS, head=world.base.head)
    torch.testing.assert_close(seen.log_probs, step.log_probs, rtol=0, atol=1e-5)
    agent = random_agent(world, scale=0.05)
    with_head = agent.act_on(short)
    agent._head = None
    without = agent.act_on(whole)
    for field in fields(with_head):
        a, b = getattr(with_head, field.name), getattr(without, field.name)
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_an_agent_whose_observations_have_a_head_learns_and_is_loaded_as_it_was(tmp_path):
    world = large_vocabulary_world(torch.float32)
    config = small_config(
        stages=(Stage(agent_steps=60, n_tokens=20),),
        constraint=ConstraintConfig(budget_nats=1.0),
        ppo=None,
    )
    agent = LockstepPPO(world, config).finish()
    assert agent.records[0].update_kl_nats < 1
    agent.save(tmp_path / "agent.safetensors")
    again = LockstepPPO.load(tmp_path / "agent.safetensors", world=world)
    observations = agent.last_rollout.kept_observations[:5]
    assert torch.equal(
        again.policy.act_on(observations).log_probs, agent.policy.act_on(observations).log_probs
    )
    names = again.policy.state_dict()
    assert not any("head" in name for name in names), "the frozen head is the base model's"


@pytest.mark.gpu
def test_on_a_gpu_nothing_waits_between_positions_and_the_ratio_starts_at_1():
    world = large_vocabulary_world(torch.bfloat16)
    base = HuggingFaceBase(world.base._model.cuda())
    world = World(
        base=base,
        parser=world.parser.to(base.device),
        prompt_tokens=world.prompt_tokens.cuda(),
        score=score,
    )
    agent = random_agent(world, scale=0.05).cuda()
    agent._head = base.head
    rollout = played(agent, world)  # once for kernels and graphs
    chat = world.chat(
        n_episodes=N_EPISODES,
        n_tokens=N_TOKENS,
        generator=torch.Generator("cuda").manual_seed(0),
    )
    chat.step(torch.zeros(N_EPISODES, dtype=torch.int64, device="cuda"))  # records a graph
    budget = torch.full((N_EPISODES,), 3.0, dtype=torch.float64, device="cuda")
    ledger = open_ledger(budget, accounting=Accounting.EXACT)
    own = torch.Generator("cuda").manual_seed(1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        play_positions(agent, chat, ledger, generator=own, head=base.head, keep_observations=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    tokens = torch.from_numpy(rollout.tokens[rollout.agent_steps]).cuda()
    recorded = torch.from_numpy(rollout.log_probs[rollout.agent_steps]).cuda()
    log_rho = agent.act_on(rollout.kept_observations).log_prob(tokens) - recorded
    assert log_rho.abs().max() < 1e-4
