"""Every command answers `--help` and a bad option before it imports what it works with.

Looked at in `sys.modules`, not at the clock; `make bench` prints the times.
"""

import json
import subprocess
import sys

import pytest

from mightnt.commands import COMMANDS, demos

HEAVY = (
    "torch", "transformers", "stable_baselines3", "gymnasium", "sympy", "numba", "matplotlib",
    "scipy.stats", "scipy.optimize",
)  # fmt: skip
"""What takes a second or more of processor time to import, or leads to something that does."""

ALL = {**COMMANDS, **{f"demo {name}": command for name, command in demos().items()}}
NEEDED = {
    "judge": ["results/llm"],
    "audit": ["--base-model", "tiny", "--prompts", "prompts.jsonl"],
}
"""What a command cannot do without."""

_CODE = """
import json, runpy, sys
heavy, module, *sys.argv[1:] = json.loads(sys.argv[1])
code = 0
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as exit_:
    code = exit_.code or 0
print()
print(json.dumps([code, [name for name in heavy if name in sys.modules]]))
"""


def ended(module, *options):
    """The exit code of a command, and which of the heavy modules it imported."""
    done = subprocess.run(
        [sys.executable, "-c", _CODE, json.dumps([HEAVY, module, *options])],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return (*json.loads(done.stdout.splitlines()[-1]), done)


@pytest.mark.parametrize("name", ALL)
def test_help_imports_nothing_heavy(name):
    code, heavy, done = ended(ALL[name].module, "--help")
    assert (code, heavy) == (0, [])
    assert "usage:" in done.stdout


@pytest.mark.parametrize("name", ALL)
def test_a_bad_option_is_one_line_and_imports_nothing_heavy(name):
    code, heavy, done = ended(ALL[name].module, *NEEDED.get(name, ()), "--no-such-option")
    assert (code, heavy) == (2, [])
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "--no-such-option" in line
    assert f"python -m {ALL[name].module} --help" in line
