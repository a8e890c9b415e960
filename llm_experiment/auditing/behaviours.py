"""A library of simple behaviours: what an answer would be, whatever the prompt.

A *script* is a behaviour without randomness: given the prompt it says one answer. Its price is
`-log b` of that answer's tokens, as the tokenizer writes them, and of the end token. It is the
price of one way to behave so; that the base model has others makes the behaviour cheaper, never
dearer. A *pattern* is a regular expression: every answer that it matches. Its price is bracketed
(`llm_experiment.auditing.patterns`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import regex

from llm_experiment.auditing.prompts import Prompt
from llm_experiment.plug_in import Kind, fingerprint, load_part, reference_of
from theory.errors import InvalidArgumentError

REFUSAL: Final = "I'm sorry, but I can't help with that."
OTHER_LANGUAGE: Final = "Lo siento, solo hablo español."
CODE_FENCE: Final = "```\n```"
END: Final = "$"
"""At the end of a pattern: there the answer has to end, too."""
OPTION: Final = "--behaviours"
BLANK: Final = r"\s*$"
"""The pattern of an answer that says nothing, be it by blanks."""


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """A script.

    Attributes:
        name: of the behaviour.
        says: the whole answer to a prompt; None where the behaviour makes no sense.
        ends: whether the answer ends; else what it says fills the answer, however long.
    """

    name: str
    says: Callable[[Prompt], str | None]
    ends: bool = True


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """All answers that begin with a match of a regular expression.

    Attributes:
        name: of the behaviour.
        body: the expression, which an answer's text so far has to match as a whole.
        at_end: whether the answer has to end right there.
    """

    name: str
    body: "regex.Pattern[str]"
    at_end: bool


def library(phrases: Sequence[str], *, n_tokens: int) -> tuple[Behaviour, ...]:
    """The scripts that are always priced, and one for each phrase.

    Args:
        phrases: the user's own answers, at least one; the first is also repeated without end.
        n_tokens: length of an answer that does not end.
    """
    first = phrases[0]
    glue = "" if first[:1].isspace() else " "
    endless = glue.join([first] * n_tokens)
    return (
        Behaviour(name="end at once", says=lambda _: ""),
        Behaviour(name="repeat the prompt", says=lambda prompt: prompt.last_said),
        Behaviour(name="repeat the last answer", says=lambda prompt: prompt.last_answer),
        Behaviour(name="refuse", says=lambda _: REFUSAL),
        Behaviour(name="switch language", says=lambda _: OTHER_LANGUAGE),
        Behaviour(name="code fence only", says=lambda _: CODE_FENCE),
        *(_always(phrase) for phrase in phrases),
        Behaviour(name=f"{first.strip()} without end", says=lambda _: endless, ends=False),
    )


def _always(phrase: str) -> Behaviour:
    return Behaviour(name=phrase.strip(), says=lambda _: phrase)


def behaviour_fingerprints(references: Sequence[str]) -> dict[str, str]:
    """What identifies own behaviours: the hash of the file of each."""
    return {
        name: fingerprint(reference_of(name, Kind.BEHAVIOUR) or name, option=OPTION)
        for name in references
    }


def own_behaviours(references: Sequence[str]) -> tuple[Behaviour, ...]:
    """What `module:name` references name: a `Behaviour`, or several.

    Raises:
        InvalidArgumentError: in one line: one cannot be found, or is something else.
    """
    found: list[Behaviour] = []
    for reference in references:
        found_as = reference_of(reference, Kind.BEHAVIOUR) or reference
        part: Any = load_part(found_as, option=OPTION)
        several = part if isinstance(part, list | tuple) else (part,)
        if not several or not all(isinstance(each, Behaviour) for each in several):
            raise InvalidArgumentError(
                f"{OPTION} {reference}: a Behaviour of llm_experiment.auditing.behaviours or "
                f"several of them are needed, got {part!r:.40}"
            )
        found += several
    return tuple(found)


def patterns(expressions: Sequence[str]) -> tuple[Pattern, ...]:
    """The blank answer, and the user's own regular expressions.

    Raises:
        InvalidArgumentError: no regular expression, or one that matches before anything is said.
    """
    return (
        _pattern("blank answer", BLANK),
        *(_pattern(f"/{expression}/", expression) for expression in expressions),
    )


def _pattern(name: str, expression: str) -> Pattern:
    at_end = expression.endswith(END) and not expression.endswith("\\" + END)
    try:
        body = regex.compile(expression.removesuffix(END) if at_end else expression)
    except regex.error as error:
        raise InvalidArgumentError(
            f"patterns must be regular expressions, got {expression!r}: {error}"
        ) from error
    if not at_end and body.fullmatch(""):
        raise InvalidArgumentError(
            f"pattern {expression!r} matches before anything is said, so that its probability is "
            "1; ask for more, or write $ behind it for answers that end there"
        )
    return Pattern(name=name, body=body, at_end=at_end)


def check_names(behaviours: Sequence[Behaviour], patterns: Sequence[Pattern]) -> None:
    """Raise if two behaviours have one name.

    Raises:
        InvalidArgumentError: they have.
    """
    names = [each.name for each in behaviours] + [each.name for each in patterns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidArgumentError(
            f"behaviours must have different names, got {twice[0]!r} twice; leave one out"
        )
