"""Theorem 1 when the imitator predicts observations too: families in which its bound fails.

A *joint model* is a policy and an environment with one weight; the imitator `xi` is updated by
actions and observations (theory/bayes_mixture.py). All families here have "original" models, and
a *switched copy* of each, `2^-Delta` as heavy, which predicts the same observations and acts as
pi = "never deviate". Theorem 1's bound would be `Delta ln 2 - ln rho`, rho the weight of the
originals. Action 0 is pi's action, action 1 a deviation; originals are deterministic.

- *Pointed deviators.* Model i deviates at step i+1 only, and the observation before it is 1
  ("i will deviate") for sure under model i, with probability `delta_i` under every other model.
  On the observations 1, 1, 1, ... each step's deviator is the heaviest model left, pi pays about
  `ln(1 + 2^Delta)` for each, and n of them cost `n ln(1 + 2^Delta)`, if each delta_i is much
  smaller than the one before: with equal ones the copies of earlier deviators help, and it is
  `sum_i ln(1 + 2^Delta / i)`.
- *Halving deviators.* 2^n models; at step i those deviate whose i-th binary digit is 1, and the
  observation after the step is the i-th digit of the model. Observations drawn from xi itself
  then mostly name the survivors, among whom the next half deviates.

The families refute Theorem 1's finite form for *arbitrary finite classes*. A universal mixture also
holds a *follower*, the model "act as pi, observations by coin". With a share `2^-b` of the
originals' weight the follower alone undoes the excess of the pointed family, if its pointers are
sharp (10^-6, 10^-18, ...; `with_follower_nats`), and not that of others. Whether some family
violates the bound over a universal class is open.

How much the bound misses in ordinary worlds: `toy_world.studies.ordinary_joint_worlds`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any, Final

import numpy as np

from mightnt.progress import track
from mightnt.results import json_key
from theory.bayes_mixture import (
    EnvironmentStack,
    PolicyStack,
    joint_predictor,
    observation_mixture,
    stack_tables,
)
from theory.bounds import Theorem1Bound, halving_deviators_nats, pointed_deviators_nats
from theory.constraints import Nats, expected_kl_nats, fixed_kl_nats
from theory.errors import InvalidArgumentError
from theory.process import (
    EnvironmentTable,
    History,
    HistoryTree,
    PolicyTable,
    environment_table,
    policy_table,
)
from toy_world.studies.ordinary_joint_worlds import ordinary_mixture, ordinary_world

FOLLOW, DEVIATE = 0, 1
ZERO, ONE = Fraction(0), Fraction(1)

EXACT_MODELS: Final = 4
"""Up to here the pointed family is worked out on the whole tree, in rationals."""
FOLLOWER_BITS: Final = 10
"""The follower's weight is `2^-FOLLOWER_BITS` of the originals'."""
FORMULA_MODELS: Final = (8, 16)
EXACT_HALVINGS: Final = (1, 2, 3)
HALVINGS: Final = (*EXACT_HALVINGS, 8, 12, 16, 32)
DRAWN_HALVINGS: Final = 16
TRAINING_LENGTHS: Final = (1, 3, 10, 30)
AGENT_STEPS: Final = 2
"""How long the agent acts in the ordinary world."""


@dataclass(frozen=True, kw_only=True)
class JointFamily:
    """Original models, their switched copies, and the agent that never deviates.

    Attributes:
        delta_bits: Delta; a copy is `2^-Delta` as heavy as its original.
        policies: stack of the originals', then the copies' policies.
        environments: stack of the same models' observations.
        agent: pi.
    """

    delta_bits: int
    policies: PolicyStack
    environments: EnvironmentStack
    agent: PolicyTable

    @property
    def n_originals(self) -> int:
        """The number of original models."""
        return int(self.policies[0].shape[0]) // 2

    @property
    def weights(self) -> tuple[Fraction, ...]:
        """Up to a factor: 1 for an original, `2^-Delta` for a copy."""
        copy = Fraction(1, 2**self.delta_bits)
        return (ONE,) * self.n_originals + (copy,) * self.n_originals

    @property
    def rho(self) -> Fraction:
        """The weight of the originals, those that have a switched version in the mixture."""
        return 1 / (1 + Fraction(1, 2**self.delta_bits))

    @property
    def bound(self) -> Theorem1Bound:
        """Theorem 1's bound, as if the imitator were a policy mixture."""
        return Theorem1Bound(delta_bits=self.delta_bits, log_rho=float(np.log(float(self.rho))))

    def imitator(self) -> tuple[PolicyTable, EnvironmentTable]:
        """The joint predictor xi, as base policy and as environment."""
        return joint_predictor(self.weights, self.policies, self.environments)

    def observation_mixture(self) -> EnvironmentTable:
        """xi~, updated by observations only."""
        return observation_mixture(self.weights, self.environments)

    def model_environment(self, model: int) -> EnvironmentTable:
        """The observations of one model."""
        return tuple(level[model] for level in self.environments)


