"""A step of the agent: a proposal near the base policy, projected onto what the budget allows.

At a step an agent has `B` nats left; the base policy is `b`. Its actor
(`llm_experiment.agent.actor`) gives a residual `r` of one number a token, and a number `h`, the
*budget neuron*. The *proposal* is
`a = softmax(log b + r)`. With `s = sigmoid(h - log 16)` the step aims at

    k = s min(B, KL(a||b))        (`TargetRule.ATTAINABLE`)
    k = s B + 1e-6                (`TargetRule.PUBLISHED`)

and the *step policy* is the mixture `x = alpha a + (1 - alpha) b` with `KL(x||b) = k`, or `a`
itself where `KL(a||b) <= k` (`theory.projections`). An agent without a budget plays `a`.

Where the proposal equals the base policy, as it does everywhere at the start, every derivative of
`k` vanishes and with it, read literally, that of `x`. But `alpha` tends to `sqrt(s)` there and `x`
to the smooth `b + sqrt(s) (a - b)`, whose gradient is the one that training starts with.
"""

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from llm_experiment.agent.fused import FusedFunction
from llm_experiment.chat.lockstep import sample_tokens
from llm_experiment.config import TargetRule
from theory.divergences import kl_nats
from theory.projections import fixed_kl_mixture

PUBLISHED_FLOOR_NATS: Final = 1e-6
"""The published target's floor."""
LOG_INITIAL_DIVISOR: Final = math.log(16.0)
"""A new agent's step aims at 1/17 of what it may spend."""
SHARE_BOUNDS: Final = (1e-300, 1.0 - 1e-12)
"""What s is kept within: so that its square root has a derivative, and that an exact budget also
covers the rounding of what is spent."""
LEAST_LOG: Final = -1000.0
"""e to it is 0 in float64."""


@dataclass(frozen=True, kw_only=True)
class StepPolicy:
    """What the agent does next in n episodes; float64, differentiable.

    Attributes:
        log_probs: log x, shape (n, n_tokens).
        base_log_probs: log b, shape (n, n_tokens).
        kl_nats: KL(x||b), shape (n,).
        target_nats: the k that was aimed at, shape (n,); infinite without a budget.
    """

    log_probs: Tensor
    base_log_probs: Tensor
    kl_nats: Tensor
    target_nats: Tensor

    def sample(self, *, generator: torch.Generator | None) -> Tensor:
        """A token for each episode, int64, shape (n,); see `lockstep.sample_tokens`.

        Args:
            generator: the randomness, on the tensors' device; torch's own one if None.
        """
        return sample_tokens(self.log_probs, generator=generator)

    def log_prob(self, tokens: Tensor) -> Tensor:
        """`log x` of `tokens`, shape (n,)."""
        return self.log_probs.gather(-1, tokens[..., None]).squeeze(-1)

    def log_ratio_nats(self, tokens: Tensor) -> Tensor:
        """`log x - log b` of `tokens`, shape (n,)."""
        return self.log_prob(tokens) - self.base_log_probs.gather(-1, tokens[..., None]).squeeze(-1)

    def entropy_nats(self) -> Tensor:
        """-sum x log x, shape (n,)."""
        # Where log x is lower x is 0, and 0 (-inf) would be NaN.
        return -(self.log_probs.exp() * self.log_probs.clamp(min=LEAST_LOG)).sum(dim=-1)


def step_policy(
    base_log_probs: Tensor,
    residual: Tensor,
    budget_neuron: Tensor,
    budget_nats: Tensor,
    *,
    rule: TargetRule | None,
) -> StepPolicy:
    """The policy of a step; see the module's docstring.

    Args:
        base_log_probs: log b, any float, -inf allowed, normalised here; shape (n, n_tokens).
        residual: r, finite, shape (n, n_tokens).
        budget_neuron: h, finite, shape (n,).
        budget_nats: what the step may spend at most, >= 0, shape (n,).
        rule: how the target is set; None for an agent without a budget, which plays `a`.

    Returns:
        The step policy. With `TargetRule.ATTAINABLE` its KL never exceeds `budget_nats` (1 +
        1e-12); with the published rule it may, by the published floor of 1e-6 nats.
    """
    log_b = base_log_probs.double().log_softmax(dim=-1)
    log_a = log_b + residual.double()
    if rule is None:
        log_a = log_a.log_softmax(dim=-1)
        kl = kl_nats(log_a, log_b, unchecked=True)
        unlimited = torch.full_like(kl, math.inf)
        return StepPolicy(log_probs=log_a, base_log_probs=log_b, kl_nats=kl, target_nats=unlimited)
    share = torch.sigmoid(budget_neuron.double() - LOG_INITIAL_DIVISOR).clamp(*SHARE_BOUNDS)
    budget = budget_nats.double()
    if rule is TargetRule.PUBLISHED:
        target = share * budget + PUBLISHED_FLOOR_NATS
        x = fixed_kl_mixture(log_a, log_b, target, unchecked=True)
    else:
        x = fixed_kl_mixture(log_a, log_b, budget, share=share, unchecked=True)
        target = x.target_nats
    return StepPolicy(
        log_probs=x.log_x, base_log_probs=log_b, kl_nats=x.kl_nats, target_nats=target
    )


fused_step_policy: Final = FusedFunction(step_policy)
"""The same in few passes over the vocabulary."""
