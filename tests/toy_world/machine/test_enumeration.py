import math
from fractions import Fraction
from functools import cache
from itertools import product

import joblib
import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.toy_world.machine_oracle import Oracle
from theory.errors import InvalidArgumentError, InvalidHistoryError, UnreachableLengthError
from theory.process import check_distributions
from toy_world.machine.definition import Limits, Status, run
from toy_world.machine.enumeration import (
    Census,
    OutputTree,
    continue_programs,
    enumerate_programs,
    log2_of,
    sample_programs,
    waiting_programs,
)
from toy_world.machine.kernel import STATUSES

SYMBOLS = 5
SMALL = Limits(bits=13, steps=60)
LARGE = Limits(bits=20, steps=400)


def strings(length: int):
    return [x for n in range(length + 1) for x in product((0, 1), repeat=n)]


@cache
def census(limits: Limits, symbols: int = SYMBOLS) -> Census:
    return enumerate_programs(OutputTree.complete(symbols), limits=limits)


@cache
def brute_force(limits: Limits) -> list[tuple[Status, Oracle]]:
    """What the tree-walking interpreter does with every string of L bits."""
    runs = []
    for bits in product((0, 1), repeat=limits.bits):
        oracle = Oracle(bits, steps=limits.steps, cells=limits.cells, max_symbols=SYMBOLS)
        runs.append((oracle.run(), oracle))
    return runs


@pytest.fixture(
    params=[
        SMALL,
        Limits(bits=13, steps=40, cells=2),
        Limits(bits=7, steps=9),
        Limits(bits=3, steps=1),
    ]
)
def limits(request):
    return request.param


def test_masses_are_the_shares_of_all_programs_of_one_length(limits):
    outputs = [tuple(oracle.output) for _, oracle in brute_force(limits)]
    for x in strings(SYMBOLS):
        share = Fraction(sum(y[: len(x)] == x for y in outputs), 2**limits.bits)
        assert census(limits).mass(x) == share


def test_programs_end_as_the_other_interpreter_says(limits):
    for x in strings(SYMBOLS):
        ends = [status for status, oracle in brute_force(limits) if tuple(oracle.output) == x]
        found = {status: census(limits).ended_mass(x, status) for status in Status}
        endless = found.pop(Status.LOOPING)  # the other interpreter waits for them
        for status, mass in found.items():
            share = Fraction(ends.count(status), 2**limits.bits)
            if status in (Status.TIMEOUT, Status.TAPE_LIMIT):
                assert mass <= share <= mass + endless
            else:
                assert mass == share
        assert sum(found.values()) + endless == Fraction(len(ends), 2**limits.bits)


def test_prefixes_are_counted_once_each(limits):
    read = {oracle.program[: oracle.bits_read] for _, oracle in brute_force(limits)}
    prefixes = {program[:k] for program in read for k in range(len(program) + 1)}
    assert census(limits).n_programs == len(read)
    assert census(limits).n_prefixes == len(prefixes)


def test_the_shortest_program_of_a_string_is_the_first_of_the_shortest(limits):
    for x in strings(SYMBOLS)[1:]:
        minimal = {
            oracle.program[: oracle.bits_at_symbol[len(x) - 1]]
            for _, oracle in brute_force(limits)
            if tuple(oracle.output[: len(x)]) == x
        }
        shortest = min(minimal, key=lambda p: (len(p), p), default=None)
        assert census(limits).shortest(x) == shortest
        for p in minimal:  # prefix-free, so that their weights add up
            assert not any(p[:k] in minimal for k in range(len(p)))
        mass = sum((Fraction(1, 2 ** len(p)) for p in minimal), Fraction(0))
        assert census(limits).mass(x) == mass


