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
from toy_world.programs.machine_folder import MachineFolder, own_root

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
    MachineFolder("key", root=root).release()
    assert [path.name for path in root.iterdir()] == ["a stray folder"]


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
