"""Compiled loops over bitsets: latches, fingerprints, compositions, likelihoods, first meetings.

A *policy* is given by its rows: for each positive probability v that it takes, the set of
columns (`toy_world.programs.columns`) where it takes v; columns in no row have probability 0.
Everything that composition needs is additive over disjoint sets of columns, so that the parts `E`
and `not E` of a `switch(E, pi, p)` can be looked up apart and added:

- log-likelihood, `sum_v ln v * |row_v|`;
- the *fingerprint*, `F_j = sum_v x_j(v) sum_w K_j(w) row_v(w)` modulo 2^64 for three j, over
  32-bit half-words w with random 32-bit keys K_j and pseudo-random 64-bit multipliers x_j. Two
  different policies have equal F_j with probability below 2^-27 each (the difference of two
  half-words, times x, is divisible by 2^(32+i) with probability below 2^(1-i), and then fits at
  most 2^i of the 2^32 keys; sum over i). With three, a false merger among a million different
  behaviours has probability below 2^-42.

These functions check nothing. Several run twice over the same pairs, first to count them and then
to write them, because an array's size has to be known beforehand.
"""

from math import log
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from theory.compiled import compiled
from toy_world.compiled import count_ones

N_KEYS: Final = 3
Words: TypeAlias = NDArray[np.uint64]
"""A set of columns: bit i of word w is column 64 w + i."""
Fingerprints: TypeAlias = NDArray[np.uint64]
"""Shape (..., N_KEYS)."""
Keys: TypeAlias = NDArray[np.uint32]
"""As `hash_keys` gives them, shape (n_words, 2, N_KEYS)."""
Integers: TypeAlias = NDArray[np.integer]

_LOW: Final = np.uint64(0xFFFFFFFF)
_HALF: Final = np.uint64(32)
_ONE: Final = np.uint64(1)
_ALL: Final = np.uint64(0xFFFFFFFFFFFFFFFF)
_UNIT: Final = 2.0**52
_SEED_0: Final = np.uint64(0x9E3779B97F4A7C15)
_SEED_1: Final = np.uint64(0xD1B54A32D192ED03)
_SEED_2: Final = np.uint64(0x8CB92BA72F3D8DD7)
_BEYOND_ALL: Final = np.int64(2**62)
"""A number greater than that of any history."""


class Store(NamedTuple):
    """The rows of many policies, one policy after another.

    Attributes:
        rows: one set of columns per policy and positive probability, shape (n_rows, n_words).
        values: these probabilities, shape (n_rows,).
        starts: policy p has the rows starts[p] .. starts[p + 1] - 1, shape (n_policies + 1,).
    """

    rows: Words
    values: NDArray[np.float64]
    starts: NDArray[np.int64]


class Parts(NamedTuple):
    """Policies of which others are composed.

    Attributes:
        store: their rows.
        fingerprints: shape (n, N_KEYS).
        shortest: length of the shortest program of each, not decreasing, shape (n,).
        cover: as `covers` gives it, over the columns of the history before the first point.
        everything: all columns.
        keys: of the fingerprints.
    """

    store: Store
    fingerprints: Fingerprints
    shortest: NDArray[np.int64]
    cover: Words
    everything: Words
    keys: Keys


class Branches(NamedTuple):
    """Policies restricted to where a condition holds, and to where it does not.

    A restriction is *alive* if no column of the history to which it is restricted lacks positive
    probability: the history can then still be gone through with it.

    Attributes:
        then_alive: shape (n,).
        else_alive: shape (n,).
        then_prints: fingerprints of the restrictions, of those alive, shape (n, N_KEYS).
        else_prints: likewise.
    """

    then_alive: NDArray[np.bool_]
    else_alive: NDArray[np.bool_]
    then_prints: Fingerprints
    else_prints: Fingerprints


class Recipe(NamedTuple):
    """A composed policy: p where a condition holds and q elsewhere, or a mixture of p and q.

    Attributes:
        condition: which condition, -1 for a mixture.
        p: which policy.
        q: which policy.
        weight: p's in a mixture, anything for others.
    """

    condition: int
    p: int
    q: int
    weight: float


