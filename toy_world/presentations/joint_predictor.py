"""Theorem 1 with a joint predictor: where its bound fails, and by how much.

See `toy_world.studies.joint_predictor`.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from mightnt.figure_style import BLACK, BLUE, GREEN, GREY, VERMILLION, new_figure
from mightnt.tables import Column, Evidence, Table
from theory.bounds import halving_deviators_nats
from theory.paper import Statement
from toy_world.demo import Presentation
from toy_world.demo_joint_predictor import JointPredictorOptions
from toy_world.studies.joint_predictor import (
    EXACT_MODELS,
    FOLLOWER_BITS,
    HalvingCost,
    JointPredictorCosts,
    OrdinaryCost,
    SourceCost,
    joint_predictor_costs,
)


def compute(options: JointPredictorOptions) -> JointPredictorCosts:
    """Families in exact arithmetic, the smallest counterexample, and an ordinary world."""
    return joint_predictor_costs(
        delta_bits=options.delta_bits, bits=options.bits, new_rng=options.rng
    )


def tables(options: JointPredictorOptions, data: JointPredictorCosts) -> tuple[Table, ...]:
    """Both families, where the observations come from, and the ordinary world."""
    return (
        _family_table(data),
        _source_table(data.sources),
        _halving_table(data.halvings, data),
        _ordinary_table(data.ordinary, options.bits),
    )


def _family_table(data: JointPredictorCosts) -> Table:
    exact = dict(zip(data.n, data.fixed_nats, strict=True))
    return Table(
        name="pointed",
        title=f"Pointed deviators, Delta = {data.delta_bits}: worst observations (nats)",
        columns=(
            Column(header="n"),
            Column(header="KL, fixed obs.", evidence=Evidence.EXACT),
            Column(header="n ln(1 + 2^Delta)", evidence=Evidence.FLOAT),
            Column(header="Delta ln 2 - ln rho", evidence=Evidence.FLOAT),
            Column(header="as printed", evidence=Evidence.FLOAT),
        ),
        rows=tuple(
            (n, exact.get(n), limit_nats, data.bound_nats, data.printed_nats)
            for n, limit_nats in zip(data.limit_n, data.limit_nats, strict=True)
        ),
        notes=(
            "delta_i = 10^-4, 10^-12, 10^-36, ...; exact up to "
            f"n = {EXACT_MODELS}, beyond only the limit.",
        ),
    )


def _source_table(sources: Sequence[SourceCost]) -> Table:
    return Table(
        name="sources",
        title="Where the observations come from (nats)",
        columns=(
            Column(header="family"),
            Column(header="models"),
            Column(header="observations from"),
            Column(header="KL", evidence=Evidence.EXACT),
            Column(header="bound that holds", evidence=Evidence.FLOAT),
        ),
        rows=tuple(
            (each.family, each.n_models, each.source, each.kl_nats, each.limit_nats)
            for each in sources
        ),
        notes=(
            "xi~: Delta ln 2 - ln rho; a model e: - ln w~(e) more; the last two have no bound.",
        ),
    )


def _halving_table(halvings: Sequence[HalvingCost], data: JointPredictorCosts) -> Table:
    return Table(
        name="halving",
        title=f"Halving deviators, Delta = {data.delta_bits}: observations from xi itself (nats)",
        columns=(
            Column(header="n (2^n models)"),
            Column(header="KL by enumeration", evidence=Evidence.EXACT),
            Column(header="closed form", evidence=Evidence.FLOAT),
            Column(header="as printed", evidence=Evidence.FLOAT),
        ),
        rows=tuple(
            (each.n, each.exact_nats, each.closed_form_nats, data.printed_nats) for each in halvings
        ),
    )


def _ordinary_table(ordinary: Sequence[OrdinaryCost], bits: int) -> Table:
    return Table(
        name="ordinary",
        title=f"An ordinary world: joint programs of at most {bits} bits, k demonstrations (nats)",
        columns=(
            Column(header="k"),
            Column(header="programs", evidence=Evidence.EXACT),
            Column(header="KL, fixed obs.", evidence=Evidence.FLOAT),
            Column(header="expected KL", evidence=Evidence.FLOAT),
            Column(header="Delta ln 2 - ln rho", evidence=Evidence.FLOAT),
            Column(header="residual", evidence=Evidence.FLOAT),
        ),
        rows=tuple(
            (
                row.n_steps,
                row.n_models,
                row.fixed_nats,
                row.expected_nats,
                row.bound_nats,
                row.residual_nats,
            )
            for row in ordinary
        ),
        notes=(
            "After k steps of do(a0) with o0 only, o1 comes for the first time. KL <= bound + "
            "residual. rho counts the pairs of policy and observation program of at most L - Delta "
            "bits, which the news makes a small part as k grows: a truncated class.",
        ),
    )


def findings(options: JointPredictorOptions, data: JointPredictorCosts) -> tuple[str, ...]:
    """Which readings fail and which hold, and the residual."""
    del options
    counterexample = data.counterexample
    residuals = [row.residual_nats for row in data.ordinary]
    return (
        f"Worst observations: FAILS. {EXACT_MODELS} pointed models cost "
        f"{data.fixed_nats[-1]:.2f} nats; "
        f"Delta ln 2 - ln rho is {data.bound_nats:.2f}, as printed "
        f"{data.printed_nats:.2f}. The KL grows like n ln(1 + 2^Delta). So it is for "
        "arbitrary finite classes: with a model that follows pi and predicts by coin, of "
        f"2^-{FOLLOWER_BITS} of their weight, the same models cost {data.follower_nats[-1]:.2f} "
        "nats. For a universal class it is open.",
        f"Smallest counterexample found: Delta = 1 bit, two models, pointers 1/10 and 1/100: "
        f"KL = {counterexample.kl} = {counterexample.kl_nats:.4f} nats against "
        f"{counterexample.printed_nats:.4f} as printed.",
        "In expectation: HOLDS with observations from xi~ (of the models that have a switched "
        "copy); with -ln w~(e) more under one model's observations e; FAILS with those of xi "
        f"itself ({halving_deviators_nats(n=16, delta_bits=5):.2f} nats at Delta = 5, n = 16; "
        "7.24 as printed).",
        f"In an ordinary world the residual is {min(residuals):.2f} to {max(residuals):.2f} "
        "nats: the news makes joint switches of both policy and observations likelier.",
    )


def draw(options: JointPredictorOptions, data: JointPredictorCosts) -> Figure:
    """The families' growth beside the bounds; the ordinary world's residual."""
    del options
    figure = new_figure(height_inches=2.9)
    families, ordinary = figure.subplots(1, 2, width_ratios=(3, 2))
    families.plot(data.limit_n, data.limit_nats, ":", color=VERMILLION)
    families.plot(data.n, data.fixed_nats, "s", color=VERMILLION)
    families.text(
        8.2, data.limit_nats[-2] * 0.72, "worst observations:\nn ln(1 + 2^Δ)", color=VERMILLION
    )
    steps = np.arange(1, len(data.halving_nats) + 1)
    families.plot(steps, data.halving_nats, "^-", color=BLUE)
    families.text(
        16, data.halving_nats[-1] + 1, "observations from ξ itself", color=BLUE, ha="right"
    )
    families.axhline(data.printed_nats, color=BLACK, linestyle="--")
    families.text(3.2, data.printed_nats + 0.5, "bound as printed")
    families.axhline(data.bound_nats, color=BLACK)
    families.text(16, data.bound_nats - 1.9, "Δ ln 2 − ln ρ (policy mixture)", ha="right")
    families.set(
        xlabel="n, revealing observations", ylabel="KL(π‖ξ), nats", ylim=(0, 34), xlim=(0, 16.5)
    )
    families.set_title(f"(a) A joint predictor breaks the bound (Δ = {data.delta_bits})")

    k = [row.n_steps for row in data.ordinary]
    for nats, label, look in (
        ([row.bound_nats for row in data.ordinary], "Δ ln 2 − ln ρ", {"color": BLACK}),
        (
            [row.fixed_nats for row in data.ordinary],
            "KL, fixed observations",
            {"color": VERMILLION, "marker": "s"},
        ),
        (
            [row.expected_nats for row in data.ordinary],
            "KL, expected",
            {"color": BLUE, "marker": "^"},
        ),
        ([row.residual_nats for row in data.ordinary], "residual", {"color": GREEN, "marker": "o"}),
    ):
        ordinary.plot(k, nats, label=label, **look)
    ordinary.axhline(0, color=GREY, linewidth=0.5)
    ordinary.set(xscale="log", xlabel="k, demonstrations", ylabel="nats")
    ordinary.legend(loc="upper left")
    ordinary.set_title("(b) An ordinary world: a small residual")
    return figure


PRESENTATION: Final = Presentation(
    name="joint_predictor",
    statements=(Statement.LITTLE_CONSTRAINT,),
    options_type=JointPredictorOptions,
    data_type=JointPredictorCosts,
    compute=compute,
    tables=tables,
    findings=findings,
    draw=draw,
)
