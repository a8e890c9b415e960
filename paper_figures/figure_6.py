"""Figure 6: the greatest value within a budget, for every constraint, in a small shop.

The plans and their certificates are those of `toy_world.demo_planners` with its defaults.
"""

from collections.abc import Sequence
from typing import Any, Final

from matplotlib.axes import Axes

from mightnt.figure_style import BLUE, GREEN, ORANGE, PAGE_INCHES, VERMILLION, new_figure
from paper_figures.artefact import Data, Product
from paper_figures.results import Sources
from paper_figures.style import title_panel
from toy_world.demo_planners import PlannersOptions
from toy_world.presentations.planners import PRESENTATION
from toy_world.studies.frontiers import Point, frontiers

_READINGS: Final[dict[str, dict[str, Any]]] = {
    "expected": {"color": BLUE, "marker": "o", "linestyle": "-"},
    "fixed": {"color": VERMILLION, "marker": "s", "linestyle": "--"},
    "adaptive": {"color": GREEN, "marker": "^", "linestyle": ":"},
}
_IN_NATS: Final = {f"{reading} KL": look for reading, look in _READINGS.items()} | {
    "KL, may ask": {"color": ORANGE, "marker": "D", "linestyle": "-."}
}
_NAMES: Final = {"KL, may ask": "pessimist's, may ask"}
_IN_TVD: Final = {f"{reading} TVD": look for reading, look in _READINGS.items()}


def build(sources: Sources) -> Product:
    """The figure; it needs no run of the language-model experiment."""
    options = PlannersOptions()
    stored = sources.toy.stored(PRESENTATION, options)
    # The demo does more than is shown here.
    points = frontiers(options.horizon) if stored is None else stored.data.points
    figure = new_figure(PAGE_INCHES, 2.8)
    in_nats, in_tvd = figure.subplots(1, 2, sharey=True)
    _draw(in_nats, points, _IN_NATS)
    _draw(in_tvd, points, _IN_TVD)
    title_panel(in_nats, 0, "within a KL to the base policy")
    title_panel(in_tvd, 1, "within a total variation distance")
    in_nats.set(xlabel="budget (nats)", ylabel="greatest value")
    in_tvd.set_xlabel("budget (TVD)")
    in_nats.set_ylim(bottom=0)
    widest = max(point.bound - point.value for point in points)
    return Product(
        picture=figure,
        caption=(
            "Figure 6. The greatest value within a budget, for every constraint, in a shop of "
            f"{options.horizon} steps (toy_world/demo_planners.py): KL and TVD to the base policy "
            "in three readings (in expectation over observations; worst case over observation "
            "sequences; worst case also of the agent's own actions), and expected KL to a "
            "pessimistic imitator that may be asked for help. Every point is an optimum with a "
            f"dual bound: no plan within the budget is better by more than {widest:.0e}."
        ),
        data=Data(
            columns=("constraint", "budget (nats or TVD)", "value", "upper bound", "attained"),
            rows=tuple((p.constraint, p.budget, p.value, p.bound, p.attained) for p in points),
        ),
    )


def _draw(axes: Axes, points: Sequence[Point], looks: dict[str, dict[str, Any]]) -> None:
    for constraint, look in looks.items():
        own = [point for point in points if point.constraint == constraint]
        axes.plot(
            [point.budget for point in own],
            [point.value for point in own],
            label=_NAMES.get(constraint, constraint),
            **look,
        )
    axes.legend(loc="lower right")
