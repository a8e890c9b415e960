"""Classes of conditions and policies are those of the interpreter."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toy_world.program_examples import columns_in, layout_of, places_of, programs, worlds
from theory.errors import UnreachableLengthError
from toy_world.programs.classes import (
    ALWAYS,
    classes_of_conditions,
    classes_of_policies,
    condition_bits,
    fingerprint,
    part_limits,
    policy_rows,
)
from toy_world.programs.columns import QueryPoint
from toy_world.programs.language import If, Language, Latch, Mix, Switch
from toy_world.programs.semantics import action_probabilities, has_happened, holds, trace_of


@settings(max_examples=15)
@given(worlds(max_steps=70))
def test_conditions_hold_where_the_interpreter_says(world):
    """Histories of over 64 steps: a latch must carry over words."""
    language, history, layout = world
    limit = 8
    conditions = classes_of_conditions(language, layout, limit)
    sizes = {"n_actions": layout.n_actions, "n_observations": layout.n_observations}
    places = places_of(history, layout)
    seen = Counter()
    of_predicates, of_events = Counter(), Counter()
    for n_bits, predicate in language.predicates.up_to(limit):
        event = Latch(predicate)
        now = frozenset(
            column for column, h in places if holds(predicate, trace_of(event, h, **sizes))
        )
        ever = frozenset(
            column for column, h in places if has_happened(event, trace_of(event, h, **sizes))
        )
        of_predicates[now, n_bits] += 1
        of_events[ever, n_bits] += 1
        seen[now] += 1
        seen[ever] += 1
    columns = [column for column, _ in places]
    sets = [columns_in(row) for row in conditions.bits]
    assert sets[ALWAYS] == frozenset(columns)
    assert set(sets) == set(seen) | {sets[ALWAYS]}
    for table, expected in (
        (conditions.as_predicate, of_predicates),
        (conditions.as_event, of_events),
    ):
        found = {
            (sets[c], n_bits): int(table[c, n_bits]) for c, n_bits in np.argwhere(table).tolist()
        }
        assert found == expected
    for c, predicate in conditions.predicates.items():
        assert language.length(predicate) == conditions.as_predicate[c].nonzero()[0][0]


@settings(max_examples=30)
@given(worlds(max_steps=12), st.data())
def test_one_condition_holds_where_the_interpreter_says(world, data):
    language, history, layout = world
    event = Latch(data.draw(programs(language.predicates)))
    sizes = {"n_actions": layout.n_actions, "n_observations": layout.n_observations}
    for condition, means in ((event.predicate, holds), (event, has_happened)):
        expected = {
            column
            for column, h in places_of(history, layout)
            if means(condition, trace_of(event, h, **sizes))
        }
        assert columns_in(condition_bits(condition, layout)) == expected


def action_of(column, history, root_history, layout):
    """The action that a column stands for."""
    for tree in layout.trees:
        if tree.columns.start <= column < tree.columns.stop:
            return (column - tree.columns.start) % layout.n_actions
    for path, point in zip(layout.paths, layout.points, strict=True):
        if path.columns.start <= column < path.columns.stop:
            return point.extra[2 * (column - path.columns.start)]
    return history[len(root_history)]


@settings(max_examples=30)
@given(worlds(max_steps=12), st.data())
def test_one_policy_s_rows_are_its_probabilities(world, data):
    language, history, layout = world
    policy = data.draw(programs(language.policies))
    sizes = {"n_actions": layout.n_actions, "n_observations": layout.n_observations}
    rows = {value: columns_in(row) for value, row in policy_rows(policy, layout).items()}
    for column, h in places_of(history, layout):
        action = action_of(column, history, h, layout)
        probability = action_probabilities(policy, trace_of(policy, h, **sizes))[action]
        found = [value for value, row in rows.items() if column in row]
        assert found == ([float(probability)] if probability else [])


@settings(max_examples=15)
@given(worlds(max_steps=6))
def test_stored_policies_are_all_that_can_be_parts_merged_by_what_they_do(world):
    language, _, layout = world
    limits = part_limits(language, 14)
    conditions = classes_of_conditions(language, layout, limits.condition)
    stored = classes_of_policies(language, layout, conditions, limits)
    expected = Counter()
    for n_bits, policy in language.policies.up_to(limits.policy):
        rows = {v: row for v, row in policy_rows(policy, layout).items() if row.any()}
        key = frozenset((v, columns_in(row)) for v, row in rows.items())
        expected[key, n_bits] += 1
    found = Counter()
    rows, values, starts = stored.store
    for c in range(len(stored.programs)):
        own = range(starts[c], starts[c + 1])
        key = frozenset((values[r], columns_in(rows[r])) for r in own)
        for n_bits in np.flatnonzero(stored.counts[c]).tolist():
            found[key, n_bits] += int(stored.counts[c, n_bits])
        program = policy_rows(stored.programs[c], layout)
        assert frozenset((v, columns_in(row)) for v, row in program.items() if row.any()) == key
        assert language.length(stored.programs[c]) == stored.shortest[c]
    assert found == expected
    assert np.all(np.diff(stored.shortest) >= 0)


def parts_of(policy):
    """Conditions and policies of which a policy is made, itself left out."""
    match policy:
        case If(condition, first, second) | Switch(condition, first, second):
            conditions, policies = [condition], [first, second]
        case Mix(_, first, second):
            conditions, policies = [], [first, second]
        case _:
            return [], []
    for part in tuple(policies):
        inner = parts_of(part)
        conditions, policies = conditions + inner[0], policies + inner[1]
    return conditions, policies


@pytest.mark.parametrize("total", [2, 6, 9, 12, 14])
def test_parts_are_as_long_as_their_limits_and_no_longer(total):
    language = Language(n_actions=2, n_observations=1)
    limits = part_limits(language, total)
    longest = {"condition": -1, "policy": -1}
    for _, policy in language.policies.up_to(total):
        for name, parts in zip(longest, parts_of(policy), strict=True):
            longest[name] = max([longest[name], *map(language.length, parts)])
    for name, code in (("condition", language.events), ("policy", language.policies)):
        limit = getattr(limits, name)
        assert longest[name] <= limit
        assert not any(code.counts(max(limit, 0))[longest[name] + 1 :])


def test_too_few_bits_for_any_policy_are_an_error():
    with pytest.raises(UnreachableLengthError, match=r"shortest policy has 2 bits; .* got 1"):
        part_limits(Language(n_actions=2, n_observations=1), 1)


def test_fingerprints_do_not_depend_on_the_order_of_rows():
    layout = layout_of(
        (0, 1, 1, 0), [QueryPoint(n_steps=2)], n_actions=2, n_observations=2, horizon=2
    )
    language = Language(n_actions=2, n_observations=2)
    policy = language.policies.parse("mix(1/4, copy_observation, if(did(a1), do(a0), do(a1)))")
    rows = policy_rows(policy, layout)
    turned = dict(reversed(rows.items()))
    assert set(rows) >= {0.25, 0.75}
    one, other = (fingerprint(r, keys=layout.keys) for r in (rows, turned))
    assert (one == other).all()
    flipped = {float(1 - Fraction(v)): row for v, row in rows.items() if v != 1}
    assert (fingerprint(flipped, keys=layout.keys) != one).all()
