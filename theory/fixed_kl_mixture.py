"""Policies at a prescribed KL from a base: the linear and the geometric projection.

Given a proposal a, a base b and a target k in nats (what the budget allows this step):

- *Fixed-KL mixture* (the authors' operator): `x = alpha a + (1 - alpha) b` with `KL(x||b) = k`.
- *Geometric projection*: `x ∝ a^lambda b^(1-lambda)` with `KL(x||b) = k`: of all policies within k
  of b the nearest to a in `KL(x||a)`, hence what an agent chooses that maximises an expected
  log-ratio a/b (Definition 2's constraint at one step).

Both give `x = a` where `KL(a||b) <= k`, and `x = b` where k = 0. First a is projected onto the
support of b: `a <- a 1[b > 0] / sum`; if nothing of it is left, x = b and the weight is 0.

**Linear.** With `u = a/b - 1` and `L = log(x/b) = log(1 + alpha u)`, the sum

    f(alpha) = KL(x||b) = sum x phi(-L),    phi(s) = e^s - 1 - s >= 0,

has no cancelling terms and no first-order error from the rounding of the masses. It is convex and
increasing from f(0) = 0 to `f(1) = KL(a||b)`, with `f'(alpha) = sum (a - b) L`. Near 0 it is
`q alpha^2` with `q = chi2(a||b)/2`; the function `q alpha^2 / (1 + (q/f(1) - 1) alpha)` agrees with
it there and at 1, and its root is the first guess. Between `log(alpha/(1-alpha))` and
`log(f/(f(1)-f))` f is nearly a straight line of slope 1 to 2, so Newton's steps are taken in these.

**Geometric.** With `s = log(a/b)`, `A(lambda) = log sum b e^(lambda s)` and `L = lambda s - A`,
`g(lambda) = KL(x||b) = sum x phi(-L)` again, and `g'(lambda) = lambda Var_x(s)`. It levels off
where x has settled on a's favourites, so that the same Newton's steps need the help of a bracket.
If a has zeros inside the support of b, the path jumps at lambda = 0 from b to b restricted to a's
support: for k up to the jump, `-log b(a > 0)`, x is b.

**Derivatives** are those of the implicit equation, written out and attached to the values (which
are computed on constants): `dalpha = (dk - df|alpha) / f'`, where with normalised a and b
`df|alpha = sum alpha a L dlog(a) + sum [(1 - alpha) b L - alpha (a - b)] dlog(b)`. They are first
derivatives only. At the ends they are one-sided: with respect to k they are 0 where x = a, and
defined as 0 at k = 0, where the true slope is infinite.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

from theory.arrays import (
    INF,
    Array,
    Namespace,
    attach_gradient,
    attach_row_gradient,
    broadcast_shape,
    check_budgets,
    check_log_probabilities,
    common_namespace,
    common_shape,
    like,
    reading_waits,
    stop_gradient,
    to_float64,
    tracks_gradient,
)
from theory.errors import SolverError

RESIDUAL_GOAL: Final = 1e-13
"""Relative error of the KL at which a row's solver rests; the sums are right to about this."""
RESIDUAL_LIMIT: Final = 1e-12
"""Relative error of the KL that is promised; a checked call that misses it raises."""
LINEAR_STEPS: Final = 10
"""Newton's steps at most; 7 were needed over 10^5 adversarial rows."""
GEOMETRIC_STEPS: Final = 20
"""The same on the geometric path, where 13 were needed."""
LARGEST_STEP: Final = 8.0
"""In log-odds: how far one of Newton's steps may go."""

EXP_LIMIT: Final = 650.0
"""e^650 is far from overflow, and alpha e^650 far above 1 for every alpha that matters."""
EXP_MODERATE: Final = 40.0
"""From here on e^s - 1 is e^s to rounding, and its product with a small b is better taken whole."""
SERIES_RADIUS: Final = 2.0**-6
"""Log-ratios below it go through the series of phi, those above lose some 1e-14 without."""

