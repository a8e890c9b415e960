"""Table 1: in which of two transcripts the agent behaves better, and in which less predictably.

The answers are those that `python -m llm_experiment.judge` stored in the run's folder: of the
built-in judge, which compares numbers of the transcripts, and of a language model if one was asked.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from llm_experiment.records.folder import JUDGE_FILE
from mightnt.results import read_json
from mightnt.statistics import MeanOverRuns
from mightnt.tables import Cell, Column, Table, to_markdown
from paper_figures.artefact import Data, Product
from paper_figures.results import Sources
from theory.errors import MissingDataError, ResultsError

_QUESTIONS: Final = {"better": "better", "more-complex": "more complex or unpredictable"}


def build(sources: Sources) -> Product:
    """The table."""
    experiment = sources.experiment()
    folders = [run.folder for run in experiment.folders]
    folder = next((f for f in folders if (f / JUDGE_FILE).exists()), None)
    if folder is None:
        raise MissingDataError(
            f"{folders[0]} is not judged yet: do it with "
            f"`python -m llm_experiment.judge {folders[0]}` (seconds, no network)"
        )
    judged = _read(folder / JUDGE_FILE)
    protocol = judged["protocol"]
    judgements = sorted(  # stable: comparisons and statistics keep their order
        judged["judgements"], key=lambda judgement: list(_QUESTIONS).index(judgement["question"])
    )
    criteria = dict.fromkeys(
        f"{judgement['model']}: {judgement['criterion']}" for judgement in judgements
    )
    return Product(
        picture=to_markdown(_table(judgements)),
        caption=(
            f"Table 1. Pairwise comparison of transcripts of {protocol['n_tokens']} tokens, "
            f"{protocol['n_pairs']} pairs each, who is shown in front drawn at random. Share of "
            "the decided pairs in which the first side was named, with Wilson's "
            f"{protocol['confidence']:.0%} interval over pairs (as published: about these "
            "agents), and the mean of the runs' shares with Student's over runs (about training). "
            "Judges: " + "; ".join(criteria) + f". Run: {judged['label']}."
        ),
        data=Data(
            columns=(
                "question",
                "comparison",
                "judge",
                "model",
                "pairs",
                "first",
                "second",
                "ties",
                "unparsable",
                "share of the first",
                "low, over pairs",
                "high, over pairs",
                "mean over runs",
                "low, over runs",
                "high, over runs",
                "share named in front",
            ),
            rows=tuple(_record(judgement) for judgement in judgements),
        ),
    )


def _read(path: Path) -> dict[str, Any]:
    def parse(content: Any) -> dict[str, Any]:
        judged: dict[str, Any] = content
        judged["protocol"], judged["judgements"], judged["label"]
        return judged

    remedy = "delete it and judge again"
    judged = read_json(path, parse, remedy=remedy)
    if judged is None:
        raise ResultsError(f"cannot read {path}: there is no such file; {remedy}")
    return judged


def _record(judgement: dict[str, Any]) -> tuple[Any, ...]:
    """One row of the data; the numbers that JSON lacks are the string "nan" there."""
    outcome = judgement["outcome"]
    every, runs = outcome["all"], outcome["over_runs"]
    return (
        judgement["question"],
        judgement["comparison"],
        judgement["judge"],
        judgement["model"],
        every["n_pairs"],
        every["first"],
        every["second"],
        every["ties"],
        every["unparsable"],
        _number(every["share"]),
        _number(outcome["pairs_low"]),
        _number(outcome["pairs_high"]),
        _number(runs["mean"]),
        _number(runs["low"]),
        _number(runs["high"]),
        _number(outcome["in_front"]),
    )


def _number(value: Any) -> float | None:
    return None if value in (None, "nan") else float(value)


def _table(judgements: Sequence[dict[str, Any]]) -> Table:
    return Table(
        title="Table 1",
        columns=(
            Column(header="question"),
            Column(header="first / second"),
            Column(header="judge"),
            Column(header="share of the first", format=".1%"),
            Column(header="over runs", format=".1%"),
            Column(header="undecided", format=".0f"),
        ),
        rows=tuple(map(_shown, judgements)),
    )


def _shown(judgement: dict[str, Any]) -> tuple[Cell, ...]:
    outcome = judgement["outcome"]
    every, runs = outcome["all"], outcome["over_runs"]
    return (
        _QUESTIONS[judgement["question"]],
        judgement["comparison"].replace(" against ", " / "),
        judgement["model"],
        _share(every["share"], outcome["pairs_low"], outcome["pairs_high"]),
        _share(runs["mean"], runs["low"], runs["high"]),
        every["ties"] + every["unparsable"],
    )


def _share(mean: Any, low: Any, high: Any) -> MeanOverRuns:
    ends = _number(low), _number(high)
    return MeanOverRuns(values=(), mean=float(mean), low=ends[0], high=ends[1])
