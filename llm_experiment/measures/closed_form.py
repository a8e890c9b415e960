"""How much silence a budget buys: a closed form, and a bound.

To make an event of probability p under the base policy happen with probability q costs at least
`KL(Bern q || Bern p)` nats, so that B nats buy at most the q with `KL(Bern q || Bern p) = B`
(`theory.bounds.largest_share`). Two choices of p:

- *Closed form*, a prediction: p is the probability of an empty turn where the agent could first
  choose one, `exp(-median price)` over contexts. It is what an agent reaches that buys silence
  once, at one such context, if that makes the episode silent. It is neither a bound nor a fit.
- *Bound*: p is the base policy's own probability of a silent episode. No policy whose episodes
  all stay within the budget can exceed it. That probability is estimated, and the upper end of
  its 95% Clopper-Pearson interval stands for it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_experiment.measures.metrics import QUARTILES, BaseEvaluation, LengthRow
from mightnt.statistics import CONFIDENCE, Interval, share_interval
from theory.bounds import largest_share
from theory.errors import InvalidArgumentError


@dataclass(frozen=True, kw_only=True)
class ClosedForm:
    """The closed form of a run.

    Attributes:
        probability: p.
        quartiles_nats: of the price of the first silence, over contexts.
        n_contexts: how many there are.
    """

    probability: float
    quartiles_nats: tuple[float, ...]
    n_contexts: int

    def share(self, budget_nats: float) -> float:
        """The predicted share of silent episodes."""
        return float(largest_share(self.probability, budget_nats).lower)

    @property
    def about(self) -> str:
        """What it is, with its numbers, in a sentence."""
        quartiles = ", ".join(f"{nats:.2f}" for nats in self.quartiles_nats)
        return (
            "Closed form: the share q with KL(Bern q || Bern p) = budget, p = exp(-median price "
            f"of the first silence) = {self.probability:.3g} (quartiles {quartiles} nats over "
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
    )


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
