"""The changes that `make mutants` leaves out are of the code as it is, each with its reason."""

import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
LIST = REPOSITORY / "tests" / "mutation" / "equivalent.toml"
CHANGES = tomllib.loads(LIST.read_text(encoding="utf-8")).get("change", [])


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: f"{change['path']}: {change['new']}")
def test_a_change_that_changes_nothing_is_of_lines_that_are_there(change):
    lines = (REPOSITORY / change["path"]).read_text(encoding="utf-8").splitlines()
    assert change["old"] in " ".join(line.strip() for line in lines)
    assert change["new"] != change["old"]
    assert change["why"].endswith(".")
