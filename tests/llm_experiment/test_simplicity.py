"""The command that sets price against simplicity."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from llm_experiment.base.shipped import language_model_folder
from llm_experiment.simplicity import STEM, Options, main
from theory.errors import InvalidArgumentError, InvalidBudgetError

SMALL = [
    *("--recipe.sequence-length", "64", "--recipe.n-heldout", "2", "--n-models", "2"),
    *("--n-contexts", "2", "--n-turns", "1", "--n-tokens", "128"),
]


@pytest.fixture
def trained(monkeypatch):
    """The shipped model, a little shaken by the seed, for each that is to be trained: their seeds.

    Models of seconds of training do not end their turns.
    """
    seeds = []

    def train(_, recipe):
        seeds.append(recipe.seed)
        model = AutoModelForCausalLM.from_pretrained(language_model_folder("support_desk"))
        generator = torch.Generator().manual_seed(recipe.seed)
        with torch.no_grad():
            for weights in model.parameters():
                weights.add_(torch.randn(weights.shape, generator=generator), alpha=1e-3)
        return model

    monkeypatch.setattr("llm_experiment.base.training.train_language_model", train)
    return seeds


def test_the_command_writes_tables_and_figure_and_goes_on(tmp_path, capsys, trained):
    argv = [*SMALL, "--out", str(tmp_path)]
    main(argv)
    printed = capsys.readouterr().out
    assert "What the price of a first promise goes with (2 base models)" in printed
    stored = json.loads((tmp_path / f"{STEM}.json").read_text())
    assert [model["made_with"]["recipe"]["seed"] for model in stored["models"]] == [0, 1] == trained
    first, second = (model["prices"] for model in stored["models"])
    assert len(first) == len(second) == 45
    assert first != second
    assert (tmp_path / f"{STEM}.png").is_file()
    assert "| rare-16x1 | 16 |" in (tmp_path / f"{STEM}.md").read_text()
    assert (tmp_path / f"{STEM}.associations.jsonl").stat().st_size > 100
    # Another budget, and a model that is there: nothing is trained again.
    main([*argv, "--budget-nats", "3"])
    assert trained == [0, 1]
    # Another recipe makes another model.
    main([*argv, "--recipe.n-tokens", "384", "--n-models", "1"])
    assert trained == [0, 1, 0]


def test_bad_options_are_refused():
    with pytest.raises(InvalidArgumentError, match="n_models must be >= 1"):
        Options(n_models=0)
    with pytest.raises(InvalidBudgetError):
        Options(budget_nats=-1.0)
