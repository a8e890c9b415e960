"""Real clusters on this machine, each process of them known, so that a test can kill one."""

import contextlib
import importlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

PATIENCE_SECONDS = 240


def needs(library):
    """Skip a test where an optional library is absent; `make test-all` installs them all."""
    return pytest.mark.skipif(
        importlib.util.find_spec(library) is None,
        reason=f"{library} is not installed; requirements-cluster.txt has it",
    )


def until(condition, what):
    """Wait for a condition; its first true value."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.02)
    return value


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def kill_session(leader):
    """SIGKILL to every process of a session: what a machine's loss of power does."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(pid := int(folder.name)) == leader:
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def running(*argv, log):
    """A command of this interpreter in its own session, ended with all that it started."""
    environment = os.environ | {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": str(PATIENCE_SECONDS),
        "OMP_NUM_THREADS": "1",
        # Samples what a worker does a hundred times a second.
        "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    }
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *argv],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        kill_session(process.pid)
        process.wait()


@contextlib.contextmanager
def ray_node(*options, n_cpus, store_bytes=80_000_000):
    """A node of a Ray cluster: the process whose session holds everything that the node started.

    Results that are more than its store holds go through files.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # a socket's path must be short
    log = folder / "log"
    argv = (
        "ray.scripts.scripts", "start", "--block", f"--num-cpus={n_cpus}",
        f"--object-store-memory={store_bytes}", "--disable-usage-stats",
        f"--dashboard-agent-listen-port={free_port()}", *options,
    )  # fmt: skip
    try:
        with running(*argv, log=log) as process:
            until(lambda: "runtime started" in log.read_text() or process.poll(), "a Ray node")
            assert process.poll() is None, log.read_text()
            yield process
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def ray_head(*, n_cpus, **of_node):
    """A Ray cluster of one node; its HOST:PORT."""
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    options = (
        "--head", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false",
        f"--ray-client-server-port={free_port()}",
    )  # fmt: skip
    try:
        with ray_node(*options, n_cpus=n_cpus, **of_node):
            yield f"127.0.0.1:{port}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def dask_cluster(*, n_workers):
    """A Dask cluster: a scheduler and workers, each a process of its own; its HOST:PORT."""
    distributed = importlib.import_module("distributed")
    address = f"127.0.0.1:{free_port()}"
    host, port = address.split(":")
    scheduler = ("distributed.cli.dask_scheduler", "--host", host, "--port", port, "--no-dashboard")
    worker = (
        "distributed.cli.dask_worker", f"tcp://{address}", "--nthreads=1", "--no-nanny",
        "--no-dashboard", "--memory-limit=2GiB",
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for i, argv in enumerate((scheduler, *[worker] * n_workers)):
            options = ["--local-directory", str(folder)] if i else []
            stack.enter_context(running(*argv, *options, log=folder / f"{i}.log"))
        client = stack.enter_context(distributed.Client(f"tcp://{address}", timeout=60))
        until(lambda: len(client.ncores()) == n_workers, "Dask's workers")
        client.close()
        yield address
