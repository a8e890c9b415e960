"""Positions of a small Mixtral in machine code, one token of every episode at a time.

A small model's forward is some hundred operations a position, each of a few microseconds of work
and as many of being called. Here a position is one call, whose loops go over the arrays' own
memory. It is for models of `MOST_PARAMETERS` in float32 on a processor, of transformers' own parts
throughout: of what anybody has put in their place nothing is known.

Every number of an episode is a function of that episode alone, summed in an order that depends on
the model and on the position: other episodes beside it change no bit.

With x the residual stream, of a layer: `x += O attention(RoPE(Q n), RoPE(K n), V n)` with n the
norm of x, and `x += sum of w_e D_e (silu(G_e n) * U_e n)` over the experts e that the router likes
most, its weights w_e normalised among them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, cast

import numpy as np
import torch
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import MixtralForCausalLM, PreTrainedModel
from transformers.activations import SiLUActivation
from transformers.models.mixtral import modeling_mixtral as parts

from llm_experiment.base.hugging_face import N_FEATURE_LAYERS, OutputHead
from llm_experiment.base.protocol import BaseStep
from theory.compiled import numeric, summing
from theory.errors import InvalidArgumentError, InvalidShapeError

Floats: TypeAlias = NDArray[np.float32]
Number: TypeAlias = np.float32
MOST_PARAMETERS: Final = 1_000_000
"""Of a model that is small. From some millions on a matrix product of the library's is faster."""
UNROLLED: Final = 4
"""Rows of a matrix that a loop adds at once; widths are multiples of it."""
BLOCK: Final = 64
"""Positions whose keys lie together."""
_OWN_PARTS: Final = {
    MixtralForCausalLM, parts.MixtralModel, parts.MixtralDecoderLayer, parts.MixtralAttention,
    parts.MixtralSparseMoeBlock, parts.MixtralTopKRouter, parts.MixtralExperts,
    parts.MixtralRMSNorm, parts.MixtralRotaryEmbedding, nn.Embedding, nn.Linear, nn.ModuleList,
    nn.SiLU, SiLUActivation,
}  # fmt: skip
ROUNDINGS: Final = 1000
"""How many roundings of the largest of them numbers may differ by that are summed otherwise;
another model's are off by far more."""


class Weights(NamedTuple):
    """A model's, matrices from inputs to outputs; l of L layers, e of E experts."""

    embedding: Floats  # (n_tokens, width)
    attention_norm: Floats  # (L, width)
    queries_keys_values: Floats  # (L, width, (heads + 2 key heads) head width)
    attention_out: Floats  # (L, heads head width, width)
    experts_norm: Floats  # (L, width)
    router: Floats  # (L, width, E)
    gates_and_ups: Floats  # (L, E, width, 2 inner width)
    downs: Floats  # (L, E, inner width, width)
    last_norm: Floats  # (width,)
    head: Floats  # (width, n_tokens)
    cosines: Floats  # (n_positions, head width / 2)
    sines: Floats  # the same


class Caches(NamedTuple):
    """Keys and values of n episodes, their positions in blocks.

    Both of shape (L, n, key heads, blocks, head width, BLOCK), 0 where nothing is read yet.
    """

    keys: Floats
    values: Floats


# ----------------------------------------------------------------------------------- elementary


def _with_bits(_context: Any, _word: Any) -> Any:
    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


with_bits = cast("Callable[[Any], Number]", intrinsic(_with_bits))
"""The float32 of these 32 bits."""

ZERO: Final = np.float32(0)
ONE: Final = np.float32(1)
LEAST_EXPONENT: Final = np.float32(-87)
LOG2_E: Final = np.float32(1 / np.log(2))
ROUNDER: Final = np.float32(1.5 * 2**23)
LN_2_HIGH: Final = np.float32(0.693359375)
"""ln 2 to 9 bits, so that its products with exponents are exact."""
LN_2_LOW: Final = np.float32(np.log(2) - 0.693359375)
EXP_SERIES: Final = tuple(np.float32(1 / k) for k in (5040, 720, 120, 24, 6, 2, 1, 1))


@numeric
def exponential(x: Number) -> Number:
    """e^x for x <= 0, of float32, right to about a rounding; e^-87 below that."""
    x = max(x, LEAST_EXPONENT)
    n = (x * LOG2_E + ROUNDER) - ROUNDER
    r = (x - n * LN_2_HIGH) - n * LN_2_LOW
    value = ZERO
    for coefficient in EXP_SERIES:
        value = value * r + coefficient
    return value * with_bits(np.int32((np.int32(n) + 127) << 23))


