"""What silence costs where the demonstrator itself would speak, by what it replies to.

The price of silence at one prompt flatters: it depends on what went before. Here it is taken at
every turn that a demonstrator opens in dialogues of its own, `-ln nu(the turn ends | h)` for the
base policy's law nu, and shown for turns that reply to words and to an empty reply apart. The
hand-over that follows, the partner's name and its colon, is not counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from llm_experiment.base.protocol import BaseModel, semi_log_probs
from llm_experiment.chat.features import FeatureReader
from llm_experiment.pessimism.demonstrations import Demonstration
from llm_experiment.pessimism.learning import walk

PERCENTILES: Final = (5.0, 25.0, 50.0, 75.0)


@dataclass(frozen=True, kw_only=True)
class ContextPrices:
    """Prices of silence over some turns of a demonstrator.

    Attributes:
        n_turns: how many.
        percentiles_nats: `PERCENTILES` of the prices; inf where silence is impossible. None
            without a turn.
        expected: sum of the probabilities: the silences that the base policy expected.
    """

    n_turns: int
    percentiles_nats: tuple[float, ...]
    expected: float


@dataclass(frozen=True, kw_only=True)
class PricesByContext:
    """Prices of a demonstrator's silence, by what its turns reply to.

    Attributes:
        after_words: turns that reply to words, or open the dialogue.
        after_empty: turns that reply to an empty turn.
        everywhere: all of them.
    """

    after_words: ContextPrices
    after_empty: ContextPrices
    everywhere: ContextPrices


def prices_by_context(
    base: BaseModel, reader: FeatureReader, dialogues: Sequence[Demonstration], *, batch: int
) -> PricesByContext:
    """What silence costs at the turns that the demonstrator opens in dialogues of its own.

    Args:
        base: the base policy.
        reader: says whose turn it is and what ends it; on the base policy's device.
        dialogues: in tokens.
        batch: how many are read at a time.
    """
    prices: list[NDArray[np.float64]] = []
    replies: list[NDArray[np.bool_]] = []
    for start in range(0, len(dialogues), batch):
        rows = range(start, min(start + batch, len(dialogues)))
        for moment, step in walk(base, reader, dialogues, rows):
            opens = moment.acts & (moment.state.count == 0)
            if bool(opens.any()):
                law = semi_log_probs(step)[opens][:, reader.ends]
                prices.append(-torch.logsumexp(law, dim=-1).cpu().numpy())
                replies.append((moment.state.reply.length == 0)[opens].cpu().numpy())
    nats = np.concatenate([np.empty(0), *prices])
    empty = np.concatenate([np.empty(0, dtype=bool), *replies])
    return PricesByContext(
        after_words=_prices(nats[~empty]),
        after_empty=_prices(nats[empty]),
        everywhere=_prices(nats),
    )


def _prices(nats: NDArray[np.float64]) -> ContextPrices:
    if not len(nats):
        return ContextPrices(n_turns=0, percentiles_nats=(), expected=0.0)
    with np.errstate(invalid="ignore"):
        found = np.percentile(nats, PERCENTILES)
    found = np.where(np.isnan(found), np.inf, found)  # between infinite prices
    return ContextPrices(
        n_turns=len(nats),
        percentiles_nats=tuple((found + 0.0).tolist()),
        expected=float(np.exp(-nats).sum()),
    )
