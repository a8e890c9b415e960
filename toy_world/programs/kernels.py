"""Compiled loops over bitsets: latches, fingerprints, likelihoods.

A *policy* is given by its rows: for each positive probability v that it takes, the set of
columns where it takes v (columns in no row have probability 0). Everything that composition
needs is additive over disjoint sets of columns, so that the parts `E` and `not E` of a
`switch(E, pi, p)` can be looked up apart and added:

- log-likelihood, `sum_v ln v * |row_v|`;
- the *fingerprint*, `F_j = sum_v x_j(v) sum_w K_j(w) row_v(w)` modulo 2^64 for three j, over
  32-bit half-words w with random 32-bit keys K_j and pseudo-random 64-bit multipliers x_j. Two
  different policies have equal F_j with probability below 2^-27 each (the difference of two
  half-words, times x, is divisible by 2^(32+i) with probability below 2^(1-i), and then fits at
  most 2^i of the 2^32 keys; sum over i). With three, a false merger among a million different
  behaviours has probability below 2^-42.
"""

from math import log
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from toy_world.compiled import compiled, count_ones

N_KEYS: Final = 3
Words: TypeAlias = NDArray[np.uint64]
Fingerprints: TypeAlias = NDArray[np.uint64]
"""Shape (..., N_KEYS)."""

_LOW: Final = np.uint64(0xFFFFFFFF)
_HALF: Final = np.uint64(32)
_ONE: Final = np.uint64(1)
_ALL: Final = np.uint64(0xFFFFFFFFFFFFFFFF)
_UNIT: Final = 2.0**52
_SEED_0: Final = np.uint64(0x9E3779B97F4A7C15)
_SEED_1: Final = np.uint64(0xD1B54A32D192ED03)
_SEED_2: Final = np.uint64(0x8CB92BA72F3D8DD7)


def hash_keys(n_words: int) -> NDArray[np.uint32]:
    """`K_j(w)`, shape (n_words, 2, N_KEYS): drawn once and for all, the same in every process."""
    return np.random.default_rng(20241006).integers(
        0, 2**32, size=(n_words, 2, N_KEYS), dtype=np.uint32
    )


@compiled
def _multiplier(value: float, seed: np.uint64) -> Any:
    """`x_j(v)` for a dyadic probability v of at most 52 binary places (splitmix64 of it)."""
    z = np.uint64(value * _UNIT) + seed
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@compiled
def hash_of_meet(left: Words, right: Words, keys: Any, start: int, end: int) -> Any:
    """`sum_w K_j(w) (left and right)(w)` over the words start..end, for the three j."""
    h0 = np.uint64(0)
    h1 = np.uint64(0)
    h2 = np.uint64(0)
    for w in range(start, end):
        word = left[w] & right[w]
        low = word & _LOW
        high = word >> _HALF
        h0 += np.uint64(keys[w, 0, 0]) * low + np.uint64(keys[w, 1, 0]) * high
        h1 += np.uint64(keys[w, 0, 1]) * low + np.uint64(keys[w, 1, 1]) * high
        h2 += np.uint64(keys[w, 0, 2]) * low + np.uint64(keys[w, 1, 2]) * high
    return h0, h1, h2


@compiled
def add_hash(total: Any, hashed: Any, value: float) -> None:
    """Add to `total` what a row of probability `value` and raw hash `hashed` contributes."""
    total[0] += hashed[0] * _multiplier(value, _SEED_0)
    total[1] += hashed[1] * _multiplier(value, _SEED_1)
    total[2] += hashed[2] * _multiplier(value, _SEED_2)


@compiled
def fingerprint(rows: Any, row_values: Any, keys: Any) -> Any:
    """The fingerprint of a policy.

    Args:
        rows: shape (n_rows, n_words).
        row_values: the probability of each row, shape (n_rows,).
        keys: as `hash_keys` gives them.

    Returns:
        Shape (N_KEYS,).
    """
    total = np.zeros(N_KEYS, dtype=np.uint64)
    for r in range(rows.shape[0]):
        hashed = hash_of_meet(rows[r], rows[r], keys, 0, rows.shape[1])
        add_hash(total, hashed, row_values[r])
    return total


