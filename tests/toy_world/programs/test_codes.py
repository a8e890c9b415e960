"""Codes are complete and prefix-free, and values survive coding, printing and counting."""

from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.errors import InvalidArgumentError
from toy_world.programs.codes import (
    BitReader,
    Choice,
    DeltaCode,
    DyadicCode,
    GammaCode,
    Production,
    SymbolCode,
    TokenReader,
    WordCode,
)
from toy_world.programs.language import And, Do, Language

LANGUAGE = Language(n_actions=3, n_observations=2)
TERMINALS = (
    GammaCode(),
    DeltaCode(),
    DyadicCode(),
    *(SymbolCode("a", size, "action") for size in range(1, 10)),
    WordCode("word", (SymbolCode("o", 2, "observation"), SymbolCode("a", 3, "action"))),
)
CODES = (*TERMINALS, *LANGUAGE.types)


def ids(code):
    return code.name


@pytest.mark.parametrize("code", CODES, ids=ids)
def test_every_string_of_bits_begins_with_a_program_or_begins_one(code):
    """With the Kraft sum up to n bits this says that the mass left out is that of open strings."""
    n_bits = 12
    errors = []
    for bits in map("".join, product("01", repeat=n_bits)):
        try:
            value = code.decode(BitReader(bits))
        except InvalidArgumentError as error:
            errors.append(str(error))
        else:
            assert bits.startswith(code.encode(value))
    assert all("ends early" in error for error in errors)
    assert code.mass_up_to(n_bits) == 1 - Fraction(len(errors), 2**n_bits)


@pytest.mark.parametrize("code", CODES, ids=ids)
def test_enumeration_coding_printing_and_generating_functions_agree(code):
    limit = 13
    lengths = [0] * (limit + 1)
    texts = set()
    codewords = set()
    for n_bits, value in code.up_to(limit):
        bits = code.encode(value)
        assert len(bits) == n_bits == code.length(value)
        assert code.decode_all(bits) == value
        assert code.parse(code.show(value)) == value
        lengths[n_bits] += 1
        texts.add(code.show(value))
        codewords.add(bits)
    assert lengths == code.counts(limit)
    assert len(texts) == len(codewords) == sum(lengths)


@pytest.mark.parametrize("code", TERMINALS, ids=ids)
def test_the_mass_of_terminal_codes_tends_to_one(code):
    masses = [code.mass_up_to(n) for n in (10, 40, 160)]
    assert masses == sorted(masses)
    assert 1 - masses[-1] < Fraction(1, 20)


@pytest.mark.parametrize("code", CODES, ids=ids)
def test_prefixes_are_the_nodes_of_the_code_tree(code):
    limit = 9
    nodes = {
        code.encode(value)[:depth]
        for n_bits, value in code.up_to(3 * limit // 2)
        for depth in range(min(n_bits, limit) + 1)
    }
    for bits in map("".join, product("01", repeat=limit)):
        try:
            reader = BitReader(bits)
            code.decode(reader)
            nodes.update(bits[:depth] for depth in range(reader.position + 1))
        except InvalidArgumentError:
            nodes.update(bits[:depth] for depth in range(limit + 1))
    assert code.n_prefixes(limit) == len({node for node in nodes if len(node) <= limit})


@given(st.integers(1, 10**40))
def test_elias_codes_have_the_lengths_of_their_definitions(n):
    log2 = n.bit_length() - 1
    assert GammaCode().length(n) == 2 * log2 + 1
    assert DeltaCode().length(n) == log2 + 2 * ((log2 + 1).bit_length() - 1) + 1


def test_a_choice_refuses_tags_that_would_break_the_kraft_sum():
    def leaf(tag):
        return Production(tag=tag, constructor=Do, arguments=(SymbolCode("a", 2, "action"),))

    with pytest.raises(InvalidArgumentError, match="must have Kraft sum 1, got 3/4"):
        Choice("thing", lambda _: (leaf("0"), leaf("10")))
    with pytest.raises(InvalidArgumentError, match="begins with another one"):
        Choice("thing", lambda _: (leaf("0"), leaf("01"), leaf("11")))
    with pytest.raises(InvalidArgumentError, match="must be below 1, got 1; give its recursive"):
        Choice(
            "thing",
            lambda thing: (
                leaf("0"),
                Production(tag="1", constructor=And, arguments=(thing, thing)),
            ),
        )


def test_lengths_and_alphabets_must_be_such():
    with pytest.raises(InvalidArgumentError, match="must be >= 0, got -1"):
        GammaCode().mass_up_to(-1)
    with pytest.raises(InvalidArgumentError, match="at least 1 symbol, got 0"):
        SymbolCode("a", 0, "action")


@pytest.mark.parametrize(
    ("code", "value", "message"),
    [
        (GammaCode(), 0, "must be >= 1, got 0"),
        (DeltaCode(), Fraction(1, 2), "must be >= 1, got Fraction"),
        (DyadicCode(), Fraction(1, 3), r"strictly between 0 and 1, got Fraction\(1, 3\)"),
        (DyadicCode(), Fraction(1), "strictly between 0 and 1"),
        (DyadicCode(), 0.5, "strictly between 0 and 1, got 0.5"),
        (SymbolCode("a", 3, "action"), 3, r"action must lie in 0\.\.2, got 3"),
        (WordCode("word", (SymbolCode("a", 3, "action"),)), (), "not a value of type 'word'"),
    ],
)
def test_what_is_no_value_of_a_code_is_refused(code, value, message):
    with pytest.raises(InvalidArgumentError, match=message):
        code.encode(value)


def test_readers_give_what_is_there_and_say_where_it_ends():
    bits = BitReader("0110")
    assert (bits.read(), bits.read(2), bits.exhausted) == ("0", "11", False)
    with pytest.raises(InvalidArgumentError, match="ends early, after 4 bits: '0110'"):
        bits.read(2)
    assert (bits.read(), bits.exhausted) == ("0", True)
    tokens = TokenReader("if(did(a0), 2^^3)")
    assert [tokens.take() for _ in range(5)] == ["if", "(", "did", "(", "a0"]
    assert (tokens.peek(), tokens.peek(1)) == (")", ",")
    with pytest.raises(InvalidArgumentError, match=r"expected ',' but got '\)'"):
        tokens.take(",")
    with pytest.raises(InvalidArgumentError, match="expected a whole number but got"):
        tokens.take_number()