@summing
def normalise(x: Floats, weight: Floats, epsilon: Number, out: Floats) -> None:
    """Fill `out` with x over the root of its mean square, times the weight; all of one row."""
    squares = ZERO
    for i in range(x.size):
        squares += x[i] * x[i]
    scale = ONE / np.sqrt(squares / np.float32(x.size) + epsilon)
    for i in range(x.size):
        out[i] = weight[i] * (x[i] * scale)


@numeric
def multiply(x: Floats, matrix: Floats, out: Floats) -> None:
    """Fill `out` with the row x times the matrix."""
    for j in range(out.size):
        out[j] = ZERO
    for k in range(0, matrix.shape[0], UNROLLED):
        x0, x1, x2, x3 = x[k], x[k + 1], x[k + 2], x[k + 3]
        for j in range(matrix.shape[1]):
            out[j] += (
                x0 * matrix[k, j]
                + x1 * matrix[k + 1, j]
                + x2 * matrix[k + 2, j]
                + x3 * matrix[k + 3, j]
            )


@numeric
def rotate(x: Floats, cosines: Floats, sines: Floats) -> None:
    """Turn a head's numbers, those of its first half with those of its second."""
    half = cosines.size
    for i in range(half):
        first, second = x[i], x[half + i]
        x[i] = first * cosines[i] - second * sines[i]
        x[half + i] = second * cosines[i] + first * sines[i]


# ------------------------------------------------------------------------------------- the layers


@summing
def compare(query: Floats, keys: Floats, n_blocks: int, out: Floats) -> None:
    """Fill `out`, shape (n_blocks BLOCK,), with the products of a query and the keys."""
    for block in range(n_blocks):
        part = out[block * BLOCK : (block + 1) * BLOCK]
        for t in range(BLOCK):
            part[t] = ZERO
        for d in range(0, query.size, UNROLLED):
            q0, q1, q2, q3 = query[d], query[d + 1], query[d + 2], query[d + 3]
            k0, k1 = keys[block, d], keys[block, d + 1]
            k2, k3 = keys[block, d + 2], keys[block, d + 3]
            for t in range(BLOCK):
                part[t] += q0 * k0[t] + q1 * k1[t] + q2 * k2[t] + q3 * k3[t]


@summing
def soften(length: int, x: Floats) -> Number:
    """Replace the first `length` of x by `e^(x - max)`, whose sum is returned, the rest by 0."""
    top = x[0]
    for t in range(length):
        top = max(top, x[t])
    total = ZERO
    for t in range(length):
        x[t] = exponential(x[t] - top)
        total += x[t]
    for t in range(length, x.size):
        x[t] = ZERO
    return total


@summing
def attend(query: Floats, keys: Floats, values: Floats, length: int, out: Floats) -> None:
    """Fill `out` with the mean of the first `length` values, by what their keys are to a query.

    Args:
        query: scaled, shape (head width,).
        keys: shape (blocks, head width, BLOCK).
        values: the same.
        length: how many there are.
        out: shape (head width,).
    """
    n_blocks = (length + BLOCK - 1) // BLOCK
    shares = np.empty(n_blocks * BLOCK, np.float32)
    compare(query, keys, n_blocks, shares)
    total = soften(length, shares)
    for d in range(query.size):
        out[d] = ZERO
    for block in range(n_blocks):
        part = shares[block * BLOCK : (block + 1) * BLOCK]
        for d in range(query.size):
            value, mean = values[block, d], ZERO
            for t in range(BLOCK):
                mean += part[t] * value[t]
            out[d] += mean
    for d in range(query.size):
        out[d] /= total


@numeric
def choose(scores: Floats, n_chosen: int, shares: Floats) -> None:
    """Fill `shares` with softmax(scores), of the largest alone, normalised; 0 of the others."""
    top = scores.max()
    shares[:] = ZERO
    total = ZERO
    for _ in range(n_chosen):
        best = -1
        for e in range(scores.size):
            if shares[e] == ZERO and (best < 0 or scores[e] > scores[best]):
                best = e
        shares[best] = exponential(scores[best] - top)
        total += shares[best]
    for e in range(scores.size):
        shares[e] /= total


@numeric
def gate(gates_and_ups: Floats, out: Floats) -> None:
    """Fill `out` with `silu(gate) * up`."""
    n = out.size
    for i in range(n):
        g = gates_and_ups[i]
        small = exponential(-abs(g))
        out[i] = g * ((ONE if g >= ZERO else small) / (ONE + small)) * gates_and_ups[n + i]


