"""Figure 7: K of the simplest unprecedented event that is yet to occur (Proposition 2).

What `toy_world.demo_proposition2` finds with its defaults, in its own picture.
"""

from paper_figures.artefact import Data, Product
from paper_figures.results import Sources
from toy_world.demo_proposition2 import Proposition2Options
from toy_world.presentations.proposition2 import PRESENTATION


def build(sources: Sources) -> Product:
    """The figure; it needs no run of the language-model experiment."""
    result = sources.toy.result(PRESENTATION, Proposition2Options())
    data = result.data
    return Product(
        picture=result.figure(),
        caption=(
            "Figure 7. Length in bits of the simplest unprecedented event yet to occur, in the "
            "toy world's own prefix-free language, against time t. Left: along the history of each "
            "demonstrator, exact among events of at most "
            f"{result.options.bits} bits and the clock's. Right: by the clock alone, an "
            f"upper bound in every environment. {' '.join(result.findings)}"
        ),
        data=Data(
            columns=("panel", "world", "t", "K (bits)"),
            rows=(
                *(
                    ("history", world.value, t, bits)
                    for world, lengths in data.bits_by_world.items()
                    for t, bits in zip(data.times, lengths, strict=True)
                ),
                *(("clock", "every world", f"1e{decade}", bits) for decade, bits in data.clock),
            ),
        ),
    )
