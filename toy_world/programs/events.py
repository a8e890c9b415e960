"""The simplest event that is new now, and the simplest that is yet to come.

(Statement.SIMPLE_EVENTS, in the language's own code.) Both are searches for the shortest program
`latch(P)`: in the first P must be false on the past and true now, in the second false until now
and true later.

**New now.** An event is *unprecedented* at h if P is false at every proper prefix of h, and occurs
if P is true at h. To find the shortest one, not every predicate need be tried:

- `or(P, Q)` is true at h because P or Q is, which was then false before: shorter.
- `ever(P)` first holds when P does.
- `not(P)` for elementary P is true at the empty history. `not(ever(P))` cannot become true.
  `not(and(P, Q))` first holds where one part first fails, so `not` of that part is shorter, and
  `not(not(P))` means P. There remains `not(or(P, Q))`.
- Elementary events: a counter is at least n for the first time when it reaches n, so the shortest
  way to write its value at h decides (`every` never costs less than `reached`); of the
  suffixes of h only the shortest that is new.

So besides the stored conditions and the elementary events only `and(P, Q)` and `not(or(P, Q))` of
stored P and Q are searched. This finds every event of at most `searched_bits` bits, and longer
elementary ones beyond: then the answer is an upper bound on the shortest length.

**Yet to come.** At time t an event counts if it is false on every prefix of up to t steps and
becomes true at some later time of the same environment; one that never occurs does not count.

- *The clock.* "Time n reached" occurs in every environment, at n. So
  `K_clock(t) = min over n > t of len(latch(reached(steps, n)))` is an upper bound on the length of
  the simplest later event everywhere, exact for the clock at any t, however large: numbers are
  tried from short to long, and written-out towers are compared, never multiplied out.
- *One history.* Every event of at most L bits is evaluated on the first T steps; the first time of
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
from toy_world.programs import kernels
from toy_world.programs.classes import Conditions, classes_of_conditions
from toy_world.programs.columns import ColumnLayout, QueryPoint
from toy_world.programs.language import (
    And,
    Counter,
    Did,
    Done,
    Ends,
    Event,
    Language,
    Latch,
    Not,
    Or,
    Predicate,
    Reached,
    Seen,
    Steps,
)
from toy_world.programs.semantics import number_up_to, shortest_number

_ENOUGH_BITS: Final = 64
"""No search comes near: a tower above any t that fits into memory has about 20 bits."""


@dataclass(frozen=True, kw_only=True)
class UnprecedentedEvent:
    """An event that is unprecedented at a point and occurs there.

    Attributes:
        event: the shortest one found.
        bits: its length.
        searched_bits: every event up to this length was tried.
    """

    event: Event
    bits: int
    searched_bits: int

    @property
    def is_shortest(self) -> bool:
        """Whether no shorter one exists; otherwise it is longer than `searched_bits`."""
        return self.bits <= self.searched_bits + 1


def shortest_unprecedented_events(
    language: Language, layout: ColumnLayout, conditions: Conditions
) -> tuple[UnprecedentedEvent, ...]:
    """The shortest unprecedented event at each query point of a layout.

    Args:
        language: the language.
        layout: the points; each of them after at least one step.
        conditions: all conditions up to some length, on this layout.

    Raises:
        InvalidArgumentError: a point without a proper prefix, or conditions of fewer bits
            than every `did(a)` needs.
    """
    needed = max(language.length(Did(a)) for a in range(language.n_actions))
    if conditions.limit_bits < needed:
        raise InvalidArgumentError(
            f"the search needs conditions of at least {needed} bits, got {conditions.limit_bits}"
        )
    for point in layout.points:
        if point.n_steps == 0 and not point.extra:
            raise InvalidArgumentError(
                "nothing is unprecedented at the empty history, which has no proper prefix; ask "
                "after at least one step"
            )
    candidates = [_elementary(language, layout, index) for index in range(len(layout.points))]
    tags = {p.constructor: len(p.tag) for p in language.predicates.productions}
    stored = np.array(sorted(conditions.predicates), dtype=np.int64)
    lengths = (conditions.as_predicate[stored] > 0).argmax(axis=1)
    order = np.argsort(lengths, kind="stable")
    stored, lengths = stored[order], lengths[order]
    searched = conditions.limit_bits + tags[And] + int(lengths[0])
    sets = conditions.bits[stored]
    # `and(P, Q)` is true where two sets meet. Set 0 is all columns, at a cost that makes up for
    # the tag of `and`: together with it a set stands for itself.
    both = _first_meetings(
        layout,
        np.concatenate([layout.everything[None], sets]),
        np.concatenate([[-tags[And]], lengths]),
        searched - tags[And],
    )
    # `not(or(P, Q))` is true where their complements meet.
    neither = _first_meetings(
        layout, ~sets & layout.everything, lengths, searched - tags[Not] - tags[Or]
    )
    predicates = [conditions.predicates[c] for c in stored.tolist()]
    for own, (i, k), (j, m) in zip(candidates, both.tolist(), neither.tolist(), strict=True):
        if i == 0:
            own.append(predicates[k - 1])
        elif i > 0:
            own.append(And(predicates[i - 1], predicates[k - 1]))
        if j >= 0:
            own.append(Not(Or(predicates[j], predicates[m])))
    return tuple(_shortest(language, own, searched) for own in candidates)


def _shortest(language: Language, found: list[Predicate], searched_bits: int) -> UnprecedentedEvent:
    events = [Latch(predicate) for predicate in found]
    bits, event = min(((language.length(e), e) for e in events), key=lambda pair: pair[0])
    return UnprecedentedEvent(event=event, bits=bits, searched_bits=searched_bits)


def _elementary(language: Language, layout: ColumnLayout, index: int) -> list[Predicate]:
    """The shortest elementary predicates that are true at a point and nowhere before."""
    counters = _counters(language, layout, index)
    least = min(map(language.length, counters))
    return [*counters, *_suffixes(language, layout, index, least)]


def _counters(language: Language, layout: ColumnLayout, index: int) -> list[Predicate]:
    """Counters that have just reached their value: the clock, and those of the last symbols."""
    action, observation = layout.last_symbols(index, 2)
    counters: tuple[Counter, ...] = (Steps(), Seen(observation), Done(action))
    return [
        Reached(counter, shortest_number(language.numbers, layout.count_at(index, counter)))
        for counter in counters
    ]


def _suffixes(
    language: Language, layout: ColumnLayout, index: int, less_than_bits: int
) -> list[Predicate]:
    """The shortest suffix of the point's history that is new there, if it is short."""
    n_symbols = 2 * layout.count_at(index, Steps())
    for length in range(1, n_symbols + 1):
        suffix = Ends(layout.last_symbols(index, length))
        if language.length(suffix) >= less_than_bits:
            break
        where = layout.holding(suffix)[None]
        if _first_meetings(layout, where, np.zeros(1, dtype=np.int64), 0)[index, 0] == 0:
            return [suffix]
    return []


