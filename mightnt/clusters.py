"""Clusters that are already running: how to name one, reach it, and work on it.

    ray                 the Ray cluster that this machine belongs to
    ray:head:6379       the Ray cluster with that head node
    dask:head:8786      the Dask cluster with that scheduler

Every machine of the cluster needs the same installation of this package, with the extra `ray` or
`dask`. A cluster is only used: it is neither started nor stopped here.
"""

import contextlib
import importlib
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, unique
from typing import Any, Final, TypeVar

from theory.errors import ClusterError, InvalidArgumentError, MightntError

ResultT = TypeVar("ResultT")
REACH_SECONDS: Final = 10.0
"""How long a cluster may take to answer; Ray itself would keep trying for minutes."""
REMEDY: Final = "start the command again"
"""What to do if a cluster gave up a task of joblib's."""
_HOW_TO_NAME: Final = "name one as ray, ray:HOST:PORT or dask:HOST:PORT"


@unique
class System(Enum):
    """What runs the cluster; the value is also the extra of this package that it needs."""

    RAY = "ray"
    DASK = "dask"


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster's name.

    Attributes:
        system: what runs it.
        address: its head node or scheduler as HOST:PORT; None for the Ray cluster that this
            machine belongs to.
    """

    system: System
    address: str | None

    @classmethod
    def parse(cls, name: str) -> "Cluster":
        """The cluster of a name such as `ray:head:6379`.

        Raises:
            InvalidArgumentError: no such name.
        """
        word, _, address = name.partition(":")
        host, _, port = address.rpartition(":")
        if word not in {system.value for system in System}:
            raise InvalidArgumentError(f"{name!r} is no cluster; {_HOW_TO_NAME}")
        system = System(word)
        if system is System.RAY and name == word:
            return cls(system=system, address=None)
        if not host or not port.isdecimal():
            raise InvalidArgumentError(f"{name!r} has no HOST:PORT; {_HOW_TO_NAME}")
        return cls(system=system, address=address)


@contextlib.contextmanager
def on_cluster(name: str, purpose: str) -> Iterator[None]:
    """Let joblib work on all processors of a cluster, whatever `n_jobs` says.

    Args:
        name: of the cluster.
        purpose: for which it is needed, to say so in an error.

    Raises:
        InvalidArgumentError: no such name.
        ClusterError: the cluster cannot be used; the message says what to do.
    """
    from joblib import parallel_config  # noqa: PLC0415 - naming a cluster needs none of it

    from mightnt.cluster_backend import on_dask, on_ray  # noqa: PLC0415 - the same

    cluster = Cluster.parse(name)
    with contextlib.ExitStack() as stack:
        match cluster.system:
            case System.RAY:
                tasks = on_ray(stack.enter_context(ray_cluster(cluster, purpose)))
            case System.DASK:
                tasks = on_dask(stack.enter_context(dask_cluster(cluster, purpose)))
        stack.enter_context(parallel_config(tasks, n_jobs=-1))
        yield


@contextlib.contextmanager
def ray_cluster(cluster: Cluster, purpose: str) -> Iterator[Any]:
    """The module `ray`, connected.

    Raises:
        ClusterError: Ray is not installed, or the cluster cannot be used.
    """
    ray = _library("ray", System.RAY, purpose)
    address = cluster.address or os.environ.get("RAY_ADDRESS", "auto")
    if address != "auto":
        _reach(address.removeprefix("ray://"), "start one with `ray start --head`")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"cannot use the Ray cluster {address}: {error}; start one with `ray start --head`, "
            "or name its head node as ray:HOST:PORT"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def call_on_ray(
    ray: Any,
    tasks: Sequence[Callable[[], ResultT]],
    *,
    cpus: float,
    gpus: float,
    retries: int,
) -> list[ResultT]:
    """The results of tasks that a Ray cluster calls, in order.

    A task is called once, and again only if its process or machine died before it had ended.

    Args:
        ray: connected (`ray_cluster`).
        tasks: calls without arguments, picklable.
        cpus: processors that each task takes.
        gpus: GPUs that each task takes.
        retries: how often a task may be called again.

    Raises:
        MightntError: what a task raised; the others are then given up.
        ClusterError: a task died once too often, or the cluster was lost.
    """
    options = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": retries}
    remote = ray.remote(**options)(_call)
    results = [remote.remote(task) for task in tasks]
    waiting = results
    with plain_ray_errors(ray, "the same command goes on where it stopped", retries=retries):
        while waiting:
            (ended,), waiting = ray.wait(waiting, num_returns=1)
            ray.get(ended)  # raises here what the task raised
        return list(ray.get(results))


@contextlib.contextmanager
def plain_ray_errors(ray: Any, remedy: str, *, retries: int) -> Iterator[None]:
    """What a task of Ray's raised is raised as it was, and a lost one is one clear error.

    Raises:
        ClusterError: a task died once too often, or the cluster was lost; with `remedy`.
    """
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, MightntError) else error) from None
    except ray.exceptions.RayError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ClusterError(
            f"the cluster gave up a task after {retries} retries ({reason}); {remedy}"
        ) from error


def _call(task: Callable[[], ResultT]) -> ResultT:
    return task()


@contextlib.contextmanager
def dask_cluster(cluster: Cluster, purpose: str) -> Iterator[Any]:
    """A client of the cluster's scheduler, connected, and at least one worker at its disposal.

    Raises:
        ClusterError: Dask is not installed, or the cluster cannot be used.
    """
    distributed = _library("distributed", System.DASK, purpose)
    address = str(cluster.address)
    _reach(address, "start one with `dask scheduler` and `dask worker`")
    try:
        client = distributed.Client(address, timeout=REACH_SECONDS, set_as_default=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise ClusterError(f"cannot use the Dask cluster {address}: {error}") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=REACH_SECONDS)
        except TimeoutError as error:
            raise ClusterError(
                f"the Dask cluster {address} has no worker; start one with `dask worker {address}`"
            ) from error
        yield client


@contextlib.contextmanager
def plain_dask_errors() -> Iterator[None]:
    """A task of Dask's that was lost is one clear error; what a task raises is raised anyway.

    Raises:
        ClusterError: a task's workers died, or the cluster was lost; with `REMEDY`.
    """
    distributed = importlib.import_module("distributed")
    try:
        yield
    except (distributed.CancelledError, distributed.KilledWorker) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ClusterError(f"the cluster gave up a task ({reason}); {REMEDY}") from error


def _library(name: str, system: System, purpose: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ClusterError(
            f"{purpose} needs {name}; install it with: pip install 'mightnt[{system.value}]'"
        ) from error


def _reach(address: str, remedy: str) -> None:
    """Raise unless something listens at `address`."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"no cluster answers at {address} ({error}); check the address, or {remedy}"
        ) from error
