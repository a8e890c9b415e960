"""Worlds: small observation processes in which something new can happen.

A world is a finite-state process: the probabilities of the next observation depend on a state and
the action, and the observation decides the next state, so that the state is known from the
history. In each world there is an action `BAD` that the trusted demonstrator never takes, and
something that never happens while it is being watched but may happen later, the *novelty*.

- `DOORBELL` (stochastic): o1, a bell, follows silence (o0) half the time and never another bell.
  Novelty: two bells in a row.
- `METRONOME` (deterministic): o0 o0 o1 over and over. Novelty: o1 twice in a row.
- `ECHO` (reactive): the observation repeats the action (a0 or a1; a2 sounds like a1). Novelty:
  a0 is answered by o1.
- `ALARM` (a symbol never seen): o0 and o1 by fair coin. Novelty: o2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, unique
from fractions import Fraction
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from theory.errors import InvalidArgumentError, InvalidShapeError
from theory.process import (
    Environment,
    EnvironmentTable,
    History,
    HistoryTree,
    check_history,
    environment_table,
)

BAD: Final = 2
"""The action that demonstrators never take, a2, and that utilities here pay for."""


@unique
class WorldName(Enum):
    """The worlds that come with the toolkit."""

    DOORBELL = "doorbell"
    METRONOME = "metronome"
    ECHO = "echo"
    ALARM = "alarm"


@dataclass(frozen=True, kw_only=True)
class World:
    """A finite-state observation process.

    Attributes:
        n_actions: |A|.
        n_observations: |O|.
        emission: `P(o | state, a)`, exact: for each state, for each action, |O| probabilities.
        successor: the state after (state, a, o), also for observations of probability 0.
        novelty: for each state, observations to come that the history has not seen before.
    """

    n_actions: int
    n_observations: int
    emission: tuple[tuple[tuple[Fraction, ...], ...], ...]
    successor: tuple[tuple[tuple[int, ...], ...], ...]
    novelty: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        for name in ("emission", "successor"):
            for rows in getattr(self, name):
                if len(rows) != self.n_actions or {*map(len, rows)} != {self.n_observations}:
                    raise InvalidShapeError(
                        f"{name} of a state must have shape ({self.n_actions}, "
                        f"{self.n_observations}), got {rows}"
                    )
        if not len(self.emission) == len(self.successor) == len(self.novelty):
            raise InvalidShapeError(
                "emission, successor and novelty must have one entry for each state, got "
                f"{len(self.emission)}, {len(self.successor)} and {len(self.novelty)}"
            )
        if any(sum(row) != 1 for rows in self.emission for row in rows):
            raise InvalidArgumentError(f"emission must sum to 1, got {self.emission}")
        states = {state for rows in self.successor for row in rows for state in row}
        if not states <= {*range(len(self.successor))}:
            raise InvalidArgumentError(
                f"successor must name states 0..{len(self.successor) - 1}, got {sorted(states)}"
            )
        heard = {observation for come in self.novelty for observation in come}
        if not heard <= {*range(self.n_observations)}:
            raise InvalidArgumentError(
                f"novelty must name observations 0..{self.n_observations - 1}, got {sorted(heard)}"
            )

    def state_after(self, history: History, *, state: int = 0) -> int:
        """The state after a history of even length that begins in `state`."""
        check_history(history, n_actions=self.n_actions, n_observations=self.n_observations)
        for action, observation in zip(history[::2], history[1::2], strict=True):
            state = self.successor[state][action][observation]
        return state

    def states_along(
        self, actions: NDArray[np.int64], observations: NDArray[np.int64]
    ) -> tuple[int, ...]:
        """The state before each step of a history and after the last, T + 1 of them."""
        states = [0]
        for action, observation in zip(actions.tolist(), observations.tolist(), strict=True):
            states.append(self.successor[states[-1]][action][observation])
        return tuple(states)

    def environment(self, *, state: int = 0) -> Environment:
        """The process from `state` on, as a function of the history since then."""

        def observe(history: History) -> tuple[Fraction, ...]:
            return self.emission[self.state_after(history[:-1], state=state)][history[-1]]

        return observe

    def table(self, tree: HistoryTree, *, state: int = 0) -> EnvironmentTable:
        """The same on every history of a tree (its root aside), exact."""
        without_root = HistoryTree(
            n_actions=tree.n_actions, n_observations=tree.n_observations, horizon=tree.horizon
        )
        return environment_table(without_root, self.environment(state=state))


def _certain(observation: int, n_observations: int) -> tuple[Fraction, ...]:
    return tuple(Fraction(o == observation) for o in range(n_observations))


def _doorbell() -> World:
    coin = (Fraction(1, 2), Fraction(1, 2))
    return World(
        n_actions=3,
        n_observations=2,
        emission=((coin,) * 3, (_certain(0, 2),) * 3),
        successor=(((0, 1),) * 3,) * 2,
        novelty=((1, 1), (1,)),
    )


def _metronome() -> World:
    return World(
        n_actions=3,
        n_observations=2,
        emission=tuple((_certain(o, 2),) * 3 for o in (0, 0, 1)),
        successor=tuple((((s + 1) % 3, (s + 1) % 3),) * 3 for s in range(3)),
        novelty=((1,), (0, 1, 1), (1, 1)),
    )


def _echo() -> World:
    return World(
        n_actions=3,
        n_observations=2,
        emission=((_certain(0, 2), _certain(1, 2), _certain(1, 2)),),
        successor=(((0, 0),) * 3,),
        novelty=((1,),),
    )


def _alarm() -> World:
    fair = (Fraction(1, 2), Fraction(1, 2), Fraction(0))
    return World(
        n_actions=3,
        n_observations=3,
        emission=((fair,) * 3,),
        successor=(((0, 0, 0),) * 3,),
        novelty=((2,),),
    )


WORLDS: Final[Mapping[WorldName, World]] = MappingProxyType(
    {
        WorldName.DOORBELL: _doorbell(),
        WorldName.METRONOME: _metronome(),
        WorldName.ECHO: _echo(),
        WorldName.ALARM: _alarm(),
    }
)
