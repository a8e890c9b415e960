"""Both searches for the simplest event find what an interpreter finds on every program."""

import numpy as np
import pytest
from hypothesis import assume, given, settings

from tests.toy_world.program_examples import rooted, worlds
from theory.errors import InvalidArgumentError
from toy_world.programs.classes import classes_of_conditions
from toy_world.programs.columns import ColumnLayout, QueryPoint
from toy_world.programs.events import (
    UnprecedentedEvent,
    shortest_unprecedented_events,
    simplest_later_clock_event,
    simplest_later_events,
)
from toy_world.programs.language import Language, Latch, Round
from toy_world.programs.semantics import (
    Trace,
    first_time,
    has_happened,
    latched_in,
    number_up_to,
    trace_of,
)

# New now.


def search(language, layout, limit):
    conditions = classes_of_conditions(language, layout, limit)
    return shortest_unprecedented_events(language, layout, conditions)


def is_unprecedented(event, root, sizes):
    """True at `root` and false at every proper prefix: an event stays, so the last is enough."""
    return has_happened(event, trace_of(event, root, **sizes)) and not has_happened(
        event, trace_of(event, root[:-2], **sizes)
    )


@settings(max_examples=25)
@given(worlds(max_steps=7, horizon=1))
def test_it_is_the_shortest_of_all_events_tried_one_by_one(world):
    language, history, layout = world
    roots = [rooted(history, point) for point in layout.points]
    assume(all(roots))
    sizes = {"n_actions": layout.n_actions, "n_observations": layout.n_observations}
    for root, found in zip(roots, search(language, layout, 6), strict=True):
        assert is_unprecedented(found.event, root, sizes)
        assert language.length(found.event) == found.bits
        shortest = next(
            n_bits
            for n_bits, predicate in language.predicates.up_to(14)
            if is_unprecedented(Latch(predicate), root, sizes)
        )
        if found.is_shortest:
            assert found.bits == shortest
        else:
            assert shortest > found.searched_bits


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        # a1 and o1 have occurred, but never in one step.
        ([(0, 0), (0, 1), (1, 0), (0, 1), (1, 0)] * 3 + [(1, 1)], "and(did(a1), ends(o1))"),
        ([(1, 0), (1, 1), (0, 1)] * 4 + [(0, 0)], "ends(a0 o0)"),
    ],
)
def test_combinations_of_familiar_things_can_be_new(steps, text):
    language = Language(n_actions=2, n_observations=2)
    sizes = {"n_actions": 2, "n_observations": 2}
    actions, observations = zip(*steps, strict=True)
    layout = ColumnLayout(
        actions, observations, [QueryPoint(n_steps=len(steps))], **sizes, horizon=1
    )
    (found,) = search(language, layout, 7)
    root = tuple(symbol for step in steps for symbol in step)
    assert is_unprecedented(found.event, root, sizes)
    assert is_unprecedented(language.events.parse(f"latch({text})"), root, sizes)
    assert found.is_shortest
    assert found.bits <= language.length(language.predicates.parse(text))


def test_time_is_an_event_that_is_cheap_when_round():
    language = Language(n_actions=2, n_observations=1)
    times = (97, 100, 989, 1000, 9973, 10_000)
    layout = ColumnLayout(
        [0] * 10_000,
        [0] * 10_000,
        [QueryPoint(n_steps=t) for t in times],
        n_actions=2,
        n_observations=1,
        horizon=1,
    )
    found = dict(zip(times, search(language, layout, 9), strict=True))
    for round_, other in ((100, 97), (1000, 989), (10_000, 9973)):
        assert found[round_].bits < found[other].bits
    assert language.events.show(found[1000].event) == "latch(reached(steps, 1e3))"
    assert [found[t].is_shortest for t in times] == [True, True, False, True, False, True]


def test_what_cannot_be_new_is_not_searched_for():
    language = Language(n_actions=2, n_observations=2)

    def layout(point):
        return ColumnLayout([0], [0], [point], n_actions=2, n_observations=2, horizon=1)

    with pytest.raises(InvalidArgumentError, match="ask after at least one step"):
        search(language, layout(QueryPoint(n_steps=0)), 6)
    with pytest.raises(InvalidArgumentError, match="conditions of at least 4 bits, got 3"):
        search(language, layout(QueryPoint(n_steps=1)), 3)


# Yet to come.

LANGUAGE = Language(n_actions=2, n_observations=2)
BITS = 9


def naive_first_time(event, actions, observations):
    trace = Trace(n_actions=2, n_observations=2, latched=latched_in(event))
    return first_time(event, zip(actions, observations, strict=True), trace=trace)


@pytest.mark.parametrize("seed", [0, 1])
def test_along_a_history_every_short_event_is_found_by_plain_evaluation(seed):
    rng = np.random.default_rng(seed)
    actions, observations = rng.integers(0, 2, size=(2, 60))
    times = [0, 1, 2, 5, 12, 40]
    # An event that occurs with the history's last observation is not seen before its end.
    first = {
        event: (bits, naive_first_time(event, actions[:-1], observations[:-1]))
        for bits, event in LANGUAGE.events.up_to(BITS)
    }
    found = simplest_later_events(LANGUAGE, actions, observations, times, limit_bits=BITS)
    for t, later in zip(times, found, strict=True):
        occurring = [bits for bits, time in first.values() if time is not None and time > t]
        clock = simplest_later_clock_event(LANGUAGE, t).bits
        assert later.bits == min([*occurring, clock])
        assert later.first_time > t


@pytest.mark.parametrize("t", [0, 1, 9, 10, 99, 1000, 65535, 10**6])
def test_the_clock_is_searched_through_every_number(t):
    later = simplest_later_clock_event(LANGUAGE, t)
    assert number_up_to(later.event.predicate.threshold, t) is None
    cheaper = (
        number
        for bits, event in LANGUAGE.events.up_to(min(later.bits - 1, 10))
        if type(event.predicate).__name__ == "Reached"
        and type(event.predicate.counter).__name__ == "Steps"
        for number in [event.predicate.threshold]
    )
    assert all(number_up_to(number, t) is not None for number in cheaper)


@pytest.mark.parametrize("times", [[-1], [60]])
def test_times_outside_the_history_are_refused(times):
    history = np.zeros(60, dtype=np.int64)
    with pytest.raises(InvalidArgumentError, match=rf"in 0\.\.59, got {times[0]}"):
        simplest_later_events(LANGUAGE, history, history, times, limit_bits=5)


def test_a_negative_time_is_refused():
    with pytest.raises(InvalidArgumentError, match="t must be >= 0, got -2"):
        simplest_later_clock_event(LANGUAGE, -2)


@pytest.mark.parametrize("t", [2**65536, 2**65536 - 1], ids=["2^65536", "one less"])
def test_the_clock_s_event_is_found_however_large_the_time(t):
    """A number of more digits than Python prints; 2^^5 = 2^65536 is the first that may be late."""
    later = simplest_later_clock_event(LANGUAGE, t)
    number = later.event.predicate.threshold
    assert number_up_to(number, t) is None
    assert all(
        number_up_to(other, t) is not None
        for bits, other in LANGUAGE.numbers.up_to(LANGUAGE.numbers.length(number) - 1)
    )
    assert number_up_to(Round(3, 2), 300) == 300
    assert number_up_to(Round(3, 2), 299) is None


def test_an_event_is_the_shortest_if_all_shorter_ones_were_tried():
    claims = [
        UnprecedentedEvent(event=None, bits=bits, searched_bits=7).is_shortest for bits in (7, 8, 9)
    ]
    assert claims == [True, True, False]
