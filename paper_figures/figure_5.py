"""Figure 5: the price of deviating against the length of the demonstration (Theorem 1).

What `toy_world.demo_theorem1` finds with its defaults, in its own picture.
"""

from typing import Final

from paper_figures.artefact import Data, Product
from paper_figures.results import Sources
from toy_world.demo import DemoResult
from toy_world.demo_theorem1 import Theorem1Options
from toy_world.presentations.theorem1 import PRESENTATION
from toy_world.studies.theorem1 import DeviationPrices

_PRICE_COLUMNS: Final = (
    "delta_bits",
    "log_rho",
    "fixed_kl_nats",
    "bound_nats",
    "bound_as_printed_nats",
    "bound_over_all_programs_nats",
)


def build(sources: Sources) -> Product:
    """The figure; it needs no run of the language-model experiment."""
    result = sources.toy.result(PRESENTATION, Theorem1Options())
    return Product(picture=result.figure(), caption=_caption(result), data=_data(result.data))


def _caption(result: DemoResult[Theorem1Options, DeviationPrices]) -> str:
    data = result.data
    return (
        "Figure 5. Price of deviating from an enumerated imitator, the mixture over every policy "
        f"program of at most {data.limit_bits} bits, in nats, against k steps of demonstration "
        f"(world {data.world.value}). (a) Marks: KL(pi||xi); lines: the bound Delta ln 2 - ln "
        "rho, and as printed. Delta is the length of the shortest event that is unprecedented, "
        "with the switch and the deviating policy. Open marks: beyond the mixture, the bound over "
        "all programs. (b) The greatest value within a budget of expected KL to the imitator; "
        f"marks: pi. {' '.join(result.findings[:2])}"
    )


def _data(data: DeviationPrices) -> Data:
    nothing = [None] * len(_PRICE_COLUMNS)
    return Data(
        columns=(
            "panel",
            "situation",
            "k",
            "event",
            "within the mixture",
            *(name.replace("_", " ") for name in _PRICE_COLUMNS),
            "budget (nats)",
            "value",
        ),
        rows=(
            *(
                (
                    "a",
                    price.kind.value,
                    price.n_steps,
                    price.event,
                    price.within_limit,
                    *(getattr(price, name) for name in _PRICE_COLUMNS),
                    None,
                    None,
                )
                for price in data.prices
            ),
            *(
                ("b", line.label, None, None, line.within_limit, *nothing, budget, value)
                for line in data.frontiers
                for budget, value in zip(line.budgets_nats, line.values, strict=True)
            ),
        ),
    )
