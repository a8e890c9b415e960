"""A command line is read before anything heavy is imported."""

import subprocess
import sys

import pytest

COMMANDS = ("price", "run", "sweep", "tiny_models")
HEAVY = (
    "gymnasium",
    "joblib",
    "matplotlib",
    "safetensors",
    "scipy.optimize",
    "scipy.stats",
    "stable_baselines3",
    "tokenizers",
    "torch",
    "transformers",
)
RUN = """
import runpy, sys
try:
    runpy.run_module("llm_experiment.{command}", run_name="__main__", alter_sys=True)
finally:
    print("HEAVY", *sorted(set({heavy!r}) & set(sys.modules)))
"""


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("argv", "code"), [(["--help"], 0), (["--task", "opera"], 2), (["--no-such-option"], 2)]
)
def test_help_and_bad_options_need_no_learning_library(command, argv, code):
    code_to_run = RUN.format(command=command, heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", code_to_run, *argv], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY"
    if code:
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ")
