"""A figure or a table: how it is made, and how it is written.

An artefact is a function from `Sources` to a `Product`, `build` of its module `figure_<n>` or
`table_<n>`. Only this module writes:

    <name>.csv     the data behind it, one row a mark, interval or cell
    <name>.txt     its caption: what is shown, in which units, over what the bands are
    <name>.png, <name>.pdf     a figure
    <name>.md      a table

Equal data give equal bytes.
"""

import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mightnt.figure_style import save_figure
from mightnt.results import write_atomically
from paper_figures.results import Sources
from theory.errors import InvalidShapeError


@dataclass(frozen=True, kw_only=True)
class Data:
    """The data behind a figure or table.

    Attributes:
        columns: headers, units included.
        rows: as many cells each; None where there is nothing, such as an interval over one run.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise InvalidShapeError(
                    f"a row of data must have {len(self.columns)} cells ({', '.join(self.columns)})"
                    f", got {len(row)}"
                )

    def to_csv(self) -> str:
        """As CSV: floats in full, nothing for None and nan."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_cell(cell) for cell in row] for row in self.rows)
        return text.getvalue()


@dataclass(frozen=True, kw_only=True)
class Product:
    """What is made.

    Attributes:
        picture: a figure, or a table in Markdown.
        caption: what it shows; one paragraph.
        data: behind it; None for a diagram, which has none.
    """

    picture: Figure | str
    caption: str
    data: Data | None


Build = Callable[[Sources], Product]
"""Makes an artefact, inside `mightnt.figure_style.figure_style`.

Raises `MissingDataError` where the sources lack what it needs.
"""


def write_product(name: str, product: Product, folder: Path) -> tuple[Path, ...]:
    """Write the files of a product.

    Returns:
        Their paths.

    Raises:
        ResultsError: the folder cannot be written.
    """
    stem = folder / name
    if isinstance(product.picture, Figure):
        paths = list(save_figure(product.picture, stem))
    else:
        paths = [_write(stem.with_suffix(".md"), f"{product.picture}\n\n{product.caption}\n")]
    paths.append(_write(stem.with_suffix(".txt"), f"{product.caption}\n"))
    if product.data is not None:
        paths.append(_write(stem.with_suffix(".csv"), product.data.to_csv()))
    return tuple(paths)


def _write(path: Path, text: str) -> Path:
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return path


def _cell(cell: Any) -> Any:
    return "" if cell is None or (isinstance(cell, float) and math.isnan(cell)) else cell
