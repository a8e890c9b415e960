"""The list of all checks; running one, and writing the list as Markdown and its results as JSON.

`CHECKS` is in the order of the theory. Importing this module imports what the checks work with,
sympy, torch and the toy world among it.
"""

import time
from collections.abc import Iterable
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
from proofs_check.verdict import Check, CheckResult, Effort, Kind
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


def run_check(check: Check, effort: Effort) -> CheckResult:
    """Run one check."""
    start = time.perf_counter()
    outcome = check.examine(effort)
    return CheckResult(check=check, outcome=outcome, seconds=time.perf_counter() - start)


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
    """The checks as Markdown, without what changes from run to run."""
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


def as_json(results: Iterable[CheckResult]) -> list[dict[str, Any]]:
    """Checks with what their runs found, as JSON-like values."""
    return [
        {
            "label": result.check.label,
            "words": result.check.words,
            "formula": result.check.formula,
            "kind": result.check.kind,
            "scope": result.check.scope,
            "statements": [str(statement) for statement in result.check.statements],
            "source": result.check.source,
            "expected": result.check.expected,
            "verdict": result.outcome.verdict,
            "passed": result.passed,
            "cases": result.outcome.cases,
            "counterexample": result.outcome.counterexample,
            "note": result.outcome.note,
            "seconds": result.seconds,
            "where": result.check.where,
        }
        for result in results
    ]


_KIND_IN_WORDS: Final = {
    Kind.SYMBOLIC: "computer algebra, for all values of the symbols",
    Kind.EXHAUSTIVE: "rational arithmetic over every member of the stated finite class",
    Kind.CERTIFIED: "ball arithmetic: an enclosure decides, or the verdict is UNDECIDED",
    Kind.LITERATURE: "assumed and cited; both sides evaluated on examples, which proves nothing",
}
