"""The three readings against their definitions, written out over whole action sequences."""

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.exact_tables import environment_tables, policy_tables, to_floats, trees
from theory import constraints
from theory.errors import InvalidDistributionError, InvalidShapeError
from theory.log_sum import LogSum, log_sum
from theory.process import HistoryTree, environment_table, joint_law, policy_table, values

F = Fraction
INF = LogSum.infinity()
TWO_STEPS = HistoryTree(n_actions=2, n_observations=2, horizon=2)


def cases(*, horizon=3, full=True):
    return trees(max_horizon=horizon).flatmap(
        lambda tree: st.tuples(
            st.just(tree),
            policy_tables(tree, full=full),
            policy_tables(tree, full=False),
            environment_tables(tree, full=full),
        )
    )


def by_history(tree, table):
    """The table as a dict from continuations."""
    rows = {}
    for t, level in enumerate(table):
        rows.update(zip(tree.continuations(t), level, strict=True))
    return rows


def action_probability(policy, actions, observations):
    """`prod_t pi(a_t|h_t)`, policy as a dict from continuations."""
    result, history = F(1), ()
    for t, action in enumerate(actions):
        result *= policy[history][action]
        history = (*history, action, *observations[t : t + 1])
    return result


def kl_term(p, q):
    return log_sum([(p, p / q)]) if p and q else INF * p


def tvd_term(p, q):
    return abs(p - q) / 2


def divergence_of_sequences(tree, pi, beta, observe, term):
    """The divergence of action sequences when `observe(actions so far)` is what comes."""
    total = 0
    for actions in product(range(tree.n_actions), repeat=tree.horizon):
        observations = [observe(actions[: t + 1]) for t in range(tree.horizon - 1)]
        p = action_probability(pi, actions, observations)
        q = action_probability(beta, actions, observations)
        total = term(p, q) + total
    return total


def worst_fixed(tree, pi, beta, term):
    """For each observation sequence, in order."""
    pi, beta = by_history(tree, pi), by_history(tree, beta)
    return [
        divergence_of_sequences(tree, pi, beta, lambda a, o=o: o[len(a) - 1], term)
        for o in product(range(tree.n_observations), repeat=tree.horizon - 1)
    ]


def worst_adaptive(tree, pi, beta, term):
    """The maximum over every map from the actions so far to an observation."""
    pi, beta = by_history(tree, pi), by_history(tree, beta)
    moments = [a for t in range(1, tree.horizon) for a in product(range(tree.n_actions), repeat=t)]
    return max(
        divergence_of_sequences(
            tree, pi, beta, dict(zip(moments, choice, strict=True)).__getitem__, term
        )
        for choice in product(range(tree.n_observations), repeat=len(moments))
    )


def of_joint_laws(pi, beta, nu, term):
    total = 0
    for p, q in zip(joint_law(pi, nu), joint_law(beta, nu), strict=True):
        total = term(p, q) + total
    return total


@given(cases())
def test_fixed_observations_are_the_maximum_over_sequences_chosen_in_advance(case):
    tree, pi, beta, _ = case
    kl = worst_fixed(tree, pi, beta, kl_term)
    assert list(constraints.fixed_kl_per_observations(pi, beta)) == kl
    assert constraints.fixed_kl_nats(pi, beta) == max(kl)
    tvd = worst_fixed(tree, pi, beta, tvd_term)
    assert list(constraints.fixed_tvd_per_observations(pi, beta)) == tvd
    assert constraints.fixed_tvd(pi, beta) == max(tvd)


@given(cases())
def test_adaptive_observations_are_the_maximum_over_strategies(case):
    tree, pi, beta, _ = case
    assert constraints.adaptive_kl_nats(pi, beta) == worst_adaptive(tree, pi, beta, kl_term)
    assert constraints.adaptive_tvd(pi, beta) == worst_adaptive(tree, pi, beta, tvd_term)


