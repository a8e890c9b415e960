"""The projections: right to 1e-12 in 60-digit arithmetic, total, differentiable, in any library."""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import minimize

import theory.projections
from tests import exact_divergences as exact
from tests.strategies import budgets_nats, log_normalised, log_row_pairs, log_rows
from theory.divergences import kl_nats
from theory.errors import (
    InvalidArgumentError,
    InvalidBudgetError,
    InvalidDistributionError,
    InvalidShapeError,
    SolverError,
)
from theory.kl_paths import GeometricPath, LinearPath
from theory.projections import (
    LEAST_KL,
    RESIDUAL_LIMIT,
    fixed_kl_mixture,
    geometric_projection,
)

INF = math.inf
PROJECTIONS = [fixed_kl_mixture, geometric_projection]
both = pytest.mark.parametrize("project", PROJECTIONS)


def exact_kl(project, log_a, log_b, weight):
    """KL(x||b) at `weight`, with a and b normalised exactly."""
    a, b = exact.probabilities(log_a), exact.probabilities(log_b)
    path = exact.mixture if project is fixed_kl_mixture else exact.tilted
    return exact.kl(path(a, b, weight), b)


def jump_nats(log_a, log_b):
    """KL of b restricted to a's support from b, where the geometric path starts."""
    a, b = exact.probabilities(log_a), exact.probabilities(log_b)
    kept = mpmath.fsum(q for p, q in zip(a, b, strict=True) if p > 0)
    return float(-mpmath.log(kept)) if kept > 0 else INF


def shares():
    """Where on its path from b (0) to a (1) the KL of a target lies, the ends close by included."""
    return st.floats(-28, 28).map(lambda odds: 1 / (1 + math.exp(-odds)))


@both
@given(pair=log_row_pairs(min_symbols=2), share=shares())
def test_the_kl_is_right_to_1e12_relative_at_the_returned_weight(project, pair, share):
    log_a, log_b = pair
    full = float(project(log_a, log_b, INF).kl_nats)
    start = jump_nats(log_a, log_b) if project is geometric_projection else 0.0
    target = start + share * (full - start)
    assume(target >= LEAST_KL and full - start > 1e-12 * full)
    found = project(log_a, log_b, target)
    if found.weight < 1:
        recomputed = exact_kl(project, log_a, log_b, found.weight)
        assert abs(recomputed / mpmath.mpf(target) - 1) <= RESIDUAL_LIMIT
    assert found.kl_nats == pytest.approx(target, rel=RESIDUAL_LIMIT)
    assert 0 <= found.relative_residual <= RESIDUAL_LIMIT


@both
@given(pair=log_row_pairs(min_symbols=2, zeros=False))
def test_the_smallest_targets_are_right_too(project, pair):
    log_a, log_b = pair
    assume(project(log_a, log_b, INF).kl_nats > LEAST_KL)
    found = project(log_a, log_b, LEAST_KL)
    recomputed = exact_kl(project, log_a, log_b, found.weight)
    assert abs(recomputed / mpmath.mpf(LEAST_KL) - 1) <= RESIDUAL_LIMIT


@both
def test_a_proposal_that_is_the_base_but_for_its_zeros_keeps_its_digits(project, rng):
    # On the base's support a is b times a constant, nearly: the constant must cost nothing.
    log_b = log_normalised(rng.normal(size=8))
    log_b[:3] = -INF
    log_b = log_normalised(log_b)
    shape = log_b + 3e-5 * rng.normal(size=8)
    log_a = log_normalised(np.where(log_b > -INF, shape, -0.5))
    full = float(project(log_a, log_b, INF).kl_nats)
    assert 2 * LEAST_KL < full < 1e-9
    for target in (LEAST_KL, 0.5 * full, 0.999 * full):
        weight = project(log_a, log_b, target).weight
        recomputed = exact_kl(project, log_a, log_b, weight)
        assert abs(recomputed / mpmath.mpf(float(target)) - 1) <= RESIDUAL_LIMIT


@both
@given(pair=log_row_pairs())
def test_the_kl_of_a_saturated_row_is_that_of_the_proposal(project, pair):
    log_a, log_b = pair
    found = project(log_a, log_b, INF)
    a, b = exact.probabilities(log_a), exact.probabilities(log_b)
    if all(p == 0 for p, q in zip(a, b, strict=True) if q > 0):
        assert found.weight == found.kl_nats == 0
        np.testing.assert_allclose(found.log_x, log_b, rtol=1e-15)
        return
    expected = exact.projected(a, b)
    assert found.weight == 1
    assert found.kl_nats == pytest.approx(float(exact.kl(expected, b)), rel=1e-12, abs=1e-28)
    for log_x, p in zip(found.log_x, expected, strict=True):
        assert float(log_x) == pytest.approx(
            float(mpmath.log(p)) if p else -INF, rel=1e-12, abs=1e-12
        )


