"""A sweep on a real Ray cluster survives what dies: nothing is lost, and nothing is run twice."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llm_experiment.attempts import read_attempts
from llm_experiment.records.folder import exclusive
from mightnt.command_line import INTERRUPTED
from tests.clusters import kill_session, needs, ray_head, ray_node, until
from tests.llm_experiment.fakes.tiny_run import (
    PROMPT_TOKENS,
    assert_same_episodes,
    contents,
    tiny_models,
)

pytestmark = [pytest.mark.slow, needs("ray")]

LENGTHS = (PROMPT_TOKENS + 5, PROMPT_TOKENS + 7)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def argv(models) -> list[str]:
    """Four agents of about 20 updates each."""
    return [
        sys.executable, "-m", "llm_experiment.sweep",
        "--base-model", str(models / "language_model"),
        "--reward-model", str(models / "reward_model"),
        "--lengths", *map(str, LENGTHS), "--budgets-nats", "1", "--n-seeds", "2",
        "--realized-budgets-nats", "--control-shifts", "--n-evaluation-episodes", "3",
        "--n-base-episodes", "5",
        "--evaluation-lengths", str(PROMPT_TOKENS + 5), "--n-episodes", "4", "--ppo.n-epochs", "1",
        "--stages.0.agent-steps", "400", "--stages.0.n-tokens", str(LENGTHS[0]),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(argv, tmp_path_factory) -> Path:
    """The same sweep without a cluster and without an accident."""
    out = tmp_path_factory.mktemp("undisturbed")
    subprocess.run([*argv, "--out", str(out)], check=True, stderr=subprocess.DEVNULL)
    return out


@pytest.fixture(scope="module")
def head():
    """A Ray cluster of one machine."""
    with ray_head(n_cpus=2) as address:
        yield address


def updates(folder: Path) -> list[int]:
    """The numbers of the updates that a job has recorded."""
    try:
        return [record["update"] for record in json.loads((folder / "updates.json").read_text())]
    except FileNotFoundError:
        return []


def begun(out: Path) -> list[Path]:
    """The folders of agents that are in the midst of training on a cluster."""
    folders = [path.parent for path in out.rglob("attempts.json")]
    return [f for f in folders if 1 <= len(updates(f)) < 15 and not (f / "result.json").exists()]


def assert_nothing_lost_and_nothing_twice(out: Path, undisturbed: Path) -> None:
    """Every update of every agent is on record once, and all bytes are those without accident."""
    folders = [path.parent for path in undisturbed.rglob("agent.safetensors")]
    assert len(folders) == 4
    for folder in folders:
        numbers = updates(out / folder.relative_to(undisturbed))
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) >= 15
    # What is killed while it writes a file leaves a hidden one behind, never half of the file.
    found = {name: h for name, h in contents(out).items() if not Path(name).name.startswith(".")}
    found = {name: h for name, h in found.items() if not name.endswith("attempts.json")}
    assert found == contents(undisturbed)
    assert_same_episodes(out, undisturbed)


def kill_group(leader: int) -> None:
    os.killpg(leader, signal.SIGKILL)


def n_attempts(folder: Path) -> int:
    return len(read_attempts(folder))


def test_kill_9_of_a_worker_loses_nothing_and_runs_nothing_twice(argv, undisturbed, head, tmp_path):
    command = [*argv, "--out", str(tmp_path), "--cluster", f"ray:{head}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        folder, *_ = until(lambda: begun(tmp_path), "an agent in training")
        (attempt,) = read_attempts(folder)
        os.kill(attempt["pid"], signal.SIGKILL)
        done_before = updates(folder)
        assert not (folder / "result.json").exists()
        _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    assert_nothing_lost_and_nothing_twice(tmp_path, undisturbed)
    assert done_before == updates(folder)[: len(done_before)]
    attempts = {path.parent: n_attempts(path.parent) for path in tmp_path.rglob("attempts.json")}
    assert attempts.pop(folder) == 2
    assert list(attempts.values()) == [1, 1, 1]


@pytest.mark.parametrize("kill", [kill_session, kill_group], ids=["everything", "daemons alone"])
def test_kill_9_of_a_machine_loses_nothing_and_runs_nothing_twice(
    kill, argv, undisturbed, head, tmp_path
):
    """One of two nodes, which for Ray are machines; workers can outlive its daemons for a while."""

    def begun_there():
        return [f for f in begun(tmp_path) if os.getsid(read_attempts(f)[-1]["pid"]) == node.pid]

    with ray_node(f"--address={head}", n_cpus=2) as node:
        command = [*argv, "--out", str(tmp_path), "--cluster", f"ray:{head}"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            folder, *_ = until(begun_there, "an agent in training on the second node")
            kill(node.pid)
            assert not (folder / "result.json").exists()
            _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    assert_nothing_lost_and_nothing_twice(tmp_path, undisturbed)
    outlived = kill is kill_group  # a worker without its daemons may still finish its agent
    assert n_attempts(folder) in ((1, 2) if outlived else (2,))


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_without_its_command_a_sweep_stops_and_goes_on_anywhere(
    kind, argv, undisturbed, head, tmp_path
):
    command = [*argv, "--out", str(tmp_path)]
    with subprocess.Popen(
        [*command, "--cluster", f"ray:{head}"], stderr=subprocess.PIPE, text=True
    ) as process:
        folder, *_ = until(lambda: begun(tmp_path), "an agent in training")
        process.send_signal(kind)
        _, errors = process.communicate(timeout=100)
    assert process.returncode == (INTERRUPTED if kind == signal.SIGINT else -kind), errors
    with exclusive(folder, patience_seconds=60):
        assert not (folder / "result.json").exists()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert_nothing_lost_and_nothing_twice(tmp_path, undisturbed)
