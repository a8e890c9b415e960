"""Policies near a reference, and what sequences under a budget cost, worked out anew."""

import copy

import numpy as np
import torch

from tests.llm_experiment.fakes.tiny_hf import tiny_model

N = 6
"""Tokens of the small vocabularies here."""


def pair(family="qwen2", *, distance=0.3, seed=1, n_tokens=N):
    """A policy and its reference in float64: the policy's weights are the reference's, shaken."""
    reference = tiny_model(family, seed=seed, n_tokens=n_tokens).eval().double()
    policy = copy.deepcopy(reference)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in policy.parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            weight.add_(distance * weight.std() * noise)
    return policy, reference


def law_by_bisection(log_a, log_b, allowance):
    """`x ∝ a^w b^(1-w)` with `KL(x||b) = min(KL(a||b), allowance)`, and w; rows of NumPy arrays."""

    def at(w):
        logits = w * log_a + (1 - w) * log_b
        return logits - np.logaddexp.reduce(logits)

    def kl(log_x):
        return float(np.sum(np.exp(log_x) * (log_x - log_b)))

    if kl(at(1.0)) <= allowance:
        return at(1.0), 1.0
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if kl(at(middle)) <= allowance else (low, middle)
    return at(low), low


def laws_by_hand(log_a, log_b, *, budget, share=1.0, free=0):
    """The laws of the steps of one sequence and what they cost; the first `free` cost nothing."""
    laws, costs = [], []
    for t, (a, b) in enumerate(zip(log_a, log_b, strict=True)):
        law, _ = law_by_bisection(a, b, np.inf if t < free else share * budget)
        cost = 0.0 if t < free else float(np.sum(np.exp(law) * (law - b)))
        budget -= cost
        laws.append(law)
        costs.append(cost)
    return np.array(laws), np.array(costs)


@torch.no_grad()
def log_probs(model, ids, mask=None):
    """A model's own log-probabilities at every position, as NumPy arrays."""
    positions = None if mask is None else (mask.cumsum(dim=-1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
    return logits.double().log_softmax(dim=-1).numpy()


def tokens(*shape, seed=0, n_tokens=N):
    return torch.randint(n_tokens, shape, generator=torch.Generator().manual_seed(seed))
