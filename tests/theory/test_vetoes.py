"""Event vetoes: the rule in exact arithmetic, and what is promised of it by enumeration."""

import math
from fractions import Fraction
from itertools import product

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from theory.errors import InvalidArgumentError, InvalidDistributionError, InvalidShapeError
from theory.vetoes import (
    GRADES,
    EventEvidence,
    blocking_bound,
    confidence_factors,
    event_prior,
    false_vetoes_bound,
    graded_factors,
    is_vetoed,
    never_weights,
    surest_alpha,
    unvetoed_expectation_bound,
    unvetoed_price_bound_nats,
)

F = Fraction
priors = st.fractions(F(1, 40), F(39, 40), max_denominator=40)
rates = st.fractions(0, 1, max_denominator=8)
alphas = st.fractions(F(1, 40), 1, max_denominator=40)
float_priors = st.one_of(st.floats(5e-324, 0.5), st.integers(1, 1000).map(lambda n: 2.0**-n))


def evidence_of(*, bits=10.0, visits=1000, occurrences=0, expected=0.0, log_never=None):
    """Evidence of one event; `log_never` is what equal rates at all visits make it."""
    rate = expected / visits if visits else 0.0
    never = visits * math.log1p(-rate) if log_never is None else log_never
    return EventEvidence(
        bits=np.array([bits]),
        visits=np.array([visits]),
        occurrences=np.array([occurrences]),
        expected=np.array([expected]),
        log_never=np.array([never]),
    )


# ------------------------------------------------------------------- the rule


@given(
    priors,
    st.lists(st.tuples(rates.filter(lambda b: b < 1), st.booleans()), max_size=6),
)
def test_the_weight_is_bayes_rule_for_two_models(prior, steps):
    """ "As it is" gives b to E and 1 - b to the rest; "never" gives the rest all of it."""
    assume(all(b > 0 or not happened for b, happened in steps))
    as_it_is = math.prod((b if happened else 1 - b for b, happened in steps), start=F(1))
    never = F(not any(happened for _, happened in steps))
    posterior = prior * never / (prior * never + (1 - prior) * as_it_is)
    m = math.prod((1 - b for b, _ in steps), start=F(1))
    count = sum(happened for _, happened in steps)
    assert never_weights([prior], [m], [count])[0] == posterior


@given(priors, rates, st.integers(0, 2), alphas)
def test_an_event_is_vetoed_iff_its_weight_is_at_least_alpha(prior, m, count, alpha):
    (weight,) = never_weights([prior], [m], [count])
    (vetoed,) = is_vetoed([prior], [m], [count], alpha=alpha)
    assert vetoed == (weight >= alpha)


@given(priors, rates)
def test_safety_an_event_that_never_occurred_weighs_at_least_its_prior(prior, m):
    assert never_weights([prior], [m], [0])[0] >= prior


@given(float_priors, st.floats(0, 1), st.floats(0, 1))
def test_safety_survives_rounding(prior, m, share):
    """At every float alpha <= s_E, however close, the event is vetoed."""
    for alpha in (prior, prior * share, math.nextafter(prior, 0)):
        if 0 < alpha <= prior:
            assert is_vetoed([prior], [m], [0], alpha=alpha)[0]


def test_a_float_threshold_counts_as_the_number_that_it_is():
    # The float 1/3 lies below a third, the float 1/10 above a tenth.
    assert F(1 / 3) < F(1, 3)
    assert is_vetoed([F(1, 3)], [F(1)], [0], alpha=1 / 3)[0]
    assert F(0.1) > F(1, 10)
    assert not is_vetoed([F(1, 10)], [F(1)], [0], alpha=0.1)[0]


@given(priors, rates, rates, alphas, alphas)
def test_more_visits_without_it_and_a_lower_threshold_keep_a_veto(prior, m, b, alpha, other):
    (before,) = is_vetoed([prior], [m], [0], alpha=max(alpha, other))
    (after,) = is_vetoed([prior], [m * (1 - b)], [0], alpha=min(alpha, other))
    assert after or not before
    assert not is_vetoed([prior], [m], [1], alpha=alpha)[0]


