"""Rows keep their numbers on disk, and older rows are read."""

import math
from dataclasses import fields, replace

import pytest

from llm_experiment.chat.turn_records import SILENT_ABOVE
from llm_experiment.dialogue.behaviour import SILENCE
from llm_experiment.measures.metrics import (
    METRICS,
    AgentRow,
    BaseEvaluation,
    Behaviour,
    DepartureNumbers,
    EvaluationRow,
    LengthRow,
    Spending,
    base_from_json,
    base_to_json,
    row_from_json,
    row_to_json,
)
from theory.errors import InvalidArgumentError

NUMBERS = EvaluationRow(
    spending=Spending(n_episodes=4, return_mean=1.5, over_budget_share=0.25),
    behaviour=Behaviour(
        silent_share=0.5,
        empty_turn_kl_nats=((0.5, 1.0, 2.0, 3), (0.1, 0.2, 0.3, 1)),
        distinct_n_grams=(0.5, 0.6, 0.7),
    ),
    departure=DepartureNumbers(possible_shares=(1.0, 0.75, 0.5, 0.25), outside_mass=0.125),
)
ROW = AgentRow(
    agent="exact-budget3-seed1",
    variant="exact budget",
    budget_nats=math.inf,
    seed=1,
    n_tokens=40,
    trained_at_n_tokens=50,
    numbers=NUMBERS,
)


def text(row) -> str:
    """Rows are equal if they look alike; nan is no equal of itself."""
    return repr(row)


def test_a_row_is_read_as_it_was_written():
    written = row_to_json(ROW)
    assert list(written)[:6] == [
        "agent", "variant", "budget_nats", "seed", "n_tokens", "trained_at_n_tokens",
    ]  # fmt: skip
    assert list(written)[6:] == list(METRICS)
    assert written["budget_nats"] == "inf"
    assert written["empty_turn_kl_nats"] == [[0.5, 1.0, 2.0, 3], [0.1, 0.2, 0.3, 1]]
    assert text(row_from_json(AgentRow, written)) == text(ROW)


def test_without_a_demonstrator_a_row_says_nothing_of_it():
    row = replace(ROW, numbers=replace(NUMBERS, departure=None))
    written = row_to_json(row)
    assert not {field.name for field in fields(DepartureNumbers)} & set(written)
    assert text(row_from_json(AgentRow, written)) == text(row)


def test_what_an_older_version_did_not_measure_is_nan_and_what_is_unknown_is_left_out():
    row = row_from_json(LengthRow, {"n_tokens": 40, "n_episodes": 8, "colour": "red"})
    assert row.numbers.departure is None
    assert row.numbers.behaviour.empty_turn_kl_nats == ()
    assert math.isnan(row.numbers.behaviour.silent_share)
    assert all(math.isnan(row.numbers.value(name, 0)) for name in METRICS)


@pytest.mark.parametrize("value", [None, [], {"n_tokens": 40}, {"n_episodes": 8}])
def test_what_is_no_row_is_refused(value):
    with pytest.raises(InvalidArgumentError, match="cannot read a"):
        row_from_json(LengthRow, value)
    with pytest.raises(InvalidArgumentError, match="cannot read a"):
        row_from_json(AgentRow, {"n_tokens": 40, "n_episodes": 8})


def test_the_base_policys_evaluation_is_read_as_it_was_written():
    rows = (LengthRow(n_tokens=40, numbers=NUMBERS), LengthRow(n_tokens=60, numbers=NUMBERS))
    base = BaseEvaluation(
        rows=rows,
        n_contexts=3,
        first_silence_nats=(1.0, 2.0, 3.0),
        first_silence_probability=math.exp(-2),
    )
    written = base_to_json(base)
    assert set(written["rows"][0]) == {"n_tokens", *METRICS}
    assert text(base_from_json(written)) == text(base)
    unpriced = BaseEvaluation(rows=rows, n_contexts=0)
    assert base_to_json(unpriced)["first_silence_nats"] is None
    assert text(base_from_json(base_to_json(unpriced))) == text(unpriced)
    for broken in (None, [], {"rows": None}, {"rows": []}):
        with pytest.raises(InvalidArgumentError, match="cannot read a"):
            base_from_json(broken)


def test_a_number_is_found_by_the_name_of_its_metric():
    assert NUMBERS.value("return_mean") == 1.5
    assert NUMBERS.value("possible_shares", -1) == 0.25
    assert NUMBERS.value("empty_turn_kl_nats", 1, 2) == 0.3
    assert math.isnan(NUMBERS.value("empty_turn_kl_nats", 2, 0))
    assert math.isnan(replace(NUMBERS, departure=None).value("possible_shares", -1))


def test_agents_that_differ_by_their_seed_alone_are_a_group():
    assert ROW.group == replace(ROW, seed=2, agent="exact-budget3-seed2").group
    for changes in ({"variant": "other"}, {"budget_nats": 1.0}, {"n_tokens": 9}):
        assert ROW.group != replace(ROW, **changes).group
    assert not ROW.as_trained
    assert replace(ROW, n_tokens=50).as_trained


def test_every_metric_is_defined_and_shares_lie_between_0_and_1():
    for name, metric in METRICS.items():
        assert SILENCE.say(metric.about).endswith((".", "{pooling}"))
        assert metric.header
        assert format(0.5, metric.format)
        if name.endswith(("share", "shares")):
            assert metric.within == (0.0, 1.0)
    assert f"{SILENT_ABOVE:.0%}" in METRICS["silent_share"].about
