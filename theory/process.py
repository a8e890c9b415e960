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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from theory.arguments import check_count
from theory.arrays import MASS_TOLERANCE, Shaped
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


@dataclass(frozen=True, kw_only=True)
class HistoryTree:
    """All continuations of `root` by `horizon` action-observation pairs.

    Attributes:
        n_actions: |A|, at least 1.
        n_observations: |O|, at least 1.
        horizon: m - k + 1, the number of steps, at least 1.
        root: the history (of even length) that all continuations extend.

    Example:
        >>> from theory import HistoryTree
        >>> tree = HistoryTree(n_actions=2, n_observations=3, horizon=2)
        >>> tree.n_histories(1), tree.n_histories(2)
        (6, 36)
        >>> list(tree.continuations(1))[:4], tree.index((1, 0))
        ([(0, 0), (0, 1), (0, 2), (1, 0)], 3)
    """

    n_actions: int
    n_observations: int
    horizon: int
    root: History = ()

    def __post_init__(self) -> None:
        check_count(
            n_actions=self.n_actions, n_observations=self.n_observations, horizon=self.horizon
        )
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


def check_distributions(rows: Table, *, name: str) -> None:
    """Raise unless every row (last axis) is a semi-distribution.

    Args:
        rows: probabilities, shape (..., n), float64 or `Fraction`; the mass of a float row may
            exceed 1 by `MASS_TOLERANCE`.
        name: what they are, for the message.

    Raises:
        InvalidDistributionError: with the first offending number.
    """
    negative = rows[~(rows >= 0)]  # catches NaN too
    if negative.size:
        raise InvalidDistributionError(
            f"probabilities of {name} must be >= 0, got {negative.flat[0]}"
        )
    mass = np.asarray(rows.sum(axis=-1))
    tolerance = 0 if rows.dtype == object else MASS_TOLERANCE
    over = mass[mass > 1 + tolerance]
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
        InvalidDistributionError: an answer of `policy` that is no semi-distribution.
        InvalidShapeError: an answer that has not |A| probabilities.

    Example:
        >>> from theory import HistoryTree, policy_table
        >>> tree = HistoryTree(n_actions=2, n_observations=2, horizon=2)
        >>> table = policy_table(tree, lambda h: (0.9, 0.1) if sum(h) == 0 else (0.5, 0.5))
        >>> table[1]  # after the histories (0, 0), (0, 1), (1, 0) and (1, 1)
        array([[0.9, 0.1],
               [0.5, 0.5],
               [0.5, 0.5],
               [0.5, 0.5]])
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
        InvalidDistributionError: an answer of `environment` that is no semi-distribution.
        InvalidShapeError: an answer that has not |O| probabilities.

    Example:
        >>> from theory import HistoryTree, environment_table
        >>> tree = HistoryTree(n_actions=2, n_observations=2, horizon=1)
        >>> (table,) = environment_table(tree, lambda h: (0.2, 0.8) if h[-1] else (0.7, 0.3))
        >>> table[0]  # a row for each action
        array([[0.7, 0.3],
               [0.2, 0.8]])
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


