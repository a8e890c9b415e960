"""The chat: an agent writes the Teacher's tokens, the base policy writes the Student's.

An episode is one transcript of a fixed number of tokens, the prompt included. While the agent has
the turn it writes the next token; while its partner has, the base policy does, at the student's
temperature. A reply that has not ended after `TurnRules.max_reply_tokens` tokens is cut off by
forcing the agent's name. Who has the turn is for `llm_experiment.chat.turns` to say.

A reply earns its reward when it ends, that is when the agent's name and colon after it are
complete, and the reward belongs to the agent's step that the reply answers: its last step before
the reply. A reply that the end of the episode cuts short earns nothing, as published.

`LockstepChat` plays many episodes with one forward of the base policy per position. `ChatEnv` is
the same for one episode behind Gymnasium's interface; its step is a step of the agent. Neither
knows an agent: what a step's distribution costs, the agent's side says.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from llm_experiment.base.hugging_face import BaseModel, BaseStep, Head, check_start
from llm_experiment.chat.turn_records import Speaker
from llm_experiment.chat.turns import TurnParser, turns_between
from theory.budget import Accounting, BudgetLedger, open_ledger
from theory.errors import InvalidArgumentError, InvalidShapeError

N_SCALARS: Final = 2
"""Numbers of an observation besides features and log-probabilities."""
LARGEST: Final = float(np.finfo(np.float32).max)
"""Stands for infinity in a Gymnasium observation."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What the agent sees in n episodes.

    Attributes:
        features: of the base policy, shape (n, n_features).
        fraction_left: the share of the episode's tokens still to come, shape (n,).
        budget_nats: the remaining budget, shape (n,).
        carried: log-probabilities of the base policy, in nats, shape (n, n_tokens); none, (n, 0),
            where the head gives them.
        head: the base policy's, or None.
    """

    features: Tensor
    fraction_left: Tensor
    budget_nats: Tensor
    carried: Tensor
    head: Head | None

    @property
    def log_probs(self) -> Tensor:
        """Of the base policy, in nats, shape (n, n_tokens); a head makes them whenever asked."""
        return self.carried if self.head is None else self.head(self.features)


def pack_observation(
    step: BaseStep,
    *,
    fraction_left: float | Tensor,
    budget_nats: Tensor,
    head: Head | None = None,
) -> Tensor:
    """One row of numbers for each of n episodes: the fields of `Observation`, in order.

    Args:
        step: the base policy's prediction.
        fraction_left: one number, or shape (n,).
        budget_nats: shape (n,); rounded down, so that nobody who spends what is seen here can
            overspend the ledger that it comes from.
        head: the base policy's, if observations need not carry log-probabilities.

    Returns:
        float32, shape (n, n_features + 2 + n_tokens), or (n, n_features + 2) with a head.
    """
    scalars = step.features.new_empty(len(step.features), N_SCALARS)
    scalars[:, 0] = fraction_left
    nearest = budget_nats.to(scalars)
    below = torch.nextafter(nearest, torch.zeros_like(nearest))
    scalars[:, 1] = torch.where(nearest.double() > budget_nats.to(nearest.device), below, nearest)
    parts = [step.features, scalars, *(() if head else (step.log_probs,))]
    return torch.cat(parts, dim=-1)


def unpack_observation(
    observation: Tensor, *, n_tokens: int, head: Head | None = None
) -> Observation:
    """The parts of rows that `pack_observation` made, as views.

    Raises:
        InvalidShapeError: rows too short for so many tokens.
    """
    n_carried = 0 if head else n_tokens
    n_features = observation.shape[-1] - N_SCALARS - n_carried
    if observation.ndim != 2 or n_features < 0:
        raise InvalidShapeError(
            f"observations must have shape (n, n_features + {N_SCALARS} + {n_carried}), got "
            f"{tuple(observation.shape)}"
        )
    return Observation(
        features=observation[:, :n_features],
        fraction_left=observation[:, n_features],
        budget_nats=observation[:, n_features + 1],
        carried=observation[:, n_features + N_SCALARS :],
        head=head,
    )


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A reply of the partner that has ended.

    Attributes:
        episode: in which episode.
        agent_step: the index, counted from 0 in calls of `LockstepChat.advance`, of the agent's
            step to credit: it wrote the colon after the partner's name.
        tokens: what the partner wrote, the separator and the agent's name included.
        text: what it said, without them.
    """

    episode: int
    agent_step: int
    tokens: tuple[int, ...]
    text: str


