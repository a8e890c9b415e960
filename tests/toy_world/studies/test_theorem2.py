"""Theorem 2's readings: proofs against exact random problems, counterexamples by hand."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.exact_tables import environment_tables, policy_tables, trees
from theory.process import HistoryTree, environment_table, policy_table, utility_table
from toy_world.planners.problem import Reading
from toy_world.planners.tvd import tvd_optimum
from toy_world.studies.theorem2 import (
    HOLDS,
    READINGS,
    Claim,
    TvdProblem,
    certified_examples,
    certified_excess,
    claim_verdicts,
    conditional_counterexamples,
    first_example_row,
    loss_at,
    random_problem,
    sequence_counterexample,
    spec_counterexample,
    violations,
)

F = Fraction
each_reading = pytest.mark.parametrize("reading", Reading, ids=lambda reading: reading.name)


@st.composite
def exact_problems(draw, *, tree=None):
    tree = draw(trees(max_horizon=2, max_symbols=3)) if tree is None else tree
    n = tree.n_histories(tree.horizon)
    utility = draw(st.lists(st.integers(0, 6).map(lambda k: F(k, 6)), min_size=n, max_size=n))
    return TvdProblem(
        tree=tree,
        beta=draw(policy_tables(tree)),
        nu=draw(environment_tables(tree)),
        utility=np.array(utility, dtype=object),
        budget=draw(st.sampled_from([F(1, 20), F(1, 7), F(3, 10)])),
    )


@each_reading
@given(problem=exact_problems())
def test_what_is_proved_is_never_violated_by_an_exact_optimum(reading, problem):
    pi = problem.plan(reading).pi
    for claim in Claim:
        if reading in HOLDS[claim]:
            assert violations(problem, pi, claim) == ()


@each_reading
@given(problem=exact_problems(tree=HistoryTree(n_actions=2, n_observations=2, horizon=2)))
def test_two_steps_of_two_actions_are_too_few_to_violate_the_conditional_claim(reading, problem):
    assert violations(problem, problem.plan(reading).pi, Claim.CONDITIONAL) == ()


@each_reading
@given(problem=exact_problems(tree=HistoryTree(n_actions=2, n_observations=1, horizon=3)))
def test_without_observations_whole_sequences_are_optimal(reading, problem):
    assert violations(problem, problem.plan(reading).pi, Claim.SEQUENCE) == ()


@each_reading
@pytest.mark.parametrize("shape", [(3, 2, 2), (2, 3, 2)])
def test_what_is_proved_is_not_violated_at_random(rng, reading, shape):
    horizon, n_actions, n_observations = shape
    tree = HistoryTree(n_actions=n_actions, n_observations=n_observations, horizon=horizon)
    for _ in range(5):
        problem = random_problem(tree, budget=0.2, rng=rng)
        pi = problem.plan(reading).pi
        for claim in Claim:
            if reading in HOLDS[claim]:
                assert violations(problem, pi, claim, tolerance=1e-7) == ()


@each_reading
def test_the_worst_of_three_siblings_gives_its_probability_to_both_others(reading):
    # All of c = 1/9 is taken from the sequence (0, 0), so (0, 1) and (0, 2) share action 0.
    example, _ = conditional_counterexamples()
    plan = example.problem.plan(reading)
    assert list(plan.pi[1][0]) == [0, F(1, 2), F(1, 2)]
    assert plan.value == F(1, 9) * (F(1, 3) + F(2, 3)) + F(7, 9)
    assert loss_at(example) == F(2, 3) - F(1, 3)
    # x(0, 1) - x(0)/3 = 1/9 - (2/9)/3.
    assert certified_excess(example, reading) == F(1, 27)


@each_reading
def test_three_steps_of_two_actions_violate_the_conditional_claim_too(reading):
    _, example = conditional_counterexamples()
    # x(0, 1) - x(0)/2 = 1/4 - (3/8)/2; the better action leads to 2/3, this one to 1/3.
    assert certified_excess(example, reading) == F(1, 16)
    assert loss_at(example) == F(1, 3)


@pytest.mark.parametrize(
    ("reading", "excess"),
    [(Reading.FIXED, F(3, 16)), (Reading.EXPECTED, F(1, 8)), (Reading.ADAPTIVE, F(0))],
)
def test_a_sequence_gains_though_its_first_action_is_not_optimal(reading, excess):
    # Fixed: all of c in both observations. Expected: c = 3/16 pays for 3/8 of mass at one
    # observation, of which action 1's improvement can take 1/4 at most.
    example = sequence_counterexample()
    assert certified_excess(example, reading) == excess
    assert loss_at(example) == F(3, 4) - F(1, 2)
    assert (excess > 0) == (reading in example.readings)


def test_the_counterexample_with_three_first_actions_gains_c():
    example = spec_counterexample()
    assert certified_excess(example, Reading.FIXED) == example.problem.budget == F(1, 10)
    assert loss_at(example) == F(3, 5) - F(1, 2)
    for reading in (Reading.ADAPTIVE, Reading.EXPECTED):
        assert certified_excess(example, reading) == 0


def every_example():
    return (*conditional_counterexamples(), sequence_counterexample(), spec_counterexample())


@pytest.mark.parametrize("example", every_example(), ids=range(4))
def test_counterexamples_are_found_as_violations_where_they_are_certified(example):
    for reading in example.readings:
        assert reading not in HOLDS[example.claim]
        assert certified_excess(example, reading) > 0
        assert loss_at(example) > 0
        found = violations(example.problem, example.problem.plan(reading).pi, example.claim)
        row = example.problem.tree.index(example.history)
        at = [v for v in found if (v.step, v.row, v.action) == (1, row, example.action)]
        assert [v.loss for v in at] == [loss_at(example)]
        assert all(v.excess > 0 for v in at)


def test_every_claim_that_does_not_hold_has_a_counterexample_in_that_reading():
    refuted = {(e.claim, reading) for e in every_example() for reading in e.readings}
    for claim in Claim:
        for reading in Reading:
            assert ((claim, reading) in refuted) != (reading in HOLDS[claim])


def test_every_verdict_has_its_counterexamples():
    examples = certified_examples()
    for verdict in claim_verdicts():
        refuted = {e.reading for e in examples if e.claim is verdict.claim and e.least_excess > 0}
        assert refuted == set(READINGS) - set(verdict.holds_in)
        shapes = {e.shape for e in examples if e.claim is verdict.claim}
        assert shapes >= set(verdict.smallest_shapes)
        assert bool(verdict.smallest_shapes) == bool(refuted)


def test_the_row_that_is_shown_violates_the_printed_statement():
    row = first_example_row()
    assert row.pi[1] > row.beta[1]
    assert row.utility[1] < max(row.utility)


def test_violations_are_what_each_claim_says():
    # Two steps without observations; action 1 is never optimal. pi takes it more often first,
    # and then less often than beta, but after action 1 more mass than beta all the same.
    tree = HistoryTree(n_actions=2, n_observations=1, horizon=2)
    half = (F(1, 2), F(1, 2))
    problem = TvdProblem(
        tree=tree,
        beta=policy_table(tree, lambda _: half),
        nu=environment_table(tree, lambda _: (F(1),)),
        utility=utility_table(tree, lambda h: F(2 - h[0] - h[2], 2)),
        budget=F(1),
    )
    pi = policy_table(tree, lambda h: (F(3, 5), F(2, 5)) if h else (F(0), F(1)))

    def found(claim):
        return [(v.step, v.row, v.action, v.excess) for v in violations(problem, pi, claim)]

    assert found(Claim.FIRST) == [(0, 0, 1, F(1, 2))]
    assert found(Claim.CONDITIONAL) == [(0, 0, 1, F(1, 2))]
    assert found(Claim.MASS) == [(0, 0, 1, F(1, 2)), (1, 1, 1, F(2, 5) - F(1, 4))]
    assert found(Claim.SEQUENCE) == [
        (0, 0, 1, F(1, 2)),
        (1, 1, 0, F(3, 5) - F(1, 4)),
        (1, 1, 1, F(2, 5) - F(1, 4)),
    ]


def test_the_first_action_need_not_be_optimal_where_nu_misses_mass():
    """Q* = 1/100, 0, 3/200: the process mostly ends after action 0, and what ends costs no TVD."""
    beta = (
        np.array([[Fraction(0), Fraction(1), Fraction(0)]]),
        np.full((3, 3), Fraction(1, 3)),
    )
    nu = (
        np.array([[[Fraction(1, 100)], [Fraction(1)], [Fraction(1)]]]),
        np.full((3, 3, 1), Fraction(1)),
    )
    utility = np.array([Fraction(k, 200) for k in (200, 200, 200, 0, 0, 0, 3, 3, 3)])
    budget = Fraction(1, 10)
    plan = tvd_optimum(beta, nu, utility, budget=budget, reading=Reading.EXPECTED)
    assert plan.pi[0][0, 0] > beta[0][0, 0]
    assert plan.value == plan.bound
    # Mass d moved from action 1 to action 0 costs (d + d/100) / 2 and gains d/100.
    assert plan.value == budget * 2 / 101
    full = (np.full((1, 3, 1), Fraction(1)), nu[1])
    again = tvd_optimum(beta, full, utility, budget=budget, reading=Reading.EXPECTED)
    assert again.pi[0][0, 0] == budget  # now optimal, Q* = 1


def test_whole_sequences_need_a_base_policy_that_misses_no_mass():
    """Half of beta's mass is missing after a0 o1: the sequence a0 o1 a1 rises by 1/8, losing 1/4.

    Any policy exceeds beta there, so that in the adaptive reading nothing that follows a0 o0 costs
    more. By hand: Q*(a0) = 1/4 and Q*(a1) = 1/2, after a0 o1 the action a1 earns 1/2 and a0
    nothing.
    """
    half, one, zero = F(1, 2), F(1), F(0)
    tree = HistoryTree(n_actions=2, n_observations=2, horizon=2)
    fair = np.array([[half, half]], dtype=object)
    worth = {(0, 1, 1): half, (1, 1, 0): one}
    beta_rows = [[one, zero], [half, zero], [zero, one], [one, zero]]
    found = {}
    for mass in (half, one):
        beta_rows[1][0] = mass
        problem = TvdProblem(
            tree=tree,
            beta=(fair, np.array(beta_rows, dtype=object)),
            nu=tuple(np.full((4**t, 2, 2), half, dtype=object) for t in range(2)),
            utility=np.array(
                [worth.get((a, o, b), zero) for a, o, b, _ in product(range(2), repeat=4)],
                dtype=object,
            ),
            budget=F(1, 8),
        )
        found[mass] = violations(problem, problem.plan(Reading.ADAPTIVE).pi, Claim.SEQUENCE)
    assert [(v.step, v.row, v.action, v.excess, v.loss) for v in found[half]] == [
        (1, 1, 1, F(1, 8), F(1, 4))
    ]
    assert found[one] == ()


def test_first_actions_need_an_environment_that_misses_no_mass():
    """After a0 the world goes on one time in five, and then earns 1: Q*(a0) = 1/5 < Q*(a1) = 3/10.

    A move to a0 costs 1 + 1/5 of the weighted distances, one from a1 b0 to a1 b1 costs 2.
    """
    zero, one, earns = F(0), F(1), F(3, 10)
    found = {}
    for missing in (F(4, 5), zero):
        problem = TvdProblem(
            tree=HistoryTree(n_actions=2, n_observations=1, horizon=2),
            beta=(
                np.array([[zero, one]], dtype=object),
                np.array([[one, zero]] * 2, dtype=object),
            ),
            nu=(
                np.array([[[one - missing], [one]]], dtype=object),
                np.full((2, 2, 1), one, dtype=object),
            ),
            utility=np.array([one, one, zero, earns], dtype=object),
            budget=F(3, 10),
        )
        found[missing] = violations(problem, problem.plan(Reading.EXPECTED).pi, Claim.FIRST)
    (violation,) = found[F(4, 5)]
    assert (violation.action, violation.loss) == (0, F(1, 10))
    assert violation.excess == F(1, 2)
    assert found[zero] == ()
