"""`mightnt`: every command by its name, one line for what there is not, completion for all."""

import subprocess
import sys
from dataclasses import is_dataclass

import pytest

from mightnt import __main__ as command
from mightnt.commands import COMMANDS, demos
from tests.llm_experiment.fakes.recorded_run import RECORDED

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

    assert completed("mightnt", "pri") == ["price", "price-by-data"]
    assert "--quick" in completed("mightnt", "run", "--qu")
    assert "theorem1" in completed("mightnt", "demo", "theo")
    assert completed("mightnt", "demo", "theorem1", "--wor") == ["--world"]


# ------------------------------------------------------------------ where nothing can be written

WORK = {
    "demos": ("toy_world.__main__._run_one", ["--out", "{bad}"]),
    "demo waiting_agent": ("toy_world.demo.Demo.run", ["--out", "{bad}"]),
    "price": ("llm_experiment.chat.world.load_models", ["--out", "{bad}"]),
    "tiny-models": ("llm_experiment.base.training.train_reward_model", ["--out", "{bad}"]),
    "figures": ("paper_figures.__main__.make_one", ["--out", "{bad}"]),
    "proofs": ("proofs_check.checks.run_check", ["--json", "{bad}/a.json"]),
    "run": ("llm_experiment.jobs.check_machine", ["--out", "{bad}"]),
    "sweep": ("llm_experiment.jobs.check_machine", ["--out", "{bad}"]),
    "report": ("llm_experiment.page.page.page", ["{run}", "--out", "{bad}/a.html"]),
}


@pytest.mark.parametrize("name", WORK)
def test_a_place_that_cannot_be_written_is_found_before_the_work(
    name, tmp_path, monkeypatch, capsys
):
    """The place is a file; the step that takes long must not be reached."""
    (tmp_path / "file").write_text("")
    step, words = WORK[name]
    monkeypatch.setattr(step, lambda *_, **__: pytest.fail("worked before it looked"))
    with pytest.raises(SystemExit) as exit_:
        ALL[name].load()([w.format(bad=tmp_path / "file" / "out", run=RECORDED) for w in words])
    assert exit_.value.code == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: cannot ")
    assert str(tmp_path / "file" / "out") in line
