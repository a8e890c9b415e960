"""The enumerated mixture `xi` as a process: the Bayesian imitator over every short program.

With prior weights `w(p) = 2^-len(p)` over the policy programs of at most L bits, the posterior
at a query point h is `w(p|h) = w(p) prod_j p(a_j|h_j)` normalised (observations are conditioned
on: a *policy mixture*), and `xi(a|h) = sum_p w(p|h) p(a|h)`. Programs that agree in all that is
asked at the point count as one class, whose weight is the sum of theirs, an exact multiple of
2^-L. What longer programs would add is in the prior mass left out.

For Theorem 1, `rho` is the posterior mass of the programs of at most L - Delta bits: those whose
switched versions, Delta bits longer, are in the mixture too.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from theory.bayes_mixture import PolicyStack, Update, policy_mixture
from theory.errors import InvalidArgumentError, InvalidDistributionError
from theory.process import HistoryTree, PolicyTable
from toy_world.programs.classes import policy_rows
from toy_world.programs.columns import QueryPoint
from toy_world.programs.enumeration import Enumeration, group
from toy_world.programs.language import Policy

LEAST_TIED_SHARE: Final = 1e-3
"""Of the largest weight: no top set with an alpha above it holds a model that weighs less."""
TIE_ROUNDING: Final = 1e-12
"""Weights this close, relatively, are equal: they are sums over programs in some order."""


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """The mixture at one query point.

    Attributes:
        enumeration: the programs.
        index: which of the layout's points it is.
        members: one class of the enumeration for each class at this point, those of the
            greatest posterior weight first and, among equals, of the shortest program; shape
            (n,).
        counts: number of programs of each length, shape (n, L + 1).
        log_weights: natural logarithms of `w(p|h)`, summing to 1, shape (n,).
    """

    enumeration: Enumeration
    index: int
    members: NDArray[np.int64]
    counts: NDArray[np.int64]
    log_weights: NDArray[np.float64]

    @property
    def point(self) -> QueryPoint:
        """The history at which the mixture is asked."""
        return self.enumeration.layout.points[self.index]

    @property
    def tree(self) -> HistoryTree:
        """The continuations; the point's own history, the root, is left out of it."""
        return self.enumeration.layout.tree

    @property
    def n_classes(self) -> int:
        """How many classes of programs have positive posterior weight."""
        return len(self.members)

    @cached_property
    def _probabilities(self) -> NDArray[np.float64]:
        """What each class does at each history of the tree, (n, histories, |A|)."""
        return self.enumeration.tree_probabilities(self.members, self.index)

    @property
    def prior_weights(self) -> NDArray[np.int64]:
        """`sum 2^-len(p)` of each class in units of 2^-L, exact, shape (n,)."""
        limit = self.enumeration.limit_bits
        return np.asarray((self.counts << np.arange(limit, -1, -1)).sum(axis=1))

    @property
    def shortest_bits(self) -> NDArray[np.int64]:
        """Length of the shortest program of each class, shape (n,)."""
        return np.asarray((self.counts > 0).argmax(axis=1))

    def program(self, place: int) -> Policy:
        """The shortest program of a class, by its place in the order of `members`."""
        return self.enumeration.program(int(self.members[place]))

    def place_of(self, policy: Policy) -> int:
        """The class to which a policy belongs.

        Raises:
            InvalidArgumentError: it behaves like no program of the mixture.
        """
        wanted = self.enumeration.fingerprint(policy, self.index)
        prints = self.enumeration.fingerprints[self.members, self.index]
        places = np.flatnonzero((prints == wanted).all(axis=1))
        if not places.size:
            raise InvalidArgumentError(
                f"{policy} behaves like no program of at most {self.enumeration.limit_bits} bits "
                "that can have produced the history"
            )
        return int(places[0])

    def on_tree(self, policy: Policy) -> PolicyTable:
        """What a policy, in the mixture or not, does on the tree.

        Returns:
            Level t of shape ((|A||O|)^t, |A|), exact.
        """
        layout = self.enumeration.layout
        segment = layout.trees[self.index]
        table = np.zeros(segment.n_columns)
        for value, row in policy_rows(policy, layout).items():
            table[layout.unpack(row[None], segment)[0]] = value
        return tuple(level[0] for level in self._levels(table.reshape(1, -1, layout.n_actions)))

    def log_rho(self, delta_bits: int) -> float:
        """`ln rho`: of the posterior mass of programs of at most L - Delta bits; -inf if none.

        Args:
            delta_bits: Delta >= 0.
        """
        if delta_bits < 0:
            raise InvalidArgumentError(f"delta_bits must be >= 0, got {delta_bits}")
        n_bits = np.arange(self.enumeration.limit_bits + 1)
        shares = self.counts * 0.5**n_bits
        short = shares[:, : max(len(n_bits) - delta_bits, 0)].sum(axis=1)
        rho = np.exp(self.log_weights) @ (short / shares.sum(axis=1))
        with np.errstate(divide="ignore"):
            return min(float(np.log(rho)), 0.0)

    @cached_property
    def policies(self) -> PolicyStack:
        """What each class does on the tree, level t of shape (n, (|A||O|)^t, |A|), exact."""
        return self._levels(self._probabilities)

    def imitator(self, *, update: Update = Update.ALL) -> PolicyTable:
        """`xi(a|h)` on the tree.

        Args:
            update: whose actions go on updating the posterior there.

        Returns:
            Level t of shape ((|A||O|)^t, |A|).
        """
        weights, policies = self.by_continuation()
        return policy_mixture(weights, policies, update=update)

    def by_continuation(self) -> tuple[NDArray[np.float64], PolicyStack]:
        """Weights and tables with classes merged that do the same on the tree.

        Returns:
            Weights that sum to 1, shape (m,), and the stack, level t of shape
            (m, (|A||O|)^t, |A|). Among equal weights of at least `LEAST_TIED_SHARE` of the
            largest, the shortest program comes first, then the first in the order of codes: so
            ties of a top set (`theory.pessimism`) do not depend on how programs are stored.
        """
        table = self._probabilities
        flat = table.reshape(len(table), -1)
        # Equal rows have equal bits (probabilities are dyadic, 0 is never -0).
        words = np.ascontiguousarray(flat).view(np.uint64)
        multipliers = np.random.default_rng(0).integers(
            2**64, size=(2, words.shape[1]), dtype=np.uint64, endpoint=False
        )
        prints = np.stack([(words * m).sum(axis=1) for m in multipliers | 1], axis=1)
        _, first, place = np.unique(prints, axis=0, return_index=True, return_inverse=True)
        weights = np.zeros(len(first))
        place = place.reshape(-1)
        np.add.at(weights, place, np.exp(self.log_weights))
        order = self._ties_by_code(weights, place)
        return weights[order], self._levels(table[first[order]])

    def _ties_by_code(
        self, weights: NDArray[np.float64], place: NDArray[np.intp]
    ) -> NDArray[np.intp]:
        """The merged classes in their order, but for ties, which are by length and code.

        Args:
            weights: of the merged classes, shape (m,); ties are made exact in it.
            place: the merged class of each of `members`, shape (n,).
        """
        order = np.arange(len(weights))
        large = np.flatnonzero(weights >= LEAST_TIED_SHARE * weights.max())
        large = large[np.argsort(-weights[large], kind="stable")]
        falls = weights[large[:-1]] - weights[large[1:]] > TIE_ROUNDING * weights[large[:-1]]
        for tied in np.split(large, np.flatnonzero(falls) + 1):
            if len(tied) > 1:
                weights[tied] = weights[tied].max()
                by_code = sorted(tied.tolist(), key=lambda i: self._code(place == i))
                order[np.sort(tied)] = by_code
        return order

    def _code(self, of: NDArray[np.bool_]) -> tuple[int, str]:
        """Length and code of the first of the shortest programs of some classes."""
        bits = self.shortest_bits
        shortest = np.flatnonzero(of & (bits == bits[of].min()))
        policies = self.enumeration.language.policies
        return min((int(bits[i]), policies.encode(self.program(int(i)))) for i in shortest)

    def _levels(self, table: NDArray[np.float64]) -> PolicyStack:
        sizes = [self.tree.n_histories(t) for t in range(self.tree.horizon)]
        return tuple(np.split(table, np.cumsum(sizes)[:-1], axis=1))


