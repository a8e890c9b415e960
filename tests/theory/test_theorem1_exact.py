"""Theorem 1 (little constraint in novel situations) in rationals, on small classes.

Nothing here is rounded: products of probabilities are `Fraction`s, KL are exact sums of
logarithms, and every history of a tree and every continuation of it is looked at.
"""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from theory import constraints
from theory.bayes_mixture import (
    Update,
    joint_predictor,
    normalised_log_weights,
    observation_mixture,
    observation_ratios,
    policy_mixture,
    posterior_weights,
    predictive_log_probs,
    stack_tables,
    update_log_weights,
)
from theory.bounds import (
    Theorem1Bound,
    equally_pointed_deviators_nats,
    halving_deviators_nats,
    pointed_deviators_nats,
    theorem1_factor,
)
from theory.log_sum import LogSum
from theory.process import (
    HistoryTree,
    action_law,
    environment_table,
    policy_table,
    reach_probabilities,
    subtree,
)

F = Fraction
ONE = F(1)
TREE = HistoryTree(n_actions=2, n_observations=2, horizon=3)
DELTA_BITS = 3


def sure(action):
    return (ONE, F(0)) if action == 0 else (F(0), ONE)


# Demonstrators, deviating behaviours, and events, as functions of the history.
PROGRAMS = {
    "always 0": lambda _: sure(0),
    "copy the last observation": lambda h: sure(h[-1] if h else 0),
    "mostly 0": lambda _: (F(7, 8), F(1, 8)),
    "fair coin": lambda _: (F(1, 2), F(1, 2)),
}
DEVIATIONS = {
    "always 1": lambda _: sure(1),
    "two thirds 1": lambda _: (F(1, 3), F(2, 3)),
    "the opposite of the last observation": lambda h: sure(1 - h[-1]),
}
EVENTS = {
    "observation 1 seen": lambda h: 1 in h[1::2],
    "action 1 seen": lambda h: 1 in h[::2],
    "two steps past": lambda h: len(h) >= 4,
    "both symbols of the last step are 1": lambda h: h[-2:] == (1, 1),
}
WORLDS = {
    "fair": lambda _: (F(1, 2), F(1, 2)),
    "echo": lambda h: sure(h[-1]),
    "mostly 0": lambda h: (F(5, 6), F(1, 6)) if h[-1] == 0 else (F(2, 3), F(1, 3)),
}


def latch(predicate):
    """True from the first prefix (of whole steps) on which the predicate holds."""
    return lambda h: any(predicate(h[:t]) for t in range(2, len(h) + 1, 2))


def switch(event, deviation, program):
    return lambda h: deviation(h) if event(h) else program(h)


def first_occurrences(event):
    """The (step, row) of every history at which the event occurs for the first time."""
    for t in range(1, TREE.horizon):
        for row, h in enumerate(TREE.continuations(t)):
            if event(h) and not event(h[:-2]):
                yield t, row


def switched_class(event, deviation, *, n_credited):
    """Every program, one more that switches elsewhere, and the first n_credited switched."""
    programs = list(PROGRAMS.values())
    programs.insert(1, switch(latch(lambda h: 0 in h[1::2]), DEVIATIONS["always 1"], programs[2]))
    prior = [F(1, 2**length) for length in (2, 7, 3, 4, 4)]
    programs += [switch(event, deviation, p) for p in programs[:n_credited]]
    prior += [w / 2**DELTA_BITS for w in prior[:n_credited]]
    return prior, stack_tables([policy_table(TREE, p) for p in programs])


CASES = [
    pytest.param(latch(EVENTS[e]), DEVIATIONS[d], id=f"{d}, after {e}")
    for e, d in product(EVENTS, DEVIATIONS)
]


