"""Histories as tables against the definitions, written out over enumerated histories."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.exact_tables import environment_tables, policy_tables, to_floats, trees
from theory import process
from theory.constraints import expected_kl_nats
from theory.errors import (
    InvalidArgumentError,
    InvalidDistributionError,
    InvalidHistoryError,
    InvalidShapeError,
)
from theory.process import (
    HistoryTree,
    check_distributions,
    environment_table,
    observation_laws,
    optimal_values,
    policy_table,
    utility_table,
    values,
)

F = Fraction

TREE = HistoryTree(n_actions=2, n_observations=3, horizon=2)


def lookup(tree, table):
    """The table as a function of continuations, found by listing them in order."""
    rows = {}
    for t, level in enumerate(table):
        rows.update(zip(tree.continuations(t), level, strict=True))
    return rows


def probability(history, pi, nu):
    """`prod_t pi(a_t|h_t) nu(o_t|h_t a_t)`, symbol by symbol; pi and nu by continuation."""
    result = F(1)
    for t in range(0, len(history), 2):
        before, action, observation = history[:t], history[t], history[t + 1]
        result *= pi[before][action] * nu[before][action][observation]
    return result


def exact_cases(**kwargs):
    return trees(**kwargs).flatmap(
        lambda tree: st.tuples(
            st.just(tree),
            policy_tables(tree, full=False),
            environment_tables(tree, full=False),
            st.lists(
                st.fractions(0, 1, max_denominator=5),
                min_size=tree.n_histories(tree.horizon),
                max_size=tree.n_histories(tree.horizon),
            ).map(process.as_table),
        )
    )


def test_continuations_stand_in_the_order_of_their_indices():
    for t in range(3):
        listed = list(TREE.continuations(t))
        assert len(listed) == TREE.n_histories(t) == 6**t
        assert [TREE.index(h) for h in listed] == list(range(6**t))


def test_a_tree_has_at_least_one_action_one_observation_and_one_step():
    for name in ("n_actions", "n_observations", "horizon"):
        sizes = {"n_actions": 1, "n_observations": 1, "horizon": 1} | {name: 0}
        with pytest.raises(InvalidArgumentError, match=f"{name} must be >= 1, got 0"):
            HistoryTree(**sizes)


def test_a_tree_grows_from_a_history_of_even_length():
    with pytest.raises(InvalidHistoryError, match="even length\\), got length 3"):
        HistoryTree(n_actions=2, n_observations=2, horizon=1, root=(0, 1, 1))


def test_symbols_lie_in_their_own_alphabet():
    with pytest.raises(InvalidHistoryError, match=r"action at position 0 .* 0\.\.1, got 2"):
        TREE.index((2, 0))
    with pytest.raises(InvalidHistoryError, match=r"observation at position 1 .* 0\.\.2, got 3"):
        TREE.index((1, 3))
    with pytest.raises(InvalidHistoryError, match=r"action at position 2 .*got -1"):
        HistoryTree(n_actions=2, n_observations=3, horizon=1, root=(0, 2, -1, 0))


def test_a_table_asks_policy_and_environment_about_the_whole_history():
    tree = HistoryTree(n_actions=2, n_observations=2, horizon=2, root=(1, 0))
    asked = []

    def policy(h):
        asked.append(h)
        return (F(len(h), 10), F(sum(h), 10))

    pi = process.policy_table(tree, policy)
    assert asked == [(1, 0), *((1, 0, a, o) for a in (0, 1) for o in (0, 1))]
    assert [level.shape for level in pi] == [(1, 2), (4, 2)]
    assert list(pi[1][tree.index((1, 1))]) == [F(4, 10), F(3, 10)]
    nu = process.environment_table(tree, lambda h: (F(len(h), 10), F(sum(h), 10)))
    assert [level.shape for level in nu] == [(1, 2, 2), (4, 2, 2)]
    assert list(nu[1][tree.index((1, 1)), 0]) == [F(5, 10), F(3, 10)]


def test_one_float_among_the_answers_makes_the_table_a_table_of_floats():
    tree = HistoryTree(n_actions=2, n_observations=1, horizon=2)
    pi = process.policy_table(tree, lambda h: (F(1, 3), 0) if h else (0.5, F(1, 4)))
    assert [level.dtype for level in pi] == [np.float64, np.float64]
    assert list(pi[1][0]) == [1 / 3, 0]


def test_exact_and_float_tables_meet_in_float64():
    exact, floats = process.as_table([F(1, 3)]), np.array([0.5])
    assert process.in_common_arithmetic(exact, (exact,))[0] is exact
    rounded, levels = process.in_common_arithmetic(exact, (floats, exact))
    assert rounded.dtype == levels[1].dtype == np.float64
    assert rounded[0] == levels[1][0] == 1 / 3


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        ((F(1, 2),), InvalidShapeError, r"the policy must give 2 probabilities, got 1: .*1, 2"),
        ((F(2, 3), F(1, 2)), InvalidDistributionError, "sum to at most 1, got 7/6"),
        ((F(-1, 3), F(1, 2)), InvalidDistributionError, "must be >= 0, got -1/3"),
        ((0.5, float("nan")), InvalidDistributionError, "must be >= 0, got nan"),
        ((0.5, 0.5 + 1e-8), InvalidDistributionError, r"sum to at most 1, got 1\.00000001"),
    ],
)
def test_what_is_no_semi_distribution_is_refused(row, error, message):
    tree = HistoryTree(n_actions=2, n_observations=1, horizon=1)
    with pytest.raises(error, match=message):
        process.policy_table(tree, lambda _: row)


def test_utilities_lie_between_0_and_1():
    tree = HistoryTree(n_actions=1, n_observations=2, horizon=1)
    assert list(process.utility_table(tree, lambda h: F(h[1]))) == [0, 1]
    for bad in (1.5, -0.5, float("nan")):
        with pytest.raises(InvalidArgumentError, match=f"U_m must lie in .*got {bad}"):
            process.utility_table(tree, lambda _, bad=bad: bad)


@given(exact_cases())
def test_the_joint_law_is_the_product_along_each_history(case):
    tree, pi, nu, _ = case
    pi_of, nu_of = lookup(tree, pi), lookup(tree, nu)
    levels = process.reach_probabilities(pi, nu)
    for t, level in enumerate(levels):
        assert list(level) == [probability(h, pi_of, nu_of) for h in tree.continuations(t)]
    assert np.array_equal(process.joint_law(pi, nu), levels[-1])
    floats = process.joint_law(to_floats(pi), to_floats(nu))
    np.testing.assert_allclose(floats, levels[-1].astype(float), rtol=1e-14)


@given(exact_cases())
def test_the_action_law_is_the_product_of_action_probabilities(case):
    tree, pi, _, _ = case
    pi_of = lookup(tree, pi)
    law = iter(process.action_law(pi, n_observations=tree.n_observations))
    for h in tree.continuations(tree.horizon - 1):
        before = probability(h, pi_of, {h[:t]: np.ones((9, 9), int) for t in range(len(h))})
        for a in range(tree.n_actions):
            assert next(law) == before * pi_of[h][a]
    assert next(law, None) is None


@given(exact_cases())
def test_the_observation_laws_are_products_of_observation_probabilities(case):
    tree, _, nu, _ = case
    nu_of = lookup(tree, nu)
    anything_goes = dict.fromkeys(nu_of, np.ones(tree.n_actions, dtype=int))
    for t, level in enumerate(process.observation_laws(nu)):
        assert list(level) == [probability(h, anything_goes, nu_of) for h in tree.continuations(t)]
    floats = process.observation_laws(to_floats(nu))
    np.testing.assert_allclose(floats[-1], level.astype(float), rtol=1e-14)


@given(exact_cases(max_horizon=2))
def test_value_is_the_expected_utility_of_complete_continuations(case):
    tree, pi, nu, utility = case
    pi_of, nu_of = lookup(tree, pi), lookup(tree, nu)
    complete = list(tree.continuations(tree.horizon))
    for t, level in enumerate(process.values(pi, nu, utility)):
        for h, value in zip(tree.continuations(t), level, strict=True):
            expected = F(0)
            for g, u in zip(complete, utility, strict=True):
                if g[: 2 * t] == h:
                    # The probability of g given h: leave out the factors before t.
                    after = F(1)
                    for s in range(2 * t, len(g), 2):
                        after *= pi_of[g[:s]][g[s]] * nu_of[g[:s]][g[s]][g[s + 1]]
                    expected += after * u
            assert value == expected


@given(exact_cases(max_horizon=2))
def test_the_optimal_value_is_the_best_of_all_deterministic_policies(case):
    tree, _, nu, utility = case
    best = F(0)
    n_histories = [tree.n_histories(t) for t in range(tree.horizon)]
    for choices in np.ndindex(*(tree.n_actions,) * sum(n_histories)):
        levels, start = [], 0
        for n in n_histories:
            level = np.full((n, tree.n_actions), F(0))
            level[np.arange(n), choices[start : start + n]] = F(1)
            levels.append(level)
            start += n
        best = max(best, process.values(tuple(levels), nu, utility)[0][0])
    assert process.optimal_values(nu, utility)[0][0] == best


def test_tables_of_different_trees_do_not_mix():
    one = process.policy_table(TREE, lambda _: (0.5, 0.5))
    with pytest.raises(InvalidShapeError, match="share a horizon, got 2 and 1 levels"):
        process.check_same_tree(one, one[:1])
    with pytest.raises(InvalidShapeError, match=r"level 1 has shapes \(6, 2\) and \(5, 2\)"):
        process.check_same_tree(one, (one[0], one[1][:5]))


def test_the_number_of_observations_follows_from_the_shapes():
    pi = process.policy_table(TREE, lambda _: (0.5, 0.5))
    assert process.infer_n_observations(pi) == 3
    assert process.infer_n_observations(pi[:1]) == 1
    with pytest.raises(InvalidShapeError, match=r"level 1 .*here \(6, 2\), got \(7, 2\)"):
        process.infer_n_observations((pi[0], np.ones((7, 2)) / 2))
    with pytest.raises(InvalidShapeError, match=r"level 1 .*got \(1, 2\)"):
        process.infer_n_observations((pi[0], np.ones((1, 2)) / 2))


def test_a_subtree_is_the_table_of_what_continues_a_history():
    root = (1, 2)
    nu = process.environment_table(TREE, lambda h: (F(1, 2 + len(h)), F(sum(h), 20), F(h[0], 20)))
    from_root = HistoryTree(n_actions=2, n_observations=3, horizon=1, root=root)
    expected = process.environment_table(
        from_root, lambda h: (F(1, 2 + len(h)), F(sum(h), 20), F(h[0], 20))
    )
    below = process.subtree(nu, step=1, row=TREE.index(root))
    assert all(np.array_equal(a, b) for a, b in zip(below, expected, strict=True))
    whole = process.subtree(nu, step=0, row=0)
    assert all(np.array_equal(a, b) for a, b in zip(whole, nu, strict=True))
    for step, row in ((2, 0), (1, 6), (-1, 0), (0, -1)):
        with pytest.raises(InvalidHistoryError, match=f"row {row} at step {step}; it has .1, 6"):
            process.subtree(nu, step=step, row=row)


def test_tables_of_the_wrong_kind_are_refused():
    """A policy table has two axes a level and an environment table three."""
    tree = HistoryTree(n_actions=2, n_observations=2, horizon=2)
    pi = policy_table(tree, lambda h: (0.5, 0.5))
    nu = environment_table(tree, lambda h: (0.5, 0.5))
    utility = utility_table(tree, lambda h: 0.5)
    for call in (
        lambda: values(pi, pi, utility),
        lambda: expected_kl_nats(pi, pi, pi),
        lambda: observation_laws(pi),
    ):
        with pytest.raises(InvalidShapeError, match=r"level 0 of nu must be .* got \(1, 2\)"):
            call()
    with pytest.raises(InvalidShapeError, match=r"level 0 of beta must be .* got \(1, 2, 2\)"):
        expected_kl_nats(pi, nu, nu)
    for call in (lambda u: values(pi, nu, u), lambda u: optimal_values(nu, u)):
        with pytest.raises(InvalidShapeError, match=r"each of the 16 complete .* got shape \(5,\)"):
            call(np.zeros(5))


def test_exact_rows_may_not_exceed_1_by_anything():
    over = np.array([[Fraction(1, 2), Fraction(1, 2) + Fraction(1, 10**12)]], dtype=object)
    with pytest.raises(InvalidDistributionError):
        check_distributions(over, name="rows")
    check_distributions(over.astype(np.float64), name="rows")
