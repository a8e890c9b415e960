"""Proposition 2: the simplest unprecedented event yet to occur stays simple for ever.

Shown twice: by the clock alone, which bounds every environment, at times far beyond any that can
be simulated; and for several demonstrators in their worlds, every short event evaluated along
one long history. What the toy can prove is its own inverse-fast bound (proofs_check,
`simple-events-clock`): the language is total, so that its lengths are computable, and "slower
than every computable function" is true of universal machines only.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from mightnt.figure_style import BLACK, CYCLE, GREY, MARKERS, new_figure
from mightnt.progress import track
from theory.errors import InvalidArgumentError
from theory.paper import Statement
from toy_world.demo import Column, Demo, DemoOptions, DemoResult, DemoTable, Evidence
from toy_world.programs.events import (
    LaterEvent,
    simplest_later_clock_event,
    simplest_later_events,
)
from toy_world.programs.language import Language
from toy_world.worlds.demonstrator import demonstrate, trusted_policy
from toy_world.worlds.environments import WORLDS, WorldName

CLOCK_DECADES: Final = (0, 1, 2, 3, 4, 5, 6, 9, 12, 18, 30, 100, 300, 1000)
_CLOCK_LANGUAGE: Final = Language(n_actions=3, n_observations=2)


@dataclass(frozen=True, kw_only=True)
class Proposition2Options(DemoOptions):
    """The simplest unprecedented event yet to occur, against time (Proposition 2)."""

    bits: int = 13
    """L: every event of at most that many bits is evaluated on each history."""
    steps: int = 100_000
    """T: steps of each demonstrator's history."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.bits <= 16:
            raise InvalidArgumentError(
                f"--bits must lie in 1..16 (memory grows as 2^bits), got {self.bits}"
            )
        if not 10 <= self.steps <= 10**6:
            raise InvalidArgumentError(f"--steps must lie in 10..10^6, got {self.steps}")


def log_star(t: int) -> int:
    """How often log2 must be applied to reach at most 1, exactly for integers of any size."""
    height, tower = 0, 1
    while tower < t:
        height, tower = height + 1, 2**tower if tower < t.bit_length() else t
    return height


def compute(options: Proposition2Options) -> DemoResult:
    """Both tables."""
    rng = options.rng()
    times = sorted({int(x) for x in np.geomspace(1, options.steps - 1, 36)})
    by_world: dict[str, list[int]] = {}
    rows: list[tuple[Any, ...]] = []
    for name in track(WorldName, "worlds", total=len(WorldName)):
        world = WORLDS[name]
        language = Language(n_actions=world.n_actions, n_observations=world.n_observations)
        policy = trusted_policy(name, language)
        actions, observations = demonstrate(world, policy, options.steps, rng=rng)
        found = simplest_later_events(
            language, actions, observations, times, limit_bits=options.bits
        )
        by_world[name.value] = [event.bits for event in found]
        last = None
        for t, later in zip(times, found, strict=True):
            if later.bits != last:
                rows.append(
                    (
                        name.value,
                        language.show(policy),
                        t,
                        later.bits,
                        language.show(later.event.predicate),
                        later.first_time,
                    )
                )
            last = later.bits
    clock = [
        (decade, simplest_later_clock_event(_CLOCK_LANGUAGE, 10**decade))
        for decade in CLOCK_DECADES
    ]
    most = max(max(bits) for bits in by_world.values())
    last_event = _CLOCK_LANGUAGE.show(clock[-1][1].event.predicate)
    return DemoResult(
        name="proposition2",
        statements=(Statement.SIMPLE_EVENTS,),
        findings=(
            f"Up to 10^{CLOCK_DECADES[-1]} steps some event of at most {clock[-1][1].bits} bits "
            f"is yet to occur in every environment, {last_event}; log2 of that time is "
            f"{CLOCK_DECADES[-1] * math.log2(10):.0f}.",
            f"Along {options.steps:,} steps of {len(by_world)} demonstrators it never takes more "
            f"than {most} bits.",
            f"From 10^2 to 10^{CLOCK_DECADES[-1]} the clock's K rises by "
            f"{clock[-1][1].bits - clock[2][1].bits} bits, log2 log2 t by 9. That K grows slower "
            "than every computable function is true of a universal machine and is not shown "
            "here: this language is total (proofs_check: simple-events-clock, -printed).",
        ),
        tables=(_clock_table(clock), _world_table(rows, options)),
        data={
            "times": times,
            "bits_by_world": by_world,
            "clock": [(decade, later.bits) for decade, later in clock],
        },
    )


