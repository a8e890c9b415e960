"""`mightnt`: every command by its name, one line for what there is not, completion for all."""

import subprocess
import sys
from dataclasses import is_dataclass

import pytest

from mightnt import __main__ as command
from mightnt.commands import COMMANDS, demos

ALL = {**COMMANDS, **{f"demo {name}": demo for name, demo in demos().items()}}


@pytest.mark.parametrize("name", ALL)
def test_a_command_has_a_main_and_options(name):
    assert callable(ALL[name].load())
    assert is_dataclass(ALL[name].options_type())


def test_the_words_after_the_name_are_the_commands(monkeypatch):
    given = []
    monkeypatch.setattr("toy_world.__main__.main", given.append)
    command.main(["demos", "--only", "theorem1"])
    assert given == [["--only", "theorem1"]]


def test_help_names_every_command(capsys):
    command.main(["--help"])
    shown = capsys.readouterr().out
    for name, known in COMMANDS.items():
        assert name in shown
        assert known.summary in shown
    command.main(["demo"])
    assert all(name in capsys.readouterr().out for name in [next(iter(demos()))])


def test_the_version_is_that_of_the_package(capsys):
    command.main(["--version"])
    assert capsys.readouterr().out.startswith("mightnt ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rnu"], "no command 'rnu'; perhaps you meant run"),
        (["xyzzy"], "no command 'xyzzy'; there are demos, "),
        (["demo", "theorem3"], "perhaps you meant theorem"),
        (["completion"], "takes one of bash, zsh, tcsh, got nothing"),
        (["completion", "fish"], "takes one of bash, zsh, tcsh, got fish"),
    ],
)
def test_what_there_is_not_is_one_line(capsys, words, said):
    with pytest.raises(SystemExit) as exit_:
        command.main(words)
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line


def test_bash_completes_commands_and_options(tmp_path):
    script = subprocess.run(
        [sys.executable, "-m", "mightnt", "completion", "bash"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    (tmp_path / "completion.bash").write_text(script)

    def completed(*words):
        asked = " ".join(f'"{word}"' for word in words)
        shell = (
            f"source {tmp_path}/completion.bash; COMP_WORDS=({asked}); "
            f"COMP_CWORD={len(words) - 1}; _tyro_mightnt; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert completed("mightnt", "pri") == ["price"]
    assert "--quick" in completed("mightnt", "run", "--qu")
    assert "theorem1" in completed("mightnt", "demo", "theo")
    assert completed("mightnt", "demo", "theorem1", "--wor") == ["--world"]
