"""What an audit found, in numbers: a frozen value that goes into its JSON as it is.

Quartiles are order statistics: the least price that a quarter, a half, three quarters of the
prompts do not exceed. Probability falls with price, so that the largest probability at the median
price is the median of the largest probabilities.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from llm_experiment.auditing.budgets import budget_for_nats, largest_shares
from llm_experiment.auditing.estimators import ESTIMATORS
from llm_experiment.auditing.prompts import Prompt
from mightnt.statistics import Interval, mean_over_runs

Arrays = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float64]

QUARTILES: Final = (25.0, 50.0, 75.0)
N_TOP_TOKENS: Final = 20
"""Tokens of the vocabulary that are listed."""
N_TOP_STEPS: Final = 20
"""Costliest steps that are listed."""
_SHOWN_BEFORE: Final = 12
"""Tokens before a costly step that are shown with it."""
_FIRST: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Of how many first tokens the share is said."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One number of every prompt that has it.

    Attributes:
        n: how many have it.
        quartiles: of it; none if no prompt has it.
        least: the smallest.
        most: the largest.
    """

    n: int
    quartiles: tuple[float, ...] = ()
    least: float | None = None
    most: float | None = None

    @property
    def median(self) -> float | None:
        """The second quartile; None if there is none."""
        return self.quartiles[1] if self.quartiles else None


def spread(values: NDArray[Any]) -> Spread:
    """Quartiles and extremes of what is no nan."""
    known = values[~np.isnan(values)]
    if not len(known):
        return Spread(n=0)
    quartiles = np.percentile(known, QUARTILES, method="inverted_cdf")
    return Spread(
        n=len(known),
        quartiles=tuple(quartiles.tolist()),
        least=float(known.min()),
        most=float(known.max()),
    )


@dataclass(frozen=True, kw_only=True)
class Bought:
    """What one budget makes of a behaviour, the first time.

    Attributes:
        budget_nats: for one answer.
        quartiles: of the largest probability over prompts, from the dear prompts to the cheap.
        worst: the largest over prompts.
        bound_worst: where the price is not exact, an upper bound of `worst`; else `worst`.
    """

    budget_nats: float
    quartiles: tuple[float, ...]
    worst: float
    bound_worst: float


@dataclass(frozen=True, kw_only=True)
class BehaviourSummary:
    """Prices of one behaviour over prompts.

    Attributes:
        name: of it.
        is_pattern: whether it is a pattern; then `prices_nats` are upper bounds of its price, from
            what the walks found, and `floor_nats` lower bounds.
        prices_nats: under the base model, a spread for each time: first, second, ...
        floor_nats: lower bounds of the first price; for a script that price.
        estimate_nats: of a pattern, minus the logarithm of the estimated probability, first time.
        likely_nats: the budget from which on it can be likely, first time.
        bought: what each budget makes of it.
        policy_prices_nats: under the policy; none without one.
        gained_nats: by how many nats it became cheaper, prompt by prompt, first time.
        likelier_share: share of prompts on which it did; None without a policy.
    """

    name: str
    is_pattern: bool
    prices_nats: tuple[Spread, ...]
    floor_nats: Spread
    estimate_nats: Spread | None
    likely_nats: Spread
    bought: tuple[Bought, ...]
    policy_prices_nats: tuple[Spread, ...] = ()
    gained_nats: Spread | None = None
    likelier_share: float | None = None


@dataclass(frozen=True, kw_only=True)
class EstimatorSummary:
    """One estimator of the KL, against the exact one on the same answers; nats.

    Attributes:
        name: as it is logged.
        token_mean: over all steps, as it would be logged.
        token_bias: its mean given each step less the KL of that step, over all steps: exact.
        token_deviation: root of its mean variance given the step: exact.
        answer_mean: of its sum over an answer.
        answer_bias: the bias summed over an answer: exact given the steps.
        answer_deviation: standard deviation, over answers, of its sum less the sum of the KLs.
    """

    name: str
    token_mean: float
    token_bias: float
    token_deviation: float
    answer_mean: float
    answer_bias: float
    answer_deviation: float


@dataclass(frozen=True, kw_only=True)
class TokenShare:
    """A token of the vocabulary on which KL was spent.

    Attributes:
        token: its number.
        text: what it says.
        nats: `sum of p log(p/b)` of it over all steps, a part of all answers' KL.
        policy_count: how often the policy says it, in expectation over all steps.
        base_count: how often the base model would have, at the same steps.
    """

    token: int
    text: str
    nats: float
    policy_count: float
    base_count: float


@dataclass(frozen=True, kw_only=True)
class CostlyStep:
    """A step that cost much.

    Attributes:
        line: of its prompt.
        position: of the token in the answer, counted from 1.
        before: what the answer said before, its end.
        text: what was drawn.
        kl_nats: the step's KL.
        log_ratio_nats: of the token that was drawn.
    """

    line: int
    position: int
    before: str
    text: str
    kl_nats: float
    log_ratio_nats: float


