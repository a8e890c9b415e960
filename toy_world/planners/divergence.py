r"""The optimal planner under a reverse-KL or a chi-squared budget, by an interior-point method.

In sequence form (`toy_world.planners.tvd`) x(ha) is the probability of the actions in ha,
observations given. Let b be beta's, W(h) the probability under nu of the observations in h, and
E(ha) the probability under nu that the process ends with a, the actions given: W(h) if a is the
last action, else what nu misses, `W(h) (1 - sum_o nu(o|ha))`. Between the joint laws of actions
and observations, in nu,

    reverse KL:   D(x) = sum_h W(h) b(h) KL(beta(.|h) || pi(.|h))
                       = sum_{ha} E(ha) b(ha) ln(b(ha) / x(ha)),
    chi-squared:  D(x) = sum_{ha} W(h) (x(ha) - b(ha))^2 / b(ha),   a the last action,

are convex in x, and value is linear: `V = r x`. Under chi-squared, as under KL, what beta never
does is barred; under reverse KL it is not, and costs nothing but the probability that is taken from
what beta does. Every process ends, `sum E x = 1` for every flow x, so that `E (x - b)` may be added
to each term of the reverse KL: without that term a small D would have no digits.

*Method.* A primal-dual interior-point method: Newton steps towards flows x, reduced costs s >= 0
and multipliers w and lambda with `lambda D'(x) + A' w = r + s`, `A x = e` (what leaves a history
came to it), `lambda (eps - D(x)) = mu` and `x s = mu` for every variable, mu falling to 0.
*Certificate*, for any point x^ and any lambda >= 0: by convexity every flow x with
`D(x) <= eps` has

    r x <= r x + lambda (eps - D(x)) <= lambda (eps - D(x^) + D'(x^) x^) + (r - lambda D'(x^)) x,

and the greatest value of the linear function on the right is found by backward induction. So the
bound holds whatever the interior-point method did, but for rounding. `lambda = 0` gives the
greatest value without a constraint.

*At both ends of the range* float64 is too coarse for the method, and a policy in closed form takes
its place: for large reverse-KL budgets the mixture of the best policy without a constraint and the
least share of beta that keeps the budget, at most `exp(-eps)`, so that its value is at least
`1 - exp(-eps)` of the greatest; for tiny budgets beta itself, for `D <= eps` moves no event's
probability by more than `sqrt(eps / 2)`
(reverse KL, Pinsker), and the value by no more than `sqrt(eps)` times the greatest utility
(chi-squared, Cauchy-Schwarz).
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from theory.arguments import as_member
from theory.arrays import FULL_MASS_ROUNDING
from theory.constraints import expected_chi_squared, expected_reverse_kl_nats
from theory.divergences import exp_minus_tangent
from theory.errors import InvalidArgumentError, InvalidBudgetError, SolverError
from theory.process import (
    EnvironmentTable,
    PolicyTable,
    UtilityTable,
    action_values,
    optimal_values,
    values,
)
from toy_world.planners.certificate import Plan
from toy_world.planners.problem import (
    Divergence,
    Floats,
    Reading,
    check_budget,
    check_full_rows,
    check_tables,
    full_but_for_rounding,
    last_axis_sums,
    mix_policies,
)

GAP: Final = 1e-9
"""The gap that the method aims at, relative to the greatest utility."""
GREATEST_GAP: Final = 1e-6
"""The gap that is accepted, likewise."""
CENTRING: Final = 0.2
"""What each step aims to leave of the products `x s`."""
NEAR_EDGE: Final = 0.99
"""How much of the way to the edge of the feasible cone a step may go."""
MOST_STEPS: Final = 100
LARGE: Final = 1.0
"""Reverse-KL budgets above this leave some probabilities far below beta's."""
LEAST_LOG_SHARE: Final = math.log(1e-16)
"""Of beta, in a mixture with a policy that exceeds the budget."""
SHARE_STEPS: Final = 24
ROUNDING: Final = 1e-13
"""How much sums of float64 numbers may be off, relative to the greatest of them."""
REFINEMENTS: Final = 3
REGULARISATION: Final = 1e-13
"""Keeps Newton's equations solvable where constraints become dependent; refinement undoes it."""


