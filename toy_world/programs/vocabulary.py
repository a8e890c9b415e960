"""Events of which an action is a part: "where this condition is met, the next action is x".

`theory.vetoes` speaks of events `(phi, v, x)`: a feature phi of the history has the value v, and
the next action is x. Here phi and v are a *condition* on the history, made of the language's
predicates and events, with a tag that says how it is meant:

    0  P    now: the predicate P holds,
    10 E    since: the event E has happened,
    11 E    before: the event E has not happened yet.

An event's code is that of its condition, and then the action's; this is a prefix code, complete
because the language's codes are, so that `2^-bits` over all events sums to 1.

A *vocabulary* is every event of up to some length on the histories of a layout, conditions that are
met at the same of them made one. Whether one of several such events is vetoed depends on the
shortest; how many of them are, on their numbers by length.
"""

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from theory.errors import InvalidArgumentError
from toy_world.programs.classes import Conditions, classes_of_conditions
from toy_world.programs.columns import Bits, ColumnLayout
from toy_world.programs.language import Event, Language, Predicate


class Meaning(Enum):
    """How a predicate or event is meant; the value is the tag."""

    NOW = "0"
    SINCE = "10"
    BEFORE = "11"


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A condition on the history.

    Attributes:
        meaning: how `part` is meant.
        part: a predicate if it is meant now, else an event.
    """

    meaning: Meaning
    part: Predicate | Event

    def bits(self, language: Language) -> int:
        """The length of its code."""
        return len(self.meaning.value) + language.length(self.part)

    def show(self, language: Language) -> str:
        """As a person reads it."""
        return f"{self.meaning.name.lower()} {language.show(self.part)}"


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Every event of at most `limit_bits` bits, by where its condition is met on a layout.

    Attributes:
        language: of the conditions.
        layout: the histories.
        limit_bits: n, of condition and action together.
        met: the columns at whose history each class of conditions is met, shape
            (n_conditions, n_words).
        counts: how many conditions of each class have each length, shape
            (n_conditions, limit_bits + 1).
        conditions: the shortest of each class.
    """

    language: Language
    layout: ColumnLayout
    limit_bits: int
    met: NDArray[np.uint64]
    counts: NDArray[np.int64]
    conditions: tuple[Condition, ...]

    @cached_property
    def action_bits(self) -> NDArray[np.int64]:
        """The length of each action's code, shape (|A|,)."""
        code = self.language.actions
        return np.array([code.length(a) for a in range(self.language.n_actions)])

    @cached_property
    def bits(self) -> NDArray[np.int64]:
        """The length of the shortest event of each class and action, (n_conditions, |A|)."""
        return np.asarray((self.counts > 0).argmax(axis=1)[:, None] + self.action_bits)

    @cached_property
    def numbers(self) -> NDArray[np.int64]:
        """How many events of each length, shape (n_conditions, |A|, limit_bits + 1)."""
        n = np.zeros((len(self.met), len(self.action_bits), self.limit_bits + 1), dtype=np.int64)
        for action, bits in enumerate(self.action_bits.tolist()):
            n[:, action, bits:] = self.counts[:, : self.limit_bits + 1 - bits]
        return n

    @property
    def included(self) -> NDArray[np.bool_]:
        """Whether some event of a class and action is short enough, (n_conditions, |A|)."""
        return self.bits <= self.limit_bits

    @property
    def n_events(self) -> int:
        """How many events there are."""
        return int(self.numbers.sum())

    @cached_property
    def prior_odds_sum(self) -> Fraction:
        """`sum_E s_E/(1 - s_E)` over all events, exact."""
        by_length = self.numbers.sum(axis=(0, 1)).tolist()
        return sum(
            (n * Fraction(1, 2**bits - 1) for bits, n in enumerate(by_length) if n), Fraction(0)
        )

    def show(self, condition: int, action: int) -> str:
        """An event as a person reads it."""
        shown = self.conditions[condition].show(self.language)
        return f"{shown}, then {self.language.actions.show(action)}"


def vocabulary(language: Language, layout: ColumnLayout, limit_bits: int) -> Vocabulary:
    """Every event of at most `limit_bits` bits.

    Args:
        language: the language; its alphabets are the layout's.
        layout: where conditions are compared.
        limit_bits: n.

    Raises:
        InvalidArgumentError: no event is so short.
    """
    shortest_action = min(language.actions.length(a) for a in range(language.n_actions))
    limit = limit_bits - shortest_action
    found = classes_of_conditions(language, layout, limit - len(Meaning.NOW.value))
    rows: list[Bits] = []
    counts: list[NDArray[np.int64]] = []
    conditions: list[Condition] = []
    for meaning in Meaning:
        for place, part in _parts(found, meaning):
            by_length = found.as_predicate if meaning is Meaning.NOW else found.as_event
            shifted = np.zeros(limit_bits + 1, dtype=np.int64)
            tag = len(meaning.value)
            shifted[tag : limit + 1] = by_length[place, : limit + 1 - tag]
            if shifted.any():
                held = found.bits[place]
                rows.append(layout.everything & ~held if meaning is Meaning.BEFORE else held)
                counts.append(shifted)
                conditions.append(Condition(meaning=meaning, part=part))
    if not rows:
        raise InvalidArgumentError(f"no event has at most {limit_bits} bits; allow more")
    met, place_of = np.unique(np.array(rows), axis=0, return_inverse=True)
    merged = np.zeros((len(met), limit_bits + 1), dtype=np.int64)
    np.add.at(merged, place_of.reshape(-1), np.array(counts))
    shortest: dict[int, Condition] = {}
    for place, condition in zip(place_of.reshape(-1).tolist(), conditions, strict=True):
        known = shortest.setdefault(place, condition)
        if condition.bits(language) < known.bits(language):
            shortest[place] = condition
    return Vocabulary(
        language=language,
        layout=layout,
        limit_bits=limit_bits,
        met=met,
        counts=merged,
        conditions=tuple(shortest[place] for place in range(len(met))),
    )


def _parts(found: Conditions, meaning: Meaning) -> list[tuple[int, Predicate | Event]]:
    if meaning is Meaning.NOW:
        return list(found.predicates.items())
    return list(found.events.items())
