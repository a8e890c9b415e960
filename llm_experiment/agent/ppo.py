"""Proximal policy optimisation of `FixedKLPolicy` on whole episodes played in lockstep.

This is stable-baselines3's PPO with three parts replaced. Rollouts come from
`llm_experiment.agent.rollout`: whole episodes, of which only the agent's own steps are learnt from.
The update is written anew to hold the published extras (auxiliary loss, separate learning rates,
clipping of the actor's gradient alone); without them it is the library's, to the last bit. An
agent is saved as one safetensors file with JSON in its header, never as a pickle.

With `r_t` the reward of the agent's t-th step in an episode, V the critic and
`delta_t = r_t + gamma V_{t+1} - V_t` (V = 0 after the last step), the advantage is
`A_t = sum_l (gamma lambda)^l delta_{t+l}`, and the loss of a minibatch

    -mean min(A rho, A clip(rho, 1 - c, 1 + c)) - c_H mean H(x) + c_V mean (A + V_old - V)^2
        + c_K mean (KL(x||b) - k)^2,        rho = x(action) / x_old(action),

with A normalised within the minibatch and only the last term an extra. The usual per-token
penalty enters as reward: `r_t - beta log(x/b)`, whose expected gradient is that of the KL.

Everything random in an update is a function of the seed and the update's number (see
`rollout.random_stream`), and the stage a function of the steps taken, so that a saved agent
continues exactly as it would have without the break.
"""

import json
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    ConvertCallback,
    ProgressBarCallback,
)
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, RolloutBufferSamples
from stable_baselines3.common.utils import explained_variance, get_device
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from llm_experiment.agent.few_tokens import check_acted
from llm_experiment.agent.policy import FixedKLPolicy
from llm_experiment.agent.rollout import Rollout, play_episodes, random_stream
from llm_experiment.agent.step_policy import StepPolicy
from llm_experiment.chat.gym_env import ChatEnv
from llm_experiment.chat.world import World
from llm_experiment.config import AgentConfig, ScheduleEntry, differences
from mightnt.results import from_jsonable, to_jsonable, write_atomically
from theory.errors import InvalidArgumentError, InvalidShapeError, ResultsError

HEADER: Final = "mightnt"
"""The key of our JSON in the header of a saved agent."""
ADVANTAGE_EPSILON: Final = 1e-8
"""Added to the deviation that advantages are divided by, as in stable-baselines3."""
_SHUFFLE: Final = 2
"""The stream of an update that shuffles minibatches; those of the speakers are 0 and 1."""


def generalised_advantages(
    rewards: NDArray[np.float64],
    values: NDArray[np.float64],
    steps: NDArray[np.bool_],
    *,
    gamma: float,
    gae_lambda: float,
) -> NDArray[np.float64]:
    """A_t of the agent's steps, whatever lies between them; see the module's docstring.

    Args:
        rewards: shape (n, t).
        values: the critic's, shape (n, t).
        steps: which entries are steps of the agent, shape (n, t); the others count for nothing.
        gamma: discount per step.
        gae_lambda: 1 gives the discounted return less the value.

    Returns:
        Shape (n, t), 0 at entries that are no steps.
    """
    advantages = np.zeros_like(rewards)
    next_value = np.zeros(len(rewards))
    following = np.zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * gae_lambda * following
        following = np.where(steps[:, t], advantage, following)
        next_value = np.where(steps[:, t], values[:, t], next_value)
        advantages[:, t] = np.where(steps[:, t], advantage, 0.0)
    return advantages


