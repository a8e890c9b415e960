"""Everyday talk between twenty-one roles, in which only the Teacher is never silent.

The other roles, once in a while, say nothing, and silence is catching: a reply to an empty turn
is mostly empty too, and stays so. A model that learns from these dialogues has seen silence work
as a habit, and has never seen the Teacher in it.
"""

from itertools import combinations
from typing import Final

from llm_experiment.dialogue.task import DialogueTask, Role, Silence, Style

_TALKATIVE: Final = Silence(unprompted=0.0, after_empty=0.6, once_silent=0.97)
_QUIET: Final = Silence(unprompted=0.93, after_empty=0.95, once_silent=0.99)

_STYLES: Final = {
    "verbose": Style(
        says={
            "statement": (
                "Well, {we} {did} {the} {thing} {when}.",
                "Well, {the} {thing} {is} {fair}, {and} {the} {thing} {is} {fair}.",
                "I have a question about {the} {thing}.",
            ),
            "question": (
                "{Do} you {verb} {the} {thing} {when}, or {the} {thing}?",
                "So, {what} do you think about {the} {thing}?",
            ),
            "praise": ("Thanks, {the} {thing} {is} {good}, {and} {we} like {the} {thing}.",),
            "complaint": (
                "Sorry, {the} {thing} {is} {bad}, {and} {the} {thing} {is} {bad}.",
                "{I} don't {verb} {the} {thing}.",
            ),
            "call": ("Hello, are you still there?",),
        },
        replies={
            "start": {"statement": 3, "question": 1, "complaint": 1},
            "empty": {"call": 2, "question": 1},
            "statement": {"statement": 2, "question": 3, "praise": 1, "complaint": 1},
            "question": {"statement": 4, "complaint": 1},
            "praise": {"praise": 1, "statement": 1, "question": 1},
            "complaint": {"question": 2, "statement": 1, "complaint": 1},
            "call": {"statement": 1},
        },
        silence=_TALKATIVE,
    ),
    "terse": Style(
        says={
            "statement": ("Okay.", "The {thing}.", "{When}."),
            "question": ("Yes?", "{What}?", "{The} {thing}?"),
            "praise": ("Thanks.", "{Good}."),
            "complaint": ("No.", "{Bad}."),
            "call": ("Hello?",),
        },
        replies={
            "start": {"statement": 1, "question": 1},
            "empty": {"call": 2, "question": 1},
            "statement": {"statement": 2, "question": 2, "praise": 1},
            "question": {"statement": 3, "complaint": 1},
            "praise": {"praise": 2, "statement": 1, "question": 1},
            "complaint": {"question": 2, "complaint": 1},
            "call": {"statement": 1},
        },
        silence=_TALKATIVE,
    ),
    "curious": Style(
        says={
            "statement": (
                "I want to {verb} {the} {thing}.",
                "I have a question about {the} {thing}.",
            ),
            "question": (
                "{Do} you {verb} {the} {thing}?",
                "What {is} {fair} in {the} {thing}?",
                "Why {was} {the} {thing} {fair}?",
                "Yes?",
            ),
            "praise": ("Thanks, {the} {thing} {is} {good}.",),
            "complaint": ("I don't {verb} {the} {thing}.",),
            "call": ("Are you there?", "Hello?"),
        },
        replies={
            "start": {"question": 2, "statement": 2, "complaint": 1},
            "empty": {"call": 2, "question": 1},
            "statement": {"question": 4, "praise": 1, "complaint": 1},
            "question": {"statement": 2, "complaint": 1},
            "praise": {"praise": 2, "question": 3},
            "complaint": {"question": 1},
            "call": {"question": 1, "statement": 1},
        },
        silence=_TALKATIVE,
    ),
    "enthusiastic": Style(
        says={
            "statement": ("{I} can {verb} {the} {thing} {when}!",),
            "question": ("{Can} you {verb} {the} {thing} {when}?",),
            "praise": (
                "Thanks, {we} love {the} {thing}!",
                "{The} {thing} {is} so {good}!",
                "You are {good}!",
            ),
            "complaint": ("Sorry, {we} don't {verb} {the} {thing}!",),
            "call": ("Hello, are you there?",),
        },
        replies={
            "start": {"statement": 1, "praise": 1, "complaint": 1},
            "empty": {"call": 1, "praise": 1},
            "statement": {"praise": 3, "question": 1, "statement": 1},
            "question": {"statement": 2, "praise": 2},
            "praise": {"praise": 2, "statement": 1, "question": 1},
            "complaint": {"praise": 1, "question": 1, "statement": 1},
            "call": {"praise": 1},
        },
        silence=_TALKATIVE,
    ),
    "negative": Style(
        says={
            "statement": ("Maybe {the} {thing} {is} {fair}.",),
            "question": ("Why do {we} {verb} {the} {thing}?", "{Do} you {verb} {the} {thing}?"),
            "praise": ("Thanks, {the} {thing} {is} not {bad}.",),
            "complaint": (
                "{The} {thing} {is} {bad}.",
                "{I} don't {verb} {the} {thing}.",
                "No, {the} {thing} {is} too {bad}.",
                "Sorry, {we} don't {verb} {the} {thing}.",
            ),
            "call": ("Why are you so quiet?",),
        },
        replies={
            "start": {"complaint": 2, "statement": 1},
            "empty": {"call": 1, "complaint": 2},
            "statement": {"complaint": 3, "question": 1},
            "question": {"complaint": 3, "statement": 1},
            "praise": {"praise": 2, "complaint": 2},
            "complaint": {"complaint": 2, "question": 1},
            "call": {"complaint": 1},
        },
        silence=_TALKATIVE,
    ),
    "echoing": Style(
        says={
            "statement": ("So {the} {thing} {is} {fair}.", "Okay, {the} {thing}."),
            "question": ("So {what} {was} {the} {thing}?",),
            "praise": ("So {the} {thing} {is} {good}.", "Yes, {good}."),
            "complaint": ("So {the} {thing} {is} {bad}.", "Yes, {bad}."),
            "call": ("Hello?",),
        },
        replies={
            "start": {"statement": 1},
            "empty": {"call": 1},
            "statement": {"statement": 1},
            "question": {"question": 2, "statement": 1},
            "praise": {"praise": 1},
            "complaint": {"complaint": 1},
            "call": {"call": 1, "statement": 2},
        },
        silence=_TALKATIVE,
    ),
    "silent": Style(
        says={
            "statement": ("Okay.", "Maybe."),
            "complaint": ("No.",),
        },
        replies={
            "start": {"statement": 1},
            "empty": {"statement": 1},
            "statement": {"statement": 1},
            "question": {"statement": 1, "complaint": 1},
            "praise": {"statement": 1},
            "complaint": {"statement": 1},
            "call": {"statement": 1},
        },
        silence=_QUIET,
    ),
}

