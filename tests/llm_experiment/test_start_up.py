"""Commands that read runs answer `--help` and bad options before they import what they need."""

import subprocess
import sys

import pytest

HEAVY = (
    "torch", "transformers", "stable_baselines3", "gymnasium", "matplotlib", "scipy.stats",
    "tokenizers", "sympy", "numba",
)  # fmt: skip
ASK = f"""
import importlib
import sys

main = importlib.import_module(sys.argv[1]).main
for argv in (["--help"], ["--colour"]):
    try:
        main(argv)
    except SystemExit:
        pass
print("imported:", [name for name in {HEAVY} if name in sys.modules])
"""


@pytest.mark.parametrize(
    "module",
    [
        "llm_experiment.evaluation_tables",
        "llm_experiment.judge",
        "llm_experiment.report",
        "paper_figures.__main__",
    ],
)
def test_help_and_a_bad_option_need_no_heavy_library(module):
    argv = [sys.executable, "-c", ASK, module]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "usage: " in done.stdout
    assert done.stderr.startswith("error: ")
    assert done.stdout.splitlines()[-1] == "imported: []"
