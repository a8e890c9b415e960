import math

import numpy as np
import pytest
import torch

from llm_experiment.agent.fused import FusedFunction
from llm_experiment.agent.step_policy import step_policy
from llm_experiment.config import TargetRule


def arguments(n=5, d=37, device="cpu"):
    """Peaked bases with an impossible token, proposals from near to far, budgets from 0 up."""
    rng = np.random.default_rng(20241006)
    base = torch.from_numpy(3 * rng.normal(size=(n, d))).log_softmax(dim=-1).float()
    base[:, 3] = -math.inf
    residual = torch.from_numpy(rng.normal(size=(n, d)) * np.geomspace(1e-4, 3, n)[:, None])
    neuron = torch.from_numpy(rng.normal(size=n))
    budget = torch.linspace(0, 10, n)
    tensors = (base, residual.float(), neuron.float(), budget)
    return tuple(tensor.to(device) for tensor in tensors)


def act(decide, arguments):
    """The step policy's numbers as a rollout asks for them."""
    with torch.inference_mode():
        step = decide(*(x.clone() for x in arguments), rule=TargetRule.ATTAINABLE)
    return step.log_probs, step.kl_nats, step.target_nats


def learn(decide, arguments):
    """The step policy's numbers, and gradients of a loss of them all by what the actor says."""
    base, residual, neuron, budget = arguments
    residual, neuron = residual.clone().requires_grad_(), neuron.clone().requires_grad_()
    step = decide(base, residual, neuron, budget, rule=TargetRule.ATTAINABLE)
    loss = step.log_probs[:, 0].sum() + step.entropy_nats().sum() + step.kl_nats.sum()
    gradients = torch.autograd.grad(loss, (residual, neuron))
    return (step.log_probs, step.kl_nats, step.target_nats, *gradients)


@pytest.mark.slow
@pytest.mark.parametrize("use", [act, learn])
def test_fused_the_step_policy_is_the_same_to_rounding(monkeypatch, use):
    expected = use(step_policy, arguments())
    # The path of a GPU: torch's own operations, and every step that could be needed.
    monkeypatch.setattr("theory.projections.reading_waits", lambda array: True)
    found = use(FusedFunction(step_policy), arguments())
    for a, b in zip(found, expected, strict=True):
        finite = torch.isfinite(b)
        assert torch.equal(torch.isfinite(a), finite)
        tolerance = 1e-12 if b.dtype == torch.float64 else 1e-6
        torch.testing.assert_close(a[finite], b[finite], rtol=tolerance, atol=1e-13)


def test_what_cannot_be_compiled_is_called_as_it_is_after_a_warning():
    def reads(x):
        return x + 1 if x.sum().item() > 0 else x - 1

    fused = FusedFunction(reads)
    with pytest.warns(UserWarning, match="reads is not fused, which is slow"):
        assert fused(torch.ones(2)).tolist() == [2.0, 2.0]
    assert fused(-torch.ones(2)).tolist() == [-2.0, -2.0]


@pytest.mark.gpu
@pytest.mark.parametrize("use", [act, learn])
def test_on_a_gpu_the_step_policy_is_the_processor_s(use):
    expected = use(step_policy, arguments(d=3200))
    found = use(FusedFunction(step_policy), arguments(d=3200, device="cuda"))
    for a, b in zip(found, expected, strict=True):
        finite = torch.isfinite(b)
        tolerance = 1e-11 if b.dtype == torch.float64 else 1e-5
        torch.testing.assert_close(a.cpu()[finite], b[finite], rtol=tolerance, atol=1e-12)
