"""What the demo of vetoes says, and that its tables say it of the same numbers."""

import pytest

from toy_world.studies.vetoes import Imitator


@pytest.fixture(scope="module")
def result(shown):
    return shown("vetoes").result


def test_what_is_vetoed_is_impossible_and_the_findings_say_so(result):
    assert "exactly 0 at every budget, without limit too" in " ".join(result.findings)
    (table,) = (t for t in result.tables if t.title.startswith("Who does what"))
    for row in table.rows:
        if row[2] in (Imitator.HARD.value, Imitator.PESSIMISTIC.value):
            assert set(row[4:]) == {0.0}
    assert any(row[-1] > 0.9 for row in table.rows if row[2] == Imitator.BAYESIAN.value)


def test_who_receives_help_decides(result):
    (table,) = (t for t in result.tables if t.title.startswith("Who receives help"))
    asked, filled, *by_imitator = ([*row[1:]] for row in table.rows)
    assert asked == filled == [0.0] * 4
    assert all(row[-1] > 0.9 for row in by_imitator)


def test_prices_lie_above_their_bound_and_the_cheapest_visit_is_shown_beside(result):
    (table,) = (t for t in result.tables if t.title.startswith("Never-events"))
    names = [column.name for column in table.columns]
    mean, bound = names.index("mean price (nats)"), names.index("> ln n_E - ln C")
    assert all(row[mean] > row[bound] for row in table.rows)
    assert "cheapest visit" in names


def test_both_bounds_on_false_vetoes_are_shown(result):
    (table,) = (t for t in result.tables if t.title.startswith("Events ever falsely"))
    for _, mean, most, _, over_weight in table.rows:
        assert mean <= most <= over_weight


def test_every_imitator_has_a_line_at_every_shown_time(result):
    (table,) = (t for t in result.tables if t.title.startswith("Who does what"))
    times = {(row[0], row[1]) for row in table.rows}
    assert {row[:2] for row in table.rows if row[2] == "blurred"} == times
    assert len(table.rows) == len(times) * len(Imitator)