class Segments(NamedTuple):
    """The runs of columns that a history consists of, and those of the points on it.

    Attributes:
        bounds: first word and end word of each, shape (n_segments, 2): the chain's, then a
            path and a tree for each point.
        n_columns: of each, shape (n_segments,).
        n_chain: how many segments the chain has.
        chain_before: how many of them come before each point, not decreasing, shape (n_points,).
    """

    bounds: NDArray[np.int64]
    n_columns: NDArray[np.int64]
    n_chain: int
    chain_before: NDArray[np.int64]


class Nodes(NamedTuple):
    """Which history each column belongs to.

    Attributes:
        n_chain_words: the words of the long history's own columns.
        n_chain: T + 1; node t < T + 1 is the long history's prefix of t steps.
        of_column: node of each column, -1 for padding.
        column: one column of each node.
        chain_column: the long history's own column of each of its prefixes, shape (T,).
        parent: of each node; nodes come after their parents.
    """

    n_chain_words: int
    n_chain: int
    of_column: NDArray[np.int64]
    column: NDArray[np.int64]
    chain_column: NDArray[np.int64]
    parent: NDArray[np.int64]


class Counted(NamedTuple):
    """What a counter counts.

    Attributes:
        of_column: its value at the history of each column, -1 for padding.
        first: the long history's first prefix at which it is n or more, for n from 0 to one more
            than it ever is there, which gives T + 1.
    """

    of_column: NDArray[np.int64]
    first: NDArray[np.int64]


class ProperPrefixes(NamedTuple):
    """Where the points are, and the histories before them.

    Attributes:
        root_columns: one column of each point's own history, shape (n_points,).
        last_on_chain: the last of its proper prefixes on the long history, -1 if there is none.
        path_columns: columns of further proper prefixes, of all points.
        path_starts: where each point's begin, shape (n_points + 1,).
    """

    root_columns: NDArray[np.int64]
    last_on_chain: NDArray[np.int64]
    path_columns: NDArray[np.int64]
    path_starts: NDArray[np.int64]


def hash_keys(n_words: int) -> Keys:
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
def _hash_of_meet(left: Words, right: Words, keys: Keys, start: int, end: int) -> Any:
    """`sum_w K_j(w) (left and right)(w)` over the words start..end, for the three j."""
    # Three variables, not an array: they stay in registers.
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
def _add_hash(total: Fingerprints, hashed: Any, value: float) -> None:
    """Add to `total` what a row of probability `value` and raw hash `hashed` contributes."""
    total[0] += hashed[0] * _multiplier(value, _SEED_0)
    total[1] += hashed[1] * _multiplier(value, _SEED_1)
    total[2] += hashed[2] * _multiplier(value, _SEED_2)


@compiled
def fingerprint(rows: Words, values: NDArray[np.float64], keys: Keys) -> Any:
    """The fingerprint of a policy.

    Args:
        rows: shape (n_rows, n_words).
        values: the probability of each row, shape (n_rows,).
        keys: of the fingerprint.

    Returns:
        Shape (N_KEYS,).
    """
    total = np.zeros(N_KEYS, dtype=np.uint64)
    for r in range(rows.shape[0]):
        hashed = _hash_of_meet(rows[r], rows[r], keys, 0, rows.shape[1])
        _add_hash(total, hashed, values[r])
    return total


@compiled
def _lowest(word: np.uint64) -> Any:
    """The place of the lowest bit of a word that has one."""
    return np.int64(count_ones((word & (~word + _ONE)) - _ONE))


@compiled
def _has(row: Words, column: int) -> Any:
    return (row[column >> 6] >> np.uint64(column & 63)) & _ONE != 0


@compiled
def _fill_from(result: Words, everything: Words, column: int, end: int) -> None:
    """Put the columns from `column` on into `result`, up to the word `end`."""
    word = column >> 6
    result[word] = everything[word] & (_ALL << np.uint64(column & 63))
    for later in range(word + 1, end):
        result[later] = everything[later]


@compiled
def _put(result: Words, column: int) -> None:
    result[column >> 6] |= _ONE << np.uint64(column & 63)


@compiled
def reached(value: int, counted: Counted, everything: Words, nodes: Nodes) -> Any:
    """The columns at whose history a counter is `value` or more.

    Args:
        value: at least 1.
        counted: the counter.
        everything: all columns.
        nodes: the columns' histories.

    Returns:
        Shape (n_words,).
    """
    result = np.zeros_like(everything)
    # On the long history a counter never falls; its last prefix has no column of its own there.
    first = counted.first[min(value, len(counted.first) - 1)]
    if first < len(nodes.chain_column):
        _fill_from(result, everything, nodes.chain_column[first], nodes.n_chain_words)
    for column in range(64 * nodes.n_chain_words, len(counted.of_column)):
        if counted.of_column[column] >= value:
            _put(result, column)
    return result


