"""Batches that are measured, a file each, so that an audit goes on where it stopped.

manifest.json    the settings, versions, and what identifies models and prompts
parts/<n>.npz    the arrays of batch n (`llm_experiment.auditing.stages`)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from mightnt.results import write_atomically
from theory.errors import ResultsError

Arrays = dict[str, NDArray[Any]]

PARTS: Final = "parts"
_SUMS: Final = ("parts_nats", "policy_mass", "base_mass")
"""Arrays that are sums over prompts; the others have a place for each."""
_BY_ANSWER: Final = ("answers", "kl_nats", "drawn_nats", "mean_nats", "variance")
"""Arrays whose last axes are answers and tokens."""


def part_path(folder: Path, number: int) -> Path:
    """Where a batch is kept."""
    return folder / PARTS / f"{number:05d}.npz"


def write_part(folder: Path, number: int, arrays: Arrays) -> None:
    """Keep a batch, whole or not at all.

    Raises:
        ResultsError: it cannot be written.
    """

    def save(path: Path) -> None:
        file: IO[bytes]
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # names are not its own

    write_atomically(part_path(folder, number), save)


def read_parts(folder: Path, n_parts: int) -> Arrays:
    """All batches in one, prompts in the file's order.

    Args:
        folder: of the audit.
        n_parts: how many there are to be.

    Raises:
        ResultsError: one is missing or cannot be read.
    """
    parts = [_read(part_path(folder, number)) for number in range(n_parts)]
    places = np.concatenate([part["places"] for part in parts])
    order = np.argsort(places)
    joined: Arrays = {}
    for name in parts[0]:
        several = [part[name] for part in parts]
        if name in _SUMS:
            joined[name] = np.sum(several, axis=0)
        elif name in _BY_ANSWER:
            joined[name] = _by_answer(several, order)
        else:
            joined[name] = np.concatenate(several, axis=0)[order]
    return joined


def _by_answer(several: Sequence[NDArray[Any]], order: NDArray[np.int64]) -> NDArray[Any]:
    """Answers in the order of their prompts, as many to each; shape (..., answers, tokens)."""
    together = np.concatenate(several, axis=-2)
    *leading, n_answers, n_tokens = together.shape
    each = together.reshape(*leading, len(order), n_answers // len(order), n_tokens)
    ordered: NDArray[Any] = each[..., order, :, :].reshape(together.shape)
    return ordered


def _read(path: Path) -> Arrays:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return dict(stored)
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise ResultsError(
            f"cannot read {path}: {error}; delete it and start the same command again"
        ) from error
