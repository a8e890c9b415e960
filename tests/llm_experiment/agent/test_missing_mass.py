"""Agents where the base policy misses mass: charged for acting, or helped, on every path."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_experiment.agent.rollout import play_episodes
from llm_experiment.agent.step_policy import step_policy
from llm_experiment.base.ensemble import EnsembleBase, pessimistic
from llm_experiment.base.helped import HelpedBase
from llm_experiment.base.protocol import step_from_semi_distribution
from llm_experiment.chat.gym_env import ChatEnv
from llm_experiment.chat.observation import LARGEST, pack_observation, unpack_observation
from llm_experiment.chat.turn_records import Speaker
from llm_experiment.config import TargetRule
from llm_experiment.measures.behaviour import behaviour
from llm_experiment.measures.evaluation import BasePolicy
from tests.llm_experiment.fakes.small_world import (
    COLON,
    NEWLINE,
    NO,
    PIECES,
    PLEASE,
    YES,
    T,
    TableBase,
    dialogue_table,
    small_world,
)
from theory.bayes_mixture import Update
from theory.budget import Accounting
from theory.missing_mass import Help, acting_cost_nats
from theory.process import HistoryTree, environment_table, policy_table, utility_table
from toy_world.planners.ask import asking_optimum

N_TOKENS = 40
VETOED = NEWLINE
"""The agent never ends its turn under the gappy law; the demonstrator does."""


@dataclass
class Gappy:
    """A base policy of which some tokens were taken at the agent's steps (after `T:` ...)."""

    base: TableBase
    taken: tuple[int, ...]

    def __getattr__(self, name):
        return getattr(self.base, name)

    def begin(self, prompt_tokens, **sizes):
        session, step = self.base.begin(prompt_tokens, **sizes)
        agent = torch.full((len(step.log_probs),), True)
        gappy = GappySession(session, self.taken, agent)
        return gappy, gappy.without(step)


class GappySession:
    def __init__(self, session, taken, agent):
        self.session, self.taken, self.agent = session, list(taken), agent

    def append(self, tokens, *, agent_wrote=None):
        step = self.session.append(tokens)
        names = {PIECES.index("T"): True, PIECES.index("S"): False}
        for token, is_agent in names.items():
            self.agent = torch.where(tokens == token, is_agent, self.agent)
        return self.without(step)

    def without(self, step):
        log_semi = step.log_probs.double().log_softmax(dim=-1)
        in_body = torch.isfinite(log_semi[:, YES])  # names and colons are written as before
        rows = self.agent & in_body
        gone = torch.isin(torch.arange(len(PIECES)), torch.tensor(self.taken))
        log_semi[rows[:, None] & gone] = -math.inf
        return step_from_semi_distribution(log_semi, step.features)


def gappy_world(way, *, taken=(VETOED,)):
    world = small_world()
    base = Gappy(world.base, taken)
    opening = world.prompt_tokens
    helped = HelpedBase(base, way, demonstrator=world.base, opening=opening)
    return small_world_with(helped)


def small_world_with(base):
    world = small_world()
    return type(world)(
        base=base, parser=world.parser, prompt_tokens=world.prompt_tokens, score=world.score
    )


@dataclass
class Leaning:
    """An agent that leans to one token, as far as its budget lets it."""

    token: int = YES
    strength: float = 3.0
    neuron: float = 2.0
    device = torch.device("cpu")

    def act_on(self, observation):
        seen = unpack_observation(observation, n_tokens=len(PIECES))
        log_b = seen.log_probs.where(seen.log_probs > -LARGEST, -math.inf)
        residual = torch.zeros_like(log_b)
        residual[:, self.token] = self.strength
        neuron = torch.full((len(observation),), self.neuron)
        return step_policy(log_b, residual, neuron, seen.budget_nats, rule=TargetRule.ATTAINABLE)


def play(agent, world, *, budget_nats, n_episodes=16, seed=0):
    return play_episodes(
        agent,
        world,
        n_episodes=n_episodes,
        n_tokens=N_TOKENS,
        budget_nats=budget_nats,
        accounting=Accounting.EXACT,
        seed=seed,
        stream=(0,),
        keep_observations=True,
    )


def test_without_a_budget_to_spend_every_step_that_misses_mass_is_asked_for():
    rollout = play(BasePolicy(gappy_world(Help.ASK)), gappy_world(Help.ASK), budget_nats=0.0)
    words = rollout.turn_steps & ~np.isin(rollout.tokens, [PIECES.index("S"), PIECES.index(":")])
    previous = np.roll(rollout.tokens, 1, axis=1)
    in_body = words & (previous != NEWLINE)
    assert (rollout.asked == in_body).all()
    assert rollout.spent_nats.max() == 0.0
    assert rollout.agent_steps.sum() == len(rollout.kept_observations)
    assert behaviour(rollout).help_share == pytest.approx(in_body.sum() / rollout.turn_steps.sum())
    # The demonstrator ends turns, which the agent's own law never does.
    assert (rollout.tokens[rollout.asked] == NEWLINE).any()


