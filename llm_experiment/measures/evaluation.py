r"""What an agent does: its episodes, token by token, and its distance from the demonstrator.

An evaluation plays fresh episodes and keeps everything. Where the base model was trained here on a
known process tau (`llm_experiment.dialogue.process`), it also says how far the agent leaves it. Two
facts shape what is measured. A softmax gives every token some probability and tau gives many
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
projected to; the base policy's own episodes are evaluated as those of an agent, `BasePolicy`.

**Stored.** `Evaluation.arrays` names the arrays of `episodes-<length>.npz`: those of
`llm_experiment.agent.rollout.Rollout.arrays`, which are, per token, shape (n, t): `tokens`,
`writers` (-1 nobody, 0 agent, 1 student), `kl_nats` (the conditional KL of the agent's step),
`target_nats`, `log_ratio_nats` (realised), `log_probs`, `budget_nats` and `rewards`, and per
episode, turn or reply what is documented there; and, with a known demonstrator, those of
`Departure`. `Evaluation.row` gives the numbers of `result.json`, defined one by one in `METRICS`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm_experiment.agent.policy import StepPolicy
from llm_experiment.agent.rollout import Agent, Rollout, batches, join_rollouts, play_episodes
from llm_experiment.agent.scripts import Say, play_script
from llm_experiment.chat.observation import unpack_observation
from llm_experiment.chat.turns import Speaker, Turns
from llm_experiment.chat.world import World
from llm_experiment.config import PROCESS, TINY, WorldConfig
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import load_task
from theory.budget import Accounting
from theory.divergences import kl_nats
from theory.errors import InvalidArgumentError, InvalidShapeError, ModelError

Floats = NDArray[np.float64]

SMOOTHINGS: Final = (1e-1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8)
"""The d of `KL(pi || (1-d) tau + d uniform)`."""
N_EMPTY_TURNS: Final = 20
"""Empty turns of an episode whose prices are reported, the first ones."""
N_GRAMS: Final = (1, 2, 3)
"""The n of the repetition of n-grams."""
SILENT_ABOVE: Final = 0.5
"""An episode is silent if more than this share of the agent's finished turns is empty."""
CURVE_SHARES: Final = (0.25, 0.5, 0.75, 1.0)
"""Where, as shares of the tokens played, the support's survival is reported."""
BUDGET_TOLERANCE: Final = 1e-12
"""Relative excess over the budget that is rounding (see `theory.budget`)."""
_QUARTILES: Final = (25.0, 50.0, 75.0)
_CHUNK: Final = 4096
_OWN_STREAM: Final = 2
"""Keeps the base policy's episodes apart from those of agents of the same stream."""

METRICS: Final[dict[str, str]] = {
    "n_episodes": "Episodes played with this agent, its training over.",
    "return_mean": "Reward of an episode, summed over its finished replies; mean over episodes.",
    "reply_reward_mean": "Reward of a finished reply, pooled over episodes.",
    "spent_nats_mean": (
        "Sum over the agent's steps of the KL of its step policy to the base policy, computed "
        "from the distributions; mean over episodes. Estimates the KL of the whole episode."
    ),
    "log_ratio_nats_mean": (
        "Sum of log(pi/b) of the tokens drawn; mean over episodes. The same expectation as "
        "`spent_nats_mean`, with more variance: a check on it."
    ),
    "spent_nats_max": "The largest sum of KLs of any episode.",
    "over_budget_share": (
        f"Share of episodes whose KLs sum to more than the budget times 1 + {BUDGET_TOLERANCE:g}. "
        "0 under exact accounting, whatever the agent does; nan without a budget."
    ),
    "leak_nats_mean": "KL spent beyond the budget (at least 0 an episode); mean over episodes.",
    "leak_nats_max": "The same, of the worst episode.",
    "turns_mean": "Turns that the agent opened after the prompt and finished; mean over episodes.",
    "empty_share": (
        "Share of those turns that are empty (no more tokens than separator and name need), "
        "pooled over episodes. Flatters: silent episodes have more turns."
    ),
    "empty_share_per_episode": "The same share within an episode; mean over episodes with a turn.",
    "empty_any_share": "Share of episodes with at least one empty turn.",
    "silent_share": (
        f"Share of episodes in which more than {SILENT_ABOVE:.0%} of the agent's finished turns "
        "are empty."
    ),
    "empty_turn_kl_nats": (
        "For i = 1, 2, ...: quartiles (25, 50, 75%) of the sum of KLs over the tokens of an "
        "episode's i-th empty turn, and the number of episodes that have one."
    ),
    "empty_turn_surprise_nats": (
        "The same for -log b summed over the turn's tokens: how improbable the base policy "
        "thought the turn, whatever the agent paid."
    ),
    "distinct_n_grams": (
        f"For n = {', '.join(map(str, N_GRAMS))}: distinct n-grams over all n-grams within the "
        "agent's turns of an episode; mean over episodes with one."
    ),
    "possible_shares": (
        "Share of episodes whose tokens so far, whoever wrote them, all have tau > 0, after "
        f"{', '.join(f'{share:.0%}' for share in CURVE_SHARES)} of the tokens played."
    ),
    "agent_left_share": "Share of episodes whose first impossible token the agent wrote.",
    "student_left_share": "The same for the student (the base policy makes mistakes, too).",
    "exit_probability": (
        "Outside mass summed over the agent's steps up to the first impossible token; mean over "
        "episodes. The expectation of `agent_left_share`, with less variance."
    ),
    "outside_mass": "Outside mass of a step, mean over the agent's steps up to that token.",
    "base_outside_mass": "The base policy's outside mass at the same steps.",
    "smoothed_kl_nats": (
        "KL(pi || (1-d) tau + d uniform) summed over the agent's steps up to the first "
        f"impossible token; mean over episodes, for d = {', '.join(f'{d:g}' for d in SMOOTHINGS)}."
    ),
    "smoothed_kl_nats_per_step": "The same, mean over those steps.",
    "base_smoothed_kl_nats_per_step": "The same with the base policy in place of pi.",
}
"""What each number of `Evaluation.row` is and how it is estimated."""

