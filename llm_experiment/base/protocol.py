"""The base policy `b`: what the language model says next, given a transcript so far.

Agent, environment and evaluation see a base policy through three things only: the log-probability
of every next token, some features of the transcript for the actor and critic to read, and the
*missing mass* of the distribution before it was normalised (0 for a language model; for a
pessimistic imitator the probability that it asks for help). So a language model, the exact
dialogue process, a Bayesian mixture and a pessimistic imitator can stand in for one another.

Missing mass is charged (`theory.missing_mass`): who acts where theta is missing pays
`-ln(1 - theta)` besides the KL to the normalised row, and who cannot pay asks. What is then
written is the demonstrator's, if the step carries its law; otherwise the episode stops.

A policy plays many episodes at once. They share a prompt, which is read once, and then advance
in lockstep, one token each per call, so that every call is one batched forward of the model with
the keys and values of earlier tokens cached.

An observation must say what the base policy's log-probabilities were. Where they are a function
of the features, as they are of a language model's last hidden state, the base policy says so by
its *head*, and observations need not carry one number for every token of a large vocabulary.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from theory.divergences import log_missing_mass
from theory.errors import InvalidArgumentError, InvalidShapeError
from theory.missing_mass import completed


@dataclass(frozen=True, kw_only=True)
class BaseStep:
    """What the base policy says of the next token of n episodes.

    Attributes:
        log_probs: in nats, float32, shape (n, n_tokens); every row is normalised. A row of which
            all was missing is uniform, and nobody acts by it.
        features: what actor and critic may read, float32, shape (n, n_features).
        missing_mass: the mass that was missing before the rows were normalised, float32 in
            [0, 1], shape (n,); log_probs plus log1p(-missing_mass) is the semi-distribution.
        help_mass: the share of the row that was missing at first and that somebody else has
            filled since, float32 in [0, 1], shape (n,); None: nothing was.
        demonstrator_log_probs: what the demonstrator does where it is asked, in nats, float32,
            shape (n, n_tokens), every row normalised; None where nobody can be asked.
    """

    log_probs: Tensor
    features: Tensor
    missing_mass: Tensor
    help_mass: Tensor | None = None
    demonstrator_log_probs: Tensor | None = None


class Head(Protocol):
    """Log-probabilities as a function of features, with `BaseStep.log_probs` among its values."""

    def __call__(self, features: Tensor) -> Tensor:
        """From features, (n, n_features), to log-probabilities in nats, float32, (n, n_tokens)."""
        ...

    def to(self, device: torch.device) -> "Head":
        """The same function of features on `device`."""
        ...


class Session(Protocol):
    """Episodes that advance in lockstep under one base policy."""

    def append(self, tokens: Tensor, *, agent_wrote: Tensor | None = None) -> BaseStep:
        """The prediction after one more token of every episode.

        Args:
            tokens: ids, int64, shape (n,).
            agent_wrote: which of them the agent chose, bool, shape (n,); none if left out. Only
                a Bayesian policy that learns from the demonstrator alone needs to know.
        """
        ...


class BaseModel(Protocol):
    """A base policy; every tensor that it takes or gives lies on `device`."""

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary."""
        ...

    @property
    def n_features(self) -> int:
        """Width of `BaseStep.features`."""
        ...

    @property
    def device(self) -> torch.device:
        """Where tokens are expected and predictions lie."""
        ...

    @property
    def head(self) -> Head | None:
        """What gives log-probabilities back from features; None: observations must carry them."""
        ...

    def begin(
        self, prompt_tokens: Tensor, *, n_episodes: int, n_positions: int
    ) -> tuple[Session, BaseStep]:
        """Start episodes that share a prompt.

        Args:
            prompt_tokens: ids, int64, shape (p,), p >= 1.
            n_episodes: how many episodes, n.
            n_positions: tokens that an episode will have at most, the prompt included.

        Returns:
            The session, and the prediction after the prompt.
        """
        ...


