"""The simplest unprecedented event yet to occur, against time.

See `toy_world.studies.simple_events`.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from mightnt.figure_style import BLACK, CYCLE, GREY, MARKERS, new_figure
from mightnt.tables import Column, Evidence, Table, Written
from theory.paper import Statement
from toy_world.demo import Presentation
from toy_world.demo_proposition2 import Proposition2Options
from toy_world.studies.simple_events import (
    ClockEvent,
    EventChange,
    SimpleEvents,
    log_star,
    simple_events,
)

_FROM_DECADE: Final = 2
"""How fast K grows is stated from 10^2 steps on."""


def compute(options: Proposition2Options) -> SimpleEvents:
    """Along histories, and by the clock alone."""
    return simple_events(limit_bits=options.bits, n_steps=options.steps, rng=options.rng())


def tables(options: Proposition2Options, data: SimpleEvents) -> tuple[Table, ...]:
    """The clock's events, and those along histories."""
    return (_clock_table(data.clock_events), _world_table(data.changes, options))


def _clock_table(events: Sequence[ClockEvent]) -> Table:
    rows = []
    for each in events:
        log2_t = each.decade * math.log2(10)
        rows.append(
            (
                Written(f"10^{each.decade}", {"decade": each.decade}),
                each.bits,
                each.event,
                log2_t,
                math.log2(log2_t) if log2_t > 1 else 0.0,
                log_star(10**each.decade),
            )
        )
    return Table(
        name="clock",
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


def _world_table(changes: Sequence[EventChange], options: Proposition2Options) -> Table:
    return Table(
        name="demonstrators",
        title="Demonstrators: the simplest event yet to occur, where its length changes",
        columns=(
            Column(header="world"),
            Column(header="demonstrator"),
            Column(header="from t on"),
            Column(header="K (bits)", evidence=Evidence.EXACT),
            Column(header="event: latch of", evidence=Evidence.EXACT),
            Column(header="occurs at", evidence=Evidence.EXACT),
        ),
        rows=tuple(
            (
                each.world.value,
                each.demonstrator,
                each.time,
                each.bits,
                each.event,
                each.first_time,
            )
            for each in changes
        ),
        notes=(
            f"Exact among the events of at most {options.bits} bits that occur within "
            f"{options.steps:,} steps, and the clock's of any length.",
        ),
    )


def findings(options: Proposition2Options, data: SimpleEvents) -> tuple[str, ...]:
    """How simple such an event stays, and what is not shown."""
    last = data.clock_events[-1]
    (first,) = (each for each in data.clock_events if each.decade == _FROM_DECADE)
    most = max(max(bits) for bits in data.bits_by_world.values())
    return (
        f"Up to 10^{last.decade} steps some event of at most {last.bits} bits "
        f"is yet to occur in every environment, {last.event}; log2 of that time is "
        f"{last.decade * math.log2(10):.0f}.",
        f"Along {options.steps:,} steps of {len(data.bits_by_world)} demonstrators it never takes "
        f"more than {most} bits.",
        f"From 10^{first.decade} to 10^{last.decade} the clock's K rises by "
        f"{last.bits - first.bits} bits, log2 log2 t by 9. That K grows slower "
        "than every computable function is true of a universal machine and is not shown "
        "here: this language is total (proofs_check: simple-events-clock, -printed).",
    )


def draw(options: Proposition2Options, data: SimpleEvents) -> Figure:
    """K against t on histories, and of the clock against the number of digits of t."""
    del options
    figure = new_figure(height_inches=2.9)
    near, far = figure.subplots(1, 2, sharey=True)
    times = np.array(data.times, dtype=float)
    for (name, bits), colour, marker in zip(
        data.bits_by_world.items(), CYCLE, MARKERS, strict=False
    ):
        near.step(times, bits, where="post", color=colour, alpha=0.4)
        near.plot(times, bits, marker, color=colour, markersize=3, label=name.value)
    near.plot(times, np.log2(times), color=GREY, linestyle="--", label="log2 t")
    near.set(xscale="log", xlabel="t (steps)", ylabel="simplest event yet to occur (bits)")
    near.set(ylim=(0, 20), yticks=range(0, 21, 4))
    near.set_title("Along each demonstrator's history")
    near.legend(loc="upper left", ncols=2)

    decades, bits = np.array(data.clock, dtype=float).T
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


PRESENTATION: Final = Presentation(
    name="proposition2",
    statements=(Statement.SIMPLE_EVENTS,),
    options_type=Proposition2Options,
    data_type=SimpleEvents,
    compute=compute,
    tables=tables,
    findings=findings,
    draw=draw,
)
