"""What scripted behaviours cost under a base model, against what they cost to describe.

Theorem 1 bounds the KL of a policy to a Bayesian imitator by the policy's description length, in
any situation new enough. A language model is no such imitator, and nothing here is a consequence
of the theorem; this measures whether its prices are ordered alike. For every script of
`llm_experiment.agent.scripts`: its description length in the code stated there, and its price, the
surprise `-log b` of the base policy at its turns, over dialogues whose first turns the base
policy itself played. The first scripted turn is what it takes to begin; the later ones show
whether the base policy, having seen the pattern, goes on with it by itself.

    python -m llm_experiment.price --out results/price

writes `price.json`, every number of the table, and a figure. The dialogues of one script are
independent given the base model; one base model is one run, so that nothing here has an interval.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from scipy import stats
from transformers import PreTrainedTokenizerBase

from llm_experiment.agent.scripts import Cycle, Echo, Say, Script, Then, Tokens, play_script
from llm_experiment.base.loading import load_tokenizer
from llm_experiment.chat.token_texts import decode_tokens
from llm_experiment.chat.world import World, load_world
from llm_experiment.config import TINY, WorldConfig, at_least
from llm_experiment.tiny_models import language_model_folder
from mightnt.command_line import parse_command_line, run_command
from mightnt.figure_style import GREY, figure_style, new_figure, save_figure
from mightnt.progress import track
from mightnt.results import write_json
from theory.errors import InvalidArgumentError

PROG: Final = "python -m llm_experiment.price"
STEM: Final = "price"
_LONG: Final = 4
_QUARTILES: Final = (25.0, 50.0, 75.0)


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


@dataclass(frozen=True, kw_only=True)
class Price:
    """What one script costs.

    Attributes:
        name: of the behaviour.
        length_bits: its description length.
        n_contexts: dialogues in which all turns were finished; the prices are over these.
        total_nats: quartiles (25, 50, 75%) over contexts of the price of all turns together.
        turn_nats: medians over contexts of the price of each turn.
        reward_mean: of a reply to a scripted turn, over turns and contexts; nan if none ended.
    """

    name: str
    length_bits: float
    n_contexts: int
    total_nats: tuple[float, ...]
    turn_nats: tuple[float, ...]
    reward_mean: float


@dataclass(frozen=True, kw_only=True)
class Result:
    """The prices of a set of scripts under one base model.

    Attributes:
        options: what was asked for.
        prices: one a script, from the shortest description to the longest.
        rank_correlation: Spearman's, of description length and median total price over the
            scripts that have one; nan for fewer than three.
    """

    options: Options
    prices: tuple[Price, ...]
    rank_correlation: float


def behaviours(phrases: dict[str, Tokens]) -> dict[str, Script]:
    """The scripts to price: silence, echoes, phrases over and over, and patterns of them.

    Args:
        phrases: tokens by name, at least one.
    """
    silence = Say(())
    says: dict[str, Script] = {name: Say(tokens) for name, tokens in phrases.items()}
    first, *_, second = [*says, *says]
    word = next(iter(phrases.values()))[:1]
    found: dict[str, Script] = {"silence": silence, "echo": Echo()}
    return (
        found
        | says
        | {
            f"first word of {first} x{_LONG}": Say(word * _LONG),
            f"{first} / silence": Cycle((says[first], silence)),
            f"{first} / {second}": Cycle((says[first], says[second])),
            f"{first} / {first} / {second}": Cycle((says[first], says[first], says[second])),
            f"{first} {_LONG} times, then silence": Then(_LONG, says[first], silence),
            f"silence {_LONG} times, then {first}": Then(_LONG, silence, says[first]),
        }
    )


def encode_phrases(
    tokenizer: PreTrainedTokenizerBase, phrases: Sequence[str], *, world: World
) -> dict[str, Tokens]:
    """The tokens of phrases by their text.

    Some tokenizers put a blank before whatever they encode. Of the tokens of a phrase with and
    without its own blanks those count that add just the phrase to the colon before it.

    Raises:
        InvalidArgumentError: a phrase without tokens, with a line break, or that the tokenizer
            cannot write.
    """
    colon = tokenizer.encode(f"{world.parser.rules.agent}:", add_special_tokens=False)[-1:]
    start = len(decode_tokens(tokenizer, colon))
    found = {}
    for phrase in phrases:
        written: dict[str, Tokens] = {}
        for text in (phrase, phrase.strip()):
            encoded = tuple(int(x) for x in tokenizer.encode(text, add_special_tokens=False))
            written.setdefault(decode_tokens(tokenizer, [*colon, *encoded])[start:], encoded)
        tokens = written.get(phrase)
        if not tokens or "\n" in phrase:
            raise InvalidArgumentError(
                f"a phrase must be one line that the tokenizer can write, got {phrase!r}, which "
                f"it writes as {next(iter(written))!r}; choose other words"
            )
        if max(tokens) >= world.base.n_tokens:
            raise InvalidArgumentError(
                f"token {max(tokens)} of {phrase!r} is beyond the base model's "
                f"{world.base.n_tokens}; use the tokenizer that it was trained with"
            )
        found[phrase.strip()] = tokens
    return found


def price(world: World, name: str, script: Script, options: Options, *, stream: int) -> Price:
    """Play one script in many dialogues.

    Args:
        world: where.
        name: of the behaviour.
        script: what it is.
        options: how long and how often.
        stream: the same for two scripts gives them the same randomness.
    """
    played = play_script(
        world,
        script,
        n_episodes=options.n_episodes,
        n_tokens=options.n_tokens,
        free_turns=options.free_turns,
        n_turns=options.n_turns,
        seed=options.seed,
        stream=(stream,),
    )
    whole = played.costs_nats[np.isfinite(played.costs_nats).all(axis=1)]
    rewards = played.rewards[np.isfinite(played.rewards)]
    some = len(whole) > 0
    return Price(
        name=name,
        length_bits=script.length_bits(world.base.n_tokens),
        n_contexts=len(whole),
        total_nats=tuple(np.percentile(whole.sum(axis=1), _QUARTILES).tolist()) if some else (),
        turn_nats=tuple(np.median(whole, axis=0).tolist()) if some else (),
        reward_mean=float(rewards.mean()) if len(rewards) else math.nan,
    )


def run(world: World, tokenizer: PreTrainedTokenizerBase, options: Options) -> Result:
    """Price all behaviours.

    Raises:
        InvalidArgumentError: a phrase that cannot be written, or dialogues no longer than the
            prompt.
    """
    scripts = behaviours(encode_phrases(tokenizer, options.phrases, world=world))
    prices = [
        price(world, name, script, options, stream=0)
        for name, script in track(scripts.items(), "scripts", total=len(scripts))
    ]
    prices.sort(key=lambda p: p.length_bits)
    return Result(options=options, prices=tuple(prices), rank_correlation=rank_correlation(prices))


def rank_correlation(prices: Sequence[Price]) -> float:
    """Spearman's correlation of description length and median total price; nan for under three."""
    priced = [p for p in prices if p.total_nats]
    if len(priced) < 3:
        return math.nan
    lengths, totals = zip(*((p.length_bits, p.total_nats[1]) for p in priced), strict=True)
    return float(stats.spearmanr(lengths, totals).statistic)