@given(cases())
def test_expected_divergences_are_those_of_the_joint_laws(case):
    _, pi, beta, nu = case
    assert constraints.expected_kl_nats(pi, beta, nu) == of_joint_laws(pi, beta, nu, kl_term)
    assert constraints.expected_tvd(pi, beta, nu) == of_joint_laws(pi, beta, nu, tvd_term)
    p, q = joint_law(pi, nu), joint_law(beta, nu)
    if any(x > 0 and not y for x, y in zip(p, q, strict=True)):
        assert constraints.expected_chi_squared(pi, beta, nu) == math.inf
    else:
        pairs = zip(p, q, strict=True)
        chi_squared = sum((x - y) ** 2 / y for x, y in pairs if y)
        assert constraints.expected_chi_squared(pi, beta, nu) == chi_squared


@given(cases())
def test_a_policy_is_at_distance_0_from_itself_in_every_reading(case):
    _, pi, _, nu = case
    beta = pi
    for distance in (
        constraints.fixed_kl_nats(pi, beta),
        constraints.adaptive_kl_nats(pi, beta),
        constraints.expected_kl_nats(pi, beta, nu),
        constraints.fixed_tvd(pi, beta),
        constraints.adaptive_tvd(pi, beta),
        constraints.expected_tvd(pi, beta, nu),
        constraints.expected_chi_squared(pi, beta, nu),
    ):
        assert distance == 0


@given(
    trees().flatmap(
        lambda tree: st.tuples(policy_tables(tree), policy_tables(tree), environment_tables(tree))
    )
)
def test_reverse_kl_is_that_of_the_joint_laws_exchanged(case):
    pi, beta, nu = case
    reverse = constraints.expected_reverse_kl_nats(pi, beta, nu)
    assert reverse == of_joint_laws(beta, pi, nu, kl_term)


@given(cases())
def test_adaptive_is_the_largest_reading(case):
    _, pi, beta, nu = case
    kl = constraints.adaptive_kl_nats(pi, beta)
    assert constraints.fixed_kl_nats(pi, beta) <= kl
    assert constraints.expected_kl_nats(pi, beta, nu) <= kl
    tvd = constraints.adaptive_tvd(pi, beta)
    assert constraints.fixed_tvd(pi, beta) <= tvd
    assert constraints.expected_tvd(pi, beta, nu) <= tvd


def uniform(tree):
    return policy_table(tree, lambda _: (F(1, 2), F(1, 2)))


def deterministic_where_echoed():
    return policy_table(
        TWO_STEPS, lambda h: (F(1), F(0)) if h and h[0] == h[1] else (F(1, 2), F(1, 2))
    )


def echo():
    return environment_table(TWO_STEPS, lambda h: (F(1), F(0)) if h[-1] == 0 else (F(0), F(1)))


def test_fixed_and_expected_are_not_ordered():
    pi, beta = deterministic_where_echoed(), uniform(TWO_STEPS)
    assert constraints.fixed_kl_nats(pi, beta) == LogSum.log(2) / 2
    assert constraints.expected_kl_nats(pi, beta, echo()) == LogSum.log(2)
    assert constraints.adaptive_kl_nats(pi, beta) == LogSum.log(2)
    assert constraints.fixed_tvd(pi, beta) == F(1, 4)
    assert constraints.expected_tvd(pi, beta, echo()) == F(1, 2)
    silent = environment_table(TWO_STEPS, lambda h: (F(0), F(1)) if h[-1] == 0 else (F(1), F(0)))
    assert constraints.expected_kl_nats(pi, beta, silent) == 0
    assert constraints.expected_tvd(pi, beta, silent) == 0


def test_the_steps_kl_are_those_of_the_rows():
    pi, beta = deterministic_where_echoed(), uniform(TWO_STEPS)
    first, second = constraints.step_kl_nats(pi, beta)
    assert list(first) == [LogSum.rational(0)]
    assert list(second) == [LogSum.log(2), LogSum.rational(0), LogSum.rational(0), LogSum.log(2)]