@dataclass(frozen=True, kw_only=True)
class JointCosts:
    """What pi's departure costs under each reading, exactly.

    Attributes:
        fixed_nats: the paper's reading, worst observations chosen in advance.
        expected_under_xi_tilde_nats: observations from xi~.
        expected_under_model_nats: observations from the first original.
        expected_under_xi_nats: observations from the joint predictor itself.
    """

    fixed_nats: Nats
    expected_under_xi_tilde_nats: Nats
    expected_under_model_nats: Nats
    expected_under_xi_nats: Nats


def joint_costs(family: JointFamily) -> JointCosts:
    """All readings of `KL(pi||xi)`, in exact arithmetic."""
    base, own = family.imitator()
    return JointCosts(
        fixed_nats=fixed_kl_nats(family.agent, base),
        expected_under_xi_tilde_nats=expected_kl_nats(
            family.agent, base, family.observation_mixture()
        ),
        expected_under_model_nats=expected_kl_nats(family.agent, base, family.model_environment(0)),
        expected_under_xi_nats=expected_kl_nats(family.agent, base, own),
    )


def with_follower_nats(family: JointFamily, *, share_bits: int) -> Nats:
    """`KL(pi||xi)`, worst fixed observations, if the class holds a follower too.

    Args:
        family: originals and copies.
        share_bits: b >= 0; the follower weighs `2^-b` times all originals together.
    """
    coin = tuple(np.full_like(level[:1], Fraction(1, 2)) for level in family.environments)
    base, _ = joint_predictor(
        (*family.weights, family.n_originals * Fraction(1, 2**share_bits)),
        tuple(
            np.concatenate([level, agent[None]])
            for level, agent in zip(family.policies, family.agent, strict=True)
        ),
        tuple(
            np.concatenate([level, fair])
            for level, fair in zip(family.environments, coin, strict=True)
        ),
    )
    return fixed_kl_nats(family.agent, base)


