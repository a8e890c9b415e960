"""A result is written whole or not at all, in JSON that every reader accepts."""

import json
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from mightnt.results import (
    atomic_path,
    check_writable,
    from_jsonable,
    json_key,
    read_json,
    to_jsonable,
    write_json,
)
from theory.errors import InvalidArgumentError, ResultsError


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Point:
    x: float
    colour: Colour


def test_values_become_plain_json():
    value = {
        "point": Point(0.5, Colour.RED),
        "fraction": Fraction(1, 3),
        "array": np.array([[1.0, np.inf]]),
        "flag": np.bool_(True),
        "count": np.int64(3),
        "path": Path("a") / "b",
        "nothing": None,
        Colour.RED: (float("nan"), -np.inf),
    }
    assert to_jsonable(value) == {
        "point": {"x": 0.5, "colour": "red"},
        "fraction": "1/3",
        "array": [[1.0, "inf"]],
        "flag": True,
        "count": 3,
        "path": "a/b",
        "nothing": None,
        "red": ["nan", "-inf"],
    }


def test_what_json_cannot_hold_is_refused_by_name():
    with pytest.raises(ResultsError, match="cannot write a complex as JSON"):
        to_jsonable(1j)


def test_json_survives_a_round_trip_through_a_new_folder(tmp_path):
    path = tmp_path / "new" / "result.json"
    write_json(path, {"a": [1, 2.5]})
    assert json.loads(path.read_text()) == {"a": [1, 2.5]}
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]


def test_a_failed_write_leaves_the_old_file_and_no_debris(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")

    def write_half():
        with atomic_path(path) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_clear_error_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")

    def write_to_full_disk():
        with atomic_path(path):
            Path("/dev/full").write_text("x" * 100_000)

    with pytest.raises(ResultsError, match=r"cannot write .*result\.txt: No space left on device"):
        write_to_full_disk()
    assert path.read_text() == "old"


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ResultsError, match="name another place with --out"):
        write_json(tmp_path / "file" / "result.json", {})


@dataclass(frozen=True)
class Drawing:
    points: tuple[Point, ...]
    size: tuple[int, float]
    share: Fraction | None
    limit: float = 1.0
    names: dict[str, list[bool]] = field(default_factory=dict)
    kind: Literal["line", "dot"] = "line"
    anything: Any = None
    place: Path = Path()


def test_values_come_back_from_json():
    drawing = Drawing(
        points=(Point(float("inf"), Colour.RED), Point(-0.5, Colour.RED)),
        size=(3, 2.0),
        share=Fraction(1, 3),
        names={"a": [True, False]},
        kind="dot",
        anything={"b": [1]},
        place=Path("x/y"),
    )
    assert from_jsonable(Drawing, json.loads(json.dumps(to_jsonable(drawing)))) == drawing
    least = from_jsonable(Drawing, {"points": [], "size": [1, 1], "share": None})
    assert least == Drawing(points=(), size=(1, 1.0), share=None)
    assert from_jsonable(float | str, "many") == "many"
    assert from_jsonable(float | str, "inf") == float("inf")


@dataclass(frozen=True)
class Interval:
    start: float = field(metadata=json_key("from"))
    end: float = field(default=1.0, metadata=json_key("to"))


def test_a_field_may_be_called_otherwise_in_json():
    assert to_jsonable(Interval(0.5, 2.0)) == {"from": 0.5, "to": 2.0}
    assert from_jsonable(Interval, {"from": 0.5}) == Interval(0.5)
    with pytest.raises(InvalidArgumentError, match="cannot read a Interval: 'start'"):
        from_jsonable(Interval, {"start": 0.5})


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Point, {"x": 1.0}),
        (Point, {"x": 1.0, "colour": "blue"}),
        (Point, {"x": True, "colour": "red"}),
        (Point, {"x": 1.0, "colour": "red", "y": 0}),
        (Point, [1.0, "red"]),
        (int, 2.5),
        (bool, 1),
        (str, 3),
        (tuple[int, ...], "12"),
        (tuple[int, float], [1]),
        (Literal["line"], "dot"),
        (int | None, "a"),
    ],
)
def test_json_of_another_shape_is_refused(kind, value):
    with pytest.raises(InvalidArgumentError, match="cannot read a"):
        from_jsonable(kind, value)


# ------------------------------------------------------------------ before and after work


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path):
    check_writable(tmp_path / "new" / "a.json", tmp_path / "b.json")
    assert [path.name for path in tmp_path.rglob("*")] == ["new"]


@pytest.mark.parametrize("path", ["file/a.json", "folder", "file/deep/a.json"])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path, path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ResultsError, match=r"cannot write .*name a"):
        check_writable(tmp_path / path)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "3", "[]", '{"a": null}', '{"b": 1}'])
def test_json_of_any_other_shape_is_one_line_that_names_the_file(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ResultsError, match=r"cannot read .*a\.json: .*; mend it") as error:
        read_json(path, lambda content: content["a"].items(), remedy="mend it")
    assert len(str(error.value)) < 1000


def test_json_that_is_not_there_is_nothing(tmp_path):
    assert read_json(tmp_path / "a.json", dict, remedy="mend it") is None
