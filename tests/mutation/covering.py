"""Which tests execute which line, and how long each takes: measured, kept, and measured again
where a test file or the code that it executes changed.

It is measured in portions of a few test files, and kept after each: a measurement that was stopped
goes on where it was.

Lines that run at import, compiled functions, and what a fixture shares out are executed by no test
that coverage could see, or by the first one alone. So after the tests of a line come those of its
module: those that execute any line of it, and those in the test file of its name.
"""

import gzip
import hashlib
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from coverage import CoverageData

from mightnt.progress import progress_bar
from theory.errors import MightntError

MARKERS: Final = "not slow and not gpu"
CONFIGURATION: Final = "[run]\nbranch = false\nsource = {packages}\ndata_file = {data}\n"
NO_TESTS: Final = 5
"""The exit code of pytest where every test is slow."""
PORTION: Final = 16
"""So many test files are measured at a time."""


class TestsFailError(MightntError):
    """A change can be noticed only by tests that pass without it."""


@dataclass(kw_only=True)
class Covering:
    """What executes what.

    Attributes:
        hashes: of every file when it was measured.
        seconds: of every test.
        tests: by file and line.
        waiting: the test files that have yet to be measured.
    """

    hashes: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    tests: dict[str, dict[int, set[str]]] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)

    def selection(self, path: str, line: int, *, seconds: float) -> list[str]:
        """The tests that may notice a change of a line, the likeliest first.

        First the tests that execute the line, then all others of its module: what a fixture, or
        whatever else is shared, does for several tests was seen in the first of them alone. Among
        either those in the file of the module's name come first, then the fast ones.

        Args:
            path: of the module.
            line: of it.
            seconds: no further test once they have taken that long together.
        """
        own = test_file_of(path)
        lines = self.tests.get(path, {})
        of_line = lines.get(line) or set()
        of_module = {
            *(test for tests in lines.values() for test in tests),
            *(test for test in self.seconds if test.startswith(own + "::")),
        }
        ordered = sorted(
            of_module & self.seconds.keys(),
            key=lambda test: (
                *(test not in of_line, not test.startswith(own + "::")),
                *(self.seconds[test], test),
            ),
        )
        selected, total = [], 0.0
        for test in ordered:
            if selected and total + self.seconds[test] > seconds:
                continue
            total += self.seconds[test]
            selected.append(test)
        return selected

    def duration(self, tests: Iterable[str]) -> float:
        """How long tests take, in seconds."""
        return sum(self.seconds[test] for test in tests)


def test_file_of(path: str) -> str:
    """The test file of a module's name."""
    module = PurePosixPath(path)
    return str(PurePosixPath("tests", *module.parts[:-1], f"test_{module.name}"))


