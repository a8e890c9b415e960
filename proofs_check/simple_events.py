"""Proposition 2 for the toy's event clock, with explicit constants.

"Time n reached" is an event in every environment, and unprecedented before n. So after t steps
the simplest event yet to occur costs at most `K(t) = min over n > t of len(reached(steps, n))`.
The language writes towers `2^^j` in `c + |delta(j)|` bits, hence with `j(t)` the least j with
`2^^j > t`, which is within 1 of `log* t`,

    K(t) <= c + |delta(j(t))|,    c = len(latch(reached(steps, 2^^1))) - |delta(1)|.

More arrows do better still. The language is total, so its lengths are computable, and "slower
than every computable function" cannot hold of them: the printed statement is about programs of a
universal machine.
"""

from collections.abc import Iterator
from typing import Final

from proofs_check.sabotage import Sabotage, returning
from proofs_check.verdict import (
    Check,
    Effort,
    Kind,
    Mutation,
    Outcome,
    Verdict,
    examine_all,
    verdict_of,
)
from theory import bounds
from theory.bounds import elias_delta_bits
from theory.paper import Statement
from toy_world.programs.events import simplest_later_clock_event
from toy_world.programs.language import Arrow, Language, Latch, Number, Plain, Reached, Steps
from toy_world.programs.semantics import number_up_to

LANGUAGE: Final = Language(n_actions=2, n_observations=2)


def clock_event_bits(number: Number) -> int:
    """The length of the event "time `number` reached"."""
    return LANGUAGE.length(Latch(Reached(Steps(), number)))


def simplest_later_clock_bits(t: int) -> int:
    """`K(t)`."""
    return simplest_later_clock_event(LANGUAGE, t).bits


def tower_height_above(t: int) -> int:
    """The least j with `2^^j > t`."""
    j = 1
    while number_up_to(Arrow(2, Plain(j)), t) is not None:
        j += 1
    return j


def _times(effort: Effort) -> Iterator[int]:
    dense = {Effort.SMALLEST: 40, Effort.DEFAULT: 300, Effort.THOROUGH: 3000}[effort]
    yield from range(1, dense)
    for exponent in range(9, 70):
        yield from (2**exponent - 1, 2**exponent, 2**exponent + 1)


def inverse_tower_bound(effort: Effort, *, fewer_bits: int = 0) -> Outcome:
    """`K(t) <= c - b + |delta(j(t))|` (b = 0)."""
    constant = clock_event_bits(Arrow(2, Plain(1))) - elias_delta_bits(1)

    def decide(t: int) -> Verdict:
        bound = constant - fewer_bits + elias_delta_bits(tower_height_above(t))
        return verdict_of(simplest_later_clock_bits(t) <= bound)

    return examine_all(_times(effort), decide, show=lambda t: f"t = {t}")


def never_decreases(effort: Effort, *, allowed_fall: int = 0) -> Outcome:
    """`K(t') >= K(t) + d` for t' > t (d = 0): an event yet to occur at t' was so at t."""
    times = list(_times(effort))
    costs = [simplest_later_clock_bits(t) for t in times]
    return examine_all(
        range(len(times) - 1),
        lambda i: verdict_of(costs[i + 1] >= costs[i] + allowed_fall),
        show=lambda i: f"t = {times[i]} and {times[i + 1]}: {costs[i]} and {costs[i + 1]} bits",
    )


def below_double_logarithm(effort: Effort, *, factor: int = 1) -> Outcome:
    """At `t = 2^(2^i)`, `K(t) <= f (K(2) + i)`, i = log2 log2 t (f = 1)."""
    towers = range(1, 4 if effort is Effort.SMALLEST else 7)
    start = simplest_later_clock_bits(2)
    return examine_all(
        towers,
        lambda i: verdict_of(simplest_later_clock_bits(2**2**i) * factor <= start + i),
        show=lambda i: f"t = 2^{2**i}",
    )


CHECKS: Final = (
    Check(
        label="simple-events-clock",
        words="In the toy language the simplest event yet to occur costs at most a constant plus "
        "the delta code of the inverse tower.",
        formula="K(t) <= c + |delta(min{j : 2^^j > t})|",
        kind=Kind.EXHAUSTIVE,
        scope="t to 300 and next to every power of 2 to 2^69; numbers tried from short to long",
        examine=inverse_tower_bound,
        mutations=(Mutation(name="3 bits fewer", constants={"fewer_bits": 3}),),
        statements=(Statement.SIMPLE_EVENTS,),
        least_informative=200,
        sabotages=(
            Sabotage(
                name="1 bit for every number",
                owner=bounds,
                attribute="elias_delta_bits",
                fault=returning(1),
            ),
        ),
    ),
    Check(
        label="simple-events-monotone",
        words="The simplest event yet to occur never gets simpler.",
        formula="t < t' => K(t) <= K(t')",
        kind=Kind.EXHAUSTIVE,
        scope="neighbours among the same times",
        examine=never_decreases,
        mutations=(Mutation(name="it grows each time", constants={"allowed_fall": 1}),),
        statements=(Statement.SIMPLE_EVENTS,),
    ),
    Check(
        label="simple-events-printed",
        words="On a universal machine the simplest unprecedented event yet to occur grows slower "
        "than every computable function that tends to infinity.",
        formula="K(t) = o(f(t)) for every computable f -> inf",
        kind=Kind.LITERATURE,
        scope="evaluated in the toy language against log2 log2 t only, t = 2^2 ... 2^64",
        examine=below_double_logarithm,
        mutations=(Mutation(name="half of it", constants={"factor": 2}),),
        statements=(Statement.SIMPLE_EVENTS,),
        source="the paper, Proposition 2; not provable in a total language",
    ),
)
