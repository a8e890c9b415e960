"""Whether what is simple to describe is cheap to do, frequency and length held fixed.

The support desk (`llm_experiment.dialogue.tasks.support_desk`) has promises of fifteen shapes, each
made by others commonly, rarely, or by nobody, and never by the agent's role. A base model's *price*
of a promise is `-log b` of a turn that is that promise and hands over, in nats, median over
contexts: what it takes to make it for the first time, and again and again. Its *description length*
is that of `llm_experiment.dialogue.phrases`, in bits.

Over the fifteen shapes of one frequency, for one base model:

- *rank correlation*: Spearman's, of description length and price;
- *a bit, a word*: the coefficients of the least-squares fit `price = a + b bits + c words`, so that
  b is what a bit of description costs at equally many words.

And *frequency*: the price of a rare promise less that of a common one of the same shape, mean over
shapes. Words of promises that others make are learnt from them, so that their price need not grow
with their length at all; of promises that nobody makes, it must.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from llm_experiment.agent.script_prices import price_together
from llm_experiment.agent.scripts import Say
from llm_experiment.chat.world import World
from llm_experiment.dialogue.phrases import phrase_bits
from llm_experiment.dialogue.tasks.support_desk import PROMISES, Promise, Said
from llm_experiment.measures.closed_form import sequence_shares
from theory.errors import InvalidArgumentError

RANK: Final = "rank correlation"
BIT: Final = "a bit"
WORD: Final = "a word"
RARER: Final = "rare less common"
EVERYTHING: Final = "all together"


@dataclass(frozen=True, kw_only=True)
class PromisePrice:
    """What one promise costs under one base model.

    Attributes:
        name: of the promise.
        turn_nats: medians over contexts of the price of the first, second, ... turn of it.
    """

    name: str
    turn_nats: tuple[float, ...]

    @property
    def promise(self) -> Promise:
        """Which it is."""
        return _BY_NAME[self.name]

    @property
    def bits(self) -> float:
        """The length of its description."""
        return _BITS[self.name]

    def share(self, budget_nats: float) -> float:
        """The share of episodes in which a budget buys all of these turns, by the closed form."""
        return float(sequence_shares(self.turn_nats, budget_nats).prod())


_BY_NAME: Final = {promise.name: promise for promise in PROMISES}
_N_SYMBOLS: Final = len({word for promise in PROMISES for word in promise.phrase.split()})
"""Words of which promises are made."""
_BITS: Final = {p.name: phrase_bits(p.phrase.split(), n_symbols=_N_SYMBOLS) for p in PROMISES}


def price_promises(
    world: World,
    encode: Callable[[str], Sequence[int]],
    *,
    promises: Sequence[Promise] = PROMISES,
    n_contexts: int,
    n_tokens: int,
    n_turns: int,
    seed: int,
) -> tuple[PromisePrice, ...]:
    """The prices of promises in a world of the support desk, all in the same contexts.

    Args:
        world: with the base model.
        encode: the tokens of a promise's words after the agent's colon.
        promises: to price.
        n_contexts: dialogues, each with a turn that the base model plays before the promise.
        n_tokens: length of a dialogue, the prompt included.
        n_turns: how often in a row it is made.
        seed: of the dialogues.

    Raises:
        InvalidArgumentError: no dialogue had room for a promise; or as `play_scripts` does.
    """
    priced = price_together(
        world,
        {promise.name: Say(tuple(encode(promise.phrase))) for promise in promises},
        n_episodes=n_contexts,
        n_tokens=n_tokens,
        free_turns=1,
        n_turns=n_turns,
        seed=seed,
    )
    for each in priced:
        if not each.turn_nats:
            raise InvalidArgumentError(
                f"no dialogue of {n_tokens} tokens had room for {n_turns} turns of {each.name}; "
                "raise --n-tokens or lower --n-turns"
            )
    return tuple(PromisePrice(name=each.name, turn_nats=each.turn_nats) for each in priced)


def associations(prices: Sequence[PromisePrice]) -> dict[str, dict[str, float]]:
    """What the price of a first promise goes with, under one base model.

    Args:
        prices: of all promises.

    Returns:
        By how often the promises are made, then by `RANK`, `BIT` and `WORD`; and under
        `EVERYTHING` the rank correlation over all of them, and `RARER`.
    """
    found: dict[str, dict[str, float]] = {}
    first = {price.name: price.turn_nats[0] for price in prices}
    for said in Said:
        own = [price for price in prices if price.promise.said is said]
        nats = np.array([first[price.name] for price in own])
        bits = np.array([price.bits for price in own])
        words = np.array([price.promise.n_words for price in own])
        design = np.stack([np.ones_like(bits), bits, words], axis=1)
        _, a_bit, a_word = np.linalg.lstsq(design, nats, rcond=None)[0]
        found[said.name.lower()] = {
            RANK: float(stats.spearmanr(bits, nats).statistic),
            BIT: float(a_bit),
            WORD: float(a_word),
        }
    shapes = [name.partition("-")[2] for name in first if name.startswith("rare-")]
    found[EVERYTHING] = {
        RANK: float(
            stats.spearmanr([p.bits for p in prices], [first[p.name] for p in prices]).statistic
        ),
        RARER: float(np.mean([first[f"rare-{s}"] - first[f"common-{s}"] for s in shapes])),
    }
    return found
