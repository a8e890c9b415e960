"""Tokenizers and training of the shipped models, and their files."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DistilBertForSequenceClassification,
    MixtralForCausalLM,
)

from llm_experiment.base import training
from llm_experiment.base.shipped import (
    LanguageModelRecipe,
    RewardModelRecipe,
    language_model_folder,
    reward_model_folder,
)
from llm_experiment.base.training import (
    MANIFEST,
    language_model_log_likelihoods,
    language_model_quality,
    mean_over_dialogues,
    new_language_model,
    reply_tokenizer,
    reward_model_quality,
    save_models,
    train_language_model,
    train_reward_model,
    transcript_tokenizer,
)
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import load_task
from tests.llm_experiment.fakes.tiny_task import TINY_TASK
from theory.errors import InvalidArgumentError, ModelError, ResultsError

MOMENT = LanguageModelRecipe(n_tokens=4 * 16 * 24, sequence_length=24, batch_size=16, n_heldout=40)
"""Four steps."""
SHORT = replace(MOMENT, n_tokens=80 * 16 * 24, n_heldout=200)
"""Some seconds of training."""
SHORT_REWARD = RewardModelRecipe(n_steps=100, batch_size=64, n_heldout=500)


@pytest.fixture(scope="module")
def tiny() -> DialogueProcess:
    return DialogueProcess(TINY_TASK)


@pytest.fixture(scope="module")
def classroom() -> DialogueProcess:
    return DialogueProcess(load_task("classroom"))


@pytest.fixture(scope="module")
def trained(tiny):
    return train_language_model(tiny, SHORT)


@pytest.fixture(scope="module")
def trained_reward(tiny):
    return train_reward_model(tiny, SHORT_REWARD)


# -------------------------------------------------------------------------- tokenizers


@given(st.lists(st.floats(0, 1, exclude_max=True), max_size=40))
def test_token_ids_are_the_processs_and_any_sequence_of_them_comes_back(classroom, shares):
    tokenizer = transcript_tokenizer(classroom)
    assert len(tokenizer) == len(classroom.vocabulary)
    tokens = [int(share * len(classroom.vocabulary)) for share in shares]
    text = classroom.decode(tokens)
    assert tokenizer.decode(tokens) == text
    assert tokenizer.encode(text) == tokens


def test_a_word_that_nobody_says_is_unknown_and_the_rest_is_not(classroom):
    tokenizer = transcript_tokenizer(classroom)
    ids = tokenizer.encode("Teacher: Do xylophones?\n")
    assert tokenizer.convert_ids_to_tokens(ids) == ["Teacher", ":", " Do", "<unk>", "?", "\n"]


def test_a_reply_reads_the_same_with_or_without_its_first_blank(classroom):
    tokenizer = reply_tokenizer(classroom)
    with_blank, without = (tokenizer.encode(text) for text in (" Yes, bad.", "Yes, bad."))
    assert with_blank == without
    known = classroom.encode(" Yes, bad.").tolist()
    n = len(classroom.vocabulary)
    assert with_blank == [n, *known, n + 1]
    assert tokenizer.encode("!") == [n, classroom.vocabulary.index("!"), n + 1]
    assert tokenizer.encode("") == [n, n + 1]


# ---------------------------------------------------------------------------- training


def test_training_comes_near_the_floor_and_never_below_it(tiny, trained):
    untrained = language_model_quality(new_language_model(tiny, seed=0), tiny, SHORT)
    assert untrained.loss.mean == pytest.approx(math.log(len(tiny.vocabulary)), abs=0.2)
    quality = language_model_quality(trained, tiny, SHORT)
    assert quality.excess.mean == pytest.approx(quality.loss.mean - quality.floor.mean, abs=1e-9)
    assert 0 < quality.excess.low < quality.excess.mean < 0.15
    assert not trained.training


def test_the_held_out_loss_is_the_librarys_own(tiny, trained, rng):
    transcripts = tiny.sample(rng, 10, 24)
    tokens = torch.from_numpy(transcripts)
    with torch.inference_mode():
        loss = trained(input_ids=tokens, labels=tokens).loss.item()
    log_likelihoods = language_model_log_likelihoods(trained, transcripts, batch_size=3)
    assert log_likelihoods.shape == (10, 23)
    assert -log_likelihoods.mean() == pytest.approx(loss, rel=1e-5)


def test_the_same_seed_trains_the_same_weights_and_another_seed_others(tiny):
    torch.manual_seed(1)
    first, again = (train_language_model(tiny, MOMENT).state_dict() for _ in range(2))
    other = train_language_model(tiny, replace(MOMENT, seed=1)).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_training_leaves_the_global_generator_alone(tiny):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_language_model(tiny, MOMENT)
    assert torch.equal(torch.rand(3), expected)


def test_training_reports_every_step_of_a_short_run_and_twenty_times_of_a_long_one(tiny):
    reports = []
    train_language_model(tiny, MOMENT, on_progress=reports.append)
    assert [report.step for report in reports] == [1, 2, 3, 4]
    assert reports[0].loss_nats == pytest.approx(math.log(len(tiny.vocabulary)), abs=0.3)
    reports.clear()
    recipe = replace(SHORT_REWARD, n_steps=60)
    train_reward_model(tiny, recipe, on_progress=reports.append)
    assert [report.step for report in reports] == list(range(3, 61, 3))


def test_training_that_diverges_says_at_which_step_and_what_to_lower(tiny, monkeypatch):
    steps = itertools.count(1)
    sample = training.functional.cross_entropy

    def broken(*args, **kwargs):
        return sample(*args, **kwargs) * (math.nan if next(steps) == 3 else 1.0)

    monkeypatch.setattr(training.functional, "cross_entropy", broken)
    with pytest.raises(
        ModelError, match=r"diverged: the loss is nan at step 3 of 60; lower .*rate"
    ):
        train_reward_model(tiny, replace(SHORT_REWARD, n_steps=60))


def test_the_reward_model_learns_how_positive_each_mood_is(tiny, trained_reward):
    quality = reward_model_quality(trained_reward, tiny, SHORT_REWARD)
    assert 0 < quality.mean_error < 0.02
    assert quality.mean_error <= quality.worst_error < 0.2


def test_the_models_are_of_the_published_architectures(classroom):
    model = new_language_model(classroom, seed=0)
    assert isinstance(model, MixtralForCausalLM)
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (64, 3)
    assert (model.config.num_attention_heads, model.config.num_key_value_heads) == (4, 2)
    assert (model.config.num_local_experts, model.config.num_experts_per_tok) == (4, 2)
    assert model.config.intermediate_size == 128


def test_an_interval_widens_by_the_normal_quantile():
    values = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    error = math.sqrt(2.5 / 5)
    narrow, wide = (mean_over_dialogues(values, confidence=c) for c in (0.6826894921, 0.9544997361))
    assert narrow.mean == wide.mean == 2.0
    assert narrow.high - 2.0 == pytest.approx(error, rel=1e-9)
    assert 2.0 - wide.low == pytest.approx(2 * error, rel=1e-9)
    with pytest.raises(InvalidArgumentError, match=r"confidence must lie in \(0, 1\), got 1"):
        mean_over_dialogues(np.zeros(3), confidence=1)


# ------------------------------------------------------------------------------- files


def test_saved_models_load_like_any_others(tmp_path, tiny, trained, trained_reward, rng):
    save_models(tmp_path / "tiny", tiny, trained, trained_reward, {"seed": 0})
    folder = language_model_folder("tiny", weights=tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    transcripts = tiny.sample(rng, 3, 20)
    np.testing.assert_allclose(
        language_model_log_likelihoods(model, transcripts),
        language_model_log_likelihoods(trained, transcripts),
        atol=1e-5,
    )
    assert tokenizer.encode(tiny.decode(transcripts[0])) == transcripts[0].tolist()
    assert tokenizer.decode(transcripts[0]) == tiny.decode(transcripts[0])
    folder = reward_model_folder("tiny", weights=tmp_path)
    judge = AutoModelForSequenceClassification.from_pretrained(folder)
    assert isinstance(judge, DistilBertForSequenceClassification)
    assert judge.config.id2label == {0: "NEGATIVE", 1: "POSITIVE"}
    assert AutoTokenizer.from_pretrained(folder).encode(" Yes.") == reply_tokenizer(tiny).encode(
        " Yes."
    )
    assert json.loads((tmp_path / "tiny" / MANIFEST).read_text()) == {"seed": 0}


def test_saving_replaces_what_was_there_whole(tmp_path, tiny, trained, trained_reward):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "stale.txt").write_text("old")
    save_models(tmp_path / "tiny", tiny, trained, trained_reward, {})
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
    assert not (tmp_path / "tiny" / "stale.txt").exists()


def test_a_save_that_fails_leaves_the_old_models_alone(
    tmp_path, tiny, trained, trained_reward, monkeypatch
):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "good.txt").write_text("old")

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trained_reward, "save_pretrained", full_disk)
    with pytest.raises(ResultsError, match=r"cannot write .*tiny: No space left on device; free"):
        save_models(tmp_path / "tiny", tiny, trained, trained_reward, {})
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
    assert (tmp_path / "tiny" / "good.txt").read_text() == "old"
