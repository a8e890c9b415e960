"""How much of a behaviour, such as silence, a budget buys: a closed form, and a bound.

Silence stands here for whatever behaviour a task names (`llm_experiment.dialogue.behaviour`): an
empty turn for a turn that shows it, a silent episode for one that does.

To make an event of probability p under the base policy happen with probability q costs at least
`KL(Bern q || Bern p)` nats, so that B nats buy at most the q with `KL(Bern q || Bern p) = B`
(`theory.bounds.largest_share`). Two choices of p:

- *Closed form*, a prediction: p is the probability of an empty turn where the agent could first
  choose one, `exp(-median price)` over contexts. It is what an agent reaches that buys silence
  once, at one such context, if that makes the episode silent. It is neither a bound nor a fit.
- *Bound*: p is the base policy's own probability of a silent episode. No policy whose episodes
  all stay within the budget can exceed it. That probability is estimated, and the upper end of
  its 95% Clopper-Pearson interval stands for it.

**Several purchases.** Where later empty turns cost something too, silence is a sequence: let turn i
be empty with probability p_i under the base policy, given that the turns before it were, and q_i
under the agent. Write d(q||p) for KL(Bern q || Bern p). If no episode may cost more than B nats,
the agent makes all N turns empty with probability `q_1 ... q_N` at most, where

    sum_i d(q_i||p_i) = B   and   q_i (logit q_i - logit p_i)   is the same for all i,

or with probability 1 if `sum_i -ln p_i <= B`.

*Proof.* Take the path on which every turn is empty. The steps of turn i cost `sum_j KL(x_j||b_j)`
there, at least `sum_j d(q_ij||p_ij)` by data processing, where q_ij is the probability that step j
goes on with the empty turn, so that q_i is their product. That sum is at least `d(q_i||p_i)`, as
`d(q q'||p p') <= d(q||p) + q d(q'||p')` by the chain rule and data processing. So the budget of
that path gives `sum_i d(q_i||p_i) <= B`. Now maximise `sum_i ln q_i`, which is concave, under this
convex constraint. By Karush, Kuhn and Tucker the optimum is where
`1/q_i = lambda (logit q_i - logit p_i)`. The left side of the second condition above increases in
q_i, from 0 at p_i without bound, so that one number fixes all q_i, and the first condition fixes
the number. The agent each of whose turns is one step with these q_i attains it. (Turns of several
steps buy less, unless one step bears the whole price.)

Two things follow. The order of prices does not matter, and a sequence never comes cheaper than one
purchase of the product: `q_1 ... q_N <= q` with `d(q||p_1 ... p_N) = B`. What a budget in
expectation would buy is that q; the difference is what is paid for purchases that come to nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from llm_experiment.measures.metrics import QUARTILES, BaseEvaluation, LengthRow
from mightnt.statistics import CONFIDENCE, Interval, share_interval
from theory.arguments import check_budget
from theory.bounds import largest_share
from theory.errors import InvalidArgumentError

_LOG_COMMON: Final = (-80.0, 7.0)
"""At these ends the q_i are the p_i, or 1, to the last bit of a float."""
_BISECTIONS: Final = 64
"""Of an interval of some thousand to the precision of a float."""


@dataclass(frozen=True, kw_only=True)
class ClosedForm:
    """The closed form of a run.

    Attributes:
        probability: p.
        quartiles_nats: of the price of the first silence, over contexts.
        n_contexts: how many there are.
        turn_nats: medians over contexts of the price of the first, second, ... empty turn of an
            agent that is silent from its first choice on; none if that was not measured.
    """

    probability: float
    quartiles_nats: tuple[float, ...]
    n_contexts: int
    turn_nats: tuple[float, ...] = ()

    def share(self, budget_nats: float) -> float:
        """The predicted share of silent episodes."""
        return float(largest_share(self.probability, budget_nats).lower)

    def sequence_share(self, budget_nats: float) -> float:
        """The share of episodes in which all turns of `turn_nats` can be made empty."""
        return float(sequence_shares(self.turn_nats, budget_nats).prod())

    @property
    def about(self) -> str:
        """What it is, with its numbers, in a sentence: a template (`dialogue.behaviour`)."""
        quartiles = ", ".join(f"{nats:.2f}" for nats in self.quartiles_nats)
        return (
            "Closed form: the share q with KL(Bern q || Bern p) = budget, p = exp(-median price "
            f"of the first {{priced}}) = {self.probability:.3g} (quartiles {quartiles} nats over "
            f"{self.n_contexts} contexts)"
        )


def closed_form_of(base: BaseEvaluation | None) -> ClosedForm | None:
    """The closed form of a run, from what was measured of its base policy.

    Returns:
        None if that was not evaluated, or if no dialogue was long enough for a silent turn.
    """
    if base is None or not base.n_contexts:
        return None
    if base.first_silence_nats is None or base.first_silence_probability is None:
        return None
    return ClosedForm(
        probability=base.first_silence_probability,
        quartiles_nats=base.first_silence_nats,
        n_contexts=base.n_contexts,
        turn_nats=base.silence_nats or (),
    )


def sequence_shares(
    prices_nats: Sequence[float] | NDArray[np.float64], budget_nats: float
) -> NDArray[np.float64]:
    """The probabilities q_i of a sequence of purchases; see the module's docstring.

    Args:
        prices_nats: `-ln p_i` >= 0 of each, inf for what the base policy never does; shape (n,).
        budget_nats: B >= 0, that no episode may exceed; may be inf.

    Returns:
        Shape (n,); their costs sum to B within a relative 1e-9, or all are 1. Where one price is
        infinite the sequence cannot be bought, and the q_i are the p_i.

    Raises:
        InvalidArgumentError: a negative price, or NaN.
        InvalidBudgetError: a negative budget, or NaN.
    """
    prices = np.asarray(prices_nats, dtype=np.float64)
    if not (prices >= 0).all():
        raise InvalidArgumentError(f"prices_nats must be >= 0, got {prices[~(prices >= 0)][0]}")
    check_budget(budget_nats=budget_nats)
    if np.isinf(prices).any() or budget_nats == 0:
        return np.exp(-prices)
    if prices.sum() <= budget_nats:
        return np.ones_like(prices)
    dear = prices > 0  # what is free is bought
    shares = np.ones_like(prices)
    log_p = -prices[dear]
    logit_p = log_p - np.log(-np.expm1(log_p))

    def logits(common: float) -> NDArray[np.float64]:
        """Where q (logit q - logit p) = common, as logit q; the left side increases in it."""
        low, high = logit_p, np.maximum(logit_p, 0.0) + 2 * common
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            below = special.expit(middle) * (middle - logit_p) < common
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return np.asarray((low + high) / 2)

    def excess(log_common: float) -> float:
        """The sequence's cost, less the budget."""
        logit = logits(math.exp(log_common))
        q = special.expit(logit)
        gain = q * (special.log_expit(logit) - log_p)
        loss = (1 - q) * (special.log_expit(-logit) - special.log_expit(-logit_p))
        return float((gain + loss).sum()) - budget_nats

    if excess(_LOG_COMMON[0]) >= 0:  # less than the rounding of a price
        return np.exp(-prices)
    if excess(_LOG_COMMON[1]) > 0:
        common = math.exp(optimize.brentq(excess, *_LOG_COMMON))
        shares[dear] = special.expit(logits(common))
    return shares


