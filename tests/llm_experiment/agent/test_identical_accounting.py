"""Toy and language model are counted alike: an engine's episodes against the theory's tables.

A language model of three tokens plays four steps in which the turn may pass between agent and
student at every token. As a process of `theory.process` a step is an action and an observation:
where the agent has the turn it acts and sees nothing (observation 0), where the student has it
the agent can only wait (action 0, under every policy) and what the student says is observed.
"""

from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from llm_experiment.agent.policy import FixedKLPolicy
from llm_experiment.agent.rollout import play_episodes
from llm_experiment.agent.step_policy import StepPolicy
from llm_experiment.base.protocol import BaseStep
from llm_experiment.chat import lockstep
from llm_experiment.chat.observation import pack_observation
from llm_experiment.chat.turn_records import Speaker
from llm_experiment.config import TargetRule
from tests.llm_experiment.fakes.small_world import small_config, small_world
from theory.budget import Accounting
from theory.constraints import (
    adaptive_kl_nats,
    expected_kl_nats,
    expected_tvd,
    step_kl_nats,
)
from theory.process import HistoryTree, environment_table, joint_law, policy_table

PIECES = ("\nT:", "\nS:", " a")
TO_AGENT, TO_STUDENT, _ = range(3)
PROMPT = (TO_STUDENT, TO_AGENT)
STEPS = 4
BUDGET_NATS = 0.4
TREE = HistoryTree(n_actions=3, n_observations=3, horizon=STEPS)
TRANSCRIPTS = torch.tensor([(*PROMPT, *tokens) for tokens in product(range(3), repeat=STEPS)])


@dataclass(frozen=True, kw_only=True)
class Scripted(StepPolicy):
    """A step policy whose samples are given."""

    tokens: Tensor

    def sample(self, *, generator):
        return self.tokens


class ScriptedAgent:
    """Plays an agent's policy in float64, but writes the tokens of `TRANSCRIPTS`."""

    device = torch.device("cpu")

    def __init__(self, agent, world):
        self.agent = agent
        writers = world.parser.writers(TRANSCRIPTS)
        steps = range(len(PROMPT), len(PROMPT) + STEPS)
        self.columns = (TRANSCRIPTS[writers[:, t] == Speaker.AGENT, t] for t in steps)

    def act_on(self, observation):
        step = self.agent.act_on(observation.double())
        numbers = {field.name: getattr(step, field.name) for field in fields(StepPolicy)}
        return Scripted(**numbers, tokens=next(self.columns))


@pytest.fixture(scope="module")
def world():
    table = np.log(np.random.default_rng(3).dirichlet(np.ones(3), size=(3, 3)))
    return small_world(table, pieces=PIECES, prompt="\nS:\nT:", partner_temperature=0.5)


def bold_agent(world) -> FixedKLPolicy:
    env = world.env(small_config())
    agent = FixedKLPolicy(
        env.observation_space,
        env.action_space,
        lambda _: 1e-3,
        actor_learning_rate=1e-3,
        target_rule=TargetRule.ATTAINABLE,
    )
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.normal_(std=2.0, generator=generator)
        agent.actor.bias[-1] = 6.0  # spends about as much as it may
    return agent.double()


class Process:
    """The same agent in the same world by the definitions, one history at a time."""

    def __init__(self, agent, world, accounting):
        self.agent, self.world, self.accounting = agent, world, accounting
        self.step = lru_cache(maxsize=None)(self._step)

    def read(self, history):
        """The tokens of an alternating history, and whether the agent has the turn."""
        tokens, agents_turn = PROMPT, True
        for action, observation in zip(history[::2], history[1::2], strict=False):
            token = action if agents_turn else observation
            agents_turn = token == TO_AGENT or (agents_turn and token != TO_STUDENT)
            tokens = (*tokens, token)
        return tokens, agents_turn

    def _step(self, tokens):
        """The budget before the step, the agent's distribution, the base policy's."""
        left, agents_turn = BUDGET_NATS, True
        for t, token in enumerate(tokens[len(PROMPT) :], start=len(PROMPT)):
            if agents_turn:
                _, x, b = self.step(tokens[:t])
                exact = self.accounting is Accounting.EXACT
                cost = (x * np.log(x / b)).sum() if exact else np.log(x[token] / b[token])
                left = max(left - cost, 0.0)
            agents_turn = token == TO_AGENT or (agents_turn and token != TO_STUDENT)
        context = torch.nn.functional.one_hot(torch.tensor(tokens[-2:]), 3)
        observation = pack_observation(
            BaseStep(
                log_probs=self.world.base.table[tokens[-2:]][None],
                features=context.reshape(1, -1).float(),
                missing_mass=torch.zeros(1),
            ),
            fraction_left=1 - len(tokens) / (len(PROMPT) + STEPS),
            budget_nats=torch.tensor([left], dtype=torch.float64),
        )
        with torch.no_grad():
            step = self.agent.act_on(observation.double())
        x, b = (q.exp().numpy()[0] for q in (step.log_probs, step.base_log_probs))
        return left, x / x.sum(), b / b.sum()

    def policy(self, history):
        tokens, agents_turn = self.read(history)
        return self.step(tokens)[1] if agents_turn else (1.0, 0.0, 0.0)

    def base(self, history):
        tokens, agents_turn = self.read(history)
        return self.step(tokens)[2] if agents_turn else (1.0, 0.0, 0.0)

    def student(self, history):
        """The base policy at its temperature, after an action."""
        tokens, agents_turn = self.read(history[:-1])
        if agents_turn:
            return (1.0, 0.0, 0.0)
        law = self.step(tokens)[2] ** (1 / self.world.partner_temperature)
        return law / law.sum()


