"""What never-events cost a language model, and how many chances it has seen them not happen.

Priced are turns of a task's agent that the demonstrator never writes: one that shows the task's
behaviour, and turns of a single word that nobody ever says by itself (`unheard_words`), which are
equally long to describe. A *price* is `-log b` of the turn with its hand-over, in nats, median over
contexts: dialogues of the demonstrator itself up to where the agent is to speak, in which nobody
has shown the behaviour yet. So models that can hardly write a dialogue are priced in the same
contexts as good ones.

The same is asked of the model under vetoes (`pessimism`), which are learnt from as much data again:
there a price is inf once the event is vetoed.

A *count-based* estimator, which knows nothing but that the agent's role had n turns and none of
them showed the behaviour, gives the next one Laplace's probability 1/(n + 2), and so the price
`ln(n + 2)`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from llm_experiment.base.mixture import phrase_tokens
from llm_experiment.base.protocol import BaseModel, semi_log_probs
from llm_experiment.base.shipped import LanguageModelRecipe
from llm_experiment.chat.features import FeatureReader
from llm_experiment.chat.veto_set import VetoSet
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import parse_template
from llm_experiment.pessimism.demonstrations import Demonstration
from llm_experiment.pessimism.learning import BATCH, make_veto_set, walk
from llm_experiment.pessimism.studies import Imitator, evidence_of
from theory.errors import InvalidArgumentError

Ints = NDArray[np.int64]

DEMONSTRATION_TOKENS: Final = 160
"""Length of the dialogues from which vetoes are learnt."""
_DEMONSTRATIONS: Final = 3
"""Their stream; training, held-out dialogues and contexts have others."""


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


def unheard_words(process: DialogueProcess, n: int | None = None) -> tuple[str, ...]:
    """Words with which no turn begins, each with its blank.

    Args:
        process: whose vocabulary they are of, in its order.
        n: so many, spread evenly over those that there are; all if left out.

    Raises:
        InvalidArgumentError: fewer words than asked for.
    """
    begins = {
        token
        for _, _, text in process.task.templates()
        for token, _ in process.task.next_words(parse_template(text))
    }
    words = [token for token in process.vocabulary if token.startswith(" ") and token not in begins]
    n = len(words) if n is None else n
    if not 1 <= n <= len(words):
        raise InvalidArgumentError(
            f"n_words must lie in 1..{len(words)}, the words that begin no turn, got {n}"
        )
    return tuple(words[i * len(words) // n] for i in range(n))


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
    sampled = process.sample(rng, n, n_tokens, speakers=(task.partner, task.agent))
    for row, begins in zip(sampled, process.turn_begins(sampled, task.agent), strict=True):
        for last in np.flatnonzero(begins)[-1:]:
            turns = process.decode(row[:last]).removeprefix(task.note).splitlines()
            if not any(task.behaviour.shows(turn.partition(":")[2]) for turn in turns):
                found.append(row[: last + 2])  # with name and colon
    if not found:
        raise InvalidArgumentError(
            f"none of {n} dialogues of {n_tokens} tokens has a turn of {task.agent} before any "
            f"{task.behaviour.name}; draw more, or longer ones"
        )
    return found


def turn_prices_nats(
    base: BaseModel, reader: FeatureReader, contexts: Sequence[Ints], turn: Ints
) -> NDArray[np.float64]:
    """`-log b` of a turn's tokens after each context, shape (contexts,); inf where impossible.

    Args:
        base: the base policy, its missing mass not filled.
        reader: of transcripts.
        contexts: each begins with the same token.
        turn: tokens, the hand-over included.
    """
    said = [Demonstration(tokens=np.append(c, turn), n_given=len(c)) for c in contexts]
    ends = np.array([len(one.tokens) for one in said])
    given = ends - len(turn)
    prices = np.zeros(len(said))
    for moment, step in walk(base, reader, said, range(len(said))):
        law = semi_log_probs(step).cpu()
        nats = -law.gather(1, moment.tokens.cpu()[:, None])[:, 0].double().numpy()
        prices += np.where((given <= moment.position) & (moment.position < ends), nats, 0.0)
    return prices


def never_prices(
    base: BaseModel,
    reader: FeatureReader,
    process: DialogueProcess,
    contexts: Sequence[Ints],
    *,
    words: Sequence[str],
) -> NeverPrices:
    """Price the behaviour and words that nobody says by themselves.

    Args:
        base: the base policy.
        reader: of transcripts.
        process: the demonstrator's.
        contexts: transcripts up to where the agent is to speak.
        words: at least one of `unheard_words`.
    """

    def price(turn: Ints) -> float:
        return float(np.median(turn_prices_nats(base, reader, contexts, turn)))

    shown = np.array(list(phrase_tokens(process)))
    hand_over = process.encode(f"\n{process.task.partner}:")
    nats = {word: price(np.append(process.vocabulary.index(word), hand_over)) for word in words}
    cheapest = min(nats, key=lambda word: nats[word])
    return NeverPrices(
        behaviour=price(shown),
        unheard=float(np.median(list(nats.values()))),
        cheapest=nats[cheapest],
        cheapest_word=cheapest.strip(),
    )


def audit_vetoes_of(imitator: Imitator, n_dialogues: int, *, alpha: float, seed: int) -> VetoSet:
    """What the imitator is badly wrong about, by demonstrations that it did not learn from.

    Args:
        imitator: the base model.
        n_dialogues: demonstrations, of `DEMONSTRATION_TOKENS` tokens.
        alpha: the threshold.
        seed: of the demonstrations.
    """
    said = imitator.demonstrations(
        None,
        n_dialogues=n_dialogues,
        n_tokens=DEMONSTRATION_TOKENS,
        n_silences=0,
        seed=(seed, _DEMONSTRATIONS),
    )
    (evidence,) = evidence_of(imitator, said, batch=BATCH, partial=None)
    return make_veto_set(evidence, imitator.reader, alpha=alpha)


def agent_turns_seen(process: DialogueProcess, recipe: LanguageModelRecipe) -> int:
    """Turns of the agent's role in the dialogues that a recipe trains on, cut ones included."""
    rng = np.random.default_rng([recipe.seed, 0])  # as in `base.training`
    seen = 0
    for _ in range(recipe.n_steps):
        batch = process.sample(rng, recipe.batch_size, recipe.sequence_length)
        seen += int(process.turn_begins(batch, process.task.agent).sum())
    return seen


def count_based_nats(n_turns: int) -> float:
    """`ln(n + 2)`: Laplace's price of what did not happen in n turns."""
    return math.log(n_turns + 2)