@compiled
def multiples(value: int, counted: Counted, everything: Words, nodes: Nodes) -> Any:
    """The columns at whose history a counter is a multiple of `value`, but not 0.

    Time grows with the number of such columns, not with that of all.

    Args:
        value: at least 1.
        counted: the counter.
        everything: all columns.
        nodes: the columns' histories.

    Returns:
        Shape (n_words,).
    """
    result = np.zeros_like(everything)
    for multiple in range(value, len(counted.first) - 1, value):
        end = min(counted.first[multiple + 1], len(nodes.chain_column))
        for node in range(counted.first[multiple], end):
            _put(result, nodes.chain_column[node])
    for column in range(64 * nodes.n_chain_words, len(counted.of_column)):
        count = counted.of_column[column]
        if count > 0 and count % value == 0:
            _put(result, column)
    return result


@compiled
def latched(row: Words, everything: Words, nodes: Nodes) -> Any:
    """The columns at whose history a predicate holds or held at an earlier prefix.

    Args:
        row: where the predicate holds.
        everything: all columns.
        nodes: the columns' histories.

    Returns:
        Shape (n_words,).
    """
    # On the long history, whose columns come in order: everything from the first one on.
    result = np.zeros_like(row)
    first = nodes.n_chain
    for w in range(nodes.n_chain_words):
        if row[w]:
            bit = _lowest(row[w])
            first = nodes.of_column[64 * w + bit]
            _fill_from(result, everything, 64 * w + bit, nodes.n_chain_words)
            break
    # Its last prefix has no action of its own there, but may have columns in a point's tree.
    last = nodes.column[nodes.n_chain - 1]
    if last >= 64 * nodes.n_chain_words and first == nodes.n_chain and _has(row, last):
        first = nodes.n_chain - 1
    # Off the long history from parent to child.
    held = np.zeros(len(nodes.parent), dtype=np.bool_)
    for node in range(nodes.n_chain, len(nodes.parent)):
        above = nodes.parent[node]
        before = held[above] if above >= nodes.n_chain else above >= first
        held[node] = before or _has(row, nodes.column[node])
    for column in range(64 * nodes.n_chain_words, len(nodes.of_column)):
        node = nodes.of_column[column]
        if node >= 0 and (held[node] if node >= nodes.n_chain else node >= first):
            _put(result, column)
    return result


@compiled
def covers(store: Store, n_words: int) -> Any:
    """The columns, in the first `n_words` words, where each policy has positive probability.

    Returns:
        Shape (n_policies, n_words).
    """
    rows, _, starts = store
    result = np.zeros((len(starts) - 1, n_words), dtype=np.uint64)
    for p in range(len(starts) - 1):
        for r in range(starts[p], starts[p + 1]):
            for w in range(n_words):
                result[p, w] |= rows[r, w]
    return result


@compiled
def branches(parts: Parts, n: int, condition: Words) -> Branches:
    """Each of the first n parts restricted to where a condition holds, and to where it does not."""
    rows, values, starts = parts.store
    everything, cover, keys = parts.everything, parts.cover, parts.keys
    then_alive = np.ones(n, dtype=np.bool_)
    else_alive = np.ones(n, dtype=np.bool_)
    then_prints = np.zeros((n, N_KEYS), dtype=np.uint64)
    else_prints = np.zeros((n, N_KEYS), dtype=np.uint64)
    for p in range(n):
        for w in range(cover.shape[1]):
            missing = everything[w] & ~cover[p, w]
            if missing & condition[w]:
                then_alive[p] = False
            if missing & ~condition[w]:
                else_alive[p] = False
        if then_alive[p] or else_alive[p]:
            for r in range(starts[p], starts[p + 1]):
                hashed = _hash_of_meet(condition, rows[r], keys, 0, len(condition))
                _add_hash(then_prints[p], hashed, values[r])
            # The fingerprint of the whole is the sum of those of the two restrictions.
            for j in range(N_KEYS):
                else_prints[p, j] = parts.fingerprints[p, j] - then_prints[p, j]
    return Branches(then_alive, else_alive, then_prints, else_prints)


