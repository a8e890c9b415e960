import json

import pytest

from mightnt.command_line import BAD_USAGE
from toy_world.demo_pessimism import DEMO, PessimismOptions, binomial_interval, compute

SMALL = {"bits": 18, "memory_bits": 10, "steps": 12, "runs": 40, "careers": 2}


@pytest.fixture(scope="module")
def result():
    return compute(PessimismOptions(**SMALL))


def _rows(result, title):
    (table,) = (t for t in result.tables if t.title.startswith(title))
    return [dict(zip((c.header for c in table.columns), row, strict=True)) for row in table.rows]


def test_every_result_says_whose_actions_update_the_posterior(result):
    for table in result.tables:
        headers = [c.header for c in table.columns]
        assert (
            "posterior updated by" in headers
            or ("posterior: " in table.title and "actions alone" in table.title)
            or table.title.startswith("The example")
        )


def test_both_sides_of_villes_bound_are_shown_and_in_order(result):
    for row in _rows(result, "Top sets are small"):
        assert row["largest\n|M^alpha|"] <= row["<= 1/alpha"]
        assert row["P(mu stays)\n>= 1-alpha/w(mu)"] <= row["T = 7"]


def test_the_help_bound_is_labelled_literature(result):
    (table,) = (t for t in result.tables if t.title.startswith("E sum theta_q^3"))
    assert "LITERATURE" in table.columns[-1].header
    for row in table.rows:
        assert row[2] <= float(row[-1])


def test_only_one_of_the_update_rules_keeps_the_guarantee(result):
    rows = _rows(result, "The example in which the guarantee")
    assert [row["guarantee"] for row in rows] == ["HOLDS", "FAILS"]


def test_one_does_the_never_done_thing_and_the_other_cannot(result):
    for row in _rows(result, "Bayesian and pessimistic imitator"):
        if row["imitator"] == "Bayesian":
            assert row["P(a2 ever)"] > 0
            assert row["value\nby the proxy"] > row["true value"]
        else:
            assert row["P(a2 ever)"] == 0
            assert row["value\nby the proxy"] == pytest.approx(row["true value"], abs=1e-14)


def test_the_binomial_interval_holds_its_ends():
    assert binomial_interval(0, 10)[0] == 0
    assert binomial_interval(10, 10)[1] == 1
    # The tail beyond an end that is no end of the scale is half the rest: (1 - p)^10 = 2.5 %.
    assert (1 - binomial_interval(0, 10)[1]) ** 10 == pytest.approx(0.025)


def test_the_command_writes_its_three_files(tmp_path, capsys):
    small = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    DEMO.main(["--out", str(tmp_path), "--world", "metronome", *small])
    assert "Definition 4" in capsys.readouterr().out
    document = json.loads((tmp_path / "pessimism.json").read_text())
    evidence = {c["evidence"] for table in document["tables"] for c in table["columns"]}
    assert evidence == {None, "exact", "certified", "float64", "Monte Carlo"}
    assert (tmp_path / "pessimism.png").stat().st_size > 10_000
    assert (tmp_path / "pessimism.pdf").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bits", "27"], "--bits must lie in 12..26, got 27"),
        (["--memory-bits", "9"], "--memory-bits must lie in 10..20, got 9"),
        (["--steps", "9"], "--steps must lie in 10..10000, got 9"),
        (["--runs", "19"], "--runs must lie in 20..100000, got 19"),
        (["--careers", "1"], "--careers must lie in 2..1000, got 1"),
        (["--budget", "0"], "--budget must be > 0 and finite, got 0"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(options, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        DEMO.main(options)
    assert exit_.value.code == BAD_USAGE
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
