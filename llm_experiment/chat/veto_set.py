"""Events that an agent must not do, as a file that a person can read and edit.

What is vetoed, and why, says `theory.vetoes`; what an event of a transcript is, says
`llm_experiment.chat.features`. `llm_experiment.pessimism.learning` makes veto sets from
demonstrations. A set is frozen while an agent acts.

The file is JSON with one veto a line, so that `grep` finds it and deleting the line lifts it. A
veto says its value and its token in clear and by number; the numbers are those of one vocabulary,
whose hash the file holds.

Where a feature has a value that no demonstration visited, nothing speaks for the imitator
(`m_E = 1`), so that the event is vetoed if alpha is at most its prior. All values of one feature
have the same prior, so that a file holds one factor a feature for that, and which values were
visited.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from llm_experiment.chat.features import (
    Feature,
    FeatureReader,
    FeatureState,
    find_features,
    token_pieces,
)
from llm_experiment.chat.turns import TurnParser
from mightnt.results import from_jsonable, to_jsonable, write_atomically
from theory.arguments import check_alpha
from theory.errors import InvalidArgumentError, ModelError, ResultsError

THE_END: Final = "(the turn ends)"
"""How a veto names the class of tokens that end the turn."""
_VETOES: Final = "vetoes"
_LAST_COMMA: Final = re.compile(r",(\s*\n\s*\])")
_REMEDY: Final = "learn the vetoes again with `python -m llm_experiment.vetoes`"


class VetoForm(Enum):
    """What one occurrence of an event does to its veto."""

    SPIKE = "spike"
    """It lifts it: the event is either impossible or as probable as the imitator has it."""
    GRADED = "graded"
    """It weakens it: the event's probability is multiplied by the least factor that is likely."""
    CONFIDENCE = "confidence"
    """No event is vetoed: each is made as rare as the upper end of a confidence interval of its
    rate allows. What vetoes are compared with."""


@dataclass(frozen=True, kw_only=True)
class Veto:
    """One event, what demonstrations say of it, and what becomes of its probability.

    Attributes:
        feature: its name.
        value: of the feature, in clear.
        token: what is written next, in clear.
        visits: `n_E`, the agent's steps in the demonstrations at which the feature had the value.
        occurrences: `c_E`, those at which it wrote the token.
        expected: `lambda_E`, the occurrences that the imitator expected.
        log_never: `ln m_E`, what the imitator gave to never seeing it, in nats.
        bits: its code length.
        weight: `w_E`, the posterior weight of "never".
        factor: r, what its probability is multiplied by; 0 where it is impossible.
        value_id: the value by number.
        token_id: the token by number; None stands for every token that ends the turn.
    """

    feature: str
    value: str
    token: str
    visits: int
    occurrences: int
    expected: float
    log_never: float
    bits: float
    weight: float
    factor: float
    value_id: int
    token_id: int | None

    def __post_init__(self) -> None:
        if not 0 <= self.factor < 1:
            raise InvalidArgumentError(
                f"factor must lie in [0, 1), got {self.factor}; delete the line of a veto that is "
                "to be lifted"
            )


