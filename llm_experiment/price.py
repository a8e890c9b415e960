"""Price scripted behaviours under a base policy: a table and a figure.

    python -m llm_experiment.price --out results/price

writes `price.json`, every number of the table, and a figure; what is measured, and why, says
`llm_experiment.agent.script_prices`. The dialogues of one script are independent given the base
policy; one base policy is one run, so that nothing here has an interval.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import tyro
from rich.console import Console

from llm_experiment.config import WorldConfig, at_least, check_vocabularies
from llm_experiment.dialogue.task import load_task
from mightnt.command_line import parse_command_line, run_command
from mightnt.progress import track
from mightnt.results import check_writable, write_json
from mightnt.tables import Column, Table, print_table
from theory.errors import InvalidArgumentError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llm_experiment.agent.script_prices import ScriptPrice
    from llm_experiment.chat.world import World

PROG: Final = "python -m llm_experiment.price"
STEM: Final = "price"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Price scripted behaviours of the agent under a base model."""

    out: Path = Path("results/price")
    """Folder for the table and the figure."""
    world: Annotated[WorldConfig, tyro.conf.arg(name="")] = field(default_factory=WorldConfig)
    """The base model and the dialogue."""
    phrases: tuple[str, ...] = (
        " Yes.",
        " No.",
        " Okay.",
        " Maybe.",
        " Good!",
        " Thanks, your report is great.",
        " No, your report is too bad.",
        " Why are you so quiet?",
    )
    """What scripts say over and over, as the tokenizer writes it after a name and its colon."""
    n_episodes: int = 64
    """Dialogues, that is contexts, for each script."""
    n_tokens: int = 384
    """Length of a dialogue in tokens, the prompt included."""
    free_turns: int = 2
    """Turns that the base policy plays before the script starts."""
    n_turns: int = 8
    """Scripted turns whose prices count."""
    seed: int = 0
    """Seed of all dialogues."""

    def __post_init__(self) -> None:
        if not self.phrases:
            raise InvalidArgumentError("phrases must name at least 1 text, got none")
        for name in ("n_episodes", "n_tokens", "free_turns", "n_turns"):
            at_least(name, getattr(self, name), 1)
        at_least("seed", self.seed, 0)
        load_task(self.world.task)
        check_vocabularies(self.world)


@dataclass(frozen=True, kw_only=True)
class PricedScripts:
    """The prices of a set of scripts under one base model.

    Attributes:
        options: what was asked for.
        prices: one a script, from the shortest description to the longest.
        rank_correlation: Spearman's, of description length and median total price over the
            scripts that have one; nan for fewer than three.
    """

    options: Options
    prices: "tuple[ScriptPrice, ...]"
    rank_correlation: float


def price_scripts(
    world: "World", tokenizer: "PreTrainedTokenizerBase", options: Options
) -> PricedScripts:
    """Price all behaviours.

    Args:
        world: where.
        tokenizer: its base policy's.
        options: what to price, how long and how often.

    Raises:
        InvalidArgumentError: a phrase that cannot be written, or dialogues no longer than the
            prompt.
    """
    from llm_experiment.agent.script_prices import (
        behaviours,
        encode_phrases,
        price_script,
        rank_correlation,
    )

    scripts = behaviours(encode_phrases(tokenizer, options.phrases, world=world))
    prices = [
        price_script(
            world,
            name,
            script,
            n_episodes=options.n_episodes,
            n_tokens=options.n_tokens,
            free_turns=options.free_turns,
            n_turns=options.n_turns,
            seed=options.seed,
        )
        for name, script in track(scripts.items(), "scripts", total=len(scripts))
    ]
    prices.sort(key=lambda p: p.length_bits)
    return PricedScripts(
        options=options, prices=tuple(prices), rank_correlation=rank_correlation(prices)
    )


def plot(result: PricedScripts, stem: Path) -> tuple[Path, Path]:
    """Draw price against description length.

    Returns:
        The PNG and the PDF.
    """
    import numpy as np

    from mightnt.figure_style import GREY, figure_style, new_figure, save_figure

    priced = [p for p in result.prices if p.total_nats]
    numbers = range(1, len(priced) + 1)
    with figure_style():
        figure = new_figure(height_inches=3.6)
        axes: Any = figure.subplots(1, 2)
        left, right = axes
        bits = np.array([p.length_bits for p in priced])
        low, middle, high = np.array([p.total_nats for p in priced]).reshape(-1, 3).T
        left.errorbar(bits, middle, yerr=[middle - low, high - middle], fmt="o", capsize=2)
        for number, x, y in zip(numbers, bits, middle, strict=True):
            left.annotate(f"{number}", (x, y), xytext=(4, 3), textcoords="offset points")
        if priced:
            line = np.linspace(bits.min(), bits.max())
            left.plot(line, line * math.log(2), color=GREY, ls=":", label="ln 2 nats a bit")
            left.legend(loc="lower right")
            left.set_yscale("log")
            right.set_xscale("log")
        left.set_xlabel("description length (bits)")
        left.set_ylabel(f"price of {result.options.n_turns} turns (nats)")
        left.set_title("(a) Price and description; quartiles")
        for turn, marker, name in ((0, "o", "first turn"), (-1, "s", "last turn")):
            right.plot([p.turn_nats[turn] for p in priced], numbers, marker, label=name)
        right.set_yticks(numbers, [f"{p.name}  {n}" for n, p in zip(numbers, priced, strict=True)])
        right.invert_yaxis()
        right.set_xlabel("median price (nats)")
        right.set_title("(b) Beginning and going on")
        if priced:
            right.legend()
        return save_figure(figure, stem)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, run, print."""

    def command() -> None:
        _price(parse_command_line(Options, argv, prog=PROG), Console())

    run_command(command)


def _price(options: Options, console: Console) -> None:
    """Price, write and print."""
    from llm_experiment.chat.world import check_world, load_models, make_world

    check_writable(options.out / f"{STEM}.json")
    check_world(options.world, lengths=(options.n_tokens,))
    models = load_models(options.world)
    result = price_scripts(make_world(options.world, models), models.tokenizer, options)
    write_json(options.out / f"{STEM}.json", result)
    paths = plot(result, options.out / STEM)
    print_table(to_table(result), console)
    for path in paths:
        console.print(f"wrote {path}", highlight=False)


def to_table(result: PricedScripts) -> Table:
    """The prices, for a person."""
    numbers = ("25%", "median", "75%", "first", "last", "reward")
    columns = [
        Column(header="behaviour"),
        Column(header="bits", format=".1f"),
        Column(header="contexts", format=".0f"),
        *(Column(header=header, format=".2f") for header in numbers),
    ]
    rows = []
    for p in result.prices:
        nats = (*p.total_nats, p.turn_nats[0], p.turn_nats[-1]) if p.total_nats else (None,) * 5
        rows.append((p.name, p.length_bits, p.n_contexts, *nats, p.reward_mean))
    return Table(
        title=f"Price of {result.options.n_turns} scripted turns (nats)",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=(f"rank correlation {result.rank_correlation:.2f}",),
    )


if __name__ == "__main__":
    main()
