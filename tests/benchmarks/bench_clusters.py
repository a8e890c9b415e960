"""Enumeration on a cluster of one and of two local workers, and what each process worked.

Wall-clock time says how much faster two workers are only while two processors are free. Therefore
a second figure, from processor time alone: the work of this process plus that of the busiest
worker, which is what the wall-clock would show if nobody else worked and no message took time.
Workers have imported and compiled beforehand; they build their tables anew in every run.
"""

import importlib.util
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from mightnt.clusters import on_cluster
from tests.benchmarks.bench_enumeration import LANGUAGE, SEED, WORLD
from tests.clusters import dask_cluster, ray_head
from toy_world.programs.columns import ColumnLayout, QueryPoint
from toy_world.programs.enumeration import enumerate_policies
from toy_world.worlds.demonstrator import demonstrate, trusted_policy
from toy_world.worlds.environments import WorldName

SYSTEMS = {
    "ray": ("ray", lambda n: ray_head(n_cpus=n)),
    "dask": ("distributed", lambda n: dask_cluster(n_workers=n)),
}
N_WORKERS = (1, 2)
SIZES = ((26, 100_000), (28, 100_000))
REPETITIONS = 3
N_POINTS = 40
HORIZON = 3


def layout_of(n_steps: int, seed: int) -> ColumnLayout:
    """A demonstration, asked at times between 10 and its end; another one for every seed."""
    tau = trusted_policy(WorldName.DOORBELL, LANGUAGE)
    actions, observations = demonstrate(WORLD, tau, n_steps, rng=np.random.default_rng(seed))
    times = np.unique(np.geomspace(10, n_steps, N_POINTS).astype(int)).tolist()
    return ColumnLayout(
        actions,
        observations,
        [QueryPoint(n_steps=t) for t in times],
        n_actions=WORLD.n_actions,
        n_observations=WORLD.n_observations,
        horizon=HORIZON,
    )


def spent_by_process() -> dict[int, float]:
    """Processor seconds so far of this process and of all that it has started."""
    seconds = {os.getpid(): time.process_time()}
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.Error:  # it has ended
            continue
        seconds[process.pid] = times.user + times.system
    return seconds


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Fills `wall`, `here` (this process) and `busiest` (the busiest other one) at the end."""
    figures: dict[str, float] = {}
    before, start = spent_by_process(), time.perf_counter()
    yield figures
    figures["wall"] = time.perf_counter() - start
    spent = {pid: s - before.get(pid, 0.0) for pid, s in spent_by_process().items()}
    figures["here"] = spent.pop(os.getpid())
    figures["busiest"] = max(spent.values())
    figures["others"] = sum(spent.values())


def measure(system: str, n_workers: int) -> list[dict[str, float]]:
    """For each size the run of the shortest time by processor time."""
    _, start = SYSTEMS[system]
    found = []
    with start(n_workers) as address, on_cluster(f"{system}:{address}", "this benchmark"):
        enumerate_policies(LANGUAGE, layout_of(1000, SEED), 16)
        for limit, n_steps in SIZES:
            runs = []
            for repetition in range(REPETITIONS):
                layout = layout_of(n_steps, SEED + repetition)
                with measured() as figures:
                    enumerate_policies(LANGUAGE, layout, limit)
                runs.append(figures)
            found.append(min(runs, key=lambda run: run["here"] + run["busiest"]))
            found[-1]["wall"] = min(run["wall"] for run in runs)
    return found


def main() -> None:
    """Measure and print."""
    console = Console()
    table = Table(title=f"Enumeration on local workers; load {os.getloadavg()[0]:.1f}")
    headers = (
        "",
        "L",
        "T",
        "workers",
        "wall s",
        "here",
        "busiest",
        "all others",
        "by wall",
        "by work",
    )
    for header in headers:
        table.add_column(header, justify="right")
    for system, (library, _) in SYSTEMS.items():
        if importlib.util.find_spec(library) is None:
            console.print(f"{library} is not installed; requirements-cluster.txt has it")
            continue
        runs = dict(zip(N_WORKERS, map(partial(measure, system), N_WORKERS), strict=True))
        for place, (limit, n_steps) in enumerate(SIZES):
            alone = runs[N_WORKERS[0]][place]
            for n_workers in N_WORKERS:
                run = runs[n_workers][place]
                work = run["here"] + run["busiest"]
                table.add_row(
                    system,
                    str(limit),
                    f"{n_steps:,}",
                    str(n_workers),
                    *(f"{run[name]:.2f}" for name in ("wall", "here", "busiest", "others")),
                    f"{alone['wall'] / run['wall']:.2f}",
                    f"{(alone['here'] + alone['busiest']) / work:.2f}",
                )
    console.print(table)


if __name__ == "__main__":
    main()