@dataclass(frozen=True, kw_only=True)
class _Flows:
    """The flows of the histories that may come, all steps in one vector.

    Attributes:
        place: of the variable of each (history, action), -1 if there is none, by level.
        conserve: `A x = e`: what goes on from each history is what came to it.
        entering: e.
        base: b of every variable.
        weight: E of every variable for reverse KL; for chi-squared W of the last actions, else 0.
        reward: r, 0 but for the last actions.
    """

    place: tuple[NDArray[np.intp], ...]
    conserve: Floats
    entering: Floats
    base: Floats
    weight: Floats
    reward: Floats

    @property
    def n(self) -> int:
        """How many variables there are."""
        return int(self.conserve.shape[1])


def divergence_optimum(
    beta: PolicyTable,
    nu: EnvironmentTable,
    utility: UtilityTable,
    *,
    divergence: Divergence,
    budget: float,
) -> Plan[float]:
    """The best policy whose divergence from `beta` in `nu` is at most `budget`.

    The plan is within the budget, and the gap between 0 (but for rounding) and 1e-6 of the
    greatest utility, usually below 1e-9. Memory and time grow with the square and cube of the
    number of histories: for small trees (a few hundred).

    Args:
        beta: base policy, full rows.
        nu: environment, of value and divergence; may be a semi-distribution.
        utility: `U_m` in [0, 1].
        divergence: `REVERSE_KL` or `CHI_SQUARED`.
        budget: eps >= 0, finite; 0 is beta itself.

    Raises:
        InvalidArgumentError: another divergence.
        InvalidBudgetError: negative, NaN or infinite.
        InvalidDistributionError: rows of beta that miss mass, or no probabilities.
        InvalidShapeError, InvalidArgumentError: as `planning_problem` says.
        SolverError: the method did not reach its gap.
    """
    divergence = as_member(Divergence, divergence, name="divergence")
    if divergence not in (Divergence.REVERSE_KL, Divergence.CHI_SQUARED):
        raise InvalidArgumentError(
            f"divergence must be reverse KL or chi-squared, got {divergence.value}; the other "
            "planners of toy_world.planners are for KL and TVD"
        )
    check_budget(budget, name="budget")
    if budget == math.inf:
        raise InvalidBudgetError("budget must be finite (no constraint needs no planner), got inf")
    check_tables(beta, nu, utility)
    check_full_rows(beta, name="beta", reason="these divergences compare full laws")
    rows = tuple(full_but_for_rounding(level) for level in beta)
    world = tuple(full_but_for_rounding(row).reshape(level.shape) for row, level in _flat(nu))
    payoff = utility.astype(np.float64)
    scale = float(payoff.max())

    def value_of(policy: PolicyTable) -> float:
        return float(values(policy, world, payoff)[0][0])

    if budget == 0 or scale == 0:
        value = value_of(rows)
        return _plan(rows, rows, world, divergence, budget, value, value, math.inf)
    flows = _flows(rows, world, payoff, divergence)
    start = _start(flows, rows, world, divergence, budget)
    plans, bounds = _closed_forms(rows, world, payoff, divergence, budget)
    # Which form of Newton's equations suits a reverse KL is a matter of how far x gets below b.
    forms = [budget > LARGE, budget <= LARGE] if divergence is Divergence.REVERSE_KL else [False]
    for by_products in forms:
        x, multiplier = _interior_point(flows, divergence, budget, scale, start, by_products)
        plans.append(_within(_policy(flows, x, rows), rows, world, divergence, budget))
        bounds.append((_bound(flows, world, divergence, budget, x, multiplier), multiplier))
        value, pi = max(((value_of(pi), pi) for pi in plans), key=lambda found: found[0])
        # What is below the value of a policy within the budget bounds nothing: it has rounded.
        certified = [found for found in bounds if found[0] >= value - ROUNDING * scale]
        bound, multiplier = min(certified, default=(math.inf, math.inf))
        if bound - value <= GREATEST_GAP * scale:
            return _plan(pi, rows, world, divergence, budget, value, bound, multiplier)
    raise SolverError(
        f"the interior-point method ended with a gap of {bound - value} (value {value}, bound "
        f"{bound}); the budget, or probabilities of beta, may be too small for it"
    )


