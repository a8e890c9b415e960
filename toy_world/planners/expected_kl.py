r"""The optimal planner under an expected-KL budget, and its frontier V*(budget).

Nature is the only adversary of the expected reading (planning.py), so the price of a nat at h is
`y(h) = lambda W(h)`. Divided by W, the recursion for the soft policy is soft value iteration at
one temperature: `pi ∝ beta exp(Q / lambda)`, Q the value of what follows less lambda times its
expected KL. The attained KL falls as lambda grows, and Brent's method finds, on ln lambda, where
it meets the budget. Where two neighbouring temperatures attain different KL (because of an
indifference, or of float rounding at tiny temperatures) the optimum follows, from start to end,
one of their two policies drawn at random: the KL of that mixture is convex and continuous in the
share, so that some share spends the budget exactly, and it loses nothing, since both policies
have the same Lagrangian.

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import numpy as np
from scipy.optimize import brentq

from theory.constraints import expected_kl_nats
from theory.errors import InvalidBudgetError
from theory.process import EnvironmentTable, PolicyTable, UtilityTable, values
from toy_world.planners.problem import (
    KlPlan,
    Levels,
    PlanningProblem,
    Reading,
    Rows,
    check_budget,
    kl_of_log_ratio,
    last_axis_sums,
    least_kl_policy,
    means_over_observations,
    mix_policies,
    observations_reach,
    optimal_actions,
    planning_problem,
    soft_maximum,
)

BUDGET_TOLERANCE: Final = 1e-12
"""How far the attained KL may lie off the budget, in nats, relative to budgets below 1 nat."""
TABLE_ROUNDING: Final = 1e-14
"""Float64 tables round pi/beta by 1e-16, and hence a KL of eps by about this times sqrt(eps)."""
SHARE_TOLERANCE: Final = 1e-15
"""To which the share of a mixture is found."""
LEAST_LOG_MULTIPLIER: Final = math.log(1e-18)
"""Below this, relative to the greatest utility, soft policies are greedy in float64."""
GREATEST_LOG_MULTIPLIER: Final = math.log(1e200)
"""Above this, relative to the greatest utility, soft policies are beta in float64."""

PolicyT = TypeVar("PolicyT")


@dataclass(frozen=True, kw_only=True)
class ExpectedKlPlan(KlPlan):
    """A plan under an expected-KL budget.

    Attributes:
        bracket: two multipliers, whose soft policies attain at least and at most the budget.
    """

    bracket: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Relaxed(Generic[PolicyT]):
    """A policy that maximises value - multiplier * KL, and that maximum.

    Attributes:
        policy: in the caller's own form.
        kl_nats: its expected KL.
        multiplier: lambda; 0 for an optimal policy, inf for one of least KL.
        soft_value: the maximum; NaN at infinite multipliers.
    """

    policy: PolicyT
    kl_nats: float
    multiplier: float
    soft_value: float

    def attained(
        self, dearer: "Relaxed[PolicyT]", cheaper: "Relaxed[PolicyT]"
    ) -> "Attained[PolicyT]":
        """This policy as the answer, certified by the two."""
        return Attained(policy=self.policy, kl_nats=self.kl_nats, dearer=dearer, cheaper=cheaper)


@dataclass(frozen=True, kw_only=True)
class Attained(Generic[PolicyT]):
    """What `attain_budget` found: the policy, and the two that certify it."""

    policy: PolicyT
    kl_nats: float
    dearer: Relaxed[PolicyT]
    cheaper: Relaxed[PolicyT]

    def certificate(self, *, value: float, budget_nats: float) -> tuple[float, float]:
        """The multiplier with the lower bound, and the bound; the value itself at lambda = inf."""
        if not self.dearer.multiplier < math.inf:
            return math.inf, value
        bound, multiplier = min(
            (end.soft_value + (end.multiplier and end.multiplier * budget_nats), end.multiplier)
            for end in (self.dearer, self.cheaper)
            if end.multiplier < math.inf
        )
        return multiplier, bound

    @property
    def bracket(self) -> tuple[float, float]:
        """The two multipliers."""
        return self.dearer.multiplier, self.cheaper.multiplier


def expected_kl_optimum(
    beta: PolicyTable, nu: EnvironmentTable, utility: UtilityTable, *, budget_nats: float
) -> ExpectedKlPlan:
    """The best policy whose expected KL to `beta` in `nu` is at most `budget_nats`.

    Where the constraint binds, the attained KL is `budget_nats` to 1e-12 nats (relative, below
    1 nat, as far as a float64 table of pi can express it) and the gap is below 1e-12.

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
) -> tuple[ExpectedKlPlan, ...]:
    """`expected_kl_optimum` for each of `budgets`: the frontier V*(eps) with its policies."""
    for budget in budgets:
        check_budget(budget)
    problem = planning_problem(beta, nu, utility, reading=Reading.EXPECTED)
    world = observations_reach(problem.nu)[:-1]
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
            ExpectedKlPlan(
                pi=found.policy,
                value=value,
                bound=bound,
                reading=Reading.EXPECTED,
                budget_nats=budget,
                attained_nats=found.kl_nats,
                prices=_scaled(world, multiplier),
                bracket=found.bracket,
            )
        )
    return tuple(plans)


