"""The chat: an agent writes the tokens of one speaker, the base policy those of its partner.

An episode is one transcript of a fixed number of tokens, the prompt included. While the agent has
the turn it writes the next token; while its partner has, the base policy does, at the partner's
temperature. A reply that has not ended after `TurnRules.max_reply_tokens` tokens is cut off by
forcing the agent's name, and so is, by `eos_ends_reply`, one that the partner ends with the
tokenizer's end-of-text token. Who has the turn is for `llm_experiment.chat.turns` to say.

Where the base policy misses mass (`llm_experiment.base.protocol`) an agent's step may be *asked*
for: the demonstrator writes it, or, where nobody can be asked, the episode *stops*: what is
written from there on opens no turn and earns nothing. The partner pays for nothing: what it misses
the demonstrator fills; without one it plays what is left, normalised.

A reply earns its reward when it ends, that is when the agent's name and colon after it are
complete, and the reward belongs to the agent's step that the reply answers: its last step before
the reply. A reply that the end of the episode cuts short earns nothing, as published.

`LockstepChat` plays many episodes with one forward of the base policy per position. It does not
know the agent: what a step's distribution costs, the agent's side says.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from llm_experiment.base.protocol import BaseModel, BaseStep, check_start, filled_log_probs
from llm_experiment.chat.turn_records import Speaker
from llm_experiment.chat.turns import TurnParser, turns_between
from theory.errors import InvalidArgumentError, InvalidShapeError


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
        partner_temperature: at which the partner's tokens are sampled.
        generator: the partner's randomness, on the base policy's device.
        n_copies: the episodes come in so many sets of the same size, whose i-th episodes share
            their random numbers: as long as equal things happen in them, they are equal.

    Attributes:
        base_step: what the base policy says of the next token.
        position: tokens of every episode so far, the prompt included.
        stopped_at: where each episode stopped, int64, shape (n,); `n_positions` if it has not.
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
        partner_temperature: float,
        generator: torch.Generator,
        n_copies: int = 1,
    ) -> None:
        check_chat(base, parser, prompt_tokens, n_episodes=n_episodes, n_positions=n_positions)
        if not 0 < partner_temperature < math.inf:
            raise InvalidArgumentError(
                f"partner_temperature must be > 0 and finite, got {partner_temperature}"
            )
        self.n_positions = n_positions
        self.prompt_length = len(prompt_tokens)
        self.position = self.prompt_length
        self._parser = parser
        self._temperature = partner_temperature
        self._generator = generator
        self._n_copies = n_copies
        self._forced = torch.tensor(parser.agent_opening, device=base.device)
        # Where the partner last wrote the token that ends a reply, if one does.
        self._reply_end = prompt_tokens.new_full((n_episodes,), -1)
        self._session, self.base_step = base.begin(
            prompt_tokens, n_episodes=n_episodes, n_positions=n_positions
        )
        self._tokens = prompt_tokens.new_zeros(n_episodes, n_positions)
        self._tokens[:, : self.position] = prompt_tokens
        self._turn = parser.read(self.tokens)
        self._speakers = torch.empty_like(self._tokens)
        self._speakers[:, : self.position] = parser.speakers(self.tokens)
        self.stopped_at = torch.full_like(self._turn.line, n_positions)
        self._stop_where_nothing_is_left()

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
        return (self._turn.speaker == Speaker.AGENT) & ~self.stopped

    @property
    def stopped(self) -> Tensor:
        """Which episodes have stopped, bool, shape (n,)."""
        return self.stopped_at < self.n_positions

    @property
    def fraction_left(self) -> float:
        """The share of the episode's tokens still to come."""
        return 1.0 - self.position / self.n_positions

    @property
    def done(self) -> bool:
        """Whether the episodes are complete."""
        return self.position == self.n_positions

    def advance(self, agent_tokens: Tensor, *, asks: Tensor | None = None) -> tuple[Reply, ...]:
        """One more token of every episode, and the replies that it ends.

        Args:
            agent_tokens: the agent's choices, int64, shape (n,); read where `agent_acts`.
            asks: where it acts, whether it asks instead, bool, shape (n,); nowhere if None.

        Raises:
            InvalidShapeError: not one token an episode.
            InvalidArgumentError: the episodes are complete.
        """
        before = self._turn
        ended = self.step(agent_tokens, asks=asks)
        return tuple(
            self._reply(episode, opened=int(before.opened[episode]), closed=self.position - 1)
            for episode in ended.nonzero().flatten().tolist()
        )

    def step(self, agent_tokens: Tensor, *, asks: Tensor | None = None) -> Tensor:
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
        had_turn = self.agent_acts
        agent_wrote = had_turn
        tokens = torch.where(had_turn, agent_tokens, self._partner_tokens())
        if asks is not None:
            asked = had_turn & asks
            agent_wrote = had_turn & ~asks
            answer = self.base_step.demonstrator_log_probs
            if answer is None:
                self._stop(asked)
            else:
                tokens = torch.where(
                    asked, sample_tokens(answer, generator=self._generator), tokens
                )
        tokens = torch.where(self.stopped, self._parser.inert_token, tokens)
        self._tokens[:, self.position] = tokens
        if self._parser.reply_end is not None:
            ends = (tokens == self._parser.reply_end) & ~had_turn
            self._reply_end = torch.where(ends, self.position, self._reply_end)
        self.base_step = self._session.append(tokens, agent_wrote=agent_wrote)
        self._turn = self._parser.advance(self._turn, tokens)
        self._speakers[:, self.position] = self._turn.speaker
        self.position += 1
        self._stop_where_nothing_is_left()
        return self.agent_acts & ~had_turn

    def _stop(self, episodes: Tensor) -> None:
        """End some episodes here, those that have not stopped before."""
        new = episodes & ~self.stopped
        self.stopped_at = torch.where(new, self.position, self.stopped_at)

    def _stop_where_nothing_is_left(self) -> None:
        """End the episodes in which nothing is predicted and nobody can be asked."""
        if self.base_step.demonstrator_log_probs is None:
            self._stop(self.base_step.missing_mass >= 1)

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
        logits = without_gaps(self.base_step) / self._temperature
        sampled = sample_tokens(logits, generator=self._generator, n_copies=self._n_copies)
        written = self.position - 1 - self._turn.opened
        excess = written - self._parser.rules.max_reply_tokens
        if self._parser.reply_end is not None:
            ended = self._reply_end > self._turn.opened
            since = self.position - 1 - self._reply_end
            excess = torch.where(ended, torch.maximum(excess, since), excess)
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


