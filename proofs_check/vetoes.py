"""Event vetoes: safety, the price of what is left, false vetoes and blocking.

*Safety.* `m_E <= 1`, so `w_E = s/(s + (1-s) m_E) >= s` where E did not occur: at `alpha <= s` it is
vetoed. The vetoed law is 0 on E, and so is the demonstrator who fills it or is asked; a policy at
a finite KL takes no action of probability 0. Nothing that happens afterwards lifts the veto: E does
not occur, and more visits lower m_E. Here a policy is deterministic: of any policy that does E and
has a finite KL, some deterministic part does.

*What is left.* E unvetoed means `m_E > e^-C`, and `lambda_E <= -ln m_E` by `x <= -ln(1-x)`. The
mean of `-ln b` is at least `-ln(lambda/n)`: with `y_i = b_i n/lambda`, of mean 1, the sum of
`-ln y_i >= 1 - y_i` is at least 0.

*False vetoes.* One visit on, `E[1{c'=0}/m'] = (1-p)/(m (1-p))` where p < 1, and 0 else: with b's
rates `1{c=0}/m` is a non-negative supermartingale that begins at 1. E is vetoed when it is at
least `K = (1-s)/s alpha/(1-alpha)`, by Ville with probability at most 1/K. If b is a Bayesian
mixture with the demonstrator in it, of weight w, then `P_mu <= P_b/w` for whatever data show.
Such an imitator leaves an audit little to find: `E_mu[-ln m_E] <= KL(mu||b) <= ln(1/w)`.

*Blocking.* `ln p + n ln(1-p)` has the slope `(1 - (n+1) p)/(p (1-p))`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from functools import cache
from itertools import combinations_with_replacement, product
from typing import Any, Final

import numpy as np
import sympy as sp

from proofs_check.ball import at_most, ball
from proofs_check.finite_classes import (
    Row,
    distributions,
    policy_of_two_steps,
    show_tables,
    two_step_policies,
)
from proofs_check.sabotage import Sabotage, returning, with_keyword, with_result
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
from theory import vetoes
from theory.bayes_mixture import Update
from theory.constraints import fixed_kl_nats
from theory.log_sum import LogSum
from theory.paper import Statement
from theory.process import PolicyTable, as_table
from theory.vetoes import (
    GRADES,
    EventEvidence,
    blocking_bound,
    event_prior,
    false_vetoes_bound,
    graded_factors,
    is_vetoed,
    never_weights,
    surest_alpha,
    unvetoed_expectation_bound,
    unvetoed_price_bound_nats,
)

HALF: Final = Fraction(1, 2)
ONE: Final = Fraction(1)
ZERO: Final = Fraction(0)
ROUNDING: Final = Fraction(1, 10**12)
"""By so much a bound in floats may lie on the wrong side of what it bounds exactly."""


# ---------------------------------------------------------------- events of a small world


@dataclass(frozen=True, kw_only=True)
class Event:
    """The next symbol is `symbol` at one of some histories, `None` standing for the first step.

    Attributes:
        where: the last symbols at which the feature has its value.
        symbol: x.
        bits: code length.
    """

    where: frozenset[int | None]
    symbol: int
    bits: int

    def happens(self, last: int | None, symbol: int) -> bool:
        """Whether it does when `symbol` follows `last`."""
        return symbol == self.symbol and last in self.where


@cache
def events(n_symbols: int) -> tuple[Event, ...]:
    """Of the features "anywhere" (1 bit), "is it the first step" (3) and "the last symbol" (4).

    And a bit for each symbol; the lengths keep to Kraft's inequality for two symbols.
    """
    later = range(n_symbols)
    features: list[tuple[frozenset[int | None], int]] = [
        (frozenset([None, *later]), 1),
        (frozenset([None]), 3),
        (frozenset(later), 3),
        *((frozenset([last]), 4) for last in later),
    ]
    return tuple(
        Event(where=where, symbol=symbol, bits=bits + 1)
        for where, bits in features
        for symbol in range(n_symbols)
    )


Laws = Mapping[int | None, Row]
"""The law of the next symbol after each last one, None at first."""


@dataclass(frozen=True)
class Evidence:
    """`m_E` and `c_E` of every event, after some steps."""

    never: tuple[Fraction, ...]
    occurrences: tuple[int, ...]

    @classmethod
    def none(cls, n_symbols: int) -> "Evidence":
        """Before the first step."""
        n = len(events(n_symbols))
        return cls((ONE,) * n, (0,) * n)

    def after(self, last: int | None, symbol: int, law: Row) -> "Evidence":
        """One step later, at which the imitator's law was `law`."""
        own = events(len(law))
        return Evidence(
            tuple(
                m * (1 - law[e.symbol]) if last in e.where else m
                for m, e in zip(self.never, own, strict=True)
            ),
            tuple(c + e.happens(last, symbol) for c, e in zip(self.occurrences, own, strict=True)),
        )

    def vetoed(self, n_symbols: int, alpha: Fraction) -> tuple[bool, ...]:
        """Which events are."""
        priors = [event_prior(e.bits) for e in events(n_symbols)]
        return tuple(is_vetoed(priors, self.never, self.occurrences, alpha=alpha).tolist())


def vetoed_row(last: int | None, law: Row, vetoed: Sequence[bool]) -> Row:
    """The law without its vetoed symbols."""
    barred = {
        e.symbol
        for e, is_barred in zip(events(len(law)), vetoed, strict=True)
        if is_barred and last in e.where
    }
    return tuple(ZERO if x in barred else p for x, p in enumerate(law))


# ---------------------------------------------------------------- the rule


