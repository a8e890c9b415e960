"""Every policy program up to L bits, merged by behaviour, with exact weights `2^-len(p)`.

Programs that are equal on a `ColumnLayout` (the same probabilities for every action of the history
and at every history of the query points' trees) predict alike in every question asked there, so
they are one *class*, whose weight is the sum of theirs: `sum_n c_n 2^-n`, c_n the number of its
programs of n bits. All constructors act column by column (`toy_world.programs.columns`), so
programs can be merged before they are composed:

1. classes of predicates and events, and of policies short enough to be a part of another one,
   are stored as bitsets, from short to long programs;
2. programs of up to L bits are combinations of stored classes: `if` and `switch` join a branch
   where a condition holds with one where it does not, `mix` mixes two policies. Their
   fingerprints and likelihoods are sums over the parts, and only those that can have produced
   the history up to the first query point (*alive*) are kept: the others have posterior 0.

Step 1 is where a program's likelihood costs time that grows with the history: one pass over
its bits. The number of stored classes, not that of programs, is what memory grows with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Final

import numpy as np
from joblib import delayed
from numpy.typing import NDArray

from mightnt.workers import results_of
from theory.errors import InvalidArgumentError
from toy_world.programs import kernels
from toy_world.programs.classes import (
    ALWAYS,
    MOST_BITS,
    Conditions,
    PartLimits,
    Policies,
    fingerprint,
    policy_rows,
)
from toy_world.programs.codes import DyadicCode
from toy_world.programs.columns import ColumnLayout
from toy_world.programs.kernels import Fingerprints
from toy_world.programs.language import If, Language, Mix, Policy, Switch
from toy_world.programs.tables import SharedTables, TablesOnTrees

_MIXTURE: Final = -1
_SHARES: Final = 32


@dataclass(frozen=True, kw_only=True)
class Enumeration:
    """All living classes of policies of at most `limit_bits` bits on a layout.

    Attributes:
        tables: the stored programs, of which others are composed; those of this process are built
            at the first question that needs them, if other processes did the work.
        trees: what they do on the points' trees.
        recipes: (condition, p, q) of the shortest program of each class: p where the condition
            holds and q elsewhere, or a mixture of p and q if the condition is -1; shape (n, 3).
        mixture_weights: p's weight in a mixture, shape (n,).
        counts: number of programs of each length, shape (n, L + 1).
        log_likelihoods: natural logarithms of the probability of the actions before each
            point, -inf for 0, shape (n, n_points); each is a sum of at most
            (segments x rows) rounded terms.
        fingerprints: over these actions and the point's tree, (n, n_points, N_KEYS).
    """

    tables: SharedTables
    trees: TablesOnTrees
    recipes: NDArray[np.int32]
    mixture_weights: NDArray[np.float64]
    counts: NDArray[np.int64]
    log_likelihoods: NDArray[np.float64]
    fingerprints: Fingerprints

    @property
    def language(self) -> Language:
        """The language."""
        return self.tables.language

    @property
    def layout(self) -> ColumnLayout:
        """Where programs are compared."""
        return self.tables.layout

    @property
    def limit_bits(self) -> int:
        """L."""
        return self.tables.limits.total

    @property
    def conditions(self) -> Conditions:
        """The stored conditions."""
        return self.tables.conditions

    @property
    def n_classes(self) -> int:
        """How many classes are alive at the first point."""
        return len(self.recipes)

    @cached_property
    def n_programs(self) -> int:
        """How many programs have at most L bits, dead ones included."""
        return sum(self.language.policies.counts(self.limit_bits))

    @cached_property
    def prior_mass(self) -> Fraction:
        """`sum 2^-len(p)` over all programs of at most L bits, dead ones included."""
        return self.language.policies.mass_up_to(self.limit_bits)

    @property
    def prior_mass_left_out(self) -> Fraction:
        """The prior mass of all longer programs, exact: the language's Kraft sum is 1."""
        return 1 - self.prior_mass

    @cached_property
    def weights(self) -> NDArray[np.int64]:
        """Prior weight of each class in units of 2^-L, exact."""
        return np.asarray((self.counts << np.arange(self.limit_bits, -1, -1)).sum(axis=1))

    @property
    def shortest(self) -> NDArray[np.int64]:
        """Length in bits of the shortest program of each class."""
        return np.asarray((self.counts > 0).argmax(axis=1))

    def program(self, index: int) -> Policy:
        """The shortest program of a class (one of them, if there are several)."""
        condition, p, q = (int(part) for part in self.recipes[index])
        programs, conditions = self.tables.policies.programs, self.tables.conditions
        first, second = programs[p], programs[q]
        if condition == _MIXTURE:
            return Mix(Fraction(float(self.mixture_weights[index])), first, second)
        if condition == ALWAYS:
            return first
        candidates: list[Policy] = []
        if condition in conditions.predicates:
            candidates.append(If(conditions.predicates[condition], first, second))
        if condition in conditions.events:
            candidates.append(Switch(conditions.events[condition], first, second))
        return min(candidates, key=self.language.length)

    def fingerprint(self, policy: Policy, point: int) -> Fingerprints:
        """The fingerprint that a class has at a point if `policy` belongs to it."""
        layout = self.layout
        asked = np.zeros(layout.n_words, dtype=np.uint64)
        asked[: layout.words_before(point)] = ~np.uint64(0)
        for segment in (layout.paths[point], layout.trees[point]):
            asked[segment.first_word : segment.end_word] = ~np.uint64(0)
        rows = {v: row & asked for v, row in policy_rows(policy, layout).items()}
        return fingerprint(rows, keys=layout.keys)

    def tree_probabilities(self, classes: NDArray[np.int64], point: int) -> NDArray[np.float64]:
        """What classes do on the tree of a point.

        Args:
            classes: indices of classes, shape (n,).
            point: its index.

        Returns:
            Probabilities, exact, shape (n, histories of the tree, |A|).
        """
        trees, layout = self.trees, self.layout
        segment = trees.segment(layout.trees[point])
        used, places = np.unique(self.recipes[classes, 1:], return_inverse=True)
        store = trees.policies
        starts, ends = store.starts[used], store.starts[used + 1]
        rows = np.concatenate([np.arange(*bounds) for bounds in zip(starts, ends, strict=True)])
        taken = layout.unpack(store.rows, segment, rows)
        weighted = taken * store.values[rows][:, None]
        firsts = np.cumsum(np.concatenate([[0], (ends - starts)[:-1]]))
        table = np.add.reduceat(weighted, firsts, axis=0)
        first, second = (table[place] for place in places.reshape(-1, 2).T)
        condition = self.recipes[classes, 0]
        mixture = condition == _MIXTURE
        holds = layout.unpack(trees.conditions, segment, np.maximum(condition, 0))
        share = np.where(mixture[:, None], self.mixture_weights[classes, None], holds)
        probabilities: NDArray[np.float64] = share * first + (1 - share) * second
        return probabilities.reshape(len(classes), -1, layout.n_actions)


