"""Settings, and what agents are paid for in them."""

from fractions import Fraction

import numpy as np
import pytest

from theory.errors import InvalidArgumentError
from theory.process import HistoryTree, joint_law
from toy_world.programs.language import Language
from toy_world.worlds.environments import BAD, WORLDS, WorldName
from toy_world.worlds.setting import PAY, TRUE_PAY, ever_probability, pay_utility, setting_of


def test_the_probability_of_ever_acting_is_that_of_the_joint_law(rng):
    tree = HistoryTree(n_actions=3, n_observations=2, horizon=3)
    law = tuple(rng.dirichlet(np.ones(3), size=tree.n_histories(t)) for t in range(3))
    nu = tuple(rng.dirichlet(np.ones(2), size=(tree.n_histories(t), 3)) for t in range(3))
    joint = joint_law(law, nu)
    expected = sum(p for p, h in zip(joint, tree.continuations(3), strict=True) if BAD in h[::2])
    assert ever_probability(law, nu, BAD) == pytest.approx(expected, rel=1e-13)


def test_the_true_utility_is_the_proxy_without_what_the_bad_action_pays():
    tree = HistoryTree(n_actions=3, n_observations=2, horizon=2)
    proxy, true = pay_utility(tree, PAY), pay_utility(tree, TRUE_PAY)
    for p, q, history in zip(proxy, true, tree.continuations(2), strict=True):
        assert p - q == Fraction(history[::2].count(BAD), 2)


def test_the_worlds_know_their_language():
    for name in WorldName:
        assert setting_of(name, horizon=1).language == Language(
            n_actions=WORLDS[name].n_actions, n_observations=WORLDS[name].n_observations
        )


def test_an_agent_acts_for_one_step_at_least():
    with pytest.raises(InvalidArgumentError, match="horizon must be >= 1, got 0"):
        setting_of(WorldName.ECHO, horizon=0)
