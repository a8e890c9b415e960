import json
import math
from copy import deepcopy
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    ProgressBarCallback,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor

from llm_experiment.agent.ppo import (
    AgentStepBar,
    AgentStepBuffer,
    LockstepPPO,
    generalised_advantages,
)
from llm_experiment.agent.rollout import play_episodes
from llm_experiment.config import ConstraintConfig, Regulariser, Stage, TargetRule
from tests.llm_experiment.fakes.small_world import small_config, small_world
from theory.budget import Accounting
from theory.errors import InvalidArgumentError, InvalidBudgetError, InvalidShapeError, ResultsError

PUBLISHED = ConstraintConfig(
    budget_nats=3.0,
    accounting=Accounting.REALIZED,
    target_rule=TargetRule.PUBLISHED,
    auxiliary_coefficient=1.0,
)


def new_agent(config=None, **world) -> LockstepPPO:
    return LockstepPPO(small_world(**world), config or small_config())


def collected(config=None) -> LockstepPPO:
    """An agent that has learnt a little and holds a rollout that it has not learnt from."""
    agent = new_agent(config)
    agent.set_logger(Logger(None, []))
    agent.finish(StopAfter(updates=3))
    return agent


class StopAfter(BaseCallback):
    """Interrupts training after the rollout that follows so many updates."""

    def __init__(self, *, updates):
        super().__init__()
        self.updates = updates

    def _on_step(self):
        return self.model.n_updates < self.updates


def state(agent):
    """Everything that training changes, as NumPy arrays."""
    parameters = {n: t.numpy().copy() for n, t in agent.policy.state_dict().items()}
    for index, moments in agent.policy.optimizer.state_dict()["state"].items():
        parameters |= {f"{index}/{n}": t.numpy().copy() for n, t in moments.items()}
    return parameters


def records(agent):
    """Every update's record, in a form in which nan equals nan."""
    return json.dumps([asdict(record) for record in agent.records])


def assert_same_state(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


# ----------------------------------------------------------------- advantages and buffer


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(1.0, 1.0), (1.0, 0.95), (0.9, 0.5)])
def test_advantages_are_the_librarys_on_the_agents_steps_alone(rng, gamma, gae_lambda):
    n, t = 5, 12
    steps = rng.random((n, t)) < 0.5
    rewards, values = (np.where(steps, rng.normal(size=(n, t)), 7.0) for _ in range(2))
    ours = generalised_advantages(rewards, values, steps, gamma=gamma, gae_lambda=gae_lambda)
    env = small_world().env(small_config())
    for episode in range(n):
        own = steps[episode]
        buffer = RolloutBuffer(
            own.sum(), env.observation_space, env.action_space, "cpu", gae_lambda, gamma
        )
        buffer.rewards[:, 0] = rewards[episode, own]
        buffer.values[:, 0] = values[episode, own]
        buffer.compute_returns_and_advantage(torch.zeros(1), np.ones(1))
        np.testing.assert_allclose(ours[episode, own], buffer.advantages[:, 0], atol=1e-5)
        assert (ours[episode, ~own] == 0).all()


def test_lambda_1_is_return_minus_value(rng):
    rewards, values = rng.normal(size=(2, 3, 8))
    steps = np.ones((3, 8), dtype=bool)
    to_go = rewards[:, ::-1].cumsum(axis=1)[:, ::-1]
    advantages = generalised_advantages(rewards, values, steps, gamma=1.0, gae_lambda=1.0)
    np.testing.assert_allclose(advantages, to_go - values, atol=1e-12)


def test_an_episode_in_which_the_agent_never_acts_teaches_nothing():
    nothing = np.zeros((2, 4))
    advantages = generalised_advantages(
        nothing + 1, nothing, nothing > 0, gamma=1.0, gae_lambda=0.95
    )
    assert (advantages == 0).all()


def filled_buffer(m=10) -> AgentStepBuffer:
    env = small_world().env(small_config())
    buffer = AgentStepBuffer(2, env.observation_space, env.action_space, "cpu")
    numbers = np.arange(m) / 10
    buffer.fill(
        torch.arange(m, dtype=torch.float32)[:, None],
        np.arange(m),
        values=numbers,
        log_probs=-numbers,
        advantages=2 * numbers,
        shuffle=torch.Generator().manual_seed(0),
    )
    return buffer


