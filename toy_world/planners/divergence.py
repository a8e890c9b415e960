r"""The optimal planner under a reverse-KL or a chi-squared budget, by an interior-point method.

In sequence form (`toy_world.planners.tvd`) x(ha) is the probability of the actions in ha,
observations given. Let b be beta's, W(h) the probability under nu of the observations in h, and
`ha` a history with its last action. Between the joint laws of actions and observations, in nu,

    reverse KL:   D(x) = KL(beta || pi) = sum_{ha} W(h) b(ha) ln(b(ha) / x(ha)),
    chi-squared:  D(x) = sum_{ha} W(h) (x(ha) - b(ha))^2 / b(ha),

are convex in x, and value is linear: `V = r x`. Under chi-squared, as under KL, what beta never
does is barred; under reverse KL it is not, and costs nothing but the probability that is taken from
what beta does.

*Method.* A primal-dual interior-point method: Newton steps towards flows x, reduced costs s >= 0
and multipliers w and lambda with `lambda D'(x) + A' w = r + s`, `A x = e` (what leaves a history
came to it), `lambda (eps - D(x)) = mu` and `x s = mu` for every variable, mu falling to 0.
*Certificate*, for any point x^ and any lambda >= 0: by convexity every flow x with
`D(x) <= eps` has

    r x <= r x + lambda (eps - D(x)) <= lambda (eps - D(x^) + D'(x^) x^) + (r - lambda D'(x^)) x,

and the greatest value of the linear function on the right is found by backward induction. So the
bound holds whatever the interior-point method did, but for rounding.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from theory.constraints import expected_chi_squared, expected_reverse_kl_nats
from theory.errors import InvalidArgumentError, InvalidBudgetError, SolverError
from theory.process import EnvironmentTable, PolicyTable, UtilityTable, values
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
REGULARISATION: Final = 1e-13
"""Keeps Newton's equations solvable where constraints become dependent; refinement undoes it."""


