r"""What may be vetoed: features of a transcript, and how long it takes to describe an event.

An *event* (`theory.vetoes`) is a feature of the transcript, a value of it, and what is written
next. Only the agent's steps have events: who speaks is a condition of all of them. What is written
next is one token, or the class of all tokens that *end the turn here*: those whose text, blanks
aside, begins with a line break. So silence is one event, "the turn has nothing in it, and ends",
however a tokenizer spells it.

`FEATURES` is the table of features: small pure functions of where the transcript stands. All but
the last three are of the *turn*: what was said in it so far, beside what its speaker said last and
what the reply was. The last three name tokens, and have as many values as the vocabulary; a
vocabulary above `MOST_TOKENS_AS_VALUES` does without them, since most of what is legal there is
never seen.

Beside the table stands a family without end: for every phrase, "the turn so far is this phrase and
nothing more" (`phrase_feature`). Nobody counts all of them; an attacker's turns point at the few
that are worth it (`llm_experiment.pessimism.proposals`). Their codes are those of all phrases,
whatever is looked at, so that looking costs no false vetoes.

The code of an event is that of its feature (a prefix code over the table), then of the value
(equal lengths for the values of one feature), then `END_BITS` for "the end", or `TOKEN_BITS` and
log2 of the vocabulary for a token: the end is the simpler thing to say. A phrase is coded by
`PHRASE_BITS`, its length in Elias's gamma code, and log2 of the vocabulary for each of its tokens.
The priors `2^-bits` of all events sum to less than 9/16. The smaller that sum, the fewer false
vetoes (`theory.vetoes`); the longer a code, the more demonstrations it takes to veto its event.

What a turn says is compared token by token: its *body* are its tokens up to the last one with
visible text before the line that hands over. The same words spelt by other tokens are not
recognised, and neither are turns of more than `MEMORY` tokens.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor

from llm_experiment.chat.turn_records import NEWLINE, Speaker
from llm_experiment.chat.turns import TurnParser, TurnState
from llm_experiment.plug_in import Kind, load_part, reference_of
from theory.errors import InvalidArgumentError

MOST_TOKENS_AS_VALUES: Final = 1024
"""A vocabulary of more tokens has no features whose values are tokens."""
END_BITS: Final = 1
"""What it takes to say that what is written next ends the turn."""
TOKEN_BITS: Final = 3
"""What it takes to say that it is one token, and which one follows."""
PHRASE_BITS: Final = 3
"""What it takes to say that the feature is a phrase, which follows."""
PHRASE: Final = "so_far_is"
"""How the names of such features begin; the numbers of the phrase's tokens follow."""
MEMORY: Final = 64
"""A turn is remembered by so many of its first tokens; a longer one is equal to no other."""
_BLANKS: Final = " \t"
_MANY: Final = 3
_NEVER: Final = -1


@dataclass(frozen=True, kw_only=True)
class Said:
    """A turn of each of n transcripts, as far as it is remembered.

    Attributes:
        tokens: its first tokens, int64, shape (n, MEMORY).
        length: tokens of its body, int64, shape (n,); -1 if there was no such turn.
    """

    tokens: Tensor
    length: Tensor


