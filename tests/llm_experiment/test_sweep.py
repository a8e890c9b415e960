"""A sweep is runs, each complete in its folder, and one table; here and on a cluster alike."""

import csv
import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from llm_experiment.agent.ppo import LockstepPPO
from llm_experiment.config import Fidelity, Preset, preset_config
from llm_experiment.jobs import run_suite
from llm_experiment.measures.tables import BASE_ROW, shown
from llm_experiment.records.folder import exclusive, read_manifest
from llm_experiment.suite import suite_agents
from llm_experiment.sweep import (
    Options,
    SweepSettings,
    main,
    only_adds_agents,
    parse_options,
    sweep,
    sweep_runs,
)
from llm_experiment.sweep_tables import FinishedRun, joined, narrowed, write_sweep_tables
from mightnt.command_line import BAD_USAGE, INTERRUPTED
from mightnt.results import to_jsonable
from mightnt.statistics import MeanOverRuns
from mightnt.table_files import cell_values
from mightnt.tables import Column, Table
from tests.llm_experiment.fakes.report_run import settings as report_settings
from tests.llm_experiment.fakes.report_run import write_run
from tests.llm_experiment.fakes.tiny_run import (
    PROMPT_TOKENS,
    assert_same_episodes,
    contents,
    tiny_models,
    tiny_settings,
)
from theory.budget import Accounting
from theory.errors import InvalidArgumentError, ResultsError

LENGTHS = (PROMPT_TOKENS + 5, PROMPT_TOKENS + 7)
RUNS = [f"classroom-length{length}" for length in LENGTHS]
SEEDS = ("exact-budget1-seed0", "exact-budget1-seed1")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def settings(models) -> SweepSettings:
    """Two lengths of two seeds, each agent of three updates."""
    return SweepSettings(lengths=LENGTHS, run=tiny_settings(models))


def silently(settings: SweepSettings, out: Path, **options) -> tuple[Table, ...]:
    options = {"processes": 1} | options
    return sweep(Options(out=out, settings=settings, **options), Console(quiet=True))


@pytest.fixture(scope="module")
def finished(settings, tmp_path_factory):
    """A finished sweep: its folder and its tables."""
    out = tmp_path_factory.mktemp("finished") / "sweep"
    return out, silently(settings, out)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# ----------------------------------------------------------------- which runs


def test_a_sweep_is_the_product_of_its_lists(settings):
    runs = sweep_runs(replace(settings, fidelities=tuple(Fidelity)))
    assert [run.name for run in runs] == [
        f"{name}-{fidelity.value}" for name in RUNS for fidelity in Fidelity
    ]
    wanted = [(length, fidelity) for length in LENGTHS for fidelity in Fidelity]
    for found, (length, fidelity) in zip(runs, wanted, strict=True):
        assert [stage.n_tokens for stage in found.settings.agent.stages] == [length]
        published = fidelity is Fidelity.PUBLISHED
        accounting = Accounting.REALIZED if published else Accounting.EXACT
        assert found.settings.agent.constraint.accounting is accounting
        assert found.settings.fidelity is fidelity


def test_runs_of_variants_of_a_task_stand_side_by_side():
    runs = sweep_runs(SweepSettings(tasks=("support_desk", "support_desk/any")))
    assert [run.name for run in runs] == ["support_desk", "support_desk-any"]
    assert [run.settings.agent.world.task for run in runs] == ["support_desk", "support_desk/any"]


def test_the_published_constraint_is_not_compared_with_itself():
    whole = SweepSettings(fidelities=tuple(Fidelity))
    ours, published = sweep_runs(whole)
    assert {job.config.constraint.accounting for job in ours.jobs} == set(Accounting)
    names = [job.name for job in published.jobs]
    ours_all = suite_agents(ours.settings.agent, ours.settings.agents)
    assert len(set(names)) == len(names) == len(ours_all) - 2
    zeros = [name for name in names if "budget0" in name]
    assert len(zeros) == len(ours_all) - len(ours.jobs) == 3, "its targets are never 0"


def test_without_lists_a_sweep_is_one_run_as_given(settings):
    (only,) = sweep_runs(SweepSettings(run=settings.run))
    assert only.name == "classroom"
    assert only.settings == settings.run