def _closed_forms(
    beta: tuple[Floats, ...],
    nu: tuple[Floats, ...],
    utility: Floats,
    divergence: Divergence,
    budget: float,
) -> tuple[list[PolicyTable], list[tuple[float, float]]]:
    """Policies within the budget, and bounds with their multipliers (see the module)."""
    plans: list[PolicyTable] = [beta]
    bounds: list[tuple[float, float]] = []
    moved = math.sqrt(budget)
    if divergence is Divergence.REVERSE_KL:
        moved = math.sqrt(budget / 2)
        plans.append(_within(_greedy(nu, utility), beta, nu, divergence, budget))
        bounds.append((float(optimal_values(nu, utility)[0][0]), 0.0))
    slope = float(utility.max()) * moved
    bounds.append((float(values(beta, nu, utility)[0][0]) + slope, slope / (2 * budget)))
    return plans, bounds


def _flat(nu: EnvironmentTable) -> list[tuple[Floats, Floats]]:
    """Each level as rows of |O| probabilities, and as it is."""
    return [(level.reshape(-1, level.shape[-1]), level) for level in nu]


def _within(
    pi: PolicyTable,
    beta: tuple[Floats, ...],
    nu: tuple[Floats, ...],
    divergence: Divergence,
    budget: float,
) -> PolicyTable:
    """The policy, mixed with beta as far as it exceeds the budget."""

    def mixed(share: float) -> PolicyTable:
        return mix_policies(pi, beta, share, n_observations=nu[0].shape[2])

    if _attained(pi, beta, nu, divergence) <= budget:
        return pi
    # D falls with beta's share: the least share that is enough, to a digit, by its exponent.
    enough, too_little = 0.0, LEAST_LOG_SHARE
    for _ in range(SHARE_STEPS):
        middle = (enough + too_little) / 2
        if _attained(mixed(math.exp(middle)), beta, nu, divergence) <= budget:
            enough = middle
        else:
            too_little = middle
    return mixed(math.exp(enough))


def _greedy(nu: tuple[Floats, ...], utility: Floats) -> PolicyTable:
    """A policy of the greatest value of all, with or without beta's support."""
    best = optimal_values(nu, utility)
    policy = []
    for observations, later in zip(nu, best[1:], strict=True):
        gains = action_values(observations, later)
        policy.append(np.eye(gains.shape[1])[gains.argmax(axis=1)])
    return tuple(policy)


def _attained(
    pi: PolicyTable, beta: PolicyTable, nu: EnvironmentTable, divergence: Divergence
) -> float:
    if divergence is Divergence.REVERSE_KL:
        return float(expected_reverse_kl_nats(pi, beta, nu))
    return float(expected_chi_squared(pi, beta, nu))


def _plan(
    pi: PolicyTable,
    beta: PolicyTable,
    nu: EnvironmentTable,
    divergence: Divergence,
    budget: float,
    value: float,
    bound: float,
    multiplier: float,
) -> Plan[float]:
    return Plan[float](
        pi=pi,
        value=value,
        bound=bound,
        divergence=divergence,
        reading=Reading.EXPECTED,
        budget=budget,
        attained=_attained(pi, beta, nu, divergence),
        multiplier=multiplier,
    )


