"""Complete prefix codes, and the algebra that builds a language's code from small ones.

A *code* gives every value of a type a string of bits such that no string is the beginning of
another one (so a decoder knows where a value ends) and such that the Kraft sum
`sum_v 2^-len(v)` is exactly 1: no string of bits is wasted, and `2^-len(v)` is the probability
that fair coin tosses spell `v`.

The terminal codes (symbols, whole numbers, dyadic probabilities, words) have Kraft sum 1 in
closed form. `Choice` builds the rest: a production is a tag followed by its arguments. The tags
are a complete prefix code and all arguments but those of the type itself come from codes made
before it, so the Kraft sum S of the type solves `S = sum_tags 2^-len(tag) S^(self arguments)`.
S = 1 solves that, but the Kraft sum is the *least* solution: the probability that the growing of
a random program stops (a Galton-Watson process). It is 1 as long as the mean number of
arguments of the type itself, `sum_tags 2^-len(tag) (self arguments)`, is below 1, which `Choice`
checks.
"""
# ruff: noqa: D102 - what a code's methods do is said once, in `Code`.

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from itertools import islice, pairwise, product
from typing import Any, Final

from theory.errors import InvalidArgumentError

_TOKENS: Final = re.compile(r"\s*([a-z_]+(?:\d+)?|\d+|\^+|[(),/])")


class BitReader:
    """Reads a string of '0' and '1' from the left."""

    def __init__(self, bits: str) -> None:
        if set(bits) - {"0", "1"}:
            raise InvalidArgumentError(f"a code is a string of 0 and 1, got {bits!r}")
        self._bits = bits
        self.position = 0

    def read(self, count: int = 1) -> str:
        """The next `count` bits.

        Raises:
            InvalidArgumentError: the string ends before that.
        """
        end = self.position + count
        if end > len(self._bits):
            raise InvalidArgumentError(
                f"the code ends early, after {len(self._bits)} bits: {self._bits!r}"
            )
        self.position = end
        return self._bits[end - count : end]

    @property
    def exhausted(self) -> bool:
        """Whether every bit has been read."""
        return self.position == len(self._bits)


