"""Compiled functions do what they do in Python, and the processor's instructions what they say."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from theory.compiled import compiled
from toy_world.compiled import count_ones


@compiled
def ones_in(words):
    total = 0
    for word in words:
        total += np.int64(count_ones(word))
    return total


@compiled
def greatest_divisor(a, b):
    while b:
        a, b = b, a % b
    return a


@given(st.lists(st.integers(0, 2**64 - 1), max_size=5))
def test_ones_are_counted(words):
    assert ones_in(np.array(words, dtype=np.uint64)) == sum(word.bit_count() for word in words)


@given(st.integers(1, 2**40), st.integers(1, 2**40))
def test_a_compiled_function_does_what_it_does_in_python(a, b):
    assert greatest_divisor(a, b) == greatest_divisor.py_func(a, b)
