"""Distances of the demonstrator, the base model and agents, and demonstrations to learn from."""

import json
import math
from dataclasses import replace

import pytest

from llm_experiment.base.training import (
    new_language_model,
    new_reward_model,
    reply_tokenizer,
    save_models,
)
from llm_experiment.chat.turns import TurnRules
from llm_experiment.config import WorldConfig
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import load_task
from llm_experiment.known_demonstrator import (
    DEMONSTRATIONS_FILE,
    RESULT_FILE,
    Options,
    main,
    measure,
    to_table,
)
from llm_experiment.pessimism.demonstrations import read_transcripts
from tests.llm_experiment.fakes.small_world import small_world
from theory.errors import InvalidArgumentError

SMALL = Options(n_dialogues=30, n_tokens=40, at_once=20)


def test_the_demonstrator_is_near_the_model_and_the_model_not_near_it():
    (demonstrator, base), dialogues = measure(SMALL, small_world())
    assert demonstrator.wordless_share == 0.0
    assert demonstrator.kl_to_demonstrator_nats is None
    assert 0 < demonstrator.kl_to_base_nats <= demonstrator.kl_to_base_nats_max
    assert demonstrator.kl_to_base_nats == pytest.approx(dialogues.spent_nats.mean())
    assert base.kl_to_base_nats == 0.0
    assert base.wordless_share > 0
    assert base.kl_to_demonstrator_nats == math.inf
    assert base.n_episodes == len(dialogues.tokens) == 30
    texts = to_table((demonstrator, base)).texts
    assert [row[-1] for row in texts] == ["-", "inf"]


def test_a_pessimistic_world_is_refused():
    with pytest.raises(InvalidArgumentError, match="leave out --vetoes and --members"):
        replace(SMALL, world=WorldConfig(vetoes="some.json"))


def test_the_command_writes_distances_and_demonstrations(tmp_path, capsys):
    process = DialogueProcess(load_task("classroom"))
    models, out = tmp_path / "models", tmp_path / "out"
    save_models(
        models,
        process,
        new_language_model(process, seed=0),
        new_reward_model(reply_tokenizer(process), seed=0),
        {},
    )
    main([
        "--out", str(out), "--base-model", str(models / "language_model"),
        "--reward", str(models / "reward_model"), "--n-dialogues", "3", "--n-tokens", "80",
        "--max-reply-tokens", "8",
    ])  # fmt: skip
    assert "Near to the imitator" in capsys.readouterr().out
    stored = json.loads((out / RESULT_FILE).read_text())
    assert [row["policy"] for row in stored["distances"]] == ["demonstrator", "base model"]
    read = read_transcripts(out / DEMONSTRATIONS_FILE, TurnRules())
    assert len(read) == 3
    assert {one.prompt for one in read} == {process.task.prompt}
    assert all(one.text.endswith((process.task.prompt, "Student:", "Teacher:")) for one in read)
