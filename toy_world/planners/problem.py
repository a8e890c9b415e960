r"""Planning under a budget: the problem, its readings, and the soft policy that solves it.

How much value can an agent reach whose policy stays within `eps` nats of the base policy beta
(Definition 2)?

    V*(eps) = max over pi of V^pi_{nu,U}    subject to    KL(pi || beta) <= eps.

**One mechanism for all readings.** The KL of a sequence is a sum of steps: `KL_h =
KL(pi(.|h) || beta(.|h))` is charged at every history h that comes to pass. Who chooses the
observations on which it is charged? In the expected reading nature does, by nu; with fixed
observations an adversary who commits to all of them in advance; with adaptive ones an adversary
who sees everything. So Definition 2 says: for every adversary that the reading allows, the
expected sum of KL_h is at most eps. Its Lagrangian has a multiplier for each adversary, that is,
a total price lambda and a mixture of adversaries, and these act only through the *price of a nat
at h*, `y(h) = lambda P_adversary(h)`, with `P_adversary(h)` the probability that the mixture makes
the observations in h. Let `W(h)` be the probability that nu makes them
(`theory.process.observation_laws`). Then

    L(h) = max over pi(.|h) of  sum_a pi(a|h) G(h, a) - y(h) KL_h,    G(h, a) = sum_o L(hao),

with `L = W U` at the leaves, has the *soft policy* `pi ∝ beta exp(G / y)` as its maximiser and

    L(h) = y(h) ln sum_a beta(a|h) exp(G(h, a) / y(h)).

What prices prove about all policies within the budget: `toy_world.planners.certificate`.

**Semi-distributions.** pi is a full distribution wherever it can come: an agent acts. The mass
that beta misses (a program that does not halt, an imitator that asks for help) costs pi at least
`-ln beta(A|h)` at h, so that small budgets may be impossible to meet. (An agent that may ask
instead: `toy_world.planners.ask`.) The mass that nu misses ends the process, which then earns
nothing. What beta never does, pi never does.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from theory.arguments import as_member
from theory.arrays import FULL_MASS_ROUNDING, MASS_TOLERANCE
from theory.errors import (
    InvalidArgumentError,
    InvalidBudgetError,
    InvalidDistributionError,
    InvalidShapeError,
)
from theory.process import (
    EnvironmentTable,
    PolicyTable,
    Probability,
    UtilityTable,
    check_distributions,
    check_environment,
    check_policy,
    check_same_tree,
    observation_laws,
)

Floats: TypeAlias = NDArray[np.float64]
Levels: TypeAlias = tuple[Floats, ...]
"""One array a step; level t has a row for each of the (|A||O|)^t histories of t steps."""

LEAST_LOG_RATIO: Final = -800.0
"""Stands for ln 0 in `r exp(r)`: exp of it is 0 in float64, and the product is no NaN."""
LARGEST_LOG_RATIO: Final = 700.0
"""exp of it is finite in float64; from here on `exp(r) - 1` is `exp(r)` to rounding."""
TIE_TOLERANCE: Final = 1e-14
"""Action values this close, relative to the greatest utility, are a tie: sums round by less."""


class Reading(Enum):
    """Who chooses the observations for which a constraint is to hold (`theory.constraints`)."""

    EXPECTED = "expected"
    """The environment draws them."""
    FIXED = "fixed observations"
    """An adversary chooses all of them in advance."""
    ADAPTIVE = "adaptive observations"
    """An adversary chooses each after seeing the actions before it."""


class Divergence(Enum):
    """How far a policy is from the base policy: what a budget limits."""

    KL = "KL"
    """`KL(pi || beta)`, in nats."""
    REVERSE_KL = "reverse KL"
    """`KL(beta || pi)`, in nats."""
    CHI_SQUARED = "chi-squared"
    """`chi^2(pi || beta)`, a number without a unit."""
    TVD = "TVD"
    """The total variation distance, a number in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class PlanningProblem:
    """beta, nu and U of one tree in float64, beta without the actions that lead to dead ends.

    Attributes:
        beta: level t of shape ((|A||O|)^t, |A|); rows that are full but for rounding sum to 1,
            rows of histories that no affordable policy reaches are uniform.
        barred: 0 where beta takes an action, -inf where it does not; shapes as `beta`.
        missing: the mass that each row of beta misses, level t of shape ((|A||O|)^t,).
        nu: level t of shape ((|A||O|)^t, |A|, |O|).
        utility: shape ((|A||O|)^m,).
    """

    beta: Levels
    barred: Levels
    missing: Levels
    nu: Levels
    utility: Floats

    @property
    def n_observations(self) -> int:
        """|O|."""
        return int(self.nu[0].shape[2])

    @property
    def greatest_utility(self) -> float:
        """The scale of values, and hence of prices."""
        return float(self.utility.max())


