"""Divergences between semi-distributions given by log-probabilities.

Kullback-Leibler `KL(p||q) = sum p log(p/q)`, total variation `TVD(p, q) = 1/2 sum |p - q|`,
Rényi `D_a(p||q) = log(sum p^a q^(1-a) / sum p) / (a - 1)`, Pearson `chi2(p||q) = sum (p-q)^2/q`;
natural logarithms. A semi-distribution may sum to less than 1; its missing mass means that
nothing comes, and no divergence counts it as an outcome unless `with_missing_outcome` makes it
one. Every function is total: `0 log(0/q) = 0` and `p log(p/0) = inf` for p > 0, never NaN.

Nearly equal distributions lose all digits in `sum p log(p/q)`, whose terms cancel. Between full
distributions, of equal masses, it is

    KL(p||q) = sum p phi(log(q/p)),    phi(s) = e^s - 1 - s >= 0,

whose terms do not; this form is used where both masses are 1. A float row's sum is hardly ever
exactly 1: a mass counts as 1 from 1 - `FULL_MASS_ROUNDING` on. So `KL >= 0` whenever p is full,
with a relative error near 1e-14 however small it is. (The limit is the square of the masses' own
rounding, some 1e-32.) The gradient is that of the right-hand side. It equals the left's along
every direction that keeps the masses. A semi-distribution p can have a negative KL.

Gradients are finite where the divergence is; a term that is infinite, or whose p is 0, adds none.
"""

import math
from typing import Final

from theory.arrays import (
    FULL_MASS_ROUNDING,
    INF,
    SINGLE_PRECISION_ROUNDING,
    Array,
    Float,
    Float64,
    LogRows,
    Namespace,
    PerRow,
    check_log_probabilities,
    common_namespace,
    common_shape,
    is_single_precision,
    to_float64,
)
from theory.errors import InvalidArgumentError

SERIES_RADIUS: Final = 2.0**-6
"""Below it phi is taken from its series, right to 1e-15; above, `expm1(s) - s` to about 2e-14."""
DIRECT_RADIUS: Final = 1.0
"""Where `q - p - p log(q/p)` no longer cancels, and `p phi` might overflow."""


