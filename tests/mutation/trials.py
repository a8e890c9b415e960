"""Trying a change: in a copy of the repository, by the tests of the changed line, up to the first
that fails.

Each trial is a process of its own, forked from one that has imported the large libraries but
nothing of ours. A time-out is of processor time, several times what the tests took without the
change: a busy machine makes no trial fail. Only a trial that waits for something that never comes
is ended by the clock.
"""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from tests.mutation.changes import Change
from theory.errors import MightntError

PRELOADED: Final = (
    *("numpy", "scipy.stats", "scipy.optimize", "scipy.special", "numba", "matplotlib.pyplot"),
    *("sympy", "torch", "transformers", "stable_baselines3", "cvxpy", "hypothesis"),
)
OURS: Final = {
    *("theory", "mightnt", "toy_world", "llm_experiment", "proofs_check", "paper_figures", "tests")
}
NOT_COPIED: Final = (".git", ".venv", "results", ".*_cache", ".hypothesis")
SLACK_SECONDS: Final = 45.0
SLOWER: Final = 4.0
"""A trial may take this many times what its tests took, and the slack, of processor time."""
PATIENCE: Final = 20.0
"""A trial may take this many times its processor time by the clock."""


class Outcome(Enum):
    """What became of a change."""

    NOTICED = "noticed"
    SURVIVED = "survived"
    TIMED_OUT = "timed out"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A change, the tests that may notice it, and the time they take without it."""

    change: Change
    tests: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """What became of a trial, and the test that noticed the change if pytest named one."""

    trial: Trial
    outcome: Outcome
    noticed_by: str


class TestsNotFoundError(MightntError):
    """A selection that pytest does not know would count as a test that fails."""


def results_of_trials(
    trials: Sequence[Trial], *, repository: Path, store: Path, n_workers: int
) -> Iterator[TrialResult]:
    """Try every change; results come as they are done. Closing it ends the trials that run.

    Args:
        trials: what to try.
        repository: to copy.
        store: the folder for the copies.
        n_workers: trials at a time.

    Raises:
        TestsNotFoundError: pytest does not know a test.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    copies: SimpleQueue[Path] = SimpleQueue()
    for number in range(n_workers):
        copies.put(_fresh_copy(repository, store / f"copy-{number}"))
    stamps = count(int(time.time()) - 10**8)
    running: set[int] = set()

    def attempt(trial: Trial) -> TrialResult:
        copy = copies.get()
        try:
            return _attempt(trial, copy, context, stamps, running)
        finally:
            copies.put(copy)

    copy = copies.get()
    every = sorted({test for trial in trials for test in trial.tests})
    if every and _run(copy, ["--collect-only", *every], context, running, seconds=600) != 0:
        raise TestsNotFoundError(f"pytest does not find every test; see {copy / 'log.txt'}")
    copies.put(copy)
    with ThreadPoolExecutor(n_workers) as workers:
        waiting = [workers.submit(attempt, trial) for trial in trials]
        try:
            yield from (future.result() for future in as_completed(waiting))
        finally:
            for future in waiting:
                future.cancel()
            for group in tuple(running):
                _kill(group)


def _fresh_copy(repository: Path, copy: Path) -> Path:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(repository, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
    return copy


def _attempt(
    trial: Trial, copy: Path, context, stamps: Iterable[int], running: set[int]
) -> TrialResult:
    if not trial.tests:
        return TrialResult(trial=trial, outcome=Outcome.SURVIVED, noticed_by="")
    path = copy / trial.change.path
    before = path.read_text(encoding="utf-8")
    try:
        _write(path, trial.change.code, next(stamps))
        limit = SLACK_SECONDS + SLOWER * trial.seconds
        code = _run(copy, ["-x", *trial.tests], context, running, seconds=int(limit))
    finally:
        _write(path, before, next(stamps))
    if code is None:
        return TrialResult(trial=trial, outcome=Outcome.TIMED_OUT, noticed_by="")
    if code == 0:
        return TrialResult(trial=trial, outcome=Outcome.SURVIVED, noticed_by="")
    named = [
        line.split(" ")[1]
        for line in (copy / "log.txt").read_text(errors="replace").splitlines()
        if line.startswith(("FAILED ", "ERROR "))
    ]
    return TrialResult(
        trial=trial, outcome=Outcome.NOTICED, noticed_by=named[0] if named else f"exit code {code}"
    )


def _write(path: Path, code: str, stamp: int) -> None:
    """Write a module with a time of its own: Python tells its versions apart by second and size."""
    path.write_text(code, encoding="utf-8")
    os.utime(path, (stamp, stamp))


def _run(
    copy: Path, arguments: list[str], context, running: set[int], *, seconds: int
) -> int | None:
    """The exit code of pytest in a copy, None if it took too long."""
    with tempfile.TemporaryDirectory() as scratch:
        process = context.Process(target=_pytest, args=(copy, arguments, scratch, seconds))
        process.start()
        running.add(process.pid)
        process.join(PATIENCE * seconds)
        code = process.exitcode
        _kill(process.pid)  # and what its tests started
        process.join()
        running.discard(process.pid)
        return None if code in (None, -signal.SIGXCPU, -signal.SIGKILL) else code


def _kill(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _pytest(copy: Path, arguments: list[str], scratch: str, seconds: int) -> None:
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    sys.dont_write_bytecode = False  # the copy's, whatever the caller's environment says
    log = os.open(copy / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(copy)
    os.environ |= {"PYTHONPATH": str(copy), "HYPOTHESIS_PROFILE": "unshrunk", "TMPDIR": scratch}
    tempfile.tempdir = scratch
    sys.path.insert(0, str(copy))
    for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
        del sys.modules[name]
    import numba
    import pytest

    # Compiled callers keep the machine code of what they call: none may outlive its trial.
    numba.config.CACHE_DIR = str(Path(scratch, "compiled"))
    # Plugins that were loaded beforehand are not rewritten, which is a warning.
    options = ["-q", "--no-header", "--tb=line", "-p", "no:cacheprovider", "-n", "0"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    code = pytest.main([*options, *arguments])
    sys.stdout.flush()
    os._exit(int(code))


def read_outcomes(path: Path) -> dict[str, dict[str, str]]:
    """Earlier outcomes by the key of their trial."""
    if not path.exists():
        return {}
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {record["key"]: record for record in records}