def closed_form_of_prices(prices_nats: Sequence[float] | NDArray[np.float64]) -> ClosedForm:
    """The closed form, from prices of the first silence.

    Args:
        prices_nats: `-log b` of the first empty turn, one a context.

    Raises:
        InvalidArgumentError: no price.
    """
    if not len(prices_nats):
        raise InvalidArgumentError("no dialogue was long enough for a silent turn; lengthen them")
    with np.errstate(invalid="ignore"):
        quartiles = np.percentile(prices_nats, QUARTILES)
    quartiles = np.where(np.isnan(quartiles), np.inf, quartiles)  # between infinite prices
    return ClosedForm(
        probability=math.exp(-float(quartiles[1])),
        quartiles_nats=tuple(quartiles.tolist()),
        n_contexts=len(prices_nats),
    )


def episodes_interval(row: LengthRow, name: str, *place: int) -> Interval:
    """The Clopper-Pearson interval of a share of a policy's episodes, at `CONFIDENCE`.

    Args:
        row: of the policy.
        name: of a metric that counts episodes (`Metric.share_of_episodes`).
        place: where the share stands, for metrics of several.
    """
    n_episodes = row.numbers.spending.n_episodes
    successes = round(row.numbers.value(name, *place) * n_episodes)
    return share_interval(successes, n_episodes, confidence=CONFIDENCE)


def most_silent(base: LengthRow, budget_nats: float) -> float:
    """The bound on the share of silent episodes within a budget that holds in every episode.

    Args:
        base: the base policy's row, at the length of the episodes.
        budget_nats: of an episode.
    """
    upper = episodes_interval(base, "silent_share").high
    return float(largest_share(upper, budget_nats).upper)
