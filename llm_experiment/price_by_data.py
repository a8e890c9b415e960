"""The price of what the demonstrator never does, against the amount of data.

    python -m llm_experiment.price_by_data --powers 12 13 14 15 16 17 18 19 20 21 22 23

trains small base models on 2^k tokens of a task's process, several seeds each, and prices
never-events under each (`llm_experiment.measures.price_by_data`), as it is and under vetoes that
are learnt from as much data again, beside a count-based estimator.
By Theorem 1 the price of what is new is bounded whatever the amount of data, for an exact Bayesian
imitator (`llm_experiment.exact_mixture`); a language model is none, and this measures it. Intervals
are Student's over seeds. What is trained is written model by model, so that the same command goes
on where it was stopped. `price_by_data.json` has every number, `price_by_data.md` the table, and a
figure shows the curves.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console

from llm_experiment.base.own import part_fingerprints
from llm_experiment.base.shipped import LANGUAGE_MODEL, LanguageModelRecipe
from llm_experiment.config import WorldConfig, at_least
from llm_experiment.dialogue.task import load_task
from mightnt.command_line import parse_command_line, run_command
from mightnt.progress import track
from mightnt.results import check_folder, from_jsonable, read_json, write_json
from mightnt.table_files import publish
from mightnt.tables import Column, Table
from theory.arguments import check_alpha
from theory.errors import InvalidArgumentError

if TYPE_CHECKING:
    from llm_experiment.measures.price_by_data import NeverPrices

PROG: Final = "python -m llm_experiment.price_by_data"
STEM: Final = "price_by_data"
PRICES_FILE: Final = "prices.json"
_STREAM: Final = 2
"""Contexts draw from another stream than training and held-out dialogues."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Price never-events under base models of more and more data."""

    out: Path = Path("results/price-by-data")
    """Folder for models, table and figure. The same command goes on where it stopped."""
    task: str = "classroom"
    """Dialogue task: a module of llm_experiment/dialogue/tasks/, or your own as module:name."""
    powers: tuple[int, ...] = (12, 14, 16, 18)
    """The k of 2^k tokens to learn from."""
    n_seeds: int = 3
    """Base models of each size; their seeds are 0, 1, ..."""
    recipe: LanguageModelRecipe = field(
        default_factory=lambda: LanguageModelRecipe(
            sequence_length=160, batch_size=16, n_heldout=64
        )
    )
    """How each is trained, but for tokens, seed, and smaller batches where data are few."""
    least_steps: int = 512
    """Optimiser steps at least, by smaller batches, where there are as many dialogues."""
    n_words: int = 8
    """Words that nobody says by themselves, to be priced as turns."""
    n_contexts: int = 64
    """Dialogues of the demonstrator in which each never-event is priced, at most."""
    n_tokens: int = 160
    """Length of these in tokens."""
    alpha: float = 0.05
    """Threshold of the vetoes."""
    most_demonstrations: int = 128
    """Dialogues that vetoes are learnt from, at most."""

    def __post_init__(self) -> None:
        sizes = ("n_seeds", "least_steps", "n_words", "n_contexts", "n_tokens")
        for name in (*sizes, "most_demonstrations"):
            at_least(name, getattr(self, name), 1)
        check_alpha(self.alpha)
        if not self.powers or min(self.powers) < 1 or len({*self.powers}) < len(self.powers):
            raise InvalidArgumentError(
                f"powers must name exponents >= 1, each once, got {self.powers}"
            )
        load_task(self.task)

    def model(self, power: int, seed: int) -> "Options":
        """All that the numbers of one base model depend on."""
        n_dialogues = 2**power // self.recipe.sequence_length
        batch_size = max(1, min(self.recipe.batch_size, n_dialogues // self.least_steps))
        recipe = replace(self.recipe, n_tokens=2**power, seed=seed, batch_size=batch_size)
        return replace(self, out=Path(), powers=(power,), n_seeds=1, recipe=recipe)


@dataclass(frozen=True, kw_only=True)
class PricedModel:
    """One base model, and what never-events cost under it.

    Attributes:
        made_with: the options it was made with, all that its numbers depend on but for `parts`.
        parts: what identifies a task of one's own, by its name.
        n_turns: turns of the agent's role that it has seen.
        excess_nats: a token, over the entropy of the process, on held-out dialogues.
        prices: of never-events.
        n_demonstrations: dialogues that vetoes were learnt from.
        n_vetoes: lines of their file.
        vetoed: prices of the same under them.
    """

    made_with: Options
    parts: dict[str, str]
    n_turns: int
    excess_nats: float
    prices: "NeverPrices"
    n_demonstrations: int
    n_vetoes: int
    vetoed: "NeverPrices"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, run, print."""

    def command() -> None:
        _run(parse_command_line(Options, argv, prog=PROG), Console())

    run_command(command)


def _run(options: Options, console: Console) -> None:
    """Train, price, write and print."""
    check_folder(options.out)
    wanted = [(power, seed) for power in options.powers for seed in range(options.n_seeds)]
    models = [
        priced_model(options, power, seed)
        for power, seed in track(wanted, "base models", total=len(wanted))
    ]
    publish(
        options.out / f"{STEM}.json",
        {"options": options, "models": models},
        [to_table(models, options)],
        console,
        draw=lambda stem: plot(models, options, stem),
    )


def priced_model(options: Options, power: int, seed: int) -> PricedModel:
    """The base model of a size and seed, from its folder or newly trained and priced.

    Raises:
        ResultsError: its folder cannot be written.
    """
    from llm_experiment.measures.price_by_data import NeverPrices

    own = options.model(power, seed)
    parts = part_fingerprints(WorldConfig(task=own.task))
    folder = options.out / f"tokens-2e{power}-seed{seed}"

    def parse(content: dict[str, Any]) -> PricedModel:
        return PricedModel(
            made_with=from_jsonable(Options, content["made_with"]),
            parts=from_jsonable(dict[str, str], content.get("parts", {})),
            n_turns=int(content["n_turns"]),
            excess_nats=float(content["excess_nats"]),
            prices=from_jsonable(NeverPrices, content["prices"]),
            n_demonstrations=int(content["n_demonstrations"]),
            n_vetoes=int(content["n_vetoes"]),
            vetoed=from_jsonable(NeverPrices, content["vetoed"]),
        )

    there = read_json(folder / PRICES_FILE, parse, remedy=f"delete {folder}")
    if there is not None and (there.made_with, there.parts) == (own, parts):
        return there
    return _train_and_price(own, parts, folder)


def _train_and_price(own: Options, parts: dict[str, str], folder: Path) -> PricedModel:
    import numpy as np

    from llm_experiment.base.training import train_into
    from llm_experiment.chat.vetoed import vetoed_base
    from llm_experiment.dialogue.process import DialogueProcess
    from llm_experiment.measures.price_by_data import (
        DEMONSTRATION_TOKENS,
        agent_turns_seen,
        audit_vetoes_of,
        never_prices,
        plain_contexts,
        unheard_words,
    )
    from llm_experiment.pessimism.studies import load_imitator

    process, seed = DialogueProcess(load_task(own.task)), own.recipe.seed
    # What there is to price is known before anything is trained.
    words = unheard_words(process, own.n_words)
    contexts = plain_contexts(
        process, np.random.default_rng([seed, _STREAM]), n=own.n_contexts, n_tokens=own.n_tokens
    )
    _, quality = train_into(folder, process, own.recipe)
    imitator = load_imitator(WorldConfig(task=own.task, base_model=str(folder / LANGUAGE_MODEL)))
    base, reader = imitator.base, imitator.reader
    as_much = own.recipe.n_tokens // DEMONSTRATION_TOKENS
    n_demonstrations = max(1, min(as_much, own.most_demonstrations))
    vetoes = audit_vetoes_of(imitator, n_demonstrations, alpha=own.alpha, seed=seed)
    priced = PricedModel(
        made_with=own,
        parts=parts,
        n_turns=agent_turns_seen(process, own.recipe),
        excess_nats=quality.excess.mean,
        prices=never_prices(base, reader, process, contexts, words=words),
        n_demonstrations=n_demonstrations,
        n_vetoes=len(vetoes.vetoes),
        vetoed=never_prices(
            vetoed_base(base, vetoes, reader.parser), reader, process, contexts, words=words
        ),
    )
    write_json(folder / PRICES_FILE, priced)
    return priced


_SERIES: Final = {
    "behaviour": "{name}",
    "unheard": "word that nobody says",
    "cheapest": "cheapest of these",
}
_VETOED_SERIES: Final = ("behaviour", "cheapest")


def to_table(models: Sequence[PricedModel], options: Options) -> Table:
    """The prices by amount of data."""
    from llm_experiment.measures.price_by_data import count_based_nats
    from mightnt.statistics import mean_over_runs

    behaviour = load_task(options.task).behaviour
    groups = {p: [m for m in models if m.made_with.powers == (p,)] for p in options.powers}
    return Table(
        title="Price of what the demonstrator never does, by amount of data (nats)",
        columns=(
            Column(header="tokens", format=",.0f"),
            Column(header="models", format=".0f"),
            Column(header="excess\na token", format=".3f"),
            *(Column(header=behaviour.say(name), format=".2f") for name in _SERIES.values()),
            Column(header="count-based", format=".2f"),
            *(
                Column(header=f"{behaviour.say(_SERIES[name])},\nvetoed", format=".2f")
                for name in _VETOED_SERIES
            ),
        ),
        rows=tuple(
            (
                2**power,
                len(group),
                mean_over_runs(model.excess_nats for model in group),
                *(
                    mean_over_runs(getattr(model.prices, name) for model in group)
                    for name in _SERIES
                ),
                mean_over_runs(count_based_nats(model.n_turns) for model in group),
                *(min(getattr(model.vetoed, name) for model in group) for name in _VETOED_SERIES),
            )
            for power, group in groups.items()
        ),
        notes=(
            f"Medians over contexts, then means over base models. Words: {options.n_words} that no "
            "turn begins with, each a turn by itself. Count-based: ln(n + 2) for n turns of the "
            "agent's role.",
            "In brackets: Student's 95% interval over base models.",
            "Vetoed: under vetoes learnt from as much data again, of "
            f"{max(model.n_demonstrations for model in models)} dialogues at most; the least over "
            "base models; inf: impossible.",
        ),
        name="prices",
    )


def plot(models: Sequence[PricedModel], options: Options, stem: Path) -> tuple[Path, Path]:
    """Draw the prices against the amount of data; a dot a base model.

    Returns:
        The PNG and the PDF.
    """
    import numpy as np

    from llm_experiment.measures.price_by_data import count_based_nats
    from mightnt.figure_style import (
        BLUE,
        GREY,
        ORANGE,
        VERMILLION,
        figure_style,
        new_figure,
        save_figure,
    )

    behaviour = load_task(options.task).behaviour
    tokens = np.array([model.made_with.recipe.n_tokens for model in models])
    sizes = np.unique(tokens)

    def draw(values: "np.ndarray[Any, Any]", look: dict[str, Any], label: str) -> None:
        axes.plot(tokens, values, linestyle="", markersize=3, **look)
        means = [values[tokens == size].mean() for size in sizes]
        axes.plot(sizes, means, color=look["color"], label=label)

    with figure_style():
        figure = new_figure(width_inches=4.6, height_inches=3.2)
        axes: Any = figure.subplots()
        for (name, label), color, marker in zip(
            _SERIES.items(), (BLUE, VERMILLION, ORANGE), "o^v", strict=True
        ):
            values = np.array([getattr(model.prices, name) for model in models])
            draw(values, {"color": color, "marker": marker}, behaviour.say(label))
        counted = np.array([count_based_nats(model.n_turns) for model in models])
        draw(counted, {"color": GREY, "marker": "x"}, "count-based: ln(n + 2)")
        vetoed = np.array([model.vetoed.behaviour for model in models])
        gone = np.isinf(vetoed)
        look = {"linestyle": "", "color": BLUE, "markerfacecolor": "white"}
        if not gone.all():
            label = behaviour.say("{name}, vetoed")
            axes.plot(tokens[~gone], vetoed[~gone], marker="D", label=label, **look)
        if gone.any():
            label = behaviour.say("{name}, vetoed: impossible")
            at_the_top = axes.get_xaxis_transform()
            axes.plot(
                tokens[gone], np.full(gone.sum(), 0.97), marker="^", transform=at_the_top,
                label=label, **look,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
        axes.set_xlabel("tokens of training")
        axes.set_ylabel("price (nats)")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        return save_figure(figure, stem)


if __name__ == "__main__":
    main()