def rule(effort: Effort, *, inverted: bool = False) -> Outcome:
    """E is vetoed iff Bayes' rule gives "the imitator, but never E" a weight of at least alpha.

    The likelihoods of the two models are multiplied up along every history of some steps, with
    rates that differ from step to step.
    """
    n_steps = 2 if effort is Effort.SMALLEST else 3
    rates = [Fraction(k, 4) for k in range(4)]
    alphas = (Fraction(1, 8), HALF, Fraction(4, 5))
    cases = product(
        product(rates, repeat=n_steps),
        product((False, True), repeat=n_steps),
        (Fraction(1, 8), HALF),
        alphas,
    )

    def decide(case: tuple[Any, Any, Fraction, Fraction]) -> Verdict:
        steps, happened, prior, alpha = case
        pairs = list(zip(steps, happened, strict=True))
        as_it_is = math.prod((b if h else 1 - b for b, h in pairs), start=ONE)
        if not as_it_is:
            return Verdict.VACUOUS  # a history that b does not make
        never = ONE * (not any(happened))
        weight = prior * never / (prior * never + (1 - prior) * as_it_is)
        m = math.prod((1 - b for b in steps), start=ONE)
        given = [prior], [m], [sum(happened)]
        threshold = 1 - alpha if inverted else alpha
        return verdict_of(
            never_weights(*given)[0] == weight
            and is_vetoed(*given, alpha=alpha)[0] == (weight >= threshold)
        )

    return examine_all(cases, decide, show=lambda c: f"b = {c[0]}, happened {c[1]}, s = {c[2]}")


# ---------------------------------------------------------------- safety


class Helper(Enum):
    """Who does what the vetoed law leaves out."""

    DEMONSTRATOR = "the demonstrator"
    BASE = "the base model"
    BASE_IF_NOTHING_IS_LEFT = "the base model, where everything is vetoed"


def _laws(policy: PolicyTable) -> Laws:
    """A two-step policy without observations as a law after each last action."""
    first, later = policy
    return {None: tuple(first[0]), **{a: tuple(row) for a, row in enumerate(later)}}


def _worlds(effort: Effort) -> Iterator[tuple[Laws, Laws, Evidence]]:
    """Demonstrators, imitators, and what one or two episodes of two steps say.

    Every demonstrator and imitator of two steps with probabilities 0, 1/2 and 1, and every data set
    that the demonstrator can give.
    """
    policies = [_laws(p) for p in two_step_policies(distributions(2, 2), n_observations=1)]
    coarse = [_laws(p) for p in two_step_policies([(HALF, HALF), (ONE, ZERO)], n_observations=1)]
    n_episodes = (1,) if effort is not Effort.THOROUGH else (1, 2)
    for tau, b in product(policies, coarse if effort is Effort.SMALLEST else policies):
        episodes = [
            (first, second)
            for first, second in product(range(2), repeat=2)
            if tau[None][first] and tau[first][second]
        ]
        for n in n_episodes:
            for data in combinations_with_replacement(episodes, n):
                evidence = Evidence.none(2)
                for first, second in data:
                    evidence = evidence.after(None, first, b[None])
                    evidence = evidence.after(first, second, b[first])
                yield tau, b, evidence


def _never(tau: Laws, event: Event) -> bool:
    """Whether the demonstrator never does an event, wherever it may be led."""
    return all(tau[last][event.symbol] == 0 for last in event.where)


AGENTS: Final = tuple(policy_of_two_steps(rows) for rows in product(distributions(2, 1), repeat=3))
"""Every deterministic policy of two steps."""


def _does(agent: Laws, event: Event) -> bool:
    """Whether a deterministic policy does an event in its two steps."""
    first = agent[None].index(1)
    second = agent[first].index(1)
    return event.happens(None, first) or event.happens(first, second)


def safety(
    effort: Effort,
    *,
    helper: Helper = Helper.DEMONSTRATOR,
    above_the_prior: Fraction = ONE,
) -> Outcome:
    """No agent at a finite KL does what the demonstrator never does, if `alpha <= c s_E` (c = 1).

    From the vetoed law as it is, and from what the helper makes of it.
    """
    own = events(2)
    surest = Fraction(surest_alpha([event.bits for event in own]))
    alphas = (above_the_prior * surest, above_the_prior * Fraction(1, 16))

    def decide(case: tuple[tuple[Laws, Laws, Evidence], Fraction]) -> Verdict:
        (tau, b, evidence), alpha = case
        vetoed = evidence.vetoed(2, alpha)
        sure = [e for e in own if _never(tau, e) and alpha <= above_the_prior * event_prior(e.bits)]
        tempting = any(b[last][e.symbol] for e in sure for last in e.where)
        bases = []
        for fills in (False, True):
            rows = []
            for last in (None, 0, 1):
                row = vetoed_row(last, b[last], vetoed)
                theta = 1 - sum(row)
                if fills and helper is Helper.DEMONSTRATOR:
                    row = tuple(n + theta * t for n, t in zip(row, tau[last], strict=True))
                elif fills and helper is Helper.BASE:
                    row = tuple(n + theta * p for n, p in zip(row, b[last], strict=True))
                elif fills and theta == 1:
                    row = b[last]
                rows.append(row)
            bases.append((as_table([rows[0]]), as_table(rows[1:])))
        safe = all(
            fixed_kl_nats(agent, base) == math.inf
            for base in bases
            for agent, laws in zip(AGENTS, map(_laws, AGENTS), strict=True)
            if any(_does(laws, e) for e in sure)
        )
        return verdict_of(safe, informative=tempting)

    return examine_all(product(_worlds(effort), alphas), decide, show=_show_world)


