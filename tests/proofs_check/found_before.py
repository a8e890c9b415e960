"""What every check finds, with every mutation and sabotage too, and what it would examine.

`python -m tests.proofs_check.found_before` records it again, after a change that is meant: the
difference that git shows is what is then checked otherwise. That a check comes out as stated, and
does not where its statement or the code is damaged, is tested without the record. The record says
that no case is left out and none decided otherwise by oversight: a class that shrinks still holds.
"""

import inspect
import json
import re
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from mightnt.progress import track
from proofs_check import checks
from proofs_check.checks import CHECKS, catches
from proofs_check.verdict import Effort, Outcome, Verdict
from theory.errors import MightntError

RECORDED = Path(__file__).with_name("found.json")
MOST_LISTED = 3000
"""Of larger classes the first so many cases are listed."""


def told(outcome):
    """An outcome in a line."""
    found = f"{outcome.verdict.value}, {outcome.informative} of {outcome.cases} cases informative"
    return "; ".join(filter(None, [found, outcome.note, outcome.counterexample]))


def told_of_mutation(mutation, outcome):
    """Which constants of the statement were changed, and what was found then."""
    return f"{dict(mutation.constants)}: {told(outcome)}"


def name_of(sabotage):
    """What is damaged, and how."""
    return f"{sabotage.covers}, {sabotage.name}"


def with_sabotage(check, sabotage):
    """Whether a fault is caught, and what the check finds, or complains of, with it in place."""
    heard = []

    def examine(effort):
        try:
            outcome = check.examine(effort)
        except MightntError as error:
            heard.append(f"{type(error).__name__}: {error}")
            raise
        heard.append(told(outcome))
        return outcome

    return catches(replace(check, examine=examine), sabotage), heard[0]


def classes(check):
    """Of the class at each effort: its size, its first and last member, sums of all numbers.

    Its members are cases, or expressions in symbols. Nothing is decided, so that large classes cost
    little. A check of another kind has no class.
    """
    efforts = Effort if _members(check, Effort.SMALLEST) else ()
    return [f"{effort.name}: {_summed(_members(check, effort))}" for effort in efforts]


def _members(check, effort):
    shown = []

    def list_only(cases, decide, *, show=str):
        del decide
        first = list(islice(cases, MOST_LISTED))
        shown.extend(map(show, first))
        return Outcome(verdict=Verdict.HOLDS, cases=max(1, len(first)))

    def write_only(expression, *, cases=1, note=""):
        shown.append(str(expression))
        return Outcome(verdict=Verdict.HOLDS, cases=cases, note=note)

    listing = {"examine_all": list_only, "symbolic": write_only, "nonnegative": write_only}
    with pytest.MonkeyPatch.context() as patch:
        for module in vars(checks).values():
            for name in listing.keys() & vars(module).keys() if inspect.ismodule(module) else ():
                patch.setattr(module, name, listing[name])
        check.examine(effort)
    return shown


def _summed(shown):
    numbers = [int(digits) for line in shown for digits in re.findall(r"\d{1,15}", line)]
    weighted = sum(place * number for place, number in enumerate(numbers, 1))
    return f"{len(shown)} cases from {shown[0]} to {shown[-1]}; {sum(numbers)} {weighted}"


def account_of(check):
    """All of it, by what was done."""
    return {
        "as stated": told(check.examine(Effort.SMALLEST)),
        "classes": classes(check),
        "mutations": {
            each.name: told_of_mutation(each, check.examine(Effort.SMALLEST, **each.constants))
            for each in check.mutations
        },
        "sabotages": {name_of(each): with_sabotage(check, each)[1] for each in check.sabotages},
    }


def record():
    """Write what every check finds now."""
    found = {check.label: account_of(check) for check in track(CHECKS, "checks")}
    RECORDED.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record()
