"""The known demonstrator tau: a dialogue process, its sampler and its exact filter.

Tau draws a transcript thus. After the note, two different roles are drawn; they speak in turns.
A speaker's style is drawn from its role's weights at its first turn, and drawn anew before every
later one with probability `style_redraw`. A turn is empty with the probability of its style's
`Silence` (0 for a role that is never silent); otherwise its mood is drawn given the mood of the
turn replied to, then a template of that style and mood, then the phrases of its slots.

The exact predictive law `tau(x_t | x_{<t})` follows from the posterior over what is hidden. All
of a turn's words depend on the hidden state through its template i alone, so that state splits:

- `turn[i, s]`, the posterior at the start of the turn that the template is i (which implies the
  speaker's style) and the other speaker's style is s;
- `position[m]`, the probability that template i(m) says the words so far and then stands at
  node m of its automaton (a node is what remains to be said);

and `tau(x | x_{<t}) ∝ sum_m position[m] (sum_s turn[i(m), s]) emission[m, x]`. A word updates
`position` only; a line break and a name update `turn` only. Both are linear, so a filter over a
batch of transcripts is a few small array operations a token, and has no approximation in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm_experiment.dialogue.tables import Floats, Ints, compile_task
from llm_experiment.dialogue.task import (
    COLON,
    EMPTY,
    NEWLINE,
    START,
    DialogueTask,
    tokenize,
)
from theory.errors import InvalidArgumentError, InvalidHistoryError, InvalidShapeError

Bools = NDArray[np.bool_]

_UNKNOWN_ROLE: Final = -1
_BATCH: Final = 256
"""Transcripts filtered at a time: the arrays of that many stay in a processor's cache."""


class _Phase(IntEnum):
    """What the next token of a transcript is part of."""

    NOTE = 0
    NAME = 1
    COLON = 2
    BODY = 3


class _Manner(NamedTuple):
    """How the speakers of n turns speak as these begin.

    Attributes:
        prior: of the style, where it is drawn, shape (n, styles).
        may_be_silent: shape (n,).
        anew: whether the style is drawn anew whatever the dice say, shape (n,).
    """

    prior: Floats
    may_be_silent: Ints
    anew: Bools


@dataclass(frozen=True, kw_only=True)
class FilterState:
    """The posterior over what is hidden, for n transcripts of equal length.

    Attributes:
        possible: tau gives the transcript positive probability, shape (n,). Once False it
            remains so, and every log-probability after it is -inf.
        phase: what comes next, shape (n,).
        n_tokens: the transcripts' length.
        n_turns: turns begun, shape (n,).
        speakers: roles of the first and the second speaker, -1 until named, shape (n, 2).
        silent: whether each speaker's last turn was empty, shape (n, 2).
        n_words: tokens of the present turn after the colon, shape (n,).
        turn: P(template, other speaker's style | transcript up to this turn), shape
            (n, templates + 1, styles); the last template stands for the start of a transcript.
            After a line break: given the whole transcript.
        position: P(words of this turn, and node | template), shape (n, nodes).
    """

    possible: Bools
    phase: Ints
    n_tokens: int
    n_turns: Ints
    speakers: Ints
    silent: Bools
    n_words: Ints
    turn: Floats
    position: Floats


