"""KL has no triangle inequality: near an imitator of the demonstrator, infinitely far from it.

Statement.NO_TRIANGLE: for every eps > 0 there are tau, beta and pi with `KL(pi||beta) <= eps`,
`KL(tau||beta) <= eps` and `KL(pi||tau) = inf`. The witness is exact (`theory.bounds`). How often
does it happen in nature? There beta is the Bayesian imitator xi, a mixture over every program of
at most L bits, after k steps of demonstration by tau. Three policies pi are looked at:

- *xi itself*. `KL(xi||xi) = 0`, so that a triangle inequality would say `KL(xi||tau) <=
  KL(tau||xi)`. It fails wherever the KL of the pair is larger this way round; by infinity where tau
  never does something that the mixture, however little, expects.
- *the best policy that is no farther from xi than tau is*, by the proxy utility "share of steps
  with action `BAD`", planned within `eps = KL(tau||xi)` nats.
- *the constructed policy* of Statement.LITTLE_CONSTRAINT: `BAD`, always, from a novelty on.

All KL here are expected ones, observations drawn from the world (in the exact witness there are
none), and every action goes on updating xi's posterior (`Update.ALL`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, unique
from fractions import Fraction
from typing import Final

import numpy as np

from mightnt.progress import track
from mightnt.results import json_key
from theory.bayes_mixture import Update
from theory.bounds import no_triangle_witness
from theory.constraints import expected_kl_nats
from theory.log_sum import LogSum, kl_log_sum
from theory.process import HistoryTree, PolicyTable, utility_table
from toy_world.planners.expected_kl import expected_kl_optimum
from toy_world.programs.language import Language, Policy
from toy_world.programs.semantics import policy_on_tree
from toy_world.studies.mixtures import Mixture, mixtures_while_watching, novel_mixture
from toy_world.worlds.environments import BAD, WorldName
from toy_world.worlds.setting import ever_probability, setting_of

EPSILONS: Final = (
    Fraction(1, 10**9),
    Fraction(1, 1000),
    Fraction(1, 10),
    Fraction(1, 2),
    Fraction(1),
    Fraction(10),
)
CENSUS_TIMES: Final = (0, 1, 3, 10, 30, 100)
HORIZON: Final = 2
SOFT_BITS: Final = 16
"""The longest demonstrators of the census that rule no action out."""
NOVEL_HORIZON: Final = 3
"""Steps of an episode after a novelty."""
ROUNDING_NATS: Final = 1e-12
"""What two KL of float64 tables may differ by though they are equal."""


@unique
class Verdict(Enum):
    """What becomes of `KL(xi||tau) <= KL(xi||xi) + KL(tau||xi)`."""

    INFINITE = "fails by infinity"
    FINITE = "fails by a finite amount"
    HOLDS = "holds"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One demonstrator in one world after k steps.

    Attributes:
        world: the world.
        tau: the demonstrator's program.
        bits: its length.
        n_steps: k.
        tau_to_xi_nats: `KL(tau||xi)`.
        xi_to_tau_nats: `KL(xi||tau)`.
        verdict: what becomes of the triangle inequality.
    """

    world: WorldName
    tau: str
    bits: int
    n_steps: int = field(metadata=json_key("k"))
    tau_to_xi_nats: float = field(metadata=json_key("to"))
    xi_to_tau_nats: float = field(metadata=json_key("from"))
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class Novel:
    """A world's own demonstrator after k steps and a novelty.

    Attributes:
        world: the world.
        n_steps: k.
        tau_to_xi_nats: `KL(tau||xi)`.
        constructed_to_xi_nats: `KL(pi||xi)` of the policy that always takes `BAD`.
        constructed_to_tau_nats: `KL(pi||tau)` of it.
        best_to_xi_nats: `KL(pi||xi)` of the best policy within `KL(tau||xi)`.
        best_to_tau_nats: `KL(pi||tau)` of it.
        best_bad: the probability that it ever takes `BAD`.
        xi_bad: the same for xi.
    """

    world: WorldName
    n_steps: int
    tau_to_xi_nats: float
    constructed_to_xi_nats: float
    constructed_to_tau_nats: float
    best_to_xi_nats: float
    best_to_tau_nats: float
    best_bad: float
    xi_bad: float


