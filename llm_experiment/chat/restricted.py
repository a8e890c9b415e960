"""A base policy that may not do everything: at some steps some tokens lose probability.

Under a *restriction* the law is `nu(x|h) = r(x|h) b(x|h)` with factors r in [0, 1]. What that takes
away is missing mass, and not given to anything else. A restriction reads the transcript token by
token: vetoes (`veto_set`) are one, a demonstrator who is never silent (`never_silent`) another.
"""

from dataclasses import replace
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from llm_experiment.base.protocol import (
    BaseModel,
    BaseStep,
    ChangedBase,
    Session,
    semi_log_probs,
    step_from_semi_distribution,
)
from llm_experiment.chat.turns import TurnParser
from theory.errors import InvalidArgumentError

State = TypeVar("State")
"""Where n transcripts stand, to a restriction."""


class Restriction(Protocol[State]):
    """What every next token's probability is multiplied by."""

    def read(self, tokens: Tensor) -> State:
        """The state after transcripts, int64, shape (n, t)."""
        ...

    def advance(self, state: State, tokens: Tensor) -> State:
        """The state after one more token of every transcript, int64, shape (n,)."""
        ...

    def log_factors(self, state: State) -> Tensor:
        """`ln r`, in nats, at most 0, float32, shape (n, n_tokens)."""
        ...


class RestrictedBase(ChangedBase, Generic[State]):
    """A base policy under a restriction; see `BaseModel`.

    Args:
        base: the base policy.
        restriction: of its vocabulary, on its device.
    """

    def __init__(self, base: BaseModel, restriction: Restriction[State]) -> None:
        super().__init__(base)
        self._restriction = restriction

    def begin(
        self, prompt_tokens: Tensor, *, n_episodes: int, n_positions: int
    ) -> tuple["RestrictedSession[State]", BaseStep]:
        """Start episodes that share a prompt; see `BaseModel.begin`."""
        inner, step = self._base.begin(
            prompt_tokens, n_episodes=n_episodes, n_positions=n_positions
        )
        state = self._restriction.read(prompt_tokens.repeat(n_episodes, 1))
        session = RestrictedSession(inner, self._restriction, state)
        return session, restricted(step, self._restriction.log_factors(state))


class RestrictedSession(Generic[State]):
    """Episodes under a restricted base policy."""

    def __init__(self, session: Session, restriction: Restriction[State], state: State) -> None:
        self._session = session
        self._restriction = restriction
        self._state = state

    def append(self, tokens: Tensor, *, agent_wrote: Tensor | None = None) -> BaseStep:
        """The prediction after one more token of every episode; see `Session.append`."""
        step = self._session.append(tokens, agent_wrote=agent_wrote)
        self._state = self._restriction.advance(self._state, tokens)
        return restricted(step, self._restriction.log_factors(self._state))


def restricted(step: BaseStep, log_factors: Tensor) -> BaseStep:
    """A base policy's step, every token's probability multiplied by a factor.

    Rows of which nothing is taken are passed on as they are, bit by bit: a row of float32 is full
    but for rounding, and rounding is no call for help.

    Args:
        step: of the base policy.
        log_factors: in nats, at most 0, shape (n, n_tokens).
    """
    touched = ((log_factors < 0) & (step.log_probs > -torch.inf)).any(dim=-1)
    (rows,) = touched.nonzero(as_tuple=True)  # of a large vocabulary, a row is much
    if not len(rows):
        return step
    before = BaseStep(
        log_probs=step.log_probs[rows],
        features=step.features[rows],
        missing_mass=step.missing_mass[rows],
    )
    less = step_from_semi_distribution(
        semi_log_probs(before) + log_factors[rows].double(), before.features
    )
    return replace(
        step,
        log_probs=step.log_probs.index_copy(0, rows, less.log_probs),
        missing_mass=step.missing_mass.index_copy(0, rows, less.missing_mass),
    )


def check_parser(parser: TurnParser, base: BaseModel) -> None:
    """Raise unless a parser is of a base policy's vocabulary.

    Raises:
        InvalidArgumentError: it is of another one.
    """
    if parser.n_tokens != base.n_tokens:
        raise InvalidArgumentError(
            f"the parser knows {parser.n_tokens} tokens and the base policy {base.n_tokens}; "
            "make the parser with n_tokens = base.n_tokens"
        )
