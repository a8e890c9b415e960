"""The KL that whole sequences spend, token by token, for any two causal language models."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from llm_experiment.guard.model import IGNORED
from theory.divergences import kl_nats


@torch.no_grad()
def answers_kl_nats(
    model: PreTrainedModel,
    reference: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
) -> Tensor:
    """What each answer cost: the sum over its tokens of the KL of the next-token laws.

    Nothing is sampled here: at each step it is the KL of the whole laws, so that its mean over
    answers that `model` drew is an unbiased estimate of the KL of whole sequences.

    Args:
        model: which wrote the answers, with its law as softmax of its logits.
        reference: from which the KL is measured.
        prompts: n texts as token ids.
        answers: what was written after each, with the token that ended it.

    Returns:
        Shape (n,), float64.
    """
    device = model.device
    length = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    ids = torch.zeros(len(prompts), length, dtype=torch.int64)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        whole = torch.tensor([*prompt, *answer])
        ids[i, : len(whole)] = whole
        mask[i, : len(whole)] = 1
        labels[i, len(prompt) : len(whole)] = whole[len(prompt) :]
    ids, mask, labels = (tensor.to(device) for tensor in (ids, mask, labels))
    written = labels[:, 1:] != IGNORED
    laws = []
    for one in (model, reference):
        logits = one(input_ids=ids, attention_mask=mask, labels=labels).logits[:, :-1]
        laws.append(logits[written].double().log_softmax(dim=-1))
    costs = torch.zeros(written.shape, dtype=torch.float64, device=device)
    costs[written] = kl_nats(*laws)
    return costs.sum(dim=1)
