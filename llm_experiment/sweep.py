"""Many runs at once, here or on a cluster: over tasks, episode lengths and constraints.

    python -m llm_experiment.sweep --lengths 256 512 --budgets-nats 1 3 10 --n-seeds 5
    python -m llm_experiment.sweep ... --cluster ray --out /shared/sweep

A *sweep* is one run (`llm_experiment.run`) for each task, length and constraint, and a run is one
agent for each budget and seed, and for each comparison of its suite. All agents of all runs
are independent jobs; here a few work side by side, on a Ray cluster as many as its machines hold.

    manifest.json          settings, and when and with what the sweep started or went on
    tables.*, *.csv        the results of all runs as one table (`sweep_tables`)
    <run>/                 a folder of `llm_experiment.run`, complete in itself (`records.folder`)
    <run>/agents/<name>/attempts.json   on a cluster: which machines were at work on it

Every update of an agent ends with it on disk. The same command goes on where a sweep stopped,
however it stopped and wherever: what was begun here may go on on a cluster, and the other way
round. Numbers do not depend on where an agent was trained, as far as the machines compute alike.

On a cluster `--out` has to be on a file system that all its machines share, and so have models
that are given as folders; each machine needs the same versions of this package and its libraries.
A worker, process or machine that dies takes an update or so with it: Ray starts the job again
elsewhere, and it goes on from its last checkpoint. Nothing is run twice: see
`llm_experiment.attempts` for how that is kept, and what it needs of the file system. If this
command dies, its jobs are ended by Ray.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import tyro
from rich.console import Console

from llm_experiment.config import Fidelity, Preset, at_least, check_vocabularies, with_fidelity
from llm_experiment.dialogue.task import load_task
from llm_experiment.settings import Settings, starting_settings
from llm_experiment.suite import Job, lengthened, suite_jobs
from mightnt.command_line import parse_command_line, run_command
from theory.errors import InvalidArgumentError

if TYPE_CHECKING:
    from llm_experiment.jobs import Task
    from mightnt.tables import Table

PROG: Final = "python -m llm_experiment.sweep"


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """All that a sweep's numbers depend on."""

    tasks: tuple[str, ...] = ()
    """Dialogue tasks, a run each; --task alone if left out."""
    lengths: tuple[int, ...] = ()
    """Episode lengths in tokens to train on, a run each, with about as many updates at any
    length; those of the stages if left out."""
    fidelities: tuple[Fidelity, ...] = ()
    """Whose constraint, a run each; that of --fidelity and the constraint options if left out."""
    run: Annotated[Settings, tyro.conf.arg(name="")] = field(default_factory=Settings)
    """What all runs share."""

    def __post_init__(self) -> None:
        for length in self.lengths:
            at_least("lengths", length, 2)
        for name, values in (
            ("tasks", self.tasks),
            ("lengths", self.lengths),
            ("fidelities", self.fidelities),
        ):
            if len(set(values)) < len(values):
                raise InvalidArgumentError(f"{name} must name everything once, got {values}")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Runs over tasks, lengths and constraints, here or on a Ray cluster; resumes by itself.

    One run of `python -m llm_experiment.run` for each of --tasks, --lengths and --fidelities, each
    in its own folder, and one table of them all; the other options are that command's and hold for
    every run.
    """

    out: Path = Path("results/sweep")
    """Folder of the sweep. The same command with the same folder goes on where it stopped."""
    processes: int = 2
    """Agents trained side by side on this machine, if there is no --cluster."""
    cluster: str | None = None
    """Train on this Ray cluster: `ray`, the one that this machine belongs to, or `ray:HOST:PORT`.
    All its machines have to share the file system of --out."""
    gpus_per_agent: float = 0.0
    """GPUs that an agent takes on the cluster, besides one processor."""
    retries: int = 10
    """How often one agent may be begun again on the cluster after its process or machine died."""
    settings: Annotated[SweepSettings, tyro.conf.arg(name="")] = field(
        default_factory=SweepSettings
    )
    """All that the numbers depend on."""

    def __post_init__(self) -> None:
        at_least("processes", self.processes, 1)
        at_least("gpus_per_agent", self.gpus_per_agent, 0)
        at_least("retries", self.retries, 0)
        for run in sweep_runs(self.settings):
            load_task(run.settings.agent.world.task)
        check_vocabularies(self.settings.run.agent.world)
        if self.cluster is None:
            return
        from mightnt.clusters import Cluster, System

        if Cluster.parse(self.cluster).system is not System.RAY:
            raise InvalidArgumentError(f"a sweep needs a Ray cluster, got {self.cluster!r}")
        device = self.settings.run.agent.world.device
        if device != "cpu" and self.gpus_per_agent == 0:
            raise InvalidArgumentError(
                f"gpus_per_agent must be > 0 for device {device!r} on a cluster, got 0"
            )


@dataclass(frozen=True, kw_only=True)
class SweepRun:
    """One run of a sweep.

    Attributes:
        name: unlike any other's in the sweep; also its folder's.
        settings: of the run.
    """

    name: str
    settings: Settings

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Its agents."""
        return suite_jobs(self.settings.agent, self.settings.agents)


