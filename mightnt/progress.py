"""Progress with the time left, on stderr: a bar on a terminal, a line now and then elsewhere."""

import threading
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Final, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

SECONDS_A_LINE: Final = 30.0
"""Where no terminal shows a bar: how long work goes on before a line says how far it is."""
SECONDS_OF_SPEED: Final = 3600.0
"""The time left is told from the pace of the last hour: some tasks have steps of minutes."""

ItemT = TypeVar("ItemT")


def progress_bar() -> Progress:
    """A bar for work of over five seconds; use it as a context manager.

    Where stderr is no terminal, such as in a file, a line is written for every
    `SECONDS_A_LINE` that pass.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    if console.is_terminal:
        return Progress(
            *columns, console=console, transient=True, speed_estimate_period=SECONDS_OF_SPEED
        )
    # With a refresh of its own a bar that is not shown counts no steps of `track`.
    return _Lines(
        console=console,
        disable=True,
        auto_refresh=False,
        speed_estimate_period=SECONDS_OF_SPEED,
    )


def track(items: Iterable[ItemT], description: str, *, total: int | None = None) -> Iterator[ItemT]:
    """Iterate over `items` under a progress bar."""
    with progress_bar() as progress:
        yield from progress.track(items, total=total, description=description)


class _Lines(Progress):
    """Lines about the tasks that are under way, as long as this is entered."""

    _over: threading.Event
    _writer: threading.Thread

    def start(self) -> None:
        self._over = threading.Event()
        self._writer = threading.Thread(target=self._write, daemon=True)
        self._writer.start()

    def stop(self) -> None:
        self._over.set()
        self._writer.join()

    def _write(self) -> None:
        while not self._over.wait(SECONDS_A_LINE):
            for task in self.tasks:
                if not task.finished:
                    self.console.print(progress_line(task), markup=False, highlight=False)


def progress_line(task: Task) -> str:
    """How far a task is, such as "pricing: 3 of 40 after 0:01:30, about 0:12:00 left"."""
    total = "" if task.total is None else f" of {task.total:,.0f}"
    line = f"{task.description}: {task.completed:,.0f}{total} after {_clock(task.elapsed or 0.0)}"
    left = task.time_remaining
    if left is None:
        return line
    # Steps that end together, of workers side by side, look like speed.
    if task.total and task.completed:
        left = max(left, (task.elapsed or 0.0) * (task.total / task.completed - 1))
    return f"{line}, about {_clock(left)} left"


def _clock(seconds: float) -> timedelta:
    return timedelta(seconds=round(seconds))
