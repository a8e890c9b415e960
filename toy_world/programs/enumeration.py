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
    classes_of_conditions,
    classes_of_policies,
    fingerprint,
    part_limits,
    policy_rows,
)
from toy_world.programs.codes import DyadicCode
from toy_world.programs.columns import ColumnLayout, Segment
from toy_world.programs.kernels import Fingerprints
from toy_world.programs.language import If, Language, Mix, Policy, Switch

_MIXTURE: Final = -1
_BLOCKS: Final = 32


@dataclass(frozen=True, kw_only=True)
class Enumeration:
    """All living classes of policies of at most `limit_bits` bits on a layout.

    Attributes:
        language: the language.
        layout: where programs are compared.
        limit_bits: L.
        conditions: the stored conditions.
        policies: the stored policies.
        recipes: (condition, p, q) of the shortest program of each class: p where the condition
            holds and q elsewhere, or a mixture of p and q if the condition is -1; shape (n, 3).
        mixture_weights: p's weight in a mixture, shape (n,).
        counts: number of programs of each length, shape (n, L + 1).
        log_likelihoods: natural logarithms of the probability of the actions before each
            point, -inf for 0, shape (n, n_points); each is a sum of at most
            (segments x rows) rounded terms.
        fingerprints: over these actions and the point's tree, (n, n_points, N_KEYS).
    """

    language: Language
    layout: ColumnLayout
    limit_bits: int
    conditions: Conditions
    policies: Policies
    recipes: NDArray[np.int32]
    mixture_weights: NDArray[np.float64]
    counts: NDArray[np.int64]
    log_likelihoods: NDArray[np.float64]
    fingerprints: Fingerprints

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
        first, second = self.policies.programs[p], self.policies.programs[q]
        if condition == _MIXTURE:
            return Mix(Fraction(float(self.mixture_weights[index])), first, second)
        if condition == ALWAYS:
            return first
        candidates: list[Policy] = []
        if condition in self.conditions.predicates:
            candidates.append(If(self.conditions.predicates[condition], first, second))
        if condition in self.conditions.events:
            candidates.append(Switch(self.conditions.events[condition], first, second))
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
        columns = self._probabilities(classes, self.layout.trees[point])
        return columns.reshape(len(classes), -1, self.layout.n_actions)

    def _probabilities(self, classes: NDArray[np.int64], segment: Segment) -> NDArray[np.float64]:
        """What classes give to each column of a segment, exact, shape (n, n_columns)."""
        used, places = np.unique(self.recipes[classes, 1:], return_inverse=True)
        store = self.policies.store
        starts, ends = store.starts[used], store.starts[used + 1]
        rows = np.concatenate([np.arange(*bounds) for bounds in zip(starts, ends, strict=True)])
        taken = self.layout.unpack(store.rows, segment, rows)
        weighted = taken * store.values[rows][:, None]
        firsts = np.cumsum(np.concatenate([[0], (ends - starts)[:-1]]))
        table = np.add.reduceat(weighted, firsts, axis=0)
        first, second = (table[place] for place in places.reshape(-1, 2).T)
        condition = self.recipes[classes, 0]
        mixture = condition == _MIXTURE
        holds = self.layout.unpack(self.conditions.bits, segment, np.maximum(condition, 0))
        share = np.where(mixture[:, None], self.mixture_weights[classes, None], holds)
        probabilities: NDArray[np.float64] = share * first + (1 - share) * second
        return probabilities


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
    limits = part_limits(language, limit_bits)
    conditions = classes_of_conditions(language, layout, max(limits.condition, event_bits))
    policies = classes_of_policies(language, layout, conditions, limits)
    classes = _composed(layout, conditions, policies, limits)
    logs, prints = _at_points(layout, conditions, policies, classes)
    return Enumeration(
        language=language,
        layout=layout,
        limit_bits=limit_bits,
        conditions=conditions,
        policies=policies,
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

    def products(
        self, left: NDArray[np.int64], right: NDArray[np.int64], extra_bits: Any = 0
    ) -> NDArray[np.int64]:
        """Counts by length of combinations, shape (n, L + 1); see `kernels.products`."""
        shift = np.full(len(left), extra_bits, dtype=np.int64)
        result: NDArray[np.int64] = kernels.products(
            np.ascontiguousarray(left), right, shift, self.limits.total + 1
        )
        return result


def _composed(
    layout: ColumnLayout,
    conditions: Conditions,
    policies: Policies,
    limits: PartLimits,
) -> _Classes:
    """All living classes: of leaves, of branchings and of mixtures."""
    parts = _Parts(
        policies=policies,
        n=int(np.searchsorted(policies.shortest, limits.policy, side="right")),
        limits=limits,
        compiled=kernels.Parts(
            store=policies.store,
            fingerprints=policies.fingerprints,
            shortest=policies.shortest,
            cover=kernels.covers(policies.store, layout.words_before(0)),
            everything=layout.everything,
            keys=layout.keys,
        ),
    )
    by_cost = _with_tags(conditions, limits)
    tasks = [
        delayed(_branchings)(parts, block, conditions.bits[block], by_cost[block])
        for block in _interleaved(np.flatnonzero(by_cost.any(axis=1)))
    ]
    tasks += [delayed(_mixtures)(parts, block) for block in _interleaved(_living_pairs(parts))]
    return _merged([_leaves(parts), *results_of(tasks, description="composing programs")])


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


def _leaves(parts: _Parts) -> _Classes:
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


def _branchings(
    parts: _Parts,
    conditions: NDArray[np.int64],
    bits: NDArray[np.uint64],
    by_cost: NDArray[np.int64],
) -> _Classes:
    """All living `if`s and `switch`es on the given conditions."""
    policies = parts.policies
    found = []
    for condition, row, costs in zip(conditions, bits, by_cost, strict=True):
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


def _living_pairs(parts: _Parts) -> NDArray[np.int32]:
    least_weight = next(DyadicCode().up_to(1))[0]
    limit = parts.limits.total - parts.limits.mix_tag - least_weight
    pairs: NDArray[np.int32] = kernels.living_pairs(parts.compiled, parts.n, limit)
    return pairs


def _mixtures(parts: _Parts, pairs: NDArray[np.int32]) -> _Classes:
    """All mixtures of the given pairs of policies."""
    policies = parts.policies
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


def _at_points(
    layout: ColumnLayout,
    conditions: Conditions,
    policies: Policies,
    classes: _Classes,
) -> tuple[NDArray[np.float64], Fingerprints]:
    segments = kernels.Segments(
        bounds=np.array([(segment.first_word, segment.end_word) for segment in layout.segments]),
        n_columns=np.array([segment.n_columns for segment in layout.segments]),
        n_chain=len(layout.chain),
        chain_before=np.array(layout.n_chain_segments),
    )
    tasks = [
        delayed(kernels.at_points)(
            classes.recipes[block],
            classes.weights[block],
            conditions.bits,
            policies.store,
            layout.keys,
            segments,
        )
        for block in np.array_split(np.arange(len(classes.recipes)), _BLOCKS)
    ]
    found = results_of(tasks, description="following the history")
    logs, prints = zip(*found, strict=True)
    return np.concatenate(logs), np.concatenate(prints)


def _interleaved(items: NDArray[Any]) -> list[NDArray[Any]]:
    """Blocks of about equal work: neighbours go to different ones."""
    return [items[start::_BLOCKS] for start in range(min(_BLOCKS, len(items)))]
