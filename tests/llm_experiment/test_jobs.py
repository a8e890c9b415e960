"""A run is a folder: complete, resumable without a trace, and nobody else's."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from llm_experiment import jobs
from llm_experiment.agent.ppo import LockstepPPO
from llm_experiment.agent.rollout import play_episodes
from llm_experiment.chat.world import load_world
from llm_experiment.jobs import run_job, run_suite
from llm_experiment.records.folder import exclusive, hash_file, read_manifest
from llm_experiment.records.job_result import Origin
from llm_experiment.records.reading import RunFolder, read_run
from llm_experiment.settings import Settings
from llm_experiment.suite import SuiteConfig, suite_jobs
from mightnt.results import from_jsonable, write_json
from tests.llm_experiment.fakes.tiny_run import (
    PROMPT_TOKENS,
    assert_same_episodes,
    contents,
    tiny_models,
    tiny_settings,
)
from theory.budget import Accounting
from theory.errors import ResultsError

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def settings(models) -> Settings:
    return tiny_settings(models)


def silently(settings: Settings, out: Path) -> list[dict]:
    """The rows of the summary of a run, made or finished here."""
    run_suite(settings, out, n_processes=1, console=Console(quiet=True))
    return json.loads((out / "summary.json").read_text())["rows"]


@pytest.fixture(scope="module")
def finished(settings, tmp_path_factory):
    """A finished run: its folder and its rows."""
    out = tmp_path_factory.mktemp("finished") / "run"
    return out, silently(settings, out)


def test_a_run_writes_agents_updates_episodes_and_a_summary(finished, settings):
    out, rows = finished
    names = ["exact-budget1-seed0", "exact-budget1-seed1"]
    assert [(row["agent"], row["n_tokens"]) for row in rows] == [
        (name, PROMPT_TOKENS + extra) for name in names for extra in (5, 9)
    ]
    base = json.loads((out / "summary.json").read_text())["base"]
    assert [row["n_tokens"] for row in base["rows"]] == [PROMPT_TOKENS + 5, PROMPT_TOKENS + 9]
    assert (out / "base" / f"episodes-{PROMPT_TOKENS + 5}.npz").exists()
    assert "Silence by budget" in (out / "tables.md").read_text()
    for name in names:
        folder = out / "agents" / name
        updates = json.loads((folder / "updates.json").read_text())
        assert [record["update"] for record in updates] == [1, 2, 3]
        assert list(folder.glob("tensorboard/**/events.*"))
        with np.load(folder / f"episodes-{PROMPT_TOKENS + 9}.npz") as episodes:
            assert episodes["tokens"].shape == (3, PROMPT_TOKENS + 9)
            assert (episodes["spent_nats"] <= 1 + 1e-12).all()
    manifest = read_manifest(out)
    assert manifest["settings"]["agent"]["n_episodes"] == settings.agent.n_episodes
    for path, digest in manifest["sha256"].items():
        assert hash_file(out / path) == digest
    assert {"summary.json", f"agents/{names[0]}/agent.safetensors"} <= set(manifest["sha256"])


def test_the_scalars_of_tensorboard_are_those_of_the_documentation(finished):
    out, _ = finished
    events = EventAccumulator(str(next((out / "agents").glob("*/tensorboard/PPO_0"))))
    events.Reload()
    page = (DOCS / "reading_a_run.md").read_text()
    section = page.partition("\n## TensorBoard\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    documented = [name for row in rows for name in re.findall("`(.*?)`", row)]
    assert sorted(documented) == sorted(events.Tags()["scalars"])
    updates = json.loads(next((out / "agents").glob("*/updates.json")).read_text())
    spent = [scalar.value for scalar in events.Scalars("rollout/spent_nats_max")]
    assert spent == pytest.approx([record["spent_nats_max"] for record in updates])


def test_tables_for_programs_have_the_numbers_of_the_rows(finished):
    out, rows = finished
    stored = json.loads((out / "tables.json").read_text())["tables"]
    names = {path.name for path in out.glob("*.jsonl")}
    assert names == {f"tables.{t['name']}.jsonl" for t in stored} | {"tables.agents.jsonl"}
    agents = [json.loads(line) for line in (out / "tables.agents.jsonl").read_text().splitlines()]
    for agent, row in zip(agents, rows, strict=True):
        single = {k: v for k, v in row.items() if not isinstance(v, list | str)}
        found = {k: v for k, v in agent.items() if not isinstance(v, str)}
        assert found == {k: pytest.approx(single[k]) if k in single else None for k in found}
        assert agent["agent"] == row["agent"]
    manifest = read_manifest(out)["sha256"]
    assert names <= set(manifest)


def test_the_seeds_of_a_suite_are_different_agents(finished):
    out, _ = finished
    hashes = contents(out)
    assert (
        hashes["agents/exact-budget1-seed0/agent.safetensors"]
        != hashes["agents/exact-budget1-seed1/agent.safetensors"]
    )


def test_a_finished_run_is_not_trained_again(finished, settings, monkeypatch):
    out, rows = finished
    before = contents(out)
    monkeypatch.setattr(LockstepPPO, "finish", None)
    assert silently(settings, out) == rows
    assert contents(out) == before


@pytest.mark.parametrize("survivors", [0, 1, 2, 4])
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    finished, settings, tmp_path, monkeypatch, survivors
):
    """However many updates were saved before Ctrl-C came."""
    saved = []
    save = LockstepPPO.save

    def interrupted(agent, path, *arguments):
        if len(saved) == survivors:
            raise KeyboardInterrupt
        saved.append(path)
        save(agent, path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LockstepPPO, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            silently(settings, tmp_path / "run")
    assert len(list((tmp_path / "run").rglob("agent.safetensors"))) == (survivors + 2) // 3
    rows = silently(settings, tmp_path / "run")
    out, expected = finished
    assert rows == expected
    assert contents(tmp_path / "run") == contents(out)
    assert_same_episodes(tmp_path / "run", out)


def test_a_job_that_was_killed_between_its_last_two_files_gets_its_last_record(
    finished, settings, tmp_path
):
    out, rows = finished
    cut = Path(shutil.copytree(out, tmp_path / "run"))
    (cut / "summary.json").unlink()
    for folder in (cut / "agents").iterdir():
        (folder / "result.json").unlink()
        updates = json.loads((folder / "updates.json").read_text())
        write_json(folder / "updates.json", updates[:-1])
    assert silently(settings, cut) == rows
    assert contents(cut) == contents(out)


@pytest.mark.parametrize(("checkpoint_every", "saves"), [(1, [1, 2, 3]), (2, [2, 3]), (9, [3])])
def test_an_agent_is_saved_as_often_as_it_was_asked_to_and_at_the_end(
    settings, tmp_path, monkeypatch, checkpoint_every, saves
):
    saved = []
    monkeypatch.setattr(LockstepPPO, "save", lambda agent, path: saved.append(agent.n_updates))
    agent = replace(settings.agent, checkpoint_every=checkpoint_every)
    (job, *_) = suite_jobs(agent, settings.agents)
    jobs.train_job(job, tmp_path, check_wanted=lambda: None)
    # The last update is due, and ends the training too.
    assert sorted(set(saved)) == saves


def test_the_stored_episodes_of_an_agent_can_be_played_again(finished, settings):
    out, _ = finished
    n_tokens = PROMPT_TOKENS + 9
    (job, *_) = suite_jobs(settings.agent, settings.agents)
    world = load_world(settings.agent.world)
    agent = LockstepPPO.load(out / "agents" / job.name / "agent.safetensors", world=world)
    again = play_episodes(
        agent.policy,
        world,
        n_episodes=3,
        n_tokens=n_tokens,
        budget_nats=1.0,
        accounting=Accounting.EXACT,
        seed=0,
        stream=(jobs.EVALUATION_STREAM, n_tokens),
        keep_observations=False,
    )
    with np.load(out / "agents" / job.name / f"episodes-{n_tokens}.npz") as stored:
        np.testing.assert_array_equal(again.tokens, stored["tokens"])
        np.testing.assert_allclose(again.spent_nats, stored["spent_nats"], rtol=1e-6)


# ----------------------------------------------------------------- how often models are loaded


def counted(log: Path, task: Callable[[], Any]) -> Any:
    """What `task` gives, in whatever process; each model that is loaded adds a line to `log`."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in (AutoModelForCausalLM, AutoModelForSequenceClassification):
            patch.setattr(kind, "from_pretrained", partial(noted, log, kind.from_pretrained))
        return task()


