"""A run's folder: whose it is, what made it, and that only one process writes to it.

    manifest.json            settings, versions, commit, models, and in the end a hash of every file
    summary.json             a row for every agent and evaluation length, and the base policy's
    tables.json, tables.md   what they amount to, over seeds (`measures.tables`); beside them each
                             table for programs (`mightnt.table_files`)
    report.html              all of it to look at (`report`); made from the rest, so not hashed
    base/                    the base policy's own episodes and result.json
    agents/<name>/           one folder a job:
        agent.safetensors        the agent, its optimiser and its progress
        updates.json             one record an update
        tensorboard/             the same and more, for TensorBoard
        episodes-<length>.npz    the evaluation's episodes (`measures.evaluation`)
        result.json              the agent's rows of the summary (`job_result`); written last
    judge.json               pairwise comparisons, once it is judged (`judging.comparisons`)

Hidden files are tools, not results: a lock, a cache, a file that is being written.

A folder belongs to the settings in its manifest: a run with others is refused, unless they only
add agents to those that are there. Results without a manifest belong to nobody and are refused,
too. The numbers depend on nothing else but the versions and the machine, which the manifest lists
for every start.

The hashes are there to be compared: what is made of a finished run (its report, figures, tables and
judgements) is refused if a file that its numbers come from has changed, and going on with the run
makes such files again.
"""

import contextlib
import fcntl
import hashlib
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

from llm_experiment.config import differences
from mightnt.results import from_jsonable, read_json, to_jsonable, write_json
from theory.errors import InvalidArgumentError, ResultsError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SettingsT = TypeVar("SettingsT", bound="DataclassInstance")

MANIFEST: Final = "manifest.json"
SUMMARY_FILE: Final = "summary.json"
AGENTS: Final = "agents"
BASE: Final = "base"
AGENT_FILE: Final = "agent.safetensors"
UPDATES_FILE: Final = "updates.json"
RESULT_FILE: Final = "result.json"
REPORT_FILE: Final = "report.html"
JUDGE_FILE: Final = "judge.json"
_LOCK: Final = ".lock"
_LIBRARIES: Final = (
    "numpy",
    "safetensors",
    "scipy",
    "stable-baselines3",
    "tokenizers",
    "torch",
    "transformers",
)
_HASHED: Final = "sha256"
_RETRY_SECONDS: Final = 0.2
_READ_BYTES: Final = 2**24


