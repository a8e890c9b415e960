"""The pessimistic Bayesian imitator: the most sceptical of the likely models (Definitions 3, 4).

Order the models `nu^(1), nu^(2), ...` by posterior weight at h, largest first. The *top set* is

    M^alpha_h = {nu^(n) : w(nu^(n)|h) >= alpha sum_{m<=n} w(nu^(m)|h)},   0 < alpha <= 1,

and the imitator gives an action the least probability that one of these models gives it,

    nu_alpha(x|h) = min over nu in M^alpha_h of nu(x|h).

The mass that is missing, `theta_q(h) = 1 - sum_x nu_alpha(x|h)`, is the probability of asking the
demonstrator instead of acting.

About top sets:

- Along the order the weights fall and the sums grow, so a top set consists of the first models in
  the order, at least of the first; a model of weight 0 is never in it. The n-th model of it has
  weight at least `alpha n` times its own, so `|M^alpha| <= 1/alpha`.
- Models of equal weight are ordered by index: of two tied models the later may be outside.
- Weights count up to a factor. Merge models that predict the same and sum their weights *before*:
  two halves of a model can be outside where the whole is inside.
- A demonstrator outside the top set has weight below alpha. `1/w(mu|h_t)` is a non-negative
  supermartingale under mu, hence `P(mu in M^alpha_h for all t) >= 1 - alpha/w(mu)` (Ville).

`nu_alpha <= mu` wherever mu is in the top set. That bounds `KL(pi||mu)` by `KL(pi||nu_alpha)` for
every pi over whole continuations only if the posterior stays as it is while the agent acts
(`Update.DEMONSTRATOR`). Under `Update.ALL` the agent can drive mu out of the top set by its own
actions and then do what mu never does. Every result that quotes the guarantee must say which.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from theory.arguments import check_alpha
from theory.arrays import Bool, Shaped
from theory.bayes_mixture import PolicyStack, Update, Weights, check_weights, posterior_weights
from theory.errors import InvalidDistributionError, InvalidShapeError
from theory.process import (
    PolicyTable,
    Probability,
    Table,
    as_table,
    check_distributions,
    check_policy,
    in_common_arithmetic,
)


def top_set(
    weights: Shaped[Table, "*rows models"] | Sequence[Probability], alpha: Probability
) -> Bool[NDArray[np.bool_], "*rows models"]:
    """Which models are in `M^alpha`, for a batch of posteriors.

    Exact if weights and alpha are rational. A float alpha counts as the binary number that it
    is: give `Fraction(3, 10)` where 0.3 is meant and ties matter. Float weights that are equal
    only up to rounding are ordered as they round.

    Args:
        weights: posterior weights up to a factor, shape (..., n_models), float64 or `Fraction`; an
            array, or numbers in a list.
        alpha: the threshold, 0 < alpha <= 1.

    Returns:
        A mask of the same shape, with at least one and at most 1/alpha entries true per row.

    Raises:
        InvalidArgumentError: alpha outside (0, 1].
        InvalidDistributionError: weights negative, NaN or infinite, or a row without a positive
            one.

    Example:
        >>> import numpy as np
        >>> from theory import top_set
        >>> top_set(np.array([0.1, 0.5, 0.4]), alpha=0.25)  # 0.4 >= 0.9/4, but 0.1 < 1/4
        array([False,  True,  True])
    """
    check_alpha(alpha)
    if not isinstance(weights, np.ndarray):
        weights = as_table(weights)
    if not weights.ndim or not weights.shape[-1]:
        raise InvalidShapeError(f"weights must have shape (..., n_models), got {weights.shape}")
    check_weights(weights)
    # Stable, so that ties keep the order of their indices.
    order = np.argsort(-weights, axis=-1, kind="stable")
    in_order = np.take_along_axis(weights, order, axis=-1)
    if not np.all(in_order[..., :1] > 0):
        raise InvalidDistributionError("some weight of every row must be > 0, got a row of zeros")
    threshold = Fraction(alpha) if weights.dtype == object else float(alpha)
    in_top_set = in_order >= threshold * np.cumsum(in_order, axis=-1)
    mask = np.empty(weights.shape, dtype=np.bool_)
    np.put_along_axis(mask, order, in_top_set.astype(np.bool_), axis=-1)
    return mask


def pessimistic_imitator(
    weights: Weights, models: PolicyStack, *, alpha: Probability, update: Update
) -> PolicyTable:
    """`nu_alpha(a|h)` at every history, a semi-distribution.

    Args:
        weights: `w(nu|h_{<t})` at the root up to a factor, shape (n_models,).
        models: level t of shape (n_models, (|A||O|)^t, |A|).
        alpha: the threshold of the top set, 0 < alpha <= 1.
        update: whose actions update the posterior; with `Update.DEMONSTRATOR` the top set is
            that of the root throughout.

    Returns:
        Level t of shape ((|A||O|)^t, |A|).

    Example:
        >>> from theory import HistoryTree, Update, help_probability, pessimistic_imitator
        >>> from theory import policy_table, stack_tables
        >>> tree = HistoryTree(n_actions=2, n_observations=1, horizon=1)
        >>> models = [policy_table(tree, lambda h, p=p: (p, 1 - p)) for p in (0.75, 0.5, 0.0)]
        >>> imitator = pessimistic_imitator(
        ...     [10, 5, 1], stack_tables(models), alpha=0.25, update=Update.DEMONSTRATOR
        ... )
        >>> imitator  # the third model, 1 of 16, is not in the top set
        (array([[0.5 , 0.25]]),)
        >>> help_probability(imitator)
        (array([0.25]),)
    """
    posterior = posterior_weights(weights, models, update=update)
    tables = in_common_arithmetic(posterior, models)
    return tuple(_least(actions, top_set(w.T, alpha).T) for w, actions in zip(*tables, strict=True))


def help_probability(table: PolicyTable) -> tuple[Table, ...]:
    """`theta_q(h) = 1 - sum_a nu_alpha(a|h)`, level t of shape ((|A||O|)^t,), at least 0.

    Example:
        >>> import numpy as np
        >>> from theory import help_probability
        >>> help_probability((np.array([[0.5, 0.25]]), np.array([[0.5, 0.5], [0.0, 0.0]])))
        (array([0.25]), array([0., 1.]))
    """
    check_policy(table, name="the imitator")
    for level in table:
        check_distributions(level, name="the imitator")
    return tuple(np.maximum(1 - np.asarray(level.sum(axis=-1)), 0) for level in table)


def _least(actions: Table, mask: NDArray[np.bool_]) -> Table:
    """The least probability that a model inside the mask gives, shape (n_histories, |A|)."""
    return np.asarray(np.where(mask[..., None], actions, 2).min(axis=0))
