"""The models that are shipped: where they lie, and what they stand for.

For each dialogue task this package holds a folder with a small language model and a small reward
model, in the format of any other model. This module needs neither torch nor transformers, so that
a command line can be read without them.
"""

from pathlib import Path
from typing import Final

from llm_experiment.config import TINY, WorldConfig
from theory.errors import ModelError

COMMAND: Final = "python -m llm_experiment.tiny_models"
"""Trains the models of a task."""
SHIPPED: Final = Path(__file__).parents[1] / "weights"
"""Where the trained models lie that this package holds, one folder a task."""
LANGUAGE_MODEL: Final = "language_model"
REWARD_MODEL: Final = "reward_model"


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
    folder = weights / task_name / kind
    if not (folder / "model.safetensors").is_file():
        raise ModelError(
            f"there is no trained {kind.replace('_', ' ')} in {folder}; train one with "
            f"`{COMMAND} --task {task_name} --out {weights}`"
        )
    return folder


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
