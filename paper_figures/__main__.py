"""`python -m paper_figures`: every figure and table, from the runs at hand.

What can be made is made; what lacks its data is named, with the command that makes them.
"""

import importlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import paper_figures
from mightnt.command_line import fail, parse_command_line, run_command
from theory.errors import InvalidArgumentError, MissingDataError

if TYPE_CHECKING:
    from llm_experiment.records.reading import RunFolder
    from paper_figures.artefact import Build
    from paper_figures.results import Sources

PROG: Final = "python -m paper_figures"
DEFAULT_RUNS: Final = (Path("results/llm"), Path("results/llm-full"), Path("results/llm-quick"))
TITLES: Final = {
    "figure1": "diagram of KL-regularised reinforcement learning",
    "figure2": "transcripts, every token coloured by its KL cost",
    "figure3": "KL cost of the n-th empty response, by budget",
    "figure4": "share of empty responses, by budget and length",
    "figure5": "price of deviating against training length (Theorem 1)",
    "figure6": "value against budget, for every constraint",
    "figure7": "K of the simplest unprecedented event (Proposition 2)",
    "figure8": "pessimism: help, guarantee, price and conduct",
    "figure9": "silent episodes against budget, with the closed form",
    "figure10": "what realised accounting leaks",
    "figure11": "KL to the demonstrator, base policy beside the agents",
    "table1": "which transcript is better, which less predictable",
    "table2": "which regulariser resists, in toy worlds",
    "table3": "language-model agents under every constraint",
}
"""What there is. `figure3` is made by `build` of the module `paper_figures.figure_3`."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Make the figures and tables, each with the data behind it as CSV, and its caption."""

    runs: tuple[Path, ...] = ()
    """Folders of `python -m llm_experiment.run`, the most trusted first; of results/llm,
    results/llm-full and results/llm-quick those that exist and fit together if left out."""
    toy: Path = Path("results/toy")
    """Folder of what `python -m toy_world` stored; what it lacks of a figure is computed."""
    only: tuple[str, ...] = ()
    """Make these alone, by name, such as figure3."""
    out: Path = Path("results/figures")
    """Folder for what is made."""

    def __post_init__(self) -> None:
        for name in self.only:
            if name not in TITLES:
                raise InvalidArgumentError(f"--only must be among {', '.join(TITLES)}, got {name}")


# The command's help lists what there is.
Options.__doc__ = "\n".join(
    [f"{Options.__doc__}", "", *(f"- {name}: {title}" for name, title in TITLES.items())]
)


@dataclass(frozen=True, kw_only=True)
class Made:
    """What came of one artefact.

    Attributes:
        name: of the artefact.
        paths: of the files written; none if data are missing.
        missing: what is missing and which command makes it, or nothing.
        seconds: that it took.
    """

    name: str
    paths: tuple[Path, ...]
    missing: str
    seconds: float

    def __str__(self) -> str:
        """A line for a person."""
        what = f"{self.name} ({TITLES[self.name]})"
        if self.missing:
            return f"{what} is missing data: {self.missing}"
        return f"{what}: {self.paths[0]}, {self.seconds:.1f} s"


def load_build(name: str) -> "Build":
    """The function that makes an artefact."""
    kind = name.rstrip("0123456789")
    module = f"{paper_figures.__name__}.{kind}_{name.removeprefix(kind)}"
    build: Build = importlib.import_module(module).build
    return build


def default_runs() -> "tuple[RunFolder, ...]":
    """The runs at the places where commands put them: the first, and those that go with it."""
    from llm_experiment.records.folder import MANIFEST
    from llm_experiment.records.reading import difference_between, read_run

    there = [read_run(folder) for folder in DEFAULT_RUNS if (folder / MANIFEST).exists()]
    return tuple(run for run in there if not difference_between(there[0], run))


def make_one(name: str, sources: "Sources", folder: Path) -> Made:
    """Make and write one artefact, if its data are there.

    Raises:
        ResultsError: a result cannot be read, or the folder cannot be written.
    """
    from mightnt.figure_style import figure_style
    from paper_figures.artefact import write_product

    started = time.monotonic()
    paths: tuple[Path, ...] = ()
    missing = ""
    try:
        with figure_style():
            paths = write_product(name, load_build(name)(sources), folder)
    except MissingDataError as error:
        missing = str(error)
    return Made(name=name, paths=paths, missing=missing, seconds=time.monotonic() - started)


def make(options: Options) -> Iterator[Made]:
    """Make what was asked for, in order.

    Raises:
        ResultsError: a folder is no run, has changed since, or belongs to another experiment.
    """
    from llm_experiment.records.reading import join_runs, read_run
    from mightnt.progress import track
    from mightnt.results import check_writable
    from paper_figures.results import Sources
    from paper_figures.toy import ToyResults

    names = options.only or tuple(TITLES)
    check_writable(*(options.out / f"{name}.txt" for name in names))
    runs = tuple(map(read_run, options.runs)) or default_runs()
    for run in runs:
        run.check_unchanged()
    sources = Sources(found=join_runs(runs) if runs else None, toy=ToyResults(folder=options.toy))
    for name in track(names, "figures and tables", total=len(names)):
        yield make_one(name, sources, options.out)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""

    def command() -> None:
        options = parse_command_line(Options, argv, prog=PROG)
        from rich.console import Console

        console = Console(stderr=True)
        made = []
        for one in make(options):
            made.append(one)
            console.print(str(one), markup=False, highlight=False, soft_wrap=True)
        if not any(one.paths for one in made):
            fail(f"nothing could be made: {'; '.join(dict.fromkeys(o.missing for o in made))}")

    run_command(command)


if __name__ == "__main__":
    main()