@pytest.mark.parametrize(("event", "deviation"), CASES)
def test_a_policy_mixture_leaves_every_continuation_of_the_deviation_its_share(event, deviation):
    pi = policy_table(TREE, lambda h: deviation(h) if h else sure(0))
    worlds = [environment_table(TREE, world) for world in WORLDS.values()]
    for n_credited in (5, 2):  # closed under the switch, and truncated
        prior, models = switched_class(event, deviation, n_credited=n_credited)
        xi = policy_mixture(prior, models, update=Update.ALL)
        posterior = posterior_weights(prior, models, update=Update.ALL)
        for step, row in first_occurrences(event):
            rho = posterior[step][:n_credited, row].sum()
            factor = theorem1_factor(delta_bits=DELTA_BITS, rho=rho)
            after_xi, after_pi = (subtree(table, step=step, row=row) for table in (xi, pi))
            left, right = (action_law(table, n_observations=2) for table in (after_xi, after_pi))
            assert np.all(left >= factor * right)
            if factor:
                bound = -LogSum.log(factor)
                assert constraints.fixed_kl_nats(after_pi, after_xi) <= bound
                assert constraints.adaptive_kl_nats(after_pi, after_xi) <= bound
                for world in worlds:
                    nu = subtree(world, step=step, row=row)
                    assert constraints.expected_kl_nats(after_pi, after_xi, nu) <= bound


def test_the_bound_is_attained_where_the_demonstrator_never_does_what_pi_does():
    event, deviation = latch(EVENTS["observation 1 seen"]), DEVIATIONS["always 1"]
    demonstrator = PROGRAMS["always 0"]
    programs = [demonstrator, switch(event, deviation, demonstrator)]
    prior = [ONE, F(1, 2**DELTA_BITS)]
    models = stack_tables([policy_table(TREE, p) for p in programs])
    xi = policy_mixture(prior, models, update=Update.ALL)
    after_xi = subtree(xi, step=1, row=TREE.index((0, 1)))
    pi = subtree(policy_table(TREE, lambda _: sure(1)), step=1, row=0)
    rho = ONE / (1 + F(1, 2**DELTA_BITS))
    factor = theorem1_factor(delta_bits=DELTA_BITS, rho=rho)
    assert constraints.fixed_kl_nats(pi, after_xi) == -LogSum.log(factor)


def test_the_price_does_not_depend_on_the_length_of_training():
    # The demonstrator does 0 for k steps; then observation 1 comes for the first time.
    event, deviation = latch(EVENTS["observation 1 seen"]), DEVIATIONS["always 1"]
    programs = [PROGRAMS["always 0"], PROGRAMS["fair coin"]]
    programs += [switch(event, deviation, p) for p in programs]
    w = [F(1, 4), F(1, 4), F(1, 4) / 2**DELTA_BITS, F(1, 4) / 2**DELTA_BITS]
    prices = []
    for k in (1, 10, 100, 1000):
        likelihood = [ONE, F(1, 2**k)] * 2
        posterior = [x * y for x, y in zip(w, likelihood, strict=True)]
        root = HistoryTree(n_actions=2, n_observations=2, horizon=1, root=(0, 0) * (k - 1) + (0, 1))
        models = stack_tables([policy_table(root, p) for p in programs])
        xi = policy_mixture(posterior, models, update=Update.ALL)
        price = constraints.fixed_kl_nats(policy_table(root, deviation), xi)
        rho = (posterior[0] + posterior[1]) / sum(posterior)
        assert price <= -LogSum.log(theorem1_factor(delta_bits=DELTA_BITS, rho=rho))
        prices.append(price)
    # It rises to its limit ln(1 + 2^Delta), the fair coin being forgotten.
    assert sorted(prices) == prices
    assert prices[-1] < LogSum.log(1 + 2**DELTA_BITS)


def joint_class(event, deviation, *, n_credited):
    """`switched_class`, each original with one of the worlds, its copy with the same."""
    prior, policies = switched_class(event, deviation, n_credited=n_credited)
    worlds = [environment_table(TREE, world) for world in WORLDS.values()]
    order = [0, 1, 2, 0, 1]
    order += order[:n_credited]
    return prior, policies, stack_tables([worlds[i] for i in order])


