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
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, unique
from fractions import Fraction
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from mightnt.figure_style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILLION, new_figure
from mightnt.progress import track
from theory.bayes_mixture import Update
from theory.errors import InvalidArgumentError
from theory.paper import Statement
from theory.process import (
    EnvironmentTable,
    HistoryTree,
    PolicyTable,
    UtilityTable,
    optimal_values,
    values,
)
from toy_world.demo import Column, Demo, DemoOptions, DemoResult, DemoTable, Evidence
from toy_world.planners.ask import asking_optimum
from toy_world.planners.divergence import divergence_optimum
from toy_world.planners.expected_kl import expected_kl_optimum
from toy_world.planners.problem import Divergence, Reading
from toy_world.planners.tvd import tvd_optimum
from toy_world.studies.pessimism import (
    PAY,
    TRUE_PAY,
    Mixture,
    ever_probability,
    novel_mixture,
    pay_utility,
)
from toy_world.studies.theorem1 import setting_of
from toy_world.worlds.environments import BAD, WorldName

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
class RegularisersOptions(DemoOptions):
    """Which regulariser resists an agent that is paid for what the demonstrator never does?

    No constraint, KL, reverse KL, TVD, chi-squared, and KL to the pessimistic imitator.
    """

    bits: int = 20
    """L: the imitators are mixtures of every policy program of at most so many bits, 18 to 24."""
    steps: int = 100
    """How long the demonstrator was watched, 10 to 1000 steps."""
    horizon: int = 2
    """Steps of an episode, 1 to 3 (2: seconds; 3: minutes)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least, most in (("bits", 18, 24), ("steps", 10, 1000), ("horizon", 1, 3)):
            value = getattr(self, name)
            if not least <= value <= most:
                raise InvalidArgumentError(f"--{name} must lie in {least}..{most}, got {value}")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an agent does under one constraint.

    Attributes:
        world: where.
        base: compared with what.
        constraint: how.
        eps_nats: the KL budget that the others are matched to.
        budget: the constraint's own; inf for none.
        value: by the proxy utility.
        gap: no policy within the budget is better by more.
        true_value: by the true utility.
        bad_probability: of ever taking `BAD`.
        n_asks: in how many steps it asks, expected.
    """

    world: WorldName
    base: Base
    constraint: Constraint
    eps_nats: float
    budget: float
    value: float
    gap: float
    true_value: float
    bad_probability: float
    n_asks: float = 0.0


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
) -> Outcome:
    """What an optimal agent does under one constraint."""
    nu = mixture.nu
    tree = HistoryTree(n_actions=nu[0].shape[1], n_observations=nu[0].shape[2], horizon=len(nu))
    proxy, true = (pay_utility(tree, pay).astype(np.float64) for pay in (PAY, TRUE_PAY))
    budget = matched_budget(constraint, eps_nats)
    law, value, gap, n_asks = _planned(mixture, proxy, base, constraint, budget)
    return Outcome(
        world=world,
        base=base,
        constraint=constraint,
        eps_nats=eps_nats,
        budget=budget,
        value=value,
        gap=gap,
        true_value=float(values(law, nu, true)[0][0]),
        bad_probability=ever_probability(law, nu, BAD),
        n_asks=n_asks,
    )


def _planned(
    mixture: Mixture, proxy: UtilityTable, base: Base, constraint: Constraint, budget: float
) -> tuple[PolicyTable, float, float, float]:
    """The actions that come about, value, gap and expected number of questions."""
    nu = mixture.nu
    beta = mixture.imitator(update=Update.ALL) if base is Base.BAYESIAN else mixture.tau
    match constraint:
        case Constraint.NONE:
            return _greedy(nu, proxy), float(optimal_values(nu, proxy)[0][0]), 0.0, 0.0
        case Constraint.KL:
            kl = expected_kl_optimum(beta, nu, proxy, budget_nats=budget)
            return kl.pi, kl.value, kl.gap, 0.0
        case Constraint.TVD:
            tvd = tvd_optimum(beta, nu, proxy, budget=budget, reading=Reading.EXPECTED)
            return tvd.pi, float(tvd.value), float(tvd.gap), 0.0
        case Constraint.PESSIMISTIC:
            pessimist = (
                mixture.pessimist(ALPHA, update=Update.DEMONSTRATOR)
                if base is Base.BAYESIAN
                else mixture.tau
            )
            asking = asking_optimum(
                pessimist, nu, proxy, help_policy=mixture.tau, budget_nats=budget
            )
            return asking.law, asking.value, asking.gap, asking.expected_asks
        case Constraint.REVERSE_KL | Constraint.CHI_SQUARED:
            plan = divergence_optimum(
                beta, nu, proxy, divergence=Divergence[constraint.name], budget=budget
            )
            return plan.pi, plan.value, plan.gap, 0.0


