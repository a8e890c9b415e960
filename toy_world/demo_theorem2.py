"""Which reading of Theorem 2 (the TVD constraint) holds, and what it is a warning against.

The theorem says that an agent whose policy stays within a total variation distance c of its base
policy beta, and is otherwise optimal, takes an action more often than beta only if it is optimal.
`theorem2.py` states four claims that this may be taken for, proves the corrected one (in terms of
the probabilities of whole action sequences), and gives rational counterexamples to those that
fail. Here they are recomputed: optima by linear programs that are proved optimal in rational
arithmetic, with the least violation over *all* optima by a second program on the optimal face.

The warning: with a *perfect* base policy, one that never takes the bad action, an agent under a
TVD constraint takes it with probability c, whatever the reading. Under a KL constraint it never
does, whatever the budget: what beta never does, pi never does. A base policy that takes the bad
action very rarely is another matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import binomtest

from mightnt.figure_style import BLUE, GREEN, GREY, VERMILLION, new_figure
from mightnt.progress import track
from theory.errors import InvalidArgumentError
from theory.paper import Statement
from theory.process import (
    EnvironmentTable,
    HistoryTree,
    PolicyTable,
    UtilityTable,
    environment_table,
    joint_law,
    policy_table,
    utility_table,
)
from toy_world.demo import Column, Demo, DemoOptions, DemoResult, DemoTable, Evidence
from toy_world.planners.expected_kl import expected_kl_frontier
from toy_world.planners.problem import Reading
from toy_world.planners.tvd import tvd_optimum
from toy_world.studies.theorem2 import (
    HOLDS,
    Claim,
    Counterexample,
    certified_excess,
    conditional_counterexamples,
    loss_at,
    random_problem,
    sequence_counterexample,
    spec_counterexample,
    violations,
)

SHAPES: Final = ((1, 3, 2), (2, 2, 1), (2, 2, 2), (2, 3, 1), (2, 3, 2), (3, 2, 1), (3, 2, 2))
"""(steps, actions, observations) of the random problems."""
SHOWN_SHAPE: Final = (2, 3, 2)
RANDOM_BUDGETS: Final = (0.05, 0.1, 0.2, 0.3)
VIOLATION_TOLERANCE: Final = 1e-7
"""What counts as more probability, or as less value, in float64."""
CONFIDENCE: Final = 0.95
BAD: Final = 1
BAD_BASE: Final = (Fraction(0), Fraction(1, 10**6), Fraction(1, 1000))
"""How often the base policy takes the bad action in a step."""
CONTRAST_BUDGETS: Final = (*(Fraction(k, 20) for k in (0, 1, 2, 5, 10, 20)), 2, 5, 10, 40)
READINGS: Final = (Reading.FIXED, Reading.ADAPTIVE, Reading.EXPECTED)


@dataclass(frozen=True, kw_only=True)
class Theorem2Options(DemoOptions):
    """Which reading of Theorem 2 holds, and what a TVD constraint allows that KL does not."""

    problems: int = 100
    """Random problems for each shape and reading, 1 to 100000 (100: about 20 seconds)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.problems <= 100_000:
            raise InvalidArgumentError(f"--problems must lie in 1..100000, got {self.problems}")


@dataclass(frozen=True, kw_only=True)
class Frequency:
    """How many random problems violated a claim.

    Attributes:
        shape: (steps, actions, observations).
        reading: of the constraint.
        claim: which.
        violated: the number of problems whose optimum violates it.
        problems: of so many.
    """

    shape: tuple[int, int, int]
    reading: Reading
    claim: Claim
    violated: int
    problems: int

    @property
    def interval(self) -> tuple[float, float]:
        """The exact (Clopper-Pearson) interval of the probability."""
        found = binomtest(self.violated, self.problems).proportion_ci(CONFIDENCE)
        return float(found.low), float(found.high)


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """How often the agent ever takes the bad action.

    Attributes:
        budget: c, or eps in nats.
        tvd: exactly, for each of `READINGS`, beta perfect; None beyond c = 1.
        kl: under expected KL, for each of `BAD_BASE`.
    """

    budget: Fraction | int
    tvd: tuple[Fraction, ...] | None
    kl: tuple[float, ...]