def utility_table(tree: HistoryTree, utility: Utility) -> UtilityTable:
    """`U_m` of every complete continuation, shape ((|A||O|)^m,).

    Raises:
        InvalidArgumentError: a utility outside [0, 1] (Definition 1).

    Example:
        >>> from theory import HistoryTree, utility_table
        >>> tree = HistoryTree(n_actions=2, n_observations=2, horizon=1)
        >>> utility_table(tree, lambda h: 0.5 * h[0] + 0.25 * h[1])
        array([0.  , 0.25, 0.5 , 0.75])
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
        return tuple(table) if isinstance(table, tuple | list) else (table,)

    if all(level.dtype == object for table in tables for level in levels(table)):
        return tables
    return tuple(
        tuple(level.astype(np.float64) for level in table)
        if isinstance(table, tuple | list)
        else table.astype(np.float64)
        for table in tables
    )


def reach_probabilities(pi: PolicyTable, nu: EnvironmentTable) -> tuple[Table, ...]:
    """`P(h_{<t})` of every history under `pi` in `nu`.

    Returns:
        `horizon + 1` levels, level t of shape ((|A||O|)^t,); the last is the joint law.

    Example:
        >>> from theory import HistoryTree, environment_table, policy_table, reach_probabilities
        >>> tree = HistoryTree(n_actions=2, n_observations=1, horizon=2)
        >>> coin = policy_table(tree, lambda h: (0.75, 0.25))
        >>> nothing_to_see = environment_table(tree, lambda h: (1.0,))
        >>> for level in reach_probabilities(coin, nothing_to_see):
        ...     print(level)
        [1.]
        [0.75 0.25]
        [0.5625 0.1875 0.1875 0.0625]
    """
    _check_process(pi, nu)
    levels = [np.ones(1, dtype=np.result_type(pi[0], nu[0]))]
    if levels[0].dtype == object:
        levels[0][0] = Fraction(1)
    for actions, observations in zip(pi, nu, strict=True):
        step = levels[-1][:, None, None] * actions[:, :, None] * observations
        levels.append(step.reshape(-1))
    return tuple(levels)


def joint_law(pi: PolicyTable, nu: EnvironmentTable) -> Table:
    """The joint law of complete continuations, shape ((|A||O|)^m,).

    Example:
        >>> from fractions import Fraction
        >>> from theory import HistoryTree, environment_table, joint_law, policy_table
        >>> tree = HistoryTree(n_actions=2, n_observations=2, horizon=1)
        >>> pi = policy_table(tree, lambda h: (Fraction(1, 3), Fraction(2, 3)))
        >>> nu = environment_table(tree, lambda h: (Fraction(1, 2), Fraction(1, 2)))
        >>> print(*joint_law(pi, nu))  # of (0, 0), (0, 1), (1, 0) and (1, 1)
        1/6 1/6 1/3 1/3
    """
    return reach_probabilities(pi, nu)[-1]


def action_law(pi: PolicyTable, *, n_observations: int) -> Table:
    """`prod_t pi(a_t | h_t)` of every continuation, the observations given.

    Returns:
        Shape ((|A||O|)^(m-1) |A|,): the last observation comes after every action.

    Example:
        >>> from theory import HistoryTree, action_law, policy_table
        >>> tree = HistoryTree(n_actions=2, n_observations=2, horizon=2)
        >>> pi = policy_table(tree, lambda h: (0.5, 0.5) if not h else (1.0, 0.0))
        >>> action_law(pi, n_observations=2)  # a_1 o_1 a_2 = 000, 001, 010, ...
        array([0.5, 0. , 0.5, 0. , 0.5, 0. , 0.5, 0. ])
    """
    check_policy(pi)
    law = pi[0].reshape(-1)
    for actions in pi[1:]:
        law = (np.repeat(law, n_observations)[:, None] * actions).reshape(-1)
    return law


def observation_laws(nu: EnvironmentTable) -> tuple[Table, ...]:
    """`prod_j nu(o_j | h_j a_j)` of every history, the actions given.

    Returns:
        `horizon + 1` levels, level t of shape ((|A||O|)^t,).

    Example:
        >>> from theory import HistoryTree, environment_table, observation_laws
        >>> tree = HistoryTree(n_actions=2, n_observations=2, horizon=1)
        >>> echo = environment_table(tree, lambda h: (1.0, 0.0) if h[-1] == 0 else (0.0, 1.0))
        >>> observation_laws(echo)[1]  # of (0, 0), (0, 1), (1, 0) and (1, 1)
        array([1., 0., 0., 1.])
    """
    check_environment(nu)
    levels = [np.full(1, Fraction(1) if nu[0].dtype == object else 1.0)]
    for observations in nu:
        levels.append((levels[-1][:, None, None] * observations).reshape(-1))
    return tuple(levels)


def values(pi: PolicyTable, nu: EnvironmentTable, utility: UtilityTable) -> tuple[Table, ...]:
    """`V^pi_{nu,U}(h)` (Definition 1) of every history.

    Returns:
        `horizon + 1` levels, level t of shape ((|A||O|)^t,); level 0 holds the root's value.

    Example:
        >>> from theory import HistoryTree, environment_table, policy_table, utility_table, values
        >>> tree = HistoryTree(n_actions=2, n_observations=1, horizon=2)
        >>> nu = environment_table(tree, lambda h: (1.0,))
        >>> utility = utility_table(tree, lambda h: float(h[0] == h[2]))  # the same action twice
        >>> values(policy_table(tree, lambda h: (0.75, 0.25)), nu, utility)[0]  # 9/16 + 1/16
        array([0.625])
    """
    _check_process(pi, nu)
    check_utility(nu, utility)
    levels = [utility]
    for actions, observations in zip(reversed(pi), reversed(nu), strict=True):
        levels.append((actions * action_values(observations, levels[-1])).sum(axis=-1))
    return tuple(reversed(levels))


def optimal_values(nu: EnvironmentTable, utility: UtilityTable) -> tuple[Table, ...]:
    """`V*_{nu,U}(h)` of every history, levels as in `values`.

    Example:
        >>> from theory import HistoryTree, environment_table, optimal_values, utility_table
        >>> tree = HistoryTree(n_actions=2, n_observations=2, horizon=1)
        >>> nu = environment_table(tree, lambda h: (0.5, 0.5) if h[-1] == 0 else (0.2, 0.8))
        >>> optimal_values(nu, utility_table(tree, lambda h: float(h[1])))[0]  # action 1
        array([0.8])
    """
    check_environment(nu)
    check_utility(nu, utility)
    levels = [utility]
    for observations in reversed(nu):
        levels.append(action_values(observations, levels[-1]).max(axis=-1))
    return tuple(reversed(levels))


def action_values(
    observations: Shaped[Table, "histories A O"], next_values: Shaped[Table, "histories*A*O"]
) -> Shaped[Table, "histories A"]:
    """`Q(h, a) = sum_o nu(o | h a) V(h a o)`, shape (n_histories, |A|).

    Args:
        observations: one level of an environment table, (n_histories, |A|, |O|).
        next_values: V of the next level, (n_histories |A| |O|,).

    Example:
        >>> import numpy as np
        >>> from theory import action_values
        >>> observations = np.array([[[0.5, 0.5], [0.25, 0.75]]])
        >>> action_values(observations, np.array([0.0, 1.0, 0.0, 1.0]))
        array([[0.5 , 0.75]])
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

    Example:
        >>> from theory import HistoryTree, policy_table, subtree
        >>> tree = HistoryTree(n_actions=2, n_observations=1, horizon=2)
        >>> pi = policy_table(tree, lambda h: (0.5, 0.5) if not h else (0.9, 0.1))
        >>> subtree(pi, step=1, row=0)  # what pi does after its first step
        (array([[0.9, 0.1]]),)
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
        InvalidShapeError: levels whose shapes belong to no tree.
    """
    check_policy(pi, name="a policy table")
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


def check_levels(table: tuple[Table, ...], *, name: str, n_axes: int, shape: str) -> None:
    """Raise unless `table` is a sequence of arrays with so many axes, one array a step.

    Args:
        table: a policy or environment table, or a stack of them.
        name: what it is, for the message.
        n_axes: of every level; this tells policies and environments apart.
        shape: of level t, in words, for the message.

    Raises:
        InvalidShapeError: no levels, or one of another number of axes.
    """
    if not isinstance(table, tuple | list) or not table:
        raise InvalidShapeError(
            f"{name} must be a tuple of arrays, one a step, got {type(table).__name__}"
        )
    for t, level in enumerate(table):
        if np.ndim(level) != n_axes or not isinstance(level, np.ndarray):
            kind = getattr(level, "shape", type(level).__name__)
            raise InvalidShapeError(
                f"level {t} of {name} must be an array of shape {shape}, got {kind}"
            )


def check_policy(pi: PolicyTable, *, name: str = "pi") -> None:
    """Raise `InvalidShapeError` unless `pi` has the levels of a policy table."""
    check_levels(pi, name=name, n_axes=2, shape="((|A||O|)^t, |A|)")


def check_environment(nu: EnvironmentTable, *, name: str = "nu") -> None:
    """Raise `InvalidShapeError` unless `nu` has the levels of an environment table."""
    check_levels(nu, name=name, n_axes=3, shape="((|A||O|)^t, |A|, |O|)")


def check_utility(nu: EnvironmentTable, utility: UtilityTable) -> None:
    """Raise `InvalidShapeError` unless `utility` has a number for each complete history."""
    if np.shape(utility) != (nu[-1].size,):
        raise InvalidShapeError(
            f"the utility needs an entry for each of the {nu[-1].size} complete histories, got "
            f"shape {np.shape(utility)}"
        )


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


def _check_process(pi: PolicyTable, nu: EnvironmentTable) -> None:
    check_policy(pi)
    check_environment(nu)
    check_same_tree(pi, nu)


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
