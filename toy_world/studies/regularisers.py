"""Which regulariser resists? Six constraints, one agent, in worlds where something is never done.

The agent maximises a proxy utility that pays for a2, which the demonstrator never does and the true
utility does not pay for; nothing but its constraint keeps it from a2. All constraints are on the
joint law of an episode (the expected reading) and compare with the same base policy:

- the *Bayesian imitator* xi, after k steps of demonstration and a novelty (every action updates);
- or a *perfect base*, the demonstrator itself.

*Matched budgets.* Each budget is what `KL <= eps` nats implies or is implied by, as tightly as can
be said in general: reverse KL gets eps nats too; TVD gets `min(sqrt(eps/2), sqrt(1 - exp(-eps)))`
(Pinsker; Bretagnolle and Huber), so that what KL allows TVD allows; chi-squared gets
`exp(eps) - 1`, so that what chi-squared allows KL allows (`KL <= ln(1 + chi^2)`). The pessimistic
imitator (posterior frozen while the agent acts) gets eps nats of KL and may ask its demonstrator.
"""

import math
from dataclasses import dataclass
from enum import Enum, unique
from fractions import Fraction
from typing import Any, Final

import numpy as np

from mightnt.progress import track
from theory.bayes_mixture import Update
from theory.process import EnvironmentTable, PolicyTable, UtilityTable, optimal_values
from toy_world.planners.ask import asking_optimum
from toy_world.planners.divergence import divergence_optimum
from toy_world.planners.expected_kl import expected_kl_optimum
from toy_world.planners.problem import Divergence, Reading
from toy_world.planners.tvd import tvd_optimum
from toy_world.studies.mixtures import Mixture, novel_mixture
from toy_world.studies.outcomes import PlanOutcome, outcome_of, utilities
from toy_world.worlds.environments import WorldName
from toy_world.worlds.setting import setting_of

BUDGETS_NATS: Final = (0.1, 1.0, 4.0)
ALPHA: Final = Fraction(1, 256)


@unique
class Base(Enum):
    """What the constraint compares with."""

    BAYESIAN = "Bayesian imitator (every action updates)"
    PERFECT = "perfect base (the demonstrator)"


@unique
class Constraint(Enum):
    """What is constrained."""

    NONE = "no constraint"
    KL = "KL"
    REVERSE_KL = "reverse KL"
    TVD = "TVD"
    CHI_SQUARED = "chi-squared"
    PESSIMISTIC = "KL to the pessimist"


@dataclass(frozen=True, kw_only=True)
class RegulariserOutcome(PlanOutcome):
    """What becomes of an agent's plan under one constraint.

    Attributes:
        world: where.
        base: compared with what.
        constraint: how.
        eps_nats: the KL budget that the others are matched to.
        budget: the constraint's own; inf for none.
        gap: `bound - value`; no policy within the budget is better by more.
    """

    world: WorldName
    base: Base
    constraint: Constraint
    eps_nats: float
    budget: float
    gap: float


@dataclass(frozen=True, kw_only=True)
class RegulariserOutcomes:
    """Outcomes in every world, for each base, budget and constraint."""

    outcomes: tuple[RegulariserOutcome, ...]


def regulariser_outcomes(
    *, limit_bits: int, n_steps: int, horizon: int, rng: np.random.Generator
) -> RegulariserOutcomes:
    """All outcomes.

    Args:
        limit_bits: L of the imitators.
        n_steps: k, how long the demonstrator was watched before the novelty.
        horizon: steps of an episode.
        rng: draws the demonstrations.
    """
    outcomes = []
    for world in track(WorldName, "worlds", total=len(WorldName)):
        setting = setting_of(world, horizon=horizon)
        mixture = novel_mixture(setting, limit_bits=limit_bits, n_steps=n_steps, rng=rng)
        for base in Base:
            for eps in BUDGETS_NATS:
                for constraint in Constraint:
                    if base is Base.PERFECT and constraint is Constraint.PESSIMISTIC:
                        continue  # it is the KL to the demonstrator
                    outcomes.append(
                        outcome(world, mixture, base=base, constraint=constraint, eps_nats=eps)
                    )
    return RegulariserOutcomes(outcomes=tuple(outcomes))


def matched_budget(constraint: Constraint, eps_nats: float) -> float:
    """The budget of a constraint that goes with `KL <= eps` (module docstring)."""
    match constraint:
        case Constraint.NONE:
            return math.inf
        case Constraint.TVD:
            return min(math.sqrt(eps_nats / 2), math.sqrt(-math.expm1(-eps_nats)))
        case Constraint.CHI_SQUARED:
            return math.expm1(eps_nats)
        case _:
            return eps_nats


def outcome(
    world: WorldName, mixture: Mixture, *, base: Base, constraint: Constraint, eps_nats: float
) -> RegulariserOutcome:
    """What an optimal agent does under one constraint."""
    budget = matched_budget(constraint, eps_nats)
    found = _planned(mixture, base, constraint, budget)
    return RegulariserOutcome(
        world=world,
        base=base,
        constraint=constraint,
        eps_nats=eps_nats,
        budget=budget,
        gap=found.bound - found.value,
        **vars(found),
    )


def _planned(mixture: Mixture, base: Base, constraint: Constraint, budget: float) -> PlanOutcome:
    """The best plan within the budget."""
    nu = mixture.nu
    proxy, _ = utilities(nu)
    beta = mixture.imitator(update=Update.ALL) if base is Base.BAYESIAN else mixture.tau
    match constraint:
        case Constraint.NONE:
            best = float(optimal_values(nu, proxy)[0][0])
            return outcome_of(_greedy(nu, proxy), nu, value=best, bound=best)
        case Constraint.KL:
            kl = expected_kl_optimum(beta, nu, proxy, budget_nats=budget)
            return outcome_of(kl.pi, nu, value=kl.value, bound=kl.bound)
        case Constraint.TVD:
            tvd = tvd_optimum(beta, nu, proxy, budget=budget, reading=Reading.EXPECTED)
            return outcome_of(tvd.pi, nu, value=float(tvd.value), bound=float(tvd.bound))
        case Constraint.PESSIMISTIC:
            # A perfect base has one model, the demonstrator, and its pessimist is that model.
            pessimist = (
                mixture.pessimist(ALPHA, update=Update.DEMONSTRATOR)
                if base is Base.BAYESIAN
                else mixture.tau
            )
            asking = asking_optimum(
                pessimist, nu, proxy, help_policy=mixture.tau, budget_nats=budget
            )
            return outcome_of(
                asking.law,
                nu,
                value=asking.value,
                bound=asking.bound,
                n_asks=asking.expected_asks,
            )
        case Constraint.REVERSE_KL | Constraint.CHI_SQUARED:
            plan = divergence_optimum(
                beta, nu, proxy, divergence=Divergence[constraint.name], budget=budget
            )
            return outcome_of(plan.pi, nu, value=plan.value, bound=plan.bound)


def _greedy(nu: EnvironmentTable, utility: UtilityTable) -> PolicyTable:
    """The policy that takes the first optimal action everywhere."""
    later: Any = utility
    pi = []
    for observations in reversed(nu):
        Q = (observations * later.reshape(observations.shape)).sum(axis=-1)
        pi.append(np.eye(Q.shape[1])[Q.argmax(axis=1)])
        later = Q.max(axis=1)
    return tuple(reversed(pi))
