"""Programs mean what their definitions say, against recursions written from those definitions."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.toy_world.program_examples import histories, programs
from theory.errors import InvalidArgumentError, InvalidHistoryError
from theory.process import HistoryTree, policy_table, utility_table
from toy_world.programs.language import (
    Achieved,
    And,
    Arrow,
    Blend,
    CopyAction,
    CopyObservation,
    Cycle,
    Did,
    Do,
    Done,
    Ends,
    Ever,
    Every,
    If,
    Language,
    Latch,
    Mix,
    Not,
    Opposite,
    Or,
    Plain,
    Reached,
    Round,
    Seen,
    Share,
    Steps,
    Switch,
)
from toy_world.programs.semantics import (
    Trace,
    action_probabilities,
    first_time,
    has_happened,
    holds,
    latched_in,
    number_up_to,
    payoff,
    policy_function,
    policy_on_tree,
    shortest_number,
    trace_of,
    utility_function,
    utility_on_tree,
)

SIZES = {"n_actions": 3, "n_observations": 2}
LANGUAGE = Language(**SIZES)


def value(number):
    """The number multiplied out: an oracle for small ones only."""
    match number:
        case Plain(n):
            return n
        case Round(digits, zeros):
            return digits * 10**zeros
        case Arrow(arrows, operand):
            return knuth(arrows, value(operand))


def knuth(arrows, n):
    """Knuth's definition: 2 ^(1) n = 2^n, 2 ^(a) 1 = 2, 2 ^(a) n = 2 ^(a-1) (2 ^(a) (n-1))."""
    if arrows == 1:
        return 2**n
    return 2 if n == 1 else knuth(arrows - 1, knuth(arrows, n - 1))


def count(counter, history):
    match counter:
        case Steps():
            return len(history) // 2
        case Seen(o):
            return history[1::2].count(o)
        case Done(a):
            return history[::2].count(a)


def means(predicate, history):  # noqa: PLR0911 - one case a constructor
    """Predicates, by recursion over programs and over prefixes."""
    match predicate:
        case Ends(suffix):
            return len(history) >= len(suffix) and history[-len(suffix) :] == suffix
        case Did(a):
            return len(history) > 0 and history[-2] == a
        case Reached(counter, threshold):
            return count(counter, history) >= value(threshold)
        case Every(counter, period):
            counted = count(counter, history)
            return counted > 0 and counted % value(period) == 0
        case Not(part):
            return not means(part, history)
        case And(left, right):
            return means(left, history) and means(right, history)
        case Or(left, right):
            return means(left, history) or means(right, history)
        case Ever(part) | Latch(part):
            return any(means(part, history[:end]) for end in range(0, len(history) + 1, 2))


