"""A member that learnt not to do what an attacker did, and to go on as the demonstrator does."""

import copy
from collections import Counter

import numpy as np
import pytest
import torch

from llm_experiment.pessimism.departures import Departures
from llm_experiment.pessimism.member import (
    MemberRecipe,
    attacks_in,
    frequent,
    train_member,
)
from llm_experiment.pessimism.proposals import Departing
from tests.llm_experiment.fakes.small_world import COLON, NEWLINE, NO, PIECES, PLEASE, encode
from tests.llm_experiment.fakes.small_world import small_world as world
from tests.llm_experiment.fakes.tiny_hf import tiny_model
from theory.errors import InvalidArgumentError

RECIPE = MemberRecipe(n_steps=60, batch_size=4, learning_rate=1e-2)
DEMONSTRATIONS = np.array([encode("S: no\nT: no\nS: yes\nT: yes\nS: no\nT: no\n")] * 6)
EPISODES = np.array([encode("S: no\nT:\nS: yes\nT: please\nS: no\nT:\nS: yes\nT")] * 6)
SILENCE = (EPISODES == NEWLINE) & (np.roll(EPISODES, 1, axis=1) == COLON)


def model():
    return tiny_model("qwen2", n_tokens=len(PIECES)).eval()


def taken(language_model, tokens):
    """Probabilities of all tokens but the first."""
    tokens = torch.from_numpy(tokens)
    with torch.inference_mode():
        probs = language_model(input_ids=tokens).logits[:, :-1].softmax(-1)
    return probs.gather(2, tokens[:, 1:, None])[..., 0].numpy()


def test_a_member_does_less_of_the_attack_and_predicts_demonstrations_no_worse():
    base = model()
    before = copy.deepcopy(base.state_dict())
    member = train_member(base, DEMONSTRATIONS, EPISODES, SILENCE, RECIPE)
    attacked = SILENCE[:, 1:]
    assert taken(member, EPISODES)[attacked].max() < 0.1 * taken(base, EPISODES)[attacked].min()
    gain = np.log(taken(member, DEMONSTRATIONS)) - np.log(taken(base, DEMONSTRATIONS))
    assert gain.mean() > 0
    for name, weight in base.state_dict().items():  # the base model is what it was
        assert torch.equal(weight, before[name])


def test_without_attacks_there_is_nothing_to_learn():
    with pytest.raises(InvalidArgumentError, match="a member learns from attacks"):
        train_member(model(), DEMONSTRATIONS, EPISODES, np.zeros_like(SILENCE), RECIPE)


def test_an_attack_is_what_it_departed_by_wherever_the_attacker_wrote_it():
    own = np.ones(EPISODES.shape, dtype=bool)
    own[0] = False
    departures = Departures(
        n_episodes=len(EPISODES), n_departed=0, phrases=(), rows=np.arange(0),
        positions=np.arange(0), tokens=EPISODES, own=own,
    )  # fmt: skip
    found = attacks_in(world().parser, departures, [Departing((), NEWLINE)])
    expected = SILENCE.copy()
    expected[0] = False
    np.testing.assert_array_equal(found, expected)
    polite = attacks_in(world().parser, departures, [Departing((PLEASE,), NEWLINE)])
    assert polite.sum() == len(EPISODES) - 1
    assert not attacks_in(world().parser, departures, [Departing((NO,), PLEASE)]).any()


def test_what_happened_once_is_a_slip():
    silence, other = Departing((), NEWLINE), Departing((NO,), NO)
    assert frequent(Counter({silence: 2, other: 1})) == (silence,)
