"""The histories at which programs are compared: one long history, and trees that grow from it.

A mixture of policies is asked at *query points* of a long history h: after its first k steps and
possibly a few further steps that h itself does not take (something new happens). What it predicts
there and on all continuations to a horizon depends on its programs only through

- the probability that they give to each action of h before the point, and
- their action probabilities at every history of the point's tree.

Each such number is a *column*. A policy is then a finite map from columns to probabilities, a
predicate a set of columns (those at whose history it holds), and both are stored as bitsets of
64-bit words. Columns come in *segments* that begin at word boundaries: the stretches of h
between the points' times, and for each point the steps that lead off h and its tree.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from theory.errors import InvalidArgumentError, InvalidHistoryError
from theory.process import History, HistoryTree, check_history
from toy_world.programs import kernels
from toy_world.programs.language import (
    CopyAction,
    CopyObservation,
    Counter,
    Cycle,
    Did,
    Do,
    Done,
    Ends,
    Every,
    Number,
    Plain,
    Reached,
    Seen,
    Steps,
)
from toy_world.programs.semantics import number_up_to

Bits: TypeAlias = NDArray[np.uint64]
"""A set of columns, shape (n_words,); bit i of word w is column 64 w + i."""

Elementary: TypeAlias = Ends | Did | Reached | Every
"""A predicate without parts."""
Leaf: TypeAlias = Do | CopyObservation | CopyAction | Cycle
"""A policy without parts; these are deterministic."""

WORD: Final = 64
_NO_SYMBOL: Final = -1


@dataclass(frozen=True, kw_only=True)
class QueryPoint:
    """Where a mixture is asked: after the history's first `n_steps` steps, then `extra`.

    Attributes:
        n_steps: k, at least 0.
        extra: further steps, `a_1 o_1 ...` (even length), which may leave the history.
    """

    n_steps: int
    extra: History = ()

    def __post_init__(self) -> None:
        if self.n_steps < 0:
            raise InvalidArgumentError(f"n_steps must be >= 0, got {self.n_steps}")
        if len(self.extra) % 2:
            raise InvalidHistoryError(
                f"extra steps must end in an observation (even length), got {self.extra}"
            )


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A run of columns that begins at a word boundary.

    Attributes:
        first_word: where it begins.
        n_columns: how many columns it has; the rest of its last word is padding.
    """

    first_word: int
    n_columns: int

    @property
    def end_word(self) -> int:
        """The word after its last one."""
        return self.first_word + -(-self.n_columns // WORD)

    @property
    def columns(self) -> slice:
        """Its columns, without the padding."""
        return slice(WORD * self.first_word, WORD * self.first_word + self.n_columns)


class ColumnLayout:
    """A long history, query points on it, and the columns that they need.

    Attributes:
        n_actions: |A|.
        n_observations: |O|.
        n_steps: T, the steps of the history up to its last point; later ones play no part.
        actions: a_1 ... a_T.
        observations: o_1 ... o_T.
        points: where the mixture will be asked.
        horizon: how many steps the continuations of every point have.
        chain: the segments of the history; point i comes after the first
            `n_chain_segments[i]` of them.
        paths: for each point the segment of the actions in its `extra`.
        trees: for each point the segment of its tree, columns (history, action) with the
            tree's histories level by level in table order.
    """

    def __init__(
        self,
        actions: Sequence[int] | NDArray[np.integer],
        observations: Sequence[int] | NDArray[np.integer],
        points: Sequence[QueryPoint],
        *,
        n_actions: int,
        n_observations: int,
        horizon: int,
    ) -> None:
        """Lay out the columns.

        Args:
            actions: a_1 ... a_T.
            observations: o_1 ... o_T.
            points: at least one, in order of their steps, all of them 0..T.
            n_actions: |A|.
            n_observations: |O|.
            horizon: the number of steps of a continuation, at least 1.

        Raises:
            InvalidHistoryError: symbols outside the alphabets, or unequal lengths.
            InvalidArgumentError: no point, one beyond the end, or a horizon below 1.
        """
        self.n_actions = n_actions
        self.n_observations = n_observations
        self.points = tuple(points)
        self.tree = HistoryTree(n_actions=n_actions, n_observations=n_observations, horizon=horizon)
        self.actions = _symbols("actions", actions, n_actions)
        self.observations = _symbols("observations", observations, n_observations)
        if len(self.actions) != len(self.observations):
            raise InvalidHistoryError(
                f"a history has as many actions as observations, got {len(self.actions)} and "
                f"{len(self.observations)}"
            )
        if not self.points:
            raise InvalidArgumentError("a layout needs at least one query point, got none")
        times = [point.n_steps for point in self.points]
        if times != sorted(times):
            raise InvalidArgumentError(f"query points must be in order of n_steps, got {times}")
        for point in self.points:
            check_history(point.extra, n_actions=n_actions, n_observations=n_observations)
            if point.n_steps > len(self.actions):
                raise InvalidArgumentError(
                    f"a query point at step {point.n_steps} lies beyond the history's "
                    f"{len(self.actions)} steps"
                )
        self.n_steps = max(point.n_steps for point in self.points)
        self.actions = self.actions[: self.n_steps]
        self.observations = self.observations[: self.n_steps]
        self._lay_out_nodes()
        self._lay_out_columns()

    @property
    def horizon(self) -> int:
        """The number of steps of a continuation."""
        return self.tree.horizon

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All of them, in the order of their words."""
        both = (part for pair in zip(self.paths, self.trees, strict=True) for part in pair)
        return (*self.chain, *both)

    @property
    def n_words(self) -> int:
        """Words of a bitset."""
        return self.trees[-1].end_word

    @cached_property
    def everything(self) -> Bits:
        """Every column; padding is not in it."""
        return self._pack(self._column_node != _NO_SYMBOL)

    @cached_property
    def nothing(self) -> Bits:
        """No column."""
        return np.zeros(self.n_words, dtype=np.uint64)

    @cached_property
    def keys(self) -> kernels.Keys:
        """Of fingerprints over the columns."""
        return kernels.hash_keys(self.n_words)

    @cached_property
    def nodes(self) -> kernels.Nodes:
        """Which history each column belongs to: t is the prefix of t steps, more lie off it."""
        return kernels.Nodes(
            n_chain_words=self.chain[-1].end_word if self.chain else 0,
            n_chain=self.n_steps + 1,
            of_column=self._column_node,
            column=self._node_column,
            chain_column=np.concatenate(
                [np.arange(s.columns.start, s.columns.stop) for s in self.chain]
                or [np.empty(0, dtype=np.int64)]
            ),
            parent=self._parent,
        )

    def words_before(self, index: int) -> int:
        """How many words hold the history up to point `index`."""
        n_chain = self.n_chain_segments[index]
        return self.chain[n_chain - 1].end_word if n_chain else 0

    def proper_prefixes(self, index: int) -> tuple[int, NDArray[np.int64]]:
        """The prefixes of point `index` without itself.

        Returns:
            The number of steps of the longest on the history (-1 if there is none), and the
            columns of that one and those off it, if there are any off it.
        """
        point, path = self.points[index], self.paths[index].columns
        last = point.n_steps if point.extra else point.n_steps - 1
        return last, np.arange(path.start, path.stop)

    def last_symbols(self, index: int, length: int) -> History:
        """The last symbols of the history of point `index`, which has at least so many."""
        node = self._root(index)
        symbols: list[int] = []
        while len(symbols) < length:
            symbols += [int(self._last_observation[node]), int(self._last_action[node])]
            node = int(self._parent[node])
        return tuple(reversed(symbols[:length]))

    def count_at(self, index: int, counter: Counter) -> int:
        """The counter's value at point `index`."""
        return int(self._node_counts(counter)[self._root(index)])

    def _root(self, index: int) -> int:
        return int(self._column_node[self.trees[index].columns.start])

    def holding(self, predicate: Elementary) -> Bits:
        """The columns at whose history an elementary predicate holds."""
        match predicate:
            case Did(action):
                return self._symbol_from_end(1, action)
            case Ends(suffix):
                bits = self.everything
                for place, symbol in enumerate(reversed(suffix)):
                    bits = bits & self._symbol_from_end(place, symbol)
                return bits
            case Reached(counter, threshold):
                return self._compared(counter, threshold, every=False)
            case Every(counter, period):
                return self._compared(counter, period, every=True)

    def certain(self, policy: Leaf) -> Bits:
        """The columns whose action a deterministic elementary policy takes."""
        match policy:
            case Do(action):
                chosen = np.full(self._column_node.shape, action)
            case CopyObservation():
                chosen = np.maximum(self._last_symbol(0), 0) % self.n_actions
            case CopyAction():
                chosen = np.maximum(self._last_symbol(1), 0) % self.n_actions
            case Cycle(word):
                return self._cycled(word)
        return self._pack((self._column_action == chosen) & (self._column_node != _NO_SYMBOL))

    def latched(self, bits: Bits) -> Bits:
        """The columns at whose history, or at an earlier prefix of it, a predicate holds."""
        result: Bits = kernels.latched(bits, self.everything, self.nodes)
        return result

    def plainly(self, predicate: Elementary) -> Elementary:
        """The predicate with its number written plainly; one that is too large, as T' + 1.

        T' is the length of the longest history here, so the two are equal here.
        """
        match predicate:
            case Reached(counter, number):
                return Reached(counter, self._plain(number))
            case Every(counter, number):
                return Every(counter, self._plain(number))
            case _:
                return predicate

    def begins_with(self, cycle: Cycle) -> bool:
        """Whether a cycle takes every action before the first point."""
        word, actions = cycle.word, self.actions
        return all(word[t % len(word)] == actions[t] for t in range(self.points[0].n_steps))

    def unpack(
        self, bits: NDArray[np.uint64], segment: Segment, rows: NDArray[np.integer] | None = None
    ) -> NDArray[np.bool_]:
        """Membership of each column of `segment`.

        Args:
            bits: bitsets, shape (n, n_words).
            segment: which columns.
            rows: which of the bitsets, shape (m,), all by default.

        Returns:
            Shape (m, n_columns).
        """
        words = bits[:, segment.first_word : segment.end_word]
        words = np.ascontiguousarray(words if rows is None else words[rows])
        flags = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")
        return flags[:, : segment.n_columns].view(np.bool_)

    def _lay_out_nodes(self) -> None:
        """Histories as nodes: chain 0..T, then off each point its path and tree."""
        n_chain = self.n_steps + 1
        parents = [np.arange(-1, n_chain - 1)]
        actions = [np.concatenate([[_NO_SYMBOL], self.actions])]
        observations = [np.concatenate([[_NO_SYMBOL], self.observations])]
        self._tree_parents, tree_actions, tree_observations = _tree_shape(self.tree)
        n_nodes = n_chain
        self._path_nodes: list[list[int]] = []
        self._tree_nodes: list[NDArray[np.int64]] = []
        for point in self.points:
            path = [point.n_steps]
            for action, observation in zip(point.extra[::2], point.extra[1::2], strict=True):
                parents.append(np.array([path[-1]]))
                actions.append(np.array([action]))
                observations.append(np.array([observation]))
                path.append(n_nodes)
                n_nodes += 1
            self._path_nodes.append(path[:-1])
            # The tree's own root is the path's end; its other nodes are new.
            nodes = np.concatenate(
                [[path[-1]], np.arange(n_nodes, n_nodes + len(self._tree_parents) - 1)]
            ).astype(np.int64)
            parents.append(nodes[self._tree_parents[1:]])
            actions.append(tree_actions[1:])
            observations.append(tree_observations[1:])
            self._tree_nodes.append(nodes)
            n_nodes += len(nodes) - 1
        self._parent = np.concatenate(parents).astype(np.int64)
        self._last_action = np.concatenate(actions).astype(np.int64)
        self._last_observation = np.concatenate(observations).astype(np.int64)
        self._time = self._accumulated(np.r_[0, np.ones(n_nodes - 1, dtype=np.int64)])

    def _accumulated(self, increments: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sums of `increments` over each history's prefixes, itself included."""
        sums = increments.copy()
        sums[: self.n_steps + 1] = np.cumsum(sums[: self.n_steps + 1])
        for level in self._levels:
            sums[level] += sums[self._parent[level]]
        return sums

    @cached_property
    def _levels(self) -> list[NDArray[np.int64]]:
        """The histories off h by their distance from it."""
        off_chain = np.arange(self.n_steps + 1, len(self._parent))
        levels = []
        before = off_chain[self._parent[off_chain] <= self.n_steps]
        while before.size:
            levels.append(before)
            before = off_chain[np.isin(self._parent[off_chain], before)]
        return levels

    def _lay_out_columns(self) -> None:
        nodes: list[NDArray[np.int64]] = []
        actions: list[NDArray[np.int64]] = []
        n_words = 0

        def add(segment_nodes: NDArray[np.int64], segment_actions: NDArray[np.int64]) -> Segment:
            nonlocal n_words
            segment = Segment(first_word=n_words, n_columns=len(segment_nodes))
            n_words = segment.end_word
            padding = np.full(-len(segment_nodes) % WORD, _NO_SYMBOL)
            nodes.extend([segment_nodes, padding])
            actions.extend([segment_actions, padding])
            return segment

        cuts = sorted({0, *(s.n_steps for s in self.points)})
        self.chain = tuple(
            add(np.arange(start, end), self.actions[start:end]) for start, end in pairwise(cuts)
        )
        self.n_chain_segments = tuple(cuts.index(s.n_steps) for s in self.points)
        paths, trees = [], []
        for point, path, tree in zip(self.points, self._path_nodes, self._tree_nodes, strict=True):
            paths.append(add(np.array(path, dtype=np.int64), np.array(point.extra[::2])))
            trees.append(
                add(
                    np.repeat(tree, self.n_actions),
                    np.tile(np.arange(self.n_actions), len(tree)),
                )
            )
        self.paths, self.trees = tuple(paths), tuple(trees)
        self._column_node = np.concatenate(nodes).astype(np.int64)
        self._column_action = np.concatenate(actions).astype(np.int64)
        self._node_column = np.full(len(self._parent), _NO_SYMBOL)
        used = np.flatnonzero(self._column_node != _NO_SYMBOL)
        self._node_column[self._column_node[used]] = used
        self._symbol_bits: dict[tuple[int, int], Bits] = {}
        self._phase_bits: dict[tuple[int, int], Bits] = {}
        self._action_bits: dict[int, Bits] = {}
        self._counted: dict[Counter, kernels.Counted] = {}

    def _pack(self, columns: NDArray[np.bool_]) -> Bits:
        return np.packbits(columns, bitorder="little").view(np.uint64)

    def _symbol_from_end(self, place: int, symbol: int) -> Bits:
        """Columns whose history has `symbol` at `place` from its end (0: last observation)."""
        if (place, symbol) not in self._symbol_bits:
            self._symbol_bits[place, symbol] = self._pack(self._last_symbol(place) == symbol)
        return self._symbol_bits[place, symbol]

    def _last_symbol(self, place: int) -> NDArray[np.int64]:
        """The symbol at `place` from the end; at the start -1, for copying 0."""
        node = self._column_node
        for _ in range(place // 2):
            node = np.where(node == _NO_SYMBOL, _NO_SYMBOL, self._parent[node])
        symbols = self._last_action if place % 2 else self._last_observation
        return np.where(node == _NO_SYMBOL, _NO_SYMBOL, symbols[node])

    def _cycled(self, word: Sequence[int]) -> Bits:
        """The columns whose action a repeated word takes, from its actions at their steps."""
        bits = self.nothing
        for place, action in enumerate(word):
            bits = bits | (self._at_phase(place, len(word)) & self._with_action(action))
        return bits

    def _at_phase(self, place: int, period: int) -> Bits:
        """The columns whose history has `place` steps, up to multiples of `period`."""
        if (place, period) not in self._phase_bits:
            time = self._counts(Steps()).of_column
            self._phase_bits[place, period] = self._pack((time >= 0) & (time % period == place))
        return self._phase_bits[place, period]

    def _with_action(self, action: int) -> Bits:
        if action not in self._action_bits:
            self._action_bits[action] = self._pack(self._column_action == action)
        return self._action_bits[action]

    def _compared(self, counter: Counter, number: Number, *, every: bool) -> Bits:
        value = number_up_to(number, self._longest)
        if value is None:
            return self.nothing
        compare = kernels.multiples if every else kernels.reached
        bits: Bits = compare(value, self._counts(counter), self.everything, self.nodes)
        return bits

    def _plain(self, number: Number) -> Plain:
        value = number_up_to(number, self._longest)
        return Plain(self._longest + 1 if value is None else value)

    @cached_property
    def _longest(self) -> int:
        """T', the steps of the longest history."""
        return int(self._time.max())

    def _counts(self, counter: Counter) -> kernels.Counted:
        """The counter's value at each column, and where on the history it grows."""
        if counter not in self._counted:
            counts = self._node_counts(counter)
            along = counts[: self.n_steps + 1]
            self._counted[counter] = kernels.Counted(
                of_column=np.where(
                    self._column_node == _NO_SYMBOL, _NO_SYMBOL, counts[self._column_node]
                ),
                first=np.searchsorted(along, np.arange(along[-1] + 2)),
            )
        return self._counted[counter]

    def _node_counts(self, counter: Counter) -> NDArray[np.int64]:
        match counter:
            case Steps():
                return self._time
            case Seen(observation):
                counted = self._last_observation == observation
            case Done(action):
                counted = self._last_action == action
        return self._accumulated(counted.astype(np.int64))


def _symbols(
    name: str, values: Sequence[int] | NDArray[np.integer], size: int
) -> NDArray[np.int64]:
    symbols = np.asarray(values, dtype=np.int64).reshape(-1)
    outside = symbols[(symbols < 0) | (symbols >= size)]
    if outside.size:
        raise InvalidHistoryError(f"{name} must lie in 0..{size - 1}, got {outside[0]}")
    return symbols


def _tree_shape(
    tree: HistoryTree,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Parent, last action and last observation of a tree's histories, level by level."""
    parents = [np.array([-1])]
    actions = [np.array([_NO_SYMBOL])]
    observations = [np.array([_NO_SYMBOL])]
    first = 0
    for t in range(tree.horizon - 1):
        n = tree.n_histories(t)
        parents.append(np.repeat(np.arange(first, first + n), tree.branching))
        steps = np.tile(np.arange(tree.branching), n)
        actions.append(steps // tree.n_observations)
        observations.append(steps % tree.n_observations)
        first += n
    return np.concatenate(parents), np.concatenate(actions), np.concatenate(observations)