@both
@given(pair=log_row_pairs(), budget=budgets_nats())
def test_nothing_is_ever_nan_and_no_more_is_spent_than_allowed(project, pair, budget):
    found = project(*pair, budget, unchecked=True)
    assert not np.any(np.isnan(found.log_x))
    assert 0 <= found.weight <= 1
    assert 0 <= found.kl_nats <= budget * (1 + RESIDUAL_LIMIT)
    assert np.exp(found.log_x).sum() == pytest.approx(1, abs=1e-12)
    if found.weight < 1 and project is fixed_kl_mixture:
        assert found.kl_nats == pytest.approx(budget if found.weight else 0, rel=1e-11, abs=1e-199)


@both
@given(pair=log_row_pairs(min_symbols=2), share=shares())
def test_the_log_probabilities_are_those_of_the_weight(project, pair, share):
    found = project(*pair, share * float(project(*pair, INF).kl_nats))
    a, b = map(exact.probabilities, pair)
    assume(0 < found.weight < 1)
    path = exact.mixture if project is fixed_kl_mixture else exact.tilted
    for log_x, x in zip(found.log_x, path(a, b, found.weight), strict=True):
        expected = float(mpmath.log(x)) if x else -INF
        # near weight 1 a last digit of the weight is as much as x where a is 0
        slack = 1e-12 + 4e-16 / (1 - float(found.weight)) + 2e-16 * abs(expected)
        assert float(log_x) == pytest.approx(expected, abs=slack)


@given(log_row_pairs(min_symbols=2, zeros=False), st.lists(shares(), min_size=2, max_size=2))
def test_a_larger_budget_goes_further(pair, chosen):
    log_a, log_b = pair
    full = float(fixed_kl_mixture(log_a, log_b, INF).kl_nats)
    assume(full > 1e-6)
    near, far = (fixed_kl_mixture(log_a, log_b, full * share) for share in sorted(chosen))
    assert near.weight <= far.weight * (1 + 1e-12)


@pytest.mark.parametrize("p", [1e-300, 1e-9, 0.01, 0.3, 0.999])
@pytest.mark.parametrize("q_over", [1e-7, 0.01, 0.5, 0.99])
def test_a_bet_on_one_token_is_the_root_of_the_binary_divergence(p, q_over):
    with mpmath.workdps(60):
        q = mpmath.mpf(p) + mpmath.mpf(q_over) * (1 - mpmath.mpf(p))
        target = float(exact.kl([q, 1 - q], [mpmath.mpf(p), 1 - mpmath.mpf(p)]))
    base = np.array([math.log(p), math.log1p(-p)])
    for project in PROJECTIONS[:1]:
        found = project(np.array([0.0, -INF]), base, target)
        assert float(found.weight) == pytest.approx(q_over, rel=1e-11)


@both
def test_the_ends_are_exact(project):
    log_a, log_b = np.log([0.7, 0.2, 0.1]), np.log([0.2, 0.3, 0.5])
    full = kl_nats(log_a, log_b)
    for budget in (full, full * (1 + 1e-15), 1e300, INF):
        assert project(log_a, log_b, budget).weight == 1
    for budget in (0.0, 5e-324, 1e-250):
        found = project(log_a, log_b, budget)
        assert found.weight == found.kl_nats == 0
        np.testing.assert_allclose(found.log_x, log_b, rtol=1e-15)
    assert project(log_a, log_b, full * (1 - 1e-12)).weight < 1


@both
def test_a_proposal_off_the_support_of_the_base_leaves_the_base(project):
    found = project(np.array([0.0, -INF]), np.array([-INF, 0.0]), 5.0)
    assert found.weight == found.kl_nats == 0
    np.testing.assert_array_equal(found.log_x, [-INF, 0.0])


@both
def test_equal_rows_and_one_symbol_are_the_proposal_for_any_budget(project):
    for row in (np.log([0.3, 0.7]), np.zeros(1), np.array([-INF, 0.0])):
        found = project(row, row, 0.5)
        assert found.weight == 1
        assert found.kl_nats == 0
        np.testing.assert_allclose(found.log_x, row, atol=1e-16)


def test_the_geometric_path_stays_at_the_base_until_its_jump():
    log_a, log_b = np.array([math.log(0.9), math.log(0.1), -INF]), np.log([0.2, 0.3, 0.5])
    jump = math.log(2)
    assert geometric_projection(log_a, log_b, 0.999 * jump).weight == 0
    above = geometric_projection(log_a, log_b, 1.001 * jump)
    assert 0 < above.weight < 1
    assert above.kl_nats == pytest.approx(1.001 * jump, rel=1e-13)
    assert above.log_x[2] == -INF


def test_a_jump_that_leaves_almost_nothing_of_the_base_is_right_too():
    log_a = np.array([math.log(0.5), math.log(0.5), -INF])
    log_b = np.array([-300.0, -302.0, 0.0])
    jump = jump_nats(log_a, log_b)
    full = float(geometric_projection(log_a, log_b, INF).kl_nats)
    target = 0.5 * (jump + full)
    assert jump > 299
    found = geometric_projection(log_a, log_b, target)
    recomputed = exact_kl(geometric_projection, log_a, log_b, found.weight)
    assert abs(recomputed / mpmath.mpf(target) - 1) <= RESIDUAL_LIMIT


