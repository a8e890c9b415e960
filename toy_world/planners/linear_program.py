r"""Linear programs with a certificate: in float64, or proved optimal in exact arithmetic.

    maximise c x    subject to    A x <= b,   E x = e,   x >= 0.

Multipliers `y >= 0` and `w` with `A' y + E' w >= c` prove `c x <= b y + e w` for every feasible x
(weak duality): the *bound*. HiGHS proposes x, y and w in float64. There, what a multiplier misses
of a column's inequality is paid for by the greatest value that the column's variable can have, so
that the bound stays one, but for rounding.

With rational data nothing is left to trust: the float solution only says which variables
and multipliers are positive and which inequalities are tight. The equations that this implies are
solved in rationals, and feasibility of x, feasibility of (y, w) and `c x = b y + e w` are
checked in rationals. What is returned is optimal; what fails the check raises.
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


def solve_linear_program(
    program: LinearProgram, *, guide: LinearProgram | None = None
) -> LinearSolution:
    """The optimum of `program`: with a float certificate, or exact if its data are rational.

    Args:
        program: what is solved.
        guide: for a rational program with right-hand sides too small for float64, a program that
            differs in nothing but larger ones: its vertex says which variables and multipliers
            are positive. The checks are those of `program`, so that a wrong guess raises.

    Raises:
        InvalidBudgetError: no point is feasible.
        SolverError: HiGHS did not end, or its vertex is not optimal in exact arithmetic.
    """
    n = len(program.objective)
    exact = program.objective.dtype == object
    floats = program if guide is None else guide
    # Only without presolve are the multipliers sure to be those of one basis. In floats it may end
    # without an answer where the plain simplex method does not.
    for presolve in (False,) if exact else (True, False):
        found = linprog(
            -floats.objective.astype(np.float64),
            A_ub=floats.at_most.sparse(n),
            b_ub=floats.at_most.right.astype(np.float64),
            A_eq=floats.equal.sparse(n),
            b_eq=floats.equal.right.astype(np.float64),
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
        raise InvalidBudgetError(
            "no policy meets the constraint: beta misses too much mass for the budget; raise it"
        )
    if not found.success:
        raise SolverError(f"HiGHS ended with status {found.status}: {found.message}")
    x = np.maximum(found.x, 0.0)
    y = np.maximum(-found.ineqlin.marginals, 0.0)
    w = -found.eqlin.marginals
    if exact:
        return _exact_solution(program, x, y, w, right=floats.at_most.right)
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
    *,
    right: Table,
) -> LinearSolution:
    """The vertex near x with the multipliers near (y, w), checked to be optimal.

    `right` is the right-hand side of `A x <= b` for which x was found.
    """
    n, at_most, equal = len(program.objective), program.at_most, program.equal
    positive = np.flatnonzero(x > ACTIVE)
    tight = np.flatnonzero(at_most.sparse(n) @ x > right.astype(np.float64) - ACTIVE)
    active = np.flatnonzero(y > ACTIVE)
    prices = at_most.sparse(n).T @ y + equal.sparse(n).T @ w
    priced = np.flatnonzero(prices < program.objective.astype(np.float64) + ACTIVE)

    A, E = _dense(at_most, n), _dense(equal, n)
    left = np.concatenate([A[np.ix_(tight, positive)], E[:, positive]])
    exact_x = np.full(n, Fraction(0))
    exact_x[positive] = _solution(left, np.concatenate([at_most.right[tight], equal.right]))

    columns = np.concatenate([A[np.ix_(active, priced)], E[:, priced]])
    multipliers = _solution(columns.T, program.objective[priced])
    exact_y = np.full(len(at_most.right), Fraction(0))
    exact_y[active] = multipliers[: len(active)]
    exact_w = multipliers[len(active) :]

    value = (program.objective * exact_x).sum()
    bound = (at_most.right * exact_y).sum() + (equal.right * exact_w).sum()
    exact_prices = at_most.transposed_times(exact_y, n) + equal.transposed_times(exact_w, n)
    failures = {
        "x >= 0": (exact_x >= 0).all(),
        "A x <= b": (at_most.times(exact_x) <= at_most.right).all(),
        "E x = e": (equal.times(exact_x) == equal.right).all(),
        "y >= 0": (exact_y >= 0).all(),
        "A' y + E' w >= c": (exact_prices >= program.objective).all(),
        "c x = b y + e w": value == bound,
    }
    failed = [name for name, holds in failures.items() if not holds]
    if failed:
        raise SolverError(
            f"the vertex that HiGHS found fails {', '.join(failed)} in exact arithmetic (value "
            f"{float(value)}, bound {float(bound)}); perturb the data"
        )
    return LinearSolution(
        x=exact_x,
        at_most_multipliers=exact_y,
        equal_multipliers=exact_w,
        value=value,
        bound=bound,
    )


def _dense(rows: LinearRows, n_variables: int) -> Table:
    matrix = np.full((len(rows.right), n_variables), Fraction(0))
    np.add.at(matrix, (rows.row, rows.column), rows.coefficient)
    return matrix


def _solution(left: Table, right: Table) -> Table:
    """A solution of `left x = right` in rationals, free variables 0; wrong where there is none."""
    n_rows, n_columns = left.shape
    augmented = np.concatenate([left, right[:, None]], axis=1)
    entries = [fmpq(entry.numerator, entry.denominator) for entry in augmented.flat]
    reduced, rank = fmpq_mat(n_rows, n_columns + 1, entries).rref()
    solution = np.full(n_columns, Fraction(0))
    for i in range(rank):
        pivot = next(j for j in range(n_columns + 1) if reduced[i, j] != 0)
        if pivot < n_columns:
            entry = reduced[i, n_columns]
            solution[pivot] = Fraction(int(entry.p), int(entry.q))
    return solution
