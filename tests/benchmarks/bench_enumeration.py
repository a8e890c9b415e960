"""Enumeration and likelihoods of every policy program, against a plain interpreter in Python.

Program prefixes are the nodes of the code tree down to L bits: what a decoder visits that
explores every program. Program-symbols are programs times symbols of the history; those of
*living* programs, which give every action of the first steps positive probability, stand apart,
because an interpreter too would drop the others soon.
"""

import resource
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from rich.console import Console
from rich.table import Table

from mightnt.progress import track
from toy_world.programs.columns import ColumnLayout, QueryPoint
from toy_world.programs.enumeration import enumerate_policies
from toy_world.programs.language import Language
from toy_world.programs.posterior import posterior
from toy_world.programs.semantics import Trace, action_probabilities, latched_in
from toy_world.worlds.demonstrator import demonstrate, trusted_policy
from toy_world.worlds.environments import WORLDS, WorldName

SIZES = ((24, 10_000), (24, 100_000), (24, 1_000_000), (26, 100_000), (28, 100_000))
REPETITIONS = 2
N_POINTS = 40
HORIZON = 3
PLAIN_STEPS = 1000
PLAIN_PROGRAMS = 200
PLAIN_BITS = 16
SEED = 20241006

WORLD = WORLDS[WorldName.DOORBELL]
LANGUAGE = Language(n_actions=WORLD.n_actions, n_observations=WORLD.n_observations)


def layout_of(n_steps: int) -> ColumnLayout:
    """A demonstration, asked at times between 10 and its end."""
    tau = trusted_policy(WorldName.DOORBELL, LANGUAGE)
    actions, observations = demonstrate(WORLD, tau, n_steps, rng=np.random.default_rng(SEED))
    times = np.unique(np.geomspace(10, n_steps, N_POINTS).astype(int)).tolist()
    return ColumnLayout(
        actions,
        observations,
        [QueryPoint(n_steps=t) for t in times],
        n_actions=WORLD.n_actions,
        n_observations=WORLD.n_observations,
        horizon=HORIZON,
    )


def seconds(run: Callable[[], object], repetitions: int = REPETITIONS) -> float:
    """The shortest of several runs, in processor time of all threads."""
    best = float("inf")
    for _ in range(repetitions):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return best


def short(number: float) -> str:
    """Two digits and a power of ten, in few characters."""
    mantissa, exponent = f"{number:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def plain_rates() -> tuple[float, float]:
    """Prefixes and program-symbols a second of plain Python.

    Prefixes: making every program, by length. Symbols: the meaning of programs along a history,
    from its definition.
    """
    code = Language(n_actions=WORLD.n_actions, n_observations=WORLD.n_observations).policies
    spent = seconds(lambda: [*code.up_to(PLAIN_BITS)], repetitions=1)
    prefixes = code.n_prefixes(PLAIN_BITS) / spent
    tau = trusted_policy(WorldName.DOORBELL, LANGUAGE)
    history = demonstrate(WORLD, tau, PLAIN_STEPS, rng=np.random.default_rng(SEED))
    steps = list(zip(*(part.tolist() for part in history), strict=True))
    programs = [program for _, program in code.up_to(PLAIN_BITS)]
    chosen = programs[:: max(len(programs) // PLAIN_PROGRAMS, 1)]

    def run() -> None:
        for program in chosen:
            trace = Trace(
                n_actions=WORLD.n_actions,
                n_observations=WORLD.n_observations,
                latched=latched_in(program),
            )
            for action, observation in steps:
                _ = action_probabilities(program, trace)[action]
                trace.advance(action, observation)

    return prefixes, len(chosen) * PLAIN_STEPS / seconds(run, repetitions=1)


def main() -> None:
    """Measure and print."""
    console = Console()
    prefixes_plain, symbols_plain = plain_rates()
    table = Table(title="Every policy program of at most L bits along T steps, processor seconds")
    for header in (
        "L",
        "T",
        "programs",
        "living",
        "seconds",
        "prefixes\n/s",
        "symbols\n/s",
        "query\nms",
        "GiB\nso far",
    ):
        table.add_column(header, justify="right")
    rates = []
    for limit, n_steps in track(SIZES, "enumerating"):
        layout = layout_of(n_steps)
        enumeration = enumerate_policies(LANGUAGE, layout, limit)
        spent = seconds(partial(enumerate_policies, LANGUAGE, layout, limit))
        query = seconds(partial(posterior, enumeration, len(layout.points) - 1))
        living = int(enumeration.counts.sum())
        rates.append(
            (
                LANGUAGE.policies.n_prefixes(limit) / spent,
                enumeration.n_programs * n_steps / spent,
                living * n_steps / spent,
            )
        )
        table.add_row(
            str(limit),
            *map(short, (n_steps, enumeration.n_programs, living)),
            f"{spent:.2f}",
            *map(short, rates[-1][:2]),
            f"{1e3 * query:.1f}",
            f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f}",
        )
    console.print(table)
    for name, achieved, plain in zip(
        ("program prefixes/s", "program-symbols/s", "program-symbols/s of living programs"),
        map(max, zip(*rates, strict=True)),
        (prefixes_plain, symbols_plain, symbols_plain),
        strict=True,
    ):
        console.print(
            f"{name}: {short(achieved)} at best, plain Python {short(plain)}: "
            f"{achieved / plain:,.0f} times"
        )
    console.print("(prefixes with all likelihoods; in plain Python without any)")


if __name__ == "__main__":
    main()
