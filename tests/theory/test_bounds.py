"""The right-hand sides against mpmath, exact arithmetic and search."""

import math
from fractions import Fraction
from itertools import pairwise

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory import bounds
from theory.bayes_mixture import Update, policy_mixture, stack_tables
from theory.bounds import ShortValue, Theorem1Bound, short_value_below, theorem1_factor
from theory.constraints import expected_kl_nats
from theory.errors import InvalidArgumentError, InvalidBudgetError, InvalidDistributionError
from theory.log_sum import LogSum, kl_log_sum
from theory.pessimism import help_probability, pessimistic_imitator
from theory.process import HistoryTree, environment_table, policy_table, reach_probabilities

F = Fraction


@given(st.integers(0, 200), st.fractions(F(1, 10**6), 1))
def test_theorem_1_bounds_in_nats_and_bits_are_the_logarithm_of_the_exact_factor(delta_bits, rho):
    exact = -LogSum.log(bounds.theorem1_factor(delta_bits=delta_bits, rho=rho))
    bound = Theorem1Bound(delta_bits=delta_bits, log_rho=min(math.log(rho), 0.0))
    assert bound.bound_nats == pytest.approx(float(exact), rel=1e-14, abs=1e-14)
    assert bound.bound_bits == pytest.approx(float(exact) / math.log(2), rel=1e-14, abs=1e-14)
    assert bound.truncation_nats == pytest.approx(-math.log(rho), abs=0)


def test_the_printed_bound_is_looser_by_the_square_of_ln_2():
    bound = Theorem1Bound(delta_bits=7)
    ratio = bound.bound_as_printed_nats / bound.bound_nats
    assert ratio == pytest.approx(float(1 / mpmath.log(2) ** 2), rel=1e-14)
    truncated = Theorem1Bound(delta_bits=7, log_rho=-0.5)
    for name in ("bound_nats", "bound_as_printed_nats"):
        assert getattr(truncated, name) == pytest.approx(getattr(bound, name) + 0.5, rel=1e-14)


def test_an_environment_that_the_mixture_doubts_adds_what_it_doubts():
    bound = Theorem1Bound(delta_bits=3, log_rho=-0.25)
    assert bound.expected_bound_nats(log_environment_weight=0) == bound.bound_nats
    added = bound.expected_bound_nats(log_environment_weight=math.log(1 / 8)) - bound.bound_nats
    assert added == pytest.approx(3 * math.log(2), rel=1e-14)
    with pytest.raises(InvalidArgumentError, match=r"log_environment_weight .* got 0\.1"):
        bound.expected_bound_nats(log_environment_weight=0.1)


def test_a_mixture_without_switched_programs_has_an_infinite_bound():
    assert Theorem1Bound(delta_bits=3, log_rho=-math.inf).bound_nats == math.inf
    assert bounds.theorem1_factor(delta_bits=3, rho=F(0)) == 0


def test_a_bound_has_finite_bits_and_a_probability():
    for bad in (-1, math.inf, math.nan):
        with pytest.raises(InvalidArgumentError, match=f"delta_bits .*got {bad}"):
            Theorem1Bound(delta_bits=bad)
    for bad in (0.1, math.nan):
        with pytest.raises(InvalidArgumentError, match=f"log_rho must be at most 0 .*got {bad}"):
            Theorem1Bound(delta_bits=1, log_rho=bad)
    with pytest.raises(InvalidDistributionError, match=r"rho must lie in \[0, 1\], got 3/2"):
        bounds.theorem1_factor(delta_bits=1, rho=F(3, 2))


