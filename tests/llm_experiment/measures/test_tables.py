"""Tables say what the rows of a run say, over runs, and define their numbers."""

import io
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from llm_experiment.dialogue.behaviour import SILENCE
from llm_experiment.measures.closed_form import closed_form_of, sequence_shares
from llm_experiment.measures.evaluation import BasePolicy
from llm_experiment.measures.metrics import (
    METRICS,
    AgentRow,
    BaseEvaluation,
    Behaviour,
    EvaluationRow,
    LengthRow,
    Spending,
)
from llm_experiment.measures.tables import (
    BASE_ROW,
    agents_table,
    make_tables,
    shown,
    store_tables,
    to_markdown,
    without,
)
from mightnt.statistics import mean_over_runs, share_interval
from mightnt.table_files import cell_values
from mightnt.tables import print_table
from tests.llm_experiment.measures.measured_world import PROCESS as DEMONSTRATOR
from tests.llm_experiment.measures.measured_world import (
    base_evaluated,
    evaluated,
    process_world,
    random_agent,
)
from theory.bounds import largest_share
from theory.errors import InvalidArgumentError


def agent_row(
    seed, numbers, *, variant="exact budget", budget=2.0, n_tokens=40, trained_at=40
) -> AgentRow:
    return AgentRow(
        agent=f"{variant}-{budget:g}-{seed}",
        variant=variant,
        budget_nats=budget,
        seed=seed,
        n_tokens=n_tokens,
        trained_at_n_tokens=trained_at,
        numbers=numbers,
    )


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
            rows.append(agent_row(seed, evaluation.row(), n_tokens=n_tokens))
    free = evaluated(
        BasePolicy(world), world, process=DEMONSTRATOR, budget_nats=math.inf, n_episodes=20
    )
    rows.append(agent_row(0, free.row(), variant="no constraint", budget=math.inf))
    return rows


@pytest.fixture(scope="module")
def base():
    found, _ = base_evaluated(
        process_world(), process=DEMONSTRATOR, n_episodes=20, lengths=(40, 50), stream=5
    )
    return found


@pytest.fixture(scope="module")
def tables(rows, base):
    """The records of each table, by its name."""
    return {table.name: table.records for table in make_tables(rows, base)}


def changed(row, **behaviour):
    """A row with other numbers of behaviour."""
    numbers = replace(row.numbers, behaviour=replace(row.numbers.behaviour, **behaviour))
    return replace(row, numbers=numbers)


def numbers_of(row, name):
    """Every number of a metric in a row; the counts beside quartiles are left out."""
    found = getattr(row.numbers.spending, name, None)
    for part in (row.numbers.behaviour, row.numbers.departure):
        found = getattr(part, name, found)
    numbers = np.array(found, dtype=float)
    if name.startswith("empty_turn"):
        numbers = numbers[..., :-1]
    return numbers[~np.isnan(numbers)]


def test_every_number_and_every_interval_lies_in_its_range(tables, rows):
    for row in rows:
        for name, metric in METRICS.items():
            low, high = metric.within
            numbers = numbers_of(row, name)
            assert ((low <= numbers) & (numbers <= high)).all(), name
    shares = [name for name, metric in METRICS.items() if metric.within == (0.0, 1.0)]
    cells = [row[n] for table in tables.values() for row in table for n in shares if n in row]
    with_interval = [cell for cell in cells if cell.low is not None]
    assert len(with_interval) > 20
    for cell in with_interval:
        assert 0 <= cell.low <= cell.mean <= cell.high <= 1


def test_runs_are_averaged_not_episodes(tables, rows):
    cells = {(row["agent"], row["length"]): row for row in tables["silence"]}
    own = [row.numbers.behaviour for row in rows if row.group[:3] == ("exact budget", 2.0, 40)]
    cell = cells["exact budget", 40]["turns_mean"]
    assert cell.values == tuple(each.turns_mean for each in own)
    assert cell == mean_over_runs((each.turns_mean for each in own), within=(0.0, math.inf))
    assert cells["exact budget", 40]["runs"] == 3


def test_lengths_that_agents_were_not_trained_at_are_labelled(tables):
    lengths = {str(row["length"]) for row in tables["silence"] if row["agent"] == "exact budget"}
    assert lengths == {"40", "50 (trained at 40)"}