@pytest.mark.parametrize("budget", [0.02, 0.3, 1.0])
def test_the_geometric_projection_is_nearest_to_the_proposal_within_the_budget(budget, rng):
    log_a, log_b = (log_normalised(2 * rng.normal(size=4)) for _ in range(2))
    found = geometric_projection(log_a, log_b, budget)
    best = minimize(
        lambda logits: kl_nats(log_normalised(logits), log_a),
        np.zeros(4),
        constraints={
            "type": "ineq",
            "fun": lambda logits: budget - kl_nats(log_normalised(logits), log_b),
        },
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    reached = kl_nats(found.log_x, log_a)
    assert reached == pytest.approx(best.fun, rel=1e-5)
    assert reached <= kl_nats(fixed_kl_mixture(log_a, log_b, budget).log_x, log_a) + 1e-12


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_weight_is_right_for_single_precision_rows_too(project, dtype, rng):
    log_a, log_b = (
        torch.tensor(rng.normal(size=(5, 40)) * 3).log_softmax(-1).to(dtype) for _ in range(2)
    )
    found = project(log_a, log_b, torch.tensor([1e-10, 1e-6, 1e-2, 0.5, 2.0]))
    assert found.log_x.dtype == dtype
    assert found.weight.dtype == found.kl_nats.dtype == torch.float64
    for row, target in enumerate(torch.tensor([1e-10, 1e-6, 1e-2, 0.5, 2.0]).double()):
        recomputed = exact_kl(project, log_a[row], log_b[row], found.weight[row])
        assert abs(recomputed / mpmath.mpf(float(target)) - 1) <= RESIDUAL_LIMIT


@both
def test_batches_of_any_shape_are_rows_by_themselves(project, rng):
    log_a, log_b = (rng.normal(size=(2, 3, 7)) for _ in range(2))
    log_a, log_b = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (log_a, log_b))
    budget = rng.uniform(0.01, 0.3, size=(2, 3))
    found = project(log_a, log_b, budget)
    assert found.log_x.shape == (2, 3, 7)
    assert found.weight.shape == found.kl_nats.shape == found.relative_residual.shape == (2, 3)
    for index in np.ndindex(2, 3):
        alone = project(log_a[index], log_b[index], budget[index])
        assert alone.weight.shape == ()
        assert alone.weight == pytest.approx(found.weight[index], rel=1e-11)
        np.testing.assert_allclose(alone.log_x, found.log_x[index], rtol=1e-10)
    spread = project(log_a[0, 0], log_b, 0.1)
    assert spread.weight[1, 2] == pytest.approx(
        float(project(log_a[0, 0], log_b[1, 2], 0.1).weight), rel=1e-11
    )
    fan = project(log_a[0, 0], log_b[0, 0], budget)
    assert fan.log_x.shape == (2, 3, 7)
    empty = project(log_a[:0], log_b[:0], 0.1)
    assert empty.log_x.shape == (0, 3, 7)
    assert empty.weight.shape == (0, 3)


@both
def test_a_row_has_the_same_bits_wherever_it_lies(project, rng):
    logits = rng.normal(size=(2, 31, 50))
    log_a, log_b = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    found = project(log_a, log_b, 0.05)
    few = project(log_a[-5:], log_b[-5:], 0.05)
    for name in ("weight", "log_x", "kl_nats", "relative_residual"):
        np.testing.assert_array_equal(getattr(found, name)[-5:], getattr(few, name))
    np.testing.assert_allclose(kl_nats(found.log_x, log_b), 0.05, rtol=1e-10)


@both
@given(pair=log_row_pairs(min_symbols=2), shares_=st.lists(shares(), min_size=3, max_size=3))
def test_a_device_that_cannot_be_read_gets_the_same_answers_in_a_fixed_number_of_steps(
    project, pair, shares_
):
    full = float(project(*pair, INF).kl_nats)
    budget = np.maximum(full * np.array(shares_), LEAST_KL)
    expected = project(*pair, budget)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theory.projections, "reading_waits", lambda array: True)
        found = project(*map(torch.tensor, pair), torch.tensor(budget))
    np.testing.assert_allclose(found.kl_nats, expected.kl_nats, rtol=2 * RESIDUAL_LIMIT, atol=1e-28)
    np.testing.assert_array_equal(found.weight == 1, expected.weight == 1)
    np.testing.assert_array_equal(found.weight == 0, expected.weight == 0)


