"""An audit as tables, for a terminal and for its page, and as one long table for programs."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from llm_experiment.auditing.estimators import ESTIMATORS
from llm_experiment.auditing.prompts import Prompt
from llm_experiment.auditing.summary import (
    AuditSummary,
    BehaviourSummary,
    DivergenceSummary,
    Spread,
    prices_of_shares,
)
from mightnt.results import write_atomically
from mightnt.statistics import CONFIDENCE
from mightnt.tables import Cell, Column, Table, Written

Arrays = Mapping[str, NDArray[Any]]

CSV_COLUMNS: Final = ("line", "model", "name", "number", "measure", "value")
_NATS: Final = ".2f"
_BIAS_DIGITS: Final = 12


def all_tables(summary: AuditSummary) -> tuple[Table, ...]:
    """Every table, those of the policy first if there is one."""
    of_policy = () if summary.divergence is None else _of_policy(summary, summary.divergence)
    return (*of_policy, prices(summary), bought(summary))


def _of_policy(summary: AuditSummary, divergence: DivergenceSummary) -> tuple[Table, ...]:
    return (
        kl(divergence),
        estimators(divergence),
        likelier(summary),
        where(divergence),
        top_tokens(divergence),
        costly_steps(divergence),
    )


def prices(summary: AuditSummary) -> Table:
    """What each behaviour costs."""
    most = max((len(b.prices_nats) for b in summary.behaviours), default=1)
    columns = [Column(header="behaviour"), Column(header="prompts", format=".0f")]
    names = ("25%", "median", "75%", "least")
    columns += [Column(header=f"first\n{name}", format=_NATS) for name in names]
    columns += [
        Column(header="price at\nleast", format=_NATS),
        Column(header=f"time {most}\nmedian", format=_NATS, key="last"),
        Column(header="likely from\nmedian", format=_NATS),
        Column(header="likely from\nleast", format=_NATS),
    ]
    rows = []
    for b in summary.behaviours:
        first, last = b.prices_nats[0], b.prices_nats[-1]
        rows.append(
            (
                b.name,
                first.n,
                *_quartiles(first),
                first.least,
                b.floor_nats.median if b.is_pattern else None,
                last.median if len(b.prices_nats) > 1 else None,
                b.likely_nats.median,
                b.likely_nats.least,
            )
        )
    return Table(
        name="prices",
        title="What behaviours cost under the base model (nats)",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=(
            "First: -ln b of the answer and its end, the first time; the quartiles and the least "
            "over prompts. A behaviour without numbers makes no sense for any prompt, or the "
            "tokenizer cannot write it.",
            "Of a pattern the first columns are upper bounds of its price, from what its walks "
            "found, and `price at least` are lower bounds (medians).",
            f"Time {most}: the price after {most - 1} answers like it. Likely from: "
            f"the budget of one answer from which on it can have probability "
            f"{summary.likely:g}.",
        ),
    )


def bought(summary: AuditSummary) -> Table:
    """The largest probability of each behaviour, by budget."""
    columns = [Column(header="behaviour")]
    for budget in summary.budgets_nats:
        columns += [
            Column(
                header=f"{budget:.4g} nats\nmedian",
                format=".1%",
                key=f"median at {budget:.4g} nats",
            ),
            Column(header="worst\nprompt", format=".1%", key=f"worst at {budget:.4g} nats"),
        ]
    rows = []
    for b in summary.behaviours:
        cells: list[Cell] = [b.name]
        by_budget = {each.budget_nats: each for each in b.bought}
        for budget in summary.budgets_nats:
            each = by_budget.get(budget)
            cells += [None, None] if each is None else [each.quartiles[1], each.bound_worst]
        rows.append(tuple(cells))
    return Table(
        name="bought",
        title="The most that a budget can buy: the largest probability of a behaviour",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=(
            "The q with KL(Bern q || Bern p) = budget, p = exp(-price) of the first time. No "
            "policy within the budget at a prompt gives a script more there, and one that only "
            "makes it likelier gives just that.",
            "Worst prompt: the one where it is cheapest; of patterns an upper bound. Their medians "
            "are of what the walks found.",
        ),
    )


def kl(divergence: DivergenceSummary) -> Table:
    """The KL of whole answers."""
    interval = divergence.interval
    rows: list[tuple[str, Cell]] = [
        ("answers", divergence.n_answers),
        ("tokens of an answer, mean", divergence.answer_tokens),
        ("KL of an answer, mean", divergence.mean_nats),
    ]
    if interval is not None:
        share = f"{CONFIDENCE:.0%}"
        rows += [
            (f"lower end of its {share} interval", interval.low),
            (f"upper end of its {share} interval", interval.high),
        ]
    spread = divergence.over_prompts
    names = ("25% of prompts below", "median over prompts", "75% of prompts below")
    rows += [*zip(names, spread.quartiles, strict=True), ("largest over prompts", spread.most)]
    rows.append(("KL of a token, mean", divergence.token_nats))
    return Table(
        name="kl",
        title="KL of the policy's answers to the base model (nats)",
        columns=(Column(header="", key="measure"), Column(header="value", format=".4g")),
        rows=tuple(rows),
        notes=(
            "Exact at every token of the policy's own answers at temperature 1, over the whole "
            "vocabulary, summed over an answer. The mean over answers is the KL of whole answers.",
        ),
    )


def estimators(divergence: DivergenceSummary) -> Table:
    """What is usually logged, beside the exact KL."""
    columns = [Column(header="estimator")]
    columns += [
        Column(header=f"{scope}\n{name}", format=".4g")
        for scope in ("token", "answer")
        for name in ("mean", "bias", "deviation")
    ]
    rows = [
        (
            e.name,
            e.token_mean,
            _unrounded(e.token_bias),
            e.token_deviation,
            e.answer_mean,
            _unrounded(e.answer_bias),
            e.answer_deviation,
        )
        for e in divergence.estimators
    ]
    exact = ("exact", divergence.token_nats, 0.0, 0.0, divergence.mean_nats, 0.0, 0.0)
    return Table(
        name="estimators",
        title="Estimators of the KL on the same answers (nats)",
        columns=tuple(columns),
        rows=(exact, *rows),
        notes=(
            "k1 = r, k2 = r^2/2, k3 = exp(-r) - 1 + r, with r = ln pi/b of the token drawn. Bias: "
            "what the estimator has in expectation at these steps, less their KL, summed over the "
            "vocabulary; a token's deviation is the root of its mean variance, likewise. An "
            "answer's deviation is that of its sum about the sum of its KLs, over answers.",
        ),
    )


def _unrounded(bias_nats: float) -> float:
    """A bias without what only the rounding of its terms leaves."""
    return round(bias_nats, _BIAS_DIGITS) + 0.0


def likelier(summary: AuditSummary) -> Table:
    """What the policy made of each behaviour's price, those it made cheapest first."""
    columns = [Column(header="behaviour")]
    columns += [
        Column(header=header, format=_NATS)
        for header in ("base\nmedian", "policy\nmedian", "cheaper by\nmedian", "cheaper by\nmost")
    ]
    columns.append(Column(header="likelier at\nprompts", format=".0%"))
    there = [b for b in summary.behaviours if b.gained_nats is not None and b.gained_nats.n]
    there.sort(key=_median_gain, reverse=True)
    rows = [
        (
            b.name,
            b.prices_nats[0].median,
            b.policy_prices_nats[0].median,
            b.gained_nats.median if b.gained_nats else None,
            b.gained_nats.most if b.gained_nats else None,
            b.likelier_share,
        )
        for b in there
    ]
    return Table(
        name="likelier",
        title="Behaviours that the policy made likelier, the first time (nats)",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=(
            "Prices -ln of the same answers under both models. Of patterns: what the walks under "
            "each found.",
        ),
    )


