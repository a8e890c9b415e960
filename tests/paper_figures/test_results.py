"""An experiment is read from folders that belong together; what is not there is said."""

import json
import shutil

import pytest

from paper_figures.results import Sources, empty_rule, read_experiment
from theory.errors import MissingDataError, ResultsError


@pytest.fixture
def copy(run_folder, tmp_path):
    return shutil.copytree(run_folder, tmp_path / "copy")


def edit_manifest(folder, change):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_runs_are_found_by_what_sets_them_apart(sources):
    experiment = sources.experiment()
    assert experiment.main_variant == "exact budget"
    assert experiment.budgets_nats == experiment.shown_budgets() == (12.0, 40.0)
    assert experiment.lengths == (64, 80)
    assert [run.seed for run in experiment.select(variant="exact budget", n_tokens=80)] == [
        0,
        1,
        0,
        1,
    ]
    assert all(run.as_trained for run in experiment.main_runs)
    assert experiment.base_at(64).n_tokens == 64
    assert experiment.base_at(65) is None


def test_an_agent_in_two_folders_is_taken_from_the_first(run_folder, copy):
    edit_manifest(copy, lambda manifest: manifest.update(label="second"))
    (copy / "agents" / "extra").mkdir()
    result = copy / "agents" / "exact-budget12-seed0" / "result.json"
    row = json.loads(result.read_text())[0] | {"seed": 7}
    (copy / "agents" / "extra" / "result.json").write_text(json.dumps([row]))
    both = read_experiment([run_folder, copy])
    labels = {run.seed: run.label for run in both.main_runs if run.budget_nats == 12.0}
    assert labels == {0: "agents set by hand", 1: "agents set by hand", 7: "second"}


def test_an_unfinished_run_is_read_and_called_so(copy):
    (copy / "summary.json").unlink()
    (copy / "agents" / "exact-budget12-seed1" / "result.json").unlink()
    experiment = read_experiment([copy])
    assert {run.seed for run in experiment.main_runs if run.budget_nats == 12.0} == {0}
    assert {run.label for run in experiment.runs} == {"agents set by hand, unfinished"}


def test_folders_of_different_experiments_are_refused(run_folder, copy):
    def train_longer(manifest):
        manifest["settings"]["agent"]["stages"][0]["agent_steps"] = 1

    edit_manifest(copy, train_longer)
    with pytest.raises(ResultsError, match=r"different experiments \(agent\.stages"):
        read_experiment([run_folder, copy])


def test_a_setting_that_only_one_version_knows_does_not_matter(run_folder, copy):
    edit_manifest(copy, lambda manifest: manifest["settings"]["agent"].update(new_option=1))
    assert read_experiment([run_folder, copy]).folders == (run_folder, copy)


def test_a_run_without_a_finished_agent_is_missing_data(copy):
    shutil.rmtree(copy / "agents")
    with pytest.raises(MissingDataError, match=r"no agent in .* is finished"):
        read_experiment([copy])


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ResultsError, match="name the folder of a run"):
        read_experiment([tmp_path])


def test_without_a_run_the_commands_are_named():
    with pytest.raises(MissingDataError, match=r"make run.*python -m llm_experiment\.run"):
        Sources(found=None).experiment()


def test_episodes_that_are_gone_are_reported(copy):
    for path in copy.rglob("*.npz"):
        path.unlink()
    with pytest.raises(ResultsError, match="make it again"):
        read_experiment([copy]).runs[0].arrays("tokens")


def test_an_array_that_was_not_stored_is_missing_data(sources):
    with pytest.raises(MissingDataError, match="holds no first_word"):
        sources.experiment().runs[0].arrays("first_word")


def test_what_counts_as_empty_is_said_beside_the_published_definition(sources):
    rule = empty_rule(sources.experiment().runs)
    assert "at most 3 tokens with this tokenizer" in rule
    assert "published: at most 4" in rule