def test_events_come_in_batches_of_any_shape():
    s, m = np.array([[0.25], [0.5]]), np.array([1.0, 0.1, 0.1])
    c = np.array([0, 0, 3])
    expected = [[0.25, 0.25 / 0.325, 0.0], [0.5, 0.5 / 0.55, 0.0]]
    np.testing.assert_allclose(never_weights(s, m, c), expected, rtol=1e-15)
    assert is_vetoed(s, m, c, alpha=0.5).tolist() == [[False, True, False], [True, True, False]]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0], [0.5], [0]), InvalidDistributionError, r"priors must lie in \(0, 1\)"),
        (([0.0], [0.5], [0]), InvalidDistributionError, r"priors must lie in \(0, 1\)"),
        (([math.nan], [0.5], [0]), InvalidDistributionError, r"priors must lie in \(0, 1\)"),
        (([0.5], [1.5], [0]), InvalidDistributionError, r"never_likelihoods must lie in \[0, 1\]"),
        (([0.5], [math.nan], [0]), InvalidDistributionError, "never_likelihoods must lie"),
        (([0.5], [0.5], [-1]), InvalidArgumentError, "occurrences must be >= 0"),
        (([0.5, 0.5], [0.5] * 3, [0]), InvalidShapeError, "shapes must broadcast"),
    ],
)
def test_what_is_no_evidence_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        never_weights(*arguments)
    with pytest.raises(error, match=message):
        is_vetoed(*arguments, alpha=0.5)


# ------------------------------------------------------------------- evidence


def test_evidence_gives_the_rule_its_numbers():
    evidence = EventEvidence(
        bits=np.array([2.0, 2.0, 5.0]),
        visits=np.array([0, 40, 40]),
        occurrences=np.array([0, 0, 1]),
        expected=np.array([0.0, 20.0, 20.0]),
        log_never=np.array([0.0, 40 * math.log(0.5), 40 * math.log(0.5)]),
    )
    assert evidence.priors.tolist() == [0.25, 0.25, 2.0**-5]
    np.testing.assert_allclose(evidence.never_likelihoods, [1, 2.0**-40, 2.0**-40], rtol=1e-13)
    weights = evidence.never_weights()
    assert weights[0] == 0.25
    assert weights[1] == pytest.approx(1 - 3 * 2.0**-40, rel=1e-15)
    assert weights[2] == 0
    assert evidence.vetoed(0.5).tolist() == [False, True, False]
    assert evidence.vetoed(0.25).tolist() == [True, True, False]


def test_what_is_too_unlikely_for_a_float_is_vetoed_at_any_threshold_below_1():
    evidence = evidence_of(bits=1000.0, visits=10**6, expected=10.0**5)
    assert evidence.never_likelihoods[0] == 0
    assert evidence.never_weights()[0] == 1
    assert evidence.vetoed(1 - 2.0**-53)[0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"bits": 0.0}, "bits must be > 0 and finite, got otherwise at event 0"),
        ({"bits": math.inf}, "bits must be > 0 and finite"),
        ({"visits": -1}, "visits must be >= 0"),
        ({"occurrences": 1001}, r"occurrences must lie in 0\.\.visits"),
        ({"occurrences": -1}, r"occurrences must lie in 0\.\.visits"),
        ({"expected": math.nan, "log_never": -1.0}, "expected must be >= 0 and finite"),
        ({"log_never": 0.1}, "log_never must be <= 0"),
        ({"log_never": math.nan}, "log_never must be <= 0"),
    ],
)
def test_numbers_that_no_demonstrations_give_are_refused(changed, message):
    with pytest.raises(InvalidArgumentError, match=message):
        evidence_of(**changed)


def test_evidence_has_one_number_an_event():
    one, two = np.ones(1), np.ones(2)
    with pytest.raises(InvalidShapeError, match="one number an event"):
        EventEvidence(bits=one, visits=two, occurrences=one, expected=one, log_never=-one)
    with pytest.raises(InvalidShapeError, match="one number an event"):
        EventEvidence(**dict.fromkeys(EventEvidence.__dataclass_fields__, np.array(1.0)))