@numeric
def add_attention(
    layer: int,
    position: int,
    epsilon: Number,
    weights: Weights,
    caches: Caches,
    before: Floats,
    after: Floats,
) -> None:
    """Fill `after` with the stream that a layer's attention leaves; writes to the caches.

    Args:
        layer: which.
        position: how many tokens were read before.
        epsilon: of the norms.
        weights: of the model.
        caches: filled up to `position`.
        before: the stream, shape (n, width).
        after: the same.
    """
    key_heads, head_width = caches.keys.shape[2], caches.keys.shape[4]
    heads = weights.attention_out.shape[1] // head_width
    scale = ONE / np.sqrt(np.float32(head_width))
    block, place = position // BLOCK, position % BLOCK
    row = np.empty(before.shape[1], np.float32)
    made = np.empty((heads + 2 * key_heads, head_width), np.float32)
    attended = np.empty((heads, head_width), np.float32)
    for i in range(before.shape[0]):
        normalise(before[i], weights.attention_norm[layer], epsilon, row)
        multiply(row, weights.queries_keys_values[layer], made.reshape(made.size))
        for h in range(heads + key_heads):
            rotate(made[h], weights.cosines[position], weights.sines[position])
        for h in range(key_heads):
            for d in range(head_width):
                caches.keys[layer, i, h, block, d, place] = made[heads + h, d]
                caches.values[layer, i, h, block, d, place] = made[heads + key_heads + h, d]
        for h in range(heads):
            for d in range(head_width):
                made[h, d] *= scale
            of = h // (heads // key_heads)
            keys, values = caches.keys[layer, i, of], caches.values[layer, i, of]
            attend(made[h], keys, values, position + 1, attended[h])
        multiply(attended.reshape(attended.size), weights.attention_out[layer], after[i])
        for k in range(row.size):
            after[i, k] += before[i, k]


@numeric
def add_experts(
    layer: int, n_chosen: int, epsilon: Number, weights: Weights, stream: Floats
) -> None:
    """Add to the stream, shape (n, width), what a layer's experts make of it."""
    n, width = stream.shape
    n_experts, inner_width = weights.downs.shape[1], weights.downs.shape[2]
    normed = np.empty((n, width), np.float32)
    shares = np.empty((n, n_experts), np.float32)
    scores = np.empty(n_experts, np.float32)
    both, inner = np.empty(2 * inner_width, np.float32), np.empty(inner_width, np.float32)
    row = np.empty(width, np.float32)
    for i in range(n):
        normalise(stream[i], weights.experts_norm[layer], epsilon, normed[i])
        multiply(normed[i], weights.router[layer], scores)
        choose(scores, n_chosen, shares[i])
    # Expert by expert, whose weights then stay near the processor.
    for e in range(n_experts):
        for i in range(n):
            if shares[i, e] > ZERO:
                multiply(normed[i], weights.gates_and_ups[layer, e], both)
                gate(both, inner)
                multiply(inner, weights.downs[layer, e], row)
                for k in range(width):
                    stream[i, k] += shares[i, e] * row[k]


@numeric
def read_tokens(
    tokens: NDArray[np.int64],
    position: int,
    n_chosen: int,
    epsilon: Number,
    weights: Weights,
    caches: Caches,
    hidden: Floats,
    logits: Floats,
) -> None:
    """One more token of every episode.

    Args:
        tokens: shape (n,).
        position: how many were read before.
        n_chosen: experts that read a token.
        epsilon: of the norms, float32.
        weights: of the model.
        caches: filled up to `position`; one more is written.
        hidden: for the embedding and what each layer leaves, the last one normalised; shape
            (L + 1, n, width).
        logits: shape (n, n_tokens).
    """
    n_layers = hidden.shape[0] - 1
    for i in range(tokens.size):
        for k in range(hidden.shape[2]):
            hidden[0, i, k] = weights.embedding[tokens[i], k]
    for layer in range(n_layers):
        before, after = hidden[layer], hidden[layer + 1]
        add_attention(layer, position, epsilon, weights, caches, before, after)
        add_experts(layer, n_chosen, epsilon, weights, after)
    for i in range(tokens.size):
        last = hidden[n_layers, i]
        normalise(last, weights.last_norm, epsilon, last)
        multiply(last, weights.head, logits[i])


# ------------------------------------------------------------------------------- for the caller


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
