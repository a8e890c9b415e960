"""`python -m proofs_check`: run the ledger, print it, and exit with 1 if a check fails."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mightnt.command_line import parse_command_line, run_command
from mightnt.progress import track
from mightnt.results import write_atomically, write_json
from proofs_check.checks import Entry, as_json, markdown, run_check, select
from proofs_check.verdict import Check, Effort

CHECK_FAILED = 1


@dataclass(frozen=True, kw_only=True)
class Options:
    """Check every lemma that this toolkit relies on, and print how each was checked."""

    only: tuple[str, ...] = ()
    """Labels of the checks to run; all of them by default."""
    list: bool = False
    """List the checks without running them."""
    thorough: bool = False
    """Examine larger scopes; takes longer."""
    json: Path | None = None
    """Also write the ledger with its verdicts as JSON to this file."""
    markdown: Path | None = None
    """Write the ledger's statements as Markdown to this file (PROOFS.md is made so)."""


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""

    def command() -> None:
        options = parse_command_line(Options, argv, prog="python -m proofs_check")
        checks = select(options.only)
        if options.markdown:
            text = markdown()
            write_atomically(options.markdown, lambda path: path.write_text(text, encoding="utf-8"))
        if options.list:
            Console().print(_list(checks))
            return
        effort = Effort.THOROUGH if options.thorough else Effort.DEFAULT
        entries = [
            run_check(check, effort) for check in track(checks, "checking", total=len(checks))
        ]
        _show(entries)
        if options.json:
            write_json(options.json, as_json(entries))
        if not all(entry.passed for entry in entries):
            sys.exit(CHECK_FAILED)

    run_command(command)


def _list(checks: Sequence[Check]) -> Table:
    table = Table(title="Checks", title_justify="left")
    for header in ("label", "kind", "statement", "scope"):
        table.add_column(header)
    for check in checks:
        table.add_row(check.label, check.kind.value, check.words, check.scope)
    return table


def _show(entries: Sequence[Entry]) -> None:
    console = Console(highlight=False)
    for entry in entries:
        check, outcome = entry.check, entry.outcome
        style, mark = ("green", "") if entry.passed else ("bold red", "UNEXPECTED ")
        console.print(
            f"[{style}]{mark}{outcome.verdict.value}[/] [bold]{check.label}[/bold]  "
            f"{check.kind.value}, {outcome.cases:,} cases, {entry.seconds:.1f} s"
        )
        lines = [check.words, check.formula, f"scope: {check.scope}", f"code: {check.where}"]
        lines += [f"source: {check.source}"] if check.source else []
        lines += [f"counterexample: {outcome.counterexample}"] if outcome.counterexample else []
        lines += [outcome.note] if outcome.note else []
        for line in lines:
            console.print(Padding(Text(line), (0, 0, 0, 6)))
    passed = sum(entry.passed for entry in entries)
    seconds = sum(entry.seconds for entry in entries)
    console.print(f"{passed} of {len(entries)} checks came out as stated, in {seconds:.0f} s")


if __name__ == "__main__":
    main()
