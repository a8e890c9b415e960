r"""Audit any causal language model, or a policy against the model that it began as.

    python -m llm_experiment.audit --base-model models/base --policy models/tuned \
        --prompts prompts.jsonl --out results/audit

writes into the folder `--out`

    audit.json    all that was found (`llm_experiment.auditing.summary.AuditSummary`)
    audit.csv     every number of every prompt (`llm_experiment.auditing.tables.write_csv`)
    audit.*.jsonl each table that it prints, for programs (`mightnt.table_files`)
    audit.png     what a budget buys, and where it was spent; audit.pdf is the same
    audit.html    a page to look at
    parts/        what is measured so far

What it measures, and what of it is exact, says docs/audit_your_run.md. Ctrl-C loses one batch of
prompts at most; the same command then goes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import tyro

from llm_experiment.auditing.settings import AuditSettings
from mightnt.command_line import parse_command_line, run_command
from theory.errors import InvalidArgumentError, InvalidBudgetError

if TYPE_CHECKING:
    from rich.console import Console

PROG: Final = "python -m llm_experiment.audit"
STEM: Final = "audit"
DEFAULT_BUDGETS_NATS: Final = (1.0, 3.0, 10.0, 30.0)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a budget of KL buys of a language model, and where a policy spent it; resumes."""

    out: Path = Path("results/audit")
    """Folder of the audit. The same command with the same folder goes on where it stopped."""
    budgets_nats: tuple[float, ...] = DEFAULT_BUDGETS_NATS
    """Budgets of one answer to ask about; with a policy, what it spends is another."""
    likely: float = 0.5
    """The probability from which on a behaviour is called likely."""
    settings: Annotated[AuditSettings, tyro.conf.arg(name="")]
    """All that the measurements depend on."""

    def __post_init__(self) -> None:
        for budget in self.budgets_nats:
            if not budget >= 0:
                raise InvalidBudgetError(f"budgets_nats must be >= 0, got {budget}")
        if not 0 < self.likely < 1:
            raise InvalidArgumentError(f"likely must lie in (0, 1), got {self.likely}")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, measure, write, print."""

    def command() -> None:
        options = parse_command_line(Options, argv, prog=PROG)
        from rich.console import Console

        _audit(options, Console())

    run_command(command)


def _audit(options: Options, console: "Console") -> None:
    """Measure what is not measured yet, then say what it amounts to."""
    from llm_experiment.auditing.figure import plot
    from llm_experiment.auditing.measuring import measure
    from llm_experiment.auditing.page import audit_page
    from llm_experiment.auditing.summary import summarise
    from llm_experiment.auditing.tables import all_tables, write_csv
    from mightnt.results import check_writable, write_atomically, write_json
    from mightnt.table_files import write_tables
    from mightnt.tables import print_table

    table, page = (options.out / f"{STEM}.{kind}" for kind in ("csv", "html"))
    check_writable(options.out / f"{STEM}.json", table, page)
    found = measure(options.settings, options.out)
    names = {"scripts": found.scripts, "patterns": found.patterns}
    summary = summarise(
        found.arrays,
        found.prompts,
        **names,
        budgets_nats=options.budgets_nats,
        likely=options.likely,
        spelt=found.spelt,
    )
    file, tables = options.out / f"{STEM}.json", all_tables(summary)
    write_json(file, {"settings": options.settings, "found": summary})
    write_csv(table, found.arrays, found.prompts, **names)
    paths = (*write_tables(file, tables), *plot(summary, options.out / STEM))
    text = audit_page(summary, found.arrays, found.prompts, options.settings, spelt=found.spelt)
    write_atomically(page, lambda path: path.write_text(text, encoding="utf-8"))
    for each in tables:
        print_table(each, console)
        console.print()
    for path in (file, table, *paths, page):
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
