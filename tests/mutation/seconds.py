"""A plugin of pytest: how long each test takes, into the file that MUTATION_SECONDS names.

Processor time, that of ended child processes included: a busy machine makes no test slow.
"""

import json
import os
from collections import defaultdict
from pathlib import Path

import pytest

_SECONDS: dict[str, float] = defaultdict(float)
_BEFORE: dict[str, float] = {}


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