class ChangedBase:
    """What a base policy that changes another one's predictions has in common with it.

    Args:
        base: the other one.
    """

    def __init__(self, base: BaseModel) -> None:
        self._base = base

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary."""
        return self._base.n_tokens

    @property
    def n_features(self) -> int:
        """Those of the other base policy."""
        return self._base.n_features

    @property
    def device(self) -> torch.device:
        """Where the other base policy is."""
        return self._base.device

    @property
    def head(self) -> None:
        """None: what was changed is no function of the other one's features."""


def check_start(prompt_tokens: Tensor, *, n_episodes: int, n_positions: int, n_tokens: int) -> None:
    """Raise unless episodes of `n_positions` tokens can start from `prompt_tokens`.

    Raises:
        InvalidShapeError: `prompt_tokens` is not a non-empty vector.
        InvalidArgumentError: no episode, a prompt as long as the episode, or an unknown token.
    """
    if prompt_tokens.ndim != 1 or not len(prompt_tokens):
        raise InvalidShapeError(
            f"prompt_tokens must have shape (p,) with p >= 1, got {tuple(prompt_tokens.shape)}"
        )
    if n_episodes < 1:
        raise InvalidArgumentError(f"n_episodes must be >= 1, got {n_episodes}")
    if len(prompt_tokens) >= n_positions:
        raise InvalidArgumentError(
            f"the prompt has {len(prompt_tokens)} tokens and the episode only {n_positions}, so "
            "nothing is left to play; shorten the prompt or lengthen the episode"
        )
    outside = prompt_tokens[(prompt_tokens < 0) | (prompt_tokens >= n_tokens)]
    if len(outside):
        raise InvalidArgumentError(
            f"prompt tokens must lie in 0..{n_tokens - 1}, got {int(outside[0])}; was the prompt "
            "encoded by another model's tokenizer?"
        )


def step_from_semi_distribution(log_semi: Tensor, features: Tensor) -> BaseStep:
    """A step whose distribution may have mass missing.

    Args:
        log_semi: log-probabilities whose mass is at most 1, in nats, float64, (n, n_tokens). A
            row of zero mass, where nothing at all is predicted, misses all of it; its normalised
            form is a uniform one that nobody acts by (`theory.missing_mass.may_act`).
        features: shape (n, n_features).
    """
    n_tokens = log_semi.shape[-1]
    log_mass = log_semi.logsumexp(dim=-1, keepdim=True)
    uniform = torch.full_like(log_semi, -math.log(n_tokens))
    log_probs = torch.where(torch.isneginf(log_mass), uniform, log_semi - log_mass)
    return BaseStep(
        log_probs=log_probs.float().clamp(max=0.0),
        features=features.float(),
        missing_mass=log_missing_mass(log_semi, unchecked=True).exp().float(),
    )


def semi_log_probs(step: BaseStep) -> Tensor:
    """What a base policy gives every token, in nats, float64, shape (n, n_tokens).

    Its rows are normalised anew, in float64, and then lack the mass that the policy misses.
    """
    full = step.log_probs.double().log_softmax(dim=-1)
    return full + torch.log1p(-step.missing_mass.double())[:, None]


def filled_log_probs(step: BaseStep, log_demonstrator: Tensor) -> Tensor:
    """What a base policy gives every token, the demonstrator's law in place of what it misses.

    Args:
        step: of the base policy; rows that miss nothing are passed on bit by bit.
        log_demonstrator: in nats, shape (n, n_tokens), every row normalised.

    Returns:
        In nats, float32, shape (n, n_tokens); every row is normalised.
    """
    full = completed(semi_log_probs(step), log_demonstrator.double(), unchecked=True)
    filled = full.log_softmax(dim=-1).float().clamp(max=0.0)
    return torch.where((step.missing_mass > 0)[:, None], filled, step.log_probs)
