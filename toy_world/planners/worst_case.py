r"""Optimal planning against the worst observations: an interior-point method on the prices.

Both worst-case readings of Definition 2 (fixed and adaptive observations) are the dual of
`toy_world.planners.problem` with many adversaries instead of one:

    minimise over prices y of    g(y) = L(root; y) + eps y(root),

where y is a nonnegative function on the adversary's *information sets*, the histories that it
cannot tell apart, with `sum_o y(.. o) = y(..)`: sequences of observations (fixed), or histories
with their actions (adaptive). Every y is made of its values on the sets of the last step, since
those before are sums. g is convex and, for y > 0, smooth, and its derivatives come from the soft
policy of y: the derivative of L(root) to the price of h is `-x(h) KL_h`, with `x(h)` the
probability of h's actions under that policy.

**The primal point comes for free.** At the minimum of `g(y) - tau sum ln y` over the last step's
sets, optimality says that the soft policy of y leaves each adversary a slack `s = tau / y > 0`: it
meets the constraint strictly, and its gap is exactly `tau` times the number of sets. So following
this central path to `tau = tolerance / number of sets` ends at a feasible policy with a
certificate, and no solution has to be repaired or rounded.

**The path** is followed by a primal-dual method: unknown prices and slacks, Newton's equations of
`y s = tau` and of the dual's optimality, a predictor step that tells how far tau may be lowered,
and a step that keeps prices and slacks positive. The soft policy is recomputed exactly at each
iterate, which therefore always has a policy and a bound. What Newton's system looks like depends
on the information sets; an `AdversaryPrices` solves it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from theory.errors import InvalidBudgetError, SolverError
from theory.process import EnvironmentTable, PolicyTable, UtilityTable, observation_laws, values
from toy_world.planners.certificate import PricedPlan
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
    optimal_actions,
    planning_problem,
    soft_maximum,
)

GAP_TOLERANCE: Final = 1e-10
"""The duality gap at the end of the path; a point with twice that is as good."""
GREATEST_GAP: Final = 1e-6
"""The duality gap that every plan meets, where rounding does not let the path end."""
STEP_FRACTION: Final = 0.9
"""The share of the way to the boundary that a step may go: prices fall tenfold at most."""
SLOPE_FRACTION: Final = 0.5
"""A step may end where the slope is up to this share of that at its start, turned round."""
SHORTEST_STEP: Final = 1e-6
MAX_ITERATIONS: Final = 300


@dataclass(frozen=True, kw_only=True)
class SoftPoint:
    """The soft policy of some prices and what Newton's method needs to know of it.

    Attributes:
        problem: what is planned.
        prices: y(h) of every history, level t of shape ((|A||O|)^t,).
        pi: the soft policy.
        log_ratio: ln(pi/beta).
        kl: KL_h.
        reach: x(h), the probability of h's actions under pi.
        soft_value: L(root).
    """

    problem: PlanningProblem
    prices: Levels
    pi: Levels
    log_ratio: Levels
    kl: Levels
    reach: Levels
    soft_value: float

    @property
    def root_price(self) -> float:
        """The multiplier lambda."""
        return float(self.prices[0][0])

    def gap(self, budget_nats: float) -> float:
        """The bound less the policy's value: `y(root) eps - sum_h y(h) x(h) KL_h`."""
        spent = sum(
            float((y * x * kl).sum())
            for y, x, kl in zip(self.prices, self.reach, self.kl, strict=True)
        )
        return budget_nats * self.root_price - spent


class AdversaryPrices(ABC):
    """The prices of a reading's adversaries: their information sets and Newton's equations.

    Prices on information sets are `Levels`, one array a step.
    """

    def __init__(self, problem: PlanningProblem, budget_nats: float) -> None:
        self.problem = problem
        self.budget_nats = budget_nats

    @abstractmethod
    def uniform(self, price: float) -> Levels:
        """The prices of an adversary who draws observations uniformly, `price` in total."""

    @abstractmethod
    def of_histories(self, prices: Levels) -> Levels:
        """y(h) of every history."""

    @abstractmethod
    def newton(self, point: SoftPoint, curvature: Floats) -> Callable[[float], Levels]:
        """Newton's direction in the prices for a given tau.

        It solves `(g'' + curvature) dy = tau / y - g'` on the last step's sets, `curvature` being
        a diagonal there (`s / y`), and extends the solution to the earlier steps.
        """

    @abstractmethod
    def moved(self, prices: Levels, direction: Levels, step: float) -> Levels:
        """`prices + step * direction`, made consistent to rounding."""

    @abstractmethod
    def kl_nats(self, pi: PolicyTable) -> float:
        """The KL of pi to the problem's beta in this reading."""