@dataclass(frozen=True, kw_only=True)
class DivergenceSummary:
    """How far the policy's answers are from the base model.

    Attributes:
        n_answers: over all prompts.
        answer_tokens: mean length of an answer, its end token included.
        mean_nats: KL of an answer, mean over answers.
        interval: Student's, of `mean_nats` over prompts like these; None for one prompt.
        by_prompt_nats: the KL of a prompt's answers, mean over its answers, in the file's order.
        over_prompts: its quartiles and extremes.
        token_nats: KL of a step, mean over all steps.
        estimators: k1, k2 and k3.
        first_shares: of all KL, what was spent in the first n tokens, as pairs (n, share).
        curve_nats: KL of the step at each position, mean over the answers that reach it.
        top_tokens: on which most was spent.
        costly_steps: which cost most.
    """

    n_answers: int
    answer_tokens: float
    mean_nats: float
    interval: Interval | None
    by_prompt_nats: tuple[float, ...]
    over_prompts: Spread
    token_nats: float
    estimators: tuple[EstimatorSummary, ...]
    first_shares: tuple[tuple[int, float], ...]
    curve_nats: tuple[float, ...]
    top_tokens: tuple[TokenShare, ...]
    costly_steps: tuple[CostlyStep, ...]


@dataclass(frozen=True, kw_only=True)
class AuditSummary:
    """What an audit found.

    Attributes:
        n_prompts: how many.
        budgets_nats: that were asked about; with a policy its mean KL among them.
        likely: the probability from which on a behaviour is called likely.
        behaviours: scripts, then patterns.
        divergence: of the policy; None without one.
    """

    n_prompts: int
    budgets_nats: tuple[float, ...]
    likely: float
    behaviours: tuple[BehaviourSummary, ...]
    divergence: DivergenceSummary | None


def summarise(
    arrays: Arrays,
    prompts: Sequence[Prompt],
    *,
    scripts: Sequence[str],
    patterns: Sequence[str],
    budgets_nats: Sequence[float],
    likely: float,
    spelt: Callable[[Sequence[int]], list[str]],
) -> AuditSummary:
    """What the arrays of all batches amount to.

    Args:
        arrays: of `llm_experiment.auditing.parts.read_parts`.
        prompts: in their order.
        scripts: names of the scripts.
        patterns: names of the patterns.
        budgets_nats: to ask about.
        likely: the probability from which on a behaviour is likely, in (0, 1).
        spelt: what each token of an answer says.
    """
    divergence = _divergence(arrays, prompts, spelt) if "kl_nats" in arrays else None
    budgets = sorted({*budgets_nats, *([] if divergence is None else [divergence.mean_nats])})
    found = [
        _behaviour(name, *priced, budgets_nats=budgets, likely=likely)
        for name, priced in _priced(arrays, scripts, patterns)
    ]
    return AuditSummary(
        n_prompts=len(prompts),
        budgets_nats=tuple(budgets),
        likely=likely,
        behaviours=tuple(found),
        divergence=divergence,
    )


def _priced(
    arrays: Arrays, scripts: Sequence[str], patterns: Sequence[str]
) -> list[tuple[str, tuple[Floats, Floats | None, Floats | None]]]:
    """Of each behaviour its prices, (n, times); of patterns (n, 3) of the base; the policy's."""
    found: list[tuple[str, tuple[Floats, Floats | None, Floats | None]]] = []
    theirs = arrays.get("scripts_policy_nats")
    for i, name in enumerate(scripts):
        policy = None if theirs is None else theirs[:, i]
        found.append((name, (arrays["scripts_base_nats"][:, i], None, policy)))
    matched = arrays.get("patterns_policy")
    for i, name in enumerate(patterns):
        nats = prices_of_shares(arrays["patterns_base"][:, i])
        policy = None if matched is None else prices_of_shares(matched[:, i])[:, :1]
        found.append((name, (nats[:, :1], nats[:, 1:], policy)))
    return found


def prices_of_shares(shares: Floats) -> Floats:
    """`-log p`, inf for 0 and never below 0."""
    with np.errstate(divide="ignore"):
        return np.maximum(-np.log(shares), 0.0)


def _behaviour(
    name: str,
    prices: Floats,
    brackets: Floats | None,
    policy: Floats | None,
    *,
    budgets_nats: Sequence[float],
    likely: float,
) -> BehaviourSummary:
    first = spread(prices[:, 0])
    floor = first if brackets is None else spread(brackets[:, 0])
    bought: tuple[Bought, ...] = ()
    if first.quartiles:
        wanted = (*first.quartiles[::-1], first.least, floor.least)
        shares = largest_shares(wanted, np.reshape(budgets_nats, (-1, 1)))
        bought = tuple(
            Bought(budget_nats=budget, quartiles=tuple(row), worst=worst, bound_worst=bound)
            for budget, (*row, worst, bound) in zip(budgets_nats, shares.tolist(), strict=True)
        )
    gained = None if policy is None else _gain(prices[:, 0], policy[:, 0])
    known = None if gained is None else gained[~np.isnan(gained)]
    return BehaviourSummary(
        name=name,
        is_pattern=brackets is not None,
        prices_nats=tuple(spread(column) for column in prices.T),
        floor_nats=floor,
        estimate_nats=None if brackets is None else spread(brackets[:, 1]),
        likely_nats=spread(budget_for_nats(likely, prices[:, 0])),
        bought=bought,
        policy_prices_nats=() if policy is None else tuple(spread(c) for c in policy.T),
        gained_nats=None if gained is None else spread(gained),
        likelier_share=float((known > 0).mean()) if known is not None and len(known) else None,
    )


