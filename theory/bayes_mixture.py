"""Bayesian imitators: mixtures of policies, and joint predictors of actions and observations.

Models `p` with prior weights `w(p)` are predicted by
`xi(x|h) = sum_p w(p|h) p(x|h)`, where `w(p|h)`, the posterior, is `w(p)` times the likelihood of
what updates it, normalised. Prior weights need not sum to 1 (`2^-len(p)` does not): only their
ratios matter. Two kinds of imitator behave differently in Theorem 1:

- *Policy mixture*: models predict actions, observations are conditioned on and update nothing.
  Products of its conditionals telescope,
  `prod_j xi(a_j|h_j) = sum_p w(p|h_{<t}) prod_j p(a_j|h_j)`, if every action updates
  (`Update.ALL`).
- *Joint predictor* (Solomonoff induction over the whole sequence): models predict both, both
  update. Then the product of action probabilities alone is
  `sum_p w(p|h_{<t}) prod_j p(a_j|h_j) p(o_j|h_j a_j) / prod_j xi(o_j|h_j a_j)`. Against `xi~`,
  the mixture of the same models updated by observations only, this leaves the *residual*
  `ln prod_j xi(o_j|h_j a_j) / xi~(o||a)`, where `xi~(o||a) = sum_p w(p|h_{<t}) prod_j p(o_j|..)`.

A symbol to which every model gives probability 0 updates nothing: the posterior stays what it was
before it. (In float64 so does a symbol whose probability underflows.) So conditionals are defined
at every history, a mixture of distributions is a distribution everywhere, and nothing is NaN.

On a history tree the models are a *stack* of tables: level t of shape (n_models, (|A||O|)^t, |A|),
and (..., |O|) for environments. Everything on trees is exact for `Fraction`s. Along one long
history, `update_log_weights` and `predictive_log_probs` keep the posterior in log space.
"""

from collections.abc import Sequence
from enum import Enum, unique
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from theory.arguments import as_member
from theory.arrays import Float64
from theory.errors import InvalidArgumentError, InvalidDistributionError, InvalidShapeError
from theory.process import (
    EnvironmentTable,
    PolicyTable,
    Probability,
    Table,
    as_table,
    check_distributions,
    check_levels,
    check_same_tree,
    in_common_arithmetic,
    infer_n_observations,
    observation_laws,
)

PolicyStack: TypeAlias = tuple[Table, ...]
"""Level t: shape (n_models, (|A||O|)^t, |A|)."""
EnvironmentStack: TypeAlias = tuple[Table, ...]
"""Level t: shape (n_models, (|A||O|)^t, |A|, |O|)."""
Weights: TypeAlias = Table | Sequence[Probability]
"""Shape (n_models,): non-negative, not all 0."""
LogWeights: TypeAlias = Float64[NDArray[np.float64], "*rows models"]
"""Natural logarithms of weights, -inf for weight 0."""


@unique
class Update(Enum):
    """Whose actions update the posterior, in a tree on which the agent acts.

    The demonstrator's actions are those of the history before the tree: they are already in the
    weights.

    Example:
        >>> from theory import HistoryTree, Update, policy_mixture, policy_table, stack_tables
        >>> tree = HistoryTree(n_actions=2, n_observations=1, horizon=2)
        >>> stay, move = (policy_table(tree, lambda h, p=p: (p, 1 - p)) for p in (0.75, 0.25))
        >>> models = stack_tables([stay, move])
        >>> for update in (Update.ALL, Update.DEMONSTRATOR):
        ...     xi = policy_mixture([0.5, 0.5], models, update=update)
        ...     print(xi[1][0])  # after action 0: 3/4 3/4 + 1/4 1/4 of action 0, or still 1/2
        [0.625 0.375]
        [0.5 0.5]
    """

    ALL = "every action updates the posterior"
    """As if the demonstrator had done what the agent does; Theorem 1 telescopes with this."""
    DEMONSTRATOR = "the demonstrator's actions alone update the posterior"
    """Frozen while the agent acts; the guarantees of the pessimistic imitator need this."""


