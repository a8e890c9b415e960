"""The shapes and dtypes that signatures of `theory` promise are those of real calls."""

import subprocess
import sys


def test_every_call_keeps_to_its_annotations():
    checked = subprocess.run(
        [sys.executable, "-m", "tests.theory.check_annotations"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout[-2000:] + checked.stderr[-2000:]
    assert int(checked.stdout.split()[0]) > 300
