"""Tables as files that programs read: one JSON object a row, beside a command's JSON file.

What a command writes as `STEM.json` holds everything, nested. Beside it each of its tables has a
file `STEM.NAME.jsonl`, flat and typed, which pandas (`read_json(path, lines=True)`), pyarrow
(`pyarrow.json.read_json`), DuckDB (`FROM 'STEM.NAME.jsonl'`) and Python's json read without further
options:

- a field is called as its column, in lower case, with `_` for what is no letter and no digit;
- a mean with its interval is three fields, `x`, `x_low` and `x_high`;
- numbers are numbers, in full: in a column all whole or all floats. What is not there, or is nan,
  is null. What is infinite is `Infinity`, as those readers have it, and not null: they leave nulls
  out of a mean or a maximum, which would make an infinite KL a finite one;
- all rows of a file have the same fields.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Final, TypeAlias

from rich.console import Console

from mightnt.results import write_atomically, write_json
from mightnt.tables import Cell, Table, Written, print_table, to_markdown
from theory.errors import InvalidShapeError

Value: TypeAlias = "str | float | bool | list[int] | None"

_NO_NAME: Final = re.compile(r"[^a-z0-9]+")
_OWN: Final = ""
"""What is added to a column's name for a cell's own value."""


def publish(
    file: Path,
    content: object,
    tables: Sequence[Table],
    console: Console,
    *,
    draw: Callable[[Path], Iterable[Path]],
) -> None:
    """Write a command's results, and then show them.

    Args:
        file: for all of them, as JSON; beside it come the tables, as Markdown and for programs.
        content: that of the JSON file.
        tables: of different names.
        console: shows the tables, and what was written.
        draw: writes the figure's files, whose path without an ending it is given, and says which
            they are.

    Raises:
        InvalidShapeError: as `write_tables`.
        ResultsError: a file cannot be written.
    """
    write_json(file, content)
    grids = file.with_suffix(".md")
    _write(grids, "\n\n".join(map(to_markdown, tables)) + "\n")
    paths = (file, grids, *write_tables(file, tables), *draw(file.with_suffix("")))
    for table in tables:
        print_table(table, console)
    for path in paths:
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)


def table_path(file: Path, name: str) -> Path:
    """Where the table of a name is, beside a command's JSON file."""
    return file.with_name(f"{file.stem}.{name}.jsonl")


def write_tables(file: Path, tables: Iterable[Table]) -> tuple[Path, ...]:
    """Write every table beside a command's JSON file, each whole or not at all.

    Args:
        file: the JSON file.
        tables: of different names.

    Returns:
        The files, a table each.

    Raises:
        InvalidShapeError: a table without a name, two of one name, or one without types
            (`flat_rows`).
        ResultsError: a file cannot be written.
    """
    texts: dict[Path, str] = {}
    for table in tables:
        path = table_path(file, table.name)
        if not table.name or path in texts:
            raise InvalidShapeError(
                f"tables of one file must have names that differ, got {table.name!r} for "
                f"'{table.title}'"
            )
        rows = (json.dumps(row, ensure_ascii=False) for row in flat_rows(table))
        texts[path] = "".join(f"{row}\n" for row in rows)
    for path, text in texts.items():
        _write(path, text)
    return tuple(texts)


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def flat_rows(table: Table) -> tuple[dict[str, Value], ...]:
    """The rows of a table, of JSON's plain types; see the module.

    Raises:
        InvalidShapeError: a field with values of several types, or two fields of one name.
    """
    rows: tuple[dict[str, Value], ...] = tuple({} for _ in table.rows)
    for place, column in enumerate(table.columns):
        for name, values in _fields(column.name, [cells[place] for cells in table.rows]):
            kinds = sorted({type(value).__name__ for value in values if value is not None})
            if len(kinds) > 1:
                raise InvalidShapeError(
                    f"field {name} of table '{table.title}' must be of one type, got "
                    f"{' and '.join(kinds)}; write its cells as `Written`, with their values"
                )
            if any(name in row for row in rows):
                raise InvalidShapeError(
                    f"two columns of table '{table.title}' are field {name}; give one another key"
                )
            for row, value in zip(rows, values, strict=True):
                row[name] = value
    return rows


def field_name(name: str) -> str:
    """A column's name as a field's: `KL(pi||xi) (nats)` is `kl_pi_xi_nats`."""
    return _NO_NAME.sub("_", name.lower()).strip("_") or "value"


def _fields(name: str, cells: Sequence[Cell]) -> Iterator[tuple[str, list[Value]]]:
    """The fields of one column, with a value for each row."""
    parts = [{} if cell is None else cell_values(cell) for cell in cells]
    for part in dict.fromkeys(part for each in parts for part in each) or [_OWN]:
        yield field_name(f"{name}_{part}"), _typed([each.get(part) for each in parts])


def cell_values(cell: Any) -> Mapping[str, Any]:
    """The values of one cell, by what is added to its column's name for each; `""` for none."""
    if isinstance(cell, Written):
        return cell.values
    if type(cell).__name__ == "MeanOverRuns":  # by name: its module imports SciPy
        return {_OWN: cell.mean, "low": cell.low, "high": cell.high}
    return {_OWN: cell}


def _typed(cells: Sequence[Any]) -> list[Value]:
    """Values of plain types, all numbers floats if one is."""
    values = [_plain(cell) for cell in cells]
    if any(isinstance(value, float) for value in values):
        return [float(value) if type(value) is int else value for value in values]
    return values


def _plain(cell: Any) -> Value:
    match cell:
        case None | bool() | str():
            return cell
        case tuple():
            return [int(number) for number in cell]
        case Integral():
            return int(cell)
        case Real():
            value = float(cell)
            return None if math.isnan(value) else value
    raise InvalidShapeError(f"a table's cell must be a text or a number, got {cell!r:.40}")
