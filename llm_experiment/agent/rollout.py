"""Episodes played in lockstep: the engine that training and evaluation share.

All episodes of a rollout have the same length and advance together, one token each per position
and one forward of the base policy per position. At a position the agent acts in some episodes and
its partner in the others; what the agent would have done in the others is never recorded.

The ledger of `theory.budget` is charged with the KL of the distribution that the agent draws
from, computed from that distribution; so under exact accounting the recorded KLs of an episode
sum to at most its budget, which `play_episodes` verifies before it returns. Where the base policy
misses mass the KL is that to the semi-distribution (`theory.missing_mass`): `-ln(1 - theta)` is a
part of it, and an agent that has not so much left asks.

Nothing here waits for the device between positions. What acting does not need waits for the end
of the episodes: replies are then found and scored in one batch, and what the critic thinks of the
observations is for the learner to ask.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm_experiment.agent.step_policy import StepPolicy
from llm_experiment.base.protocol import BaseStep, Head
from llm_experiment.chat.lockstep import LockstepChat, Reply
from llm_experiment.chat.observation import pack_observation, without_log_probs
from llm_experiment.chat.turn_records import Speaker, TurnCounts, Turns, count_turns
from llm_experiment.chat.turns import turns_between, writers_before
from llm_experiment.chat.world import World
from theory.arrays import reading_waits
from theory.budget import Accounting, BudgetLedger, open_ledger
from theory.errors import InvalidArgumentError
from theory.missing_mass import acting_cost_nats, may_act

BATCH_STREAM: Final = 2_000_000
"""Batches of episodes after the first draw from streams that nothing else draws from."""
_STEP_NUMBERS: Final = ("kl_nats", "target_nats", "log_ratio_nats", "log_probs")


class Agent(Protocol):
    """What chooses tokens: `FixedKLPolicy`, or whatever is to be evaluated in its place."""

    @property
    def device(self) -> torch.device:
        """Where observations are expected."""
        ...

    def act_on(self, observation: Tensor) -> StepPolicy:
        """The step policy in n episodes, from rows of `pack_observation`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """What n complete episodes of t tokens looked like.

    Arrays of shape (n, t) are aligned with `tokens`: entry i belongs to the step that wrote token
    i. Those about the agent's steps are 0 at every other token.

    Attributes:
        prompt_length: how many of the tokens are the starting transcript.
        tokens: the transcripts, int64, shape (n, t).
        writers: who wrote each token, a `Speaker`, int64, shape (n, t).
        kl_nats: KL of the agent's step policy to the base policy, with `-ln(1 - theta)` where it
            misses mass, shape (n, t).
        target_nats: the KL that the step aimed at, shape (n, t).
        log_ratio_nats: log(x/b) of the token taken, shape (n, t).
        log_probs: log x of the token taken, in nats, shape (n, t).
        budget_nats: the budget before each token, whoever wrote it, shape (n, t); inf without a
            budget, and the initial budget at the tokens of the prompt.
        rewards: what the reply to a step earned, at the step that handed the turn over, or the
            agent's last one before it if that was asked for, shape (n, t).
        asked: which tokens of the agent's turns the demonstrator was asked for, bool, shape
            (n, t).
        help_mass: the share of the base policy's law that the demonstrator filled, at the agent's
            steps, shape (n, t).
        stopped_at: where the episode stopped for want of somebody to ask, int64, shape (n,); t if
            it did not.
        spent_nats: the ledger's total of the KLs, shape (n,).
        leak_nats: how much of it lies beyond the initial budget, shape (n,).
        replies: the partner's replies that ended, in order of episode and time.
        reply_rewards: what each earned, shape (replies,).
        turns: all turns, of both speakers, the prompt's included.
        empty_turns: which of `turns` are turns of the agent that show the world's behaviour (the
            empty ones, for silence), shape (turns,).
        observations: what the agent saw at its steps, in order of episode and time, shape
            (agent steps, width of `pack_observation`), on the agent's device; None if not kept.
    """

    prompt_length: int
    tokens: NDArray[np.int64]
    writers: NDArray[np.int64]
    kl_nats: NDArray[np.float64]
    target_nats: NDArray[np.float64]
    log_ratio_nats: NDArray[np.float64]
    log_probs: NDArray[np.float64]
    budget_nats: NDArray[np.float64]
    rewards: NDArray[np.float64]
    asked: NDArray[np.bool_]
    help_mass: NDArray[np.float64]
    stopped_at: NDArray[np.int64]
    spent_nats: NDArray[np.float64]
    leak_nats: NDArray[np.float64]
    replies: tuple[Reply, ...]
    reply_rewards: NDArray[np.float64]
    turns: Turns
    empty_turns: NDArray[np.bool_]
    observations: Tensor | None

    @property
    def agent_steps(self) -> NDArray[np.bool_]:
        """Which tokens the agent wrote, shape (n, t); the prompt's are nobody's."""
        return np.asarray(self.turn_steps & ~self.asked)

    @property
    def turn_steps(self) -> NDArray[np.bool_]:
        """Which tokens were written in the agent's turns, by whomever, shape (n, t)."""
        at = np.arange(self.tokens.shape[1])
        played = (at >= self.prompt_length) & (at < self.stopped_at[:, None])
        return np.asarray(played & (self.writers == Speaker.AGENT))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything but the observations as named arrays, to be stored.

        Fields keep their names. Of the replies, `reply_episode` and `reply_step` say to which
        token a reward was credited, `reply_text` what was said; fields of `turns` begin with
        `turn_`.
        """
        steps = [self.prompt_length + reply.agent_step for reply in self.replies]
        own = {
            field.name: np.asarray(getattr(self, field.name))
            for field in fields(self)
            if field.name not in ("replies", "turns", "observations")
        }
        turns = {f"turn_{f.name}": np.asarray(getattr(self.turns, f.name)) for f in fields(Turns)}
        replies = {
            "reply_episode": np.array([reply.episode for reply in self.replies], dtype=np.int64),
            "reply_step": np.array(steps, dtype=np.int64),
            "reply_text": np.array([reply.text for reply in self.replies], dtype=np.str_),
        }
        return own | turns | replies

    @property
    def kept_observations(self) -> Tensor:
        """`observations`.

        Raises:
            InvalidArgumentError: they were not kept.
        """
        if self.observations is None:
            raise InvalidArgumentError("observations were not kept; play with keep_observations")
        return self.observations

    @property
    def turn_counts(self) -> TurnCounts:
        """The agent's turns that count, and the empty ones of them, episode by episode."""
        return count_turns(
            self.turns,
            self.empty_turns,
            prompt_length=self.prompt_length,
            n_episodes=len(self.tokens),
        )

    @property
    def empty_share(self) -> float:
        """Share of the agent's finished turns that are empty, pooled over episodes; nan if none.

        The prompt's turns do not count, nor does the turn that the agent continues.
        """
        return self.turn_counts.pooled_empty_share

    @property
    def returns(self) -> NDArray[np.float64]:
        """What each episode earned, shape (n,)."""
        return np.asarray(self.rewards.sum(axis=1))


