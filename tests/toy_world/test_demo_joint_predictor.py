"""The demo's numbers are the families' own; bad options say what to do."""

import json

import pytest

from mightnt.command_line import BAD_USAGE
from theory import bounds
from toy_world import demo_joint_predictor
from toy_world.demo_joint_predictor import DEMO, JointPredictorOptions, compute


@pytest.fixture(scope="module")
def result():
    # One training length is enough for the tables' shape; the demo's own are slower.
    patch = pytest.MonkeyPatch()
    patch.setattr(demo_joint_predictor, "TRAINING_LENGTHS", (2,))
    yield compute(JointPredictorOptions(delta_bits=3))
    patch.undo()


def test_the_cost_of_pointed_deviators_approaches_its_limit_and_passes_the_printed_bound(result):
    data = result.data
    for n, exact in zip(data["n"], data["fixed_nats"], strict=True):
        limit = bounds.pointed_deviators_nats(n=n, delta_bits=3)
        assert 0.99 * limit < exact <= limit * (1 + 1e-12)
    assert data["fixed_nats"][-1] > data["printed_nats"] > data["bound_nats"]


def test_expected_costs_stay_below_the_bounds_that_hold(result):
    sources = result.tables[1]
    for _, _, _, kl, limit in sources.rows:
        assert limit is None or kl <= limit


def test_the_ordinary_world_is_bounded_with_its_residual(result):
    (row,) = result.data["ordinary"]
    assert row["k"] == 2
    assert row["fixed_nats"] <= row["bound_nats"] + row["residual_nats"]


def test_the_figure_and_the_document_are_written(result, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo_joint_predictor, "ordinary_mixture", lambda *_, **__: recorded(result))
    DEMO.main(["--out", str(tmp_path), "--delta-bits", "2"])
    document = json.loads((tmp_path / "joint_predictor.json").read_text())
    assert document["data"]["delta_bits"] == 2
    assert (tmp_path / "joint_predictor.png").stat().st_size > 10_000
    assert "FAILS" in capsys.readouterr().out


def recorded(result):
    from toy_world.studies.joint_predictor import OrdinaryCosts

    (row,) = result.data["ordinary"]
    return OrdinaryCosts(
        n_models=1,
        bound=bounds.Theorem1Bound(delta_bits=9),
        fixed_nats=row["fixed_nats"],
        expected_nats=row["expected_nats"],
        residual_nats=row["residual_nats"],
    )


@pytest.mark.parametrize(
    ("argv", "words"), [(["--delta-bits", "0"], "1..12"), (["--bits", "19"], "20..22")]
)
def test_bad_options_are_one_line_with_exit_code_2(capsys, argv, words):
    with pytest.raises(SystemExit) as exit_:
        DEMO.main(argv)
    assert exit_.value.code == BAD_USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