def planning_problem(
    beta: PolicyTable, nu: EnvironmentTable, utility: UtilityTable, *, reading: Reading
) -> PlanningProblem:
    """Check the tables of one history tree and prepare them for planning.

    A dead end is a history at which beta takes no action, or only such as lead to dead ends;
    going there would cost infinitely many nats. In the expected reading an observation that nu
    never makes leads nowhere; in the other two an adversary may make any.

    Raises:
        InvalidShapeError: tables of different trees.
        InvalidDistributionError: negative, NaN or over-full probabilities.
        InvalidArgumentError: a utility outside [0, 1].
        InvalidBudgetError: the root is a dead end, so that no finite budget is enough.
    """
    reading = as_member(Reading, reading, name="reading")
    check_tables(beta, nu, utility)
    nu_rows = tuple(level.astype(np.float64) for level in nu)
    alive = np.ones(utility.shape, dtype=bool)
    rows: list[Floats] = []
    missing: list[Floats] = []
    for level, observations in zip(reversed(beta), reversed(nu_rows), strict=True):
        follows = alive.reshape(observations.shape)
        if reading is Reading.EXPECTED:
            follows = follows | (observations == 0)
        row = np.where(follows.all(axis=-1), full_but_for_rounding(level), 0.0)
        alive = last_axis_maxima(row) > 0
        lost = 1 - last_axis_sums(row)
        missing.append(np.where(alive & (lost > FULL_MASS_ROUNDING), lost, 0.0))
        rows.append(np.where(alive[:, None], row, 1 / row.shape[1]))
    if not alive.all():
        raise InvalidBudgetError(
            "every policy has infinite KL to beta, which stops (mass 0) on every path that it "
            "takes itself; give its rows some mass"
        )
    return PlanningProblem(
        beta=tuple(reversed(rows)),
        barred=tuple(np.where(row > 0, 0.0, -np.inf) for row in reversed(rows)),
        missing=tuple(reversed(missing)),
        nu=nu_rows,
        utility=utility.astype(np.float64),
    )


def check_tables(beta: PolicyTable, nu: EnvironmentTable, utility: UtilityTable) -> None:
    """Raise unless the tables are a policy, an environment and a utility of one tree.

    Raises:
        InvalidShapeError, InvalidDistributionError, InvalidArgumentError: as
            `planning_problem` says.
    """
    check_policy(beta, name="beta")
    check_environment(nu)
    check_same_tree(beta, nu)
    n_histories = 1
    for t, (actions, observations) in enumerate(zip(beta, nu, strict=True)):
        if observations.ndim != 3 or len(observations) != n_histories:
            raise InvalidShapeError(
                f"level {t} of nu must have shape ({n_histories}, |A|, |O|), got "
                f"{observations.shape}"
            )
        check_distributions(actions, name="beta")
        check_distributions(observations, name="nu")
        n_histories = observations.size
    if utility.shape != (n_histories,):
        raise InvalidShapeError(
            f"the utility needs an entry for each of the {n_histories} complete histories, got "
            f"shape {utility.shape}"
        )
    outside = utility[~((utility >= 0) & (utility <= 1))]
    if outside.size:
        raise InvalidArgumentError(f"U_m must lie in [0, 1], got {outside.flat[0]}")


