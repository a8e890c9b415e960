"""What demonstrations say of every event, counted in one pass of the base model over them.

For every feature and every value of it that the agent's steps came to: `n_E`, and for every token
and for "the end" `c_E`, `lambda_E` and `ln m_E` (`theory.vetoes`). The base model reads each
transcript once; nothing is trained. Transcripts are read in batches of a fixed order, and evidence
is a sum over batches, so that it can be kept at any number of transcripts and gone on with.

Its memory is that of the values visited times the vocabulary: a few dozen values for features of
the turn, some thousand for those of tokens, which large vocabularies do not have.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm_experiment.base.protocol import BaseModel, BaseStep, Session, semi_log_probs
from llm_experiment.chat.features import Feature, FeatureReader, FeatureState, token_pieces
from llm_experiment.chat.veto_set import (
    FeatureCoverage,
    Veto,
    VetoForm,
    VetoSet,
    token_in_clear,
    vocabulary_hash,
)
from llm_experiment.pessimism.demonstrations import Demonstration
from mightnt.results import write_atomically
from theory.errors import InvalidArgumentError, ResultsError
from theory.vetoes import EventEvidence, confidence_factors, graded_factors

Floats = NDArray[np.float64]

BATCH: Final = 64
"""Transcripts that the base model reads at a time."""
_AT_A_TIME: Final = 2**16
"""Events judged at a time, which bounds the memory of the graded form."""
_COUNTS: Final = ("occurrences", "expected", "log_never")


# ------------------------------------------------------------------ reading transcripts


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One token of n transcripts with the same first token, before it is read.

    Attributes:
        rows: which transcripts, int64, shape (n,).
        position: the token's place, 1 at least.
        acts: where there is such a token and the agent wrote it, after what was given, bool,
            shape (n,).
        state: the features before it.
        tokens: it itself, int64, shape (n,).
        first: the first token of all, int64, shape (1,).
        longest: the length of the longest of the transcripts.
    """

    rows: NDArray[np.int64]
    position: int
    acts: Tensor
    state: FeatureState
    tokens: Tensor
    first: Tensor
    longest: int


def moments(
    reader: FeatureReader, transcripts: Sequence[Demonstration], rows: Sequence[int]
) -> Iterator[Moment]:
    """Read transcripts in lockstep, those with the same first token at once.

    Args:
        reader: of features.
        transcripts: of any lengths, 2 at least.
        rows: their numbers.
    """
    device = reader.device
    for first in sorted({int(transcripts[row].tokens[0]) for row in rows}):
        group = np.array([row for row in rows if transcripts[row].tokens[0] == first])
        read = [transcripts[row] for row in group]
        lengths = torch.tensor([len(one.tokens) for one in read], device=device)
        given = torch.tensor([one.n_given for one in read], device=device)
        longest = int(lengths.max())
        tokens = torch.zeros(len(group), longest, dtype=torch.int64)
        for row, one in zip(tokens, read, strict=True):
            row[: len(one.tokens)] = torch.from_numpy(one.tokens)
        tokens = tokens.to(device)
        state = reader.begin(len(group))
        for position in range(1, longest):
            state = reader.advance(state, tokens[:, position - 1])
            yield Moment(
                rows=group,
                position=position,
                acts=reader.agent_acts(state) & (given <= position) & (position < lengths),
                state=state,
                tokens=tokens[:, position],
                first=tokens[0, :1],
                longest=longest,
            )


def walk(
    base: BaseModel,
    reader: FeatureReader,
    transcripts: Sequence[Demonstration],
    rows: Sequence[int],
) -> Iterator[tuple[Moment, BaseStep]]:
    """What a base policy says of every token of transcripts but the first.

    Args:
        base: predicts; on a device of its own, where its steps are.
        reader: of features.
        transcripts: of any lengths, 2 at least.
        rows: their numbers.
    """
    session: Session | None = None
    last: Tensor | None = None
    for moment in moments(reader, transcripts, rows):
        if session is None or last is None or moment.position == 1:
            session, step = base.begin(
                moment.first.to(base.device),
                n_episodes=len(moment.rows),
                n_positions=moment.longest,
            )
        else:
            step = session.append(last)
        last = moment.tokens.to(base.device)
        yield moment, step


