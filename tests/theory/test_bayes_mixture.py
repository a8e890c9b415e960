"""Mixtures against Bayes' rule, written out model by model and symbol by symbol."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.exact_tables import (
    environment_tables,
    policy_tables,
    to_floats,
    trees,
    weights,
)
from theory import bayes_mixture
from theory.bayes_mixture import (
    Update,
    policy_mixture,
    predictive_log_probs,
    stack_tables,
    update_log_weights,
)
from theory.errors import InvalidArgumentError, InvalidDistributionError, InvalidShapeError
from theory.process import HistoryTree, policy_table

F = Fraction


@st.composite
def classes(draw, *, max_models=3, max_horizon=3):
    """A tree, weights, and for each model a policy and an environment."""
    tree = draw(trees(max_horizon=max_horizon))
    n_models = draw(st.integers(1, max_models))
    return (
        tree,
        draw(weights(n_models, positive=False)),
        [draw(policy_tables(tree, full=False)) for _ in range(n_models)],
        [draw(environment_tables(tree, full=False)) for _ in range(n_models)],
    )


def row(tree, table, continuation):
    return table[len(continuation) // 2][tree.index(continuation)]


def predictions(tree, w, policies, environments, sequence):
    """The mixture's distribution of the next symbol after `sequence`, one model at a time.

    `environments` is None where observations are conditioned on. A symbol impossible under all
    models of positive weight is passed over.
    """
    w = [F(x) for x in w]

    def symbol_rows(prefix):
        if len(prefix) % 2 == 0:
            return [row(tree, policy, prefix) for policy in policies]
        if environments is None:
            return None
        return [row(tree, nu, prefix[:-1])[prefix[-1]] for nu in environments]

    for position, symbol in enumerate(sequence):
        rows = symbol_rows(sequence[:position])
        if rows is not None:
            updated = [x * r[symbol] for x, r in zip(w, rows, strict=True)]
            w = updated if any(updated) else w
    rows = symbol_rows(sequence)
    return [
        sum(x * r[s] for x, r in zip(w, rows, strict=True)) / sum(w) for s in range(len(rows[0]))
    ]


@given(classes())
def test_a_policy_mixture_predicts_by_bayes_rule_from_actions_alone(case):
    tree, w, policies, _ = case
    xi = bayes_mixture.policy_mixture(w, bayes_mixture.stack_tables(policies), update=Update.ALL)
    for t, level in enumerate(xi):
        for h, predicted in zip(tree.continuations(t), level, strict=True):
            assert list(predicted) == predictions(tree, w, policies, None, h)


@given(classes())
def test_products_of_a_policy_mixture_s_conditionals_telescope(case):
    tree, w, policies, _ = case
    xi = bayes_mixture.policy_mixture(w, bayes_mixture.stack_tables(policies), update=Update.ALL)

    def product_along(table, h):
        return math.prod((row(tree, table, h[:t])[h[t]] for t in range(0, len(h), 2)), start=F(1))

    for h in tree.continuations(tree.horizon):
        total = sum(x * product_along(pi, h) for x, pi in zip(w, policies, strict=True))
        assert product_along(xi, h) == total / sum(w)


@given(classes())
def test_frozen_weights_predict_as_at_the_root(case):
    tree, w, policies, _ = case
    stack = bayes_mixture.stack_tables(policies)
    xi = bayes_mixture.policy_mixture(w, stack, update=Update.DEMONSTRATOR)
    for t, level in enumerate(xi):
        for h, predicted in zip(tree.continuations(t), level, strict=True):
            mean = [
                sum(x * row(tree, pi, h)[a] for x, pi in zip(w, policies, strict=True)) / sum(w)
                for a in range(tree.n_actions)
            ]
            assert list(predicted) == mean
    posterior = bayes_mixture.posterior_weights(w, stack, update=Update.DEMONSTRATOR)
    for t, level in enumerate(posterior):
        assert level.shape == (len(w), tree.n_histories(t))
        assert all(list(column) == [F(x) / sum(w) for x in w] for column in level.T)


@given(classes())
def test_a_joint_predictor_learns_from_actions_and_observations(case):
    tree, w, policies, environments = case
    pi, nu = bayes_mixture.joint_predictor(
        w, bayes_mixture.stack_tables(policies), bayes_mixture.stack_tables(environments)
    )
    for t in range(tree.horizon):
        for i, h in enumerate(tree.continuations(t)):
            assert list(pi[t][i]) == predictions(tree, w, policies, environments, h)
            for a in range(tree.n_actions):
                expected = predictions(tree, w, policies, environments, (*h, a))
                assert list(nu[t][i, a]) == expected


def observation_probability(tree, nu, h):
    return math.prod(
        (row(tree, nu, h[:t])[h[t], h[t + 1]] for t in range(0, len(h), 2)), start=F(1)
    )


@given(classes())
def test_the_mixture_of_observations_telescopes_and_ignores_what_actions_say(case):
    tree, w, policies, environments = case
    stack = bayes_mixture.stack_tables(environments)
    xi_tilde = bayes_mixture.observation_mixture(w, stack)
    for t in range(tree.horizon + 1):
        for h in tree.continuations(t):
            total = sum(
                x * observation_probability(tree, nu, h)
                for x, nu in zip(w, environments, strict=True)
            )
            if total:
                assert observation_probability(tree, xi_tilde, h) == total / sum(w)
    _, xi = bayes_mixture.joint_predictor(w, bayes_mixture.stack_tables(policies), stack)
    for t, level in enumerate(bayes_mixture.observation_ratios(xi, xi_tilde)):
        for h, ratio in zip(tree.continuations(t), level, strict=True):
            below = observation_probability(tree, xi_tilde, h)
            above = observation_probability(tree, xi, h)
            # What one model at least explains is possible in xi~: the ratio is finite.
            assert ratio == (above / below if below else 1)


def test_ratios_are_1_where_nobody_expects_an_observation_and_infinite_where_only_xi_does():
    certain, fair = np.array([[[F(1), F(0)]]]), np.array([[[F(1, 2), F(1, 2)]]])
    ratios = bayes_mixture.observation_ratios
    assert list(ratios((certain,), (certain,))[1]) == [1, 1]
    assert list(ratios((fair,), (certain,))[1]) == [F(1, 2), math.inf]
    assert list(ratios((fair.astype(float),), (certain,))[1]) == [0.5, math.inf]
    # Whole products are compared: a history that is impossible under both has the ratio 1.
    twice = np.array([[[F(1), F(0)]], [[F(1), F(0)]]])
    assert list(ratios((certain, fair.repeat(2, axis=0)), (fair, twice))[2]) == [1, math.inf, 0, 1]


@given(classes(), st.sampled_from(Update), st.integers(1, 9))
def test_posteriors_are_distributions_and_only_ratios_of_weights_matter(case, update, factor):
    _, w, policies, _ = case
    stack = bayes_mixture.stack_tables(policies)
    posterior = bayes_mixture.posterior_weights(w, stack, update=update)
    scaled = bayes_mixture.posterior_weights([factor * x for x in w], stack, update=update)
    for level, other in zip(posterior, scaled, strict=True):
        assert np.all(level.sum(axis=0) == 1)
        assert np.array_equal(level, other)


@given(classes())
def test_floats_agree_with_the_exact_mixtures(case):
    _, w, policies, environments = case
    stack = bayes_mixture.stack_tables(policies)
    observations = bayes_mixture.stack_tables(environments)
    exact = [
        *bayes_mixture.policy_mixture(w, stack, update=Update.ALL),
        *bayes_mixture.posterior_weights(w, stack, update=Update.ALL),
        *bayes_mixture.observation_mixture(w, observations),
        *(
            level
            for table in bayes_mixture.joint_predictor(w, stack, observations)
            for level in table
        ),
    ]
    w = np.array([float(x) for x in w])
    stack, observations = to_floats(stack), to_floats(observations)
    rounded = [
        *bayes_mixture.policy_mixture(w, stack, update=Update.ALL),
        *bayes_mixture.posterior_weights(w, stack, update=Update.ALL),
        *bayes_mixture.observation_mixture(w, observations),
        *(
            level
            for table in bayes_mixture.joint_predictor(w, stack, observations)
            for level in table
        ),
    ]
    for a, b in zip(exact, rounded, strict=True):
        assert b.dtype == np.float64
        np.testing.assert_allclose(b, a.astype(float), rtol=1e-14, atol=0)


def test_exact_weights_of_float_models_are_rounded():
    stack = (np.array([[[0.25, 0.75]], [[0.5, 0.5]]]),)
    (level,) = bayes_mixture.policy_mixture([F(1, 3), F(2, 3)], stack, update=Update.ALL)
    np.testing.assert_allclose(level, [[5 / 12, 7 / 12]], rtol=1e-15)


def test_stacks_hold_one_table_a_model():
    tree = HistoryTree(n_actions=2, n_observations=2, horizon=2)
    tables = [policy_table(tree, lambda _, p=p: (p, 1 - p)) for p in (F(0), F(1, 3))]
    stack = bayes_mixture.stack_tables(tables)
    assert [level.shape for level in stack] == [(2, 1, 2), (2, 4, 2)]
    for model, table in enumerate(tables):
        again = bayes_mixture.model_table(stack, model)
        assert all(np.array_equal(a, b) for a, b in zip(table, again, strict=True))
    with pytest.raises(InvalidShapeError, match="at least one table, got none"):
        bayes_mixture.stack_tables([])
    with pytest.raises(InvalidShapeError, match="share a horizon, got 2 and 1"):
        bayes_mixture.stack_tables([tables[0], tables[1][:1]])


ONE_STEP = (np.array([[[0.25, 0.75]], [[0.5, 0.5]]]),)


@pytest.mark.parametrize(
    ("w", "stack", "error", "message"),
    [
        ([F(-1), F(2)], ONE_STEP, InvalidDistributionError, "finite and >= 0, got -1"),
        ([0.5, math.nan], ONE_STEP, InvalidDistributionError, "finite and >= 0, got nan"),
        ([0.5, math.inf], ONE_STEP, InvalidDistributionError, "finite and >= 0, got inf"),
        ([1e308, 1e308], ONE_STEP, InvalidDistributionError, "sum > 0 and finite, got inf"),
        ([F(0), F(0)], ONE_STEP, InvalidDistributionError, "sum > 0 and finite, got 0"),
        ([[F(1), F(1)]], ONE_STEP, InvalidShapeError, r"shape \(n_models,\), got \(1, 2\)"),
        ([F(1)], ONE_STEP, InvalidShapeError, r"n_models = 1 .*got \(2, 1, 2\)"),
        ([F(1), F(1)], (ONE_STEP[0][0],), InvalidShapeError, r"level 0 .*got \(1, 2\)"),
        (
            [F(1), F(1)],
            (2 * ONE_STEP[0],),
            InvalidDistributionError,
            r"the models must sum to at most 1, got 2\.0",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in reduce")
def test_what_is_no_weighted_class_is_refused(w, stack, error, message):
    with pytest.raises(error, match=message):
        bayes_mixture.policy_mixture(w, stack, update=Update.ALL)


def logs(values):
    """Natural logarithms of rationals, -inf for 0."""
    with np.errstate(divide="ignore"):
        return np.log(np.array(values, dtype=np.float64))


@given(
    st.integers(1, 4).flatmap(
        lambda n: st.tuples(
            weights(n, positive=False),
            st.lists(
                st.lists(st.fractions(0, 1, max_denominator=6), min_size=n, max_size=n),
                max_size=6,
            ),
        )
    )
)
def test_the_posterior_in_log_space_follows_bayes_rule(case):
    w, likelihoods = case
    exact = [F(x) / sum(w) for x in w]
    log_w = bayes_mixture.normalised_log_weights(logs(w))
    for likelihood in likelihoods:
        predicted = sum(x * y for x, y in zip(exact, likelihood, strict=True))
        symbols = np.stack([logs(likelihood), logs([1 - y for y in likelihood])], axis=-1)
        log_xi = bayes_mixture.predictive_log_probs(log_w, symbols)
        np.testing.assert_allclose(np.exp(log_xi[0]), float(predicted), rtol=1e-14)
        np.testing.assert_allclose(np.exp(log_xi[1]), float(1 - predicted), rtol=1e-14)
        assert np.all(log_xi <= 0)
        if predicted:
            exact = [x * y / predicted for x, y in zip(exact, likelihood, strict=True)]
        log_w = bayes_mixture.update_log_weights(log_w, logs(likelihood))
        np.testing.assert_allclose(np.exp(log_w), [float(x) for x in exact], rtol=1e-13)


@pytest.mark.no_cover
@pytest.mark.parametrize("n_symbols", [10**5, pytest.param(10**6, marks=pytest.mark.slow)])
def test_after_many_symbols_the_weights_are_those_of_exact_arithmetic(n_symbols, rng):
    # Near the data's frequency, so that the posterior is not one-sided, and far from it.
    parameters = np.array([0.3, 0.3005, 0.2995, 0.31, 0.7])
    log_likelihoods = np.log(np.stack([1 - parameters, parameters]))
    symbols = (rng.random(n_symbols) < 0.3).astype(int)
    log_w = bayes_mixture.normalised_log_weights(np.zeros(5))
    for symbol in symbols.tolist():
        log_w = bayes_mixture.update_log_weights(log_w, log_likelihoods[symbol])
    ones = int(symbols.sum())
    with mpmath.workdps(40):
        exact = [
            ones * mpmath.log(mpmath.mpf(p)) + (n_symbols - ones) * mpmath.log(1 - mpmath.mpf(p))
            for p in parameters.tolist()
        ]
        total = max(exact) + mpmath.log(mpmath.fsum(mpmath.exp(x - max(exact)) for x in exact))
        for got, x in zip(log_w, exact, strict=True):
            expected = float(x - total)
            if expected > -100:
                assert abs(got - expected) < 1e-9
            assert abs(got - expected) < n_symbols * 2.0**-52 * (2 + abs(expected))


def test_posteriors_in_log_space_come_in_batches():
    log_w = bayes_mixture.normalised_log_weights(logs([[1, 1], [3, 1], [1, 0]]))
    np.testing.assert_allclose(np.exp(log_w), [[0.5, 0.5], [0.75, 0.25], [1, 0]])
    log_w = bayes_mixture.update_log_weights(log_w, logs([[0, 1], [0, 0], [0, 1]]))
    # Impossible symbols (second and third row) update nothing.
    np.testing.assert_allclose(np.exp(log_w), [[0, 1], [0.75, 0.25], [1, 0]])
    log_xi = bayes_mixture.predictive_log_probs(log_w, logs([[1, 0], [0, 1]]))
    np.testing.assert_allclose(np.exp(log_xi), [[0, 1], [0.75, 0.25], [1, 0]])


def test_log_weights_are_below_infinity_and_some_are_above_minus_infinity():
    with pytest.raises(InvalidDistributionError, match=r"log_w = -inf for every model"):
        bayes_mixture.normalised_log_weights(logs([[1, 0], [0, 0]]))
    for bad in (math.nan, math.inf):
        broken = np.array([0.0, bad])
        with pytest.raises(InvalidDistributionError, match=f"log_w must be below .*got {bad}"):
            bayes_mixture.normalised_log_weights(broken)
        with pytest.raises(InvalidDistributionError, match=f"log_likelihood .*got {bad}"):
            bayes_mixture.update_log_weights(np.zeros(2), broken)
        with pytest.raises(InvalidDistributionError, match=f"log_p .*got {bad}"):
            bayes_mixture.predictive_log_probs(np.zeros(2), broken[:, None])


def test_a_mode_that_is_no_member_is_converted_or_refused():
    """Weights 1 : 1 of policies (3/4, 1/4) and (1/4, 3/4): after action 0 all updates make 5/8."""
    tree = HistoryTree(n_actions=2, n_observations=1, horizon=2)
    models = stack_tables(
        [policy_table(tree, lambda h, p=p: (p, 1 - p)) for p in (Fraction(3, 4), Fraction(1, 4))]
    )
    for mode in (Update.ALL, "ALL", "all"):
        assert policy_mixture([1, 1], models, update=mode)[1][0, 0] == Fraction(5, 8)
    assert policy_mixture([1, 1], models, update="demonstrator")[1][0, 0] == Fraction(1, 2)
    for mode in (True, None, "frozen", 1):
        with pytest.raises(InvalidArgumentError, match=r"update must be one of Update\.ALL, Upd"):
            policy_mixture([1, 1], models, update=mode)


def test_stacks_may_be_lists_and_shapes_that_do_not_fit_are_named():
    tree = HistoryTree(n_actions=2, n_observations=1, horizon=2)
    models = stack_tables([policy_table(tree, lambda h: (0.5, 0.5))] * 2)
    listed = policy_mixture([1, 1], list(models), update=Update.ALL)
    np.testing.assert_array_equal(listed[1], policy_mixture([1, 1], models, update=Update.ALL)[1])
    with pytest.raises(InvalidShapeError, match=r"a stack must be a tuple of arrays, one a step"):
        policy_mixture([1, 1], models[0], update=Update.ALL)
    with pytest.raises(InvalidShapeError, match=r"got shapes \(2,\) and \(3,\)"):
        update_log_weights(np.log([0.5, 0.5]), np.zeros(3))
    with pytest.raises(InvalidShapeError, match=r"got shapes \(2,\) and \(3, 2\)"):
        predictive_log_probs(np.log([0.5, 0.5]), np.zeros((3, 2)))
    with pytest.raises(InvalidArgumentError, match="log_w must be a NumPy array, got list"):
        update_log_weights([0.0], [0.0])
