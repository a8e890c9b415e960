"""Calls on joblib's workers, their results in order, with a progress bar.

Threads of this process do the work unless the surrounding `joblib.parallel_config` names another
backend: processes, or a cluster (`mightnt.clusters`). Results come back one by one, so that no
worker waits for another; from a backend that cannot do that (joblib's `multiprocessing`) they come
back in batches.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from joblib import Parallel, delayed, effective_n_jobs

from mightnt.progress import track

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")
Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
"""What `joblib.delayed` makes: a function, its arguments and its keyword arguments."""

_CALLS_A_WORKER: Final = 4


def on_workers(
    function: Callable[[TaskT], ResultT],
    tasks: Sequence[TaskT],
    *,
    n_jobs: int | None = None,
    description: str,
) -> Iterator[ResultT]:
    """`function` of every task, in order.

    Args:
        function: for backends with processes it has to be picklable.
        tasks: its arguments.
        n_jobs: joblib's worker count; negative ones count down from all cores, None is as the
            surrounding `joblib.parallel_config` says.
        description: of the progress bar.
    """
    calls = [delayed(function)(task) for task in tasks]
    return results_of(calls, n_jobs=n_jobs, description=description)


def results_of(
    calls: Sequence[Call], *, n_jobs: int | None = None, description: str
) -> Iterator[Any]:
    """The results of `calls`, in order.

    Args:
        calls: for backends with processes they have to be picklable.
        n_jobs: as for `on_workers`.
        description: of the progress bar.
    """
    return track(_results(calls, n_jobs), description, total=len(calls))


def _results(calls: Sequence[Call], n_jobs: int | None) -> Iterator[Any]:
    workers: Parallel | None
    try:
        workers = Parallel(
            n_jobs=n_jobs, prefer="threads", return_as="generator", pre_dispatch="all"
        )
    except ValueError:  # the only way in which joblib says that the backend gives lists alone
        workers = None
    yield from _in_batches(calls, n_jobs) if workers is None else workers(calls)


def _in_batches(calls: Sequence[Call], n_jobs: int | None) -> Iterator[Any]:
    with Parallel(n_jobs=n_jobs, prefer="threads") as workers:
        size = _CALLS_A_WORKER * effective_n_jobs(n_jobs)
        for start in range(0, len(calls), size):
            yield from workers(calls[start : start + size])
