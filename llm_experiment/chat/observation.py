"""What the agent sees of n episodes, as rows of numbers.

A row holds the base policy's features, the share of the episode still to come, the remaining
budget, and the base policy's log-probabilities unless its head gives them back from the features.
A head has more tokens than features, so that a row's length tells whether it carries them.
Acting and learning read the same rows, so that they cannot disagree about what was seen; to act
they may carry log-probabilities that are at hand, and are kept without.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from llm_experiment.base.protocol import BaseStep, Head
from theory.errors import InvalidShapeError

N_SCALARS: Final = 2
"""Numbers of an observation besides features and log-probabilities."""
LARGEST: Final = float(np.finfo(np.float32).max)
"""Stands for infinity where an observation must be finite, as Gymnasium wants it."""


def without_log_probs(observation: Tensor, *, n_tokens: int) -> Tensor:
    """Rows that carry log-probabilities, without them; shape (n, n_features + 2)."""
    return observation[:, :-n_tokens].clone()


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What the agent sees in n episodes.

    Attributes:
        features: of the base policy, shape (n, n_features).
        fraction_left: the share of the episode's tokens still to come, shape (n,).
        budget_nats: the remaining budget, shape (n,).
        carried: log-probabilities of the base policy, in nats, shape (n, n_tokens); none, (n, 0),
            where the head gives them.
        head: the base policy's, or None where log-probabilities are carried.
    """

    features: Tensor
    fraction_left: Tensor
    budget_nats: Tensor
    carried: Tensor
    head: Head | None

    @property
    def log_probs(self) -> Tensor:
        """Of the base policy, in nats, shape (n, n_tokens); a head makes them whenever asked."""
        return self.carried if self.head is None else self.head(self.features)


def pack_observation(
    step: BaseStep,
    *,
    fraction_left: float | Tensor,
    budget_nats: Tensor,
    head: Head | None = None,
) -> Tensor:
    """One row of numbers for each of n episodes: the fields of `Observation`, in order.

    Args:
        step: the base policy's prediction.
        fraction_left: one number, or shape (n,).
        budget_nats: shape (n,); rounded down, so that nobody who spends what is seen here can
            overspend the ledger that it comes from.
        head: the base policy's, if observations need not carry log-probabilities.

    Returns:
        float32, shape (n, n_features + 2 + n_tokens), or (n, n_features + 2) with a head.
    """
    scalars = step.features.new_empty(len(step.features), N_SCALARS)
    scalars[:, 0] = fraction_left
    nearest = budget_nats.to(scalars)
    below = torch.nextafter(nearest, torch.zeros_like(nearest))
    scalars[:, 1] = torch.where(nearest.double() > budget_nats.to(nearest.device), below, nearest)
    parts = [step.features, scalars, *(() if head else (step.log_probs,))]
    return torch.cat(parts, dim=-1)


def unpack_observation(
    observation: Tensor, *, n_tokens: int, head: Head | None = None
) -> Observation:
    """The parts of rows that `pack_observation` made, as views.

    Args:
        observation: shape (n, numbers).
        n_tokens: size of the vocabulary.
        head: the base policy's, for rows that do not carry log-probabilities.

    Raises:
        InvalidShapeError: rows too short for so many tokens.
    """
    if observation.ndim == 2 and observation.shape[-1] > n_tokens + N_SCALARS:
        head = None
    n_carried = 0 if head else n_tokens
    n_features = observation.shape[-1] - N_SCALARS - n_carried
    if observation.ndim != 2 or n_features < 0:
        raise InvalidShapeError(
            f"observations must have shape (n, n_features + {N_SCALARS} + {n_carried}), got "
            f"{tuple(observation.shape)}"
        )
    return Observation(
        features=observation[:, :n_features],
        fraction_left=observation[:, n_features],
        budget_nats=observation[:, n_features + 1],
        carried=observation[:, n_features + N_SCALARS :],
        head=head,
    )
