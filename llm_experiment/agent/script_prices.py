"""What scripted behaviours cost under a base policy, against what they cost to describe.

Theorem 1 bounds the KL of a policy to a Bayesian imitator by the policy's description length, in
any situation new enough. A language model is no such imitator, and nothing here is a consequence
of the theorem; this measures whether its prices are ordered alike. For every script of
`llm_experiment.agent.scripts`: its description length in the code stated there, and its price, the
surprise `-log b` of the base policy at its turns, over dialogues whose first turns the base
policy itself played. The first scripted turn is what it takes to begin; the later ones show
whether the base policy, having seen the pattern, goes on with it by itself.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy import stats
from transformers import PreTrainedTokenizerBase

from llm_experiment.agent.scripts import (
    Cycle,
    Echo,
    Say,
    Script,
    ScriptedEpisodes,
    Then,
    Tokens,
    play_scripts,
)
from llm_experiment.chat.token_texts import decode_tokens
from llm_experiment.chat.world import World
from llm_experiment.plug_in import Kind, fingerprint, load_part, reference_of
from theory.errors import InvalidArgumentError

OPTION: Final = "--scripts"
_LONG: Final = 4
_DIGITS: Final = 7
"""Of a hash, to tell files apart."""
_QUARTILES: Final = (25.0, 50.0, 75.0)
_STREAM: Final = 0
"""The path of the dialogues' randomness, the same for all scripts."""


@dataclass(frozen=True, kw_only=True)
class ScriptPrice:
    """What one script costs.

    Attributes:
        name: of the behaviour.
        length_bits: its description length.
        n_contexts: dialogues in which all turns were finished and none was impossible under the
            base policy; the prices are over these.
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


def own_scripts(names: Sequence[str]) -> dict[str, Script]:
    """Scripts of somebody's own (`llm_experiment.plug_in`).

    Each is called by its name and the beginning of its file's hash: one that has changed is
    another script.

    Raises:
        InvalidArgumentError: in one line: one cannot be found, or is no `Script`.
    """
    found: dict[str, Script] = {}
    for name in names:
        reference = reference_of(name, Kind.SCRIPT) or name
        part: Any = load_part(reference, option=OPTION)
        if not all(callable(getattr(part, method, None)) for method in ("turn", "length_bits")):
            raise InvalidArgumentError(
                f"{OPTION} {reference} must be a Script of llm_experiment.agent.scripts, with the "
                f"methods turn and length_bits, got a {type(part).__name__}"
            )
        digest = fingerprint(reference, option=OPTION)
        found[f"{name} ({digest[:_DIGITS]})"] = part
    return found


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


def price_script(
    world: World,
    name: str,
    script: Script,
    *,
    n_episodes: int,
    n_tokens: int,
    free_turns: int,
    n_turns: int,
    seed: int,
) -> ScriptPrice:
    """`price_together` of one script."""
    (priced,) = price_together(
        world,
        {name: script},
        n_episodes=n_episodes,
        n_tokens=n_tokens,
        free_turns=free_turns,
        n_turns=n_turns,
        seed=seed,
    )
    return priced


def price_together(
    world: World,
    scripts: Mapping[str, Script],
    *,
    n_episodes: int,
    n_tokens: int,
    free_turns: int,
    n_turns: int,
    seed: int,
    on_position: Callable[[int], None] = lambda _: None,
) -> list[ScriptPrice]:
    """Play some scripts in many dialogues each, all at once.

    Scripts that are priced with the same seed meet the same randomness, together or apart.

    Args:
        world: where.
        scripts: by the name of the behaviour.
        n_episodes: dialogues of each.
        n_tokens: length of each in tokens, the prompt included.
        free_turns: turns that the base policy plays before the script starts.
        n_turns: scripted turns whose prices count.
        seed: of the dialogues.
        on_position: see `play_scripts`.

    Raises:
        InvalidArgumentError: as `play_scripts` does.
    """
    played = play_scripts(
        world,
        tuple(scripts.values()),
        n_episodes=n_episodes,
        n_tokens=n_tokens,
        free_turns=free_turns,
        n_turns=n_turns,
        seed=seed,
        stream=(_STREAM,),
        on_position=on_position,
    )
    n_symbols = world.base.n_tokens
    return [
        _priced(name, script.length_bits(n_symbols), episodes)
        for (name, script), episodes in zip(scripts.items(), played, strict=True)
    ]


def _priced(name: str, length_bits: float, played: ScriptedEpisodes) -> ScriptPrice:
    """What a script's episodes say of its price."""
    whole = played.costs_nats[np.isfinite(played.costs_nats).all(axis=1)]
    rewards = played.rewards[np.isfinite(played.rewards)]
    some = len(whole) > 0
    return ScriptPrice(
        name=name,
        length_bits=length_bits,
        n_contexts=len(whole),
        total_nats=tuple(np.percentile(whole.sum(axis=1), _QUARTILES).tolist()) if some else (),
        turn_nats=tuple(np.median(whole, axis=0).tolist()) if some else (),
        reward_mean=float(rewards.mean()) if len(rewards) else math.nan,
    )


def rank_correlation(prices: Sequence[ScriptPrice]) -> float:
    """Spearman's correlation of description length and median total price; nan for under three."""
    priced = [p for p in prices if p.total_nats]
    if len(priced) < 3:
        return math.nan
    lengths, totals = zip(*((p.length_bits, p.total_nats[1]) for p in priced), strict=True)
    return float(stats.spearmanr(lengths, totals).statistic)
