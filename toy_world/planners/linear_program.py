r"""Linear programs with a certificate: in float64, or proved optimal in exact arithmetic.

    maximise c x    subject to    A x <= b,   E x = e,   x >= 0.

Multipliers `y >= 0` and `w` with `A' y + E' w >= c` prove `c x <= b y + e w` for every feasible x
(weak duality): the *bound*. HiGHS proposes x, y and w in float64. There, what a multiplier misses
of a column's inequality is paid for by the greatest value that the column's variable can have, so
that the bound stays one, but for rounding.

With rational data nothing is left to trust: the float solution only says which variables
and multipliers are positive and which inequalities are tight. The equations that this implies are
solved in rationals, and feasibility of x, feasibility of (y, w) and `c x = b y + e w` are
checked in rationals. Where numbers are too small or too close for floats, the check fails, and
pivots in rationals lead from HiGHS's vertex to an optimal one (`_optimal_basis`). What is
returned is optimal.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

import numpy as np
from flint import fmpq, fmpq_mat
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import csr_array

from theory.errors import InvalidBudgetError, SolverError
from theory.process import Table

ACTIVE: Final = 1e-9
"""Float values of at most this are taken to be zero when an exact solution is sought."""
HIGHS_TOLERANCE: Final = 1e-10
"""The smallest that HiGHS allows."""
HIGHS_INFEASIBLE: Final = 2
_NO_POLICY: Final = (
    "no policy meets the constraint: beta misses too much mass for the budget; raise it"
)


@dataclass(frozen=True, kw_only=True)
class LinearRows:
    """Linear functions of the variables, as triplets, each with its right-hand side.

    Attributes:
        row: which function, shape (n_entries,).
        column: which variable, (n_entries,).
        coefficient: float64 or `Fraction`, (n_entries,).
        right: right-hand sides, (n_rows,).
    """

    row: NDArray[np.intp]
    column: NDArray[np.intp]
    coefficient: Table
    right: Table

    def times(self, x: Table) -> Table:
        """The functions' values at `x`, shape (n_rows,)."""
        values = np.zeros_like(self.right)
        np.add.at(values, self.row, self.coefficient * x[self.column])
        return values

    def transposed_times(self, y: Table, n_variables: int) -> Table:
        """`sum over rows of y row`, shape (n_variables,)."""
        values = np.full(n_variables, self.right.dtype.type(0) if self.is_float else Fraction(0))
        np.add.at(values, self.column, self.coefficient * y[self.row])
        return values

    @property
    def is_float(self) -> bool:
        """Whether the numbers are float64."""
        return self.right.dtype != object

    def sparse(self, n_variables: int) -> Any:
        """The coefficients as a float64 matrix."""
        return csr_array(
            (self.coefficient.astype(np.float64), (self.row, self.column)),
            shape=(len(self.right), n_variables),
        )


@dataclass(frozen=True, kw_only=True)
class LinearProgram:
    """The program of the module's docstring, all in float64 or all in `Fraction`s.

    Attributes:
        objective: c, shape (n_variables,).
        at_most: A and b.
        equal: E and e.
        greatest_value: what no variable exceeds at some optimum.
    """

    objective: Table
    at_most: LinearRows
    equal: LinearRows
    greatest_value: float


@dataclass(frozen=True, kw_only=True)
class LinearSolution:
    """A feasible point with its multipliers.

    Attributes:
        x: shape (n_variables,).
        at_most_multipliers: y, shape (rows of A,).
        equal_multipliers: w, shape (rows of E,).
        value: c x.
        bound: on the value of every feasible point; equal to `value` where exact.
    """

    x: Table
    at_most_multipliers: Table
    equal_multipliers: Table
    value: Any
    bound: Any


def solve_linear_program(program: LinearProgram) -> LinearSolution:
    """The optimum of `program`: with a float certificate, or exact if its data are rational.

    Raises:
        InvalidBudgetError: no point is feasible.
        SolverError: HiGHS did not end, or there is no optimum.
    """
    n = len(program.objective)
    exact = program.objective.dtype == object
    # Only without presolve are the multipliers sure to be those of one basis. In floats it may end
    # without an answer where the plain simplex method does not.
    for presolve in (False,) if exact else (True, False):
        found = linprog(
            -program.objective.astype(np.float64),
            A_ub=program.at_most.sparse(n),
            b_ub=program.at_most.right.astype(np.float64),
            A_eq=program.equal.sparse(n),
            b_eq=program.equal.right.astype(np.float64),
            method="highs-ds",
            options={
                "presolve": presolve,
                "primal_feasibility_tolerance": HIGHS_TOLERANCE,
                "dual_feasibility_tolerance": HIGHS_TOLERANCE,
            },
        )
        if found.success or found.status == HIGHS_INFEASIBLE:
            break
    if found.status == HIGHS_INFEASIBLE:
        raise InvalidBudgetError(_NO_POLICY)
    if not found.success:
        raise SolverError(f"HiGHS ended with status {found.status}: {found.message}")
    x = np.maximum(found.x, 0.0)
    y = np.maximum(-found.ineqlin.marginals, 0.0)
    w = -found.eqlin.marginals
    if exact:
        return _exact_solution(program, x, y, w)
    short = program.objective - (
        program.at_most.transposed_times(y, n) + program.equal.transposed_times(w, n)
    )
    bound = (
        program.at_most.right @ y
        + program.equal.right @ w
        + program.greatest_value * np.maximum(short, 0.0).sum()
    )
    return LinearSolution(
        x=x,
        at_most_multipliers=y,
        equal_multipliers=w,
        value=float(program.objective @ x),
        bound=float(bound),
    )


