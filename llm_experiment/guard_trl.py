"""A hard KL budget and a penalty side by side in GRPO of trl: a table and a figure.

    python -m llm_experiment.guard_trl --out results/guard-trl

writes `guard_trl.json` (settings, and every sequence's return and cost), the table for programs
(`mightnt.table_files`), a figure, and TensorBoard's files of each training. What is trained says
`llm_experiment.guard.grpo`. It needs the extra `trl`. Finished trainings are kept: the same command
goes on where it stopped.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import tyro
from rich.console import Console

from llm_experiment.dialogue.task import load_task
from llm_experiment.guard.study import Constraint, GRPOSettings, Outcome
from mightnt.command_line import parse_command_line, run_command
from mightnt.progress import progress_bar
from mightnt.results import (
    check_writable,
    from_jsonable,
    read_json,
    to_jsonable,
    write_json,
)
from mightnt.table_files import write_tables
from mightnt.tables import print_table
from theory.errors import InvalidArgumentError, ResultsError

PROG: Final = "python -m llm_experiment.guard_trl"
STEM: Final = "guard_trl"
NEEDS: Final = ("datasets", "trl")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train language models by GRPO of trl under hard KL budgets and under its penalty."""

    out: Path = Path("results/guard-trl")
    """Folder for everything that is written."""
    budgets: tuple[float, ...] = (1.0, 3.0, 10.0)
    """Hard budgets of a sequence, in nats."""
    betas: tuple[float, ...] = (0.1, 0.3, 1.0)
    """Coefficients of trl's penalty."""
    grpo: Annotated[GRPOSettings, tyro.conf.arg(name="")] = field(default_factory=GRPOSettings)
    """How each is trained."""

    def __post_init__(self) -> None:
        if not self.constraints:
            raise InvalidArgumentError("name at least one of budgets and betas")
        load_task(self.grpo.task)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """One a training."""
        hard = [Constraint(budget_nats=nats) for nats in self.budgets]
        return (*hard, *(Constraint(beta=beta) for beta in self.betas))


@dataclass(frozen=True, kw_only=True)
class Training:
    """A finished training, as its file has it.

    Attributes:
        settings: of it.
        outcome: what came of it.
    """

    settings: GRPOSettings
    outcome: Outcome


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, train, print."""

    def command() -> None:
        _compare(parse_command_line(Options, argv, prog=PROG), Console())

    run_command(command)


def _compare(options: Options, console: Console) -> None:
    """Train what is not there yet, write and print."""
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise InvalidArgumentError(
            f"this needs {' and '.join(missing)}; install it with: pip install 'mightnt[trl]'"
        )
    check_writable(options.out / f"{STEM}.json")
    outcomes = train_all(options)

    from llm_experiment.guard.study_tables import every_number, plot, to_table

    file = options.out / f"{STEM}.json"
    write_json(file, {"options": options, "outcomes": outcomes})
    paths = (*write_tables(file, [every_number(outcomes)]), *plot(outcomes, options.out / STEM))
    print_table(to_table(outcomes), console)
    overspent = [outcome.constraint.name for outcome in outcomes if outcome.is_overspent]
    console.print(f"overspent: {', '.join(overspent) or 'none'}", highlight=False)
    for path in paths:
        console.print(f"wrote {path}", highlight=False)


def train_all(options: Options) -> tuple[Outcome, ...]:
    """What comes of every training; those that are finished are read.

    Raises:
        ResultsError: finished trainings of other settings.
    """
    files = {c: options.out / c.name / "outcome.json" for c in options.constraints}
    done = {c: finished(path, options.grpo) for c, path in files.items()}
    if None not in done.values():
        return tuple(outcome for outcome in done.values() if outcome is not None)

    from llm_experiment.guard.grpo import load_classroom, train_and_measure

    classroom = load_classroom(options.grpo)
    outcomes: list[Outcome] = []
    with progress_bar() as bar:
        steps = bar.add_task("trainings", total=len(done) * options.grpo.max_steps)
        for constraint, known in done.items():
            bar.update(steps, description=constraint.name)
            outcome = known or train_and_measure(
                constraint,
                options.grpo,
                classroom,
                folder=files[constraint].parent,
                on_step=lambda: bar.advance(steps),
            )
            if known is None:
                write_json(files[constraint], Training(settings=options.grpo, outcome=outcome))
            else:
                bar.advance(steps, options.grpo.max_steps)
            outcomes.append(outcome)
    return tuple(outcomes)


def finished(path: Path, settings: GRPOSettings) -> Outcome | None:
    """What a file says came of a training; None if there is no such file.

    Raises:
        ResultsError: it is of other settings.
    """
    training = read_json(
        path,
        lambda value: from_jsonable(Training, value),
        remedy="delete it, and it is trained again",
    )
    if training is None:
        return None
    if to_jsonable(training.settings) != to_jsonable(settings):
        raise ResultsError(
            f"{path} was trained with other settings; name another folder with --out"
        )
    return training.outcome


if __name__ == "__main__":
    main()