@compiled
def latched(
    row: Words,
    everything: Words,
    n_chain_words: int,
    n_chain_nodes: int,
    column_node: Any,
    node_column: Any,
    parent: Any,
) -> Any:
    """The columns at whose history a predicate holds or held at an earlier prefix.

    Args:
        row: where the predicate holds.
        everything: all columns.
        n_chain_words: the words of the history's own columns.
        n_chain_nodes: T + 1; node t < T + 1 is the history's prefix of t steps.
        column_node: node of each column, -1 for padding.
        node_column: one column of each node.
        parent: parent of each node; nodes come after their parents.

    Returns:
        Shape (n_words,).
    """
    result = np.zeros_like(row)
    first = n_chain_nodes
    for w in range(n_chain_words):
        if row[w]:
            bit = 0
            while not (row[w] >> np.uint64(bit)) & _ONE:
                bit += 1
            first = column_node[64 * w + bit]
            result[w] = everything[w] & (_ALL << np.uint64(bit))
            for later in range(w + 1, n_chain_words):
                result[later] = everything[later]
            break
    # The last prefix of the history may have its columns in a tree only.
    last = node_column[n_chain_nodes - 1]
    if last >= 64 * n_chain_words and first == n_chain_nodes and _has(row, last):
        first = n_chain_nodes - 1
    held = np.zeros(len(parent), dtype=np.bool_)
    for node in range(n_chain_nodes, len(parent)):
        above = parent[node]
        before = held[above] if above >= n_chain_nodes else above >= first
        held[node] = before or _has(row, node_column[node])
    for column in range(64 * n_chain_words, len(column_node)):
        node = column_node[column]
        if node >= 0 and (held[node] if node >= n_chain_nodes else node >= first):
            result[column >> 6] |= _ONE << np.uint64(column & 63)
    return result


@compiled
def _has(row: Words, column: int) -> Any:
    return (row[column >> 6] >> np.uint64(column & 63)) & _ONE != 0


@compiled
def covers(rows: Any, starts: Any, n_words: int) -> Any:
    """The columns, in the first `n_words` words, where each policy has positive probability.

    Args:
        rows: the rows of all policies, shape (n_rows, all words).
        starts: policy p has the rows starts[p] .. starts[p + 1] - 1, shape (n_policies + 1,).
        n_words: how many words are wanted.

    Returns:
        Shape (n_policies, n_words).
    """
    result = np.zeros((len(starts) - 1, n_words), dtype=np.uint64)
    for p in range(len(starts) - 1):
        for r in range(starts[p], starts[p + 1]):
            for w in range(n_words):
                result[p, w] |= rows[r, w]
    return result


@compiled
def branches(
    condition: Words,
    n: int,
    rows: Any,
    row_values: Any,
    starts: Any,
    totals: Any,
    cover: Any,
    everything: Words,
    keys: Any,
) -> Any:
    """Each of the first n policies restricted to where a condition holds, and to where it does not.

    A restriction is *alive* if no column in the words of `cover` to which it is restricted
    lacks positive probability: the history can then still be gone through with it.

    Returns:
        alive_then and alive_else, (n,) each, and the fingerprints of the restrictions of those
        alive, (n, N_KEYS) each.
    """
    alive_then = np.ones(n, dtype=np.bool_)
    alive_else = np.ones(n, dtype=np.bool_)
    then = np.zeros((n, N_KEYS), dtype=np.uint64)
    otherwise = np.zeros((n, N_KEYS), dtype=np.uint64)
    for p in range(n):
        for w in range(cover.shape[1]):
            missing = everything[w] & ~cover[p, w]
            if missing & condition[w]:
                alive_then[p] = False
            if missing & ~condition[w]:
                alive_else[p] = False
        if alive_then[p] or alive_else[p]:
            for r in range(starts[p], starts[p + 1]):
                hashed = hash_of_meet(condition, rows[r], keys, 0, len(condition))
                add_hash(then[p], hashed, row_values[r])
            for j in range(N_KEYS):
                otherwise[p, j] = totals[p, j] - then[p, j]
    return alive_then, alive_else, then, otherwise


