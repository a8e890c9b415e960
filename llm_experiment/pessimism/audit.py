"""What vetoes do on dialogues that they were not learnt from.

One pass of the base model over the demonstrations gives the evidence of any first N of them, and so
the veto sets of all N and alpha; one pass over the held-out dialogues then measures them together.
At every step of the agent, with `nu = r b` the vetoed law (or `nu = r min(b, b', ..)`, where
there are further members) and `theta = 1 - sum nu` what it misses:

- *help*: theta, the probability that the step is asked for;
- *blocked*: the token that was written has `nu = 0`;
- *unseen*: some feature has a value that no demonstration visited;
- *gain*: `ln nu'(x) - ln b(x)` of what was written, summed over a dialogue, where `nu'` is nu with
  its gap filled by the demonstrator, `nu + theta tau`, if the demonstrator's law is known, and
  nu divided by its mass, over tokens that are not blocked, in any case;
- *the cheapest event left*: the least `-ln nu(x)` in a dialogue over tokens that make an event
  which the demonstrator never does; and over all tokens that it would not write there, if its law
  is known.

What the demonstrator *does* is, if its law is known, whatever it gives a positive probability at
some step of the demonstrations or of the held-out dialogues, and otherwise what it did there. An
event at a value visited there that it never does is a *never-event*, and a veto on one that it does
is *false*: with a known law their number is a lower bound, without one an estimate of that.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm_experiment.base.protocol import BaseModel, BaseStep, semi_log_probs
from llm_experiment.chat.features import FeatureReader, FeatureState
from llm_experiment.chat.veto_set import CompiledVetoes, VetoForm
from llm_experiment.pessimism.demonstrations import Demonstration
from llm_experiment.pessimism.learning import (
    Evidence,
    FeatureEvidence,
    JudgedEvents,
    Moment,
    judge_events,
    make_veto_set,
    moments,
    walk,
)
from theory.errors import InvalidArgumentError

_OCCURRENCES: Final = "occurrences"


@dataclass(frozen=True, kw_only=True)
class AuditRow:
    """What one veto set does on the held-out dialogues.

    Attributes:
        n_demonstrations: N; 0 for the base model as it is.
        alpha: the threshold; nan for the base model as it is.
        is_hard: whether all that was never seen is vetoed.
        n_vetoes: lines of its file.
        n_events: events that they rule out or make rarer, at values that were visited.
        n_false: those of the events ruled out that the demonstrator does (see the module).
        help_per_step: mean theta.
        unseen_share: of the steps, those at a value of some feature that was not visited.
        n_blocked: tokens of the demonstrator that have no probability left.
        gain_completed_nats: mean over dialogues, the demonstrator filling the gap; None where
            its law is not known.
        gain_renormalised_nats: mean over dialogues, over tokens that are not blocked.
        cheapest_never_nats: median over dialogues of the price of the cheapest never-event left;
            inf if none is left.
        cheapest_impossible_nats: the same of the cheapest token that the demonstrator would not
            write there; None where its law is not known.
    """

    n_demonstrations: int
    alpha: float
    is_hard: bool
    n_vetoes: int
    n_events: int
    n_false: int
    help_per_step: float
    unseen_share: float
    n_blocked: int
    gain_completed_nats: float | None
    gain_renormalised_nats: float
    cheapest_never_nats: float
    cheapest_impossible_nats: float | None


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What a range of veto sets does on the same held-out dialogues.

    Attributes:
        rows: the base model as it is, then one a set.
        n_dialogues: held out.
        n_steps: the agent's steps in them.
        law_known: whether the demonstrator's law is.
    """

    rows: tuple[AuditRow, ...]
    n_dialogues: int
    n_steps: int
    law_known: bool


# ----------------------------------------------------------- what the demonstrator does


