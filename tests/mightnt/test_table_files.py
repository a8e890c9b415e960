"""Tables for programs: every reader finds the numbers, typed, and none of a person's formatting."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from rich.console import Console

from mightnt.statistics import MeanOverRuns
from mightnt.table_files import field_name, flat_rows, publish, write_tables
from mightnt.tables import Column, Table, Written, as_fraction
from theory.errors import InvalidShapeError

SILENCE = MeanOverRuns(values=(0.1, 0.3), mean=0.2, low=0.0, high=0.45)
ALONE = MeanOverRuns(values=(0.25,), mean=0.25, low=None, high=None)
SHARE = Written("1 of 3", {"hits": 1, "is_all": False})
HEADERS = ("agent", "budget\n(nats)", "silent, %", "KL(pi||xi) (nats)", "n", "shape", "trials")
QUARTER, HALF = Fraction(1, 4), Fraction(1, 2)
TABLE = Table(
    name="agents",
    title="What agents do",
    columns=tuple(Column(header=name) for name in (*HEADERS, "alpha", "none")),
    rows=(
        ("é", math.inf, SILENCE, 1.17e-05, np.int64(7), (1, 2), SHARE, as_fraction(QUARTER), None),
        ("b", 3, ALONE, math.nan, None, (3, 4), None, None, None),
        ("c", np.float64(0.5), None, 2, 8, None, SHARE, HALF, None),
    ),
)
EXPECTED = (
    {
        "agent": "é", "budget_nats": math.inf, "silent": 0.2, "silent_low": 0.0,
        "silent_high": 0.45, "kl_pi_xi_nats": 1.17e-05, "n": 7, "shape": [1, 2],
        "trials_hits": 1, "trials_is_all": False, "alpha": 0.25, "none": None,
    },
    {
        "agent": "b", "budget_nats": 3.0, "silent": 0.25, "silent_low": None, "silent_high": None,
        "kl_pi_xi_nats": None, "n": None, "shape": [3, 4], "trials_hits": None,
        "trials_is_all": None, "alpha": None, "none": None,
    },
    {
        "agent": "c", "budget_nats": 0.5, "silent": None, "silent_low": None, "silent_high": None,
        "kl_pi_xi_nats": 2.0, "n": 8, "shape": None, "trials_hits": 1, "trials_is_all": False,
        "alpha": 0.5, "none": None,
    },
)  # fmt: skip


@pytest.fixture
def path(tmp_path):
    (path,) = write_tables(tmp_path / "new" / "run.json", [TABLE])
    return path


def test_what_is_published_is_written_and_shown(tmp_path, capsys):
    file = tmp_path / "study.json"
    other = Table(name="few", title="Few", columns=TABLE.columns[:1], rows=(("é",),))

    def draw(stem):
        assert not capsys.readouterr().out, "nothing is shown that is not all written"
        stem.with_suffix(".png").write_bytes(b"a picture")
        return [stem.with_suffix(".png")]

    publish(file, {"budget": math.inf}, [TABLE, other], Console(), draw=draw)
    assert json.loads(file.read_text()) == {"budget": "inf"}
    grids = file.with_suffix(".md").read_text(encoding="utf-8").split("\n\n")
    assert [len(grid.splitlines()) for grid in grids] == [5, 3]
    printed = capsys.readouterr().out.replace("\n", " ")
    assert printed.index("What agents do") < printed.index("Few") < printed.index("wrote")
    names = {"study.json", "study.md", "study.agents.jsonl", "study.few.jsonl", "study.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert all(f"wrote {tmp_path / name}" in printed for name in names)


def test_a_row_is_an_object_a_line_beside_the_commands_file(path, tmp_path):
    assert path == tmp_path / "new" / "run.agents.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows == list(EXPECTED)
    assert [list(row) for row in rows] == [list(EXPECTED[0])] * 3  # all fields, in one order


def test_numbers_of_one_column_are_of_one_type():
    kinds = [{name: type(value) for name, value in row.items()} for row in flat_rows(TABLE)]
    assert kinds[1]["budget_nats"] is kinds[2]["kl_pi_xi_nats"] is float
    assert kinds[0]["n"] is kinds[0]["trials_hits"] is int
    assert kinds[0]["trials_is_all"] is bool


def test_pandas_reads_it_without_options_and_keeps_what_is_infinite(path):
    pandas = pytest.importorskip("pandas", reason="pandas comes with the extra trl")
    frame = pandas.read_json(path, lines=True)
    assert list(frame.columns) == list(EXPECTED[0])
    assert frame["budget_nats"].max() == math.inf
    assert frame["silent"].tolist()[:2] == [0.2, 0.25]
    assert frame["kl_pi_xi_nats"].isna().tolist() == [False, True, False]


def test_arrow_reads_it_without_options_and_writes_parquet_of_it(path, tmp_path):
    arrow = pytest.importorskip("pyarrow.json", reason="pyarrow comes with the extra trl")
    from pyarrow import parquet

    table = arrow.read_json(path)
    types = {field.name: str(field.type) for field in table.schema}
    assert types["budget_nats"] == types["silent_low"] == types["alpha"] == "double"
    assert (types["n"], types["trials_is_all"], types["shape"]) == (
        "int64",
        "bool",
        "list<item: int64>",
    )
    parquet.write_table(table, tmp_path / "run.parquet")
    assert parquet.read_table(tmp_path / "run.parquet").to_pylist() == list(EXPECTED)


def test_a_table_without_rows_is_an_empty_file(tmp_path):
    empty = Table(name="none", title="None", columns=(Column(header="a"),), rows=())
    (path,) = write_tables(tmp_path / "run.json", [empty])
    assert path.read_text() == ""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("KL(pi||xi) (nats)", "kl_pi_xi_nats"),
        ("P(a2), novel", "p_a2_novel"),
        ("budget_nats", "budget_nats"),
        ("", "value"),
    ],
)
def test_a_field_is_called_as_its_column(name, expected):
    assert field_name(name) == expected


def table_of(*cells, headers=("a",), name="t"):
    columns = tuple(Column(header=header) for header in headers)
    return Table(name=name, title="T", columns=columns, rows=tuple(cells))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (table_of(("1.5 (1 to 2)",), (1.5,)), "field a of .* of one type, got float and str"),
        (table_of((True,), (1,)), "got bool and int"),
        (table_of((1, 2), headers=("a b", "A, b")), "two columns of table 'T' are field a_b"),
        (table_of((1j,)), "a text or a number, got 1j"),
        (table_of((1,), name=""), "must have names that differ, got ''"),
    ],
)
def test_what_is_no_typed_table_is_refused_and_nothing_is_written(table, said, tmp_path):
    with pytest.raises(InvalidShapeError, match=said):
        write_tables(tmp_path / "run.json", [TABLE, table])
    with pytest.raises(InvalidShapeError, match="got 'agents' for"):
        write_tables(tmp_path / "run.json", [TABLE, TABLE])
    assert not list(tmp_path.iterdir())
