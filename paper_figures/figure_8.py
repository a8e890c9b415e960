"""Figure 8: what pessimism buys and costs (Definitions 3 and 4, Theorems 3 and 4).

What `toy_world.demo_pessimism` finds with its defaults, in its own picture. Where that is not
stored it is computed with half the simulated demonstrators, and with fewer runs of the full loop,
which the figure does not show.
"""

from collections.abc import Iterator
from typing import Any, Final

from paper_figures.artefact import Data, Product
from paper_figures.results import Sources
from paper_figures.style import in_nats
from toy_world.demo_pessimism import PessimismOptions
from toy_world.presentations.pessimism import PRESENTATION
from toy_world.studies.pessimism import COMPARED_ALPHA, Pessimism

_FEWEST_CAREERS: Final = 2
_N_SIMULATIONS: Final = 200


def build(sources: Sources) -> Product:
    """The figure; it needs no run of the language-model experiment."""
    result = sources.toy.stored(PRESENTATION, PessimismOptions())
    if result is None:
        fewer = PessimismOptions(runs=_N_SIMULATIONS, careers=_FEWEST_CAREERS)
        result = PRESENTATION.run(fewer)
    options = result.options
    return Product(
        picture=result.figure(),
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


def _rows(data: Pessimism) -> Iterator[tuple[Any, ...]]:
    for line in data.help_over_time:
        for step, mean in enumerate(line.mean):
            series = f"alpha = {line.alpha}"
            yield ("help", series, "mean help probability, by step", step, mean, None, None)
    for row in data.guarantees:
        name, x = row.world.value, row.alpha_over_weight
        stays = "P(mu stays), by alpha/w(mu)"
        ends = row.stays_interval
        yield ("top set", name, f"{stays}: simulated", x, row.stays_simulated, *ends)
        yield ("top set", name, f"{stays}: bound", x, row.stays_bound, None, None)
    for priced in data.priced:
        outcome, name = priced.outcome, f"k = {priced.n_steps}"
        x = float(outcome.alpha or 0)
        yield ("price", name, "value, by alpha", x, outcome.value, None, None)
        yield ("price", name, "expected steps asked, by alpha", x, outcome.n_asks, None, None)
    for compared in data.compared:
        outcome = compared.outcome
        kind = "Bayesian" if outcome.alpha is None else "pessimistic"
        series = f"{kind}, {compared.world.value}"
        quantity = "P(never-done action), by budget (nats)"
        bad = outcome.bad_probability
        yield ("never done", series, quantity, outcome.budget_nats, bad, None, None)
