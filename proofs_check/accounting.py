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
from fractions import Fraction
from typing import Any, Final

import sympy as sp
from flint import arb

from proofs_check.ball import at_most, ball
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
from theory import bounds, overspending
from theory.budget import BudgetLedger
from theory.log_sum import LogSum, kl_log_sum
from theory.paper import Statement


def exact_telescopes(effort: Effort, *, charged: Fraction = Fraction(1)) -> Outcome:
    """After n steps, each charged `c K_t` (c = 1): `sum K_t = B_0 - B_n`, for n up to 8.

    With `B_n >= 0`, which `K_t <= B_t` keeps, the total is at most `B_0`.
    """
    steps = {Effort.SMALLEST: 2, Effort.DEFAULT: 8, Effort.THOROUGH: 32}[effort]
    spends = positive(" ".join(f"K{t}" for t in range(steps)))
    (start,) = positive("B0")
    left = start
    for spend in spends:
        left -= sp.Rational(charged.numerator, charged.denominator) * spend
    return symbolic(sum(spends) - (start - left), cases=steps)


def realized_identity(effort: Effort, *, clamp_forgives: int = 1) -> Outcome:
    """The two-step total is `B_0` without a clamp, and `B_0 + x (ln(x/p) - B_0)` with one."""
    del effort
    x, p, start = positive("x p B0")
    won, lost = sp.log(x / p), sp.log((1 - x) / (1 - p))
    first = kl_of((x, 1 - x), (p, 1 - p))
    unclamped = first + x * (start - won) + (1 - x) * (start - lost)
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
    budget = sp.Rational(least_budget.numerator, least_budget.denominator) + s
    gap = (sp.Rational(factor.numerator, factor.denominator) - 1) * budget - (1 - x) * (
        budget - sp.log(1 - x)
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
        (Fraction(p), Fraction(budget))
        for p in (0.5, 0.03, 2.0**-20)
        for budget in (0.0, 0.1, 1.0, 3.0, 6.0)
    ]

    def kl(q: float, p: Fraction) -> LogSum:
        return kl_log_sum((Fraction(q), 1 - Fraction(q)), (p, 1 - p))

    def decide(case: tuple[Fraction, Fraction]) -> Verdict:
        p, budget = case
        q = bounds.largest_share(float(p), float(budget))
        return verdict_of(
            kl(q.lower, p) <= budget * budget_share
            and (q.lower == 1 or kl(q.upper, p) > budget * budget_share)
        )

    return examine_all(cases, decide, show=lambda case: f"p = {case[0]}, B = {case[1]}")


def floor_must_be_charged(effort: Effort, *, charged: int = 1) -> Outcome:
    """With a floor f under every step's KL, n steps spend `B_0 + n f` if the floor is free.

    Charging it (c = 1) keeps the total at `B_0`: the floor is then part of `K_t <= B_t`.
    """
    del effort
    floor, start = positive("f B0")
    steps = 8
    within_budget = positive(" ".join(f"K{t}" for t in range(steps)))
    left = start - sum(spend + charged * floor for spend in within_budget)
    total = sum(spend + floor for spend in within_budget)
    return symbolic(total - (start - left), cases=steps)


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
        words="Exact accounting bounds the total KL of every path by the budget.",
        formula="B_{t+1} = B_t - K_t, 0 <= K_t <= B_t  =>  sum K_t = B_0 - B_n <= B_0",
        kind=Kind.SYMBOLIC,
        scope="8 steps of any cost; longer by induction",
        examine=exact_telescopes,
        mutations=(Mutation(name="99% charged", constants={"charged": Fraction(99, 100)}),),
        covers=(BudgetLedger,),
    ),
    Check(
        label="accounting-floor",
        words="A floor under each step's KL is within the budget only if it is charged.",
        formula="sum (K_t + f) = B_0 - B_n if and only if f is charged too",
        kind=Kind.SYMBOLIC,
        scope="8 steps of any cost",
        examine=floor_must_be_charged,
        mutations=(Mutation(name="floor not charged", constants={"charged": 0}),),
        covers=(BudgetLedger,),
    ),
    Check(
        label="accounting-realized-identity",
        words="Charging the realised log-ratio spends the budget exactly in expectation, except "
        "where the clamp at 0 forgives an overdraft.",
        formula="E total = B_0, or B_0 + x (ln(x/p) - B_0) where a won bet is clamped",
        kind=Kind.SYMBOLIC,
        scope="two steps, one bet of x on a token of probability p, all x, p, B_0",
        examine=realized_identity,
        mutations=(Mutation(name="no forgiveness", constants={"clamp_forgives": 0}),),
        covers=(BudgetLedger,),
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
        covers=(BudgetLedger,),
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
        covers=(BudgetLedger,),
    ),
    Check(
        label="accounting-realized-search",
        words="The bet that the toolkit finds for a budget is affordable and attains its total.",
        formula="K(x,p) <= B_0, E total = T",
        kind=Kind.CERTIFIED,
        scope="B_0 = 0.01, 0.1, 0.5, 1, 3; to 1e-9",
        examine=searched_supremum,
        mutations=(Mutation(name="0.1% more", constants={"stretch": Fraction(1001, 1000)}),),
        covers=(overspending.realized_two_step_supremum, overspending.OverspendingBet),
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
        covers=(bounds.largest_share, bounds.LargestShare),
    ),
    Check(
        label="accounting-realized-unbounded",
        words="As the budget tends to 0 the leak is unbounded in ratio.",
        formula="E total / B_0 -> inf along p = 1/2, x = (1 + sqrt B_0)/2",
        kind=Kind.SYMBOLIC,
        scope="the limit B_0 -> 0 of one family of affordable bets",
        examine=realized_ratio_is_unbounded,
        mutations=(Mutation(name="forgiveness of order sqrt B_0", constants={"power": 1}),),
        covers=(BudgetLedger,),
    ),
)
