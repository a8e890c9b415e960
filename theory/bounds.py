"""The right-hand sides of the statements, with what a finite mixture adds to them.

Units are in the names; 1 bit is ln 2 nats. Statements are cited by label (`theory.paper`).

**Statement.LITTLE_CONSTRAINT.** With `Delta` bits for the switch, its event and what follows it,
and `rho` the posterior mass of the programs whose switched versions are in the mixture too, every
continuation satisfies `prod_j xi(a_j|h_j) >= 2^-Delta rho prod_j pi(a_j|h_j)`, if xi is a policy
mixture updated by every action. Hence `KL(pi||xi) <= Delta ln 2 - ln rho` in every reading. The
printed bound divides by `ln 2` where the proof multiplies: true, and looser by `1/(ln 2)^2`.
If xi is a *joint predictor* the bound holds as it stands only with observations drawn from `xi~`,
here the mixture of the credited programs (those of rho) alone, whose switched versions must
predict observations as they do (see bayes_mixture.py); from an environment e it gains
`-ln w~(e)`; with the worst observations it fails for arbitrary finite classes of models (for a
universal class it is open). Three families show by how much, of models that agree with pi = "never
deviate" until they deviate, and switched copies of them, `2^-Delta` as heavy, that never do; a
further model that follows pi and expects any observation mends some of them:

- one of n models deviates at each step and the observation before it points at that model, each
  pointing much harder than the one before: `n ln(1 + 2^Delta)` in the limit;
- the same with equally hard pointers: `sum_{i<=n} ln(1 + 2^Delta / i)` in the limit;
- half of 2^n models deviate at each step and the observation after it says which half a model is
  in; expected under observations from xi itself.

The third term of its printed bound is `K(v xi(h))`. v is free below `V*`, so
`v xi(h) = m 2^-j` may be chosen with an n-bit m. Lengths are those of Elias' delta code, a
computable stand-in for K (so an upper bound, up to a constant).

**Statement.TOP_SET, NOTHING_UNPRECEDENTED, LIMITED_QUERYING.** The size of the top set, Ville's
inequality, and the bound on asking for help, which is quoted and not proved.

**Budgets.** The largest probability that a KL budget lets an event have.
"""

import math
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from theory.arguments import (
    check_alpha,
    check_bits,
    check_budget,
    check_count,
    check_log_probability,
    check_positive_probability,
    check_probability,
)
from theory.errors import InvalidArgumentError
from theory.log_sum import LogSum, kl_log_sum
from theory.process import Probability

NATS_PER_BIT: Final = math.log(2)


@dataclass(frozen=True, kw_only=True)
class Theorem1Bound:
    """`KL(pi||xi) <= Delta ln 2 - ln rho` (Statement.LITTLE_CONSTRAINT, finite form).

    Attributes:
        delta_bits: `c + len(E) + len(pi)`, what switching adds to a program.
        log_rho: `ln rho <= 0`, rho the posterior mass of the programs that have a switched
            version in the mixture; 0 for a mixture closed under switching, -inf if none has.

    Example:
        >>> from theory import Theorem1Bound
        >>> bound = Theorem1Bound(delta_bits=20)
        >>> round(bound.bound_nats, 2)  # 20 ln 2
        13.86
        >>> round(bound.bound_as_printed_nats, 2)  # 20 / ln 2
        28.85
    """

    delta_bits: float
    log_rho: float = 0.0

    def __post_init__(self) -> None:
        check_bits(delta_bits=self.delta_bits)
        check_log_probability(log_rho=self.log_rho)

    @property
    def truncation_nats(self) -> float:
        """`-ln rho`, the price of enumerating programs up to a length only."""
        return -self.log_rho

    @property
    def bound_nats(self) -> float:
        """`Delta ln 2 - ln rho`, what the proof gives."""
        return self.delta_bits * NATS_PER_BIT + self.truncation_nats

    @property
    def bound_bits(self) -> float:
        """The same in bits, `Delta - log2 rho`."""
        return self.bound_nats / NATS_PER_BIT

    @property
    def bound_as_printed_nats(self) -> float:
        """`Delta / ln 2 - ln rho`: the printed factor, with the same truncation."""
        return self.delta_bits / NATS_PER_BIT + self.truncation_nats

    def expected_bound_nats(self, *, log_environment_weight: float) -> float:
        """For a joint predictor, expected over observations from an environment e.

        Args:
            log_environment_weight: `ln w~(e)`, w~(e) being the initial weight in xi~ of the
                models whose observations follow e; 0 for observations drawn from xi~.

        Returns:
            `Delta ln 2 - ln rho - ln w~(e)`, because `KL(e||xi~) <= -ln w~(e)` and
            `KL(e||xi) >= 0`.
        """
        check_log_probability(log_environment_weight=log_environment_weight)
        return self.bound_nats - log_environment_weight


