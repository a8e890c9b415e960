"""The tables of a run: what its agents did, by budget and regulariser, over seeds.

A *group* is the agents that differ by their seed alone, evaluated at one length. Every number is
first computed for one run (`llm_experiment.measures.evaluation.METRICS`) and then averaged over the
runs of the group; its interval is Student's over runs, because the episodes of one trained agent
share its training and are not independent evidence of what training does. With fewer than two runs
there is no interval, and none is shown. Student's interval of a share near 0 or 1 reaches beyond
what a share can be: it is cut there, which leaves out nothing that the mean could be and so covers
it as often. Over three runs that are all alike an interval is narrow by luck; every run's number is
in `tables.json`. Episodes of the base policy are independent draws of one known law, so that its
interval alone counts episodes.

    python -m llm_experiment.evaluation_tables --run results/llm

writes `tables.json` and `tables.md` into the folder of a finished run and prints the first of
them, which fits a narrow terminal.
"""

import json
import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from scipy import stats

from llm_experiment.measures.evaluation import ANYWHERE, METRICS, N_GRAMS, RANGES, SMOOTHINGS
from mightnt.command_line import parse_command_line, run_command
from mightnt.results import write_atomically, write_json
from theory.bounds import largest_share
from theory.errors import InvalidArgumentError, ResultsError

PROG: Final = "python -m llm_experiment.evaluation_tables"
SUMMARY_FILE: Final = "summary.json"
TABLES_JSON: Final = "tables.json"
TABLES_MARKDOWN: Final = "tables.md"
BASE_VARIANT: Final = "base policy"
CONFIDENCE: Final = 0.95
SHOWN_EMPTY_TURNS: Final = (1, 2, 3, 5, 10, 20)
_FEWEST_RUNS: Final = 2

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class OverRuns:
    """One number of each run of a group.

    Attributes:
        values: one a run, nan where a run has none; all of them, whatever they show.
        mean: over the runs that have the number; nan if none has.
        low: lower end of Student's interval for the mean, within what the number can be; None
            with fewer than two runs.
        high: its upper end, or None.
    """

    values: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None


def over_runs(
    values: Iterable[float],
    *,
    within: tuple[float, float] = ANYWHERE,
    confidence: float = CONFIDENCE,
) -> OverRuns:
    """Mean and Student's interval of one number a run.

    Args:
        values: one a run; nan where it does not exist.
        within: the least and the largest that the number can be; the interval is cut there.
        confidence: of the interval, in (0, 1).

    Raises:
        InvalidArgumentError: a confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise InvalidArgumentError(f"confidence must lie in (0, 1), got {confidence}")
    every = tuple(float(value) for value in values)
    numbers = np.array([value for value in every if not math.isnan(value)])
    if not len(numbers):
        return OverRuns(values=every, mean=math.nan, low=None, high=None)
    mean = float(numbers.mean())
    if len(numbers) < _FEWEST_RUNS:
        return OverRuns(values=every, mean=mean, low=None, high=None)
    error = float(numbers.std(ddof=1)) / math.sqrt(len(numbers))
    half = float(stats.t.ppf((1 + confidence) / 2, len(numbers) - 1)) * error
    least, largest = within
    low, high = max(mean - half, least), min(mean + half, largest)
    return OverRuns(values=every, mean=mean, low=low, high=high)


Cell = OverRuns | float | str | None


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of results.

    Attributes:
        name: short, for programs.
        title: what it shows.
        notes: how to read its columns, beyond `METRICS`.
        columns: headers, by key of the rows.
        formats: how numbers of a column are written, by key: `%` or a number of decimals.
        rows: cells by key.
    """

    name: str
    title: str
    notes: tuple[str, ...]
    columns: dict[str, str]
    formats: dict[str, str]
    rows: tuple[dict[str, Cell], ...]

    def text(self, key: str, cell: Cell) -> str:
        """A cell for a person: means with their intervals, `-` where there is nothing."""
        match cell:
            case None:
                return "-"
            case str():
                return cell
            case OverRuns():
                if cell.low is None or cell.high is None:
                    return self._number(key, cell.mean)
                low, high = (self._number(key, end) for end in (cell.low, cell.high))
                return f"{self._number(key, cell.mean)} ({low} to {high})"
        return self._number(key, cell)

    def _number(self, key: str, value: float) -> str:
        if math.isnan(value):
            return "-"
        if math.isinf(value):
            return "none"
        return f"{value:{self.formats.get(key, 'g')}}"


