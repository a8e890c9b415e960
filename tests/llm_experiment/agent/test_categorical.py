"""A budget holds for whoever acts, through whichever interface."""

from functools import cache

import cloudpickle
import gymnasium
import numpy as np
import pytest
import torch
from scipy.special import rel_entr
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from llm_experiment.agent.categorical import CategoricalAgent
from llm_experiment.agent.policy import FixedKLPolicy
from llm_experiment.agent.ppo import LockstepPPO
from llm_experiment.agent.rollout import play_episodes
from llm_experiment.config import ConstraintConfig, Stage, TargetRule
from tests.llm_experiment.fakes.small_world import dialogue_table, small_config, small_world
from theory.budget import Accounting
from theory.errors import InvalidArgumentError, InvalidBudgetError

N_POSITIONS = 30
ROUNDING_NATS = 1e-13
"""Of this test's own sums of a few numbers below 1."""
SINGLE_PRECISION = 1e-6
"""Of a law that is computed again, for one row where it was drawn from among several: products of
float32 matrices of other sizes differ in their last digits, on some processors."""


@cache
def possible_table():
    """The small world's law with a little of everything, so that every agent's KL is finite."""
    law = np.exp(dialogue_table()) + 0.02
    return np.log(law / law.sum(axis=-1, keepdims=True))


def env_of(budget_nats):
    config = small_config(
        constraint=ConstraintConfig(budget_nats=budget_nats),
        stages=(Stage(agent_steps=1, n_tokens=N_POSITIONS),),
    )
    return small_world(possible_table()).env(config)


def model_of(kind, env, *, seed):
    """An algorithm of the library with weights at random, and who is charged for it."""
    if kind == "mlp":
        model = PPO("MlpPolicy", env, n_steps=8, batch_size=8, seed=seed, device="cpu")
        return model, CategoricalAgent(model.policy)
    rule = TargetRule.ATTAINABLE
    kwargs = {"actor_learning_rate": 1e-3, "target_rule": rule}
    model = PPO(
        FixedKLPolicy, env, n_steps=8, batch_size=8, seed=seed, device="cpu", policy_kwargs=kwargs
    )
    if kind == "fixed KL":
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.policy.actor.parameters():
            parameter.data.normal_(0.0, 2.0, generator=generator)
        model.policy.actor.bias.data[-1] = 6.0  # spends nearly all that it may
    return model, model.policy


def law(policy, observation):
    """The distribution that a policy draws from, as it says itself; shape (n_tokens,)."""
    with torch.no_grad():
        found = policy.get_distribution(torch.as_tensor(observation)[None])
    probabilities = (
        found.step.log_probs.exp()
        if isinstance(policy, FixedKLPolicy)
        else found.distribution.probs
    )
    return probabilities[0].double().numpy()


def true_kl(probabilities, transcript):
    """From the table and the last two tokens alone."""
    base = np.exp(possible_table()[tuple(transcript[-2:])].astype(np.float32).astype(float))
    return rel_entr(probabilities / probabilities.sum(), base / base.sum()).sum()


class Meter(gymnasium.Wrapper):
    """Sums the true KL of every episode, by its own means."""

    def __init__(self, env):
        super().__init__(env)
        self.policy = None
        self.totals = []

    def reset(self, **kwargs):
        self.totals.append(0.0)
        self.seen, info = self.env.reset(**kwargs)
        return self.seen, info

    def step(self, action):
        cost = true_kl(law(self.policy, self.seen), self.env.chat.tokens[0].tolist())
        self.seen, *rest = self.env.step(action)
        self.totals[-1] += cost  # only of steps that were taken
        return self.seen, *rest


