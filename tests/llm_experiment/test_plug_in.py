"""A part of somebody's own is found by its name, or the error says what to do, in one line."""

import hashlib
import importlib
import math
import sys

import pytest

from llm_experiment.plug_in import fingerprint, is_reference, load_part
from theory.errors import InvalidArgumentError

SOURCE = """
def politeness(replies):
    return [float("Thanks" in reply) for reply in replies]


class Box:
    inner = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, in which modules of this test may lie; forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = set(sys.modules)
    importlib.invalidate_caches()
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("text", ["math:sqrt", "a.b_c:D.e2", "модуль:имя"])
def test_references_have_a_module_and_a_name(text):
    assert is_reference(text)


@pytest.mark.parametrize(
    "text",
    ["vader", "owner/name", "./a.py:f", "C:\\models", "a:", ":a", "a:b:c", "a:1", "1a:b", ""],
)
def test_nothing_else_is_a_reference(text):
    assert not is_reference(text)
    with pytest.raises(InvalidArgumentError, match="--reward must have the form module:name"):
        load_part(text, option="--reward")


def test_an_installed_part_is_found():
    assert load_part("math:sqrt", option="--reward") is math.sqrt


def test_a_part_in_the_current_folder_is_found(folder):
    (folder / "own_part.py").write_text(SOURCE)
    assert load_part("own_part:politeness", option="--reward")(["Thanks!", "No."]) == [1.0, 0.0]
    assert load_part("own_part:Box.inner", option="--reward") == 3


def test_a_module_that_is_not_there_is_named(folder):
    with pytest.raises(InvalidArgumentError, match="no module missing_part; start from the folder"):
        load_part("missing_part.inner:f", option="--task")


def test_a_module_that_lacks_another_module_is_not_said_to_be_missing(folder):
    (folder / "needy_part.py").write_text("import missing_part\n")
    with pytest.raises(InvalidArgumentError, match=r"imported \(ModuleNotFoundError"):
        load_part("needy_part:f", option="--task")


def test_a_module_that_fails_says_how_in_one_line(folder):
    (folder / "failing_part.py").write_text("raise OSError('first\\nsecond')\n")
    with pytest.raises(InvalidArgumentError, match="OSError: first") as caught:
        load_part("failing_part:f", option="--task")
    assert "\n" not in str(caught.value)


def test_a_name_that_is_not_there_is_named(folder):
    (folder / "poor_part.py").write_text(SOURCE)
    with pytest.raises(InvalidArgumentError, match=r"poor_part has no Box\.outer"):
        load_part("poor_part:Box.outer", option="--reward")


def test_the_fingerprint_is_that_of_the_file(folder):
    (folder / "stamped_part.py").write_text(SOURCE)
    expected = hashlib.sha256(SOURCE.encode()).hexdigest()
    assert fingerprint("stamped_part:politeness", option="--reward") == expected


def test_what_has_no_file_has_no_fingerprint():
    with pytest.raises(InvalidArgumentError, match="the module sys has no file"):
        fingerprint("sys:exit", option="--reward")