@dataclass(frozen=True, kw_only=True)
class FeatureState:
    """Where n transcripts of equal length stand.

    Attributes:
        turn: who has the turn.
        tokens: the present turn's first tokens, int64, shape (n, MEMORY).
        count: the present turn's tokens so far, int64, shape (n,).
        from_start: whether these are all that it says: false where the token that opened it said
            something too; bool, shape (n,).
        visible: those of them with visible text, int64, shape (n,).
        spoken: tokens up to the last visible one, int64, shape (n,).
        body: tokens up to the last visible one before the last line break, int64, shape (n,).
        own: the agent's last turn that has ended.
        reply: its partner's.
        follows_own: whether the present turn is a beginning of `own`, or all of it; bool, (n,).
        follows_reply: the same of `reply`.
        previous: the last token and the one before it, int64, shape (n, 2); the size of the
            vocabulary where there was none.
    """

    turn: TurnState
    tokens: Tensor
    count: Tensor
    from_start: Tensor
    visible: Tensor
    spoken: Tensor
    body: Tensor
    own: Said
    reply: Said
    follows_own: Tensor
    follows_reply: Tensor
    previous: Tensor


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One row of the table.

    Attributes:
        name: for files and options.
        bits: its length in the prefix code over the table.
        read: its value in n transcripts, from where they stand and the size of the vocabulary;
            int64, shape (n,).
        values: its values in clear; none if they are tokens.
        n_tokens_in_value: how many tokens make a value of it.
        phrase: the tokens that its values speak of, if it is a phrase's.
    """

    name: str
    bits: float
    read: Callable[[FeatureState, int], Tensor]
    values: tuple[str, ...] = ()
    n_tokens_in_value: int = 0
    phrase: tuple[int, ...] | None = None

    def n_values(self, n_tokens: int) -> int:
        """How many values it has with a vocabulary of `n_tokens`; "no token" counts as one."""
        return len(self.values) or (n_tokens + 1) ** self.n_tokens_in_value

    def event_bits(self, n_tokens: int, *, ends: bool) -> float:
        """The code length of an event of this feature, in bits.

        Args:
            n_tokens: size of the vocabulary.
            ends: whether what is written next is "the end", not a token.
        """
        following = END_BITS if ends else TOKEN_BITS + math.log2(n_tokens)
        return self.bits + math.log2(self.n_values(n_tokens)) + following

    def in_clear(self, value: int, pieces: Sequence[str]) -> str:
        """A value for a person.

        Args:
            value: of the feature, in 0..n_values-1.
            pieces: the text of every token.
        """
        if self.phrase is not None:
            return f"{self.values[value]} {''.join(pieces[token] for token in self.phrase)!r}"
        if self.values:
            return self.values[value]
        tokens = []
        for _ in range(self.n_tokens_in_value):
            value, token = divmod(value, len(pieces) + 1)
            tokens.append("nothing" if token == len(pieces) else repr(pieces[token]))
        return " ".join(reversed(tokens))


# --------------------------------------------------------------------- the features


def always(state: FeatureState, n_tokens: int) -> Tensor:
    """The agent speaks: nothing else is asked."""
    del n_tokens
    return torch.zeros_like(state.count)


def said_so_far(state: FeatureState, n_tokens: int) -> Tensor:
    """Visible tokens of the turn so far: 0, 1, 2, or more."""
    del n_tokens
    return state.visible.clamp(max=_MANY)


def opening_after_reply(state: FeatureState, n_tokens: int) -> Tensor:
    """Whether the turn has nothing in it, and whether the reply before it was empty."""
    del n_tokens
    return _opening_after(state, state.reply)


def opening_after_own(state: FeatureState, n_tokens: int) -> Tensor:
    """Whether the turn has nothing in it, and whether the agent's last turn was empty."""
    del n_tokens
    return _opening_after(state, state.own)


def _opening_after(state: FeatureState, said: Said) -> Tensor:
    kind = torch.where(said.length < 0, 1, torch.where(said.length > 0, 2, 3))
    return torch.where(state.visible == 0, kind, 0)


def begins_as_own(state: FeatureState, n_tokens: int) -> Tensor:
    """Whether something was said, and is a beginning of the agent's last turn, or all of it."""
    del n_tokens
    return (state.follows_own & (state.visible > 0)).long()


def equals_own(state: FeatureState, n_tokens: int) -> Tensor:
    """Whether something was said, and is what the agent said last."""
    return begins_as_own(state, n_tokens) * (state.count == state.own.length)


def equals_reply(state: FeatureState, n_tokens: int) -> Tensor:
    """Whether something was said, and is the reply that it answers."""
    del n_tokens
    said = state.follows_reply & (state.visible > 0)
    return (said & (state.count == state.reply.length)).long()


def previous_token(state: FeatureState, n_tokens: int) -> Tensor:
    """The last token."""
    del n_tokens
    return state.previous[:, 0]


def previous_two_tokens(state: FeatureState, n_tokens: int) -> Tensor:
    """The last two tokens."""
    return state.previous[:, 1] * (n_tokens + 1) + state.previous[:, 0]


def same_place(state: FeatureState, n_tokens: int) -> Tensor:
    """The token at this place of the agent's last turn; nothing where that had ended."""
    place = state.count.clamp(max=MEMORY - 1)
    token = state.own.tokens.gather(1, place[:, None])[:, 0]
    return torch.where(_is_within(state.count, state.own), token, n_tokens)


