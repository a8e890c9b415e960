"""Tables: whole numbers at every width, one text for a cell, rows by name."""

import io
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mightnt.results import to_jsonable
from mightnt.statistics import MeanOverRuns
from mightnt.tables import Column, Evidence, Table, print_table, to_markdown
from theory.errors import InvalidShapeError

SILENCE = MeanOverRuns(values=(0.1, 0.3), mean=0.2, low=0.0, high=0.45)
TABLE = Table(
    title="What agents do [nats]",
    columns=(
        Column(header="agent"),
        Column(header="budget\nnats", format="g", key="budget_nats", infinity="none"),
        Column(header="silent", format=".0%"),
        Column(header="P(a2 ever)", evidence=Evidence.FLOAT),
        Column(header="event"),
    ),
    rows=(
        ("an agent with a long name", 3.0, SILENCE, 1.16745e-05, "latch(ends(a1 o1))"),
        ("no constraint", math.inf, None, math.nan, "x | y"),
    ),
    notes=("How to read it.",),
)


def printed(table, *, width=None):
    file = io.StringIO()
    terminal = width is not None
    print_table(table, Console(file=file, width=width, force_terminal=terminal, color_system=None))
    return file.getvalue()


@given(width=st.integers(1, 140))
def test_no_number_is_cut_however_narrow_the_terminal_is(width):
    shown = re.sub(r"\s+", "", printed(TABLE, width=width))
    for number in ("1.167e-05", "20%(0%to45%)"):
        assert number in shown
    assert "…" not in shown


@given(width=st.integers(30, 140))
def test_lines_fit_the_terminal(width):
    assert all(len(line) <= width for line in printed(TABLE, width=width).splitlines())


def test_columns_that_do_not_fit_come_in_blocks_with_the_leading_label():
    shown = printed(TABLE, width=45)
    assert len(re.findall(r"^─+$", shown, flags=re.M)) == 2
    assert len(re.findall(r"^agent +", shown, flags=re.M)) >= 2


def test_what_is_no_terminal_gets_lines_as_long_as_they_need_to_be():
    line = next(line for line in printed(TABLE).splitlines() if "latch" in line)
    assert line.split() == [
        "an", "agent", "with", "a", "long", "name", "3", "20%", "(0%", "to", "45%)", "1.167e-05",
        "latch(ends(a1", "o1))",
    ]  # fmt: skip


def test_titles_and_cells_are_no_markup():
    assert "What agents do [nats]" in printed(TABLE)
    assert "[bold]x" in printed(
        Table(title="", columns=(Column(header="a"),), rows=(("[bold]x",),))
    )


@pytest.mark.parametrize(
    ("column", "cell", "text"),
    [
        (Column(header="x", evidence=Evidence.EXACT), 0.000012345, "1.234e-05"),
        (Column(header="x", evidence=Evidence.EXACT), 12345678, "12345678"),
        (Column(header="x"), np.int64(7), "7"),
        (Column(header="x"), True, "True"),
        (Column(header="x", format=".1f"), 3, "3.0"),
        (Column(header="x", format=".1f"), math.nan, "-"),
        (Column(header="x", format="g"), -math.inf, "-inf"),
        (Column(header="x", format="g", infinity="none"), math.inf, "none"),
        (Column(header="x", format=".0%"), SILENCE, "20% (0% to 45%)"),
        (
            Column(header="x", format=".2f"),
            MeanOverRuns(values=(1.0,), mean=1.0, low=None, high=None),
            "1.00",
        ),
        (Column(header="x"), None, "-"),
    ],
)
def test_a_cell_has_one_text(column, cell, text):
    assert column.text(cell) == text


def test_markdown_keeps_its_columns():
    lines = to_markdown(TABLE).splitlines()
    assert lines[0] == "| agent | budget nats | silent | P(a2 ever) | event |"
    assert lines[1] == "| :-- | --: | --: | --: | :-- |"
    assert lines[3] == r"| no constraint | none | - | - | x \| y |"


def test_rows_have_names():
    names = ("agent", "budget_nats", "silent", "P(a2 ever)", "event")
    assert tuple(TABLE.records[0]) == names
    again = Table.of_records(TABLE.records, title=TABLE.title, columns=TABLE.columns)
    assert again.rows[0] == TABLE.rows[0]
    assert Table.of_records([{}], title="", columns=TABLE.columns).rows == ((None,) * 5,)


def test_json_has_every_number_in_full():
    rows = to_jsonable(TABLE)["rows"]
    assert rows[0][3] == 1.16745e-05
    assert rows[0][2] == {"values": [0.1, 0.3], "mean": 0.2, "low": 0.0, "high": 0.45}
    assert rows[1][1] == "inf"


def test_rows_have_as_many_cells_as_there_are_columns():
    with pytest.raises(InvalidShapeError, match="must have 1 cells, got 2"):
        Table(title="t", columns=(Column(header="a"),), rows=((1, 2),))
    with pytest.raises(InvalidShapeError, match="got a twice"):
        Table(title="t", columns=(Column(header="a"), Column(header="a")), rows=())
