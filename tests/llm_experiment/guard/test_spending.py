import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm_experiment.guard.arguments import check_budget
from llm_experiment.guard.spending import (
    open_budget,
    policy_kl_nats,
    policy_weights,
    scan_budgets,
    tilted,
)
from tests.llm_experiment.guard.pairs import law_by_bisection, laws_by_hand
from theory.divergences import kl_nats
from theory.errors import InvalidArgumentError, InvalidBudgetError, InvalidDistributionError

CPU = torch.device("cpu")
halves = st.integers(0, 12).map(lambda n: Fraction(n, 2))


def rows(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return logits.log_softmax(dim=-1)


def laws(log_a, log_b, *, budget, share=1.0, charged=None):
    """Log-laws of shape (n, t, d), and what they are charged."""
    n, t, d = log_a.shape
    kl = policy_kl_nats(log_a, log_b)
    charged = torch.ones(n, t, dtype=torch.bool) if charged is None else charged
    allowed, spent, _ = scan_budgets(
        kl, charged, open_budget(budget, n, device=CPU), step_share=share
    )
    flat = policy_weights(
        log_a.reshape(-1, d), log_b.reshape(-1, d), kl.flatten(), allowed.flatten()
    )
    return tilted(log_a, log_b, flat.reshape(n, t)), spent


# --------------------------------------------------------------------------------- the law


@pytest.mark.parametrize(("budget", "share"), [(0.7, 1.0), (1.5, 0.4), (3.0, 0.05)])
def test_the_laws_of_sequences_are_those_that_a_bisection_finds(budget, share):
    log_a, log_b = rows(5, 7, 4)
    found, spent = laws(log_a, log_b, budget=budget, share=share)
    for i in range(5):
        expected, costs = laws_by_hand(
            log_a[i].numpy(), log_b[i].numpy(), budget=budget, share=share
        )
        np.testing.assert_allclose(found[i].numpy(), expected, atol=1e-7)
        np.testing.assert_allclose(spent[i].numpy(), costs, atol=1e-9)


def test_of_all_laws_within_the_budget_it_is_the_nearest_to_the_policy():
    log_a, log_b = rows(1, 1, 3)
    a, b = log_a[0, 0].numpy(), log_b[0, 0].numpy()
    budget = 0.3 * float(np.sum(np.exp(a) * (a - b)))
    found = laws(log_a, log_b, budget=budget)[0][0, 0].numpy()
    grid = np.linspace(1e-3, 1 - 1e-3, 400)
    p, q = (part.ravel() for part in np.meshgrid(grid, grid))
    x = np.stack([p, q, 1 - p - q], axis=1)
    x = x[x.min(axis=1) > 0]
    within = x[np.sum(x * (np.log(x) - b), axis=1) <= budget]
    distances = np.sum(within * (np.log(within) - a), axis=1)
    distance = float(np.sum(np.exp(found) * (found - a)))
    assert distance <= distances.min() <= distance + 1e-3


def test_no_budget_is_the_reference_and_enough_of_it_the_policy():
    log_a, log_b = rows(3, 4, 5)
    torch.testing.assert_close(laws(log_a, log_b, budget=0.0)[0], log_b, rtol=0, atol=1e-15)
    torch.testing.assert_close(laws(log_a, log_b, budget=1e6)[0], log_a, rtol=0, atol=1e-15)


def test_what_only_one_of_the_ends_rules_out_is_ruled_out_where_that_end_is_played():
    log_a = torch.tensor([[0.0, -math.inf]], dtype=torch.float64)
    log_b = torch.tensor([[-math.inf, 0.0]], dtype=torch.float64)
    for weight, expected in ((0.0, log_b), (1.0, log_a)):
        assert torch.equal(tilted(log_a, log_b, torch.tensor([weight]).double()), expected)


# --------------------------------------------------------------------------------- the scan


@given(
    st.lists(st.lists(halves, min_size=4, max_size=4), min_size=1, max_size=3),
    halves,
    st.sampled_from([Fraction(1), Fraction(1, 2), Fraction(1, 4)]),
    st.lists(st.booleans(), min_size=4, max_size=4),
    st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_what_is_spent_is_what_rationals_say(costs, budget, share, pays, starts):
    n = len(costs)
    allowed, spent, ledger = scan_budgets(
        torch.tensor([[float(c) for c in row] for row in costs], dtype=torch.float64),
        torch.tensor([pays] * n),
        open_budget(float(budget), n, device=CPU),
        step_share=float(share),
        starts=torch.tensor([starts] * n),
    )
    for i, row in enumerate(costs):
        left, total = budget, Fraction(0)
        for t, cost in enumerate(row):
            if starts[t]:
                left, total = budget, Fraction(0)
            may = share * left if pays[t] else math.inf
            assert float(allowed[i, t]) == float(may)
            paid = min(cost, share * left) if pays[t] else 0
            assert float(spent[i, t]) == float(paid)
            left, total = left - paid, total + paid
        assert float(ledger.spent_nats[i]) == float(total)
        assert float(ledger.remaining_nats[i]) == float(left)


def test_a_scan_goes_on_from_a_ledger():
    kl = torch.rand(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pays = torch.ones(3, 6, dtype=torch.bool)
    ledger = open_budget(1.2, 3, device=CPU)
    _, whole, end = scan_budgets(kl, pays, ledger, step_share=0.5)
    pieces = []
    for t in range(6):
        _, piece, ledger = scan_budgets(
            kl[:, t : t + 1], pays[:, t : t + 1], ledger, step_share=0.5
        )
        pieces.append(piece)
    assert torch.equal(torch.cat(pieces, dim=1), whole)
    assert torch.equal(ledger.remaining_nats, end.remaining_nats)


# --------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_derivatives_are_finite_differences_through_the_budgets_of_earlier_steps(share):
    log_a, log_b = rows(2, 4, 3, seed=3)
    kl = policy_kl_nats(log_a, log_b)[0]
    budget = float(kl[0] + kl[1] / 2)  # cuts the second step of the first sequence short
    logits = log_a.clone().requires_grad_()

    def law(x):
        return laws(x.log_softmax(dim=-1), log_b, budget=budget, share=share)[0]

    assert torch.autograd.gradcheck(law, logits, eps=1e-6, atol=1e-5)
    (by_logits,) = torch.autograd.grad(law(logits)[0, 1, 0], logits)
    assert float(by_logits[0, 0].abs().max()) > 1e-3
    assert float(by_logits[0, 2:].abs().max()) == 0.0


def test_after_the_budget_nothing_is_learnt_and_nothing_explodes():
    log_a, log_b = rows(1, 6, 4)
    logits = (3 * log_a).requires_grad_()
    found, spent = laws(logits.log_softmax(dim=-1), log_b, budget=0.5)
    assert spent[0, 0].item() == 0.5  # all of it in the first step
    (gradient,) = torch.autograd.grad(found[0, 1:, 0].sum(), logits)
    assert float(gradient.abs().max()) == 0.0


def test_what_is_left_by_rounding_buys_nothing():
    log_a, log_b = rows(1, 4)
    kl = policy_kl_nats(log_a, log_b)
    for allowance, plays_reference in ((1e-13, True), (1e-11, False)):
        weight = policy_weights(log_a, log_b, kl, torch.tensor([allowance]).double())
        assert (float(weight) == 0.0) == plays_reference


# ---------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("budget", [-1.0, math.inf, math.nan])
def test_a_budget_is_a_number_not_below_zero(budget):
    with pytest.raises(InvalidBudgetError, match="finite number >= 0, got"):
        check_budget(budget_nats=budget, step_share=1.0)


@pytest.mark.parametrize("share", [0.0, 1.5, math.nan])
def test_a_share_lies_above_0_and_up_to_1(share):
    with pytest.raises(InvalidArgumentError, match=r"step_share must lie in \(0, 1\]"):
        check_budget(budget_nats=1.0, step_share=share)


def test_logits_that_are_not_numbers_are_refused():
    log_a, log_b = rows(1, 1, 3)
    last = torch.tensor([False, False, True])
    wrong = (log_b * math.nan, log_b - math.inf, log_b.masked_fill(last, math.inf))
    for pair in ((log_a * math.nan, log_b), *((log_a, each) for each in wrong)):
        with pytest.raises(InvalidDistributionError, match=r"are NaN, .*; look for an overflow"):
            policy_kl_nats(*pair)


def test_the_bisection_spends_what_it_may():
    log_a, log_b = (row.numpy() for row in rows(4))
    law, weight = law_by_bisection(log_a, log_b, 0.05)
    assert 0 < weight < 1
    assert float(np.sum(np.exp(law) * (law - log_b))) == pytest.approx(0.05)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 30.0])
def test_the_policys_kl_is_the_divergence_to_a_reference_that_may_rule_tokens_out(scale):
    generator = torch.Generator().manual_seed(4)
    b = torch.randn(6, 300, dtype=torch.float64, generator=generator)
    a = b + scale * torch.randn(6, 300, dtype=torch.float64, generator=generator)
    b[0, 7] = -torch.inf  # which the policy does not
    a[1, 8] = -torch.inf
    a[2, 9] = b[2, 9] = -torch.inf
    log_a, log_b = a.log_softmax(dim=-1), b.log_softmax(dim=-1)
    expected = kl_nats(log_a, log_b)
    found = policy_kl_nats(log_a, log_b)
    assert torch.isposinf(found).tolist() == [True, *[False] * 5]
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-22)
