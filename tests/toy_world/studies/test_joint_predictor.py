"""Where Theorem 1 needs a policy mixture: families of joint predictors, in exact arithmetic."""

import math
from fractions import Fraction

import pytest

from theory import bounds
from theory.errors import InvalidArgumentError
from theory.log_sum import LogSum
from toy_world.studies.joint_predictor import (
    halving_deviators,
    joint_costs,
    pointed_deviators,
    with_follower_nats,
)

SLOW_DELTAS = [Fraction(1, 10 ** (6 * 3**i)) for i in range(3)]
LN_2 = LogSum.log(2)


def exact_bound(family):
    """`Delta ln 2 - ln rho`, exactly."""
    return LN_2 * family.delta_bits - LogSum.log(family.rho)


@pytest.mark.parametrize("delta_bits", [1, 5])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_pointed_deviators_approach_n_times_ln_1_plus_2_to_the_delta_from_below(delta_bits, n):
    family = pointed_deviators(delta_bits=delta_bits, likelihoods=SLOW_DELTAS[:n])
    limit = LogSum.log(1 + 2**delta_bits) * n
    fixed = joint_costs(family).fixed_nats
    assert fixed <= limit
    assert limit - fixed < Fraction(n, 100)
    assert float(limit) == pytest.approx(
        bounds.pointed_deviators_nats(n=n, delta_bits=delta_bits), rel=1e-14
    )


def test_equally_pointed_deviators_cost_less():
    family = pointed_deviators(delta_bits=3, likelihoods=[Fraction(1, 10**9)] * 3)
    expected = bounds.equally_pointed_deviators_nats(n=3, delta_bits=3)
    assert float(joint_costs(family).fixed_nats) == pytest.approx(expected, abs=1e-6)


def test_two_models_and_one_bit_refute_the_printed_bound_in_the_fixed_reading():
    family = pointed_deviators(delta_bits=1, likelihoods=[Fraction(1, 10), Fraction(1, 100)])
    printed = family.bound.bound_as_printed_nats
    assert printed == pytest.approx(1 / math.log(2) + math.log(1.5), rel=1e-15)
    assert joint_costs(family).fixed_nats > printed + 0.1


@pytest.mark.parametrize("delta_bits", [1, 2, 5])
def test_with_observations_from_xi_tilde_the_bound_holds_exactly(delta_bits):
    for family in (
        pointed_deviators(delta_bits=delta_bits, likelihoods=SLOW_DELTAS),
        pointed_deviators(delta_bits=delta_bits, likelihoods=[Fraction(1, 3)] * 3),
        halving_deviators(delta_bits=delta_bits, n=3),
    ):
        assert joint_costs(family).expected_under_xi_tilde_nats <= exact_bound(family)


@pytest.mark.parametrize("delta_bits", [1, 5])
def test_with_observations_from_a_model_the_excess_is_at_most_its_initial_log_weight(delta_bits):
    for family in (
        pointed_deviators(delta_bits=delta_bits, likelihoods=SLOW_DELTAS),
        halving_deviators(delta_bits=delta_bits, n=3),
    ):
        weight = Fraction(1, family.n_originals)
        assert joint_costs(family).expected_under_model_nats <= exact_bound(family) - LogSum.log(
            weight
        )


@pytest.mark.parametrize("n", [1, 2, 3])
def test_halving_deviators_cost_their_closed_form_under_their_own_observations(n):
    family = halving_deviators(delta_bits=2, n=n)
    expected = bounds.halving_deviators_nats(n=n, delta_bits=2)
    assert float(joint_costs(family).expected_under_xi_nats) == pytest.approx(expected, rel=1e-13)


def test_own_observations_exceed_even_the_printed_bound_at_16_steps():
    printed = bounds.Theorem1Bound(delta_bits=5, log_rho=-math.log1p(2**-5)).bound_as_printed_nats
    assert bounds.halving_deviators_nats(n=16, delta_bits=5) > printed + 1


@pytest.mark.parametrize("likelihood", [Fraction(0), Fraction(1)])
def test_pointers_must_be_uncertain(likelihood):
    with pytest.raises(InvalidArgumentError, match=rf"in \(0, 1\), got {likelihood}"):
        pointed_deviators(delta_bits=1, likelihoods=[likelihood])


def test_a_negative_delta_is_refused():
    with pytest.raises(InvalidArgumentError, match="delta_bits must be >= 0, got -1"):
        halving_deviators(delta_bits=-1, n=1)


@pytest.fixture(scope="module")
def study(shown):
    return shown("joint_predictor").result.data


def test_the_cost_of_pointed_deviators_approaches_its_limit_and_passes_the_printed_bound(study):
    for n, exact in zip(study.n, study.fixed_nats, strict=True):
        limit = bounds.pointed_deviators_nats(n=n, delta_bits=3)
        assert 0.99 * limit < exact <= limit * (1 + 1e-12)
    assert study.fixed_nats[-1] > study.printed_nats > study.bound_nats


def test_costs_stay_below_the_bounds_that_hold(study):
    assert {cost.source for cost in study.sources if cost.limit_nats is None} == {
        "xi itself",
        "worst, fixed",
    }
    for cost in study.sources:
        assert cost.limit_nats is None or cost.kl_nats <= cost.limit_nats
    for each in study.halvings:
        assert each.exact_nats is None or math.isclose(each.exact_nats, each.closed_form_nats)


def test_the_ordinary_world_is_bounded_with_its_residual(study):
    (row,) = study.ordinary
    assert row.n_steps == 2
    assert row.n_models > 100
    assert row.residual_nats > 0
    assert 0 < row.expected_nats <= row.fixed_nats <= row.bound_nats + row.residual_nats


def test_a_follower_undoes_the_pointed_family_s_excess_and_not_that_of_weaker_pointers():
    """One model "act as pi, observations by coin" of 2^-10 of the originals' weight."""
    strong = pointed_deviators(
        delta_bits=5, likelihoods=[Fraction(1, 10 ** (4 * 3**i)) for i in range(4)]
    )
    printed = strong.bound.bound_as_printed_nats
    assert float(with_follower_nats(strong, share_bits=10)) < printed
    assert printed < float(joint_costs(strong).fixed_nats)
    # Sharper pointers cost ln 33 = 3.50 nats each without the follower, and all three together
    # no more than one with it: ln(1 + 2^5) is also Delta ln 2 - ln rho.
    sharp = pointed_deviators(delta_bits=5, likelihoods=SLOW_DELTAS)
    assert float(joint_costs(sharp).fixed_nats) == pytest.approx(3 * math.log(33), abs=0.05)
    assert float(with_follower_nats(sharp, share_bits=10)) <= math.log(33) + 1e-3
    # Two models and one bit still violate even the printed bound.
    pair = pointed_deviators(delta_bits=1, likelihoods=[Fraction(1, 10), Fraction(1, 100)])
    still = float(with_follower_nats(pair, share_bits=10))
    assert still == pytest.approx(1.961, abs=0.0005)
    assert still > pair.bound.bound_as_printed_nats
