"""Finite-horizon Markov decision processes, exactly: values, optimal policies, occupancies, data.

A process has states s, actions a and H steps. Action a in state s pays 1 with probability r(s, a)
and leads to one of at most K states, the same at every step. A policy is either *deterministic*,
an action for each step and state, or *stochastic*, a distribution over actions for each; a value
is the expected sum of rewards and lies in [0, H].

Everything that a learner does is done for R runs side by side: arrays begin with the axis of runs,
and the loops over steps, states and actions are compiled. A `Model` holds R processes that differ
in their rewards and probabilities, such as what each run believes; its rewards may be anything.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from theory.arguments import check_count
from theory.compiled import compiled
from theory.errors import InvalidDistributionError, InvalidShapeError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ROUNDING: Final = 1e-12
"""By how much the probabilities of a distribution may miss 1."""


@dataclass(frozen=True, kw_only=True)
class FiniteMDP:
    """One process.

    Attributes:
        rewards: r(s, a) in [0, 1], shape (S, A).
        successors: which states may follow, shape (S, A, K).
        probabilities: of each of them, shape (S, A, K).
        initial: of the first state, shape (S,).
        horizon: H.

    Raises:
        InvalidShapeError: shapes that do not belong together, or a successor that is no state.
        InvalidDistributionError: probabilities that do not sum to 1, or rewards outside [0, 1].
    """

    rewards: Floats
    successors: Ints
    probabilities: Floats
    initial: Floats
    horizon: int

    def __post_init__(self) -> None:
        check_count(horizon=self.horizon)
        n_states = len(self.initial)
        if (
            self.successors.shape != self.probabilities.shape
            or self.successors.shape[:-1] != self.rewards.shape
            or len(self.rewards) != n_states
        ):
            raise InvalidShapeError(
                "rewards (S, A), successors (S, A, K), probabilities (S, A, K) and initial (S,) "
                f"must belong together, got {self.rewards.shape}, {self.successors.shape}, "
                f"{self.probabilities.shape} and {self.initial.shape}"
            )
        if not ((self.successors >= 0) & (self.successors < n_states)).all():
            raise InvalidShapeError(f"successors must be states 0 to {n_states - 1}")
        for name in ("probabilities", "initial"):
            rows = getattr(self, name)
            if not ((rows >= 0).all() and np.allclose(rows.sum(axis=-1), 1, 0, ROUNDING)):
                raise InvalidDistributionError(f"{name} must be >= 0 and sum to 1")
        if not ((self.rewards >= 0) & (self.rewards <= 1)).all():
            raise InvalidDistributionError("rewards must lie in [0, 1]")

    @property
    def n_states(self) -> int:
        """S."""
        return int(self.rewards.shape[0])

    @property
    def n_actions(self) -> int:
        """A."""
        return int(self.rewards.shape[1])

    @property
    def n_successors(self) -> int:
        """K."""
        return int(self.successors.shape[2])

    def model(self, n_runs: int) -> "Model":
        """The truth, for R runs side by side."""
        return Model(
            rewards=_repeated(self.rewards, n_runs),
            pay_left=np.zeros((n_runs, *self.rewards.shape)),
            probabilities=_repeated(self.probabilities, n_runs),
            successors=self.successors,
            initial=self.initial,
            horizon=self.horizon,
        )


def _repeated(array: Floats, n_runs: int) -> Floats:
    return np.ascontiguousarray(np.broadcast_to(array, (n_runs, *array.shape)))


@dataclass(frozen=True, kw_only=True)
class Model:
    """R processes side by side, or what R runs believe of one.

    Attributes:
        rewards: paid at each step, any numbers, shape (R, S, A).
        pay_left: paid at each step times the steps that are left, that one among them; any
            numbers, shape (R, S, A).
        probabilities: of the successors, shape (R, S, A, K); they may miss mass, which ends the
            process.
        successors: shape (S, A, K).
        initial: shape (S,).
        horizon: H.
    """

    rewards: Floats
    pay_left: Floats
    probabilities: Floats
    successors: Ints
    initial: Floats
    horizon: int

    def values(self, policies: Ints) -> Floats:
        """The value of a deterministic policy in each process.

        Args:
            policies: an action for each step and state, shape (R, H, S).

        Returns:
            Shape (R,).
        """
        first = _values(
            policies,
            self.rewards,
            self.pay_left,
            self.probabilities,
            self.successors,
        )
        return np.asarray(first @ self.initial)

    def optimum(self) -> "Optimum":
        """The best deterministic policy of each process, by backward recursion.

        Among equal actions the first is taken.
        """
        policies, first = _plans(
            self.rewards, self.pay_left, self.probabilities, self.successors, self.horizon
        )
        return Optimum(
            policies=policies, values=self.values(policies), bounds=np.asarray(first @ self.initial)
        )


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """Best policies and why nothing is better.

    Attributes:
        policies: shape (R, H, S).
        values: theirs, evaluated anew, shape (R,).
        bounds: no policy has a greater value: the first step of a function of step and state that
            no action exceeds (Bellman's inequality), shape (R,).
    """

    policies: Ints
    values: Floats
    bounds: Floats

    @property
    def gap(self) -> float:
        """By how much the optimum may exceed the value, in the worst run."""
        return float((self.bounds - self.values).max())


@dataclass(frozen=True, kw_only=True)
class Data:
    """What R runs have seen, offline and online alike.

    Attributes:
        visits: how often each successor followed, shape (R, S, A, K).
        rewards: sums of the rewards, shape (R, S, A).
    """

    visits: Ints
    rewards: Floats

    @property
    def counts(self) -> Ints:
        """How often each action was taken in each state, shape (R, S, A)."""
        return np.asarray(self.visits.sum(axis=-1))

    @property
    def n_runs(self) -> int:
        """R."""
        return len(self.visits)


def no_data(mdp: FiniteMDP, n_runs: int) -> Data:
    """What is known before the first episode."""
    shape = (n_runs, *mdp.successors.shape)
    return Data(visits=np.zeros(shape, dtype=np.int64), rewards=np.zeros(shape[:-1]))


def demonstrations(
    mdp: FiniteMDP, behaviour: Floats, n_episodes: int, *, n_runs: int, rng: np.random.Generator
) -> Data:
    """Episodes of a stochastic policy, independent ones for each run.

    Args:
        mdp: the process.
        behaviour: rho(a | h, s), shape (H, S, A).
        n_episodes: N_0 >= 0, for each run.
        n_runs: R.
        rng: source of randomness.
    """
    data = no_data(mdp, n_runs)
    cumulated = np.cumsum(behaviour, axis=-1)
    # The last bound is never looked at, so that rounding cannot lead beyond the actions.
    for _ in range(n_episodes):
        first = _initial_states(mdp, n_runs, rng)
        _watch(
            cumulated,
            rng.random((n_runs, mdp.horizon, 3)),
            first,
            *(mdp.rewards, np.cumsum(mdp.probabilities, axis=-1), mdp.successors),
            *(data.visits, data.rewards),
        )
    return data


def with_an_episode(mdp: FiniteMDP, policies: Ints, data: Data, rng: np.random.Generator) -> Data:
    """`data` and one more episode of each run's own deterministic policy, shape (R, H, S)."""
    visits, rewards = data.visits.copy(), data.rewards.copy()
    _follow(
        policies,
        rng.random((len(policies), mdp.horizon, 2)),
        _initial_states(mdp, len(policies), rng),
        *(mdp.rewards, np.cumsum(mdp.probabilities, axis=-1), mdp.successors),
        *(visits, rewards),
    )
    return Data(visits=visits, rewards=rewards)


def _initial_states(mdp: FiniteMDP, n_runs: int, rng: np.random.Generator) -> Ints:
    return rng.choice(mdp.n_states, size=n_runs, p=mdp.initial)


def one_hot(policy: Ints, n_actions: int) -> Floats:
    """A deterministic policy, shape (..., H, S), as a stochastic one, shape (..., H, S, A)."""
    return np.asarray(policy[..., None] == np.arange(n_actions), dtype=np.float64)


def occupancies(mdp: FiniteMDP, policy: Floats) -> Floats:
    """`d_h(s, a)`: the probability of being in s and doing a at each step.

    Args:
        mdp: the process.
        policy: stochastic, shape (H, S, A).

    Returns:
        Shape (H, S, A); every step sums to 1.
    """
    found = np.empty(policy.shape)
    states: Floats = mdp.initial
    for h, rows in enumerate(policy):
        found[h] = states[:, None] * rows
        flow = found[h][..., None] * mdp.probabilities
        states = np.zeros(mdp.n_states)
        np.add.at(states, mdp.successors.reshape(-1), flow.reshape(-1))
    return found


@compiled
def _values(
    policies: Ints, rewards: Floats, pay_left: Floats, probabilities: Floats, successors: Ints
) -> Floats:
    n_runs, horizon, n_states = policies.shape
    later = np.zeros((n_runs, n_states))
    now = np.zeros((n_runs, n_states))
    for run in range(n_runs):
        for left in range(1, horizon + 1):
            for s in range(n_states):
                a = policies[run, horizon - left, s]
                total = rewards[run, s, a] + left * pay_left[run, s, a]
                for k in range(successors.shape[2]):
                    total += probabilities[run, s, a, k] * later[run, successors[s, a, k]]
                now[run, s] = total
            later[run] = now[run]
    return later


@compiled
def _plans(
    rewards: Floats, pay_left: Floats, probabilities: Floats, successors: Ints, horizon: int
) -> tuple[Ints, Floats]:
    n_runs, n_states, n_actions = rewards.shape
    policies = np.zeros((n_runs, horizon, n_states), dtype=np.int64)
    later = np.zeros((n_runs, n_states))
    now = np.zeros((n_runs, n_states))
    for run in range(n_runs):
        for left in range(1, horizon + 1):
            for s in range(n_states):
                best = -np.inf
                for a in range(n_actions):
                    total = rewards[run, s, a] + left * pay_left[run, s, a]
                    for k in range(successors.shape[2]):
                        total += probabilities[run, s, a, k] * later[run, successors[s, a, k]]
                    if total > best:
                        best = total
                        policies[run, horizon - left, s] = a
                now[run, s] = best
            later[run] = now[run]
    return policies, later


@compiled
def _place(bounds: Floats, uniform: float) -> int:
    """Where a uniform number falls between cumulated probabilities."""
    for i in range(len(bounds) - 1):
        if uniform < bounds[i]:
            return i
    return len(bounds) - 1


@compiled
def _visit(
    run: int,
    s: int,
    a: int,
    uniforms: Floats,
    means: Floats,
    cumulated: Floats,
    successors: Ints,
    visits: Ints,
    rewards: Floats,
) -> int:
    """Take action a in state s, write down what comes of it, and return the next state."""
    k = _place(cumulated[s, a], uniforms[0])
    visits[run, s, a, k] += 1
    if uniforms[1] < means[s, a]:
        rewards[run, s, a] += 1
    return int(successors[s, a, k])


@compiled
def _follow(
    policies: Ints,
    uniforms: Floats,
    states: Ints,
    means: Floats,
    cumulated: Floats,
    successors: Ints,
    visits: Ints,
    rewards: Floats,
) -> None:
    for run in range(len(policies)):
        s = states[run]
        for h in range(policies.shape[1]):
            a = policies[run, h, s]
            s = _visit(run, s, a, uniforms[run, h], means, cumulated, successors, visits, rewards)


@compiled
def _watch(
    behaviour: Floats,
    uniforms: Floats,
    states: Ints,
    means: Floats,
    cumulated: Floats,
    successors: Ints,
    visits: Ints,
    rewards: Floats,
) -> None:
    for run in range(len(uniforms)):
        s = states[run]
        for h in range(len(behaviour)):
            a = _place(behaviour[h, s], uniforms[run, h, 2])
            s = _visit(run, s, a, uniforms[run, h], means, cumulated, successors, visits, rewards)
