"""A small Llama and its tokenizer in one GGUF file, written by the package `gguf` itself."""

import json
from pathlib import Path

import gguf
import numpy as np
from gguf.quants import dequantize, quantize
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

QUANTISED = "blk.0.ffn_down.weight"
"""The one matrix that is stored in 8 bits."""
_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def write_gguf(path: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write a model; the matrix `QUANTISED` of `model` becomes what is read back of it."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, tokenizer)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        place = _place(name)
        values = weight.numpy()
        if place == QUANTISED:
            stored = quantize(values, gguf.GGMLQuantizationType.Q8_0)
            weight.copy_(weight.new_tensor(dequantize(stored, gguf.GGMLQuantizationType.Q8_0)))
            writer.add_tensor(place, stored, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
            continue
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
        for part, n_heads in heads.items():
            if f".{part}." in place:
                values = _interleaved(values, n_heads)
        writer.add_tensor(place, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _place(name: str) -> str:
    """What GGUF calls a weight of a Llama."""
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    _, _, layer, inner = name.split(".", maxsplit=3)
    return f"blk.{layer}.{_NAMES[inner.removesuffix('.weight')]}.weight"


def _interleaved(values: np.ndarray, n_heads: int) -> np.ndarray:
    """Rows of a query or key matrix as GGUF has them: both halves of each head interleaved."""
    halves = values.reshape(n_heads, 2, len(values) // n_heads // 2, -1)
    return halves.swapaxes(1, 2).reshape(values.shape)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerFast) -> None:
    rules = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(rules["vocab"], key=rules["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(tokens))
    writer.add_token_merges([" ".join(pair) for pair in rules["merges"]])