@compiled
def joined(
    shortest: Any,
    alive_then: Any,
    alive_else: Any,
    then: Any,
    otherwise: Any,
    limit: int,
) -> Any:
    """All pairs of a living then-branch and a living else-branch that are short enough.

    Args:
        shortest: the length of the shortest program of each, not decreasing, shape (n,).
        alive_then: as `branches` gives it; likewise the next three.
        alive_else: (n,).
        then: (n, N_KEYS).
        otherwise: (n, N_KEYS).
        limit: what the two may cost together.

    Returns:
        Pairs of policies, (m, 2), and the fingerprints of the joined policies, (m, N_KEYS).
    """
    n = len(alive_then)
    count = 0
    for fill in range(2):
        if fill:
            pairs = np.empty((count, 2), dtype=np.int32)
            prints = np.empty((count, N_KEYS), dtype=np.uint64)
        count = 0
        for i in range(n):
            if not alive_then[i]:
                continue
            left = limit - shortest[i]
            for k in range(n):
                if shortest[k] > left:
                    break
                if alive_else[k]:
                    if fill:
                        pairs[count, 0] = i
                        pairs[count, 1] = k
                        for j in range(N_KEYS):
                            prints[count, j] = then[i, j] + otherwise[k, j]
                    count += 1
    return pairs, prints


@compiled
def meets(p: int, q: int, rows: Any, starts: Any, keys: Any, start: int, end: int) -> Any:
    """Raw hashes of all meets of a row of p with a row of q over the words start..end.

    The last index of either axis stands for the columns in no row of the other policy.

    Returns:
        Shape (n_p + 1, n_q + 1, N_KEYS); the last corner, columns in no row at all, is 0.
    """
    n_p = starts[p + 1] - starts[p]
    n_q = starts[q + 1] - starts[q]
    table = np.zeros((n_p + 1, n_q + 1, N_KEYS), dtype=np.uint64)
    for i in range(n_p):
        row = rows[starts[p] + i]
        whole = hash_of_meet(row, row, keys, start, end)
        for j in range(N_KEYS):
            table[i, n_q, j] = whole[j]
    for k in range(n_q):
        row = rows[starts[q] + k]
        whole = hash_of_meet(row, row, keys, start, end)
        for j in range(N_KEYS):
            table[n_p, k, j] = whole[j]
    for i in range(n_p):
        for k in range(n_q):
            both = hash_of_meet(rows[starts[p] + i], rows[starts[q] + k], keys, start, end)
            for j in range(N_KEYS):
                table[i, k, j] = both[j]
                table[i, n_q, j] -= both[j]
                table[n_p, k, j] -= both[j]
    return table


@compiled
def mixture_fingerprint(
    table: Any, weight: float, p: int, q: int, row_values: Any, starts: Any, total: Any
) -> None:
    """Add the fingerprint of `weight p + (1 - weight) q` to `total`, from `meets(p, q)`."""
    n_p = starts[p + 1] - starts[p]
    n_q = starts[q + 1] - starts[q]
    for i in range(n_p + 1):
        v = row_values[starts[p] + i] if i < n_p else 0.0
        for k in range(n_q + 1):
            if i < n_p or k < n_q:
                u = row_values[starts[q] + k] if k < n_q else 0.0
                add_hash(total, table[i, k], weight * v + (1.0 - weight) * u)


