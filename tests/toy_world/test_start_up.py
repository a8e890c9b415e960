"""What command-line options are made of is imported without anything heavy."""

import subprocess
import sys

HEAVY = ("numba", "matplotlib", "scipy.optimize", "torch", "sympy", "flint", "joblib")
LIGHT = (
    "toy_world.machine.definition",
    "toy_world.planners.certificate",
    "toy_world.planners.problem",
    "toy_world.programs.language",
    "toy_world.programs.semantics",
    "toy_world.worlds.demonstrator",
    "toy_world.worlds.environments",
)


def test_names_of_worlds_readings_and_programs_need_no_heavy_library():
    script = (
        f"import sys, {', '.join(LIGHT)}; print(*[name for name in {HEAVY} if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == ""
