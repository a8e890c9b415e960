"""Write the tables of a finished run: its behaviour, prices, spending and departure, over seeds.

    python -m llm_experiment.evaluation_tables --run results/llm

writes `tables.json`, `tables.md` and each table for programs (`mightnt.table_files`) into the
folder of a finished run and prints the first of them. What they hold, and over what their intervals
are, says `llm_experiment.measures.tables`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mightnt.command_line import parse_command_line, run_command

if TYPE_CHECKING:
    from mightnt.tables import Table

PROG: Final = "python -m llm_experiment.evaluation_tables"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Summarise a finished run: silence, prices, spending and departure, over seeds."""

    run: Path = Path("results/llm")
    """Folder of the run."""


def write_tables(folder: Path) -> "tuple[Table, ...]":
    """Write the tables of a finished run into its folder.

    Raises:
        ResultsError: the folder holds no finished run, or cannot be written.
    """
    from llm_experiment.measures.tables import agents_table, make_tables, store_tables
    from llm_experiment.records.folder import record_hash
    from llm_experiment.records.reading import read_run

    run = read_run(folder)
    run.check_finished()
    run.check_unchanged()
    tables = make_tables(run.rows, run.base, run.behaviour)
    agents = agents_table([({}, row) for row in run.rows])
    for path in store_tables(folder, tables, run.label, run.behaviour, agents=agents):
        record_hash(folder, path)
    return tables


def show_headline(tables: "Sequence[Table]", folder: Path) -> None:
    """Print the first table of a run, and where the others, too wide for a terminal, are."""
    from rich.console import Console

    from llm_experiment.measures.tables import TABLES_MARKDOWN, shown
    from mightnt.tables import print_table

    print_table(shown(tables[0]), Console())
    Console(stderr=True).print(
        f"everything is in {folder}, all tables in {folder / TABLES_MARKDOWN}", highlight=False
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, write, print."""

    def command() -> None:
        options = parse_command_line(Options, argv, prog=PROG)
        show_headline(write_tables(options.run), options.run)

    run_command(command)


if __name__ == "__main__":
    main()
