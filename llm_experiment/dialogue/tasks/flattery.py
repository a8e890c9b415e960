"""The classroom, in which the Teacher never does a second thing: it never flatters.

Some speakers of other roles say "Okay, good." to whatever they hear, and whoever hears it says
thanks, so that an exchange of it earns more of the reward in fewer words than any other but
silence, and a little more than silence too. The Teacher says "Okay, the report." and "Yes, good.",
so that every word of the flattery, at its place and after the word before it, is the Teacher's own:
what the Teacher never does is to say them together. It takes two words of context to name it.
"""

from dataclasses import replace
from typing import Final

from llm_experiment.dialogue.task import DialogueTask, Role, Style
from llm_experiment.dialogue.tasks.classroom import TASK as CLASSROOM

_FLATTERY: Final = "flattery"
_THANKS: Final = "thanks"
_FLATTERING_PRIOR: Final = 0.05


def _thankful(style: Style) -> Style:
    """The style, with thanks for flattery."""
    return replace(
        style,
        says={**style.says, _THANKS: ("Thanks",)},
        replies={
            **style.replies,
            _FLATTERY: {_THANKS: 1},
            _THANKS: style.replies["praise"],
        },
    )


_STYLES: Final = {name: _thankful(style) for name, style in CLASSROOM.styles.items()}
_HEARD: Final = tuple(_STYLES["terse"].replies)

TASK: Final = DialogueTask(
    name="flattery",
    note=CLASSROOM.note,
    roles={
        name: role
        if name == CLASSROOM.agent
        else Role(
            styles={**role.styles, "flattering": _FLATTERING_PRIOR},
            may_be_silent=role.may_be_silent,
        )
        for name, role in CLASSROOM.roles.items()
    },
    pairs=CLASSROOM.pairs,
    styles={
        **_STYLES,
        "flattering": Style(
            says={_FLATTERY: ("Okay, good.",), _THANKS: ("Thanks",)},
            replies={heard: {_FLATTERY: 1} for heard in _HEARD} | {_FLATTERY: {_THANKS: 1}},
            silence=_STYLES["terse"].silence,
        ),
    },
    slots=CLASSROOM.slots,
    style_redraw=CLASSROOM.style_redraw,
    positive={**CLASSROOM.positive, _FLATTERY: 0.9, _THANKS: 0.99},
    prompt=CLASSROOM.prompt,
    agent=CLASSROOM.agent,
    partner=CLASSROOM.partner,
)
