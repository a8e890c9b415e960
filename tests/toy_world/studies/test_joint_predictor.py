"""Where Theorem 1 needs a policy mixture: joint predictors in families and in ordinary worlds."""

import math
from fractions import Fraction

import numpy as np
import pytest

from theory import bounds
from theory.errors import InvalidArgumentError, UnreachableLengthError
from theory.log_sum import LogSum
from toy_world.studies.joint_predictor import (
    LANGUAGE,
    OrdinaryWorld,
    halving_deviators,
    joint_costs,
    ordinary_mixture,
    pointed_deviators,
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


def world(**changes):
    settings = {
        "trusted": "do(a0)",
        "observations": "mix(1/2, do(a1), do(a0))",
        "agent": "do(a1)",
    }
    settings |= changes
    return OrdinaryWorld(
        **{name: LANGUAGE.policies.parse(text) for name, text in settings.items()},
        event=LANGUAGE.events.parse("latch(ends(o1))"),
        news=1,
    )


def test_in_an_ordinary_world_the_bound_plus_the_residual_bounds_the_cost():
    costs = ordinary_mixture(
        world(), n_training_steps=2, bits=20, horizon=2, rng=np.random.default_rng(0)
    )
    assert costs.bound.delta_bits == 9
    assert costs.fixed_nats <= costs.bound.bound_nats + costs.residual_nats
    assert 0 < costs.expected_nats <= costs.fixed_nats
    assert costs.residual_nats > 0
    assert costs.n_models > 100


def test_a_world_that_excludes_the_news_is_refused():
    with pytest.raises(InvalidArgumentError, match="never shows observation 1 at step 2"):
        ordinary_mixture(
            world(observations="do(a0)"),
            n_training_steps=2,
            bits=8,
            horizon=1,
            rng=np.random.default_rng(0),
        )


@pytest.mark.parametrize(
    ("bits", "words"), [(6, "no joint program of at most 6 bits"), (14, "of at most 5 bits")]
)
def test_too_few_bits_are_refused_with_the_number(bits, words):
    with pytest.raises(UnreachableLengthError, match=words):
        ordinary_mixture(
            world(), n_training_steps=2, bits=bits, horizon=1, rng=np.random.default_rng(0)
        )


@pytest.mark.parametrize("likelihood", [Fraction(0), Fraction(1)])
def test_pointers_must_be_uncertain(likelihood):
    with pytest.raises(InvalidArgumentError, match=rf"in \(0, 1\), got {likelihood}"):
        pointed_deviators(delta_bits=1, likelihoods=[likelihood])


def test_a_negative_delta_is_refused():
    with pytest.raises(InvalidArgumentError, match="delta_bits must be >= 0, got -1"):
        halving_deviators(delta_bits=-1, n=1)
