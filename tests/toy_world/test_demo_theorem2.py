import json
from fractions import Fraction

import pytest

from mightnt.command_line import BAD_USAGE
from theory.constraints import expected_kl_nats
from toy_world.demo_theorem2 import (
    BAD_BASE,
    DEMO,
    READINGS,
    SHAPES,
    Frequency,
    Theorem2Options,
    compute,
    ever_bad,
    proxy_world,
)
from toy_world.planners.problem import Reading
from toy_world.studies.theorem2 import HOLDS, Claim


@pytest.fixture(scope="module")
def result():
    return compute(Theorem2Options(problems=2))


def test_no_random_problem_violates_what_is_proved(result):
    sampled = result.data["frequencies"]
    assert len(sampled) == len(SHAPES) * len(READINGS) * len(Claim)
    assert all(f.violated == 0 for f in sampled if f.reading in HOLDS[f.claim])
    assert any(f.violated for f in sampled)
    assert any("No violation of a proved claim" in finding for finding in result.findings)


def test_under_tvd_a_perfect_base_policy_is_left_with_probability_c_and_under_kl_never(result):
    for contrast in result.data["contrast"]:
        assert contrast.kl[0] == 0
        if contrast.budget <= 1:
            assert contrast.tvd == (Fraction(contrast.budget),) * 3
    assert [c.kl for c in result.data["contrast"]] == sorted(c.kl for c in result.data["contrast"])


def test_without_a_budget_the_agent_is_as_bad_as_its_base_policy(result):
    first = result.data["contrast"][0]
    for bad, measured in zip(BAD_BASE, first.kl, strict=True):
        assert measured == pytest.approx(float(1 - (1 - bad) ** 3), rel=1e-9)


def test_the_probability_of_ever_acting_badly_counts_every_step():
    beta, nu, _ = proxy_world(Fraction(1, 3))
    assert ever_bad(beta, nu) == 1 - Fraction(2, 3) ** 3
    assert expected_kl_nats(beta, beta, nu) == 0


def test_intervals_hold_the_share_and_are_never_a_point():
    for violated in (0, 3, 10):
        frequency = Frequency(
            shape=(2, 2, 2),
            reading=Reading.FIXED,
            claim=Claim.MASS,
            violated=violated,
            problems=10,
        )
        low, high = frequency.interval
        assert low <= violated / 10 <= high
        assert high - low > 0.2


def test_the_same_seed_gives_the_same_numbers(result):
    again = compute(Theorem2Options(problems=2))
    assert again.tables == result.tables
    assert again.findings == result.findings


def test_the_demo_prints_and_writes_its_files(tmp_path, capsys):
    DEMO.main(["--problems", "1", "--out", str(tmp_path), "--json"])
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "theorem2.json").read_text())
    assert printed["findings"] == written["findings"]
    assert len(written["tables"]) == 4
    for suffix in ("png", "pdf"):
        assert (tmp_path / f"theorem2.{suffix}").stat().st_size > 10_000


def test_a_bad_option_is_one_line_and_exit_code_2(capsys):
    with pytest.raises(SystemExit) as exit_:
        DEMO.main(["--problems", "0"])
    assert exit_.value.code == BAD_USAGE
    assert "--problems must lie in 1..100000, got 0" in capsys.readouterr().err