_NO_YES: Final = ("no", "yes")

FEATURES: Final = (
    Feature(name="always", bits=4, read=always, values=("the agent speaks",)),
    Feature(
        name="said_so_far",
        bits=3,
        read=said_so_far,
        values=("nothing", "1 token", "2 tokens", "3 tokens or more"),
    ),
    Feature(
        name="opening_after_reply",
        bits=3,
        read=opening_after_reply,
        values=(
            "something was said",
            "opening, no reply yet",
            "opening after words",
            "opening after an empty reply",
        ),
    ),
    Feature(
        name="opening_after_own",
        bits=3,
        read=opening_after_own,
        values=(
            "something was said",
            "opening its first turn",
            "opening, its last turn had words",
            "opening, its last turn was empty",
        ),
    ),
    Feature(name="begins_as_own", bits=4, read=begins_as_own, values=_NO_YES),
    Feature(name="equals_own", bits=4, read=equals_own, values=_NO_YES),
    Feature(name="equals_reply", bits=4, read=equals_reply, values=_NO_YES),
    Feature(name="previous_token", bits=4, read=previous_token, n_tokens_in_value=1),
    Feature(name="same_place", bits=5, read=same_place, n_tokens_in_value=1),
    Feature(name="previous_two_tokens", bits=5, read=previous_two_tokens, n_tokens_in_value=2),
)
"""All features, the shortest descriptions first among their kind."""


_SO_FAR: Final = ("the turn so far is not", "the turn so far is")


def phrase_feature(phrase: Sequence[int], n_tokens: int) -> Feature:
    """Whether the turn so far consists of some tokens and no more.

    Args:
        phrase: the tokens; none for a turn that has just begun.
        n_tokens: size of the vocabulary.

    Raises:
        InvalidArgumentError: a token outside the vocabulary, or more than `MEMORY` of them.
    """
    tokens = tuple(phrase)
    if len(tokens) > MEMORY:
        raise InvalidArgumentError(
            f"a phrase must have at most {MEMORY} tokens, which is what is remembered of a turn, "
            f"got {len(tokens)}"
        )
    foreign = [token for token in tokens if not 0 <= token < n_tokens]
    if foreign:
        raise InvalidArgumentError(
            f"tokens of a phrase must lie in 0..{n_tokens - 1}, got {foreign[0]}"
        )

    def read(state: FeatureState, n_tokens: int) -> Tensor:
        del n_tokens
        alike = state.from_start & (state.count == len(tokens))
        for place, token in enumerate(tokens):
            alike = alike & (state.tokens[:, place] == token)
        return alike.long()

    length_bits = 2 * (len(tokens) + 1).bit_length() - 1
    return Feature(
        name=" ".join((PHRASE, *map(str, tokens))),
        bits=PHRASE_BITS + length_bits + len(tokens) * math.log2(n_tokens),
        read=read,
        values=_SO_FAR,
        phrase=tokens,
    )


def _read_phrase(name: str, n_tokens: int) -> Feature | None:
    """The phrase's feature of this name; None if it is no such name."""
    first, *numbers = name.split(" ")
    if first != PHRASE or not all(number.isdecimal() for number in numbers):
        return None
    return phrase_feature([int(number) for number in numbers], n_tokens)


def features_for(n_tokens: int) -> tuple[Feature, ...]:
    """The features that a vocabulary of `n_tokens` tokens can have."""
    if n_tokens <= MOST_TOKENS_AS_VALUES:
        return FEATURES
    return tuple(feature for feature in FEATURES if feature.values)


def find_features(names: Sequence[str], n_tokens: int) -> tuple[Feature, ...]:
    """The features of these names, in the order of the table, then others as they are given.

    Args:
        names: any of those of `features_for`, of phrases, and own ones (`own_feature`).
        n_tokens: size of the vocabulary.

    Raises:
        InvalidArgumentError: another name, no name, one that the vocabulary is too large for, or
            own features whose codes are too short beside the table's.
    """
    table = {feature.name: feature for feature in features_for(n_tokens)}
    others = {name: _read_phrase(name, n_tokens) for name in names if name not in table}
    own = {name: own_feature(name) for name, phrase in others.items() if phrase is None}
    _check_room(own)
    others |= own
    unknown = [name for name, feature in others.items() if feature is None]
    if unknown or not names:
        raise InvalidArgumentError(
            f"features must be some of {', '.join(table)} (for a vocabulary of {n_tokens} tokens) "
            f"or '{PHRASE}' and the numbers of tokens, got {unknown[0] if unknown else 'none'}"
        )
    of_table = (feature for name, feature in table.items() if name in names)
    return (*of_table, *(feature for feature in others.values() if feature is not None))


