"""Commands answer `--help` and bad options before they import what they need."""

import subprocess
import sys

import pytest

HEAVY = (
    "torch", "transformers", "stable_baselines3", "gymnasium", "matplotlib", "scipy.stats",
    "scipy.optimize", "tokenizers", "safetensors", "joblib", "sympy", "numba",
)  # fmt: skip
ASK = f"""
import importlib
import sys

main = importlib.import_module(sys.argv[1]).main
for options in ("--help", *sys.argv[2:]):
    try:
        main(options.split())
    except SystemExit:
        pass
print("imported:", [name for name in {HEAVY} if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("module", "bad"),
    [
        ("llm_experiment.audit", ["--base-model tiny --prompts p --likely 2"]),
        ("llm_experiment.evaluation_tables", []),
        ("llm_experiment.exact_mixture", ["--task opera", "--n-steps 0"]),
        ("llm_experiment.judge", []),
        ("llm_experiment.price", ["--task opera", "--n-turns 0"]),
        ("llm_experiment.price_by_data", ["--task opera", "--powers 0"]),
        ("llm_experiment.report", []),
        ("llm_experiment.run", ["--task opera", "--budgets-nats 3 3", "--processes 0"]),
        ("llm_experiment.simplicity", ["--n-models 0", "--budget-nats -1"]),
        ("llm_experiment.sweep", ["--tasks opera", "--cluster dask:h:1", "--lengths 1"]),
        ("llm_experiment.tiny_models", ["--task opera"]),
        (
            "llm_experiment.vetoes",
            ["--task opera", "--alpha 0", "show --batch 0", "audit --alphas 2"],
        ),
        ("paper_figures.__main__", []),
    ],
)
def test_help_and_a_bad_option_need_no_heavy_library(module, bad):
    bad = ["--colour", *bad]
    argv = [sys.executable, "-c", ASK, module, *bad]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "usage: " in done.stdout
    errors = done.stderr.splitlines()
    assert len(errors) == len(bad)
    assert all(line.startswith("error: ") for line in errors)
    assert done.stdout.splitlines()[-1] == "imported: []"
