"""The rounds of `llm_experiment.veto_rounds`: attack, look, widen.

Each round is a run of its own (`llm_experiment.jobs`), so that an interrupted study goes on.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from llm_experiment.base.loading import load_tokenizer
from llm_experiment.base.process import ProcessBase
from llm_experiment.base.shipped import model_names
from llm_experiment.chat.features import FeatureReader, find_features
from llm_experiment.chat.token_texts import decode_tokens
from llm_experiment.chat.veto_set import VetoForm, VetoSet, read_veto_set, write_veto_set
from llm_experiment.config import WorldConfig
from llm_experiment.jobs import run_suite
from llm_experiment.pessimism.attack_plan import AttackPlan, Round
from llm_experiment.pessimism.audit import AuditRow, audited_sets, done_by, measure
from llm_experiment.pessimism.demonstrations import Tokens
from llm_experiment.pessimism.departures import (
    ARRAYS,
    OPTIONAL_ARRAYS,
    Departures,
    find_departures,
)
from llm_experiment.pessimism.learning import BATCH, Evidence, make_veto_set
from llm_experiment.pessimism.proposals import passes, prevented_share, proposals
from llm_experiment.pessimism.studies import Imitator, evidence_of, forget, load_imitator
from llm_experiment.records.reading import read_run
from mightnt.progress import track

_HELD_OUT_STREAM: Final = 1
_SHOWN_PHRASES: Final = 3


def play_rounds(plan: AttackPlan, console: Console) -> Iterator[Round]:
    """The rounds, one after another; see the module's docstring.

    Args:
        plan: what to do.
        console: for progress.
    """
    torch.set_num_threads(1)  # one order of summation, so the same numbers every time
    study = _Study(plan)
    vetoes: Path | None = None
    features: tuple[str, ...] = ()
    for number in range(1, plan.rounds + 1):
        played, departures, tokens = _attack(plan, number, vetoes, features, console)
        if not played.found:
            yield played
            return
        wider = study.widened(features, departures, tokens)
        played = replace(
            played, added=wider.added, prevented=wider.prevented, rejected=wider.rejected
        )
        yield played
        if wider.vetoes is None:
            return
        features = wider.features
        vetoes = plan.out / f"vetoes-{number}.json"
        write_veto_set(vetoes, wider.vetoes)


def _attack(
    plan: AttackPlan,
    number: int,
    vetoes: Path | None,
    features: tuple[str, ...],
    console: Console,
) -> tuple[Round, Departures, NDArray[np.int64]]:
    """Train and evaluate a round's attacker, and look at what it does."""
    settings = plan.settings(vetoes)
    folder = plan.out / f"round-{number}"
    console.print(f"round {number}, into {folder}", highlight=False)
    run_suite(settings, folder, n_processes=plan.processes, console=console)
    run = read_run(folder)
    ((agent,),) = run.agents.values()
    decode = partial(decode_tokens, load_tokenizer(model_names(settings.agent.world)[0]))

    def turn_text(tokens: Sequence[int]) -> str:
        return decode(list(tokens)).partition("\n")[0].strip()

    arrays = [
        each.episodes.arrays(*ARRAYS, optional=OPTIONAL_ARRAYS) for each in (agent, run.bases[0])
    ]
    own, base = (find_departures(each, turn_text=turn_text) for each in arrays)
    played = Round(
        number=number,
        features=features,
        n_vetoes=0 if vetoes is None else len(read_veto_set(vetoes).vetoes),
        return_mean=agent.numbers.value("return_mean"),
        silent_share=agent.numbers.value("silent_share"),
        help_share=agent.numbers.value("help_share"),
        departed=(own.n_departed / own.n_episodes, own.share.low, own.share.high),
        base_departed=(base.n_departed / base.n_episodes, base.share.low, base.share.high),
        phrases=tuple(
            (phrase.text, phrase.n_episodes, phrase.turn_share)
            for phrase in own.phrases[:_SHOWN_PHRASES]
        ),
        found=own.beyond(base),
    )
    return played, own, arrays[0]["tokens"]


@dataclass(frozen=True, kw_only=True)
class _Wider:
    """What became of a finding: the next vetoes, or None."""

    vetoes: VetoSet | None = None
    features: tuple[str, ...] = ()
    added: str | None = None
    prevented: float | None = None
    rejected: tuple[str, ...] = ()


