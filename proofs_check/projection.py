"""The fixed-KL mixture and the geometric projection: shape, optimality, gradients; soft planning.

Linear mixture `x = alpha a + (1 - alpha) b` with `g(alpha) = KL(x||b)`: g(0) = 0, g'(0) = 0,
`g' = sum (a - b) ln(x/b)` for full distributions and `g'' = sum (a - b)^2 / x >= 0`, so g is
convex and increasing and `g(alpha) = k` has one root. By the implicit function theorem
`d alpha/dk = 1/g'` and `d alpha/d a_i = -alpha (ln(x_i/b_i) + 1) / g'`.

Geometric projection `x = a^l b^(1-l) / Z`. For every distribution y,

    l KL(y||a) + (1 - l) KL(y||b) = KL(y||x) - ln Z,

so x alone minimises the left-hand side, and among all y with `KL(y||b) <= KL(x||b)` it has the
least `KL(y||a)`. With `a ∝ b exp(Q)` the same identity is Gibbs' variational formula behind soft
value iteration: `sum y Q - t KL(y||b) = t ln Z - t KL(y||x)` for `x = b exp(Q/t)/Z`.
"""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from importlib.util import find_spec
from itertools import product
from typing import Any, Final

import mpmath
import numpy as np
import sympy as sp

from proofs_check.sabotage import Sabotage, with_result
from proofs_check.symbolic import kl_of, nonnegative, positive, symbolic
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
from theory import projections

N_OUTCOMES: Final = 3
GRADIENT_TOLERANCE: Final = 1e-10
"""Relative; the tenth digit of a derivative is more than any optimiser sees."""
REACH_TOLERANCE: Final = 1e-11
"""The solver promises 1e-12 for rows that are exact; those here are rounded to floats."""


def _distribution(letter: str, size: int = N_OUTCOMES) -> tuple[Any, ...]:
    """Symbols of a full distribution: the last probability is 1 minus the others."""
    free = positive(" ".join(f"{letter}{i}" for i in range(size - 1)))
    return (*free, 1 - sum(free))


def _weights(letter: str, size: int = N_OUTCOMES) -> tuple[Any, ...]:
    """A full distribution as positive weights over their sum, so that signs can be decided."""
    free = positive(" ".join(f"{letter}{i}" for i in range(size)))
    return tuple(w / sum(free) for w in free)


def mixture_derivatives(effort: Effort, *, constant: int = 0, second_power: int = 2) -> Outcome:
    """`g' = c + sum (a-b) ln(x/b)` with c = 0, `g'' = sum |a-b|^2/x >= 0`, `g(0) = g'(0) = 0`."""
    size = 2 if effort is Effort.SMALLEST else N_OUTCOMES
    alpha = sp.Symbol("alpha", positive=True)
    a, b = _distribution("a", size), _distribution("b", size)
    x = [alpha * a_i + (1 - alpha) * b_i for a_i, b_i in zip(a, b, strict=True)]
    g = kl_of(x, b)
    slope = constant + sum(
        (a_i - b_i) * sp.log(x_i / b_i) for a_i, b_i, x_i in zip(a, b, x, strict=True)
    )
    curvature = sum(
        (a_i - b_i) ** second_power / x_i for a_i, b_i, x_i in zip(a, b, x, strict=True)
    )
    beta = sp.Symbol("beta", positive=True)
    positive_x = {alpha: 1 / (1 + beta)}  # 0 < alpha < 1
    by_weights = [
        (u - v) ** 2 / (positive_x[alpha] * u + (1 - positive_x[alpha]) * v)
        for u, v in zip(_weights("u", 2), _weights("v", 2), strict=True)
    ]
    return all_of(
        symbolic(sp.diff(g, alpha) - slope),
        symbolic(sp.diff(g, alpha, 2) - curvature),
        symbolic(g.subs(alpha, 0)),
        symbolic(slope.subs(alpha, 0)),
        *(nonnegative(term) for term in by_weights),
    )


def implicit_gradients(effort: Effort, *, sign: int = -1) -> Outcome:
    """`d alpha/d a_i = -alpha (ln(x_i/b_i) + 1)/g'` and `d alpha/dk = 1/g'`, by differentiation.

    The root is a function alpha(k, a_0 ...); differentiating `g(alpha(k, a), a) = k` and solving
    is compared with the formulas; each a_i is a free coordinate, as for autograd.
    """
    del effort
    a = positive("a0 a1")
    b = positive("b0 b1")
    alpha = sp.Symbol("alpha", positive=True)
    x = [alpha * a_i + (1 - alpha) * b_i for a_i, b_i in zip(a, b, strict=True)]
    g = kl_of(x, b)
    slope = sp.diff(g, alpha)
    gaps = [
        -sp.diff(g, a_i) / slope - sign * alpha * (sp.log(x_i / b_i) + 1) / slope
        for a_i, b_i, x_i in zip(a, b, x, strict=True)
    ]
    return all_of(*(symbolic(sp.simplify(gap * slope)) for gap in gaps))