@pytest.mark.parametrize("delta_bits", [0, 5, 40.5, 3000])
@pytest.mark.parametrize("n", [1, 4, 30])
def test_the_families_limits_agree_with_mpmath(n, delta_bits):
    with mpmath.workdps(1000):
        heavy = mpmath.mpf(2) ** delta_bits
        pointed = n * mpmath.log1p(heavy)
        equally = mpmath.fsum(mpmath.log1p(heavy / i) for i in range(1, n + 1))
        eps = 1 / heavy
        # The path on which the observations keep naming the survivors, step by step.
        halving, reach = mpmath.mpf(0), mpmath.mpf(1)
        for _ in range(n):
            halving += reach * mpmath.log((1 + eps) / (0.5 + eps))
            reach *= (0.5 + eps / 2) / (0.5 + eps)
    args = {"n": n, "delta_bits": delta_bits}
    assert bounds.pointed_deviators_nats(**args) == pytest.approx(float(pointed), rel=1e-14)
    approx = pytest.approx(float(equally), rel=1e-14)
    assert bounds.equally_pointed_deviators_nats(**args) == approx
    assert bounds.halving_deviators_nats(**args) == pytest.approx(float(halving), rel=1e-13)


def test_families_have_models_and_bits():
    for family in (
        bounds.pointed_deviators_nats,
        bounds.equally_pointed_deviators_nats,
        bounds.halving_deviators_nats,
    ):
        with pytest.raises(InvalidArgumentError, match="n must be >= 1, got 0"):
            family(n=0, delta_bits=1)
        with pytest.raises(InvalidArgumentError, match=r"delta_bits .*got -1"):
            family(n=1, delta_bits=-1)


@given(st.fractions(F(1, 10**9), 10**9) | st.floats(1e-300, 1e300))
def test_the_triangle_inequality_fails_for_every_epsilon(epsilon):
    witness = bounds.no_triangle_witness(epsilon)
    assert kl_log_sum(witness.pi, witness.beta) <= epsilon
    assert 0 < kl_log_sum(witness.tau, witness.beta) <= epsilon
    assert kl_log_sum(witness.pi, witness.tau).is_infinite
    assert sum(witness.beta) == sum(witness.tau) == 1


def test_a_witness_needs_a_positive_epsilon():
    for bad in (0, -1.0, math.inf, math.nan):
        with pytest.raises(InvalidArgumentError, match=f"epsilon must be .*got {bad}"):
            bounds.no_triangle_witness(bad)


def elias_delta(number):
    """The code word itself."""
    digits = f"{number:b}"
    count = f"{len(digits):b}"
    return "0" * (len(count) - 1) + count + digits[1:]


def test_lengths_are_those_of_elias_delta_code_words():
    words = [elias_delta(number) for number in range(1, 600)]
    assert [bounds.elias_delta_bits(number) for number in range(1, 600)] == [*map(len, words)]
    # And the code is prefix-free, so that they bound a complexity.
    ordered = sorted(words)
    assert not any(b.startswith(a) for a, b in pairwise(ordered))
    with pytest.raises(InvalidArgumentError, match="number must be >= 1, got 0"):
        bounds.elias_delta_bits(0)


@given(st.fractions(F(1, 10**9), 1), st.integers(1, 12))
def test_a_short_value_is_the_largest_below_with_that_many_bits(value, n_bits):
    short = bounds.short_value_below(value, n_bits=n_bits)
    assert 2 ** (n_bits - 1) <= short.mantissa < 2**n_bits
    assert (1 - F(2, 2**n_bits)) * value <= short.value < value
    for exponent in range(short.exponent - 3, short.exponent + 4):
        step = F(2) ** -exponent
        best = min((value / step).__ceil__() - 1, 2**n_bits - 1)
        if best >= 2 ** (n_bits - 1):
            assert best * step <= short.value
    word = elias_delta(short.mantissa) + elias_delta(short.exponent)
    assert short.length_bits == len(word)


def test_powers_of_two_have_their_predecessors_as_short_values():
    assert bounds.short_value_below(F(1), n_bits=3) == ShortValue(mantissa=7, exponent=3)
    assert bounds.short_value_below(F(1, 4), n_bits=1) == ShortValue(mantissa=1, exponent=3)