def posterior(enumeration: Enumeration, index: int) -> Posterior:
    """The mixture at the query point `index` of the enumeration's layout.

    Raises:
        InvalidDistributionError: no program can have produced the history.
    """
    log_likelihoods = enumeration.log_likelihoods[:, index]
    alive = np.flatnonzero(np.isfinite(log_likelihoods))
    if not alive.size:
        raise InvalidDistributionError(
            f"no program of at most {enumeration.limit_bits} bits gives the actions before step "
            f"{enumeration.layout.points[index].n_steps} positive probability; allow more bits"
        )
    order, starts = group(enumeration.fingerprints[alive, index], enumeration.shortest[alive])
    members = alive[order[starts]]
    counts = np.add.reduceat(enumeration.counts[alive[order]], starts, axis=0)
    limit = enumeration.limit_bits
    weights = (counts << np.arange(limit, -1, -1)).sum(axis=1)
    log_weights = np.log(weights) + log_likelihoods[members]
    log_weights -= log_weights.max()
    log_weights -= np.log(np.exp(log_weights).sum())
    by_weight = np.lexsort((enumeration.shortest[members], -log_weights))
    return Posterior(
        enumeration=enumeration,
        index=index,
        members=members[by_weight],
        counts=counts[by_weight],
        log_weights=log_weights[by_weight],
    )
