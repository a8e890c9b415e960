"""A demonstrator without wordless turns: the base policy's law, conditioned, and its exact KL."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from llm_experiment.agent.rollout import play_episodes
from llm_experiment.chat.never_silent import WordReader, never_silent_base
from llm_experiment.chat.turn_records import Speaker
from llm_experiment.chat.turns import TurnParser
from llm_experiment.measures.evaluation import BasePolicy
from tests.llm_experiment.fakes.small_world import (
    COLON,
    NEWLINE,
    PROMPT,
    RULES,
    S,
    T,
    dialogue_table,
    encode,
    small_world,
)
from theory.budget import Accounting
from theory.errors import InvalidArgumentError


def played(world, n_episodes=40):
    return play_episodes(
        BasePolicy(world),
        world,
        n_episodes=n_episodes,
        n_tokens=50,
        budget_nats=math.inf,
        accounting=Accounting.EXACT,
        seed=0,
        stream=(0,),
        keep_observations=False,
    )


def never_silent_world():
    world = small_world()
    return replace(world, base=never_silent_base(world.base, world.parser))


def starts_of_own_turns(rollout):
    """(episode, place) of each token that begins a turn of the agent, the prompt's included."""
    own = rollout.turns.speaker == Speaker.AGENT
    places = zip(rollout.turns.episode[own], rollout.turns.opened[own] + 1, strict=True)
    return [(episode, at) for episode, at in places if rollout.prompt_length <= at < 50]


def test_every_turn_has_words_and_its_partners_need_not():
    silent, talkative = played(small_world()), played(never_silent_world())
    begun = [silent.tokens[place] for place in starts_of_own_turns(silent)]
    assert NEWLINE in begun
    begun = [talkative.tokens[place] for place in starts_of_own_turns(talkative)]
    assert len(begun) > 100
    assert NEWLINE not in begun
    assert talkative.empty_share == 0.0
    others = talkative.tokens[:, 1:][talkative.tokens[:, :-1] == COLON]
    assert NEWLINE in others


def test_what_an_episode_costs_is_the_mass_taken_away_where_its_turns_begin():
    rollout = played(never_silent_world())
    price = -math.log1p(-math.exp(dialogue_table()[T, COLON, NEWLINE]))
    expected = np.zeros(len(rollout.tokens))
    for episode, _ in starts_of_own_turns(rollout):
        expected[episode] += price
    np.testing.assert_allclose(rollout.spent_nats, expected, rtol=1e-5)
    assert expected.min() > 0


def test_its_law_is_the_base_policys_conditioned_on_words():
    world, base = small_world(), never_silent_world().base
    _, plain = world.base.begin(world.prompt_tokens, n_episodes=1, n_positions=9)
    _, step = base.begin(world.prompt_tokens, n_episodes=1, n_positions=9)
    b, tau = plain.log_probs[0].double().exp().numpy(), step.log_probs[0].double().exp().numpy()
    expected = np.where(np.arange(len(b)) == NEWLINE, 0.0, b) / (1 - b[NEWLINE])
    np.testing.assert_allclose(tau, expected, atol=1e-6)
    assert float(step.missing_mass[0]) == pytest.approx(b[NEWLINE], rel=1e-5)
    kl = sum(p * math.log(p / q) for p, q in zip(tau, b, strict=True) if p > 0)
    assert kl == pytest.approx(-math.log1p(-float(step.missing_mass[0])), rel=1e-4)


def test_transcripts_leave_its_support_at_their_first_wordless_turn():
    reader = WordReader(small_world().parser, torch.device("cpu"))
    texts = {
        PROMPT + " yes\nS: no\nT:\nS: no": len(encode(PROMPT + " yes\nS: no\nT:")),
        PROMPT + "\nS: no\nT: no\nS:": len(encode(PROMPT)),
        PROMPT + " yes\nS:\nT: no\nS: no": None,  # the partner may be silent
        PROMPT + " yes\n\nS: no no no": None,
    }
    for text, first in texts.items():
        tokens = torch.tensor([encode(text)])
        found = reader.first_wordless(tokens, start=len(encode(PROMPT)))
        assert found.tolist() == [tokens.shape[1] if first is None else first]
    # What stands in the prompt is nobody's doing.
    tokens = torch.tensor([encode(PROMPT + "\nS: no\nT:\nS:")])
    start = len(encode(PROMPT + "\nS: no"))
    assert reader.first_wordless(tokens, start=start) > start


def test_a_name_on_a_line_of_its_own_says_nothing():
    """Some tokens join the colon and the line break after it."""
    pieces = ("\n", "T", "S", ":", ":\n", " yes")
    parser = TurnParser(
        RULES,
        pieces=pieces,
        encode=lambda text: [pieces.index(x) for x in text],
        decode=lambda ids: "".join(pieces[i] for i in ids),
    )
    reader = WordReader(parser, torch.device("cpu"))
    state = reader.read(torch.tensor([[S, 3, 5, 0, T, 4]]))
    assert reader.wordless(state)[0].tolist() == [True, True, True, False, False, False]
    state = reader.advance(state, torch.tensor([5]))
    assert not reader.wordless(state).any()


def test_a_parser_of_another_vocabulary_is_refused():
    world = small_world()
    pieces = ("\n", "T", "S", ":", " yes")
    other = TurnParser(
        RULES,
        pieces=pieces,
        encode=lambda text: [pieces.index(x) for x in text],
        decode=lambda ids: "".join(pieces[i] for i in ids),
    )
    with pytest.raises(InvalidArgumentError, match="knows 5 tokens and the base policy 7"):
        never_silent_base(world.base, other)
