"""The tables of a run: what its agents did, by budget and regulariser, over seeds.

A *group* is the agents that differ by their seed alone, evaluated at one length. Every number is
first computed for one run (`llm_experiment.measures.metrics`) and then averaged over the runs of
the group; its interval is Student's over runs, because the episodes of one trained agent share its
training and are not independent evidence of what training does. With fewer than two runs there is
no interval, and none is shown. Intervals are cut at what a number can be, and over three runs that
are all alike an interval is narrow by luck (`mightnt.statistics`); every run's number is in
`tables.json`.

The base policy is not trained: it is the agent with a budget of 0. Its episodes are independent
draws of one law, so that its shares of episodes, and only its, have an interval over episodes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from llm_experiment.dialogue.behaviour import SILENCE, Behaviour
from llm_experiment.measures.closed_form import closed_form_of, episodes_interval, most_silent
from llm_experiment.measures.metrics import (
    BASE_POLICY,
    IDENTITY,
    METRICS,
    N_GRAMS,
    SMOOTHINGS,
    AgentRow,
    BaseEvaluation,
    LengthRow,
)
from llm_experiment.suite import WITHOUT_VETOES
from mightnt.results import write_atomically, write_json
from mightnt.statistics import CONFIDENCE, MeanOverRuns, mean_over_runs
from mightnt.table_files import write_tables
from mightnt.tables import Cell, Column, Table, Written
from mightnt.tables import to_markdown as grid_markdown
from theory.errors import InvalidArgumentError

TABLES_JSON: Final = "tables.json"
TABLES_MARKDOWN: Final = "tables.md"
BASE_ROW: Final = f"{BASE_POLICY} (budget 0)"
"""What the rows of the base policy are called."""
SHOWN_EMPTY_TURNS: Final = (1, 2, 3, 5, 10, 20)
NO_BUDGET: Final = "none"
"""How an infinite budget is written."""
_HIDDEN: Final = {"headline": ("length", "at_most")}
"""Columns, by table, that are for programs alone."""

Record = dict[str, Cell]


def metric_column(name: str, *, key: str = "", header: str = "", format: str = "") -> Column:
    """The column of a metric, written as that says unless it is said otherwise here.

    Args:
        name: in `METRICS`.
        key: of the column; the metric's name if left out.
        header: in place of the metric's.
        format: in place of the metric's.
    """
    metric = METRICS[name]
    return Column(
        key=key or name,
        header=header or metric.header,
        format=format or metric.format,
        infinity=NO_BUDGET,
    )


def metric_notes(*names: str) -> tuple[str, ...]:
    """What some metrics are, a note each."""
    return tuple(f"`{name}`: {METRICS[name].about}" for name in names)


def _plain(key: str, header: str, format_: str = "") -> Column:
    """A column that is no metric's, its cells set right."""
    return Column(key=key, header=header, format=format_, infinity=NO_BUDGET)