@dataclass(frozen=True, kw_only=True)
class _Flows:
    """The flows of the histories that may come, all steps in one vector.

    Attributes:
        place: of the variable of each (history, action), -1 if there is none, by level.
        conserve: `A x = e`: what goes on from each history is what came to it.
        entering: e.
        base: b of the last actions.
        weight: their W.
        last: the places of the last actions.
        reward: r of the last actions.
    """

    place: tuple[NDArray[np.intp], ...]
    conserve: Floats
    entering: Floats
    base: Floats
    weight: Floats
    last: NDArray[np.intp]
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

    The plan is within the budget, and the gap below 1e-6 of the greatest utility: from budgets
    of 1e-3 on usually below 1e-9. Memory and time grow with the square and cube of
    the number of histories: for small trees (a few hundred).

    Args:
        beta: base policy, full rows.
        nu: environment, of value and divergence.
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
    world = tuple(level.astype(np.float64) for level in nu)
    payoff = utility.astype(np.float64)
    scale = float(payoff.max())
    if budget == 0 or scale == 0:
        value = float(values(rows, world, payoff)[0][0])
        return _plan(rows, rows, world, divergence, budget, value, value, math.inf)
    flows = _flows(rows, world, payoff, divergence)
    start = _start(flows, rows, world, divergence, budget)
    x, multiplier = _interior_point(flows, divergence, budget, scale, start)
    pi = _policy(flows, x, rows)
    spent = _attained(pi, rows, world, divergence)
    if spent > budget:
        # D is convex and 0 at beta, so that this share of the way there is within the budget.
        pi = mix_policies(rows, pi, budget / spent, n_observations=world[0].shape[2])
    value = float(values(pi, world, payoff)[0][0])
    bound = _bound(flows, world, divergence, budget, x, multiplier)
    if bound - value > GREATEST_GAP * scale:
        raise SolverError(
            f"the interior-point method ended with a gap of {bound - value} (value {value}, bound "
            f"{bound}); the budget, or probabilities of beta, may be too small for it"
        )
    return _plan(pi, rows, world, divergence, budget, value, bound, multiplier)


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
    return _Flows(
        place=tuple(place),
        conserve=conserve,
        entering=entering,
        base=base_after[last],
        weight=np.broadcast_to(world[:, None], last.shape)[last],
        last=place[-1][last],
        reward=(world[:, None] * earned)[last],
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
    """D, its gradient and its (diagonal) second derivative, in the last actions' x."""
    y, b, w = x[flows.last], flows.base, flows.weight
    if divergence is Divergence.CHI_SQUARED:
        return float(w @ ((y - b) ** 2 / b)), 2 * w * (y - b) / b, 2 * w / b
    taken = b > 0
    ratio = np.where(taken, b / y, 0.0)
    terms = np.where(taken, b * np.log(np.where(taken, ratio, 1.0)), 0.0)
    # sum w b = sum w y = 1: what is added is 0, and keeps the digits of a small D.
    return float(w @ (terms + y - b)), -w * ratio, w * ratio / y


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
        slope: D'(x), of all variables.
        curvature: the diagonal of D''(x).
        mean: of the products `x s` and `lambda room`: mu.
        dual: of `lambda D' + A' w = r + s`.
        primal: of `A x = e`.
        over: of `D + room = eps`.
    """

    slope: Floats
    curvature: Floats
    mean: float
    dual: Floats
    primal: Floats
    over: float


def _interior_point(
    flows: _Flows, divergence: Divergence, budget: float, scale: float, x: Floats
) -> tuple[Floats, float]:
    """Flows and the multiplier that satisfy the optimality conditions, but for about `GAP`."""
    n_rows, n = flows.conserve.shape
    at = _Iterate(
        x=x,
        costs=np.full(n, scale),
        w=np.zeros(n_rows),
        multiplier=scale / budget,
        room=budget - _measure(flows, divergence, x)[0],
    )
    least, best = math.inf, at
    for _ in range(MOST_STEPS):
        missed = _residuals(flows, divergence, budget, at)
        miss = (
            max(
                missed.mean * (n + 1),
                np.abs(missed.dual).max(),
                np.abs(missed.primal).max(),
                abs(missed.over),
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
        at = _moved(at, *step, target=CENTRING * missed.mean)
    return best.x, best.multiplier


def _residuals(flows: _Flows, divergence: Divergence, budget: float, at: _Iterate) -> _Residuals:
    A, last = flows.conserve, flows.last
    n = flows.n
    value, slope_last, curvature_last = _measure(flows, divergence, at.x)
    reward, slope, curvature = np.zeros(n), np.zeros(n), np.zeros(n)
    reward[last], slope[last], curvature[last] = flows.reward, slope_last, curvature_last
    return _Residuals(
        slope=slope,
        curvature=curvature,
        mean=float(at.x @ at.costs + at.multiplier * at.room) / (n + 1),
        dual=reward - at.multiplier * slope - A.T @ at.w + at.costs,
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
    unit = np.sqrt(at.x / at.costs)
    kkt = np.zeros((n + n_rows + 1, n + n_rows + 1))
    kkt[range(n), range(n)] = 1 + at.multiplier * missed.curvature * unit**2
    scaled = flows.conserve * unit
    norms = np.abs(scaled).max(axis=1)
    scaled /= norms[:, None]
    kkt[:n, n : n + n_rows], kkt[n : n + n_rows, :n] = scaled.T, scaled
    kkt[:n, -1] = kkt[-1, :n] = missed.slope * unit
    kkt[-1, -1] = -at.room / at.multiplier
    right = np.concatenate(
        [
            unit * (missed.dual - at.costs + target / at.x),
            missed.primal / norms,
            [missed.over + at.room - target / at.multiplier],
        ]
    )
    regular = kkt.copy()
    regular[range(n, n + n_rows), range(n, n + n_rows)] -= REGULARISATION
    try:
        step = np.linalg.solve(regular, right)
        step += np.linalg.solve(regular, right - kkt @ step)
    except np.linalg.LinAlgError:
        return None
    if not np.isfinite(step).all():
        return None
    return unit * step[:n], step[n:-1] / norms, float(step[-1])


def _moved(at: _Iterate, dx: Floats, dw: Floats, dl: float, *, target: float) -> _Iterate:
    """The iterate moved along a direction, short of the edge of the feasible cone.

    The directions of costs and room are those that make their products the target, to first order.
    """
    ds = (target - at.costs * dx) / at.x - at.costs
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
    gains = np.full(flows.place[-1].shape, -np.inf)
    gains[flows.place[-1] >= 0] = flows.reward - multiplier * slope
    best = gains.max(axis=1)
    for place, observations in zip(reversed(flows.place[:-1]), reversed(nu[:-1]), strict=True):
        later = np.where(np.isfinite(best), best, 0.0).reshape(observations.shape)
        best = np.where(place >= 0, last_axis_sums(later), -np.inf).max(axis=1)
    constant = budget - attained + float(slope @ x[flows.last])
    return multiplier * constant + float(best[0])