def pointed_deviators(*, delta_bits: int, likelihoods: Sequence[Fraction]) -> JointFamily:
    """The first family, for n = `len(likelihoods)` models, over n + 1 steps.

    Args:
        delta_bits: Delta >= 0.
        likelihoods: delta_1 ... delta_n in (0, 1): how likely the i-th observation is to be 1
            under every model but the i-th.
    """
    for likelihood in likelihoods:
        if not 0 < likelihood < 1:
            raise InvalidArgumentError(f"likelihoods must lie in (0, 1), got {likelihood}")
    n = len(likelihoods)

    def acts(model: int, h: History) -> tuple[Fraction, Fraction]:
        return _sure(DEVIATE if len(h) // 2 == model + 1 else FOLLOW)

    def observes(model: int, h: History) -> tuple[Fraction, Fraction]:
        step = len(h) // 2
        if step >= n:
            return ONE, ZERO
        one = ONE if step == model else likelihoods[step]
        return 1 - one, one

    return _family(n_models=n, horizon=n + 1, delta_bits=delta_bits, acts=acts, observes=observes)


def halving_deviators(*, delta_bits: int, n: int) -> JointFamily:
    """The second family: 2^n models over n steps."""

    def named_digit(model: int, h: History) -> tuple[Fraction, Fraction]:
        return _sure((model >> (len(h) // 2)) & 1)

    return _family(
        n_models=2**n,
        horizon=n,
        delta_bits=delta_bits,
        acts=named_digit,
        observes=named_digit,
    )


def _family(
    *, n_models: int, horizon: int, delta_bits: int, acts: Any, observes: Any
) -> JointFamily:
    if delta_bits < 0:
        raise InvalidArgumentError(f"delta_bits must be >= 0, got {delta_bits}")
    tree = HistoryTree(n_actions=2, n_observations=2, horizon=horizon)
    agent = policy_table(tree, lambda _: _sure(FOLLOW))
    policies = [policy_table(tree, partial(acts, i)) for i in range(n_models)]
    environments = [environment_table(tree, partial(observes, i)) for i in range(n_models)]
    return JointFamily(
        delta_bits=delta_bits,
        policies=stack_tables(policies + [agent] * n_models),
        environments=stack_tables(environments * 2),
        agent=agent,
    )


def _sure(symbol: int) -> tuple[Fraction, Fraction]:
    return (ZERO, ONE) if symbol else (ONE, ZERO)


@dataclass(frozen=True, kw_only=True)
class SourceCost:
    """What pi's departure costs under observations from one source.

    Attributes:
        family: which.
        n_models: its originals.
        source: where the observations come from.
        kl_nats: `KL(pi||xi)`.
        limit_nats: the bound that holds; None if none does.
    """

    family: str
    n_models: int
    source: str
    kl_nats: float
    limit_nats: float | None


@dataclass(frozen=True, kw_only=True)
class HalvingCost:
    """What 2^n halving deviators cost under their own observations.

    Attributes:
        n: the steps.
        exact_nats: by enumeration; None where there are too many models.
        closed_form_nats: by `theory.bounds.halving_deviators_nats`.
    """

    n: int
    exact_nats: float | None
    closed_form_nats: float


@dataclass(frozen=True, kw_only=True)
class SmallestCounterexample:
    """Two pointed models at Delta = 1 bit.

    Attributes:
        kl: `KL(pi||xi)` in nats, as an exact sum of logarithms.
        kl_nats: the same, rounded.
        printed_nats: the bound as printed, which it exceeds.
    """

    kl: str
    kl_nats: float
    printed_nats: float


@dataclass(frozen=True, kw_only=True)
class OrdinaryCost:
    """What departing costs in the ordinary world after k demonstrations.

    Attributes:
        n_steps: k.
        n_models: joint programs of positive posterior weight.
        fixed_nats: KL, worst observations chosen in advance.
        expected_nats: KL, observations from the world.
        bound_nats: Theorem 1's, as for a policy mixture.
        residual_nats: what has to be added to it.
    """

    n_steps: int = field(metadata=json_key("k"))
    n_models: int
    fixed_nats: float
    expected_nats: float
    bound_nats: float
    residual_nats: float


@dataclass(frozen=True, kw_only=True)
class JointPredictorCosts:
    """Where Theorem 1's bound fails for a joint predictor, and by how much.

    Attributes:
        delta_bits: Delta.
        n: pointed models, 1 to `EXACT_MODELS`.
        fixed_nats: KL of so many, worst observations, exact before it was rounded.
        follower_nats: the same with a follower of `FOLLOWER_BITS` bits in the class.
        limit_n: pointed models, those and `FORMULA_MODELS`.
        limit_nats: what the KL of so many approaches as pointers get sharper.
        halving_nats: KL of halving deviators, n = 1 to `DRAWN_HALVINGS`, own observations.
        bound_nats: Theorem 1's bound for a policy mixture, `Delta ln 2 - ln rho`.
        printed_nats: the same as printed.
        counterexample: the smallest one known.
        sources: costs by where the observations come from.
        halvings: costs of halving deviators.
        ordinary: costs in an ordinary world.
    """

    delta_bits: int
    n: tuple[int, ...]
    fixed_nats: tuple[float, ...]
    follower_nats: tuple[float, ...]
    limit_n: tuple[int, ...]
    limit_nats: tuple[float, ...]
    halving_nats: tuple[float, ...]
    bound_nats: float
    printed_nats: float
    counterexample: SmallestCounterexample
    sources: tuple[SourceCost, ...]
    halvings: tuple[HalvingCost, ...]
    ordinary: tuple[OrdinaryCost, ...]


def joint_predictor_costs(
    *,
    delta_bits: int,
    bits: int,
    new_rng: Callable[[], np.random.Generator],
    training_lengths: Sequence[int] = TRAINING_LENGTHS,
) -> JointPredictorCosts:
    """Families in exact arithmetic, the smallest counterexample, and an ordinary world.

    Args:
        delta_bits: Delta of the families.
        bits: L of the ordinary world's joint programs.
        new_rng: makes the generator of each demonstration in the ordinary world; if all are
            alike, shorter demonstrations are the beginnings of longer ones.
        training_lengths: how long these are.
    """
    pointed = [
        pointed_deviators(delta_bits=delta_bits, likelihoods=_pointers(n))
        for n in range(1, EXACT_MODELS + 1)
    ]
    halving = [halving_deviators(delta_bits=delta_bits, n=n) for n in EXACT_HALVINGS]
    exact = dict(zip(EXACT_HALVINGS, map(joint_costs, halving), strict=True))
    limit_n = (*range(1, EXACT_MODELS + 1), *FORMULA_MODELS)
    bound = pointed[-1].bound
    return JointPredictorCosts(
        delta_bits=delta_bits,
        n=tuple(range(1, EXACT_MODELS + 1)),
        fixed_nats=tuple(float(joint_costs(family).fixed_nats) for family in pointed),
        follower_nats=tuple(
            float(with_follower_nats(family, share_bits=FOLLOWER_BITS)) for family in pointed
        ),
        limit_n=limit_n,
        limit_nats=tuple(pointed_deviators_nats(n=n, delta_bits=delta_bits) for n in limit_n),
        halving_nats=tuple(
            halving_deviators_nats(n=n, delta_bits=delta_bits) for n in range(1, DRAWN_HALVINGS + 1)
        ),
        bound_nats=bound.bound_nats,
        printed_nats=bound.bound_as_printed_nats,
        counterexample=_smallest_counterexample(),
        sources=(*_source_costs("pointed", pointed[1]), *_source_costs("halving", halving[-1])),
        halvings=tuple(
            HalvingCost(
                n=n,
                exact_nats=float(exact[n].expected_under_xi_nats) if n in exact else None,
                closed_form_nats=halving_deviators_nats(n=n, delta_bits=delta_bits),
            )
            for n in HALVINGS
        ),
        ordinary=tuple(
            _ordinary_cost(k, bits=bits, rng=new_rng())
            for k in track(training_lengths, "ordinary worlds", total=len(training_lengths))
        ),
    )


def _pointers(n: int) -> list[Fraction]:
    """Each far smaller than the one before."""
    return [Fraction(1, 10 ** (4 * 3**i)) for i in range(n)]


def _smallest_counterexample() -> SmallestCounterexample:
    family = pointed_deviators(delta_bits=1, likelihoods=[Fraction(1, 10), Fraction(1, 100)])
    kl = joint_costs(family).fixed_nats
    return SmallestCounterexample(
        kl=str(kl), kl_nats=float(kl), printed_nats=family.bound.bound_as_printed_nats
    )


def _source_costs(name: str, family: JointFamily) -> list[SourceCost]:
    costs, bound, n = joint_costs(family), family.bound, family.n_originals
    with_weight = bound.expected_bound_nats(log_environment_weight=-float(np.log(n)))
    return [
        SourceCost(family=name, n_models=n, source=source, kl_nats=float(kl), limit_nats=limit)
        for source, kl, limit in (
            ("xi~", costs.expected_under_xi_tilde_nats, bound.bound_nats),
            ("a model e", costs.expected_under_model_nats, with_weight),
            ("xi itself", costs.expected_under_xi_nats, None),
            ("worst, fixed", costs.fixed_nats, None),
        )
    ]


def _ordinary_cost(n_steps: int, *, bits: int, rng: np.random.Generator) -> OrdinaryCost:
    costs = ordinary_mixture(
        ordinary_world(), n_training_steps=n_steps, bits=bits, horizon=AGENT_STEPS, rng=rng
    )
    return OrdinaryCost(
        n_steps=n_steps,
        n_models=costs.n_models,
        fixed_nats=costs.fixed_nats,
        expected_nats=costs.expected_nats,
        bound_nats=costs.bound.bound_nats,
        residual_nats=costs.residual_nats,
    )
