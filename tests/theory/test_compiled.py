"""Code is compiled once, said so beforehand, and found again by whoever loads the same file."""

import importlib.util
import logging

import numba
import pytest

SOURCE = """
from theory.compiled import numeric

@numeric
def twice(x):
    return 2.0 * x
"""


def loaded(path):
    """The file as a new module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A file with a function that nobody has compiled."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "installed" / "doubling.py"
    path.parent.mkdir()
    path.write_text(SOURCE)
    return path


def test_a_compilation_is_announced_and_kept(source, caplog):
    caplog.set_level(logging.INFO, logger="theory.compiled")
    assert loaded(source).twice(3.0) == 6
    assert [record.getMessage() for record in caplog.records] == ["compiling twice"]
    assert loaded(source).twice(4.0) == 8
    assert len(caplog.records) == 1


def test_where_a_package_cannot_be_written_to_its_code_is_kept_in_the_users_cache(source, caplog):
    (source.parent / "__pycache__").touch()  # a file where numba wants a folder
    caplog.set_level(logging.INFO, logger="theory.compiled")
    first, second = loaded(source), loaded(source)
    assert first.twice(3.0) == second.twice(3.0) == 6
    assert str(source.parent) not in first.twice.stats.cache_path
    assert len(caplog.records) == 1
