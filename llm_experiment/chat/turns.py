r"""Whose turn it is: a parser of two-speaker transcripts that works on tokens of any tokenizer.

A transcript is lines of text. A line that begins with a speaker's name and a colon (spaces and
tabs may stand before either) opens that speaker's turn, unless it has the turn already; nothing
else changes whose turn it is. So a name inside a word ("Teachers:"), in the middle of a line
("my Student: ...") or without its colon ("Student loans are ...") is only text; the published
protocol switched at the last name anywhere in the text, which makes a speaker who merely mentions
the other one lose the turn. A speaker who opens a line with the own name keeps talking.

The text is the concatenation of the tokens' bytes in UTF-8, so the rule is a finite automaton on
bytes: its state is the present line as far as it can still become a name with a colon. Composed
with the tokens' bytes it becomes a table `[state, token] -> state`, and a batch of transcripts
advances by one look-up, however a tokenizer splits names, their characters, colons and line breaks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from llm_experiment.chat.token_texts import TextDecoder, encode_text, token_bytes, vocabulary_size
from llm_experiment.chat.turn_records import COLON, NEWLINE, Speaker, Turns, are_empty
from theory.errors import InvalidArgumentError, ModelError

_BLANKS: Final = b" \t"
_NEWLINE: Final = NEWLINE.encode()
_COLON: Final = COLON.encode()

_NO_NAME: Final = 0
"""The state of a line that can no longer become a name."""

_Line = bytes | None
"""The present line without leading blanks while it may become `name:`, else None."""


@dataclass(frozen=True, kw_only=True)
class TurnRules:
    """How turns look and when they end."""

    agent: str = "Teacher"
    """The name before the agent's turns."""
    partner: str = "Student"
    """The name before its partner's turns."""
    separator: str = NEWLINE
    """Line breaks written between turns when a reply is cut off."""
    max_reply_tokens: int = 512
    """A reply that has not ended after so many tokens is cut off: the separator, the agent's
    name and the colon are forced."""
    eos_ends_reply: bool = False
    """Cut a reply off likewise after the tokenizer's end-of-text token."""

    def __post_init__(self) -> None:
        for name in (self.agent, self.partner):
            if not name or name != name.strip() or set(name) & {NEWLINE, COLON}:
                raise InvalidArgumentError(
                    "a speaker's name must be text without colon, line break or blanks around "
                    f"it, got {name!r}"
                )
        if self.agent == self.partner:
            raise InvalidArgumentError(f"speakers need different names, got {self.agent!r} twice")
        if not self.separator or self.separator.strip(NEWLINE):
            raise InvalidArgumentError(
                f"separator must be one or more line breaks, got {self.separator!r}"
            )
        if self.max_reply_tokens < 1:
            raise InvalidArgumentError(
                f"max_reply_tokens must be >= 1, got {self.max_reply_tokens}"
            )


@dataclass(frozen=True, kw_only=True)
class TurnState:
    """Where n transcripts of equal length stand.

    Attributes:
        line: state of the automaton, int64, shape (n,).
        speaker: who has the turn, a `Speaker`, int64, shape (n,).
        opened: index of the token that opened the turn (its text holds the colon), int64, shape
            (n,); -1 before the first turn.
        position: tokens read so far.
    """

    line: Tensor
    speaker: Tensor
    opened: Tensor
    position: int


