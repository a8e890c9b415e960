"""The exact value of a game of turns, against brute force and closed forms."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize
from scipy.stats import entropy

from llm_experiment.measures.closed_form import sequence_shares
from llm_experiment.measures.turn_game import GameValue, TurnGame, game_value, shares_bought
from theory.bounds import largest_share
from theory.errors import InvalidArgumentError, InvalidBudgetError

GAME = TurnGame(first=(0.05, 0.02, 0.2), again=0.9, reward_shown=1.0, reward_else=0.25)


def kl(q, p):
    return float(entropy([q, 1 - q], [p, 1 - p]))


def value_of(game: TurnGame, policy) -> tuple[float, float]:
    """Expected return and largest cost of a policy: a share a history of what was shown."""

    def play(history, cost):
        if len(history) == len(game.first):
            return 0.0, cost
        p = game.again if any(history) else game.first[len(history)]
        q = policy[history]
        paid = cost + kl(q, p)
        (yes, dear), (no, cheap) = play((*history, True), paid), play((*history, False), paid)
        return q * (game.reward_shown + yes) + (1 - q) * (game.reward_else + no), max(dear, cheap)

    return play((), 0.0)


def best_by_search(game: TurnGame, budget: float) -> float:
    """Over all policies, a number a history, by a general optimiser from some starts."""
    n = len(game.first)
    histories = [h for length in range(n) for h in np.ndindex(*(2,) * length)]
    histories = [tuple(map(bool, h)) for h in histories]
    base = [game.again if any(h) else game.first[len(h)] for h in histories]

    def policy(x):
        return dict(zip(histories, np.clip(x, 1e-9, 1 - 1e-9), strict=True))

    def costs(x):
        """What is left of the budget on every path."""
        q = policy(x)
        paths = [tuple(map(bool, h)) for h in np.ndindex(*(2,) * (n - 1))]
        return [
            budget
            - sum(kl(q[path[:i]], game.again if any(path[:i]) else game.first[i]) for i in range(n))
            for path in paths
        ]

    best = -math.inf
    rng = np.random.default_rng(0)
    for _ in range(2):
        start = np.clip(np.array(base) + rng.uniform(0, 0.2, len(base)), 0.01, 0.95)
        found = optimize.minimize(
            lambda x: -value_of(game, policy(x))[0],
            start,
            bounds=[(1e-6, 1 - 1e-6)] * len(base),
            constraints={"type": "ineq", "fun": costs},
            options={"maxiter": 300},
        )
        if min(costs(found.x)) > -1e-6:
            best = max(best, -found.fun)
    return best


@pytest.mark.parametrize("budget", [0.3, 2.0])
def test_the_bracket_holds_the_best_of_all_policies(budget):
    value = game_value(GAME, budget, n_steps=300)
    searched = best_by_search(GAME, budget)
    assert value.lower - 1e-4 <= searched <= value.upper + 1e-4
    assert value.upper - value.lower < 0.05
    finer = game_value(GAME, budget, n_steps=600)
    assert value.lower - 1e-9 <= finer.lower <= finer.upper <= value.upper + 1e-9


def test_without_a_budget_it_is_the_base_policys_return():
    base = {
        h: GAME.again if any(h) else GAME.first[len(h)]
        for n in range(3)
        for h in [tuple(map(bool, x)) for x in np.ndindex(*(2,) * n)]
    }
    expected, _ = value_of(GAME, base)
    value = game_value(GAME, 0.0, n_steps=7)
    assert value.lower == pytest.approx(expected, abs=1e-9)
    assert value.upper == pytest.approx(expected, abs=1e-9)


def test_with_enough_budget_everything_is_bought_and_no_more():
    enough = -math.log(GAME.first[0]) - 2 * math.log(GAME.again) + 0.1
    assert game_value(GAME, enough, n_steps=500).lower == pytest.approx(GAME.most, abs=1e-9)
    assert GAME.most == 3


def test_one_turn_is_the_closed_form():
    one = replace(GAME, first=(0.05,))
    value = game_value(one, 0.7, n_steps=50)
    q = float(largest_share(0.05, 0.7).lower)
    assert value.lower == pytest.approx(0.25 + 0.75 * q, abs=1e-9)
    assert isinstance(value, GameValue)


def test_what_is_free_to_go_on_with_is_at_least_the_sequence_of_purchases():
    budget = 1.5
    shares = sequence_shares(-np.log([GAME.first[0], GAME.again, GAME.again]), budget)
    whole = shares.prod() * GAME.most + (1 - shares.prod()) * 3 * GAME.reward_else
    assert game_value(GAME, budget, n_steps=400).upper >= whole


def test_shares_bought_spend_what_they_cost():
    costs = np.array([0.0, 0.01, 0.5, 2.0, 5.0])
    for p in (1e-6, 0.3, 0.95):
        for q, cost in zip(shares_bought(p, costs), costs, strict=True):
            if q < 1:
                assert kl(q, p) == pytest.approx(cost, abs=1e-9)
            else:
                assert cost >= -math.log(p)
    assert shares_bought(0.0, costs).tolist() == [0.0] * 5
    assert shares_bought(1.0, costs).tolist() == [1.0] * 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first": ()}, "at least 1 turn, got none"),
        ({"first": (1.0,)}, r"first must lie in \[0, 1\)"),
        ({"again": 0.0}, r"again in \(0, 1\]"),
        ({"reward_else": 2.0}, "reward_else must be <= reward_shown, got 2.0 and 1.0"),
    ],
)
def test_what_is_no_game_is_refused(changes, message):
    with pytest.raises(InvalidArgumentError, match=message):
        replace(GAME, **changes)


def test_budgets_that_have_no_grid_are_refused():
    with pytest.raises(InvalidArgumentError, match="finite budget and n_steps >= 1, got inf"):
        game_value(GAME, math.inf)
    with pytest.raises(InvalidArgumentError, match=r"n_steps >= 1, got 1\.0 and 0"):
        game_value(GAME, 1.0, n_steps=0)
    with pytest.raises(InvalidBudgetError):
        game_value(GAME, -1.0)
