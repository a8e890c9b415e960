"""Compare transcripts of a finished run pairwise: whose behaviour is better, whose more complex.

    python -m llm_experiment.judge results/llm

What is compared, by whom, and what `judge.json` in the run's folder holds then, says
`llm_experiment.judging.comparisons`. `--judge endpoint` asks a language model too, at any server
that speaks OpenAI's protocol (`llm_experiment.judging.endpoint`).
"""

from collections.abc import Sequence
from typing import Final

from llm_experiment.judging.options import JudgeKind, Options
from mightnt.command_line import parse_command_line, run_command

PROG: Final = "python -m llm_experiment.judge"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, judge, print."""

    def command() -> None:
        options = parse_command_line(Options, argv, prog=PROG)
        from rich.console import Console

        from llm_experiment.judging.comparisons import judge, to_tables
        from llm_experiment.records.folder import JUDGE_FILE
        from mightnt.table_files import write_tables
        from mightnt.tables import print_table

        notes = Console(stderr=True)
        if options.judge is JudgeKind.ENDPOINT:
            notes.print("Ctrl-C waits for the questions under way; every answer is kept")
        tables = to_tables(judge(options))
        console = Console()
        for number, table in enumerate(tables):
            if number:
                console.print()
            print_table(table, console)
        file = options.run / JUDGE_FILE
        for path in (file, *write_tables(file, tables)):
            notes.print(f"wrote {path}", highlight=False)

    run_command(command)


if __name__ == "__main__":
    main()
