"""Arrays of a small audit, made up: three prompts, two scripts, a pattern, two answers each."""

import numpy as np

SCRIPTS = ("cheap", "dear", "impossible to write")
BUDGETS = (1.0, 4.0)
PRICES = np.array(
    [[[1.0, 0.5], [9.0, 8.0]], [[2.0, 0.25], [7.0, 9.0]], [[3.0, np.nan], [8.0, 7.0]]]
)
BRACKETS = np.array([[0.1, 0.2, 0.15], [0.5, 0.6, 0.55], [0.0, 0.4, 0.0]])
N_TOKENS, N_VOCABULARY = 5, 4
LENGTHS = (5, 2, 1, 3, 4, 5)


def found_arrays():
    rng = np.random.default_rng(7)
    shape = (len(LENGTHS), N_TOKENS)
    behind = np.arange(N_TOKENS) >= np.array(LENGTHS)[:, None]
    kl = np.where(behind, np.nan, rng.random(shape))
    three = rng.random((3, *shape))
    unwritten = np.full((3, 1, 2), np.nan)
    prices = np.concatenate([PRICES, unwritten], axis=1)
    policy = prices - np.array([1.0, -1.0, 0.0])[:, None]
    policy[2, 1] = prices[2, 1]
    return {
        "places": np.arange(3),
        "scripts_base_nats": prices,
        "scripts_policy_nats": policy,
        "patterns_base": BRACKETS[:, None],
        "patterns_policy": BRACKETS[:, None] / 2,
        "answers": np.where(behind, -1, rng.integers(N_VOCABULARY, size=shape)),
        "kl_nats": kl,
        "drawn_nats": np.where(behind, np.nan, three),
        "mean_nats": np.where(behind, np.nan, kl + np.array([0.0, 0.5, -0.25])[:, None, None]),
        "variance": np.where(behind, np.nan, np.array([1.0, 4.0, 0.25])[:, None, None]),
        "parts_nats": np.array([0.5, 3.0, -0.25, 1.0]),
        "policy_mass": np.array([6.0, 8.0, 4.0, 2.0]),
        "base_mass": np.array([5.0, 5.0, 5.0, 5.0]),
    }
