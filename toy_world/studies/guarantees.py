"""What the pessimistic imitator guarantees while a demonstrator is watched, both sides of each.

A demonstrator mu = tau teaches, step by step; each of its actions updates the posterior of a fixed
class of models, the programs of short memory (`toy_world.studies.short_memory`). The top set, the
imitator `nu_alpha` and its help probability `theta_q` follow (Statement.PESSIMISTIC_IMITATOR):

- `|M^alpha| <= 1/alpha`;
- Ville: `P(mu in M^alpha_h at all h) >= 1 - alpha/w(mu)`, by enumeration of every history that mu
  can bring about up to some time (integers: exact), and by simulation far beyond;
- `E sum_t theta_q^3` against Statement.LIMITED_QUERYING, a bound taken from the literature.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mightnt.results import json_key
from mightnt.statistics import normal_interval, share_interval
from theory.bounds import demonstrator_stays_probability, help_cubed_bound
from theory.errors import InvalidArgumentError
from theory.pessimism import top_set
from toy_world.studies.short_memory import ShortMemory, draw_symbols
from toy_world.worlds.environments import WorldName

N_EXACT_STEPS: Final = 7
"""T of the enumeration."""


@dataclass(frozen=True, kw_only=True)
class ExactGuarantees:
    """Both sides of the guarantees for one alpha, by enumeration of all histories up to T.

    Attributes:
        alpha: the threshold.
        largest_top_set: of any history.
        stays: `P(mu in M^alpha at all t <= T)`.
        help_cubed: `E sum_{t<T} theta_q^3`, T terms.
    """

    alpha: Fraction
    largest_top_set: int
    stays: Fraction
    help_cubed: Fraction


def exact_guarantees(
    models: ShortMemory, *, alphas: Sequence[Fraction], n_steps: int
) -> tuple[ExactGuarantees, ...]:
    """Both sides for every alpha, over every history that mu can bring about in T steps.

    In integers: weights are multiples of 2^-L and probabilities dyadic.

    Args:
        models: the class; its demonstrator acts, and each of its actions updates the posterior.
        alphas: thresholds.
        n_steps: T >= 1.
    """
    if n_steps < 1:
        raise InvalidArgumentError(f"n_steps must be >= 1, got {n_steps}")
    place = models.place_of_tau
    unit = models.common_denominator
    rows = (models.rows * unit).astype(np.int64).astype(object)
    largest = dict.fromkeys(alphas, 0)
    left = dict.fromkeys(alphas, Fraction(0))
    cubes = dict.fromkeys(alphas, Fraction(0))
    waiting = deque([_Node(models=models, weights=models.weights.astype(object))])
    while waiting:
        node = waiting.pop()
        for alpha in alphas:
            inside = top_set(node.weights, alpha)
            largest[alpha] = max(largest[alpha], int(inside.sum()))
            if node.t < n_steps:
                missing = unit - rows[inside, node.state].min(axis=0).sum()
                cubes[alpha] += node.probability * Fraction(missing, unit) ** 3
            if alpha not in node.left and not inside[place]:
                node.left.add(alpha)
                left[alpha] += node.probability
        if node.t < n_steps:
            waiting.extend(node.followers(rows, unit))
    return tuple(
        ExactGuarantees(
            alpha=alpha,
            largest_top_set=largest[alpha],
            stays=1 - left[alpha],
            help_cubed=cubes[alpha],
        )
        for alpha in alphas
    )


@dataclass(kw_only=True)
class _Node:
    """A history that mu can bring about.

    Attributes:
        models: the class.
        t: its steps.
        state: the models' state.
        world_state: the world's.
        probability: under mu.
        weights: of the models, up to a factor, exact integers.
        left: the thresholds at which mu has not always been in the top set.
    """

    models: ShortMemory
    t: int = 0
    state: int = 0
    world_state: int = 0
    probability: Fraction = Fraction(1)
    weights: Any
    left: set[Fraction] = field(default_factory=set)

    def followers(self, rows: Any, unit: int) -> Iterator["_Node"]:
        """The histories of one step more; `rows` are the models' in units of `1 / unit`."""
        models, world = self.models, self.models.setting.world
        acts = rows[models.place_of_tau, self.state]
        for action in np.flatnonzero(acts > 0).tolist():
            # Bayes' rule without its denominator, which all models share.
            weights = self.weights * rows[:, self.state, action]
            share = self.probability * Fraction(acts[action], unit)
            for observation, seen in enumerate(world.emission[self.world_state][action]):
                if seen:
                    yield _Node(
                        models=models,
                        t=self.t + 1,
                        state=models.state_after(self.t + 1, action, observation),
                        world_state=world.successor[self.world_state][action][observation],
                        probability=share * seen,
                        weights=weights,
                        left=set(self.left),
                    )


