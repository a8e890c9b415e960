"""Divergences between semi-distributions given by log-probabilities.

Kullback-Leibler `KL(p||q) = sum p log(p/q)`, total variation `TVD(p, q) = 1/2 sum |p - q|`,
Rényi `D_a(p||q) = log(sum p^a q^(1-a) / sum p) / (a - 1)`, Pearson `chi2(p||q) = sum (p-q)^2/q`;
natural logarithms. A semi-distribution may sum to less than 1; its missing mass means that
nothing comes, and no divergence counts it as an outcome unless `with_missing_outcome` makes it
one. Every function is total: `0 log(0/q) = 0` and `p log(p/0) = inf` for p > 0, never NaN.

Nearly equal distributions lose all digits in `sum p log(p/q)`, whose terms cancel. The sum here is

    KL(p||q) = sum p phi(log(q/p)) + (sum p - sum q),    phi(s) = e^s - 1 - s >= 0,

whose terms do not; the masses in the bracket cancel exactly where both are full. Since a float
row's sum is never exactly 1, a mass counts as 1 from 1 - `FULL_MASS_ROUNDING` on. So `KL >= 0`
whenever p is full, with relative error near 1e-14 however small it is, and its gradient is that of
the right-hand side, which equals the left's along every direction that keeps the masses.
(A semi-distribution p can have a negative KL.)

Gradients are finite where the divergence is; a term that is infinite, or whose p is 0, adds none.
"""

import math
from typing import Final

from theory.arrays import (
    FULL_MASS_ROUNDING,
    INF,
    SINGLE_PRECISION_ROUNDING,
    Array,
    Namespace,
    check_log_probabilities,
    common_namespace,
    common_shape,
    is_single_precision,
    to_float64,
)
from theory.errors import InvalidArgumentError

SERIES_RADIUS: Final = 2.0**-6
"""Where `exp_minus_tangent` changes to its series; either side is right to about 2e-14."""
DIRECT_RADIUS: Final = 1.0
"""Where `q - p - p log(q/p)` no longer cancels, and `p phi` might overflow."""


def kl_nats(log_p: Array, log_q: Array, *, unchecked: bool = False) -> Array:
    """`KL(p||q)` of every row, in nats (Definition 2's divergence, one step).

    Args:
        log_p: log-probabilities, shape (..., d).
        log_q: the same; leading axes broadcast.
        unchecked: skip the checks that read the data (see `theory.arrays`).

    Returns:
        Shape (...), float64; inf where p > 0 = q somewhere.

    Raises:
        InvalidArgumentError, InvalidShapeError: not float arrays, or of unfit shapes.
        InvalidDistributionError: not semi-distributions.
    """
    xp = _checked_namespace(unchecked, log_p=log_p, log_q=log_q)
    mass_gap = _mass(xp, log_p) - _mass(xp, log_q)
    log_p, log_q = to_float64(log_p), to_float64(log_q)
    terms = relative_entropy_terms(log_p, log_q)
    return xp.sum(terms, axis=-1) + mass_gap


def tvd(log_p: Array, log_q: Array, *, unchecked: bool = False) -> Array:
    """`1/2 sum |p - q|` of every row, relative error near 1e-15 also for nearly equal rows.

    The gradient where p = q is the subgradient 0. Arguments and errors as for `kl_nats`.

    Returns:
        Shape (...), float64.
    """
    xp = _checked_namespace(unchecked, log_p=log_p, log_q=log_q)
    log_p, log_q = to_float64(log_p), to_float64(log_q)
    gap = _log_ratio(xp, log_p, log_q)
    larger = xp.where(log_p > log_q, xp.exp(log_p), xp.exp(log_q))
    terms = -larger * xp.expm1(-xp.abs(gap))
    one_is_zero = (log_p == -INF) | (log_q == -INF)
    return 0.5 * xp.sum(xp.where(one_is_zero, larger, terms), axis=-1)


def chi_squared(log_p: Array, log_q: Array, *, unchecked: bool = False) -> Array:
    """`sum (p - q)^2 / q` of every row, relative error near 1e-13 (ratios up to e^300).

    Arguments and errors as for `kl_nats`.

    Returns:
        Shape (...), float64; inf where p > 0 = q somewhere.
    """
    xp = _checked_namespace(unchecked, log_p=log_p, log_q=log_q)
    log_p, log_q = to_float64(log_p), to_float64(log_q)
    gap = _log_ratio(xp, log_p, log_q)
    size = xp.exp(xp.where(gap > 0, log_p + gap, log_q))
    terms = size * xp.expm1(-xp.abs(gap)) ** 2
    terms = xp.where(log_p == -INF, xp.exp(log_q), terms)
    return xp.sum(xp.where((log_q == -INF) & (log_p > -INF), INF, terms), axis=-1)


