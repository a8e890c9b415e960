"""Stored classes of short programs: conditions and policies, merged by what they do on a layout.

Programs are met from short to long. All constructors act column by column (a latch along
prefixes, which are columns too), so a composed program's class follows from the classes of its
parts, and each combination of classes is evaluated once however many programs it stands for.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import product
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from theory.errors import UnreachableLengthError
from toy_world.programs import kernels
from toy_world.programs.codes import Code, DyadicCode
from toy_world.programs.columns import Bits, ColumnLayout, Elementary, Leaf
from toy_world.programs.kernels import Fingerprints, Keys, Store
from toy_world.programs.language import (
    And,
    CopyAction,
    CopyObservation,
    Cycle,
    Did,
    Do,
    Ends,
    Event,
    Ever,
    Every,
    If,
    Language,
    Latch,
    Mix,
    Not,
    Or,
    Policy,
    Predicate,
    Reached,
    Switch,
)

ALWAYS: Final = 0
"""The condition that holds at every column is the first one of every store."""
MOST_BITS: Final = 50
"""Weights in units of 2^-L and counts of programs stay within 64-bit integers up to here."""

_CERTAIN: Final = np.ones(1)
"""The probabilities of a single row where something is certain."""

PolicyRows: TypeAlias = dict[float, Bits]
"""A policy: for each positive probability that it takes, the columns where it takes it."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Classes of predicates and events of at most `limit_bits` bits.

    Attributes:
        limit_bits: how long their programs may be.
        bits: the columns at whose history each class holds, shape (n, n_words).
        as_predicate: number of predicates of each length, shape (n, limit_bits + 1).
        as_event: number of events of each length; same shape.
        predicates: the shortest predicate of each class that has one.
        events: the shortest event, likewise.
    """

    limit_bits: int
    bits: NDArray[np.uint64]
    as_predicate: NDArray[np.int64]
    as_event: NDArray[np.int64]
    predicates: dict[int, Predicate]
    events: dict[int, Event]


@dataclass(frozen=True, kw_only=True)
class Policies:
    """Classes of policies, those short enough to be a part of another one, and longer leaves.

    Attributes:
        store: for each class one set of columns per positive probability; exact (dyadic).
        fingerprints: shape (n, N_KEYS).
        counts: number of programs of each length up to that of a part, 0 beyond, shape
            (n, L + 1).
        leaf_counts: of those alone that have no policy as a part, up to L, same shape.
        shortest: length of the shortest program, not decreasing, shape (n,).
        programs: the shortest program of each class.
    """

    store: Store
    fingerprints: Fingerprints
    counts: NDArray[np.int64]
    leaf_counts: NDArray[np.int64]
    shortest: NDArray[np.int64]
    programs: tuple[Policy, ...]


@dataclass(frozen=True, kw_only=True)
class PartLimits:
    """How long the parts of a policy program of at most L bits can be.

    Attributes:
        total: L.
        condition: of a condition; less than the shortest, at least -1, if none fits.
        policy: of a policy that is part of another one; likewise.
        condition_of_part: of a condition in such a policy; likewise.
        least_policy: the length of the shortest policy.
        if_tag: what `if` itself costs.
        switch_tag: what `switch` itself costs.
        mix_tag: what `mix` itself costs.
    """

    total: int
    condition: int
    policy: int
    condition_of_part: int
    least_policy: int
    if_tag: int
    switch_tag: int
    mix_tag: int


def part_limits(language: Language, total: int) -> PartLimits:
    """The limits for programs of at most `total` bits.

    Raises:
        UnreachableLengthError: not even the shortest policy fits.
    """
    policies = language.policies
    least_policy = _least_bits(policies)
    if total < least_policy:
        raise UnreachableLengthError(
            f"the shortest policy has {least_policy} bits; allow at least that many, got {total}"
        )
    tags = {p.constructor: len(p.tag) for p in policies.productions}
    branch_tag = min(tags[If], tags[Switch])
    in_branch = total - branch_tag - _least_bits(language.predicates) - least_policy
    in_mixture = total - tags[Mix] - _least_bits(DyadicCode()) - least_policy
    policy = max(in_branch, in_mixture, -1)
    return PartLimits(
        total=total,
        condition=max(total - branch_tag - 2 * least_policy, -1),
        policy=policy,
        condition_of_part=max(policy - branch_tag - 2 * least_policy, -1),
        least_policy=least_policy,
        if_tag=tags[If],
        switch_tag=tags[Switch],
        mix_tag=tags[Mix],
    )


def condition_bits(condition: Predicate | Event, layout: ColumnLayout) -> Bits:
    """The columns at whose history one predicate holds, or one event has happened."""
    match condition:
        case Not(part):
            return layout.everything & ~condition_bits(part, layout)
        case And(left, right):
            return condition_bits(left, layout) & condition_bits(right, layout)
        case Or(left, right):
            return condition_bits(left, layout) | condition_bits(right, layout)
        case Ever(part) | Latch(part):
            return layout.latched(condition_bits(part, layout))
        case elementary:
            return layout.holding(elementary)


def policy_rows(policy: Policy, layout: ColumnLayout) -> PolicyRows:
    """One policy on a layout."""
    match policy:
        case Mix(weight, first, second):
            parts = policy_rows(first, layout), policy_rows(second, layout)
            return _blended(float(weight), *parts, everything=layout.everything)
        case If(condition, then, otherwise) | Switch(condition, then, otherwise):
            holds = condition_bits(condition, layout)
            return _joined(holds, policy_rows(then, layout), policy_rows(otherwise, layout))
        case leaf:
            return {1.0: layout.certain(leaf)}


def _joined(holds: Bits, then: PolicyRows, otherwise: PolicyRows) -> PolicyRows:
    rows = {v: row & holds for v, row in then.items()}
    for v, row in otherwise.items():
        rows[v] = rows[v] | (row & ~holds) if v in rows else row & ~holds
    return rows


def _blended(
    weight: float, first: PolicyRows, second: PolicyRows, *, everything: Bits
) -> PolicyRows:
    first, second = (
        {**part, 0.0: everything & ~np.bitwise_or.reduce(list(part.values()), axis=0)}
        for part in (first, second)
    )
    rows: PolicyRows = {}
    for (v, row), (u, other) in product(first.items(), second.items()):
        if value := weight * v + (1.0 - weight) * u:
            meet = row & other
            rows[value] = rows[value] | meet if value in rows else meet
    return rows


def fingerprint(rows: PolicyRows, *, keys: Keys) -> Fingerprints:
    """The fingerprint of a policy, shape (N_KEYS,); see `toy_world.programs.kernels`."""
    bits = np.array(list(rows.values()))
    result: Fingerprints = kernels.fingerprint(bits, np.array(list(rows)), keys)
    return result


class _GrowingRows:
    """Bitsets in one growing array."""

    def __init__(self, n_words: int) -> None:
        self._array = np.empty((64, n_words), dtype=np.uint64)
        self.n = 0

    def append(self, row: Bits) -> int:
        if self.n == len(self._array):
            # In place where the allocator can: the store is most of the memory.
            self._array.resize((self.n + self.n // 4, self._array.shape[1]), refcheck=False)
        self._array[self.n] = row
        self.n += 1
        return self.n - 1

    def __getitem__(self, index: int) -> Bits:
        row: Bits = self._array[index]
        return row

    def array(self) -> NDArray[np.uint64]:
        rows: NDArray[np.uint64] = self._array[: self.n]
        return rows


class _Counts:
    """How many programs of each length each class has."""

    def __init__(self, limit_bits: int) -> None:
        self._width = limit_bits + 1
        self._of_class: list[list[int]] = []
        self._by_length: list[dict[int, int]] = [{} for _ in range(self._width)]

    def new_class(self) -> None:
        self._of_class.append([0] * self._width)

    def add(self, n_bits: int, index: int, count: int) -> None:
        self._of_class[index][n_bits] += count
        at_length = self._by_length[n_bits]
        at_length[index] = at_length.get(index, 0) + count

    def of_length(self, n_bits: int) -> list[tuple[int, int]]:
        """Classes with programs of exactly `n_bits` bits, and how many; none if negative."""
        return list(self._by_length[n_bits].items()) if n_bits >= 0 else []

    def table(self, width: int) -> NDArray[np.int64]:
        table = np.zeros((len(self._of_class), width), dtype=np.int64)
        if self._of_class:
            table[:, : self._width] = self._of_class
        return table


class _Composed(NamedTuple):
    """A predicate with parts, by the classes of these."""

    constructor: type[Not | Ever | And | Or]
    parts: tuple[int, ...]


class _ConditionStore:
    """Builds `Conditions`."""

    def __init__(self, language: Language, layout: ColumnLayout, limit_bits: int) -> None:
        self._code = language.predicates
        self._layout = layout
        self.rows = _GrowingRows(layout.n_words)
        self._by_print: dict[bytes, int] = {}
        self._by_recipe: dict[Elementary | _Composed, int] = {}
        self.as_predicate = _Counts(limit_bits)
        self.as_event = _Counts(limit_bits)
        self.predicates: dict[int, Predicate] = {}
        self.events: dict[int, Event] = {}
        self._intern(layout.everything)
        for n_bits in range(limit_bits + 1):
            for program in self._elementary(n_bits):
                c = self._class_of(self._layout.plainly(program))
                self.as_predicate.add(n_bits, c, 1)
                self.predicates.setdefault(c, program)
            for composed, count in self._composed(n_bits):
                c = self._class_of(composed)
                self.as_predicate.add(n_bits, c, count)
                if c not in self.predicates:
                    make: type[Any] = composed.constructor
                    self.predicates[c] = make(*(self.predicates[part] for part in composed.parts))
            for c, count in self.as_predicate.of_length(n_bits):
                event = self._class_of(_Composed(Ever, (c,)))
                self.as_event.add(n_bits, event, count)
                self.events.setdefault(event, Latch(self.predicates[c]))

    def _elementary(self, n_bits: int) -> Iterator[Elementary]:
        for constructor in (Ends, Did, Reached, Every):
            yield from self._code.made_by(constructor, n_bits)

    def _composed(self, n_bits: int) -> Iterator[tuple[_Composed, int]]:
        """Predicates of `n_bits` bits with parts, by these parts' classes, with how many."""
        of_length = self.as_predicate.of_length
        for unary in (Not, Ever):
            left = n_bits - len(self._code.production(unary).tag)
            yield from ((_Composed(unary, (c,)), count) for c, count in of_length(left))
        for binary in (And, Or):
            left = n_bits - len(self._code.production(binary).tag)
            for first in range(left + 1):
                for (c, n_c), (d, n_d) in product(of_length(first), of_length(left - first)):
                    yield _Composed(binary, (min(c, d), max(c, d))), n_c * n_d

    def _class_of(self, recipe: Elementary | _Composed) -> int:
        found = self._by_recipe.get(recipe)
        if found is None:
            found = self._by_recipe[recipe] = self._intern(self._evaluate(recipe))
        return found

    def _evaluate(self, recipe: Elementary | _Composed) -> Bits:
        if not isinstance(recipe, _Composed):
            return self._layout.holding(recipe)
        bits = [self.rows[c] for c in recipe.parts]
        if recipe.constructor is Not:
            return self._layout.everything & ~bits[0]
        if recipe.constructor is Ever:
            return self._layout.latched(bits[0])
        return bits[0] & bits[1] if recipe.constructor is And else bits[0] | bits[1]

    def _intern(self, bits: Bits) -> int:
        key = kernels.fingerprint(bits[None], _CERTAIN, self._layout.keys).tobytes()
        if key not in self._by_print:
            self._by_print[key] = self.rows.append(bits)
            self.as_predicate.new_class()
            self.as_event.new_class()
        return self._by_print[key]


