"""What every test shares: hypothesis profiles and seeded generators."""

import gc
import os
import sys
import tempfile
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "quick",
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", max_examples=2000, deadline=None)
# For `make mutants`: that a test fails is enough there, the simplest example is not wanted.
settings.register_profile(
    "unshrunk", parent=settings.get_profile("quick"), phases=(Phase.explicit, Phase.generate)
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_collection_finish():
    """What is imported by now stays: no search for garbage need look through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20241006)


@pytest.fixture(autouse=True)
def _no_module_of_another_test() -> Iterator[None]:
    """Modules that a test wrote and imported, and their folders, are gone for the next test."""
    path, known = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in sys.modules.keys() - known:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(tempfile.gettempdir()):
            del sys.modules[name]
