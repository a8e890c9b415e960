"""Compiled loops over bitsets against loops over sets of columns in Python."""

import math
from fractions import Fraction
from itertools import combinations_with_replacement, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toy_world.program_examples import columns_in
from toy_world.programs import kernels

N_WORDS = 3
N_COLUMNS = 64 * N_WORDS
VALUES = [1.0, 0.5, 0.25, 0.75, 0.125]
KEYS = kernels.hash_keys(N_WORDS)


def bits_of(columns, n_words=N_WORDS):
    flags = np.zeros(64 * n_words, dtype=np.bool_)
    flags[list(columns)] = True
    return np.packbits(flags, bitorder="little").view(np.uint64)


def random_policy(rng, *, cover=1.0):
    """A probability for each of some columns."""
    chosen = rng.choice(VALUES, size=N_COLUMNS, p=[0.6, 0.1, 0.1, 0.1, 0.1])
    return {column: float(value) for column, value in enumerate(chosen) if rng.random() < cover}


def store_of(policies):
    """A `Store` of policies given as probabilities by column."""
    rows, values, starts = [], [], [0]
    for policy in policies:
        for value in sorted(set(policy.values())):
            rows.append(bits_of(c for c, v in policy.items() if v == value))
            values.append(value)
        starts.append(len(rows))
    return kernels.Store(np.array(rows), np.array(values), np.array(starts))


def fingerprint_of(policy):
    values = sorted(set(policy.values()))
    rows = [bits_of(c for c, v in policy.items() if v == value) for value in values]
    return kernels.fingerprint(np.array(rows).reshape(-1, N_WORDS), np.array(values), KEYS)


def parts_of(policies, *, shortest, n_cover_words):
    store = store_of(policies)
    return kernels.Parts(
        store=store,
        fingerprints=np.array([fingerprint_of(policy) for policy in policies]),
        shortest=np.array(shortest),
        cover=kernels.covers(store, n_cover_words),
        everything=bits_of(range(N_COLUMNS)),
        keys=KEYS,
    )


def restricted(policy, columns):
    return {c: v for c, v in policy.items() if c in columns}


def mixture(weight, p, q):
    both = {c: weight * p.get(c, 0.0) + (1 - weight) * q.get(c, 0.0) for c in {*p, *q}}
    return {c: v for c, v in both.items() if v}


def test_keys_are_the_same_every_time():
    assert (kernels.hash_keys(N_WORDS) == KEYS).all()
    assert KEYS.shape == (N_WORDS, 2, kernels.N_KEYS)


def test_fingerprints_differ_where_policies_do_and_add_up_over_disjoint_columns(rng):
    policy = random_policy(rng, cover=0.9)
    whole = fingerprint_of(policy)
    some = set(rng.choice(N_COLUMNS, size=80, replace=False).tolist())
    there, elsewhere = (
        fingerprint_of(restricted(policy, columns)) for columns in (some, {*policy} - some)
    )
    assert (there + elsewhere == whole).all()
    seen = {whole.tobytes()}
    for column in policy:  # one probability changed, or gone
        for value in (None, *VALUES):
            if value != policy[column]:
                other = {c: v for c, v in policy.items() if c != column}
                other.update({} if value is None else {column: value})
                seen.add(fingerprint_of(other).tobytes())
    assert len(seen) == 1 + 5 * len(policy)


