"""Hypothesis strategies of exact (rational) tables on small history trees."""

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from theory.process import HistoryTree


def trees(*, max_horizon=3, max_symbols=2):
    """Trees small enough to be enumerated by brute force."""
    symbols = st.integers(1, max_symbols)
    return st.builds(
        HistoryTree,
        n_actions=symbols,
        n_observations=symbols,
        horizon=st.integers(1, max_horizon),
    )


@st.composite
def rows(draw, size, *, full=True, positive=False):
    """Rational rows of `size` entries, often with zeros; mass 1 if `full`, else at most 1."""
    low = 1 if positive else 0
    parts = draw(
        st.lists(st.integers(low, 4), min_size=size, max_size=size).filter(lambda x: sum(x) > 0)
    )
    missing = 0 if full else draw(st.integers(0, 4))
    return [Fraction(part, sum(parts) + missing) for part in parts]


def policy_tables(tree, **kwargs):
    """Policy tables of `tree`, `kwargs` as for `rows`."""
    return _tables(tree, (tree.n_actions,), **kwargs)


def environment_tables(tree, **kwargs):
    """Environment tables of `tree`, `kwargs` as for `rows`."""
    return _tables(tree, (tree.n_actions, tree.n_observations), **kwargs)


def weights(n_models, *, positive=True):
    """Rational weights up to a factor, not all 0."""
    entries = st.integers(1 if positive else 0, 5).map(Fraction)
    return st.lists(entries, min_size=n_models, max_size=n_models).filter(any)


def to_floats(table):
    """The table in float64."""
    return tuple(level.astype(np.float64) for level in table)


@st.composite
def _tables(draw, tree, shape, **kwargs):
    levels = []
    for t in range(tree.horizon):
        n_rows = tree.n_histories(t) * int(np.prod(shape[:-1]))
        listed = [draw(rows(shape[-1], **kwargs)) for _ in range(n_rows)]
        levels.append(np.array(listed, dtype=object).reshape(-1, *shape))
    return tuple(levels)