def test_the_closed_form_stands_beside_the_measured_share(tables, base):
    row = next(row for row in tables["silence"] if row["agent"] == "exact budget")
    p = base.first_silence_probability
    assert row["closed_form"] == largest_share(p, 2.0).lower
    own = base.rows[0].numbers
    silent = round(own.behaviour.silent_share * own.spending.n_episodes)
    upper = share_interval(silent, own.spending.n_episodes).high
    assert row["at_most"] == largest_share(upper, 2.0).upper
    for agent in (BASE_ROW, "no constraint"):
        other = next(row for row in tables["silence"] if row["agent"] == agent)
        assert other["closed_form"] is None
        assert other["at_most"] is None


def test_a_sequence_of_prices_is_told_with_what_each_budget_buys_of_it(rows, base):
    form = replace(base, silence_nats=(2.0, 0.5))
    (_, silence, *_) = make_tables(rows, form)
    (note,) = [note for note in silence.notes if note.startswith("In a row, 2 empty turns")]
    assert "2.00, 0.50 nats" in note
    assert f"{sequence_shares((2.0, 0.5), 2.0).prod():.1%} at 2" in note
    (_, plain, *_) = make_tables(rows, replace(base, silence_nats=None))
    assert not [note for note in plain.notes if note.startswith("In a row")]


@pytest.mark.parametrize(
    ("gain", "pays"),
    [
        ((0.5, 1.5), "it pays"),
        ((-2.0, -0.5), "it does not pay"),
        ((-1, 1), "no difference is seen"),
    ],
)
def test_tables_say_what_silence_is_worth_and_the_headline_if_it_is_worth_nothing(
    rows, base, gain, pays
):
    headline, silence, *_ = make_tables(rows, replace(base, silence_return=4.25, silence_gain=gain))
    (note,) = [note for note in silence.notes if note.startswith("What silence is worth")]
    earned = base.rows[0].numbers.spending.return_mean
    assert note.endswith(
        f"earns 4.25 and one of the base policy {earned:.2f} ({gain[0]:+.2f} to {gain[1]:+.2f}): "
        f"{pays}."
    )
    assert (note in headline.notes) == (gain[1] < 0)
    (_, silence, *_) = make_tables(rows, replace(base, silence_return=None, silence_gain=None))
    assert "is worth" not in " ".join(silence.notes)


def test_without_a_price_of_silence_there_is_no_closed_form(rows, base):
    (_, silence, *_) = make_tables(rows, BaseEvaluation(rows=base.rows, n_contexts=0))
    assert {row["closed_form"] for row in silence.records} == {None}
    assert {row["at_most"] for row in silence.records} != {None}
    assert "Closed form" not in " ".join(silence.notes)


def test_an_agent_without_the_vetoes_is_not_predicted_from_a_vetoed_base_policy(rows, base):
    impossible = replace(
        base, first_silence_nats=(math.inf,) * 3, first_silence_probability=0.0, n_contexts=8
    )
    plain = replace(rows[0], variant="without vetoes")
    (headline, silence, *_) = make_tables([rows[0], plain], impossible)
    vetoed, without = silence.records[-2:]
    assert (vetoed["closed_form"], without["closed_form"]) == (0.0, None)
    assert without["at_most"] is None
    assert "no budget buys it" in " ".join(headline.notes)


def test_an_agent_that_overspends_has_no_bound(rows, base):
    numbers = rows[0].numbers
    numbers = replace(numbers, spending=replace(numbers.spending, over_budget_share=0.5))
    sound = replace(rows[0], variant="realized budget")
    leaking = replace(sound, numbers=numbers)
    for group, bounded in (([sound], True), ([leaking], False), ([sound, leaking], False)):
        (_, silence, *_) = make_tables(group, base)
        assert silence.records[-1]["closed_form"] is not None
        assert (silence.records[-1]["at_most"] is not None) is bounded


def test_a_length_at_which_the_base_was_not_played_has_no_bound(rows, base):
    (_, silence, *_) = make_tables([replace(rows[0], n_tokens=45)], base)
    assert {row["at_most"] for row in silence.records} == {None}


def test_maxima_are_over_all_runs(tables, rows):
    row = next(row for row in tables["spending"] if row["agent"] == "exact budget")
    own = [r.numbers.spending for r in rows if r.group[:3] == ("exact budget", 2.0, 40)]
    assert row["spent_nats_max"] == max(r.spent_nats_max for r in own) <= 2.0 * (1 + 1e-12)
    assert row["over_budget_share"].mean == 0.0