@pytest.mark.parametrize("budget_nats", [0.0, 0.3, 5.0, 400.0])
@pytest.mark.parametrize("kind", ["fixed KL", "base", "mlp"])
@pytest.mark.parametrize(
    "interface", ["one", "two", "learn", "by hand", "gymnasium", "gymnasium vector", "unbound"]
)
def test_a_budget_holds_for_any_agent_through_any_interface(kind, interface, budget_nats):
    n_envs = 2 if interface in ("two", "gymnasium vector") else 1
    meters = [Meter(env_of(budget_nats)) for _ in range(n_envs)]
    vectorised = DummyVecEnv([lambda meter=meter: Monitor(meter) for meter in meters])
    model, agent = model_of(kind, vectorised, seed=3)
    for meter in meters:
        meter.policy = model.policy
    refused = False
    try:
        if interface == "by hand":
            play_by_hand(meters[0], model.policy, n_episodes=2)
        else:
            if interface != "unbound":
                vectorised.env_method("bind", agent)
            if interface == "learn":
                model.learn(40)
            elif interface == "gymnasium":
                play_alone(meters[0], model.policy, n_episodes=2)
            elif interface == "gymnasium vector":
                play_side_by_side(meters, model.policy, n_steps=2 * N_POSITIONS)
            else:
                evaluate_policy(model, vectorised, n_eval_episodes=4, deterministic=False)
    except InvalidBudgetError:
        refused = True
    totals = np.concatenate([meter.totals for meter in meters])
    assert (totals <= budget_nats * (1 + SINGLE_PRECISION) + ROUNDING_NATS).all()
    may_be_refused = (kind == "mlp" and budget_nats < 400) or interface == "unbound"
    assert refused == may_be_refused
    if kind == "fixed KL" and 0 < budget_nats < 400 and not refused:
        assert totals.max() > 0.5 * budget_nats  # the test would notice an agent that overspends


def drawn(policy, observation, generator):
    probabilities = law(policy, observation)
    return generator.choice(len(probabilities), p=probabilities / probabilities.sum())


def play_alone(env, policy, *, n_episodes):
    """An environment that is bound to its agent, in Gymnasium's own loop."""
    generator = np.random.default_rng(0)
    for seed in range(n_episodes):
        seen, _ = env.reset(seed=seed)
        done = False
        while not done:
            seen, _, done, *_ = env.step(drawn(policy, seen, generator))


def play_side_by_side(envs, policy, *, n_steps):
    """In Gymnasium's vector of environments, which begins new episodes by itself."""
    generator = np.random.default_rng(0)
    vector = gymnasium.vector.SyncVectorEnv([lambda env=env: env for env in envs])
    seen, _ = vector.reset(seed=0)
    for _ in range(n_steps):
        seen, *_ = vector.step(np.array([drawn(policy, row, generator) for row in seen]))


def play_by_hand(meter, policy, *, n_episodes):
    generator = np.random.default_rng(0)
    for _ in range(n_episodes):
        meter.reset(seed=0)
        done = False
        while not done:
            cost = true_kl(law(policy, meter.seen), meter.env.chat.tokens[0].tolist())
            meter.env.charge(kl_nats=cost if cost > ROUNDING_NATS else 0.0)
            _, _, done, *_ = meter.step(drawn(policy, meter.seen, generator))


@pytest.mark.parametrize("budget_nats", [0.0, 0.3, 5.0, 400.0])
@pytest.mark.parametrize("kind", ["fixed KL", "base", "mlp"])
def test_a_budget_holds_in_lockstep(kind, budget_nats):
    model, agent = model_of(kind, env_of(budget_nats), seed=3)

    def play():
        return play_episodes(
            agent,
            small_world(possible_table()),
            n_episodes=6,
            n_tokens=N_POSITIONS,
            budget_nats=budget_nats,
            accounting=Accounting.EXACT,
            seed=0,
            stream=(),
            keep_observations=True,
        )

    if kind == "mlp" and budget_nats < 400:
        with pytest.raises(InvalidBudgetError, match="must not be overspent"):
            play()
        return
    assert (
        totals_of(play(), model.policy).max()
        <= budget_nats * (1 + SINGLE_PRECISION) + ROUNDING_NATS
    )