SMALLEST_KL: Final = 1e-200
"""A target below it counts as 0."""
SMALLEST_WEIGHT: Final = 1e-150
LARGEST_WEIGHT: Final = 1.0 - 2.0**-53
LOWEST_LOG_ODDS: Final = -350.0
HIGHEST_LOG_ODDS: Final = 36.7
"""Log-odds of those weights, rounded outwards and inwards."""


@dataclass(frozen=True, kw_only=True)
class KLProjection:
    """A policy at a prescribed KL from its base, with the solver's certificate.

    Attributes:
        weight: alpha of the mixture, or lambda of the geometric path, in [0, 1]; shape (...),
            float64. Exactly 0 where x = b, exactly 1 where x = a.
        log_x: log-probabilities, shape (..., d), in the precision of the inputs.
        kl_nats: KL(x||b) at `weight`, shape (...), float64: k but for `relative_residual`, or
            KL(a||b) where that is at most k.
        relative_residual: `|KL(x||b) - k| / k` as evaluated at `weight`, 0 at the ends; shape
            (...), float64.
    """

    weight: Array
    log_x: Array
    kl_nats: Array
    relative_residual: Array


def fixed_kl_mixture(
    log_a: Array, log_b: Array, kl_nats: Array | float, *, unchecked: bool = False
) -> KLProjection:
    """The mixture `alpha a + (1 - alpha) b` whose KL from b is `kl_nats`, or a if that is nearer.

    For k >= 1e-12, `KL(x||b)` at the returned alpha, in exact arithmetic with a and b normalised
    exactly, is within 1e-12 relative of k. (Rounding x itself to floats costs more.)

    Args:
        log_a: log-probabilities of the proposal, shape (..., d), -inf allowed.
        log_b: those of the base; leading axes broadcast.
        kl_nats: k >= 0, inf allowed; a number, or shape (...).
        unchecked: skip the checks that read the data (see `theory.arrays`); rows are normalised
            whatever their sum, and a k that is negative or NaN counts as 0.

    Raises:
        InvalidArgumentError, InvalidShapeError: not float arrays, or of unfit shapes.
        InvalidDistributionError: not full distributions.
        InvalidBudgetError: k is negative or NaN.
        SolverError: the promised accuracy was not reached.
    """
    return _project(_LinearPath, log_a, log_b, kl_nats, unchecked=unchecked)


def geometric_projection(
    log_a: Array, log_b: Array, kl_nats: Array | float, *, unchecked: bool = False
) -> KLProjection:
    """`x ∝ a^lambda b^(1-lambda)` whose KL from b is `kl_nats`, or a if that is nearer.

    The accuracy, arguments and errors are those of `fixed_kl_mixture`. A k below the path's jump,
    `-log b(a > 0)`, is not reachable: x is then b, and spends nothing.
    """
    return _project(_GeometricPath, log_a, log_b, kl_nats, unchecked=unchecked)


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """The ends of a path: constants of differentiation, normalised, float64.

    Attributes:
        log_a: the proposal on the base's support, -inf off it; shape (..., d).
        log_b: the base.
        a: probabilities of the proposal, all 0 where it has none on the base's support.
        b: probabilities of the base.
        log_ratio: s = log(a/b), -inf where a = 0 < b, 0 where b = 0.
        gap: a - b, to full relative accuracy.
        kl: KL(a||b), shape (...).
    """

    log_a: Array
    log_b: Array
    a: Array
    b: Array
    log_ratio: Array
    gap: Array
    kl: Array


@dataclass(frozen=True, kw_only=True)
class _Point:
    """A policy x on a path from b (weight 0) to a (weight 1), both excluded.

    Attributes:
        log_ratio: L = log(x/b), -inf where x = 0 < b; shape (..., d).
        gap: x - b, to full relative accuracy.
        kl: KL(x||b), shape (...).
        slope: its derivative with respect to the weight, shape (...).
    """

    log_ratio: Array
    gap: Array
    kl: Array
    slope: Array


