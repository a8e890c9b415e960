"""`python -m paper_figures`: every figure and table, from the runs at hand.

What can be made is made; what lacks its data is named with the command that makes them.
"""

import importlib
import pkgutil
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

import paper_figures
from mightnt.command_line import fail, parse_command_line, run_command
from mightnt.figure_style import figure_style
from mightnt.progress import progress_bar
from paper_figures.artefact import Artefact, write_product
from paper_figures.results import Sources, read_experiment
from theory.errors import InvalidArgumentError, MissingDataError

PROG: Final = "python -m paper_figures"
DEFAULT_RUNS: Final = (Path("results/llm"), Path("results/llm-full"), Path("results/llm-quick"))


def artefact_names() -> tuple[str, ...]:
    """The names of all artefacts, figures first, by number."""
    modules = (module.name for module in pkgutil.iter_modules(paper_figures.__path__))
    found = (re.fullmatch(r"(figure|table)_(\d+)", name) for name in modules)
    ordered = sorted((match[1], int(match[2])) for match in found if match)
    return tuple(f"{kind}{number}" for kind, number in ordered)


def load_artefact(name: str) -> Artefact:
    """The artefact of that name, such as `figure3` of `paper_figures.figure_3`."""
    module = re.sub(r"(\d+)", r"_\1", name)
    artefact: Artefact = importlib.import_module(f"{paper_figures.__name__}.{module}").ARTEFACT
    return artefact


@dataclass(frozen=True, kw_only=True)
class Options:
    """Make the figures and tables: PNG and PDF, the data behind each as CSV, and its caption.

    figure1: diagram of KL-regularised reinforcement learning.
    figure2: transcripts, every token coloured by its KL cost.
    figure3: KL cost of the n-th empty response.
    figure4: fraction of empty responses, by budget and length.
    """

    runs: tuple[Path, ...] = ()
    """Folders of `python -m llm_experiment.run`, the most trusted first; whichever of results/llm,
    results/llm-full and results/llm-quick exist if left out."""
    only: tuple[str, ...] = ()
    """Make these alone, by name, such as figure3."""
    out: Path = Path("results/figures")
    """Folder for what is made."""

    def __post_init__(self) -> None:
        for name in self.only:
            if name not in artefact_names():
                raise InvalidArgumentError(
                    f"--only must be among {', '.join(artefact_names())}, got {name}"
                )


def make(options: Options, console: Console) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Make what was asked for.

    Args:
        options: what, from what, and where.
        console: lines about what was made and what is missing go there.

    Returns:
        The files written, and a line for each artefact without its data.

    Raises:
        ResultsError: a folder is no run, or two belong to different experiments.
    """
    names = options.only or artefact_names()
    folders = options.runs or tuple(folder for folder in DEFAULT_RUNS if folder.is_dir())
    sources = Sources(found=read_experiment(folders) if folders else None)
    written: list[Path] = []
    missing: list[str] = []
    with progress_bar() as bar:
        for name in bar.track(names, description="figures and tables"):
            started = time.monotonic()
            artefact = load_artefact(name)
            try:
                with figure_style():
                    paths = write_product(name, artefact.build(sources), options.out)
            except MissingDataError as error:
                missing.append(f"{name} ({artefact.title}) is missing data: {error}")
                console.print(missing[-1], markup=False, highlight=False, soft_wrap=True)
                continue
            written += paths
            console.print(
                f"{name}: {artefact.title}: {paths[0]} and {len(paths) - 1} more, "
                f"{time.monotonic() - started:.1f} s",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
    return tuple(written), tuple(missing)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""

    def command() -> None:
        options = parse_command_line(Options, argv, prog=PROG)
        written, missing = make(options, Console(stderr=True))
        if not written:
            fail(f"nothing could be made: {'; '.join(missing)}")

    run_command(command)


if __name__ == "__main__":
    main()