class LockstepChat:
    """Episodes played together, one token of each at a time.

    Args:
        base: the base policy, which is also the partner.
        parser: of the base policy's tokenizer.
        prompt_tokens: the starting transcript, int64, shape (p,); it leaves the agent the turn.
        n_episodes: n.
        n_positions: tokens of an episode, the prompt included.
        student_temperature: at which the partner's tokens are sampled.
        generator: the partner's randomness, on the base policy's device.

    Attributes:
        base_step: what the base policy says of the next token.
        position: tokens of every episode so far, the prompt included.
        prompt_length: how many of them are the prompt.
        n_positions: how many there will be.

    Raises:
        InvalidArgumentError: a prompt without the speakers' names, that leaves the turn to the
            partner, or no shorter than the episode; a temperature not above 0; a parser of
            another vocabulary.
    """

    def __init__(
        self,
        base: BaseModel,
        parser: TurnParser,
        prompt_tokens: Tensor,
        *,
        n_episodes: int,
        n_positions: int,
        student_temperature: float,
        generator: torch.Generator,
    ) -> None:
        check_chat(base, parser, prompt_tokens, n_episodes=n_episodes, n_positions=n_positions)
        if not 0 < student_temperature < math.inf:
            raise InvalidArgumentError(
                f"student_temperature must be > 0 and finite, got {student_temperature}"
            )
        self.n_positions = n_positions
        self.prompt_length = len(prompt_tokens)
        self.position = self.prompt_length
        self._parser = parser
        self._temperature = student_temperature
        self._generator = generator
        self._forced = torch.tensor(parser.agent_opening, device=base.device)
        self._session, self.base_step = base.begin(
            prompt_tokens, n_episodes=n_episodes, n_positions=n_positions
        )
        self._tokens = prompt_tokens.new_zeros(n_episodes, n_positions)
        self._tokens[:, : self.position] = prompt_tokens
        self._turn = parser.read(self.tokens)
        self._speakers = torch.empty_like(self._tokens)
        self._speakers[:, : self.position] = parser.speakers(self.tokens)

    @property
    def tokens(self) -> Tensor:
        """The transcripts so far, int64, shape (n, position)."""
        return self._tokens[:, : self.position]

    @property
    def speakers(self) -> Tensor:
        """Who has the turn after each of them, a `Speaker`, int64, shape (n, position)."""
        return self._speakers[:, : self.position]

    @property
    def agent_acts(self) -> Tensor:
        """In which episodes the next token is the agent's, bool, shape (n,)."""
        return self._turn.speaker == Speaker.AGENT

    @property
    def fraction_left(self) -> float:
        """The share of the episode's tokens still to come."""
        return 1.0 - self.position / self.n_positions

    @property
    def done(self) -> bool:
        """Whether the episodes are complete."""
        return self.position == self.n_positions

    def advance(self, agent_tokens: Tensor) -> tuple[Reply, ...]:
        """One more token of every episode, and the replies that it ends.

        Args:
            agent_tokens: the agent's choices, int64, shape (n,); read where `agent_acts`.

        Raises:
            InvalidShapeError: not one token an episode.
            InvalidArgumentError: the episodes are complete.
        """
        before = self._turn
        ended = self.step(agent_tokens)
        return tuple(
            self._reply(episode, opened=int(before.opened[episode]), closed=self.position - 1)
            for episode in ended.nonzero().flatten().tolist()
        )

    def step(self, agent_tokens: Tensor) -> Tensor:
        """`advance` without waiting for the device to look at what it did.

        Returns:
            In which episodes a reply ended, bool, shape (n,).
        """
        if self.done:
            raise InvalidArgumentError(
                f"the episodes are complete at {self.n_positions} tokens; start a new chat"
            )
        if agent_tokens.shape != self._turn.line.shape:
            raise InvalidShapeError(
                f"agent_tokens must have shape {tuple(self._turn.line.shape)}, got "
                f"{tuple(agent_tokens.shape)}"
            )
        agent_acts = self.agent_acts
        tokens = torch.where(agent_acts, agent_tokens, self._partner_tokens())
        self._tokens[:, self.position] = tokens
        self.base_step = self._session.append(tokens, agent_wrote=agent_acts)
        self._turn = self._parser.advance(self._turn, tokens)
        self._speakers[:, self.position] = self._turn.speaker
        self.position += 1
        return self.agent_acts & ~agent_acts

    def replies(self) -> tuple[Reply, ...]:
        """All replies so far that have ended, in order of episode and time."""
        turns = turns_between(self.speakers)
        ended = (turns.speaker == Speaker.PARTNER) & turns.finished
        new = ended & (turns.opened >= self.prompt_length)
        found = zip(turns.episode[new], turns.opened[new], turns.closed[new], strict=True)
        return tuple(
            self._reply(int(episode), opened=int(opened), closed=int(closed))
            for episode, opened, closed in found
        )

    def _partner_tokens(self) -> Tensor:
        """What the partner says next: a sample, or the next token that is forced; shape (n,)."""
        logits = self.base_step.log_probs / self._temperature
        sampled = sample_tokens(logits, generator=self._generator)
        written = self.position - 1 - self._turn.opened
        excess = written - self._parser.rules.max_reply_tokens
        forced = self._forced[excess.clamp(0, len(self._forced) - 1)]
        return torch.where(excess >= 0, forced, sampled)

    def _reply(self, episode: int, *, opened: int, closed: int) -> Reply:
        tokens = self._tokens[episode, : closed + 1].tolist()
        return Reply(
            episode=episode,
            agent_step=opened - self.prompt_length,
            tokens=tuple(tokens[opened + 1 :]),
            text=self._parser.turn_text(tokens, opened=opened, closed=closed),
        )


