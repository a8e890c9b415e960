"""Table 2: which regulariser resists an agent that is paid for what is never done.

What `toy_world.demo_regularisers` finds with its defaults.
"""

from typing import Final

from mightnt.tables import Column, Table, to_markdown
from paper_figures.artefact import Data, Product
from paper_figures.results import Sources
from toy_world.demo_regularisers import RegularisersOptions
from toy_world.presentations.regularisers import PRESENTATION
from toy_world.studies.regularisers import ALPHA

SHOWN_EPS_NATS: Final = 1.0


def build(sources: Sources) -> Product:
    """The table; it needs no run of the language-model experiment."""
    options = RegularisersOptions()
    outcomes = sources.toy.result(PRESENTATION, options).data.outcomes
    shown = [outcome for outcome in outcomes if outcome.eps_nats == SHOWN_EPS_NATS]
    rows = dict.fromkeys((outcome.base, outcome.constraint) for outcome in shown)
    worlds = dict.fromkeys(outcome.world for outcome in shown)
    cells = {(o.base, o.constraint, o.world): o for o in shown}
    columns = (
        Column(header="compared with"),
        Column(header="constraint"),
        *(Column(header=f"P, {world.value}", format=".2g") for world in worlds),
        *(Column(header=f"value, {world.value}", format=".3f") for world in worlds),
    )
    table = Table(
        title="Which regulariser resists",
        columns=columns,
        rows=tuple(
            (
                base.value.split(" (", maxsplit=1)[0],
                constraint.value,
                *(cells[base, constraint, world].bad_probability for world in worlds),
                *(cells[base, constraint, world].true_value for world in worlds),
            )
            for base, constraint in rows
        ),
    )
    return Product(
        picture=to_markdown(table),
        caption=(
            "Table 2. Probability P that an optimal agent ever does what its demonstrator never "
            "does, and its value by the true utility, in four worlds, under six constraints at "
            f"{SHOWN_EPS_NATS:g} nat or the budget that matches it (TVD: min(sqrt(eps/2), sqrt(1 - "
            "exp(-eps))); chi-squared: exp(eps) - 1), against the Bayesian imitator after "
            f"{options.steps} steps of demonstration and a novelty, programs of at most "
            f"{options.bits} bits, episodes of {options.horizon} steps; and against a perfect "
            f"base, the demonstrator itself. The pessimist (alpha = {ALPHA}) keeps its posterior "
            "while the agent acts and may be asked; its 0 is exact. The CSV has other budgets, the "
            "proxy utility and each optimum's gap."
        ),
        data=Data(
            columns=(
                "world",
                "compared with",
                "constraint",
                "eps (nats)",
                "budget",
                "value by the proxy",
                "gap",
                "true value",
                "P(never-done action)",
                "steps asked",
            ),
            rows=tuple(
                (
                    o.world.value,
                    o.base.value,
                    o.constraint.value,
                    o.eps_nats,
                    o.budget,
                    o.value,
                    max(o.gap, 0.0),
                    o.true_value,
                    o.bad_probability,
                    o.n_asks,
                )
                for o in outcomes
            ),
        ),
    )
