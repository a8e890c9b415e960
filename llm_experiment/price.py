"""Price scripted behaviours under a base policy: a table and a figure.

    python -m llm_experiment.price --out results/price

writes `price.json`, the table for programs beside it, and a figure; what is measured, and why, says
`llm_experiment.agent.script_prices`. The dialogues of one script are independent given the base
policy; one base policy is one run, so that nothing here has an interval.

Scripts are played some at a time, as many as `--at-once` has room for and as many in each process;
there is a line for each lot. What is priced is written at once: the same command goes on where it
was stopped.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import tyro
from rich.console import Console

from llm_experiment.config import (
    Preset,
    WorldConfig,
    at_least,
    check_vocabularies,
    preset_config,
)
from llm_experiment.dialogue.task import load_task
from llm_experiment.settings import starting_preset
from mightnt.command_line import parse_command_line, run_command
from mightnt.progress import progress_bar
from mightnt.results import check_writable, from_jsonable, read_json, write_json
from mightnt.table_files import write_tables
from mightnt.tables import Column, Table, print_table
from theory.errors import InvalidArgumentError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llm_experiment.agent.script_prices import ScriptPrice
    from llm_experiment.agent.scripts import Script
    from llm_experiment.chat.world import World

    Lot = Mapping[str, Script]
    Prices = list[ScriptPrice]

PROG: Final = "python -m llm_experiment.price"
STEM: Final = "price"
N_PACKAGED_EPISODES: Final = 12
"""Dialogues of a script on a model that reads some 150 tokens a second."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Price scripted behaviours of the agent under a base model."""

    out: Path = Path("results/price")
    """Folder for the table and the figure."""
    preset: Preset = Preset.TINY
    """Where the options below start from: small models, or a larger one with fewer dialogues."""
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
    scripts: tuple[str, ...] = ()
    """Scripts of your own as module:name, each a Script of llm_experiment.agent.scripts."""
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
    at_once: int = 128
    """Dialogues that are played together, of whole scripts; more need more memory."""
    processes: int = 1
    """Lots of dialogues that are played side by side, each process with models of its own."""

    def __post_init__(self) -> None:
        if not self.phrases:
            raise InvalidArgumentError("phrases must name at least 1 text, got none")
        for name in ("n_episodes", "n_tokens", "free_turns", "n_turns", "at_once", "processes"):
            at_least(name, getattr(self, name), 1)
        at_least("seed", self.seed, 0)
        load_task(self.world.task)
        check_vocabularies(self.world)


def starting_options(preset: Preset) -> Options:
    """The options that a preset stands for."""
    start = Options(preset=preset, world=preset_config(preset).world)
    if preset.is_packaged:
        # Replies of up to 64 tokens leave room for fewer turns.
        return replace(
            start,
            n_episodes=N_PACKAGED_EPISODES,
            n_tokens=448,
            free_turns=1,
            n_turns=4,
            at_once=72,
            processes=2,
        )
    return start


@dataclass(frozen=True, kw_only=True)
class PricedScripts:
    """The prices of a set of scripts under one base model.

    Attributes:
        options: what was asked for.
        prices: one a script, from the shortest description to the longest.
        rank_correlation: Spearman's, of description length and median total price over the
            scripts that have one; nan for fewer than three.
        n_left: scripts that are still to be priced.
    """

    options: Options
    prices: "tuple[ScriptPrice, ...]"
    rank_correlation: float
    n_left: int = 0


def price_scripts(
    world: "World",
    tokenizer: "PreTrainedTokenizerBase",
    options: Options,
    *,
    price: "Callable[[World, Options, Sequence[Lot]], Iterator[Prices]] | None" = None,
    done: "Sequence[ScriptPrice]" = (),
    on_priced: Callable[[PricedScripts], None] = lambda _: None,
) -> PricedScripts:
    """Price all behaviours.

    Args:
        world: where.
        tokenizer: its base policy's.
        options: what to price, how long and how often.
        price: how lots of scripts are priced; `price_here` if None.
        done: prices that are known, of the same world and options.
        on_priced: is told what is priced so far, lot by lot.

    Raises:
        InvalidArgumentError: a phrase that cannot be written, or dialogues that are too short for
            any script.
    """
    from llm_experiment.agent.script_prices import behaviours, encode_phrases, own_scripts

    _check_room(world, options)
    scripts = behaviours(encode_phrases(tokenizer, options.phrases, world=world))
    scripts |= own_scripts(options.scripts)
    prices = [price for price in done if price.name in scripts]
    left = [name for name in scripts if name not in {price.name for price in prices}]
    lots = [{name: scripts[name] for name in names} for names in _lots(left, options)]
    with progress_bar() as bar:
        task = bar.add_task("lots of scripts", total=len(lots))
        for priced in (price or price_here)(world, options, lots):
            prices += priced
            bar.advance(task)
            on_priced(_sorted(options, prices, n_left=len(scripts) - len(prices)))
    return _sorted(options, prices, n_left=0)


