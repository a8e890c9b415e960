"""The command about the exact mixture."""

import json
from dataclasses import replace

import pytest

from llm_experiment.config import MIXTURE, WorldConfig
from llm_experiment.exact_mixture import STEM, Options, compute, main, make_tables
from llm_experiment.records.reading import read_run
from tests.llm_experiment.fakes.report_run import settings, write_run
from theory.errors import InvalidArgumentError, MightntError

SMALL = Options(demonstrations=(0, 2), n_contexts=2, n_steps=20, budgets_nats=(0.0, 2.0))
ARGV = [
    *("--demonstrations", "0", "2", "--n-contexts", "2", "--n-steps", "20"),
    *("--budgets-nats", "0", "2"),
]


def test_the_command_writes_tables_and_figure(tmp_path, capsys):
    main([*ARGV, "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "Price of a first answer of both under the exact mixture" in printed
    stored = json.loads((tmp_path / f"{STEM}.json").read_text())
    assert [each["n_demonstrations"] for each in stored["before"]] == [0, 2]
    assert stored["most"] == 17
    values = [each["value"] for each in stored["played"]]
    assert values[0]["lower"] == pytest.approx(8.57, abs=0.01)
    assert values[0]["upper"] < values[1]["lower"] < values[1]["upper"] <= 17
    assert (tmp_path / f"{STEM}.png").is_file()
    assert (tmp_path / f"{STEM}.prices.jsonl").stat().st_size > 100
    assert "V*" in (tmp_path / f"{STEM}.md").read_text()


def test_no_table_of_another_task_is_left_beside_the_result(tmp_path, capsys):
    main([*ARGV, "--out", str(tmp_path)])
    game = tmp_path / f"{STEM}.game.jsonl"
    assert game.is_file()
    main([*ARGV, "--task", "errands", "--out", str(tmp_path)])
    assert not game.exists()
    assert str(game) not in capsys.readouterr().out.split("Price of a first errand")[1]


def test_other_tasks_have_prices_alone(tmp_path):
    result = compute(replace(SMALL, task="errands"))
    assert result.played == ()
    (prices,) = make_tables(result)
    assert prices.title.startswith("Price of a first errand")
    assert len(prices.rows) == 2


@pytest.fixture(scope="module")
def quiz_run(tmp_path_factory):
    """A finished run that says it is of the quiz, with numbers of some other world."""
    asked = settings(n_seeds=2, evaluation_lengths=(256,), realized_budgets_nats=(1.0,))
    world = replace(asked.agent.world, task="quiz", base_model=MIXTURE)
    asked = replace(asked, agent=replace(asked.agent, world=world))
    return write_run(tmp_path_factory.mktemp("quiz") / "run", asked)


def test_agents_of_runs_stand_beside_the_value(quiz_run):
    options = replace(SMALL, budgets_nats=(1.0, 2.0), runs=(quiz_run,))
    result = compute(options)
    same = [row for row in read_run(quiz_run).rows if row.budget_nats == 1.0]
    # V* is of budgets that hold in every episode: realised accounting plays another game.
    rows = [row for row in same if row.variant == "exact budget"]
    one, none = result.played
    assert (len(same), len(rows)) == (3, 2)
    assert one.returns.values == tuple(row.numbers.spending.return_mean for row in rows)
    assert one.paid_nats.values == tuple(row.numbers.spending.spent_nats_mean for row in rows)
    assert none.returns.values == ()
    assert compute(replace(options, runs=(quiz_run, quiz_run))).played == result.played
    (_, game) = make_tables(result)
    assert game.rows[1][3:] == (None, None, None)
    assert game.rows[0][3] == one.returns


def test_runs_of_another_world_are_refused(tmp_path):
    folder = write_run(tmp_path / "run", settings(n_seeds=1))
    with pytest.raises(InvalidArgumentError, match="must be a run of --task quiz --base-model mix"):
        compute(replace(SMALL, runs=(folder,)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_contexts": 0}, "n_contexts must be >= 1"),
        ({"seed": -1}, "seed must be >= 0"),
        ({"demonstrations": ()}, "demonstrations must name numbers >= 0"),
        ({"demonstrations": (-1,)}, "demonstrations must name numbers >= 0"),
        ({"budgets_nats": (1.0, float("inf"))}, r"budgets_nats must lie in \[0, inf\), got inf"),
        ({"budgets_nats": (-1.0,)}, r"budgets_nats must lie in \[0, inf\), got -1"),
        ({"task": "moon"}, "unknown task 'moon'"),
        ({"task": "errands", "runs": (None,)}, "--runs are of the task quiz, got --task errands"),
    ],
)
def test_bad_options_are_refused(changes, message):
    with pytest.raises(MightntError, match=message):
        replace(SMALL, **changes)


def test_what_is_computed_has_no_weights_to_put_elsewhere():
    with pytest.raises(InvalidArgumentError, match="base_model mixture is computed on the CPU"):
        WorldConfig(base_model=MIXTURE, device="cuda:0")
