"""Positions of a small Mixtral in machine code, one token of every episode at a time.

A small model's forward is some hundred operations a position, each of a few microseconds of work
and as many of being called. Here a position is one call, whose loops go over the arrays' own
memory (`llm_experiment.base.mixtral_kernel`). It is for models of `MOST_PARAMETERS` in float32 on
a processor, of transformers' own parts throughout: of what anybody has put in their place nothing
is known.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from transformers import MixtralForCausalLM, PreTrainedModel
from transformers.activations import SiLUActivation
from transformers.models.mixtral import modeling_mixtral as parts

from llm_experiment.base.hugging_face import N_FEATURE_LAYERS, OutputHead
from llm_experiment.base.mixtral_kernel import (
    BLOCK,
    UNROLLED,
    Caches,
    Floats,
    Weights,
    read_tokens,
)
from llm_experiment.base.protocol import BaseStep
from theory.errors import InvalidArgumentError, InvalidShapeError

MOST_PARAMETERS: Final = 1_000_000
"""Of a model that is small; others, whose weights fit no cache, are for the library's products."""
ROUNDINGS: Final = 1000
"""How many roundings of the largest of them numbers may differ by that are summed otherwise;
another model's are off by far more."""
_OWN_PARTS: Final = {
    MixtralForCausalLM, parts.MixtralModel, parts.MixtralDecoderLayer, parts.MixtralAttention,
    parts.MixtralSparseMoeBlock, parts.MixtralTopKRouter, parts.MixtralExperts,
    parts.MixtralRMSNorm, parts.MixtralRotaryEmbedding, nn.Embedding, nn.Linear, nn.ModuleList,
    nn.SiLU, SiLUActivation,
}  # fmt: skip


def is_supported(model: PreTrainedModel) -> bool:
    """Whether a model's positions can be read here."""
    if type(model) is not MixtralForCausalLM or not {*map(type, model.modules())} <= _OWN_PARTS:
        return False
    config: Any = model.config
    attention: Any = model.model.layers[0].self_attn
    widths = (config.hidden_size, config.intermediate_size, attention.head_dim)
    weights = list(model.parameters())
    return (
        all(weight.dtype is torch.float32 and weight.device.type == "cpu" for weight in weights)
        and sum(weight.numel() for weight in weights) <= MOST_PARAMETERS
        and all(width % UNROLLED == 0 for width in widths)
        and config.hidden_act == "silu"
        and config.sliding_window is None
        and config.rope_parameters["rope_type"] == "default"
    )


