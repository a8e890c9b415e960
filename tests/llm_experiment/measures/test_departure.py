"""How far agents leave a known demonstrator, where closed forms say how far that should be."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from llm_experiment.base.process import ProcessBase
from llm_experiment.chat.world import World
from llm_experiment.config import WorldConfig
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import load_task
from llm_experiment.measures.departure import departure_numbers, known_demonstrator
from llm_experiment.measures.evaluation import BasePolicy
from llm_experiment.measures.metrics import SMOOTHINGS
from tests.llm_experiment.measures.measured_world import (
    LEAK,
    PROCESS,
    LeakyBase,
    base_evaluated,
    evaluated,
    process_world,
    random_agent,
)
from theory.errors import InvalidArgumentError, ModelError


@pytest.fixture(scope="module")
def leaky_world():
    return process_world()


@pytest.fixture(scope="module")
def base_evaluation(leaky_world):
    return evaluated(BasePolicy(leaky_world), leaky_world, process=PROCESS, n_episodes=600)


@pytest.fixture(scope="module")
def agent_evaluation(leaky_world):
    agent = random_agent(leaky_world)
    return evaluated(agent, leaky_world, process=PROCESS, n_episodes=400, budget_nats=5.0)


def test_the_demonstrator_never_leaves_itself():
    world = process_world(ProcessBase(PROCESS))
    evaluation = evaluated(BasePolicy(world), world, process=PROCESS)
    departure, numbers = evaluation.departure, evaluation.row().departure
    assert departure.possible.all()
    assert (departure.first_impossible == 40).all()
    assert numbers.possible_shares == (1.0,) * 4
    assert numbers.exit_probability == numbers.agent_left_share == numbers.student_left_share == 0
    # KL(tau || (1-d) tau + d uniform) is at most -log(1-d).
    for d, nats in zip(SMOOTHINGS, numbers.smoothed_kl_nats_per_step, strict=True):
        assert -1e-6 <= nats <= -math.log1p(-d)


def test_a_base_policy_that_leaks_has_the_outside_mass_and_the_smoothed_kl_of_its_leak(
    base_evaluation,
):
    departure, rollout = base_evaluation.departure, base_evaluation.rollout
    measured = rollout.agent_steps & departure.possible
    log_tau = PROCESS.predictive_log_probs(rollout.tokens)[measured]
    outside = np.isneginf(log_tau).mean(axis=-1)
    for mass in (departure.outside_mass, departure.base_outside_mass):
        np.testing.assert_allclose(mass[measured], LEAK * outside, rtol=1e-4)
        assert not mass[~measured].any()
    smoothed = departure.smoothed_kl_nats[SMOOTHINGS.index(LEAK)]
    np.testing.assert_allclose(smoothed, 0.0, atol=1e-5)  # the base's rows are float32
    np.testing.assert_array_equal(departure.smoothed_kl_nats, departure.base_smoothed_kl_nats)
    # As d -> 0 the KL grows by the outside mass times log 1/d.
    growth = np.diff(departure.smoothed_kl_nats[-2:], axis=0)[0] / math.log(1e-6 / 1e-8)
    np.testing.assert_allclose(growth, departure.outside_mass.sum(axis=1), rtol=1e-3)


@pytest.mark.parametrize("which", ["base_evaluation", "agent_evaluation"])
def test_the_exit_probability_is_the_expected_share_of_episodes_that_the_agent_leaves(
    which, request
):
    evaluation = request.getfixturevalue(which)
    row = evaluation.row()
    numbers, n = row.departure, row.spending.n_episodes
    per_episode = evaluation.departure.outside_mass.sum(axis=1)
    assert numbers.exit_probability == pytest.approx(per_episode.mean(), rel=1e-12)
    error = math.sqrt(numbers.exit_probability * (1 - numbers.exit_probability) / n)
    assert 0.02 < numbers.exit_probability < 1
    assert numbers.agent_left_share == pytest.approx(numbers.exit_probability, abs=4 * error)
    left = numbers.agent_left_share + numbers.student_left_share
    assert numbers.possible_shares[-1] == pytest.approx(1 - left)
    assert sorted(numbers.possible_shares, reverse=True) == list(numbers.possible_shares)


def test_the_agents_numbers_are_those_of_its_policy_and_the_bases_those_of_b(
    agent_evaluation, leaky_world
):
    departure, rollout = agent_evaluation.departure, agent_evaluation.rollout
    assert rollout.observations is not None
    with torch.no_grad():
        step = random_agent(leaky_world).act_on(rollout.observations)
    steps = rollout.agent_steps
    log_tau = PROCESS.predictive_log_probs(rollout.tokens)[steps]
    on_support = departure.possible[steps]
    assert 0 < (~on_support).sum() < len(on_support)
    d = SMOOTHINGS[0]
    smooth = (1 - d) * np.exp(log_tau) + d / len(PROCESS.vocabulary)
    for policy, mass, nats in (
        (step.log_probs, departure.outside_mass, departure.smoothed_kl_nats),
        (step.base_log_probs, departure.base_outside_mass, departure.base_smoothed_kl_nats),
    ):
        p = policy.exp().numpy()
        outside = (p * (log_tau == -np.inf)).sum(axis=-1)
        np.testing.assert_allclose(mass[steps], outside * on_support, rtol=1e-9, atol=1e-12)
        kl = (p * np.log(p / smooth)).sum(axis=-1) * on_support
        per_episode = np.zeros(steps.shape)
        per_episode[steps] = kl
        np.testing.assert_allclose(nats[0], per_episode.sum(axis=1), rtol=1e-9)
    np.testing.assert_array_equal(departure.n_steps, (steps & departure.possible).sum(axis=1))


def test_a_transcript_is_possible_up_to_its_first_impossible_token(agent_evaluation):
    departure, tokens = agent_evaluation.departure, agent_evaluation.rollout.tokens
    likelihoods = PROCESS.log_likelihoods(tokens)
    np.testing.assert_allclose(departure.demonstrator_log_probs, likelihoods, rtol=1e-12)
    for first, possible, row in zip(
        departure.first_impossible, departure.possible, likelihoods, strict=True
    ):
        impossible = np.flatnonzero(np.isneginf(row))
        assert first == (impossible[0] if len(impossible) else len(row))
        np.testing.assert_array_equal(possible, np.arange(len(row)) <= first)


def test_who_writes_the_first_impossible_token_leaves(agent_evaluation):
    departure, rollout = agent_evaluation.departure, agent_evaluation.rollout
    n, t = rollout.tokens.shape
    for place in range(t - 5, t):
        first = replace(departure, first_impossible=np.full(n, place))
        numbers = departure_numbers(first, rollout)
        assert numbers.agent_left_share == rollout.agent_steps[:, place].mean()
        assert numbers.student_left_share == (~rollout.agent_steps[:, place]).mean()
    never = departure_numbers(replace(departure, first_impossible=np.full(n, t)), rollout)
    assert never.agent_left_share == never.student_left_share == 0


def test_episodes_that_begin_impossibly_have_no_step_to_measure(leaky_world):
    """Bob says what he never says, in the prompt; there is nothing to average then."""
    prompt = torch.from_numpy(PROCESS.encode("Talk.\nBob: Yes Yes\nAnn: It"))
    world = replace(leaky_world, prompt_tokens=prompt)
    numbers = evaluated(BasePolicy(world), world, process=PROCESS, n_episodes=3).row().departure
    assert numbers.possible_shares == (0.0,) * 4
    assert numbers.student_left_share == 1.0
    assert numbers.exit_probability == 0.0
    assert math.isnan(numbers.outside_mass)
    assert np.isnan(numbers.smoothed_kl_nats_per_step).all()


def test_the_demonstrator_is_known_for_the_shipped_models_and_possible_prompts_only():
    config = WorldConfig()
    process = known_demonstrator(config, classroom())
    assert process is not None
    assert process.task.name == "classroom"
    assert known_demonstrator(replace(config, base_model="elsewhere"), classroom()) is None
    for prompt in ("Student: Yes?\nTeacher:", f"{process.task.note}Student: zebra\nTeacher:"):
        own = replace(config, prompt=prompt)
        assert known_demonstrator(own, classroom(prompt)) is None


def test_models_of_another_version_of_the_task_are_not_measured_against_this_one():
    shifted = replace(classroom(), prompt_tokens=classroom().prompt_tokens + 1)
    for world in (shifted, replace(classroom(), base=LeakyBase(PROCESS))):
        with pytest.raises(ModelError, match=r"train them again with .* --task classroom"):
            known_demonstrator(WorldConfig(), world)


def classroom(prompt=None) -> World:
    process = DialogueProcess(load_task("classroom"))
    try:
        tokens = process.prompt if prompt is None else process.encode(prompt)
    except InvalidArgumentError:
        tokens = process.prompt
    base = ProcessBase(process)
    return replace(process_world(), base=base, prompt_tokens=torch.from_numpy(tokens))


def test_departures_of_batches_are_joined_episode_by_episode(leaky_world):
    _, episodes = base_evaluated(
        leaky_world, process=PROCESS, n_episodes=7, lengths=(40,), stream=7, at_once=3
    )
    found = episodes[40]
    departure, tokens = found.departure, found.rollout.tokens
    np.testing.assert_array_equal(departure.demonstrator_log_probs, PROCESS.log_likelihoods(tokens))
    assert departure.smoothed_kl_nats.shape == (len(SMOOTHINGS), 7)
    assert departure.n_steps.shape == departure.first_impossible.shape == (7,)