@dataclass(frozen=True, kw_only=True)
class _Derivatives:
    """First derivatives at a policy x of weight w, in the direction of log-probabilities.

    Attributes:
        kl_by_a: of KL(x||b) by log_a, shape (..., d); constant shifts of log_a change nothing.
        kl_by_b: of the same by log_b.
        x_by_a: coefficient A of `dlog_x_i = A_i (dlog_a_i - sum_j m_j dlog_a_j)`.
        mean_a: those m.
        x_by_b: the same for log_b.
        mean_b: its m.
        x_by_weight: of log_x by w.
    """

    kl_by_a: Array
    kl_by_b: Array
    x_by_a: Array
    mean_a: Array
    x_by_b: Array
    mean_b: Array
    x_by_weight: Array


class _LinearPath:
    """`x = alpha a + (1 - alpha) b`."""

    steps = LINEAR_STEPS

    def __init__(self, xp: Namespace, pair: _Pair) -> None:
        self._xp = xp
        self._pair = pair
        self._ratio = xp.expm1(xp.clip(pair.log_ratio, None, EXP_LIMIT))
        self._excess = xp.clip(pair.log_ratio - EXP_LIMIT, 0.0, None)
        self.jump = xp.zeros_like(pair.kl)

    def first_guess(self, rise: Array, span: Array) -> Array:
        """The root of `q alpha^2 / (1 + (q/span - 1) alpha) = rise`."""
        xp = self._xp
        q = 0.5 * xp.sum(self._pair.gap * self._ratio, axis=-1)
        ratio = rise / xp.where(q > 0, q, 1.0)
        half = 0.5 * (rise / span - ratio)
        return half + xp.hypot(half, xp.sqrt(ratio))

    def at(self, weight: Array) -> _Point:
        """The policy of that weight, in (0, 1), shape (...)."""
        xp, alpha = self._xp, weight[..., None]
        log_ratio = xp.log1p(alpha * self._ratio) + self._excess
        gap = alpha * self._pair.gap
        return _Point(
            log_ratio=log_ratio,
            gap=gap,
            kl=_divergence(xp, self._pair.b + gap, log_ratio, gap),
            slope=xp.vecdot(self._pair.gap, log_ratio, axis=-1),
        )

    def derivatives(self, weight: Array, log_ratio: Array) -> _Derivatives:
        """At a weight in [0, 1] and its `log(x/b)`."""
        xp, pair, alpha = self._xp, self._pair, weight[..., None]
        finite = xp.where(log_ratio > -INF, log_ratio, 0.0)
        kl_by_a = alpha * pair.a * finite
        kl_by_b = (1 - alpha) * pair.b * finite - alpha * pair.gap
        relative_gap = -xp.expm1(-xp.where(alpha < 1, finite, 0.0))  # (x - b) / x
        share_of_a = relative_gap + alpha * (1 - relative_gap)  # alpha a / x
        inside = pair.a > 0
        return _Derivatives(
            kl_by_a=kl_by_a - pair.a * xp.sum(kl_by_a, axis=-1, keepdims=True),
            kl_by_b=kl_by_b - pair.b * xp.sum(kl_by_b, axis=-1, keepdims=True),
            x_by_a=xp.where(inside, share_of_a, 0.0),
            mean_a=pair.a,
            x_by_b=1 - share_of_a,
            mean_b=pair.b,
            x_by_weight=relative_gap / xp.where(alpha > 0, alpha, 1.0),
        )