@pytest.mark.parametrize(
    ("project", "path", "n_rough"),
    [(fixed_kl_mixture, LinearPath, 2), (geometric_projection, GeometricPath, 3)],
)
@pytest.mark.parametrize("budget_nats", [1e-6, 0.01, 0.1])
def test_from_its_first_guess_the_search_is_short(
    project, path, n_rough, budget_nats, rng, monkeypatch
):
    """Of ordinary rows, by array operations: so many rough steps and an exact one are enough."""
    monkeypatch.setattr(theory.projections, "reading_waits", lambda array: True)
    monkeypatch.setattr(path, "rough_steps", n_rough)
    monkeypatch.setattr(path, "exact_steps", 1)
    rows = [torch.tensor(rng.normal(size=(200, 7))).log_softmax(-1) for _ in range(2)]
    found = project(*rows, torch.tensor(budget_nats).double())
    assert found.relative_residual.abs().max() <= 1e-11


@both
@pytest.mark.parametrize("wanted", [(0, 1, 2), (0,), (1,), (2,)])
def test_a_device_that_cannot_be_read_gets_the_same_gradients(project, wanted, rng, monkeypatch):
    rows = [torch.tensor(rng.normal(size=(4, 7))).log_softmax(-1) for _ in range(2)]
    inputs = [*rows, torch.tensor([0.1, 0.2, 50.0, 0.0]).double()]
    asked = [inputs[i].requires_grad_() for i in wanted]
    cotangent = torch.tensor(rng.normal(size=(4, 7)))

    def gradients():
        return torch.autograd.grad((project(*inputs).log_x * cotangent).sum(), asked)

    expected = gradients()
    monkeypatch.setattr(theory.projections, "reading_waits", lambda array: True)
    for found, gradient in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(found, gradient, rtol=1e-9, atol=1e-12)


def finite_difference(function, inputs, direction, *, step):
    """The derivative of `function` along `direction`, by Richardson's extrapolation."""

    def central(h):
        moved = [
            function(*(x + sign * h * d for x, d in zip(inputs, direction, strict=True)))
            for sign in (1, -1)
        ]
        return (moved[0] - moved[1]) / (2 * h)

    return (4 * central(step / 2) - central(step)) / 3


@both
@pytest.mark.parametrize("target", [1e-8, 1e-3, 0.05, 0.4, 50.0])
@pytest.mark.parametrize("result", ["log_x", "weight", "kl_nats"])
def test_gradients_are_within_1e7_of_finite_differences(project, target, result, rng):
    inputs = [torch.tensor(rng.normal(size=(3, 6))) for _ in range(2)]
    inputs.append(torch.tensor(target * np.array([0.7, 1.0, 1.3])))
    direction = [torch.tensor(rng.normal(size=x.shape)) for x in inputs]
    direction[2] = direction[2] * target
    cotangent = torch.tensor(rng.normal(size=(3, 6) if result == "log_x" else 3))

    def pulled(logits_a, logits_b, k):
        found = project(logits_a.log_softmax(-1), logits_b.log_softmax(-1), k)
        return (getattr(found, result) * cotangent).sum()

    leaves = [x.clone().requires_grad_() for x in inputs]
    gradients = torch.autograd.grad(pulled(*leaves), leaves)
    along = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
    difference = float(finite_difference(pulled, inputs, direction, step=2e-4))
    assert along == pytest.approx(difference, rel=1e-7, abs=1e-7)


@both
@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2)])
def test_gradients_flow_to_whichever_input_asks_for_them(project, wanted, rng):
    inputs = [torch.tensor(rng.normal(size=(2, 5))).log_softmax(-1) for _ in range(2)]
    inputs.append(torch.tensor([0.05, 0.1], dtype=torch.float64))
    everything = [x.clone().requires_grad_() for x in inputs]
    some = [x.clone().requires_grad_(i in wanted) for i, x in enumerate(inputs)]
    results = []
    for leaves in (everything, some):
        found = project(*leaves)
        total = (found.log_x**2).sum() + found.weight.sum() + found.kl_nats.sum()
        asked = [leaves[i] for i in wanted]
        results.append(torch.autograd.grad(total, asked))
    for full, partial in zip(*results, strict=True):
        torch.testing.assert_close(full, partial)


@both
def test_at_the_ends_the_target_has_no_gradient_and_the_row_has_that_of_its_end(project, rng):
    logits = [torch.tensor(rng.normal(size=5), requires_grad=True) for _ in range(2)]
    for budget, end in ((0.0, 1), (1e9, 0), (INF, 0)):
        k = torch.tensor(budget, dtype=torch.float64, requires_grad=True)
        rows = [x.log_softmax(-1) for x in logits]
        found = project(*rows, k)
        for part in (found.log_x.sum(), found.weight, found.kl_nats):
            (slope,) = torch.autograd.grad(part, k, retain_graph=True)
            assert slope == 0
        cotangent = torch.tensor(rng.normal(size=5))
        ours = torch.autograd.grad((found.log_x * cotangent).sum(), logits, retain_graph=True)
        theirs = torch.autograd.grad(
            (rows[end] * cotangent).sum(), logits, retain_graph=True, materialize_grads=True
        )
        for our, their in zip(ours, theirs, strict=True):
            torch.testing.assert_close(our, their, rtol=1e-12, atol=1e-14)
        if end == 0:
            ours = torch.autograd.grad(found.kl_nats, logits, retain_graph=True)
            theirs = torch.autograd.grad(kl_nats(*rows), logits)
            for our, their in zip(ours, theirs, strict=True):
                torch.testing.assert_close(our, their, rtol=1e-12, atol=1e-14)


