"""The models that are shipped: where they lie, how they were trained, and what they stand for.

For each dialogue task this package holds a folder with a small language model and a small reward
model, in the format of any other model. `llm_experiment.base.training` trains them. This module
needs neither torch nor transformers, so that a command line can be read without them.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llm_experiment.base.gguf_files import SUFFIX, unpacked
from llm_experiment.base.own import own_base
from llm_experiment.base.packaged import PACKAGED_MODELS, packaged_model_folder
from llm_experiment.config import KNOWN, TINY, WorldConfig, at_least, at_most, positive
from llm_experiment.dialogue.task import load_task
from llm_experiment.plug_in import is_reference
from theory.errors import InvalidArgumentError, ModelError

COMMAND: Final = "python -m llm_experiment.tiny_models"
"""Trains the models of a task."""
SHIPPED: Final = Path(__file__).parents[1] / "weights"
"""Where the trained models lie that this package holds, one folder a task."""
LANGUAGE_MODEL: Final = "language_model"
REWARD_MODEL: Final = "reward_model"
MAX_TOKENS: Final = 1024
"""The longest transcript or reply that the models are configured for."""


@dataclass(frozen=True, kw_only=True)
class LanguageModelRecipe:
    """How the language model is trained."""

    seed: int = 0
    """Seed of the model's first weights and of its transcripts."""
    n_tokens: int = 7_500_000
    """Tokens to learn from, each seen once; rounded up to whole batches."""
    sequence_length: int = 512
    """Tokens of a transcript."""
    batch_size: int = 8
    """Transcripts of a step."""
    learning_rate: float = 3e-3
    """Peak step size of AdamW, reached after a short warm-up, then falling as a cosine."""
    n_heldout: int = 256
    """Transcripts for the final held-out loss."""

    def __post_init__(self) -> None:
        least = {"seed": 0, "n_tokens": 1, "sequence_length": 2, "batch_size": 1, "n_heldout": 2}
        for name, bound in least.items():
            at_least(name, getattr(self, name), bound)
        positive("learning_rate", self.learning_rate)
        at_most("learning_rate", self.learning_rate, 1.0)
        if self.sequence_length > MAX_TOKENS:
            raise InvalidArgumentError(
                f"sequence_length must be at most {MAX_TOKENS}, got {self.sequence_length}"
            )

    @property
    def n_steps(self) -> int:
        """Optimiser steps."""
        return math.ceil(self.n_tokens / (self.batch_size * self.sequence_length))


@dataclass(frozen=True, kw_only=True)
class RewardModelRecipe:
    """How the reward model is trained."""

    seed: int = 0
    """Seed of the model's first weights and of its replies."""
    n_steps: int = 1000
    """Optimiser steps."""
    batch_size: int = 128
    """Replies of a step."""
    learning_rate: float = 3e-3
    """Peak step size of AdamW."""
    n_heldout: int = 4096
    """Replies for the held-out error."""

    def __post_init__(self) -> None:
        for name, bound in {"seed": 0, "n_steps": 1, "batch_size": 1, "n_heldout": 2}.items():
            at_least(name, getattr(self, name), bound)
        positive("learning_rate", self.learning_rate)
        at_most("learning_rate", self.learning_rate, 1.0)


def language_model_folder(task_name: str, *, weights: Path = SHIPPED) -> Path:
    """The folder of a task's trained language model.

    Raises:
        ModelError: none there; the message says how to train one.
    """
    return _model_folder(task_name, LANGUAGE_MODEL, weights)


def reward_model_folder(task_name: str, *, weights: Path = SHIPPED) -> Path:
    """The folder of a task's trained reward model.

    Raises:
        ModelError: none there; the message says how to train one.
    """
    return _model_folder(task_name, REWARD_MODEL, weights)


def _model_folder(task_name: str, kind: str, weights: Path) -> Path:
    name = task_name
    if is_reference(task_name) or "/" in task_name:
        name = load_task(task_name).name
    folder = weights / name / kind
    if not (folder / "model.safetensors").is_file():
        raise ModelError(
            f"there is no trained {kind.replace('_', ' ')} in {folder}; train one with "
            f"`{COMMAND} --task {task_name} --out {weights}`"
        )
    return folder


def model_names(config: WorldConfig) -> tuple[str, str]:
    """Folder or hub id of the language model and of the reward model.

    Where the base policy is computed from the task's processes, the shipped language model stands
    for its tokenizer, and so does the tokenizer's folder of somebody's own base policy.

    Raises:
        ModelError: as `unpacked_name`, or there are no shipped models of that task.
    """
    language_model, reward_model = config.base_model, config.reward_model
    own = own_base(language_model)
    if own is not None:
        language_model = own.tokenizer
    elif language_model in KNOWN:
        language_model = str(language_model_folder(config.task))
    else:
        language_model = unpacked_name(language_model)
    if reward_model == TINY:
        reward_model = str(reward_model_folder(config.task))
    return language_model, reward_model


def member_names(config: WorldConfig) -> tuple[str, ...]:
    """Folder or hub id of every further member of an ensemble.

    Raises:
        ModelError: as `unpacked_name`.
    """
    return tuple(map(unpacked_name, config.members))


def unpacked_name(name: str) -> str:
    """Folder or hub id of a language model; a GGUF file's, a packaged model's too, is its folder.

    Raises:
        ModelError: a packaged model is not installed, or a GGUF file cannot be read.
    """
    if name in PACKAGED_MODELS:
        return str(packaged_model_folder(name))
    if name.endswith(SUFFIX):
        return str(unpacked([Path(name)], name=name))
    return name
