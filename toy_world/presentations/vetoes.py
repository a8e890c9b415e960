"""What event vetoes allow, ask for and leave.

See `toy_world.studies.vetoes`.
"""

import math
from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mightnt.figure_style import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILLION, new_figure
from mightnt.tables import Column, Evidence, Table, as_fraction
from theory.paper import Statement
from toy_world.demo import Presentation
from toy_world.demo_vetoes import VetoesOptions
from toy_world.studies.vetoes import (
    AUDIT_ALPHA,
    BUDGETS_NATS,
    PESSIMIST_ALPHA,
    EventLeft,
    FalseVetoes,
    Filling,
    FillingOutcome,
    HelpAt,
    Imitator,
    Vetoes,
    VetoOutcome,
    vetoes,
)

SHOWN_BUDGETS_NATS: Final = (1.0, 4.0, 8.0, math.inf)
SHOWN_TIMES: Final = (0, 1, 2, 4, 8, 16, 32, 50, 64, 100, 127)
N_TIGHTEST: Final = 5
SAFE: Final = (Imitator.PESSIMISTIC, Imitator.HARD)
"""Near these the never-done action is impossible, after however short a demonstration."""


def compute(options: VetoesOptions) -> Vetoes:
    """Agents, help, false vetoes, and what is left."""
    return vetoes(
        world=options.world,
        limit_bits=options.bits,
        event_bits=options.event_bits,
        n_steps=options.steps,
        n_runs=options.runs,
        blur=options.blur,
        rng=options.rng(),
    )


def tables(options: VetoesOptions, data: Vetoes) -> tuple[Table, ...]:
    """Agents, who helps, help over time, false vetoes, audits, and what is left."""
    return (
        _outcome_table(options, data.outcomes),
        _filling_table(options, data.fillings),
        _help_table(options, data.help_over_time),
        _false_table(options, data),
        _audit_table(options, data),
        _left_table(options, data.left),
    )


def _probability_column(budget_nats: float) -> Column:
    unit = "nat" if budget_nats == 1 else "nats"
    within = "no limit" if math.isinf(budget_nats) else f"{budget_nats:g} {unit}"
    header = f"P(a2),\n{within}"
    return Column(header=header, evidence=Evidence.CERTIFIED, format=".3g")


def _outcome_table(options: VetoesOptions, found: Sequence[VetoOutcome]) -> Table:
    rows = []
    for world, k, imitator in dict.fromkeys((o.world, o.n_steps, o.imitator) for o in found):
        own = {
            o.budget_nats: o
            for o in found
            if (o.world, o.n_steps, o.imitator) == (world, k, imitator)
        }
        rows.append(
            (
                world.value,
                k,
                imitator.value,
                own[0.0].missing_mass,
                *(own[budget].never_probability for budget in SHOWN_BUDGETS_NATS),
            )
        )
    widest = max(o.bound - o.never_probability for o in found)
    return Table(
        name="who",
        title="Who does what the demonstrator never does (vetoes and top sets: from its actions "
        "alone)",
        columns=(
            Column(header="world"),
            Column(header="k", format=".0f"),
            Column(header="imitator"),
            Column(header="missing\nmass", evidence=Evidence.FLOAT, format=".3g"),
            *map(_probability_column, SHOWN_BUDGETS_NATS),
        ),
        rows=tuple(rows),
        notes=(
            "After k steps of demonstration and the world's novelty, the best plan of 3 steps for "
            "an agent that is paid for a2 and may ask the demonstrator. Imitator: every policy "
            f"program of at most {options.bits} bits; blurred: {options.blur:g} of the uniform law "
            f"in it. Audit: alpha = {AUDIT_ALPHA}; hard: alpha = 2^-{options.event_bits}; "
            f"pessimistic: alpha = {PESSIMIST_ALPHA}. A P of 0 is exact. Widest duality gap: "
            f"{widest:.1e}.",
        ),
    )


