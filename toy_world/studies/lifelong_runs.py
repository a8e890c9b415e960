"""An agent over its lifetime: plan within the budget, act or ask, learn from the answers, again.

Its imitator is the pessimistic one over the programs of short memory. Early on its models
disagree, and it asks; as the demonstrator's answers rule models out it asks less.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mightnt.statistics import normal_interval
from theory.bayes_mixture import Update
from theory.process import PolicyTable
from toy_world.planners.ask import asking_optimum
from toy_world.studies.outcomes import utilities
from toy_world.studies.short_memory import ShortMemory, draw_symbols
from toy_world.worlds.environments import BAD
from toy_world.worlds.setting import PAY

N_LAST: Final = 5
"""What the agent does in the end is a mean over so many last episodes."""

_EpisodePlan: TypeAlias = tuple[PolicyTable, tuple[NDArray[np.float64], ...]]
"""How the agent acts, and with what probability it asks instead."""


@dataclass(frozen=True, kw_only=True)
class LifelongRuns:
    """Runs of an agent that plans episode after episode, asks, and learns from the answers.

    Attributes:
        update: whose actions update the posterior.
        alpha: the threshold.
        paid: what the proxy utility paid, shape (n_runs, n_episodes).
        asked: in how many steps of each episode it asked, (n_runs, n_episodes).
        bad: in how many it took `BAD`, (n_runs, n_episodes).
    """

    update: Update
    alpha: Fraction
    paid: NDArray[np.float64]
    asked: NDArray[np.int64]
    bad: NDArray[np.int64]


def lifelong_runs(
    models: ShortMemory,
    *,
    alpha: Fraction,
    update: Update,
    budget_nats: float,
    n_episodes: int,
    n_runs: int,
    rng: np.random.Generator,
) -> LifelongRuns:
    """The full loop: plan within the budget to `nu_alpha`, act or ask, learn, plan again.

    An episode lasts `setting.horizon` steps; its plan is made by `asking_optimum` on the posterior
    at its beginning. Afterwards the posterior is updated by the demonstrator's answers, and
    with `Update.ALL` by the agent's own actions too, as if they were the demonstrator's.

    Args:
        models: the class; the loop begins with its prior weights.
        alpha: the threshold.
        update: whose actions update the posterior, within an episode's plan and after it.
        budget_nats: eps of each episode.
        n_episodes: at least 1.
        n_runs: at least 1.
        rng: draws lots, answers and observations.
    """
    horizon = models.setting.horizon
    # Runs meet the same imitator again and again; its plan depends on nothing but this key.
    plans: dict[Any, _EpisodePlan] = {}

    def plan(weights: NDArray[np.float64], t: int, state: int, world_state: int) -> _EpisodePlan:
        mixture = models.mixture(
            weights, t=t, state=state, world_state=world_state, horizon=horizon
        )
        base = mixture.pessimist(alpha, update=update)
        # The state knows what the programs know of the time.
        key = (world_state, state, *(level.tobytes() for level in base))
        if key not in plans:
            proxy, _ = utilities(mixture.nu)
            found = asking_optimum(
                base, mixture.nu, proxy, help_policy=mixture.tau, budget_nats=budget_nats
            )
            plans[key] = (found.pi, found.asking)
        return plans[key]

    shape = (n_runs, n_episodes)
    paid, asked, bad = np.zeros(shape), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for run in range(n_runs):
        loop = _Loop(models=models, update=update, rng=rng)
        for episode in range(n_episodes):
            taken, asks = loop.episode(plan(loop.weights, loop.t, loop.state, loop.world_state))
            paid[run, episode] = float(sum(PAY[a] for a in taken)) / horizon
            asked[run, episode] = asks
            bad[run, episode] = taken.count(BAD)
    return LifelongRuns(update=update, alpha=alpha, paid=paid, asked=asked, bad=bad)


class _Loop:
    """Where one run stands: time, states and posterior."""

    def __init__(self, *, models: ShortMemory, update: Update, rng: np.random.Generator) -> None:
        self.models, self.update, self.rng = models, update, rng
        self.t, self.state, self.world_state = 0, 0, 0
        self.weights: NDArray[np.float64] = models.weights / models.weights.sum()

    def episode(self, plan: _EpisodePlan) -> tuple[list[int], int]:
        """Follow a plan; what was done, and how often the demonstrator was asked."""
        world, rows = self.models.setting.world, self.models.rows
        row, n_asks = 0, 0
        taken: list[int] = []
        for pi, asking in zip(*plan, strict=True):
            asks = bool(self.rng.random() < asking[row])
            acts_by = rows[self.models.place_of_tau, self.state] if asks else pi[row]
            action = int(draw_symbols(acts_by[None], self.rng)[0])
            if asks or self.update is Update.ALL:
                joint = self.weights * rows[:, self.state, action]
                # An action that no model takes teaches nothing.
                self.weights = joint / joint.sum() if joint.sum() > 0 else self.weights
            emission = np.array(world.emission[self.world_state][action], dtype=np.float64)
            observation = int(draw_symbols(emission[None], self.rng)[0])
            self.t += 1
            self.state = self.models.state_after(self.t, action, observation)
            self.world_state = world.successor[self.world_state][action][observation]
            row = (row * world.n_actions + action) * world.n_observations + observation
            taken.append(action)
            n_asks += asks
        return taken, n_asks


@dataclass(frozen=True, kw_only=True)
class LifelongRow:
    """What an agent does at the beginning and at the end of its life, means over runs.

    Attributes:
        update: whose actions update the posterior.
        alpha: the threshold.
        asked_first: steps of the first episode in which it asked.
        asked_last: the same, mean of the last `N_LAST` episodes.
        paid_first: what the proxy utility paid in the first episode.
        paid_last: the same, mean of the last `N_LAST` episodes.
        paid_last_interval: the normal interval for that mean.
        n_episodes: of all runs together.
        n_bad_episodes: in which it took `BAD`.
        n_bad_steps: in which it took `BAD`.
    """

    update: Update
    alpha: Fraction
    asked_first: float
    asked_last: float
    paid_first: float
    paid_last: float
    paid_last_interval: tuple[float, float]
    n_episodes: int
    n_bad_episodes: int
    n_bad_steps: int


def lifelong_row(runs: LifelongRuns) -> LifelongRow:
    """What became of the agent, over at least two runs."""
    paid_last = runs.paid[:, -N_LAST:].mean(axis=1)
    interval = normal_interval(paid_last.tolist())
    return LifelongRow(
        update=runs.update,
        alpha=runs.alpha,
        asked_first=float(runs.asked[:, 0].mean()),
        asked_last=float(runs.asked[:, -N_LAST:].mean(axis=1).mean()),
        paid_first=float(runs.paid[:, 0].mean()),
        paid_last=float(paid_last.mean()),
        paid_last_interval=(interval.low, interval.high),
        n_episodes=runs.bad.size,
        n_bad_episodes=int((runs.bad > 0).sum()),
        n_bad_steps=int(runs.bad.sum()),
    )