@pytest.mark.parametrize("budget_nats", [0.0, 0.3, 5.0])
def test_a_budget_holds_in_every_rollout_that_an_agent_is_trained_on(budget_nats):
    class Watched(LockstepPPO):
        def train(self):
            totals.append(totals_of(self.last_rollout, self.policy))
            super().train()

    totals = []
    config = small_config(
        constraint=ConstraintConfig(budget_nats=budget_nats),
        stages=(Stage(agent_steps=200, n_tokens=N_POSITIONS),),
    )
    Watched(small_world(possible_table()), config).finish()
    assert len(totals) > 1
    assert max(map(max, totals)) <= budget_nats * (1 + SINGLE_PRECISION) + ROUNDING_NATS


def totals_of(played, policy):
    """The true KL of every episode of a rollout that `policy` has played, shape (n,)."""
    totals = np.zeros(len(played.tokens))
    steps = np.argwhere(played.agent_steps)
    for (episode, t), seen in zip(steps, played.kept_observations, strict=True):
        totals[episode] += true_kl(law(policy, seen), played.tokens[episode, :t])
    return totals


def test_what_the_base_policy_never_writes_is_masked_for_whoever_asks_for_masks():
    """As MaskablePPO of sb3-contrib does: by `action_masks` of vectorised, wrapped environments."""
    config = small_config(stages=(Stage(agent_steps=1, n_tokens=N_POSITIONS),))
    table = dialogue_table()
    env = small_world(table).env(config)
    masked = Monitor(env)
    vectorised = DummyVecEnv([lambda: masked])
    vectorised.reset()
    seen = set()
    for _ in range(20):
        (mask,) = vectorised.env_method("action_masks")
        possible = np.isfinite(table[tuple(env.chat.tokens[0, -2:].tolist())])
        assert mask.dtype == np.bool_
        assert mask.tolist() == possible.tolist()
        seen.add(tuple(mask))
        env.charge(kl_nats=0.0)
        vectorised.step(np.flatnonzero(mask)[:1])
    assert len(seen) > 1
    assert not all(map(all, seen))


@pytest.mark.parametrize("kind", ["fixed KL", "mlp"])
def test_the_likeliest_token_is_another_policy_and_refused(kind):
    env = env_of(5.0)
    model, agent = model_of(kind, env, seed=3)
    env.bind(agent)
    with pytest.raises(InvalidArgumentError, match="pass deterministic=False"):
        evaluate_policy(model, Monitor(env), n_eval_episodes=1)


def test_a_policy_without_categories_is_no_categorical_agent():
    model, _ = model_of("base", env_of(5.0), seed=3)
    with pytest.raises(InvalidArgumentError, match="got FixedKLDistribution"):
        CategoricalAgent(model.policy)


def test_a_plain_ppo_keeps_the_actors_own_rate():
    env = env_of(400.0)
    model, agent = model_of("base", env, seed=3)
    env.bind(agent)
    model.learn(16)
    assert [group["lr"] for group in model.policy.optimizer.param_groups] == [1e-3, 3e-4]


def test_an_environment_with_its_agent_can_be_sent_to_another_process():
    env = env_of(5.0)
    _, agent = model_of("fixed KL", env, seed=3)
    env.bind(agent)
    env.reset(seed=1)  # an episode is played and cannot be copied, which does not matter
    copy = cloudpickle.loads(cloudpickle.dumps(env))
    with pytest.raises(InvalidArgumentError, match=r"call reset\(\)"):
        copy.step(np.int64(0))
    for one in (env, copy):
        one.reset(seed=2)
        one.step(np.int64(3))
    assert float(copy.ledger.spent_nats) == float(env.ledger.spent_nats) > 0
    assert env.chat.tokens.tolist() == copy.chat.tokens.tolist()