class _GeometricPath:
    """`x ∝ a^lambda b^(1-lambda)`, on the support of a."""

    steps = GEOMETRIC_STEPS

    def __init__(self, xp: Namespace, pair: _Pair) -> None:
        self._xp = xp
        self._pair = pair
        self._inside = pair.log_ratio > -INF
        self._tilt = xp.where(self._inside, pair.log_ratio, 0.0)
        lost = xp.sum(xp.where(self._inside, 0.0, pair.b), axis=-1)
        kept = xp.sum(xp.where(self._inside, pair.b, 0.0), axis=-1)
        few = lost < kept
        self.jump = -xp.where(
            few, xp.log1p(-xp.where(few, lost, 0.0)), xp.log(xp.where(kept > 0, kept, 1.0))
        )

    def first_guess(self, rise: Array, span: Array) -> Array:
        """The root of `q lambda^2 = rise`, g's parabola at 0, or 1 where that ends below span."""
        xp = self._xp
        start = self.at(xp.zeros_like(rise))
        q = 0.5 * self._variance(self._pair.b + start.gap)
        return xp.sqrt(rise / xp.maximum(q, span))

    def at(self, weight: Array) -> _Point:
        """The policy of that weight, in [0, 1], shape (...)."""
        xp, pair = self._xp, self._pair
        tilted = weight[..., None] * self._tilt
        log_x = xp.where(self._inside, pair.log_b + tilted, -INF)
        _, log_sum = _normalised(xp, log_x)
        log_ratio = tilted - log_sum[..., None]
        moderate = log_ratio < EXP_MODERATE
        gap = xp.where(
            moderate,
            pair.b * xp.expm1(xp.where(moderate, log_ratio, 0.0)),
            xp.exp(pair.log_b + log_ratio),
        )
        gap = xp.where(self._inside, gap, -pair.b)
        log_ratio = xp.where(self._inside, log_ratio, -INF)
        x = pair.b + gap
        return _Point(
            log_ratio=log_ratio,
            gap=gap,
            kl=_divergence(xp, x, log_ratio, gap),
            slope=weight * self._variance(x),
        )

    def derivatives(self, weight: Array, log_ratio: Array) -> _Derivatives:
        """At a weight in [0, 1] and its `log(x/b)`."""
        xp, pair, lam = self._xp, self._pair, weight[..., None]
        finite = xp.where(log_ratio > -INF, log_ratio, 0.0)
        x = xp.exp(pair.log_b + log_ratio)
        spread = x * finite
        spread = spread - x * xp.sum(spread, axis=-1, keepdims=True)
        tilt_by_weight = self._tilt - xp.sum(x * self._tilt, axis=-1, keepdims=True)
        return _Derivatives(
            kl_by_a=lam * spread,
            kl_by_b=(1 - lam) * spread - x + pair.b,
            x_by_a=xp.where(x > 0, lam, 0.0),
            mean_a=x,
            x_by_b=1 - lam,
            mean_b=x,
            x_by_weight=tilt_by_weight,
        )

    def _variance(self, x: Array) -> Array:
        xp = self._xp
        mean = xp.sum(x * self._tilt, axis=-1, keepdims=True)
        return xp.sum(x * (self._tilt - mean) ** 2, axis=-1)


Path: TypeAlias = _LinearPath | _GeometricPath