def own_actions(effort: Effort, *, helper: Helper = Helper.DEMONSTRATOR) -> Outcome:
    """While an agent acts within the vetoed law, or is helped, no veto of a never-event is lifted.

    Even if its own actions update the posterior: at every threshold, on every path of two steps.
    """
    own = events(2)
    alphas = (Fraction(1, 32), Fraction(3, 10))

    def decide(case: tuple[tuple[Laws, Laws, Evidence], Fraction]) -> Verdict:
        (tau, b, evidence), alpha = case
        never = [_never(tau, e) for e in own]
        vetoed = evidence.vetoed(2, alpha)
        kept = [x and y for x, y in zip(never, vetoed, strict=True)]
        paths: list[tuple[int | None, Evidence]] = [(None, evidence)]
        for _ in range(2):
            followers: list[tuple[int | None, Evidence]] = []
            for last, known in paths:
                now = known.vetoed(2, alpha)
                if any(k and not n for k, n in zip(kept, now, strict=True)):
                    return Verdict.FAILS
                row = vetoed_row(last, b[last], now)
                help_law = tau[last] if helper is Helper.DEMONSTRATOR else b[last]
                followers += [
                    (symbol, known.after(last, symbol, b[last]))
                    for symbol in range(2)
                    if row[symbol] or (sum(row) < 1 and help_law[symbol])
                ]
            paths = followers
        lifted = any(
            k and not n
            for _, known in paths
            for k, n in zip(kept, known.vetoed(2, alpha), strict=True)
        )
        return verdict_of(not lifted, informative=any(kept))

    return examine_all(product(_worlds(effort), alphas), decide, show=_show_world)


def agent_in_the_data(
    effort: Effort, *, update: Update = Update.ALL, n_visits: int = 12
) -> Outcome:
    """If the agent's actions count, doing E once while it is still open keeps it open for good.

    b gives E one half at every visit; the prior is 1/16 and alpha 1/2. The agent does E once, for
    `ln 2` nats, before E is vetoed; the demonstrator then comes by n times and never does it.
    """
    del effort
    counted = int(update is Update.ALL)
    given = [Fraction(1, 16)], [HALF ** (n_visits + counted)], [counted]
    open_at_first = not is_vetoed([Fraction(1, 16)], [ONE], [0], alpha=HALF)[0]
    stands = bool(open_at_first and not is_vetoed(*given, alpha=HALF)[0])
    weight = never_weights(*given)[0]
    return Outcome(
        verdict=verdict_of(stands),
        cases=1,
        note=f"w_E = {weight}: E costs ln 2 nats, after any number of visits" if stands else "",
        counterexample="" if stands else f"w_E = {weight}",
    )


def kl_to_the_demonstrator(effort: Effort, *, never_above: bool = False) -> Outcome:
    """`KL(pi||tau) <= KL(pi||nu)` for the vetoed law nu, which is false.

    What the demonstrator does seldom and the imitator often is no event that never happens. Cut
    down to the demonstrator's own law, as the pessimistic imitator is, nu does bound it.
    """

    def decide(case: tuple[Laws, Laws, Evidence]) -> Verdict:
        tau, b, evidence = case
        vetoed = evidence.vetoed(2, Fraction(1, 32))
        rows = [vetoed_row(last, b[last], vetoed) for last in (None, 0, 1)]
        if never_above:
            rows = [
                tuple(map(min, row, tau[last]))
                for last, row in zip((None, 0, 1), rows, strict=True)
            ]
        nu = as_table([rows[0]]), as_table(rows[1:])
        mu = as_table([tau[None]]), as_table([tau[0], tau[1]])
        return verdict_of(
            all(fixed_kl_nats(agent, mu) <= fixed_kl_nats(agent, nu) for agent in AGENTS)
        )

    return examine_all(_worlds(effort), decide, show=lambda c: _show_world((c, Fraction(1, 32))))


def _show_world(case: tuple[tuple[Laws, Laws, Evidence], Fraction]) -> str:
    (tau, b, evidence), alpha = case
    tables = {
        name: (as_table([laws[None]]), as_table([laws[0], laws[1]]))
        for name, laws in (("tau", tau), ("b", b))
    }
    return f"{show_tables(**tables)}; occurrences {evidence.occurrences}; alpha {alpha}"


# ---------------------------------------------------------------- the price of what is left


def expected_below(effort: Effort, *, power: int = 1, scale: Fraction = ONE) -> Outcome:
    """An unvetoed never-event has `lambda <= -ln m < c C` (c = 1), C with alpha/(1-alpha) in it.

    And the mean price of its visits is at least `ln n - ln lambda`, above the toolkit's bound.
    """

    def decide(case: tuple[Row, Fraction, Fraction]) -> Verdict:
        rates, prior, alpha = case
        m = math.prod((1 - b for b in rates), start=ONE)
        if is_vetoed([prior], [m], [0], alpha=alpha)[0]:
            return Verdict.VACUOUS
        expected, n = sum(rates), len(rates)
        odds = (1 - prior) / prior * (alpha / (1 - alpha)) ** power
        bound = scale * LogSum.log(odds)
        in_floats = Fraction(unvetoed_expectation_bound(prior, alpha))
        right = (
            LogSum.rational(expected) <= -LogSum.log(m) < bound
            and abs(in_floats - Fraction(float(bound))) <= ROUNDING
        )
        if not expected or ZERO in rates:
            return verdict_of(right, informative=bool(expected))
        mean = sum((LogSum.log(1 / b) for b in rates), LogSum.rational(0)) / n
        price = Fraction(unvetoed_price_bound_nats(n, prior, alpha))
        stated = abs(price - Fraction(math.log(n) - math.log(float(bound)))) <= ROUNDING
        return verdict_of(
            right and stated and mean >= LogSum.log(n / expected) and mean > price - ROUNDING
        )

    return examine_all(_visited(effort), decide, show=_show_visits)


def cheapest_price(effort: Effort, *, mean: bool = False) -> Outcome:
    """Not the mean alone, every single visit's price is above `ln n - ln C`: false."""

    def decide(case: tuple[Row, Fraction, Fraction]) -> Verdict:
        rates, prior, alpha = case
        m = math.prod((1 - b for b in rates), start=ONE)
        if is_vetoed([prior], [m], [0], alpha=alpha)[0] or not any(rates):
            return Verdict.VACUOUS
        price = Fraction(unvetoed_price_bound_nats(len(rates), prior, alpha))
        if mean and ZERO in rates:
            return Verdict.HOLDS
        prices = [LogSum.log(1 / b) for b in rates if b]
        least = sum(prices, LogSum.rational(0)) / len(prices) if mean else min(prices)
        return verdict_of(least > price - ROUNDING)

    return examine_all(_visited(effort), decide, show=_show_visits)


