"""The mixture of all programs in the situations that a demonstration leads to.

A demonstrator acts in its world for k steps; then the *mixture*, the posterior over every policy
program of at most L bits, is asked what it expects. In a *familiar* situation the history goes on
as ever. In a *novel* one the world's novelty has just happened, something that the history had
never seen; while it happens the demonstrator takes its likeliest actions.

`posteriors_at` enumerates the programs once for any number of situations. `Mixture` is what a
study of agents needs of one of them: weights and models on a tree, with demonstrator and world.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from theory.bayes_mixture import PolicyStack, Update, policy_mixture
from theory.errors import UnreachableLengthError
from theory.pessimism import pessimistic_imitator, top_set
from theory.process import EnvironmentTable, PolicyTable
from toy_world.programs.columns import ColumnLayout, QueryPoint
from toy_world.programs.enumeration import Enumeration, enumerate_policies
from toy_world.programs.language import Language
from toy_world.programs.posterior import Posterior, posterior
from toy_world.worlds.demonstrator import demonstrate, likeliest_steps
from toy_world.worlds.setting import Setting

LEAST_WEIGHT: Final = 1e-280
"""Smaller posterior weights are taken for 0: planners divide by probabilities."""


@dataclass(frozen=True, kw_only=True)
class Posteriors:
    """The mixture in several situations on one history.

    Each is worked out when it is asked for and not kept: it may hold hundreds of megabytes.

    Attributes:
        enumeration: the programs, merged where none of the situations tells them apart.
    """

    enumeration: Enumeration

    def at(self, index: int) -> Posterior:
        """The mixture in one of the situations."""
        return posterior(self.enumeration, index)

    def __iter__(self) -> Iterator[Posterior]:
        return (self.at(i) for i in range(len(self.enumeration.layout.points)))


def posteriors_at(
    language: Language,
    actions: NDArray[np.int64],
    observations: NDArray[np.int64],
    situations: Sequence[QueryPoint],
    *,
    horizon: int,
    limit_bits: int,
    event_bits: int = 0,
) -> Posteriors:
    """The mixture of all programs of at most L bits in situations on one history.

    Args:
        language: of the programs.
        actions: a_1 ... a_T of the history.
        observations: o_1 ... o_T.
        situations: in order of their steps.
        horizon: m, how many steps after the situation may be asked about.
        limit_bits: L.
        event_bits: events of up to so many bits are stored even if no program needs them.
    """
    layout = ColumnLayout(
        actions,
        observations,
        situations,
        n_actions=language.n_actions,
        n_observations=language.n_observations,
        horizon=horizon,
    )
    enumeration = enumerate_policies(language, layout, limit_bits, event_bits=event_bits)
    return Posteriors(enumeration=enumeration)


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """What a setting's demonstrator did in its world.

    Attributes:
        setting: world and demonstrator.
        actions: a_1 ... a_T, shape (T,).
        observations: o_1 ... o_T, shape (T,).
    """

    setting: Setting
    actions: NDArray[np.int64]
    observations: NDArray[np.int64]

    @classmethod
    def draw(cls, setting: Setting, n_steps: int, *, rng: np.random.Generator) -> "Demonstration":
        """A demonstration of T = `n_steps` steps; shorter ones with equal `rng` begin alike."""
        actions, observations = demonstrate(setting.world, setting.tau, n_steps, rng=rng)
        return cls(setting=setting, actions=actions, observations=observations)

    @cached_property
    def _states(self) -> tuple[int, ...]:
        """The world's state before each step and after the last."""
        return self.setting.world.states_along(self.actions, self.observations)

    def familiar(self, n_steps: int) -> QueryPoint:
        """The situation after k = `n_steps` steps, in which nothing new has happened."""
        return QueryPoint(n_steps=n_steps)

    def novel(self, n_steps: int) -> QueryPoint:
        """The situation after k = `n_steps` steps and then the world's novelty."""
        steps = np.stack([self.actions[:n_steps], self.observations[:n_steps]], axis=1)
        extra = likeliest_steps(
            self.setting.tau,
            tuple(steps.reshape(-1).tolist()),
            self.setting.world.novelty[self._states[n_steps]],
            language=self.setting.language,
        )
        return QueryPoint(n_steps=n_steps, extra=extra)

    def state_at(self, situation: QueryPoint) -> int:
        """The world's state in a situation."""
        state = self._states[situation.n_steps]
        return self.setting.world.state_after(situation.extra, state=state)

    def posteriors_at(
        self, situations: Sequence[QueryPoint], *, limit_bits: int, event_bits: int = 0
    ) -> Posteriors:
        """The mixture in situations of this demonstration (see `posteriors_at`)."""
        return posteriors_at(
            self.setting.language,
            self.actions,
            self.observations,
            situations,
            horizon=self.setting.horizon,
            limit_bits=limit_bits,
            event_bits=event_bits,
        )


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """A posterior over behaviours on one tree, and the demonstrator and world there.

    Attributes:
        weights: of classes that differ somewhere on the tree, sum 1, shape (n,).
        models: what they do, level t of shape (n, (|A||O|)^t, |A|).
        tau: what the demonstrator does, level t of shape ((|A||O|)^t, |A|).
        nu: the world.
    """

    weights: NDArray[np.float64]
    models: PolicyStack
    tau: PolicyTable
    nu: EnvironmentTable

    @cached_property
    def place_of_tau(self) -> int:
        """Which class is the demonstrator's.

        Raises:
            UnreachableLengthError: none is; the mixture's programs are too short.
        """
        same = np.all(
            [
                (models == tau).all(axis=(1, 2))
                for models, tau in zip(self.models, self.tau, strict=True)
            ],
            axis=0,
        )
        if not same.any():
            raise UnreachableLengthError(
                "no program of the mixture does as the demonstrator does; allow more bits"
            )
        return int(same.argmax())

    def top_set(self, alpha: Fraction) -> NDArray[np.bool_]:
        """The top set at the root."""
        return top_set(self.weights, alpha)

    def imitator(self, *, update: Update) -> PolicyTable:
        """The Bayesian imitator `xi`."""
        return policy_mixture(self.weights, self.models, update=update)

    def pessimist(self, alpha: Fraction, *, update: Update) -> PolicyTable:
        """The pessimistic imitator `nu_alpha`."""
        return pessimistic_imitator(self.weights, self.models, alpha=alpha, update=update)


