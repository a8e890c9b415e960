"""Policies at a prescribed KL from a base: the linear and the geometric projection.

Given a proposal a, a base b and a target k in nats (what the budget allows this step):

- *Fixed-KL mixture* (the authors' operator): `x = alpha a + (1 - alpha) b` with `KL(x||b) = k`.
- *Geometric projection*: `x ∝ a^lambda b^(1-lambda)` with `KL(x||b) = k`: of all policies within k
  of b the nearest to a in `KL(x||a)`, hence what an agent chooses that maximises an expected
  log-ratio a/b (Definition 2's constraint at one step).

Both give `x = a` where `KL(a||b) <= k`, and `x = b` where k = 0. First a is projected onto the
support of b: `a <- a 1[b > 0] / sum`; if nothing of it is left, x = b and the weight is 0.

With a *share* s < 1 the target is `s min(k, KL(a||b))` instead, which lies inside the path and so
always has a gradient. As a tends to b the weight then tends to `sqrt(s)`, since KL(x||b) grows
like its square; where `KL(a||b) < 1e-20 <= k` this limit is used, with its derivatives, so that
they exist where a = b.

**Linear.** With `u = a/b - 1` and `L = log(x/b) = log(1 + alpha u)`, the sum

    f(alpha) = KL(x||b) = sum x phi(-L),    phi(s) = e^s - 1 - s >= 0,

has no terms that cancel, and the rounding of the masses enters it in second order only. It is
convex and increasing from f(0) = 0 to `f(1) = KL(a||b)`, with `f'(alpha) = sum (a - b) L`. Near 0
it is `q alpha^2` with `q = chi2(a||b)/2`; the function `q alpha^2 / (1 + (q/f(1) - 1) alpha)`
agrees with it there and at 1, and its root is the first guess. Between `log(alpha/(1-alpha))` and
`log(f/(f(1)-f))` f is nearly a straight line of slope 1 to 2, so Newton's steps are taken there.

**Geometric.** With `s = log(a/b)`, `A(lambda) = log sum b e^(lambda s)` and `L = lambda s - A`,
`g(lambda) = KL(x||b) = sum x phi(-L)` again, and `g'(lambda) = lambda Var_x(s)`. It levels off
where x has settled on a's favourites, so that the same Newton's steps need the help of a bracket.
A log-probability of b below -2000, relative to b's largest, counts as -inf here: an additive mask
of -1e4 or -1e9 is one. (No float lambda attains a KL to 1e-12 where the log-ratio is much larger.)
If a has zeros inside the support of b, the path jumps at lambda = 0 from b to b restricted to a's
support: for k up to the jump, `-log b(a > 0)`, x is b.

**Derivatives** are those of the implicit equation, written out and attached to the values (which
are computed on constants): `dalpha = (dk - df|alpha) / f'`, where with normalised a and b
`df|alpha = sum alpha a L dlog(a) + sum [(1 - alpha) b L - alpha (a - b)] dlog(b)`. They are first
derivatives only. At the ends they are one-sided: with respect to k they are 0 where x = a, and
defined as 0 at k = 0, where the true slope is infinite.
"""

import math
from dataclasses import dataclass
from typing import Final, TypeVar

import array_api_compat

from theory.arrays import (
    INF,
    Array,
    Float,
    LogRows,
    NumberOrPerRow,
    PerRow,
    array_namespace,
    broadcast,
    broadcast_shape,
    check_budgets,
    check_log_probabilities,
    common_namespace,
    common_shape,
    constant,
    in_memory,
    like,
    reading_waits,
    row_dot,
    stop_gradient,
    to_float64,
    tracks_gradient,
    with_pull_back,
    zero_with_gradient,
)
from theory.errors import InvalidArgumentError, SolverError
from theory.kl_paths import (
    GeometricPath,
    LinearPath,
    Path,
    PathDerivatives,
    Solution,
    TargetDerivatives,
    solve,
)

RESIDUAL_LIMIT: Final = 1e-12
"""Relative error of the KL that is promised; a checked call that misses it raises."""
LEAST_KL: Final = 1e-12
"""From here on it is promised; smaller targets get the absolute error of this one."""
MOST_STEPS: Final = 32
"""Newton's steps that a row may take on a processor; four are usual."""


@dataclass(frozen=True, kw_only=True)
class KLProjection:
    """A policy at a prescribed KL from its base, with the solver's certificate.

    Attributes:
        weight: alpha of the mixture, or lambda of the geometric path, in [0, 1]; shape (...),
            float64. Exactly 0 where x = b, exactly 1 where x = a.
        log_x: log-probabilities, shape (..., d), in the precision of the inputs.
        target_nats: the KL that was aimed at, `share min(k, KL(a||b))`; shape (...), float64.
        kl_nats: KL(x||b) at `weight`, shape (...), float64: the target but for
            `relative_residual`.
        relative_residual: their relative difference as evaluated at `weight`, shape (...), float64;
            0 at the ends, and at the limit, where it is not evaluated.

    Example:
        >>> import numpy as np
        >>> from theory import fixed_kl_mixture
        >>> found = fixed_kl_mixture(np.log([0.1, 0.9]), np.log([0.5, 0.5]), np.array([0.0, 9.0]))
        >>> found.weight  # no budget: the base; more than enough: the proposal
        array([0., 1.])
        >>> bool((found.relative_residual <= 1e-12).all())
        True
    """

    weight: PerRow
    log_x: Float[Array, "*rows d"]
    target_nats: PerRow
    kl_nats: PerRow
    relative_residual: PerRow


