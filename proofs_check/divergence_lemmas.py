"""Chain rule, convexity, data processing, Pinsker and Bretagnolle-Huber, for all values.

A divergence lemma about d outcomes is reduced to an identity or to a sign in one or two symbols:

- *Joint convexity* of `(p, q) -> p ln(p/q)`: its Hessian has determinant 0 and a positive entry
  on the diagonal, so it is positive semi-definite; a sum over outcomes stays convex.
- *Data processing*: merging two outcomes cannot raise the KL. `f(p, q) = p ln(p/q)` is convex
  and homogeneous of degree 1, so `f(p_1 + p_2, q_1 + q_2) <= f(p_1, q_1) + f(p_2, q_2)`; every
  deterministic coarsening is a sequence of such merges, and a stochastic one is a coarsening of
  the joint law with its own noise.
- *Pinsker* and *Bretagnolle-Huber* for two outcomes: the difference of the sides vanishes at
  q = p and its derivative in q has the sign of q - p. Any pair of distributions is reduced to
  two outcomes, keeping TVD, by merging {p > q} and {p <= q}, which by data processing only
  lowers KL.
"""

import math
from fractions import Fraction
from itertools import product
from typing import Any, Final

import numpy as np
import sympy as sp

from proofs_check.finite_classes import Row, distributions
from proofs_check.sabotage import Sabotage, with_result
from proofs_check.symbolic import kl_of, nonnegative, positive, refute, symbolic
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
from theory import divergences
from theory.log_sum import kl_log_sum


def chain_rule(effort: Effort, *, weight_of_second_step: int = 1) -> Outcome:
    """The KL of a joint law of two symbols, minus the first step's and the expected second's."""
    size = 2 if effort is Effort.SMALLEST else 3
    outcomes = range(size)
    p = positive(" ".join(f"p{i}" for i in outcomes))
    q = positive(" ".join(f"q{i}" for i in outcomes))
    r = [positive(" ".join(f"r{i}{j}" for j in range(2))) for i in outcomes]
    s = [positive(" ".join(f"s{i}{j}" for j in range(2))) for i in outcomes]
    r = [(row[0], 1 - row[0]) for row in r]
    s = [(row[0], 1 - row[0]) for row in s]
    joint = kl_of(
        [p[i] * r[i][j] for i in outcomes for j in range(2)],
        [q[i] * s[i][j] for i in outcomes for j in range(2)],
    )
    second = sum(p[i] * kl_of(r[i], s[i]) for i in outcomes)
    return symbolic(joint - kl_of(p, q) - weight_of_second_step * second)


def joint_convexity(effort: Effort, *, power_of_q: int = 1) -> Outcome:
    """The Hessian of `p ln(p / q^c)` is positive semi-definite (c = 1)."""
    del effort
    p, q = positive("p q")
    hessian = sp.hessian(p * sp.log(p / q**power_of_q), (p, q))
    return all_of(nonnegative(hessian[0, 0]), nonnegative(sp.simplify(hessian.det())))


def data_processing(effort: Effort, *, degree: int = 1) -> Outcome:
    """`f(p, q) = p ln(p/q)` is homogeneous of degree 1; with convexity, subadditive.

    Convex and homogeneous: `f(u + v) = 2 f((u + v)/2) <= f(u) + f(v)`.
    """
    scale, p, q = positive("s p q")
    f = p * sp.log(p / q)
    scaled = f.subs({p: scale * p, q: scale * q}, simultaneous=True)
    return all_of(symbolic(scaled - scale**degree * f), joint_convexity(effort))


def _below_binary_kl(bound: Any, p: Any, q: Any, *, extra_factor: Any) -> Outcome:
    """`KL(Bern p || Bern q) - bound` is 0 at q = p, and its q-derivative is (q - p) times >= 0."""
    difference = kl_of((p, 1 - p), (q, 1 - q)) - bound
    slope = sp.simplify(sp.diff(difference, q) * extra_factor / (q - p))
    # 0 < p, q < 1 as assumptions: p = 1/(1+u), q = 1/(1+v) with u, v > 0.
    u, v = positive("u v")
    into_the_unit_square = {p: 1 / (1 + u), q: 1 / (1 + v)}
    proof = all_of(symbolic(difference.subs(q, p)), nonnegative(slope.subs(into_the_unit_square)))
    if proof.verdict is Verdict.HOLDS:
        return proof
    # That the sufficient condition fails refutes nothing: look for a point below the bound.
    return refute(difference.subs(into_the_unit_square), lambda x: x < 0, "negative", proof.cases)


def pinsker(effort: Effort, *, constant: Any = 2) -> Outcome:
    """`KL >= 2 TVD^2` for two outcomes, where TVD = |p - q|."""
    del effort
    p, q = positive("p q")
    return _below_binary_kl(constant * (p - q) ** 2, p, q, extra_factor=1)


def bretagnolle_huber(effort: Effort, *, constant: Any = 1) -> Outcome:
    """`KL >= -c ln(1 - TVD^2)` for two outcomes (c = 1).

    The slope is multiplied by `1 - (p - q)^2 > 0`, which leaves a polynomial over q (1 - q).
    """
    del effort
    p, q = positive("p q")
    gap = 1 - (p - q) ** 2
    return _below_binary_kl(-constant * sp.log(gap), p, q, extra_factor=gap)


