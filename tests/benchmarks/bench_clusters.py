"""Enumeration shared out: what its pieces cost, what a model makes of them, what clusters do.

The *pieces* are measured in this process, in processor time: building the tables of conditions and
of policies, composing, following the history, and what this process does with the results; and the
bytes that go each way. From them the model: workers that share a machine build conditions and
policies side by side, the others both; the rest is shared out.

The *clusters* are one and two local workers, beside one process alone and beside each other; each
size is run some times in turn, and the least counts. Wall-clock time says how much faster they are
only while two processors are free. Therefore a second figure, from processor time: the work of this
process plus that of the busiest worker, which is the wall-clock time if nobody else works and no
message takes any. Workers have imported and compiled beforehand; they build their tables anew in
every run.
"""

import importlib.util
import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from mightnt.clusters import on_cluster
from mightnt.progress import track
from tests.benchmarks.bench_enumeration import LANGUAGE, SEED, WORLD
from tests.clusters import dask_cluster, ray_head
from toy_world.programs import enumeration
from toy_world.programs.columns import ColumnLayout, QueryPoint
from toy_world.programs.enumeration import enumerate_policies
from toy_world.programs.tables import SharedTables, TablesOnTrees
from toy_world.worlds.demonstrator import demonstrate, trusted_policy
from toy_world.worlds.environments import WorldName

SYSTEMS: dict[str, tuple[str, Callable[[int], object]]] = {
    "ray": ("ray", lambda n: ray_head(n_cpus=n, store_bytes=600_000_000)),
    "dask": ("distributed", lambda n: dask_cluster(n_workers=n)),
}
SIZES = ((26, 100_000), (28, 100_000))
PIECES = (22, 24, 26, 28)
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


# --------------------------------------------------------------------- the pieces


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """Processor seconds of each piece, and bytes."""

    short: float
    conditions: float
    policies: float
    composing: float
    following: float
    merging: float
    table_bytes: int
    sent_bytes: int
    returned_bytes: int

    @property
    def shared_out(self) -> float:
        """What workers divide among themselves."""
        return self.composing + self.following

    @property
    def alone(self) -> float:
        """All of it in one process."""
        return self.conditions + self.policies + self.shared_out + self.merging

    def seconds(self, n_machines: int, n_workers: int) -> float:
        """The model: `n_workers` on each of `n_machines`, messages left out."""
        policies = self.short + self.policies
        building = max(self.conditions, policies) if n_workers > 1 else self.conditions + policies
        return building + self.shared_out / (n_machines * n_workers) + self.merging


def pieces_of(limit_bits: int, n_steps: int) -> Pieces:
    """The pieces of one enumeration, one after the other as its tasks do them."""
    spent = [time.process_time()]

    def lap() -> float:
        spent.append(time.process_time())
        return spent[-1] - spent[-2]

    tables = SharedTables(LANGUAGE, layout_of(n_steps, SEED), limit_bits)
    lap()
    tables._conditions_up_to(tables.limits.condition_of_part)
    short = lap()
    table_bytes = tables.conditions.bits.nbytes
    conditions = lap()
    table_bytes += tables.policies.store.rows.nbytes + tables.cover.nbytes
    policies = lap()
    trees = TablesOnTrees.of(tables)
    composed = [
        enumeration._leaves(tables),
        *(enumeration._branchings(tables, share) for share in range(enumeration._SHARES)),
        *(enumeration._mixtures(tables, share) for share in range(enumeration._SHARES)),
    ]
    composing = lap()
    classes = enumeration._merged(composed)
    merging = lap()
    blocks = np.array_split(np.arange(len(classes.recipes)), enumeration._SHARES)
    asked = [(classes.recipes[block], classes.weights[block]) for block in blocks]
    lap()
    found = [enumeration._followed(tables, *some) for some in asked]
    following = lap()
    returned = len(pickle.dumps(trees)) + sum(len(pickle.dumps(part)) for part in composed + found)
    n_tasks = 2 + 3 * enumeration._SHARES
    return Pieces(
        short=short,
        conditions=conditions,
        policies=policies,
        composing=composing,
        following=following,
        merging=merging + lap(),
        table_bytes=table_bytes,
        sent_bytes=n_tasks * len(pickle.dumps(tables)) + len(pickle.dumps(asked)),
        returned_bytes=returned,
    )


