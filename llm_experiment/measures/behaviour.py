"""What an agent does with its turns, and what it says in them: numbers of stored or fresh episodes.

The turns that count, empty turns and silent episodes are defined in
`llm_experiment.chat.turn_records`; where a task names another behaviour than silence
(`llm_experiment.dialogue.behaviour`), turns and episodes that show it stand in their places. Each
number is defined where its field stands, in `llm_experiment.measures.metrics`. NumPy only.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llm_experiment.chat.turn_records import agent_turns
from llm_experiment.measures.metrics import (
    BUDGET_TOLERANCE,
    N_EMPTY_TURNS,
    N_GRAMS,
    QUARTILES,
    Behaviour,
    Spending,
    TurnCost,
)
from theory.errors import InvalidArgumentError

if TYPE_CHECKING:  # its module imports torch
    from llm_experiment.agent.rollout import Rollout

Floats = NDArray[np.float64]


def spending(rollout: "Rollout", budget_nats: float) -> Spending:
    """What was earned and spent in some episodes.

    Args:
        rollout: the episodes.
        budget_nats: of each; inf for none.
    """
    over = rollout.spent_nats > budget_nats * (1 + BUDGET_TOLERANCE)
    rewards = rollout.reply_rewards
    return Spending(
        n_episodes=len(rollout.tokens),
        return_mean=float(rollout.returns.mean()),
        reply_reward_mean=float(rewards.mean()) if len(rewards) else math.nan,
        spent_nats_mean=float(rollout.spent_nats.mean()),
        log_ratio_nats_mean=float(rollout.log_ratio_nats.sum(axis=1).mean()),
        spent_nats_max=float(rollout.spent_nats.max()),
        over_budget_share=math.nan if math.isinf(budget_nats) else float(over.mean()),
        leak_nats_mean=float(rollout.leak_nats.mean()),
        leak_nats_max=float(rollout.leak_nats.max()),
    )


def behaviour(rollout: "Rollout") -> Behaviour:
    """What the agent did with its turns in some episodes."""
    counts = rollout.turn_counts
    shares = counts.empty_shares
    surprise = rollout.log_ratio_nats - rollout.log_probs
    steps = rollout.turn_steps
    helped = rollout.help_mass + rollout.asked
    return Behaviour(
        turns_mean=float(counts.turns.mean()),
        empty_share=counts.pooled_empty_share,
        empty_share_per_episode=float(shares.mean()) if len(shares) else math.nan,
        empty_any_share=float((counts.empty > 0).mean()),
        silent_share=float(counts.silent.mean()),
        help_share=float(helped[steps].mean()) if steps.any() else math.nan,
        stopped_share=float((rollout.stopped_at < rollout.tokens.shape[1]).mean()),
        empty_turn_kl_nats=_empty_turn_quartiles(rollout, rollout.kl_nats),
        empty_turn_surprise_nats=_empty_turn_quartiles(rollout, surprise),
        distinct_n_grams=tuple(
            distinct_n_grams(rollout.tokens, rollout.agent_steps, n) for n in N_GRAMS
        ),
    )


def empty_turn_costs(rollout: "Rollout", nats: Floats) -> list[Floats]:
    """`nats` summed over the tokens of the i-th empty turn, over episodes that have one.

    Args:
        rollout: the episodes.
        nats: shape (n, t).

    Returns:
        For i = 1 to at most `N_EMPTY_TURNS`, an array of shape (episodes with an i-th one,).
    """
    turns = rollout.turns
    own = agent_turns(turns, prompt_length=rollout.prompt_length)
    chosen = np.flatnonzero(own & rollout.empty_turns)
    before = np.concatenate([np.zeros((len(nats), 1)), np.cumsum(nats, axis=1)], axis=1)
    episode = turns.episode[chosen]
    costs = before[episode, turns.closed[chosen] + 1] - before[episode, turns.opened[chosen] + 1]
    starts = np.searchsorted(episode, episode)  # the turns are in order of episode and time
    number = np.arange(len(chosen)) - starts
    found = (costs[number == i] for i in range(N_EMPTY_TURNS))
    return [cost for cost in found if len(cost)]


def _empty_turn_quartiles(rollout: "Rollout", nats: Floats) -> tuple[TurnCost, ...]:
    """Quartiles and number of episodes for the i-th empty turn, i = 1, 2, ..."""
    quartiles = (
        (np.percentile(cost, QUARTILES).tolist(), len(cost))
        for cost in empty_turn_costs(rollout, nats)
    )
    return tuple((low, median, high, n) for (low, median, high), n in quartiles)


def distinct_n_grams(tokens: NDArray[np.int64], chosen: NDArray[np.bool_], n: int) -> float:
    """Distinct n-grams over all n-grams, of runs of chosen tokens; mean over episodes.

    Args:
        tokens: shape (episodes, t).
        chosen: which tokens count, shape (episodes, t); an n-gram is n of them in a row.
        n: at least 1.

    Returns:
        In (0, 1]; nan if no episode has an n-gram.
    """
    if n < 1:
        raise InvalidArgumentError(f"n must be >= 1, got {n}")
    if tokens.shape[1] < n:
        return math.nan
    windows = np.lib.stride_tricks.sliding_window_view(tokens, n, axis=1)
    whole = np.asarray(np.lib.stride_tricks.sliding_window_view(chosen, n, axis=1).all(axis=-1))
    shares = [
        len(np.unique(grams[inside], axis=0)) / inside.sum()
        for grams, inside in zip(windows, whole, strict=True)
        if inside.any()
    ]
    return float(np.mean(shares)) if shares else math.nan