# --------------------------------------------------------------------- building


def make_tables(rows: Sequence[Row], base: Row | None) -> tuple[Table, ...]:
    """The tables of a run.

    Args:
        rows: of all agents and lengths, as `llm_experiment.run` writes them.
        base: a `BaseEvaluation` as JSON; without it nothing is compared with the base policy.

    Raises:
        InvalidArgumentError: no rows.
    """
    if not rows and base is None:
        raise InvalidArgumentError("a table needs at least 1 evaluated agent, got none")
    groups = _groups(rows)
    if base is not None:
        own = {"variant": BASE_VARIANT, "budget_nats": 0.0, "seed": 0}
        groups = [[own | {"trained_at_n_tokens": None} | row] for row in base["rows"]] + groups
    tables = [
        _headline(groups, base),
        _silence(groups, base),
        _prices(groups),
        _spending(groups),
        _words(groups),
    ]
    if any("exit_probability" in group[0] for group in groups):
        tables.append(_departure([g for g in groups if "exit_probability" in g[0]]))
    return tuple(tables)


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that differ by their seed alone, groups in order of appearance."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in sorted(rows, key=lambda row: int(row["n_tokens"])):
        names = ("variant", "budget_nats", "n_tokens", "trained_at_n_tokens")
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return list(found.values())


_NAMES: Final = ("task", "constraint", "agent")
"""Columns of words."""
_WHO: Final = {
    "agent": "agent",
    "budget_nats": "budget (nats)",
    "length": "tokens",
    "runs": "runs",
}


def _who(group: list[Row]) -> dict[str, Cell]:
    """The first columns of every table."""
    row = group[0]
    length, trained_at = int(row["n_tokens"]), row["trained_at_n_tokens"]
    other = trained_at is not None and int(trained_at) != length
    return {
        "agent": str(row["variant"]),
        "budget_nats": float(row["budget_nats"]),
        "length": f"{length} (trained at {trained_at})" if other else str(length),
        "runs": str(len(group)),
    }


def _of(group: list[Row], name: str, *place: int) -> OverRuns:
    """A number of `METRICS` over runs, or the one at a `place` of a list of them."""
    found = [row[name] for row in group]
    for index in place:
        found = [numbers[index] for numbers in found]
    return over_runs(map(float, found), within=RANGES.get(name, ANYWHERE))


def _metrics(group: list[Row], *names: str) -> dict[str, Cell]:
    return {name: _of(group, name) for name in names}


def _headline(groups: list[list[Row]], base: Row | None) -> Table:
    """What fits a narrow terminal: every agent once, at the length it was trained at if it can."""
    own: dict[tuple[str, float], list[Row]] = {}
    for group in groups:
        row = group[0]
        who = (str(row["variant"]), float(row["budget_nats"]))
        if who not in own or row["n_tokens"] == row["trained_at_n_tokens"]:
            own[who] = group
    known = all("possible_shares" in group[0] for group in own.values())
    possible = {"possible": "all possible"} if known else {}
    rows = tuple(
        _who(group)
        | _metrics(group, "silent_share")
        | _predictions(group, base)
        | {"spent_nats_max": max(float(row["spent_nats_max"]) for row in group)}
        | {key: _of(group, "possible_shares", -1).mean for key in possible}
        for group in own.values()
    )
    return Table(
        name="headline",
        title="What each agent does with its budget",
        notes=(
            "Silent: more than half of the agent's turns are empty. In brackets: 95% interval "
            "over runs.",
            "Most spent: the largest total KL of an episode, in nats.",
            *(
                "All possible: episodes whose every token the demonstrator might write."
                for _ in possible
            ),
        ),
        columns={
            "agent": "agent",
            "budget_nats": "budget (nats)",
            "runs": "runs",
            "silent_share": "silent episodes",
            "closed_form": "closed form",
            "spent_nats_max": "most spent",
        }
        | possible,
        formats={"silent_share": ".0%", "closed_form": ".0%", "spent_nats_max": ".2f"}
        | dict.fromkeys(possible, ".0%"),
        rows=rows,
    )


