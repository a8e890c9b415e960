"""Figure 1: a diagram of KL-regularised reinforcement learning."""

from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from mightnt.figure_style import BLACK, BLUE, GREEN, PAGE_INCHES, VERMILLION, new_figure
from paper_figures.artefact import Product
from paper_figures.results import Sources
from paper_figures.style import DARK_GREY

_HEIGHT_INCHES: Final = 2.5
_BOX_INCHES: Final = (1.62, 0.62)

Point = tuple[float, float]
"""In inches from the lower left corner."""

_ABOVE: Final = 2.1
_BELOW: Final = 0.4
_BETWEEN: Final = (_ABOVE + _BELOW) / 2
_TRUSTED: Final = (0.9, _ABOVE)
_BASE: Final = (0.9, _BELOW)
_AGENT: Final = (3.5, _BELOW)
_WORLD: Final = (6.1, _BELOW)
_REWARD: Final = (6.1, _ABOVE)


def build(sources: Sources) -> Product:
    """The diagram; it needs no run."""
    del sources
    figure = new_figure(PAGE_INCHES, _HEIGHT_INCHES)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, PAGE_INCHES), ylim=(0, _HEIGHT_INCHES), aspect="equal")
    axes.axis("off")
    _box(axes, _TRUSTED, "demonstrator τ", "trusted; known by its data only", GREEN)
    _box(axes, _BASE, "base policy β", "imitation of τ, learnt", BLUE)
    _box(axes, _AGENT, "agent π", "maximises expected utility", VERMILLION)
    _box(axes, _WORLD, "environment", "answers and asks", BLACK)
    _box(axes, _REWARD, "utility", "what is asked for", BLACK)
    half_width, half_height = _BOX_INCHES[0] / 2, _BOX_INCHES[1] / 2
    _arrow(axes, _down(_TRUSTED, half_height), _up(_BASE, half_height), color=BLACK)
    _say(axes, (_BASE[0] + 0.08, _BETWEEN), "demonstrations: k steps,\nthen imitation", ha="left")
    _arrow(
        axes,
        _right(_BASE, half_width),
        _left(_AGENT, half_width),
        color=BLUE,
        arrowstyle="<|-|>",
        linewidth=2.0,
    )
    middle = (_BASE[0] + _AGENT[0]) / 2
    _say(axes, (middle, _BELOW + 0.1), "KL(π ‖ β) ≤ B", color=BLUE, va="bottom", weight="bold")
    _say(axes, (middle, _BELOW - 0.1), "enforced", color=BLUE, va="top")
    _arrow(
        axes,
        (_TRUSTED[0] + half_width, _TRUSTED[1] - 0.12),
        (_AGENT[0] - 0.45, _AGENT[1] + half_height),
        color=VERMILLION,
        arrowstyle="<|-|>",
        linestyle=(0, (3, 2)),
    )
    _say(axes, (2.75, _BETWEEN + 0.37), "KL(π ‖ τ): wanted small,", color=VERMILLION, ha="left")
    _say(axes, (2.75, _BETWEEN + 0.2), "not bounded by KL(π ‖ β)", color=VERMILLION, ha="left")
    apart = 0.13
    ends = (_AGENT[0] + half_width, _WORLD[0] - half_width)
    _arrow(axes, (ends[0], _BELOW + apart), (ends[1], _BELOW + apart), color=BLACK)
    _arrow(axes, (ends[1], _BELOW - apart), (ends[0], _BELOW - apart), color=BLACK)
    _say(axes, (sum(ends) / 2, _BELOW + apart + 0.06), "actions", va="bottom")
    _say(axes, (sum(ends) / 2, _BELOW - apart - 0.06), "observations", va="top")
    _arrow(axes, _up(_WORLD, half_height), _down(_REWARD, half_height), color=BLACK)
    _say(axes, (_WORLD[0] - 0.08, _BETWEEN), "history", ha="right")
    _arrow(
        axes,
        _left(_REWARD, half_width),
        (_AGENT[0] + 0.55, _AGENT[1] + half_height),
        color=BLACK,
    )
    _say(axes, (4.75, _BETWEEN + 0.4), "reward", ha="right")
    return Product(
        picture=figure,
        caption=(
            "Figure 1. KL-regularised reinforcement learning. The agent pi maximises expected "
            "utility within a budget B of KL to the base policy beta, an imitation of the trusted "
            "demonstrator tau. What is wanted, a small KL to tau, is neither known nor implied."
        ),
        data=None,
    )


def _box(axes: Axes, center: Point, name: str, what: str, color: str) -> None:
    width, height = _BOX_INCHES
    axes.add_patch(
        FancyBboxPatch(
            (center[0] - width / 2, center[1] - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor="white",
            edgecolor=color,
            linewidth=1.5,
        )
    )
    axes.text(center[0], center[1] + 0.1, name, ha="center", va="center", fontsize=9.5, color=color)
    axes.text(center[0], center[1] - 0.14, what, ha="center", va="center", fontsize=7.0)


def _arrow(axes: Axes, start: Point, end: Point, **look: Any) -> None:
    style: dict[str, Any] = {
        "arrowstyle": "-|>",
        "linewidth": 1.2,
        "mutation_scale": 9,
        "shrinkA": 2,
        "shrinkB": 2,
    }
    axes.add_patch(FancyArrowPatch(start, end, **(style | look)))


def _say(axes: Axes, place: Point, text: str, **look: Any) -> None:
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7.5, "color": DARK_GREY}
    axes.text(*place, text, **(style | look))


def _up(center: Point, by: float) -> Point:
    return center[0], center[1] + by


def _down(center: Point, by: float) -> Point:
    return center[0], center[1] - by


def _left(center: Point, by: float) -> Point:
    return center[0] - by, center[1]


def _right(center: Point, by: float) -> Point:
    return center[0] + by, center[1]
