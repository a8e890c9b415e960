"""A small typed language of events, policies and utilities, with a prefix-free binary code.

Programs are immutable values. Every type has a complete prefix code (`toy_world.programs.codes`),
so that `2^-len(p)` over all programs p of a type sums to exactly 1; `toy_world.programs.semantics`
says what programs mean. Every program halts on every history: there are no loops.

- *Numbers* n >= 1 are written plainly (about `log2 n + 2 log2 log2 n` bits), as round numbers
  `m e b = m 10^b`, or with Knuth's arrows: `2^n`, `2^^n` (a tower of n twos), `2^^^n`, ...
  The arrows make some enormous numbers cheap, as on a universal machine; they are compared
  with times, never multiplied out.
- *Counters* count steps, or the occurrences of one symbol.
- *Predicates* hold or do not hold at a history that ends in an observation.
- *Events* are `latch(predicate)`: true from the first prefix on at which the predicate holds.
- *Policies* give dyadic probabilities to the next action. `switch(E, pi, p)` acts as p until
  the event E has happened and as pi from then on, with
  `len(switch(E, pi, p)) = c + len(E) + len(pi) + len(p)`, c = `Language.switch_bits`.
- *Utilities* give a number in [0, 1] to a complete history.

Actions are written a0, a1, ... and observations o0, o1, ...; a program is printed as its
constructors' names with arguments in brackets, and `Code.parse` reads that back.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, TypeAlias

from theory.errors import InvalidArgumentError
from toy_world.programs.codes import (
    Choice,
    Code,
    DeltaCode,
    DyadicCode,
    GammaCode,
    Production,
    SymbolCode,
    TokenReader,
    WordCode,
)


@dataclass(frozen=True, slots=True)
class Plain:
    """`n` itself."""

    n: int


@dataclass(frozen=True, slots=True)
class Round:
    """`digits * 10^zeros`."""

    digits: int
    zeros: int


@dataclass(frozen=True, slots=True)
class Arrow:
    """`2 ^..^ operand` with `arrows` arrows: a power, a tower, and so on."""

    arrows: int
    operand: "Number"


Number: TypeAlias = Plain | Round | Arrow


@dataclass(frozen=True, slots=True)
class Steps:
    """Counts steps: the time."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Counts the occurrences of an observation."""

    observation: int


@dataclass(frozen=True, slots=True)
class Done:
    """Counts the occurrences of an action."""

    action: int


Counter: TypeAlias = Steps | Seen | Done


@dataclass(frozen=True, slots=True)
class Ends:
    """The history ends in `suffix`, which itself ends in an observation."""

    suffix: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Did:
    """The last action was `action`."""

    action: int


@dataclass(frozen=True, slots=True)
class Reached:
    """The counter is at least `threshold`: "time n reached", "the n-th occurrence is past"."""

    counter: Counter
    threshold: Number


@dataclass(frozen=True, slots=True)
class Every:
    """The counter is a positive multiple of `period`."""

    counter: Counter
    period: Number


@dataclass(frozen=True, slots=True)
class Not:
    """`part` does not hold."""

    part: "Predicate"


@dataclass(frozen=True, slots=True)
class And:
    """Both parts hold."""

    left: "Predicate"
    right: "Predicate"


@dataclass(frozen=True, slots=True)
class Or:
    """At least one part holds."""

    left: "Predicate"
    right: "Predicate"


@dataclass(frozen=True, slots=True)
class Ever:
    """`part` holds now or held at some earlier prefix."""

    part: "Predicate"


Predicate: TypeAlias = Ends | Did | Reached | Every | Not | And | Or | Ever


@dataclass(frozen=True, slots=True)
class Latch:
    """The event that happens when `predicate` first holds."""

    predicate: Predicate


Event: TypeAlias = Latch


@dataclass(frozen=True, slots=True)
class Do:
    """Always `action`."""

    action: int


@dataclass(frozen=True, slots=True)
class CopyObservation:
    """The action numbered as the last observation, modulo |A|; action 0 at the start."""


