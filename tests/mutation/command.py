"""`make mutants`: which share of small changes of the code do the tests notice?

A random sample of the changes of `tests.mutation.changes`, each tried against the tests that
execute the changed line (`tests.mutation.covering`). Stop it and start it again: what was found is
kept in `results/mutants` and used as long as the changed module and its tests are the same.
"""

import hashlib
import json
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console

from mightnt.command_line import parse_command_line, run_command
from mightnt.statistics import ShareInterval, share_interval
from mightnt.tables import Column, Table, print_table
from tests.mutation.changes import Change, changes_of_file
from tests.mutation.covering import Covering, file_hash, measured
from tests.mutation.trials import Outcome, Trial, read_outcomes, results_of_trials
from theory.errors import InvalidArgumentError

REPOSITORY: Final = Path(__file__).parents[2]
EQUIVALENT: Final = Path(__file__).with_name("equivalent.toml")
CHANGED: Final = (
    *("theory", "toy_world", "proofs_check"),
    *("llm_experiment/agent", "llm_experiment/measures", "llm_experiment/records"),
)
"""The folders whose code is changed."""
PACKAGES: Final = ("theory", "mightnt", "toy_world", "proofs_check", "llm_experiment")


@dataclass(frozen=True, kw_only=True)
class MutationOptions:
    """Change the code in one place, run the tests of that place, and count what they notice."""

    n_changes: int = 200
    """How many changes to try, drawn from each folder in proportion to what can be changed."""
    seed: int = 0
    """Of the sample."""
    only: tuple[str, ...] = CHANGED
    """Change these folders or modules."""
    seconds_per_change: float = 60.0
    """Give a change no more tests than take this long, the module's own and the fastest first."""
    n_workers: int = 2
    """Changes tried at a time."""
    store: Path = Path("results/mutants")
    """Where coverage, copies of the code, and what was found are kept."""

    def __post_init__(self) -> None:
        for name in ("n_changes", "n_workers"):
            if getattr(self, name) < 1:
                option = name.replace("_", "-")
                raise InvalidArgumentError(f"--{option} must be >= 1, got {getattr(self, name)}")


def main() -> None:
    """Try the changes that the command line asks for."""
    run_command(lambda: _run(parse_command_line(MutationOptions, prog="python -m tests.mutation")))


def _run(options: MutationOptions) -> None:
    store = options.store.resolve()
    store.mkdir(parents=True, exist_ok=True)
    console = Console()
    covering = measured(REPOSITORY, store, packages=PACKAGES, n_workers=options.n_workers)
    equivalent = equivalents()
    drawn = sampled_changes(options.only, options.n_changes, options.seed)
    sample = [each for each in drawn if (each.path, each.old, each.new) not in equivalent]
    trials = [_trial(change, covering, options.seconds_per_change) for change in sample]
    kept = store / "outcomes.jsonl"
    outcomes = read_outcomes(kept)
    waiting = [trial for trial in trials if _key(trial, covering) not in outcomes]
    results = results_of_trials(
        waiting, repository=REPOSITORY, store=store, n_workers=options.n_workers
    )
    with kept.open("a", encoding="utf-8") as file:
        for number, result in enumerate(results, 1):
            key = _key(result.trial, covering)
            outcomes[key] = {
                "key": key,
                "outcome": result.outcome.value,
                "change": str(result.trial.change),
                "noticed_by": result.noticed_by,
            }
            file.write(json.dumps(outcomes[key]) + "\n")
            file.flush()
            line = f"{number}/{len(waiting)} {result.outcome.value}: {result.trial.change}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    found = [(trial, Outcome(outcomes[_key(trial, covering)]["outcome"])) for trial in trials]
    for trial, outcome in found:
        if outcome is Outcome.SURVIVED:
            line = f"{trial.change}  ({len(trial.tests)} tests)"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    n_equivalent = len(drawn) - len(sample)
    print_table(summary(found, n_equivalent=n_equivalent, seed=options.seed), console)


def sampled_changes(folders: Sequence[str], n_changes: int, seed: int) -> list[Change]:
    """Changes drawn without replacement, from each folder in proportion to its changes.

    Args:
        folders: or modules, below the repository.
        n_changes: in all; fewer if there are no more.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    strata = []
    for folder in folders:
        place = REPOSITORY / folder
        modules = [place] if place.is_file() else sorted(place.rglob("*.py"))
        files = [changes_of_file(REPOSITORY, str(path.relative_to(REPOSITORY))) for path in modules]
        strata.append([(file, i) for file in files for i in range(len(file))])
    total = sum(map(len, strata))
    ends = np.round(np.cumsum([0, *map(len, strata)]) * min(1.0, n_changes / total)).astype(int)
    drawn = [
        stratum[i]
        for stratum, size in zip(strata, np.diff(ends), strict=True)
        for i in rng.choice(len(stratum), size=size, replace=False)
    ]
    return [file[i] for file, i in drawn]


def equivalents() -> dict[tuple[str, str, str], str]:
    """Why a change of a file's line into another is none, by file, old and new line."""
    entries = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).get("change", [])
    return {(entry["path"], entry["old"], entry["new"]): entry["why"] for entry in entries}


def _trial(change: Change, covering: Covering, seconds: float) -> Trial:
    tests = covering.selection(change.path, change.line, seconds=seconds)
    return Trial(change=change, tests=tuple(tests), seconds=covering.duration(tests))


def _key(trial: Trial, covering: Covering) -> str:
    """What a trial depends on: the changed code, and the tests and their files."""
    files = sorted({test.split("::")[0] for test in trial.tests})
    parts = [trial.change.path, trial.change.code, *trial.tests]
    parts += [covering.hashes.get(file) or file_hash(REPOSITORY / file) for file in files]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def summary(found: Iterable[tuple[Trial, Outcome]], *, n_equivalent: int, seed: int) -> Table:
    """Changes by folder and what became of them; a time-out counts as noticed."""
    rows: dict[str, list[Outcome]] = {}
    for trial, outcome in found:
        folder = next(f for f in (*CHANGED, trial.change.path) if trial.change.path.startswith(f))
        rows.setdefault(folder, []).append(outcome)
    everything = [outcome for outcomes in rows.values() for outcome in outcomes]
    columns = (
        Column(header="folder"),
        *(Column(header=header, format="d") for header in ("changes", "noticed", "timed out")),
        Column(header="survived", format="d"),
        Column(header="share noticed (95%)"),
    )
    return Table(
        title="What the tests notice",
        columns=columns,
        rows=tuple(_row(name, each) for name, each in [*rows.items(), ("all", everything)]),
        notes=(
            f"Sample of seed {seed}; {n_equivalent} equivalent changes are left out. A time-out "
            "counts as noticed. In brackets: Wilson's interval.",
        ),
    )


def _row(name: str, outcomes: list[Outcome]) -> tuple[str | int, ...]:
    counts = [
        outcomes.count(outcome)
        for outcome in (Outcome.NOTICED, Outcome.TIMED_OUT, Outcome.SURVIVED)
    ]
    noticed = counts[0] + counts[1]
    interval = share_interval(noticed, len(outcomes), kind=ShareInterval.WILSON)
    share = f"{noticed / len(outcomes):.1%} ({interval.low:.1%} to {interval.high:.1%})"
    return (name, len(outcomes), *counts, share)
