"""Proposition 2: the simplest unprecedented event yet to occur stays simple for ever.

Shown twice: by the clock alone, which bounds every environment, at times far beyond any that can
be simulated; and for several demonstrators in their worlds, every short event evaluated along
one long history. What the toy can prove is its own inverse-fast bound (proofs_check,
`simple-events-clock`): the language is total, so that its lengths are computable, and "slower
than every computable function" is true of universal machines only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from mightnt.progress import track
from toy_world.programs.events import (
    LaterEvent,
    simplest_later_clock_event,
    simplest_later_events,
)
from toy_world.programs.language import Language
from toy_world.worlds.demonstrator import demonstrate
from toy_world.worlds.environments import WorldName
from toy_world.worlds.setting import Setting, setting_of

CLOCK_DECADES: Final = (0, 1, 2, 3, 4, 5, 6, 9, 12, 18, 30, 100, 300, 1000)
CLOCK_LANGUAGE: Final = Language(n_actions=3, n_observations=2)
_N_TIMES: Final = 36


@dataclass(frozen=True, kw_only=True)
class ClockEvent:
    """The clock's simplest event that is yet to occur at time 10^decade.

    Attributes:
        decade: log10 of the time in steps.
        bits: the event's length, K.
        event: what it waits for.
    """

    decade: int
    bits: int
    event: str


@dataclass(frozen=True, kw_only=True)
class EventChange:
    """From some time on another event is the simplest that is yet to occur.

    Attributes:
        world: in which history.
        demonstrator: who acts in it.
        time: from when on, in steps.
        bits: the event's length, K, another one than before.
        event: what it waits for.
        first_time: when it occurs, in steps; None if that number is too large to write out.
    """

    world: WorldName
    demonstrator: str
    time: int
    bits: int
    event: str
    first_time: int | None


@dataclass(frozen=True, kw_only=True)
class SimpleEvents:
    """K of the simplest unprecedented event yet to occur, against time.

    Attributes:
        times: in steps, increasing.
        bits_by_world: K at these times along each world's history.
        changes: where it changes there.
        clock: (log10 of the time, K by the clock alone).
        clock_events: the events behind them.
    """

    times: tuple[int, ...]
    bits_by_world: dict[WorldName, tuple[int, ...]]
    changes: tuple[EventChange, ...]
    clock: tuple[tuple[int, int], ...]
    clock_events: tuple[ClockEvent, ...]


def log_star(t: int) -> int:
    """How often log2 must be applied to reach at most 1, exactly for integers of any size."""
    height, tower = 0, 1
    while tower < t:
        height, tower = height + 1, 2**tower if tower < t.bit_length() else t
    return height


def simple_events(*, limit_bits: int, n_steps: int, rng: np.random.Generator) -> SimpleEvents:
    """The simplest later events along a demonstration in each world, and the clock's.

    Args:
        limit_bits: L: every event of at most that many bits is evaluated.
        n_steps: T of each history.
        rng: draws the histories.
    """
    times = tuple(sorted({int(x) for x in np.geomspace(1, n_steps - 1, _N_TIMES)}))
    bits_by_world: dict[WorldName, tuple[int, ...]] = {}
    changes: list[EventChange] = []
    for name in track(WorldName, "worlds", total=len(WorldName)):
        setting = setting_of(name, horizon=1)
        actions, observations = demonstrate(setting.world, setting.tau, n_steps, rng=rng)
        found = simplest_later_events(
            setting.language, actions, observations, times, limit_bits=limit_bits
        )
        bits_by_world[name] = tuple(event.bits for event in found)
        changes += _changes(setting, times, found)
    clock = {
        decade: simplest_later_clock_event(CLOCK_LANGUAGE, 10**decade) for decade in CLOCK_DECADES
    }
    return SimpleEvents(
        times=times,
        bits_by_world=bits_by_world,
        changes=tuple(changes),
        clock=tuple((decade, later.bits) for decade, later in clock.items()),
        clock_events=tuple(
            ClockEvent(
                decade=decade,
                bits=later.bits,
                event=CLOCK_LANGUAGE.show(later.event.predicate),
            )
            for decade, later in clock.items()
        ),
    )


def _changes(
    setting: Setting, times: Sequence[int], found: Sequence[LaterEvent]
) -> list[EventChange]:
    lengths = [None, *(later.bits for later in found)]
    return [
        EventChange(
            world=setting.name,
            demonstrator=setting.language.show(setting.tau),
            time=t,
            bits=later.bits,
            event=setting.language.show(later.event.predicate),
            first_time=later.first_time,
        )
        for t, later, before in zip(times, found, lengths, strict=False)
        if later.bits != before
    ]