def worst_case_optimum(
    beta: PolicyTable,
    nu: EnvironmentTable,
    utility: UtilityTable,
    *,
    budget_nats: float,
    reading: Reading,
    adversary: Callable[[PlanningProblem, float], AdversaryPrices],
) -> PricedPlan:
    """The best policy whose KL in a worst-case reading is at most `budget_nats`.

    Where the constraint binds, `attained <= budget_nats` and the gap is about
    `GAP_TOLERANCE`. With `budget_nats = 0` and a full beta the plan is beta itself.

    Raises:
        InvalidBudgetError: negative or NaN, or below what a semi-distribution beta allows.
        SolverError: the path did not end; the message holds the gap and the violation.
        InvalidShapeError, InvalidDistributionError, InvalidArgumentError: as
            `planning_problem` says.
    """
    check_budget(budget_nats)
    problem = planning_problem(beta, nu, utility, reading=reading)
    adversaries = adversary(problem, budget_nats)

    def plan(pi: PolicyTable, bound: float | None, prices: Levels) -> PricedPlan:
        value = float(values(pi, problem.nu, problem.utility)[0][0])
        return PricedPlan(
            pi=pi,
            value=value,
            bound=value if bound is None else bound,
            divergence=Divergence.KL,
            reading=reading,
            budget=budget_nats,
            attained=adversaries.kl_nats(pi),
            multiplier=float(prices[0][0]),
            prices=prices,
        )

    least, least_kl = least_kl_policy(problem, allowed=problem.barred, reading=reading)
    if budget_nats == least_kl and (least_kl == 0 or reading is Reading.ADAPTIVE):
        return plan(least, None, _constant(problem, np.inf))
    if budget_nats < least_kl and (budget_nats == 0 or reading is Reading.ADAPTIVE):
        raise InvalidBudgetError(
            f"budget_nats must be at least {least_kl}, what beta's missing mass costs the policy "
            f"closest to it, got {budget_nats}"
        )
    allowed, greatest = optimal_actions(problem)
    greedy, greedy_kl = least_kl_policy(problem, allowed=allowed, reading=reading)
    if greedy_kl <= budget_nats:
        return plan(greedy, greatest, _constant(problem, 0.0))
    point = _central_path(adversaries)
    found = plan(point.pi, point.soft_value + budget_nats * point.root_price, point.prices)
    # `SoftPoint.gap`, by which the path was ended, is a formula of its own for the same number.
    if found.gap > GREATEST_GAP:
        raise _no_end(found.gap, budget_nats)
    return found


def _central_path(adversaries: AdversaryPrices) -> SoftPoint:
    """The point at the end of the central path, which is feasible and has the promised gap."""
    problem, budget = adversaries.problem, adversaries.budget_nats
    # At this temperature the greatest utility buys about the budget's KL. (Where all are 0 only
    # the budget decides, and any price will do to begin with.)
    first_price = (problem.greatest_utility or 1.0) / math.sqrt(8 * budget)
    prices = adversaries.uniform(first_price)
    n_sets = len(prices[-1])
    last_tau = GAP_TOLERANCE / n_sets
    slack = budget * first_price / n_sets / prices[-1]
    point = soft_point(problem, adversaries.of_histories(prices))
    best: SoftPoint | None = None
    for _ in range(MAX_ITERATIONS):
        _check_possible(point, budget)
        feasible = adversaries.kl_nats(point.pi) <= budget
        if feasible and (best is None or point.gap(budget) < best.gap(budget)):
            best = point
        if best is not None and best.gap(budget) <= 2 * GAP_TOLERANCE:
            return best
        target, direction, slack_direction = _predicted(
            adversaries.newton(point, slack / prices[-1]), prices[-1], slack, last_tau
        )
        longest = _step_length((prices[-1], direction[-1]), (slack, slack_direction))
        prices, point, step = _search(adversaries, prices, point, direction, target, longest)
        slack = slack + step * slack_direction
    if best is not None and best.gap(budget) <= GREATEST_GAP:
        return best
    raise _no_end(best.gap(budget) if best else math.inf, budget)


def _no_end(gap: float, budget_nats: float) -> SolverError:
    return SolverError(
        f"the central path ended with a gap of {gap}, more than {GREATEST_GAP}, at the budget "
        f"{budget_nats}; float64 is too coarse for this problem: try another budget or less "
        "extreme probabilities"
    )


