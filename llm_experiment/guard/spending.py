"""The law within a budget: a policy tilted towards its reference, and what each step spends.

At step t the policy would play `a` and the reference `b`, and B nats remain of the sequence's
budget. With `e = KL(a||b)` the step may spend `m = share B`, and plays

    x ∝ a^lambda b^(1-lambda)  with  KL(x||b) = min(e, m),    B <- B - min(e, m)

(`theory.geometric_projection`): the policy itself, `lambda = 1`, while it can be paid for, and the
reference, `lambda = 0`, when nothing is left. Of all laws within m of b this one is the nearest to
a. So the KLs along every path sum to at most the budget, and by the chain rule that bounds the KL
of the sequence.

What a step spends is known before its law is. The budgets of a whole sequence are therefore a scan
over single numbers; only the steps that their budget cuts short have an equation to solve, each on
its own. With share 1 that is one step a sequence.

Derivatives are those of these formulas. The law of a step depends on the policy there and, where
its budget cuts it short, on what all steps before spent; both are followed. At the kink `e = m`
they are one-sided, and towards `m = 0` that of lambda with respect to m grows without bound (lambda
is of the order of the root of m).
"""

from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from theory.arrays import reading_waits
from theory.budget import Accounting, BudgetLedger, open_ledger
from theory.divergences import kl_nats
from theory.errors import InvalidDistributionError
from theory.projections import fixed_kl_mixture, geometric_projection

SAFETY: Final = 1.0 - 1e-12
"""A step cut short aims at this part of what it is charged, so that the charge covers the solver's
relative error."""
LEAST_NATS: Final = 1e-12
"""A step that may spend no more, and whose policy costs more, plays the reference: what is left of
a spent budget is rounding, and lambda of it has no useful derivative."""


def open_budget(budget_nats: float, n_sequences: int, *, device: torch.device) -> BudgetLedger:
    """An exact ledger of `n_sequences` with the same budget."""
    budget = torch.full((n_sequences,), budget_nats, dtype=torch.float64, device=device)
    return open_ledger(budget, accounting=Accounting.EXACT, unchecked=True)


def check_logits(logits: Tensor, *, where: Tensor | None = None) -> None:
    """Raise if a row of logits, or of log-probabilities, is no distribution's.

    Args:
        logits: shape (..., n_tokens).
        where: the rows to look at, bool, shape (...); all if None.

    Raises:
        InvalidDistributionError: one has a NaN, is infinite, or has nothing above -inf.
    """
    good = torch.isfinite(logits.amax(dim=-1))
    if not bool((good if where is None else good | ~where).all()):
        raise InvalidDistributionError(
            "logits of the policy or of the reference are NaN, infinite, or -inf throughout; look "
            "for an overflow, such as of weights in float16, and load the models in bfloat16 or "
            "float32"
        )


def policy_kl_nats(log_a: Tensor, log_b: Tensor) -> Tensor:
    """`e = KL(a||b)` of every row, float64, differentiable.

    Args:
        log_a: the policy's log-probabilities, float64, shape (..., n_tokens).
        log_b: the reference's.

    Raises:
        InvalidDistributionError: as for `check_logits`.
    """
    check_logits(log_a)
    check_logits(log_b)
    if reading_waits(log_b):
        by_operations: Tensor = kl_nats(log_a, log_b, unchecked=True)
        return by_operations
    # Machine code goes through a row three times, where operations on arrays do thirty times.
    kl: Tensor = fixed_kl_mixture(log_a, log_b, float("inf"), unchecked=True).kl_nats
    impossible = torch.isneginf(log_b)
    if not bool(impossible.any()):
        return kl
    return kl.where(~(impossible & (log_a > -torch.inf)).any(dim=-1), torch.inf)


def scan_budgets(
    kl: Tensor,
    charged: Tensor,
    ledger: BudgetLedger,
    *,
    step_share: float,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor, BudgetLedger]:
    """What each step of n sequences may spend, given what the policy would.

    Args:
        kl: e of every step, float64, shape (n, t).
        charged: which steps are paid for, bool, shape (n, t); the others are free.
        ledger: what remains before the first step, shape (n,).
        step_share: what part of the rest one step may spend, in (0, 1].
        starts: where the budget starts anew, bool, shape (n, t), as between packed texts.

    Returns:
        m of every step, infinite where it is free; what each spends, 0 where it is free; both of
        shape (n, t); and the ledger after the last step.

    Raises:
        InvalidBudgetError: the ledger was overspent.
    """
    fresh = replace(
        ledger,
        remaining_nats=ledger.initial_nats,
        spent_nats=torch.zeros_like(ledger.spent_nats),
        rounding_nats=torch.zeros_like(ledger.rounding_nats),
    )
    allowed, spent = [], []
    for t in range(kl.shape[1]):
        if starts is not None:
            ledger = _restarted(ledger, fresh, starts[:, t])
        allowance = step_share * ledger.remaining_nats
        spends = torch.minimum(kl[:, t], allowance).where(charged[:, t], 0.0)
        ledger = ledger.charge(kl_nats=spends, unchecked=True)
        allowed.append(allowance)
        spent.append(spends)
    ledger.check_spending()
    if not allowed:
        return kl, kl, ledger
    allowances = torch.stack(allowed, dim=1).where(charged, float("inf"))
    return allowances, torch.stack(spent, dim=1), ledger


def policy_weights(log_a: Tensor, log_b: Tensor, kl: Tensor, allowance_nats: Tensor) -> Tensor:
    """The weight lambda of every row, float64, shape (m,), differentiable.

    Args:
        log_a: the policy's log-probabilities, float64, shape (m, n_tokens).
        log_b: the reference's.
        kl: e of every row, shape (m,).
        allowance_nats: what each may spend, shape (m,).
    """
    cut = (kl > allowance_nats) & (allowance_nats > LEAST_NATS)
    ends = (kl <= allowance_nats).to(log_a.dtype)
    rows = cut.nonzero().squeeze(-1)
    if not len(rows):
        return ends
    found = geometric_projection(
        log_a[rows], log_b[rows], SAFETY * allowance_nats[rows], unchecked=True
    )
    return ends.index_put((rows,), found.weight)


def tilted(log_a: Tensor, log_b: Tensor, weight: Tensor) -> Tensor:
    """`log x` of `x ∝ a^lambda b^(1-lambda)`, shape (..., n_tokens), from lambda of shape (...).

    Where lambda is 0 or 1 it is an end itself, whatever the other one rules out.
    """
    share = weight[..., None]
    inside = (share > 0) & (share < 1)
    mixed = share * log_a.where(inside, 0.0) + (1 - share) * log_b.where(inside, 0.0)
    return torch.where(inside, mixed, torch.where(share > 0, log_a, log_b)).log_softmax(dim=-1)


def _restarted(ledger: BudgetLedger, fresh: BudgetLedger, where: Tensor) -> BudgetLedger:
    """`fresh` in the sequences that start, `ledger` in the others."""
    return replace(
        ledger,
        remaining_nats=fresh.remaining_nats.where(where, ledger.remaining_nats),
        spent_nats=fresh.spent_nats.where(where, ledger.spent_nats),
        rounding_nats=fresh.rounding_nats.where(where, ledger.rounding_nats),
    )
