"""Jobs of a run: an agent is trained and evaluated, the base policy is evaluated.

Jobs are independent of one another, and a run is a folder that holds the results of all of them
(`llm_experiment.records.folder`). Agents are trained a few side by side in processes of one thread
each, and a process loads the models once, for all jobs that it is given. Every update ends with
the agent on disk: whoever stops a run, and however, it loses an update of each process at most, and
goes on to the numbers of an uninterrupted one.

An agent with a budget of 0 is the base policy (`ConstraintConfig.is_base_policy`). It is no job;
runs made when it was trained too keep its results.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import joblib
import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from stable_baselines3.common.callbacks import BaseCallback

from llm_experiment.agent.ppo import LockstepPPO
from llm_experiment.agent.scripts import ScriptedEpisodes
from llm_experiment.base import mixtral_kernel
from llm_experiment.base.loading import release_memory
from llm_experiment.base.own import part_fingerprints
from llm_experiment.base.shipped import member_names, model_names
from llm_experiment.chat.reward_sources import reward_fingerprint
from llm_experiment.chat.world import WorldLoader, check_world
from llm_experiment.config import AgentConfig, Preset
from llm_experiment.evaluation_tables import write_tables
from llm_experiment.feasibility.memory import (
    PlannedRun,
    check_memory,
    estimate_memory,
    free_bytes,
    read_shapes,
)
from llm_experiment.measures.departure import known_demonstrator
from llm_experiment.measures.evaluation import (
    BasePart,
    Evaluation,
    base_evaluation,
    base_parts,
    evaluate,
    join_parts,
    play_base,
    play_behaviour,
)
from llm_experiment.measures.metrics import (
    AgentRow,
    base_from_json,
    base_to_json,
    row_from_json,
    row_to_json,
)
from llm_experiment.records.folder import (
    AGENT_FILE,
    AGENTS,
    BASE,
    RESULT_FILE,
    SUMMARY_FILE,
    UPDATES_FILE,
    claim_folder,
    episodes_file,
    exclusive,
    fingerprints,
    hash_file,
    record_hashes,
)
from llm_experiment.records.job_result import done_result, with_rows, write_result
from llm_experiment.records.reading import agent_origin, base_origin, read_updates
from llm_experiment.settings import Settings
from llm_experiment.suite import Job, SuiteConfig, suite_agents, suite_jobs
from mightnt.progress import progress_bar
from mightnt.results import read_json, write_atomically, write_json
from mightnt.tables import Table, print_table
from theory import kl_kernel
from theory.errors import ResultsError

EVALUATION_STREAM: Final = 1_000_000
"""Evaluations draw from streams far beyond those of any training."""
ORPHAN_SECONDS: Final = 120.0
"""How long a job waits for one that a killed run left behind, which stops after its update."""
VETOES: Final = "vetoes"
"""What the file of vetoes is called among the fingerprints of a run's models."""
_POLL_SECONDS: Final = 0.5

WORLDS: Final = WorldLoader()
"""The models of this process: a worker keeps them from one job to the next."""

Task = Callable[[], Any]
"""A job with all that it needs; picklable."""


# --------------------------------------------------------------------------- one job


def run_job(job: Job, suite: SuiteConfig, folder: Path, *, run_pid: int) -> list[dict[str, Any]]:
    """Train one agent, or finish training it, and evaluate it.

    Args:
        job: the agent.
        suite: how to evaluate it.
        folder: the job's own.
        run_pid: the process that waits for the result; without it the job stops.

    Returns:
        A row for each evaluation length.

    Raises:
        ResultsError: the folder cannot be used, or holds something else.
        ModelError: a model cannot be loaded.
    """
    with exclusive(folder, patience_seconds=ORPHAN_SECONDS):
        return finish_job(job, suite, folder, check_wanted=partial(_check_alive, run_pid))