@dataclass(frozen=True, kw_only=True)
class SimulatedGuarantees:
    """Both sides for one alpha, along simulated runs of the demonstrator.

    Attributes:
        alpha: the threshold.
        stayed: whether mu was in the top set at all t <= T, shape (n_runs,).
        help_probability: theta_q before each step, shape (n_runs, T).
        top_set_size: shape (n_runs, T).
    """

    alpha: Fraction
    stayed: NDArray[np.bool_]
    help_probability: NDArray[np.float64]
    top_set_size: NDArray[np.int64]

    @property
    def help_cubed(self) -> NDArray[np.float64]:
        """`sum_{t<T} theta_q^3` of each run."""
        return np.asarray((self.help_probability**3).sum(axis=1))


def simulated_guarantees(
    models: ShortMemory,
    *,
    alphas: Sequence[Fraction],
    n_steps: int,
    n_runs: int,
    rng: np.random.Generator,
) -> tuple[SimulatedGuarantees, ...]:
    """Draw histories from the demonstrator in its world and follow the imitators along them.

    Args:
        models: the class.
        alphas: thresholds.
        n_steps: T >= 1.
        n_runs: how many histories, at least 1.
        rng: draws them.
    """
    for name, count in (("n_steps", n_steps), ("n_runs", n_runs)):
        if count < 1:
            raise InvalidArgumentError(f"{name} must be >= 1, got {count}")
    world, place = models.setting.world, models.place_of_tau
    emission = np.array(world.emission, dtype=np.float64)
    successor = np.array(world.successor)
    prior = models.weights / models.weights.sum()
    weights = np.tile(prior, (n_runs, 1))
    state = np.zeros(n_runs, dtype=np.int64)
    world_state = np.zeros(n_runs, dtype=np.int64)
    stayed = {alpha: np.ones(n_runs, dtype=np.bool_) for alpha in alphas}
    asks = {alpha: np.zeros((n_runs, n_steps)) for alpha in alphas}
    sizes = {alpha: np.zeros((n_runs, n_steps), dtype=np.int64) for alpha in alphas}
    for t in range(n_steps + 1):
        predicted = models.rows[:, state].swapaxes(0, 1)  # (n_runs, n, |A|)
        for alpha in alphas:
            inside = top_set(weights, alpha)
            stayed[alpha] &= inside[:, place]
            if t < n_steps:
                least = np.where(inside[:, :, None], predicted, 2.0).min(axis=1)
                asks[alpha][:, t] = np.maximum(1 - least.sum(axis=1), 0)
                sizes[alpha][:, t] = inside.sum(axis=1)
        if t == n_steps:
            break
        action = draw_symbols(models.rows[place, state], rng)
        observation = draw_symbols(emission[world_state, action], rng)
        weights *= np.take_along_axis(predicted, action[:, None, None], axis=2)[:, :, 0]
        weights /= weights.sum(axis=1, keepdims=True)
        state = models.state_after(t + 1, action, observation)
        world_state = successor[world_state, action, observation]
    return tuple(
        SimulatedGuarantees(
            alpha=alpha,
            stayed=stayed[alpha],
            help_probability=asks[alpha],
            top_set_size=sizes[alpha],
        )
        for alpha in alphas
    )


