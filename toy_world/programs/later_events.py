"""The simplest event that is yet to occur (Statement.SIMPLE_EVENTS), in the language's own code.

At time t an event counts if it is false on every prefix of up to t steps and becomes true at some
later time of the same environment; one that never occurs does not count.

*The clock.* "Time n reached" occurs in every environment, at n. So
`K_clock(t) = min over n > t of len(latch(reached(steps, n)))` is an upper bound on the length of
the simplest later event everywhere, exact for the clock at any t, however large: numbers are
tried from short to long, and written-out towers are compared, never multiplied out.

*One history.* Every event of at most L bits is evaluated on the first T steps; the first time of
each is exact. An event that has not occurred by T is taken to occur later only if it is the
clock's, so that lengths found at t < T are those of events that really occur.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from theory.errors import InvalidArgumentError
from toy_world.programs import kernels as bitsets
from toy_world.programs.classes import classes_of_conditions
from toy_world.programs.columns import Domain, Situation
from toy_world.programs.language import Event, Language, Latch, Reached, Steps
from toy_world.programs.semantics import number_up_to

_ENOUGH_BITS: Final = 64
"""No search comes near: a tower above any t that fits into memory has about 20 bits."""


@dataclass(frozen=True, kw_only=True)
class LaterEvent:
    """An event that is yet to occur.

    Attributes:
        event: the event.
        bits: its length.
        first_time: after how many steps it occurs; None for a number too large to write out.
    """

    event: Event
    bits: int
    first_time: int | None


@cache
def simplest_later_clock_event(language: Language, t: int) -> LaterEvent:
    """The shortest event "time n reached" with n > t.

    Args:
        language: the language.
        t: at least 0.
    """
    if t < 0:
        raise InvalidArgumentError(f"t must be >= 0, got {t}")
    number = next(
        number
        for _, number in language.numbers.up_to(_ENOUGH_BITS)
        if number_up_to(number, t) is None
    )
    event = Latch(Reached(Steps(), number))
    return LaterEvent(
        event=event,
        bits=language.length(event),
        first_time=number_up_to(number, max(10**18, t**2)),
    )


def simplest_later_events(
    language: Language,
    actions: NDArray[np.int64],
    observations: NDArray[np.int64],
    times: Sequence[int],
    *,
    limit_bits: int,
) -> tuple[LaterEvent, ...]:
    """The shortest later event at each time, along one history.

    Exact among the events of at most `limit_bits` bits that occur within the history, and the
    clock's; of equally short ones the one that occurs first.

    Args:
        language: the language.
        actions: a_1 ... a_T.
        observations: o_1 ... o_T.
        times: each below T.
        limit_bits: L.
    """
    n_steps = len(actions)
    for t in times:
        if not 0 <= t < n_steps:
            raise InvalidArgumentError(f"times must lie in 0..{n_steps - 1}, got {t}")
    occurring = _first_times(language, actions, observations, limit_bits)
    lengths = np.array([event.bits for event in occurring])
    firsts = np.array([event.first_time for event in occurring])
    found = []
    for t in times:
        clock = simplest_later_clock_event(language, t)
        later = np.flatnonzero((firsts > t) & (lengths <= clock.bits))
        if later.size:
            best = later[np.lexsort((firsts[later], lengths[later]))[0]]
            found.append(min(occurring[best], clock, key=lambda event: event.bits))
        else:
            found.append(clock)
    return tuple(found)


def _first_times(
    language: Language,
    actions: NDArray[np.int64],
    observations: NDArray[np.int64],
    limit_bits: int,
) -> list[LaterEvent]:
    """Every class of events of at most `limit_bits` bits that occurs within the history."""
    domain = Domain(
        actions,
        observations,
        [Situation(n_steps=len(actions))],
        n_actions=language.n_actions,
        n_observations=language.n_observations,
        horizon=1,
    )
    conditions = classes_of_conditions(
        language, domain, limit_bits, keys=bitsets.hash_keys(domain.n_words)
    )
    (segment,) = domain.chain
    occurring = []
    for place, event in conditions.events.items():
        row = conditions.bits[place, segment.first_word : segment.end_word]
        held = np.unpackbits(row.view(np.uint8), bitorder="little")[: segment.n_columns]
        first = int(held.argmax())
        if held[first]:
            occurring.append(LaterEvent(event=event, bits=language.length(event), first_time=first))
    return occurring
