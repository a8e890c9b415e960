"""Tables travel as what they are made from, and are the same wherever they are built."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.toy_world.program_examples import layout_of
from theory.errors import UnreachableLengthError
from toy_world.programs import machine_folder
from toy_world.programs import tables as tables_module
from toy_world.programs.columns import QueryPoint
from toy_world.programs.language import Language
from toy_world.programs.tables import SharedTables, TablesOfMachine, TablesOnTrees

SIZES = {"n_actions": 2, "n_observations": 2}
LANGUAGE = Language(**SIZES)
POINTS = (QueryPoint(n_steps=10), QueryPoint(n_steps=300, extra=(1, 1)))


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """The folder of this machine's tables, empty; nothing is kept from other tests."""
    root = tmp_path / "machine"
    root.mkdir()
    tables_module._kept.cache_clear()
    monkeypatch.setattr(machine_folder, "own_root", lambda: root)
    yield root
    tables_module._kept.cache_clear()


def shared(limit_bits=16, *, seed=0, n_steps=300, event_bits=0):
    history = tuple(np.random.default_rng(seed).integers(0, 2, 2 * n_steps).tolist())
    layout = layout_of(history, POINTS, **SIZES, horizon=2)
    return SharedTables(LANGUAGE, layout, limit_bits, event_bits=event_bits)


def sent(tables):
    return pickle.loads(pickle.dumps(tables))


def assert_equal(one, other):
    for name in ("bits", "as_predicate", "as_event"):
        np.testing.assert_array_equal(
            getattr(one.conditions, name), getattr(other.conditions, name)
        )
    assert one.conditions.predicates == other.conditions.predicates
    assert one.conditions.events == other.conditions.events
    for ours, theirs in zip(one.policies.store, other.policies.store, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for name in ("fingerprints", "counts", "leaf_counts", "shortest"):
        np.testing.assert_array_equal(getattr(one.policies, name), getattr(other.policies, name))
    assert one.policies.programs == other.policies.programs
    np.testing.assert_array_equal(one.cover, other.cover)


def test_another_process_builds_the_same_tables():
    own = shared(event_bits=9)
    other = sent(own)
    assert other is not own
    assert other.layout.points == own.layout.points
    assert other.layout.horizon == own.layout.horizon
    np.testing.assert_array_equal(other.layout.actions, own.layout.actions)
    np.testing.assert_array_equal(other.layout.observations, own.layout.observations)
    assert_equal(own, other)
    assert own.conditions.limit_bits == 9, "what a search among events needs"


def test_what_is_sent_does_not_grow_with_the_tables():
    small, large = shared(12), shared(18)
    assert large.conditions.bits.nbytes > 10 * small.conditions.bits.nbytes
    assert abs(len(pickle.dumps(large)) - len(pickle.dumps(small))) < 10
    # 600 coin tosses are 75 bytes; the tables of a history of them take a thousand times that.
    assert len(pickle.dumps(large)) < 1500


def test_a_process_keeps_the_tables_of_the_last_description_and_no_others(machine):
    first, second = shared(seed=1), shared(seed=2)
    received = sent(first)
    assert received.policies is sent(first).policies
    assert sent(first) is received
    (folder,) = machine.iterdir()
    other = sent(second)
    del received
    assert sent(second) is other
    assert other.policies is not None
    (later,) = machine.iterdir()
    assert later != folder, "that of the first is gone with it"


def test_the_processes_of_a_machine_build_tables_once(machine, monkeypatch):
    own = shared()
    one, other = sent(own), TablesOfMachine(LANGUAGE, own.layout, 16)
    assert_equal(own, one)
    monkeypatch.delattr(tables_module, "classes_of_policies")
    monkeypatch.delattr(tables_module, "classes_of_conditions")
    assert_equal(own, other)
    assert isinstance(one.policies.store.rows.base, np.memmap)
    assert len(list(machine.iterdir())) == 1


def test_policies_are_the_same_from_the_conditions_that_their_parts_can_have():
    """And no fewer will do."""
    own = shared(18)
    limits = own.limits
    assert limits.condition_of_part < limits.condition
    short = own._conditions_up_to(limits.condition_of_part)
    n = len(short.bits)
    assert n < len(own.conditions.bits)
    np.testing.assert_array_equal(short.bits, own.conditions.bits[:n])
    found = own._policies_of(short)
    np.testing.assert_array_equal(found.store.rows, own.policies.store.rows)
    np.testing.assert_array_equal(found.counts, own.policies.counts)
    fewer = own._policies_of(own._conditions_up_to(limits.condition_of_part - 1))
    assert fewer.counts.sum() < found.counts.sum()


def test_threads_build_once(monkeypatch):
    built = []
    started = threading.Barrier(4)

    def building(*arguments):
        built.append(threading.get_ident())
        return original(*arguments)

    original = tables_module.classes_of_policies
    monkeypatch.setattr(tables_module, "classes_of_policies", building)
    tables = shared()

    def ask(_):
        started.wait(timeout=60)
        return tables.policies

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(ask, range(4)))
    assert len(built) == 1
    assert all(each is found[0] for each in found)


def test_the_trees_have_what_the_tables_say_of_every_path_and_tree():
    tables = shared()
    layout, trees = tables.layout, TablesOnTrees.of(tables)
    assert trees.conditions.shape[1] == layout.n_words - layout.chain[-1].end_word
    for segment in (*layout.paths, *layout.trees):
        here = trees.segment(segment)
        for ours, whole in (
            (trees.conditions, tables.conditions.bits),
            (trees.policies.rows, tables.policies.store.rows),
        ):
            np.testing.assert_array_equal(layout.unpack(ours, here), layout.unpack(whole, segment))


def test_too_few_bits_are_refused_before_anything_is_built():
    with pytest.raises(UnreachableLengthError, match="shortest policy has 2 bits"):
        shared(1)