def test_the_buffer_gives_every_step_once_an_epoch_in_a_new_order():
    buffer = filled_buffer()
    epochs = [torch.cat([b.actions for b in buffer.get(4)]).tolist() for _ in range(2)]
    assert [len(b.actions) for b in buffer.get(4)] == [4, 4, 2]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1]
    (everything,) = buffer.get()
    assert torch.equal(everything.observations[:, 0].long(), everything.actions)
    torch.testing.assert_close(everything.old_log_prob, -everything.old_values)
    torch.testing.assert_close(everything.returns, everything.advantages + everything.old_values)


@pytest.mark.parametrize("m", [1, 8, 9])
def test_a_last_step_that_is_alone_in_its_minibatch_is_learnt_from_too(m):
    seen = torch.cat([batch.actions for batch in filled_buffer(m).get(4)])
    assert sorted(seen.tolist()) == list(range(m))


def test_a_buffer_without_steps_or_with_unequal_ones_is_refused():
    buffer = filled_buffer()
    arrays = {"values": np.ones(2), "log_probs": np.ones(2), "advantages": np.ones(2)}
    with pytest.raises(InvalidShapeError, match="m >= 1 steps"):
        buffer.fill(torch.ones(3, 1), np.ones(2, int), shuffle=torch.Generator(), **arrays)
    buffer.reset()
    with pytest.raises(InvalidArgumentError, match="call fill"):
        next(buffer.get())


# ----------------------------------------------------------------- the update


def test_without_the_extras_an_update_is_stable_baselines3s_own():
    """The same agent, buffer and shuffle, once through each `train`."""
    config = small_config(ppo={"batch_size": 32})
    ours, theirs = collected(config), collected(config)
    before = state(ours)
    assert_same_state(before, state(theirs))
    ours.train()
    PPO.train(theirs)
    after = state(ours)
    assert_same_state(after, state(theirs))
    assert any((after[name] != before[name]).any() for name in after)


def test_micro_batches_change_an_update_by_rounding_only():
    whole, parts = collected(), collected(small_config(ppo={"micro_batch_size": 7}))
    parts.policy.load_state_dict(whole.policy.state_dict())
    parts.policy.optimizer.load_state_dict(whole.policy.optimizer.state_dict())
    (batch,) = whole.rollout_buffer.get()
    statistics = [agent._learn_from(batch) for agent in (whole, parts)]
    torch.testing.assert_close(*statistics, rtol=1e-6, atol=1e-9)
    for gradients in zip(whole.policy.parameters(), parts.policy.parameters(), strict=True):
        torch.testing.assert_close(*(p.grad for p in gradients), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "changes",
    [
        {"constraint": PUBLISHED},
        {"ppo": {"clip_actor_only": True, "max_gradient_norm": 1e-3}},
    ],
)
def test_the_extras_do_change_an_update(changes):
    plain, extra = collected(), collected(small_config(**changes))
    plain.train()
    extra.train()
    assert any((state(plain)[n] != state(extra)[n]).any() for n in state(plain))


def test_the_auxiliary_loss_is_the_squared_distance_of_the_kl_to_its_target():
    with_loss = collected(small_config(constraint=PUBLISHED))
    without = collected(small_config(constraint=replace(PUBLISHED, auxiliary_coefficient=0.0)))
    without.policy.load_state_dict(with_loss.policy.state_dict())
    (batch,) = with_loss.rollout_buffer.get()
    step = with_loss.policy.act_on(batch.observations)
    expected = ((step.kl_nats - step.target_nats) ** 2).mean().item()
    losses = [agent._loss(batch) for agent in (with_loss, without)]
    assert losses[0][0].item() - losses[1][0].item() == pytest.approx(expected, rel=1e-6)
    assert losses[0][1].auxiliary_loss.item() == pytest.approx(expected, rel=1e-9)
    assert expected > 0


def test_the_auxiliary_loss_moves_the_target_as_well_as_the_kl():
    with_loss = collected(small_config(constraint=PUBLISHED))
    without = collected(small_config(constraint=replace(PUBLISHED, auxiliary_coefficient=0.0)))
    without.policy.load_state_dict(with_loss.policy.state_dict())
    (batch,) = with_loss.rollout_buffer.get()

    def gradient(loss, agent):
        return torch.autograd.grad(loss, agent.policy.actor.weight)[0]

    step, _ = with_loss.policy.learn_on(batch.observations)
    kl, target = step.kl_nats, step.target_nats
    # By hand: (k - target)^2 has the derivative 2 (k - target) (dk - dtarget).
    by_hand = gradient((2 * (kl - target).detach() * (kl - target)).mean(), with_loss)
    added = [gradient(agent._loss(batch)[0], agent) for agent in (with_loss, without)]
    torch.testing.assert_close(added[0] - added[1], by_hand, rtol=1e-4, atol=1e-7)


