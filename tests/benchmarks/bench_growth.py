"""How time and memory of the main jobs grow with their sizes, beside what they should.

Exponents are fitted by least squares in log-log: to processor time, the least of several runs, and
to the greatest memory held at once. Sizes are small, so that a part of the cost that does not grow
counts more than in earnest: exponents err to the low side, and what exceeds its algorithm's here
does so in earnest too. The exponent between the two largest sizes, `last`, errs less that way, and
has no interval. Memory is what Python and numpy allocated (`tracemalloc`); torch allocates
by itself, so its jobs run in a process of their own, whose high-water mark is read.
"""

import multiprocessing
import resource
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from mightnt.progress import track
from tests.benchmarks.growth import exponent

SEED = 20241006
MOST_REPETITIONS = 5
SECONDS_A_SIZE = 0.4
"""Runs are repeated until they have taken so long together."""
SLACK = 0.05
"""An interval's lower end that exceeds the expected exponent by more is called worse."""
LAST_SLACK = 0.3
"""Likewise of the exponent between the two largest sizes, which is noisier."""
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024

Work = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job at several sizes.

    Attributes:
        name: what is done.
        size: what its size counts.
        sizes: settings that `prepare` is called with, increasing.
        prepare: the size at a setting, and the work.
        reason: why its time and its memory should grow as they should.
        time: the exponent that the algorithm's time should have; most are linear.
        memory: and its memory.
        uses_torch: whether it needs a process of its own.
    """

    name: str
    size: str
    sizes: tuple[int, ...]
    prepare: Callable[[int], tuple[float, Work]]
    reason: str
    time: float = 1
    memory: float = 1
    uses_torch: bool = False


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What the work took at one size."""

    size: float
    seconds: float
    n_bytes: float


# --------------------------------------------------------------------- measuring


def least_seconds(work: Work) -> float:
    """The least processor time of some runs; the first one, which may compile, does not count."""
    work()
    times: list[float] = []
    while len(times) < MOST_REPETITIONS and sum(times) < SECONDS_A_SIZE:
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def traced_bytes(work: Work) -> float:
    """The most that Python and numpy held at once above what was there before."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        work()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return most - before


def high_water_bytes() -> float:
    """The most memory that this process ever had."""
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_BYTES)


def costs_here(job: Job) -> list[Cost]:
    """Time and memory at all sizes, in this process."""
    found = []
    for setting in job.sizes:
        size, work = job.prepare(setting)
        seconds = least_seconds(work)
        # Where the high-water mark is read, sizes increase, and with them the mark.
        n_bytes = high_water_bytes() if job.uses_torch else traced_bytes(work)
        found.append(Cost(size=size, seconds=seconds, n_bytes=n_bytes))
    return found


def _send_costs(name: str, base_setting: int, connection: Any) -> None:
    import torch

    torch.set_num_threads(1)
    job = next(job for job in JOBS if job.name == name)
    _, work = job.prepare(base_setting)
    work()
    floor = high_water_bytes()
    connection.send([replace(cost, n_bytes=cost.n_bytes - floor) for cost in costs_here(job)])


def costs_in_own_process(job: Job) -> list[Cost]:
    """The same in a fresh process, memory above what the least work there takes."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_costs, args=(job.name, 1, sender))
    process.start()
    sender.close()
    try:
        found: list[Cost] = receiver.recv()
    finally:
        process.join()
    return found


# --------------------------------------------------------------------- toy worlds


def _enumeration_in_bits(limit_bits: int) -> tuple[float, Work]:
    from tests.benchmarks.bench_enumeration import LANGUAGE, layout_of
    from toy_world.programs.enumeration import enumerate_policies

    layout = layout_of(10_000)
    size = sum(LANGUAGE.policies.counts(limit_bits))
    return size, lambda: enumerate_policies(LANGUAGE, layout, limit_bits)


def _enumeration_in_steps(n_steps: int) -> tuple[float, Work]:
    from tests.benchmarks.bench_enumeration import LANGUAGE, layout_of
    from toy_world.programs.enumeration import enumerate_policies

    return n_steps, lambda: enumerate_policies(LANGUAGE, layout_of(n_steps), 20)


def _posterior(limit_bits: int) -> tuple[float, Work]:
    from tests.benchmarks.bench_enumeration import LANGUAGE, layout_of
    from toy_world.programs.enumeration import enumerate_policies
    from toy_world.programs.posterior import posterior

    enumeration = enumerate_policies(LANGUAGE, layout_of(1000), limit_bits)
    last = len(enumeration.layout.points) - 1
    return enumeration.n_classes, lambda: posterior(enumeration, last).imitator()


