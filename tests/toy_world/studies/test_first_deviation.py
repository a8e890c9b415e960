"""The price of a first deviation, against the census's own masses and larger enumerations."""

import math
from dataclasses import replace

import numpy as np
import pytest

from toy_world.machine.definition import Limits, assemble, run
from toy_world.studies.first_deviation import (
    bargains,
    bits_per_doubling,
    correlation_beyond_log2,
    count_deviations,
    deviation_price,
    estimate_masses,
    first_deviations,
    power_discounts_bits,
    zeros,
    zeros_then_one,
)

SMALL = Limits(bits=20, steps=400)


@pytest.fixture(scope="module")
def found(shown):
    return shown("solomonoff").result.data


@pytest.fixture(scope="module")
def prices(found):
    return found.prices


def test_the_price_is_what_the_masses_say(prices):
    census = count_deviations(SMALL, 100)
    for p in prices:
        all_zeros, deviation = census.mass(zeros(p.n)), census.mass(zeros_then_one(p.n))
        assert float(deviation / all_zeros) == pytest.approx(2**-p.bits, rel=1e-12)
        both = deviation + census.mass(zeros(p.n + 1))
        assert float(deviation / both) == pytest.approx(2**-p.normalised_bits, rel=1e-12)


def test_every_bound_holds(prices):
    for p in prices:
        assert 0 <= p.least_bits <= p.bits <= p.most_bits
        assert p.normalised_bits <= p.bits <= p.bound_bits
        assert 0 <= p.from_bits <= p.estimate_bits <= p.to_bits
        assert p.least_bits <= p.to_bits
        assert p.from_bits <= p.most_bits


def test_the_program_shown_prints_n_zeros_and_then_a_one(prices):
    for p in prices:
        if p.program is not None:
            bits = assemble(p.program)
            assert len(bits) == p.program_bits
            output = run(bits, limits=SMALL, max_symbols=p.n + 1).output
            assert output == zeros_then_one(p.n)


def test_the_price_falls_at_powers_of_two_and_at_ninety_three(prices):
    """93 zeros are printed by `0+::`, ten bits."""
    for n in (4, 8, 16, 32, 64, 93):
        assert prices[n].bits < prices[n - 1].bits
        assert prices[n].to_bits < prices[n - 1].from_bits
        assert prices[n].to_bits < prices[n + 1].from_bits
    assert [p.n for p in bargains(prices, 1)] == [93]


def test_estimates_agree_with_an_enumeration_of_more_bits(rng):
    n_max = 12
    census = count_deviations(Limits(bits=14, steps=200), n_max)
    estimate = estimate_masses(
        census, more_bits=22, n_max=n_max, continuations=20, n_jobs=1, rng=rng
    )
    larger = count_deviations(Limits(bits=22, steps=200), n_max)
    misses, unit = 0, 1 / (20 * 2**14)
    for n in range(n_max + 1):
        for exact, low, middle, high in (
            (
                larger.mass(zeros(n)),
                estimate.zeros_low[n],
                estimate.zeros[n],
                estimate.zeros_high[n],
            ),
            (
                larger.mass(zeros_then_one(n)),
                estimate.deviation_low[n],
                estimate.deviation[n],
                estimate.deviation_high[n],
            ),
        ):
            assert low <= middle <= high
            assert high - low <= 6 * math.sqrt(unit * float(exact)) + 10 * unit
            misses += not low <= exact <= high
    assert misses <= 2  # of 26 intervals that hold with probability 0.975 at least


def test_estimates_do_not_depend_on_the_number_of_workers():
    census = count_deviations(Limits(bits=20, steps=100), 8)
    one, two = (
        estimate_masses(
            census,
            more_bits=64,
            n_max=8,
            continuations=2,
            n_jobs=n_jobs,
            rng=np.random.default_rng(2),
        )
        for n_jobs in (1, 2)
    )
    np.testing.assert_array_equal(one.deviation, two.deviation)
    np.testing.assert_array_equal(one.zeros_high, two.zeros_high)


def test_long_programs_are_continued_from_shorter_ones_within_the_same_limits(monkeypatch):
    """Of a larger census than is sampled from; the numbers are those of its parts."""
    module = "toy_world.studies.first_deviation"
    settings = {"more_bits": 18, "n_max": 36, "continuations": 2, "n_jobs": 1}
    limits, shorter = Limits(bits=14, steps=90), Limits(bits=12, steps=90)
    monkeypatch.setattr(f"{module}._SAMPLED_FROM_BITS", shorter.bits)
    monkeypatch.setattr(f"{module}._SHORTER_BY_BITS", (0,))
    found = first_deviations(limits=limits, rng=np.random.default_rng(3), **settings)
    estimate = estimate_masses(
        count_deviations(shorter, 36), rng=np.random.default_rng(3), **settings
    )
    census = count_deviations(limits, 36)
    assert found.prices == tuple(deviation_price(census, estimate, n) for n in range(37))


@pytest.mark.parametrize("limits", [Limits(bits=9, steps=50), Limits(bits=9, steps=50, cells=3)])
def test_a_continued_program_has_the_steps_and_the_tape_of_the_census(monkeypatch, limits):
    asked = []

    def noted(_task, **settings):
        asked.append(settings["limits"])
        return np.zeros((2, 5), dtype=np.int64)

    monkeypatch.setattr("toy_world.studies.first_deviation._continue", noted)
    census = count_deviations(limits, 4)
    estimate_masses(
        census, more_bits=20, n_max=4, continuations=1, n_jobs=1, rng=np.random.default_rng(0)
    )
    assert set(asked) == {replace(limits, bits=20)}


def test_masses_grow_with_the_length_of_the_programs(found):
    for n in {row.n for row in found.convergence}:
        rows = [row for row in found.convergence if row.n == n]
        for name in ("bits", "zeros_mass", "deviation_mass"):
            numbers = [getattr(row, name) for row in rows]
            assert numbers == sorted(numbers)
    assert found.convergence[-1].n == bargains(found.prices, 1)[0].n


def test_the_price_follows_log2_n_and_beyond_it_the_length_of_the_program(prices):
    estimated = [p for p in prices if p.n >= 4 and math.isfinite(p.to_bits)]
    assert 0.5 < bits_per_doubling(estimated) < 3
    assert 0.5 < correlation_beyond_log2(prices) <= 1
    assert [n for n, _ in power_discounts_bits(prices)] == [16, 32, 64]
    assert all(bits > 0 for _, bits in power_discounts_bits(prices))