@pytest.mark.parametrize("name", ["tasks", "lengths", "fidelities"])
def test_equal_runs_are_refused(name):
    twice = {"tasks": ("classroom",) * 2, "lengths": (9, 9), "fidelities": (Fidelity.OURS,) * 2}
    with pytest.raises(InvalidArgumentError, match=f"{name} must name everything once"):
        SweepSettings(**{name: twice[name]})


# ----------------------------------------------------------------- what it leaves


def test_every_run_of_a_sweep_is_a_run(finished, settings, tmp_path):
    out, _ = finished
    alone, *_ = sweep_runs(settings)
    run_suite(alone.settings, tmp_path, n_processes=1, console=Console(quiet=True))
    assert contents(out / alone.name) == contents(tmp_path)
    assert_same_episodes(out / alone.name, tmp_path)
    for name in RUNS:
        assert "sha256" in read_manifest(out / name)
        for seed in SEEDS:
            updates = json.loads((out / name / "agents" / seed / "updates.json").read_text())
            assert [record["update"] for record in updates] == [1, 2, 3]


def test_the_table_of_a_sweep_has_the_rows_of_all_runs_and_their_columns(finished):
    out, tables = finished
    own = [json.loads((out / name / "tables.json").read_text())["tables"] for name in RUNS]
    assert [table.name for table in tables] == [one["name"] for one in own[0]]
    for index, table in enumerate(tables):
        columns = own[0][index]["columns"]
        names = {"task": "task", "constraint": "constraint", "trained_at_n_tokens": "trained at"}
        assert {c.name: c.header for c in shown(table).columns} == names | columns
        found = [
            (row["trained_at_n_tokens"], *(to_jsonable(row[key]) for key in columns))
            for row in table.records
        ]
        expected = [
            (None if row["agent"] == BASE_ROW else length, *(row[k] for k in columns))
            for length, one in zip(LENGTHS, own, strict=True)
            for row in one[index]["rows"]
            if row["agent"] != BASE_ROW or length == LENGTHS[0]
        ]
        assert found == expected
        assert {(row["task"], row["constraint"]) for row in table.records} <= {
            ("classroom", "ours")
        }
    assert sum(len(table.rows) for table in tables) > 20


def test_the_csv_files_hold_every_number(finished):
    out, tables = finished
    silence = next(table for table in tables if table.name == "silence")
    wide = rows_of(out / "table.csv")
    assert len(wide) == len(silence.rows)
    for row, expected in zip(wide, silence.records, strict=True):
        length = cell_values(expected["length"])[""]
        assert (row["agent"], row["length"]) == (expected["agent"], str(length))
        share = expected["silent_share"]
        assert math.isclose(float(row["silent_share"]), share.mean)
        if share.low is not None:
            assert float(row["silent_share_low"]) == share.low
            assert float(row["silent_share_high"]) == share.high
    assert {"spent_nats_mean", "reply_reward_mean"} <= set(wide[0])
    single = rows_of(out / "runs.csv")
    assert [(row["agent"], row["n_tokens"]) for row in single] == [
        (seed, str(PROMPT_TOKENS + extra)) for _ in RUNS for seed in SEEDS for extra in (5, 9)
    ]
    lines = (out / "tables.agents.jsonl").read_text().splitlines()
    for row, line in zip(single, lines, strict=True):
        values = {k: "" if v is None else str(v) for k, v in json.loads(line).items()}
        assert values == row
    trained_at = [int(row["trained_at_n_tokens"]) for row in single]
    assert trained_at == [length for length in LENGTHS for _ in range(4)]


def test_a_terminal_is_shown_only_what_sets_the_runs_apart(finished):
    _, (headline, *_) = finished
    names = {column.name for column in narrowed(headline).columns}
    assert "trained_at_n_tokens" in names
    assert {column.name for column in headline.columns} - names == {"task", "constraint"}
    assert len(narrowed(headline).rows) == len(headline.rows)


