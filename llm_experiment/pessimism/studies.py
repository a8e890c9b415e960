"""An imitator and its demonstrations, as a command line names them.

What takes long is read here: the model, its tokenizer, the demonstrations, and the one pass of the
model over them, with a bar that says how long it will take, and kept every few seconds so that an
interrupted pass goes on.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from llm_experiment.base.hugging_face import HuggingFaceBase
from llm_experiment.base.loading import (
    load_tokenizer,
    read_configuration,
)
from llm_experiment.base.process import ProcessBase
from llm_experiment.base.protocol import BaseModel
from llm_experiment.base.shipped import model_names
from llm_experiment.chat.features import FeatureReader, features_for, find_features, token_pieces
from llm_experiment.chat.token_texts import encode_start
from llm_experiment.chat.turn_records import Speaker
from llm_experiment.chat.turns import TurnParser, TurnRules
from llm_experiment.chat.veto_set import VetoForm, vocabulary_hash
from llm_experiment.chat.world import load_base
from llm_experiment.config import WorldConfig
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import load_task, speakers_of
from llm_experiment.pessimism.audit import Audit, audited_sets, done_by, measure
from llm_experiment.pessimism.demonstrations import (
    Demonstration,
    encode_transcripts,
    read_transcripts,
    sample_demonstrations,
)
from llm_experiment.pessimism.learning import (
    Evidence,
    gather_evidence,
    load_evidence,
    save_evidence,
)
from mightnt.progress import progress_bar
from theory.errors import InvalidArgumentError

SAVE_EVERY_SECONDS: Final = 20.0
"""How much work an interruption may cost."""


@dataclass(frozen=True, kw_only=True)
class Imitator:
    """A base model, and what reads transcripts for it.

    Attributes:
        base: predicts.
        tokenizer: its tokenizer.
        reader: reads features, on the base model's device.
        process: the task's demonstrator.
        name: of the base model.
        most_tokens: the longest dialogue that it reads; None if it has no limit.
    """

    base: BaseModel
    tokenizer: PreTrainedTokenizerBase
    reader: FeatureReader
    process: DialogueProcess
    name: str
    most_tokens: int | None = None

    @property
    def rules(self) -> TurnRules:
        """How turns look."""
        return self.reader.parser.rules

    def demonstrations(
        self,
        path: Path | None,
        *,
        n_dialogues: int,
        n_tokens: int,
        n_silences: int,
        seed: int | tuple[int, ...],
    ) -> tuple[Demonstration, ...]:
        """Those in a file, or those that the task's process makes up.

        Args:
            path: of a JSONL file.
            n_dialogues: how many the process makes up.
            n_tokens: the length of each of these.
            n_silences: turns of the agent in these that lose their words.
            seed: of these.

        Raises:
            ResultsError: a file that cannot be read, or a line of it.
            InvalidArgumentError: the agent has no turn in any; or a process of another vocabulary
                or other roles.
        """
        if path is None:
            self._check_process()
            if self.most_tokens is not None and n_tokens > self.most_tokens:
                raise InvalidArgumentError(
                    f"n_tokens must be at most {self.most_tokens}, which is what the base model "
                    f"reads, got {n_tokens}"
                )
            found = sample_demonstrations(
                self.process,
                np.random.default_rng(seed),
                n_dialogues=n_dialogues,
                n_tokens=n_tokens,
                agent=self.rules.agent,
                partner=self.rules.partner,
                n_silences=n_silences,
            )
        else:
            found = encode_transcripts(
                read_transcripts(path, self.rules),
                path,
                encode=partial(encode_start, self.tokenizer),
                unknown=self.tokenizer.unk_token_id,
                most_tokens=self.most_tokens,
            )
        self._check_agent(found)
        return found

    def _check_process(self) -> None:
        """Raise unless the process speaks in the base model's tokens."""
        words, pieces = self.process.vocabulary, token_pieces(self.reader.parser)
        if len(words) != len(pieces) or any(
            piece not in ("", word) for word, piece in zip(words, pieces, strict=True)
        ):
            raise InvalidArgumentError(
                f"the process of task {self.process.task.name!r} makes dialogues up in its own "
                f"{len(words)} words, which are not the base model's {len(pieces)} tokens; name a "
                "file with --demonstrations"
            )

    def _check_agent(self, transcripts: Sequence[Demonstration]) -> None:
        parser = self.reader.parser
        for dialogue in transcripts:
            row = torch.from_numpy(dialogue.tokens)[None].to(self.base.device)
            if (parser.speakers(row)[:, dialogue.n_given :] == Speaker.AGENT).any():
                return
        raise InvalidArgumentError(
            f"no demonstration has a line that begins with '{self.rules.agent}:'; name the "
            "demonstrator as they do with --agent-name"
        )


