"""The universal machine: prefixes enumerated and random programs run, in a second on one core.

Each figure is the best of several repetitions in processor time: other users of the machine
disturb less. The reference interpreter in Python runs the same random programs.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from toy_world.machine.definition import Limits, run
from toy_world.machine.enumeration import (
    Census,
    OutputTree,
    enumerate_programs,
    sample_programs,
)

REPETITIONS = 5
STEPS = 1000
N_SAMPLES = 200_000
N_REFERENCE = 2_000
SAMPLE_BITS = 64
SYMBOLS = 64
SEED = 20241006
PUBLIC_PROGRAMS_A_SECOND = 30_000
"""What the best public Python implementation of such a machine is taken to reach."""


def best_seconds(work: Callable[[], Any], repetitions: int = REPETITIONS) -> tuple[float, Any]:
    """The shortest of several runs, and what the last one returned."""
    work()
    best, result = float("inf"), None
    for _ in range(repetitions):
        start = time.process_time()
        result = work()
        best = min(best, time.process_time() - start)
    return best, result


def deviations(n_max: int) -> OutputTree:
    """The strings 0^n 1 up to n_max, as in `toy_world.studies.first_deviation`."""
    return OutputTree.of([(0,) * (n_max + 1), *((0,) * n + (1,) for n in range(n_max + 1))])


def compile_seconds() -> float:
    """How long the first call takes; next to nothing where compiled code was on disk."""
    start = time.perf_counter()
    limits = Limits(bits=4, steps=4)
    enumerate_programs(OutputTree.complete(1), limits=limits)
    sample_programs(1, limits=limits, max_symbols=1, rng=np.random.default_rng(SEED))
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    console = Console()
    console.print(f"first calls, compiled or from disk: {compile_seconds():.2f} s\n")
    console.print(_enumeration(), "", _sampling())


def _enumeration() -> Table:
    table = Table(title="Enumeration, one core", title_justify="left")
    for header in ("strings", "L", "T", "prefixes", "seconds", "prefixes/s", "steps/s"):
        table.add_column(header, justify="right")
    for name, tree, bits, repetitions in (
        ("0^n 1, n <= 64", deviations(64), 24, REPETITIONS),
        ("0^n 1, n <= 64", deviations(64), 28, 2),
        ("all of 8 symbols", OutputTree.complete(8), 24, REPETITIONS),
        ("all of 16 symbols", OutputTree.complete(16), 24, REPETITIONS),
        ("all of 16 symbols", OutputTree.complete(16), 28, 1),
    ):
        limits = Limits(bits=bits, steps=STEPS)

        def work(tree: OutputTree = tree, limits: Limits = limits) -> Census:
            return enumerate_programs(tree, limits=limits)

        seconds, census = best_seconds(work, repetitions)
        table.add_row(
            name,
            str(bits),
            str(STEPS),
            f"{census.n_prefixes / 1e6:.1f} M",
            f"{seconds:.2f}",
            f"{census.n_prefixes / seconds / 1e6:.1f} M",
            f"{census.n_steps / seconds / 1e6:.0f} M",
        )
    return table


def _sampling() -> Table:
    limits = Limits(bits=SAMPLE_BITS, steps=STEPS)

    def sample() -> Any:
        rng = np.random.default_rng(SEED)
        return sample_programs(N_SAMPLES, limits=limits, max_symbols=SYMBOLS, rng=rng)

    seconds, samples = best_seconds(sample)
    rate = N_SAMPLES / seconds
    words = np.random.default_rng(SEED).integers(0, 2**64, size=N_REFERENCE, dtype=np.uint64)
    programs = [[int(word) >> k & 1 for k in range(63, -1, -1)] for word in words]
    slow_seconds, _ = best_seconds(
        lambda: [run(bits, limits=limits, max_symbols=SYMBOLS) for bits in programs], 1
    )
    slow_rate = N_REFERENCE / slow_seconds
    table = Table(
        title=f"Random programs of up to {SAMPLE_BITS} bits, {STEPS} steps, {SYMBOLS} symbols, "
        f"{samples.steps.mean():.0f} steps on average",
        title_justify="left",
    )
    for header in ("interpreter", "programs/s", "against the public one", "against ours in Python"):
        table.add_column(header, justify="right")
    for name, each in (("compiled", rate), ("Python", slow_rate)):
        table.add_row(
            name,
            f"{each:,.0f}",
            f"{each / PUBLIC_PROGRAMS_A_SECOND:.1f} x",
            f"{each / slow_rate:.1f} x",
        )
    return table


if __name__ == "__main__":
    main()
