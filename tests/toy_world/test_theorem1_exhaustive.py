"""Theorem 1 in exact arithmetic, for every program, event, policy, history and continuation.

A small instance of the language: all programs of at most L bits, all histories of 1 to 3 steps,
all events that are unprecedented there and all policies that fit into Delta <= L, all
continuations of two steps. Nothing here is rounded: probabilities, posterior weights and rho are
`Fraction`s, and a KL is compared with its bound as an exact sum of logarithms.
"""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from tests.toy_world.program_examples import exact_weights
from theory.bayes_mixture import Update, policy_mixture
from theory.bounds import theorem1_factor
from theory.constraints import adaptive_kl_nats, expected_kl_nats, fixed_kl_nats
from theory.log_sum import LogSum
from theory.process import HistoryTree, action_law
from toy_world.programs.columns import ColumnLayout, QueryPoint
from toy_world.programs.enumeration import enumerate_policies
from toy_world.programs.language import Language, Switch
from toy_world.programs.posterior import posterior
from toy_world.programs.semantics import has_happened, latched_in, policy_on_tree, trace_of

HORIZON = 2
POLICY_BITS = 5
LIMIT_OF = {(2, 1): 17, (2, 2): 15, (3, 1): 16}
SIZES = list(LIMIT_OF)


def exact(levels):
    return tuple(np.vectorize(Fraction, otypes=[object])(level) for level in levels)


def unprecedented_events(language, history, most_bits):
    sizes = {"n_actions": language.n_actions, "n_observations": language.n_observations}
    for bits, event in language.events.up_to(most_bits):
        now = has_happened(event, trace_of(event, history, **sizes))
        if now and not has_happened(event, trace_of(event, history[:-2], **sizes)):
            yield bits, event


def all_histories(language, n_steps):
    return HistoryTree(
        n_actions=language.n_actions, n_observations=language.n_observations, horizon=n_steps
    ).continuations(n_steps)


def exact_mixture(language, limit, history):
    """The mixture at `history`: exact weights, counts by length, and xi on the tree."""
    layout = ColumnLayout(
        history[::2],
        history[1::2],
        [QueryPoint(n_steps=len(history) // 2)],
        n_actions=language.n_actions,
        n_observations=language.n_observations,
        horizon=HORIZON,
    )
    found = posterior(enumerate_policies(language, layout, limit), 0)
    weights = np.array(exact_weights(found, history), dtype=object)
    xi = policy_mixture(weights, exact(found.policies), update=Update.ALL)
    return found, weights, xi


def exact_rho(found, weights, limit, delta):
    short = [
        sum(Fraction(int(count), 2**n) for n, count in enumerate(counts[: limit - delta + 1]))
        / Fraction(int(prior), 2**limit)
        for counts, prior in zip(found.counts, found.prior_weights, strict=True)
    ]
    return sum(share * weight for share, weight in zip(short, weights, strict=True)) / sum(weights)


@pytest.mark.parametrize("n_steps", [1, 2, 3])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_product_inequality_and_the_kl_bound_hold_everywhere(sizes, n_steps):
    n_actions, n_observations = sizes
    language = Language(n_actions=n_actions, n_observations=n_observations)
    limit = LIMIT_OF[sizes]
    least = language.switch_bits + 2  # the shortest policy has 2 bits
    policies = list(language.policies.up_to(POLICY_BITS))
    n_informative = 0
    for history in all_histories(language, n_steps):
        found, weights, xi = exact_mixture(language, limit, history)
        law_of_xi = action_law(xi, n_observations=n_observations)
        for event_bits, _ in unprecedented_events(language, history, limit - least):
            for pi_bits, policy in policies:
                delta = language.switch_bits + event_bits + pi_bits
                if delta > limit:
                    continue
                rho = exact_rho(found, weights, limit, delta)
                assert 0 <= rho <= 1
                pi = exact(found.on_tree(policy))
                law_of_pi = action_law(pi, n_observations=n_observations)
                assert (law_of_xi >= theorem1_factor(delta_bits=delta, rho=rho) * law_of_pi).all()
                if rho > 0:
                    n_informative += 1
                    bound = LogSum.log(2**delta / rho)
                    assert fixed_kl_nats(pi, xi) <= adaptive_kl_nats(pi, xi) <= bound
    assert n_informative >= 5


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_expected_kl_is_under_the_bound_in_every_deterministic_world(sizes):
    """Every way to answer the first action; the last observation comes after every action."""
    n_actions, n_observations = sizes
    language = Language(n_actions=n_actions, n_observations=n_observations)
    limit = 15
    for history in all_histories(language, 1):
        found, weights, xi = exact_mixture(language, limit, history)
        for event_bits, _ in unprecedented_events(language, history, 8):
            for pi_bits, policy in language.policies.up_to(4):
                delta = language.switch_bits + event_bits + pi_bits
                if delta > limit or not (rho := exact_rho(found, weights, limit, delta)):
                    continue
                pi = exact(found.on_tree(policy))
                for answers in product(range(n_observations), repeat=n_actions):
                    rows = [
                        [Fraction(o == answer) for o in range(n_observations)] for answer in answers
                    ]
                    nu = tuple(np.array([rows] * len(level), dtype=object) for level in pi)
                    assert expected_kl_nats(pi, xi, nu) <= LogSum.log(2**delta / rho)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_switch_has_its_program_s_likelihood_and_then_does_as_its_policy_does(sizes):
    """The step on which the proof rests, for every program p, event E and policy pi."""
    n_actions, n_observations = sizes
    language = Language(n_actions=n_actions, n_observations=n_observations)
    programs = list(language.policies.up_to(8))
    policies = list(language.policies.up_to(4))
    tree = HistoryTree(n_actions=n_actions, n_observations=n_observations, horizon=2)
    checked = 0
    for n_steps in (1, 2):
        for history in all_histories(language, n_steps):
            rooted = HistoryTree(**{**vars(tree), "root": history})
            before = HistoryTree(**{**vars(tree), "horizon": n_steps})
            rows = [before.index(history[:t]) for t in range(0, len(history), 2)]
            for event_bits, event in unprecedented_events(language, history, 7):
                for (p_bits, p), (pi_bits, pi) in product(programs, policies):
                    switched = Switch(event, pi, p)
                    delta = language.switch_bits + event_bits + pi_bits
                    assert language.length(switched) == p_bits + delta
                    assert event.predicate in latched_in(switched)
                    for t, row in enumerate(rows):
                        ours = policy_on_tree(switched, before)[t][row]
                        assert (ours == policy_on_tree(p, before)[t][row]).all()
                    for ours, theirs in zip(
                        policy_on_tree(switched, rooted), policy_on_tree(pi, rooted), strict=True
                    ):
                        assert (ours == theirs).all()
                    checked += 1
    assert checked > 100
