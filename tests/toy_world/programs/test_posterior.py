"""The enumerated mixture predicts by Bayes' rule over every program, and Theorem 1 holds on it."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.toy_world.program_examples import behaviour, layout_of, oracle, rooted, worlds
from theory.bayes_mixture import Update, policy_mixture
from theory.bounds import Theorem1Bound
from theory.constraints import adaptive_kl_nats
from theory.errors import InvalidArgumentError, InvalidDistributionError
from theory.pessimism import top_set
from toy_world.programs.columns import ColumnLayout, QueryPoint
from toy_world.programs.enumeration import enumerate_policies
from toy_world.programs.language import Do, Language, Switch
from toy_world.programs.posterior import posterior
from toy_world.programs.semantics import has_happened, trace_of

LIMIT = 11


def mixture_at(world, index):
    language, history, layout = world
    root = rooted(history, layout.points[index])
    expected = oracle(language, LIMIT, root, layout)
    assume(expected)
    return posterior(enumerate_policies(language, layout, LIMIT), index), expected, root


@settings(max_examples=20)
@given(worlds(max_steps=5, horizon=2), st.sampled_from(Update))
def test_predictions_are_those_of_bayes_rule_over_every_program(world, update):
    """Conditionals of the mixture are ratios of its joint probabilities (every action updating)."""
    found, expected, _ = mixture_at(world, 0)
    layout = found.enumeration.layout
    n_actions = layout.n_actions
    joint = [
        (weight * np.prod([Fraction(1), *along]), tree)
        for (along, tree), weight in expected.items()
    ]
    xi = found.imitator(update=update)
    total = sum(mass for mass, _ in joint)
    row = 0
    for level in xi:
        for h in range(len(level)):
            for action in range(n_actions):
                if row == 0 or update is Update.DEMONSTRATOR:
                    exact = sum(mass * tree[row][action] for mass, tree in joint) / total
                else:
                    first = h // layout.n_observations
                    before = sum(mass * tree[0][first] for mass, tree in joint)
                    if before == 0:
                        continue
                    both = sum(mass * tree[0][first] * tree[row][action] for mass, tree in joint)
                    exact = both / before
                assert level[h, action] == pytest.approx(float(exact), abs=1e-14)
            row += 1


@settings(max_examples=20)
@given(worlds(max_steps=5, horizon=2))
def test_merging_classes_by_continuation_changes_no_prediction(world):
    found, _, _ = mixture_at(world, 0)
    weights, policies = found.by_continuation()
    rows = [
        tuple(np.concatenate([level[i].ravel() for level in policies])) for i in range(len(weights))
    ]
    assert len(set(rows)) == len(rows)
    for update in Update:
        merged = policy_mixture(weights, policies, update=update)
        whole = policy_mixture(np.exp(found.log_weights), found.policies, update=update)
        for one, other in zip(merged, whole, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-13)


@settings(max_examples=20)
@given(worlds(max_steps=5, horizon=2), st.integers(0, LIMIT + 2))
def test_rho_is_the_posterior_mass_of_short_programs(world, delta):
    found, expected, root = mixture_at(world, 0)
    language, _, layout = world
    total = sum(weight * np.prod([Fraction(1), *along]) for (along, _), weight in expected.items())
    short = oracle(language, LIMIT - delta, root, layout) if delta <= LIMIT else Counter()
    mass = sum(
        weight * 2**delta * np.prod([Fraction(1), *along]) for (along, _), weight in short.items()
    )
    assert np.exp(found.log_rho(delta)) == pytest.approx(float(mass / total), rel=1e-12)


@settings(max_examples=15)
@given(worlds(max_steps=5, horizon=2))
def test_every_program_is_found_in_its_class_and_shown_on_the_tree(world):
    found, _, root = mixture_at(world, 0)
    language, _, layout = world
    weights = Counter()
    for n_bits, program in language.policies.up_to(LIMIT):
        along, tree = behaviour(program, root, layout)
        if 0 in along:
            with pytest.raises(InvalidArgumentError, match="can have produced the history"):
                found.place_of(program)
            continue
        place = found.place_of(program)
        weights[place] += 2 ** (LIMIT - n_bits)
        assert found.shortest_bits[place] <= n_bits
        on_tree = np.concatenate(found.on_tree(program))
        assert (on_tree == np.array(tree, dtype=np.float64)).all()
        shown = np.concatenate([level[place] for level in found.policies])
        assert (shown == on_tree).all()
    assert [weights[place] for place in range(found.n_classes)] == found.prior_weights.tolist()


@settings(max_examples=20)
@given(worlds(max_steps=5, horizon=2))
def test_theorem_1_holds_for_every_event_and_policy_that_the_mixture_can_hold(world):
    language, history, layout = world
    root = rooted(history, layout.points[0])
    enumeration = enumerate_policies(language, layout, 16)
    assume(root and np.isfinite(enumeration.log_likelihoods[:, 0]).any())
    found = posterior(enumeration, 0)
    sizes = {"n_actions": layout.n_actions, "n_observations": layout.n_observations}
    xi = found.imitator()
    for event_bits, event in language.events.up_to(5):
        occurs = has_happened(event, trace_of(event, root, **sizes))
        if not occurs or has_happened(event, trace_of(event, root[:-2], **sizes)):
            continue
        for pi_bits, pi in language.policies.up_to(4):
            delta = language.switch_bits + event_bits + pi_bits
            switched = Switch(event, pi, pi)
            assert language.length(switched) == delta + pi_bits
            bound = Theorem1Bound(delta_bits=delta, log_rho=found.log_rho(delta))
            assert adaptive_kl_nats(found.on_tree(pi), xi) <= bound.bound_nats + 1e-12


def test_classes_come_in_order_of_weight_and_then_of_length():
    language = Language(n_actions=2, n_observations=1)
    history = (0, 0) * 6
    layout = layout_of(history, [QueryPoint(n_steps=6)], n_actions=2, n_observations=1, horizon=2)
    found = posterior(enumerate_policies(language, layout, 12), 0)
    assert language.show(found.program(0)) == "do(a0)"
    order = list(zip(-found.log_weights, found.shortest_bits, strict=True))
    assert order == sorted(order)
    assert np.exp(found.log_weights).sum() == pytest.approx(1)
    assert found.point == QueryPoint(n_steps=6)
    assert found.tree is layout.tree


def test_what_cannot_be_answered_says_why():
    language = Language(n_actions=2, n_observations=1)
    history = (0, 0, 0, 0, 1, 0)
    layout = layout_of(history, [QueryPoint(n_steps=3)], n_actions=2, n_observations=1, horizon=1)
    with pytest.raises(InvalidDistributionError, match=r"no program of at most 4 bits .* step 3"):
        posterior(enumerate_policies(language, layout, 4), 0)
    found = posterior(enumerate_policies(language, layout, 12), 0)
    with pytest.raises(InvalidArgumentError, match="delta_bits must be >= 0, got -1"):
        found.log_rho(-1)
    assert found.log_rho(13) == -np.inf
    with pytest.raises(InvalidArgumentError, match="behaves like no program of at most 12 bits"):
        found.place_of(language.policies.parse("do(a0)"))


def test_ties_of_the_top_set_are_by_length_and_code_not_by_storage():
    """Before any demonstration the four programs do(a) weigh alike: the first two codes enter."""
    language = Language(n_actions=4, n_observations=2)
    nothing = np.zeros(0, dtype=np.int64)
    layout = ColumnLayout(
        nothing, nothing, [QueryPoint(n_steps=0)], n_actions=4, n_observations=2, horizon=2
    )
    found = posterior(enumerate_policies(language, layout, 10), 0)
    weights, models = found.by_continuation()
    constant = [
        next(
            i
            for i, rows in enumerate(models[1])
            if (rows[:, action] == 1).all() and models[0][i, 0, action] == 1
        )
        for action in range(4)
    ]
    assert len(set(weights[constant])) == 1
    codes = [language.policies.encode(Do(action)) for action in range(4)]
    assert sorted(range(4), key=lambda a: codes[a]) == sorted(range(4), key=lambda a: constant[a])
    assert top_set(weights, Fraction(2, 5))[constant].tolist() == [True, True, False, False]