class TurnParser:
    """The automaton of `TurnRules` for one vocabulary.

    Args:
        rules: how turns look.
        pieces: of every token its text, or the bytes of it where it may hold parts of characters,
            such that a transcript's text is their concatenation.
        encode: the tokens of a text.
        decode: the text of tokens.
        eos: the token at the end of a text, if there is one.

    Raises:
        ModelError: the vocabulary has no line break, or cannot spell a speaker's name, or has a
            token that opens two turns, or none for the end of a text that is to end a reply.
    """

    def __init__(
        self,
        rules: TurnRules,
        *,
        pieces: Sequence[str] | Sequence[bytes],
        encode: Callable[[str], Sequence[int]],
        decode: Callable[[Sequence[int]], str],
        eos: int | None = None,
    ) -> None:
        self.rules = rules
        self._pieces = tuple(p.encode() if isinstance(p, str) else p for p in pieces)
        self._decode = decode
        if rules.eos_ends_reply and eos is None:
            raise ModelError(
                "the tokenizer has no end-of-text token, which is to end replies; leave out "
                "--eos-ends-reply"
            )
        self.reply_end = eos if rules.eos_ends_reply else None
        if not any(_NEWLINE in piece for piece in self._pieces):
            raise ModelError(
                "no token of the tokenizer holds a line break, so turns cannot be told apart; "
                "use a tokenizer that keeps line breaks"
            )
        names = (rules.agent.encode(), rules.partner.encode())
        lines = _all_lines(names)
        self._next_line, self._opens, self._rest = _compile(lines, names, self._pieces)
        self._breaks_line = torch.tensor([_NEWLINE in piece for piece in self._pieces])
        self._line_start = lines.index(b"")
        self.agent_opening = self._opening(rules.agent, encode)
        self.partner_opening = self._opening(rules.partner, encode)

    @classmethod
    def from_tokenizer(
        cls, tokenizer: PreTrainedTokenizerBase, rules: TurnRules, *, n_tokens: int
    ) -> "TurnParser":
        """The parser for a tokenizer of transformers.

        Args:
            tokenizer: of the language model.
            rules: how turns look.
            n_tokens: size of the model's vocabulary; ids beyond the tokenizer's have no text.

        Raises:
            ModelError: see `TurnParser`; or the tokenizer has more tokens than the model.
        """
        size = vocabulary_size(tokenizer)
        if size > n_tokens:
            raise ModelError(
                f"the tokenizer has {size} tokens (counted to its largest id) and the language "
                f"model only {n_tokens}; use the tokenizer that the model was trained with"
            )
        return cls(
            rules,
            pieces=token_bytes(tokenizer, speaker=rules.agent, n_tokens=n_tokens),
            encode=partial(encode_text, tokenizer),
            decode=TextDecoder(tokenizer),
            eos=tokenizer.eos_token_id,
        )

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary."""
        return len(self._pieces)

    @property
    def empty_turn_tokens(self) -> int:
        """The most tokens that an empty turn of the agent has: separator, name and colon.

        Four in the published setting: two line breaks, the name and the colon.
        """
        return len(self.partner_opening)

    @property
    def pieces(self) -> tuple[str, ...]:
        """The text of every token; an incomplete character is a replacement sign."""
        return tuple(piece.decode(errors="replace") for piece in self._pieces)

    def rest_of_opening(self, token: int) -> str:
        """What a token that may open a turn already says in it; nothing for other tokens."""
        piece = self._pieces[token]
        return piece[len(piece) - self._rest.get(token, 0) :].decode(errors="replace")

    @property
    def inert_token(self) -> int:
        """A token that opens no turn wherever it is written, for episodes that have stopped."""
        return next(
            token
            for token, piece in enumerate(self._pieces)
            if piece.strip(_BLANKS) and _NEWLINE not in piece and _COLON not in piece
        )

    def to(self, device: torch.device) -> "TurnParser":
        """Move the automaton's tables to `device`."""
        self._next_line = self._next_line.to(device)
        self._opens = self._opens.to(device)
        self._breaks_line = self._breaks_line.to(device)
        return self

    def begin(self, n: int) -> TurnState:
        """The state of `n` empty transcripts: at the start of a line, nobody's turn."""
        line = torch.full((n,), self._line_start, device=self._next_line.device)
        nobody = torch.full_like(line, Speaker.NOBODY)
        return TurnState(line=line, speaker=nobody, opened=nobody, position=0)

    def advance(self, state: TurnState, tokens: Tensor) -> TurnState:
        """The state after one more token of every transcript, int64, shape (n,)."""
        opens = self._opens[state.line, tokens].long()
        switches = (opens != Speaker.NOBODY) & (opens != state.speaker)
        return TurnState(
            line=self._next_line[state.line, tokens].long(),
            speaker=torch.where(switches, opens, state.speaker),
            opened=torch.where(switches, state.position, state.opened),
            position=state.position + 1,
        )

    def may_name(self, state: TurnState) -> Tensor:
        """Tokens after which the present line may still become a speaker's name, or opens a turn.

        On a line that can become no name, none does; bool, shape (n, n_tokens).
        """
        on_such_a_line = state.line != _NO_NAME
        opens = self._opens[state.line] != Speaker.NOBODY
        goes_on = (self._next_line[state.line] != _NO_NAME) & ~self._breaks_line
        return on_such_a_line[:, None] & (opens | goes_on)

    def read(self, tokens: Tensor) -> TurnState:
        """The state after transcripts, int64, shape (n, t)."""
        state = self.begin(len(tokens))
        for column in tokens.T:
            state = self.advance(state, column)
        return state

    def speakers(self, tokens: Tensor) -> Tensor:
        """Who has the turn after each token of transcripts, both of shape (n, t)."""
        state = self.begin(len(tokens))
        after = []
        for column in tokens.T:
            state = self.advance(state, column)
            after.append(state.speaker)
        return torch.stack(after, dim=1)

    def writers(self, tokens: Tensor) -> Tensor:
        """Who wrote each token of transcripts: who had the turn before it; both (n, t)."""
        return writers_before(self.speakers(tokens))

    def find_turns(self, tokens: Tensor) -> Turns:
        """All turns of transcripts, int64, shape (n, t)."""
        return turns_between(self.speakers(tokens))

    def are_empty(self, turns: Turns) -> NDArray[np.bool_]:
        """Which turns are empty turns of the agent, shape (turns,); see `turn_records`."""
        return are_empty(turns, most_tokens=self.empty_turn_tokens)

    def text(self, tokens: Sequence[int]) -> str:
        """What tokens say."""
        return self._decode(tokens)

    def turn_text(self, tokens: Sequence[int], *, opened: int, closed: int) -> str:
        """What the speaker of a finished turn said, without blanks and line breaks around it.

        Args:
            tokens: the transcript.
            opened: index of the token that opened the turn.
            closed: index of the token that opened the next one.
        """
        first, last = tokens[opened], tokens[closed]
        text = self._tail(first) + self._decode(tokens[opened + 1 : closed + 1])
        text = text[: len(text) - len(self._tail(last))]
        return text.rpartition(NEWLINE)[0].strip()

    def _tail(self, token: int) -> str:
        """The text of a token that opens a turn after its colon."""
        piece = self._pieces[token]
        return piece[len(piece) - self._rest[token] :].decode(errors="replace")

    def _opening(self, name: str, encode: Callable[[str], Sequence[int]]) -> tuple[int, ...]:
        """The tokens that hand the turn to `name`, wherever they are written."""
        text = f"{self.rules.separator}{name}{COLON}"
        tokens = [int(token) for token in encode(text)]
        while tokens and not self._pieces[tokens[0]].strip(_BLANKS):
            del tokens[0]  # some tokenizers put a blank before any text
        pieces = [self._pieces[token] for token in tokens]
        if b"".join(pieces) != text.encode():
            written = [piece.decode(errors="replace") for piece in pieces]
            raise ModelError(
                f"the tokenizer cannot write {text!r} as tokens of their own (it gives {written}); "
                "choose another name or tokenizer"
            )
        return tuple(tokens)