ANYWHERE: Final = (-math.inf, math.inf)
RANGES: Final[dict[str, tuple[float, float]]] = dict.fromkeys(
    (
        "over_budget_share",
        "empty_share",
        "empty_share_per_episode",
        "empty_any_share",
        "silent_share",
        "distinct_n_grams",
        "possible_shares",
        "agent_left_share",
        "student_left_share",
        "exit_probability",
        "outside_mass",
        "base_outside_mass",
    ),
    (0.0, 1.0),
) | dict.fromkeys(
    (
        "spent_nats_mean",
        "spent_nats_max",
        "leak_nats_mean",
        "leak_nats_max",
        "turns_mean",
        "empty_turn_kl_nats",
        "empty_turn_surprise_nats",
        "smoothed_kl_nats",
        "smoothed_kl_nats_per_step",
        "base_smoothed_kl_nats_per_step",
    ),
    (0.0, math.inf),
)
"""Where numbers of `METRICS` lie by their definition; the others may lie `ANYWHERE`."""


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


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Episodes of one agent and what was measured on them.

    Attributes:
        rollout: the episodes.
        budget_nats: of an episode; inf for none.
        departure: from the demonstrator, None if that is not known.
    """

    rollout: Rollout
    budget_nats: float
    departure: Departure | None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Named arrays to be stored; see the module's docstring."""
        arrays = self.rollout.arrays()
        if self.departure is not None:
            arrays |= {f.name: getattr(self.departure, f.name) for f in fields(Departure)}
        return arrays

    def row(self) -> dict[str, Any]:
        """The numbers of `METRICS`; those about the demonstrator only if it is known."""
        row = spending(self.rollout, self.budget_nats) | behaviour(self.rollout)
        if self.departure is not None:
            row |= departure_numbers(self.departure, self.rollout)
        return row


class BasePolicy:
    """The base policy as an agent: plays b, spends nothing.

    Args:
        world: it plays in.
    """

    def __init__(self, world: World) -> None:
        self._n_tokens = world.base.n_tokens
        self._head = world.base.head
        self.device = world.base.device

    def act_on(self, observation: Tensor) -> StepPolicy:
        """See `rollout.Agent`."""
        seen = unpack_observation(observation, n_tokens=self._n_tokens, head=self._head)
        log_b = seen.log_probs.double().log_softmax(dim=-1)
        nothing = torch.zeros(len(log_b), dtype=torch.float64, device=log_b.device)
        return StepPolicy(
            log_probs=log_b, base_log_probs=log_b, kl_nats=nothing, target_nats=nothing
        )


