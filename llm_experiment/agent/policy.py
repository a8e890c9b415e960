"""The agent's policy: a proposal near the base policy, projected onto what the budget allows.

At a step the agent sees features `f` of the transcript, the share of the episode left and the
remaining budget `B` in nats; the base policy is `b`. The actor (`llm_experiment.agent.actor`), zero
at the start, maps what it sees to a residual `r` of one number a token and to a number `h`, the
*budget neuron*.
The *proposal* is `a = softmax(log b + r)`. With `s = sigmoid(h - log 16)` the step aims at

    k = s min(B, KL(a||b))        (`TargetRule.ATTAINABLE`)
    k = s B + 1e-6                (`TargetRule.PUBLISHED`)

and the *step policy* is the mixture `x = alpha a + (1 - alpha) b` with `KL(x||b) = k`, or `a`
itself where `KL(a||b) <= k` (`theory.projections`). An agent without a budget plays `a`.

Where the proposal equals the base policy, as it does everywhere at the start, every derivative of
`k` vanishes and with it, read literally, that of `x`. But `alpha` tends to `sqrt(s)` there and `x`
to the smooth `b + sqrt(s) (a - b)`, whose gradient is the one that training starts with.

Everything the policy depends on is in the observation, and one function, `FixedKLPolicy.act_on`,
maps an observation to the distribution, for acting and for learning alike. The critic's values
are needed for learning only.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from llm_experiment.agent.actor import make_actor
from llm_experiment.agent.fused import FusedFunction
from llm_experiment.base.protocol import Head
from llm_experiment.chat.lockstep import sample_tokens
from llm_experiment.chat.observation import LARGEST, N_SCALARS, Observation, unpack_observation
from llm_experiment.config import ActorForm, TargetRule
from theory.divergences import kl_nats
from theory.errors import InvalidArgumentError, InvalidShapeError
from theory.projections import fixed_kl_mixture

PUBLISHED_FLOOR_NATS: Final = 1e-6
"""The published target's floor."""
LOG_INITIAL_DIVISOR: Final = math.log(16.0)
"""A new agent's step aims at 1/17 of what it may spend."""
SHARE_BOUNDS: Final = (1e-300, 1.0 - 1e-12)
"""What s is kept within: so that its square root has a derivative, and that an exact budget also
covers the rounding of what is spent."""
LEAST_LOG: Final = -1000.0
"""e to it is 0 in float64."""
CRITIC_WIDTH: Final = 128
NO_MODE: Final = (
    "an agent with a budget must draw its tokens: always writing the likeliest one "
    "(deterministic=True) is another policy, which the budget does not bound; pass "
    "deterministic=False"
)


@dataclass(frozen=True, kw_only=True)
class StepPolicy:
    """What the agent does next in n episodes; float64, differentiable.

    Attributes:
        log_probs: log x, shape (n, n_tokens).
        base_log_probs: log b, shape (n, n_tokens).
        kl_nats: KL(x||b), shape (n,).
        target_nats: the k that was aimed at, shape (n,); infinite without a budget.
    """

    log_probs: Tensor
    base_log_probs: Tensor
    kl_nats: Tensor
    target_nats: Tensor

    def sample(self, *, generator: torch.Generator | None) -> Tensor:
        """A token for each episode, int64, shape (n,); see `lockstep.sample_tokens`.

        Args:
            generator: the randomness, on the tensors' device; torch's own one if None.
        """
        return sample_tokens(self.log_probs, generator=generator)

    def log_prob(self, tokens: Tensor) -> Tensor:
        """`log x` of `tokens`, shape (n,)."""
        return self.log_probs.gather(-1, tokens[..., None]).squeeze(-1)

    def log_ratio_nats(self, tokens: Tensor) -> Tensor:
        """`log x - log b` of `tokens`, shape (n,)."""
        return self.log_prob(tokens) - self.base_log_probs.gather(-1, tokens[..., None]).squeeze(-1)

    def entropy_nats(self) -> Tensor:
        """-sum x log x, shape (n,)."""
        # Where log x is lower x is 0, and 0 (-inf) would be NaN.
        return -(self.log_probs.exp() * self.log_probs.clamp(min=LEAST_LOG)).sum(dim=-1)


