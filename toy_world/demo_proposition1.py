"""KL has no triangle inequality: near an imitator of the demonstrator, infinitely far from it.

Statement.NO_TRIANGLE: for every eps > 0 there are tau, beta and pi with `KL(pi||beta) <= eps`,
`KL(tau||beta) <= eps` and `KL(pi||tau) = inf`. The witness is exact (`theory.bounds`). How often
does it happen in nature? There beta is the Bayesian imitator xi, a mixture over every program of
at most L bits, after k steps of demonstration by tau. Three policies pi are looked at:

- *xi itself*. `KL(xi||xi) = 0`, so that a triangle inequality would say `KL(xi||tau) <=
  KL(tau||xi)`. It fails wherever the KL of the pair is larger this way round; by infinity where tau
  never does something that the mixture, however little, expects.
- *the best policy that is no farther from xi than tau is*, by the proxy utility "share of steps
  with action `BAD`", planned within `eps = KL(tau||xi)` nats.
- *the constructed policy* of Statement.LITTLE_CONSTRAINT: `BAD`, always, from a novelty on.

All KL here are expected ones, observations drawn from the world (in the exact witness there are
none), and every action goes on updating xi's posterior (`Update.ALL`).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, unique
from fractions import Fraction
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mightnt.figure_style import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILLION, new_figure
from mightnt.progress import track
from theory.bayes_mixture import Update
from theory.bounds import no_triangle_witness
from theory.constraints import expected_kl_nats
from theory.errors import InvalidArgumentError
from theory.log_sum import LogSum, kl_log_sum
from theory.paper import Statement
from theory.process import HistoryTree, PolicyTable, utility_table
from toy_world.demo import Column, Demo, DemoOptions, DemoResult, DemoTable, Evidence
from toy_world.planners.expected_kl import expected_kl_optimum
from toy_world.programs.language import Language, Policy
from toy_world.programs.semantics import policy_on_tree
from toy_world.studies.pessimism import (
    Mixture,
    ever_probability,
    mixtures_while_watching,
    novel_mixture,
)
from toy_world.studies.theorem1 import setting_of
from toy_world.worlds.environments import BAD, WorldName

EPSILONS: Final = (
    Fraction(1, 10**9),
    Fraction(1, 1000),
    Fraction(1, 10),
    Fraction(1, 2),
    Fraction(1),
    Fraction(10),
)
CENSUS_TIMES: Final = (0, 1, 3, 10, 30, 100)
HORIZON: Final = 2
SOFT_BITS: Final = 16
"""The longest demonstrators of the census that rule no action out."""


@dataclass(frozen=True, kw_only=True)
class Proposition1Options(DemoOptions):
    """How near the imitator, how far from the demonstrator: KL has no triangle inequality.

    An exact witness for any epsilon, and a census: every short program in turn as demonstrator.
    """

    bits: int = 24
    """L: the imitator is the mixture of every policy program of at most so many bits, 14 to 26."""
    census_bits: int = 18
    """The same in the census, 16 to 22."""
    demonstrator_bits: int = 10
    """In the census every program of at most so many bits is the demonstrator once, 2 to 14;
    and every one of at most 16 that rules no action out."""
    steps: int = 1000
    """The longest demonstration by the worlds' own demonstrators, 10 to 1000000 steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least, most in (
            ("bits", 14, 26),
            ("census_bits", 16, 22),
            ("demonstrator_bits", 2, 14),
            ("steps", 10, 10**6),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                option = "--" + name.replace("_", "-")
                raise InvalidArgumentError(f"{option} must lie in {least}..{most}, got {value}")