def check_full_rows(table: PolicyTable, *, name: str, reason: str) -> None:
    """Raise unless every row is a distribution that misses no mass.

    Args:
        table: level t of shape ((|A||O|)^t, |A|).
        name: what it is, for the message.
        reason: why no mass may be missing, for the message.

    Raises:
        InvalidDistributionError: with the first offending number, or the least mass.
    """
    for level in table:
        check_distributions(level, name=name)
    mass = min(float(level.sum(axis=-1).min()) for level in table)
    if mass < 1 - MASS_TOLERANCE:
        raise InvalidDistributionError(f"rows of {name} must sum to 1, got {mass}; {reason}")


def check_budget(budget: Probability, *, name: str = "budget_nats") -> None:
    """Raise `InvalidBudgetError` unless `budget >= 0`."""
    if not budget >= 0:
        raise InvalidBudgetError(f"{name} must be >= 0, got {budget}")


def full_but_for_rounding(level: PolicyTable | Floats) -> Floats:
    """The rows in float64, those of mass 1 but for rounding (in excess, 1e-9) divided by it."""
    rows = np.asarray(level, dtype=np.float64)
    mass = last_axis_sums(rows)[:, None]
    return np.where(mass < 1 - FULL_MASS_ROUNDING, rows, rows / np.maximum(mass, 0.5))


def last_axis_sums(values: Floats) -> Floats:
    """`values.sum(axis=-1)`, twenty times faster where the last axis is short."""
    return functools.reduce(np.add, (values[..., i] for i in range(values.shape[-1])))


def last_axis_maxima(values: Floats) -> Floats:
    """`values.max(axis=-1)`, likewise."""
    return functools.reduce(np.maximum, (values[..., i] for i in range(values.shape[-1])))


def means_over_observations(observations: Floats, later: Floats) -> Floats:
    """`sum_o nu(o|ha) f(hao)`, shape (n, |A|), from nu (n, |A|, |O|) and f (n |A| |O|,)."""
    return last_axis_sums(observations * later.reshape(observations.shape))


def soft_maximum(
    beta: Floats, barred: Floats, missing: Floats, gains: Floats, price: Floats | float
) -> tuple[Floats, Floats, Floats]:
    """`max over pi of sum_a pi(a) G(a) - y KL(pi || beta)` in every row, and its maximiser.

    Accurate (absolute error of the log-ratios near 1e-16 of the greatest) at any price: for
    large ones the exponents are near 0 and `expm1` and `log1p` keep their digits.

    Args:
        beta: shape (n, |A|).
        barred: 0 for actions that may be taken, -inf for others, (n, |A|); at least one may be.
        missing: `1 - sum_a beta(a)`, (n,).
        gains: G, (n, |A|), finite.
        price: y > 0, (n,) or one number.

    Returns:
        The maximum (n,); pi (n, |A|); ln(pi/beta) (n, |A|), `LEAST_LOG_RATIO` at least.
    """
    allowed = gains + barred
    top = last_axis_maxima(allowed)
    with np.errstate(over="ignore"):
        exponents = (allowed - top[:, None]) / np.asarray(price)[..., None]
    if exponents.min() > -1:
        # The logarithm of a number near 1 needs the digits of its distance from 1.
        powers = np.expm1(exponents)
        excess = last_axis_sums(beta * powers) - missing
        log_total, total = np.log1p(excess), 1 + excess
        powers += 1
    else:
        powers = np.exp(exponents)
        total = last_axis_sums(beta * powers)
        log_total = np.log(total)
    pi = beta * powers / total[:, None]
    log_ratio = np.maximum(exponents - log_total[:, None], LEAST_LOG_RATIO)
    return top + price * log_total, pi, log_ratio


def kl_of_log_ratio(beta: Floats, missing: Floats, pi: Floats, log_ratio: Floats) -> Floats:
    """`KL(pi || beta)` of full rows `pi = beta exp(r)`, shape (n,).

    As a sum of terms `beta (r e^r - e^r + 1) >= 0` and the missing mass, so that a small KL
    keeps its digits.
    """
    if log_ratio.max() < LARGEST_LOG_RATIO:
        gap = beta * np.expm1(log_ratio)
    else:
        moderate = np.minimum(log_ratio, LARGEST_LOG_RATIO)
        gap = np.where(log_ratio > moderate, pi - beta, beta * np.expm1(moderate))
    terms = pi * log_ratio - gap
    return last_axis_sums(terms) + missing


