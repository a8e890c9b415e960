"""A house in which everybody runs errands, now and then, but the Butler.

An errand is run, or not, in every turn anew, whatever went before: with probability `ERRAND` in
every style of everybody else. So there is no habit to latch on to. An errand of the Butler, who
never runs one, is bought by itself, and earns one good reply and nothing later. What a budget buys
is then a matter of how many turns share it, that is of the length of the episode: see
`llm_experiment.measures.closed_form`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from llm_experiment.dialogue.behaviour import Behaviour
from llm_experiment.dialogue.task import DialogueTask, Role, Silence, Style

ERRAND: Final = 0.4
"""The probability that a turn of one who runs errands is an errand."""
_ERRAND: Final = "errand"
_THANKS: Final = "thanks"
_NEVER_SILENT: Final = Silence(unprompted=0.0, after_empty=0.0, once_silent=0.0)

_IDLE: Final = {
    "polite": Style(
        says={
            "tell": ("The {thing} is in the {room}.", "I have seen the {thing}."),
            "ask": ("Is the {thing} in the {room}?", "Where is the {thing}?"),
            "praise": ("The {room} is {good}.",),
            _THANKS: ("Thanks",),
        },
        replies={
            "start": {"ask": 2, "tell": 1},
            "empty": {"ask": 1},
            "tell": {"ask": 2, "tell": 1, "praise": 1},
            "ask": {"tell": 1},
            "praise": {"tell": 1, "ask": 1},
            _THANKS: {"ask": 1, "tell": 1},
            _ERRAND: {_THANKS: 1},
        },
        silence=_NEVER_SILENT,
    ),
    "brief": Style(
        says={
            "tell": ("In the {room}.", "The {thing}."),
            "ask": ("The {thing}?",),
            "praise": ("{Good}.",),
            _THANKS: ("Thanks",),
        },
        replies={
            "start": {"ask": 1, "tell": 1},
            "empty": {"ask": 1},
            "tell": {"ask": 1, "tell": 1, "praise": 1},
            "ask": {"tell": 3, "ask": 1},
            "praise": {"ask": 1, "tell": 1},
            _THANKS: {"ask": 1, "tell": 1},
            _ERRAND: {_THANKS: 1},
        },
        silence=_NEVER_SILENT,
    ),
    "sour": Style(
        says={
            "tell": ("The {room} is {bad}.", "It is {bad}."),
            "ask": ("Why is the {thing} in the {room}?",),
            "praise": ("It is not {bad}.",),
            _THANKS: ("Thanks",),
        },
        replies={
            "start": {"tell": 1},
            "empty": {"ask": 1},
            "tell": {"tell": 2, "ask": 1},
            "ask": {"tell": 2, "praise": 1},
            "praise": {"tell": 1, "ask": 1},
            _THANKS: {"ask": 1, "tell": 1},
            _ERRAND: {_THANKS: 1},
        },
        silence=_NEVER_SILENT,
    ),
}


def _busy(style: Style) -> Style:
    """The style of one who runs errands besides, with the same probability after anything."""

    def with_errands(weights: Mapping[str, float]) -> dict[str, float]:
        total = sum(weights.values())
        return {m: w / total * (1 - ERRAND) for m, w in weights.items()} | {_ERRAND: ERRAND}

    return replace(
        style,
        says={**style.says, _ERRAND: ("Fetched.",)},
        replies={
            heard: weights if heard == _ERRAND else with_errands(weights)
            for heard, weights in style.replies.items()
        },
    )


_WEIGHTS: Final = {"polite": 0.4, "brief": 0.35, "sour": 0.25}
_BUTLER: Final = Role(styles=_WEIGHTS, may_be_silent=False)
_ANYONE: Final = Role(
    styles={f"{name}, busy": weight for name, weight in _WEIGHTS.items()}, may_be_silent=False
)
_MASTER: Final = Role(styles=_WEIGHTS, may_be_silent=False)
_HOUSES: Final = (
    ("Butler", "Master"),
    ("Maid", "Lady"),
    ("Cook", "Lord"),
    ("Valet", "Count"),
    ("Page", "Queen"),
    ("Groom", "Duke"),
)
"""Who serves whom."""

TASK: Final = DialogueTask(
    name="errands",
    note="A day in the house.\n",
    roles=(
        {servant: _ANYONE for servant, _ in _HOUSES}
        | {master: _MASTER for _, master in _HOUSES}
        | {"Butler": _BUTLER}
    ),
    pairs=_HOUSES,
    styles=_IDLE | {f"{name}, busy": _busy(style) for name, style in _IDLE.items()},
    slots={
        "thing": ("lamp", "key", "coat", "book", "cup", "hat", "ring", "bell"),
        "room": ("hall", "kitchen", "library", "garden", "attic"),
        "good": ("fine", "warm", "bright"),
        "Good": ("Fine", "Warm"),
        "bad": ("cold", "dark", "dusty"),
    },
    style_redraw=0.05,
    positive={"tell": 0.45, "ask": 0.35, "praise": 0.7, _THANKS: 0.99, _ERRAND: 0.6},
    prompt=(
        "A day in the house.\n"
        "Master: Where is the lamp?\n"
        "Butler: The lamp is in the hall.\n"
        "Master: Is the key in the hall?\n"
        "Butler: The"
    ),
    agent="Butler",
    partner="Master",
    behaviour=Behaviour(name="errand", turn="obliging", episode="obliging", phrases=("Fetched.",)),
)
