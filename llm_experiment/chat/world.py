"""The world that an agent is trained in: models, starting transcript, turns and reward.

A `World` is built once from its configuration and then only read: it starts chats in lockstep for
training and evaluation (`llm_experiment.agent.rollout`) and single episodes behind Gymnasium's
interface.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from llm_experiment.base.loading import find_device, load_language_model, load_tokenizer
from llm_experiment.base.protocol import BaseModel
from llm_experiment.base.shipped import language_model_folder, reward_model_folder
from llm_experiment.chat.gym_env import ChatEnv
from llm_experiment.chat.lockstep import LockstepChat, check_chat
from llm_experiment.chat.reward import BLANK_REWARD, load_reward
from llm_experiment.chat.turns import TurnParser, TurnRules
from llm_experiment.config import TINY, AgentConfig, WorldConfig
from llm_experiment.dialogue.task import load_task

Score = Callable[[Sequence[str]], NDArray[np.floating[Any]]]
"""The rewards of replies, from their texts to shape (replies,)."""


@dataclass(frozen=True, kw_only=True)
class World:
    """What agents are trained in.

    Attributes:
        base: the base policy, which is also the agent's partner.
        parser: of the base policy's tokenizer.
        prompt_tokens: the starting transcript, int64, shape (p,), on the base policy's device.
        score: how good a reply is, in [0, 1].
        partner_temperature: at which the partner's tokens are sampled.
        reward_shift: added to every score.
    """

    base: BaseModel
    parser: TurnParser
    prompt_tokens: Tensor
    score: Score
    partner_temperature: float = 1.0
    reward_shift: float = 0.0

    def reward(self, replies: Sequence[str]) -> NDArray[np.float64]:
        """What each reply earns, shape (replies,)."""
        if not replies:
            return np.empty(0)
        return np.asarray(self.score(replies), dtype=np.float64) + self.reward_shift

    def chat(self, *, n_episodes: int, n_tokens: int, generator: torch.Generator) -> LockstepChat:
        """Episodes of `n_tokens` tokens that are played together.

        Args:
            n_episodes: how many.
            n_tokens: the length of each, the prompt included.
            generator: the partner's randomness, on the base policy's device.
        """
        return LockstepChat(
            self.base,
            self.parser,
            self.prompt_tokens,
            n_episodes=n_episodes,
            n_positions=n_tokens,
            partner_temperature=self.partner_temperature,
            generator=generator,
        )

    def check_lengths(self, *lengths: int) -> None:
        """Raise unless episodes of each of these `lengths` can be played; reads the prompt.

        Raises:
            InvalidArgumentError: one that is no longer than the prompt, or too long for the model.
        """
        for n_tokens in lengths:
            self.base.begin(self.prompt_tokens, n_episodes=1, n_positions=n_tokens)

    def env(self, config: AgentConfig) -> ChatEnv:
        """One episode at a time, of the first stage's length, with the full budget."""
        return ChatEnv(
            self.base,
            self.parser,
            self.prompt_tokens,
            n_positions=config.stages[0].n_tokens,
            partner_temperature=self.partner_temperature,
            score=self.reward,
            budget_nats=config.constraint.episode_budget_nats,
            accounting=config.constraint.accounting,
        )


def model_names(config: WorldConfig) -> tuple[str, str]:
    """Folder or hub id of the language model and of the reward model.

    Raises:
        ModelError: there are no shipped models of that task.
    """
    language_model, reward_model = config.base_model, config.reward_model
    if language_model == TINY:
        language_model = str(language_model_folder(config.task))
    if reward_model == TINY:
        reward_model = str(reward_model_folder(config.task))
    return language_model, reward_model


def load_world(config: WorldConfig) -> World:
    """The world that `config` describes, its models loaded.

    Raises:
        ModelError: a model that is missing, incomplete or unfit, or a device that is absent.
        InvalidArgumentError: an unknown task, or a prompt that cannot start a chat.
    """
    load_task(config.task)  # before anything that takes long
    find_device(config.agent_device)
    language_model, reward_model = model_names(config)
    base = load_language_model(language_model, device=config.device, precision=config.dtype)
    score = load_reward(
        reward_model,
        device=base.device,
        blank_reward=None if config.score_blank_replies else BLANK_REWARD,
    )
    return make_world(config, base, load_tokenizer(language_model), score=score)


def make_world(
    config: WorldConfig, base: BaseModel, tokenizer: PreTrainedTokenizerBase, *, score: Score
) -> World:
    """The world that `config` describes, with models at hand.

    Args:
        config: all but the models.
        base: the base policy.
        tokenizer: its tokenizer.
        score: how good a reply is, in [0, 1].

    Raises:
        ModelError: a tokenizer that is unfit.
        InvalidArgumentError: an unknown task, or a prompt that cannot start a chat.
    """
    rules = TurnRules(
        agent=config.agent_name,
        partner=config.partner_name,
        separator=config.separator,
        max_reply_tokens=config.max_reply_tokens,
    )
    prompt = load_task(config.task).prompt if config.prompt is None else config.prompt
    world = World(
        base=base,
        parser=TurnParser.from_tokenizer(tokenizer, rules, n_tokens=base.n_tokens),
        prompt_tokens=torch.tensor(tokenizer.encode(prompt), device=base.device),
        score=score,
        partner_temperature=config.student_temperature,
        reward_shift=config.reward_shift,
    )
    longest = len(world.prompt_tokens) + 1
    check_chat(base, world.parser, world.prompt_tokens, n_episodes=1, n_positions=longest)
    return world
