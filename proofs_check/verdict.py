"""What a check is, and what it may find.

There are five kinds of evidence (`Kind`). A `Check` is a statement in words and as a formula, its
scope, and the function that examines it. The function takes the `Effort` to spend and, by keyword,
the constants of the statement; its defaults are the statement as claimed.

A check proves as much as it can fail. So it says three things of itself, and each is tested:

- A `Mutation` is a set of other constants under which the statement is false: there the check must
  not come to the same verdict.
- A `Sabotage` is a fault in the code that the check *covers*: with it in place the check must not
  come to the same verdict either. Code that is covered has to run while the check does.
- A case of which the statement says nothing, such as a bound of 0 on a probability, is `VACUOUS`.
  It is counted apart, and a check with too few informative cases fails.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Any, Final, TypeAlias

from proofs_check.sabotage import Sabotage
from theory.errors import InvalidArgumentError
from theory.paper import Statement


class Kind(Enum):
    """The kind of evidence. Random sampling is none."""

    SYMBOLIC = "SYMBOLIC"
    """Computer algebra, for all values of the symbols."""
    EXHAUSTIVE = "EXHAUSTIVE"
    """Rational arithmetic and exact logarithms, over every member of a stated finite class."""
    NUMERIC = "NUMERIC"
    """Floats, over every member of a stated finite class, against a reference that is exact or of
    higher precision, within a stated tolerance."""
    CERTIFIED = "CERTIFIED"
    """Ball arithmetic: an enclosure decides, or nothing is decided."""
    LITERATURE = "LITERATURE"
    """Assumed from a cited source; both sides are evaluated on examples, which proves nothing."""


class Verdict(Enum):
    """What the evidence says of the statement within its scope, or in one case of it."""

    HOLDS = "HOLDS"
    FAILS = "FAILS"
    UNDECIDED = "UNDECIDED"
    VACUOUS = "VACUOUS"
    """The statement says nothing there."""


class Effort(Enum):
    """How large a scope to examine."""

    SMALLEST = 0
    """The smallest scope in which every mutation is caught; used by the tests."""
    DEFAULT = 1
    """All checks together in about a minute of processor time."""
    THOROUGH = 2
    """As large as patience allows."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run of a check found.

    Attributes:
        verdict: the verdict.
        cases: how many members of the class were examined (1 for a symbolic identity).
        vacuous: of how many of them the statement says nothing.
        counterexample: for FAILS, the first one met, readable; empty otherwise.
        note: anything worth printing, such as the tightest case or an enclosure.
    """

    verdict: Verdict
    cases: int
    vacuous: int = 0
    counterexample: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if (self.verdict is Verdict.FAILS) != bool(self.counterexample):
            raise InvalidArgumentError(
                f"FAILS needs a counterexample and nothing else has one, got {self.verdict.value} "
                f"with '{self.counterexample}'"
            )
        if self.cases < 1:
            raise InvalidArgumentError(
                f"an outcome must examine at least 1 case, got {self.cases}: vacuous truth is no "
                "evidence"
            )
        if not 0 <= self.vacuous <= self.cases:
            raise InvalidArgumentError(
                f"vacuous must lie between 0 and the {self.cases} cases, got {self.vacuous}"
            )

    @property
    def informative(self) -> int:
        """The cases of which the statement says something."""
        return self.cases - self.vacuous


Examination: TypeAlias = Callable[..., Outcome]
"""`examine(effort, **constants) -> Outcome`."""


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """Constants under which the statement should no longer get its verdict.

    Attributes:
        name: what was changed, in words.
        constants: the keyword arguments that replace the check's defaults.
    """

    name: str
    constants: Mapping[str, Any]


LEAST_INFORMATIVE_SHARE: Final = Fraction(1, 2)
"""Of the cases: fewer mean that the class was badly chosen."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """A statement and how it is checked.

    Attributes:
        label: short and unique, for `--only`.
        words: the statement in words.
        formula: the statement as a formula.
        kind: the kind of evidence.
        scope: for which values or finite class, at the default effort.
        examine: the function that examines it.
        least_informative: how many informative cases it needs, whatever the effort; at least
            `LEAST_INFORMATIVE_SHARE` of its cases have to be informative, too.
        mutations: perturbed statements that it must catch; at least one.
        sabotages: faults in the code that it covers, which it must catch.
        statements: the paper's statements that it bears on.
        expected: HOLDS, or FAILS for a statement that is false as printed.
        source: for LITERATURE, the citation.
    """

    label: str
    words: str
    formula: str
    kind: Kind
    scope: str
    examine: Examination
    mutations: tuple[Mutation, ...]
    least_informative: int = 1
    sabotages: tuple[Sabotage, ...] = ()
    statements: tuple[Statement, ...] = ()
    expected: Verdict = Verdict.HOLDS
    source: str = ""

    def __post_init__(self) -> None:
        if not self.mutations:
            raise InvalidArgumentError(
                f"check '{self.label}' must have a mutation: a check that cannot fail is none"
            )
        if (self.kind is Kind.LITERATURE) != bool(self.source):
            raise InvalidArgumentError(
                f"check '{self.label}' must cite a source if and only if it is LITERATURE, got "
                f"'{self.source}'"
            )

    @property
    def where(self) -> str:
        """The function that examines it, as `module.function`."""
        return f"{self.examine.__module__}.{self.examine.__qualname__}"

    @property
    def covers(self) -> tuple[str, ...]:
        """The code whose faults it catches, as `Class.method` or `function`, each once."""
        return tuple(dict.fromkeys(sabotage.covers for sabotage in self.sabotages))

    def passes(self, outcome: Outcome) -> bool:
        """Whether `outcome` is the expected one, and says something of enough cases."""
        return outcome.verdict is self.expected and not self.lacks(outcome)

    def lacks(self, outcome: Outcome) -> str:
        """What its informative cases fall short of, in words; empty if there are enough."""
        enough = outcome.informative >= self.least_informative
        if enough and outcome.informative >= LEAST_INFORMATIVE_SHARE * outcome.cases:
            return ""
        return (
            f"{outcome.informative} of {outcome.cases} cases are informative; "
            f"{self.least_informative} and {LEAST_INFORMATIVE_SHARE} of them are needed"
        )


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """A check with what its run found.

    Attributes:
        check: which.
        outcome: what was found.
        seconds: how long it took.
        never_ran: of the code that it covers, what did not run.
    """

    check: Check
    outcome: Outcome
    seconds: float
    never_ran: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the outcome is the expected one, and rests on cases and code."""
        return not self.shortcomings and self.outcome.verdict is self.check.expected

    @property
    def shortcomings(self) -> tuple[str, ...]:
        """Why an outcome that is the expected one is no evidence, in words."""
        lacks = self.check.lacks(self.outcome)
        unused = f"covers {', '.join(self.never_ran)} and never called it"
        return (*((lacks,) if lacks else ()), *((unused,) if self.never_ran else ()))


