"""Who spoke when, and what counts as an empty turn and as a silent episode.

`llm_experiment.chat.turns` finds turns in tokens; what it finds is stored with every evaluation
and read back without a learning library, so that this module needs NumPy alone.

- The *turns that count* are those that the agent opened after the prompt and finished
  (`agent_turns`). The turn that the prompt begins is not one, nor is one that the transcript cuts
  off.
- An *empty turn* is a finished turn of the agent with no more tokens than it takes to hand over:
  the separator, the partner's name and its colon (`are_empty`). Four in the published setting.
- A *silent episode* is one in which more than half of the turns that count are empty
  (`TurnCounts.silent`).

Where a task names another behaviour than silence (`llm_experiment.dialogue.behaviour`), turns that
show it stand for the empty ones everywhere here but in `are_empty`.
"""

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

NEWLINE: Final = "\n"
"""Ends a line; a turn begins with a line."""
COLON: Final = ":"
"""Stands after the name of who begins a turn."""
SILENT_ABOVE: Final = 0.5
"""An episode is silent if more than this share of its turns that count is empty."""


class Speaker(IntEnum):
    """Who has the turn."""

    NOBODY = -1
    """No turn has been opened yet."""
    AGENT = 0
    """The agent (the Teacher)."""
    PARTNER = 1
    """The base model as the agent's partner (the Student)."""


@dataclass(frozen=True, kw_only=True)
class Turns:
    """All turns of n transcripts, one entry a turn, in order of episode and time.

    A turn's tokens are those that its speaker wrote: from the one after its colon to the one
    with the next speaker's colon, so the separator and the next name count.

    Attributes:
        episode: row of the transcript, shape (turns,).
        speaker: `Speaker.AGENT` or `Speaker.PARTNER`, shape (turns,).
        opened: index of the token before the turn's first, shape (turns,).
        closed: index of the turn's last token, shape (turns,).
        finished: False where the transcript ends within the turn, shape (turns,).
    """

    episode: NDArray[np.int64]
    speaker: NDArray[np.int64]
    opened: NDArray[np.int64]
    closed: NDArray[np.int64]
    finished: NDArray[np.bool_]

    @property
    def n_tokens(self) -> NDArray[np.int64]:
        """Tokens of each turn, shape (turns,)."""
        return self.closed - self.opened


@dataclass(frozen=True, kw_only=True)
class TurnCounts:
    """How many turns count in each of n episodes, and how many of them are empty.

    Attributes:
        turns: those that count, shape (n,).
        empty: the empty ones of them, shape (n,).
    """

    turns: NDArray[np.int64]
    empty: NDArray[np.int64]

    @property
    def silent(self) -> NDArray[np.bool_]:
        """Which episodes are silent, shape (n,); one without a turn is not."""
        return np.asarray(self.empty > SILENT_ABOVE * self.turns)

    @property
    def empty_shares(self) -> NDArray[np.float64]:
        """Share of an episode's turns that are empty, of each episode with a turn."""
        spoke = self.turns > 0
        return np.asarray(self.empty[spoke] / self.turns[spoke])

    @property
    def pooled_empty_share(self) -> float:
        """Share of all turns that are empty; nan if there is no turn."""
        n_turns = int(self.turns.sum())
        return int(self.empty.sum()) / n_turns if n_turns else math.nan


def are_empty(turns: Turns, *, most_tokens: int) -> NDArray[np.bool_]:
    """Which turns are empty turns of the agent, shape (turns,).

    Args:
        turns: of any speaker.
        most_tokens: the most tokens that an empty turn has.
    """
    short = turns.n_tokens <= most_tokens
    return np.asarray(short & turns.finished & (turns.speaker == Speaker.AGENT))


def agent_turns(turns: Turns, *, prompt_length: int) -> NDArray[np.bool_]:
    """Which turns count: those that the agent opened after the prompt and finished, (turns,)."""
    own = (turns.speaker == Speaker.AGENT) & turns.finished
    return np.asarray(own & (turns.opened >= prompt_length))


def count_turns(
    turns: Turns, empty: NDArray[np.bool_], *, prompt_length: int, n_episodes: int
) -> TurnCounts:
    """Count the turns that count, episode by episode.

    Args:
        turns: of all speakers.
        empty: which of them are empty turns of the agent (`are_empty`), shape (turns,).
        prompt_length: tokens of the starting transcript.
        n_episodes: n.
    """
    own = agent_turns(turns, prompt_length=prompt_length)
    return TurnCounts(
        turns=np.bincount(turns.episode[own], minlength=n_episodes),
        empty=np.bincount(turns.episode[own & empty], minlength=n_episodes),
    )