def sample_tokens(logits: Tensor, *, generator: torch.Generator | None) -> Tensor:
    """A draw from softmax(logits) for each row; a token with logit -inf is never drawn.

    By inversion, with one uniform number a row: the first token at which the cumulative mass is
    above the number times the total. Both are float64, whose largest uniform number below 1 keeps
    that product below the total.

    Args:
        logits: shape (n, n_tokens), in every row one above -inf.
        generator: the randomness, on the same device; torch's own one if None.

    Returns:
        int64, shape (n,).
    """
    cumulative = logits.double().softmax(dim=-1).cumsum(dim=-1)
    uniform = torch.rand(
        (len(logits), 1), dtype=torch.float64, device=logits.device, generator=generator
    )
    return torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True).squeeze(-1)


def check_chat(
    base: BaseModel,
    parser: TurnParser,
    prompt_tokens: Tensor,
    *,
    n_episodes: int,
    n_positions: int,
) -> None:
    """Raise unless `prompt_tokens` can start a chat; see `LockstepChat`.

    The parser is moved to the base policy's device.
    """
    if parser.n_tokens != base.n_tokens:
        raise InvalidArgumentError(
            f"the parser knows {parser.n_tokens} tokens and the base policy {base.n_tokens}; make "
            "the parser with n_tokens = base.n_tokens"
        )
    check_start(
        prompt_tokens, n_episodes=n_episodes, n_positions=n_positions, n_tokens=base.n_tokens
    )
    turns = parser.to(base.device).find_turns(prompt_tokens[None])
    for name, speaker in (
        (parser.rules.partner, Speaker.PARTNER),
        (parser.rules.agent, Speaker.AGENT),
    ):
        if speaker not in turns.speaker:
            raise InvalidArgumentError(
                f"the prompt must have a line that begins with '{name}:', got none; add one, or "
                "name the speakers as the prompt does"
            )
    if turns.speaker[-1] != Speaker.AGENT:
        raise InvalidArgumentError(
            f"the prompt must leave the turn to the agent; end it with '{parser.rules.agent}:'"
        )


