"""Figure 11: how far agents leave the demonstrator, the base policy beside them.

KL(pi||tau) is infinite for every agent and for the base policy: a softmax gives some probability
to everything, tau exactly none to much. So: the share of episodes that are still possible under
tau, token by token; and the KL to tau mixed with a share d of the uniform distribution, against d.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from llm_experiment.measures.metrics import AMOUNT, METRICS, SHARE, SMOOTHINGS
from llm_experiment.records.reading import Evaluated
from mightnt.figure_style import BLACK, PAGE_INCHES, new_figure
from mightnt.statistics import MeanOverRuns, mean_over_runs
from paper_figures.artefact import Data, Product
from paper_figures.results import Sources, base_name, label_of
from paper_figures.style import draw_band, in_nats, ordered_looks, say_runs, stamp, title_panel
from theory.errors import MissingDataError

STRIDE: Final = 8
"""Tokens between two points of a survival curve."""
_MARK_EVERY: Final = 5
_BASE_LOOK: Final[dict[str, Any]] = {"color": BLACK, "linestyle": (0, (1, 1)), "marker": "x"}


@dataclass(frozen=True, kw_only=True)
class Departures:
    """How the runs of one group leave the demonstrator.

    Attributes:
        name: of the group.
        n_runs: how many.
        possible: share of episodes possible under tau after each of the tokens shown.
        smoothed_kl_nats: per step, for each of `SMOOTHINGS`.
    """

    name: str
    n_runs: int
    possible: tuple[MeanOverRuns, ...]
    smoothed_kl_nats: tuple[MeanOverRuns, ...]


def build(sources: Sources) -> Product:
    """The figure."""
    experiment = sources.experiment()
    main = [run for run in experiment.main_runs if run.numbers.departure is not None]
    if not main:
        raise MissingDataError(
            "KL to the demonstrator needs a run in a world whose demonstrator is known, the "
            "default one: `python -m llm_experiment.run`"
        )
    n_tokens = main[0].n_tokens
    base = experiment.base_at(n_tokens)
    positions = shown_positions(main[0])
    budgets = sorted({run.budget_nats for run in main})
    groups = [
        departures(
            in_nats(budget),
            [run for run in main if (run.budget_nats, run.n_tokens) == (budget, n_tokens)],
            positions,
        )
        for budget in budgets
    ]
    own = [departures(base_name(experiment), [base], positions)] if base else []
    figure = new_figure(PAGE_INCHES, 3.1)
    survival, smoothed = figure.subplots(1, 2)
    looks = [*ordered_looks(len(groups)), *[_BASE_LOOK] * len(own)]
    for group, look in zip((*groups, *own), looks, strict=True):
        _draw(survival, smoothed, group, positions, look)
    title_panel(survival, 0, "episodes possible under τ")
    survival.set(xlabel="tokens of the episode", ylabel="share of episodes", ylim=(-0.03, 1.03))
    title_panel(smoothed, 1, "KL to the demonstrator τ, smoothed")
    smoothed.set(xscale="log", yscale="log", xlabel="d, share of the uniform distribution")
    smoothed.set_ylabel("KL(π ‖ (1−d) τ + d uniform)\n(nats a step)")
    smoothed.invert_xaxis()
    figure.legend(
        *survival.get_legend_handles_labels(), loc="outside upper center", ncols=len(looks)
    )
    shown: list[Evaluated] = [*main, *([base] if base else [])]
    stamp(figure, f"{label_of(shown)}; {say_runs(group.n_runs for group in groups)}")
    return Product(
        picture=figure,
        caption=(
            "Figure 11. Departure from the known demonstrator tau, by budget, base policy beside. "
            f"(a) {METRICS['possible_shares'].about.split(', after')[0]}, by token. (b) "
            f"{METRICS['smoothed_kl_nats'].about} Here: the mean over those steps. KL(pi||tau) "
            "itself is infinite for all of them, the base policy included. Lines: mean over runs; "
            "bands: "
            "Student's 95% interval over runs, where there are two or more. "
            f"{n_tokens} tokens. Runs: {label_of(shown)}."
        ),
        data=Data(
            columns=("group", "panel", "tokens or d", "mean over runs", "low", "high", "runs"),
            rows=tuple(
                (group.name, panel, x, over.mean, over.low, over.high, group.n_runs)
                for group in (*groups, *own)
                for panel, xs, values in (
                    ("possible", positions.tolist(), group.possible),
                    ("smoothed KL (nats a step)", SMOOTHINGS, group.smoothed_kl_nats),
                )
                for x, over in zip(xs, values, strict=True)
            ),
        ),
    )


def shown_positions(run: Evaluated) -> NDArray[np.int64]:
    """After how many tokens survival is shown: from the prompt to the end."""
    first = int(run.episodes.arrays("prompt_length")["prompt_length"])
    return np.unique(np.append(np.arange(first, run.n_tokens, STRIDE), run.n_tokens))


def departures(name: str, runs: Sequence[Evaluated], positions: NDArray[np.int64]) -> Departures:
    """What a group's runs do."""
    firsts = [run.episodes.arrays("first_impossible")["first_impossible"] for run in runs]
    survival = np.array([(first[:, None] >= positions).mean(axis=0) for first in firsts])
    smoothed = [
        [run.numbers.value("smoothed_kl_nats_per_step", i) for run in runs]
        for i in range(len(SMOOTHINGS))
    ]
    return Departures(
        name=name,
        n_runs=len(runs),
        possible=tuple(mean_over_runs(column, within=SHARE) for column in survival.T),
        smoothed_kl_nats=tuple(mean_over_runs(column, within=AMOUNT) for column in smoothed),
    )


def _draw(
    survival: Axes,
    smoothed: Axes,
    group: Departures,
    positions: NDArray[np.int64],
    look: dict[str, Any],
) -> None:
    draw_band(
        survival,
        positions.tolist(),
        group.possible,
        label=group.name,
        markevery=_MARK_EVERY,
        markersize=3.5,
        **look,
    )
    draw_band(smoothed, SMOOTHINGS, group.smoothed_kl_nats, markersize=3.5, **look)