def test_the_published_clipping_bounds_the_actors_gradient_and_leaves_the_critics():
    bound = 1e-3
    norms = {}
    for actor_only in (False, True):
        ppo = {"max_gradient_norm": bound, "clip_actor_only": actor_only}
        agent = collected(small_config(ppo=ppo))
        (batch,) = agent.rollout_buffer.get()
        agent._learn_from(batch)
        norms[actor_only] = {
            name: math.sqrt(sum(float(p.grad.square().sum()) for p in layer.parameters()))
            for name, layer in (("actor", agent.policy.actor), ("critic", agent.policy.critic))
        }
    assert math.hypot(*norms[False].values()) == pytest.approx(bound, rel=1e-3)
    assert norms[True]["actor"] == pytest.approx(bound, rel=1e-3)
    assert norms[True]["critic"] > 10 * bound


def test_actor_and_critic_move_at_their_own_rates():
    agent = collected(small_config(ppo={"max_gradient_norm": 1e9}))
    agent.policy.optimizer.first_rate = 1e-3
    for group in agent.policy.optimizer.param_groups:
        group["lr"] = 1e-5  # for all of them, as the library sets it
    agent.policy.optimizer.state.clear()  # Adam's first step is its rate
    before = deepcopy(agent.policy.state_dict())
    (batch,) = agent.rollout_buffer.get()
    agent._learn_from(batch)
    after = agent.policy.state_dict()
    moved = {n: float((after[n] - before[n]).abs().max()) for n in after}
    assert moved["actor.bias"] == pytest.approx(1e-3, rel=0.05)
    assert moved["critic.4.bias"] == pytest.approx(1e-5, rel=0.05)


def test_the_token_penalty_takes_the_log_ratio_from_the_rewards():
    penalty = ConstraintConfig(regulariser=Regulariser.TOKEN_PENALTY, penalty_per_nat=0.7)
    agent = collected(small_config(constraint=penalty, ppo={"gae_lambda": 1.0}))
    rollout = agent.last_rollout
    steps = rollout.agent_steps
    paid = rollout.rewards - 0.7 * rollout.log_ratio_nats
    to_go = paid[:, ::-1].cumsum(axis=1)[:, ::-1]
    np.testing.assert_allclose(agent.rollout_buffer.returns, to_go[steps], atol=1e-5)
    assert np.abs(rollout.log_ratio_nats).max() > 0.01


def test_only_the_agents_own_steps_are_learnt_from():
    agent = collected()
    rollout = agent.last_rollout
    (batch,) = agent.rollout_buffer.get()
    assert len(batch.actions) == rollout.agent_steps.sum() < rollout.agent_steps.size / 2
    assert sorted(batch.actions.tolist()) == sorted(rollout.tokens[rollout.agent_steps].tolist())


def test_the_critic_judges_each_step_by_what_the_agent_saw_there():
    agent = collected()
    rollout = agent.last_rollout
    rows = iter(rollout.kept_observations)
    expected = [
        float(agent.policy.predict_values(next(rows)[None]).detach())
        for episode in rollout.agent_steps
        for _ in range(episode.sum())
    ]
    np.testing.assert_allclose(agent.rollout_buffer.values, expected, rtol=1e-4, atol=1e-6)
    assert np.std(expected) > 0.01


# ----------------------------------------------------------------- learning


@pytest.mark.parametrize(
    "constraint",
    [
        ConstraintConfig(budget_nats=4.0),
        replace(PUBLISHED, budget_nats=4.0),
        ConstraintConfig(regulariser=Regulariser.NONE),
        ConstraintConfig(regulariser=Regulariser.TOKEN_PENALTY, penalty_per_nat=0.02),
    ],
    ids=["exact", "published", "none", "penalty"],
)
def test_an_agent_learns_to_earn_more_than_the_base_policy(constraint):
    config = small_config(
        constraint=constraint,
        stages=(Stage(agent_steps=6000, n_tokens=40),),
        n_episodes=24,
    )
    agent = new_agent(config).finish()
    first, last = agent.records[0], agent.records[-1]
    assert first.spent_nats_mean < 1e-9  # a new agent is the base policy
    assert last.return_mean > 1.25 * first.return_mean
    assert all(math.isfinite(record.auxiliary_loss) for record in agent.records)
    if constraint.accounting is Accounting.EXACT and constraint.budgeted:
        assert max(record.spent_nats_max for record in agent.records) <= 4.0 * (1 + 1e-12)


