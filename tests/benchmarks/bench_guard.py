"""What a KL budget adds to `generate`: a step of the policy alone, with the reference, and guarded.

The promise is a ratio: at most the reference's forward plus 10%. Models are random, of the shape of
SmolLM2-135M, because neither weights nor words matter to the time.
"""

import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, LogitsProcessor

from llm_experiment.guard.generate import CachedReference, KLBudgetLogitsProcessor
from mightnt.progress import track

N_TOKENS = 49_152
N_STEPS = 8
PROMPT = 8
BATCHES = (1, 8)
REPETITIONS = 2
BUDGETS = {"spent": 0.1, "spent slowly": 3.0, "not spent": 1e6}


def model(seed: int) -> LlamaForCausalLM:
    """A random model of SmolLM2-135M's shape."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=N_TOKENS,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


class AsksOnly(LogitsProcessor):
    """Asks the reference, as a guard must, and does nothing with what it says."""

    def __init__(self, reference: LlamaForCausalLM) -> None:
        self._reference = CachedReference(reference, None)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._reference.next_logits(input_ids)
        return scores


def seconds(
    policy: LlamaForCausalLM, processor: Callable[[], LogitsProcessor | None], n: int
) -> float:
    """Processor time of `generate` for n texts, the best of several."""
    ids = torch.randint(N_TOKENS, (n, PROMPT), generator=torch.Generator().manual_seed(0))
    best = float("inf")
    for _ in range(REPETITIONS):
        made = processor()
        torch.manual_seed(0)
        start = time.process_time()
        policy.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            top_k=0,
            max_new_tokens=N_STEPS,
            min_new_tokens=None,
            eos_token_id=None,
            pad_token_id=0,
            logits_processor=[] if made is None else [made],
        )
        best = min(best, time.process_time() - start)
    return best


def main() -> None:
    """Print milliseconds a step and the guard's share of the reference's."""
    torch.set_num_threads(1)
    policy, reference = model(0), model(1)
    table = Table(title=f"a step of generate, ms of one core; {N_TOKENS} tokens, 135M weights")
    for header in ("texts", "budget", "policy", "and reference", "guarded", "guard / reference"):
        table.add_column(header, justify="right")
    for n in track(BATCHES, "guard"):
        alone = seconds(policy, lambda: None, n)
        both = seconds(policy, lambda: AsksOnly(reference), n)
        for name, nats in BUDGETS.items():
            guarded = seconds(
                policy, lambda nats=nats: KLBudgetLogitsProcessor(reference, budget_nats=nats), n
            )
            table.add_row(
                str(n), name, *(f"{1e3 * t / N_STEPS:.1f}" for t in (alone, both, guarded)),
                f"+{100 * (guarded - both) / (both - alone):.1f}%",
            )  # fmt: skip
    Console().print(table)
