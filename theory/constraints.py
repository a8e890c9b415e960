"""Divergence constraints on whole continuations, in three readings (Definition 2).

From step k to m the agent's policy `pi` answers with actions `a_{k:m}` what comes as observations
`o_{k:m}`. On the history tree of process.py (k is its root), with `beta` the base policy:

- *fixed observations* (the paper's): the worst observation sequence chosen in advance,
  `max over o_{k:m} of sum over a_{k:m} of prod pi ln(prod pi / prod beta)`;
- *adaptive observations*: each `o_t` chosen after seeing `a_{<=t}`, by the worst strategy;
- *expected*: observations drawn from an environment `nu`.

All three are one backward recursion that differs in what it does with the next observation. Let
a *cost* `c(h)` be charged at each history and `w(a|h)` be the weight of an action:

    M(h) = c(h) + sum_a w(a|h) [over o] M(hao),

where `[over o]` is `max_o` (adaptive), `sum_o nu(o|ha)` (expected), or keeps o as an index and
takes one maximum over all index sequences at the root (fixed). With KL, `w = pi` and
`c(h) = KL(pi(.|h) || beta(.|h))`, by the chain rule. With an f-divergence of the joint laws
(TVD, chi-squared), `w = 1` and the only cost is that of the last action,
`sum_a beta(..a) f(pi(..a) / beta(..a))` with products of conditionals as its arguments.
The last observation follows every action and changes nothing.

`expected <= adaptive` and `fixed <= adaptive`. *Fixed and expected are not ordered*: let beta be
uniform, let an environment echo the action, `o_1 = a_1`, and let pi be certain of its second action
if and only if `o_1 = a_1`. Then fixed is `(ln 2)/2` and expected `ln 2`. The examples below are of
this pi and beta.

Semi-distributions: every sum runs over listed actions and observations. A process that has ended
costs nothing more, and its end is no outcome that the divergence would compare. So for a full pi
everything is as in the formulas above, whatever mass beta and nu miss; the KL of a pi that misses
mass is the expected sum of its steps' KL, which can be negative.
An action or observation of probability 0 contributes nothing, even at infinite cost.

Float tables give floats: KL to `1e-13 + 1e-15/sqrt(KL)` relative, TVD and chi-squared to 1e-12
relative plus 1e-14. (The root is what taking the logarithms of nearly equal policies loses.) Tables
of `Fraction`s give exact results: `LogSum` for KL, `Fraction` for TVD, and `Fraction` or `inf` for
chi-squared. Where exact and float tables meet, the exact ones are rounded first. All KL are in
nats.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from theory.divergences import kl_nats
from theory.errors import InvalidShapeError
from theory.log_sum import LogSum, kl_log_sum
from theory.process import (
    EnvironmentTable,
    PolicyTable,
    Table,
    action_law,
    check_distributions,
    check_environment,
    check_policy,
    check_same_tree,
    in_common_arithmetic,
    infer_n_observations,
)

Nats: TypeAlias = LogSum | float
Levels: TypeAlias = tuple[Table, ...]
"""Level t: shape ((|A||O|)^t,), a number a history."""


def step_kl_nats(pi: PolicyTable, beta: PolicyTable) -> Levels:
    """`KL(pi(.|h) || beta(.|h))` of every history, level t of shape ((|A||O|)^t,).

    Raises:
        InvalidShapeError, InvalidDistributionError: no policy tables of one tree (so for every
            function of this module).

    Example:
        >>> from theory import HistoryTree, policy_table, step_kl_nats
        >>> tree = HistoryTree(n_actions=2, n_observations=2, horizon=2)
        >>> fair = (0.5, 0.5)
        >>> beta = policy_table(tree, lambda h: fair)
        >>> pi = policy_table(tree, lambda h: (1.0, 0.0) if h in {(0, 0), (1, 1)} else fair)
        >>> for level in step_kl_nats(pi, beta):
        ...     print(level.round(4))
        [0.]
        [0.6931 0.     0.     0.6931]
    """
    pi, beta = _checked(pi, beta)
    return _step_kl(pi, beta)


def fixed_kl_nats(pi: PolicyTable, beta: PolicyTable) -> Nats:
    """The KL of Definition 2: the maximum over observation sequences chosen in advance.

    Example:
        >>> from theory import HistoryTree, policy_table, fixed_kl_nats
        >>> tree = HistoryTree(n_actions=2, n_observations=2, horizon=2)
        >>> fair = (0.5, 0.5)
        >>> beta = policy_table(tree, lambda h: fair)
        >>> pi = policy_table(tree, lambda h: (1.0, 0.0) if h in {(0, 0), (1, 1)} else fair)
        >>> round(fixed_kl_nats(pi, beta), 4)  # (ln 2)/2: half the first actions fit o_1
        0.3466
    """
    return _number(fixed_kl_per_observations(pi, beta).max())


def fixed_kl_per_observations(pi: PolicyTable, beta: PolicyTable) -> Table:
    """The KL of the action sequences for each observation sequence.

    Returns:
        Shape (|O|^(m-k),), sequences `o_k ... o_{m-1}` in lexicographic order. At which of them
        the maximum lies: `observation_sequence`.

    Example:
        >>> from theory import HistoryTree, fixed_kl_per_observations, policy_table
        >>> tree = HistoryTree(n_actions=2, n_observations=2, horizon=2)
        >>> beta = policy_table(tree, lambda h: (0.5, 0.5))
        >>> pi = policy_table(tree, lambda h: (1.0, 0.0) if h and h[-1] == 1 else (0.5, 0.5))
        >>> fixed_kl_per_observations(pi, beta).round(4)  # o_1 = 0, and o_1 = 1
        array([0.    , 0.6931])
    """
    pi, beta = _checked(pi, beta)
    return _fixed(_step_kl(pi, beta), pi, n_observations=infer_n_observations(pi))


def adaptive_kl_nats(pi: PolicyTable, beta: PolicyTable) -> Nats:
    """The maximum over observation strategies, the upper bound of the other two readings.

    Example:
        >>> from theory import HistoryTree, policy_table, adaptive_kl_nats
        >>> tree = HistoryTree(n_actions=2, n_observations=2, horizon=2)
        >>> fair = (0.5, 0.5)
        >>> beta = policy_table(tree, lambda h: fair)
        >>> pi = policy_table(tree, lambda h: (1.0, 0.0) if h in {(0, 0), (1, 1)} else fair)
        >>> round(adaptive_kl_nats(pi, beta), 4)  # ln 2, by echoing the action
        0.6931
    """
    return _number(adaptive_kl_to_go(pi, beta)[0][0])


def adaptive_kl_to_go(pi: PolicyTable, beta: PolicyTable) -> Levels:
    """`M(h) = KL_h + sum_a pi(a|h) max_o M(hao)` of every history.

    Returns:
        Level t of shape ((|A||O|)^t,). The maximising strategy: `observation_strategy`.

    Example:
        >>> from theory import HistoryTree, policy_table, adaptive_kl_to_go
        >>> tree = HistoryTree(n_actions=2, n_observations=2, horizon=2)
        >>> fair = (0.5, 0.5)
        >>> beta = policy_table(tree, lambda h: fair)
        >>> pi = policy_table(tree, lambda h: (1.0, 0.0) if h in {(0, 0), (1, 1)} else fair)
        >>> for level in adaptive_kl_to_go(pi, beta):
        ...     print(level.round(4))
        [0.6931]
        [0.6931 0.     0.     0.6931]
    """
    pi, beta = _checked(pi, beta)
    return _recursion(_step_kl(pi, beta), pi, [_largest] * (len(pi) - 1))


def expected_kl_nats(pi: PolicyTable, beta: PolicyTable, nu: EnvironmentTable) -> Nats:
    """`E sum_t KL(pi(.|h_t) || beta(.|h_t))`, h_t drawn from pi in nu.

    Example:
        >>> from theory import environment_table
        >>> from theory import HistoryTree, policy_table, expected_kl_nats
        >>> tree = HistoryTree(n_actions=2, n_observations=2, horizon=2)
        >>> fair = (0.5, 0.5)
        >>> beta = policy_table(tree, lambda h: fair)
        >>> pi = policy_table(tree, lambda h: (1.0, 0.0) if h in {(0, 0), (1, 1)} else fair)
        >>> noise = environment_table(tree, lambda h: fair)
        >>> round(expected_kl_nats(pi, beta, noise), 4)  # (ln 2)/2: o_1 fits half the time
        0.3466
    """
    return _number(expected_kl_to_go(pi, beta, nu)[0][0])


def expected_kl_to_go(pi: PolicyTable, beta: PolicyTable, nu: EnvironmentTable) -> Levels:
    """The expected sum of the KL of this and all later steps, from every history.

    Returns:
        Level t of shape ((|A||O|)^t,).

    Example:
        >>> from theory import environment_table
        >>> from theory import HistoryTree, policy_table, expected_kl_to_go
        >>> tree = HistoryTree(n_actions=2, n_observations=2, horizon=2)
        >>> fair = (0.5, 0.5)
        >>> beta = policy_table(tree, lambda h: fair)
        >>> pi = policy_table(tree, lambda h: (1.0, 0.0) if h in {(0, 0), (1, 1)} else fair)
        >>> noise = environment_table(tree, lambda h: fair)
        >>> for level in expected_kl_to_go(pi, beta, noise):
        ...     print(level.round(4))
        [0.3466]
        [0.6931 0.     0.     0.6931]
    """
    pi, beta, nu = _checked(pi, beta, nu)
    return _recursion(_step_kl(pi, beta), pi, _averages(nu))


def expected_reverse_kl_nats(pi: PolicyTable, beta: PolicyTable, nu: EnvironmentTable) -> Nats:
    """The KL of beta's joint law against pi's: `expected_kl_nats` with the roles exchanged.

    Example:
        >>> from theory import HistoryTree, environment_table
        >>> from theory import expected_reverse_kl_nats, policy_table
        >>> tree = HistoryTree(n_actions=2, n_observations=1, horizon=3)
        >>> pi = policy_table(tree, lambda h: (0.75, 0.25))
        >>> beta = policy_table(tree, lambda h: (0.5, 0.5))
        >>> nu = environment_table(tree, lambda h: (1.0,))
        >>> round(expected_reverse_kl_nats(pi, beta, nu), 4)  # 3/2 ln(4/3) for three steps
        0.4315
    """
    return expected_kl_nats(beta, pi, nu)


def fixed_tvd(pi: PolicyTable, beta: PolicyTable) -> Fraction | float:
    """`max over o of 1/2 sum over a of |prod pi - prod beta|`, o chosen in advance.

    Example:
        >>> from theory import HistoryTree, policy_table, fixed_tvd
        >>> tree = HistoryTree(n_actions=2, n_observations=2, horizon=2)
        >>> fair = (0.5, 0.5)
        >>> beta = policy_table(tree, lambda h: fair)
        >>> pi = policy_table(tree, lambda h: (1.0, 0.0) if h in {(0, 0), (1, 1)} else fair)
        >>> fixed_tvd(pi, beta)  # |1/2 - 1/4| + |0 - 1/4|, halved, where a_1 fits o_1
        0.25
    """
    return _rational(fixed_tvd_per_observations(pi, beta).max())


def fixed_tvd_per_observations(pi: PolicyTable, beta: PolicyTable) -> Table:
    """The TVD of the action sequences for each observation sequence, shape (|O|^(m-k),).

    Example:
        >>> from theory import HistoryTree, policy_table, fixed_tvd_per_observations
        >>> tree = HistoryTree(n_actions=2, n_observations=2, horizon=2)
        >>> fair = (0.5, 0.5)
        >>> beta = policy_table(tree, lambda h: fair)
        >>> pi = policy_table(tree, lambda h: (1.0, 0.0) if h in {(0, 0), (1, 1)} else fair)
        >>> fixed_tvd_per_observations(pi, beta)  # o_1 = 0, and o_1 = 1
        array([0.25, 0.25])
    """
    pi, beta = _checked(pi, beta)
    costs = _costs_of_last_action(pi, beta, _half_distance)
    return _fixed(costs, _ones(pi), n_observations=infer_n_observations(pi))


def adaptive_tvd(pi: PolicyTable, beta: PolicyTable) -> Fraction | float:
    """The maximum of the TVD over observation strategies.

    Example:
        >>> from theory import HistoryTree, policy_table, adaptive_tvd
        >>> tree = HistoryTree(n_actions=2, n_observations=2, horizon=2)
        >>> fair = (0.5, 0.5)
        >>> beta = policy_table(tree, lambda h: fair)
        >>> pi = policy_table(tree, lambda h: (1.0, 0.0) if h in {(0, 0), (1, 1)} else fair)
        >>> adaptive_tvd(pi, beta)  # both first actions are echoed
        0.5
    """
    return _rational(adaptive_tvd_to_go(pi, beta)[0][0])


def adaptive_tvd_to_go(pi: PolicyTable, beta: PolicyTable) -> Levels:
    """The share of the TVD that lies below each history under the worst strategy from there.

    Returns:
        Level t of shape ((|A||O|)^t,).

    Example:
        >>> from theory import HistoryTree, policy_table, adaptive_tvd_to_go
        >>> tree = HistoryTree(n_actions=2, n_observations=2, horizon=2)
        >>> fair = (0.5, 0.5)
        >>> beta = policy_table(tree, lambda h: fair)
        >>> pi = policy_table(tree, lambda h: (1.0, 0.0) if h in {(0, 0), (1, 1)} else fair)
        >>> adaptive_tvd_to_go(pi, beta)
        (array([0.5]), array([0.25, 0.  , 0.  , 0.25]))
    """
    pi, beta = _checked(pi, beta)
    costs = _costs_of_last_action(pi, beta, _half_distance)
    return _recursion(costs, _ones(pi), [_largest] * (len(pi) - 1))


def expected_tvd(pi: PolicyTable, beta: PolicyTable, nu: EnvironmentTable) -> Fraction | float:
    """The TVD of the joint laws of actions and observations, which nu gives to both.

    Example:
        >>> from theory import environment_table
        >>> from theory import HistoryTree, policy_table, expected_tvd
        >>> tree = HistoryTree(n_actions=2, n_observations=2, horizon=2)
        >>> fair = (0.5, 0.5)
        >>> beta = policy_table(tree, lambda h: fair)
        >>> pi = policy_table(tree, lambda h: (1.0, 0.0) if h in {(0, 0), (1, 1)} else fair)
        >>> echo = environment_table(tree, lambda h: (1.0, 0.0) if h[-1] == 0 else (0.0, 1.0))
        >>> expected_tvd(pi, beta, echo)
        0.5
    """
    return _rational(_expected_of_joint_laws(pi, beta, nu, _half_distance))


def expected_chi_squared(
    pi: PolicyTable, beta: PolicyTable, nu: EnvironmentTable
) -> Fraction | float:
    """`chi^2 = sum_h (P(h) - Q(h))^2 / Q(h)`, P and Q the joint laws of pi and beta in nu.

    `inf` where pi does what beta never does. For full P and Q this is `sum P^2 / Q - 1`.

    Example:
        >>> from theory import environment_table
        >>> from theory import HistoryTree, policy_table, expected_chi_squared
        >>> tree = HistoryTree(n_actions=2, n_observations=2, horizon=2)
        >>> fair = (0.5, 0.5)
        >>> beta = policy_table(tree, lambda h: fair)
        >>> pi = policy_table(tree, lambda h: (1.0, 0.0) if h in {(0, 0), (1, 1)} else fair)
        >>> echo = environment_table(tree, lambda h: (1.0, 0.0) if h[-1] == 0 else (0.0, 1.0))
        >>> expected_chi_squared(pi, beta, echo)  # two sequences of 1/2 against 1/4: 2 - 1
        1.0
    """
    return _rational(_expected_of_joint_laws(pi, beta, nu, _chi_squared))


def observation_sequence(
    per_observations: Table, *, horizon: int, n_observations: int
) -> tuple[int, ...]:
    """The observation sequence `o_k ... o_{m-1}` at which `per_observations` is largest.

    Args:
        per_observations: as the `fixed_*_per_observations` give it, shape (|O|^(horizon-1),).
        horizon: the number of steps, m - k + 1.
        n_observations: |O|.

    Raises:
        InvalidShapeError: another number of sequences than `|O|^(horizon-1)`.

    Example:
        >>> from theory import HistoryTree, fixed_kl_per_observations
        >>> from theory import observation_sequence, policy_table
        >>> tree = HistoryTree(n_actions=2, n_observations=2, horizon=3)
        >>> beta = policy_table(tree, lambda h: (0.5, 0.5))
        >>> pi = policy_table(tree, lambda h: (1.0, 0.0) if h[1::2] == (1, 0) else (0.5, 0.5))
        >>> per_observations = fixed_kl_per_observations(pi, beta)
        >>> observation_sequence(per_observations, horizon=3, n_observations=2)
        (1, 0)
    """
    expected = (n_observations ** (horizon - 1),)
    if per_observations.shape != expected:
        raise InvalidShapeError(
            f"per_observations must have shape (|O|^(horizon-1),) = {expected}, got "
            f"{per_observations.shape}"
        )
    index = int(per_observations.argmax())
    digits = []
    for _ in range(horizon - 1):
        index, digit = divmod(index, n_observations)
        digits.append(digit)
    return tuple(reversed(digits))


def observation_strategy(to_go: Levels, *, n_actions: int) -> Levels:
    """The observation that maximises what follows each history and action.

    Args:
        to_go: as the `adaptive_*_to_go` give it.
        n_actions: |A|.

    Returns:
        One level fewer than `to_go` has, level t of shape ((|A||O|)^t, |A|), of observations.

    Example:
        >>> from theory import adaptive_kl_to_go
        >>> from theory import HistoryTree, policy_table, observation_strategy
        >>> tree = HistoryTree(n_actions=2, n_observations=2, horizon=2)
        >>> fair = (0.5, 0.5)
        >>> beta = policy_table(tree, lambda h: fair)
        >>> pi = policy_table(tree, lambda h: (1.0, 0.0) if h in {(0, 0), (1, 1)} else fair)
        >>> observation_strategy(adaptive_kl_to_go(pi, beta), n_actions=2)  # the echo
        (array([[0, 1]]),)
    """
    return tuple(
        later.reshape(len(level), n_actions, -1).argmax(axis=-1) for level, later in pairwise(to_go)
    )


_OverObservations: TypeAlias = Callable[[Table], Table]
"""From what follows, shape (n_histories, |A|, |O|), to shape (n_histories, |A|)."""


def _recursion(costs: Levels, weights: PolicyTable, over: list[_OverObservations]) -> Levels:
    levels = [costs[-1]]
    for cost, weight, over_observations in zip(
        reversed(costs[:-1]), reversed(weights[:-1]), reversed(over), strict=True
    ):
        later = levels[-1].reshape(*weight.shape, -1)
        levels.append(cost + _times(weight, over_observations(later)).sum(axis=-1))
    return tuple(reversed(levels))


def _fixed(costs: Levels, weights: PolicyTable, *, n_observations: int) -> Table:
    # Shape (n_histories, number of futures): one number for each sequence of later observations.
    to_go = costs[-1][:, None]
    for cost, weight in zip(reversed(costs[:-1]), reversed(weights[:-1]), strict=True):
        n_histories, n_actions = weight.shape
        later = to_go.reshape(n_histories, n_actions, n_observations, -1)
        follows = _times(weight[:, :, None, None], later).sum(axis=1)
        to_go = cost[:, None] + follows.reshape(n_histories, -1)
    return np.asarray(to_go[0])


def _expected_of_joint_laws(
    pi: PolicyTable,
    beta: PolicyTable,
    nu: EnvironmentTable,
    divergence: Callable[[Table, Table], Table],
) -> Any:
    pi, beta, nu = _checked(pi, beta, nu)
    costs = _costs_of_last_action(pi, beta, divergence)
    return _recursion(costs, _ones(pi), _averages(nu))[0][0]


def _largest(later: Table) -> Table:
    return np.asarray(later.max(axis=-1))


def _averages(nu: EnvironmentTable) -> list[_OverObservations]:
    # The last observation comes after every action: its level is not used.
    def average(observations: Table) -> _OverObservations:
        return lambda later: np.asarray(_times(observations, later).sum(axis=-1))

    return [average(observations) for observations in nu[:-1]]


def _times(weight: Table, value: Table) -> Table:
    """`weight * value` with `0 * inf = 0`, as `LogSum` has it anyway."""
    if value.dtype == object:
        return np.asarray(weight * value)
    with np.errstate(invalid="ignore"):
        return np.where(weight > 0, weight * value, 0.0)


def _step_kl(pi: PolicyTable, beta: PolicyTable) -> Levels:
    return tuple(_kl_rows(p, q) for p, q in zip(pi, beta, strict=True))


def _kl_rows(p: Table, q: Table) -> Table:
    if p.dtype == object:
        rows = np.empty(len(p), dtype=object)
        pairs = zip(p.tolist(), q.tolist(), strict=True)
        rows[:] = [kl_log_sum(p_row, q_row) for p_row, q_row in pairs]
        return rows
    with np.errstate(divide="ignore"):
        return np.asarray(kl_nats(np.log(p), np.log(q), unchecked=True))


def _costs_of_last_action(
    pi: PolicyTable, beta: PolicyTable, divergence: Callable[[Table, Table], Table]
) -> Levels:
    n_observations = infer_n_observations(pi)
    last = divergence(
        action_law(pi, n_observations=n_observations).reshape(pi[-1].shape),
        action_law(beta, n_observations=n_observations).reshape(pi[-1].shape),
    ).sum(axis=-1)
    # Earlier actions cost nothing; a divergence from itself is a zero of the right type.
    none = [divergence(actions, actions).sum(axis=-1) for actions in beta[:-1]]
    return (*none, last)


def _half_distance(p: Table, q: Table) -> Table:
    return np.asarray(abs(p - q) / 2)


def _chi_squared(p: Table, q: Table) -> Table:
    if p.dtype == object:
        terms = [
            LogSum.rational((p_i - q_i) ** 2 / q_i) if q_i else _infinite_unless_zero(p_i)
            for p_i, q_i in zip(p.flat, q.flat, strict=True)
        ]
        return np.array(terms, dtype=object).reshape(p.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p == q, 0.0, (p - q) ** 2 / q)


def _infinite_unless_zero(p: Fraction) -> LogSum:
    return LogSum.infinity() if p else LogSum.rational(Fraction(0))


def _ones(pi: PolicyTable) -> PolicyTable:
    one = Fraction(1) if pi[0].dtype == object else 1.0
    return tuple(np.full(actions.shape, one) for actions in pi)


def _number(value: Any) -> Nats:
    return value if isinstance(value, LogSum) else float(value)


def _rational(value: Any) -> Fraction | float:
    if isinstance(value, LogSum):  # the exact chi-squared, which may be infinite
        return math.inf if value.is_infinite else value.rational_part
    return value if isinstance(value, Fraction) else float(value)


def _checked(*tables: Any) -> Any:
    """The tables, of one tree and one kind of number, their rows checked."""
    for name, check, table in zip(
        ("pi", "beta", "nu"),
        (check_policy, check_policy, check_environment),
        tables,
        strict=False,
    ):
        check(table, name=name)
    check_same_tree(*tables)
    for name, table in zip(("pi", "beta", "nu"), tables, strict=False):
        for level in table:
            check_distributions(level, name=name)
    infer_n_observations(tables[0])
    return in_common_arithmetic(*tables)
