import joblib
import pytest
from joblib.parallel import ThreadingBackend

from mightnt.workers import on_workers


class ListsOnlyBackend(ThreadingBackend):
    """A backend that cannot hand back results one by one, as Ray's."""

    supports_return_generator = False


joblib.register_parallel_backend("lists only", ListsOnlyBackend)


def square(x):
    return x * x


@pytest.mark.parametrize("backend", ["sequential", "threading", "loky", "lists only"])
def test_every_backend_gives_the_results_in_order(backend):
    with joblib.parallel_config(backend=backend):
        results = on_workers(square, range(21), n_jobs=2, description="squares")
        assert list(results) == [x * x for x in range(21)]


@pytest.mark.parametrize("n_jobs", [1, 2, -1])
def test_no_tasks_give_no_results(n_jobs):
    assert list(on_workers(square, [], n_jobs=n_jobs, description="nothing")) == []
