"""The tables of several runs as one: a run's own tables, with what sets the runs apart first.

    tables.json, tables.md   the tables of `measures.tables`, the rows of all runs in each; each
                             for programs beside them (`mightnt.table_files`)
    table.csv                one row a group, with the columns of all these tables but `prices`;
                             an interval's ends are `<column>_low` and `<column>_high`
    runs.csv                 one row an agent and evaluation length, with every single number

Means and intervals are over agents that differ by their seed alone, as in a run: an agent is the
unit of independence, never an episode.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llm_experiment.dialogue.behaviour import SEVERAL
from llm_experiment.evaluation_tables import write_tables
from llm_experiment.measures.tables import (
    BASE_ROW,
    RUNS,
    agents_table,
    make_tables,
    shown,
    store_tables,
    without,
)
from llm_experiment.records.reading import read_run
from mightnt.results import write_atomically
from mightnt.table_files import cell_values, flat_rows
from mightnt.tables import Cell, Column, Table

TABLE_CSV: Final = "table.csv"
RUNS_CSV: Final = "runs.csv"
_NAMES: Final = (
    Column(key="task", header="task"),
    Column(key="constraint", header="constraint"),
    Column(key="trained_at_n_tokens", header="trained at", format=RUNS.format),
)
"""The first columns."""
_GROUP: Final = (*(column.name for column in _NAMES), "agent", "budget_nats", "length", "runs")

Record = dict[str, Cell]


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """One run of a sweep.

    Attributes:
        folder: with its results.
        task: of its dialogues.
        constraint: whose it is.
        n_tokens: length of the episodes that its agents are trained on in the end.
    """

    folder: Path
    task: str
    constraint: str
    n_tokens: int

    @property
    def names(self) -> Record:
        """What sets the rows of this run apart from those of others."""
        return {
            "task": self.task,
            "constraint": self.constraint,
            "trained_at_n_tokens": self.n_tokens,
        }


def write_sweep_tables(out: Path, runs: Sequence[FinishedRun], label: str) -> tuple[Table, ...]:
    """Write the tables of all runs as one into `out`.

    Raises:
        ResultsError: a run is not finished, or a file cannot be written.
    """
    for run in runs:
        write_tables(run.folder)
    read = [(run.names, read_run(run.folder)) for run in runs]
    behaviours = {each.behaviour for _, each in read}
    words = behaviours.pop() if len(behaviours) == 1 else SEVERAL
    tables = joined([(names, make_tables(run.rows, run.base, words)) for names, run in read])
    agents = agents_table([(names, row) for names, run in read for row in run.rows])
    store_tables(out, tables, label, words, agents=agents)
    _write_csv(out / TABLE_CSV, _wide(tables))
    _write_csv(out / RUNS_CSV, flat_rows(agents))
    return tables


def joined(runs: Sequence[tuple[Record, Sequence[Table]]]) -> tuple[Table, ...]:
    """Each table with the rows of all runs, what sets the runs apart in the first columns.

    The base policy is not trained: runs that differ by the length of training have it in common,
    and its rows appear once. A note that not all runs have says of which task it is.

    Args:
        runs: what sets each apart (`FinishedRun.names`), and its tables.
    """
    by_name: dict[str, list[tuple[Record, Table]]] = {}
    for names, tables in runs:
        for table in tables:
            by_name.setdefault(table.name, []).append((names, table))
    return tuple(_joined(parts) for parts in by_name.values())


def _joined(parts: Sequence[tuple[Record, Table]]) -> Table:
    records: list[Record] = []
    seen: set[tuple[Cell, ...]] = set()
    notes: dict[str, None] = {}
    columns = {column.name: column for column in _NAMES}
    for names, table in parts:
        columns |= {column.name: column for column in table.columns}
        for record in table.records:
            whole = names | record
            if record["agent"] == BASE_ROW:
                whole["trained_at_n_tokens"] = None
                who = tuple(whole.get(key) for key in (*_GROUP, "turn"))
                if who in seen:
                    continue
                seen.add(who)
            records.append(whole)
        for note in table.notes:
            shared = all(note in other.notes for _, other in parts)
            notes.setdefault(note if shared else f"{names['task']}: {note}")
    first = parts[0][1]
    whole_table = Table.of_records(
        records,
        title=first.title,
        columns=tuple(columns.values()),
        notes=tuple(notes),
        name=first.name,
    )
    return shown(whole_table)


def narrowed(table: Table) -> Table:
    """A joined table without the first columns that set nothing apart, for a narrow terminal."""
    names = (column.name for column in _NAMES)
    constant = [name for name in names if len({row[name] for row in table.records} - {None}) <= 1]
    return without(table, *constant)


def _wide(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """One row a group, with the columns of every table that has one row a group."""
    groups: dict[tuple[Cell, ...], dict[str, Any]] = {}
    for table in tables:
        columns = {column.name for column in shown(table).columns}
        if "turn" in columns or not set(_GROUP) <= columns:
            continue
        for row in table.records:
            whole = groups.setdefault(tuple(row[key] for key in _GROUP), {})
            for key, cell in row.items():
                whole |= {
                    f"{key}_{part}" if part else key: value
                    for part, value in cell_values(cell).items()
                }
    return list(groups.values())


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(rows)

    write_atomically(path, write)