def divergences_in_floats(effort: Effort, *, stretch: Fraction = Fraction(1)) -> Outcome:
    """`kl_nats` and `tvd` of every pair of rational rows, against c times the exact ones (c = 1).

    To 1e-14, absolute; infinite where the exact KL is.
    """
    rows = distributions(3, 3 if effort is Effort.SMALLEST else 5)
    tolerance = Fraction(1, 10**14)

    def decide(case: tuple[Row, Row]) -> Verdict:
        p, q = case
        with np.errstate(divide="ignore"):
            log_p, log_q = (np.log(np.array(row, dtype=np.float64)) for row in case)
        kl, distance = divergences.kl_nats(log_p, log_q), divergences.tvd(log_p, log_q)
        exact = kl_log_sum(p, q) * stretch
        exact_distance = stretch * sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2
        right = abs(Fraction(float(distance)) - exact_distance) <= tolerance
        if exact.is_infinite or math.isinf(kl):
            right = right and exact.is_infinite and math.isinf(kl)
        else:
            right = right and abs(Fraction(float(kl)) - Fraction(float(exact))) <= tolerance
        return Verdict.VACUOUS if right and p == q else verdict_of(right)

    return examine_all(product(rows, repeat=2), decide, show=lambda c: f"p = {c[0]}, q = {c[1]}")


CHECKS: Final = (
    Check(
        label="divergences-in-floats",
        words="The toolkit's KL and TVD of float rows are the exact ones.",
        formula="|kl_nats(p, q) - sum p ln(p/q)| <= 1e-14, |tvd(p, q) - sum |p-q|/2| <= 1e-14",
        kind=Kind.NUMERIC,
        scope="every pair of laws of 3 outcomes in fifths; against exact sums of logarithms",
        examine=divergences_in_floats,
        least_informative=90,
        mutations=(
            Mutation(name="a millionth more", constants={"stretch": 1 + Fraction(1, 10**6)}),
        ),
        sabotages=(
            Sabotage(
                name="half the KL",
                owner=divergences,
                attribute="kl_nats",
                fault=with_result(lambda kl: kl / 2),
            ),
            Sabotage(
                name="the KL the other way round",
                owner=divergences,
                attribute="kl_nats",
                fault=lambda original: lambda log_p, log_q: original(log_q, log_p),
            ),
            Sabotage(
                name="the sum of distances without its half",
                owner=divergences,
                attribute="tvd",
                fault=with_result(lambda tvd: 2 * tvd),
            ),
        ),
    ),
    Check(
        label="kl-chain-rule",
        words="The KL of a joint law is that of the first symbol plus the expected KL of the "
        "second given the first.",
        formula="KL(p(x,y)||q(x,y)) = KL(p(x)||q(x)) + sum_x p(x) KL(p(y|x)||q(y|x))",
        kind=Kind.SYMBOLIC,
        scope="full-support laws, 3 outcomes, then 2; longer ones by induction",
        examine=chain_rule,
        mutations=(Mutation(name="second step dropped", constants={"weight_of_second_step": 0}),),
    ),
    Check(
        label="kl-joint-convexity",
        words="KL is jointly convex in its two arguments.",
        formula="Hessian of p ln(p/q) >= 0",
        kind=Kind.SYMBOLIC,
        scope="all p, q > 0",
        examine=joint_convexity,
        mutations=(Mutation(name="q squared", constants={"power_of_q": 2}),),
    ),
    Check(
        label="kl-data-processing",
        words="Merging outcomes never raises the KL.",
        formula="f(p1+p2, q1+q2) <= f(p1,q1) + f(p2,q2), f = p ln(p/q)",
        kind=Kind.SYMBOLIC,
        scope="all positive masses",
        examine=data_processing,
        mutations=(Mutation(name="homogeneous of degree 2", constants={"degree": 2}),),
    ),
    Check(
        label="pinsker",
        words="Pinsker's inequality, with its constant.",
        formula="KL(p||q) >= 2 TVD(p,q)^2",
        kind=Kind.SYMBOLIC,
        scope="all pairs of full support; reduced to two outcomes by data processing",
        examine=pinsker,
        mutations=(
            Mutation(name="2.05 for 2", constants={"constant": sp.Rational(41, 20)}),
            Mutation(name="4 for 2", constants={"constant": 4}),
        ),
    ),
    Check(
        label="bretagnolle-huber",
        words="The Bretagnolle-Huber inequality, which says something at every KL.",
        formula="KL(p||q) >= -ln(1 - TVD(p,q)^2)",
        kind=Kind.SYMBOLIC,
        scope="all pairs of full support; reduced to two outcomes by data processing",
        examine=bretagnolle_huber,
        mutations=(
            Mutation(name="1.2 for 1", constants={"constant": sp.Rational(6, 5)}),
            Mutation(name="3 for 1", constants={"constant": 3}),
        ),
    ),
)
