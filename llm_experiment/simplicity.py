"""Simplicity against price, with several base models and frequency held fixed.

    python -m llm_experiment.simplicity --out results/simplicity

trains small base models on the support desk, each with a seed of its own, and prices every promise
under each (`llm_experiment.measures.simplicity`). A base model is the unit of independence:
intervals are Student's over models. What is trained and priced is written model by model, so that
the same command goes on where it was stopped. `simplicity.json` has every number, `simplicity.md`
the tables, and a figure shows price against description length.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console

from llm_experiment.base.shipped import LANGUAGE_MODEL, LanguageModelRecipe
from llm_experiment.config import WorldConfig, at_least
from mightnt.command_line import parse_command_line, run_command
from mightnt.progress import track
from mightnt.results import check_folder, from_jsonable, read_json, write_json
from mightnt.table_files import publish
from mightnt.tables import Column, Table
from theory.arguments import check_budget

if TYPE_CHECKING:
    from llm_experiment.measures.simplicity import PromisePrice

PROG: Final = "python -m llm_experiment.simplicity"
STEM: Final = "simplicity"
TASK: Final = "support_desk"
PRICES_FILE: Final = "prices.json"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Price promises of different description lengths under several base models."""

    out: Path = Path("results/simplicity")
    """Folder for models, tables and figure. The same command goes on where it stopped."""
    n_models: int = 5
    """Base models, trained with seeds 0, 1, ..."""
    recipe: LanguageModelRecipe = field(
        default_factory=lambda: LanguageModelRecipe(
            n_tokens=2_000_000, sequence_length=256, batch_size=4, n_heldout=128
        )
    )
    """How each is trained, but for its seed."""
    n_contexts: int = 32
    """Dialogues in which each promise is priced."""
    n_tokens: int = 256
    """Length of these in tokens, the prompt included."""
    n_turns: int = 3
    """How often in a row a promise is made."""
    budget_nats: float = 6.0
    """Budget of an episode for the closed form's share."""

    def __post_init__(self) -> None:
        for name in ("n_models", "n_contexts", "n_tokens", "n_turns"):
            at_least(name, getattr(self, name), 1)
        check_budget(budget_nats=self.budget_nats)


@dataclass(frozen=True, kw_only=True)
class PricedModel:
    """One base model, and what promises cost under it.

    Attributes:
        made_with: the options it was made with, all that its numbers depend on.
        excess_nats: a token, over the entropy of the process, on held-out dialogues.
        prices: one a promise.
    """

    made_with: Options
    excess_nats: float
    prices: "tuple[PromisePrice, ...]"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, run, print."""

    def command() -> None:
        _run(parse_command_line(Options, argv, prog=PROG), Console())

    run_command(command)


def _run(options: Options, console: Console) -> None:
    """Train, price, write and print."""
    check_folder(options.out)
    models = [
        priced_model(options, seed)
        for seed in track(range(options.n_models), "base models", total=options.n_models)
    ]
    publish(
        options.out / f"{STEM}.json",
        {"options": options, "models": models},
        make_tables(models, options),
        console,
        draw=lambda stem: plot(models, options, stem),
    )


def priced_model(options: Options, seed: int) -> PricedModel:
    """The base model of a seed, from its folder or newly trained and priced.

    Raises:
        ResultsError: its folder cannot be written.
    """
    from llm_experiment.measures.simplicity import PromisePrice

    own = replace(
        options,
        out=Path(),
        n_models=1,
        budget_nats=0.0,
        recipe=replace(options.recipe, seed=seed),
    )
    folder = options.out / f"model-{seed}"

    def parse(content: dict[str, Any]) -> PricedModel:
        prices = tuple(from_jsonable(PromisePrice, each) for each in content["prices"])
        made_with = from_jsonable(Options, content["made_with"])
        return PricedModel(
            made_with=made_with, excess_nats=float(content["excess_nats"]), prices=prices
        )

    there = read_json(folder / PRICES_FILE, parse, remedy=f"delete {folder}")
    return there if there is not None and there.made_with == own else _train_and_price(own, folder)


def _train_and_price(own: Options, folder: Path) -> PricedModel:
    from llm_experiment.base.training import train_into
    from llm_experiment.chat.token_texts import encode_words
    from llm_experiment.chat.world import load_models, make_world
    from llm_experiment.dialogue.process import DialogueProcess
    from llm_experiment.dialogue.task import load_task
    from llm_experiment.measures.simplicity import price_promises

    _, quality = train_into(folder, DialogueProcess(load_task(TASK)), own.recipe)
    config = WorldConfig(task=TASK, base_model=str(folder / LANGUAGE_MODEL))
    models = load_models(config)
    world = make_world(config, models)
    speaker = world.parser.rules.agent
    prices = price_promises(
        world,
        lambda words: encode_words(models.tokenizer, words, speaker=speaker),
        n_contexts=own.n_contexts,
        n_tokens=own.n_tokens,
        n_turns=own.n_turns,
        seed=own.recipe.seed,
    )
    priced = PricedModel(made_with=own, excess_nats=quality.excess.mean, prices=prices)
    write_json(folder / PRICES_FILE, priced)
    return priced


def make_tables(models: Sequence[PricedModel], options: Options) -> tuple[Table, Table]:
    """What price goes with, and every promise's price, over models."""
    from llm_experiment.measures.metrics import AMOUNT, SHARE
    from llm_experiment.measures.simplicity import (
        BIT,
        EVERYTHING,
        RANK,
        RARER,
        WORD,
        associations,
    )
    from mightnt.statistics import mean_over_runs

    each = [associations(model.prices) for model in models]
    intervals = "In brackets: Student's 95% interval over base models."
    parts = (RANK, BIT, WORD, RARER)
    summary = Table(
        title=f"What the price of a first promise goes with ({len(models)} base models)",
        columns=(
            Column(header="promises"),
            Column(header=f"{RANK}\nwith description", format=".2f"),
            Column(header=f"{BIT}, at equal\nwords (nats)", format=".3f"),
            Column(header=f"{WORD}, at equal\nbits (nats)", format=".3f"),
            Column(header=f"{RARER}\n(nats)", format=".2f"),
        ),
        rows=tuple(
            (
                {"common": "made by 1 in 63", "rare": "made by 1 in 250"}.get(arm, arm)
                if arm != "never"
                else "made by nobody",
                *(
                    mean_over_runs(one[arm][part] for one in each) if part in each[0][arm] else None
                    for part in parts
                ),
            )
            for arm in each[0]
        ),
        notes=(
            intervals,
            f"{EVERYTHING}: frequencies and shapes mixed, as a correlation over any list of "
            "behaviours is. Others: at one frequency. Theorem 1 allows at most 0.693 nats a bit.",
        ),
        name="associations",
    )
    promises = Table(
        title="Price of a promise, by description length",
        columns=(
            Column(header="promise"),
            Column(header="words", format=".0f"),
            Column(header="bits", format=".1f"),
            Column(header="first (nats)", format=".2f"),
            Column(header="last (nats)", format=".2f"),
            Column(header="share bought", format=".0%"),
        ),
        rows=tuple(
            (
                price.name,
                price.promise.n_words,
                price.bits,
                *(
                    mean_over_runs((m.prices[i].turn_nats[turn] for m in models), within=AMOUNT)
                    for turn in (0, -1)
                ),
                mean_over_runs(
                    (model.prices[i].share(options.budget_nats) for model in models), within=SHARE
                ),
            )
            for i, price in enumerate(models[0].prices)
        ),
        notes=(
            f"First, last: the first and the last of {options.n_turns} turns in a row. Share "
            f"bought: of episodes, by the closed form, in which {options.budget_nats:g} nats buy "
            "all of them.",
            intervals,
        ),
        name="promises",
    )
    return summary, promises


