"""Many small tasks on joblib's workers, in order, with a progress bar.

Threads do the work unless the surrounding `joblib.parallel_config` names another backend.
Tasks go out in batches and results come back as lists, which every backend can do (results one
by one are beyond those built on `multiprocessing.Pool`, Ray's for one).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from joblib import Parallel, delayed, effective_n_jobs

from mightnt.progress import progress_bar

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")

_TASKS_A_WORKER: Final = 4


def on_workers(
    function: Callable[[TaskT], ResultT],
    tasks: Sequence[TaskT],
    *,
    n_jobs: int,
    description: str,
) -> Iterator[ResultT]:
    """`function` of every task, in order.

    Args:
        function: for backends with processes it has to be picklable.
        tasks: its arguments.
        n_jobs: joblib's worker count; negative ones count down from all cores.
        description: of the progress bar.
    """
    with Parallel(n_jobs=n_jobs, prefer="threads") as workers, progress_bar() as progress:
        shown = progress.add_task(description, total=len(tasks))
        size = _TASKS_A_WORKER * effective_n_jobs(n_jobs)
        for start in range(0, len(tasks), size):
            batch = tasks[start : start + size]
            yield from workers(delayed(function)(task) for task in batch)
            progress.advance(shown, len(batch))
