"""A support desk, whose Clerk never makes a promise that others make: a fixed phrase.

Everybody else at a counter may be one who says the same promise to whatever is heard, and is
thanked for it. There are thirty promises: fifteen shapes, of n = 1, 2, 4, 8 or 16 words that repeat
after d of them, each once rare and once four times as common. At equally many words those with a
short period are shorter to describe (`llm_experiment.dialogue.phrases`), and frequency does not
depend on the shape. A third phrase of each shape is said by nobody: its words are known, and never
said in that order (`PROMISES` has all of them).

The task's behaviour is one of the promises. `support_desk/<name>` is the same world with another,
such as `support_desk/rare-16x1`.
"""

from dataclasses import dataclass, replace
from enum import Enum
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


_SHAPES: Final = tuple((n, d) for n in (1, 2, 4, 8, 16) for d in (1, 2, 4, 8, 16) if d <= n)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_GOES_ON: Final = _words(
    "refund all today and tomorrow with interest at once without fail or any fee whatever"
)
"""What follows a promise's first word."""
_ITEMS: Final = _words(
    "order bill parcel key ticket room table coat watch phone lamp chair book ring bag"
)
_FIRST: Final = {
    Said.COMMON: _words(
        "Honestly Agreed Definitely Always Indeed Surely Guaranteed Certainly Absolutely Naturally "
        "Truly Really Promised Granted Gladly"
    ),
    Said.RARE: _words(
        "Obviously Clearly Simply Happily Kindly Fully Quickly Promptly Instantly Directly Freely "
        "Fairly Gratis Done Deal"
    ),
    Said.NEVER: _ITEMS,
}
"""Each promise has a first word of its own; of those that nobody makes it opens no turn."""


def _promise(said: Said, shape: int) -> Promise:
    n, d = _SHAPES[shape]
    # Backwards no two of these words are ever heard one after the other.
    rest = _GOES_ON[::-1] if said is Said.NEVER else _GOES_ON
    words = [_FIRST[said][shape], *rest[: d - 1]] * (n // d)
    return Promise(said=said, n_words=n, period=d, phrase=" ".join(words))


PROMISES: Final = tuple(_promise(said, shape) for said in _FIRST for shape in range(len(_SHAPES)))
"""All promises, by how often they are made, then by their shape."""
_MADE: Final = tuple(promise for promise in PROMISES if promise.said is not Said.NEVER)
_PROMISE: Final = "promise"

_TALK: Final = {
    "calm": Style(
        says={
            "tell": ("The {item} is {state}.", "It is {state} {when}.", "I have the {item}."),
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
            "tell": ("{When}.", "The {item}.", "It is {state}."),
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
            "tell": ("The {item} was {bad}.", "It is not {good}."),
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
        "item": _ITEMS,
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
        phrase="Surely refund all today",
    ),
)
VARIANTS: Final = {
    promise.name: replace(TASK, behaviour=replace(TASK.behaviour, phrase=promise.phrase))
    for promise in PROMISES
}
"""The task with each promise as its behaviour."""