@compiled
def mixed(
    pairs: Any,
    shortest: Any,
    weights: Any,
    weight_bits: Any,
    rows: Any,
    row_values: Any,
    starts: Any,
    keys: Any,
    limit: int,
) -> Any:
    """All mixtures of the given pairs of policies that are short enough.

    Args:
        pairs: indices of policies, shape (n, 2).
        shortest: the length of the shortest program of each policy of the store.
        weights: dyadic probabilities, those of the fewest bits first.
        weight_bits: their lengths.
        rows: the rows of all policies.
        row_values: their probabilities.
        starts: where each policy's rows begin.
        keys: as `hash_keys` gives them.
        limit: what the weight and both policies may cost together.

    Returns:
        Per mixture the index of its pair and of its weight, (m, 2), and the fingerprints,
        (m, N_KEYS).
    """
    count = 0
    for n in range(len(pairs)):
        left = limit - shortest[pairs[n, 0]] - shortest[pairs[n, 1]]
        for d in range(len(weights)):
            count += weight_bits[d] <= left
    found = np.empty((count, 2), dtype=np.int32)
    prints = np.zeros((count, N_KEYS), dtype=np.uint64)
    count = 0
    for n in range(len(pairs)):
        p, q = pairs[n]
        table = meets(p, q, rows, starts, keys, 0, rows.shape[1])
        left = limit - shortest[p] - shortest[q]
        for d in range(len(weights)):
            if weight_bits[d] > left:
                break
            found[count, 0] = n
            found[count, 1] = d
            mixture_fingerprint(table, weights[d], p, q, row_values, starts, prints[count])
            count += 1
    return found, prints


@compiled
def size_of_meet(left: Words, right: Words, start: int, end: int) -> Any:
    """`|left and right|` over the words start..end."""
    total = np.uint64(0)
    for w in range(start, end):
        total += count_ones(left[w] & right[w])
    return np.int64(total)


@compiled
def _branch_segment(
    condition: Words,
    p: int,
    rows: Any,
    row_values: Any,
    starts: Any,
    keys: Any,
    segment: Any,
    total: Any,
) -> Any:
    """Columns and log-likelihood of policy p in a segment where `condition` holds."""
    start, end = segment
    covered = 0
    log_likelihood = 0.0
    for r in range(starts[p], starts[p + 1]):
        size = size_of_meet(condition, rows[r], start, end)
        if size:
            covered += size
            log_likelihood += size * log(row_values[r])
            add_hash(total, hash_of_meet(condition, rows[r], keys, start, end), row_values[r])
    return covered, log_likelihood


@compiled
def _mixture_segment(
    weight: float,
    p: int,
    q: int,
    rows: Any,
    row_values: Any,
    starts: Any,
    keys: Any,
    segment: Any,
    total: Any,
) -> Any:
    """The same for `weight p + (1 - weight) q`, everywhere in the segment."""
    start, end = segment
    covered = 0
    log_likelihood = 0.0
    n_p = starts[p + 1] - starts[p]
    n_q = starts[q + 1] - starts[q]
    left_p = np.empty(n_p, dtype=np.int64)
    left_q = np.empty(n_q, dtype=np.int64)
    for i in range(n_p):
        row = rows[starts[p] + i]
        left_p[i] = size_of_meet(row, row, start, end)
    for k in range(n_q):
        row = rows[starts[q] + k]
        left_q[k] = size_of_meet(row, row, start, end)
    for i in range(n_p):
        for k in range(n_q):
            size = size_of_meet(rows[starts[p] + i], rows[starts[q] + k], start, end)
            left_p[i] -= size
            left_q[k] -= size
            if size:
                covered += size
                v = weight * row_values[starts[p] + i] + (1.0 - weight) * row_values[starts[q] + k]
                log_likelihood += size * log(v)
    for i in range(n_p):
        if left_p[i]:
            covered += left_p[i]
            log_likelihood += left_p[i] * log(weight * row_values[starts[p] + i])
    for k in range(n_q):
        if left_q[k]:
            covered += left_q[k]
            log_likelihood += left_q[k] * log((1.0 - weight) * row_values[starts[q] + k])
    table = meets(p, q, rows, starts, keys, start, end)
    mixture_fingerprint(table, weight, p, q, row_values, starts, total)
    return covered, log_likelihood


