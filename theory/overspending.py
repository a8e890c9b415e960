"""What realised accounting lets a policy spend beyond its budget.

Under `Accounting.REALIZED` (see budget.py) a step is charged the log-ratio of the action taken,
`B <- max(B - log(pi(a)/beta(a)), 0)`. A policy that stakes much on one token overdraws the budget
when the token comes up, and the clamp at 0 forgives the overdraft; when it does not come up, the
log-ratio is negative and the budget grows. Under `EXACT` accounting neither can happen.

Two measures of the leak: the most that two steps can spend in expectation, and what an agent
spends that stakes all it has at every step.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from theory.arguments import check_budget, check_count, check_finite_budget
from theory.divergences import exp_minus_tangent
from theory.errors import InvalidArgumentError, InvalidBudgetError
from theory.projections import fixed_kl_mixture


@dataclass(frozen=True, kw_only=True)
class OverspendingBet:
    """The first bet of two steps that makes realised accounting leak most.

    Attributes:
        probability: p, what the bet gives the token it stakes on; 0 where the supremum is
            approached as p -> 0 and not reached.
        log_base_probability: `ln q`, what the base policy gives it.
        total_nats: expected KL of the two steps together.

    Example:
        >>> from theory import realized_two_step_supremum
        >>> realized_two_step_supremum(1.5)
        OverspendingBet(probability=0.0, log_base_probability=-inf, total_nats=3.0)
    """

    probability: float
    log_base_probability: float
    total_nats: float


def realized_two_step_supremum(budget_nats: float) -> OverspendingBet:
    """The most expected KL that two steps can spend under realised accounting.

    The rule `B <- max(B - ln(pi(a)/beta(a)), 0)` with a first step of two tokens, p against q,
    `KL(Bern(p) || Bern(q)) = B0`, and a second that spends what is left: the expected total is
    `B0 + p (ln(p/q) - B0)`. Under exact accounting it would be B0. From `B0 = 1` on the supremum
    is `2 B0`, approached as p -> 0; below, it is attained, larger than `2 B0`, and about
    `sqrt(B0/2)` for small B0. There it is searched for (the total has one maximum in p), so that
    `total_nats` is attained up to rounding, and the largest to about 1e-9 relative.

    Args:
        budget_nats: B0 > 0, finite.

    Raises:
        InvalidBudgetError: a budget that is not positive and finite.

    Example:
        >>> import math
        >>> from theory import realized_two_step_supremum
        >>> found = realized_two_step_supremum(1e-6)
        >>> round(found.total_nats, 5) == round(math.sqrt(1e-6 / 2), 5)  # 707 budgets
        True
    """
    check_budget(budget_nats=budget_nats)
    if not 0 < budget_nats < math.inf:
        raise InvalidBudgetError(f"budget_nats must be positive and finite, got {budget_nats}")
    if budget_nats >= 1:
        return OverspendingBet(
            probability=0.0, log_base_probability=-math.inf, total_nats=2 * budget_nats
        )

    def bet(p: float) -> OverspendingBet:
        log_ratio = _stake(p, budget_nats)
        return OverspendingBet(
            probability=p,
            log_base_probability=math.log(p) - log_ratio,
            total_nats=budget_nats + p * (log_ratio - budget_nats),
        )

    # The best p is below 1/2 and falls to 0, like 1 - B0, as B0 -> 1.
    search = minimize_scalar(
        lambda log_p: -bet(math.exp(log_p)).total_nats,
        bounds=(math.log((1 - budget_nats) / 8), math.log(0.5)),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return bet(math.exp(search.x))


def _stake(p: float, budget_nats: float) -> float:
    """The `s = ln(p/q) > 0` with `KL(Bern(p) || Bern(q)) = budget`.

    The KL is `p phi(-s) + (1 - p) phi(t)` with `phi(x) = e^x - 1 - x` and
    `t = ln((1-q)/(1-p))`: two terms that do not cancel, however small the budget.
    """

    def excess(s: float) -> float:
        t = math.log1p(-math.expm1(-s) * p / (1 - p))
        spent = exp_minus_tangent(np.array([-s, t]))
        return float(p * spent[0] + (1 - p) * spent[1]) / budget_nats - 1

    # At the upper end the first term alone is the budget and the entropy, above the budget.
    entropy = -p * math.log(p) - (1 - p) * math.log1p(-p)
    highest = (budget_nats + entropy) / p
    # With s / p below the root of the budget the KL is far below it.
    lowest = 1e-3 * min(math.sqrt(budget_nats), 1.0)
    return math.exp(
        brentq(
            lambda log_s: excess(math.exp(log_s)), math.log(lowest), math.log(highest), xtol=1e-15
        )
    )


def all_in_spending_nats(
    budget_nats: float, *, token_probability: float, horizon: int, floor_nats: float = 0.0
) -> float:
    """Expected sum of KLs of an agent that stakes all it has at every step, under `REALIZED`.

    Each step's policy is the fixed-KL mixture of one token, of base probability p, and the base,
    at a KL of what remains plus `floor_nats`, or the token alone where that costs less. A staked
    token that comes up always empties the budget, because its log-ratio is at least the stake. One
    that does not come up adds to the budget. So the budget's law is a chain of losses, restarted
    at 0 by a win, and the sum over it is exact.

    Args:
        budget_nats: B_0, finite.
        token_probability: p, in (0, 1).
        horizon: number of steps, at least 1.
        floor_nats: what the step's target gets on top (the released code has 1e-6).

    Raises:
        InvalidBudgetError: a budget or floor that is negative, NaN or infinite.
        InvalidArgumentError: p or the horizon out of range.

    Example:
        >>> import math
        >>> from theory import all_in_spending_nats
        >>> stake = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)  # KL(Bern(0.9)||Bern(0.5))
        >>> round(stake, 4)
        0.3681
        >>> round(all_in_spending_nats(stake, token_probability=0.5, horizon=2), 4)  # + 0.1 ln 2
        0.4374
    """
    check_finite_budget(budget_nats=budget_nats, floor_nats=floor_nats)
    if not 0 < token_probability < 1:
        raise InvalidArgumentError(f"token_probability must lie in (0, 1), got {token_probability}")
    check_count(horizon=horizon)
    token = np.array([0.0, -np.inf])
    base = np.array([math.log(token_probability), math.log1p(-token_probability)])
    spent, won = np.zeros((2, horizon)), np.zeros((2, horizon))
    # Row 0 is an agent whose budget a win has just emptied, row 1 the agent of the start. Column
    # `step`: the KL it spends, and the chance that it wins, if it has lost every bet until then.
    remaining = np.array([0.0, budget_nats])
    for step in range(horizon):
        bet = fixed_kl_mixture(token, base, remaining + floor_nats)
        alone = bet.weight == 1
        spent[:, step] = bet.kl_nats
        won[:, step] = np.where(alone, 0.0, np.exp(bet.log_x[:, 0]))
        lost_ratio = np.log1p(-np.where(alone, 0.0, bet.weight))
        remaining = np.maximum(remaining - np.where(alone, -base[0], lost_ratio), 0.0)
    still_losing = np.cumprod(np.hstack([np.ones((2, 1)), 1 - won[:, :-1]]), axis=1)
    staked, restarts = still_losing * spent, still_losing * won
    # from_empty[left]: what an empty budget still spends in `left` steps; a win leads there.
    from_empty = np.zeros(horizon + 1)
    for left in range(1, horizon + 1):
        later = from_empty[left - 1 :: -1]
        from_empty[left] = staked[0, :left].sum() + restarts[0, :left] @ later
    return float(staked[1].sum() + restarts[1] @ from_empty[horizon - 1 :: -1])
