"""Figure 3: what the n-th empty response of an episode costs, a panel a budget.

For each run the quartiles, over its episodes that have an n-th empty response, of the KL summed
over the response's tokens; then the mean over runs, with Student's interval as a band.
"""

import math
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes

from llm_experiment.measures.metrics import AMOUNT, METRICS, TurnCost
from llm_experiment.records.reading import EvaluatedAgent
from mightnt.figure_style import BLUE, GREEN, PAGE_INCHES, VERMILLION, new_figure
from mightnt.statistics import MeanOverRuns, mean_over_runs
from paper_figures.artefact import Data, Product
from paper_figures.results import Sources, label_of, shown_rule
from paper_figures.style import draw_band, in_nats, say_runs, stamp, title_panel
from theory.errors import MissingDataError

QUARTILES: Final = ("75%", "50%", "25%")
_COLUMNS: Final = {"25%": 0, "50%": 1, "75%": 2}
_TICKS: Final = (0.0, 0.1, 0.5, 1.0, 2.0, 4.0, 6.0, 10.0, 20.0)
_LOOKS: Final[dict[str, dict[str, Any]]] = {
    "75%": {"color": VERMILLION, "marker": "v", "linestyle": "--"},
    "50%": {"color": BLUE, "marker": "o", "linestyle": "-"},
    "25%": {"color": GREEN, "marker": "^", "linestyle": ":"},
}


def build(sources: Sources) -> Product:
    """The figure."""
    experiment = sources.experiment()
    behaviour = experiment.behaviour
    by_budget = {budget: _runs(sources, budget) for budget in experiment.budgets_nats if budget > 0}
    groups = {budget: runs for budget, runs in by_budget.items() if any(map(_costs, runs))}
    if not groups:
        raise MissingDataError(
            f"no agent with a positive budget has shown {behaviour.name} even once; train one with "
            "`python -m llm_experiment.run`"
        )
    costs = {budget: quartiles_over_runs(runs) for budget, runs in groups.items()}
    n_columns = min(2, len(groups))
    n_rows = math.ceil(len(groups) / n_columns)
    figure = new_figure(PAGE_INCHES if n_columns > 1 else 4.2, 0.6 + 1.75 * n_rows)
    grid = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
    for number, (budget, axes) in enumerate(zip(groups, grid.flat, strict=False)):
        _draw(axes, costs[budget])
        title_panel(axes, number, f"budget {in_nats(budget)}")
    for axes in grid.flat[len(groups) :]:
        axes.remove()
    for axes in grid[:, 0]:
        axes.set_ylabel("KL (nats)")
    for axes in grid[-1]:
        axes.set_xlabel(f"n-th {behaviour.turn} response of an episode")
    most = max(end for quartiles in costs.values() for end in _ends(quartiles))
    grid[0, 0].set_ylim(0, 1.1 * most)
    ticks = [tick for tick in _TICKS if tick <= 1.1 * most]
    grid[0, 0].set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    grid[0, 0].set_xticks([1, 5, 10, 15, 20])
    grid[0, 0].legend(title="quartile of episodes", alignment="left")
    shown = [run for runs in groups.values() for run in runs]
    stamp(figure, f"{label_of(shown)}; {say_runs(map(len, groups.values()))}")
    return Product(
        picture=figure,
        caption=(
            behaviour.say(
                "Figure 3. KL cost of the n-th {turn} response of an episode, by budget. "
                f"{METRICS['empty_turn_kl_nats'].about} Lines: mean over runs; bands: Student's "
                "95% interval over runs, where there are two or more. Later responses are those of "
                "the most {episode} episodes (the data give their number). "
            )
            + f"{shown_rule(shown, behaviour)} Square-root axis. Runs: {label_of(shown)}."
        ),
        data=Data(
            columns=(
                "budget (nats)",
                "n",
                "quartile",
                "KL (nats), mean over runs",
                "low",
                "high",
                "runs",
                "episodes",
            ),
            rows=tuple(
                (budget, n, name, value.mean, value.low, value.high, len(runs), n_episodes)
                for budget, runs in groups.items()
                for n, n_episodes in enumerate(_episodes_having(runs), start=1)
                for name in QUARTILES
                for value in (costs[budget][name][n - 1],)
            ),
        ),
    )


def _runs(sources: Sources, budget: float) -> tuple[EvaluatedAgent, ...]:
    experiment = sources.experiment()
    return tuple(run for run in experiment.main_runs if run.budget_nats == budget)


def _costs(run: EvaluatedAgent) -> tuple[TurnCost, ...]:
    """Quartiles and number of episodes of the n-th empty turn, n = 1, 2, ..."""
    return run.numbers.behaviour.empty_turn_kl_nats


def quartiles_over_runs(runs: tuple[EvaluatedAgent, ...]) -> dict[str, list[MeanOverRuns]]:
    """For each quartile, the costs of the n-th empty response over runs, n = 1, 2, ..."""
    most = max(len(_costs(run)) for run in runs)
    return {
        name: [
            mean_over_runs(
                (run.numbers.value("empty_turn_kl_nats", n, column) for run in runs), within=AMOUNT
            )
            for n in range(most)
        ]
        for name, column in _COLUMNS.items()
    }


def _episodes_having(runs: tuple[EvaluatedAgent, ...]) -> list[int]:
    """How many episodes of all runs have an n-th empty response, n = 1, 2, ..."""
    most = max(len(_costs(run)) for run in runs)
    return [
        sum(int(_costs(run)[n][-1]) for run in runs if len(_costs(run)) > n) for n in range(most)
    ]


def _ends(quartiles: dict[str, list[MeanOverRuns]]) -> list[float]:
    """Every mean and upper end that is drawn."""
    values = [value for each in quartiles.values() for value in each]
    ends = [value.mean if value.high is None else value.high for value in values]
    return [end for end in ends if not math.isnan(end)]


def _draw(axes: Axes, costs: dict[str, list[MeanOverRuns]]) -> None:
    for name in QUARTILES:
        numbers = range(1, len(costs[name]) + 1)
        draw_band(axes, numbers, costs[name], label=name, markersize=3.0, **_LOOKS[name])
    axes.set_yscale("function", functions=(lambda y: np.sqrt(np.maximum(y, 0)), np.square))