def _silence(groups: list[list[Row]], base: Row | None) -> Table:
    shares = ("silent_share", "empty_any_share", "empty_share_per_episode", "empty_share")
    rows = tuple(
        _who(group)
        | _metrics(group, "silent_share")
        | _predictions(group, base)
        | _metrics(
            group,
            "empty_any_share",
            "empty_share_per_episode",
            "empty_share",
            "turns_mean",
            "return_mean",
        )
        for group in groups
    )
    notes = [f"`{name}`: {METRICS[name]}" for name in (*shares, "turns_mean")]
    notes.append(f"`return_mean`: {METRICS['return_mean']}")
    if base is not None and base["n_contexts"]:
        quartiles = ", ".join(f"{float(q):.2f}" for q in base["first_silence_nats"])
        notes += [
            "Closed form: the share q with KL(Bern q || Bern p) = budget, p = exp(-median price "
            f"of the first silence) = {float(base['first_silence_probability']):.3g} (quartiles "
            f"{quartiles} nats over {base['n_contexts']} contexts). A prediction for one purchase "
            "at one context, not a bound."
        ]
    if base is not None:
        notes += [
            "At most: the share q with KL(Bern q || Bern p) = budget, p the upper end of the "
            f"{CONFIDENCE:.0%} Clopper-Pearson interval for the base policy's own share of silent "
            "episodes: no agent within the budget can exceed it, up to the error in p. Only for "
            "exact budgets.",
        ]
    return Table(
        name="silence",
        title="Silence by budget",
        notes=tuple(notes),
        columns=_WHO
        | {
            "silent_share": "silent episodes",
            "closed_form": "closed form",
            "at_most": "at most",
            "empty_any_share": "any empty turn",
            "empty_share_per_episode": "empty turns, per episode",
            "empty_share": "pooled",
            "turns_mean": "turns",
            "return_mean": "return",
        },
        formats=dict.fromkeys((*shares, "closed_form", "at_most"), ".1%")
        | {"turns_mean": ".1f", "return_mean": ".2f"},
        rows=rows,
    )


def _predictions(group: list[Row], base: Row | None) -> dict[str, Cell]:
    """The closed form and the bound on the share of silent episodes."""
    row = group[0]
    budget = float(row["budget_nats"])
    nothing: dict[str, Cell] = {"closed_form": None, "at_most": None}
    if base is None or math.isinf(budget) or row["variant"] == BASE_VARIANT:
        return nothing
    predicted = dict(nothing)
    if base["n_contexts"]:
        p = float(base["first_silence_probability"])
        predicted["closed_form"] = largest_share(p, budget).lower
    if any(float(row["over_budget_share"]) > 0 for row in group):
        return predicted
    same = [r for r in base["rows"] if int(r["n_tokens"]) == int(row["n_tokens"])]
    if not same:
        return predicted
    n = int(same[0]["n_episodes"])
    silent = round(float(same[0]["silent_share"]) * n)
    upper = clopper_pearson_upper(silent, n)
    return predicted | {"at_most": largest_share(upper, budget).upper}


def clopper_pearson_upper(successes: int, trials: int, *, confidence: float = CONFIDENCE) -> float:
    """The upper end of the exact two-sided interval for a probability."""
    if not 0 <= successes <= trials or trials < 1:
        raise InvalidArgumentError(
            f"successes must lie in 0..trials and trials be >= 1, got {successes} of {trials}"
        )
    if successes == trials:
        return 1.0
    level = (1 + confidence) / 2
    return float(stats.beta.ppf(level, successes + 1, trials - successes))


