"""Progress goes to stderr: a bar on a terminal, a line now and then where none watches."""

import time

import pytest
from rich.progress import Progress

from mightnt import progress
from mightnt.progress import SECONDS_OF_SPEED, progress_bar, progress_line, track


def test_tracking_yields_the_items_and_short_work_writes_nothing_without_a_terminal(capsys):
    assert list(track(iter([3, 1, 2]), "counting", total=3)) == [3, 1, 2]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ""


@pytest.mark.parametrize("total", [3, None])
def test_long_work_says_how_far_it_is_without_a_terminal(capsys, monkeypatch, total):
    monkeypatch.setattr(progress, "SECONDS_A_LINE", 0.01)
    for _ in track((n for n in range(3)), "counting", total=total):
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    for done in range(3):
        amount = f"{done} of 3" if total else f"{done}"
        assert any(line.startswith(f"counting: {amount} after 0:00:0") for line in lines)


def test_nothing_is_written_about_what_is_over(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_A_LINE", 0.01)
    with progress_bar() as bar:
        bar.advance(bar.add_task("done", total=1))
        bar.add_task("[not] markup", total=1)
        time.sleep(0.2)
    lines = set(capsys.readouterr().err.splitlines())
    assert {line.split(":")[0] for line in lines} == {"[not] markup"}


def test_work_that_fails_leaves_no_writer_behind(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_A_LINE", 0.01)
    with pytest.raises(ZeroDivisionError):
        sum(1 / number for number in track([0], "dividing"))
    capsys.readouterr()
    time.sleep(0.05)
    assert capsys.readouterr().err == ""


def test_steps_that_end_together_are_no_speed():
    """Two workers, four steps of 250 seconds: two are over at once, and two take as long again."""
    now = 0.0
    bar = Progress(get_time=lambda: now, disable=True, speed_estimate_period=SECONDS_OF_SPEED)
    task = bar.add_task("lots", total=4)
    for seconds, completed in ((250.0, 1), (252.0, 2), (300.0, 2)):
        now = seconds
        bar.update(task, completed=completed)
    (shown,) = bar.tasks
    assert progress_line(shown) == "lots: 2 of 4 after 0:05:00, about 0:05:00 left"


def test_a_line_has_the_time_gone_and_the_time_left():
    now = 0.0
    bar = Progress(get_time=lambda: now, disable=True, speed_estimate_period=SECONDS_OF_SPEED)
    task = bar.add_task("pricing", total=4000)
    for number in range(1, 4):
        now = 45.0 * number
        bar.update(task, completed=1000 * number)
    (shown,) = bar.tasks
    assert progress_line(shown) == "pricing: 3,000 of 4,000 after 0:02:15, about 0:00:45 left"
