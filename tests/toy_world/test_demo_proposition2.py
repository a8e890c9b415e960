"""The demo of Proposition 2: its numbers, figure and options."""

import json

import pytest

from mightnt.command_line import BAD_USAGE
from toy_world.demo_proposition2 import DEMO, log_star
from toy_world.programs.events import simplest_later_clock_event
from toy_world.programs.language import Language

LANGUAGE = Language(n_actions=2, n_observations=2)


def test_log_star_counts_logarithms():
    assert [log_star(t) for t in (1, 2, 3, 4, 5, 16, 17, 65536, 65537, 2**65536)] == [
        0, 1, 2, 2, 3, 3, 4, 4, 5, 5,
    ]  # fmt: skip
    assert log_star(2**65536 + 1) == 6


def test_the_demo_writes_its_numbers_and_its_figure(tmp_path, capsys):
    DEMO.main(["--out", str(tmp_path), "--steps", "200", "--bits", "8"])
    document = json.loads((tmp_path / "proposition2.json").read_text())
    clock = dict(document["data"]["clock"])
    assert clock[1000] == simplest_later_clock_event(LANGUAGE, 10**1000).bits
    assert sorted(document["data"]["bits_by_world"]) == ["alarm", "doorbell", "echo", "metronome"]
    assert (tmp_path / "proposition2.png").stat().st_size > 10_000
    assert "universal machine" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"), [(["--bits", "0"], "1..16"), (["--steps", "3"], "10..10^6")]
)
def test_bad_options_are_one_line_with_exit_code_2(capsys, argv, words):
    with pytest.raises(SystemExit) as exit_:
        DEMO.main(argv)
    assert exit_.value.code == BAD_USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
