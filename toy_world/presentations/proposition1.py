"""KL has no triangle inequality: a witness, a census, and agents near the imitator.

See `toy_world.studies.no_triangle`.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mightnt.figure_style import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILLION, new_figure
from mightnt.tables import Column, Evidence, Table, Written, as_fraction
from theory.paper import Statement
from toy_world.demo import Presentation
from toy_world.demo_proposition1 import Proposition1Options
from toy_world.studies.no_triangle import (
    CENSUS_TIMES,
    EPSILONS,
    HORIZON,
    SOFT_BITS,
    Case,
    NoTriangle,
    Novel,
    Verdict,
    Witness,
    no_triangle,
    prior_share,
)
from toy_world.worlds.environments import WorldName


def compute(options: Proposition1Options) -> NoTriangle:
    """The witness, the census, and the worlds' own demonstrators."""
    return no_triangle(
        census_bits=options.census_bits,
        demonstrator_bits=options.demonstrator_bits,
        bits=options.bits,
        most_steps=options.steps,
        rng=options.rng(),
    )


def tables(options: Proposition1Options, data: NoTriangle) -> tuple[Table, ...]:
    """The witness, the census, and the worlds' own demonstrators."""
    return (
        _witness_table(data.witnesses),
        _census_table(data.cases, options),
        _novel_table(data.novel, options),
    )


def _witness_table(witnesses: Sequence[Witness]) -> Table:
    return Table(
        name="witness",
        title="The witness: tau = Bern(0), pi = beta = Bern(min(eps, 1)/2)",
        columns=(
            Column(header="eps (nats)"),
            Column(header="P(1) under beta", evidence=Evidence.EXACT),
            Column(header="KL(pi||beta)", evidence=Evidence.EXACT),
            Column(header="KL(tau||beta)", evidence=Evidence.EXACT),
            Column(header="both <= eps", evidence=Evidence.EXACT),
            Column(header="KL(pi||tau)", evidence=Evidence.EXACT),
        ),
        rows=tuple(
            (
                as_fraction(each.epsilon),
                as_fraction(each.one_under_beta),
                each.pi_to_beta_nats,
                each.tau_to_beta_nats,
                Written("yes" if each.both_within else "NO", {"": each.both_within}),
                each.pi_to_tau_nats,
            )
            for each in witnesses
        ),
        notes=(
            "Compared with eps as exact sums of logarithms. Proved for all eps in proofs_check.",
        ),
    )


def _census_table(cases: Sequence[Case], options: Proposition1Options) -> Table:
    rows = []
    for k in CENSUS_TIMES:
        here = [c for c in cases if c.n_steps == k]
        rows.append(
            (
                k,
                len(here),
                *(sum(c.verdict is verdict for c in here) for verdict in Verdict),
                prior_share(here, Verdict.INFINITE),
                float(np.median([c.tau_to_xi_nats for c in here])),
            )
        )
    return Table(
        name="census",
        title="In nature: KL(xi||tau) <= KL(xi||xi) + KL(tau||xi) = KL(tau||xi)?",
        columns=(
            Column(header="k"),
            Column(header="cases"),
            *(Column(header=verdict.value, evidence=Evidence.FLOAT) for verdict in Verdict),
            Column(header="by infinity:\nprior share", evidence=Evidence.FLOAT, format=".2%"),
            Column(header="median\nKL(tau||xi)", evidence=Evidence.FLOAT),
        ),
        rows=tuple(rows),
        notes=(
            f"As tau: every program of at most {options.demonstrator_bits} bits, and every one of "
            f"at most {SOFT_BITS} bits that rules no action out; in every world, one "
            f"demonstration each; xi: every program of at most L = {options.census_bits} "
            f"bits, {HORIZON} steps. Prior share: demonstrators weighed by 2^-len.",
        ),
    )