# ----------------------------------------------------------------------------- evidence


class FeatureEvidence:
    """What demonstrations say of the events of one feature; grows with the values visited.

    Args:
        n_tokens: size of the vocabulary.

    Attributes:
        values: those visited, in order of the first visit.
    """

    def __init__(self, n_tokens: int) -> None:
        self.values: list[int] = []
        self._row: dict[int, int] = {}
        self._visits = torch.zeros(0, dtype=torch.int64)
        self._sums = {name: _zeros(0, n_tokens + 1) for name in _COUNTS}

    @property
    def visits(self) -> NDArray[np.int64]:
        """`n_E`, shape (values,)."""
        return np.asarray(self._visits[: len(self.values)].numpy())

    def sums(self, name: str) -> Floats:
        """`occurrences`, `expected` or `log_never`; the last column is "the end".

        Returns:
            Shape (values, n_tokens + 1).
        """
        return np.asarray(self._sums[name][: len(self.values)].numpy())

    def add(self, values: NDArray[np.int64], increments: dict[str, Tensor]) -> None:
        """Count some steps.

        Args:
            values: of the feature, shape (steps,).
            increments: what each step adds to `sums`, float64, shape (steps, n_tokens + 1).
        """
        found, inverse = np.unique(values, return_inverse=True)
        rows = torch.tensor([self._find(int(value)) for value in found])[torch.from_numpy(inverse)]
        self._visits.index_add_(0, rows, torch.ones_like(rows))
        for name, increment in increments.items():
            self._sums[name].index_add_(0, rows, increment)

    def _find(self, value: int) -> int:
        """The row of a value, made if need be."""
        if value not in self._row:
            self._row[value] = len(self.values)
            self.values.append(value)
            if len(self.values) > len(self._visits):
                self._reserve(2 * len(self.values))
        return self._row[value]

    def _reserve(self, n_rows: int) -> None:
        more = n_rows - len(self._visits)
        self._visits = torch.cat([self._visits, self._visits.new_zeros(more)])
        for name, sums in self._sums.items():
            self._sums[name] = torch.cat([sums, _zeros(more, sums.shape[1])])

    def copy(self) -> "FeatureEvidence":
        """The same, which further steps do not change."""
        return FeatureEvidence.restored(self.stored())

    def stored(self) -> dict[str, NDArray[Any]]:
        """All of it, as arrays."""
        values = np.array(self.values, dtype=np.int64)
        sums = {name: self.sums(name) for name in _COUNTS}
        return {"values": values, "visits": self.visits, **sums}

    @classmethod
    def restored(cls, arrays: dict[str, NDArray[Any]]) -> "FeatureEvidence":
        """What `stored` gave."""
        evidence = cls(arrays["expected"].shape[1] - 1)
        evidence.values = [int(value) for value in arrays["values"]]
        evidence._row = {value: row for row, value in enumerate(evidence.values)}
        evidence._visits = torch.from_numpy(arrays["visits"].copy())
        evidence._sums = {name: torch.from_numpy(arrays[name].copy()) for name in _COUNTS}
        return evidence


def _zeros(n_rows: int, n_columns: int) -> Tensor:
    return torch.zeros(n_rows, n_columns, dtype=torch.float64)


