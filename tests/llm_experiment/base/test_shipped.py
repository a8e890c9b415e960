"""The shipped models: how they were made, and what the weights are known for."""

import json
import math

import numpy as np
import pytest
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)

from llm_experiment.base.shipped import (
    LANGUAGE_MODEL,
    REWARD_MODEL,
    SHIPPED,
    LanguageModelRecipe,
    RewardModelRecipe,
    language_model_folder,
    model_names,
    reward_model_folder,
)
from llm_experiment.base.training import (
    MANIFEST,
    language_model_log_likelihoods,
    language_model_quality,
    reward_model_quality,
)
from llm_experiment.config import PROCESS, WorldConfig
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import load_task, task_names
from theory.errors import InvalidArgumentError, ModelError

SHORT = LanguageModelRecipe(n_heldout=40, sequence_length=256, seed=1)
MAX_SHIPPED_BYTES = 4 * 2**20


@pytest.fixture(scope="module")
def classroom() -> DialogueProcess:
    return DialogueProcess(load_task("classroom"))


@pytest.fixture(scope="module")
def shipped():
    return AutoModelForCausalLM.from_pretrained(language_model_folder("classroom"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "seed must be >= 0 and finite, got -1"),
        ({"n_tokens": 0}, "n_tokens must be >= 1 and finite, got 0"),
        ({"sequence_length": 1}, "sequence_length must be >= 2 and finite, got 1"),
        ({"sequence_length": 5000}, "sequence_length must be at most 1024, got 5000"),
        ({"n_heldout": 1}, "n_heldout must be >= 2 and finite, got 1"),
        ({"learning_rate": 0.0}, "learning_rate must be > 0 and finite, got 0"),
        ({"learning_rate": math.nan}, "learning_rate must be > 0 and finite, got nan"),
        ({"learning_rate": 1e308}, r"learning_rate must be <= 1, got 1e\+308"),
        ({"learning_rate": -0.1}, "learning_rate must be > 0 and finite, got -0.1"),
    ],
)
def test_a_recipe_out_of_range_is_refused(changes, message):
    with pytest.raises(InvalidArgumentError, match=message):
        LanguageModelRecipe(**changes)
    if "learning_rate" in changes:
        with pytest.raises(InvalidArgumentError, match=message):
            RewardModelRecipe(**changes)


def test_models_that_are_not_there_are_named_with_the_command_that_makes_them(tmp_path):
    with pytest.raises(ModelError, match=r"no trained language model in .*tiny_models --task moon"):
        language_model_folder("moon", weights=tmp_path)
    with pytest.raises(ModelError, match="no trained reward model in"):
        reward_model_folder("moon", weights=tmp_path)


def test_names_stand_for_shipped_models_and_others_for_themselves():
    shipped = [str(SHIPPED / "classroom" / kind) for kind in (LANGUAGE_MODEL, REWARD_MODEL)]
    assert list(model_names(WorldConfig())) == shipped
    assert list(model_names(WorldConfig(base_model=PROCESS))) == shipped
    own = WorldConfig(base_model="some/model", reward_model="./here")
    assert model_names(own) == ("some/model", "./here")


def test_the_shipped_models_are_small_and_hold_nothing_but_text_and_safetensors():
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    for task in SHIPPED.iterdir():
        sizes = [path.stat().st_size for path in task.rglob("*") if path.is_file()]
        assert sum(sizes) < MAX_SHIPPED_BYTES


def test_the_manifest_states_how_the_shipped_models_were_trained():
    manifest = json.loads((SHIPPED / "classroom" / MANIFEST).read_text())
    assert LanguageModelRecipe(**manifest["language_model"]["recipe"]) == LanguageModelRecipe()
    assert RewardModelRecipe(**manifest["reward_model"]["recipe"]) == RewardModelRecipe()


@pytest.mark.parametrize("name", task_names())
def test_every_task_ships_models_of_its_own_words(name):
    task = load_task(name)
    manifest = json.loads((SHIPPED / name / MANIFEST).read_text())
    assert manifest["task"] == name
    assert manifest["language_model"]["quality_nats_per_token"]["excess"]["mean"] < 0.1
    assert manifest["reward_model"]["quality"]["worst_error"] < 0.05
    config = json.loads((language_model_folder(name) / "config.json").read_text())
    assert config["vocab_size"] == len(task.vocabulary)


def test_variants_of_a_task_share_its_models():
    assert language_model_folder("support_desk/rare-2x1") == language_model_folder("support_desk")


def test_the_shipped_model_is_near_the_floor_and_above_it(classroom, shipped):
    quality = language_model_quality(shipped, classroom, SHORT)
    assert 0 < quality.excess.low < quality.excess.high < 0.02


@pytest.mark.slow
def test_the_manifest_states_the_shipped_models_losses(classroom, shipped):
    manifest = json.loads((SHIPPED / "classroom" / MANIFEST).read_text())
    stated = manifest["language_model"]["quality_nats_per_token"]
    measured = language_model_quality(shipped, classroom, LanguageModelRecipe())
    assert measured.loss.mean == pytest.approx(stated["loss"]["mean"], abs=1e-4)
    assert measured.floor.mean == pytest.approx(stated["floor"]["mean"], abs=1e-9)


def test_the_shipped_reward_model_knows_the_tasks_sentiments(classroom):
    judge = AutoModelForSequenceClassification.from_pretrained(reward_model_folder("classroom"))
    quality = reward_model_quality(judge, classroom, RewardModelRecipe())
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
