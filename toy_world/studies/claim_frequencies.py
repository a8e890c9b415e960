"""How often the optimum of a random problem violates a claim of Theorem 2.

The claims are those of `toy_world.studies.theorem2`. Where one is proved no violation may occur;
where it has a counterexample the frequency says how special that is.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from mightnt.progress import track
from mightnt.statistics import Interval, share_interval
from theory.process import HistoryTree
from toy_world.planners.problem import Reading
from toy_world.studies.theorem2 import READINGS, Claim, random_problem, violations

SHAPES: Final = ((1, 3, 2), (2, 2, 1), (2, 2, 2), (2, 3, 1), (2, 3, 2), (3, 2, 1), (3, 2, 2))
"""(steps, actions, observations) of the random problems."""
RANDOM_BUDGETS: Final = (0.05, 0.1, 0.2, 0.3)
VIOLATION_TOLERANCE: Final = 1e-7
"""What counts as more probability, or as less value, in float64."""


@dataclass(frozen=True, kw_only=True)
class Frequency:
    """How many random problems violated a claim.

    Attributes:
        shape: (steps, actions, observations).
        reading: of the constraint.
        claim: which.
        violated: the number of problems whose optimum violates it.
        problems: of so many.
    """

    shape: tuple[int, int, int]
    reading: Reading
    claim: Claim
    violated: int
    problems: int

    @property
    def interval(self) -> Interval:
        """The exact (Clopper-Pearson) interval of the probability."""
        return share_interval(self.violated, self.problems)


def claim_frequencies(*, n_problems: int, rng: np.random.Generator) -> tuple[Frequency, ...]:
    """Violations of every claim in every reading, over `n_problems` problems of each shape."""
    return tuple(
        frequency
        for shape in track(SHAPES, "random problems")
        for frequency in frequencies(shape, problems=n_problems, rng=rng)
    )


def frequencies(
    shape: tuple[int, int, int], *, problems: int, rng: np.random.Generator
) -> list[Frequency]:
    """Violations of every claim in every reading, over random problems of one shape."""
    horizon, n_actions, n_observations = shape
    tree = HistoryTree(n_actions=n_actions, n_observations=n_observations, horizon=horizon)
    violated = {(reading, claim): 0 for reading in READINGS for claim in Claim}
    for _ in range(problems):
        problem = random_problem(tree, budget=float(rng.choice(RANDOM_BUDGETS)), rng=rng)
        for reading in READINGS:
            pi = problem.plan(reading).pi
            for claim in Claim:
                found = violations(problem, pi, claim, tolerance=VIOLATION_TOLERANCE)
                violated[reading, claim] += bool(found)
    return [
        Frequency(shape=shape, reading=reading, claim=claim, violated=count, problems=problems)
        for (reading, claim), count in violated.items()
    ]