def _project(
    path_type: type[_LinearPath] | type[_GeometricPath],
    log_a: Array,
    log_b: Array,
    kl_nats: Array | float,
    *,
    unchecked: bool,
) -> KLProjection:
    xp = common_namespace(log_a=log_a, log_b=log_b)
    shape = common_shape(log_a=log_a, log_b=log_b)
    log_a_64, log_b_64 = to_float64(log_a), to_float64(log_b)
    target = like(log_b_64, kl_nats, name="kl_nats")
    rows = broadcast_shape(rows=shape[:-1], kl_nats=tuple(target.shape))
    if not unchecked:
        check_log_probabilities(full=True, log_a=log_a, log_b=log_b)
        check_budgets(kl_nats=stop_gradient(target))
    k = xp.broadcast_to(stop_gradient(target), rows)
    pair = _pair(xp, stop_gradient(log_a_64), stop_gradient(log_b_64), rows)
    path = path_type(xp, pair)

    at_base = ~((k > SMALLEST_KL) & (k > path.jump)) | ~xp.any(pair.a > 0, axis=-1)
    at_proposal = ~at_base & (pair.kl <= k)
    between = ~(at_base | at_proposal)
    weight, point, residual = _solve(xp, path, pair, k, between)
    weight = xp.where(between, weight, xp.where(at_proposal, 1.0, 0.0))
    log_ratio = xp.where(between[..., None], point.log_ratio, 0.0)
    log_ratio = xp.where(at_proposal[..., None], pair.log_ratio, log_ratio)
    log_x = xp.where(at_proposal[..., None], pair.log_a, pair.log_b + log_ratio)
    kl = xp.where(between, point.kl, xp.where(at_proposal, pair.kl, 0.0))
    residual = xp.where(between, residual, 0.0)
    if not unchecked:
        _check_residual(xp, residual, weight=weight, kl=kl, target=k)

    if any(tracks_gradient(array) for array in (log_a, log_b, target)):
        by = path.derivatives(weight, log_ratio)
        share = 1.0 / xp.where(between, point.slope, INF)
        moved = share[..., None]
        held = xp.where(at_proposal, 1.0, 0.0)[..., None]
        weight = attach_row_gradient(
            weight, (-moved * by.kl_by_a, log_a_64), (-moved * by.kl_by_b, log_b_64)
        )
        weight = attach_gradient(weight, (share, target))
        kl = attach_row_gradient(kl, (held * by.kl_by_a, log_a_64), (held * by.kl_by_b, log_b_64))
        kl = attach_gradient(kl, (xp.where(between, 1.0, 0.0), target))
        mean_a = attach_row_gradient(xp.zeros_like(kl), (by.mean_a, log_a_64))
        mean_b = attach_row_gradient(xp.zeros_like(kl), (by.mean_b, log_b_64))
        log_x = attach_gradient(
            log_x,
            (by.x_by_a, log_a_64),
            (-by.x_by_a, mean_a[..., None]),
            (by.x_by_b, log_b_64),
            (-by.x_by_b, mean_b[..., None]),
            (by.x_by_weight, weight[..., None]),
        )
    dtype = xp.result_type(log_a.dtype, log_b.dtype)
    return KLProjection(
        weight=weight,
        log_x=xp.astype(log_x, dtype, copy=False),
        kl_nats=kl,
        relative_residual=residual,
    )


def _solve(
    xp: Namespace, path: Path, pair: _Pair, k: Array, between: Array
) -> tuple[Array, _Point, Array]:
    """The weight at which `KL(x||b) = k`, the policy there, and its relative residual.

    Newton's method between the log-odds of the weight and those of the KL's share of its range.
    A step that would leave the bracket, or that follows one which did not halve the error, is
    replaced by bisection. Rows that are not `between` take no part.
    """
    start = xp.where(between, path.jump, 0.0)
    span = xp.where(between, pair.kl, 1.0) - start
    target = xp.where(between, k, 0.5)
    goal = xp.log(target - start) - xp.log(start + span - target)
    weight = xp.clip(path.first_guess(target - start, span), SMALLEST_WEIGHT, LARGEST_WEIGHT)
    odds = xp.log(weight) - xp.log1p(-weight)
    low, high = xp.full_like(odds, LOWEST_LOG_ODDS), xp.full_like(odds, HIGHEST_LOG_ODDS)
    last_error = xp.full_like(odds, INF)
    ignorable = reading_waits(k)
    point = path.at(weight)
    residual = xp.abs(point.kl - target) / target
    for _ in range(path.steps):
        settled = ~between | (residual <= RESIDUAL_GOAL)
        if not ignorable and xp.all(settled):
            break
        below = point.kl < target
        low, high = xp.where(below, odds, low), xp.where(below, high, odds)
        rise = xp.clip(point.kl - start, SMALLEST_KL, None)
        rise = xp.minimum(rise, LARGEST_WEIGHT * span)
        error = goal - xp.log(rise / (span - rise))
        size = xp.abs(error)
        slope = point.slope * weight * (1 - weight) * (span / (rise * (span - rise)))
        proposed = odds + error / xp.maximum(slope, size / LARGEST_STEP + SMALLEST_KL)
        safe = (proposed > low) & (proposed < high) & (size < 0.5 * last_error)
        proposed = xp.where(safe, proposed, 0.5 * (low + high))
        odds = xp.where(settled, odds, proposed)
        last_error = size
        weight = 1 / (1 + xp.exp(-odds))
        point = path.at(weight)
        residual = xp.abs(point.kl - target) / target
    return weight, point, residual


