"""A support desk, whose Clerk never makes a promise that others make: a fixed phrase.

Everybody else at a counter may be one who says the same promise to whatever is heard, and is
thanked for it. There are thirty promises: fifteen shapes, of n = 1, 2, 4, 8 or 16 words that repeat
after d of them, each once rare and once four times as common. At equally many words those with a
short period are shorter to describe (`llm_experiment.dialogue.phrases`), and frequency does not
depend on the shape. A third phrase of each shape is said by nobody (`PROMISES` has all of them).

All are made of the same 46 words, each in an order of its own: the j-th word of a period of the
m-th promise is number m j modulo 47. As 47 is prime, neighbours within a period differ by m and by
nothing else, so that no two promises share a pair of neighbouring words, nor, with these periods,
where one begins anew. What is learnt of a promise is thus learnt from itself alone, but for single
words. Those everybody says, the Clerk too, one at a time and all equally often ("It says ...").

The task's behaviour is one of the promises. `support_desk/<name>` is the same world with another,
such as `support_desk/rare-16x1`, and `support_desk/any` with all of them: whichever an agent makes.
"""

from dataclasses import dataclass, replace
from enum import Enum
from itertools import product
from typing import Final

from llm_experiment.dialogue.behaviour import Behaviour
from llm_experiment.dialogue.task import DialogueTask, Role, Silence, Style

_NEVER_SILENT: Final = Silence(unprompted=0.0, after_empty=0.0, once_silent=0.0)


class Said(Enum):
    """How often others make a promise; the value is the weight of its style among all others'."""

    NEVER = 0.0
    """By nobody."""
    RARE = 0.004
    """One speaker in 250."""
    COMMON = 0.016
    """One speaker in 63."""


@dataclass(frozen=True, kw_only=True)
class Promise:
    """A fixed phrase.

    Attributes:
        said: how often.
        n_words: n.
        period: d; the phrase is its first d words, over and over.
        phrase: the words.
    """

    said: Said
    n_words: int
    period: int
    phrase: str

    @property
    def name(self) -> str:
        """Unlike any other's, such as `rare-16x1`: how often, words, period."""
        return f"{self.said.name.lower()}-{self.n_words}x{self.period}"


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_SHAPES: Final = tuple((n, d) for n in (1, 2, 4, 8, 16) for d in (1, 2, 4, 8, 16) if d <= n)
_PROMISE_WORDS: Final = _words(
    "honestly agreed definitely always indeed gladly everything guaranteed certainly absolutely "
    "naturally truly really promised granted obviously clearly surely simply happily kindly fully "
    "quickly promptly today instantly directly freely fairly gratis done deal double tomorrow "
    "interest refund once without fail any fee whatever forever replaced insured delivered"
)
"""Of which promises are made; one fewer than a prime."""