@pytest.mark.parametrize(("event", "deviation"), CASES[::2])
def test_a_joint_predictor_obeys_the_bound_with_the_residual_and_in_expectation(event, deviation):
    pi = policy_table(TREE, lambda h: deviation(h) if h else sure(0))
    n_credited = 4
    prior, policies, environments = joint_class(event, deviation, n_credited=n_credited)
    xi, xi_world = joint_predictor(prior, policies, environments)
    for step, row in first_occurrences(event):
        posterior = joint_posterior(prior, policies, environments, step=step, row=row)
        if posterior is None:
            continue  # the mixture thinks this history impossible
        rho = sum(posterior[:n_credited]) / sum(posterior)
        factor = theorem1_factor(delta_bits=DELTA_BITS, rho=rho)
        below = {"step": step, "row": row}
        credited = tuple(level[:n_credited, below_rows(level, below)] for level in environments)
        xi_tilde = observation_mixture(posterior[:n_credited], credited[step:])
        after_xi, after_pi = subtree(xi, **below), subtree(pi, **below)
        ratios = observation_ratios(subtree(xi_world, **below), xi_tilde)
        # The last observation follows every action: its ratio is not needed.
        left = action_law(after_xi, n_observations=2).reshape(-1, 2) * ratios[-2][:, None]
        right = action_law(after_pi, n_observations=2).reshape(-1, 2)
        assert np.all(left >= factor * right)
        if factor:
            bound = -LogSum.log(factor)
            assert constraints.expected_kl_nats(after_pi, after_xi, xi_tilde) <= bound
            for model in range(n_credited):
                nu = tuple(level[model] for level in credited[step:])
                same = [
                    w
                    for i, w in enumerate(posterior[:n_credited])
                    if all(np.array_equal(a[i], a[model]) for a in credited[step:])
                ]
                weight = sum(same) / sum(posterior[:n_credited])
                if weight:
                    kl = constraints.expected_kl_nats(after_pi, after_xi, nu)
                    assert kl <= bound - LogSum.log(weight)


def below_rows(level, below):
    width = level.shape[1] // TREE.n_histories(below["step"])
    return slice(below["row"] * width, (below["row"] + 1) * width)


def joint_posterior(prior, policies, environments, *, step, row):
    """Prior times likelihood of one history, model by model; None if all are 0."""
    weights = [
        w
        * reach_probabilities(
            tuple(level[i] for level in policies), tuple(level[i] for level in environments)
        )[step][row]
        for i, w in enumerate(prior)
    ]
    return weights if any(weights) else None


def pointed_deviators(n, likelihoods, *, delta_bits):
    """n originals and n copies; step 0 is idle, the observation after step i-1 points at i."""
    tree = HistoryTree(n_actions=2, n_observations=2, horizon=n + 1)

    def world(i):
        def observe(h):
            step = (len(h) + 1) // 2  # the step that this observation precedes
            if step == i:
                return sure(1)
            delta = likelihoods[step - 1] if step <= n else ONE
            return (1 - delta, delta)

        return environment_table(tree, observe)

    never = policy_table(tree, lambda _: sure(0))
    deviators = [
        policy_table(tree, lambda h, i=i: sure(1) if len(h) == 2 * i else sure(0))
        for i in range(1, n + 1)
    ]
    worlds = [world(i) for i in range(1, n + 1)]
    prior = [ONE] * n + [F(1, 2**delta_bits)] * n
    xi, _ = joint_predictor(
        prior, stack_tables([*deviators, *[never] * n]), stack_tables([*worlds, *worlds])
    )
    return never, xi


