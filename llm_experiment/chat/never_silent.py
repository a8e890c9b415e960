"""A demonstrator who always says something: any base policy without the agent's wordless turns.

Nobody knows what wrote the text that a language model learnt from. This demonstrator `tau` is made
of the model b itself, so that it is known exactly: at the agent's steps it is

    tau(x|h) = b(x|h, not M(h)) = b(x|h) 1[x not in M(h)] / (1 - b(M(h)|h)),

where M(h) are the tokens that would end a line, or begin a name, before anything is said in the
turn. Everything else is b. So tau writes no turn without words, ever, and

    KL(tau||b) = E_tau sum_t -ln(1 - b(M(h_t)|h_t)),

which is small where b is rarely silent; and who writes one token of M has `KL(.||tau) = inf`.

`never_silent_base` gives tau as a base policy that misses the mass b(M): who acts by it is charged
just `-ln(1 - b(M))` (`llm_experiment.base.protocol`), so that what an episode of tau spends is its
part of KL(tau||b).
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from llm_experiment.base.protocol import BaseModel
from llm_experiment.chat.restricted import RestrictedBase, check_parser
from llm_experiment.chat.turn_records import NEWLINE, Speaker
from llm_experiment.chat.turns import TurnParser, TurnState

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

    def log_factors(self, state: WordState) -> Tensor:
        """-inf for the tokens of M and 0 for all others, float32, shape (n, n_tokens)."""
        wordless = self.wordless(state)
        return torch.zeros(wordless.shape, device=wordless.device).masked_fill(wordless, -torch.inf)

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


def never_silent_base(base: BaseModel, parser: TurnParser) -> RestrictedBase[WordState]:
    """A base policy without the agent's wordless turns; see the module's docstring.

    Args:
        base: the base policy.
        parser: of its tokenizer; is moved to its device.

    Raises:
        InvalidArgumentError: a parser of another vocabulary than the base policy's.
    """
    check_parser(parser, base)
    return RestrictedBase(base, WordReader(parser, base.device))
