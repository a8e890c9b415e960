"""What demonstrations buy a learner that also acts, and what they buy beside an imitator.

*Four stages*: a river to swim up, a random process, MountainCar on a grid, and a linear bandit of
ratings. Each has a known optimum pi*, and demonstrations by behaviour policies from pi* to its
opposite: with probability w an action that pi* does not take (`behaviour_policy`). A learner gets
`N_0` episodes of one of them and then acts for `N_1` episodes (`toy_world.hybrid.runs`); one gets
none. Two numbers are measured: the *sub-optimality* of the policy it would hand over, and the
*regret* of its own episodes. Beside them stand the rates of Huang et al. (arXiv 2505.13768) with
exact concentrabilities, `eps = 1/sqrt(N_0 + N_1)`, and one constant a stage and measure, fitted to
all of a stage's curves by least squares.

Uncertainties are scaled down, as is usual: in full width, which is what covers by proof, they leave
little to learn from some hundred episodes. How often a scaled uncertainty failed to cover the error
of the policy handed over is counted.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, unique
from pathlib import Path
from typing import Final

import numpy as np

from mightnt.progress import track
from mightnt.statistics import mean_over_runs
from theory.errors import InvalidArgumentError
from toy_world.hybrid.concentrability import (
    concentrability,
    farthest_level,
    fitted_constant,
    linear_step_levels,
    regret_rate,
    sub_optimality_rate,
    tabular_step_levels,
    uncertainty_level,
)
from toy_world.hybrid.environments import (
    behaviour_policy,
    mountain_car,
    random_mdp,
    river_swim,
)
from toy_world.hybrid.linear_bandit import LinearOracle
from toy_world.hybrid.mdp import FiniteMDP, Floats, demonstrations, no_data, one_hot
from toy_world.hybrid.movie_lens import LinearBandit, bandit_of, drawn_ratings, read_ratings
from toy_world.hybrid.oracle import Oracle
from toy_world.hybrid.runs import Learned, learn
from toy_world.hybrid.tabular import TabularOracle
from toy_world.studies.hybrid_doorbell import DoorbellOutcome, doorbell_outcomes

DELTA: Final = 0.05
"""Uncertainties in full width fail to cover with at most this probability."""
OTHER_SHARES: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
"""w of the behaviour policies: pi* to its opposite."""
N_CHECKPOINTS: Final = 8
WORLD_SEED: Final = 2505
"""Of the random process and of the ratings that are drawn, whatever the seed of the runs."""
N_USERS: Final = 40
N_FILMS: Final = 15
DIMENSION: Final = 6
RIDGE: Final = 0.1


@unique
class StageName(Enum):
    """Where learners learn."""

    RIVER = "river"
    RANDOM = "random process"
    MOUNTAIN_CAR = "MountainCar"
    RATINGS = "ratings bandit"


@dataclass(frozen=True, kw_only=True)
class Band:
    """A mean over runs with its 95% interval.

    Attributes:
        mean: over runs.
        low: end of Student's interval.
        high: its other end.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """What a learner has come to.

    Attributes:
        stage: where.
        other_share: w of the policy whose demonstrations it has; None without any.
        n_online: N_1.
        sub_optimality: of the policy it would hand over.
        regret: of its episodes so far.
        sub_optimality_rate: times the fitted constant; infinite without data that tell anything.
        regret_rate: times the fitted constant.
    """

    stage: StageName
    other_share: float | None
    n_online: int
    sub_optimality: Band
    regret: Band
    sub_optimality_rate: float
    regret_rate: float


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How far demonstrations reach.

    Attributes:
        stage: where.
        other_share: w of their policy.
        optimal: C(pi*|rho).
        suboptimal: C(pi^-eps|rho) of a policy that was found.
        bound: no policy worse by eps has a greater one.
    """

    stage: StageName
    other_share: float
    optimal: float
    suboptimal: float
    bound: float


@dataclass(frozen=True, kw_only=True)
class StageFacts:
    """What a stage is, and what was fitted and counted on it.

    Attributes:
        stage: which.
        n_states: S.
        n_actions: A.
        horizon: H.
        value: V*.
        certificate_gap: how much any plan of any learner may be short of the best plan.
        sub_optimality_constant: fitted.
        regret_constant: fitted.
        n_uncovered: of the policies handed over, how many had an error above their uncertainty.
        n_handed_over: of how many.
    """

    stage: StageName
    n_states: int
    n_actions: int
    horizon: int
    value: float
    certificate_gap: float
    sub_optimality_constant: float
    regret_constant: float
    n_uncovered: int
    n_handed_over: int


@dataclass(frozen=True, kw_only=True)
class HybridLearning:
    """Everything that the demo shows.

    Attributes:
        stages: the four.
        reach: of each behaviour policy on each stage.
        curves: by stage, behaviour policy and N_1.
        doorbell: the same demonstrations for imitators and learners.
    """

    stages: tuple[StageFacts, ...]
    reach: tuple[Reach, ...]
    curves: tuple[CurvePoint, ...]
    doorbell: tuple[DoorbellOutcome, ...]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A process and the oracle for it.

    Attributes:
        name: which.
        mdp: the process.
        oracle: for a number of episodes in all and a scale.
        step_levels: u(s, a) of a behaviour policy (`toy_world.hybrid.concentrability`).
    """

    name: StageName
    mdp: FiniteMDP
    oracle: Callable[[int, float], Oracle]
    step_levels: Callable[[Floats], Floats]