@both
@given(pair=log_row_pairs(), budget=budgets_nats())
def test_gradients_are_never_nan(project, pair, budget):
    inputs = [torch.tensor(x, requires_grad=True) for x in (*pair, np.asarray(budget))]
    found = project(*inputs)
    log_x = torch.where(found.log_x > -INF, found.log_x, 0.0)
    total = log_x.sum() + found.weight + found.kl_nats
    for gradient in torch.autograd.grad(total, inputs):
        assert torch.isfinite(gradient).all()


@both
@pytest.mark.parametrize("budget", [0.0, 1e-9, 0.1, 1e9, INF])
def test_values_do_not_depend_on_whether_gradients_are_asked_for(project, budget):
    values = (np.log([0.7, 0.2, 0.1]), np.log([0.2, 0.3, 0.5]), np.asarray(budget))
    plain = project(*(torch.tensor(x) for x in values))
    tracked = project(*(torch.tensor(x, requires_grad=True) for x in values))
    for name in ("weight", "log_x", "kl_nats"):
        found = getattr(tracked, name)
        assert found.requires_grad
        torch.testing.assert_close(found.detach(), getattr(plain, name), rtol=0, atol=0)


@both
def test_impossible_symbols_have_no_gradient(project):
    log_a = np.array([math.log(0.6), math.log(0.1), math.log(0.3), -INF, -INF])
    log_b = np.array([math.log(0.2), math.log(0.4), math.log(0.3), math.log(0.1), -INF])
    rows = [torch.tensor(row, requires_grad=True) for row in (log_a, log_b)]
    found = project(*rows, 0.25)
    assert 0 < found.weight < 1
    (found.log_x.exp() * torch.arange(5)).sum().backward()
    by_a, by_b = (row.grad for row in rows)
    assert by_a[3] == by_a[4] == by_b[4] == 0
    assert torch.isfinite(by_b).all()
    assert (by_a[:3] != 0).all()


@both
def test_numpy_and_torch_agree_to_the_last_digits(project, rng):
    logits = rng.normal(size=(2, 6, 9))
    log_a, log_b = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    ours = project(log_a, log_b, 0.1)
    theirs = project(torch.tensor(log_a), torch.tensor(log_b), 0.1)
    for name in ("weight", "log_x", "kl_nats", "relative_residual"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name).numpy())


@both
@pytest.mark.parametrize(
    ("budget", "shown"), [(-1e-3, "-0.001"), (math.nan, "nan"), (-INF, "-inf")]
)
def test_a_budget_is_not_negative_nor_nan(project, budget, shown):
    row = np.log([0.5, 0.5])
    with pytest.raises(InvalidBudgetError, match=f"kl_nats must be >= 0, got {shown}"):
        project(row, row, budget)
    with pytest.raises(InvalidBudgetError, match=f"kl_nats must be >= 0, got {shown}"):
        project(np.tile(row, (2, 1)), row, np.array([0.1, budget]))
    assert project(row, np.log([0.2, 0.8]), budget, unchecked=True).weight == 0


@both
def test_rows_are_full_distributions(project):
    row = np.log([0.5, 0.5])
    for bad, message in (
        (np.log([0.5, 0.4]), r" must sum to 1, got 0\.9; say where the missing mass goes"),
        (np.log([0.6, 0.6]), r" must sum to at most 1, got 1\.2"),
        (np.array([math.nan, 0.0]), " must not be NaN"),
        (np.array([0.1, -1.0]), r" must hold log-probabilities, at most 0, got 0\.1"),
    ):
        with pytest.raises(InvalidDistributionError, match="log_a" + message):
            project(bad, row, 0.1)
        with pytest.raises(InvalidDistributionError, match="log_b" + message):
            project(row, bad, 0.1)
    unnormalised = project(np.log([0.5, 0.4]), row, 0.001, unchecked=True)
    normalised = project(log_normalised(np.log([0.5, 0.4])), row, 0.001)
    np.testing.assert_allclose(unnormalised.log_x, normalised.log_x, rtol=1e-12)


@both
def test_rows_and_budgets_fit_together(project):
    row = np.log([0.5, 0.5])
    with pytest.raises(InvalidShapeError, match="same number of symbols"):
        project(row, np.zeros(1), 0.1)
    with pytest.raises(InvalidShapeError, match=r"must broadcast, got .*\(3,\)"):
        project(np.tile(row, (2, 1)), row, np.zeros(3))
    with pytest.raises(InvalidArgumentError, match="kl_nats: Tensor"):
        project(row, row, torch.tensor(0.1))
    with pytest.raises(InvalidArgumentError, match="kl_nats must hold real floating-point"):
        project(row, row, np.array(1))


