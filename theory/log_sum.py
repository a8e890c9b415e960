"""Exact divergences: numbers `r + sum_i c_i ln b_i` with rational r and c_i, and integers b_i > 1.

A KL between rational distributions is such a number. It has no exact value in floating point, and
it is no fraction. What has to be decided about it is a sign (is this KL below that bound?), and
that is decidable:

- *Zero.* Logarithms of pairwise coprime integers above 1 are linearly independent over the
  rationals (unique factorisation), and a nonzero rational is never equal to a rational
  combination of logarithms (Lindemann: e^r is transcendental). So, the b_i written over a
  pairwise coprime base, the number is zero if and only if r and every coefficient vanish.
  A coprime base comes from greatest common divisors alone. Primes would do as well but would
  need factoring, which posterior weights with hundreds of digits do not allow.
- *Sign.* A nonzero number is separated from 0 by ball arithmetic at some finite precision.

`+inf` is included, since divergences are infinite where a support is left: `0 * inf = 0`, and
what has no value (`inf - inf`, `-inf`) raises. Nothing is ever NaN.
"""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, Final, NoReturn, TypeAlias

from flint import arb, ctx, fmpq

from theory.errors import InvalidArgumentError, InvalidDistributionError, InvalidShapeError

Rational: TypeAlias = int | Fraction

FIRST_PRECISION_BITS: Final = 96
"""Enough to round most sums correctly at once; doubled until a question is decided."""
SMALL_PRIMES: Final = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31)
"""In every coprime base, so that common numbers print over primes."""