def kl_nats(log_p: LogRows, log_q: LogRows, *, unchecked: bool = False) -> PerRow:
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

    Example:
        >>> import numpy as np
        >>> from theory import kl_nats
        >>> fair, biased = np.log([0.5, 0.5]), np.log([[0.75, 0.25], [0.5, 0.5]])
        >>> print(kl_nats(biased, fair).round(4))  # 3/4 ln(3/2) - 1/4 ln 2, and 0
        [0.1308 0.    ]
        >>> near = np.log([0.5 + 1e-9, 0.5 - 1e-9])  # 2e-18: what rounding would otherwise hide
        >>> print(f"{kl_nats(near, fair):.3g}")
        2e-18
    """
    xp = _checked_namespace(unchecked, log_p=log_p, log_q=log_q)
    p_full, q_full = _mass(xp, log_p) == 1, _mass(xp, log_q) == 1
    log_p, log_q = to_float64(log_p), to_float64(log_q)
    p, q = xp.exp(log_p), xp.exp(log_q)
    s = -_log_ratio(xp, log_p, log_q)
    near = xp.abs(s) < DIRECT_RADIUS
    terms = xp.where(near, p * exp_minus_tangent(xp.where(near, s, 0.0)), q - p - p * s)
    terms = xp.where(log_p == -INF, q, terms)
    between_full = xp.sum(terms, axis=-1)
    defining = xp.sum(-p * s, axis=-1)
    defining = xp.where(p_full & (defining < 0), 0.0, defining)  # below 0 by rounding only
    kl = xp.where(p_full & q_full, between_full, defining)
    return xp.where(_impossible(xp, log_p, log_q), INF, kl)


def tvd(log_p: LogRows, log_q: LogRows, *, unchecked: bool = False) -> PerRow:
    """`1/2 sum |p - q|` of every row, relative error near 1e-15 also for nearly equal rows.

    The gradient where p = q is the subgradient 0. Arguments and errors as for `kl_nats`.

    Returns:
        Shape (...), float64.

    Example:
        >>> import numpy as np
        >>> from theory import tvd
        >>> print(tvd(np.log([0.75, 0.25]), np.log([0.5, 0.5])).round(12))
        0.25
    """
    xp = _checked_namespace(unchecked, log_p=log_p, log_q=log_q)
    log_p, log_q = to_float64(log_p), to_float64(log_q)
    gap = _log_ratio(xp, log_p, log_q)
    larger = xp.where(log_p > log_q, xp.exp(log_p), xp.exp(log_q))
    terms = -larger * xp.expm1(-xp.abs(gap))
    one_is_zero = (log_p == -INF) | (log_q == -INF)
    return 0.5 * xp.sum(xp.where(one_is_zero, larger, terms), axis=-1)


def chi_squared(log_p: LogRows, log_q: LogRows, *, unchecked: bool = False) -> PerRow:
    """`sum (p - q)^2 / q` of every row, relative error near 1e-13 (ratios up to e^300).

    Arguments and errors as for `kl_nats`.

    Returns:
        Shape (...), float64; inf where p > 0 = q somewhere.

    Example:
        >>> import numpy as np
        >>> from theory import chi_squared
        >>> print(
        ...     chi_squared(np.log([0.75, 0.25]), np.log([0.5, 0.5])).round(12)
        ... )  # 2 (1/4)^2 / (1/2)
        0.25
    """
    xp = _checked_namespace(unchecked, log_p=log_p, log_q=log_q)
    log_p, log_q = to_float64(log_p), to_float64(log_q)
    gap = _log_ratio(xp, log_p, log_q)
    size = xp.exp(xp.where(gap > 0, log_p + gap, log_q))
    terms = size * xp.expm1(-xp.abs(gap)) ** 2
    terms = xp.where(log_p == -INF, xp.exp(log_q), terms)
    return xp.sum(xp.where((log_q == -INF) & (log_p > -INF), INF, terms), axis=-1)


def renyi_nats(log_p: LogRows, log_q: LogRows, *, order: float, unchecked: bool = False) -> PerRow:
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

    Example:
        >>> import numpy as np
        >>> from theory import renyi_nats
        >>> p, q = np.log([0.75, 0.25]), np.log([0.5, 0.5])
        >>> print(renyi_nats(p, q, order=2.0).round(4))  # ln(1 + chi2) = ln(5/4)
        0.2231
        >>> print(renyi_nats(p, q, order=np.inf).round(4))  # ln(3/2)
        0.4055
    """
    if not order >= 0:
        raise InvalidArgumentError(f"order must lie in [0, inf], got {order}")
    xp = _checked_namespace(unchecked, log_p=log_p, log_q=log_q)
    mass = _mass(xp, log_p)
    some = mass > 0
    mass = xp.where(some, mass, 1.0)
    full = (mass == 1) & (_mass(xp, log_q) == 1)
    log_p, log_q = to_float64(log_p), to_float64(log_q)
    if order == 0:
        divergence = _renyi_zero(xp, log_p, log_q, mass, full)
    elif order == 1:
        divergence = kl_nats(log_p, log_q, unchecked=True) / mass
    elif order == INF:
        divergence = _renyi_infinity(xp, log_p, log_q, full)
    else:
        divergence = _renyi_between(xp, log_p, log_q, mass, full, order=order)
    return xp.where(some, divergence, 0.0)


