import os
import sys
from functools import partial

import joblib
import pytest

from mightnt import clusters
from mightnt.clusters import Cluster, System, call_on_ray, on_cluster, ray_cluster
from tests.clusters import dask_cluster, free_port, needs, ray_head
from theory.errors import ClusterError, InvalidArgumentError

LIBRARIES = {"ray": "ray", "dask": "distributed"}


@pytest.mark.parametrize(
    ("name", "system", "address"),
    [
        ("ray", System.RAY, None),
        ("ray:head:6379", System.RAY, "head:6379"),
        ("ray:10.0.0.1:6379", System.RAY, "10.0.0.1:6379"),
        ("dask:head:8786", System.DASK, "head:8786"),
    ],
)
def test_a_cluster_is_named_by_its_system_and_address(name, system, address):
    assert Cluster.parse(name) == Cluster(system=system, address=address)


@pytest.mark.parametrize("name", ["", "slurm", "slurm:head:1", "Ray", "local"])
def test_other_systems_are_refused(name):
    with pytest.raises(InvalidArgumentError, match=f"'{name}' is no cluster; name one as ray, "):
        Cluster.parse(name)


@pytest.mark.parametrize("name", ["ray:", "ray:head", "ray::6379", "ray:head:x", "dask", "dask:h:"])
def test_an_address_is_a_host_and_a_port(name):
    with pytest.raises(InvalidArgumentError, match=f"'{name}' has no HOST:PORT"):
        Cluster.parse(name)


@pytest.mark.parametrize("system", LIBRARIES)
def test_a_missing_library_names_the_extra_that_brings_it(system, monkeypatch):
    monkeypatch.setitem(sys.modules, LIBRARIES[system], None)  # how Python marks what is not there
    message = rf"--cluster needs {LIBRARIES[system]}; .* pip install 'mightnt\[{system}\]'"
    with pytest.raises(ClusterError, match=message), on_cluster(f"{system}:h:1", "--cluster"):
        pass


@pytest.mark.parametrize(
    "system", [pytest.param(name, marks=needs(library)) for name, library in LIBRARIES.items()]
)
def test_a_cluster_that_does_not_answer_is_one_clear_error(system):
    address = f"127.0.0.1:{free_port()}"
    message = f"no cluster answers at {address} .*refused.*; check the address, or start one with"
    with pytest.raises(ClusterError, match=message), on_cluster(f"{system}:{address}", "this"):
        pass


CLUSTERS = (
    pytest.param("ray", lambda n: ray_head(n_cpus=n), marks=needs("ray")),
    pytest.param("dask", lambda n: dask_cluster(n_workers=n), marks=needs("distributed")),
)


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [1, 2])
@pytest.mark.parametrize(("system", "start"), CLUSTERS)
def test_joblib_works_on_a_cluster_whose_processes_stay_for_the_next_call(system, start, n_workers):
    with start(n_workers) as address, on_cluster(f"{system}:{address}", "this test"):
        first, second = (
            set(joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(8))) for _ in range(2)
        )
        assert os.getpid() not in first | second
        assert len(first | second) <= n_workers
        squares = joblib.Parallel(return_as="generator")(
            joblib.delayed(pow)(n, 2) for n in range(20)
        )
        assert list(squares) == [n * n for n in range(20)]
        with pytest.raises(InvalidArgumentError, match="'slurm' is no cluster"):
            joblib.Parallel()([joblib.delayed(Cluster.parse)("slurm")])
        with pytest.raises(ZeroDivisionError):
            joblib.Parallel()([joblib.delayed(divmod)(1, 0)])
        if system == "ray":  # Dask waits for new workers, should all have died
            with pytest.raises(ClusterError, match=r"after 3 retries .*start the command again"):
                joblib.Parallel()([joblib.delayed(os._exit)(1)])


@pytest.mark.slow
@needs("distributed")
def test_a_dask_cluster_without_workers_says_how_to_start_one(monkeypatch):
    monkeypatch.setattr(clusters, "REACH_SECONDS", 1)
    with (
        dask_cluster(n_workers=0) as address,
        pytest.raises(ClusterError, match=f"has no worker; start one with `dask worker {address}`"),
        on_cluster(f"dask:{address}", "this test"),
    ):
        pass


@pytest.mark.slow
@needs("ray")
def test_what_a_task_raises_on_ray_is_raised_here_and_a_task_that_always_dies_is_given_up():
    def called(*tasks):
        return call_on_ray(ray, tasks, cpus=1, gpus=0, retries=1)

    with ray_head(n_cpus=2) as address, ray_cluster(Cluster.parse(f"ray:{address}"), "this") as ray:
        assert called(*(partial(pow, 2, n) for n in range(5))) == [1, 2, 4, 8, 16]
        with pytest.raises(InvalidArgumentError, match="'slurm' is no cluster"):
            called(partial(pow, 2, 3), partial(Cluster.parse, "slurm"))
        with pytest.raises(ZeroDivisionError):
            called(partial(divmod, 1, 0))
        with pytest.raises(ClusterError, match=r"gave up a task after 1 retries .*goes on where"):
            called(partial(os._exit, 1))
