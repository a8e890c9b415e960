"""The numerical work under `theory.projections`: where on a path from b to a is KL(x||b) = k?

Everything here is a constant of differentiation: float64 arrays of shape (n, d), one row for each
pair (a, b), and (n,) for one number a row. The logarithm of 0 is `LOG_ZERO`. The mathematics is in
the docstring of `theory.projections`; here is how it keeps its digits.

- The ratio a/b - 1 is `expm1` of a log-ratio, and a - b is b times it. The log-ratio is itself a
  compensated difference: a constant shift between log a and log b (their masses) costs no digits.
- KL(x||b) is the sum of `x phi(-L)`, `phi(s) = e^s - 1 - s`, by phi's series where L is small.
- A cheaper form of the same sum, `rough`, carries Newton's method to within about 1e-8 of the root;
  one step with the exact form then reaches the rounding of the sum.
"""

from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from theory.arrays import (
    INF,
    Array,
    Bool,
    Float64,
    Namespace,
    PerRow,
    array_namespace,
    at_least,
    at_most,
    row_dot,
)
from theory.divergences import SERIES_RADIUS, exp_minus_tangent_series

Rows: TypeAlias = Float64[Array, "n d"]
Numbers: TypeAlias = Float64[Array, "n"]
"""One number a row."""
RestoredRows: TypeAlias = Float64[Array, "*rows d"]
"""Results have one axis of rows here; `theory.projections` gives them the caller's axes again."""

RESIDUAL_GOAL: Final = 2e-13
"""Relative error of the KL at which a row rests; the sums are right to about this."""
ROUGH_GOAL: Final = 1e-4
"""Error in log-odds of the KL before the last rough step, which leaves about its square."""
BASIN: Final = 1e-3
"""Error in log-odds of the KL within which Newton's steps need no help."""
LARGEST_STEP: Final = 8.0
"""In log-odds: how far one of Newton's steps may go."""

EXP_LIMIT: Final = 650.0
"""e^650 is far from overflow, and alpha e^650 far above 1 for every alpha that matters."""
EXP_MODERATE: Final = 40.0
"""From here on e^s - 1 is e^s to rounding, and its product with a small b is better taken whole."""

LOG_ZERO: Final = -1e150
"""Stands for log 0 in the solvers: e^LOG_ZERO is 0, and 0 LOG_ZERO is 0 where 0 (-inf) is NaN."""
GEOMETRIC_ZERO: Final = -2000.0
"""On the geometric path a log-probability of b, relative to b's largest, below this is that of 0.

Probabilities are 0 in float64 below e^-745. The KL changes by `log(a/b)` times what 1 - lambda
changes by, and lambda is rounded by 1e-16: beyond e^-5000 no float lambda attains a KL to 1e-12."""
SMALLEST_KL: Final = 1e-200
"""A target below it counts as 0."""
SMALLEST_WEIGHT: Final = 1e-170
LARGEST_WEIGHT: Final = 1.0 - 2.0**-53
MARGIN: Final = 2.0**-53
"""Share of its range by which a KL on the path is taken to stay below the end's."""
HIGHEST_LOG_ODDS: Final = 36.7
"""Log-odds of the largest weight, rounded down."""
NEAR_BASE_NATS: Final = 1e-20
"""Below this KL(a||b) a share of it has the limit's weight.

It is right to about the largest of `|a/b - 1|`, which may exceed 1 where b is tiny; the KL is then
off, but by less than this."""


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """The ends of a path: constants of differentiation, normalised, float64, log 0 as `LOG_ZERO`.

    Attributes:
        raw_log_a: the proposal as it came, shape (n, d).
        raw_log_b: the base as it came.
        shift: log of the former's mass over the latter's, shape (n, 1).
        log_b: the base.
        a: probabilities of the proposal on the base's support; all 0 if nothing of it is there.
        b: probabilities of the base.
        log_ratio: s = log(a/b), `LOG_ZERO` or less where a = 0 < b, 0 where b = 0.
        ratio: a/b - 1, with s cut off at `EXP_LIMIT`.
        gap: a - b, to full relative accuracy.
        kl: KL(a||b), shape (n,).
    """

    raw_log_a: Rows
    raw_log_b: Rows
    shift: Float64[Array, "n 1"]
    log_b: Rows
    a: Rows
    b: Rows
    log_ratio: Rows
    ratio: Rows
    gap: Rows
    kl: Numbers

    @property
    def end_by_a(self) -> Rows:
        """The derivative of `kl` by log_a, whatever its mass; shape (n, d)."""
        return self.a * (self.log_ratio - self.kl[:, None])