@dataclass(frozen=True, kw_only=True)
class Witness:
    """The witness for one epsilon: tau = Bern(0), pi = beta = Bern(min(eps, 1)/2).

    Attributes:
        epsilon: eps in nats.
        one_under_beta: the probability of a 1 under beta.
        pi_to_beta_nats: `KL(pi||beta)`.
        tau_to_beta_nats: `KL(tau||beta)`.
        pi_to_tau_nats: `KL(pi||tau)`.
        both_within: the first two are at most eps, compared as exact sums of logarithms.
    """

    epsilon: Fraction
    one_under_beta: Fraction
    pi_to_beta_nats: float
    tau_to_beta_nats: float
    pi_to_tau_nats: float
    both_within: bool


@dataclass(frozen=True, kw_only=True)
class NoTriangle:
    """The witness, the census, and the worlds' own demonstrators.

    Attributes:
        witnesses: for each of `EPSILONS`.
        cases: of the census.
        novel: for each world, after ever longer demonstrations.
    """

    witnesses: tuple[Witness, ...]
    cases: tuple[Case, ...]
    novel: tuple[Novel, ...]


def no_triangle(
    *,
    census_bits: int,
    demonstrator_bits: int,
    bits: int,
    most_steps: int,
    rng: np.random.Generator,
) -> NoTriangle:
    """Everything.

    Args:
        census_bits: L of the census, at least `SOFT_BITS`.
        demonstrator_bits: of the census's longest demonstrator that rules an action out.
        bits: L for the worlds' own demonstrators.
        most_steps: these are watched for 10, 100, ... steps up to so many.
        rng: draws the demonstrations.
    """
    cases = census(limit_bits=census_bits, demonstrator_bits=demonstrator_bits, rng=rng)
    lengths = [10**j for j in range(1, 1 + int(math.log10(most_steps) + 1e-9))]
    novel = [
        after_a_novelty(name, limit_bits=bits, n_steps=k, rng=rng)
        for name in track(WorldName, "after a novelty", total=len(WorldName))
        for k in lengths
    ]
    return NoTriangle(witnesses=tuple(map(witness, EPSILONS)), cases=cases, novel=tuple(novel))


def witness(epsilon: Fraction) -> Witness:
    """The witness for `epsilon`, worked out exactly."""
    pi_beta, tau_beta, pi_tau = witness_nats(epsilon)
    return Witness(
        epsilon=epsilon,
        one_under_beta=Fraction(no_triangle_witness(epsilon).beta[1]),
        pi_to_beta_nats=float(pi_beta),
        tau_to_beta_nats=float(tau_beta),
        pi_to_tau_nats=float(pi_tau),
        both_within=max(pi_beta, tau_beta) <= epsilon,
    )


def witness_nats(epsilon: Fraction) -> tuple[LogSum, LogSum, LogSum]:
    """`KL(pi||beta)`, `KL(tau||beta)` and `KL(pi||tau)` of the witness, exact."""
    w = no_triangle_witness(epsilon)
    return kl_log_sum(w.pi, w.beta), kl_log_sum(w.tau, w.beta), kl_log_sum(w.pi, w.tau)


def verdict_of(*, tau_to_xi_nats: float, xi_to_tau_nats: float) -> Verdict:
    """What becomes of the triangle inequality; equal KL (but for rounding) satisfy it."""
    if xi_to_tau_nats == math.inf:
        return Verdict.INFINITE
    excess = xi_to_tau_nats - tau_to_xi_nats
    return Verdict.FINITE if excess > ROUNDING_NATS else Verdict.HOLDS


def prior_share(cases: Sequence[Case], verdict: Verdict) -> float:
    """The share of cases with a verdict, demonstrators weighed by `2^-len`."""
    total = math.fsum(2.0**-c.bits for c in cases)
    return math.fsum(2.0**-c.bits for c in cases if c.verdict is verdict) / total


