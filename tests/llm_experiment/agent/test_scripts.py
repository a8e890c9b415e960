from itertools import pairwise, product

import numpy as np
import pytest
import torch

from llm_experiment.agent.scripts import Cycle, Echo, Say, Then, play_script, play_scripts
from llm_experiment.chat.turn_records import Speaker
from tests.llm_experiment.fakes.small_world import (
    NEWLINE,
    NO,
    PLEASE,
    YES,
    dialogue_table,
    encode,
    small_world,
)
from theory.errors import InvalidArgumentError

HAND_OVER = encode("\nS:")


def played(script, *, world=None, n_episodes=40, n_tokens=60, free_turns=1, n_turns=3, seed=0):
    return play_script(
        world or small_world(),
        script,
        n_episodes=n_episodes,
        n_tokens=n_tokens,
        free_turns=free_turns,
        n_turns=n_turns,
        seed=seed,
        stream=(9,),
    )


def agents_turns(world, tokens):
    """(opened, closed) of the agent's finished turns after the prompt, in one transcript."""
    turns = world.parser.find_turns(tokens[None])
    own = (turns.speaker == Speaker.AGENT) & turns.finished
    own &= turns.opened >= len(world.prompt_tokens)
    return list(zip(turns.opened[own].tolist(), turns.closed[own].tolist(), strict=True))


def test_scripted_turns_say_what_the_script_says_and_cost_what_the_base_policy_thinks_of_it():
    world, table = small_world(), dialogue_table()
    script = Then(1, Say((NO, PLEASE)), Cycle((Say(()), Say((YES,)))))
    said = [(NO, PLEASE), (), (YES,)]
    result = played(script, world=world)
    checked = 0
    for tokens, costs in zip(result.tokens, result.costs_nats, strict=True):
        turns = agents_turns(world, torch.from_numpy(tokens))
        for (opened, closed), words, cost in zip(turns, said, costs, strict=False):
            written = tokens[opened + 1 : closed + 1].tolist()
            assert written == [*words, *HAND_OVER]
            context = tokens[opened - 1 : closed + 1]
            nats = -sum(table[tuple(context[i : i + 3])] for i in range(len(context) - 2))
            assert cost == pytest.approx(nats, rel=1e-6)
            checked += 1
        assert np.isnan(costs[len(turns) :]).all()
    assert checked > 60


def turns_of(world, tokens):
    """Speaker, text and tokens of every finished turn of a transcript, in order."""
    turns = world.parser.find_turns(torch.from_numpy(tokens)[None])
    for speaker, opened, closed in zip(
        turns.speaker[:-1], turns.opened[:-1], turns.closed[:-1], strict=True
    ):
        text = world.parser.turn_text(tokens.tolist(), opened=opened, closed=closed)
        yield speaker, text, tokens[opened + 1 : closed + 1].tolist()


def test_an_echo_says_the_first_line_of_what_it_heard():
    world = small_world()
    echoed = 0
    for tokens in played(Echo(), world=world).tokens:
        # The turn that the prompt begins, the second of all, is free.
        turns = list(turns_of(world, tokens))[2:]
        for (_, _, heard), (speaker, _, said) in pairwise(turns):
            if speaker == Speaker.AGENT:
                line = heard[: heard.index(NEWLINE)]
                assert said == [*line, *HAND_OVER]
                echoed += bool(line)
    assert echoed > 20


def test_rewards_are_those_of_the_replies_to_the_scripted_turns():
    world = small_world(reward_shift=1.0)
    result = played(Say((PLEASE,)), world=world, n_turns=2)
    for tokens, rewards in zip(result.tokens, result.rewards, strict=True):
        replies = [text for who, text, _ in turns_of(world, tokens) if who == Speaker.PARTNER]
        # The first is the prompt's, the second answers the free turn.
        expected = world.reward(replies[2:4])
        np.testing.assert_array_equal(rewards[: len(expected)], expected)
        assert np.isnan(rewards[len(expected) :]).all()
    assert np.unique(result.rewards).size > 3