def sweep_runs(settings: SweepSettings) -> tuple[SweepRun, ...]:
    """The runs of a sweep, task by task.

    Raises:
        InvalidArgumentError: a run would have two equal agents.
    """
    shared = settings.run
    return tuple(
        _run(shared, task, length, fidelity)
        for task in settings.tasks or (shared.agent.world.task,)
        for length in settings.lengths or (None,)
        for fidelity in settings.fidelities or (None,)
    )


def _run(shared: Settings, task: str, length: int | None, fidelity: Fidelity | None) -> SweepRun:
    agent, agents = shared.agent, shared.agents
    agent = replace(agent, world=replace(agent.world, task=task))
    name = task.replace("/", "-")  # of a variant; runs stand side by side
    if length is not None:
        agent = replace(agent, stages=tuple(lengthened(stage, length) for stage in agent.stages))
        name += f"-length{length}"
    if fidelity is not None:
        agent = with_fidelity(agent, fidelity)
        name += f"-{fidelity.value}"
        shared = replace(shared, fidelity=fidelity)
    if fidelity is Fidelity.PUBLISHED:
        agents = replace(agents, realized_budgets_nats=())  # all of its agents are charged so
    return SweepRun(name=name, settings=replace(shared, agent=agent, agents=agents))


def only_adds_agents(before: SweepSettings, now: SweepSettings) -> bool:
    """Whether every run of `before` is one of `now`, with all of its agents and maybe more."""
    there = {run.name: run.settings for run in sweep_runs(before)}
    wanted = {run.name: run.settings for run in sweep_runs(now)}
    return there.keys() <= wanted.keys() and all(
        settings.only_adds_agents(wanted[name]) for name, settings in there.items()
    )


def sweep(options: Options, console: Console) -> "tuple[Table, ...]":
    """Train and evaluate every agent of every run.

    Args:
        options: what and where.
        console: progress goes there.

    Returns:
        The tables of all runs as one; they and what they come from are in the sweep's folder.

    Raises:
        ResultsError: a folder belongs to another sweep or process, or cannot be written.
        ModelError: a model cannot be loaded.
        ClusterError: the cluster cannot be used.
    """
    from llm_experiment.jobs import begin, check_machine, conclude, conclude_tasks, watch
    from llm_experiment.records.folder import claim_folder, exclusive
    from llm_experiment.sweep_tables import FinishedRun, write_sweep_tables

    out = options.out.resolve()  # other machines work in other folders
    runs = sweep_runs(options.settings)
    with ExitStack() as stack:
        for folder in (out, *(out / run.name for run in runs)):
            stack.enter_context(exclusive(folder))
        started = time.monotonic()
        if options.cluster is None:
            for run in runs:
                check_machine(run.settings, options.processes, console)
        claim_folder(
            out, options.settings, label=_label(runs), models={}, only_adds=only_adds_agents
        )
        for run in runs:
            begin(run.settings, out / run.name)
        work = _here if options.cluster is None else _on_cluster
        with watch([(f"{run.name}/", run.settings, out / run.name) for run in runs], console):
            concluded = [
                conclude_tasks(run.settings, out / run.name, results)
                for run, results in zip(runs, work(options, runs, out), strict=True)
            ]
        for run, (rows, base) in zip(runs, concluded, strict=True):
            seconds = time.monotonic() - started
            conclude(run.settings, out / run.name, rows, base, seconds=seconds)
        finished = [
            FinishedRun(
                folder=out / run.name,
                task=run.settings.agent.world.task,
                constraint=run.settings.fidelity.value,
                n_tokens=run.settings.agent.stages[-1].n_tokens,
            )
            for run in runs
        ]
        return write_sweep_tables(out, finished, _label(runs))


