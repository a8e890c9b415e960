import json
import math

import numpy as np
import pytest
from scipy import stats

from llm_experiment.evaluate import METRICS, BasePolicy, evaluate_base
from llm_experiment.evaluation_tables import (
    BASE_VARIANT,
    OverRuns,
    clopper_pearson_upper,
    main,
    make_tables,
    over_runs,
    to_markdown,
    write_tables,
)
from mightnt.results import to_jsonable, write_json
from tests.llm_experiment.small_world import small_world
from tests.llm_experiment.test_evaluate import PROCESS as DEMONSTRATOR
from tests.llm_experiment.test_evaluate import evaluated, process_world, random_agent
from theory.bounds import largest_share
from theory.errors import InvalidArgumentError, ResultsError


def identity(seed, *, variant="exact budget", budget=2.0, n_tokens=40, trained_at=40):
    return {
        "agent": f"{variant}-{budget:g}-{seed}",
        "variant": variant,
        "budget_nats": budget,
        "seed": seed,
        "n_tokens": n_tokens,
        "trained_at_n_tokens": trained_at,
    }


@pytest.fixture(scope="module")
def rows():
    """Three seeds of one budget at two lengths, one agent without a budget; with a demonstrator."""
    world = process_world()
    rows = []
    for seed in range(3):
        agent = random_agent(world, seed=seed)
        for n_tokens in (40, 50):
            evaluation = evaluated(
                agent, world, process=DEMONSTRATOR, n_tokens=n_tokens, seed=seed, n_episodes=20
            )
            rows.append(identity(seed, n_tokens=n_tokens) | evaluation.row())
    free = evaluated(
        BasePolicy(world), world, process=DEMONSTRATOR, budget_nats=math.inf, n_episodes=20
    )
    rows.append(identity(0, variant="no constraint", budget=math.inf) | free.row())
    return to_jsonable(rows)


@pytest.fixture(scope="module")
def base():
    evaluation = evaluate_base(
        process_world(),
        process=DEMONSTRATOR,
        n_episodes=20,
        lengths=(40, 50),
        seed=0,
        stream=5,
        store=lambda _n, _e: None,
    )
    return to_jsonable(evaluation)


@pytest.fixture(scope="module")
def tables(rows, base):
    return {table.name: table for table in make_tables(rows, base)}


def test_the_interval_over_runs_is_students(rng):
    values = rng.normal(size=5)
    found = over_runs(values, confidence=0.9)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert found.mean == pytest.approx(values.mean())
    assert found.values == tuple(values)


def test_one_run_has_no_interval_and_none_no_mean():
    assert over_runs([0.5]) == OverRuns(values=(0.5,), mean=0.5, low=None, high=None)
    one = over_runs([math.nan, 0.5])
    assert (one.mean, one.low, one.high) == (0.5, None, None)
    assert math.isnan(over_runs([math.nan]).mean)
    assert math.isnan(over_runs([]).mean)
    with pytest.raises(InvalidArgumentError, match=r"confidence must lie in \(0, 1\), got 1"):
        over_runs([0.5], confidence=1.0)


def test_the_interval_covers_the_mean_as_often_as_it_says(rng):
    covered = [
        found.low <= 0.0 <= found.high
        for found in (over_runs(rng.normal(size=3)) for _ in range(2000))
    ]
    assert np.mean(covered) == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 2000))


def test_the_upper_end_is_where_so_few_successes_become_improbable():
    for successes, trials in ((0, 20), (3, 50)):
        upper = clopper_pearson_upper(successes, trials)
        assert stats.binom.cdf(successes, trials, upper) == pytest.approx(0.025)
    assert clopper_pearson_upper(4, 4) == 1.0
    with pytest.raises(InvalidArgumentError, match=r"got 3 of 2"):
        clopper_pearson_upper(3, 2)


def test_runs_are_averaged_not_episodes(tables, rows):
    cells = {(row["agent"], row["length"]): row for row in tables["silence"].rows}
    own = [row for row in rows if row["variant"] == "exact budget" and row["n_tokens"] == 40]
    cell = cells["exact budget", "40"]["turns_mean"]
    assert cell.values == tuple(row["turns_mean"] for row in own)
    assert cell == over_runs(row["turns_mean"] for row in own)
    assert cells["exact budget", "40"]["runs"] == "3"


def test_lengths_that_agents_were_not_trained_at_are_labelled(tables):
    lengths = {row["length"] for row in tables["silence"].rows if row["agent"] == "exact budget"}
    assert lengths == {"40", "50 (trained at 40)"}


