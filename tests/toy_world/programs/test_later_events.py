"""The simplest event yet to occur, against a search that knows nothing of bitsets or towers."""

import numpy as np
import pytest

from theory.errors import InvalidArgumentError
from toy_world.programs.language import Language
from toy_world.programs.later_events import simplest_later_clock_event, simplest_later_events
from toy_world.programs.semantics import Trace, first_time, latched_in, number_up_to

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
