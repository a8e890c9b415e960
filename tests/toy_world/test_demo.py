"""Every demo prints, writes, reads and fails in the same way."""

import json
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from mightnt.command_line import BAD_USAGE
from mightnt.figure_style import new_figure
from mightnt.tables import Column, Evidence, Table
from theory.errors import InvalidArgumentError, ResultsError
from theory.paper import Statement
from toy_world.demo import Demo, DemoOptions, Presentation


@dataclass(frozen=True, kw_only=True)
class Options(DemoOptions):
    """Draw random numbers."""

    count: int = 2
    """How many."""
    jobs: int = 1
    """How many workers."""


@dataclass(frozen=True, kw_only=True)
class Numbers:
    numbers: tuple[float, ...]


def compute(options):
    if options.count > 5:
        raise InvalidArgumentError(f"--count must be <= 5, got {options.count}")
    return Numbers(numbers=tuple(float(x) for x in options.rng().random(options.count)))


def tables(options, data):
    table = Table(
        name="drawn",
        title=f"{options.count} numbers",
        columns=(Column(header="n"), Column(header="x", evidence=Evidence.MONTE_CARLO)),
        rows=tuple(enumerate(data.numbers)),
        notes=("uniform",),
    )
    return (table,)


def draw(options, data):
    figure = new_figure()
    figure.subplots().plot(data.numbers)
    return figure


PRESENTATION = Presentation(
    name="numbers",
    statements=(Statement.VALUE,),
    options_type=Options,
    data_type=Numbers,
    compute=compute,
    tables=tables,
    findings=lambda options, data: (f"{len(data.numbers)} are random",),
    draw=draw,
)


@pytest.fixture(autouse=True)
def _numbers_are_a_demo(monkeypatch):
    module = SimpleNamespace(PRESENTATION=PRESENTATION)
    monkeypatch.setitem(sys.modules, "toy_world.presentations.numbers", module)


def call(*argv):
    Demo(name="numbers", options_type=Options).main(argv)


def test_a_demo_prints_tables_with_evidence_and_writes_its_files(tmp_path, capsys):
    call("--out", str(tmp_path))
    printed = capsys.readouterr().out
    assert all(words in printed for words in ("Definition 1", "Monte Carlo", "uniform", "• 2 are"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "numbers.drawn.jsonl",
        "numbers.json",
        "numbers.pdf",
        "numbers.png",
    ]


def test_json_on_standard_output_is_the_file(tmp_path, capsys):
    call("--out", str(tmp_path), "--json", "--count", "3")
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((tmp_path / "numbers.json").read_text())
    assert len(document["data"]["numbers"]) == 3
    column = document["tables"][0]["columns"][1]
    assert (column["header"], column["evidence"]) == ("x", "Monte Carlo")


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others():
    first, again, other = (PRESENTATION.run(Options(seed=seed)).data for seed in (1, 1, 2))
    assert first == again != other


def test_a_file_is_read_back_as_it_was(tmp_path, capsys):
    call("--out", str(tmp_path), "--count", "3", "--jobs", "2")
    result = PRESENTATION.read(tmp_path / "numbers.json")
    assert result.options == Options(out=tmp_path, count=3, jobs=2)
    assert result.data == compute(result.options)
    assert result.findings == ("3 are random",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda document: "{", r"cannot read .*numbers\.json"),
        (lambda document: "[]", r"cannot read .*numbers\.json"),
        (lambda document: {**document, "version": "0"}, "holds version 0 of numbers"),
        (lambda document: {**document, "name": "letters"}, "of letters"),
        (lambda document: {**document, "data": {"numbers": ["a"]}}, "cannot read a Numbers"),
        (lambda document: {**document, "options": {"count": -0.5}}, "cannot read a Options"),
        (lambda document: {**document, "options": {"seed": -1}}, "cannot read a Options"),
    ],
)
def test_a_file_that_is_no_result_of_this_version_is_refused(tmp_path, capsys, change, words):
    call("--out", str(tmp_path))
    path = tmp_path / "numbers.json"
    changed = change(json.loads(path.read_text()))
    path.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(ResultsError, match=words):
        PRESENTATION.read(path)


def test_options_that_say_where_to_compute_do_not_change_the_numbers(tmp_path):
    assert Options(jobs=3, out=tmp_path, json=True).gives_the_numbers_of(Options())
    assert not Options(count=3).gives_the_numbers_of(Options())
    assert not Options(seed=3).gives_the_numbers_of(Options())
    assert not Options().gives_the_numbers_of(DemoOptions())


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--seed", "-1"], "--seed must be >= 0, got -1"),
        (["--count", "6"], "--count must be <= 5, got 6"),
        (["--colour", "red"], "--colour"),
    ],
)
def test_bad_options_are_one_line_with_exit_code_2(tmp_path, capsys, argv, words):
    with pytest.raises(SystemExit) as exit_:
        call("--out", str(tmp_path), *argv)
    assert exit_.value.code == BAD_USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not list(tmp_path.iterdir())
