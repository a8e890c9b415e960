"""Bad options get one line and exit code 2; help teaches."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch

from mightnt.command_line import (
    BAD_USAGE,
    EXPERIMENT_LIBRARIES,
    INTERRUPTED,
    parse_command_line,
    run_command,
)
from theory.errors import InvalidArgumentError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Count sheep."""

    sheep: int = 3
    """How many sheep to count."""

    def __post_init__(self):
        if self.sheep < 0:
            raise InvalidArgumentError(f"--sheep must be >= 0, got {self.sheep}")


class Coat(Enum):
    SHORT = "short"
    LONG = "long"


@dataclass(frozen=True, kw_only=True)
class Flock:
    """Count more sheep."""

    sheep: int
    """How many sheep to count."""
    coat: Coat = Coat.SHORT
    """Their coats."""


def parse(*argv):
    return parse_command_line(Options, argv, prog="python -m sheep")


def one_line_error(capsys, action):
    with pytest.raises(SystemExit) as exit_:
        action()
    assert exit_.value.code == BAD_USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def test_good_options_become_the_dataclass():
    assert parse("--sheep", "5") == Options(sheep=5)
    assert parse() == Options()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--sheep", "-1"], "--sheep must be >= 0, got -1"),
        (["--sheep", "many"], "many"),
        (["--goats", "2"], "--goats"),
        (["--sheep"], "--sheep"),
    ],
)
def test_a_bad_option_is_one_line_that_names_it_and_says_where_help_is(capsys, argv, words):
    line = one_line_error(capsys, lambda: parse(*argv))
    assert words in line
    assert "python -m sheep --help" in line


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--shepe", "3"], "Unrecognized options: --shepe; perhaps you meant --sheep"),
        (["--shepe=3", "--coat", "long"], "Unrecognized options: --shepe; perhaps you meant "),
        (["--wool"], "Unrecognized options: --wool (options:"),
        (["--coat", "long"], "Missing from python -m flock: --sheep"),
    ],
)
def test_a_misspelt_option_is_named_before_the_one_that_is_missing(capsys, argv, said):
    line = one_line_error(capsys, lambda: parse_command_line(Flock, argv, prog="python -m flock"))
    assert line.startswith(f"error: {said}")


def test_a_default_gives_what_options_leave_out():
    assert parse_command_line(Flock, [], prog="x", default=Flock(sheep=7)) == Flock(sheep=7)
    given = parse_command_line(Flock, ["--coat", "long"], prog="x", default=Flock(sheep=7))
    assert given == Flock(sheep=7, coat=Coat.LONG)


def test_help_shows_every_field_and_exits_with_zero(capsys):
    with pytest.raises(SystemExit) as exit_:
        parse("--help")
    assert exit_.value.code == 0
    assert "How many sheep to count." in capsys.readouterr().out


def test_the_projects_errors_become_one_line(capsys):
    def main():
        raise InvalidArgumentError("no sheep\nleft; buy some")

    assert one_line_error(capsys, lambda: run_command(main)) == "error: no sheep left; buy some"


def test_more_than_the_memory_holds_is_one_line(capsys):
    def main():
        np.empty((10**9, 10**9))

    line = one_line_error(capsys, lambda: run_command(main))
    assert line.startswith("error: not enough memory: Unable to allocate")


def test_other_errors_are_not_swallowed():
    def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(main)


def test_ctrl_c_exits_with_130(capsys):
    def main():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as exit_:
        run_command(main)
    assert exit_.value.code == INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    "module", ["llm_experiment.run", "toy_world.demo_planners", "paper_figures", "proofs_check"]
)
def test_ctrl_c_during_start_up_is_silent(tmp_path, module):
    """A module that is imported on the way there sends it, as a person would at that moment."""
    (tmp_path / "tyro.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(1)\n"
    )
    process = subprocess.run(
        [sys.executable, "-m", module],
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert process.returncode == -signal.SIGINT  # which a shell calls 130
    assert process.stderr == b""
    assert process.stdout == b""


@pytest.mark.parametrize("words", [["run"], ["demo", "planners"], ["completion", "bash"]])
def test_ctrl_c_during_start_up_of_the_script_is_silent(tmp_path, words):
    """The script that an installation makes, interrupted while the command is imported."""
    (tmp_path / "tyro.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(1)\n"
    )
    script = tmp_path / "bin" / "mightnt"
    script.parent.mkdir()
    script.write_text("import sys\nfrom mightnt.__main__ import main\nsys.exit(main())\n")
    process = subprocess.run(
        [sys.executable, script, *words],
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), os.getcwd()))},
    )
    assert process.returncode == -signal.SIGINT  # which a shell calls 130
    assert process.stderr == b""
    assert process.stdout == b""


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (lambda: torch.empty(10**15), "you tried to allocate 4000000000000000 bytes"),
        (
            lambda: raised(
                torch.OutOfMemoryError(
                    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total of 8 GiB "
                    "of which 1 GiB is free. See the documentation.\nmore"
                )
            ),
            "CUDA out of memory. Tried to allocate 20.00 GiB; ask",
        ),
        (lambda: raised(MemoryError()), "none is left; ask"),
    ],
)
def test_memory_that_is_not_there_is_one_line(error, shown, capsys):
    with pytest.raises(SystemExit) as exit_:
        run_command(error)
    assert exit_.value.code == BAD_USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: not enough memory: ")
    assert shown in line
    assert line.endswith("; ask for less at a time")