def load_imitator(config: WorldConfig, *, features: Sequence[str] = ()) -> Imitator:
    """The imitator that a configuration names.

    Args:
        config: its model, its speakers and its task.
        features: to read, by name; all that its vocabulary can have if none is named.

    Raises:
        ModelError: a model or tokenizer that is missing or unfit.
        InvalidArgumentError: an unknown feature.
    """
    name, _ = model_names(config)
    process = DialogueProcess(load_task(config.task))
    tokenizer = load_tokenizer(name)
    base = load_base(config, name)
    agent, partner = speakers_of(config)
    rules = TurnRules(agent=agent, partner=partner, separator=config.separator)
    parser = TurnParser.from_tokenizer(tokenizer, rules, n_tokens=base.n_tokens).to(base.device)
    chosen = find_features(features, base.n_tokens) if features else features_for(base.n_tokens)
    eos = tokenizer.eos_token_id
    return Imitator(
        base=base,
        tokenizer=tokenizer,
        reader=FeatureReader(parser, chosen, ending=() if eos is None else (eos,)),
        process=process,
        name=config.base_model,
        most_tokens=_most_tokens(name) if isinstance(base, HuggingFaceBase) else None,
    )


def _most_tokens(name: str) -> int | None:
    """The longest text that a language model has position embeddings for, if it has any."""
    config = read_configuration("language model", name).get_text_config(decoder=True)
    most: int | None = getattr(config, "max_position_embeddings", None)
    return most


def evidence_of(
    imitator: Imitator,
    transcripts: Sequence[Demonstration],
    *,
    stops: Sequence[int] = (),
    batch: int,
    partial: Path | None,
) -> list[Evidence]:
    """What demonstrations say, with a bar, gone on with where an interrupted pass stopped.

    Args:
        imitator: reads them.
        transcripts: the demonstrations.
        stops: numbers N of which the evidence of the first N is wanted; all of them if left out.
        batch: how many it reads at a time.
        partial: the stem of files that keep what is unfinished (see `forget`).

    Returns:
        The evidence at each stop.

    Raises:
        ResultsError: what is unfinished cannot be written or read.
    """
    torch.set_num_threads(1)  # one order of summation, so the same numbers every time
    ends = sorted(set(stops)) or [len(transcripts)]
    made_from = fingerprint(imitator, transcripts, batch=batch, stops=ends)
    found: list[Evidence] = []
    for end in ends:
        kept = partial and load_evidence(_kept(partial, end), made_from=made_from)
        if not kept:
            break
        found.append(kept)
    if len(found) == len(ends):
        return found
    last = found[-1].copy() if found else None
    begun = partial and load_evidence(_kept(partial, None), made_from=made_from)
    if begun and (last is None or begun.n_demonstrations > last.n_demonstrations):
        last = begun
    evidence = last or Evidence(imitator.reader.features, imitator.reader.n_tokens)
    saved = time.monotonic()
    with progress_bar() as bar:
        task = bar.add_task("demonstrations", total=ends[-1], completed=evidence.n_demonstrations)
        for _ in gather_evidence(
            imitator.base,
            imitator.reader,
            transcripts[: ends[-1]],
            stops=ends,
            begin_with=evidence,
            batch=batch,
        ):
            number = evidence.n_demonstrations
            bar.update(task, completed=number)
            if number in ends:
                found.append(evidence.copy())
            if partial and (number in ends or time.monotonic() - saved > SAVE_EVERY_SECONDS):
                at = number if number in ends else None
                save_evidence(_kept(partial, at), evidence, made_from=made_from)
                saved = time.monotonic()
    return found


