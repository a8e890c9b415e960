"""Figure 9: the share of silent episodes against the budget, beside the closed form.

An agent that buys silence once, at a context where the base policy is silent with probability p,
reaches with B nats the share q with `KL(Bern q || Bern p) = B`. That predicts, and does not bound.
Where later turns cost something too, the closed form of several purchases is the share of episodes
in which all turns that were priced in a row can be silent (`llm_experiment.measures.closed_form`).
The bound takes for p the base policy's own share of silent episodes: no policy within the budget
can make an event of probability p likelier than q (`theory.bounds.largest_share`).
"""

import math
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes

from llm_experiment.measures.closed_form import ClosedForm, most_silent
from llm_experiment.measures.metrics import METRICS, SHARE
from llm_experiment.measures.tables import over_episodes
from llm_experiment.records.reading import Evaluated, Experiment, grouped
from mightnt.figure_style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PAGE_INCHES,
    VERMILLION,
    new_figure,
)
from mightnt.statistics import MeanOverRuns, mean_over_runs
from paper_figures.artefact import Data, Product
from paper_figures.results import Sources, base_is_budget_0, base_name, label_of
from paper_figures.style import interval_ends, say_runs, stamp, title_panel
from theory.errors import MissingDataError

N_CURVE_POINTS: Final = 81
_OFFSET_NATS: Final = 0.18
"""How far to the right of its group's mean a run's own mark stands."""
_OTHER_LOOKS: Final[tuple[dict[str, Any], ...]] = (
    {"color": VERMILLION, "marker": "s"},
    {"color": GREEN, "marker": "^"},
    {"color": ORANGE, "marker": "D"},
)

Point = tuple[str, float, MeanOverRuns]
"""A variant, its budget in nats, and the share of silent episodes over its runs."""


def build(sources: Sources) -> Product:
    """The figure."""
    experiment = sources.experiment()
    form = experiment.closed_form
    if form is None:
        raise MissingDataError(
            "the closed form needs the base policy's own evaluation, with dialogues long enough "
            "for one silent turn: let the run finish, `python -m llm_experiment.run`"
        )
    panels = {n: silence(experiment, n) for n in experiment.lengths if experiment.base_at(n)}
    if not panels:
        raise MissingDataError("no agent was evaluated at a length at which the base policy was")
    top = max(budget for points in panels.values() for _, budget, _ in points)
    budgets = np.linspace(0.0, max(1.05 * top, 1.0), N_CURVE_POINTS)
    bases = {base.n_tokens: base for base in experiment.bases}
    curves = {
        n: {
            "closed form": [form.share(b) for b in budgets.tolist()],
            "bound": [most_silent(bases[n].row, b) for b in budgets.tolist()],
        }
        for n in panels
    }
    if form.turn_nats:
        in_a_row = [form.sequence_share(b) for b in budgets.tolist()]
        for drawn in curves.values():
            drawn[_in_a_row(form)] = in_a_row
    figure = new_figure(PAGE_INCHES if len(panels) > 1 else 4.2, 3.2)
    axes_row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for number, (n, axes) in enumerate(zip(panels, axes_row, strict=True)):
        axes.plot(budgets, curves[n]["bound"], color=GREY, linestyle="--", label="upper bound")
        axes.plot(budgets, curves[n]["closed form"], color=BLACK, label="closed form")
        if form.turn_nats:
            row = curves[n][_in_a_row(form)]
            axes.plot(budgets, row, color=BLACK, linestyle="-.", label=_in_a_row(form))
        _draw(axes, experiment, panels[n])
        if base_is_budget_0(experiment):
            _draw_base(axes, bases[n])
        own_share = bases[n].numbers.behaviour.silent_share
        axes.axhline(own_share, color=GREY, linestyle=":", label="base policy", zorder=1)
        trained = {run.trained_at for run in experiment.main_runs}
        title_panel(
            axes, number, f"{n} tokens, {'as trained' if n in trained else 'not retrained'}"
        )
        axes.set_xlabel("budget (nats)")
        axes.set_ylim(-0.03, 1.05)
    behaviour = experiment.behaviour
    axes_row[0].set_ylabel(f"{behaviour.episode} episodes (share)")
    figure.legend(
        *axes_row[-1].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=4 if len(panels) > 1 else 2,
    )
    shown = _shown(experiment, panels)
    counts = [len(over.values) for points in panels.values() for _, _, over in points]
    stamp(figure, f"{label_of(shown)}; {say_runs(counts)}")
    return Product(
        picture=figure,
        caption=(
            behaviour.say(
                f"Figure 9. {{Name}} against budget. {METRICS['silent_share'].about} Small marks: "
                "runs; large marks: mean over runs, with Student's 95% interval where there are "
                f"two or more. {form.about}: a prediction for one purchase at one context."
                f"{_say_in_a_row(form)} Upper "
                "bound: the same q for p the upper end of the 95% Clopper-Pearson interval for the "
                "base policy's own share of {episode} episodes; it holds for exact budgets, up to "
                f"the error in p.{_say_base(experiment)} Runs: {label_of(shown)}."
            )
        ),
        data=Data(
            columns=(
                "tokens",
                "series",
                "budget (nats)",
                f"{behaviour.episode} share",
                "low",
                "high",
                "runs",
            ),
            rows=(
                *(
                    (n, variant, budget, over.mean, over.low, over.high, len(over.values))
                    for n, points in panels.items()
                    for variant, budget, over in points
                ),
                *(
                    (n, f"{variant}, one run", budget, value, None, None, 1)
                    for n, points in panels.items()
                    for variant, budget, over in points
                    for value in over.values
                ),
                *(
                    (n, name, budget, share, None, None, None)
                    for n, drawn in curves.items()
                    for name, shares in drawn.items()
                    for budget, share in zip(budgets.tolist(), shares, strict=True)
                ),
                *(_base_row(experiment, bases[n]) for n in panels),
            ),
        ),
    )