def _visited(effort: Effort) -> Iterator[tuple[Row, Fraction, Fraction]]:
    """The imitator's rates at up to some visits, in any order; priors; thresholds."""
    most = {Effort.SMALLEST: 3, Effort.DEFAULT: 4, Effort.THOROUGH: 6}[effort]
    rates = [Fraction(k, 8) for k in range(5)]
    for prior, alpha in product((Fraction(1, 4), Fraction(1, 64)), (Fraction(1, 3), HALF)):
        for n in range(1, most + 1):
            for visits in combinations_with_replacement(rates, n):
                yield visits, prior, alpha


def _show_visits(case: tuple[Row, Fraction, Fraction]) -> str:
    rates, prior, alpha = case
    return f"rates {', '.join(map(str, rates))}; s = {prior}, alpha = {alpha}"


def jensen(effort: Effort, *, slope: int = 1) -> Outcome:
    """`-ln x >= c (1 - x)` for all x > 0 (c = 1), whose sum over `b_i n/lambda` is Jensen's.

    With `x = e^u`: `e^u - 1 - u` is 0 with slope 0 at u = 0, and convex. `x <= -ln(1-x)` is the
    same at `1 - x`.
    """
    u = sp.symbols("u", real=True)
    gap = slope * (sp.exp(u) - 1) - u
    at_0 = gap.subs(u, 0), sp.diff(gap, u).subs(u, 0)
    sizes = positive("b1 b2 b3")
    mean = sum(sizes) / len(sizes)
    del effort
    return all_of(
        *map(symbolic, at_0),
        nonnegative(sp.diff(gap, u, 2).subs(u, sp.log(positive("x")[0]))),
        symbolic(sum(1 - b / mean for b in sizes)),
    )


# ---------------------------------------------------------------- false vetoes


def martingale(effort: Effort, *, misjudged: Any = 1) -> Outcome:
    """`E[1{c'=0}/m'] = 1{c=0}/m` at a visit at which b has the demonstrator's rate p < 1.

    An occurrence makes it 0. At p = 1 nothing else comes, and the mean is 0: it never rises.
    """
    del effort
    odds, m = positive("u m")
    p = odds / (1 + odds)
    return symbolic((1 - p) * 1 / (m * (1 - misjudged * p)) + p * 0 - 1 / m)


def _ever_vetoed(b: Laws, behaviour: Laws, alpha: Fraction, n_steps: int) -> tuple[Fraction, ...]:
    """With what probability each event is vetoed at some time, under data from `behaviour`."""
    n_symbols = len(b[None])
    found = [ZERO] * len(events(n_symbols))
    waiting: list[tuple[int | None, Fraction, Evidence, frozenset[int], int]] = [
        (None, ONE, Evidence.none(n_symbols), frozenset(), 0)
    ]
    while waiting:
        last, probability, evidence, before, t = waiting.pop()
        vetoed = evidence.vetoed(n_symbols, alpha)
        for e in {e for e, v in enumerate(vetoed) if v} - before:
            found[e] += probability
        if t < n_steps:
            ever = before | {e for e, v in enumerate(vetoed) if v}
            waiting += [
                (x, probability * p, evidence.after(last, x, b[last]), ever, t + 1)
                for x, p in enumerate(behaviour[last])
                if p
            ]
    return tuple(found)


def false_vetoes(
    effort: Effort, *, power: int = 1, agent_counts: bool = False, scale: Fraction = ONE
) -> Outcome:
    """The expected number of events ever vetoed is at most `c (1/alpha - 1) sum s/(1-s)` (c = 1).

    Every law of the next symbol given the last with probabilities in thirds; all histories.
    """
    n_steps = {Effort.SMALLEST: 4, Effort.DEFAULT: 5, Effort.THOROUGH: 7}[effort]
    rows = distributions(2, 3)
    priors = [Fraction(event_prior(e.bits)) for e in events(2)]
    always: Laws = dict.fromkeys((None, 0, 1), (ONE, ZERO))

    def decide(case: tuple[tuple[Row, Row, Row], Fraction]) -> Verdict:
        laws: Laws = dict(zip((None, 0, 1), case[0], strict=True))
        alpha = case[1]
        found = _ever_vetoed(laws, always if agent_counts else laws, alpha, n_steps)
        bound = Fraction(false_vetoes_bound(priors, alpha))
        by_formula = (1 / alpha - 1) ** power * sum((s / (1 - s) for s in priors), ZERO)
        return verdict_of(
            sum(found) <= scale * bound and bound == by_formula,
            informative=bound < len(priors) and sum(found) > 0,
        )

    cases = product(product(rows, repeat=3), (Fraction(1, 3), Fraction(3, 5)))
    return examine_all(cases, decide, show=lambda c: f"laws {c[0]}, alpha {c[1]}, {n_steps} steps")


def false_vetoes_of_a_mixture(effort: Effort, *, power: int = 1) -> Outcome:
    """With a Bayesian mixture as imitator the bound is divided by the demonstrator's weight.

    Two memoryless models; the first is the demonstrator, and the imitator predicts by its
    posterior. For the event "the next symbol is 1", anywhere.
    """
    n_steps = 6 if effort is not Effort.THOROUGH else 10
    prior_of_event, alpha = Fraction(1, 8), HALF
    rates = [Fraction(k, 5) for k in range(6)]

    def decide(case: tuple[Fraction, Fraction, Fraction]) -> Verdict:
        rate, other, weight = case
        found, by_rate, by_other, never = ZERO, ONE, ONE, ONE
        for _ in range(n_steps + 1):
            # The history without an occurrence, the only one on which a veto can come.
            if is_vetoed([prior_of_event], [never], [0], alpha=alpha)[0]:
                found = by_rate
                break
            total = weight * by_rate + (1 - weight) * by_other
            predicted = (weight * by_rate * rate + (1 - weight) * by_other * other) / total
            by_rate, by_other = by_rate * (1 - rate), by_other * (1 - other)
            never *= 1 - predicted
        bound = Fraction(false_vetoes_bound([prior_of_event], alpha)) / weight**power
        return verdict_of(found <= bound, informative=found > 0 and bound < 1)

    cases = (
        case for case in product(rates[:4], rates, (HALF, Fraction(1, 4))) if case[0] < case[1]
    )
    return examine_all(
        cases,
        decide,
        show=lambda c: f"rates {c[0]} (tau) and {c[1]}, w(tau) = {c[2]}, {n_steps} steps",
    )


