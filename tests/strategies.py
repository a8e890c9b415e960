"""Hypothesis strategies shared by the tests: distributions, exact and in floats, and budgets.

Floats are drawn to be awkward: exact zeros, one-hot rows, ties, probabilities down to subnormal
numbers and below (log-probabilities under -745), rows that differ in their last digits only,
alphabets of one symbol, budgets from 0 over 1e-300 to inf.
"""

import math
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

LEAST_LOG_PROBABILITY = -1000.0


def rational_rows(n_symbols, *, full=True, max_part=9):
    """Rows of `Fraction`s, often with zeros; mass 1 if `full`, else at most 1 and perhaps 0."""
    part = st.integers(0, max_part)
    parts = st.lists(part, min_size=n_symbols, max_size=n_symbols)
    if full:
        return parts.filter(any).map(lambda row: _divided(row, 0))
    return st.tuples(parts, st.integers(1, max_part)).map(lambda drawn: _divided(*drawn))


def log_rows(n_symbols, *, zeros=True):
    """Float64 log-probabilities of a full distribution, shape (n_symbols,)."""
    logit = st.one_of(
        st.floats(-5, 0), st.floats(LEAST_LOG_PROBABILITY, 0), st.sampled_from([-740.0, -1.0, 0.0])
    )
    if zeros:
        logit = st.one_of(logit, st.just(-math.inf))
    logits = st.lists(logit, min_size=n_symbols, max_size=n_symbols)
    return logits.filter(lambda row: max(row) > -math.inf).map(log_normalised)


def log_row_pairs(*, min_symbols=1, max_symbols=6, zeros=True, zeros_of_base=True):
    """Pairs of `log_rows` of one length; in some the second is the first but for a few digits."""

    def pairs(n_symbols):
        base = log_rows(n_symbols, zeros=zeros and zeros_of_base)
        free = st.tuples(log_rows(n_symbols, zeros=zeros), base)
        shifts = st.lists(st.floats(-1, 1), min_size=n_symbols, max_size=n_symbols)
        scale = st.sampled_from([1.0, 1e-3, 1e-7, 1e-11])
        near = st.tuples(base, shifts, scale).map(
            lambda drawn: (log_normalised(drawn[0] + np.array(drawn[1]) * drawn[2]), drawn[0])
        )
        return st.one_of(free, near)

    return st.integers(min_symbols, max_symbols).flatmap(pairs)


def log_semi_rows(n_symbols):
    """Float64 log-probabilities of a semi-distribution, perhaps of mass 0."""
    mass = st.one_of(st.floats(0, 1), st.just(1.0))
    return st.tuples(log_rows(n_symbols), mass).map(
        lambda drawn: drawn[0] + (math.log(drawn[1]) if drawn[1] else -math.inf)
    )


def log_semi_pairs(*, max_symbols=6):
    """Pairs of `log_semi_rows` of one length."""
    return st.integers(1, max_symbols).flatmap(
        lambda n: st.tuples(log_semi_rows(n), log_semi_rows(n))
    )


def budgets_nats(*, infinite=True):
    """Budgets: 0, tiny, ordinary, huge, and inf."""
    special = [0.0, 5e-324, 1e-300, 1e-12, 1e-6, 0.01, 1.0, 10.0, 1e6, 1e300]
    return st.one_of(
        st.sampled_from(special + ([math.inf] if infinite else [])),
        st.floats(-30, 5).map(math.exp),
    )


def log_normalised(logits):
    """Log-probabilities of a row of logits, with -inf for probability 0."""
    logits = np.asarray(logits, dtype=np.float64)
    shifted = logits - logits.max()
    return shifted - math.log(np.exp(shifted).sum())


def log_of(row):
    """Float64 log-probabilities of rational probabilities."""
    return np.array([math.log(p) if p else -math.inf for p in row])


def _divided(parts, missing):
    total = sum(parts) + missing
    return tuple(Fraction(part, total) for part in parts)
