"""The tables of stored programs that composition shares, and how they come to where work is done.

Tables hold a bit for every stored program and column: hundreds of megabytes, where what they are
made from, a history and a few numbers, fits into some ten kilobytes. So they do not travel. Threads
of one process share one `SharedTables`, and the first of them that needs it builds it. Sent to
another process it goes as its `Description`; the processes of a machine then build the tables once
for all of them at their first tasks, one the conditions and another the policies
(`toy_world.programs.machine_folder`), and keep them until a task brings another description.

Building is deterministic: indices of conditions and policies mean the same in every process. And it
goes from short to long, so that the conditions that policies are made from are the first ones of
any longer table.
"""

import hashlib
import pickle
import weakref
import zlib
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from threading import Lock, RLock
from typing import Any, Final

import numpy as np

from toy_world.code_version import code_version
from toy_world.programs import kernels
from toy_world.programs.classes import (
    Conditions,
    PartLimits,
    Policies,
    classes_of_conditions,
    classes_of_policies,
    part_limits,
)
from toy_world.programs.columns import ColumnLayout, QueryPoint, Segment
from toy_world.programs.language import Language
from toy_world.programs.machine_folder import MachineFolder, Made

_SYMBOL: Final = np.dtype("<i8")


@dataclass(frozen=True, kw_only=True)
class Description:
    """All that tables are made from.

    Attributes:
        n_actions: |A|.
        n_observations: |O|.
        history: the actions, then the observations, compressed.
        points: of the layout.
        horizon: of the layout.
        limit_bits: L.
        event_bits: store conditions at least up to this length.
    """

    n_actions: int
    n_observations: int
    history: bytes
    points: tuple[QueryPoint, ...]
    horizon: int
    limit_bits: int
    event_bits: int

    def layout(self) -> ColumnLayout:
        """The columns, laid out again."""
        symbols = np.frombuffer(zlib.decompress(self.history), dtype=_SYMBOL)
        actions, observations = np.split(symbols, 2)
        return ColumnLayout(
            actions,
            observations,
            self.points,
            n_actions=self.n_actions,
            n_observations=self.n_observations,
            horizon=self.horizon,
        )


class SharedTables:
    """Stored conditions and policies, built where and when they are first asked for.

    Attributes:
        language: whose programs they are.
        layout: where programs are compared.
        limits: L and what follows from it.
    """

    def __init__(
        self, language: Language, layout: ColumnLayout, limit_bits: int, *, event_bits: int = 0
    ) -> None:
        """Nothing is built yet.

        Args:
            language: its alphabets are the layout's.
            layout: the history and the points.
            limit_bits: L.
            event_bits: store conditions at least up to this length.

        Raises:
            UnreachableLengthError: no policy is so short.
        """
        self.language = language
        self.layout = layout
        self.limits: PartLimits = part_limits(language, limit_bits)
        self._event_bits = event_bits
        self._lock = RLock()
        self._conditions: Conditions | None = None
        self._policies: Policies | None = None
        self._cover: kernels.Words | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Sent as what it is made from."""
        return _of_this_process, (self.description,)

    @cached_property
    def description(self) -> Description:
        """What the tables are made from."""
        layout = self.layout
        symbols = np.concatenate([layout.actions, layout.observations]).astype(_SYMBOL)
        return Description(
            n_actions=layout.n_actions,
            n_observations=layout.n_observations,
            history=zlib.compress(symbols.tobytes()),
            points=layout.points,
            horizon=layout.horizon,
            limit_bits=self.limits.total,
            event_bits=self._event_bits,
        )

    @property
    def conditions(self) -> Conditions:
        """The stored conditions."""
        with self._lock:
            if self._conditions is None:
                self._conditions = self._found_conditions()
            return self._conditions

    @property
    def policies(self) -> Policies:
        """The stored policies."""
        with self._lock:
            if self._policies is None:
                self._policies = self._found_policies()
            return self._policies

    def _found_conditions(self) -> Conditions:
        return self._conditions_up_to(max(self.limits.condition, self._event_bits))

    def _found_policies(self) -> Policies:
        return self._policies_of(self.conditions)

    def _conditions_up_to(self, limit_bits: int) -> Conditions:
        return classes_of_conditions(self.language, self.layout, limit_bits)

    def _policies_of(self, conditions: Conditions) -> Policies:
        return classes_of_policies(self.language, self.layout, conditions, self.limits)

    @property
    def cover(self) -> kernels.Words:
        """Where on the history up to the first point each policy has positive probability."""
        with self._lock:
            if self._cover is None:
                n_words = self.layout.words_before(0)
                self._cover = kernels.covers(self.policies.store, n_words)
            return self._cover


class TablesOfMachine(SharedTables):
    """Tables that the processes of a machine build together and hold once."""

    @cached_property
    def _folder(self) -> MachineFolder:
        key = hashlib.sha256(pickle.dumps((code_version(), self.description))).hexdigest()
        folder = MachineFolder(key)
        weakref.finalize(self, folder.release)
        return folder

    @cached_property
    def _found(self) -> tuple[Conditions, Policies]:
        made = self._folder.of(
            {"policies": self._made_policies, "conditions": self._made_conditions}
        )
        bits, conditions = made["conditions"]
        rows, policies = made["policies"]
        return (
            replace(conditions, bits=bits),
            replace(policies, store=policies.store._replace(rows=rows)),
        )

    def _found_conditions(self) -> Conditions:
        return self._found[0]

    def _found_policies(self) -> Policies:
        return self._found[1]

    def _made_conditions(self) -> Made:
        conditions = super()._found_conditions()
        return conditions.bits, replace(conditions, bits=_ELSEWHERE)

    def _made_policies(self) -> Made:
        short = self._conditions_up_to(self.limits.condition_of_part)
        policies = self._policies_of(short)
        rows = policies.store.rows
        return rows, replace(policies, store=policies.store._replace(rows=_ELSEWHERE))


_ELSEWHERE: Final = np.empty((0, 0), dtype=np.uint64)
_RECEIVING: Final = Lock()


def _of_this_process(description: Description) -> SharedTables:
    with _RECEIVING:  # else two tasks at once would build the same tables twice
        return _kept(description)


@lru_cache(maxsize=1)
def _kept(description: Description) -> SharedTables:
    language = Language(n_actions=description.n_actions, n_observations=description.n_observations)
    return TablesOfMachine(
        language,
        description.layout(),
        description.limit_bits,
        event_bits=description.event_bits,
    )


@dataclass(frozen=True, kw_only=True)
class TablesOnTrees:
    """What stored programs do off the history: a small part of the tables, which does travel.

    Attributes:
        first_word: the layout's word that is the first one here.
        conditions: as `Conditions.bits`, shape (n, words from `first_word` on).
        policies: as `Policies.store`, its rows as those of `conditions`.
    """

    first_word: int
    conditions: kernels.Words
    policies: kernels.Store

    @classmethod
    def of(cls, tables: SharedTables) -> "TablesOnTrees":
        """The end of the tables, copied."""
        first_word = tables.layout.paths[0].first_word
        rows, values, starts = tables.policies.store
        return cls(
            first_word=first_word,
            conditions=tables.conditions.bits[:, first_word:].copy(),
            policies=kernels.Store(rows[:, first_word:].copy(), values, starts),
        )

    def segment(self, segment: Segment) -> Segment:
        """Where a path's or tree's segment of the layout is here."""
        return Segment(first_word=segment.first_word - self.first_word, n_columns=segment.n_columns)
