"""Divergences against their definitions in exact or 60-digit arithmetic, at every boundary."""

import math
from itertools import pairwise

import array_api_compat
import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import exact_divergences as exact
from tests.strategies import (
    log_normalised,
    log_of,
    log_row_pairs,
    log_rows,
    log_semi_pairs,
    log_semi_rows,
    rational_rows,
)
from theory.arrays import FULL_MASS_ROUNDING
from theory.divergences import (
    SERIES_RADIUS,
    chi_squared,
    exp_minus_tangent,
    exp_minus_tangent_series,
    kl_nats,
    log_missing_mass,
    renyi_nats,
    tvd,
    with_missing_outcome,
)
from theory.errors import InvalidArgumentError, InvalidDistributionError, InvalidShapeError

INF = math.inf
ORDERS = (0.0, 1e-12, 0.1, 0.5, 0.9, 1 - 1e-9, 1.0, 1 + 1e-9, 1.5, 2.0, 40.0, 1e6, INF)
MASS_ROUNDING = 1e-30
"""A row's mass is off 1 by some 1e-16; normalising it moves a KL by its square."""


def renyi_of(order):
    return pytest.param(
        lambda p, q, **kwargs: renyi_nats(p, q, order=order, **kwargs), id=f"{order}"
    )


DIVERGENCES = [kl_nats, tvd, chi_squared, *map(renyi_of, ORDERS)]


@given(log_row_pairs())
def test_kl_of_full_distributions_has_all_its_digits_however_small_it_is(pair):
    log_p, log_q = pair
    p, q = exact.probabilities(log_p), exact.probabilities(log_q)
    expected = exact.kl(p, q)
    assert float(kl_nats(log_p, log_q)) == pytest.approx(
        float(expected), rel=1e-13, abs=MASS_ROUNDING
    )


@given(log_row_pairs())
def test_kl_of_full_distributions_is_never_negative_and_0_for_equal_rows(pair):
    log_p, log_q = pair
    assert kl_nats(log_p, log_q) >= 0
    assert kl_nats(log_p, log_p) == 0


@given(log_semi_pairs())
def test_kl_of_semi_distributions_is_the_sum_that_defines_it(pair):
    p, q = (exact.probabilities(row, normalise=False) for row in pair)
    sizes = [float(a * abs(mpmath.log(a / b))) for a, b in zip(p, q, strict=True) if a > 0 < b]
    assert float(kl_nats(*pair)) == pytest.approx(
        float(exact.kl(p, q)), rel=0, abs=1e-15 * sum(sizes) + 2 * FULL_MASS_ROUNDING
    )


def test_kl_of_a_semi_distribution_can_be_negative():
    half = np.log([0.25, 0.25])
    assert kl_nats(half, np.log([0.5, 0.5])) == pytest.approx(-0.5 * math.log(2), rel=1e-15)


def test_a_base_that_may_give_nothing_costs_at_least_minus_the_log_of_its_mass():
    log_q = np.log([0.3, 0.6])
    proportional = log_normalised(log_q)
    assert kl_nats(proportional, log_q) == pytest.approx(-math.log(0.9), rel=1e-14)
    theta = 1e-11
    nearly_full = proportional + math.log1p(-theta)
    assert kl_nats(proportional, nearly_full) == pytest.approx(-math.log1p(-theta), rel=1e-5)


@given(st.integers(1, 5).flatmap(lambda n: st.tuples(*[rational_rows(n, full=False)] * 2)))
def test_tvd_and_chi_squared_agree_with_exact_fractions(rows):
    p, q = rows
    log_p, log_q = log_of(p), log_of(q)
    assert tvd(log_p, log_q) == pytest.approx(float(exact.tvd(p, q)), rel=1e-14, abs=1e-15)
    assert chi_squared(log_p, log_q) == pytest.approx(
        float(exact.chi_squared(p, q)), rel=1e-13, abs=1e-28
    )


@given(log_row_pairs())
def test_tvd_and_chi_squared_of_nearly_equal_rows_keep_their_digits(pair):
    p, q = (exact.probabilities(row, normalise=False) for row in pair)
    assert tvd(*pair) == pytest.approx(float(exact.tvd(p, q)), rel=1e-14)
    expected = exact.chi_squared(p, q)
    if expected < 1e260 or expected == mpmath.inf:
        assert chi_squared(*pair) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("order", ORDERS)
@given(pair=log_row_pairs())
def test_renyi_divergences_are_right_at_every_order(order, pair):
    p, q = map(exact.probabilities, pair)
    expected = float(exact.renyi(p, q, order))
    assert float(renyi_nats(*pair, order=order)) == pytest.approx(
        expected, rel=2e-12, abs=1e-15 if order in {0, INF} or order > 1e3 else 1e-28
    )


