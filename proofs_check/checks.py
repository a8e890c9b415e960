"""The ledger: every check, run, printed and written.

`CHECKS` is the one list. Its order is the order of the theory.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from proofs_check import (
    accounting,
    divergence_lemmas,
    little_constraint,
    no_triangle,
    pessimism,
    prefix_code,
    projection,
    readings,
    simple_events,
    tvd_constraint,
)
from proofs_check.verdict import Check, Effort, Kind, Outcome
from theory.errors import InvalidArgumentError

CHECKS: Final[tuple[Check, ...]] = (
    *divergence_lemmas.CHECKS,
    *readings.CHECKS,
    *projection.CHECKS,
    *accounting.CHECKS,
    *no_triangle.CHECKS,
    *prefix_code.CHECKS,
    *little_constraint.CHECKS,
    *simple_events.CHECKS,
    *tvd_constraint.CHECKS,
    *pessimism.CHECKS,
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A check with what its run found and the seconds it took."""

    check: Check
    outcome: Outcome
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether the outcome is the expected one."""
        return self.check.passes(self.outcome)


def run_check(check: Check, effort: Effort) -> Entry:
    """Run one check."""
    start = time.perf_counter()
    outcome = check.examine(effort)
    return Entry(check=check, outcome=outcome, seconds=time.perf_counter() - start)


def select(labels: Iterable[str]) -> tuple[Check, ...]:
    """The checks with these labels, all of them if there are none.

    Raises:
        InvalidArgumentError: an unknown label.
    """
    wanted = set(labels)
    unknown = wanted - {check.label for check in CHECKS}
    if unknown:
        raise InvalidArgumentError(
            f"no check is called {', '.join(sorted(unknown))}; --list shows the labels"
        )
    return tuple(check for check in CHECKS if not wanted or check.label in wanted)


def markdown() -> str:
    """The ledger as Markdown, without what changes from run to run."""
    lines = [
        "# What is checked by machine",
        "",
        "Made by `python -m proofs_check --markdown PROOFS.md`; a test keeps it fresh. Run "
        "`python -m proofs_check` for verdicts, cases and seconds. `FAILS` marks a statement "
        "that is false as printed: the check is that its counterexample stands.",
        "",
        *(f"- **{kind.value}**: {_KIND_IN_WORDS[kind]}" for kind in Kind),
        "",
        "| Label | Statement | Formula | Kind | Scope | Verdict | Code |",
        "|---|---|---|---|---|---|---|",
    ]
    for check in CHECKS:
        about = "; ".join(str(statement) for statement in check.statements)
        words = check.words + (f" *({about})*" if about else "")
        if check.source:
            words += f" Source: {check.source}."
        cells = (
            f"`{check.label}`",
            words,
            f"`{check.formula}`",
            check.kind.value,
            check.scope,
            check.expected.value,
            f"`{check.where}`",
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def as_json(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """The entries as JSON-like values."""
    return [
        {
            "label": entry.check.label,
            "words": entry.check.words,
            "formula": entry.check.formula,
            "kind": entry.check.kind,
            "scope": entry.check.scope,
            "statements": [str(statement) for statement in entry.check.statements],
            "source": entry.check.source,
            "expected": entry.check.expected,
            "verdict": entry.outcome.verdict,
            "passed": entry.passed,
            "cases": entry.outcome.cases,
            "counterexample": entry.outcome.counterexample,
            "note": entry.outcome.note,
            "seconds": entry.seconds,
            "where": entry.check.where,
        }
        for entry in entries
    ]


_KIND_IN_WORDS: Final = {
    Kind.SYMBOLIC: "computer algebra, for all values of the symbols",
    Kind.EXHAUSTIVE: "rational arithmetic over every member of the stated finite class",
    Kind.CERTIFIED: "ball arithmetic: an enclosure decides, or the verdict is UNDECIDED",
    Kind.LITERATURE: "assumed and cited; both sides evaluated on examples, which proves nothing",
}