def theorem1_factor(*, delta_bits: int, rho: Fraction) -> Fraction:
    """`2^-Delta rho`: what `prod_j xi(a_j|h_j)` is at least, in units of `prod_j pi(a_j|h_j)`.

    Args:
        delta_bits: an integer >= 0.
        rho: a posterior mass in [0, 1].

    Example:
        >>> from fractions import Fraction
        >>> from theory import theorem1_factor
        >>> theorem1_factor(delta_bits=3, rho=Fraction(1, 2))
        Fraction(1, 16)
    """
    check_count(**{"delta_bits + 1": delta_bits + 1})
    check_probability(rho=rho)
    return rho * Fraction(1, 2**delta_bits)


def pointed_deviators_nats(*, n: int, delta_bits: float) -> float:
    """`n ln(1 + 2^Delta)`: the fixed-observations KL to a joint predictor, first family.

    Example:
        >>> from theory import pointed_deviators_nats
        >>> round(pointed_deviators_nats(n=4, delta_bits=1), 4)  # 4 ln 3
        4.3944
    """
    check_count(n=n)
    check_bits(delta_bits=delta_bits)
    return n * float(np.logaddexp(0.0, delta_bits * NATS_PER_BIT))


def equally_pointed_deviators_nats(*, n: int, delta_bits: float) -> float:
    """`sum_{i<=n} ln(1 + 2^Delta / i)`: the same for the second family.

    Example:
        >>> from theory import equally_pointed_deviators_nats
        >>> round(equally_pointed_deviators_nats(n=2, delta_bits=1), 4)  # ln 3 + ln 2
        1.7918
    """
    check_count(n=n)
    check_bits(delta_bits=delta_bits)
    log_i = np.log(np.arange(1, n + 1))
    return math.fsum(np.logaddexp(0.0, delta_bits * NATS_PER_BIT - log_i))


def halving_deviators_nats(*, n: int, delta_bits: float) -> float:
    """The expected KL to a joint predictor, observations drawn from itself, third family.

    As long as the observations point at those who have not deviated, which happens with
    probability `(1 + eps) / (1 + 2 eps)` each step, eps = 2^-Delta, a step costs
    `ln((1 + eps) / (1/2 + eps))`; once they do not, only the switched copies are left.

    Example:
        >>> from theory import halving_deviators_nats
        >>> round(halving_deviators_nats(n=1, delta_bits=0), 4)  # ln(2 / 1.5)
        0.2877
    """
    check_count(n=n)
    check_bits(delta_bits=delta_bits)
    eps = 2.0**-delta_bits
    stay = (1 + eps) / (1 + 2 * eps)
    return math.log((1 + eps) / (0.5 + eps)) * math.fsum(stay**i for i in range(n))


@dataclass(frozen=True, kw_only=True)
class NoTriangleWitness:
    """Three Bernoulli policies without a triangle inequality (Statement.NO_TRIANGLE).

    `KL(pi||beta) = 0` and `KL(tau||beta) = -ln(1 - min(eps,1)/2) <= eps`, and yet
    `KL(pi||tau) = inf`. Each row is (probability of 0, probability of 1).

    Example:
        >>> from fractions import Fraction
        >>> from theory import kl_log_sum, no_triangle_witness
        >>> found = no_triangle_witness(Fraction(1, 2))
        >>> print(kl_log_sum(found.tau, found.beta))  # ln(4/3)
        2 ln 2 - ln 3
        >>> print(kl_log_sum(found.pi, found.beta), kl_log_sum(found.pi, found.tau))
        0 inf
    """

    tau: tuple[Fraction, Fraction]
    beta: tuple[Fraction, Fraction]
    pi: tuple[Fraction, Fraction]


