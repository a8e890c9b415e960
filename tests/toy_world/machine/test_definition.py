import doctest
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.toy_world.counter_programs import (
    Add,
    FuelError,
    InputError,
    Print,
    Read,
    Statement,
    While,
    for_ever,
    machine_code,
    meaning,
)
from tests.toy_world.machine_oracle import Oracle
from theory.errors import InvalidArgumentError
from toy_world.machine import definition as machine
from toy_world.machine.definition import (
    MAX_DOUBLED,
    OPCODES,
    Instruction,
    Limits,
    Status,
    assemble,
    run,
)

PLENTY = Limits(bits=10_000, steps=100_000)

SYMBOLS = st.text(alphabet=[i.value for i in Instruction], max_size=12)


def test_opcodes_are_a_complete_prefix_free_code():
    assert sum(Fraction(1, 2 ** len(bits)) for bits in OPCODES.values()) == 1
    assert list(OPCODES) == list(Instruction)
    opcodes = list(OPCODES.values())
    assert opcodes == sorted(opcodes)
    for one, other in product(opcodes, repeat=2):
        assert one is other or one != other[: len(one)]


@given(bits=st.lists(st.integers(0, 1), max_size=40), limit=st.integers(0, 30))
def test_no_bit_is_read_before_it_is_needed(bits, limit):
    taken = []
    program = (taken.append(bit) or bit for bit in bits)
    result = run(program, limits=Limits(bits=limit, steps=200), max_symbols=8)
    assert result.bits_read == len(taken) <= limit
    if result.status is Status.WAITING:
        assert result.bits_read == min(limit, len(bits))
    else:  # the same without the bits that were not read
        assert run(taken, limits=Limits(bits=40, steps=200), max_symbols=8) == result


@given(
    bits=st.lists(st.integers(0, 1), min_size=20, max_size=60),
    steps=st.integers(1, 300),
    cells=st.sampled_from([1, 2, 100]),
)
def test_agrees_with_an_interpreter_that_walks_a_tree(bits, steps, cells):
    oracle = Oracle(bits, steps=steps, cells=cells, max_symbols=20)
    status = oracle.run()
    result = run(bits, limits=Limits(bits=60, steps=steps, cells=cells), max_symbols=20)
    assert result.output == tuple(oracle.output)
    assert result.bits_read == oracle.bits_read
    if result.status is Status.LOOPING:
        assert status in (Status.TIMEOUT, Status.TAPE_LIMIT)
    else:
        assert result.status is status


def test_what_is_called_silent_for_ever_stays_silent():
    looping = 0
    for bits in product((0, 1), repeat=12):
        result = run(bits, limits=Limits(bits=12, steps=100), max_symbols=50)
        if result.status is Status.LOOPING:
            looping += 1
            oracle = Oracle(bits, steps=2_000, cells=4_000, max_symbols=51)
            assert oracle.run() is Status.TIMEOUT
            assert tuple(oracle.output) == result.output
    assert looping > 100


@given(text=SYMBOLS)
def test_a_listing_assembles_to_what_was_read(text):
    bits = assemble(text)
    result = run(bits, limits=PLENTY, max_symbols=100)
    assert assemble(result.listing) == bits[: len(assemble(result.listing))]
    assert 0 <= result.bits_read - len(assemble(result.listing)) < 4


def test_data_bits_are_listed_where_they_were_read():
    text = ",₁,₀,₁010"
    result = run(assemble(text), limits=PLENTY, max_symbols=100)
    assert result.listing == text


@pytest.mark.parametrize("doublings", range(8))
def test_again_doubles(doublings):
    result = run(assemble("0" + ":" * doublings), limits=PLENTY, max_symbols=1000)
    assert result.output == (0,) * 2**doublings


def test_again_on_a_growing_cell_prints_ninety_three_zeros():
    """`0+:` prints c + 3 zeros and leaves 2c + 3 there; the second `:` does it 4 more times."""
    cell = zeros = 0
    for _ in range(1 + 4):
        cell, zeros = 2 * cell + 3, zeros + cell + 3
    result = run(assemble("0+::1"), limits=PLENTY, max_symbols=1000)
    assert result.output == (0,) * zeros + (1,)
    assert zeros == 93  # as the module's docstring says


