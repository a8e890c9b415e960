"""The pessimistic imitator: size of the top set, Ville's bound, and what it guarantees.

*Size.* With weights in falling order `w_1 >= ... >= w_n > 0`, membership of the n-th asks
`w_n >= alpha (w_1 + ... + w_n) >= alpha n w_n`, so `n <= 1/alpha`.

*Supermartingale.* Under mu, `E[1/w(mu|h x)] = sum_{x: mu(x|h) > 0} xi(x|h) / w(mu|h) <=
1/w(mu|h)`. By Ville `P(some t: 1/w(mu|h_t) >= 1/alpha) <= alpha / w(mu)`, and a mu outside the
top set has posterior weight below alpha.

*Guarantee.* Where mu is in the top set, `nu_alpha <= mu` pointwise; if the agent's actions leave
the posterior alone this holds at every later history too, so `KL(pi||nu_alpha) >= KL(pi||mu)`
for every pi and horizon. If they update it, an agent can drive mu out first.
"""

from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations_with_replacement, product
from typing import Any, Final

import numpy as np
import sympy as sp

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
from theory import bounds, pessimism
from theory.bayes_mixture import Update, stack_tables
from theory.constraints import expected_kl_nats, fixed_kl_nats
from theory.log_sum import LogSum
from theory.paper import Statement
from theory.pessimism import help_probability, pessimistic_imitator, top_set
from theory.process import PolicyTable, Table, as_table

ALPHAS: Final = (Fraction(1, 10), Fraction(1, 4), Fraction(3, 10), Fraction(1, 2), Fraction(1))
HALF: Final = Fraction(1, 2)
ZERO: Final = Fraction(0)
ROUNDING: Final = Fraction(1, 10**12)
"""Of a bound in floats, relatively."""


def top_set_size(effort: Effort, *, shrink: Fraction = Fraction(1)) -> Outcome:
    """`|M^alpha| <= c/alpha` (c = 1) for every composition of N into weights."""
    total = {Effort.SMALLEST: 8, Effort.DEFAULT: 16, Effort.THOROUGH: 24}[effort]
    cases = (
        (tuple(Fraction(part) for part in parts), alpha)
        for size in range(1, 7)
        for parts in combinations_with_replacement(range(1, total + 1), size)
        if sum(parts) == total
        for alpha in ALPHAS
    )

    def decide(case: tuple[tuple[Fraction, ...], Fraction]) -> Verdict:
        weights, alpha = case
        size = int(top_set(as_table(weights), alpha).sum())
        most = bounds.top_set_size_bound(alpha)
        return verdict_of(most * alpha <= 1 < (most + 1) * alpha and 1 <= size <= shrink * most)

    return examine_all(
        cases, decide, show=lambda c: f"weights {list(map(str, c[0]))}, alpha {c[1]}"
    )


def _mixtures(effort: Effort) -> Iterator[tuple[list[Row], tuple[Fraction, ...]]]:
    """Memoryless models over two actions, and prior weights; mu is model 0."""
    rows = distributions(2, 3 if effort is Effort.SMALLEST else 4)
    size = 2 if effort is Effort.SMALLEST else 3
    priors = (
        [(HALF, HALF)]
        if size == 2
        else [
            (Fraction(1, 2), Fraction(1, 4), Fraction(1, 4)),
            (Fraction(1, 8), Fraction(1, 2), Fraction(3, 8)),
        ]
    )
    for models in product(rows, repeat=size):
        for prior in priors:
            yield list(models), prior


def _differ(models: list[Row]) -> bool:
    """Whether some history can tell the models apart."""
    return any(model != models[0] for model in models)


