"""Attempts at a job on machines that can be lost: which of them may write to its folder.

A scheduler starts a job again once it believes that the machine or process at work on it has
died. It can be wrong: a machine that cannot be reached may still be writing to the shared file
system. Two things keep attempts apart.

- The *lock* of the folder (`records.folder.exclusive`). Where it reaches, on one machine and on a
  shared file system whose `flock` all machines see (NFS 4 and most cluster file systems), a new
  attempt waits until the earlier one has ended: never are two at work.
- The *list of attempts* in the folder, `attempts.json`, for where the lock does not reach. A new
  attempt adds itself to the end; every attempt reads the list before it writes anything, and
  stops if it is not the last. All machines must see a file that was renamed into its place. An
  attempt that is overtaken between reading and writing puts one older state of the same job in
  place of a newer one. It is complete, as files are replaced whole, and right, as the numbers are
  a function of the configuration. It costs time, never an update.

An update counts when it is in the agent's file, which holds its own records: so each is in the
final records exactly once, however many attempts there were. What a lost attempt loses, and the
next one does again, is the update or evaluation under way, and the updates since the last
checkpoint (`checkpoint_every`). A job that is done (`records.job_result`) is never begun again.
"""

import os
import platform
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from llm_experiment.jobs import ORPHAN_SECONDS, done_rows, finish_job
from llm_experiment.records.folder import exclusive, versions
from llm_experiment.suite import Job, SuiteConfig
from mightnt.results import from_jsonable, read_json, to_jsonable, write_json
from theory.errors import ResultsError

ATTEMPTS_FILE: Final = "attempts.json"

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt at a job.

    Attributes:
        token: unlike any other attempt's.
        machine: its name.
        pid: of the process.
        started: when, in UTC.
    """

    token: str
    machine: str
    pid: int
    started: str


def attempt_job(job: Job, suite: SuiteConfig, folder: Path) -> list[dict[str, Any]]:
    """As `jobs.run_job`, on a machine that can be lost.

    Args:
        job: the agent.
        suite: how to evaluate it.
        folder: the job's own, on a file system that all machines share.

    Raises:
        ResultsError: the folder cannot be used, or another attempt has taken over.
        ModelError: a model cannot be loaded.
    """
    with exclusive(folder, patience_seconds=ORPHAN_SECONDS):
        done = done_rows(job, suite, folder) is not None
        attempt = None if done else begin_attempt(folder)
        return finish_job(job, suite, folder, check_wanted=partial(check_last, folder, attempt))


def begin_attempt(folder: Path) -> Attempt:
    """A new attempt of this process, now the last in the list of `folder`."""
    attempt = Attempt(
        token=uuid.uuid4().hex,
        machine=platform.node(),
        pid=os.getpid(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_json(folder / ATTEMPTS_FILE, [*read_attempts(folder), to_jsonable(attempt)])
    return attempt


def check_last(folder: Path, attempt: Attempt | None) -> None:
    """Raise unless `attempt` is the last in the list of `folder`.

    Raises:
        ResultsError: another has taken over.
    """
    last = read_attempts(folder)[-1]
    if attempt is None or last["token"] != attempt.token:
        raise ResultsError(
            f"another attempt at {folder}, process {last['pid']} on {last['machine']}, has taken "
            "over from this one"
        )


def read_attempts(folder: Path) -> list[dict[str, Any]]:
    """All attempts at a job so far, as JSON, first to last.

    Raises:
        ResultsError: the list cannot be read.
    """
    remedy = "make sure that no other attempt is at work, delete it, and go on"
    return read_json(folder / ATTEMPTS_FILE, _parse_attempts, remedy=remedy) or []


def _parse_attempts(content: Any) -> list[dict[str, Any]]:
    return [to_jsonable(from_jsonable(Attempt, attempt)) for attempt in content]


def with_versions(wanted: dict[str, str], task: Callable[[], ResultT]) -> ResultT:
    """What `task` gives here, if this machine has the `records.folder.versions` of the sweep's.

    Raises:
        ResultsError: it has others.
    """
    here = versions()
    others = [
        f"{name} {here[name]} in place of {version}"
        for name, version in wanted.items()
        if here[name] != version
    ]
    if others:
        raise ResultsError(
            f"{platform.node()} has {', '.join(others)}, and numbers depend on it; install the "
            "same versions on every machine"
        )
    return task()
