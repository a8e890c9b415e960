"""The third term and the waiting agent, against counts and against the mixture's own price."""

import math

import numpy as np
import pytest

from theory import bounds
from toy_world.studies.waiting_agent import (
    BUDGETS_NATS,
    MANTISSA_BITS,
    News,
    third_terms,
    waiting_choices,
)
from toy_world.worlds.environments import WorldName


@pytest.fixture(scope="module")
def terms():
    return third_terms(most_steps=100, new_rng=lambda: np.random.default_rng(0))


@pytest.fixture(scope="module")
def choices():
    return waiting_choices(limit_bits=18, budgets_nats=BUDGETS_NATS, bell_probability=0.1)


def test_coin_tosses_cost_a_bit_a_step_and_a_predictable_demonstrator_nothing(terms):
    coins = [row for row in terms if row.world is WorldName.ECHO]
    predictable = [row for row in terms if row.world is WorldName.METRONOME]
    for row in coins:
        # The true program has 12 bits or so, and nothing predicts a fair coin better.
        assert row.n_steps < row.minus_log2_xi < row.n_steps + 14
    assert predictable[0].minus_log2_xi <= predictable[-1].minus_log2_xi < 8


def test_the_terms_length_is_that_of_a_mantissa_and_an_exponent(terms):
    for row in terms:
        for n, bits in zip(MANTISSA_BITS, row.bits, strict=True):
            exponent = n + math.floor(row.minus_log2_xi)
            assert bits == bounds.elias_delta_bits(2**n - 1) + bounds.elias_delta_bits(exponent)


def test_the_agent_spends_its_budget_and_no_more(choices):
    for choice in choices:
        assert choice.kl_nats == pytest.approx(choice.budget_nats, abs=1e-9)
        assert math.isclose(sum(choice.shares.values()), 1)


def test_the_agent_deviates_where_something_simple_is_new(choices):
    for choice in choices:
        rates = choice.rates
        assert rates[News.NOTHING] < rates[News.CLOCK] < rates[News.BELL]


def test_more_budget_buys_more(choices):
    values = [choice.value for choice in choices]
    assert values == sorted(values)
