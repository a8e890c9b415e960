"""A policy's answers are its own, and their KL is the one of the laws of answers."""

import itertools
import math

import numpy as np
import pytest
import torch

from llm_experiment.auditing import reading
from llm_experiment.auditing.answers import draw_answers, measure_answers
from tests.llm_experiment.auditing.small_models import nudged
from tests.llm_experiment.fakes.tiny_hf import tiny_model

N_TOKENS = 4
STOP = 3
LENGTH = 3
CONTEXTS = [[0, 1], [2, 2, 0, 1], [1]]


@pytest.fixture(scope="module")
def models():
    base = tiny_model("llama, tied", n_tokens=N_TOKENS).eval().double()
    return nudged(base, scale=0.3), base


def every_answer():
    """All answers of at most `LENGTH` tokens."""
    for length in range(1, LENGTH + 1):
        for tokens in itertools.product(range(N_TOKENS), repeat=length):
            ended = tokens[-1] == STOP or length == LENGTH
            if ended and STOP not in tokens[:-1]:
                yield list(tokens)


def log_law(model, context, answer):
    with torch.no_grad():
        row = torch.tensor([[*context, *answer]])
        log_probs = model(input_ids=row).logits[0].double().log_softmax(dim=-1)
    start = len(context) - 1
    return math.fsum(float(log_probs[start + i, token]) for i, token in enumerate(answer))


def test_the_kl_of_whole_answers_is_the_mean_of_the_sums_and_so_are_k1_and_k3(models):
    policy, base = models
    for context in CONTEXTS:
        answers = list(every_answer())
        log_pi, log_b = (
            np.array([log_law(model, context, answer) for answer in answers]) for model in models
        )
        pi = np.exp(log_pi)
        assert pi.sum() == pytest.approx(1, abs=1e-12)
        whole = float((pi * (log_pi - log_b)).sum())
        found = measure_answers(policy, base, [context] * len(answers), answers, n_tokens=LENGTH)
        assert whole > 0.01
        assert (pi * np.nansum(found.kl_nats, axis=1)).sum() == pytest.approx(whole, rel=1e-9)
        drawn = np.nansum(found.drawn_nats, axis=2)
        np.testing.assert_allclose(drawn[0], log_pi - log_b, atol=1e-10)
        assert drawn[2] @ pi == pytest.approx(whole, rel=1e-9)
        # What is said of the estimators given the step is what they are over the answers.
        for k in range(3):
            mean = (pi * np.nansum(found.mean_nats[k], axis=1)).sum()
            assert drawn[k] @ pi == pytest.approx(mean, rel=1e-9)
        error = np.nansum(found.drawn_nats[0] - found.kl_nats, axis=1)
        variance = (pi * np.nansum(found.variance[0], axis=1)).sum()
        assert pi @ error**2 == pytest.approx(variance, rel=1e-9)


def test_answers_are_drawn_with_the_policys_probabilities(models):
    policy, _ = models
    n = 4000
    uniforms = np.random.default_rng(0).random((n, LENGTH))
    drawn = draw_answers(policy, [CONTEXTS[0]] * n, stops=[[STOP]] * n, uniforms=uniforms)
    for answer in every_answer():
        p = math.exp(log_law(policy, CONTEXTS[0], answer))
        share = sum(each == answer for each in drawn) / n
        assert abs(share - p) < 4.5 * math.sqrt(p * (1 - p) / n) + 1e-3


@pytest.mark.parametrize("width", [1, 2, 1000])
def test_neither_the_batch_nor_the_windows_change_an_answer(models, width, monkeypatch):
    policy, base = models
    uniforms = np.random.default_rng(1).random((len(CONTEXTS), LENGTH))
    stops = [[STOP]] * len(CONTEXTS)
    together = draw_answers(policy, CONTEXTS, stops=stops, uniforms=uniforms)
    monkeypatch.setattr(reading, "LARGEST", width * len(CONTEXTS) * N_TOKENS)
    found = measure_answers(policy, base, CONTEXTS, together, n_tokens=LENGTH)
    for i, context in enumerate(CONTEXTS):
        row = slice(i, i + 1)
        (alone,) = draw_answers(policy, [context], stops=[[STOP]], uniforms=uniforms[row])
        assert alone == together[i]
        single = measure_answers(policy, base, [context], [alone], n_tokens=LENGTH)
        np.testing.assert_allclose(single.kl_nats[0], found.kl_nats[i], rtol=1e-9)
        assert found.tokens[i].tolist() == alone + [-1] * (LENGTH - len(alone))
        assert np.isnan(found.kl_nats[i, len(alone) :]).all()


def test_a_policy_that_is_the_base_model_costs_nothing(models):
    _, base = models
    found = measure_answers(base, base, CONTEXTS, [[0, 1], [3], [2, 2, 2]], n_tokens=LENGTH)
    assert np.nansum(np.abs(found.kl_nats)) == 0
    np.testing.assert_array_equal(found.policy_mass, found.base_mass)
    assert found.policy_mass.sum() == pytest.approx(6)
