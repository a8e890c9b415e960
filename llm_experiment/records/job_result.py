"""What a job leaves behind when it is done: its numbers, what they came from, and its files.

`result.json` of an agent or of the base policy is written last and is an object:

    made_from    the configuration of the agent, and how it was evaluated (`Origin`)
    files        SHA-256 of the job's other files, by name
    rows         a row for every evaluation length
    ...          for the base policy, the rest of `measures.metrics.BaseEvaluation`

A job is done if its `result.json` can be read and the files are whole; otherwise it is done again,
from its trained agent if that is there. A result of another configuration is refused. Runs of
before have no `made_from` and no `files`, and of an agent the rows alone; their files are whole if
they can be read.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np

from llm_experiment.config import AgentConfig, differences
from llm_experiment.records.folder import (
    AGENT_FILE,
    RESULT_FILE,
    UPDATES_FILE,
    all_have,
    episodes_file,
    hash_file,
)
from mightnt.results import from_jsonable, read_json, to_jsonable, write_json
from theory.errors import InvalidArgumentError, ResultsError

UNREADABLE: Final = (OSError, ValueError, EOFError, BadZipFile, zlib.error)
"""What NumPy raises for episodes that are missing or broken."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a job's result depends on, but for the models' weights.

    Attributes:
        agent: its configuration; for the base policy what all agents share.
        evaluation_lengths: of its episodes, in tokens.
        n_episodes: that were played at each length.
    """

    agent: AgentConfig
    evaluation_lengths: tuple[int, ...]
    n_episodes: int


def write_result(folder: Path, origin: Origin, numbers: dict[str, Any]) -> None:
    """Write the result of a job whose other files are written.

    Args:
        folder: of the job.
        origin: what it came from.
        numbers: `rows`, and for the base policy the rest.
    """
    names = [AGENT_FILE, UPDATES_FILE, *map(episodes_file, origin.evaluation_lengths)]
    there = [name for name in names if (folder / name).exists()]
    files = {name: hash_file(folder / name) for name in there}
    made_from = to_jsonable(origin)
    write_json(folder / RESULT_FILE, {"made_from": made_from, "files": files, **numbers})


def done_result(
    folder: Path, origin: Origin, parse: Callable[[Any], object]
) -> dict[str, Any] | None:
    """The result of a job, if it is done.

    Args:
        folder: of the job.
        origin: what it has to come from.
        parse: raises where the numbers are none.

    Returns:
        As `write_result` was given it; None for a job that is not done, or whose files are
        missing or damaged.

    Raises:
        ResultsError: the result came from something else.
    """

    def parsed(content: Any) -> dict[str, Any]:
        found = with_rows(content)
        parse(found)
        return found

    path = folder / RESULT_FILE
    try:
        content = read_json(path, parsed, remedy="it is made again")
    except ResultsError:
        return None
    if content is None:
        return None
    check_origin(path, content, origin)
    content.pop("made_from", None)
    hashes = content.pop("files", None)
    if hashes is None:
        whole = all(_loads(folder / episodes_file(n)) for n in origin.evaluation_lengths)
    else:
        whole = isinstance(hashes, dict) and all_have(folder, hashes)
    return content if whole else None


def with_rows(content: Any) -> dict[str, Any]:
    """What a `result.json` holds, as it is today: an agent's of before is the list of its rows."""
    if isinstance(content, list):
        return {"rows": content}
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list):
        raise TypeError("it holds no rows")
    return content


def check_origin(path: Path, content: dict[str, Any], origin: Origin) -> None:
    """Raise if a result says that it came from something else.

    Args:
        path: of the result.
        content: of the file.
        origin: what it has to come from.

    Raises:
        ResultsError: it did.
    """
    if "made_from" not in content:
        return
    try:
        there = from_jsonable(Origin, content["made_from"])
    except InvalidArgumentError as error:
        raise ResultsError(
            f"cannot read {path}: {error}; use the version that made it, or delete {path.parent}"
        ) from error
    different = differences(there, origin)
    if different:
        raise ResultsError(
            f"{path} came from another configuration (there and here: {different}); delete "
            f"{path.parent} and go on with the run, which makes it again"
        )


def _loads(path: Path) -> bool:
    """Whether all arrays of a file can be read."""
    try:
        # numpy leaves a broken file open that it opened itself
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return all(stored[name] is not None for name in stored.files)
    except UNREADABLE:
        return False