def noted(log: Path, load: Callable[..., Any], name: str, *arguments: Any, **options: Any) -> Any:
    with log.open("a") as file:
        file.write(f"{os.getpid()} {Path(name).name}\n")
    return load(name, *arguments, **options)


@pytest.mark.parametrize("n_processes", [1, 2])
def test_each_process_loads_each_model_once(tmp_path, monkeypatch, n_processes):
    """Of a run with two agents and the base policy; with several processes this one loads none."""
    log = tmp_path / "loads"
    call = jobs.call_here
    monkeypatch.setattr(
        jobs, "call_here", lambda tasks, n: call([partial(counted, log, task) for task in tasks], n)
    )
    settings = tiny_settings(tiny_models(tmp_path))  # which no process has loaded before
    work = partial(
        run_suite, settings, tmp_path / "run", n_processes=n_processes, console=Console(quiet=True)
    )
    counted(log, work) if n_processes > 1 else work()
    loads: dict[int, list[str]] = {}
    for line in log.read_text().splitlines():
        process, model = line.split()
        loads.setdefault(int(process), []).append(model)
    assert 1 <= len(loads) <= n_processes
    assert (os.getpid() in loads) == (n_processes == 1)
    assert all(models == ["language_model", "reward_model"] for models in loads.values())


# ----------------------------------------------------------------- a budget of 0


