import json
from dataclasses import dataclass

import pytest

from mightnt.command_line import BAD_USAGE
from mightnt.figure_style import new_figure
from mightnt.tables import Column, Evidence, Table
from theory.errors import InvalidArgumentError, SolverError
from theory.paper import Statement
from toy_world import __main__ as command
from toy_world.demo import Demo, DemoOptions, Presentation
from toy_world.demo_theorem1 import Imitator, Theorem1Options
from toy_world.worlds.environments import WorldName


@dataclass(frozen=True, kw_only=True)
class Options(DemoOptions):
    """Options of a small demo."""

    size: int = 2


@dataclass(frozen=True, kw_only=True)
class Draws:
    x: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class SmallDemo(Demo):
    works: bool = True

    def presentation(self):
        def compute(options):
            if not self.works:
                raise SolverError("no root in [0, 1]")
            return Draws(x=tuple(options.rng().random(options.size).tolist()))

        def tables(options, data):
            column = Column(header="x", evidence=Evidence.MONTE_CARLO)
            rows = tuple((x,) for x in data.x)
            return (Table(name="draws", title="Draws", columns=(column,), rows=rows),)

        def draw(options, data):
            figure = new_figure()
            figure.subplots()
            return figure

        return Presentation(
            name=self.name,
            statements=(Statement.VALUE,),
            options_type=Options,
            data_type=Draws,
            compute=compute,
            tables=tables,
            findings=lambda options, data: (f"{self.name} drew {data.x[0]:.6f}",),
            draw=draw,
        )


def small_demo(name, *, works=True):
    return SmallDemo(name=name, options_type=Options, works=works)


@pytest.fixture
def three_demos(monkeypatch):
    demos = {
        "first": small_demo("first"),
        "broken": small_demo("broken", works=False),
        "last": small_demo("last"),
    }
    monkeypatch.setattr(command, "demo_names", lambda: tuple(demos))
    monkeypatch.setattr(command, "load_demo", demos.__getitem__)


def test_the_demos_are_found():
    assert "solomonoff" in command.demo_names()


def test_demos_run_one_after_the_other_and_their_findings_are_summed_up(
    three_demos, tmp_path, capsys
):
    command.main(["--out", str(tmp_path), "--seed", "4", "--only", "last", "first"])
    printed = capsys.readouterr()
    assert "1/2 last" in printed.err
    assert "2/2 first" in printed.err
    drawn = f"{Options(seed=4).rng().random():.6f}"
    assert f"• first drew {drawn}" in printed.out
    assert "Draws" not in printed.out
    found = json.loads((tmp_path / "findings.json").read_text())
    assert [entry["name"] for entry in found] == ["last", "first"]
    assert found[1]["findings"] == [f"first drew {drawn}"]
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {
        f"{name}.{kind}"
        for name in ("first", "last")
        for kind in ("json", "png", "pdf", "draws.jsonl")
    } | {"findings.json"}


def test_tables_are_printed_on_request(three_demos, tmp_path, capsys):
    command.main(["--out", str(tmp_path), "--only", "first", "--tables"])
    assert "Draws" in capsys.readouterr().out


def test_findings_are_printed_as_json_on_request(three_demos, tmp_path, capsys):
    command.main(["--out", str(tmp_path), "--only", "first", "--json"])
    assert json.loads(capsys.readouterr().out) == json.loads(
        (tmp_path / "findings.json").read_text()
    )


def test_a_demo_that_fails_does_not_stop_the_others(three_demos, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        command.main(["--out", str(tmp_path)])
    assert exit_.value.code == BAD_USAGE
    printed = capsys.readouterr()
    assert "error: broken: no root in [0, 1]" in printed.err
    assert "• first drew" in printed.out
    assert "• last drew" in printed.out


def test_unknown_demos_are_refused(three_demos, capsys):
    with pytest.raises(SystemExit) as exit_:
        command.main(["--only", "nothing"])
    assert exit_.value.code == BAD_USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert "--only must be among first, broken, last, got nothing" in line


def test_the_help_lists_the_demos(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in command.demo_names())


@pytest.mark.parametrize("given", [{"bits": 20}, {"world": WorldName.ECHO}, {"jobs": 1}])
def test_a_joint_imitator_refuses_options_that_it_would_ignore(given):
    Theorem1Options(imitator=Imitator.JOINT, seed=3)
    with pytest.raises(InvalidArgumentError, match=f"takes no --{next(iter(given))}; leave"):
        Theorem1Options(imitator=Imitator.JOINT, **given)
