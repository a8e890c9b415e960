"""A small run folder made before run folders had one reader, and the numbers that it gave then.

`data/tiny-run` was made by `llm_experiment.run` at commit 9940bd5, when agents were trained at
budget 0, too; weights, TensorBoard's files, the report and `tables.md` are left out. Its
`summary.json` and `tables.json` are as they were written. `data/tiny-run-numbers.json` holds what
the report said first and `sums` of the data behind each figure, from the same commit.
"""

import csv
import json
import math
import shutil
from pathlib import Path

DATA = Path(__file__).parents[1] / "data"
RECORDED = DATA / "tiny-run"


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


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False
