r"""How probable a budget can make a behaviour, from its price: the binary KL in closed form.

A behaviour of price c has probability `p = exp(-c)` under the base policy. To make it happen with
probability q costs at least `KL(Bern q || Bern p)` (data processing), and rescaling the two cases
costs just that. So no policy within B nats makes it likelier than the q with

    KL(Bern q || Bern p) = q log q + (1 - q) log(1 - q) + q c - (1 - q) log(1 - p) = B,

which is 1 from `B = c` on. `theory.bounds.largest_share` decides the same in exact arithmetic from
a p that is a float; here prices may be beyond `exp(-745)`, where q is near B / c.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlog1py, xlogy

from theory.errors import InvalidArgumentError

Floats = NDArray[np.float64]


def binary_kl_nats(share: Any, price_nats: Any) -> Floats:
    """`KL(Bern q || Bern p)` for `p = exp(-price)`, in nats; arrays broadcast.

    Args:
        share: q, in [0, 1].
        price_nats: c = -log p >= 0; inf for what never happens, nan for an unknown one.
    """
    q, c = np.asarray(share, dtype=np.float64), np.asarray(price_nats, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        log_rest = np.log(-np.expm1(-c))  # log(1 - p)
        kl = xlogy(q, q) + xlog1py(1 - q, -q)
        kl = kl + np.where(q > 0, q * c, 0.0) - np.where(q < 1, (1 - q) * log_rest, 0.0)
    kl = np.where(np.isnan(kl), np.inf, np.maximum(kl, 0.0))
    return np.where(np.isnan(c), np.nan, kl)


def budget_for_nats(share: float, price_nats: Any) -> Floats:
    """The least budget that makes a behaviour happen with probability `share`, in nats.

    0 where it is as likely already. Arguments as for `binary_kl_nats`.
    """
    c = np.asarray(price_nats, dtype=np.float64)
    return np.where(np.exp(-c) >= share, 0.0, binary_kl_nats(share, c))


def largest_shares(price_nats: Any, budget_nats: Any) -> Floats:
    """The largest probability that a budget can give a behaviour; arrays broadcast.

    By bisection between neighbouring floats: the upper one, so that rounding does not lower the
    bound (but for that of `binary_kl_nats`, near 1e-15 of its largest term).

    Args:
        price_nats: c >= 0; nan for an unknown one, whose share is nan.
        budget_nats: B >= 0.

    Raises:
        InvalidArgumentError: a negative price or budget.
    """
    c, budget = np.broadcast_arrays(
        np.asarray(price_nats, dtype=np.float64), np.asarray(budget_nats, dtype=np.float64)
    )
    for name, values in (("prices", c), ("budgets", budget)):
        if np.any(values < 0):
            raise InvalidArgumentError(f"{name} must be >= 0 nats, got {np.nanmin(values)}")
    low, high = np.exp(-c), np.ones_like(c)
    # Positive floats are ordered as their bit patterns are.
    lower, upper = low.view(np.int64).copy(), high.view(np.int64).copy()
    for _ in range(64):
        middle = lower + (upper - lower) // 2
        fits = binary_kl_nats(middle.view(np.float64), c) <= budget
        lower, upper = np.where(fits, middle, lower), np.where(fits, upper, middle)
    shares = np.where((budget == 0) & (c > 0), low, upper.view(np.float64))
    return np.where(np.isnan(c), np.nan, np.where(np.isinf(c) & ~np.isinf(budget), 0.0, shares))