def acts(policy, history):
    """Policies, likewise; the probability of each action."""
    n_actions = SIZES["n_actions"]

    def certain(action):
        return [Fraction(a == action % n_actions) for a in range(n_actions)]

    match policy:
        case Do(a):
            return certain(a)
        case CopyObservation():
            return certain(history[-1] if history else 0)
        case CopyAction():
            return certain(history[-2] if history else 0)
        case Cycle(word):
            return certain(word[len(history) // 2 % len(word)])
        case Mix(weight, first, second):
            p, q = acts(first, history), acts(second, history)
            return [weight * p[a] + (1 - weight) * q[a] for a in range(n_actions)]
        case If(condition, then, otherwise) | Switch(condition, then, otherwise):
            return acts(then if means(condition, history) else otherwise, history)


def pays(utility, history):
    """Utilities, likewise."""
    match utility:
        case Share(counter, window):
            recent = history[-2 * value(window) :]
            return Fraction(count(counter, recent), len(recent) // 2) if recent else 0
        case Achieved(event):
            return Fraction(means(event, history))
        case Opposite(inner):
            return 1 - pays(inner, history)
        case Blend(weight, first, second):
            return weight * pays(first, history) + (1 - weight) * pays(second, history)


def has_small_numbers(node):
    """Whether every number in a program can be multiplied out by the oracle."""
    if isinstance(node, (Plain, Round, Arrow)):
        return number_up_to(node, 10**6) is not None
    parts = [getattr(node, name) for name in getattr(node, "__dataclass_fields__", ())]
    return all(map(has_small_numbers, parts))


@given(programs(LANGUAGE.predicates).filter(has_small_numbers), histories(**SIZES))
def test_predicates_and_events_mean_what_their_definitions_say(predicate, history):
    event = Latch(predicate)
    trace = trace_of(event, history, **SIZES)
    assert holds(predicate, trace) == means(predicate, history)
    assert has_happened(event, trace) == means(event, history)


@given(programs(LANGUAGE.policies).filter(has_small_numbers), histories(**SIZES))
def test_policies_mean_what_their_definitions_say(policy, history):
    probabilities = policy_function(policy, **SIZES)(history)
    assert list(probabilities) == acts(policy, history)
    assert sum(probabilities) == 1


@given(programs(LANGUAGE.utilities).filter(has_small_numbers), histories(**SIZES))
def test_utilities_mean_what_their_definitions_say(utility, history):
    trace = trace_of(utility, history, **SIZES)
    assert payoff(utility, trace) == pays(utility, history)
    assert 0 <= payoff(utility, trace) <= 1


def test_every_short_program_agrees_with_the_definitions_on_every_short_history():
    tree = HistoryTree(**SIZES, horizon=3)
    for n_steps in range(4):
        for history in tree.continuations(n_steps):
            for _, policy in LANGUAGE.policies.up_to(12):
                trace = trace_of(policy, history, **SIZES)
                assert list(action_probabilities(policy, trace)) == acts(policy, history)


@given(
    programs(LANGUAGE.policies),
    programs(LANGUAGE.utilities),
    histories(**SIZES, max_steps=4),
    st.integers(1, 2),
)
def test_tables_on_a_tree_are_the_functions_on_its_histories(policy, utility, root, horizon):
    tree = HistoryTree(**SIZES, horizon=horizon, root=root)
    for fast, slow in zip(
        policy_on_tree(policy, tree),
        policy_table(tree, policy_function(policy, **SIZES)),
        strict=True,
    ):
        assert (fast == slow).all()
    expected = utility_table(tree, utility_function(utility, **SIZES))
    assert (utility_on_tree(utility, tree) == expected).all()


@given(
    st.one_of(
        st.builds(Plain, st.integers(1, 40)),
        st.builds(Round, st.integers(1, 40), st.integers(1, 5)),
        st.builds(Arrow, st.integers(1, 6), st.builds(Plain, st.integers(1, 2))),
        st.builds(Arrow, st.just(1), st.builds(Plain, st.integers(1, 30))),
        st.builds(Arrow, st.just(2), st.builds(Plain, st.integers(1, 4))),
        st.builds(Arrow, st.just(3), st.builds(Plain, st.integers(1, 3))),
        st.builds(
            Arrow, st.just(1), st.builds(Arrow, st.just(1), st.builds(Plain, st.integers(1, 4)))
        ),
    ),
    st.integers(0, 10**7),
)
def test_numbers_have_their_values_up_to_any_limit(number, limit):
    exact = value(number)
    assert number_up_to(number, limit) == (exact if exact <= limit else None)
    assert number_up_to(number, exact) == exact
    assert number_up_to(number, exact - 1) is None


def test_the_shortest_way_to_write_a_number_is_the_shortest_of_all_that_mean_it():
    numbers = LANGUAGE.numbers
    shortest = {}
    for n_bits, number in numbers.up_to(15):
        meant = number_up_to(number, 10**7)
        if meant is not None:
            shortest.setdefault(meant, n_bits)
    assert {8, 16, 20, 64, 1000, 2**16, 10**6} <= set(shortest)
    for meant, n_bits in shortest.items():
        number = shortest_number(numbers, meant)
        assert number_up_to(number, meant) == meant
        assert numbers.length(number) == n_bits


@pytest.mark.parametrize("text", ["2^^^^9", "2^^^^^^^^^^^^3", "9e999999999999", "2^2^2^2^2^2^2^9"])
def test_enormous_numbers_are_compared_without_being_built(text):
    number = LANGUAGE.numbers.parse(text)
    assert number_up_to(number, 10**100) is None
    event = Latch(Or(Reached(Steps(), number), Every(Steps(), number)))
    assert first_time(event, iter([(0, 0)] * 50), trace=trace_of(event, (), **SIZES)) is None


def test_an_event_happens_once_and_stays():
    event = LANGUAGE.events.parse("latch(ends(o1 a1 o1))")
    steps = [(0, 1), (0, 1), (1, 1), (0, 0), (0, 0)]
    steps_read = iter(steps)
    trace = trace_of(event, (), **SIZES)
    assert first_time(event, steps_read, trace=trace) == 3
    assert list(steps_read) == steps[3:], "no step is read beyond the event"
    for step in steps[3:]:
        trace.advance(*step)
        assert has_happened(event, trace)
        assert not holds(event.predicate, trace)
    assert first_time(event, iter([]), trace=trace) == 5


def test_a_copied_trace_grows_on_its_own():
    event = LANGUAGE.events.parse("latch(ends(o1))")
    trace = trace_of(event, (0, 0), **SIZES)
    twin = trace.copy()
    twin.advance(0, 1)
    assert has_happened(event, twin)
    assert not has_happened(event, trace)
    assert (trace.n_steps, twin.n_steps) == (1, 2)


def test_remembered_predicates_come_inside_out_and_once():
    policy = LANGUAGE.policies.parse(
        "switch(latch(ever(ends(o1))), if(ever(ends(o1)), do(a0), do(a1)), do(a2))"
    )
    inner = Ends((1,))
    assert latched_in(policy) == (inner, Ever(inner))


def test_misuse_is_refused_with_the_remedy():
    event = Latch(Did(0))
    with pytest.raises(InvalidArgumentError, match=r"make it with `latched_in\(program\)`"):
        has_happened(event, Trace(**SIZES))
    with pytest.raises(InvalidHistoryError, match=r"after an observation \(even length\), got 3"):
        trace_of(event, (0, 0, 1), **SIZES)
    with pytest.raises(InvalidHistoryError, match=r"observation at position 1 must lie in 0\.\.1"):
        trace_of(event, (0, 2), **SIZES)


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("right", [True, False])
def test_connectives_have_the_truth_tables_of_logic(left, right):
    """After action 0 `Did(0)` holds and `Did(1)` does not."""
    parts = Did(0 if left else 1), Did(0 if right else 1)
    for predicate, truth in (
        (parts[0], left),
        (Not(parts[0]), not left),
        (And(*parts), left and right),
        (Or(*parts), left or right),
    ):
        assert holds(predicate, trace_of(Latch(predicate), (0, 1), **SIZES)) is truth
