"""The command that sets price against simplicity."""

import json

import pytest

from llm_experiment.simplicity import PRICES_FILE, STEM, Options, main
from theory.errors import InvalidArgumentError, InvalidBudgetError

SMALL = [
    *("--recipe.n-tokens", "256", "--recipe.sequence-length", "64", "--recipe.batch-size", "2"),
    *("--recipe.n-heldout", "2", "--n-models", "2", "--n-contexts", "2", "--n-turns", "1"),
    *("--n-tokens", "128"),
]


def test_the_command_writes_tables_and_figure_and_goes_on(tmp_path, capsys):
    argv = [*SMALL, "--out", str(tmp_path)]
    main(argv)
    printed = capsys.readouterr().out
    assert "What the price of a first promise goes with (2 base models)" in printed
    stored = json.loads((tmp_path / f"{STEM}.json").read_text())
    assert [model["made_with"]["recipe"]["seed"] for model in stored["models"]] == [0, 1]
    first, second = (model["prices"] for model in stored["models"])
    assert len(first) == len(second) == 45
    assert first != second
    assert (tmp_path / f"{STEM}.png").is_file()
    assert "Price of a promise" in (tmp_path / f"{STEM}.md").read_text()
    # Another budget, and a model that is there: nothing is trained again.
    files = [tmp_path / f"model-{seed}" / PRICES_FILE for seed in (0, 1)]
    before = [file.stat().st_mtime_ns for file in files]
    main([*argv, "--budget-nats", "3"])
    assert [file.stat().st_mtime_ns for file in files] == before
    # Another recipe makes another model.
    main([*argv, "--recipe.n-tokens", "384", "--n-models", "1"])
    assert files[0].stat().st_mtime_ns > before[0]
    assert files[1].stat().st_mtime_ns == before[1]


def test_bad_options_are_refused():
    with pytest.raises(InvalidArgumentError, match="n_models must be >= 1"):
        Options(n_models=0)
    with pytest.raises(InvalidBudgetError):
        Options(budget_nats=-1.0)