def supermartingale(effort: Effort, *, factor: Fraction = Fraction(1)) -> Outcome:
    """`E_mu[1/w(mu|h x)] <= c / w(mu|h)` (c = 1), for every model class of the grid, one step on.

    One step from an arbitrary posterior is the general step: the prior plays its part.
    """

    def decide(case: tuple[list[Row], tuple[Fraction, ...]]) -> Verdict:
        models, prior = case
        mu = models[0]
        expected = sum(
            mu[x] * sum(w * m[x] for w, m in zip(prior, models, strict=True)) / (prior[0] * mu[x])
            for x in range(2)
            if mu[x]
        )
        return verdict_of(expected <= factor / prior[0], informative=_differ(models))

    return examine_all(_mixtures(effort), decide, show=_show_mixture)


def ville(effort: Effort, *, slack: Fraction = Fraction(1)) -> Outcome:
    """`P_mu(mu leaves the top set within n steps) <= c alpha / w(mu)` (c = 1), by enumeration.

    Memoryless models make a history's counts sufficient, so all 2^n histories of n steps are
    summed as runs that stop when mu leaves.
    """
    horizon = {Effort.SMALLEST: 4, Effort.DEFAULT: 6, Effort.THOROUGH: 10}[effort]

    def decide(case: tuple[list[Row], tuple[Fraction, ...], Fraction]) -> Verdict:
        models, prior, alpha = case
        bound = 1 - slack * (
            1 - bounds.demonstrator_stays_probability(alpha=alpha, weight=prior[0])
        )
        stays = _stays(models, np.array(prior, dtype=object), alpha, horizon)
        return verdict_of(stays >= bound, informative=bound > 0 and _differ(models))

    cases = (
        (models, prior, share * prior[0])
        for models, prior in _mixtures(effort)
        for share in (Fraction(1, 5), Fraction(3, 5))
    )
    return examine_all(
        cases,
        decide,
        show=lambda case: f"{_show_mixture(case[:2])}, alpha {case[2]}, {horizon} steps",
    )


def _stays(models: list[Row], weights: Table, alpha: Fraction, steps: int) -> Fraction:
    """The probability under model 0 that it is in the top set now and for `steps` more steps."""
    if not top_set(weights, alpha)[0]:
        return ZERO
    if not steps:
        return Fraction(1)
    total = ZERO
    for x in range(2):
        if models[0][x]:
            updated = weights * np.array([m[x] for m in models], dtype=object)
            total += models[0][x] * _stays(models, updated, alpha, steps - 1)
    return total


def _two_step_classes(effort: Effort) -> Iterator[tuple[PolicyTable, PolicyTable, Table]]:
    """Pairs of two-step models and their weights; mu is the first; |O| = 1."""
    models = list(two_step_policies(distributions(2, 2), n_observations=1))
    others = list(two_step_policies(distributions(2, 1), n_observations=1))
    for mu, other in product(models, others if effort is Effort.SMALLEST else models):
        for prior in ((HALF, HALF), (Fraction(1, 3), Fraction(2, 3))):
            yield mu, other, as_table(prior)


def never_above_the_demonstrator(
    effort: Effort, *, update: Update = Update.DEMONSTRATOR, alpha: Fraction = Fraction(1, 3)
) -> Outcome:
    """With mu in the top set and a frozen posterior, `nu_alpha <= mu` at every history.

    Pointwise domination is what gives `KL(pi||nu_alpha) >= KL(pi||mu)` for every pi; that is
    also checked, in the fixed and the expected reading, for every deterministic pi.
    """
    deterministic = distributions(2, 1)
    agents = list(two_step_policies(deterministic, n_observations=1))
    always = tuple(np.full((2**t, 2, 1), Fraction(1)) for t in range(2))

    def decide(case: tuple[PolicyTable, PolicyTable, Table]) -> Verdict:
        mu, other, prior = case
        if not top_set(prior, alpha)[0] or show_tables(mu=mu) == show_tables(mu=other):
            return Verdict.VACUOUS
        base = pessimistic_imitator(prior, stack_tables([mu, other]), alpha=alpha, update=update)
        below = all((b <= m).all() for b, m in zip(base, mu, strict=True))
        helps = all(
            (asked + acts.sum(axis=-1) == 1).all()
            for asked, acts in zip(help_probability(base), base, strict=True)
        )
        return verdict_of(
            below
            and helps
            and all(
                fixed_kl_nats(pi, base) >= fixed_kl_nats(pi, mu)
                and expected_kl_nats(pi, base, always) >= expected_kl_nats(pi, mu, always)
                for pi in agents
            )
        )

    return examine_all(
        _two_step_classes(effort), decide, show=lambda c: show_tables(mu=c[0], other=c[1])
    )


