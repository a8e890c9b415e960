import platform
import resource
import subprocess
import sys

import pytest

from mightnt import allocation
from mightnt.allocation import keep_freed_memory

FAULTS = """
import resource, sys
import numpy as np
from mightnt.allocation import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
for _ in range(3):
    np.ones(8_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(8_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
N_PAGES = 10 * 8 * 8_000_000 // resource.getpagesize()


def faults(how: str) -> int:
    ran = subprocess.run(
        [sys.executable, "-c", FAULTS, how], check=True, capture_output=True, text=True
    )
    return int(ran.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked")
def test_large_arrays_come_from_memory_that_is_there_already():
    assert faults("kept") < N_PAGES / 20
    assert faults("kept") < faults("given back") / 5


def test_other_libraries_are_left_as_they_are(monkeypatch):
    monkeypatch.setattr(allocation.platform, "libc_ver", lambda: ("musl", "1.2"))
    assert not keep_freed_memory()
