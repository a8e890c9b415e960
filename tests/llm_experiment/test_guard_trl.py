import json
import math

import numpy as np
import pytest
import torch

from llm_experiment import guard_trl
from llm_experiment.guard.measured import answers_kl_nats
from llm_experiment.guard.study import Constraint, GRPOSettings, Outcome
from llm_experiment.guard.study_tables import every_number, to_table
from tests.llm_experiment.guard.pairs import log_probs, pair, tokens
from theory.errors import InvalidArgumentError, InvalidBudgetError

SMALL = (
    "--max-steps", "2", "--per-device-train-batch-size", "8", "--num-generations", "4",
    "--max-completion-length", "6", "--n-prompts", "8", "--n-held-out", "8",
)  # fmt: skip


def outcome(constraint, kl_nats=(0.5, 2.0), most_in_training=1.0):
    return Outcome(
        constraint=constraint,
        returns=(1.0, 2.0),
        kl_nats=kl_nats,
        most_in_training_nats=most_in_training,
        n_in_training=16,
    )


# ------------------------------------------------------------------------------ what is measured


def test_what_an_answer_costs_is_the_sum_of_its_steps():
    policy, reference = pair()
    prompts, answers = ([1, 2], [3, 4, 5]), ([0, 4, 1], [2])
    found = answers_kl_nats(policy, reference, prompts, answers)
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        p, q = (log_probs(m, torch.tensor([prompt + answer]))[0] for m in (policy, reference))
        steps = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
        expected = sum(float(np.sum(np.exp(p[t]) * (p[t] - q[t]))) for t in steps)
        assert float(found[i]) == pytest.approx(expected, abs=1e-5)


def test_equal_models_cost_nothing():
    policy, _ = pair()
    rows = tokens(3, 4).tolist()
    assert answers_kl_nats(policy, policy, rows, rows).tolist() == [0.0] * 3


# --------------------------------------------------------------------------- what came of it


def test_a_budget_is_overspent_if_one_sequence_anywhere_cost_more():
    hard = Constraint(budget_nats=2.0)
    assert outcome(hard).is_overspent is False
    assert outcome(hard, kl_nats=(0.0, 2.0000001)).is_overspent is True
    assert outcome(hard, most_in_training=2.001).is_overspent is True
    assert outcome(Constraint(beta=0.1)).is_overspent is None


def test_a_row_says_what_was_asked_and_what_came_of_it():
    (row,) = every_number([outcome(Constraint(budget_nats=3.0), kl_nats=tuple(range(100)))]).records
    assert (row["constraint"], row["budget_nats"], row["beta"]) == ("budget-3", 3.0, None)
    assert row["kl_nats"] == pytest.approx(49.5)
    assert row["kl_nats_95"] == 94  # as many as 95 of 100 cost no more
    assert row["kl_nats_most"] == 99
    half = 1.959963984540054 * math.sqrt(0.5) / math.sqrt(2)
    assert row["return_low"] == pytest.approx(1.5 - half)
    table = to_table((outcome(Constraint(beta=0.1)),))
    assert table.texts[0][0] == "beta-0.1"


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"beta": -1.0}, InvalidArgumentError, "beta must be >= 0"),
        ({"budget_nats": -1.0}, InvalidBudgetError, "finite number >= 0, got -1"),
        ({"budget_nats": 1.0, "beta": 1.0}, InvalidArgumentError, "a budget or a penalty"),
    ],
)
def test_unfit_constraints_are_refused(options, error, said):
    with pytest.raises(error, match=said):
        Constraint(**options)


def test_settings_that_train_nothing_are_refused():
    with pytest.raises(InvalidArgumentError, match="words must name at least 1 token"):
        GRPOSettings(words=())
    with pytest.raises(InvalidArgumentError, match="max_steps must be >= 1 and finite, got 0"):
        GRPOSettings(max_steps=0)
    with pytest.raises(InvalidArgumentError, match="at least one of budgets and betas"):
        guard_trl.Options(budgets=(), betas=())


# -------------------------------------------------------------------------------- the command


def test_finished_trainings_are_read_and_not_trained_again(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(guard_trl.importlib.util, "find_spec", lambda name: name)
    options = guard_trl.Options(out=tmp_path, budgets=(2.0,), betas=(0.1,))
    for constraint in options.constraints:
        training = guard_trl.Training(settings=options.grpo, outcome=outcome(constraint))
        guard_trl.write_json(tmp_path / constraint.name / "outcome.json", training)
    argv = ["--out", str(tmp_path), "--budgets", "2", "--betas", "0.1"]
    guard_trl.main(argv)
    said = capsys.readouterr().out
    assert "budget-2" in said
    assert "overspent: none" in said
    rows = [
        json.loads(line)
        for line in (tmp_path / "guard_trl.trainings.jsonl").read_text().splitlines()
    ]
    assert [row["constraint"] for row in rows] == ["budget-2", "beta-0.1"]
    assert [row["budget_nats"] for row in rows] == [2.0, None]
    assert (tmp_path / "guard_trl.png").is_file()
    with pytest.raises(SystemExit):
        guard_trl.main([*argv, "--max-steps", "3"])
    assert "trained with other settings" in capsys.readouterr().err


def test_without_trl_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(guard_trl.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        guard_trl.main(["--out", str(tmp_path)])
    said = capsys.readouterr().err
    assert "needs datasets and trl; install it with: pip install 'mightnt[trl]'" in said


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_in_an_unmodified_trainer_no_sequence_is_overspent(tmp_path, capsys):
    pytest.importorskip("trl", reason="needs the extra trl: pip install 'mightnt[trl]'")
    guard_trl.main(
        ["--out", str(tmp_path), "--budgets", "0.2", "--betas", "0.01", *SMALL,
         "--learning-rate", "0.01", "--max-steps", "8"]
    )  # fmt: skip
    assert "overspent: none" in capsys.readouterr().out
    hard, penalised = json.loads((tmp_path / "guard_trl.json").read_text())["outcomes"]
    for costs in (hard["kl_nats"], [hard["most_in_training_nats"]]):
        assert 0.19 < max(costs) <= 0.2
    assert hard["n_in_training"] == 64
    # The same steps without a budget go further.
    assert max(penalised["kl_nats"]) > 0.2
    logged = sorted(path.name for path in (tmp_path / "budget-0.2").glob("events.*"))
    assert logged
