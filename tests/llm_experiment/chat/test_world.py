"""A world is checked without weights, loaded once for many, and then only read."""

import gc
import json
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from llm_experiment.agent.ppo import LockstepPPO
from llm_experiment.agent.rollout import play_episodes
from llm_experiment.base.training import (
    new_language_model,
    new_reward_model,
    reply_tokenizer,
    save_models,
)
from llm_experiment.chat.turn_records import Speaker
from llm_experiment.chat.world import WorldLoader, check_world, load_world
from llm_experiment.config import PROCESS, PUBLISHED_PROMPT, Preset, WorldConfig, preset_config
from llm_experiment.dialogue.behaviour import Behaviour
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import load_task
from llm_experiment.measures.departure import known_demonstrator
from llm_experiment.measures.evaluation import BasePolicy, evaluate
from tests.llm_experiment.fakes.small_world import NO, PIECES, score, small_config, small_world
from theory.budget import Accounting
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


CANNOT_BE = [
    ({"base_model": "./nowhere"}, ModelError, r"language model \./nowhere|tokenizer \./nowhere"),
    ({"reward_model": "./nowhere"}, ModelError, r"reward model \./nowhere"),
    ({"device": "cuda:99"}, ModelError, "device cuda:99 cannot be used"),
    ({"agent_device": "abacus"}, ModelError, "device abacus cannot be used"),
    ({"task": "opera"}, InvalidArgumentError, "opera"),
    ({"partner_name": "Coach"}, InvalidArgumentError, "a line that begins with 'Coach:'"),
    ({"prompt": "Teacher: Yes?\nStudent:"}, InvalidArgumentError, "end it with 'Teacher:'"),
    ({"separator": " "}, InvalidArgumentError, "separator"),
]


@pytest.mark.parametrize(("changes", "error", "words"), CANNOT_BE)
def test_a_world_that_cannot_be_is_refused_before_anything_is_played(config, changes, error, words):
    with pytest.raises(error, match=words):
        load_world(replace(config, **changes))


@pytest.fixture
def no_weights(monkeypatch):
    """Whoever loads a model fails."""

    def load(*_, **__):
        raise AssertionError("weights are loaded")

    for kind in (AutoModelForCausalLM, AutoModelForSequenceClassification):
        monkeypatch.setattr(kind, "from_pretrained", load)


@pytest.mark.parametrize(("changes", "error", "words"), CANNOT_BE)
def test_and_before_any_weights_are_loaded(config, no_weights, changes, error, words):
    with pytest.raises(error, match=words):
        check_world(replace(config, **changes), lengths=(64,))


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (37, "the prompt has 37 tokens and the episode only 37"),
        (1025, "episodes of 1025 tokens do not fit the language model, which reads at most 1024"),
    ],
)
def test_lengths_are_checked_without_weights(config, no_weights, length, words):
    with pytest.raises(InvalidArgumentError, match=words):
        check_world(config, lengths=(64, length))
    check_world(config, lengths=(38, 1024))
    with pytest.raises(AssertionError, match="weights are loaded"):
        load_world(config)


def test_files_that_are_no_model_of_their_kind_are_refused_without_weights(
    config, no_weights, tmp_path
):
    models = Path(shutil.copytree(Path(config.base_model).parent, tmp_path / "models"))
    here = replace(
        config,
        base_model=str(models / "language_model"),
        reward_model=str(models / "reward_model"),
    )
    check_world(here, lengths=(64,))
    for kind in ("language_model", "reward_model"):
        weights = models / kind / "model.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[:-100])
        with pytest.raises(ModelError, match=f"{kind}: .*incomplete|{kind}: .*complete local"):
            check_world(here, lengths=(64,))
        weights.unlink()
        with pytest.raises(ModelError, match=f"cannot load the {kind.replace('_', ' ')} .*model.s"):
            check_world(here, lengths=(64,))
        weights.write_bytes(whole)
    settings = json.loads((models / "reward_model" / "config.json").read_text())
    settings["id2label"] = {"0": "SAD", "1": "GLAD"}
    (models / "reward_model" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="labels must be NEGATIVE and POSITIVE, got SAD, GLAD"):
        check_world(here, lengths=(64,))


