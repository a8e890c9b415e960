"""The elementary parts of a position in machine code; whole positions: `test_mixtral_steps`."""

import numpy as np
import torch
from torch import nn

from llm_experiment.base.mixtral_kernel import (
    BLOCK,
    attend,
    choose,
    exponential,
    gate,
    read_tokens,
    warm_up,
)


def test_exponentials_are_right_to_two_roundings():
    x = np.linspace(-87, 0, 100_001).astype(np.float32)
    found = np.array([exponential(value) for value in x], dtype=np.float64)
    assert np.abs(found / np.exp(x.astype(np.float64)) - 1).max() < 2 * np.finfo(np.float32).eps
    assert exponential(np.float32(-1e9)) == exponential(np.float32(-87)) > 0


def test_gates_far_from_zero_do_not_overflow():
    gates = np.array([-1e4, -100.0, -1.0, 0.0, 1.0, 100.0, 1e4], np.float32)
    out = np.empty_like(gates)
    gate(np.concatenate([gates, np.full_like(gates, 2)]), out)
    expected = 2 * nn.functional.silu(torch.from_numpy(gates.astype(np.float64))).numpy()
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-30)


def test_of_experts_that_the_router_likes_alike_as_many_are_chosen_as_should_be():
    shares = np.empty(5, np.float32)
    choose(np.array([0.0, 1.0, 1.0, 1.0, -1e9], np.float32), 2, shares)
    assert shares.tolist() == [0.0, 0.5, 0.5, 0.0, 0.0]
    choose(np.array([0.0, -1e9], np.float32), 2, shares[:2])
    assert shares[0] == 1 > shares[1] > 0  # one that is hardly liked is chosen, too


def test_what_was_not_read_yet_is_not_attended_to():
    rng = np.random.default_rng(0)
    keys, values = rng.normal(size=(2, 2, 8, BLOCK)).astype(np.float32)
    query, out = rng.normal(size=8).astype(np.float32), np.empty(8, np.float32)
    by_position = [np.concatenate([*x], axis=-1).T.astype(float) for x in (keys, values)]
    for length in (1, 5, BLOCK, BLOCK + 1, 2 * BLOCK):
        attend(query, keys, values, length, out)
        k, v = (x[:length] for x in by_position)
        shares = np.exp(k @ query - (k @ query).max())
        np.testing.assert_allclose(out, shares @ v / shares.sum(), rtol=1e-5, atol=1e-6)


def test_warm_code_is_compiled_once():
    warm_up()
    before = len(read_tokens.signatures)
    warm_up()
    assert before == len(read_tokens.signatures) == 1
