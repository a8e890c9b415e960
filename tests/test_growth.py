"""The fit of `make bench`'s growth: exact on power laws, honest about noise."""

import numpy as np
import pytest

from tests.benchmarks.growth import exponent


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5, 2.0])
def test_a_power_law_has_its_exponent(power):
    sizes = [10, 20, 50, 200]
    found = exponent(sizes, [3.0 * n**power for n in sizes])
    assert found.value == pytest.approx(power, abs=1e-12)
    assert found.low == pytest.approx(found.high, abs=1e-6)
    assert found.exceeds(power - 0.1)
    assert not found.exceeds(power + 0.1)


def test_the_interval_holds_the_exponent_as_often_as_it_says(rng):
    sizes = np.array([10, 20, 40, 80, 160])
    held = 0
    for _ in range(400):
        costs = sizes**1.3 * np.exp(0.2 * rng.normal(size=len(sizes)))
        found = exponent(sizes.tolist(), costs.tolist())
        held += found.low <= 1.3 <= found.high
    assert held / 400 == pytest.approx(0.95, abs=0.03)  # 2.7 standard errors


def test_an_exponent_is_told_with_its_interval():
    assert str(exponent([1, 10, 100], [1, 10, 100])) == "1.00 (1.00 to 1.00)"