@compiled
def at_situations(
    recipes: Any,
    mixture_weights: Any,
    conditions: Any,
    rows: Any,
    row_values: Any,
    starts: Any,
    keys: Any,
    segments: Any,
    n_columns: Any,
    n_chain: int,
    chain_before: Any,
) -> Any:
    """Log-likelihood and fingerprint of policies at every situation.

    Args:
        recipes: rows (condition, p, q) of composed policies, condition -1 for a mixture,
            shape (n, 3).
        mixture_weights: the weight of each mixture (anything for others), shape (n,).
        conditions: bitsets, shape (n_conditions, n_words).
        rows: the rows of all policies.
        row_values: their probabilities.
        starts: where each policy's rows begin.
        keys: as `hash_keys` gives them.
        segments: first word and end word of each, shape (n_segments, 2): the chain's, then a
            path and a tree for each situation.
        n_columns: of each segment.
        n_chain: how many segments the chain has.
        chain_before: how many of them come before each situation, increasing.

    Returns:
        Natural log-likelihoods of the actions before each situation, -inf for 0, shape
        (n, n_situations); fingerprints over the columns of those actions and of the
        situation's tree, (n, n_situations, N_KEYS), meaningless where the likelihood is 0.
    """
    n = len(recipes)
    n_situations = len(chain_before)
    logs = np.full((n, n_situations), -np.inf)
    prints = np.zeros((n, n_situations, N_KEYS), dtype=np.uint64)
    not_condition = np.zeros(rows.shape[1], dtype=np.uint64)
    for c in range(n):
        condition = recipes[c, 0]
        if condition >= 0:
            for w in range(len(not_condition)):
                not_condition[w] = ~conditions[condition, w]
        log_chain = 0.0
        chain = np.zeros(N_KEYS, dtype=np.uint64)
        done = 0
        for s in range(n_situations):
            while done < chain_before[s] and log_chain > -np.inf:
                covered, log_part = _segment(
                    c,
                    recipes,
                    mixture_weights,
                    conditions,
                    not_condition,
                    rows,
                    row_values,
                    starts,
                    keys,
                    segments[done],
                    chain,
                )
                log_chain = log_chain + log_part if covered == n_columns[done] else -np.inf
                done += 1
            if log_chain == -np.inf:
                break
            for j in range(N_KEYS):
                prints[c, s, j] = chain[j]
            path = n_chain + 2 * s
            covered, log_part = _segment(
                c,
                recipes,
                mixture_weights,
                conditions,
                not_condition,
                rows,
                row_values,
                starts,
                keys,
                segments[path],
                prints[c, s],
            )
            if covered == n_columns[path]:
                logs[c, s] = log_chain + log_part
                _segment(
                    c,
                    recipes,
                    mixture_weights,
                    conditions,
                    not_condition,
                    rows,
                    row_values,
                    starts,
                    keys,
                    segments[path + 1],
                    prints[c, s],
                )
    return logs, prints


@compiled
def _segment(
    c: int,
    recipes: Any,
    mixture_weights: Any,
    conditions: Any,
    not_condition: Any,
    rows: Any,
    row_values: Any,
    starts: Any,
    keys: Any,
    segment: Any,
    total: Any,
) -> Any:
    condition, p, q = recipes[c]
    if condition < 0:
        return _mixture_segment(
            mixture_weights[c], p, q, rows, row_values, starts, keys, segment, total
        )
    covered, log_then = _branch_segment(
        conditions[condition], p, rows, row_values, starts, keys, segment, total
    )
    covered_else, log_else = _branch_segment(
        not_condition, q, rows, row_values, starts, keys, segment, total
    )
    return covered + covered_else, log_then + log_else