@dataclass(frozen=True, kw_only=True)
class _Point:
    """A policy x on a path from b (weight 0) to a (weight 1), neither included.

    Attributes:
        kl: KL(x||b), shape (n,).
        slope: its derivative with respect to the weight, shape (n,).
        log_ratio: L = log(x/b), shape (n, d).
    """

    kl: Numbers
    slope: Numbers
    log_ratio: Rows


@dataclass(frozen=True, kw_only=True)
class PathDerivatives:
    """First derivatives at a policy x of weight w on a path, all of shape (n, d).

    Changes of a log-probability vector count relative to their mean: `dlog_a_i` below is the
    change of `log_a_i` less `sum_j mean_a_j` times that of `log_a_j`.

    Attributes:
        kl_by_a: of KL(x||b) by log_a at constant w.
        kl_by_b: of the same by log_b.
        x_by_a: of log_x, entry by entry, by log_a.
        x_by_b: of the same by log_b; shape (n, 1) where all entries have one derivative.
        x_by_weight: of the same by w.
        end_by_a: of KL(a||b) by log_a.
        end_by_b: of the same by log_b.
        mean_a: the weights of log_a's mean.
        mean_b: those of log_b's.
    """

    kl_by_a: RestoredRows
    kl_by_b: RestoredRows
    x_by_a: RestoredRows
    x_by_b: Float64[Array, "*rows #d"]
    x_by_weight: RestoredRows
    end_by_a: RestoredRows
    end_by_b: RestoredRows
    mean_a: RestoredRows
    mean_b: RestoredRows


class LinearPath:
    """`x = alpha a + (1 - alpha) b`; weights are alpha, of shape (n,), in (0, 1)."""

    rough_steps = 6
    exact_steps = 6

    def __init__(self, xp: Namespace, pair: _Pair) -> None:
        self._xp = xp
        self._pair = pair
        # Where e^s would overflow, log(1 + alpha (e^s - 1)) is log alpha + s: the ratio is taken
        # of s cut off, and what was cut off is added to the logarithm.
        self._excess = at_least(pair.log_ratio - EXP_LIMIT, 0.0)
        self._net_gap = xp.sum(pair.gap, axis=-1)
        self.jump = xp.zeros_like(pair.kl)

    def first_guess(self, rise: Numbers, span: Numbers) -> Numbers:
        """The root of `q alpha^2 / (1 + (q/span - 1) alpha) = rise`."""
        xp = self._xp
        # As alpha^2 - 2 half alpha - ratio = 0; hypot neither overflows nor loses small roots.
        q = 0.5 * row_dot(self._pair.gap, self._pair.ratio)
        ratio = rise / xp.where(q > SMALLEST_KL, q, 1.0)
        half = 0.5 * (rise / span - ratio)
        return half + xp.hypot(half, xp.sqrt(ratio))

    def lowest_weight(self, rise: Numbers, span: Numbers) -> Numbers:
        """A weight below the root, by convexity."""
        return 0.99 * rise / span

    def rough_error(self, kl: Numbers) -> Numbers:
        """Some absolute error of `rough` at that KL."""
        return 4e-16 * self._xp.sqrt(kl)

    def rough(self, weight: Numbers) -> tuple[Numbers, Numbers]:
        """KL(x||b), right to `rough_error`, and its slope."""
        # sum x L - sum (x - b) with x = b + alpha gap: no array but L is needed.
        log_ratio = self._log_ratio(weight)
        slope = row_dot(self._pair.gap, log_ratio)
        return (
            row_dot(self._pair.b, log_ratio) + weight * (slope - self._net_gap),
            slope,
        )

    def at(self, weight: Numbers) -> _Point:
        """The policy of that weight."""
        log_ratio = self._log_ratio(weight)
        gap = weight[:, None] * self._pair.gap
        return _Point(
            kl=_divergence(self._xp, self._pair.b + gap, log_ratio, gap),
            slope=row_dot(self._pair.gap, log_ratio),
            log_ratio=log_ratio,
        )

    def derivatives(self, weight: Numbers, log_ratio: Rows) -> PathDerivatives:
        """At a weight in [0, 1] and its `log(x/b)`."""
        xp, pair, alpha = self._xp, self._pair, weight[:, None]
        relative_gap = -xp.expm1(-xp.where(alpha < 1, log_ratio, 0.0))  # (x - b) / x
        share_of_a = relative_gap + alpha * (1 - relative_gap)  # alpha a / x
        return PathDerivatives(
            kl_by_a=alpha * pair.a * log_ratio,
            kl_by_b=(1 - alpha) * pair.b * log_ratio - alpha * pair.gap,
            x_by_a=xp.where(pair.a > 0, share_of_a, 0.0),
            mean_a=pair.a,
            x_by_b=1 - share_of_a,
            mean_b=pair.b,
            x_by_weight=relative_gap / xp.where(alpha > 0, alpha, 1.0),
            end_by_a=pair.end_by_a,
            end_by_b=-pair.gap,
        )

    def _log_ratio(self, weight: Numbers) -> Rows:
        return self._xp.log1p(weight[:, None] * self._pair.ratio) + self._excess


