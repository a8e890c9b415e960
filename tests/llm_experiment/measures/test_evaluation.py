"""What an evaluation measures, where closed forms or counting by hand say what it should be."""

import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from llm_experiment.agent.policy import FixedKLPolicy
from llm_experiment.agent.rollout import Rollout, play_episodes
from llm_experiment.base.process import ProcessBase
from llm_experiment.base.protocol import BaseStep
from llm_experiment.chat.turns import Speaker, TurnParser, TurnRules
from llm_experiment.chat.world import World
from llm_experiment.config import TargetRule, WorldConfig
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import load_task
from llm_experiment.measures.evaluation import (
    METRICS,
    SMOOTHINGS,
    BasePolicy,
    Departure,
    Evaluation,
    closed_form_probability,
    distinct_n_grams,
    evaluate,
    evaluate_base,
    first_silence_prices_nats,
    known_demonstrator,
)
from mightnt.results import write_json
from tests.llm_experiment.small_world import (
    COLON,
    NEWLINE,
    NO,
    S,
    T,
    dialogue_table,
    encode,
    small_config,
    small_world,
)
from tests.llm_experiment.tiny_task import TINY_TASK
from theory.budget import Accounting
from theory.errors import InvalidArgumentError, InvalidShapeError, ModelError

PROCESS = DialogueProcess(TINY_TASK)
LEAK = SMOOTHINGS[1]


class LeakyBase(ProcessBase):
    """The process with a share of `LEAK` of every step given to the uniform distribution."""

    def begin(self, prompt_tokens, *, n_episodes, n_positions):
        session, step = super().begin(prompt_tokens, n_episodes=n_episodes, n_positions=n_positions)
        return LeakySession(session), leaky(step)


class LeakySession:
    def __init__(self, session):
        self.session = session

    def append(self, tokens, *, agent_wrote=None):
        return leaky(self.session.append(tokens, agent_wrote=agent_wrote))


def leaky(step):
    uniform = torch.tensor(math.log(LEAK / step.log_probs.shape[-1]))
    mixed = torch.logaddexp(step.log_probs + math.log1p(-LEAK), uniform)
    return BaseStep(log_probs=mixed, features=step.features, missing_mass=step.missing_mass)


def process_world(base=None) -> World:
    """Ann, who is never silent, talks with Bob; the base policy is the process or leaks."""
    parser = TurnParser(
        TurnRules(agent="Ann", partner="Bob"),
        pieces=PROCESS.vocabulary,
        encode=lambda text: PROCESS.encode(text).tolist(),
        decode=PROCESS.decode,
    )
    return World(
        base=base or LeakyBase(PROCESS),
        parser=parser,
        prompt_tokens=torch.from_numpy(PROCESS.prompt),
        score=lambda replies: np.array([float("good" in reply) for reply in replies]),
    )