class ChatEnv(gymnasium.Env[NDArray[np.float32], np.int64]):
    """One episode of the chat; a step is one token of the agent and all of its partner's answer.

    The observation is a row of `pack_observation`, its infinities (the log-probability of what is
    impossible, a budget without limit) as the largest numbers of float32, since a `Box` is to be
    finite; the action is a token. The environment cannot
    know what a step costs the budget, since only the agent knows the distribution that it drew
    from: the agent calls `charge` before `step`. A step that nobody charged costs nothing.

    Args:
        base: the base policy, which is also the partner.
        parser: of the base policy's tokenizer.
        prompt_tokens: the starting transcript, int64, shape (p,).
        n_positions: tokens of an episode, the prompt included.
        student_temperature: at which the partner's tokens are sampled.
        score: the rewards of replies, from their texts to shape (replies,).
        budget_nats: the KL budget of an episode; infinite for none.
        accounting: what a step costs it.

    Raises:
        InvalidArgumentError, InvalidBudgetError: as `LockstepChat` and `open_ledger` do.
    """

    def __init__(
        self,
        base: BaseModel,
        parser: TurnParser,
        prompt_tokens: Tensor,
        *,
        n_positions: int,
        student_temperature: float,
        score: Callable[[Sequence[str]], NDArray[np.floating[Any]]],
        budget_nats: float,
        accounting: Accounting = Accounting.EXACT,
    ) -> None:
        check_chat(base, parser, prompt_tokens, n_episodes=1, n_positions=n_positions)
        self._base = base
        self._score = score
        self._new_ledger = partial(
            open_ledger, torch.tensor([budget_nats], dtype=torch.float64), accounting=accounting
        )
        self._ledger = self._new_ledger()
        self._chat: LockstepChat | None = None
        self._new_chat = partial(
            LockstepChat,
            base,
            parser,
            prompt_tokens,
            n_episodes=1,
            n_positions=n_positions,
            student_temperature=student_temperature,
        )
        width = base.n_features + N_SCALARS + (0 if base.head else base.n_tokens)
        low, high = np.full((2, width), [[-LARGEST], [LARGEST]], dtype=np.float32)
        low[base.n_features : base.n_features + N_SCALARS] = 0.0
        high[base.n_features] = 1.0
        high[base.n_features + N_SCALARS :] = 0.0
        self.observation_space = spaces.Box(low, high, dtype=np.float32)
        self.action_space = spaces.Discrete(base.n_tokens)

    @property
    def chat(self) -> LockstepChat:
        """The present episode.

        Raises:
            InvalidArgumentError: there is none yet.
        """
        if self._chat is None:
            raise InvalidArgumentError("no episode has started; call reset() first")
        return self._chat

    @property
    def ledger(self) -> BudgetLedger:
        """The present episode's budget, shape (1,)."""
        return self._ledger

    def charge(self, *, kl_nats: float, log_ratio_nats: float | None = None) -> None:
        """Charge the step that comes next to the budget; see `BudgetLedger.charge`.

        Args:
            kl_nats: KL of the distribution that the action is drawn from to the base policy's.
            log_ratio_nats: log-ratio of the action, which realised accounting needs.
        """
        self._ledger = self._ledger.charge(
            kl_nats=self._nats(kl_nats),
            log_ratio_nats=None if log_ratio_nats is None else self._nats(log_ratio_nats),
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """A new episode; the same seed gives the same partner."""
        super().reset(seed=seed, options=options)
        generator = torch.Generator(self._base.device)
        generator.manual_seed(int(self.np_random.integers(2**63 - 1)))
        self._chat = self._new_chat(generator=generator)
        self._ledger = self._new_ledger()
        return self._observation(), {}

    def step(
        self, action: np.int64
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Write a token, and let the partner answer if that hands it the turn.

        Returns:
            Observation, reward, whether the transcript is complete, False, and under `replies`
            in the info the texts of the replies that ended.
        """
        chat = self.chat
        token = torch.full((1,), int(action), device=self._base.device)
        replies = chat.advance(token)
        while not (chat.done or bool(chat.agent_acts)):
            replies += chat.advance(token)
        texts = [reply.text for reply in replies]
        reward = float(self._score(texts).sum()) if texts else 0.0
        return self._observation(), reward, chat.done, False, {"replies": texts}

    def _observation(self) -> NDArray[np.float32]:
        packed = pack_observation(
            self.chat.base_step,
            fraction_left=self.chat.fraction_left,
            budget_nats=self._ledger.remaining_nats,
            head=self._base.head,
        )
        return packed[0].clamp(-LARGEST, LARGEST).cpu().numpy()

    @staticmethod
    def _nats(value: float) -> Tensor:
        return torch.tensor([value], dtype=torch.float64)