def test_shortest_programs_print_their_strings_and_are_read_to_the_end():
    found = 0
    for x in strings(SYMBOLS)[1:]:
        program = census(LARGE).shortest(x)
        if program is not None:
            found += 1
            result = run(program, limits=LARGE, max_symbols=len(x))
            assert (result.output, result.bits_read) == (x, len(program))
    assert found == 2 ** (SYMBOLS + 1) - 2


@pytest.mark.parametrize(
    "limits", [SMALL, LARGE, *(Limits(bits=bits, steps=2) for bits in range(5))]
)
def test_mass_is_conserved_exactly(limits):
    counted = census(limits)
    assert counted.mass(()) == 1
    for x in strings(SYMBOLS - 1):
        ended = sum(counted.ended_mass(x, status) for status in Status)
        assert counted.mass(x) == counted.mass((*x, 0)) + counted.mass((*x, 1)) + ended
        assert counted.ended_mass(x, Status.OUTPUT_LIMIT) == 0
    for x in product((0, 1), repeat=SYMBOLS):
        assert counted.mass(x) == counted.ended_mass(x, Status.OUTPUT_LIMIT)


@pytest.mark.parametrize(
    "more",
    [
        Limits(bits=16, steps=60),
        Limits(bits=13, steps=61),
        Limits(bits=13, steps=10_000),
        LARGE,
    ],
)
def test_masses_grow_with_every_limit_and_stay_within_the_bounds(more):
    for less in (SMALL, Limits(bits=13, steps=60, cells=2)):
        for x in strings(SYMBOLS):
            lower, upper = census(less).bounds(x)
            assert lower == census(less).mass(x) <= census(more).mass(x) <= upper
            assert census(more).bounds(x)[1] <= upper


def test_price_bounds_contain_the_price_at_larger_limits():
    contained = 0
    for x in strings(SYMBOLS - 1):
        for symbol in (0, 1):
            if census(SMALL).mass(x) > 0:
                low, high = census(SMALL).price_bounds_bits(x, symbol)
                price = census(LARGE).price_bits(x, symbol)
                assert low <= price <= high
                contained += high < math.inf
    assert contained > 20


def test_predictions_are_semi_distributions_and_normalise_to_distributions():
    counted = census(LARGE)
    for x in strings(SYMBOLS - 1):
        prediction = np.array(counted.prediction(x), dtype=object)
        check_distributions(prediction, name="xi")
        assert prediction.sum() < 1  # some programs stop, some are undecided
        normalised = counted.normalised_prediction(x)
        assert sum(normalised) == 1
        assert normalised[0] * prediction[1] == normalised[1] * prediction[0]


def test_prices_are_logarithms_of_predictions():
    counted = census(LARGE)
    for x in strings(SYMBOLS - 1):
        for symbol in (0, 1):
            price = counted.price_bits(x, symbol)
            assert float(counted.prediction(x)[symbol]) == pytest.approx(2**-price, rel=1e-14)


@given(a=st.integers(1, 10**30), b=st.integers(1, 10**30))
def test_logarithms_of_rationals_are_right_to_rounding(a, b):
    with mpmath.workdps(60):
        exact = mpmath.log(mpmath.mpf(a) / b, 2)
        tolerance = 1e-15 if a in (2 * b, b, b / 2) else 4e-16 * (1 + abs(exact))
        if not Fraction(1, 2) < Fraction(a, b) < 2:
            tolerance = 4e-16 * (math.log2(a) + math.log2(b))
        assert abs(log2_of(Fraction(a, b)) - exact) <= tolerance


