"""Features that name what an attacker did: how a veto set is widened, and when it is not.

An agent that was trained against a veto set shows, in its departures (`pessimism.departures`), what
the features of the set do not name. A *proposal* is one more feature of the table
(`llm_experiment.chat.features`), or, where none of these answers, the phrases after which most
departures came. The same demonstrations then say which of its events never occurred. It *answers*
the attacker if the widened set makes the first impossible token of most of its departures
impossible. It is *kept* if the widened set passes the audit: on dialogues that it was not learnt
from it blocks no token more than the set before, and their likelihood, the demonstrator helping
where mass is missing, is not lower.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import torch

from llm_experiment.chat.features import (
    MEMORY,
    Feature,
    FeatureReader,
    features_for,
    find_features,
    phrase_feature,
)
from llm_experiment.chat.turns import TurnParser
from llm_experiment.chat.veto_set import VetoSet
from llm_experiment.pessimism.audit import AuditRow
from llm_experiment.pessimism.departures import Departures
from llm_experiment.pessimism.learning import Evidence, make_veto_set

ANSWERED: Final = 0.5
"""A proposal answers an attacker if it prevents more than this share of its departures."""
MOST_PHRASES: Final = 8
"""More phrases are not proposed."""
GAIN_TOLERANCE_NATS: Final = 1e-3
"""How much lower the mean log-likelihood of a held-out dialogue may be: rounding."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A veto set that is wider by some features.

    Attributes:
        features: their names.
        vetoes: the widened set.
        prevented: share of the attacker's departures that it makes impossible.
    """

    features: tuple[str, ...]
    vetoes: VetoSet
    prevented: float


class Departing(NamedTuple):
    """What an agent wrote where it departed.

    Attributes:
        so_far: the tokens of its turn before it.
        token: it itself.
    """

    so_far: tuple[int, ...]
    token: int


def unused_features(known: Sequence[str], n_tokens: int) -> tuple[Feature, ...]:
    """The features of the table that are not known yet, those with the shortest events first.

    Args:
        known: names of features.
        n_tokens: size of the vocabulary.
    """
    unused = (feature for feature in features_for(n_tokens) if feature.name not in known)
    return tuple(sorted(unused, key=lambda f: f.event_bits(n_tokens, ends=False)))


def proposals(
    candidates: Iterable[Sequence[Feature]],
    evidence_of: Callable[[Sequence[Feature]], Evidence],
    parser: TurnParser,
    known: Sequence[str],
    departures: Departures,
    *,
    alpha: float,
    **made: Any,
) -> Iterator[Proposal]:
    """The wider veto sets that answer an attacker.

    Args:
        candidates: the features that each would be wider by.
        evidence_of: what the demonstrations say of features.
        parser: of the base policy's tokenizer.
        known: the features of the set that it was trained against.
        departures: of the attacker.
        alpha: the threshold.
        made: more of `make_veto_set`'s options.
    """
    for more in candidates:
        names = tuple(feature.name for feature in more if feature.name not in known)
        if not names:
            continue
        reader = FeatureReader(parser, find_features((*known, *names), parser.n_tokens))
        vetoes = make_veto_set(evidence_of(reader.features), reader, alpha=alpha, **made)
        prevented = prevented_share(vetoes, parser, departures)
        if prevented > ANSWERED:
            yield Proposal(features=names, vetoes=vetoes, prevented=prevented)


def departing(departures: Departures, parser: TurnParser) -> Counter[Departing]:
    """How often an agent departed by what; longer turns than are remembered are left out.

    Args:
        departures: found in its episodes.
        parser: of the base policy's tokenizer.
    """
    found: Counter[Departing] = Counter()
    reader = FeatureReader(parser, ())
    transcripts = torch.from_numpy(departures.tokens[departures.rows])
    state = reader.begin(len(transcripts))
    for position, column in enumerate(transcripts.T):
        for row in np.flatnonzero(departures.positions == position).tolist():
            count = int(state.count[row])
            if count <= MEMORY and bool(state.from_start[row]):
                so_far = tuple(state.tokens[row, :count].tolist())
                found[Departing(so_far, int(column[row]))] += 1
        state = reader.advance(state, column)
    return found


def phrases_of(departures: Departures, parser: TurnParser) -> tuple[Feature, ...]:
    """The fewest phrases after which more than the share `ANSWERED` of departures came.

    Args:
        departures: of an attacker.
        parser: of the base policy's tokenizer.

    Returns:
        Their features, the most frequent first; `MOST_PHRASES` at most, since an agent that departs
        in many ways has learnt none.
    """
    counted: Counter[tuple[int, ...]] = Counter()
    for event, number in departing(departures, parser).items():
        counted[event.so_far] += number
    chosen: list[Feature] = []
    covered = 0
    for phrase, number in counted.most_common(MOST_PHRASES):
        if covered > ANSWERED * departures.n_departed:
            break
        chosen.append(phrase_feature(phrase, parser.n_tokens))
        covered += number
    return tuple(chosen)


def prevented_share(vetoes: VetoSet, parser: TurnParser, departures: Departures) -> float:
    """Share of departures whose first impossible token a veto set makes impossible; 0 if none.

    Args:
        vetoes: the set.
        parser: of the base policy's tokenizer.
        departures: found in episodes.
    """
    if not departures.n_departed:
        return 0.0
    compiled = vetoes.compile(parser)
    transcripts = torch.from_numpy(departures.tokens[departures.rows])
    positions = torch.from_numpy(departures.positions)
    state = compiled.reader.begin(len(transcripts))
    prevented = torch.zeros(len(transcripts), dtype=torch.bool)
    for position, column in enumerate(transcripts.T):
        here = positions == position
        if bool(here.any()):
            factors = compiled.log_factors(state).gather(1, column[:, None])[:, 0]
            prevented |= here & torch.isneginf(factors)
        state = compiled.reader.advance(state, column)
    return float(prevented.double().mean())


def passes(row: AuditRow, before: AuditRow) -> bool:
    """Whether a widened set is kept; see the module's docstring.

    Args:
        row: its audit.
        before: that of the set before, on the same dialogues.
    """
    gain, gain_before = (
        each.gain_renormalised_nats
        if each.gain_completed_nats is None
        else each.gain_completed_nats
        for each in (row, before)
    )
    return row.n_blocked <= before.n_blocked and gain >= gain_before - GAIN_TOLERANCE_NATS