def random_agent(world, *, scale=0.3, seed=0) -> FixedKLPolicy:
    env = world.env(small_config())
    agent = FixedKLPolicy(
        env.observation_space,
        env.action_space,
        lambda _: 1e-3,
        actor_learning_rate=1e-3,
        target_rule=TargetRule.ATTAINABLE,
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.normal_(std=scale, generator=generator)
    return agent


def evaluated(agent, world, **changes) -> Evaluation:
    settings = {
        "process": None,
        "n_episodes": 60,
        "n_tokens": 40,
        "budget_nats": 2.0,
        "accounting": Accounting.EXACT,
        "seed": 0,
        "stream": (0,),
    }
    return evaluate(agent, world, **(settings | changes))


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


# --------------------------------------------------------------------- the demonstrator


def test_the_demonstrator_never_leaves_itself():
    world = process_world(ProcessBase(PROCESS))
    evaluation = evaluated(BasePolicy(world), world, process=PROCESS)
    departure, row = evaluation.departure, evaluation.row()
    assert departure.possible.all()
    assert (departure.first_impossible == 40).all()
    assert row["possible_shares"] == [1.0] * 4
    assert row["exit_probability"] == row["agent_left_share"] == row["student_left_share"] == 0.0
    # KL(tau || (1-d) tau + d uniform) is at most -log(1-d).
    for d, nats in zip(SMOOTHINGS, row["smoothed_kl_nats_per_step"], strict=True):
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
    n = row["n_episodes"]
    error = math.sqrt(row["exit_probability"] * (1 - row["exit_probability"]) / n)
    assert 0.02 < row["exit_probability"] < 1
    assert row["agent_left_share"] == pytest.approx(row["exit_probability"], abs=4 * error)
    left = row["agent_left_share"] + row["student_left_share"]
    assert row["possible_shares"][-1] == pytest.approx(1 - left)
    assert sorted(row["possible_shares"], reverse=True) == row["possible_shares"]


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
    np.testing.assert_array_equal(departure.demonstrator_log_probs, likelihoods)
    for first, possible, row in zip(
        departure.first_impossible, departure.possible, likelihoods, strict=True
    ):
        impossible = np.flatnonzero(np.isneginf(row))
        assert first == (impossible[0] if len(impossible) else len(row))
        np.testing.assert_array_equal(possible, np.arange(len(row)) <= first)


def test_episodes_that_begin_impossibly_have_no_step_to_measure(leaky_world):
    """Bob says what he never says, in the prompt; there is nothing to average then."""
    prompt = torch.from_numpy(PROCESS.encode("Talk.\nBob: Yes Yes\nAnn: It"))
    world = replace(leaky_world, prompt_tokens=prompt)
    row = evaluated(BasePolicy(world), world, process=PROCESS, n_episodes=3).row()
    assert row["possible_shares"] == [0.0] * 4
    assert row["student_left_share"] == 1.0
    assert row["exit_probability"] == 0.0
    assert math.isnan(row["outside_mass"])
    assert np.isnan(row["smoothed_kl_nats_per_step"]).all()


def test_a_demonstrator_of_another_vocabulary_is_refused():
    world = small_world()
    with pytest.raises(InvalidShapeError, match=r"has \d+ tokens and the base policy 7"):
        evaluated(BasePolicy(world), world, process=PROCESS)


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


# --------------------------------------------------------------------- the behaviour


def hand_made(texts, *, prompt="S: no\nT: no", empty_kl=0.25) -> Rollout:
    """A rollout with given continuations of a prompt, padded with the word `no`.

    A token of the agent costs its index times `empty_kl`.
    """
    world = small_world(prompt=prompt)
    length = len(encode(prompt))
    longest = max(len(encode(text)) for text in texts)
    padded = [[*encode(text), *[NO] * longest][:longest] for text in texts]
    tokens = torch.tensor([[*encode(prompt), *tokens] for tokens in padded])
    writers = world.parser.writers(tokens).numpy()
    shape = tokens.shape
    agents = (writers == Speaker.AGENT) & (np.arange(shape[1]) >= length)
    template = play_episodes(
        BasePolicy(world),
        world,
        n_episodes=len(texts),
        n_tokens=shape[1],
        budget_nats=0.0,
        accounting=Accounting.EXACT,
        seed=0,
        stream=(0,),
        keep_observations=False,
    )
    turns = world.parser.find_turns(tokens)
    position = np.arange(shape[1]) * np.ones(shape)
    return replace(
        template,
        tokens=tokens.numpy(),
        writers=writers,
        kl_nats=np.where(agents, empty_kl * position, 0.0),
        log_ratio_nats=np.where(agents, 2.0, 0.0),
        log_probs=np.where(agents, -0.5, 0.0),
        turns=turns,
        empty_turns=world.parser.are_empty(turns),
    )


SILENT = "\nS:\nT:\nS:\nT:\nS:\nT:"
TALKING = "\nS:\nT: no no yes\nS:"
MIXED = "\nS:\nT:\nS:\nT: yes\nS:"


def test_turns_and_silence_are_counted_as_by_hand():
    row = Evaluation(
        rollout=hand_made([SILENT, TALKING, MIXED]),
        budget_nats=1.0,
        departure=None,
    ).row()
    # Finished turns that the agent opened, and the empty ones of them: 2 of 2, 0 of 1, 1 of 2.
    assert row["turns_mean"] == pytest.approx(5 / 3)
    assert row["empty_share"] == pytest.approx(3 / 5)
    assert row["empty_share_per_episode"] == pytest.approx((1 + 0 + 1 / 2) / 3)
    assert row["empty_any_share"] == pytest.approx(2 / 3)
    assert row["silent_share"] == pytest.approx(1 / 3)


def test_the_price_of_the_ith_empty_turn_is_that_of_its_tokens():
    row = Evaluation(rollout=hand_made([SILENT, MIXED]), budget_nats=1.0, departure=None).row()
    # The prompt has 7 tokens; \nS: ends its turn, \nT: opens the next at token 12.
    first = 0.25 * (13 + 14 + 15)
    second = 0.25 * (19 + 20 + 21)
    assert row["empty_turn_kl_nats"] == [
        pytest.approx([first, first, first, 2]),
        pytest.approx([second, second, second, 1]),
    ]
    # log(x/b) - log x = 2.5 nats a token.
    assert row["empty_turn_surprise_nats"][1] == pytest.approx([7.5, 7.5, 7.5, 1])


def test_repetition_counts_n_grams_of_the_chosen_tokens_alone(rng):
    tokens = rng.integers(3, size=(6, 30))
    chosen = rng.random((6, 30)) < 0.8
    for n in (1, 2, 3):
        shares = []
        for row, own in zip(tokens.tolist(), chosen.tolist(), strict=True):
            grams = [tuple(row[i : i + n]) for i in range(len(row) - n + 1) if all(own[i : i + n])]
            shares.append(len(set(grams)) / len(grams))
        assert distinct_n_grams(tokens, chosen, n) == pytest.approx(np.mean(shares))
    assert math.isnan(distinct_n_grams(tokens, np.zeros_like(chosen), 1))
    assert math.isnan(distinct_n_grams(tokens[:, :2], chosen[:, :2], 3))
    with pytest.raises(InvalidArgumentError, match="n must be >= 1, got 0"):
        distinct_n_grams(tokens, chosen, 0)


def test_an_agent_that_never_ends_a_turn_has_no_share_of_empty_ones():
    row = Evaluation(rollout=hand_made([" no no no"]), budget_nats=1.0, departure=None).row()
    assert row["turns_mean"] == row["silent_share"] == 0.0
    assert math.isnan(row["empty_share_per_episode"])
    assert math.isnan(row["reply_reward_mean"])
    assert row["empty_turn_kl_nats"] == []


def test_spending_is_the_ledgers_and_an_overdraft_is_seen():
    world = small_world()
    agent = random_agent(world, scale=1.0)
    evaluation = evaluated(agent, world, budget_nats=2.0)
    row, rollout = evaluation.row(), evaluation.rollout
    assert row["spent_nats_mean"] == pytest.approx(rollout.kl_nats.sum(axis=1).mean())
    assert row["log_ratio_nats_mean"] == pytest.approx(rollout.log_ratio_nats.sum(axis=1).mean())
    assert row["over_budget_share"] == 0.0
    assert row["leak_nats_max"] <= 1e-12
    over = replace(evaluation, budget_nats=float(np.median(rollout.spent_nats)))
    assert over.row()["over_budget_share"] == pytest.approx(0.5, abs=0.02)
    assert math.isnan(replace(evaluation, budget_nats=math.inf).row()["over_budget_share"])


# --------------------------------------------------------------------- the base policy


def test_the_base_policy_plays_b_and_is_the_agent_with_budget_0():
    world = small_world()
    settings = {"budget_nats": 0.0, "n_episodes": 8}
    base = evaluated(BasePolicy(world), world, **settings).rollout
    agent = evaluated(random_agent(world), world, **settings).rollout
    np.testing.assert_array_equal(base.tokens, agent.tokens)
    assert not base.kl_nats.any()
    assert not base.log_ratio_nats.any()


def test_the_first_silence_is_priced_by_the_base_policy():
    world, table = small_world(), dialogue_table()
    prices = first_silence_prices_nats(world, n_episodes=50, n_tokens=40, seed=0, stream=(1,))
    expected = -(table[T, COLON, NEWLINE] + table[COLON, NEWLINE, S] + table[NEWLINE, S, COLON])
    assert 10 < len(prices) <= 50
    np.testing.assert_allclose(prices, expected, rtol=1e-6)
    assert closed_form_probability(prices) == pytest.approx(math.exp(-expected), rel=1e-6)
    with pytest.raises(InvalidArgumentError, match="no dialogue was long enough"):
        closed_form_probability([])


def test_the_base_is_evaluated_at_every_length_and_its_episodes_are_handed_on():
    world, stored = small_world(), {}
    base = evaluate_base(
        world,
        process=None,
        n_episodes=20,
        lengths=(60, 40),
        seed=0,
        stream=7,
        store=stored.__setitem__,
    )
    assert [row["n_tokens"] for row in base.rows] == [60, 40]
    assert {n: e.rollout.tokens.shape for n, e in stored.items()} == {60: (20, 60), 40: (20, 40)}
    assert base.n_contexts <= 20
    assert base.first_silence_probability == pytest.approx(math.exp(-base.first_silence_nats[1]))
    short = evaluate_base(
        world, process=None, n_episodes=2, lengths=(8,), seed=0, stream=7, store=stored.__setitem__
    )
    assert short.n_contexts == 0
    assert short.first_silence_nats is short.first_silence_probability is None
    with pytest.raises(InvalidArgumentError, match="at least 1 episode length"):
        evaluate_base(
            world, process=None, n_episodes=2, lengths=(), seed=0, stream=7, store=stored.get
        )


def test_an_evaluation_in_batches_is_of_all_its_episodes():
    """The first batch is what an evaluation of so many episodes alone would be."""
    world = small_world()
    whole, first = (
        evaluated(BasePolicy(world), world, budget_nats=0.0, n_episodes=n, at_once=4)
        for n in (11, 4)
    )
    assert whole.row()["n_episodes"] == 11
    np.testing.assert_array_equal(whole.rollout.tokens[:4], first.rollout.tokens)
    assert len(np.unique(whole.rollout.tokens, axis=0)) > 6
    stored = {}
    base = evaluate_base(
        world,
        process=None,
        n_episodes=11,
        lengths=(40,),
        seed=0,
        stream=7,
        store=stored.__setitem__,
        at_once=4,
    )
    assert base.rows[0]["n_episodes"] == len(stored[40].rollout.tokens) == 11
    assert base.n_contexts <= 4


def test_departures_are_joined_episode_by_episode(leaky_world):
    found = evaluated(
        BasePolicy(leaky_world), leaky_world, process=PROCESS, n_episodes=7, at_once=3
    )
    departure, tokens = found.departure, found.rollout.tokens
    np.testing.assert_array_equal(departure.demonstrator_log_probs, PROCESS.log_likelihoods(tokens))
    assert departure.smoothed_kl_nats.shape == (len(SMOOTHINGS), 7)
    assert departure.n_steps.shape == departure.first_impossible.shape == (7,)


# --------------------------------------------------------------------- what is stored


def test_every_number_is_defined_and_every_definition_has_its_number(agent_evaluation, tmp_path):
    row = agent_evaluation.row()
    assert row.keys() == METRICS.keys()
    write_json(tmp_path / "row.json", row)
    assert json.loads((tmp_path / "row.json").read_text()).keys() == METRICS.keys()
    without = replace(agent_evaluation, departure=None).row()
    assert without.items() <= row.items()


def test_stored_arrays_are_the_episodes_and_the_departure(agent_evaluation, tmp_path):
    arrays = agent_evaluation.arrays()
    np.savez_compressed(tmp_path / "episodes.npz", allow_pickle=False, **arrays)
    with np.load(tmp_path / "episodes.npz", allow_pickle=False) as stored:
        assert set(stored) == arrays.keys()
        for field in fields(Departure):
            np.testing.assert_array_equal(
                stored[field.name], getattr(agent_evaluation.departure, field.name)
            )
        np.testing.assert_array_equal(stored["kl_nats"], agent_evaluation.rollout.kl_nats)
    assert replace(agent_evaluation, departure=None).arrays().keys() < arrays.keys()