def test_observations_that_point_at_the_next_deviator_make_pi_pay_again_each_time():
    n, delta_bits = 4, 5
    rho = ONE / (1 + F(1, 2**delta_bits))
    bound = Theorem1Bound(delta_bits=delta_bits, log_rho=float(LogSum.log(rho)))
    for likelihoods, limit in (
        # Each pointer much harder than the one before.
        ([F(1, 2 ** (50 * 4**i)) for i in range(n)], pointed_deviators_nats),
        # All equally hard.
        ([F(1, 2**50)] * n, equally_pointed_deviators_nats),
    ):
        pi, xi = pointed_deviators(n, likelihoods, delta_bits=delta_bits)
        per_observations = constraints.fixed_kl_per_observations(pi, xi)
        kl = per_observations.max()
        worst = constraints.observation_sequence(per_observations, horizon=n + 1, n_observations=2)
        assert worst == (1,) * n
        assert float(kl) == pytest.approx(limit(n=n, delta_bits=delta_bits), abs=1e-12)
        assert kl > bound.bound_as_printed_nats > bound.bound_nats
    assert pointed_deviators_nats(n=1, delta_bits=delta_bits) == pytest.approx(bound.bound_nats)


def halving_deviators(n, *, delta_bits):
    """2^n originals by their digits, and copies; digit i decides step i and what is then seen."""
    tree = HistoryTree(n_actions=2, n_observations=2, horizon=n)
    models = list(product((0, 1), repeat=n))
    never = policy_table(tree, lambda _: sure(0))
    originals = [policy_table(tree, lambda h, b=b: sure(b[len(h) // 2])) for b in models]
    worlds = [environment_table(tree, lambda h, b=b: sure(b[len(h) // 2])) for b in models]
    prior = [ONE] * len(models) + [F(1, 2**delta_bits)] * len(models)
    policies = stack_tables([*originals, *[never] * len(models)])
    return never, *joint_predictor(prior, policies, stack_tables([*worlds, *worlds]))


@pytest.mark.parametrize(("n", "delta_bits"), [(1, 2), (2, 5), (3, 5)])
def test_observations_from_the_joint_predictor_itself_make_pi_pay_by_halves(n, delta_bits):
    pi, xi, xi_world = halving_deviators(n, delta_bits=delta_bits)
    eps = F(1, 2**delta_bits)
    stay = (1 + eps) / (1 + 2 * eps)
    step = LogSum.log((1 + eps) / (F(1, 2) + eps))
    kl = constraints.expected_kl_nats(pi, xi, xi_world)
    assert kl == step * sum(stay**i for i in range(n))
    assert float(kl) == pytest.approx(halving_deviators_nats(n=n, delta_bits=delta_bits))


def test_sixteen_halvings_cost_more_than_the_printed_bound():
    n, delta_bits = 16, 5
    digits = np.arange(2**n)[:, None] >> np.arange(n) & 1
    log_w = np.concatenate([np.zeros(2**n), np.full(2**n, -delta_bits * np.log(2))])
    log_w = normalised_log_weights(log_w)
    with np.errstate(divide="ignore"):
        log_zero_one = np.log(np.array([0.0, 1.0]))
    kl, reach = 0.0, 1.0
    for i in range(n):
        # Action 0: certain under copies and under originals whose digit is 0.
        follows = log_zero_one[np.concatenate([1 - digits[:, i], np.ones(2**n, dtype=int)])]
        kl -= reach * predictive_log_probs(log_w, follows[:, None])[0]
        log_w = update_log_weights(log_w, follows)
        seen_0 = log_zero_one[np.tile(1 - digits[:, i], 2)]
        # After observation 1 only copies are left, and pi pays nothing more.
        reach *= np.exp(predictive_log_probs(log_w, seen_0[:, None])[0])
        log_w = update_log_weights(log_w, seen_0)
    assert kl == pytest.approx(halving_deviators_nats(n=n, delta_bits=delta_bits), rel=1e-12)
    log_rho = float(-LogSum.log(1 + F(1, 2**delta_bits)))
    assert kl > Theorem1Bound(delta_bits=delta_bits, log_rho=log_rho).bound_as_printed_nats
