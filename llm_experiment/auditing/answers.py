"""A policy's own answers, and their KL to the base model, exact at every token.

Answers are drawn from the policy at temperature 1, by inversion of uniform numbers, one a token:
the same numbers give the same answers whatever the batch (but for the last digits of floats). Along
each the KL of every step is computed over the whole vocabulary. The sum is not the KL of the two
laws of answers, but its mean over answers is (the chain rule), with less variance than that of the
log-ratio.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from llm_experiment.auditing.estimators import ESTIMATORS, StepDivergences, step_divergences
from llm_experiment.auditing.reading import padded, read_windows, write_on

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class MeasuredAnswers:
    """n answers of at most t tokens, and what each token cost; nan behind an answer's end.

    Attributes:
        tokens: shape (n, t); -1 behind an answer's end.
        kl_nats: of every step, exactly, shape (n, t).
        drawn_nats: the estimators (`ESTIMATORS`) at the drawn token, shape (3, n, t).
        mean_nats: their means given the step, shape (3, n, t).
        variance: their variances given the step, shape (3, n, t).
        parts_nats: see `StepDivergences`; summed over all steps, shape (n_tokens,), as are the
            next two.
        policy_mass: how often the policy says each token of the vocabulary, in expectation.
        base_mass: how often the base model would have, at the same steps.
    """

    tokens: NDArray[np.int64]
    kl_nats: Floats
    drawn_nats: Floats
    mean_nats: Floats
    variance: Floats
    parts_nats: Floats
    policy_mass: Floats
    base_mass: Floats


def draw_answers(
    policy: PreTrainedModel,
    contexts: Sequence[Sequence[int]],
    *,
    stops: Sequence[Sequence[int]],
    uniforms: Floats,
) -> list[list[int]]:
    """One answer to each of some prompts.

    Args:
        policy: who answers.
        contexts: tokens of the prompts.
        stops: for each prompt the tokens that end its answer, which hold them.
        uniforms: in [0, 1), shape (prompts, the longest answer in tokens).

    Raises:
        ModelError: a prediction that is no number.
    """
    answers: list[list[int]] = [[] for _ in contexts]
    limit = uniforms.shape[1]

    def choose(rows: Tensor, log_probs: Tensor) -> Tensor:
        cumulative = log_probs.exp().cumsum(dim=-1)
        numbers = [uniforms[row, len(answers[row])] for row in rows.tolist()]
        uniform = torch.tensor(numbers, dtype=torch.float64, device=cumulative.device)[:, None]
        drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)[:, 0].cpu()
        for place, (row, token) in enumerate(zip(rows.tolist(), drawn.tolist(), strict=True)):
            answers[row].append(token)
            if token in stops[row] or len(answers[row]) == limit:
                drawn[place] = -1
        return drawn

    write_on(policy, contexts, choose)
    return answers


def measure_answers(
    policy: PreTrainedModel,
    base: PreTrainedModel,
    contexts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    *,
    n_tokens: int,
) -> MeasuredAnswers:
    """What answers cost.

    Args:
        policy: who gave them.
        base: whom they are held against; of the same vocabulary.
        contexts: tokens of the prompts.
        answers: their tokens, at least one each.
        n_tokens: t, the longest answer that is possible.

    Raises:
        ModelError: a prediction that is no number.
    """
    rows = padded([[*c, *a] for c, a in zip(contexts, answers, strict=True)])
    starts = torch.tensor([len(context) for context in contexts])
    ends = starts + torch.tensor([len(answer) for answer in answers])
    n, t = len(rows), n_tokens
    found: list[StepDivergences] = []
    places: list[tuple[Tensor, Tensor]] = []
    both = zip(read_windows(policy, rows), read_windows(base, rows), strict=True)
    for (start, log_policy), (_, log_base) in both:
        position = torch.arange(start + 1, start + 1 + log_policy.shape[1])
        inside = (position >= starts[:, None]) & (position < ends[:, None])
        row, column = torch.nonzero(inside, as_tuple=True)
        if not len(row):
            continue
        where = (row.to(log_policy.device), column.to(log_policy.device))
        drawn = rows[row, position[column]].to(log_policy.device)
        step = step_divergences(log_policy[where], log_base.to(log_policy.device)[where], drawn)
        found.append(step)
        places.append((row, position[column] - starts[row]))
    answer = torch.cat([row for row, _ in places]).numpy()
    place = torch.cat([column for _, column in places]).numpy()

    def spread(parts: list[Tensor], *leading: int) -> Floats:
        table = np.full((*leading, n, t), np.nan)
        table[..., answer, place] = torch.cat(parts, dim=-1).cpu().numpy()
        return table

    def total(parts: list[Tensor]) -> Floats:
        summed: Floats = torch.stack(parts).sum(dim=0).cpu().numpy()
        return summed

    tokens = np.full((n, t), -1, dtype=np.int64)
    for number, said in enumerate(answers):
        tokens[number, : len(said)] = said
    k = len(ESTIMATORS)
    return MeasuredAnswers(
        tokens=tokens,
        kl_nats=spread([step.kl_nats for step in found]),
        drawn_nats=spread([step.drawn_nats for step in found], k),
        mean_nats=spread([step.mean_nats for step in found], k),
        variance=spread([step.variance for step in found], k),
        parts_nats=total([step.parts_nats for step in found]),
        policy_mass=total([step.policy_mass for step in found]),
        base_mass=total([step.base_mass for step in found]),
    )
