"""Proposition 1: KL obeys no triangle inequality, for every epsilon."""

from dataclasses import replace
from fractions import Fraction
from typing import Any, Final

import sympy as sp

from proofs_check.sabotage import Sabotage, with_result
from proofs_check.symbolic import nonnegative, positive, symbolic
from proofs_check.verdict import (
    Check,
    Effort,
    Kind,
    Mutation,
    Outcome,
    Verdict,
    all_of,
    examine_all,
    verdict_of,
)
from theory import bounds
from theory.log_sum import LogSum, kl_log_sum
from theory.paper import Statement

HALF: Final = sp.Rational(1, 2)


def witness(effort: Effort, *, share: Any = HALF) -> Outcome:
    """`tau = Bern(0)`, `pi = beta = Bern(c min(eps, 1))` with c = 1/2, for all eps > 0.

    `KL(pi||beta) = 0`; `KL(pi||tau) = inf` since pi(1) > 0 = tau(1); and `KL(tau||beta) =
    -ln(1 - c e)` with e = min(eps, 1). It is at most e, hence at most eps, because
    `h(e) = e + ln(1 - c e)` has h(0) = 0 and `h' = (1 - c - c e)/(1 - c e) >= 0` on [0, 1].
    """
    del effort
    # e = 1/(1+u) runs over (0, 1) with u > 0; e = 1 is the limit u -> 0.
    (u,) = positive("u")
    e = sp.Symbol("e", positive=True)
    h = e + sp.log(1 - share * e)
    support = nonnegative((share * e).subs(e, 1 / (1 + u)))  # pi(1) > 0
    return all_of(
        symbolic(h.subs(e, 0)),
        nonnegative(sp.diff(h, e).subs(e, 1 / (1 + u))),
        support,
    )


def implemented_witness(effort: Effort, *, share_of_epsilon: Fraction = Fraction(1)) -> Outcome:
    """What `no_triangle_witness` returns, by exact KL, against `c eps` (c = 1)."""
    del effort

    def decide(epsilon: Fraction) -> Verdict:
        w = bounds.no_triangle_witness(epsilon)
        return verdict_of(
            kl_log_sum(w.pi, w.beta) == 0
            and kl_log_sum(w.tau, w.beta) <= epsilon * share_of_epsilon
            and kl_log_sum(w.pi, w.tau) == LogSum.infinity()
        )

    return examine_all(
        (Fraction(10) ** n for n in range(3, -13, -1)), decide, show=lambda e: f"eps = {e}"
    )


def _twice_as_often(found: bounds.NoTriangleWitness) -> bounds.NoTriangleWitness:
    share = 2 * found.beta[1]
    return replace(found, beta=(1 - share, share), pi=(1 - share, share))


CHECKS: Final = (
    Check(
        label="no-triangle-inequality",
        words="For every eps there are tau, beta, pi with both KLs to beta at most eps and "
        "KL(pi||tau) infinite.",
        formula="tau = Bern(0), pi = beta = Bern(min(eps,1)/2): KL(tau||beta) = "
        "-ln(1 - min(eps,1)/2) <= eps",
        kind=Kind.SYMBOLIC,
        scope="all eps > 0",
        examine=witness,
        mutations=(Mutation(name="min(eps, 1) itself", constants={"share": 1}),),
        statements=(Statement.NO_TRIANGLE,),
    ),
    Check(
        label="no-triangle-witness",
        words="The witness that the toolkit returns is one.",
        formula="KL(pi||beta) = 0, KL(tau||beta) <= eps, KL(pi||tau) = inf",
        kind=Kind.EXHAUSTIVE,
        scope="eps = 10^3, 10^2, ..., 10^-12",
        examine=implemented_witness,
        mutations=(Mutation(name="eps / 2", constants={"share_of_epsilon": Fraction(1, 2)}),),
        statements=(Statement.NO_TRIANGLE,),
        least_informative=16,
        sabotages=(
            Sabotage(
                name="beta takes the risk twice as often",
                owner=bounds,
                attribute="no_triangle_witness",
                fault=with_result(_twice_as_often),
            ),
            Sabotage(
                name="tau is beta",
                owner=bounds,
                attribute="no_triangle_witness",
                fault=with_result(lambda found: replace(found, tau=found.beta)),
            ),
        ),
    ),
)
