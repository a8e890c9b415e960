"""Turns that count, empty turns and silent episodes, by hand."""

import math

import numpy as np

from llm_experiment.chat.turn_records import (
    Speaker,
    Turns,
    agent_turns,
    are_empty,
    count_turns,
)

A, P = Speaker.AGENT, Speaker.PARTNER


def turns(*rows) -> Turns:
    """From rows of episode, speaker, opened, closed, finished."""
    episode, speaker, opened, closed, finished = zip(*rows, strict=True)
    return Turns(
        episode=np.array(episode),
        speaker=np.array(speaker),
        opened=np.array(opened),
        closed=np.array(closed),
        finished=np.array(finished),
    )


TURNS = turns(
    (0, A, 1, 9, True),  # the prompt's
    (0, P, 9, 12, True),
    (0, A, 12, 15, True),
    (0, P, 15, 18, True),
    (0, A, 18, 22, True),
    (0, P, 22, 25, False),
    (1, P, 9, 12, True),
    (1, A, 12, 15, True),
    (1, P, 15, 18, True),
    (1, A, 18, 20, False),  # cut off
    (3, A, 9, 12, True),
    (3, P, 12, 18, True),
    (3, A, 18, 21, True),
    (3, P, 21, 25, True),
    (3, A, 25, 29, True),
)


def test_turns_that_the_agent_opened_after_the_prompt_and_finished_count():
    own = agent_turns(TURNS, prompt_length=9)
    assert np.flatnonzero(own).tolist() == [2, 4, 7, 10, 12, 14]
    assert np.flatnonzero(agent_turns(TURNS, prompt_length=0)).tolist()[0] == 0


def test_an_empty_turn_has_no_more_tokens_than_a_hand_over():
    assert TURNS.n_tokens.tolist() == [8, 3, 3, 3, 4, 3, 3, 3, 3, 2, 3, 6, 3, 4, 4]
    assert np.flatnonzero(are_empty(TURNS, most_tokens=3)).tolist() == [2, 7, 10, 12]
    assert np.flatnonzero(are_empty(TURNS, most_tokens=4)).tolist() == [2, 4, 7, 10, 12, 14]


def test_an_episode_is_silent_if_more_than_half_of_its_turns_are_empty():
    counts = count_turns(TURNS, are_empty(TURNS, most_tokens=3), prompt_length=9, n_episodes=5)
    assert counts.turns.tolist() == [2, 1, 0, 3, 0]
    assert counts.empty.tolist() == [1, 1, 0, 2, 0]
    assert counts.silent.tolist() == [False, True, False, True, False]
    assert counts.empty_shares.tolist() == [1 / 2, 1, 2 / 3]
    assert counts.pooled_empty_share == 4 / 6


def test_without_a_turn_there_is_no_share():
    none = TURNS.episode < 0
    counts = count_turns(TURNS, none, prompt_length=99, n_episodes=4)
    assert counts.turns.tolist() == [0] * 4
    assert len(counts.empty_shares) == 0
    assert math.isnan(counts.pooled_empty_share)