def _check_possible(point: SoftPoint, budget_nats: float) -> None:
    # Utilities are not negative, so a negative bound says that there is no policy at all.
    if point.soft_value + budget_nats * point.root_price < 0:
        raise InvalidBudgetError(
            f"budget_nats must be more than {-point.soft_value / point.root_price}, what beta's "
            f"missing mass costs every policy after some observations, got {budget_nats}"
        )


def _predicted(
    newton: Callable[[float], Levels], prices: Floats, slack: Floats, last_tau: float
) -> tuple[float, Levels, Floats]:
    """The tau to aim at, and the directions of prices and slacks that aim at it.

    How far the step for tau = 0 gets before a price or a slack would vanish tells how straight
    the path is; tau falls by the cube of what that step would leave of it.
    """

    def slack_direction(direction: Floats, target: float) -> Floats:
        return (target - slack * direction) / prices - slack

    tau = float(prices @ slack) / len(prices)
    straight = newton(0.0)[-1]
    follows = slack_direction(straight, 0.0)
    step = _step_length((prices, straight), (slack, follows))
    left = float((prices + step * straight) @ (slack + step * follows)) / len(prices) / tau
    target = max(tau * left**3, last_tau)
    direction = newton(target)
    return target, direction, slack_direction(direction[-1], target)


def _search(
    adversaries: AdversaryPrices,
    prices: Levels,
    point: SoftPoint,
    direction: Levels,
    tau: float,
    step: float,
) -> tuple[Levels, SoftPoint, float]:
    """The first step, `step` or shorter, that does not pass far beyond the minimum on its line.

    The function that is minimised, `g(y) - tau sum ln y`, is convex: its slope along the line
    grows, and a slope that is not much above 0 says that the minimum is at hand. Slopes keep
    their digits where differences of the function have none left.
    """
    along = adversaries.of_histories(direction)

    def slope(prices: Levels, point: SoftPoint) -> float:
        priced = adversaries.budget_nats * direction[0][0] - sum(
            float((x * kl * change).sum())
            for x, kl, change in zip(point.reach, point.kl, along, strict=True)
        )
        return float(priced - tau * (direction[-1] / prices[-1]).sum())

    first = slope(prices, point)
    while True:
        moved = adversaries.moved(prices, direction, step)
        reached = soft_point(adversaries.problem, adversaries.of_histories(moved))
        last = slope(moved, reached)
        # At the end of the path rounding may hide that the direction goes down.
        if last <= SLOPE_FRACTION * abs(first) or first >= 0 or step < SHORTEST_STEP:
            return moved, reached, step
        step *= max(first / (first - last), 0.1)  # below 2/3, as the slope was too steep


def soft_point(problem: PlanningProblem, prices: Levels) -> SoftPoint:
    """The soft policy of the prices of every history, by one backward pass."""
    L = observation_laws(problem.nu)[-1] * problem.utility
    pi: list[Floats] = []
    log_ratios: list[Floats] = []
    kl: list[Floats] = []
    for t in range(len(problem.beta) - 1, -1, -1):
        beta, missing = problem.beta[t], problem.missing[t]
        gains = last_axis_sums(L.reshape(problem.nu[t].shape))
        L, actions, log_ratio = soft_maximum(beta, problem.barred[t], missing, gains, prices[t])
        pi.append(actions)
        log_ratios.append(log_ratio)
        kl.append(kl_of_log_ratio(beta, missing, actions, log_ratio))
    policy = tuple(reversed(pi))
    return SoftPoint(
        problem=problem,
        prices=prices,
        pi=policy,
        log_ratio=tuple(reversed(log_ratios)),
        kl=tuple(reversed(kl)),
        reach=_actions_reach(policy, n_observations=problem.n_observations),
        soft_value=float(L[0]),
    )


def _actions_reach(pi: PolicyTable, *, n_observations: int) -> Levels:
    """`x(h)`, the probability of the actions in h given its observations.

    Returns:
        `horizon` levels, level t of shape ((|A||O|)^t,).
    """
    levels = [np.ones(1)]
    for actions in pi[:-1]:
        levels.append(np.repeat((levels[-1][:, None] * actions).reshape(-1), n_observations))
    return tuple(levels)


def _step_length(*moves: tuple[Floats, Floats]) -> float:
    """The longest step up to 1 that leaves every value a share `1 - STEP_FRACTION` of itself."""
    shrinking = max(float((-direction / value).max()) for value, direction in moves)
    return min(1.0, STEP_FRACTION / shrinking) if shrinking > 0 else 1.0


def _constant(problem: PlanningProblem, price: float) -> Levels:
    return tuple(np.full(len(level), price) for level in problem.beta)
