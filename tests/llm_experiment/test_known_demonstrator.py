"""Distances of the demonstrator, the base model and agents, and demonstrations to learn from."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from llm_experiment import known_demonstrator
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
    PLAYED,
    RESULT_FILE,
    Options,
    main,
    measure,
    to_table,
)
from llm_experiment.pessimism.demonstrations import read_transcripts
from llm_experiment.records.reading import read_run
from tests.llm_experiment.fakes.recorded_run import copied
from tests.llm_experiment.fakes.small_world import small_world
from theory.errors import InvalidArgumentError

SMALL = Options(n_dialogues=30, n_tokens=40, at_once=20)


def test_the_demonstrator_is_near_the_model_and_the_model_not_near_it(tmp_path):
    (demonstrator, base), dialogues = measure(replace(SMALL, out=tmp_path), small_world())
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


def test_what_was_played_is_not_played_again(tmp_path, monkeypatch):
    """However the command stopped; but where options changed, or a file is broken, it is."""
    options, world = replace(SMALL, out=tmp_path), small_world()
    first, dialogues = measure(options, world)
    played = []
    play = known_demonstrator._play_lot
    monkeypatch.setattr(
        known_demonstrator, "_play_lot", lambda *args: played.append(args[2]) or play(*args)
    )
    again, same = measure(replace(options, runs=()), world)
    assert again == first
    np.testing.assert_array_equal(same.tokens, dialogues.tokens)
    assert played == []
    (tmp_path / PLAYED / "demonstrator-1.npz").write_bytes(b"PK broken")
    (tmp_path / PLAYED / "base-model-0.npz").unlink()
    assert measure(options, world)[0] == first
    assert played == [10, 20]
    measure(replace(options, seed=1), world)
    assert played[2:] == [20, 10, 20, 10]


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


def test_agents_of_a_run_stand_beside_them_by_their_own_episodes(tmp_path, capsys):
    run = copied(tmp_path)
    argv = ["--out", str(tmp_path / "out"), "--runs", str(run), "--n-dialogues", "2"]
    main([*argv, "--n-tokens", "60"])
    assert "exact budget, 3 nats, seed 0, 72 tokens" in capsys.readouterr().out
    lines = (tmp_path / "out" / "distances.policies.jsonl").read_text().splitlines()
    found = {row["policy"]: row for row in map(json.loads, lines)}
    for name, evaluations in read_run(run).agents.items():
        (agent,) = evaluations
        spent = agent.episodes.arrays("spent_nats")["spent_nats"]
        row = found[f"{agent.variant}, {agent.budget_nats:g} nats, seed {agent.seed}, 72 tokens"]
        assert row["kl_to_model_nats"] == pytest.approx(spent.mean()), name
        assert row["largest"] == spent.max()
        assert row["episodes"] == len(spent)
        assert row["kl_to_demonstrator"] == (math.inf if row["wordless"] else None)
    (run / "agents" / "exact-budget3-seed0" / "result.json").unlink()
    with pytest.raises(SystemExit):
        main(argv)
    assert "unfinished run" in capsys.readouterr().err


def test_a_run_with_another_prompt_is_refused(tmp_path, capsys):
    argv = ["--runs", str(copied(tmp_path)), "--prompt", "Student: Why?\nTeacher:"]
    with pytest.raises(SystemExit):
        main([*argv, "--out", str(tmp_path / "out"), "--n-dialogues", "1", "--n-tokens", "60"])
    said = capsys.readouterr().err
    assert re.search("was made with prompt .* and not 'Student: Why.*; give this command", said)