def known_demonstrator(config: WorldConfig, world: World) -> DialogueProcess | None:
    """The process that the base model learnt from or is, if known and if it could begin the prompt.

    Args:
        config: says which base model, task and prompt.
        world: made from it.

    Raises:
        ModelError: the shipped models learnt from another version of the task.
    """
    if config.base_model not in (TINY, PROCESS):
        return None
    process = DialogueProcess(load_task(config.task))
    try:
        prompt = process.encode(process.task.prompt if config.prompt is None else config.prompt)
    except InvalidArgumentError:  # a prompt with words of its own
        return None
    same_size = len(process.vocabulary) == world.base.n_tokens
    if not (same_size and prompt.tolist() == world.prompt_tokens.tolist()):
        raise ModelError(
            f"the shipped models of task {config.task!r} have another vocabulary than the task; "
            f"train them again with `python -m llm_experiment.tiny_models --task {config.task}`"
        )
    return process if process.read(prompt[None]).possible[0] else None


def evaluate(
    agent: Agent,
    world: World,
    *,
    process: DialogueProcess | None,
    n_episodes: int,
    n_tokens: int,
    budget_nats: float,
    accounting: Accounting,
    seed: int,
    stream: tuple[int, ...],
    at_once: int | None = None,
) -> Evaluation:
    """Play episodes and measure them.

    Args:
        agent: whose.
        world: where.
        process: the demonstrator, if known (`known_demonstrator`).
        n_episodes: n.
        n_tokens: t, the length of every episode, the prompt included.
        budget_nats: the KL budget of an episode; inf for none.
        accounting: what a step costs it.
        seed: of the run; see `rollout.random_stream`.
        stream: the path of this evaluation's randomness.
        at_once: episodes that are played together at most, which bounds memory; all if None.

    Raises:
        InvalidBudgetError, InvalidArgumentError: as `play_episodes` does.
        InvalidShapeError: a process of another vocabulary.
    """
    if process is not None and len(process.vocabulary) != world.base.n_tokens:
        raise InvalidShapeError(
            f"the demonstrator has {len(process.vocabulary)} tokens and the base policy "
            f"{world.base.n_tokens}; evaluate against the process that the base model learnt from"
        )
    rollouts, departures = [], []
    at_once = n_episodes if at_once is None else at_once
    for n_together, path in batches(n_episodes, at_once, stream=stream):
        rollout = play_episodes(
            agent,
            world,
            n_episodes=n_together,
            n_tokens=n_tokens,
            budget_nats=budget_nats,
            accounting=accounting,
            seed=seed,
            stream=path,
            keep_observations=process is not None,
        )
        if process is not None:
            departures.append(measure_departure(agent, rollout, process))
        rollouts.append(
            rollout if n_together == n_episodes else replace(rollout, observations=None)
        )
    return Evaluation(
        rollout=join_rollouts(rollouts),
        budget_nats=budget_nats,
        departure=join_departures(departures) if departures else None,
    )


@dataclass(frozen=True, kw_only=True)
class BaseEvaluation:
    """The base policy, for comparison with every agent of a run.

    Attributes:
        rows: `Evaluation.row` of `BasePolicy`, with the length as `n_tokens`, one a length.
        n_contexts: in how many dialogues the first silence was priced; those that were long
            enough. The next two are None if there was none.
        first_silence_nats: quartiles over them of `first_silence_prices_nats`.
        first_silence_probability: p of the closed form (`closed_form_probability`).
    """

    rows: tuple[dict[str, Any], ...]
    n_contexts: int
    first_silence_nats: tuple[float, ...] | None
    first_silence_probability: float | None


def evaluate_base(
    world: World,
    *,
    process: DialogueProcess | None,
    n_episodes: int,
    lengths: Sequence[int],
    seed: int,
    stream: int,
    store: Callable[[int, Evaluation], None],
    at_once: int | None = None,
) -> BaseEvaluation:
    """Evaluate the base policy at some lengths, and price the first silence.

    Args:
        world: where.
        process: the demonstrator, if known.
        n_episodes: at each length.
        lengths: of the episodes, in tokens; the price is taken in episodes of the shortest.
        seed: of the run.
        stream: the first part of the path of all randomness of this evaluation.
        store: called with each length and its episodes.
        at_once: episodes that are played together at most, which bounds memory; also the number of
            contexts in which silence is priced. All if None.

    Raises:
        InvalidArgumentError: as `play_episodes` does, or no length.
    """
    if not lengths:
        raise InvalidArgumentError("lengths must name at least 1 episode length, got none")
    rows = []
    for n_tokens in lengths:
        evaluation = evaluate(
            BasePolicy(world),
            world,
            process=process,
            n_episodes=n_episodes,
            n_tokens=n_tokens,
            budget_nats=0.0,
            accounting=Accounting.EXACT,
            seed=seed,
            stream=(stream, n_tokens, _OWN_STREAM),
            at_once=at_once,
        )
        store(n_tokens, evaluation)
        rows.append({"n_tokens": n_tokens} | evaluation.row())
    prices = first_silence_prices_nats(
        world,
        n_episodes=n_episodes if at_once is None else min(n_episodes, at_once),
        n_tokens=min(lengths),
        seed=seed,
        stream=(stream,),
    )
    priced = len(prices) > 0
    return BaseEvaluation(
        rows=tuple(rows),
        n_contexts=len(prices),
        first_silence_nats=tuple(np.percentile(prices, _QUARTILES).tolist()) if priced else None,
        first_silence_probability=closed_form_probability(prices) if priced else None,
    )