def finish_job(
    job: Job, suite: SuiteConfig, folder: Path, *, check_wanted: Callable[[], None]
) -> list[dict[str, Any]]:
    """As `run_job`, in a folder that is already the caller's alone.

    Args:
        job: the agent.
        suite: how to evaluate it.
        folder: the job's own.
        check_wanted: called before anything is written; raises once nobody wants it any more.
    """
    done = done_rows(job, suite, folder)
    if done is not None:
        return done
    torch.set_num_threads(1)
    agent = train_job(job, folder, check_wanted=check_wanted)
    lengths = suite.evaluation_lengths
    rows = [evaluate_job(job, agent, suite, n, folder) for n in lengths]
    del agent
    release_memory()  # for what this process does next
    check_wanted()
    write_result(folder, agent_origin(job, suite), {"rows": rows})
    return rows


def done_rows(job: Job, suite: SuiteConfig, folder: Path) -> list[dict[str, Any]] | None:
    """The rows of a job that is done and whose files are whole, else None.

    Raises:
        ResultsError: the result of another job.
    """

    def parse(content: dict[str, Any]) -> None:
        for row in content["rows"]:
            row_from_json(AgentRow, row)

    found = done_result(folder, agent_origin(job, suite), parse)
    return None if found is None else list(found["rows"])


def train_job(job: Job, folder: Path, *, check_wanted: Callable[[], None]) -> LockstepPPO:
    """The trained agent of a job, from where it was left in `folder`."""
    agent = LockstepPPO(
        WORLDS.world(job.config.world), job.config, tensorboard_log=folder / "tensorboard"
    )
    if (folder / AGENT_FILE).exists():
        agent.restore(folder / AGENT_FILE)
    if not agent.finished:
        agent.finish(_Saving(folder, check_wanted=check_wanted))
    # A job that was killed between its last two files has an agent without its last record.
    write_json(folder / UPDATES_FILE, agent.records)
    return agent


def _check_alive(pid: int) -> None:
    """Raise if there is no process `pid`."""
    try:
        os.kill(pid, 0)  # no signal: asks whether the process exists
    except ProcessLookupError:
        raise ResultsError("the run that started this job has ended") from None


class _Saving(BaseCallback):
    """Writes agent and records after every update, unless nobody wants them any more."""

    model: LockstepPPO

    def __init__(self, folder: Path, *, check_wanted: Callable[[], None]) -> None:
        super().__init__()
        self._folder = folder
        self._check_wanted = check_wanted

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        """The update before this rollout is complete."""
        self._write(due=self.model.n_updates % self.model.config.checkpoint_every == 0)

    def _on_training_end(self) -> None:
        self._write(due=True)

    def _write(self, *, due: bool) -> None:
        self._check_wanted()
        if due and self.model.records:
            self.model.save(self._folder / AGENT_FILE)
        write_json(self._folder / UPDATES_FILE, self.model.records)


def evaluate_job(
    job: Job, agent: LockstepPPO, suite: SuiteConfig, n_tokens: int, folder: Path
) -> dict[str, Any]:
    """Evaluate a trained agent at one length: its episodes on disk, and a row of the summary."""
    config = job.config
    evaluation = evaluate(
        agent.policy,
        agent.world,
        process=known_demonstrator(config.world, agent.world),
        n_episodes=suite.n_evaluation_episodes,
        n_tokens=n_tokens,
        budget_nats=config.constraint.episode_budget_nats,
        accounting=config.constraint.accounting,
        seed=config.seed,
        stream=(EVALUATION_STREAM, n_tokens),
    )
    _store(folder, n_tokens, evaluation)
    row = AgentRow(
        agent=job.name,
        variant=job.variant,
        budget_nats=config.constraint.episode_budget_nats,
        seed=config.seed,
        n_tokens=n_tokens,
        trained_at_n_tokens=config.stages[-1].n_tokens,
        numbers=evaluation.row(),
    )
    return row_to_json(row)