def _novel_table(novel: Sequence[Novel], options: Proposition1Options) -> Table:
    return Table(
        name="novel",
        title="After k steps and a novelty: near xi, infinitely far from tau (nats)",
        columns=(
            Column(header="world"),
            Column(header="k"),
            Column(header="KL(tau||xi)", evidence=Evidence.FLOAT),
            Column(header="best pi within\nthat: KL(pi||xi)", evidence=Evidence.CERTIFIED),
            Column(header="KL(pi||tau)", evidence=Evidence.FLOAT),
            Column(header="P(a2), pi", evidence=Evidence.FLOAT),
            Column(header="P(a2), xi", evidence=Evidence.FLOAT),
            Column(header="always a2:\nKL(pi||xi)", evidence=Evidence.FLOAT),
            Column(header="KL(pi||tau)", evidence=Evidence.FLOAT, key="always a2: KL(pi||tau)"),
        ),
        rows=tuple(
            (
                n.world.value,
                n.n_steps,
                n.tau_to_xi_nats,
                n.best_to_xi_nats,
                n.best_to_tau_nats,
                n.best_bad,
                n.xi_bad,
                n.constructed_to_xi_nats,
                n.constructed_to_tau_nats,
            )
            for n in novel
        ),
        notes=(
            f"L = {options.bits} bits, 3 steps. The best policy by the share of steps with a2, "
            "which tau never does. Infinite KL are exact: a zero of tau against a positive number.",
        ),
    )


def findings(options: Proposition1Options, data: NoTriangle) -> tuple[str, ...]:
    """The witness, the census, and what agents near the imitator do."""
    del options
    cases, novel = data.cases, data.novel
    last = [c for c in cases if c.n_steps == CENSUS_TIMES[-1]]
    counts = {verdict: sum(c.verdict is verdict for c in last) for verdict in Verdict}
    infinite = [c for c in last if c.verdict is Verdict.INFINITE]
    final = [n for n in novel if n.n_steps == max(m.n_steps for m in novel)]
    return (
        f"The witness holds exactly for eps from {float(EPSILONS[0]):g} to "
        f"{float(EPSILONS[-1]):g} nats.",
        f"It is the rule in nature: after {CENSUS_TIMES[-1]} steps the triangle inequality with "
        f"pi = xi fails by infinity for {counts[Verdict.INFINITE]} of {len(last)} demonstrators "
        f"({prior_share(last, Verdict.INFINITE):.2%} of their prior), by a finite amount for "
        f"{counts[Verdict.FINITE]} (up to {_greatest_excess(last):.1g} nats), and holds for "
        f"{counts[Verdict.HOLDS]}. The imitator is then "
        f"within {float(np.median([c.tau_to_xi_nats for c in infinite])):.2g} nats of tau in the "
        "median: KL(tau||xi).",
        f"An agent no farther from xi than the demonstrator itself (KL(tau||xi) = "
        f"{_range(n.tau_to_xi_nats for n in final)} nats at k = {final[0].n_steps:,}) takes a2, "
        f"which the demonstrator never does, with probability "
        f"{_range(n.best_bad for n in final)}; its KL to tau is infinite in "
        f"{sum(n.best_to_tau_nats == math.inf for n in final)} of {len(final)} worlds.",
        f"The constructed policy, always a2, costs "
        f"{_range(n.constructed_to_xi_nats for n in final)} nats to xi at k = "
        f"{final[0].n_steps:,}; its KL to tau is infinite in "
        f"{sum(n.constructed_to_tau_nats == math.inf for n in final)} of {len(final)} worlds.",
    )


def _greatest_excess(cases: Sequence[Case]) -> float:
    finite = [c for c in cases if c.verdict is not Verdict.INFINITE]
    return max((c.xi_to_tau_nats - c.tau_to_xi_nats for c in finite), default=0.0)


def _range(values: Iterable[float]) -> str:
    listed = list(values)
    return f"{min(listed):.3g} to {max(listed):.3g}"