def no_triangle_witness(epsilon: Probability) -> NoTriangleWitness:
    """`tau = Bern(0)`, `pi = beta = Bern(min(epsilon, 1)/2)`, exactly.

    Raises:
        InvalidArgumentError: epsilon not positive and finite.

    Example:
        >>> from fractions import Fraction
        >>> from theory import no_triangle_witness
        >>> no_triangle_witness(Fraction(1, 50)).pi
        (Fraction(99, 100), Fraction(1, 100))
    """
    if not 0 < epsilon < math.inf:
        raise InvalidArgumentError(f"epsilon must be positive and finite, got {epsilon}")
    share = min(Fraction(epsilon), Fraction(1)) / 2
    beta = (1 - share, share)
    return NoTriangleWitness(tau=(Fraction(1), Fraction(0)), beta=beta, pi=beta)


@dataclass(frozen=True, kw_only=True)
class ShortValue:
    """A number `m 2^-j` with an m of n bits, `2^(n-1) <= m < 2^n`.

    Attributes:
        mantissa: m.
        exponent: j >= 1.

    Example:
        >>> from theory import ShortValue
        >>> short = ShortValue(mantissa=3, exponent=2)
        >>> short.value, short.length_bits  # 4 bits for m, 4 for j
        (Fraction(3, 4), 8)
    """

    mantissa: int
    exponent: int

    @property
    def value(self) -> Fraction:
        """`m 2^-j`."""
        return Fraction(self.mantissa, 2**self.exponent)

    @property
    def length_bits(self) -> int:
        """The length of m and j in Elias' delta code, one after the other."""
        return elias_delta_bits(self.mantissa) + elias_delta_bits(self.exponent)


def short_value_below(value: Fraction, *, n_bits: int) -> ShortValue:
    """The largest `m 2^-j < value` with an n-bit m.

    It lies within a factor `1 - 2^(1-n)` of `value`. This is how v is chosen below V*: value is
    `V* xi(h)`, and a term `K(v xi(h))` of Statement.LITTLE_CONSTRAINT costs at most
    `length_bits` and a constant.

    Args:
        value: in (0, 1].
        n_bits: n >= 1.

    Example:
        >>> from fractions import Fraction
        >>> from theory import short_value_below
        >>> short_value_below(Fraction(1, 3), n_bits=3)  # 5/16; 6/16 is too large
        ShortValue(mantissa=5, exponent=4)
    """
    check_count(n_bits=n_bits)
    if not 0 < value <= 1:
        raise InvalidArgumentError(f"value must lie in (0, 1], got {value}")
    # The j with 2^(n-1) < value 2^j <= 2^n: bit lengths give it up to one.
    exponent = n_bits + value.denominator.bit_length() - value.numerator.bit_length() + 1
    while value * 2**exponent > 2**n_bits:
        exponent -= 1
    return ShortValue(mantissa=math.ceil(value * 2**exponent) - 1, exponent=exponent)


def third_term_bits(*, n_bits: int, log2_value: float) -> int:
    """The `length_bits` of `short_value_below(value)`, from `log2 value` alone.

    About `n + log2 j + 2 log2 log2 j` with `j = n - log2 value`: logarithmic in `-log2 xi(h)`,
    which grows at most linearly in the length of the history.

    Args:
        n_bits: n >= 1, the bits of the mantissa.
        log2_value: `log2(V* xi(h)) <= 0`, finite.

    Example:
        >>> from theory import elias_delta_bits, third_term_bits
        >>> third_term_bits(n_bits=3, log2_value=-10) == elias_delta_bits(7) + elias_delta_bits(13)
        True
    """
    check_count(n_bits=n_bits)
    if not -math.inf < log2_value <= 0:
        raise InvalidArgumentError(f"log2_value must be finite and <= 0, got {log2_value}")
    exponent = n_bits + math.floor(-log2_value)
    return elias_delta_bits(2**n_bits - 1) + elias_delta_bits(exponent)


def elias_delta_bits(number: int) -> int:
    """The length of `number >= 1` in Elias' delta code: `log2 n + 2 log2 log2 n`, about.

    Example:
        >>> from theory import elias_delta_bits
        >>> [elias_delta_bits(n) for n in (1, 2, 17)]  # codes 1, 0100 and 001010001
        [1, 4, 9]
    """
    check_count(number=number)
    n_digits = number.bit_length()
    return (n_digits - 1) + 2 * (n_digits.bit_length() - 1) + 1


def top_set_size_bound(alpha: Probability) -> int:
    """`floor(1/alpha)`, the most models that a top set can have (Statement.TOP_SET).

    Example:
        >>> from fractions import Fraction
        >>> from theory import top_set_size_bound
        >>> top_set_size_bound(Fraction(3, 10))
        3
    """
    check_alpha(alpha)
    return math.floor(1 / Fraction(alpha))


