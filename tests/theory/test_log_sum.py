"""Exact logarithm sums against exponent vectors over known primes, and against mpmath."""

import math
import pickle
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from flint import ctx
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.exact_tables import rows
from theory.errors import InvalidArgumentError, InvalidDistributionError, InvalidShapeError
from theory.log_sum import LogSum, coprime_base, kl_log_sum, log_sum

F = Fraction
INF = LogSum.infinity()
# Two of these have 38 and 157 digits: nothing here may need to factor their products.
PRIMES = (2, 3, 5, 7, 2**127 - 1, 2**521 - 1)
coefficients = st.fractions(-3, 3, max_denominator=6)
exponent_vectors = st.tuples(*(st.integers(-3, 3) for _ in PRIMES))
constants = st.fractions(-2, 2, max_denominator=8)
numbers = st.builds(
    lambda constant, terms: log_sum((c, from_exponents(e)) for c, e in terms) + constant,
    constants,
    st.lists(st.tuples(coefficients, exponent_vectors), max_size=4),
)


def from_exponents(exponents):
    return math.prod((F(p) ** e for p, e in zip(PRIMES, exponents, strict=True)), start=F(1))


def mp_value(terms, constant):
    """The sum in mpmath's current precision."""
    total = mpmath.mpf(constant.numerator) / constant.denominator
    for c, x in terms:
        ratio = mpmath.mpf(x.numerator) / x.denominator
        total += mpmath.mpf(c.numerator) / c.denominator * mpmath.log(ratio)
    return total


def as_fraction(value):
    """The exact value of an mpf."""
    sign, mantissa, exponent, _ = value._mpf_
    return (-1) ** sign * F(int(mantissa)) * F(2) ** exponent


@given(st.lists(st.tuples(coefficients, exponent_vectors), max_size=5), constants)
def test_a_sum_is_zero_exactly_if_every_prime_s_exponent_and_the_constant_cancel(terms, constant):
    total = log_sum((c, from_exponents(e)) for c, e in terms) + constant
    exponents = [sum(c * e[i] for c, e in terms) for i in range(len(PRIMES))]
    assert total.is_rational == (not any(exponents))
    assert (total == 0) == (total.sign() == 0) == (not any(exponents) and constant == 0)
    assert total.rational_part == constant


@given(st.lists(st.tuples(coefficients, exponent_vectors), min_size=1, max_size=4), constants)
def test_sign_and_nearest_float_agree_with_mpmath(terms, constant):
    pairs = [(c, from_exponents(e)) for c, e in terms]
    total = log_sum(pairs) + constant
    with mpmath.workdps(400):
        value = mp_value(pairs, constant)
        if total.is_rational:
            assert abs(value - mp_value([], constant)) < mpmath.mpf(10) ** -390
            assert float(total) == float(constant)
        else:
            assert total.sign() == mpmath.sign(value)
            assert float(total) == float(as_fraction(value))


def test_numbers_closer_than_any_float_are_told_apart():
    tiny = F(1, 10**400)
    larger, smaller = LogSum.log(2 + tiny), LogSum.log(2)
    assert larger > smaller
    assert smaller < larger
    assert larger != smaller
    assert float(larger) == float(smaller) == math.log(2)
    # The difference is tiny/2 to first order, below the least subnormal float.
    assert larger - smaller < tiny / 2
    assert float(larger - smaller) == 0
    assert float(LogSum.log(1 + F(1, 10**300))) == 1e-300


def test_a_rational_halfway_between_two_floats_rounds_to_even_even_behind_logarithms():
    nothing = LogSum.log(6) - LogSum.log(2) - LogSum.log(3)
    halfway = nothing + (1 + F(1, 2**53))
    assert float(halfway) == 1.0
    assert float(halfway + F(1, 2**52)) == 1 + 2**-51
    assert (nothing - F(1, 3)).sign() == -1
    assert nothing.sign() == 0
    assert float(nothing) == 0


