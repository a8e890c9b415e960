"""The shortest event that is unprecedented at a situation and occurs there.

An event `latch(P)` is unprecedented at h if P is false at every proper prefix of h, and occurs if
P is true at h. To find the shortest one, not every predicate need be tried:

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
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory.errors import InvalidArgumentError
from toy_world.programs import kernels as bitsets
from toy_world.programs.classes import Conditions
from toy_world.programs.columns import Domain
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
from toy_world.programs.semantics import shortest_number


@dataclass(frozen=True, kw_only=True)
class Unprecedented:
    """An event that is unprecedented at a situation and occurs there.

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
    language: Language, domain: Domain, conditions: Conditions
) -> tuple[Unprecedented, ...]:
    """The shortest unprecedented event at each situation of a domain.

    Args:
        language: the language.
        domain: the situations; each of them after at least one step.
        conditions: all conditions up to some length, on this domain.

    Raises:
        InvalidArgumentError: a situation without a proper prefix, or conditions of fewer bits
            than every `did(a)` needs.
    """
    needed = max(language.length(Did(a)) for a in range(language.n_actions))
    if conditions.limit_bits < needed:
        raise InvalidArgumentError(
            f"the search needs conditions of at least {needed} bits, got {conditions.limit_bits}"
        )
    for situation in domain.situations:
        if situation.n_steps == 0 and not situation.extra:
            raise InvalidArgumentError(
                "nothing is unprecedented at the empty history, which has no proper prefix; ask "
                "after at least one step"
            )
    found = []
    for index in range(len(domain.situations)):
        counters = _counters(language, domain, index)
        least = min(map(language.length, counters))
        found.append([*counters, *_suffixes(language, domain, index, least)])
    tags = {p.constructor: len(p.tag) for p in language.predicates.productions}
    stored = np.array(sorted(conditions.predicates), dtype=np.int64)
    lengths = (conditions.as_predicate[stored] > 0).argmax(axis=1)
    order = np.argsort(lengths, kind="stable")
    stored, lengths = stored[order], lengths[order]
    searched = conditions.limit_bits + tags[And] + int(lengths[0])
    bits = conditions.bits[stored]
    # Together with all columns, at a cost that makes up for the tag, a set stands for itself.
    pairs = _first_meetings(
        domain,
        np.concatenate([domain.everything[None], bits]),
        np.concatenate([[-tags[And]], lengths]),
        searched - tags[And],
    )
    negated = _first_meetings(
        domain, ~bits & domain.everything, lengths, searched - tags[Not] - tags[Or]
    )
    predicates = [conditions.predicates[c] for c in stored.tolist()]
    for place, (i, k), (j, m) in zip(found, pairs.tolist(), negated.tolist(), strict=True):
        if i == 0:
            place.append(predicates[k - 1])
        elif i > 0:
            place.append(And(predicates[i - 1], predicates[k - 1]))
        if j >= 0:
            place.append(Not(Or(predicates[j], predicates[m])))
    return tuple(_shortest(language, place, searched) for place in found)


def _shortest(language: Language, found: list[Predicate], searched_bits: int) -> Unprecedented:
    events = [Latch(predicate) for predicate in found]
    bits, event = min(((language.length(e), e) for e in events), key=lambda pair: pair[0])
    return Unprecedented(event=event, bits=bits, searched_bits=searched_bits)


def _counters(language: Language, domain: Domain, index: int) -> list[Predicate]:
    """Counters that have just reached their value: the clock, and those of the last symbols."""
    action, observation = domain.last_symbols(index, 2)
    counters: tuple[Counter, ...] = (Steps(), Seen(observation), Done(action))
    return [
        Reached(counter, shortest_number(language.numbers, domain.count_at(index, counter)))
        for counter in counters
    ]


def _suffixes(
    language: Language, domain: Domain, index: int, less_than_bits: int
) -> list[Predicate]:
    """The shortest suffix of the situation's history that is new there, if it is short."""
    n_symbols = 2 * domain.count_at(index, Steps())
    for length in range(1, n_symbols + 1):
        suffix = Ends(domain.last_symbols(index, length))
        if language.length(suffix) >= less_than_bits:
            break
        bits = domain.holding(suffix)[None]
        if _first_meetings(domain, bits, np.zeros(1, dtype=np.int64), 0)[index, 0] == 0:
            return [suffix]
    return []


def _first_meetings(
    domain: Domain, bits: NDArray[np.uint64], lengths: NDArray[np.int64], limit: int
) -> NDArray[np.int64]:
    """For each situation the shortest pair of sets that meet there first; see `bitsets`."""
    prefixes = [domain.proper_prefixes(index) for index in range(len(domain.situations))]
    pairs: NDArray[np.int64]
    pairs, _ = bitsets.first_meetings(
        bits,
        lengths,
        limit,
        domain.chain[-1].end_word if domain.chain else 0,
        domain.column_nodes,
        np.array([last for last, _ in prefixes]),
        np.concatenate([columns for _, columns in prefixes]),
        np.cumsum([0, *(len(columns) for _, columns in prefixes)]),
        np.array([tree.columns.start for tree in domain.trees]),
    )
    return pairs
