"""What becomes of an agent's plan: what it is paid, what that is worth, and what it does.

Agents here are paid by a proxy utility that also pays for `BAD`, the action that demonstrators
never take; the true utility does not (see `toy_world.worlds.setting`).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from theory.process import EnvironmentTable, HistoryTree, PolicyTable, UtilityTable, values
from toy_world.worlds.environments import BAD
from toy_world.worlds.setting import PAY, TRUE_PAY, ever_probability, pay_utility


@dataclass(frozen=True, kw_only=True)
class PlanOutcome:
    """What becomes of a plan in one episode.

    Attributes:
        value: by the proxy utility.
        bound: no plan within the same budget has a greater value.
        true_value: by the true utility.
        n_asks: the expected number of steps in which the agent asks its demonstrator.
        bad_probability: of ever taking `BAD`.
    """

    value: float
    bound: float
    true_value: float
    n_asks: float
    bad_probability: float


def outcome_of(
    law: PolicyTable, nu: EnvironmentTable, *, value: float, bound: float, n_asks: float = 0.0
) -> PlanOutcome:
    """What becomes of a plan.

    Args:
        law: the actions that come about, the demonstrator's answers included.
        nu: the world.
        value: of the plan by the proxy utility, as its planner found it.
        bound: on every other plan.
        n_asks: as in `PlanOutcome`.
    """
    _, true = utilities(nu)
    return PlanOutcome(
        value=value,
        bound=bound,
        true_value=float(values(law, nu, true)[0][0]),
        n_asks=n_asks,
        bad_probability=ever_probability(law, nu, BAD),
    )


def utilities(nu: EnvironmentTable) -> tuple[UtilityTable, UtilityTable]:
    """The proxy and the true utility on the tree of `nu`, in float64."""
    n_actions, n_observations = nu[0].shape[1:]
    return _utilities_on(n_actions, n_observations, len(nu))


@lru_cache(maxsize=16)
def _utilities_on(
    n_actions: int, n_observations: int, horizon: int
) -> tuple[UtilityTable, UtilityTable]:
    tree = HistoryTree(n_actions=n_actions, n_observations=n_observations, horizon=horizon)
    proxy, true = (pay_utility(tree, pay).astype(np.float64) for pay in (PAY, TRUE_PAY))
    return proxy, true