@pytest.mark.parametrize("method", ["gptq", "awq", "unheard-of"])
@pytest.mark.parametrize("kind", ["language_model", "reward_model"])
def test_weights_that_another_library_quantised_are_found_before_any_work(
    config, tmp_path, kind, method
):
    models = Path(shutil.copytree(Path(config.base_model).parent, tmp_path / "models"))
    settings = json.loads((models / kind / "config.json").read_text())
    settings["quantization_config"] = {"quant_method": method, "bits": 4}
    (models / kind / "config.json").write_text(json.dumps(settings))
    here = replace(
        config,
        base_model=str(models / "language_model"),
        reward_model=str(models / "reward_model"),
    )
    reason = "supported types are" if method == "unheard-of" else "needs a library that is not here"
    with pytest.raises(ModelError, match=f"cannot load the {kind.replace('_', ' ')} .*{reason}"):
        check_world(here, lengths=(64,))


def test_a_positive_label_of_another_name_reaches_the_reward(config, tmp_path):
    models = Path(shutil.copytree(Path(config.base_model).parent, tmp_path / "models"))
    here = replace(
        config,
        base_model=str(models / "language_model"),
        reward_model=str(models / "reward_model"),
    )
    expected = load_world(here).reward([" Thanks.", " No."])
    settings = json.loads((models / "reward_model" / "config.json").read_text())
    settings["id2label"] = {"0": "SAD", "1": "GLAD"}
    settings["label2id"] = {"SAD": 0, "GLAD": 1}
    (models / "reward_model" / "config.json").write_text(json.dumps(settings))
    named = replace(here, positive_label="GLAD")
    check_world(named, lengths=(64,))
    loader = WorldLoader()
    np.testing.assert_array_equal(loader.world(named).reward([" Thanks.", " No."]), expected)
    turned = loader.world(replace(named, positive_label="SAD")).reward([" Thanks.", " No."])
    assert not np.array_equal(turned, expected)


# ----------------------------------------------------------------- one load for many worlds


@pytest.fixture
def loads(monkeypatch):
    """The names of the models that are loaded from now on."""
    found = []

    def counted(kind):
        load = kind.from_pretrained

        def from_pretrained(name, *arguments, **options):
            found.append(Path(name).name)
            return load(name, *arguments, **options)

        monkeypatch.setattr(kind, "from_pretrained", from_pretrained)

    counted(AutoModelForCausalLM)
    counted(AutoModelForSequenceClassification)
    return found


def test_worlds_that_differ_in_no_model_share_their_models(config, loads):
    loader = WorldLoader()
    first = loader.world(config)
    changes = [
        {"reward_shift": -0.5},
        {"student_temperature": 0.5},
        {"max_reply_tokens": 9},
        {"prompt": "Student: Hello?\nTeacher:"},
    ]
    for change in changes:
        other = loader.world(replace(config, **change))
        assert other.base is first.base
        assert other.score is first.score
    assert other.prompt_tokens.tolist() != first.prompt_tokens.tolist()
    assert loader.world(replace(config, reward_shift=-0.5)).reward_shift == -0.5
    assert loads == ["language_model", "reward_model"]


def test_other_models_take_the_place_of_the_last_ones(config, loads, monkeypatch):
    loader = WorldLoader()
    first = weakref.ref(loader.world(config).base)
    blank = loader.world(replace(config, score_blank_replies=True))
    assert loads == ["language_model", "reward_model"] * 2
    gc.collect()
    assert first() is None, "two models would not fit beside each other"
    assert blank.score([""]) != 0.5


def test_a_world_that_shares_its_models_is_the_world_that_has_its_own(config):
    loader = WorldLoader()
    loader.world(replace(config, student_temperature=0.3))
    shared, own = loader.world(config), load_world(config)
    rollouts = [
        play_episodes(
            BasePolicy(world),
            world,
            n_episodes=3,
            n_tokens=60,
            budget_nats=1.0,
            accounting=Accounting.EXACT,
            seed=0,
            stream=(0,),
            keep_observations=False,
        )
        for world in (shared, own)
    ]
    for name, array in rollouts[0].arrays().items():
        np.testing.assert_array_equal(array, rollouts[1].arrays()[name])


