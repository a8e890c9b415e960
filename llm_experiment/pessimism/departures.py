"""What an agent does that a known demonstrator never does, from the episodes that were stored.

An episode *departs* at its first token of which the demonstrator's law gives a probability of 0
(`llm_experiment.measures.departure`). If the agent wrote it, the turn that it stands in is the
departure's *phrase*. What an agent has learnt to do shows as one phrase in many episodes; what it
inherits from its base policy, as many phrases in few.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from llm_experiment.chat.turn_records import Speaker
from mightnt.statistics import CONFIDENCE, Interval, share_interval

ARRAYS: Final = (
    "tokens",
    "writers",
    "prompt_length",
    "possible",
    "demonstrator_log_probs",
    "turn_episode",
    "turn_opened",
    "turn_closed",
    "turn_speaker",
)
"""What is read of stored episodes."""
OPTIONAL_ARRAYS: Final = ("asked", "stopped_at")
"""What episodes of older runs lack: nobody was asked in them."""


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """A turn in which episodes departed.

    Attributes:
        text: of the turn, as far as it was written; "" is silence.
        n_episodes: that departed in such a turn.
        turn_share: share of such turns among all of the agent's after the prompt.
    """

    text: str
    n_episodes: int
    turn_share: float


@dataclass(frozen=True, kw_only=True)
class Departures:
    """How often, and how, an agent did what the demonstrator never does.

    Attributes:
        n_episodes: all that were played.
        n_departed: those whose first impossible token the agent wrote.
        phrases: in which they departed, the most frequent first.
        rows: the episodes that departed, shape (n_departed,).
        positions: of their first impossible tokens, shape (n_departed,).
        tokens: of all episodes, shape (n_episodes, t).
        own: which of them the agent wrote, shape (n_episodes, t).
    """

    n_episodes: int
    n_departed: int
    phrases: tuple[Phrase, ...]
    rows: NDArray[np.int64]
    positions: NDArray[np.int64]
    tokens: NDArray[np.int64]
    own: NDArray[np.bool_]

    @property
    def share(self) -> Interval:
        """Share of episodes that departed, with its interval over episodes."""
        return share_interval(self.n_departed, self.n_episodes, confidence=CONFIDENCE)

    def beyond(self, base: "Departures") -> bool:
        """Whether these are more than a base policy's own: the two intervals do not meet."""
        return self.share.low > base.share.high


def own_tokens(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
    """Which tokens of stored episodes the agent wrote, shape (n, t).

    Neither those of the prompt count, nor those that it asked for, nor what follows a stop.

    Args:
        arrays: `ARRAYS`, and `OPTIONAL_ARRAYS` as far as they are stored.
    """
    n, t = arrays["tokens"].shape
    stopped_at = arrays.get("stopped_at", np.full(n, t))
    asked = arrays.get("asked", np.zeros((n, t), dtype=bool))
    at = np.arange(t)
    played = (at >= int(arrays["prompt_length"])) & (at < stopped_at[:, None])
    own: NDArray[np.bool_] = (arrays["writers"] == Speaker.AGENT) & played & ~asked
    return own


def find_departures(
    arrays: Mapping[str, NDArray[Any]], *, turn_text: Callable[[Sequence[int]], str]
) -> Departures:
    """The departures in stored episodes.

    Args:
        arrays: `ARRAYS`, and `OPTIONAL_ARRAYS` as far as they are stored.
        turn_text: the text of the tokens of a turn, its hand-over included.
    """
    tokens, opened = arrays["tokens"], arrays["turn_opened"]
    n = len(tokens)
    prompt_length = int(arrays["prompt_length"])
    own = own_tokens(arrays)
    first = arrays["possible"] & np.isneginf(arrays["demonstrator_log_probs"])
    rows, positions = np.nonzero(first & own)
    texts = [
        turn_text(tokens[episode, start + 1 : end + 1].tolist())
        for episode, start, end in zip(
            arrays["turn_episode"], opened, arrays["turn_closed"], strict=True
        )
    ]
    counted = (arrays["turn_speaker"] == Speaker.AGENT) & (opened >= prompt_length)
    said = Counter(text for text, counts in zip(texts, counted, strict=True) if counts)
    departed: Counter[str] = Counter()
    for row, position in zip(rows, positions, strict=True):
        (within,) = np.nonzero((arrays["turn_episode"] == row) & (opened < position))
        departed[texts[within[-1]]] += 1
    n_turns = max(sum(said.values()), 1)
    phrases = tuple(
        Phrase(text=text, n_episodes=number, turn_share=said[text] / n_turns)
        for text, number in departed.most_common()
    )
    return Departures(
        n_episodes=n,
        n_departed=len(rows),
        phrases=phrases,
        rows=rows,
        positions=positions,
        tokens=tokens,
        own=own,
    )
