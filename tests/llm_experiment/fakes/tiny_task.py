"""A dialogue task small enough to enumerate, and its law computed the slow way, in fractions.

The enumeration reads the task's data afresh: it tries every hidden choice in turn and writes the
text out, so it shares no code with the process's tables, sampler or filter beyond the data.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

from llm_experiment.dialogue.task import DialogueTask, Role, Silence, Style

TINY_TASK = DialogueTask(
    name="tiny",
    note="Talk.\n",
    roles={
        "Ann": Role(styles={"warm": 3, "cold": 1}, may_be_silent=False),
        "Bob": Role(styles={"warm": 1, "cold": 2}),
        "Cyd": Role(styles={"cold": 1}),
    },
    pairs=(("Ann", "Bob"), ("Bob", "Cyd")),
    styles={
        "warm": Style(
            says={"fair": ("It is {good}{mark}", "Yes."), "foul": ("It is {bad}.",)},
            replies={
                "start": {"fair": 1},
                "empty": {"fair": 2, "foul": 1},
                "fair": {"fair": 3, "foul": 1},
                "foul": {"foul": 1},
            },
            silence=Silence(unprompted=0.0, after_empty=0.5, once_silent=0.75),
        ),
        "cold": Style(
            says={"foul": ("It is {bad}.", "{bad}{mark}")},
            replies={
                "start": {"foul": 1},
                "empty": {"foul": 1},
                "fair": {"foul": 1},
                "foul": {"foul": 1},
            },
            silence=Silence(unprompted=0.25, after_empty=0.875, once_silent=1.0),
        ),
    },
    slots={
        "good": ("good", "{very} good", "fine"),
        "bad": ("bad", "{very} bad"),
        "very": ("so", "very", ""),
        "mark": (".", "!", "{very}."),
    },
    style_redraw=0.25,
    positive={"fair": 0.875, "foul": 0.125},
    prompt="Talk.\nBob: It is bad.\nAnn: It",
    agent="Ann",
    partner="Bob",
)


def enumerate_transcripts(
    task: DialogueTask, n_tokens: int, *, later: tuple[int, Role] | None = None
) -> dict[tuple[str, ...], Fraction]:
    """The probability of every transcript of `n_tokens` tokens that can happen.

    Args:
        task: who speaks how.
        n_tokens: length.
        later: the tokens after which the agent's turns begin as those of another role, whose
            style is then drawn at every turn.
    """
    law: Counter[tuple[str, ...]] = Counter()
    for pair, order in itertools.product(task.pairs, (1, -1)):
        names = pair[::order]
        share = Fraction(1, 2 * len(task.pairs))
        for text, probability in _dialogues(task, names, task.note, n_tokens, later):
            law[text] += share * probability
    return dict(law)


def split_words(text: str) -> tuple[str, ...]:
    """Line breaks, marks, and words with the blank before them."""
    return tuple(re.findall(r"[\n.,?!:]| ?[\w']+", text))


def _dialogues(
    task: DialogueTask,
    names: tuple[str, ...],
    note: str,
    n_tokens: int,
    later: tuple[int, Role] | None,
) -> Iterator[tuple[tuple[str, ...], Fraction]]:
    unfinished = [(split_words(note), Fraction(1), "start", (None, None), (False, False), 0)]
    while unfinished:
        text, probability, mood, styles, silent, turn = unfinished.pop()
        if len(text) >= n_tokens:
            yield text[:n_tokens], probability
            continue
        me = turn % 2
        role, last = task.roles[names[me]], styles[me]
        if later is not None and names[me] == task.agent and len(text) >= later[0]:
            role, last = later[1], None
        for style, p_style in _styles(task, role, last):
            for words, new_mood, p_turn in _turns(task, role, style, mood, silent[me]):
                new_text = (*text, names[me], ":", *split_words(words), "\n")
                if p_style * p_turn:
                    unfinished.append(
                        (
                            new_text,
                            probability * p_style * p_turn,
                            new_mood,
                            _put(styles, me, style),
                            _put(silent, me, not words),
                            turn + 1,
                        )
                    )


def _put(pair, place, value):
    return (value, pair[1]) if place == 0 else (pair[0], value)


def _styles(task, role, last):
    redraw = Fraction(1) if last is None else Fraction(task.style_redraw)
    total = sum(Fraction(w) for w in role.styles.values())
    for style in task.styles:
        fresh = Fraction(role.styles.get(style, 0)) / total
        yield style, redraw * fresh + (1 - redraw) * (style == last)


def _turns(task, role, style_name, mood, was_silent):
    style = task.styles[style_name]
    quiet = Fraction(style.silence.unprompted)
    if mood == "empty":
        quiet = Fraction(style.silence.once_silent if was_silent else style.silence.after_empty)
    if not role.may_be_silent:
        quiet = Fraction(0)
    yield "", "empty", quiet
    weights = style.replies[mood]
    for new_mood, weight in weights.items():
        for template in style.says[new_mood]:
            p = Fraction(weight) / sum(map(Fraction, weights.values())) / len(style.says[new_mood])
            for words, p_words in _expand(task, template):
                yield f" {words}", new_mood, (1 - quiet) * p * p_words


def _expand(task, template):
    slot = re.search(r"\{(\w+)\}", template)
    if slot is None:
        yield re.sub(r" +(?=[.!]|$)", "", " ".join(template.split())), Fraction(1)
        return
    phrases = task.slots[slot[1]]
    for phrase in phrases:
        # A phrase that is words gets its own blank; the blanks are tidied at the end.
        glue = " " if re.match(r"[\w{]", phrase) else ""
        written = f"{template[: slot.start()]}{glue}{phrase}{template[slot.end() :]}"
        for words, p in _expand(task, written):
            yield words, p / len(phrases)
