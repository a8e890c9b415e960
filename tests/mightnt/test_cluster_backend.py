"""joblib's calls as a cluster's tasks, by a Ray in this process; test_clusters.py has real ones."""

import sys
from types import SimpleNamespace

import joblib
import pytest

from mightnt.cluster_backend import RETRIES, ClusterTasks, on_dask, on_ray
from mightnt.workers import on_workers
from theory.errors import ClusterError, InvalidBudgetError


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause):
        super().__init__(f"a long story of {cause}")
        self.cause = cause


class InProcess:
    """As much of Ray as the backend asks for; a task is called when its result is asked for."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, n_cpus):
        self.n_cpus = n_cpus
        self.called = 0

    def cluster_resources(self):
        return {"CPU": float(self.n_cpus)}

    def remote(self, **options):
        assert options == {"num_cpus": 1, "max_retries": RETRIES}
        return lambda function: SimpleNamespace(remote=lambda task: lambda: function(task))

    def get(self, task):
        self.called += 1
        try:
            return task()
        except RayError:
            raise
        except Exception as error:
            raise RayTaskError(error) from error


def fail(error):
    raise error


@pytest.mark.parametrize("n_cpus", [1, 2, 7])
def test_calls_are_rays_tasks_and_their_results_come_in_order(n_cpus):
    ray = InProcess(n_cpus)
    with joblib.parallel_config(on_ray(ray), n_jobs=-1):
        assert joblib.effective_n_jobs(-1) == max(2, n_cpus)  # one worker would be this process
        calls = [joblib.delayed(pow)(n, 2) for n in range(20)]
        found = joblib.Parallel(prefer="threads", return_as="generator")(calls)
        assert list(found) == [n * n for n in range(20)]
    assert ray.called == 20


def test_what_a_task_raises_is_raised_as_it_was_and_a_lost_one_says_what_to_do():
    lost = r"gave up a task after 3 retries \(worker died\); start the command again"
    for error, kind, message in (
        (InvalidBudgetError("3 nats"), InvalidBudgetError, "^3 nats$"),
        (ZeroDivisionError("by 0"), RayTaskError, "by 0"),  # Ray's own is of both kinds
        (RayError("worker died\nmore"), ClusterError, lost),
    ):
        with (
            joblib.parallel_config(on_ray(InProcess(2)), n_jobs=-1),
            pytest.raises(kind, match=message),
        ):
            joblib.Parallel()([joblib.delayed(fail)(error)] * 3)


def test_every_call_is_begun_before_the_first_result_is_waited_for():
    begun = []

    def begin(function):
        begun.append(function)

        def result():
            assert len(begun) == 20
            return function()

        return result

    with joblib.parallel_config(ClusterTasks(begin, lambda: 2), n_jobs=-1):
        assert list(on_workers(str, range(20), description="a test")) == [*map(str, range(20))]


class GivenUpError(Exception):
    pass


class TakenBackError(Exception):
    pass


class OneProcessDask:
    """As much of a Dask client as the backend asks for."""

    errors = SimpleNamespace(KilledWorker=GivenUpError, CancelledError=TakenBackError)

    def ncores(self):
        return {"one": 1, "another": 2}

    def submit(self, function, *, pure):
        assert not pure  # the same call twice is two calls
        return SimpleNamespace(result=function)


def test_a_task_that_dask_gave_up_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", OneProcessDask.errors)
    lost = r"gave up a task \(f\); start the command again"
    with joblib.parallel_config(on_dask(OneProcessDask()), n_jobs=-1):
        assert joblib.effective_n_jobs(-1) == 3
        assert joblib.Parallel()([joblib.delayed(pow)(n, 2) for n in range(4)]) == [0, 1, 4, 9]
        for error, kind, message in (
            (ZeroDivisionError("by 0"), ZeroDivisionError, "^by 0$"),
            (GivenUpError("f\nmore"), ClusterError, lost),
            (TakenBackError("f"), ClusterError, lost),
        ):
            with pytest.raises(kind, match=message):
                joblib.Parallel()([joblib.delayed(fail)(error)])