def test_a_budget_of_0_is_the_base_policy_and_no_agent(settings, tmp_path):
    suite = replace(settings.agents, budgets_nats=(0.0,))
    assert silently(replace(settings, agents=suite), tmp_path) == []
    assert not list(tmp_path.rglob("agent.safetensors"))
    base = json.loads((tmp_path / "summary.json").read_text())["base"]
    assert [row["n_episodes"] for row in base["rows"]] == [suite.n_base_episodes] * 2
    assert "base policy" in (tmp_path / "tables.md").read_text()


@pytest.fixture
def old(finished, settings, tmp_path):
    """A run as it was when agents with a budget of 0 were trained, and the settings it has today.

    Of two such agents one is finished and one is not. The base policy was played in as many
    episodes as an agent, and what would be done today is not among its settings.
    """
    out = Path(shutil.copytree(finished[0], tmp_path / "old"))
    agents = out / "agents"
    zeros = [agents / f"exact-budget0-seed{seed}" for seed in (0, 1)]
    for zero in zeros:
        shutil.copytree(agents / "exact-budget1-seed0", zero)
    for path in (*agents.glob("*/result.json"), out / "base" / "result.json"):
        result = json.loads(path.read_text())
        del result["made_from"], result["files"]
        write_json(path, result["rows"] if path.parent.parent == agents else result)
    rows = json.loads((zeros[0] / "result.json").read_text())
    rows = [row | {"agent": zeros[0].name, "budget_nats": 0.0} for row in rows]
    write_json(zeros[0] / "result.json", rows)
    (zeros[1] / "result.json").unlink()
    manifest = read_manifest(out)
    del manifest["sha256"]  # of the files as they are today
    suite = manifest["settings"]["agents"]
    suite["budgets_nats"] = [0.0, 1.0]
    del suite["n_base_episodes"]
    write_json(out / "manifest.json", manifest)
    (out / "summary.json").unlink()
    today = replace(
        settings.agents, budgets_nats=(0.0, 1.0), n_base_episodes=SuiteConfig().n_base_episodes
    )
    return out, replace(settings, agents=today), rows


def test_an_old_run_is_finished_without_new_agents_of_budget_0_and_keeps_those_it_has(
    old, finished, monkeypatch
):
    out, settings, zero_rows = old
    _, rows = finished
    killed = out / "agents" / "exact-budget1-seed1"
    shutil.rmtree(killed)
    before = contents(out)
    evaluated = (out / "base" / "result.json").read_bytes()
    trained = []
    finish = LockstepPPO.finish

    def noted_finish(agent, *arguments):
        trained.append(agent.config)
        return finish(agent, *arguments)

    monkeypatch.setattr(LockstepPPO, "finish", noted_finish)
    found = silently(settings, out)
    assert [(c.constraint.budget_nats, c.seed) for c in trained] == [(1.0, 1)]
    assert found == [*zero_rows, *rows]
    assert (out / "base" / "result.json").read_bytes() == evaluated
    after = contents(out)
    assert {name: after[name] for name in before if name not in ("tables.json",)}.items() >= {
        name: digest for name, digest in before.items() if name != "tables.json"
    }.items()
    assert "n_base_episodes" not in read_manifest(out)["settings"]["agents"]


