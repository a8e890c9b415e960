"""Random planning problems: plain ones, and such as make planners stumble."""

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from tests.theory.exact_tables import environment_tables, policy_tables, to_floats, trees


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