def _check_room(own: Mapping[str, Feature | None]) -> None:
    """Raise if own features leave no prefix code of all."""
    free = 1 - sum(2.0**-feature.bits for feature in FEATURES) - 2.0**-PHRASE_BITS
    taken = sum(2.0**-feature.bits for feature in own.values() if feature is not None)
    if taken > free:
        raise InvalidArgumentError(
            f"the codes of own features must have room beside the table's, which leave {free:g} "
            f"for the sum of 2^-bits, got {taken:g} for {', '.join(own)}; give them more bits"
        )


def own_feature(name: str) -> Feature | None:
    """The feature of somebody's own that `name` stands for (`llm_experiment.plug_in`).

    It is called as it was named here, so that a file of vetoes says where it came from.

    Returns:
        None if the name stands for none.

    Raises:
        InvalidArgumentError: in one line: it cannot be found, or is no `Feature`.
    """
    reference = reference_of(name, Kind.FEATURE)
    if reference is None:
        return None
    part: Any = load_part(reference, option="--features")
    if not isinstance(part, Feature):
        raise InvalidArgumentError(
            f"--features {reference} must be a Feature of llm_experiment.chat.features, got a "
            f"{type(part).__name__}"
        )
    return replace(part, name=name)


# ------------------------------------------------------------------- how they are read


def token_pieces(parser: TurnParser) -> tuple[str, ...]:
    """The text of every token of a parser's vocabulary."""
    return parser.pieces


def opened_text(parser: TurnParser, token: int) -> str:
    """What a token that may open a turn already says in it; nothing for other tokens."""
    return parser.rest_of_opening(token)


def ends_turn(piece: str) -> bool:
    """Whether a token of this text ends the turn where it is written."""
    return piece.lstrip(_BLANKS).startswith(NEWLINE)