# ------------------------------------------------------------- a share of what is attainable


def test_a_target_below_the_jump_is_aimed_at_and_not_reached():
    row = np.log([1 / 3, 1 / 3, 1 / 3])
    a, b = np.append(row, -np.inf), np.insert(row, 2, -np.inf)
    found = geometric_projection(a, b, 0.3, share=0.5)
    assert found.target_nats == pytest.approx(0.15, rel=1e-12)
    assert found.weight == found.kl_nats == 0
    np.testing.assert_allclose(found.log_x, b)


@both
@given(
    pair=log_row_pairs(min_symbols=2),
    budget=budgets_nats(),
    share=st.sampled_from([0.0, 1e-12, 0.01, 0.5, 1 - 1e-12, 1.0]),
)
def test_a_share_is_one_of_the_budget_or_of_the_proposals_kl(project, pair, budget, share):
    found = project(*pair, budget, share=share)
    full = project(*pair, INF).kl_nats
    assert found.target_nats == pytest.approx(share * min(budget, full), rel=1e-12, abs=1e-199)
    if full >= LEAST_KL and share < 1:
        expected = project(*pair, share * min(budget, full))
        assert found.weight == pytest.approx(expected.weight, rel=1e-9)
        assert found.kl_nats == pytest.approx(expected.kl_nats, rel=1e-11, abs=1e-28)
        np.testing.assert_allclose(found.log_x, expected.log_x, rtol=1e-9, atol=1e-12)


@both
@pytest.mark.parametrize("share", [1e-300, 1e-6, 0.3, 1 - 1e-12])
def test_at_the_base_the_weight_is_the_root_of_the_share(project, share, rng):
    row = log_normalised(rng.normal(size=6))
    step = 1e-11 * rng.normal(size=6)
    for log_a in (row, log_normalised(row + step)):
        found = project(log_a, row, 0.5, share=share)
        assert found.weight == pytest.approx(math.sqrt(share), rel=1e-12)
        assert found.kl_nats == found.target_nats
    # And so does the solver's, next to where the limit ends.
    near = project(log_normalised(row + 100 * step), row, 0.5, share=0.3)
    assert near.weight == pytest.approx(math.sqrt(0.3), rel=1e-6)


@both
@pytest.mark.usefixtures("_either_way")
@pytest.mark.parametrize(("kl", "limit"), [(0.9e-20, True), (1.1e-20, False), (9e-20, False)])
def test_the_limit_s_weight_is_taken_below_1e_minus_20_nats_and_no_root_is_sought(
    project, kl, limit, rng
):
    row = np.stack([log_normalised(each) for each in rng.normal(size=(20, 6))])
    step = rng.normal(size=(20, 6))
    step -= (np.exp(row) * step).sum(-1, keepdims=True)
    step *= np.sqrt(2 * kl / (np.exp(row) * step**2).sum(-1, keepdims=True))
    found = project(row + step, row, 0.5, share=0.3)
    # A root that is found leaves a rounding behind, in one row of so many at least.
    assert bool((found.relative_residual == 0).all()) == limit


@both
@pytest.mark.usefixtures("_either_way")
@pytest.mark.parametrize("apart", [0.0, 1e-12, 1.0])
def test_a_share_of_nothing_has_finite_slopes(project, apart, rng):
    log_b = torch.tensor(rng.normal(size=(3, 6))).log_softmax(-1)
    log_a = (log_b + apart * torch.tensor(rng.normal(size=(3, 6)))).log_softmax(-1)
    share = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    found = project(log_a, log_b, 0.5, share=share)
    (slope,) = torch.autograd.grad(found.weight.sum() + found.kl_nats.sum(), share)
    assert torch.isfinite(slope).all()
    assert (found.weight == 0).all()


@both
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nothing_and_all_of_nothing_are_the_ends(project, share):
    row = np.log([0.3, 0.7])
    assert project(row, row, 0.5, share=share).weight == share
    assert project(row, row, 0.0, share=share).weight == 0


@both
def test_a_budget_that_is_spent_leaves_no_gradient_at_the_base(project):
    row = torch.log(torch.tensor([0.3, 0.7], dtype=torch.float64))
    log_a, share = row.clone().requires_grad_(), torch.tensor(0.3).double().requires_grad_()
    found = project(log_a, row, 0.0, share=share)
    for gradient in torch.autograd.grad(found.log_x[0] + found.weight, [log_a, share]):
        assert (gradient == 0).all()


@pytest.fixture(params=["kernel", "array operations"])
def _either_way(request, monkeypatch):
    if request.param == "array operations":
        monkeypatch.setattr(theory.projections, "reading_waits", lambda array: True)


