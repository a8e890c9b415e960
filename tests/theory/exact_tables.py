"""Hypothesis strategies of exact (rational) tables on small history trees."""

from fractions import Fraction
from functools import cache
from itertools import product

import numpy as np
from hypothesis import strategies as st

from theory.process import HistoryTree

F = Fraction


def trees(*, max_horizon=3, max_symbols=2):
    """Trees small enough to be enumerated by brute force."""
    symbols = st.integers(1, max_symbols)
    return st.builds(
        HistoryTree,
        n_actions=symbols,
        n_observations=symbols,
        horizon=st.integers(1, max_horizon),
    )


@cache
def _pool(size, full, positive):
    """All rows of parts 0 to 4, normalised together with a missing part."""
    missing_parts = (0,) if full else range(5)
    pool = {
        tuple(F(part, sum(parts) + missing) for part in parts)
        for parts in product(range(1 if positive else 0, 5), repeat=size)
        for missing in missing_parts
        if any(parts)
    }
    return sorted(pool, reverse=True)


def rows(size, *, full=True, positive=False):
    """Rational rows of `size` entries, often with zeros; mass 1 if `full`, else at most 1."""
    return st.sampled_from(_pool(size, full, positive))


def policy_tables(tree, **kwargs):
    """Policy tables of `tree`, `kwargs` as for `rows`."""
    return _tables(tree, (tree.n_actions,), **kwargs)


def environment_tables(tree, **kwargs):
    """Environment tables of `tree`, `kwargs` as for `rows`."""
    return _tables(tree, (tree.n_actions, tree.n_observations), **kwargs)


def weights(n_models, *, positive=True):
    """Rational weights up to a factor, not all 0."""
    entries = st.integers(1 if positive else 0, 5).map(F)
    return st.lists(entries, min_size=n_models, max_size=n_models).filter(any)


def to_floats(table):
    """The table in float64."""
    return tuple(level.astype(np.float64) for level in table)


@st.composite
def _tables(draw, tree, shape, **kwargs):
    n_levels = [tree.n_histories(t) * int(np.prod(shape[:-1])) for t in range(tree.horizon)]
    n_rows = sum(n_levels)
    drawn = draw(st.lists(rows(shape[-1], **kwargs), min_size=n_rows, max_size=n_rows))
    table = np.array(drawn, dtype=object)
    levels = np.split(table, np.cumsum(n_levels)[:-1])
    return tuple(level.reshape(-1, *shape) for level in levels)
