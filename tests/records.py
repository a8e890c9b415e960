"""Comparing what is shown now with what was shown before: words exactly, numbers to rounding."""

import re

import pytest

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def assert_as_recorded(found, recorded):
    """Two texts have the same words, and the same numbers to 1e-6; their layout may differ.

    Duality gaps and the like are rounding: below 1e-9 nothing is compared.
    """
    words, numbers = _words_and_numbers(found)
    words_before, numbers_before = _words_and_numbers(recorded)
    assert words == words_before
    assert numbers == pytest.approx(numbers_before, rel=1e-6, abs=1e-9)


def _words_and_numbers(text):
    words = re.sub("─+", " ", _NUMBER.sub("#", text)).split()
    return words, [float(number) for number in _NUMBER.findall(text)]
