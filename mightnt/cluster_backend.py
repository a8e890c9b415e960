"""joblib's calls as tasks of a Ray or Dask cluster.

A call is a task of the cluster's own workers, which keep what they have loaded for the next one.
Calls are begun at once, so that no worker waits for its next one, and results come back one by one.
(Ray's own backend for joblib starts new processes for every call of `joblib.Parallel`; Dask's sends
calls a few at a time, and none at all to a cluster of one worker.)
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from joblib.parallel import ThreadingBackend

from mightnt.clusters import REMEDY, plain_dask_errors, plain_ray_errors

RETRIES: Final = 3
"""How often a task is begun again after its process or machine died."""
Function = Callable[[], Any]


class ClusterTasks(ThreadingBackend):  # type: ignore[misc]  # joblib has no types
    """A backend of joblib in which a cluster makes the calls, and threads wait for their results.

    Args:
        begin: has the cluster call a function; what it returns waits for the result.
        n_workers: how many calls the cluster makes side by side, as things are.
    """

    supports_sharedmem = False
    uses_threads = False

    def __init__(
        self, begin: Callable[[Function], Function], n_workers: Callable[[], int], **options: Any
    ) -> None:
        super().__init__(**options)
        self._begin = begin
        self._n_workers = n_workers

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """As many as the cluster has workers, whatever is asked for.

        Two at least, of which one waits: what has one worker joblib calls in its own process.
        """
        del n_jobs
        return max(2, self._n_workers())

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
        """Be ready for a call of `joblib.Parallel`."""
        self.parallel = parallel
        self._n_jobs = self.effective_n_jobs(n_jobs)
        return self._n_jobs

    def submit(self, func: Function, callback: Callable[..., Any] | None = None) -> Any:
        """Have the cluster call `func`."""
        return super().submit(self._begin(func), callback)


def on_ray(ray: Any) -> ClusterTasks:
    """Tasks of Ray's, one processor each.

    Args:
        ray: connected (`mightnt.clusters.ray_cluster`).
    """
    remote = ray.remote(num_cpus=1, max_retries=RETRIES)(_call)

    def result(task: Any) -> Any:
        with plain_ray_errors(ray, REMEDY, retries=RETRIES):
            return ray.get(task)

    return ClusterTasks(
        lambda function: partial(result, remote.remote(function)),
        lambda: int(ray.cluster_resources().get("CPU", 1)),
    )


def on_dask(client: Any) -> ClusterTasks:
    """Tasks of Dask's, one thread of a worker each.

    Args:
        client: connected (`mightnt.clusters.dask_cluster`).
    """

    def result(task: Any) -> Any:
        with plain_dask_errors():
            return task.result()

    return ClusterTasks(
        lambda function: partial(result, client.submit(function, pure=False)),
        lambda: sum(client.ncores().values()),
    )


def _call(function: Function) -> Any:
    return function()