def log_missing_mass(log_p: LogRows, *, unchecked: bool = False) -> PerRow:
    """`log(1 - sum p)` of every row, the log-probability that nothing comes.

    For the pessimistic imitator (Definition 4) it is `log theta_q`, that it asks for help.

    Returns:
        Shape (...), float64; -inf where the row is full but for rounding.

    Raises:
        InvalidArgumentError, InvalidShapeError, InvalidDistributionError: as for `kl_nats`.

    Example:
        >>> import numpy as np
        >>> from theory import log_missing_mass
        >>> rows = np.log([[0.5, 0.25], [0.5, 0.5]])
        >>> print(np.exp(log_missing_mass(rows)).round(12))
        [0.25 0.  ]
    """
    xp = _checked_namespace(unchecked, log_p=log_p)
    missing = 1 - _mass(xp, log_p)
    some = missing > 0
    return xp.where(some, xp.log(xp.where(some, missing, 1.0)), -INF)


def with_missing_outcome(
    log_p: Float[Array, "*rows d"], *, unchecked: bool = False
) -> Float[Array, "*rows d+1"]:
    """The full distribution on d + 1 outcomes whose last is "nothing comes".

    Where only full distributions will do, as for a projection, this is how an imitator that asks
    for help, or any other semi-distribution, becomes one.

    Returns:
        Shape (..., d + 1), in the precision of `log_p`.

    Raises:
        InvalidArgumentError, InvalidShapeError, InvalidDistributionError: as for `kl_nats`.

    Example:
        >>> import numpy as np
        >>> from theory import with_missing_outcome
        >>> print(np.exp(with_missing_outcome(np.log([0.5, 0.25]))).round(12))
        [0.5  0.25 0.25]
    """
    xp = _checked_namespace(unchecked, log_p=log_p)
    missing = xp.astype(log_missing_mass(log_p, unchecked=True), log_p.dtype)
    return xp.concat([log_p, xp.expand_dims(missing, axis=-1)], axis=-1)


def exp_minus_tangent(s: Float64[Array, "..."]) -> Float64[Array, "..."]:
    """`phi(s) = e^s - 1 - s`, relative error below 3e-14 for |s| < 700."""
    xp = common_namespace(s=s)
    small = xp.abs(s) < SERIES_RADIUS
    r = xp.where(small, s, 0.0)
    return xp.where(small, r * r * exp_minus_tangent_series(r), xp.expm1(s) - s)


def exp_minus_tangent_series(s: Float64[Array, "..."]) -> Float64[Array, "..."]:
    """`phi(s) / s^2` for `|s| < SERIES_RADIUS`, relative error below 1e-15; 1/2 at 0."""
    return s * (s * (s * (s * (s * (1 / 5040) + 1 / 720) + 1 / 120) + 1 / 24) + 1 / 6) + 0.5


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


def _impossible(xp: Namespace, log_p: Array, log_q: Array) -> Array:
    """Rows in which p > 0 = q somewhere."""
    return xp.any((log_p > -INF) & (log_q == -INF), axis=-1)


def _mass(xp: Namespace, log_p: Array) -> Array:
    """`sum p` of every row; 1, without a gradient, where rounding alone separates it from 1."""
    rounding = SINGLE_PRECISION_ROUNDING if is_single_precision(log_p) else FULL_MASS_ROUNDING
    mass = xp.sum(xp.exp(to_float64(log_p)), axis=-1)
    return xp.where(mass < 1 - rounding, mass, 1.0)


def _renyi_zero(xp: Namespace, log_p: Array, log_q: Array, mass: Array, full: Array) -> Array:
    """`-log(q(p > 0) / sum p)`; q(p > 0) from its complement where that is the smaller."""
    q = xp.exp(log_q)
    inside = xp.sum(xp.where(log_p > -INF, q, 0.0), axis=-1)
    outside = xp.sum(xp.where(log_p > -INF, 0.0, q), axis=-1)
    near = full & (outside < inside)
    log_inside = xp.where(log_p > -INF, log_q, -INF)
    top = xp.max(log_inside, axis=-1)
    meets = top > -INF
    top = xp.where(meets, top, 0.0)
    scaled = xp.sum(xp.exp(log_inside - top[..., None]), axis=-1)
    far = xp.where(meets, top + xp.log(xp.where(meets, scaled, 1.0) / mass), -INF)
    return 0.0 - xp.where(near, xp.log1p(-xp.where(near, outside, 0.0)), far)


