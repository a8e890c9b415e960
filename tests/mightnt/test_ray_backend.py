"""joblib's calls as Ray's tasks, by a Ray in this process; test_clusters.py has the real one."""

from types import SimpleNamespace

import joblib
import pytest

from mightnt.ray_backend import RETRIES, RayTasks
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
    with joblib.parallel_config(RayTasks(ray), n_jobs=-1):
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
            joblib.parallel_config(RayTasks(InProcess(2)), n_jobs=-1),
            pytest.raises(kind, match=message),
        ):
            joblib.Parallel()([joblib.delayed(fail)(error)] * 3)
