"""Figure 7: K of the simplest unprecedented event that is yet to occur (Proposition 2).

Computed and drawn by `toy_world.demo_proposition2`, with its defaults.
"""

from paper_figures.artefact import Data, Product
from paper_figures.results import Sources
from toy_world.demo_proposition2 import DEMO, Proposition2Options


def build(sources: Sources) -> Product:
    """The figure; it needs no run."""
    del sources
    result = DEMO.run(Proposition2Options())
    by_world: dict[str, list[int]] = result.data["bits_by_world"]
    return Product(
        picture=DEMO.draw(result),
        caption=(
            "Figure 7. Length in bits of the simplest unprecedented event yet to occur, in the "
            "toy world's own prefix-free language, against time t. Left: along the history of each "
            "demonstrator, exact among events of at most "
            f"{Proposition2Options().bits} bits and the clock's. Right: by the clock alone, an "
            f"upper bound in every environment. {' '.join(result.findings)}"
        ),
        data=Data(
            columns=("panel", "world", "t", "K (bits)"),
            rows=(
                *(
                    ("history", world, t, bits)
                    for world, lengths in by_world.items()
                    for t, bits in zip(result.data["times"], lengths, strict=True)
                ),
                *(
                    ("clock", "every world", f"1e{decade}", bits)
                    for decade, bits in result.data["clock"]
                ),
            ),
        ),
    )
