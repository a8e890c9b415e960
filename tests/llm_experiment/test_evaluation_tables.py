"""The command: the tables of a finished run, from what is in its folder."""

import json
import shutil

import pytest

from llm_experiment.evaluation_tables import main, write_tables
from mightnt.command_line import BAD_USAGE
from tests.llm_experiment.fakes.recorded_run import RECORDED, TABLES, copied, tables_text
from tests.records import assert_as_recorded
from theory.errors import ResultsError


def test_a_finished_run_is_summed_up_in_its_folder(tmp_path, capsys):
    folder = copied(tmp_path)
    (folder / "tables.json").unlink()
    main(["--run", str(folder)])
    captured = capsys.readouterr()
    assert "What each agent does with its budget" in captured.out
    assert "base policy (budget 0)" in captured.out
    assert str(folder / "tables.md") in captured.err.replace("\n", "")
    stored = json.loads((folder / "tables.json").read_text())
    assert [table["name"] for table in stored["tables"]][:3] == ["headline", "silence", "prices"]
    assert (folder / "tables.md").read_text().startswith("# tiny, default suite\n")


def test_a_run_of_before_has_the_tables_that_it_had(tmp_path):
    assert_as_recorded(tables_text(copied(tmp_path)), TABLES.read_text(encoding="utf-8"))


def test_a_run_that_is_not_finished_is_refused(tmp_path):
    folder = copied(tmp_path)
    shutil.rmtree(folder / "agents" / "exact-budget3-seed0")
    with pytest.raises(ResultsError, match=r"unfinished run: exact-budget3-seed0 is not evaluated"):
        write_tables(folder)
    shutil.rmtree(folder / "base")
    with pytest.raises(ResultsError, match=r"exact-budget3-seed0, base are not evaluated yet"):
        write_tables(folder)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--run", "{empty}"], "name the folder of a run"),
        (["--run", str(RECORDED / "agents")], "name the folder of a run"),
        (["--colour"], "colour"),
    ],
)
def test_bad_input_is_one_line(argv, words, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([word.format(empty=tmp_path) for word in argv])
    assert exit_.value.code == BAD_USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
