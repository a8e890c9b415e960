"""Linear programs: exact optima against vertex enumeration, certificates, and failures."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from theory.errors import InvalidBudgetError, SolverError
from toy_world.planners import linear_program
from toy_world.planners.linear_program import (
    LinearProgram,
    LinearRows,
    least_over_optima,
    solve_linear_program,
)

F = Fraction


def rows(matrix, right):
    matrix = np.array(matrix, dtype=object)
    row, column = np.nonzero(matrix != 0)
    return LinearRows(
        row=row, column=column, coefficient=matrix[row, column], right=np.array(right)
    )


def fractions(values):
    return np.array([F(value) for value in values], dtype=object)


@st.composite
def simplex_programs(draw):
    """Maximise c x over the x >= 0 with sum 1 and A x <= b, small integers throughout."""
    n = draw(st.integers(2, 4))
    m = draw(st.integers(1, 3))
    entries = st.integers(-3, 3).map(F)
    c = draw(st.lists(entries, min_size=n, max_size=n))
    A = [draw(st.lists(entries, min_size=n, max_size=n)) for _ in range(m)]
    b = draw(st.lists(st.integers(0, 3).map(F), min_size=m, max_size=m))
    return c, A, b


def program_of(c, A, b):
    return LinearProgram(
        objective=fractions(c),
        at_most=rows([fractions(row) for row in A], fractions(b)),
        equal=rows([[F(1)] * len(c)], fractions([1])),
        greatest_value=1.0,
    )


def solve_square(left, right):
    """Gauss-Jordan in fractions; None if singular."""
    n = len(left)
    table = [[*row, value] for row, value in zip(left, right, strict=True)]
    for i in range(n):
        pivot = next((r for r in range(i, n) if table[r][i] != 0), None)
        if pivot is None:
            return None
        table[i], table[pivot] = table[pivot], table[i]
        table[i] = [value / table[i][i] for value in table[i]]
        for r in range(n):
            if r != i:
                table[r] = [x - table[r][i] * y for x, y in zip(table[r], table[i], strict=True)]
    return [row[-1] for row in table]


def dot(p, q):
    return sum(x * y for x, y in zip(p, q, strict=True))


def vertices(c, A, b):
    """All vertices, by solving every choice of n tight constraints."""
    n = len(c)
    unit = [[F(i == j) for j in range(n)] for i in range(n)]
    inequalities = [*zip(A, b, strict=True), *((([-x for x in row]), F(0)) for row in unit)]
    for chosen in combinations(inequalities, n - 1):
        x = solve_square([[F(1)] * n, *(row for row, _ in chosen)], [F(1), *(v for _, v in chosen)])
        if x is not None and all(dot(row, x) <= value for row, value in inequalities):
            yield x


def best_vertex_value(c, A, b):
    return max((dot(c, x) for x in vertices(c, A, b)), default=None)


@given(case=simplex_programs())
def test_exact_optima_are_those_of_all_vertices(case):
    best = best_vertex_value(*case)
    assume(best is not None)
    solution = solve_linear_program(program_of(*case))
    assert solution.value == solution.bound == best
    assert isinstance(solution.value, Fraction)


@given(case=simplex_programs())
def test_float_optima_meet_their_bound(case):
    best = best_vertex_value(*case)
    assume(best is not None)
    exact = program_of(*case)
    program = LinearProgram(
        objective=exact.objective.astype(float),
        at_most=LinearRows(
            row=exact.at_most.row,
            column=exact.at_most.column,
            coefficient=exact.at_most.coefficient.astype(float),
            right=exact.at_most.right.astype(float),
        ),
        equal=LinearRows(
            row=exact.equal.row,
            column=exact.equal.column,
            coefficient=exact.equal.coefficient.astype(float),
            right=exact.equal.right.astype(float),
        ),
        greatest_value=1.0,
    )
    solution = solve_linear_program(program)
    assert solution.value == pytest.approx(float(best), abs=1e-9)
    assert solution.bound == pytest.approx(float(best), abs=1e-9)


@given(case=simplex_programs(), data=st.data())
def test_the_least_value_over_all_optima_is_that_of_the_best_vertices(case, data):
    c, A, b = case
    best = best_vertex_value(c, A, b)
    assume(best is not None)
    functional = data.draw(st.lists(st.integers(-3, 3).map(F), min_size=len(c), max_size=len(c)))
    least = min(dot(functional, x) for x in vertices(c, A, b) if dot(c, x) == best)
    assert least_over_optima(program_of(c, A, b), fractions(functional)) == least


def test_wrong_multipliers_still_bound_the_value(monkeypatch):
    # Maximise x_0 on the simplex; HiGHS made to price nothing: the bound is c's positive part.
    program = LinearProgram(
        objective=np.array([1.0, 0.25]),
        at_most=rows([[1.0, 1.0]], [2.0]),
        equal=rows([[1.0, 1.0]], [1.0]),
        greatest_value=1.0,
    )
    found = linear_program.linprog

    def careless(*args, **kwargs):
        result = found(*args, **kwargs)
        result.ineqlin.marginals[:] = 0
        result.eqlin.marginals[:] = 0
        return result

    monkeypatch.setattr(linear_program, "linprog", careless)
    assert solve_linear_program(program).bound == 1.25


def with_a_wrong_vertex(monkeypatch):
    """HiGHS made to propose the first corner of the simplex, whatever it found."""
    found = linear_program.linprog

    def wrong(*args, **kwargs):
        result = found(*args, **kwargs)
        if result.success:
            result.x[:] = [1.0, *[0.0] * (len(result.x) - 1)]
        return result

    monkeypatch.setattr(linear_program, "linprog", wrong)


@pytest.mark.parametrize("scale", [F(1), F(1, 10**13), F(10**13)])
@given(case=simplex_programs())
def test_pivots_in_rationals_end_at_the_optimum_wherever_they_begin(scale, case):
    """Utilities too small for HiGHS, too, and inequalities that nearly exclude one another."""
    c, A, b = case
    c = [F(1, 3) + scale * value for value in c]
    b = [value - F(1, 10**14) for value in b]
    best = best_vertex_value(c, A, b)
    with pytest.MonkeyPatch.context() as patch:
        with_a_wrong_vertex(patch)
        if best is None:
            with pytest.raises(InvalidBudgetError, match="no policy meets the constraint"):
                solve_linear_program(program_of(c, A, b))
        else:
            solution = solve_linear_program(program_of(c, A, b))
            assert solution.value == solution.bound == best


def test_equations_that_floats_take_for_solvable_are_refused():
    program = LinearProgram(
        objective=fractions([1, 1]),
        at_most=rows([fractions([1, 1])], fractions([2])),
        equal=rows([fractions([1, 1]), fractions([1, 1])], fractions([1, 1 + F(1, 10**13)])),
        greatest_value=1.0,
    )
    with pytest.raises(InvalidBudgetError, match="no policy meets the constraint"):
        solve_linear_program(program)


def test_a_vertex_that_is_not_optimal_is_found_out(monkeypatch):
    with_a_wrong_vertex(monkeypatch)
    program = program_of([1, 2], [[1, 1]], [1])
    assert solve_linear_program(program).value == 2
    monkeypatch.setattr(linear_program, "_optimal_basis", lambda _, likely: likely)
    with pytest.raises(SolverError, match=r"fails A' y \+ E' w >= c in exact arithmetic"):
        solve_linear_program(program)


def test_an_empty_feasible_set_is_a_budget_too_small():
    with pytest.raises(InvalidBudgetError, match="no policy meets the constraint"):
        solve_linear_program(program_of([1, 1], [[1, 1]], [F(1, 2)]))


def test_a_program_without_an_optimum_is_a_solver_error():
    unbounded = LinearProgram(
        objective=fractions([1, 1]),
        at_most=rows([fractions([1, -1])], fractions([1])),
        equal=rows([fractions([1, -1])], fractions([0])),
        greatest_value=1.0,
    )
    with pytest.raises(SolverError, match="HiGHS ended with status"):
        solve_linear_program(unbounded)


def test_a_value_without_a_limit_that_floats_take_for_none_is_a_solver_error():
    rising = LinearProgram(
        objective=fractions([F(1, 10**13), 0]),
        at_most=rows([fractions([-1, 1])], fractions([1])),
        equal=rows([fractions([0, 1])], fractions([1])),
        greatest_value=1.0,
    )
    with pytest.raises(SolverError, match="its value has no limit"):
        solve_linear_program(rising)