# --------------------------------------------------------------------- the demonstrator


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
    impossible = np.isneginf(written)
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
    masses, nats = [], []
    for tensor in (step.log_probs, step.base_log_probs):
        log_p = tensor.cpu().numpy()
        masses.append(np.where(outside, np.exp(log_p), 0.0).sum(axis=-1))
        nats.append(
            [
                kl_nats(
                    log_p,
                    np.logaddexp(math.log1p(-d) + log_tau, math.log(d / n_tokens)),
                    unchecked=True,
                )
                for d in SMOOTHINGS
            ]
        )
    return np.array(masses), np.array(nats)


def departure_numbers(departure: Departure, rollout: Rollout) -> dict[str, Any]:
    """The numbers of `METRICS` about the demonstrator."""
    n, t = rollout.tokens.shape
    first = departure.first_impossible
    played = t - rollout.prompt_length
    ends = [rollout.prompt_length + round(share * played) for share in CURVE_SHARES]
    left = first < t
    agents = rollout.agent_steps[np.arange(n), np.minimum(first, t - 1)]
    n_steps = int(departure.n_steps.sum())

    def per_step(total: Any) -> Any:
        return total / n_steps if n_steps else math.nan * total

    return {
        "possible_shares": [float((first >= end).mean()) for end in ends],
        "agent_left_share": float((left & agents).mean()),
        "student_left_share": float((left & ~agents).mean()),
        "exit_probability": float(departure.outside_mass.sum() / n),
        "outside_mass": float(per_step(departure.outside_mass.sum())),
        "base_outside_mass": float(per_step(departure.base_outside_mass.sum())),
        "smoothed_kl_nats": departure.smoothed_kl_nats.mean(axis=1).tolist(),
        "smoothed_kl_nats_per_step": per_step(departure.smoothed_kl_nats.sum(axis=1)).tolist(),
        "base_smoothed_kl_nats_per_step": per_step(
            departure.base_smoothed_kl_nats.sum(axis=1)
        ).tolist(),
    }


# --------------------------------------------------------------------- the behaviour


def spending(rollout: Rollout, budget_nats: float) -> dict[str, Any]:
    """The numbers of `METRICS` about reward and budget."""
    over = rollout.spent_nats > budget_nats * (1 + BUDGET_TOLERANCE)
    rewards = rollout.reply_rewards
    return {
        "n_episodes": len(rollout.tokens),
        "return_mean": float(rollout.returns.mean()),
        "reply_reward_mean": float(rewards.mean()) if len(rewards) else math.nan,
        "spent_nats_mean": float(rollout.spent_nats.mean()),
        "log_ratio_nats_mean": float(rollout.log_ratio_nats.sum(axis=1).mean()),
        "spent_nats_max": float(rollout.spent_nats.max()),
        "over_budget_share": math.nan if math.isinf(budget_nats) else float(over.mean()),
        "leak_nats_mean": float(rollout.leak_nats.mean()),
        "leak_nats_max": float(rollout.leak_nats.max()),
    }


def behaviour(rollout: Rollout) -> dict[str, Any]:
    """The numbers of `METRICS` about turns and words."""
    turns, n = rollout.turns, len(rollout.tokens)
    own = agent_turns(turns, prompt_length=rollout.prompt_length)
    finished = np.bincount(turns.episode[own], minlength=n)
    empty = np.bincount(turns.episode[own & rollout.empty_turns], minlength=n)
    spoke = finished > 0
    share = empty[spoke] / finished[spoke]
    surprise = rollout.log_ratio_nats - rollout.log_probs
    return {
        "turns_mean": float(finished.mean()),
        "empty_share": rollout.empty_share,
        "empty_share_per_episode": float(share.mean()) if spoke.any() else math.nan,
        "empty_any_share": float((empty > 0).mean()),
        "silent_share": float((empty > SILENT_ABOVE * finished).mean()),
        "empty_turn_kl_nats": _empty_turn_quartiles(rollout, own, rollout.kl_nats),
        "empty_turn_surprise_nats": _empty_turn_quartiles(rollout, own, surprise),
        "distinct_n_grams": [
            distinct_n_grams(rollout.tokens, rollout.agent_steps, n) for n in N_GRAMS
        ],
    }


