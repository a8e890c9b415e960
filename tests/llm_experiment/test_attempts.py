"""Only the last attempt at a job may write, and nothing that is done is done again."""

import json
import os
from dataclasses import asdict

import pytest

from llm_experiment import attempts
from llm_experiment.agent.ppo import LockstepPPO
from llm_experiment.attempts import (
    ATTEMPTS_FILE,
    attempt_job,
    begin_attempt,
    check_last,
    read_attempts,
    with_versions,
)
from llm_experiment.records.folder import exclusive, hash_file, versions
from llm_experiment.suite import suite_jobs
from tests.llm_experiment.fakes.tiny_run import contents, tiny_models, tiny_settings
from theory.errors import ResultsError


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def suite(models):
    """The first of two jobs, and how to evaluate it."""
    settings = tiny_settings(models)
    job, _ = suite_jobs(settings.agent, settings.agents)
    return job, settings.agents


@pytest.fixture(scope="module")
def finished(suite, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "job"
    return folder, attempt_job(*suite, folder)


def test_an_attempt_says_who_is_at_work(finished):
    folder, _ = finished
    (attempt,) = read_attempts(folder)
    assert attempt["pid"] == os.getpid()
    assert attempt["machine"] == os.uname().nodename


def test_a_finished_job_is_not_begun_again(finished, suite, monkeypatch):
    folder, rows = finished
    before = {path: hash_file(path) for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(LockstepPPO, "__init__", None)
    assert attempt_job(*suite, folder) == rows
    assert {path: hash_file(path) for path in folder.rglob("*") if path.is_file()} == before


def test_the_last_attempt_alone_may_write(tmp_path):
    first = begin_attempt(tmp_path)
    check_last(tmp_path, first)
    second = begin_attempt(tmp_path)
    check_last(tmp_path, second)
    with pytest.raises(ResultsError, match=f"process {os.getpid()} on .* has taken over"):
        check_last(tmp_path, first)
    assert read_attempts(tmp_path) == [asdict(first), asdict(second)]


@pytest.mark.parametrize("n_saved", [1, 2, 3])
def test_an_overtaken_attempt_writes_nothing_and_the_next_loses_nothing(
    n_saved, finished, suite, tmp_path, monkeypatch
):
    """The lock does not reach: another attempt begins after `n_saved` updates are on disk."""
    done, expected = finished
    folder = tmp_path / "job"
    saved = []
    save = LockstepPPO.save

    def overtaken(agent, path):
        save(agent, path)
        saved.append(path)
        if len(saved) == n_saved:
            begin_attempt(folder)

    with monkeypatch.context() as patch:
        patch.setattr(LockstepPPO, "save", overtaken)
        with pytest.raises(ResultsError, match="has taken over from this one"):
            attempt_job(*suite, folder)
    assert len(saved) == n_saved
    assert not (folder / "result.json").exists()
    assert attempt_job(*suite, folder) == expected
    assert len(read_attempts(folder)) == 3
    records = json.loads((folder / "updates.json").read_text())
    assert [record["update"] for record in records] == [1, 2, 3]
    (folder / ATTEMPTS_FILE).unlink()
    assert contents(folder).items() <= contents(done).items()


def test_an_attempt_that_is_overtaken_at_once_writes_nothing(suite, tmp_path, monkeypatch):
    def late(folder):
        attempt = begin_attempt(folder)
        begin_attempt(folder)
        return attempt

    monkeypatch.setattr(attempts, "begin_attempt", late)
    with pytest.raises(ResultsError, match="has taken over from this one"):
        attempt_job(*suite, tmp_path)
    assert set(contents(tmp_path)) == {ATTEMPTS_FILE}


def test_an_attempt_waits_for_the_lock(suite, tmp_path, monkeypatch):
    monkeypatch.setattr(attempts, "ORPHAN_SECONDS", 0.0)
    with exclusive(tmp_path), pytest.raises(ResultsError, match="another process is writing"):
        attempt_job(*suite, tmp_path)
    assert read_attempts(tmp_path) == []


def test_a_machine_with_other_versions_is_refused():
    assert with_versions(versions(), lambda: "done") == "done"
    other = versions() | {"torch": "1.0"}
    with pytest.raises(ResultsError, match=r"has torch .* in place of 1\.0, and numbers depend"):
        with_versions(other, lambda: "done")