@given(cases(full=False))
def test_the_kl_of_semi_distributions_is_the_expected_sum_of_the_steps_kl(case):
    tree, pi, beta, nu = case
    steps = by_history(tree, constraints.step_kl_nats(pi, beta))
    pi_of, nu_of = by_history(tree, pi), by_history(tree, nu)
    total = LogSum.rational(0)
    for history, kl in steps.items():
        reach = F(1)
        for t in range(0, len(history), 2):
            action, observation = history[t : t + 2]
            reach *= pi_of[history[:t]][action] * nu_of[history[:t]][action][observation]
        total += reach * kl
    assert constraints.expected_kl_nats(pi, beta, nu) == total


@given(cases())
def test_floats_agree_with_the_exact_values(case):
    _, pi, beta, nu = case
    floats = to_floats(pi), to_floats(beta), to_floats(nu)
    for reading in (
        constraints.expected_kl_nats,
        constraints.expected_reverse_kl_nats,
        constraints.expected_tvd,
        constraints.expected_chi_squared,
    ):
        exact, rounded = reading(pi, beta, nu), reading(*floats)
        assert isinstance(rounded, float)
        assert rounded == pytest.approx(float(exact), rel=1e-12, abs=1e-14)
    for reading in (
        constraints.fixed_kl_nats,
        constraints.adaptive_kl_nats,
        constraints.fixed_tvd,
        constraints.adaptive_tvd,
    ):
        exact, rounded = reading(pi, beta), reading(*floats[:2])
        assert isinstance(rounded, float)
        assert rounded == pytest.approx(float(exact), rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("log2_size", [-4, -10, -20, -28])
def test_the_kl_of_nearly_equal_policies_keeps_its_digits(log2_size, rng):
    # Dyadic rows: their floats are exact and sum to exactly 1.
    tree = HistoryTree(n_actions=3, n_observations=2, horizon=3)
    pi, beta = [], []
    for t in range(tree.horizon):
        parts = rng.integers(2**10, 2**14, size=(tree.n_histories(t), 2))
        parts = np.concatenate([parts, 2**16 - parts.sum(axis=1, keepdims=True)], axis=1)
        shift = rng.integers(-8, 9, size=(tree.n_histories(t), 1)) * np.array([1, -1, 0])
        beta.append(parts / 2.0**16)
        pi.append(beta[-1] + shift * 2.0 ** (log2_size - 6))
    exact = [
        tuple(np.vectorize(F, otypes=[object])(level) for level in table) for table in (pi, beta)
    ]
    kl = float(constraints.fixed_kl_nats(*exact))
    error = 1e-13 + 1e-15 / math.sqrt(kl)
    assert constraints.fixed_kl_nats(tuple(pi), tuple(beta)) == pytest.approx(kl, rel=error)


def test_exact_tables_are_rounded_where_they_meet_floats():
    pi, beta = deterministic_where_echoed(), to_floats(uniform(TWO_STEPS))
    assert constraints.fixed_kl_nats(pi, beta) == pytest.approx(math.log(2) / 2, rel=1e-15)


@given(cases())
def test_the_worst_observation_sequence_attains_the_maximum(case):
    tree, pi, beta, _ = case
    per_observations = constraints.fixed_kl_per_observations(pi, beta)
    worst = constraints.observation_sequence(
        per_observations, horizon=tree.horizon, n_observations=tree.n_observations
    )
    attained = divergence_of_sequences(
        tree, by_history(tree, pi), by_history(tree, beta), lambda a: worst[len(a) - 1], kl_term
    )
    assert attained == constraints.fixed_kl_nats(pi, beta)


@given(cases())
def test_the_worst_observation_strategy_attains_the_maximum(case):
    tree, pi, beta, _ = case
    to_go = constraints.adaptive_kl_to_go(pi, beta)
    strategy = constraints.observation_strategy(to_go, n_actions=tree.n_actions)
    symbols = np.array([F(i) for i in range(tree.n_observations)])
    # An environment that plays the strategy; its last observation does not matter.
    last = np.zeros((tree.n_histories(tree.horizon - 1), tree.n_actions), dtype=int)
    nu = tuple(np.where(symbols == level[..., None], F(1), F(0)) for level in (*strategy, last))
    attained = constraints.expected_kl_nats(pi, beta, nu)
    assert attained == constraints.adaptive_kl_nats(pi, beta) == to_go[0][0]


@given(cases(horizon=2))
def test_expected_kl_to_go_is_a_value_with_the_steps_kl_as_reward(case):
    tree, pi, beta, nu = case
    to_go = constraints.expected_kl_to_go(pi, beta, nu)
    steps = constraints.step_kl_nats(pi, beta)
    assert list(to_go[-1]) == list(steps[-1])
    if tree.horizon == 2 and all(not kl.is_infinite for level in steps for kl in level):
        reward = np.repeat(steps[1], tree.branching)
        assert to_go[0][0] == steps[0][0] + values(pi, nu, reward)[0][0]


def test_what_is_never_reached_costs_nothing_even_if_it_is_infinite():
    tree = HistoryTree(n_actions=2, n_observations=2, horizon=2)
    beta = policy_table(tree, lambda _: (F(1), F(0)))
    # pi does what beta never does, but only after what pi and the environment never do.
    pi = policy_table(tree, lambda h: (F(0), F(1)) if h[:2] in {(1, 0), (0, 1)} else (F(1), F(0)))
    nu = environment_table(tree, lambda _: (F(1), F(0)))
    for kind in (lambda table: table, to_floats):
        args = kind(pi), kind(beta), kind(nu)
        assert constraints.expected_kl_nats(*args) == 0
        assert constraints.expected_chi_squared(*args) == 0
        assert constraints.adaptive_kl_nats(*args[:2]) == math.inf
        assert constraints.fixed_kl_nats(*args[:2]) == math.inf
        assert list(constraints.fixed_kl_per_observations(*args[:2])) == [0, math.inf]


def test_a_horizon_of_one_step_has_one_empty_observation_sequence():
    tree = HistoryTree(n_actions=2, n_observations=3, horizon=1)
    pi = policy_table(tree, lambda _: (F(1), F(0)))
    per_observations = constraints.fixed_kl_per_observations(pi, uniform(tree))
    assert list(per_observations) == [LogSum.log(2)]
    assert constraints.observation_sequence(per_observations, horizon=1, n_observations=3) == ()


def test_long_histories_of_single_symbols_are_no_special_case():
    tree = HistoryTree(n_actions=1, n_observations=1, horizon=100)
    pi = policy_table(tree, lambda _: (F(1),))
    beta = policy_table(tree, lambda _: (F(1, 2),))
    per_observations = constraints.fixed_kl_per_observations(pi, beta)
    assert list(per_observations) == [100 * LogSum.log(2)]
    worst = constraints.observation_sequence(per_observations, horizon=100, n_observations=1)
    assert worst == (0,) * 99
    assert constraints.adaptive_kl_nats(pi, beta) == 100 * LogSum.log(2)
    assert constraints.fixed_tvd(pi, beta) == (1 - F(1, 2**100)) / 2


def test_a_maximum_belongs_to_its_own_tree():
    with pytest.raises(InvalidShapeError, match=r"\(4,\), got \(3,\)"):
        constraints.observation_sequence(np.zeros(3), horizon=3, n_observations=2)


def test_tables_of_no_common_tree_or_no_probabilities_are_refused():
    beta = uniform(TWO_STEPS)
    with pytest.raises(InvalidShapeError, match="share a horizon, got 2 and 1"):
        constraints.fixed_kl_nats(beta, beta[:1])
    broken = (beta[0], beta[1][:3])
    with pytest.raises(InvalidShapeError, match=r"level 1 .*got \(3, 2\)"):
        constraints.adaptive_tvd(broken, broken)
    for name, tables in (
        ("pi", (tuple(2 * level for level in beta), beta, echo())),
        ("beta", (beta, tuple(2 * level for level in beta), echo())),
        ("nu", (beta, beta, tuple(2 * level for level in echo()))),
    ):
        message = f"probabilities of {name} must sum to at most 1, got 2"
        with pytest.raises(InvalidDistributionError, match=message):
            constraints.expected_kl_nats(*tables)
