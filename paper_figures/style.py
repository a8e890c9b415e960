"""What the figures share beyond `mightnt.figure_style`: bands over runs, looks, labels."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mightnt.figure_style import MARKERS
from mightnt.statistics import MeanOverRuns

DARK_GREY: Final = "#505050"
BAND_ALPHA: Final = 0.25
_LINES: Final = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
_FOOTER_POINTS: Final = 6.5
_FOOTER_SHARE: Final = 0.16
"""Inches at the bottom of a figure that are kept for its label."""


def ordered_looks(n: int) -> tuple[dict[str, Any], ...]:
    """Colours, lines and markers for n series that have an order, such as budgets.

    The colours get darker in grey, too, from the first series to the last.
    """
    shades = np.linspace(0.78, 0.05, n) if n > 1 else np.array([0.3])
    colors = mpl.colormaps["viridis"](shades)
    return tuple(
        {
            "color": mpl.colors.to_hex(color),
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": _LINES[i % len(_LINES)],
        }
        for i, color in enumerate(colors)
    )


def draw_band(
    axes: Axes, x: Sequence[float], values: Sequence[MeanOverRuns], *, label: str = "", **look: Any
) -> None:
    """Draw means over runs as a line, and their intervals, where there are any, as a band."""
    axes.plot(x, [value.mean for value in values], label=label, **look)
    low, high = interval_ends(values)
    axes.fill_between(
        x, low, high, color=look.get("color"), alpha=BAND_ALPHA, linewidth=0, zorder=1
    )


def interval_ends(values: Iterable[MeanOverRuns]) -> tuple[list[float], list[float]]:
    """The lower and upper ends of intervals, nan where there is none."""
    ends = [
        (np.nan, np.nan) if value.low is None or value.high is None else (value.low, value.high)
        for value in values
    ]
    return [low for low, _ in ends], [high for _, high in ends]


def title_panel(axes: Axes, number: int, title: str) -> None:
    """Title a panel with its letter."""
    axes.set_title(f"({chr(ord('a') + number)}) {title}")


def stamp(figure: Figure, label: str) -> None:
    """Write which runs a figure shows below it, for pictures travel without their captions."""
    share = _FOOTER_SHARE / figure.get_figheight()
    layout: Any = figure.get_layout_engine()
    layout.set(rect=(0.0, share, 1.0, 1.0 - share))
    figure.text(
        0.995,
        0.02 / figure.get_figheight(),
        label,
        ha="right",
        va="bottom",
        fontsize=_FOOTER_POINTS,
        color=DARK_GREY,
    )


def in_nats(budget_nats: float) -> str:
    """A budget with its unit."""
    return f"{budget_nats:g} nat{'' if budget_nats == 1 else 's'}"


def say_runs(n_runs: Iterable[int]) -> str:
    """How many runs the groups of a figure have, for its label."""
    counts = sorted(set(n_runs))
    if counts == [1]:
        return "one run a group: no band"
    return f"{' or '.join(map(str, counts))} runs a group, bands over runs"
