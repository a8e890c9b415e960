import json
import math

import numpy as np
import pytest
from scipy import stats

from llm_experiment.evaluation_tables import (
    BASE_VARIANT,
    OverRuns,
    clopper_pearson_upper,
    main,
    make_tables,
    over_runs,
    show_headline,
    to_markdown,
    write_tables,
)
from llm_experiment.measures.evaluation import METRICS, RANGES, BasePolicy, evaluate_base
from mightnt.results import to_jsonable, write_json
from tests.llm_experiment.measures.test_evaluation import PROCESS as DEMONSTRATOR
from tests.llm_experiment.measures.test_evaluation import evaluated, process_world, random_agent
from tests.llm_experiment.small_world import small_world
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


def test_an_interval_is_cut_at_what_the_number_can_be():
    shares = [0.9, 1.0, 1.0]
    plain, cut = over_runs(shares), over_runs(shares, within=(0.0, 1.0))
    assert plain.high > 1 == cut.high
    assert (cut.low, cut.mean, cut.values) == (plain.low, plain.mean, plain.values)


def test_every_number_and_every_interval_lies_in_its_range(tables, rows):
    assert set(RANGES) <= set(METRICS)
    for row in rows:
        for name, (low, high) in RANGES.items():
            numbers = np.array(row[name], dtype=float)
            if name.startswith("empty_turn"):
                numbers = numbers[..., :-1]  # the last is a count
            numbers = numbers[~np.isnan(numbers)]
            assert ((low <= numbers) & (numbers <= high)).all(), name
    shares = [name for name, ends in RANGES.items() if ends == (0.0, 1.0)]
    cells = [row[n] for table in tables.values() for row in table.rows for n in shares if n in row]
    with_interval = [cell for cell in cells if cell.low is not None]
    assert len(with_interval) > 20
    for cell in with_interval:
        assert 0 <= cell.low <= cell.mean <= cell.high <= 1


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
    (_, silence, *_) = make_tables(
        rows, base | {"n_contexts": 0, "first_silence_probability": None}
    )
    assert {row["closed_form"] for row in silence.rows} == {None}
    assert {row["at_most"] for row in silence.rows} != {None}
    assert "Closed form" not in " ".join(silence.notes)


def test_an_agent_that_overspends_has_no_bound(rows, base):
    leaking = [row | {"over_budget_share": 0.5, "variant": "realized budget"} for row in rows[:1]]
    (_, silence, *_) = make_tables(leaking, base)
    assert silence.rows[-1]["closed_form"] is not None
    assert silence.rows[-1]["at_most"] is None


def test_a_length_at_which_the_base_was_not_played_has_no_bound(rows, base):
    other = [row | {"n_tokens": 45} for row in rows[:1]]
    (_, silence, *_) = make_tables(other, base)
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
    assert first["kl_50"] == over_runs([2.0, 4.0], within=(0.0, math.inf))
    assert second["kl_75"].mean == 0.3
    assert first["surprise_50"].mean == 2.0
    assert "departure" not in {table.name for table in tables}


def test_every_group_is_in_every_table_the_base_policy_too(tables):
    assert set(tables) == {"headline", "silence", "prices", "spending", "words", "departure"}
    groups = {(r["agent"], r["length"]) for r in tables["silence"].rows}
    assert len(groups) == 5
    for name in ("spending", "words", "departure"):
        assert {(r["agent"], r["length"]) for r in tables[name].rows} == groups


def test_the_headline_has_every_agent_once_at_the_length_it_was_trained_at(tables):
    headline = tables["headline"]
    who = [(row["agent"], row["length"]) for row in headline.rows]
    assert who == [(BASE_VARIANT, "40"), ("exact budget", "40"), ("no constraint", "40")]
    silence = {(row["agent"], row["length"]): row for row in tables["silence"].rows}
    for row in headline.rows:
        same = silence[row["agent"], row["length"]]
        assert row["silent_share"] == same["silent_share"]
        assert row["closed_form"] == same["closed_form"]


def test_an_agent_that_was_not_evaluated_where_it_was_trained_is_in_the_headline_too(rows, base):
    long = [row | {"trained_at_n_tokens": 99} for row in rows[:2]]
    headline, *_ = make_tables(long, base)
    assert [row["length"] for row in headline.rows] == ["40", "40 (trained at 99)"]


def test_the_headline_fits_eighty_columns_whole(rows, base, monkeypatch, capsys, tmp_path):
    """With the longest names, the widest intervals and the largest numbers of a full suite."""
    monkeypatch.setenv("COLUMNS", "80")
    wide = [
        identity(seed, variant=variant, budget=budget)
        | {name: rows[0][name] for name in METRICS}
        | {"silent_share": share, "spent_nats_max": 312.34}
        for seed, share in enumerate((1.0, 0.5, 0.9))
        for variant, budget in (("penalty 0.03 a nat", math.inf), ("reward shift -0.5", 10.0))
    ]
    tables = make_tables(wide, base)
    show_headline(tables, tmp_path)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    headline = tables[0]
    for row in headline.rows:
        line = next(line for line in shown.splitlines() if line.startswith(row["agent"]))
        assert all(headline.text(key, row[key]) in line for key in headline.columns)
    words = {word for header in headline.columns.values() for word in header.split()}
    assert words <= set(shown.split())


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
    assert "What each agent does with its budget" in capsys.readouterr().out
    stored = json.loads((tmp_path / "tables.json").read_text())
    assert stored["metrics"] == METRICS
    assert [table["name"] for table in stored["tables"]][:3] == ["headline", "silence", "prices"]
    assert (tmp_path / "tables.md").read_text().startswith("# quick\n")


def test_a_run_that_is_not_finished_is_refused(tmp_path):
    with pytest.raises(ResultsError, match=r"finish the run with `python -m llm_experiment.run`"):
        write_tables(tmp_path)
    with pytest.raises(InvalidArgumentError, match="at least 1 evaluated agent"):
        make_tables([], None)
