"""A demonstrator who always says something: any base policy without the agent's wordless turns.

Nobody knows what wrote the text that a language model learnt from. This demonstrator `tau` is made
of the model b itself, so that it is known exactly: at the agent's steps it is

    tau(x|h) = b(x|h, not M(h)) = b(x|h) 1[x not in M(h)] / (1 - b(M(h)|h)),

where M(h) are the tokens that would end a line, or begin a name, before anything is said in the
turn. Everything else is b. So tau writes no turn without words, ever, and

    KL(tau||b) = E_tau sum_t -ln(1 - b(M(h_t)|h_t)),

which is small where b is rarely silent; and who writes one token of M has `KL(.||tau) = inf`.

`NeverSilentBase` gives tau as a base policy that misses the mass b(M): who acts by it is charged
just `-ln(1 - b(M))` (`llm_experiment.base.protocol`), so that what an episode of tau spends is its
part of KL(tau||b).
"""

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from llm_experiment.base.protocol import (
    BaseModel,
    BaseStep,
    Session,
    semi_log_probs,
    step_from_semi_distribution,
)
from llm_experiment.chat.turn_records import NEWLINE, Speaker
from llm_experiment.chat.turns import TurnParser, TurnState
from theory.errors import InvalidArgumentError

_BLANKS: Final = " \t"


@dataclass(frozen=True, kw_only=True)
class WordState:
    """Where n transcripts stand.

    Attributes:
        turn: who has the turn.
        said: whether the present turn has words yet, bool, shape (n,).
    """

    turn: TurnState
    said: Tensor


class WordReader:
    """Which turns have words, read token by token.

    Args:
        parser: of the vocabulary.
        device: where transcripts lie.
    """

    def __init__(self, parser: TurnParser, device: torch.device) -> None:
        self._parser = parser.to(device)
        pieces = parser.pieces
        rests = (parser.rest_of_opening(token) for token in range(len(pieces)))
        self._has_word = torch.tensor([bool(p.strip()) for p in pieces], device=device)
        self._opens_with_word = torch.tensor([bool(r.strip()) for r in rests], device=device)
        self._breaks_line = torch.tensor(
            [piece.lstrip(_BLANKS).startswith(NEWLINE) for piece in pieces], device=device
        )

    def begin(self, n: int) -> WordState:
        """The state of `n` empty transcripts."""
        turn = self._parser.begin(n)
        return WordState(turn=turn, said=torch.zeros_like(turn.line, dtype=torch.bool))

    def advance(self, state: WordState, tokens: Tensor) -> WordState:
        """The state after one more token of every transcript, int64, shape (n,)."""
        turn = self._parser.advance(state.turn, tokens)
        opened = turn.opened == state.turn.position
        said = torch.where(
            opened, self._opens_with_word[tokens], state.said | self._has_word[tokens]
        )
        return WordState(turn=turn, said=said)

    def read(self, tokens: Tensor) -> WordState:
        """The state after transcripts, int64, shape (n, t)."""
        state = self.begin(len(tokens))
        for column in tokens.T:
            state = self.advance(state, column)
        return state

    def wordless(self, state: WordState) -> Tensor:
        """M: the tokens by which the agent's turn would go on without words, (n, n_tokens), bool.

        Where a turn begins on a line of its own (some tokenizers join colon and line break), a
        token that may begin a name would, too.
        """
        silent = (state.turn.speaker == Speaker.AGENT) & ~state.said
        names = self._parser.may_name(state.turn)
        return silent[:, None] & (self._breaks_line | names)

    def first_wordless(self, tokens: Tensor, *, start: int) -> Tensor:
        """Where transcripts first leave tau's support, int64, shape (n,); t if they never do.

        Args:
            tokens: shape (n, t).
            start: index of the first token that counts, after the prompt.
        """
        state = self.begin(len(tokens))
        first = torch.full((len(tokens),), tokens.shape[1], device=tokens.device)
        for t, column in enumerate(tokens.T):
            outside = self.wordless(state).gather(-1, column[:, None]).squeeze(-1)
            first = torch.where(outside & (t >= start), first.clamp(max=t), first)
            state = self.advance(state, column)
        return first


class NeverSilentBase:
    """A base policy without the agent's wordless turns; see the module's docstring.

    Args:
        base: the base policy.
        parser: of its tokenizer; is moved to its device.

    Raises:
        InvalidArgumentError: a parser of another vocabulary than the base policy's.
    """

    def __init__(self, base: BaseModel, parser: TurnParser) -> None:
        if parser.n_tokens != base.n_tokens:
            raise InvalidArgumentError(
                f"the parser knows {parser.n_tokens} tokens and the base policy {base.n_tokens}; "
                "make the parser with n_tokens = base.n_tokens"
            )
        self._base = base
        self._reader = WordReader(parser, base.device)

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary."""
        return self._base.n_tokens

    @property
    def n_features(self) -> int:
        """Those of the base policy."""
        return self._base.n_features

    @property
    def device(self) -> torch.device:
        """Where the base policy is."""
        return self._base.device

    @property
    def head(self) -> None:
        """None: what has been said cannot be told from the base policy's features."""

    def begin(
        self, prompt_tokens: Tensor, *, n_episodes: int, n_positions: int
    ) -> tuple["NeverSilentSession", BaseStep]:
        """Start episodes that share a prompt; see `BaseModel.begin`."""
        session, step = self._base.begin(
            prompt_tokens, n_episodes=n_episodes, n_positions=n_positions
        )
        state = self._reader.read(prompt_tokens.repeat(n_episodes, 1))
        own = NeverSilentSession(session, self._reader, state)
        return own, without(step, self._reader.wordless(state))


class NeverSilentSession:
    """Episodes under a base policy without wordless turns."""

    def __init__(self, session: Session, reader: WordReader, state: WordState) -> None:
        self._session = session
        self._reader = reader
        self._state = state

    def append(self, tokens: Tensor, *, agent_wrote: Tensor | None = None) -> BaseStep:
        """The prediction after one more token of every episode; see `Session.append`."""
        step = self._session.append(tokens, agent_wrote=agent_wrote)
        self._state = self._reader.advance(self._state, tokens)
        return without(step, self._reader.wordless(self._state))


def without(step: BaseStep, excluded: Tensor) -> BaseStep:
    """A step whose rows miss the mass of some tokens; other rows are passed on bit by bit.

    Args:
        step: of a base policy.
        excluded: bool, shape (n, n_tokens).
    """
    touched = excluded.any(dim=-1)
    if not touched.any():
        return step
    rest = semi_log_probs(step).masked_fill(excluded, -torch.inf)
    less = step_from_semi_distribution(rest, step.features)
    return replace(
        step,
        log_probs=torch.where(touched[:, None], less.log_probs, step.log_probs),
        missing_mass=torch.where(touched, less.missing_mass, step.missing_mass),
    )
