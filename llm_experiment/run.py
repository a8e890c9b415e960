"""Train the agents of a suite, evaluate each, and keep everything in one folder.

    python -m llm_experiment.run --out results/llm

Agents are independent jobs, a few side by side in processes of one thread each. Every update ends
with the agent on disk, so that Ctrl-C, or worse, loses one update at most; the same command then
goes on where it stopped and gives the numbers of an uninterrupted run.
"""

import argparse
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import joblib
import numpy as np
import torch
import tyro
from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback

from llm_experiment.agent.ppo import LockstepPPO
from llm_experiment.chat.world import load_world, model_names
from llm_experiment.config import AgentConfig, Fidelity, Preset, at_least, preset_config
from llm_experiment.evaluation_tables import show_headline, write_tables
from llm_experiment.feasibility.dry_run import RESULT_FILE as DRY_RUN_FILE
from llm_experiment.feasibility.dry_run import Protocol, dry_run
from llm_experiment.feasibility.dry_run import to_table as dry_run_table
from llm_experiment.feasibility.memory import (
    PlannedRun,
    check_memory,
    estimate_memory,
    free_bytes,
    read_shapes,
)
from llm_experiment.feasibility.random_models import RandomSize
from llm_experiment.measures.departure import known_demonstrator
from llm_experiment.measures.evaluation import Evaluation, evaluate, evaluate_base
from llm_experiment.measures.metrics import AgentRow, base_to_json, row_to_json
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
    record_hashes,
)
from llm_experiment.report import write_report
from llm_experiment.suite import Job, Suite, SuiteConfig, default_suite, suite_jobs
from mightnt.command_line import parse_command_line, run_command
from mightnt.progress import progress_bar
from mightnt.results import write_atomically, write_json
from mightnt.tables import Table
from theory.errors import InvalidArgumentError, ResultsError

