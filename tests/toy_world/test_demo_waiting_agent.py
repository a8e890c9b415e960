"""The third term and the waiting agent, against counts and against the mixture's own price."""

import json
import math

import pytest

from mightnt.command_line import BAD_USAGE
from theory import bounds
from toy_world.demo_waiting_agent import (
    DEMO,
    MANTISSA_BITS,
    WaitingAgentOptions,
    third_terms,
    waiting_choices,
)

OPTIONS = WaitingAgentOptions(bits=18, steps=100)


@pytest.fixture(scope="module")
def terms():
    return third_terms(OPTIONS)


@pytest.fixture(scope="module")
def choices():
    return waiting_choices(OPTIONS)


def test_coin_tosses_cost_a_bit_a_step_and_a_predictable_demonstrator_nothing(terms):
    coins = [row for row in terms if row["world"] == "echo"]
    predictable = [row for row in terms if row["world"] == "metronome"]
    for row in coins:
        # The true program has 12 bits or so, and nothing predicts a fair coin better.
        assert row["k"] < row["minus_log2_xi"] < row["k"] + 14
    assert predictable[0]["minus_log2_xi"] <= predictable[-1]["minus_log2_xi"] < 8


def test_the_terms_length_is_that_of_a_mantissa_and_an_exponent(terms):
    for row in terms:
        for n, bits in zip(MANTISSA_BITS, row["bits"], strict=True):
            exponent = n + math.floor(row["minus_log2_xi"])
            assert bits == bounds.elias_delta_bits(2**n - 1) + bounds.elias_delta_bits(exponent)


def test_the_agent_spends_its_budget_and_no_more(choices):
    for choice in choices:
        assert choice.kl_nats == pytest.approx(choice.budget_nats, abs=1e-9)
        assert math.isclose(sum(choice.shares.values()), 1)


def test_the_agent_deviates_where_something_simple_is_new(choices):
    for choice in choices:
        new, clock, bell = choice.rates.values()
        assert new < clock < bell


def test_more_budget_buys_more(choices):
    values = [choice.value for choice in choices]
    assert values == sorted(values)


def test_the_demo_writes_its_numbers_and_its_figure(tmp_path, capsys):
    DEMO.main(["--out", str(tmp_path), "--bits", "18", "--steps", "100"])
    document = json.loads((tmp_path / "waiting_agent.json").read_text())
    assert len(document["data"]["terms"]) == 20
    assert (tmp_path / "waiting_agent.png").stat().st_size > 10_000
    assert "most readily after the bell" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--bits", "17"], "18..24"),
        (["--budget-nats", "-1"], "--budget-nats must be >= 0"),
        (["--budget-nats", "nan"], "got nan"),
        (["--bell-probability", "1"], "in (0, 1), got 1.0"),
        (["--steps", "10"], "100..10^6"),
    ],
)
def test_bad_options_are_one_line_with_exit_code_2(capsys, argv, words):
    with pytest.raises(SystemExit) as exit_:
        DEMO.main(argv)
    assert exit_.value.code == BAD_USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
