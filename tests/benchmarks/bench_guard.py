"""What a KL budget adds to `generate`: the reference's forward, and the work on rows around it.

The promise is a ratio: at most the reference's forward plus 10%. Both parts of a step are timed
within the same call, step by step, because two calls of `generate` differ by more than the guard
costs. Models are random, of the shape of SmolLM2-135M, because neither weights nor words matter to
the time.
"""

import time
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM

from llm_experiment.guard.generate import KLBudgetLogitsProcessor
from mightnt.progress import track

N_TOKENS = 49_152
N_STEPS = 24
N_SKIPPED = 2
"""First steps left out: the prompt is longer than a step, and compiled code is loaded."""
PROMPT = 8
BATCHES = (1, 8)
BUDGETS = {"spent": (0.1, 1.0), "every step cut": (3.0, 0.02), "not spent": (1e6, 1.0)}
"""What a text may spend, and the share of the rest that a step may."""


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


class Timed:
    """A function of any arguments, and the processor seconds of each of its calls."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self.seconds: list[float] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        result = self._function(*args, **kwargs)
        self.seconds.append(time.process_time() - start)
        return result


def steps(
    policy: LlamaForCausalLM, reference: LlamaForCausalLM, n: int, nats: float, share: float
) -> np.ndarray:
    """Seconds of the policy's forward, the reference's, and the rest; (N_STEPS - N_SKIPPED, 3)."""
    ids = torch.randint(N_TOKENS, (n, PROMPT), generator=torch.Generator().manual_seed(0))
    asked, acted = Timed(reference.forward), Timed(policy.forward)
    guard = Timed(KLBudgetLogitsProcessor(reference, budget_nats=nats, step_share=share))
    reference.forward, policy.forward = asked, acted
    try:
        torch.manual_seed(0)
        policy.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            top_k=0,
            max_new_tokens=N_STEPS,
            eos_token_id=None,
            pad_token_id=0,
            logits_processor=[guard],
        )
    finally:
        del reference.forward, policy.forward
    seconds = np.array([acted.seconds, asked.seconds, guard.seconds]).T
    seconds[:, 2] -= seconds[:, 1]
    return seconds[N_SKIPPED:]


def main() -> None:
    """Print milliseconds a step, medians, and the guard's work as a share of the reference's."""
    torch.set_num_threads(1)
    policy, reference = model(0), model(1)
    table = Table(title=f"a step of generate, ms of one core; {N_TOKENS} tokens, 135M weights")
    for header in (
        "texts",
        "budget",
        "policy",
        "reference",
        "guard",
        "guard / reference (quartiles)",
    ):
        table.add_column(header, justify="right")
    for n in track(BATCHES, "guard"):
        for name, (nats, share) in BUDGETS.items():
            seconds = steps(policy, reference, n, nats, share)
            ratios = np.sort(seconds[:, 2] / seconds[:, 1])
            quarter = len(ratios) // 4
            table.add_row(
                str(n), name, *(f"{1e3 * median(part):.1f}" for part in seconds.T),
                f"{median(ratios):.1%} ({ratios[quarter]:.1%} to {ratios[-1 - quarter]:.1%})",
            )  # fmt: skip
    Console().print(table)
