"""What never-events cost a language model, and how many chances it has seen them not happen.

Priced are turns of a task's agent that the demonstrator never writes: one that shows the task's
behaviour, and turns of a single word that nobody ever says by itself (`unheard_words`), which are
equally long to describe. A *price* is `-log b` of the turn with its hand-over, in nats, median over
contexts: dialogues of the demonstrator itself up to where the agent is to speak, in which nobody
has shown the behaviour yet. So models that can hardly write a dialogue are priced in the same
contexts as good ones.

A *count-based* estimator, which knows nothing but that the agent's role had n turns and none of
them showed the behaviour, gives the next one Laplace's probability 1/(n + 2), and so the price
`ln(n + 2)`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from llm_experiment.base.mixture import phrase_tokens
from llm_experiment.base.shipped import LanguageModelRecipe
from llm_experiment.base.training import language_model_log_likelihoods
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import parse_template
from theory.errors import InvalidArgumentError

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class NeverPrices:
    """What never-events cost under one base model, in nats, medians over contexts.

    Attributes:
        behaviour: of a turn that shows the task's behaviour.
        unheard: of a turn of one word that nobody says by itself, median over words.
        cheapest: of the cheapest of these.
        cheapest_word: which it is.
    """

    behaviour: float
    unheard: float
    cheapest: float
    cheapest_word: str


def unheard_words(process: DialogueProcess) -> tuple[str, ...]:
    """The words with which no turn begins, in the vocabulary's order, each with its blank."""
    begins = {
        token
        for _, _, text in process.task.templates()
        for token, _ in process.task.next_words(parse_template(text))
    }
    return tuple(
        token for token in process.vocabulary if token.startswith(" ") and token not in begins
    )


def plain_contexts(
    process: DialogueProcess, rng: np.random.Generator, *, n: int, n_tokens: int
) -> list[Ints]:
    """Dialogues of the demonstrator with its partner, each up to where it is to speak.

    Args:
        process: the demonstrator's.
        rng: the source of randomness.
        n: dialogues that are drawn; those in which the behaviour has been shown are left out.
        n_tokens: length of a context at most.

    Raises:
        InvalidArgumentError: none is left.
    """
    task = process.task
    found = []
    for row in process.sample(rng, n, n_tokens, speakers=(task.partner, task.agent)):
        text, name, _ = process.decode(row).rpartition(f"{task.agent}:")
        words = [line.partition(":")[2] for line in text.removeprefix(task.note).splitlines()]
        if name and not any(map(task.behaviour.shows, words)):
            found.append(process.encode(f"{text}{name}"))
    if not found:
        raise InvalidArgumentError(
            f"none of {n} dialogues of {n_tokens} tokens has a turn of {task.agent} before any "
            f"{task.behaviour.name}; draw more, or longer ones"
        )
    return found


def turn_prices_nats(
    model: PreTrainedModel, contexts: Sequence[Ints], turn: Ints
) -> NDArray[np.float64]:
    """`-log b` of a turn's tokens after each context, shape (contexts,).

    Args:
        model: a causal language model.
        contexts: transcripts.
        turn: tokens, the hand-over included.
    """
    rows = [np.concatenate([context, turn]) for context in contexts]
    longest = max(map(len, rows))  # what comes after a token does not touch its probability
    padded = np.array([np.pad(row, (0, longest - len(row))) for row in rows])
    nats = -language_model_log_likelihoods(model, padded)
    return np.array(
        [
            row[len(c) - 1 : len(c) - 1 + len(turn)].sum()
            for row, c in zip(nats, contexts, strict=True)
        ]
    )


def never_prices(
    model: PreTrainedModel, process: DialogueProcess, contexts: Sequence[Ints], *, n_words: int
) -> NeverPrices:
    """Price the behaviour and words that nobody says by themselves.

    Args:
        model: the base model.
        process: the demonstrator's.
        contexts: transcripts up to where the agent is to speak.
        n_words: so many words, spread evenly over those that there are.

    Raises:
        InvalidArgumentError: fewer words than asked for.
    """
    words = unheard_words(process)
    if not 1 <= n_words <= len(words):
        raise InvalidArgumentError(
            f"n_words must lie in 1..{len(words)}, the words that begin no turn, got {n_words}"
        )
    shown = np.array(list(phrase_tokens(process)))
    hand_over = process.encode(f"\n{process.task.partner}:")
    nats = {}
    for word in (words[i * len(words) // n_words] for i in range(n_words)):
        turn = np.append(process.vocabulary.index(word), hand_over)
        nats[word] = float(np.median(turn_prices_nats(model, contexts, turn)))
    cheapest = min(nats, key=lambda word: nats[word])
    return NeverPrices(
        behaviour=float(np.median(turn_prices_nats(model, contexts, shown))),
        unheard=float(np.median(list(nats.values()))),
        cheapest=nats[cheapest],
        cheapest_word=cheapest.strip(),
    )


def agent_turns_seen(process: DialogueProcess, recipe: LanguageModelRecipe) -> int:
    """Turns of the agent's role in the dialogues that a recipe trains on, cut ones included."""
    rng = np.random.default_rng([recipe.seed, 0])  # as in `base.training`
    opening = process.encode(f"{process.task.agent}:")
    seen = 0
    for _ in range(recipe.n_steps):
        batch = process.sample(rng, recipe.batch_size, recipe.sequence_length)
        seen += int(((batch[:, :-1] == opening[0]) & (batch[:, 1:] == opening[1])).sum())
    return seen


def count_based_nats(n_turns: int) -> float:
    """`ln(n + 2)`: Laplace's price of what did not happen in n turns."""
    return math.log(n_turns + 2)