@compiled
def joined(shortest: NDArray[np.int64], found: Branches, limit: int) -> Any:
    """All pairs of a living then-branch and a living else-branch that are short enough.

    Args:
        shortest: the length of the shortest program of each, not decreasing, shape (n,).
        found: as `branches` gives it.
        limit: what the two may cost together.

    Returns:
        Pairs of policies, (m, 2), and the fingerprints of the joined policies, (m, N_KEYS).
    """
    then_alive, else_alive, then_prints, else_prints = found
    n = len(then_alive)
    count = 0
    for fill in range(2):
        if fill:
            pairs = np.empty((count, 2), dtype=np.int32)
            prints = np.empty((count, N_KEYS), dtype=np.uint64)
        count = 0
        for i in range(n):
            if not then_alive[i]:
                continue
            left = limit - shortest[i]
            for k in range(n):
                if shortest[k] > left:
                    break
                if else_alive[k]:
                    if fill:
                        pairs[count, 0] = i
                        pairs[count, 1] = k
                        for j in range(N_KEYS):
                            prints[count, j] = then_prints[i, j] + else_prints[k, j]
                    count += 1
    return pairs, prints


@compiled
def living_pairs(parts: Parts, n: int, limit: int, start: int, step: int) -> Any:
    """Pairs p <= q of the first n parts, short enough, whose mixtures are alive (`Branches`).

    Args:
        parts: the policies.
        n: how many of them may be in a mixture.
        limit: what the two may cost together.
        start: the first p.
        step: from one p to the next.

    Returns:
        Shape (m, 2).
    """
    shortest, cover, everything = parts.shortest, parts.cover, parts.everything
    count = 0
    for fill in range(2):
        if fill:
            pairs = np.empty((count, 2), dtype=np.int32)
        count = 0
        for p in range(start, n, step):
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
def _meets(store: Store, p: int, q: int, keys: Keys, start: int, end: int) -> Any:
    """Raw hashes of all meets of a row of p with a row of q over the words start..end.

    The last index of either axis stands for the columns in no row of the other policy.

    Returns:
        Shape (n_p + 1, n_q + 1, N_KEYS); the last corner, columns in no row at all, is 0.
    """
    rows, starts = store.rows, store.starts
    n_p = starts[p + 1] - starts[p]
    n_q = starts[q + 1] - starts[q]
    table = np.zeros((n_p + 1, n_q + 1, N_KEYS), dtype=np.uint64)
    for i in range(n_p):
        row = rows[starts[p] + i]
        whole = _hash_of_meet(row, row, keys, start, end)
        for j in range(N_KEYS):
            table[i, n_q, j] = whole[j]
    for k in range(n_q):
        row = rows[starts[q] + k]
        whole = _hash_of_meet(row, row, keys, start, end)
        for j in range(N_KEYS):
            table[n_p, k, j] = whole[j]
    for i in range(n_p):
        for k in range(n_q):
            both = _hash_of_meet(rows[starts[p] + i], rows[starts[q] + k], keys, start, end)
            # What is in both rows is taken from what is in one alone.
            for j in range(N_KEYS):
                table[i, k, j] = both[j]
                table[i, n_q, j] -= both[j]
                table[n_p, k, j] -= both[j]
    return table


@compiled
def _add_mixture(
    store: Store, p: int, q: int, weight: float, table: Words, total: Fingerprints
) -> None:
    """Add the fingerprint of `weight p + (1 - weight) q` to `total`, from `_meets(p, q)`."""
    values, starts = store.values, store.starts
    n_p = starts[p + 1] - starts[p]
    n_q = starts[q + 1] - starts[q]
    for i in range(n_p + 1):
        v = values[starts[p] + i] if i < n_p else 0.0
        for k in range(n_q + 1):
            if i < n_p or k < n_q:
                u = values[starts[q] + k] if k < n_q else 0.0
                _add_hash(total, table[i, k], weight * v + (1.0 - weight) * u)


@compiled
def mixed(
    parts: Parts,
    pairs: Integers,
    weights: NDArray[np.float64],
    weight_bits: NDArray[np.int64],
    limit: int,
) -> Any:
    """All mixtures of the given pairs of policies that are short enough.

    Args:
        parts: the policies.
        pairs: indices of policies, shape (n, 2).
        weights: dyadic probabilities, those of the fewest bits first.
        weight_bits: their lengths.
        limit: what the weight and both policies may cost together.

    Returns:
        Per mixture the index of its pair and of its weight, (m, 2), and the fingerprints,
        (m, N_KEYS).
    """
    store, shortest = parts.store, parts.shortest
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
        # The passes over the columns are done once for all weights.
        table = _meets(store, p, q, parts.keys, 0, store.rows.shape[1])
        left = limit - shortest[p] - shortest[q]
        for d in range(len(weights)):
            if weight_bits[d] > left:
                break
            found[count, 0] = n
            found[count, 1] = d
            _add_mixture(store, p, q, weights[d], table, prints[count])
            count += 1
    return found, prints


