"""`make mutants`: which share of small changes of the code do the tests notice?

A random sample of the changes of `tests.mutation.changes`, each tried against the tests that
execute the changed line (`tests.mutation.covering`). Stop it and start it again: what was found is
kept in `results/mutants` and used as long as the changed module and its tests are the same. Changes
are tried in random order, so that a part of a sample is a sample too: where it is stopped, it says
what it found until then.
"""

import hashlib
import json
import tomllib
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console

from mightnt.command_line import parse_command_line, run_command
from mightnt.progress import track
from mightnt.results import check_writable
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
    kept = store / "outcomes.jsonl"
    check_writable(kept)
    console = Console()
    drawn = sampled_changes(options.only, options.n_changes, options.seed)
    covering = measured(REPOSITORY, store, packages=PACKAGES, n_workers=options.n_workers)
    equivalent = equivalents()
    sample = [each for each in drawn if (each.path, each.old, each.new) not in equivalent]
    trials = [_trial(change, covering, options.seconds_per_change) for change in sample]
    trials = [trials[i] for i in np.random.default_rng(options.seed).permutation(len(trials))]
    keys = {id(trial): _key(trial, covering) for trial in trials}
    outcomes = read_outcomes(kept)
    waiting = [trial for trial in trials if keys[id(trial)] not in outcomes]
    results = results_of_trials(
        waiting, repository=REPOSITORY, store=store, n_workers=options.n_workers
    )
    try:
        with kept.open("a", encoding="utf-8") as file, closing(results):
            for number, result in enumerate(track(results, "changes", total=len(waiting)), 1):
                key = keys[id(result.trial)]
                outcomes[key] = {
                    "key": key,
                    "outcome": result.outcome.value,
                    "change": str(result.trial.change),
                    "noticed_by": result.noticed_by,
                }
                file.write(json.dumps(outcomes[key]) + "\n")
                file.flush()
                line = f"{number}/{len(waiting)} {result.outcome.value}: {result.trial.change}"
                _say(line, console)
    finally:
        tried = [
            (trial, outcomes[keys[id(trial)]]) for trial in trials if keys[id(trial)] in outcomes
        ]
        found = [(trial, Outcome(outcome["outcome"])) for trial, outcome in tried]
        for trial, outcome in found:
            if outcome is Outcome.SURVIVED:
                _say(f"survived {len(trial.tests)} tests: {trial.change}", console)
        if found:
            about = f"{len(found)} of {len(trials)} changes of the sample of seed {options.seed}"
            n_equivalent = len(drawn) - len(sample)
            print_table(summary(found, about=about, n_equivalent=n_equivalent), console)


def _say(line: str, console: Console) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def sampled_changes(folders: Sequence[str], n_changes: int, seed: int) -> list[Change]:
    """Changes drawn without replacement, from each folder in proportion to its changes.

    Args:
        folders: or modules, below the repository.
        n_changes: in all; fewer if there are no more.
        seed: of the draw.

    Raises:
        InvalidArgumentError: there is no such folder or module, or nothing in it can be changed.
    """
    rng = np.random.default_rng(seed)
    strata = []
    for folder in folders:
        place = REPOSITORY / folder
        modules = [place] if place.is_file() else sorted(place.rglob("*.py"))
        if not modules:
            raise InvalidArgumentError(f"--only must name folders or modules, got {folder}")
        paths = [str(path.relative_to(REPOSITORY)) for path in modules]
        files = [changes_of_file(REPOSITORY, path) for path in track(paths, f"reading {folder}")]
        strata.append([(file, i) for file in files for i in range(len(file))])
    total = sum(map(len, strata))
    if not total:
        raise InvalidArgumentError(f"nothing can be changed in {' '.join(folders)}")
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


def summary(found: Iterable[tuple[Trial, Outcome]], *, about: str, n_equivalent: int) -> Table:
    """Changes by folder and what became of them; those that ran out of time are counted apart."""
    rows: dict[str, list[Outcome]] = {}
    for trial, outcome in found:
        folder = next(f for f in (*CHANGED, trial.change.path) if trial.change.path.startswith(f))
        rows.setdefault(folder, []).append(outcome)
    everything = [outcome for outcomes in rows.values() for outcome in outcomes]
    headers = ("changes", "noticed", "survived", "out of time")
    columns = (
        Column(header="folder"),
        *(Column(header=header, format=".0f") for header in headers),
        Column(header="share noticed (95%)"),
    )
    return Table(
        title="What the tests notice",
        columns=columns,
        rows=tuple(_row(name, each) for name, each in [*sorted(rows.items()), ("all", everything)]),
        notes=(
            f"{about}; {n_equivalent} equivalent ones are left out. The share is of those that "
            "were noticed or survived; in brackets: Wilson's interval.",
        ),
    )


def _row(name: str, outcomes: list[Outcome]) -> tuple[str | int, ...]:
    noticed, survived, out_of_time = (
        outcomes.count(outcome)
        for outcome in (Outcome.NOTICED, Outcome.SURVIVED, Outcome.TIMED_OUT)
    )
    decided = noticed + survived
    share = "-"
    if decided:
        interval = share_interval(noticed, decided, kind=ShareInterval.WILSON)
        share = f"{noticed / decided:.1%} ({interval.low:.1%} to {interval.high:.1%})"
    return (name, len(outcomes), noticed, survived, out_of_time, share)