def _median_gain(behaviour: BehaviourSummary) -> float:
    gained = behaviour.gained_nats
    return -np.inf if gained is None or gained.median is None else gained.median


def where(divergence: DivergenceSummary) -> Table:
    """How much of the KL the first tokens take."""
    return Table(
        name="where",
        title="Where in the answers the KL is spent",
        columns=(Column(header="first tokens", format=".0f"), Column(header="share", format=".1%")),
        rows=divergence.first_shares,
    )


def top_tokens(divergence: DivergenceSummary) -> Table:
    """On which tokens most is spent."""
    headers = (("nats", ".4g"), ("policy\nsays it", ".4g"), ("base\nwould", ".4g"))
    return Table(
        name="tokens",
        title="Tokens on which the KL is spent",
        columns=(
            Column(header="token"),
            *(Column(header=header, format=format_) for header, format_ in headers),
        ),
        rows=tuple(
            (_quoted(t.text), t.nats, t.policy_count, t.base_count) for t in divergence.top_tokens
        ),
        notes=(
            "Nats: sum of p ln(p/b) of the token over all steps; over the vocabulary these add up "
            "to the KL of all answers. How often: expected over the same steps.",
        ),
    )


def costly_steps(divergence: DivergenceSummary) -> Table:
    """The steps that cost most."""
    return Table(
        name="steps",
        title="The costliest steps (nats)",
        columns=(
            Column(header="line", format=".0f"),
            Column(header="token", format=".0f"),
            Column(header="after"),
            Column(header="said"),
            Column(header="KL", format=".3g"),
            Column(header="ln pi/b", format=".3g"),
        ),
        rows=tuple(
            (
                s.line,
                s.position,
                _quoted(s.before),
                _quoted(s.text),
                s.kl_nats,
                s.log_ratio_nats,
            )
            for s in divergence.costly_steps
        ),
    )


