r"""How far an agent leaves the known demonstrator tau that the base model learnt from.

Two facts shape what is measured. A softmax gives every token some probability and tau gives many
exactly none, so `KL(pi||tau)` is infinite for the agent *and* for the base policy, and by itself
says nothing. And once a transcript is impossible under tau, tau says nothing of the rest. So, with
T the first token that is impossible under tau (whoever wrote it), everything is measured up to T:

- the share of episodes with `T > t`, by t;
- the *outside mass* of a step, `sum of pi(x|h) over x with tau(x|h) = 0`. Summed over the agent's
  steps up to T its mean is the probability that the agent is the one who leaves tau's support
  (with less variance than counting who left);
- `KL(pi || (1-d) tau + d uniform)` of a step for some d > 0, summed up to T. By the chain rule the
  mean is the KL between the laws of the transcript stopped at T, over the agent's choices; for
  d -> 0 it grows as the outside mass times `log 1/d`. A policy that leaves early has fewer steps
  to sum, so the mean over steps stands beside the sum.

Each is computed for the agent and, at the same steps, for the base policy `b` that it was
projected to.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm_experiment.agent.rollout import Agent, Rollout
from llm_experiment.chat.world import World, demonstrator_of
from llm_experiment.config import WorldConfig
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.measures.metrics import CURVE_SHARES, SMOOTHINGS, DepartureNumbers
from theory.divergences import kl_nats
from theory.errors import ModelError

Floats = NDArray[np.float64]

_CHUNK: Final = 4096
"""Steps whose laws are compared at a time."""


@dataclass(frozen=True, kw_only=True)
class Departure:
    """How n episodes of t tokens leave a known demonstrator tau; see the module's docstring.

    Attributes:
        possible: the transcript before a token is possible under tau, shape (n, t).
        demonstrator_log_probs: `log tau` of the token written, in nats, shape (n, t); -inf where
            it or one before it is impossible.
        outside_mass: of the agent's step policy, shape (n, t); 0 but at the agent's steps up to
            the first impossible token, as are the others.
        base_outside_mass: of the base policy, shape (n, t).
        smoothed_kl_nats: summed over an episode's steps, for each of `SMOOTHINGS`, shape (d, n).
        base_smoothed_kl_nats: of the base policy, shape (d, n).
        n_steps: how many steps were summed over, shape (n,).
        first_impossible: index of the first impossible token, t if there is none, shape (n,).
    """

    possible: NDArray[np.bool_]
    demonstrator_log_probs: Floats
    outside_mass: Floats
    base_outside_mass: Floats
    smoothed_kl_nats: Floats
    base_smoothed_kl_nats: Floats
    n_steps: NDArray[np.int64]
    first_impossible: NDArray[np.int64]


def known_demonstrator(config: WorldConfig, world: World) -> DialogueProcess | None:
    """The process that the base model learnt from or is, if known; see `world.demonstrator_of`.

    Args:
        config: says which base model, task and prompt.
        world: made from it.

    Raises:
        ModelError: the shipped models learnt from another version of the task.
    """
    process = demonstrator_of(config, world.prompt_tokens)
    if process is not None and len(process.vocabulary) != world.base.n_tokens:
        raise ModelError(
            f"the shipped models of task {config.task!r} have another vocabulary than the task; "
            f"train them again with `python -m llm_experiment.tiny_models --task {config.task}`"
        )
    return process


@torch.no_grad()
def measure_departure(agent: Agent, rollout: Rollout, process: DialogueProcess) -> Departure:
    """How episodes leave the demonstrator.

    Args:
        agent: who played them.
        rollout: the episodes, their observations kept.
        process: tau.

    Raises:
        InvalidArgumentError: the observations were not kept.
    """
    seen, steps = rollout.kept_observations, rollout.agent_steps
    tokens = rollout.tokens
    log_tau = process.predictive_log_probs(tokens)
    written = np.take_along_axis(log_tau, tokens[..., None], axis=-1)[..., 0]
    # What stands after an episode has stopped was written by nobody.
    lasted = np.arange(tokens.shape[1]) < rollout.stopped_at[:, None]
    impossible = np.isneginf(written) & lasted
    possible = np.concatenate(
        [np.ones_like(impossible[:, :1]), ~np.logical_or.accumulate(impossible, axis=1)[:, :-1]],
        axis=1,
    )
    measured = steps & possible
    within = possible[steps]
    rows = log_tau[measured]
    masses = np.zeros((2, *tokens.shape))
    smoothed = np.zeros((2, len(SMOOTHINGS), *tokens.shape))
    kept = seen[torch.from_numpy(np.flatnonzero(within)).to(seen.device)]
    found = [
        _against(agent, kept[i : i + _CHUNK], rows[i : i + _CHUNK])
        for i in range(0, len(rows), _CHUNK)
    ]
    if found:
        masses[:, measured] = np.concatenate([mass for mass, _ in found], axis=-1)
        smoothed[:, :, measured] = np.concatenate([nats for _, nats in found], axis=-1)
    sums = smoothed.sum(axis=-1)
    return Departure(
        possible=possible,
        demonstrator_log_probs=written,
        outside_mass=masses[0],
        base_outside_mass=masses[1],
        smoothed_kl_nats=sums[0],
        base_smoothed_kl_nats=sums[1],
        n_steps=measured.sum(axis=1),
        first_impossible=np.where(
            impossible.any(axis=1), impossible.argmax(axis=1), tokens.shape[1]
        ),
    )


def join_departures(departures: Sequence[Departure]) -> Departure:
    """The departures of several rollouts in one, in their order.

    Args:
        departures: at least one.
    """
    joined = {}
    for field in fields(Departure):
        parts = [getattr(departure, field.name) for departure in departures]
        by_smoothing = field.name in ("smoothed_kl_nats", "base_smoothed_kl_nats")
        joined[field.name] = np.concatenate(parts, axis=1 if by_smoothing else 0)
    return Departure(**joined)


def _against(agent: Agent, observations: Tensor, log_tau: Floats) -> tuple[Floats, Floats]:
    """Outside mass, (2, m), and smoothed KL, (2, d, m), of the agent and its base at m steps."""
    step = agent.act_on(observations)
    outside = np.isneginf(log_tau)
    n_tokens = log_tau.shape[-1]
    smoothed = [np.logaddexp(math.log1p(-d) + log_tau, math.log(d / n_tokens)) for d in SMOOTHINGS]

    def measure(log_probs: Tensor) -> tuple[Floats, list[Floats]]:
        log_p = log_probs.cpu().numpy()
        mass = np.where(outside, np.exp(log_p), 0.0).sum(axis=-1)
        return mass, [kl_nats(log_p, log_q, unchecked=True) for log_q in smoothed]

    own = measure(step.log_probs)
    # The base policy as an agent is its own base.
    bases = own if step.log_probs is step.base_log_probs else measure(step.base_log_probs)
    return np.array([own[0], bases[0]]), np.array([own[1], bases[1]])


def departure_numbers(departure: Departure, rollout: Rollout) -> DepartureNumbers:
    """What a departure amounts to."""
    n, t = rollout.tokens.shape
    first = departure.first_impossible
    played = t - rollout.prompt_length
    ends = [rollout.prompt_length + round(share * played) for share in CURVE_SHARES]
    left = first < t
    agents = rollout.agent_steps[np.arange(n), np.minimum(first, t - 1)]
    n_steps = int(departure.n_steps.sum())

    def per_step(total: Any) -> Any:
        return total / n_steps if n_steps else math.nan * total

    base_per_step = per_step(departure.base_smoothed_kl_nats.sum(axis=1))
    return DepartureNumbers(
        possible_shares=tuple(float((first >= end).mean()) for end in ends),
        agent_left_share=float((left & agents).mean()),
        student_left_share=float((left & ~agents).mean()),
        exit_probability=float(departure.outside_mass.sum() / n),
        outside_mass=float(per_step(departure.outside_mass.sum())),
        base_outside_mass=float(per_step(departure.base_outside_mass.sum())),
        smoothed_kl_nats=tuple(departure.smoothed_kl_nats.mean(axis=1).tolist()),
        smoothed_kl_nats_per_step=tuple(per_step(departure.smoothed_kl_nats.sum(axis=1)).tolist()),
        base_smoothed_kl_nats_per_step=tuple(base_per_step.tolist()),
    )
