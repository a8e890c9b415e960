"""An actor that moves few tokens of many: all others keep the base policy's proportions.

Let S be the tokens that the actor gives numbers to. The proposal is `a(v) = b(v) e^(r_v) / Z` there
and `a(v) = b(v) / Z` elsewhere, so that the step policy x, a mixture of a and b, has the same ratio
x(v)/b(v) at all tokens outside S. These are as one symbol, the *rest*. With b_0 and x_0 the masses
of b and x outside S,

    KL(x||b) = sum over S of x(v) ln(x(v)/b(v)), plus x_0 ln(x_0/b_0),
    x(v)     = x_0 b(v)/b_0 outside S,
    H(x)     = H(x on S and the rest) + x_0 H(b given the rest),

exactly: where all ratios are equal data processing loses nothing. So laws of |S| + 1 numbers are
projected, and learnt from, in place of laws of the whole vocabulary.

A step to learn from is a row as `llm_experiment.chat.observation` packs it, with `lump` of the base
policy and the rest's entropy where the log-probabilities would be.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import torch
from torch import Tensor

from llm_experiment.agent.step_policy import LEAST_LOG, StepPolicy
from theory.errors import InvalidArgumentError

N_LUMPED: Final = 2
"""Numbers of a step to learn from beside those of S: the rest's mass and its entropy."""
AT_ONCE: Final = 2**23
"""Numbers of float64 that are worked on together: 64 MB."""


@dataclass(frozen=True, kw_only=True)
class LumpedStep(StepPolicy):
    """A step policy on S and the rest.

    Attributes:
        rest_entropy_nats: of the base policy given the rest, shape (n,).
    """

    rest_entropy_nats: Tensor

    def entropy_nats(self) -> Tensor:
        """Of the whole vocabulary's law, shape (n,)."""
        return super().entropy_nats() + self.log_probs[:, -1].exp() * self.rest_entropy_nats


class Learnable(NamedTuple):
    """Steps to learn from.

    Attributes:
        rows: shape (m, numbers).
        symbols: what was taken, int64, shape (m,).
        log_shares: log of the taken token's share of its symbol under the base policy, and so
            under the agent, float64, shape (m,); 0 if it is a symbol of its own.
    """

    rows: Tensor
    symbols: Tensor
    log_shares: Tensor


def check_acted(n_acted: int, always: Sequence[int]) -> None:
    """Raise if so few tokens leave out some that an agent needs.

    Raises:
        InvalidArgumentError: they do.
    """
    needed = len(set(always))
    if needed > n_acted:
        raise InvalidArgumentError(
            f"actor_tokens must be >= {needed}, as many as the agent needs to hand over its turn "
            f"and to show the behaviour, got {n_acted}; raise --actor-tokens, or leave it out"
        )


def choose_tokens(
    log_probs: Iterator[Tensor], n_acted: int, *, n_tokens: int, always: Sequence[int]
) -> Tensor:
    """The tokens that were likeliest over some steps, and `always`; int64, ascending.

    Args:
        log_probs: of the base policy, in nats, some steps at a time, shape (any, n_tokens).
        n_acted: how many tokens, fewer than `n_tokens`.
        n_tokens: size of the vocabulary.
        always: tokens to be among them.

    Raises:
        InvalidArgumentError: more of these than `n_acted`.
    """
    check_acted(n_acted, always)
    mass = torch.zeros(n_tokens, dtype=torch.float64)
    for part in log_probs:
        mass += part.double().softmax(dim=-1).sum(dim=0).cpu()
    mass[list(always)] = math.inf
    return mass.topk(n_acted).indices.sort().values


def parts(rows: Tensor, *, n_tokens: int) -> Iterator[Tensor]:
    """Rows, so many at a time that one number for each token of each is not too much."""
    return iter(torch.split(rows, max(1, AT_ONCE // n_tokens)))


def lump(log_probs: Tensor, acted: Tensor) -> Tensor:
    """A law on S and the rest, in nats, shape (n, |S| + 1).

    Args:
        log_probs: shape (n, n_tokens), -inf allowed.
        acted: S, int64, shape (|S|,).
    """
    rest = log_probs.index_fill(-1, acted, -math.inf).logsumexp(dim=-1, keepdim=True)
    return torch.cat([log_probs[:, acted], rest], dim=-1)


def spread(step: StepPolicy, log_b: Tensor, acted: Tensor) -> StepPolicy:
    """The law of the whole vocabulary that a step policy on S and the rest stands for.

    Args:
        step: on S and the rest.
        log_b: the base policy, normalised, float64, shape (n, n_tokens).
        acted: S.
    """
    possible = step.base_log_probs[:, -1:] > -math.inf
    ratio = (step.log_probs[:, -1:] - step.base_log_probs[:, -1:]).where(possible, 0.0)
    log_x = (log_b + ratio).index_copy(-1, acted, step.log_probs[:, :-1])
    return replace(step, log_probs=log_x, base_log_probs=log_b)


def learnable(rows: Tensor, log_probs: Tensor, acted: Tensor, tokens: Tensor) -> Learnable:
    """What learning needs of some steps.

    Args:
        rows: features and scalars of what was seen, shape (m, numbers).
        log_probs: of the base policy, shape (m, n_tokens).
        acted: S.
        tokens: that were taken, int64, shape (m,).
    """
    log_b = log_probs.double().log_softmax(dim=-1)
    masses = log_b.exp().index_fill_(-1, acted, 0.0)
    rest = masses.sum(dim=-1, keepdim=True)
    lumped = torch.cat([log_b[:, acted], rest.log()], dim=-1)
    # -sum (b/b_0) log(b/b_0), of which the products of 0 and -inf are 0.
    products = masses.mul_(log_b.clamp(min=LEAST_LOG)).sum(dim=-1, keepdim=True)
    entropy = (rest.log() - products / rest).where(rest > 0, 0.0)
    symbol_of = torch.full((log_b.shape[-1],), len(acted), device=acted.device)
    symbol_of[acted] = torch.arange(len(acted), device=acted.device)
    symbols = symbol_of[tokens]
    taken = log_b.gather(-1, tokens[:, None]).squeeze(-1)
    shares = (taken - lumped[:, -1]).where(symbols == len(acted), 0.0)
    return Learnable(torch.cat([rows, lumped.to(rows), entropy.to(rows)], dim=-1), symbols, shares)