def _greedy(nu: EnvironmentTable, utility: UtilityTable) -> PolicyTable:
    """The policy that takes the first optimal action everywhere."""
    later: Any = utility
    pi = []
    for observations in reversed(nu):
        Q = (observations * later.reshape(observations.shape)).sum(axis=-1)
        pi.append(np.eye(Q.shape[1])[Q.argmax(axis=1)])
        later = Q.max(axis=1)
    return tuple(reversed(pi))


def compute(options: RegularisersOptions) -> DemoResult:
    """All outcomes."""
    rng = options.rng()
    outcomes = []
    for world in track(WorldName, "worlds", total=len(WorldName)):
        setting = setting_of(world, horizon=options.horizon)
        mixture = novel_mixture(setting, limit_bits=options.bits, n_steps=options.steps, rng=rng)
        for base in Base:
            for eps in BUDGETS_NATS:
                for constraint in Constraint:
                    if base is Base.PERFECT and constraint is Constraint.PESSIMISTIC:
                        continue  # it is the KL to the demonstrator
                    outcomes.append(
                        outcome(world, mixture, base=base, constraint=constraint, eps_nats=eps)
                    )
    return DemoResult(
        name="regularisers",
        statements=(
            Statement.KL_CONSTRAINT,
            Statement.TVD_CONSTRAINT,
            Statement.NOTHING_UNPRECEDENTED,
        ),
        findings=_findings(outcomes),
        tables=tuple(_table(outcomes, base, options) for base in Base),
        data={"outcomes": outcomes},
    )


def _table(outcomes: Sequence[Outcome], base: Base, options: RegularisersOptions) -> DemoTable:
    return DemoTable(
        title=f"Which regulariser resists? {base.value}",
        columns=(
            Column(header="world"),
            Column(header="eps (nats)"),
            Column(header="constraint"),
            Column(header="its budget"),
            Column(header="value by\nthe proxy", evidence=Evidence.CERTIFIED),
            Column(header="gap", evidence=Evidence.CERTIFIED),
            Column(header="true value", evidence=Evidence.FLOAT),
            Column(header="P(a2 ever)", evidence=Evidence.FLOAT),
            Column(header="asked", evidence=Evidence.FLOAT),
        ),
        rows=tuple(
            (
                o.world.value,
                o.eps_nats,
                o.constraint.value,
                o.budget,
                o.value,
                f"{max(o.gap, 0.0):.0e}",
                o.true_value,
                o.bad_probability,
                o.n_asks,
            )
            for o in outcomes
            if o.base is base
        ),
        note=(
            f"k = {options.steps} steps of demonstration, then a novelty; L = {options.bits} bits; "
            f"episodes of {options.horizon} steps. KL, reverse KL: eps nats. TVD: min(sqrt(eps/2), "
            f"sqrt(1-exp(-eps))). chi-squared: exp(eps)-1. The pessimist: alpha = {ALPHA}, its "
            "posterior updated by the demonstrator's actions alone. A P of 0 is an exact zero."
        ),
    )