def renyi_nats(log_p: Array, log_q: Array, *, order: float, unchecked: bool = False) -> Array:
    """Rényi's divergence `D_order(p||q)` of every row, in nats.

    Order 0 is `-log(q(p > 0) / sum p)`, order 1 is `KL(p||q) / sum p`, order inf is
    `log max p/q`; each is the limit of its neighbours. For full p the divergence is not negative,
    and its relative error is near 1e-13 however small it is. (At orders near 1 it grows like
    1e-16 / |order - 1|, unless p and q are nearly equal.)

    Args:
        log_p: log-probabilities, shape (..., d).
        log_q: the same; leading axes broadcast.
        order: in [0, inf].
        unchecked: skip the checks that read the data (see `theory.arrays`).

    Returns:
        Shape (...), float64; inf where p and q are disjoint or, from order 1 on, where p > 0 = q
        somewhere.

    Raises:
        InvalidArgumentError: an order below 0 or NaN.
        InvalidShapeError, InvalidDistributionError: as for `kl_nats`.
    """
    if not order >= 0:
        raise InvalidArgumentError(f"order must lie in [0, inf], got {order}")
    xp = _checked_namespace(unchecked, log_p=log_p, log_q=log_q)
    if order == 0:
        return _renyi_zero(xp, log_p, log_q)
    if order == 1:
        return kl_nats(log_p, log_q, unchecked=True) / _mass(xp, log_p)
    if order == INF:
        return _renyi_infinity(xp, log_p, log_q)
    return _renyi_between(xp, log_p, log_q, order)


def log_missing_mass(log_p: Array, *, unchecked: bool = False) -> Array:
    """`log(1 - sum p)` of every row, the log-probability that nothing comes.

    For the pessimistic imitator (Definition 4) it is `log theta_q`, that it asks for help.

    Returns:
        Shape (...), float64; -inf where the row is full but for rounding.

    Raises:
        InvalidArgumentError, InvalidShapeError, InvalidDistributionError: as for `kl_nats`.
    """
    xp = _checked_namespace(unchecked, log_p=log_p)
    missing = 1 - _mass(xp, log_p)
    some = missing > 0
    return xp.where(some, xp.log(xp.where(some, missing, 1.0)), -INF)


def with_missing_outcome(log_p: Array, *, unchecked: bool = False) -> Array:
    """The full distribution on d + 1 outcomes whose last is "nothing comes".

    Returns:
        Shape (..., d + 1), in the precision of `log_p`.

    Raises:
        InvalidArgumentError, InvalidShapeError, InvalidDistributionError: as for `kl_nats`.
    """
    xp = _checked_namespace(unchecked, log_p=log_p)
    missing = xp.astype(log_missing_mass(log_p, unchecked=True), log_p.dtype)
    return xp.concat([log_p, xp.expand_dims(missing, axis=-1)], axis=-1)


def relative_entropy_terms(log_p: Array, log_q: Array) -> Array:
    """`p phi(log(q/p)) = p log(p/q) - p + q >= 0` of every symbol, each to about 2e-14 relative.

    Args:
        log_p: float64, shape (..., d), not checked.
        log_q: the same.

    Returns:
        Shape (..., d): q where p = 0, inf where p > 0 = q.
    """
    xp = common_namespace(log_p=log_p, log_q=log_q)
    p, q = xp.exp(log_p), xp.exp(log_q)
    s = -_log_ratio(xp, log_p, log_q)
    near = xp.abs(s) < DIRECT_RADIUS
    terms = xp.where(near, p * exp_minus_tangent(xp.where(near, s, 0.0)), q - p - p * s)
    terms = xp.where(log_p == -INF, q, terms)
    return xp.where((log_q == -INF) & (log_p > -INF), INF, terms)


def exp_minus_tangent(s: Array) -> Array:
    """`phi(s) = e^s - 1 - s`, relative error below 3e-14 for |s| < 700."""
    xp = common_namespace(s=s)
    small = xp.abs(s) < SERIES_RADIUS
    r = xp.where(small, s, 0.0)
    series = r * r * (1 + r * (1 + r * (1 + r * (1 + r / 6) / 5) / 4) / 3) / 2
    return xp.where(small, series, xp.expm1(s) - s)


def _checked_namespace(unchecked: bool, /, **rows: Array) -> Namespace:
    xp = common_namespace(**rows)
    common_shape(**rows)
    if not unchecked:
        check_log_probabilities(**rows)
    return xp


def _log_ratio(xp: Namespace, log_p: Array, log_q: Array) -> Array:
    """`log(p/q)`, and 0 (without a gradient) where either is 0."""
    both = (log_p > -INF) & (log_q > -INF)
    return xp.where(both, log_p, 0.0) - xp.where(both, log_q, 0.0)