def optimal_actions(problem: PlanningProblem) -> tuple[Levels, float]:
    """The optimal among beta's actions, and the value V* that they reach.

    Returns:
        0 for them and -inf for all others, shapes as beta. At histories that nu never makes
        every action of beta is optimal.
    """
    V = problem.utility
    world = observation_laws(problem.nu)
    tie = TIE_TOLERANCE * problem.greatest_utility
    allowed: list[Floats] = []
    for t in range(len(problem.beta) - 1, -1, -1):
        Q = means_over_observations(problem.nu[t], V) + problem.barred[t]
        V = last_axis_maxima(Q)
        optimal = (V[:, None] - Q <= tie) | (world[t] == 0)[:, None]
        allowed.append(np.where(optimal, problem.barred[t], -np.inf))
    return tuple(reversed(allowed)), float(V[0])


def least_kl_policy(
    problem: PlanningProblem, *, allowed: Levels, reading: Reading
) -> tuple[PolicyTable, float]:
    """Of all policies with `allowed` actions that of least KL, and its KL.

    By backward recursion `pi ∝ beta exp(-F)`, `KL = -ln sum_a beta exp(-F)`, with `F(h, a)` the
    KL of what follows: its mean over nu's observations in the expected reading, and its maximum
    in the adaptive one. With fixed observations that maximum is an upper bound.
    """
    kl = np.zeros_like(problem.utility)
    pi: list[Floats] = []
    for t in range(len(problem.beta) - 1, -1, -1):
        if reading is Reading.EXPECTED:
            future = means_over_observations(problem.nu[t], kl)
        else:
            future = last_axis_maxima(kl.reshape(problem.nu[t].shape))
        rewarded, actions, _ = soft_maximum(
            problem.beta[t], allowed[t], problem.missing[t], -future, 1.0
        )
        kl = -rewarded
        pi.append(actions)
    return tuple(reversed(pi)), max(0.0, float(kl[0]))


def mix_policies(
    first: PolicyTable,
    second: PolicyTable,
    share: float,
    *,
    n_observations: int,
    law: Callable[[int, Floats], Floats] | None = None,
) -> PolicyTable:
    """The policy that follows `first` throughout with probability `1 - share`, else `second`.

    Its probability of any sequence of decisions, observations given, is the weighted mean of
    theirs.

    Args:
        first: level t of shape ((|A||O|)^t, number of decisions).
        second: the same.
        share: in [0, 1].
        n_observations: |O|.
        law: the probabilities of actions, (n, |A|), that decisions of level t, (n, number of
            decisions), amount to; None where the decisions are the actions.
    """
    mixed = []
    reach_first, reach_second = np.array([1 - share]), np.array([share])
    for t, (rows_first, rows_second) in enumerate(zip(first, second, strict=True)):
        flow_first = reach_first[:, None] * rows_first
        flow_second = reach_second[:, None] * rows_second
        reach = reach_first + reach_second
        reached = (reach > 0)[:, None]
        divisor = np.where(reached, reach[:, None], 1.0)
        mixed.append(np.where(reached, (flow_first + flow_second) / divisor, rows_first))
        if law is not None:
            flow_first, flow_second = law(t, flow_first), law(t, flow_second)
        reach_first = np.repeat(flow_first.reshape(-1), n_observations)
        reach_second = np.repeat(flow_second.reshape(-1), n_observations)
    return tuple(mixed)


def observation_prefixes(
    *, n_actions: int, n_observations: int, horizon: int
) -> list[NDArray[np.intp]]:
    """The observations in every history, as one index into their lexicographic order.

    Returns:
        `horizon` levels of integers in 0..|O|^t - 1, level t of shape ((|A||O|)^t,).
    """
    levels: list[NDArray[np.intp]] = [np.zeros(1, dtype=np.intp)]
    observations = np.tile(np.arange(n_observations), n_actions)
    for _ in range(horizon - 1):
        levels.append((levels[-1][:, None] * n_observations + observations).reshape(-1))
    return levels
