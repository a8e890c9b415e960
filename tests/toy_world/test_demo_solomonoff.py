import json
import math

import numpy as np
import pytest

from mightnt.command_line import BAD_USAGE
from toy_world.demo_solomonoff import (
    DEMO,
    SolomonoffOptions,
    bargains,
    compute,
    count_deviations,
    estimate_masses,
    shown,
    zeros,
    zeros_then_one,
)
from toy_world.machine.definition import Limits, assemble, run

SMALL = {"bits": 20, "n_max": 100, "steps": 400, "more_bits": 64}


@pytest.fixture(scope="module")
def result():
    return compute(SolomonoffOptions(**SMALL))


@pytest.fixture(scope="module")
def prices(result):
    return result.data["prices"]


def test_the_price_is_what_the_masses_say(prices):
    census = count_deviations(Limits(bits=20, steps=400), 100)
    for p in prices:
        all_zeros, deviation = census.mass(zeros(p.n)), census.mass(zeros_then_one(p.n))
        assert float(deviation / all_zeros) == pytest.approx(2**-p.bits, rel=1e-12)
        both = deviation + census.mass(zeros(p.n + 1))
        assert float(deviation / both) == pytest.approx(2**-p.normalised_bits, rel=1e-12)


def test_every_bound_holds(prices):
    for p in prices:
        assert 0 <= p.least_bits <= p.bits <= p.most_bits
        assert p.normalised_bits <= p.bits <= p.bound_bits
        assert 0 <= p.from_bits <= p.estimate_bits <= p.to_bits
        assert p.least_bits <= p.to_bits
        assert p.from_bits <= p.most_bits


def test_the_program_shown_prints_n_zeros_and_then_a_one(prices):
    for p in prices:
        if p.program is not None:
            bits = assemble(p.program)
            assert len(bits) == p.program_bits
            output = run(bits, limits=Limits(bits=20, steps=400), max_symbols=p.n + 1).output
            assert output == zeros_then_one(p.n)


def test_the_price_falls_at_powers_of_two_and_at_ninety_three(prices):
    """93 zeros are printed by `0+::`, ten bits."""
    for n in (4, 8, 16, 32, 64, 93):
        assert prices[n].bits < prices[n - 1].bits
        assert prices[n].to_bits < prices[n - 1].from_bits
        assert prices[n].to_bits < prices[n + 1].from_bits
    assert [p.n for p in bargains(prices, 1)] == [93]
    assert {1, 2, 7, 8, 9, 31, 32, 33, 93, 100} <= {p.n for p in shown(prices)}


def test_estimates_agree_with_an_enumeration_of_more_bits(rng):
    n_max = 12
    census = count_deviations(Limits(bits=14, steps=200), n_max)
    estimate = estimate_masses(
        census, more_bits=22, n_max=n_max, continuations=20, n_jobs=1, rng=rng
    )
    larger = count_deviations(Limits(bits=22, steps=200), n_max)
    misses, unit = 0, 1 / (20 * 2**14)
    for n in range(n_max + 1):
        for exact, low, middle, high in (
            (
                larger.mass(zeros(n)),
                estimate.zeros_low[n],
                estimate.zeros[n],
                estimate.zeros_high[n],
            ),
            (
                larger.mass(zeros_then_one(n)),
                estimate.deviation_low[n],
                estimate.deviation[n],
                estimate.deviation_high[n],
            ),
        ):
            assert low <= middle <= high
            assert high - low <= 6 * math.sqrt(unit * float(exact)) + 10 * unit
            misses += not low <= exact <= high
    assert misses <= 2  # of 26 intervals that hold with probability 0.975 at least


def test_estimates_do_not_depend_on_the_number_of_workers():
    census = count_deviations(Limits(bits=20, steps=100), 8)
    one, two = (
        estimate_masses(
            census,
            more_bits=64,
            n_max=8,
            continuations=2,
            n_jobs=n_jobs,
            rng=np.random.default_rng(2),
        )
        for n_jobs in (1, 2)
    )
    np.testing.assert_array_equal(one.deviation, two.deviation)
    np.testing.assert_array_equal(one.zeros_high, two.zeros_high)


def test_findings_say_what_is_proved_and_what_is_out_of_reach(result, prices):
    text = " ".join(result.findings)
    out_of_reach = [p.n for p in prices if math.isinf(p.bits)]
    assert f"for {len(out_of_reach)} of the n, the first {out_of_reach[0]}" in text
    assert "after 93 zeros (0+::1)" in text
    assert f"at most {prices[93].most_bits:.2f} bits" in text


def test_the_command_writes_its_three_files(tmp_path, capsys):
    DEMO.main(
        ["--out", str(tmp_path), "--bits", "20", "--n-max", "32", "--steps", "128", "--jobs", "1"]
    )
    assert "Proposition 2" in capsys.readouterr().out
    document = json.loads((tmp_path / "solomonoff.json").read_text())
    assert len(document["data"]["prices"]) == 33
    evidence = {c["evidence"] for table in document["tables"] for c in table["columns"]}
    assert evidence == {None, "exact", "certified", "Monte Carlo"}
    assert (tmp_path / "solomonoff.png").stat().st_size > 10_000
    assert (tmp_path / "solomonoff.pdf").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bits", "41"], "--bits must lie in 20..40, got 41"),
        (["--bits", "40", "--more-bits", "32"], "--bits must lie in 20..32, got 40"),
        (["--n-max", "31"], "--n-max must lie in 32..1024, got 31"),
        (["--steps", "1000"], "--steps must lie in 1024..1000000000, got 1000"),
        (["--jobs", "0"], "--jobs must not be 0"),
        (["--continuations", "0"], "--continuations must lie in 1..1000000, got 0"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(options, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        DEMO.main(options)
    assert exit_.value.code == BAD_USAGE
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