def done_by(
    reader: FeatureReader,
    transcripts: Sequence[Demonstration],
    *,
    demonstrator: BaseModel | None,
    begin_with: Evidence | None = None,
    batch: int,
) -> Iterator[Evidence]:
    """Events that the demonstrator does at the steps of transcripts, after every batch.

    Args:
        reader: of the features.
        transcripts: in tokens.
        demonstrator: its law, if known: then every token of positive probability counts.
        begin_with: what it is known to do elsewhere; is added to.
        batch: transcripts read at a time.

    Yields:
        The same object every time; only its visits and occurrences mean anything.
    """
    evidence = begin_with or Evidence(reader.features, reader.n_tokens)
    for start in range(0, len(transcripts), batch):
        rows = range(start, min(start + batch, len(transcripts)))
        if demonstrator is None:
            for moment in moments(reader, transcripts, rows):
                _add_done(evidence, moment, None, reader)
        else:
            for moment, step in walk(demonstrator, reader, transcripts, rows):
                _add_done(evidence, moment, step, reader)
        evidence.n_demonstrations += len(rows)
        yield evidence


def _add_done(
    evidence: Evidence, moment: Moment, law: BaseStep | None, reader: FeatureReader
) -> None:
    """Count what the demonstrator does at one token of several transcripts."""
    acts = moment.acts
    tokens = moment.tokens[acts]
    if not len(tokens):
        return
    done = torch.zeros(len(tokens), reader.n_tokens, dtype=torch.float64, device=tokens.device)
    if law is None:
        done[torch.arange(len(tokens)), tokens] = 1.0
    else:
        done[semi_log_probs(law).to(done.device)[acts] > -torch.inf] = 1.0
    ends = done[:, reader.ends].amax(dim=1, keepdim=True)
    increments = {_OCCURRENCES: torch.cat([done, ends], dim=1).cpu()}
    for name, values in reader.values(moment.state).items():
        evidence.features[name].add(values[acts].cpu().numpy(), increments)
    evidence.n_steps += len(tokens)


class NeverEvents:
    """Events at visited values that the demonstrator never does, to look up.

    Args:
        done: what it does.
        reader: of the features.
        device: where states lie.
    """

    def __init__(self, done: Evidence, reader: FeatureReader, device: torch.device) -> None:
        self._reader = reader
        self._tables: list[tuple[str, Tensor, Tensor]] = []
        for name, feature in done.features.items():
            order = np.argsort(feature.values)
            never = feature.sums(_OCCURRENCES)[order] == 0
            # Where the turn never ends, none of the tokens that end it occurred either.
            mask = np.concatenate([never[:, :-1], np.zeros((1, never.shape[1] - 1))])
            keys = torch.tensor(np.array(feature.values)[order], device=device)
            self._tables.append((name, keys, torch.from_numpy(mask > 0).to(device)))

    def tokens(self, state: FeatureState) -> Tensor:
        """Which next tokens make a never-event, bool, shape (n, n_tokens)."""
        values = self._reader.values(state)
        found = torch.zeros(
            len(state.count), self._reader.n_tokens, dtype=torch.bool, device=state.count.device
        )
        for name, keys, mask in self._tables:
            value = values[name].contiguous()
            at = torch.searchsorted(keys, value).clamp(max=len(keys) - 1)
            found |= mask[torch.where(keys[at] == value, at, len(keys))]
        return found


def count_false(judged: Mapping[str, JudgedEvents], evidence: Evidence, done: Evidence) -> int:
    """Events ruled out, at values visited in the demonstrations, that the demonstrator does.

    Args:
        judged: the factors of the events.
        evidence: of the demonstrations, whose values the factors are of.
        done: what the demonstrator does.
    """
    return sum(
        _count_false(judged[name].factors, feature.values, done.features[name])
        for name, feature in evidence.features.items()
    )


def _count_false(factors: NDArray[np.float64], values: Sequence[int], done: FeatureEvidence) -> int:
    row = {value: i for i, value in enumerate(done.values)}
    does = done.sums(_OCCURRENCES)[[row[value] for value in values]] > 0
    return int(np.sum((factors == 0) & does))


# ----------------------------------------------------------------------------- measuring


@dataclass(frozen=True, kw_only=True)
class AuditedSet:
    """One veto set and what is known of it before it meets the held-out dialogues.

    Attributes:
        compiled: None for the base model as it is.
        visited: values by feature, in ascending order, on the base model's device.
        row: what it is called and how many vetoes it has; its measurements are still to come.
    """

    compiled: CompiledVetoes | None
    visited: Mapping[str, Tensor]
    row: AuditRow