def test_a_fingerprint_is_the_sum_that_its_definition_says(rng):
    """In exact integers, half-word by half-word: each of its three numbers by its own keys."""
    policy = random_policy(rng, cover=0.9)
    assert fingerprint_of(policy).tolist() == [
        sum(
            splitmix((int(value * 2**52) + int(seed)) % 2**64)
            * sum(
                int(KEYS[column // 64, column % 64 // 32, j]) * 2 ** (column % 32)
                for column, v in policy.items()
                if v == value
            )
            for value in set(policy.values())
        )
        % 2**64
        for j, seed in enumerate((kernels._SEED_0, kernels._SEED_1, kernels._SEED_2))
    ]


def splitmix(z) -> int:
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


@given(st.integers(1, 2**64 - 1))
def test_the_lowest_bit_is_found(word):
    assert kernels._lowest(np.uint64(word)) == (word & -word).bit_length() - 1


@settings(max_examples=30)
@given(st.integers(0, 5), st.integers(0, 4), st.randoms(use_true_random=False))
def test_a_latch_holds_from_the_first_node_on(n_chain_steps, n_off, random):
    """Nodes of a chain and of a tree that hangs from it, one column each, some with two."""
    n_chain = n_chain_steps + 1
    parents = [*range(-1, n_chain - 1)]
    parents += [random.randrange(n_chain + i) for i in range(n_off)]
    # Chain columns: of all prefixes but the last; the others follow from the next word on.
    chain_words = math.ceil(n_chain_steps / 64)
    of_column = [*range(n_chain_steps)] + [-1] * (64 * chain_words - n_chain_steps)
    rest = [n_chain - 1, *range(n_chain, n_chain + n_off)]
    of_column += [node for node in rest for _ in range(random.choice([1, 2]))]
    of_column += [-1] * (-len(of_column) % 64)
    column = [of_column.index(node) for node in range(len(parents))]
    chosen = {node for node in range(len(parents)) if random.random() < 0.3}
    chain_column = np.arange(n_chain_steps)
    nodes = kernels.Nodes(
        chain_words, n_chain, *map(np.array, (of_column, column, chain_column, parents))
    )
    n_words = len(of_column) // 64
    row = bits_of((c for c, node in enumerate(of_column) if node in chosen), n_words)
    everything = bits_of((c for c, node in enumerate(of_column) if node >= 0), n_words)

    def held(node):
        return node >= 0 and (node in chosen or held(parents[node]))

    expected = {c for c, node in enumerate(of_column) if held(node)}
    assert columns_in(kernels.latched(row, everything, nodes)) == expected


@pytest.mark.parametrize("n_cover_words", [0, 1, 2])
def test_branches_joined_are_all_living_pairs_with_their_fingerprints(rng, n_cover_words):
    policies = [random_policy(rng, cover=cover) for cover in (1.0, 0.98, 0.97, 1.0, 0.5)]
    shortest = [2, 3, 3, 4, 6]
    parts = parts_of(policies, shortest=shortest, n_cover_words=n_cover_words)
    condition = set(rng.choice(N_COLUMNS, size=100, replace=False).tolist())
    opposite = set(range(N_COLUMNS)) - condition
    cover = set(range(64 * n_cover_words))
    n, limit = 4, 6
    found = kernels.branches(parts, n, bits_of(condition))
    pairs, prints = kernels.joined(parts.shortest, found, limit)
    expected = {}
    for i, k in product(range(n), repeat=2):
        alive = condition & cover <= {*policies[i]} and opposite & cover <= {*policies[k]}
        if alive and shortest[i] + shortest[k] <= limit:
            joined = restricted(policies[i], condition) | restricted(policies[k], opposite)
            expected[i, k] = fingerprint_of(joined).tolist()
    assert dict(zip(map(tuple, pairs.tolist()), prints.tolist(), strict=True)) == expected


@pytest.mark.parametrize("n_cover_words", [0, 1, 2])
def test_mixtures_are_all_living_ones_that_are_short_enough(rng, n_cover_words):
    policies = [random_policy(rng, cover=cover) for cover in (1.0, 0.99, 0.9, 0.6)]
    shortest = [2, 2, 3, 5]
    parts = parts_of(policies, shortest=shortest, n_cover_words=n_cover_words)
    cover = set(range(64 * n_cover_words))
    limit = 8
    pairs = kernels.living_pairs(parts, 4, limit - 1, 0, 1)
    assert {tuple(pair) for pair in pairs.tolist()} == {
        (p, q)
        for p, q in combinations_with_replacement(range(4), 2)
        if shortest[p] + shortest[q] <= limit - 1 and cover <= {*policies[p], *policies[q]}
    }
    shares = [kernels.living_pairs(parts, 4, limit - 1, start, 3).tolist() for start in range(3)]
    assert all(p % 3 == start for start, share in enumerate(shares) for p, _ in share)
    assert sorted(pair for share in shares for pair in share) == sorted(pairs.tolist())
    weights, weight_bits = np.array([0.5, 0.25, 0.75]), np.array([1, 3, 3])
    found, prints = kernels.mixed(parts, pairs, weights, weight_bits, limit)
    expected = {
        (n, d): fingerprint_of(mixture(weights[d], policies[p], policies[q])).tolist()
        for n, (p, q) in enumerate(pairs.tolist())
        for d in range(3)
        if shortest[p] + shortest[q] + weight_bits[d] <= limit
    }
    assert dict(zip(map(tuple, found.tolist()), prints.tolist(), strict=True)) == expected


@given(
    st.lists(st.lists(st.integers(0, 5), min_size=4, max_size=4), min_size=1, max_size=3),
    st.lists(st.integers(0, 5), min_size=3, max_size=3),
    st.integers(0, 3),
)
def test_products_count_combinations_by_length(left, right, shift):
    rights = np.array([right] * len(left))
    found = kernels.products(np.array(left), rights, np.full(len(left), shift), 7)
    for row, counts in zip(found, left, strict=True):
        expected = [0] * 7
        for a, b in product(range(4), range(3)):
            if a + b + shift < 7:
                expected[a + b + shift] += counts[a] * right[b]
        assert row.tolist() == expected


def test_the_history_is_followed_point_by_point(rng):
    """Two points: columns 0..69 in two segments, then a path and a tree for each."""
    bounds = np.array([(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6)])
    n_columns = np.array([64, 6, 3, 10, 0, 20])
    n_words = 6
    columns = [set(range(64 * a, 64 * a + n)) for (a, _), n in zip(bounds, n_columns, strict=True)]
    everything = set().union(*columns)

    def policy(missing):
        chosen = {c: float(rng.choice([0.5, 0.25, 1.0])) for c in everything}
        return {c: v for c, v in chosen.items() if c not in missing}

    policies = [policy(set()), policy({70}), policy({130}), policy({3})]
    rows, values, starts = [], [], [0]
    for each in policies:
        for value in sorted(set(each.values())):
            rows.append(bits_of((c for c, v in each.items() if v == value), n_words))
            values.append(value)
        starts.append(len(rows))
    store = kernels.Store(np.array(rows), np.array(values), np.array(starts))
    condition = {c for c in everything if rng.random() < 0.5} | {3}
    conditions = np.array([bits_of(everything, n_words), bits_of(condition, n_words)])
    recipes = [(0, 0, 0), (1, 0, 1), (1, 3, 0), (1, 0, 3), (-1, 1, 2), (-1, 3, 3), (-1, 0, 2)]
    weights = [0.0, 0.0, 0.0, 0.0, 0.25, 0.5, 0.75]
    keys = kernels.hash_keys(n_words)
    logs, prints = kernels.at_points(
        np.array(recipes, dtype=np.int32),
        np.array(weights),
        conditions,
        store,
        keys,
        kernels.Segments(bounds, n_columns, 2, np.array([1, 2])),
    )
    for (which, p, q), weight, log_row, print_row in zip(
        recipes, weights, logs, prints, strict=True
    ):
        if which < 0:
            whole = mixture(weight, policies[p], policies[q])
        else:
            holds = everything if which == 0 else condition
            whole = restricted(policies[p], holds) | restricted(policies[q], everything - holds)
        for s, (before, path, tree) in enumerate(
            (
                (columns[0], columns[2], columns[3]),
                (columns[0] | columns[1], columns[4], columns[5]),
            )
        ):
            actions = before | path
            likelihood = math.prod(
                (Fraction(whole.get(c, 0.0)) for c in actions), start=Fraction(1)
            )
            if likelihood == 0:
                assert log_row[s] == -np.inf
                continue
            assert log_row[s] == pytest.approx(math.log(likelihood), rel=1e-13)
            asked = restricted(whole, actions | tree)
            own = sorted(set(asked.values()))
            expected = kernels.fingerprint(
                np.array([bits_of((c for c, v in asked.items() if v == x), n_words) for x in own]),
                np.array(own),
                keys,
            )
            assert (print_row[s] == expected).all()


@settings(max_examples=40)
@given(
    sets=st.lists(st.sets(st.integers(0, 9), max_size=6), min_size=1, max_size=5),
    costs=st.lists(st.integers(1, 6), min_size=5, max_size=5),
    limit=st.integers(1, 9),
)
def test_the_first_meeting_is_the_shortest_pair_that_meets_there_and_not_before(sets, costs, limit):
    """A history of seven steps; one point at its end, one after two steps that leave it at 4."""
    costs = sorted(costs[: len(sets)])
    # Nodes 0..7 are the prefixes, 8 and 9 lead off it; node 7 and 9 have columns in word 1.
    of_column = [*range(7), *[-1] * 57, 7, 8, 9, *[-1] * 61]
    column = [of_column.index(node) for node in range(10)]
    parents = [*range(-1, 7), 4, 8]
    nodes = kernels.Nodes(1, 8, *map(np.array, (of_column, column, range(7), parents)))
    rows = np.array([bits_of((column[node] for node in chosen), 2) for chosen in sets])
    prefixes = kernels.ProperPrefixes(
        root_columns=np.array([column[7], column[9]]),
        last_on_chain=np.array([6, 4]),
        path_columns=np.array([column[8]]),
        path_starts=np.array([0, 0, 1]),
    )
    found = kernels.first_meetings(rows, np.array(costs), limit, nodes, prefixes)
    for (i, k), root, before in zip(
        found.tolist(), (7, 9), ({*range(7)}, {*range(5), 8}), strict=True
    ):
        meeting = [
            costs[a] + costs[b]
            for a, b in combinations_with_replacement(range(len(sets)), 2)
            if root in sets[a] & sets[b] and not sets[a] & sets[b] & before
        ]
        best = min((cost for cost in meeting if cost <= limit), default=None)
        if best is None:
            assert (i, k) == (-1, -1)
        else:
            assert costs[i] + costs[k] == best
            assert root in sets[i] & sets[k]
            assert not sets[i] & sets[k] & before
