"""Tiny random language models and tokenizers of several families, from a seed, in memory."""

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

N_TOKENS = 40
WINDOW = 5
MAX_POSITIONS = 48

SHAPE = {
    "vocab_size": N_TOKENS,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": MAX_POSITIONS,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
    # Large weights, so that predictions differ much from token to token.
    "initializer_range": 0.5,
}
_GPT2_SHAPE = {
    "vocab_size": N_TOKENS,
    "n_embd": 16,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": MAX_POSITIONS,
    "bos_token_id": None,
    "eos_token_id": None,
    "initializer_range": 0.5,
}

FAMILIES: dict[str, PreTrainedConfig] = {
    "mixtral": MixtralConfig(**SHAPE, num_local_experts=4, num_experts_per_tok=2),
    "llama, tied": LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "mistral, sliding": MistralConfig(**SHAPE, sliding_window=WINDOW),
    "gemma2, alternating": Gemma2Config(
        **SHAPE, sliding_window=WINDOW, attn_implementation="eager", query_pre_attn_scalar=4
    ),
    "qwen2": Qwen2Config(**{k: v for k, v in SHAPE.items() if k != "head_dim"}),
    "gpt2, with dropout": GPT2Config(**_GPT2_SHAPE, resid_pdrop=0.5, embd_pdrop=0.5),
    "pythia": GPTNeoXConfig(**{k: v for k, v in SHAPE.items() if "_key_" not in k}),
}


# Not among the families that can be base policies.
RECURRENT = MambaConfig(vocab_size=N_TOKENS, hidden_size=8, num_hidden_layers=1, state_size=2)


def tiny_model(family: str, *, seed: int = 0, n_tokens: int = N_TOKENS) -> PreTrainedModel:
    """A random model of a family, in training mode as it comes."""
    with _seeded(seed):
        config = copy.deepcopy(FAMILIES[family])
        config.vocab_size = n_tokens
        # Grouped matrix products, the default, know no float64.
        model = AutoModelForCausalLM.from_config(config, experts_implementation="eager")
        return model.train()


def save_tiny_model(folder: Path, *, family: str = "mixtral", seed: int = 0) -> Path:
    """A random model of a family, saved."""
    tiny_model(family, seed=seed).save_pretrained(folder)
    return folder


def byte_level_tokenizer(text: str, *, vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-pair encoding on bytes, as GPT-2, Llama 3 and Qwen have it, trained on `text`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def sentencepiece_tokenizer(text: str, *, vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-pair encoding with `▁` for blanks and bytes for the rest, as Llama 2 and Mistral."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    # Line breaks are left to the bytes, as they are there.
    tokenizer.train_from_iterator(text.splitlines(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Models initialise themselves from torch's global generator: seed it, and put it back."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
