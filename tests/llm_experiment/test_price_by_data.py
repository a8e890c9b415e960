"""The command that sets price against the amount of data."""

import json
from dataclasses import replace

import pytest

from llm_experiment.price_by_data import PRICES_FILE, STEM, Options, main
from theory.errors import InvalidArgumentError


def test_the_command_writes_table_and_figure_and_goes_on(tmp_path, capsys):
    argv = [
        *("--task", "quiz", "--powers", "7", "8", "--n-seeds", "2", "--n-words", "2"),
        *("--n-contexts", "2", "--n-tokens", "80", "--out", str(tmp_path)),
        *("--recipe.sequence-length", "64", "--recipe.batch-size", "2", "--recipe.n-heldout", "2"),
    ]
    main(argv)
    assert "Price of what the demonstrator never does" in capsys.readouterr().out
    stored = json.loads((tmp_path / f"{STEM}.json").read_text())
    made = [model["made_with"]["recipe"] for model in stored["models"]]
    assert [(each["n_tokens"], each["seed"]) for each in made] == [
        (128, 0), (128, 1), (256, 0), (256, 1),
    ]  # fmt: skip
    text = (tmp_path / f"{STEM}.md").read_text()
    assert "| answer of both |" in text
    assert "answer of both, vetoed" in text
    assert len(text.splitlines()) == 4
    assert [model["n_demonstrations"] for model in stored["models"]] == [1, 1, 1, 1]
    assert (tmp_path / f"{STEM}.png").is_file()
    rows = [json.loads(x) for x in (tmp_path / f"{STEM}.prices.jsonl").read_text().splitlines()]
    assert [(row["tokens"], row["models"]) for row in rows] == [(128, 2), (256, 2)]
    nats = [model["prices"]["behaviour"] for model in stored["models"]]
    assert rows[0]["answer_of_both"] == pytest.approx(sum(nats[:2]) / 2)
    files = sorted(tmp_path.glob(f"*/{PRICES_FILE}"))
    before = {file: file.stat().st_mtime_ns for file in files}
    main([*argv, "--n-seeds", "1"])  # of what is there, nothing is trained again
    assert {file: file.stat().st_mtime_ns for file in files} == before
    main([*argv, "--n-seeds", "1", "--powers", "7", "--n-words", "3"])
    changed = {file for file in files if file.stat().st_mtime_ns != before[file]}
    assert {file.parent.name for file in changed} == {"tokens-2e7-seed0"}


def test_a_task_of_ones_own_that_was_changed_is_another_task(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "own_quiz_to_price.py"
    module.write_text("from llm_experiment.dialogue.tasks.quiz import TASK\n")
    argv = [
        *("--task", f"{module.stem}:TASK", "--powers", "7", "--n-seeds", "1", "--n-words", "1"),
        *("--n-contexts", "2", "--n-tokens", "60", "--out", str(tmp_path / "out")),
        *("--recipe.sequence-length", "64", "--recipe.batch-size", "2", "--recipe.n-heldout", "2"),
    ]
    main(argv)
    (file,) = tmp_path.glob(f"out/*/{PRICES_FILE}")
    before = file.stat().st_mtime_ns
    main(argv)
    assert file.stat().st_mtime_ns == before
    module.write_text(f"{module.read_text()}# and a change\n")
    main(argv)
    assert file.stat().st_mtime_ns > before


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--n-words", "1000"), "n_words must lie in 1.."),
        (("--n-tokens", "4"), "none of 64 dialogues of 4 tokens has a turn of Teacher"),
    ],
)
def test_what_cannot_be_priced_is_said_before_anything_is_trained(
    argv, message, tmp_path, capsys, monkeypatch
):
    def train(*_):
        raise AssertionError("too early")

    monkeypatch.setattr("llm_experiment.base.training.train_into", train)
    with pytest.raises(SystemExit):
        main([*argv, "--out", str(tmp_path)])
    assert message in capsys.readouterr().err


def test_bad_options_are_refused():
    with pytest.raises(InvalidArgumentError, match="n_seeds must be >= 1"):
        Options(n_seeds=0)
    with pytest.raises(InvalidArgumentError, match="alpha must lie in"):
        Options(alpha=2.0)
    for powers in ((), (0,), (12, 14, 12)):  # models that count twice make intervals narrow
        with pytest.raises(InvalidArgumentError, match="powers must name exponents >= 1"):
            Options(powers=powers)


def test_where_data_are_few_batches_are_smaller_so_that_there_are_enough_steps():
    options = Options(powers=(12,))
    assert options.model(12, 0).recipe.batch_size == 1
    for power in range(18, 24):
        recipe = options.model(power, 1).recipe
        assert recipe.n_steps >= options.least_steps
        assert recipe.batch_size <= options.recipe.batch_size
    assert recipe.batch_size == options.recipe.batch_size
    assert replace(options, least_steps=1).model(18, 0).recipe.batch_size == 16
