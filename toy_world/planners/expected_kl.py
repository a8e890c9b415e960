r"""The optimal planner under an expected-KL budget, and its frontier V*(budget).

Nature is the only adversary of the expected reading (`toy_world.planners.problem`), so the price of
a nat at h is `y(h) = lambda W(h)`. Divided by W, the recursion for the soft policy is soft value
iteration at one temperature: `pi ∝ beta exp(Q / lambda)`, Q the value of what follows less lambda
times its expected KL. Which lambda attains the budget: `toy_world.planners.lagrangian`.

Special cases. `eps = 0` is beta itself. The constraint is slack from the KL of the *minimum-KL
optimal policy* on: among the optimal actions, `pi ∝ beta exp(-expected future KL)`. (Ties broken
in proportion to beta are not the limit lambda -> 0.) Below the *least KL* of any policy,
`-ln sum_a beta exp(-future KL)` by the same recursion, which is positive for a semi-distribution
beta, there is no policy and hence an error. (V* rises like a square root above the least KL, so
next to it the rounding of the budget itself, 1e-16, is worth 1e-8 in value.)

With a joint predictor xi as base policy and environment, `nu` is its posterior's own environment
table.
"""

import math
from collections.abc import Sequence

import numpy as np

from theory.constraints import expected_kl_nats
from theory.process import EnvironmentTable, PolicyTable, UtilityTable, observation_laws, values
from toy_world.planners.certificate import PricedPlan
from toy_world.planners.lagrangian import Relaxed, attain_budget
from toy_world.planners.problem import (
    Divergence,
    Floats,
    Levels,
    PlanningProblem,
    Reading,
    check_budget,
    kl_of_log_ratio,
    last_axis_sums,
    least_kl_policy,
    means_over_observations,
    mix_policies,
    optimal_actions,
    planning_problem,
    soft_maximum,
)


def expected_kl_optimum(
    beta: PolicyTable, nu: EnvironmentTable, utility: UtilityTable, *, budget_nats: float
) -> PricedPlan:
    """The best policy whose expected KL to `beta` in `nu` is at most `budget_nats`.

    Where the constraint binds, the attained KL is `budget_nats` to 1e-12 nats (relative, below
    1 nat, as far as a float64 table of pi can express it) and the gap is below 1e-12, or 1e-14
    nats at the multiplier where that is more (tiny budgets, semi-distributions).

    Args:
        beta: base policy; may be a semi-distribution.
        nu: environment, for value and KL alike; may be a semi-distribution.
        utility: `U_m` in [0, 1].
        budget_nats: eps >= 0; `math.inf` leaves only beta's support as a constraint.

    Raises:
        InvalidBudgetError: negative or NaN, or below the least KL to a semi-distribution.
        InvalidShapeError, InvalidDistributionError, InvalidArgumentError: as
            `planning_problem` says.
    """
    return expected_kl_frontier(beta, nu, utility, (budget_nats,))[0]


def expected_kl_frontier(
    beta: PolicyTable, nu: EnvironmentTable, utility: UtilityTable, budgets: Sequence[float]
) -> tuple[PricedPlan, ...]:
    """`expected_kl_optimum` for each of `budgets`: the frontier V*(eps) with its policies."""
    for budget in budgets:
        check_budget(budget)
    problem = planning_problem(beta, nu, utility, reading=Reading.EXPECTED)
    world = observation_laws(problem.nu)[:-1]
    allowed, greatest = optimal_actions(problem)
    least = _extreme(problem, problem.barred, multiplier=math.inf, soft_value=math.nan)
    greedy = _extreme(problem, allowed, multiplier=0.0, soft_value=greatest)

    def mixed(first: PolicyTable, second: PolicyTable, share: float) -> PolicyTable:
        return mix_policies(first, second, share, n_observations=problem.n_observations)

    plans = []
    for budget in budgets:
        found = attain_budget(
            relaxed=lambda multiplier: _soft_value_iteration(problem, multiplier),
            mixed=mixed,
            kl_nats=lambda pi: float(expected_kl_nats(pi, beta, nu)),
            least=least,
            greedy=greedy,
            budget_nats=budget,
            greatest_utility=problem.greatest_utility,
        )
        value = float(values(found.policy, problem.nu, problem.utility)[0][0])
        multiplier, bound = found.certificate(value=value, budget_nats=budget)
        plans.append(
            PricedPlan(
                pi=found.policy,
                value=value,
                bound=bound,
                divergence=Divergence.KL,
                reading=Reading.EXPECTED,
                budget=budget,
                attained=found.kl_nats,
                multiplier=multiplier,
                prices=_scaled(world, multiplier),
            )
        )
    return tuple(plans)


def _soft_value_iteration(problem: PlanningProblem, multiplier: float) -> Relaxed[PolicyTable]:
    V, kl = problem.utility, np.zeros_like(problem.utility)
    pi: list[Floats] = []
    for t in range(len(problem.beta) - 1, -1, -1):
        gains = means_over_observations(problem.nu[t], V)
        beta, missing = problem.beta[t], problem.missing[t]
        V, actions, log_ratio = soft_maximum(beta, problem.barred[t], missing, gains, multiplier)
        later = last_axis_sums(actions * means_over_observations(problem.nu[t], kl))
        kl = kl_of_log_ratio(beta, missing, actions, log_ratio) + later
        pi.append(actions)
    return Relaxed(
        policy=tuple(reversed(pi)),
        kl_nats=float(kl[0]),
        multiplier=multiplier,
        soft_value=float(V[0]),
    )


def _extreme(
    problem: PlanningProblem, allowed: Levels, *, multiplier: float, soft_value: float
) -> Relaxed[PolicyTable]:
    policy, kl = least_kl_policy(problem, allowed=allowed, reading=Reading.EXPECTED)
    return Relaxed(policy=policy, kl_nats=kl, multiplier=multiplier, soft_value=soft_value)


def _scaled(levels: Levels, multiplier: float) -> Levels:
    """`multiplier` times each level, with `inf * 0 = 0`."""
    return tuple(
        np.where(level > 0, multiplier * np.where(level > 0, level, 1.0), 0.0) for level in levels
    )
