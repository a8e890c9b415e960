"""Classes, their weights and likelihoods are those of an interpreter run on every program."""

from collections import Counter
from fractions import Fraction

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.clusters import on_cluster
from tests.clusters import dask_cluster, needs, ray_head
from tests.toy_world.program_examples import histories, programs
from theory.errors import InvalidArgumentError, InvalidHistoryError, UnreachableLengthError
from theory.process import policy_table
from toy_world.programs import kernels as bitsets
from toy_world.programs.classes import ALWAYS, classes_of_conditions
from toy_world.programs.columns import Domain, Situation
from toy_world.programs.enumeration import MOST_BITS, enumerate_policies
from toy_world.programs.language import CopyAction, CopyObservation, Cycle, Do, Language, Latch
from toy_world.programs.posterior import posterior
from toy_world.programs.semantics import (
    action_probabilities,
    has_happened,
    holds,
    policy_function,
    policy_on_tree,
    trace_of,
)


def domain_of(history, situations, *, n_actions, n_observations, horizon):
    return Domain(
        history[::2],
        history[1::2],
        situations,
        n_actions=n_actions,
        n_observations=n_observations,
        horizon=horizon,
    )


@st.composite
def worlds(draw, *, max_steps=8, horizon=None):
    """A language, a history, and a domain with two or three situations on it."""
    sizes = {
        "n_actions": draw(st.integers(1, 3)),
        "n_observations": draw(st.integers(1, 2)),
    }
    history = draw(histories(**sizes, max_steps=max_steps))
    times = sorted(draw(st.lists(st.integers(0, len(history) // 2), min_size=1, max_size=3)))
    situations = [Situation(n_steps=t, extra=draw(histories(**sizes, max_steps=2))) for t in times]
    domain = domain_of(history, situations, **sizes, horizon=horizon or draw(st.integers(1, 3)))
    return Language(**sizes), history, domain


def rooted(history, domain, situation):
    return history[: 2 * situation.n_steps] + situation.extra


def behaviour(program, root, domain):
    """What a program does along `root` and on the tree behind it, by the interpreter alone."""
    sizes = {"n_actions": domain.n_actions, "n_observations": domain.n_observations}
    function = policy_function(program, **sizes)
    along = tuple(function(root[:t])[root[t]] for t in range(0, len(root), 2))
    tree = policy_table(domain.tree, lambda h: function(root + h))
    return along, tuple(
        map(tuple, np.concatenate([level.reshape(-1, domain.n_actions) for level in tree]))
    )


def oracle(language, limit, root, domain):
    """Exact weight of each behaviour with positive likelihood."""
    weights = Counter()
    for n_bits, program in language.policies.up_to(limit):
        along, tree = behaviour(program, root, domain)
        if 0 not in along:
            weights[along, tree] += 2 ** (limit - n_bits)
    return weights


@settings(max_examples=25)
@given(worlds())
def test_classes_and_their_exact_masses_are_those_of_every_program_run_one_by_one(world):
    language, history, domain = world
    limit = 11
    enumeration = enumerate_policies(language, domain, limit)
    for index, situation in enumerate(domain.situations):
        root = rooted(history, domain, situation)
        expected = oracle(language, limit, root, domain)
        if not expected:
            continue
        found = posterior(enumeration, index)
        assert sorted(found.prior_weights.tolist()) == sorted(expected.values())
        tables = enumeration.tree_probabilities(found.members, index)
        exact = found.exact_weights()
        by_key = Counter()
        for (along, tree), weight in expected.items():
            likelihood = Fraction(1)
            for probability in along:
                likelihood *= probability
            by_key[tree, weight, likelihood * Fraction(weight, 2**limit)] += 1
        assert by_key == Counter(
            (tuple(tuple(map(Fraction, row)) for row in table), int(weight), mass)
            for table, weight, mass in zip(tables, found.prior_weights, exact, strict=True)
        )
        for place in range(found.n_classes):
            program = found.program(place)
            assert language.length(program) == found.shortest_bits[place]
            assert behaviour(program, root, domain) in expected


@settings(max_examples=25)
@given(worlds(max_steps=20, horizon=2))
def test_likelihoods_and_posteriors_are_the_logarithms_of_the_exact_ones(world):
    language, _, domain = world
    enumeration = enumerate_policies(language, domain, 15)
    for index in range(len(domain.situations)):
        if not np.isfinite(enumeration.log_likelihoods[:, index]).any():
            continue
        found = posterior(enumeration, index)
        exact = found.exact_weights()
        total = sum(exact)
        np.testing.assert_allclose(
            np.exp(found.log_weights), [float(w / total) for w in exact], rtol=1e-13
        )
        assert np.all(np.diff(found.log_weights) <= 0)


@pytest.mark.parametrize("n_actions", [1, 2, 3])
@pytest.mark.parametrize("limit", [3, 4, 6, 9, 16, 20])
def test_without_a_history_the_counts_are_those_of_the_grammar(n_actions, limit):
    language = Language(n_actions=n_actions, n_observations=2)
    domain = domain_of((), [Situation(n_steps=0)], n_actions=n_actions, n_observations=2, horizon=2)
    enumeration = enumerate_policies(language, domain, limit)
    counts = language.policies.counts(limit)
    assert enumeration.counts.sum(axis=0).tolist() == counts
    assert enumeration.n_programs == sum(counts)
    mass = Fraction(int(enumeration.weights.sum()), 2**limit)
    assert mass == enumeration.prior_mass == 1 - enumeration.prior_mass_left_out


@settings(max_examples=15)
@given(worlds(max_steps=70))
def test_conditions_hold_where_the_interpreter_says(world):
    """Histories of over 64 steps: a latch must carry over words."""
    language, history, domain = world
    limit = 8
    keys = bitsets.hash_keys(domain.n_words)
    conditions = classes_of_conditions(language, domain, limit, keys=keys)
    sizes = {"n_actions": domain.n_actions, "n_observations": domain.n_observations}
    places = [
        (chain.columns.start + column, history[: 2 * (before + column)])
        for before, chain in zip(
            np.cumsum([0, *(s.n_columns for s in domain.chain)]), domain.chain, strict=False
        )
        for column in range(chain.n_columns)
    ]
    for situation, path, tree in zip(domain.situations, domain.paths, domain.trees, strict=True):
        known = history[: 2 * situation.n_steps]
        places += [
            (path.columns.start + column, known + situation.extra[: 2 * column])
            for column in range(path.n_columns)
        ]
        continuations = [h for t in range(domain.horizon) for h in domain.tree.continuations(t)]
        places += [
            (tree.columns.start + domain.n_actions * row + action, known + situation.extra + h)
            for row, h in enumerate(continuations)
            for action in range(domain.n_actions)
        ]
    seen = Counter()
    of_predicates, of_events = Counter(), Counter()
    for n_bits, predicate in language.predicates.up_to(limit):
        event = Latch(predicate)
        now = frozenset(
            column for column, h in places if holds(predicate, trace_of(event, h, **sizes))
        )
        ever = frozenset(
            column for column, h in places if has_happened(event, trace_of(event, h, **sizes))
        )
        of_predicates[now, n_bits] += 1
        of_events[ever, n_bits] += 1
        seen[now] += 1
        seen[ever] += 1
    columns = [column for column, _ in places]
    sets = [
        frozenset(c for c in columns if int(row[c // 64]) >> (c % 64) & 1)
        for row in conditions.bits
    ]
    assert sets[ALWAYS] == frozenset(columns)
    assert set(sets) == set(seen) | {sets[ALWAYS]}
    for table, expected in (
        (conditions.as_predicate, of_predicates),
        (conditions.as_event, of_events),
    ):
        found = {
            (sets[c], n_bits): int(table[c, n_bits]) for c, n_bits in np.argwhere(table).tolist()
        }
        assert found == expected
    for c, predicate in conditions.predicates.items():
        assert language.length(predicate) == conditions.as_predicate[c].nonzero()[0][0]


@given(worlds(max_steps=20), st.data())
def test_simple_policies_are_evaluated_as_the_interpreter_does(world, data):
    language, history, domain = world
    policy = data.draw(programs(language.policies))
    if not isinstance(policy, (Do, CopyAction, CopyObservation, Cycle)):
        policy = Cycle((0, domain.n_actions - 1))
    bits = domain.certain(policy)
    sizes = {"n_actions": domain.n_actions, "n_observations": domain.n_observations}
    for index, situation in enumerate(domain.situations):
        root = rooted(history, domain, situation)
        tree = domain.trees[index]
        rows = domain.unpack(bits[None], tree).reshape(-1, domain.n_actions)
        table = policy_on_tree(policy, domain.tree)
        function = policy_function(policy, **sizes)
        expected = policy_table(domain.tree, lambda h, f=function, r=root: f(r + h))
        assert len(table) == len(expected)
        assert (rows == np.concatenate(expected)).all()


def test_merging_keeps_switches_apart_whose_event_lies_ahead():
    """Equal on the past is not enough: `switch(E, pi, p)` differs from p only later."""
    language = Language(n_actions=2, n_observations=2)
    history = (0, 0) * 5
    domain = domain_of(history, [Situation(n_steps=5)], n_actions=2, n_observations=2, horizon=2)
    found = posterior(enumerate_policies(language, domain, 16), 0)
    texts = [language.show(found.program(place)) for place in range(found.n_classes)]
    assert "do(a0)" in texts
    assert "switch(latch(reached(steps, 5)), do(a1), do(a0))" in texts, "it occurs right now"
    assert "switch(latch(reached(steps, 6)), do(a1), do(a0))" in texts, "it will occur"


def assert_shared_work_gives_the_same(share):
    """The same classes with the same numbers, to the last bit, alone and within `share`."""
    rng = np.random.default_rng(20241006)
    language = Language(n_actions=2, n_observations=2)
    history = tuple(rng.integers(0, 2, 60).tolist())
    domain = domain_of(
        history,
        [Situation(n_steps=10), Situation(n_steps=30, extra=(1, 1))],
        n_actions=2,
        n_observations=2,
        horizon=2,
    )
    alone = enumerate_policies(language, domain, 18)
    with share:
        shared = enumerate_policies(language, domain, 18)
    for name in ("recipes", "mixture_weights", "counts", "log_likelihoods", "fingerprints"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(shared, name))
    for situation in range(2):
        one, other = posterior(alone, situation), posterior(shared, situation)
        np.testing.assert_array_equal(one.log_weights, other.log_weights)


@pytest.mark.parametrize("backend", ["threading", pytest.param("loky", marks=pytest.mark.slow)])
def test_the_result_does_not_depend_on_how_the_work_is_shared(backend):
    assert_shared_work_gives_the_same(joblib.parallel_config(backend=backend, n_jobs=2))


@pytest.mark.slow
@needs("distributed")
def test_a_dask_cluster_gives_the_same_mixture():
    with dask_cluster(n_workers=2) as address:
        assert_shared_work_gives_the_same(on_cluster(f"dask:{address}", "this test"))


@pytest.mark.slow
@needs("ray")
def test_a_ray_cluster_gives_the_same_mixture():
    with ray_head(n_cpus=2) as address:
        assert_shared_work_gives_the_same(on_cluster(f"ray:{address}", "this test"))


def test_a_long_history_s_likelihood_is_what_counting_says(rng):
    """10^5 fair coin tosses: `mix(w, do(a0), do(a1))` gets `n ln w + m ln(1 - w)`."""
    language = Language(n_actions=2, n_observations=1)
    actions = rng.integers(0, 2, 100_000)
    times = (1_000, 99_999)
    domain = Domain(
        actions,
        np.zeros_like(actions),
        [Situation(n_steps=t) for t in times],
        n_actions=2,
        n_observations=1,
        horizon=1,
    )
    enumeration = enumerate_policies(language, domain, 14)
    for index, t in enumerate(times):
        found = posterior(enumeration, index)
        n = int((actions[:t] == 0).sum())
        texts = [language.show(found.program(place)) for place in range(found.n_classes)]
        for w in (Fraction(1, 2), Fraction(3, 8), Fraction(3, 4)):
            same = (
                f"mix({w}, do(a0), do(a1))",
                f"mix({1 - w}, do(a1), do(a0))",
            )
            place = next(i for i, text in enumerate(texts) if text in same)
            log_likelihood = n * np.log(float(w)) + (t - n) * np.log(float(1 - w))
            found_log = enumeration.log_likelihoods[found.members[place], index]
            np.testing.assert_allclose(found_log, log_likelihood, rtol=1e-14)


def test_bad_questions_get_an_answer_that_says_what_to_do():
    sizes = {"n_actions": 2, "n_observations": 2}
    language = Language(**sizes)

    def domain(**changes):
        given_ = {"actions": [0, 1], "observations": [0, 1], "situations": [Situation(n_steps=2)]}
        return Domain(**{**given_, **sizes, "horizon": 1, **changes})

    with pytest.raises(InvalidArgumentError, match="at least one situation"):
        domain(situations=[])
    with pytest.raises(InvalidArgumentError, match="step 3 lies beyond the history's 2 steps"):
        domain(situations=[Situation(n_steps=3)])
    with pytest.raises(InvalidArgumentError, match=r"in order of n_steps, got \[2, 1\]"):
        domain(situations=[Situation(n_steps=2), Situation(n_steps=1)])
    with pytest.raises(InvalidHistoryError, match=r"actions must lie in 0\.\.1, got 2"):
        domain(actions=[0, 2])
    with pytest.raises(InvalidHistoryError, match="got 2 and 1"):
        domain(observations=[0])
    with pytest.raises(InvalidHistoryError, match=r"observation at position 1 must lie in 0\.\.1"):
        domain(situations=[Situation(n_steps=2, extra=(0, 2))])
    with pytest.raises(InvalidArgumentError, match="n_steps must be >= 0, got -1"):
        Situation(n_steps=-1)
    with pytest.raises(InvalidHistoryError, match="even length"):
        Situation(n_steps=1, extra=(0,))
    with pytest.raises(UnreachableLengthError, match="shortest policy has 2 bits; allow at least"):
        enumerate_policies(language, domain(), 1)
    with pytest.raises(InvalidArgumentError, match=f"at most {MOST_BITS} .* got 51"):
        enumerate_policies(language, domain(), 51)
    with pytest.raises(InvalidArgumentError, match="same alphabets, got sizes 3, 2 and 2, 2"):
        enumerate_policies(Language(n_actions=3, n_observations=2), domain(), 10)
    trace = trace_of(Do(0), (), **sizes)
    assert action_probabilities(Do(0), trace) == (1, 0)