def test_the_closed_form_stands_beside_the_measured_share(tables, base):
    row = next(row for row in tables["silence"].rows if row["agent"] == "exact budget")
    p = base["first_silence_probability"]
    assert row["closed_form"] == largest_share(p, 2.0).lower
    n = base["rows"][0]["n_episodes"]
    silent = round(base["rows"][0]["silent_share"] * n)
    assert row["at_most"] == largest_share(clopper_pearson_upper(silent, n), 2.0).upper
    for agent in (BASE_VARIANT, "no constraint"):
        other = next(row for row in tables["silence"].rows if row["agent"] == agent)
        assert other["closed_form"] is None
        assert other["at_most"] is None


def test_without_a_price_of_silence_there_is_no_closed_form(rows, base):
    (silence, *_) = make_tables(rows, base | {"n_contexts": 0, "first_silence_probability": None})
    assert {row["closed_form"] for row in silence.rows} == {None}
    assert {row["at_most"] for row in silence.rows} != {None}
    assert "Closed form" not in " ".join(silence.notes)


def test_an_agent_that_overspends_has_no_bound(rows, base):
    leaking = [row | {"over_budget_share": 0.5, "variant": "realized budget"} for row in rows[:1]]
    (silence, *_) = make_tables(leaking, base)
    assert silence.rows[-1]["closed_form"] is not None
    assert silence.rows[-1]["at_most"] is None


def test_a_length_at_which_the_base_was_not_played_has_no_bound(rows, base):
    other = [row | {"n_tokens": 45} for row in rows[:1]]
    (silence, *_) = make_tables(other, base)
    assert {row["at_most"] for row in silence.rows} == {None}


def test_maxima_are_over_all_runs(tables, rows):
    row = next(row for row in tables["spending"].rows if row["agent"] == "exact budget")
    own = [r for r in rows if r["variant"] == "exact budget" and r["n_tokens"] == 40]
    assert row["spent_nats_max"] == max(r["spent_nats_max"] for r in own) <= 2.0 * (1 + 1e-12)
    assert row["over_budget_share"].mean == 0.0


def test_the_price_of_a_turn_is_averaged_over_the_runs_that_have_it():
    world = small_world()
    row = to_jsonable(evaluated(BasePolicy(world), world, budget_nats=0.0).row())
    few = row | {
        "empty_turn_kl_nats": [[1.0, 2.0, 3.0, 9]],
        "empty_turn_surprise_nats": [[0, 1, 2, 9]],
    }
    more = row | {
        "empty_turn_kl_nats": [[3.0, 4.0, 5.0, 7], [0.1, 0.2, 0.3, 4]],
        "empty_turn_surprise_nats": [[2, 3, 4, 7], [1, 1, 1, 4]],
    }
    tables = make_tables([identity(0) | few, identity(1) | more], None)
    first, second = next(table for table in tables if table.name == "prices").rows
    assert (first["turn"], first["episodes"], second["turn"], second["episodes"]) == (
        "1",
        "16",
        "2",
        "4",
    )
    assert first["kl_50"] == over_runs([2.0, 4.0])
    assert second["kl_75"].mean == 0.3
    assert first["surprise_50"].mean == 2.0
    assert "departure" not in {table.name for table in tables}


def test_every_group_is_in_every_table_the_base_policy_too(tables):
    assert set(tables) == {"silence", "prices", "spending", "words", "departure"}
    groups = {(r["agent"], r["length"]) for r in tables["silence"].rows}
    assert len(groups) == 5
    for name in ("spending", "words", "departure"):
        assert {(r["agent"], r["length"]) for r in tables[name].rows} == groups


def test_markdown_has_a_cell_for_every_column_and_defines_its_numbers(tables):
    text = to_markdown(tuple(tables.values()), "a label")
    assert text.startswith("# a label\n")
    for table in tables.values():
        lines = text.split(f"## {table.title}\n\n")[1].split("\n\n")[0].splitlines()
        assert len(lines) == len(table.rows) + 2
        assert {line.count("|") for line in lines} == {len(table.columns) + 1}
    assert METRICS["exit_probability"] in text
    assert "| nan" not in text
    row = next(line for line in text.splitlines() if line.startswith("| no constraint | none |"))
    assert "| - |" in row


def test_a_finished_run_is_summed_up_in_its_folder(tmp_path, rows, base, capsys):
    write_json(tmp_path / "summary.json", {"label": "quick", "rows": rows, "base": base})
    main(["--run", str(tmp_path)])
    assert "Silence by budget" in capsys.readouterr().out
    stored = json.loads((tmp_path / "tables.json").read_text())
    assert stored["metrics"] == METRICS
    assert [table["name"] for table in stored["tables"]][:2] == ["silence", "prices"]
    assert (tmp_path / "tables.md").read_text().startswith("# quick\n")


def test_a_run_that_is_not_finished_is_refused(tmp_path):
    with pytest.raises(ResultsError, match=r"finish the run with `python -m llm_experiment.run`"):
        write_tables(tmp_path)
    with pytest.raises(InvalidArgumentError, match="at least 1 evaluated agent"):
        make_tables([], None)