def _clock_table(clock: list[tuple[int, LaterEvent]]) -> DemoTable:
    rows = []
    for decade, later in clock:
        t = 10**decade
        log2_t = decade * math.log2(10)
        rows.append(
            (
                f"10^{decade}",
                later.bits,
                _CLOCK_LANGUAGE.show(later.event.predicate),
                log2_t,
                math.log2(log2_t) if log2_t > 1 else 0.0,
                log_star(t),
            )
        )
    return DemoTable(
        title="The clock alone: an upper bound in every environment",
        columns=(
            Column(header="t"),
            Column(header="K (bits)", evidence=Evidence.EXACT),
            Column(header="event: latch of", evidence=Evidence.EXACT),
            Column(header="log2 t", evidence=Evidence.FLOAT),
            Column(header="log2 log2 t", evidence=Evidence.FLOAT),
            Column(header="log* t", evidence=Evidence.EXACT),
        ),
        rows=tuple(rows),
    )


def _world_table(rows: list[tuple[Any, ...]], options: Proposition2Options) -> DemoTable:
    return DemoTable(
        title="Demonstrators: the simplest event yet to occur, where its length changes",
        columns=(
            Column(header="world"),
            Column(header="demonstrator"),
            Column(header="from t on"),
            Column(header="K (bits)", evidence=Evidence.EXACT),
            Column(header="event: latch of", evidence=Evidence.EXACT),
            Column(header="occurs at", evidence=Evidence.EXACT),
        ),
        rows=tuple(rows),
        note=f"Exact among the events of at most {options.bits} bits that occur within "
        f"{options.steps:,} steps, and the clock's of any length.",
    )


def draw(result: DemoResult) -> Figure:
    """K against t on histories, and of the clock against the number of digits of t."""
    figure = new_figure(height_inches=2.9)
    near, far = figure.subplots(1, 2, sharey=True)
    times = np.array(result.data["times"], dtype=float)
    for (name, bits), colour, marker in zip(
        result.data["bits_by_world"].items(), CYCLE, MARKERS, strict=False
    ):
        near.step(times, bits, where="post", color=colour, alpha=0.4)
        near.plot(times, bits, marker, color=colour, markersize=3, label=name)
    near.plot(times, np.log2(times), color=GREY, linestyle="--", label="log2 t")
    near.set(xscale="log", xlabel="t (steps)", ylabel="simplest event yet to occur (bits)")
    near.set(ylim=(0, 20), yticks=range(0, 21, 4))
    near.set_title("Along each demonstrator's history")
    near.legend(loc="upper left", ncols=2)

    decades, bits = np.array(result.data["clock"], dtype=float).T
    far.plot(decades + 1, bits, "o-", color=BLACK, label="the clock, exact: bounds every world")
    fine = np.geomspace(1, decades[-1] + 1, 200)
    log2_t = np.maximum(fine - 1, 0.31) * math.log2(10)
    shown = log2_t < 14  # beyond, it would only cross the legend
    far.plot(fine[shown], log2_t[shown], color=GREY, linestyle="--", label="log2 t")
    far.plot(fine, np.log2(np.maximum(log2_t, 1)), color=GREY, linestyle=":", label="log2 log2 t")
    stars = [log_star(10 ** int(decade)) for decade in decades]
    far.plot(decades + 1, stars, color=GREY, linestyle="-.", label="log* t")
    far.set(xscale="log", xlabel="decimal digits of t")
    far.set_title("At any time, by the clock alone")
    far.legend(loc="upper right")
    return figure


DEMO: Final = Demo(name="proposition2", options_type=Proposition2Options, run=compute, draw=draw)

if __name__ == "__main__":
    DEMO.main()