class GeometricPath:
    """`x ∝ a^lambda b^(1-lambda)` on the support of a; weights are lambda, in (0, 1)."""

    rough_steps = 16
    exact_steps = 16

    def __init__(self, xp: Namespace, pair: _Pair) -> None:
        self._xp = xp
        self._pair = pair
        self._inside = pair.log_ratio > 0.5 * LOG_ZERO
        # A constant in s changes no x; without s's mean, L keeps its digits where it is small.
        self._log_start = xp.where(self._inside, pair.log_b, LOG_ZERO)
        log_kept, self._start = _normalised(xp, self._log_start)
        mean = row_dot(self._start, pair.log_ratio)
        tilt = _difference(pair.raw_log_a, pair.raw_log_b, pair.shift + mean[:, None])
        self._tilt = xp.where(self._inside, tilt, 0.0)
        lost = xp.sum(xp.where(self._inside, 0.0, pair.b), axis=-1)
        little = lost < 0.5
        self.jump = -xp.where(little, xp.log1p(-xp.where(little, lost, 0.0)), log_kept)

    def first_guess(self, rise: Numbers, span: Numbers) -> Numbers:
        """The root of `jump + q lambda^2 = KL`, g's parabola at 0, or 1 if that is further."""
        xp = self._xp
        return xp.sqrt(rise / xp.maximum(0.5 * self._variance(self._start), span))

    def lowest_weight(self, rise: Numbers, span: Numbers) -> Numbers:
        """A weight below the root: KL(x||b) rises by at most `lambda^2 range(s)^2 / 8`."""
        xp = self._xp
        spread = xp.max(self._tilt, axis=-1) - xp.min(self._tilt, axis=-1)
        return 0.99 * xp.sqrt(8 * rise) / xp.where(spread > 0, spread, 1.0)

    def rough_error(self, kl: Numbers) -> Numbers:
        """Some absolute error of `rough` at that KL."""
        return 1e-14 + 1e-15 * kl

    def rough(self, weight: Numbers) -> tuple[Numbers, Numbers]:
        """KL(x||b), right to `rough_error`, and its slope."""
        log_sum, x = _normalised(self._xp, self._log_start + weight[:, None] * self._tilt)
        return weight * row_dot(x, self._tilt) - log_sum, weight * self._variance(x)

    def at(self, weight: Numbers) -> _Point:
        """The policy of that weight."""
        xp, pair = self._xp, self._pair
        tilted = weight[:, None] * self._tilt
        log_sum, _ = _normalised(xp, self._log_start + tilted)
        log_ratio = xp.where(self._inside, tilted - log_sum[:, None], LOG_ZERO)
        moderate = log_ratio < EXP_MODERATE
        gap = xp.where(
            moderate,
            pair.b * xp.expm1(xp.where(moderate, log_ratio, 0.0)),
            xp.exp(pair.log_b + log_ratio),
        )
        x = pair.b + gap
        return _Point(
            kl=_divergence(xp, x, log_ratio, gap),
            slope=weight * self._variance(x),
            log_ratio=log_ratio,
        )

    def derivatives(self, weight: Numbers, log_ratio: Rows) -> PathDerivatives:
        """At a weight in [0, 1] and its `log(x/b)`."""
        xp, pair, lam = self._xp, self._pair, weight[:, None]
        x = xp.exp(pair.log_b + log_ratio)
        spread = x * log_ratio
        spread = spread - x * xp.sum(spread, axis=-1, keepdims=True)
        return PathDerivatives(
            kl_by_a=lam * spread,
            kl_by_b=(1 - lam) * spread - x + pair.b,
            x_by_a=xp.where(x > 0, lam, 0.0),
            mean_a=x,
            x_by_b=1 - lam,
            mean_b=x,
            x_by_weight=self._tilt - row_dot(x, self._tilt)[:, None],
            end_by_a=pair.end_by_a,
            end_by_b=-pair.gap,
        )

    def _variance(self, x: Rows) -> Numbers:
        mean = row_dot(x, self._tilt)
        return row_dot(x, (self._tilt - mean[:, None]) ** 2)


