"""How long a phrase is to describe: its shortest program in a small language with a prefix code.

    expression           code
    a word               0, and log2 V bits for which of the V words
    repeat n times       10, delta(n - 1), and the code of what is repeated, n >= 2
    one after another    11, and the codes of both

where delta is Elias' delta code. So phrases of equally many words differ: `no no no no` is a word
and a count, four different words are four words. The language is context-free and none of its
expressions is without words, so that the shortest program is found exactly, over all parts of the
phrase from short to long: a part of m words costs the least of a word (m = 1), of two parts that
make it up, and of a repeated part.
"""

import math
from collections.abc import Sequence
from typing import Final

from theory.bounds import elias_delta_bits
from theory.errors import InvalidArgumentError

_WORD_BITS: Final = 1
_TAG_BITS: Final = 2


def phrase_bits(words: Sequence[object], *, n_symbols: int) -> float:
    """The length in bits of the shortest program of a phrase.

    Args:
        words: of the phrase, at least one; they are compared by `==`.
        n_symbols: V, the number of words that there are, at least 1.

    Raises:
        InvalidArgumentError: no word, or no symbol.
    """
    if not words or n_symbols < 1:
        raise InvalidArgumentError(
            f"a phrase needs at least 1 word and 1 symbol, got {len(words)} and {n_symbols}"
        )
    n = len(words)
    least: dict[tuple[int, int], float] = {}
    for length in range(1, n + 1):
        for start in range(n - length + 1):
            end = start + length
            costs = [_WORD_BITS + math.log2(n_symbols)] if length == 1 else []
            costs += [
                _TAG_BITS + least[start, middle] + least[middle, end]
                for middle in range(start + 1, end)
            ]
            costs += [
                _TAG_BITS + elias_delta_bits(length // period - 1) + least[start, start + period]
                for period in range(1, length)
                if length % period == 0
                and words[start + period : end] == words[start : end - period]
            ]
            least[start, end] = min(costs)
    return least[0, n]