def _machine(limit_bits: int) -> tuple[float, Work]:
    from tests.benchmarks.bench_machine import STEPS, deviations
    from toy_world.machine.definition import Limits
    from toy_world.machine.enumeration import enumerate_programs

    tree, limits = deviations(64), Limits(bits=limit_bits, steps=STEPS)
    size = enumerate_programs(tree, limits=limits).n_prefixes
    return size, lambda: enumerate_programs(tree, limits=limits)


def _planner(planner: Callable[..., object]) -> Callable[[int], tuple[float, Work]]:
    def prepare(horizon: int) -> tuple[float, Work]:
        from tests.toy_world.planning_problems import random_problem

        problem = random_problem(np.random.default_rng(SEED), horizon=horizon)
        return 4.0**horizon, lambda: planner(*problem, budget_nats=0.05)

    return prepare


def _expected_kl(*problem: Any, budget_nats: float) -> object:
    from toy_world.planners.expected_kl import expected_kl_optimum

    return expected_kl_optimum(*problem, budget_nats=budget_nats)


def _adaptive_kl(*problem: Any, budget_nats: float) -> object:
    from toy_world.planners.adaptive_kl import adaptive_kl_optimum

    return adaptive_kl_optimum(*problem, budget_nats=budget_nats)


# --------------------------------------------------------------------- the experiment


def _projection(n_symbols: int) -> tuple[float, Work]:
    from tests.benchmarks.bench_projection import rows
    from theory.projections import fixed_kl_mixture

    problem = rows((64, n_symbols))
    return n_symbols, lambda: fixed_kl_mixture(*problem)


def _update(n_episodes: int, n_tokens: int) -> Work:
    from llm_experiment.agent.ppo import LockstepPPO
    from llm_experiment.chat.world import load_world
    from llm_experiment.config import Preset, preset_config

    config = preset_config(Preset.TINY)
    (stage,) = config.stages
    stage = replace(stage, agent_steps=1, ramp_fraction=0.0, n_tokens=n_tokens)
    config = replace(config, stages=(stage,), n_episodes=n_episodes)
    world = load_world(config.world)
    return lambda: LockstepPPO(world, config).finish()


def _update_in_episodes(n_episodes: int) -> tuple[float, Work]:
    return n_episodes, _update(n_episodes, 96)


def _update_in_tokens(n_tokens: int) -> tuple[float, Work]:
    return n_tokens, _update(16, max(n_tokens, 48))


@cache
def _scratch() -> Any:
    """A folder for run folders, that goes when the interpreter ends."""
    return tempfile.TemporaryDirectory(prefix="growth")


def _run_folder() -> Path:
    return Path(tempfile.mkdtemp(dir=_scratch().name)) / "run"


def _report_in_agents(n_agents: int) -> tuple[float, Work]:
    from tests.llm_experiment.fakes.many_agents import write_many

    folder = write_many(_run_folder(), n_agents)
    return n_agents, lambda: _page_of(folder, n_episodes=8)


def _report_in_transcripts(n_episodes: int) -> tuple[float, Work]:
    from tests.llm_experiment.fakes.many_agents import repeat_episodes, write_many

    folder = repeat_episodes(write_many(_run_folder(), 1), n_episodes)
    return n_episodes, lambda: _page_of(folder, n_episodes=n_episodes)


def _page_of(folder: Path, *, n_episodes: int) -> str:
    from llm_experiment.page.data import report_data
    from llm_experiment.page.page import page
    from llm_experiment.records.reading import read_run

    pieces = [b"%d" % i for i in range(200)]
    return page(report_data(read_run(folder), pieces, n_episodes=n_episodes))


def _figure_in_runs(n_agents: int) -> tuple[float, Work]:
    from llm_experiment.records.reading import read_experiment
    from mightnt.figure_style import figure_style
    from paper_figures.figure_4 import build
    from paper_figures.results import Sources
    from tests.llm_experiment.fakes.many_agents import write_many

    folder = write_many(_run_folder(), n_agents)

    def work() -> None:
        with figure_style():
            build(Sources(found=read_experiment([folder])))

    return n_agents, work


