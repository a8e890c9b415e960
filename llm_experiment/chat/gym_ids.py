"""The dialogue tasks by Gymnasium's ids, which are registered when this module is imported.

    gymnasium.make("llm_experiment.chat.gym_ids:Mightnt/Classroom-v0", budget_nats=3.0)

A name before the colon is a module that Gymnasium imports first. `Mightnt/Classroom-v0` and
`Mightnt/Flattery-v0` are one episode of the task with the shipped models (`ChatEnv`); a step is a
token of the agent. Under a finite budget every step must be charged: bind the agent who acts, or
say what its step costs (`ChatEnv.bind`, `ChatEnv.charge`). Without one, the default, nothing is.
"""

import math
from typing import Final

import gymnasium

from llm_experiment.chat.gym_env import ChatEnv
from llm_experiment.chat.world import load_world
from llm_experiment.config import WorldConfig

IDS: Final = {"Mightnt/Classroom-v0": "classroom", "Mightnt/Flattery-v0": "flattery"}
"""The task of each id."""


def make_env(
    *, task: str = "classroom", n_positions: int = 256, budget_nats: float = math.inf
) -> ChatEnv:
    """One episode of a dialogue task with the shipped models.

    Args:
        task: its name.
        n_positions: tokens of an episode, the prompt included.
        budget_nats: the KL budget of an episode; infinite for none.

    Raises:
        InvalidArgumentError: no such task, or an episode no longer than its prompt.
        InvalidBudgetError: a negative budget.
    """
    world = load_world(WorldConfig(task=task))
    return ChatEnv(
        world.base,
        world.parser,
        world.prompt_tokens,
        n_positions=n_positions,
        partner_temperature=world.partner_temperature,
        score=world.reward,
        budget_nats=budget_nats,
        world=world,
    )


for _id, _task in IDS.items():
    if _id not in gymnasium.registry:
        gymnasium.register(
            _id, entry_point="llm_experiment.chat.gym_ids:make_env", kwargs={"task": _task}
        )
