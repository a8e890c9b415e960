"""Proposition 1: KL obeys no triangle inequality, for every epsilon."""

from typing import Any, Final

import sympy as sp

from proofs_check.symbolic import nonnegative, positive, symbolic
from proofs_check.verdict import Check, Effort, Kind, Mutation, Outcome, Verdict, all_of
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
        expected=Verdict.HOLDS,
    ),
)