def operator_gradients(effort: Effort, *, scale: float = 1.0) -> Outcome:
    """Gradients of the mixture weight by torch against the implicit formulas.

    On a fixed grid of rational a, b, k; both sides in float64, to 1e-10 relative. The formulas
    are sympy's derivative of the implicit equation, evaluated at 50 digits.
    """
    if find_spec("torch") is None:
        return Outcome(
            verdict=Verdict.UNDECIDED,
            cases=1,
            vacuous=1,
            note="needs torch, which the core does without: pip install 'mightnt[experiment]'",
        )
    pairs = _rational_pairs()[: 2 if effort is Effort.SMALLEST else None]
    worst = 0.0
    for a, b, k in pairs:
        ours = _autograd(a, b, k)
        reference = scale * _implicit(a, b, k)
        worst = max(worst, float(np.abs(ours - reference).max() / np.abs(reference).max()))
    found = f"largest relative gap {worst:.1e}"
    holds = worst <= GRADIENT_TOLERANCE
    return Outcome(
        verdict=verdict_of(holds),
        cases=len(pairs),
        note=found if holds else "",
        counterexample="" if holds else found,
    )


def _rational_pairs() -> list[tuple[list[Fraction], list[Fraction], Fraction]]:
    rows = [[1, 2, 5], [4, 3, 1], [1, 1, 1], [1, 10, 100]]
    distributions = [[Fraction(entry, sum(row)) for entry in row] for row in rows]
    return [
        (a, b, k)
        for a in distributions
        for b in distributions
        if a != b
        for k in (Fraction(1, 20), Fraction(1, 1000))
    ]


def _autograd(a: list[Fraction], b: list[Fraction], k: Fraction) -> Any:
    """Jacobian of alpha with respect to `(log a_0 .. log a_2, k)`, by torch."""
    import torch  # noqa: PLC0415 - the core does without it

    log_a = torch.tensor([float(v) for v in a], dtype=torch.float64).log().requires_grad_()
    log_b = torch.tensor([float(v) for v in b], dtype=torch.float64).log()
    kl = torch.tensor(float(k), dtype=torch.float64, requires_grad=True)
    normalised = torch.log_softmax(log_a, dim=-1)
    weight = projections.fixed_kl_mixture(normalised, log_b, kl).weight
    gradients = torch.autograd.grad(weight, (log_a, kl))
    return np.append(gradients[0].numpy(), gradients[1].numpy())


def _implicit(a: list[Fraction], b: list[Fraction], k: Fraction) -> Any:
    """The same Jacobian from the implicit function theorem, by sympy at 50 digits."""
    logits = sp.symbols("l0:3", real=True)
    alpha = sp.Symbol("alpha", positive=True)
    total = sum(sp.exp(logit) for logit in logits)
    base = [sp.Rational(v.numerator, v.denominator) for v in b]
    x = [
        alpha * sp.exp(logit) / total + (1 - alpha) * b_i
        for logit, b_i in zip(logits, base, strict=True)
    ]
    g = kl_of(x, base)
    at = {
        logit: sp.log(sp.Rational(v.numerator, v.denominator))
        for logit, v in zip(logits, a, strict=True)
    }
    equation = sp.lambdify(alpha, g.subs(at) - sp.Rational(k.numerator, k.denominator), "mpmath")
    with mpmath.workdps(50):
        root = mpmath.findroot(equation, (mpmath.mpf("1e-6"), mpmath.mpf(1)), solver="anderson")
    at[alpha] = sp.Float(str(root), 45)
    slope = sp.N(sp.diff(g, alpha).subs(at), 40)
    gradients = [-sp.N(sp.diff(g, logit).subs(at), 40) / slope for logit in logits]
    return np.array([float(value) for value in (*gradients, 1 / slope)])