def _flows(
    beta: tuple[Floats, ...], nu: tuple[Floats, ...], utility: Floats, divergence: Divergence
) -> _Flows:
    n_observations = nu[0].shape[2]
    n, world, base = 0, np.ones(1), np.ones(1)
    bases: list[Floats] = []
    weights: list[Floats] = []
    comes = np.ones(1, dtype=np.bool_)
    source = np.full(1, -1, dtype=np.intp)  # the variable that leads to each history
    place: list[NDArray[np.intp]] = []
    rows: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
    for t, (actions, observations) in enumerate(zip(beta, nu, strict=True)):
        allowed = np.broadcast_to(comes[:, None], actions.shape)
        if divergence is Divergence.CHI_SQUARED:
            allowed = allowed & (actions > 0)
        level = np.full(actions.shape, -1, dtype=np.intp)
        level[allowed] = n + np.arange(allowed.sum())
        n += int(allowed.sum())
        place.append(level)
        rows += [(source[h : h + 1], level[h][allowed[h]]) for h in np.flatnonzero(comes)]
        base_after = base[:, None] * actions
        bases.append(base_after[allowed])
        ends = np.full(actions.shape, float(t == len(beta) - 1))
        if divergence is Divergence.REVERSE_KL and not ends.any():
            missed = 1 - last_axis_sums(observations)
            ends = np.where(missed > FULL_MASS_ROUNDING, missed, 0.0)
        weights.append((world[:, None] * ends)[allowed])
        if t == len(beta) - 1:
            break
        seen = world[:, None, None] * observations
        comes = (allowed[:, :, None] & (seen > 0)).reshape(-1)
        world = seen.reshape(-1)
        source = np.repeat(level.reshape(-1), n_observations)
        base = np.repeat(base_after.reshape(-1), n_observations)
    conserve, entering = np.zeros((len(rows), n)), np.zeros(len(rows))
    for i, (before, after) in enumerate(rows):
        conserve[i, after] = 1.0
        if before[0] < 0:
            entering[i] = 1.0
        else:
            conserve[i, before] = -1.0
    last = place[-1] >= 0
    earned = last_axis_sums(nu[-1] * utility.reshape(nu[-1].shape))
    reward = np.zeros(n)
    reward[place[-1][last]] = (world[:, None] * earned)[last]
    return _Flows(
        place=tuple(place),
        conserve=conserve,
        entering=entering,
        base=np.concatenate(bases),
        weight=np.concatenate(weights),
        reward=reward,
    )


def _start(
    flows: _Flows,
    beta: tuple[Floats, ...],
    nu: tuple[Floats, ...],
    divergence: Divergence,
    budget: float,
) -> Floats:
    """Positive flows within half the budget: a mixture of beta and a uniform policy."""
    both = []
    uniform = tuple(
        np.where(place >= 0, 1.0, 0.0) / np.maximum((place >= 0).sum(axis=1), 1)[:, None]
        for place in flows.place
    )
    for policy in (beta, uniform):
        x, reach = np.zeros(flows.n), np.ones(1)
        for place, actions, observations in zip(flows.place, policy, nu, strict=True):
            flow = reach[:, None] * actions
            x[place[place >= 0]] = flow[place >= 0]
            reach = np.repeat(flow.reshape(-1), observations.shape[2])
        both.append(x)
    base, start = both
    while _measure(flows, divergence, start)[0] > budget / 2:
        start = (base + start) / 2
    return start


def _measure(flows: _Flows, divergence: Divergence, x: Floats) -> tuple[float, Floats, Floats]:
    """D, its gradient and its (diagonal) second derivative, from `x - b` so that they are exact."""
    b, w = flows.base, flows.weight
    apart = x - b
    if divergence is Divergence.CHI_SQUARED:
        return float(w @ (apart**2 / b)), 2 * w * apart / b, 2 * w / b
    taken = (b > 0) & (w > 0)
    ratio = np.where(taken, apart / np.where(taken, b, 1.0), 0.0)  # x / b - 1
    # b (u - ln(1 + u)) = b ln(b / x) + x - b = b phi(ln(1 + u)); where beta never comes, x.
    with np.errstate(divide="ignore"):
        terms = np.where(taken, b * exp_minus_tangent(np.log1p(ratio)), x)
    return float(w @ terms), w * apart / x, w * b / x**2


