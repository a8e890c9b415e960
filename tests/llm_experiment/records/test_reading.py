"""A run is read as it was written; folders that belong together are one experiment."""

import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest

from llm_experiment.chat.turn_records import Turns, agent_turns
from llm_experiment.evaluation_tables import write_tables
from llm_experiment.measures.metrics import row_to_json
from llm_experiment.records.folder import claim_folder, read_settings
from llm_experiment.records.reading import (
    StoredEpisodes,
    difference_between,
    grouped,
    join_runs,
    read_experiment,
    read_run,
)
from llm_experiment.settings import Settings
from tests.llm_experiment.fakes.recorded_run import RECORDED, copied
from theory.errors import MissingDataError, ResultsError

AGENTS = ("exact-budget0-seed0", "exact-budget3-seed0", "realized-budget3-seed0")


@pytest.fixture(scope="module")
def run():
    return read_run(RECORDED)


@pytest.fixture
def copy(tmp_path):
    return copied(tmp_path)


def edit_manifest(folder, change):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


# ----------------------------------------------------------------- one folder


def test_a_run_of_before_is_read_with_the_rows_of_its_summary(run):
    summary = json.loads((RECORDED / "summary.json").read_text())
    for rows, stored in ((run.rows, summary["rows"]), (run.base.rows, summary["base"]["rows"])):
        for row, before in zip(rows, stored, strict=True):
            after = row_to_json(row)
            assert {name: after[name] for name in before} == before
            assert {after[name] for name in after.keys() - before.keys()} == {"nan"}  # since then
    assert tuple(run.agents) == AGENTS
    assert run.finished
    assert run.label == summary["label"]
    assert run.agent.stages[0].n_tokens == 72
    assert run.suite.budgets_nats == (0.0, 3.0)


def test_a_run_of_before_has_the_tables_that_it_had(copy):
    """But for the base policy's name and intervals, and whole numbers, which were texts."""
    before = json.loads((copy / "tables.json").read_text())
    write_tables(copy)
    after = json.loads((copy / "tables.json").read_text())
    assert [table["name"] for table in after["tables"]] == [t["name"] for t in before["tables"]]
    n_compared = 0
    for old, new in zip(before["tables"], after["tables"], strict=True):
        assert old["columns"].keys() == new["columns"].keys()
        assert old["formats"] == new["formats"]
        for old_row, new_row in zip(old["rows"], new["rows"], strict=True):
            assert old_row.keys() == new_row.keys()
            base = old_row["agent"] == "base policy"
            for key, cell in old_row.items():
                n_compared += 1
                if base and isinstance(cell, dict):
                    assert (new_row[key]["values"], new_row[key]["mean"]) == (
                        cell["values"],
                        cell["mean"],
                    )
                elif base and key == "agent":
                    assert new_row[key] == "base policy (budget 0)"
                elif isinstance(cell, str) and cell.isdigit():
                    assert new_row[key] == int(cell)
                elif isinstance(cell, float):
                    assert new_row[key] == pytest.approx(cell, rel=1e-11)
                else:
                    assert new_row[key] == cell
    assert n_compared > 200


def test_a_run_of_before_can_be_gone_on_with(copy):
    saved = json.loads((copy / "manifest.json").read_text())
    settings = read_settings(Settings, saved["settings"], copy)
    claim_folder(copy, settings, label="", models=saved["models"])
    after = json.loads((copy / "manifest.json").read_text())
    assert after["label"] == "tiny, default suite"
    assert len(after["starts"]) == 2


def test_episodes_are_read_when_they_are_asked_for(run):
    for evaluations in run.agents.values():
        (evaluated,) = evaluations
        stored = evaluated.episodes.arrays("spent_nats", "tokens", optional=("tokens", "colour"))
        assert set(stored) == {"spent_nats", "tokens"}
        assert stored["tokens"].shape == (12, evaluated.n_tokens)
        spending = evaluated.numbers.spending
        assert stored["spent_nats"].mean() == pytest.approx(spending.spent_nats_mean)


