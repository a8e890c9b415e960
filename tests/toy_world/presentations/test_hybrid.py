"""What the demo of hybrid learning says, and that its tables say it of the same numbers."""

import pytest

from toy_world.studies.hybrid import OTHER_SHARES, StageName
from toy_world.studies.hybrid_doorbell import Agent


@pytest.fixture(scope="module")
def result(shown):
    return shown("hybrid").result


def table_called(result, start):
    (table,) = (t for t in result.tables if t.title.startswith(start))
    return table


def test_every_learner_has_a_line_on_every_stage(result):
    table = table_called(result, "What learners hand over")
    stages = [row[0] for row in table.rows]
    assert stages == [s.value for s in StageName for _ in (None, *OTHER_SHARES)]


def test_the_reach_of_data_to_the_best_policy_is_1_for_its_own(result):
    table = table_called(result, "How far")
    own = [row[2] for row in table.rows if str(row[1]).startswith("w = 0,")]
    assert own == pytest.approx([1.0] * len(StageName))


def test_the_parting_is_found_in_the_table(result):
    table = table_called(result, "The same demonstrations")
    flawed = [r for r in table.records if r["who acts"] == Agent.HYBRID.value]
    flawed = [r for r in flawed if r["paid"] == "flawed"]
    first = next(r["episodes"] for r in flawed if r["P(a2)"] > 1 / 2)
    assert f"from {first} of its own episodes on" in " ".join(result.findings)


def test_constants_are_said_to_be_fitted(result):
    assert any("c fitted" in note for note in table_called(result, "What learners").notes)