def stage_of(name: StageName, *, ratings: Path | None = None) -> Stage:
    """A stage.

    Args:
        name: which.
        ratings: a file of MovieLens for the bandit; ratings are drawn if None.
    """
    match name:
        case StageName.RIVER:
            return _tabular(name, river_swim())
        case StageName.RANDOM:
            return _tabular(name, random_mdp(rng=np.random.default_rng(WORLD_SEED)))
        case StageName.MOUNTAIN_CAR:
            return _tabular(name, mountain_car())
        case StageName.RATINGS:
            return _linear(name, _ratings_bandit(ratings))


def _tabular(name: StageName, mdp: FiniteMDP) -> Stage:
    return Stage(
        name=name,
        mdp=mdp,
        oracle=lambda n_episodes, scale: TabularOracle.of(
            mdp, n_episodes=n_episodes, delta=DELTA, scale=scale
        ),
        step_levels=lambda behaviour: tabular_step_levels(mdp, behaviour),
    )


def _ratings_bandit(path: Path | None) -> LinearBandit:
    if path is not None:
        found = read_ratings(path)
    else:
        found = drawn_ratings(
            n_users=2 * N_USERS,
            n_films=2 * N_FILMS,
            n_tastes=DIMENSION - 1,
            rng=np.random.default_rng(WORLD_SEED),
        )
    return bandit_of(found, n_users=N_USERS, n_films=N_FILMS, dimension=DIMENSION)


def _linear(name: StageName, bandit: LinearBandit) -> Stage:
    return Stage(
        name=name,
        mdp=bandit.mdp,
        oracle=lambda _, scale: LinearOracle(
            features=bandit.features,
            contexts=bandit.mdp.initial,
            longest=float(np.linalg.norm(bandit.theta)),
            ridge=RIDGE,
            delta=DELTA,
            scale=scale,
        ),
        step_levels=lambda behaviour: linear_step_levels(bandit.mdp, bandit.features, behaviour),
    )


def reach_of(
    stage: Stage, optimal: Floats, behaviour: Floats, *, other_share: float, least_gap: float
) -> Reach:
    """How far the demonstrations of a behaviour policy reach.

    Args:
        stage: where.
        optimal: pi*, shape (H, S, A).
        behaviour: rho, likewise.
        other_share: its w.
        least_gap: eps.

    Raises:
        InvalidArgumentError: no policy is worse than the best by that much.
    """
    levels = stage.step_levels(behaviour)
    farthest = farthest_level(stage.mdp, levels, least_gap=least_gap)
    if farthest is None:
        raise InvalidArgumentError(
            f"no policy on the stage '{stage.name.value}' is worse than the best by "
            f"{least_gap:.3g}; ask for more episodes, offline or online"
        )
    own = uncertainty_level(stage.mdp, levels, behaviour)
    return Reach(
        stage=stage.name,
        other_share=other_share,
        optimal=concentrability(stage.mdp, levels, policy=optimal, behaviour=behaviour),
        suboptimal=(farthest.level / own) ** 2,
        bound=(farthest.bound / own) ** 2,
    )