@contextlib.contextmanager
def exclusive(folder: Path, *, patience_seconds: float = 0.0) -> Iterator[None]:
    """Keep every other process that asks for it out of `folder`; made if need be.

    The operating system gives the folder back when this process ends, however it ends.

    Args:
        folder: to keep.
        patience_seconds: how long to wait for another process.

    Raises:
        ResultsError: another process is writing there, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("a")
    except OSError as error:
        raise ResultsError(
            f"cannot use {folder}: {error.strerror or error}; name another --out"
        ) from error
    with lock:
        deadline = time.monotonic() + patience_seconds
        while not _try_lock(lock, folder):
            if time.monotonic() >= deadline:
                raise ResultsError(
                    f"another process is writing to {folder}; wait for it, or name another --out"
                )
            time.sleep(_RETRY_SECONDS)
        yield


def _try_lock(file: IO[str], folder: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise ResultsError(
            f"the file system of {folder} keeps no locks (flock: {error.strerror}); name an --out "
            "on one that does"
        ) from error
    return True


def claim_folder(
    folder: Path,
    settings: SettingsT,
    *,
    label: str,
    models: dict[str, str],
    only_adds: Callable[[SettingsT, SettingsT], bool] | None = None,
) -> None:
    """Make `folder` the run of `settings`, or make sure that it is.

    Results of a finished run whose files have changed since are put aside, so that they are made
    again.

    Args:
        folder: of the run.
        settings: all that the run's numbers depend on, but for the models' weights.
        label: what to call the run wherever its numbers are shown.
        models: what identifies those (`fingerprints`).
        only_adds: whether the second settings ask for everything that the first ones do; then a
            run of the first becomes one of the second. None if there are no such settings.

    Raises:
        ResultsError: the folder belongs to other settings or models, holds results that nothing
            says the settings of, or its manifest cannot be read.
    """
    path = folder / MANIFEST
    if path.exists():
        manifest = read_manifest(folder)
        there = read_settings(type(settings), manifest["settings"], folder)
        grown = there != settings and only_adds is not None and only_adds(there, settings)
        different = differences(
            {"settings": settings if grown else there, "models": manifest.get("models")},
            {"settings": settings, "models": models},
        )
        if different:
            raise ResultsError(
                f"{folder} holds another run (there and here: {different}); name another --out, "
                "or delete the folder"
            )
        if grown:
            manifest |= {"label": label, "settings": to_jsonable(settings)}
        _discard(folder, changed_files(folder, manifest))
    else:
        _check_empty(folder)
        manifest = {"label": label, "settings": to_jsonable(settings), "models": models}
    manifest.pop(_HASHED, None)
    manifest.setdefault("starts", []).append(_start())
    write_json(path, manifest)


def _check_empty(folder: Path) -> None:
    """Raise if there are results in a folder without a manifest.

    Raises:
        ResultsError: there are.
    """
    found = next((name for name in (AGENTS, BASE, SUMMARY_FILE) if (folder / name).exists()), None)
    if found is not None:
        raise ResultsError(
            f"{folder} holds results ({found}) but no {MANIFEST} that says "
            "which settings they are of; put that back, or name another --out"
        )


def changed_files(folder: Path, manifest: dict[str, Any]) -> tuple[str, ...]:
    """The files of a finished run's jobs that are not what they were when it was finished.

    Logs and what is made of the jobs' files (tables, the summary) do not count, and an agent may
    be missing: nothing is made of it, so that it can be deleted to save space.

    Args:
        folder: of the run.
        manifest: of the run.

    Returns:
        Their paths in the folder; none for a run that is not finished.
    """
    hashes: dict[str, str] = manifest.get(_HASHED, {})
    own = {path: digest for path, digest in hashes.items() if _is_of_a_job(Path(path))}
    return tuple(path for path, digest in own.items() if not _has_hash(folder / path, digest))


def _is_of_a_job(path: Path) -> bool:
    return path.parts[:-1] == (BASE,) or (path.parts[:1] == (AGENTS,) and len(path.parts) == 3)


def _has_hash(path: Path, digest: str) -> bool:
    try:
        return hash_file(path) == digest
    except FileNotFoundError:
        return path.name == AGENT_FILE
    except OSError:
        return False


def all_have(folder: Path, hashes: dict[str, str]) -> bool:
    """Whether the files of these names in `folder` have these hashes; an agent may be missing."""
    return all(_has_hash(folder / name, digest) for name, digest in hashes.items())


def _discard(folder: Path, changed: tuple[str, ...]) -> None:
    """Delete what stands in the way of making changed files of jobs again.

    Raises:
        ResultsError: something else than a file does.
    """
    for path in map(folder.joinpath, changed):
        stale = [path.parent / RESULT_FILE, *([path] if path.name == AGENT_FILE else [])]
        for file in stale:
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise ResultsError(
                    f"cannot delete {file}, which has changed since the run was finished "
                    f"({error.strerror}); remove it by hand and go on with the run"
                ) from error


def read_settings(kind: type[SettingsT], saved: Any, folder: Path) -> SettingsT:
    """Settings from a manifest, completed.

    An option that is younger than the run had then the value that is its default today. Two runs
    are the same if their settings, so completed, are equal in every field
    (`llm_experiment.config.differences`), and so are their models.

    Args:
        kind: of the settings.
        saved: in JSON's types.
        folder: of the run.

    Raises:
        ResultsError: an option that this version does not know, or a value that is not allowed.
    """
    try:
        return from_jsonable(kind, saved)
    except InvalidArgumentError as error:
        raise ResultsError(
            f"{folder} holds another run, or one of another version ({error}); name another "
            "folder, or use the version that made it"
        ) from error


def record_hashes(folder: Path, **facts: Any) -> None:
    """Add `facts` and the hash of every file to the manifest of a finished run.

    What it said when it was finished first stays, such as how long that took.
    """
    manifest = facts | read_manifest(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest[_HASHED] = {
        str(path.relative_to(folder)): hash_file(path)
        for path in files
        if path.name not in (MANIFEST, REPORT_FILE) and not path.name.startswith(".")
    }
    write_json(folder / MANIFEST, manifest)


def record_hash(folder: Path, path: Path) -> None:
    """Add the hash of one more file to the manifest of a finished run.

    A run under way records the hashes of all its files when it ends.
    """
    manifest = read_manifest(folder)
    if _HASHED in manifest:
        manifest[_HASHED][str(path.relative_to(folder))] = hash_file(path)
        write_json(folder / MANIFEST, manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run.

    Raises:
        ResultsError: there is none, or it cannot be read.
    """
    path = folder / MANIFEST
    remedy = "name the folder of a run, or make one with `python -m llm_experiment.run`"
    manifest = read_json(path, _parse_manifest, remedy=remedy)
    if manifest is None:
        raise ResultsError(f"cannot read {path}: there is no such file; {remedy}")
    return manifest


_SHAPE: Final = {"settings": dict, "models": dict, "starts": list, _HASHED: dict}


def _parse_manifest(content: Any) -> dict[str, Any]:
    manifest: dict[str, Any] = content
    for name, kind in _SHAPE.items():
        if (name in manifest or name == "settings") and not isinstance(manifest[name], kind):
            raise TypeError(f"{name} must be of type {kind.__name__}")
    if not all(isinstance(digest, str) for digest in manifest.get(_HASHED, {}).values()):
        raise TypeError(f"{_HASHED} must name a hash for each file")
    return manifest


def fingerprints(*folders: Path) -> dict[str, str]:
    """What identifies the weights in each of `folders` that exists, by its last two names.

    The SHA-256 of the files' names, sizes and first 16 MiB: seconds for models of any size.
    """
    return {"/".join(f.parts[-2:]): _fingerprint(f) for f in folders if f.is_dir()}


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(f"{path.name} {path.stat().st_size} ".encode() + file.read(_READ_BYTES))
    return digest.hexdigest()


def episodes_file(n_tokens: int) -> str:
    """The name of the file with an evaluation's episodes of `n_tokens` tokens."""
    return f"episodes-{n_tokens}.npz"


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _start() -> dict[str, Any]:
    """When, where and with what a run started or went on."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of this package here and of the libraries that a run's numbers depend on."""
    return {name: version(name) for name in ("mightnt", *_LIBRARIES)}


def _commit() -> str | None:
    """The commit of this code, marked `+` if the tree differs from it; None outside a clone."""
    here = Path(__file__).parent
    try:
        commit, status = (
            subprocess.run(
                ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}+" if status else commit
