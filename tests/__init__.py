"""The tests of every package."""

import os

# Read when numpy and torch are imported: two threads a process, on cores that others use too,
# wait for each other most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