@pytest.mark.parametrize("log_met", [-2000.0, -700.0, -30.0, -1.0, -1e-3, -1e-18])
def test_the_divergence_of_order_0_has_its_digits_however_little_or_much_is_met(log_met):
    """`-log q(p > 0)`; q meets p in one symbol, and the rest of it elsewhere."""
    log_q = np.array([log_met, float(mpmath.log(-mpmath.expm1(log_met)))])
    found = renyi_nats(np.array([0.0, -INF]), log_q, order=0)
    assert float(found) == pytest.approx(-log_met, rel=1e-15)


@given(log_semi_pairs())
def test_renyi_divergences_of_semi_distributions_are_renyis_own(pair):
    p, q = (exact.probabilities(row, normalise=False) for row in pair)
    if any(x > 0 for x in p):
        for order in (0.0, 0.3, 1.0, 2.0, INF):
            assert float(renyi_nats(*pair, order=order)) == pytest.approx(
                float(exact.renyi(p, q, order)), rel=1e-10, abs=1e-9
            )


@given(log_row_pairs())
def test_renyi_divergences_rise_with_their_order(pair):
    found = [float(renyi_nats(*pair, order=order)) for order in ORDERS]
    for lower, higher in pairwise(found):
        assert lower <= higher + 1e-12 * abs(higher) + 1e-15


@given(log_row_pairs(zeros=False), st.floats(0.01, 0.99))
def test_renyi_divergences_are_skew_symmetric(pair, order):
    log_p, log_q = pair
    forward = (1 - order) * renyi_nats(log_p, log_q, order=order)
    backward = order * renyi_nats(log_q, log_p, order=1 - order)
    assert forward == pytest.approx(backward, rel=1e-11, abs=1e-28)


@given(log_row_pairs())
def test_the_divergence_of_order_2_is_the_log_of_1_plus_chi_squared(pair):
    with np.errstate(over="ignore"):
        found = chi_squared(*pair)
    if found < 1e200:
        assert float(renyi_nats(*pair, order=2)) == pytest.approx(math.log1p(found), rel=1e-11)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@given(pair=st.one_of(log_row_pairs(), log_semi_pairs()))
def test_no_divergence_is_ever_nan(divergence, pair):
    with np.errstate(over="ignore"):
        assert not np.isnan(divergence(*pair))


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_the_boundary_cases_hold_exactly(divergence, kind):
    one, other, both = kind([0.0, -INF]), kind([-INF, 0.0]), kind([-math.log(2)] * 2)
    assert divergence(one, one) == 0  # 0 log 0/0 and 1 log 1/1
    assert divergence(kind([0.0]), kind([0.0])) == 0  # one symbol
    disjoint = 1.0 if divergence is tvd else INF
    assert divergence(one, other) == disjoint
    assert 0 < divergence(one, both) < INF  # 0 log 0/q = 0


@pytest.mark.parametrize("order", [1.0, 1.1, 2.0, INF])
def test_from_order_1_on_a_zero_of_the_base_costs_everything(order):
    log_p, log_q = np.log([0.5, 0.5]), np.array([0.0, -INF])
    assert renyi_nats(log_p, log_q, order=order) == INF
    assert kl_nats(log_p, log_q) == chi_squared(log_p, log_q) == INF


def test_subnormal_probabilities_and_smaller_ones_count():
    log_p, log_q = np.array([0.0, -800.0]), np.array([0.0, -INF])
    assert kl_nats(log_p, log_q) == INF
    tail = np.array([math.log(0.5), math.log(0.5)]), np.array([0.0, -744.0])
    assert kl_nats(*tail) == pytest.approx(0.5 * 744 - math.log(2), rel=1e-15)
    below = np.array([math.log(0.5), math.log(0.5)]), np.array([0.0, -5000.0])
    assert kl_nats(*below) == pytest.approx(0.5 * 5000 - math.log(2), rel=1e-15)


@given(st.floats(-700, 700))
def test_the_exponential_minus_its_tangent_has_all_its_digits(s):
    with mpmath.workdps(400):
        expected = mpmath.expm1(mpmath.mpf(s)) - mpmath.mpf(s)
    assert float(exp_minus_tangent(np.asarray(s))) == pytest.approx(
        float(expected), rel=3e-14, abs=1e-320
    )


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("size", [2.0**-7, 2.0**-6 * (1 - 2.0**-53), 2.0**-6, 2.0**-5])
def test_phi_keeps_its_digits_on_either_side_of_the_change_to_its_series(size, sign):
    s = sign * size
    with mpmath.workdps(60):
        expected = float(mpmath.expm1(mpmath.mpf(s)) - mpmath.mpf(s))
        quotient = float((mpmath.expm1(mpmath.mpf(s)) - mpmath.mpf(s)) / mpmath.mpf(s) ** 2)
    assert float(exp_minus_tangent(np.asarray(s))) == pytest.approx(expected, rel=3e-14)
    if size < SERIES_RADIUS:
        assert exp_minus_tangent_series(np.float64(s)) == pytest.approx(quotient, rel=1e-15)


