"""Agents beside the pessimistic imitator: what they do, what they are paid, and what they ask.

An agent optimises within a KL budget to the pessimistic imitator `nu_alpha`
(Statement.PESSIMISTIC_IMITATOR) and may ask its demonstrator. Beside it stands one with the
Bayesian imitator, in the same world and within the same budget. The models are all programs of at
most L bits, with prior weights `w(p) = 2^-len(p)` (`toy_world.studies.mixtures`). What is measured:

- the top set and the help probability while the demonstrator is watched;
- whether an agent can do what the demonstrator never does, under both update rules (`Update`);
- the price of safety: value and questions against alpha and the time watched.

`pessimism` puts these together with the guarantees (`toy_world.studies.guarantees`), the example in
which one of them fails (`posterior_manipulation`) and an agent's whole life (`lifelong_runs`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

import numpy as np

from mightnt.progress import track
from mightnt.results import json_key
from theory.bayes_mixture import Update
from theory.pessimism import help_probability
from toy_world.planners.ask import asking_optimum
from toy_world.planners.expected_kl import expected_kl_optimum
from toy_world.studies.guarantees import (
    N_EXACT_STEPS,
    GuaranteeRow,
    SimulatedGuarantees,
    alphas_around,
    exact_guarantees,
    guarantee_row,
    simulated_guarantees,
)
from toy_world.studies.lifelong_runs import LifelongRow, lifelong_row, lifelong_runs
from toy_world.studies.mixtures import Mixture, mixtures_while_watching, novel_mixture
from toy_world.studies.outcomes import PlanOutcome, outcome_of, utilities
from toy_world.studies.posterior_manipulation import ManipulationRow, manipulation_rows
from toy_world.studies.short_memory import short_memory_class
from toy_world.worlds.environments import WorldName
from toy_world.worlds.setting import setting_of

HORIZON: Final = 3
"""Steps of an episode."""
TIMES: Final = (0, 1, 2, 3, 5, 8, 12, 20, 32, 50, 80, 128)
WATCHED_ALPHAS: Final = (Fraction(1, 4), Fraction(1, 64), Fraction(1, 1024))
PRICED_ALPHAS: Final = tuple(Fraction(1, 2**j) for j in range(1, 17))
PRICED_TIMES: Final = (8, 32, 128)
NOVEL_TIMES: Final = (10, 30, 100)
COMPARED_ALPHA: Final = Fraction(1, 256)
BUDGETS_NATS: Final = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0)
LIFELONG_ALPHAS: Final = (Fraction(1, 4), Fraction(1, 16), Fraction(1, 64))
LIFELONG_BUDGET_NATS: Final = 1.0
N_EPISODES: Final = 30


@dataclass(frozen=True, kw_only=True)
class ImitatorOutcome(PlanOutcome):
    """What becomes of a plan within a budget of expected KL to an imitator.

    Attributes:
        update: which actions update the imitator's posterior.
        alpha: the imitator's threshold; None for the Bayesian imitator.
        budget_nats: eps.
    """

    update: Update
    alpha: Fraction | None
    budget_nats: float


@dataclass(frozen=True, kw_only=True)
class WatchedImitator:
    """The pessimistic imitator after k steps of demonstration.

    Attributes:
        n_steps: k.
        alpha: the threshold.
        top_set_size: of the top set.
        weight: `w(mu|h)`.
        demonstrator_inside: whether mu is in the top set.
        probabilities: of the imitator's next action, one for each action.
        help_probability: `theta_q`, what they miss.
    """

    n_steps: int = field(metadata=json_key("k"))
    alpha: Fraction
    top_set_size: int
    weight: float
    demonstrator_inside: bool
    probabilities: tuple[float, ...]
    help_probability: float


@dataclass(frozen=True, kw_only=True)
class HelpOverTime:
    """How often help is needed while simulated demonstrators are watched.

    Attributes:
        alpha: the threshold.
        mean: of the help probability over the runs, by step.
    """

    alpha: float
    mean: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class NovelOutcome:
    """An agent after k steps of demonstration and the world's novelty.

    Attributes:
        world: where.
        n_steps: k.
        outcome: of its plan, without a limit on KL: whatever the imitator's support allows.
    """

    world: WorldName
    n_steps: int = field(metadata=json_key("k"))
    outcome: ImitatorOutcome = field(metadata=json_key("conduct"))


@dataclass(frozen=True, kw_only=True)
class PricedOutcome:
    """An agent after k steps of demonstration, when nothing new has happened.

    Attributes:
        n_steps: k.
        outcome: of its plan, with the pessimistic imitator.
    """

    n_steps: int = field(metadata=json_key("k"))
    outcome: ImitatorOutcome = field(metadata=json_key("conduct"))


@dataclass(frozen=True, kw_only=True)
class ComparedOutcome:
    """An agent with one of the two imitators.

    Attributes:
        world: where.
        outcome: of its plan.
    """

    world: WorldName
    outcome: ImitatorOutcome = field(metadata=json_key("conduct"))


@dataclass(frozen=True, kw_only=True)
class Pessimism:
    """What pessimism guarantees and costs.

    Attributes:
        world: which is shown in detail.
        watching: the imitator while the demonstrator is watched.
        help_over_time: how often help is needed meanwhile, by alpha.
        guarantees: in every world.
        manipulation: the example in which a guarantee depends on the update rule.
        both_rules: agents under both update rules, in every world.
        priced: the price of safety.
        compared: the two imitators, in every world.
        lifelong: an agent's whole life.
    """

    world: WorldName
    watching: tuple[WatchedImitator, ...]
    help_over_time: tuple[HelpOverTime, ...]
    guarantees: tuple[GuaranteeRow, ...] = field(metadata=json_key("ville"))
    manipulation: tuple[ManipulationRow, ...]
    both_rules: tuple[NovelOutcome, ...]
    priced: tuple[PricedOutcome, ...]
    compared: tuple[ComparedOutcome, ...]
    lifelong: tuple[LifelongRow, ...]


def pessimism(
    *,
    world: WorldName,
    limit_bits: int,
    memory_bits: int,
    n_steps: int,
    n_runs: int,
    n_lives: int,
    budget_nats: float,
    rng: np.random.Generator,
) -> Pessimism:
    """Everything.

    Args:
        world: which is shown in detail.
        limit_bits: L of the mixtures of all programs.
        memory_bits: L of the class of programs of short memory.
        n_steps: how long simulated demonstrators are watched.
        n_runs: how many of them.
        n_lives: runs of an agent's whole life.
        budget_nats: at which safety is priced.
        rng: draws demonstrations, simulations and lives.
    """
    setting = setting_of(world, horizon=HORIZON)
    while_watching = mixtures_while_watching(setting, limit_bits=limit_bits, times=TIMES, rng=rng)
    guarantees: list[GuaranteeRow] = []
    help_over_time: list[HelpOverTime] = []
    both_rules: list[NovelOutcome] = []
    compared: list[ComparedOutcome] = []
    for name in track(WorldName, "four worlds", total=len(WorldName)):
        rows, simulated = _guarantees(
            name, memory_bits=memory_bits, n_steps=n_steps, n_runs=n_runs, rng=rng
        )
        guarantees += rows
        if name is world:
            help_over_time += map(_help_over_time, simulated)
        other = setting_of(name, horizon=HORIZON)
        for k in NOVEL_TIMES:
            mixture = novel_mixture(other, limit_bits=limit_bits, n_steps=k, rng=rng)
            both_rules += [
                NovelOutcome(world=name, n_steps=k, outcome=outcome)
                for outcome in outcomes_under_both_rules(mixture)
            ]
        # After the longest demonstration.
        compared += [
            ComparedOutcome(world=name, outcome=outcome) for outcome in compared_outcomes(mixture)
        ]
    return Pessimism(
        world=world,
        watching=tuple(
            watched_imitator(mixture, n_steps=k, alpha=alpha)
            for k, mixture in zip(TIMES, while_watching, strict=True)
            for alpha in WATCHED_ALPHAS
        ),
        help_over_time=tuple(help_over_time),
        guarantees=tuple(guarantees),
        manipulation=manipulation_rows(),
        both_rules=tuple(both_rules),
        priced=tuple(
            PricedOutcome(n_steps=k, outcome=outcome)
            for k in track(PRICED_TIMES, "the price of safety")
            for outcome in priced_outcomes(while_watching[TIMES.index(k)], budget_nats=budget_nats)
        ),
        compared=tuple(compared),
        lifelong=_lives(world, memory_bits=memory_bits, n_lives=n_lives, rng=rng),
    )


def _guarantees(
    name: WorldName, *, memory_bits: int, n_steps: int, n_runs: int, rng: np.random.Generator
) -> tuple[list[GuaranteeRow], tuple[SimulatedGuarantees, ...]]:
    """Both sides in one world, and the simulations behind them, by alpha."""
    models = short_memory_class(setting_of(name, horizon=HORIZON), limit_bits=memory_bits)
    alphas = alphas_around(models)
    exact = exact_guarantees(models, alphas=alphas, n_steps=N_EXACT_STEPS)
    simulated = simulated_guarantees(models, alphas=alphas, n_steps=n_steps, n_runs=n_runs, rng=rng)
    rows = [guarantee_row(models, *pair) for pair in zip(exact, simulated, strict=True)]
    return rows, simulated


def _help_over_time(simulated: SimulatedGuarantees) -> HelpOverTime:
    mean = simulated.help_probability.mean(axis=0)
    return HelpOverTime(alpha=float(simulated.alpha), mean=tuple(mean.tolist()))


def _lives(
    world: WorldName, *, memory_bits: int, n_lives: int, rng: np.random.Generator
) -> tuple[LifelongRow, ...]:
    models = short_memory_class(setting_of(world, horizon=HORIZON), limit_bits=memory_bits)
    return tuple(
        lifelong_row(
            lifelong_runs(
                models,
                alpha=alpha,
                update=update,
                budget_nats=LIFELONG_BUDGET_NATS,
                n_episodes=N_EPISODES,
                n_runs=n_lives,
                rng=rng,
            )
        )
        for alpha in track(LIFELONG_ALPHAS, "whole lives")
        for update in (Update.DEMONSTRATOR, Update.ALL)
    )


def watched_imitator(mixture: Mixture, *, n_steps: int, alpha: Fraction) -> WatchedImitator:
    """The pessimistic imitator before the first step of the mixture's tree.

    Args:
        mixture: after k steps of demonstration.
        n_steps: k.
        alpha: the threshold.
    """
    inside = mixture.top_set(alpha)
    imitator = mixture.pessimist(alpha, update=Update.DEMONSTRATOR)
    return WatchedImitator(
        n_steps=n_steps,
        alpha=alpha,
        top_set_size=int(inside.sum()),
        weight=float(mixture.weights[mixture.place_of_tau]),
        demonstrator_inside=bool(inside[mixture.place_of_tau]),
        probabilities=tuple(imitator[0][0].tolist()),
        help_probability=float(help_probability(imitator)[0][0]),
    )


def outcome_with_pessimist(
    mixture: Mixture, *, alpha: Fraction, update: Update, budget_nats: float
) -> ImitatorOutcome:
    """The agent with the pessimistic imitator as base, which may ask the demonstrator."""
    base = mixture.pessimist(alpha, update=update)
    proxy, _ = utilities(mixture.nu)
    plan = asking_optimum(base, mixture.nu, proxy, help_policy=mixture.tau, budget_nats=budget_nats)
    found = outcome_of(
        plan.law, mixture.nu, value=plan.value, bound=plan.bound, n_asks=plan.expected_asks
    )
    return ImitatorOutcome(update=update, alpha=alpha, budget_nats=budget_nats, **vars(found))


def outcome_with_bayesian(mixture: Mixture, *, budget_nats: float) -> ImitatorOutcome:
    """The agent with the Bayesian imitator as base; every action updates the posterior."""
    base = mixture.imitator(update=Update.ALL)
    proxy, _ = utilities(mixture.nu)
    plan = expected_kl_optimum(base, mixture.nu, proxy, budget_nats=budget_nats)
    found = outcome_of(plan.pi, mixture.nu, value=plan.value, bound=plan.bound)
    return ImitatorOutcome(update=Update.ALL, alpha=None, budget_nats=budget_nats, **vars(found))


def outcomes_under_both_rules(mixture: Mixture) -> list[ImitatorOutcome]:
    """Without a limit on KL, for every second of `PRICED_ALPHAS` with mu in the top set."""
    return [
        outcome_with_pessimist(mixture, alpha=alpha, update=update, budget_nats=math.inf)
        for alpha in PRICED_ALPHAS[1::2]
        if mixture.top_set(alpha)[mixture.place_of_tau]
        for update in Update
    ]


def priced_outcomes(mixture: Mixture, *, budget_nats: float) -> list[ImitatorOutcome]:
    """With a frozen posterior, for each of `PRICED_ALPHAS`."""
    return [
        outcome_with_pessimist(
            mixture, alpha=alpha, update=Update.DEMONSTRATOR, budget_nats=budget_nats
        )
        for alpha in PRICED_ALPHAS
    ]


def compared_outcomes(
    mixture: Mixture, *, budgets_nats: Sequence[float] = BUDGETS_NATS
) -> list[ImitatorOutcome]:
    """With either imitator, the pessimistic one's alpha = `COMPARED_ALPHA`, for each budget."""
    return [
        outcome
        for budget in budgets_nats
        for outcome in (
            outcome_with_bayesian(mixture, budget_nats=budget),
            outcome_with_pessimist(
                mixture, alpha=COMPARED_ALPHA, update=Update.DEMONSTRATOR, budget_nats=budget
            ),
        )
    ]
