"""Train the models that are shipped with this project, or those of another dialogue task.

    python -m llm_experiment.tiny_models

trains the shipped models again: with the same options on the same machine, the same losses
(`llm_experiment.base.training`).
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from llm_experiment.base.shipped import (
    COMMAND,
    LANGUAGE_MODEL,
    REWARD_MODEL,
    SHIPPED,
    LanguageModelRecipe,
    RewardModelRecipe,
)
from llm_experiment.dialogue.task import POSITIVE, load_task
from mightnt.command_line import parse_command_line, run_command
from mightnt.progress import progress_bar
from mightnt.results import check_folder

if TYPE_CHECKING:
    from llm_experiment.base.training import Estimate, Progress


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train the default experiment's language model and reward model."""

    task: str = "classroom"
    """Dialogue task: a module of llm_experiment/dialogue/tasks/, or your own as module:name."""
    out: Path = Path("results/tiny_models")
    """Folder to write to; a folder with the task's name, with both models, is made or
    replaced in it."""
    language_model: LanguageModelRecipe = field(default_factory=LanguageModelRecipe)
    """How the language model is trained."""
    reward_model: RewardModelRecipe = field(default_factory=RewardModelRecipe)
    """How the reward model is trained."""

    def __post_init__(self) -> None:
        load_task(self.task)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, train, report, save."""

    def command() -> None:
        train_models(parse_command_line(Options, argv, prog=COMMAND), Console())

    run_command(command)


def train_models(options: Options, console: Console) -> None:
    """Train both models of a task, say how good they are, and save them.

    Raises:
        ResultsError: the folder cannot be written.
    """
    import torch
    from transformers.utils.logging import disable_progress_bar

    from llm_experiment.base.training import (
        language_model_quality,
        reward_model_quality,
        save_models,
        train_language_model,
        train_reward_model,
    )
    from llm_experiment.dialogue.process import DialogueProcess

    check_folder(options.out)
    torch.set_num_threads(1)  # one order of summation, so the same weights every time
    disable_progress_bar()  # type: ignore[no-untyped-call]  # the library's own, for saving
    process = DialogueProcess(load_task(options.task))
    folder = options.out / process.task.name
    began = time.monotonic()
    with _reporting(console, "reward model") as on_progress:
        reward_model = train_reward_model(process, options.reward_model, on_progress=on_progress)
    reward_quality = reward_model_quality(reward_model, process, options.reward_model)
    console.print(
        f"reward model: P({POSITIVE}) is off by {reward_quality.mean_error:.4f} on average and "
        f"{reward_quality.worst_error:.4f} at most on {options.reward_model.n_heldout} replies"
    )
    recipe = options.language_model
    with _reporting(console, "language model") as on_progress:
        language_model = train_language_model(process, recipe, on_progress=on_progress)
    quality = language_model_quality(language_model, process, recipe)
    console.print(
        f"language model: held-out loss {_show(quality.loss)} nats a token, floor "
        f"{_show(quality.floor)}, excess {_show(quality.excess)} ({quality.loss.n_dialogues} "
        "transcripts, 95% intervals)"
    )
    manifest = {
        "task": options.task,
        "language_model": {
            "recipe": recipe,
            "parameters": language_model.num_parameters(),
            "quality_nats_per_token": quality,
        },
        "reward_model": {
            "recipe": options.reward_model,
            "parameters": reward_model.num_parameters(),
            "quality": reward_quality,
        },
        "seconds": round(time.monotonic() - began, 1),
        "versions": {name: version(name) for name in ("numpy", "torch", "transformers")},
    }
    save_models(folder, process, language_model, reward_model, manifest)
    console.print(f"wrote {folder}")
    _compare_with_shipped(folder, options, console)


def _compare_with_shipped(folder: Path, options: Options, console: Console) -> None:
    """Say whether the weights are the shipped ones."""
    for name in (LANGUAGE_MODEL, REWARD_MODEL):
        shipped = SHIPPED / folder.name / name / "model.safetensors"
        written = folder / name / "model.safetensors"
        if shipped.is_file() and not written.samefile(shipped):
            same = shipped.read_bytes() == written.read_bytes()
            console.print(f"{name}: {'the same as' if same else 'other than'} the shipped weights")


@contextlib.contextmanager
def _reporting(console: Console, name: str) -> "Iterator[Callable[[Progress], None]]":
    """A progress bar with the time left where somebody watches, else lines."""
    with progress_bar() as bar:
        task = bar.add_task(name, total=None)

        def on_progress(report: "Progress") -> None:
            left = report.seconds * (report.n_steps / report.step - 1)
            bar.update(
                task,
                total=report.n_steps,
                completed=report.step,
                description=f"{name} {report.loss_nats:.4f} nats",
            )
            if bar.disable:
                console.print(
                    f"{name}: step {report.step}/{report.n_steps}, training loss "
                    f"{report.loss_nats:.4f} nats, {left:.0f} s left"
                )

        yield on_progress


def _show(estimate: "Estimate") -> str:
    return f"{estimate.mean:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


if __name__ == "__main__":
    main()