def random_stream(seed: int, *path: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator at `path` (such as update 3, the partner) of everything random in a run.

    Different paths give independent streams and nothing is carried from one to the next, so a
    resumed run draws what an uninterrupted one would.
    """
    state = np.random.SeedSequence(seed, spawn_key=path).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0] >> np.uint64(1)))


def play_episodes(
    agent: Agent,
    world: World,
    *,
    n_episodes: int,
    n_tokens: int,
    budget_nats: float,
    accounting: Accounting,
    seed: int,
    stream: tuple[int, ...],
    keep_observations: bool,
) -> Rollout:
    """Play episodes to their end.

    Args:
        agent: chooses the agent's tokens.
        world: everything else.
        n_episodes: n.
        n_tokens: t, the length of every episode, the prompt included.
        budget_nats: the KL budget of an episode; inf for none.
        accounting: what a step costs it.
        seed: of the run; see `random_stream`.
        stream: the path of this rollout's randomness.
        keep_observations: whether to keep what the agent saw.

    Raises:
        InvalidBudgetError: a negative budget, or an agent that overspent an exact one.
        InvalidArgumentError: episodes that are no longer than the prompt.
    """
    device = agent.device
    chat = world.chat(
        n_episodes=n_episodes,
        n_tokens=n_tokens,
        generator=random_stream(seed, *stream, Speaker.PARTNER, device=world.base.device),
    )
    own = random_stream(seed, *stream, Speaker.AGENT, device=device)
    budget = torch.full((n_episodes,), budget_nats, dtype=torch.float64, device=device)
    ledger = open_ledger(budget, accounting=accounting)
    played = play_positions(
        agent,
        chat,
        ledger,
        generator=own,
        head=world.base.head,
        keep_observations=keep_observations,
    )
    ledger = played.ledger
    ledger.check_spending()

    kl_nats, target_nats, log_ratio_nats, log_probs = played.numbers.cpu().numpy()
    asked, help_mass = played.asked.cpu().numpy(), played.help_mass.cpu().numpy()
    writers = writers_before(chat.speakers).cpu().numpy()
    replies = chat.replies()
    reply_rewards = world.reward([reply.text for reply in replies])
    rewards = np.zeros_like(kl_nats)
    acted = (writers == Speaker.AGENT) & ~asked
    for reply, reward in zip(replies, reply_rewards, strict=True):
        rewards[reply.episode, _credited(acted, chat.prompt_length, reply)] += reward
    turns = turns_between(chat.speakers)
    return Rollout(
        prompt_length=chat.prompt_length,
        tokens=chat.tokens.cpu().numpy(),
        writers=writers,
        kl_nats=kl_nats,
        target_nats=target_nats,
        log_ratio_nats=log_ratio_nats,
        log_probs=log_probs,
        budget_nats=played.budgets_nats.cpu().numpy(),
        rewards=rewards,
        asked=asked,
        help_mass=help_mass,
        stopped_at=chat.stopped_at.cpu().numpy(),
        spent_nats=ledger.spent_nats.cpu().numpy(),
        leak_nats=ledger.leak_nats.cpu().numpy(),
        replies=replies,
        reply_rewards=reply_rewards,
        turns=turns,
        empty_turns=world.shown(turns, chat.tokens.cpu().numpy()),
        observations=played.kept_observations() if keep_observations else None,
    )


def _credited(acted: NDArray[np.bool_], prompt_length: int, reply: Reply) -> int:
    """The token to credit for a reply: the agent's last one up to the hand-over.

    The hand-over itself if it wrote none.
    """
    handed_over = prompt_length + reply.agent_step
    own = np.flatnonzero(acted[reply.episode, prompt_length : handed_over + 1])
    return prompt_length + int(own[-1]) if len(own) else handed_over


def batches(
    n_episodes: int, at_once: int, *, stream: tuple[int, ...]
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """How to play many episodes a few at a time: how many, and with which stream.

    The first batch draws from `stream` itself, as a single one would.

    Args:
        n_episodes: how many in all.
        at_once: in a batch, at most.
        stream: the path of their randomness; see `random_stream`.

    Raises:
        InvalidArgumentError: no episode, or none at once.
    """
    for name, value in (("n_episodes", n_episodes), ("at_once", at_once)):
        if value < 1:
            raise InvalidArgumentError(f"{name} must be >= 1, got {value}")
    for number, start in enumerate(range(0, n_episodes, at_once)):
        path = (*stream, BATCH_STREAM, number) if number else stream
        yield min(at_once, n_episodes - start), path


def join_rollouts(rollouts: Sequence[Rollout]) -> Rollout:
    """The episodes of several rollouts in one, in their order, without what the agent saw.

    Args:
        rollouts: at least one, which is then returned as it is; episodes of one length that share
            a prompt.
    """
    if len(rollouts) == 1:
        return rollouts[0]
    offsets = np.cumsum([0, *(len(rollout.tokens) for rollout in rollouts[:-1])])
    numbered = list(zip(rollouts, offsets.tolist(), strict=True))
    turns = [
        replace(rollout.turns, episode=rollout.turns.episode + offset)
        for rollout, offset in numbered
    ]
    joined = {
        field.name: np.concatenate([getattr(rollout, field.name) for rollout in rollouts])
        for field in fields(Rollout)
        if field.name not in ("prompt_length", "replies", "turns", "observations")
    }
    return Rollout(
        **joined,
        prompt_length=rollouts[0].prompt_length,
        replies=tuple(
            replace(reply, episode=reply.episode + offset)
            for rollout, offset in numbered
            for reply in rollout.replies
        ),
        turns=Turns(
            **{f.name: np.concatenate([getattr(t, f.name) for t in turns]) for f in fields(Turns)}
        ),
        observations=None,
    )


@dataclass(frozen=True, kw_only=True)
class PlayedPositions:
    """What `play_positions` recorded of n episodes of t tokens, on the agent's device.

    Attributes:
        ledger: at the end of the episodes.
        numbers: what `_STEP_NUMBERS` names, 0 where the agent did not act, shape (4, n, t).
        budgets_nats: before each token, shape (n, t).
        asked: where the agent asked, shape (n, t).
        help_mass: filled by the demonstrator, 0 where the agent did not act, shape (n, t).
        observations: for each position, what the agent was shown, one row an episode of `rows`.
        rows: the episodes that it was shown, for each position.
        acting: in which of these it acted, for each position.
    """

    ledger: BudgetLedger
    numbers: Tensor
    budgets_nats: Tensor
    asked: Tensor
    help_mass: Tensor
    observations: list[Tensor]
    rows: list[Tensor]
    acting: list[Tensor]

    def kept_observations(self) -> Tensor:
        """What the agent saw where it acted, in order of episode and time."""
        order = torch.cat(self.rows).argsort(stable=True)
        return torch.cat(self.observations)[order[torch.cat(self.acting)[order]]]


@torch.inference_mode()
def play_positions(
    agent: Agent,
    chat: LockstepChat,
    ledger: BudgetLedger,
    *,
    generator: torch.Generator,
    head: Head | None,
    keep_observations: bool,
) -> PlayedPositions:
    """Play from where `chat` stands to its end, without waiting for a device.

    In which episodes the agent acts, the device knows. Where asking it waits for nothing the
    others are left out; elsewhere the agent decides in all, and what it would have done in the
    others is not recorded.

    Args:
        agent: chooses the agent's tokens.
        chat: the episodes.
        ledger: their budgets, on the agent's device.
        generator: the agent's randomness, on its device.
        head: the base policy's, if observations need not carry what it gives.
        keep_observations: whether to keep what the agent is shown.
    """
    device, base_device = agent.device, chat.tokens.device
    n_episodes, n_tokens = len(chat.tokens), chat.n_positions
    dense = torch.zeros(
        (len(_STEP_NUMBERS), n_episodes, n_tokens), dtype=torch.float64, device=device
    )
    budgets = ledger.remaining_nats[:, None].repeat(1, n_tokens)
    asked = torch.zeros((n_episodes, n_tokens), dtype=torch.bool, device=base_device)
    help_mass = torch.zeros((n_episodes, n_tokens), dtype=torch.float64, device=base_device)
    # Log-probabilities are at hand; another device would have to wait for them.
    carries = head is not None and device == base_device
    everyone = torch.arange(n_episodes, device=base_device)
    observations: list[Tensor] = []
    shown: list[Tensor] = []
    acting: list[Tensor] = []
    while not chat.done:
        t = chat.position
        missing = chat.base_step.missing_mass
        remaining = ledger.remaining_nats.to(base_device)
        able = may_act(missing, remaining, unchecked=True)
        surcharge = acting_cost_nats(missing, unchecked=True).where(able, 0.0)
        acts, asks = chat.agent_acts & able, chat.agent_acts & ~able
        asked[:, t] = asks
        if chat.base_step.help_mass is not None:
            help_mass[:, t] = chat.base_step.help_mass.double().where(acts, 0.0)
        rows = everyone if reading_waits(acts) else acts.nonzero().squeeze(-1)
        budgets[:, t] = ledger.remaining_nats
        tokens = torch.zeros(n_episodes, dtype=torch.int64, device=base_device)
        if len(rows):
            observation = pack_observation(
                _of_rows(chat.base_step, rows),
                fraction_left=chat.fraction_left,
                budget_nats=(remaining - surcharge)[rows].clamp(min=0.0),
                head=None if carries else head,
            ).to(device)
            step = agent.act_on(observation)
            chosen = step.sample(generator=generator)
            tokens[rows] = chosen.to(base_device)
            where, acted = rows.to(device), acts[rows].to(device)
            extra = surcharge[rows].to(device)
            dense[:, where, t] = _step_numbers(step, chosen, extra).where(acted, 0.0)
            if keep_observations:
                observations.append(
                    without_log_probs(observation, n_tokens=chat.base_step.log_probs.shape[-1])
                    if carries
                    else observation
                )
                shown.append(where)
                acting.append(acted)
        ledger = ledger.charge(
            kl_nats=dense[0, :, t], log_ratio_nats=dense[2, :, t], unchecked=True
        )
        chat.step(tokens, asks=asks)
    return PlayedPositions(
        ledger=ledger,
        numbers=dense,
        budgets_nats=budgets,
        asked=asked,
        help_mass=help_mass,
        observations=observations,
        rows=shown,
        acting=acting,
    )


def _of_rows(step: BaseStep, rows: Tensor) -> BaseStep:
    """The base policy's prediction in some of the episodes."""
    return BaseStep(
        log_probs=step.log_probs[rows],
        features=step.features[rows],
        missing_mass=step.missing_mass[rows],
    )


def _step_numbers(step: StepPolicy, tokens: Tensor, surcharge_nats: Tensor) -> Tensor:
    """What `_STEP_NUMBERS` names, shape (4, m).

    Args:
        step: what the agent drew from.
        tokens: what it drew, shape (m,).
        surcharge_nats: `-ln(1 - theta)` of the base policy, shape (m,).
    """
    kl = step.kl_nats + surcharge_nats
    log_ratio = step.log_ratio_nats(tokens) + surcharge_nats
    return torch.stack([kl, step.target_nats, log_ratio, step.log_prob(tokens)])