def _pair(xp: Namespace, log_a: Array, log_b: Array, rows: tuple[int, ...]) -> _Pair:
    """Both ends normalised, a first projected onto the support of b; KL(a||b) of shape `rows`."""
    supported = log_b > -INF
    log_a = xp.where(supported, log_a, -INF)
    a, log_mass_a = _normalised(xp, log_a)
    b, log_mass_b = _normalised(xp, log_b)
    shift = (log_mass_a - log_mass_b)[..., None]
    both = log_a > -INF
    log_ratio = _difference(xp.where(both, log_a, 0.0), xp.where(both, log_b, 0.0), shift)
    log_ratio = xp.where(both, log_ratio, xp.where(supported, -INF, 0.0))
    moderate = log_ratio < EXP_MODERATE
    gap = xp.where(moderate, b * xp.expm1(xp.where(moderate, log_ratio, 0.0)), a)
    return _Pair(
        log_a=log_a - log_mass_a[..., None],
        log_b=log_b - log_mass_b[..., None],
        a=a,
        b=b,
        log_ratio=log_ratio,
        gap=gap,
        kl=xp.broadcast_to(_divergence(xp, a, log_ratio, gap), rows),
    )


def _normalised(xp: Namespace, log_p: Array) -> tuple[Array, Array]:
    """`p / sum p`, and `log sum p` of shape (...); zeros, and 0, where nothing is positive."""
    top = xp.max(log_p, axis=-1, keepdims=True)
    top = xp.where(top > -INF, top, 0.0)
    p = xp.exp(log_p - top)
    mass = xp.sum(p, axis=-1, keepdims=True)
    mass = xp.where(mass > 0, mass, 1.0)
    return p / mass, (top + xp.log(mass))[..., 0]


def _difference(x: Array, y: Array, z: Array) -> Array:
    """`x - y - z` rounded about once (Knuth's exact differences)."""
    first, lost_first = _exact_difference(x, y)
    second, lost_second = _exact_difference(first, z)
    return second + (lost_first + lost_second)


def _exact_difference(x: Array, y: Array) -> tuple[Array, Array]:
    difference = x - y
    minus_y = difference - x
    return difference, (x - (difference - minus_y)) - (y + minus_y)


def _divergence(xp: Namespace, x: Array, log_ratio: Array, gap: Array) -> Array:
    """`sum x phi(-L)`, that is KL(x||b), from `L = log(x/b)` and `gap = x - b`."""
    finite = xp.where(x > 0, log_ratio, -1.0)
    near = xp.abs(finite) < SERIES_RADIUS
    r = xp.where(near, finite, 0.0)
    series = r * (r * (r * (r * (r / -5040 + 1 / 720) - 1 / 120) + 1 / 24) - 1 / 6) + 0.5
    return xp.sum(xp.where(near, x * (r * r) * series, x * finite - gap), axis=-1)


def _check_residual(
    xp: Namespace, residual: Array, *, weight: Array, kl: Array, target: Array
) -> None:
    missed = residual > RESIDUAL_LIMIT
    if xp.any(missed):
        weight, kl, target = (float(array[missed][0]) for array in (weight, kl, target))
        raise SolverError(
            f"the projection stopped at weight {weight!r} with KL {kl!r}, but KL {target!r} was "
            "asked; please report these rows"
        )
