"""The finite classes over which exhaustive checks run: every distribution on a grid, and so on."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np

from theory.process import EnvironmentTable, PolicyTable, as_table

Row = tuple[Fraction, ...]


def distributions(n_outcomes: int, denominator: int) -> list[Row]:
    """Every distribution over `n_outcomes` whose probabilities are multiples of 1/denominator."""
    return [
        tuple(Fraction(count, denominator) for count in counts)
        for counts in product(range(denominator + 1), repeat=n_outcomes)
        if sum(counts) == denominator
    ]


def two_step_policies(rows: Sequence[Row], *, n_observations: int = 2) -> Iterator[PolicyTable]:
    """Every policy of two steps that draws each conditional from `rows`."""
    n_actions = len(rows[0])
    for conditionals in product(rows, repeat=1 + n_actions * n_observations):
        yield policy_of_two_steps(conditionals)


def policy_of_two_steps(conditionals: Sequence[Row]) -> PolicyTable:
    """The first row for the root, the others for the histories of one step."""
    return as_table([conditionals[0]]), as_table(list(conditionals[1:]))


def two_step_environments(rows: Sequence[Row], *, n_actions: int = 2) -> Iterator[EnvironmentTable]:
    """Every environment that draws its first observations from `rows`, and its last is 0."""
    n_observations = len(rows[0])
    last = (Fraction(1),) + (Fraction(0),) * (n_observations - 1)
    final = as_table([[last] * n_actions] * (n_actions * n_observations))
    for conditionals in product(rows, repeat=n_actions):
        yield as_table([list(conditionals)]), final


def show_policy(table: PolicyTable) -> str:
    """A table in one line, a row in brackets for each history."""
    return " / ".join(" ".join(_row(row) for row in level) for level in table)


def show_tables(**tables: Any) -> str:
    """Named tables in one line."""
    return "; ".join(
        f"{name} = {show_policy(tuple(level.reshape(-1, level.shape[-1]) for level in table))}"
        for name, table in tables.items()
    )


def _row(row: np.ndarray[Any, Any]) -> str:
    return "(" + ", ".join(map(str, row)) + ")"
