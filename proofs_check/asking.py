"""Missing mass: what acting costs, why asking is free, and what filling the gap gives up.

*What acting costs.* `KL(pi||nu) = KL(pi || nu/(1-theta)) - ln(1-theta)`, termwise: each term of the
sum gains `pi_i ln(1/(1-theta))`, and pi has mass 1.

*Asking is free.* Let `nu <= mu`, let the agent ask with probability q, and let mu act then. By
convexity, and because the KL to a smaller base is larger,

    KL(q mu + (1-q) pi || mu) <= (1-q) KL(pi||mu) <= (1-q) KL(pi||nu),

so that what is charged where it acts bounds the KL to mu (Statement.NOTHING_UNPRECEDENTED).

*Filling the gap.* The full law `nu + theta mu` may be followed at no cost, and it is not mu.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from typing import Final

import numpy as np

from proofs_check.finite_classes import Row, distributions
from proofs_check.sabotage import Sabotage, returning, with_result
from proofs_check.verdict import (
    Check,
    Effort,
    Kind,
    Mutation,
    Outcome,
    Verdict,
    examine_all,
    verdict_of,
)
from theory import missing_mass
from theory.log_sum import LogSum, kl_log_sum
from theory.missing_mass import acting_cost_nats, completed, may_act
from theory.paper import Statement

TOLERANCE: Final = Fraction(1, 10**14)
ONE: Final = Fraction(1)


def semi_distributions(n_outcomes: int, denominator: int) -> list[Row]:
    """Every row over `n_outcomes` of mass at most 1 in multiples of 1/denominator."""
    return [row[:-1] for row in distributions(n_outcomes + 1, denominator)]


def log_row(row: Row) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Its logarithms in float64, -inf for 0."""
    return np.array([math.log(p) if p else -math.inf for p in row])


def acting_cost(effort: Effort, *, factor: Fraction = ONE) -> Outcome:
    """`KL(pi||nu) = KL(pi || nu/(1-theta)) - c ln(1-theta)` (c = 1), exactly and in floats."""
    denominator = 3 if effort is Effort.SMALLEST else 4
    size = 2 if effort is Effort.SMALLEST else 3

    def decide(case: tuple[Row, Row]) -> Verdict:
        pi, nu = case
        theta = 1 - sum(nu)
        cost = float(acting_cost_nats(np.array(float(theta))))
        affordable = bool(may_act(np.array(float(theta)), np.array(math.inf)))
        if theta == 1:
            return verdict_of(math.isinf(cost) and not affordable)
        exact = LogSum.log(1 / Fraction(1 - theta))
        whole = kl_log_sum(pi, [x / (1 - theta) for x in nu]) + factor * exact
        return verdict_of(
            affordable
            and abs(Fraction(cost) - Fraction(float(exact))) <= TOLERANCE
            and kl_log_sum(pi, nu) == whole
        )

    pairs = product(distributions(size, denominator), semi_distributions(size, denominator))
    return examine_all(pairs, decide, show=_show)


def _asking(effort: Effort) -> Iterator[tuple[Row, Row, Row, Fraction]]:
    """mu, nu <= mu, pi and the probability of asking."""
    denominator = 3 if effort is Effort.SMALLEST else 4
    lots = (Fraction(0), Fraction(1, 2), Fraction(3, 4))
    for mu, nu, pi in product(
        distributions(2, denominator),
        semi_distributions(2, denominator),
        distributions(2, denominator),
    ):
        if all(n <= m for n, m in zip(nu, mu, strict=True)):
            for q in lots:
                yield mu, nu, pi, q


def charges_bound_the_kl(
    effort: Effort, *, missing_is_charged: int = 1, helper: Row | None = None
) -> Outcome:
    """`KL(q mu + (1-q) pi || mu) <= (1-q) KL(pi||nu)` where the demonstrator mu is asked."""

    def decide(case: tuple[Row, Row, Row, Fraction]) -> Verdict:
        mu, nu, pi, q = case
        mass = sum(nu)  # above 0: pi acts within its support
        to_what_is_left = kl_log_sum(pi, [x / mass for x in nu])
        charge = (1 - q) * (to_what_is_left + missing_is_charged * LogSum.log(1 / Fraction(mass)))
        law = [q * h + (1 - q) * p for h, p in zip(helper or mu, pi, strict=True)]
        return verdict_of(kl_log_sum(law, mu) <= charge, informative=not charge.is_infinite)

    cases = (
        case
        for case in _asking(effort)
        if not any(p > 0 == n for p, n in zip(case[2], case[1], strict=True))
    )
    return examine_all(
        cases, decide, show=lambda c: f"mu = {_row(c[0])}, {_show((c[2], c[1]))}, q = {c[3]}"
    )


