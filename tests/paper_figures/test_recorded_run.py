"""A run of before gives the figures that it gave, and figures need no learning library."""

import subprocess
import sys

import pytest

from tests.llm_experiment.fakes.recorded_run import copied, recorded_numbers, sums

FIGURES = ("figure1", "figure2", "figure4", "figure9", "figure10", "figure11", "table1", "table3")
HEAVY = ("torch", "transformers", "stable_baselines3", "gymnasium", "sympy")
MAKE = f"""
import sys
from llm_experiment.judge import main as judge
from paper_figures.__main__ import main

run, out, *names = sys.argv[1:]
judge([run, "--n-pairs", "10"])
main(["--runs", run, "--out", out, "--only", *names])
print("imported:", [name for name in {HEAVY} if name in sys.modules])
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Every figure and table of the recorded run, by a process of its own."""
    folder = tmp_path_factory.mktemp("recorded")
    run, out = copied(folder), folder / "figures"
    argv = [sys.executable, "-c", MAKE, str(run), str(out), *FIGURES]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_figures_and_tables_of_a_stored_run_need_no_learning_library(made):
    out, said = made
    assert {path.stem for path in out.iterdir()} == set(FIGURES)
    assert said.splitlines()[-1] == "imported: []"


@pytest.mark.parametrize("name", sorted(set(recorded_numbers()["figures"])))
def test_a_run_of_before_has_the_figures_that_it_had(made, name):
    out, _ = made
    found, recorded = sums(out / f"{name}.csv"), recorded_numbers()["figures"][name]
    assert list(found) == list(recorded)
    for column, numbers in recorded.items():
        assert found[column] == pytest.approx(numbers, rel=1e-9, abs=1e-12), column
