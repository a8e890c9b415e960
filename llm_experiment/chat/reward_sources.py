"""Where rewards come from: a classifier, a scalar reward model, a rule or somebody's own function.

Whatever it is, it is a function from the texts of replies to one number in [0, 1] for each, and
`rewards_of` sees to it that it is. `--reward` names it:

    NAME               a sequence classifier or scalar reward model of transformers
                       (`llm_experiment.chat.reward`), by its folder or hub id
    vader              (c + 1) / 2, with c in [-1, 1] the compound score that the rules of
                       vaderSentiment give a text; c = 0 for a text without words, so 1/2
    module:function    somebody's own (`llm_experiment.plug_in`), which sees blank replies too

What it was is part of a run: `reward_fingerprint` goes into the manifest.
"""

import importlib
from collections.abc import Callable, Sequence
from enum import Enum
from importlib.metadata import version
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from llm_experiment.base.loading import require
from llm_experiment.chat.reward import BLANK_REWARD, check_reward, load_reward
from llm_experiment.config import VADER, WorldConfig
from llm_experiment.plug_in import Kind, fingerprint, load_part, reference_of
from theory.errors import InvalidArgumentError

OPTION: Final = "--reward"
_LIBRARY: Final = "vaderSentiment"

Score = Callable[[Sequence[str]], NDArray[np.floating[Any]]]
"""The rewards of replies, in [0, 1], from their texts to shape (replies,)."""


class RewardKind(Enum):
    """What a name of `--reward` stands for."""

    MODEL = "model"
    """A model of transformers."""
    VADER = "vader"
    """The rules of vaderSentiment."""
    FUNCTION = "function"
    """A function in somebody's own module."""


def reward_kind(name: str) -> RewardKind:
    """What a name of `--reward` stands for."""
    if name == VADER:
        return RewardKind.VADER
    own = reference_of(name, Kind.REWARD) is not None
    return RewardKind.FUNCTION if own else RewardKind.MODEL


def check_score(name: str, *, positive_label: str | None = None) -> None:
    """Raise unless `load_score` gives a score, as far as can be told without reading weights.

    Args:
        name: of the reward.
        positive_label: see `llm_experiment.chat.reward.find_positive_label`.

    Raises:
        ModelError: a model that cannot be loaded, or vaderSentiment is missing.
        InvalidArgumentError: no such function, or what it names is none; or a positive label of
            what has no labels.
    """
    kind = reward_kind(name)
    if kind is RewardKind.MODEL:
        check_reward(name, positive_label=positive_label)
        return
    if positive_label is not None:
        raise InvalidArgumentError(
            f"positive_label is for classifiers, and {OPTION} {name} has no labels; leave it out"
        )
    if kind is RewardKind.VADER:
        _require_vader()
    else:
        _own_function(name)


def load_score(config: WorldConfig, name: str, *, device: str | torch.device) -> Score:
    """The score that a world's replies get.

    Args:
        config: of the world.
        name: of its reward, with folders in place of the shipped models (`model_names`).
        device: where a model runs.

    Raises:
        ModelError, InvalidArgumentError: as `check_score` does; or weights are missing.
    """
    check_score(name, positive_label=config.positive_label)
    match reward_kind(name):
        case RewardKind.VADER:
            return vader_score()
        case RewardKind.FUNCTION:
            return _own_function(name)
        case RewardKind.MODEL:
            return load_reward(
                name,
                device=device,
                blank_reward=None if config.score_blank_replies else BLANK_REWARD,
                positive_label=config.positive_label,
            )


def vader_score() -> Score:
    """The rules of vaderSentiment: (c + 1) / 2 with the compound score c of a text.

    Raises:
        ModelError: it is not installed.
    """
    _require_vader()
    rules: Any = importlib.import_module(f"{_LIBRARY}.{_LIBRARY}").SentimentIntensityAnalyzer()

    def score(replies: Sequence[str]) -> NDArray[np.float64]:
        compounds = [rules.polarity_scores(reply)["compound"] for reply in replies]
        return (np.array(compounds, dtype=np.float64) + 1) / 2

    return score


def rewards_of(score: Score, replies: Sequence[str]) -> NDArray[np.float64]:
    """What `score` gives replies, float64, shape (replies,).

    Raises:
        InvalidArgumentError: it is not one number in [0, 1] for each.
    """
    rewards = np.asarray(score(replies), dtype=np.float64)
    if rewards.shape != (len(replies),):
        raise InvalidArgumentError(
            f"the reward must give one number for each of {len(replies)} replies, got an array of "
            f"shape {rewards.shape}"
        )
    outside = np.flatnonzero(~((rewards >= 0) & (rewards <= 1)))
    if outside.size:
        raise InvalidArgumentError(
            f"rewards must lie in [0, 1], got {rewards[outside[0]]} for the reply "
            f"{replies[outside[0]]!r}; scale them, as a logistic function does"
        )
    return rewards


def reward_fingerprint(name: str) -> dict[str, str]:
    """What identifies a reward that is no folder of weights, for a run's manifest.

    Args:
        name: of the reward; of a model nothing is given.
    """
    match reward_kind(name):
        case RewardKind.VADER:
            return {name: f"{_LIBRARY} {version(_LIBRARY)}"}
        case RewardKind.FUNCTION:
            return {name: fingerprint(_reference(name), option=OPTION)}
        case RewardKind.MODEL:
            return {}


def _require_vader() -> None:
    require(_LIBRARY, extra="real", purpose=f"{OPTION} {VADER}")


def _reference(name: str) -> str:
    """`module:function`, where an installed package gives it a short name too."""
    return reference_of(name, Kind.REWARD) or name


def _own_function(name: str) -> Score:
    function: Any = load_part(_reference(name), option=OPTION)
    if not callable(function):
        raise InvalidArgumentError(
            f"{OPTION} {name} must be a function from the texts of replies to one number in "
            f"[0, 1] for each, got a {type(function).__name__}"
        )
    own: Score = function
    return own
