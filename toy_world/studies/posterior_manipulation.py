"""How an agent drives the demonstrator out of the top set, if its own actions teach the imitator.

The pessimistic imitator's guarantee is `KL(pi||nu_alpha) >= KL(pi||mu)`. It holds if the
demonstrator's actions alone update the posterior (`Update.DEMONSTRATOR`) and may fail if every
action does (`Update.ALL`): then the agent, by acting as another model would, makes that model
likelier, and the demonstrator too unlikely to count. Here is the smallest example.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from theory.bayes_mixture import PolicyStack, Update, stack_tables
from theory.constraints import Nats, fixed_kl_nats
from theory.pessimism import pessimistic_imitator
from theory.process import PolicyTable, as_table


@dataclass(frozen=True, kw_only=True)
class PosteriorManipulation:
    """Two models, of which an agent can drive the demonstrator out of the top set.

    Attributes:
        alpha: the threshold.
        weights: of mu and the other.
        models: their stack; mu is the first.
        pi: what the agent does: the bad action, always.
    """

    alpha: Fraction
    weights: tuple[Fraction, ...]
    models: PolicyStack
    pi: PolicyTable

    def kl_to_imitator(self, update: Update) -> Nats:
        """`KL(pi||nu_alpha)`, exact."""
        base = pessimistic_imitator(self.weights, self.models, alpha=self.alpha, update=update)
        return fixed_kl_nats(self.pi, base)

    def kl_to_demonstrator(self) -> Nats:
        """`KL(pi||mu)`, exact."""
        return fixed_kl_nats(self.pi, tuple(level[0] for level in self.models))


def posterior_manipulation() -> PosteriorManipulation:
    """The smallest example in which the guarantee fails if every action updates the posterior.

    Two steps, two actions, one observation, two models of equal weight: mu takes the bad action
    with probability 1/10 in the first step and never again; the other always takes it. After the
    bad action the posterior of mu is 1/11, below alpha = 3/10, and what mu never does has cost
    ln 10 nats in all. One step is not enough: until the first action both rules agree. One model
    is not either.
    """
    bad, good = (as_table([[0, 1]]), as_table([[1, 0]]))
    mu: PolicyTable = (as_table([[Fraction(9, 10), Fraction(1, 10)]]), np.repeat(good, 2, axis=0))
    other: PolicyTable = (bad, np.repeat(bad, 2, axis=0))
    return PosteriorManipulation(
        alpha=Fraction(3, 10),
        weights=(Fraction(1, 2), Fraction(1, 2)),
        models=stack_tables([mu, other]),
        pi=other,
    )


@dataclass(frozen=True, kw_only=True)
class ManipulationRow:
    """The example under one update rule.

    Attributes:
        update: whose actions update the posterior.
        kl_to_imitator: `KL(pi||nu_alpha)` in nats, as an exact sum of logarithms.
        kl_to_imitator_nats: the same, rounded.
        kl_to_demonstrator: `KL(pi||mu)` in nats, exact.
        holds: whether the guarantee does, compared exactly.
    """

    update: Update
    kl_to_imitator: str
    kl_to_imitator_nats: float
    kl_to_demonstrator: str
    holds: bool


def manipulation_rows() -> tuple[ManipulationRow, ...]:
    """The example under both update rules, the one with the guarantee first."""
    example = posterior_manipulation()
    to_demonstrator = example.kl_to_demonstrator()
    rows = []
    for update in (Update.DEMONSTRATOR, Update.ALL):
        to_imitator = example.kl_to_imitator(update)
        rows.append(
            ManipulationRow(
                update=update,
                kl_to_imitator=str(to_imitator),
                kl_to_imitator_nats=float(to_imitator),
                kl_to_demonstrator=str(to_demonstrator),
                holds=to_imitator >= to_demonstrator,
            )
        )
    return tuple(rows)
