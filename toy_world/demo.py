"""What every demo shares: its options, what it found, and how that is shown, written and read.

A demo has two modules. `toy_world.demo_<name>` is its command: the options, and a `Demo` under
the name `DEMO`. It imports little, so that `--help` and a bad option answer at once. What the
demo shows is in `toy_world.presentations.<name>`, a `Presentation` under the name `PRESENTATION`:
it computes the *data* from the options (by a module of `toy_world.studies`), and makes tables,
findings and the figure of options and data alone. So a demo's JSON file, which holds both, can be
read back and shown again without computing anything (`Presentation.read`).
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import numpy as np
from rich.console import Console

from mightnt.command_line import parse_command_line, run_command
from mightnt.results import check_writable, from_jsonable, read_json, to_jsonable, write_json
from mightnt.table_files import write_tables
from mightnt.tables import Table, print_table
from theory.errors import InvalidArgumentError, ResultsError
from theory.paper import Statement
from toy_world.code_version import code_version

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WITHOUT_EFFECT: Final = ("out", "json", "jobs", "cluster")
"""Options that say where a demo computes and writes; its numbers do not depend on them."""


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Options that every demo has; a demo's own options extend this class."""

    out: Path = Path("results")
    """Folder for what the demo writes: `<name>.json`, `.png` and `.pdf`, and its tables."""
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

    def gives_the_numbers_of(self, other: "DemoOptions") -> bool:
        """Whether both ask for the same computation."""
        return type(self) is type(other) and all(
            getattr(self, option.name) == getattr(other, option.name)
            for option in fields(self)
            if option.name not in _WITHOUT_EFFECT
        )


OptionsT = TypeVar("OptionsT", bound=DemoOptions)
DataT = TypeVar("DataT")


@dataclass(frozen=True, kw_only=True)
class Presentation(Generic[OptionsT, DataT]):
    """How a demo's data are computed and shown, as `PRESENTATION` of its module.

    Attributes:
        name: the demo's name, also that of its files.
        statements: the paper's statements that it is about.
        options_type: the demo's options; every option has a default.
        data_type: what it computes: a frozen dataclass that `mightnt.results` writes and reads.
        compute: the data.
        tables: the numbers as tables.
        findings: sentences that state what the numbers show, readings and scope included.
        draw: the figure; called inside `mightnt.figure_style.figure_style`.
    """

    name: str
    statements: tuple[Statement, ...]
    options_type: type[OptionsT]
    data_type: type[DataT]
    compute: Callable[[OptionsT], DataT]
    tables: Callable[[OptionsT, DataT], tuple[Table, ...]]
    findings: Callable[[OptionsT, DataT], tuple[str, ...]]
    draw: Callable[[OptionsT, DataT], "Figure"]

    def run(self, options: OptionsT) -> "DemoResult[OptionsT, DataT]":
        """Compute what the demo finds."""
        return DemoResult(presentation=self, options=options, data=self.compute(options))

    def read(self, path: Path) -> "DemoResult[OptionsT, DataT]":
        """What a file that this version of the code wrote holds.

        Raises:
            ResultsError: the file cannot be read, or another version or another demo wrote it.
        """
        remedy = "run the demo again"
        found = read_json(path, lambda d: (d, d["name"], d.get("version")), remedy=remedy)
        if found is None:
            raise ResultsError(f"cannot read {path}: there is no such file; {remedy}")
        document, wrote, version = found
        if (wrote, version) != (self.name, code_version()):
            raise ResultsError(
                f"{path} was not written by this version of demo {self.name} (it holds version "
                f"{version} of {wrote}); run the demo again"
            )
        try:
            return DemoResult(
                presentation=self,
                options=from_jsonable(self.options_type, document["options"]),
                data=from_jsonable(self.data_type, document["data"]),
            )
        except (InvalidArgumentError, KeyError) as error:
            raise ResultsError(f"cannot read {path}: {error}; run the demo again") from error