def mixture_at(found: Posterior, setting: Setting, *, state: int) -> Mixture:
    """The mixture of all programs in one situation, weights below `LEAST_WEIGHT` left out.

    Args:
        found: the posterior there.
        setting: world and demonstrator.
        state: the world's state there.
    """
    weights, models = found.by_continuation()
    weights[weights < LEAST_WEIGHT] = 0.0
    tau = tuple(level.astype(np.float64) for level in found.on_tree(setting.tau))
    nu = tuple(level.astype(np.float64) for level in setting.world.table(found.tree, state=state))
    return Mixture(weights=weights, models=models, tau=tau, nu=nu)


def mixtures_while_watching(
    setting: Setting, *, limit_bits: int, times: Sequence[int], rng: np.random.Generator
) -> tuple[Mixture, ...]:
    """The mixture of all programs of at most L bits after each of `times` steps of demonstration.

    Args:
        setting: world, demonstrator and horizon.
        limit_bits: L.
        times: increasing, each at least 0.
        rng: draws the demonstration.
    """
    watched = Demonstration.draw(setting, max(times), rng=rng)
    return _mixtures(watched, [watched.familiar(k) for k in times], limit_bits)


def novel_mixture(
    setting: Setting, *, limit_bits: int, n_steps: int, rng: np.random.Generator
) -> Mixture:
    """The same after `n_steps` of demonstration and then the world's novelty."""
    watched = Demonstration.draw(setting, n_steps, rng=rng)
    (mixture,) = _mixtures(watched, [watched.novel(n_steps)], limit_bits)
    return mixture


def _mixtures(
    watched: Demonstration, situations: Sequence[QueryPoint], limit_bits: int
) -> tuple[Mixture, ...]:
    found = watched.posteriors_at(situations, limit_bits=limit_bits)
    return tuple(
        mixture_at(each, watched.setting, state=watched.state_at(situation))
        for each, situation in zip(found, situations, strict=True)
    )
