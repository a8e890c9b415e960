r"""How far data of one policy reach: uncertainty levels, concentrability, and the rates they give.

An oracle's uncertainty of pi falls like `U(pi|rho) / sqrt(N)` when N episodes of a behaviour policy
rho are its data. The limit of `sqrt(N) U_hat^pi`, a constant that all policies share left out, is
the *uncertainty level* `U_M*(pi)` here:

    U(pi|rho) = sum_h sum_{s,a} d^pi_h(s, a) m u(s, a),      m = H - h + 1 steps left,

with `u = 1/sqrt(d^rho(s, a))` for the tabular oracle (`d^rho` summed over steps), and
`u = |phi(s, a)|` in the inverse of `Lambda_rho = E_rho phi phi'` for the linear one. It is infinite
where pi goes and rho does not. The *concentrability* compares two policies on the same data,

    C(pi|rho) = (U(pi|rho) / U(rho|rho))^2,

1 for rho itself, and in expectation `N_0` episodes of rho tell of pi as much as `N_0 / C(pi|rho)`
would tell of rho. It is the quantity of Huang et al. (arXiv 2505.13768): their rates are

    sub-optimality   1 / sqrt(N_0 / C(pi*|rho) + N_1),
    regret           sqrt(N_1) sqrt(N_1 / (N_0 / C(pi^-eps|rho) + N_1)),

up to constants and logarithms, with `C(pi^-eps|rho)` the greatest of the policies that are worse
than the best by at least eps. `farthest_level` computes it: U is linear in occupancies, so that one
multiplier for the one constraint is enough, and its dual value proves that no policy is farther.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from theory.errors import InvalidArgumentError
from toy_world.hybrid.mdp import FiniteMDP, Floats, Model, occupancies

_RANK_TOLERANCE: Final = 1e-10
"""Eigenvalues of a covariance below this share of the greatest are directions without data."""
_DUAL_TOLERANCE: Final = 1e-10
"""Relative; a policy that gains less at a multiplier proves that the multiplier is the best."""


def tabular_step_levels(mdp: FiniteMDP, behaviour: Floats) -> Floats:
    """`u(s, a) = 1/sqrt(d^rho(s, a))`, infinite where rho never goes, shape (S, A).

    Args:
        mdp: the process.
        behaviour: rho, stochastic, shape (H, S, A).
    """
    with np.errstate(divide="ignore"):
        return np.asarray(1 / np.sqrt(occupancies(mdp, behaviour).sum(axis=0)))


def linear_step_levels(mdp: FiniteMDP, features: Floats, behaviour: Floats) -> Floats:
    """`u(s, a) = |phi(s, a)|` in the inverse of `E_rho phi phi'`, shape (S, A).

    Infinite for features outside the span of those that rho sees.

    Args:
        mdp: a process of one step.
        features: phi, shape (S, A, d).
        behaviour: rho, shape (1, S, A).
    """
    met = occupancies(mdp, behaviour)[0]
    covariance = np.einsum("sa,sai,saj->ij", met, features, features)
    eigenvalues, directions = np.linalg.eigh(covariance)
    seen = eigenvalues > _RANK_TOLERANCE * eigenvalues.max()
    parts = (features @ directions) ** 2
    level = np.sqrt((parts[..., seen] / eigenvalues[seen]).sum(axis=-1))
    unseen = parts[..., ~seen].sum(axis=-1) > _RANK_TOLERANCE * parts.sum(axis=-1)
    return np.where(unseen, np.inf, level)


def uncertainty_level(mdp: FiniteMDP, step_levels: Floats, policy: Floats) -> float:
    """`U(pi|rho)`; infinite if pi goes where rho does not.

    Args:
        mdp: the process.
        step_levels: u of rho, shape (S, A).
        policy: pi, stochastic, shape (H, S, A).
    """
    steps_left = np.arange(mdp.horizon, 0, -1)
    visits = (occupancies(mdp, policy) * steps_left[:, None, None]).sum(axis=0)
    return float((visits * np.where(visits > 0, step_levels, 0.0)).sum())


def concentrability(
    mdp: FiniteMDP, step_levels: Floats, *, policy: Floats, behaviour: Floats
) -> float:
    """`C(pi|rho) = (U(pi|rho) / U(rho|rho))^2`.

    Args:
        mdp: the process.
        step_levels: u of rho, shape (S, A).
        policy: pi, shape (H, S, A).
        behaviour: rho, shape (H, S, A).
    """
    of_policy = uncertainty_level(mdp, step_levels, policy)
    return (of_policy / uncertainty_level(mdp, step_levels, behaviour)) ** 2


@dataclass(frozen=True, kw_only=True)
class FarthestLevel:
    """The greatest uncertainty level of the policies that are worse than the best by eps.

    Attributes:
        level: of a policy (a lottery over at most two deterministic ones) that was found.
        bound: no such policy has a greater level.
    """

    level: float
    bound: float


def farthest_level(
    mdp: FiniteMDP, step_levels: Floats, *, least_gap: float
) -> FarthestLevel | None:
    """The greatest `U(pi|rho)` with `V* - V^pi >= eps`, and a proof; None if no policy is so bad.

    Args:
        mdp: the process.
        step_levels: u of rho, shape (S, A).
        least_gap: eps >= 0.

    Raises:
        InvalidArgumentError: a negative eps.
    """
    if not least_gap >= 0:
        raise InvalidArgumentError(f"least_gap must be >= 0, got {least_gap}")
    truth = mdp.model(1)
    levels = replace(truth, rewards=0 * truth.rewards, pay_left=_seen(step_levels))
    worst = _best_of(replace(truth, rewards=-truth.rewards), truth, levels)
    most_value = float(truth.optimum().values[0]) - least_gap
    if worst.value > most_value:
        return None
    evenly = np.full((mdp.horizon, *step_levels.shape), 1 / mdp.n_actions)
    if uncertainty_level(mdp, step_levels, evenly) == np.inf:
        # Somebody goes where rho does not; a lottery with a small chance of that is bad enough.
        return FarthestLevel(level=np.inf, bound=np.inf)

    def best_at(multiplier: float) -> _Policy:
        priced = replace(levels, rewards=-multiplier * truth.rewards)
        return _best_of(priced, truth, levels)

    above, below = best_at(0.0), worst
    if above.value <= most_value:
        return FarthestLevel(level=above.level, bound=above.objective)
    while True:
        multiplier = (above.level - below.level) / (above.value - below.value)
        found = best_at(multiplier)
        line = above.level - multiplier * above.value
        if found.objective - line <= _DUAL_TOLERANCE * max(abs(line), 1.0):
            share = (most_value - below.value) / (above.value - below.value)
            return FarthestLevel(
                level=share * above.level + (1 - share) * below.level,
                bound=found.objective + multiplier * most_value,
            )
        if found.value <= most_value:
            below = found
        else:
            above = found


@dataclass(frozen=True, kw_only=True)
class _Policy:
    """The best policy for some rewards: the greatest objective, and its own value and level."""

    objective: float
    value: float
    level: float


def _best_of(priced: Model, truth: Model, levels: Model) -> _Policy:
    found = priced.optimum()
    return _Policy(
        objective=float(found.bounds[0]),
        value=float(truth.values(found.policies)[0]),
        level=float(levels.values(found.policies)[0]),
    )


def _seen(step_levels: Floats) -> Floats:
    """The levels with one process for the axis of runs, 0 where rho never goes."""
    return np.where(np.isinf(step_levels), 0.0, step_levels)[None]


def sub_optimality_rate(*, n_offline: int, n_online: int, concentrability: float) -> float:
    """`1 / sqrt(N_0 / C + N_1)`, infinite without data that tell anything."""
    told = n_offline / concentrability + n_online
    return float(1 / np.sqrt(told)) if told > 0 else float(np.inf)


def regret_rate(*, n_offline: int, n_online: int, concentrability: float) -> float:
    """`sqrt(N_1) sqrt(N_1 / (N_0 / C + N_1))`, 0 without online episodes."""
    if n_online == 0:
        return 0.0
    return float(n_online / np.sqrt(n_offline / concentrability + n_online))


def fitted_constant(measured: Floats, rates: Floats) -> float:
    """The constant c for which `c rates` is nearest to `measured`, by least squares.

    Args:
        measured: shape (n,).
        rates: finite, not all 0, shape (n,).
    """
    return float(measured @ rates / (rates @ rates))
