"""The list of all checks; running one, whole or sabotaged; writing list and results to files.

`CHECKS` is in the order of the theory. Importing this module imports what the checks work with,
sympy and the toy world among it.
"""

import time
from collections.abc import Iterable
from typing import Any, Final

from proofs_check import (
    accounting,
    asking,
    divergence_lemmas,
    hybrid,
    little_constraint,
    no_triangle,
    pessimism,
    prefix_code,
    projection,
    readings,
    simple_events,
    tvd_constraint,
    vetoes,
)
from proofs_check.sabotage import Sabotage, sabotaged, watch_calls
from proofs_check.verdict import Check, CheckResult, Effort, Kind
from theory.errors import InvalidArgumentError, MightntError

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
    *asking.CHECKS,
    *vetoes.CHECKS,
    *hybrid.CHECKS,
)


def run_check(check: Check, effort: Effort) -> CheckResult:
    """Run one check, and see whether the code that it covers ran."""
    start = time.perf_counter()
    code = {sabotage.covers: sabotage.code for sabotage in check.sabotages}
    with watch_calls(code.values()) as missing:
        outcome = check.examine(effort)
    return CheckResult(
        check=check,
        outcome=outcome,
        seconds=time.perf_counter() - start,
        never_ran=tuple(name for name in code if code[name] in missing),
    )


def catches(check: Check, sabotage: Sabotage) -> bool:
    """Whether the check, in its smallest scope, fails or raises with the fault in place."""
    with sabotaged(sabotage):
        try:
            return not check.passes(check.examine(Effort.SMALLEST))
        except MightntError:
            return True


def uncaught_sabotages(chosen: Iterable[Check]) -> tuple[str, ...]:
    """The sabotages that a check of `chosen` does not catch, as "label: name"."""
    return tuple(
        f"{check.label}: {sabotage.name}"
        for check in chosen
        for sabotage in check.sabotages
        if not catches(check, sabotage)
    )


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
        "*Covers* names the code that has to run while the check does and whose faults, put there "
        "on purpose, make the check fail (`python -m proofs_check --sabotage`). *Needs* is the "
        "least number of informative cases, those of which the statement says something; half "
        "of all cases have to be.",
        "",
        *(f"- **{kind.value}**: {_KIND_IN_WORDS[kind]}" for kind in Kind),
        "",
        "| Label | Statement | Formula | Kind | Scope | Needs | Verdict | Code | Covers |",
        "|---|---|---|---|---|---|---|---|---|",
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
            str(check.least_informative),
            check.expected.value,
            f"`{check.where}`",
            ", ".join(f"`{name}`" for name in check.covers),
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
            "informative": result.outcome.informative,
            "least_informative": result.check.least_informative,
            "covers": result.check.covers,
            "shortcomings": result.shortcomings,
            "counterexample": result.outcome.counterexample,
            "note": result.outcome.note,
            "seconds": result.seconds,
            "where": result.check.where,
        }
        for result in results
    ]


_KIND_IN_WORDS: Final = {
    Kind.SYMBOLIC: "computer algebra, for all values of the symbols",
    Kind.EXHAUSTIVE: "rational arithmetic and exact logarithms over every member of the stated "
    "finite class",
    Kind.NUMERIC: "floats over every member of the stated finite class, within the stated "
    "tolerance of a reference that is exact or of higher precision",
    Kind.CERTIFIED: "ball arithmetic: an enclosure decides, or the verdict is UNDECIDED",
    Kind.LITERATURE: "assumed and cited; both sides evaluated on examples, which proves nothing",
}