class FeatureReader:
    """Reads the features of n transcripts at a time, token by token.

    Args:
        parser: says whose turn it is.
        features: which to read; all that the vocabulary can have if left out.
        ending: further tokens that end the agent's turn though they have no line break, such as
            a model's end of text.

    Attributes:
        features: which are read.
        ends: which tokens end the turn where they are written, bool, shape (n_tokens,).
    """

    def __init__(
        self,
        parser: TurnParser,
        features: Sequence[Feature] | None = None,
        *,
        ending: Sequence[int] = (),
    ) -> None:
        self.parser = parser
        self.features = features_for(parser.n_tokens) if features is None else tuple(features)
        self.n_tokens = parser.n_tokens
        pieces = token_pieces(parser)
        rests = [opened_text(parser, token) for token in range(len(pieces))]
        parts = [piece.rpartition(NEWLINE) for piece in pieces]
        # Of a token that opens a turn, only what is left of its colon belongs to the last one.
        lefts = [piece.removesuffix(rest) for piece, rest in zip(pieces, rests, strict=True)]
        closing = [left.rpartition(NEWLINE) for left in lefts]
        self.ends = _mask([ends_turn(piece) for piece in pieces])
        self.ends[list(ending)] = True
        self._breaks = _mask([NEWLINE in piece for piece in pieces])
        self._visible_before = _mask([_shows(before) for before, _, _ in parts])
        self._visible = _mask([_shows(piece) for piece in pieces])
        self._breaks_closing = _mask([NEWLINE in left for left in lefts])
        self._visible_closing = _mask([_shows(before) for before, _, _ in closing])
        self._visible_rest = _mask([_shows(rest) for rest in rests])

    @property
    def device(self) -> torch.device:
        """Where tokens are expected: where the parser's tables lie."""
        return self.parser.begin(1).line.device

    def begin(self, n: int) -> FeatureState:
        """The state of `n` empty transcripts."""
        turn = self.parser.begin(n)
        self._to(turn.line.device)
        nothing = torch.zeros_like(turn.line)
        tokens = nothing[:, None].repeat(1, MEMORY)
        never = Said(tokens=tokens, length=torch.full_like(nothing, _NEVER))
        return FeatureState(
            turn=turn,
            tokens=tokens,
            count=nothing,
            from_start=torch.ones_like(nothing, dtype=torch.bool),
            visible=nothing,
            spoken=nothing,
            body=nothing,
            own=never,
            reply=never,
            follows_own=torch.zeros_like(nothing, dtype=torch.bool),
            follows_reply=torch.zeros_like(nothing, dtype=torch.bool),
            previous=torch.full_like(tokens[:, :2], self.n_tokens),
        )

    def advance(self, state: FeatureState, tokens: Tensor) -> FeatureState:
        """The state after one more token of every transcript, int64, shape (n,)."""
        turn = self.parser.advance(state.turn, tokens)
        opened = turn.opened != state.turn.opened
        visible = self._visible[tokens]
        count = state.count + 1
        places = torch.arange(MEMORY, device=tokens.device)
        kept = torch.where(places == state.count[:, None], tokens[:, None], state.tokens)
        breaks = torch.where(opened, self._breaks_closing[tokens], self._breaks[tokens])
        before = torch.where(opened, self._visible_closing[tokens], self._visible_before[tokens])
        body = torch.where(breaks, torch.where(before, count, state.spoken), state.body)
        said = Said(tokens=kept, length=body)
        own = _where(opened & (state.turn.speaker == Speaker.AGENT), said, state.own)
        reply = _where(opened & (state.turn.speaker == Speaker.PARTNER), said, state.reply)
        rest = self._visible_rest[tokens]
        return FeatureState(
            turn=turn,
            tokens=kept,
            count=torch.where(opened, 0, count),
            from_start=torch.where(opened, ~rest, state.from_start),
            visible=torch.where(opened, rest.long(), state.visible + visible),
            spoken=torch.where(opened, 0, torch.where(visible, count, state.spoken)),
            body=torch.where(opened, 0, body),
            own=own,
            reply=reply,
            follows_own=torch.where(
                opened,
                (own.length >= 0) & ~rest,
                state.follows_own & _goes_on(state.own, state.count, tokens),
            ),
            follows_reply=torch.where(
                opened,
                (reply.length >= 0) & ~rest,
                state.follows_reply & _goes_on(state.reply, state.count, tokens),
            ),
            previous=torch.stack([tokens, state.previous[:, 0]], dim=1),
        )

    def read(self, tokens: Tensor) -> FeatureState:
        """The state after transcripts, int64, shape (n, t)."""
        state = self.begin(len(tokens))
        for column in tokens.T:
            state = self.advance(state, column)
        return state

    def agent_acts(self, state: FeatureState) -> Tensor:
        """In which transcripts the agent writes the next token, bool, shape (n,)."""
        return state.turn.speaker == Speaker.AGENT

    def values(self, state: FeatureState) -> dict[str, Tensor]:
        """The value of every feature by its name, int64, shape (n,)."""
        return {feature.name: feature.read(state, self.n_tokens) for feature in self.features}

    def _to(self, device: torch.device) -> None:
        """Move the tables of tokens to `device`."""
        for name, table in vars(self).items():
            if isinstance(table, Tensor):
                setattr(self, name, table.to(device))


def _mask(flags: Sequence[bool]) -> Tensor:
    return torch.tensor(flags, dtype=torch.bool)


def _shows(text: str) -> bool:
    """Whether a text has anything visible in it."""
    return bool(text.strip())


def _where(condition: Tensor, one: Said, other: Said) -> Said:
    """`one` in the transcripts where `condition` is, else `other`."""
    return Said(
        tokens=torch.where(condition[:, None], one.tokens, other.tokens),
        length=torch.where(condition, one.length, other.length),
    )


def _is_within(count: Tensor, said: Said) -> Tensor:
    """Whether place `count` is one of `said` that is remembered, bool, shape (n,)."""
    return count < said.length.clamp(max=MEMORY)


def _goes_on(said: Said, count: Tensor, tokens: Tensor) -> Tensor:
    """Whether `said` has these tokens at place `count`, bool, shape (n,)."""
    at = said.tokens.gather(1, count.clamp(max=MEMORY - 1)[:, None])[:, 0]
    return _is_within(count, said) & (at == tokens)
