"""The KL budget of an episode: what a step costs, and what remains.

A *ledger* starts an episode with `B_0` nats and charges each step of a policy pi against a base
policy beta. Two accountings:

- `EXACT`: a step costs its divergence, `B <- B - KL(pi(.|h) || beta(.|h))`, and may cost at most B.
  Then the KLs along *every* path sum to at most B_0, so that by the chain rule the sequence-level
  KL is at most B_0 under every reading of the constraint (Definition 2).
- `REALIZED`: a step costs the log-ratio of the action taken, `B <- max(B - log(pi(a)/beta(a)), 0)`:
  the authors' released accounting. Its expectation is the KL, but the clamp at 0 forgives
  overdrafts, so the expected sum of KLs is *not* bounded by B_0.

The ledger records the KLs actually spent under both. What exceeds B_0 is the *leak*;
overspending.py says how large it can be. A floor under a step's target KL is no exception: what
the step's policy spends is charged, floor included. So under `EXACT` a policy that keeps to a
floor after its budget is gone raises.

Rounding: sums are pairs of floats, of which the second holds what the first cannot, so that a step
loses at most the square of the precision, relatively. The KLs that an `EXACT` ledger accepts sum to
at most `B_0 (1 + 1e-12)` in float64 and `B_0 (1 + 1e-6)` in float32, for up to 10^8 steps whatever
they cost. An infinite budget stays infinite.
"""

from dataclasses import dataclass, replace
from enum import Enum, unique
from typing import Final, TypeAlias

from theory.arguments import as_member
from theory.arrays import (
    INF,
    Array,
    Bool,
    Float,
    array_namespace,
    at_least,
    broadcast,
    check_budgets,
    common_namespace,
    is_single_precision,
    like,
)
from theory.errors import InvalidArgumentError, InvalidBudgetError, InvalidShapeError

PerEpisode: TypeAlias = Float[Array, "*episodes"]
"""One number an episode."""

OVERSPENDING_TOLERANCE: Final = 5e-13
"""Relative to B_0: half of what is promised; the ledger's own rounding may take the other half."""
OVERSPENDING_TOLERANCE_SINGLE: Final = 5e-7
"""The same for a float32 ledger."""


@unique
class Accounting(Enum):
    """What a step costs the budget; the value names it on command lines.

    Example:
        >>> from theory import Accounting
        >>> [accounting.value for accounting in Accounting]
        ['exact', 'realized']
    """

    EXACT = "exact"
    """The step's KL: a guarantee."""
    REALIZED = "realized"
    """The log-ratio of the action taken, clamped at 0: the authors' released code."""


