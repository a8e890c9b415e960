"""Vocabularies hold exactly the events that an interpreter finds, one by one."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings

from tests.toy_world.program_examples import worlds
from theory.errors import InvalidArgumentError
from toy_world.programs.columns import ColumnLayout, QueryPoint
from toy_world.programs.language import Language
from toy_world.programs.semantics import has_happened, holds, trace_of
from toy_world.programs.vocabulary import Meaning, vocabulary

LIMIT = 9


def events_one_by_one(language, limit):
    """(meaning, part, action, bits) of every event."""
    for action in range(language.n_actions):
        left = limit - language.actions.length(action)
        for meaning in Meaning:
            code = language.predicates if meaning is Meaning.NOW else language.events
            for n_bits, part in code.up_to(left - len(meaning.value)):
                bits = len(meaning.value) + n_bits + language.actions.length(action)
                yield meaning, part, action, bits


def is_met(meaning, part, history, sizes):
    if meaning is Meaning.NOW:
        return holds(part, trace_of(part, history, **sizes))
    return has_happened(part, trace_of(part, history, **sizes)) == (meaning is Meaning.SINCE)


@settings(max_examples=15)
@given(worlds(max_steps=4, horizon=1))
def test_every_event_is_there_once_and_met_where_its_words_say(world):
    language, history, layout = world
    sizes = {"n_actions": layout.n_actions, "n_observations": layout.n_observations}
    found = vocabulary(language, layout, LIMIT)
    (*_, point), (*_, tree) = layout.points, layout.trees
    end = history[: 2 * point.n_steps] + point.extra
    prefixes = [history[: 2 * t] for t in range(layout.n_steps)]
    on_chain = np.concatenate(
        [np.zeros((len(found.met), 0), dtype=bool)]
        + [layout.unpack(found.met, segment) for segment in layout.chain],
        axis=1,
    )
    at_end = layout.unpack(found.met, tree)[:, 0]
    ours = Counter()
    for c, row in enumerate(found.numbers):
        for action, of_length in enumerate(row):
            key = (*on_chain[c].tolist(), bool(at_end[c])), action
            for bits, n in enumerate(of_length):
                ours[(*key, bits)] += int(n)
    theirs = Counter()
    for meaning, part, action, bits in events_one_by_one(language, LIMIT):
        met = tuple(is_met(meaning, part, h, sizes) for h in [*prefixes, end])
        theirs[met, action, bits] += 1
    assert +ours == theirs
    assert found.n_events == theirs.total()
    by_hand = sum(Fraction(n, 2**bits - 1) for (_, _, bits), n in theirs.items())
    assert found.prior_odds_sum == by_hand


@pytest.fixture(scope="module")
def found():
    language = Language(n_actions=3, n_observations=2)
    layout = ColumnLayout(
        [0, 1, 2], [0, 1, 1], [QueryPoint(n_steps=3)], n_actions=3, n_observations=2, horizon=2
    )
    return vocabulary(language, layout, 12)


def test_the_shortest_event_of_a_class_is_one_of_it(found):
    language, layout = found.language, found.layout
    sizes = {"n_actions": 3, "n_observations": 2}
    history = (0, 0, 1, 1, 2, 1)
    for c, condition in enumerate(found.conditions):
        met = is_met(condition.meaning, condition.part, history, sizes)
        assert met == layout.unpack(found.met[c : c + 1], layout.trees[0])[0, 0]
        assert condition.bits(language) == int((found.counts[c] > 0).argmax())
    assert len(np.unique(found.met, axis=0)) == len(found.met)


def test_the_code_leaves_no_room_and_takes_none_twice():
    """The mass of events of up to n bits goes to 1, as that of the language's programs does."""
    language = Language(n_actions=2, n_observations=2)
    for limit in (6, 10, 14):
        mass = sum(Fraction(1, 2**bits) for *_, bits in events_one_by_one(language, limit))
        conditions = [
            Fraction(1, 2 ** len(meaning.value))
            * sum(
                Fraction(1, 2**bits)
                for bits, _ in language.predicates.up_to(limit - 1 - len(meaning.value))
            )
            for meaning in Meaning
        ]
        assert mass == sum(conditions) < 1  # both actions have 1 bit
    assert sum(Fraction(1, 2 ** len(meaning.value)) for meaning in Meaning) == 1


def test_events_read_like_sentences(found):
    shown = {found.show(c, 2) for c in range(len(found.conditions))}
    assert "now ends(o1), then a2" in shown
    assert all(text.startswith(("now ", "since ", "before ")) for text in shown)
    assert 0 < found.included.sum() < found.included.size
    assert (found.numbers.sum(axis=2) > 0).tolist() == found.included.tolist()


def test_what_is_met_before_is_what_is_not_met_since(found):
    """At equal lengths: an event has happened, or it has not."""
    met = {row.tobytes() for row in found.met}
    everything = found.layout.everything
    for row, condition in zip(found.met, found.conditions, strict=True):
        if condition.meaning is not Meaning.NOW:
            assert (everything & ~row).tobytes() in met


def test_a_vocabulary_without_words_is_refused():
    layout = ColumnLayout([], [], [QueryPoint(n_steps=0)], n_actions=2, n_observations=2, horizon=1)
    with pytest.raises(InvalidArgumentError, match="no event has at most 3 bits; allow more"):
        vocabulary(Language(n_actions=2, n_observations=2), layout, 3)
