"""Any policy of stable-baselines3 with a categorical distribution, as who acts in a `ChatEnv`.

Such a policy knows of no budget and projects nothing. Bound to an environment with a budget it
plays until a step would cost more than remains, and that step is refused.
"""

from typing import Any

import torch
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor

from llm_experiment.agent.policy import NO_MODE
from llm_experiment.agent.step_policy import StepPolicy
from llm_experiment.base.protocol import Head
from llm_experiment.chat.observation import LARGEST, unpack_observation
from theory.divergences import kl_nats
from theory.errors import InvalidArgumentError


class SampledCategorical(CategoricalDistribution):
    """A categorical distribution that is drawn from, and nothing else."""

    def mode(self) -> Tensor:
        """Refused: see `FixedKLDistribution.mode`."""
        raise InvalidArgumentError(NO_MODE)


class CategoricalAgent:
    """The step policy of a policy on observations as `pack_observation` makes them.

    Args:
        policy: of stable-baselines3, with a categorical distribution over the tokens. From now
            on it refuses `deterministic=True`, whose cost nobody would be charged for.
        head: the base policy's, on the policy's device, if observations do not carry what it
            gives.

    Raises:
        InvalidArgumentError: another kind of distribution.
    """

    def __init__(self, policy: ActorCriticPolicy, *, head: Head | None = None) -> None:
        if not isinstance(policy.action_dist, CategoricalDistribution):
            raise InvalidArgumentError(
                "a CategoricalAgent needs a policy with a CategoricalDistribution, got "
                f"{type(policy.action_dist).__name__}; bind a FixedKLPolicy as it is"
            )
        policy.action_dist = SampledCategorical(policy.action_dist.action_dim)
        self._policy = policy
        self._head = head

    @property
    def device(self) -> torch.device:
        """The policy's."""
        return self._policy.device

    def act_on(self, observation: Tensor) -> StepPolicy:
        """The step policy in n episodes; see `FixedKLPolicy.act_on`. Nothing is aimed at."""
        categorical: Any = self._policy.get_distribution(observation).distribution
        log_x = categorical.logits.double().log_softmax(dim=-1)
        seen = unpack_observation(observation, n_tokens=log_x.shape[-1], head=self._head)
        log_b = seen.log_probs
        log_b = log_b.where(log_b > -LARGEST, -torch.inf).double().log_softmax(dim=-1)
        kl = kl_nats(log_x, log_b, unchecked=True)
        return StepPolicy(
            log_probs=log_x,
            base_log_probs=log_b,
            kl_nats=kl,
            target_nats=torch.full_like(kl, torch.inf),
        )
