"""Which reading of Theorem 2 holds, and what a perfect base policy is worth.

See `toy_world.studies.theorem2`, `claim_frequencies` and `perfect_base`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mightnt.figure_style import BLUE, GREEN, GREY, VERMILLION, new_figure
from mightnt.statistics import CONFIDENCE
from mightnt.tables import Column, Evidence, Table, Written, as_fraction
from theory.paper import Statement
from toy_world.demo import Presentation
from toy_world.demo_theorem2 import Theorem2Options
from toy_world.planners.problem import Reading
from toy_world.studies.claim_frequencies import RANDOM_BUDGETS, Frequency, claim_frequencies
from toy_world.studies.perfect_base import BAD_BASE, Contrast, contrasts
from toy_world.studies.theorem2 import (
    HOLDS,
    READINGS,
    CertifiedExample,
    Claim,
    ClaimVerdict,
    ExampleRow,
    certified_examples,
    claim_verdicts,
    first_example_row,
)

SHOWN_SHAPE: Final = (2, 3, 2)


@dataclass(frozen=True, kw_only=True)
class Theorem2Data:
    """Claims, counterexamples, frequencies of violations, and TVD beside KL.

    Attributes:
        claims: where each holds.
        examples: counterexamples, in every reading.
        bars: one history of the first of them.
        frequencies: of violations on random problems.
        contrast: the probability of ever acting badly, by budget.
    """

    claims: tuple[ClaimVerdict, ...]
    examples: tuple[CertifiedExample, ...]
    bars: ExampleRow
    frequencies: tuple[Frequency, ...]
    contrast: tuple[Contrast, ...]


def compute(options: Theorem2Options) -> Theorem2Data:
    """Check the counterexamples, sample random problems, and compare TVD with KL."""
    return Theorem2Data(
        claims=claim_verdicts(),
        examples=certified_examples(),
        bars=first_example_row(),
        frequencies=claim_frequencies(n_problems=options.problems, rng=options.rng()),
        contrast=contrasts(),
    )


def tables(options: Theorem2Options, data: Theorem2Data) -> tuple[Table, ...]:
    """Claims, counterexamples, frequencies, and TVD beside KL."""
    del options
    return (
        _claim_table(data.claims),
        _example_table(data.examples),
        _frequency_table(data.frequencies),
        _contrast_table(data.contrast),
    )


def _claim_table(claims: Sequence[ClaimVerdict]) -> Table:
    def verdict(each: ClaimVerdict, reading: Reading) -> str:
        return "holds, proved" if reading in each.holds_in else "fails, counterexample"

    return Table(
        name="claims",
        title="What Theorem 2 may be taken to say, for an optimum under TVD <= c",
        columns=(
            Column(header="claim"),
            *(Column(header=_name(reading), evidence=Evidence.EXACT) for reading in READINGS),
            Column(header="smallest shapes where it fails", evidence=Evidence.EXACT),
        ),
        rows=tuple(
            (
                each.claim.value,
                *(verdict(each, reading) for reading in READINGS),
                " and ".join(map(str, each.smallest_shapes)) or None,
            )
            for each in claims
        ),
        notes=(
            "x(ha), b(ha): the probability of the actions in ha given its observations, under the "
            "optimum and under beta. Shapes: (steps, actions, observations); smaller ones cannot "
            "fail (proof in toy_world/studies/theorem2.py).",
        ),
    )


def _example_table(examples: Sequence[CertifiedExample]) -> Table:
    return Table(
        name="counterexamples",
        title="Counterexamples, with the least excess over all optimal policies",
        columns=(
            Column(header="claim"),
            Column(header="shape"),
            Column(header="reading"),
            Column(header="c"),
            Column(header="value", evidence=Evidence.EXACT),
            Column(header="action"),
            Column(header="value lost by it", evidence=Evidence.EXACT),
            Column(header="least excess", evidence=Evidence.EXACT),
        ),
        rows=tuple(
            (
                each.claim.name,
                each.shape,
                _name(each.reading),
                as_fraction(each.budget),
                as_fraction(each.value),
                f"{each.action} at {each.history}",
                as_fraction(each.loss),
                as_fraction(each.least_excess),
            )
            for each in examples
        ),
        notes=(
            "Excess: x(ha) - beta(a|h) x(h) for CONDITIONAL, x(ha) - b(ha) for SEQUENCE. Where it "
            "is positive every optimum violates the claim; the optimum and the least excess are "
            "proved by rational primal and dual solutions.",
        ),
    )


def _frequency_table(sampled: Sequence[Frequency]) -> Table:
    by_case: dict[Any, dict[Claim, Frequency]] = {}
    for frequency in sampled:
        by_case.setdefault((frequency.shape, frequency.reading), {})[frequency.claim] = frequency

    def cell(frequency: Frequency) -> Written:
        ends = frequency.interval
        return Written(
            f"{frequency.violated} [{ends.low:.1%}, {ends.high:.1%}]",
            {"violated": frequency.violated, "share_low": ends.low, "share_high": ends.high},
        )

    return Table(
        name="frequencies",
        title=f"Random problems of {sampled[0].problems} whose optimum violates a claim",
        columns=(
            Column(header="shape"),
            Column(header="reading"),
            *(Column(header=claim.name, evidence=Evidence.MONTE_CARLO) for claim in Claim),
        ),
        rows=tuple(
            (shape, _name(reading), *(cell(found[claim]) for claim in Claim))
            for (shape, reading), found in by_case.items()
        ),
        notes=(
            f"Dirichlet rows, uniform utilities, c one of {RANDOM_BUDGETS}; in brackets the exact "
            f"{CONFIDENCE:.0%} interval of the probability.",
        ),
    )


def _contrast_table(contrasts: Sequence[Contrast]) -> Table:
    return Table(
        name="contrast",
        title="Probability of ever taking the bad action, which the agent's utility likes",
        columns=(
            Column(header="budget (c, or nats)"),
            *(
                Column(header=f"TVD, {_name(reading)}, beta(bad) = 0", evidence=Evidence.EXACT)
                for reading in READINGS
            ),
            *(
                Column(header=f"KL, beta(bad) = {float(bad):g}", evidence=Evidence.CERTIFIED)
                for bad in BAD_BASE
            ),
        ),
        rows=tuple(
            (float(c.budget), *(c.tvd or (None,) * len(READINGS)), *c.kl) for c in contrasts
        ),
        notes=("Three steps; beta(bad) in each. KL in the expected reading.",),
    )


def findings(options: Theorem2Options, data: Theorem2Data) -> tuple[str, ...]:
    """Which claims hold, and what a perfect base policy is worth."""
    del options
    sampled, contrasts = data.frequencies, data.contrast
    wrong = [f for f in sampled if f.violated and f.reading in HOLDS[f.claim]]
    if wrong:
        proved = f"CONTRADICTION: {len(wrong)} cases violate a claim that is proved; report this."
    else:
        total = sum(f.problems for f in sampled if f.reading in HOLDS[f.claim])
        proved = f"No violation of a proved claim in {total} checks on random problems."
    linear = all(set(c.tvd) == {Fraction(c.budget)} for c in contrasts if c.tvd is not None)
    tvd = "exactly c, in all three readings" if linear else "not c in every reading"
    return (
        "Where neither beta nor the environment misses mass, the printed statement holds for the "
        "first action that the constraint covers, in all three readings. For conditional "
        "probabilities of later actions it fails in all three, from 2 steps of 3 actions on, even "
        "without observations: taking mass from a bad sequence makes its siblings more probable.",
        "Corrected: whatever action sequence is more probable than under beta, given its "
        "observations, ends in an optimal action. Its earlier actions are optimal too in the "
        "adaptive reading, but not in the fixed and the expected one.",
        proved,
        f"With a perfect base policy the probability of the bad action under TVD <= c is {tvd}; "
        f"under KL it is {max(c.kl[0] for c in contrasts):g} at every budget up to "
        f"{float(contrasts[-1].budget):g} nats.",
        "A base policy that takes the bad action once in a million steps is no such protection: "
        f"at {float(contrasts[-2].budget):g} nats the agent takes it with probability "
        f"{contrasts[-2].kl[1]:.3g}.",
    )


def _name(reading: Reading) -> str:
    return reading.name.lower()


def draw(options: Theorem2Options, data: Theorem2Data) -> Figure:
    """The counterexample, how common violations are, and TVD beside KL."""
    del options
    figure = new_figure(height_inches=2.9)
    conditional, common, bad = figure.subplots(1, 3, width_ratios=(1.0, 1.15, 1.2))
    _draw_bars(conditional, data.bars)
    _draw_frequencies(common, data.frequencies)
    _draw_contrast(bad, data.contrast)
    return figure


def _draw_bars(axes: Axes, bars: ExampleRow) -> None:
    positions = np.arange(len(bars.beta))
    axes.bar(positions - 0.2, bars.beta, 0.38, color=GREY, label="base policy beta")
    axes.bar(
        positions + 0.2,
        bars.pi,
        0.38,
        color=VERMILLION,
        hatch="//",
        label=f"optimum, TVD <= {bars.budget}",
    )
    axes.annotate(
        "more likely,\nnot optimal",
        (1.2, bars.pi[1]),
        xytext=(0.35, 0.62),
        ha="center",
        arrowprops={"arrowstyle": "->"},
    )
    axes.set_xticks(positions, list(map(str, bars.utility)))
    axes.set_xlabel("what the second action earns")
    axes.set_ylim(0, 1.0)
    axes.set_ylabel("conditional probability")
    axes.set_title("The printed statement fails\nfor later actions: example")
    axes.legend(loc="upper left")


def _draw_frequencies(axes: Axes, sampled: Sequence[Frequency]) -> None:
    names = {
        Claim.CONDITIONAL: "a later\naction,\nas printed",
        Claim.SEQUENCE: "sequence:\nall its\nactions",
        Claim.MASS: "sequence:\nits last\naction",
        Claim.FIRST: "the first\naction",
    }
    colours = {Reading.FIXED: BLUE, Reading.ADAPTIVE: GREEN, Reading.EXPECTED: VERMILLION}
    markers = {Reading.FIXED: "o", Reading.ADAPTIVE: "s", Reading.EXPECTED: "^"}
    for shift, reading in zip((0.2, 0.0, -0.2), READINGS, strict=True):
        found = {f.claim: f for f in sampled if f.shape == SHOWN_SHAPE and f.reading is reading}
        shares = np.array([found[claim].violated / found[claim].problems for claim in names])
        intervals = [found[claim].interval for claim in names]
        ends = np.array([(each.low, each.high) for each in intervals]).T
        axes.errorbar(
            shares,
            np.arange(len(names)) + shift,
            xerr=np.abs(ends - shares),
            linestyle="",
            marker=markers[reading],
            color=colours[reading],
            label=_name(reading),
        )
    axes.set_yticks(np.arange(len(names)), list(names.values()))
    axes.set_xlim(-0.03, 1)
    axes.set_ylim(-0.5, len(names) - 0.5)
    axes.set_xlabel(f"share of {sampled[0].problems} random problems")
    axes.set_title("Likelier than under beta,\nyet not optimal")
    axes.legend(loc="upper right", title="reading", title_fontsize=7.5)


def _draw_contrast(axes: Axes, contrasts: Sequence[Contrast]) -> None:
    shown = [c for c in contrasts if c.budget > 0]
    limited = [(float(c.budget), float(c.tvd[0])) for c in shown if c.tvd is not None]
    axes.plot(
        *zip(*limited, strict=True), color=VERMILLION, marker="o", label="TVD, beta never bad"
    )
    looks = (
        ("-", "s", BLUE, "KL, beta never bad"),
        ("--", "^", GREEN, "KL, beta bad 1 in $10^6$"),
        (":", "D", GREY, "KL, beta bad 1 in $10^3$"),
    )
    for i, (line, marker, colour, label) in enumerate(looks):
        axes.plot(
            [float(c.budget) for c in shown],
            [c.kl[i] for c in shown],
            linestyle=line,
            marker=marker,
            color=colour,
            label=label,
        )
    axes.set_xscale("log")
    axes.set_ylim(-0.05, 1.7)
    axes.set_yticks([0, 0.5, 1])
    axes.legend(loc="upper left")
    axes.set_xlabel("budget: c, or nats")
    axes.set_ylabel("probability of ever acting badly")
    axes.set_title("A perfect base policy\nprotects under KL only")


PRESENTATION: Final = Presentation(
    name="theorem2",
    statements=(Statement.TVD_CONSTRAINT,),
    options_type=Theorem2Options,
    data_type=Theorem2Data,
    compute=compute,
    tables=tables,
    findings=findings,
    draw=draw,
)
