"""What demonstrations buy a learner, and where learning and staying near part.

See `toy_world.studies.hybrid` and `toy_world.studies.hybrid_doorbell`.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from mightnt.figure_style import BLACK, BLUE, CYCLE, GREEN, GREY, MARKERS, VERMILLION, new_figure
from mightnt.tables import Column, Evidence, Table, Written
from theory.paper import Statement
from toy_world.demo import Presentation
from toy_world.demo_hybrid import HybridOptions
from toy_world.studies.hybrid import (
    DELTA,
    OTHER_SHARES,
    Band,
    CurvePoint,
    HybridLearning,
    Reach,
    StageFacts,
    StageName,
    hybrid_learning,
)
from toy_world.studies.hybrid_doorbell import (
    ALPHA,
    EPISODES,
    HORIZON,
    Agent,
    DoorbellOutcome,
    Pay,
)

BEST_DATA: Final = 0.0
"""w of demonstrations by the best policy."""


def compute(options: HybridOptions) -> HybridLearning:
    """Learners on four stages, and imitators and learners in the doorbell world."""
    return hybrid_learning(
        n_offline=options.offline,
        n_online=options.online,
        n_runs=options.runs,
        scale=options.scale,
        limit_bits=options.bits,
        n_steps=options.steps,
        ratings=options.ratings,
        rng=options.rng(),
    )


def tables(options: HybridOptions, data: HybridLearning) -> tuple[Table, ...]:
    """What was learnt, how far demonstrations reach, the stages, and the doorbell world."""
    return (
        _curve_table(options, data.curves),
        _reach_table(options, data.reach),
        _stage_table(options, data.stages),
        _doorbell_table(options, data.doorbell),
    )


def _demonstrations(other_share: float | None) -> Written:
    names = {None: "none", 0.0: "w = 0, the best policy", 1.0: "w = 1, all but the best"}
    text = names.get(other_share, f"w = {other_share}")
    return Written(text, {"": text, "other_share": other_share})


def _at(curves: Sequence[CurvePoint], stage: StageName, n_online: int) -> list[CurvePoint]:
    return [each for each in curves if (each.stage, each.n_online) == (stage, n_online)]


def _cell(band: Band) -> Written:
    text = f"{band.mean:.3g} ({band.low:.3g} to {band.high:.3g})"
    return Written(text, {"": band.mean, "low": band.low, "high": band.high})


def _curve_table(options: HybridOptions, curves: Sequence[CurvePoint]) -> Table:
    most = max(each.n_online for each in curves)
    rows = []
    for stage in StageName:
        first, last = (_at(curves, stage, n) for n in (0, most))
        for before, after in zip(first, last, strict=True):
            rows.append(
                (
                    stage.value,
                    _demonstrations(after.other_share),
                    _cell(before.sub_optimality),
                    _cell(after.sub_optimality),
                    after.sub_optimality_rate,
                    _cell(after.regret),
                    after.regret_rate,
                )
            )
    return Table(
        name="learners",
        title="What learners hand over, and what they lose on the way",
        columns=(
            Column(header="stage"),
            Column(header="demonstrations"),
            Column(header="sub-optimality,\noffline alone", evidence=Evidence.MONTE_CARLO),
            Column(header=f"sub-optimality,\nN_1 = {most}", evidence=Evidence.MONTE_CARLO),
            Column(header="its rate", evidence=Evidence.FLOAT, format=".3g"),
            Column(header="regret", evidence=Evidence.MONTE_CARLO),
            Column(header="its rate", key="regret rate", evidence=Evidence.FLOAT, format=".3g"),
        ),
        rows=tuple(rows),
        notes=(
            f"N_0 = {options.offline} episodes of demonstration, where there are any, and N_1 of "
            f"the learner's own. Means of {options.runs} runs with 95% intervals. w: the share of "
            "actions that the best policy does not take. Rates: c/sqrt(N_0/C(pi*|rho) + N_1) and "
            "c N_1/sqrt(N_0/C(pi^-eps|rho) + N_1), c fitted, one for each stage and measure.",
        ),
    )


def _reach_table(options: HybridOptions, reach: Sequence[Reach]) -> Table:
    widest = max(
        (each.bound - each.suboptimal for each in reach if math.isfinite(each.bound)), default=0.0
    )
    return Table(
        name="reach",
        title="How far demonstrations reach",
        columns=(
            Column(header="stage"),
            Column(header="demonstrations"),
            Column(header="C(pi*|rho)", evidence=Evidence.FLOAT, format=".3g"),
            Column(header="C(pi^-eps|rho)", evidence=Evidence.CERTIFIED, format=".3g"),
        ),
        rows=tuple(
            (each.stage.value, _demonstrations(each.other_share), each.optimal, each.suboptimal)
            for each in reach
        ),
        notes=(
            f"eps = 1/sqrt(N_0 + N_1) = {1 / math.sqrt(options.offline + options.online):.3g}. "
            f"Infinite: policies go where the demonstrations never do. Widest gap between a policy "
            f"that was found and the bound on all: {widest:.1e}.",
        ),
    )


def _stage_table(options: HybridOptions, stages: Sequence[StageFacts]) -> Table:
    return Table(
        name="stages",
        title="The stages",
        columns=(
            Column(header="stage"),
            Column(header="S", format=".0f"),
            Column(header="A", format=".0f"),
            Column(header="H", format=".0f"),
            Column(header="V*", evidence=Evidence.CERTIFIED),
            Column(header="c of the\nsub-optimality", evidence=Evidence.FLOAT, format=".3g"),
            Column(header="c of the\nregret", evidence=Evidence.FLOAT, format=".3g"),
            Column(header="not\ncovered", evidence=Evidence.MONTE_CARLO, format=".0f"),
            Column(header="of", evidence=Evidence.EXACT, format=".0f"),
        ),
        rows=tuple(
            (
                each.stage.value,
                each.n_states,
                each.n_actions,
                each.horizon,
                each.value,
                each.sub_optimality_constant,
                each.regret_constant,
                each.n_uncovered,
                each.n_handed_over,
            )
            for each in stages
        ),
        notes=(
            "Not covered: policies handed over whose error exceeded their uncertainty, which is "
            f"{options.scale:g} of the width that is proved (delta = {DELTA:g}). Widest gap of any "
            f"plan to its bound: {max(each.certificate_gap for each in stages):.1e}.",
        ),
    )


def _doorbell_table(options: HybridOptions, found: Sequence[DoorbellOutcome]) -> Table:
    return Table(
        name="doorbell",
        title="The same demonstrations, to stay near and to learn from: the doorbell world",
        columns=(
            Column(header="who acts"),
            Column(header="paid"),
            Column(header="budget\n(nats)", format="g"),
            Column(header="episodes", format=".0f"),
            Column(header="true\nvalue", evidence=Evidence.MONTE_CARLO, format=".3f"),
            Column(header="P(a2)", evidence=Evidence.MONTE_CARLO, format=".3g"),
            Column(header="P(a2),\nnovel", evidence=Evidence.MONTE_CARLO, format=".3g"),
            Column(header="a2 done\nin all", evidence=Evidence.MONTE_CARLO, format=".4g"),
            Column(header="true\nregret", evidence=Evidence.MONTE_CARLO, format=".4g"),
        ),
        rows=tuple(
            (
                each.agent.value,
                None if each.pay is None else each.pay.value,
                each.budget_nats,
                each.n_episodes,
                each.true_value,
                each.bad_probability,
                each.novel_bad_probability,
                each.n_bad,
                each.regret,
            )
            for each in found
        ),
        notes=(
            f"After at most {options.steps} steps of demonstration, episodes of {HORIZON} steps. "
            "a2: what the demonstrator never does; the flawed reward pays 1 for it, the true one "
            "nothing. True value: mean true pay of a step by the last policy, at most 1/2. Novel: "
            "from just after a second bell, which never came before. Regret: in true pay a step, "
            "summed over the episodes.",
            f"Imitator: every policy program of at most {options.bits} bits; pessimistic: its top "
            f"set at alpha = {ALPHA}, which asks the demonstrator. Its numbers and those of agents "
            f"that do not learn are exact but for rounding; learners: means of {options.runs} "
            f"runs, uncertainties scaled by {options.scale:g}.",
        ),
    )


def findings(options: HybridOptions, data: HybridLearning) -> tuple[str, ...]:
    """Which demonstrations help which aim, and where learning and staying near part."""
    most = max(each.n_online for each in data.curves)
    handed, lost = [], []
    for stage in StageName:
        offline = [e for e in _at(data.curves, stage, 0) if e.other_share is not None]
        online = _at(data.curves, stage, most)
        least_gap = min(offline, key=lambda e: e.sub_optimality.mean)
        least_regret = min(online, key=lambda e: e.regret.mean)
        best_data = next(e for e in online if e.other_share == BEST_DATA)
        alone = next(e for e in online if e.other_share is None)
        handed.append(
            f"{stage.value}: w = {least_gap.other_share:g} ({least_gap.sub_optimality.mean:.2g})"
        )
        lost.append(
            f"{stage.value}: {str(_demonstrations(least_regret.other_share)).split(',')[0]} "
            f"({least_regret.regret.mean:.3g}; w = 0: {best_data.regret.mean:.3g}, none: "
            f"{alone.regret.mean:.3g})"
        )
    return (
        "Which demonstrations leave the least sub-optimality, without an episode of its own: "
        f"{', '.join(handed)}.",
        f"Which leave the least regret over {most} episodes: {', '.join(lost)}. Demonstrations of "
        "the best policy say nothing of what else there is, and optimism goes and looks.",
        _fit(data.curves, most),
        *_parting(data.doorbell),
    )


def _fit(curves: Sequence[CurvePoint], n_online: int) -> str:
    """How near the fitted rates are to what was measured in the end."""
    last = [each for each in curves if each.n_online == n_online]
    handed = [each.sub_optimality.mean / each.sub_optimality_rate for each in last]
    lost = [each.regret.mean / each.regret_rate for each in last]
    return (
        "With one constant fitted to each stage and measure, what is handed over in the end is "
        f"{min(handed):.2g} to {max(handed):.2g} of its rate, and regret {min(lost):.2g} to "
        f"{max(lost):.2g}: rates are of the worst process, and in these, once the best policy has "
        "been found, the gap closes faster."
    )


def _parting(found: Sequence[DoorbellOutcome]) -> tuple[str, ...]:
    def hybrid(pay: Pay) -> list[DoorbellOutcome]:
        return [e for e in found if (e.agent, e.pay) == (Agent.HYBRID, pay)]

    imitators = [e for e in found if (e.agent, e.pay) == (Agent.BAYESIAN, Pay.FLAWED)]
    pessimists = [e for e in found if e.agent in (Agent.PESSIMISTIC, Agent.PESSIMIST)]
    true, flawed = (hybrid(pay)[-1] for pay in Pay)
    parted = [e.n_episodes for e in hybrid(Pay.FLAWED) if e.bad_probability > 1 / 2]
    return (
        "Doorbell: demonstrations cannot tell the flawed reward from the true one. Paid the true "
        f"one, a hybrid learner comes to {true.true_value:.3f} a step (the demonstrator: "
        f"{found[0].true_value:.3f}), and does what the demonstrator never does {true.n_bad:.1f} "
        "times to find out. Paid the flawed one it hands over a policy that does it with "
        f"probability {flawed.bad_probability:.2f}"
        + (f"; from {parted[0]} of its own episodes on more often than not." if parted else "."),
        f"Near the Bayesian imitator, paid the flawed reward, {imitators[-1].budget_nats:g} nats "
        f"buy it with probability {imitators[-1].bad_probability:.2f} an episode, "
        f"{imitators[-1].novel_bad_probability:.2f} after the novelty. Who stays with what "
        "demonstrations support (the pessimistic imitator, the pessimist) does it with probability "
        f"{max(max(e.bad_probability, e.novel_bad_probability) for e in pessimists):g} at every "
        f"budget, at {max(e.true_value for e in pessimists):.3f} a step.",
    )


def draw(options: HybridOptions, data: HybridLearning) -> Figure:
    """Sub-optimality and regret on every stage, and the parting in the doorbell world."""
    del options
    figure = new_figure(height_inches=6.4)
    panels = figure.subplots(3, 4, height_ratios=(1, 1, 1.15))
    for axes, stage in zip(panels[0], StageName, strict=True):
        _draw_gaps(axes, [e for e in data.curves if e.stage is stage])
        axes.set_title(stage.value)
    for axes, stage in zip(panels[1], StageName, strict=True):
        _draw_regrets(axes, [e for e in data.curves if e.stage is stage])
    panels[0, 0].set_ylabel("sub-optimality (dotted: rate)")
    panels[1, 0].set_ylabel("regret (dotted: rate)")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    grid = panels[2, 0].get_gridspec()
    for axes in panels[2]:
        axes.remove()
    _draw_value(figure.add_subplot(grid[2, :2]), data.doorbell)
    _draw_never(figure.add_subplot(grid[2, 2:]), data.doorbell)
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def _styles() -> list[tuple[float | None, str, str]]:
    """w, colour and marker of each learner."""
    learners = (None, *OTHER_SHARES)
    return list(zip(learners, (BLACK, *CYCLE), MARKERS, strict=False))


def _draw_gaps(axes: Axes, curves: Sequence[CurvePoint]) -> None:
    for share, colour, marker in _styles():
        own = [each for each in curves if each.other_share == share]
        label = "no data" if share is None else f"w = {share:g}"
        bands, rates = zip(*((e.sub_optimality, e.sub_optimality_rate) for e in own), strict=True)
        _draw_bands(axes, own, bands, label=label, colour=colour, marker=marker)
        _draw_rates(axes, own, rates, colour=colour)
    axes.set_xscale("symlog", linthresh=4)
    axes.set_xticks([0, 10, 100], ["0", "10", "100"])
    axes.set_yscale("log")
    axes.yaxis.set_minor_formatter(NullFormatter())
    positive = [each.sub_optimality.mean for each in curves if each.sub_optimality.mean > 0]
    # A gap of 0 leaves the panel at its foot.
    axes.set_ylim(0.5 * min(positive), 2 * max(positive))


def _draw_regrets(axes: Axes, curves: Sequence[CurvePoint]) -> None:
    for share, colour, marker in _styles():
        own = [each for each in curves if each.other_share == share]
        label = "no data" if share is None else f"w = {share:g}"
        bands, rates = zip(*((each.regret, each.regret_rate) for each in own), strict=True)
        _draw_bands(axes, own, bands, label=label, colour=colour, marker=marker)
        _draw_rates(axes, own, rates, colour=colour)
    axes.set_xlabel("N₁, own episodes")
    axes.set_ylim(0, None)


def _draw_bands(
    axes: Axes,
    points: Sequence[CurvePoint],
    bands: Sequence[Band],
    *,
    label: str,
    colour: str,
    marker: str,
) -> None:
    times = [each.n_online for each in points]
    means, lows, highs = zip(*((each.mean, each.low, each.high) for each in bands), strict=True)
    axes.plot(times, means, color=colour, marker=marker, markersize=3, label=label)
    axes.fill_between(times, lows, highs, color=colour, alpha=0.2, linewidth=0)


def _draw_rates(
    axes: Axes, points: Sequence[CurvePoint], rates: Sequence[float], *, colour: str
) -> None:
    times = [each.n_online for each in points]
    axes.plot(times, rates, color=colour, linestyle=":", linewidth=0.8)


def _draw_value(axes: Axes, found: Sequence[DoorbellOutcome]) -> None:
    _draw_doorbell(axes, found, "true_value")
    axes.axhline(found[0].true_value, color=GREY, linestyle="-.", label="demonstrator")
    axes.set_ylabel("true value of a step")
    axes.set_title("Doorbell: learning finds what pays...")
    axes.legend(loc="center right", bbox_to_anchor=(1, 0.57), fontsize=6.5)


def _draw_never(axes: Axes, found: Sequence[DoorbellOutcome]) -> None:
    _draw_doorbell(axes, found, "bad_probability")
    axes.set_ylabel("P(a2) in an episode")
    axes.set_title("...also where it should not")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 0.45), fontsize=6.5)


def _draw_doorbell(axes: Axes, found: Sequence[DoorbellOutcome], measure: str) -> None:
    for pay, colour, marker in ((Pay.TRUE, GREEN, "o"), (Pay.FLAWED, VERMILLION, "s")):
        own = [e for e in found if (e.agent, e.pay) == (Agent.HYBRID, pay)]
        axes.plot(
            [each.n_episodes for each in own],
            [getattr(each, measure) for each in own],
            color=colour,
            marker=marker,
            label=f"hybrid, {pay.value} reward",
        )
    dearest = [e for e in found if (e.agent, e.pay) == (Agent.BAYESIAN, Pay.FLAWED)][-1]
    axes.axhline(
        getattr(dearest, measure),
        color=BLUE,
        linestyle="--",
        label=f"imitator, {dearest.budget_nats:g} nats, flawed",
    )
    (pessimist,) = (e for e in found if (e.agent, e.pay) == (Agent.PESSIMIST, Pay.FLAWED))
    axes.axhline(getattr(pessimist, measure), color=BLACK, linestyle=":", label="pessimist, flawed")
    axes.set_xscale("log", base=2)
    axes.set_xticks(np.array(EPISODES[::2]), [str(n) for n in EPISODES[::2]])
    axes.set_xlabel("N₁, own episodes")


PRESENTATION: Final = Presentation(
    name="hybrid",
    statements=(Statement.HYBRID_UNCERTAINTY, Statement.HYBRID_LOWER_BOUNDS),
    options_type=HybridOptions,
    data_type=HybridLearning,
    compute=compute,
    tables=tables,
    findings=findings,
    draw=draw,
)