def _gain(base: Floats, policy: Floats) -> Floats:
    """By how much a behaviour is cheaper; nan where it is impossible for both."""
    with np.errstate(invalid="ignore"):
        return base - policy


def _divergence(
    arrays: Arrays, prompts: Sequence[Prompt], spelt: Callable[[Sequence[int]], list[str]]
) -> DivergenceSummary:
    kl = arrays["kl_nats"]
    lengths = (~np.isnan(kl)).sum(axis=1)
    answers = np.nansum(kl, axis=1)
    by_prompt = answers.reshape(len(prompts), -1).mean(axis=1)
    total = float(answers.sum())
    n_steps = int(lengths.sum())
    reached = (~np.isnan(kl)).sum(axis=0)
    curve = np.nansum(kl, axis=0)[reached > 0] / reached[reached > 0]
    firsts = [n for n in _FIRST if n < kl.shape[1]] + [kl.shape[1]]
    return DivergenceSummary(
        n_answers=len(kl),
        answer_tokens=float(lengths.mean()),
        mean_nats=float(answers.mean()),
        interval=_interval(by_prompt),
        by_prompt_nats=tuple(by_prompt.tolist()),
        over_prompts=spread(by_prompt),
        token_nats=total / n_steps,
        estimators=tuple(_estimators(arrays, answers, n_steps)),
        first_shares=tuple(
            (n, float(np.nansum(kl[:, :n])) / total if total else 0.0) for n in firsts
        ),
        curve_nats=tuple(curve.tolist()),
        top_tokens=tuple(_top_tokens(arrays, spelt)),
        costly_steps=tuple(_costly_steps(arrays, prompts, spelt)),
    )


def _interval(by_prompt_nats: Floats) -> Interval | None:
    """Student's interval for the mean over prompts, which are drawn independently."""
    mean = mean_over_runs(by_prompt_nats.tolist(), within=(0.0, math.inf))
    if mean.low is None or mean.high is None:
        return None
    return Interval(low=mean.low, high=mean.high)


def _estimators(arrays: Arrays, answers: Floats, n_steps: int) -> list[EstimatorSummary]:
    found = []
    for k, name in enumerate(ESTIMATORS):
        drawn = np.nansum(arrays["drawn_nats"][k], axis=1)
        bias = np.nansum(arrays["mean_nats"][k] - arrays["kl_nats"], axis=1)
        variance = float(np.nansum(arrays["variance"][k]))
        found.append(
            EstimatorSummary(
                name=name,
                token_mean=float(drawn.sum()) / n_steps,
                token_bias=float(bias.sum()) / n_steps,
                token_deviation=float(np.sqrt(variance / n_steps)),
                answer_mean=float(drawn.mean()),
                answer_bias=float(bias.mean()),
                answer_deviation=float((drawn - answers).std()),
            )
        )
    return found


def _top_tokens(arrays: Arrays, spelt: Callable[[Sequence[int]], list[str]]) -> list[TokenShare]:
    parts = arrays["parts_nats"]
    order = np.argsort(-parts, kind="stable")[:N_TOP_TOKENS]
    return [
        TokenShare(
            token=int(token),
            text="".join(spelt([int(token)])),
            nats=float(parts[token]),
            policy_count=float(arrays["policy_mass"][token]),
            base_count=float(arrays["base_mass"][token]),
        )
        for token in order
        if parts[token] > 0
    ]


def _costly_steps(
    arrays: Arrays, prompts: Sequence[Prompt], spelt: Callable[[Sequence[int]], list[str]]
) -> list[CostlyStep]:
    kl, tokens = arrays["kl_nats"], arrays["answers"]
    n_samples = len(kl) // len(prompts)
    flat = np.nan_to_num(kl, nan=-1.0).ravel()
    found = []
    for place in np.argsort(-flat, kind="stable")[:N_TOP_STEPS].tolist():
        answer, position = divmod(place, kl.shape[1])
        if flat[place] <= 0:
            break
        before = tokens[answer, max(0, position - _SHOWN_BEFORE) : position]
        found.append(
            CostlyStep(
                line=prompts[answer // n_samples].line,
                position=position + 1,
                before="".join(spelt(before.tolist())),
                text="".join(spelt([int(tokens[answer, position])])),
                kl_nats=float(kl[answer, position]),
                log_ratio_nats=float(arrays["drawn_nats"][0, answer, position]),
            )
        )
    return found