class DialogueProcess:
    """Tau of a `DialogueTask`: sampling, and exact predictive log-probabilities in nats.

    Tokens are indices into `vocabulary`, which is the task's (`DialogueTask.vocabulary`);
    `"".join(vocabulary[x] for x in transcript)` is a transcript's text. A turn's tokens are its
    speaker's name, `:`, the words and punctuation, and a line break.
    """

    def __init__(self, task: DialogueTask) -> None:
        self.task = task
        self.vocabulary = task.vocabulary
        self._index = {token: x for x, token in enumerate(self.vocabulary)}
        self._newline = self._index[NEWLINE]
        self._colon = self._index[COLON]
        self._note = np.array([self._index[token] for token in tokenize(task.note)], dtype=np.int64)
        self._name = np.array([self._index[name] for name in task.roles], dtype=np.int64)
        self._role_of_token = np.full(len(self.vocabulary), _UNKNOWN_ROLE)
        self._role_of_token[self._name] = np.arange(len(task.roles))
        self._may_be_silent = np.array([r.may_be_silent for r in task.roles.values()], dtype=int)
        roles = list(task.roles)
        self._pairs = np.array([[roles.index(name) for name in pair] for pair in task.pairs])
        talk = np.zeros((len(roles), len(roles)))
        np.add.at(talk, (self._pairs, self._pairs[:, ::-1]), 1.0)
        self._first_speaker = talk.sum(axis=1) / talk.sum()
        # A role in no pair never speaks first, so that its row is never read.
        self._second_speaker = talk / np.maximum(talk.sum(axis=1, keepdims=True), 1.0)
        self._tables = compile_task(task, self._index)
        if not self.read(self.prompt[None]).possible[0]:
            raise InvalidHistoryError(
                f"the prompt of task {task.name!r} has probability 0 under its own process"
            )

    @cached_property
    def prompt(self) -> Ints:
        """The task's starting transcript, shape (tokens,)."""
        return self.encode(self.task.prompt)

    def encode(self, text: str) -> Ints:
        """The tokens of a text, shape (tokens,).

        Raises:
            InvalidArgumentError: a word that is not in the vocabulary.
        """
        tokens = tokenize(text)
        for token in tokens:
            if token not in self._index:
                raise InvalidArgumentError(
                    f"{token!r} is not in the vocabulary of task {self.task.name!r}"
                )
        return np.array([self._index[token] for token in tokens], dtype=np.int64)

    def decode(self, tokens: Sequence[int] | Ints) -> str:
        """The text of a transcript."""
        return "".join(self.vocabulary[token] for token in tokens)

    def turn_begins(self, transcripts: Ints, role: str) -> Bools:
        """Where turns of a role begin, at its name, if the colon after it is there, too.

        Args:
            transcripts: shape (n, tokens).
            role: its name.

        Returns:
            Shape (n, tokens).
        """
        found = np.zeros(transcripts.shape, dtype=bool)
        name = transcripts[:, :-1] == self._index[role]
        found[:, :-1] = name & (transcripts[:, 1:] == self._colon)
        return found

    # ---------------------------------------------------------------- sampling

    def sample(
        self,
        rng: np.random.Generator,
        n_dialogues: int,
        n_tokens: int,
        *,
        speakers: tuple[str, str] | None = None,
    ) -> Ints:
        """Independent transcripts, cut after `n_tokens` tokens.

        Args:
            rng: the source of randomness.
            n_dialogues: how many.
            n_tokens: the length of each.
            speakers: the first and the second speaker's roles; drawn if None.

        Returns:
            Shape (n_dialogues, n_tokens).

        Raises:
            InvalidArgumentError: negative sizes; speakers who do not talk with each other.
        """
        if n_dialogues < 0 or n_tokens < 0:
            raise InvalidArgumentError(
                f"n_dialogues and n_tokens must be >= 0, got {n_dialogues} and {n_tokens}"
            )
        tables = self._tables
        roles = self._draw_speakers(rng, n_dialogues, speakers)
        styles = np.zeros((n_dialogues, 2), dtype=np.int64)
        silent = np.zeros((n_dialogues, 2), dtype=int)
        mood = np.full(n_dialogues, self.task.moods.index(START))
        # Whatever runs over the end is written to the last column and cut off.
        transcript = np.zeros((n_dialogues, n_tokens + 1), dtype=np.int64)
        note = self._note[:n_tokens]
        transcript[:, : note.size] = note
        at = np.full(n_dialogues, note.size)

        def write(rows: Ints, tokens: Ints) -> None:
            transcript[rows, at[rows]] = tokens
            at[rows] = np.minimum(at[rows] + 1, n_tokens)

        turn = 0
        rows = np.flatnonzero(at < n_tokens)
        while rows.size:
            who = turn % 2
            manner = self._manner(roles[rows, who], at[rows])
            redraw = rng.random(rows.size) < (1.0 if turn < 2 else self.task.style_redraw)
            fresh = _draw(rng, manner.prior)
            styles[rows, who] = np.where(redraw | manner.anew, fresh, styles[rows, who])
            choice = tables.choice[manner.may_be_silent, silent[rows, who], mood[rows]]
            template = _draw(rng, choice * (tables.style_of == styles[rows, who][:, None]))
            mood[rows] = tables.mood_of[template]
            silent[rows, who] = mood[rows] == self.task.moods.index(EMPTY)
            write(rows, self._name[roles[rows, who]])
            write(rows, np.full(rows.size, self._colon))
            node, speaking = tables.words.start[template], rows
            while speaking.size:
                word, node = tables.words.draw(rng, node)
                write(speaking, word)
                goes_on = word != self._newline
                node, speaking = node[goes_on], speaking[goes_on]
            rows = rows[at[rows] < n_tokens]
            turn += 1
        return transcript[:, :n_tokens]

    def sample_replies(self, rng: np.random.Generator, n: int) -> tuple[list[str], Floats]:
        """Single turns for a sentiment model to learn from, each template equally likely.

        Returns:
            Their texts, from after the colon to before the line break, and the probabilities of
            the label POSITIVE that the task gives to their moods, shape (n,).
        """
        tables = self._tables
        spoken = np.flatnonzero(tables.mood_of > self.task.moods.index(EMPTY))
        template = spoken[rng.integers(len(spoken), size=n)]
        node, rows = tables.words.start[template], np.arange(n)
        words: list[list[str]] = [[] for _ in range(n)]
        while rows.size:
            word, node = tables.words.draw(rng, node)
            goes_on = word != self._newline
            rows, word, node = rows[goes_on], word[goes_on], node[goes_on]
            for row, x in zip(rows, word, strict=True):
                words[row].append(self.vocabulary[x])
        positive = np.array(
            [self.task.positive[self.task.moods[m]] for m in tables.mood_of[template]]
        )
        return ["".join(turn) for turn in words], positive

    def _draw_speakers(
        self, rng: np.random.Generator, n: int, speakers: tuple[str, str] | None
    ) -> Ints:
        if speakers is not None:
            if set(speakers) not in map(set, self.task.pairs):
                raise InvalidArgumentError(
                    f"speakers must be one of {self.task.pairs} in either order, got {speakers}"
                )
            roles = list(self.task.roles)
            return np.tile([roles.index(name) for name in speakers], (n, 1))
        pair = self._pairs[rng.integers(len(self._pairs), size=n)]
        return np.where(rng.random((n, 1)) < 0.5, pair, pair[:, ::-1])

    # --------------------------------------------------------------- filtering

    def begin(self, n: int) -> FilterState:
        """The state of `n` empty transcripts."""
        if n < 0:
            raise InvalidArgumentError(f"n must be >= 0, got {n}")
        tables = self._tables
        turn = np.zeros((n, len(tables.style_of), len(self.task.styles)))
        turn[:, -1, 0] = 1.0
        return FilterState(
            possible=np.ones(n, dtype=bool),
            phase=np.full(n, _Phase.NOTE if self._note.size else _Phase.NAME),
            n_tokens=0,
            n_turns=np.zeros(n, dtype=np.int64),
            speakers=np.full((n, 2), _UNKNOWN_ROLE),
            silent=np.zeros((n, 2), dtype=bool),
            n_words=np.zeros(n, dtype=np.int64),
            turn=turn,
            position=np.zeros((n, len(tables.words.template_of))),
        )

    def append(self, state: FilterState, tokens: Ints) -> FilterState:
        """The state after one more token of every transcript.

        Args:
            state: of n transcripts; left as it is.
            tokens: shape (n,).

        Raises:
            InvalidShapeError: not one token a transcript.
            InvalidHistoryError: a token outside the vocabulary.
        """
        tokens = self._check_tokens(tokens, shape=state.possible.shape)
        new = replace(
            state,
            possible=state.possible.copy(),
            phase=state.phase.copy(),
            n_turns=state.n_turns.copy(),
            speakers=state.speakers.copy(),
            silent=state.silent.copy(),
            n_words=state.n_words.copy(),
            turn=state.turn.copy(),
            position=state.position.copy(),
        )
        return self._advance(new, tokens)

    def log_probs(self, state: FilterState) -> Floats:
        """`log tau(x | transcript)` in nats of every next token x.

        Returns:
            Shape (n, vocabulary); -inf exactly where tau is 0, and everywhere in the row of a
            transcript that is not `possible`.
        """
        with np.errstate(divide="ignore"):
            return np.log(self.probs(state))

    def probs(self, state: FilterState) -> Floats:
        """`tau(x | transcript)`, shape (n, vocabulary); see `log_probs`."""
        tables = self._tables
        probs = np.zeros((len(state.possible), len(self.vocabulary)))
        rows = np.flatnonzero(state.possible & (state.phase == _Phase.NOTE))
        if rows.size:
            probs[rows, self._note[state.n_tokens]] = 1.0
        rows = np.flatnonzero(state.possible & (state.phase == _Phase.NAME))
        if rows.size:
            probs[rows[:, None], self._name] = self._name_probs(state, rows)
        rows = np.flatnonzero(state.possible & (state.phase == _Phase.COLON))
        probs[rows, self._colon] = 1.0
        rows = np.flatnonzero(state.possible & (state.phase == _Phase.BODY))
        if rows.size:
            nodes = self._nodes(state, rows)
            probs[rows] = (nodes @ tables.words.emission) / nodes.sum(axis=1, keepdims=True)
        return probs

    def _probs_of(self, state: FilterState, tokens: Ints) -> Floats:
        """`probs` of one token each, shape (n,): within a turn without the law of all others."""
        probs = np.zeros(len(state.possible))
        body = state.possible & (state.phase == _Phase.BODY)
        rows = np.flatnonzero(body)
        if rows.size:
            nodes = self._nodes(state, rows)
            emitted = self._tables.words.emission.T[tokens[rows]]
            probs[rows] = (nodes * emitted).sum(axis=1) / nodes.sum(axis=1)
        if not body.all():
            others = replace(state, possible=state.possible & ~body)
            probs += self.probs(others)[np.arange(len(tokens)), tokens]
        return probs

    def _nodes(self, state: FilterState, rows: Ints) -> Floats:
        """Where in which template the turns of some transcripts may be; not normalised."""
        templates = state.turn[rows].sum(axis=-1)
        return np.asarray(state.position[rows] * templates[:, self._tables.words.template_of])

    def read(self, transcripts: Ints) -> FilterState:
        """The state after transcripts, shape (n, tokens)."""
        transcripts = self._check_transcripts(transcripts)
        state = self.begin(len(transcripts))
        for tokens in transcripts.T:
            state = self._advance(state, tokens)
        return state

    def predictive_log_probs(self, transcripts: Ints) -> Floats:
        """`log tau(x | x_{<t})` in nats at every position of transcripts.

        Args:
            transcripts: shape (n, tokens).

        Returns:
            Shape (n, tokens, vocabulary), 8 bytes an entry: entry [i, t] is the law of token t,
            given those before it. See `log_probs` for impossible transcripts.
        """
        transcripts = self._check_transcripts(transcripts)
        result = np.empty((*transcripts.shape, len(self.vocabulary)))
        for start in range(0, len(transcripts), _BATCH):
            batch = transcripts[start : start + _BATCH]
            state = self.begin(len(batch))
            for t, tokens in enumerate(batch.T):
                result[start : start + _BATCH, t] = self.log_probs(state)
                state = self._advance(state, tokens)
        return result

    def log_likelihoods(self, transcripts: Ints) -> Floats:
        """`log tau(x_t | x_{<t})` in nats of the tokens that transcripts hold.

        Args:
            transcripts: shape (n, tokens).

        Returns:
            Shape (n, tokens); -inf from the first impossible token on.
        """
        transcripts = self._check_transcripts(transcripts)
        result = np.empty(transcripts.shape)
        for start in range(0, len(transcripts), _BATCH):
            batch = transcripts[start : start + _BATCH]
            state = self.begin(len(batch))
            for t, tokens in enumerate(batch.T):
                result[start : start + _BATCH, t] = self._probs_of(state, tokens)
                state = self._advance(state, tokens)
        with np.errstate(divide="ignore"):
            return np.log(result)

    def _name_probs(self, state: FilterState, rows: Ints) -> Floats:
        """The law of the speaker to be named, shape (len(rows), roles)."""
        n_turns = state.n_turns[rows]
        probs = np.tile(self._first_speaker, (rows.size, 1))
        second = np.flatnonzero(n_turns == 1)
        probs[second] = self._second_speaker[state.speakers[rows[second], 0]]
        later = np.flatnonzero(n_turns > 1)
        probs[later] = 0.0
        probs[later, state.speakers[rows[later], n_turns[later] % 2]] = 1.0
        return probs

    def _advance(self, state: FilterState, tokens: Ints) -> FilterState:
        """`append` in place."""
        phase = state.phase.copy()
        live = state.possible.copy()
        n_tokens = state.n_tokens
        rows = np.flatnonzero(live & (phase == _Phase.NOTE))
        if rows.size:
            state.possible[rows] = tokens[rows] == self._note[n_tokens]
            if n_tokens + 1 == self._note.size:
                state.phase[rows] = _Phase.NAME
        rows = np.flatnonzero(live & (phase == _Phase.NAME))
        if rows.size:
            self._begin_turns(state, rows, tokens[rows])
        rows = np.flatnonzero(live & (phase == _Phase.COLON))
        if rows.size:
            state.possible[rows] = tokens[rows] == self._colon
            state.phase[rows] = _Phase.BODY
        rows = np.flatnonzero(live & (phase == _Phase.BODY) & (tokens != self._newline))
        if rows.size:
            self._say(state, rows, tokens[rows])
        rows = np.flatnonzero(live & (phase == _Phase.BODY) & (tokens == self._newline))
        if rows.size:
            self._end_turns(state, rows)
        return replace(state, n_tokens=n_tokens + 1)

    def _begin_turns(self, state: FilterState, rows: Ints, tokens: Ints) -> None:
        """Read the names that open a turn: draw style, mood and template anew."""
        tables = self._tables
        role = self._role_of_token[tokens]
        probability = np.where(
            role == _UNKNOWN_ROLE,
            0.0,
            self._name_probs(state, rows)[np.arange(rows.size), role],
        )
        state.possible[rows] = probability > 0
        keep = probability > 0
        rows, role = rows[keep], role[keep]
        n_turns = state.n_turns[rows]
        who = n_turns % 2
        state.speakers[rows, who] = role
        manner = self._manner(role, np.full(rows.size, state.n_tokens))
        redraw = np.where((n_turns < 2) | manner.anew, 1.0, self.task.style_redraw)
        choice = tables.choice[manner.may_be_silent, state.silent[rows, who].astype(int)]
        # Of all templates few may have been said: one term for each that may.
        at, said = np.nonzero(state.turn[rows].any(axis=-1))
        last = state.turn[rows[at], said]
        kept = last[:, tables.style_of]
        fresh = last.sum(axis=-1, keepdims=True) * manner.prior[:, tables.style_of][at]
        anew = redraw[at, None]
        terms = ((1 - anew) * kept + anew * fresh) * choice[at, tables.mood_of[said]]
        # Each goes to the templates of this turn, and to the style that the last one was said in.
        n_templates, n_styles = state.turn.shape[1:]
        to = at[:, None] * n_templates + np.arange(n_templates)
        to = to * n_styles + tables.style_of[said][:, None]
        turn = np.bincount(
            to.ravel(), weights=terms.ravel(), minlength=rows.size * n_templates * n_styles
        ).reshape(-1, n_templates, n_styles)
        state.turn[rows] = turn / turn.sum(axis=(1, 2), keepdims=True)
        position = np.zeros((rows.size, tables.words.template_of.size))
        position[:, tables.words.start] = 1.0
        state.position[rows] = position
        state.n_words[rows] = 0
        state.n_turns[rows] += 1
        state.phase[rows] = _Phase.COLON

    def _manner(self, role: Ints, n_tokens: Ints) -> _Manner:
        """How roles speak in turns that begin after so many tokens, both of shape (n,)."""
        del n_tokens  # the same ever after
        anew = np.zeros(len(role), dtype=bool)
        return _Manner(self._tables.prior[role], self._may_be_silent[role], anew)

    def _say(self, state: FilterState, rows: Ints, tokens: Ints) -> None:
        """Read words: move along the automata of the templates that say them."""
        tables = self._tables
        n_nodes = len(tables.words.template_of)
        moved = (
            np.take_along_axis(state.position[rows], tables.words.read_from[tokens], axis=1)
            * tables.words.read_weight[tokens]
        )
        to = tables.words.read_to[tokens] + np.arange(rows.size)[:, None] * n_nodes
        position = np.bincount(
            to.ravel(), weights=moved.ravel(), minlength=rows.size * n_nodes
        ).reshape(-1, n_nodes)
        state.position[rows] = position
        template_alive = state.turn[rows].sum(axis=-1)[:, tables.words.template_of]
        state.possible[rows] = (position * template_alive).sum(axis=1) > 0
        state.n_words[rows] += 1

    def _end_turns(self, state: FilterState, rows: Ints) -> None:
        """Read line breaks: the templates that end here are what was said."""
        tables = self._tables
        said = np.zeros((rows.size, len(tables.style_of)))
        said[:, :-1] = state.position[rows][:, tables.words.end]
        turn = state.turn[rows] * said[..., None]
        mass = turn.sum(axis=(1, 2))
        state.possible[rows] = mass > 0
        rows, turn, mass = rows[mass > 0], turn[mass > 0], mass[mass > 0]
        state.turn[rows] = turn / mass[:, None, None]
        who = (state.n_turns[rows] - 1) % 2
        state.silent[rows, who] = state.n_words[rows] == 0
        state.phase[rows] = _Phase.NAME

    def _check_transcripts(self, transcripts: Ints) -> Ints:
        transcripts = np.asarray(transcripts)
        if transcripts.ndim != 2:
            raise InvalidShapeError(
                f"transcripts must have shape (n, tokens), got {transcripts.shape}"
            )
        return self._check_tokens(transcripts, shape=transcripts.shape)

    def _check_tokens(self, tokens: Ints, *, shape: tuple[int, ...]) -> Ints:
        tokens = np.asarray(tokens)
        if tokens.shape != shape:
            raise InvalidShapeError(f"tokens must have shape {shape}, got {tokens.shape}")
        size = len(self.vocabulary)
        outside = tokens[(tokens < 0) | (tokens >= size)]
        if outside.size:
            raise InvalidHistoryError(f"tokens must lie in 0..{size - 1}, got {outside.flat[0]}")
        return tokens.astype(np.int64)


