"""The compiled machine against the reference interpreter, program by program."""

from collections.abc import Iterator
from itertools import islice, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.toy_world.counter_programs import Add, Print, While, for_ever, machine_code
from toy_world.machine.definition import (
    OPCODES,
    Instruction,
    Limits,
    Status,
    assemble,
    run,
)
from toy_world.machine.enumeration import OutputTree
from toy_world.machine.kernel import (
    INSTRUCTIONS,
    LONGEST_OPCODE,
    OPCODE_LENGTHS,
    STATUSES,
    Event,
    Op,
    Outcomes,
    Tally,
    enumerate_kernel,
    sample_kernel,
)


def outcomes_of(programs, *, max_bits, max_steps, n_cells, max_symbols):
    """`sample_kernel` on programs given as lists of bits, filled up with zeros."""
    n, n_words = len(programs), -(-max_bits // 64)
    bits = np.zeros((n, 64 * n_words), dtype=np.uint64)
    for row, program in zip(bits, programs, strict=True):
        row[: len(program)] = program[: len(row)]
    words = (bits.reshape(n, n_words, 64) << np.arange(63, -1, -1, dtype=np.uint64)).sum(
        axis=2, dtype=np.uint64
    )
    outcomes = Outcomes(
        np.zeros((n, max_symbols), dtype=np.uint8),
        *(np.zeros(n, dtype=np.int64) for _ in range(4)),
    )
    sample_kernel(words, max_bits, max_steps, n_cells, outcomes)
    return outcomes


def test_numbers_of_instructions_and_events_are_their_places():
    assert [op.name for op in Op] == [instruction.name for instruction in Instruction]
    assert [op.value for op in Op] == list(range(len(INSTRUCTIONS)))
    assert [event.name for event in Event][: len(STATUSES)] == [status.name for status in Status]
    assert [event.value for event in Event] == list(range(len(Event)))
    assert [len(OPCODES[i]) for i in INSTRUCTIONS] == OPCODE_LENGTHS.tolist()


@given(
    programs=st.lists(
        st.lists(st.integers(0, 1), min_size=70, max_size=70), min_size=1, max_size=4
    ),
    max_bits=st.integers(1, 70),
    max_steps=st.integers(1, 200),
    n_cells=st.sampled_from([1, 2, 50]),
)
def test_programs_do_what_the_reference_interpreter_says(programs, max_bits, max_steps, n_cells):
    """Several in one call: what one program leaves behind must not reach the next."""
    limits = Limits(bits=max_bits, steps=max_steps, cells=n_cells)
    found = outcomes_of(
        programs, max_bits=max_bits, max_steps=max_steps, n_cells=n_cells, max_symbols=12
    )
    for i, program in enumerate(programs):
        expected = run(program, limits=limits, max_symbols=12)
        assert STATUSES[found.statuses[i]] is expected.status
        assert tuple(found.outputs[i, : found.n_symbols[i]]) == expected.output
        assert found.bits_read[i] == expected.bits_read
        assert found.steps[i] == expected.steps


SQUARES = [
    Print(1),
    *for_ever(
        [Print(1), Add(0), Add(0), While(0, (Print(0), Add(1))), While(1, (Add(0),))], counter=2
    ),
]
"""Symbol n is 1 if n is a square, for n = 0, 1, 2, ..."""


def squares() -> Iterator[int]:
    roots = set()
    for n in range(10**6):
        roots.add(n * n)
        yield int(n in roots)


@pytest.mark.parametrize("n_symbols", [400])
def test_a_long_program_runs_to_its_end(n_symbols):
    code = assemble(machine_code(SQUARES, n_counters=3))
    found = outcomes_of(
        [code], max_bits=len(code), max_steps=10**8, n_cells=100, max_symbols=n_symbols
    )
    assert STATUSES[found.statuses[0]] is Status.OUTPUT_LIMIT
    assert found.bits_read[0] == len(code)
    assert found.outputs[0].tolist() == list(islice(squares(), n_symbols))
    reference = run(code, limits=Limits(bits=len(code), steps=20_000), max_symbols=n_symbols)
    assert reference.output == tuple(found.outputs[0][: len(reference.output)])


def tally_of(word, word_bits, *, max_bits, max_steps, n_cells, n_symbols, n_waiting=0):
    tree = OutputTree.complete(n_symbols)
    n = len(tree)
    tally = Tally(
        reached=np.zeros(n, dtype=np.int64),
        ended=np.zeros((len(STATUSES), n), dtype=np.int64),
        shortest_bits=np.full(n, 63, dtype=np.int64),
        shortest_program=np.zeros(n, dtype=np.int64),
        waiting=np.full(n_waiting, -1, dtype=np.int64),
        counters=np.zeros(3, dtype=np.int64),
    )
    enumerate_kernel(word, word_bits, max_bits, max_steps, n_cells, tree.children, tally)
    return tree, tally


@pytest.mark.parametrize(
    ("max_bits", "max_steps", "n_cells"), [(11, 40, 30), (10, 7, 2), (4, 9, 9), (2, 9, 9)]
)
def test_the_search_counts_what_every_program_of_so_many_bits_does(max_bits, max_steps, n_cells):
    """Shares of all strings of L bits, each run alone by the reference interpreter."""
    n_symbols = 3
    tree, tally = tally_of(
        0, 0, max_bits=max_bits, max_steps=max_steps, n_cells=n_cells, n_symbols=n_symbols
    )
    reached = np.zeros_like(tally.reached)
    ended = np.zeros_like(tally.ended)
    limits = Limits(bits=max_bits, steps=max_steps, cells=n_cells)
    for bits in product((0, 1), repeat=max_bits):
        result = run(bits, limits=limits, max_symbols=n_symbols)
        path = tree.path(result.output)
        reached[path[1:]] += 1
        ended[STATUSES.index(result.status), path[-1]] += 1
    np.testing.assert_array_equal(tally.reached, reached)
    np.testing.assert_array_equal(tally.ended, ended)


@pytest.mark.parametrize("word_bits", [1, 3, 6])
def test_all_words_of_one_length_together_count_everything_once(word_bits):
    sizes = {"max_bits": 6 + LONGEST_OPCODE, "max_steps": 30, "n_cells": 10, "n_symbols": 3}
    _, whole = tally_of(0, 0, **sizes)
    parts = [tally_of(word, word_bits, **sizes)[1] for word in range(2**word_bits)]
    for name in ("reached", "ended", "counters"):
        total = sum(getattr(part, name) for part in parts)
        np.testing.assert_array_equal(total, getattr(whole, name))


def test_programs_that_wait_are_listed_as_far_as_there_is_room():
    sizes = {"max_bits": 9, "max_steps": 30, "n_cells": 10, "n_symbols": 2}
    _, all_ = tally_of(0, 0, **sizes, n_waiting=600)
    listed = all_.waiting[all_.waiting >= 0]
    assert len(listed) == all_.ended[Event.WAITING].sum()
    _, few = tally_of(0, 0, **sizes, n_waiting=5)
    assert few.waiting.tolist() == all_.waiting[:5].tolist()
    limits = Limits(bits=9, steps=30, cells=10)
    for number in listed[::7]:
        bits = [int(number) >> k & 1 for k in reversed(range(9))]
        assert run(bits, limits=limits, max_symbols=2).status is Status.WAITING


def test_a_program_that_is_stopped_has_read_what_it_had_to_by_then():
    """At every number of steps: also where a body that is left out ends with the last one."""
    code = assemble(machine_code(SQUARES, n_counters=3))
    for max_steps in range(1, 120):
        found = outcomes_of(
            [code], max_bits=len(code), max_steps=max_steps, n_cells=100, max_symbols=400
        )
        expected = run(code, limits=Limits(bits=len(code), steps=max_steps), max_symbols=400)
        assert STATUSES[found.statuses[0]] is expected.status is Status.TIMEOUT
        assert (found.bits_read[0], found.steps[0]) == (expected.bits_read, expected.steps)