def test_with_a_budget_of_zero_nothing_but_the_critic_learns():
    agent = new_agent(small_config(constraint=ConstraintConfig(budget_nats=0.0))).finish()
    assert not agent.policy.actor.weight.any()
    assert agent.policy.critic[-1].weight.any()
    assert all(record.spent_nats_max == 0 for record in agent.records)


def test_stages_follow_one_another_with_their_lengths_and_budgets():
    stages = (Stage(agent_steps=200, n_tokens=16, ramp_fraction=1.0), Stage(agent_steps=200))
    agent = new_agent(small_config(stages=(stages[0], replace(stages[1], n_tokens=32))))
    agent.finish()
    numbers = [record.stage for record in agent.records]
    assert sorted(numbers) == numbers
    assert set(numbers) == {1, 2}
    for before, record in zip([None, *agent.records], agent.records, strict=False):
        steps = before.agent_steps if before else 0
        assert record.budget_nats == pytest.approx(min(3.0, 3.0 * steps / 200))
    assert agent.last_rollout.tokens.shape[1] == 32
    assert agent.finished
    assert agent.num_timesteps >= 400


class Watch(BaseCallback):
    """Keeps every rollout and the state of the shuffle that belongs to it."""

    def __init__(self):
        super().__init__()
        self.rollouts, self.shuffles = [], []

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        self.rollouts.append(self.model.last_rollout)
        self.shuffles.append(self.model.rollout_buffer._shuffle.initial_seed())


def test_every_update_plays_other_episodes_and_shuffles_them_in_another_order():
    agent, watch = new_agent(small_config(constraint=ConstraintConfig(budget_nats=0.0))), Watch()
    agent.finish(watch)
    assert len(watch.rollouts) == agent.n_updates > 2
    # The agent is the base policy in all of them: chance alone tells them apart.
    assert len({rollout.tokens.tobytes() for rollout in watch.rollouts}) == agent.n_updates
    assert len(set(watch.shuffles)) == agent.n_updates
    again = play_episodes(
        agent.policy,
        agent.world,
        n_episodes=8,
        n_tokens=24,
        budget_nats=0.0,
        accounting=Accounting.EXACT,
        seed=agent.config.seed,
        stream=(2,),
        keep_observations=False,
    )
    np.testing.assert_array_equal(again.tokens, watch.rollouts[2].tokens)


def test_an_agent_that_took_exactly_the_steps_of_its_stages_is_finished():
    agent = new_agent()
    for steps, finished in ((299, False), (300, True), (301, True)):
        agent.num_timesteps = steps
        assert agent.finished is finished


def test_features_are_standardised_on_the_first_rollout_and_then_left_alone():
    agent = new_agent()
    agent.finish(StopAfter(updates=0))
    features = agent.last_rollout.kept_observations[:, : agent.world.base.n_features]
    varies = features.std(0) > 0
    assert torch.equal(agent.policy.feature_mean, features.mean(0))
    scale = torch.where(varies, 1 / features.std(0), 1.0)
    assert torch.equal(agent.policy.feature_scale, scale)
    before = agent.policy.feature_mean.clone()
    agent.train()
    agent.finish()
    assert torch.equal(agent.policy.feature_mean, before)
    raw = new_agent(small_config(standardise_features=False)).finish()
    assert torch.equal(raw.policy.feature_mean, torch.zeros_like(before))


def test_the_same_seed_gives_the_same_agent_and_another_does_not(finished):
    first, again = finished, new_agent().finish()
    assert_same_state(state(first), state(again))
    assert records(first) == records(again)
    other = new_agent(small_config(seed=1)).finish()
    assert (state(other)["actor.weight"] != state(first)["actor.weight"]).any()


# ----------------------------------------------------------------- the library's own tools