class MixtralSession:
    """Episodes that share a prompt, under a model that `is_supported`.

    Args:
        model: in evaluation mode.
        prompt_tokens: int64, shape (p,), p >= 1.
        layers: keys and values of the prompt, layer by layer, both of shape (1, key heads, p, head
            width); its last token is read again.
        n_episodes: how many.
        n_positions: tokens that an episode will have at most.
        head: what gives log-probabilities from features, if not the model itself.

    Attributes:
        step: the prediction after the prompt.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prompt_tokens: Tensor,
        layers: Sequence[tuple[Tensor, Tensor]],
        *,
        n_episodes: int,
        n_positions: int,
        head: OutputHead | None,
    ) -> None:
        config: Any = model.config
        self._n_chosen: int = config.num_experts_per_tok
        self._epsilon = np.float32(config.rms_norm_eps)
        self._n_positions = n_positions
        self._head = head
        self._weights = _weights(model, n_positions)
        keys, values = (
            np.stack([_in_blocks(pair[i], n_episodes, n_positions) for pair in layers])
            for i in range(2)
        )
        self._caches = Caches(keys, values)
        self._position = len(prompt_tokens) - 1
        self.step = self.append(prompt_tokens[-1].repeat(n_episodes))

    def append(self, tokens: Tensor, *, agent_wrote: Tensor | None = None) -> BaseStep:
        """The prediction after one more token of every episode; see `Session.append`.

        Raises:
            InvalidShapeError: not one token an episode.
            InvalidArgumentError: a token that is none, or more positions than there are.
        """
        del agent_wrote  # a language model learns from nobody
        read = np.require(tokens.numpy(), np.int64, "C")
        (n_layers, width), n = self._weights.attention_norm.shape, self._caches.keys.shape[1]
        n_tokens = len(self._weights.embedding)
        if read.shape != (n,):
            raise InvalidShapeError(f"tokens must have shape ({n},), got {read.shape}")
        if not 0 <= read.min() <= read.max() < n_tokens:
            raise InvalidArgumentError(
                f"tokens must lie in 0..{n_tokens - 1}, got {read.min()} to {read.max()}"
            )
        if self._position >= self._n_positions:
            raise InvalidArgumentError(
                f"the episodes are complete at {self._n_positions} tokens; begin new ones"
            )
        hidden = np.empty((n_layers + 1, n, width), np.float32)
        logits = np.empty((n, n_tokens), np.float32)
        read_tokens(
            read, self._position, self._n_chosen, self._epsilon, self._weights, self._caches,
            hidden, logits,
        )  # fmt: skip
        self._position += 1
        features = torch.from_numpy(np.concatenate(hidden[-N_FEATURE_LAYERS:], axis=-1))
        own = torch.from_numpy(logits).log_softmax(dim=-1)
        return BaseStep(
            log_probs=own if self._head is None else self._head(features),
            features=features,
            missing_mass=torch.zeros(n),
        )


def agree(first: BaseStep, second: BaseStep) -> bool:
    """Whether predictions for the first episode are equal but for the order of sums."""
    pairs = ((first.log_probs[0], second.log_probs[0]), (first.features[0], second.features[0]))
    rounding = ROUNDINGS * torch.finfo(torch.float32).eps
    return all(float((a - b).abs().max()) <= rounding * float(b.abs().max()) for a, b in pairs)


def _weights(model: PreTrainedModel, n_positions: int) -> Weights:
    inner: Any = model.model
    layers = inner.layers
    attentions = [layer.self_attn for layer in layers]
    angles = inner.rotary_emb(torch.zeros(1), torch.arange(n_positions)[None])
    cosines, sines = (angle[0, :, : angle.shape[-1] // 2] for angle in angles)
    queries_keys_values = [
        torch.cat([part.q_proj.weight, part.k_proj.weight, part.v_proj.weight]).T
        for part in attentions
    ]
    head: Any = model.lm_head
    return Weights(
        embedding=_array(inner.embed_tokens.weight),
        attention_norm=_stack(layer.input_layernorm.weight for layer in layers),
        queries_keys_values=_stack(queries_keys_values),
        attention_out=_stack(part.o_proj.weight.T for part in attentions),
        experts_norm=_stack(layer.post_attention_layernorm.weight for layer in layers),
        router=_stack(layer.mlp.gate.weight.T for layer in layers),
        gates_and_ups=_stack(layer.mlp.experts.gate_up_proj.mT for layer in layers),
        downs=_stack(layer.mlp.experts.down_proj.mT for layer in layers),
        last_norm=_array(inner.norm.weight),
        head=_array(head.weight.T),
        cosines=_array(cosines),
        sines=_array(sines),
    )


def _array(tensor: Tensor) -> Floats:
    """As one block of memory."""
    return np.ascontiguousarray(tensor.detach().numpy())


def _stack(tensors: Iterable[Tensor]) -> Floats:
    return _array(torch.stack(list(tensors)))


def _in_blocks(states: Tensor, n_episodes: int, n_positions: int) -> Floats:
    """Keys or values of a prompt as `Caches` has them, once for each episode, with room for more.

    Args:
        states: shape (1, heads, p, width).
        n_episodes: n.
        n_positions: rounded up to whole blocks; 0 where nothing is read.
    """
    _, heads, length, width = states.shape
    n_blocks = -(-n_positions // BLOCK)
    room = np.zeros((heads, n_blocks * BLOCK, width), np.float32)
    room[:, :length] = states[0].numpy()
    blocks = room.reshape(heads, n_blocks, BLOCK, width).swapaxes(-1, -2)
    return np.repeat(blocks[None], n_episodes, axis=0)