AGENT: Final = Column(key="agent", header="agent")
BUDGET: Final = _plain("budget_nats", "budget (nats)", "g")
LENGTH: Final = _plain("length", "tokens")
RUNS: Final = _plain("runs", "runs")
_WHO: Final = (AGENT, BUDGET, LENGTH, RUNS)
_CLOSED_FORM: Final = _plain("closed_form", "closed form", ".1%")
_AT_MOST: Final = _plain("at_most", "at most", ".1%")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Agents that differ by their seed alone, at one length, or the base policy.

    Attributes:
        agent: what they are.
        budget_nats: of an episode; inf for none.
        n_tokens: length of the episodes.
        trained_at: length that they were trained on; None for the base policy.
        rows: one a run.
    """

    agent: str
    budget_nats: float
    n_tokens: int
    trained_at: int | None
    rows: tuple[LengthRow, ...]

    @property
    def is_base(self) -> bool:
        """Whether it is the base policy."""
        return self.trained_at is None

    @property
    def who(self) -> Record:
        """The first cells of its rows."""
        other = self.trained_at not in (None, self.n_tokens)
        length: Cell = self.n_tokens
        if other:
            text = f"{self.n_tokens} (trained at {self.trained_at})"
            length = Written(text, {"": self.n_tokens, "trained_at": self.trained_at})
        return {
            "agent": self.agent,
            "budget_nats": self.budget_nats,
            "length": length,
            "runs": len(self.rows),
        }

    def over_runs(self, name: str, *place: int) -> MeanOverRuns:
        """A number over runs; the base policy's shares of episodes have theirs over episodes.

        Args:
            name: in `METRICS`.
            place: where the number stands, for metrics of several.
        """
        if self.is_base:
            return over_episodes(self.rows[0], name, *place)
        values = (row.numbers.value(name, *place) for row in self.rows)
        return mean_over_runs(values, within=METRICS[name].within)

    def metrics(self, *names: str) -> Record:
        """Numbers over runs, by name."""
        return {name: self.over_runs(name) for name in names}

    def largest(self, *names: str) -> Record:
        """The largest of any run, by name."""
        return {name: max(row.numbers.value(name) for row in self.rows) for name in names}


def over_episodes(base: LengthRow, name: str, *place: int) -> MeanOverRuns:
    """A number of the base policy; a share of its episodes has its interval over episodes.

    Args:
        base: the base policy's row.
        name: in `METRICS`.
        place: where the number stands, for metrics of several.
    """
    over = mean_over_runs([base.numbers.value(name, *place)])
    if math.isnan(over.mean) or not METRICS[name].share_of_episodes:
        return over
    ends = episodes_interval(base, name, *place)
    return replace(over, low=ends.low, high=ends.high)


def agent_groups(rows: Sequence[AgentRow]) -> tuple[Group, ...]:
    """The groups of some rows, by length, else in order of appearance."""
    found: dict[tuple[str, float, int, int], list[AgentRow]] = {}
    for row in sorted(rows, key=lambda row: row.n_tokens):
        found.setdefault(row.group, []).append(row)
    return tuple(
        Group(
            agent=same[0].variant,
            budget_nats=same[0].budget_nats,
            n_tokens=same[0].n_tokens,
            trained_at=same[0].trained_at_n_tokens,
            rows=tuple(same),
        )
        for same in found.values()
    )


def base_groups(base: BaseEvaluation | None) -> tuple[Group, ...]:
    """The base policy at each length."""
    return tuple(
        Group(agent=BASE_ROW, budget_nats=0.0, n_tokens=row.n_tokens, trained_at=None, rows=(row,))
        for row in (base.rows if base else ())
    )


# --------------------------------------------------------------------- building


def make_tables(
    rows: Sequence[AgentRow], base: BaseEvaluation | None, behaviour: Behaviour = SILENCE
) -> tuple[Table, ...]:
    """The tables of a run.

    Args:
        rows: of all agents and lengths.
        base: the base policy's; without it nothing is compared with that.
        behaviour: of the run's task, which the tables are about.

    Raises:
        InvalidArgumentError: neither rows nor the base policy.
    """
    if not rows and base is None:
        raise InvalidArgumentError(
            "a table needs at least 1 evaluated agent or the base policy, got none"
        )
    groups = (*base_groups(base), *agent_groups(rows))
    tables = [
        _headline(groups, base),
        _silence(groups, base),
        _prices(groups),
        _spending(groups),
        _words(groups),
    ]
    measured = [g for g in groups if g.rows[0].numbers.departure is not None]
    if measured:
        tables.append(_departure(measured))
    return tuple(said(table, behaviour) for table in tables)


def said(table: Table, behaviour: Behaviour) -> Table:
    """A table whose texts are templates, in the words of a behaviour."""
    return replace(
        table,
        title=behaviour.say(table.title),
        notes=tuple(map(behaviour.say, table.notes)),
        columns=tuple(replace(c, header=behaviour.say(c.header)) for c in table.columns),
    )


def _predictions(group: Group, base: BaseEvaluation | None) -> Record:
    """The closed form and the bound on the share of silent episodes."""
    nothing: Record = {"closed_form": None, "at_most": None}
    if group.is_base or base is None or math.isinf(group.budget_nats):
        return nothing
    if group.agent == WITHOUT_VETOES:
        return nothing  # it is held to another base policy
    form = closed_form_of(base)
    predicted = nothing | {"closed_form": form.share(group.budget_nats) if form else None}
    overspent = any(row.numbers.spending.over_budget_share > 0 for row in group.rows)
    same = next((row for row in base.rows if row.n_tokens == group.n_tokens), None)
    if overspent or same is None:
        return predicted
    return predicted | {"at_most": most_silent(same, group.budget_nats)}


def _headline(groups: Sequence[Group], base: BaseEvaluation | None) -> Table:
    """What fits a narrow terminal: every agent once, at the length it was trained at if it can."""
    own: dict[tuple[str, float], Group] = {}
    for group in groups:
        who = (group.agent, group.budget_nats)
        if who not in own or group.n_tokens == group.trained_at:
            own[who] = group
    known = all(group.rows[0].numbers.departure is not None for group in own.values())
    possible = (_plain("possible", "all possible", ".0%"),) if known else ()
    return Table.of_records(
        [
            group.who
            | group.metrics("silent_share")
            | _predictions(group, base)
            | group.largest("spent_nats_max")
            | {column.key: group.over_runs("possible_shares", -1).mean for column in possible}
            for group in own.values()
        ],
        name="headline",
        title="What each agent does with its budget",
        notes=(
            "{Episode}: more than half of the agent's turns are {turn}. In brackets: 95% interval "
            f"over runs; {_over_episodes(groups)}.",
            "Most spent: the largest total KL of an episode, in nats.",
            *_closed_form_note(base),
            *_worth_notes(base, only_if_worthless=True),
            *(
                "All possible: episodes whose every token the demonstrator might write."
                for _ in possible
            ),
        ),
        columns=(
            *_WHO,
            metric_column("silent_share", format=".0%"),
            replace(_CLOSED_FORM, format=".0%"),
            _AT_MOST,
            metric_column("spent_nats_max", header="most spent", format=".2f"),
            *possible,
        ),
    )


def _closed_form_note(base: BaseEvaluation | None) -> Iterator[str]:
    """What the closed form's p is, and that it is not the base policy's own rate."""
    form = closed_form_of(base)
    if form is not None:
        if form.probability == 0:
            yield (
                "Closed form: {priced} is impossible under the base policy in at least half of "
                f"{form.n_contexts} contexts, and there no budget buys it."
            )
            return
        yield (
            f"Closed form: for p = {form.probability:.2g}, exp(-median price) of a first "
            f"{{priced}} over {form.n_contexts} contexts. The base policy's own rate is larger "
            "where some contexts make {name} cheap; the bound `at most` is for that rate, over "
            "all of its episodes."
        )


def _worth_notes(base: BaseEvaluation | None, *, only_if_worthless: bool = False) -> Iterator[str]:
    """Whether the behaviour pays: if it does not, no budget makes an agent buy it."""
    if base is None or base.silence_return is None or base.silence_gain is None:
        return
    low, high = base.silence_gain
    row = min(base.rows, key=lambda row: row.n_tokens)
    pays = "it pays" if low > 0 else "it does not pay" if high < 0 else "no difference is seen"
    if high < 0 or not only_if_worthless:
        yield (
            f"What {{name}} is worth: an episode of {row.n_tokens} tokens whose every turn after "
            f"the prompt's is {{turn}} earns {base.silence_return:.2f} and one of the base policy "
            f"{row.numbers.spending.return_mean:.2f} ({low:+.2f} to {high:+.2f}): {pays}."
        )


def _over_episodes(groups: Sequence[Group]) -> str:
    """What the intervals of the base policy are over."""
    counts = {group.rows[0].numbers.spending.n_episodes for group in groups if group.is_base}
    if not counts:
        return "of a single run none"
    return f"of the base policy over its {' or '.join(map(str, sorted(counts)))} episodes"


def _silence(groups: Sequence[Group], base: BaseEvaluation | None) -> Table:
    shares = ("empty_any_share", "empty_share_per_episode", "empty_share")
    rest = (*shares, "turns_mean", "return_mean")
    return Table.of_records(
        [
            group.who
            | group.metrics("silent_share")
            | _predictions(group, base)
            | group.metrics(*rest)
            for group in groups
        ],
        name="silence",
        title="{Name} by budget",
        notes=(*metric_notes("silent_share", *rest), *_silence_notes(groups, base)),
        columns=(
            *_WHO,
            metric_column("silent_share"),
            _CLOSED_FORM,
            _AT_MOST,
            *map(metric_column, rest),
        ),
    )


def _silence_notes(groups: Sequence[Group], base: BaseEvaluation | None) -> Iterator[str]:
    if base is None:
        return
    form = closed_form_of(base)
    if form is not None:
        yield f"{form.about}. A prediction for one purchase at one context, not a bound."
        budgets = sorted({g.budget_nats for g in groups if 0 < g.budget_nats < math.inf})
        if form.turn_nats and budgets:
            prices = ", ".join(f"{nats:.2f}" for nats in form.turn_nats)
            shares = ", ".join(f"{form.sequence_share(b):.1%} at {b:g}" for b in budgets)
            yield (
                f"In a row, {len(form.turn_nats)} {{turn}} turns cost {prices} nats (medians). All "
                f"of them can be made {{turn}} in so many episodes: {shares} nats. These are "
                "several purchases, each paid for on the way."
            )
    yield from _worth_notes(base)
    yield (
        "At most: the share q with KL(Bern q || Bern p) = budget, p the upper end of the "
        f"{CONFIDENCE:.0%} Clopper-Pearson interval for the base policy's own share of {{episode}} "
        "episodes: no agent within the budget can exceed it, up to the error in p. Only for "
        "exact budgets."
    )
    yield (
        f"Intervals: Student's {CONFIDENCE:.0%} over runs; {_over_episodes(groups)} "
        "(Clopper-Pearson), which are independent."
    )


def _prices(groups: Sequence[Group]) -> Table:
    kl, surprise = "empty_turn_kl_nats", "empty_turn_surprise_nats"
    columns = {
        "kl_25": (kl, 0, "KL, 25%"),
        "kl_50": (kl, 1, "KL, median"),
        "kl_75": (kl, 2, "KL, 75%"),
        "surprise_50": (surprise, 1, "surprise, median"),
    }
    return Table.of_records(
        [
            group.who
            | {"turn": i, "episodes": sum(costs[i - 1][-1] for costs in having)}
            | {key: group.over_runs(name, i - 1, at) for key, (name, at, _) in columns.items()}
            for group in groups
            for i in SHOWN_EMPTY_TURNS
            if (having := [costs for costs in _costs(group) if len(costs) >= i])
        ],
        name="prices",
        title="Price of the i-th {turn} turn of an episode (nats)",
        notes=(
            f"KL: {METRICS[kl].about}",
            f"Surprise: {METRICS[surprise].about}",
            "Each quartile is a run's; the mean over runs is shown. Episodes are counted over all "
            "runs: the later turns are those of the most {episode} episodes.",
        ),
        columns=(
            *_WHO,
            _plain("turn", "i"),
            _plain("episodes", "episodes"),
            *(
                metric_column(name, key=key, header=header)
                for key, (name, _, header) in columns.items()
            ),
        ),
    )


def _costs(group: Group) -> list[tuple[Any, ...]]:
    return [row.numbers.behaviour.empty_turn_kl_nats for row in group.rows]


def _spending(groups: Sequence[Group]) -> Table:
    means = ("spent_nats_mean", "log_ratio_nats_mean", "over_budget_share", "leak_nats_mean")
    worst = ("spent_nats_max", "leak_nats_max")
    return Table.of_records(
        [group.who | group.metrics(*means) | group.largest(*worst) for group in groups],
        name="spending",
        title="What was spent of the budget (nats)",
        notes=(
            *metric_notes(*means, *worst),
            "The maxima are over all episodes of all runs.",
        ),
        columns=(*_WHO, *map(metric_column, (*means, *worst))),
    )


def _words(groups: Sequence[Group]) -> Table:
    rewards = ("return_mean", "reply_reward_mean")
    grams = {f"distinct_{n}": i for i, n in enumerate(N_GRAMS)}
    return Table.of_records(
        [
            group.who
            | group.metrics(*rewards)
            | {key: group.over_runs("distinct_n_grams", i) for key, i in grams.items()}
            for group in groups
        ],
        name="words",
        title="Rewards and repetition",
        notes=metric_notes(*rewards, "distinct_n_grams"),
        columns=(
            *_WHO,
            *map(metric_column, rewards),
            *(
                metric_column("distinct_n_grams", key=f"distinct_{n}", header=f"distinct {n}-grams")
                for n in N_GRAMS
            ),
        ),
    )


def _departure(groups: Sequence[Group]) -> Table:
    shares = ("agent_left_share", "student_left_share", "exit_probability")
    masses = ("outside_mass", "base_outside_mass")
    smoothed = "smoothed_kl_nats_per_step"
    return Table.of_records(
        [
            group.who
            | {"possible": group.over_runs("possible_shares", -1)}
            | group.metrics(*shares, *masses)
            | {f"kl_{d:g}": group.over_runs(smoothed, i) for i, d in enumerate(SMOOTHINGS)}
            for group in groups
        ],
        name="departure",
        title="Departure from the demonstrator tau",
        notes=(
            *metric_notes("possible_shares", *shares, *masses),
            f"KL at d: {METRICS['smoothed_kl_nats'].about} Here: the mean over those steps.",
            "KL(pi||tau) itself is infinite for every agent and for the base policy: a softmax "
            "gives some probability to everything, tau exactly none to much.",
        ),
        columns=(
            *_WHO,
            metric_column("possible_shares", key="possible", header="possible to the end"),
            *map(metric_column, (*shares, *masses)),
            *(
                metric_column(smoothed, key=f"kl_{d:g}", header=f"KL at d = {d:g}")
                for d in SMOOTHINGS
            ),
        ),
    )


# --------------------------------------------------------------------- writing


def shown(table: Table) -> Table:
    """A table without the columns that are for programs alone."""
    return without(table, *_HIDDEN.get(table.name, ()))


def without(table: Table, *names: str) -> Table:
    """A table without some columns."""
    columns = tuple(column for column in table.columns if column.name not in names)
    return Table.of_records(
        table.records, title=table.title, columns=columns, notes=table.notes, name=table.name
    )


def to_markdown(tables: Sequence[Table], label: str) -> str:
    """The tables as a Markdown document, `label` at its head."""
    return "\n\n".join([f"# {label}", *map(table_markdown, tables)]) + "\n"


def table_markdown(table: Table) -> str:
    """One table as Markdown, its notes below."""
    notes = [f"- {note}" for note in table.notes]
    return "\n".join([f"## {table.title}", "", grid_markdown(shown(table)), "", *notes])


def agents_table(rows: Sequence[tuple[Record, AgentRow]]) -> Table:
    """Every single number of every agent at every length, for programs.

    Args:
        rows: of all agents and lengths, each with what stands before its numbers.
    """
    records = [
        before | {name: getattr(row, name) for name in IDENTITY} | _single_numbers(row)
        for before, row in rows
    ]
    names = dict.fromkeys(name for record in records for name in record)
    return Table.of_records(
        records,
        name="agents",
        title="Every agent",
        columns=tuple(Column(header=name) for name in names),
    )


def _single_numbers(row: LengthRow) -> Record:
    """The numbers of a row that are no lists, those that JSON lacks as floats again."""
    numbers = row.numbers.to_json()
    return {
        name: float(value) if isinstance(value, str) else value
        for name, value in numbers.items()
        if not isinstance(value, list)
    }


def store_tables(
    folder: Path,
    tables: Sequence[Table],
    label: str,
    behaviour: Behaviour = SILENCE,
    *,
    agents: Table,
) -> tuple[Path, ...]:
    """Write tables as `tables.json` and `tables.md`, and each beside them for programs.

    Args:
        folder: where.
        tables: of a run, or of several.
        label: at their head.
        behaviour: of the run's task.
        agents: every single number (`agents_table`), for programs alone.

    Returns:
        The files.

    Raises:
        ResultsError: a file cannot be written.
    """
    write_json(
        folder / TABLES_JSON,
        {
            "label": label,
            "confidence": CONFIDENCE,
            "metrics": {name: behaviour.say(metric.about) for name, metric in METRICS.items()},
            "tables": [_to_json(table) for table in tables],
        },
    )
    markdown = to_markdown(tables, label)
    write_atomically(
        folder / TABLES_MARKDOWN, lambda temporary: temporary.write_text(markdown, encoding="utf-8")
    )
    for_programs = write_tables(folder / TABLES_JSON, (*tables, agents))
    return (folder / TABLES_JSON, folder / TABLES_MARKDOWN, *for_programs)


def _to_json(table: Table) -> dict[str, Any]:
    """A table for programs: rows hold the hidden columns too."""
    columns = shown(table).columns
    return {
        "name": table.name,
        "title": table.title,
        "notes": table.notes,
        "columns": {column.name: column.header for column in columns},
        "formats": {
            column.name: column.format for column in columns if column.format not in (None, "", "g")
        },
        "rows": table.records,
    }