class LogSum:
    """A number `r + sum_i c_i ln b_i`, or `+inf`; immutable, totally ordered and hashable.

    Make one with `LogSum.rational`, `LogSum.log`, `LogSum.infinity`, `log_sum` or `kl_log_sum`.
    It adds to and compares with other `LogSum`s, ints and `Fraction`s, is multiplied and divided
    by ints and `Fraction`s, and also compares with floats, taken at their exact value.

    Example:
        >>> from fractions import Fraction
        >>> from theory import LogSum
        >>> bound = 20 * LogSum.log(2) + Fraction(1, 2)
        >>> print(bound, "=", round(float(bound), 4))
        1/2 + 20 ln 2 = 14.3629
        >>> LogSum.log(8) == 3 * LogSum.log(2), LogSum.log(3) > Fraction(11, 10)
        (True, False)
    """

    __slots__ = ("_coefficients", "_constant", "_infinite")

    def __init__(
        self, constant: Any, coefficients: dict[int, Any], *, infinite: bool = False
    ) -> None:
        # fmpq: exact rationals an order of magnitude faster than `Fraction`.
        self._constant = constant
        self._coefficients = coefficients
        self._infinite = infinite

    @classmethod
    def rational(cls, value: Rational) -> "LogSum":
        """The number `value`."""
        return cls(_fmpq(value), {})

    @classmethod
    def log(cls, argument: Rational) -> "LogSum":
        """`ln argument` for a rational `argument > 0`."""
        return log_sum([(Fraction(1), argument)])

    @classmethod
    def infinity(cls) -> "LogSum":
        """`+inf`."""
        return cls(fmpq(0), {}, infinite=True)

    @property
    def is_infinite(self) -> bool:
        """Whether this is `+inf`."""
        return self._infinite

    @property
    def is_rational(self) -> bool:
        """Whether this is a finite rational number: all logarithms cancel."""
        return not self._infinite and not self._over_coprime_base()

    @property
    def rational_part(self) -> Fraction:
        """r, the part without logarithms; unique, by Lindemann's theorem.

        Raises:
            InvalidArgumentError: for `+inf`, which has none.
        """
        if self._infinite:
            raise InvalidArgumentError("+inf has no rational part; test is_infinite first")
        return _fraction(self._constant)

    def terms(self) -> tuple[tuple[Fraction, int], ...]:
        """The `(c_i, b_i)` over a pairwise coprime base, no c_i zero, b_i increasing.

        The value determines whether there are any, not which: the logarithm of a product of two
        large primes and the sum of theirs are equal and have one and two terms, since only
        factoring would show it. Primes up to 31 are always bases of their own.
        """
        return tuple((_fraction(c), b) for b, c in sorted(self._over_coprime_base().items()))

    def sign(self) -> int:
        """-1, 0 or 1, exactly."""
        if self._infinite:
            return 1
        precision = FIRST_PRECISION_BITS
        while True:
            ball = self.arb(precision)
            if ball > 0:
                return 1
            if ball < 0:
                return -1
            if precision == FIRST_PRECISION_BITS and not self._over_coprime_base():
                return int(self._constant > 0) - int(self._constant < 0)
            precision *= 2

    def arb(self, precision: int) -> Any:
        """A ball (`flint.arb`) that contains this number, computed with `precision` bits."""
        if self._infinite:
            return arb.pos_inf()
        with ctx.workprec(precision):
            ball = arb(self._constant)
            for base, coefficient in self._coefficients.items():
                ball += arb(coefficient) * arb(base).log()
            return ball

    def __float__(self) -> float:
        """The nearest float64."""
        if self._infinite:
            return math.inf
        precision = FIRST_PRECISION_BITS
        while True:
            ball = self.arb(precision)
            with ctx.workprec(precision):
                nearest = {_float(ball.lower()), _float(ball.upper())}
            if len(nearest) == 1:
                return nearest.pop()
            # An irrational number lies strictly between two midpoints of floats, so that some
            # precision decides; a rational one may be a midpoint itself.
            if precision == FIRST_PRECISION_BITS and not self._over_coprime_base():
                return float(_fraction(self._constant))
            precision *= 2

    def __add__(self, other: object) -> "LogSum":
        if isinstance(other, Rational):
            return LogSum(
                self._constant + _fmpq(other), self._coefficients, infinite=self._infinite
            )
        if not isinstance(other, LogSum):
            return NotImplemented
        if self._infinite or other._infinite:
            return LogSum.infinity()
        coefficients = dict(self._coefficients)
        for base, coefficient in other._coefficients.items():
            _add_term(coefficients, base, coefficient)
        return LogSum(self._constant + other._constant, coefficients)

    __radd__ = __add__

    def __neg__(self) -> "LogSum":
        return self * -1

    def __sub__(self, other: object) -> "LogSum":
        if isinstance(other, (LogSum, Rational)):
            return self + -other
        return NotImplemented

    def __rsub__(self, other: object) -> "LogSum":
        return -self + other

    def __mul__(self, other: object) -> "LogSum":
        if not isinstance(other, Rational):
            return NotImplemented
        factor = _fmpq(other)
        if factor == 0:
            return LogSum.rational(Fraction(0))
        if self._infinite:
            return self if factor > 0 else _raise_minus_infinity()
        scaled = {base: factor * coefficient for base, coefficient in self._coefficients.items()}
        return LogSum(factor * self._constant, scaled)

    __rmul__ = __mul__

    def __truediv__(self, other: object) -> "LogSum":
        if not isinstance(other, Rational):
            return NotImplemented
        return self * (1 / Fraction(other))

    def __eq__(self, other: object) -> bool:
        order = self._compare(other)
        return NotImplemented if order is None else order == 0

    def __lt__(self, other: object) -> bool:
        order = self._compare(other)
        return NotImplemented if order is None else order < 0

    def __le__(self, other: object) -> bool:
        order = self._compare(other)
        return NotImplemented if order is None else order <= 0

    def __gt__(self, other: object) -> bool:
        order = self._compare(other)
        return NotImplemented if order is None else order > 0

    def __ge__(self, other: object) -> bool:
        order = self._compare(other)
        return NotImplemented if order is None else order >= 0

    def __hash__(self) -> int:
        """Equal to the hash of an equal int, `Fraction` or float."""
        if self.is_rational:
            return hash(self.rational_part)
        return hash(float(self))  # the nearest float depends on the value alone

    def __str__(self) -> str:
        if self._infinite:
            return "inf"
        parts = [(self.rational_part, "")] if self._constant != 0 else []
        parts += [(coefficient, f"ln {base}") for coefficient, base in self.terms()]
        if not parts:
            return "0"
        text = " ".join(
            f"{'-' if coefficient < 0 else '+'} {_product(abs(coefficient), log)}"
            for coefficient, log in parts
        )
        return f"-{text[2:]}" if text[0] == "-" else text[2:]

    def __repr__(self) -> str:
        return f"<LogSum {self}>"

    def _compare(self, other: object) -> int | None:
        """The sign of `self - other`; None where they do not compare."""
        match other:
            case float() if math.isnan(other):
                raise InvalidArgumentError("a LogSum cannot be compared with nan")
            case float() if math.isinf(other):
                return -1 if other > 0 and not self._infinite else int(other < 0)
            case float():
                return (self - Fraction(other)).sign()
            case LogSum() if other._infinite:
                return 0 if self._infinite else -1
            case LogSum() | int() | Fraction():
                return (self - other).sign()
            case _:
                return None

    def _over_coprime_base(self) -> dict[int, Any]:
        """The nonzero coefficients over a pairwise coprime base."""
        coefficients: dict[int, Any] = {}
        for base in coprime_base([*self._coefficients, *SMALL_PRIMES]):
            for number, coefficient in self._coefficients.items():
                multiplicity = _multiplicity(base, number)
                if multiplicity:
                    _add_term(coefficients, base, multiplicity * coefficient)
        return coefficients


