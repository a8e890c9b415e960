"""Figure 10: what realised accounting leaks, in theory and in trained agents.

(a) The expected sum of KLs of an agent that stakes all that is left at every step on one token,
whose log-ratio alone is charged (`theory.overspending`), with the released code's
floor of 1e-6 nats and without; under exact accounting it is at most the budget. (b) The share of
episodes that spend more than x nats, for agents trained under either accounting.
"""

import math
from typing import Any, Final

import numpy as np

from llm_experiment.measures.metrics import SHARE
from llm_experiment.records.reading import EvaluatedAgent
from mightnt.figure_style import BLACK, BLUE, GREEN, PAGE_INCHES, VERMILLION, new_figure
from mightnt.statistics import MeanOverRuns, mean_over_runs
from paper_figures.artefact import Data, Product
from paper_figures.results import Sources, label_of
from paper_figures.style import draw_band, in_nats, say_runs, stamp, title_panel
from theory.budget import Accounting
from theory.errors import MissingDataError
from theory.overspending import all_in_spending_nats

BUDGET_NATS: Final = 1.0
TOKEN_PROBABILITY: Final = 0.01
RELEASED_FLOOR_NATS: Final = 1e-6
HORIZONS: Final = (1, 2, 3, 5, 8, 16, 32, 64, 128, 256)
N_LEVELS: Final = 401
_FLOORS: Final = {
    f"realised, floor {RELEASED_FLOOR_NATS:g}": (
        RELEASED_FLOOR_NATS,
        {"color": VERMILLION, "marker": "s", "linestyle": "-"},
    ),
    "realised, no floor": (0.0, {"color": VERMILLION, "marker": "s", "linestyle": ":"}),
}
_LOOKS: Final[dict[Accounting, dict[str, Any]]] = {
    Accounting.EXACT: {"marker": "o"},
    Accounting.REALIZED: {"marker": "s", "fillstyle": "none"},
}
_COLORS: Final = (GREEN, BLUE, BLACK, VERMILLION)


def build(sources: Sources) -> Product:
    """The figure."""
    experiment = sources.experiment()
    realized = experiment.select(variant=_variant(Accounting.REALIZED), as_trained=True)
    exact = experiment.select(variant=_variant(Accounting.EXACT), as_trained=True)
    budgets = sorted({run.budget_nats for run in realized} & {run.budget_nats for run in exact})
    if not budgets:
        raise MissingDataError(
            "no two agents of the same budget under both accountings; the default suite of "
            "`python -m llm_experiment.run` trains some (its quick form does not)"
        )
    shown = [run for run in (*exact, *realized) if run.budget_nats in budgets]
    groups = {
        (budget, accounting): [
            run for run in shown if (run.variant, run.budget_nats) == (_variant(accounting), budget)
        ]
        for budget in budgets
        for accounting in Accounting
    }
    most = max(run.numbers.spending.spent_nats_max for run in shown)
    levels = np.linspace(0.0, math.ceil(most), N_LEVELS)
    survival = {key: exceedance(runs, levels) for key, runs in groups.items()}
    theory = {
        name: [
            all_in_spending_nats(
                BUDGET_NATS,
                token_probability=TOKEN_PROBABILITY,
                horizon=horizon,
                floor_nats=floor,
            )
            for horizon in HORIZONS
        ]
        for name, (floor, _) in _FLOORS.items()
    }
    figure = new_figure(PAGE_INCHES, 2.9)
    worst, trained = figure.subplots(1, 2)
    for name, (_, look) in _FLOORS.items():
        worst.plot(HORIZONS, theory[name], label=name, markersize=3.5, **look)
    worst.axhline(BUDGET_NATS, color=BLACK, linestyle="--", label="exact: the budget")
    worst.set(xscale="log", yscale="log", xlabel="steps", ylabel="expected sum of KLs (nats)")
    title_panel(worst, 0, f"all in at every step, {in_nats(BUDGET_NATS)}")
    worst.legend(loc="upper left")
    for (budget, accounting), values in survival.items():
        color = _COLORS[budgets.index(budget) % len(_COLORS)]
        draw_band(
            trained,
            levels.tolist(),
            values,
            label=f"{_spelt(accounting)}, {in_nats(budget)}",
            color=color,
            linestyle="-" if accounting is Accounting.EXACT else "--",
            markevery=40,
            markersize=3.5,
            **_LOOKS[accounting],
        )
    for budget in budgets:
        color = _COLORS[budgets.index(budget) % len(_COLORS)]
        trained.axvline(budget, color=color, linewidth=0.8, linestyle=":")
    trained.set(xlabel="x: KL spent in an episode (nats)", ylabel="share of episodes above x")
    trained.set_ylim(-0.03, 1.03)
    trained.legend(loc="upper right")
    title_panel(trained, 1, "trained agents (dotted: budgets)")
    stamp(figure, f"(b): {label_of(shown)}; {say_runs(map(len, groups.values()))}")
    return Product(
        picture=figure,
        caption=(
            "Figure 10. Realised accounting charges the log-ratio of the token taken, clamped at "
            "0, and leaks. (a) Expected sum of KLs of an agent that stakes all that is left at "
            f"every step on a token of probability {TOKEN_PROBABILITY:g}, nominal budget "
            f"{in_nats(BUDGET_NATS)}, with the released code's floor under the step's target and "
            "without. (b) Share of episodes whose KLs sum to more than x, for agents trained and "
            "evaluated under either accounting; mean over runs, bands: Student's 95% interval over "
            f"runs, where there are two or more. Runs: {label_of(shown)}."
        ),
        data=Data(
            columns=("panel", "series", "steps or nats", "mean", "low", "high", "runs"),
            rows=(
                *(
                    ("a, expected sum of KLs (nats)", name, horizon, value, None, None, None)
                    for name, values in theory.items()
                    for horizon, value in zip(HORIZONS, values, strict=True)
                ),
                *(
                    (
                        "b, share of episodes above",
                        f"{_spelt(accounting)}, {in_nats(budget)}",
                        level,
                        over.mean,
                        over.low,
                        over.high,
                        len(groups[budget, accounting]),
                    )
                    for (budget, accounting), values in survival.items()
                    for level, over in zip(levels.tolist(), values, strict=True)
                ),
            ),
        ),
    )


def exceedance(runs: list[EvaluatedAgent], levels: Any) -> tuple[MeanOverRuns, ...]:
    """Share of a run's episodes that spend more than each level, over runs."""
    spent = [run.episodes.arrays("spent_nats")["spent_nats"] for run in runs]
    shares = [(nats[:, None] > levels).mean(axis=0) for nats in spent]
    return tuple(mean_over_runs(column, within=SHARE) for column in np.array(shares).T)


def _variant(accounting: Accounting) -> str:
    return f"{accounting.value} budget"


def _spelt(accounting: Accounting) -> str:
    return {Accounting.EXACT: "exact", Accounting.REALIZED: "realised"}[accounting]