@dataclass(frozen=True, slots=True)
class CopyAction:
    """The last action again; action 0 at the start."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """The actions of `word` in turn, by the time, over and over."""

    word: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Mix:
    """At each step anew: as `first` with probability `weight`, else as `second`."""

    weight: Fraction
    first: "Policy"
    second: "Policy"


@dataclass(frozen=True, slots=True)
class If:
    """As `then` where `condition` holds now, as `otherwise` elsewhere."""

    condition: Predicate
    then: "Policy"
    otherwise: "Policy"


@dataclass(frozen=True, slots=True)
class Switch:
    """As `until` before `event` has happened, as `then` from then on."""

    event: Event
    then: "Policy"
    until: "Policy"


Policy: TypeAlias = Do | CopyObservation | CopyAction | Cycle | Mix | If | Switch


@dataclass(frozen=True, slots=True)
class Share:
    """The share of the last `window` steps (of all, if fewer) that the counter counted."""

    counter: Counter
    window: Number


@dataclass(frozen=True, slots=True)
class Achieved:
    """1 if `event` has happened, else 0."""

    event: Event


@dataclass(frozen=True, slots=True)
class Opposite:
    """1 minus `utility`."""

    utility: "Utility"


@dataclass(frozen=True, slots=True)
class Blend:
    """`weight * first + (1 - weight) * second`."""

    weight: Fraction
    first: "Utility"
    second: "Utility"


Utility: TypeAlias = Share | Achieved | Opposite | Blend
Program: TypeAlias = Predicate | Event | Policy | Utility


class NumberCode(Choice):
    """Numbers, printed as `17`, `3e5`, `2^17`, `2^^4`."""

    def show(self, value: Number) -> str:
        """As a person reads it; arrows associate to the right."""
        match value:
            case Plain(n):
                return str(n)
            case Round(digits, zeros):
                return f"{digits}e{zeros}"
            case Arrow(arrows, operand):
                return f"2{'^' * arrows}{self.show(operand)}"

    def read(self, tokens: TokenReader) -> Number:
        """The inverse of `show`."""
        n = tokens.take_number()
        if (exponent := tokens.peek())[:1] == "e" and exponent[1:].isdigit():
            return Round(n, int(tokens.take()[1:]))
        if tokens.peek()[:1] == "^":
            if n != 2:
                raise InvalidArgumentError(f"arrows follow a 2, got {n}{tokens.peek()}")
            return Arrow(len(tokens.take()), self.read(tokens))
        return Plain(n)


@dataclass(frozen=True, kw_only=True)
class Language:
    """The language over given alphabets.

    The tags favour what a person would call simple: constant policies, suffixes, the clock.

    Attributes:
        n_actions: |A|, at least 1.
        n_observations: |O|, at least 1.
    """

    n_actions: int
    n_observations: int

    def __post_init__(self) -> None:
        for name in ("n_actions", "n_observations"):
            if getattr(self, name) < 1:
                raise InvalidArgumentError(f"{name} must be >= 1, got {getattr(self, name)}")

    @cached_property
    def actions(self) -> Code:
        """Single actions."""
        return SymbolCode("a", self.n_actions, "action")

    @cached_property
    def observations(self) -> Code:
        """Single observations."""
        return SymbolCode("o", self.n_observations, "observation")

    @cached_property
    def numbers(self) -> Choice:
        """Numbers n >= 1."""
        return NumberCode(
            "number",
            lambda number: (
                Production(tag="0", constructor=Plain, arguments=(DeltaCode(),)),
                Production(tag="10", constructor=Round, arguments=(GammaCode(), GammaCode())),
                Production(tag="11", constructor=Arrow, arguments=(GammaCode(), number)),
            ),
        )

    @cached_property
    def counters(self) -> Choice:
        """Counters."""
        return Choice(
            "counter",
            lambda _: (
                _keyword("0", "steps", Steps),
                _keyword("10", "seen", Seen, self.observations),
                _keyword("11", "done", Done, self.actions),
            ),
        )

    @cached_property
    def predicates(self) -> Choice:
        """Predicates."""
        suffixes = WordCode("suffix of a history", (self.observations, self.actions))
        counted = (self.counters, self.numbers)
        return Choice(
            "predicate",
            lambda predicate: (
                _keyword("00", "ends", Ends, suffixes),
                _keyword("01", "reached", Reached, *counted),
                _keyword("100", "did", Did, self.actions),
                _keyword("101", "not", Not, predicate),
                _keyword("1100", "every", Every, *counted),
                _keyword("1101", "and", And, predicate, predicate),
                _keyword("1110", "or", Or, predicate, predicate),
                _keyword("1111", "ever", Ever, predicate),
            ),
        )

    @cached_property
    def events(self) -> Choice:
        """Events: their one constructor costs no bits."""
        return Choice("event", lambda _: (_keyword("", "latch", Latch, self.predicates),))

    @cached_property
    def policies(self) -> Choice:
        """Policies."""
        return Choice(
            "policy",
            lambda policy: (
                _keyword("0", "do", Do, self.actions),
                _keyword("100", "switch", Switch, self.events, policy, policy),
                _keyword("101", "mix", Mix, DyadicCode(), policy, policy),
                _keyword("1100", "copy_observation", CopyObservation),
                _keyword("1101", "if", If, self.predicates, policy, policy),
                _keyword("1110", "cycle", Cycle, WordCode("word of actions", (self.actions,))),
                _keyword("1111", "copy_action", CopyAction),
            ),
        )

    @cached_property
    def utilities(self) -> Choice:
        """Utilities."""
        return Choice(
            "utility",
            lambda utility: (
                _keyword("0", "share", Share, self.counters, self.numbers),
                _keyword("10", "achieved", Achieved, self.events),
                _keyword("110", "opposite", Opposite, utility),
                _keyword("111", "blend", Blend, DyadicCode(), utility, utility),
            ),
        )

    @property
    def types(self) -> tuple[Choice, ...]:
        """Every type that is built from productions, each after those it needs."""
        return (
            self.numbers,
            self.counters,
            self.predicates,
            self.events,
            self.policies,
            self.utilities,
        )

    @property
    def switch_bits(self) -> int:
        """c: what `switch` itself costs."""
        return len(self.policies.production(Switch).tag)

    def code_of(self, program: Program) -> Choice:
        """The code of the type that `program` belongs to.

        Raises:
            InvalidArgumentError: it is no program of this language.
        """
        for code in self.types:
            if any(isinstance(program, p.constructor) for p in code.productions):
                return code
        raise InvalidArgumentError(f"{program!r} is no program")

    def length(self, program: Program) -> int:
        """`len(program)` in bits."""
        return self.code_of(program).length(program)

    def show(self, program: Program) -> str:
        """`program` as printed."""
        return self.code_of(program).show(program)


def _keyword(tag: str, keyword: str, constructor: type[Any], *arguments: Code) -> Production:
    return Production(tag=tag, constructor=constructor, arguments=arguments, keyword=keyword)