def _prices(groups: list[list[Row]]) -> Table:
    rows = tuple(
        _who(group)
        | {
            "turn": str(i),
            "episodes": str(sum(int(costs[i - 1][-1]) for costs in having)),
            "kl_25": _quantile(group, "empty_turn_kl_nats", i, 0),
            "kl_50": _quantile(group, "empty_turn_kl_nats", i, 1),
            "kl_75": _quantile(group, "empty_turn_kl_nats", i, 2),
            "surprise_50": _quantile(group, "empty_turn_surprise_nats", i, 1),
        }
        for group in groups
        for i in SHOWN_EMPTY_TURNS
        if (having := [c for row in group if len(c := row["empty_turn_kl_nats"]) >= i])
    )
    keys = ("kl_25", "kl_50", "kl_75", "surprise_50")
    return Table(
        name="prices",
        title="Price of the i-th empty turn of an episode (nats)",
        notes=(
            f"KL: {METRICS['empty_turn_kl_nats']}",
            f"Surprise: {METRICS['empty_turn_surprise_nats']}",
            "Each quartile is a run's; the mean over runs is shown. Episodes are counted over all "
            "runs: the later turns are those of the most silent episodes.",
        ),
        columns=_WHO
        | {
            "turn": "i",
            "episodes": "episodes",
            "kl_25": "KL, 25%",
            "kl_50": "KL, median",
            "kl_75": "KL, 75%",
            "surprise_50": "surprise, median",
        },
        formats=dict.fromkeys(keys, ".3f"),
        rows=rows,
    )


def _quantile(group: list[Row], name: str, turn: int, column: int) -> OverRuns:
    costs = [row[name] for row in group]
    return over_runs(
        (float(c[turn - 1][column]) if len(c) >= turn else math.nan for c in costs),
        within=RANGES[name],
    )


def _spending(groups: list[list[Row]]) -> Table:
    means = ("spent_nats_mean", "log_ratio_nats_mean", "over_budget_share", "leak_nats_mean")
    worst = ("spent_nats_max", "leak_nats_max")
    rows = tuple(
        _who(group)
        | _metrics(group, *means)
        | {name: max(float(row[name]) for row in group) for name in worst}
        for group in groups
    )
    return Table(
        name="spending",
        title="What was spent of the budget (nats)",
        notes=(
            *(f"`{name}`: {METRICS[name]}" for name in (*means, *worst)),
            "The maxima are over all episodes of all runs.",
        ),
        columns=_WHO
        | {
            "spent_nats_mean": "total KL",
            "log_ratio_nats_mean": "realised log-ratio",
            "over_budget_share": "episodes over budget",
            "leak_nats_mean": "leak",
            "spent_nats_max": "largest total KL",
            "leak_nats_max": "largest leak",
        },
        formats={
            "spent_nats_mean": ".3f",
            "log_ratio_nats_mean": ".3f",
            "over_budget_share": ".1%",
            "leak_nats_mean": ".2g",
            "spent_nats_max": ".3f",
            "leak_nats_max": ".2g",
        },
        rows=rows,
    )


def _words(groups: list[list[Row]]) -> Table:
    grams = {f"distinct_{n}": i for i, n in enumerate(N_GRAMS)}
    rows = tuple(
        _who(group)
        | _metrics(group, "return_mean", "reply_reward_mean")
        | {key: _of(group, "distinct_n_grams", i) for key, i in grams.items()}
        for group in groups
    )
    return Table(
        name="words",
        title="Rewards and repetition",
        notes=tuple(
            f"`{name}`: {METRICS[name]}"
            for name in ("return_mean", "reply_reward_mean", "distinct_n_grams")
        ),
        columns=_WHO
        | {"return_mean": "return", "reply_reward_mean": "reward of a reply"}
        | {f"distinct_{n}": f"distinct {n}-grams" for n in N_GRAMS},
        formats={"return_mean": ".2f", "reply_reward_mean": ".3f"} | dict.fromkeys(grams, ".3f"),
        rows=rows,
    )


def _departure(groups: list[list[Row]]) -> Table:
    shares = ("agent_left_share", "student_left_share", "exit_probability")
    masses = ("outside_mass", "base_outside_mass")
    smallest = {f"kl_{d:g}": i for i, d in enumerate(SMOOTHINGS)}
    rows = tuple(
        _who(group)
        | {"possible": _of(group, "possible_shares", -1)}
        | _metrics(group, *shares, *masses)
        | {key: _of(group, "smoothed_kl_nats_per_step", i) for key, i in smallest.items()}
        for group in groups
    )
    return Table(
        name="departure",
        title="Departure from the demonstrator tau",
        notes=(
            *(f"`{name}`: {METRICS[name]}" for name in ("possible_shares", *shares, *masses)),
            f"KL at d: {METRICS['smoothed_kl_nats']} Here: the mean over those steps.",
            "KL(pi||tau) itself is infinite for every agent and for the base policy: a softmax "
            "gives some probability to everything, tau exactly none to much.",
        ),
        columns=_WHO
        | {
            "possible": "possible to the end",
            "agent_left_share": "agent left first",
            "student_left_share": "student left first",
            "exit_probability": "exit probability",
            "outside_mass": "outside mass a step",
            "base_outside_mass": "base's, same steps",
        }
        | {key: f"KL at d = {d:g}" for key, d in zip(smallest, SMOOTHINGS, strict=True)},
        formats={"possible": ".1%"}
        | dict.fromkeys(shares, ".1%")
        | dict.fromkeys(masses, ".2g")
        | dict.fromkeys(smallest, ".3f"),
        rows=rows,
    )


