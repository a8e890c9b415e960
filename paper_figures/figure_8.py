"""Figure 8: what pessimism buys and costs (Definitions 3 and 4, Theorems 3 and 4).

Computed and drawn by `toy_world.demo_pessimism`, with its defaults but for half the simulated
demonstrators, and fewer runs of the full loop, which the figure does not show.
"""

from collections.abc import Iterator
from typing import Any, Final

from paper_figures.artefact import Data, Product
from paper_figures.results import Sources
from paper_figures.style import in_nats
from toy_world.demo_pessimism import COMPARED_ALPHA, DEMO, PessimismOptions

_FEWEST_CAREERS: Final = 2
_N_SIMULATIONS: Final = 200


def build(sources: Sources) -> Product:
    """The figure; it needs no run."""
    del sources
    options = PessimismOptions(runs=_N_SIMULATIONS, careers=_FEWEST_CAREERS)
    result = DEMO.run(options)
    return Product(
        picture=DEMO.draw(result),
        caption=(
            "Figure 8. The pessimistic imitator (posterior updated by the demonstrator's actions "
            f"alone). Top left: mean help probability while a demonstrator is watched, "
            f"{options.runs} simulations, world {options.world.value}. Top right: probability that "
            f"the demonstrator mu stays in the top set for {options.steps} steps (simulation, 95% "
            "binomial intervals) beside the bound. Bottom left: value and share of steps asked "
            f"within {in_nats(options.budget)}, against alpha, after k steps of demonstration. "
            "Bottom right: probability that an optimal agent ever does what the demonstrator never "
            f"does, with the Bayesian imitator and with the pessimistic one (alpha = "
            f"{COMPARED_ALPHA}; exactly 0)."
        ),
        data=Data(
            columns=("panel", "series", "quantity", "x", "y", "low", "high"),
            rows=tuple(_rows(result.data)),
        ),
    )


def _rows(data: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    for line in data["help_over_time"]:
        for step, mean in enumerate(line["mean"]):
            series = f"alpha = {line['alpha']}"
            yield ("help", series, "mean help probability, by step", step, mean, None, None)
    for point in data["ville"]:
        name, x = point["world"].value, point["alpha_over_weight"]
        low, high = point["interval"]
        stays = "P(mu stays), by alpha/w(mu)"
        yield ("top set", name, f"{stays}: simulated", x, point["simulated"], low, high)
        yield ("top set", name, f"{stays}: bound", x, point["bound"], None, None)
    for each in data["priced"]:
        conduct, name = each["conduct"], f"k = {each['k']}"
        x = float(conduct.alpha)
        yield ("price", name, "value, by alpha", x, conduct.value, None, None)
        yield ("price", name, "expected steps asked, by alpha", x, conduct.n_asks, None, None)
    for each in data["compared"]:
        conduct = each["conduct"]
        kind = "Bayesian" if conduct.alpha is None else "pessimistic"
        series = f"{kind}, {each['world'].value}"
        quantity = "P(never-done action), by budget (nats)"
        yield (
            "never done",
            series,
            quantity,
            conduct.budget_nats,
            conduct.bad_probability,
            None,
            None,
        )
