r"""What becomes of missing mass: what acting costs, what asking means, what may be renormalised.

An imitator that is pessimistic predicts a semi-distribution `nu(x|h)`. What it leaves out,
`theta(h) = 1 - sum_x nu(x|h)`, is the call for *help*. An agent near it may do one of two things:

- **act**, by a full distribution pi over the symbols, at a cost of

      KL(pi||nu) = KL(pi || nu/(1 - theta)) - ln(1 - theta)  >=  -ln(1 - theta);

- **ask**: the step goes to the demonstrator, and costs nothing.

So who acts is charged `-ln(1 - theta)` in every step, however near to nu it stays, and who cannot
pay it must ask; where nothing is left of nu (theta = 1) nobody can pay. If nu is at most what the
demonstrator mu does, an episode's charges bound `KL(pi||mu)`, which is Statement.
NOTHING_UNPRECEDENTED: by convexity a step that asks with some probability is no farther from mu
than what is charged where it acts.

`Help` names the ways of dealing with it. Two of them make a full distribution of nu, so that
nothing is missing any more and nothing is charged; each says what is given up for that:

- the demonstrator's own law fills the gap, `nu + theta mu`. What neither nu nor mu ever does stays
  impossible; KL to mu is no longer bounded by what is charged (nu = (1/2, 0), mu = (1/2, 1/2):
  their sum is (3/4, 1/4), at a cost of 0 and a KL to mu of 0.131 nats);
- nu is divided by its mass. That is only near nu where little is missing: above
  `RENORMALISE_LIMIT` it is refused, because the rest of a law that rules out nearly everything is
  no law that anybody stands for.
"""

from enum import Enum
from typing import Final

from array_api_compat import size

from theory.arguments import check_probability
from theory.arrays import (
    INF,
    Array,
    Bool,
    Float,
    Float64,
    LogRows,
    PerRow,
    check_budgets,
    check_log_probabilities,
    common_namespace,
    common_shape,
    to_float64,
)
from theory.divergences import log_missing_mass
from theory.errors import InvalidDistributionError

RENORMALISE_LIMIT: Final = 0.05
"""The most mass that may be missing from a law that is divided by what is left."""


class Help(Enum):
    """What becomes of the mass that a semi-distribution leaves out.

    Example:
        >>> from theory import Help
        >>> [way.value for way in Help]
        ['ask', 'demonstrator', 'stop', 'renormalise']
    """

    ASK = "ask"
    """Acting is charged for it; who cannot pay hands the step to the demonstrator."""
    DEMONSTRATOR = "demonstrator"
    """The demonstrator's law fills it: a full law, of which a share theta is the demonstrator's."""
    STOP = "stop"
    """Acting is charged for it; who cannot pay ends the episode, which earns nothing more."""
    RENORMALISE = "renormalise"
    """The rest is divided by its mass, where no more than a limit is missing."""


def acting_cost_nats(
    missing_mass: Float[Array, "*rows"], *, unchecked: bool = False
) -> Float64[Array, "*rows"]:
    """`-ln(1 - theta)`: the least that acting costs where theta is missing.

    Args:
        missing_mass: theta, in [0, 1], shape (...,).
        unchecked: skip the checks that read the data (see `theory.arrays`).

    Returns:
        Nats, infinite where all is missing; relative error below 1e-15.

    Raises:
        InvalidDistributionError: theta outside [0, 1].

    Example:
        >>> import numpy as np
        >>> from theory import acting_cost_nats
        >>> acting_cost_nats(np.array([0.0, 0.5, 1.0])).round(3)
        array([0.   , 0.693,   inf])
    """
    xp = common_namespace(missing_mass=missing_mass)
    theta = to_float64(missing_mass)
    if not unchecked and not bool(xp.all((theta >= 0) & (theta <= 1))):
        raise InvalidDistributionError("missing_mass must lie in [0, 1]")
    some_left = theta < 1
    return xp.where(some_left, 0.0 - xp.log1p(-xp.where(some_left, theta, 0.0)), INF)