def file_hash(path: Path) -> str:
    """What tells one content of a file from another."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def measured(
    repository: Path, store: Path, *, packages: tuple[str, ...], n_workers: int
) -> Covering:
    """The coverage of the present code by the present tests; only what changed is run.

    Args:
        repository: with the code and the tests.
        store: the folder for what was measured.
        packages: whose lines count.
        n_workers: processes of pytest.

    Raises:
        TestsFailError: some tests fail.
    """
    kept = store / "covering.json.gz"
    known = _read(kept)
    files = {
        str(path.relative_to(repository))
        for folder in (*packages, "tests")
        for path in (repository / folder).rglob("*.py")
    }
    note_changes(known, {path: file_hash(repository / path) for path in sorted(files)})
    _write(kept, known)
    with progress_bar() as progress:
        task = progress.add_task("measuring test files", total=len(known.waiting))
        while known.waiting:
            portion = set(sorted(known.waiting)[:PORTION])
            _measure(repository, store, portion, known, packages=packages, n_workers=n_workers)
            known.waiting -= portion
            _write(kept, known)
            progress.advance(task, len(portion))
    return known


def note_changes(known: Covering, hashes: dict[str, str]) -> None:
    """Have every test file measured that changed or executes code that did; forget what is gone."""
    changed = {path for path, value in hashes.items() if known.hashes.get(path) != value}
    executing = {
        test.split("::")[0]
        for path in changed
        for tests in known.tests.get(path, {}).values()
        for test in tests
    }
    _forget(known, known.hashes.keys() - hashes.keys())
    known.waiting = {
        path
        for path in changed | executing | known.waiting
        if path in hashes and path.startswith("tests/")
        if PurePosixPath(path).name.startswith("test_")
    }
    known.hashes = hashes


def _forget(known: Covering, test_files: Set[str]) -> None:
    for lines in known.tests.values():
        for line, tests in lines.items():
            lines[line] = {test for test in tests if test.split("::")[0] not in test_files}
    known.seconds = {
        test: time for test, time in known.seconds.items() if test.split("::")[0] not in test_files
    }


def _measure(
    repository: Path,
    store: Path,
    test_files: set[str],
    known: Covering,
    *,
    packages: tuple[str, ...],
    n_workers: int,
) -> None:
    data, times, settings = store / "coverage.sqlite", store / "seconds.json", store / "cov.ini"
    data.unlink(missing_ok=True)
    settings.write_text(CONFIGURATION.format(packages=",".join(packages), data=data))
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-n", str(n_workers), "-m", MARKERS),
        *("-p", "no:cacheprovider", "-p", "tests.mutation.seconds"),
        *("--cov", f"--cov-config={settings}", "--cov-context=test", "--cov-report="),
        *sorted(test_files),
    ]
    environment = os.environ | {"MUTATION_SECONDS": str(times), "PYTHONPATH": str(repository)}
    log = store / "coverage.log"
    with log.open("w") as output:
        done = subprocess.run(
            command, cwd=repository, env=environment, stdout=output, stderr=output, check=False
        )
    if done.returncode not in (0, NO_TESTS):
        failed = [
            line.split(" ")[1]
            for line in log.read_text(errors="replace").splitlines()
            if line.startswith(("FAILED ", "ERROR "))
        ]
        raise TestsFailError(
            f"{', '.join(failed[:3]) or 'pytest'} must pass before any change is made; see {log}"
        )
    add_measurement(known, repository, data, json.loads(times.read_text()), test_files)


def add_measurement(
    known: Covering,
    repository: Path,
    data: Path,
    seconds: dict[str, float],
    test_files: set[str],
) -> None:
    """Replace what was known of some test files by what was measured."""
    _forget(known, test_files)
    known.seconds |= seconds
    coverage = CoverageData(basename=str(data))
    coverage.read()
    for file in coverage.measured_files():
        lines = known.tests.setdefault(str(Path(file).relative_to(repository)), defaultdict(set))
        for line, contexts in coverage.contexts_by_lineno(file).items():
            lines.setdefault(line, set()).update(
                context.rsplit("|", 1)[0] for context in contexts if context
            )


def _read(path: Path) -> Covering:
    if not path.exists():
        return Covering()
    with gzip.open(path, "rt", encoding="utf-8") as file:
        known = json.load(file)
    names = known["names"]
    return Covering(
        hashes=known["hashes"],
        seconds=known["seconds"],
        tests={
            file: {int(line): {names[i] for i in tests} for line, tests in lines.items()}
            for file, lines in known["tests"].items()
        },
        waiting=set(known["waiting"]),
    )


def _write(path: Path, known: Covering) -> None:
    names = sorted({t for lines in known.tests.values() for tests in lines.values() for t in tests})
    number = {name: i for i, name in enumerate(names)}
    tests = {
        file: {line: sorted(number[test] for test in tests) for line, tests in lines.items()}
        for file, lines in known.tests.items()
    }
    record = {
        "hashes": known.hashes,
        "seconds": known.seconds,
        "names": names,
        "tests": tests,
        "waiting": sorted(known.waiting),
    }
    whole = path.with_suffix(".new")
    with gzip.open(whole, "wt", encoding="utf-8", compresslevel=1) as file:
        json.dump(record, file)
    whole.replace(path)