def demonstrator_stays_probability(*, alpha: Probability, weight: Probability) -> Probability:
    """`P(mu in M^alpha_h for all t) >= 1 - alpha / w(mu)`, or 0 where that is negative.

    The left side is a probability under mu, the demonstrator, with every one of its actions
    updating the posterior; on that event `nu_alpha <= mu` (Statement.NOTHING_UNPRECEDENTED).

    Args:
        alpha: the threshold of the top set, in (0, 1].
        weight: `w(mu)`, the prior weight of mu among all models, normalised, in (0, 1].

    Returns:
        A `Fraction` if both are rational.

    Example:
        >>> from fractions import Fraction
        >>> from theory import demonstrator_stays_probability
        >>> demonstrator_stays_probability(alpha=Fraction(1, 100), weight=Fraction(1, 10))
        Fraction(9, 10)
    """
    check_alpha(alpha)
    check_positive_probability(weight=weight)
    return max(1 - alpha / weight, type(alpha / weight)(0))


def help_cubed_bound(*, n_actions: int, alpha: float, weight: float) -> float:
    """LITERATURE: `E sum_t theta_q(h_t)^3 <= |A| alpha^-3 (24 / w(mu) + 12)`.

    Statement.LIMITED_QUERYING, assumed as FGOIL states it and not proved here.

    Args:
        n_actions: |A|.
        alpha: the threshold of the top set, in (0, 1].
        weight: `w(mu)`, the demonstrator's prior weight, in (0, 1].

    Example:
        >>> from theory import help_cubed_bound
        >>> help_cubed_bound(n_actions=2, alpha=0.5, weight=0.25)  # 2 * 8 * (96 + 12)
        1728.0
    """
    check_count(n_actions=n_actions)
    check_alpha(alpha)
    check_positive_probability(weight=weight)
    return n_actions * alpha**-3 * (24 / weight + 12)


@dataclass(frozen=True, kw_only=True)
class LargestShare:
    """The largest q with `KL(Bern(q) || Bern(p)) <= B`, between two neighbouring floats.

    Attributes:
        lower: the largest float whose KL is at most B: decided in exact arithmetic.
        upper: the next float, whose KL is above B; equal to `lower` where that is 1.

    Example:
        >>> from theory import largest_share
        >>> largest_share(0.25, 1.5)  # -ln(1/4) = 1.39 nats buy certainty
        LargestShare(lower=1.0, upper=1.0)
    """

    lower: float
    upper: float


def largest_share(base_probability: float, budget_nats: float) -> LargestShare:
    """How probable a policy within `KL(pi||beta) <= B` can make an event.

    By data processing no policy within the budget gives an event of probability p under beta
    more than q, where `KL(Bern(q) || Bern(p)) = B` and `q >= p`; a policy that only rescales
    the two cases reaches q. (With p the share of episodes in which beta is silent, q is the
    share that the budget allows.) q is 1 from `B = -ln p` on.

    Args:
        base_probability: p, in [0, 1].
        budget_nats: B >= 0, may be inf.

    Returns:
        q between neighbouring floats: each comparison is a sign of a `LogSum`.

    Example:
        >>> import math
        >>> from theory import largest_share
        >>> budget_nats = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)  # KL(Bern(3/4)||Bern(1/2))
        >>> round(largest_share(0.5, budget_nats).lower, 9)
        0.75
    """
    check_probability(base_probability=base_probability)
    check_budget(budget_nats=budget_nats)

    def affordable(q: float) -> bool:
        return _bernoulli_kl(q, base_probability) <= budget_nats

    # Positive floats are ordered as their bit patterns are, so this bisection ends after at
    # most 62 steps, at two neighbours.
    lower, upper = _bits(base_probability), _bits(1.0)
    if affordable(1.0):
        return LargestShare(lower=1.0, upper=1.0)
    while upper - lower > 1:
        middle = (lower + upper) // 2
        if affordable(_from_bits(middle)):
            lower = middle
        else:
            upper = middle
    return LargestShare(lower=_from_bits(lower), upper=_from_bits(upper))


def _bernoulli_kl(q: float, p: float) -> LogSum:
    q_exact, p_exact = Fraction(q), Fraction(p)
    return kl_log_sum((q_exact, 1 - q_exact), (p_exact, 1 - p_exact))


def _bits(value: float) -> int:
    return int(struct.unpack("<q", struct.pack("<d", value))[0])


def _from_bits(bits: int) -> float:
    return float(struct.unpack("<d", struct.pack("<q", bits))[0])
