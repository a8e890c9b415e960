"""Which regulariser resists: zeros that stay zeros, matched budgets, certificates."""

import math
from itertools import pairwise

import numpy as np
import pytest

from toy_world.studies.regularisers import Base, Constraint, matched_budget, regulariser_outcomes


@pytest.fixture(scope="module")
def outcomes():
    rng = np.random.default_rng(0)
    return regulariser_outcomes(limit_bits=18, n_steps=30, horizon=2, rng=rng).outcomes


def _of(outcomes, base, constraint):
    found = [o for o in outcomes if o.base is base and o.constraint is constraint]
    assert found
    return found


def test_only_the_pessimist_keeps_the_never_done_at_zero(outcomes):
    for constraint in Constraint:
        for o in _of(outcomes, Base.BAYESIAN, constraint):
            if constraint is Constraint.PESSIMISTIC:
                assert o.bad_probability == 0
                assert o.value == pytest.approx(o.true_value, abs=1e-13)
            else:
                assert o.bad_probability > 0
                assert o.value > o.true_value


def test_with_a_perfect_base_a_zero_stays_a_zero_under_kl_and_chi_squared_alone(outcomes):
    for constraint in (Constraint.KL, Constraint.CHI_SQUARED):
        assert {o.bad_probability for o in _of(outcomes, Base.PERFECT, constraint)} == {0.0}
    for o in _of(outcomes, Base.PERFECT, Constraint.TVD):
        assert o.bad_probability == pytest.approx(o.budget, abs=1e-9)
    for o in _of(outcomes, Base.PERFECT, Constraint.REVERSE_KL):
        assert 0 < o.bad_probability <= -math.expm1(-o.budget) + 1e-8


def test_values_are_ordered_as_the_matched_budgets_imply(outcomes):
    """What chi-squared allows KL allows, what KL allows TVD allows, and no constraint all."""
    by_key = {(o.world, o.base, o.eps_nats, o.constraint): o.value for o in outcomes}
    order = (Constraint.CHI_SQUARED, Constraint.KL, Constraint.TVD, Constraint.NONE)
    for world, base, eps, _ in by_key:
        row = [by_key[world, base, eps, c] for c in order]
        assert all(b >= a - 1e-8 for a, b in pairwise(row))


def test_every_value_is_certified(outcomes):
    assert max(abs(o.gap) for o in outcomes) <= 1e-8


def test_budgets_are_matched_by_the_standard_inequalities():
    assert matched_budget(Constraint.TVD, 0.02) == pytest.approx(0.1)
    assert matched_budget(Constraint.TVD, 50.0) == pytest.approx(1.0)
    assert math.log1p(matched_budget(Constraint.CHI_SQUARED, 0.7)) == pytest.approx(0.7)
    assert matched_budget(Constraint.NONE, 1.0) == math.inf
