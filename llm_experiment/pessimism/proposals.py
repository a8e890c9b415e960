"""Features that name what an attacker did: how a veto set is widened, and when it is not.

An agent that was trained against a veto set shows, in its departures (`pessimism.departures`), what
the features of the set do not name. A *proposal* is one more feature of the table
(`llm_experiment.chat.features`); the same demonstrations then say which of its events never
occurred. It *answers* the attacker if the widened set makes the first impossible token of most of
its departures impossible. It is *kept* if the widened set passes the audit: on dialogues that it
was not learnt from it blocks no token more than the set before, and their likelihood, the
demonstrator helping where mass is missing, is not lower.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from llm_experiment.chat.features import FEATURES, FeatureReader, find_features
from llm_experiment.chat.turns import TurnParser
from llm_experiment.chat.veto_set import VetoSet
from llm_experiment.pessimism.audit import AuditRow
from llm_experiment.pessimism.departures import Departures
from llm_experiment.pessimism.learning import Evidence, make_veto_set

ANSWERED: Final = 0.5
"""A proposal answers an attacker if it prevents more than this share of its departures."""
GAIN_TOLERANCE_NATS: Final = 1e-3
"""How much lower the mean log-likelihood of a held-out dialogue may be: rounding."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A veto set that is wider by a feature.

    Attributes:
        feature: its name.
        vetoes: the widened set.
        prevented: share of the attacker's departures that it makes impossible.
    """

    feature: str
    vetoes: VetoSet
    prevented: float


def proposals(
    evidence: Evidence,
    parser: TurnParser,
    known: Sequence[str],
    departures: Departures,
    tokens: NDArray[np.int64],
    *,
    alpha: float,
    **made: Any,
) -> Iterator[Proposal]:
    """Wider veto sets that answer an attacker, those with the shortest events first.

    Args:
        evidence: of all features.
        parser: of the base policy's tokenizer.
        known: the features of the set that it was trained against.
        departures: of the attacker.
        tokens: its episodes, shape (n, t).
        alpha: the threshold.
        made: more of `make_veto_set`'s options.
    """
    n_tokens = parser.n_tokens
    unused = [f for f in FEATURES if f.name not in known and f.name in evidence.features]
    for feature in sorted(unused, key=lambda f: f.event_bits(n_tokens, ends=False)):
        reader = FeatureReader(parser, find_features((*known, feature.name), n_tokens))
        vetoes = make_veto_set(evidence, reader, alpha=alpha, **made)
        prevented = prevented_share(vetoes, parser, departures, tokens)
        if prevented > ANSWERED:
            yield Proposal(feature=feature.name, vetoes=vetoes, prevented=prevented)


def prevented_share(
    vetoes: VetoSet, parser: TurnParser, departures: Departures, tokens: NDArray[np.int64]
) -> float:
    """Share of departures whose first impossible token a veto set makes impossible; 0 if none.

    Args:
        vetoes: the set.
        parser: of the base policy's tokenizer.
        departures: found in the episodes.
        tokens: of the episodes, shape (n, t).
    """
    if not departures.n_departed:
        return 0.0
    compiled = vetoes.compile(parser)
    transcripts = torch.from_numpy(tokens[departures.rows])
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
