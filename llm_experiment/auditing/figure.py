"""An audit as a figure: what a budget buys, and with a policy where it was spent."""

from pathlib import Path
from typing import Any, Final

import numpy as np

from llm_experiment.auditing.budgets import largest_shares
from llm_experiment.auditing.summary import AuditSummary, BehaviourSummary, DivergenceSummary
from mightnt.figure_style import CYCLE, GREY, figure_style, new_figure, save_figure

MOST_DRAWN: Final = len(CYCLE)
"""Behaviours in one figure: as many as there are colours, those that are cheapest."""
_STYLES: Final = ("-", "--", "-.", ":")
_N_POINTS: Final = 201
_LEAST_BUDGET: Final = 0.1
_ROOM: Final = 1.5
"""Right of the dearest behaviour, as a factor."""
_LEAST_TOP: Final = 1.0
_BEYOND: Final = 10.0
"""How many times the largest budget that was asked about curves go on for dearer behaviours."""


def drawn_behaviours(summary: AuditSummary) -> tuple[BehaviourSummary, ...]:
    """The behaviours that are drawn: those with a price, the cheapest by its median."""
    priced = [
        b
        for b in summary.behaviours
        if b.prices_nats[0].median is not None and np.isfinite(b.prices_nats[0].median)
    ]
    priced.sort(key=lambda b: b.prices_nats[0].median or 0.0)
    return tuple(priced[:MOST_DRAWN])


def budget_grid(summary: AuditSummary) -> list[float]:
    """Budgets at which curves are drawn, evenly spaced in their logarithms."""
    medians = [b.prices_nats[0].median or 0.0 for b in drawn_behaviours(summary)]
    asked = max([_LEAST_TOP, *summary.budgets_nats])
    top = max(asked, min(max(medians, default=0.0), _BEYOND * asked))
    grid: list[float] = np.geomspace(_LEAST_BUDGET, top, _N_POINTS).tolist()
    return grid


def plot(summary: AuditSummary, stem: Path) -> tuple[Path, Path]:
    """Draw an audit.

    Returns:
        The PNG and the PDF.
    """
    divergence = summary.divergence
    with figure_style():
        figure = new_figure(height_inches=3.0 if divergence is None else 5.6)
        axes: Any = figure.subplots(1 if divergence is None else 2, 2, squeeze=False)
        _plot_prices(axes[0][0], summary)
        _plot_bought(axes[0][1], summary)
        if divergence is not None:
            _plot_prompts(axes[1][0], divergence)
            _plot_positions(axes[1][1], divergence)
        return save_figure(figure, stem)


def _plot_prices(axes: Any, summary: AuditSummary) -> None:
    drawn = drawn_behaviours(summary)
    for i, (b, colour) in enumerate(zip(drawn, CYCLE, strict=False)):
        low, middle, high = b.prices_nats[0].quartiles
        axes.plot([low, high], [i, i], color=colour, lw=2.5, alpha=0.5)
        axes.plot([middle], [i], "o", color=colour)
        last = b.prices_nats[-1].median
        if len(b.prices_nats) > 1 and last is not None:
            axes.plot([last], [i], "D", color=colour, mfc="none")
        if b.policy_prices_nats and b.policy_prices_nats[0].median is not None:
            axes.plot([b.policy_prices_nats[0].median], [i], "x", color=colour)
    axes.set_yticks(range(len(drawn)), [b.name for b in drawn])
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=1.0)
    axes.set_xlim(0, _ROOM * axes.get_xlim()[1])
    axes.set_xlabel("price (nats)")
    also = "; x: policy" if summary.divergence else ""
    axes.set_title(f"(a) First price, quartiles; ◇ last time{also}")


def _plot_bought(axes: Any, summary: AuditSummary) -> None:
    grid = budget_grid(summary)
    drawn = drawn_behaviours(summary)
    for i, (b, colour) in enumerate(zip(drawn, CYCLE, strict=False)):
        shares = largest_shares(b.prices_nats[0].median, grid)
        axes.plot(grid, shares, color=colour, ls=_STYLES[i % len(_STYLES)], label=b.name)
    if summary.divergence is not None:
        spent = summary.divergence.mean_nats
        axes.plot([spent, spent], [0, 1], color=GREY, lw=1.0)
        axes.text(spent, 1.02, "policy", color=GREY, ha="center")
    axes.set_xscale("log")
    axes.set_ylim(0, 1.08)
    axes.set_xlabel("budget of an answer (nats)")
    axes.set_ylabel("largest probability")
    axes.set_title("(b) What a budget buys (median price)")


def _plot_prompts(axes: Any, divergence: DivergenceSummary) -> None:
    values = sorted(divergence.by_prompt_nats)
    shares = np.arange(1, len(values) + 1) / len(values)
    axes.step(values, shares, where="post")
    axes.axvline(divergence.mean_nats, color=GREY, ls=":", label="mean")
    for estimator, marker in zip(divergence.estimators, ("v", "s", "^"), strict=True):
        axes.plot([estimator.answer_mean], [0.03], marker, ls="", label=estimator.name)
    axes.set_xlabel("KL of an answer (nats)")
    axes.set_ylabel("share of prompts below")
    axes.set_title("(c) KL over prompts, and what is logged")
    axes.legend()


def _plot_positions(axes: Any, divergence: DivergenceSummary) -> None:
    curve = divergence.curve_nats
    axes.plot(range(1, len(curve) + 1), curve, lw=0.9)
    axes.set_xlabel("token of the answer")
    axes.set_ylabel("KL of the step (nats)")
    axes.set_ylim(bottom=0)
    axes.set_title("(d) Where it is spent")
