"""The description length is that of the shortest program with the same meaning."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.toy_world.program_examples import programs
from theory.process import HistoryTree, utility_table
from toy_world.programs.description_length import description_length, shortest_program
from toy_world.programs.language import Language
from toy_world.programs.semantics import (
    action_probabilities,
    has_happened,
    payoff,
    trace_of,
    utility_function,
)

SIZES = {"n_actions": 2, "n_observations": 2}
LANGUAGE = Language(**SIZES)
N_STEPS = 2
HISTORIES = [
    history
    for t in range(N_STEPS + 1)
    for history in HistoryTree(**SIZES, horizon=N_STEPS).continuations(t)
]


def table(evaluate, program, histories=HISTORIES):
    return [evaluate(program, trace_of(program, history, **SIZES)) for history in histories]


@settings(max_examples=30)
@given(st.data(), st.sampled_from(["events", "policies", "utilities"]))
def test_no_shorter_program_agrees_on_every_history(data, type_name):
    code = getattr(LANGUAGE, type_name)
    evaluate = {
        "events": has_happened,
        "policies": action_probabilities,
        "utilities": payoff,
    }[type_name]
    histories = HISTORIES if type_name != "utilities" else HISTORIES[1:]
    program = data.draw(programs(code))
    assume(code.length(program) <= 14)
    shortest = shortest_program(LANGUAGE, program, n_steps=N_STEPS)
    wanted = table(evaluate, program, histories)
    assert table(evaluate, shortest, histories) == wanted
    bits = code.length(shortest)
    assert description_length(LANGUAGE, program, n_steps=N_STEPS) == bits <= code.length(program)
    for _, other in code.up_to(min(bits - 1, 9)):
        assert table(evaluate, other, histories) != wanted


@pytest.mark.parametrize(
    ("type_name", "long", "short"),
    [
        ("events", "latch(not(not(ends(o1))))", "latch(ends(o1))"),
        ("events", "latch(ever(or(ends(o1), ends(o1))))", "latch(ends(o1))"),
        ("policies", "mix(1/2, do(a1), do(a1))", "do(a1)"),
        ("policies", "switch(latch(reached(steps, 5)), do(a1), do(a0))", "do(a0)"),
        ("utilities", "opposite(opposite(share(done(a1), 1)))", "share(done(a1), 1)"),
    ],
)
def test_detours_are_found_out(type_name, long, short):
    code = getattr(LANGUAGE, type_name)
    program = code.parse(long)
    found = shortest_program(LANGUAGE, program, n_steps=2)
    assert code.length(found) == code.length(code.parse(short)) < code.length(program)


def test_utilities_are_compared_on_complete_histories_of_each_length():
    utility = LANGUAGE.utilities.parse("share(seen(o1), 2)")
    found = shortest_program(LANGUAGE, utility, n_steps=2)
    for horizon in (1, 2):
        tree = HistoryTree(**SIZES, horizon=horizon)
        ours, theirs = (utility_table(tree, utility_function(u, **SIZES)) for u in (found, utility))
        assert (ours == theirs).all()
    assert found != LANGUAGE.utilities.parse("share(seen(o1), 1)")
