"""`python -m proofs_check`: run the checks, print what they find, and exit with 1 if one fails."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from mightnt.command_line import parse_command_line, run_command
from mightnt.progress import track
from mightnt.results import check_writable, write_atomically, write_json
from mightnt.tables import Column, Table, print_table
from proofs_check.verdict import Check, CheckResult, Effort, Outcome

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
    sabotage: bool = False
    """Put faults into the code that the checks cover, and see that each check notices its own."""
    json: Path | None = None
    """Also write the checks with their verdicts as JSON to this file."""
    markdown: Path | None = None
    """Write the list of all checks as Markdown to this file (PROOFS.md is made so)."""


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""

    def command() -> None:
        _run(parse_command_line(Options, argv, prog="python -m proofs_check"))

    run_command(command)


def _run(options: Options) -> None:
    # The checks import sympy and numba; help and bad options have been answered by now.
    from proofs_check import checks

    chosen = checks.select(options.only)
    check_writable(*filter(None, (options.json, options.markdown)))
    if options.markdown:
        text = checks.markdown()
        write_atomically(options.markdown, lambda path: path.write_text(text, encoding="utf-8"))
    if options.list:
        print_table(_list(chosen), Console())
        return
    if options.sabotage:
        _sabotage(chosen)
        return
    effort = Effort.THOROUGH if options.thorough else Effort.DEFAULT
    results = [
        checks.run_check(check, effort) for check in track(chosen, "checking", total=len(chosen))
    ]
    if options.json:
        write_json(options.json, checks.as_json(results))
    _show(results)
    if not all(result.passed for result in results):
        sys.exit(CHECK_FAILED)


def _sabotage(chosen: Sequence[Check]) -> None:
    from proofs_check import checks

    uncaught = [
        name
        for check in track(chosen, "sabotaging", total=len(chosen))
        for name in checks.uncaught_sabotages([check])
    ]
    console = Console(highlight=False)
    for name in uncaught:
        console.print(Text(f"NOT NOTICED {name}", style="bold red"))
    n_sabotages = sum(len(check.sabotages) for check in chosen)
    console.print(f"{n_sabotages - len(uncaught)} of {n_sabotages} sabotages were noticed")
    if uncaught:
        sys.exit(CHECK_FAILED)


def _list(checks: Sequence[Check]) -> Table:
    headers = ("label", "kind", "statement", "scope")
    return Table(
        title="Checks",
        columns=tuple(Column(header=header) for header in headers),
        rows=tuple((check.label, check.kind.value, check.words, check.scope) for check in checks),
    )


def _show(results: Sequence[CheckResult]) -> None:
    console = Console(highlight=False)
    for result in results:
        check, outcome = result.check, result.outcome
        style, mark = ("green", "") if result.passed else ("bold red", "UNEXPECTED ")
        console.print(
            f"[{style}]{mark}{outcome.verdict.value}[/] [bold]{check.label}[/bold]  "
            f"{check.kind.value}, {_counted(outcome)}, {result.seconds:.1f} s"
        )
        lines = [check.words, check.formula, f"scope: {check.scope}", f"code: {check.where}"]
        lines += [f"source: {check.source}"] if check.source else []
        lines += [f"counterexample: {outcome.counterexample}"] if outcome.counterexample else []
        lines += [outcome.note] if outcome.note else []
        lines += result.shortcomings
        for line in lines:
            console.print(Padding(Text(line), (0, 0, 0, 6)))
    passed = sum(result.passed for result in results)
    seconds = sum(result.seconds for result in results)
    console.print(f"{passed} of {len(results)} checks came out as stated, in {seconds:.0f} s")


def _counted(outcome: Outcome) -> str:
    if not outcome.vacuous:
        return f"{outcome.cases:,} cases"
    return f"{outcome.informative:,} informative of {outcome.cases:,} cases"


if __name__ == "__main__":
    main()