def test_a_ball_contains_the_number_and_narrows_with_precision():
    number = LogSum.log(F(2, 3)) * F(5, 7) + 1
    with mpmath.workdps(60):
        value = mp_value([(F(5, 7), F(2, 3))], F(1))
        for precision in (20, 60, 120):
            ball = number.arb(precision)
            with ctx.workprec(2 * precision):
                ends = ball.lower().man_exp(), ball.upper().man_exp()
            low, high = (F(int(m)) * F(2) ** int(e) for m, e in ends)
            assert low <= as_fraction(value) <= high
            assert high - low < F(1, 2 ** (precision - 8))
    assert not INF.arb(50).is_finite()


@given(numbers, numbers, numbers, coefficients)
def test_sums_and_multiples_obey_the_laws_of_a_vector_space(x, y, z, c):
    assert x + y == y + x
    assert (x + y) + z == x + (y + z)
    assert c * (x + y) == c * x + c * y
    assert x - x == 0
    assert x - y == -(y - x)
    assert 1 - x == -(x - 1)
    assert x * 0 == LogSum.rational(0)
    if c:
        assert x * c / c == x


@given(numbers, numbers)
def test_the_order_is_total_and_agrees_with_differences(x, y):
    assert (x < y, x == y, x > y).count(True) == 1
    assert (x <= y) == (not x > y) == (not y < x) == (y >= x)
    assert (x - y).sign() == (x > y) - (x < y)


@given(numbers)
def test_equal_numbers_have_equal_hashes_however_they_are_written(x):
    other = x + LogSum.log(F(10, 21)) + LogSum.log(7) - LogSum.log(2)
    other = other - LogSum.log(5) + LogSum.log(3)
    assert other == x
    assert hash(other) == hash(x)


def test_rational_numbers_equal_the_ints_fractions_and_floats_that_they_are():
    half = LogSum.log(4) - 2 * LogSum.log(2) + F(1, 2)
    assert half == F(1, 2)
    assert half == 0.5
    assert len({half, F(1, 2), 0.5}) == 1
    assert len({INF, math.inf}) == 1
    assert LogSum.log(2) != math.log(2)
    assert LogSum.log(2) < math.log(2) + 1e-16
    assert math.log(2) - 1e-16 < LogSum.log(2)


def test_infinity_is_above_all_else_and_absorbs():
    one = LogSum.log(3)
    assert INF > one > -math.inf
    assert one < math.inf
    assert one < INF
    assert math.inf == INF
    assert LogSum.infinity() == INF
    assert LogSum.infinity() <= INF
    assert -math.inf < INF
    assert INF > 10**9
    assert INF.is_infinite
    assert not INF.is_rational
    assert not one.is_infinite
    assert INF.sign() == 1
    assert float(INF) == math.inf
    assert (one + INF).is_infinite
    assert (INF + 1).is_infinite
    assert (INF * F(1, 9)).is_infinite
    assert INF * 0 == 0
    assert str(INF) == "inf"


@pytest.mark.parametrize(
    "undefined", [lambda: INF - INF, lambda: -INF, lambda: INF * F(-1, 2), lambda: 1 - INF]
)
def test_what_has_no_value_raises(undefined):
    with pytest.raises(InvalidArgumentError, match="-inf and inf - inf have no value here"):
        undefined()


def test_terms_with_zeros_follow_the_limits_of_the_divergence():
    assert log_sum([(0, 0)]) == 0
    assert log_sum([(F(-1, 2), 0), (1, 5)]).is_infinite
    with pytest.raises(InvalidArgumentError, match="-inf and inf - inf"):
        log_sum([(F(1, 2), 0)])
    with pytest.raises(InvalidArgumentError, match="argument >= 0, got -2"):
        log_sum([(1, -2)])
    with pytest.raises(InvalidArgumentError, match=r"\+inf has no rational part"):
        _ = INF.rational_part


def test_numbers_of_other_kinds_do_not_mix_in_silence():
    x = LogSum.log(2)
    for mistake in (
        lambda: x + 0.5,
        lambda: x - 0.5,
        lambda: x * 0.5,
        lambda: x * x,
        lambda: x / x,
        lambda: x < "2",
        lambda: x <= None,
        lambda: x > None,
        lambda: x >= None,
    ):
        with pytest.raises(TypeError):
            mistake()
    assert x != "ln 2"
    with pytest.raises(InvalidArgumentError, match="cannot be compared with nan"):
        x.__lt__(math.nan)


