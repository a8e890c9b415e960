"""Near the imitator and infinitely far from the demonstrator: by hand and by enumeration."""

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from theory.bayes_mixture import Update
from theory.constraints import expected_kl_nats
from theory.log_sum import LogSum
from theory.process import HistoryTree
from toy_world.programs.language import Language
from toy_world.studies.mixtures import novel_mixture
from toy_world.studies.no_triangle import (
    EPSILONS,
    Case,
    Verdict,
    after_a_novelty,
    prior_share,
    rules_nothing_out,
    verdict_of,
    witness,
    witness_nats,
)
from toy_world.worlds.environments import WorldName
from toy_world.worlds.setting import setting_of


def _case(tau_to_xi, xi_to_tau, bits=3):
    return Case(
        world=WorldName.ECHO,
        tau="do(a0)",
        bits=bits,
        n_steps=1,
        tau_to_xi_nats=tau_to_xi,
        xi_to_tau_nats=xi_to_tau,
        verdict=verdict_of(tau_to_xi_nats=tau_to_xi, xi_to_tau_nats=xi_to_tau),
    )


@pytest.mark.parametrize("epsilon", [*EPSILONS, Fraction(1, 10**30), Fraction(7, 3)])
def test_the_witness_is_near_beta_and_infinitely_far_from_tau(epsilon):
    pi_beta, tau_beta, pi_tau = witness_nats(epsilon)
    assert pi_beta == 0
    assert tau_beta == -1 * LogSum.log(1 - min(epsilon, Fraction(1)) / 2)
    assert 0 < tau_beta <= epsilon
    assert pi_tau.is_infinite
    assert witness(epsilon).both_within


def test_a_verdict_compares_the_two_directions():
    assert _case(0.1, math.inf).verdict is Verdict.INFINITE
    assert _case(0.1, 0.2).verdict is Verdict.FINITE
    assert _case(0.2, 0.1).verdict is Verdict.HOLDS
    assert _case(0.1, 0.1 + 1e-15).verdict is Verdict.HOLDS


def test_the_prior_share_weighs_demonstrators_by_their_code():
    cases = [_case(0.1, math.inf, bits=2), _case(0.2, 0.1, bits=3), _case(0.2, 0.1, bits=3)]
    assert prior_share(cases, Verdict.INFINITE) == 0.5


def test_only_programs_with_every_action_rule_nothing_out():
    language = Language(n_actions=3, n_observations=2)
    soft = "mix(1/2, do(a0), mix(1/2, do(a1), do(a2)))"
    for text, expected in ((soft, True), ("mix(1/2, do(a0), do(a1))", False), ("do(a2)", False)):
        assert rules_nothing_out(language.policies.parse(text), language) is expected


def test_the_census_finds_that_who_rules_something_out_is_infinitely_far(shown):
    cases = shown("proposition1").result.data.cases
    assert {c.world for c in cases} == set(WorldName)
    for case in cases:
        certain = case.bits <= 5  # a program of 5 bits has no room to mix three actions
        assert (case.verdict is Verdict.INFINITE) is certain
        assert case.tau_to_xi_nats >= -1e-15
    first, last = ([c for c in cases if c.n_steps == k] for k in (0, 100))
    assert np.median([c.tau_to_xi_nats for c in last]) < np.median(
        [c.tau_to_xi_nats for c in first]
    )


@pytest.mark.parametrize("name", [WorldName.DOORBELL, WorldName.ALARM])
def test_policies_near_the_imitator_are_infinitely_far_from_the_demonstrator(name):
    found = after_a_novelty(name, limit_bits=18, n_steps=30, rng=np.random.default_rng(2))
    assert found.best_to_xi_nats == pytest.approx(found.tau_to_xi_nats, rel=1e-9)
    assert found.best_to_tau_nats == found.constructed_to_tau_nats == math.inf
    assert found.best_bad > found.xi_bad > 0
    setting = setting_of(name, horizon=3)
    mixture = novel_mixture(setting, limit_bits=18, n_steps=30, rng=np.random.default_rng(2))
    xi = mixture.imitator(update=Update.ALL)
    assert found.tau_to_xi_nats == float(expected_kl_nats(mixture.tau, xi, mixture.nu))
    # Along "always a2" the conditionals telescope to the mass of the models that take it.
    tree = HistoryTree(n_actions=3, n_observations=setting.world.n_observations, horizon=3)
    total = 0.0
    for observations in product(range(tree.n_observations), repeat=2):
        histories = [sum(((2, o) for o in observations[:t]), ()) for t in range(3)]
        rows = [tree.index(h) for h in histories]
        probability = math.prod(
            nu[row, 2, o] for nu, row, o in zip(mixture.nu, rows, observations, strict=False)
        )
        if probability:
            taken = [m[:, row, 2] for m, row in zip(mixture.models, rows, strict=True)]
            total -= probability * math.log(mixture.weights @ np.prod(taken, axis=0))
    assert found.constructed_to_xi_nats == pytest.approx(total, rel=1e-11)