def _renyi_infinity(xp: Namespace, log_p: Array, log_q: Array, full: Array) -> Array:
    """`log max p/q`, which for full distributions only rounding makes negative."""
    ratios = xp.where(log_p > -INF, _log_ratio(xp, log_p, log_q), -INF)
    largest = xp.max(ratios, axis=-1)
    largest = xp.where(full & (largest < 0), 0.0, largest)
    return xp.where(_impossible(xp, log_p, log_q), INF, largest)


def _renyi_between(
    xp: Namespace, log_p: Array, log_q: Array, mass: Array, full: Array, *, order: float
) -> Array:
    """Orders in (0, 1) and (1, inf).

    With `S = sum p^a q^(1-a)`: far from 0 it is `log(S / sum p) / (a - 1)`, stabilised. Near 0,
    with `s = (a - 1) log(p/q)`, `S - sum p = sum p (e^s - 1)`: between full distributions

        sum [p (e^s - 1) + (1 - a)(p - q)],

    whose terms have one sign. That is symmetric under exchange of (p, a) and (q, 1 - a), and keeps
    all digits for a >= 1/2.
    """
    common = (log_p > -INF) & (log_q > -INF)
    meets = xp.any(common, axis=-1)
    gap = _log_ratio(xp, log_p, log_q)
    slope = order - 1
    # log S / slope, the exponents divided by slope first: they may overflow at huge orders.
    sign = math.copysign(1.0, slope)
    scaled = xp.where(common, gap + xp.where(common, log_p, 0.0) / slope, -sign * INF)
    extreme = sign * xp.max(sign * scaled, axis=-1)
    extreme = xp.where(meets, extreme, 0.0)
    exponents = slope * xp.where(common, scaled - extreme[..., None], 0.0)
    total = xp.sum(xp.where(common, xp.exp(exponents), 0.0), axis=-1)
    far = extreme + xp.log(xp.where(meets, total, 1.0) / mass) / slope
    infinite = ~meets | (_impossible(xp, log_p, log_q) & (order > 1))

    close = xp.abs(slope * far) < 0.5
    here = close[..., None]
    log_p, log_q = xp.where(here, log_p, 0.0), xp.where(here, log_q, 0.0)
    shift = xp.sum(_powers_less_p(xp, log_p, log_q, slope), axis=-1)
    rest = -slope  # 1 - a, or a where the roles are exchanged
    if order < 0.5:
        log_p, log_q, rest = log_q, log_p, order
    p, q = xp.exp(log_p), xp.exp(log_q)
    gap = _log_ratio(xp, log_p, log_q)
    near = (xp.abs(gap) < DIRECT_RADIUS) & (xp.abs(rest * gap) < DIRECT_RADIUS)
    near = near & (log_p > -INF) & (log_q > -INF)
    gap = xp.where(near, gap, 0.0)
    series = exp_minus_tangent(-rest * gap) - rest * exp_minus_tangent(-gap)
    direct = _powers_less_p(xp, log_p, log_q, -rest) + rest * (p - q)
    shift_of_full = xp.sum(xp.where(near, p * series, direct), axis=-1)
    shift = xp.where(close & ~infinite, xp.where(full, shift_of_full, shift) / mass, 0.0)
    return xp.where(infinite, INF, xp.where(close, xp.log1p(shift) / slope, far))


def _powers_less_p(xp: Namespace, log_p: Array, log_q: Array, slope: float) -> Array:
    """`p (e^s - 1)`, `s = slope log(p/q)`, of every symbol; -p where q = 0, 0 where p = 0."""
    p = xp.exp(log_p)
    s = slope * _log_ratio(xp, log_p, log_q)
    large = s > DIRECT_RADIUS
    grown = xp.exp(xp.where(large, log_p + s, -INF)) - p
    terms = xp.where(large, grown, p * xp.expm1(xp.where(large, 0.0, s)))
    return xp.where(log_q == -INF, -p, terms)
