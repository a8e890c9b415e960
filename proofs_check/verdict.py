"""What a check is, and what it may find.

There are four kinds of evidence (`Kind`) and three verdicts (`Verdict`). A `Check` is a statement
in words and as a formula, its scope, and the function that examines it. The function takes the
`Effort` to spend and, by keyword, the constants of the statement; its defaults are the statement as
claimed. A `Mutation` is a set of other constants under which the statement is false: there the
check must not come to the same verdict.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

from theory.errors import InvalidArgumentError
from theory.paper import Statement


class Kind(Enum):
    """The kind of evidence. Random sampling is none."""

    SYMBOLIC = "SYMBOLIC"
    """Computer algebra, for all values of the symbols."""
    EXHAUSTIVE = "EXHAUSTIVE"
    """Rational arithmetic, over every member of a stated finite class."""
    CERTIFIED = "CERTIFIED"
    """Ball arithmetic: an enclosure decides, or nothing is decided."""
    LITERATURE = "LITERATURE"
    """Assumed from a cited source; both sides are evaluated on examples, which proves nothing."""


class Verdict(Enum):
    """What the evidence says of the statement within its scope."""

    HOLDS = "HOLDS"
    FAILS = "FAILS"
    UNDECIDED = "UNDECIDED"


class Effort(Enum):
    """How large a scope to examine."""

    SMALLEST = 0
    """The smallest scope in which every mutation is caught; used by the tests."""
    DEFAULT = 1
    """All checks together in under two minutes."""
    THOROUGH = 2
    """As large as patience allows."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run of a check found.

    Attributes:
        verdict: the verdict.
        cases: how many members of the class were examined (1 for a symbolic identity).
        counterexample: for FAILS, the first one met, readable; empty otherwise.
        note: anything worth printing, such as the tightest case or an enclosure.
    """

    verdict: Verdict
    cases: int
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
        mutations: perturbed statements that it must catch; at least one.
        statements: the paper's statements that it bears on.
        covers: functions and classes of `theory` whose claim it checks.
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
    statements: tuple[Statement, ...] = ()
    covers: tuple[Callable[..., Any], ...] = field(default=())
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

    def passes(self, outcome: Outcome) -> bool:
        """Whether `outcome` is the expected one."""
        return outcome.verdict is self.expected


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """A check with what its run found and the seconds it took."""

    check: Check
    outcome: Outcome
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether the outcome is the expected one."""
        return self.check.passes(self.outcome)


def examine_all(
    cases: Iterable[Any], decide: Callable[[Any], Verdict], *, show: Callable[[Any], str] = str
) -> Outcome:
    """HOLDS if `decide` says so of every case; stops at the first that FAILS.

    Args:
        cases: the members of the class, smallest first, so that a counterexample is small.
        decide: the verdict on one of them.
        show: how a counterexample is printed.
    """
    examined, undecided = 0, 0
    for case in cases:
        examined += 1
        verdict = decide(case)
        if verdict is Verdict.FAILS:
            return Outcome(verdict=verdict, cases=examined, counterexample=show(case))
        undecided += verdict is Verdict.UNDECIDED
    if undecided:
        return Outcome(
            verdict=Verdict.UNDECIDED,
            cases=examined,
            note=f"{undecided} of {examined} cases undecided",
        )
    return Outcome(verdict=Verdict.HOLDS, cases=examined)


def all_of(*outcomes: Outcome) -> Outcome:
    """All of them as one outcome: the first that does not hold, or HOLDS with all cases."""
    for outcome in outcomes:
        if outcome.verdict is not Verdict.HOLDS:
            return outcome
    return Outcome(
        verdict=Verdict.HOLDS,
        cases=sum(outcome.cases for outcome in outcomes),
        note="; ".join(outcome.note for outcome in outcomes if outcome.note),
    )


def all_verdicts(*verdicts: Verdict) -> Verdict:
    """FAILS if any does, else UNDECIDED if any is, else HOLDS."""
    for verdict in (Verdict.FAILS, Verdict.UNDECIDED):
        if verdict in verdicts:
            return verdict
    return Verdict.HOLDS


def verdict_of(truth: bool) -> Verdict:
    """HOLDS or FAILS, for a question that exact arithmetic decides."""
    return Verdict.HOLDS if truth else Verdict.FAILS
