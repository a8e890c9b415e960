"""One position of a small Mixtral in machine code, for all episodes; see `base.mixtral_steps`.

With x the residual stream, of a layer: `x += O attention(RoPE(Q n), RoPE(K n), V n)` with n the
norm of x, and `x += sum of w_e D_e (silu(G_e n) * U_e n)` over the experts e that the router likes
most, its weights w_e normalised among them. All numbers are float32, as the model's own.

Every number of an episode is a function of that episode alone, summed in an order that depends on
the model and on the position: other episodes beside it change no bit.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias, cast

import numpy as np
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from theory.compiled import numeric, summing

Floats: TypeAlias = NDArray[np.float32]
Number: TypeAlias = np.float32
UNROLLED: Final = 4
"""Rows of a matrix that a loop adds at once; widths are multiples of it."""
BLOCK: Final = 64
"""Positions whose keys lie together."""


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


def warm_up() -> None:
    """Compile all of this, or load what is kept, so that other processes need only load it."""

    def ones(*shape: int) -> Floats:
        return np.ones(shape, np.float32)

    n, w = 1, UNROLLED
    weights = Weights(
        embedding=ones(n, w),
        attention_norm=ones(1, w),
        queries_keys_values=ones(1, w, 3 * w),
        attention_out=ones(1, w, w),
        experts_norm=ones(1, w),
        router=ones(1, w, 1),
        gates_and_ups=ones(1, 1, w, 2 * w),
        downs=ones(1, 1, w, w),
        last_norm=ones(w),
        head=ones(w, n),
        cosines=ones(1, w // 2),
        sines=ones(1, w // 2),
    )
    caches = Caches(ones(1, n, 1, 1, w, BLOCK), ones(1, n, 1, 1, w, BLOCK))
    hidden, logits = ones(2, n, w), ones(n, n)
    read_tokens(np.zeros(n, np.int64), 0, 1, Number(1), weights, caches, hidden, logits)
