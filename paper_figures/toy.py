"""What the toy worlds' figures are drawn from: a demo's stored result, or else the demo itself.

`python -m toy_world --out results/toy` stores what every demo finds. A stored result is used if
this version of the code made it with the options that the figure needs; otherwise the demo is
computed, and a note says why the file was of no use. So a figure never shows old numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from rich.console import Console

from theory.errors import ResultsError
from toy_world.demo import DemoOptions, DemoResult, Presentation

DEFAULT_FOLDER: Final = Path("results/toy")
"""Where the README's commands put what the demos find."""

OptionsT = TypeVar("OptionsT", bound=DemoOptions)
DataT = TypeVar("DataT")


def print_note(note: str) -> None:
    """Print a note on standard error."""
    Console(stderr=True).print(note, markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class ToyResults:
    """The stored results of demos.

    Attributes:
        folder: that demos were told to write to (`--out`); None for none.
        note: is told why a stored result is of no use.
    """

    folder: Path | None = None
    note: Callable[[str], None] = print_note

    def stored(
        self, presentation: Presentation[OptionsT, DataT], options: OptionsT
    ) -> DemoResult[OptionsT, DataT] | None:
        """What a demo found with `options`, if that is stored.

        Args:
            presentation: of the demo.
            options: that the result must have been made with.
        """
        path = None if self.folder is None else self.folder / f"{presentation.name}.json"
        if path is None or not path.exists():
            return None
        try:
            result = presentation.read(path)
        except ResultsError as error:
            self.note(f"computing demo {presentation.name}, since {error}")
            return None
        if not result.options.gives_the_numbers_of(options):
            self.note(
                f"computing demo {presentation.name}, since {path} was made with other options"
            )
            return None
        return result

    def result(
        self, presentation: Presentation[OptionsT, DataT], options: OptionsT
    ) -> DemoResult[OptionsT, DataT]:
        """What a demo finds with `options`, stored or computed."""
        return self.stored(presentation, options) or presentation.run(options)