def _in_a_row(form: ClosedForm) -> str:
    return f"{len(form.turn_nats)} turns, each bought"


def _say_in_a_row(form: ClosedForm) -> str:
    """What is said of the closed form of several purchases in the caption: a template."""
    if not form.turn_nats:
        return ""
    return (
        f" {_in_a_row(form)}: the share of episodes in which {len(form.turn_nats)} turns in a row "
        f"can be {{turn}}, at their median prices, {sum(form.turn_nats):.2f} nats in all."
    )


def silence(experiment: Experiment, n_tokens: int) -> tuple[Point, ...]:
    """The share of silent episodes of every group of agents with a budget, at one length."""
    chosen = [
        run
        for run in experiment.select(n_tokens=n_tokens)
        if math.isfinite(run.budget_nats) and not run.variant.startswith("trained at")
    ]
    return tuple(
        (
            runs[0].variant,
            runs[0].budget_nats,
            mean_over_runs((run.numbers.behaviour.silent_share for run in runs), within=SHARE),
        )
        for runs in grouped(chosen)
    )


def _base_row(experiment: Experiment, base: Evaluated) -> tuple[Any, ...]:
    """The base policy in the data: at budget 0 with its interval, unless agents stand there."""
    share = base.numbers.behaviour.silent_share
    if not base_is_budget_0(experiment):
        return base.n_tokens, base_name(experiment), None, share, None, None, 1
    over = over_episodes(base.row, "silent_share")
    return base.n_tokens, base_name(experiment), 0.0, share, over.low, over.high, 1


def _say_base(experiment: Experiment) -> str:
    """What is said of the base policy in the caption."""
    if not base_is_budget_0(experiment):
        return ""
    return (
        " At budget 0: the base policy, with the 95% Clopper-Pearson interval over its episodes, "
        "which are independent."
    )


def _shown(experiment: Experiment, panels: dict[int, Any]) -> list[Evaluated]:
    return [run for run in experiment.runs if run.n_tokens in panels]


def _draw(axes: Axes, experiment: Experiment, points: tuple[Point, ...]) -> None:
    variants = dict.fromkeys(variant for variant, _, _ in points)
    others = [variant for variant in variants if variant != experiment.main_variant]
    looks: dict[str, dict[str, Any]] = {experiment.main_variant: {"color": BLUE, "marker": "o"}}
    looks |= dict(zip(others, _OTHER_LOOKS, strict=False))
    for variant in (name for name in looks if name in variants):
        look = looks[variant]
        own = [(budget, over) for name, budget, over in points if name == variant]
        for budget, over in own:
            if len(over.values) == 1:
                continue  # the run is the mean
            axes.plot(
                [budget + _OFFSET_NATS] * len(over.values),
                over.values,
                linestyle="",
                fillstyle="none",
                markersize=2.5,
                markeredgewidth=0.7,
                **look,
            )
        means = np.array([over.mean for _, over in own])
        ends = np.array(interval_ends(over for _, over in own))
        # An interval that is cut at 0 or 1 does not reach equally far to both sides.
        errors = np.where(np.isnan(ends), 0.0, np.abs(ends - means))
        axes.errorbar(
            [budget for budget, _ in own],
            means,
            yerr=errors,
            linestyle="",
            capsize=2.5,
            markersize=5.0,
            label=variant,
            zorder=3,
            **look,
        )


def _draw_base(axes: Axes, base: Evaluated) -> None:
    """The base policy as the agent with a budget of 0; the dotted line is its label."""
    over = over_episodes(base.row, "silent_share")
    ends = [] if over.low is None or over.high is None else [over.low, over.high]
    axes.plot([0.0] * len(ends), ends, color=BLACK, linewidth=1.0, marker="_", markersize=5.0)
    axes.plot([0.0], [over.mean], color=BLACK, marker="X", markersize=5.0, zorder=3)
