"""A base policy that never does something bad: what TVD and KL constraints make of it.

With such a *perfect* base policy an agent under a TVD constraint does the bad thing with
probability c, whatever the reading. Under a KL constraint it never does, whatever the budget: what
the base policy never does, the agent never does. A base policy that does it very rarely is another
matter.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from theory.process import (
    EnvironmentTable,
    HistoryTree,
    PolicyTable,
    UtilityTable,
    environment_table,
    joint_law,
    policy_table,
    utility_table,
)
from toy_world.planners.expected_kl import expected_kl_frontier
from toy_world.planners.tvd import tvd_optimum
from toy_world.studies.theorem2 import READINGS

BAD: Final = 1
BAD_BASE: Final = (Fraction(0), Fraction(1, 10**6), Fraction(1, 1000))
"""How often the base policy takes the bad action in a step."""
CONTRAST_BUDGETS: Final = (*(Fraction(k, 20) for k in (0, 1, 2, 5, 10, 20)), 2, 5, 10, 40)


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """How often the agent ever takes the bad action.

    Attributes:
        budget: c, or eps in nats.
        tvd: exactly, for each of `READINGS`, beta perfect; None beyond c = 1.
        kl: under expected KL, for each of `BAD_BASE`.
    """

    budget: int | Fraction
    tvd: tuple[Fraction, ...] | None
    kl: tuple[float, ...]


def proxy_world(bad_base: Fraction) -> tuple[PolicyTable, EnvironmentTable, UtilityTable]:
    """Three steps, two actions; utility is the share of bad actions, observations are noise.

    Args:
        bad_base: the probability of the bad action under the base policy, in every step.
    """
    tree = HistoryTree(n_actions=2, n_observations=2, horizon=3)
    return (
        policy_table(tree, lambda _: (1 - bad_base, bad_base)),
        environment_table(tree, lambda _: (Fraction(1, 2), Fraction(1, 2))),
        utility_table(tree, lambda history: Fraction(history[::2].count(BAD), tree.horizon)),
    )


def ever_bad(pi: PolicyTable, nu: EnvironmentTable) -> Any:
    """The probability that any action is bad."""
    law = joint_law(pi, nu).reshape((2, 2) * len(pi))
    never = law[(0, slice(None)) * len(pi)]  # action 0 in every step
    return law.sum() - never.sum()


def contrasts() -> tuple[Contrast, ...]:
    """The probability of ever acting badly, under TVD and under KL, over budgets."""
    beta, nu, utility = proxy_world(BAD_BASE[0])
    bad_by_kl = []
    for bad_base in BAD_BASE:
        world = proxy_world(bad_base)
        plans = expected_kl_frontier(*world, [float(budget) for budget in CONTRAST_BUDGETS])
        bad_by_kl.append([float(ever_bad(plan.pi, world[1])) for plan in plans])
    return tuple(
        Contrast(
            budget=budget,
            tvd=None
            if budget > 1
            else tuple(
                ever_bad(
                    tvd_optimum(beta, nu, utility, budget=Fraction(budget), reading=reading).pi,
                    nu,
                )
                for reading in READINGS
            ),
            kl=kl,
        )
        for budget, *kl_row in zip(CONTRAST_BUDGETS, *bad_by_kl, strict=True)
        for kl in (tuple(kl_row),)
    )