def base_tasks(agent: AgentConfig, suite: SuiteConfig, folder: Path) -> list[Task]:
    """The parts of the base policy's evaluation, which `conclude_base` joins; none if it is done.

    Args:
        agent: what all agents of the run share.
        suite: how to evaluate.
        folder: of the base policy.

    Raises:
        ResultsError: the folder holds something else.
    """
    if _done_base(agent, suite, folder) is not None:
        return []
    return [
        *(partial(_play_base, agent, part) for part in _parts(suite)),
        partial(_play_behaviour, agent, suite),
    ]


def _parts(suite: SuiteConfig) -> tuple[BasePart, ...]:
    """Of the base policy's evaluation."""
    return base_parts(
        suite.n_base_episodes,
        suite.evaluation_lengths,
        at_once=suite.n_evaluation_episodes,
        stream=EVALUATION_STREAM,
    )


def _done_base(agent: AgentConfig, suite: SuiteConfig, folder: Path) -> dict[str, Any] | None:
    """The base policy's result, if there is one."""
    return done_result(folder, base_origin(agent, suite), base_from_json)


def _play_base(agent: AgentConfig, part: BasePart) -> Evaluation:
    """Some of the base policy's episodes."""
    torch.set_num_threads(1)
    world = WORLDS.world(agent.world)
    return play_base(world, part, process=known_demonstrator(agent.world, world), seed=agent.seed)


def _play_behaviour(agent: AgentConfig, suite: SuiteConfig) -> ScriptedEpisodes:
    """The behaviour's price under the base policy, in as many contexts as are played together."""
    torch.set_num_threads(1)
    return play_behaviour(
        WORLDS.world(agent.world),
        n_episodes=min(suite.n_base_episodes, suite.n_evaluation_episodes),
        n_tokens=min(suite.evaluation_lengths),
        seed=agent.seed,
        stream=(EVALUATION_STREAM,),
    )


def conclude_base(
    agent: AgentConfig, suite: SuiteConfig, folder: Path, played: Sequence[Any]
) -> dict[str, Any]:
    """Write what the base policy's evaluation amounts to.

    Args:
        agent: as for `base_tasks`.
        suite: the same.
        folder: the same.
        played: the results of `base_tasks`.

    Returns:
        A `measures.metrics.BaseEvaluation` as JSON.
    """
    if not played:
        return cast("dict[str, Any]", _done_base(agent, suite, folder))
    *parts, behaviour = played
    episodes = join_parts(parts)
    folder.mkdir(parents=True, exist_ok=True)
    for n_tokens, evaluation in episodes.items():
        _store(folder, n_tokens, evaluation)
    numbers = base_to_json(base_evaluation(episodes, behaviour))
    write_result(folder, base_origin(agent, suite), numbers)
    return numbers


def _store(folder: Path, n_tokens: int, evaluation: Evaluation) -> None:
    """Write the episodes of an evaluation."""
    write_atomically(
        folder / episodes_file(n_tokens),
        lambda path: np.savez_compressed(path, allow_pickle=False, **evaluation.arrays()),
    )


# --------------------------------------------------------------------------- all jobs


def run_suite(
    settings: Settings, out: Path, *, n_processes: int, console: Console
) -> tuple[Table, ...]:
    """Train and evaluate every agent of a suite, or finish what was begun.

    Args:
        settings: what the numbers depend on.
        out: folder of the run.
        n_processes: jobs that are done side by side, each in a process of one thread.
        console: progress goes there.

    Returns:
        The tables of the run; they and what they come from are in its folder.

    Raises:
        ResultsError: the folder belongs to another run or process, or cannot be written.
        ModelError: a model cannot be loaded.
    """
    with exclusive(out):
        started = time.monotonic()
        check_machine(settings, n_processes, console)
        begin(settings, out)
        tasks = run_tasks(settings, out, partial(run_job, run_pid=os.getpid()))
        _warm_up(settings)  # here, where it is said, and once for all processes
        with watch([("", settings, out)], console):
            results = call_here(tasks, n_processes)
            rows, base = conclude_tasks(settings, out, results)
        return conclude(settings, out, rows, base, seconds=time.monotonic() - started)