class Evidence:
    """What demonstrations say of all events.

    Args:
        features: which.
        n_tokens: size of the vocabulary.

    Attributes:
        features: their evidence, by name.
        n_demonstrations: transcripts read.
        n_steps: the agent's steps in them.
    """

    def __init__(self, features: Sequence[Feature], n_tokens: int) -> None:
        self.features = {feature.name: FeatureEvidence(n_tokens) for feature in features}
        self.n_demonstrations = 0
        self.n_steps = 0

    def copy(self) -> "Evidence":
        """The same, which further transcripts do not change."""
        other = Evidence((), 1)
        other.features = {name: feature.copy() for name, feature in self.features.items()}
        other.n_demonstrations, other.n_steps = self.n_demonstrations, self.n_steps
        return other

    def add(self, moment: Moment, step: BaseStep, reader: FeatureReader) -> None:
        """Count one token of several transcripts.

        Args:
            moment: the token.
            step: what the base policy says of it.
            reader: of the features.
        """
        acts = moment.acts
        n_steps = int(acts.sum())
        if not n_steps:
            return
        b = semi_log_probs(step)[acts].exp()
        b = torch.cat([b, b[:, reader.ends].sum(dim=1, keepdim=True)], dim=1).clamp(max=1.0).cpu()
        tokens = moment.tokens[acts]
        occurred = torch.zeros_like(b)
        occurred[torch.arange(n_steps), tokens.cpu()] = 1.0
        occurred[:, -1] = reader.ends[tokens].cpu().double()
        increments = dict(zip(_COUNTS, (occurred, b, torch.log1p(-b)), strict=True))
        for name, values in reader.values(moment.state).items():
            self.features[name].add(values[acts].cpu().numpy(), increments)
        self.n_steps += n_steps


def gather_evidence(
    base: BaseModel,
    reader: FeatureReader,
    transcripts: Sequence[Demonstration],
    *,
    stops: Sequence[int] = (),
    begin_with: Evidence | None = None,
    batch: int = BATCH,
) -> Iterator[Evidence]:
    """Evidence of more and more of some transcripts, after every batch.

    The same object is given every time, and is gone on with.

    Args:
        base: the imitator.
        reader: of the features.
        transcripts: the demonstrations, in tokens.
        stops: numbers of transcripts at which a batch must end.
        begin_with: evidence of the first of them, which is gone on with.
        batch: transcripts read at a time.
    """
    evidence = begin_with or Evidence(reader.features, reader.n_tokens)
    ends = sorted({*range(batch, len(transcripts), batch), *stops, len(transcripts)})
    for end in ends:
        start = evidence.n_demonstrations
        if not start < end <= len(transcripts):
            continue
        for moment, step in walk(base, reader, transcripts, range(start, end)):
            evidence.add(moment, step, reader)
        evidence.n_demonstrations = end
        yield evidence


# --------------------------------------------------------------------- to be gone on with


def save_evidence(path: Path, evidence: Evidence, *, made_from: str) -> None:
    """Write evidence, so that an interrupted pass can go on.

    Args:
        path: of an `.npz` file.
        evidence: so far.
        made_from: says what the evidence is of; it is gone on with only there.
    """
    head = {"n_demonstrations": evidence.n_demonstrations, "n_steps": evidence.n_steps}
    arrays: dict[str, Any] = {"head": np.array(json.dumps({**head, "made_from": made_from}))}
    for name, feature in evidence.features.items():
        arrays |= {f"{name}/{key}": array for key, array in feature.stored().items()}
    write_atomically(path, lambda file: np.savez(file, **arrays))