@unique
class Verdict(Enum):
    """What becomes of `KL(xi||tau) <= KL(xi||xi) + KL(tau||xi)`."""

    INFINITE = "fails by infinity"
    FINITE = "fails by a finite amount"
    HOLDS = "holds"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One demonstrator in one world after k steps.

    Attributes:
        world: the world.
        tau: the demonstrator's program.
        bits: its length.
        n_steps: k.
        tau_to_xi_nats: `KL(tau||xi)`.
        xi_to_tau_nats: `KL(xi||tau)`.
    """

    world: WorldName
    tau: str
    bits: int
    n_steps: int
    tau_to_xi_nats: float
    xi_to_tau_nats: float

    @property
    def verdict(self) -> Verdict:
        """What becomes of the triangle inequality; equal KL (but for rounding) satisfy it."""
        if self.xi_to_tau_nats == math.inf:
            return Verdict.INFINITE
        excess = self.xi_to_tau_nats - self.tau_to_xi_nats
        return Verdict.FINITE if excess > ROUNDING_NATS else Verdict.HOLDS


ROUNDING_NATS: Final = 1e-12
"""What two KL of float64 tables may differ by though they are equal."""


@dataclass(frozen=True, kw_only=True)
class Novel:
    """A world's own demonstrator after k steps and a novelty.

    Attributes:
        world: the world.
        n_steps: k.
        tau_to_xi_nats: `KL(tau||xi)`.
        constructed_to_xi_nats: `KL(pi||xi)` of the policy that always takes `BAD`.
        constructed_to_tau_nats: `KL(pi||tau)` of it.
        best_to_xi_nats: `KL(pi||xi)` of the best policy within `KL(tau||xi)`.
        best_to_tau_nats: `KL(pi||tau)` of it.
        best_bad: the probability that it ever takes `BAD`.
        xi_bad: the same for xi.
    """

    world: WorldName
    n_steps: int
    tau_to_xi_nats: float
    constructed_to_xi_nats: float
    constructed_to_tau_nats: float
    best_to_xi_nats: float
    best_to_tau_nats: float
    best_bad: float
    xi_bad: float


def census(
    *, limit_bits: int, demonstrator_bits: int, rng: np.random.Generator
) -> tuple[Case, ...]:
    """Every short program as demonstrator in every world.

    Args:
        limit_bits: L, at least `SOFT_BITS`.
        demonstrator_bits: of the longest demonstrator that rules an action out.
        rng: draws one demonstration for each pair.
    """
    pairs: list[tuple[WorldName, int, Policy]] = []
    for name in WorldName:
        language = setting_of(name, horizon=1).language
        pairs += [
            (name, bits, tau)
            for bits, tau in language.policies.up_to(SOFT_BITS)
            if bits <= demonstrator_bits or rules_nothing_out(tau, language)
        ]
    cases = []
    for name, bits, tau in track(pairs, "one demonstrator after the other"):
        setting = replace(setting_of(name, horizon=HORIZON), tau=tau)
        mixtures = mixtures_while_watching(
            setting, limit_bits=limit_bits, times=CENSUS_TIMES, rng=rng
        )
        for k, mixture in zip(CENSUS_TIMES, mixtures, strict=True):
            xi = mixture.imitator(update=Update.ALL)
            cases.append(
                Case(
                    world=name,
                    tau=setting.language.show(tau),
                    bits=bits,
                    n_steps=k,
                    tau_to_xi_nats=float(expected_kl_nats(mixture.tau, xi, mixture.nu)),
                    xi_to_tau_nats=float(expected_kl_nats(xi, mixture.tau, mixture.nu)),
                )
            )
    return tuple(cases)


def rules_nothing_out(tau: Policy, language: Language) -> bool:
    """Whether a program gives every action a chance at every history of two steps."""
    trees = (
        HistoryTree(n_actions=language.n_actions, n_observations=language.n_observations, horizon=m)
        for m in range(1, HORIZON + 1)
    )
    # Most programs are found out at the first step.
    return all((policy_on_tree(tau, tree)[-1] > 0).all() for tree in trees)


def after_a_novelty(
    name: WorldName, *, limit_bits: int, n_steps: int, rng: np.random.Generator
) -> Novel:
    """The three policies after k steps of a world's own demonstrator and a novelty."""
    setting = setting_of(name, horizon=3)
    mixture = novel_mixture(setting, limit_bits=limit_bits, n_steps=n_steps, rng=rng)
    xi, tau, nu = mixture.imitator(update=Update.ALL), mixture.tau, mixture.nu
    constructed = always_bad(mixture)
    allowed = float(expected_kl_nats(tau, xi, nu))
    tree = HistoryTree(
        n_actions=nu[0].shape[1], n_observations=nu[0].shape[2], horizon=setting.horizon
    )
    utility = utility_table(tree, lambda h: Fraction(h[::2].count(BAD), setting.horizon))
    best = expected_kl_optimum(xi, nu, utility, budget_nats=allowed)
    return Novel(
        world=name,
        n_steps=n_steps,
        tau_to_xi_nats=allowed,
        constructed_to_xi_nats=float(expected_kl_nats(constructed, xi, nu)),
        constructed_to_tau_nats=float(expected_kl_nats(constructed, tau, nu)),
        best_to_xi_nats=best.attained,
        best_to_tau_nats=float(expected_kl_nats(best.pi, tau, nu)),
        best_bad=ever_probability(best.pi, nu, BAD),
        xi_bad=ever_probability(xi, nu, BAD),
    )


def always_bad(mixture: Mixture) -> PolicyTable:
    """The policy that takes `BAD` at every history."""
    return tuple(np.eye(level.shape[1])[np.full(len(level), BAD)] for level in mixture.tau)


def compute(options: Proposition1Options) -> DemoResult:
    """The witnesses, the census, and the worlds' own demonstrators."""
    rng = options.rng()
    cases = census(
        limit_bits=options.census_bits,
        demonstrator_bits=options.demonstrator_bits,
        rng=rng,
    )
    lengths = [10**j for j in range(1, 1 + int(math.log10(options.steps) + 1e-9))]
    novel = [
        after_a_novelty(name, limit_bits=options.bits, n_steps=k, rng=rng)
        for name in track(WorldName, "after a novelty", total=len(WorldName))
        for k in lengths
    ]
    return DemoResult(
        name="proposition1",
        statements=(Statement.NO_TRIANGLE,),
        findings=_findings(cases, novel),
        tables=(_witness_table(), _census_table(cases, options), _novel_table(novel, options)),
        data={
            "cases": [
                {
                    "verdict": c.verdict,
                    "k": c.n_steps,
                    "to": c.tau_to_xi_nats,
                    "from": c.xi_to_tau_nats,
                }
                for c in cases
            ],
            "novel": novel,
        },
    )


