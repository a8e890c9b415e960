"""Every demo prints, writes and fails in the same way."""

import json
from dataclasses import dataclass

import pytest

from mightnt.command_line import BAD_USAGE
from mightnt.figure_style import new_figure
from theory.errors import InvalidArgumentError, InvalidShapeError
from theory.paper import Statement
from toy_world.demo import (
    Column,
    DemoOptions,
    DemoResult,
    DemoTable,
    Evidence,
    demo_main,
    format_cell,
)


@dataclass(frozen=True, kw_only=True)
class Options(DemoOptions):
    """Draw random numbers."""

    count: int = 2
    """How many."""


def run(options):
    if options.count > 5:
        raise InvalidArgumentError(f"--count must be <= 5, got {options.count}")
    numbers = tuple(float(x) for x in options.rng().random(options.count))
    table = DemoTable(
        title="Numbers",
        columns=(Column(header="n"), Column(header="x", evidence=Evidence.MONTE_CARLO)),
        rows=tuple(enumerate(numbers)),
        note="uniform",
    )
    return DemoResult(
        name="numbers",
        statements=(Statement.VALUE,),
        findings=("they are random",),
        tables=(table,),
        data={"numbers": numbers},
    )


def draw(result):
    figure = new_figure()
    figure.subplots().plot(result.data["numbers"])
    return figure


def call(*argv):
    demo_main(Options, run, draw, prog="python -m toy_world.demo_numbers", argv=argv)


def test_a_demo_prints_tables_with_evidence_and_writes_three_files(tmp_path, capsys):
    call("--out", str(tmp_path))
    printed = capsys.readouterr().out
    assert all(
        words in printed for words in ("Definition 1", "Monte Carlo", "uniform", "• they are")
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "numbers.json",
        "numbers.pdf",
        "numbers.png",
    ]


def test_json_on_standard_output_is_the_file(tmp_path, capsys):
    call("--out", str(tmp_path), "--json", "--count", "3")
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((tmp_path / "numbers.json").read_text())
    assert len(document["data"]["numbers"]) == 3
    assert document["tables"][0]["columns"][1] == {"header": "x", "evidence": "Monte Carlo"}


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(tmp_path, capsys):
    documents = []
    for seed in ("1", "1", "2"):
        call("--out", str(tmp_path), "--json", "--seed", seed)
        documents.append(json.loads(capsys.readouterr().out)["data"])
    assert documents[0] == documents[1] != documents[2]


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


def test_a_row_of_the_wrong_width_is_refused():
    with pytest.raises(InvalidShapeError, match="must have 1 cells, got 2"):
        DemoTable(title="t", columns=(Column(header="a"),), rows=((1, 2),))


@pytest.mark.parametrize(
    ("cell", "shown"), [(None, "-"), (0.123456, "0.1235"), (7, "7"), ("x", "x")]
)
def test_cells_are_printed_to_four_digits(cell, shown):
    assert format_cell(cell) == shown
