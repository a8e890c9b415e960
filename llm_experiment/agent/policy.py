"""The agent: actor and critic, from what it sees to the policy of a step.

At a step the agent sees features `f` of the transcript, the share of the episode left and the
remaining budget in nats. The actor (`llm_experiment.agent.actor`), zero at the start, maps these to
a residual and the budget neuron, of which `llm_experiment.agent.step_policy` makes a law of the
next token. An actor of large vocabularies may move few tokens only, and all others together
(`llm_experiment.agent.few_tokens`).

Everything the policy depends on is in the observation, and one function maps it to the
distribution, for acting and for learning alike. The critic's values are needed for learning only.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, Final

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from llm_experiment.agent.actor import make_actor
from llm_experiment.agent.few_tokens import (
    N_LUMPED,
    Learnable,
    LumpedStep,
    choose_tokens,
    learnable,
    lump,
    parts,
    spread,
)
from llm_experiment.agent.step_policy import StepPolicy, fused_step_policy, step_policy
from llm_experiment.base.protocol import Head
from llm_experiment.chat.observation import LARGEST, N_SCALARS, Observation, unpack_observation
from llm_experiment.config import ActorForm, TargetRule
from theory.errors import InvalidArgumentError, InvalidShapeError

CRITIC_WIDTH: Final = 128
NO_MODE: Final = (
    "an agent with a budget must draw its tokens: always writing the likeliest one "
    "(deterministic=True) is another policy, which the budget does not bound; pass "
    "deterministic=False"
)


class FixedKLDistribution(Distribution):
    """A `StepPolicy` as stable-baselines3 asks for it."""

    step: StepPolicy

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # the library's is not annotated

    def proba_distribution_net(self, latent_dim: int, n_tokens: int) -> nn.Module:
        """The published actor: residual and budget neuron in one layer, zero at the start."""
        return make_actor(
            ActorForm.LINEAR, n_inputs=latent_dim, n_tokens=n_tokens, rank=1, head=None
        )

    def proba_distribution(self, step: StepPolicy) -> "FixedKLDistribution":
        """This distribution, set to `step`."""
        self.step = step
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """See `StepPolicy.log_prob`."""
        return self.step.log_prob(actions.long().flatten())

    def entropy(self) -> Tensor:
        """See `StepPolicy.entropy_nats`."""
        return self.step.entropy_nats()

    def sample(self) -> Tensor:
        """A token for each row, from torch's global generator, as everywhere in this library."""
        return self.step.sample(generator=None)

    def mode(self) -> Tensor:
        """The likeliest token of each row.

        Raises:
            InvalidArgumentError: the agent has a budget. To write the likeliest token is another
                policy, at `-log b` nats a step, which the projection does not bound.
        """
        if bool(torch.isfinite(self.step.target_nats).any()):
            raise InvalidArgumentError(NO_MODE)
        return self.step.log_probs.argmax(dim=-1)

    def actions_from_params(self, step: StepPolicy, *, deterministic: bool = False) -> Tensor:
        """Tokens of the distribution `step`."""
        return self.proba_distribution(step).get_actions(deterministic=deterministic)

    def log_prob_from_params(self, step: StepPolicy) -> tuple[Tensor, Tensor]:
        """Sampled tokens of the distribution `step`, and their log-probabilities."""
        tokens = self.actions_from_params(step)
        return tokens, self.log_prob(tokens)


class TwoRateAdam(torch.optim.Adam):
    """Adam whose first group keeps its own learning rate, whatever is set for all groups.

    Args:
        groups: of parameters.
        first_rate: the first one's learning rate.
        eps: Adam's epsilon.
    """

    def __init__(self, groups: list[dict[str, Any]], *, first_rate: float, eps: float) -> None:
        super().__init__(groups, eps=eps)
        self.first_rate = first_rate

    def step(self, closure: Any = None) -> Any:
        """One step; see `torch.optim.Adam`."""
        self.param_groups[0]["lr"] = self.first_rate
        return super().step(closure)


