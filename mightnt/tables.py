"""Tables of results: one type, shown in a terminal, as Markdown, or written for programs.

A table is columns and rows of cells. A column of *labels* holds text and is set left; a column of
*numbers* says how they are written and is set right, and may say how they were obtained
(`Evidence`). `mightnt.table_files` writes tables for programs.

On a terminal no number is ever cut. Labels are folded at their blanks; where that is not enough,
the columns are split over several blocks, each with the leading labels again; and where not even
one column fits beside the labels, every row becomes a list of its cells. What is not a terminal
gets lines as long as they need to be.
"""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from theory.errors import InvalidShapeError

if TYPE_CHECKING:  # SciPy takes a second to import, and a table needs none of it
    from mightnt.statistics import MeanOverRuns

NOTHING: Final = "-"
"""What a cell shows that has no number to give."""
GENERAL: Final = ".4g"
"""How numbers are written unless their column says otherwise."""
WIDEST_LABEL: Final = 60
"""Labels are folded to this many characters, however much room there is."""
_GAP: Final = 2
"""Blanks between two columns."""

Cell: TypeAlias = "str | float | bool | tuple[int, ...] | MeanOverRuns | Written | None"
"""Text, a number, whole numbers that belong together, a mean with its interval, or nothing."""


@dataclass(frozen=True)
class Written:
    """A cell with a text of its own, for people, and the values in it, for programs.

    Attributes:
        text: as it is shown.
        values: by what is added to the column's name for each; under `""` the cell's own.
    """

    text: str
    values: "Mapping[str, float | bool | str | None]" = field(hash=False)

    def __str__(self) -> str:
        return self.text


def as_fraction(number: Fraction) -> Written:
    """A rational number, shown exactly."""
    return Written(str(number), {"": float(number)})


class Evidence(Enum):
    """How a number was obtained."""

    EXACT = "exact"
    """Rational arithmetic, integers, or an exact sum of logarithms, rounded once to print."""
    CERTIFIED = "certified"
    """Ball arithmetic, or a solver's bracket or duality gap that was checked."""
    FLOAT = "float64"
    """Floating point by a closed form or a recursion, to the accuracy its function states."""
    MONTE_CARLO = "Monte Carlo"
    """Simulation; the interval is a column of its own or stands in the cell."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column.

    Attributes:
        header: for a person, units included; a line break is kept.
        evidence: how its numbers were obtained; None for labels and settings.
        format: how its numbers are written, as for `format`; None for labels, and for numbers
            with evidence that are written in general (`GENERAL`).
        key: for programs; the header if left out.
        infinity: how an infinite number is written.
    """

    header: str
    evidence: Evidence | None = None
    format: str | None = None
    key: str = ""
    infinity: str = "inf"

    @property
    def name(self) -> str:
        """The column's name for programs."""
        return self.key or " ".join(self.header.split())

    @property
    def is_label(self) -> bool:
        """Whether it holds labels."""
        return self.evidence is None and self.format is None

    def text(self, cell: Cell) -> str:
        """A cell for a person: a mean with its interval, `-` where there is nothing."""
        # Asked by name: the type's own module imports SciPy.
        if type(cell).__name__ == "MeanOverRuns":
            return self._mean(cell)
        match cell:
            case None:
                return NOTHING
            case bool() | str() | Written():
                return str(cell)
            case Integral() if not self.format:
                return str(cell)
            case Real():
                return self._number(float(cell))
        return str(cell)

    def _mean(self, cell: Any) -> str:
        if cell.low is None or cell.high is None or math.isnan(cell.mean):
            return self._number(cell.mean)
        low, high = self._number(cell.low), self._number(cell.high)
        return f"{self._number(cell.mean)} ({low} to {high})"

    def _number(self, value: float) -> str:
        if math.isnan(value):
            return NOTHING
        if math.isinf(value):
            return f"-{self.infinity}" if value < 0 else self.infinity
        return f"{value:{GENERAL if self.format is None else self.format}}"


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of results.

    Attributes:
        title: what it shows.
        columns: their headers and formats; their names differ.
        rows: a cell for each column.
        notes: how to read it, each a paragraph.
        name: short, for programs; may be empty.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidShapeError(
                f"columns of table '{self.title}' must have different names, got {twice[0]} twice"
            )
        for row in self.rows:
            if len(row) != len(self.columns):
                raise InvalidShapeError(
                    f"a row of table '{self.title}' must have {len(self.columns)} cells, got "
                    f"{len(row)}"
                )

    @classmethod
    def of_records(
        cls,
        records: Iterable[Mapping[str, Cell]],
        *,
        title: str,
        columns: Sequence[Column],
        notes: Sequence[str] = (),
        name: str = "",
    ) -> "Table":
        """A table from rows by the names of their columns; what a row lacks is nothing.

        Args:
            records: the rows.
            title: of the table.
            columns: of the table.
            notes: of the table.
            name: of the table.
        """
        rows = tuple(tuple(record.get(column.name) for column in columns) for record in records)
        return cls(title=title, columns=tuple(columns), rows=rows, notes=tuple(notes), name=name)

    @property
    def records(self) -> tuple[dict[str, Cell], ...]:
        """The rows by the names of their columns."""
        names = [column.name for column in self.columns]
        return tuple(dict(zip(names, row, strict=True)) for row in self.rows)

    @property
    def texts(self) -> tuple[tuple[str, ...], ...]:
        """The rows as a person reads them."""
        return tuple(
            tuple(column.text(cell) for column, cell in zip(self.columns, row, strict=True))
            for row in self.rows
        )


