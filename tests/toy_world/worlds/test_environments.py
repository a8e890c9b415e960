"""Worlds are processes, and their novelties are new."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from theory.errors import InvalidArgumentError, InvalidHistoryError, InvalidShapeError
from theory.process import HistoryTree, environment_table
from toy_world.programs.language import Language
from toy_world.worlds.demonstrator import demonstrate, trusted_policy
from toy_world.worlds.environments import BAD, WORLDS, World, WorldName

NAMES = list(WorldName)


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name.value)
def test_a_world_s_table_follows_its_states(name):
    world = WORLDS[name]
    tree = HistoryTree(n_actions=world.n_actions, n_observations=world.n_observations, horizon=2)
    for state in range(len(world.emission)):
        table = world.table(tree, state=state)
        np.testing.assert_array_equal(table[0][0], np.array(world.emission[state]))
        for action in range(world.n_actions):
            for observation in range(world.n_observations):
                later = world.successor[state][action][observation]
                row = tree.index((action, observation))
                np.testing.assert_array_equal(table[1][row], np.array(world.emission[later]))
                assert world.state_after((action, observation), state=state) == later
    rooted = HistoryTree(**{**vars(tree), "root": (0, 0)})
    for ours, theirs in zip(
        world.table(rooted, state=world.state_after((0, 0))),
        environment_table(rooted, world.environment()),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name.value)
def test_the_novelty_never_happens_while_the_demonstrator_acts(name, rng):
    """In a demonstration no window of steps shows the world's novelty, from whatever state."""
    world = WORLDS[name]
    tau = trusted_policy(name, Language(n_actions=3, n_observations=world.n_observations))
    actions, observations = demonstrate(world, tau, 3000, rng=rng)
    states = world.states_along(actions, observations)
    assert len(states) == 3001
    assert BAD not in actions
    for t, state in enumerate(states[:-10]):
        novelty = world.novelty[state]
        seen = tuple(observations[t : t + len(novelty)].tolist())
        if name is WorldName.ECHO:
            seen = seen if actions[t] == 0 else ()
        assert seen != novelty


def test_states_along_a_history_are_the_states_after_its_prefixes(rng):
    world = WORLDS[WorldName.METRONOME]
    actions = rng.integers(0, 3, 20)
    observations = rng.integers(0, 2, 20)
    symbols = np.stack([actions, observations], axis=1).ravel().tolist()
    expected = tuple(world.state_after(tuple(symbols[: 2 * t])) for t in range(21))
    assert world.states_along(actions, observations) == expected


def test_an_impossible_world_is_refused():
    half = (Fraction(1, 2), Fraction(1, 2))
    good = {
        "n_actions": 1,
        "n_observations": 2,
        "emission": ((half,),),
        "successor": (((0, 0),),),
        "novelty": ((1,),),
    }
    world = World(**good)
    with pytest.raises(InvalidShapeError, match=r"emission of a state must have shape \(1, 2\)"):
        World(**{**good, "emission": ((half, half),)})
    with pytest.raises(InvalidShapeError, match=r"successor of a state must have shape \(1, 2\)"):
        World(**{**good, "successor": (((0,),),)})
    with pytest.raises(InvalidShapeError, match="one entry for each state, got 1, 1 and 2"):
        World(**{**good, "novelty": ((1,), (1,))})
    with pytest.raises(InvalidArgumentError, match="emission must sum to 1"):
        World(**{**good, "emission": (((half[0], Fraction(1, 3)),),)})
    with pytest.raises(
        InvalidArgumentError, match=r"successor must name states 0\.\.0, got \[0, 1"
    ):
        World(**{**good, "successor": (((0, 1),),)})
    with pytest.raises(
        InvalidArgumentError, match=r"novelty must name observations 0\.\.1, got \[2"
    ):
        World(**{**good, "novelty": ((2,),)})
    with pytest.raises(InvalidHistoryError, match=r"action at position 0 must lie in 0\.\.0"):
        world.state_after((1, 0))


def test_the_metronome_s_novelty_is_its_first_bell_after_a_bell():
    world = WORLDS[WorldName.METRONOME]
    cycle = (0, 0, 1)
    for state, novelty in enumerate(world.novelty):
        heard = (*cycle, *cycle[:state], *novelty)
        bells = [pair == (1, 1) for pair in pairwise(heard)]
        assert bells == [False] * (len(bells) - 1) + [True]
