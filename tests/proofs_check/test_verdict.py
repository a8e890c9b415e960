"""A check must be able to fail, and an outcome must show what it found."""

from fractions import Fraction

import pytest
import sympy as sp
from flint import arb

from proofs_check.ball import at_most, ball, precision, within
from proofs_check.symbolic import kl_of, nonnegative, positive, refute, symbolic
from proofs_check.verdict import (
    Check,
    CheckResult,
    Kind,
    Mutation,
    Outcome,
    Verdict,
    all_of,
    all_verdicts,
    examine_all,
    verdict_of,
)
from theory.errors import InvalidArgumentError

HOLDS = Outcome(verdict=Verdict.HOLDS, cases=2, note="fine")


def make_check(**changes):
    settings = {
        "label": "two",
        "words": "Two is two.",
        "formula": "2 = 2",
        "kind": Kind.SYMBOLIC,
        "scope": "two",
        "examine": lambda effort: HOLDS,
        "mutations": (Mutation(name="three", constants={}),),
    }
    return Check(**(settings | changes))


def test_a_check_without_a_mutation_is_refused():
    with pytest.raises(InvalidArgumentError, match="'two' must have a mutation"):
        make_check(mutations=())


@pytest.mark.parametrize(
    "changes", [{"kind": Kind.LITERATURE}, {"source": "a book"}], ids=["no source", "a source"]
)
def test_a_source_is_cited_if_and_only_if_the_statement_is_assumed(changes):
    with pytest.raises(InvalidArgumentError, match="must cite a source if and only if"):
        make_check(**changes)


def test_a_vacuous_outcome_is_refused():
    with pytest.raises(InvalidArgumentError, match="at least 1 case, got 0"):
        examine_all([], lambda _: Verdict.HOLDS)


@pytest.mark.parametrize(
    ("verdict", "counterexample"), [(Verdict.FAILS, ""), (Verdict.HOLDS, "x = 1")]
)
def test_a_counterexample_belongs_to_failure_alone(verdict, counterexample):
    with pytest.raises(InvalidArgumentError, match="FAILS needs a counterexample"):
        Outcome(verdict=verdict, cases=1, counterexample=counterexample)


def test_examination_stops_at_the_first_counterexample():
    outcome = examine_all(iter(range(1, 9)), lambda n: verdict_of(n < 4), show=lambda n: f"n = {n}")
    assert outcome == Outcome(verdict=Verdict.FAILS, cases=4, counterexample="n = 4")


def test_one_undecided_case_leaves_the_whole_undecided():
    outcome = examine_all([1, 2, 3], lambda n: Verdict.UNDECIDED if n == 2 else Verdict.HOLDS)
    assert outcome.verdict is Verdict.UNDECIDED
    assert outcome.note == "1 of 3 cases undecided"


def test_cases_that_say_nothing_are_counted_apart():
    def decide(n):
        return verdict_of(True, informative=n > 2)

    outcome = examine_all([1, 2, 3], decide)
    assert outcome == Outcome(verdict=Verdict.HOLDS, cases=3, vacuous=2)
    assert outcome.informative == 1
    assert examine_all([1, 2], decide).verdict is Verdict.VACUOUS
    assert verdict_of(False, informative=False) is Verdict.FAILS


@pytest.mark.parametrize("vacuous", [-1, 3])
def test_more_vacuous_cases_than_cases_are_refused(vacuous):
    with pytest.raises(InvalidArgumentError, match=f"between 0 and the 2 cases, got {vacuous}"):
        Outcome(verdict=Verdict.HOLDS, cases=2, vacuous=vacuous)


@pytest.mark.parametrize(
    ("cases", "vacuous", "enough"), [(10, 5, True), (10, 6, False), (3, 0, False), (4, 0, True)]
)
def test_a_check_needs_its_number_of_informative_cases_and_half_of_them(cases, vacuous, enough):
    check = make_check(least_informative=4)
    outcome = Outcome(verdict=Verdict.HOLDS, cases=cases, vacuous=vacuous)
    result = CheckResult(check=check, outcome=outcome, seconds=0.0)
    assert check.passes(outcome) is result.passed is enough
    assert bool(result.shortcomings) is not enough


def test_covered_code_that_never_ran_is_a_shortcoming():
    result = CheckResult(check=make_check(), outcome=HOLDS, seconds=0.0, never_ran=("f", "C.g"))
    assert not result.passed
    assert result.shortcomings == ("covers f, C.g and never called it",)