@pytest.mark.parametrize("word", ["0", "1", "01", "0011"])
def test_a_word_and_a_closing_bracket_repeat_the_wordfor_ever(word):
    result = run(assemble(word + "]"), limits=PLENTY, max_symbols=40)
    assert result.status is Status.OUTPUT_LIMIT
    assert result.output == tuple(int(symbol) for symbol in (word * 40)[:40])


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("0<", Status.HALTED),
        ("><0<", Status.HALTED),
        ("]", Status.LOOPING),
        ("0[>]", Status.LOOPING),  # further and further right
        ("[><]", Status.LOOPING),
        ("00000", Status.OUTPUT_LIMIT),
        ("0[+[]]", Status.TIMEOUT),
        (">" * 8, Status.TAPE_LIMIT),
        (",₁" * 63, Status.TAPE_LIMIT),
        ("0", Status.WAITING),
        ("0+[", Status.WAITING),  # leaves out a body that has not ended
    ],
)
def test_how_a_run_ended_is_data(text, status):
    limits = Limits(bits=1000, steps=500, cells=8)
    assert run(assemble(text), limits=limits, max_symbols=5).status is status


def test_statuses_are_decided_unless_a_limit_of_the_machine_stopped_the_run():
    assert {status for status in Status if not status.decided} == {
        Status.TIMEOUT,
        Status.TAPE_LIMIT,
        Status.WAITING,
    }


def test_a_number_is_doubled_by_reading_until_it_is_too_large():
    doublings = MAX_DOUBLED.bit_length() - 1
    result = run(assemble(",₁" + ",₀" * (doublings + 1)), limits=PLENTY, max_symbols=1)
    assert result.status is Status.TAPE_LIMIT
    assert result.listing == ",₁" + ",₀" * doublings + ","


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(machine).failed == 0
    for text, bits, output in (("0]", 6, (0,) * 9), ("01]", 9, (0, 1) * 4), ("0:::", 9, (0,) * 8)):
        assert len(assemble(text)) == bits
        assert run(assemble(text), limits=PLENTY, max_symbols=len(output)).output == output


# Universality: counter programs, which compute everything, run on the machine.

COUNTERS = 3


def _statements() -> st.SearchStrategy[list[Statement]]:
    counter = st.integers(0, COUNTERS - 1)
    simple = st.one_of(
        st.builds(Add, counter), st.builds(Print, st.integers(0, 1)), st.builds(Read, counter)
    )
    statement = st.recursive(
        simple,
        lambda inner: simple | st.builds(While, counter, st.lists(inner, max_size=3).map(tuple)),
        max_leaves=6,
    )
    return st.lists(statement, max_size=6)


@given(program=_statements(), data=st.lists(st.integers(0, 1), max_size=6))
def test_the_machine_runs_every_counter_program(program, data):
    """U(P q) = V(q): the same output, and no bit of q is read that V does not read."""
    code = assemble(machine_code(program, n_counters=COUNTERS))
    read = []
    bits = (read.append(bit) or bit for bit in data)
    expected, status = [], Status.HALTED
    try:
        for symbol in meaning(program, bits, fuel=150):
            expected.append(symbol)
    except FuelError:
        status = None
    except InputError:
        status = Status.WAITING
    result = run((*code, *data), limits=PLENTY, max_symbols=500)
    assert list(result.output[: len(expected)]) == expected
    if status is not None:
        assert result.status is status
        assert list(result.output) == expected
        assert result.bits_read == len(code) + len(read)


COPY = for_ever(
    [Read(0), Add(1), While(0, (Print(1), While(1, ()))), While(1, (Print(0),))], counter=2
)
"""Prints what it reads."""


def test_the_machine_runs_a_program_that_copies_its_input():
    code = assemble(machine_code(COPY, n_counters=3))
    data = (1, 0, 0, 1, 1, 1, 0, 1)
    result = run((*code, *data), limits=PLENTY, max_symbols=100)
    assert result.output == data
    assert result.status is Status.WAITING


def test_bad_arguments_are_named():
    with pytest.raises(InvalidArgumentError, match="steps must be >= 1, got 0"):
        Limits(bits=3, steps=0)
    with pytest.raises(InvalidArgumentError, match=r"character 1 must be one of .* got 'x'"):
        assemble("0x")
    with pytest.raises(InvalidArgumentError, match="max_symbols must be >= 1, got 0"):
        run((), limits=PLENTY, max_symbols=0)
    with pytest.raises(InvalidArgumentError, match="bits 0 and 1, got 2"):
        run((0, 2), limits=PLENTY, max_symbols=1)
