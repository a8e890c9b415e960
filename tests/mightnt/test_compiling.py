"""Who watches a command is told, once, that code is being compiled; nobody else is."""

import io
import logging

import pytest

from mightnt.compiling import NOTICE, compilation_shown

LOGGER = logging.getLogger("theory.compiled")


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "printed"), [(Screen(), NOTICE + "\n"), (io.StringIO(), "")])
def test_the_first_compilation_is_shown_on_a_screen(stream, printed, monkeypatch):
    monkeypatch.setattr("sys.stderr", stream)
    with compilation_shown():
        LOGGER.info("compiling one")
        LOGGER.info("compiling another")
    LOGGER.info("compiling a third")
    assert stream.getvalue() == printed


def test_nothing_is_shown_where_nothing_is_compiled(monkeypatch):
    monkeypatch.setattr("sys.stderr", Screen())
    with compilation_shown():
        pass
    assert not LOGGER.handlers