def _filling_table(options: VetoesOptions, found: Sequence[FillingOutcome]) -> Table:
    return Table(
        name="filling",
        title=f"Who receives help decides: hard vetoes, {options.world.value}, k = {options.steps}",
        columns=(
            Column(header="what the vetoes leave out"),
            *map(_probability_column, SHOWN_BUDGETS_NATS),
        ),
        rows=tuple(
            (
                filling.value,
                *(
                    o.never_probability
                    for budget in SHOWN_BUDGETS_NATS
                    for o in found
                    if (o.filling, o.budget_nats) == (filling, budget)
                ),
            )
            for filling in Filling
        ),
        notes=("Of the same agent, which is paid for a2, within the same budgets.",),
    )


def _help_table(options: VetoesOptions, found: Sequence[HelpAt]) -> Table:
    return Table(
        name="help",
        title=f"Help while the demonstrator is watched, {options.world.value}",
        columns=(
            Column(header="k", format=".0f"),
            Column(header="pessimistic:\nmissing", evidence=Evidence.MONTE_CARLO, format=".3g"),
            Column(header="hard:\nmissing", evidence=Evidence.MONTE_CARLO, format=".3g"),
            Column(header="of it tau's", evidence=Evidence.MONTE_CARLO, format=".3g"),
            Column(header="classes\nvetoed", evidence=Evidence.MONTE_CARLO, format=".1f"),
        ),
        rows=tuple(
            (each.n_steps, each.pessimistic, each.hard, each.blocked, each.n_vetoed)
            for each in found
            if each.n_steps in SHOWN_TIMES
        ),
        notes=(
            f"Means over {options.runs} demonstrations. Of it tau's: the probability of what the "
            "demonstrator does next and the vetoes block.",
        ),
    )


def _false_table(options: VetoesOptions, data: Vetoes) -> Table:
    return Table(
        name="false_vetoes",
        title=f"Events ever falsely vetoed within {options.steps} steps, {options.world.value}",
        columns=(
            Column(header="alpha"),
            Column(header="mean", evidence=Evidence.MONTE_CARLO, format=".2f"),
            Column(header="most", evidence=Evidence.MONTE_CARLO, format=".0f"),
            Column(header="bound, if its\nrates were right", evidence=Evidence.EXACT),
            Column(header="bound for the\nBayesian imitator", evidence=Evidence.EXACT),
        ),
        rows=tuple(
            (as_fraction(each.alpha), each.n_false, each.most, each.bound, each.bound_over_weight)
            for each in data.false_vetoes
        ),
        notes=(
            f"Of {data.n_events} events of at most {options.event_bits} bits, those that the "
            "demonstrator might have done at some visit. Bounds: (1/alpha - 1) sum s/(1-s), and "
            f"that over w(tau) >= {data.weight_bound:.3g}. Means over {options.runs} "
            "demonstrations.",
        ),
    )


def _audit_table(options: VetoesOptions, data: Vetoes) -> Table:
    return Table(
        name="audit",
        title=f"What the audit doubts most, {options.world.value} (alpha = {AUDIT_ALPHA})",
        columns=(
            Column(header="imitator"),
            Column(header="k", format=".0f"),
            Column(header="classes\nvetoed", evidence=Evidence.FLOAT, format=".0f"),
            Column(header="-ln m_E\n(nats)", evidence=Evidence.FLOAT, format=".3f"),
            Column(header="C\n(nats)", evidence=Evidence.FLOAT, format=".3f"),
            Column(header="event E"),
        ),
        rows=tuple(
            (
                _name(each.blurred),
                each.n_steps,
                each.n_vetoed,
                each.greatest_doubt_nats,
                each.needed_nats,
                each.event,
            )
            for each in data.audits
        ),
        notes=(
            "E is vetoed iff it never occurred and -ln m_E >= C = ln((1-s)/s) + "
            "ln(alpha/(1-alpha)). For the Bayesian imitator -ln m_E of a never-event is, in the "
            "mean over demonstrations, at most ln 1/w(tau) = "
            f"{-math.log(data.weight_bound):.3f} nats.",
        ),
    )