def stack_tables(tables: Sequence[tuple[Table, ...]]) -> tuple[Table, ...]:
    """The stack of the policy or environment tables of one tree, one for each model.

    Raises:
        InvalidShapeError: tables of different trees, or none.

    Example:
        >>> from theory import HistoryTree, policy_table, stack_tables
        >>> tree = HistoryTree(n_actions=2, n_observations=3, horizon=2)
        >>> models = [policy_table(tree, lambda h, p=p: (p, 1 - p)) for p in (0.1, 0.5, 0.9)]
        >>> [level.shape for level in stack_tables(models)]
        [(3, 1, 2), (3, 6, 2)]
    """
    if len(tables) == 0:
        raise InvalidShapeError("a stack needs at least one table, got none")
    check_same_tree(*tables)
    return tuple(np.stack(levels) for levels in zip(*tables, strict=True))


def model_table(stack: tuple[Table, ...], model: int) -> tuple[Table, ...]:
    """The table of one model of a stack, by its index.

    Example:
        >>> from theory import HistoryTree, model_table, policy_table, stack_tables
        >>> tree = HistoryTree(n_actions=2, n_observations=3, horizon=1)
        >>> models = [policy_table(tree, lambda h, p=p: (p, 1 - p)) for p in (0.25, 0.5)]
        >>> model_table(stack_tables(models), 1)
        (array([[0.5, 0.5]]),)
    """
    return tuple(level[model] for level in stack)


def posterior_weights(
    weights: Weights, models: PolicyStack, *, update: Update
) -> tuple[Table, ...]:
    """`w(p|h)` of every model at every history with an action to come.

    Args:
        weights: `w(p|h_{<t})` at the root up to a factor, shape (n_models,).
        models: level t of shape (n_models, (|A||O|)^t, |A|).
        update: whose actions count.

    Returns:
        Level t of shape (n_models, (|A||O|)^t), sums over the first axis 1.

    Raises:
        InvalidDistributionError: weights negative, NaN, infinite or all 0; rows that are no
            semi-distributions (so for every function on weights here).
        InvalidShapeError: levels without a first axis of n_models, or whose shapes belong to no
            tree (likewise).

    Example:
        >>> from theory import HistoryTree, Update, policy_table, posterior_weights, stack_tables
        >>> tree = HistoryTree(n_actions=2, n_observations=1, horizon=2)
        >>> stay, move = (policy_table(tree, lambda h, p=p: (p, 1 - p)) for p in (0.75, 0.25))
        >>> models = stack_tables([stay, move])
        >>> posterior = posterior_weights([1, 1], models, update=Update.ALL)
        >>> posterior[1]  # of both models, after action 0 and after action 1
        array([[0.75, 0.25],
               [0.25, 0.75]])
    """
    update = as_member(Update, update, name="update")
    w, models = _checked(weights, models)
    n_observations = infer_n_observations(model_table(models, 0))
    levels = [w[:, None]]
    for actions in models[:-1]:
        if update is Update.ALL:
            after_action = _posterior(levels[-1], actions)
        else:
            after_action = np.repeat(levels[-1][:, :, None], actions.shape[-1], axis=2)
        levels.append(np.repeat(after_action.reshape(len(w), -1), n_observations, axis=1))
    return tuple(levels)


def policy_mixture(weights: Weights, models: PolicyStack, *, update: Update) -> PolicyTable:
    """`xi(a|h) = sum_p w(p|h) p(a|h)` at every history.

    Args:
        weights: `w(p|h_{<t})` at the root up to a factor, shape (n_models,).
        models: level t of shape (n_models, (|A||O|)^t, |A|).
        update: whose actions update `w(p|h)`.

    Returns:
        Level t of shape ((|A||O|)^t, |A|).

    Example:
        >>> from theory import HistoryTree, Update, policy_mixture, policy_table, stack_tables
        >>> tree = HistoryTree(n_actions=2, n_observations=1, horizon=2)
        >>> safe, unsafe = (policy_table(tree, lambda h, a=a: (1 - a, a)) for a in (0, 1))
        >>> xi = policy_mixture([3, 1], stack_tables([safe, unsafe]), update=Update.ALL)
        >>> print(*xi[0][0])  # the weights
        3/4 1/4
        >>> print(*xi[1][1])  # after action 1 nothing but the second model is left
        0 1
    """
    w, models = _checked(weights, models)
    posterior = posterior_weights(w, models, update=update)
    return tuple(_mean(w_t, actions) for w_t, actions in zip(posterior, models, strict=True))


