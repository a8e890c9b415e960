"""Columns stand for the histories that they say, and sets of them for what holds there."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toy_world.program_examples import (
    columns_in,
    layout_of,
    places_of,
    programs,
    rooted,
    worlds,
)
from theory.errors import InvalidArgumentError, InvalidHistoryError
from theory.process import policy_table
from toy_world.programs.columns import ColumnLayout, QueryPoint, Segment
from toy_world.programs.language import (
    CopyAction,
    CopyObservation,
    Cycle,
    Did,
    Do,
    Done,
    Ends,
    Every,
    Plain,
    Reached,
    Seen,
    Steps,
)
from toy_world.programs.semantics import holds, policy_function, policy_on_tree, trace_of


@settings(max_examples=25)
@given(worlds(max_steps=70))
def test_every_history_has_its_columns_and_padding_has_none(world):
    _, history, layout = world
    places = places_of(history, layout)
    columns = [column for column, _ in places]
    assert len(set(columns)) == len(columns)
    assert columns_in(layout.everything) == set(columns)
    assert columns_in(layout.nothing) == set()
    assert len(layout.everything) == layout.n_words
    # Two columns have one node exactly if they stand for one history at one place of the layout.
    of_column = layout.nodes.of_column
    by_node = {}
    for column, h in places:
        by_node.setdefault(int(of_column[column]), set()).add(h)
    assert all(len(histories) == 1 for histories in by_node.values())
    chain = {t: history[: 2 * t] for t in range(layout.n_steps + 1)}
    assert all(by_node[t] == {chain[t]} for t in by_node if t in chain)
    assert all(of_column[column] == -1 for column in set(range(len(of_column))) - set(columns))


@settings(max_examples=25)
@given(worlds(max_steps=20), st.data())
def test_elementary_predicates_hold_where_the_interpreter_says(world, data):
    language, history, layout = world
    sizes = {"n_actions": layout.n_actions, "n_observations": layout.n_observations}
    n = Plain(data.draw(st.integers(1, 9)))
    last = layout.n_observations - 1
    for predicate in (
        Did(0),
        Ends((last,)),
        Ends((0, layout.n_actions - 1, last)),
        Reached(Steps(), n),
        Every(Seen(last), n),
        Reached(Done(0), n),
    ):
        assert language.length(predicate) > 0
        expected = {
            column
            for column, h in places_of(history, layout)
            if holds(predicate, trace_of(predicate, h, **sizes))
        }
        assert columns_in(layout.holding(predicate)) == expected
        assert (layout.holding(layout.plainly(predicate)) == layout.holding(predicate)).all()


@pytest.mark.parametrize("counter", [Steps(), Seen(1), Done(1)])
def test_counters_are_compared_as_the_interpreter_does_at_and_off_every_point(counter, rng):
    """Query points split the history, and have columns of their own for its prefixes."""
    sizes = {"n_actions": 2, "n_observations": 2}
    history = tuple(rng.integers(0, 2, 2 * 150).tolist())
    points = [QueryPoint(n_steps=t, extra=(1, 1)[: 2 * (t % 2)]) for t in (0, 3, 64, 65, 150)]
    layout = layout_of(history, points, **sizes, horizon=2)
    places = places_of(history, layout)
    for number in (*range(1, 8), 63, 64, 65, 66, 75, 149, 150, 151, 152, 153):
        for predicate in (Reached(counter, Plain(number)), Every(counter, Plain(number))):
            expected = {c for c, h in places if holds(predicate, trace_of(predicate, h, **sizes))}
            assert columns_in(layout.holding(predicate)) == expected


@settings(max_examples=30)
@given(worlds(max_steps=70), st.randoms(use_true_random=False))
def test_latched_sets_hold_from_the_first_prefix_on(world, random):
    _, history, layout = world
    places = places_of(history, layout)
    histories = sorted({h for _, h in places})
    chosen = set(random.sample(histories, min(2, len(histories))))
    flags = np.zeros(64 * layout.n_words, dtype=np.bool_)
    flags[[column for column, h in places if h in chosen]] = True
    bits = np.packbits(flags, bitorder="little").view(np.uint64)
    expected = {
        column for column, h in places if any(h[:end] in chosen for end in range(0, len(h) + 1, 2))
    }
    # A prefix that no column stands for cannot be told to a latch.
    known = {h for _, h in places}
    assert all(h[:end] in known for h in histories for end in range(0, len(h) + 1, 2))
    assert columns_in(layout.latched(bits)) == expected


@given(worlds(max_steps=20), st.data())
def test_simple_policies_are_evaluated_as_the_interpreter_does(world, data):
    language, history, layout = world
    policy = data.draw(programs(language.policies))
    if not isinstance(policy, (Do, CopyAction, CopyObservation, Cycle)):
        policy = Cycle((0, layout.n_actions - 1))
    bits = layout.certain(policy)
    sizes = {"n_actions": layout.n_actions, "n_observations": layout.n_observations}
    for index, point in enumerate(layout.points):
        root = rooted(history, point)
        tree = layout.trees[index]
        rows = layout.unpack(bits[None], tree).reshape(-1, layout.n_actions)
        table = policy_on_tree(policy, layout.tree)
        function = policy_function(policy, **sizes)
        expected = policy_table(layout.tree, lambda h, f=function, r=root: f(r + h))
        assert len(table) == len(expected)
        assert (rows == np.concatenate(expected)).all()


@settings(max_examples=25)
@given(worlds(max_steps=10))
def test_what_a_point_says_of_its_history_is_true(world):
    _, history, layout = world
    for index, point in enumerate(layout.points):
        root = rooted(history, point)
        assert layout.count_at(index, Steps()) == len(root) // 2
        assert layout.count_at(index, Seen(0)) == root[1::2].count(0)
        assert layout.count_at(index, Done(0)) == root[::2].count(0)
        for length in range(len(root) + 1):
            assert layout.last_symbols(index, length) == root[len(root) - length :]
        last, columns = layout.proper_prefixes(index)
        of_column = dict(places_of(history, layout))
        prefixes = {history[: 2 * t] for t in range(last + 1)}
        prefixes |= {of_column[column] for column in columns.tolist()}
        assert prefixes == {root[:end] for end in range(0, len(root), 2)}
        before = sum(s.n_columns for s in layout.chain if s.end_word <= layout.words_before(index))
        assert before == point.n_steps


def test_a_segment_ends_at_a_word_boundary():
    segment = Segment(first_word=2, n_columns=65)
    assert segment.end_word == 4
    assert segment.columns == slice(128, 193)


def test_a_cycle_is_compared_with_the_actions_before_the_first_point():
    layout = layout_of(
        (0, 0, 1, 0, 0, 0, 0, 0), [QueryPoint(n_steps=3)], n_actions=2, n_observations=1, horizon=1
    )
    assert layout.begins_with(Cycle((0, 1)))
    assert layout.begins_with(Cycle((0, 1, 0, 1)))
    assert not layout.begins_with(Cycle((0, 1, 1)))


def test_bad_layouts_get_an_answer_that_says_what_to_do():
    sizes = {"n_actions": 2, "n_observations": 2}

    def layout(**changes):
        given_ = {"actions": [0, 1], "observations": [0, 1], "points": [QueryPoint(n_steps=2)]}
        return ColumnLayout(**{**given_, **sizes, "horizon": 1, **changes})

    with pytest.raises(InvalidArgumentError, match="at least one query point"):
        layout(points=[])
    with pytest.raises(InvalidArgumentError, match="step 3 lies beyond the history's 2 steps"):
        layout(points=[QueryPoint(n_steps=3)])
    with pytest.raises(InvalidArgumentError, match=r"in order of n_steps, got \[2, 1\]"):
        layout(points=[QueryPoint(n_steps=2), QueryPoint(n_steps=1)])
    with pytest.raises(InvalidHistoryError, match=r"actions must lie in 0\.\.1, got 2"):
        layout(actions=[0, 2])
    with pytest.raises(InvalidHistoryError, match="got 2 and 1"):
        layout(observations=[0])
    with pytest.raises(InvalidHistoryError, match=r"observation at position 1 must lie in 0\.\.1"):
        layout(points=[QueryPoint(n_steps=2, extra=(0, 2))])
    with pytest.raises(InvalidArgumentError, match="n_steps must be >= 0, got -1"):
        QueryPoint(n_steps=-1)
    with pytest.raises(InvalidHistoryError, match="even length"):
        QueryPoint(n_steps=1, extra=(0,))