def load_evidence(path: Path, *, made_from: str) -> Evidence | None:
    """What `save_evidence` wrote; None if there is no such file, or it is of something else.

    Raises:
        ResultsError: the file is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            head = json.loads(str(stored["head"]))
            if head["made_from"] != made_from:
                return None
            evidence = Evidence((), 1)
            evidence.n_demonstrations = head["n_demonstrations"]
            evidence.n_steps = head["n_steps"]
            arrays: dict[str, dict[str, NDArray[Any]]] = {}
            for key in stored.files:
                name, _, part = key.partition("/")
                if part:
                    arrays.setdefault(name, {})[part] = stored[key]
            evidence.features = {
                name: FeatureEvidence.restored(parts) for name, parts in arrays.items()
            }
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise ResultsError(f"cannot go on with {path}: {error}; delete it to begin anew") from error
    return evidence


# -------------------------------------------------------------------------- to vetoes


def surest_alpha(features: Sequence[Feature], n_tokens: int) -> float:
    """The largest alpha at which every event that never occurred is vetoed: `min s_E`."""
    longest = max(feature.event_bits(n_tokens, ends=False) for feature in features)
    return float(np.exp2(-longest))


def event_evidence(
    evidence: FeatureEvidence, feature: Feature, n_tokens: int, rows: slice
) -> EventEvidence:
    """The events of some values of a feature, a value's tokens and its end one after another.

    Args:
        evidence: of the feature.
        feature: says code lengths.
        n_tokens: size of the vocabulary.
        rows: which of the visited values.
    """
    visits = np.repeat(evidence.visits[rows], n_tokens + 1)
    return EventEvidence(
        bits=np.tile(_event_bits(feature, n_tokens), len(evidence.visits[rows])),
        visits=visits,
        **{name: evidence.sums(name)[rows].ravel() for name in _COUNTS},
    )


def _event_bits(feature: Feature, n_tokens: int) -> Floats:
    """Code lengths of all tokens and of the end, shape (n_tokens + 1,)."""
    bits = np.full(n_tokens + 1, feature.event_bits(n_tokens, ends=False))
    bits[-1] = feature.event_bits(n_tokens, ends=True)
    return bits


def event_factors(evidence: EventEvidence, *, alpha: float, form: VetoForm) -> Floats:
    """What the probability of each event is multiplied by, shape (events,)."""
    if form is VetoForm.GRADED:
        return np.asarray(graded_factors(evidence, alpha))
    if form is VetoForm.CONFIDENCE:
        return np.asarray(confidence_factors(evidence, alpha))
    return np.where(evidence.vetoed(alpha), 0.0, 1.0)


def make_veto_set(
    evidence: Evidence,
    reader: FeatureReader,
    *,
    alpha: float,
    form: VetoForm = VetoForm.SPIKE,
    ending: Sequence[int] = (),
    base_model: str = "",
) -> VetoSet:
    """The vetoes that evidence leads to.

    An event that a broader veto implies is left out: its deletion would lift nothing.

    Args:
        evidence: of the demonstrations.
        reader: of its features.
        alpha: the threshold, 0 < alpha <= 1.
        form: what one occurrence does to a veto.
        ending: the reader's tokens that end a turn without a line break.
        base_model: the imitator's name.

    Raises:
        InvalidArgumentError: alpha outside (0, 1], or demonstrations without a step of the agent.
    """
    if not evidence.n_steps:
        raise InvalidArgumentError(
            "the demonstrations have no step of the agent; name it as they do, with --agent-name"
        )
    n_tokens = reader.n_tokens
    judged = judge_events(evidence, reader, alpha=alpha, form=form)
    vetoes = [
        veto
        for feature in reader.features
        for veto in _vetoes_of(feature, evidence, judged[feature.name].needed(reader), reader)
    ]
    vetoes.sort(key=lambda veto: -veto.expected)
    parser = reader.parser
    return VetoSet(
        alpha=alpha,
        form=form,
        tokenizer=vocabulary_hash(parser),
        n_tokens=n_tokens,
        agent=parser.rules.agent,
        partner=parser.rules.partner,
        separator=parser.rules.separator,
        ending=tuple(ending),
        n_demonstrations=evidence.n_demonstrations,
        n_steps=evidence.n_steps,
        base_model=base_model,
        coverage=tuple(
            FeatureCoverage(
                feature=feature.name,
                unvisited_factor=float(judged[feature.name].unvisited[0]),
                unvisited_end_factor=float(judged[feature.name].unvisited[-1]),
                visited=tuple(sorted(evidence.features[feature.name].values)),
            )
            for feature in reader.features
        ),
        vetoes=tuple(vetoes),
    )


@dataclass(frozen=True, kw_only=True)
class JudgedEvents:
    """The factors of one feature's events; the last column is "the end".

    Attributes:
        factors: in [0, 1], shape (values, n_tokens + 1), values in order of the first visit.
        unvisited: the same where no demonstration came, shape (n_tokens + 1,).
        everywhere: what holds of a token at every value of every feature, shape (n_tokens + 1,).
    """

    factors: Floats
    unvisited: Floats
    everywhere: Floats

    def needed(self, reader: FeatureReader) -> Floats:
        """The factors, with 1 in place of those that a broader event implies.

        Args:
            reader: says which tokens end the turn.
        """
        ends = reader.ends.cpu().numpy()
        by_end = np.where(ends, self.factors[:, -1:], 1.0)
        broader = np.minimum(self.everywhere, np.pad(by_end, ((0, 0), (0, 1)), constant_values=1))
        return np.where(self.factors < broader, self.factors, 1.0)


def judge_events(
    evidence: Evidence, reader: FeatureReader, *, alpha: float, form: VetoForm
) -> dict[str, JudgedEvents]:
    """What the probability of every event is multiplied by, for each feature by its name.

    Args:
        evidence: of the demonstrations.
        reader: of its features.
        alpha: the threshold, 0 < alpha <= 1.
        form: what one occurrence does to a veto.
    """
    n_tokens = reader.n_tokens
    ends = np.pad(reader.ends.cpu().numpy(), (0, 1))
    everywhere = np.ones(n_tokens + 1)
    judged = {}
    for feature in reader.features:
        found = evidence.features[feature.name]
        step = max(_AT_A_TIME // (n_tokens + 1), 1)
        parts = [
            event_factors(
                event_evidence(found, feature, n_tokens, slice(start, start + step)),
                alpha=alpha,
                form=form,
            ).reshape(-1, n_tokens + 1)
            for start in range(0, len(found.values), step)
        ]
        factors = np.concatenate([np.empty((0, n_tokens + 1)), *parts])
        judged[feature.name] = JudgedEvents(
            factors=factors,
            unvisited=event_factors(_no_evidence(feature, n_tokens), alpha=alpha, form=form),
            everywhere=everywhere,
        )
        if feature.n_values(n_tokens) == 1 and len(factors):
            only = factors[0]
            everywhere = np.minimum(everywhere, np.where(ends, np.minimum(only, only[-1]), only))
    return judged


def _no_evidence(feature: Feature, n_tokens: int) -> EventEvidence:
    """The events of a value that no demonstration visited."""
    nothing = np.zeros(n_tokens + 1)
    return EventEvidence(
        bits=_event_bits(feature, n_tokens),
        visits=nothing,
        **dict.fromkeys(_COUNTS, nothing),
    )


def _vetoes_of(
    feature: Feature, evidence: Evidence, factors: Floats, reader: FeatureReader
) -> list[Veto]:
    """The vetoes of one feature, from factors of its visited values; 1 is none."""
    found = evidence.features[feature.name]
    pieces = token_pieces(reader.parser)
    rows, columns = np.nonzero(factors < 1)
    bits = _event_bits(feature, reader.n_tokens)[columns]
    sums = {name: found.sums(name)[rows, columns] for name in _COUNTS}
    events = EventEvidence(bits=bits, visits=found.visits[rows], **sums)
    weights = events.never_weights()
    clear = [feature.in_clear(value, pieces) for value in found.values]
    tokens = [None if column == reader.n_tokens else column for column in columns.tolist()]
    return [
        Veto(
            feature=feature.name,
            value=clear[row],
            token=token_in_clear(token, pieces),
            visits=int(events.visits[i]),
            occurrences=int(events.occurrences[i]),
            expected=float(events.expected[i]),
            log_never=float(events.log_never[i]),
            bits=float(bits[i]),
            weight=float(weights[i]),
            factor=float(factors[row, columns[i]]),
            value_id=found.values[row],
            token_id=token,
        )
        for i, (row, token) in enumerate(zip(rows.tolist(), tokens, strict=True))
    ]
