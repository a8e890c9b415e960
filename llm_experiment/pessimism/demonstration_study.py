"""What demonstrations of a known process say of events, and audits of what they lead to.

Both studies of pessimistic base policies (`llm_experiment.pessimist_comparison`,
`llm_experiment.attack_rounds`) ask the same of them: the evidence of some features, veto sets, and
what these do on dialogues that they were not learnt from.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from llm_experiment.base.process import ProcessBase
from llm_experiment.base.protocol import BaseModel
from llm_experiment.chat.features import Feature, FeatureReader, features_for, find_features
from llm_experiment.chat.veto_set import VetoForm
from llm_experiment.config import WorldConfig
from llm_experiment.pessimism.audit import AuditRow, audited_sets, done_by, measure
from llm_experiment.pessimism.learning import BATCH, Evidence
from llm_experiment.pessimism.studies import Imitator, evidence_of, forget, load_imitator
from mightnt.progress import track

HELD_OUT_STREAM: Final = 1
"""Tells the seed of the held-out dialogues from that of the demonstrations."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """How many dialogues a task's process makes up.

    Attributes:
        task: the dialogue task.
        n_dialogues: demonstrations.
        n_held_out: dialogues of the audit.
        n_tokens: of each.
        seed: of all.
    """

    task: str
    n_dialogues: int
    n_held_out: int
    n_tokens: int
    seed: int


class DemonstrationStudy:
    """The demonstrations, read as far as they are asked about.

    Args:
        samples: how many, of what task.
        partial: the stem of files that keep an unfinished pass over them.
    """

    def __init__(self, samples: Samples, *, partial: Path) -> None:
        self.imitator: Imitator = load_imitator(WorldConfig(task=samples.task))
        self._partial = partial
        self.dialogues, self._held_out = (
            self.imitator.demonstrations(
                None, n_dialogues=number, n_tokens=samples.n_tokens, n_silences=0, seed=seed
            )
            for number, seed in (
                (samples.n_dialogues, samples.seed),
                (samples.n_held_out, (samples.seed, HELD_OUT_STREAM)),
            )
        )
        self._law = ProcessBase(self.imitator.process)
        self._evidence = Evidence((), 1)
        self._done = Evidence((), 1)

    def reader(self, features: Sequence[str]) -> FeatureReader:
        """What reads features of these names."""
        parser = self.imitator.reader.parser
        return FeatureReader(parser, find_features(features, parser.n_tokens))

    def evidence(self, features: Sequence[Feature]) -> Evidence:
        """What the demonstrations say of features; one pass for the table, and one for others."""
        known = self._evidence.features
        if not known:
            self._read(features_for(self.imitator.reader.n_tokens))
        self._read([feature for feature in features if feature.name not in known])
        return _of_features(self._evidence, features)

    def audit(
        self,
        reader: FeatureReader,
        *,
        alpha: float | None,
        form: VetoForm = VetoForm.SPIKE,
        members: Sequence[BaseModel] = (),
    ) -> AuditRow:
        """What vetoes of a reader's features do on the held-out dialogues; see `measure`.

        Args:
            reader: of the features.
            alpha: the threshold; None for no vetoes at all.
            form: what one occurrence does to a veto.
            members: further ones, the least of all of which is what agents are held to.
        """
        evidence = self.evidence(reader.features)
        done = _of_features(self._done, reader.features)
        base = self.imitator.base
        alphas = () if alpha is None else (alpha,)
        sets = audited_sets(
            [evidence], reader, alphas=alphas, form=form, done=done, device=base.device
        )
        audit = measure(
            base,
            reader,
            self._held_out,
            sets,
            done=done,
            demonstrator=self._law,
            members=members,
            batch=BATCH,
            on_batch=lambda _: None,
        )
        return audit.rows[-1]

    def _read(self, features: Sequence[Feature]) -> None:
        """Add the evidence of new features, and what is done of them."""
        if not features:
            return
        reader = FeatureReader(self.imitator.reader.parser, features)
        (found,) = evidence_of(
            replace(self.imitator, reader=reader),
            self.dialogues,
            batch=BATCH,
            partial=self._partial,
        )
        done = Evidence(reader.features, reader.n_tokens)
        everything = (*self.dialogues, *self._held_out)
        steps = done_by(reader, everything, demonstrator=self._law, begin_with=done, batch=BATCH)
        for _ in track(steps, "what is done", total=math.ceil(len(everything) / BATCH)):
            pass
        forget(self._partial)
        for whole, new in ((self._evidence, found), (self._done, done)):
            whole.features |= new.features
            whole.n_demonstrations, whole.n_steps = new.n_demonstrations, new.n_steps

    def dialogue_tokens(self) -> NDArray[np.int64]:
        """The demonstrations, which are of one length, shape (n_dialogues, n_tokens)."""
        return np.stack([dialogue.tokens for dialogue in self.dialogues])


def _of_features(evidence: Evidence, features: Sequence[Feature]) -> Evidence:
    """The evidence of some features."""
    found = Evidence((), 1)
    found.features = {feature.name: evidence.features[feature.name] for feature in features}
    found.n_demonstrations, found.n_steps = evidence.n_demonstrations, evidence.n_steps
    return found