def _asking_earlier(base: PolicyTable) -> PolicyTable:
    """No sequence of actions is likelier than under `base`, but single actions are.

    Rows of the second step have mass 1/2, 1 or 0: they get mass 1 where they have any, and all of
    the first step is halved.
    """
    first, second = base
    mass = second.sum(axis=-1, keepdims=True)
    return first * HALF, second / (mass + (mass == 0))  # by 1 where there is none


def escape_example(update: Update, alpha: Fraction) -> tuple[PolicyTable, PolicyTable, PolicyTable]:
    """`(pi, nu_alpha, mu)`: mu = Bern(1/10), then never action 1; nu = action 1 always.

    Equal weights; pi takes action 1 in both steps.
    """
    sure, never = (ZERO, Fraction(1)), (Fraction(1), ZERO)
    mu = policy_of_two_steps([(Fraction(9, 10), Fraction(1, 10)), never, never])
    nu = policy_of_two_steps([sure] * 3)
    base = pessimistic_imitator(
        as_table([HALF, HALF]), stack_tables([mu, nu]), alpha=alpha, update=update
    )
    return nu, base, mu


def escape(
    effort: Effort, *, update: Update = Update.ALL, alpha: Fraction = Fraction(3, 10)
) -> Outcome:
    """With the agent's actions in the posterior: KL `ln 10` to nu_alpha, infinite to mu."""
    del effort
    pi, base, mu = escape_example(update, alpha)
    to_base, to_mu = fixed_kl_nats(pi, base), fixed_kl_nats(pi, mu)
    stands = to_base == LogSum.log(10) and to_mu == LogSum.infinity()
    found = f"KL(pi||nu_alpha) = {to_base}, KL(pi||mu) = {to_mu}"
    return Outcome(
        verdict=verdict_of(stands),
        cases=1,
        note=found if stands else "",
        counterexample="" if stands else found,
    )


def supermartingale_identity(effort: Effort, *, power: int = 1) -> Outcome:
    """`sum_x mu(x) (1/w')^c = (1/w)^c` with full support, `w' = w mu(x)/xi(x)` (c = 1).

    With zeros of mu the sum lacks the terms `xi(x)/w >= 0`, so it is at most `1/w`.
    """
    del effort
    w, m0, u0, v0 = positive("w m0 u0 v0")
    mu = (m0 / (1 + m0), 1 / (1 + m0))
    xi = (u0 / (u0 + v0), v0 / (u0 + v0))
    after = sum(m * (1 / (w * m / x)) ** power for m, x in zip(mu, xi, strict=True))
    lost = sp.Rational(1) / w * xi[0]  # what mu(0) = 0 would remove
    return all_of(symbolic(after - 1 / w**power), nonnegative(lost))


def limited_querying(effort: Effort, *, scale: Fraction = Fraction(1)) -> Outcome:
    """`E sum_t theta_q^3` against the cited bound, on the memoryless classes; proves nothing."""
    horizon = 4 if effort is Effort.SMALLEST else 6
    alpha = Fraction(1, 4)

    def decide(case: tuple[list[Row], tuple[Fraction, ...]]) -> Verdict:
        models, prior = case
        spent = _cubed_help(models, np.array(prior, dtype=object), alpha, horizon)
        bound = Fraction(
            bounds.help_cubed_bound(n_actions=2, alpha=float(alpha), weight=float(prior[0]))
        )
        cited = 2 / alpha**3 * (24 / prior[0] + 12)
        return verdict_of(abs(bound / cited - 1) <= ROUNDING and spent <= scale * bound)

    return examine_all(
        _mixtures(effort), decide, show=lambda case: f"{_show_mixture(case)}, {horizon} steps"
    )