# ----------------------------------------------------------------- whose folder it is


def test_a_folder_of_other_settings_is_refused_and_left_alone(finished, settings):
    out, _ = finished
    before = contents(out)
    other = replace(settings, agent=replace(settings.agent, n_episodes=5))
    with pytest.raises(ResultsError, match=r"agent\.n_episodes 4 and 5"):
        silently(other, out)
    assert contents(out) == before


def test_a_folder_that_another_process_writes_to_is_refused(settings, tmp_path):
    with exclusive(tmp_path), pytest.raises(ResultsError, match="another process is writing"):
        silently(settings, tmp_path)


def test_a_job_stops_after_its_update_when_its_run_has_died(settings, tmp_path):
    job, *_ = suite_jobs(settings.agent, settings.agents)
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    with pytest.raises(ResultsError, match="the run that started this job has ended"):
        run_job(job, settings.agents, tmp_path, run_pid=process.pid)
    assert not (tmp_path / "result.json").exists()


def test_results_without_a_manifest_are_not_adopted(finished, settings, tmp_path):
    """Whatever the settings: nothing says what they are of."""
    out, _ = finished
    copy = Path(shutil.copytree(out, tmp_path / "copy"))
    (copy / "manifest.json").unlink()
    other = replace(settings, agent=replace(settings.agent, n_episodes=5))
    for asked in (settings, other):
        with pytest.raises(ResultsError, match=r"holds results \(agents\) but no manifest\.json"):
            silently(asked, copy)
    assert not (copy / "manifest.json").exists()


def test_a_result_of_another_configuration_is_refused(finished, settings, tmp_path):
    """Put into a folder that has a manifest."""
    out, _ = finished
    copy = Path(shutil.copytree(out, tmp_path / "copy"))
    other = replace(settings, agent=replace(settings.agent, n_episodes=5))
    manifest = read_manifest(out)
    manifest["settings"]["agent"]["n_episodes"] = 5
    write_json(copy / "manifest.json", manifest)
    message = r"result\.json came from another configuration .*agent\.n_episodes 4 and 5"
    with pytest.raises(ResultsError, match=message):
        silently(other, copy)
    with pytest.raises(ResultsError, match=message):
        read_run(copy)


def test_a_result_says_what_it_came_from(finished, settings):
    out, _ = finished
    for job in suite_jobs(settings.agent, settings.agents):
        result = json.loads((out / "agents" / job.name / "result.json").read_text())
        origin = from_jsonable(Origin, result["made_from"])
        assert origin.agent == job.config
        assert origin.evaluation_lengths == settings.agents.evaluation_lengths
        assert len(result["files"]) == 4


def test_agents_can_be_added_to_a_finished_run(finished, settings, tmp_path, monkeypatch):
    """Seeds and budgets: what is there stays as it is, and what is new is as in a run of its own.

    Taking agents away, or evaluating them otherwise, is another run.
    """
    out, rows = finished
    copy = Path(shutil.copytree(out, tmp_path / "copy"))
    more = replace(settings, agents=replace(settings.agents, budgets_nats=(0.5, 1.0), n_seeds=3))
    trained = []
    finish = LockstepPPO.finish

    def noted_finish(agent, *arguments):
        trained.append((agent.config.constraint.budget_nats, agent.config.seed))
        return finish(agent, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LockstepPPO, "finish", noted_finish)
        found = silently(more, copy)
    assert sorted(trained) == [(0.5, 0), (0.5, 1), (0.5, 2), (1.0, 2)]
    assert [row for row in found if (row["budget_nats"], row["seed"]) in {(1, 0), (1, 1)}] == rows
    assert read_run(copy).finished
    read_run(copy).check_unchanged()
    assert read_manifest(copy)["settings"]["agents"]["n_seeds"] == 3
    with pytest.raises(ResultsError, match=r"settings\.agents\.n_seeds 3 and 2"):
        silently(settings, copy)
    longer = replace(more, agents=replace(more.agents, n_evaluation_episodes=4))
    with pytest.raises(ResultsError, match=r"n_evaluation_episodes 3 and 4"):
        silently(longer, copy)


# ----------------------------------------------------------------- damage


