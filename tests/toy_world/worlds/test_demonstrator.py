"""Demonstrators never do what they must not, and demonstrations follow their laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.toy_world.program_examples import histories, programs
from theory.errors import InvalidArgumentError
from theory.process import HistoryTree
from toy_world.programs.language import Language
from toy_world.programs.semantics import (
    action_probabilities,
    policy_function,
    policy_on_tree,
    trace_of,
)
from toy_world.worlds.demonstrator import (
    Memory,
    demonstrate,
    likeliest_steps,
    memory_of,
    sufficient_history,
    trusted_policy,
)
from toy_world.worlds.environments import BAD, WORLDS, WorldName

NAMES = list(WorldName)
SIZES = {"n_actions": 3, "n_observations": 2}
LANGUAGE = Language(**SIZES)


def language_of(world):
    return Language(n_actions=world.n_actions, n_observations=world.n_observations)


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name.value)
def test_no_history_of_its_world_brings_a_demonstrator_to_the_bad_action(name):
    world = WORLDS[name]
    language = language_of(world)
    tau = trusted_policy(name, language)
    assert language.length(tau) <= 10, "a short program, so that a mixture of 24 bits learns it"
    tree = HistoryTree(n_actions=3, n_observations=world.n_observations, horizon=3)
    for level in policy_on_tree(tau, tree):
        assert not level[:, BAD].any()


@given(programs(LANGUAGE.policies), histories(**SIZES, max_steps=12))
def test_a_policy_cannot_tell_a_history_from_its_sufficient_end(policy, history):
    end = sufficient_history(policy, history)
    assert history[len(history) - len(end) :] == end
    function = policy_function(policy, **SIZES)
    assert function(end) == function(history)
    memory = memory_of(policy)
    if memory is None:
        assert end == history
    else:  # as short as its memory and the clock that it counts by allow
        assert len(end) // 2 < memory.n_steps + memory.period


@pytest.mark.parametrize(
    ("text", "memory"),
    [
        ("do(a1)", Memory()),
        ("mix(1/2, cycle(a0 a1), cycle(a0 a1 a2))", Memory(period=6)),
        ("if(not(ends(o1 a1 o1)), copy_action, do(a0))", Memory(n_steps=2)),
        ("if(and(did(a0), ends(o0)), copy_observation, do(a0))", Memory(n_steps=1)),
        ("if(ever(did(a0)), do(a1), do(a0))", None),
        ("mix(1/2, do(a0), if(reached(steps, 3), do(a1), do(a0)))", None),
        ("switch(latch(ends(o1)), do(a1), do(a0))", None),
    ],
)
def test_memory_is_what_a_program_looks_back_to(text, memory):
    assert memory_of(LANGUAGE.policies.parse(text)) == memory


@pytest.mark.parametrize(
    "text",
    [
        "mix(1/2, copy_observation, do(a0))",
        "cycle(a0 a1 a2)",
        "switch(latch(ends(o1 a0 o0)), do(a1), do(a0))",
        "if(every(steps, 3), mix(1/4, do(a1), do(a2)), copy_observation)",
    ],
)
def test_demonstrations_follow_policy_and_world_step_by_step(text):
    """Bounded and full memory: both samplers give every step its probability.

    Under the right law `sum_t 1{a_t = a} - p_t(a)` is a martingale with steps in [-1, 1], so that
    it exceeds 5 sqrt(T) with probability below 2 exp(-12.5) (Azuma).
    """
    world = WORLDS[WorldName.DOORBELL]
    policy = LANGUAGE.policies.parse(text)
    n_steps = 600
    actions, observations = demonstrate(world, policy, n_steps, rng=np.random.default_rng(3))
    states = world.states_along(actions, observations)
    trace = trace_of(policy, (), **SIZES)
    of_action, of_observation = np.zeros(3), np.zeros(2)
    for t, (action, observation) in enumerate(zip(actions, observations, strict=True)):
        probabilities = action_probabilities(policy, trace)
        emission = world.emission[states[t]][action]
        assert probabilities[action] > 0
        assert emission[observation] > 0
        of_action += (np.arange(3) == action) - np.array(probabilities, dtype=float)
        of_observation += (np.arange(2) == observation) - np.array(emission, dtype=float)
        trace.advance(int(action), int(observation))
    assert np.abs(of_action).max() < 5 * np.sqrt(n_steps)
    assert np.abs(of_observation).max() < 5 * np.sqrt(n_steps)


def test_the_same_seed_gives_the_same_demonstration_and_its_beginnings(rng):
    world = WORLDS[WorldName.DOORBELL]
    policy = LANGUAGE.policies.parse("mix(1/2, copy_observation, do(a0))")

    def draw(n_steps):
        return demonstrate(world, policy, n_steps, rng=np.random.default_rng(5))

    long, short = draw(500), draw(200)
    for whole, beginning in zip(long, short, strict=True):
        np.testing.assert_array_equal(whole[:200], beginning)
    assert [part.shape for part in draw(0)] == [(0,), (0,)]
    with pytest.raises(InvalidArgumentError, match="n_steps must be >= 0, got -1"):
        demonstrate(world, policy, -1, rng=rng)


@given(histories(**SIZES, max_steps=6), st.lists(st.integers(0, 1), max_size=4))
def test_likeliest_steps_take_the_likeliest_action_each_time(history, observations):
    policy = LANGUAGE.policies.parse("mix(3/4, copy_observation, do(a0))")
    steps = likeliest_steps(policy, history, observations, language=LANGUAGE)
    assert list(steps[1::2]) == observations
    for t in range(0, len(steps), 2):
        probabilities = policy_function(policy, **SIZES)(history + steps[:t])
        assert probabilities[steps[t]] == max(probabilities)
        assert max(probabilities) not in probabilities[: steps[t]]
