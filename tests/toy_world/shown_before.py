"""What the demos show, in words and numbers, and what they showed when it was last recorded.

`python -m tests.toy_world.shown_before` records it again, after a change that is meant: the
difference that git shows is what readers will see. No number is right because it stands here (each
study has a test of its own for that); the record says that a change of the code that moves a
number, a word or a line of a drawing is not overlooked.
"""

import json
import tempfile
from dataclasses import fields
from pathlib import Path

import numpy as np

from mightnt.figure_style import figure_style
from tests.drawings import described
from tests.toy_world.conftest import SMALL, printed_by
from toy_world.__main__ import demo_names, load_demo

RECORDED = Path(__file__).with_name("data")


def account_of(name, folder, printed):
    """All that a demo shows: its texts, its drawing, and sums over the numbers of its file."""
    result = load_demo(name).presentation().read(folder / f"{name}.json")
    with figure_style():
        drawing = described(result.figure())
    data = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["data"]
    defaults = " ".join(f"{field}={value}" for field, value in _defaults(name))
    lines = [
        f"{name} {SMALL[name]}",
        f"without options: {defaults}",
        "",
        *printed.splitlines(),
        *drawing,
        "",
    ]
    for place, numbers in sorted(_leaves(data, "data")):
        values = np.nan_to_num(np.array(numbers, dtype=float), posinf=1e9, neginf=-1e9)
        sums = f"{values.sum():.9g} {(values * np.arange(1, len(values) + 1)).sum():.9g}"
        lines.append(f"{place}: {len(numbers)} numbers {sums}")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _defaults(name):
    """The options of a demo that is given none; where it writes depends on the folder."""
    options = load_demo(name).options_type()
    return [(f.name, getattr(options, f.name)) for f in fields(options) if f.name != "out"]


def _leaves(value, place):
    """Places in a JSON value, those of a list together, with their numbers in order."""
    found = {}
    match value:
        case dict():
            below = [leaf for key in value for leaf in _leaves(value[key], f"{place}.{key}")]
        case list():
            below = [leaf for each in value for leaf in _leaves(each, place)]
        case bool() | int() | float():
            below = [(place, [value])]
        case _:
            below = []
    for key, numbers in below:
        found.setdefault(key, []).extend(numbers)
    return list(found.items())


def record():
    """Write what every demo shows now."""
    RECORDED.mkdir(exist_ok=True)
    for name in demo_names():
        with tempfile.TemporaryDirectory() as folder:
            text = account_of(name, Path(folder), printed_by(name, Path(folder)))
        (RECORDED / f"{name}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    record()
