"""Prices of deviating under their bounds, flat where something new has happened."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from theory.constraints import expected_kl_nats, fixed_kl_nats
from theory.errors import InvalidArgumentError, UnreachableLengthError
from toy_world.programs.language import Plain
from toy_world.programs.semantics import shortest_number
from toy_world.studies.theorem1 import (
    Kind,
    deviation_prices,
    price_situations,
    training_lengths,
)
from toy_world.worlds.environments import WorldName
from toy_world.worlds.setting import setting_of

BITS = 21
ASKED = {"limit_bits": BITS, "n_steps": 400}


@pytest.fixture(scope="module")
def found():
    setting = setting_of(WorldName.DOORBELL, horizon=2)
    return setting, price_situations(setting, **ASKED, rng=np.random.default_rng(0))[0]


@pytest.fixture(scope="module")
def study():
    setting = setting_of(WorldName.DOORBELL, horizon=2)
    return deviation_prices(setting, **ASKED, rng=np.random.default_rng(0))


def test_every_price_within_l_is_under_its_bound_in_every_reading(found):
    _, situations = found
    all_prices = [each.price for each in situations]
    within = [price for price in all_prices if price.within_limit]
    assert {price.kind for price in within} == set(Kind)
    for price in within:
        bound = price.bound_nats
        assert price.needed_bits == price.demonstrator_bits + price.delta_bits <= BITS
        assert max(price.fixed_kl_nats, price.expected_kl_nats) <= price.adaptive_kl_nats + 1e-12
        assert price.adaptive_kl_nats <= bound <= price.bound_as_printed_nats
        assert price.value == price.best_value == 1
        assert price.kl_to_tau_nats == math.inf


def test_novel_prices_are_flat_and_familiar_ones_rise_beyond_l(found):
    _, situations = found
    all_prices = [each.price for each in situations]
    novel = [price for price in all_prices if price.kind is Kind.NOVEL]
    familiar = [price for price in all_prices if price.kind is Kind.FAMILIAR]
    assert len({price.delta_bits for price in novel}) == 1
    assert all(price.within_limit for price in novel)
    kl = [price.fixed_kl_nats for price in novel]
    assert max(kl) - min(kl) < 0.5
    deltas = [price.delta_bits for price in familiar]
    assert deltas[-1] >= deltas[0] + 5
    assert not familiar[-1].within_limit


def test_kl_to_xi_is_the_logarithm_of_what_xi_gives_the_constructed_policy(found):
    """pi is deterministic: its KL is -ln of the product of xi's conditionals on its actions."""
    setting, situations = found
    for each in situations:
        price = each.price
        with np.errstate(divide="ignore"):
            logs = [-np.log(level[:, 2]) for level in each.xi]
        sequence = [
            logs[0][0] + logs[1][2 * setting.world.n_observations + o]
            for o in range(setting.world.n_observations)
        ]
        assert len(logs) == 2
        assert_allclose(price.fixed_kl_nats, max(sequence), rtol=1e-12)
        pi = tuple(np.tile([0.0, 0.0, 1.0], (len(level), 1)) for level in each.xi)
        assert_allclose(price.fixed_kl_nats, fixed_kl_nats(pi, each.xi), rtol=1e-12)
        assert_allclose(price.expected_kl_nats, expected_kl_nats(pi, each.xi, each.nu))


def test_training_lengths_are_powers_of_ten_and_numbers_that_are_not_round(found):
    setting, _ = found
    lengths = training_lengths(setting, 5000)
    assert [k for k, kind in lengths if kind is Kind.ROUND] == [10, 100, 1000]
    plain = [k for k, kind in lengths if kind is Kind.FAMILIAR]
    assert plain == sorted(set(plain))
    assert plain[-1] > 4000
    numbers = setting.language.numbers
    for k in plain:
        for later in range(k, k + setting.horizon):
            assert isinstance(shortest_number(numbers, later), Plain)


def test_the_study_holds_the_prices_and_what_the_mixture_is(found, study):
    _, situations = found
    assert study.prices == tuple(each.price for each in situations)
    assert study.world is WorldName.DOORBELL
    assert (study.demonstrator, study.agent) == ("copy_observation", "do(a2)")
    assert study.mixture.n_first_steps == 10
    assert 0 < study.mixture.prior_mass_left_out < 1
    assert study.mixture.n_classes < study.mixture.n_programs


def test_the_frontier_reaches_the_constructed_policy(study):
    """The planner does at least as well as pi with pi's own KL."""
    for frontier in study.frontiers:
        budgets, values = np.array(frontier.budgets_nats), np.array(frontier.values)
        assert list(values) == sorted(values), "a larger budget buys no less"
        assert (values[budgets >= frontier.kl_nats] >= frontier.value - 1e-9).all()


def test_exactly_enough_bits_are_enough():
    setting = setting_of(WorldName.ECHO, horizon=1)
    with pytest.raises(UnreachableLengthError, match="allow at least 21 bits"):
        price_situations(setting, limit_bits=20, n_steps=100, rng=np.random.default_rng(0))
    enough, _ = price_situations(setting, limit_bits=21, n_steps=100, rng=np.random.default_rng(0))
    assert all(each.price.within_limit for each in enough if each.price.kind is Kind.NOVEL)
    with pytest.raises(InvalidArgumentError, match="must be >= 10, got 9"):
        training_lengths(setting, 9)