@dataclass(frozen=True, kw_only=True)
class FeatureCoverage:
    """Where the demonstrations came, for one feature.

    Attributes:
        feature: its name.
        unvisited_factor: what multiplies the probability of a token at a value that no
            demonstration visited; 1 leaves it as it is.
        unvisited_end_factor: the same for the end of the turn.
        visited: the values that demonstrations visited, in ascending order.
    """

    feature: str
    unvisited_factor: float
    unvisited_end_factor: float
    visited: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("unvisited_factor", "unvisited_end_factor"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidArgumentError(f"{name} must lie in [0, 1], got {getattr(self, name)}")

    @property
    def lets_be(self) -> bool:
        """Whether unvisited values are left as they are."""
        return self.unvisited_factor == 1 and self.unvisited_end_factor == 1


@dataclass(frozen=True, kw_only=True)
class VetoSet:
    """All vetoes that one set of demonstrations led to.

    Attributes:
        alpha: the threshold.
        form: see `VetoForm`.
        tokenizer: `vocabulary_hash` of the vocabulary whose numbers are used.
        n_tokens: size of the vocabulary.
        agent: the name before the agent's turns.
        partner: the name before its partner's.
        separator: line breaks between turns.
        ending: tokens without a line break that end a turn all the same, such as the end of text.
        n_demonstrations: how many there were.
        n_steps: the agent's steps in them.
        base_model: what made the predictions, for a person.
        coverage: one a feature, in the order of the features' table.
        vetoes: the events, from the most expected on.
    """

    alpha: float
    form: VetoForm
    tokenizer: str
    n_tokens: int
    agent: str
    partner: str
    separator: str
    ending: tuple[int, ...] = ()
    n_demonstrations: int
    n_steps: int
    base_model: str = ""
    coverage: tuple[FeatureCoverage, ...]
    vetoes: tuple[Veto, ...] = field(default=())

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        known = {feature.name: feature for feature in self.features}
        for veto in self.vetoes:
            feature = known.get(veto.feature)
            if feature is None:
                raise InvalidArgumentError(
                    f"a veto names the feature {veto.feature!r}, which coverage does not list"
                )
            if not 0 <= veto.value_id < feature.n_values(self.n_tokens):
                raise InvalidArgumentError(
                    f"a veto on {veto.feature} has value_id {veto.value_id}, which must lie in "
                    f"0..{feature.n_values(self.n_tokens) - 1}"
                )
            if veto.token_id is not None and not 0 <= veto.token_id < self.n_tokens:
                raise InvalidArgumentError(
                    f"a veto on {veto.feature} has token_id {veto.token_id}, which must lie in "
                    f"0..{self.n_tokens - 1}"
                )

    @property
    def features(self) -> tuple[Feature, ...]:
        """Those that the vetoes may be of."""
        names = [coverage.feature for coverage in self.coverage]
        return find_features(names, self.n_tokens)

    @property
    def is_hard(self) -> bool:
        """Whether every event that was never seen is vetoed, whatever the imitator expected."""
        return all(
            coverage.unvisited_factor == 0 and coverage.unvisited_end_factor == 0
            for coverage in self.coverage
        )

    def compile(self, parser: TurnParser, device: torch.device | None = None) -> "CompiledVetoes":
        """The set as tables to look up.

        Args:
            parser: of the vocabulary and the names that the set was made for.
            device: where the tables are to lie; the parser's own if left out.

        Raises:
            ModelError: another vocabulary, other names, or a veto whose text is not what its
                numbers say.
        """
        check_parser(self, parser)
        return CompiledVetoes(self, parser, device or parser.begin(1).line.device)


class CompiledVetoes:
    """Vetoes as tables: for each feature one row of factors a value.

    Args:
        veto_set: what is vetoed; is checked by `VetoSet.compile`.
        parser: says whose turn it is; on `device`.
        device: where the tables lie.

    Attributes:
        reader: reads the features that the vetoes are of.
    """

    def __init__(self, veto_set: VetoSet, parser: TurnParser, device: torch.device) -> None:
        self.reader = FeatureReader(parser, veto_set.features, ending=veto_set.ending)
        self._ends = self.reader.ends.to(device)
        self._tables = [
            _FactorTable(coverage, veto_set, self._ends, device)
            for coverage in veto_set.coverage
            if not coverage.lets_be or any(v.feature == coverage.feature for v in veto_set.vetoes)
        ]

    def read(self, tokens: Tensor) -> FeatureState:
        """The state after transcripts, int64, shape (n, t)."""
        return self.reader.read(tokens)

    def advance(self, state: FeatureState, tokens: Tensor) -> FeatureState:
        """The state after one more token of every transcript, int64, shape (n,)."""
        return self.reader.advance(state, tokens)

    def log_factors(self, state: FeatureState) -> Tensor:
        """What to add to the log-probability of every next token, in nats.

        Args:
            state: of `reader`.

        Returns:
            float32, shape (n, n_tokens); the least over the features, -inf for what is
            impossible, 0 for what is let be; all 0 where the agent does not act.
        """
        n_tokens = self.reader.n_tokens
        result = torch.zeros(len(state.count), n_tokens, device=state.count.device)
        if self._tables:
            values = self.reader.values(state)
            for table in self._tables:
                result = torch.minimum(result, table.rows(values[table.feature]))
        acts = self.reader.agent_acts(state)
        return torch.where(acts[:, None], result, 0.0)

    def are_unvisited(self, state: FeatureState) -> Tensor:
        """Where the agent acts at a value that no demonstration visited and that is not let be.

        Returns:
            bool, shape (n,).
        """
        values = self.reader.values(state)
        found = torch.zeros_like(state.count, dtype=torch.bool)
        for table in self._tables:
            found |= table.are_unvisited(values[table.feature])
        return found & self.reader.agent_acts(state)


class _FactorTable:
    """The logarithms of one feature's factors: a row for each value, the last for unvisited ones.

    Attributes:
        feature: its name.
    """

    def __init__(
        self, coverage: FeatureCoverage, veto_set: VetoSet, ends: Tensor, device: torch.device
    ) -> None:
        self.feature = coverage.feature
        own = [veto for veto in veto_set.vetoes if veto.feature == coverage.feature]
        vetoed = {veto.value_id for veto in own}
        # Where unvisited values are let be, only values with a veto need a row.
        keys = sorted(vetoed if coverage.lets_be else vetoed | set(coverage.visited))
        row = {key: i for i, key in enumerate(keys)}
        table = torch.ones(len(keys) + 1, len(ends), dtype=torch.float64)
        ends = ends.cpu()
        table[-1] = torch.where(
            ends,
            min(coverage.unvisited_factor, coverage.unvisited_end_factor),
            coverage.unvisited_factor,
        )
        for veto in own:
            line = table[row[veto.value_id]]
            if veto.token_id is None:
                line[ends] = line[ends].clamp(max=veto.factor)
            else:
                line[veto.token_id] = min(float(line[veto.token_id]), veto.factor)
        self._keys = torch.tensor(keys, dtype=torch.int64, device=device)
        self._log_factors = table.log().float().to(device)
        self._lets_be = coverage.lets_be

    def rows(self, values: Tensor) -> Tensor:
        """The factors' logarithms at values, float32, shape (n, n_tokens)."""
        return self._log_factors[self._row(values)]

    def are_unvisited(self, values: Tensor) -> Tensor:
        """Which values were not visited and are not let be, bool, shape (n,)."""
        return (self._row(values) == len(self._keys)) & (not self._lets_be)

    def _row(self, values: Tensor) -> Tensor:
        last = len(self._keys)
        if not last:
            return torch.zeros_like(values)
        at = torch.searchsorted(self._keys, values.contiguous()).clamp(max=last - 1)
        return torch.where(self._keys[at] == values, at, last)


# --------------------------------------------------------------------------- checks


def vocabulary_hash(parser: TurnParser) -> str:
    """What tells vocabularies apart: SHA-256 of the texts of all tokens, in order."""
    texts = json.dumps(token_pieces(parser)).encode()
    return hashlib.sha256(texts).hexdigest()


def check_parser(veto_set: VetoSet, parser: TurnParser) -> None:
    """Raise unless a veto set was made for a parser's vocabulary and names.

    Raises:
        ModelError: it was made for others, or a line of it contradicts itself.
    """
    given = vocabulary_hash(parser)
    if veto_set.tokenizer != given:
        raise ModelError(
            f"the vetoes were learnt with another tokenizer ({veto_set.n_tokens} tokens, hash "
            f"{veto_set.tokenizer[:12]}; this one has {parser.n_tokens}, hash {given[:12]}), so "
            f"that their numbers mean nothing here; {_REMEDY}"
        )
    for name in ("agent", "partner", "separator"):
        ours, theirs = getattr(veto_set, name), getattr(parser.rules, name)
        if ours != theirs:
            raise ModelError(
                f"the vetoes were learnt with {name} {ours!r} and the chat has {theirs!r}; name "
                f"the speakers alike, or {_REMEDY}"
            )
    pieces = token_pieces(parser)
    known = {feature.name: feature for feature in veto_set.features}
    for veto in veto_set.vetoes:
        said = (veto.value, veto.token)
        meant = (
            known[veto.feature].in_clear(veto.value_id, pieces),
            token_in_clear(veto.token_id, pieces),
        )
        if said != meant:
            raise ModelError(
                f"a veto on {veto.feature} says {said[0]} and {said[1]}, but its numbers mean "
                f"{meant[0]} and {meant[1]}; change both or neither"
            )


def token_in_clear(token: int | None, pieces: Sequence[str]) -> str:
    """What is written next, for a person."""
    return THE_END if token is None else repr(pieces[token])


# --------------------------------------------------------------------------- the file


def write_veto_set(path: Path, veto_set: VetoSet) -> None:
    """Write a veto set as JSON, one veto a line, atomically.

    Raises:
        ResultsError: it cannot be written.
    """
    write_atomically(path, lambda file: file.write_text(_to_text(veto_set), encoding="utf-8"))


def _to_text(veto_set: VetoSet) -> str:
    head = to_jsonable(replace(veto_set, vetoes=()))
    del head[_VETOES]
    lines = [f"  {json.dumps(key)}: {_value_text(value)}" for key, value in head.items()]
    vetoes = ",\n".join(f"    {_line(to_jsonable(veto))}" for veto in veto_set.vetoes)
    lines.append(f'  "{_VETOES}": [\n{vetoes}\n  ]' if vetoes else f'  "{_VETOES}": []')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _value_text(value: Any) -> str:
    """A field of the head; a list of objects gets a line for each."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(f"    {_line(item)}" for item in value) + "\n  ]"
    return _line(value)


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def read_veto_set(path: Path) -> VetoSet:
    """The veto set in a file.

    Raises:
        ResultsError: there is no such file, or it is no veto set; the message says where.
    """
    remedy = f"mend the line, or {_REMEDY}"
    try:
        # Whoever deletes the last veto leaves a comma behind the one before it.
        text = _LAST_COMMA.sub(r"\1", path.read_text(encoding="utf-8"))
        return _parse(json.loads(text))
    except FileNotFoundError:
        raise ResultsError(f"there is no file {path}; {_REMEDY}") from None
    except RecursionError:
        raise ResultsError(f"cannot read {path}: it is nested too deeply; {remedy}") from None
    except (OSError, ValueError, TypeError) as error:
        raise ResultsError(f"cannot read {path}: {error}; {remedy}") from error


def _parse(content: Any) -> VetoSet:
    if not isinstance(content, dict):
        raise TypeError(f"a veto set is an object, got {content!r:.40}")
    vetoes = content.get(_VETOES, [])
    if not isinstance(vetoes, list):
        raise TypeError(f"{_VETOES} must be a list, got {vetoes!r:.40}")
    read = [_numbered(number, veto) for number, veto in enumerate(vetoes, start=1)]
    head = from_jsonable(VetoSet, {**content, _VETOES: []})
    return replace(head, vetoes=tuple(read))


def _numbered(number: int, veto: Any) -> Veto:
    try:
        return from_jsonable(Veto, veto)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"veto {number}: {error}") from error