Path: TypeAlias = LinearPath | GeometricPath


@dataclass(frozen=True, kw_only=True)
class _Equation:
    """`KL(x||b) = target` along a path, for the rows that are `open`; all of shape (n,).

    Attributes:
        target: or any number where a row is not open.
        bottom: the path's KL next to b (0, or the jump).
        top: its KL at a.
        open: rows whose root lies inside the path.
        weight: where to stay if a row is not open.
    """

    target: Numbers
    bottom: Numbers
    top: Numbers
    open: Bool[Array, "n"]
    weight: Numbers


@dataclass(frozen=True, kw_only=True)
class _Search:
    """Where the solver stands; all of shape (n,).

    Attributes:
        log_odds: `log(weight / (1 - weight))`.
        low: the largest log-odds whose KL is known to be below the target.
        high: the smallest whose KL is known not to be.
        error: the last distance to the target, in log-odds of the KL.
    """

    log_odds: Numbers
    low: Numbers
    high: Numbers
    error: Numbers


@dataclass(frozen=True, kw_only=True)
class Solution:
    """The policies x at their target KL from b; see `solve`.

    Attributes:
        weight: in [0, 1], shape (n,); 0 where x = b, 1 where x = a.
        log_x: shape (n, d), with -inf.
        target: the KL that was aimed at, shape (n,).
        kl: KL(x||b), shape (n,).
        residual: `|KL(x||b) - target| / target`, 0 at the ends and at the limit.
    """

    weight: PerRow
    log_x: RestoredRows
    target: PerRow
    kl: PerRow
    residual: PerRow


@dataclass(frozen=True, kw_only=True)
class TargetDerivatives:
    """How weights and targets of a `Solution` change; all of shape (n,).

    Attributes:
        weight_by_target: 0 at the ends, and where the path is level.
        weight_by_share: where the limit is taken, else 0.
        target_by_k: 0 or the share.
        target_by_share: `min(k, KL(a||b))`.
        target_by_end: by KL(a||b); the share or 0.
        spends: 1 where the weight is not 0, else 0.
    """

    weight_by_target: PerRow
    weight_by_share: PerRow
    target_by_k: PerRow
    target_by_share: PerRow
    target_by_end: PerRow
    spends: PerRow