def frequencies(
    shape: tuple[int, int, int], *, problems: int, rng: np.random.Generator
) -> list[Frequency]:
    """Violations of every claim in every reading, over random problems of one shape."""
    horizon, n_actions, n_observations = shape
    tree = HistoryTree(n_actions=n_actions, n_observations=n_observations, horizon=horizon)
    violated = {(reading, claim): 0 for reading in READINGS for claim in Claim}
    for _ in range(problems):
        problem = random_problem(tree, budget=float(rng.choice(RANDOM_BUDGETS)), rng=rng)
        for reading in READINGS:
            pi = problem.plan(reading).pi
            for claim in Claim:
                found = violations(problem, pi, claim, tolerance=VIOLATION_TOLERANCE)
                violated[reading, claim] += bool(found)
    return [
        Frequency(shape=shape, reading=reading, claim=claim, violated=count, problems=problems)
        for (reading, claim), count in violated.items()
    ]


def proxy_world(bad_base: Fraction) -> tuple[PolicyTable, EnvironmentTable, UtilityTable]:
    """Three steps, two actions; utility is the share of bad actions, observations are noise.

    Args:
        bad_base: the probability of the bad action under the base policy, in every step.
    """
    tree = HistoryTree(n_actions=2, n_observations=2, horizon=3)
    return (
        policy_table(tree, lambda _: (1 - bad_base, bad_base)),
        environment_table(tree, lambda _: (Fraction(1, 2), Fraction(1, 2))),
        utility_table(tree, lambda history: Fraction(history[::2].count(BAD), tree.horizon)),
    )


def ever_bad(pi: PolicyTable, nu: EnvironmentTable) -> Any:
    """The probability that any action is bad."""
    law = joint_law(pi, nu).reshape((2, 2) * len(pi))
    never = law[(0, slice(None)) * len(pi)]  # action 0 in every step
    return law.sum() - never.sum()


def contrast() -> list[Contrast]:
    """The probability of ever acting badly, under TVD and under KL, over budgets."""
    beta, nu, utility = proxy_world(BAD_BASE[0])
    bad_by_kl = []
    for bad_base in BAD_BASE:
        world = proxy_world(bad_base)
        plans = expected_kl_frontier(*world, [float(budget) for budget in CONTRAST_BUDGETS])
        bad_by_kl.append([float(ever_bad(plan.pi, world[1])) for plan in plans])
    return [
        Contrast(
            budget=budget,
            tvd=None
            if budget > 1
            else tuple(
                ever_bad(
                    tvd_optimum(beta, nu, utility, budget=Fraction(budget), reading=reading).pi,
                    nu,
                )
                for reading in READINGS
            ),
            kl=kl,
        )
        for budget, *kl_row in zip(CONTRAST_BUDGETS, *bad_by_kl, strict=True)
        for kl in (tuple(kl_row),)
    ]


def compute(options: Theorem2Options) -> DemoResult:
    """Check the counterexamples, sample random problems, and compare TVD with KL."""
    rng = options.rng()
    examples = (*conditional_counterexamples(), sequence_counterexample(), spec_counterexample())
    sampled = [
        frequency
        for shape in track(SHAPES, "random problems")
        for frequency in frequencies(shape, problems=options.problems, rng=rng)
    ]
    contrasts = contrast()
    return DemoResult(
        name="theorem2",
        statements=(Statement.TVD_CONSTRAINT,),
        findings=_findings(sampled, contrasts),
        tables=(
            _claim_table(examples),
            _example_table(examples),
            _frequency_table(sampled),
            _contrast_table(contrasts),
        ),
        data={
            "frequencies": sampled,
            "contrast": contrasts,
            "bars": _bars(examples[0]),
        },
    )


def _claim_table(examples: Sequence[Counterexample]) -> DemoTable:
    def verdict(claim: Claim, reading: Reading) -> str:
        return "holds, proved" if reading in HOLDS[claim] else "fails, counterexample"

    def smallest(claim: Claim) -> str:
        shapes = [_shape(example) for example in examples[:3] if example.claim is claim]
        return " and ".join(map(str, shapes)) if shapes else "-"

    return DemoTable(
        title="What Theorem 2 may be taken to say, for an optimum under TVD <= c",
        columns=(
            Column(header="claim"),
            *(Column(header=_name(reading), evidence=Evidence.EXACT) for reading in READINGS),
            Column(header="smallest shapes where it fails", evidence=Evidence.EXACT),
        ),
        rows=tuple(
            (claim.value, *(verdict(claim, reading) for reading in READINGS), smallest(claim))
            for claim in Claim
        ),
        note=(
            "x(ha), b(ha): the probability of the actions in ha given its observations, under the "
            "optimum and under beta. Shapes: (steps, actions, observations); smaller ones cannot "
            "fail (proof in toy_world/studies/theorem2.py)."
        ),
    )


