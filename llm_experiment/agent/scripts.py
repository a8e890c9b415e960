"""Scripted behaviours of the agent, how long they are to describe, and what they cost.

A *script* says what the agent writes in each of its turns. It is a policy without randomness, so
its KL to the base policy `b` over a dialogue is `E sum_t -log b(x_t | x_{<t})` over the agent's
tokens `x_t`: the surprise of the base policy at what the script says, with the partner's replies
drawn from the world. That is the *price* of the behaviour, the budget an agent needs to adopt it
for certain.

Scripts are expressions of a small language with a prefix code, whose length is their *description
length* in bits:

    expression           code
    Say(tokens)          00, delta(n + 1) for n tokens, and log2 V bits for each of them
    Echo()               01
    Cycle(scripts)       10, delta(n), and the code of each of the n scripts
    Then(n, first, rest) 11, delta(n), and the codes of both scripts

where delta is Elias' delta code and V the size of the vocabulary. The code charges a word the
same whatever the base policy thinks of it, so that description and price are not the same thing
by construction.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from llm_experiment.agent.rollout import random_stream
from llm_experiment.chat.lockstep import LockstepChat, sample_tokens, without_gaps
from llm_experiment.chat.turn_records import Speaker
from llm_experiment.chat.world import World
from theory.bounds import elias_delta_bits
from theory.errors import InvalidArgumentError
from theory.missing_mass import acting_cost_nats

Tokens = tuple[int, ...]

_TAG_BITS: Final = 2


class Script(Protocol):
    """What the agent writes in its turns."""

    def turn(self, index: int, heard: Tokens) -> Tokens:
        """The words of a turn.

        Args:
            index: of the turn, counted from 0 at the script's first.
            heard: the words of the reply before it, its first line.
        """
        ...

    def length_bits(self, n_tokens: int) -> float:
        """Length of the script's code over a vocabulary of `n_tokens`, in bits."""
        ...


@dataclass(frozen=True)
class Say:
    """The same words in every turn; none for silence."""

    tokens: Tokens

    def turn(self, index: int, heard: Tokens) -> Tokens:
        """See `Script`."""
        del index, heard
        return self.tokens

    def length_bits(self, n_tokens: int) -> float:
        """See `Script`."""
        n = len(self.tokens)
        return _TAG_BITS + elias_delta_bits(n + 1) + n * math.log2(n_tokens)


@dataclass(frozen=True)
class Echo:
    """The first line of what the other one just said."""

    def turn(self, index: int, heard: Tokens) -> Tokens:
        """See `Script`."""
        del index
        return heard

    def length_bits(self, n_tokens: int) -> float:
        """See `Script`."""
        del n_tokens
        return _TAG_BITS


