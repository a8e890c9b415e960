"""Actors: from what the agent sees to a residual of one number a token, and the budget neuron.

All three forms are affine in what they see, and give 0 everywhere at the start, so that a new agent
is the base policy. With `s` what is seen, V tokens and r the rank:

    linear          residual = W s + c,      W of shape (V, inputs): as published
    low rank        residual = U (D s) + c,  U of shape (V, r) zero at the start, D of (r, inputs)
    through head    residual = H (D s + d),  H of shape (V, width) the language model's own last
                                             layer, frozen: as if its last hidden state had moved

The first has `V inputs` weights to learn, which for a large vocabulary is more than a small
language model has. The last has `width inputs`, however large the vocabulary, and favours tokens
together that the language model takes for alike.
"""

import math
from typing import Final

import torch
from torch import Tensor, nn

from llm_experiment.config import ActorForm
from theory.errors import InvalidArgumentError

N_BUDGET_NEURONS: Final = 1


def make_actor(
    form: ActorForm, *, n_inputs: int, n_tokens: int, rank: int, head: object | None
) -> nn.Module:
    """An actor: from inputs, shape (n, n_inputs), to residual and budget neuron, (n, n_tokens + 1).

    Args:
        form: which.
        n_inputs: numbers that it sees.
        n_tokens: size of the vocabulary.
        rank: of `ActorForm.LOW_RANK`.
        head: the base policy's, on the device of the agent, for `ActorForm.THROUGH_HEAD`.

    Raises:
        InvalidArgumentError: `THROUGH_HEAD` of a base policy without a head.
    """
    match form:
        case ActorForm.LINEAR:
            return _zeroed(nn.Linear(n_inputs, n_tokens + N_BUDGET_NEURONS))
        case ActorForm.LOW_RANK:
            return LowRankActor(n_inputs, n_tokens, rank=rank)
        case ActorForm.THROUGH_HEAD:
            weight = getattr(head, "weight", None)
            if not isinstance(weight, Tensor):
                raise InvalidArgumentError(
                    "actor through-head needs a language model whose log-probabilities are those "
                    "of its last layer, with more tokens than features; choose actor low-rank"
                )
            return ThroughHeadActor(n_inputs, weight)


class LowRankActor(nn.Module):
    """`U (D s) + c`; D is random at the start, of rows that keep the scale of what is seen."""

    def __init__(self, n_inputs: int, n_tokens: int, *, rank: int) -> None:
        super().__init__()
        self.inner = nn.Linear(n_inputs, rank, bias=False)
        nn.init.normal_(self.inner.weight, std=1 / math.sqrt(n_inputs))
        self.outer = _zeroed(nn.Linear(rank, n_tokens))
        self.budget = _zeroed(nn.Linear(n_inputs, N_BUDGET_NEURONS))

    def forward(self, inputs: Tensor) -> Tensor:
        """See `make_actor`."""
        return torch.cat([self.outer(self.inner(inputs)), self.budget(inputs)], dim=-1)


class ThroughHeadActor(nn.Module):
    """`H (D s + d)` with a frozen H, which is not saved with the agent."""

    head: Tensor

    def __init__(self, n_inputs: int, head: Tensor) -> None:
        super().__init__()
        self.shift = _zeroed(nn.Linear(n_inputs, head.shape[-1]))
        self.budget = _zeroed(nn.Linear(n_inputs, N_BUDGET_NEURONS))
        self.register_buffer("head", head, persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """See `make_actor`."""
        residual = nn.functional.linear(self.shift(inputs), self.head)
        return torch.cat([residual, self.budget(inputs)], dim=-1)


def _zeroed(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def actor_parameters(
    form: ActorForm, *, n_inputs: int, n_tokens: int, rank: int, width: int
) -> int:
    """How many numbers an actor learns.

    Args:
        form: which.
        n_inputs: numbers that it sees.
        n_tokens: size of the vocabulary.
        rank: of `ActorForm.LOW_RANK`.
        width: of the language model's hidden state.
    """
    budget = n_inputs + 1
    match form:
        case ActorForm.LINEAR:
            return n_tokens * (n_inputs + 1) + budget
        case ActorForm.LOW_RANK:
            return rank * n_inputs + n_tokens * (rank + 1) + budget
        case ActorForm.THROUGH_HEAD:
            return width * (n_inputs + 1) + budget
