"""The kernel's exponentials and logarithms, its memory, and the derivatives that torch asks for."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from theory import kl_kernel
from theory.kl_paths import LOG_ZERO
from theory.projections import MOST_STEPS, fixed_kl_mixture, geometric_projection

both = pytest.mark.parametrize("project", [fixed_kl_mixture, geometric_projection])
UNIT = 2.0**-53


def sizes(largest_log):
    """Numbers of all magnitudes from 1e-30, up to that of e^largest_log."""
    return st.floats(-70, largest_log).map(math.exp)


def relative_error(found, exact):
    return float(abs(mpmath.mpf(found) / exact - 1)) if exact else abs(found)


def h(y, log_ratio):
    return (1 + y) * log_ratio - y


@given(sizes(math.log(700)))
def test_the_exponential_is_right_to_two_units(size):
    with mpmath.workdps(60):
        assert relative_error(kl_kernel.exponential(-size), mpmath.exp(-size)) <= 2 * UNIT


def test_the_exponential_goes_down_to_zero():
    assert kl_kernel.exponential(0.0) == 1
    assert kl_kernel.exponential(-744.0) == pytest.approx(math.exp(-744), abs=5e-324)
    assert kl_kernel.exponential(-747.0) == kl_kernel.exponential(LOG_ZERO) == 0


@given(sizes(math.log(650)), st.sampled_from([1, -1]))
def test_a_ratio_and_its_h_follow_from_the_log_ratio_without_cancellation(size, sign):
    log_ratio = sign * size
    y, found_h = kl_kernel.ratio_and_h(log_ratio)
    with mpmath.workdps(600):
        exact_y = mpmath.expm1(mpmath.mpf(log_ratio))
        assert relative_error(y, exact_y) <= 4 * UNIT
        assert relative_error(found_h, h(exact_y, mpmath.mpf(log_ratio))) <= 40 * UNIT


def ratios():
    """y > -1: huge, tiny of both signs, and close to -1."""
    below = st.one_of(sizes(0).map(lambda x: -x / (1 + x)), sizes(-1).map(lambda x: x - 1))
    return st.one_of(sizes(640), below.filter(lambda y: y > -1))


@given(ratios())
def test_a_log_ratio_and_its_h_follow_from_the_ratio_without_cancellation(y):
    log_ratio, found_h = kl_kernel.log_ratio_and_h(y)
    with mpmath.workdps(600):
        exact_log_ratio = mpmath.log1p(mpmath.mpf(y))
        assert relative_error(log_ratio, exact_log_ratio) <= 4 * UNIT
        assert relative_error(found_h, h(mpmath.mpf(y), exact_log_ratio)) <= 40 * UNIT


@given(*[st.floats(-1e3, 1e3)] * 3)
def test_a_difference_of_three_is_rounded_about_once(x, y, z):
    exact = Fraction(x) - Fraction(y) - Fraction(z)
    error = abs(Fraction(kl_kernel.difference(x, y, z)) - exact)
    lost_twice = 2 * UNIT**2 * (abs(x) + abs(y) + abs(z))
    assert error <= Fraction(UNIT) * abs(exact) + Fraction(lost_twice)


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_integers_of_floats_are_in_their_order_and_give_them_back(x, y):
    x, y = x + 0.0, y + 0.0  # of the two zeros only this one
    assert (kl_kernel.ordered(x) < kl_kernel.ordered(y)) == (x < y)
    assert kl_kernel.unordered(kl_kernel.ordered(x)) == x


@given(st.floats(-3, 2.3), st.floats(-3, 2.3), st.floats(-9, 2), st.integers(0, 2**32 - 1))
def test_what_is_left_out_where_no_derivative_is_wanted_changes_no_result(wide, apart, size, seed):
    rng = np.random.default_rng(seed)
    log_b = 10**wide * rng.normal(size=(8, 30))
    log_a = log_b + 10**apart * rng.normal(size=log_b.shape)
    k = 10**size * rng.uniform(0, 2, size=8)
    plain, kept = (
        kl_kernel.solve(
            log_a, log_b, k, np.ones(8), geometric=True, most_steps=MOST_STEPS, keep=keep
        )
        for keep in (False, True)
    )
    np.testing.assert_allclose(plain.rows["weight"], kept.rows["weight"], rtol=1e-11)
    np.testing.assert_allclose(plain.rows["kl"], kept.rows["kl"], rtol=1e-12, atol=1e-24)
    np.testing.assert_allclose(plain.log_x, kept.log_x, rtol=1e-10, atol=1e-10)


@given(st.floats(-3, 1), st.floats(-20, 20), st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
def test_a_point_of_the_geometric_path_is_the_same_whatever_was_guessed(
    log_sum, mean, weight, seed
):
    log_a, log_b = 3 * np.random.default_rng(seed).normal(size=(2, 20))
    record, rows = np.empty((3, 1, 20)), np.zeros(1, kl_kernel.ROW)
    kl_kernel.solve_rows(
        *(True, log_a[None], log_b[None], np.full(1, 1e-3), np.ones(1), MOST_STEPS),
        *(record, np.empty((1, 20)), rows),
    )
    (base, _, tilt), row = record[:, 0], rows[0]
    row["log_sum"], row["mean"] = log_sum, mean
    found = kl_kernel.geometric_point(weight, log_b, base, tilt, np.empty(20), row)
    with mpmath.workdps(40):
        b = [mpmath.exp(mpmath.mpf(x)) for x in log_b]
        s = [mpmath.mpf(x) - mpmath.mpf(y) for x, y in zip(log_a, log_b, strict=True)]
        x = [q * mpmath.exp(weight * t) for q, t in zip(b, s, strict=True)]
        b, x = ([p / mpmath.fsum(ps) for p in ps] for ps in (b, x))
        kl = mpmath.fsum(p * mpmath.log(p / q) for p, q in zip(x, b, strict=True))
        centre = mpmath.fsum(p * t for p, t in zip(x, s, strict=True))
        variance = mpmath.fsum(p * (t - centre) ** 2 for p, t in zip(x, s, strict=True))
        assert relative_error(found[0], kl) <= 1e-12
        assert relative_error(found[1], weight * variance) <= 1e-11


@pytest.mark.parametrize("weight", [0.05, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("last", [0.0, 0.2])
def test_guesses_at_a_point_are_near_it_where_rows_are_not_far_apart(weight, last, rng):
    """They cost no digits where they are not; but each then takes another pass."""
    log_b = rng.normal(size=20)
    log_a = log_b + 0.3 * rng.normal(size=20)
    record, rows = np.empty((3, 1, 20)), np.zeros(1, kl_kernel.ROW)
    kl_kernel.solve_rows(
        *(True, log_a[None], log_b[None], np.full(1, 1e-3), np.ones(1), MOST_STEPS),
        *(record, np.empty((1, 20)), rows),
    )
    (base, _, tilt), row = record[:, 0], rows[0]
    slope = 0.0
    if last:
        kl_kernel.guess_sums(0.0, last, 0.0, row)
        _, slope = kl_kernel.geometric_point(last, log_b, base, tilt, np.empty(20), row)
    kl_kernel.guess_sums(last, weight, slope, row)
    guessed = row["log_sum"], row["mean"]
    kl_kernel.exact_point(weight, log_b, base, tilt, np.empty(20), row)
    near = 2e-3 if last == 0 else 0.05 * (weight - last) ** 2
    assert guessed == pytest.approx((row["log_sum"], row["mean"]), abs=near)


@both
def test_rows_that_may_not_be_written_to_or_are_not_contiguous_are_read_all_the_same(project, rng):
    logits = rng.normal(size=(2, 7, 5))
    log_a, log_b = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = project(log_a, log_b, 0.05)
    turned = np.asfortranarray(log_a)
    log_b.flags.writeable = False
    found = project(turned, log_b, 0.05)
    np.testing.assert_array_equal(found.log_x, expected.log_x)
    np.testing.assert_array_equal(found.weight, expected.weight)


@both
def test_arguments_are_left_as_they_were(project, rng):
    logits = rng.normal(size=(2, 7, 5))
    rows = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    before = rows.copy()
    project(*rows, 0.05)
    np.testing.assert_array_equal(rows, before)


def tracked_rows(rng):
    return [
        torch.tensor(rng.normal(size=(3, 6))).log_softmax(-1).requires_grad_() for _ in range(2)
    ]


@both
def test_gradients_of_one_graph_may_be_taken_twice_and_add_up(project, rng):
    log_a, log_b = tracked_rows(rng)
    found = project(log_a, log_b, 0.05)
    parts = (found.log_x[:, 0].sum(), found.weight.sum() + (found.log_x**2).sum())
    by_part = [torch.autograd.grad(part, log_a, retain_graph=True)[0] for part in parts]
    (by_sum,) = torch.autograd.grad(sum(parts), log_a)
    torch.testing.assert_close(sum(by_part), by_sum, rtol=1e-12, atol=1e-14)


@both
def test_there_are_no_second_derivatives(project, rng):
    log_a, log_b = tracked_rows(rng)
    total = (project(log_a, log_b, 0.05).log_x ** 2).sum()
    (slope,) = torch.autograd.grad(total, log_a, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@both
def test_a_row_that_was_overwritten_has_no_gradient(project, rng):
    log_a, log_b = tracked_rows(rng)
    proposal = log_a + 0.0
    total = project(proposal, log_b, 0.05).log_x.sum()
    with torch.no_grad():
        proposal.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def test_what_is_compiled_beforehand_is_all_that_a_projection_and_its_gradient_call(rng):
    kl_kernel.warm_up()
    called = (kl_kernel.solve_rows, kl_kernel.pull_back_rows)
    before = [len(function.signatures) for function in called]
    log_a, log_b = tracked_rows(rng)
    found = fixed_kl_mixture(log_a, log_b, 0.05).log_x
    torch.autograd.grad((found**2).sum(), log_a)
    assert [len(function.signatures) for function in called] == before