def solve(
    path_type: type[Path],
    log_a: Rows,
    log_b: Rows,
    k: Numbers,
    share: Numbers,
    *,
    differentiate: bool,
) -> tuple[Solution, tuple[TargetDerivatives, PathDerivatives] | None]:
    """The point of each row's path whose KL from b is `share min(k, KL(a||b))`.

    Args:
        path_type: which path.
        log_a: log-probabilities of the proposals, shape (n, d), -inf allowed.
        log_b: those of the bases.
        k: shape (n,); not above 0 counts as 0.
        share: in [0, 1], shape (n,).
        differentiate: whether derivatives are wanted.
    """
    xp = array_namespace(log_a)
    if path_type is GeometricPath:
        largest = xp.max(log_b, axis=-1, keepdims=True)
        log_b = xp.where(log_b < largest + GEOMETRIC_ZERO, -INF, log_b)
    pair = _pair(xp, log_a, log_b)
    path = path_type(xp, pair)
    # Where x ends up: at b (nothing to spend), at a (`enough`), at the limit as a tends to b
    # (`near`), or inside the path (`between`), where alone there is an equation to solve.
    something = (k > SMALLEST_KL) & xp.any(pair.a > 0, axis=-1)
    to_spend = something & (k > path.jump)
    reached = pair.kl <= k
    reach = xp.where(something, xp.where(reached, pair.kl, k), 0.0)
    target = share * reach
    enough = to_spend & reached & (share >= 1)
    near = to_spend & (pair.kl < NEAR_BASE_NATS) & (k >= NEAR_BASE_NATS)
    near = near & (share > 0) & (share < 1)
    between = to_spend & ~(enough | near) & (target > SMALLEST_KL) & (target > path.jump)
    at_limit = xp.sqrt(xp.where(near, share, 1.0))
    equation = _Equation(
        target=xp.where(between, target, 0.5),
        bottom=xp.where(between, path.jump, 0.0),
        top=xp.where(between, pair.kl, 1.0),
        open=between,
        weight=at_limit,
    )
    weight, point, residual = _find_root(xp, path, equation)

    inside = between | near
    weight = xp.where(inside, weight, xp.where(enough, 1.0, 0.0))
    log_ratio = xp.where(enough[:, None], pair.log_ratio, 0.0)
    log_ratio = xp.where(inside[:, None], point.log_ratio, log_ratio)
    log_x = pair.log_b + log_ratio
    spends = inside | enough
    solution = Solution(
        weight=weight,
        log_x=xp.where(log_x > 0.5 * LOG_ZERO, log_x, -INF),
        target=target,
        kl=xp.where(between, point.kl, xp.where(spends, target, 0.0)),
        residual=xp.where(between, residual, 0.0),
    )
    if not differentiate:
        return solution, None
    by = TargetDerivatives(
        weight_by_target=1.0 / xp.where(between & (point.slope > SMALLEST_KL), point.slope, INF),
        weight_by_share=xp.where(near, 0.5 / at_limit, 0.0),
        target_by_k=xp.where(reached, 0.0, share),
        target_by_share=reach,
        target_by_end=xp.where(reached, share, 0.0),
        spends=xp.where(spends, 1.0, 0.0),
    )
    return solution, (by, path.derivatives(weight, log_ratio))


def _find_root(xp: Namespace, path: Path, equation: _Equation) -> tuple[Numbers, _Point, Numbers]:
    """The root's weight, the policy there, and the relative residual of its KL.

    First with `path.rough`, which is cheap but blind close to the path's ends, then with `path.at`.
    """
    rise, left = equation.target - equation.bottom, equation.top - equation.target
    span = equation.top - equation.bottom
    low = _log_odds(xp, path.lowest_weight(rise, span))
    guess = _log_odds(xp, path.first_guess(rise, span))
    start = _Search(
        log_odds=xp.where(equation.open, xp.maximum(guess, low), _log_odds(xp, equation.weight)),
        low=low,
        high=xp.full_like(low, HIGHEST_LOG_ODDS),
        error=xp.full_like(low, INF),
    )

    search = start
    # Rows so close to an end that the rough form's error hides the target wait for the exact one.
    settled = ~equation.open | (path.rough_error(equation.target) * (span / left) > BASIN * rise)
    for _ in range(path.rough_steps):
        weight = _weight(xp, search)
        kl, slope = path.rough(weight)
        search = _newton_step(xp, equation, search, weight, kl, slope, rests=settled)
        settled = settled | (search.error <= ROUGH_GOAL)

    # The bracket starts anew: the rough form's signs are not to be trusted near the root.
    search = replace(start, log_odds=search.log_odds)
    weight = _weight(xp, search)
    point = path.at(weight)
    residual = xp.abs(point.kl - equation.target) / equation.target
    for _ in range(path.exact_steps):
        settled = ~equation.open | (residual <= RESIDUAL_GOAL)
        search = _newton_step(xp, equation, search, weight, point.kl, point.slope, rests=settled)
        weight = _weight(xp, search)
        point = path.at(weight)
        residual = xp.abs(point.kl - equation.target) / equation.target
    return weight, point, residual


