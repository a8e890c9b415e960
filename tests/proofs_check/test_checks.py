"""Every check comes out as stated and can fail, and the list of them is complete."""

import inspect
from pathlib import Path

import pytest

from proofs_check import checks
from proofs_check.checks import CHECKS, markdown, select
from proofs_check.verdict import Effort, Kind, Verdict
from theory import bounds, overspending
from theory.errors import InvalidArgumentError
from theory.paper import Statement

REPOSITORY = Path(__file__).parents[2]
MUTATIONS = [
    pytest.param(check, mutation, id=f"{check.label}: {mutation.name}")
    for check in CHECKS
    for mutation in check.mutations
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.label)
def test_every_statement_comes_out_as_stated(check):
    outcome = check.examine(Effort.SMALLEST)
    assert check.passes(outcome), outcome


@pytest.mark.parametrize(("check", "mutation"), MUTATIONS)
def test_every_mutation_is_caught(check, mutation):
    outcome = check.examine(Effort.SMALLEST, **mutation.constants)
    assert outcome.verdict is not check.expected
    assert outcome.verdict is not Verdict.UNDECIDED, "caught by luck"


def test_every_statement_of_the_paper_has_a_check():
    covered = {statement for check in CHECKS for statement in check.statements}
    assert covered == set(Statement)


def test_every_bound_has_a_check_that_covers_it():
    covered = {getattr(c, "__qualname__", c).split(".")[0] for k in CHECKS for c in k.covers}
    public = {
        name
        for module in (bounds, overspending)
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", "") == module.__name__
        and (inspect.isfunction(value) or inspect.isclass(value))
    }
    # An expectation over the tree of its outcomes: test_overspending sums it by brute force.
    assert public - covered == {"all_in_spending_nats"}


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
    assert document["where"] == "proofs_check.divergence_lemmas.pinsker"