@given(st.fractions(F(1, 10**9), 1), st.integers(1, 12), st.integers(0, 3000))
def test_the_third_term_depends_on_the_logarithm_of_the_value_alone(value, n_bits, halvings):
    tiny = value / 2**halvings
    length = bounds.short_value_below(tiny, n_bits=n_bits).length_bits
    numerator, denominator = tiny.numerator, tiny.denominator
    log2_value = math.log2(numerator) - math.log2(denominator)
    if abs(log2_value - round(log2_value)) > 1e-6:  # else rounding decides the exponent
        assert bounds.third_term_bits(n_bits=n_bits, log2_value=log2_value) == length


def test_the_third_term_grows_like_the_logarithm_of_the_surprise():
    for exponent in (10, 1000, 10**6, 10**12):
        bits = bounds.third_term_bits(n_bits=8, log2_value=-float(exponent))
        j = 8 + exponent
        # Elias' code of an 8-bit number has 14 bits.
        assert bits <= 14 + math.log2(j) + 2 * math.log2(math.log2(j) + 1) + 1
        assert bits >= 14 + math.floor(math.log2(j))


def test_values_lie_between_0_and_1():
    for bad in (F(0), F(3, 2)):
        with pytest.raises(InvalidArgumentError, match=rf"value must lie in \(0, 1\], got {bad}"):
            bounds.short_value_below(bad, n_bits=2)
    for bad in (0.5, -math.inf, math.nan):
        with pytest.raises(InvalidArgumentError, match=f"log2_value must be .*got {bad}"):
            bounds.third_term_bits(n_bits=2, log2_value=bad)
    with pytest.raises(InvalidArgumentError, match="n_bits must be >= 1, got 0"):
        bounds.short_value_below(F(1, 2), n_bits=0)


def test_ville_s_bound_is_exact_for_rationals_and_never_negative():
    stays = bounds.demonstrator_stays_probability
    assert stays(alpha=F(1, 100), weight=F(1, 8)) == F(92, 100)
    assert stays(alpha=F(1, 2), weight=F(1, 8)) == 0
    assert isinstance(stays(alpha=F(1, 2), weight=F(1, 8)), Fraction)
    assert stays(alpha=0.01, weight=0.125) == pytest.approx(0.92, rel=1e-15)
    with pytest.raises(InvalidDistributionError, match=r"weight must lie in \(0, 1\], got 0"):
        stays(alpha=F(1, 2), weight=F(0))
    with pytest.raises(InvalidArgumentError, match="alpha must lie in"):
        stays(alpha=0, weight=F(1, 2))


def test_the_expected_help_is_below_the_bound_of_the_literature():
    # Measured, not proved: every history of eight demonstrations, in exact arithmetic.
    tree = HistoryTree(n_actions=2, n_observations=1, horizon=8)
    parameters = (F(1, 4), F(1, 2), F(3, 4), F(1))
    models = stack_tables([policy_table(tree, lambda _, p=p: (p, 1 - p)) for p in parameters])
    nothing_to_see = environment_table(tree, lambda _: (F(1),))
    weights, mu = [F(1, 8), F(1, 4), F(1, 2), F(1, 8)], 0
    reach = reach_probabilities(tuple(level[mu] for level in models), nothing_to_see)
    for alpha in (F(1, 10), F(1, 2)):
        nu_alpha = pessimistic_imitator(weights, models, alpha=alpha, update=Update.ALL)
        asked = sum(
            (p * theta**3).sum()
            for p, theta in zip(reach[:-1], help_probability(nu_alpha), strict=True)
        )
        bound = bounds.help_cubed_bound(n_actions=2, alpha=alpha, weight=weights[mu])
        assert bound == F(2) / alpha**3 * (24 / weights[mu] + 12)
        assert 0 < asked < bound
    with pytest.raises(InvalidDistributionError, match=r"weight must lie in .*got 2"):
        bounds.help_cubed_bound(n_actions=2, alpha=0.1, weight=2)
    with pytest.raises(InvalidArgumentError, match="n_actions must be >= 1, got 0"):
        bounds.help_cubed_bound(n_actions=0, alpha=0.1, weight=1)