def attain_budget(
    *,
    relaxed: Callable[[float], Relaxed[PolicyT]],
    mixed: Callable[[PolicyT, PolicyT, float], PolicyT],
    kl_nats: Callable[[PolicyT], float],
    least: Relaxed[PolicyT],
    greedy: Relaxed[PolicyT],
    budget_nats: float,
    greatest_utility: float,
) -> Attained[PolicyT]:
    """The optimum under one expected-KL constraint, from its Lagrangian relaxations.

    Args:
        relaxed: the maximiser of value - lambda KL at a finite lambda > 0.
        mixed: `mixed(p, q, s)` follows p with probability 1 - s, else q, from start to end.
        kl_nats: the expected KL of a policy.
        least: the policy of least KL.
        greedy: among the policies of greatest value that of least KL.
        budget_nats: eps >= 0.
        greatest_utility: what sets the scale of lambda.

    Raises:
        InvalidBudgetError: eps is below the least KL.
    """
    if budget_nats < least.kl_nats - BUDGET_TOLERANCE:
        raise InvalidBudgetError(
            f"budget_nats must be at least {least.kl_nats}, what beta's missing mass costs the "
            f"policy closest to it, got {budget_nats}"
        )
    if budget_nats <= least.kl_nats:
        return least.attained(least, least)
    if budget_nats >= greedy.kl_nats:
        return greedy.attained(greedy, greedy)
    dearer, cheaper = _bracket(relaxed, least, greedy, budget_nats, math.log(greatest_utility))
    small = min(1.0, budget_nats)
    tolerance = BUDGET_TOLERANCE * small + TABLE_ROUNDING * math.sqrt(small)
    for end in (cheaper, dearer):
        if abs(end.kl_nats - budget_nats) <= tolerance:
            return end.attained(dearer, cheaper)
    ends = {0.0: cheaper.kl_nats, 1.0: dearer.kl_nats}

    def excess(share: float) -> float:
        at_end = ends.get(share)
        if at_end is None:
            at_end = kl_nats(mixed(cheaper.policy, dearer.policy, share))
        return at_end - budget_nats

    share = brentq(excess, 0.0, 1.0, xtol=SHARE_TOLERANCE)
    policy = mixed(cheaper.policy, dearer.policy, share)
    return Attained(policy=policy, kl_nats=kl_nats(policy), dearer=dearer, cheaper=cheaper)


def _bracket(
    relaxed: Callable[[float], Relaxed[PolicyT]],
    least: Relaxed[PolicyT],
    greedy: Relaxed[PolicyT],
    budget_nats: float,
    log_scale: float,
) -> tuple[Relaxed[PolicyT], Relaxed[PolicyT]]:
    """Relaxations with more and with at most the budget's KL, as close as float64 has them."""
    dearer, cheaper = greedy, least

    def excess(log_multiplier: float) -> float:
        nonlocal dearer, cheaper
        point = relaxed(math.exp(log_scale + log_multiplier))
        if point.kl_nats > budget_nats:
            dearer = max(dearer, point, key=lambda end: end.multiplier)
        else:
            cheaper = min(cheaper, point, key=lambda end: end.multiplier)
        # The KL is close to a power of lambda, its logarithm to a line.
        tiny = np.finfo(np.float64).tiny
        return math.log(max(point.kl_nats, tiny)) - math.log(max(budget_nats, tiny))

    here, there, step = 0.0, 0.0, 1.0
    direction = 1.0 if excess(here) > 0 else -1.0
    while LEAST_LOG_MULTIPLIER < here < GREATEST_LOG_MULTIPLIER:
        there, here = here, here + direction * step
        step *= 2
        if excess(here) * direction <= 0:
            brentq(excess, here, there, xtol=1e-14, rtol=4 * np.finfo(np.float64).eps)
            break
    return dearer, cheaper


def _soft_value_iteration(problem: PlanningProblem, multiplier: float) -> Relaxed[PolicyTable]:
    V, kl = problem.utility, np.zeros_like(problem.utility)
    pi: list[Rows] = []
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
