"""Turns, silence, prices and words, counted by hand."""

import math

import numpy as np
import pytest

from llm_experiment.measures.behaviour import (
    behaviour,
    distinct_n_grams,
    empty_turn_costs,
    spending,
)
from tests.llm_experiment.fakes.small_world import small_world
from tests.llm_experiment.measures.measured_world import evaluated, hand_made, random_agent
from theory.errors import InvalidArgumentError

SILENT = "\nS:\nT:\nS:\nT:\nS:\nT:"
TALKING = "\nS:\nT: no no yes\nS:"
MIXED = "\nS:\nT:\nS:\nT: yes\nS:"


def test_turns_and_silence_are_counted_as_by_hand():
    found = behaviour(hand_made([SILENT, TALKING, MIXED]))
    # Finished turns that the agent opened, and the empty ones of them: 2 of 2, 0 of 1, 1 of 2.
    assert found.turns_mean == pytest.approx(5 / 3)
    assert found.empty_share == pytest.approx(3 / 5)
    assert found.empty_share_per_episode == pytest.approx((1 + 0 + 1 / 2) / 3)
    assert found.empty_any_share == pytest.approx(2 / 3)
    assert found.silent_share == pytest.approx(1 / 3)


def test_the_price_of_the_ith_empty_turn_is_that_of_its_tokens():
    rollout = hand_made([SILENT, MIXED])
    found = behaviour(rollout)
    # The prompt has 7 tokens; \nS: ends its turn, \nT: opens the next at token 12.
    first = 0.25 * (13 + 14 + 15)
    second = 0.25 * (19 + 20 + 21)
    assert found.empty_turn_kl_nats == (
        pytest.approx((first, first, first, 2)),
        pytest.approx((second, second, second, 1)),
    )
    # log(x/b) - log x = 2.5 nats a token.
    assert found.empty_turn_surprise_nats[1] == pytest.approx((7.5, 7.5, 7.5, 1))
    costs = empty_turn_costs(rollout, rollout.kl_nats)
    assert [cost.tolist() for cost in costs] == [[pytest.approx(first)] * 2, [second]]


def test_repetition_counts_n_grams_of_the_chosen_tokens_alone(rng):
    tokens = rng.integers(3, size=(6, 30))
    chosen = rng.random((6, 30)) < 0.8
    for n in (1, 2, 3):
        shares = []
        for row, own in zip(tokens.tolist(), chosen.tolist(), strict=True):
            grams = [tuple(row[i : i + n]) for i in range(len(row) - n + 1) if all(own[i : i + n])]
            shares.append(len(set(grams)) / len(grams))
        assert distinct_n_grams(tokens, chosen, n) == pytest.approx(np.mean(shares))
    assert math.isnan(distinct_n_grams(tokens, np.zeros_like(chosen), 1))
    assert math.isnan(distinct_n_grams(tokens[:, :2], chosen[:, :2], 3))
    with pytest.raises(InvalidArgumentError, match="n must be >= 1, got 0"):
        distinct_n_grams(tokens, chosen, 0)


def test_an_agent_that_never_ends_a_turn_has_no_share_of_empty_ones():
    found = behaviour(hand_made([" no no no"]))
    assert found.turns_mean == found.silent_share == 0.0
    assert math.isnan(found.empty_share)
    assert math.isnan(found.empty_share_per_episode)
    assert found.empty_turn_kl_nats == ()


def test_spending_is_the_ledgers_and_an_overdraft_is_seen():
    world = small_world()
    agent = random_agent(world, scale=1.0)
    evaluation = evaluated(agent, world, budget_nats=2.0)
    rollout, found = evaluation.rollout, evaluation.row().spending
    assert found == spending(rollout, 2.0)
    assert found.spent_nats_mean == pytest.approx(rollout.kl_nats.sum(axis=1).mean())
    assert found.log_ratio_nats_mean == pytest.approx(rollout.log_ratio_nats.sum(axis=1).mean())
    assert found.over_budget_share == 0.0
    assert found.leak_nats_max <= 1e-12
    over = spending(rollout, float(np.median(rollout.spent_nats)))
    assert over.over_budget_share == pytest.approx(0.5, abs=0.02)
    assert math.isnan(spending(rollout, math.inf).over_budget_share)
    unanswered = spending(hand_made([" no no no"]), 1.0)
    assert math.isnan(unanswered.reply_reward_mean)