EPISODES = f"episodes-{PROMPT_TOKENS + 5}.npz"


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (f"agents/exact-budget1-seed0/{EPISODES}", None),
        (f"agents/exact-budget1-seed0/{EPISODES}", b"PK\x03\x04 but no more"),
        (f"base/{EPISODES}", b""),
        ("agents/exact-budget1-seed1/result.json", b"{"),
        ("agents/exact-budget1-seed1/result.json", b'{"rows": [3]}'),
        ("agents/exact-budget1-seed1/result.json", b"[" * 100_000),
        ("base/result.json", b"null"),
        ("agents/exact-budget1-seed0/updates.json", b'{"settings": null}'),
    ],
)
def test_going_on_mends_what_is_damaged(finished, settings, tmp_path, name, damage, sealed):
    """Whether the run was finished, so that its manifest has hashes, or stopped just before."""
    out, rows = finished
    copy = Path(shutil.copytree(out, tmp_path / "copy"))
    if damage is None:
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(damage)
    if sealed:
        with pytest.raises(ResultsError, match=f"{name} is missing or has changed since"):
            RunFolder.check_unchanged(SimpleNamespace(folder=copy, manifest=read_manifest(copy)))
    else:
        manifest = read_manifest(copy)
        del manifest["sha256"]
        write_json(copy / "manifest.json", manifest)
    assert silently(settings, copy) == rows
    assert contents(copy) == contents(out)
    assert_same_episodes(copy, out)
    read_run(copy).check_unchanged()


@pytest.mark.parametrize("name", ["agents/exact-budget1-seed0/result.json", "base/result.json"])
def test_a_folder_in_the_place_of_a_file_is_one_line(finished, settings, tmp_path, name):
    out, _ = finished
    copy = Path(shutil.copytree(out, tmp_path / "copy"))
    (copy / name).unlink()
    (copy / name).mkdir()
    with pytest.raises(ResultsError, match=r"cannot delete .*/result\.json.*remove it by hand"):
        silently(settings, copy)


def test_a_damaged_agent_is_trained_again_and_a_deleted_one_is_not_missed(
    finished, settings, tmp_path
):
    out, rows = finished
    copy = Path(shutil.copytree(out, tmp_path / "copy"))
    agents = [
        copy / "agents" / f"exact-budget1-seed{seed}" / "agent.safetensors" for seed in (0, 1)
    ]
    agents[0].unlink()
    read_run(copy).check_unchanged()
    agents[1].write_bytes(b"0" * 100)
    with pytest.raises(ResultsError, match=r"seed1/agent\.safetensors is missing or has changed"):
        read_run(copy).check_unchanged()
    assert silently(settings, copy) == rows
    assert not agents[0].exists()
    assert agents[1].read_bytes() == (out / agents[1].relative_to(copy)).read_bytes()


def test_going_on_mends_the_episodes_of_a_run_of_before(old, finished):
    """Its results say nothing of files, but broken episodes cannot be read."""
    out, settings, zero_rows = old
    path = out / "agents" / "exact-budget1-seed0" / EPISODES
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert silently(settings, out) == [*zero_rows, *finished[1]]
    with np.load(path) as mended, np.load(finished[0] / path.relative_to(out)) as expected:
        for name in expected.files:
            np.testing.assert_array_equal(mended[name], expected[name])


# ----------------------------------------------------------------- real processes


@pytest.mark.slow
def test_kill_9_of_two_processes_loses_one_update_at_most(finished, settings, tmp_path):
    out, expected = finished
    world = settings.agent.world
    argv = [
        sys.executable, "-m", "llm_experiment.run", "--out", str(tmp_path / "run"),
        "--base-model", world.base_model, "--reward-model", world.reward_model,
        "--budgets-nats", "1", "--n-seeds", "2", "--realized-budgets-nats", "--control-shifts",
        "--evaluation-lengths", str(PROMPT_TOKENS + 5), str(PROMPT_TOKENS + 9),
        "--n-evaluation-episodes", "3", "--n-base-episodes", "5",
        "--n-episodes", "4", "--ppo.n-epochs", "1",
        "--stages.0.agent-steps", "60", "--stages.0.n-tokens", str(PROMPT_TOKENS + 5),
        "--stages.0.ramp-fraction", "0",
    ]  # fmt: skip
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 400
    while not list((tmp_path / "run").rglob("agent.safetensors")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    again = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert contents(tmp_path / "run") == contents(out)
    assert_same_episodes(tmp_path / "run", out)
    del expected
