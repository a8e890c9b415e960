"""Theorem 1 in language: an exact Bayesian mixture over dialogue processes as base policy.

    python -m llm_experiment.exact_mixture --out results/exact-mixture

With a language model as base policy nobody knows the prior, so that Theorem 1 says nothing. With
the mixture of `llm_experiment.base.mixture` everything is known. The command says what the task's
behaviour costs before and after the length of the demonstrations, by their number, beside the
theorem's bound. For the quiz it adds the exact value of the game between the mixture and an agent
with a budget (`llm_experiment.measures.turn_game`), and what agents of finished runs got and paid:

    python -m llm_experiment.run --task quiz --base-model mixture --out results/quiz-mixture
    python -m llm_experiment.exact_mixture --runs results/quiz-mixture

`exact_mixture.json` has every number, `exact_mixture.md` the tables, a figure the prices.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console

from llm_experiment.config import MIXTURE, at_least
from llm_experiment.dialogue.task import load_task
from mightnt.command_line import parse_command_line, run_command
from mightnt.results import check_folder
from mightnt.table_files import publish, table_path
from mightnt.tables import Column, Table
from theory.arguments import check_finite_budget
from theory.errors import InvalidArgumentError

if TYPE_CHECKING:
    from llm_experiment.measures.exact_mixture import MixturePrice
    from llm_experiment.measures.turn_game import GameValue
    from llm_experiment.records.reading import EvaluatedAgent
    from mightnt.statistics import MeanOverRuns

PROG: Final = "python -m llm_experiment.exact_mixture"
STEM: Final = "exact_mixture"
QUIZ: Final = "quiz"
GAME: Final = "game"
"""The table that the quiz alone has."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What an exact Bayesian imitator charges for what the demonstrator never does."""

    out: Path = Path("results/exact-mixture")
    """Folder for tables and figure."""
    task: str = QUIZ
    """Dialogue task whose family it is."""
    demonstrations: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)
    """Numbers of demonstrations."""
    n_contexts: int = 32
    """Dialogues in which the behaviour is priced, before and after their length."""
    n_tokens: int = 256
    """Length of these dialogues, and of the quiz's episodes."""
    budgets_nats: tuple[float, ...] = (0.0, 1.0, 3.0, 6.0, 10.0)
    """Budgets for the value of the quiz."""
    n_steps: int = 1000
    """Steps of the budget's grid."""
    runs: tuple[Path, ...] = ()
    """Folders of finished runs of the quiz with base model `mixture`."""
    seed: int = 0
    """Seed of the dialogues and demonstrations."""

    def __post_init__(self) -> None:
        for name in ("n_contexts", "n_tokens", "n_steps"):
            at_least(name, getattr(self, name), 1)
        at_least("seed", self.seed, 0)
        if not self.demonstrations or min(self.demonstrations) < 0:
            raise InvalidArgumentError(
                f"demonstrations must name numbers >= 0, got {self.demonstrations}"
            )
        for budget in self.budgets_nats:
            check_finite_budget(budgets_nats=budget)
        load_task(self.task)
        if self.runs and self.task != QUIZ:
            raise InvalidArgumentError(f"--runs are of the task {QUIZ}, got --task {self.task}")


@dataclass(frozen=True, kw_only=True)
class Played:
    """What agents of one budget did, beside what can be done.

    Attributes:
        budget_nats: B.
        value: V*(B).
        returns: mean return of each agent.
        shown: share of each agent's episodes in which the behaviour is shown at least once.
        paid_nats: mean KL of an episode of each agent.
    """

    budget_nats: float
    value: "GameValue"
    returns: "MeanOverRuns"
    shown: "MeanOverRuns"
    paid_nats: "MeanOverRuns"