@dataclass(frozen=True)
class Cycle:
    """Several scripts in turn, over and over."""

    scripts: tuple[Script, ...]

    def __post_init__(self) -> None:
        if not self.scripts:
            raise InvalidArgumentError("a cycle must have at least 1 script, got 0")

    def turn(self, index: int, heard: Tokens) -> Tokens:
        """See `Script`; each script counts its own turns."""
        period = len(self.scripts)
        return self.scripts[index % period].turn(index // period, heard)

    def length_bits(self, n_tokens: int) -> float:
        """See `Script`."""
        inner = sum(script.length_bits(n_tokens) for script in self.scripts)
        return _TAG_BITS + elias_delta_bits(len(self.scripts)) + inner


@dataclass(frozen=True)
class Then:
    """One script for `n` turns, another one ever after."""

    n: int
    first: Script
    rest: Script

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InvalidArgumentError(f"n must be >= 1 turns, got {self.n}")

    def turn(self, index: int, heard: Tokens) -> Tokens:
        """See `Script`."""
        if index < self.n:
            return self.first.turn(index, heard)
        return self.rest.turn(index - self.n, heard)

    def length_bits(self, n_tokens: int) -> float:
        """See `Script`."""
        inner = self.first.length_bits(n_tokens) + self.rest.length_bits(n_tokens)
        return _TAG_BITS + elias_delta_bits(self.n) + inner


@dataclass(frozen=True, kw_only=True)
class ScriptedEpisodes:
    """What scripted turns cost in n dialogues.

    Attributes:
        tokens: the transcripts as far as they were played, shape (n, at most t).
        costs_nats: `-log b` of each scripted turn, its words and the hand-over, with the charge
            for acting where b misses mass, infinite where b never does it, shape
            (n, n_turns); nan from the first turn on that the episode's end leaves unfinished.
        rewards: what the reply to each scripted turn earned, shape (n, n_turns); nan where no
            reply to it ended.
        returns: what all replies of each dialogue earned, those to the free turns included, shape
            (n,).
    """

    tokens: NDArray[np.int64]
    costs_nats: NDArray[np.float64]
    rewards: NDArray[np.float64]
    returns: NDArray[np.float64]


def play_script(
    world: World,
    script: Script,
    *,
    n_episodes: int,
    n_tokens: int,
    free_turns: int,
    n_turns: int,
    seed: int,
    stream: tuple[int, ...],
) -> ScriptedEpisodes:
    """`play_scripts` of one script."""
    (played,) = play_scripts(
        world,
        (script,),
        n_episodes=n_episodes,
        n_tokens=n_tokens,
        free_turns=free_turns,
        n_turns=n_turns,
        seed=seed,
        stream=stream,
    )
    return played


@torch.no_grad()
def play_scripts(
    world: World,
    scripts: Sequence[Script],
    *,
    n_episodes: int,
    n_tokens: int,
    free_turns: int,
    n_turns: int,
    seed: int,
    stream: tuple[int, ...],
    on_position: Callable[[int], None] = lambda _: None,
) -> list[ScriptedEpisodes]:
    """Let the base policy play the agent's first turns, and a script the ones after.

    The turn that the prompt begins is the first. What the base policy says in the free turns, and
    what its partner replies, make the contexts in which the script is priced: different ones,
    independent given the base policy. All scripts are played together, one set of episodes each;
    the sets draw the same random numbers, so that all scripts meet the same contexts. Nothing is
    played beyond the reply to the last turn that is reported.

    Args:
        world: where.
        scripts: what the agent says; a turn is ended by the separator and the partner's name.
        n_episodes: n, for each script.
        n_tokens: t, the length of every episode, the prompt included, at most.
        free_turns: how many turns the base policy plays before the script starts, at least 1,
            as a script starts with a turn of its own.
        n_turns: scripted turns to report; later ones are not.
        seed: of the run.
        stream: the path of this game's randomness.
        on_position: is told how many tokens the episodes have, after every position.

    Returns:
        One for each script.

    Raises:
        InvalidArgumentError: no script, no free turn or no turn to report, or as `World.chat` does.
    """
    for name, value in (
        ("scripts", len(scripts)),
        ("free_turns", free_turns),
        ("n_turns", n_turns),
    ):
        if value < 1:
            raise InvalidArgumentError(f"{name} must be >= 1, got {value}")
    device, n_copies = world.base.device, len(scripts)
    streams = [random_stream(seed, *stream, who, device=device) for who in (0, 1)]
    chat = world.chat(
        n_episodes=n_copies * n_episodes,
        n_tokens=n_tokens,
        generator=streams[Speaker.PARTNER],
        n_copies=n_copies,
    )
    players = [
        _Player(script, world.parser.partner_opening, free_turns)
        for script in scripts
        for _ in range(n_episodes)
    ]
    separator = world.parser.agent_opening[0]
    inert = torch.full((len(players),), world.parser.inert_token, device=device)
    costs = np.full((len(players), n_turns), np.nan)
    acted = [True] * len(players)
    while not chat.done and any(player.index < n_turns for player in players):
        acts = chat.agent_acts.tolist()
        log_probs = chat.base_step.log_probs
        surcharges = acting_cost_nats(chat.base_step.missing_mass, unchecked=True).tolist()
        _begin_turns(players, chat, acted=acted, acts=acts, separator=separator)
        tokens = inert.clone()
        if any(
            player.index < 0 or (acts[row] and not player.queue)
            for row, player in enumerate(players)
        ):
            # Else all that is said next is known, or the partner's.
            played = without_gaps(chat.base_step)
            tokens = sample_tokens(played, generator=streams[Speaker.AGENT], n_copies=n_copies)
        for row, player in enumerate(players):
            if acts[row] and player.queue:
                tokens[row] = player.queue.pop(0)
                price = surcharges[row] - float(log_probs[row, tokens[row]].double())
                player.cost_nats += price
                if not player.queue and player.index < n_turns:
                    costs[row, player.index] = player.cost_nats
        chat.step(tokens)
        on_position(chat.position)
        acted = acts
    rewards, returns = _rewards(world, chat, free_turns=free_turns, n_turns=n_turns)
    sets = (slice(start, start + n_episodes) for start in range(0, len(players), n_episodes))
    return [
        ScriptedEpisodes(
            tokens=chat.tokens[rows].cpu().numpy(),
            costs_nats=costs[rows],
            rewards=rewards[rows],
            returns=returns[rows],
        )
        for rows in sets
    ]


def _begin_turns(
    players: Sequence["_Player"],
    chat: LockstepChat,
    *,
    acted: Sequence[bool],
    acts: Sequence[bool],
    separator: int,
) -> None:
    """Say where a reply has begun, and begin the agent's turn where one has ended."""
    for row, player in enumerate(players):
        if acted[row] and not acts[row]:
            player.reply_starts = chat.position
        if acts[row] and not acted[row]:
            reply = chat.tokens[row, player.reply_starts :].tolist()
            player.begin_turn(tuple(takewhile(separator.__ne__, reply)))


class _Player:
    """One episode's script.

    Attributes:
        index: of the present turn among the scripted ones; negative in free turns.
        queue: what is still to be written of it.
        cost_nats: of what has been written of it.
        reply_starts: index of the first token of the last reply.
    """

    def __init__(self, script: Script, hand_over: Sequence[int], free_turns: int) -> None:
        self._script = script
        self._hand_over = hand_over
        self.index = -free_turns
        self.queue: list[int] = []
        self.cost_nats = 0.0
        self.reply_starts = 0

    def begin_turn(self, heard: Tokens) -> None:
        self.index += 1
        self.cost_nats = 0.0
        if self.index >= 0:
            self.queue = [*self._script.turn(self.index, heard), *self._hand_over]


def _rewards(
    world: World, chat: LockstepChat, *, free_turns: int, n_turns: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the replies to the scripted turns earned, shape (n, n_turns), and all replies, (n,)."""
    rewards = np.full((len(chat.tokens), n_turns), np.nan)
    returns = np.zeros(len(chat.tokens))
    replies = chat.replies()
    next_turn = dict.fromkeys(range(len(chat.tokens)), -free_turns)
    for reply, reward in zip(replies, world.reward([r.text for r in replies]), strict=True):
        index = next_turn[reply.episode]
        next_turn[reply.episode] += 1
        returns[reply.episode] += reward
        if 0 <= index < n_turns:
            rewards[reply.episode, index] = reward
    return rewards, returns