def test_the_librarys_callbacks_logger_and_evaluation_work(tmp_path):
    world = small_world()
    agent = LockstepPPO(world, small_config(), tensorboard_log=tmp_path)
    evaluation = EvalCallback(
        agent.get_env(), eval_freq=1, n_eval_episodes=1, verbose=0, deterministic=False
    )
    agent.finish(evaluation)
    assert evaluation.n_calls == agent.n_updates
    assert math.isfinite(evaluation.last_mean_reward)
    assert list(tmp_path.rglob("events.out.tfevents.*"))
    mean, _ = evaluate_policy(agent, agent.get_env(), n_eval_episodes=2, deterministic=False)
    assert 0 <= mean <= 24
    with pytest.raises(InvalidArgumentError, match="pass deterministic=False"):
        evaluate_policy(agent, agent.get_env(), n_eval_episodes=1)
    with pytest.raises(InvalidBudgetError, match=r"call env\.bind\(agent\).*or env\.charge"):
        evaluate_policy(agent, Monitor(world.env(small_config())), deterministic=False)
    agent.set_env(world.env(small_config()))
    evaluate_policy(agent, agent.get_env(), n_eval_episodes=1, deterministic=False)
    free = world.env(small_config())
    free.bind(agent)
    observation, _ = free.reset(seed=0)
    free.step(agent.predict(observation)[0])
    assert 0 < float(free.ledger.spent_nats) <= 3.0


def test_the_librarys_evaluation_returns_what_the_lockstep_does(finished):
    """The same game and the same budget, so the same law of returns."""
    agent = finished
    returns, _ = evaluate_policy(
        agent,
        agent.get_env(),
        n_eval_episodes=60,
        deterministic=False,
        return_episode_rewards=True,
    )
    played = play_episodes(
        agent.policy,
        agent.world,
        n_episodes=300,
        n_tokens=24,
        budget_nats=3.0,
        accounting=Accounting.EXACT,
        seed=1,
        stream=(),
        keep_observations=False,
    ).returns
    error = math.hypot(np.std(returns) / math.sqrt(60), played.std() / math.sqrt(300))
    assert abs(np.mean(returns) - played.mean()) < 4 * error


def test_the_librarys_callbacks_count_episodes_and_save_what_can_be_loaded(tmp_path):
    agent = new_agent()
    agent.finish(
        CallbackList(
            [
                StopTrainingOnMaxEpisodes(max_episodes=10),
                CheckpointCallback(save_freq=1, save_path=str(tmp_path)),
            ]
        )
    )
    assert agent.n_updates == 1  # the second rollout's 8 episodes were too many
    saved = sorted(tmp_path.iterdir())
    assert [path.suffix for path in saved] == [".safetensors"] * 2
    loaded = LockstepPPO.load(saved[0].with_suffix(".zip"), env=agent.world.env(agent.config))
    assert loaded.config == agent.config
    assert loaded.world is agent.world
    vectorised = LockstepPPO.load(saved[0], env=agent.get_env())
    assert vectorised.world is agent.world
    with pytest.raises(InvalidArgumentError, match=r"pass world=, or as env= what World\.env"):
        LockstepPPO.load(saved[0])


def test_a_second_learn_goes_on_where_the_first_one_ended():
    config = small_config(stages=(Stage(agent_steps=600, n_tokens=24, ramp_fraction=0.9),))
    whole, parts = new_agent(config), new_agent(config)
    whole.learn(600)
    while not parts.finished:
        parts.learn(1)
    assert len(parts.records) > 2
    assert records(parts) == records(whole)
    assert_same_state(state(parts), state(whole))
    with pytest.raises(InvalidArgumentError, match=r"has taken \d+ steps, .*make a new agent"):
        parts.learn(1, reset_num_timesteps=True)


@pytest.fixture
def bars(monkeypatch):
    """Every progress bar that is shown, in order."""
    found = []
    shown = AgentStepBar._on_training_start

    def kept(self):
        shown(self)
        found.append(self.pbar)

    monkeypatch.setattr(AgentStepBar, "_on_training_start", kept)
    return found


@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")
def test_the_progress_bar_counts_the_agents_steps_and_ends_full(bars):
    agent = new_agent()
    for _ in range(2):
        before = agent.num_timesteps
        agent.learn(100, lambda *_: True, progress_bar=True)
        assert bars[-1].n == bars[-1].total == agent.num_timesteps - before >= 100


@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")
def test_the_progress_bar_of_an_agent_with_nothing_left_to_learn_ends_at_nothing(tmp_path, bars):
    agent = new_agent().finish()
    agent.save(tmp_path / "agent.safetensors")
    loaded = LockstepPPO.load(tmp_path / "agent.safetensors", world=agent.world)
    for trained in (agent, loaded):
        trained.learn(0, progress_bar=True)
        assert bars[-1].n == bars[-1].total == 0
        assert trained.finished
    before = loaded.num_timesteps
    loaded.learn(50, progress_bar=True)  # going on counts what is new
    assert bars[-1].n == bars[-1].total == loaded.num_timesteps - before >= 50