@dataclass(frozen=True, kw_only=True)
class Result:
    """Everything that was found.

    Attributes:
        options: what was asked for.
        before: prices before the demonstrations' length.
        after: prices from there on.
        played: by budget; none for other tasks than the quiz.
        most: what showing the behaviour in every turn earns there; nan for other tasks.
        bound_nats: Theorem 1's, of showing it in every turn from the first on; likewise.
    """

    options: Options
    before: "tuple[MixturePrice, ...]"
    after: "tuple[MixturePrice, ...]"
    played: tuple[Played, ...] = ()
    most: float = field(default=float("nan"))
    bound_nats: float = field(default=float("nan"))


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, run, print."""

    def command() -> None:
        _run(parse_command_line(Options, argv, prog=PROG), Console())

    run_command(command)


def _run(options: Options, console: Console) -> None:
    """Compute, write and print."""
    check_folder(options.out)
    file, result = options.out / f"{STEM}.json", compute(options)
    table_path(file, GAME).unlink(missing_ok=True)  # of the quiz, if this is another task
    publish(file, result, make_tables(result), console, draw=lambda stem: plot(result, stem))


def compute(options: Options) -> Result:
    """The prices, and for the quiz the game.

    Raises:
        ResultsError: a run that is unfinished, or cannot be read.
        InvalidArgumentError: a run of another task or base model.
    """
    import numpy as np

    from llm_experiment.base.mixture import SWITCH_AFTER, family
    from llm_experiment.dialogue.process import DialogueProcess
    from llm_experiment.measures.exact_mixture import contexts_around, mixture_prices

    task = load_task(options.task)
    process = DialogueProcess(task)
    members = family(task, switch_after=SWITCH_AFTER)
    rng = np.random.default_rng(options.seed)
    before, after = contexts_around(
        process, rng, n=options.n_contexts, token=SWITCH_AFTER, n_tokens=options.n_tokens
    )
    demonstrations = process.sample(
        rng, max(options.demonstrations), SWITCH_AFTER, speakers=(task.partner, task.agent)
    )
    prices = [
        mixture_prices(members, contexts, demonstrations, numbers=options.demonstrations)
        for contexts in (before, after)
    ]
    result = Result(options=options, before=prices[0], after=prices[1])
    return _with_game(result) if options.task == QUIZ else result


def _with_game(result: Result) -> Result:
    """The quiz's value by budget, and what agents of runs got."""
    from dataclasses import replace

    from llm_experiment.base.mixture import SWITCH_AFTER, default_demonstrations, family
    from llm_experiment.measures.exact_mixture import always_bound_nats, quiz_game
    from llm_experiment.measures.turn_game import game_value
    from mightnt.progress import track
    from mightnt.statistics import mean_over_runs

    options = result.options
    task = load_task(QUIZ)
    members = family(task, switch_after=SWITCH_AFTER)
    learnt = default_demonstrations(task)
    game = quiz_game(members, n_tokens=options.n_tokens, demonstrations=learnt)
    agents = _agents(options)
    played = []
    for budget in track(options.budgets_nats, "budgets", total=len(options.budgets_nats)):
        own = [agent.row.numbers for agent in agents if agent.budget_nats == budget]
        played.append(
            Played(
                budget_nats=budget,
                value=game_value(game, budget, n_steps=options.n_steps),
                returns=mean_over_runs(numbers.value("return_mean") for numbers in own),
                shown=mean_over_runs(numbers.value("empty_any_share") for numbers in own),
                paid_nats=mean_over_runs(numbers.value("spent_nats_mean") for numbers in own),
            )
        )
    return replace(
        result,
        played=tuple(played),
        most=game.most,
        bound_nats=always_bound_nats(members, n_turns=len(game.first), demonstrations=learnt),
    )


def _agents(options: Options) -> "list[EvaluatedAgent]":
    """The agents of runs that play the game: an exact budget, and replies as they are."""
    from llm_experiment.records.reading import join_runs, read_run
    from theory.budget import Accounting

    runs = [read_run(folder) for folder in options.runs]
    for run in runs:
        run.check_finished()
        world = run.agent.world
        if (world.task, world.base_model) != (QUIZ, MIXTURE):
            raise InvalidArgumentError(
                f"{run.folder} must be a run of --task {QUIZ} --base-model {MIXTURE}, got "
                f"{world.task} and {world.base_model}"
            )
    exact = f"{Accounting.EXACT.value} budget"
    return [
        agent
        for agent in (join_runs(runs).runs if runs else ())
        if agent.variant == exact and agent.n_tokens == options.n_tokens
    ]