def least_over_optima(program: LinearProgram, functional: Table) -> Any:
    """The least value of `functional` x over all optimal x: a second program on their face.

    Args:
        program: with rational data.
        functional: shape (n_variables,), rational.

    Raises:
        InvalidBudgetError, SolverError: as `solve_linear_program`.
    """
    optimum = solve_linear_program(program)
    columns = np.flatnonzero(program.objective != 0)
    n_rows = len(program.equal.right)
    on_face = LinearRows(
        row=np.concatenate([program.equal.row, np.full(len(columns), n_rows)]),
        column=np.concatenate([program.equal.column, columns]),
        coefficient=np.concatenate([program.equal.coefficient, program.objective[columns]]),
        right=np.concatenate([program.equal.right, np.array([optimum.value], dtype=object)]),
    )
    face = replace(program, objective=-functional, equal=on_face)
    return -solve_linear_program(face).value


def _exact_solution(
    program: LinearProgram,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    w: NDArray[np.float64],
) -> LinearSolution:
    """The vertex near x with the multipliers near (y, w), if it is optimal, else one that is."""
    n, at_most, equal = len(program.objective), program.at_most, program.equal
    slack = at_most.right.astype(np.float64) - at_most.sparse(n) @ x
    prices = at_most.sparse(n).T @ y + equal.sparse(n).T @ w
    solution, failed = _vertex(
        program,
        positive=np.flatnonzero(x > ACTIVE),
        tight=np.flatnonzero(slack < ACTIVE),
        active=np.flatnonzero(y > ACTIVE),
        priced=np.flatnonzero(prices < program.objective.astype(np.float64) + ACTIVE),
    )
    if failed:
        basic = _optimal_basis(program, np.concatenate([x, slack]) > ACTIVE)
        inside, tight = np.flatnonzero(basic[:n]), np.flatnonzero(~basic[n:])
        solution, failed = _vertex(
            program, positive=inside, tight=tight, active=tight, priced=inside
        )
    if failed:
        raise SolverError(
            f"the vertex that was found fails {', '.join(failed)} in exact arithmetic (value "
            f"{float(solution.value)}, bound {float(solution.bound)}); please report this problem"
        )
    return solution


def _vertex(
    program: LinearProgram,
    *,
    positive: NDArray[np.intp],
    tight: NDArray[np.intp],
    active: NDArray[np.intp],
    priced: NDArray[np.intp],
) -> tuple[LinearSolution, list[str]]:
    """The solution of the equations that a choice implies, and which conditions it fails.

    Args:
        program: with rational data.
        positive: variables that may be positive.
        tight: inequalities that hold with equality.
        active: inequalities whose multiplier may be positive.
        priced: variables whose column's inequality holds with equality.
    """
    n, at_most, equal = len(program.objective), program.at_most, program.equal
    A, E = _dense(at_most, n), _dense(equal, n)
    left = np.concatenate([A[np.ix_(tight, positive)], E[:, positive]])
    x = np.full(n, Fraction(0))
    x[positive] = _solution(left, np.concatenate([at_most.right[tight], equal.right]))

    columns = np.concatenate([A[np.ix_(active, priced)], E[:, priced]])
    multipliers = _solution(columns.T, program.objective[priced])
    y = np.full(len(at_most.right), Fraction(0))
    y[active] = multipliers[: len(active)]
    w = multipliers[len(active) :]

    value = (program.objective * x).sum()
    bound = (at_most.right * y).sum() + (equal.right * w).sum()
    prices = at_most.transposed_times(y, n) + equal.transposed_times(w, n)
    conditions = {
        "x >= 0": (x >= 0).all(),
        "A x <= b": (at_most.times(x) <= at_most.right).all(),
        "E x = e": (equal.times(x) == equal.right).all(),
        "y >= 0": (y >= 0).all(),
        "A' y + E' w >= c": (prices >= program.objective).all(),
        "c x = b y + e w": value == bound,
    }
    solution = LinearSolution(
        x=x, at_most_multipliers=y, equal_multipliers=w, value=value, bound=bound
    )
    return solution, [name for name, holds in conditions.items() if not holds]