def _newton_step(
    xp: Namespace,
    equation: _Equation,
    search: _Search,
    weight: Numbers,
    kl: Numbers,
    slope: Numbers,
    *,
    rests: Bool[Array, "n"],
) -> _Search:
    """One of Newton's steps between log-odds, of the weight and of the KL within its range.

    As long as the error is beyond `BASIN`, a step that would leave the bracket, or that follows
    one which did not halve the error, is replaced by bisection.
    """
    below = kl < equation.target
    low = xp.where(below, search.log_odds, search.low)
    high = xp.where(below, search.high, search.log_odds)
    span = equation.top - equation.bottom
    # Rounding may put the KL outside its range, where its log-odds do not exist: it is moved in.
    rise = kl - equation.bottom
    rise = xp.where(rise > SMALLEST_KL, rise, SMALLEST_KL)
    left = span - rise
    left = xp.where(left > MARGIN * span, left, MARGIN * span)
    odds = (equation.target - equation.bottom) / (equation.top - equation.target)
    error = xp.log(odds * (left / rise))
    size = xp.abs(error)
    rate = slope * weight * (1 - weight) * (span / left / rise)
    proposed = search.log_odds + error / xp.maximum(rate, size / LARGEST_STEP + SMALLEST_KL)
    good = (proposed > low) & (proposed < high) & (size < 0.5 * search.error) | (size < BASIN)
    proposed = xp.where(good, proposed, 0.5 * (low + high))
    return _Search(
        log_odds=xp.where(rests, search.log_odds, proposed), low=low, high=high, error=size
    )


def _log_odds(xp: Namespace, weight: Numbers) -> Numbers:
    """`log(weight / (1 - weight))`, the weight first brought inside (0, 1)."""
    weight = xp.where(weight > SMALLEST_WEIGHT, weight, SMALLEST_WEIGHT)
    weight = xp.where(weight < LARGEST_WEIGHT, weight, LARGEST_WEIGHT)
    return xp.log(weight) - xp.log1p(-weight)


def _weight(xp: Namespace, search: _Search) -> Numbers:
    return 1 / (1 + xp.exp(-search.log_odds))


def _pair(xp: Namespace, log_a: Rows, log_b: Rows) -> _Pair:
    """Both ends normalised, a first projected onto the support of b."""
    log_a = at_least(xp.where(log_b > LOG_ZERO, log_a, LOG_ZERO), LOG_ZERO)
    log_b = at_least(log_b, LOG_ZERO)
    log_mass_a, a = _normalised(xp, log_a)
    log_mass_b, b = _normalised(xp, log_b)
    shift = (log_mass_a - log_mass_b)[:, None]
    log_ratio = _difference(log_a, log_b, shift)
    ratio = xp.expm1(at_most(log_ratio, EXP_LIMIT))
    gap = xp.where(log_ratio < EXP_MODERATE, b * ratio, a)
    return _Pair(
        raw_log_a=log_a,
        raw_log_b=log_b,
        shift=shift,
        log_b=log_b - log_mass_b[:, None],
        a=a,
        b=b,
        log_ratio=log_ratio,
        ratio=ratio,
        gap=gap,
        kl=_divergence(xp, a, log_ratio, gap),
    )


def _normalised(xp: Namespace, log_p: Rows) -> tuple[Numbers, Rows]:
    """`log sum p` of shape (n,), and `p / sum p`; 0 and zeros where nothing is positive."""
    top = xp.max(log_p, axis=-1, keepdims=True)
    top = xp.where(top > 0.5 * LOG_ZERO, top, 0.0)
    p = xp.exp(log_p - top)
    mass = xp.sum(p, axis=-1, keepdims=True)
    mass = xp.where(mass > 0, mass, 1.0)
    return (top + xp.log(mass))[:, 0], p / mass


def _difference(x: Array, y: Array, z: Array) -> Array:
    """`x - y - z` rounded about once (Knuth's exact differences)."""
    first, lost_first = _exact_difference(x, y)
    second, lost_second = _exact_difference(first, z)
    return second + (lost_first + lost_second)


def _exact_difference(x: Array, y: Array) -> tuple[Array, Array]:
    """`x - y` rounded, and what the rounding lost."""
    difference = x - y
    minus_y = difference - x
    return difference, (x - (difference - minus_y)) - (y + minus_y)


def _divergence(xp: Namespace, x: Rows, log_ratio: Rows, gap: Rows) -> Numbers:
    """`sum x phi(-L)`, that is KL(x||b), from `L = log(x/b)` and `gap = x - b`."""
    near = xp.abs(log_ratio) < SERIES_RADIUS
    s = xp.where(near, -log_ratio, 0.0)
    series = x * (s * s) * exp_minus_tangent_series(s)
    return xp.sum(xp.where(near, series, x * log_ratio - gap), axis=-1)