def census(
    *, limit_bits: int, demonstrator_bits: int, rng: np.random.Generator
) -> tuple[Case, ...]:
    """Every short program as demonstrator in every world.

    Args:
        limit_bits: L, at least `SOFT_BITS`.
        demonstrator_bits: of the longest demonstrator that rules an action out.
        rng: draws one demonstration for each pair.
    """
    pairs: list[tuple[WorldName, int, Policy]] = []
    for name in WorldName:
        language = setting_of(name, horizon=1).language
        pairs += [
            (name, bits, tau)
            for bits, tau in language.policies.up_to(SOFT_BITS)
            if bits <= demonstrator_bits or rules_nothing_out(tau, language)
        ]
    cases = []
    for name, bits, tau in track(pairs, "one demonstrator after the other"):
        setting = replace(setting_of(name, horizon=HORIZON), tau=tau)
        mixtures = mixtures_while_watching(
            setting, limit_bits=limit_bits, times=CENSUS_TIMES, rng=rng
        )
        for k, mixture in zip(CENSUS_TIMES, mixtures, strict=True):
            xi = mixture.imitator(update=Update.ALL)
            tau_to_xi = float(expected_kl_nats(mixture.tau, xi, mixture.nu))
            xi_to_tau = float(expected_kl_nats(xi, mixture.tau, mixture.nu))
            cases.append(
                Case(
                    world=name,
                    tau=setting.language.show(tau),
                    bits=bits,
                    n_steps=k,
                    tau_to_xi_nats=tau_to_xi,
                    xi_to_tau_nats=xi_to_tau,
                    verdict=verdict_of(tau_to_xi_nats=tau_to_xi, xi_to_tau_nats=xi_to_tau),
                )
            )
    return tuple(cases)


def rules_nothing_out(tau: Policy, language: Language) -> bool:
    """Whether a program gives every action a chance at every history of two steps."""
    trees = (
        HistoryTree(n_actions=language.n_actions, n_observations=language.n_observations, horizon=m)
        for m in range(1, HORIZON + 1)
    )
    # Most programs are found out at the first step.
    return all((policy_on_tree(tau, tree)[-1] > 0).all() for tree in trees)


def after_a_novelty(
    name: WorldName, *, limit_bits: int, n_steps: int, rng: np.random.Generator
) -> Novel:
    """The three policies after k steps of a world's own demonstrator and a novelty."""
    setting = setting_of(name, horizon=NOVEL_HORIZON)
    mixture = novel_mixture(setting, limit_bits=limit_bits, n_steps=n_steps, rng=rng)
    xi, tau, nu = mixture.imitator(update=Update.ALL), mixture.tau, mixture.nu
    constructed = always_bad(mixture)
    allowed = float(expected_kl_nats(tau, xi, nu))
    tree = HistoryTree(
        n_actions=nu[0].shape[1], n_observations=nu[0].shape[2], horizon=setting.horizon
    )
    utility = utility_table(tree, lambda h: Fraction(h[::2].count(BAD), setting.horizon))
    best = expected_kl_optimum(xi, nu, utility, budget_nats=allowed)
    return Novel(
        world=name,
        n_steps=n_steps,
        tau_to_xi_nats=allowed,
        constructed_to_xi_nats=float(expected_kl_nats(constructed, xi, nu)),
        constructed_to_tau_nats=float(expected_kl_nats(constructed, tau, nu)),
        best_to_xi_nats=best.attained,
        best_to_tau_nats=float(expected_kl_nats(best.pi, tau, nu)),
        best_bad=ever_probability(best.pi, nu, BAD),
        xi_bad=ever_probability(xi, nu, BAD),
    )


def always_bad(mixture: Mixture) -> PolicyTable:
    """The policy that takes `BAD` at every history."""
    return tuple(np.eye(level.shape[1])[np.full(len(level), BAD)] for level in mixture.tau)