def may_act(
    missing_mass: Float[Array, "*#rows"],
    remaining_nats: Float[Array, "*#rows"],
    *,
    unchecked: bool = False,
) -> Bool[Array, "*#rows"]:
    """Whether a budget pays for acting; otherwise the step must be asked for.

    Args:
        missing_mass: theta, in [0, 1], shape (...,).
        remaining_nats: what is left of the budget, >= 0, may be inf, shape (...,); the two
            broadcast.
        unchecked: skip the checks that read the data (see `theory.arrays`).

    Returns:
        True where nothing is missing, whatever the budget; False where all is.

    Raises:
        InvalidDistributionError: theta outside [0, 1].
        InvalidBudgetError: a negative budget, or NaN.

    Example:
        >>> import numpy as np
        >>> from theory import may_act
        >>> may_act(np.array([0.0, 0.2, 0.5, 1.0]), np.array([0.0, 0.5, 0.5, np.inf]))
        array([ True,  True, False, False])
    """
    common_namespace(missing_mass=missing_mass, remaining_nats=remaining_nats)
    if not unchecked:
        check_budgets(remaining_nats=remaining_nats)
    cost = acting_cost_nats(missing_mass, unchecked=unchecked)
    return (cost <= to_float64(remaining_nats)) & (cost < INF)


def completed(log_semi: LogRows, log_demonstrator: LogRows, *, unchecked: bool = False) -> LogRows:
    """`ln(nu + theta mu)`: the law in which the demonstrator does what nu leaves out.

    Args:
        log_semi: `ln nu`, mass at most 1, shape (..., d).
        log_demonstrator: `ln mu`, mass 1, shape (..., d).
        unchecked: skip the checks that read the data (see `theory.arrays`).

    Returns:
        Log-probabilities of mass 1, shape (..., d); -inf where both are, or where nothing is
        missing of a nu that is -inf there.

    Raises:
        InvalidDistributionError: no semi-distribution, or a demonstrator that misses mass.

    Example:
        >>> import numpy as np
        >>> from theory import completed
        >>> with np.errstate(divide="ignore"):
        ...     law = completed(np.log([0.5, 0.0, 0.3]), np.log([0.5, 0.0, 0.5]))
        >>> np.exp(law).round(3)
        array([0.6, 0. , 0.4])
    """
    xp = common_namespace(log_semi=log_semi, log_demonstrator=log_demonstrator)
    common_shape(log_semi=log_semi, log_demonstrator=log_demonstrator)
    if not unchecked:
        check_log_probabilities(full=True, log_demonstrator=log_demonstrator)
    log_theta = log_missing_mass(log_semi, unchecked=unchecked)[..., None]
    from_demonstrator = log_theta + to_float64(log_demonstrator)
    return xp.astype(_log_sum(xp, to_float64(log_semi), from_demonstrator), log_semi.dtype)


def renormalised(log_semi: LogRows, *, limit: float = RENORMALISE_LIMIT) -> LogRows:
    """`ln(nu / (1 - theta))`, where no more than `limit` is missing.

    Args:
        log_semi: `ln nu`, mass at most 1, shape (..., d).
        limit: the most that may be missing, in [0, 1].

    Raises:
        InvalidDistributionError: a row that misses more, or everything.

    Example:
        >>> import numpy as np
        >>> from theory import renormalised
        >>> np.exp(renormalised(np.log([0.72, 0.24]))).round(3)
        array([0.75, 0.25])
    """
    check_probability(limit=limit)
    xp = common_namespace(log_semi=log_semi)
    theta: PerRow = xp.exp(log_missing_mass(log_semi))
    refused = theta[(theta > limit) | (theta == 1)]
    if size(refused):
        raise InvalidDistributionError(
            f"a law that misses {float(xp.max(refused)):.3g} of its mass cannot stand for what is "
            f"left of it (limit {limit:g}); have the step asked for, or let the demonstrator fill "
            "it"
        )
    log_mass = xp.log1p(-theta)[..., None]
    return xp.astype(to_float64(log_semi) - log_mass, log_semi.dtype)


def _log_sum(xp: Array, x: Array, y: Array) -> Array:
    """`ln(e^x + e^y)`, -inf where both are."""
    top = xp.where(x > y, x, y)
    some = top > -INF
    safe = xp.where(some, top, 0.0)
    total = xp.exp(x - safe) + xp.exp(y - safe)
    return xp.where(some, safe + xp.log(xp.where(some, total, 1.0)), -INF)