def test_numbers_print_as_sums_of_logarithms():
    assert str(LogSum.rational(0)) == "0"
    assert str(LogSum.rational(F(-2, 3))) == "-2/3"
    assert str(LogSum.log(12) - LogSum.log(2)) == "ln 2 + ln 3"
    assert str(LogSum.log(37 * 41)) == "ln 1517"
    assert str(LogSum.log(37 * 41) + LogSum.log(41)) == "ln 37 + 2 ln 41"
    assert str(1 - LogSum.log(2) / 2) == "1 - 1/2 ln 2"
    assert str(-LogSum.log(2) - LogSum.log(3)) == "-ln 2 - ln 3"
    assert repr(LogSum.log(2)) == "<LogSum ln 2>"
    assert LogSum.log(F(4, 9)).terms() == ((F(2), 2), (F(-2), 3))


def test_object_arrays_of_logarithm_sums_add_multiply_and_compare():
    array = np.array([LogSum.log(2), LogSum.log(3), INF], dtype=object)
    weights = np.array([F(1, 2), F(1, 3), F(0)], dtype=object)
    assert (array * weights).sum() == LogSum.log(2) / 2 + LogSum.log(3) / 3
    assert array[:2].max() == LogSum.log(3)
    assert array.argmax() == 2
    assert list(array.astype(float)) == [math.log(2), math.log(3), math.inf]


def test_numbers_survive_pickling():
    for number in (LogSum.log(F(2, 3)) / 7 + F(1, 5), INF):
        assert pickle.loads(pickle.dumps(number)) == number


@given(st.lists(st.integers(1, 10**6), max_size=6))
def test_a_coprime_base_is_coprime_and_writes_every_number(listed):
    base = coprime_base(listed)
    assert all(b > 1 for b in base)
    assert all(math.gcd(b, c) == 1 for i, b in enumerate(base) for c in base[:i])
    for number in listed:
        rest = number
        for b in base:
            while rest % b == 0:
                rest //= b
        assert rest == 1


@given(
    st.integers(1, 4).flatmap(
        lambda n: st.tuples(rows(n), rows(n, full=False) | rows(n, positive=True))
    )
)
def test_kl_is_infinite_off_the_support_and_else_as_in_mpmath(pair):
    p, q = pair
    kl = kl_log_sum(p, q)
    if any(x > 0 and y == 0 for x, y in zip(p, q, strict=True)):
        assert kl.is_infinite
        return
    with mpmath.workdps(60):
        value = mp_value([(x, x / y) for x, y in zip(p, q, strict=True) if x], F(0))
        assert float(kl) == pytest.approx(float(value), rel=1e-15, abs=1e-50)
    assert kl >= 0  # p is full
    if sum(q) == 1:
        assert (kl == 0) == (p == q)


def test_the_kl_of_a_semi_distribution_counts_listed_outcomes_and_can_be_negative():
    assert kl_log_sum([F(1, 4)], [F(1, 2)]) == -LogSum.log(2) / 4
    assert kl_log_sum([0, 1], [0, 1]) == 0


def test_kl_wants_rational_semi_distributions_over_the_same_outcomes():
    with pytest.raises(InvalidShapeError, match="the same outcomes, got 1 and 2"):
        kl_log_sum([F(1)], [F(1, 2), F(1, 2)])
    with pytest.raises(InvalidDistributionError, match=r"p must hold rationals >= 0, got 0\.5"):
        kl_log_sum([0.5], [F(1, 2)])
    with pytest.raises(InvalidDistributionError, match=r"q must hold rationals >= 0, got .*-1, 2"):
        kl_log_sum([F(1, 2)], [F(-1, 2)])
    with pytest.raises(InvalidDistributionError, match="p must sum to at most 1, got 3/2"):
        kl_log_sum([F(1), F(1, 2)], [F(1, 2), F(1, 2)])


@pytest.mark.parametrize("prime", [p for p in range(2, 32) if all(p % q for q in range(2, p))])
def test_powers_of_common_primes_print_over_the_prime(prime):
    assert str(LogSum.log(prime**2)) == f"2 ln {prime}"
    assert str(LogSum.log(prime**2 * 37)) == f"2 ln {prime} + ln 37"