def projections_reach(effort: Effort, *, stretch: float = 1.0) -> Outcome:
    """`KL(x||b) = c min(k, KL(a||b))` at the weight returned, for both projections (c = 1).

    KL and x are computed from the weight at 50 digits; compared to 1e-11.
    """
    pairs = _rational_pairs()[: 4 if effort is Effort.SMALLEST else None]
    far = [(a, b, Fraction(9)) for a, b, _ in pairs[::2]]
    paths = (
        (projections.fixed_kl_mixture, lambda a, b, weight: weight * a + (1 - weight) * b),
        (projections.geometric_projection, lambda a, b, weight: a**weight * b ** (1 - weight)),
    )

    def decide(case: Any) -> Verdict:
        (a, b, k), (project, between) = case
        log_a, log_b = (np.log(np.array(row, dtype=np.float64)) for row in (a, b))
        found = project(log_a, log_b, np.array(float(k)))
        with mpmath.workdps(50):
            weight, *rows = mpmath.mpf(float(found.weight)), _high(a), _high(b)
            masses = [between(a_i, b_i, weight) for a_i, b_i in zip(*rows, strict=True)]
            x = [mass / sum(masses) for mass in masses]
            target = min(_high([k])[0], _kl(*rows)) * stretch
            right = abs(_kl(x, rows[1]) - target) <= REACH_TOLERANCE * target and all(
                abs(mpmath.log(x_i) - float(log_x)) <= REACH_TOLERANCE
                for x_i, log_x in zip(x, found.log_x, strict=True)
            )
        return verdict_of(bool(right))

    return examine_all(
        product([*pairs, *far], paths),
        decide,
        show=lambda case: f"(a, b, k) = {case[0]}, {case[1][0].__name__}",
    )


def _high(row: Sequence[Fraction]) -> list[Any]:
    return [mpmath.mpf(v.numerator) / v.denominator for v in row]


def _kl(p: Sequence[Any], q: Sequence[Any]) -> Any:
    return sum(p_i * mpmath.log(p_i / q_i) for p_i, q_i in zip(p, q, strict=True))


def geometric_identity(effort: Effort, *, with_log_z: int = 1) -> Outcome:
    """`l KL(y||a) + (1-l) KL(y||b) - KL(y||x) + ln Z = 0` for every distribution y."""
    size = 2 if effort is Effort.SMALLEST else N_OUTCOMES
    share = sp.Symbol("l", positive=True)
    a, b = (
        positive(" ".join(f"a{i}" for i in range(size))),
        positive(" ".join(f"b{i}" for i in range(size))),
    )
    y = _distribution("y", size)
    z = sp.Symbol("Z", positive=True)
    x = [a_i**share * b_i ** (1 - share) / z for a_i, b_i in zip(a, b, strict=True)]
    left = share * kl_of(y, a) + (1 - share) * kl_of(y, b)
    return symbolic(left - kl_of(y, x) + with_log_z * sp.log(z))


def gibbs_variational_formula(effort: Effort, *, temperature_factor: int = 1) -> Outcome:
    """`sum y Q - t KL(y||b) = t ln Z - t KL(y||x)` for every y, with `x = b exp(Q/t)/Z`."""
    size = 2 if effort is Effort.SMALLEST else N_OUTCOMES
    t, z = positive("t Z")
    q = sp.symbols(f"Q0:{size}", real=True)
    b = positive(" ".join(f"b{i}" for i in range(size)))
    y = _distribution("y", size)
    x = [b_i * sp.exp(q_i / t) / z for b_i, q_i in zip(b, q, strict=True)]
    left = sum(y_i * q_i for y_i, q_i in zip(y, q, strict=True)) - t * kl_of(y, b)
    return symbolic(left - temperature_factor * t * sp.log(z) + t * kl_of(y, x))


def attained_kl_increases(effort: Effort, *, power: int = 2) -> Outcome:
    """`d KL(x_l||b)/dl = l Var_x(r)` for `x_l = b exp(l r)/Z`, `r = ln(a/b)`.

    A constant in r changes nothing, so the first log-ratio is 0.
    """
    size = 2 if effort is Effort.SMALLEST else N_OUTCOMES
    (share,) = positive("l")
    b = positive(" ".join(f"b{i}" for i in range(size)))
    ratios = (sp.Integer(0), *sp.symbols(f"r1:{size}", real=True))
    masses = [b_i * sp.exp(share * r) for b_i, r in zip(b, ratios, strict=True)]
    z = sum(masses)
    x = [mass / z for mass in masses]
    kl = sum(x_i * (share * r - sp.log(z)) for x_i, r in zip(x, ratios, strict=True))
    mean = sum(x_i * r for x_i, r in zip(x, ratios, strict=True))
    variance = sum(x_i * (r - mean) ** power for x_i, r in zip(x, ratios, strict=True))
    return symbolic(sp.diff(kl, share) - share * variance)