@compiled
def products(left: Integers, right: Integers, shift: Integers, n_lengths: int) -> Any:
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
def _size_of_meet(left: Words, right: Words, start: int, end: int) -> Any:
    """`|left and right|` over the words start..end."""
    total = np.uint64(0)
    for w in range(start, end):
        total += count_ones(left[w] & right[w])
    return np.int64(total)


@compiled
def _branch_segment(
    condition: Words, p: int, store: Store, keys: Keys, segment: Any, total: Fingerprints
) -> Any:
    """Columns and log-likelihood of policy p in a segment where `condition` holds.

    Args:
        condition: a set of columns.
        p: which policy.
        store: the policies' rows.
        keys: of the fingerprints.
        segment: first word and end word.
        total: to which the fingerprint is added.

    Returns:
        How many columns of the set have positive probability, and the sum of their logarithms.
    """
    rows, values, starts = store
    start, end = segment
    covered = 0
    log_likelihood = 0.0
    for r in range(starts[p], starts[p + 1]):
        row = rows[r]
        size = _size_of_meet(condition, row, start, end)
        if size:
            covered += size
            log_likelihood += size * log(values[r])
            _add_hash(total, _hash_of_meet(condition, row, keys, start, end), values[r])
    return covered, log_likelihood


@compiled
def _mixture_segment(
    recipe: Recipe, store: Store, keys: Keys, segment: Any, total: Fingerprints
) -> Any:
    """The same for `weight p + (1 - weight) q`, everywhere in the segment."""
    rows, values, starts = store
    weight, p, q = recipe.weight, recipe.p, recipe.q
    start, end = segment
    covered = 0
    log_likelihood = 0.0
    n_p = starts[p + 1] - starts[p]
    n_q = starts[q + 1] - starts[q]
    # Of each row, the columns in no row of the other policy; found by taking away the meets.
    left_p = np.empty(n_p, dtype=np.int64)
    left_q = np.empty(n_q, dtype=np.int64)
    for i in range(n_p):
        row = rows[starts[p] + i]
        left_p[i] = _size_of_meet(row, row, start, end)
    for k in range(n_q):
        row = rows[starts[q] + k]
        left_q[k] = _size_of_meet(row, row, start, end)
    for i in range(n_p):
        for k in range(n_q):
            size = _size_of_meet(rows[starts[p] + i], rows[starts[q] + k], start, end)
            left_p[i] -= size
            left_q[k] -= size
            if size:
                covered += size
                v = weight * values[starts[p] + i] + (1.0 - weight) * values[starts[q] + k]
                log_likelihood += size * log(v)
    for i in range(n_p):
        if left_p[i]:
            covered += left_p[i]
            log_likelihood += left_p[i] * log(weight * values[starts[p] + i])
    for k in range(n_q):
        if left_q[k]:
            covered += left_q[k]
            log_likelihood += left_q[k] * log((1.0 - weight) * values[starts[q] + k])
    _add_mixture(store, p, q, weight, _meets(store, p, q, keys, start, end), total)
    return covered, log_likelihood


@compiled
def _segment(
    recipe: Recipe,
    holds: Words,
    fails: Words,
    store: Store,
    keys: Keys,
    segment: Any,
    total: Fingerprints,
) -> Any:
    """The same for a composed policy, whose condition holds and fails at the given columns."""
    if recipe.condition < 0:
        return _mixture_segment(recipe, store, keys, segment, total)
    covered, log_then = _branch_segment(holds, recipe.p, store, keys, segment, total)
    covered_else, log_else = _branch_segment(fails, recipe.q, store, keys, segment, total)
    return covered + covered_else, log_then + log_else