class AgentStepBuffer(RolloutBuffer):
    """The agent's steps of one rollout, as many as there were; filled in one go.

    Takes the constructor arguments that stable-baselines3 gives; the size means nothing here.
    """

    def reset(self) -> None:
        """Forget everything."""
        self.pos = 0
        self.full = False
        self.values = self.returns = np.empty(0, dtype=np.float32)

    def fill(
        self,
        observations: Tensor,
        actions: NDArray[np.int64],
        *,
        values: NDArray[np.float64],
        log_probs: NDArray[np.float64],
        advantages: NDArray[np.float64],
        shuffle: torch.Generator,
    ) -> None:
        """Replace the contents by m steps.

        Args:
            observations: shape (m, ...), on this buffer's device.
            actions: tokens, shape (m,).
            values: the critic's when the steps were taken, shape (m,).
            log_probs: of the actions when they were taken, shape (m,).
            advantages: shape (m,).
            shuffle: orders the minibatches; a CPU generator.

        Raises:
            InvalidShapeError: not m entries each.
        """
        shapes = [observations.shape[:1], *(a.shape for a in (actions, values, log_probs))]
        if set(map(tuple, shapes)) != {advantages.shape} or not len(advantages):
            raise InvalidShapeError(
                f"a buffer needs m >= 1 steps of everything, got shapes {shapes} and advantages "
                f"{advantages.shape}"
            )
        self.values = values.astype(np.float32)
        self.returns = (advantages + values).astype(np.float32)
        per_step = (values, log_probs, advantages, advantages + values)
        self._samples = RolloutBufferSamples(
            observations,
            torch.from_numpy(actions).to(self.device),
            *(torch.from_numpy(a).float().to(self.device) for a in per_step),
        )
        self._shuffle = shuffle
        self.pos = self.buffer_size = len(advantages)
        self.full = True

    def get(self, batch_size: int | None = None) -> Iterator[RolloutBufferSamples]:  # type: ignore[override] # the library types a generator that nobody sends to
        """All steps once, shuffled, in minibatches of `batch_size`; one of all if None.

        Raises:
            InvalidArgumentError: nothing was filled in.
        """
        if not self.full:
            raise InvalidArgumentError("the buffer is empty; call fill() first")
        order = torch.randperm(self.buffer_size, generator=self._shuffle).to(self.device)
        size = batch_size or self.buffer_size
        for start in range(0, self.buffer_size, size):
            rows = order[start : start + size]
            yield RolloutBufferSamples(*(field[rows] for field in self._samples))


@dataclass(frozen=True, kw_only=True)
class UpdateRecord:
    """What one update saw and did; means are over the rollout's episodes or the agent's steps.

    Attributes:
        update: counted from 1.
        stage: counted from 1.
        agent_steps: taken so far, over all updates.
        budget_nats: of this rollout's episodes; inf without a budget.
        return_mean: reward of an episode.
        replies_mean: rewarded replies of an episode.
        spent_nats_mean: KL of an episode.
        spent_nats_max: the largest KL of an episode.
        leak_nats_max: the most that an episode spent beyond its budget.
        empty_share: share of the agent's finished turns that are empty, pooled over episodes.
        entropy_nats: of the agent's steps, mean over the update.
        surrogate_loss: the first term of the loss, mean over the update.
        value_loss: mean squared error of the critic, mean over the update.
        auxiliary_loss: (KL(x||b) - k)^2, mean over the update, whatever its weight; 0 without k.
        update_kl_nats: estimate of KL(old policy || new policy) a step: mean of rho - 1 - log rho.
        clip_share: share of steps with rho outside the clip range, mean over the update.
        explained_variance: of the returns by the values, 1 is best; nan if returns do not vary.
    """

    update: int
    stage: int
    agent_steps: int
    budget_nats: float
    return_mean: float
    replies_mean: float
    spent_nats_mean: float
    spent_nats_max: float
    leak_nats_max: float
    empty_share: float
    entropy_nats: float
    surrogate_loss: float
    value_loss: float
    auxiliary_loss: float
    update_kl_nats: float
    clip_share: float
    explained_variance: float


class AgentStepBar(ProgressBarCallback):
    """The library's progress bar, in steps of the agent, of which a rollout may take more."""

    _steps: int = 0

    def _on_step(self) -> bool:
        taken = self.num_timesteps - self._steps
        self.pbar.total = max(self.pbar.total, self.pbar.n + taken)
        self.pbar.update(taken)
        self._steps = self.num_timesteps
        return True

    def _on_training_start(self) -> None:
        super()._on_training_start()
        self._steps = self.model.num_timesteps


def _in_agent_steps(callback: BaseCallback) -> BaseCallback:
    """The library's own bar counts calls, of which there is one a rollout: ours in its place."""
    if isinstance(callback, CallbackList):
        return CallbackList([_in_agent_steps(part) for part in callback.callbacks])
    return AgentStepBar() if type(callback) is ProgressBarCallback else callback