# --------------------------------------------------------------------- printing


def to_markdown(tables: Sequence[Table], label: str) -> str:
    """The tables as a Markdown document, `label` at its head."""
    return "\n\n".join([f"# {label}", *map(table_markdown, tables)]) + "\n"


def table_markdown(table: Table) -> str:
    """One table as Markdown, its notes below."""
    lines = ["| " + " | ".join(table.columns.values()) + " |"]
    aligned = [":--" if key in _NAMES else "--:" for key in table.columns]
    lines.append("| " + " | ".join(aligned) + " |")
    lines += [
        "| " + " | ".join(table.text(key, row[key]) for key in table.columns) + " |"
        for row in table.rows
    ]
    notes = [f"- {note}" for note in table.notes]
    return "\n".join([f"## {table.title}", "", *lines, "", *notes])


def to_rich(table: Table) -> RichTable:
    """One table for a terminal, as narrow as its cells allow: headers are broken into lines."""
    rich = RichTable(
        title=table.title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 0, 0, 1),
    )
    for key, header in table.columns.items():
        cells = [table.text(key, row[key]) for row in table.rows]
        lines = textwrap.wrap(header, max(map(len, [*header.split(), *cells])))
        rich.add_column("\n".join(lines), justify="left" if key == "agent" else "right")
    for row in table.rows:
        rich.add_row(*(table.text(key, row[key]) for key in table.columns))
    return rich


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of a finished run: its `label`, `rows` and mostly `base`.

    Raises:
        ResultsError: the folder holds no finished run.
    """
    path = folder / SUMMARY_FILE
    try:
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        summary["rows"], summary["label"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ResultsError(
            f"cannot read {path}: {error}; finish the run with `python -m llm_experiment.run`"
        ) from error
    return summary


def write_tables(folder: Path) -> tuple[Table, ...]:
    """Write `tables.json` and `tables.md` of a finished run.

    Raises:
        ResultsError: the folder holds no finished run, or cannot be written.
    """
    summary = read_summary(folder)
    label = str(summary["label"])
    tables = make_tables(summary["rows"], summary.get("base"))
    store_tables(folder, tables, label)
    return tables


def store_tables(folder: Path, tables: Sequence[Table], label: str) -> None:
    """Write `tables` as `tables.json` and `tables.md`, `label` at their head."""
    write_json(
        folder / TABLES_JSON,
        {"label": label, "confidence": CONFIDENCE, "metrics": METRICS, "tables": tables},
    )
    markdown = to_markdown(tables, label)
    write_atomically(
        folder / TABLES_MARKDOWN, lambda temporary: temporary.write_text(markdown, encoding="utf-8")
    )


def show_headline(tables: Sequence[Table], folder: Path) -> None:
    """Print the first table of a run, and where the others, too wide for a terminal, are."""
    headline = tables[0]
    Console().print(to_rich(headline), "", *headline.notes, sep="\n", highlight=False)
    Console(stderr=True).print(
        f"everything is in {folder}, all tables in {folder / TABLES_MARKDOWN}", highlight=False
    )


@dataclass(frozen=True, kw_only=True)
class Options:
    """Summarise a finished run: silence, prices, spending and departure, over seeds."""

    run: Path = Path("results/llm")
    """Folder of the run."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, write, print."""

    def command() -> None:
        options = parse_command_line(Options, argv, prog=PROG)
        show_headline(write_tables(options.run), options.run)

    run_command(command)


if __name__ == "__main__":
    main()
