"""The probability that an answer matches a regular expression, bracketed by walks of forced tokens.

The event is that within L tokens the answer's text so far matches the expression as a whole (and,
for an expression that ends in `$`, that the answer ends right there). At any text so far the
tokens divide into those that complete a match, those after which a match is still possible, and the
others. A *walk* follows the base policy b along tokens of the second kind. At each text that it
comes to,

- what b gives to tokens that complete a match belongs to the event. Summed over the different texts
  of all walks, it is a lower bound of the probability (`at_least`);
- of the tokens after which a match is still possible, those that no walk took may all lead to one.
  Their probability, likewise summed and added to the lower bound, is an upper one (`at_most`).

Both hold whatever the walks are, up to rounding. The first walk takes the likeliest token at every
step. The others draw theirs from b among the tokens that a walk may take; what completes a match
at each step, times the product of what could go on before, has the event's probability as its mean,
summed over a walk (`estimate`), but for what follows.

Tokens that are no whole characters, and special ones, have no text to match. They are neither
followed nor ruled out: their mass is missing from `at_least` and from the estimate, never from
`at_most`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from llm_experiment.auditing.behaviours import Pattern
from llm_experiment.auditing.reading import write_on

Tokens = tuple[int, ...]
Floats = NDArray[np.float64]

_KEPT_TEXTS: Final = 4096
"""Texts so far whose tokens are remembered, at a byte or two a token of the vocabulary."""


@dataclass(frozen=True, kw_only=True)
class Followers:
    """Which tokens may follow a text, bool, shape (n_tokens,).

    Attributes:
        complete: they complete a match.
        open: they do not, but a match is possible after them.
        unknown: nobody knows what they say.
    """

    complete: NDArray[np.bool_]
    open: NDArray[np.bool_]
    unknown: NDArray[np.bool_]


class Matcher:
    """What a pattern says of the next token.

    Args:
        pattern: the expression.
        texts: of every token; None where a token has none of its own.
        stops: tokens that end an answer, the end token of the prompts first.
    """

    def __init__(
        self, pattern: Pattern, texts: Sequence[str | None], *, stops: Sequence[int]
    ) -> None:
        self._pattern = pattern
        self._texts = texts
        self._stops = tuple(stops)
        self.followers = lru_cache(maxsize=_KEPT_TEXTS)(self._followers)

    def text(self, token: int) -> str:
        """What a token says that may be followed."""
        return self._texts[token] or ""

    def _followers(self, said: str) -> Followers:
        body, at_end = self._pattern.body, self._pattern.at_end
        n = len(self._texts)
        possible, complete = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
        unknown = np.array([text is None for text in self._texts])
        by_text: dict[str, tuple[bool, bool]] = {}
        for token, text in enumerate(self._texts):
            if text is None:
                continue
            if text not in by_text:
                found = body.fullmatch(said + text, partial=True)
                whole = found is not None and not found.partial
                by_text[text] = (found is not None, whole and not at_end)
            possible[token], complete[token] = by_text[text]
        ends_here = at_end and body.fullmatch(said) is not None
        for token in self._stops:
            possible[token] = complete[token] = ends_here
            unknown[token] = False
        return Followers(complete=complete, open=possible & ~complete, unknown=unknown)


@dataclass(frozen=True, kw_only=True)
class Bracket:
    """The probability of one pattern after one prompt.

    Attributes:
        at_least: a lower bound.
        at_most: an upper bound.
        estimate: the mean over the walks that were drawn.
    """

    at_least: float
    at_most: float
    estimate: float


@dataclass(kw_only=True)
class _Walk:
    """One walk.

    Attributes:
        tokens: that it took.
        said: their text.
        log_prob: of them under b.
        log_weight: of the product of what could go on at each step.
        estimate: of the event's probability.
    """

    tokens: Tokens = ()
    said: str = ""
    log_prob: float = 0.0
    log_weight: float = 0.0
    estimate: float = 0.0


class _Evidence:
    """What the walks after one prompt have found, by the tokens so far.

    Attributes:
        reached: their probability.
        matches: that they come, and a match right after them.
        open: that they come, and after them a token that may lead to a match.
    """

    def __init__(self) -> None:
        self.reached: dict[Tokens, float] = {}
        self.matches: dict[Tokens, float] = {}
        self.open: dict[Tokens, float] = {}

    def bracket(self, estimate: float) -> Bracket:
        """The bounds, beside an estimate."""
        left = dict(self.open)
        for prefix, probability in self.reached.items():
            left[prefix[:-1]] -= probability
        missed = (max(mass, 0.0) for mass in left.values())
        found = math.fsum(self.matches.values())
        at_most = math.fsum([found, *missed])
        return Bracket(at_least=min(found, 1.0), at_most=min(at_most, 1.0), estimate=estimate)


def bracket_pattern(
    model: PreTrainedModel,
    contexts: Sequence[Sequence[int]],
    matcher: Matcher,
    *,
    n_walks: int,
    n_tokens: int,
    uniforms: Floats,
) -> list[Bracket]:
    """The probability of a pattern after each of some prompts.

    Args:
        model: b.
        contexts: tokens of the prompts.
        matcher: of the pattern.
        n_walks: walks after each prompt, at least 2.
        n_tokens: L, the step limit.
        uniforms: in [0, 1), what the walks are drawn with, shape (prompts, n_walks, n_tokens).

    Raises:
        ModelError: a prediction that is no number.
    """
    walks = [[_Walk() for _ in range(n_walks)] for _ in contexts]
    evidence = [_Evidence() for _ in contexts]

    def choose(rows: Tensor, log_probs: Tensor) -> Tensor:
        table = log_probs.cpu().numpy()
        chosen = []
        for row, log_b in zip(rows.tolist(), table, strict=True):
            prompt, number = divmod(row, n_walks)
            walk = walks[prompt][number]
            uniform = None if number == 0 else uniforms[prompt, number, len(walk.tokens)]
            chosen.append(_step(walk, evidence[prompt], log_b, matcher, uniform, limit=n_tokens))
        return torch.tensor(chosen)

    rows = [context for context in contexts for _ in range(n_walks)]
    write_on(model, rows, choose)
    return [
        found.bracket(math.fsum(walk.estimate for walk in several[1:]) / (n_walks - 1))
        for several, found in zip(walks, evidence, strict=True)
    ]


def _step(
    walk: _Walk,
    evidence: _Evidence,
    log_b: Floats,
    matcher: Matcher,
    uniform: float | None,
    *,
    limit: int,
) -> int:
    """Learn from where a walk stands, and take its next step.

    Returns:
        The token; -1 if the walk is over.
    """
    followers = matcher.followers(walk.said)
    b = np.exp(log_b)
    reached, complete = math.exp(walk.log_prob), float(b[followers.complete].sum())
    walk.estimate += math.exp(walk.log_weight) * complete
    is_last = len(walk.tokens) + 1 == limit  # what does not complete a match now never will
    may_go_on = followers.unknown if is_last else followers.open | followers.unknown
    if walk.tokens:
        evidence.reached[walk.tokens] = reached
    evidence.matches[walk.tokens] = reached * complete
    evidence.open[walk.tokens] = reached * float(b[may_go_on].sum())
    remaining = np.where(followers.open, b, 0.0)
    total = float(remaining.sum())
    if is_last or total <= 0:
        return -1
    if uniform is None:
        token = int(remaining.argmax())
    else:
        cumulative = remaining.cumsum()
        token = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
    walk.tokens = (*walk.tokens, token)
    walk.said += matcher.text(token)
    walk.log_prob += float(log_b[token])
    walk.log_weight += math.log(total)
    return token