def test_a_string_out_of_reach_has_no_price_and_no_program():
    counted = census(Limits(bits=3, steps=9))
    assert counted.mass((1, 1)) == 0
    assert counted.price_bits((1,), 1) == math.inf
    assert counted.price_bounds_bits((1,), 1)[1] == math.inf
    assert counted.shortest((1, 1)) is None
    for ask in (
        counted.prediction,
        counted.normalised_prediction,
        lambda x: counted.price_bounds_bits(x, 0),
    ):
        with pytest.raises(UnreachableLengthError, match=r"up to 3 bits .* '11' .* raise"):
            ask((1, 1))


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("undivided", [4, 10])
def test_the_division_among_workers_changes_nothing(n_jobs, undivided, monkeypatch):
    limits = Limits(bits=15, steps=100)
    whole = census(limits)
    monkeypatch.setattr("toy_world.machine.enumeration._UNDIVIDED_BITS", undivided)
    with joblib.parallel_config(backend="threading"):
        divided = enumerate_programs(OutputTree.complete(SYMBOLS), limits=limits, n_jobs=n_jobs)
    for one, other in (
        (whole.reached, divided.reached),
        (whole.ended, divided.ended),
        (whole.shortest_bits, divided.shortest_bits),
        (whole.shortest_program, divided.shortest_program),
    ):
        np.testing.assert_array_equal(one, other)
    assert whole.n_instructions == divided.n_instructions
    assert whole.n_steps == divided.n_steps


@given(asked=st.lists(st.lists(st.integers(0, 1), max_size=SYMBOLS).map(tuple), max_size=4))
def test_the_tree_of_questions_does_not_change_the_answers(asked):
    few = enumerate_programs(OutputTree.of(asked), limits=SMALL)
    for x in asked:
        assert few.mass(x) == census(SMALL).mass(x)
        assert few.undecided_mass(x) == census(SMALL).undecided_mass(x)
        assert few.shortest(x) == census(SMALL).shortest(x)


def test_trees_hold_their_strings_and_prefixes():
    tree = OutputTree.of([(0, 1), (0, 0, 1)])
    assert len(tree) == 5
    assert len(tree.path((0, 0, 1))) == 4
    assert len(OutputTree.complete(3)) == len(strings(3))
    complete = OutputTree.complete(3)
    assert sorted(complete.path(x)[-1] for x in strings(3)) == list(range(15))


# Sampling.


def test_the_programs_that_wait_are_those_that_read_every_bit_and_want_more(limits):
    waiting = waiting_programs(census(limits))
    expected = [
        int("".join(map(str, oracle.program)), 2)
        for status, oracle in brute_force(limits)
        if status is Status.WAITING
    ]
    assert sorted(waiting) == sorted(expected)


def test_programs_go_on_from_their_beginnings(rng):
    beginnings = rng.integers(0, 2**10, size=300)
    limits = Limits(bits=70, steps=100)
    samples = continue_programs(beginnings, 10, limits=limits, max_symbols=6, rng=rng)
    for i, beginning in enumerate(beginnings):
        bits = [int(beginning) >> k & 1 for k in reversed(range(10))]
        start = run(bits, limits=limits, max_symbols=6)
        output = tuple(samples.outputs[i, : samples.n_symbols[i]])
        assert output[: len(start.output)] == start.output
        if start.status is not Status.WAITING:
            assert STATUSES[samples.statuses[i]] is start.status
            assert (output, samples.bits_read[i]) == (start.output, start.bits_read)
    assert (samples.bits_read > 10).any()


def test_continuing_the_programs_that_wait_estimates_what_more_bits_find(rng):
    """Masses at 13 bits and a mean over continuations to 20 bits make the masses at 20 bits."""
    small = Limits(bits=13, steps=LARGE.steps)
    waiting = np.repeat(waiting_programs(census(small)), 40)
    samples = continue_programs(waiting, 13, limits=LARGE, max_symbols=SYMBOLS, rng=rng)
    unit = 1 / (40 * 2**13)
    for x in strings(SYMBOLS):
        already = sum(
            float(census(small).ended_mass(y, Status.WAITING))
            for y in strings(SYMBOLS)
            if y[: len(x)] == x
        )
        hits = int(samples.prints(x).sum())
        estimate = float(census(small).mass(x)) - already + unit * hits
        assert abs(estimate - float(census(LARGE).mass(x))) <= 5 * unit * math.sqrt(hits + 1)