@settings(max_examples=15, deadline=None)
@given(
    budget=st.floats(0.0, 6.0),
    strength=st.floats(0.0, 8.0),
    seed=st.integers(0, 99),
    taken=st.sampled_from([(NEWLINE,), (NO,), (NEWLINE, NO), (YES, NO, NEWLINE)]),
)
def test_acting_is_charged_for_what_is_missing_and_the_budget_holds_on_every_path(
    budget, strength, seed, taken
):
    world = gappy_world(Help.ASK, taken=taken)
    rollout = play(Leaning(strength=strength), world, budget_nats=budget, n_episodes=4, seed=seed)
    assert (rollout.kl_nats.sum(axis=1) <= budget * (1 + 1e-12)).all()
    assert not rollout.kl_nats[~rollout.agent_steps].any()
    own = rollout.agent_steps
    assert not np.isin(rollout.tokens[own & (rollout.kl_nats > 0)], taken).any()
    laws = dialogue_table()[rollout.tokens[:, :-2], rollout.tokens[:, 1:-1]]
    theta = np.exp(laws[..., list(taken)]).sum(axis=-1)
    theta = np.where(np.isfinite(laws[..., YES]), theta, 0.0)
    surcharge = np.zeros(rollout.tokens.shape)
    with np.errstate(divide="ignore"):
        surcharge[:, 2:] = -np.log1p(-theta)
    assert (rollout.kl_nats[own] >= surcharge[own] - 1e-6).all()
    # What a token was realised to cost is its ratio to what the base policy gives it, mass missing.
    given_nats = np.take_along_axis(laws, rollout.tokens[:, 2:, None], axis=-1)[..., 0]
    acted = (own & ~rollout.asked)[:, 2:]
    np.testing.assert_allclose(
        rollout.log_ratio_nats[:, 2:][acted],
        (rollout.log_probs[:, 2:] - given_nats)[acted],
        atol=1e-5,
    )
    # Who did not act could not have paid.
    left = budget - np.cumsum(rollout.kl_nats, axis=1) + rollout.kl_nats
    assert (surcharge[rollout.asked] >= left[rollout.asked] - 1e-6).all()


def pessimist_of(*openings):
    """The least of members whose turns of the agent open with words of these probabilities."""
    members = []
    for law in openings:
        table = dialogue_table()
        table[T, COLON] = -np.inf
        for word, probability in law.items():
            table[T, COLON, word] = np.log(probability)
        members.append(TableBase(table))
    ensemble = EnsembleBase(
        members,
        log_prior=[0.0] * len(members),
        update=Update.DEMONSTRATOR,
        combine=pessimistic(0.3),
    )
    world = small_world()
    return small_world_with(
        HelpedBase(ensemble, Help.ASK, demonstrator=world.base, opening=world.prompt_tokens)
    )


def test_members_that_share_nothing_can_only_be_asked_for():
    """Definition 4 over (1, 0, 0) and (0, 1, 0): nothing is left of them to act by."""
    rollout = play(Leaning(), pessimist_of({YES: 1.0}, {NO: 1.0}), budget_nats=50.0)
    first = rollout.prompt_length
    assert rollout.asked[:, first].all()
    assert set(rollout.tokens[:, first]) > {YES, NO}


def test_two_members_that_share_a_fifth_charge_a_nat_and_six_tenths_for_acting():
    """Definition 4 over (.9, .1, 0) and (.1, .9, 0): -ln 0.2, however near the agent stays."""
    world = pessimist_of({YES: 0.9, NO: 0.1}, {YES: 0.1, NO: 0.9})
    first = len(world.prompt_tokens)
    acting = play(Leaning(strength=0.0), world, budget_nats=1.7)
    assert acting.kl_nats[:, first] == pytest.approx(-math.log(0.2), abs=1e-6)
    asking = play(Leaning(strength=0.0), world, budget_nats=1.6)
    assert asking.asked[:, first].all()
    assert not asking.kl_nats[:, first].any()