CHECKS: Final = (
    Check(
        label="mixture-convex",
        words="The KL of the mixture to the base is 0 with slope 0 at alpha = 0, and convex and "
        "increasing in alpha.",
        formula="g' = sum (a-b) ln(x/b), g'' = sum (a-b)^2/x >= 0, g(0) = g'(0) = 0",
        kind=Kind.SYMBOLIC,
        scope="all full-support a, b of 3 outcomes; the sums are termwise in general",
        examine=mixture_derivatives,
        mutations=(
            Mutation(name="slope off by 1", constants={"constant": 1}),
            Mutation(name="third power", constants={"second_power": 3}),
        ),
    ),
    Check(
        label="mixture-implicit-gradient",
        words="The implicit function theorem gives the mixture weight's gradient.",
        formula="d alpha/d a_i = -alpha (ln(x_i/b_i) + 1) / g'(alpha)",
        kind=Kind.SYMBOLIC,
        scope="2 outcomes, each a_i free",
        examine=implicit_gradients,
        mutations=(Mutation(name="sign", constants={"sign": 1}),),
    ),
    Check(
        label="mixture-autograd",
        words="torch's gradients of the mixture weight are those of the implicit equation.",
        formula="|autograd - implicit| <= 1e-10 max |implicit|",
        kind=Kind.NUMERIC,
        scope="24 rational (a, b, k) with 3 outcomes; float64 against 50 digits, to 1e-10 relative",
        examine=operator_gradients,
        mutations=(Mutation(name="1% larger", constants={"scale": 1.01}),),
        least_informative=2,
        sabotages=(
            Sabotage(
                name="a weight, and with it its gradient, 1% larger",
                owner=projections,
                attribute="fixed_kl_mixture",
                fault=with_result(lambda x: replace(x, weight=1.01 * x.weight)),
            ),
            Sabotage(
                name="twice the target",
                owner=projections,
                attribute="fixed_kl_mixture",
                fault=lambda original: lambda a, b, k: original(a, b, 2 * k),
            ),
        ),
    ),
    Check(
        label="projections-reach",
        words="The toolkit's mixture and geometric projection have the KL that was asked for, or "
        "are the proposal where that is nearer.",
        formula="|KL(x||b) - min(k, KL(a||b))| <= 1e-11 KL, |log x - log x(weight)| <= 1e-11",
        kind=Kind.NUMERIC,
        scope="36 rational (a, b, k) with 3 outcomes, both projections; float64 against 50 digits",
        examine=projections_reach,
        least_informative=8,
        mutations=(Mutation(name="a millionth more", constants={"stretch": 1 + 1e-6}),),
        sabotages=tuple(
            Sabotage(name=f"{what}, {path}", owner=projections, attribute=path, fault=fault)
            for path in ("fixed_kl_mixture", "geometric_projection")
            for what, fault in (
                (
                    "a weight too large",
                    with_result(lambda x: replace(x, weight=x.weight * (1 + 1e-6))),
                ),
                (
                    "log-probabilities too large",
                    with_result(lambda x: replace(x, log_x=x.log_x + 1e-6)),
                ),
                (
                    "half the target",
                    lambda original: lambda a, b, k: original(a, b, k / 2),
                ),
            )
        ),
    ),
    Check(
        label="geometric-projection",
        words="The geometric mixture is the information projection: the identity that makes it "
        "the only minimiser of KL(y||a) under a bound on KL(y||b).",
        formula="l KL(y||a) + (1-l) KL(y||b) = KL(y||x) - ln Z, x = a^l b^(1-l)/Z",
        kind=Kind.SYMBOLIC,
        scope="all y, all positive a and b, of 3 outcomes",
        examine=geometric_identity,
        mutations=(Mutation(name="ln Z dropped", constants={"with_log_z": 0}),),
    ),
    Check(
        label="geometric-monotone",
        words="The KL attained along the geometric path increases, at a rate that is the "
        "variance of the log-ratio.",
        formula="d KL(x_l||b)/dl = l Var_x(ln(a/b))",
        kind=Kind.SYMBOLIC,
        scope="all positive b, all log-ratios, of 3 outcomes",
        examine=attained_kl_increases,
        mutations=(Mutation(name="third moment", constants={"power": 3}),),
    ),
    Check(
        label="gibbs-variational-formula",
        words="Gibbs' variational formula, behind soft value iteration.",
        formula="sum y Q - t KL(y||b) = t ln Z - t KL(y||x), x = b exp(Q/t)/Z",
        kind=Kind.SYMBOLIC,
        scope="all y, Q and t > 0, of 3 outcomes",
        examine=gibbs_variational_formula,
        mutations=(Mutation(name="2 t ln Z", constants={"temperature_factor": 2}),),
    ),
)
