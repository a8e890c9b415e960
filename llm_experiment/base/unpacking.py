"""What a GGUF file holds, written as a folder in the format of any other model.

transformers reads the file with the package `gguf`, and computes the numbers that its quantised
weights stand for, in float32.
"""

import contextlib
import io
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llm_experiment.base.gguf_files import SUFFIX
from llm_experiment.base.loading import one_line_errors, require

_BLOCK_BYTES: Final = 2**24


def unpack(parts: Sequence[Path], folder: Path, *, name: str) -> None:
    """Write configuration, tokenizer and weights to `folder`, all at once.

    Args:
        parts: files whose contents in this order are the GGUF file.
        folder: is there afterwards; another process may have made it meanwhile.
        name: of the model, to say so in an error.

    Raises:
        ModelError: in one line: the package `gguf` is missing, an architecture or a quantisation
            that transformers does not read, or a full disk.
    """
    require("gguf", extra="real", purpose=f"the language model {name}")
    with one_line_errors("language model", Path(name).name), _bars_on_terminals():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpacking-") as temporary:
            made = Path(temporary) / "model"
            _write(_joined(parts, Path(temporary)), made)
            try:
                made.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was faster, and made the same
                    raise


def _write(whole: Path, made: Path) -> None:
    """Write what a GGUF file holds to the folder `made`."""
    source: dict[str, Any] = {"gguf_file": whole.name, "trust_remote_code": False}
    model: Any = AutoModelForCausalLM.from_pretrained(whole.parent, dtype=torch.float32, **source)
    # What it remembers of its quantisation would not let it be saved.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(made)
    AutoTokenizer.from_pretrained(whole.parent, **source).save_pretrained(made)


def _joined(parts: Sequence[Path], folder: Path) -> Path:
    """The whole file: the only part, or a copy of all of them in `folder`."""
    if len(parts) == 1:
        return parts[0]
    whole = folder / f"whole{SUFFIX}"
    with whole.open("wb") as file:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, file, _BLOCK_BYTES)
    return whole


@contextlib.contextmanager
def _bars_on_terminals() -> Iterator[None]:
    """Hide the bar of dequantisation, which no setting of transformers hides, off terminals."""
    if sys.stderr.isatty():
        yield
        return
    with contextlib.redirect_stderr(io.StringIO()):
        yield
