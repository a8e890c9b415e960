"""Train the agents of a suite, evaluate each, and keep everything in one folder.

    python -m llm_experiment.run --out results/llm

Agents are independent jobs (`llm_experiment.jobs`), a few side by side in processes of one thread.
Every update ends with the agent on disk, so that Ctrl-C, or worse, loses one update of each process
at most; the same command then goes on where it stopped and gives the numbers of an uninterrupted
run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import tyro
from rich.console import Console

from llm_experiment.config import Preset, at_least, check_vocabularies
from llm_experiment.dialogue.task import load_task
from llm_experiment.feasibility.sizes import RandomSize
from llm_experiment.settings import Settings, starting_settings
from llm_experiment.suite import suite_jobs
from mightnt.command_line import parse_command_line, run_command
from theory.errors import InvalidArgumentError

PROG: Final = "python -m llm_experiment.run"


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
    """With --dry-run: models of this size with random weights, in place of the configured ones;
    its `tiny` is not the shipped models, which have that name too."""
    settings: Annotated[Settings, tyro.conf.arg(name="")] = field(default_factory=Settings)
    """All that the numbers depend on."""

    def __post_init__(self) -> None:
        at_least("processes", self.processes, 1)
        load_task(self.settings.agent.world.task)
        check_vocabularies(self.settings.agent.world)
        suite_jobs(self.settings.agent, self.settings.agents)  # no two of which may be the same
        if self.random_weights is not None and not self.dry_run:
            raise InvalidArgumentError(
                f"random_weights {self.random_weights.value} teach nothing; use them with --dry-run"
            )


def parse_options(argv: Sequence[str] | None = None) -> Options:
    """Options from a command line; the preset gives the defaults of all others."""
    start = starting_settings(argv)
    default = Options(processes=1 if start.preset is Preset.PAPER else 2, settings=start)
    return parse_command_line(Options, argv, prog=PROG, default=default)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, run, print."""

    def command() -> None:
        options = parse_options(argv)
        work = _dry_run if options.dry_run else _run
        work(options, Console(stderr=True))

    run_command(command)


def _run(options: Options, console: Console) -> None:
    """Do the run, show its headline and write its page."""
    from llm_experiment.evaluation_tables import show_headline
    from llm_experiment.jobs import run_suite
    from llm_experiment.report import write_report

    console.print(f"{options.settings.label}, into {options.out}", highlight=False)
    tables = run_suite(
        options.settings, options.out, n_processes=options.processes, console=console
    )
    show_headline(tables, options.out)
    report = write_report(options.out)
    console.print(f"to look at it, open {report} in a browser", highlight=False, soft_wrap=True)


def _dry_run(options: Options, console: Console) -> None:
    """Do a dry run and print what it found."""
    from llm_experiment.feasibility.dry_run import RESULT_FILE, dry_run, to_table
    from llm_experiment.feasibility.memory import PlannedRun
    from mightnt.tables import print_table

    planned = PlannedRun.of(options.settings, n_processes=1)
    result = dry_run(planned, size=options.random_weights, out=options.out, console=console)
    print_table(to_table(result), Console())
    console.print(
        f"{result.label}: all of it is in {options.out / RESULT_FILE}",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
