import errno
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from llm_experiment.records.folder import (
    claim_folder,
    exclusive,
    fingerprints,
    hash_file,
    read_manifest,
    record_hash,
    record_hashes,
)
from theory.errors import ResultsError


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Settings:
    inner: Inner = Inner()
    seeds: tuple[int, ...] = (0, 1)


def test_a_folder_is_one_process_at_a_time(tmp_path):
    folder = tmp_path / "new" / "run"
    with exclusive(folder):
        with pytest.raises(ResultsError, match="another process is writing to"), exclusive(folder):
            pass
        with (
            pytest.raises(ResultsError, match="another process"),
            exclusive(folder, patience_seconds=0.1),
        ):
            pass
    with exclusive(folder):
        pass


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ResultsError, match=r"cannot use .*name another --out"),
        exclusive(tmp_path / "file" / "run"),
    ):
        pass


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    message = r"keeps no locks \(flock: No locks available\); name an --out on one that does"
    with pytest.raises(ResultsError, match=message), exclusive(tmp_path):
        pass


def test_a_manifest_says_what_made_the_run_and_lists_every_start(tmp_path):
    claim_folder(tmp_path, Settings(), label="a trial", models={})
    claim_folder(tmp_path, Settings(), label="a trial", models={})
    manifest = read_manifest(tmp_path)
    assert manifest["label"] == "a trial"
    assert manifest["settings"] == {"inner": {"rate": 0.5}, "seeds": [0, 1]}
    assert len(manifest["starts"]) == 2
    start = manifest["starts"][0]
    assert {"time", "commit", "python", "machine", "versions"} == set(start)
    assert {"torch", "transformers", "stable-baselines3", "mightnt"} <= set(start["versions"])


def test_a_folder_of_other_settings_is_refused_by_what_differs(tmp_path):
    claim_folder(tmp_path, Settings(), label="", models={})
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(
        ResultsError, match=r"here: settings.inner.rate 0.5 and 0.25\); name another"
    ):
        claim_folder(tmp_path, Settings(inner=Inner(rate=0.25)), label="", models={})
    with pytest.raises(ResultsError, match=r"settings.seeds \[0, 1\] and \[3\]"):
        claim_folder(tmp_path, Settings(seeds=(3,)), label="", models={})
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_a_folder_of_other_weights_is_refused(tmp_path):
    model = tmp_path / "tiny" / "model"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"1" * 3_000_000)
    before = fingerprints(model, tmp_path / "absent")
    assert list(before) == ["tiny/model"]
    claim_folder(tmp_path, Settings(), label="", models=before)
    claim_folder(tmp_path, Settings(), label="", models=fingerprints(model))
    for other in (b"2" * 3_000_000, b"1" * 3_000_001):
        (model / "model.safetensors").write_bytes(other)
        with pytest.raises(ResultsError, match=r"another run .*models\.tiny/model \w+ and \w+"):
            claim_folder(tmp_path, Settings(), label="", models=fingerprints(model))


def test_an_option_that_is_younger_than_a_run_had_its_default_then(tmp_path):
    claim_folder(tmp_path, Settings(), label="a trial", models={})
    manifest = read_manifest(tmp_path)
    del manifest["settings"]["inner"]["rate"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    claim_folder(tmp_path, Settings(), label="a trial", models={})
    with pytest.raises(ResultsError, match=r"settings.inner.rate 0.5 and 0.25"):
        claim_folder(tmp_path, Settings(inner=Inner(rate=0.25)), label="a trial", models={})


def test_settings_of_another_command_are_another_run(tmp_path):
    claim_folder(tmp_path, Settings(), label="", models={})
    with pytest.raises(ResultsError, match=r"holds another run, or one of another version"):
        claim_folder(tmp_path, Inner(), label="", models={})


def test_a_finished_run_has_the_hash_of_every_file_but_its_manifest(tmp_path):
    claim_folder(tmp_path, Settings(), label="", models={})
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "a.json").write_bytes(b"[]")
    record_hashes(tmp_path, seconds=3.5)
    manifest = read_manifest(tmp_path)
    assert manifest["seconds"] == 3.5
    assert manifest["sha256"] == {"agents/a.json": hashlib.sha256(b"[]").hexdigest()}
    assert hash_file(tmp_path / "agents" / "a.json") == hashlib.sha256(b"[]").hexdigest()
    claim_folder(tmp_path, Settings(), label="", models={})
    assert "sha256" not in read_manifest(tmp_path)  # it is being written to again
    record_hashes(tmp_path, seconds=0.1)  # there was nothing left to do
    assert read_manifest(tmp_path)["seconds"] == 3.5


@pytest.mark.parametrize("text", [None, "{", "[]", '{"label": "x"}'])
def test_a_folder_without_a_readable_manifest_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ResultsError, match=r"cannot read .*manifest\.json.*llm_experiment\.run"):
        read_manifest(tmp_path)


def test_the_manifest_is_json_that_others_can_read(tmp_path):
    claim_folder(tmp_path, Settings(), label="", models={})
    text = Path(tmp_path / "manifest.json").read_text(encoding="utf-8")
    assert json.loads(text)["settings"]["seeds"] == [0, 1]


def test_a_file_that_comes_later_is_vouched_for_too_once_the_run_is(tmp_path):
    claim_folder(tmp_path, Settings(), label="", models={})
    late = tmp_path / "late.json"
    late.write_text("1")
    record_hash(tmp_path, late)
    assert "sha256" not in read_manifest(tmp_path)  # under way: sealing will list it
    record_hashes(tmp_path)
    late.write_text("2")
    record_hash(tmp_path, late)
    assert read_manifest(tmp_path)["sha256"] == {"late.json": hash_file(late)}


def test_hidden_files_are_no_part_of_a_run(tmp_path):
    claim_folder(tmp_path, Settings(), label="", models={})
    for name in (".lock", ".cache", "result.json"):
        (tmp_path / name).write_text("")
    record_hashes(tmp_path)
    assert list(read_manifest(tmp_path)["sha256"]) == ["result.json"]


def test_every_file_of_weights_counts_for_what_identifies_a_model(tmp_path):
    model = tmp_path / "task" / "model"
    model.mkdir(parents=True)
    for number in (1, 2):
        (model / f"model-{number}.safetensors").write_bytes(b"weights")
    before = fingerprints(model)
    (model / "model-2.safetensors").write_bytes(b"WEIGHTS")
    assert fingerprints(model) != before
