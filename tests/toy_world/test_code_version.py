"""The version of the code is a hash of its files."""

import shutil
from pathlib import Path

import theory
from toy_world import code_version as module


def test_a_change_of_any_file_is_another_version(tmp_path, monkeypatch):
    house = Path(theory.__file__).parents[1]
    for package in ("mightnt", "theory", "toy_world"):
        shutil.copytree(house / package, tmp_path / package)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "toy_world" / "code_version.py"))
    module.code_version.cache_clear()
    try:
        copied = module.code_version()
        (tmp_path / "theory" / "bounds.py").write_text("changed = True\n")
        module.code_version.cache_clear()
        changed = module.code_version()
    finally:
        monkeypatch.undo()
        module.code_version.cache_clear()
    assert copied == module.code_version() != changed
    assert len(changed) == 16
