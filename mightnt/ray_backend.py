"""joblib's calls as tasks of a Ray cluster.

Ray's own backend for joblib (`ray.util.joblib`) starts new processes for every call of
`joblib.Parallel`, which import and compile everything anew, and gives results back only all
together. Here a call is an ordinary Ray task: Ray's worker processes take it, keep what they have
loaded for the next one, and results come back one by one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from joblib.parallel import ThreadingBackend

from mightnt.clusters import plain_errors

RETRIES: Final = 3
"""How often a task is begun again after its process or machine died."""


class RayTasks(ThreadingBackend):  # type: ignore[misc]  # joblib has no types
    """A backend of joblib in which every thread waits for a task of Ray's.

    Args:
        ray: connected (`mightnt.clusters.ray_cluster`).
    """

    supports_sharedmem = False
    uses_threads = False

    def __init__(self, ray: Any, **options: Any) -> None:
        super().__init__(**options)
        self._ray = ray
        self._remote = ray.remote(num_cpus=1, max_retries=RETRIES)(_call)

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """As many as the cluster has processors, whatever is asked for.

        Two at least, of which one waits: what has one worker joblib calls in its own process.
        """
        del n_jobs
        return max(2, int(self._ray.cluster_resources().get("CPU", 1)))

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
        """Be ready for a call of `joblib.Parallel`; one processor of a cluster is a worker too."""
        self.parallel = parallel
        self._n_jobs = self.effective_n_jobs(n_jobs)
        return self._n_jobs

    def submit(self, func: Callable[[], Any], callback: Callable[..., Any] | None = None) -> Any:
        """Have Ray call `func`."""
        return super().submit(partial(self._result, func), callback)

    def _result(self, func: Callable[[], Any]) -> Any:
        with plain_errors(self._ray, "start the command again", retries=RETRIES):
            return self._ray.get(self._remote.remote(func))


def _call(func: Callable[[], Any]) -> Any:
    return func()