@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")
@pytest.mark.parametrize(
    "wrap", [lambda bar: bar, lambda bar: [bar], lambda bar: CallbackList([bar])]
)
def test_the_librarys_own_progress_bar_counts_the_agents_steps_too(wrap, bars):
    agent = new_agent().learn(100, wrap(ProgressBarCallback()))
    assert bars[-1].n == bars[-1].total == agent.num_timesteps >= 100


def test_the_log_has_the_last_update():
    agent = new_agent()
    dumped = []
    agent.set_logger(Logger(None, []))
    agent.logger.dump = lambda step=0: (
        dumped.append(dict(agent.logger.name_to_value)),
        agent.logger.name_to_value.clear(),
    )
    agent.finish()
    last = [values for values in dumped if "train/value_loss" in values][-1]
    assert last["train/value_loss"] == agent.records[-1].value_loss
    assert last["train/entropy_nats"] == agent.records[-1].entropy_nats


def test_a_callback_can_stop_the_training():
    agent = new_agent()
    agent.finish(StopAfter(updates=2))
    assert agent.n_updates == 2
    assert not agent.finished


# ----------------------------------------------------------------- on disk


def test_a_saved_agent_goes_on_as_if_it_had_never_stopped(finished, tmp_path):
    part = new_agent()
    part.finish(SaveAfter(tmp_path / "agent.safetensors", updates=2))
    resumed = new_agent()
    resumed.restore(tmp_path / "agent.safetensors")
    assert resumed.n_updates == 2
    resumed.finish()
    assert_same_state(state(resumed), state(finished))
    assert records(resumed) == records(finished)


class SaveAfter(BaseCallback):
    """Saves before the rollout that follows so many updates, and stops there."""

    def __init__(self, path, *, updates):
        super().__init__()
        self.path, self.updates = path, updates

    def _on_rollout_start(self):
        if self.model.n_updates == self.updates:
            self.model.save(self.path)

    def _on_step(self):
        return self.model.n_updates < self.updates


@pytest.fixture(scope="module")
def finished():
    return new_agent().finish()


@pytest.fixture
def saved(finished, tmp_path):
    """An agent and the file that it was saved in."""
    path = tmp_path / "agent.safetensors"
    finished.save(path)
    return finished, path


def test_an_agent_is_loaded_with_its_configuration(saved):
    agent, path = saved
    loaded = LockstepPPO.load(path, world=agent.world)
    assert loaded.config == agent.config
    assert records(loaded) == records(agent)
    assert_same_state(state(loaded), state(agent))


def test_a_saved_agent_is_tensors_and_json_and_nothing_that_could_run(saved):
    _, path = saved
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    json.loads(header["__metadata__"]["mightnt"])
    assert set(load_file(path)) == set(header) - {"__metadata__"}


def test_an_agent_of_another_configuration_is_refused_by_name(saved):
    _, path = saved
    other = new_agent(small_config(seed=4))
    with pytest.raises(ResultsError, match="another configuration: seed 0 and 4"):
        other.restore(path)


@pytest.mark.parametrize("damage", ["cut", "garbage", "foreign", "absent"])
def test_a_damaged_file_is_refused_in_one_line(saved, damage):
    agent, path = saved
    match damage:
        case "cut":
            path.write_bytes(path.read_bytes()[:-100])
        case "garbage":
            path.write_bytes(b"\x80\x04]" * 100)
        case "foreign":
            save_file({"x": torch.zeros(1)}, path)
        case "absent":
            path.unlink()
    with pytest.raises(ResultsError, match=r"cannot read the agent in .*agent\.safetensors"):
        LockstepPPO.load(path, world=agent.world)


def test_a_file_that_cannot_be_written_leaves_the_old_one(saved, monkeypatch):
    agent, path = saved
    before = path.read_bytes()

    def full_disk(tensors, path, metadata):
        path.write_bytes(b"half")
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("llm_experiment.agent.ppo.save_file", full_disk)
    with pytest.raises(ResultsError, match="No space left on device; free some space"):
        agent.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["agent.safetensors"]


def test_the_librarys_partial_archives_are_refused(saved):
    agent, path = saved
    with pytest.raises(InvalidArgumentError, match="saved whole"):
        agent.save(path, exclude=["policy"])