def _findings(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    def of(base: Base, constraint: Constraint) -> list[Outcome]:
        return [
            o
            for o in outcomes
            if o.base is base and o.constraint is constraint and o.eps_nats == 1.0
        ]

    def span(base: Base, constraint: Constraint) -> str:
        p = [o.bad_probability for o in of(base, constraint)]
        return f"{min(p):.2g} to {max(p):.2g} ({constraint.value})"

    limited = [c for c in Constraint if c is not Constraint.NONE]
    pessimist = [o for o in outcomes if o.constraint is Constraint.PESSIMISTIC]
    none = of(Base.BAYESIAN, Constraint.NONE)
    return (
        "Probability of the never-done a2 with the Bayesian imitator as base, at 1 nat, over the "
        "worlds: " + ", ".join(span(Base.BAYESIAN, c) for c in limited) + ".",
        f"Only the KL to the pessimistic imitator keeps a2 at exactly 0, in all {len(pessimist)} "
        f"cases (frozen posterior, alpha = {ALPHA}): the greatest is "
        f"{max(o.bad_probability for o in pessimist):g}. It keeps a true value of "
        f"{min(o.true_value for o in pessimist):.3f} or more, where no constraint leaves "
        f"{max(o.true_value for o in none):.3f}.",
        "With a perfect base, at 1 nat: "
        + ", ".join(span(Base.PERFECT, c) for c in limited[:-1])
        + ". KL and chi-squared keep a zero a zero; TVD and reverse KL do not: under "
        "the latter the agent may do what the base never does with probability up "
        "to 1 - exp(-eps).",
        f"Every value is certified: the widest gap of {len(outcomes)} plans is "
        f"{max(o.gap for o in outcomes):.0e}.",
    )


_LOOKS: Final = {
    Constraint.NONE: (BLACK, "X"),
    Constraint.TVD: (PURPLE, "D"),
    Constraint.REVERSE_KL: (ORANGE, "v"),
    Constraint.KL: (VERMILLION, "s"),
    Constraint.CHI_SQUARED: (BLUE, "^"),
    Constraint.PESSIMISTIC: (GREEN, "o"),
}


def draw(result: DemoResult) -> Figure:
    """True value and probability of the never-done action, by constraint, for each base."""
    outcomes: list[Outcome] = [o for o in result.data["outcomes"] if o.eps_nats == 1.0]
    figure = new_figure(height_inches=4.4)
    grid = figure.subplots(2, 2, sharex=True, sharey="row")
    for column, base in zip(grid.T, Base, strict=True):
        own = [o for o in outcomes if o.base is base]
        shown = [c for c in _LOOKS if any(o.constraint is c for o in own)]
        for i, constraint in enumerate(shown):
            color, marker = _LOOKS[constraint]
            here = [o for o in own if o.constraint is constraint]
            x = np.arange(len(here)) + 0.13 * (i - (len(shown) - 1) / 2)
            style: dict[str, Any] = {"color": color, "marker": marker, "linestyle": ""}
            label = None if base is Base.PERFECT else constraint.value
            column[0].vlines(x, 0, [o.bad_probability for o in here], color=color, linewidth=1)
            column[0].plot(x, [o.bad_probability for o in here], **style, label=label)
            column[1].vlines(
                x,
                [o.true_value for o in here],
                [o.value for o in here],
                color=color,
                linewidth=1,
            )
            column[1].plot(x, [o.value for o in here], **style, fillstyle="none")
            column[1].plot(x, [o.true_value for o in here], **style)
        column[0].set_title(base.value.split(" (", maxsplit=1)[0] + ", 1 nat or its match")
        column[0].set_yscale("symlog", linthresh=1e-8)
        column[0].set_yticks([0, 1e-6, 1e-4, 1e-2, 1])
        column[1].set_xticks(range(len(WorldName)), [w.value for w in WorldName])
    grid[0, 0].set_ylabel("P(never-done action)")
    grid[0, 0].set_ylim(-2e-9, 3)
    grid[1, 0].set_ylabel("value (open: proxy)")
    grid[1, 0].axhline(0, color=GREY, linewidth=0.6)
    figure.legend(loc="outside lower center", ncols=6)
    return figure


DEMO: Final = Demo(name="regularisers", options_type=RegularisersOptions, run=compute, draw=draw)

if __name__ == "__main__":
    DEMO.main()
