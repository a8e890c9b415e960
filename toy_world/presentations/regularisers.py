"""Which regulariser resists an agent that is paid for what is never done?

See `toy_world.studies.regularisers`.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from mightnt.figure_style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILLION, new_figure
from mightnt.tables import Column, Evidence, Table
from theory.paper import Statement
from toy_world.demo import Presentation
from toy_world.demo_regularisers import RegularisersOptions
from toy_world.studies.regularisers import (
    ALPHA,
    Base,
    Constraint,
    RegulariserOutcome,
    RegulariserOutcomes,
    regulariser_outcomes,
)
from toy_world.worlds.environments import WorldName

_LOOKS: Final = {
    Constraint.NONE: (BLACK, "X"),
    Constraint.TVD: (PURPLE, "D"),
    Constraint.REVERSE_KL: (ORANGE, "v"),
    Constraint.KL: (VERMILLION, "s"),
    Constraint.CHI_SQUARED: (BLUE, "^"),
    Constraint.PESSIMISTIC: (GREEN, "o"),
}


def compute(options: RegularisersOptions) -> RegulariserOutcomes:
    """All outcomes."""
    return regulariser_outcomes(
        limit_bits=options.bits,
        n_steps=options.steps,
        horizon=options.horizon,
        rng=options.rng(),
    )


def tables(options: RegularisersOptions, data: RegulariserOutcomes) -> tuple[Table, ...]:
    """The outcomes for each base."""
    return tuple(_table(data.outcomes, base, options) for base in Base)


def _table(
    outcomes: Sequence[RegulariserOutcome], base: Base, options: RegularisersOptions
) -> Table:
    return Table(
        name=base.name.lower(),
        title=f"Which regulariser resists? {base.value}",
        columns=(
            Column(header="world"),
            Column(header="eps (nats)"),
            Column(header="constraint"),
            Column(header="its budget"),
            Column(header="value by\nthe proxy", evidence=Evidence.CERTIFIED),
            Column(header="gap", evidence=Evidence.CERTIFIED, format=".0e"),
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
                max(o.gap, 0.0),
                o.true_value,
                o.bad_probability,
                o.n_asks,
            )
            for o in outcomes
            if o.base is base
        ),
        notes=(
            f"k = {options.steps} steps of demonstration, then a novelty; L = {options.bits} bits; "
            f"episodes of {options.horizon} steps. KL, reverse KL: eps nats. TVD: min(sqrt(eps/2), "
            f"sqrt(1-exp(-eps))). chi-squared: exp(eps)-1. The pessimist: alpha = {ALPHA}, its "
            "posterior updated by the demonstrator's actions alone. A P of 0 is an exact zero.",
        ),
    )


def findings(options: RegularisersOptions, data: RegulariserOutcomes) -> tuple[str, ...]:
    """What each constraint leaves of the never-done action."""
    del options
    outcomes = data.outcomes

    def of(base: Base, constraint: Constraint) -> list[RegulariserOutcome]:
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


def draw(options: RegularisersOptions, data: RegulariserOutcomes) -> Figure:
    """True value and probability of the never-done action, by constraint, for each base."""
    del options
    outcomes = [o for o in data.outcomes if o.eps_nats == 1.0]
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


PRESENTATION: Final = Presentation(
    name="regularisers",
    statements=(
        Statement.KL_CONSTRAINT,
        Statement.TVD_CONSTRAINT,
        Statement.NOTHING_UNPRECEDENTED,
    ),
    options_type=RegularisersOptions,
    data_type=RegulariserOutcomes,
    compute=compute,
    tables=tables,
    findings=findings,
    draw=draw,
)