def joint_predictor(
    weights: Weights, policies: PolicyStack, environments: EnvironmentStack
) -> tuple[PolicyTable, EnvironmentTable]:
    """The joint predictor `xi`, as base policy and as environment.

    Args:
        weights: `w(p|h_{<t})` at the root up to a factor, shape (n_models,).
        policies: what the models predict of actions, level t (n_models, (|A||O|)^t, |A|).
        environments: and of observations, level t (n_models, (|A||O|)^t, |A|, |O|).

    Returns:
        `xi(a|h)`, level t of shape ((|A||O|)^t, |A|), and `xi(o|ha)`, (..., |A|, |O|); the
        posterior is updated by every action and every observation.

    Example:
        >>> from theory import HistoryTree, environment_table, joint_predictor
        >>> from theory import policy_table, stack_tables
        >>> tree = HistoryTree(n_actions=2, n_observations=2, horizon=2)
        >>> policies = [policy_table(tree, lambda h, p=p: (p, 1 - p)) for p in (0.75, 0.25)]
        >>> worlds = [environment_table(tree, lambda h, p=p: (p, 1 - p)) for p in (0.75, 0.25)]
        >>> pi, nu = joint_predictor([1, 1], stack_tables(policies), stack_tables(worlds))
        >>> pi[1][0]  # after (0, 0) the first model weighs 9/10: 9/10 3/4 + 1/10 1/4
        array([0.7, 0.3])
    """
    w, policies, environments = _checked(weights, policies, environments)
    return _joint_predictor(w, policies, environments)


def observation_mixture(weights: Weights, environments: EnvironmentStack) -> EnvironmentTable:
    """`xi~(o|ha)`, the mixture of the models' observations whose weights only these update.

    Args:
        weights: `w(p|h_{<t})` at the root up to a factor, shape (n_models,).
        environments: level t of shape (n_models, (|A||O|)^t, |A|, |O|).

    Returns:
        Level t of shape ((|A||O|)^t, |A|, |O|); products along a history telescope to
        `xi~(o||a)`.

    Example:
        >>> from theory import HistoryTree, environment_table, observation_mixture, stack_tables
        >>> tree = HistoryTree(n_actions=1, n_observations=2, horizon=2)
        >>> worlds = [environment_table(tree, lambda h, p=p: (p, 1 - p)) for p in (0.75, 0.25)]
        >>> xi_tilde = observation_mixture([1, 1], stack_tables(worlds))
        >>> xi_tilde[1][0]  # after o_1 = 0: 3/4 3/4 + 1/4 1/4
        array([[0.625, 0.375]])
    """
    w, environments = _checked(weights, environments)
    # The posterior learns nothing from actions to which every model gives the same number, here 1.
    indifferent = tuple(_ones_like(level[..., 0]) for level in environments)
    return _joint_predictor(w, indifferent, environments)[1]


def observation_ratios(xi: EnvironmentTable, xi_tilde: EnvironmentTable) -> tuple[Table, ...]:
    """`prod_j xi(o_j|h_j a_j) / xi~(o||a)` of every history; the residual is its logarithm.

    Args:
        xi: the joint predictor as environment.
        xi_tilde: `observation_mixture` of the models to be credited (in Theorem 1, those with a
            switched version in the mixture).

    Returns:
        `horizon + 1` levels, level t of shape ((|A||O|)^t,): inf where only the denominator is
        0 (observations that no credited model explains), 1 where both are.

    Example:
        >>> from theory import HistoryTree, environment_table, observation_ratios
        >>> tree = HistoryTree(n_actions=1, n_observations=2, horizon=1)
        >>> xi = environment_table(tree, lambda h: (0.75, 0.25))
        >>> xi_tilde = environment_table(tree, lambda h: (0.5, 0.5))
        >>> observation_ratios(xi, xi_tilde)[1]
        array([1.5, 0.5])
    """
    check_same_tree(xi, xi_tilde)
    laws = zip(*map(observation_laws, in_common_arithmetic(xi, xi_tilde)), strict=True)
    levels = []
    for law, law_tilde in laws:
        impossible = law_tilde == 0
        ratio = law / np.where(impossible, _ones_like(law), law_tilde)
        unexplained = np.where(law == 0, _ones_like(law), np.inf)
        levels.append(np.where(impossible, unexplained, ratio))
    return tuple(levels)


