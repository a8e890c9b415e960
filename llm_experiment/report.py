"""A run as one page to look at: what was found, the curves, and every token with its numbers.

    python -m llm_experiment.report results/llm

writes `report.html` into the folder of a run, finished or not: a single file that needs no network
and no server. `llm_experiment.run` writes it at its end. Equal runs give equal bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import tyro

from llm_experiment.config import at_least
from llm_experiment.dialogue.task import speakers_of
from mightnt.command_line import parse_command_line, run_command

PROG: Final = "python -m llm_experiment.report"
DEFAULT_EPISODES: Final = 32


@dataclass(frozen=True, kw_only=True)
class Options:
    """Make one HTML page of a run: figures, curves, and transcripts with a number a token."""

    run: Annotated[Path, tyro.conf.Positional] = Path("results/llm")
    """Folder of the run, finished or not."""
    episodes: int = DEFAULT_EPISODES
    """Transcripts to show of each agent at each length, the first ones; all count in the curves."""
    out: Path | None = None
    """Where to write the page; `report.html` in the run's folder if left out."""

    def __post_init__(self) -> None:
        at_least("episodes", self.episodes, 1)


def write_report(
    folder: Path, *, out: Path | None = None, n_episodes: int = DEFAULT_EPISODES
) -> Path:
    """Write the page of a run.

    Args:
        folder: of the run, finished or not.
        out: where to; `report.html` in `folder` if None.
        n_episodes: transcripts to show of each evaluation, the first ones.

    Returns:
        Where it is.

    Raises:
        ResultsError: the folder is not a run's, or holds nothing to show, or a file cannot be
            read or written.
        ModelError: the tokenizer of the run's base model cannot be loaded.
    """
    from llm_experiment.base.shipped import model_names
    from llm_experiment.chat.token_texts import read_tokenizer, token_bytes, vocabulary_size
    from llm_experiment.page.data import report_data
    from llm_experiment.page.page import page
    from llm_experiment.records.folder import REPORT_FILE
    from llm_experiment.records.reading import read_run
    from mightnt.results import check_writable, write_atomically

    path = folder / REPORT_FILE if out is None else out
    run = read_run(folder)
    run.check_unchanged()
    check_writable(path)
    world = run.agent.world
    language_model, _ = model_names(world)
    tokenizer = read_tokenizer(language_model)
    pieces = token_bytes(
        tokenizer, speaker=speakers_of(world)[0], n_tokens=vocabulary_size(tokenizer)
    )
    text = page(report_data(run, pieces, n_episodes=n_episodes))
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return path


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, write, say where."""

    def command() -> None:
        options = parse_command_line(Options, argv, prog=PROG)
        from rich.console import Console

        path = write_report(options.run, out=options.out, n_episodes=options.episodes)
        size = path.stat().st_size / 1e6
        Console(stderr=True).print(f"{path} ({size:.1f} MB)", highlight=False)

    run_command(command)


if __name__ == "__main__":
    main()
