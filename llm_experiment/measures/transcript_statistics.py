r"""What can be said of a transcript without a judge: numbers of the agent's own tokens.

For each stored episode (`llm_experiment.agent.rollout.Rollout.arrays`), of the tokens that the
agent wrote after the prompt (a hand-over, the separator and the partner's name, belongs to them):

- *bits per token*: the mean of `-log2 b` of the token written, b the base policy given all that
  went before. How unpredictable the agent is to a reader who expects the base policy.
- *compressed length*: bytes of their text under DEFLATE (level 9). An upper bound, up to a
  constant, on the description length of what the agent said; it grows with how much was said.
- *distinct n-grams*, n = 1, 2, 3: different n-grams over all n-grams within the agent's turns.

and of the replies that the agent got:

- *return*: the sum of what the reward model gave to the finished replies. It is what the agent was
  trained to raise, so that it says whether training worked, not whether a person would call the
  behaviour better.
- *reward per reply*: their mean, which many short exchanges do not raise.

Each but the return is nan for an episode that has nothing to count: no token of the agent, no
n-gram, no reply.
"""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from llm_experiment.chat.turn_records import Speaker
from llm_experiment.measures.behaviour import distinct_n_grams

Floats = NDArray[np.float64]

_LEVEL: Final = 9


class Question(Enum):
    """What is asked about two transcripts."""

    BETTER = "better"
    MORE_COMPLEX = "more-complex"


class Statistic(Enum):
    """A number of a transcript; see the module's docstring."""

    BITS_PER_TOKEN = "bits-per-token"
    COMPRESSED_BYTES = "compressed-bytes"
    DISTINCT_1 = "distinct-1-grams"
    DISTINCT_2 = "distinct-2-grams"
    DISTINCT_3 = "distinct-3-grams"
    RETURN = "return"
    REWARD_PER_REPLY = "reward-per-reply"

    @property
    def question(self) -> Question:
        """Which question the larger number answers."""
        of_reward = self in (Statistic.RETURN, Statistic.REWARD_PER_REPLY)
        return Question.BETTER if of_reward else Question.MORE_COMPLEX

    @property
    def criterion(self) -> str:
        """What the larger number means, for tables."""
        return _CRITERIA[self]


_CRITERIA: Final = {
    Statistic.BITS_PER_TOKEN: "more surprise per token of the agent under the base policy",
    Statistic.COMPRESSED_BYTES: "the agent's text takes more bytes under DEFLATE",
    Statistic.DISTINCT_1: "more of the agent's words are different words",
    Statistic.DISTINCT_2: "more of the agent's 2-grams are different ones",
    Statistic.DISTINCT_3: "more of the agent's 3-grams are different ones",
    Statistic.RETURN: (
        "more reward in all, which is what the agent was trained to raise; not a judgement of the "
        "behaviour"
    ),
    Statistic.REWARD_PER_REPLY: (
        "a higher mean score of the replies by the reward model; not a judgement of the behaviour"
    ),
}

Decode = Callable[[Sequence[int]], str]
"""The text of tokens."""


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """Stored episodes of one policy, as far as they are judged; n episodes of t tokens.

    Attributes:
        tokens: the transcripts, shape (n, t).
        agent_wrote: which tokens the agent wrote after the prompt, shape (n, t).
        surprise_nats: `-log b` of the agent's tokens, 0 elsewhere, shape (n, t).
        returns: summed over an episode's finished replies, shape (n,).
        reward_per_reply: their mean, nan without one, shape (n,).
    """

    tokens: NDArray[np.int64]
    agent_wrote: NDArray[np.bool_]
    surprise_nats: Floats
    returns: Floats
    reward_per_reply: Floats


STORED: Final = (
    "tokens",
    "prompt_length",
    "writers",
    "log_ratio_nats",
    "log_probs",
    "reply_episode",
    "reply_rewards",
)
"""The stored arrays that `episodes_of` needs."""


def episodes_of(stored: Mapping[str, NDArray[Any]]) -> Episodes:
    """Episodes from the arrays that an evaluation stored.

    Args:
        stored: arrays by name, at least those of `STORED`.
    """
    tokens = stored["tokens"]
    n, t = tokens.shape
    played = np.arange(t) >= int(stored["prompt_length"])
    replied = stored["reply_episode"]
    returns = np.zeros(n)
    np.add.at(returns, replied, stored["reply_rewards"])
    return Episodes(
        tokens=tokens,
        agent_wrote=played & (stored["writers"] == Speaker.AGENT),
        # log x - log b of the token taken, less log x.
        surprise_nats=stored["log_ratio_nats"] - stored["log_probs"],
        returns=returns,
        reward_per_reply=_ratio(returns, np.bincount(replied, minlength=n)),
    )


def _ratio(sums: Floats, counts: NDArray[np.integer[Any]]) -> Floats:
    """Sums over counts, nan where nothing was counted."""
    ratio = np.full(len(sums), math.nan)
    np.divide(sums, counts, out=ratio, where=counts > 0)
    return ratio


def measure(statistic: Statistic, episodes: Episodes, *, decode: Decode) -> Floats:
    """One number for each episode, shape (n,).

    Args:
        statistic: which.
        episodes: of one policy.
        decode: the text of tokens.
    """
    match statistic:
        case Statistic.RETURN:
            return episodes.returns
        case Statistic.REWARD_PER_REPLY:
            return episodes.reward_per_reply
        case Statistic.BITS_PER_TOKEN:
            return _bits_per_token(episodes)
        case Statistic.COMPRESSED_BYTES:
            return _compressed_bytes(episodes, decode)
    n = {Statistic.DISTINCT_1: 1, Statistic.DISTINCT_2: 2, Statistic.DISTINCT_3: 3}[statistic]
    rows = zip(episodes.tokens[:, None], episodes.agent_wrote[:, None], strict=True)
    return np.array([distinct_n_grams(tokens, wrote, n) for tokens, wrote in rows])


def _bits_per_token(episodes: Episodes) -> Floats:
    n_tokens = episodes.agent_wrote.sum(axis=1)
    bits = np.where(episodes.agent_wrote, episodes.surprise_nats, 0.0).sum(axis=1) / math.log(2)
    return _ratio(bits, n_tokens)


def _compressed_bytes(episodes: Episodes, decode: Decode) -> Floats:
    """A turn is decoded at a time, so that no piece depends on what the partner said."""
    found = []
    for tokens, wrote in zip(episodes.tokens, episodes.agent_wrote, strict=True):
        edges = np.flatnonzero(np.diff(wrote.astype(np.int8), prepend=0, append=0))
        turns = [tokens[a:b].tolist() for a, b in edges.reshape(-1, 2)]
        text = "".join(map(decode, turns)).encode("utf-8", errors="replace")
        found.append(float(len(zlib.compress(text, _LEVEL))) if turns else math.nan)
    return np.array(found)