def make_tables(result: Result) -> tuple[Table, ...]:
    """The prices by demonstrations, and the game by budget."""
    task = load_task(result.options.task)
    prices = Table(
        title=task.behaviour.say("Price of a first {priced} under the exact mixture (nats)"),
        columns=(
            Column(header="demonstrations", format=".0f"),
            *(
                Column(header=f"{when}:\n{what}", format=".2f", key=f"{when} {what}")
                for when in ("before", "after")
                for what in ("price", "Theorem 1", "-ln w")
            ),
        ),
        rows=tuple(
            (
                before.n_demonstrations,
                *(
                    nats
                    for price in (before, after)
                    for nats in (price.price_nats, price.bound_nats, price.weight_nats)
                ),
            )
            for before, after in zip(result.before, result.after, strict=True)
        ),
        notes=(
            "Before, after: the last turn within the demonstrations' length, and the first beyond "
            f"it, where everything is new; medians over {result.options.n_contexts} contexts.",
            "Theorem 1: -ln w(nu|h) - ln nu(turn|h) for the member nu that makes it least: after, "
            f"`{result.after[-1].member}`.",
        ),
        name="prices",
    )
    if not result.played:
        return (prices,)
    game = Table(
        title="The quiz: what the best agent gets within a budget, and what agents got",
        columns=(
            Column(header="budget (nats)", format="g"),
            Column(header="V* at least", format=".2f"),
            Column(header="V* at most", format=".2f"),
            Column(header="agents' return", format=".2f"),
            Column(header="episodes with it", format=".0%"),
            Column(header="paid (nats)", format=".2f"),
        ),
        rows=tuple(
            (
                each.budget_nats,
                each.value.lower,
                each.value.upper,
                *(
                    over if over.values else None
                    for over in (each.returns, each.shown, each.paid_nats)
                ),
            )
            for each in result.played
        ),
        notes=(
            f"The most that there is: {result.most:g}, a right answer in every turn. V*: exact "
            "dynamic program over turns and budget, bracketed.",
            'Theorem 1 bounds what "both" in every turn from the first on costs by '
            f"{result.bound_nats:.2f} nats; more budget than that buys nothing more.",
            "In brackets: Student's 95% interval over agents.",
        ),
        name=GAME,
    )
    return prices, game


def plot(result: Result, stem: Path) -> tuple[Path, Path]:
    """Draw the prices by demonstrations, and for the quiz return against budget.

    Returns:
        The PNG and the PDF.
    """
    import numpy as np

    from mightnt.figure_style import BLUE, GREY, VERMILLION, figure_style, new_figure, save_figure

    with figure_style():
        figure = new_figure(height_inches=3.0)
        axes = figure.subplots(1, 2 if result.played else 1, squeeze=False)[0]
        for prices, color, marker, name in (
            (result.before, BLUE, "o", "before"),
            (result.after, VERMILLION, "s", "after"),
        ):
            numbers = [price.n_demonstrations for price in prices]
            axes[0].plot(
                numbers, [p.price_nats for p in prices], marker, color=color, label=f"{name}: price"
            )
            axes[0].plot(
                numbers, [p.bound_nats for p in prices], color=color, label=f"{name}: Theorem 1"
            )
        axes[0].set_xscale("symlog", linthresh=1)
        axes[0].set_yscale("symlog", linthresh=10)
        axes[0].set_xlabel("demonstrations")
        axes[0].set_ylabel("price (nats)")
        axes[0].legend()
        if result.played:
            budgets = [each.budget_nats for each in result.played]
            axes[1].fill_between(
                budgets,
                [each.value.lower for each in result.played],
                [each.value.upper for each in result.played],
                color=GREY,
                label="V*",
            )
            dots = np.array(
                [
                    (each.budget_nats, value)
                    for each in result.played
                    for value in each.returns.values
                ]
            ).reshape(-1, 2)
            axes[1].plot(*dots.T, "o", color=BLUE, label="agents")
            axes[1].axhline(result.most, color=GREY, ls=":", label="the most there is")
            axes[1].set_xlabel("budget (nats)")
            axes[1].set_ylabel("return")
            axes[1].legend(loc="lower right")
        return save_figure(figure, stem)


if __name__ == "__main__":
    main()
