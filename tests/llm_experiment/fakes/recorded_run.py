"""A small run folder made before run folders had one reader, and the numbers that it gave then.

`data/tiny-run` was made by `llm_experiment.run` at commit 9940bd5, when agents were trained at
budget 0, too; weights, TensorBoard's files, the report and `tables.md` are left out. Its
`summary.json` and `tables.json` are as they were written. `data/tiny-run-numbers.json` holds what
the report said first and `sums` of the data behind each figure, from the same commit.

`data/tiny-run-tables.md` is the tables of that run as they are read today, with every number for
programs below them; `python -m tests.llm_experiment.fakes.recorded_run` writes it again, after a
change of the tables that is meant.
"""

import csv
import json
import math
import shutil
import tempfile
from pathlib import Path

from llm_experiment.evaluation_tables import write_tables

DATA = Path(__file__).parents[1] / "data"
RECORDED = DATA / "tiny-run"
TABLES = DATA / "tiny-run-tables.md"


def copied(folder: Path) -> Path:
    """A copy of the run, to be written to."""
    return shutil.copytree(RECORDED, folder / "tiny-run")


def recorded_numbers() -> dict:
    """What the report and the figures of the run were when it was made."""
    return json.loads((DATA / "tiny-run-numbers.json").read_text(encoding="utf-8"))


def sums(path: Path) -> dict[str, list[float]]:
    """Of every column of a CSV file the number of numbers, their sum and that of their squares."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {}
    for name in rows[0]:
        numbers = [float(row[name]) for row in rows if _is_number(row[name])]
        found[name] = [len(numbers), math.fsum(numbers), math.fsum(x * x for x in numbers)]
    return found


def tables_text(folder: Path) -> str:
    """The tables of a run, made again: for people, then for programs."""
    write_tables(folder)
    return "\n".join(
        (folder / name).read_text(encoding="utf-8") for name in ("tables.md", "tables.json")
    )


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        TABLES.write_text(tables_text(copied(Path(scratch))), encoding="utf-8")
