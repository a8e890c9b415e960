"""Results of a machine: made once, by whoever is free, mapped by all, and gone after the last."""

import fcntl
import os
import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from theory.errors import ResultsError
from toy_world.programs.machine_folder import MachineFolder, own_root, remove_unused

# Locks belong to open files: two folders of one process keep apart as those of two processes do.


@pytest.fixture
def root(tmp_path):
    return tmp_path


def never():
    raise AssertionError("this has been made before")


def test_a_result_is_what_was_made_and_is_made_once(root):
    rest = {"what": ("goes", "with"), "it": 1}
    made = MachineFolder("key", root=root).of({"one": lambda: (np.arange(6.0), rest)})
    array, found = MachineFolder("key", root=root).of({"one": never})["one"]
    np.testing.assert_array_equal(array, np.arange(6.0))
    assert found == made["one"][1] == rest
    assert type(array) is np.ndarray, "compiled code knows no other"


def test_what_is_written_to_a_mapped_array_stays_here(root):
    make = {"one": lambda: (np.zeros(3), None)}
    mine, _ = MachineFolder("key", root=root).of(make)["one"]
    mine[:] = 1
    theirs, _ = MachineFolder("key", root=root).of(make)["one"]
    np.testing.assert_array_equal(theirs, 0)


def test_two_processes_that_begin_together_make_different_results_side_by_side(root):
    both = threading.Barrier(2, timeout=60)
    made = []

    def making(name):
        def make():
            made.append((name, threading.get_ident()))
            both.wait()  # passes only while the other one is made, too
            return np.array([ord(name)]), name

        return make

    def ask(_):
        return MachineFolder("key", root=root).of({"a": making("a"), "b": making("b")})

    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(ask, range(2)))
    assert sorted(name for name, _ in made) == ["a", "b"]
    assert len({by for _, by in made}) == 2
    for each in found:
        assert {name: (array[0], rest) for name, (array, rest) in each.items()} == {
            name: (ord(name), name) for name in "ab"
        }


def test_what_one_process_began_and_did_not_end_another_makes(root):
    def dies():
        raise RuntimeError("out of luck")

    first, second = MachineFolder("key", root=root), MachineFolder("key", root=root)
    with pytest.raises(RuntimeError, match="out of luck"):
        first.of({"one": dies})
    array, _ = second.of({"one": lambda: (np.ones(1), None)})["one"]
    assert array == 1


def test_a_folder_goes_with_the_last_that_used_it(root):
    first, second = MachineFolder("key", root=root), MachineFolder("key", root=root)
    array, _ = first.of({"one": lambda: (np.arange(3), None)})["one"]
    first.release()
    assert second.path.is_dir()
    second.release()
    assert not second.path.exists()
    np.testing.assert_array_equal(array, np.arange(3))  # mapped still


def test_folders_of_processes_that_were_killed_go_too(root):
    killed = MachineFolder("of a killed process", root=root)
    os.close(killed._users)
    (root / "a stray folder").mkdir()
    (root / "a stray file").write_text("of somebody else")
    MachineFolder("key", root=root).release()
    assert {path.name for path in root.iterdir()} == {"a stray folder", "a stray file"}


def test_what_a_killed_process_left_goes_when_the_next_one_begins(root):
    """Not only when that one ends: it needs the room that was taken."""
    killed = MachineFolder("of a killed process", root=root)
    os.close(killed._users)
    folder = MachineFolder("key", root=root)
    assert [path.name for path in root.iterdir()] == ["key"]
    folder.release()


def test_who_begins_a_folder_while_it_is_removed_keeps_the_new_one(root, monkeypatch):
    old = MachineFolder("key", root=root)
    old.of({"one": lambda: (np.zeros(1), "old")})
    remove, begun = shutil.rmtree, []

    def removing(path, **keywords):
        if not begun:
            (path / "users").unlink()  # in whatever order it comes to them
            begun.append(None)
            begun[0] = MachineFolder("key", root=root)
            begun[0].of({"one": lambda: (np.ones(1), "new")})
        remove(path, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", removing)
        old.release()
    assert begun[0].of({"one": never})["one"][1] == "new"
    begun[0].release()
    assert not any(root.iterdir())


def test_who_waits_to_remove_a_folder_leaves_the_one_that_took_its_place(root, monkeypatch):
    """Opened before another process removed it, locked after a third began it anew."""
    left = MachineFolder("key", root=root)
    os.close(left._users)
    lock, begun = fcntl.flock, []

    def locking(file, operation):
        if not begun:
            begun.append(None)
            shutil.rmtree(root / "key")
            begun[0] = MachineFolder("key", root=root)
        lock(file, operation)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", locking)
        remove_unused(root)
    assert begun[0].of({"one": lambda: (np.ones(1), None)})["one"][0] == 1
    begun[0].release()


def test_a_removal_that_was_broken_off_is_ended(root, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        MachineFolder("key", root=root).release()
    (left,) = root.iterdir()
    (left / "users").unlink()
    MachineFolder("other", root=root).release()
    assert not any(root.iterdir())


@pytest.mark.parametrize("when", ["before it is opened", "before it is locked"])
def test_a_folder_that_is_removed_while_it_is_opened_is_begun_again(root, when, monkeypatch):
    removals = [root / "key"]
    open_file, lock = os.open, fcntl.flock

    def remove():
        if removals:
            shutil.rmtree(removals.pop())

    def opening(*arguments, **keywords):
        if when == "before it is opened":
            remove()
        return open_file(*arguments, **keywords)

    def locking(file, operation):
        remove()
        lock(file, operation)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", opening)
        patch.setattr(fcntl, "flock", locking)
        folder = MachineFolder("key", root=root)
    assert not removals
    assert os.fstat(folder._users).st_ino == (folder.path / "users").stat().st_ino
    folder.release()


def test_folders_lie_where_nobody_else_can_write(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = own_root()
    assert found.parent == tmp_path
    assert found.stat().st_mode & 0o777 == 0o700
    assert own_root() == found
    found.chmod(0o770)
    with pytest.raises(ResultsError, match=r"not a folder that this user alone can use.*TMPDIR"):
        own_root()
    found.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    found.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ResultsError, match="this user alone"):
        MachineFolder("key")


def test_a_full_disk_says_what_to_do(root, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(ResultsError, match=r"cannot keep .*key.*No space left.*set TMPDIR"):
        MachineFolder("key", root=root).of({"one": lambda: (np.zeros(1), None)})
