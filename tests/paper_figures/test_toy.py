"""Toy worlds' figures are drawn from what demos stored, and from nothing that is out of date."""

import json

import pytest

from mightnt.figure_style import figure_style
from paper_figures import figure_7
from paper_figures.results import Sources
from paper_figures.toy import ToyResults
from toy_world.demo_proposition2 import DEMO, Proposition2Options
from toy_world.presentations import proposition2
from toy_world.presentations.proposition2 import PRESENTATION


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    DEMO.main(["--out", str(folder)])
    return folder


@pytest.fixture
def notes():
    return []


@pytest.fixture
def stored(folder, tmp_path, notes):
    """A copy of the stored results, and a way to change them."""
    path = tmp_path / "proposition2.json"
    path.write_text((folder / path.name).read_text())
    toy = ToyResults(folder=tmp_path, note=notes.append)

    def change(edit):
        document = json.loads(path.read_text())
        edit(document)
        path.write_text(json.dumps(document))

    return toy, change


def test_a_figure_is_drawn_from_what_is_stored(folder, monkeypatch):
    with figure_style():
        computed = figure_7.build(Sources(found=None))
        monkeypatch.setattr(proposition2, "simple_events", None)  # nothing can be computed now
        drawn = figure_7.build(Sources(found=None, toy=ToyResults(folder=folder)))
    assert drawn.data == computed.data
    assert drawn.caption == computed.caption


def test_what_is_stored_is_found_without_a_note(stored, notes):
    toy, _ = stored
    found = toy.stored(PRESENTATION, Proposition2Options())
    assert found.options.gives_the_numbers_of(Proposition2Options())
    assert notes == []


def test_where_nothing_is_stored_nothing_is_said(tmp_path, notes):
    for folder in (None, tmp_path):
        toy = ToyResults(folder=folder, note=notes.append)
        assert toy.stored(PRESENTATION, Proposition2Options()) is None
    assert notes == []


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda document: document.update(version="older"), "holds version older of proposition2"),
        (lambda document: document["data"].pop("clock"), "cannot read"),
        (lambda document: document["options"].update(seed=1), "made with other options"),
    ],
)
def test_what_is_of_no_use_is_computed_again_and_a_note_says_why(stored, notes, edit, words):
    toy, change = stored
    change(edit)
    small = Proposition2Options(bits=8, steps=100)
    assert toy.stored(PRESENTATION, Proposition2Options()) is None
    (note,) = notes
    assert note.startswith("computing demo proposition2, since ")
    assert words in note
    assert toy.result(PRESENTATION, small).options is small


def test_options_that_do_not_change_the_numbers_do_not_matter(stored):
    toy, change = stored
    change(lambda document: document["options"].update(json=True))
    assert toy.stored(PRESENTATION, Proposition2Options()) is not None
