"""A plugin of pytest: how long every test takes, into the file that MUTATION_SECONDS names.

Processor time, that of ended child processes included: a busy machine makes no test slow.
"""

import json
import os
from collections import defaultdict
from pathlib import Path

import pytest

_SECONDS: dict[str, float] = defaultdict(float)
_BEFORE: dict[str, float] = {}


def pytest_collection_modifyitems(items):
    """Count the lines of all tests, of those too that leave it off to be fast."""
    for item in items:
        item.own_markers = [mark for mark in item.own_markers if mark.name != "no_cover"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Note in a phase's report what was spent since the last one; workers send it on."""
    report = yield
    now = _processor_seconds()
    report.processor_seconds = now - _BEFORE.get("phase", now)
    _BEFORE["phase"] = now
    return report


def pytest_runtest_logstart():
    """Leave out what was spent between tests."""
    _BEFORE["phase"] = _processor_seconds()


def pytest_runtest_logreport(report):
    """Add a phase of a test to its time; the workers of xdist report to their controller."""
    _SECONDS[report.nodeid] += report.processor_seconds


def pytest_sessionfinish(session):
    """Write the times, once."""
    if not hasattr(session.config, "workerinput"):
        Path(os.environ["MUTATION_SECONDS"]).write_text(json.dumps(_SECONDS))


def _processor_seconds():
    return sum(os.times()[:4])