def audit_of_a_mixture(effort: Effort, *, share: Fraction = ONE) -> Outcome:
    """`E_mu[-ln m_E] <= c ln(1/w(mu))` (c = 1) for a never-event E of a model mu of the mixture.

    In every step `-ln(1 - b(E|h)) <= KL(mu||b)`, by merging what is not E; the steps' KLs sum to
    `KL(mu||b)` of histories, and `b >= w(mu) mu`. Two memoryless models over three symbols, of
    which mu never writes the last; every history.
    """
    n_steps = 2 if effort is Effort.SMALLEST else 3
    rows = distributions(3, 3 if effort is Effort.SMALLEST else 4)

    def doubt(mu: Row, other: Row, weights: tuple[Fraction, Fraction], steps: int) -> LogSum:
        if not steps:
            return LogSum.rational(0)
        total = sum(weights)
        b = [(weights[0] * p + weights[1] * q) / total for p, q in zip(mu, other, strict=True)]
        later = (
            mu[x] * doubt(mu, other, (weights[0] * mu[x], weights[1] * other[x]), steps - 1)
            for x in range(2)
            if mu[x]
        )
        return sum(later, LogSum.log(1 / (1 - b[2])))

    def decide(case: tuple[Row, Row, Fraction]) -> Verdict:
        mu, other, weight = case
        found = doubt(mu, other, (weight, 1 - weight), n_steps)
        # By counts, of which the posterior of memoryless models is a function.
        by_counts = LogSum.rational(0)
        for ones, zeros in product(range(n_steps), repeat=2):
            if ones + zeros < n_steps:
                kept, gone = (p[0] ** zeros * p[1] ** ones for p in (mu, other))
                total = weight * kept + (1 - weight) * gone
                event = (1 - weight) * gone * other[2] / total if kept else ZERO
                by_counts += math.comb(ones + zeros, ones) * kept * LogSum.log(1 / (1 - event))
        return verdict_of(
            found == by_counts and found <= share * LogSum.log(1 / weight),
            informative=other[2] > 0,
        )

    cases = (
        (mu, other, weight)
        for mu, other in product(rows, repeat=2)
        for weight in (HALF, Fraction(1, 8))
        if not mu[2]
    )
    return examine_all(
        cases,
        decide,
        show=lambda c: f"mu = {c[0]}, the other {c[1]}, w(mu) = {c[2]}, {n_steps} steps",
    )


# ---------------------------------------------------------------- dirty data


def graded(effort: Effort, *, others: int = len(GRADES) - 1) -> Outcome:
    """Without an occurrence the graded factor is 0 iff lambda is at least a threshold.

    `ln(c (1-s)/s) + min(0, ln(alpha/(1-alpha)))`, c the number of grades that share s. Where the
    imitator is right, `c_E = lambda_E`, the factor is 1.
    """
    steps = 30 if effort is Effort.SMALLEST else 120
    cases = product((1, 5, 20), (Fraction(1, 50), HALF, Fraction(9, 10)), range(1, steps + 1))

    def decide(case: tuple[int, Fraction, int]) -> Verdict:
        bits, alpha, step = case
        s, expected = Fraction(1, 2**bits), Fraction(30 * step, steps)
        threshold = LogSum.log(others * (1 - s) / s)
        if alpha < HALF:
            threshold += LogSum.log(alpha / (1 - alpha))
        factors = graded_factors(
            EventEvidence(
                bits=np.full(2, float(bits)),
                visits=np.full(2, 10**6),
                occurrences=np.array([0, 50]),
                expected=np.array([float(expected), 50.0]),
                log_never=np.array([-float(expected), -51.0]),
            ),
            float(alpha),
        )
        return verdict_of((factors[0] == 0) == (expected >= threshold) and factors[1] == 1)

    return examine_all(cases, decide, show=lambda c: f"{c[0]} bits, alpha {c[1]}, step {c[2]}")


# ---------------------------------------------------------------- blocking


def blocking_maximum(effort: Effort, *, shift: int = 1) -> Outcome:
    """`ln p + n ln(1-p)` rises up to `p = 1/(n + c)` and falls from there (c = 1).

    Its slope times `p (1-p)` is `1 - (n+c) p`; and there `p (1-p)^n = n^n/(n+1)^(n+1)`.
    """
    del effort
    n, odds = positive("n u")
    p = odds / (1 + odds)
    x = sp.symbols("x", positive=True)
    slope = sp.diff(sp.log(x) + n * sp.log(1 - x), x).subs(x, p)
    best = 1 / (n + shift)
    value = sp.log(best) + n * (sp.log(n + shift - 1) - sp.log(n + shift))
    return all_of(
        symbolic(slope * p * (1 - p) - (1 - (n + shift) * p)),
        symbolic(value - (n * sp.log(n) - (n + 1) * sp.log(n + 1))),
    )