def step_policy(
    base_log_probs: Tensor,
    residual: Tensor,
    budget_neuron: Tensor,
    budget_nats: Tensor,
    *,
    rule: TargetRule | None,
) -> StepPolicy:
    """The policy of a step; see the module's docstring.

    Args:
        base_log_probs: log b, any float, -inf allowed, normalised here; shape (n, n_tokens).
        residual: r, finite, shape (n, n_tokens).
        budget_neuron: h, finite, shape (n,).
        budget_nats: what the step may spend at most, >= 0, shape (n,).
        rule: how the target is set; None for an agent without a budget, which plays `a`.

    Returns:
        The step policy. With `TargetRule.ATTAINABLE` its KL never exceeds `budget_nats` (1 +
        1e-12); with the published rule it may, by the published floor of 1e-6 nats.
    """
    log_b = base_log_probs.double().log_softmax(dim=-1)
    log_a = log_b + residual.double()
    if rule is None:
        log_a = log_a.log_softmax(dim=-1)
        kl = kl_nats(log_a, log_b, unchecked=True)
        unlimited = torch.full_like(kl, math.inf)
        return StepPolicy(log_probs=log_a, base_log_probs=log_b, kl_nats=kl, target_nats=unlimited)
    share = torch.sigmoid(budget_neuron.double() - LOG_INITIAL_DIVISOR).clamp(*SHARE_BOUNDS)
    budget = budget_nats.double()
    if rule is TargetRule.PUBLISHED:
        target = share * budget + PUBLISHED_FLOOR_NATS
        x = fixed_kl_mixture(log_a, log_b, target, unchecked=True)
    else:
        x = fixed_kl_mixture(log_a, log_b, budget, share=share, unchecked=True)
        target = x.target_nats
    return StepPolicy(
        log_probs=x.log_x, base_log_probs=log_b, kl_nats=x.kl_nats, target_nats=target
    )


_fused_step_policy: Final = FusedFunction(step_policy)
"""The same in few passes over the vocabulary."""


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
        use_sde: is handed on by stable-baselines3; must be False.
    """

    feature_mean: Tensor
    feature_scale: Tensor

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
        self.action_dist = FixedKLDistribution()
        self.actor = make_actor(
            self._actor_form,
            n_inputs=inputs,
            n_tokens=self._n_tokens,
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
        }

    def standardise(self, features: Tensor) -> None:
        """Shift and scale every feature to mean 0 and variance 1 over `features`, (m, n_features).

        A feature that does not vary is shifted only.
        """
        deviation = features.std(dim=0)
        self.feature_mean.copy_(features.mean(dim=0))
        self.feature_scale.copy_(torch.where(deviation > 0, 1 / deviation, 1.0))

    def act_on(self, observation: Tensor) -> StepPolicy:
        """The step policy in n episodes.

        Args:
            observation: rows of `pack_observation`.
        """
        return self._decide(*self._read(observation))

    def learn_on(self, observation: Tensor) -> tuple[StepPolicy, Tensor]:
        """What `act_on` says, and the critic's values, shape (n,)."""
        seen, inputs = self._read(observation)
        return self._decide(seen, inputs), self.critic(inputs).squeeze(-1)

    def forward(self, obs: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, values (n, 1) and log-probabilities, as stable-baselines3 asks for them."""
        step, values = self.learn_on(obs)
        distribution = FixedKLDistribution().proba_distribution(step)
        tokens = distribution.get_actions(deterministic=deterministic)
        return tokens, values[:, None], step.log_prob(tokens)

    def evaluate_actions(self, obs: PyTorchObs, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values (n, 1), log-probabilities of `actions`, entropies."""
        step, values = self.learn_on(_tensor(obs))
        return values[:, None], step.log_prob(actions.long().flatten()), step.entropy_nats()

    def get_distribution(self, obs: PyTorchObs) -> FixedKLDistribution:
        """The distribution of the next token."""
        return FixedKLDistribution().proba_distribution(self.act_on(_tensor(obs)))

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """Values, shape (n, 1)."""
        _, inputs = self._read(_tensor(obs))
        values: Tensor = self.critic(inputs)
        return values

    def _decide(self, seen: Observation, inputs: Tensor) -> StepPolicy:
        """The step policy, from what `_read` gives."""
        outputs = self.actor(inputs)
        log_probs = seen.log_probs
        possible = log_probs > -LARGEST  # a Box of Gymnasium's cannot hold -inf
        decide = _fused_step_policy if inputs.device.type == "cuda" else step_policy
        return decide(
            log_probs.where(possible, -math.inf),
            outputs[:, :-1],
            outputs[:, -1],
            seen.budget_nats,
            rule=self.target_rule,
        )

    def _read(self, observation: Tensor) -> tuple[Observation, Tensor]:
        """The parts of an observation, and what actor and critic make of it, (n, n_inputs)."""
        seen = unpack_observation(observation, n_tokens=self._n_tokens, head=self._head)
        features = (seen.features - self.feature_mean) * self.feature_scale
        budget = seen.budget_nats if self.target_rule else torch.zeros_like(seen.budget_nats)
        context = torch.stack([seen.fraction_left, budget], dim=-1)
        return seen, torch.cat([features, context], dim=-1)


def _tensor(observation: PyTorchObs) -> Tensor:
    if not isinstance(observation, Tensor):
        raise InvalidShapeError("FixedKLPolicy takes one flat observation, got a dictionary")
    return observation