def test_samples_do_what_their_programs_do():
    limits = Limits(bits=100, steps=150)
    n, symbols = 2000, 20
    samples = sample_programs(n, limits=limits, max_symbols=symbols, rng=np.random.default_rng(5))
    words = np.random.default_rng(5).integers(0, 2**64, size=(n, 2), dtype=np.uint64)
    for i in range(n):
        bits = [int(word) >> k & 1 for word in words[i] for k in reversed(range(64))]
        result = run(bits, limits=limits, max_symbols=symbols)
        assert STATUSES[samples.statuses[i]] is result.status
        assert tuple(samples.outputs[i, : samples.n_symbols[i]]) == result.output
        assert not samples.outputs[i, samples.n_symbols[i] :].any()
        assert samples.bits_read[i] == result.bits_read
        assert samples.steps[i] == result.steps
    assert set(samples.statuses) >= {0, 1, 2, 3, 5}


def test_shares_of_samples_estimate_masses(rng):
    n = 200_000
    samples = sample_programs(n, limits=LARGE, max_symbols=SYMBOLS, rng=rng)
    for x in strings(SYMBOLS):
        mass = float(census(LARGE).mass(x))
        deviation = math.sqrt(mass * (1 - mass) / n)
        assert abs(samples.prints(x).mean() - mass) <= 5 * deviation


def test_samples_are_the_same_for_the_same_seed_and_however_chunked(monkeypatch):
    def outputs(n):
        rng = np.random.default_rng(3)
        return sample_programs(n, limits=LARGE, max_symbols=9, rng=rng).outputs

    many = outputs(1000)
    np.testing.assert_array_equal(many, outputs(1000))
    monkeypatch.setattr("toy_world.machine.enumeration._WORDS_A_CHUNK", 7)
    np.testing.assert_array_equal(many, outputs(1000))
    assert len(sample_programs(3, limits=LARGE, max_symbols=1, rng=np.random.default_rng(3))) == 3


def test_bad_arguments_are_named(rng):
    with pytest.raises(InvalidArgumentError, match="bits must be <= 62 to enumerate, got 63"):
        enumerate_programs(OutputTree.complete(1), limits=Limits(bits=63, steps=1))
    with pytest.raises(InvalidArgumentError, match=r"length must lie in 0..20, got 21"):
        OutputTree.complete(21)
    with pytest.raises(InvalidHistoryError, match="prints 0 and 1, got 2"):
        OutputTree.of([(0, 2)])
    with pytest.raises(InvalidHistoryError, match="symbol 0 at position 5 of '000000'"):
        census(SMALL).mass((0,) * 6)
    with pytest.raises(InvalidHistoryError, match="symbol 2 at position 0"):
        census(SMALL).mass((2,))
    for name, arguments in (
        ("n", {"n": 0, "max_symbols": 1, "limits": SMALL}),
        ("max_symbols", {"n": 1, "max_symbols": 0, "limits": SMALL}),
        ("bits", {"n": 1, "max_symbols": 1, "limits": Limits(bits=0, steps=1)}),
    ):
        with pytest.raises(InvalidArgumentError, match=f"^{name} must be >= 1 to sample, got 0"):
            sample_programs(rng=rng, **arguments)
    for beginning, bits, message in (
        (4, 2, r"of 2 bits must lie in 0\.\.3, got 4"),
        (-1, 2, r"must lie in 0\.\.3, got -1"),
        (0, 14, r"beginning_bits must lie in 0\.\.13, got 14"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            continue_programs(np.array([beginning]), bits, limits=SMALL, max_symbols=1, rng=rng)
    few = sample_programs(1, limits=SMALL, max_symbols=2, rng=rng)
    with pytest.raises(InvalidHistoryError, match="only 2 symbols were sampled, asked about 3"):
        few.prints((0, 0, 0))