def draw(options: Proposition1Options, data: NoTriangle) -> Figure:
    """The census, and the worlds' own demonstrators against k."""
    del options
    figure = new_figure(height_inches=3.5)
    census_axes, novel_axes = figure.subplots(1, 2, width_ratios=(1, 1.1))
    _draw_census(census_axes, data.cases)
    _draw_novel(novel_axes, data.novel)
    return figure


def _draw_census(axes: Axes, cases: Sequence[Case]) -> None:
    """Both directions of KL; infinite ones in a strip above."""
    finite = [c.xi_to_tau_nats for c in cases if math.isfinite(c.xi_to_tau_nats)]
    least = 1e-6
    top = 10 * max(finite, default=1.0)
    axes.axhspan(top / 3, top * 3, color=VERMILLION, alpha=0.12, linewidth=0)
    line = np.array([least, top / 3])
    axes.plot(line, line, color=BLACK, linestyle="--", linewidth=1.0)
    axes.text(2e-4, 3e-6, "triangle inequality:\nbelow the line", fontsize=7.5)
    for verdict, color, marker in (
        (Verdict.INFINITE, VERMILLION, "^"),
        (Verdict.FINITE, ORANGE, "s"),
        (Verdict.HOLDS, GREEN, "o"),
    ):
        own = [c for c in cases if c.verdict is verdict and c.n_steps > 0]
        axes.plot(
            [max(c.tau_to_xi_nats, least) for c in own],
            [min(max(c.xi_to_tau_nats, least), top) for c in own],
            linestyle="",
            marker=marker,
            markersize=3.5,
            fillstyle="none",
            color=color,
            label=f"{verdict.value} ({len(own)})",
        )
    axes.text(least, top * 1.2, " KL(ξ‖τ) = ∞", va="bottom", fontsize=7.5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(least / 2, top * 3)
    axes.set_xlabel("KL(τ‖ξ), nats")
    axes.set_ylabel("KL(ξ‖τ), nats")
    axes.set_title("The imitator is near τ, and yet far from it")
    axes.legend(loc="center right", bbox_to_anchor=(1.0, 0.28))


def _draw_novel(axes: Axes, novel: Sequence[Novel]) -> None:
    top = 4 * max(n.constructed_to_xi_nats for n in novel)
    axes.axhspan(top / 2, top * 2, color=VERMILLION, alpha=0.12, linewidth=0)
    axes.text(10, top / 1.9, "both policies: KL(π‖τ) = ∞", va="bottom", fontsize=7.5)
    markers = dict(zip(WorldName, "osD^", strict=True))
    for name in WorldName:
        own = [n for n in novel if n.world is name]
        k = [n.n_steps for n in own]
        style: dict[str, Any] = {"marker": markers[name], "markersize": 4}
        axes.plot(k, [n.constructed_to_xi_nats for n in own], color=VERMILLION, **style)
        axes.plot(k, [n.tau_to_xi_nats for n in own], color=BLUE, linestyle="--", **style)
        axes.plot([], [], color=GREY, linestyle="", label=name.value, **style)
    axes.plot([], [], color=VERMILLION, label="π = always a2: KL(π‖ξ)")
    axes.plot([], [], color=BLUE, linestyle="--", label="best π within KL(τ‖ξ): KL(π‖ξ)")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(top=top * 2)
    axes.set_xlabel("k, steps of demonstration before a novelty")
    axes.set_ylabel("nats")
    axes.set_title("Policies that do what τ never does, near ξ")
    axes.legend(loc="upper right", bbox_to_anchor=(1.0, 0.8))


PRESENTATION: Final = Presentation(
    name="proposition1",
    statements=(Statement.NO_TRIANGLE,),
    options_type=Proposition1Options,
    data_type=NoTriangle,
    compute=compute,
    tables=tables,
    findings=findings,
    draw=draw,
)
