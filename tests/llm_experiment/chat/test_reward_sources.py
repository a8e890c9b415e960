"""Whatever gives rewards gives one number in [0, 1] for each reply, and is part of its run."""

import hashlib
import importlib
import math
import sys
from importlib.metadata import version

import numpy as np
import pytest

from llm_experiment.chat.reward_sources import (
    RewardKind,
    check_score,
    load_score,
    reward_fingerprint,
    reward_kind,
    rewards_of,
    vader_score,
)
from llm_experiment.config import VADER, WorldConfig
from llm_experiment.run import parse_options
from theory.errors import InvalidArgumentError, ModelError

REPLIES = (" That is great, thank you!", "", " This is terrible.", " The table is brown.")
LENGTHS = "def lengths(replies):\n    return [len(r.split()) / 100 for r in replies]\nnumber = 3\n"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of somebody's own in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "own_rewards.py").write_text(LENGTHS)
    importlib.invalidate_caches()
    yield
    sys.modules.pop("own_rewards", None)


def test_a_name_says_what_it_is():
    names = ("vader", "a.b:c", "owner/name", "./folder", "tiny")
    kinds = ("VADER", "FUNCTION", "MODEL", "MODEL", "MODEL")
    assert [reward_kind(name) for name in names] == [RewardKind[kind] for kind in kinds]


def test_old_and_new_spelling_of_the_option_are_one():
    for option in ("--reward", "--reward-model"):
        assert parse_options([option, "vader"]).settings.agent.world.reward_model == VADER


# ------------------------------------------------------------------------------- vader


def test_vader_gives_its_compound_score_from_zero_to_one():
    library = pytest.importorskip("vaderSentiment.vaderSentiment", reason="needs vaderSentiment")
    rules = library.SentimentIntensityAnalyzer()
    rewards = load_score(WorldConfig(reward_model=VADER), VADER, device="cpu")(REPLIES)
    for text, reward in zip(REPLIES, rewards, strict=True):
        assert 2 * reward - 1 == pytest.approx(rules.polarity_scores(text)["compound"], abs=1e-12)
    good, blank, bad, neutral = rewards
    assert bad < blank == neutral == 0.5 < good
    assert reward_fingerprint(VADER) == {VADER: f"vaderSentiment {version('vaderSentiment')}"}


def test_vader_has_no_labels_and_may_be_missing(monkeypatch):
    with pytest.raises(InvalidArgumentError, match="--reward vader has no labels; leave it out"):
        check_score(VADER, positive_label="POSITIVE")
    monkeypatch.setattr("llm_experiment.base.loading.find_spec", lambda name: None)
    for missing in (lambda: check_score(VADER), vader_score):
        with pytest.raises(ModelError, match=r"--reward vader needs vaderSentiment; .*\[real\]"):
            missing()


# ------------------------------------------------------------------ somebody's own function


@pytest.mark.usefixtures("own")
def test_a_function_of_ones_own_scores_every_reply_and_its_file_identifies_it():
    name = "own_rewards:lengths"
    score = load_score(WorldConfig(reward_model=name), name, device="cpu")
    np.testing.assert_allclose(rewards_of(score, REPLIES), [0.05, 0, 0.03, 0.04])
    assert reward_fingerprint(name) == {name: hashlib.sha256(LENGTHS.encode()).hexdigest()}


@pytest.mark.usefixtures("own")
def test_what_is_no_function_is_refused():
    with pytest.raises(InvalidArgumentError, match="own_rewards:number must be a function from"):
        check_score("own_rewards:number")
    with pytest.raises(InvalidArgumentError, match="own_rewards has no width"):
        check_score("own_rewards:width")


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -0.001, 1.001])
def test_rewards_outside_of_the_unit_interval_are_refused(wrong):
    with pytest.raises(InvalidArgumentError, match=rf"\[0, 1\], got {wrong} for the reply ' No"):
        rewards_of(lambda replies: np.array([0.5, wrong]), [" Yes.", " No."])


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 1)])
def test_as_many_rewards_as_replies_are_needed(shape):
    with pytest.raises(InvalidArgumentError, match="one number for each of 2 replies, got an arr"):
        rewards_of(lambda replies: np.zeros(shape), [" Yes.", " No."])


def test_the_bounds_are_rewards():
    np.testing.assert_array_equal(rewards_of(lambda replies: [0, 1], ["", ""]), [0.0, 1.0])