@both
@pytest.mark.usefixtures("_either_way")
@pytest.mark.parametrize("budget", [1e-3, 0.05, 50.0])
@pytest.mark.parametrize("result", ["log_x", "weight", "kl_nats", "target_nats"])
def test_gradients_of_a_share_are_within_1e7_of_finite_differences(project, budget, result, rng):
    inputs = [torch.tensor(rng.normal(size=(3, 6))) for _ in range(2)]
    inputs += [torch.tensor(budget * np.array([0.7, 1.0, 1.3])), torch.tensor([0.06, 0.5, 0.9])]
    inputs[3] = inputs[3].double()
    direction = [torch.tensor(rng.normal(size=x.shape)) for x in inputs]
    direction[2] = direction[2] * budget
    direction[3] = direction[3] * 0.05
    cotangent = torch.tensor(rng.normal(size=(3, 6) if result == "log_x" else 3))

    def pulled(logits_a, logits_b, k, share):
        found = project(logits_a.log_softmax(-1), logits_b.log_softmax(-1), k, share=share)
        return (getattr(found, result) * cotangent).sum()

    leaves = [x.clone().requires_grad_() for x in inputs]
    gradients = torch.autograd.grad(pulled(*leaves), leaves)
    along = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
    difference = float(finite_difference(pulled, inputs, direction, step=2e-4))
    assert along == pytest.approx(difference, rel=1e-7, abs=1e-7)


@both
@pytest.mark.usefixtures("_either_way")
def test_at_the_base_the_gradient_of_a_share_is_that_nearby(project, rng):
    logits = torch.tensor(rng.normal(size=6))
    change, cotangent = torch.tensor(rng.normal(size=6)), torch.tensor(rng.normal(size=6))

    def pulled(size, share):
        rows = [(logits + size * change).log_softmax(-1), logits.log_softmax(-1)]
        return (project(*rows, 0.5, share=share).log_x * cotangent).sum()

    def slopes(size):
        leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (size, 0.3)]
        return [float(slope) for slope in torch.autograd.grad(pulled(*leaves), leaves)]

    by_size, by_share = slopes(0.0)
    h = 1e-6
    difference = float((pulled(h, 0.3) - pulled(-h, 0.3)) / (2 * h))
    assert by_size == pytest.approx(difference, rel=1e-6)
    assert by_share == 0
    # Where a is not quite b, the share matters, and both sides of the limit agree on how much.
    inside, outside = slopes(1e-11), slopes(1e-9)
    assert inside == pytest.approx([outside[0], outside[1] / 100], rel=1e-4)
    assert inside[1] != 0


@both
@given(
    pair=log_row_pairs(),
    budget=budgets_nats(),
    share=st.sampled_from([0.0, 1e-300, 0.3, 1 - 1e-12, 1.0]),
    same=st.booleans(),
)
def test_gradients_of_a_share_are_never_nan(project, pair, budget, share, same):
    log_a, log_b = pair
    arrays = (log_b if same else log_a, log_b, np.asarray(budget), np.asarray(share))
    inputs = [torch.tensor(x, requires_grad=True) for x in arrays]
    found = project(*inputs[:3], share=inputs[3], unchecked=True)
    log_x = torch.where(found.log_x > -INF, found.log_x, 0.0)
    total = log_x.sum() + found.weight + found.kl_nats + found.target_nats
    for gradient in torch.autograd.grad(total, inputs):
        assert torch.isfinite(gradient).all()


@both
def test_a_device_that_cannot_be_read_takes_the_same_shares(project, rng, monkeypatch):
    log_b = torch.tensor(rng.normal(size=(3, 6))).log_softmax(-1)
    change = torch.tensor([[0.0], [1.0], [1.0]]) * torch.tensor(rng.normal(size=6))
    log_a = (log_b + change).log_softmax(-1)
    budget, share = torch.tensor([0.5, 0.5, 0.01]).double(), torch.tensor([0.3, 0.3, 0.9]).double()
    expected = project(log_a, log_b, budget, share=share)
    monkeypatch.setattr(theory.projections, "reading_waits", lambda array: True)
    found = project(log_a, log_b, budget, share=share)
    torch.testing.assert_close(found.weight, expected.weight, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.log_x, expected.log_x, rtol=1e-9, atol=1e-12)


@both
@pytest.mark.parametrize(("share", "shown"), [(-0.1, "-0.1"), (1.5, "1.5"), (math.nan, "nan")])
def test_a_share_lies_between_nothing_and_all(project, share, shown):
    row = np.log([0.5, 0.5])
    with pytest.raises(InvalidArgumentError, match=rf"share must lie in \[0, 1\], got {shown}"):
        project(row, row, 0.1, share=share)


def test_a_solver_that_does_not_converge_says_where_it_stopped(monkeypatch):
    monkeypatch.setattr(theory.projections, "MOST_STEPS", 2)
    log_a, log_b = np.array([-1e-9, math.log(1e-9)]), np.array([math.log(1e-9), -1e-9])
    with pytest.raises(
        SolverError, match=r"stopped at weight .* with KL .*, too far from its target 3"
    ):
        fixed_kl_mixture(log_a, log_b, 3.0)
    assert fixed_kl_mixture(log_a, log_b, 3.0, unchecked=True).relative_residual > RESIDUAL_LIMIT


