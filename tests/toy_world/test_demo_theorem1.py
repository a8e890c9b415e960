"""The demo shows Theorem 1: prices under their bounds, flat where something new has happened."""

import json
import math
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mightnt.command_line import BAD_USAGE
from theory.constraints import expected_kl_nats, fixed_kl_nats
from theory.errors import InvalidArgumentError, UnreachableLengthError
from toy_world.demo_theorem1 import DEMO, Theorem1Options, draw, run
from toy_world.programs.language import Plain
from toy_world.programs.semantics import shortest_number
from toy_world.studies.theorem1 import Kind, prices, setting_of, training_lengths
from toy_world.worlds.environments import WorldName

BITS = 21
OPTIONS = {"bits": BITS, "steps": 400, "horizon": 2, "jobs": 1}


@pytest.fixture(scope="module")
def found():
    setting = setting_of(WorldName.DOORBELL, horizon=2)
    return setting, prices(setting, limit_bits=BITS, n_steps=400, rng=np.random.default_rng(0))[0]


@pytest.fixture(scope="module")
def result():
    return run(Theorem1Options(**OPTIONS))


def test_every_price_within_l_is_under_its_bound_in_every_reading(found):
    _, all_prices = found
    within = [price for price in all_prices if price.is_within_limit]
    assert {price.kind for price in within} == set(Kind)
    for price in within:
        bound = price.bound.bound_nats
        assert price.limit_bits >= price.demonstrator_bits + price.delta_bits
        assert max(price.fixed_kl_nats, price.expected_kl_nats) <= price.adaptive_kl_nats + 1e-12
        assert price.adaptive_kl_nats <= bound <= price.bound.bound_as_printed_nats
        assert price.value == price.best_value == 1
        assert price.kl_to_tau_nats == math.inf


def test_novel_prices_are_flat_and_familiar_ones_rise_beyond_l(found):
    _, all_prices = found
    novel = [price for price in all_prices if price.kind is Kind.NOVEL]
    familiar = [price for price in all_prices if price.kind is Kind.FAMILIAR]
    assert len({price.delta_bits for price in novel}) == 1
    assert all(price.is_within_limit for price in novel)
    kl = [price.fixed_kl_nats for price in novel]
    assert max(kl) - min(kl) < 0.5
    deltas = [price.delta_bits for price in familiar]
    assert deltas[-1] >= deltas[0] + 5
    assert not familiar[-1].is_within_limit


def test_kl_to_xi_is_the_logarithm_of_what_xi_gives_the_constructed_policy(found):
    """pi is deterministic: its KL is -ln of the product of xi's conditionals on its actions."""
    setting, all_prices = found
    for price in all_prices:
        with np.errstate(divide="ignore"):
            logs = [-np.log(level[:, 2]) for level in price.xi]
        sequence = [
            logs[0][0] + logs[1][2 * setting.world.n_observations + o]
            for o in range(setting.world.n_observations)
        ]
        assert len(logs) == 2
        assert_allclose(price.fixed_kl_nats, max(sequence), rtol=1e-12)
        pi = tuple(np.tile([0.0, 0.0, 1.0], (len(level), 1)) for level in price.xi)
        assert_allclose(price.fixed_kl_nats, fixed_kl_nats(pi, price.xi), rtol=1e-12)
        assert_allclose(price.expected_kl_nats, expected_kl_nats(pi, price.xi, price.nu))


def test_training_lengths_are_powers_of_ten_and_numbers_that_are_not_round(found):
    setting, _ = found
    lengths = training_lengths(setting, 5000)
    assert [k for k, kind in lengths if kind is Kind.ROUND] == [10, 100, 1000]
    plain = [k for k, kind in lengths if kind is Kind.FAMILIAR]
    assert plain == sorted(set(plain))
    assert plain[-1] > 4000
    numbers = setting.language.numbers
    for k in plain:
        for later in range(k, k + setting.horizon):
            assert isinstance(shortest_number(numbers, later), Plain)