def _optimal_basis(program: LinearProgram, likely: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of x and of the slacks `s = b - A x` are basic at an optimum, in rationals.

    Terlaky's criss-cross method: it starts at any basis, neither feasible nor dual feasible, always
    mends the first variable that is negative or would raise the value, and ends.

    Args:
        program: with rational data.
        likely: which variables are likely to be basic; those of the first basis, as far as they
            are independent.

    Raises:
        InvalidBudgetError: no point is feasible.
        SolverError: the value has no limit.
    """
    n, n_slacks = len(program.objective), len(program.at_most.right)
    slacks = np.full((n_slacks, n_slacks), Fraction(0))
    np.fill_diagonal(slacks, Fraction(1))
    none = np.full((len(program.equal.right), n_slacks), Fraction(0))
    left = np.concatenate(
        [
            np.concatenate([_dense(program.at_most, n), slacks], axis=1),
            np.concatenate([_dense(program.equal, n), none], axis=1),
        ]
    )
    right = np.concatenate([program.at_most.right, program.equal.right])
    gains = np.concatenate([program.objective, np.full(n_slacks, Fraction(0))])
    order = np.argsort(~likely, kind="stable")

    table, basis = _reduced(left[:, order], right)
    if n + n_slacks in basis:
        raise InvalidBudgetError(_NO_POLICY)
    rising = [*_rationals(gains[order]), fmpq(0)]
    for row, basic in zip(table, basis, strict=True):
        rising = _less(rising, rising[basic], row)
    while (wrong := _first_wrong(table, basis, rising)) is not None:
        r, entering = wrong
        if r is None:
            rows = [i for i, row in enumerate(table) if row[entering] > 0]
            if not rows:
                raise SolverError("the linear program has no optimum: its value has no limit")
            r = min(rows, key=basis.__getitem__)
        pivot = table[r][entering]
        table[r] = [entry / pivot for entry in table[r]]
        basis[r] = entering
        table = [
            row if i == r else _less(row, row[entering], table[r]) for i, row in enumerate(table)
        ]
        rising = _less(rising, rising[entering], table[r])
    found = np.zeros(n + n_slacks, dtype=bool)
    found[order[basis]] = True
    return found


def _first_wrong(
    table: list[list[Any]], basis: list[int], rising: list[Any]
) -> tuple[int | None, int] | None:
    """Where to pivot for the first variable that is negative or would raise the value.

    Returns:
        Row and entering variable; a row of None where the variable would raise the value, and
        None where there is no such variable.

    Raises:
        InvalidBudgetError: a variable is negative whatever the others are.
    """
    *gains, _ = rising
    negative = {basic: r for r, basic in enumerate(basis) if table[r][-1] < 0}
    wrong = [*negative, *(j for j, gain in enumerate(gains) if gain > 0)]
    if not wrong:
        return None
    first = min(wrong)
    if first not in negative:
        return None, first
    r = negative[first]
    entering = next((j for j, entry in enumerate(table[r][:-1]) if entry < 0), None)
    if entering is None:
        raise InvalidBudgetError(_NO_POLICY)
    return r, entering


def _less(row: list[Any], times: Any, other: list[Any]) -> list[Any]:
    """`row - times other`."""
    return [a - times * b for a, b in zip(row, other, strict=True)] if times != 0 else row


def _dense(rows: LinearRows, n_variables: int) -> Table:
    matrix = np.full((len(rows.right), n_variables), Fraction(0))
    np.add.at(matrix, (rows.row, rows.column), rows.coefficient)
    return matrix


def _rationals(values: Table) -> list[Any]:
    """As python-flint's rationals, which are faster."""
    return [fmpq(value.numerator, value.denominator) for value in values.flat]


def _reduced(left: Table, right: Table) -> tuple[list[list[Any]], list[int]]:
    """The equations `left x = right` solved for as many variables, and for which in each row."""
    n_rows, n_columns = left.shape
    augmented = np.concatenate([left, right[:, None]], axis=1)
    reduced, rank = fmpq_mat(n_rows, n_columns + 1, _rationals(augmented)).rref()
    table = [[reduced[i, j] for j in range(n_columns + 1)] for i in range(rank)]
    return table, [next(j for j, entry in enumerate(row) if entry != 0) for row in table]


def _solution(left: Table, right: Table) -> Table:
    """A solution of `left x = right` in rationals, free variables 0; wrong where there is none."""
    n_columns = left.shape[1]
    solution = np.full(n_columns, Fraction(0))
    for row, pivot in zip(*_reduced(left, right), strict=True):
        if pivot < n_columns:
            solution[pivot] = Fraction(int(row[-1].p), int(row[-1].q))
    return solution
