"""The closed form and the bound spend exactly what the budget has."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from llm_experiment.measures.closed_form import (
    closed_form_of,
    closed_form_of_prices,
    episodes_interval,
    most_silent,
    sequence_shares,
)
from llm_experiment.measures.metrics import (
    BaseEvaluation,
    Behaviour,
    EvaluationRow,
    LengthRow,
    Spending,
)
from theory.bounds import largest_share
from theory.errors import InvalidArgumentError


def row(n_silent, n_episodes) -> LengthRow:
    """An evaluation in which some episodes were silent."""
    return LengthRow(
        n_tokens=40,
        numbers=EvaluationRow(
            spending=Spending(n_episodes=n_episodes),
            behaviour=Behaviour(silent_share=n_silent / n_episodes),
        ),
    )


def bernoulli_kl(q, p):
    return sum(a * math.log(a / b) for a, b in ((q, p), (1 - q, 1 - p)) if a)


def test_the_probability_is_that_of_the_median_price():
    form = closed_form_of_prices(np.array([3.0, 1.0, 2.0, 10.0, 2.5]))
    assert form.probability == pytest.approx(math.exp(-2.5))
    assert form.quartiles_nats == (2.0, 2.5, 3.0)
    assert form.n_contexts == 5
    assert "2.00, 2.50, 3.00 nats over 5 contexts" in form.about
    with pytest.raises(InvalidArgumentError, match="no dialogue was long enough"):
        closed_form_of_prices([])


def test_the_predicted_share_costs_the_budget():
    form = closed_form_of_prices([4.0])
    for budget in (0.0, 0.5, 2.0):
        assert bernoulli_kl(form.share(budget), form.probability) == pytest.approx(budget, abs=1e-9)
    assert form.share(0.0) == form.probability
    assert form.share(4.001) == form.share(math.inf) == 1.0


def test_the_closed_form_of_a_run_is_what_was_priced():
    form = closed_form_of_prices([1.0, 2.0, 4.0])
    base = BaseEvaluation(
        rows=(),
        n_contexts=form.n_contexts,
        first_silence_nats=form.quartiles_nats,
        first_silence_probability=form.probability,
    )
    assert closed_form_of(base) == form
    assert closed_form_of(None) is None
    assert closed_form_of(BaseEvaluation(rows=(), n_contexts=0)) is None


@pytest.mark.parametrize(("n_silent", "n_episodes"), [(0, 20), (3, 50), (4, 4)])
def test_the_bound_stands_on_the_upper_end_of_the_bases_own_share(n_silent, n_episodes):
    base = row(n_silent, n_episodes)
    upper = episodes_interval(base, "silent_share").high
    if n_silent < n_episodes:
        assert stats.binom.cdf(n_silent, n_episodes, upper) == pytest.approx(0.025)
    else:
        assert upper == 1.0
    assert most_silent(base, 0.0) == pytest.approx(upper)
    share = most_silent(base, 0.25)
    assert share == 1.0 or bernoulli_kl(share, upper) == pytest.approx(0.25, abs=1e-9)


# --------------------------------------------------------------------- several purchases


@pytest.mark.parametrize("prices", [(2.0, 0.7), (0.3, 5.0), (1.0, 1.0)])
@pytest.mark.parametrize("budget", [0.01, 0.8, 1.9])
def test_no_two_probabilities_that_cost_the_budget_buy_more(prices, budget):
    """By brute force, over a grid of pairs."""
    p = np.exp(-np.array(prices))
    found = sequence_shares(prices, budget)
    assert sum(map(bernoulli_kl, found, p)) == pytest.approx(budget, rel=1e-9)
    grids = [np.geomspace(x, 1, 1500) for x in p]
    costs = [
        special.kl_div(q, x) + special.kl_div(1 - q, 1 - x) for q, x in zip(grids, p, strict=True)
    ]
    affordable = np.add.outer(*costs) <= budget
    best = np.multiply.outer(*grids)[affordable].max()
    assert best <= found.prod() * (1 + 1e-12)
    assert found.prod() == pytest.approx(best, rel=3e-3)


def test_all_purchases_have_the_same_marginal_price_and_their_order_does_not_matter():
    prices = np.array([7.0, 1.8, 0.6, 0.2])
    q = sequence_shares(prices, 4.0)
    p = np.exp(-prices)
    common = q * (special.logit(q) - special.logit(p))
    np.testing.assert_allclose(common, common[0], rtol=1e-9)
    np.testing.assert_allclose(sequence_shares(prices[::-1], 4.0)[::-1], q, rtol=1e-9)


def test_a_single_purchase_is_the_first_closed_form():
    for budget in (0.0, 0.4, 3.0, 5.0):
        share = largest_share(math.exp(-4.0), budget).lower
        assert sequence_shares([4.0], budget)[0] == pytest.approx(share, rel=1e-9)
        assert sequence_shares([4.0, 0.0], budget).prod() == pytest.approx(share, rel=1e-9)


@settings(max_examples=30)
@given(st.lists(st.floats(0, 12), min_size=1, max_size=6), st.floats(0, 20))
def test_a_sequence_is_never_cheaper_than_one_purchase_of_all_of_it(prices, budget):
    q = sequence_shares(prices, budget)
    assert ((q >= np.exp(-np.array(prices)) * (1 - 1e-12)) & (q <= 1)).all()
    one = largest_share(math.exp(-sum(prices)), budget).upper
    assert q.prod() <= one * (1 + 1e-9)
    if sum(prices) <= budget:
        assert (q == 1).all()


def test_what_the_base_policy_never_does_is_not_for_sale():
    np.testing.assert_array_equal(sequence_shares([math.inf, math.log(2)], 100.0), [0.0, 0.5])
    for wrong in ([-1.0], [math.nan]):
        with pytest.raises(InvalidArgumentError, match="prices_nats must be >= 0, got"):
            sequence_shares(wrong, 1.0)


def test_the_closed_form_of_a_run_knows_later_prices():
    base = BaseEvaluation(
        rows=(), n_contexts=3, first_silence_nats=(1.0, 2.0, 3.0),
        first_silence_probability=math.exp(-2), silence_nats=(2.0, 0.5),
    )  # fmt: skip
    form = closed_form_of(base)
    assert form.sequence_share(1.0) == pytest.approx(sequence_shares([2.0, 0.5], 1.0).prod())
    assert form.sequence_share(1.0) < form.share(1.0)
