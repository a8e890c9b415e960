r"""Event vetoes: a pessimistic imitator made of one model and of what it never saw happen.

An *event* `E = (phi, v, x)` happens where a feature phi of the history has the value v and the
symbol written next is x. Its *code length* `l(E)` bits is that of a prefix code, and
`s_E = 2^-l(E)` its prior. Two models are compared: the imitator b as it is, of weight `1 - s_E`,
and "b, but never E", of weight `s_E`. Demonstrations that came `n_E` times to `phi = v`, at
histories h_i, and in which E occurred `c_E` times, speak for the second by the factor 1 and for
the first by

    m_E = prod_i (1 - b(E|h_i)),

what b gave to never seeing E (1 where nobody came), so that "never" has the posterior weight

    w_E = s_E / (s_E + (1 - s_E) m_E)    if c_E = 0,    else 0.

**E is vetoed iff `w_E >= alpha`.** The vetoed law is b without the vetoed symbols; the mass that it
misses asks for help (`theory.missing_mass`). The vetoes are made before the agent acts, and its
actions do not change them.

What follows (Statement.EVENT_VETOES; `proofs_check.vetoes` has the proofs and checks them):

1. *Safety, surely.* `m_E <= 1`, so `w_E >= s_E` on every data set without E. If the demonstrator
   never does E, wherever it may be led, and `alpha <= s_E`, then E is vetoed, and every policy at a
   finite KL from the vetoed law, completed by the demonstrator or not, does E with probability 0,
   at any horizon. (Completed by anybody else, it may.)
2. *The price of what is left.* A never-event that is not vetoed has
   `lambda_E = sum_i b(E|h_i) <= -ln m_E < C` with `C = ln((1-s_E)/s_E) + ln(alpha/(1-alpha))`; by
   Jensen its mean price over the visits is above `ln n_E - ln C` nats: it grows with the data. Of
   the cheapest visit nothing of the kind is true: b may expect all of lambda_E there.
3. *False vetoes.* If b's rates are the demonstrator's, `1{c_E = 0}/m_E` is a martingale, so that by
   Ville at most `(1/alpha - 1) sum_E s_E/(1-s_E)` events are ever falsely vetoed, in expectation.
   If b is a Bayesian mixture that predicts step by step, and the demonstrator one of its models, of
   prior weight w, at most that over w. An audit finds little in such a b: the mean of `-ln m_E` of
   a never-event is at most `ln(1/w)`.
4. *Blocking.* Of n visits, an event of rate p that has not occurred blocks the next one with
   probability `p (1-p)^n <= n^n/(n+1)^(n+1) < 1/(e n)`, the most being at `p = 1/(n+1)`.

What does not follow is `KL(pi||demonstrator) <= b`: events of the vocabulary become impossible, and
nothing else does. Nor is it for safety's sake that the agent's own actions must not count: within
the vetoed law it cannot lift a veto. But what it does once while that is not vetoed yet, would
never be vetoed again, and what it avoids would soon be.

**Dirty data.** One occurrence lifts a veto for good. The *graded* form compares the models `r b` on
E for r in 1, 0, 2^-1, ..., 2^-20: r = 1 has the prior `1 - s_E`, and the others share `s_E`; the
likelihood is Poisson's, `r^c e^(-r lambda)` up to a factor; and the least r in the top set
multiplies b. (What it takes from E is missing mass like any other.) An event that never occurred
is vetoed, r = 0, iff `lambda >= ln(21 (1-s)/s) + min(0, ln(alpha/(1-alpha)))`: "never" has but a
21st of `s_E`, so that safety asks for `alpha <= s_E/21`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from theory.arguments import check_alpha, check_bits, check_positive_probability
from theory.arrays import Bool, Float64, Shaped, broadcast_shape
from theory.errors import InvalidArgumentError, InvalidDistributionError, InvalidShapeError
from theory.pessimism import top_set
from theory.process import Probability, Table

GRADES: Final = (1.0, 0.0, *(2.0**-k for k in range(1, 21)))
"""The factors r that the graded form compares; the first is the imitator as it is."""


@dataclass(frozen=True, kw_only=True)
class EventEvidence:
    """What demonstrations say about some events; every array has shape (events,).

    Attributes:
        bits: code lengths `l(E)`, > 0.
        visits: `n_E`, steps of the demonstrator at which the feature had the event's value.
        occurrences: `c_E`, those of them at which it wrote the event's symbol.
        expected: `lambda_E = sum b(E|h_i)`, the occurrences that the imitator expected.
        log_never: `ln m_E = sum ln(1 - b(E|h_i))`, at most `-expected`, in nats.

    Raises:
        InvalidShapeError: arrays of different lengths.
        InvalidArgumentError: numbers that no demonstrations give, such as more occurrences than
            visits.

    Example:
        >>> import numpy as np
        >>> from theory import EventEvidence
        >>> evidence = EventEvidence(  # one event: 100 visits, at each of which b gave it 1/10
        ...     bits=np.array([5.0]),
        ...     visits=np.array([100]),
        ...     occurrences=np.array([0]),
        ...     expected=np.array([10.0]),
        ...     log_never=np.array([100 * np.log(0.9)]),
        ... )
        >>> evidence.priors
        array([0.03125])
    """

    bits: Shaped[NDArray[Any], " events"]
    visits: Shaped[NDArray[Any], " events"]
    occurrences: Shaped[NDArray[Any], " events"]
    expected: Shaped[NDArray[Any], " events"]
    log_never: Shaped[NDArray[Any], " events"]

    def __post_init__(self) -> None:
        shapes = {name: np.shape(getattr(self, name)) for name in self.__dataclass_fields__}
        if len(set(shapes.values())) > 1 or np.ndim(self.bits) != 1:
            raise InvalidShapeError(f"evidence must have one number an event, got shapes {shapes}")
        allowed = {
            "bits must be > 0 and finite": (self.bits > 0) & (self.bits < math.inf),
            "visits must be >= 0": self.visits >= 0,
            "occurrences must lie in 0..visits": (self.occurrences >= 0)
            & (self.occurrences <= self.visits),
            "expected must be >= 0 and finite": (self.expected >= 0) & (self.expected < math.inf),
            "log_never must be <= 0": self.log_never <= 0,
        }
        for claim, holds in allowed.items():
            if not np.all(holds):
                event = int(np.argmin(holds))
                raise InvalidArgumentError(f"{claim}, got otherwise at event {event}")

    @property
    def priors(self) -> Float64[NDArray[np.float64], " events"]:
        """`s_E = 2^-l(E)`."""
        return np.exp2(-np.asarray(self.bits, dtype=np.float64))

    @property
    def never_likelihoods(self) -> Float64[NDArray[np.float64], " events"]:
        """`m_E`; 0 where it is below the least positive float, which leaves `w_E` right."""
        return np.exp(np.asarray(self.log_never, dtype=np.float64))

    def never_weights(self) -> Float64[NDArray[np.float64], " events"]:
        """`w_E`; see `never_weights`."""
        return np.asarray(
            never_weights(self.priors, self.never_likelihoods, self.occurrences), dtype=np.float64
        )

    def vetoed(self, alpha: float) -> Bool[NDArray[np.bool_], " events"]:
        """Which events are vetoed; see `is_vetoed`."""
        return is_vetoed(self.priors, self.never_likelihoods, self.occurrences, alpha=alpha)


def event_prior(bits: float) -> Probability:
    """`s_E = 2^-l(E)`, a `Fraction` if the length is an integer.

    Example:
        >>> from theory import event_prior
        >>> event_prior(5)
        Fraction(1, 32)
    """
    check_bits(bits=bits)
    return Fraction(1, 2 ** int(bits)) if isinstance(bits, int) else 2.0**-bits


def never_weights(
    priors: Shaped[Table, "*events"] | Sequence[Probability],
    never_likelihoods: Shaped[Table, "*events"] | Sequence[Probability],
    occurrences: Shaped[Table, "*events"] | Sequence[int],
) -> Shaped[Table, "*events"]:
    """`w_E`, the posterior weight of "the imitator, but never E".

    Args:
        priors: `s_E`, in (0, 1), shape (...,), float64 or `Fraction`.
        never_likelihoods: `m_E`, in [0, 1].
        occurrences: `c_E`.

    Returns:
        Shape (...,); `Fraction`s if priors and likelihoods are; exactly 0 where E occurred.

    Example:
        >>> from fractions import Fraction
        >>> from theory import never_weights
        >>> print(*never_weights([Fraction(1, 4)] * 2, [Fraction(1, 9)] * 2, [0, 1]))
        3/4 0
    """
    s, m, c = _checked(priors, never_likelihoods, occurrences)
    return np.where(c == 0, s / (s + (1 - s) * m), 0 * s)


def is_vetoed(
    priors: Shaped[Table, "*events"] | Sequence[Probability],
    never_likelihoods: Shaped[Table, "*events"] | Sequence[Probability],
    occurrences: Shaped[Table, "*events"] | Sequence[int],
    *,
    alpha: Probability,
) -> Bool[NDArray[np.bool_], "*events"]:
    """Which events are vetoed: `c_E = 0` and `w_E >= alpha`.

    Decided without a division, as `(1 - s) m alpha <= s (1 - alpha)`, so that rounding never lifts
    a veto that safety asks for: at `alpha <= s` every event that did not occur is vetoed.

    Args:
        priors: `s_E`, in (0, 1), shape (...,), float64 or `Fraction`.
        never_likelihoods: `m_E`, in [0, 1].
        occurrences: `c_E`.
        alpha: the threshold, 0 < alpha <= 1; a float counts as the binary number that it is.

    Raises:
        InvalidArgumentError: alpha outside (0, 1], or a negative count.
        InvalidDistributionError: no probabilities.
        InvalidShapeError: shapes that do not broadcast.

    Example:
        >>> from theory import is_vetoed
        >>> is_vetoed([0.25, 0.25, 0.25], [1.0, 0.01, 0.01], [0, 0, 1], alpha=0.9)
        array([False,  True, False])
    """
    check_alpha(alpha)
    s, m, c = _checked(priors, never_likelihoods, occurrences)
    threshold = Fraction(alpha) if s.dtype == object else float(alpha)
    never = (1 - s) * m * threshold <= s * (1 - threshold)
    return np.asarray((c == 0) & never, dtype=np.bool_)


def graded_factors(
    evidence: EventEvidence, alpha: float
) -> Float64[NDArray[np.float64], " events"]:
    """The factor r that multiplies the imitator's probability of each event, of `GRADES`.

    The least r in the top set of the posterior over `GRADES`: prior `1 - s_E` on 1 and the rest
    shared by the others, likelihood `r^c e^(-r lambda)`.

    Args:
        evidence: of the events.
        alpha: the threshold of the top set, 0 < alpha <= 1.

    Example:
        >>> import numpy as np
        >>> from theory import EventEvidence, graded_factors
        >>> evidence = EventEvidence(  # b expected 1000; there were none, or two
        ...     bits=np.full(2, 10.0),
        ...     visits=np.full(2, 30000),
        ...     occurrences=np.array([0, 2]),
        ...     expected=np.full(2, 1000.0),
        ...     log_never=np.full(2, -1017.0),
        ... )
        >>> graded_factors(evidence, 0.05)
        array([0.        , 0.00048828])
    """
    check_alpha(alpha)
    rates = np.array(GRADES)
    others = len(rates) - 1
    log_prior = np.stack(
        [np.log1p(-evidence.priors), *([np.log(evidence.priors / others)] * others)], axis=-1
    )
    c = np.asarray(evidence.occurrences, dtype=np.float64)[:, None]
    with np.errstate(divide="ignore"):
        log_rates = np.log(rates)
    powers = np.where(c > 0, c * np.where(c > 0, log_rates, 0.0), 0.0)
    log_w = log_prior + powers - rates * np.asarray(evidence.expected, np.float64)[:, None]
    log_w -= log_w.max(axis=-1, keepdims=True)
    inside = top_set(np.exp(log_w), alpha)
    return np.asarray(np.where(inside, rates, np.inf).min(axis=-1))


def confidence_factors(
    evidence: EventEvidence, alpha: float
) -> Float64[NDArray[np.float64], " events"]:
    """Factors that make each event as rare as demonstrations allow: what vetoes are compared with.

    `min(1, n U / lambda)`, U the upper end of the one-sided Clopper-Pearson interval of the
    demonstrator's rate at confidence `1 - alpha`: the imitator's probability of the event is scaled
    so that its mean over the visits is at most U. U is above 0, so that no event is impossible.

    Args:
        evidence: of the events.
        alpha: the error that the interval allows, in (0, 1).

    Example:
        >>> import numpy as np
        >>> from theory import EventEvidence, confidence_factors
        >>> evidence = EventEvidence(  # none in 38,881 visits, where b expected 1,178
        ...     bits=np.array([6.0]),
        ...     visits=np.array([38_881]),
        ...     occurrences=np.array([0]),
        ...     expected=np.array([1178.0]),
        ...     log_never=np.array([-1200.0]),
        ... )
        >>> confidence_factors(evidence, 0.05).round(5)  # 3 in 38,881 are possible
        array([0.00254])
    """
    check_alpha(alpha)
    n = np.asarray(evidence.visits, dtype=np.float64)
    c = np.asarray(evidence.occurrences, dtype=np.float64)
    expected = np.asarray(evidence.expected, dtype=np.float64)
    some = (n > c) & (expected > 0)
    upper = np.where(some, betaincinv(c + 1, np.where(some, n - c, 1.0), 1 - alpha), 1.0)
    return np.where(some, np.minimum(1.0, n * upper / np.where(some, expected, 1.0)), 1.0)


# ------------------------------------------------------------------------- bounds


def surest_alpha(bits: Sequence[float]) -> Probability:
    """`min s_E`: the largest alpha that vetoes every event that did not occur (safety).

    Example:
        >>> from theory import surest_alpha
        >>> surest_alpha([5, 9, 7])
        Fraction(1, 512)
    """
    if not len(bits):
        raise InvalidArgumentError("bits must name at least 1 event, got none")
    return event_prior(max(bits))


def unvetoed_expectation_bound(prior: Probability, alpha: Probability) -> float:
    """`C = ln((1-s)/s) + ln(alpha/(1-alpha))`, above `lambda_E` of every unvetoed never-event.

    Returns:
        C; 0 where it would be negative (then every never-event is vetoed), inf at alpha = 1.

    Example:
        >>> import math
        >>> from theory import unvetoed_expectation_bound
        >>> math.exp(unvetoed_expectation_bound(0.25, 0.5))  # odds 3 to 1 against, even threshold
        3.0000000000000004
    """
    check_alpha(alpha)
    check_positive_probability(prior=prior)
    if alpha == 1:
        return math.inf
    odds = (1 - Fraction(prior)) / Fraction(prior) * Fraction(alpha) / (1 - Fraction(alpha))
    return math.log(odds) if odds > 1 else 0.0


def unvetoed_price_bound_nats(visits: int, prior: Probability, alpha: Probability) -> float:
    """`ln n - ln C`: the mean price over n visits of a never-event that is not vetoed is above it.

    Returns:
        Nats; inf where every never-event is vetoed, -inf where there was no visit or alpha = 1.

    Example:
        >>> from theory import unvetoed_price_bound_nats
        >>> [round(unvetoed_price_bound_nats(n, 2**-20, 0.05), 2) for n in (100, 10_000)]
        [2.21, 6.82]
    """
    bound = unvetoed_expectation_bound(prior, alpha)
    if bound == 0:
        return math.inf
    if visits < 0:
        raise InvalidArgumentError(f"visits must be >= 0, got {visits}")
    return math.log(visits) - math.log(bound) if visits and bound < math.inf else -math.inf


def false_vetoes_bound(priors: Sequence[Probability], alpha: Probability) -> Probability:
    """`(1/alpha - 1) sum s_E/(1-s_E)`: events ever falsely vetoed, at most, in expectation.

    A `Fraction` if all are rational. It takes the imitator's rates for the demonstrator's.

    Example:
        >>> from fractions import Fraction
        >>> from theory import false_vetoes_bound
        >>> false_vetoes_bound([Fraction(1, 4), Fraction(1, 10)], Fraction(1, 2))
        Fraction(4, 9)
    """
    check_alpha(alpha)
    return (1 / alpha - 1) * sum(s / (1 - s) for s in priors)


def blocking_bound(visits: int) -> Fraction:
    """`n^n/(n+1)^(n+1) = max_p p (1-p)^n`, below `1/(e n)`: an unseen event blocks the next visit.

    Example:
        >>> from theory import blocking_bound
        >>> blocking_bound(1), float(blocking_bound(100))
        (Fraction(1, 4), 0.003660507052763557)
    """
    if visits < 0:
        raise InvalidArgumentError(f"visits must be >= 0, got {visits}")
    return Fraction(visits**visits, (visits + 1) ** (visits + 1))


def _checked(priors: Any, likelihoods: Any, occurrences: Any) -> tuple[Table, Table, Table]:
    """The arguments of the rule as arrays, `Fraction`s kept."""
    s, m, c = (
        given if isinstance(given, np.ndarray) else np.array(given)
        for given in (priors, likelihoods, occurrences)
    )
    broadcast_shape(priors=s.shape, never_likelihoods=m.shape, occurrences=c.shape)
    if not np.all((s > 0) & (s < 1)):
        raise InvalidDistributionError("priors must lie in (0, 1)")
    if not np.all((m >= 0) & (m <= 1)):
        raise InvalidDistributionError("never_likelihoods must lie in [0, 1]")
    if not np.all(c >= 0):
        raise InvalidArgumentError("occurrences must be >= 0")
    return s, m, c
