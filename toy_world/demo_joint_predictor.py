"""Theorem 1 with a joint predictor: which readings hold, and how large the residual is.

See `toy_world.studies.joint_predictor` for the families and for ordinary worlds. Also run by
`python -m toy_world.demo_theorem1 --imitator joint`.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from mightnt.figure_style import BLACK, BLUE, GREEN, GREY, VERMILLION, new_figure
from mightnt.progress import track
from theory.bounds import halving_deviators_nats, pointed_deviators_nats
from theory.errors import InvalidArgumentError
from theory.paper import Statement
from toy_world.demo import Column, Demo, DemoOptions, DemoResult, DemoTable, Evidence
from toy_world.studies.joint_predictor import (
    LANGUAGE,
    JointFamily,
    OrdinaryCosts,
    OrdinaryWorld,
    halving_deviators,
    joint_costs,
    ordinary_mixture,
    pointed_deviators,
)

EXACT_MODELS: Final = 4
"""Up to here the pointed family is worked out on the whole tree, in rationals."""
FORMULA_MODELS: Final = (8, 16)
LEAST_BITS: Final = 20
"""The ordinary world's pair has 11 bits and its switch 9."""
TRAINING_LENGTHS: Final = (1, 3, 10, 30)


@dataclass(frozen=True, kw_only=True)
class JointPredictorOptions(DemoOptions):
    """Theorem 1 when the imitator predicts observations too: where it fails, and by how much."""

    delta_bits: int = 5
    """Delta: a switched copy is 2^-Delta as heavy as its original, 1 to 12."""
    bits: int = LEAST_BITS
    """L of the ordinary worlds' joint programs, 20 to 22 (22 takes minutes)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.delta_bits <= 12:
            raise InvalidArgumentError(f"--delta-bits must lie in 1..12, got {self.delta_bits}")
        if not LEAST_BITS <= self.bits <= 22:
            raise InvalidArgumentError(
                f"--bits must lie in {LEAST_BITS}..22 ({LEAST_BITS} hold the switched version of "
                f"the trusted pair), got {self.bits}"
            )


def compute(options: JointPredictorOptions) -> DemoResult:
    """Families in exact arithmetic, the smallest counterexample, and ordinary worlds."""
    pointed = [
        pointed_deviators(delta_bits=options.delta_bits, likelihoods=_pointers(n))
        for n in range(1, EXACT_MODELS + 1)
    ]
    halving = [halving_deviators(delta_bits=options.delta_bits, n=n) for n in (1, 2, 3)]
    smallest = pointed_deviators(delta_bits=1, likelihoods=[Fraction(1, 10), Fraction(1, 100)])
    world = ordinary_world()
    ordinary = [
        (
            k,
            ordinary_mixture(
                world, n_training_steps=k, bits=options.bits, horizon=2, rng=options.rng()
            ),
        )
        for k in track(TRAINING_LENGTHS, "ordinary worlds", total=len(TRAINING_LENGTHS))
    ]
    bound = pointed[-1].bound
    fixed = [float(joint_costs(family).fixed_nats) for family in pointed]
    counterexample = joint_costs(smallest).fixed_nats
    residuals = [costs.residual_nats for _, costs in ordinary]
    return DemoResult(
        name="joint_predictor",
        statements=(Statement.LITTLE_CONSTRAINT,),
        findings=(
            f"Worst observations: FAILS. {EXACT_MODELS} pointed models cost {fixed[-1]:.2f} nats; "
            f"Delta ln 2 - ln rho is {bound.bound_nats:.2f}, as printed "
            f"{bound.bound_as_printed_nats:.2f}. The KL grows like n ln(1 + 2^Delta).",
            f"Smallest counterexample found: Delta = 1 bit, two models, pointers 1/10 and 1/100: "
            f"KL = {counterexample} = {float(counterexample):.4f} nats against "
            f"{smallest.bound.bound_as_printed_nats:.4f} as printed.",
            "In expectation: HOLDS with observations from xi~ (of the models that have a switched "
            "copy); with -ln w~(e) more under one model's observations e; FAILS with those of xi "
            f"itself ({halving_deviators_nats(n=16, delta_bits=5):.2f} nats at Delta = 5, n = 16; "
            "7.24 as printed).",
            f"In an ordinary world the residual is {min(residuals):.2f} to {max(residuals):.2f} "
            "nats: the news makes joint switches of both policy and observations likelier.",
        ),
        tables=(
            _family_table(pointed, fixed, options.delta_bits),
            _source_table([("pointed", pointed[1]), ("halving", halving[-1])]),
            _halving_table(halving, options.delta_bits),
            _ordinary_table(ordinary, options.bits),
        ),
        data={
            "delta_bits": options.delta_bits,
            "n": list(range(1, EXACT_MODELS + 1)),
            "fixed_nats": fixed,
            "limit_n": [*range(1, EXACT_MODELS + 1), *FORMULA_MODELS],
            "limit_nats": [
                pointed_deviators_nats(n=n, delta_bits=options.delta_bits)
                for n in (*range(1, EXACT_MODELS + 1), *FORMULA_MODELS)
            ],
            "halving_nats": [
                halving_deviators_nats(n=n, delta_bits=options.delta_bits) for n in range(1, 17)
            ],
            "bound_nats": bound.bound_nats,
            "printed_nats": bound.bound_as_printed_nats,
            "ordinary": [
                {
                    "k": k,
                    "fixed_nats": costs.fixed_nats,
                    "expected_nats": costs.expected_nats,
                    "bound_nats": costs.bound.bound_nats,
                    "residual_nats": costs.residual_nats,
                }
                for k, costs in ordinary
            ],
        },
    )


def ordinary_world() -> OrdinaryWorld:
    """The trusted policy always does a0; o1 is the news, o0 all that was seen before."""
    return OrdinaryWorld(
        trusted=LANGUAGE.policies.parse("do(a0)"),
        observations=LANGUAGE.policies.parse("mix(1/2, do(a1), do(a0))"),
        event=LANGUAGE.events.parse("latch(ends(o1))"),
        news=1,
        agent=LANGUAGE.policies.parse("do(a1)"),
    )


def _pointers(n: int) -> list[Fraction]:
    """Each far smaller than the one before."""
    return [Fraction(1, 10 ** (4 * 3**i)) for i in range(n)]


def _family_table(families: list[JointFamily], fixed: list[float], delta_bits: int) -> DemoTable:
    rows: list[tuple[Any, ...]] = [
        (
            n,
            kl,
            pointed_deviators_nats(n=n, delta_bits=delta_bits),
            family.bound.bound_nats,
            family.bound.bound_as_printed_nats,
        )
        for n, (family, kl) in enumerate(zip(families, fixed, strict=True), start=1)
    ]
    last = families[-1].bound
    rows += [
        (
            n,
            None,
            pointed_deviators_nats(n=n, delta_bits=delta_bits),
            last.bound_nats,
            last.bound_as_printed_nats,
        )
        for n in FORMULA_MODELS
    ]
    return DemoTable(
        title=f"Pointed deviators, Delta = {delta_bits}: worst observations (nats)",
        columns=(
            Column(header="n"),
            Column(header="KL, fixed obs.", evidence=Evidence.EXACT),
            Column(header="n ln(1 + 2^Delta)", evidence=Evidence.FLOAT),
            Column(header="Delta ln 2 - ln rho", evidence=Evidence.FLOAT),
            Column(header="as printed", evidence=Evidence.FLOAT),
        ),
        rows=tuple(rows),
        note="delta_i = 10^-4, 10^-12, 10^-36, ...; exact up to n = 4, beyond only the limit.",
    )


def _source_table(families: list[tuple[str, JointFamily]]) -> DemoTable:
    rows = []
    for name, family in families:
        costs = joint_costs(family)
        bound, n = family.bound, family.n_originals
        with_weight = bound.expected_bound_nats(log_environment_weight=-float(np.log(n)))
        for source, kl, limit in (
            ("xi~", costs.expected_under_xi_tilde_nats, bound.bound_nats),
            ("a model e", costs.expected_under_model_nats, with_weight),
            ("xi itself", costs.expected_under_xi_nats, None),
            ("worst, fixed", costs.fixed_nats, None),
        ):
            rows.append((name, n, source, float(kl), limit))
    return DemoTable(
        title="Where the observations come from (nats)",
        columns=(
            Column(header="family"),
            Column(header="models"),
            Column(header="observations from"),
            Column(header="KL", evidence=Evidence.EXACT),
            Column(header="bound that holds", evidence=Evidence.FLOAT),
        ),
        rows=tuple(rows),
        note="xi~: Delta ln 2 - ln rho; a model e: - ln w~(e) more; the last two have no bound.",
    )


def _halving_table(families: list[JointFamily], delta_bits: int) -> DemoTable:
    exact = [float(joint_costs(family).expected_under_xi_nats) for family in families]
    rows = [
        (
            n,
            exact[n - 1] if n <= len(exact) else None,
            halving_deviators_nats(n=n, delta_bits=delta_bits),
            families[0].bound.bound_as_printed_nats,
        )
        for n in (1, 2, 3, 8, 12, 16, 32)
    ]
    return DemoTable(
        title=f"Halving deviators, Delta = {delta_bits}: observations from xi itself (nats)",
        columns=(
            Column(header="n (2^n models)"),
            Column(header="KL by enumeration", evidence=Evidence.EXACT),
            Column(header="closed form", evidence=Evidence.FLOAT),
            Column(header="as printed", evidence=Evidence.FLOAT),
        ),
        rows=tuple(rows),
    )


def _ordinary_table(ordinary: list[tuple[int, OrdinaryCosts]], bits: int) -> DemoTable:
    return DemoTable(
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
                k,
                costs.n_models,
                costs.fixed_nats,
                costs.expected_nats,
                costs.bound.bound_nats,
                costs.residual_nats,
            )
            for k, costs in ordinary
        ),
        note="After k steps of do(a0) with o0 only, o1 comes for the first time. KL <= bound + "
        "residual. rho counts the pairs of policy and observation program of at most L - Delta "
        "bits, which the news makes a small part as k grows: a truncated class.",
    )


def draw(result: DemoResult) -> Figure:
    """The families' growth beside the bounds; the ordinary world's residual."""
    data = result.data
    figure = new_figure(height_inches=2.9)
    families, ordinary = figure.subplots(1, 2, width_ratios=(3, 2))
    families.plot(data["limit_n"], data["limit_nats"], ":", color=VERMILLION)
    families.plot(data["n"], data["fixed_nats"], "s", color=VERMILLION)
    families.text(
        8.2, data["limit_nats"][-2] * 0.72, "worst observations:\nn ln(1 + 2^Δ)", color=VERMILLION
    )
    steps = np.arange(1, len(data["halving_nats"]) + 1)
    families.plot(steps, data["halving_nats"], "^-", color=BLUE)
    families.text(
        16, data["halving_nats"][-1] + 1, "observations from ξ itself", color=BLUE, ha="right"
    )
    families.axhline(data["printed_nats"], color=BLACK, linestyle="--")
    families.text(3.2, data["printed_nats"] + 0.5, "bound as printed")
    families.axhline(data["bound_nats"], color=BLACK)
    families.text(16, data["bound_nats"] - 1.9, "Δ ln 2 − ln ρ (policy mixture)", ha="right")
    families.set(
        xlabel="n, revealing observations", ylabel="KL(π‖ξ), nats", ylim=(0, 34), xlim=(0, 16.5)
    )
    families.set_title(f"(a) A joint predictor breaks the bound (Δ = {data['delta_bits']})")

    k = [row["k"] for row in data["ordinary"]]
    for key, label, look in (
        ("bound_nats", "Δ ln 2 − ln ρ", {"color": BLACK, "linestyle": "-"}),
        ("fixed_nats", "KL, fixed observations", {"color": VERMILLION, "marker": "s"}),
        ("expected_nats", "KL, expected", {"color": BLUE, "marker": "^"}),
        ("residual_nats", "residual", {"color": GREEN, "marker": "o"}),
    ):
        ordinary.plot(k, [row[key] for row in data["ordinary"]], label=label, **look)
    ordinary.axhline(0, color=GREY, linewidth=0.5)
    ordinary.set(xscale="log", xlabel="k, demonstrations", ylabel="nats")
    ordinary.legend(loc="upper left")
    ordinary.set_title("(b) An ordinary world: a small residual")
    return figure


DEMO: Final = Demo(
    name="joint_predictor", options_type=JointPredictorOptions, run=compute, draw=draw
)

if __name__ == "__main__":
    DEMO.main()