def audited_sets(
    stages: Sequence[Evidence],
    reader: FeatureReader,
    *,
    alphas: Sequence[float],
    form: VetoForm,
    done: Evidence,
    device: torch.device,
) -> list[AuditedSet]:
    """The base model as it is, and the veto set of each number of demonstrations and each alpha.

    Args:
        stages: evidence of the first N demonstrations, for several N.
        reader: of the features.
        alphas: thresholds.
        form: what one occurrence does to a veto.
        done: what the demonstrator does.
        device: where the base model is.
    """
    nothing = AuditRow(
        n_demonstrations=0, alpha=math.nan, is_hard=False, n_vetoes=0, n_events=0, n_false=0,
        help_per_step=0.0, unseen_share=0.0, n_blocked=0, gain_completed_nats=None,
        gain_renormalised_nats=0.0, cheapest_never_nats=math.inf, cheapest_impossible_nats=None,
    )  # fmt: skip
    sets = [AuditedSet(compiled=None, visited={}, row=nothing)]
    for evidence in stages:
        visited = {
            name: torch.tensor(sorted(feature.values), device=device)
            for name, feature in evidence.features.items()
        }
        for alpha in alphas:
            veto_set = make_veto_set(evidence, reader, alpha=alpha, form=form)
            judged = judge_events(evidence, reader, alpha=alpha, form=form)
            row = replace(
                nothing,
                n_demonstrations=evidence.n_demonstrations,
                alpha=alpha,
                is_hard=veto_set.is_hard,
                n_vetoes=len(veto_set.vetoes),
                n_events=sum(int(np.sum(j.factors < 1)) for j in judged.values()),
                n_false=count_false(judged, evidence, done),
            )
            compiled = veto_set.compile(reader.parser, device)
            sets.append(AuditedSet(compiled=compiled, visited=visited, row=row))
    return sets


class _Tally:
    """The measurements of one veto set, step by step.

    Args:
        audited: the set.
        n_dialogues: held out.
        law_known: whether the demonstrator's law is.
    """

    def __init__(self, audited: AuditedSet, n_dialogues: int, *, law_known: bool) -> None:
        self._set = audited
        self._law_known = law_known
        self._help = 0.0
        self._n_unseen = 0
        self._n_blocked = 0
        self._gain_completed = np.zeros(n_dialogues)
        self._gain_renormalised = np.zeros(n_dialogues)
        self._cheapest_never = np.full(n_dialogues, np.inf)
        self._cheapest_impossible = np.full(n_dialogues, np.inf)

    def add(self, moment: Moment, step: "_Step", values: Mapping[str, Tensor]) -> None:
        """Count one token of several dialogues.

        Args:
            moment: the token.
            step: what is said of it, where the agent wrote it.
            values: the features there.
        """
        acts = moment.acts
        log_factors = torch.zeros_like(step.log_b)
        if self._set.compiled is not None:
            log_factors = self._set.compiled.log_factors(moment.state)[acts].double()
        if step.log_members is not None:
            less = (step.log_members - step.log_b).clamp(max=0.0)
            log_factors = log_factors + torch.where(step.log_b == -torch.inf, 0.0, less)
        log_nu = step.log_b + log_factors
        theta = (step.log_b.exp() * (1 - log_factors.exp())).sum(dim=1).clamp(0.0, 1.0)
        self._help += float(theta.sum())
        self._n_unseen += int(_are_unseen(self._set.visited, values, acts).sum())

        token = step.tokens[:, None]
        log_factor = log_factors.gather(1, token)[:, 0]
        log_b = step.log_b.gather(1, token)[:, 0]
        blocked = log_factor == -torch.inf
        self._n_blocked += int(blocked.sum())
        gain = torch.where(blocked, 0.0, log_factor - torch.log1p(-theta))
        rows = moment.rows[acts.cpu().numpy()]
        np.add.at(self._gain_renormalised, rows, gain.cpu().numpy())
        prices = torch.where(step.never, -log_nu, torch.inf).amin(dim=1)
        np.minimum.at(self._cheapest_never, rows, prices.cpu().numpy())
        if step.log_tau is not None:
            helped = theta.log() + step.log_tau.gather(1, token)[:, 0]
            gain = torch.logaddexp(log_b + log_factor, helped) - log_b
            np.add.at(self._gain_completed, rows, gain.cpu().numpy())
            prices = torch.where(step.log_tau == -torch.inf, -log_nu, torch.inf).amin(dim=1)
            np.minimum.at(self._cheapest_impossible, rows, prices.cpu().numpy())

    def row(self, n_steps: int) -> AuditRow:
        """All of it.

        Args:
            n_steps: the agent's steps in the held-out dialogues.
        """
        return replace(
            self._set.row,
            help_per_step=self._help / n_steps,
            unseen_share=self._n_unseen / n_steps,
            n_blocked=self._n_blocked,
            gain_completed_nats=(float(self._gain_completed.mean()) if self._law_known else None),
            gain_renormalised_nats=float(self._gain_renormalised.mean()),
            cheapest_never_nats=float(np.median(self._cheapest_never)),
            cheapest_impossible_nats=(
                float(np.median(self._cheapest_impossible)) if self._law_known else None
            ),
        )