def mp_bernoulli_kl(q, p):
    q, p = mpmath.mpf(q), mpmath.mpf(p)
    terms = [(q, p), (1 - q, 1 - p)]
    return mpmath.fsum(x * mpmath.log(x / y) for x, y in terms if x)


@given(
    st.floats(1e-300, 1 - 2**-53),
    st.floats(0, 1000) | st.floats(1e-300, 1e-3),
)
def test_the_largest_share_lies_between_two_neighbouring_floats(p, budget_nats):
    share = bounds.largest_share(p, budget_nats)
    with mpmath.workdps(700):
        if budget_nats >= -mpmath.log(mpmath.mpf(p)):
            assert share.lower == share.upper == 1
        else:
            assert share.upper == math.nextafter(share.lower, 1)
            assert p <= share.lower
            assert mp_bernoulli_kl(share.lower, p) <= budget_nats
            assert mp_bernoulli_kl(share.upper, p) > budget_nats


def test_the_ends_of_shares_and_budgets_are_exact():
    assert bounds.largest_share(0.0, 5.0).lower == 0
    assert bounds.largest_share(1.0, 0.0).lower == 1
    assert bounds.largest_share(0.25, 0.0).lower == 0.25
    assert bounds.largest_share(0.25, math.inf).lower == 1
    for bad in (-1.0, math.nan):
        with pytest.raises(InvalidBudgetError, match=f"budget_nats must be >= 0, got {bad}"):
            bounds.largest_share(0.5, bad)
        message = rf"base_probability must lie in \[0, 1\], got {bad}"
        with pytest.raises(InvalidDistributionError, match=message):
            bounds.largest_share(bad, 1.0)


def test_a_policy_that_rescales_episodes_reaches_the_largest_share():
    # Silence means action 0 in both steps; tilting by the event is a policy of the tree.
    tree = HistoryTree(n_actions=2, n_observations=1, horizon=2)
    nothing_to_see = environment_table(tree, lambda _: (1.0,))
    beta = policy_table(tree, lambda h: (0.3, 0.7) if h else (0.2, 0.8))
    p, budget_nats = 0.2 * 0.3, 0.4
    q = bounds.largest_share(p, budget_nats).lower
    episodes = np.array([p, 0.2 * 0.7, 0.8 * 0.3, 0.8 * 0.7])
    tilted = np.where(np.arange(4) == 0, episodes * q / p, episodes * (1 - q) / (1 - p))
    pairs = tilted.reshape(2, 2)
    pi = (pairs.sum(axis=1)[None], pairs / pairs.sum(axis=1, keepdims=True))
    assert expected_kl_nats(pi, beta, nothing_to_see) == pytest.approx(budget_nats, rel=1e-12)
    assert reach_probabilities(pi, nothing_to_see)[-1][0] == pytest.approx(q, rel=1e-14)


def test_the_bound_of_theorem_1_holds_of_a_mixture_in_floats():
    # The exact checks are in test_theorem1_exact.py; here the dataclass meets a real mixture.
    tree = HistoryTree(n_actions=2, n_observations=1, horizon=4)
    zero, one = (policy_table(tree, lambda _, a=a: (1.0 - a, float(a))) for a in (0, 1))
    delta_bits = 9
    weights = np.array([1.0, 2.0**-delta_bits])
    xi = policy_mixture(weights, stack_tables([zero, one]), update=Update.ALL)
    nothing_to_see = environment_table(tree, lambda _: (1.0,))
    bound = Theorem1Bound(delta_bits=delta_bits, log_rho=-math.log1p(2.0**-delta_bits))
    kl = expected_kl_nats(one, xi, nothing_to_see)
    assert kl == pytest.approx(bound.bound_nats, rel=1e-14)


def test_a_count_is_an_integer():
    with pytest.raises(InvalidArgumentError, match=r"n_bits must be an integer, got 2\.5"):
        short_value_below(Fraction(1, 3), n_bits=2.5)
    with pytest.raises(InvalidArgumentError, match="must be an integer"):
        theorem1_factor(delta_bits=0.5, rho=Fraction(1, 2))
