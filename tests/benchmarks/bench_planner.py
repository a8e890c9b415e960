"""Planners against the generic convex solver (cvxpy with Clarabel) on the same problems.

Times are processor times, the best of several runs, since other work may share the machine. The
solver's are given twice: Clarabel alone, given the conic program, and the whole with the model's
construction and translation, which is what a user waits for.
"""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.toy_world.convex_programs import Solution, solve_kl_program
from tests.toy_world.planning_problems import random_problem
from toy_world.planners.adaptive_kl import adaptive_kl_optimum
from toy_world.planners.expected_kl import expected_kl_optimum
from toy_world.planners.fixed_kl import fixed_kl_optimum
from toy_world.planners.problem import Reading

BUDGETS_NATS = (0.05,)
HORIZONS = (6, 7)
PLANNERS = {
    Reading.EXPECTED: expected_kl_optimum,
    Reading.FIXED: fixed_kl_optimum,
    Reading.ADAPTIVE: adaptive_kl_optimum,
}
REPEATS = 15
SOLVER_REPEATS = 2
SEED = 0


def best_time(call: Callable[[], object], repeats: int) -> float:
    """The least processor time of `repeats` calls, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def compare(reading: Reading, *, horizon: int, budget_nats: float) -> tuple[str, ...]:
    """A row of the table, on a random problem of two actions and two observations."""
    problem = random_problem(np.random.default_rng(SEED), horizon=horizon)
    planner = partial(PLANNERS[reading], *problem, budget_nats=budget_nats)
    ours = best_time(planner, REPEATS)
    plan = planner()
    solutions: list[Solution] = []

    def solve() -> None:
        solutions.append(
            solve_kl_program(*problem, budget_nats=budget_nats, reading=reading, tolerance=1e-8)
        )

    total = best_time(solve, SOLVER_REPEATS)
    alone = min(solution.solver_seconds for solution in solutions)
    return (
        reading.value,
        str(horizon),
        f"{budget_nats:g}",
        f"{1e3 * ours:.2f}",
        f"{1e3 * alone:.0f}",
        f"{1e3 * total:.0f}",
        f"{alone / ours:.0f}",
        f"{total / ours:.0f}",
        f"{plan.gap:.1e}",
        f"{plan.value - solutions[0].value:+.1e}",
        solutions[0].status,
    )


def main() -> None:
    """Print times, their ratios, and how far the two values are apart."""
    table = Table(title=f"planners against Clarabel at its default tolerance 1e-8, seed {SEED}")
    for header in (
        "reading",
        "horizon",
        "budget (nats)",
        "planner (ms)",
        "Clarabel alone (ms)",
        "cvxpy in all (ms)",
        "ratio, alone",
        "ratio, in all",
        "gap",
        "difference",
        "Clarabel says",
    ):
        table.add_column(header, justify="right")
    for horizon in HORIZONS:
        for reading in PLANNERS:
            for budget in BUDGETS_NATS:
                table.add_row(*compare(reading, horizon=horizon, budget_nats=budget))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