JOBS = (
    Job(
        name="enumeration",
        size="programs of at most L bits",
        sizes=(16, 18, 20, 22, 24),
        prepare=_enumeration_in_bits,
        reason="each class once; classes are fewer than programs",
    ),
    Job(
        name="enumeration, longer",
        size="steps of the history",
        sizes=(20_000, 40_000, 80_000, 160_000, 320_000),
        prepare=_enumeration_in_steps,
        reason="a bit a column and stored class, passed a fixed number of times",
    ),
    Job(
        name="posterior and imitator",
        size="living classes",
        sizes=(16, 18, 20, 22, 24),
        prepare=_posterior,
        time=1.1,
        reason="a sort: n log n",
    ),
    Job(
        name="universal machine",
        size="program prefixes",
        sizes=(14, 16, 18, 20, 22),
        prepare=_machine,
        memory=0,
        reason="each prefix once; depth first, so memory is the strings asked about",
    ),
    *(
        Job(
            name=f"planner, {name}",
            size="histories, 4^horizon",
            sizes=(4, 5, 6, 7, 8),
            prepare=_planner(optimum),
            reason="a bounded number of sweeps of dynamic programming",
        )
        for name, optimum in (("expected KL", _expected_kl), ("adaptive KL", _adaptive_kl))
    ),
    Job(
        name="projection, 64 rows",
        size="symbols of the vocabulary",
        sizes=(2_000, 4_000, 8_000, 16_000, 32_000),
        prepare=_projection,
        reason="a bounded number of Newton steps, each one pass over the row",
    ),
    Job(
        name="training update",
        size="episodes",
        sizes=(8, 16, 32, 64),
        prepare=_update_in_episodes,
        reason="episodes are independent",
        uses_torch=True,
    ),
    Job(
        name="training update, longer",
        size="tokens of an episode",
        sizes=(64, 96, 128, 192),
        prepare=_update_in_tokens,
        time=2,
        reason="each token attends to all before it; keys and values are kept",
        uses_torch=True,
    ),
    Job(
        name="report",
        size="agents",
        sizes=(5, 10, 20, 40),
        prepare=_report_in_agents,
        reason="agents are written one by one",
    ),
    Job(
        name="report, longer",
        size="transcripts of an agent",
        sizes=(96, 192, 384, 768, 1536),
        prepare=_report_in_transcripts,
        reason="tokens are written one by one",
    ),
    Job(
        name="figure 4",
        size="runs",
        sizes=(5, 10, 20, 40),
        prepare=_figure_in_runs,
        reason="runs are read one by one, and averaged",
    ),
)


def _told(sizes: Sequence[float], costs: Sequence[float], expected: float) -> tuple[str, bool]:
    if min(costs) <= 0:
        return "none seen", False
    found = exponent(sizes, costs)
    last = float(np.log(costs[-1] / costs[-2]) / np.log(sizes[-1] / sizes[-2]))
    worse = found.exceeds(expected + SLACK) or last > expected + LAST_SLACK
    return f"{found}, last {last:.2f}", worse


def main() -> None:
    """Measure and print."""
    console = Console(width=160)
    start = time.perf_counter()
    table = Table(title="How costs grow: exponents with 95% intervals, and what they should be")
    table.add_column("job")
    table.add_column("size")
    for header in ("from", "to", "seconds", "time", "should", "MB", "memory", "should"):
        table.add_column(header, justify="right")
    worse = []
    for job in track(JOBS, "measuring growth", total=len(JOBS)):
        costs = costs_in_own_process(job) if job.uses_torch else costs_here(job)
        sizes = [cost.size for cost in costs]
        in_time, time_is_worse = _told(sizes, [cost.seconds for cost in costs], job.time)
        in_memory, memory_is_worse = _told(sizes, [cost.n_bytes for cost in costs], job.memory)
        if time_is_worse or memory_is_worse:
            worse.append(job.name)
        table.add_row(
            job.name,
            job.size,
            f"{sizes[0]:,.0f}",
            f"{sizes[-1]:,.0f}",
            f"{costs[-1].seconds:.3f}",
            in_time,
            f"{job.time:g}",
            f"{costs[-1].n_bytes / 1e6:.1f}",
            in_memory,
            f"{job.memory:g}",
        )
    console.print(table)
    for job in JOBS:
        console.print(f"{job.name}: {job.reason}", highlight=False)
    console.print(f"worse than it should be: {', '.join(worse) or 'nothing'}", highlight=False)
    console.print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