def plot(result: Result, stem: Path) -> tuple[Path, Path]:
    """Draw price against description length.

    Returns:
        The PNG and the PDF.
    """
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
        options = parse_command_line(Options, argv, prog=PROG)
        console = Console()
        base = options.world.base_model
        folder = str(language_model_folder(options.world.task)) if base == TINY else base
        result = run(load_world(options.world), load_tokenizer(folder), options)
        write_json(options.out / f"{STEM}.json", result)
        paths = plot(result, options.out / STEM)
        console.print(_table(result))
        console.print(f"rank correlation {result.rank_correlation:.2f}", highlight=False)
        for path in paths:
            console.print(f"wrote {path}", highlight=False)

    run_command(command)


def _table(result: Result) -> Table:
    n = result.options.n_turns
    table = Table(title=f"Price of {n} scripted turns (nats)", title_justify="left")
    for header in (
        "behaviour",
        "bits",
        "contexts",
        "25%",
        "median",
        "75%",
        "first",
        "last",
        "reward",
    ):
        table.add_column(header, justify="left" if header == "behaviour" else "right")
    for p in result.prices:
        nats = (*p.total_nats, p.turn_nats[0], p.turn_nats[-1]) if p.total_nats else ()
        numbers = [f"{value:.2f}" for value in nats] or ["-"] * 5
        table.add_row(
            p.name, f"{p.length_bits:.1f}", str(p.n_contexts), *numbers, f"{p.reward_mean:.2f}"
        )
    return table


if __name__ == "__main__":
    main()