def writers_before(speakers: Tensor) -> Tensor:
    """Who wrote each token, from who has the turn after it (`TurnParser.speakers`); both (n, t)."""
    nobody = torch.full_like(speakers[:, :1], Speaker.NOBODY)
    return torch.cat([nobody, speakers[:, :-1]], dim=1)


def turns_between(speakers: Tensor) -> Turns:
    """All turns of transcripts, from who has the turn after each token, shape (n, t)."""
    after, before = (array.cpu().numpy() for array in (speakers, writers_before(speakers)))
    episode, opened = np.nonzero(after != before)
    finished = np.roll(episode, -1) == episode
    finished[-1:] = False
    return Turns(
        episode=episode,
        speaker=after[episode, opened],
        opened=opened,
        closed=np.where(finished, np.roll(opened, -1), after.shape[1] - 1),
        finished=finished,
    )


def _next_line(line: _Line, char: bytes, names: Sequence[bytes]) -> tuple[_Line, Speaker]:
    """The line after one more byte, and whose turn that opens."""
    if char == _NEWLINE:
        return b"", Speaker.NOBODY
    if line is None or (line == b"" and char in _BLANKS):
        return line, Speaker.NOBODY
    name = line.rstrip(_BLANKS)
    if char == _COLON and name in names:
        return None, Speaker(names.index(name))
    if any(other.startswith(line + char) for other in names):
        return line + char, Speaker.NOBODY
    if char in _BLANKS and name in names:
        return name + b" ", Speaker.NOBODY
    return None, Speaker.NOBODY


def _all_lines(names: Sequence[bytes]) -> list[_Line]:
    """The states of the automaton; the first is None."""
    prefixes = {name[:length] for name in names for length in range(len(name) + 1)}
    return [None, *sorted(prefixes | {name + b" " for name in names})]


def _compile(
    lines: list[_Line], names: Sequence[bytes], pieces: Sequence[bytes]
) -> tuple[Tensor, Tensor, dict[int, int]]:
    """The automaton on tokens.

    Returns:
        Next state and opened speaker, shapes (states, vocabulary), and for each token that may
        open a turn the number of bytes after its colon.
    """
    index = {line: state for state, line in enumerate(lines)}
    next_line = np.zeros((len(lines), len(pieces)), dtype=np.int16)
    opens = np.full((len(lines), len(pieces)), Speaker.NOBODY, dtype=np.int8)
    rest: dict[int, int] = {}
    for token, piece in enumerate(pieces):
        if not _matters(piece, names):
            continue  # leads from every line to None
        for state, start in enumerate(lines):
            line = start
            for position in range(1, len(piece) + 1):
                line, speaker = _next_line(line, piece[position - 1 : position], names)
                if speaker is Speaker.NOBODY:
                    continue
                left = len(piece) - position
                if opens[state, token] != Speaker.NOBODY or rest.setdefault(token, left) != left:
                    raise ModelError(
                        f"token {token} of the tokenizer, {piece.decode(errors='replace')!r}, can "
                        "open two turns; choose other names"
                    )
                opens[state, token] = speaker
            next_line[state, token] = index[line]
    return torch.from_numpy(next_line), torch.from_numpy(opens), rest


def _matters(piece: bytes, names: Sequence[bytes]) -> bool:
    """Whether a token can leave any line other than None, or open a turn."""
    core = piece.strip(_BLANKS)
    return _NEWLINE in piece or _COLON in piece or any(core in name for name in names)
