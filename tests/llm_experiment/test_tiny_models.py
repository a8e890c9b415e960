"""The shipped models: tokenizers, training, files, and what the weights are known for."""

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

from llm_experiment.dialogue.process import DialogueProcess, load_task
from llm_experiment.tiny_models import (
    MANIFEST,
    SHIPPED,
    LanguageModelRecipe,
    Options,
    RewardModelRecipe,
    language_model_folder,
    language_model_log_likelihoods,
    language_model_quality,
    main,
    new_language_model,
    reply_tokenizer,
    reward_model_folder,
    reward_model_quality,
    save_models,
    train_language_model,
    train_reward_model,
    transcript_tokenizer,
)
from tests.llm_experiment.tiny_task import TINY_TASK
from theory.errors import InvalidArgumentError, ModelError, ResultsError

MOMENT = LanguageModelRecipe(n_tokens=4 * 16 * 24, sequence_length=24, batch_size=16, n_heldout=40)
"""Four steps."""
SHORT = replace(MOMENT, n_tokens=80 * 16 * 24, n_heldout=200)
"""Some seconds of training."""
SHORT_REWARD = RewardModelRecipe(n_steps=100, batch_size=64, n_heldout=500)
MAX_SHIPPED_BYTES = 4 * 2**20


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


@pytest.fixture(scope="module")
def shipped():
    return AutoModelForCausalLM.from_pretrained(language_model_folder("classroom"))


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "seed must be >= 0, got -1"),
        ({"n_tokens": 0}, "n_tokens must be >= 1, got 0"),
        ({"sequence_length": 1}, "sequence_length must be >= 2, got 1"),
        ({"sequence_length": 5000}, "sequence_length must be at most 1024, got 5000"),
        ({"n_heldout": 1}, "n_heldout must be >= 2, got 1"),
        ({"learning_rate": 0.0}, "learning_rate must be a positive number, got 0"),
        ({"learning_rate": math.nan}, "learning_rate must be a positive number, got nan"),
    ],
)
def test_a_recipe_out_of_range_is_refused(changes, message):
    with pytest.raises(InvalidArgumentError, match=message):
        LanguageModelRecipe(**changes)


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


def test_models_that_are_not_there_are_named_with_the_command_that_makes_them(tmp_path):
    with pytest.raises(ModelError, match=r"no trained language model in .*tiny_models --task moon"):
        language_model_folder("moon", weights=tmp_path)
    with pytest.raises(ModelError, match="no trained reward model in"):
        reward_model_folder("moon", weights=tmp_path)


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
        (["--language-model.n-tokens", "0"], "n_tokens must be >= 1, got 0"),
        (["--tasks", "x"], "nrecognized option"),
    ],
)
def test_bad_options_are_one_line(argv, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    (line,) = capsys.readouterr().err.splitlines()
    assert exit_.value.code == 2
    assert message in line


# ------------------------------------------------------------------- the shipped weights


def test_the_shipped_models_are_small_and_hold_nothing_but_text_and_safetensors():
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert sum(path.stat().st_size for path in files) < MAX_SHIPPED_BYTES


def test_the_manifest_states_how_the_shipped_models_were_trained():
    manifest = json.loads((SHIPPED / "classroom" / MANIFEST).read_text())
    assert LanguageModelRecipe(**manifest["language_model"]["recipe"]) == Options().language_model
    assert RewardModelRecipe(**manifest["reward_model"]["recipe"]) == Options().reward_model


def test_the_shipped_model_is_near_the_floor_and_above_it(classroom, shipped):
    quality = language_model_quality(
        shipped, classroom, replace(SHORT, seed=1, n_heldout=40, sequence_length=256)
    )
    assert 0 < quality.excess.low < quality.excess.high < 0.02


@pytest.mark.slow
def test_the_manifest_states_the_shipped_models_losses(classroom, shipped):
    manifest = json.loads((SHIPPED / "classroom" / MANIFEST).read_text())
    stated = manifest["language_model"]["quality_nats_per_token"]
    measured = language_model_quality(shipped, classroom, Options().language_model)
    assert measured.loss.mean == pytest.approx(stated["loss"]["mean"], abs=1e-4)
    assert measured.floor.mean == pytest.approx(stated["floor"]["mean"], abs=1e-9)


def test_the_shipped_reward_model_knows_the_tasks_sentiments(classroom):
    judge = AutoModelForSequenceClassification.from_pretrained(reward_model_folder("classroom"))
    quality = reward_model_quality(judge, classroom, Options().reward_model)
    assert quality.mean_error < 0.005
    assert quality.worst_error < 0.05  # so that no mood changes sides of 1/2


def test_for_the_shipped_model_only_the_first_silence_of_the_teacher_is_dear(classroom, shipped):
    prices = silence_prices(classroom, shipped, n_silences=4)
    first, *later = np.median(prices, axis=0)
    assert 5 < first < 9
    assert max(later) < 0.3


def silence_prices(process, model, *, n_silences: int) -> np.ndarray:
    """`-log LM` in nats of the Teacher's 1st, 2nd, ... empty turn, shape (contexts, n_silences).

    The contexts are dialogues of Student and Teacher up to where the Teacher is to speak.
    """
    teacher, colon, newline = (process.vocabulary.index(token) for token in ("Teacher", ":", "\n"))
    transcripts = process.sample(
        np.random.default_rng(7), 200, 150, speakers=("Student", "Teacher")
    )
    silences = np.tile(process.encode("\nStudent:\nTeacher:"), n_silences)
    contexts, starts = [], []
    for transcript in transcripts:
        (turns,) = np.nonzero((transcript[:-1] == teacher) & (transcript[1:] == colon))
        if "Student:\n" not in process.decode(transcript) and turns.size:
            end = turns[len(contexts) % turns.size] + 2
            contexts.append(np.concatenate([transcript[:end], silences]))
            starts.append(end + len(silences) // n_silences * np.arange(n_silences))
    longest = max(map(len, contexts))  # what comes after a token does not touch its probability
    padded = np.array([np.pad(context, (0, longest - len(context))) for context in contexts])
    at = np.array(starts)
    assert (np.take_along_axis(padded, at, axis=1) == newline).all()
    surprise = -language_model_log_likelihoods(model, padded)
    line_break, name = (np.take_along_axis(surprise, at + shift, axis=1) for shift in (-1, 0))
    return line_break + name
