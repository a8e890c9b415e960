"""Both sides of every guarantee, against plain enumeration and each other."""

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from theory.bounds import demonstrator_stays_probability, help_cubed_bound, top_set_size_bound
from theory.errors import InvalidArgumentError
from toy_world.studies.guarantees import (
    alphas_around,
    exact_guarantees,
    guarantee_row,
    simulated_guarantees,
)
from toy_world.studies.short_memory import short_memory_class
from toy_world.worlds.environments import WorldName
from toy_world.worlds.setting import setting_of

HALF = Fraction(1, 2)


@pytest.fixture(scope="module")
def echo():
    return short_memory_class(setting_of(WorldName.ECHO, horizon=2), limit_bits=12)


def _by_hand(models, alpha, n_steps):
    """Both sides of the guarantees, history by history, in rationals and without `top_set`."""
    world, place = models.setting.world, models.place_of_tau
    n = len(models.weights)
    rows = [[[Fraction(p) for p in row] for row in model] for model in models.rows.tolist()]
    stays = cubes = Fraction(0)
    largest = 0
    steps = list(product(range(world.n_actions), range(world.n_observations)))
    for history in product(steps, repeat=n_steps):
        weights = [Fraction(int(w)) for w in models.weights]
        state = world_state = 0
        probability, always, cubed = Fraction(1), True, Fraction(0)
        for t in range(n_steps + 1):
            order = sorted(range(n), key=lambda i, w=weights: (-w[i], i))
            inside = [
                i
                for rank, i in enumerate(order)
                if weights[i] >= alpha * sum(weights[j] for j in order[: rank + 1])
            ]
            largest = max(largest, len(inside))
            always &= place in inside
            if t == n_steps:
                break
            theta = 1 - sum(min(rows[i][state][a] for i in inside) for a in range(3))
            cubed += theta**3
            action, observation = history[t]
            probability *= rows[place][state][action]
            probability *= world.emission[world_state][action][observation]
            if not probability:
                break
            weights = [w * rows[i][state][action] for i, w in enumerate(weights)]
            state = models.state_after(t + 1, action, observation)
            world_state = world.successor[world_state][action][observation]
        stays += probability * always
        cubes += probability * cubed
    return stays, cubes, largest


@pytest.mark.parametrize("name", WorldName)
def test_the_exact_guarantees_are_those_of_a_plain_walk_over_all_histories(name):
    models = short_memory_class(setting_of(name, horizon=2), limit_bits=10)
    for alpha in (HALF, Fraction(1, 16), Fraction(1, 300)):
        (found,) = exact_guarantees(models, alphas=(alpha,), n_steps=3)
        assert (found.stays, found.help_cubed) == _by_hand(models, alpha, 3)[:2]
        assert 1 <= found.largest_top_set <= top_set_size_bound(alpha)


@pytest.mark.parametrize("name", WorldName)
def test_both_sides_of_every_bound(name):
    models = short_memory_class(setting_of(name, horizon=2), limit_bits=12)
    weight = models.weight_of_tau
    for found in exact_guarantees(models, alphas=[weight / 2**j for j in range(-1, 6)], n_steps=5):
        assert found.stays >= demonstrator_stays_probability(alpha=found.alpha, weight=weight)
        assert found.largest_top_set <= top_set_size_bound(found.alpha)
        assert found.help_cubed <= help_cubed_bound(
            n_actions=3, alpha=float(found.alpha), weight=float(weight)
        )


def test_a_demonstrator_may_leave_the_top_set_so_the_bound_is_about_something(echo):
    alpha = echo.weight_of_tau / 2
    (found,) = exact_guarantees(echo, alphas=(alpha,), n_steps=6)
    assert HALF <= found.stays < 1


def test_simulation_agrees_with_enumeration(echo, rng):
    alphas = (echo.weight_of_tau / 2, Fraction(1, 16))
    exact = exact_guarantees(echo, alphas=alphas, n_steps=5)
    simulated = simulated_guarantees(echo, alphas=alphas, n_steps=5, n_runs=4000, rng=rng)
    for one, other in zip(exact, simulated, strict=True):
        share = float(one.stays)
        sigma = math.sqrt(share * (1 - share) / 4000)
        assert abs(other.stayed.mean() - share) <= 4 * sigma
        sigma = other.help_cubed.std() / math.sqrt(4000)
        assert abs(other.help_cubed.mean() - float(one.help_cubed)) <= 4 * sigma
        assert other.top_set_size.max() <= one.largest_top_set


def test_long_histories_do_not_underflow(echo, rng):
    """Every model's weight is below 2^-1074 after so many steps, unless they are normalised."""
    alpha = Fraction(1, 16)
    (found,) = simulated_guarantees(echo, alphas=(alpha,), n_steps=1500, n_runs=2, rng=rng)
    assert found.top_set_size.min() >= 1
    assert found.top_set_size.max() <= 16
    # One model is left.
    np.testing.assert_array_equal(found.top_set_size[:, -100:], 1)
    np.testing.assert_array_equal(found.help_probability[:, -100:], 0.0)


def test_a_row_holds_both_sides(echo):
    alphas = alphas_around(echo)
    assert alphas[0] <= HALF
    assert alphas[0] >= 2 * echo.weight_of_tau >= 16 * alphas[-1]
    exact = exact_guarantees(echo, alphas=alphas, n_steps=3)
    simulated = simulated_guarantees(
        echo, alphas=alphas, n_steps=3, n_runs=50, rng=np.random.default_rng(0)
    )
    for one, other in zip(exact, simulated, strict=True):
        row = guarantee_row(echo, one, other)
        assert row.stays_bound == float(row.exact_stays_bound) <= row.stays_rounded
        assert row.stays_rounded == float(row.stays)
        low, high = row.stays_interval
        assert low <= row.stays_simulated <= high
        assert row.help_cubed_interval[0] <= row.help_cubed_simulated <= row.help_cubed_largest
        assert row.help_cubed <= row.help_cubed_bound


def test_arguments_out_of_range_are_refused(echo, rng):
    with pytest.raises(InvalidArgumentError, match="n_steps must be >= 1, got 0"):
        exact_guarantees(echo, alphas=(HALF,), n_steps=0)
    with pytest.raises(InvalidArgumentError, match="n_runs must be >= 1, got 0"):
        simulated_guarantees(echo, alphas=(HALF,), n_steps=3, n_runs=0, rng=rng)
    with pytest.raises(InvalidArgumentError, match=r"alpha must lie in \(0, 1\], got 2"):
        exact_guarantees(echo, alphas=(Fraction(2),), n_steps=1)
