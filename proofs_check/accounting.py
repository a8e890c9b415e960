"""Budget accounting: `exact` is a bound on every path, `realized` is none.

*Exact*: a step may cost at most what is left, `0 <= K_t <= B_t`, `B_{t+1} = B_t - K_t`. Then
`sum K_t = B_0 - B_end <= B_0`.

*Realized*: `B_{t+1} = max(B_t - ln(pi(a)/beta(a)), 0)`. Over two steps, first a bet of x on a
token of probability p: `KL_1 = K(x, p) <= B_0`. Where it is won (probability x) the log-ratio
`ln(x/p) >= K(x, p)` is charged; where it is lost, `ln((1-x)/(1-p)) <= 0` is *credited*, and the
second step may spend `B_0 - ln((1-x)/(1-p))`. So the expected total with a full second spend is

    T(x, p) = K(x, p) + x max(B_0 - ln(x/p), 0) + (1 - x) (B_0 - ln((1-x)/(1-p))).

With `K = x ln(x/p) + (1-x) ln((1-x)/(1-p))` this is `B_0` wherever nothing is clamped, and
`B_0 + x (ln(x/p) - B_0)` where the won bet is clamped: the clamp alone leaks.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import product
from typing import Any, Final

import numpy as np
import sympy as sp
from flint import arb

from proofs_check.ball import at_most, ball, within
from proofs_check.sabotage import Sabotage, returning, with_keyword, with_result
from proofs_check.symbolic import kl_of, positive, symbolic
from proofs_check.verdict import (
    Check,
    Effort,
    Kind,
    Mutation,
    Outcome,
    Verdict,
    all_of,
    all_verdicts,
    examine_all,
    verdict_of,
)
from theory import bounds, budget, overspending
from theory.budget import Accounting, BudgetLedger, open_ledger
from theory.errors import InvalidBudgetError
from theory.log_sum import LogSum, kl_log_sum
from theory.paper import Statement


def exact_ledger_bounds_every_path(
    effort: Effort, *, charged: Fraction = Fraction(1), overdraft: Fraction = Fraction(0)
) -> Outcome:
    """The ledger accepts a path if and only if `c sum K_t <= B_0 + d` (c = 1, d = 0).

    After each step that it accepts `B_t = B_0 - c sum K`, `spent = sum K` and the leak is 0. All
    amounts are multiples of 1/4, which floats add without rounding.
    """

    def decide(case: tuple[Fraction, tuple[Fraction, ...]]) -> Verdict:
        start, costs = case
        ledger, spent = _open(start), Fraction(0)
        for cost in costs:
            spent += cost
            affordable = charged * spent <= start + overdraft
            try:
                ledger = ledger.charge(kl_nats=float(cost))
            except InvalidBudgetError:
                return verdict_of(not affordable)
            as_stated = (
                affordable
                and ledger.remaining_nats[0] == start - charged * spent
                and ledger.spent_nats[0] == spent
                and ledger.leak_nats[0] == 0
            )
            if not as_stated:
                return Verdict.FAILS
        return Verdict.HOLDS if spent else Verdict.VACUOUS

    return examine_all(_paths(effort), decide, show=_show_path)


def _paths(effort: Effort) -> Iterator[tuple[Fraction, tuple[Fraction, ...]]]:
    """Every sequence of costs with every budget, all of them multiples of 1/4."""
    steps = {Effort.SMALLEST: 2, Effort.DEFAULT: 4, Effort.THOROUGH: 5}[effort]
    budgets = [Fraction(quarters, 4) for quarters in (0, 1, 2, 4, 8)]
    costs = [Fraction(quarters, 4) for quarters in range(4)]
    yield from product(budgets, product(costs, repeat=steps))


def _show_path(case: tuple[Fraction, tuple[Fraction, ...]]) -> str:
    return f"B_0 = {case[0]}, costs {', '.join(map(str, case[1]))}"


def _open(start: Fraction, accounting: Accounting = Accounting.EXACT) -> BudgetLedger:
    """A ledger of one episode."""
    return open_ledger(np.array([float(start)]), accounting=accounting)


def realized_identity(effort: Effort, *, clamp_forgives: int = 1, charged: int = 1) -> Outcome:
    """The two-step total is `B_0` without a clamp, and `B_0 + x (ln(x/p) - B_0)` with one.

    Without a clamp what is charged is c times the log-ratio, c = 1.
    """
    del effort
    x, p, start = positive("x p B0")
    won, lost = sp.log(x / p), sp.log((1 - x) / (1 - p))
    first = kl_of((x, 1 - x), (p, 1 - p))
    unclamped = first + x * (start - charged * won) + (1 - x) * (start - charged * lost)
    clamped = first + (1 - x) * (start - lost)
    return all_of(
        symbolic(unclamped - start),
        symbolic(clamped - (start + clamp_forgives * x * (won - start))),
    )


def realized_supremum_is_twice_the_budget(
    effort: Effort, *, factor: Fraction = Fraction(2), least_budget: Fraction = Fraction(1)
) -> Outcome:
    """For `B_0 >= 1` the supremum of the two-step total is `2 B_0`: no more, and not less.

    *No more* (symbolic). With `K <= B_0` and `ln((1-x)/(1-p)) >= ln(1-x)` the clamped total is at
    most `B_0 + (1-x)(B_0 - ln(1-x))`. Its gap to `2 B_0`, `B_0 - (1-x)(B_0 - ln(1-x))`, is 0 at
    x = 0, with slope `B_0 - ln(1-x) - 1 >= 0`.
    *Not less* (balls). `p = x exp(-B_0/x)` has `K(x, p) < B_0` and total `(2 - x) B_0`: at
    x = 1/1000 it is above `(c - 1/500) B_0` for c = 2.
    """
    u, s = positive("u s")
    x = sp.Symbol("x", positive=True)
    start = sp.Rational(least_budget.numerator, least_budget.denominator) + s
    gap = (sp.Rational(factor.numerator, factor.denominator) - 1) * start - (1 - x) * (
        start - sp.log(1 - x)
    )
    slope = sp.simplify(sp.diff(gap, x).subs(x, u / (1 + u)))
    no_more = all_of(symbolic(gap.subs(x, 0)), _nonnegative_with_logs(slope, u, s))
    if no_more.verdict is not Verdict.HOLDS:
        return no_more
    budgets = [Fraction(1), Fraction(3), Fraction(10)][: 1 if effort is Effort.SMALLEST else 3]
    bet = Fraction(1, 1000)
    reached = examine_all(
        budgets,
        lambda b0: all_verdicts(
            at_most(lambda: _first_kl(bet, b0), lambda: ball(b0)),
            at_most(
                lambda: ball((factor - Fraction(1, 500)) * b0), lambda: _clamped_total(bet, b0)
            ),
        ),
        show=lambda b0: f"B_0 = {b0}",
    )
    return all_of(no_more, reached)


def _nonnegative_with_logs(slope: Any, u: Any, s: Any) -> Outcome:
    """`slope >= 0` for u, s > 0, where ln(1 + u) is written as a symbol >= 0."""
    log_term = sp.Symbol("w", nonnegative=True)
    rewritten = sp.expand(sp.expand_log(slope, force=True)).subs(sp.log(1 + u), log_term)
    if rewritten.is_nonnegative:
        return Outcome(verdict=Verdict.HOLDS, cases=1)
    at = {u: sp.Rational(1, 100), s: sp.Rational(1, 100)}
    value = sp.N(slope.subs(at), 30)
    return Outcome(
        verdict=verdict_of(bool(value >= 0)) if value < 0 else Verdict.UNDECIDED,
        cases=1,
        counterexample=f"slope {sp.N(value, 5)} at u = s = 1/100" if value < 0 else "",
    )


def _first_kl(x: Fraction, b0: Fraction) -> Any:
    """`K(x, p)` at `p = x exp(-B_0/x)`."""
    p = ball(x) * (-ball(b0 / x)).exp()
    return ball(b0) + ball(1 - x) * (ball(1 - x) / (1 - p)).log()


def _clamped_total(x: Fraction, b0: Fraction) -> Any:
    """The two-step total at `p = x exp(-B_0/x)`, from its definition."""
    p = ball(x) * (-ball(b0 / x)).exp()
    lost = (ball(1 - x) / (1 - p)).log()
    left_after_win = arb.max(ball(b0 - b0 / x), arb(0))
    return _first_kl(x, b0) + ball(x) * left_after_win + ball(1 - x) * (ball(b0) - lost)


def realized_ratio_is_unbounded(effort: Effort, *, power: int = 2) -> Outcome:
    """At `p = 1/2, x = (1+s)/2, B_0 = s^2`: affordable for small s, with unbounded ratio.

    `K(x, p)/B_0 -> 1/2` as s -> 0, so the bet is affordable; the total over `B_0` is
    `1 + x (ln(x/p) - s^c)/s^c` (c = 2), which tends to infinity.
    """
    del effort
    s = sp.Symbol("s", positive=True)
    x = (1 + s) / 2
    ratio = 1 + x * (sp.log(1 + s) - s**power) / s**power
    limit = sp.limit(ratio, s, 0, "+")
    kl_over_budget = sp.limit(
        kl_of((x, 1 - x), (sp.Rational(1, 2), sp.Rational(1, 2))) / s**2, s, 0, "+"
    )
    found = f"ratio tends to {limit}, K / B_0 to {kl_over_budget}"
    holds = bool(limit == sp.oo and kl_over_budget < 1)
    return Outcome(
        verdict=verdict_of(holds),
        cases=1,
        note=found if holds else "",
        counterexample="" if holds else found,
    )


def realized_below_one(effort: Effort, *, stretch: Fraction = Fraction(1)) -> Outcome:
    """Explicit affordable bets at `B_0 < 1` whose two-step total is at least c times `B_0`."""
    del effort
    bets = [
        (Fraction(1, 100), Fraction(4769, 10_000), Fraction(407, 1000), Fraction(8)),
        (Fraction(1, 10), Fraction(420, 1000), Fraction(220, 1000), Fraction(328, 100)),
        (Fraction(1, 2), Fraction(295, 1000), Fraction(25, 1000), Fraction(215, 100)),
    ]
    return examine_all(
        bets,
        lambda bet: all_verdicts(
            at_most(lambda: _kl(bet[1], bet[2]), lambda: ball(bet[0])),
            at_most(
                lambda: ball(stretch * bet[3] * bet[0]), lambda: _total(bet[1], bet[2], bet[0])
            ),
        ),
        show=lambda bet: f"B_0 = {bet[0]}, x = {bet[1]}, p = {bet[2]}, ratio {stretch * bet[3]}",
    )


def searched_supremum(effort: Effort, *, stretch: Fraction = Fraction(1)) -> Outcome:
    """`realized_two_step_supremum`: its bet is affordable and attains c times its total (c = 1).

    Both to 1e-9, in balls; from `B_0 = 1` on it says `2 B_0`.
    """
    del effort
    tolerance = Fraction(1, 10**9)

    def decide(b0: Fraction) -> Verdict:
        found = overspending.realized_two_step_supremum(float(b0))
        if b0 >= 1:
            return verdict_of(Fraction(found.total_nats) == 2 * b0 * stretch)
        x, total = Fraction(found.probability), Fraction(found.total_nats) * stretch
        p = Fraction(math.exp(found.log_base_probability))
        return all_verdicts(
            at_most(lambda: _kl(x, p), lambda: ball(b0 + tolerance)),
            at_most(lambda: abs(_total(x, p, b0) - ball(total)), lambda: ball(tolerance)),
        )

    budgets = [Fraction(1, 100), Fraction(1, 10), Fraction(1, 2), Fraction(1), Fraction(3)]
    return examine_all(budgets, decide, show=lambda b0: f"B_0 = {b0}")


def largest_share_bracket(effort: Effort, *, budget_share: Fraction = Fraction(1)) -> Outcome:
    """`KL(Bern(lower)||Bern(p)) <= c B < KL(Bern(upper)||Bern(p))` (c = 1), exactly.

    That no policy within B makes an event likelier is data processing: the KL of the event's
    two cases is at most the policies' KL.
    """
    del effort
    cases = [
        (Fraction(p), Fraction(limit))
        for p in (0.5, 0.03, 2.0**-20)
        for limit in (0.0, 0.1, 1.0, 3.0, 6.0)
    ]

    def kl(q: float, p: Fraction) -> LogSum:
        return kl_log_sum((Fraction(q), 1 - Fraction(q)), (p, 1 - p))

    def decide(case: tuple[Fraction, Fraction]) -> Verdict:
        p, limit = case
        if not limit:
            return Verdict.VACUOUS  # without a budget nothing is gained
        q = bounds.largest_share(float(p), float(limit))
        return verdict_of(
            kl(q.lower, p) <= limit * budget_share
            and (q.lower == 1 or kl(q.upper, p) > limit * budget_share)
        )

    return examine_all(cases, decide, show=lambda case: f"p = {case[0]}, B = {case[1]}")


def floor_must_be_charged(effort: Effort, *, charged: int = 1) -> Outcome:
    """With a floor f = 1/8 under every step's KL no path that the ledger accepts spends over `B_0`.

    A step spends `K_t + f` and charges `K_t + c f` (c = 1). Where the floor is free (c = 0) a path
    of n steps spends up to `B_0 + n f`.
    """
    floor = Fraction(1, 8)

    def decide(case: tuple[Fraction, tuple[Fraction, ...]]) -> Verdict:
        start, costs = case
        ledger, spent = _open(start), Fraction(0)
        for cost in costs:
            try:
                ledger = ledger.charge(kl_nats=float(cost + charged * floor))
            except InvalidBudgetError:
                break
            spent += cost + floor
        return verdict_of(spent <= start) if spent else Verdict.VACUOUS

    return examine_all(_paths(effort), decide, show=_show_path)


def realized_ledger(effort: Effort, *, stretch: Fraction = Fraction(1)) -> Outcome:
    """The ledger's two steps spend `c T(x, p)` in expectation, and leak what is beyond `B_0`.

    c = 1; to 1e-12, the ledger in float64 and T in balls. The second step spends all that remains.
    """
    fractions = [Fraction(1, 4), Fraction(1, 2), Fraction(9, 10)]
    bases = [Fraction(1, 100), Fraction(1, 8), Fraction(2, 5)]
    budgets = [Fraction(1, 2), Fraction(1), Fraction(3)][: 1 if effort is Effort.SMALLEST else 3]
    tolerance = Fraction(1, 10**12)

    def played(bet: tuple[Fraction, Fraction, Fraction], ratio: float) -> tuple[float, float]:
        x, p, start = bet
        ledger = _open(start, Accounting.REALIZED)
        ledger = ledger.charge(kl_nats=_float(_kl(x, p)), log_ratio_nats=ratio)
        ledger = ledger.charge(kl_nats=ledger.remaining_nats, log_ratio_nats=0.0)
        return float(ledger.spent_nats[0]), float(ledger.leak_nats[0])

    def decide(bet: tuple[Fraction, Fraction, Fraction]) -> Verdict:
        x, p, start = bet
        won, won_leak = played(bet, math.log(x / p))
        lost, lost_leak = played(bet, math.log((1 - x) / (1 - p)))
        expected = x * Fraction(won) + (1 - x) * Fraction(lost)
        leaks = [
            abs(Fraction(leak) - max(Fraction(spent) - start, Fraction(0))) <= tolerance
            for spent, leak in ((won, won_leak), (lost, lost_leak))
        ]
        return all_verdicts(
            within(lambda: ball(stretch) * _total(x, p, start), expected, tolerance),
            verdict_of(all(leaks)),
        )

    return examine_all(
        (bet for bet in product(fractions, bases, budgets) if bet[0] > bet[1]),
        decide,
        show=lambda bet: f"x = {bet[0]}, p = {bet[1]}, B_0 = {bet[2]}",
    )


def _float(value: Any) -> float:
    """The middle of a ball."""
    return float(value.mid())


def _kl(x: Fraction, p: Fraction) -> Any:
    return ball(x) * ball(x / p).log() + ball(1 - x) * ball((1 - x) / (1 - p)).log()


def _total(x: Fraction, p: Fraction, b0: Fraction) -> Any:
    left_after_win = arb.max(ball(b0) - ball(x / p).log(), arb(0))
    return (
        _kl(x, p)
        + ball(x) * left_after_win
        + ball(1 - x) * (ball(b0) - ball((1 - x) / (1 - p)).log())
    )


CHECKS: Final = (
    Check(
        label="accounting-exact",
        words="Exact accounting bounds the total KL of every path by the budget: the ledger "
        "accepts a step if and only if the KLs still sum to at most the budget.",
        formula="B_{t+1} = B_t - K_t, 0 <= K_t <= B_t  =>  sum K_t = B_0 - B_n <= B_0",
        kind=Kind.EXHAUSTIVE,
        scope="every path of 4 steps that cost 0, 1/4, 1/2 or 3/4, budgets 0, 1/4, 1/2, 1 and 2, "
        "for which floats are exact; longer by induction",
        examine=exact_ledger_bounds_every_path,
        least_informative=60,
        mutations=(
            Mutation(name="99% charged", constants={"charged": Fraction(99, 100)}),
            Mutation(name="1/4 beyond the budget", constants={"overdraft": Fraction(1, 4)}),
        ),
        sabotages=(
            Sabotage(
                name="half of every step is charged",
                owner=BudgetLedger,
                attribute="charge",
                fault=with_keyword("kl_nats", lambda kl: kl / 2),
            ),
            Sabotage(
                name="a thousandth more is charged",
                owner=BudgetLedger,
                attribute="charge",
                fault=with_keyword("kl_nats", lambda kl: 1.001 * kl),
            ),
            Sabotage(
                name="overspending is not refused",
                owner=BudgetLedger,
                attribute="check_spending",
                fault=returning(None),
            ),
            Sabotage(
                name="the leak is what was spent",
                owner=BudgetLedger,
                attribute="leak_nats",
                fault=lambda _: property(lambda ledger: ledger.spent_nats),
            ),
            Sabotage(
                name="a nat more to begin with",
                owner=budget,
                attribute="open_ledger",
                fault=lambda original: lambda start, **rest: original(start + 1, **rest),
            ),
        ),
    ),
    Check(
        label="accounting-floor",
        words="A floor under each step's KL is within the budget only if it is charged.",
        formula="sum (K_t + f) <= B_0 if the ledger accepts K_t + f, not if it accepts K_t",
        kind=Kind.EXHAUSTIVE,
        scope="the paths of accounting-exact, f = 1/8",
        examine=floor_must_be_charged,
        least_informative=30,
        mutations=(Mutation(name="floor not charged", constants={"charged": 0}),),
        sabotages=(
            Sabotage(
                name="half of every step is charged",
                owner=BudgetLedger,
                attribute="charge",
                fault=with_keyword("kl_nats", lambda kl: kl / 2),
            ),
        ),
    ),
    Check(
        label="accounting-realized-ledger",
        words="Under realised accounting the ledger charges the log-ratio, forgives overdrafts, "
        "and records what was spent and leaked.",
        formula="E spent = T(x, p), leak = max(spent - B_0, 0)",
        kind=Kind.NUMERIC,
        scope="8 bets of x on p, B_0 = 1/2, 1, 3; to 1e-12, against balls",
        examine=realized_ledger,
        least_informative=8,
        mutations=(Mutation(name="0.1% more", constants={"stretch": Fraction(1001, 1000)}),),
        sabotages=(
            Sabotage(
                name="half of the log-ratio is charged",
                owner=BudgetLedger,
                attribute="charge",
                fault=with_keyword("log_ratio_nats", lambda ratio: ratio / 2),
            ),
            Sabotage(
                name="the KL is charged in place of the log-ratio",
                owner=BudgetLedger,
                attribute="charge",
                fault=lambda original: (
                    lambda ledger, *, kl_nats, log_ratio_nats: original(
                        ledger, kl_nats=kl_nats, log_ratio_nats=kl_nats
                    )
                ),
            ),
            Sabotage(
                name="no leak is recorded",
                owner=BudgetLedger,
                attribute="leak_nats",
                fault=with_result(lambda leak: 0 * leak),
            ),
        ),
    ),
    Check(
        label="accounting-realized-identity",
        words="Charging the realised log-ratio spends the budget exactly in expectation, except "
        "where the clamp at 0 forgives an overdraft.",
        formula="E total = B_0, or B_0 + x (ln(x/p) - B_0) where a won bet is clamped",
        kind=Kind.SYMBOLIC,
        scope="two steps, one bet of x on a token of probability p, all x, p, B_0",
        examine=realized_identity,
        mutations=(
            Mutation(name="no forgiveness", constants={"clamp_forgives": 0}),
            Mutation(name="the log-ratio is charged twice", constants={"charged": 2}),
        ),
    ),
    Check(
        label="accounting-realized-supremum",
        words="From a budget of 1 nat on, the two-step supremum under realised accounting is "
        "twice the budget.",
        formula="sup_{x,p} E total = 2 B_0 for B_0 >= 1",
        kind=Kind.CERTIFIED,
        scope="upper bound symbolic for all x, p, B_0 >= 1; attained to 0.2% at B_0 = 1, 3, 10",
        examine=realized_supremum_is_twice_the_budget,
        mutations=(
            Mutation(name="1.9 B_0", constants={"factor": Fraction(19, 10)}),
            Mutation(name="2.1 B_0", constants={"factor": Fraction(21, 10)}),
            Mutation(name="B_0 >= 1/2", constants={"least_budget": Fraction(1, 2)}),
        ),
    ),
    Check(
        label="accounting-realized-small-budgets",
        words="Below 1 nat the leak is larger: 8 times a budget of 0.01, 3.28 times 0.1, 2.15 "
        "times 0.5.",
        formula="E total >= c B_0 at an explicit bet with K(x,p) <= B_0",
        kind=Kind.CERTIFIED,
        scope="three explicit bets",
        examine=realized_below_one,
        mutations=(Mutation(name="3% more", constants={"stretch": Fraction(103, 100)}),),
    ),
    Check(
        label="accounting-realized-search",
        words="The bet that the toolkit finds for a budget is affordable and attains its total.",
        formula="K(x,p) <= B_0, E total = T",
        kind=Kind.CERTIFIED,
        scope="B_0 = 0.01, 0.1, 0.5, 1, 3; to 1e-9",
        examine=searched_supremum,
        least_informative=5,
        mutations=(Mutation(name="0.1% more", constants={"stretch": Fraction(1001, 1000)}),),
        sabotages=(
            Sabotage(
                name="a millionth more is said to be spent",
                owner=overspending,
                attribute="realized_two_step_supremum",
                fault=with_result(lambda bet: replace(bet, total_nats=bet.total_nats * (1 + 1e-6))),
            ),
            Sabotage(
                name="the bet costs more than the budget",
                owner=overspending,
                attribute="realized_two_step_supremum",
                fault=with_result(
                    lambda bet: replace(bet, log_base_probability=bet.log_base_probability - 0.1)
                ),
            ),
        ),
    ),
    Check(
        label="largest-share",
        words="How probable a policy within a KL budget can make an event: the toolkit's bracket.",
        formula="KL(Bern(q-)||Bern(p)) <= B < KL(Bern(q+)||Bern(p)), q-, q+ neighbouring floats",
        kind=Kind.EXHAUSTIVE,
        scope="3 base probabilities, 5 budgets, exact comparisons",
        examine=largest_share_bracket,
        mutations=(Mutation(name="99% of B", constants={"budget_share": Fraction(99, 100)}),),
        statements=(Statement.KL_CONSTRAINT,),
        least_informative=9,
        sabotages=(
            Sabotage(
                name="a float too low",
                owner=bounds,
                attribute="largest_share",
                fault=with_result(
                    lambda q: replace(q, lower=math.nextafter(q.lower, 0.0), upper=q.lower)
                ),
            ),
            Sabotage(
                name="the budget is half of what it is",
                owner=bounds,
                attribute="largest_share",
                fault=lambda original: lambda p, budget_nats: original(p, budget_nats / 2),
            ),
        ),
    ),
    Check(
        label="accounting-realized-unbounded",
        words="As the budget tends to 0 the leak is unbounded in ratio.",
        formula="E total / B_0 -> inf along p = 1/2, x = (1 + sqrt B_0)/2",
        kind=Kind.SYMBOLIC,
        scope="the limit B_0 -> 0 of one family of affordable bets",
        examine=realized_ratio_is_unbounded,
        mutations=(Mutation(name="forgiveness of order sqrt B_0", constants={"power": 1}),),
    ),
)