@dataclass(frozen=True, kw_only=True)
class GuaranteeRow:
    """Both sides of the guarantees in one world at one alpha.

    Attributes:
        world: which world.
        alpha: the threshold.
        weight: w(mu).
        alpha_over_weight: alpha/w(mu).
        largest_top_set: of any history of at most `N_EXACT_STEPS` steps.
        stays_bound: `1 - alpha/w(mu)`, or 0: a bound of the next three.
        stays: `P(mu in the top set at all t <= T)`, T = `N_EXACT_STEPS`, exact.
        stays_rounded: the same.
        stays_simulated: the same for the T of the simulation: the share of runs.
        stays_interval: for that probability (Clopper and Pearson).
        help_cubed: `E sum theta_q^3` of `N_EXACT_STEPS` terms, exact before it was rounded.
        help_cubed_simulated: its mean over the simulated runs.
        help_cubed_interval: the normal interval for that mean.
        help_cubed_largest: of the runs.
        help_cubed_bound: for any number of terms; LITERATURE: Statement.LIMITED_QUERYING.
    """

    world: WorldName
    alpha: Fraction
    weight: Fraction
    alpha_over_weight: float
    largest_top_set: int
    stays_bound: float = field(metadata=json_key("bound"))
    stays: Fraction
    stays_rounded: float = field(metadata=json_key("exact"))
    stays_simulated: float = field(metadata=json_key("simulated"))
    stays_interval: tuple[float, float] = field(metadata=json_key("interval"))
    help_cubed: float
    help_cubed_simulated: float
    help_cubed_interval: tuple[float, float]
    help_cubed_largest: float
    help_cubed_bound: float

    @property
    def exact_stays_bound(self) -> Fraction:
        """`1 - alpha/w(mu)`, or 0."""
        return Fraction(demonstrator_stays_probability(alpha=self.alpha, weight=self.weight))


def alphas_around(models: ShortMemory) -> tuple[Fraction, ...]:
    """Powers of 1/2 from four times w(mu) down to a sixteenth of it, about; at most 1/2."""
    place = round(-math.log2(models.weight_of_tau))
    return tuple(Fraction(1, 2**j) for j in range(max(place - 2, 1), place + 5))


def guarantee_row(
    models: ShortMemory, exact: ExactGuarantees, simulated: SimulatedGuarantees
) -> GuaranteeRow:
    """Both sides at one alpha.

    Args:
        models: the class.
        exact: by enumeration.
        simulated: at the same alpha, at least two runs.
    """
    weight, alpha = models.weight_of_tau, exact.alpha
    stays = share_interval(int(simulated.stayed.sum()), len(simulated.stayed))
    help_cubed = normal_interval(simulated.help_cubed.tolist())
    return GuaranteeRow(
        world=models.setting.name,
        alpha=alpha,
        weight=weight,
        alpha_over_weight=float(alpha / weight),
        largest_top_set=exact.largest_top_set,
        stays_bound=float(demonstrator_stays_probability(alpha=alpha, weight=weight)),
        stays=exact.stays,
        stays_rounded=float(exact.stays),
        stays_simulated=float(simulated.stayed.mean()),
        stays_interval=(stays.low, stays.high),
        help_cubed=float(exact.help_cubed),
        help_cubed_simulated=float(simulated.help_cubed.mean()),
        help_cubed_interval=(help_cubed.low, help_cubed.high),
        help_cubed_largest=float(simulated.help_cubed.max()),
        help_cubed_bound=help_cubed_bound(
            n_actions=models.rows.shape[2], alpha=float(alpha), weight=float(weight)
        ),
    )