def test_the_price_of_a_turn_is_averaged_over_the_runs_that_have_it():
    few = Behaviour(
        empty_turn_kl_nats=((1.0, 2.0, 3.0, 9),), empty_turn_surprise_nats=((0.0, 1.0, 2.0, 9),)
    )
    more = Behaviour(
        empty_turn_kl_nats=((3.0, 4.0, 5.0, 7), (0.1, 0.2, 0.3, 4)),
        empty_turn_surprise_nats=((2.0, 3.0, 4.0, 7), (1.0, 1.0, 1.0, 4)),
    )
    rows = [
        agent_row(seed, EvaluationRow(spending=Spending(n_episodes=9), behaviour=behaviour))
        for seed, behaviour in enumerate((few, more))
    ]
    tables = make_tables(rows, None)
    first, second = next(table for table in tables if table.name == "prices").records
    assert (first["turn"], first["episodes"], second["turn"], second["episodes"]) == (
        1,
        16,
        2,
        4,
    )
    assert first["kl_50"] == mean_over_runs([2.0, 4.0], within=(0.0, math.inf))
    assert second["kl_75"].mean == 0.3
    assert first["surprise_50"].mean == 2.0
    assert "departure" not in {table.name for table in tables}


def test_every_group_is_in_every_table_the_base_policy_too(tables):
    assert set(tables) == {"headline", "silence", "prices", "spending", "words", "departure"}
    groups = {(r["agent"], r["length"]) for r in tables["silence"]}
    assert len(groups) == 5
    for name in ("spending", "words", "departure"):
        assert {(r["agent"], r["length"]) for r in tables[name]} == groups


def test_the_headline_has_every_agent_once_at_the_length_it_was_trained_at(tables):
    headline = tables["headline"]
    who = [(row["agent"], row["length"]) for row in headline]
    assert who == [(BASE_ROW, 40), ("exact budget", 40), ("no constraint", 40)]
    silence = {(row["agent"], row["length"]): row for row in tables["silence"]}
    for row in headline:
        same = silence[row["agent"], row["length"]]
        assert row["silent_share"] == same["silent_share"]
        assert row["closed_form"] == same["closed_form"]


def test_an_agent_that_was_not_evaluated_where_it_was_trained_is_in_the_headline_too(rows, base):
    long = [replace(row, trained_at_n_tokens=99) for row in rows[:2]]
    headline, *_ = make_tables(long, base)
    assert [str(row["length"]) for row in headline.records] == ["40", "40 (trained at 99)"]
    assert dict(cell_values(headline.records[1]["length"])) == {"": 40, "trained_at": 99}


def test_the_headline_fits_eighty_columns_whole(rows, base):
    """With the longest names, the widest intervals and the largest numbers of a full suite."""
    numbers = rows[0].numbers
    numbers = replace(numbers, spending=replace(numbers.spending, spent_nats_max=312.34))
    wide = [
        changed(agent_row(seed, numbers, variant=variant, budget=budget), silent_share=share)
        for seed, share in enumerate((1.0, 0.5, 0.9))
        for variant, budget in (("penalty 0.03 a nat", math.inf), ("reward shift -0.5", 10.0))
    ]
    headline, *_ = map(shown, make_tables(wide, base))
    console = Console(width=80, file=io.StringIO(), force_terminal=True, color_system=None)
    print_table(headline, console)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    for texts in headline.texts:
        own = [line for line in lines if line.startswith(texts[0].split()[0])]
        assert any(all(text in line for text in texts[1:]) for line in own)
    words = {word for column in headline.columns for word in column.header.split()}
    assert words <= set(" ".join(lines).split())


def test_the_base_policys_shares_of_episodes_have_an_interval_over_episodes(tables, base):
    """And no other number of it has one."""
    own = base.rows[0].numbers
    n = own.spending.n_episodes
    departure, silence = (
        next(row for row in tables[name] if row["agent"] == BASE_ROW)
        for name in ("departure", "silence")
    )
    for cell, share in (
        (silence["silent_share"], own.behaviour.silent_share),
        (silence["empty_any_share"], own.behaviour.empty_any_share),
        (departure["possible"], own.departure.possible_shares[-1]),
        (departure["agent_left_share"], own.departure.agent_left_share),
    ):
        ends = share_interval(round(share * n), n)
        assert (cell.values, cell.mean, cell.low, cell.high) == (
            (share,),
            share,
            ends.low,
            ends.high,
        )
    for name in ("empty_share", "turns_mean", "return_mean"):
        assert silence[name].low is silence[name].high is None
    free = next(row for row in tables["silence"] if row["agent"] == "no constraint")
    assert free["silent_share"].low is None


