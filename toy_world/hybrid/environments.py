"""Small processes with a known optimum, and behaviour policies from the best to its opposite.

- `river_swim`: a chain of states. Swimming right against the current is uncertain and pays at the
  far end alone; drifting left is certain and pays a little at the near end.
- `random_mdp`: drawn once from a seed.
- `mountain_car`: Gymnasium's MountainCar-v0 on a grid of positions and velocities. An action is
  held for several of its time steps, and where the car then is between grid points it falls on one
  of the four around it, with the weights of bilinear interpolation: a finite process, of which
  everything is known. (What is interpolated is noise to the car: one that never pushes may arrive,
  which Gymnasium's never does.) At the goal it stays, and every step there pays 1, so that the
  value is the expected number of steps left when it arrives.
"""

import math
from itertools import product
from typing import Final

import numpy as np

from theory.arguments import check_count, check_probability
from theory.errors import InvalidArgumentError
from toy_world.hybrid.mdp import FiniteMDP, Floats, Ints, one_hot

LEFT_REWARD: Final = 0.05
"""Of drifting at the near end of the river."""
SWIM: Final = (0.1, 0.55, 0.35)
"""Of swimming: drifts back, stays, gets on."""

FORCE: Final = 0.001
GRAVITY: Final = 0.0025
POSITIONS: Final = (-1.2, 0.6)
"""The least and the greatest position."""
FASTEST: Final = 0.07
GOAL: Final = 0.5
STARTS: Final = (-0.6, -0.4)
"""The first position is uniform between these, the first velocity 0."""
_N_STARTS: Final = 21


def river_swim(*, n_states: int = 6, horizon: int = 12) -> FiniteMDP:
    """A chain; action 0 drifts left, action 1 swims right.

    Args:
        n_states: at least 2.
        horizon: H.

    Raises:
        InvalidArgumentError: fewer states.
    """
    if n_states < 2:
        raise InvalidArgumentError(f"n_states must be >= 2, got {n_states}")
    here = np.arange(n_states)
    around = np.stack([np.maximum(here - 1, 0), here, np.minimum(here + 1, n_states - 1)], axis=1)
    probabilities = np.empty((n_states, 2, 3))
    probabilities[:, 0] = (1.0, 0.0, 0.0)
    probabilities[:, 1] = SWIM
    rewards = np.zeros((n_states, 2))
    rewards[0, 0], rewards[-1, 1] = LEFT_REWARD, 1.0
    return FiniteMDP(
        rewards=rewards,
        successors=np.repeat(around[:, None], 2, axis=1),
        probabilities=probabilities,
        initial=np.eye(n_states)[0],
        horizon=horizon,
    )


def random_mdp(
    *, n_states: int = 6, n_actions: int = 4, horizon: int = 4, rng: np.random.Generator
) -> FiniteMDP:
    """Uniform rewards, and successors by a flat Dirichlet law over all states.

    Args:
        n_states: S.
        n_actions: A.
        horizon: H.
        rng: source of randomness.
    """
    check_count(n_states=n_states, n_actions=n_actions)
    shape = (n_states, n_actions)
    return FiniteMDP(
        rewards=rng.random(shape),
        successors=np.broadcast_to(np.arange(n_states), (*shape, n_states)).copy(),
        probabilities=rng.dirichlet(np.ones(n_states), size=shape),
        initial=np.eye(n_states)[0],
        horizon=horizon,
    )


def mountain_car_step(position: float, velocity: float, action: int) -> tuple[float, float, bool]:
    """One time step of MountainCar-v0.

    Args:
        position: in -1.2..0.6.
        velocity: in -0.07..0.07.
        action: 0 pushes left, 1 does not push, 2 pushes right.

    Returns:
        Position, velocity, and whether the goal is reached.
    """
    velocity += (action - 1) * FORCE - GRAVITY * math.cos(3 * position)
    velocity = min(max(velocity, -FASTEST), FASTEST)
    position = min(max(position + velocity, POSITIONS[0]), POSITIONS[1])
    if position == POSITIONS[0]:
        velocity = max(velocity, 0.0)
    return position, velocity, position >= GOAL and velocity >= 0


def mountain_car(
    *, n_positions: int = 10, n_velocities: int = 9, held: int = 10, horizon: int = 20
) -> FiniteMDP:
    """MountainCar on a grid; the last state is the goal.

    Args:
        n_positions: grid points between -1.2 and the goal, at least 2.
        n_velocities: grid points between -0.07 and 0.07, at least 2.
        held: for how many time steps an action is held.
        horizon: H, decisions.

    Raises:
        InvalidArgumentError: a grid without cells.
    """
    if min(n_positions, n_velocities) < 2:
        raise InvalidArgumentError(
            f"the grid needs 2 points each way, got {n_positions} x {n_velocities}"
        )
    check_count(held=held)
    positions = np.linspace(POSITIONS[0], GOAL, n_positions)
    velocities = np.linspace(-FASTEST, FASTEST, n_velocities)
    goal = n_positions * n_velocities
    shape = (goal + 1, 3, 4)
    successors, probabilities = np.full(shape, goal), np.zeros(shape)
    probabilities[..., 0] = 1.0
    for (i, j), action in product(np.ndindex(n_positions, n_velocities), range(3)):
        place, speed, arrived = float(positions[i]), float(velocities[j]), False
        for _ in range(held):
            if not arrived:
                place, speed, arrived = mountain_car_step(place, speed, action)
        if not arrived:
            around, weights = _grid_points(place, speed, positions, velocities)
            state = i * n_velocities + j
            successors[state, action], probabilities[state, action] = around, weights
    rewards = np.zeros((goal + 1, 3))
    rewards[goal] = 1.0
    initial = np.zeros(goal + 1)
    for start in np.linspace(*STARTS, _N_STARTS):
        around, weights = _grid_points(start, 0.0, positions, velocities)
        np.add.at(initial, around, weights / _N_STARTS)
    return FiniteMDP(
        rewards=rewards,
        successors=successors,
        probabilities=probabilities,
        initial=initial,
        horizon=horizon,
    )


def _grid_points(
    position: float, velocity: float, positions: Floats, velocities: Floats
) -> tuple[Ints, Floats]:
    """The four states around a place, and their weights, shape (4,) each."""
    corners, shares = [], []
    for value, grid in ((position, positions), (velocity, velocities)):
        low = int(np.clip(np.searchsorted(grid, value, side="right") - 1, 0, len(grid) - 2))
        share = float(np.clip((value - grid[low]) / (grid[low + 1] - grid[low]), 0, 1))
        corners.append((low, low + 1))
        shares.append((1 - share, share))
    around = [i * len(velocities) + j for i, j in product(*corners)]
    return np.array(around), np.array([a * b for a, b in product(*shares)])


def behaviour_policy(mdp: FiniteMDP, optimal: Ints, *, other_share: float) -> Floats:
    """The best policy, mixed at every step with the actions that it does not take.

    Args:
        mdp: the process, with at least 2 actions.
        optimal: pi*, shape (H, S).
        other_share: w in [0, 1]: 0 is pi*, 1 does everything else, evenly.

    Returns:
        Shape (H, S, A).
    """
    check_probability(other_share=other_share)
    best = one_hot(optimal, mdp.n_actions)
    return np.asarray((1 - other_share) * best + other_share * (1 - best) / (mdp.n_actions - 1))