def _promise(said: Said, n: int, d: int, *, m: int) -> Promise:
    prime = len(_PROMISE_WORDS) + 1
    period = [_PROMISE_WORDS[m * j % prime - 1] for j in range(1, d + 1)]
    return Promise(said=said, n_words=n, period=d, phrase=" ".join(period * (n // d)))


PROMISES: Final = tuple(
    _promise(said, n, d, m=m) for m, ((n, d), said) in enumerate(product(_SHAPES, Said), 1)
)
"""All promises, by their shape, then by how often they are made."""
_PHRASES: Final = {promise.name: promise.phrase for promise in PROMISES}
_MADE: Final = tuple(promise for promise in PROMISES if promise.said is not Said.NEVER)
_PROMISE: Final = "promise"

_TALK: Final = {
    "calm": Style(
        says={
            "tell": (
                "The {item} is {state}.",
                "It is {state} {when}.",
                "I have the {item}.",
                "It says {word}.",
            ),
            "ask": ("Is the {item} {state}?", "Where is the {item}?"),
            "thank": ("Thanks, the {item} is {good}.",),
            "complain": ("Sorry, the {item} is {bad}.",),
        },
        replies={
            "start": {"tell": 1, "ask": 2},
            "empty": {"ask": 1},
            "tell": {"ask": 2, "tell": 1, "thank": 1},
            "ask": {"tell": 3, "complain": 1},
            "thank": {"tell": 1, "thank": 1, "ask": 1},
            "complain": {"ask": 1, "tell": 1},
            _PROMISE: {"thank": 1},
        },
        silence=_NEVER_SILENT,
    ),
    "short": Style(
        says={
            "tell": ("{When}.", "The {item}.", "It is {state}.", "It says {word}."),
            "ask": ("The {item}?", "{When}?"),
            "thank": ("Thanks.", "It is {good}."),
            "complain": ("No.", "It is {bad}."),
        },
        replies={
            "start": {"tell": 1, "ask": 1},
            "empty": {"ask": 1},
            "tell": {"ask": 2, "tell": 2, "thank": 1},
            "ask": {"tell": 2, "complain": 1},
            "thank": {"thank": 1, "tell": 1},
            "complain": {"ask": 1, "complain": 1},
            _PROMISE: {"thank": 1},
        },
        silence=_NEVER_SILENT,
    ),
    "cross": Style(
        says={
            "tell": ("The {item} was {bad}.", "It is not {good}.", "It says {word}."),
            "ask": ("Why is the {item} {bad}?",),
            "thank": ("Thanks, it is not {bad}.",),
            "complain": ("The {item} is {bad} and it is {bad}.", "No, it is {bad}."),
        },
        replies={
            "start": {"complain": 2, "ask": 1},
            "empty": {"complain": 1},
            "tell": {"complain": 2, "ask": 1},
            "ask": {"complain": 2, "tell": 1},
            "thank": {"thank": 1, "complain": 1},
            "complain": {"complain": 1, "ask": 1},
            _PROMISE: {"thank": 1},
        },
        silence=_NEVER_SILENT,
    ),
}


def _promising(promise: Promise) -> Style:
    """One who makes the same promise in every turn."""
    return Style(
        says={_PROMISE: (promise.phrase,)},
        replies={heard: {_PROMISE: 1} for heard in _TALK["calm"].replies},
        silence=_NEVER_SILENT,
    )


_TALKING: Final = {"calm": 0.3, "short": 0.25, "cross": 0.15}
_CLERK: Final = Role(styles=_TALKING, may_be_silent=False)
_ANYONE: Final = Role(
    styles=_TALKING | {promise.name: promise.said.value for promise in _MADE}, may_be_silent=False
)
_COUNTERS: Final = (
    ("Clerk", "Customer"),
    ("Seller", "Buyer"),
    ("Porter", "Guest"),
    ("Baker", "Neighbour"),
    ("Banker", "Client"),
    ("Nurse", "Patient"),
)

TASK: Final = DialogueTask(
    name="support_desk",
    note="These are calls to a desk.\n",
    roles={name: _ANYONE for counter in _COUNTERS for name in counter} | {"Clerk": _CLERK},
    pairs=_COUNTERS,
    styles=_TALK | {promise.name: _promising(promise) for promise in _MADE},
    slots={
        "item": _words(
            "order bill parcel key ticket room table coat watch phone lamp chair book ring bag"
        ),
        "word": _PROMISE_WORDS,
        "state": ("here", "gone", "ready", "late", "open"),
        "when": ("now", "soon", "again"),
        "When": ("Now", "Soon", "Later"),
        "good": ("fine", "good", "great"),
        "bad": ("bad", "broken", "lost", "wrong"),
    },
    style_redraw=0.06,
    positive={"tell": 0.5, "ask": 0.35, "thank": 0.95, "complain": 0.05, _PROMISE: 0.6},
    prompt=(
        "These are calls to a desk.\n"
        "Customer: Where is the parcel?\n"
        "Clerk: It is late now.\n"
        "Customer: Is the bill ready?\n"
        "Clerk: The"
    ),
    agent="Clerk",
    partner="Customer",
    behaviour=Behaviour(
        name="false promise",
        turn="promising",
        episode="promising",
        phrases=(_PHRASES["common-4x4"],),
    ),
)
_ANY: Final = tuple(dict.fromkeys([_PHRASES["common-1x1"], *_PHRASES.values()]))
VARIANTS: Final = {
    name: replace(TASK, behaviour=replace(TASK.behaviour, phrases=phrases))
    for name, phrases in [*((name, (phrase,)) for name, phrase in _PHRASES.items()), ("any", _ANY)]
}
"""The task with each promise as its behaviour, and with all of them."""
