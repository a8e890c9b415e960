"""MountainCar moves as Gymnasium's does; the other processes are what they say."""

import math

import numpy as np
import pytest

from theory.errors import InvalidArgumentError
from toy_world.hybrid.environments import (
    GOAL,
    behaviour_policy,
    mountain_car,
    mountain_car_step,
    random_mdp,
    river_swim,
)


def test_mountain_car_moves_as_gymnasiums():
    gymnasium = pytest.importorskip("gymnasium")
    real = gymnasium.make("MountainCar-v0").unwrapped
    rng = np.random.default_rng(0)
    arrived = 0
    for _ in range(3000):
        start = rng.uniform(-1.2, 0.6), rng.uniform(-0.07, 0.07)
        action = int(rng.integers(3))
        real.reset(seed=0)
        real.state = start
        state, _, terminated, *_ = real.step(action)
        position, velocity, at_goal = mountain_car_step(*start, action)
        np.testing.assert_allclose([position, velocity], state, rtol=1e-6, atol=1e-8)
        assert at_goal == terminated
        arrived += at_goal
    assert arrived > 50


def test_the_grid_keeps_the_mean_of_where_the_car_is():
    n_positions, n_velocities, held = 10, 9, 10
    mdp = mountain_car(n_positions=n_positions, n_velocities=n_velocities, held=held)
    grid = np.array(
        [
            (p, v)
            for p in np.linspace(-1.2, GOAL, n_positions)
            for v in np.linspace(-0.07, 0.07, n_velocities)
        ]
    )
    compared = 0
    for state, (place, speed) in enumerate(grid):
        for action in range(3):
            after, pace, arrived = place, speed, False
            for _ in range(held):
                if not arrived:
                    after, pace, arrived = mountain_car_step(after, pace, action)
            successors = mdp.successors[state, action]
            if arrived:
                assert (successors == len(grid)).all()
            elif after <= GOAL:
                mean = mdp.probabilities[state, action] @ grid[successors]
                np.testing.assert_allclose(mean, [after, pace], atol=1e-12)
                compared += 1
    assert compared > 200


def test_the_goal_holds_the_car_and_pays():
    mdp = mountain_car()
    goal = mdp.n_states - 1
    assert (mdp.successors[goal] == goal).all()
    assert mdp.rewards.sum() == 3
    assert mdp.rewards[goal].tolist() == [1, 1, 1]


def test_who_never_pushes_hardly_arrives():
    """Gymnasium's car never does; here interpolation, now and then, lifts it a little."""
    mdp = mountain_car()
    idle = mdp.model(1).values(np.ones((1, mdp.horizon, mdp.n_states), dtype=np.int64))
    assert idle[0] < 0.05 * mdp.model(1).optimum().values[0]


def test_swimming_right_is_best_where_there_is_time_and_drifting_at_the_end():
    mdp = river_swim(n_states=4, horizon=30)
    best = mdp.model(1).optimum().policies[0]
    assert best[0].tolist() == [1, 1, 1, 1]
    assert best[-1, 0] == 0
    assert best[-1, 3] == 1
    drifting = mdp.model(1).values(np.zeros((1, 30, 4), dtype=np.int64))
    assert drifting[0] == pytest.approx(30 * 0.05)


def test_the_random_process_is_its_seeds():
    one, same, other = (random_mdp(rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.probabilities, same.probabilities)
    assert (one.probabilities != other.probabilities).all()


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_behaviour_takes_the_best_action_but_for_its_share(share):
    mdp = random_mdp(rng=np.random.default_rng(0))
    best = mdp.model(1).optimum().policies[0]
    rho = behaviour_policy(mdp, best, other_share=share)
    np.testing.assert_allclose(rho.sum(axis=-1), 1, rtol=1e-12)
    chosen = np.take_along_axis(rho, best[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(chosen, 1 - share)
    assert np.isclose(rho, share / 3).sum() >= 3 * best.size


def test_what_is_no_grid_or_river_is_refused():
    with pytest.raises(InvalidArgumentError, match="2 points each way, got 1 x 9"):
        mountain_car(n_positions=1)
    with pytest.raises(InvalidArgumentError, match="n_states must be >= 2, got 1"):
        river_swim(n_states=1)
    assert math.isclose(sum(river_swim().initial), 1)


@pytest.mark.parametrize("name", ["n_states", "n_actions"])
def test_a_random_process_has_states_and_actions(name, rng):
    with pytest.raises(InvalidArgumentError, match=f"{name} must be >= 1, got 0"):
        random_mdp(**{name: 0}, rng=rng)
