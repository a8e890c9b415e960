"""Evidence about every event, against an interpreter that walks the demonstration."""

import math
from fractions import Fraction

import numpy as np
import pytest

from theory.vetoes import is_vetoed
from toy_world.programs.columns import ColumnLayout, QueryPoint
from toy_world.programs.language import Language
from toy_world.programs.semantics import has_happened, holds, trace_of
from toy_world.programs.vocabulary import Meaning, vocabulary
from toy_world.studies.veto_evidence import VetoEvidence, barred_on_tree, blurred, without

SIZES = {"n_actions": 3, "n_observations": 2}
STEPS = ((0, 0), (0, 1), (1, 0), (0, 0), (1, 1), (0, 1), (1, 0))
HISTORY = tuple(symbol for step in STEPS for symbol in step)
EXTRA = (0, 1)


@pytest.fixture(scope="module")
def evidence():
    actions, observations = (np.array(column) for column in zip(*STEPS, strict=True))
    layout = ColumnLayout(
        actions, observations, [QueryPoint(n_steps=len(STEPS), extra=EXTRA)], **SIZES, horizon=2
    )
    rates = np.random.default_rng(3).dirichlet(np.ones(3), size=len(STEPS))
    words = vocabulary(Language(**SIZES), layout, 11)
    return VetoEvidence(vocabulary=words, actions=actions, rates=rates)


def is_met(condition, history):
    part = condition.part
    trace = trace_of(part, history, **SIZES)
    if condition.meaning is Meaning.NOW:
        return holds(part, trace)
    return has_happened(part, trace) == (condition.meaning is Meaning.SINCE)


def visits_of(evidence, condition, n_steps):
    """The steps at which a condition is met, by the interpreter."""
    return [t for t in range(n_steps) if is_met(condition, HISTORY[: 2 * t])]


@pytest.mark.parametrize("n_steps", [0, 3, len(STEPS)])
def test_the_evidence_counts_visits_occurrences_and_what_was_expected(evidence, n_steps):
    words, found = evidence.vocabulary, evidence.after(n_steps)
    for place, (c, action) in enumerate(np.argwhere(words.included).tolist()):
        visits = visits_of(evidence, words.conditions[c], n_steps)
        rates = [evidence.rates[t, action] for t in visits]
        assert found.bits[place] == words.bits[c, action] <= words.limit_bits
        assert found.visits[place] == len(visits)
        assert found.occurrences[place] == sum(STEPS[t][0] == action for t in visits)
        assert found.expected[place] == pytest.approx(sum(rates), abs=1e-13)
        never = math.prod(1 - b for b in rates)
        assert math.exp(found.log_never[place]) == pytest.approx(never, rel=1e-12)


@pytest.mark.parametrize("alpha", [Fraction(1, 2**11), Fraction(1, 20), Fraction(1, 2)])
def test_a_class_is_vetoed_if_one_of_its_events_is(evidence, alpha):
    words = evidence.vocabulary
    found = evidence.vetoed(len(STEPS), alpha)
    for c, condition in enumerate(words.conditions):
        for action in range(3):
            visits = visits_of(evidence, condition, len(STEPS))
            m = math.prod(1 - evidence.rates[t, action] for t in visits)
            count = sum(STEPS[t][0] == action for t in visits)
            lengths = np.flatnonzero(words.numbers[c, action])
            each = [is_vetoed([2.0**-n], [m], [count], alpha=float(alpha))[0] for n in lengths]
            assert found[c, action] == any(each)


@pytest.mark.parametrize("alpha", [Fraction(1, 2**11), Fraction(1, 50), Fraction(1, 4)])
def test_ever_vetoed_means_at_some_time(evidence, alpha):
    words = evidence.vocabulary
    among = np.random.default_rng(0).random(words.included.shape) < 0.7
    expected = 0
    for c, condition in enumerate(words.conditions):
        for action in range(3):
            for n_bits in np.flatnonzero(words.numbers[c, action]):
                ever = False
                for k in range(len(STEPS) + 1):
                    visits = visits_of(evidence, condition, k)
                    m = math.prod(1 - evidence.rates[t, action] for t in visits)
                    count = sum(STEPS[t][0] == action for t in visits)
                    ever |= bool(is_vetoed([2.0**-n_bits], [m], [count], alpha=float(alpha))[0])
                expected += ever * among[c, action] * int(words.numbers[c, action, n_bits])
    assert evidence.n_ever_vetoed(alpha, among=among) == expected > 0


def test_prices_are_those_of_the_visits(evidence):
    prices = evidence.prices_nats()
    for c, condition in enumerate(evidence.vocabulary.conditions):
        visits = visits_of(evidence, condition, len(STEPS))
        for action in range(3):
            own = prices[c, action]
            assert np.flatnonzero(~np.isnan(own)).tolist() == visits
            np.testing.assert_allclose(own[visits], -np.log(evidence.rates[visits, action]))


def test_what_is_vetoed_is_barred_wherever_its_condition_is_met(evidence):
    words = evidence.vocabulary
    vetoed = np.random.default_rng(1).random(words.included.shape) < 0.02
    levels = barred_on_tree(words, vetoed, 0)
    root = HISTORY + EXTRA
    for level, continuations in zip(
        levels, ([()], words.layout.tree.continuations(1)), strict=True
    ):
        for row, continuation in enumerate(continuations):
            history = root + tuple(continuation)
            met = np.array([is_met(c, history) for c in words.conditions])
            assert level[row].tolist() == (vetoed & met[:, None]).any(axis=0).tolist()
    assert 0 < np.concatenate(levels).mean() < 1


def test_a_vetoed_law_is_the_base_without_what_is_barred():
    base = (np.array([[0.5, 0.25, 0.25]]),)
    assert without(base, (np.array([[False, True, False]]),))[0].tolist() == [[0.5, 0.0, 0.25]]


def test_a_blurred_law_gives_nothing_up():
    (rows,) = blurred((np.array([[1.0, 0.0, 0.0, 0.0]]),), 0.2)
    np.testing.assert_allclose(rows, [[0.85, 0.05, 0.05, 0.05]])


def test_what_was_sure_makes_never_impossible():
    """An imitator that was sure of an event that did not come: `m = 0`."""
    layout = ColumnLayout([0], [0], [QueryPoint(n_steps=1)], **SIZES, horizon=1)
    words = vocabulary(Language(**SIZES), layout, 8)
    evidence = VetoEvidence(
        vocabulary=words, actions=np.array([0]), rates=np.array([[0.0, 1.0, 0.0]])
    )
    after = evidence.after(1)
    visited = after.visits > 0
    assert set(after.log_never[visited]) == {0.0, -math.inf}
    assert evidence.vetoed(1, Fraction(999, 1000)).any()