@compiled
def at_points(
    recipes: Integers,
    weights: NDArray[np.float64],
    conditions: Words,
    store: Store,
    keys: Keys,
    segments: Segments,
) -> Any:
    """Log-likelihood and fingerprint of composed policies at every point.

    Args:
        recipes: condition, p and q of each (see `Recipe`), shape (n, 3).
        weights: p's weights, shape (n,).
        conditions: sets of columns, shape (n_conditions, n_words).
        store: the rows of their parts.
        keys: of the fingerprints.
        segments: the history and the points.

    Returns:
        Natural log-likelihoods of the actions before each point, -inf for 0, shape
        (n, n_points); fingerprints over the columns of those actions and of the point's tree,
        (n, n_points, N_KEYS), meaningless where the likelihood is 0.
    """
    n, n_points = len(recipes), len(segments.chain_before)
    bounds, n_columns = segments.bounds, segments.n_columns
    logs = np.full((n, n_points), -np.inf)
    prints = np.zeros((n, n_points, N_KEYS), dtype=np.uint64)
    fails = np.zeros(conditions.shape[1], dtype=np.uint64)
    for c in range(n):
        recipe = Recipe(recipes[c, 0], recipes[c, 1], recipes[c, 2], weights[c])
        holds = conditions[max(recipe.condition, 0)]
        if recipe.condition >= 0:
            for w in range(len(fails)):
                fails[w] = ~holds[w]
        # The chain is followed once, through all points in turn; it ends where it gets a
        # probability of 0, and with it all later points.
        log_chain = 0.0
        chain = np.zeros(N_KEYS, dtype=np.uint64)
        done = 0
        for s in range(n_points):
            while done < segments.chain_before[s] and log_chain > -np.inf:
                covered, log_part = _segment(recipe, holds, fails, store, keys, bounds[done], chain)
                log_chain = log_chain + log_part if covered == n_columns[done] else -np.inf
                done += 1
            if log_chain == -np.inf:
                break
            for j in range(N_KEYS):
                prints[c, s, j] = chain[j]
            path = segments.n_chain + 2 * s
            covered, log_part = _segment(
                recipe, holds, fails, store, keys, bounds[path], prints[c, s]
            )
            if covered == n_columns[path]:
                logs[c, s] = log_chain + log_part
                _segment(recipe, holds, fails, store, keys, bounds[path + 1], prints[c, s])
    return logs, prints


@compiled
def first_meetings(
    sets: Words, lengths: NDArray[np.int64], limit: int, nodes: Nodes, prefixes: ProperPrefixes
) -> Any:
    """For each point the shortest pair of sets that meet there and at no proper prefix of it.

    Args:
        sets: sets of columns, shortest first, shape (n, n_words).
        lengths: their lengths in bits, shape (n,).
        limit: what a pair may cost at most.
        nodes: the columns' histories.
        prefixes: the points and their proper prefixes.

    Returns:
        Pairs of indices, -1 if there is none, shape (n_points, 2).
    """
    n_points = len(prefixes.root_columns)
    best = np.full(n_points, limit + 1)
    pairs = np.full((n_points, 2), -1)
    at_root = np.zeros((len(sets), n_points), dtype=np.bool_)
    for i in range(len(sets)):
        for s in range(n_points):
            at_root[i, s] = _has(sets[i], prefixes.root_columns[s])
    for i in range(len(sets)):
        for k in range(i, len(sets)):
            cost = lengths[i] + lengths[k]
            if cost > limit:
                break
            first = -1
            for s in range(n_points):
                if cost < best[s] and at_root[i, s] and at_root[k, s]:
                    if first < 0:  # the pass over the history, at the first point that needs it
                        first = _first_meeting(sets[i], sets[k], nodes)
                    path = prefixes.path_columns[
                        prefixes.path_starts[s] : prefixes.path_starts[s + 1]
                    ]
                    if first > prefixes.last_on_chain[s] and not _meet_in(sets[i], sets[k], path):
                        best[s] = cost
                        pairs[s, 0] = i
                        pairs[s, 1] = k
    return pairs


@compiled
def _meet_in(left: Words, right: Words, columns: NDArray[np.int64]) -> Any:
    met = False
    for column in columns:
        met = met or (_has(left, column) and _has(right, column))
    return met


@compiled
def _first_meeting(left: Words, right: Words, nodes: Nodes) -> Any:
    """The first prefix of the history that is in both sets, or a number beyond all."""
    for w in range(nodes.n_chain_words):
        both = left[w] & right[w]
        if both:
            return nodes.of_column[64 * w + _lowest(both)]
    return _BEYOND_ALL