@dataclass(frozen=True, kw_only=True)
class _Iterate:
    """Where the interior-point method is; all but `w` are positive.

    Attributes:
        x: the flows.
        costs: the reduced costs, s.
        w: the multipliers of `A x = e`.
        multiplier: lambda.
        room: what is left of the budget, `eps - D`; an unknown of its own until the end.
    """

    x: Floats
    costs: Floats
    w: Floats
    multiplier: float
    room: float


@dataclass(frozen=True, kw_only=True)
class _Residuals:
    """By how much an iterate misses each of the optimality conditions.

    Attributes:
        slope: D'(x).
        curvature: the diagonal of what Newton's equations hold of `lambda D''(x)`.
        products_by_multiplier: what the products `x s` are to be at the optimum, for lambda = 1.
        products: the same for the iterate's lambda.
        mean: mu, of the products that are to be 0, `lambda room` among them.
        uneven: the largest miss of the other s.
        dual: of the stationarity in x.
        primal: of `A x = e`.
        over: of `D + room = eps`.
    """

    slope: Floats
    curvature: Floats
    products_by_multiplier: Floats
    products: Floats
    mean: float
    uneven: float
    dual: Floats
    primal: Floats
    over: float


def _interior_point(
    flows: _Flows,
    divergence: Divergence,
    budget: float,
    scale: float,
    x: Floats,
    by_products: bool,
) -> tuple[Floats, float]:
    """Flows and the multiplier that satisfy the optimality conditions, but for about `GAP`.

    `by_products`: a reverse KL whose slope is a product `x s` of its own (see `_residuals`).
    """
    n_rows, n = flows.conserve.shape
    # A small budget buys about its square root.
    multiplier = scale / max(budget, math.sqrt(budget))
    room = budget - _measure(flows, divergence, x)[0]
    at = _Iterate(
        x=x, costs=multiplier * room / x, w=np.zeros(n_rows), multiplier=multiplier, room=room
    )
    least, best = math.inf, at
    for _ in range(MOST_STEPS):
        missed = _residuals(flows, divergence, budget, at, by_products)
        miss = (
            max(
                missed.mean * (n + 1),
                missed.uneven,
                np.abs(missed.dual).max(),
                np.abs(missed.primal).max(),
                at.multiplier * abs(missed.over),
            )
            / scale
        )
        if miss < least:
            least, best = miss, at
        if miss <= GAP / 10:
            break
        step = _newton(flows, at, missed)
        if step is None:
            break  # the certificate judges the best point so far
        at = _moved(at, *step, missed, target=CENTRING * missed.mean)
    return best.x, best.multiplier


def _residuals(
    flows: _Flows, divergence: Divergence, budget: float, at: _Iterate, by_products: bool
) -> _Residuals:
    A = flows.conserve
    value, slope, curvature = _measure(flows, divergence, at.x)
    linear, by_multiplier = slope, np.zeros(flows.n)
    if by_products:
        # The part E b / x of the slope is far from linear where x is small. It joins the reduced
        # costs s, so that `x s = lambda E b` (+ mu) takes its place, and costs no curvature.
        linear, by_multiplier = flows.weight, flows.weight * flows.base
        curvature = np.zeros(flows.n)
    products = at.multiplier * by_multiplier
    complementary = at.x * at.costs - products
    free = by_multiplier == 0
    return _Residuals(
        slope=slope,
        curvature=at.multiplier * curvature,
        products=products,
        products_by_multiplier=by_multiplier,
        mean=float(complementary[free].sum() + at.multiplier * at.room) / (int(free.sum()) + 1),
        uneven=float(np.abs(complementary / at.x)[~free].max(initial=0.0)),
        dual=flows.reward - at.multiplier * linear - A.T @ at.w + at.costs,
        primal=flows.entering - A @ at.x,
        over=budget - value - at.room,
    )


