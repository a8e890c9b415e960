r"""The KL of one step exactly, and the estimators of it that people log, with bias and variance.

With pi the policy, b the base policy and x drawn from pi, `r = log pi(x) - log b(x)`, and

    k1 = r,    k2 = r^2 / 2,    k3 = e^-r - 1 + r.

k1 and k3 have the mean `KL(pi||b)`, k3 where pi reaches all that b does; k2 has another. Mean and
variance of each, given the step, are sums over the vocabulary and are computed as such: nothing of
them is estimated. Summed over an answer's steps, the KLs have the mean `KL` of whole answers (the
chain rule), and so have k1 and k3.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from theory.divergences import kl_nats

ESTIMATORS: Final = ("k1", "k2", "k3")
"""By the names under which they are logged."""


@dataclass(frozen=True, kw_only=True)
class StepDivergences:
    """What m steps say of the KL; everything in nats (variances squared), float64.

    Attributes:
        kl_nats: exactly, shape (m,).
        drawn_nats: the estimators at the token that was drawn, shape (3, m).
        mean_nats: of the estimators over all tokens, shape (3, m).
        variance: the same.
        parts_nats: `sum of p log(p/b)` over the steps for each token of the vocabulary, shape
            (n_tokens,); they add up to the sum of the KLs.
        policy_mass: sum of p over the steps, shape (n_tokens,).
        base_mass: sum of b.
    """

    kl_nats: Tensor
    drawn_nats: Tensor
    mean_nats: Tensor
    variance: Tensor
    parts_nats: Tensor
    policy_mass: Tensor
    base_mass: Tensor


def step_divergences(log_policy: Tensor, log_base: Tensor, drawn: Tensor) -> StepDivergences:
    """What steps say of the KL.

    Args:
        log_policy: log pi, in nats, float64, shape (m, n_tokens).
        log_base: log b, the same.
        drawn: the token that pi drew, int64, shape (m,).
    """
    p, base = log_policy.exp(), log_base.exp()
    there = log_policy > -torch.inf
    ratio = torch.where(there, log_policy, 0.0) - torch.where(there, log_base, 0.0)
    each = torch.stack([ratio, ratio.square() / 2, torch.expm1(-ratio) + ratio])
    weights = torch.where(there, p, 0.0)
    mean = (weights * each).nan_to_num(nan=0.0, posinf=torch.inf).sum(dim=-1)
    away = (each - mean[..., None]).square()
    variance = torch.where(weights > 0, weights * away, 0.0).sum(dim=-1)
    parts = torch.where(there, p * ratio, 0.0)
    return StepDivergences(
        kl_nats=kl_nats(log_policy, log_base, unchecked=True),
        drawn_nats=each.gather(-1, drawn[None, :, None].expand(len(each), -1, 1))[..., 0],
        mean_nats=mean,
        variance=variance,
        parts_nats=parts.sum(dim=0),
        policy_mass=p.sum(dim=0),
        base_mass=base.sum(dim=0),
    )