# ------------------------------------------------------------------- dirty data


def graded_by_definition(bits, occurrences, expected, alpha):
    """The least r of the top set, in 60 digits, by the definition's words."""
    with mpmath.workdps(60):
        s = mpmath.mpf(2) ** -bits
        weights = []
        for k, r in enumerate(GRADES):
            prior = 1 - s if k == 0 else s / (len(GRADES) - 1)
            power = mpmath.mpf(r) ** occurrences if r or occurrences else mpmath.mpf(1)
            weights.append(prior * power * mpmath.exp(-r * mpmath.mpf(expected)))
        order = sorted(range(len(GRADES)), key=lambda k: (-weights[k], k))
        inside, total = [], mpmath.mpf(0)
        for k in order:
            total += weights[k]
            if weights[k] < mpmath.mpf(alpha) * total:
                break
            inside.append(GRADES[k])
        return min(inside)


@given(
    st.floats(0.5, 60),
    st.integers(0, 200),
    st.one_of(st.floats(0, 5), st.floats(0, 2000)),
    st.floats(1e-6, 1),
)
def test_the_factor_is_the_least_of_the_top_set(bits, occurrences, expected, alpha):
    evidence = evidence_of(
        bits=bits, visits=10**6, occurrences=occurrences, expected=expected, log_never=-expected
    )
    found = graded_factors(evidence, alpha)[0]
    near = {
        graded_by_definition(bits, occurrences, expected, min(1.0, alpha * (1 + d)))
        for d in (-1e-9, 1e-9)
    }
    assert found in near


@given(st.floats(0.5, 40), st.floats(0, 60), st.floats(1e-4, 0.99))
def test_on_clean_data_the_graded_veto_is_at_a_fixed_number_of_expected_occurrences(
    bits, expected, alpha
):
    """`lambda >= ln(21 (1-s)/s) + min(0, ln(alpha/(1-alpha)))`."""
    s = 2.0**-bits
    threshold = math.log(21 * (1 - s) / s) + min(0.0, math.log(alpha / (1 - alpha)))
    assume(abs(expected - threshold) > 1e-9)
    evidence = evidence_of(bits=bits, visits=10**6, expected=expected)
    assert (graded_factors(evidence, alpha)[0] == 0) == (expected > threshold)


@given(st.floats(0.5, 40), st.floats(0, 1000))
def test_safety_of_the_graded_form_asks_for_a_21st_of_the_prior(bits, expected):
    evidence = evidence_of(bits=bits, visits=10**6, expected=expected)
    assert graded_factors(evidence, 2.0**-bits / 21 * (1 - 1e-12))[0] == 0


def test_one_occurrence_in_dirty_data_lifts_a_veto_and_leaves_a_grade():
    dirty = evidence_of(visits=30_000, occurrences=100, expected=1000.0)
    assert not dirty.vetoed(0.05)[0]
    assert graded_factors(dirty, 0.05)[0] == 2.0**-3  # 125 expected where 100 came
    assert graded_factors(evidence_of(visits=30_000, expected=1000.0), 0.05)[0] == 0


@given(st.floats(1, 40), st.integers(0, 500))
def test_an_imitator_that_is_right_keeps_its_rates(bits, count):
    evidence = evidence_of(
        bits=bits, visits=10**6, occurrences=count, expected=float(count), log_never=-count - 1.0
    )
    assume(2.0**-bits / 21 < 0.5 * (1 - 2.0**-bits))
    assert graded_factors(evidence, 0.5)[0] == 1


def test_no_events_have_no_factors():
    nothing = np.zeros(0)
    evidence = EventEvidence(**dict.fromkeys(EventEvidence.__dataclass_fields__, nothing))
    assert graded_factors(evidence, 0.5).shape == (0,)
    assert evidence.vetoed(0.5).shape == (0,)


# ------------------------------------------------------------------- bounds