def log_sum(terms: Iterable[tuple[Rational, Rational]]) -> LogSum:
    """`sum_i c_i ln x_i` for pairs `(c_i, x_i)` with rational `x_i >= 0`.

    A term with `c_i = 0` is 0, whatever x_i is; one with `c_i < 0` and `x_i = 0` is `+inf`.

    Raises:
        InvalidArgumentError: `x_i < 0`, or `c_i > 0` with `x_i = 0`, which would be `-inf`.
    """
    coefficients: dict[int, Any] = {}
    infinite = False
    for coefficient, argument in terms:
        if argument < 0:
            raise InvalidArgumentError(f"a logarithm needs an argument >= 0, got {argument}")
        weight = _fmpq(coefficient)
        if weight == 0:
            continue
        if argument == 0:
            infinite = infinite or weight < 0 or _raise_minus_infinity()
            continue
        _add_term(coefficients, argument.numerator, weight)
        _add_term(coefficients, argument.denominator, -weight)
    return LogSum.infinity() if infinite else LogSum(fmpq(0), coefficients)


def kl_log_sum(p: Sequence[Rational], q: Sequence[Rational]) -> LogSum:
    """`KL(p || q) = sum_i p_i ln(p_i / q_i)` over the listed outcomes, exactly.

    `0 ln(0/q) = 0` and `p ln(p/0) = +inf` for `p > 0`. Either may be a semi-distribution; then
    its missing mass is no outcome, and the sum may be negative when that of `p` is missing.

    Args:
        p: n rationals >= 0 with sum at most 1.
        q: likewise.

    Raises:
        InvalidShapeError: different lengths.
        InvalidDistributionError: negative entries, mass above 1, or entries that are no
            rationals (a float is a rational only by accident: convert it on purpose).

    Example:
        >>> from fractions import Fraction
        >>> from theory import LogSum, kl_log_sum
        >>> half, quarter = Fraction(1, 2), Fraction(1, 4)
        >>> kl = kl_log_sum([half, half], [quarter, 3 * quarter])
        >>> print(kl)
        ln 2 - 1/2 ln 3
        >>> kl == LogSum.log(Fraction(4, 3)) / 2, kl < Fraction(1, 7)
        (True, False)
    """
    if len(p) != len(q):
        raise InvalidShapeError(f"p and q must list the same outcomes, got {len(p)} and {len(q)}")
    for name, row in (("p", p), ("q", q)):
        for entry in row:
            if not isinstance(entry, Rational) or entry < 0:
                raise InvalidDistributionError(
                    f"{name} must hold rationals >= 0, got {entry!r}; use Fraction(x) for a float"
                )
        mass = sum(map(Fraction, row))
        if mass > 1:
            raise InvalidDistributionError(f"{name} must sum to at most 1, got {mass}")
    terms: list[tuple[Rational, Rational]] = []
    for p_i, q_i in zip(p, q, strict=True):
        if p_i and q_i:
            terms.append((p_i, Fraction(p_i) / q_i))
        else:
            terms.append((-p_i, q_i))  # 0, or +inf
    return log_sum(terms)


def coprime_base(numbers: Iterable[int]) -> list[int]:
    """Pairwise coprime integers above 1 of whose powers each of `numbers` (>= 1) is a product.

    Repeatedly split what has a common divisor: `m, b -> m/g, g, b/g`. Each split divides the
    product of all numbers at hand by `g > 1`, so there is an end.
    """
    base: list[int] = []
    pending = list(numbers)
    while pending:
        number = pending.pop()
        for known in base:
            while number % known == 0:
                number //= known
        if number == 1:
            continue
        for index, known in enumerate(base):
            divisor = math.gcd(number, known)
            if divisor > 1:
                del base[index]
                pending += [number // divisor, divisor, known // divisor]
                break
        else:
            base.append(number)
    return base


def _multiplicity(base: int, number: int) -> int:
    multiplicity = 0
    while number % base == 0:
        number //= base
        multiplicity += 1
    return multiplicity


def _add_term(coefficients: dict[int, Any], base: int, coefficient: Any) -> None:
    if base == 1:
        return
    total = coefficients.get(base, 0) + coefficient
    if total == 0:
        coefficients.pop(base, None)
    else:
        coefficients[base] = total


def _fmpq(value: Rational) -> Any:
    return fmpq(value.numerator, value.denominator)


def _fraction(value: Any) -> Fraction:
    return Fraction(int(value.p), int(value.q))


def _float(exact: Any) -> float:
    mantissa, exponent = exact.man_exp()
    return float(Fraction(int(mantissa)) * Fraction(2) ** int(exponent))


def _product(coefficient: Fraction, log: str) -> str:
    if not log:
        return str(coefficient)
    return log if coefficient == 1 else f"{coefficient} {log}"


def _raise_minus_infinity() -> NoReturn:
    raise InvalidArgumentError("-inf and inf - inf have no value here; test is_infinite first")
