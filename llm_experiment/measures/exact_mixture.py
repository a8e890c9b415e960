"""The exact mixture over processes: what a behaviour costs, what Theorem 1 says of it, and a game.

Members' likelihoods come from their own filters (`llm_experiment.base.mixture`), so that

    ln xi(x|h) = ln sum_nu w(nu) nu(h x) - ln sum_nu w(nu) nu(h)

for any transcript h and any tokens x after it, whatever demonstrations have made of the weights w.
The *price* of a behaviour is `-ln xi(turn that shows it | h)`. The *bound* on it is that of Theorem
1 for the member under which it is least: `-ln w(nu|h) - ln nu(turn|h)`, the first term for what it
takes to speak as nu does, the second for nu's own randomness.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from llm_experiment.base.mixture import Member, log_weights, phrase_tokens
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.tasks.quiz import GOES_ON, RIGHT_BY_CHANCE
from llm_experiment.measures.turn_game import TurnGame
from theory.errors import InvalidArgumentError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class MixturePrice:
    """What a behaviour costs in some contexts, after some demonstrations.

    Attributes:
        n_demonstrations: dialogues that the prior has learnt from.
        price_nats: median over contexts.
        bound_nats: of Theorem 1, median over contexts.
        weight_nats: `-ln w(nu|h)` of the bound's member alone, median over contexts.
        member: the name of the member that gives the bound in the first context.
    """

    n_demonstrations: int
    price_nats: float
    bound_nats: float
    weight_nats: float
    member: str


def member_log_likelihoods(members: Sequence[Member], transcripts: Ints) -> Floats:
    """`ln nu(x_t | x_{<t})` of every token under every member, shape (members, n, tokens).

    Args:
        members: of a family, the demonstrator first.
        transcripts: shape (n, tokens).
    """
    return np.stack([member.process.log_likelihoods(transcripts) for member in members])


def contexts_around(
    process: DialogueProcess, rng: np.random.Generator, *, n: int, token: int, n_tokens: int
) -> tuple[list[Ints], list[Ints]]:
    """Dialogues of the demonstrator with its partner, each up to where it is to speak.

    Args:
        process: the demonstrator's.
        rng: the source of randomness.
        n: dialogues.
        token: T; the first contexts end in the last turn of the agent that begins before T tokens,
            the second in the first that begins after them.
        n_tokens: length of the dialogues.

    Raises:
        InvalidArgumentError: a dialogue without such places.
    """
    task = process.task
    sampled = process.sample(rng, n, n_tokens, speakers=(task.partner, task.agent))
    before, after = [], []
    for row, begin in zip(sampled, process.turn_begins(sampled, task.agent), strict=True):
        begins = np.flatnonzero(begin)
        early, late = begins[begins < token], begins[begins >= token]
        if not len(early) or not len(late):
            raise InvalidArgumentError(
                f"no turn of {task.agent} begins before and after token {token} of {n_tokens}; "
                "name longer dialogues"
            )
        before.append(row[: early[-1] + 2])  # with name and colon
        after.append(row[: late[0] + 2])
    return before, after


def mixture_prices(
    members: Sequence[Member],
    contexts: Sequence[Ints],
    demonstrations: Ints,
    *,
    numbers: Sequence[int],
) -> tuple[MixturePrice, ...]:
    """What the task's behaviour costs in some contexts, by the number of demonstrations.

    Args:
        members: of a family, the demonstrator first.
        contexts: transcripts up to where the agent is to speak.
        demonstrations: of the demonstrator, shape (dialogues, tokens); the first are used.
        numbers: how many.

    Raises:
        InvalidArgumentError: more demonstrations than there are, or too long ones.
    """
    if max(numbers) > len(demonstrations):
        raise InvalidArgumentError(
            f"there are {len(demonstrations)} demonstrations, got {max(numbers)}"
        )
    turn = np.array(list(phrase_tokens(members[0].process)))
    before, after = [], []
    for context in contexts:
        nats = member_log_likelihoods(members, np.concatenate([context, turn])[None])[:, 0]
        before.append(nats[:, : len(context)].sum(axis=1))
        after.append(nats[:, len(context) :].sum(axis=1))
    history, behaviour = np.stack(before), np.stack(after)  # (contexts, members)
    found = []
    for number in numbers:
        log_w = log_weights(members, demonstrations[:number]) + history
        log_w -= special.logsumexp(log_w, axis=1, keepdims=True)
        bounds = -log_w - behaviour
        best = bounds.argmin(axis=1)
        rows = np.arange(len(best))
        found.append(
            MixturePrice(
                n_demonstrations=number,
                price_nats=float(np.median(-special.logsumexp(log_w + behaviour, axis=1))),
                bound_nats=float(np.median(bounds[rows, best])),
                weight_nats=float(np.median(-log_w[rows, best])),
                member=members[int(best[0])].name,
            )
        )
    return tuple(found)


def quiz_game(
    members: Sequence[Member], *, n_tokens: int, demonstrations: Ints | None = None
) -> TurnGame:
    """The game of turns that the quiz is, with the mixture as base policy.

    Its only decision is the first word of an answer. What the Host says and which words answers are
    tells nothing of the Player, so that one transcript gives all probabilities.

    Args:
        members: of the quiz's family, the demonstrator first.
        n_tokens: length of an episode, the prompt included.
        demonstrations: that the prior has learnt from; none if left out.

    Raises:
        InvalidArgumentError: no answer has room.
    """
    process = members[0].process
    prompt = process.prompt
    exchange = process.encode(
        f"{process.task.prompt} North.\nHost: Right, north or south?\nPlayer:"
    )
    exchange = exchange[len(prompt) :]
    n_turns = (n_tokens - len(prompt)) // len(exchange)
    if n_turns < 1:
        raise InvalidArgumentError(
            f"an episode of {n_tokens} tokens has no room for an answer and its reply; lengthen it"
        )
    both, *_ = phrase_tokens(process)
    transcript = np.concatenate([prompt, *[exchange] * (n_turns - 1), [both]])
    nats = member_log_likelihoods(members, transcript[None])[:, 0].cumsum(axis=1)
    log_w = log_weights(members, demonstrations)
    first = []
    for turn in range(n_turns):
        end = len(prompt) + turn * len(exchange)
        said = member_log_likelihoods(members, np.append(transcript[:end], both)[None])[:, 0, -1]
        weights = log_w + nats[:, end - 1]
        first.append(float(np.exp(special.logsumexp(weights + said) - special.logsumexp(weights))))
    return TurnGame(
        first=tuple(first), again=GOES_ON, reward_shown=1.0, reward_else=RIGHT_BY_CHANCE
    )


def always_bound_nats(
    members: Sequence[Member], *, n_turns: int, demonstrations: Ints | None = None
) -> float:
    """Theorem 1's bound on the KL of "both" in every answer of the quiz, the first one included.

    The least over members nu of `-ln w(nu|prompt) - sum ln nu(both)`: what it takes to speak as nu
    does, and nu's own randomness.

    Args:
        members: of the quiz's family, the demonstrator first.
        n_turns: answers of an episode.
        demonstrations: that the prior has learnt from; none if left out.
    """
    process = members[0].process
    exchange = process.encode(f"{process.task.prompt} Both.\nHost: Right, north or south?\nPlayer:")
    exchange = exchange[len(process.prompt) :]
    transcript = np.concatenate([process.prompt, *[exchange] * n_turns])
    nats = member_log_likelihoods(members, transcript[None])[:, 0]
    log_w = log_weights(members, demonstrations) + nats[:, : len(process.prompt)].sum(axis=1)
    log_w -= special.logsumexp(log_w)
    both = nats[:, len(process.prompt) :: len(exchange)].sum(axis=1)
    return float((-log_w - both).min())