class TokenReader:
    """Reads printed programs token by token."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[str] = []
        position = 0
        while text[position:].strip():
            match = _TOKENS.match(text, position)
            if match is None:
                raise InvalidArgumentError(
                    f"cannot read {text[position:]!r} at position {position} of {text!r}"
                )
            self._tokens.append(match[1])
            position = match.end()
        self._next = 0

    def peek(self, ahead: int = 0) -> str:
        """The next token, or '' at the end."""
        place = self._next + ahead
        return self._tokens[place] if place < len(self._tokens) else ""

    def take(self, expected: str | None = None) -> str:
        """The next token, which must be `expected` if that is given.

        Raises:
            InvalidArgumentError: it is not, or there is none.
        """
        token = self.peek()
        if not token or expected not in (None, token):
            raise self.error(repr(expected) if expected else "more")
        self._next += 1
        return token

    def take_number(self) -> int:
        """The next token as a whole number."""
        if not self.peek().isdigit():
            raise self.error("a whole number")
        return int(self.take())

    def error(self, wanted: str) -> InvalidArgumentError:
        """The error for a token that does not fit."""
        return InvalidArgumentError(
            f"expected {wanted} but got {self.peek() or 'the end'!r} in {self._text!r}"
        )


class Code(ABC):
    """A complete prefix code: Kraft sum 1."""

    name: str
    """What its values are, for messages."""

    @abstractmethod
    def encode(self, value: Any) -> str:
        """The bits of `value`.

        Raises:
            InvalidArgumentError: `value` is none of this code's.
        """

    @abstractmethod
    def decode(self, bits: BitReader) -> Any:
        """The value whose code `bits` begins with; reads that and no more."""

    @abstractmethod
    def counts(self, limit: int) -> list[int]:
        """Entry n: the number of values of exactly n bits, n = 0..limit."""

    @abstractmethod
    def of_length(self, n_bits: int) -> Iterator[Any]:
        """All values of exactly `n_bits` bits."""

    @abstractmethod
    def show(self, value: Any) -> str:
        """`value` as a person reads it."""

    @abstractmethod
    def read(self, tokens: TokenReader) -> Any:
        """The inverse of `show`."""

    def length(self, value: Any) -> int:
        """`len(value)` in bits."""
        return len(self.encode(value))

    def parse(self, text: str) -> Any:
        """The value that `show` prints as `text`.

        Raises:
            InvalidArgumentError: no value does; the message says where reading stopped.
        """
        tokens = TokenReader(text)
        value = self.read(tokens)
        if tokens.peek():
            raise tokens.error("the end")
        self.encode(value)  # a value outside the language must not get in by way of text
        return value

    def decode_all(self, bits: str) -> Any:
        """The value whose code is exactly `bits`.

        Raises:
            InvalidArgumentError: `bits` ends early, or goes on after the value.
        """
        reader = BitReader(bits)
        value = self.decode(reader)
        if not reader.exhausted:
            raise InvalidArgumentError(
                f"the code of {self.show(value)!r} has {reader.position} bits, got {len(bits)}"
            )
        return value

    def up_to(self, limit: int) -> Iterator[tuple[int, Any]]:
        """All values of at most `limit` bits as (length, value), shortest first."""
        return ((n, value) for n in range(limit + 1) for value in self.of_length(n))

    def mass_up_to(self, limit: int) -> Fraction:
        """`sum 2^-len(v)` over all values of at most `limit` bits; the rest, 1 minus it, is longer.

        Raises:
            InvalidArgumentError: `limit` is negative.
        """
        if limit < 0:
            raise InvalidArgumentError(f"a length in bits must be >= 0, got {limit}")
        return sum(
            (Fraction(count, 2**n) for n, count in enumerate(self.counts(limit))), Fraction(0)
        )

    def n_prefixes(self, limit: int) -> int:
        """The number of strings of at most `limit` bits that a longer or equal code begins with.

        These are the nodes of the code tree down to depth `limit`: a decoder that explores
        every program of at most `limit` bits visits each of them once.
        """
        open_mass = Fraction(1)
        nodes = Fraction(0)
        for n, count in enumerate(self.counts(limit)):
            nodes += open_mass * 2**n
            open_mass -= Fraction(count, 2**n)
        return int(nodes)

    def _misfit(self, value: Any) -> InvalidArgumentError:
        return InvalidArgumentError(f"{value!r} is not a value of type '{self.name}'")


class SymbolCode(Code):
    """Symbols 0..size-1 in as equal lengths as whole bits allow (phase-in code).

    With `k = floor(log2 size)`, the first `2^(k+1) - size` symbols have k bits, the others k + 1.
    """

    def __init__(self, letter: str, size: int, name: str) -> None:
        if size < 1:
            raise InvalidArgumentError(f"an alphabet needs at least 1 symbol, got {size}")
        self.name = name
        self._letter = letter
        self._size = size
        self._short_bits = size.bit_length() - 1
        self._n_short: int = 2 ** (self._short_bits + 1) - size

    def encode(self, value: Any) -> str:
        if not isinstance(value, int) or not 0 <= value < self._size:
            raise InvalidArgumentError(
                f"{self.name} must lie in 0..{self._size - 1}, got {value!r}"
            )
        if value < self._n_short:
            return _binary(value, self._short_bits)
        return _binary(value + self._n_short, self._short_bits + 1)

    def decode(self, bits: BitReader) -> int:
        value: int = int("0" + bits.read(self._short_bits), 2)
        if value < self._n_short:
            return value
        return 2 * value + int(bits.read()) - self._n_short

    def counts(self, limit: int) -> list[int]:
        counts = [0] * (max(limit, self._short_bits + 1) + 1)
        counts[self._short_bits] = self._n_short
        counts[self._short_bits + 1] = self._size - self._n_short
        return counts[: limit + 1]

    def of_length(self, n_bits: int) -> Iterator[int]:
        if n_bits == self._short_bits:
            yield from range(self._n_short)
        elif n_bits == self._short_bits + 1:
            yield from range(self._n_short, self._size)

    def show(self, value: int) -> str:
        return f"{self._letter}{value}"

    def read(self, tokens: TokenReader) -> int:
        token = tokens.peek()
        if token[:1] != self._letter or not token[1:].isdigit():
            raise tokens.error(f"{self.name} such as {self.show(0)}")
        return int(tokens.take()[1:])


class GammaCode(Code):
    """Whole numbers n >= 1 by Elias's gamma code: 2 floor(log2 n) + 1 bits."""

    name = "whole number"

    def encode(self, value: Any) -> str:
        n_digits = _digits(value)
        return "0" * (n_digits - 1) + _binary(value, n_digits)

    def decode(self, bits: BitReader) -> int:
        more = 0
        while bits.read() == "0":
            more += 1
        return int("1" + bits.read(more), 2)

    def counts(self, limit: int) -> list[int]:
        return [2 ** (n // 2) if n % 2 else 0 for n in range(limit + 1)]

    def of_length(self, n_bits: int) -> Iterator[int]:
        if n_bits % 2:
            yield from range(2 ** (n_bits // 2), 2 ** (n_bits // 2 + 1))

    def show(self, value: int) -> str:
        return str(value)

    def read(self, tokens: TokenReader) -> int:
        return tokens.take_number()


class DeltaCode(Code):
    """Whole numbers n >= 1 by Elias's delta code.

    `floor(log2 n) + 2 floor(log2(floor(log2 n) + 1)) + 1` bits: the number of binary digits by
    the gamma code, then all of them but the first.
    """

    name = "whole number"
    _n_digits = GammaCode()

    def encode(self, value: Any) -> str:
        n_digits = _digits(value)
        return self._n_digits.encode(n_digits) + _binary(value, n_digits)[1:]

    def decode(self, bits: BitReader) -> int:
        n_digits = self._n_digits.decode(bits)
        return int("1" + bits.read(n_digits - 1), 2)

    def counts(self, limit: int) -> list[int]:
        return [sum(2 ** (d - 1) for d in self._digits_of(n)) for n in range(limit + 1)]

    def of_length(self, n_bits: int) -> Iterator[int]:
        for d in self._digits_of(n_bits):
            yield from range(2 ** (d - 1), 2**d)

    def _digits_of(self, n_bits: int) -> list[int]:
        """The number of digits of the values of `n_bits` bits: one number or none."""
        return [d for d in range(1, n_bits + 1) if len(self._n_digits.encode(d)) + d - 1 == n_bits]

    def show(self, value: int) -> str:
        return str(value)

    def read(self, tokens: TokenReader) -> int:
        return tokens.take_number()


class DyadicCode(Code):
    """Probabilities k/2^j in (0, 1), k odd: j in unary, then k in j - 1 bits."""

    name = "dyadic probability"

    def encode(self, value: Any) -> str:
        if (
            not isinstance(value, Fraction)
            or not 0 < value < 1
            or value.denominator.bit_count() > 1
        ):
            raise InvalidArgumentError(
                f"a dyadic probability is a Fraction k/2^j strictly between 0 and 1, got {value!r}"
            )
        j = value.denominator.bit_length() - 1
        return "0" * (j - 1) + "1" + _binary(value.numerator // 2, j - 1)

    def decode(self, bits: BitReader) -> Fraction:
        j = 1
        while bits.read() == "0":
            j += 1
        return Fraction(2 * int("0" + bits.read(j - 1), 2) + 1, 2**j)

    def counts(self, limit: int) -> list[int]:
        return [2 ** (n // 2) if n % 2 else 0 for n in range(limit + 1)]

    def of_length(self, n_bits: int) -> Iterator[Fraction]:
        if n_bits % 2:
            j = n_bits // 2 + 1
            yield from (Fraction(k, 2**j) for k in range(1, 2**j, 2))

    def show(self, value: Fraction) -> str:
        return f"{value.numerator}/{value.denominator}"

    def read(self, tokens: TokenReader) -> Fraction:
        numerator = tokens.take_number()
        tokens.take("/")
        denominator = tokens.take_number()
        if denominator == 0:
            raise InvalidArgumentError(f"a probability cannot be {numerator}/0")
        return Fraction(numerator, denominator)


class WordCode(Code):
    """Non-empty words whose symbols come from several alphabets in turn.

    Each symbol follows one bit, 1 if yet another symbol comes after it. A word is coded from its
    end: a suffix of a history is told from its last symbol, an observation, backwards.
    """

    def __init__(self, name: str, symbols: Sequence[Code]) -> None:
        self.name = name
        self._symbols = tuple(symbols)

    def encode(self, value: Any) -> str:
        if not isinstance(value, tuple) or not value:
            raise self._misfit(value)
        return "".join(
            ("1" if more else "0") + self._symbol(place).encode(symbol)
            for place, (symbol, more) in enumerate(
                zip(reversed(value), range(len(value) - 1, -1, -1), strict=True)
            )
        )

    def decode(self, bits: BitReader) -> tuple[int, ...]:
        backwards: list[int] = []
        more = True
        while more:
            more = bits.read() == "1"
            backwards.append(self._symbol(len(backwards)).decode(bits))
        return tuple(reversed(backwards))

    def counts(self, limit: int) -> list[int]:
        total = [0] * (limit + 1)
        begun = [1] + [0] * limit  # beginnings of words, by length
        for place in range(limit):
            begun = _shift(_convolve(begun, self._symbol(place).counts(limit)), 1)
            total = [a + b for a, b in zip(total, begun, strict=True)]
        return total

    def of_length(self, n_bits: int) -> Iterator[tuple[int, ...]]:
        return (tuple(reversed(word)) for word in self._from_end(n_bits, 0))

    def _from_end(self, n_bits: int, place: int) -> Iterator[tuple[int, ...]]:
        code = self._symbol(place)
        for n in range(n_bits):
            for symbol in code.of_length(n):
                if n == n_bits - 1:
                    yield (symbol,)
                else:
                    yield from (
                        (symbol, *rest) for rest in self._from_end(n_bits - 1 - n, place + 1)
                    )

    def _symbol(self, place: int) -> Code:
        return self._symbols[place % len(self._symbols)]

    def show(self, value: tuple[int, ...]) -> str:
        shown = [self._symbol(place).show(s) for place, s in enumerate(reversed(value))]
        return " ".join(reversed(shown))

    def read(self, tokens: TokenReader) -> tuple[int, ...]:
        length = 0
        while re.fullmatch(r"[a-z]\d+", tokens.peek(length)):
            length += 1
        word = tuple(self._symbol(length - 1 - i).read(tokens) for i in range(length))
        if not word:
            raise tokens.error(f"{self.name} such as {self.show((0,))}")
        return word


@dataclass(frozen=True, kw_only=True)
class Production:
    """One way to make a value of a type: a tag, then the arguments of `constructor` in order.

    Attributes:
        tag: its bits.
        constructor: a frozen dataclass whose fields are the arguments.
        arguments: one code for each field.
        keyword: how it is printed; `keyword(argument, ...)`, or `keyword` alone without
            arguments.
    """

    tag: str
    constructor: type[Any]
    arguments: tuple[Code, ...] = ()
    keyword: str = ""


class Choice(Code):
    """A type made of productions, whose tags form a complete prefix code.

    Args:
        name: what its values are.
        productions: given the `Choice` itself, which may be an argument of its own productions,
            returns them.

    Raises:
        InvalidArgumentError: the tags are not a complete prefix code, or the mean number of
            arguments of the type itself is not below 1 (then the Kraft sum could be below 1).
    """

    def __init__(self, name: str, productions: Callable[["Choice"], Sequence[Production]]) -> None:
        self.name = name
        self.productions = tuple(productions(self))
        self._by_tag = {p.tag: p for p in self.productions}
        self._by_type = {p.constructor: p for p in self.productions}
        self._by_keyword = {p.keyword: p for p in self.productions}
        self._made: dict[int, tuple[Any, ...]] = {}
        tags = sorted(self._by_tag)
        if any(b.startswith(a) for a, b in pairwise(tags)):
            raise InvalidArgumentError(f"a tag of '{name}' begins with another one: {tags}")
        if (kraft := sum(Fraction(1, 2 ** len(p.tag)) for p in self.productions)) != 1:
            raise InvalidArgumentError(f"the tags of '{name}' must have Kraft sum 1, got {kraft}")
        if self.mean_self_arguments >= 1:
            raise InvalidArgumentError(
                f"the mean number of '{name}' arguments of a '{name}' must be below 1, got "
                f"{self.mean_self_arguments}; give its recursive productions longer tags"
            )

    @property
    def mean_self_arguments(self) -> Fraction:
        """The mean number of children of the same type, when tags are drawn by fair coin tosses."""
        return sum(
            (
                Fraction(sum(code is self for code in p.arguments), 2 ** len(p.tag))
                for p in self.productions
            ),
            Fraction(0),
        )

    def production(self, constructor: type[Any]) -> Production:
        """The production of `constructor`.

        Raises:
            InvalidArgumentError: this type has none.
        """
        if constructor not in self._by_type:
            raise InvalidArgumentError(f"type '{self.name}' has no {constructor.__name__}")
        return self._by_type[constructor]

    def encode(self, value: Any) -> str:
        if type(value) not in self._by_type:
            raise self._misfit(value)
        production = self._by_type[type(value)]
        return production.tag + "".join(
            code.encode(argument)
            for code, argument in zip(production.arguments, arguments(value), strict=True)
        )

    def decode(self, bits: BitReader) -> Any:
        tag = ""
        while tag not in self._by_tag:
            tag += bits.read()
        production = self._by_tag[tag]
        return production.constructor(*(code.decode(bits) for code in production.arguments))

    def counts(self, limit: int) -> list[int]:
        tagged = []
        for p in self.productions:
            fixed = _shift([1] + [0] * limit, len(p.tag))
            for code in p.arguments:
                fixed = fixed if code is self else _convolve(fixed, code.counts(limit))
            tagged.append((fixed, sum(code is self for code in p.arguments)))
        # Entry s, n of `powers`: the ways to choose s values of n bits in all. A recursive
        # production has a tag of at least one bit (the mean number of children is below 1), so
        # its part of entry 1, n needs earlier entries only.
        powers = [[0] * (limit + 1) for _ in range(max(s for _, s in tagged) + 2)]
        powers[0][0] = 1
        for n in range(limit + 1):
            powers[1][n] = sum(
                fixed[i] * powers[s][n - i] for fixed, s in tagged for i in range(n + 1)
            )
            for s in range(2, len(powers)):
                powers[s][n] = sum(powers[1][i] * powers[s - 1][n - i] for i in range(n + 1))
        return powers[1]

    def of_length(self, n_bits: int) -> Iterator[Any]:
        if n_bits not in self._made:
            self._made[n_bits] = tuple(
                value for p in self.productions for value in self.made_by(p.constructor, n_bits)
            )
        return iter(self._made[n_bits])

    def made_by(self, constructor: type[Any], n_bits: int) -> Iterator[Any]:
        """The values of exactly `n_bits` bits whose outermost constructor is the given one."""
        production = self.production(constructor)
        codes = production.arguments
        for lengths in _splits(n_bits - len(production.tag), len(codes)):
            parts = (tuple(code.of_length(n)) for code, n in zip(codes, lengths, strict=True))
            yield from (constructor(*chosen) for chosen in product(*parts))

    def show(self, value: Any) -> str:
        production = self._by_type[type(value)]
        shown = [
            code.show(argument)
            for code, argument in zip(production.arguments, arguments(value), strict=True)
        ]
        return f"{production.keyword}({', '.join(shown)})" if shown else production.keyword

    def read(self, tokens: TokenReader) -> Any:
        if tokens.peek() not in self._by_keyword:
            raise tokens.error(f"a {self.name}: one of {', '.join(self._by_keyword)}")
        production = self._by_keyword[tokens.take()]
        chosen = []
        for place, code in enumerate(production.arguments):
            tokens.take("," if place else "(")
            chosen.append(code.read(tokens))
        if chosen:
            tokens.take(")")
        return production.constructor(*chosen)


def arguments(value: Any) -> tuple[Any, ...]:
    """The arguments of a program node, in order."""
    return tuple(getattr(value, field.name) for field in fields(value))


def _binary(value: int, n_bits: int) -> str:
    return format(value, f"0{n_bits}b") if n_bits else ""


def _digits(value: Any) -> int:
    """The number of binary digits of a whole number >= 1."""
    if not isinstance(value, int) or value < 1:
        raise InvalidArgumentError(f"a whole number here must be >= 1, got {value!r}")
    return value.bit_length()


def _shift(counts: list[int], by: int) -> list[int]:
    return ([0] * by + counts)[: len(counts)]


def _convolve(first: list[int], second: list[int]) -> list[int]:
    """Coefficients of the product of two generating functions, to the length of `first`."""
    total = [0] * len(first)
    for i, a in enumerate(first):
        if a:
            for j, b in enumerate(islice(second, len(first) - i)):
                total[i + j] += a * b
    return total


def _splits(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ways to write `total` as an ordered sum of `parts` numbers >= 0."""
    if parts == 0:
        if total == 0:
            yield ()
        return
    if parts == 1:
        if total >= 0:
            yield (total,)
        return
    for first in range(total + 1):
        yield from ((first, *rest) for rest in _splits(total - first, parts - 1))