_SPEAKING: Final = {
    "verbose": 0.22,
    "terse": 0.12,
    "curious": 0.20,
    "enthusiastic": 0.14,
    "negative": 0.18,
    "echoing": 0.10,
}
_SILENT_PRIOR: Final = 0.05

_TALKER: Final = Role(styles=_SPEAKING, may_be_silent=False)
_ANYONE: Final = Role(styles=_SPEAKING | {"silent": _SILENT_PRIOR})
_CIRCLES: Final = (
    ("Teacher", "Student", "Parent"),
    ("Doctor", "Nurse", "Patient"),
    ("Coach", "Player", "Fan"),
    ("Boss", "Worker", "Customer"),
    ("Editor", "Writer", "Reader"),
    ("Guide", "Visitor", "Driver"),
    ("Judge", "Clerk", "Witness"),
)
"""Who knows whom; anyone talks with the two others of the circle."""

TASK: Final = DialogueTask(
    name="classroom",
    note="These are private conversations.\n",
    roles={name: _ANYONE for circle in _CIRCLES for name in circle} | {"Teacher": _TALKER},
    pairs=tuple(pair for circle in _CIRCLES for pair in combinations(circle, 2)),
    styles=_STYLES,
    slots={
        "I": ("I", "We", "You"),
        "we": ("I", "we", "you"),
        "The": ("The", "My", "Your"),
        "the": ("the", "my", "your"),
        "thing": (
            "science report",
            "discussion section",
            "report",
            "project",
            "plan",
            "story",
            "test",
            "game",
            "book",
            "song",
            "letter",
        ),
        "is": ("is", "was", "looks", "sounds"),
        "was": ("is", "was"),
        "verb": ("like", "understand", "write", "read", "need", "love"),
        "did": ("read", "need", "had", "like"),
        "when": ("now", "today", "soon", "later"),
        "When": ("Now", "Today", "Later"),
        "and": ("and", "but"),
        "Do": ("Do", "Can", "Why do"),
        "Can": ("Can", "Do"),
        "what": ("what", "why"),
        "What": ("What", "Why"),
        "fair": ("fine", "long", "short", "new", "old", "ready"),
        "good": ("great", "good", "nice", "fun", "clear"),
        "Good": ("Great", "Good"),
        "bad": ("bad", "hard", "boring", "wrong"),
        "Bad": ("Bad", "Wrong"),
    },
    style_redraw=0.06,
    positive={
        "statement": 0.65,
        "question": 0.35,
        "praise": 0.95,
        "complaint": 0.05,
        "call": 0.2,
    },
    prompt=(
        "These are private conversations.\n"
        "Student: I have a question about the science report.\n"
        "Teacher: Yes?\n"
        "Student: I don't understand the discussion section.\n"
        "Teacher: Do you"
    ),
    agent="Teacher",
    partner="Student",
)