@given(st.integers(1, 6).flatmap(lambda n: st.tuples(log_rows(n), log_rows(n))))
def test_the_linear_path_is_convex_in_its_weight(pair):
    a, b = map(exact.probabilities, pair)
    assume(any(p > 0 < q for p, q in zip(a, b, strict=True)))
    kl = [exact.kl(exact.mixture(a, b, weight), b) for weight in (0.25, 0.5, 0.75)]
    assert kl[1] <= (kl[0] + kl[2]) / 2


@pytest.mark.parametrize("mask", [-5e3, -1e4, -1e9, -3e38, -1e300])
@pytest.mark.parametrize("of_both", [False, True])
def test_an_additive_mask_is_a_zero_on_the_geometric_path(mask, of_both, rng):
    """Whatever large number a caller adds to logits, a masked symbol has probability 0."""
    for _ in range(20):
        log_a, log_b = np.log(rng.dirichlet(np.ones(5), size=2))
        masked = np.array([False, True, True, False, False])
        log_b = log_normalised(np.where(masked, log_b + mask, log_b))
        if of_both:
            log_a = log_normalised(np.where(masked, log_a + mask, log_a))
        found, zeros = (
            geometric_projection(log_a, other, 0.05)
            for other in (log_b, np.where(masked, -np.inf, log_b))
        )
        np.testing.assert_array_equal(found.log_x, zeros.log_x)
        assert found.weight == zeros.weight
        kept = ~masked
        assert kl_nats(found.log_x[kept], log_b[kept]) == pytest.approx(
            min(0.05, float(found.target_nats)), rel=1e-9
        )


MASKS = [-5e3, -1e9, -1e25, -3e38, -1e100, -4e149]
"""Down to where a logarithm counts as that of 0; the fourth is the least number of float32."""


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("of_both", [False, True])
@pytest.mark.parametrize("budget", [1e-9, 0.05, 1e4])
def test_an_additive_mask_is_paid_for_on_the_linear_path(mask, of_both, budget, rng):
    """A masked symbol of the proposal costs its log-ratio, however large that is."""
    for n_masked in (1, 2, 3):
        log_a, log_b = np.log(rng.dirichlet(np.ones(5), size=2))
        masked = np.arange(5) < n_masked
        log_b = log_normalised(np.where(masked, log_b + mask, log_b))
        if of_both:
            log_a = log_normalised(np.where(masked, log_a + mask, log_a))
        found = fixed_kl_mixture(log_a, log_b, budget)
        spent = exact_kl(fixed_kl_mixture, log_a, log_b, found.weight)
        assert abs(spent - float(found.target_nats)) <= 2e-12 * max(float(spent), LEAST_KL)
        expected = min(budget, float(kl_nats(log_a, log_b)))
        assert float(found.target_nats) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("share", "budget"), [(0.5, INF), (1.0, INF), (0.5, 0.3), (1.0, 1e-9)])
def test_additive_masks_have_the_same_numbers_and_gradients_on_either_way(
    mask, share, budget, rng, monkeypatch
):
    values = rng.normal(size=(2, 5))
    values[1, 1] += mask

    def found():
        log_a, log_b = (torch.tensor(row).requires_grad_() for row in values)
        projected = fixed_kl_mixture(
            log_a.log_softmax(-1), log_b.log_softmax(-1), torch.tensor(budget).double(), share=share
        )
        loss = projected.log_x.exp() @ torch.arange(5.0).double() + projected.weight
        return projected.weight, projected.kl_nats, *torch.autograd.grad(loss, (log_a, log_b))

    by_kernel = found()
    monkeypatch.setattr(theory.projections, "reading_waits", lambda array: True)
    for one, other in zip(by_kernel, found(), strict=True):
        assert torch.isfinite(one).all()
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@both
@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_a_share_of_a_kl_below_1e20_is_the_limit_s_weight_and_off_by_less_than_that(project, share):
    """In exact arithmetic; a symbol of 1e-25 that is 1e4 times as likely under a misses most."""
    misses = []
    for log10_b, ratio in [(-25, 1e4), (-22, 10.0), (-30, 1e8), (-12, 1 + 1e-5), (-1, 1 + 1e-10)]:
        p = 10.0**log10_b
        a, b = (np.log([q, 1 - q]) for q in (p * ratio, p))
        found = project(a, b, 1.0, share=share)
        assert float(found.weight) == pytest.approx(math.sqrt(share), rel=1e-15)
        with mpmath.workdps(60):
            exact_a, exact_b = exact.probabilities(a), exact.probabilities(b)
            weight = mpmath.mpf(float(found.weight))
            path = exact.mixture if project is fixed_kl_mixture else exact.tilted
            spent = exact.kl(path(exact_a, exact_b, weight), exact_b)
            full = exact.kl(exact_a, exact_b)
            misses.append(float(abs(spent - share * full)))
            assert full < 1e-20
            near = ratio < 2
            assert misses[-1] <= (1e-4 * share * full if near else 1e-20)
    assert max(misses) > 1e-22