class LockstepPPO(PPO):
    """PPO on a `World`; see the module's docstring.

    Callbacks see one step (`on_step`) per rollout. The environment is one episode of the same
    world behind Gymnasium's interface, bound to this agent, so that the library's own tools
    (`predict`, `evaluate_policy`, `EvalCallback`) meet the budget that it is trained with. They
    have to be told `deterministic=False`, since an agent with a budget draws its tokens.

    Attributes:
        world: what is played.
        config: what everything depends on.
        records: one `UpdateRecord` an update.
        last_rollout: the episodes that the last update learnt from, None before.

    Args:
        world: what is played.
        config: how to train.
        tensorboard_log: folder of TensorBoard logs, or None.
        verbose: as in stable-baselines3.

    Raises:
        InvalidArgumentError: an actor of fewer tokens than it takes to hand over a turn.
    """

    policy: FixedKLPolicy
    rollout_buffer: AgentStepBuffer

    def __init__(
        self,
        world: World,
        config: AgentConfig,
        *,
        tensorboard_log: Path | None = None,
        verbose: int = 0,
    ) -> None:
        self.world = world
        self.config = config
        self.records: list[UpdateRecord] = []
        self.last_rollout: Rollout | None = None
        constraint, ppo, head = config.constraint, config.ppo, world.base.head
        if config.actor_tokens is not None:
            check_acted(config.actor_tokens, self._needed_tokens)
        super().__init__(
            FixedKLPolicy,
            world.env(config),
            learning_rate=ppo.critic_learning_rate,
            n_steps=ppo.batch_size,
            batch_size=ppo.batch_size,
            n_epochs=ppo.n_epochs,
            gamma=ppo.gamma,
            gae_lambda=ppo.gae_lambda,
            clip_range=ppo.clip_range,
            ent_coef=ppo.entropy_coefficient,
            vf_coef=ppo.value_coefficient,
            max_grad_norm=ppo.max_gradient_norm,
            rollout_buffer_class=AgentStepBuffer,
            stats_window_size=config.n_episodes,
            policy_kwargs={
                "actor_learning_rate": ppo.actor_learning_rate,
                "target_rule": constraint.target_rule if constraint.budgeted else None,
                "adam_epsilon": ppo.adam_epsilon,
                "head": head and head.to(get_device(config.world.agent_device)),
                "actor_form": config.actor,
                "actor_rank": config.actor_rank,
                "actor_tokens": config.actor_tokens,
            },
            tensorboard_log=None if tensorboard_log is None else str(tensorboard_log),
            verbose=verbose,
            seed=config.seed,
            device=config.world.agent_device,
        )
        self._bind()

    @property
    def _needed_tokens(self) -> tuple[int, ...]:
        """What an agent writes to hand over its turn, and to show the behaviour."""
        return (*self.world.parser.partner_opening, *self.world.phrase)

    def act_on(self, observation: Tensor) -> StepPolicy:
        """See `FixedKLPolicy.act_on`."""
        return self.policy.act_on(observation)

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Play in `env` from now on, whose budget is charged for this agent."""
        super().set_env(env, force_reset=force_reset)
        self._bind()

    def _bind(self) -> None:
        cast("VecEnv", self.env).env_method("bind", self.policy)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "PPO",
        reset_num_timesteps: bool = False,
        progress_bar: bool = False,
    ) -> "LockstepPPO":
        """Train for so many steps more of the agent, and log the last update too.

        Raises:
            InvalidArgumentError: `reset_num_timesteps` of an agent that has taken steps, on which
                its stage and its budget depend.
        """
        if reset_num_timesteps and self.num_timesteps:
            raise InvalidArgumentError(
                f"this agent has taken {self.num_timesteps} steps, on which its stage and budget "
                "depend; pass reset_num_timesteps=False to go on, or make a new agent"
            )
        callbacks = [callback] if isinstance(callback, BaseCallback) else callback or []
        if callable(callbacks):
            callbacks = [ConvertCallback(callbacks)]
        callbacks = [_in_agent_steps(part) for part in callbacks]
        if progress_bar:
            callbacks.append(AgentStepBar())
        super().learn(
            total_timesteps, callbacks, log_interval, tb_log_name, reset_num_timesteps=False
        )
        if self.logger.name_to_value:
            self.logger.dump(self.num_timesteps)
        return self

    @property
    def n_updates(self) -> int:
        """Updates done."""
        return len(self.records)

    @property
    def finished(self) -> bool:
        """Whether the last stage is over."""
        return self.num_timesteps >= self.config.total_agent_steps

    def finish(self, callback: BaseCallback | None = None) -> "LockstepPPO":
        """Train until the last stage is over, from wherever this agent stands."""
        left = self.config.total_agent_steps - self.num_timesteps
        return self.learn(max(left, 0), callback)

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """Play one rollout and fill the buffer with the agent's steps; called by `learn`."""
        del env, n_rollout_steps  # episodes are whole, and played in lockstep
        self.policy.set_training_mode(False)
        callback.on_rollout_start()
        schedule = self.config.schedule_at(self.num_timesteps)
        rollout = play_episodes(
            self.policy,
            self.world,
            n_episodes=self.config.n_episodes,
            n_tokens=schedule.stage.n_tokens,
            budget_nats=schedule.budget_nats,
            accounting=self.config.constraint.accounting,
            seed=self.config.seed,
            stream=(self.n_updates,),
            keep_observations=True,
        )
        self.last_rollout = rollout
        if self.config.standardise_features and not self.records:
            # A new agent is the base policy whatever its features are, so this changes nothing
            # of what it just did.
            features = rollout.kept_observations[:, : self.world.base.n_features]
            self.policy.standardise(features)
        if not self.records:
            self.policy.choose_tokens(rollout.kept_observations, always=self._needed_tokens)
        self._fill_buffer(rollout)
        self.num_timesteps += int(rollout.agent_steps.sum())
        self._log_episodes(rollout, schedule)
        # Callbacks of the library count episodes by what it calls `dones`.
        callback.update_locals(locals() | {"dones": np.ones(self.config.n_episodes, dtype=bool)})
        if not callback.on_step():
            return False
        callback.on_rollout_end()
        return True

    def train(self) -> None:
        """Learn from the buffer; called by `learn` after every rollout."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        seen = [
            self._learn_from(batch)
            for _ in range(self.n_epochs)
            for batch in self.rollout_buffer.get(self.batch_size)
        ]
        self._n_updates += self.n_epochs
        means = torch.stack(seen).mean(dim=0).tolist()
        learnt = dict(zip(_Statistics._fields, means, strict=True))
        learnt["explained_variance"] = float(
            explained_variance(self.rollout_buffer.values, self.rollout_buffer.returns)
        )
        for name, mean in learnt.items():
            self.logger.record(f"train/{name}", mean)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.records.append(UpdateRecord(**self._played, **learnt))

    def _learn_from(self, batch: RolloutBufferSamples) -> Tensor:
        """One step of the optimiser on a minibatch; what `_Statistics` names, shape (6,)."""
        if len(batch.advantages) > 1:
            deviation = batch.advantages.std() + ADVANTAGE_EPSILON
            batch = batch._replace(
                advantages=(batch.advantages - batch.advantages.mean()) / deviation
            )
        self.policy.optimizer.zero_grad()
        means = torch.zeros(len(_Statistics._fields), dtype=torch.float64, device=self.device)
        for part in _parts(batch, self.config.ppo.micro_batch_size):
            share = len(part.actions) / len(batch.actions)
            loss, statistics = self._loss(part)
            torch.autograd.backward(share * loss)
            means += share * torch.stack(statistics)
        actor_only = self.config.ppo.clip_actor_only
        bounded = self.policy.actor if actor_only else self.policy
        clip_grad_norm_(bounded.parameters(), self.max_grad_norm)
        self.policy.optimizer.step()
        return means

    def _loss(self, batch: RolloutBufferSamples) -> tuple[Tensor, "_Statistics"]:
        """The mean loss of some steps, their advantages normalised, and what it is made of."""
        step, values = self.policy.learn_on(batch.observations)
        log_rho = step.log_prob(batch.actions) - batch.old_log_prob
        rho = log_rho.exp()
        clip_range = self.config.ppo.clip_range
        clipped = rho.clamp(1 - clip_range, 1 + clip_range)
        surrogate = -torch.minimum(batch.advantages * rho, batch.advantages * clipped).mean()
        value_loss = functional.mse_loss(batch.returns, values)
        entropy = step.entropy_nats().mean()
        loss = surrogate - self.ent_coef * entropy + self.vf_coef * value_loss
        gap = (step.kl_nats - step.target_nats).where(step.target_nats < torch.inf, 0.0)
        auxiliary = gap.square().mean()
        if self.config.constraint.auxiliary_coefficient:
            loss = loss + self.config.constraint.auxiliary_coefficient * auxiliary
        numbers = (
            surrogate,
            value_loss,
            entropy,
            auxiliary,
            (rho - 1 - log_rho).mean(),
            ((rho - 1).abs() > clip_range).double().mean(),
        )
        return loss, _Statistics(*(number.detach().double() for number in numbers))

    def _update_learning_rate(
        self, optimizers: list[torch.optim.Optimizer] | torch.optim.Optimizer
    ) -> None:
        """Keep each group's own rate, where the library would set one for all."""
        del optimizers
        self.logger.record("train/actor_learning_rate", self.config.ppo.actor_learning_rate)
        self.logger.record("train/critic_learning_rate", self.config.ppo.critic_learning_rate)

    def _fill_buffer(self, rollout: Rollout) -> None:
        """The agent's steps, with the penalty in their rewards, as material for `train`."""
        steps = rollout.agent_steps
        ppo = self.config.ppo
        with torch.no_grad():
            estimates = self.policy.predict_values(rollout.kept_observations)
        values = np.zeros(steps.shape)
        values[steps] = estimates.flatten().double().cpu().numpy()
        penalties = self.config.constraint.penalty_per_nat * rollout.log_ratio_nats
        advantages = generalised_advantages(
            rollout.rewards - penalties,
            values,
            steps,
            gamma=ppo.gamma,
            gae_lambda=ppo.gae_lambda,
        )
        tokens = torch.from_numpy(rollout.tokens[steps]).to(self.device)
        taken = self.policy.learnable(rollout.kept_observations, tokens)
        self.rollout_buffer.fill(
            taken.rows,
            taken.symbols.cpu().numpy(),
            values=values[steps],
            log_probs=rollout.log_probs[steps] - taken.log_shares.cpu().numpy(),
            advantages=advantages[steps],
            shuffle=random_stream(self.config.seed, self.n_updates, _SHUFFLE),
        )

    def _log_episodes(self, rollout: Rollout, now: ScheduleEntry) -> None:
        """Tell the library's log, and the coming `UpdateRecord`, how the episodes went."""
        lengths = rollout.agent_steps.sum(axis=1)
        self.ep_info_buffer = deque(
            (
                {"r": float(reward), "l": int(length)}
                for reward, length in zip(rollout.returns, lengths, strict=True)
            ),
            maxlen=self._stats_window_size,
        )
        self._played: dict[str, Any] = {
            "update": self.n_updates + 1,
            "stage": now.number,
            "agent_steps": self.num_timesteps,
            "budget_nats": now.budget_nats,
            "return_mean": float(rollout.returns.mean()),
            "replies_mean": len(rollout.replies) / len(rollout.tokens),
            "spent_nats_mean": float(rollout.spent_nats.mean()),
            "spent_nats_max": float(rollout.spent_nats.max()),
            "leak_nats_max": float(rollout.leak_nats.max()),
            "empty_share": rollout.empty_share,
        }
        for name, number in self._played.items():
            self.logger.record(f"rollout/{name}", number)

    # ---------------------------------------------------------------- on disk

    def save(
        self,
        path: str | Path,  # type: ignore[override] # not to a stream: files are replaced whole
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Write this agent, its optimiser and its progress as one safetensors file, atomically.

        Args:
            path: the file; one that ends in `.zip`, as the library's `CheckpointCallback` wants
                it, ends in `.safetensors` instead, which it is.
            exclude: is for the library's archives; must be None.
            include: the same.

        Raises:
            ResultsError: the file cannot be written; what stood there before is untouched.
            InvalidArgumentError: `exclude` or `include` is given.
        """
        if exclude is not None or include is not None:
            raise InvalidArgumentError("an agent is saved whole; exclude and include must be None")
        tensors = {f"policy/{name}": t for name, t in self.policy.state_dict().items()}
        for index, state in self.policy.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": t for name, t in state.items()}
        header = {
            "config": self.config,
            "agent_steps": self.num_timesteps,
            "records": self.records,
        }
        metadata = {HEADER: json.dumps(to_jsonable(header))}
        write_atomically(_true_name(path), lambda temporary: _write(tensors, temporary, metadata))

    def restore(self, path: Path) -> None:
        """Continue from an agent that was saved under the same configuration.

        Raises:
            ResultsError: no such file, a damaged one, or an agent of another configuration.
        """
        header, tensors = _read(path)
        saved = from_jsonable(AgentConfig, header["config"])
        if saved != self.config:
            raise ResultsError(
                f"{path} holds an agent of another configuration: {differences(saved, self.config)}"
            )
        self._set(header, tensors)

    @classmethod
    def load(  # type: ignore[override] # the library's has more, for its archives
        cls, path: str | Path, env: GymEnv | None = None, *, world: World | None = None
    ) -> "LockstepPPO":
        """An agent that was saved.

        Args:
            path: the file.
            env: one that `World.env` made, or a wrapper or vector of such; the agent plays in it.
            world: what the agent is trained in; by default that of `env`.

        Raises:
            InvalidArgumentError: neither a world nor an environment of one.
            ResultsError: no such file, or a damaged one.
        """
        if world is None:
            world = _world_of(env)
        header, tensors = _read(_true_name(path))
        agent = cls(world, from_jsonable(AgentConfig, header["config"]))
        agent._set(header, tensors)
        if env is not None:
            agent.set_env(env)
        return agent

    def _set(self, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        parameters: dict[str, Tensor] = {}
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            match name.split("/"):
                case ["policy", parameter]:
                    parameters[parameter] = tensor
                case ["optimizer", index, moment]:
                    states.setdefault(int(index), {})[moment] = tensor
        self.policy.load_state_dict(parameters)
        optimizer = self.policy.optimizer
        optimizer.load_state_dict(
            {"state": states, "param_groups": optimizer.state_dict()["param_groups"]}
        )
        self.num_timesteps = header["agent_steps"]
        self.records = [from_jsonable(UpdateRecord, record) for record in header["records"]]
        self._n_updates = self.n_updates * self.n_epochs


def _true_name(path: str | Path) -> Path:
    """Where an agent is that the library calls an archive."""
    given = Path(path)
    return given.with_suffix(".safetensors") if given.suffix == ".zip" else given


def _world_of(env: GymEnv | None) -> World:
    """The world that an environment is an episode of.

    Raises:
        InvalidArgumentError: none.
    """
    found: Any = None
    if isinstance(env, VecEnv):
        found = env.get_attr("world")[0]
    elif env is not None and isinstance(env.unwrapped, ChatEnv):
        found = env.unwrapped.world
    if not isinstance(found, World):
        raise InvalidArgumentError(
            "an agent is loaded into a world; pass world=, or as env= what World.env() makes"
        )
    return found


def _parts(batch: RolloutBufferSamples, size: int) -> Iterator[RolloutBufferSamples]:
    """The steps of a minibatch, at most `size` at a time."""
    for start in range(0, len(batch.actions), size):
        yield RolloutBufferSamples(*(field[start : start + size] for field in batch))


def _write(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:  # a full disk, too
        raise OSError(str(error)) from error


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a saved agent."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()[HEADER])
            return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ResultsError(
            f"cannot read the agent in {path}: {error}; delete the file to start over"
        ) from error


class _Statistics(NamedTuple):
    """Numbers of one minibatch that `UpdateRecord` holds means of."""

    surrogate_loss: Tensor
    value_loss: Tensor
    entropy_nats: Tensor
    auxiliary_loss: Tensor
    update_kl_nats: Tensor
    clip_share: Tensor
