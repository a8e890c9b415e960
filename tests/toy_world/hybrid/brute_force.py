"""Values of policies by walking every path of a process, in plain Python."""

from itertools import product

import numpy as np

from toy_world.hybrid.mdp import FiniteMDP


def small_mdp(seed, *, n_states=2, n_actions=2, horizon=3):
    """A process of states that may all follow each other, with an uneven start."""
    rng = np.random.default_rng(seed)
    shape = (n_states, n_actions)
    return FiniteMDP(
        rewards=rng.random(shape),
        successors=np.broadcast_to(np.arange(n_states), (*shape, n_states)).copy(),
        probabilities=rng.dirichlet(np.ones(n_states), size=shape),
        initial=rng.dirichlet(np.ones(n_states)),
        horizon=horizon,
    )


def every_policy(mdp):
    """Each deterministic policy, shape (n, H, S)."""
    choices = product(range(mdp.n_actions), repeat=mdp.horizon * mdp.n_states)
    return np.array(list(choices)).reshape(-1, mdp.horizon, mdp.n_states)


def walked(mdp, policy, pay):
    """The mean over paths of the sum of `pay(h, s, a)`, by all successions of states."""
    total = 0.0
    for start, chance in enumerate(mdp.initial):
        for ks in product(range(mdp.n_successors), repeat=mdp.horizon):
            s, probability, paid = start, chance, 0.0
            for h, k in enumerate(ks):
                a = policy[h, s]
                paid += pay(h, s, a)
                probability *= mdp.probabilities[s, a, k]
                s = mdp.successors[s, a, k]
            total += probability * paid
    return total