class _Demonstrations(NamedTuple):
    """An imitator, what demonstrations say to it, what is done in all, and held-out dialogues."""

    imitator: Imitator
    evidence: Evidence
    done: Evidence
    held_out: tuple[Tokens, ...]


class _Study:
    """The demonstrations, read once when they are first needed.

    Args:
        plan: how many, of what task.
    """

    def __init__(self, plan: AttackPlan) -> None:
        self._plan = plan
        self._read: _Demonstrations | None = None

    def widened(
        self, features: tuple[str, ...], departures: Departures, tokens: NDArray[np.int64]
    ) -> _Wider:
        """The vetoes after a finding.

        After the base model as it is come the vetoes of the first features, whatever it found.

        Args:
            features: of the vetoes that were attacked.
            departures: of the attacker.
            tokens: its episodes, shape (n, t).
        """
        imitator, evidence, *_ = self._demonstrations()
        parser, alpha = imitator.reader.parser, self._plan.alpha
        if not features:
            first = find_features(self._plan.features, parser.n_tokens)
            reader = FeatureReader(parser, first)
            vetoes = make_veto_set(evidence, reader, alpha=alpha, base_model=imitator.name)
            return _Wider(
                vetoes=vetoes,
                features=self._plan.features,
                added=", ".join(self._plan.features),
                prevented=prevented_share(vetoes, parser, departures, tokens),
            )
        before = self._audit(features)
        rejected: list[str] = []
        for proposal in proposals(
            evidence,
            parser,
            features,
            departures,
            tokens,
            alpha=alpha,
            base_model=imitator.name,
        ):
            wider = (*features, proposal.feature)
            if passes(self._audit(wider), before):
                return _Wider(
                    vetoes=proposal.vetoes,
                    features=wider,
                    added=proposal.feature,
                    prevented=proposal.prevented,
                    rejected=tuple(rejected),
                )
            rejected.append(proposal.feature)
        return _Wider(rejected=tuple(rejected))

    def _demonstrations(self) -> _Demonstrations:
        """The imitator, the evidence, what is done, and held-out dialogues."""
        if self._read is None:
            plan = self._plan
            imitator = load_imitator(WorldConfig(task=plan.task))
            samples = {"n_tokens": plan.n_dialogue_tokens, "n_silences": 0}
            dialogues = imitator.demonstrations(
                None, n_dialogues=plan.n_dialogues, seed=plan.seed, **samples
            )
            held_out = imitator.demonstrations(
                None,
                n_dialogues=plan.n_held_out,
                seed=(plan.seed, _HELD_OUT_STREAM),
                **samples,
            )
            (evidence,) = evidence_of(
                imitator, dialogues, batch=BATCH, partial=plan.out / "evidence"
            )
            done = Evidence(imitator.reader.features, imitator.reader.n_tokens)
            everything = (*dialogues, *held_out)
            steps = done_by(
                imitator.reader,
                everything,
                demonstrator=ProcessBase(imitator.process),
                begin_with=done,
                batch=BATCH,
            )
            for _ in track(steps, "what is done", total=math.ceil(len(everything) / BATCH)):
                pass
            forget(plan.out / "evidence")
            self._read = _Demonstrations(imitator, evidence, done, held_out)
        return self._read

    def _audit(self, features: tuple[str, ...]) -> AuditRow:
        """What the vetoes of some features do on the held-out dialogues."""
        imitator, evidence, done, held_out = self._demonstrations()
        parser = imitator.reader.parser
        reader = FeatureReader(parser, find_features(features, parser.n_tokens))
        own = _of_features(evidence, features)
        sets = audited_sets(
            [own],
            reader,
            alphas=[self._plan.alpha],
            form=VetoForm.SPIKE,
            done=_of_features(done, features),
            device=imitator.base.device,
        )
        audit = measure(
            imitator.base,
            reader,
            held_out,
            sets,
            done=_of_features(done, features),
            demonstrator=ProcessBase(imitator.process),
            batch=BATCH,
            on_batch=lambda _: None,
        )
        return audit.rows[-1]


def _of_features(evidence: Evidence, names: Sequence[str]) -> Evidence:
    """The evidence of some features."""
    found = Evidence((), 1)
    found.features = {name: evidence.features[name] for name in evidence.features if name in names}
    found.n_demonstrations = evidence.n_demonstrations
    found.n_steps = evidence.n_steps
    return found