def normalised(weights: Weights) -> Table:
    """The weights, divided by their sum.

    Raises:
        InvalidShapeError: weights that have not one axis.
        InvalidDistributionError: weights negative, NaN, infinite or all 0.
    """
    if isinstance(weights, np.ndarray) and weights.dtype == np.float64:
        w: Table = weights  # a million entries need not be looked at one by one
    else:
        w = as_table(weights)
    if w.ndim != 1:
        raise InvalidShapeError(f"weights must have shape (n_models,), got {w.shape}")
    check_weights(w)
    total = w.sum()
    if not 0 < total < np.inf:
        raise InvalidDistributionError(f"weights must have a sum > 0 and finite, got {total}")
    return np.asarray(w / total)


def check_weights(weights: Table) -> None:
    """Raise `InvalidDistributionError` unless all weights are finite and not negative."""
    bad = weights[~((weights >= 0) & (weights < np.inf))]  # catches NaN too
    if bad.size:
        raise InvalidDistributionError(f"weights must be finite and >= 0, got {bad.flat[0]}")


def normalised_log_weights(log_w: LogWeights) -> LogWeights:
    """`log_w` less the logarithm of the sum of its exponentials.

    Args:
        log_w: natural logarithms of weights up to a factor, shape (..., n_models); -inf allowed.

    Returns:
        Logarithms of weights that sum to 1, the same shape.

    Raises:
        InvalidDistributionError: NaN or +inf, or no weight above 0 in a row.

    Example:
        >>> import numpy as np
        >>> from theory import normalised_log_weights
        >>> log_w = -np.log(2) * np.array([1001.0, 1002.0])  # 2^-length, far below the least float
        >>> np.exp(normalised_log_weights(log_w)).round(4)
        array([0.6667, 0.3333])
    """
    total = _log_sum_exp(_checked_logs(log_w, name="log_w"), axis=-1)
    if np.isneginf(total).any():
        raise InvalidDistributionError("some weight must be > 0, got log_w = -inf for every model")
    return np.asarray(log_w - total)


def update_log_weights(log_w: LogWeights, log_likelihood: LogWeights) -> LogWeights:
    """The posterior after one more symbol (or several, their log-likelihoods summed).

    An impossible symbol, one of likelihood 0 under every model of positive weight, updates
    nothing. Each update adds a rounding error of at most 2^-52 (1 + |log w| + |log-likelihood|)
    to a log-weight, w being the weight relative to the largest. Renormalising keeps the numbers
    that matter small. After 10^6 symbols the log-weights of models that still count are right to
    some 1e-10, the error that the rounding of the inputs makes anyway. (Sums of log-likelihoods,
    normalised at the end, are right to some 1e-5.)

    Args:
        log_w: normalised log-weights, shape (..., n_models).
        log_likelihood: `ln p(x|h)` of the observed symbol x under each model, same shape.

    Returns:
        Normalised log-weights, shape (..., n_models).

    Raises:
        InvalidDistributionError: NaN or +inf.
        InvalidShapeError: shapes that do not fit together.

    Example:
        >>> import numpy as np
        >>> from theory import update_log_weights
        >>> prior, likelihood = np.array([0.5, 0.5]), np.array([0.75, 0.25])
        >>> np.exp(update_log_weights(np.log(prior), np.log(likelihood))).round(12)
        array([0.75, 0.25])
    """
    _check_shapes(log_w, log_likelihood, fits=np.shape(log_likelihood) == np.shape(log_w))
    _checked_logs(log_w, name="log_w")
    joint = log_w + _checked_logs(log_likelihood, name="log_likelihood")
    total = _log_sum_exp(joint, axis=-1)
    impossible = np.isneginf(total)
    return np.where(impossible, log_w, joint - np.where(impossible, 0.0, total))