def _newton(flows: _Flows, at: _Iterate, missed: _Residuals) -> tuple[Floats, Floats, float] | None:
    """Newton's direction in x, w and lambda; None where float64 is too coarse for one.

    Costs and room are eliminated. The equations are in units in which x and s weigh alike, and
    their rows for `A x = e` are scaled to a greatest entry of 1.
    """
    n_rows, n = flows.conserve.shape
    target = CENTRING * missed.mean
    unit = 1 / np.sqrt(at.costs / at.x + missed.curvature)
    kkt = np.zeros((n + n_rows + 1, n + n_rows + 1))
    kkt[range(n), range(n)] = 1.0
    scaled = flows.conserve * unit
    norms = np.abs(scaled).max(axis=1)
    scaled /= norms[:, None]
    kkt[:n, n : n + n_rows], kkt[n : n + n_rows, :n] = scaled.T, scaled
    kkt[:n, -1] = kkt[-1, :n] = missed.slope * unit
    kkt[-1, -1] = -at.room / at.multiplier
    right = np.concatenate(
        [
            unit * (missed.dual - at.costs + (target + missed.products) / at.x),
            missed.primal / norms,
            [missed.over + at.room - target / at.multiplier],
        ]
    )
    regular = kkt.copy()
    regular[range(n, n + n_rows), range(n, n + n_rows)] -= REGULARISATION
    try:
        step = np.linalg.solve(regular, right)
        for _ in range(REFINEMENTS):
            step += np.linalg.solve(regular, right - kkt @ step)
    except np.linalg.LinAlgError:
        return None
    if not np.isfinite(step).all():
        return None
    return unit * step[:n], step[n:-1] / norms, float(step[-1])


def _moved(
    at: _Iterate, dx: Floats, dw: Floats, dl: float, missed: _Residuals, *, target: float
) -> _Iterate:
    """The iterate moved along a direction, short of the edge of the feasible cone.

    The directions of costs and room are those that make their products the target, to first order.
    """
    products = target + missed.products + missed.products_by_multiplier * dl
    ds = (products - at.costs * dx) / at.x - at.costs
    dr = (target - at.room * dl) / at.multiplier - at.room
    length = min(
        _step_length(at.x, dx),
        _step_length(at.costs, ds),
        _step_length(np.array([at.multiplier, at.room]), np.array([dl, dr])),
    )
    return _Iterate(
        x=at.x + length * dx,
        costs=at.costs + length * ds,
        w=at.w + length * dw,
        multiplier=at.multiplier + length * dl,
        room=at.room + length * dr,
    )


def _step_length(values: Floats, step: Floats) -> float:
    """How far along `step` positive values stay so; at most 1."""
    falls = step < 0
    return min(1.0, NEAR_EDGE * float(np.min(-values[falls] / step[falls], initial=math.inf)))


def _policy(flows: _Flows, x: Floats, beta: tuple[Floats, ...]) -> PolicyTable:
    """The policy of the flows; beta where nothing flows."""
    pi = []
    for place, actions in zip(flows.place, beta, strict=True):
        flow = np.where(place >= 0, x[place], 0.0)
        reach = last_axis_sums(flow)[:, None]
        pi.append(np.where(reach > 0, flow / np.where(reach > 0, reach, 1.0), actions))
    return tuple(pi)


def _bound(
    flows: _Flows,
    nu: tuple[Floats, ...],
    divergence: Divergence,
    budget: float,
    x: Floats,
    multiplier: float,
) -> float:
    """The right-hand side of the certificate, by backward induction."""
    attained, slope, _ = _measure(flows, divergence, x)
    gains = flows.reward - multiplier * slope
    best = np.zeros(nu[-1].size)
    for place, observations in zip(reversed(flows.place), reversed(nu), strict=True):
        later = np.where(np.isfinite(best), best, 0.0).reshape(observations.shape)
        gain = np.where(place >= 0, gains[place], -np.inf)
        best = (gain + last_axis_sums(later)).max(axis=1)
    return multiplier * (budget - attained + float(slope @ x)) + float(best[0])
