"""Progress bars with the time left, on stderr, silent where nobody watches."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

ItemT = TypeVar("ItemT")


def progress_bar() -> Progress:
    """A bar for work of over five seconds; use it as a context manager."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def track(items: Iterable[ItemT], description: str, *, total: int | None = None) -> Iterator[ItemT]:
    """Iterate over `items` under a progress bar."""
    with progress_bar() as progress:
        yield from progress.track(items, total=total, description=description)