def forget(partial: Path) -> None:
    """Delete what `evidence_of` keeps of an unfinished pass, once its result is written."""
    for path in partial.parent.glob(f"{partial.name}.partial*.npz"):
        path.unlink(missing_ok=True)


def _kept(partial: Path, stop: int | None) -> Path:
    """Where evidence is kept: at a stop, or on the way to one."""
    return partial.with_name(f"{partial.name}.partial{'' if stop is None else f'-{stop}'}.npz")


def fingerprint(
    imitator: Imitator, transcripts: Sequence[Demonstration], *, batch: int, stops: Sequence[int]
) -> str:
    """Tells apart what evidence may be of: a model, features and demonstrations; SHA-256.

    A model is known by its name and by what it predicts after the first token.
    """
    reader = imitator.reader
    _, step = imitator.base.begin(
        torch.from_numpy(transcripts[0].tokens[:1]).to(imitator.base.device),
        n_episodes=1,
        n_positions=2,
    )
    rules = imitator.rules
    features = [(feature.name, feature.bits) for feature in reader.features]
    names = (imitator.name, rules.agent, rules.partner, vocabulary_hash(reader.parser))
    head = [*names, features, batch, *stops]
    digest = hashlib.sha256(json.dumps(head).encode())
    digest.update(step.log_probs.cpu().numpy().tobytes())
    for dialogue in transcripts:
        digest.update(np.array([len(dialogue.tokens), dialogue.n_given]).tobytes())
        digest.update(dialogue.tokens.tobytes())
    return digest.hexdigest()


def audit_vetoes(
    imitator: Imitator,
    transcripts: Sequence[Demonstration],
    held_out: Sequence[Demonstration],
    *,
    numbers: Sequence[int],
    alphas: Sequence[float],
    form: VetoForm,
    law_known: bool,
    batch: int,
    partial: Path | None,
) -> Audit:
    """What the veto sets of several numbers of demonstrations and several alpha do elsewhere.

    Args:
        imitator: the base model.
        transcripts: the demonstrations.
        held_out: other dialogues of the demonstrator.
        numbers: of demonstrations, each at most as many as there are.
        alphas: thresholds.
        form: what one occurrence does to a veto.
        law_known: whether the task's process is the demonstrator.
        batch: dialogues that are read at a time.
        partial: see `evidence_of`.

    Raises:
        InvalidArgumentError: more demonstrations than there are.
    """
    too_many = [number for number in numbers if not 1 <= number <= len(transcripts)]
    if too_many:
        raise InvalidArgumentError(
            f"numbers of demonstrations must lie in 1..{len(transcripts)}, got {too_many[0]}"
        )
    stages = evidence_of(imitator, transcripts, stops=numbers, batch=batch, partial=partial)
    transcripts = transcripts[: max(numbers)]
    demonstrator = ProcessBase(imitator.process) if law_known else None
    reader = imitator.reader
    done = Evidence(reader.features, reader.n_tokens)
    with progress_bar() as bar:
        task = bar.add_task("what is done", total=len(transcripts) + len(held_out))
        for dialogues in (transcripts, held_out):
            for _ in done_by(
                reader, dialogues, demonstrator=demonstrator, begin_with=done, batch=batch
            ):
                bar.update(task, completed=done.n_demonstrations)
        sets = audited_sets(
            stages, reader, alphas=alphas, form=form, done=done, device=imitator.base.device
        )
        task = bar.add_task("held-out dialogues", total=len(held_out))
        return measure(
            imitator.base,
            reader,
            held_out,
            sets,
            done=done,
            demonstrator=demonstrator,
            batch=batch,
            on_batch=lambda number: bar.update(task, completed=number),
        )
