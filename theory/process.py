"""Histories, policies, environments, their joint law, and value (Definition 1).

A history interleaves actions and observations, `h_{<t} = a_1 o_1 ... a_{t-1} o_{t-1}`: in the
paper's one sequence `x_1 x_2 ...` actions are the odd symbols and observations the even ones.
A *policy* gives probabilities of the next action after a history of even length, an
*environment* those of the next observation after a history of odd length; either may be a
semi-distribution, whose missing mass means that nothing comes (a program that does not halt,
or an imitator that asks for help). After that the process has ended and earns nothing.

Exact questions are asked of the finite tree of all continuations of one history, `HistoryTree`.
There a policy is a table, one array a step: entry `[h, a]` of level `t` is `pi(a | h)` for the
`h`-th of the `(|A||O|)^t` continuations of `t` steps, in lexicographic order. An environment is
`[h, a, o]`, a utility `[h]` over the complete continuations. Recursions over histories are then
sums over the last axes and reshapes. A table holds float64, or `Fraction`s (dtype object); then
every result below is a `Fraction` too.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from theory.errors import (
    InvalidArgumentError,
    InvalidDistributionError,
    InvalidHistoryError,
    InvalidShapeError,
)

History: TypeAlias = tuple[int, ...]
Probability: TypeAlias = Fraction | float
Policy: TypeAlias = Callable[[History], Sequence[Probability]]
Environment: TypeAlias = Callable[[History], Sequence[Probability]]
Utility: TypeAlias = Callable[[History], Probability]

Table: TypeAlias = NDArray[Any]
"""An array of float64 or, for exact work, of `Fraction` (dtype object)."""
PolicyTable: TypeAlias = tuple[Table, ...]
"""Level t: shape ((|A||O|)^t, |A|)."""
EnvironmentTable: TypeAlias = tuple[Table, ...]
"""Level t: shape ((|A||O|)^t, |A|, |O|)."""
UtilityTable: TypeAlias = Table
"""Shape ((|A||O|)^m,)."""

FULL_MASS_TOLERANCE: Final = 1e-9
"""How far float rows may exceed mass 1: rounding of long products, no modelling error."""


@dataclass(frozen=True, kw_only=True)
class HistoryTree:
    """All continuations of `root` by `horizon` action-observation pairs.

    Attributes:
        n_actions: |A|, at least 1.
        n_observations: |O|, at least 1.
        horizon: m - k + 1, the number of steps, at least 1.
        root: the history (of even length) that all continuations extend.
    """

    n_actions: int
    n_observations: int
    horizon: int
    root: History = ()

    def __post_init__(self) -> None:
        for name in ("n_actions", "n_observations", "horizon"):
            if getattr(self, name) < 1:
                raise InvalidArgumentError(f"{name} must be >= 1, got {getattr(self, name)}")
        check_history(self.root, n_actions=self.n_actions, n_observations=self.n_observations)
        if len(self.root) % 2:
            raise InvalidHistoryError(
                f"the root must end in an observation (even length), got length {len(self.root)}"
            )

    @property
    def branching(self) -> int:
        """|A||O|, the number of one-step continuations."""
        return self.n_actions * self.n_observations

    def n_histories(self, t: int) -> int:
        """The number of continuations of `t` steps."""
        return int(self.branching**t)

    def continuations(self, t: int) -> Iterator[History]:
        """Continuations of `t` steps, without the root, in table order."""
        step = [range(self.n_actions), range(self.n_observations)]
        return product(*(step * t))

    def index(self, continuation: History) -> int:
        """The row of `continuation` (without the root) in level `len(continuation) // 2`."""
        check_history(continuation, n_actions=self.n_actions, n_observations=self.n_observations)
        row = 0
        for action, observation in zip(continuation[::2], continuation[1::2], strict=True):
            row = (row * self.n_actions + action) * self.n_observations + observation
        return row


def check_history(history: History, *, n_actions: int, n_observations: int) -> None:
    """Raise `InvalidHistoryError` unless every symbol lies in its alphabet."""
    for position, symbol in enumerate(history):
        size = n_observations if position % 2 else n_actions
        if not 0 <= symbol < size:
            kind = "observation" if position % 2 else "action"
            raise InvalidHistoryError(
                f"{kind} at position {position} must lie in 0..{size - 1}, got {symbol}"
            )


def check_distributions(rows: Table, *, name: str, tolerance: float = FULL_MASS_TOLERANCE) -> None:
    """Raise unless every row (last axis) is a semi-distribution.

    Args:
        rows: probabilities, shape (..., n), float64 or `Fraction`.
        name: what they are, for the message.
        tolerance: how far a float row's mass may exceed 1; exact rows may not at all.

    Raises:
        InvalidDistributionError: with the first offending number.
    """
    exact = rows.dtype == object
    negative = rows[~(rows >= 0)]  # catches NaN too
    if negative.size:
        raise InvalidDistributionError(
            f"probabilities of {name} must be >= 0, got {negative.flat[0]}"
        )
    mass = np.asarray(rows.sum(axis=-1))
    over = mass[mass > 1 + (0 if exact else tolerance)]
    if over.size:
        raise InvalidDistributionError(
            f"probabilities of {name} must sum to at most 1, got {over.flat[0]}"
        )


def policy_table(tree: HistoryTree, policy: Policy) -> PolicyTable:
    """`policy` on every history of `tree` with an action to come.

    Returns:
        `horizon` levels, level t of shape ((|A||O|)^t, |A|); of `Fraction`s if every answer is
        rational, else of float64.

    Raises:
        InvalidDistributionError, InvalidShapeError: as `policy`'s answers deserve.
    """
    levels = tuple(
        _rows(
            (policy(tree.root + h) for h in tree.continuations(t)),
            width=tree.n_actions,
            name="the policy",
        )
        for t in range(tree.horizon)
    )
    return in_common_arithmetic(levels)[0]  # type: ignore[no-any-return]  # its kind is kept


def environment_table(tree: HistoryTree, environment: Environment) -> EnvironmentTable:
    """`environment` on every history of `tree` with an observation to come.

    Returns:
        `horizon` levels, level t of shape ((|A||O|)^t, |A|, |O|); of `Fraction`s if every answer
        is rational, else of float64.

    Raises:
        InvalidDistributionError, InvalidShapeError: as `environment`'s answers deserve.
    """
    levels = tuple(
        _rows(
            (
                environment((*tree.root, *h, a))
                for h in tree.continuations(t)
                for a in range(tree.n_actions)
            ),
            width=tree.n_observations,
            name="the environment",
        ).reshape(-1, tree.n_actions, tree.n_observations)
        for t in range(tree.horizon)
    )
    return in_common_arithmetic(levels)[0]  # type: ignore[no-any-return]  # its kind is kept


def table_by_history(tree: HistoryTree, rows: Iterable[tuple[History, Table]]) -> PolicyTable:
    """The table of rows that come one by one, those of one length in table order.

    Args:
        tree: the tree.
        rows: for every continuation with an action to come, its row, shape (|A|,).

    Returns:
        `horizon` levels, level t of shape ((|A||O|)^t, |A|).
    """
    levels: list[list[Table]] = [[] for _ in range(tree.horizon)]
    for continuation, row in rows:
        levels[len(continuation) // 2].append(row)
    return tuple(np.stack(level) for level in levels)


def utility_table(tree: HistoryTree, utility: Utility) -> UtilityTable:
    """`U_m` of every complete continuation, shape ((|A||O|)^m,).

    Raises:
        InvalidArgumentError: a utility outside [0, 1] (Definition 1).
    """
    values = as_table([utility(tree.root + h) for h in tree.continuations(tree.horizon)])
    outside = values[~((values >= 0) & (values <= 1))]
    if outside.size:
        raise InvalidArgumentError(f"U_m must lie in [0, 1], got {outside.flat[0]}")
    return values


def as_table(values: Any) -> Table:
    """An array of `Fraction` if every entry is rational (int or `Fraction`), else of float64."""
    raw = np.array(values, dtype=object)
    if all(isinstance(entry, (int, Fraction)) for entry in raw.flat):
        return np.array([Fraction(entry) for entry in raw.flat], dtype=object).reshape(raw.shape)
    return raw.astype(np.float64)


def in_common_arithmetic(*tables: Any) -> Any:
    """The tables as they are if all hold `Fraction`s, else every one in float64.

    Args:
        tables: arrays, or tuples of arrays.
    """

    def levels(table: Table | tuple[Table, ...]) -> tuple[Table, ...]:
        return table if isinstance(table, tuple) else (table,)

    if all(level.dtype == object for table in tables for level in levels(table)):
        return tables
    return tuple(
        tuple(level.astype(np.float64) for level in table)
        if isinstance(table, tuple)
        else table.astype(np.float64)
        for table in tables
    )


def reach_probabilities(pi: PolicyTable, nu: EnvironmentTable) -> tuple[Table, ...]:
    """`P(h_{<t})` of every history under `pi` in `nu`.

    Returns:
        `horizon + 1` levels, level t of shape ((|A||O|)^t,); the last is the joint law.
    """
    check_same_tree(pi, nu)
    levels = [np.ones(1, dtype=np.result_type(pi[0], nu[0]))]
    if levels[0].dtype == object:
        levels[0][0] = Fraction(1)
    for actions, observations in zip(pi, nu, strict=True):
        step = levels[-1][:, None, None] * actions[:, :, None] * observations
        levels.append(step.reshape(-1))
    return tuple(levels)


def joint_law(pi: PolicyTable, nu: EnvironmentTable) -> Table:
    """The joint law of complete continuations, shape ((|A||O|)^m,)."""
    return reach_probabilities(pi, nu)[-1]


def action_law(pi: PolicyTable, *, n_observations: int) -> Table:
    """`prod_t pi(a_t | h_t)` of every continuation, the observations given.

    Returns:
        Shape ((|A||O|)^(m-1) |A|,): the last observation comes after every action.
    """
    law = pi[0].reshape(-1)
    for actions in pi[1:]:
        law = (np.repeat(law, n_observations)[:, None] * actions).reshape(-1)
    return law


def observation_laws(nu: EnvironmentTable) -> tuple[Table, ...]:
    """`prod_j nu(o_j | h_j a_j)` of every history, the actions given.

    Returns:
        `horizon + 1` levels, level t of shape ((|A||O|)^t,).
    """
    levels = [np.full(1, Fraction(1) if nu[0].dtype == object else 1.0)]
    for observations in nu:
        levels.append((levels[-1][:, None, None] * observations).reshape(-1))
    return tuple(levels)


def values(pi: PolicyTable, nu: EnvironmentTable, utility: UtilityTable) -> tuple[Table, ...]:
    """`V^pi_{nu,U}(h)` (Definition 1) of every history.

    Returns:
        `horizon + 1` levels, level t of shape ((|A||O|)^t,); level 0 holds the root's value.
    """
    check_same_tree(pi, nu)
    levels = [utility]
    for actions, observations in zip(reversed(pi), reversed(nu), strict=True):
        levels.append((actions * action_values(observations, levels[-1])).sum(axis=-1))
    return tuple(reversed(levels))


def optimal_values(nu: EnvironmentTable, utility: UtilityTable) -> tuple[Table, ...]:
    """`V*_{nu,U}(h)` of every history, levels as in `values`."""
    levels = [utility]
    for observations in reversed(nu):
        levels.append(action_values(observations, levels[-1]).max(axis=-1))
    return tuple(reversed(levels))


def action_values(observations: Table, next_values: Table) -> Table:
    """`Q(h, a) = sum_o nu(o | h a) V(h a o)`, shape (n_histories, |A|).

    Args:
        observations: one level of an environment table, (n_histories, |A|, |O|).
        next_values: V of the next level, (n_histories |A| |O|,).
    """
    return np.asarray((observations * next_values.reshape(observations.shape)).sum(axis=-1))


def subtree(table: tuple[Table, ...], *, step: int, row: int) -> tuple[Table, ...]:
    """The part of a policy or environment table that continues one of its histories.

    Args:
        table: level t of shape ((|A||O|)^t, ...).
        step: the length of the history, in steps, below the horizon.
        row: its row in level `step`.

    Returns:
        `horizon - step` levels, the first with the row of the history alone.

    Raises:
        InvalidHistoryError: no such history in the table.
    """
    if not 0 <= step < len(table) or not 0 <= row < len(table[step]):
        raise InvalidHistoryError(
            f"the table has no history with row {row} at step {step}; it has "
            f"{[len(level) for level in table]} rows at its {len(table)} steps"
        )
    widths = [len(level) // len(table[step]) for level in table[step:]]
    return tuple(
        level[row * width : (row + 1) * width]
        for width, level in zip(widths, table[step:], strict=True)
    )


def infer_n_observations(pi: PolicyTable) -> int:
    """|O| from the shapes of a policy table; 1 at horizon 1, where nothing depends on it.

    Raises:
        InvalidShapeError: the levels are no table of any tree.
    """
    first = pi[0].shape
    n_observations = max(1, len(pi[1]) // first[1]) if len(pi) > 1 else 1
    for t, actions in enumerate(pi):
        expected = ((first[1] * n_observations) ** t, first[1])
        if actions.shape != expected:
            raise InvalidShapeError(
                f"level {t} of a policy table must have shape ((|A||O|)^{t}, |A|), here "
                f"{expected}, got {actions.shape}"
            )
    return n_observations


def check_same_tree(pi: PolicyTable, *others: tuple[Table, ...]) -> None:
    """Raise `InvalidShapeError` unless the tables belong to one history tree."""
    for other in others:
        if len(pi) != len(other):
            raise InvalidShapeError(
                f"tables must share a horizon, got {len(pi)} and {len(other)} levels"
            )
        for t, (first, second) in enumerate(zip(pi, other, strict=True)):
            if first.shape[:2] != second.shape[:2]:
                raise InvalidShapeError(
                    f"tables must share a tree; level {t} has shapes {first.shape} and "
                    f"{second.shape}"
                )


def _rows(rows: Iterator[Sequence[Probability]], *, width: int, name: str) -> Table:
    listed = [tuple(row) for row in rows]
    for row in listed:
        if len(row) != width:
            raise InvalidShapeError(
                f"{name} must give {width} probabilities, got {len(row)}: {row}"
            )
    table = as_table(listed)
    check_distributions(table, name=name)
    return table
