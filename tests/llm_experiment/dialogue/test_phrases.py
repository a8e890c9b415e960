"""Description lengths of phrases, against every program of the language, tried one by one."""

import math
from functools import cache

import pytest

from llm_experiment.dialogue.phrases import phrase_bits
from llm_experiment.dialogue.tasks.support_desk import PROMISES
from theory.bounds import elias_delta_bits
from theory.errors import InvalidArgumentError

WORDS = "ab"
BUDGET_BITS = 14


@cache
def programs(bits: int) -> frozenset[str]:
    """What the programs of exactly so many bits say, over two words (1 bit which)."""
    found = set(WORDS) if bits == 2 else set()
    for part in range(2, bits - 3):
        found |= {x + y for x in programs(part) for y in programs(bits - 2 - part)}
    for n in range(2, 2**bits):
        if elias_delta_bits(n - 1) > bits - 4:
            break
        inner = bits - 2 - elias_delta_bits(n - 1)
        found |= {x * n for x in (programs(inner) if inner >= 2 else ())}
    return frozenset(found)


def test_it_is_the_shortest_of_all_programs():
    shortest: dict[str, int] = {}
    for bits in range(2, BUDGET_BITS + 1):
        for phrase in programs(bits):
            shortest.setdefault(phrase, bits)
    short = {phrase: bits for phrase, bits in shortest.items() if len(phrase) <= 10}
    assert len(short) > 60
    for phrase, bits in short.items():
        assert phrase_bits(phrase, n_symbols=2) == bits
    # And what no program of so many bits says is longer.
    assert all(phrase_bits(p, n_symbols=2) > BUDGET_BITS for p in ("abbabaab", "aababbbab"))


def test_the_bits_of_a_word_depend_on_how_many_there_are():
    assert phrase_bits(["yes"], n_symbols=100) == pytest.approx(1 + math.log2(100))
    assert phrase_bits(["yes"], n_symbols=1) == 1


def test_nothing_to_say_is_refused():
    with pytest.raises(InvalidArgumentError, match="at least 1 word and 1 symbol, got 0 and 5"):
        phrase_bits([], n_symbols=5)
    with pytest.raises(InvalidArgumentError, match="got 1 and 0"):
        phrase_bits(["a"], n_symbols=0)


def test_at_equally_many_words_promises_of_longer_period_are_longer_to_describe():
    by_arm: dict[tuple[object, int], list[float]] = {}
    for promise in PROMISES:
        words = promise.phrase.split()
        assert len(words) == promise.n_words
        assert words == words[: promise.period] * (promise.n_words // promise.period)
        bits = phrase_bits(words, n_symbols=64)
        by_arm.setdefault((promise.said, promise.n_words), []).append(bits)
    assert len(by_arm) == 15
    for lengths in by_arm.values():
        assert lengths == sorted(set(lengths))