@compiled
def living_pairs(shortest: Any, cover: Any, everything: Words, limit: int) -> Any:
    """Pairs p <= q of policies, short enough, whose mixtures are alive (see `branches`).

    Args:
        shortest: the length of the shortest program of each, not decreasing, shape (n,).
        cover: as `covers` gives it.
        everything: all columns.
        limit: what the two may cost together.

    Returns:
        Shape (m, 2).
    """
    n = len(shortest)
    count = 0
    for fill in range(2):
        if fill:
            pairs = np.empty((count, 2), dtype=np.int32)
        count = 0
        for p in range(n):
            for q in range(p, n):
                if shortest[p] + shortest[q] > limit:
                    break
                alive = True
                for w in range(cover.shape[1]):
                    if everything[w] & ~cover[p, w] & ~cover[q, w]:
                        alive = False
                        break
                if alive:
                    if fill:
                        pairs[count, 0] = p
                        pairs[count, 1] = q
                    count += 1
    return pairs


@compiled
def products(left: Any, right: Any, shift: Any, n_lengths: int) -> Any:
    """How many programs of each length combine a part of one kind with a part of another.

    Args:
        left: entry [i, n]: how many programs of n bits the first part of combination i has.
        right: likewise for the second part.
        shift: bits that combination i costs besides its parts.
        n_lengths: lengths from this on are left out.

    Returns:
        Shape (n_combinations, n_lengths).
    """
    result = np.zeros((len(left), n_lengths), dtype=np.int64)
    for i in range(len(left)):
        for a in range(left.shape[1]):
            if left[i, a]:
                for b in range(min(right.shape[1], n_lengths - a - shift[i])):
                    result[i, a + b + shift[i]] += left[i, a] * right[i, b]
    return result


@compiled
def first_meetings(
    bits: Any,
    lengths: Any,
    limit: int,
    n_chain_words: int,
    column_node: Any,
    last_before: Any,
    path_columns: Any,
    path_starts: Any,
    root_columns: Any,
) -> Any:
    """For each situation the shortest pair of sets that meet there and at no prefix of it.

    Args:
        bits: the sets, shortest first, shape (n, n_words).
        lengths: their lengths in bits, shape (n,).
        limit: what a pair may cost at most.
        n_chain_words: the words of the history's own columns.
        column_node: node of each column, -1 for padding.
        last_before: for each situation its last proper prefix on the history, -1 if none.
        path_columns: columns of further proper prefixes, of all situations.
        path_starts: where each situation's begin, shape (n_situations + 1,).
        root_columns: one column of each situation's own history.

    Returns:
        Pairs of indices (-1 if there is none), shape (n_situations, 2), and what they cost,
        `limit + 1` if there is none.
    """
    n_situations = len(root_columns)
    best = np.full(n_situations, limit + 1)
    pairs = np.full((n_situations, 2), -1)
    at_root = np.zeros((len(bits), n_situations), dtype=np.bool_)
    for i in range(len(bits)):
        for s in range(n_situations):
            at_root[i, s] = _has(bits[i], root_columns[s])
    for i in range(len(bits)):
        for k in range(i, len(bits)):
            cost = lengths[i] + lengths[k]
            if cost > limit:
                break
            first = -1
            for s in range(n_situations):
                if cost < best[s] and at_root[i, s] and at_root[k, s]:
                    if first < 0:
                        first = _first_meeting(bits[i], bits[k], n_chain_words, column_node)
                    path = path_columns[path_starts[s] : path_starts[s + 1]]
                    if first > last_before[s] and not _meet_in(bits[i], bits[k], path):
                        best[s] = cost
                        pairs[s, 0] = i
                        pairs[s, 1] = k
    return pairs, best


@compiled
def _meet_in(left: Words, right: Words, columns: Any) -> Any:
    met = False
    for column in columns:
        met = met or (_has(left, column) and _has(right, column))
    return met


@compiled
def _first_meeting(left: Words, right: Words, n_words: int, column_node: Any) -> Any:
    """The first prefix of the history that is in both sets, or a number beyond all."""
    for w in range(n_words):
        both = left[w] & right[w]
        if both:
            bit = 0
            while not (both >> np.uint64(bit)) & _ONE:
                bit += 1
            return column_node[64 * w + bit]
    return np.int64(2**62)
