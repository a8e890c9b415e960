"""Divergences and paths in 60-digit arithmetic, from the definitions: the tests' oracle.

Rows are float log-probabilities, taken as exact and, unless said otherwise, normalised exactly.
"""

import mpmath

DIGITS = 60


def probabilities(log_p, *, normalise=True):
    """exp(log_p), divided by its sum if `normalise`."""
    with mpmath.workdps(DIGITS):
        p = [mpmath.exp(mpmath.mpf(float(entry))) for entry in log_p]
        total = mpmath.fsum(p) if normalise else 1
        return [entry / total for entry in p]


def kl(p, q):
    """`sum p log(p/q)`."""
    with mpmath.workdps(DIGITS):
        if any(a > 0 == b for a, b in zip(p, q, strict=True)):
            return mpmath.inf
        return mpmath.fsum(a * mpmath.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def tvd(p, q):
    """`1/2 sum |p - q|`."""
    with mpmath.workdps(DIGITS):
        return mpmath.fsum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2


def chi_squared(p, q):
    """`sum (p - q)^2 / q`."""
    with mpmath.workdps(DIGITS):
        if any(a > 0 == b for a, b in zip(p, q, strict=True)):
            return mpmath.inf
        return mpmath.fsum((a - b) ** 2 / b for a, b in zip(p, q, strict=True) if b > 0)


def renyi(p, q, order):
    """`log(sum p^order q^(1-order) / sum p) / (order - 1)`, with its limits."""
    with mpmath.workdps(DIGITS):
        pairs = list(zip(p, q, strict=True))
        mass = mpmath.fsum(p)
        if order == 1:
            return kl(p, q) / mass
        if order > 1 and any(a > 0 == b for a, b in pairs):
            return mpmath.inf
        if order == mpmath.inf:
            return max(mpmath.log(a / b) for a, b in pairs if a > 0)
        a = mpmath.mpf(order)
        total = mpmath.fsum(x**a * y ** (1 - a) for x, y in pairs if x > 0 and y > 0)
        return mpmath.inf if total == 0 else mpmath.log(total / mass) / (a - 1)


def mixture(a, b, alpha):
    """`alpha a + (1 - alpha) b` with a projected onto the support of b."""
    with mpmath.workdps(DIGITS):
        alpha = mpmath.mpf(float(alpha))
        return [alpha * x + (1 - alpha) * y for x, y in zip(projected(a, b), b, strict=True)]


def tilted(a, b, weight):
    """`a^weight b^(1-weight)`, normalised, for 0 < weight."""
    with mpmath.workdps(DIGITS):
        weight = mpmath.mpf(float(weight))
        x = [
            p**weight * q ** (1 - weight) if p > 0 and q > 0 else mpmath.mpf(0)
            for p, q in zip(a, b, strict=True)
        ]
        total = mpmath.fsum(x)
        return [entry / total for entry in x]


def projected(a, b):
    """`a` on the support of `b`, normalised."""
    with mpmath.workdps(DIGITS):
        inside = [x if y > 0 else mpmath.mpf(0) for x, y in zip(a, b, strict=True)]
        total = mpmath.fsum(inside)
        return [entry / total for entry in inside]