def _left_table(options: VetoesOptions, left: Sequence[EventLeft]) -> Table:
    shown = []
    for is_blurred in (False, True):
        own = [each for each in left if each.blurred is is_blurred]
        shown += sorted(own, key=_margin)[:N_TIGHTEST]
    return Table(
        name="left",
        title=f"Never-events that the audit leaves, {options.world.value}, k = {options.steps}: "
        "the nearest to their bound",
        columns=(
            Column(header="imitator"),
            Column(header="event E"),
            Column(header="bits", format=".0f"),
            Column(header="n_E", format=".0f"),
            Column(header="lambda_E", evidence=Evidence.FLOAT, format=".3g"),
            Column(header="mean price\n(nats)", evidence=Evidence.FLOAT, format=".3f"),
            Column(header="> ln n_E\n- ln C", evidence=Evidence.FLOAT, format=".3f"),
            Column(header="cheapest\nvisit", evidence=Evidence.FLOAT, format=".3f"),
        ),
        rows=tuple(
            (
                _name(each.blurred),
                each.event,
                each.bits,
                each.visits,
                each.expected,
                each.mean_price_nats,
                each.bound_nats,
                each.least_price_nats,
            )
            for each in shown
        ),
        notes=("The bound is for the mean over visits; of the cheapest visit it says nothing.",),
    )


def _name(is_blurred: bool) -> str:
    imitator = Imitator.BLURRED if is_blurred else Imitator.BAYESIAN
    return str(imitator.value)


def _margin(each: EventLeft) -> float:
    return each.mean_price_nats - each.bound_nats


def findings(options: VetoesOptions, data: Vetoes) -> tuple[str, ...]:
    """What is impossible near which imitator, who must help, and the bounds."""
    last = [o for o in data.outcomes if o.n_steps == options.steps]
    at_8 = {
        imitator: [
            o.never_probability for o in last if (o.imitator, o.budget_nats) == (imitator, 8.0)
        ]
        for imitator in Imitator
    }
    safe = [o.never_probability for o in data.outcomes if o.imitator in SAFE]
    missing = {
        imitator: [o.missing_mass for o in last if o.imitator is imitator] for imitator in SAFE
    }
    audited = [o.never_probability for o in last if o.imitator is Imitator.BLURRED_AUDITED]
    by_filling = {o.filling: o.never_probability for o in data.fillings if o.budget_nats == 8.0}
    plain, blurry = (
        next(a for a in reversed(data.audits) if a.blurred is is_blurred)
        for is_blurred in (False, True)
    )
    hard = [each.hard for each in data.help_over_time]
    half = len(hard) // 2
    often = [str(k) for k, asked in enumerate(hard) if k >= half and asked > 0.5]
    worst = max(data.false_vetoes, key=lambda each: each.n_false / each.bound)
    tightest = min(data.left, key=_margin)
    n_cheaper = sum(each.least_price_nats < each.bound_nats for each in data.left)
    return (
        f"An agent is paid for a2, which the demonstrator never does. Within 8 nats it does it "
        f"with probability {_range(at_8[Imitator.BAYESIAN])} near the Bayesian imitator in the "
        f"four worlds. Near the hard vetoes and near the pessimistic imitator that is "
        f"{_at_most(safe)} at every budget, without limit too, after {_times(data)} steps. In the "
        f"novel situation the vetoes leave {_range([1 - m for m in missing[Imitator.HARD]])} of "
        f"the imitator, pessimism {_range([1 - m for m in missing[Imitator.PESSIMISTIC]])}.",
        f"The audit of the Bayesian imitator changes little ({_range(at_8[Imitator.AUDITED])}): "
        f"such an imitator is never badly wrong. Its greatest -ln m_E is "
        f"{plain.greatest_doubt_nats:.2f} nats, where ln 1/w(tau) is "
        f"{-math.log(data.weight_bound):.2f}. The blurred one never learns "
        f"({_range(at_8[Imitator.BLURRED])}); audited after {blurry.n_steps} steps it allows a2 "
        f"with a probability of {_at_most(audited)} at every budget.",
        f"Who receives help decides. At 8 nats: {by_filling[Filling.ASK]:.3g} where the "
        f"demonstrator is asked, {by_filling[Filling.DEMONSTRATOR]:.3g} where its law fills the "
        f"gap, {by_filling[Filling.BASE]:.3g} where the imitator's law does, "
        f"{by_filling[Filling.FALLBACK]:.3g} where the imitator acts if nothing is left.",
        f"The hard vetoes ask in {sum(hard[:half]) / half:.1%} of the first {half} steps and in "
        f"{sum(hard[half:]) / len(hard[half:]):.1%} of the next {len(hard[half:])}"
        + (f", most often at k = {', '.join(often)}" if often else "")
        + ": a clock that reaches a simple number is new (Proposition 2).",
        f"False vetoes are at most {worst.n_false / worst.bound:.0%} of the bound for an imitator "
        f"with the demonstrator's rates (alpha = {worst.alpha}: {worst.n_false:.2f} of "
        f"{data.n_events} events against {worst.bound:.2f}).",
        f"Each of {len(data.left)} never-events that the audit leaves has a mean price above "
        f"ln n - ln C, by {_margin(tightest):.2f} nats and more ({tightest.event}). At its "
        f"cheapest visit {n_cheaper} of them cost less than that.",
    )


