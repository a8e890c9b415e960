r"""Plans and their certificates: what was found under a constraint, and why nothing is better.

A planner returns a `Plan`, the same for every constraint: the policy, its value, and a *bound* on
the value of every policy that meets the constraint. `bound - value` is how much the plan may be
short of the optimum, whatever the planner did to find it.

**Prices prove the bound.** Let `y(h) >= 0` be the prices of a nat at each history that belong to
some mixture of the reading's adversaries, and `L` the optimal value less what is paid for KL_h at
these prices (`toy_world.planners.problem`). A policy within the budget pays at most `eps y(root)`
on average, so that its value is at most

    L(root) + eps y(root)        (weak duality),

for any such prices whatever. `lagrangian_bound` computes that right-hand side anew, from the
prices of a `PricedPlan` alone, and refuses prices that no mixture of adversaries has. The planners
under a KL budget return such prices; what certifies plans under the other divergences stands in
their own modules.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Generic, TypeVar

import numpy as np

from theory.arguments import as_member
from theory.errors import InvalidArgumentError, InvalidBudgetError, SolverError
from theory.process import (
    EnvironmentTable,
    PolicyTable,
    Probability,
    UtilityTable,
    observation_laws,
)
from toy_world.planners.problem import (
    Divergence,
    Floats,
    Levels,
    PlanningProblem,
    Reading,
    check_budget,
    last_axis_sums,
    observation_prefixes,
    planning_problem,
    soft_maximum,
)

ROUNDING: Final = 1e-13
"""By how much rounding may lift a float64 value above a bound on it."""
NATS_ROUNDING: Final = 32 * float(np.finfo(np.float64).eps)
"""Of a sum of nats, relative to budgets above 1."""
PRICE_TOLERANCE: Final = 1e-12
"""How far, relatively, prices may miss the consistency that makes them a mixed adversary."""

NumberT = TypeVar("NumberT", float, Fraction, Probability)
"""float64, or rationals where everything given was rational."""


@dataclass(frozen=True, kw_only=True)
class Plan(Generic[NumberT]):
    """The best policy that was found within a budget, and a bound on every other.

    A plan whose value exceeds its bound, by more than rounding and what it overspends at its
    multiplier, proves that the bound is false: it is not made.

    Attributes:
        pi: the policy; what it does at histories that it cannot reach means nothing.
        value: its `V^pi_{nu,U}`.
        bound: no policy that meets the constraint has a greater value (but for rounding, where
            the numbers are floats).
        divergence: what the budget limits.
        reading: for which observations.
        budget: in nats for KL and reverse KL, else without a unit.
        attained: the divergence of `pi`, likewise.
        multiplier: the slope of the optimal value at the budget (at a kink, one of them): 0
            where the constraint is slack, infinite where no more than one policy meets it.

    Raises:
        SolverError: a bound below the value.
    """

    pi: PolicyTable
    value: NumberT
    bound: NumberT
    divergence: Divergence
    reading: Reading
    budget: NumberT
    attained: NumberT
    multiplier: NumberT

    def __post_init__(self) -> None:
        exact = isinstance(self.value, Fraction)
        multiplier: Any = self.multiplier
        allowed: Any = 0 if exact else ROUNDING
        if 0 < multiplier < math.inf:
            # Weak duality at the attained divergence, which a float64 table may round upwards.
            allowed += multiplier * max(self.attained - self.budget, 0)
            allowed += 0 if exact else multiplier * nats_rounding(float(self.budget))
        if not self.value <= self.bound + allowed:
            raise SolverError(
                f"the certificate is false: the bound {self.bound} lies below the value "
                f"{self.value} of a plan that spends {self.attained} of {self.budget}; float64 is "
                "too coarse for this problem: try another budget or less extreme probabilities"
            )

    @property
    def gap(self) -> NumberT:
        """By how much the optimum may exceed `value`."""
        return self.bound - self.value


@dataclass(frozen=True, kw_only=True)
class PricedPlan(Plan[float]):
    """A plan under a KL budget with the prices that prove its bound.

    Attributes:
        prices: `y(h)`, the price of a nat at each history, level t of shape ((|A||O|)^t,):
            what `lagrangian_bound` makes `bound` of. The root's is `multiplier`.
    """

    prices: Levels


def nats_rounding(budget_nats: float) -> float:
    """How far a float64 sum of nats, the budget among them, may be off."""
    return NATS_ROUNDING * max(1.0, budget_nats)


def lagrangian_bound(
    beta: PolicyTable,
    nu: EnvironmentTable,
    utility: UtilityTable,
    *,
    reading: Reading,
    prices: Levels,
    budget_nats: float,
) -> float:
    """`L(root) + eps y(root)`, in float64: no policy with KL at most eps has a greater value.

    Args:
        beta: base policy.
        nu: environment.
        utility: `U_m` in [0, 1].
        reading: of the KL.
        prices: y(h) >= 0, level t of shape ((|A||O|)^t,), the prices of a mixed adversary of
            `reading`: a multiple of `W` (expected), a function of the observations alone
            (fixed), and in both of those and the adaptive reading `sum_o y(hao) = y(h)` for
            every action (in the expected one, but for what nu misses).
        budget_nats: eps >= 0, finite.

    Raises:
        InvalidArgumentError: prices that no mixed adversary of `reading` has.
        InvalidBudgetError: a negative, NaN or infinite budget.
    """
    reading = as_member(Reading, reading, name="reading")
    check_budget(budget_nats)
    if budget_nats == np.inf:
        raise InvalidBudgetError("an infinite budget has no bound with a price; got inf")
    problem = planning_problem(beta, nu, utility, reading=reading)
    check_prices(problem, prices, reading=reading)
    L = observation_laws(problem.nu)[-1] * problem.utility
    for t in range(len(problem.beta) - 1, -1, -1):
        gains = last_axis_sums(L.reshape(problem.nu[t].shape))
        priced = prices[t] > 0
        soft, _, _ = soft_maximum(
            problem.beta[t],
            problem.barred[t],
            problem.missing[t],
            gains,
            np.where(priced, prices[t], 1.0),
        )
        L = np.where(priced, soft, (gains + problem.barred[t]).max(axis=-1))
    return float(L[0] + budget_nats * prices[0][0])


def check_prices(problem: PlanningProblem, prices: Levels, *, reading: Reading) -> None:
    """Raise `InvalidArgumentError` unless `prices` are those of a mixed adversary of `reading`."""
    expected_shapes = [(len(level),) for level in problem.beta]
    if [level.shape for level in prices] != expected_shapes:
        raise InvalidArgumentError(
            f"prices need shapes {expected_shapes}, got {[level.shape for level in prices]}"
        )
    negative = [level.min() for level in prices if not (level >= 0).all()]
    if negative or not np.isfinite(prices[0][0]):
        raise InvalidArgumentError(
            f"prices must be finite and >= 0, got {negative[0] if negative else prices[0][0]}"
        )
    match reading:
        case Reading.EXPECTED:
            world = observation_laws(problem.nu)
            errors = [level - prices[0] * w for level, w in zip(prices, world[:-1], strict=True)]
        case Reading.FIXED:
            errors = _split_errors(problem, prices) + _action_dependence(problem, prices)
        case Reading.ADAPTIVE:
            errors = _split_errors(problem, prices)
    furthest = max((float(np.abs(error).max()) for error in errors), default=0.0)
    if furthest > PRICE_TOLERANCE * prices[0][0]:
        raise InvalidArgumentError(
            f"prices are off by {furthest} from those of any adversary of the reading "
            f"'{reading.value}' with their root price {prices[0][0]}"
        )


def _split_errors(problem: PlanningProblem, prices: Levels) -> list[Floats]:
    """By how much the prices after each history and action miss the price of the history."""
    return [
        later.reshape(*rows.shape, -1).sum(axis=-1) - level[:, None]
        for rows, level, later in zip(problem.beta[:-1], prices[:-1], prices[1:], strict=True)
    ]


def _action_dependence(problem: PlanningProblem, prices: Levels) -> list[Floats]:
    """By how much the price at each history differs from that after other actions."""
    prefixes = observation_prefixes(
        n_actions=problem.beta[0].shape[1],
        n_observations=problem.n_observations,
        horizon=len(problem.beta),
    )
    errors = []
    for level, prefix in zip(prices, prefixes, strict=True):
        _, first = np.unique(prefix, return_index=True)
        errors.append(level - level[first][prefix])
    return errors
