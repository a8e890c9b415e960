"""The closed form and the bound spend exactly what the budget has."""

import math

import numpy as np
import pytest
from scipy import stats

from llm_experiment.measures.closed_form import (
    closed_form_of,
    closed_form_of_prices,
    episodes_interval,
    most_silent,
)
from llm_experiment.measures.metrics import (
    BaseEvaluation,
    Behaviour,
    EvaluationRow,
    LengthRow,
    Spending,
)
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