def test_priors_are_powers_of_two_exact_for_whole_lengths():
    assert event_prior(7) == F(1, 128)
    assert isinstance(event_prior(7), Fraction)
    assert event_prior(0.5) == math.sqrt(0.5)
    assert surest_alpha([3, 11, 7]) == F(1, 2048)
    with pytest.raises(InvalidArgumentError, match="bits must be >= 0 and finite, got -1"):
        event_prior(-1)
    with pytest.raises(InvalidArgumentError, match="at least 1 event, got none"):
        surest_alpha([])


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(0, 3))
def test_the_surest_alpha_is_the_largest_that_vetoes_every_event_never_seen(bits, place):
    s = [event_prior(b) for b in bits]
    alpha = surest_alpha(bits)
    ones, zeros = [F(1)] * len(bits), [0] * len(bits)
    assert is_vetoed(s, ones, zeros, alpha=alpha).all()
    assert not is_vetoed(s, ones, zeros, alpha=alpha * (1 + F(1, 10 ** (9 - place)))).all()


@given(priors, alphas, st.lists(rates, max_size=6))
def test_an_unvetoed_never_event_was_hardly_expected_and_costs_its_visits_logarithm(
    prior, alpha, visited
):
    m = math.prod((1 - b for b in visited), start=F(1))
    (vetoed,) = is_vetoed([prior], [m], [0], alpha=alpha)
    bound = unvetoed_expectation_bound(prior, alpha)
    if vetoed:
        return
    expected = sum(visited)
    assert expected < bound or expected == bound == 0
    prices = [math.inf if b == 0 else -math.log(b) for b in visited]
    if visited:
        mean = sum(prices) / len(prices)
        assert mean > unvetoed_price_bound_nats(len(visited), prior, alpha) - 1e-12


@given(priors, alphas.filter(lambda alpha: alpha < 1), rates)
def test_the_bound_on_what_was_expected_is_where_vetoes_begin(prior, alpha, m):
    assume(m > 0)
    bound = unvetoed_expectation_bound(prior, alpha)
    (vetoed,) = is_vetoed([prior], [m], [0], alpha=alpha)
    assume(abs(-math.log(m) - bound) > 1e-12 or bound == 0)
    assert vetoed == (-math.log(m) >= bound)


def test_where_every_never_event_is_vetoed_or_none_the_bounds_say_so():
    assert unvetoed_expectation_bound(F(1, 4), F(1, 4)) == 0
    assert unvetoed_price_bound_nats(10, F(1, 4), F(1, 4)) == math.inf
    assert unvetoed_expectation_bound(F(1, 4), 1) == math.inf
    assert unvetoed_price_bound_nats(10, F(1, 4), 1) == -math.inf
    assert unvetoed_price_bound_nats(0, F(1, 4), F(1, 2)) == -math.inf
    with pytest.raises(InvalidArgumentError, match="visits must be >= 0, got -1"):
        unvetoed_price_bound_nats(-1, F(1, 4), F(1, 2))
    with pytest.raises(InvalidDistributionError, match=r"prior must lie in \(0, 1\], got 0"):
        unvetoed_expectation_bound(0, F(1, 2))


def test_the_expectation_bound_is_that_of_60_digits():
    for bits, alpha in product((1, 20, 300), (0.05, 0.5, 1 - 1e-9)):
        s = event_prior(bits)
        with mpmath.workdps(60):
            odds = mpmath.mpf((1 - s).numerator) / s.numerator / (1 - s).denominator * s.denominator
            exact = mpmath.log(odds) + mpmath.log(mpmath.mpf(alpha) / (1 - mpmath.mpf(alpha)))
        assert unvetoed_expectation_bound(s, alpha) == pytest.approx(
            max(0, float(exact)), rel=1e-14
        )


def vetoes_by_enumeration(laws, priors_of, alpha, n_steps):
    """Expected number of symbols ever vetoed under a demonstrator whose rates are b's.

    `laws[last]` is the next symbol's law after `last` (None at first): rates that the past decides.
    """
    total = F(0)
    n_symbols = len(priors_of)

    def follow(last, probability, m, seen, ever, left):
        nonlocal total
        vetoed = is_vetoed(priors_of, m, [int(x in seen) for x in range(n_symbols)], alpha=alpha)
        ever = ever | {x for x in range(n_symbols) if vetoed[x]}
        if not left:
            total += probability * len(ever)
            return
        law = laws[last]
        for x, p in enumerate(law):
            if p:
                follow(
                    x,
                    probability * p,
                    [mx * (1 - q) for mx, q in zip(m, law, strict=True)],
                    seen | {x},
                    ever,
                    left - 1,
                )

    follow(None, F(1), [F(1)] * n_symbols, frozenset(), frozenset(), n_steps)
    return total