def without_gaps(step: BaseStep) -> Tensor:
    """What a speaker who pays for nothing writes, in nats, (n, n_tokens).

    The base policy's law, with the demonstrator's in place of what it misses; without a
    demonstrator, its normalised form.
    """
    if step.demonstrator_log_probs is None:
        return step.log_probs
    return filled_log_probs(step, step.demonstrator_log_probs)


def sample_tokens(
    logits: Tensor,
    *,
    generator: torch.Generator | None,
    n_copies: int = 1,
    normalised: bool = False,
    memory: Tensor | None = None,
) -> Tensor:
    """A draw from softmax(logits) for each row; a token with logit -inf is never drawn.

    By inversion, with one uniform number a row: the first token at which the cumulative mass is
    above the number times the total. Both are float64, whose largest uniform number below 1 keeps
    that product below the total.

    Args:
        logits: shape (n, n_tokens), in every row one above -inf.
        generator: the randomness, on the same device; torch's own one if None.
        n_copies: sets of rows whose i-th rows share their random number; it divides n.
        normalised: whether the logits are log-probabilities, which saves a pass.
        memory: float64, shape (n, n_tokens), to work in; new if None.

    Returns:
        int64, shape (n,).
    """
    logits = logits.double()
    masses = (
        torch.exp(logits, out=memory) if normalised else torch.softmax(logits, dim=-1, out=memory)
    )
    cumulative = masses.cumsum_(dim=-1)
    uniform = torch.rand(
        (len(logits) // n_copies, 1),
        dtype=torch.float64,
        device=logits.device,
        generator=generator,
    ).repeat(n_copies, 1)
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
    check_prompt(parser.to(base.device), prompt_tokens)


def check_prompt(parser: TurnParser, prompt_tokens: Tensor) -> None:
    """Raise unless both speakers have a line in the prompt, and the agent the turn.

    Args:
        parser: on the tokens' device.
        prompt_tokens: int64, shape (p,).

    Raises:
        InvalidArgumentError: it is otherwise.
    """
    turns = parser.find_turns(prompt_tokens[None])
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
