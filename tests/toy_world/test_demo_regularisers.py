import json
import math
from itertools import pairwise

import pytest

from mightnt.command_line import BAD_USAGE
from toy_world.demo_regularisers import (
    DEMO,
    Base,
    Constraint,
    RegularisersOptions,
    compute,
    matched_budget,
)


@pytest.fixture(scope="module")
def outcomes():
    return compute(RegularisersOptions(bits=18, steps=30)).data["outcomes"]


def _of(outcomes, base, constraint):
    found = [o for o in outcomes if o.base is base and o.constraint is constraint]
    assert found
    return found


def test_only_the_pessimist_keeps_the_never_done_at_zero(outcomes):
    for constraint in Constraint:
        for o in _of(outcomes, Base.BAYESIAN, constraint):
            if constraint is Constraint.PESSIMISTIC:
                assert o.bad_probability == 0
                assert o.value == pytest.approx(o.true_value, abs=1e-13)
            else:
                assert o.bad_probability > 0
                assert o.value > o.true_value


def test_with_a_perfect_base_a_zero_stays_a_zero_under_kl_and_chi_squared_alone(outcomes):
    for constraint in (Constraint.KL, Constraint.CHI_SQUARED):
        assert {o.bad_probability for o in _of(outcomes, Base.PERFECT, constraint)} == {0.0}
    for o in _of(outcomes, Base.PERFECT, Constraint.TVD):
        assert o.bad_probability == pytest.approx(o.budget, abs=1e-9)
    for o in _of(outcomes, Base.PERFECT, Constraint.REVERSE_KL):
        assert 0 < o.bad_probability <= -math.expm1(-o.budget) + 1e-8


def test_values_are_ordered_as_the_matched_budgets_imply(outcomes):
    """What chi-squared allows KL allows, what KL allows TVD allows, and no constraint all."""
    by_key = {(o.world, o.base, o.eps_nats, o.constraint): o.value for o in outcomes}
    order = (Constraint.CHI_SQUARED, Constraint.KL, Constraint.TVD, Constraint.NONE)
    for world, base, eps, _ in by_key:
        row = [by_key[world, base, eps, c] for c in order]
        assert all(b >= a - 1e-8 for a, b in pairwise(row))


def test_every_value_is_certified(outcomes):
    assert max(abs(o.gap) for o in outcomes) <= 1e-8


def test_budgets_are_matched_by_the_standard_inequalities():
    assert matched_budget(Constraint.TVD, 0.02) == pytest.approx(0.1)
    assert matched_budget(Constraint.TVD, 50.0) == pytest.approx(1.0)
    assert math.log1p(matched_budget(Constraint.CHI_SQUARED, 0.7)) == pytest.approx(0.7)
    assert matched_budget(Constraint.NONE, 1.0) == math.inf


def test_the_command_writes_its_three_files(tmp_path, capsys):
    DEMO.main(["--out", str(tmp_path), "--bits=18", "--steps=10", "--horizon=1"])
    assert "Theorem 2" in capsys.readouterr().out
    document = json.loads((tmp_path / "regularisers.json").read_text())
    evidence = {c["evidence"] for table in document["tables"] for c in table["columns"]}
    assert evidence == {None, "certified", "float64"}
    assert (tmp_path / "regularisers.png").stat().st_size > 10_000
    assert (tmp_path / "regularisers.pdf").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bits", "17"], "--bits must lie in 18..24, got 17"),
        (["--steps", "9"], "--steps must lie in 10..1000, got 9"),
        (["--horizon", "4"], "--horizon must lie in 1..3, got 4"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(options, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        DEMO.main(options)
    assert exit_.value.code == BAD_USAGE
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