def fixed_kl_mixture(
    log_a: LogRows,
    log_b: LogRows,
    kl_nats: NumberOrPerRow,
    *,
    share: NumberOrPerRow = 1.0,
    unchecked: bool = False,
) -> KLProjection:
    """The mixture `alpha a + (1 - alpha) b` whose KL from b is `kl_nats`, or a if that is nearer.

    `KL(x||b)` at the returned alpha, in exact arithmetic with a and b normalised exactly, is within
    1e-12 relative of its target, or of 1e-12 where that is smaller. (Rounding x to floats costs
    more.) With a share below 1 and `KL(a||b) < 1e-20` the weight is the limit's, `sqrt(share)`,
    which is right where a/b is near 1; where a tiny symbol of b is many times as likely under a,
    the KL misses its target, by less than 1e-20 nats whatever the rows.

    Args:
        log_a: log-probabilities of the proposal, shape (..., d), -inf allowed.
        log_b: those of the base; leading axes broadcast.
        kl_nats: k >= 0, inf allowed; a number, or shape (...).
        share: what part of `min(k, KL(a||b))` to aim at, in [0, 1]; a number, or shape (...).
        unchecked: skip the checks that read the data (see `theory.arrays`); rows are normalised
            whatever their sum, and a k that is negative or NaN counts as 0.

    Raises:
        InvalidArgumentError, InvalidShapeError: not float arrays, or of unfit shapes.
        InvalidDistributionError: not full distributions.
        InvalidBudgetError: k is negative or NaN.
        InvalidArgumentError: a share outside [0, 1].
        SolverError: the promised accuracy was not reached.

    Example:
        >>> import numpy as np
        >>> from theory import fixed_kl_mixture, kl_nats
        >>> proposal, base = np.log([0.0001, 0.9999]), np.log([0.5, 0.5])
        >>> budget_nats = kl_nats(np.log([0.25, 0.75]), base)
        >>> found = fixed_kl_mixture(proposal, base, budget_nats)
        >>> print(np.exp(found.log_x).round(9))
        [0.25 0.75]
    """
    return _project(LinearPath, log_a, log_b, kl_nats, share, unchecked=unchecked)


def geometric_projection(
    log_a: LogRows,
    log_b: LogRows,
    kl_nats: NumberOrPerRow,
    *,
    share: NumberOrPerRow = 1.0,
    unchecked: bool = False,
) -> KLProjection:
    """`x ∝ a^lambda b^(1-lambda)` whose KL from b is `kl_nats`, or a if that is nearer.

    The accuracy, arguments and errors are those of `fixed_kl_mixture`. A target below the path's
    jump, `-log b(a > 0)`, is not reachable: x is then b, and spends nothing.

    Example:
        >>> import numpy as np
        >>> from theory import geometric_projection, kl_nats
        >>> proposal, base = np.log([0.9, 0.1]), np.log([0.5, 0.5])
        >>> halfway = np.log([0.75, 0.25])  # odds 3, the root of the proposal's 9 and the base's 1
        >>> found = geometric_projection(proposal, base, kl_nats(halfway, base))
        >>> print(found.weight.round(9), np.exp(found.log_x).round(9))
        0.5 [0.75 0.25]
    """
    return _project(GeometricPath, log_a, log_b, kl_nats, share, unchecked=unchecked)


def _project(
    path_type: type[Path],
    log_a: LogRows,
    log_b: LogRows,
    kl_nats: NumberOrPerRow,
    share: NumberOrPerRow,
    *,
    unchecked: bool,
) -> KLProjection:
    xp = common_namespace(log_a=log_a, log_b=log_b)
    shape = common_shape(log_a=log_a, log_b=log_b)
    model = to_float64(log_b)
    k, part = like(model, kl_nats, name="kl_nats"), like(model, share, name="share")
    rows = broadcast_shape(rows=shape[:-1], kl_nats=tuple(k.shape), share=tuple(part.shape))
    if not unchecked:
        check_log_probabilities(full=True, log_a=log_a, log_b=log_b)
        check_budgets(kl_nats=stop_gradient(k))
        _check_share(stop_gradient(part))
    full_shape = (*rows, shape[-1])
    solve_all = _by_array_operations if reading_waits(model) else _by_kernel
    found = solve_all(
        path_type,
        broadcast(to_float64(log_a), full_shape),
        broadcast(model, full_shape),
        broadcast(k, rows),
        broadcast(part, rows),
    )
    if not unchecked:
        _check_residual(found)
    return KLProjection(
        weight=found.weight,
        log_x=xp.astype(found.log_x, xp.result_type(log_a.dtype, log_b.dtype), copy=False),
        target_nats=found.target,
        kl_nats=found.kl,
        relative_residual=found.residual,
    )