def predictive_log_probs(
    log_w: LogWeights, log_p: Float64[NDArray[np.float64], "*rows models symbols"]
) -> Float64[NDArray[np.float64], "*rows symbols"]:
    """`ln xi(x|h) = ln sum_p w(p|h) p(x|h)` of every symbol x.

    Args:
        log_w: normalised log-weights, shape (..., n_models).
        log_p: the models' `ln p(x|h)`, shape (..., n_models, n_symbols).

    Returns:
        Shape (..., n_symbols), at most 0; error about n_models 2^-53 relative to `xi(x|h)`,
        besides those of the weights.

    Raises:
        InvalidDistributionError: NaN or +inf.
        InvalidShapeError: shapes that do not fit together.

    Example:
        >>> import numpy as np
        >>> from theory import predictive_log_probs
        >>> log_w, log_p = np.log([0.75, 0.25]), np.log([[0.9, 0.1], [0.1, 0.9]])
        >>> np.exp(predictive_log_probs(log_w, log_p)).round(12)  # 3/4 9/10 + 1/4 1/10
        array([0.7, 0.3])
    """
    _check_shapes(log_w, log_p, fits=np.shape(log_p)[-2:-1] == np.shape(log_w)[-1:])
    _checked_logs(log_w, name="log_w")
    joint = log_w[..., None] + _checked_logs(log_p, name="log_p")
    # A probability of 1 may round to a little more.
    return np.minimum(_log_sum_exp(joint, axis=-2)[..., 0, :], 0.0)


def _joint_predictor(
    w: Table, policies: PolicyStack, environments: EnvironmentStack
) -> tuple[PolicyTable, EnvironmentTable]:
    pi, nu = [], []
    w = w[:, None]
    for actions, observations in zip(policies, environments, strict=True):
        after_action = _posterior(w, actions)
        pi.append(_mean(w, actions))
        nu.append(_mean(after_action, observations))
        w = _posterior(after_action, observations).reshape(len(w), -1)
    return tuple(pi), tuple(nu)


def _mean(w: Table, predicted: Table) -> Table:
    """`sum_p w(p) p(x)`, shapes (n_models, ...) and (n_models, ..., n_symbols)."""
    return np.asarray((w[..., None] * predicted).sum(axis=0))


def _posterior(w: Table, likelihood: Table) -> Table:
    """`w(p|..x)` for every x, shapes (n_models, ...) and (n_models, ..., n_symbols).

    Without the last axis of `likelihood`, the posterior after that one symbol.
    """
    prior = w.reshape(w.shape + (1,) * (likelihood.ndim - w.ndim))
    joint = prior * likelihood
    mass = np.asarray(joint.sum(axis=0))
    impossible = mass == 0
    return np.where(impossible, prior, joint / np.where(impossible, _ones_like(mass), mass))


def _ones_like(table: Table) -> Table:
    return np.full(table.shape, Fraction(1) if table.dtype == object else 1.0)


def _checked(weights: Weights, *stacks: tuple[Table, ...]) -> Any:
    """Normalised weights and the stacks, in one kind of number."""
    w = normalised(weights)
    # Policies come first; environments have an axis more. A stack alone may be either.
    for i, stack in enumerate(stacks):
        n_axes = np.ndim(stack[0]) if len(stacks) == 1 and len(stack) else 3 + i
        check_levels(
            stack, name="a stack", n_axes=n_axes, shape="(n_models, n_histories, |A|[, |O|])"
        )
        for t, level in enumerate(stack):
            if level.ndim < 3 or len(level) != len(w):
                raise InvalidShapeError(
                    f"level {t} of a stack must have shape (n_models, n_histories, ...) with "
                    f"n_models = {len(w)} as the weights have it, got {level.shape}"
                )
            check_distributions(level, name="the models")
    check_same_tree(*(model_table(stack, 0) for stack in stacks))
    return in_common_arithmetic(w, *stacks)


def _check_shapes(log_w: Any, log_p: Any, *, fits: bool) -> None:
    if not fits or not np.ndim(log_w):
        raise InvalidShapeError(
            "log-weights need shape (..., n_models), and log-probabilities a number for each (and "
            f"for each symbol), got shapes {np.shape(log_w)} and {np.shape(log_p)}"
        )


def _checked_logs(logs: NDArray[np.float64], *, name: str) -> NDArray[np.float64]:
    if not isinstance(logs, np.ndarray):
        raise InvalidArgumentError(f"{name} must be a NumPy array, got {type(logs).__name__}")
    below = logs < np.inf  # false for NaN too
    if not below.all():
        bad = logs[~below].flat[0]
        raise InvalidDistributionError(f"{name} must be below +inf and not NaN, got {bad}")
    return logs


def _log_sum_exp(logs: NDArray[np.float64], *, axis: int) -> NDArray[np.float64]:
    largest = logs.max(axis=axis, keepdims=True)
    shift = np.where(np.isneginf(largest), 0.0, largest)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.exp(logs - shift).sum(axis=axis, keepdims=True)) + shift)
