"""No demo shows anything else than before unless that is meant; see `shown_before`."""

import pytest

from tests.records import assert_as_recorded
from tests.toy_world.shown_before import RECORDED, account_of
from toy_world.__main__ import demo_names


@pytest.mark.parametrize("name", demo_names())
def test_a_demo_shows_what_it_showed(shown, name):
    found = shown(name)
    account = account_of(name, found.folder, found.printed)
    assert_as_recorded(account, (RECORDED / f"{name}.txt").read_text(encoding="utf-8"))