def run_stage(
    stage: Stage,
    *,
    n_offline: int,
    n_online: int,
    n_runs: int,
    scale: float,
    rng: np.random.Generator,
) -> tuple[StageFacts, list[Reach], list[CurvePoint]]:
    """Every learner on one stage.

    Args:
        stage: where.
        n_offline: N_0.
        n_online: the greatest N_1.
        n_runs: R.
        scale: of the uncertainties.
        rng: source of randomness.
    """
    mdp = stage.mdp
    best = mdp.model(1).optimum()
    optimal = best.policies[0]
    oracle = stage.oracle(n_offline + n_online, scale)
    times = [0, *np.unique(np.geomspace(4, n_online, N_CHECKPOINTS).astype(int)).tolist()]
    learned: dict[float | None, Learned] = {
        None: learn(mdp, oracle, no_data(mdp, n_runs), checkpoints=times, rng=rng)
    }
    reach = []
    for share in OTHER_SHARES:
        behaviour = behaviour_policy(mdp, optimal, other_share=share)
        offline = demonstrations(mdp, behaviour, n_offline, n_runs=n_runs, rng=rng)
        learned[share] = learn(mdp, oracle, offline, checkpoints=times, rng=rng)
        reach.append(
            reach_of(
                stage,
                one_hot(optimal, mdp.n_actions),
                behaviour,
                other_share=share,
                least_gap=1 / np.sqrt(n_offline + n_online),
            )
        )
    gap_rates, regret_rates = _rates(learned, reach, n_offline=n_offline)
    gap_constant = _fit([each.gaps for each in learned.values()], gap_rates)
    regret_constant = _fit([each.regrets for each in learned.values()], regret_rates)
    return (
        StageFacts(
            stage=stage.name,
            n_states=mdp.n_states,
            n_actions=mdp.n_actions,
            horizon=mdp.horizon,
            value=float(best.values[0]),
            certificate_gap=max(each.certificate_gap for each in learned.values()),
            sub_optimality_constant=gap_constant,
            regret_constant=regret_constant,
            n_uncovered=sum(int(each.uncovered.sum()) for each in learned.values()),
            n_handed_over=sum(each.uncovered.size for each in learned.values()),
        ),
        reach,
        list(
            _curve_points(stage, learned, gap_constant * gap_rates, regret_constant * regret_rates)
        ),
    )


def _rates(
    learned: Mapping[float | None, Learned], reach: Sequence[Reach], *, n_offline: int
) -> tuple[Floats, Floats]:
    """Of sub-optimality and of regret, a row for each learner and a column for each checkpoint."""
    optimal = {None: math.inf} | {each.other_share: each.optimal for each in reach}
    suboptimal = {None: math.inf} | {each.other_share: each.suboptimal for each in reach}

    def each_point(
        rate: Callable[..., float], concentrabilities: Mapping[float | None, float]
    ) -> Floats:
        return np.array(
            [
                [
                    rate(n_offline=n_offline, n_online=n, concentrability=concentrabilities[share])
                    for n in each.checkpoints
                ]
                for share, each in learned.items()
            ]
        )

    return each_point(sub_optimality_rate, optimal), each_point(regret_rate, suboptimal)


def _fit(measured: Sequence[Floats], rates: Floats) -> float:
    """One constant for all learners, from the points whose rate is finite."""
    means = np.array([each.mean(axis=1) for each in measured])
    finite = np.isfinite(rates)
    return fitted_constant(means[finite], rates[finite])


def _curve_points(
    stage: Stage,
    learned: Mapping[float | None, Learned],
    gap_rates: Floats,
    regret_rates: Floats,
) -> Iterator[CurvePoint]:
    for row, (share, each) in enumerate(learned.items()):
        for place, n in enumerate(each.checkpoints):
            yield CurvePoint(
                stage=stage.name,
                other_share=share,
                n_online=n,
                sub_optimality=_band(each.gaps[place]),
                regret=_band(each.regrets[place]),
                sub_optimality_rate=float(gap_rates[row, place]),
                regret_rate=float(regret_rates[row, place]),
            )


def _band(values: Floats) -> Band:
    found = mean_over_runs(values, within=(0.0, np.inf))
    low, high = (found.mean if end is None else end for end in (found.low, found.high))
    return Band(mean=found.mean, low=low, high=high)


def hybrid_learning(
    *,
    n_offline: int,
    n_online: int,
    n_runs: int,
    scale: float,
    limit_bits: int,
    n_steps: int,
    ratings: Path | None,
    rng: np.random.Generator,
) -> HybridLearning:
    """Everything.

    Args:
        n_offline: N_0.
        n_online: the greatest N_1.
        n_runs: R, at least 2.
        scale: of the uncertainties.
        limit_bits: L of the doorbell's imitator.
        n_steps: how long the doorbell's demonstrator is watched.
        ratings: a file of MovieLens, or None.
        rng: source of randomness.
    """
    found = [
        run_stage(
            stage_of(name, ratings=ratings),
            n_offline=n_offline,
            n_online=n_online,
            n_runs=n_runs,
            scale=scale,
            rng=rng,
        )
        for name in track(StageName, "four stages", total=len(StageName))
    ]
    return HybridLearning(
        stages=tuple(facts for facts, _, _ in found),
        reach=tuple(each for _, reach, _ in found for each in reach),
        curves=tuple(point for _, _, curve in found for point in curve),
        doorbell=doorbell_outcomes(
            n_steps=n_steps, limit_bits=limit_bits, n_runs=n_runs, scale=scale, rng=rng
        ),
    )