class FixedKLPolicy(ActorCriticPolicy):
    """Actor and critic on observations as `pack_observation` makes them.

    Args:
        observation_space: a Box of shape (n_features + 2 + n_tokens,), or without the tokens where
            there is a head.
        action_space: `Discrete(n_tokens)`.
        lr_schedule: the critic's learning rate, as stable-baselines3 hands it on.
        actor_learning_rate: the actor's own.
        target_rule: how a step's target is set; None for an agent without a budget.
        adam_epsilon: Adam's epsilon.
        head: the base policy's, on this policy's device, if observations do not carry what it
            gives.
        actor_form: of the actor.
        actor_rank: its rank, if it has one.
        actor_tokens: how many tokens it moves, chosen by `choose_tokens`; all if None.
        use_sde: is handed on by stable-baselines3; must be False.
    """

    feature_mean: Tensor
    feature_scale: Tensor
    acted: Tensor | None

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        actor_learning_rate: float,
        target_rule: TargetRule | None,
        adam_epsilon: float = 1e-5,
        head: Head | None = None,
        actor_form: ActorForm = ActorForm.LINEAR,
        actor_rank: int = 64,
        actor_tokens: int | None = None,
        use_sde: bool = False,
    ) -> None:
        if not isinstance(action_space, spaces.Discrete) or not isinstance(
            observation_space, spaces.Box
        ):
            raise InvalidShapeError(
                f"FixedKLPolicy needs a Box of observations and Discrete actions, got "
                f"{observation_space} and {action_space}"
            )
        self._n_tokens = int(action_space.n)
        self._head = head
        n_carried = 0 if head else self._n_tokens
        self._n_features = int(observation_space.shape[0]) - N_SCALARS - n_carried
        if len(observation_space.shape) != 1 or self._n_features < 1:
            raise InvalidShapeError(
                f"an observation must be a vector longer than {n_carried} tokens + 2, got "
                f"shape {observation_space.shape}"
            )
        self.actor_learning_rate = actor_learning_rate
        self.target_rule = target_rule
        self._actor_form = actor_form
        self._actor_rank = actor_rank
        self._actor_tokens = actor_tokens
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=[],
            use_sde=use_sde,
            optimizer_kwargs={"eps": adam_epsilon},
        )

    def _build(self, lr_schedule: Schedule) -> None:
        """The layers, and one optimiser with a group for each; the base class calls this."""
        inputs = self._n_features + 2
        few = self._actor_tokens is not None and self._actor_tokens < self._n_tokens
        n_acted = self._actor_tokens if few else None
        self.action_dist = FixedKLDistribution()
        self.register_buffer("acted", None if n_acted is None else torch.arange(n_acted))
        self.actor = make_actor(
            self._actor_form,
            n_inputs=inputs,
            n_tokens=n_acted or self._n_tokens,
            rank=self._actor_rank,
            head=self._head,
        )
        last = nn.Linear(CRITIC_WIDTH, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.critic = nn.Sequential(
            nn.Linear(inputs, CRITIC_WIDTH),
            nn.Tanh(),
            nn.Linear(CRITIC_WIDTH, CRITIC_WIDTH),
            nn.Tanh(),
            last,
        )
        self.register_buffer("feature_mean", torch.zeros(self._n_features))
        self.register_buffer("feature_scale", torch.ones(self._n_features))
        groups: list[dict[str, Any]] = [
            {"params": list(self.actor.parameters()), "lr": self.actor_learning_rate},
            {"params": list(self.critic.parameters()), "lr": lr_schedule(1)},
        ]
        self.optimizer = TwoRateAdam(
            groups, first_rate=self.actor_learning_rate, **self.optimizer_kwargs
        )

    def _get_constructor_parameters(self) -> dict[str, Any]:
        """What `load` makes this policy from again."""
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,  # the library keeps none
            "actor_learning_rate": self.actor_learning_rate,
            "target_rule": self.target_rule,
            "adam_epsilon": self.optimizer_kwargs["eps"],
            "head": self._head,
            "actor_form": self._actor_form,
            "actor_rank": self._actor_rank,
            "actor_tokens": self._actor_tokens,
        }

    def standardise(self, features: Tensor) -> None:
        """Shift and scale every feature to mean 0 and variance 1 over `features`, (m, n_features).

        A feature that does not vary is shifted only.
        """
        deviation = features.std(dim=0)
        self.feature_mean.copy_(features.mean(dim=0))
        self.feature_scale.copy_(torch.where(deviation > 0, 1 / deviation, 1.0))

    def choose_tokens(self, observation: Tensor, *, always: Sequence[int]) -> None:
        """Let an actor of few tokens move those that were likeliest where the agent acted.

        Args:
            observation: rows of `pack_observation`.
            always: tokens to be among them: what hands over a turn.

        Raises:
            InvalidArgumentError: more of these than tokens that it moves.
        """
        if self.acted is None:
            return
        log_probs = (seen.log_probs for seen, _ in self._parts(observation))
        n_acted = len(self.acted)
        self.acted.copy_(choose_tokens(log_probs, n_acted, n_tokens=self._n_tokens, always=always))

    def act_on(self, observation: Tensor) -> StepPolicy:
        """The step policy in n episodes.

        Args:
            observation: rows of `pack_observation`.
        """
        seen, inputs = self._read(observation)
        log_b = _possible(seen.log_probs)
        if self.acted is None:
            return self._decide(log_b, inputs, seen.budget_nats)
        log_b = log_b.double().log_softmax(dim=-1)
        step = self._decide(lump(log_b, self.acted), inputs, seen.budget_nats)
        return spread(step, log_b, self.acted)

    def learnable(self, observation: Tensor, tokens: Tensor) -> Learnable:
        """Steps as `learn_on` takes them: as they were seen, or of few symbols.

        Args:
            observation: rows of `pack_observation`.
            tokens: that were taken, int64, shape (m,).
        """
        if self.acted is None:
            return Learnable(observation, tokens, torch.zeros(len(tokens), dtype=torch.float64))
        n_seen = self._n_features + N_SCALARS
        found: list[Learnable] = []
        for seen, rows in self._parts(observation):
            taken = tokens[sum(len(part.rows) for part in found) :][: len(rows)]
            log_probs = _possible(seen.log_probs)
            found.append(learnable(rows[:, :n_seen], log_probs, self.acted, taken))
        return Learnable(*(torch.cat(column) for column in zip(*found, strict=True)))

    def learn_on(self, rows: Tensor) -> tuple[StepPolicy, Tensor]:
        """The step policy of what `learnable` gives, and the critic's values, shape (n,)."""
        seen, inputs = self._read(rows, learning=True)
        values = self.critic(inputs).squeeze(-1)
        if self.acted is None:
            return self._decide(_possible(seen.log_probs), inputs, seen.budget_nats), values
        lumped, entropy = seen.carried[:, :-1], seen.carried[:, -1]
        step = self._decide(lumped, inputs, seen.budget_nats)
        numbers = {field.name: getattr(step, field.name) for field in fields(StepPolicy)}
        return LumpedStep(**numbers, rest_entropy_nats=entropy.double()), values

    def forward(self, obs: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, values (n, 1) and log-probabilities, as stable-baselines3 asks for them."""
        step = self.act_on(obs)
        distribution = FixedKLDistribution().proba_distribution(step)
        tokens = distribution.get_actions(deterministic=deterministic)
        return tokens, self.predict_values(obs), step.log_prob(tokens)

    def evaluate_actions(self, obs: PyTorchObs, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values (n, 1), log-probabilities of `actions`, entropies."""
        step = self.act_on(_tensor(obs))
        log_probs = step.log_prob(actions.long().flatten())
        return self.predict_values(obs), log_probs, step.entropy_nats()

    def get_distribution(self, obs: PyTorchObs) -> FixedKLDistribution:
        """The distribution of the next token."""
        return FixedKLDistribution().proba_distribution(self.act_on(_tensor(obs)))

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """Values, shape (n, 1)."""
        _, inputs = self._read(_tensor(obs))
        values: Tensor = self.critic(inputs)
        return values

    def _decide(self, log_b: Tensor, inputs: Tensor, budget_nats: Tensor) -> StepPolicy:
        """The step policy on all tokens, or on those that the actor moves and the rest."""
        outputs = self.actor(inputs)
        residual = outputs[:, :-1]
        if self.acted is not None:
            residual = nn.functional.pad(residual, (0, 1))
        decide = fused_step_policy if inputs.device.type == "cuda" else step_policy
        return decide(log_b, residual, outputs[:, -1], budget_nats, rule=self.target_rule)

    def _read(self, rows: Tensor, *, learning: bool = False) -> tuple[Observation, Tensor]:
        """The parts of an observation, and what actor and critic make of it, (n, n_inputs)."""
        if learning and self.acted is not None:
            seen = unpack_observation(rows, n_tokens=len(self.acted) + N_LUMPED)
        else:
            seen = unpack_observation(rows, n_tokens=self._n_tokens, head=self._head)
        features = (seen.features - self.feature_mean) * self.feature_scale
        budget = seen.budget_nats if self.target_rule else torch.zeros_like(seen.budget_nats)
        context = torch.stack([seen.fraction_left, budget], dim=-1)
        return seen, torch.cat([features, context], dim=-1)

    @torch.no_grad()
    def _parts(self, observation: Tensor) -> Iterator[tuple[Observation, Tensor]]:
        """Some observations at a time, read and as they are."""
        for rows in parts(observation, n_tokens=self._n_tokens):
            yield unpack_observation(rows, n_tokens=self._n_tokens, head=self._head), rows


def _possible(log_probs: Tensor) -> Tensor:
    """With -inf for impossible tokens, which a Box of Gymnasium's cannot hold."""
    return log_probs.where(log_probs > -LARGEST, -math.inf)


def _tensor(observation: PyTorchObs) -> Tensor:
    if not isinstance(observation, Tensor):
        raise InvalidShapeError("FixedKLPolicy takes one flat observation, got a dictionary")
    return observation
