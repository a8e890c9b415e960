"""What the tables of pessimism say: whose actions update, both sides, one imitator or the other."""

import pytest


@pytest.fixture(scope="module")
def tables(shown):
    return shown("pessimism").result.tables


def _rows(tables, title):
    (table,) = (t for t in tables if t.title.startswith(title))
    return [dict(zip((c.header for c in table.columns), row, strict=True)) for row in table.rows]


def test_every_result_says_whose_actions_update_the_posterior(tables):
    for table in tables:
        headers = [c.header for c in table.columns]
        assert "posterior updated by" in headers or (
            "posterior: " in table.title and "actions alone" in table.title
        )


def test_both_sides_of_villes_bound_are_shown_and_in_order(tables):
    for row in _rows(tables, "Top sets are small"):
        assert row["largest\n|M^alpha|"] <= row["<= 1/alpha"]
        assert row["P(mu stays)\n>= 1-alpha/w(mu)"] <= row["T = 7"]


def test_the_help_bound_is_labelled_literature(tables):
    (table,) = (t for t in tables if t.title.startswith("E sum theta_q^3"))
    assert "LITERATURE" in table.columns[-1].header
    for row in table.rows:
        assert row[2] <= float(row[-1])


def test_only_one_of_the_update_rules_keeps_the_guarantee(tables):
    rows = _rows(tables, "The example in which the guarantee")
    assert [row["guarantee"] for row in rows] == ["HOLDS", "FAILS"]


def test_one_does_the_never_done_thing_and_the_other_cannot(tables):
    for row in _rows(tables, "Bayesian and pessimistic imitator"):
        if row["imitator"] == "Bayesian":
            assert row["P(a2 ever)"] > 0
            assert row["value\nby the proxy"] > row["true value"]
        else:
            assert row["P(a2 ever)"] == 0
            assert row["value\nby the proxy"] == pytest.approx(row["true value"], abs=1e-14)