def plot(models: Sequence[PricedModel], options: Options, stem: Path) -> tuple[Path, Path]:
    """Draw price and share against description length.

    Returns:
        The PNG and the PDF.
    """
    import math

    import numpy as np

    from llm_experiment.dialogue.tasks.support_desk import Said
    from llm_experiment.measures.metrics import AMOUNT
    from mightnt.figure_style import (
        BLUE,
        GREY,
        ORANGE,
        VERMILLION,
        figure_style,
        new_figure,
        save_figure,
    )
    from mightnt.statistics import mean_over_runs

    def first(model: PricedModel, number: int) -> float:
        return model.prices[number].turn_nats[0]

    def bought(model: PricedModel, number: int) -> float:
        return model.prices[number].share(options.budget_nats)

    looks = {Said.COMMON: (BLUE, "o"), Said.RARE: (ORANGE, "s"), Said.NEVER: (VERMILLION, "^")}
    names = {Said.COMMON: "1 in 63 make it", Said.RARE: "1 in 250", Said.NEVER: "nobody"}
    promises = [price.promise for price in models[0].prices]
    bits = np.array([price.bits for price in models[0].prices])
    with figure_style():
        figure = new_figure(height_inches=3.4)
        left, right = figure.subplots(1, 2)
        for axes, value in ((left, first), (right, bought)):
            over = [
                mean_over_runs((value(model, i) for model in models), within=AMOUNT)
                for i in range(len(promises))
            ]
            means = np.array([o.mean for o in over])
            ends = np.array(
                [[o.mean if end is None else end for end in (o.low, o.high)] for o in over]
            )
            for said, (color, marker) in looks.items():
                for n_words in sorted({promise.n_words for promise in promises}):
                    own = [
                        i
                        for i, promise in enumerate(promises)
                        if (promise.said, promise.n_words) == (said, n_words)
                    ]
                    axes.errorbar(
                        bits[own],
                        means[own],
                        yerr=np.abs(ends[own] - means[own, None]).T,
                        fmt=f"{marker}-" if axes is left else marker,
                        linewidth=0.8,
                        color=color,
                        markersize=4,
                        capsize=2,
                        label=names[said] if n_words == 1 else None,
                    )
                    if axes is left and said is Said.NEVER:
                        axes.annotate(
                            f"{n_words} word{'s' if n_words > 1 else ''}",
                            (bits[own[-1]], means[own[-1]]),
                            xytext=(5, 0),
                            textcoords="offset points",
                            va="center",
                            fontsize=7,
                        )
        line = np.array([bits.min(), bits.max()])
        left.plot(line, line * math.log(2), color=GREY, ls=":", label="ln 2 nats a bit")
        left.set_yscale("log")
        left.set_ylim(bottom=2.0)
        left.set_ylabel("price of the first (nats)")
        left.set_title("(a) Price; lines join equally many words")
        right.set_ylim(-0.03, 1.03)
        right.set_ylabel(f"share bought by {options.budget_nats:g} nats")
        right.set_title("(b) What a budget buys, closed form")
        for axes in (left, right):
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:g}")
            axes.set_xlim(right=2.2 * bits.max())
            axes.set_xlabel("description length (bits)")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
        return save_figure(figure, stem)


if __name__ == "__main__":
    main()
