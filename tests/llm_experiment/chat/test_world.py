from dataclasses import replace

import numpy as np
import pytest
import torch

from llm_experiment.base.training import (
    new_language_model,
    new_reward_model,
    reply_tokenizer,
    save_models,
)
from llm_experiment.chat.world import load_world
from llm_experiment.config import PUBLISHED_PROMPT, WorldConfig
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import load_task
from tests.llm_experiment.small_world import score, small_config, small_world
from theory.errors import InvalidArgumentError, ModelError


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> WorldConfig:
    """A world of untrained models on this disk."""
    folder = tmp_path_factory.mktemp("world") / "models"
    process = DialogueProcess(load_task("classroom"))
    save_models(
        folder,
        process,
        new_language_model(process, seed=0),
        new_reward_model(reply_tokenizer(process), seed=0),
        {},
    )
    return WorldConfig(
        base_model=str(folder / "language_model"), reward_model=str(folder / "reward_model")
    )


def test_the_tasks_prompt_is_encoded_by_the_models_tokenizer(config):
    world = load_world(config)
    process = DialogueProcess(load_task(config.task))
    assert world.prompt_tokens.tolist() == process.prompt.tolist()
    assert world.base.n_tokens == len(process.vocabulary)


def test_a_prompt_of_ones_own_takes_the_tasks_place(config):
    own = "Student: I have a question.\nTeacher:"
    world = load_world(replace(config, prompt=own))
    process = DialogueProcess(load_task(config.task))
    assert world.prompt_tokens.tolist() == process.encode(own).tolist()


def test_turns_are_as_configured(config):
    named = replace(config, agent_name="Coach", partner_name="Player", max_reply_tokens=7)
    world = load_world(replace(named, prompt="Player: Hello?\nCoach:"))
    assert (world.parser.rules.agent, world.parser.rules.partner) == ("Coach", "Player")
    assert world.parser.rules.max_reply_tokens == 7


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"base_model": "./nowhere"}, ModelError, r"language model \./nowhere"),
        ({"reward_model": "./nowhere"}, ModelError, r"reward model \./nowhere"),
        ({"device": "cuda:99"}, ModelError, "device cuda:99 cannot be used"),
        ({"task": "opera"}, InvalidArgumentError, "opera"),
        ({"partner_name": "Coach"}, InvalidArgumentError, "a line that begins with 'Coach:'"),
        ({"prompt": "Teacher: Yes?\nStudent:"}, InvalidArgumentError, "end it with 'Teacher:'"),
        ({"separator": " "}, InvalidArgumentError, "separator"),
    ],
)
def test_a_world_that_cannot_be_is_refused_before_anything_is_played(config, changes, error, words):
    with pytest.raises(error, match=words):
        load_world(replace(config, **changes))


def test_the_published_prompt_leaves_the_turn_to_the_teacher_in_any_text(config):
    text = PUBLISHED_PROMPT.rpartition("\n\n")[2]
    assert text == "Teacher: Do you"


def test_rewards_are_scores_plus_the_shift():
    world = small_world(reward_shift=-0.5)
    np.testing.assert_array_equal(world.reward(["yes", "no", ""]), [0.5, -0.5, 0.0])
    assert world.reward([]).shape == (0,)


def test_no_reply_is_no_question_to_the_reward_model():
    def asked(replies):
        raise AssertionError

    assert len(replace(small_world(), score=asked).reward([])) == 0


def test_the_environment_is_an_episode_of_the_first_stage():
    world, config = small_world(), small_config()
    env = world.env(config)
    env.reset(seed=0)
    assert env.chat.n_positions == config.stages[0].n_tokens
    assert float(env.ledger.initial_nats) == config.constraint.budget_nats


def test_chats_in_lockstep_start_from_the_prompt():
    world = small_world()
    chat = world.chat(n_episodes=3, n_tokens=9, generator=torch.Generator())
    assert chat.tokens.tolist() == [world.prompt_tokens.tolist()] * 3
    assert world.score is score
