"""What programs mean: the definition that every faster evaluation is tested against.

A program is evaluated at a history that ends in an observation, or at the empty one. The only
thing of the past that it cannot read off the history's last symbols and counts is whether a
latched predicate has held before, so `Trace` carries exactly these through a growing history:
the meaning of a program along a history of T steps takes T times its size.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import is_dataclass
from fractions import Fraction
from typing import Any

from theory.errors import InvalidArgumentError, InvalidHistoryError
from theory.process import (
    History,
    HistoryTree,
    PolicyTable,
    UtilityTable,
    check_history,
    policy_table,
    utility_table,
)
from theory.process import Policy as PolicyFunction
from theory.process import Utility as UtilityFunction
from toy_world.programs.codes import Code, arguments
from toy_world.programs.language import (
    Achieved,
    And,
    Arrow,
    Blend,
    CopyAction,
    CopyObservation,
    Counter,
    Cycle,
    Did,
    Do,
    Done,
    Ends,
    Event,
    Ever,
    Every,
    If,
    Latch,
    Mix,
    Not,
    Number,
    Opposite,
    Or,
    Plain,
    Policy,
    Predicate,
    Program,
    Reached,
    Round,
    Seen,
    Share,
    Steps,
    Switch,
    Utility,
)


class Trace:
    """A growing history, and which of the predicates that a program latches have held.

    Args:
        n_actions: |A|.
        n_observations: |O|.
        latched: the predicates to remember, those inside others first (`latched_in`).
    """

    def __init__(
        self, *, n_actions: int, n_observations: int, latched: Sequence[Predicate] = ()
    ) -> None:
        self.actions: list[int] = []
        self.observations: list[int] = []
        self.done = [0] * n_actions
        self.seen = [0] * n_observations
        self._held = dict.fromkeys(latched, False)
        self._remember()

    @property
    def n_steps(self) -> int:
        """The number of action-observation pairs so far."""
        return len(self.actions)

    def advance(self, action: int, observation: int) -> None:
        """Append one step."""
        self.actions.append(action)
        self.observations.append(observation)
        self.done[action] += 1
        self.seen[observation] += 1
        self._remember()

    def extend(self, history: History) -> "Trace":
        """Append the steps of `history`; returns the trace itself.

        Raises:
            InvalidHistoryError: it ends in an action, or has symbols outside the alphabets.
        """
        if len(history) % 2:
            raise InvalidHistoryError(
                f"a program is evaluated after an observation (even length), got {len(history)}"
            )
        check_history(history, n_actions=len(self.done), n_observations=len(self.seen))
        for action, observation in zip(history[::2], history[1::2], strict=True):
            self.advance(action, observation)
        return self

    def copy(self) -> "Trace":
        """A trace that grows on its own."""
        twin = object.__new__(Trace)
        twin.actions = self.actions.copy()
        twin.observations = self.observations.copy()
        twin.done = self.done.copy()
        twin.seen = self.seen.copy()
        twin._held = self._held.copy()
        return twin

    def count(self, counter: Counter, *, since: int = 0) -> int:
        """The counter's value, counting from step `since` on."""
        match counter:
            case Steps():
                return self.n_steps - since
            case Seen(observation):
                if since:
                    return self.observations[since:].count(observation)
                return self.seen[observation]
            case Done(action):
                if since:
                    return self.actions[since:].count(action)
                return self.done[action]

    def ends_in(self, suffix: tuple[int, ...]) -> bool:
        """Whether the history, as one sequence of symbols, ends in `suffix`."""
        if len(suffix) > 2 * self.n_steps:
            return False
        return all(
            (self.actions if place % 2 else self.observations)[-1 - place // 2] == symbol
            for place, symbol in enumerate(reversed(suffix))
        )

    def has_held(self, predicate: Predicate) -> bool:
        """Whether `predicate`, one of those remembered, holds or held at an earlier prefix.

        Raises:
            InvalidArgumentError: this trace was not made to remember it.
        """
        if predicate not in self._held:
            raise InvalidArgumentError(
                f"the trace does not remember {predicate}; make it with `latched_in(program)`"
            )
        return self._held[predicate]

    def _remember(self) -> None:
        for predicate, held in self._held.items():
            if not held and holds(predicate, self):
                self._held[predicate] = True


def number_up_to(number: Number, limit: int) -> int | None:
    """The number's value if that is at most `limit`, else None; large ones are not built."""
    match number:
        case Plain(n):
            value: int | None = n
        case Round(digits, zeros):
            # 10^zeros > 8^zeros alone is above a limit of at most 3 zeros bits.
            value = digits * 10**zeros if 3 * zeros < max(limit, 1).bit_length() else None
        case Arrow(arrows, operand):
            n_up_to = number_up_to(operand, limit)
            value = None if n_up_to is None else _arrow_up_to(arrows, n_up_to, limit)
    return value if value is not None and value <= limit else None


def _arrow_up_to(arrows: int, n: int, limit: int) -> int | None:
    """2 ^..^ n (n >= 1) if at most `limit`."""
    if n <= 2:
        value = 2 * n  # 2 ^..^ 1 = 2 and 2 ^..^ 2 = 4 for any number of arrows
        return value if value <= limit else None
    # More arrows never make it smaller, so few enough of them decide that it is too large.
    power: int | None = None
    for few in range(1, arrows + 1):
        power = _arrow_exactly(few, n, limit)
        if power is None:
            return None
    return power


def _arrow_exactly(arrows: int, n: int, limit: int) -> int | None:
    if arrows == 1:
        return 2**n if n < limit.bit_length() else None
    value = 2
    for _ in range(n - 1):
        higher = _arrow_up_to(arrows - 1, value, limit)
        if higher is None:
            return None
        value = higher
    return value


def shortest_number(numbers: Code, value: int) -> Number:
    """The shortest way to write `value`, which is at least 1.

    Args:
        numbers: the code of numbers.
        value: what it must be equal to.
    """
    ways: list[Number] = [Plain(value)]
    zeros = 1
    while value % 10**zeros == 0:
        ways.append(Round(value // 10**zeros, zeros))
        zeros += 1
    if value > 1 and value.bit_count() == 1:
        ways.append(Arrow(1, shortest_number(numbers, value.bit_length() - 1)))
        # 2 ^..^ n for n <= 2 is 2 or 4 with any number of arrows, and soon enormous for others.
        towers = (Arrow(arrows, Plain(n)) for arrows in (2, 3) for n in (3, 4))
        ways += [tower for tower in towers if number_up_to(tower, value) == value]
    return min(ways, key=numbers.length)


def latched_in(program: Program) -> tuple[Predicate, ...]:
    """The predicates that `program` remembers, those inside others first."""
    return tuple(dict.fromkeys(_latched_in(program)))


def _latched_in(node: Any) -> Iterator[Predicate]:
    for part in arguments(node):
        if is_dataclass(part):
            yield from _latched_in(part)
    if isinstance(node, (Ever, Latch)):
        yield node.part if isinstance(node, Ever) else node.predicate


def holds(predicate: Predicate, trace: Trace) -> bool:  # noqa: PLR0911 - one case a constructor
    """Whether `predicate` holds at the trace's history."""
    match predicate:
        case Ends(suffix):
            return trace.ends_in(suffix)
        case Did(action):
            return trace.n_steps > 0 and trace.actions[-1] == action
        case Reached(counter, threshold):
            return number_up_to(threshold, trace.count(counter)) is not None
        case Every(counter, period):
            count = trace.count(counter)
            value = number_up_to(period, count)
            return value is not None and count % value == 0
        case Not(part):
            return not holds(part, trace)
        case And(left, right):
            return holds(left, trace) and holds(right, trace)
        case Or(left, right):
            return holds(left, trace) or holds(right, trace)
        case Ever(part):
            return trace.has_held(part)


def has_happened(event: Event, trace: Trace) -> bool:
    """Whether `event` has happened on the trace's history."""
    return trace.has_held(event.predicate)


def action_probabilities(  # noqa: PLR0911 - one case a constructor
    policy: Policy, trace: Trace
) -> tuple[Fraction, ...]:
    """The probabilities of the next action, exact."""
    n_actions = len(trace.done)
    match policy:
        case Do(action):
            return _certain(action, n_actions)
        case CopyObservation():
            return _certain(trace.observations[-1] if trace.n_steps else 0, n_actions)
        case CopyAction():
            return _certain(trace.actions[-1] if trace.n_steps else 0, n_actions)
        case Cycle(word):
            return _certain(word[trace.n_steps % len(word)], n_actions)
        case Mix(weight, first, second):
            return tuple(
                weight * p + (1 - weight) * q
                for p, q in zip(
                    action_probabilities(first, trace),
                    action_probabilities(second, trace),
                    strict=True,
                )
            )
        case If(condition, then, otherwise):
            return action_probabilities(then if holds(condition, trace) else otherwise, trace)
        case Switch(event, then, until):
            return action_probabilities(then if has_happened(event, trace) else until, trace)


def payoff(utility: Utility, trace: Trace) -> Fraction:
    """The utility, in [0, 1], of the trace's history."""
    match utility:
        case Share(counter, window):
            width = number_up_to(window, trace.n_steps)
            since = 0 if width is None else trace.n_steps - width
            n_steps = trace.n_steps - since
            return Fraction(trace.count(counter, since=since), n_steps) if n_steps else Fraction(0)
        case Achieved(event):
            return Fraction(has_happened(event, trace))
        case Opposite(inner):
            return 1 - payoff(inner, trace)
        case Blend(weight, first, second):
            return weight * payoff(first, trace) + (1 - weight) * payoff(second, trace)


def trace_of(program: Program, history: History, *, n_actions: int, n_observations: int) -> Trace:
    """The trace of `history` on which `program` can be evaluated."""
    trace = Trace(n_actions=n_actions, n_observations=n_observations, latched=latched_in(program))
    return trace.extend(history)


def policy_function(policy: Policy, *, n_actions: int, n_observations: int) -> PolicyFunction:
    """`policy` as a function of histories."""

    def function(history: History) -> Sequence[Fraction]:
        trace = trace_of(policy, history, n_actions=n_actions, n_observations=n_observations)
        return action_probabilities(policy, trace)

    return function


def policy_on_tree(policy: Policy, tree: HistoryTree) -> PolicyTable:
    """`policy` on every history of `tree`, as a table of `Fraction`s; the root is read once."""
    rooted = _rooted(policy, tree)
    return policy_table(
        _without_root(tree),
        lambda history: action_probabilities(policy, rooted.copy().extend(history)),
    )


def utility_on_tree(utility: Utility, tree: HistoryTree) -> UtilityTable:
    """`utility` of every complete continuation, `Fraction`s; the root is read once."""
    rooted = _rooted(utility, tree)
    return utility_table(
        _without_root(tree), lambda history: payoff(utility, rooted.copy().extend(history))
    )


def utility_function(utility: Utility, *, n_actions: int, n_observations: int) -> UtilityFunction:
    """`utility` as a function of complete histories."""

    def function(history: History) -> Fraction:
        trace = trace_of(utility, history, n_actions=n_actions, n_observations=n_observations)
        return payoff(utility, trace)

    return function


def first_time(event: Event, steps: Iterable[tuple[int, int]], *, trace: Trace) -> int | None:
    """The number of steps after which `event` first has happened, or None.

    Args:
        event: the event.
        steps: action-observation pairs, read one by one and only as far as needed.
        trace: the trace of the history before them, made for `event`.
    """
    if has_happened(event, trace):
        return trace.n_steps
    for action, observation in steps:
        trace.advance(action, observation)
        if has_happened(event, trace):
            return trace.n_steps
    return None


def _certain(symbol: int, n_actions: int) -> tuple[Fraction, ...]:
    return tuple(Fraction(action == symbol % n_actions) for action in range(n_actions))


def _rooted(program: Program, tree: HistoryTree) -> Trace:
    return trace_of(
        program, tree.root, n_actions=tree.n_actions, n_observations=tree.n_observations
    )


def _without_root(tree: HistoryTree) -> HistoryTree:
    return HistoryTree(
        n_actions=tree.n_actions, n_observations=tree.n_observations, horizon=tree.horizon
    )