def _warm_up(settings: Settings) -> None:
    """Compile what the processes of a run will call."""
    kl_kernel.warm_up()
    if settings.preset is Preset.TINY:
        mixtral_kernel.warm_up()


def run_tasks(
    settings: Settings, out: Path, train: Callable[[Job, SuiteConfig, Path], Any]
) -> list[Task]:
    """Every job of a run, in the order of `suite_jobs`, and after them the base policy's parts.

    Args:
        settings: of the run.
        out: its folder.
        train: trains and evaluates an agent in its folder, such as `run_job`.
    """
    return [
        *(
            partial(train, job, settings.agents, out / AGENTS / job.name)
            for job in suite_jobs(settings.agent, settings.agents)
        ),
        *base_tasks(settings.agent, settings.agents, out / BASE),
    ]


def conclude_tasks(
    settings: Settings, out: Path, results: Sequence[Any]
) -> tuple[Sequence[list[dict[str, Any]]], dict[str, Any]]:
    """The rows of every agent and the base policy's numbers, from the results of `run_tasks`."""
    n_jobs = len(suite_jobs(settings.agent, settings.agents))
    base = conclude_base(settings.agent, settings.agents, out / BASE, results[n_jobs:])
    return results[:n_jobs], base


def call_here(tasks: Sequence[Task], n_processes: int) -> list[Any]:
    """The results of tasks that processes of this machine call, in order.

    With one process it is this one. Otherwise this one loads no model: each worker has its own.
    """
    workers = joblib.Parallel(n_jobs=max(min(n_processes, len(tasks)), 1))
    results: list[Any] = workers(joblib.delayed(task)() for task in tasks)
    return results


def begin(settings: Settings, out: Path) -> None:
    """Make a folder the run of `settings`, or make sure that it is."""
    world = settings.agent.world
    language_model, reward_model = model_names(world)
    models = fingerprints(*map(Path, (language_model, reward_model, *member_names(world))))
    models |= reward_fingerprint(reward_model) | part_fingerprints(world)
    if world.vetoes is not None:
        models[VETOES] = hash_file(Path(world.vetoes))
    claim_folder(
        out, settings, label=settings.label, models=models, only_adds=Settings.only_adds_agents
    )


def conclude(
    settings: Settings,
    out: Path,
    results: Sequence[list[dict[str, Any]]],
    base: dict[str, Any],
    *,
    seconds: float,
) -> tuple[Table, ...]:
    """Write what the jobs of a run amount to, and the hashes of its files.

    Args:
        settings: of the run.
        out: its folder.
        results: of its jobs, as `run_job` gives them.
        base: as `conclude_base` gives it.
        seconds: how long it took.
    """
    jobs = suite_jobs(settings.agent, settings.agents)
    of_job = dict(zip((job.name for job in jobs), results, strict=True))
    rows = [
        row
        for agent in suite_agents(settings.agent, settings.agents)
        for row in of_job.get(agent.name) or _earlier_rows(out / AGENTS / agent.name)
    ]
    summary = {"label": settings.label, "base": base, "rows": rows}
    write_json(out / SUMMARY_FILE, summary)
    tables = write_tables(out)
    record_hashes(out, seconds=round(seconds, 1))
    return tables


