"""The world that an agent is trained in: models, starting transcript, turns and reward.

A `World` is built from its configuration and then only read: it starts chats in lockstep for
training and evaluation (`llm_experiment.agent.rollout`) and single episodes behind Gymnasium's
interface. Its models are what takes long to load; `WorldLoader` loads them once for many worlds,
and `check_world` finds what is wrong with a configuration without loading any.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from llm_experiment.base.ensemble import EnsembleBase, pessimistic
from llm_experiment.base.helped import HelpedBase
from llm_experiment.base.hugging_face import check_attention, check_positions
from llm_experiment.base.loading import (
    check_quantisation,
    check_weights,
    find_device,
    find_devices,
    load_language_model,
    load_tokenizer,
    one_line_errors,
    read_configuration,
)
from llm_experiment.base.mixture import default_mixture
from llm_experiment.base.own import own_base
from llm_experiment.base.process import ProcessBase, check_possible
from llm_experiment.base.protocol import BaseModel, check_start
from llm_experiment.base.shipped import member_names, model_names
from llm_experiment.chat.gym_env import ChatEnv
from llm_experiment.chat.lockstep import LockstepChat, check_prompt
from llm_experiment.chat.reward_sources import Score, check_score, load_score, rewards_of
from llm_experiment.chat.token_texts import encode_start, encode_words, vocabulary_size
from llm_experiment.chat.turn_records import Speaker, Turns
from llm_experiment.chat.turns import TurnParser, TurnRules
from llm_experiment.chat.veto_set import check_parser, read_veto_set
from llm_experiment.chat.vetoed import vetoed_base
from llm_experiment.config import COMPUTED, KNOWN, MIXTURE, PROCESS, AgentConfig, WorldConfig
from llm_experiment.dialogue.behaviour import SILENCE, Behaviour
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import load_task, speakers_of
from theory.bayes_mixture import Update
from theory.errors import InvalidArgumentError, ModelError
from theory.missing_mass import Help


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
        behaviour: what the demonstrator never does, and what is measured of the agent.
        phrase: the tokens of the behaviour's phrase after a name and its colon.
    """

    base: BaseModel
    parser: TurnParser
    prompt_tokens: Tensor
    score: Score
    partner_temperature: float = 1.0
    reward_shift: float = 0.0
    behaviour: Behaviour = SILENCE
    phrase: tuple[int, ...] = ()

    def shown(self, turns: Turns, tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which turns are turns of the agent that show the behaviour, shape (turns,).

        Of silence these are the empty turns of `llm_experiment.chat.turn_records`.

        Args:
            turns: of transcripts.
            tokens: of the transcripts, shape (n, t).
        """
        if self.behaviour.is_silence:
            return self.parser.are_empty(turns)
        own = np.asarray(turns.finished & (turns.speaker == Speaker.AGENT))
        for turn in np.flatnonzero(own):
            words = self.parser.turn_text(
                tokens[turns.episode[turn]].tolist(),
                opened=int(turns.opened[turn]),
                closed=int(turns.closed[turn]),
            )
            own[turn] = self.behaviour.shows(words)
        return own

    def reward(self, replies: Sequence[str]) -> NDArray[np.float64]:
        """What each reply earns, shape (replies,).

        Raises:
            InvalidArgumentError: the score is not one number in [0, 1] for each.
        """
        if not replies:
            return np.empty(0)
        return rewards_of(self.score, replies) + self.reward_shift

    def chat(
        self, *, n_episodes: int, n_tokens: int, generator: torch.Generator, n_copies: int = 1
    ) -> LockstepChat:
        """Episodes of `n_tokens` tokens that are played together.

        Args:
            n_episodes: how many.
            n_tokens: the length of each, the prompt included.
            generator: the partner's randomness, on the base policy's device.
            n_copies: sets of episodes that share their random numbers; see `LockstepChat`.
        """
        return LockstepChat(
            self.base,
            self.parser,
            self.prompt_tokens,
            n_episodes=n_episodes,
            n_positions=n_tokens,
            partner_temperature=self.partner_temperature,
            generator=generator,
            n_copies=n_copies,
        )

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
            world=self,
        )


@dataclass(frozen=True, kw_only=True)
class Models:
    """What takes long to load.

    Attributes:
        base: the base policy.
        members: further base policies; none unless it is one of an ensemble.
        tokenizer: its tokenizer.
        score: how good a reply is, in [0, 1].
    """

    base: BaseModel
    members: tuple[BaseModel, ...] = ()
    tokenizer: PreTrainedTokenizerBase
    score: Score


class WorldLoader:
    """Worlds of one process, whose models are loaded once for all worlds that have the same.

    Worlds that differ in the prompt, the reward's shift or a temperature share their models. Only
    the last models are kept: before others are loaded, these are given up.
    """

    def __init__(self) -> None:
        self._key: tuple[Any, ...] | None = None
        self._models: Models | None = None

    def world(self, config: WorldConfig) -> World:
        """The world that `config` describes; see `load_world`."""
        key = (
            config.base_model,
            *model_names(config),
            config.members,
            config.device,
            config.dtype,
            config.score_blank_replies,
            config.positive_label,
        )
        if self._models is None or key != self._key:
            self._models = None
            self._models = load_models(config)
            self._key = key
        return make_world(config, self._models)


def load_world(config: WorldConfig) -> World:
    """The world that `config` describes, its models loaded.

    Raises:
        ModelError: a model that is missing, incomplete or unfit, or a device that is absent.
        InvalidArgumentError: an unknown task, or a prompt that cannot start a chat.
    """
    load_task(config.task)  # before anything that takes long
    return make_world(config, load_models(config))


def load_models(config: WorldConfig) -> Models:
    """The models of the world that `config` describes.

    Raises:
        ModelError: one that is missing, incomplete or unfit, or a device that is absent.
    """
    find_device(config.agent_device)  # before anything that takes long
    language_model, reward_model = model_names(config)
    base = load_base(config, language_model)
    score = load_score(config, reward_model, device=base.device)
    members = tuple(
        load_language_model(name, device=config.device, precision=config.dtype)
        for name in member_names(config)
    )
    tokenizer = load_tokenizer(language_model)
    return Models(base=base, members=members, tokenizer=tokenizer, score=score)


def load_base(config: WorldConfig, language_model: str) -> BaseModel:
    """The base policy of a world before pessimism: a language model, a process, or one's own.

    Args:
        config: of the world.
        language_model: its folder or hub id (`model_names`).

    Raises:
        ModelError: a language model that is missing, incomplete or unfit.
        InvalidArgumentError: a part of somebody's own that cannot be found.
    """
    own = own_base(config.base_model)
    if own is not None:
        return own.load(find_devices(config.device)[0])
    if config.base_model == PROCESS:
        return ProcessBase(DialogueProcess(load_task(config.task)))
    if config.base_model == MIXTURE:
        return default_mixture(load_task(config.task))
    return load_language_model(language_model, device=config.device, precision=config.dtype)


def make_world(config: WorldConfig, models: Models) -> World:
    """The world that `config` describes, with models at hand.

    Args:
        config: all but the models.
        models: of the world.

    Raises:
        ModelError: a tokenizer that is unfit.
        InvalidArgumentError: an unknown task, or a prompt that cannot start a chat.
    """
    device = models.base.device
    parser, prompt_tokens = _opening(config, models.tokenizer, n_tokens=models.base.n_tokens)
    parser.to(device)
    return World(
        base=_base_policy(config, models, parser, prompt_tokens.to(device)),
        parser=parser,
        prompt_tokens=prompt_tokens.to(device),
        score=models.score,
        partner_temperature=config.student_temperature,
        reward_shift=config.reward_shift,
        behaviour=(behaviour := load_task(config.task).behaviour),
        phrase=encode_words(models.tokenizer, behaviour.phrase, speaker=parser.rules.agent),
    )


def _base_policy(
    config: WorldConfig, models: Models, parser: TurnParser, prompt_tokens: Tensor
) -> BaseModel:
    """The base policy that agents are held to: the model's, or what pessimism makes of it."""
    base = models.base
    if models.members:
        everyone = (base, *models.members)
        base = EnsembleBase(
            everyone,
            log_prior=[0.0] * len(everyone),
            update=Update.DEMONSTRATOR,
            combine=pessimistic(config.members_alpha),
        )
    if config.vetoes is not None:
        base = vetoed_base(base, read_veto_set(Path(config.vetoes)), parser)
    if not config.is_pessimistic:
        return base
    process = demonstrator_of(config, prompt_tokens)
    way = config.missing_mass or (Help.RENORMALISE if process is None else Help.DEMONSTRATOR)
    if process is None:
        return HelpedBase(base, way)
    opened = int(parser.read(prompt_tokens[None]).opened[0])
    return HelpedBase(
        base,
        way,
        demonstrator=ProcessBase(process),
        opening=prompt_tokens[: opened + 1].cpu(),
    )


def demonstrator_of(config: WorldConfig, prompt_tokens: Tensor) -> DialogueProcess | None:
    """The process that the base model learnt from or is, if known and if it could begin the prompt.

    Args:
        config: says which base model, task and prompt.
        prompt_tokens: of the world that is made from it, int64, shape (p,).

    Raises:
        ModelError: the shipped models learnt from another version of the task.
    """
    if config.base_model not in KNOWN:
        return None
    process = DialogueProcess(load_task(config.task))
    try:
        prompt = process.encode(process.task.prompt if config.prompt is None else config.prompt)
    except InvalidArgumentError:  # a prompt with words of its own
        return None
    if prompt.tolist() != prompt_tokens.tolist():
        raise ModelError(
            f"the shipped models of task {config.task!r} have another vocabulary than the task; "
            f"train them again with `python -m llm_experiment.tiny_models --task {config.task}`"
        )
    return process if process.read(prompt[None]).possible[0] else None


def check_world(config: WorldConfig, *, lengths: Sequence[int]) -> None:
    """Raise unless a world can be made, as far as can be told without reading any weights.

    Args:
        config: describes the world.
        lengths: in tokens, of all episodes that are to be played in it.

    Raises:
        ModelError: as `load_world` does, but for weights that are missing within their files.
        InvalidArgumentError: an unknown task, a prompt that cannot start a chat, or episodes that
            are no longer than the prompt or too long for the language model.
    """
    load_task(config.task)
    find_device(config.agent_device)
    find_devices(config.device)
    language_model, reward_model = model_names(config)
    check_score(reward_model, positive_label=config.positive_label)
    tokenizer = load_tokenizer(language_model)
    if config.base_model in COMPUTED:
        n_tokens = len(load_task(config.task).vocabulary)
    elif own_base(config.base_model) is not None:
        n_tokens = vocabulary_size(tokenizer)
    else:
        n_tokens = _check_language_model(language_model, lengths)
    parser, prompt_tokens = _opening(config, tokenizer, n_tokens=n_tokens)
    for member, name in zip(config.members, member_names(config), strict=True):
        if _check_language_model(name, lengths) != n_tokens:
            raise ModelError(
                f"the member {member} has another vocabulary than the base model; members must "
                "share its tokenizer"
            )
    if config.vetoes is not None:
        check_parser(read_veto_set(Path(config.vetoes)), parser)
    way = config.missing_mass
    if way in (Help.ASK, Help.DEMONSTRATOR) and demonstrator_of(config, prompt_tokens) is None:
        raise InvalidArgumentError(
            f"missing_mass {way.value} needs a demonstrator who can be asked, and none is known of "
            "this base model and prompt; choose stop or renormalise"
        )
    for n_positions in lengths:
        check_start(prompt_tokens, n_episodes=1, n_positions=n_positions, n_tokens=n_tokens)


def _check_language_model(name: str, lengths: Sequence[int]) -> int:
    """Check what a language model's files say of it; the size of its vocabulary."""
    config = read_configuration("language model", name)
    check_weights("language model", name)
    check_quantisation("language model", name, config)
    with one_line_errors("language model", name):
        check_attention(config)
    text = config.get_text_config(decoder=True)
    for n_positions in lengths:
        check_positions(text, n_positions)
    return int(text.vocab_size)


def _check_words(tokenizer: PreTrainedTokenizerBase, prompt: str) -> None:
    """Raise if a prompt has words that the tokenizer does not know.

    Raises:
        InvalidArgumentError: with the words.
    """
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown not in tokenizer.encode(prompt):
        return
    # A speaker's name is known at the start of a line, most words after a blank.
    words = [
        word
        for word in dict.fromkeys(prompt.split())
        if all(unknown in tokenizer.encode(text) for text in (word, f" {word}"))
    ]
    raise InvalidArgumentError(
        f"prompt has words that the language model does not know: {', '.join(words) or prompt}; "
        "leave them out, or name another --base-model and --reward"
    )


def _opening(
    config: WorldConfig, tokenizer: PreTrainedTokenizerBase, *, n_tokens: int
) -> tuple[TurnParser, Tensor]:
    """What tells turns apart, and the starting transcript, checked."""
    agent, partner = speakers_of(config)
    rules = TurnRules(
        agent=agent,
        partner=partner,
        separator=config.separator,
        max_reply_tokens=config.max_reply_tokens,
        eos_ends_reply=config.eos_ends_reply,
    )
    prompt = load_task(config.task).prompt if config.prompt is None else config.prompt
    parser = TurnParser.from_tokenizer(tokenizer, rules, n_tokens=n_tokens)
    tokens = torch.tensor(encode_start(tokenizer, prompt))
    _check_words(tokenizer, prompt)
    check_start(tokens, n_episodes=1, n_positions=len(tokens) + 1, n_tokens=n_tokens)
    check_prompt(parser, tokens)
    if config.base_model in COMPUTED:
        check_possible(DialogueProcess(load_task(config.task)), tokens)
    return parser, tokens
