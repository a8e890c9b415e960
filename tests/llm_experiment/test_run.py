"""A run is a folder: complete, resumable without a trace, and nobody else's."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from llm_experiment.agent.ppo import LockstepPPO
from llm_experiment.config import Fidelity, Preset, preset_config
from llm_experiment.records.folder import exclusive, hash_file, read_manifest
from llm_experiment.run import Options, Settings, main, parse_options, run, run_job
from llm_experiment.suite import Suite, suite_jobs
from mightnt.command_line import BAD_USAGE, INTERRUPTED
from tests.llm_experiment.tiny_run import (
    PROMPT_TOKENS,
    assert_same_episodes,
    contents,
    tiny_models,
    tiny_settings,
)
from theory.errors import ResultsError


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def settings(models) -> Settings:
    return tiny_settings(models)


def silently(settings: Settings, out: Path) -> list[dict]:
    """The rows of the summary of a run, made or finished here."""
    run(Options(out=out, processes=1, settings=settings), Console(quiet=True))
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


# ----------------------------------------------------------------- command line


def test_every_preset_is_where_its_options_start_from():
    options = parse_options(["--preset", "paper", "--fidelity", "published", "--n-seeds", "1"])
    assert options.settings.agent == preset_config(Preset.PAPER, Fidelity.PUBLISHED)
    assert options.settings.agents.budgets_nats == (10.0, 20.0)
    assert options.settings.agents.n_seeds == 1
    default = parse_options([])
    assert default.settings.agent == preset_config(Preset.TINY)
    assert default.settings.suite is Suite.DEFAULT


def test_options_change_what_the_preset_gave():
    options = parse_options(
        ["--base-model", "some/model", "--ppo.clip-range", "0.3", "--stages.0.n-tokens", "99"]
    )
    agent = options.settings.agent
    assert (agent.world.base_model, agent.ppo.clip_range) == ("some/model", 0.3)
    assert agent.stages[0].n_tokens == 99
    assert agent.stages[0].agent_steps == preset_config(Preset.TINY).stages[0].agent_steps


def test_quick_is_two_agents_and_says_so():
    settings = parse_options(["--quick"]).settings
    assert settings.quick
    assert len(suite_jobs(settings.agent, settings.agents)) == 2
    assert "quick" in settings.label
    assert "quick" not in parse_options([]).settings.label


def one_line_error(capsys, *argv):
    with pytest.raises(SystemExit) as exit_:
        main(list(argv))
    assert exit_.value.code == BAD_USAGE
    *_, line = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--preset", "small"], "small"),
        (["--suite", "huge"], "huge"),
        (["--budgets-nats", "-1"], "budgets must be >= 0 nats, got -1.0"),
        (["--budgets-nats", "nan"], "got nan"),
        (["--ppo.clip-range", "0"], "clip_range must be > 0 and finite, got 0.0"),
        (["--stages.0.n-tokens", "1"], "n_tokens of a stage must be >= 2 and finite, got 1"),
        (["--processes", "0"], "processes must be >= 1"),
        (["--base-model", "/no/such/folder"], "/no/such/folder"),
        (["--device", "cuda:77"], "cuda:77"),
        (["--agent-device", "cuda:77"], "device cuda:77 cannot be used on this machine"),
        (["--task", "opera"], "opera"),
        (["--stages.0.n-tokens", "20"], "the prompt has 37 tokens and the episode only 20"),
        (["--evaluation-lengths", "20"], "the prompt has 37 tokens and the episode only 20"),
        (["--evaluation-lengths", "9999"], "do not fit the language model, which reads at most"),
        (["--agent-name", "Nobody"], "Nobody:"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(argv, words, capsys, tmp_path, models):
    given = [
        "--base-model", str(models / "language_model"),
        "--reward-model", str(models / "reward_model"),
        "--out", str(tmp_path / "run"), "--processes", "1", *argv,
    ]  # fmt: skip
    assert words in one_line_error(capsys, *given)


def test_ctrl_c_exits_with_its_own_code(monkeypatch, tmp_path):
    def interrupted(options, console):
        raise KeyboardInterrupt

    monkeypatch.setattr("llm_experiment.run.run", interrupted)
    with pytest.raises(SystemExit) as exit_:
        main(["--out", str(tmp_path)])
    assert exit_.value.code == INTERRUPTED


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
        "--n-evaluation-episodes", "3", "--n-episodes", "4", "--ppo.n-epochs", "1",
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
