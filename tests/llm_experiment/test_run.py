"""The command: options that make sense, errors of one line, nothing heavy before them."""

from pathlib import Path

import pytest

from llm_experiment.run import main
from mightnt.command_line import BAD_USAGE, INTERRUPTED
from tests.llm_experiment.fakes.tiny_run import (
    tiny_models,
)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return tiny_models(tmp_path_factory.mktemp("models"))


def one_line_error(capsys, *argv):
    with pytest.raises(SystemExit) as exit_:
        main(list(argv))
    assert exit_.value.code == BAD_USAGE
    *_, line = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--preset", "small"], "small"),
        (["--suite", "huge"], "huge"),
        (["--budgets-nats", "-1"], "budgets must be >= 0 nats, got -1.0"),
        (["--budgets-nats", "nan"], "got nan"),
        (["--ppo.clip-range", "0"], "clip_range must be > 0 and finite, got 0.0"),
        (["--stages.0.n-tokens", "1"], "n_tokens of a stage must be >= 2 and finite, got 1"),
        (["--processes", "0"], "processes must be >= 1"),
        (["--base-model", "/no/such/folder"], "/no/such/folder"),
        (["--device", "cuda:77"], "cuda:77"),
        (["--agent-device", "cuda:77"], "device cuda:77 cannot be used on this machine"),
        (["--task", "opera"], "opera"),
        (["--stages.0.n-tokens", "20"], "the prompt has 37 tokens and the episode only 20"),
        (["--evaluation-lengths", "20"], "the prompt has 37 tokens and the episode only 20"),
        (["--evaluation-lengths", "9999"], "do not fit the language model, which reads at most"),
        (["--agent-name", "Nobody"], "Nobody:"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(argv, words, capsys, tmp_path, models):
    given = [
        "--base-model", str(models / "language_model"),
        "--reward-model", str(models / "reward_model"),
        "--out", str(tmp_path / "run"), "--processes", "1", *argv,
    ]  # fmt: skip
    assert words in one_line_error(capsys, *given)


def test_ctrl_c_exits_with_its_own_code(monkeypatch, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("llm_experiment.jobs.run_suite", interrupted)
    with pytest.raises(SystemExit) as exit_:
        main(["--out", str(tmp_path)])
    assert exit_.value.code == INTERRUPTED