def pieces_table() -> Table:
    """The pieces at some L."""
    n_steps = 100_000
    table = Table(title=f"Pieces, processor seconds; {n_steps:,} steps")
    for header in (
        "L", "conditions", "policies", "composing", "following", "results", "tables\nMB",
        "sent\nMB", "returned\nMB", "model: 2 on\na machine", "2 machines", "100 on 7",
    ):  # fmt: skip
        table.add_column(header, justify="right")
    pieces_of(16, 1000)  # compiles, or loads what is compiled
    for limit in track(PIECES, "measuring the pieces", total=len(PIECES)):
        runs = [pieces_of(limit, n_steps) for _ in range(REPETITIONS)]
        best = min(runs, key=lambda run: run.alone)
        table.add_row(
            str(limit),
            *(
                f"{getattr(best, name):.2f}"
                for name in ("conditions", "policies", "composing", "following", "merging")
            ),
            *(
                f"{getattr(best, name) / 1e6:.1f}"
                for name in ("table_bytes", "sent_bytes", "returned_bytes")
            ),
            *(
                f"{best.alone / best.seconds(*workers):.2f}x"
                for workers in ((1, 2), (2, 1), (7, 100 / 7))
            ),
        )
    return table


# --------------------------------------------------------------------- the clusters


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


@dataclass(kw_only=True)
class Run:
    """Seconds of a run: by the clock, and of processors."""

    wall: float = 0.0
    here: float = 0.0
    busiest: float = 0.0
    others: float = 0.0

    @property
    def work(self) -> float:
        """What the clock would show if nobody else worked."""
        return self.here + self.busiest


@contextmanager
def measured() -> Iterator[Run]:
    """A run, filled at the end."""
    run = Run()
    before, start = spent_by_process(), time.perf_counter()
    yield run
    run.wall = time.perf_counter() - start
    spent = {pid: s - before.get(pid, 0.0) for pid, s in spent_by_process().items()}
    run.here = spent.pop(os.getpid())
    run.others = sum(spent.values())
    run.busiest = max(spent.values(), default=0.0)


def best_runs() -> list[Run]:
    """For each size the least work, and the least time by the clock."""
    enumerate_policies(LANGUAGE, layout_of(1000, SEED), 16)
    found = []
    for limit, n_steps in SIZES:
        runs = []
        for repetition in range(REPETITIONS):
            layout = layout_of(n_steps, SEED + repetition)
            with measured() as run:
                enumerate_policies(LANGUAGE, layout, limit)
            runs.append(run)
        found.append(min(runs, key=lambda run: run.work))
        found[-1].wall = min(run.wall for run in runs)
    return found


def clusters_table(console: Console) -> Table:
    """One and two workers of both systems beside one process alone."""
    table = Table(title=f"Local workers beside one process; load {os.getloadavg()[0]:.1f}")
    for header in (
        "workers", "L", "wall s", "here", "busiest", "all others", "by the clock", "by work",
        "clock, beside\none worker",
    ):  # fmt: skip
        table.add_column(header, justify="right")

    def add(name: str, found: list[Run], one: list[Run] | None) -> None:
        for i, (run, (limit, _)) in enumerate(zip(found, SIZES, strict=True)):
            table.add_row(
                name,
                str(limit),
                *(f"{seconds:.2f}" for seconds in (run.wall, run.here, run.busiest, run.others)),
                f"{alone[i].wall / run.wall:.2f}x",
                f"{alone[i].work / run.work:.2f}x",
                f"{one[i].wall / run.wall:.2f}x" if one else "",
            )

    alone = best_runs()
    add("none", alone, None)
    for system, (library, start) in SYSTEMS.items():
        if importlib.util.find_spec(library) is None:
            console.print(f"{library} is not installed; requirements-cluster.txt has it")
            continue
        one = None
        for n_workers in (1, 2):
            with start(n_workers) as address, on_cluster(f"{system}:{address}", "this benchmark"):
                found = best_runs()
            add(f"{n_workers}, {system}", found, one)
            one = found
    add("none", best_runs(), None)
    return table


def main() -> None:
    """Measure and print."""
    console = Console(width=140)
    console.print(pieces_table())
    console.print(clusters_table(console))


if __name__ == "__main__":
    main()
