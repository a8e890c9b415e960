"""What a demonstration says about every event of a vocabulary, step by step.

A Bayesian imitator watches a demonstrator. Before each step t it predicts the next action with the
rates `b(a|h_t)` of its posterior by then; so its rates are predictable (`theory.vetoes`). For an
event E, "where a condition is met, the next action is a", what counts after k steps is

- `n_E`, the steps t < k at which the condition is met,
- `c_E`, those of them at which the demonstrator took a,
- `lambda_E` and `-ln m_E`, the sums of b(a|h_t) and of `-ln(1 - b(a|h_t))` over them.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from theory.process import PolicyTable
from theory.vetoes import EventEvidence, is_vetoed
from toy_world.programs.columns import ColumnLayout
from toy_world.programs.vocabulary import Vocabulary

Floats = NDArray[np.float64]
Truths = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class VetoEvidence:
    """The evidence about every event after 0, 1, ..., K steps of demonstration.

    Attributes:
        vocabulary: the events; its layout's history is the demonstration.
        actions: the demonstrator's, shape (K,).
        rates: `b(a|h_t)` of the imitator, shape (K, |A|).
    """

    vocabulary: Vocabulary
    actions: NDArray[np.int64]
    rates: Floats

    @property
    def n_steps(self) -> int:
        """K."""
        return len(self.actions)

    @cached_property
    def met(self) -> Truths:
        """Whether each condition is met before each step, shape (n_conditions, K)."""
        layout = self.vocabulary.layout
        chain = [layout.unpack(self.vocabulary.met, segment) for segment in layout.chain]
        return np.concatenate(chain, axis=1)[:, : self.n_steps]

    @cached_property
    def _visits(self) -> Floats:
        return _accumulated(self.met[:, None, :])

    @cached_property
    def _occurrences(self) -> Floats:
        taken = np.arange(self.rates.shape[1])[:, None] == self.actions
        return _accumulated(self.met[:, None, :] & taken)

    @cached_property
    def _expected(self) -> Floats:
        return _accumulated(self.met[:, None, :] * self.rates.T)

    @cached_property
    def _log_never(self) -> Floats:
        with np.errstate(divide="ignore"):  # a sure thing: never seeing it is impossible
            logs = np.log1p(-self.rates.T)
        return _accumulated(np.where(self.met[:, None, :], logs, 0.0))

    def after(self, n_steps: int) -> EventEvidence:
        """The evidence after k steps about the shortest event of each class.

        In the order of `vocabulary.included`'s true entries.
        """
        included = self.vocabulary.included
        columns = {
            "visits": np.broadcast_to(self._visits[:, :, n_steps], included.shape),
            "occurrences": self._occurrences[:, :, n_steps],
            "expected": self._expected[:, :, n_steps],
            "log_never": self._log_never[:, :, n_steps],
        }
        return EventEvidence(
            bits=self.vocabulary.bits[included],
            **{name: values[included] for name, values in columns.items()},
        )

    def vetoed(self, n_steps: int, alpha: Fraction) -> Truths:
        """Which classes have a vetoed event after k steps, shape (n_conditions, |A|).

        The shortest event of a class is the one of the greatest prior: if any is vetoed, it is.
        """
        included = self.vocabulary.included
        found = np.zeros(included.shape, dtype=np.bool_)
        found[included] = self.after(n_steps).vetoed(float(alpha))
        return found

    def n_ever_vetoed(self, alpha: Fraction, *, among: Truths) -> int:
        """How many events, of every length, were vetoed after some number of steps up to K.

        Args:
            alpha: the threshold.
            among: the classes to look at, shape (n_conditions, |A|).
        """
        # c = 0 up to an event's first occurrence, and m falls: it is most nearly vetoed just there.
        first = np.where(self._occurrences > 0, -np.inf, 0.0)
        least = np.where(first == 0, self._log_never, 0.0).min(axis=2)
        lengths = np.arange(1, self.vocabulary.limit_bits + 1)
        vetoed = is_vetoed(
            np.exp2(-lengths.astype(np.float64)),
            np.exp(least)[:, :, None],
            np.zeros((1, 1, 1)),
            alpha=float(alpha),
        )
        return int((vetoed * self.vocabulary.numbers[:, :, 1:] * among[:, :, None]).sum())

    def prices_nats(self) -> Floats:
        """`-ln b(a|h_t)` at every visit, nan elsewhere, shape (n_conditions, |A|, K)."""
        with np.errstate(divide="ignore"):
            prices = -np.log(self.rates.T)
        return np.where(self.met[:, None, :], prices, np.nan)


def barred_on_tree(vocabulary: Vocabulary, vetoed: Truths, point: int) -> tuple[Truths, ...]:
    """Which actions are vetoed at each history of a query point's tree.

    Args:
        vocabulary: the events.
        vetoed: classes, shape (n_conditions, |A|).
        point: which query point of the layout.

    Returns:
        Level t of shape ((|A||O|)^t, |A|).
    """
    layout = vocabulary.layout
    met = _met_on_tree(layout, vocabulary, point)
    barred = np.asarray((met.T.astype(np.float64) @ vetoed.astype(np.float64)) > 0)
    sizes = [layout.tree.n_histories(t) for t in range(layout.horizon)]
    return tuple(np.split(barred, np.cumsum(sizes)[:-1]))


def without(base: PolicyTable, barred: tuple[Truths, ...]) -> PolicyTable:
    """The vetoed law: the base policy without what is barred."""
    return tuple(
        np.where(rows_barred, 0.0, rows) for rows, rows_barred in zip(base, barred, strict=True)
    )


def blurred(base: PolicyTable, share: float) -> PolicyTable:
    """`(1 - share) b + share / |A|`: an imitator that gives nothing up, as trained networks do."""
    return tuple((1 - share) * rows + share / rows.shape[-1] for rows in base)


def _met_on_tree(layout: ColumnLayout, vocabulary: Vocabulary, point: int) -> Truths:
    """Whether each condition is met at each history of the tree, (n_conditions, histories)."""
    columns = layout.unpack(vocabulary.met, layout.trees[point])
    # Columns are (history, action), and a condition does not depend on the action.
    return columns.reshape(len(columns), -1, layout.n_actions)[:, :, 0]


def _accumulated(of_step: NDArray[np.generic]) -> Floats:
    """Sums over the first 0, 1, ..., K steps along the last axis."""
    sums = np.cumsum(of_step, axis=-1, dtype=np.float64)
    return np.concatenate([np.zeros((*sums.shape[:-1], 1)), sums], axis=-1)