@dataclass(frozen=True, kw_only=True)
class _Step:
    """What is said of one token of m dialogues, which the agent wrote.

    Attributes:
        tokens: it itself, int64, shape (m,).
        log_b: the base model's law, in nats, float64, shape (m, n_tokens).
        log_members: the least of what further members say, if there are any.
        log_tau: the demonstrator's, if it is known.
        never: which tokens make a never-event, bool, shape (m, n_tokens).
    """

    tokens: Tensor
    log_b: Tensor
    log_members: Tensor | None
    log_tau: Tensor | None
    never: Tensor


def _are_unseen(
    visited: Mapping[str, Tensor], values: Mapping[str, Tensor], acts: Tensor
) -> Tensor:
    """Where the agent acts at a value of some feature that was not visited, bool, shape (n,)."""
    found = torch.zeros_like(acts)
    for name, keys in visited.items():
        value = values[name].contiguous()
        at = torch.searchsorted(keys, value).clamp(max=len(keys) - 1)
        found |= keys[at] != value
    return found & acts


def measure(
    base: BaseModel,
    reader: FeatureReader,
    held_out: Sequence[Demonstration],
    sets: Sequence[AuditedSet],
    *,
    done: Evidence,
    demonstrator: BaseModel | None,
    members: Sequence[BaseModel] = (),
    batch: int,
    on_batch: Callable[[int], object],
) -> Audit:
    """What veto sets do on held-out dialogues.

    Args:
        base: the imitator.
        reader: of the features.
        held_out: dialogues that the sets were not learnt from, in tokens.
        sets: `audited_sets`.
        done: what the demonstrator does, in these dialogues too.
        demonstrator: its law, if known.
        members: further ones; the least of all is what the sets are of, and of the base model "as
            it is" too.
        batch: dialogues read at a time.
        on_batch: is told after every batch how many dialogues have been read.

    Raises:
        InvalidArgumentError: the agent has no step in any of the dialogues.
    """
    law_known = demonstrator is not None
    tallies = [_Tally(audited, len(held_out), law_known=law_known) for audited in sets]
    never = NeverEvents(done, reader, base.device)
    n_steps = 0
    for start in range(0, len(held_out), batch):
        rows = range(start, min(start + batch, len(held_out)))
        law = None if demonstrator is None else walk(demonstrator, reader, held_out, rows)
        further = [walk(member, reader, held_out, rows) for member in members]
        for moment, base_step in walk(base, reader, held_out, rows):
            tau = None if law is None else next(law)[1]
            others = [next(steps)[1] for steps in further]
            acts = moment.acts
            if not bool(acts.any()):
                continue
            n_steps += int(acts.sum())
            said = [semi_log_probs(other).to(base.device)[acts] for other in others]
            step = _Step(
                tokens=moment.tokens[acts],
                log_b=semi_log_probs(base_step)[acts],
                log_members=torch.stack(said).amin(dim=0) if said else None,
                log_tau=None if tau is None else semi_log_probs(tau).to(base.device)[acts],
                never=never.tokens(moment.state)[acts],
            )
            values = reader.values(moment.state)
            for tally in tallies:
                tally.add(moment, step, values)
        on_batch(rows.stop)
    if not n_steps:
        raise InvalidArgumentError(
            "the held-out dialogues have no step of the agent; name it as they do, with "
            "--agent-name"
        )
    return Audit(
        rows=tuple(tally.row(n_steps) for tally in tallies),
        n_dialogues=len(held_out),
        n_steps=n_steps,
        law_known=law_known,
    )
