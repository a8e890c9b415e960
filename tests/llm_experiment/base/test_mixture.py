"""The exact mixture over a family of processes, against sums over members in plain arithmetic."""

import math

import numpy as np
import pytest
import torch

from llm_experiment.base.mixture import (
    N_DEMONSTRATIONS,
    SWITCH_AFTER,
    default_demonstrations,
    default_mixture,
    family,
    log_weights,
    mixture_base,
    phrase_tokens,
)
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import load_task
from theory.bounds import elias_delta_bits
from theory.errors import InvalidArgumentError

QUIZ = load_task("quiz")
PROCESS = DialogueProcess(QUIZ)
SWITCH = 16
MEMBERS = family(QUIZ, switch_after=SWITCH)


def test_the_family_is_every_other_way_to_speak_once():
    assert [m.name for m in MEMBERS] == [
        "as Player",
        "as Guest",
        "in style both",
        "from token 16 on in style both",
    ]
    assert [m.bits for m in MEMBERS] == [3, 3, 2, 2 + elias_delta_bits(5)]
    assert MEMBERS[0].process.task is QUIZ
    for member in MEMBERS[1:]:
        assert member.process.vocabulary == PROCESS.vocabulary
    assert len(family(QUIZ)) == 3
    names = [m.name for m in family(load_task("classroom"))]
    assert names[:2] == ["as Teacher", "as Parent"]
    assert "in style silent" in names
    desk = [m.name for m in family(load_task("support_desk"))]
    assert desk == ["as Clerk", "as Seller", "in style common-4x4"]


def test_prior_weights_leave_room_for_more():
    assert sum(2.0**-m.bits for m in MEMBERS) <= 1


def by_hand(transcript) -> np.ndarray:
    """Members' likelihoods of a transcript's tokens, the last by its own rule, shape (4, t)."""
    nats = [m.process.log_likelihoods(transcript[None])[0] for m in MEMBERS[:3]]
    # Of what the Player says "both" can say everything, now and then: its own filter will do.
    turns = np.flatnonzero(transcript == PROCESS.vocabulary.index("Player"))
    begun = np.array([max([t for t in turns if t < i], default=0) for i in range(len(transcript))])
    return np.array([*nats, np.where(begun < SWITCH, nats[0], nats[2])])


@pytest.mark.parametrize("shown", [(), (1,), (2, 3), (0, 1, 2, 3)])
def test_the_base_policy_is_the_mixture_of_its_members_at_every_token(shown):
    """In dialogues in which the agent says "both" in some turns, early and late."""
    exchange = " {}.\nHost: Right, north or south?\nPlayer:"
    text = QUIZ.prompt + "".join(
        exchange.format("Both" if turn in shown else "Red") for turn in range(4)
    )
    transcript = PROCESS.encode(text)
    demonstrations = PROCESS.sample(
        np.random.default_rng(1), 2, SWITCH, speakers=("Host", "Player")
    )
    base = mixture_base(MEMBERS, demonstrations=demonstrations)
    start = len(PROCESS.prompt)
    session, step = base.begin(
        torch.from_numpy(transcript[:start]), n_episodes=1, n_positions=len(transcript)
    )
    learnt = [m.process.log_likelihoods(demonstrations).sum() for m in MEMBERS[:3]]
    prior = np.exp([-m.bits * math.log(2) for m in MEMBERS] + np.array([*learnt, learnt[0]]))
    likelihoods = np.exp(by_hand(transcript).cumsum(axis=1))
    for t in range(start, len(transcript)):
        before, after = prior @ likelihoods[:, t - 1], prior @ likelihoods[:, t]
        if after == 0:
            break
        found = float(step.log_probs[0, transcript[t]])
        assert found == pytest.approx(math.log(after / before), abs=1e-5)
        step = session.append(torch.from_numpy(transcript[t : t + 1]))
    assert step.features.shape == (1, base.n_features)


def test_of_demonstrations_switched_members_have_the_demonstrators_likelihood():
    demonstrations = PROCESS.sample(
        np.random.default_rng(0), 5, SWITCH, speakers=("Host", "Player")
    )
    before, after = log_weights(MEMBERS), log_weights(MEMBERS, demonstrations)
    gained = after - before
    assert gained[3] == gained[0] > gained[1]
    assert gained[2] < gained[1]
    np.testing.assert_array_equal(log_weights(MEMBERS, demonstrations[:0]), before)


def test_the_default_has_learnt_from_dialogues_of_the_demonstrator():
    demonstrations = default_demonstrations(QUIZ)
    assert demonstrations.shape == (N_DEMONSTRATIONS, SWITCH_AFTER)
    assert np.isfinite(PROCESS.log_likelihoods(demonstrations)).all()
    base = default_mixture(QUIZ)
    _, step = base.begin(torch.from_numpy(PROCESS.prompt), n_episodes=1, n_positions=200)
    p = float(step.log_probs[0, PROCESS.encode(" Both")[0]].exp())
    log_w = log_weights(family(QUIZ, switch_after=SWITCH_AFTER), demonstrations)
    weights = np.exp(log_w - np.logaddexp.reduce(log_w))
    assert p == pytest.approx(weights[1] * 0.2 * 0.95 + weights[2] * 0.95, rel=1e-5)


def test_the_phrase_is_spelt_up_to_the_hand_over():
    assert PROCESS.decode(list(phrase_tokens(PROCESS))) == " Both.\nHost:"
    classroom = DialogueProcess(load_task("classroom"))
    assert classroom.decode(list(phrase_tokens(classroom))) == "\nStudent:"


def test_what_cannot_be_is_refused():
    for bad in (0, 3, 12):
        with pytest.raises(InvalidArgumentError, match=f"must be a power of two, got {bad}"):
            family(QUIZ, switch_after=bad)
    long = PROCESS.sample(np.random.default_rng(0), 1, SWITCH + 1)
    with pytest.raises(InvalidArgumentError, match="at most 16 tokens, after which members switch"):
        mixture_base(MEMBERS, demonstrations=long)
