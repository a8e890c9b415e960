"""Definitions 3 and 4 word by word, and what they guarantee under which update rule."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.exact_tables import environment_tables, policy_tables, to_floats, trees, weights
from theory import constraints
from theory.bayes_mixture import Update, model_table, posterior_weights, stack_tables
from theory.bounds import demonstrator_stays_probability, top_set_size_bound
from theory.errors import InvalidArgumentError, InvalidDistributionError, InvalidShapeError
from theory.log_sum import LogSum
from theory.pessimism import (
    help_probability,
    pessimistic_imitator,
    top_set,
)
from theory.process import (
    HistoryTree,
    as_table,
    environment_table,
    policy_table,
    reach_probabilities,
)

F = Fraction
alphas = st.fractions(F(1, 12), 1, max_denominator=12)


def by_definition(w, alpha):
    """`{n : w(n) >= alpha sum_{m <= n} w(m)}`, models in order of weight and then of index."""
    order = sorted(range(len(w)), key=lambda i: (-w[i], i))
    inside = {n for k, n in enumerate(order) if w[n] >= alpha * sum(w[m] for m in order[: k + 1])}
    return [i in inside for i in range(len(w))]


some_weights = st.integers(1, 6).flatmap(lambda n: weights(n, positive=False))


@given(some_weights, alphas)
def test_the_top_set_is_that_of_the_definition(w, alpha):
    mask = top_set(as_table(w), alpha)
    assert mask.dtype == np.bool_
    assert list(mask) == by_definition(w, alpha)


@given(some_weights, alphas, st.integers(1, 9))
def test_a_top_set_has_between_1_and_1_over_alpha_models_whatever_the_weights_scale(w, alpha, c):
    mask = top_set(as_table(w), alpha)
    assert 1 <= mask.sum() <= top_set_size_bound(alpha) <= 1 / alpha
    assert list(top_set(as_table([c * x for x in w]), alpha)) == list(mask)
    assert not any(inside and x == 0 for inside, x in zip(mask, w, strict=True))


@given(st.integers(1, 12))
def test_the_size_bound_is_attained_by_equal_weights(n):
    assert top_set(as_table([F(1)] * (n + 3)), F(1, n)).sum() == n == top_set_size_bound(F(1, n))


def test_tied_models_enter_in_the_order_of_their_indices():
    assert list(top_set(as_table([1, 1, 1]), F(1, 2))) == [True, True, False]
    assert list(top_set(as_table([1, 2, 1, 1]), F(1, 4))) == [True, True, True, False]
    assert list(top_set(as_table([1, 1]), 1)) == [True, False]


def test_a_model_can_be_inside_while_its_two_halves_are_outside():
    # Hence models are behavioural classes, weights summed.
    assert list(top_set(as_table([3, 2]), F(2, 5))) == [True, True]
    assert list(top_set(as_table([3, 1, 1]), F(2, 5))) == [True, False, False]


def test_posteriors_come_in_batches_and_in_floats():
    batch = np.array([[0.5, 0.25, 0.25], [0.0, 0.1, 0.9], [0.2, 0.2, 0.6]])
    expected = [[True, True, False], [False, False, True], [False, False, True]]
    assert np.array_equal(top_set(batch, 0.3), expected)
    exact = as_table([[F(x).limit_denominator(10) for x in row] for row in batch])
    assert np.array_equal(top_set(exact, F(3, 10)), expected)
    assert np.array_equal(top_set(batch[None], 0.3)[0], expected)


@given(some_weights, alphas)
def test_float_weights_of_exact_value_give_the_exact_top_set(w, alpha):
    # Small integers and dyadic thresholds: nothing rounds.
    dyadic = F(math.ceil(alpha * 8), 8)
    floats = np.array([float(x) for x in w])
    assert list(top_set(floats, float(dyadic))) == by_definition(w, dyadic)
    assert list(top_set(as_table(w), float(dyadic))) == by_definition(w, dyadic)


@pytest.mark.parametrize("alpha", [0, -0.1, 1.5, math.nan])
def test_alpha_lies_above_0_and_at_most_at_1(alpha):
    with pytest.raises(InvalidArgumentError, match=rf"alpha must lie in \(0, 1\], got {alpha}"):
        top_set(np.array([1.0]), alpha)


@pytest.mark.parametrize(
    ("w", "message"),
    [
        ([0.5, math.nan], "finite and >= 0, got nan"),
        ([0.5, -1.0], r"finite and >= 0, got -1\.0"),
        ([math.inf, 1.0], "finite and >= 0, got inf"),
        ([[0.5, 0.5], [0.0, 0.0]], "a row of zeros"),
    ],
)
def test_what_is_no_posterior_has_no_top_set(w, message):
    with pytest.raises(InvalidDistributionError, match=message):
        top_set(np.array(w), 0.5)


@st.composite
def classes(draw, *, max_horizon=3):
    """A tree, weights, models of which the first (the demonstrator) is full, and alpha."""
    tree = draw(trees(max_horizon=max_horizon))
    n_others = draw(st.integers(0, 3))
    mu = draw(policy_tables(tree))
    others = [draw(policy_tables(tree, full=False)) for _ in range(n_others)]
    w = [draw(st.integers(1, 4).map(F)), *draw(st.just([]) if not n_others else weights(n_others))]
    return tree, w, stack_tables([mu, *others]), draw(alphas)


@given(classes(), st.sampled_from(Update))
def test_the_imitator_gives_each_action_its_least_probability_in_the_top_set(case, update):
    tree, w, models, alpha = case
    nu_alpha = pessimistic_imitator(w, models, alpha=alpha, update=update)
    posterior = posterior_weights(w, models, update=update)
    for t in range(tree.horizon):
        for row in range(tree.n_histories(t)):
            mask = by_definition(list(posterior[t][:, row]), alpha)
            least = [
                min(models[t][i, row, a] for i, inside in enumerate(mask) if inside)
                for a in range(tree.n_actions)
            ]
            assert list(nu_alpha[t][row]) == least


@given(classes(), st.sampled_from(Update))
def test_help_is_asked_with_the_mass_that_is_missing(case, update):
    tree, w, models, alpha = case
    nu_alpha = pessimistic_imitator(w, models, alpha=alpha, update=update)
    for t, level in enumerate(help_probability(nu_alpha)):
        assert level.shape == (tree.n_histories(t),)
        assert all(ask + sum(row) == 1 for ask, row in zip(level, nu_alpha[t], strict=True))
        assert all(ask >= 0 for ask in level)


def test_rounding_never_makes_the_help_probability_negative():
    (asks,) = help_probability((np.array([[0.1] * 10, [0.5 + 1e-10, 0.5, *[0.0] * 8]]),))
    assert np.all(asks >= 0)
    assert asks == pytest.approx(0, abs=1e-15)
    with pytest.raises(InvalidDistributionError, match="the imitator must sum to at most 1"):
        help_probability((np.array([[0.7, 0.7]]),))


@given(classes(max_horizon=2))
def test_floats_agree_with_the_exact_imitator_where_nothing_is_close(case):
    _, w, models, _ = case
    # No ratio of the weights used here comes near 1/pi, and ties of these weights round alike.
    exact = pessimistic_imitator(w, models, alpha=F(1 / math.pi), update=Update.DEMONSTRATOR)
    floats = pessimistic_imitator(
        np.array([float(x) for x in w]),
        to_floats(models),
        alpha=1 / math.pi,
        update=Update.DEMONSTRATOR,
    )
    for a, b in zip(exact, floats, strict=True):
        assert b.dtype == np.float64
        np.testing.assert_allclose(b, a.astype(float), rtol=1e-14)


@given(
    classes().flatmap(
        lambda case: st.tuples(st.just(case), policy_tables(case[0]), environment_tables(case[0]))
    )
)
def test_with_frozen_weights_no_policy_is_further_from_mu_than_from_the_imitator(case):
    (_, w, models, alpha), pi, nu = case
    mu = model_table(models, 0)
    nu_alpha = pessimistic_imitator(w, models, alpha=alpha, update=Update.DEMONSTRATOR)
    if top_set(as_table(w), alpha)[0]:
        for least, probability in zip(nu_alpha, mu, strict=True):
            assert np.all(least <= probability)
        for distance in (constraints.fixed_kl_nats, constraints.adaptive_kl_nats):
            assert distance(pi, nu_alpha) >= distance(pi, mu)
        kl = constraints.expected_kl_nats
        assert kl(pi, nu_alpha, nu) >= kl(pi, mu, nu)


def test_an_agent_whose_own_actions_count_can_drive_the_demonstrator_out():
    tree = HistoryTree(n_actions=2, n_observations=1, horizon=2)
    bad = (F(0), F(1))
    # The demonstrator does 1 one time in ten, and never 1 after that.
    mu = policy_table(tree, lambda h: (F(1), F(0)) if h else (F(9, 10), F(1, 10)))
    nu = policy_table(tree, lambda _: bad)
    pi = policy_table(tree, lambda _: bad)
    models, equal, alpha = stack_tables([mu, nu]), [F(1, 2), F(1, 2)], F(3, 10)
    kl = constraints.fixed_kl_nats
    by_all = pessimistic_imitator(equal, models, alpha=alpha, update=Update.ALL)
    frozen = pessimistic_imitator(equal, models, alpha=alpha, update=Update.DEMONSTRATOR)
    assert kl(pi, by_all) == LogSum.log(10)
    assert kl(pi, mu).is_infinite
    assert kl(pi, frozen).is_infinite
    # Within one step the guarantee stands under either rule.
    assert kl(pi[:1], by_all[:1]) >= kl(pi[:1], mu[:1])


@given(classes())
def test_the_inverse_weight_of_the_demonstrator_is_a_supermartingale(case):
    tree, w, models, _ = case
    mu = model_table(models, 0)
    posterior = posterior_weights(w, models, update=Update.ALL)
    for t in range(tree.horizon - 1):
        # Observations update nothing: it does not matter which one comes.
        later = posterior[t + 1][0].reshape(-1, tree.n_actions, tree.n_observations)[..., 0]
        for row, weight in enumerate(posterior[t][0]):
            followed = [(p, x) for p, x in zip(mu[t][row], later[row], strict=True) if p]
            if weight > 0:
                assert sum(p / x for p, x in followed) <= 1 / weight


@given(classes().flatmap(lambda case: st.tuples(st.just(case), environment_tables(case[0]))))
def test_the_demonstrator_stays_in_the_top_set_as_often_as_ville_says(case):
    (tree, w, models, alpha), nu = case
    mu = model_table(models, 0)
    reach = reach_probabilities(mu, nu)
    posterior = posterior_weights(w, models, update=Update.ALL)
    always_inside = np.ones(1, dtype=bool)
    for t, weights_t in enumerate(posterior):
        inside = top_set(weights_t.T, alpha)[:, 0]
        always_inside = np.repeat(always_inside, len(inside) // len(always_inside)) & inside
        stays = reach[t][always_inside].sum()
        assert stays >= demonstrator_stays_probability(alpha=alpha, weight=w[0] / sum(w))
    assert tree.horizon == t + 1


def test_ville_s_bound_is_nearly_attained_by_a_rival_that_is_right_for_a_while():
    # The rival says 1. Where mu, a fair coin, says 1 five times, its odds fall by 2^5.
    tree = HistoryTree(n_actions=2, n_observations=1, horizon=6)
    mu = policy_table(tree, lambda _: (F(1, 2), F(1, 2)))
    rival = policy_table(tree, lambda _: (F(0), F(1)))
    nothing_to_see = environment_table(tree, lambda _: (F(1),))
    odds = F(1, 99)
    posterior = posterior_weights([odds, F(1)], stack_tables([mu, rival]), update=Update.ALL)
    weight_then = odds / 2**5 / (1 + odds / 2**5)
    alpha = weight_then * F(1001, 1000)
    inside = top_set(posterior[-1].T, alpha)[:, 0]
    leaves = reach_probabilities(mu, nothing_to_see)[-2][~inside].sum()
    assert leaves == F(1, 2**5)
    bound = 1 - demonstrator_stays_probability(alpha=alpha, weight=odds / (1 + odds))
    assert F(98, 100) * bound < leaves <= bound


def test_a_top_set_takes_a_list():
    assert top_set([Fraction(1, 10), Fraction(1, 2), Fraction(2, 5)], 0.25).tolist() == [0, 1, 1]
    with pytest.raises(InvalidShapeError, match=r"shape \(\.\.\., n_models\), got \(\)"):
        top_set(0.5, 0.25)