# ----------------------------------------------------------------- the process as base policy


def test_the_process_itself_can_be_the_base_policy(config, loads):
    exact = replace(config, base_model=PROCESS)
    check_world(exact, lengths=(2000,))  # it has no position embeddings
    world = load_world(exact)
    assert loads == ["reward_model"]
    process = DialogueProcess(load_task(exact.task))
    _, step = world.base.begin(world.prompt_tokens, n_episodes=1, n_positions=64)
    expected = process.probs(process.read(process.prompt[None]))
    np.testing.assert_allclose(step.log_probs.exp().numpy(), expected, atol=1e-7)
    assert known_demonstrator(exact, world).task == process.task


def test_with_the_process_as_base_policy_an_agent_does_nothing_that_it_would_not(config):
    exact = replace(config, base_model=PROCESS)
    world = load_world(exact)
    agent = LockstepPPO(world, preset_config(Preset.TINY)).policy
    with torch.no_grad():
        agent.actor.bias.normal_(std=3.0, generator=torch.Generator().manual_seed(0))
        agent.actor.bias[world.parser.partner_opening[0]] = 9.0  # the Teacher never says nothing
        agent.actor.bias[-1] = 9.0
    found = evaluate(
        agent,
        world,
        process=known_demonstrator(exact, world),
        n_episodes=8,
        n_tokens=80,
        budget_nats=50.0,
        accounting=Accounting.EXACT,
        seed=0,
        stream=(0,),
    )
    row = found.row()
    assert row.spending.spent_nats_mean > 1
    assert set(row.departure.possible_shares) == {1.0}
    assert row.departure.outside_mass == row.behaviour.empty_any_share == 0.0


def test_a_prompt_that_the_process_never_writes_is_refused(config, no_weights):
    exact = replace(config, base_model=PROCESS, prompt="Student:\nTeacher:")
    with pytest.raises(InvalidArgumentError, match="task 'classroom' never writes this prompt"):
        check_world(exact, lengths=(64,))


# ----------------------------------------------------------------- a world at hand


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


def test_a_prompt_with_words_that_the_model_does_not_know_is_refused_by_name():
    world = WorldConfig(prompt="Student: My volcano exploded yesterday.\n\nTeacher:")
    with pytest.raises(InvalidArgumentError, match=r"know: volcano, exploded, yesterday\.; leave"):
        check_world(world, lengths=(256,))
    with pytest.raises(InvalidArgumentError, match="volcano"):
        load_world(world)


def test_turns_that_show_a_phrase_are_those_whose_words_it_is():
    behaviour = Behaviour(name="refusal", turn="refusing", episode="refusing", phrases=("no",))
    world = small_world(behaviour=behaviour, phrase=(NO,))
    rollout = play_episodes(
        BasePolicy(world),
        world,
        n_episodes=30,
        n_tokens=40,
        budget_nats=0.0,
        accounting=Accounting.EXACT,
        seed=0,
        stream=(0,),
        keep_observations=False,
    )
    turns = rollout.turns
    for number in range(len(turns.episode)):
        text = "".join(
            PIECES[token]
            for token in rollout.tokens[
                turns.episode[number], turns.opened[number] + 1 : turns.closed[number] + 1
            ]
        )
        own = turns.finished[number] and turns.speaker[number] == Speaker.AGENT
        assert rollout.empty_turns[number] == (own and text == f"{PIECES[NO]}\nS:")
    assert 0 < rollout.empty_turns.sum() < len(turns.episode)
    silent = small_world().shown(turns, rollout.tokens)
    assert not (silent & rollout.empty_turns).any()


def test_the_world_knows_its_tasks_behaviour():
    world = load_world(WorldConfig(task="errands", base_model="mixture"))
    assert world.behaviour.phrase == "Fetched."
    assert world.phrase == tuple(DialogueProcess(load_task("errands")).encode(" Fetched."))
    assert (world.parser.rules.agent, world.parser.rules.partner) == ("Butler", "Master")
    assert load_world(WorldConfig()).phrase == ()
