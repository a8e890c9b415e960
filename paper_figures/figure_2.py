"""Figure 2: transcripts, every token of the agent's coloured by its KL cost.

Which transcript: of the agent with the smallest seed at a budget, the episode of median return
(of two in the middle the lower, of equal ones the first). The rule leaves no choice.

A line break is written ↵ and the figure's line goes on until the agent's turn begins, so that a
line is an exchange. The three costliest tokens bear numbers, explained below the transcript.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from llm_experiment.base.shipped import model_names
from llm_experiment.chat.token_texts import (
    read_tokenizer,
    spelt_texts,
    token_bytes,
    vocabulary_size,
)
from llm_experiment.chat.turn_records import NEWLINE, Speaker
from llm_experiment.config import WorldConfig
from llm_experiment.dialogue.task import speakers_of
from llm_experiment.records.reading import EvaluatedAgent, Experiment
from mightnt.figure_style import BLACK, PAGE_INCHES, new_figure
from paper_figures.artefact import Data, Product
from paper_figures.results import Sources, label_of, shown_budgets
from paper_figures.style import DARK_GREY, in_nats, stamp
from theory.errors import MissingDataError

EDGES_NATS: Final = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
N_FOOTNOTES: Final = 3
SHOWN_NEWLINE: Final = "↵"
_SUPERSCRIPTS: Final = "¹²³"
_FONT_POINTS: Final = 6.5
_CELL_POINTS: Final = (3.92, 8.6)
"""Width and height of a character of DejaVu Sans Mono at that size, with the line's leading."""
_CELLS_PER_LINE: Final = 60
_MARGIN_INCHES: Final = 0.08
_LEGEND_INCHES: Final = 0.42
_HEADER_INCHES: Final = 0.22
_POINTS_PER_INCH: Final = 72.0


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token of a transcript.

    Attributes:
        place: its index in the transcript.
        text: what it adds, line breaks as ↵.
        writer: who wrote it; nobody for the prompt's.
        kl_nats: the KL of the step that wrote it; 0 but at the agent's steps.
        budget_nats: what was left before it.
        footnote: 1, 2 or 3 for the costliest; 0 for others.
        opens: the agent's name begins with it, and so does a line of the figure.
    """

    place: int
    text: str
    writer: Speaker
    kl_nats: float
    budget_nats: float
    footnote: int
    opens: bool


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """One episode.

    Attributes:
        run: whose.
        episode: which one.
        episode_return: what it earned.
        tokens: all of them.
    """

    run: EvaluatedAgent
    episode: int
    episode_return: float
    tokens: tuple[Token, ...]


def build(sources: Sources) -> Product:
    """The figure."""
    experiment = sources.experiment()
    world = experiment.agent.world
    pieces = _token_bytes(world)
    transcripts = [
        median_transcript(_first_run(experiment, budget), pieces, name=speakers_of(world)[0])
        for budget in shown_budgets(experiment)
    ]
    laid_out = [list(_lines(transcript.tokens)) for transcript in transcripts]
    n_lines = max(map(len, laid_out)) + 1 + N_FOOTNOTES
    text_inches = n_lines * _CELL_POINTS[1] / _POINTS_PER_INCH
    height = _LEGEND_INCHES + _HEADER_INCHES + text_inches + 3 * _MARGIN_INCHES
    width = PAGE_INCHES if len(transcripts) > 1 else PAGE_INCHES / 2
    figure = new_figure(width, height)
    stamp(figure, label_of([transcript.run for transcript in transcripts]))
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, width * _POINTS_PER_INCH), ylim=(height * _POINTS_PER_INCH, 0))
    axes.axis("off")
    _draw_legend(axes, n_columns=len(transcripts))
    top = (_LEGEND_INCHES + _MARGIN_INCHES) * _POINTS_PER_INCH
    for column, (transcript, lines) in enumerate(zip(transcripts, laid_out, strict=True)):
        left = (column * PAGE_INCHES / 2 + _MARGIN_INCHES) * _POINTS_PER_INCH
        _draw_transcript(axes, transcript, lines, left=left, top=top)
    return Product(
        picture=figure,
        caption=_caption(transcripts),
        data=Data(
            columns=(
                "budget (nats)",
                "seed",
                "episode",
                "return",
                "token",
                "text",
                "writer",
                "KL (nats)",
                "budget left (nats)",
                "footnote",
            ),
            rows=tuple(
                (
                    transcript.run.budget_nats,
                    transcript.run.seed,
                    transcript.episode,
                    transcript.episode_return,
                    token.place,
                    token.text,
                    token.writer.name.lower(),
                    token.kl_nats,
                    token.budget_nats,
                    token.footnote or None,
                )
                for transcript in transcripts
                for token in transcript.tokens
            ),
        ),
    )


def _caption(transcripts: Sequence[Transcript]) -> str:
    which = "; ".join(
        f"budget {in_nats(t.run.budget_nats)}: seed {t.run.seed}, episode {t.episode}, return "
        f"{t.episode_return:.2f}"
        for t in transcripts
    )
    return (
        "Figure 2. Transcripts; the agent's tokens on a ground that shows the KL of its step "
        f"policy to the base policy, in nats. {SHOWN_NEWLINE} is a line break; a line of the "
        "figure begins where the agent's turn does. Grey: the prompt and the other speaker. "
        "Rule: of the agent with the smallest seed the episode of median return "
        f"({which}). Runs: {label_of([t.run for t in transcripts])}."
    )


def _first_run(experiment: Experiment, budget: float) -> EvaluatedAgent:
    """The run of a budget with the smallest seed."""
    runs = [run for run in experiment.main_runs if run.budget_nats == budget]
    return min(runs, key=lambda run: run.seed)


def _token_bytes(world: WorldConfig) -> tuple[bytes, ...]:
    """What each token of the base model adds to a transcript."""
    tokenizer = read_tokenizer(model_names(world)[0])
    return token_bytes(
        tokenizer, speaker=speakers_of(world)[0], n_tokens=vocabulary_size(tokenizer)
    )


def median_transcript(run: EvaluatedAgent, pieces: Sequence[bytes], *, name: str) -> Transcript:
    """The episode of median return.

    Args:
        run: whose episodes.
        pieces: the bytes of all tokens.
        name: the agent's in the transcript.
    """
    stored = run.episodes.arrays(
        "tokens", "writers", "kl_nats", "budget_nats", "rewards", "prompt_length"
    )
    returns = stored["rewards"].sum(axis=1)
    if not len(returns):
        raise MissingDataError(f"{run.episodes.path} holds no episodes; make it again")
    order = np.argsort(returns, kind="stable")
    middle = returns[order[(len(order) - 1) // 2]]
    episode = int(np.flatnonzero(returns == middle)[0])
    kl = stored["kl_nats"][episode]
    writers = np.where(
        np.arange(len(kl)) < int(stored["prompt_length"]),
        Speaker.NOBODY,
        stored["writers"][episode],
    )
    costliest = [i for i in np.argsort(-kl, kind="stable")[:N_FOOTNOTES].tolist() if kl[i] > 0]
    texts = spelt_texts(pieces, stored["tokens"][episode].tolist())
    spoken = [text.replace(NEWLINE, SHOWN_NEWLINE) for text in texts]
    opening = _opening(spoken, name)
    return Transcript(
        run=run,
        episode=episode,
        episode_return=float(middle),
        tokens=tuple(
            Token(
                place=i,
                text=spoken[i],
                writer=Speaker(int(writers[i])),
                kl_nats=float(kl[i]),
                budget_nats=float(stored["budget_nats"][episode, i]),
                footnote=costliest.index(i) + 1 if i in costliest else 0,
                opens=i in opening,
            )
            for i in range(len(kl))
        ),
    )


def _opening(spoken: Sequence[str], name: str) -> set[int]:
    """The tokens with which the agent's name begins, at the beginning of a line."""
    starts = itertools.accumulate(map(len, spoken), initial=0)
    token_at = dict(zip(starts, range(len(spoken)), strict=False))  # one more end than tokens
    names = re.finditer(f"(?<={SHOWN_NEWLINE}){re.escape(name)}", "".join(spoken))
    return {token_at[found.start()] for found in names if found.start() in token_at}


