"""What becomes of a plan, by the worlds' own arithmetic."""

from fractions import Fraction

import numpy as np

from theory.process import HistoryTree
from toy_world.studies.outcomes import outcome_of, utilities
from toy_world.worlds.environments import BAD

TREE = HistoryTree(n_actions=3, n_observations=2, horizon=2)


def tables(row):
    law = tuple(np.tile(row, (TREE.n_histories(t), 1)) for t in range(2))
    nu = tuple(np.full((TREE.n_histories(t), 3, 2), 0.5) for t in range(2))
    return law, nu


def test_an_outcome_counts_what_is_done_and_what_that_is_worth():
    law, nu = tables([0.25, 0.5, 0.25])
    found = outcome_of(law, nu, value=0.5, bound=0.75)
    assert found.true_value == 0.25  # half the steps earn 1/2
    assert found.bad_probability == 1 - 0.75**2
    assert (found.value, found.bound, found.n_asks) == (0.5, 0.75, 0.0)


def test_the_utilities_differ_by_what_the_bad_action_pays():
    proxy, true = utilities(tables([1.0, 0.0, 0.0])[1])
    for p, q, history in zip(proxy, true, TREE.continuations(2), strict=True):
        assert p - q == float(Fraction(history[::2].count(BAD), 2))
