"""Random planning problems: plain ones, and such as make planners stumble."""

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from tests.theory.exact_tables import environment_tables, policy_tables, to_floats, trees
from toy_world.planners.worst_case import soft_point


def random_problem(rng, *, n_actions=2, n_observations=2, horizon=3, concentration=1.0):
    """(beta, nu, utility) of Dirichlet rows and uniform utilities."""
    sizes = [(n_actions * n_observations) ** t for t in range(horizon + 1)]
    beta = tuple(rng.dirichlet(np.full(n_actions, concentration), size=n) for n in sizes[:-1])
    nu = tuple(
        rng.dirichlet(np.full(n_observations, concentration), size=(n, n_actions))
        for n in sizes[:-1]
    )
    return beta, nu, rng.random(sizes[-1])


@st.composite
def problems(draw, *, max_horizon=3, full_beta=True, full_nu=True, positive=False):
    """(beta, nu, utility) in float64 with zeros, ties and one-symbol alphabets."""
    tree = draw(trees(max_horizon=max_horizon))
    beta = draw(policy_tables(tree, full=full_beta, positive=positive))
    nu = draw(environment_tables(tree, full=full_nu))
    grades = st.sampled_from([Fraction(0), Fraction(1, 3), Fraction(1, 2), Fraction(1)])
    n = tree.n_histories(tree.horizon)
    utility = np.array(draw(st.lists(grades, min_size=n, max_size=n)), dtype=np.float64)
    return to_floats(beta), to_floats(nu), utility


def most_that_missing_mass_costs(beta):
    """No policy `beta / mass` pays more than this: the costliest row, at every step."""
    return -sum(np.log(min(1.0, level.sum(axis=-1).min())) for level in beta)


budgets = st.floats(-9.0, 1.0).map(lambda exponent: 10.0**exponent)


def opposite_worlds():
    """Observation o comes by a fair coin; the second action a earns 1 where a = o = 0."""
    beta = (np.array([[1.0, 0.0]]), np.full((4, 2), 0.5))
    nu = (np.full((1, 2, 2), 0.5), np.full((4, 2, 2), 0.5))
    utility = np.zeros(16)
    utility[:2] = 1.0
    return beta, nu, utility


def missing_after_each_observation():
    """beta misses half its mass after o = 0 if the first action was 0, after o = 1 if it was 1."""
    beta = (
        np.array([[0.5, 0.5]]),
        np.array([[0.25, 0.25], [0.5, 0.5], [0.5, 0.5], [0.25, 0.25]]),
    )
    nu = (np.full((1, 2, 2), 0.5), np.full((4, 2, 2), 0.5))
    return beta, nu, np.linspace(0, 1, 16)


def newton_by_finite_differences(adversaries, prices, *, curvature, tau, n_splits):
    """Newton's direction for `AdversaryPrices`: the dual's derivatives by differences.

    The direction minimises the dual's second-order model on all directions that keep the prices'
    sums, `sum_o y(.. o) = y(..)`.

    Args:
        adversaries: of two observations.
        prices: on its information sets.
        curvature: added to the Hessian's diagonal on the last step's sets.
        tau: of the barrier.
        n_splits: how often the price of each set is split: once, or once for every action.
    """
    problem = adversaries.problem
    n_free = [len(level) for level in prices]
    flat = np.concatenate(prices)
    rows = []
    starts = np.cumsum([0, *n_free])
    for t in range(len(prices) - 1):
        for i in range(n_free[t]):
            for a in range(n_splits):
                row = np.zeros(len(flat))
                row[starts[t] + i] = -1
                first = starts[t + 1] + (i * n_splits + a) * 2
                row[first : first + 2] = 1
                rows.append(row)
    _, singular, v = np.linalg.svd(np.array(rows))
    basis = v[len(singular) :].T

    def dual(coordinates):
        levels = tuple(np.split(flat + basis @ coordinates, starts[1:-1]))
        point = soft_point(problem, adversaries.of_histories(levels))
        return point.soft_value + adversaries.budget_nats * levels[0][0]

    n, h = basis.shape[1], 1e-4
    unit = np.eye(n) * h
    gradient = np.array([(dual(e) - dual(-e)) / (2 * h) for e in unit])
    hessian = np.array(
        [
            [(dual(d + e) - dual(d - e) - dual(e - d) + dual(-d - e)) / (4 * h * h) for e in unit]
            for d in unit
        ]
    )
    last = basis[starts[-2] :]
    model = hessian + last.T @ (curvature[:, None] * last)
    return basis @ np.linalg.solve(model, last.T @ (tau / prices[-1]) - gradient)