def _lots(names: Sequence[str], options: Options) -> list[Sequence[str]]:
    """Scripts that are played together, as many lots for each process as for the others."""
    most = max(options.at_once // options.n_episodes, 1)
    n_lots = math.ceil(math.ceil(len(names) / most) / options.processes) * options.processes
    ends = [len(names) * lot // n_lots for lot in range(n_lots + 1)] if names else [0]
    return [names[start:end] for start, end in pairwise(ends) if end > start]


def price_here(world: "World", options: Options, lots: "Sequence[Lot]") -> "Iterator[Prices]":
    """The prices of lots of scripts, one after the other."""
    from llm_experiment.agent.script_prices import price_together

    for lot in lots:
        yield price_together(
            world,
            lot,
            n_episodes=options.n_episodes,
            n_tokens=options.n_tokens,
            free_turns=options.free_turns,
            n_turns=options.n_turns,
            seed=options.seed,
        )


def price_in_processes(
    world: "World", options: Options, lots: "Sequence[Lot]"
) -> "Iterator[Prices]":
    """The same, in processes of one thread, each with models of its own; in any order."""
    import joblib

    del world  # each process makes its own
    workers = joblib.Parallel(n_jobs=options.processes, return_as="generator_unordered")
    return iter(workers(joblib.delayed(_price_lot)(options, lot) for lot in lots))


def _price_lot(options: Options, lot: "Lot") -> "Prices":
    """One lot, in a process that keeps its models from one lot to the next."""
    import torch

    from llm_experiment.jobs import WORLDS

    torch.set_num_threads(1)
    (priced,) = price_here(WORLDS.world(options.world), options, [lot])
    return priced


def _sorted(options: Options, prices: "Sequence[ScriptPrice]", *, n_left: int) -> PricedScripts:
    from llm_experiment.agent.script_prices import rank_correlation

    ordered = sorted(prices, key=lambda p: p.length_bits)
    return PricedScripts(
        options=options,
        prices=tuple(ordered),
        rank_correlation=rank_correlation(ordered),
        n_left=n_left,
    )


def _check_room(world: "World", options: Options) -> None:
    """Raise if not even silence has room for all turns.

    Raises:
        InvalidArgumentError: it has not.
    """
    turns = options.free_turns + options.n_turns
    handed, answered = len(world.parser.partner_opening), len(world.parser.agent_opening)
    least = len(world.prompt_tokens) + turns * handed + (turns - 1) * answered
    if options.n_tokens < least:
        raise InvalidArgumentError(
            f"n_tokens must be >= {least} for {options.free_turns} free and {options.n_turns} "
            f"scripted turns, be they all empty, got {options.n_tokens}; raise --n-tokens or lower "
            "--n-turns"
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
        start = starting_options(starting_preset(argv))
        _price(parse_command_line(Options, argv, prog=PROG, default=start), Console())

    run_command(command)


def _price(options: Options, console: Console) -> None:
    """Price, write and print."""
    from llm_experiment.chat.world import check_world, load_models, make_world

    file = options.out / f"{STEM}.json"
    check_writable(file)
    check_world(options.world, lengths=(options.n_tokens,))
    done = _priced_before(file, options)
    progress = Console(stderr=True)
    if done:
        progress.print(f"{len(done)} scripts were priced before, in {file}", highlight=False)
    models = load_models(options.world)
    started = time.monotonic()

    def keep(result: PricedScripts) -> None:
        write_json(file, result)
        n_priced, seconds = len(result.prices), time.monotonic() - started
        seconds_left = seconds / (n_priced - len(done)) * result.n_left
        progress.print(
            f"priced {n_priced} of {n_priced + result.n_left} scripts in {seconds:.0f} s, about "
            f"{seconds_left:.0f} s left",
            highlight=False,
        )

    result = price_scripts(
        make_world(options.world, models),
        models.tokenizer,
        options,
        price=price_here if options.processes == 1 else price_in_processes,
        done=done,
        on_priced=keep,
    )
    write_json(file, result)
    table = to_table(result)
    paths = (*write_tables(file, [table]), *plot(result, options.out / STEM))
    print_table(table, console)
    for path in paths:
        console.print(f"wrote {path}", highlight=False)


def _priced_before(file: Path, options: Options) -> "tuple[ScriptPrice, ...]":
    """The prices in a file that the same options made, if it is there.

    How many dialogues were played at once, and where the file lies, makes no difference.
    """
    from llm_experiment.agent.script_prices import ScriptPrice

    def parse(content: dict[str, Any]) -> tuple[Options, tuple[ScriptPrice, ...]]:
        prices = [from_jsonable(ScriptPrice, price) for price in content["prices"]]
        return from_jsonable(Options, content["options"]), tuple(prices)

    found = read_json(file, parse, remedy="delete it, or name another --out")
    if found is None:
        return ()
    made_with, prices = found
    same = options == replace(
        made_with, out=options.out, at_once=options.at_once, processes=options.processes
    )
    return prices if same else ()


def to_table(result: PricedScripts) -> Table:
    """The prices, for a person."""
    numbers = ("25%", "median", "75%", "first", "last", "reward")
    columns = [
        Column(header="behaviour"),
        Column(header="bits", format=".1f"),
        Column(header="contexts", format=".0f"),
        *(Column(header=header, format=".2f") for header in numbers),
    ]
    correlation = Column(header="", format=".2f").text(result.rank_correlation)
    rows = []
    for p in result.prices:
        nats = (*p.total_nats, p.turn_nats[0], p.turn_nats[-1]) if p.total_nats else (None,) * 5
        rows.append((p.name, p.length_bits, p.n_contexts, *nats, p.reward_mean))
    return Table(
        name="prices",
        title=f"Price of {result.options.n_turns} scripted turns (nats)",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=(
            f"rank correlation {correlation}",
            *(
                ["No dialogue was long enough for any script; raise --n-tokens."]
                if not any(p.n_contexts for p in result.prices)
                else []
            ),
        ),
    )


if __name__ == "__main__":
    main()