def agent_turns(turns: Turns, *, prompt_length: int) -> NDArray[np.bool_]:
    """Which turns count: those that the agent opened after the prompt and finished, (turns,)."""
    own = (turns.speaker == Speaker.AGENT) & turns.finished
    return np.asarray(own & (turns.opened >= prompt_length))


def empty_turn_costs(
    rollout: Rollout, own: NDArray[np.bool_], nats: Floats
) -> list[NDArray[np.float64]]:
    """`nats` summed over the tokens of the i-th empty turn, over episodes that have one.

    Args:
        rollout: the episodes.
        own: which turns count, shape (turns,).
        nats: shape (n, t).

    Returns:
        For i = 1 to at most `N_EMPTY_TURNS`, an array of shape (episodes with an i-th one,).
    """
    turns = rollout.turns
    chosen = np.flatnonzero(own & rollout.empty_turns)
    before = np.concatenate([np.zeros((len(nats), 1)), np.cumsum(nats, axis=1)], axis=1)
    episode = turns.episode[chosen]
    costs = before[episode, turns.closed[chosen] + 1] - before[episode, turns.opened[chosen] + 1]
    starts = np.searchsorted(episode, episode)  # the turns are in order of episode and time
    number = np.arange(len(chosen)) - starts
    found = (costs[number == i] for i in range(N_EMPTY_TURNS))
    return [cost for cost in found if len(cost)]


def _empty_turn_quartiles(
    rollout: Rollout, own: NDArray[np.bool_], nats: Floats
) -> list[list[float]]:
    """Quartiles and number of episodes for the i-th empty turn, i = 1, 2, ..."""
    return [
        [*np.percentile(cost, _QUARTILES).tolist(), len(cost)]
        for cost in empty_turn_costs(rollout, own, nats)
    ]


def distinct_n_grams(tokens: NDArray[np.int64], chosen: NDArray[np.bool_], n: int) -> float:
    """Distinct n-grams over all n-grams, of runs of chosen tokens; mean over episodes.

    Args:
        tokens: shape (episodes, t).
        chosen: which tokens count, shape (episodes, t); an n-gram is n of them in a row.
        n: at least 1.

    Returns:
        In (0, 1]; nan if no episode has an n-gram.
    """
    if n < 1:
        raise InvalidArgumentError(f"n must be >= 1, got {n}")
    if tokens.shape[1] < n:
        return math.nan
    windows = np.lib.stride_tricks.sliding_window_view(tokens, n, axis=1)
    whole = np.asarray(np.lib.stride_tricks.sliding_window_view(chosen, n, axis=1).all(axis=-1))
    shares = [
        len(np.unique(grams[inside], axis=0)) / inside.sum()
        for grams, inside in zip(windows, whole, strict=True)
        if inside.any()
    ]
    return float(np.mean(shares)) if shares else math.nan


# --------------------------------------------------------------------- the closed form


def first_silence_prices_nats(
    world: World, *, n_episodes: int, n_tokens: int, seed: int, stream: tuple[int, ...]
) -> Floats:
    """`-log b` of an empty turn where the agent could first choose one, in n dialogues.

    The base policy plays the turn that the prompt begins, its student replies, and then the agent
    is silent: that turn's price, the hand-over included, in nats. An empty turn is spelt in one
    way only, so that with a tokenizer that knows several this is an upper bound.

    Returns:
        Shape (m,), m <= n: one for each dialogue that has such a turn before it ends.
    """
    played = play_script(
        world,
        Say(()),
        n_episodes=n_episodes,
        n_tokens=n_tokens,
        free_turns=1,
        n_turns=1,
        seed=seed,
        stream=stream,
    )
    costs = played.costs_nats[:, 0]
    return np.asarray(costs[np.isfinite(costs)])


def closed_form_probability(prices_nats: Sequence[float] | Floats) -> float:
    """The p of the closed form: exp(-median price) of the first silence, over contexts.

    An agent that buys silence once, at a context where it has probability p under b, reaches with
    a budget of B nats the share q with `KL(Bern q || Bern p) = B` (`theory.bounds.largest_share`).
    This predicts the share of silent episodes if one purchase makes an episode silent and no
    second context is bid at; it is a prediction, not a bound.

    Raises:
        InvalidArgumentError: no price.
    """
    if not len(prices_nats):
        raise InvalidArgumentError("no dialogue was long enough for a silent turn; lengthen them")
    return math.exp(-float(np.median(prices_nats)))
