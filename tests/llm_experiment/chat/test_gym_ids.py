import gymnasium
import numpy as np
import pytest

from llm_experiment.chat.gym_ids import IDS
from theory.errors import InvalidBudgetError

PREFIX = "llm_experiment.chat.gym_ids:"


@pytest.mark.parametrize("name", IDS)
def test_a_task_is_made_by_its_id_and_played(name):
    env = gymnasium.make(PREFIX + name, n_positions=40)
    seen, _ = env.reset(seed=0)
    assert env.observation_space.contains(seen)
    assert env.unwrapped.world.base.n_tokens == env.action_space.n
    ended, n_steps = False, 0
    while not ended:
        (likely, *_) = np.flatnonzero(env.unwrapped.action_masks())
        _, reward, ended, _, _ = env.step(likely)
        n_steps += 1
    assert 1 <= n_steps < 40
    assert np.isfinite(reward)


def test_a_budget_given_to_make_is_kept():
    env = gymnasium.make(PREFIX + "Mightnt/Classroom-v0", n_positions=40, budget_nats=2.0)
    env.reset(seed=0)
    with pytest.raises(InvalidBudgetError, match=r"under a budget of 2.0 nats every step must be"):
        env.step(int(np.flatnonzero(env.unwrapped.action_masks())[0]))
