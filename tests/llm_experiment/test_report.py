"""The command: one file from one folder, the same every time."""

import json
import re

import pytest

from llm_experiment.measures.tables import make_tables
from llm_experiment.records.folder import REPORT_FILE, record_hashes
from llm_experiment.records.reading import read_run
from llm_experiment.report import main, write_report
from llm_experiment.run import main as run_main
from mightnt.command_line import BAD_USAGE
from tests.llm_experiment.fakes.many_agents import write_many
from tests.llm_experiment.fakes.report_run import page_data, settings, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with the shipped base model's settings: its tokens are the first of that vocabulary."""
    return write_run(tmp_path_factory.mktemp("report") / "run", settings())


def test_a_report_lies_in_its_run(folder, capsys):
    main([str(folder)])
    path = folder / REPORT_FILE
    assert str(path) in capsys.readouterr().err.replace("\n", "")
    data = page_data(path.read_text(encoding="utf-8"))
    # Padding is a special token, which has no text.
    assert set(data["token_texts"]) <= {"", "<unk>", "\n", ":", "!", ",", "."}
    assert data["speakers"] == {"agent": "Teacher", "partner": "Student"}


def test_equal_runs_give_equal_bytes(folder, tmp_path):
    first = write_report(folder, out=tmp_path / "a.html").read_bytes()
    assert write_report(folder, out=tmp_path / "b.html").read_bytes() == first


def test_the_number_of_transcripts_is_an_option(folder, tmp_path):
    main([str(folder), "--episodes", "1", "--out", str(tmp_path / "few.html")])
    data = page_data((tmp_path / "few.html").read_text(encoding="utf-8"))
    for subject in data["subjects"]:
        for evaluation in subject["evaluations"]:
            assert len(evaluation["episodes"]["silent"]) == 1


def test_a_run_ends_with_its_report_and_the_last_line_names_it(folder, monkeypatch, capsys):
    """The training replaced by the run that is there."""
    run = read_run(folder)
    monkeypatch.setattr(
        "llm_experiment.jobs.run_suite", lambda *_, **__: make_tables(run.rows, run.base)
    )
    path = folder / REPORT_FILE
    path.unlink(missing_ok=True)
    run_main(["--out", str(folder)])
    *_, last = capsys.readouterr().err.splitlines()
    assert str(path) in last
    assert page_data(path.read_text(encoding="utf-8"))["label"] == "a trial"


def test_what_is_read_before_anything_is_drawn_does_not_grow_with_the_transcripts(tmp_path):
    """The browser parses one block of JSON first; what a transcript needs lies behind the script.

    Twenty agents have four times the transcripts: their JSON grows by an episode's few numbers.
    """
    n_agents, few, many = 20, 3, 12
    run = write_many(tmp_path / "run", n_agents)
    sizes = {}
    for n_episodes in (few, many):
        path = write_report(run, out=tmp_path / f"{n_episodes}.html", n_episodes=n_episodes)
        text = path.read_text(encoding="utf-8")
        data = page_data(text)
        evaluations = [e for subject in data["subjects"] for e in subject["evaluations"]]
        blocks = re.findall('<script type="text/plain" class="packed">([^<]*)</script>', text)
        # Every packed value is a block's number, and each block has one that needs it.
        named = [e[name] for e in evaluations for name in ("packed", "budget_quartiles")]
        assert sorted(n for n in named if n is not None) == list(range(len(blocks)))
        assert text.index('id="run-data"') < text.index("JSON.parse") < text.index(blocks[0])
        sizes[n_episodes] = (len(json.dumps(data)), sum(map(len, blocks)))
    in_json, apart = (
        (at_many - at_few) / (n_agents + 1) / (many - few)
        for at_few, at_many in zip(sizes[few], sizes[many], strict=True)
    )
    assert in_json < 100, "characters a transcript"
    assert apart > 5 * in_json, "of 72 tokens each"
    assert sizes[many][0] < 6000 * n_agents


def test_a_report_has_no_hash_in_its_run(folder):
    write_report(folder)
    record_hashes(folder)
    hashed = json.loads((folder / "manifest.json").read_text())["sha256"]
    assert "base/result.json" in hashed
    assert REPORT_FILE not in hashed


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["{empty}"], "name the folder of a run"),
        (["{empty}/nowhere"], "name the folder of a run"),
        (["{run}", "--episodes", "0"], "episodes must be >= 1"),
        (["{run}", "--out", "{empty}/file/report.html"], "cannot write"),
        (["{run}", "--colour"], "colour"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(argv, words, folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as exit_:
        main([word.format(empty=tmp_path, run=folder) for word in argv])
    assert exit_.value.code == BAD_USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
