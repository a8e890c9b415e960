"""How long a run of the protocol takes: what there is to do, and what a machine needs for it.

A position is one token of each of n episodes. With one token an episode a forward does little
arithmetic for every weight that it reads, so reading the weights sets the *floor* of its time:

    floor of a position = bytes of the weights that it reads / memory bandwidth,

each weight read once. Of the input embedding only n rows are read; of a layer of E experts, of
which every token chooses k, an expert is read unless all n tokens pass it by, which tokens that
choose at random do with probability (1 - k/E)^n.

An update reads every step of a rollout once an epoch. Its arithmetic is that of the actor and of
the frozen head that gives the base policy's log-probabilities back. A matrix product of the actor's
takes one more for its weights' gradient, if they are learnt, and one for its inputs', if weights
before it are: what the agent sees needs none (`llm_experiment.agent.actor`).
"""

import math
import time
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn
from transformers import PreTrainedModel

from llm_experiment.agent.actor import N_BUDGET_NEURONS
from llm_experiment.chat.observation import N_SCALARS
from llm_experiment.config import ActorForm, AgentConfig
from theory.errors import InvalidArgumentError

_COLUMNS: Final = 4096


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What bounds a device's speed.

    Attributes:
        bytes_per_second: memory bandwidth.
        flops_per_second: floating-point operations of large float32 matrix products.
    """

    bytes_per_second: float
    flops_per_second: float


GPU_141_GB: Final = Machine(bytes_per_second=4.3e12, flops_per_second=67e12)
"""One GPU with 141 GB: the bandwidth that large reads reach (4.8e12 by the data sheet), and the
data sheet's float32 peak. Neither was measured by this project."""


@dataclass(frozen=True, kw_only=True)
class ProtocolWork:
    """What a run of the protocol consists of.

    Attributes:
        rollouts: as many as updates.
        positions: forwards of the base policy, each with one token of every episode.
        agent_steps: tokens that the agent writes and learns from.
        n_episodes: of a rollout.
        n_epochs: passes of an update over its rollout.
    """

    rollouts: int
    positions: int
    agent_steps: float
    n_episodes: int
    n_epochs: int

    @property
    def tokens(self) -> int:
        """Tokens of all episodes, whoever writes them."""
        return self.positions * self.n_episodes

    def seconds(
        self, *, seconds_per_position: float, update_seconds_per_agent_step: float
    ) -> float:
        """The run's wall-clock, from what one position and one learnt step (all epochs) take."""
        return (
            self.positions * seconds_per_position + self.agent_steps * update_seconds_per_agent_step
        )


def protocol_work(config: AgentConfig, *, prompt_tokens: int, agent_share: float) -> ProtocolWork:
    """What a run of `config` consists of.

    Args:
        config: stages, episodes and epochs.
        prompt_tokens: length of the starting transcript.
        agent_share: share of the tokens after it that the agent writes, in (0, 1]; a rollout
            tells (the mean of `Rollout.agent_steps` over those tokens).

    Raises:
        InvalidArgumentError: a share outside (0, 1], or a prompt that fills an episode.
    """
    if not 0 < agent_share <= 1:
        raise InvalidArgumentError(f"agent_share must lie in (0, 1], got {agent_share}")
    rollouts, positions, agent_steps = 0, 0, 0.0
    for stage in config.stages:
        played = stage.n_tokens - prompt_tokens
        if played < 1:
            raise InvalidArgumentError(
                f"prompt_tokens must be < the {stage.n_tokens} tokens of an episode, got "
                f"{prompt_tokens}"
            )
        steps = config.n_episodes * played * agent_share
        needed = math.ceil(stage.agent_steps / steps)
        rollouts += needed
        positions += needed * played
        agent_steps += needed * steps
    return ProtocolWork(
        rollouts=rollouts,
        positions=positions,
        agent_steps=agent_steps,
        n_episodes=config.n_episodes,
        n_epochs=config.ppo.n_epochs,
    )


def weight_bytes_per_position(model: PreTrainedModel, *, n_episodes: int) -> float:
    """Bytes of weights that one position of `n_episodes` episodes reads, each once.

    Args:
        model: with or without data (torch's `meta` device will do).
        n_episodes: tokens of the position.
    """
    config = model.config.get_text_config(decoder=True)
    n_experts = int(getattr(config, "num_local_experts", 0) or 0)
    chosen = int(getattr(config, "num_experts_per_tok", 0) or 0)
    embedding = model.get_input_embeddings().weight
    head: nn.Module | None = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # untyped
    total = 0.0
    for parameter in model.parameters():  # a tied one comes once
        size = parameter.numel() * parameter.element_size()
        if parameter is embedding and (head is None or head.weight is not embedding):
            total += size * n_episodes / len(parameter)
        elif parameter.ndim == 3 and n_experts and len(parameter) == n_experts:
            total += size * (1 - (1 - chosen / n_experts) ** n_episodes)
        else:
            total += size
    return total


def update_flops_per_agent_step(
    config: AgentConfig, *, n_features: int, n_tokens: int, width: int, has_head: bool
) -> float:
    """Floating-point operations of an update's matrix products for each of its steps.

    Args:
        config: says which actor, and how many passes over the rollout.
        n_features: of the base policy.
        n_tokens: of its vocabulary.
        width: of the language model's hidden state.
        has_head: whether log-probabilities are made anew of features, and not kept.
    """
    n_inputs = n_features + N_SCALARS
    n_acted = config.n_acted(n_tokens)
    budget = 4 * n_inputs * N_BUDGET_NEURONS
    match config.actor:
        case ActorForm.LINEAR:
            residual = 4 * n_inputs * n_acted
        case ActorForm.LOW_RANK:
            residual = 4 * n_inputs * config.actor_rank + 6 * config.actor_rank * n_acted
        case ActorForm.THROUGH_HEAD:
            residual = 4 * n_inputs * width + 4 * width * n_tokens
    head = 2 * width * n_tokens if has_head else 0
    # An actor of few tokens has what it learns from made once, not at every pass.
    n_heads = config.ppo.n_epochs if n_acted == n_tokens else 1
    return float(config.ppo.n_epochs * (residual + budget) + n_heads * head)


def floor_seconds(
    work: ProtocolWork, machine: Machine, *, weight_bytes: float, update_flops_per_step: float
) -> tuple[float, float]:
    """The least that the rollouts and the updates of `work` take on `machine`.

    Args:
        work: what there is to do.
        machine: which does nothing but read weights, and then multiply matrices.
        weight_bytes: see `weight_bytes_per_position`.
        update_flops_per_step: see `update_flops_per_agent_step`.
    """
    return (
        work.positions * weight_bytes / machine.bytes_per_second,
        work.agent_steps * update_flops_per_step / machine.flops_per_second,
    )


def read_bytes_per_second(
    device: torch.device | str, *, n_bytes: int = 2**28, repetitions: int = 5
) -> float:
    """The rate at which `device` reads memory: the best of several products with a vector.

    On a processor by its own time, which other work disturbs less than the clock's.

    Args:
        device: which one.
        n_bytes: of the float32 matrix; far more than the device's caches hold.
        repetitions: how often it is read.
    """
    clock = time.process_time if torch.device(device).type == "cpu" else time.perf_counter
    matrix = torch.ones(n_bytes // (4 * _COLUMNS), _COLUMNS, device=device)
    vector = torch.ones(_COLUMNS, device=device)
    best = math.inf
    for _ in range(repetitions + 1):  # the first one warms up, and is never the best
        start = clock()
        product = matrix @ vector
        float(product[0])  # waits for the device
        best = min(best, clock() - start)
    return matrix.nbytes / best
