"""The rounds of `llm_experiment.veto_rounds`: attack, look, widen.

Each round is a run of its own (`llm_experiment.jobs`), so that an interrupted study goes on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import torch
from rich.console import Console

from llm_experiment.base.loading import load_language_model, load_tokenizer
from llm_experiment.base.shipped import model_names
from llm_experiment.chat.features import Feature, find_features
from llm_experiment.chat.token_texts import decode_tokens
from llm_experiment.chat.veto_set import read_veto_set, write_veto_set
from llm_experiment.jobs import run_suite
from llm_experiment.pessimism.attack_plan import AttackPlan, Defence, Remedy, Round
from llm_experiment.pessimism.demonstration_study import DemonstrationStudy, Samples
from llm_experiment.pessimism.departures import (
    ARRAYS,
    OPTIONAL_ARRAYS,
    Departures,
    find_departures,
)
from llm_experiment.pessimism.learning import make_veto_set
from llm_experiment.pessimism.member import member_for
from llm_experiment.pessimism.proposals import (
    passes,
    phrases_of,
    prevented_share,
    proposals,
    unused_features,
)
from llm_experiment.records.reading import read_run

_SHOWN_PHRASES: Final = 3
_MEMBER: Final = "a member"


def play_rounds(plan: AttackPlan, console: Console) -> Iterator[Round]:
    """The rounds, one after another; see the module's docstring.

    Args:
        plan: what to do.
        console: for progress.
    """
    torch.set_num_threads(1)  # one order of summation, so the same numbers every time
    study = _Study(plan)
    defence = Defence()
    for number in range(1, plan.rounds + 1):
        played, departures = _attack(plan, number, defence, console)
        if not played.found:
            yield played
            return
        wider = study.widened(number, defence, departures)
        yield replace(played, added=wider.added, prevented=wider.prevented, rejected=wider.rejected)
        if wider.defence is None:
            return
        defence = wider.defence


def _attack(
    plan: AttackPlan, number: int, defence: Defence, console: Console
) -> tuple[Round, Departures]:
    """Train and evaluate a round's attacker, and look at what it does."""
    settings = plan.settings(defence)
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
        features=defence.features,
        n_members=len(defence.members),
        n_vetoes=0 if defence.vetoes is None else len(read_veto_set(defence.vetoes).vetoes),
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
    return played, own


@dataclass(frozen=True, kw_only=True)
class _Wider:
    """What became of a finding: the next defence, or None."""

    defence: Defence | None = None
    added: str | None = None
    prevented: float | None = None
    rejected: tuple[str, ...] = ()


class _Study:
    """The demonstrations, read once when they are first needed.

    Args:
        plan: how many, of what task.
    """

    def __init__(self, plan: AttackPlan) -> None:
        self._plan = plan
        self._read: DemonstrationStudy | None = None

    @property
    def known(self) -> DemonstrationStudy:
        """The demonstrations."""
        if self._read is None:
            plan = self._plan
            samples = Samples(
                task=plan.task,
                n_dialogues=plan.n_dialogues,
                n_held_out=plan.n_held_out,
                n_tokens=plan.n_dialogue_tokens,
                seed=plan.seed,
            )
            self._read = DemonstrationStudy(samples, partial=plan.out / "evidence")
        return self._read

    def widened(self, number: int, defence: Defence, departures: Departures) -> _Wider:
        """The defence after a finding.

        After the base model as it is come the vetoes of the first features, whatever it found.

        Args:
            number: of the round.
            defence: that was attacked.
            departures: what was found.
        """
        known, plan = self.known, self._plan
        path = plan.out / f"vetoes-{number}.json"
        if not defence.features:
            reader = known.reader(plan.features)
            evidence = known.evidence(reader.features)
            vetoes = make_veto_set(
                evidence, reader, alpha=plan.alpha, base_model=known.imitator.name
            )
            write_veto_set(path, vetoes)
            return _Wider(
                defence=replace(defence, vetoes=path, features=plan.features),
                added=", ".join(plan.features),
                prevented=prevented_share(vetoes, reader.parser, departures),
            )
        rejected: list[str] = []
        members = [load_language_model(name) for name in defence.members]
        reader = known.reader(defence.features)
        before = known.audit(reader, alpha=plan.alpha, members=members)
        for proposal in proposals(
            self._candidates(defence, departures),
            known.evidence,
            known.imitator.reader.parser,
            defence.features,
            departures,
            alpha=plan.alpha,
            base_model=known.imitator.name,
        ):
            wider = (*defence.features, *proposal.features)
            after = known.audit(known.reader(wider), alpha=plan.alpha, members=members)
            if passes(after, before):
                write_veto_set(path, proposal.vetoes)
                return _Wider(
                    defence=replace(defence, vetoes=path, features=wider),
                    added="; ".join(self._in_clear(proposal.features)),
                    prevented=proposal.prevented,
                    rejected=tuple(rejected),
                )
            rejected += proposal.features
        if Remedy.MEMBER not in plan.remedies:
            return _Wider(rejected=tuple(rejected))
        folder = plan.out / f"member-{number}"
        members.append(member_for(known, [departures], folder))
        if not passes(known.audit(reader, alpha=plan.alpha, members=members), before):
            return _Wider(rejected=(*rejected, _MEMBER))
        return _Wider(
            defence=replace(defence, members=(*defence.members, str(folder))),
            added=_MEMBER,
            rejected=tuple(rejected),
        )

    def _in_clear(self, features: Sequence[str]) -> Iterator[str]:
        """Names of features for a person; a phrase's says its words."""
        parser = self.known.imitator.reader.parser
        for feature in find_features(features, parser.n_tokens):
            yield feature.name if feature.phrase is None else feature.in_clear(1, parser.pieces)

    def _candidates(self, defence: Defence, departures: Departures) -> Iterator[Sequence[Feature]]:
        """Features that may answer a finding, as far as the plan has them."""
        parser = self.known.imitator.reader.parser
        if Remedy.FEATURES in self._plan.remedies:
            yield from ((f,) for f in unused_features(defence.features, parser.n_tokens))
        if Remedy.PHRASES in self._plan.remedies:
            yield phrases_of(departures, parser)