def _earlier_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of an agent that is no job but was one when its run began; none if it was not."""
    found = read_json(
        folder / RESULT_FILE, with_rows, remedy=f"delete {folder}: it is no agent of today's run"
    )
    return [] if found is None else list(found["rows"])


def check_machine(settings: Settings, n_processes: int, console: Console) -> None:
    """Raise unless this machine can do the run: one clear error here, not one in every process.

    Models have to be there and to fit into memory, and episodes into the language model; of large
    models it is shown what they need. No weights are read. Where the task's process is the base
    policy it is counted as the shipped language model, which needs more.
    """
    world = settings.agent.world
    check_world(world, lengths=settings.episode_lengths)
    n_tasks = len(suite_jobs(settings.agent, settings.agents)) + len(_parts(settings.agents)) + 1
    planned = PlannedRun.of(settings, n_processes=min(n_processes, n_tasks))
    shapes = read_shapes(*model_names(world))
    estimate = estimate_memory(planned, shapes)
    free = free_bytes(estimate.needed())
    if settings.preset is Preset.PAPER:
        print_table(estimate.table(free), console)
    check_memory(planned, shapes, estimate, free)


@contextmanager
def watch(runs: Sequence[tuple[str, Settings, Path]], console: Console) -> Iterator[None]:
    """Print a line for every update that appears in runs' folders, under a bar with the time left.

    Args:
        runs: what to call each, its settings and its folder.
        console: where it is said how much was done before.
    """
    done = threading.Event()
    with progress_bar() as bar:
        watched = _Watched(runs, bar)

        def keep_looking() -> None:
            while not done.wait(_POLL_SECONDS):
                watched.look()

        watched.look(quiet=True)
        if watched.n_updates:
            console.print(f"going on after {watched.n_updates} updates", highlight=False)
        watcher = threading.Thread(target=keep_looking, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
            watched.look()


class _Watched:
    """How far the jobs of some runs are, from what is on disk.

    Work is counted in tokens of the agent; of an evaluation's tokens it writes about half.
    """

    def __init__(self, runs: Sequence[tuple[str, Settings, Path]], bar: Progress) -> None:
        self._bar = bar
        self._jobs: dict[Path, tuple[str, AgentConfig]] = {}
        self._evaluations: dict[Path, int] = {}
        for run, settings, out in runs:
            suite = settings.agents
            n_tokens = sum(suite.evaluation_lengths) // 2
            self._evaluations[out / BASE] = suite.n_base_episodes * n_tokens
            for job in suite_jobs(settings.agent, suite):
                folder = out / AGENTS / job.name
                self._jobs[folder] = (f"{run}{job.name}", job.config)
                self._evaluations[folder] = suite.n_evaluation_episodes * n_tokens
        self._seen = dict.fromkeys(self._jobs, 0)
        self._steps = dict.fromkeys(self._jobs, 0)
        training = sum(config.total_agent_steps for _, config in self._jobs.values())
        total = training + sum(self._evaluations.values())
        self._task = bar.add_task("tokens of the agents", total=total)

    @property
    def n_updates(self) -> int:
        """Updates that have been seen."""
        return sum(self._seen.values())

    def look(self, *, quiet: bool = False) -> None:
        """Take note of what is new, and print it unless `quiet`."""
        for folder, (name, config) in self._jobs.items():
            records = _updates(folder)
            for record in records[self._seen[folder] :]:
                if not quiet:
                    self._bar.console.print(_line(name, record), markup=False, soft_wrap=True)
            if records:
                self._seen[folder] = len(records)
                self._steps[folder] = min(records[-1]["agent_steps"], config.total_agent_steps)
        evaluated = (
            n_tokens
            for folder, n_tokens in self._evaluations.items()
            if (folder / RESULT_FILE).exists()
        )
        self._bar.update(self._task, completed=sum(self._steps.values()) + sum(evaluated))


def _updates(folder: Path) -> list[dict[str, Any]]:
    """The records of a job's updates so far; a damaged file, which the job mends, has none."""
    try:
        return read_updates(folder / UPDATES_FILE)
    except ResultsError:
        return []


def _line(name: str, record: dict[str, Any]) -> str:
    """One update of the agent `name`, for a person."""
    return (
        f"{name}  update {record['update']}  steps {record['agent_steps']:,}  "
        f"budget {float(record['budget_nats']):.2f}  spent {record['spent_nats_mean']:.2f} "
        f"(most {record['spent_nats_max']:.2f}) nats  return {record['return_mean']:.2f}  "
        f"empty {float(record['empty_share']):.0%}"
    )