@dataclass(frozen=True, kw_only=True)
class DemoResult(Generic[OptionsT, DataT]):
    """What a demo found.

    Attributes:
        presentation: how it is shown.
        options: that were given.
        data: that were computed from them.
    """

    presentation: Presentation[OptionsT, DataT]
    options: OptionsT
    data: DataT

    @property
    def name(self) -> str:
        """The demo's name."""
        return self.presentation.name

    @cached_property
    def findings(self) -> tuple[str, ...]:
        """What the numbers show."""
        return self.presentation.findings(self.options, self.data)

    @cached_property
    def tables(self) -> tuple[Table, ...]:
        """The numbers as tables."""
        return self.presentation.tables(self.options, self.data)

    def figure(self) -> "Figure":
        """The figure; call inside `mightnt.figure_style.figure_style`."""
        return self.presentation.draw(self.options, self.data)

    @property
    def document(self) -> dict[str, Any]:
        """What the demo's JSON file holds."""
        return {
            "name": self.name,
            "statements": [str(statement) for statement in self.presentation.statements],
            "version": code_version(),
            "options": self.options,
            "findings": self.findings,
            "tables": self.tables,
            "data": self.data,
        }


@dataclass(frozen=True, kw_only=True)
class Demo(Generic[OptionsT]):
    """A demo's command, as `DEMO` of its module.

    Attributes:
        name: `<name>` of the module `toy_world.demo_<name>`.
        options_type: the demo's options; the docstring is the head of `--help`.
    """

    name: str
    options_type: type[OptionsT]

    def presentation(self) -> Presentation[OptionsT, Any]:
        """How the demo is computed and shown."""
        # By its name and not at the top of the module: it imports what computes and draws.
        module = importlib.import_module(f"toy_world.presentations.{self.name}")
        presentation: Presentation[OptionsT, Any] = module.PRESENTATION
        return presentation

    def run(self, options: OptionsT) -> DemoResult[Any, Any]:
        """What the demo finds."""
        return self.presentation().run(options)

    def main(self, argv: Sequence[str] | None = None) -> None:
        """The command line: parse, run, write JSON and figure, print.

        Args:
            argv: the options, `sys.argv[1:]` by default.
        """

        def command() -> None:
            options = parse_command_line(
                self.options_type, argv, prog=f"python -m toy_world.demo_{self.name}"
            )
            check_writable(options.out / f"{self.name}.json")
            result = self.run(options)
            write(result)
            if options.json:
                Console().print_json(data=to_jsonable(result.document))
            else:
                print_tables(result)
                print_findings(result)

        run_command(command)


def print_tables(result: DemoResult[Any, Any]) -> None:
    """Print the tables of `result`."""
    console = Console()
    for table in result.tables:
        print_table(table, console)
        console.print()


def print_findings(result: DemoResult[Any, Any]) -> None:
    """Print what `result` is about and what it found."""
    console = Console()
    statements = "; ".join(map(str, result.presentation.statements))
    console.print(f"[bold]{result.name}[/bold]: {statements}")
    for finding in result.findings:
        console.print(f"• {finding}", markup=False)
    console.print()


def write(result: DemoResult[Any, Any]) -> None:
    """Write `<out>/<name>.json`, its tables (`mightnt.table_files`), `.png` and `.pdf`."""
    from mightnt.figure_style import figure_style, save_figure  # noqa: PLC0415 - see the module

    stem = result.options.out / result.name
    write_json(stem.with_suffix(".json"), result.document)
    write_tables(stem.with_suffix(".json"), result.tables)
    with figure_style():
        png, pdf = save_figure(result.figure(), stem)
    console = Console(stderr=True)
    files = f"{stem.with_suffix('.json')}, its tables beside it, {png} and {pdf}"
    console.print(f"wrote {files}", markup=False, soft_wrap=True)