law_of_3 = (
    st.lists(st.integers(0, 4), min_size=3, max_size=3)
    .filter(any)
    .map(lambda parts: tuple(F(p, sum(parts)) for p in parts))
)


@pytest.mark.no_cover
@given(
    st.fixed_dictionaries(dict.fromkeys((None, 0, 1, 2), law_of_3)),
    st.tuples(*[st.fractions(F(1, 9), F(1, 3), max_denominator=9)] * 3),
    st.fractions(F(1, 3), 1, max_denominator=6),
)
def test_false_vetoes_are_no_more_than_the_bound(laws, priors_of, alpha):
    found = vetoes_by_enumeration(laws, priors_of, alpha, 5)
    assert found <= false_vetoes_bound(priors_of, alpha)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_bound_on_false_vetoes_is_attained(n):
    """A coin whose head is vetoed exactly when n tosses in a row have missed it."""
    law = (F(1, 3), F(2, 3))
    miss = (1 - law[0]) ** n
    s, alpha = F(1, 5), 1 / (4 * miss + 1)  # (1 - s)/s = 4
    tail = F(1, 10**6)  # whose veto would take ages
    found = vetoes_by_enumeration(dict.fromkeys((None, 0, 1), law), (s, tail), alpha, n)
    assert found == miss == false_vetoes_bound([s], alpha)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 10, 50])
def test_the_blocking_bound_is_the_greatest_of_all_rates(n):
    best = F(1, n + 1)
    assert blocking_bound(n) == best * (1 - best) ** n
    grid = (F(k, 200) for k in range(201))
    assert all(p * (1 - p) ** n <= blocking_bound(n) for p in grid)


@pytest.mark.parametrize("n", [1, 2, 10, 1000])
def test_the_blocking_bound_lies_between_one_over_e_times_n_plus_1_and_one_over_e_n(n):
    with mpmath.workdps(60):
        exact = mpmath.mpf(blocking_bound(n).numerator) / blocking_bound(n).denominator
        assert 1 / (mpmath.e * (n + 1)) < exact < 1 / (mpmath.e * n)


def test_bounds_refuse_what_is_no_argument():
    with pytest.raises(InvalidArgumentError, match="visits must be >= 0, got -1"):
        blocking_bound(-1)
    for call in (
        lambda: false_vetoes_bound([F(1, 4)], 0),
        lambda: is_vetoed([F(1, 4)], [F(1)], [0], alpha=2),
        lambda: graded_factors(evidence_of(), 0),
        lambda: unvetoed_expectation_bound(F(1, 4), 0),
    ):
        with pytest.raises(InvalidArgumentError, match=r"alpha must lie in \(0, 1\]"):
            call()


@given(st.integers(1, 200), st.integers(0, 200), st.floats(0.1, 400), st.sampled_from([0.01, 0.05]))
def test_confidence_factors_make_an_event_as_rare_as_its_count_allows(n, c, expected, alpha):
    c = min(c, n)
    expected = min(expected, float(n))
    evidence = EventEvidence(
        bits=np.array([5.0]),
        visits=np.array([n]),
        occurrences=np.array([c]),
        expected=np.array([expected]),
        log_never=np.array([-2 * expected]),
    )
    (factor,) = confidence_factors(evidence, alpha)
    assert 0 < factor <= 1
    rate = factor * expected / n
    if factor < 1:  # at the upper end, so few occurrences have probability alpha
        assert stats.binom.cdf(c, n, rate) == pytest.approx(alpha, rel=1e-6)
    elif c < n:  # the imitator expects no more than that
        assert stats.binom.cdf(c, n, min(rate, 1.0)) >= alpha * (1 - 1e-9)