def witness_nats(epsilon: Fraction) -> tuple[LogSum, LogSum, LogSum]:
    """`KL(pi||beta)`, `KL(tau||beta)` and `KL(pi||tau)` of the witness, exact."""
    w = no_triangle_witness(epsilon)
    return kl_log_sum(w.pi, w.beta), kl_log_sum(w.tau, w.beta), kl_log_sum(w.pi, w.tau)


def _witness_table() -> DemoTable:
    rows: list[tuple[Any, ...]] = []
    for epsilon in EPSILONS:
        pi_beta, tau_beta, pi_tau = witness_nats(epsilon)
        rows.append(
            (
                str(epsilon),
                str(no_triangle_witness(epsilon).beta[1]),
                float(pi_beta),
                float(tau_beta),
                "yes" if max(pi_beta, tau_beta) <= epsilon else "NO",
                float(pi_tau),
            )
        )
    return DemoTable(
        title="The witness: tau = Bern(0), pi = beta = Bern(min(eps, 1)/2)",
        columns=(
            Column(header="eps (nats)"),
            Column(header="P(1) under beta", evidence=Evidence.EXACT),
            Column(header="KL(pi||beta)", evidence=Evidence.EXACT),
            Column(header="KL(tau||beta)", evidence=Evidence.EXACT),
            Column(header="both <= eps", evidence=Evidence.EXACT),
            Column(header="KL(pi||tau)", evidence=Evidence.EXACT),
        ),
        rows=tuple(rows),
        note="Compared with eps as exact sums of logarithms. Proved for all eps in proofs_check.",
    )


def _census_table(cases: Sequence[Case], options: Proposition1Options) -> DemoTable:
    rows: list[tuple[Any, ...]] = []
    for k in CENSUS_TIMES:
        here = [c for c in cases if c.n_steps == k]
        rows.append(
            (
                k,
                len(here),
                *(sum(c.verdict is verdict for c in here) for verdict in Verdict),
                f"{prior_share(here, Verdict.INFINITE):.2%}",
                float(np.median([c.tau_to_xi_nats for c in here])),
            )
        )
    return DemoTable(
        title="In nature: KL(xi||tau) <= KL(xi||xi) + KL(tau||xi) = KL(tau||xi)?",
        columns=(
            Column(header="k"),
            Column(header="cases"),
            *(Column(header=verdict.value, evidence=Evidence.FLOAT) for verdict in Verdict),
            Column(header="by infinity:\nprior share", evidence=Evidence.FLOAT),
            Column(header="median\nKL(tau||xi)", evidence=Evidence.FLOAT),
        ),
        rows=tuple(rows),
        note=(
            f"As tau: every program of at most {options.demonstrator_bits} bits, and every one of "
            f"at most {SOFT_BITS} bits that rules no action out; in every world, one "
            f"demonstration each; xi: every program of at most L = {options.census_bits} "
            f"bits, {HORIZON} steps. Prior share: demonstrators weighed by 2^-len."
        ),
    )


def prior_share(cases: Sequence[Case], verdict: Verdict) -> float:
    """The share of cases with a verdict, demonstrators weighed by `2^-len`."""
    total = math.fsum(2.0**-c.bits for c in cases)
    return math.fsum(2.0**-c.bits for c in cases if c.verdict is verdict) / total


def _novel_table(novel: Sequence[Novel], options: Proposition1Options) -> DemoTable:
    return DemoTable(
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
            Column(header="KL(pi||tau)", evidence=Evidence.FLOAT),
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
        note=(
            f"L = {options.bits} bits, 3 steps. The best policy by the share of steps with a2, "
            "which tau never does. Infinite KL are exact: a zero of tau against a positive number."
        ),
    )


def _findings(cases: Sequence[Case], novel: Sequence[Novel]) -> tuple[str, ...]:
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


def draw(result: DemoResult) -> Figure:
    """The census, and the worlds' own demonstrators against k."""
    figure = new_figure(height_inches=3.5)
    census_axes, novel_axes = figure.subplots(1, 2, width_ratios=(1, 1.1))
    _draw_census(census_axes, result.data["cases"])
    _draw_novel(novel_axes, result.data["novel"])
    return figure


def _draw_census(axes: Axes, cases: Sequence[dict[str, Any]]) -> None:
    """Both directions of KL; infinite ones in a strip above."""
    finite = [c["from"] for c in cases if math.isfinite(c["from"])]
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
        own = [c for c in cases if c["verdict"] is verdict and c["k"] > 0]
        axes.plot(
            [max(c["to"], least) for c in own],
            [min(max(c["from"], least), top) for c in own],
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


DEMO: Final = Demo(name="proposition1", options_type=Proposition1Options, run=compute, draw=draw)

if __name__ == "__main__":
    DEMO.main()