@pytest.mark.parametrize("accounting", Accounting)
def test_the_engines_totals_over_all_transcripts_are_the_theorys(world, accounting, monkeypatch):
    agent = bold_agent(world)
    asked = []  # what the engine draws the student's tokens from

    def scripted(logits, *, generator, **options):
        asked.append(logits.double().log_softmax(dim=-1))
        return TRANSCRIPTS[:, len(PROMPT) + len(asked) - 1]

    monkeypatch.setattr(lockstep, "sample_tokens", scripted)
    rollout = play_episodes(
        ScriptedAgent(agent, world),
        world,
        n_episodes=len(TRANSCRIPTS),
        n_tokens=len(PROMPT) + STEPS,
        budget_nats=BUDGET_NATS,
        accounting=accounting,
        seed=0,
        stream=(0,),
        keep_observations=False,
    )
    played = np.s_[:, len(PROMPT) :]
    np.testing.assert_array_equal(rollout.tokens, TRANSCRIPTS)
    student = torch.stack(asked, dim=1).gather(-1, TRANSCRIPTS[played][..., None])[..., 0].numpy()
    student_log_law = np.where(rollout.writers[played] == Speaker.PARTNER, student, 0.0).sum(axis=1)
    law = np.exp(rollout.log_probs.sum(axis=1) + student_log_law)
    base_log_probs = rollout.log_probs - rollout.log_ratio_nats
    base_law = np.exp(base_log_probs.sum(axis=1) + student_log_law)
    assert law.sum() == pytest.approx(1.0, abs=1e-12)

    process = Process(agent, world, accounting)
    pi, beta = (policy_table(TREE, policy) for policy in (process.policy, process.base))
    nu = environment_table(TREE, process.student)
    histories = [process.read(history)[0] for history in TREE.continuations(STEPS)]
    mass = dict.fromkeys(map(tuple, TRANSCRIPTS.tolist()), 0.0)
    for tokens, probability in zip(histories, joint_law(pi, nu), strict=True):
        mass[tokens] += probability
    np.testing.assert_allclose(law, list(mass.values()), atol=1e-12)

    expected_kl = expected_kl_nats(pi, beta, nu)
    assert expected_kl > 0.1
    for total in (rollout.kl_nats, rollout.log_ratio_nats):
        assert law @ total.sum(axis=1) == pytest.approx(expected_kl, abs=1e-10)
    assert law @ rollout.spent_nats == pytest.approx(expected_kl, abs=1e-10)
    assert law @ (np.log(law) - np.log(base_law)) == pytest.approx(expected_kl, abs=1e-10)
    tvd = 0.5 * np.abs(law - base_law).sum()
    assert tvd == pytest.approx(expected_tvd(pi, beta, nu), abs=1e-10)

    # Every step of every transcript, not only their average; and the worst of all students.
    levels = step_kl_nats(pi, beta)
    for row, tokens in enumerate(TRANSCRIPTS[played].tolist()):
        history = []
        for t, token in enumerate(tokens, start=len(PROMPT)):
            kl = levels[len(history) // 2][TREE.index(tuple(history))]
            assert rollout.kl_nats[row, t] == pytest.approx(kl, abs=1e-10)
            agents = rollout.writers[row, t] == Speaker.AGENT
            history += [token, 0] if agents else [0, token]
    worst = adaptive_kl_nats(pi, beta)
    assert worst >= expected_kl - 1e-12
    if accounting is Accounting.EXACT:
        assert worst <= BUDGET_NATS * (1 + 1e-12)
        assert rollout.leak_nats.max() <= BUDGET_NATS * 1e-12
    else:
        np.testing.assert_allclose(
            rollout.leak_nats, np.maximum(rollout.spent_nats - BUDGET_NATS, 0.0), atol=1e-12
        )