def enumerate_policies(
    language: Language, layout: ColumnLayout, limit_bits: int, *, event_bits: int = 0
) -> Enumeration:
    """Every policy program of at most `limit_bits` bits, merged by behaviour on `layout`.

    Work is shared among cores as `joblib.parallel_config` says (threads unless it names
    another backend; one job unless it names more).

    Args:
        language: the language; its alphabets are the layout's.
        layout: the history and the points.
        limit_bits: L, at most `MOST_BITS`.
        event_bits: store conditions at least up to this length, for a search among events.

    Raises:
        UnreachableLengthError: no policy is so short.
        InvalidArgumentError: L above `MOST_BITS`, or other alphabets.
    """
    if (language.n_actions, language.n_observations) != (
        layout.n_actions,
        layout.n_observations,
    ):
        raise InvalidArgumentError(
            f"language and layout need the same alphabets, got sizes {language.n_actions}, "
            f"{language.n_observations} and {layout.n_actions}, {layout.n_observations}"
        )
    if limit_bits > MOST_BITS:
        raise InvalidArgumentError(
            f"limit_bits must be at most {MOST_BITS} (64-bit weights), got {limit_bits}"
        )
    tables = SharedTables(language, layout, limit_bits, event_bits=event_bits)
    trees, composed = _composed(tables)
    classes = _merged(composed)
    logs, prints = _at_points(tables, classes)
    return Enumeration(
        tables=tables,
        trees=trees,
        recipes=classes.recipes,
        mixture_weights=classes.weights,
        counts=classes.counts,
        log_likelihoods=logs,
        fingerprints=prints,
    )