def to_markdown(table: Table) -> str:
    """The grid of a table as Markdown, without title and notes."""
    headers = [" ".join(column.header.split()) for column in table.columns]
    aligned = [":--" if column.is_label else "--:" for column in table.columns]
    lines = [headers, aligned, *table.texts]
    return "\n".join(f"| {' | '.join(map(_escaped, cells))} |" for cells in lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def print_table(table: Table, console: Console) -> None:
    """Print title, grid and notes; no number is cut, however narrow the terminal is.

    Args:
        table: what to print.
        console: where to.
    """
    layout = _Layout(table)
    width = console.width if console.is_terminal else layout.natural_width
    blocks = layout.blocks(width)
    # A console that is no terminal would fold lines at 80 characters.
    wide = console if console.is_terminal else Console(file=console.file, width=max(width, 80))
    if table.title:
        wide.print(table.title, style="italic", markup=False, highlight=False)
    if blocks is None:
        _print_records(table, wide)
    else:
        for i, block in enumerate(blocks):
            wide.print(*([""] if i else []), layout.rich(block), sep="\n", crop=False)
    for note in table.notes:
        wide.print(note, markup=False, highlight=False)


def _print_records(table: Table, console: Console) -> None:
    """Each row as a list of its cells, for terminals that are narrower than one column."""
    for row in table.texts:
        console.print()
        for column, text in zip(table.columns, row, strict=True):
            line = f"{' '.join(column.header.split())}: {text}"
            console.print(line, markup=False, highlight=False, crop=False, overflow="fold")


class _Layout:
    """How the columns of a table share the width of a terminal."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._texts = list(zip(*table.texts, strict=True)) or [()] * len(table.columns)
        self._headers = [
            _header(column, texts) for column, texts in zip(table.columns, self._texts, strict=True)
        ]
        everything = list(zip(table.columns, self._texts, self._headers, strict=True))
        self._widths = [
            max([1, *map(len, header.split("\n")), *(_extent(column, text) for text in texts)])
            for column, texts, header in everything
        ]
        self._least = [
            max([1, *map(len, header.split()), *(_longest_word(text) for text in texts)])
            if column.is_label
            else width
            for (column, texts, header), width in zip(everything, self._widths, strict=True)
        ]
        labels = 0
        while labels < len(table.columns) - 1 and table.columns[labels].is_label:
            labels += 1
        self._n_leading = max(labels, 1)

    @property
    def natural_width(self) -> int:
        """Characters of a line that holds all columns."""
        return sum(self._widths) + _GAP * (len(self._widths) - 1)

    def blocks(self, width: int) -> list[list[int]] | None:
        """The columns of each block that fits into `width`; None if not even one does."""
        leading = list(range(self._n_leading))
        blocks: list[list[int]] = []
        block = list(leading)
        for column in range(self._n_leading, len(self._widths)):
            if self._least_width([*leading, column]) > width:
                return None
            if self._least_width([*block, column]) > width:
                blocks.append(block)
                block = list(leading)
            block.append(column)
        if self._least_width(block) > width:
            return None
        self._width = width
        return [*blocks, block]

    def _least_width(self, columns: Sequence[int]) -> int:
        return sum(self._least[i] for i in columns) + _GAP * (len(columns) - 1)

    def rich(self, block: Sequence[int]) -> RichTable:
        """A block for rich, its columns at their widths."""
        widths = {i: self._widths[i] for i in block}
        surplus = sum(widths.values()) + _GAP * (len(block) - 1) - self._width
        # The widest label gives way first.
        while surplus > 0:
            give = max(block, key=lambda i: widths[i] - self._least[i])
            widths[give] -= 1
            surplus -= 1
        rich = RichTable(
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, 1),
            collapse_padding=True,
        )
        for i in block:
            column = self._table.columns[i]
            rich.add_column(
                Text(self._headers[i]),
                justify="left" if column.is_label else "right",
                width=widths[i],
                no_wrap=not column.is_label,
            )
        for row in self._table.texts:
            rich.add_row(*(Text(row[i]) for i in block))
        return rich


def _header(column: Column, texts: Iterable[str]) -> str:
    """The header folded to the width of the cells, and the evidence below it."""
    evidence = [column.evidence.value] if column.evidence else []
    width = max([1, *map(len, [*column.header.split(), *texts, *evidence])])
    lines = [
        line
        for part in column.header.split("\n")
        for line in textwrap.wrap(part, width, break_on_hyphens=False) or [""]
    ]
    return "\n".join([*lines, *evidence])


def _extent(column: Column, text: str) -> int:
    """How wide a cell is at its widest."""
    return min(len(text), max(WIDEST_LABEL, _longest_word(text))) if column.is_label else len(text)


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=0)