def test_returns_are_what_all_replies_of_a_dialogue_earned():
    world = small_world(reward_shift=1.0)
    result = played(Say((PLEASE,)), world=world, n_turns=100)
    for tokens, earned in zip(result.tokens, result.returns, strict=True):
        replies = [text for who, text, _ in turns_of(world, tokens) if who == Speaker.PARTNER]
        assert earned == pytest.approx(world.reward(replies[1:]).sum())
    assert np.unique(result.returns).size > 3


def test_the_price_does_not_depend_on_what_comes_after_the_turns_reported():
    one, two = (played(Say((YES,)), n_turns=n).costs_nats for n in (1, 2))
    np.testing.assert_array_equal(one[:, 0], two[:, 0])


def test_scripts_played_together_meet_the_contexts_they_meet_alone():
    scripts = (Say((YES,)), Echo(), Then(1, Say(()), Say((NO, PLEASE))))
    settings = {
        "n_episodes": 10, "n_tokens": 60, "free_turns": 1, "n_turns": 3, "seed": 0, "stream": (9,),
    }  # fmt: skip
    together = play_scripts(small_world(), scripts, **settings)
    for script, found in zip(scripts, together, strict=True):
        alone = play_script(small_world(), script, **settings)
        np.testing.assert_array_equal(found.costs_nats, alone.costs_nats)
        np.testing.assert_array_equal(found.rewards, alone.rewards)


def test_nothing_is_played_beyond_the_reply_to_the_last_turn():
    short = played(Say(()), n_turns=1, n_tokens=500)
    whole = played(Say(()), n_turns=1000, n_tokens=500)
    assert short.tokens.shape[1] < 100 < whole.tokens.shape[1] == 500
    np.testing.assert_array_equal(short.costs_nats[:, 0], whole.costs_nats[:, 0])
    assert np.isfinite(short.rewards).all()


class Bits:
    """A bit string that is read from the front, and not beyond its end."""

    def __init__(self, bits):
        self.bits = bits

    def take(self, n):
        if n > len(self.bits):
            raise IndexError
        taken, self.bits = self.bits[:n], self.bits[n:]
        return taken

    def integer(self):
        """Elias' delta code."""
        zeros = 0
        while self.take(1) == "0":
            zeros += 1
        n_digits = int("1" + self.take(zeros), 2)
        return int("1" + self.take(n_digits - 1), 2)

    def script(self):
        """A script over four tokens."""
        match self.take(2):
            case "00":
                return Say(tuple(int(self.take(2), 2) for _ in range(self.integer() - 1)))
            case "01":
                return Echo()
            case "10":
                return Cycle(tuple(self.script() for _ in range(self.integer())))
            case _:
                return Then(self.integer(), self.script(), self.script())


def test_lengths_are_those_of_a_prefix_code():
    """Of all short bit strings, those that a decoder reads to the end are scripts, each once."""
    found = {}
    for n_bits in range(2, 15):
        for bits in map("".join, product("01", repeat=n_bits)):
            reader = Bits(bits)
            try:
                script = reader.script()
            except IndexError:
                continue
            if not reader.bits:
                assert script not in found
                found[script] = n_bits
    assert {type(script) for script in found} == {Say, Echo, Cycle, Then}
    assert len(found) > 100
    for script, n_bits in found.items():
        assert script.length_bits(4) == n_bits
    assert sum(2.0**-n for n in found.values()) <= 1


def test_bad_scripts_are_refused():
    with pytest.raises(InvalidArgumentError, match="at least 1 script, got 0"):
        Cycle(())
    with pytest.raises(InvalidArgumentError, match="n must be >= 1 turns, got 0"):
        Then(0, Echo(), Echo())
    for name in ("free_turns", "n_turns"):
        with pytest.raises(InvalidArgumentError, match=f"{name} must be >= 1, got 0"):
            played(Echo(), **{name: 0})
