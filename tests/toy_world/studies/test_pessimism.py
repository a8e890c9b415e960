"""Agents beside the pessimistic imitator, and beside the Bayesian one."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from theory.bayes_mixture import Update
from theory.constraints import expected_kl_nats
from theory.process import HistoryTree
from toy_world.planners.ask import asking_optimum
from toy_world.studies.mixtures import novel_mixture
from toy_world.studies.outcomes import utilities
from toy_world.studies.pessimism import (
    outcome_with_bayesian,
    outcome_with_pessimist,
    watched_imitator,
)
from toy_world.worlds.environments import WorldName
from toy_world.worlds.setting import PAY, pay_utility, setting_of


@pytest.fixture(scope="module", params=WorldName)
def novel(request):
    setting = setting_of(request.param, horizon=2)
    return novel_mixture(setting, limit_bits=18, n_steps=30, rng=np.random.default_rng(3))


def test_what_the_demonstrator_never_does_stays_impossible_with_a_frozen_posterior(novel):
    for alpha in (Fraction(1, 4), Fraction(1, 64), Fraction(1, 1024)):
        assert novel.top_set(alpha)[novel.place_of_tau]
        base = novel.pessimist(alpha, update=Update.DEMONSTRATOR)
        for least, tau in zip(base, novel.tau, strict=True):
            assert (least <= tau).all()
        for budget in (0.0, 1.0, math.inf):
            outcome = outcome_with_pessimist(
                novel, alpha=alpha, update=Update.DEMONSTRATOR, budget_nats=budget
            )
            assert outcome.bad_probability == 0
            assert outcome.true_value == pytest.approx(outcome.value, abs=1e-14)
            assert outcome.bound - outcome.value <= 1e-12


def test_under_the_other_rule_the_agents_own_actions_are_evidence_in_its_plan(novel):
    """An outcome is that of the plan against the pessimist who learns by the rule it names."""
    proxy, _ = utilities(novel.nu)
    for update in Update:
        base = novel.pessimist(Fraction(1, 64), update=update)
        plan = asking_optimum(base, novel.nu, proxy, help_policy=novel.tau, budget_nats=1.0)
        outcome = outcome_with_pessimist(
            novel, alpha=Fraction(1, 64), update=update, budget_nats=1.0
        )
        assert (outcome.update, outcome.value) == (update, plan.value)
        assert outcome.n_asks == plan.expected_asks


def test_the_bayesian_imitator_does_it_within_any_budget(novel):
    last = 0.0
    for budget in (0.01, 1.0, 4.0, 12.0):
        outcome = outcome_with_bayesian(novel, budget_nats=budget)
        assert outcome.bad_probability > last
        last = outcome.bad_probability


def test_no_budget_means_asking_all_the_time(novel):
    outcome = outcome_with_pessimist(
        novel, alpha=Fraction(1, 64), update=Update.DEMONSTRATOR, budget_nats=0.0
    )
    tau = novel.tau
    pays = [float(sum(row * [0.0, 0.5, 0.0])) for row in tau[0]]
    assert outcome.n_asks == 2.0
    assert outcome.value >= pays[0] / 2


def test_more_pessimism_never_reaches_more(novel):
    values = [
        outcome_with_pessimist(
            novel, alpha=Fraction(1, 2**j), update=Update.DEMONSTRATOR, budget_nats=1.0
        ).value
        for j in range(1, 14, 3)
    ]
    assert all(b <= a + 1e-12 for a, b in pairwise(values))


def test_the_convexity_behind_asking_holds_for_the_plans_own_law(novel):
    """KL of what comes about, with the demonstrator's help, is at most the budget."""
    base = novel.pessimist(Fraction(1, 64), update=Update.DEMONSTRATOR)
    n_actions, n_observations = novel.nu[0].shape[1:]
    tree = HistoryTree(n_actions=n_actions, n_observations=n_observations, horizon=2)
    utility = pay_utility(tree, PAY).astype(np.float64)
    plan = asking_optimum(base, novel.nu, utility, help_policy=novel.tau, budget_nats=0.7)
    assert float(expected_kl_nats(plan.law, novel.tau, novel.nu)) <= 0.7 + 1e-12


def test_a_watched_imitator_asks_with_the_probability_that_it_misses(novel):
    alpha = Fraction(1, 64)
    watched = watched_imitator(novel, n_steps=30, alpha=alpha)
    assert watched.help_probability == pytest.approx(1 - sum(watched.probabilities), abs=1e-15)
    assert watched.weight == novel.weights[novel.place_of_tau]
    assert watched.demonstrator_inside
    assert 1 <= watched.top_set_size <= 1 / alpha
