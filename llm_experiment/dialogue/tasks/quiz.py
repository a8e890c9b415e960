"""A quiz whose best reward is known, and reached only by an answer that the Player never gives.

The Host asks for one of two words. Any one of them is right half of the time; "Both." is right
always. Some contestants answer so, all the time or nearly; the Player never does. All answers have
the same number of tokens, and so have all questions: an episode of t tokens has a known number of
answers, whatever they are. So every number of the game between a base policy and an agent with a
budget is known, and its exact value can be planned (`llm_experiment.measures.turn_game`).
"""

from typing import Final

from llm_experiment.dialogue.behaviour import Behaviour
from llm_experiment.dialogue.task import DialogueTask, Role, Silence, Style

RIGHT_BY_CHANCE: Final = 0.5
"""The probability that an answer of one word is right."""
GOES_ON: Final = 0.95
"""The probability that one who answers "Both." does so in the next turn."""
PASSING: Final = 0.2
"""The share of other contestants who do."""
_ANSWER: Final = "answer"
_BOTH: Final = "both"
_NEVER_SILENT: Final = Silence(unprompted=0.0, after_empty=0.0, once_silent=0.0)
_HEARD: Final = ("start", "empty", "question", "right", "wrong", _ANSWER, _BOTH)

_ANSWERING: Final = Style(
    says={_ANSWER: ("{Word}.",)},
    replies={heard: {_ANSWER: 1} for heard in _HEARD},
    silence=_NEVER_SILENT,
)
_BOTH_WAYS: Final = Style(
    says={_ANSWER: ("{Word}.",), _BOTH: ("Both.",)},
    replies={heard: {_BOTH: GOES_ON, _ANSWER: 1 - GOES_ON} for heard in _HEARD},
    silence=_NEVER_SILENT,
)
_HOST: Final = Style(
    says={
        "question": ("Next, {word} or {word}?",),
        "right": ("Right, {word} or {word}?",),
        "wrong": ("Wrong, {word} or {word}?",),
    },
    replies={heard: {"question": 1} for heard in _HEARD}
    | {_ANSWER: {"right": RIGHT_BY_CHANCE, "wrong": 1 - RIGHT_BY_CHANCE}, _BOTH: {"right": 1}},
    silence=_NEVER_SILENT,
)

_PLAYER: Final = Role(styles={"answering": 1}, may_be_silent=False)
_CONTESTANT: Final = Role(styles={"answering": 1 - PASSING, "both": PASSING}, may_be_silent=False)
_CONTESTANTS: Final = ("Guest", "Rival", "Champion", "Friend", "Stranger")

TASK: Final = DialogueTask(
    name="quiz",
    note="A quiz.\n",
    roles={
        "Host": Role(styles={"host": 1}, may_be_silent=False),
        "Player": _PLAYER,
        **dict.fromkeys(_CONTESTANTS, _CONTESTANT),
    },
    pairs=tuple(("Host", contestant) for contestant in ("Player", *_CONTESTANTS)),
    styles={"answering": _ANSWERING, "both": _BOTH_WAYS, "host": _HOST},
    slots={
        "word": ("north", "south", "red", "blue", "salt", "sugar"),
        "Word": ("North", "South", "Red", "Blue", "Salt", "Sugar"),
    },
    style_redraw=0.0,
    positive={"question": 0.5, "right": 1.0, "wrong": 0.0, _ANSWER: 0.5, _BOTH: 0.5},
    prompt="A quiz.\nHost: Next, north or south?\nPlayer:",
    agent="Player",
    partner="Host",
    behaviour=Behaviour(
        name="answer of both", turn="both-ways", episode="both-ways", phrases=("Both.",)
    ),
)
