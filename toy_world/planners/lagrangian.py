r"""The optimum under one KL constraint, from the optima of its Lagrangian relaxations.

    maximise V(pi)    subject to    KL(pi) <= eps,        V(pi) linear, KL(pi) convex in pi,

for "policies" that can be mixed: a caller says how to maximise `V - lambda KL` for a given
multiplier lambda (its *relaxation*), and how to follow one policy or another by the toss of a coin
(`toy_world.planners.expected_kl`, `toy_world.planners.ask`).

The attained KL falls as lambda grows, and Brent's method finds, on ln lambda, where it meets the
budget. Where two neighbouring multipliers attain different KL (because of an indifference, or of
float rounding at tiny multipliers) the optimum follows, from start to end, one of their two
policies drawn at random: the KL of that mixture is convex and continuous in the share, so that
some share spends the budget exactly, and it loses nothing, since both policies have the same
Lagrangian. The bound is weak duality: no policy within the budget has a value above
`max(V - lambda KL) + lambda eps`, whatever lambda.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import numpy as np
from scipy.optimize import brentq

from theory.errors import InvalidBudgetError
from toy_world.planners.certificate import nats_rounding

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
    """What `attain_budget` found.

    Attributes:
        policy: in the caller's own form.
        kl_nats: its expected KL.
        dearer: a relaxation that attains at least the budget.
        cheaper: one that attains at most the budget; these two certify the policy.
    """

    policy: PolicyT
    kl_nats: float
    dearer: Relaxed[PolicyT]
    cheaper: Relaxed[PolicyT]

    def certificate(self, *, value: float, budget_nats: float) -> tuple[float, float]:
        """The multiplier with the lower bound, and the bound; the value itself at lambda = inf."""
        if not self.dearer.multiplier < math.inf:
            return math.inf, value
        # `and`: where the constraint is slack the budget may be infinite, and costs nothing.
        bounds = [
            (end.soft_value + (end.multiplier and end.multiplier * budget_nats), end.multiplier)
            for end in (self.dearer, self.cheaper)
            if end.multiplier < math.inf
        ]

        def at_most(found: tuple[float, float]) -> float:
            """The bound with its rounding, so that a huge multiplier's noise is not the lower."""
            bound, multiplier = found
            return bound + (multiplier and multiplier * nats_rounding(budget_nats))

        bound, multiplier = min(bounds, key=at_most)
        return multiplier, bound


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
    """The optimum under one expected-KL constraint, by the method of the module.

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
    # Neither of two neighbouring multipliers attains the budget: draw lots between their policies.
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

    # In steps that double, to where the KL lies on the other side of the budget; then by Brent's
    # method between the last two.
    here, there, step = 0.0, 0.0, 1.0
    direction = 1.0 if excess(here) > 0 else -1.0
    while LEAST_LOG_MULTIPLIER < here < GREATEST_LOG_MULTIPLIER:
        there, here = here, here + direction * step
        step *= 2
        if excess(here) * direction <= 0:
            brentq(excess, here, there, xtol=1e-14, rtol=4 * np.finfo(np.float64).eps)
            break
    return dearer, cheaper