def _by_kernel(
    path_type: type[Path], log_a: Array, log_b: Array, k: Array, share: Array
) -> Solution:
    """In machine code, on the memory of a processor."""
    # The compiler takes longer to import than all the rest, and many commands never come here.
    from theory import kl_kernel  # noqa: PLC0415

    variables = (log_a, log_b, k, share)
    tracked = any(tracks_gradient(variable) for variable in variables)
    found = kl_kernel.solve(
        *map(in_memory, variables),
        geometric=path_type is GeometricPath,
        most_steps=MOST_STEPS,
        keep=tracked,
    )
    xp = array_namespace(log_a)
    weight, target, kl, residual = (
        found.rows[name].copy() for name in ("weight", "target", "kl", "residual")
    )
    values = (found.log_x, weight, target, kl)
    if tracked:
        log_x, weight, target, kl = with_pull_back(values, variables, found.pull_back)
    else:
        log_x, weight, target, kl = map(xp.asarray, values)
    return Solution(weight=weight, log_x=log_x, target=target, kl=kl, residual=xp.asarray(residual))


def _by_array_operations(
    path_type: type[Path], log_a: Array, log_b: Array, k: Array, share: Array
) -> Solution:
    """By operations of the arrays' library, on its device; all of float64 and broadcast."""
    xp = array_namespace(log_a)
    rows, full_shape = tuple(k.shape), tuple(log_a.shape)
    solution, derivatives = solve(
        path_type,
        _flattened(log_a, full_shape, n_axes=2),
        _flattened(log_b, full_shape, n_axes=2),
        _flattened(k, rows, n_axes=1),
        _flattened(share, rows, n_axes=1),
        differentiate=any(tracks_gradient(array) for array in (log_a, log_b, k, share)),
    )
    found = _restored(solution, rows)
    if derivatives is None:
        return found
    # The values were computed on constants. Here each gets a term that is 0 in value and has
    # the derivative of the implicit equation, so that the library differentiates through it.
    by, slopes = _restored(derivatives[0], rows), _restored(derivatives[1], rows)
    kl_change, end_change, x_change = 0.0, 0.0, 0.0
    for variable, kl_by, end_by, x_by, mean in (
        (log_a, slopes.kl_by_a, slopes.end_by_a, slopes.x_by_a, slopes.mean_a),
        (log_b, slopes.kl_by_b, slopes.end_by_b, slopes.x_by_b, slopes.mean_b),
    ):
        if tracks_gradient(variable):
            change = zero_with_gradient(variable)
            change = change - row_dot(mean, change)[..., None]
            kl_change = kl_change + row_dot(kl_by, change)
            end_change = end_change + row_dot(end_by, change)
            x_change = x_change + x_by * change
    share_change = zero_with_gradient(share)
    target_change = (
        by.target_by_k * zero_with_gradient(k)
        + by.target_by_share * share_change
        + by.target_by_end * end_change
    )
    weight_change = (
        by.weight_by_target * (target_change - kl_change) + by.weight_by_share * share_change
    )
    x_change = x_change + slopes.x_by_weight * weight_change[..., None]
    return Solution(
        weight=found.weight + weight_change,
        log_x=found.log_x + xp.where(found.log_x > -INF, x_change, 0.0),
        target=found.target + target_change,
        kl=found.kl + by.spends * target_change,
        residual=found.residual,
    )


def _flattened(array: Array, shape: tuple[int, ...], *, n_axes: int) -> Array:
    """A constant whose leading axes are made one, so that `n_axes` are left."""
    kept = len(shape) - n_axes + 1
    return array_namespace(array).reshape(constant(array), (math.prod(shape[:kept]), *shape[kept:]))


ArraysT = TypeVar("ArraysT", Solution, TargetDerivatives, PathDerivatives)


def _restored(arrays: ArraysT, rows: tuple[int, ...]) -> ArraysT:
    """A dataclass of arrays with their rows in shape `rows`."""

    def restore(array: Array) -> Array:
        return array_namespace(array).reshape(array, (*rows, *array.shape[1:]))

    return type(arrays)(**{name: restore(array) for name, array in vars(arrays).items()})


def _check_share(share: Array) -> None:
    wrong = share[~((share >= 0) & (share <= 1))]
    if array_api_compat.size(wrong):
        raise InvalidArgumentError(f"share must lie in [0, 1], got {float(wrong[0])}")


def _check_residual(found: Solution) -> None:
    xp = array_namespace(found.target)
    weight, kl, target = map(stop_gradient, (found.weight, found.kl, found.target))
    aimed_at = xp.where(found.residual > 0, target, 0.0)
    allowed = RESIDUAL_LIMIT * xp.where(aimed_at > LEAST_KL, aimed_at, LEAST_KL)
    missed = found.residual * aimed_at > allowed
    if xp.any(missed):
        stopped, reached, k = (float(array[missed][0]) for array in (weight, kl, target))
        raise SolverError(
            f"the projection stopped at weight {stopped!r} with KL {reached!r}, too far from its "
            f"target {k!r}; please report these rows"
        )