@dataclass(frozen=True, kw_only=True)
class _Classes:
    """Classes of programs of up to L bits, in the order of their fingerprints.

    Attributes:
        fingerprints: over the whole layout, shape (n, N_KEYS).
        recipes: as in `Enumeration`.
        weights: `mixture_weights`.
        costs: length of the recipe's shortest program.
        counts: as in `Enumeration`.
    """

    fingerprints: Fingerprints
    recipes: NDArray[np.int32]
    weights: NDArray[np.float64]
    costs: NDArray[np.int64]
    counts: NDArray[np.int64]


def group(
    prints: Fingerprints, costs: NDArray[np.int64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Bring equal fingerprints together, those of least cost first.

    Args:
        prints: shape (n, N_KEYS).
        costs: shape (n,).

    Returns:
        The order, (n,), and the places in it at which the groups begin.
    """
    order = np.lexsort((costs, *prints.T))
    new = np.ones(len(order), dtype=np.bool_)
    new[1:] = (prints[order[1:]] != prints[order[:-1]]).any(axis=1)
    return order, np.flatnonzero(new)


def _nothing(limits: PartLimits) -> _Classes:
    return _Classes(
        fingerprints=np.empty((0, kernels.N_KEYS), dtype=np.uint64),
        recipes=np.empty((0, 3), dtype=np.int32),
        weights=np.empty(0),
        costs=np.empty(0, dtype=np.int64),
        counts=np.empty((0, limits.total + 1), dtype=np.int64),
    )


def _merged(parts: Sequence[_Classes]) -> _Classes:
    """Classes with equal fingerprints made one, by its shortest recipe."""
    prints = np.concatenate([part.fingerprints for part in parts])
    costs = np.concatenate([part.costs for part in parts])
    order, first = group(prints, costs)
    counts = np.concatenate([part.counts for part in parts])[order]
    best = order[first]
    return _Classes(
        fingerprints=prints[best],
        recipes=np.concatenate([part.recipes for part in parts])[best],
        weights=np.concatenate([part.weights for part in parts])[best],
        costs=costs[best],
        counts=np.add.reduceat(counts, first, axis=0) if len(first) else counts,
    )


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What composition needs to know of the parts.

    Attributes:
        policies: the stored policies.
        n: how many of them are short enough to be parts.
        limits: L and what follows from it.
        compiled: the policies for the kernels.
    """

    policies: Policies
    n: int
    limits: PartLimits
    compiled: kernels.Parts

    @classmethod
    def of(cls, tables: SharedTables) -> "_Parts":
        policies, limits, layout = tables.policies, tables.limits, tables.layout
        return cls(
            policies=policies,
            n=int(np.searchsorted(policies.shortest, limits.policy, side="right")),
            limits=limits,
            compiled=kernels.Parts(
                store=policies.store,
                fingerprints=policies.fingerprints,
                shortest=policies.shortest,
                cover=tables.cover,
                everything=layout.everything,
                keys=layout.keys,
            ),
        )

    def products(
        self, left: NDArray[np.int64], right: NDArray[np.int64], extra_bits: Any = 0
    ) -> NDArray[np.int64]:
        """Counts by length of combinations, shape (n, L + 1); see `kernels.products`."""
        shift = np.full(len(left), extra_bits, dtype=np.int64)
        result: NDArray[np.int64] = kernels.products(
            np.ascontiguousarray(left), right, shift, self.limits.total + 1
        )
        return result


def _composed(tables: SharedTables) -> tuple[TablesOnTrees, list[_Classes]]:
    """The trees, and all living classes: of leaves, of branchings and of mixtures."""
    shares = range(_SHARES)
    tasks = [
        delayed(TablesOnTrees.of)(tables),
        delayed(_leaves)(tables),
        *(delayed(_branchings)(tables, share) for share in shares),
        *(delayed(_mixtures)(tables, share) for share in shares),
    ]
    trees, *composed = results_of(tasks, description="composing programs")
    return trees, composed


def _with_tags(conditions: Conditions, limits: PartLimits) -> NDArray[np.int64]:
    """How often each condition begins a branching, by its bits and those of `if` or `switch`."""
    result = np.zeros((len(conditions.bits), limits.total + 1), dtype=np.int64)
    for tag, table in (
        (limits.if_tag, conditions.as_predicate),
        (limits.switch_tag, conditions.as_event),
    ):
        width = max(min(table.shape[1], limits.total + 1 - tag), 0)
        result[:, tag : tag + width] += table[:, :width]
    return result


def _leaves(tables: SharedTables) -> _Classes:
    """All living policies without parts."""
    parts = _Parts.of(tables)
    policies, cover = parts.policies, parts.compiled.cover
    dead = (parts.compiled.everything[: cover.shape[1]] & ~cover).any(axis=1)
    leaf = np.flatnonzero(policies.leaf_counts.any(axis=1) & ~dead)
    return _Classes(
        fingerprints=policies.fingerprints[leaf],
        recipes=np.stack([np.full_like(leaf, ALWAYS), leaf, leaf], axis=1).astype(np.int32),
        weights=np.zeros(len(leaf)),
        costs=(policies.leaf_counts[leaf] > 0).argmax(axis=1),
        counts=policies.leaf_counts[leaf],
    )


def _branchings(tables: SharedTables, share: int) -> _Classes:
    """All living `if`s and `switch`es on a share of the conditions."""
    parts = _Parts.of(tables)
    policies, conditions = parts.policies, tables.conditions
    by_cost = _with_tags(conditions, parts.limits)
    found = [_nothing(parts.limits)]
    # Neighbours are of about equal work: they go to different shares.
    for condition in np.flatnonzero(by_cost.any(axis=1))[share::_SHARES].tolist():
        row, costs = conditions.bits[condition], by_cost[condition]
        least = int((costs > 0).argmax())
        left = parts.limits.total - least
        longest = left - parts.limits.least_policy
        n = int(np.searchsorted(policies.shortest[: parts.n], longest, side="right"))
        branches = kernels.branches(parts.compiled, n, row)
        pairs, prints = kernels.joined(policies.shortest, branches, left)
        begun = parts.products(np.broadcast_to(costs, (n, len(costs))), policies.counts[:n])
        found.append(
            _Classes(
                fingerprints=prints,
                recipes=np.insert(pairs, 0, condition, axis=1),
                weights=np.zeros(len(pairs)),
                costs=least + policies.shortest[pairs].sum(axis=1),
                counts=parts.products(begun[pairs[:, 0]], policies.counts[pairs[:, 1]]),
            )
        )
    return _merged(found)


def _mixtures(tables: SharedTables, share: int) -> _Classes:
    """All mixtures of a share of the policies with others."""
    parts = _Parts.of(tables)
    policies = parts.policies
    least_weight = next(DyadicCode().up_to(1))[0]
    together = parts.limits.total - parts.limits.mix_tag - least_weight
    pairs = kernels.living_pairs(parts.compiled, parts.n, together, share, _SHARES)
    left = parts.limits.total - parts.limits.mix_tag
    by_length = list(DyadicCode().up_to(max(left - 2 * parts.limits.least_policy, 0)))
    weight_bits = np.array([bits for bits, _ in by_length])
    weights = np.array([float(weight) for _, weight in by_length])
    found, prints = kernels.mixed(parts.compiled, pairs, weights, weight_bits, left)
    chosen, bits = pairs[found[:, 0]], weight_bits[found[:, 1]]
    p, q = chosen.T
    both = policies.counts[p] * np.where(p == q, 1, 2)[:, None]  # (p, q, w) and (q, p, 1 - w)
    return _Classes(
        fingerprints=prints,
        recipes=np.insert(chosen, 0, _MIXTURE, axis=1),
        weights=weights[found[:, 1]],
        costs=parts.limits.mix_tag + bits + policies.shortest[chosen].sum(axis=1),
        counts=parts.products(both, policies.counts[q], parts.limits.mix_tag + bits),
    )


def _at_points(tables: SharedTables, classes: _Classes) -> tuple[NDArray[np.float64], Fingerprints]:
    tasks = [
        delayed(_followed)(tables, classes.recipes[block], classes.weights[block])
        for block in np.array_split(np.arange(len(classes.recipes)), _SHARES)
    ]
    found = results_of(tasks, description="following the history")
    logs, prints = zip(*found, strict=True)
    return np.concatenate(logs), np.concatenate(prints)


def _followed(
    tables: SharedTables, recipes: NDArray[np.int32], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], Fingerprints]:
    """Log-likelihoods and fingerprints of some recipes; see `kernels.at_points`."""
    layout = tables.layout
    segments = kernels.Segments(
        bounds=np.array([(segment.first_word, segment.end_word) for segment in layout.segments]),
        n_columns=np.array([segment.n_columns for segment in layout.segments]),
        n_chain=len(layout.chain),
        chain_before=np.array(layout.n_chain_segments),
    )
    found: tuple[NDArray[np.float64], Fingerprints] = kernels.at_points(
        recipes, weights, tables.conditions.bits, tables.policies.store, layout.keys, segments
    )
    return found
