"""Description length: the shortest program that means the same, found by trying them all.

Two events, policies or utilities are the same here if they agree on every history of up to a
given number of steps. Programs are tried from short to long, and the given one ends the search at
its own length, so that the answer always exists: `K(x) <= len(x)`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from theory.process import HistoryTree
from toy_world.programs.classes import condition_bits, policy_rows
from toy_world.programs.columns import ColumnLayout, QueryPoint
from toy_world.programs.language import Language, Program
from toy_world.programs.semantics import utility_on_tree


def shortest_program(language: Language, program: Program, *, n_steps: int) -> Program:
    """The shortest program that agrees with `program` on all histories of few steps.

    Args:
        language: whose programs are tried.
        program: a predicate, event, policy or utility.
        n_steps: how many steps the histories have at most, at least 0 (at least 1 for
            utilities, which are compared on histories of 1 to `n_steps` steps).

    Returns:
        Of several equally short programs the first in the order of `Code.of_length`.
    """
    code = language.code_of(program)
    meaning = _meaning(language, n_steps)[code]
    wanted = meaning(program)
    candidates = code.up_to(code.length(program))
    found: Program = next(other for _, other in candidates if meaning(other) == wanted)
    return found


def description_length(language: Language, program: Program, *, n_steps: int) -> int:
    """`K(program)` in bits: the length of `shortest_program`."""
    return language.length(shortest_program(language, program, n_steps=n_steps))


def _meaning(language: Language, n_steps: int) -> dict[Any, Callable[[Any], bytes]]:
    """For each type, what a program of it means, in a form that can be compared."""
    n_actions, n_observations = language.n_actions, language.n_observations
    layout = ColumnLayout(
        [],
        [],
        [QueryPoint(n_steps=0)],
        n_actions=n_actions,
        n_observations=n_observations,
        horizon=n_steps + 1,
    )
    trees = [
        HistoryTree(n_actions=n_actions, n_observations=n_observations, horizon=length)
        for length in range(1, n_steps + 1)
    ]

    def of_condition(condition: Any) -> bytes:
        return condition_bits(condition, layout).tobytes()

    def of_policy(policy: Any) -> bytes:
        rows = sorted((v, row) for v, row in policy_rows(policy, layout).items() if row.any())
        return b"".join(np.float64(v).tobytes() + row.tobytes() for v, row in rows)

    def of_utility(utility: Any) -> bytes:
        return repr([utility_on_tree(utility, tree).tolist() for tree in trees]).encode()

    return {
        language.predicates: of_condition,
        language.events: of_condition,
        language.policies: of_policy,
        language.utilities: of_utility,
    }
