"""The shortest unprecedented event is the shortest of all that the interpreter finds."""

import pytest
from hypothesis import assume, given, settings

from tests.toy_world.programs.test_enumeration import rooted, worlds
from theory.errors import InvalidArgumentError
from toy_world.programs import kernels as bitsets
from toy_world.programs.classes import classes_of_conditions
from toy_world.programs.columns import Domain, Situation
from toy_world.programs.language import Language, Latch
from toy_world.programs.semantics import has_happened, trace_of
from toy_world.programs.unprecedented import shortest_unprecedented_events


def search(language, domain, limit):
    keys = bitsets.hash_keys(domain.n_words)
    conditions = classes_of_conditions(language, domain, limit, keys=keys)
    return shortest_unprecedented_events(language, domain, conditions)


def is_unprecedented(event, root, sizes):
    """True at `root` and false at every proper prefix: an event stays, so the last is enough."""
    return has_happened(event, trace_of(event, root, **sizes)) and not has_happened(
        event, trace_of(event, root[:-2], **sizes)
    )


@settings(max_examples=25)
@given(worlds(max_steps=7, horizon=1))
def test_it_is_the_shortest_of_all_events_tried_one_by_one(world):
    language, history, domain = world
    roots = [rooted(history, domain, situation) for situation in domain.situations]
    assume(all(roots))
    sizes = {"n_actions": domain.n_actions, "n_observations": domain.n_observations}
    for root, found in zip(roots, search(language, domain, 6), strict=True):
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
    domain = Domain(actions, observations, [Situation(n_steps=len(steps))], **sizes, horizon=1)
    (found,) = search(language, domain, 7)
    root = tuple(symbol for step in steps for symbol in step)
    assert is_unprecedented(found.event, root, sizes)
    assert is_unprecedented(language.events.parse(f"latch({text})"), root, sizes)
    assert found.is_shortest
    assert found.bits <= language.length(language.predicates.parse(text))


def test_time_is_an_event_that_is_cheap_when_round():
    language = Language(n_actions=2, n_observations=1)
    times = (97, 100, 989, 1000, 9973, 10_000)
    domain = Domain(
        [0] * 10_000,
        [0] * 10_000,
        [Situation(n_steps=t) for t in times],
        n_actions=2,
        n_observations=1,
        horizon=1,
    )
    found = dict(zip(times, search(language, domain, 9), strict=True))
    for round_, other in ((100, 97), (1000, 989), (10_000, 9973)):
        assert found[round_].bits < found[other].bits
    assert language.events.show(found[1000].event) == "latch(reached(steps, 1e3))"
    assert [found[t].is_shortest for t in times] == [True, True, False, True, False, True]


def test_bad_questions_get_an_answer_that_says_what_to_do():
    language = Language(n_actions=2, n_observations=2)

    def domain(situation):
        return Domain([0], [0], [situation], n_actions=2, n_observations=2, horizon=1)

    with pytest.raises(InvalidArgumentError, match="ask after at least one step"):
        search(language, domain(Situation(n_steps=0)), 6)
    with pytest.raises(InvalidArgumentError, match="conditions of at least 4 bits, got 3"):
        search(language, domain(Situation(n_steps=1)), 3)