@given(st.integers(1, 5).flatmap(log_semi_rows))
def test_with_the_missing_outcome_a_row_is_full(log_p):
    full = with_missing_outcome(log_p)
    np.testing.assert_array_equal(full[:-1], log_p)
    assert full[-1] == log_missing_mass(log_p)
    assert np.exp(full).sum() == pytest.approx(1, abs=FULL_MASS_ROUNDING)


@given(st.integers(1, 5).flatmap(log_rows))
def test_a_full_row_misses_nothing(log_p):
    assert log_missing_mass(log_p) == -INF
    assert log_missing_mass(np.full(3, -INF)) == 0


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_numpy_and_torch_give_the_same_numbers_for_batches_of_any_shape(divergence, rng):
    logits = rng.normal(size=(2, 3, 4, 5)) * 3
    logits[0, 1, 2, 3] = logits[1, 1, 2, 3] = -INF
    log_p, log_q = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    found = divergence(log_p, log_q)
    assert found.shape == (3, 4)
    as_torch = divergence(torch.tensor(log_p), torch.tensor(log_q))
    np.testing.assert_allclose(as_torch.numpy(), found, rtol=1e-13)
    assert divergence(log_p[0, 0], log_q[0, 0]) == pytest.approx(found[0, 0], rel=1e-13)
    broadcast = divergence(log_p, log_q[0, 0])
    assert broadcast[2, 1] == pytest.approx(divergence(log_p[2, 1], log_q[0, 0]), rel=1e-13)
    assert divergence(log_p[:0], log_q[:0]).shape == (0, 4)


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_single_precision_rows_are_worked_on_in_double(kind, rng):
    log_p = np.array([log_normalised(row) for row in rng.normal(size=(20, 50))], np.float32)
    log_q = np.array([log_normalised(row) for row in rng.normal(size=(20, 50))], np.float32)
    found = kl_nats(kind(log_p), kind(log_q))
    assert "float64" in str(found.dtype)
    for p, q, value in zip(log_p, log_q, found, strict=True):
        normalised = exact.kl(exact.probabilities(p), exact.probabilities(q))
        assert float(value) == pytest.approx(float(normalised), rel=1e-6)
    assert "float32" in str(with_missing_outcome(kind(log_p)).dtype)
    np.testing.assert_array_equal(log_missing_mass(kind(log_p)), np.full(20, -INF))


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_gradients_are_those_of_finite_differences(divergence, rng):
    logits = [torch.tensor(rng.normal(size=(4, 5)), requires_grad=True) for _ in range(2)]

    def of_logits(a, b):
        return divergence(a.log_softmax(-1), b.log_softmax(-1))

    assert torch.autograd.gradcheck(of_logits, logits, eps=1e-6, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_gradients_are_finite_at_zeros_of_p_of_q_and_of_both(divergence):
    log_p = torch.tensor([math.log(0.5), math.log(0.5), -INF, -INF], dtype=torch.float64)
    log_q = torch.tensor([math.log(0.3), math.log(0.3), math.log(0.4), -INF], dtype=torch.float64)
    log_p.requires_grad_()
    log_q.requires_grad_()
    divergence(log_p, log_q).backward()
    for variable in (log_p, log_q):
        assert torch.isfinite(variable.grad).all()
        assert variable.grad[3] == 0
    assert log_p.grad[2] == 0


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_gradients_are_finite_where_the_divergence_is_infinite_or_the_rows_are_equal(divergence):
    for log_q in ([-INF, 0.0], [0.0, -INF]):
        rows = [torch.tensor(row, requires_grad=True) for row in ([0.0, -INF], log_q)]
        divergence(*rows).backward()
        assert all(torch.isfinite(row.grad).all() for row in rows)


def test_the_gradient_of_kl_by_a_logit_of_p_is_p_times_log_ratio_less_kl(rng):
    logits, log_q = torch.tensor(rng.normal(size=6)), torch.tensor(rng.normal(size=6))
    logits.requires_grad_()
    log_q = log_q.log_softmax(-1)
    log_p = logits.log_softmax(-1)
    value = kl_nats(log_p, log_q)
    value.backward()
    expected = log_p.exp() * (log_p - log_q - value)
    torch.testing.assert_close(logits.grad, expected.detach(), rtol=1e-12, atol=1e-14)


def test_the_gradient_of_the_missing_mass_is_finite_for_full_rows_too():
    log_p = torch.tensor([[0.0, -INF], [math.log(0.25)] * 2], requires_grad=True)
    found = log_missing_mass(log_p)
    found[1].backward()
    torch.testing.assert_close(log_p.grad, torch.tensor([[0.0, 0.0], [-0.5, -0.5]]))


@pytest.mark.parametrize(
    "call",
    [
        *(lambda p, q, f=f, **k: f(p, q, **k) for f in (kl_nats, tvd, chi_squared)),
        lambda p, q, **k: renyi_nats(p, q, order=0.5, **k),
        lambda p, q, **k: log_missing_mass(p, **k) + log_missing_mass(q, **k),
        lambda p, q, **k: with_missing_outcome(p, **k) + with_missing_outcome(q, **k),
    ],
)
class TestEveryFunction:
    def test_refuses_nan(self, call):
        good = np.log([0.5, 0.5])
        bad = np.array([0.0, math.nan])
        for pair, name in (((bad, good), "log_p"), ((good, bad), "log_[pq]")):
            with pytest.raises(
                InvalidDistributionError, match=f"{name} must not be NaN; write -inf"
            ):
                call(*pair)

    def test_refuses_log_probabilities_above_0(self, call):
        with pytest.raises(
            InvalidDistributionError, match=r"at most 0, got 0\.5; take log_softmax"
        ):
            call(np.array([0.5, -1.0]), np.log([0.5, 0.5]))

    def test_refuses_too_much_mass(self, call):
        with pytest.raises(InvalidDistributionError, match=r"must sum to at most 1, got 1\.2"):
            call(np.log([0.6, 0.6]), np.log([0.5, 0.5]))

    def test_refuses_what_is_no_float_array(self, call):
        good = np.log([0.5, 0.5])
        with pytest.raises(
            InvalidArgumentError, match="must be a NumPy array or a torch tensor, got"
        ):
            call([0.0, 0.0], good)
        with pytest.raises(
            InvalidArgumentError, match="real floating-point numbers, got dtype int64"
        ):
            call(np.array([0, -1]), good)

    def test_refuses_rows_without_symbols(self, call):
        for bad in (np.zeros((3, 0)), np.float64(0.0)):
            with pytest.raises(InvalidShapeError, match=r"shape \(\.\.\., d\) with d >= 1"):
                call(bad, bad)

    def test_gives_the_same_unchecked(self, call):
        log_p, log_q = np.log([[0.2, 0.3], [0.5, 0.1]])
        np.testing.assert_array_equal(call(log_p, log_q), call(log_p, log_q, unchecked=True))
        assert call(log_p + 1, log_q, unchecked=True) is not None


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_rows_must_fit_together(divergence):
    two, three = np.log([0.5, 0.5]), np.log([0.2, 0.3, 0.5])
    with pytest.raises(InvalidShapeError, match=r"same number of symbols, got .*\(2,\).*\(3,\)"):
        divergence(two, three)
    with pytest.raises(InvalidShapeError, match=r"must broadcast, got .*\(4, 2\).*\(3, 2\)"):
        divergence(np.tile(two, (4, 1)), np.tile(two, (3, 1)))
    with pytest.raises(
        InvalidArgumentError, match="from one library, got log_p: ndarray, log_q: T"
    ):
        divergence(two, torch.tensor(two))


@pytest.mark.parametrize("order", [-0.1, math.nan, -INF])
def test_an_order_lies_in_0_to_inf(order):
    row = np.log([0.5, 0.5])
    with pytest.raises(InvalidArgumentError, match=rf"order must lie in \[0, inf\], got {order}"):
        renyi_nats(row, row, order=order)


def test_rounding_of_a_float32_softmax_over_a_large_vocabulary_is_tolerated(rng):
    logits = torch.tensor(rng.normal(size=(8, 32000)) * 4, dtype=torch.float32)
    log_p = logits.log_softmax(-1)
    xp = array_api_compat.array_namespace(log_p)
    assert xp.all(kl_nats(log_p, log_p.flip(0)) > 0)
    assert xp.all(kl_nats(log_p, log_p) == 0)


def test_a_row_counts_as_full_from_a_millionth_of_a_millionth_on():
    short, full = (np.log([0.5, 0.5 - gap]) for gap in (5e-12, 5e-13))
    assert float(log_missing_mass(short)) == pytest.approx(math.log(5e-12), rel=1e-3)
    assert float(log_missing_mass(full)) == -math.inf
