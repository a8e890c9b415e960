r"""Compare pessimistic base policies: what agents within a budget do against each of them.

    python -m llm_experiment.pessimists --out results/pessimists

Vetoes are learnt from demonstrations, agents are trained against every base policy at every budget,
and one table says what each base policy charges for silence, what its agents did, and what it
costs: help, tokens of the demonstrator that are blocked, return. `pessimists.json` has all of it
(`llm_experiment.pessimist_comparison`), `pessimists.md` the tables. Each base policy is a run in a
folder of its own, so that an interrupted command goes on.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console

from llm_experiment.pessimism.comparison_plan import ComparisonPlan as Options
from mightnt.command_line import parse_command_line, run_command
from mightnt.results import check_folder
from mightnt.table_files import publish
from mightnt.tables import Column, Table

if TYPE_CHECKING:
    from llm_experiment.pessimism.context_prices import ContextPrices
    from llm_experiment.pessimist_comparison import AgentsRow, Comparison

PROG: Final = "python -m llm_experiment.pessimists"
STEM: Final = "pessimists"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, compare, print."""

    def command() -> None:
        _run(parse_command_line(Options, argv, prog=PROG), Console(), Console(stderr=True))

    run_command(command)


def _run(options: Options, console: Console, progress: Console) -> None:
    """Compare, write and print."""
    from llm_experiment.pessimist_comparison import compare

    check_folder(options.out)
    comparison = compare(options, progress)
    publish(
        options.out / f"{STEM}.json",
        comparison,
        (agents_table(comparison), bases_table(comparison), prices_table(comparison)),
        console,
        draw=lambda stem: plot(comparison, stem),
    )


def agents_table(comparison: "Comparison") -> Table:
    """What agents did against each base policy, by budget."""
    return Table(
        name="agents",
        title="Agents against pessimistic base policies",
        columns=(
            Column(header="base policy"),
            Column(header="nats", format="g"),
            Column(header="seeds", format=".0f"),
            Column(header="silent episodes", format=".0%"),
            Column(header="all possible", format=".0%"),
            Column(header="outside mass a step", format=".2g"),
            Column(header="help a step", format=".2%"),
            Column(header="spent", format=".2f"),
            Column(header="return", format=".2f"),
        ),
        rows=tuple(
            (
                str(row.base),
                row.budget_nats,
                len(row.silent_share.values),
                row.silent_share,
                row.possible_share,
                row.outside_mass.mean,
                row.help_share.mean,
                row.spent_nats.mean,
                row.return_mean,
            )
            for row in comparison.agents
        ),
        notes=(
            "Silent: more than half of the agent's turns are empty. All possible: episodes whose "
            "every token the demonstrator might write. Outside mass: what the agent gives, a step, "
            "to tokens that the demonstrator never writes there. In brackets: 95% intervals over "
            "seeds.",
            "Help: tokens of the agent's turns that the demonstrator wrote, and the share of the "
            "others' law that it filled.",
        ),
    )


def bases_table(comparison: "Comparison") -> Table:
    """The base policies themselves, and what they cost."""
    rows: list[tuple[Any, ...]] = []
    for row in comparison.bases:
        audit = row.audit
        rows.append(
            (
                str(row.base),
                row.first_silence_nats,
                row.silent_episode_nats,
                row.silent_share,
                row.possible_share,
                row.outside_mass,
                row.help_share,
                None if audit is None else audit.n_vetoes,
                None if audit is None else audit.n_false,
                None if audit is None else audit.n_blocked,
                None if audit is None else audit.cheapest_never_nats,
            )
        )
    return Table(
        name="bases",
        title="The base policies themselves",
        columns=(
            Column(header="base policy"),
            Column(header="first silence (nats)", format=".2f"),
            Column(header="silent episode (nats)", format=".1f"),
            Column(header="silent", format=".1%"),
            Column(header="all possible", format=".0%"),
            Column(header="outside mass a step", format=".2g"),
            Column(header="help a step", format=".2%"),
            Column(header="vetoes", format=".0f"),
            Column(header="false", format=".0f"),
            Column(header="blocked", format=".0f"),
            Column(header="cheapest never (nats)", format=".1f"),
        ),
        rows=tuple(rows),
        notes=(
            "Prices: medians over dialogues that the base policy began; silent episode: nothing "
            "but silence from the second turn on. inf: impossible, at any budget.",
            "False: vetoed events that the demonstrator does. Blocked: its tokens in held-out "
            "dialogues that have no probability left. Cheapest never: the least price of an event "
            "that it never does, median over those dialogues.",
        ),
    )