PROG: Final = "python -m llm_experiment.run"
QUICK_LABEL: Final = "quick (two budgets, one seed)"
EVALUATION_STREAM: Final = 1_000_000
"""Evaluations draw from streams far beyond those of any training."""
ORPHAN_SECONDS: Final = 120.0
"""How long a job waits for one that a killed run left behind, which stops after its update."""
_POLL_SECONDS: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that a run's numbers depend on."""

    preset: Preset = Preset.TINY
    """Where every option below starts from: a small machine, or the published protocol."""
    fidelity: Fidelity = Fidelity.OURS
    """Whose constraint the options below start from: ours, or the authors'."""
    suite: Suite = Suite.DEFAULT
    """How many agents the options below start from."""
    quick: bool = False
    """Only budgets 0 and 10 with one seed: a look at the whole path in a minute or so."""
    agents: Annotated[SuiteConfig, tyro.conf.arg(name="")] = field(default_factory=SuiteConfig)
    """The agents to train, and how to evaluate them."""
    agent: Annotated[AgentConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: preset_config(Preset.TINY)
    )
    """What all agents share."""

    @classmethod
    def start(cls, preset: Preset, fidelity: Fidelity, suite: Suite, *, quick: bool) -> "Settings":
        """The settings that a preset stands for."""
        return cls(
            preset=preset,
            fidelity=fidelity,
            suite=suite,
            quick=quick,
            agents=default_suite(preset, fidelity, suite, quick=quick),
            agent=preset_config(preset, fidelity),
        )

    @property
    def label(self) -> str:
        """What to call the run wherever its numbers are shown."""
        return QUICK_LABEL if self.quick else f"{self.preset.value}, {self.suite.value} suite"

    @property
    def episode_lengths(self) -> tuple[int, ...]:
        """Every length, in tokens, at which episodes are played in training or evaluation."""
        trained = {stage.n_tokens for stage in self.agent.stages}
        return tuple(sorted(trained | {*self.agents.long_lengths, *self.agents.evaluation_lengths}))


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train and evaluate agents under a budget of KL to a base model; resumes by itself."""

    out: Path = Path("results/llm")
    """Folder of the run. The same command with the same folder goes on where it stopped."""
    processes: int = 2
    """Agents trained side by side, each in a process of one thread; 1 for the preset `paper`."""
    dry_run: bool = False
    """Only find out, in minutes, whether the run fits into memory and how long it would take."""
    random_weights: RandomSize | None = None
    """With --dry-run: models of this size with random weights, in place of the configured ones."""
    settings: Annotated[Settings, tyro.conf.arg(name="")] = field(default_factory=Settings)
    """All that the numbers depend on."""

    def __post_init__(self) -> None:
        at_least("processes", self.processes, 1)
        if self.random_weights is not None and not self.dry_run:
            raise InvalidArgumentError(
                f"random_weights {self.random_weights.value} teach nothing; use them with --dry-run"
            )


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
    result = folder / RESULT_FILE
    if not result.exists():
        torch.set_num_threads(1)
        agent = train_job(job, folder, check_wanted=check_wanted)
        lengths = suite.evaluation_lengths
        rows = [evaluate_job(job, agent, suite, n, folder) for n in lengths]
        check_wanted()
        write_json(result, rows)
    written: list[dict[str, Any]] = json.loads(result.read_text(encoding="utf-8"))
    return written


def train_job(job: Job, folder: Path, *, check_wanted: Callable[[], None]) -> LockstepPPO:
    """The trained agent of a job, from where it was left in `folder`."""
    world = load_world(job.config.world)
    agent = LockstepPPO(world, job.config, tensorboard_log=folder / "tensorboard")
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


def run_base(agent: AgentConfig, suite: SuiteConfig, folder: Path) -> dict[str, Any]:
    """Evaluate the base policy itself, for comparison with every agent.

    Args:
        agent: what all agents of the run share.
        suite: how to evaluate.
        folder: for its episodes and its result.

    Returns:
        A `measures.metrics.BaseEvaluation` as JSON.
    """
    result = folder / RESULT_FILE
    if not result.exists():
        torch.set_num_threads(1)
        with exclusive(folder, patience_seconds=ORPHAN_SECONDS):
            world = load_world(agent.world)
            evaluation = evaluate_base(
                world,
                process=known_demonstrator(agent.world, world),
                n_episodes=suite.n_evaluation_episodes,
                lengths=suite.evaluation_lengths,
                seed=agent.seed,
                stream=EVALUATION_STREAM,
                store=partial(_store, folder),
            )
            write_json(result, base_to_json(evaluation))
    base: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return base


def _store(folder: Path, n_tokens: int, evaluation: Evaluation) -> None:
    """Write the episodes of an evaluation."""
    write_atomically(
        folder / episodes_file(n_tokens),
        lambda path: np.savez_compressed(path, allow_pickle=False, **evaluation.arrays()),
    )


# --------------------------------------------------------------------------- all jobs


def run(options: Options, console: Console) -> tuple[Table, ...]:
    """Train and evaluate every agent of a suite.

    Args:
        options: what and where.
        console: progress goes there.

    Returns:
        The tables of the run; they and what they come from are in its folder.

    Raises:
        ResultsError: the folder belongs to another run or process, or cannot be written.
        ModelError: a model cannot be loaded.
    """
    settings = options.settings
    jobs = suite_jobs(settings.agent, settings.agents)
    folders = [options.out / AGENTS / job.name for job in jobs]
    with exclusive(options.out):
        started = time.monotonic()
        check_machine(settings, min(options.processes, len(jobs)), console)
        begin(settings, options.out)
        with watch(jobs, folders, settings.agents, console):
            tasks = [
                joblib.delayed(run_job)(job, settings.agents, folder, run_pid=os.getpid())
                for job, folder in zip(jobs, folders, strict=True)
            ]
            base_task = joblib.delayed(run_base)(
                settings.agent, settings.agents, options.out / BASE
            )
            *results, base = joblib.Parallel(n_jobs=min(options.processes, len(tasks)))(
                [*tasks, base_task]
            )
        return conclude(settings, options.out, results, base, seconds=time.monotonic() - started)


def begin(settings: Settings, out: Path) -> None:
    """Make a folder the run of `settings`, or make sure that it is."""
    models = fingerprints(*map(Path, model_names(settings.agent.world)))
    claim_folder(out, settings, label=settings.label, models=models)


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
        base: as `run_base` gives it.
        seconds: how long it took.
    """
    rows = [row for job_rows in results for row in job_rows]
    summary = {"label": settings.label, "base": base, "rows": rows}
    write_json(out / SUMMARY_FILE, summary)
    tables = write_tables(out)
    record_hashes(out, seconds=round(seconds, 1))
    return tables


def check_machine(settings: Settings, n_processes: int, console: Console) -> None:
    """Raise unless this machine can do the run: one clear error here, not one in every process.

    Models have to load and to fit into memory; of large ones it is shown what they need.
    """
    planned = PlannedRun(
        agent=settings.agent,
        shapes=read_shapes(*model_names(settings.agent.world)),
        n_evaluation_episodes=settings.agents.n_evaluation_episodes,
        evaluation_lengths=settings.agents.evaluation_lengths,
        n_processes=n_processes,
    )
    estimate = estimate_memory(planned)
    free = free_bytes(estimate.needed())
    if settings.preset is Preset.PAPER:
        console.print(estimate.table(free))
    check_memory(planned, estimate, free)
    load_world(settings.agent.world).check_lengths(*settings.episode_lengths)