def _first_meetings(
    layout: ColumnLayout, sets: NDArray[np.uint64], lengths: NDArray[np.int64], limit: int
) -> NDArray[np.int64]:
    """For each point the shortest pair of sets that meet there first, (n_points, 2)."""
    before = [layout.proper_prefixes(index) for index in range(len(layout.points))]
    prefixes = kernels.ProperPrefixes(
        root_columns=np.array([tree.columns.start for tree in layout.trees]),
        last_on_chain=np.array([last for last, _ in before]),
        path_columns=np.concatenate([columns for _, columns in before]),
        path_starts=np.cumsum([0, *(len(columns) for _, columns in before)]),
    )
    pairs: NDArray[np.int64] = kernels.first_meetings(sets, lengths, limit, layout.nodes, prefixes)
    return pairs


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
    layout = ColumnLayout(
        actions,
        observations,
        [QueryPoint(n_steps=len(actions))],
        n_actions=language.n_actions,
        n_observations=language.n_observations,
        horizon=1,
    )
    conditions = classes_of_conditions(language, layout, limit_bits)
    (segment,) = layout.chain
    occurring = []
    for place, event in conditions.events.items():
        row = conditions.bits[place, segment.first_word : segment.end_word]
        held = np.unpackbits(row.view(np.uint8), bitorder="little")[: segment.n_columns]
        first = int(held.argmax())
        if held[first]:
            occurring.append(LaterEvent(event=event, bits=language.length(event), first_time=first))
    return occurring