@pytest.mark.parametrize(
    ("verdicts", "together"),
    [
        ((Verdict.HOLDS, Verdict.FAILS, Verdict.UNDECIDED), Verdict.FAILS),
        ((Verdict.HOLDS, Verdict.UNDECIDED, Verdict.VACUOUS), Verdict.UNDECIDED),
        ((Verdict.HOLDS, Verdict.VACUOUS), Verdict.HOLDS),
        ((Verdict.VACUOUS,), Verdict.VACUOUS),
    ],
)
def test_verdicts_together_are_the_worst_of_them(verdicts, together):
    assert all_verdicts(*verdicts) is together


def test_all_of_holds_with_all_cases_or_is_the_first_that_does_not():
    failed = Outcome(verdict=Verdict.FAILS, cases=1, counterexample="here")
    assert all_of(HOLDS, HOLDS) == Outcome(verdict=Verdict.HOLDS, cases=4, note="fine; fine")
    assert all_of(HOLDS, failed, HOLDS) is failed


@pytest.mark.parametrize(
    ("left", "right", "verdict"),
    [
        (Fraction(1, 3), Fraction(1, 2), Verdict.HOLDS),
        (Fraction(1, 2), Fraction(1, 3), Verdict.FAILS),
        (Fraction(1, 3), Fraction(1, 3), Verdict.UNDECIDED),
    ],
)
def test_balls_compare_in_three_values(left, right, verdict):
    assert at_most(lambda: ball(left), lambda: ball(right)) is verdict


def test_precision_is_raised_until_a_close_comparison_is_decided():
    tiny = Fraction(1, 2**150)
    third = Fraction(1, 3)
    assert at_most(lambda: ball(third), lambda: ball(third + tiny)) is Verdict.HOLDS
    with precision(64):
        assert not ball(third) < ball(third + tiny)


def test_within_asks_for_a_distance():
    logarithm = lambda: ball(2).log()  # noqa: E731 - a ball anew at each precision
    assert within(logarithm, Fraction(693147, 10**6), Fraction(1, 10**6)) is Verdict.HOLDS
    assert within(logarithm, Fraction(693, 1000), Fraction(1, 10**6)) is Verdict.FAILS


def test_an_identity_of_logarithms_is_seen_and_a_false_one_refuted_at_a_point():
    x, y = positive("x y")
    assert symbolic(sp.log(x * y) - sp.log(x) - sp.log(y)).verdict is Verdict.HOLDS
    refuted = symbolic(sp.log(x) - x)
    assert refuted.verdict is Verdict.FAILS
    assert refuted.counterexample.startswith("not identically 0")


def test_a_sign_that_sympy_does_not_see_and_no_point_refutes_stays_undecided():
    x = sp.Symbol("x", positive=True)
    outcome = nonnegative(x - sp.log(1 + x))
    assert outcome.verdict is Verdict.UNDECIDED
    assert nonnegative(x**2).verdict is Verdict.HOLDS
    assert nonnegative(x - 1).verdict is Verdict.FAILS


def test_values_that_are_not_real_refute_nothing():
    (x,) = positive("x")
    outcome = refute(sp.sqrt(-1 - x), lambda value: value != 0, "not 0", 1)
    assert outcome.verdict is Verdict.UNDECIDED
    outcome = refute(sp.sqrt(x - 1), lambda value: value != 0, "not 0", 1)
    assert outcome.counterexample.endswith("at x = 2"), "where it is real"


def test_symbolic_kl_is_the_sum_over_outcomes():
    a, b = positive("a b")
    assert symbolic(kl_of((a, b), (b, a)) - (a - b) * sp.log(a / b)).verdict is Verdict.HOLDS


def test_equal_exact_balls_are_at_most_each_other():
    one = Fraction(1)
    assert at_most(lambda: ball(one), lambda: ball(one)) is Verdict.HOLDS
    assert at_most(lambda: ball(2), lambda: ball(one)) is Verdict.FAILS


def test_balls_that_touch_are_not_told_apart():
    """An unknown number may be the lower end of its ball: at least that, not more for sure."""
    unknown = arb(1, 0.5)
    least = unknown.lower()
    assert at_most(lambda: least, lambda: unknown) is Verdict.HOLDS
    assert at_most(lambda: unknown, lambda: least) is Verdict.UNDECIDED
