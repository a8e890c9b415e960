"""A small language model that chats, and a policy that is a little different from it."""

import json

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from tests.llm_experiment.fakes.tiny_hf import SHAPE, byte_level_tokenizer

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPOKEN = "Hello there. Yes. No. How are you today? I am fine, thanks. user assistant system"
N_POSITIONS = 384


def chat_tokenizer(*, template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    tokenizer = byte_level_tokenizer(SPOKEN, vocab_size=300)
    tokenizer.add_special_tokens(
        {"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"]}
    )
    tokenizer.chat_template = template
    return tokenizer


def chat_model(n_tokens: int, *, seed: int = 0, **shape: int):
    config = LlamaConfig(
        **SHAPE | {"vocab_size": n_tokens, "max_position_embeddings": N_POSITIONS} | shape
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config).eval()


def nudged(model, *, seed: int = 1, scale: float = 0.05):
    """A copy with a little noise on every weight: what fine-tuning does, in one line."""
    copy = type(model)(model.config).eval().to(model.dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for ours, theirs in zip(copy.parameters(), model.parameters(), strict=True):
            ours.copy_(theirs + scale * torch.randn(theirs.shape, generator=generator).to(theirs))
    return copy


def save(folder, model, tokenizer):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_prompts(path, *lines):
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path


def chat(*contents: str, **more):
    """A line with a chat whose speakers alternate, the user first."""
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": c} for i, c in enumerate(contents)]
    return {"messages": messages, **more}