# --------------------------------------------------------------------------- layout

Placed = tuple[int, Token, str]
"""Where on its line a piece of a token stands, in cells."""


def _lines(tokens: Sequence[Token]) -> Iterator[list[Placed]]:
    """Tokens on lines: a new one for each turn of the agent, and where one is full."""
    line: list[Placed] = []
    at = 0
    for token in tokens:
        text = token.text + (_SUPERSCRIPTS[token.footnote - 1] if token.footnote else "")
        if line and (token.opens or at + len(text) > _CELLS_PER_LINE):
            yield line
            line, at = [], 0
        for start in range(0, len(text), _CELLS_PER_LINE):  # a token longer than a line
            piece = text[start : start + _CELLS_PER_LINE]
            if start:
                yield line
                line, at = [], 0
            line.append((at, token, piece))
            at += len(piece)
    if line:
        yield line


def _draw_transcript(
    axes: Axes, transcript: Transcript, lines: Sequence[list[Placed]], *, left: float, top: float
) -> None:
    run = transcript.run
    axes.text(
        left,
        top,
        f"budget {in_nats(run.budget_nats)}: "
        f"{sum(token.kl_nats for token in transcript.tokens):.2f} spent, "
        f"return {transcript.episode_return:.2f}",
        fontsize=8.0,
        va="top",
    )
    y = top + _HEADER_INCHES * _POINTS_PER_INCH
    for line in lines:
        for cell, token, piece in line:
            _draw_piece(axes, token, piece, x=left + cell * _CELL_POINTS[0], y=y)
        y += _CELL_POINTS[1]
    y += _CELL_POINTS[1] / 2
    noted = sorted((t for t in transcript.tokens if t.footnote), key=lambda t: t.footnote)
    for token in noted:
        axes.text(
            left,
            y,
            f"{_SUPERSCRIPTS[token.footnote - 1]} “{token.text.strip()}”, token {token.place}: "
            f"{token.kl_nats:.3g} of the {token.budget_nats:.3g} nats left",
            fontsize=7.0,
            va="top",
        )
        y += _CELL_POINTS[1]


