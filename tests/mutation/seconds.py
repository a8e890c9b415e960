"""A plugin of pytest: how long each test takes, into the file that MUTATION_SECONDS names."""

import json
import os
from collections import defaultdict
from pathlib import Path

_SECONDS: dict[str, float] = defaultdict(float)


def pytest_runtest_logreport(report):
    """Add a phase of a test to its time; the workers of xdist report to their controller."""
    _SECONDS[report.nodeid] += report.duration


def pytest_sessionfinish(session):
    """Write the times, once."""
    if not hasattr(session.config, "workerinput"):
        Path(os.environ["MUTATION_SECONDS"]).write_text(json.dumps(_SECONDS))