def classes_of_conditions(language: Language, layout: ColumnLayout, limit_bits: int) -> Conditions:
    """Every predicate and event of at most `limit_bits` bits, merged by where it holds.

    Class `ALWAYS` comes first, whether or not a program so short means it.

    Args:
        language: the language.
        layout: where programs are compared.
        limit_bits: no class but `ALWAYS` if negative.
    """
    store = _ConditionStore(language, layout, limit_bits)
    return Conditions(
        limit_bits=limit_bits,
        bits=store.rows.array(),
        as_predicate=store.as_predicate.table(limit_bits + 1),
        as_event=store.as_event.table(limit_bits + 1),
        predicates=store.predicates,
        events=store.events,
    )


class _Join(NamedTuple):
    """The class `then` where a condition holds and the class `otherwise` elsewhere."""

    condition: int
    then: int
    otherwise: int


class _Blend(NamedTuple):
    """A mixture of two classes."""

    weight: Fraction
    first: int
    second: int


class _PolicyStore:
    """Builds `Policies`."""

    def __init__(
        self,
        language: Language,
        layout: ColumnLayout,
        conditions: Conditions,
        limits: PartLimits,
    ) -> None:
        self._code = language.policies
        self._layout = layout
        self._conditions = conditions
        self._limits = limits
        self.rows = _GrowingRows(layout.n_words)
        self.row_values: list[float] = []
        self.starts = [0]
        self.fingerprints: list[Fingerprints] = []
        self.programs: list[Policy] = []
        self.shortest: list[int] = []
        self._by_print: dict[bytes, int] = {}
        self._by_recipe: dict[Leaf | _Join | _Blend, int] = {}
        self._where: dict[tuple[int, int], Fingerprints] = {}
        self.counts = _Counts(limits.total)
        self.leaf_counts = _Counts(limits.total)
        for n_bits in range(limits.total + 1):
            self._add_leaves(n_bits)
            if n_bits <= limits.policy:
                self._add_branches(n_bits)
                self._add_mixtures(n_bits)

    def _add_leaves(self, n_bits: int) -> None:
        is_part = n_bits <= self._limits.policy
        for constructor in (Do, CopyObservation, CopyAction, Cycle):
            for program in self._code.made_by(constructor, n_bits):
                # Long words are many, but few of them are alive.
                if is_part or constructor is not Cycle or self._layout.begins_with(program):
                    c = self._class_of(n_bits, program, partial(_same, program))
                    self.leaf_counts.add(n_bits, c, 1)
                    if is_part:
                        self.counts.add(n_bits, c, 1)

    def _add_branches(self, n_bits: int) -> None:
        conditions = self._conditions
        for constructor, table, programs in (
            (If, conditions.as_predicate, conditions.predicates),
            (Switch, conditions.as_event, conditions.events),
        ):
            left = n_bits - len(self._code.production(constructor).tag)
            for bits in range(min(left, conditions.limit_bits) + 1):
                counts = table[:, bits]
                for b in np.flatnonzero(counts).tolist():
                    for p, q, count in self._pairs(left - bits):
                        make = partial(self._branch, constructor, programs[b], p, q)
                        c = self._class_of(n_bits, _Join(b, p, q), make)
                        self.counts.add(n_bits, c, int(counts[b]) * count)

    def _add_mixtures(self, n_bits: int) -> None:
        left = n_bits - len(self._code.production(Mix).tag)
        for bits, weight in DyadicCode().up_to(max(left, 0)):
            for p, q, count in self._pairs(left - bits):
                make = partial(self._mixture, weight, p, q)
                same = _Blend(weight, p, q) if p <= q else _Blend(1 - weight, q, p)
                self.counts.add(n_bits, self._class_of(n_bits, same, make), count)

    def _pairs(self, n_bits: int) -> Iterator[tuple[int, int, int]]:
        """Ordered pairs of classes by programs of `n_bits` bits together, with how many."""
        for first in range(n_bits + 1):
            ways = product(self.counts.of_length(first), self.counts.of_length(n_bits - first))
            yield from ((p, q, n_p * n_q) for (p, n_p), (q, n_q) in ways)

    def _class_of(
        self, n_bits: int, recipe: Leaf | _Join | _Blend, make: Callable[[], Policy]
    ) -> int:
        found = self._by_recipe.get(recipe)
        if found is None:
            print_, rows = self._print(recipe)
            key = print_.tobytes()
            if key not in self._by_print:
                self._by_print[key] = len(self.programs)
                rows = self._evaluate(recipe) if rows is None else rows
                for value, row in sorted(rows.items()):
                    if row.any():
                        self.rows.append(row)
                        self.row_values.append(value)
                self.starts.append(self.rows.n)
                self.fingerprints.append(print_)
                self.programs.append(make())  # programs come from short to long
                self.shortest.append(n_bits)
                self.counts.new_class()
                self.leaf_counts.new_class()
            found = self._by_recipe[recipe] = self._by_print[key]
        return found

    def _print(self, recipe: Leaf | _Join | _Blend) -> tuple[Fingerprints, PolicyRows | None]:
        """The fingerprint of a recipe, and its rows where they were needed to find it."""
        if isinstance(recipe, _Join):
            condition, then, otherwise = recipe
            outside = self.fingerprints[otherwise] - self._print_where(condition, otherwise)
            return self._print_where(condition, then) + outside, None
        rows = self._evaluate(recipe)
        return fingerprint(rows, keys=self._layout.keys), rows

    def _print_where(self, condition: int, p: int) -> Fingerprints:
        """The fingerprint of policy p where a condition holds."""
        found = self._where.get((condition, p))
        if found is None:
            own = slice(self.starts[p], self.starts[p + 1])
            found = self._where[condition, p] = kernels.fingerprint(
                self.rows.array()[own] & self._conditions.bits[condition],
                np.array(self.row_values[own]),
                self._layout.keys,
            )
        return found

    def _evaluate(self, recipe: Leaf | _Join | _Blend) -> PolicyRows:
        match recipe:
            case _Join(condition, then, otherwise):
                holds = self._conditions.bits[condition]
                return _joined(holds, self._rows_of(then), self._rows_of(otherwise))
            case _Blend(weight, first, second):
                parts = self._rows_of(first), self._rows_of(second)
                return _blended(float(weight), *parts, everything=self._layout.everything)
            case leaf:
                return {1.0: self._layout.certain(leaf)}

    def _rows_of(self, p: int) -> PolicyRows:
        own = range(self.starts[p], self.starts[p + 1])
        return {self.row_values[r]: self.rows[r] for r in own}

    def _branch(
        self, constructor: type[Any], condition: Predicate | Event, p: int, q: int
    ) -> Policy:
        program: Policy = constructor(condition, self.programs[p], self.programs[q])
        return program

    def _mixture(self, weight: Fraction, p: int, q: int) -> Policy:
        return Mix(weight, self.programs[p], self.programs[q])


def classes_of_policies(
    language: Language,
    layout: ColumnLayout,
    conditions: Conditions,
    limits: PartLimits,
) -> Policies:
    """Every policy that can be a part of one of L bits, and every leaf of L bits that is alive.

    Args:
        language: the language.
        layout: where programs are compared.
        conditions: at least up to `limits.condition` bits.
        limits: L and what follows from it.
    """
    found = _PolicyStore(language, layout, conditions, limits)
    return Policies(
        store=Store(found.rows.array(), np.array(found.row_values), np.array(found.starts)),
        fingerprints=np.array(found.fingerprints).reshape(-1, kernels.N_KEYS),
        counts=found.counts.table(limits.total + 1),
        leaf_counts=found.leaf_counts.table(limits.total + 1),
        shortest=np.array(found.shortest, dtype=np.int64),
        programs=tuple(found.programs),
    )


def _same(program: Policy) -> Policy:
    return program


def _least_bits(code: Code) -> int:
    return next(length for length, _ in code.up_to(MOST_BITS))