def _mass(xp: Namespace, log_p: Array) -> Array:
    """`sum p` of every row; 1, without a gradient, where rounding alone separates it from 1."""
    rounding = SINGLE_PRECISION_ROUNDING if is_single_precision(log_p) else FULL_MASS_ROUNDING
    mass = xp.sum(xp.exp(to_float64(log_p)), axis=-1)
    return xp.where(mass < 1 - rounding, mass, 1.0)


def _renyi_zero(xp: Namespace, log_p: Array, log_q: Array) -> Array:
    """`-log(q(p > 0) / sum p)`; q(p > 0) from its complement where that is the smaller."""
    q = xp.exp(to_float64(log_q))
    inside = xp.sum(xp.where(log_p > -INF, q, 0.0), axis=-1)
    outside = xp.sum(xp.where(log_p > -INF, 0.0, q), axis=-1)
    mass_p, mass_q = _mass(xp, log_p), _mass(xp, log_q)
    mostly_inside = outside < inside
    shortfall = mass_q - mass_p - xp.where(mostly_inside, outside, 0.0)
    near = xp.log1p(shortfall / mass_p)
    touched = inside > 0
    far = xp.where(touched, xp.log(xp.where(touched, inside, 1.0) / mass_p), -INF)
    return 0.0 - xp.where(mostly_inside, near, far)


def _renyi_infinity(xp: Namespace, log_p: Array, log_q: Array) -> Array:
    """`log max p/q`, which is never below the log-ratio of the masses."""
    floor = xp.log(_mass(xp, log_p) / _mass(xp, log_q))
    log_p, log_q = to_float64(log_p), to_float64(log_q)
    ratios = xp.where(log_p > -INF, _log_ratio(xp, log_p, log_q), -INF)
    ratios = xp.where((log_p > -INF) & (log_q == -INF), INF, ratios)
    return xp.maximum(xp.max(ratios, axis=-1), floor)


def _renyi_between(xp: Namespace, log_p: Array, log_q: Array, order: float) -> Array:
    """Orders in (0, 1) and (1, inf).

    With `S = sum p^a q^(1-a)`: far from 0 as `log S / (a - 1)`, stabilised; near 0 as

        S - a sum p - (1 - a) sum q = sum [p (e^s - 1) + (1 - a)(p - q)],    s = (a - 1) log(p/q),

    whose terms have one sign. It is symmetric under exchange of (p, a) and (q, 1 - a), and keeps
    all digits for a >= 1/2.
    """
    mass_p, mass_q = _mass(xp, log_p), _mass(xp, log_q)
    log_p, log_q = to_float64(log_p), to_float64(log_q)
    common = (log_p > -INF) & (log_q > -INF)
    slope = order - 1
    # log S / slope, the exponents divided by slope first: they may overflow at huge orders.
    sign = math.copysign(1.0, slope)
    scaled = xp.where(common, _log_ratio(xp, log_p, log_q) + log_p / slope, -sign * INF)
    extreme = sign * xp.max(sign * scaled, axis=-1, keepdims=True)
    meets = xp.any(common, axis=-1, keepdims=True)
    extreme = xp.where(meets, extreme, 0.0)
    powers = xp.where(common, xp.exp(slope * xp.where(common, scaled - extreme, 0.0)), 0.0)
    total = xp.sum(powers, axis=-1)
    total = xp.where(total > 0, total, 1.0)
    far = xp.squeeze(extreme, axis=-1) + (xp.log(total) - xp.log(mass_p)) / slope
    impossible = xp.any((log_p > -INF) & (log_q == -INF), axis=-1) & (order > 1)
    far = xp.where(xp.squeeze(meets, axis=-1) & ~impossible, far, INF)

    close = xp.abs(slope * far) < 0.5
    rest = -slope  # 1 - a, or a where the roles are exchanged
    if order < 0.5:
        log_p, log_q, rest = log_q, log_p, order
    gap = xp.where(xp.expand_dims(close, axis=-1), _log_ratio(xp, log_p, log_q), 0.0)
    p, q = xp.exp(log_p), xp.exp(log_q)
    s = xp.where(log_q == -INF, -INF, -rest * gap)
    near = common & (xp.abs(gap) < DIRECT_RADIUS) & (xp.abs(s) < DIRECT_RADIUS)
    series = exp_minus_tangent(xp.where(near, s, 0.0))
    series = series - rest * exp_minus_tangent(xp.where(near, -gap, 0.0))
    terms = xp.where(near, p * series, p * xp.expm1(s) + rest * (p - q))
    shift = xp.sum(terms, axis=-1) - slope * (mass_q - mass_p)
    shift = xp.where(close, shift / mass_p, 0.0)
    return xp.where(close, xp.log1p(shift) / slope, far)
