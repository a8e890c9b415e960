import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env as check_env_of_gymnasium
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3
from torch import Tensor

from llm_experiment.agent.step_policy import StepPolicy
from llm_experiment.base.process import ProcessBase
from llm_experiment.base.protocol import BaseModel
from llm_experiment.chat.gym_env import ChatEnv
from llm_experiment.chat.observation import LARGEST, unpack_observation
from tests.llm_experiment.chat.screenplays import (
    N_TOKENS,
    PROCESS,
    PROMPT,
    Playback,
    parser,
    screenplay,
    tokens_of,
    untrained_model,
)
from theory.budget import Accounting
from theory.errors import InvalidArgumentError, InvalidBudgetError


def half(texts):
    return np.full(len(texts), 0.5)


def env_of(
    base: BaseModel, *, prompt=None, n_positions=30, budget_nats=1.0, score=half, **options
) -> ChatEnv:
    return ChatEnv(
        base,
        parser(),
        tokens_of(PROMPT) if prompt is None else prompt,
        n_positions=n_positions,
        partner_temperature=1.0,
        score=score,
        budget_nats=budget_nats,
        **options,
    )


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """An agent that writes every token equally often, and says what that costs."""

    base_log_probs: Tensor
    reported_nats: float | None = None
    device = torch.device("cpu")

    def act_on(self, observation):
        log_x = torch.full((1, N_TOKENS), -math.log(N_TOKENS), dtype=torch.float64)
        kl = float((log_x.exp() * (log_x - self.base_log_probs)).sum())
        return StepPolicy(
            log_probs=log_x,
            base_log_probs=self.base_log_probs,
            kl_nats=torch.tensor(
                [kl if self.reported_nats is None else self.reported_nats], dtype=torch.float64
            ),
            target_nats=torch.full((1,), math.inf),
        )


@pytest.mark.parametrize("base", [ProcessBase(PROCESS), untrained_model()], ids=["process", "lm"])
def test_the_environment_keeps_gymnasium_s_and_stable_baselines_contracts(base):
    prompt = torch.from_numpy(PROCESS.prompt)  # of another one the process has nothing to say
    env = env_of(base, prompt=prompt, n_positions=60, budget_nats=math.inf)
    check_env_of_gymnasium(env, skip_render_check=True)
    check_env_of_sb3(env)


def test_under_a_budget_a_step_is_charged_to_the_agent_that_it_is_bound_to():
    env = env_of(untrained_model(), budget_nats=50.0)
    env.reset(seed=0)
    log_b = env.chat.base_step.log_probs.double().log_softmax(dim=-1)
    env.bind(Uniform(base_log_probs=log_b))
    env.step(np.int64(3))
    expected = float((-math.log(N_TOKENS) - log_b).mean())
    assert float(env.ledger.spent_nats) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(InvalidArgumentError, match="is bound to an agent and charges"):
        env.charge(kl_nats=0.0)


def test_under_a_budget_a_step_that_nobody_was_charged_for_is_refused():
    env = env_of(untrained_model(), budget_nats=2.0)
    env.reset(seed=0)
    with pytest.raises(InvalidBudgetError, match=r"env\.bind\(agent\) once .* or env\.charge"):
        env.step(np.int64(0))
    env.charge(kl_nats=0.5)
    env.step(np.int64(0))
    with pytest.raises(InvalidBudgetError, match="nobody was for this one"):
        env.step(np.int64(0))
    env.charge(kl_nats=0.5)
    env.reset(seed=0)  # a charge is of the step that comes next in the same episode
    with pytest.raises(InvalidBudgetError, match="nobody was for this one"):
        env.step(np.int64(0))


def test_an_agent_that_overspends_or_is_another_s_is_refused():
    env = env_of(untrained_model(), budget_nats=1e-3)
    env.reset(seed=0)
    log_b = env.chat.base_step.log_probs.double().log_softmax(dim=-1)
    env.bind(Uniform(base_log_probs=log_b))
    with pytest.raises(InvalidBudgetError, match="must not be overspent"):
        env.step(np.int64(0))
    env.bind(Uniform(base_log_probs=log_b, reported_nats=0.0))
    with pytest.raises(InvalidArgumentError, match=r"must report its KL .*, got 0; bind an agent"):
        env.step(np.int64(0))
    assert float(env.ledger.spent_nats) == 0.0


def test_a_step_of_the_environment_is_the_agent_s_token_and_the_whole_answer():
    transcripts = screenplay()[:1]
    base = Playback(transcripts)
    scores = {"No.": 0.25, "": 0.5}
    env = env_of(
        base,
        n_positions=transcripts.shape[1],
        score=lambda texts: np.array([scores[text] for text in texts]),
        budget_nats=np.inf,
    )
    observation, _ = env.reset(seed=0)
    text, rewards, replies, done = PROMPT, {}, [], False
    while not done:
        position = env.chat.position
        seen = unpack_observation(torch.from_numpy(observation)[None], n_tokens=N_TOKENS)
        assert float(seen.fraction_left) == pytest.approx(1 - position / transcripts.shape[1])
        assert float(seen.budget_nats) == pytest.approx(LARGEST)
        token = transcripts[0, position].item()
        observation, reward, done, truncated, info = env.step(np.int64(token))
        assert not truncated
        assert env.observation_space.contains(observation)
        text = PROCESS.decode(transcripts[0, : position + 1].tolist())
        if reward:
            rewards[text.count("\n")] = (reward, text.endswith("\nStudent:"))
        replies += info["replies"]
    assert replies == ["No.", ""]
    assert rewards == {2: (0.25, True), 4: (0.5, True)}


def test_the_environment_plays_as_the_lockstep_chat_does():
    base = untrained_model()
    env = env_of(base, n_positions=40, budget_nats=math.inf)
    env.reset(seed=11)
    hand_over = tokens_of("\nStudent:").tolist()
    done, texts, i = False, [], 0
    while not done:
        _, _, done, _, info = env.step(np.int64(hand_over[i % 3]))
        texts += info["replies"]
        i += 1
    assert texts == [reply.text for reply in env.chat.replies()]
    transcript = env.chat.tokens.clone()
    env.reset(seed=11)
    for j in range(i):
        env.step(np.int64(hand_over[j % 3]))
    assert torch.equal(env.chat.tokens, transcript)


def test_the_agent_reports_what_a_step_costs():
    env = env_of(untrained_model(), budget_nats=2.0)
    env.reset(seed=0)
    env.charge(kl_nats=0.5)
    observation, *_ = env.step(np.int64(0))
    seen = unpack_observation(torch.from_numpy(observation)[None], n_tokens=N_TOKENS)
    assert float(seen.budget_nats) == 1.5
    with pytest.raises(InvalidBudgetError, match="must not be overspent"):
        env.charge(kl_nats=1.6)
    env.reset(seed=0)
    assert float(env.ledger.remaining_nats) == 2.0
    realized = env_of(untrained_model(), budget_nats=2.0, accounting=Accounting.REALIZED)
    realized.charge(kl_nats=0.5, log_ratio_nats=-1.0)
    assert float(realized.ledger.remaining_nats) == 3.0


def test_impossible_environments_are_refused():
    with pytest.raises(InvalidBudgetError, match="must be >= 0, got -1"):
        env_of(ProcessBase(PROCESS), budget_nats=-1.0)
    with pytest.raises(InvalidArgumentError, match=r"no episode has started; call reset\(\)"):
        env_of(ProcessBase(PROCESS)).step(np.int64(0))
