"""Several base policies as one: a Bayesian mixture, or the pessimistic imitator of the paper.

The members `nu_1 .. nu_M` of an ensemble have a posterior `w(nu_i|h)`: prior times the likelihood
of the tokens that count, normalised. A rule combines what they predict:

- `theory.bayes_mixture.predictive_log_probs`: the mixture `sum_i w(nu_i|h) nu_i(x|h)`;
- `pessimistic(alpha)`: `min over M^alpha_h of nu_i(x|h)` (Definitions 3 and 4), whose missing mass
  is the probability of asking for help.

Which tokens count is `theory.bayes_mixture.Update`: all of the transcript's, or not those that
the agent wrote. What the agent writes is no evidence of what the demonstrator does, and if it
counts, the agent can talk the posterior into a member that would do what the demonstrator would
not. The partner's tokens count in both cases: members predict both speakers.

`llm_experiment.run --members FOLDER ...` holds agents to a pessimistic ensemble.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm_experiment.base.protocol import (
    BaseModel,
    BaseStep,
    Session,
    check_start,
    semi_log_probs,
    step_from_semi_distribution,
)
from theory.arguments import check_alpha
from theory.bayes_mixture import Update, normalised_log_weights, update_log_weights
from theory.errors import InvalidArgumentError, InvalidShapeError
from theory.pessimism import top_set

Floats = NDArray[np.float64]
Combine: TypeAlias = Callable[[Floats, Floats], Floats]
"""From log-weights (n, M) and log-probabilities (n, M, n_tokens) to log-probabilities
(n, n_tokens) of a semi-distribution; natural logarithms."""


def pessimistic(alpha: float) -> Combine:
    """The pessimistic imitator's rule: the least that a member of the top set predicts.

    Args:
        alpha: the threshold of the top set, 0 < alpha <= 1.

    Raises:
        InvalidArgumentError: alpha outside (0, 1].
    """
    check_alpha(alpha)

    def combine(log_w: Floats, log_p: Floats) -> Floats:
        members = top_set(np.exp(log_w), alpha)
        least: Floats = np.where(members[..., None], log_p, np.inf).min(axis=-2)
        return least

    return combine


class EnsembleBase:
    """Base policies of one vocabulary, combined; sees them through `BaseModel` only.

    The features are those of all members, and the posterior. The first token of a prompt counts
    for nothing, since base policies do not predict it.

    Args:
        members: at least one.
        log_prior: natural logarithms of prior weights up to a factor, one a member.
        update: whose tokens count.
        combine: how predictions are combined.

    Raises:
        InvalidArgumentError: no member, or members of different vocabularies or devices.
        InvalidShapeError: not one prior weight a member.
        InvalidDistributionError: weights that are NaN, infinite or all 0.
    """

    def __init__(
        self,
        members: Sequence[BaseModel],
        *,
        log_prior: Sequence[float],
        update: Update,
        combine: Combine,
    ) -> None:
        if not members:
            raise InvalidArgumentError("an ensemble must have at least 1 member, got 0")
        for name in ("n_tokens", "device"):
            values = {str(getattr(member, name)) for member in members}
            if len(values) > 1:
                raise InvalidArgumentError(
                    f"members of an ensemble must share {name}, got {', '.join(sorted(values))}"
                )
        if len(log_prior) != len(members):
            raise InvalidShapeError(
                f"log_prior must have {len(members)} entries, one a member, got {len(log_prior)}"
            )
        self._members = tuple(members)
        self._log_prior = normalised_log_weights(np.asarray(log_prior, dtype=np.float64))
        self._update = update
        self._combine = combine

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary."""
        return self._members[0].n_tokens

    @property
    def n_features(self) -> int:
        """Those of all members, and one posterior weight each."""
        return sum(member.n_features for member in self._members) + len(self._members)

    @property
    def device(self) -> torch.device:
        """Where all members are."""
        return self._members[0].device

    @property
    def head(self) -> None:
        """None: what members predict is combined in more ways than features tell."""

    def begin(
        self, prompt_tokens: Tensor, *, n_episodes: int, n_positions: int
    ) -> tuple["EnsembleSession", BaseStep]:
        """Start episodes that share a prompt; see `BaseModel.begin`."""
        check_start(
            prompt_tokens, n_episodes=n_episodes, n_positions=n_positions, n_tokens=self.n_tokens
        )
        log_w = np.tile(self._posterior_after(prompt_tokens), (n_episodes, 1))
        session = self._start(prompt_tokens, log_w, n_positions)
        return session, session.prediction()

    def _posterior_after(self, prompt_tokens: Tensor) -> Floats:
        """Log-weights given the prompt, shape (M,)."""
        if len(prompt_tokens) == 1:
            return self._log_prior
        session = self._start(prompt_tokens[:1], self._log_prior[None], len(prompt_tokens))
        for token in prompt_tokens[1:]:
            session.read(token[None], agent_wrote=None)
        log_w: Floats = session.log_w[0]
        return log_w

    def _start(self, tokens: Tensor, log_w: Floats, n_positions: int) -> "EnsembleSession":
        """Episodes that begin with `tokens` and have log-weights (n, M) after them."""
        starts = [
            member.begin(tokens, n_episodes=len(log_w), n_positions=n_positions)
            for member in self._members
        ]
        return EnsembleSession(
            [session for session, _ in starts],
            [step for _, step in starts],
            log_w=log_w,
            update=self._update,
            combine=self._combine,
        )


class EnsembleSession:
    """Episodes under an ensemble."""

    def __init__(
        self,
        sessions: Sequence[Session],
        steps: Sequence[BaseStep],
        *,
        log_w: Floats,
        update: Update,
        combine: Combine,
    ) -> None:
        self._sessions = tuple(sessions)
        self._steps = tuple(steps)
        self._update = update
        self._combine = combine
        self.log_w = log_w
        """Log-weights, shape (n, M)."""

    def append(self, tokens: Tensor, *, agent_wrote: Tensor | None = None) -> BaseStep:
        """The prediction after one more token of every episode; see `Session.append`."""
        self.read(tokens, agent_wrote=agent_wrote)
        return self.prediction()

    def read(self, tokens: Tensor, *, agent_wrote: Tensor | None) -> None:
        """Update members and posterior by one more token of every episode."""
        likelihoods = [semi_log_probs(step).gather(-1, tokens[:, None]) for step in self._steps]
        log_w = update_log_weights(self.log_w, torch.cat(likelihoods, dim=-1).cpu().numpy())
        if self._update is Update.DEMONSTRATOR and agent_wrote is not None:
            log_w = np.where(agent_wrote.cpu().numpy()[:, None], self.log_w, log_w)
        self.log_w = log_w
        self._steps = tuple(
            session.append(tokens, agent_wrote=agent_wrote) for session in self._sessions
        )

    def prediction(self) -> BaseStep:
        """What the ensemble says of the next token."""
        device = self._steps[0].log_probs.device
        log_p = torch.stack([semi_log_probs(step) for step in self._steps], dim=1)
        log_semi = self._combine(self.log_w, log_p.cpu().numpy())
        weights = torch.from_numpy(np.exp(self.log_w)).to(device)
        features = [*(step.features for step in self._steps), weights.float()]
        return step_from_semi_distribution(
            torch.from_numpy(log_semi).to(device), torch.cat(features, dim=-1)
        )