def prices_table(comparison: "Comparison") -> Table:
    """What silence costs over the demonstrator's own contexts."""
    rows = []
    for row in comparison.bases:
        for name, prices in (
            ("words", row.prices.after_words),
            ("an empty turn", row.prices.after_empty),
            ("all", row.prices.everywhere),
        ):
            rows.append((str(row.base), name, prices.n_turns, *_percentiles(prices)))
    return Table(
        name="silence",
        title="What silence costs where the demonstrator speaks (nats)",
        columns=(
            Column(header="base policy"),
            Column(header="reply to"),
            Column(header="turns", format=".0f"),
            *(Column(header=header, format=".2f") for header in ("5%", "25%", "median", "75%")),
            Column(header="expected", format=".1f"),
        ),
        rows=tuple(rows),
        notes=(
            "Over all turns that the demonstrator opens in dialogues of its own; expected: how "
            "many silences the base policy expected there, where there were none.",
        ),
    )


def _percentiles(prices: "ContextPrices") -> tuple[float | None, ...]:
    known = prices.percentiles_nats or (None,) * 4
    return (*known, prices.expected)


def plot(comparison: "Comparison", stem: Path) -> tuple[Path, Path]:
    """Draw what agents did against the budget.

    Returns:
        The PNG and the PDF.
    """
    from mightnt.figure_style import figure_style, new_figure, save_figure

    panels = (
        ("silent_share", "(a) Silent episodes", "share of episodes"),
        ("possible_share", "(b) What the demonstrator might do", "share of episodes"),
        ("help_share", "(c) The demonstrator's part", "share of the agent's tokens"),
        ("return_mean", "(d) Return", "reward of an episode"),
    )
    with figure_style():
        figure = new_figure(height_inches=5.2)
        axes: Any = figure.subplots(2, 2).ravel()
        for axis, (name, title, label) in zip(axes, panels, strict=True):
            _draw(axis, comparison, name)
            axis.set_title(title)
            axis.set_ylabel(label)
            axis.set_xscale("log")
            budgets = sorted({row.budget_nats for row in comparison.agents})
            axis.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
            axis.minorticks_off()
            axis.set_xlabel("budget (nats an episode)")
            if name in ("silent_share", "possible_share"):
                axis.set_ylim(-0.04, 1.04)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        return save_figure(figure, stem)


def _draw(axis: Any, comparison: "Comparison", name: str) -> None:
    """One line a base policy, with intervals over seeds."""
    from mightnt.figure_style import series_look

    for index, base in enumerate(comparison.plan.bases):
        rows: list[AgentsRow] = [row for row in comparison.agents if row.base is base]
        over = [getattr(row, name) for row in rows]
        means = [each.mean for each in over]
        low = [0.0 if o.low is None else o.mean - o.low for o in over]
        high = [0.0 if o.high is None else o.high - o.mean for o in over]
        # Lines that lie on one another are set apart a little.
        shift = 1.05 ** (index - (len(comparison.plan.bases) - 1) / 2)
        axis.errorbar(
            [row.budget_nats * shift for row in rows],
            means,
            yerr=[low, high],
            capsize=2,
            label=str(base),
            **series_look(index),
        )


if __name__ == "__main__":
    main()