def raised(error):
    raise error


def test_other_errors_of_torch_keep_their_traceback():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run_command(lambda: torch.ones(2, 3) @ torch.ones(2, 3))


# ------------------------------------------------------------------ output that cannot be shown


SHOWING = """
import sys
from pathlib import Path
from rich.console import Console
from mightnt.command_line import run_command

def main():
    for number in range(20_000):
        print(f"• line {number}")
    Console().print("• done")
    Path(sys.argv[1]).write_text("all")

run_command(main)
"""


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_a_reader_that_stops_early_or_lacks_characters_stops_nothing(tmp_path, encoding):
    """As in `command | head -1`: the first line is shown, and all of the work is done."""
    done = tmp_path / "done"
    process = subprocess.Popen(
        [sys.executable, "-c", SHOWING, str(done)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    first = process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 0
    assert errors == b""
    assert done.read_text() == "all"
    assert first == "• line 0\n".encode(encoding, errors="replace")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full device here")
def test_a_full_disk_behind_the_output_is_one_line_after_the_work(tmp_path):
    done = tmp_path / "done"
    with open("/dev/full", "w") as full:
        shown = subprocess.run(
            [sys.executable, "-c", SHOWING, str(done)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert shown.returncode == BAD_USAGE
    (line,) = shown.stderr.splitlines()
    assert line == "error: cannot print: No space left on device; everything else is done"
    assert done.read_text() == "all"


CODE = """
import sys
sys.path.insert(0, ".")
from tests.mightnt.test_command_line import parse
parse(*sys.argv[1:])
"""


def in_a_terminal(*argv):
    """What a command prints where its output is a terminal, and its exit code."""
    leader, follower = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", CODE, *argv], stdin=follower, stdout=follower, stderr=follower
        )
        os.close(follower)
        shown = b""
        with contextlib.suppress(OSError):  # Linux says EIO at the end
            while part := os.read(leader, 4096):
                shown += part
        return shown.decode(), process.wait()
    finally:
        os.close(leader)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--goats"], "error: Unrecognized options: --goats (options: python -m sheep --help)"),
        (
            ["--shee", "2"],
            "error: Unrecognized options: --shee, 2; perhaps you meant --sheep (options: python "
            "-m sheep --help)",
        ),
        (
            ["--sheep", "-1"],
            "error: Error parsing Options: --sheep must be >= 0, got -1 (options: python -m sheep "
            "--help)",
        ),
    ],
)
def test_on_a_terminal_a_bad_option_is_the_same_plain_line(capsys, argv, line):
    shown, code = in_a_terminal(*argv)
    assert code == BAD_USAGE
    assert shown.splitlines() == [line]
    assert one_line_error(capsys, lambda: parse(*argv)) == line


def test_a_library_of_the_experiment_that_is_missing_is_a_line_and_any_other_is_not(capsys):
    def lacks(name):
        def main():
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

        return main

    line = one_line_error(capsys, lambda: run_command(lacks("torch.nn")))
    assert line == "error: this needs torch.nn; install it with: pip install 'mightnt[experiment]'"
    with pytest.raises(ModuleNotFoundError):
        run_command(lacks("sheep"))


def test_the_libraries_of_the_experiment_are_those_of_its_extra():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]["experiment"]
    named = {requirement.partition(">")[0].replace("-", "_") for requirement in extra}
    assert named == set(EXPERIMENT_LIBRARIES)