class SwitchedProcess(DialogueProcess):
    """A process whose agent speaks in one style in all turns that begin after T tokens.

    A turn begins with its speaker's name; one that has begun before goes on as it was begun.
    Whatever was said before, the law after it is that of this style.

    Args:
        task: how everybody speaks, but for that.
        style: the agent's, from then on.
        after: T.
        may_be_silent: whether it may then be silent.

    Raises:
        InvalidArgumentError: no such style.
    """

    def __init__(self, task: DialogueTask, *, style: str, after: int, may_be_silent: bool) -> None:
        if style not in task.styles:
            raise InvalidArgumentError(f"{style!r} is not among the styles {tuple(task.styles)}")
        self._agent = list(task.roles).index(task.agent)
        self._after = after
        self._then = np.array([name == style for name in task.styles], dtype=np.float64)
        self._then_may_be_silent = int(may_be_silent)
        super().__init__(task)

    def _manner(self, role: Ints, n_tokens: Ints) -> _Manner:
        before = super()._manner(role, n_tokens)
        late = (role == self._agent) & (n_tokens >= self._after)
        return _Manner(
            prior=np.where(late[:, None], self._then, before.prior),
            may_be_silent=np.where(late, self._then_may_be_silent, before.may_be_silent),
            anew=late,
        )


def _draw(rng: np.random.Generator, weights: Floats) -> Ints:
    """One index a row, with probability proportional to its weight, shape (n,)."""
    cumulative = weights.cumsum(axis=1)
    total = cumulative[:, -1:]
    u = rng.random((len(weights), 1)) * total
    # The second condition keeps what has weight 0 from being drawn should u round up to total.
    return np.asarray(((cumulative <= u) & (cumulative < total)).sum(axis=1))