def test_turns_are_counted_as_they_were_when_the_run_was_evaluated(run):
    for evaluated in [run.bases[0], *(own[0] for own in run.agents.values())]:
        counts, behaviour = evaluated.turn_counts(), evaluated.numbers.behaviour
        assert counts.turns.mean() == pytest.approx(behaviour.turns_mean)
        assert counts.silent.mean() == behaviour.silent_share
        assert counts.pooled_empty_share == behaviour.empty_share
        turns, empty, prompt_length = evaluated.episodes.turns()
        assert isinstance(turns, Turns)
        own = agent_turns(turns, prompt_length=prompt_length)
        assert own.sum() == counts.turns.sum()
        assert len(empty) == len(own)


def test_training_is_read_update_by_update(run):
    records = run.updates(AGENTS[1])
    assert [record["update"] for record in records] == list(range(1, len(records) + 1))
    assert run.updates("nobody") == []


def test_an_unfinished_run_says_what_is_missing(copy):
    (copy / "agents" / AGENTS[1] / "result.json").unlink()
    run = read_run(copy)
    assert not run.finished
    assert run.missing == (AGENTS[1],)
    assert run.label == "tiny, default suite; unfinished: 2 of 3 agents evaluated"
    assert {each.label for own in run.agents.values() for each in own} == {run.label}
    with pytest.raises(ResultsError, match=rf"{AGENTS[1]} is not evaluated yet; finish the run"):
        run.check_finished()
    shutil.rmtree(copy / "base")
    run = read_run(copy)
    assert (run.base, run.bases) == (None, ())
    assert run.missing == (AGENTS[1], "base")


def test_an_agent_of_budget_0_need_not_be_finished(copy):
    """Older versions trained it; it is the base policy."""
    (copy / "agents" / AGENTS[0] / "result.json").unlink()
    begun = read_run(copy)
    assert [job.name for job in begun.jobs] == list(AGENTS)
    assert begun.finished
    assert begun.label == "tiny, default suite"
    assert len(begun.updates(AGENTS[0])) > 1
    shutil.rmtree(copy / "agents" / AGENTS[0])
    assert [job.name for job in read_run(copy).jobs] == list(AGENTS[1:])


def test_options_that_are_younger_than_a_run_had_their_defaults(copy, run):
    def forget(manifest):
        del manifest["settings"]["agent"]["world"]["score_blank_replies"]
        del manifest["settings"]["agents"]["unconstrained"]

    edit_manifest(copy, forget)
    older = read_run(copy)
    assert (older.agent, older.suite) == (run.agent, run.suite)
    assert difference_between(older, run) == ""


def test_options_that_this_version_does_not_know_are_refused(copy):
    edit_manifest(copy, lambda manifest: manifest["settings"]["agent"].update(colour="red"))
    with pytest.raises(ResultsError, match=r"another version .*colour"):
        read_run(copy)


def test_what_is_no_run_is_refused(tmp_path, copy):
    with pytest.raises(ResultsError, match="name the folder of a run"):
        read_run(tmp_path)
    edit_manifest(copy, lambda manifest: manifest.update(settings={"lengths": []}))
    with pytest.raises(ResultsError, match="not the folder of a single run"):
        read_run(copy)


@pytest.mark.parametrize("text", ["{", "3", "[{}]", '[{"n_episodes": 3}]'])
def test_a_broken_result_is_one_line(copy, text):
    (copy / "agents" / AGENTS[0] / "result.json").write_text(text)
    with pytest.raises(ResultsError, match=r"cannot read .*result\.json.*delete it and finish"):
        read_run(copy)
    (copy / "agents" / AGENTS[0] / "result.json").write_text("[]")
    (copy / "base" / "result.json").write_text(text)
    with pytest.raises(ResultsError, match=r"cannot read .*base/result\.json"):
        read_run(copy)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 but no more", None, "half"])
