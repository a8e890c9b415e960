"""A base policy of somebody's own in place of a language model, and what identifies own parts.

`--base-model module:name` names an `OwnBase`: anything that predicts the next token of episodes
side by side (`llm_experiment.base.protocol.BaseModel`), and the tokenizer that its tokens are of.
It also plays the agent's partner, as a language model does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llm_experiment.config import KNOWN, WorldConfig
from llm_experiment.plug_in import Kind, fingerprint, load_part, reference_of
from theory.errors import InvalidArgumentError

if TYPE_CHECKING:
    import torch

    from llm_experiment.base.protocol import BaseModel

OPTION: Final = "--base-model"


@dataclass(frozen=True, kw_only=True)
class OwnBase:
    """A base policy that is no language model of transformers.

    Attributes:
        tokenizer: local folder or hub id of its tokenizer.
        load: the base policy, on a device.
    """

    tokenizer: str
    load: "Callable[[torch.device], BaseModel]"


def own_base(name: str) -> OwnBase | None:
    """The base policy of somebody's own that `name` stands for.

    Args:
        name: as `--base-model` takes it.

    Returns:
        None if it stands for a language model, or for what is computed of a task.

    Raises:
        InvalidArgumentError: in one line: it cannot be found, or is no `OwnBase`.
    """
    if name in KNOWN or Path(name).exists():
        return None
    reference = reference_of(name, Kind.BASE_POLICY)
    if reference is None:
        return None
    part: Any = load_part(reference, option=OPTION)
    if not isinstance(part, OwnBase):
        raise InvalidArgumentError(
            f"{OPTION} {reference} must be an OwnBase of llm_experiment.base.own, got a "
            f"{type(part).__name__}"
        )
    return part


def part_fingerprints(config: WorldConfig) -> dict[str, str]:
    """What identifies own parts of a world, for a run's manifest; its reward is not among them."""
    named = (
        (config.base_model, Kind.BASE_POLICY, OPTION),
        (config.task, Kind.TASK, "--task"),
    )
    found = {name: reference_of(name, kind) for name, kind, _ in named if not Path(name).exists()}
    return {
        name: fingerprint(reference, option=option)
        for name, _, option in named
        if (reference := found.get(name)) is not None
    }
