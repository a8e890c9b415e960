r"""Optimal planning under a total-variation budget, in all three readings: linear programs.

In *sequence form* a policy is the probability `x(ha) = prod pi` of the actions in `ha` given its
observations: `sum_a x(ha) = x(h)` and `x(root) = 1`. Value is linear in x. So is every reading of
`TVD <= c` (`theory.constraints`) with a variable `z >= |x - b|` for each last action, b being
beta's sequence form:

- fixed observations: `sum of z over the action sequences of o <= 2c` for each o;
- adaptive: `r(ha) >= sum_a' r(hao a')` for each o, with z for the last actions' r, and
  `sum_a r(a) <= 2c`;
- expected: `sum W(h) z <= 2c`, W(h) the probability under nu of h's observations.

Tables and a budget of `Fraction`s give an exact plan: optimal in rational arithmetic, and checked
to be (`toy_world.planners.linear_program`).
"""

from fractions import Fraction
from typing import Any

import numpy as np

from theory.arguments import as_member
from theory.constraints import adaptive_tvd, expected_tvd, fixed_tvd
from theory.process import (
    EnvironmentTable,
    PolicyTable,
    Probability,
    UtilityTable,
    action_law,
    in_common_arithmetic,
    observation_laws,
    values,
)
from toy_world.planners.certificate import Plan
from toy_world.planners.linear_program import (
    LinearProgram,
    LinearRows,
    LinearSolution,
    solve_linear_program,
)
from toy_world.planners.problem import (
    Divergence,
    Reading,
    check_budget,
    check_tables,
    observation_prefixes,
)


def tvd_optimum(
    beta: PolicyTable,
    nu: EnvironmentTable,
    utility: UtilityTable,
    *,
    budget: Probability,
    reading: Reading,
) -> Plan[Probability]:
    """The best policy whose TVD to `beta` is at most `budget`.

    Args:
        beta: base policy; where it misses mass, a full pi is some way off.
        nu: environment, of value and, in the expected reading, of the TVD.
        utility: `U_m` in [0, 1].
        budget: c >= 0.
        reading: of the TVD.

    Raises:
        InvalidBudgetError: negative or NaN, or too small for the mass that beta misses.
        SolverError: the solver failed (see `solve_linear_program`).
        InvalidShapeError, InvalidDistributionError, InvalidArgumentError: as
            `planning_problem` says.
    """
    reading = as_member(Reading, reading, name="reading")
    check_budget(budget, name="budget")
    check_tables(beta, nu, utility)
    budget_table = np.array([budget], dtype=object if isinstance(budget, (int, Fraction)) else None)
    beta, nu, utility, budget_table = in_common_arithmetic(beta, nu, utility, budget_table)
    if budget_table.dtype == object:
        budget_table[0] = Fraction(budget)
    solution = solve_linear_program(
        tvd_program(beta, nu, utility, budget=budget_table[0], reading=reading)
    )
    pi = policy_of(solution, beta)
    match reading:
        case Reading.EXPECTED:
            attained = expected_tvd(pi, beta, nu)
        case Reading.FIXED:
            attained = fixed_tvd(pi, beta)
        case Reading.ADAPTIVE:
            attained = adaptive_tvd(pi, beta)
    n_limits = _n_budget_rows(nu, reading)
    return Plan(
        pi=pi,
        value=values(pi, nu, utility)[0][0],
        bound=solution.bound,
        divergence=Divergence.TVD,
        reading=reading,
        budget=budget_table[0],
        attained=attained,
        multiplier=2 * solution.at_most_multipliers[-n_limits:].sum(),
    )


