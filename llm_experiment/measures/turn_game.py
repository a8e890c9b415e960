r"""What the best agent with a budget gets in a game of turns whose every number is known.

An agent has N turns. In each it may show a behaviour, which earns r_1, or not, which earns r_0.
The base policy shows it with probability p_m in a turn after m turns without it and none with it,
and with probability s in every turn once it has been shown. A turn in which the agent shows it with
probability q costs `d(q||p) = KL(Bern q || Bern p)` of its budget of B nats, whatever comes of it,
and no episode may cost more than B: exact accounting (`theory.budget`). The best expected sum of
rewards is

    W_n(b)   = max_q  q r_1 + (1 - q) r_0 + W_{n-1}(b - d(q||s))
    V_m(b)   = max_q  q (r_1 + W_{N-m-1}(b - c)) + (1 - q) (r_0 + V_{m+1}(b - c)),  c = d(q||p_m)

with 0 once no turn is left, and `V*(B) = V_0(B)`.

Nothing finer than whole turns helps where one token decides what a turn is: the rest of the turn
tells nothing, and a KL spent on it is lost (data processing).

**Bracket.** On a grid of budgets with spacing h, spending whole multiples of h is a policy, so that
its value is a lower bound. And whoever spends between j h and (j + 1) h has at most the share q
that (j + 1) h buys and at most b - j h left. As the values increase with q and with what is left,
the recursion with these two is an upper bound.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from theory.arguments import check_budget
from theory.errors import InvalidArgumentError

_BISECTIONS: Final = 100
"""Of an interval of some thousand logits to the precision of a float."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class TurnGame:
    """A game of turns; see the module's docstring.

    Attributes:
        first: p_0, p_1, ..., one a turn, each in [0, 1).
        again: s in (0, 1].
        reward_shown: r_1.
        reward_else: r_0 <= r_1.
    """

    first: tuple[float, ...]
    again: float
    reward_shown: float
    reward_else: float

    def __post_init__(self) -> None:
        if not self.first:
            raise InvalidArgumentError("a game needs at least 1 turn, got none")
        if not all(0 <= p < 1 for p in self.first) or not 0 < self.again <= 1:
            raise InvalidArgumentError(
                f"first must lie in [0, 1) and again in (0, 1], got {self.first} and {self.again}"
            )
        if not self.reward_else <= self.reward_shown:
            raise InvalidArgumentError(
                f"reward_else must be <= reward_shown, got {self.reward_else} and "
                f"{self.reward_shown}"
            )

    @property
    def most(self) -> float:
        """What showing the behaviour in every turn earns."""
        return len(self.first) * self.reward_shown


@dataclass(frozen=True, kw_only=True)
class GameValue:
    """V*(B), bracketed.

    Attributes:
        lower: what a policy on the grid earns.
        upper: a bound on what any policy earns.
    """

    lower: float
    upper: float


def game_value(game: TurnGame, budget_nats: float, *, n_steps: int = 1000) -> GameValue:
    """The best expected sum of rewards within a budget.

    Args:
        game: which.
        budget_nats: B >= 0, finite.
        n_steps: of the grid, B / h; the bracket narrows as h does.

    Raises:
        InvalidArgumentError: an infinite budget, or no step.
        InvalidBudgetError: a negative budget, or NaN.
    """
    check_budget(budget_nats=budget_nats)
    if math.isinf(budget_nats) or n_steps < 1:
        raise InvalidArgumentError(
            f"the grid needs a finite budget and n_steps >= 1, got {budget_nats} and {n_steps}"
        )
    spends = budget_nats * np.arange(n_steps + 1) / n_steps
    lower, upper = (_value(game, spends, optimistic=up) for up in (False, True))
    return GameValue(lower=lower, upper=upper)


def shares_bought(p: float, spends_nats: Floats) -> Floats:
    """The largest q with `d(q||p) <= c`, for every c >= 0 of shape (n,); 1 where c >= -ln p."""
    if p in (0.0, 1.0):
        return np.full_like(spends_nats, p)
    logit_p, log_p, log_not = special.logit(p), math.log(p), math.log1p(-p)
    low = np.full_like(spends_nats, logit_p)
    high = np.full_like(spends_nats, max(logit_p, 0.0) + 60.0)  # 1 - 1e-26, and beyond
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        q = special.expit(middle)
        cost = q * (special.log_expit(middle) - log_p)
        cost += special.expit(-middle) * (special.log_expit(-middle) - log_not)
        low, high = (
            np.where(cost <= spends_nats, middle, low),
            np.where(cost <= spends_nats, high, middle),
        )
    # Near p a cost is lost in rounding: without one the share is p itself.
    bought = np.where(spends_nats >= -log_p, 1.0, special.expit(low))
    return np.where(spends_nats > 0, bought, p)


def _value(game: TurnGame, spends: Floats, *, optimistic: bool) -> float:
    """V_0 at the largest of equally spaced budgets, rounded down or up."""
    g = len(spends)
    # [i, j]: with i steps of budget, j of them are spent; what is left is i - j.
    left = np.arange(g)[:, None] - np.arange(g)
    allowed = left >= 0

    def shares(p: float) -> Floats:
        bought = shares_bought(p, spends)
        return np.append(bought[1:], bought[-1]) if optimistic else bought

    def best(values: Floats) -> Floats:
        return np.asarray(np.where(allowed, values, -np.inf).max(axis=1))

    after = np.zeros((len(game.first) + 1, g))  # W_n
    gain = game.reward_shown - game.reward_else
    again = game.reward_else + gain * shares(game.again)
    for n in range(1, len(game.first) + 1):
        after[n] = best(again + after[n - 1][left])
    before = np.zeros(g)  # V_m
    for m in range(len(game.first) - 1, -1, -1):
        q = shares(game.first[m])
        shown = game.reward_shown + after[len(game.first) - m - 1][left]
        before = best(q * shown + (1 - q) * (game.reward_else + before[left]))
    return float(before[-1])