def _label(runs: Sequence[SweepRun]) -> str:
    n_agents = sum(len(run.jobs) for run in runs)
    return f"sweep of {len(runs)} runs, {n_agents} agents; each run: {runs[0].settings.label}"


def _here(options: Options, runs: Sequence[SweepRun], out: Path) -> list[list[Any]]:
    """The results of every run's tasks, from processes of this machine."""
    from llm_experiment.jobs import call_here, run_job, run_tasks

    train = partial(run_job, run_pid=os.getpid())
    tasks = [run_tasks(run.settings, out / run.name, train) for run in runs]
    return _together(tasks, lambda flat: call_here(flat, options.processes))


def _on_cluster(options: Options, runs: Sequence[SweepRun], out: Path) -> list[list[Any]]:
    """The same from the cluster."""
    from llm_experiment.attempts import attempt_job, with_versions
    from llm_experiment.jobs import run_tasks
    from llm_experiment.records.folder import versions
    from mightnt.clusters import Cluster, call_on_ray, ray_cluster

    here = versions()
    tasks: list[list[Task]] = [
        [
            partial(with_versions, here, task)
            for task in run_tasks(run.settings, folder, attempt_job)
        ]
        for run, folder in ((run, out / run.name) for run in runs)
    ]
    with ray_cluster(Cluster.parse(str(options.cluster)), "--cluster") as ray:
        return _together(
            tasks,
            lambda flat: call_on_ray(
                ray, flat, cpus=1, gpus=options.gpus_per_agent, retries=options.retries
            ),
        )


def _together(
    tasks: "Sequence[Sequence[Task]]", call: "Callable[[Sequence[Task]], Sequence[Any]]"
) -> list[list[Any]]:
    """The results of every run's tasks, from one call of all of them."""
    results = iter(call([task for run in tasks for task in run]))
    return [[next(results) for _ in run] for run in tasks]


def parse_options(argv: Sequence[str] | None = None) -> Options:
    """Options from a command line; the preset gives the defaults of all others."""
    start = starting_settings(argv)
    default = Options(
        processes=1 if start.preset is Preset.PAPER else 2, settings=SweepSettings(run=start)
    )
    return parse_command_line(Options, argv, prog=PROG, default=default)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, run, print."""

    def command() -> None:
        _sweep(parse_options(argv), Console(stderr=True))

    run_command(command)


def _sweep(options: Options, console: Console) -> None:
    """Do the sweep, show its headline and write the page of every run."""
    from llm_experiment.evaluation_tables import show_headline
    from llm_experiment.report import write_report
    from llm_experiment.sweep_tables import narrowed

    runs = sweep_runs(options.settings)
    console.print(f"{_label(runs)}; into {options.out}", highlight=False)
    headline, *others = sweep(options, console)
    show_headline([narrowed(headline), *others], options.out)
    for run in runs:
        write_report(options.out / run.name)
    console.print(f"to look at a run, open its report.html in {options.out}", highlight=False)


if __name__ == "__main__":
    main()
