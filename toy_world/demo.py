"""What every demo shares: its options, its result, and how the result is shown and written.

A demo is two functions, `run(options) -> DemoResult` and `draw(result) -> Figure`: the first
computes, the second draws, and only this module prints and writes. Its module `demo_<name>` offers
them as one value, `DEMO`, whose `main` is its command line; `python -m toy_world` runs them all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from mightnt.command_line import parse_command_line, run_command
from mightnt.figure_style import figure_style, save_figure
from mightnt.results import to_jsonable, write_json
from theory.errors import InvalidArgumentError, InvalidShapeError
from theory.paper import Statement


class Evidence(Enum):
    """How a number was obtained; every column of every table carries one."""

    EXACT = "exact"
    """Rational arithmetic, integers, or an exact sum of logarithms, rounded once to print."""
    CERTIFIED = "certified"
    """Ball arithmetic, or a solver's bracket or duality gap that was checked."""
    FLOAT = "float64"
    """Floating point by a closed form or a recursion, to the accuracy its function states."""
    MONTE_CARLO = "Monte Carlo"
    """Simulation; the interval is a column of its own or stands in the cell."""


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Options that every demo has; a demo's own options extend this class."""

    out: Path = Path("results")
    """Folder for what the demo writes: <name>.json, <name>.png and <name>.pdf."""
    seed: int = 0
    """Seed of everything random; the same seed gives the same numbers."""
    json: bool = False
    """Print the result as JSON on standard output instead of tables."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InvalidArgumentError(f"--seed must be >= 0, got {self.seed}")

    def rng(self) -> np.random.Generator:
        """The demo's one source of randomness."""
        return np.random.default_rng(self.seed)


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column: its header (units included) and the evidence behind its numbers."""

    header: str
    evidence: Evidence | None = None
    """None for what is no result: labels and settings."""


@dataclass(frozen=True, kw_only=True)
class DemoTable:
    """A table of results; cells are numbers (None where there is none to give) or text."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise InvalidShapeError(
                    f"a row of table '{self.title}' must have {len(self.columns)} cells, got "
                    f"{len(row)}"
                )


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What a demo found.

    Attributes:
        name: the demo's name, also that of its files.
        statements: the paper's statements it is about.
        findings: sentences that state what the numbers show, readings and scope included.
        tables: the numbers.
        data: anything else that the figure needs or a reader may want, JSON-like.
    """

    name: str
    statements: tuple[Statement, ...]
    findings: tuple[str, ...]
    tables: tuple[DemoTable, ...]
    data: dict[str, Any] = field(default_factory=dict)


OptionsT = TypeVar("OptionsT", bound=DemoOptions)


@dataclass(frozen=True, kw_only=True)
class Demo(Generic[OptionsT]):
    """A demo, as its module's `DEMO`.

    Attributes:
        name: `<name>` of the module `toy_world.demo_<name>`.
        options_type: the demo's options; every option has a default.
        run: computes the result.
        draw: draws it.
    """

    name: str
    options_type: type[OptionsT]
    run: Callable[[OptionsT], DemoResult]
    draw: Callable[[DemoResult], Figure]

    def main(self, argv: Sequence[str] | None = None) -> None:
        """The demo's command line (see `demo_main`)."""
        demo_main(
            self.options_type,
            self.run,
            self.draw,
            prog=f"python -m toy_world.demo_{self.name}",
            argv=argv,
        )


def demo_main(
    options_type: type[OptionsT],
    run: Callable[[OptionsT], DemoResult],
    draw: Callable[[DemoResult], Figure],
    *,
    prog: str,
    argv: Sequence[str] | None = None,
) -> None:
    """The command line of a demo: parse, run, print, write JSON and figure.

    Args:
        options_type: the demo's options; its docstring is the head of `--help`.
        run: computes the result.
        draw: draws it; called inside `figure_style()`.
        prog: the command as a person types it.
        argv: the options, `sys.argv[1:]` by default.
    """

    def main() -> None:
        options = parse_command_line(options_type, argv, prog=prog)
        result = run(options)
        show(result, options)
        write(result, draw, options)

    run_command(main)


def show(result: DemoResult, options: DemoOptions) -> None:
    """Print `result`: tables and findings, or JSON with `--json`."""
    if options.json:
        Console().print_json(data=to_jsonable(_document(result, options)))
        return
    show_tables(result)
    show_findings(result)


def show_tables(result: DemoResult) -> None:
    """Print the tables of `result`."""
    console = Console()
    for table in result.tables:
        console.print(_rich_table(table))
        if table.note:
            console.print(table.note, markup=False)
        console.print()


def show_findings(result: DemoResult) -> None:
    """Print what `result` is about and what it found."""
    console = Console()
    console.print(f"[bold]{result.name}[/bold]: {'; '.join(map(str, result.statements))}")
    for finding in result.findings:
        console.print(f"• {finding}", markup=False)
    console.print()


def write(result: DemoResult, draw: Callable[[DemoResult], Figure], options: DemoOptions) -> None:
    """Write `<out>/<name>.json`, `.png` and `.pdf`."""
    stem = options.out / result.name
    write_json(stem.with_suffix(".json"), _document(result, options))
    with figure_style():
        png, pdf = save_figure(draw(result), stem)
    console = Console(stderr=True)
    console.print(f"wrote {stem.with_suffix('.json')}, {png} and {pdf}", markup=False)


def format_cell(cell: Any) -> str:
    """A cell as printed: floats to four significant digits, `-` for None."""
    match cell:
        case None:
            return "-"
        case float() | np.floating():
            return f"{cell:.4g}"
        case _:
            return str(cell)


def _document(result: DemoResult, options: DemoOptions) -> dict[str, Any]:
    return {
        "name": result.name,
        "statements": [str(statement) for statement in result.statements],
        "options": options,
        "findings": result.findings,
        "tables": result.tables,
        "data": result.data,
    }


def _rich_table(table: DemoTable) -> Table:
    shown = Table(title=table.title, title_justify="left")
    for column in table.columns:
        evidence = f"\n[dim]{column.evidence.value}[/dim]" if column.evidence else ""
        shown.add_column(column.header + evidence, justify="right" if column.evidence else "left")
    for row in table.rows:
        shown.add_row(*map(format_cell, row))
    return shown
