r"""The tabular oracle: counts, and a bonus that falls with them (as in UCBVI).

With n(s, a) visits the estimates are the means `r_hat`, `P_hat` of what was seen, both 0 where
n = 0. By the simulation lemma the error of a policy's value is the expectation, *in the estimated
process*, of the errors of single steps,

    V^pi - V_hat^pi = E_hat^pi sum_h [ (r - r_hat) + (P - P_hat) V^pi_{h+1} ](s_h, a_h).

With m = H - h + 1 steps left rewards and later values add up to at most m; `V^pi_{h+1}` lies in
[0, m - 1], whatever pi, so that the bracket is at most

    |r - r_hat| + (m - 1) TV(P, P_hat) <= m radius(n),     radius(n) = min(1, sqrt(L / 2n)),

if no mean of rewards and no set of successors is off by more than the radius. A process with at
most K successors has `2^K - 2` sets that may be, and a mean of rewards may be off upwards or
downwards: 2^K events for each (s, a) and each n up to a greatest T, each of probability at most
`exp(-2 n radius^2)` (Hoeffding: the n-th visit of (s, a) draws anew, whatever led to it). So
`L = ln(2^K S A T / delta)` covers all policies at all times with probability 1 - delta, and

    U_hat^pi = E_hat^pi sum_h m radius(n(s_h, a_h)).

Both are expectations in one process, so that `V_hat +- U_hat` has its greatest policy by backward
recursion, exactly. (To clip `U_hat` at what is left to gain would be valid too, and would lose
that.) Nothing is known of an action that was never taken: radius 1 there, the whole of m.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from theory.arguments import check_count
from theory.errors import InvalidArgumentError
from toy_world.hybrid.mdp import Data, FiniteMDP, Floats, Ints, Model, Optimum
from toy_world.hybrid.oracle import Attitude


@dataclass(frozen=True, kw_only=True)
class TabularOracle:
    """What is known beforehand: states, actions, horizon, who may follow whom.

    Attributes:
        successors: shape (S, A, K).
        initial: shape (S,).
        horizon: H.
        most_visits: T >= 1, that any (s, a) may have.
        delta: with which probability the uncertainty may fail to cover, in (0, 1).
        scale: of the radius; 1 covers, learners in practice take less.

    Raises:
        InvalidArgumentError: delta outside (0, 1), a scale that is not positive, or T < 1.
    """

    successors: Ints
    initial: Floats
    horizon: int
    most_visits: int
    delta: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_count(most_visits=self.most_visits)
        if not 0 < self.delta < 1:
            raise InvalidArgumentError(f"delta must lie in (0, 1), got {self.delta}")
        if not self.scale > 0:
            raise InvalidArgumentError(f"scale must be > 0, got {self.scale}")

    @classmethod
    def of(
        cls, mdp: FiniteMDP, *, n_episodes: int, delta: float, scale: float = 1.0
    ) -> "TabularOracle":
        """For a process whose rewards and probabilities are not known, and N_0 + N_1 episodes."""
        return cls(
            successors=mdp.successors,
            initial=mdp.initial,
            horizon=mdp.horizon,
            most_visits=max(n_episodes, 1) * mdp.horizon,
            delta=delta,
            scale=scale,
        )

    @property
    def log_events(self) -> float:
        """L, the logarithm of the number of events over delta."""
        n_states, n_actions, n_successors = self.successors.shape
        pairs = n_states * n_actions * self.most_visits
        return float(n_successors * math.log(2) + math.log(pairs / self.delta))

    def radius(self, counts: Ints) -> Floats:
        """`min(1, scale sqrt(L / 2n))`, and 1 for n = 0; the shape of `counts`."""
        width = self.scale * np.sqrt(self.log_events / (2 * np.maximum(counts, 1)))
        return np.where(counts > 0, np.minimum(width, 1.0), 1.0)

    def __call__(self, data: Data) -> "TabularEstimate":
        """Means of what was seen, and the bonus."""
        counts = data.counts
        seen = np.maximum(counts, 1)
        believed = Model(
            rewards=data.rewards / seen,
            pay_left=np.zeros(counts.shape),
            probabilities=data.visits / seen[..., None],
            successors=self.successors,
            initial=self.initial,
            horizon=self.horizon,
        )
        return TabularEstimate(believed=believed, radius=self.radius(counts))


@dataclass(frozen=True, kw_only=True)
class TabularEstimate:
    """What R runs believe, and how far each step may be off.

    Attributes:
        believed: R processes.
        radius: for each step that is left, shape (R, S, A).
    """

    believed: Model
    radius: Floats

    def values(self, policies: Ints) -> Floats:
        """`V_hat^pi`, (R, H, S) to (R,)."""
        return self.believed.values(policies)

    def uncertainties(self, policies: Ints) -> Floats:
        """`U_hat^pi`, (R, H, S) to (R,)."""
        only = replace(self.believed, rewards=np.zeros(self.radius.shape), pay_left=self.radius)
        return only.values(policies)

    def best(self, attitude: Attitude) -> Optimum:
        """The greatest `V_hat +- U_hat`, exactly."""
        return replace(self.believed, pay_left=attitude.value * self.radius).optimum()