def _draw_piece(axes: Axes, token: Token, piece: str, *, x: float, y: float) -> None:
    color = DARK_GREY
    if token.writer is Speaker.AGENT:
        ground, color = _ground(token.kl_nats)
        axes.add_patch(
            Rectangle(
                (x, y),
                len(piece) * _CELL_POINTS[0],
                _CELL_POINTS[1] * 0.94,
                facecolor=ground,
                edgecolor="white",
                linewidth=0.4,
            )
        )
    for i, character in enumerate(piece):
        if character != " ":
            axes.text(
                x + (i + 0.5) * _CELL_POINTS[0],
                y + _CELL_POINTS[1] * 0.76,
                character,
                family="DejaVu Sans Mono",
                fontsize=_FONT_POINTS,
                ha="center",
                va="baseline",
                color=color,
            )


def _ground(kl_nats: float) -> tuple[Any, str]:
    """The colour behind a token, darker for more nats also in grey, and that of its text."""
    step = int(np.searchsorted(EDGES_NATS, kl_nats, side="right"))
    share = step / len(EDGES_NATS)
    color = mpl.colormaps["YlOrRd"](0.02 + 0.93 * share)
    return color, "white" if share > 0.7 else BLACK


def _draw_legend(axes: Axes, *, n_columns: int) -> None:
    """A box a colour, with the least KL that gets it."""
    left = _MARGIN_INCHES * _POINTS_PER_INCH
    axes.text(left, left, "KL of the step that wrote a token (nats)", fontsize=7.5, va="top")
    lower = (0.0, *EDGES_NATS)
    width = (PAGE_INCHES / 2 - 2 * _MARGIN_INCHES) * _POINTS_PER_INCH / len(lower)
    start = left if n_columns == 1 else left + 2.6 * _POINTS_PER_INCH
    y = left + 11.0 if n_columns == 1 else left
    for i, least in enumerate(lower):
        ground, color = _ground(least)
        axes.add_patch(
            Rectangle((start + i * width, y), width - 1, 11.0, facecolor=ground, edgecolor="none")
        )
        axes.text(
            start + (i + 0.5) * width - 0.5,
            y + 5.5,
            f"≥ {least:g}" if least else f"< {EDGES_NATS[0]:g}",
            fontsize=6.5,
            ha="center",
            va="center",
            color=color,
        )
