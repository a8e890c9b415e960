"""An audit's measurements, made or taken up: from settings to arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from llm_experiment.auditing.behaviours import (
    behaviour_fingerprints,
    check_names,
    library,
    own_behaviours,
    patterns,
)
from llm_experiment.auditing.models import load_models, model_fingerprints
from llm_experiment.auditing.parts import part_path, read_parts, write_part
from llm_experiment.auditing.prompts import Prompt, read_prompts
from llm_experiment.auditing.settings import AuditSettings
from llm_experiment.auditing.stages import Auditor
from llm_experiment.records.folder import claim_folder, exclusive, hash_file
from mightnt.progress import track

LABEL: Final = "audit"
"""What the manifest calls the run."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured.

    Attributes:
        prompts: of the file, in its order.
        scripts: names of the scripts.
        patterns: names of the patterns.
        arrays: see `Auditor.measure`; the first axis is the prompt.
        spelt: what each token of an answer says, special ones their names.
    """

    prompts: tuple[Prompt, ...]
    scripts: tuple[str, ...]
    patterns: tuple[str, ...]
    arrays: dict[str, NDArray[Any]]
    spelt: Callable[[Sequence[int]], list[str]]


def measure(settings: AuditSettings, folder: Path) -> Measured:
    """Measure every batch that `folder` does not hold yet.

    Args:
        settings: of the audit.
        folder: of the audit, whose manifest has to have the same settings, if there is one.

    Raises:
        InvalidArgumentError, ModelError: in one line: prompts, behaviours or models that do not do.
        ResultsError: the folder is another audit's, or in use.
    """
    prompts = read_prompts(settings.prompts)
    scripts = (
        *library(settings.phrases, n_tokens=settings.n_tokens),
        *own_behaviours(settings.behaviours),
    )
    matched = patterns(settings.patterns)
    check_names(scripts, matched)
    identity = model_fingerprints(settings) | {"prompts": hash_file(settings.prompts)}
    identity |= behaviour_fingerprints(settings.behaviours)
    with exclusive(folder):
        claim_folder(folder, settings, label=LABEL, models=identity)
        auditor = Auditor(
            load_models(settings),
            prompts,
            behaviours=scripts,
            patterns=matched,
            settings=settings,
        )
        left = [each for each in auditor.batches if not part_path(folder, each.number).exists()]
        for batch in track(left, "batches of prompts"):
            write_part(folder, batch.number, auditor.measure(batch))
        arrays = read_parts(folder, len(auditor.batches))
    return Measured(
        prompts=prompts,
        scripts=tuple(script.name for script in scripts),
        patterns=tuple(pattern.name for pattern in matched),
        arrays=arrays,
        spelt=auditor.spelt,
    )