@contextmanager
def watch(
    jobs: Sequence[Job], folders: Sequence[Path], suite: SuiteConfig, console: Console
) -> Iterator[None]:
    """Print a line for every update that appears in the folders, under a bar with the time left.

    Work is counted in tokens of the agent; of an evaluation's tokens it writes about half.
    """
    evaluation = suite.n_evaluation_episodes * sum(suite.evaluation_lengths) // 2
    seen = dict.fromkeys(folders, 0)
    steps = dict.fromkeys(folders, 0)
    done = threading.Event()
    with progress_bar() as bar:
        total = sum(job.config.total_agent_steps + evaluation for job in jobs)
        task = bar.add_task("tokens of the agents", total=total)

        def look(*, quiet: bool = False) -> None:
            for job, folder in zip(jobs, folders, strict=True):
                records = _updates(folder)
                for record in records[seen[folder] :]:
                    if not quiet:
                        bar.console.print(_line(job, record), markup=False, soft_wrap=True)
                if records:
                    seen[folder] = len(records)
                    steps[folder] = min(records[-1]["agent_steps"], job.config.total_agent_steps)
            evaluated = sum((folder / RESULT_FILE).exists() for folder in folders)
            bar.update(task, completed=sum(steps.values()) + evaluation * evaluated)

        def keep_looking() -> None:
            while not done.wait(_POLL_SECONDS):
                look()

        look(quiet=True)
        if any(steps.values()):
            console.print(f"going on after {sum(seen.values())} updates", highlight=False)
        watcher = threading.Thread(target=keep_looking, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
            look()


def _updates(folder: Path) -> list[dict[str, Any]]:
    """The records of a job's updates so far."""
    try:
        records: list[dict[str, Any]] = json.loads((folder / UPDATES_FILE).read_bytes())
    except FileNotFoundError:
        return []
    return records


def _line(job: Job, record: dict[str, Any]) -> str:
    """One update, for a person."""
    return (
        f"{job.name}  update {record['update']}  steps {record['agent_steps']:,}  "
        f"budget {float(record['budget_nats']):.2f}  spent {record['spent_nats_mean']:.2f} "
        f"(most {record['spent_nats_max']:.2f}) nats  return {record['return_mean']:.2f}  "
        f"empty {float(record['empty_share']):.0%}"
    )


# --------------------------------------------------------------------------- command line


def parse_options(argv: Sequence[str] | None = None) -> Options:
    """Options from a command line; the preset gives the defaults of all others."""
    start = starting_settings(argv)
    default = Options(processes=1 if start.preset is Preset.PAPER else 2, settings=start)
    return parse_command_line(Options, argv, prog=PROG, default=default)


def starting_settings(argv: Sequence[str] | None = None) -> Settings:
    """The settings from which the options of a command line start."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default=Preset.TINY.value)
    first.add_argument("--fidelity", default=Fidelity.OURS.value)
    first.add_argument("--suite", default=Suite.DEFAULT.value)
    first.add_argument("--quick", action="store_true")
    given, _ = first.parse_known_args(argv)
    try:
        start = Settings.start(
            Preset(given.preset), Fidelity(given.fidelity), Suite(given.suite), quick=given.quick
        )
    except ValueError:
        start = Settings()  # the real parser will say which word it does not know
    # A flag whose default is True would be spelt --no-quick.
    return replace(start, quick=False)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, run, print."""

    def command() -> None:
        options = parse_options(argv)
        console = Console(stderr=True)
        if options.dry_run:
            _dry_run(options, console)
            return
        console.print(f"{options.settings.label}, into {options.out}", highlight=False)
        show_headline(run(options, console), options.out)
        report = write_report(options.out)
        console.print(f"to look at it, open {report} in a browser", highlight=False, soft_wrap=True)

    run_command(command)


def _dry_run(options: Options, console: Console) -> None:
    """Do a dry run and print what it found."""
    settings = options.settings
    protocol = Protocol(
        agent=settings.agent,
        n_agents=len(suite_jobs(settings.agent, settings.agents)),
        n_evaluation_episodes=settings.agents.n_evaluation_episodes,
        evaluation_lengths=settings.agents.evaluation_lengths,
    )
    result = dry_run(protocol, size=options.random_weights, out=options.out, console=console)
    Console().print(dry_run_table(result))
    for assumption in result.assumptions:
        console.print(f"• {assumption}", highlight=False, soft_wrap=True)
    console.print(
        f"{result.label}: all of it is in {options.out / DRY_RUN_FILE}",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