@dataclass(frozen=True, kw_only=True)
class BudgetLedger:
    """The budgets of a batch of episodes, one number an episode; `open_ledger` makes one.

    All arrays have the shape of `initial_nats`, (n,) or any other, and its precision, library and
    device.

    Attributes:
        accounting: what a step costs.
        initial_nats: B_0.
        remaining_nats: B, what the next step may cost at most; never negative.
        spent_nats: the sum of the steps' true KLs, under either accounting.
        rounding_nats: what `spent_nats` lost to rounding, the second part of the sum.

    Example:
        Two episodes take a step of 0.3 nats; in the first, the action taken was 5 times as
        probable as under the base, in the second half as probable:

        >>> import numpy as np
        >>> from theory import Accounting, open_ledger
        >>> ratio = np.log([5.0, 0.5])
        >>> for accounting in Accounting:
        ...     ledger = open_ledger(np.array([1.0, 1.0]), accounting=accounting)
        ...     ledger = ledger.charge(kl_nats=0.3, log_ratio_nats=ratio)
        ...     print(accounting.value, ledger.remaining_nats.round(4))
        exact [0.7 0.7]
        realized [0.     1.6931]
    """

    accounting: Accounting
    initial_nats: PerEpisode
    remaining_nats: PerEpisode
    spent_nats: PerEpisode
    rounding_nats: PerEpisode

    def __post_init__(self) -> None:
        if not isinstance(self.accounting, Accounting):
            raise InvalidArgumentError(
                f"accounting must be a member of Accounting, got {self.accounting!r}; open_ledger "
                "converts its name"
            )

    @property
    def leak_nats(self) -> PerEpisode:
        """KL spent beyond B_0, at least 0; under `EXACT` it is rounding at most."""
        xp = array_namespace(self.initial_nats)
        limited = self.initial_nats < INF
        initial = xp.where(limited, self.initial_nats, 0.0)
        excess = (self.spent_nats - initial) + self.rounding_nats
        return xp.where(limited, at_least(excess, 0.0), 0.0)

    def charge(
        self,
        *,
        kl_nats: Float[Array, "*#episodes"] | float,
        log_ratio_nats: Float[Array, "*#episodes"] | float | None = None,
        active: Bool[Array, "*#episodes"] | None = None,
        unchecked: bool = False,
    ) -> "BudgetLedger":
        """The ledger after a step.

        Args:
            kl_nats: `KL(pi(.|h) || beta(.|h))` of the step; the ledger's shape, or one number.
            log_ratio_nats: `log(pi(a|h)/beta(a|h))` of the action taken; `REALIZED` needs it,
                `EXACT` does not read it.
            active: which episodes take the step, bool; all by default. What stands in the other
                entries of the charges, NaN included, does not matter.
            unchecked: do not read the data (see `theory.arrays`). An overspent `EXACT` ledger
                then records what was spent and has 0 remaining; call `check_spending` at the end
                of the episode.

        Raises:
            InvalidBudgetError: a KL that is negative or NaN, a log-ratio that is NaN or -inf (an
                action that pi never takes), or an `EXACT` step that costs more than remains.
            InvalidArgumentError: no log-ratio under `REALIZED`.
            InvalidShapeError: charges that do not fit the ledger's shape.

        Example:
            >>> import numpy as np
            >>> from theory import Accounting, open_ledger
            >>> ledger = open_ledger(np.array([1.0, 2.0]), accounting=Accounting.EXACT)
            >>> ledger = ledger.charge(kl_nats=0.5, active=np.array([True, False]))
            >>> ledger.spent_nats, ledger.remaining_nats
            (array([0.5, 0. ]), array([0.5, 2. ]))
        """
        xp = array_namespace(self.initial_nats)
        kl = self._amount(kl_nats, active, name="kl_nats")
        if not unchecked:
            _refuse(kl, ~(kl >= 0), "kl_nats must be >= 0; see theory.divergences.kl_nats")
        spent, rounding = _compensated_sum(self.spent_nats, self.rounding_nats, kl)
        limited = self.initial_nats < INF
        if self.accounting is Accounting.EXACT:
            remaining = (self.initial_nats - xp.where(limited, spent, 0.0)) - rounding
        elif log_ratio_nats is None:
            raise InvalidArgumentError(
                "realized accounting needs log_ratio_nats = log(pi(a|h)/beta(a|h)) of the action "
                "taken; where only the KL is known, use Accounting.EXACT"
            )
        else:
            ratio = self._amount(log_ratio_nats, active, name="log_ratio_nats")
            if not unchecked:
                _refuse(ratio, ~(ratio > -INF), "log_ratio_nats must be a number above -inf")
            remaining = self.remaining_nats - xp.where(limited, ratio, 0.0)
        charged = replace(
            self,
            remaining_nats=xp.where(limited, at_least(remaining, 0.0), INF),
            spent_nats=spent,
            rounding_nats=rounding,
        )
        if not unchecked:
            charged.check_spending()
        return charged

    def check_spending(self) -> None:
        """Raise if an `EXACT` ledger is overspent; `REALIZED` makes no promise to check.

        Raises:
            InvalidBudgetError: with the episode's budget and what was spent.
        """
        if self.accounting is Accounting.REALIZED:
            return
        single = is_single_precision(self.initial_nats)
        tolerance = OVERSPENDING_TOLERANCE_SINGLE if single else OVERSPENDING_TOLERANCE
        over = self.leak_nats > tolerance * self.initial_nats
        if over.any():
            raise InvalidBudgetError(
                f"an exact budget of {_first(self.initial_nats, over)} nats must not be overspent; "
                "project each step's policy onto remaining_nats, a floor on its target included; "
                f"got {_first(self.spent_nats, over)}"
            )

    def _amount(
        self,
        value: Float[Array, "*#episodes"] | float,
        active: Bool[Array, "*#episodes"] | None,
        *,
        name: str,
    ) -> PerEpisode:
        """`value` as an array of the ledger's kind, 0 where not `active`."""
        xp = array_namespace(self.initial_nats)
        amount = like(self.initial_nats, value, name=name)
        for part, given in ((name, amount), ("active", active)):
            if given is not None and tuple(given.shape) not in ((), tuple(self.initial_nats.shape)):
                raise InvalidShapeError(
                    f"{part} must have the ledger's shape {tuple(self.initial_nats.shape)} or (), "
                    f"got {tuple(given.shape)}"
                )
        amount = broadcast(amount, tuple(self.initial_nats.shape))
        return amount if active is None else xp.where(active, amount, 0.0)