def _at_most(probabilities: Sequence[float]) -> str:
    return f"at most {max(probabilities):.2g}" if max(probabilities) else "exactly 0"


def _range(probabilities: Sequence[float]) -> str:
    low, high = f"{min(probabilities):.2f}", f"{max(probabilities):.2f}"
    return low if low == high else f"{low} to {high}"


def _times(data: Vetoes) -> str:
    times = sorted({o.n_steps for o in data.outcomes})
    return f"{', '.join(map(str, times[:-1]))} and {times[-1]}" if times[1:] else str(times[0])


def draw(options: VetoesOptions, data: Vetoes) -> Figure:
    """Who does it, help over time, false vetoes, and the price of what is left."""
    figure = new_figure(height_inches=5.6)
    (who, asked), (false, left) = figure.subplots(2, 2)
    _draw_outcomes(who, options, data.outcomes)
    _draw_help(asked, data.help_over_time)
    _draw_false(false, data.false_vetoes)
    _draw_left(left, data.left)
    return figure


def _draw_outcomes(axes: Axes, options: VetoesOptions, found: Sequence[VetoOutcome]) -> None:
    finite = [budget for budget in BUDGETS_NATS if math.isfinite(budget)]
    for imitator, label, style in (
        (Imitator.BLURRED, "blurred", {"color": VERMILLION, "marker": "s"}),
        (Imitator.BAYESIAN, "Bayesian", {"color": BLUE, "marker": "o"}),
        (
            Imitator.AUDITED,
            "Bayesian, audited",
            {"color": ORANGE, "linestyle": "--", "marker": "x"},
        ),
        (
            Imitator.BLURRED_AUDITED,
            "blurred, audited",
            {"color": GREEN, "linewidth": 4.0, "alpha": 0.6},
        ),
        (
            Imitator.HARD,
            "hard vetoes; pessimistic",
            {"color": BLACK, "linestyle": "--", "linewidth": 1.6},
        ),
    ):
        own = {
            o.budget_nats: o.never_probability
            for o in found
            if (o.world, o.n_steps, o.imitator) == (options.world, options.steps, imitator)
        }
        axes.plot(finite, [own[budget] for budget in finite], label=label, **style)
    axes.set_ylim(-0.05, 1.05)
    axes.set_xlabel("budget, nats of KL to the imitator")
    axes.set_ylabel("P(the never-done action)")
    axes.set_title("(a) What the vetoes rule out is impossible...")
    axes.legend(loc="center right", bbox_to_anchor=(1.0, 0.42))