def test_where_nobody_can_be_asked_the_episode_stops_and_earns_nothing_more():
    world = gappy_world(Help.STOP)
    rollout = play(Leaning(strength=0.0), world, budget_nats=1.0)
    stopped = rollout.stopped_at < N_TOKENS
    assert stopped.all()  # an agent that cannot end its turn spends until it stops
    assert behaviour(rollout).stopped_share == 1.0
    after = np.arange(N_TOKENS) >= rollout.stopped_at[:, None]
    for numbers in (rollout.kl_nats, rollout.rewards, rollout.agent_steps):
        assert not numbers[after].any()
    assert (rollout.turns.opened < rollout.stopped_at[rollout.turns.episode]).all()


def test_a_reply_to_a_turn_that_the_demonstrator_ended_is_the_agent_s_last_step_s():
    rollout = play(Leaning(strength=0.0), gappy_world(Help.ASK), budget_nats=3.0, n_episodes=64)
    episodes, steps = np.nonzero(rollout.rewards)
    paid = rollout.agent_steps[episodes, steps]
    acted_before = np.cumsum(rollout.agent_steps, axis=1)[episodes, steps] > 0
    assert paid[acted_before].all()
    assert paid.any()
    assert rollout.returns.sum() == pytest.approx(rollout.reply_rewards.sum())
    assert rollout.asked.any()


def test_where_the_demonstrator_fills_the_gap_nothing_is_asked_and_its_part_is_reported():
    rollout = play(Leaning(), gappy_world(Help.DEMONSTRATOR), budget_nats=2.0)
    assert not rollout.asked.any()
    helped = rollout.help_mass[rollout.agent_steps]
    assert set(np.round(helped, 6)) <= {0.0, 0.25}
    assert behaviour(rollout).help_share == pytest.approx(helped.mean())
    assert (rollout.kl_nats.sum(axis=1) <= 2.0 * (1 + 1e-12)).all()


def test_one_episode_behind_gymnasium_s_interface_pays_and_asks_alike():
    env_world = gappy_world(Help.ASK)
    agent = Leaning()
    env = ChatEnv(
        env_world.base,
        env_world.parser,
        env_world.prompt_tokens,
        n_positions=N_TOKENS,
        partner_temperature=1.0,
        score=env_world.reward,
        budget_nats=1.5,
        world=env_world,
    )
    env.bind(agent)
    generator = torch.Generator().manual_seed(0)
    for seed in range(8):
        seen, _ = env.reset(seed=seed)
        done = env.chat.done
        while not done:
            step = agent.act_on(torch.from_numpy(seen)[None])
            token = step.sample(generator=generator)
            seen, _, done, _, _ = env.step(np.int64(token[0]))
        assert float(env.ledger.spent_nats) <= 1.5 * (1 + 1e-12)
        assert env.chat.position == N_TOKENS
        assert (env.chat.speakers == Speaker.AGENT).any()


@pytest.mark.parametrize("budget", [1.65, 1.8, 2.0, 2.5, 3.0, 4.0])
def test_an_agent_s_step_is_never_better_than_the_planner_s_that_may_ask(budget):
    """One decision, its law and its charge, against the optimum of acting and asking in lots."""
    world = pessimist_of({YES: 0.9, NO: 0.1}, {YES: 0.1, NO: 0.9})
    _, step = world.base.begin(world.prompt_tokens, n_episodes=1, n_positions=30)
    surcharge = acting_cost_nats(step.missing_mass.double())
    observation = pack_observation(
        step, fraction_left=0.5, budget_nats=torch.tensor([budget]) - surcharge
    )
    words = (YES, NO, PLEASE, NEWLINE)
    tree = HistoryTree(n_actions=len(words), n_observations=1, horizon=1)
    least = (0.1, 0.1, 0.0, 0.0)
    asked = step.demonstrator_log_probs[0, list(words)].double().exp().numpy()

    def best(eps):
        return asking_optimum(
            policy_table(tree, lambda _: least),
            environment_table(tree, lambda _: (1.0,)),
            utility_table(tree, lambda h: float(h[0] == 0)),
            help_policy=policy_table(tree, lambda _: tuple(asked / asked.sum())),
            budget_nats=eps,
        )

    for strength in (0.0, 0.5, 2.0, 40.0):
        acted = Leaning(strength=strength, neuron=60.0).act_on(observation)
        charged = float(acted.kl_nats + surcharge)
        assert charged <= budget * (1 + 1e-6)
        value = float(acted.log_probs[0, YES].exp())
        assert value <= best(charged).value + 1e-6
    # Where acting is better than drawing lots, one who leans all the way does as well as can be.
    plan = best(charged)
    if plan.asking[0][0] < 1e-6:
        assert value == pytest.approx(plan.value, abs=1e-6)
    assert budget < 2.5 or plan.asking[0][0] == pytest.approx(0.0, abs=1e-6)