def blocking_below(effort: Effort, *, factor: Any = 1) -> Outcome:
    """`n^n/(n+1)^(n+1) < c/(e n)` for all n > 0 (c = 1).

    With t = 1/n the logarithm of their ratio is `((1+t) ln(1+t) - t)/t`; the bracket is 0 at
    t = 0, and its slope is `ln(1+t) > 0`.
    """
    del effort
    t = positive("t")[0]
    n = 1 / t
    ratio = sp.log(factor) - 1 - sp.log(n) - n * sp.log(n) + (n + 1) * (sp.log(1 + t) - sp.log(t))
    bracket = (1 + t) * sp.log(1 + t) - t
    return all_of(
        symbolic(ratio - bracket / t),
        symbolic(bracket.subs(t, 0)),
        nonnegative(sp.simplify(sp.diff(bracket, t))),
    )


def blocking_of_classes(effort: Effort, *, slack: Fraction = ONE) -> Outcome:
    """`p (1-p)^n <= blocking_bound(n) <= c/(e n)` (c = 1) in balls."""
    most = 12 if effort is Effort.SMALLEST else 60
    cases = ((n, Fraction(k, 60)) for n in range(1, most + 1) for k in range(61))

    def decide(case: tuple[int, Fraction]) -> Verdict:
        n, p = case
        bound = blocking_bound(n)
        if p * (1 - p) ** n > bound:
            return Verdict.FAILS
        below = at_most(lambda: ball(bound), lambda: ball(slack / n) / ball(1).exp())
        return below if below is not Verdict.HOLDS else verdict_of(True, informative=0 < p < 1)

    return examine_all(cases, decide, show=lambda c: f"n = {c[0]}, p = {c[1]}")


def blocking_as_printed(effort: Effort, *, visits_more: int = 1) -> Outcome:
    """`p (1-p)^n <= 1/(e (n+1))`, which is false for every n at `p = 1/(n+1)`."""
    del effort

    def decide(n: int) -> Verdict:
        p = Fraction(1, n + 1)
        return at_most(
            lambda: ball(p * (1 - p) ** n),
            lambda: ball(Fraction(1, n + visits_more)) / ball(1).exp(),
        )

    return examine_all(
        range(1, 4),
        decide,
        show=lambda n: (
            f"n = {n}, p = 1/{n + 1}: {float(blocking_bound(n)):.4f} against "
            f"{1 / (math.e * (n + 1)):.4f}"
        ),
    )


def blocked_once(effort: Effort, *, lifted: bool = True) -> Outcome:
    """Where a veto is lifted by an occurrence, each event blocks the demonstrator at most once.

    Over every history of some steps, whoever the demonstrator is; b is (1/2, 1/2) or (7/8, 1/8).
    """
    n_steps = {Effort.SMALLEST: 5, Effort.DEFAULT: 7, Effort.THOROUGH: 9}[effort]
    laws = ((HALF, HALF), (Fraction(7, 8), Fraction(1, 8)))
    cases = product(product(range(2), repeat=n_steps), laws, (Fraction(1, 32), HALF))

    def decide(case: tuple[tuple[int, ...], Row, Fraction]) -> Verdict:
        history, law, alpha = case
        evidence, last, blocked = Evidence.none(2), None, [0] * len(events(2))
        at_first = evidence.vetoed(2, alpha)
        for symbol in history:
            vetoed = evidence.vetoed(2, alpha) if lifted else at_first
            for e, event in enumerate(events(2)):
                blocked[e] += vetoed[e] and event.happens(last, symbol)
            evidence = evidence.after(last, symbol, law)
            last = symbol
        return verdict_of(max(blocked) <= 1, informative=max(blocked) == 1)

    return examine_all(cases, decide, show=lambda c: f"history {c[0]}, b = {c[1]}, alpha {c[2]}")


def _no_occurrence(original: Any) -> Any:
    """The fault of overlooking that events occurred."""
    return lambda s, m, c, *, alpha: original(s, m, [0] * len(c), alpha=alpha)


_OWN: Final = (Statement.EVENT_VETOES,)