def test_rows_that_runs_share_appear_once_and_notes_say_of_which_task_they_are():
    def table(task, share, note):
        values = MeanOverRuns(values=(share,), mean=share, low=None, high=None)
        return {"task": task, "constraint": "ours", "trained_at_n_tokens": "9"}, [
            Table(
                name="silence",
                title="Silence",
                notes=("for all", note),
                columns=(Column(header="agent"), Column(header="share", format=".2f")),
                rows=((BASE_ROW, values),),
            )
        ]

    runs = [table("a", 0.5, "p = 1"), table("a", math.nan, "p = 1"), table("b", 0.25, "p = 2")]
    (whole,) = joined(runs)
    assert [(row["task"], row["share"].mean) for row in whole.records] == [("a", 0.5), ("b", 0.25)]
    assert whole.notes == ("for all", "a: p = 1", "b: p = 2")


def test_turns_of_the_base_policy_are_rows_of_their_own():
    columns = (Column(header="agent"), Column(header="turn"), Column(header="KL", format=".2f"))
    prices = Table(
        name="prices",
        title="Prices",
        columns=columns,
        rows=tuple((BASE_ROW, str(turn), 1.0 / turn) for turn in (1, 2, 5)),
    )
    runs = [({"task": "a", "constraint": c, "trained_at_n_tokens": "9"}, [prices]) for c in "xx"]
    (whole,) = joined(runs)
    assert [row["turn"] for row in whole.records] == ["1", "2", "5"]


# ----------------------------------------------------------------- going on


def test_a_finished_sweep_is_not_trained_again(finished, settings, monkeypatch):
    out, tables = finished
    before = contents(out)
    monkeypatch.setattr(LockstepPPO, "finish", None)
    assert str(silently(settings, out)) == str(tables)
    assert contents(out) == before


