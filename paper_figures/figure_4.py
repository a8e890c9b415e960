"""Figure 4: how much of an episode is empty responses, by budget and length.

Per run the share of the agent's responses that are empty, episode by episode: its histogram and
its percentiles. Then the mean over runs of every bin and percentile, with Student's interval.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes

from llm_experiment.measures.metrics import BASE_POLICY, SHARE
from llm_experiment.records.reading import Evaluated, Experiment
from mightnt.figure_style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PAGE_INCHES,
    PURPLE,
    VERMILLION,
    new_figure,
)
from mightnt.statistics import MeanOverRuns, mean_over_runs
from paper_figures.artefact import Data, Product
from paper_figures.results import (
    Sources,
    base_is_budget_0,
    base_name,
    label_of,
    shown_budgets,
    shown_rule,
)
from paper_figures.style import draw_band, in_nats, interval_ends, say_runs, stamp, title_panel

N_BINS: Final = 10
PERCENTILES: Final = tuple(range(0, 101, 5))
_EDGES: Final = np.arange(N_BINS + 1) / N_BINS
_LOOKS: Final[tuple[dict[str, Any], ...]] = (
    {"color": BLUE, "marker": "o", "linestyle": "-", "hatch": ""},
    {"color": ORANGE, "marker": "s", "linestyle": "--", "hatch": "////"},
    {"color": GREEN, "marker": "^", "linestyle": ":", "hatch": "...."},
    {"color": VERMILLION, "marker": "D", "linestyle": "-.", "hatch": "xxxx"},
    {"color": PURPLE, "marker": "v", "linestyle": "-", "hatch": "----"},
)
_BASE_LOOK: Final[dict[str, Any]] = {"color": BLACK, "linestyle": (0, (1, 1)), "marker": ""}


@dataclass(frozen=True, kw_only=True)
class Series:
    """The runs of one budget at one length, and what their episodes look like.

    Attributes:
        name: of the series.
        budget_nats: of its agents; nan for the base policy beside agents with a budget of 0.
        n_tokens: length of the episodes.
        trained_at: length that the agents were trained on; None for the base policy.
        runs: one a trained agent.
        bins: share of the episodes in each bin of the histogram.
        percentiles: of the share of empty responses, at `PERCENTILES`.
    """

    name: str
    budget_nats: float
    n_tokens: int
    trained_at: int | None
    runs: tuple[Evaluated, ...]
    bins: tuple[MeanOverRuns, ...]
    percentiles: tuple[MeanOverRuns, ...]


def build(sources: Sources) -> Product:
    """The figure."""
    experiment = sources.experiment()
    behaviour = experiment.behaviour
    budgets = shown_budgets(experiment)
    groups = {budget: series_of(experiment, budget) for budget in budgets}
    base = _base_series(experiment)
    figure = new_figure(PAGE_INCHES, 0.5 + 2.0 * len(budgets))
    grid = figure.subplots(len(budgets), 2, sharex="col", squeeze=False)
    for row, (budget, group) in enumerate(groups.items()):
        left, right = grid[row]
        _draw_histogram(left, group, base)
        _draw_percentiles(right, group, base)
        right.set_ylabel(f"{behaviour.turn} responses (share)")
        title_panel(left, 2 * row, f"budget {in_nats(budget)}: histogram")
        title_panel(right, 2 * row + 1, f"budget {in_nats(budget)}: percentiles")
    grid[-1, 0].set_xlabel(f"{behaviour.turn} responses of an episode (share)")
    grid[-1, 1].set_xlabel("percentile of episodes")
    fullest = max(range(len(budgets)), key=lambda row: len(groups[budgets[row]]))
    grid[fullest, 0].legend(loc="upper center")
    series = [one for group in groups.values() for one in group]
    runs = [run for one in series for run in one.runs]
    stamp(figure, f"{label_of(runs)}; {say_runs(len(one.runs) for one in series)}")
    return Product(
        picture=figure,
        caption=(
            "Figure 4. Share of the agent's responses in an episode that are "
            f"{behaviour.turn}: histograms "
            f"({N_BINS} bins) and percentiles over the episodes of a run, by budget, length of the "
            "episodes and length trained on; mean over runs. Bars and bands: Student's 95% "
            "interval over runs, where there are two or more. "
            f"{shown_rule(runs, behaviour)} Runs: {label_of(runs)}."
        ),
        data=Data(
            columns=(
                "budget (nats)",
                "series",
                "tokens",
                "trained at (tokens)",
                "panel",
                "x",
                "mean over runs",
                "low",
                "high",
                "runs",
            ),
            rows=tuple(
                (
                    one.budget_nats,
                    one.name,
                    one.n_tokens,
                    one.trained_at,
                    panel,
                    x,
                    value.mean,
                    value.low,
                    value.high,
                    len(one.runs),
                )
                for one in (*series, *base)
                for panel, xs, values in (
                    ("histogram", _EDGES[:-1].tolist(), one.bins),
                    ("percentiles", PERCENTILES, one.percentiles),
                )
                for x, value in zip(xs, values, strict=True)
            ),
        ),
    )


def series_of(experiment: Experiment, budget_nats: float) -> tuple[Series, ...]:
    """The series of a budget: each length, and the agents that were trained at another one."""
    main = experiment.select(variant=experiment.main_variant, budget_nats=budget_nats)
    at_home = {run.trained_at for run in main}
    long = [
        run
        for run in experiment.select(budget_nats=budget_nats, as_trained=True)
        if run.variant.startswith("trained at") and run.trained_at not in at_home
    ]
    keys = dict.fromkeys((run.n_tokens, run.trained_at) for run in (*main, *long))
    return tuple(
        _series(
            _name(n_tokens, trained_at),
            [run for run in (*main, *long) if (run.n_tokens, run.trained_at) == key],
            budget_nats=budget_nats,
            trained_at=trained_at,
        )
        for key in keys
        for n_tokens, trained_at in (key,)
    )


def _name(n_tokens: int, trained_at: int) -> str:
    if n_tokens == trained_at:
        return f"{n_tokens} tokens, as trained"
    return f"{n_tokens} tokens, not retrained"


def _base_series(experiment: Experiment) -> tuple[Series, ...]:
    """The base policy at the length that the main agents were trained on, if it was evaluated."""
    lengths = {run.n_tokens for run in experiment.main_runs}
    bases = [base for base in experiment.bases if base.n_tokens in lengths]
    budget = 0.0 if base_is_budget_0(experiment) else math.nan
    return tuple(
        _series(base_name(experiment), [base], budget_nats=budget, trained_at=None)
        for base in bases[:1]
    )


def _series(
    name: str, runs: Sequence[Evaluated], *, budget_nats: float, trained_at: int | None
) -> Series:
    shares = [run.turn_counts().empty_shares for run in runs]
    spoken = [share for share in shares if len(share)]
    # Where no run has a turn there are no numbers, but as many columns of them.
    bins = np.array([np.histogram(s, bins=_EDGES)[0] / len(s) for s in spoken])
    bins = bins.reshape(-1, N_BINS)
    percentiles = np.array([np.percentile(s, PERCENTILES) for s in spoken])
    percentiles = percentiles.reshape(-1, len(PERCENTILES))
    return Series(
        name=name,
        budget_nats=budget_nats,
        n_tokens=runs[0].n_tokens,
        trained_at=trained_at,
        runs=tuple(runs),
        bins=tuple(mean_over_runs(column, within=SHARE) for column in bins.T),
        percentiles=tuple(mean_over_runs(column, within=SHARE) for column in percentiles.T),
    )


def _draw_histogram(axes: Axes, group: tuple[Series, ...], base: tuple[Series, ...]) -> None:
    width = 0.8 / N_BINS / len(group)
    for number, (one, look) in enumerate(zip(group, _LOOKS, strict=False)):
        left = _EDGES[:-1] + 0.1 / N_BINS + number * width
        heights = np.array([value.mean for value in one.bins])
        ends = np.array(interval_ends(one.bins))
        axes.bar(
            left,
            heights,
            width,
            align="edge",
            color=look["color"],
            hatch=look["hatch"],
            edgecolor="white",
            linewidth=0.3,
            label=one.name,
        )
        error = np.where(np.isnan(ends), 0.0, np.abs(ends - heights))
        shown = ~np.isnan(ends[0]) & (heights > 0)
        axes.errorbar(
            (left + width / 2)[shown],
            heights[shown],
            yerr=error[:, shown],
            fmt="none",
            ecolor=BLACK,
            elinewidth=0.7,
        )
    for one in base:
        axes.stairs(
            [value.mean for value in one.bins],
            _EDGES,
            color=BLACK,
            linestyle=_BASE_LOOK["linestyle"],
            label=f"{BASE_POLICY}, {one.n_tokens} tokens",
        )
    axes.set_ylim(0, 1)
    axes.set_ylabel("share of episodes")


def _draw_percentiles(axes: Axes, group: tuple[Series, ...], base: tuple[Series, ...]) -> None:
    for one, look in zip(group, _LOOKS, strict=False):
        style = {key: value for key, value in look.items() if key != "hatch"}
        draw_band(axes, PERCENTILES, one.percentiles, markersize=3.0, **style)
    for one in base:
        draw_band(axes, PERCENTILES, one.percentiles, **_BASE_LOOK)
    axes.set_ylim(-0.03, 1.03)