def tvd_program(
    beta: PolicyTable,
    nu: EnvironmentTable,
    utility: UtilityTable,
    *,
    budget: Any,
    reading: Reading,
) -> LinearProgram:
    """The linear program: variables x of every step in table order, then z, then r.

    Args:
        beta: float64 or `Fraction`s, as all others.
        nu: the environment.
        utility: `U_m`.
        budget: c.
        reading: of the TVD.

    Returns:
        The rows that hold the budget are the last of `at_most`.
    """
    n_actions, n_observations = nu[0].shape[1:]
    horizon = len(beta)
    one = Fraction(1) if utility.dtype == object else 1.0
    sizes = [level.size for level in beta]
    starts = np.cumsum([0, *sizes])
    n_leaves, first_z = sizes[-1], starts[-1]
    world = observation_laws(nu)[horizon - 1]

    flow = _Triplets(one)
    for t, size in enumerate(sizes):
        history = flow.new_rows([one if t == 0 else 0 * one] * (size // n_actions))
        flow.add(np.repeat(history, n_actions), starts[t] + np.arange(size), one)
        if t > 0:
            before = starts[t - 1] + np.arange(sizes[t - 1])
            flow.add(history, np.repeat(before, n_observations), -one)

    limits = _Triplets(one)
    leaves, z = starts[-2] + np.arange(n_leaves), first_z + np.arange(n_leaves)
    base = action_law(beta, n_observations=n_observations)
    for sign in (one, -one):
        row = limits.new_rows(sign * base)
        limits.add(row, leaves, sign)
        limits.add(row, z, -one)
    n_variables = first_z + n_leaves
    match reading:
        case Reading.EXPECTED:
            row = limits.new_rows([2 * budget])
            limits.add(np.repeat(row, n_leaves), z, np.repeat(world, n_actions))
        case Reading.FIXED:
            row = limits.new_rows([2 * budget] * n_observations ** (horizon - 1))
            prefixes = observation_prefixes(
                n_actions=n_actions, n_observations=n_observations, horizon=horizon
            )
            limits.add(row[np.repeat(prefixes[-1], n_actions)], z, one)
        case Reading.ADAPTIVE:
            later = z
            for size in reversed(sizes[:-1]):
                row = limits.new_rows([0 * one] * (size * n_observations))
                limits.add(np.repeat(row, n_actions), later, one)
                later = n_variables + np.arange(size)
                limits.add(row, np.repeat(later, n_observations), -one)
                n_variables += size
            row = limits.new_rows([2 * budget])
            limits.add(np.repeat(row, n_actions), later, one)

    objective = np.full(n_variables, 0 * one)
    earned = (nu[-1] * utility.reshape(nu[-1].shape)).sum(axis=-1)
    objective[leaves] = (world[:, None] * earned).reshape(-1)
    # A flow is at most 1, a sum of distances at most 2.
    return LinearProgram(
        objective=objective, at_most=limits.rows(), equal=flow.rows(), greatest_value=2.0
    )


def policy_of(solution: LinearSolution, beta: PolicyTable) -> PolicyTable:
    """The policy with the sequence form `solution.x`; beta where that never comes."""
    pi = []
    start = 0
    for level in beta:
        flow = solution.x[start : start + level.size].reshape(level.shape)
        start += level.size
        reach = flow.sum(axis=-1, keepdims=True)
        reached = reach > 0
        pi.append(np.where(reached, flow / np.where(reached, reach, 1 + 0 * reach), level))
    return tuple(pi)


class _Triplets:
    """Rows of a linear program while they are being collected."""

    def __init__(self, one: Any) -> None:
        self._one = one
        self._parts: list[tuple[Any, Any, Any]] = []
        self._right: list[Any] = []

    def new_rows(self, right: Any) -> Any:
        """The indices of new rows with these right-hand sides."""
        first = len(self._right)
        self._right.extend(right)
        return np.arange(first, len(self._right))

    def add(self, row: Any, column: Any, coefficient: Any) -> None:
        """Entries, `coefficient` one number or one for each."""
        self._parts.append((row, column, np.broadcast_to(coefficient, len(row))))

    def rows(self) -> LinearRows:
        """All that was collected."""
        row, column, coefficient = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        return LinearRows(
            row=row,
            column=column,
            coefficient=coefficient,
            right=np.array(self._right, dtype=object if isinstance(self._one, Fraction) else None),
        )


def _n_budget_rows(nu: EnvironmentTable, reading: Reading) -> int:
    return nu[0].shape[2] ** (len(nu) - 1) if reading is Reading.FIXED else 1
