"""Classes, their weights and likelihoods are those of an interpreter run on every program."""

import contextlib
import math
import pickle
from fractions import Fraction

import joblib
import numpy as np
import pytest
from hypothesis import given, settings

from mightnt.clusters import on_cluster
from tests.clusters import dask_cluster, needs, ray_head
from tests.toy_world.program_examples import (
    behaviour,
    exact_weights,
    layout_of,
    oracle,
    rooted,
    worlds,
)
from theory.errors import InvalidArgumentError, UnreachableLengthError
from toy_world.programs.columns import ColumnLayout, QueryPoint
from toy_world.programs.enumeration import MOST_BITS, enumerate_policies, group
from toy_world.programs.language import Language
from toy_world.programs.posterior import posterior


@settings(max_examples=25)
@given(worlds())
def test_classes_and_their_exact_masses_are_those_of_every_program_run_one_by_one(world):
    language, history, layout = world
    limit = 11
    enumeration = enumerate_policies(language, layout, limit)
    for index, point in enumerate(layout.points):
        root = rooted(history, point)
        expected = oracle(language, limit, root, layout)
        if not expected:
            continue
        found = posterior(enumeration, index)
        tables = enumeration.tree_probabilities(found.members, index)
        weights = {}
        for place, (member, table) in enumerate(zip(found.members, tables, strict=True)):
            program = found.program(place)
            assert language.length(program) == found.shortest_bits[place]
            along, tree = behaviour(program, root, layout)
            assert tuple(tuple(map(Fraction, row)) for row in table) == tree
            likelihood = math.prod(along, start=Fraction(1))
            assert math.exp(enumeration.log_likelihoods[member, index]) == pytest.approx(
                float(likelihood), rel=1e-13
            )
            weights[along, tree] = int(found.prior_weights[place])
        assert len(weights) == found.n_classes
        assert weights == expected


@settings(max_examples=25)
@given(worlds(max_steps=20, horizon=2))
def test_posteriors_are_those_of_the_exact_weights(world):
    language, history, layout = world
    enumeration = enumerate_policies(language, layout, 15)
    for index, point in enumerate(layout.points):
        if not np.isfinite(enumeration.log_likelihoods[:, index]).any():
            continue
        found = posterior(enumeration, index)
        exact = exact_weights(found, rooted(history, point))
        total = sum(exact)
        np.testing.assert_allclose(
            np.exp(found.log_weights), [float(w / total) for w in exact], rtol=1e-13
        )
        assert np.all(np.diff(found.log_weights) <= 0)


@pytest.mark.parametrize("n_actions", [1, 2, 3])
@pytest.mark.parametrize("limit", [3, 4, 6, 9, 16, 20])
def test_without_a_history_the_counts_are_those_of_the_grammar(n_actions, limit):
    language = Language(n_actions=n_actions, n_observations=2)
    layout = layout_of(
        (), [QueryPoint(n_steps=0)], n_actions=n_actions, n_observations=2, horizon=2
    )
    enumeration = enumerate_policies(language, layout, limit)
    counts = language.policies.counts(limit)
    assert enumeration.counts.sum(axis=0).tolist() == counts
    assert enumeration.n_programs == sum(counts)
    mass = Fraction(int(enumeration.weights.sum()), 2**limit)
    assert mass == enumeration.prior_mass == 1 - enumeration.prior_mass_left_out


def test_merging_keeps_switches_apart_whose_event_lies_ahead():
    """Equal on the past is not enough: `switch(E, pi, p)` differs from p only later."""
    language = Language(n_actions=2, n_observations=2)
    history = (0, 0) * 5
    layout = layout_of(history, [QueryPoint(n_steps=5)], n_actions=2, n_observations=2, horizon=2)
    found = posterior(enumerate_policies(language, layout, 16), 0)
    texts = [language.show(found.program(place)) for place in range(found.n_classes)]
    assert "do(a0)" in texts
    assert "switch(latch(reached(steps, 5)), do(a1), do(a0))" in texts, "it occurs right now"
    assert "switch(latch(reached(steps, 6)), do(a1), do(a0))" in texts, "it will occur"


def assert_shared_work_gives_the_same(share):
    """The same classes with the same numbers, to the last bit, alone and within `share`."""
    rng = np.random.default_rng(20241006)
    language = Language(n_actions=2, n_observations=2)
    history = tuple(rng.integers(0, 2, 60).tolist())
    layout = layout_of(
        history,
        [QueryPoint(n_steps=10), QueryPoint(n_steps=30, extra=(1, 1))],
        n_actions=2,
        n_observations=2,
        horizon=2,
    )
    alone = enumerate_policies(language, layout, 18)
    with share:
        shared = enumerate_policies(language, layout, 18)
    for name in ("recipes", "mixture_weights", "counts", "log_likelihoods", "fingerprints"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(shared, name))
    for point in range(2):
        one, other = posterior(alone, point), posterior(shared, point)
        np.testing.assert_array_equal(one.log_weights, other.log_weights)


def test_work_that_is_sent_away_is_small_and_gives_the_same(monkeypatch):
    """Every call and every result by way of bytes, as to a worker's process and back."""
    sent = []

    def by_way_of_bytes(calls, *, description):
        for call in calls:
            sent.append(pickle.dumps(call))
            function, arguments, keywords = pickle.loads(sent[-1])
            yield pickle.loads(pickle.dumps(function(*arguments, **keywords)))

    @contextlib.contextmanager
    def share():
        with monkeypatch.context() as patch:
            patch.setattr("toy_world.programs.enumeration.results_of", by_way_of_bytes)
            yield

    assert_shared_work_gives_the_same(share())
    # What composes comes first; what follows the history has some of the recipes besides.
    assert max(map(len, sent[: len(sent) // 2])) < 2000


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
    layout = ColumnLayout(
        actions,
        np.zeros_like(actions),
        [QueryPoint(n_steps=t) for t in times],
        n_actions=2,
        n_observations=1,
        horizon=1,
    )
    enumeration = enumerate_policies(language, layout, 14)
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
    layout = layout_of((0, 0, 1, 1), [QueryPoint(n_steps=2)], **sizes, horizon=1)
    with pytest.raises(UnreachableLengthError, match="shortest policy has 2 bits; allow at least"):
        enumerate_policies(language, layout, 1)
    with pytest.raises(InvalidArgumentError, match=f"at most {MOST_BITS} .* got 51"):
        enumerate_policies(language, layout, 51)
    with pytest.raises(InvalidArgumentError, match="same alphabets, got sizes 3, 2 and 2, 2"):
        enumerate_policies(Language(n_actions=3, n_observations=2), layout, 10)


def test_groups_are_of_equal_fingerprints_the_cheapest_first():
    prints = np.array([[1, 2, 3], [0, 0, 0], [1, 2, 3], [1, 2, 4], [0, 0, 0]], dtype=np.uint64)
    costs = np.array([5, 1, 4, 9, 0])
    order, starts = group(prints, costs)
    groups = [part.tolist() for part in np.split(order, starts[1:])]
    assert sorted(groups) == [[2, 0], [3], [4, 1]]
