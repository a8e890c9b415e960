"""The command that trains the shipped models."""

import json

import pytest

from llm_experiment.base.training import (
    MANIFEST,
)
from llm_experiment.tiny_models import main


def test_the_command_trains_saves_and_says_how_near_the_floor_it_came(tmp_path, capsys):
    main(
        [
            *("--out", str(tmp_path)),
            *("--language-model.n-tokens", "512", "--language-model.n-heldout", "2"),
            *("--language-model.sequence-length", "64", "--language-model.batch-size", "4"),
            *("--reward-model.n-steps", "2", "--reward-model.n-heldout", "10"),
        ]
    )
    printed = capsys.readouterr().out
    for words in ("held-out loss", "floor", "step 2/2", "s left", "other than the shipped weights"):
        assert words in " ".join(printed.split())
    manifest = json.loads((tmp_path / "classroom" / MANIFEST).read_text())
    assert manifest["language_model"]["recipe"]["n_tokens"] == 512
    quality = manifest["language_model"]["quality_nats_per_token"]
    assert quality["loss"]["mean"] > quality["floor"]["mean"] > 0
    assert set(manifest["versions"]) == {"numpy", "torch", "transformers"}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--task", "moon"], "unknown task 'moon'; there are"),
        (["--language-model.n-tokens", "0"], "n_tokens must be >= 1 and finite, got 0"),
        (["--tasks", "x"], "nrecognized option"),
    ],
)
def test_bad_options_are_one_line(argv, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    (line,) = capsys.readouterr().err.splitlines()
    assert exit_.value.code == 2
    assert message in line
