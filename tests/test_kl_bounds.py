"""Inequalities that every divergence must obey, on rationals exactly and on awkward floats.

On rational distributions both sides are exact (`theory.log_sum`), so that the inequality is
checked without a tolerance; the float implementation is held to the same inequality up to its
stated rounding. Bounds of single theorems belong below their own heading.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.strategies import (
    budgets_nats,
    log_normalised,
    log_of,
    log_row_pairs,
    log_semi_pairs,
    rational_rows,
)
from theory.budget import Accounting, open_ledger
from theory.constraints import adaptive_kl_nats, expected_kl_nats, fixed_kl_nats
from theory.divergences import chi_squared, kl_nats, renyi_nats, tvd
from theory.log_sum import LogSum, kl_log_sum
from theory.process import HistoryTree
from theory.projections import fixed_kl_mixture, geometric_projection

F = Fraction
ROUNDING = 1e-12
"""Relative, of either side of an inequality between floats."""


def at_most(left, right):
    """`left <= right` for floats, up to rounding."""
    return left <= right + ROUNDING * abs(right) + 1e-28


def rational_pairs(*, count=2, max_symbols=4, full=True):
    """`count` rational rows of one length."""
    return st.integers(1, max_symbols).flatmap(
        lambda n: st.tuples(*[rational_rows(n, full=full)] * count)
    )


def exact_tvd(p, q):
    return sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2


def mixed(weight, first, second):
    return tuple(weight * a + (1 - weight) * b for a, b in zip(first, second, strict=True))


# KL against the other divergences


@given(rational_pairs())
def test_pinsker_twice_the_squared_tvd_is_at_most_kl(rows):
    assert LogSum.rational(2 * exact_tvd(*rows) ** 2) <= kl_log_sum(*rows)


@given(log_row_pairs())
def test_pinsker_in_floats(pair):
    assert at_most(2 * tvd(*pair) ** 2, kl_nats(*pair))


@given(rational_pairs())
def test_bretagnolle_and_huber_tvd_squared_is_at_most_1_less_e_to_minus_kl(rows):
    # in other words, KL is at least minus the log of what TVD squared leaves of 1
    distance = exact_tvd(*rows)
    kl = kl_log_sum(*rows)
    assert kl.is_infinite if distance == 1 else kl >= -LogSum.log(1 - distance**2)


@given(log_row_pairs())
def test_bretagnolle_and_huber_in_floats(pair):
    assert tvd(*pair) <= math.sqrt(-math.expm1(-kl_nats(*pair))) * (1 + ROUNDING) + 1e-14


@given(rational_pairs())
def test_kl_is_at_most_the_log_of_1_plus_chi_squared(rows):
    p, q = rows
    assume(all(b > 0 for a, b in zip(p, q, strict=True) if a > 0))
    chi2 = sum((a - b) ** 2 / b for a, b in zip(p, q, strict=True) if b > 0)
    assert kl_log_sum(p, q) <= LogSum.log(1 + chi2)


@given(log_row_pairs())
def test_kl_is_at_most_log_1_plus_chi_squared_in_floats(pair):
    with np.errstate(over="ignore"):
        chi2 = chi_squared(*pair)
    assert at_most(kl_nats(*pair), np.log1p(chi2))


@given(log_row_pairs())
def test_tvd_is_at_most_1_and_symmetric(pair):
    log_p, log_q = pair
    assert 0 <= tvd(log_p, log_q) <= 1 + 1e-15
    assert tvd(log_p, log_q) == pytest.approx(float(tvd(log_q, log_p)), rel=1e-14)


# Processing and mixing


@st.composite
def processed_pairs(draw):
    """Two rational rows, and both sent through one rational channel."""
    n, m = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    p, q = draw(rational_rows(n)), draw(rational_rows(n))
    channel = [draw(rational_rows(m)) for _ in range(n)]

    def sent(row):
        return tuple(sum(row[i] * channel[i][j] for i in range(n)) for j in range(m))

    return (p, q), (sent(p), sent(q))


@given(processed_pairs())
def test_processing_brings_distributions_together(pairs):
    before, after = pairs
    assert kl_log_sum(*after) <= kl_log_sum(*before)
    assert exact_tvd(*after) <= exact_tvd(*before)


@given(processed_pairs(), st.sampled_from([0.0, 0.3, 1.0, 2.0, math.inf]))
def test_processing_brings_distributions_together_in_floats(pairs, order):
    (p, q), (sent_p, sent_q) = ([log_of(row) for row in rows] for rows in pairs)
    before, after = renyi_nats(p, q, order=order), renyi_nats(sent_p, sent_q, order=order)
    assert after <= before * (1 + ROUNDING) + 1e-14
    assert chi_squared(sent_p, sent_q) <= chi_squared(p, q) * (1 + ROUNDING) + 1e-25


@given(rational_pairs(count=4), st.fractions(0, 1, max_denominator=12))
def test_kl_is_jointly_convex(rows, weight):
    p, q, r, s = rows
    ends = [kl_log_sum(p, q), kl_log_sum(r, s)]
    between = kl_log_sum(mixed(weight, p, r), mixed(weight, q, s))
    assert between <= ends[0] * weight + ends[1] * (1 - weight)


@given(rational_pairs(), st.fractions(F(1, 12), 1, max_denominator=12))
def test_a_mixture_is_no_further_from_a_part_than_minus_the_log_of_its_weight(rows, weight):
    # The inequality behind Theorem 1: a program of weight w costs at most -ln w.
    part, rest = rows
    assert kl_log_sum(part, mixed(weight, part, rest)) <= -LogSum.log(weight)


@given(rational_pairs(full=False))
def test_the_log_sum_inequality_bounds_the_kl_of_semi_distributions_from_below(rows):
    p, q = rows
    mass_p, mass_q = sum(p), sum(q)
    assume(mass_p > 0)
    if mass_q == 0:
        assert kl_log_sum(p, q).is_infinite
    else:
        assert kl_log_sum(p, q) >= LogSum.log(F(mass_p) / mass_q) * mass_p


@given(log_semi_pairs())
def test_a_full_distribution_pays_at_least_minus_the_log_of_a_semi_bases_mass(pair):
    log_p, log_q = log_normalised(pair[0]) if pair[0].max() > -math.inf else pair[0], pair[1]
    mass = np.exp(log_q).sum()
    # A mass below the normal range of float64 has lost digits, and so has its logarithm here.
    assume(log_p.max() > -math.inf and np.finfo(np.float64).tiny < mass < 0.999)
    assert kl_nats(log_p, log_q) >= -math.log(mass) - 1e-12


@given(log_row_pairs(), st.data())
def test_an_expectation_moves_by_at_most_tvd_and_by_at_most_what_kl_allows(pair, data):
    p, q = (np.exp(row) for row in pair)
    f = np.array(data.draw(st.lists(st.floats(0, 1), min_size=len(p), max_size=len(p))))
    assert abs((p - q) @ f) <= tvd(*pair) + 1e-14
    # Donsker and Varadhan: E_p f <= KL(p||q) + log E_q e^f
    assert p @ f <= kl_nats(*pair) + math.log(q @ np.exp(f)) + 1e-14


@given(log_row_pairs(zeros=False), st.floats(0.01, 5))
def test_the_tilted_base_attains_donsker_and_varadhan(pair, scale):
    log_q, direction = pair
    f = scale * direction / (1 + np.abs(direction).max())
    log_p = log_normalised(log_q + f)
    free_energy = float(np.log(np.exp(log_q) @ np.exp(f)))
    assert np.exp(log_p) @ f - kl_nats(log_p, log_q) == pytest.approx(free_energy, abs=1e-12)


# Sequences: the chain rule, and what an exact budget guarantees


@st.composite
def trees_of_steps(draw, *, max_horizon=3):
    """A history tree with random proposals, bases and environments at every history (floats)."""
    tree = HistoryTree(
        n_actions=draw(st.integers(1, 3)),
        n_observations=draw(st.integers(1, 2)),
        horizon=draw(st.integers(1, max_horizon)),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sharpness = draw(st.sampled_from([0.3, 2.0, 20.0]))

    def rows(*shape):
        logits = sharpness * rng.normal(size=shape)
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    a, o = tree.n_actions, tree.n_observations
    levels = range(tree.horizon)
    log_a = [rows(tree.n_histories(t), a) for t in levels]
    log_b = [rows(tree.n_histories(t), a) for t in levels]
    environment = tuple(np.exp(rows(tree.n_histories(t), a, o)) for t in levels)
    shares = [rng.choice([0.0, 0.5, 1.0], size=tree.n_histories(t)) for t in levels]
    return tree, log_a, log_b, environment, shares


@pytest.mark.parametrize("project", [fixed_kl_mixture, geometric_projection])
@given(case=trees_of_steps(), budget=budgets_nats(infinite=False))
def test_policies_that_an_exact_ledger_accepts_satisfy_the_constraint_in_every_reading(
    project, case, budget
):
    tree, log_a, log_b, environment, shares = case
    ledger = open_ledger(np.full(1, float(budget)), accounting=Accounting.EXACT)
    policy = []
    for level_a, level_b, share in zip(log_a, log_b, shares, strict=True):
        step = project(level_a, level_b, share * ledger.remaining_nats)
        policy.append(np.exp(step.log_x))
        charged = ledger.charge(kl_nats=step.kl_nats)
        ledger = open_ledger(  # one ledger for each history of the next level
            np.repeat(charged.remaining_nats, tree.branching), accounting=Accounting.EXACT
        )
    pi, beta = tuple(policy), tuple(np.exp(level) for level in log_b)
    # rounding log x to floats moves a small KL by about 1e-16 times its square root
    allowed = budget * (1 + 1e-9) + 1e-24
    assert fixed_kl_nats(pi, beta) <= allowed
    assert adaptive_kl_nats(pi, beta) <= allowed
    assert expected_kl_nats(pi, beta, environment) <= allowed


@given(st.integers(1, 3).flatmap(lambda n: st.tuples(*[rational_rows(n)] * 2)), st.data())
def test_the_kl_of_a_sequence_is_the_sum_of_its_expected_steps(first, data):
    p, q = first
    seconds = [(data.draw(rational_rows(2)), data.draw(rational_rows(2))) for _ in range(len(p))]
    joint = [
        [row[i] * second[which][j] for i, second in enumerate(seconds) for j in range(2)]
        for which, row in enumerate((p, q))
    ]
    steps = kl_log_sum(p, q)
    for weight, (then_p, then_q) in zip(p, seconds, strict=True):
        steps = steps + kl_log_sum(then_p, then_q) * weight
    assert kl_log_sum(*joint) == steps