def _cubed_help(models: list[Row], weights: Table, alpha: Fraction, steps: int) -> Fraction:
    if not steps:
        return ZERO
    mask = top_set(weights, alpha)
    least = [min(m[x] for m, inside in zip(models, mask, strict=True) if inside) for x in range(2)]
    total: Fraction = (1 - sum(least, ZERO)) ** 3
    for x in range(2):
        if models[0][x]:
            updated = weights * np.array([m[x] for m in models], dtype=object)
            total += models[0][x] * _cubed_help(models, updated, alpha, steps - 1)
    return total


def _show_mixture(case: Any) -> str:
    models, prior = case
    rows = ", ".join("(" + ", ".join(map(str, row)) + ")" for row in models)
    return f"models {rows}; weights {', '.join(map(str, prior))}"


CHECKS: Final = (
    Check(
        label="top-set-size",
        words="The top set has between 1 and 1/alpha models.",
        formula="1 <= |M^alpha| <= 1/alpha",
        kind=Kind.EXHAUSTIVE,
        scope="every multiset of at most 6 weights that are multiples of 1/16; 5 values of alpha",
        examine=top_set_size,
        mutations=(Mutation(name="0.9/alpha", constants={"shrink": Fraction(9, 10)}),),
        statements=(Statement.TOP_SET,),
        least_informative=100,
        sabotages=(
            Sabotage(
                name="every model is in",
                owner=pessimism,
                attribute="top_set",
                fault=with_result(np.ones_like),
            ),
            Sabotage(
                name="no model is in",
                owner=pessimism,
                attribute="top_set",
                fault=with_result(np.zeros_like),
            ),
            Sabotage(
                name="one model fewer",
                owner=bounds,
                attribute="top_set_size_bound",
                fault=with_result(lambda size: size - 1),
            ),
            Sabotage(
                name="any number of models",
                owner=bounds,
                attribute="top_set_size_bound",
                fault=returning(10**6),
            ),
        ),
    ),
    Check(
        label="supermartingale-identity",
        words="The inverse posterior weight of the demonstrator keeps its mean under a "
        "demonstrator of full support, and loses some of it otherwise.",
        formula="sum_x mu(x) / w(mu|hx) = 1/w(mu|h)",
        kind=Kind.SYMBOLIC,
        scope="all mu, xi, w; 2 outcomes, termwise in general",
        examine=supermartingale_identity,
        mutations=(Mutation(name="its square", constants={"power": 2}),),
        statements=(Statement.NOTHING_UNPRECEDENTED,),
    ),
    Check(
        label="supermartingale",
        words="The inverse posterior weight of the demonstrator is a supermartingale, zeros "
        "included.",
        formula="E_mu[1/w(mu|hx)] <= 1/w(mu|h)",
        kind=Kind.EXHAUSTIVE,
        scope="3 memoryless models with probabilities in quarters, 2 priors",
        examine=supermartingale,
        least_informative=12,
        mutations=(Mutation(name="99% of it", constants={"factor": Fraction(99, 100)}),),
        statements=(Statement.NOTHING_UNPRECEDENTED,),
    ),
    Check(
        label="ville",
        words="Under the demonstrator it leaves the top set with probability at most "
        "alpha / w(mu).",
        formula="P_mu(mu in M^alpha_h for all t <= n) >= 1 - alpha/w(mu)",
        kind=Kind.EXHAUSTIVE,
        scope="3 memoryless models in quarters, 2 priors, alpha a fifth and three fifths of w(mu), "
        "all histories of 6 steps",
        examine=ville,
        mutations=(Mutation(name="a tenth of the slack", constants={"slack": Fraction(1, 10)}),),
        statements=(Statement.NOTHING_UNPRECEDENTED, Statement.TOP_SET),
        least_informative=16,
        sabotages=(
            Sabotage(
                name="it never leaves",
                owner=bounds,
                attribute="demonstrator_stays_probability",
                fault=returning(Fraction(1)),
            ),
            Sabotage(
                name="the heaviest model is in alone",
                owner=pessimism,
                attribute="top_set",
                fault=lambda _: lambda weights, alpha: np.arange(len(weights)) == weights.argmax(),
            ),
        ),
    ),
    Check(
        label="pessimism-guarantee",
        words="With the demonstrator in the top set and its own actions alone in the posterior, "
        "the KL to the pessimistic imitator bounds that to the demonstrator.",
        formula="mu in M^alpha  =>  KL(pi||nu_alpha) >= KL(pi||mu)",
        kind=Kind.EXHAUSTIVE,
        scope="2 models of 2 steps, conditionals in {0, 1/2, 1}, 2 priors, alpha 1/3; "
        "deterministic pi",
        examine=never_above_the_demonstrator,
        mutations=(Mutation(name="the agent's actions update", constants={"update": Update.ALL}),),
        statements=(Statement.NOTHING_UNPRECEDENTED, Statement.PESSIMISTIC_IMITATOR),
        least_informative=200,
        sabotages=(
            Sabotage(
                name="the greatest probability in place of the least",
                owner=pessimism,
                attribute="_least",
                fault=lambda _: lambda actions, mask: actions.max(axis=0),
            ),
            Sabotage(
                name="the agent's actions update the posterior",
                owner=pessimism,
                attribute="pessimistic_imitator",
                fault=with_keyword("update", lambda _: Update.ALL),
            ),
            Sabotage(
                name="what the second step asks for is asked for in the first",
                owner=pessimism,
                attribute="pessimistic_imitator",
                fault=with_result(_asking_earlier),
            ),
            Sabotage(
                name="a tenth of the missing mass is not asked for",
                owner=pessimism,
                attribute="help_probability",
                fault=with_result(
                    lambda levels: tuple(level * Fraction(9, 10) for level in levels)
                ),
            ),
        ),
    ),
    Check(
        label="pessimism-escape",
        words="If the agent's own actions update the posterior the guarantee fails: at 2.30 nats "
        "it does what the demonstrator never does.",
        formula="KL(pi||nu_alpha) = ln 10, KL(pi||mu) = inf",
        kind=Kind.EXHAUSTIVE,
        scope="one example: mu = Bern(1/10) then never, nu = always, alpha = 3/10",
        examine=escape,
        mutations=(
            Mutation(name="frozen posterior", constants={"update": Update.DEMONSTRATOR}),
            Mutation(name="alpha = 1/20", constants={"alpha": Fraction(1, 20)}),
        ),
        statements=(Statement.NOTHING_UNPRECEDENTED,),
        sabotages=(
            Sabotage(
                name="the agent's actions leave the posterior as it is",
                owner=pessimism,
                attribute="pessimistic_imitator",
                fault=with_keyword("update", lambda _: Update.DEMONSTRATOR),
            ),
        ),
    ),
    Check(
        label="limited-querying",
        words="The demonstrator is asked a limited number of times.",
        formula="E sum_t theta_q^3 <= |A| alpha^-3 (24/w(mu) + 12)",
        kind=Kind.LITERATURE,
        scope="both sides evaluated on 3 memoryless models, 6 steps",
        examine=limited_querying,
        mutations=(Mutation(name="a 100,000th", constants={"scale": Fraction(1, 100_000)}),),
        statements=(Statement.LIMITED_QUERYING,),
        least_informative=16,
        sabotages=(
            Sabotage(
                name="a 100,000th of the bound",
                owner=bounds,
                attribute="help_cubed_bound",
                fault=with_result(lambda bound: bound / 100_000),
            ),
            Sabotage(
                name="no limit worth having",
                owner=bounds,
                attribute="help_cubed_bound",
                fault=returning(1e9),
            ),
        ),
        source="FGOIL, Theorem 2",
    ),
)
