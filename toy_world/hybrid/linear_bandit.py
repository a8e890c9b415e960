r"""The linear oracle: contextual bandits whose rewards are linear in known features (LinUCB).

A contextual bandit is a process of one step: context s, action a, a reward of mean
`r(s, a) = phi(s, a) . theta` with unknown theta, `|theta| <= B`. With

    Lambda = lambda I + sum_i phi_i phi_i',      theta_hat = Lambda^-1 sum_i phi_i y_i,

rewards in [0, 1], whose noise is 1/2-sub-Gaussian, and any rule of choosing actions from the past,

    |phi . (theta - theta_hat)| <= beta |phi|_{Lambda^-1},
    beta = sqrt(lambda) B + 1/2 sqrt( 2 ln(1/delta) + ln det(Lambda / lambda) )

for all phi and at all times with probability at least 1 - delta (Abbasi-Yadkori, Pal and
Szepesvari, 2011: `det(Lambda/lambda)^{-1/2} exp(2 |S|^2_{Lambda^-1})`, S the sum of phi times
noise, is a supermartingale, to which Ville's inequality applies). A policy's value is a mean over
contexts, which are known, and so is its uncertainty,

    V_hat^pi = E_s phi(s, pi(s)) . theta_hat,    U_hat^pi = E_s beta |phi(s, pi(s))|_{Lambda^-1},

so that the best policy takes the best action in every context.

Counts and sums of rewards for each (s, a) say all that Lambda and theta_hat need: the data are
those of `toy_world.hybrid.mdp`.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from theory.errors import InvalidArgumentError, InvalidShapeError
from toy_world.hybrid.mdp import Data, Floats, Ints, Optimum
from toy_world.hybrid.oracle import Attitude

NOISE: Final = 0.5
"""Rewards in [0, 1] less their mean are sub-Gaussian with this scale (Hoeffding's lemma)."""


@dataclass(frozen=True, kw_only=True)
class LinearOracle:
    """What is known beforehand: contexts, features, and how long theta may be.

    Attributes:
        features: phi(s, a), shape (S, A, d).
        contexts: their probabilities, shape (S,).
        longest: B, a bound on the length of theta.
        ridge: lambda > 0.
        delta: with which probability the uncertainty may fail to cover, in (0, 1).
        scale: of beta; 1 covers, learners in practice take less.

    Raises:
        InvalidShapeError: features that are not those of the contexts.
        InvalidArgumentError: delta outside (0, 1), or another number that is not positive.
    """

    features: Floats
    contexts: Floats
    longest: float
    ridge: float
    delta: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.features.ndim != 3 or len(self.features) != len(self.contexts):
            raise InvalidShapeError(
                f"features must have shape (S, A, d) with S = {len(self.contexts)} contexts, got "
                f"{self.features.shape}"
            )
        if not 0 < self.delta < 1:
            raise InvalidArgumentError(f"delta must lie in (0, 1), got {self.delta}")
        for name in ("longest", "ridge", "scale"):
            if not getattr(self, name) > 0:
                raise InvalidArgumentError(f"{name} must be > 0, got {getattr(self, name)}")

    def __call__(self, data: Data) -> "LinearEstimate":
        """Ridge regression, and the ellipsoid around it."""
        n_runs, dimension = data.n_runs, self.features.shape[-1]
        rows = self.features.reshape(-1, dimension)
        squares = (rows[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)
        counts = data.counts.reshape(n_runs, -1).astype(np.float64)
        seen = (counts @ squares).reshape(n_runs, dimension, dimension)
        matrices = seen + self.ridge * np.eye(dimension)
        inverses = np.linalg.inv(matrices)
        sums = data.rewards.reshape(n_runs, -1) @ rows
        theta = (inverses @ sums[..., None])[..., 0]
        log_volumes = np.linalg.slogdet(matrices / self.ridge)[1]
        beta = math.sqrt(self.ridge) * self.longest + NOISE * np.sqrt(
            2 * math.log(1 / self.delta) + log_volumes
        )
        # |phi|^2 = sum_ij phi_i phi_j Lambda^-1_ij, for all rows and runs at once.
        lengths = np.sqrt(np.maximum(inverses.reshape(n_runs, -1) @ squares.T, 0.0))
        shape = (n_runs, *self.features.shape[:2])
        return LinearEstimate(
            means=(theta @ rows.T).reshape(shape),
            widths=(self.scale * beta[:, None] * lengths).reshape(shape),
            contexts=self.contexts,
        )


@dataclass(frozen=True, kw_only=True)
class LinearEstimate:
    """What R runs believe of every context and action.

    Attributes:
        means: `phi . theta_hat`, shape (R, S, A).
        widths: `beta |phi|`, shape (R, S, A).
        contexts: probabilities, shape (S,).
    """

    means: Floats
    widths: Floats
    contexts: Floats

    def values(self, policies: Ints) -> Floats:
        """`V_hat^pi`, (R, 1, S) to (R,)."""
        return _mean_over_contexts(self.means, policies, self.contexts)

    def uncertainties(self, policies: Ints) -> Floats:
        """`U_hat^pi`, (R, 1, S) to (R,)."""
        return _mean_over_contexts(self.widths, policies, self.contexts)

    def best(self, attitude: Attitude) -> Optimum:
        """The greatest `V_hat +- U_hat`: the greatest in every context."""
        scores = self.means + attitude.value * self.widths
        policies = scores.argmax(axis=-1)[:, None, :]
        return Optimum(
            policies=policies,
            values=_mean_over_contexts(scores, policies, self.contexts),
            bounds=np.asarray(scores.max(axis=-1) @ self.contexts),
        )


def _mean_over_contexts(scores: Floats, policies: Ints, contexts: Floats) -> Floats:
    chosen = np.take_along_axis(scores, policies[:, 0, :, None], axis=-1)[..., 0]
    return np.asarray(chosen @ contexts)