@pytest.mark.parametrize("survivors", [0, 4, 12])
def test_an_interrupted_sweep_goes_on_as_if_nothing_had_happened(
    finished, settings, tmp_path, monkeypatch, survivors
):
    """However many of the 12 updates were saved before Ctrl-C came."""
    saved = []
    save = LockstepPPO.save

    def interrupted(agent, path, *arguments):
        if len(saved) == min(survivors, 11):
            raise KeyboardInterrupt
        saved.append(path)
        save(agent, path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LockstepPPO, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            silently(settings, tmp_path)
    silently(settings, tmp_path)
    out, _ = finished
    assert contents(tmp_path) == contents(out)
    assert_same_episodes(tmp_path, out)


def test_a_folder_of_another_sweep_is_refused_and_left_alone(finished, settings):
    out, _ = finished
    before = contents(out)
    with pytest.raises(ResultsError, match=r"settings\.lengths \[42, 44\] and \[42\]"):
        silently(replace(settings, lengths=LENGTHS[:1]), out)
    assert contents(out) == before


@pytest.mark.parametrize("inner", ["", RUNS[1]])
def test_a_folder_that_another_process_writes_to_is_refused(settings, tmp_path, inner):
    with exclusive(tmp_path / inner), pytest.raises(ResultsError, match="another process is wri"):
        silently(settings, tmp_path)


# ----------------------------------------------------------------- command line


def test_options_are_those_of_a_run_and_the_lists():
    options = parse_options(
        ["--preset", "paper", "--lengths", "256", "512", "--fidelities", "ours", "published",
         "--budgets-nats", "20", "--n-seeds", "1"]
    )  # fmt: skip
    runs = sweep_runs(options.settings)
    assert len(runs) == 4
    assert options.processes == 1
    ours, published, *_ = runs
    paper = preset_config(Preset.PAPER)
    assert ours.settings.agent.ppo == paper.ppo
    assert [stage.n_tokens for stage in published.settings.agent.stages] == [256] * 3
    steps = [stage.agent_steps for stage in ours.settings.agent.stages]
    assert steps == [3_000_000, 3_000_000, 1_500_000], "as many updates of shorter episodes"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--lengths", "1"], "lengths must be >= 2 and finite, got 1"),
        (["--lengths", "99", "99"], "lengths must name everything once, got (99, 99)"),
        (["--tasks", "opera"], "opera"),
        (["--fidelities", "theirs"], "theirs"),
        (["--processes", "0"], "processes must be >= 1"),
        (["--cluster", "slurm"], "'slurm' is no cluster; name one as ray, ray:HOST:PORT"),
        (["--cluster", "dask:h:1"], "a sweep needs a Ray cluster, got 'dask:h:1'"),
        (["--retries", "-1"], "retries must be >= 0"),
        (["--cluster", "ray", "--device", "cuda"], "gpus_per_agent must be > 0 for device 'cuda'"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(argv, words, capsys, tmp_path):
    assert words in one_line_error(capsys, "--out", str(tmp_path), *argv)


def one_line_error(capsys, *argv):
    with pytest.raises(SystemExit) as exit_:
        main(list(argv))
    assert exit_.value.code == BAD_USAGE
    *_, line = capsys.readouterr().err.splitlines()
    return line


def test_the_command_ends_with_the_headline_and_a_report_of_every_run(finished, models, capsys):
    """On a sweep that is done: the options below are its settings."""
    out, _ = finished
    main(
        ["--out", str(out), "--processes", "1", "--lengths", *map(str, LENGTHS),
         "--base-model", str(models / "language_model"),
         "--reward-model", str(models / "reward_model"),
         "--budgets-nats", "1", "--n-seeds", "2", "--realized-budgets-nats", "--control-shifts",
         "--evaluation-lengths", str(PROMPT_TOKENS + 5), str(PROMPT_TOKENS + 9),
         "--n-evaluation-episodes", "3", "--n-base-episodes", "5",
        "--n-episodes", "4", "--ppo.n-epochs", "1",
         "--stages.0.agent-steps", "60", "--stages.0.n-tokens", str(PROMPT_TOKENS + 5),
         "--stages.0.ramp-fraction", "0"]
    )  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("exact budget" in line for line in lines) == len(RUNS)
    for name in RUNS:
        assert "<html" in (out / name / "report.html").read_text()


def test_without_ray_a_cluster_is_refused_with_what_to_install(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # how Python marks what is not there
    line = one_line_error(capsys, "--out", str(tmp_path), "--cluster", "ray:h:1")
    assert line == "error: --cluster needs ray; install it with: pip install 'mightnt[ray]'"


def test_ctrl_c_exits_with_its_own_code(monkeypatch, tmp_path):
    def interrupted(options, console):
        raise KeyboardInterrupt

    monkeypatch.setattr("llm_experiment.sweep.sweep", interrupted)
    with pytest.raises(SystemExit) as exit_:
        main(["--out", str(tmp_path)])
    assert exit_.value.code == INTERRUPTED


def test_a_sweep_grows_by_runs_and_agents_and_by_nothing_else():
    few = SweepSettings(lengths=(48,))
    more_runs = SweepSettings(lengths=(48, 64))
    agents = replace(few.run.agents, n_seeds=few.run.agents.n_seeds + 1)
    more_agents = replace(few, run=replace(few.run, agents=agents))
    other = replace(few, run=replace(few.run, agent=replace(few.run.agent, n_episodes=3)))
    assert only_adds_agents(few, more_runs)
    assert only_adds_agents(few, more_agents)
    assert not only_adds_agents(more_runs, few)
    assert not only_adds_agents(more_agents, few)
    assert not only_adds_agents(few, other)


def test_runs_of_tasks_with_other_behaviours_share_words_for_any(tmp_path):
    """Headers and notes that said one task's behaviour would be wrong of the other's rows."""
    runs = []
    for task in ("classroom", "quiz"):
        asked = report_settings(n_seeds=1)
        world = replace(asked.agent.world, task=task)
        asked = replace(asked, agent=replace(asked.agent, world=world))
        folder = write_run(tmp_path / task, asked)
        runs.append(FinishedRun(folder=folder, task=task, constraint="ours", n_tokens=24))
    (headline, *_) = write_sweep_tables(tmp_path / "sweep", runs, "two tasks")
    text = re.sub(r"`\w+`", "", (tmp_path / "sweep" / "tables.md").read_text())
    assert "marked episodes" in [column.header for column in headline.columns]
    assert "silen" not in text
    assert "both-ways" not in text
    assert "silent episodes" in (tmp_path / "classroom" / "tables.md").read_text()
    assert "both-ways episodes" in (tmp_path / "quiz" / "tables.md").read_text()
    (alone, *_) = write_sweep_tables(tmp_path / "one", runs[1:], "one task")
    assert "both-ways episodes" in [column.header for column in alone.columns]