def filled_by_the_demonstrator(effort: Effort, *, share: Fraction = ONE) -> Outcome:
    """`completed` is `nu + c theta mu` (c = 1), and 0 exactly where that is."""
    denominator = 3 if effort is Effort.SMALLEST else 4
    size = 2 if effort is Effort.SMALLEST else 3

    def decide(case: tuple[Row, Row]) -> Verdict:
        mu, nu = case
        theta = 1 - sum(nu)
        found = np.exp(completed(log_row(nu), log_row(mu)))
        exact = [n + share * theta * m for n, m in zip(nu, mu, strict=True)]
        right = all(
            (x == 0) == (y == 0) and abs(Fraction(float(x)) - y) <= TOLERANCE
            for x, y in zip(found, exact, strict=True)
        )
        return verdict_of(right, informative=theta > 0)

    pairs = product(distributions(size, denominator), semi_distributions(size, denominator))
    return examine_all(pairs, decide, show=lambda c: f"mu = {_row(c[0])}, nu = {_row(c[1])}")


def filled_for_nothing(effort: Effort, *, theta_is_filled: bool = True) -> Outcome:
    """`KL(pi||mu) <= KL(pi || nu + theta mu)`, which is false; left to the charges it holds."""

    def decide(case: tuple[Row, Row, Row, Fraction]) -> Verdict:
        mu, nu, pi, _ = case
        theta = (1 - sum(nu)) * theta_is_filled
        base = [n + theta * m for n, m in zip(nu, mu, strict=True)]
        return verdict_of(kl_log_sum(pi, mu) <= kl_log_sum(pi, base))

    return examine_all(
        _asking(effort), decide, show=lambda c: f"mu = {_row(c[0])}, {_show((c[2], c[1]))}"
    )


def _row(row: Row) -> str:
    return "(" + ", ".join(map(str, row)) + ")"


def _show(case: tuple[Row, Row]) -> str:
    return f"pi = {_row(case[0])}, nu = {_row(case[1])}"


CHECKS: Final = (
    Check(
        label="asking-acting-cost",
        words="Who acts pays for the missing mass, and for the distance from what is left.",
        formula="KL(pi||nu) = KL(pi||nu/(1-theta)) - ln(1-theta)",
        kind=Kind.EXHAUSTIVE,
        scope="3 symbols, rows in quarters, infinite KLs too; the toolkit's floats to 1e-14",
        examine=acting_cost,
        mutations=(Mutation(name="half of it", constants={"factor": Fraction(1, 2)}),),
        statements=(Statement.NOTHING_UNPRECEDENTED, Statement.EVENT_VETOES),
        least_informative=8,
        sabotages=(
            Sabotage(
                name="missing mass is free",
                owner=missing_mass,
                attribute="acting_cost_nats",
                fault=with_result(np.zeros_like),
            ),
            Sabotage(
                name="an endless budget pays for acting by nothing",
                owner=missing_mass,
                attribute="may_act",
                fault=returning(np.array(True)),
            ),
        ),
    ),
    Check(
        label="asking-is-free",
        words="Where the imitator is below the demonstrator, who is asked, what is charged for "
        "acting bounds the KL to the demonstrator.",
        formula="nu <= mu  =>  KL(q mu + (1-q) pi||mu) <= (1-q) KL(pi||nu)",
        kind=Kind.EXHAUSTIVE,
        scope="one step, 2 symbols, rows in quarters, q = 0, 1/2, 3/4",
        examine=charges_bound_the_kl,
        mutations=(
            Mutation(name="missing mass is not charged", constants={"missing_is_charged": 0}),
            Mutation(name="somebody else helps", constants={"helper": (Fraction(1), Fraction(0))}),
        ),
        statements=(Statement.NOTHING_UNPRECEDENTED,),
        least_informative=60,
    ),
    Check(
        label="asking-filled",
        words="The demonstrator fills the gap, and what neither does stays impossible.",
        formula="completed = nu + theta mu",
        kind=Kind.NUMERIC,
        scope="3 symbols, rows in quarters, to 1e-14, zeros exactly",
        examine=filled_by_the_demonstrator,
        mutations=(Mutation(name="half of it", constants={"share": Fraction(1, 2)}),),
        statements=(Statement.EVENT_VETOES,),
        least_informative=20,
        sabotages=(
            Sabotage(
                name="the gap is filled evenly",
                owner=missing_mass,
                attribute="completed",
                fault=lambda original: (
                    lambda log_semi, log_demonstrator: original(
                        log_semi, np.full_like(log_demonstrator, -math.log(len(log_demonstrator)))
                    )
                ),
            ),
        ),
    ),
    Check(
        label="asking-filled-charges-nothing",
        words="Near the law that the demonstrator has filled an agent is near the demonstrator: "
        "false, the filled law costs nothing and is another.",
        formula="KL(pi||mu) <= KL(pi||nu + theta mu)",
        kind=Kind.EXHAUSTIVE,
        scope="one step, 2 symbols, rows in quarters; the first counterexample",
        examine=filled_for_nothing,
        mutations=(
            Mutation(name="the gap stays and is charged", constants={"theta_is_filled": False}),
        ),
        statements=(Statement.NOTHING_UNPRECEDENTED,),
        expected=Verdict.FAILS,
    ),
)