def test_broken_episodes_are_one_line(copy, damage):
    path = copy / "base" / "episodes-72.npz"
    if damage == "half":
        damage = path.read_bytes()[: path.stat().st_size // 2]
    path.unlink() if damage is None else path.write_bytes(damage)
    with pytest.raises(ResultsError, match=r"cannot read .*episodes-72\.npz.*finish the run"):
        StoredEpisodes(path=path).arrays("tokens")


def test_an_array_that_was_not_stored_is_missing_data(run):
    with pytest.raises(MissingDataError, match="holds no first_word"):
        run.bases[0].episodes.arrays("tokens", "first_word")


# ----------------------------------------------------------------- several folders


def test_agents_are_found_by_what_sets_them_apart():
    experiment = read_experiment([RECORDED])
    assert experiment.main_variant == "exact budget"
    assert experiment.budgets_nats == (0.0, 3.0)
    assert experiment.lengths == (72,)
    assert [each.budget_nats for each in experiment.main_runs] == [0.0, 3.0]
    assert [each.variant for each in experiment.select(budget_nats=3.0)] == [
        "exact budget", "realized budget",
    ]  # fmt: skip
    assert all(each.row.as_trained for each in experiment.runs)
    assert experiment.select(as_trained=False) == ()
    assert experiment.base_at(72).n_tokens == 72
    assert experiment.base_at(65) is None
    assert experiment.closed_form.n_contexts == experiment.base.n_contexts


def test_an_agent_in_two_folders_is_taken_from_the_first(copy):
    edit_manifest(copy, lambda manifest: manifest.update(label="second"))
    result = copy / "agents" / AGENTS[1] / "result.json"
    row = json.loads(result.read_text())[0] | {"seed": 7}
    (copy / "agents" / "extra").mkdir()
    (copy / "agents" / "extra" / "result.json").write_text(json.dumps([row]))
    both = read_experiment([RECORDED, copy])
    labels = {each.seed: each.label for each in both.main_runs if each.budget_nats == 3.0}
    assert labels == {0: "tiny, default suite", 7: "second"}
    assert {base.label for base in both.bases} == {"tiny, default suite"}
    by_seed = grouped(both.select(variant="exact budget", budget_nats=3.0))
    assert [[each.seed for each in group] for group in by_seed] == [[0, 7]]


def test_folders_of_different_experiments_are_refused_by_what_differs(copy):
    def train_longer(manifest):
        manifest["settings"]["agent"]["stages"][0]["agent_steps"] = 1

    edit_manifest(copy, train_longer)
    message = r"different experiments \(agent\.stages\.0\.agent_steps 3000 and 1\)"
    with pytest.raises(ResultsError, match=message):
        read_experiment([RECORDED, copy])


def test_folders_of_different_models_are_refused(copy, run):
    edit_manifest(copy, lambda manifest: manifest["models"].update({"a/model": "0"}))
    other = read_run(copy)
    assert difference_between(run, other) == "models.a/model None and 0"
    with pytest.raises(ResultsError, match=r"different experiments \(models\.a/model"):
        join_runs([run, other])


def test_suites_may_differ(copy, run):
    edit_manifest(copy, lambda manifest: manifest["settings"]["agents"].update(n_seeds=2))
    assert len(read_experiment([RECORDED, copy]).folders) == 2
    assert not read_run(copy).finished


def test_without_an_evaluated_agent_data_are_missing(copy):
    for path in (copy / "agents").rglob("result.json"):
        path.unlink()
    with pytest.raises(MissingDataError, match=r"no agent in .* is finished.*make run"):
        read_experiment([copy])


# ----------------------------------------------------------------- what it needs


def test_reading_needs_no_learning_library():
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from llm_experiment.records.reading import read_experiment\n"
        f"experiment = read_experiment([Path({str(RECORDED)!r})])\n"
        "experiment.runs[0].turn_counts()\n"
        "names = ('torch', 'transformers', 'stable_baselines3', 'matplotlib', 'gymnasium')\n"
        "sys.exit(str([name for name in names if name in sys.modules] or ''))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_numbers_that_do_not_exist_are_nan(run):
    quiet = run.agents[AGENTS[1]][0].numbers
    assert math.isnan(quiet.value("empty_turn_kl_nats", 19, 0))
    assert np.isfinite(quiet.value("smoothed_kl_nats", 0))
