"""The language's programs: what they cost, how they print, and that every tape spells one."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.toy_world.program_examples import TAPE, languages
from theory.errors import InvalidArgumentError
from toy_world.programs.codes import BitReader
from toy_world.programs.language import (
    And,
    CopyObservation,
    Did,
    Do,
    Ends,
    Language,
    Latch,
    Mix,
    Plain,
    Reached,
    Steps,
    Switch,
)

LANGUAGE = Language(n_actions=3, n_observations=2)


def ids(code):
    return code.name


@given(languages, st.text("01", max_size=60))
def test_any_tape_decodes_to_one_program_whatever_the_alphabets(language, bits):
    for code in language.types:
        reader = BitReader(bits + TAPE)
        program = code.decode(reader)
        assert code.encode(program) == (bits + TAPE)[: reader.position]
        assert code.parse(code.show(program)) == program


@pytest.mark.parametrize("code", LANGUAGE.types, ids=ids)
def test_the_kraft_sum_is_the_least_fixed_point_and_that_is_one(code):
    """S = f(S) has the solution 1, f is convex and f'(1) < 1: no smaller solution."""
    kraft = sum(Fraction(1, 2 ** len(p.tag)) for p in code.productions)
    assert kraft == 1
    assert code.mean_self_arguments < 1


@given(languages)
def test_switch_costs_its_parts_and_a_constant(language):
    parts = (
        Latch(And(Did(0), Ends((0,)))),
        Do(0),
        Mix(Fraction(3, 4), CopyObservation(), Do(0)),
    )
    assert language.length(Switch(*parts)) == language.switch_bits + sum(
        map(language.length, parts)
    )


def test_an_event_costs_what_its_predicate_costs():
    predicate = Reached(Steps(), Plain(1000))
    assert LANGUAGE.length(Latch(predicate)) == LANGUAGE.length(predicate)


@pytest.mark.parametrize(
    ("type_name", "text"),
    [
        ("policies", "switch(latch(ends(o1 a1 o1)), do(a2), mix(1/2, copy_observation, do(a0)))"),
        ("predicates", "and(reached(steps, 2^^4), not(every(seen(o1), 3e5)))"),
        ("utilities", "blend(3/4, share(done(a2), 4), achieved(latch(ends(o1))))"),
        ("numbers", "2^^^2^3e1"),
    ],
)
def test_programs_print_as_they_are_read(type_name, text):
    code = getattr(LANGUAGE, type_name)
    assert code.show(code.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("do(a3)", r"action must lie in 0\.\.2, got 3"),
        ("do(o1)", "expected action such as a0 but got 'o1'"),
        ("do(a0", r"expected '\)' but got 'the end'"),
        ("do(a0) do(a1)", "expected the end but got 'do'"),
        ("fly(a0)", "a policy: one of do, switch, mix"),
        ("mix(1/3, do(a0), do(a1))", r"k/2\^j strictly between 0 and 1"),
        ("mix(1/0, do(a0), do(a1))", "cannot be 1/0"),
        ("mix(a0, do(a0), do(a1))", "a whole number"),
        ("cycle()", "word of actions such as a0"),
        ("if(reached(steps, 3^4), do(a0), do(a1))", r"arrows follow a 2, got 3\^"),
        ("if(reached(steps, 0), do(a0), do(a1))", "must be >= 1, got 0"),
        ("do(a0) !", "cannot read"),
    ],
)
def test_text_that_is_no_policy_is_refused_with_the_place(text, message):
    with pytest.raises(InvalidArgumentError, match=message):
        LANGUAGE.policies.parse(text)


def test_codes_that_are_no_program_are_refused():
    with pytest.raises(InvalidArgumentError, match="a string of 0 and 1, got '0a'"):
        LANGUAGE.policies.decode_all("0a")
    with pytest.raises(InvalidArgumentError, match="ends early, after 1 bits"):
        LANGUAGE.policies.decode_all("1")
    with pytest.raises(InvalidArgumentError, match=r"the code of 'do\(a0\)' has 2 bits, got 3"):
        LANGUAGE.policies.decode_all("001")


def test_values_outside_the_language_are_refused():
    with pytest.raises(InvalidArgumentError, match=r"action must lie in 0\.\.2, got 7"):
        LANGUAGE.length(Do(7))
    with pytest.raises(InvalidArgumentError, match="is not a value of type 'policy'"):
        LANGUAGE.policies.encode(Did(0))
    with pytest.raises(InvalidArgumentError, match="is not a value of type 'suffix"):
        LANGUAGE.length(Ends(()))
    with pytest.raises(InvalidArgumentError, match="is no program"):
        LANGUAGE.length("do(a0)")
    with pytest.raises(InvalidArgumentError, match="type 'policy' has no Did"):
        LANGUAGE.policies.production(Did)
    with pytest.raises(InvalidArgumentError, match="n_actions must be >= 1, got 0"):
        Language(n_actions=0, n_observations=1)