def open_ledger(
    initial_nats: PerEpisode, *, accounting: Accounting, unchecked: bool = False
) -> BudgetLedger:
    """A ledger at the start of its episodes.

    Args:
        initial_nats: B_0 of each episode, float array of any shape; inf for no limit.
        accounting: what a step costs.
        unchecked: skip the check that reads the data (see `theory.arrays`).

    Raises:
        InvalidBudgetError: a budget that is negative or NaN.
        InvalidArgumentError: no float array.

    Example:
        >>> import numpy as np
        >>> from theory import Accounting, InvalidBudgetError, open_ledger
        >>> ledger = open_ledger(np.array([3.0, np.inf]), accounting=Accounting.EXACT)
        >>> ledger = ledger.charge(kl_nats=1.0)
        >>> ledger.remaining_nats
        array([ 2., inf])
        >>> try:
        ...     ledger.charge(kl_nats=2.5)
        ... except InvalidBudgetError as error:
        ...     print(str(error).partition(";")[0])
        an exact budget of 3.0 nats must not be overspent
    """
    accounting = as_member(Accounting, accounting, name="accounting")
    xp = common_namespace(initial_nats=initial_nats)
    if not unchecked:
        check_budgets(initial_nats=initial_nats)
    return BudgetLedger(
        accounting=accounting,
        initial_nats=initial_nats,
        remaining_nats=initial_nats,
        spent_nats=xp.zeros_like(initial_nats),
        rounding_nats=xp.zeros_like(initial_nats),
    )


def _compensated_sum(
    total: PerEpisode, rounding: PerEpisode, amount: PerEpisode
) -> tuple[PerEpisode, PerEpisode]:
    """The sum of a pair, total and rounding, and an amount, as such a pair; none is negative.

    Neumaier's step alone would let the rounding part grow, and round it: charges of half a unit in
    the total's last place then add up unseen.
    """
    xp = array_namespace(total)
    new_total = total + amount
    # Once a total is infinite there is nothing left to compensate, and inf - inf would be NaN.
    finite = new_total < INF
    # What the addition lost: exact, because the larger of the two comes first.
    larger = xp.where(finite, xp.maximum(total, amount), 0.0)
    smaller = xp.where(finite, xp.minimum(total, amount), 0.0)
    high = xp.where(finite, new_total, 0.0)
    low = rounding + ((larger - high) + smaller)
    # As much of it as the total can hold goes there, exactly again.
    total = high + low
    low = (high - total) + low
    return xp.where(finite, total, new_total), xp.where(finite, low, 0.0)


def _refuse(values: Array, wrong: Array, requirement: str) -> None:
    if wrong.any():
        raise InvalidBudgetError(f"{requirement}; got {_first(values, wrong)}")


def _first(values: Array, where: Array) -> float:
    """The first of `values` where `where` holds, somewhere."""
    xp = array_namespace(values)
    return float(xp.reshape(values, (-1,))[xp.reshape(where, (-1,))][0])