def test_what_the_demo_shows_is_what_it_computed(found, result):
    _, all_prices = found
    records = result.data["prices"]
    assert [record["k"] for record in records] == [price.n_steps for price in all_prices]
    for record, price in zip(records, all_prices, strict=True):
        assert_allclose(record["fixed_kl_nats"], price.fixed_kl_nats, rtol=1e-12)
        assert record["within_limit"] is price.is_within_limit
    novel, familiar, gains, frontier = result.tables
    assert len(novel.rows) + len(familiar.rows) == len(records)
    beyond = sum(not price.is_within_limit for price in all_prices)
    assert sum("beyond L" in row for row in familiar.rows) == beyond > 0
    assert all(row[-1] == "1 / 1" for row in gains.rows)
    for column in zip(*frontier.rows, strict=True):
        assert list(column) == sorted(column), "a larger budget buys no less"
    assert len(draw(result).axes) == 2


def test_the_frontier_reaches_the_constructed_policy(result):
    """The planner does at least as well as pi with pi's own KL."""
    for frontier in result.data["frontiers"]:
        budgets, values = np.array(frontier["budgets_nats"]), np.array(frontier["values"])
        enough = budgets >= frontier["kl_nats"]
        assert (values[enough] >= frontier["value"] - 1e-9).all()


def test_the_command_writes_its_files_and_says_what_it_found(tmp_path, capsys):
    argv = ["--bits", "20", "--steps", "100", "--horizon", "1", "--world", "alarm"]
    DEMO.main([*argv, "--out", str(tmp_path), "--jobs", "1"])
    assert "more data buys no more safety" in " ".join(capsys.readouterr().out.split())
    document = json.loads((tmp_path / "theorem1.json").read_text())
    assert document["options"]["world"] == "alarm"
    for suffix in ("png", "pdf"):
        assert (tmp_path / f"theorem1.{suffix}").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--bits", "-1"], r"--bits must lie in 2\.\.34, got -1"),
        (["--steps", "5"], r"--steps must lie in 100\.\.1000000, got 5"),
        (["--horizon", "9"], r"--horizon must lie in 1\.\.5, got 9"),
        (["--jobs", "0"], "--jobs must be >= 1, got 0"),
        (["--cluster", "slurm:head:1"], "'slurm:head:1' is no cluster; name one as ray"),
        (["--world", "mars"], "invalid choice 'mars'"),
        (["--bits", "12", "--steps", "100"], "allow at least 17 bits"),
    ],
)
def test_bad_options_get_one_line_and_exit_code_2(argv, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        DEMO.main([*argv, "--out", str(tmp_path)])
    assert exit_.value.code == BAD_USAGE
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert re.search(message, captured.err)
    assert not list(tmp_path.iterdir())


def test_exactly_enough_bits_are_enough():
    setting = setting_of(WorldName.ECHO, horizon=1)
    with pytest.raises(UnreachableLengthError, match="allow at least 21 bits"):
        prices(setting, limit_bits=20, n_steps=100, rng=np.random.default_rng(0))
    enough, _ = prices(setting, limit_bits=21, n_steps=100, rng=np.random.default_rng(0))
    assert all(price.is_within_limit for price in enough if price.kind is Kind.NOVEL)
    with pytest.raises(InvalidArgumentError, match="horizon must be >= 1, got 0"):
        setting_of(WorldName.ECHO, horizon=0)
    with pytest.raises(InvalidArgumentError, match="must be >= 10, got 9"):
        training_lengths(setting, 9)


def test_the_joint_imitator_is_the_joint_predictors_demo(tmp_path, monkeypatch, capsys):
    asked = []

    def compute(options):
        asked.append(options)
        raise InvalidArgumentError("stop here")

    monkeypatch.setattr("toy_world.demo_joint_predictor.compute", compute)
    with pytest.raises(SystemExit):
        DEMO.main(["--imitator", "joint", "--seed", "7", "--out", str(tmp_path)])
    assert asked[0].seed == 7
    assert asked[0].out == tmp_path
    assert "stop here" in capsys.readouterr().err