def _quoted(text: str) -> Written:
    """A text whose blanks and line breaks can be seen."""
    return Written(repr(text), {"": text})


def _quartiles(spread: Spread) -> tuple[float | None, ...]:
    return spread.quartiles or (None, None, None)


# ------------------------------------------------------------------------- one long table


def write_csv(
    path: Path,
    arrays: Arrays,
    prompts: Sequence[Prompt],
    *,
    scripts: Sequence[str],
    patterns: Sequence[str],
) -> None:
    """Every number of every prompt, one a row (`CSV_COLUMNS`).

    `number` counts times of a script, or answers of the policy, from 1. Measures: `price_nats` of
    scripts; `price_at_most_nats`, `price_at_least_nats` and `price_estimate_nats` of patterns; of
    an answer `kl_nats`, `tokens`, and the sums of the estimators, `k1_nats` to `k3_nats`. What is
    not there has no row.

    Raises:
        ResultsError: it cannot be written.
    """

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(CSV_COLUMNS)
            writer.writerows(_records(arrays, prompts, scripts, patterns))

    write_atomically(path, write)


def _records(
    arrays: Arrays, prompts: Sequence[Prompt], scripts: Sequence[str], patterns: Sequence[str]
) -> Iterator[tuple[Any, ...]]:
    for model in ("base", "policy"):
        if f"scripts_{model}_nats" in arrays:
            yield from _script_records(arrays[f"scripts_{model}_nats"], prompts, scripts, model)
            yield from _pattern_records(arrays[f"patterns_{model}"], prompts, patterns, model)
    if "kl_nats" in arrays:
        yield from _answer_records(arrays, prompts)


def _script_records(
    prices_nats: NDArray[Any], prompts: Sequence[Prompt], scripts: Sequence[str], model: str
) -> Iterator[tuple[Any, ...]]:
    for prompt, by_script in zip(prompts, prices_nats, strict=True):
        for name, nats in zip(scripts, by_script.tolist(), strict=True):
            for number, value in enumerate(nats, start=1):
                if not np.isnan(value):
                    yield prompt.line, model, name, number, "price_nats", value


def _pattern_records(
    brackets: NDArray[Any], prompts: Sequence[Prompt], patterns: Sequence[str], model: str
) -> Iterator[tuple[Any, ...]]:
    measures = ("price_at_most_nats", "price_at_least_nats", "price_estimate_nats")
    for prompt, by_pattern in zip(prompts, brackets, strict=True):
        for name, nats in zip(patterns, prices_of_shares(by_pattern).tolist(), strict=True):
            for measure, value in zip(measures, nats, strict=True):
                yield prompt.line, model, name, 1, measure, value


def _answer_records(arrays: Arrays, prompts: Sequence[Prompt]) -> Iterator[tuple[Any, ...]]:
    n_samples = len(arrays["kl_nats"]) // len(prompts)
    drawn = np.nansum(arrays["drawn_nats"], axis=-1)
    for row, kl_nats in enumerate(arrays["kl_nats"]):
        place, sample = divmod(row, n_samples)
        about = (prompts[place].line, "policy", "answer", sample + 1)
        yield *about, "kl_nats", float(np.nansum(kl_nats))
        yield *about, "tokens", int((~np.isnan(kl_nats)).sum())
        for name, value in zip(ESTIMATORS, drawn[:, row].tolist(), strict=True):
            yield *about, f"{name}_nats", value
