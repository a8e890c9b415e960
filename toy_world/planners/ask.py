r"""The optimal planner whose base policy may ask for help, with asking as an action.

A pessimistic imitator `nu_alpha` (Definition 4) misses mass: with probability `theta_q(h) = 1 -
sum_a nu_alpha(a|h)` it asks its demonstrator. Here the agent decides itself, at every history,
whether to *act* by a full distribution pi over A, at `KL(pi || nu_alpha) >= -ln(1 - theta_q)` nats,
or to *ask*, at no cost; then the demonstrator, or whoever helps, acts in that step. It may draw
lots between the two. With q the probability of asking the constraint is

    E sum_t (1 - q(h_t)) KL(pi(.|h_t) || nu_alpha(.|h_t)) <= eps,

the expectation over nu and over the actions that come about, `q help + (1 - q) pi`.

*What it guarantees.* Where `nu_alpha <= mu` (Theorem 4: mu is in the top set throughout) and help
is mu's, `KL(q mu + (1 - q) pi || mu) <= (1 - q) KL(pi || mu) <= (1 - q) KL(pi || nu_alpha)` by
convexity, so the action sequences have KL at most eps to the demonstrator mu, and what mu never
does is never done. `nu_alpha` must be that of a posterior that the agent's own actions leave
alone (`Update.DEMONSTRATOR` in theory/bayes_mixture.py): otherwise the agent can drive mu out of
the top set.

*The plan.* In sequence form (the probability of asking and of each action at each history, given
its observations) value is linear and the constraint convex, so that one multiplier lambda is
enough. At lambda the agent maximises

    S(h) = max( lambda ln sum_a nu_alpha(a|h) exp(Q(h, a) / lambda),  sum_a help(a|h) Q(h, a) ),

and asks where the second is no less. As lambda falls the choice between asking and acting flips
at some history and the KL jumps there; the optimum at a budget inside the jump mixes the policies
at its two ends, which have the same Lagrangian (`toy_world.planners.lagrangian`). At
`eps = 0` the agent acts as the base does or asks, whichever is better; where the base misses mass
it can only ask.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory.arrays import FULL_MASS_ROUNDING
from theory.constraints import step_kl_nats
from theory.process import (
    EnvironmentTable,
    PolicyTable,
    UtilityTable,
    check_same_tree,
    reach_probabilities,
    values,
)
from toy_world.planners.certificate import Plan
from toy_world.planners.lagrangian import Relaxed, attain_budget
from toy_world.planners.problem import (
    TIE_TOLERANCE,
    Divergence,
    Floats,
    Levels,
    Reading,
    check_budget,
    check_full_rows,
    check_tables,
    full_but_for_rounding,
    kl_of_log_ratio,
    last_axis_maxima,
    last_axis_sums,
    means_over_observations,
    mix_policies,
    soft_maximum,
)


@dataclass(frozen=True, kw_only=True)
class AskingPlan(Plan[float]):
    """A plan that may ask for help.

    Its `pi` is how the agent acts when it acts (uniform where it never does), its `value` that of
    `law`, and it has `attained` the expected KL of acting.

    Attributes:
        asking: q(h), the probability that it asks, level t of shape ((|A||O|)^t,).
        law: the actions that come about, `q help + (1 - q) pi`.
        expected_asks: the expected number of steps in which it asks.
    """

    asking: Levels
    law: PolicyTable
    expected_asks: float


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """base, help, nu and U in float64; decisions are the actions and, last, to ask.

    Attributes:
        base: rows that are silent (of mass 0) are uniform, level t of shape (n, |A|).
        barred: 0 for the actions that base takes, else -inf (0 in silent rows).
        missing: the mass that each row misses, (n,).
        silent: where the agent can only ask, (n,).
        help: full rows.
        nu: level t of shape (n, |A|, |O|).
        utility: shape ((|A||O|)^m,).
    """

    base: Levels
    barred: Levels
    missing: Levels
    silent: tuple[NDArray[np.bool_], ...]
    help: Levels
    nu: Levels
    utility: Floats

    @property
    def n_observations(self) -> int:
        return int(self.nu[0].shape[2])

    def law(self, t: int, decisions: Floats) -> Floats:
        """The actions that come of decisions at level t."""
        return decisions[:, :-1] + decisions[:, -1:] * self.help[t]


def asking_optimum(
    base: PolicyTable,
    nu: EnvironmentTable,
    utility: UtilityTable,
    *,
    help_policy: PolicyTable,
    budget_nats: float,
) -> AskingPlan:
    """The best plan whose expected KL of acting to `base` is at most `budget_nats`.

    Where the constraint binds, the attained KL is `budget_nats` to 1e-12 nats (as for
    `expected_kl_optimum`) and the gap is below 1e-12, or 1e-14
    nats at the multiplier where that is more (tiny budgets, semi-distributions).

    Args:
        base: the imitator, `nu_alpha`; rows of mass 0 leave nothing but to ask.
        nu: environment, of value and KL; may be a semi-distribution.
        utility: `U_m` in [0, 1].
        help_policy: what acts when the agent asks, full rows.
        budget_nats: eps >= 0; `math.inf` for base's support as the only constraint.

    Raises:
        InvalidBudgetError: negative or NaN.
        InvalidDistributionError: a help policy that misses mass, or no probabilities.
        InvalidShapeError, InvalidArgumentError: as `planning_problem` says.
    """
    check_budget(budget_nats)
    problem = _problem(base, nu, utility, help_policy)

    def mixed(first: PolicyTable, second: PolicyTable, share: float) -> PolicyTable:
        return mix_policies(
            first, second, share, n_observations=problem.n_observations, law=problem.law
        )

    found = attain_budget(
        relaxed=lambda multiplier: _relaxed(problem, multiplier),
        mixed=mixed,
        kl_nats=lambda decisions: _kl_of_acting(problem, decisions),
        least=_free(problem),
        greedy=_greedy(problem),
        budget_nats=budget_nats,
        greatest_utility=float(problem.utility.max()),
    )
    law = tuple(problem.law(t, level) for t, level in enumerate(found.policy))
    asking = tuple(level[:, -1] for level in found.policy)
    value = float(values(law, problem.nu, problem.utility)[0][0])
    multiplier, bound = found.certificate(value=value, budget_nats=budget_nats)
    reach = reach_probabilities(law, problem.nu)
    return AskingPlan(
        pi=_acting(found.policy),
        asking=asking,
        law=law,
        value=value,
        bound=bound,
        divergence=Divergence.KL,
        reading=Reading.EXPECTED,
        budget=budget_nats,
        attained=found.kl_nats,
        multiplier=multiplier,
        expected_asks=float(sum(x @ q for x, q in zip(reach, asking, strict=False))),
    )


def _problem(
    base: PolicyTable, nu: EnvironmentTable, utility: UtilityTable, help_policy: PolicyTable
) -> _Problem:
    check_tables(base, nu, utility)
    check_same_tree(base, help_policy)
    check_full_rows(help_policy, name="the help policy", reason="whoever is asked must act")
    rows = [full_but_for_rounding(level) for level in base]
    masses = [last_axis_sums(level) for level in rows]
    silent = tuple(mass == 0 for mass in masses)
    return _Problem(
        base=tuple(
            np.where(no[:, None], 1 / level.shape[1], level)
            for level, no in zip(rows, silent, strict=True)
        ),
        barred=tuple(
            np.where((level > 0) | no[:, None], 0.0, -np.inf)
            for level, no in zip(rows, silent, strict=True)
        ),
        missing=tuple(
            np.where(no | (mass > 1 - FULL_MASS_ROUNDING), 0.0, 1 - mass)
            for mass, no in zip(masses, silent, strict=True)
        ),
        silent=silent,
        help=tuple(full_but_for_rounding(level) for level in help_policy),
        nu=tuple(level.astype(np.float64) for level in nu),
        utility=utility.astype(np.float64),
    )


def _relaxed(problem: _Problem, multiplier: float) -> Relaxed[PolicyTable]:
    """The decisions that maximise value - multiplier * KL."""
    V, kl = problem.utility, np.zeros_like(problem.utility)
    decisions: list[Floats] = []
    for t in range(len(problem.base) - 1, -1, -1):
        base, missing, helper = problem.base[t], problem.missing[t], problem.help[t]
        gains = means_over_observations(problem.nu[t], V)
        future = means_over_observations(problem.nu[t], kl)
        act, pi, log_ratio = soft_maximum(base, problem.barred[t], missing, gains, multiplier)
        ask = last_axis_sums(helper * gains)
        asks = (ask >= act) | problem.silent[t]
        V = np.where(asks, ask, act)
        kl = np.where(
            asks,
            last_axis_sums(helper * future),
            kl_of_log_ratio(base, missing, pi, log_ratio) + last_axis_sums(pi * future),
        )
        decisions.append(_decisions(asks, pi))
    return Relaxed(
        policy=tuple(reversed(decisions)),
        kl_nats=float(kl[0]),
        multiplier=multiplier,
        soft_value=float(V[0]),
    )


def _free(problem: _Problem) -> Relaxed[PolicyTable]:
    """Of the decisions that cost nothing, to ask and to act as a full base does, the best."""
    V = problem.utility
    decisions: list[Floats] = []
    for t in range(len(problem.base) - 1, -1, -1):
        gains = means_over_observations(problem.nu[t], V)
        act = last_axis_sums(problem.base[t] * gains)
        ask = last_axis_sums(problem.help[t] * gains)
        asks = (ask >= act) | problem.silent[t] | (problem.missing[t] > 0)
        V = np.where(asks, ask, act)
        decisions.append(_decisions(asks, problem.base[t]))
    return Relaxed(
        policy=tuple(reversed(decisions)), kl_nats=0.0, multiplier=math.inf, soft_value=math.nan
    )


def _greedy(problem: _Problem) -> Relaxed[PolicyTable]:
    """Of all optimal decisions those of least KL."""
    V, kl = problem.utility, np.zeros_like(problem.utility)
    tie = TIE_TOLERANCE * float(problem.utility.max())
    decisions: list[Floats] = []
    for t in range(len(problem.base) - 1, -1, -1):
        gains = means_over_observations(problem.nu[t], V)
        future = means_over_observations(problem.nu[t], kl)
        by_action = gains + problem.barred[t]
        act = np.where(problem.silent[t], -np.inf, last_axis_maxima(by_action))
        ask = last_axis_sums(problem.help[t] * gains)
        V = np.maximum(act, ask)
        among = np.where(last_axis_maxima(by_action)[:, None] - by_action <= tie, 0.0, -np.inf)
        rewarded, pi, _ = soft_maximum(problem.base[t], among, problem.missing[t], -future, 1.0)
        kl_ask = last_axis_sums(problem.help[t] * future)
        asks = np.where(V - act > tie, True, (V - ask <= tie) & (kl_ask <= -rewarded))
        kl = np.where(asks, kl_ask, -rewarded)
        decisions.append(_decisions(asks, pi))
    return Relaxed(
        policy=tuple(reversed(decisions)),
        kl_nats=float(kl[0]),
        multiplier=0.0,
        soft_value=float(V[0]),
    )


def _decisions(asks: NDArray[np.bool_], pi: Floats) -> Floats:
    return np.concatenate([np.where(asks[:, None], 0.0, pi), asks[:, None]], axis=1)


def _acting(decisions: PolicyTable) -> PolicyTable:
    """pi, uniform where the agent never acts."""
    acting = []
    for level in decisions:
        flow = level[:, :-1]
        mass = last_axis_sums(flow)[:, None]
        acts = mass > 0
        acting.append(np.where(acts, flow / np.where(acts, mass, 1.0), 1 / flow.shape[1]))
    return tuple(acting)


def _kl_of_acting(problem: _Problem, decisions: PolicyTable) -> float:
    law = tuple(problem.law(t, level) for t, level in enumerate(decisions))
    steps = step_kl_nats(_acting(decisions), problem.base)
    total = 0.0
    for x, level, kl in zip(reach_probabilities(law, problem.nu), decisions, steps, strict=False):
        acts = 1 - level[:, -1]
        total += float(np.where(acts > 0, x * acts * np.where(acts > 0, kl, 0.0), 0.0).sum())
    return total