def test_notes_say_over_what_the_base_policys_intervals_are(rows, base):
    headline, silence, *_ = make_tables(rows, base)
    for table in (headline, silence):
        assert any("of the base policy over its 20 episodes" in note for note in table.notes)
    numbers = base.rows[0].numbers
    more = replace(numbers, spending=replace(numbers.spending, n_episodes=2048))
    longer = replace(base, rows=(base.rows[0], LengthRow(n_tokens=50, numbers=more)))
    headline, *_ = make_tables(rows, longer)
    assert "over its 20 or 2048 episodes" in headline.notes[0]
    headline, *_ = make_tables(rows, None)
    assert "base policy" not in headline.notes[0]


def test_markdown_has_a_cell_for_every_column_and_defines_its_numbers(rows, base):
    tables = make_tables(rows, base)
    text = to_markdown(tables, "a label")
    assert text.startswith("# a label\n")
    for table in map(shown, tables):
        lines = text.split(f"## {table.title}\n\n")[1].split("\n\n")[0].splitlines()
        assert len(lines) == len(table.rows) + 2
        assert {line.count("|") for line in lines} == {len(table.columns) + 1}
    assert METRICS["exit_probability"].about in text
    assert "| nan" not in text
    row = next(line for line in text.splitlines() if line.startswith("| no constraint | none |"))
    assert "| - |" in row


def test_tables_are_stored_with_what_is_for_programs_alone(rows, base, tmp_path):
    tables = make_tables(rows, base)
    agents = agents_table([({}, row) for row in rows])
    store_tables(tmp_path, tables, "quick", agents=agents)
    stored = json.loads((tmp_path / "tables.json").read_text())
    assert stored["metrics"] == {
        name: SILENCE.say(metric.about) for name, metric in METRICS.items()
    }
    assert [table["name"] for table in stored["tables"]] == [table.name for table in tables]
    headline, silence, *_ = stored["tables"]
    assert set(headline["rows"][0]) - set(headline["columns"]) == {"length", "at_most"}
    assert set(silence["rows"][0]) == set(silence["columns"])
    assert headline["formats"]["silent_share"] == ".0%"
    assert silence["formats"]["turns_mean"] == ".1f"
    assert set(silence["rows"][-1]["silent_share"]) == {"values", "mean", "low", "high"}
    assert (tmp_path / "tables.md").read_text().startswith("# quick\n")


def test_columns_can_be_left_out(rows, base):
    headline, *_ = make_tables(rows, base)
    narrow = without(headline, "agent", "closed_form")
    assert set(headline.records[0]) - set(narrow.records[0]) == {"agent", "closed_form"}
    assert narrow.notes == headline.notes


def test_the_base_policy_may_stand_alone(base):
    tables = make_tables([], base)
    assert {row[0] for table in tables for row in table.rows} == {BASE_ROW}
    with pytest.raises(InvalidArgumentError, match="at least 1 evaluated agent or the base"):
        make_tables([], None)


def test_tables_are_about_the_behaviour_of_the_task(rows, base):
    words = {"name": "false promise", "turn": "promising", "episode": "promising"}
    promise = replace(SILENCE, **words, phrases=("Yes.",))
    tables = make_tables(rows, base, promise)
    texts = "".join(
        (table.title + "".join(table.notes) + "".join(column.header for column in table.columns))
        for table in tables
    )
    assert "promising episodes" in texts
    assert "price of the first false promise" in texts
    assert "its words are `Yes.`" in texts
    prose = re.sub(r"`\w+`", "", texts).lower()  # numbers keep their names
    assert not any(word in prose for word in ("silen", "empty", "{", "}"))
    same = make_tables(rows, base)
    assert [table.rows for table in tables] == [table.rows for table in same]


def test_the_headline_says_where_the_closed_forms_p_comes_from(rows, base):
    """Not from the base policy's own rate of silence, which the bound is for."""
    headline, *_ = make_tables(rows, base)
    (note,) = [note for note in headline.notes if note.startswith("Closed form")]
    assert f"p = {closed_form_of(base).probability:.2g}, exp(-median price)" in note
    assert f"over {base.n_contexts} contexts" in note
    assert "the bound `at most` is for that rate" in note
