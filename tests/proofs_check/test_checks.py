"""Every check comes out as stated and can fail, and the list of them is complete."""

import inspect
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from proofs_check import checks
from proofs_check.checks import CHECKS, catches, markdown, run_check, select
from proofs_check.sabotage import Sabotage, returning, with_keyword
from proofs_check.verdict import Effort, Kind, Verdict
from tests.proofs_check import found_before
from tests.records import assert_as_recorded
from theory import bounds, budget, missing_mass, overspending, projections, vetoes
from theory.budget import BudgetLedger
from theory.errors import InvalidArgumentError
from theory.paper import Statement

REPOSITORY = Path(__file__).parents[2]
FOUND_BEFORE = json.loads(found_before.RECORDED.read_text(encoding="utf-8"))
MUTATIONS = [
    pytest.param(check, mutation, id=f"{check.label}: {mutation.name}")
    for check in CHECKS
    for mutation in check.mutations
]


SABOTAGES = [
    pytest.param(check, sabotage, id=f"{check.label}: {sabotage.covers}, {sabotage.name}")
    for check in CHECKS
    for sabotage in check.sabotages
]


LONG = {
    "hybrid-simulation",
    "mixture-autograd",
    "pessimism-guarantee",
    "readings-kl-order",
    "readings-tvd-order",
    "theorem1-kl",
    "theorem2-first-action",
    "theorem2-sequences",
}
"""Counting lines makes these two to three times slower; others run their code, with counting."""
each_check = pytest.mark.parametrize(
    "check",
    [
        pytest.param(
            check, id=check.label, marks=[pytest.mark.no_cover] if check.label in LONG else []
        )
        for check in CHECKS
    ],
)


@each_check
def test_every_statement_comes_out_as_stated_on_enough_cases_and_the_code_it_covers(check):
    result = run_check(check, Effort.SMALLEST)
    assert result.passed, (result.outcome, result.shortcomings)
    found = found_before.told(result.outcome)
    assert_as_recorded(found, FOUND_BEFORE[check.label]["as stated"])


@pytest.mark.parametrize(("check", "mutation"), MUTATIONS)
def test_every_mutation_is_caught(check, mutation):
    outcome = check.examine(Effort.SMALLEST, **mutation.constants)
    assert outcome.verdict is not check.expected
    assert outcome.verdict is not Verdict.UNDECIDED, "caught by luck"
    found = found_before.told_of_mutation(mutation, outcome)
    assert_as_recorded(found, FOUND_BEFORE[check.label]["mutations"][mutation.name])


@pytest.mark.parametrize(("check", "sabotage"), SABOTAGES)
def test_every_sabotage_of_covered_code_is_caught(check, sabotage):
    caught, found = found_before.with_sabotage(check, sabotage)
    assert caught
    before = FOUND_BEFORE[check.label]["sabotages"]
    assert_as_recorded(found, before[found_before.name_of(sabotage)])


@pytest.mark.parametrize(
    "check",
    [check for check in CHECKS if FOUND_BEFORE.get(check.label, {"classes": True})["classes"]],
    ids=lambda check: check.label,
)
def test_at_every_effort_a_check_examines_the_class_that_it_examined(check):
    assert found_before.classes(check) == FOUND_BEFORE[check.label]["classes"]


COVERING = {
    covers: [
        (check, sabotage)
        for check in CHECKS
        for sabotage in check.sabotages
        if sabotage.covers == covers
    ]
    for covers in dict.fromkeys(s.covers for check in CHECKS for s in check.sabotages)
}


def notices(check, sabotage):
    """Whether a fault is caught, or ends the check with an error: then nothing passes."""
    try:
        return catches(check, sabotage)
    except Exception:
        return True


@pytest.mark.slow
@pytest.mark.parametrize("value", [Fraction(-1), Fraction(0), Fraction(10**9)], ids=str)
@pytest.mark.parametrize("covers", COVERING)
def test_no_covered_bound_may_be_one_that_says_nothing(covers, value):
    """Below by -1 or 0, above by 10^9: an inequality alone holds of such a bound, too."""
    assert any(
        notices(check, replace(sabotage, name=str(value), fault=returning(value)))
        for check, sabotage in COVERING[covers]
    )


def test_charging_half_of_every_step_is_caught():
    half = Sabotage(
        name="half",
        owner=BudgetLedger,
        attribute="charge",
        fault=with_keyword("kl_nats", lambda kl: kl / 2),
    )
    ledgers = select(["accounting-exact", "accounting-floor"])
    assert all(catches(check, half) for check in ledgers)


def test_a_check_that_never_calls_what_it_covers_does_not_pass():
    covered = Sabotage(
        name="anything", owner=budget, attribute="open_ledger", fault=lambda original: original
    )
    (check,) = select(["pinsker"])
    result = run_check(replace(check, sabotages=(covered,)), Effort.SMALLEST)
    assert result.outcome.verdict is check.expected
    assert not result.passed
    assert result.shortcomings == ("covers open_ledger and never called it",)


def test_every_statement_of_the_paper_has_a_check():
    covered = {statement for check in CHECKS for statement in check.statements}
    assert covered == set(Statement)


def test_every_bound_has_a_check_that_covers_it():
    covered = {name.split(".")[0] for check in CHECKS for name in check.covers}
    public = {
        name
        for module in (bounds, overspending, budget, projections, missing_mass, vetoes)
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", "") == module.__name__
        and (inspect.isfunction(value) or (inspect.isclass(value) and _computes(value)))
    }
    # An expectation over the tree of its outcomes: test_overspending sums it by brute force.
    # A power of two, a division, and a record: what checks cover is made of them.
    definitions = {"event_prior", "renormalised", "EventEvidence"}
    # A quantile of a beta distribution, for comparison: test_vetoes has the binomial tail.
    quantiles = {"confidence_factors"}
    assert public - covered == {"all_in_spending_nats"} | definitions | quantiles


def _computes(cls):
    """Whether a class has methods or properties of its own: records without have no claim."""
    return any(
        isinstance(value, property) or (inspect.isfunction(value) and not name.startswith("_"))
        for name, value in vars(cls).items()
    )


def test_labels_are_unique():
    labels = [check.label for check in CHECKS]
    assert len(labels) == len(set(labels))


def test_literature_is_marked_as_proving_nothing():
    for check in CHECKS:
        if check.kind is Kind.LITERATURE:
            assert check.source
            assert check.expected is Verdict.HOLDS


def test_the_committed_markdown_is_fresh():
    committed = (REPOSITORY / "PROOFS.md").read_text(encoding="utf-8")
    assert committed == markdown(), "run `python -m proofs_check --list --markdown PROOFS.md`"


def test_an_unknown_label_is_refused_by_name():
    with pytest.raises(InvalidArgumentError, match="no check is called nonsense; --list shows"):
        select(["pinsker", "nonsense"])


def test_labels_select_checks_in_the_order_of_the_list():
    assert [check.label for check in select(["pinsker", "kl-chain-rule"])] == [
        "kl-chain-rule",
        "pinsker",
    ]
    assert select([]) == CHECKS


def test_running_a_check_times_it_and_json_holds_all_of_it():
    (check,) = select(["pinsker"])
    result = checks.run_check(check, Effort.SMALLEST)
    assert result.passed
    assert result.seconds > 0
    (document,) = checks.as_json([result])
    assert document["label"] == "pinsker"
    assert document["verdict"] is Verdict.HOLDS
    assert document["informative"] == document["cases"] == 2
    assert document["shortcomings"] == ()
    assert document["where"] == "proofs_check.divergence_lemmas.pinsker"