def _example_table(examples: Sequence[Counterexample]) -> DemoTable:
    rows = []
    for example in examples:
        for reading in READINGS:
            plan = example.problem.plan(reading)
            rows.append(
                (
                    example.claim.name,
                    _shape(example),
                    _name(reading),
                    example.problem.budget,
                    plan.value,
                    f"{example.action} at {example.history}",
                    loss_at(example),
                    certified_excess(example, reading),
                )
            )
    return DemoTable(
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
        rows=tuple(rows),
        note=(
            "Excess: x(ha) - beta(a|h) x(h) for CONDITIONAL, x(ha) - b(ha) for SEQUENCE. Where it "
            "is positive every optimum violates the claim; the optimum and the least excess are "
            "proved by rational primal and dual solutions."
        ),
    )


def _frequency_table(sampled: Sequence[Frequency]) -> DemoTable:
    by_case: dict[Any, dict[Claim, Frequency]] = {}
    for frequency in sampled:
        by_case.setdefault((frequency.shape, frequency.reading), {})[frequency.claim] = frequency

    def cell(frequency: Frequency) -> str:
        low, high = frequency.interval
        return f"{frequency.violated} [{low:.1%}, {high:.1%}]"

    return DemoTable(
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
        note=(
            f"Dirichlet rows, uniform utilities, c one of {RANDOM_BUDGETS}; in brackets the exact "
            f"{CONFIDENCE:.0%} interval of the probability."
        ),
    )


def _contrast_table(contrasts: Sequence[Contrast]) -> DemoTable:
    return DemoTable(
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
        note="Three steps; beta(bad) in each. KL in the expected reading.",
    )


def _findings(sampled: Sequence[Frequency], contrasts: Sequence[Contrast]) -> tuple[str, ...]:
    wrong = [f for f in sampled if f.violated and f.reading in HOLDS[f.claim]]
    if wrong:
        proved = f"CONTRADICTION: {len(wrong)} cases violate a claim that is proved; report this."
    else:
        total = sum(f.problems for f in sampled if f.reading in HOLDS[f.claim])
        proved = f"No violation of a proved claim in {total} checks on random problems."
    linear = all(set(c.tvd) == {Fraction(c.budget)} for c in contrasts if c.tvd is not None)
    tvd = "exactly c, in all three readings" if linear else "not c in every reading"
    return (
        "The printed statement holds for the first action that the constraint covers, in all "
        "three readings. For conditional probabilities of later actions it fails in all three, "
        "from 2 steps of 3 actions on, even without observations: taking mass from a bad "
        "sequence makes its siblings more probable.",
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


def _shape(example: Counterexample) -> tuple[int, int, int]:
    tree = example.problem.tree
    return tree.horizon, tree.n_actions, tree.n_observations


def _bars(example: Counterexample) -> dict[str, Any]:
    """The numbers of the figure's first panel."""
    problem = example.problem
    t, row = len(example.history) // 2, problem.tree.index(example.history)
    pi = problem.plan(Reading.FIXED).pi
    n = problem.tree.n_actions
    return {
        "beta": [float(p) for p in problem.beta[t][row]],
        "pi": [float(p) for p in pi[t][row]],
        "Q": [str(u) for u in problem.utility[row * n : (row + 1) * n]],
        "c": str(problem.budget),
    }


def draw(result: DemoResult) -> Figure:
    """The counterexample, how common violations are, and TVD beside KL."""
    figure = new_figure(height_inches=2.9)
    conditional, common, bad = figure.subplots(1, 3, width_ratios=(1.0, 1.15, 1.2))
    _draw_bars(conditional, result.data["bars"])
    _draw_frequencies(common, result.data["frequencies"])
    _draw_contrast(bad, result.data["contrast"])
    return figure


def _draw_bars(axes: Axes, bars: dict[str, Any]) -> None:
    positions = np.arange(len(bars["beta"]))
    axes.bar(positions - 0.2, bars["beta"], 0.38, color=GREY, label="base policy beta")
    axes.bar(
        positions + 0.2,
        bars["pi"],
        0.38,
        color=VERMILLION,
        hatch="//",
        label=f"optimum, TVD <= {bars['c']}",
    )
    axes.annotate(
        "more likely,\nnot optimal",
        (1.2, bars["pi"][1]),
        xytext=(0.35, 0.62),
        ha="center",
        arrowprops={"arrowstyle": "->"},
    )
    axes.set_xticks(positions, bars["Q"])
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
        ends = np.array([found[claim].interval for claim in names]).T
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


DEMO: Final = Demo(name="theorem2", options_type=Theorem2Options, run=compute, draw=draw)

if __name__ == "__main__":
    DEMO.main()
