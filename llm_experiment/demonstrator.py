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
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from llm_experiment.dialogue_task import (
    COLON,
    EMPTY,
    NEWLINE,
    START,
    DialogueTask,
    Remainder,
    Role,
    Silence,
    Style,
    load_task,
    parse_template,
    task_names,
    tokenize,
)
from theory.errors import InvalidArgumentError, InvalidHistoryError, InvalidShapeError

__all__ = [
    "DialogueProcess",
    "DialogueTask",
    "Estimate",
    "FilterState",
    "Role",
    "Silence",
    "Style",
    "entropy_floor",
    "load_task",
    "task_names",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
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


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over independent dialogues with a normal confidence interval."""

    mean: float
    low: float
    high: float
    confidence: float
    n_dialogues: int


@dataclass(frozen=True, kw_only=True)
class _Tables:
    """A task compiled to arrays.

    Templates are the pairs of a style and a template text, then one empty template a style, then
    the start. Nodes are the pairs of a template and a remainder. Moods are indexed as in
    `DialogueTask.moods`.
    """

    style_of: Ints  # (templates + 1,); 0 for the start
    mood_of: Ints  # (templates + 1,)
    group: Floats  # (templates + 1, moods * styles): one-hot (mood, style)
    choice: Floats  # (2, 2, moods, templates + 1): [may be silent, own last empty, mood, i]
    prior: Floats  # (roles, styles)
    template_of: Ints  # (nodes,)
    start_node: Ints  # (templates,)
    end_node: Ints  # (templates,)
    emission: Floats  # (nodes, vocabulary), rows sum to 1
    # By token x, its edges m -> m' with weight P(x, m' | m), padded with weight 0:
    edge_from: Ints  # (vocabulary, edges)
    edge_to: Ints  # (vocabulary, edges)
    edge_weight: Floats  # (vocabulary, edges)
    # By node, its edges again, as a cumulative law to draw from:
    draw_cumulative: Floats  # (nodes, edges)
    draw_token: Ints  # (nodes, edges)
    draw_to: Ints  # (nodes, edges)


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
        self._tables = _compile(task, self._index)
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
            InvalidArgumentError: negative sizes; speakers unknown or equal.
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
        transcript[:, : len(self._note)] = self._note[:n_tokens]
        at = np.full(n_dialogues, min(len(self._note), n_tokens))

        def write(rows: Ints, tokens: Ints) -> None:
            transcript[rows, at[rows]] = tokens
            at[rows] = np.minimum(at[rows] + 1, n_tokens)

        turn = 0
        rows = np.flatnonzero(at < n_tokens)
        while rows.size:
            who = turn % 2
            redraw = rng.random(rows.size) < (1.0 if turn < 2 else self.task.style_redraw)
            fresh = _draw(rng, tables.prior[roles[rows, who]])
            styles[rows, who] = np.where(redraw, fresh, styles[rows, who])
            choice = tables.choice[
                self._may_be_silent[roles[rows, who]], silent[rows, who], mood[rows]
            ]
            template = _draw(rng, choice * (tables.style_of == styles[rows, who][:, None]))
            mood[rows] = tables.mood_of[template]
            silent[rows, who] = mood[rows] == self.task.moods.index(EMPTY)
            write(rows, self._name[roles[rows, who]])
            write(rows, np.full(rows.size, self._colon))
            node, speaking = tables.start_node[template], rows
            while speaking.size:
                u = rng.random(speaking.size)
                edge = (tables.draw_cumulative[node] <= u[:, None]).sum(axis=1)
                word = tables.draw_token[node, edge]
                write(speaking, word)
                goes_on = word != self._newline
                node = tables.draw_to[node, edge][goes_on]
                speaking = speaking[goes_on]
            rows = rows[at[rows] < n_tokens]
            turn += 1
        return transcript[:, :n_tokens]

    def _draw_speakers(
        self, rng: np.random.Generator, n: int, speakers: tuple[str, str] | None
    ) -> Ints:
        if speakers is not None:
            return np.tile(self._role_indices(speakers), (n, 1))
        n_roles = len(self.task.roles)
        first = rng.integers(n_roles, size=n)
        second = (first + rng.integers(1, n_roles, size=n)) % n_roles
        return np.stack([first, second], axis=1)

    def _role_indices(self, speakers: tuple[str, str]) -> Ints:
        names = list(self.task.roles)
        for name in speakers:
            if name not in names:
                raise InvalidArgumentError(f"{name!r} is no role; there are {', '.join(names)}")
        if speakers[0] == speakers[1]:
            raise InvalidArgumentError(f"two different speakers are needed, got {speakers}")
        return np.array([names.index(name) for name in speakers], dtype=np.int64)

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
            position=np.zeros((n, len(tables.template_of))),
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
            nodes = state.position[rows] * state.turn[rows].sum(axis=-1)[:, tables.template_of]
            probs[rows] = (nodes @ tables.emission) / nodes.sum(axis=1, keepdims=True)
        return probs

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
                log_probs = self.log_probs(state)
                result[start : start + _BATCH, t] = log_probs[np.arange(len(batch)), tokens]
                state = self._advance(state, tokens)
        return result

    def _name_probs(self, state: FilterState, rows: Ints) -> Floats:
        """The law of the speaker to be named, shape (len(rows), roles)."""
        n_roles = len(self.task.roles)
        n_turns = state.n_turns[rows]
        named = state.speakers[rows, n_turns % 2]
        probs = np.full((rows.size, n_roles), 1.0 / n_roles)
        second = np.flatnonzero(n_turns == 1)
        probs[second] = 1.0 / (n_roles - 1)
        probs[second, state.speakers[rows[second], 0]] = 0.0
        later = np.flatnonzero(n_turns > 1)
        probs[later] = 0.0
        probs[later, named[later]] = 1.0
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
        n_moods, n_styles = tables.choice.shape[2], tables.prior.shape[1]
        # P(mood of the last turn, its speaker's style, this speaker's style as it last was)
        last = (tables.group.T @ state.turn[rows]).reshape(-1, n_moods, n_styles, n_styles)
        redraw = np.where(n_turns < 2, 1.0, self.task.style_redraw)[:, None, None, None]
        fresh = last.sum(axis=-1, keepdims=True) * tables.prior[role][:, None, None, :]
        style = (1 - redraw) * last + redraw * fresh
        own_silent = state.silent[rows, who].astype(int)
        choice = tables.choice[self._may_be_silent[role], own_silent]
        turn = np.einsum("nkst,nkt->nts", style[..., tables.style_of], choice)
        state.turn[rows] = turn / turn.sum(axis=(1, 2), keepdims=True)
        position = np.zeros((rows.size, len(tables.template_of)))
        position[:, tables.start_node] = 1.0
        state.position[rows] = position
        state.n_words[rows] = 0
        state.n_turns[rows] += 1
        state.phase[rows] = _Phase.COLON

    def _say(self, state: FilterState, rows: Ints, tokens: Ints) -> None:
        """Read words: move along the automata of the templates that say them."""
        tables = self._tables
        n_nodes = len(tables.template_of)
        moved = (
            np.take_along_axis(state.position[rows], tables.edge_from[tokens], axis=1)
            * tables.edge_weight[tokens]
        )
        to = tables.edge_to[tokens] + np.arange(rows.size)[:, None] * n_nodes
        position = np.bincount(
            to.ravel(), weights=moved.ravel(), minlength=rows.size * n_nodes
        ).reshape(-1, n_nodes)
        state.position[rows] = position
        template_alive = state.turn[rows].sum(axis=-1)[:, tables.template_of]
        state.possible[rows] = (position * template_alive).sum(axis=1) > 0
        state.n_words[rows] += 1

    def _end_turns(self, state: FilterState, rows: Ints) -> None:
        """Read line breaks: the templates that end here are what was said."""
        tables = self._tables
        said = np.zeros((rows.size, len(tables.style_of)))
        said[:, :-1] = state.position[rows][:, tables.end_node]
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


def entropy_floor(
    process: DialogueProcess,
    rng: np.random.Generator,
    *,
    n_dialogues: int,
    n_tokens: int,
    confidence: float = 0.95,
) -> Estimate:
    """The entropy of transcripts in nats a token: what no model's loss can be below.

    By simulation: the mean over dialogues of `sum_t H(tau(. | x_{<t})) / n_tokens`. Conditional
    entropies have the mean of log-losses and less variance.

    Args:
        process: tau.
        rng: the source of randomness.
        n_dialogues: independent transcripts to average over, at least 2.
        n_tokens: the length of each, at least 1.
        confidence: of the interval.
    """
    if n_dialogues < 2 or n_tokens < 1:
        raise InvalidArgumentError(
            f"an interval needs n_dialogues >= 2 and n_tokens >= 1, got {n_dialogues} and "
            f"{n_tokens}"
        )
    transcripts = process.sample(rng, n_dialogues, n_tokens)
    means = np.empty(n_dialogues)
    for start in range(0, n_dialogues, _BATCH):
        log_probs = process.predictive_log_probs(transcripts[start : start + _BATCH])
        finite = np.where(np.isneginf(log_probs), 0.0, log_probs)
        means[start : start + _BATCH] = -(np.exp(log_probs) * finite).sum(axis=(1, 2)) / n_tokens
    return mean_over_dialogues(means, confidence=confidence)


def mean_over_dialogues(values: Floats, *, confidence: float = 0.95) -> Estimate:
    """The mean of one value a dialogue, shape (n,), with its normal confidence interval."""
    if not 0 < confidence < 1:
        raise InvalidArgumentError(f"confidence must lie in (0, 1), got {confidence}")
    half = float(stats.norm.ppf((1 + confidence) / 2) * values.std(ddof=1) / np.sqrt(len(values)))
    mean = float(values.mean())
    return Estimate(
        mean=mean,
        low=mean - half,
        high=mean + half,
        confidence=confidence,
        n_dialogues=len(values),
    )


def _draw(rng: np.random.Generator, weights: Floats) -> Ints:
    """One index a row, with probability proportional to its weight, shape (n,)."""
    cumulative = weights.cumsum(axis=1)
    u = rng.random(len(weights)) * cumulative[:, -1]
    return np.asarray((cumulative <= u[:, None]).sum(axis=1))


def _compile(task: DialogueTask, index: dict[str, int]) -> _Tables:
    moods, styles = list(task.moods), list(task.styles)
    said = [
        (styles.index(s), moods.index(m), parse_template(text)) for s, m, text in task.templates()
    ]
    said += [(s, moods.index(EMPTY), ()) for s in range(len(styles))]
    style_of = np.array([s for s, _, _ in said] + [0])
    mood_of = np.array([m for _, m, _ in said] + [moods.index(START)])
    group = np.zeros((len(style_of), len(moods), len(styles)))
    group[np.arange(len(style_of)), mood_of, style_of] = 1.0
    prior = np.array([[role.styles.get(s, 0.0) for s in styles] for role in task.roles.values()])
    nodes = _nodes(task, [remainder for _, _, remainder in said])
    return _Tables(
        style_of=style_of,
        mood_of=mood_of,
        group=group.reshape(len(style_of), -1),
        choice=_choice(task, style_of, mood_of),
        prior=prior / prior.sum(axis=1, keepdims=True),
        template_of=np.array([template for template, _ in nodes]),
        start_node=np.array([nodes[i, remainder] for i, (_, _, remainder) in enumerate(said)]),
        end_node=np.array([nodes[i, ()] for i in range(len(said))]),
        **_edges(task, index, nodes),
    )


def _choice(task: DialogueTask, style_of: Ints, mood_of: Ints) -> Floats:
    """P(template | its style, may be silent, own last turn empty, mood replied to)."""
    moods = list(task.moods)
    choice = np.zeros((2, 2, len(moods), len(style_of)))
    for s, style in enumerate(task.styles.values()):
        for k, mood in enumerate(moods):
            weights = style.replies[mood]
            for own_silent in (False, True):
                quiet = style.silence.unprompted
                if mood == EMPTY:
                    quiet = style.silence.once_silent if own_silent else style.silence.after_empty
                for may_be_silent in (False, True):
                    empty = quiet if may_be_silent else 0.0
                    row = choice[int(may_be_silent), int(own_silent), k]
                    for i in np.flatnonzero(style_of[:-1] == s):
                        own_mood = moods[mood_of[i]]
                        if own_mood == EMPTY:
                            row[i] = empty
                        else:
                            share = weights.get(own_mood, 0.0) / sum(weights.values())
                            row[i] = (1 - empty) * share / len(style.says[own_mood])
    return choice


def _nodes(task: DialogueTask, templates: Sequence[Remainder]) -> dict[tuple[int, Remainder], int]:
    """All (template, remainder) that can be reached, numbered."""
    nodes: dict[tuple[int, Remainder], int] = {}
    for i, template in enumerate(templates):
        unexplored = [template]
        while unexplored:
            remainder = unexplored.pop()
            if (i, remainder) not in nodes:
                nodes[i, remainder] = len(nodes)
                unexplored += [rest for _, rest in task.next_words(remainder)]
    return nodes


def _edges(
    task: DialogueTask, index: dict[str, int], nodes: dict[tuple[int, Remainder], int]
) -> dict[str, NDArray[np.float64] | NDArray[np.int64]]:
    """The automata's edges, by token and by node."""
    emission = np.zeros((len(nodes), len(index)))
    by_token: list[list[tuple[int, int, float]]] = [[] for _ in index]
    by_node: list[list[tuple[int, int, float]]] = [[] for _ in nodes]
    for (i, remainder), node in nodes.items():
        for (token, rest), weight in task.next_words(remainder).items():
            x, to = index[token], nodes[i, rest]
            emission[node, x] += weight
            by_node[node].append((x, to, weight))
            if token != NEWLINE:
                by_token[x].append((node, to, weight))
    edge_from, edge_to, edge_weight = _pad(by_token)
    draw_token, draw_to, draw_weight = _pad(by_node)
    # Every row ends at 1 whatever the rounding, so that no padding is ever drawn.
    cumulative = draw_weight.cumsum(axis=1)
    cumulative[cumulative >= cumulative[:, -1:]] = 1.0
    return {
        "emission": emission,
        "edge_from": edge_from,
        "edge_to": edge_to,
        "edge_weight": edge_weight,
        "draw_cumulative": cumulative,
        "draw_token": draw_token,
        "draw_to": draw_to,
    }


def _pad(lists: Sequence[Sequence[tuple[int, int, float]]]) -> tuple[Ints, Ints, Floats]:
    """Lists of (integer, integer, weight) as three arrays, short lists padded with weight 0."""
    width = max(map(len, lists))
    first, second = np.zeros((2, len(lists), width), dtype=np.int64)
    weight = np.zeros((len(lists), width))
    for row, items in enumerate(lists):
        for column, (a, b, w) in enumerate(items):
            first[row, column], second[row, column], weight[row, column] = a, b, w
    return first, second, weight