CHECKS: Final = (
    Check(
        label="vetoes-rule",
        words="An event is vetoed where the imitator that never does it has a posterior weight of "
        "at least alpha against the imitator as it is.",
        formula="w_E = s/(s + (1-s) m_E) if c_E = 0 else 0",
        kind=Kind.EXHAUSTIVE,
        scope="every history of 3 visits with rates in quarters, s = 1/8, 1/2, 3 values of alpha",
        examine=rule,
        mutations=(Mutation(name="1 - alpha for alpha", constants={"inverted": True}),),
        statements=_OWN,
        least_informative=150,
        sabotages=(
            Sabotage(
                name="the prior's odds are turned over",
                owner=vetoes,
                attribute="never_weights",
                fault=lambda original: lambda s, m, c: original([1 - x for x in s], m, c),
            ),
            Sabotage(
                name="twice the threshold",
                owner=vetoes,
                attribute="is_vetoed",
                fault=with_keyword("alpha", lambda alpha: min(2 * alpha, ONE)),
            ),
        ),
    ),
    Check(
        label="vetoes-safety",
        words="If the demonstrator never does an event and alpha is at most its prior, no policy "
        "at a finite KL from the vetoed law, completed by the demonstrator or not, ever does it.",
        formula="alpha <= s_E, KL(pi||nu) < inf  =>  P_pi(E) = 0",
        kind=Kind.EXHAUSTIVE,
        scope="demonstrators and imitators of 2 steps with probabilities 0, 1/2, 1; 10 events; "
        "every data set of an episode; every deterministic policy; 2 values of alpha",
        examine=safety,
        mutations=(
            Mutation(name="help handed to the base model", constants={"helper": Helper.BASE}),
            Mutation(
                name="the base model where everything is vetoed",
                constants={"helper": Helper.BASE_IF_NOTHING_IS_LEFT},
            ),
            Mutation(name="alpha twice the prior", constants={"above_the_prior": Fraction(2)}),
        ),
        statements=_OWN,
        least_informative=300,
        sabotages=(
            Sabotage(
                name="twice the threshold",
                owner=vetoes,
                attribute="is_vetoed",
                fault=with_keyword("alpha", lambda alpha: 2 * alpha),
            ),
            Sabotage(
                name="the likeliest event's alpha",
                owner=vetoes,
                attribute="surest_alpha",
                fault=lambda _: lambda bits: event_prior(min(bits)),
            ),
        ),
    ),
    Check(
        label="vetoes-own-actions",
        words="Even if its own actions update the posterior, an agent that keeps within the vetoed "
        "law or is helped by the demonstrator lifts no veto of what the demonstrator never does.",
        formula="c_E = 0 stays, m_E falls  =>  w_E does not fall",
        kind=Kind.EXHAUSTIVE,
        scope="as for vetoes-safety; every path of 2 steps; alpha = 1/32, 3/10",
        examine=own_actions,
        mutations=(
            Mutation(name="help handed to the base model", constants={"helper": Helper.BASE}),
        ),
        statements=_OWN,
        least_informative=300,
        sabotages=(
            Sabotage(
                name="more visits speak for the imitator",
                owner=vetoes,
                attribute="is_vetoed",
                fault=lambda original: (
                    lambda s, m, c, *, alpha: original(s, [1 - x / 2 for x in m], c, alpha=alpha)
                ),
            ),
        ),
    ),
    Check(
        label="vetoes-agent-in-the-data",
        words="If the agent's own actions count as data, doing once what is not vetoed yet keeps "
        "it from ever being vetoed: new data of the demonstrator alone must decide.",
        formula="c_E = 1  =>  w_E = 0, whatever n_E",
        kind=Kind.EXHAUSTIVE,
        scope="one example: b = 1/2, s = 1/16, alpha = 1/2, 12 visits",
        examine=agent_in_the_data,
        mutations=(
            Mutation(
                name="the demonstrator's actions alone", constants={"update": Update.DEMONSTRATOR}
            ),
        ),
        statements=_OWN,
        sabotages=(
            Sabotage(
                name="occurrences are overlooked",
                owner=vetoes,
                attribute="is_vetoed",
                fault=_no_occurrence,
            ),
        ),
    ),
    Check(
        label="vetoes-kl-to-demonstrator",
        words="A KL budget to the vetoed law is one to the demonstrator: false, vetoes forbid what "
        "never happens and nothing else.",
        formula="KL(pi||tau) <= KL(pi||nu)",
        kind=Kind.EXHAUSTIVE,
        scope="as for vetoes-safety, alpha = 1/32; the first counterexample",
        examine=kl_to_the_demonstrator,
        mutations=(Mutation(name="never above the demonstrator", constants={"never_above": True}),),
        statements=_OWN,
        expected=Verdict.FAILS,
    ),
    Check(
        label="vetoes-jensen",
        words="The mean price of some visits is at least the price of the mean rate, and rates are "
        "at most the nats that they take from never seeing the event.",
        formula="-ln x >= 1 - x",
        kind=Kind.SYMBOLIC,
        scope="all x > 0; sums over 3 visits, termwise in general",
        examine=jensen,
        mutations=(Mutation(name="twice the slope", constants={"slope": 2}),),
        statements=_OWN,
    ),
    Check(
        label="vetoes-price",
        words="A never-event that is not vetoed was expected less than C times, so that its mean "
        "price over the demonstrator's visits is above ln n - ln C.",
        formula="lambda_E <= -ln m_E < C = ln((1-s)/s) + ln(alpha/(1-alpha))",
        kind=Kind.EXHAUSTIVE,
        scope="up to 4 visits with rates in eighths up to 1/2, 2 priors, alpha = 1/3, 1/2",
        examine=expected_below,
        mutations=(
            Mutation(name="alpha's odds are turned over", constants={"power": -1}),
            Mutation(name="nine tenths of C", constants={"scale": Fraction(9, 10)}),
        ),
        statements=_OWN,
        least_informative=80,
        sabotages=(
            Sabotage(
                name="nothing is vetoed",
                owner=vetoes,
                attribute="is_vetoed",
                fault=with_result(np.zeros_like),
            ),
            Sabotage(
                name="half of C",
                owner=vetoes,
                attribute="unvetoed_expectation_bound",
                fault=with_result(lambda bound: bound / 2),
            ),
            Sabotage(
                name="a nat more",
                owner=vetoes,
                attribute="unvetoed_price_bound_nats",
                fault=with_result(lambda bound: bound + 1),
            ),
            Sabotage(
                name="a price of 0",
                owner=vetoes,
                attribute="unvetoed_price_bound_nats",
                fault=returning(0.0),
            ),
        ),
    ),
    Check(
        label="vetoes-cheapest-price",
        words="Every single visit's price of an event that is not vetoed is above ln n - ln C: "
        "false, the bound is for the mean.",
        formula="-ln b(E|h_i) > ln n_E - ln C for all i",
        kind=Kind.EXHAUSTIVE,
        scope="as for vetoes-price; the first counterexample",
        examine=cheapest_price,
        mutations=(Mutation(name="the mean price", constants={"mean": True}),),
        statements=_OWN,
        expected=Verdict.FAILS,
    ),
    Check(
        label="vetoes-martingale",
        words="With the demonstrator's rates, the inverse likelihood of never seeing an event "
        "keeps its mean.",
        formula="E[1{c'=0}/m'] = 1{c=0}/m",
        kind=Kind.SYMBOLIC,
        scope="all rates below 1",
        examine=martingale,
        mutations=(Mutation(name="half the rate", constants={"misjudged": sp.Rational(1, 2)}),),
        statements=_OWN,
    ),
    Check(
        label="vetoes-false",
        words="With the demonstrator's rates, few events are ever vetoed.",
        formula="E #{E ever vetoed} <= (1/alpha - 1) sum_E s_E/(1-s_E)",
        kind=Kind.EXHAUSTIVE,
        scope="every law of the next of 2 symbols given the last, in thirds; 10 events; every "
        "history of 5 steps; alpha = 1/3, 3/5",
        examine=false_vetoes,
        mutations=(
            Mutation(name="1/alpha for alpha", constants={"power": -1}),
            Mutation(name="the data are an agent's", constants={"agent_counts": True}),
            Mutation(name="a tenth of it", constants={"scale": Fraction(1, 10)}),
        ),
        statements=_OWN,
        least_informative=50,
        sabotages=(
            Sabotage(
                name="a fifth of the threshold",
                owner=vetoes,
                attribute="is_vetoed",
                fault=with_keyword("alpha", lambda alpha: alpha / 5),
            ),
            Sabotage(
                name="half of it",
                owner=vetoes,
                attribute="false_vetoes_bound",
                fault=with_result(lambda bound: bound / 2),
            ),
        ),
    ),
    Check(
        label="vetoes-false-mixture",
        words="With a Bayesian imitator the demonstrator need only be one of its models: the bound "
        "is divided by its prior weight.",
        formula="E_mu #{E ever vetoed} <= (1/alpha - 1) sum_E s_E/(1-s_E) / w(mu)",
        kind=Kind.EXHAUSTIVE,
        scope="2 memoryless models with rates in fifths, w = 1/2, 1/4; one event, 6 steps",
        examine=false_vetoes_of_a_mixture,
        mutations=(Mutation(name="not divided", constants={"power": 0}),),
        statements=_OWN,
        least_informative=5,
        sabotages=(
            Sabotage(
                name="half of it",
                owner=vetoes,
                attribute="false_vetoes_bound",
                fault=with_result(lambda bound: bound / 2),
            ),
        ),
    ),
    Check(
        label="vetoes-audit-of-a-mixture",
        words="A Bayesian imitator is never badly wrong about what the demonstrator never does: an "
        "audit of it hardly finds anything.",
        formula="E_mu[-ln m_E] <= ln(1/w(mu))",
        kind=Kind.EXHAUSTIVE,
        scope="2 memoryless models over 3 symbols in quarters, w = 1/2, 1/8; every history of 3 "
        "steps",
        examine=audit_of_a_mixture,
        mutations=(Mutation(name="nine tenths", constants={"share": Fraction(9, 10)}),),
        statements=_OWN,
        least_informative=40,
    ),
    Check(
        label="vetoes-graded",
        words="The graded form rules out what never occurred from a certain number of expected "
        "occurrences on, and leaves an imitator that is right as it is.",
        formula="r = 0 iff lambda >= ln(21 (1-s)/s) + min(0, ln(alpha/(1-alpha)))",
        kind=Kind.NUMERIC,
        scope="s = 2^-1, 2^-5, 2^-20; alpha = 1/50, 1/2, 9/10; lambda up to 30 in quarters",
        examine=graded,
        mutations=(Mutation(name="the grades do not share s", constants={"others": 1}),),
        statements=_OWN,
        least_informative=200,
        sabotages=(
            Sabotage(
                name="the next grade",
                owner=vetoes,
                attribute="graded_factors",
                fault=with_result(lambda factors: factors / 2),
            ),
        ),
    ),
    Check(
        label="vetoes-blocking-maximum",
        words="An event of rate p that n visits have not seen blocks the next one most often at "
        "p = 1/(n+1).",
        formula="max_p p (1-p)^n = n^n/(n+1)^(n+1)",
        kind=Kind.SYMBOLIC,
        scope="all n > 0 and 0 < p < 1",
        examine=blocking_maximum,
        mutations=(Mutation(name="at 1/(n+2)", constants={"shift": 2}),),
        statements=_OWN,
    ),
    Check(
        label="vetoes-blocking-below",
        words="That is less than 1/(e n).",
        formula="n^n/(n+1)^(n+1) < 1/(e n)",
        kind=Kind.SYMBOLIC,
        scope="all n > 0",
        examine=blocking_below,
        mutations=(Mutation(name="nine tenths of it", constants={"factor": sp.Rational(9, 10)}),),
        statements=_OWN,
    ),
    Check(
        label="vetoes-blocking",
        words="The toolkit's bound on blocking is one, and less than 1/(e n).",
        formula="p (1-p)^n <= n^n/(n+1)^(n+1) <= 1/(e n)",
        kind=Kind.CERTIFIED,
        scope="n = 1, ..., 60; p in 60ths",
        examine=blocking_of_classes,
        mutations=(Mutation(name="nine tenths of it", constants={"slack": Fraction(9, 10)}),),
        statements=_OWN,
        least_informative=100,
        sabotages=(
            Sabotage(
                name="one visit more",
                owner=vetoes,
                attribute="blocking_bound",
                fault=lambda original: lambda visits: original(visits + 1),
            ),
        ),
    ),
    Check(
        label="vetoes-blocking-as-noted",
        words="The bound 1/(e (n+1)), which is easily written down for it: false for every n at "
        "p = 1/(n+1).",
        formula="p (1-p)^n <= 1/(e (n+1))",
        kind=Kind.CERTIFIED,
        scope="n = 1, 2, 3; the first counterexample",
        examine=blocking_as_printed,
        mutations=(Mutation(name="1/(e n)", constants={"visits_more": 0}),),
        statements=_OWN,
        expected=Verdict.FAILS,
    ),
    Check(
        label="vetoes-blocked-once",
        words="If its occurrence lifts a veto, each event blocks the demonstrator at most once.",
        formula="#{t : E is vetoed and occurs} <= 1",
        kind=Kind.EXHAUSTIVE,
        scope="every history of 7 steps, 2 imitators, 10 events, alpha = 1/32, 1/2",
        examine=blocked_once,
        mutations=(Mutation(name="the first vetoes stay", constants={"lifted": False}),),
        statements=_OWN,
        least_informative=60,
        sabotages=(
            Sabotage(
                name="occurrences are overlooked",
                owner=vetoes,
                attribute="is_vetoed",
                fault=_no_occurrence,
            ),
        ),
    ),
)
