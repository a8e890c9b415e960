"""A base policy without what the demonstrator never does: the event vetoes, applied.

At the agent's steps the law is `nu(x|h) = r(x|h) b(x|h)`, with r = 0 for what is vetoed; what that
takes away is missing mass, and not given to anything else. The partner speaks as before. Nothing
is learnt while an agent acts: the vetoes are frozen.
"""

from dataclasses import replace

import torch
from torch import Tensor

from llm_experiment.base.protocol import (
    BaseModel,
    BaseStep,
    Session,
    semi_log_probs,
    step_from_semi_distribution,
)
from llm_experiment.chat.features import FeatureState
from llm_experiment.chat.turns import TurnParser
from llm_experiment.chat.veto_set import CompiledVetoes, VetoSet
from theory.errors import InvalidArgumentError


class VetoedBase:
    """A base policy with vetoes on what the agent may write; see `BaseModel`.

    Args:
        base: the imitator.
        vetoes: what is vetoed.
        parser: of the base policy's tokenizer; is moved to its device.

    Raises:
        InvalidArgumentError: a parser of another vocabulary than the base policy's.
        ModelError: vetoes that were made for another tokenizer or other names.
    """

    def __init__(self, base: BaseModel, vetoes: VetoSet, parser: TurnParser) -> None:
        if parser.n_tokens != base.n_tokens:
            raise InvalidArgumentError(
                f"the parser knows {parser.n_tokens} tokens and the base policy {base.n_tokens}; "
                "make the parser with n_tokens = base.n_tokens"
            )
        self._base = base
        self._vetoes = vetoes.compile(parser.to(base.device), base.device)

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary."""
        return self._base.n_tokens

    @property
    def n_features(self) -> int:
        """Those of the base policy."""
        return self._base.n_features

    @property
    def device(self) -> torch.device:
        """Where the base policy is."""
        return self._base.device

    @property
    def head(self) -> None:
        """None: what is vetoed cannot be told from the base policy's features."""

    def begin(
        self, prompt_tokens: Tensor, *, n_episodes: int, n_positions: int
    ) -> tuple["VetoedSession", BaseStep]:
        """Start episodes that share a prompt; see `BaseModel.begin`."""
        session, step = self._base.begin(
            prompt_tokens, n_episodes=n_episodes, n_positions=n_positions
        )
        state = self._vetoes.reader.read(prompt_tokens.repeat(n_episodes, 1))
        return VetoedSession(session, self._vetoes, state), apply_vetoes(step, self._vetoes, state)


class VetoedSession:
    """Episodes under a vetoed base policy."""

    def __init__(self, session: Session, vetoes: CompiledVetoes, state: FeatureState) -> None:
        self._session = session
        self._vetoes = vetoes
        self._state = state

    def append(self, tokens: Tensor, *, agent_wrote: Tensor | None = None) -> BaseStep:
        """The prediction after one more token of every episode; see `Session.append`."""
        step = self._session.append(tokens, agent_wrote=agent_wrote)
        self._state = self._vetoes.reader.advance(self._state, tokens)
        return apply_vetoes(step, self._vetoes, self._state)


def apply_vetoes(step: BaseStep, vetoes: CompiledVetoes, state: FeatureState) -> BaseStep:
    """A base policy's step without what is vetoed.

    Rows of which nothing is taken are passed on as they are, bit by bit: a row of float32 is full
    but for rounding, and rounding is no call for help.

    Args:
        step: of the base policy.
        vetoes: what is vetoed.
        state: where the transcripts stand.
    """
    log_factors = vetoes.log_factors(state)
    touched = ((log_factors < 0) & (step.log_probs > -torch.inf)).any(dim=-1)
    if not touched.any():
        return step
    vetoed = step_from_semi_distribution(semi_log_probs(step) + log_factors.double(), step.features)
    return replace(
        step,
        log_probs=torch.where(touched[:, None], vetoed.log_probs, step.log_probs),
        missing_mass=torch.where(touched, vetoed.missing_mass, step.missing_mass),
    )