def _draw_help(axes: Axes, found: Sequence[HelpAt]) -> None:
    times = [each.n_steps + 1 for each in found]
    axes.plot(
        times,
        [each.hard for each in found],
        color=BLACK,
        marker=".",
        markersize=3.0,
        linewidth=0.9,
        label="hard vetoes",
    )
    axes.plot(
        times,
        [each.pessimistic for each in found],
        color=GREEN,
        linestyle="--",
        label="pessimistic",
    )
    axes.set_xscale("log")
    axes.set_ylim(-0.05, 1.05)
    axes.set_xlabel("k + 1, the step of the demonstration")
    axes.set_ylabel("probability of asking")
    axes.set_title("(b) ...at the price of help, less and less often")
    axes.legend(loc="lower left")


def _draw_false(axes: Axes, found: Sequence[FalseVetoes]) -> None:
    alphas = [float(each.alpha) for each in found]
    axes.plot(
        alphas, [each.bound for each in found], color=GREY, label="bound, (1/α − 1) Σ s/(1−s)"
    )
    seen = [each for each in found if each.n_false]
    axes.plot(
        [float(each.alpha) for each in seen],
        [each.n_false for each in seen],
        color=BLUE,
        marker="o",
        label="counted, mean",
    )
    none = [float(each.alpha) for each in found if not each.n_false]
    axes.axvline(float(AUDIT_ALPHA), color=ORANGE, linestyle=":", label="audit")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.invert_xaxis()
    low = axes.get_ylim()[0]
    axes.plot(
        none,
        [low] * len(none),
        color=BLUE,
        marker="o",
        fillstyle="none",
        linestyle="",
        clip_on=False,
        label="none",
    )
    axes.set_xlabel("α (more vetoes to the right)")
    axes.set_ylabel("events ever falsely vetoed")
    axes.set_title("(c) An audit makes hardly any false vetoes;")
    axes.legend(loc="upper left")


def _draw_left(axes: Axes, found: Sequence[EventLeft]) -> None:
    for is_blurred, color, marker in ((False, BLUE, "o"), (True, VERMILLION, "s")):
        own = [each for each in found if each.blurred is is_blurred]
        over_most = [math.exp(each.bound_nats) for each in own]
        axes.plot(
            over_most,
            [each.mean_price_nats for each in own],
            color=color,
            marker=marker,
            linestyle="",
            fillstyle="none",
            label=f"{_name(is_blurred)}: mean over visits",
        )
        axes.plot(
            over_most,
            [each.least_price_nats for each in own],
            color=color,
            marker="_",
            linestyle="",
            label="its cheapest visit",
        )
    ends = [bound(each.bound_nats for each in found) for bound in (min, max)]
    # ln against a logarithmic axis: a straight line through both ends.
    axes.plot([math.exp(end) for end in ends], ends, color=GREY, label="bound, ln(n/C)")
    axes.set_xscale("log")
    axes.set_ylim(-1.2, 26.0)
    axes.set_xlabel("n/C, after n visits of its condition")
    axes.set_ylabel("price of the event, nats")
    axes.set_title("(d) what it leaves is dear in the mean")
    axes.legend(loc="upper left")


PRESENTATION: Final = Presentation(
    name="vetoes",
    statements=(Statement.EVENT_VETOES, Statement.PESSIMISTIC_IMITATOR),
    options_type=VetoesOptions,
    data_type=Vetoes,
    compute=compute,
    tables=tables,
    findings=findings,
    draw=draw,
)
