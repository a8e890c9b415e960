"""The command makes what can be made, says what is missing, and writes the same bytes twice."""

import re
import shutil
from pathlib import Path

import pytest

import paper_figures
from mightnt.command_line import BAD_USAGE
from paper_figures import __main__ as command
from paper_figures.__main__ import TITLES, load_build, main

CHEAP = ("figure1", "figure2", "figure3", "figure4", "figure9", "figure10", "figure11", "table3")
TOY = ("figure5", "figure6", "figure7", "figure8", "table2")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def run(*argv) -> None:
    main([str(argument) for argument in argv])


def test_every_module_of_a_figure_or_table_is_listed_and_can_be_loaded():
    folder = Path(paper_figures.__file__).parent
    modules = {path.stem.replace("_", "") for path in folder.glob("*_*.py")} - {"init", "main"}
    assert modules == set(TITLES)
    assert all(callable(load_build(name)) for name in TITLES)


def test_equal_data_give_equal_bytes(run_folder, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    run("--runs", run_folder, "--out", first, "--only", *CHEAP)
    run("--runs", run_folder, "--out", second, "--only", *CHEAP)
    made = files(first)
    assert made == files(second)
    for name in CHEAP:
        suffixes = {"md"} if name.startswith("table") else {"png", "pdf"}
        suffixes |= {"txt"} if name == "figure1" else {"txt", "csv"}
        assert {file.split(".")[1] for file in made if file.startswith(f"{name}.")} == suffixes
    for name, content in made.items():
        assert not re.search(rb"\b20[2-9]\d-\d\d-\d\d|CreationDate|Software", content), name


def test_figures_carry_the_label_of_their_run(run_folder, tmp_path):
    run("--runs", run_folder, "--out", tmp_path, "--only", "figure3")
    assert "agents set by hand" in (tmp_path / "figure3.txt").read_text()


def test_missing_data_is_a_line_with_the_command_that_makes_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run("--only", "figure1", "figure3", "--out", tmp_path / "out")
    assert set(files(tmp_path / "out")) == {"figure1.png", "figure1.pdf", "figure1.txt"}
    lines = capsys.readouterr().err.splitlines()
    (missing,) = [line for line in lines if "figure3" in line]
    assert "missing data" in missing
    assert "python -m llm_experiment.run" in missing


def test_where_nothing_can_be_made_the_command_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        run("--only", "figure3", "--out", tmp_path / "out")
    assert exit_.value.code == BAD_USAGE
    assert "error: nothing could be made" in capsys.readouterr().err


def test_the_runs_at_hand_are_found(run_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run_folder, tmp_path / "results" / "llm-quick")
    (run,) = command.default_runs()
    assert run.folder == Path("results/llm-quick")


def test_an_unknown_name_is_refused(capsys):
    with pytest.raises(SystemExit) as exit_:
        run("--only", "figure99")
    assert exit_.value.code == BAD_USAGE
    assert "--only must be among figure1" in capsys.readouterr().err


def test_help_lists_every_figure(capsys):
    with pytest.raises(SystemExit):
        run("--help")
    text = capsys.readouterr().out
    assert all(name in text and title in text for name, title in TITLES.items())


@pytest.mark.slow
def test_the_toy_figures_need_no_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("--only", *TOY, "--out", tmp_path / "out")
    stems = {name.split(".")[0] for name in files(tmp_path / "out")}
    assert stems == set(TOY)