def examine_all(
    cases: Iterable[Any], decide: Callable[[Any], Verdict], *, show: Callable[[Any], str] = str
) -> Outcome:
    """HOLDS if `decide` says so of every case that it does not call VACUOUS.

    Stops at the first that FAILS.

    Args:
        cases: the members of the class, smallest first, so that a counterexample is small.
        decide: the verdict on one of them.
        show: how a counterexample is printed.
    """
    examined, undecided, vacuous = 0, 0, 0
    for case in cases:
        examined += 1
        verdict = decide(case)
        if verdict is Verdict.FAILS:
            return Outcome(
                verdict=verdict, cases=examined, vacuous=vacuous, counterexample=show(case)
            )
        undecided += verdict is Verdict.UNDECIDED
        vacuous += verdict is Verdict.VACUOUS
    if undecided:
        return Outcome(
            verdict=Verdict.UNDECIDED,
            cases=examined,
            vacuous=vacuous,
            note=f"{undecided} of {examined} cases undecided",
        )
    verdict = Verdict.VACUOUS if vacuous == examined > 0 else Verdict.HOLDS
    return Outcome(verdict=verdict, cases=examined, vacuous=vacuous)


def all_of(*outcomes: Outcome) -> Outcome:
    """All of them as one outcome: the first that does not hold, or HOLDS with all cases."""
    for outcome in outcomes:
        if outcome.verdict is not Verdict.HOLDS:
            return outcome
    return Outcome(
        verdict=Verdict.HOLDS,
        cases=sum(outcome.cases for outcome in outcomes),
        vacuous=sum(outcome.vacuous for outcome in outcomes),
        note="; ".join(outcome.note for outcome in outcomes if outcome.note),
    )


def all_verdicts(*verdicts: Verdict) -> Verdict:
    """FAILS if any does, else UNDECIDED if any is, else HOLDS if any does, else VACUOUS."""
    for verdict in (Verdict.FAILS, Verdict.UNDECIDED, Verdict.HOLDS):
        if verdict in verdicts:
            return verdict
    return Verdict.VACUOUS


def verdict_of(truth: bool, *, informative: bool = True) -> Verdict:
    """HOLDS or FAILS, for a question that exact arithmetic decides.

    Args:
        truth: the answer.
        informative: whether the statement says something there; if not, it holds as VACUOUS.
    """
    if not truth:
        return Verdict.FAILS
    return Verdict.HOLDS if informative else Verdict.VACUOUS
