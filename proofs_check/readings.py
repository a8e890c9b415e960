"""The three readings of the constraint (Definition 2): how they are ordered, and attained."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Final

import numpy as np

from proofs_check.finite_classes import (
    Row,
    distributions,
    policy_of_two_steps,
    show_tables,
    two_step_environments,
    two_step_policies,
)
from proofs_check.sabotage import Sabotage, returning, with_result
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
from theory import constraints, process
from theory.log_sum import LogSum
from theory.paper import Statement
from theory.process import (
    EnvironmentTable,
    HistoryTree,
    PolicyTable,
    Table,
    as_table,
    environment_table,
    joint_law,
    optimal_values,
    utility_table,
    values,
)

HALF: Final = Fraction(1, 2)
ZERO, ONE = Fraction(0), Fraction(1)


def _rows(effort: Effort) -> list[Row]:
    return distributions(2, 3 if effort is Effort.THOROUGH else 2)


def _pairs(effort: Effort) -> Iterator[tuple[PolicyTable, PolicyTable]]:
    """Two steps, two actions, two observations; beta's conditionals have full support."""
    betas = [tuple(row) for row in distributions(2, 3) if all(row)]
    beta_conditionals: list[list[Row]] = [
        [betas[0]] * 5,
        [betas[0], betas[1], betas[0], betas[0], betas[1]],
    ][: 1 if effort is Effort.SMALLEST else 2]
    for conditionals in beta_conditionals:
        beta = policy_of_two_steps(conditionals)
        for pi in two_step_policies(_rows(effort)):
            yield pi, beta


def _cases(effort: Effort) -> Iterator[tuple[PolicyTable, PolicyTable, EnvironmentTable]]:
    """Every such pair in every environment."""
    for nu in two_step_environments(_rows(effort)):
        for pi, beta in _pairs(effort):
            yield pi, beta, nu


def _show(case: tuple[PolicyTable, PolicyTable, EnvironmentTable]) -> str:
    return show_tables(pi=case[0], beta=case[1], nu=case[2][:1])


def order_of_kl_readings(effort: Effort, *, shrink_adaptive: Fraction = ONE) -> Outcome:
    """`max(fixed, expected) <= c adaptive` for the KL (c = 1)."""

    def decide(case: Any) -> Verdict:
        pi, beta, nu = case
        adaptive = constraints.adaptive_kl_nats(pi, beta) * shrink_adaptive
        return verdict_of(
            constraints.fixed_kl_nats(pi, beta) <= adaptive
            and constraints.expected_kl_nats(pi, beta, nu) <= adaptive
        )

    return examine_all(_cases(effort), decide, show=_show)


def order_of_tvd_readings(effort: Effort, *, shrink_adaptive: Fraction = ONE) -> Outcome:
    """`max(fixed, expected) <= c adaptive` for the TVD (c = 1).

    The three are what sums over the two actions and the observation between them say: an
    order alone says nothing of their size.
    """

    def decide(case: Any) -> Verdict:
        pi, beta, nu = case
        off = _two_step_differences(pi, beta)
        readings = (
            constraints.fixed_tvd(pi, beta),
            constraints.expected_tvd(pi, beta, nu),
            constraints.adaptive_tvd(pi, beta),
        )
        stated = (off.sum(axis=(0, 2)).max(), (off.sum(axis=2) * nu[0][0]).sum(),
                  off.sum(axis=2).max(axis=1).sum())  # fmt: skip
        fixed, expected, adaptive = readings
        adaptive *= shrink_adaptive
        return verdict_of(readings == stated and fixed <= adaptive and expected <= adaptive)

    return examine_all(_cases(effort), decide, show=_show)


def _two_step_differences(pi: PolicyTable, beta: PolicyTable) -> Table:
    """`|pi - beta|/2` of the actions a and a' with o between them, shape (a, o, a')."""
    laws = [p[0][0][:, None, None] * p[1].reshape(2, 2, 2) for p in (pi, beta)]
    difference: Table = abs(laws[0] - laws[1]) * HALF
    return difference


def maxima_are_attained(effort: Effort, *, share: Fraction = ONE) -> Outcome:
    """The worst sequence and the worst strategy, played as environments, give c times the maxima.

    c = 1. An environment that plays a sequence, or a strategy, is deterministic, so that the
    expected reading in it is the KL at that sequence, or under that strategy.
    """

    def decide(case: tuple[PolicyTable, PolicyTable]) -> Verdict:
        pi, beta = case
        per_observations = constraints.fixed_kl_per_observations(pi, beta)
        (chosen,) = constraints.observation_sequence(per_observations, horizon=2, n_observations=2)
        (strategy,) = constraints.observation_strategy(
            constraints.adaptive_kl_to_go(pi, beta), n_actions=2
        )
        sequence = _playing(np.full((1, 2), chosen))
        return verdict_of(
            constraints.expected_kl_nats(pi, beta, sequence)
            == constraints.fixed_kl_nats(pi, beta) * share
            and constraints.expected_kl_nats(pi, beta, _playing(strategy))
            == constraints.adaptive_kl_nats(pi, beta) * share
        )

    return examine_all(
        _pairs(effort), decide, show=lambda case: show_tables(pi=case[0], beta=case[1])
    )


def _playing(observations: Table) -> EnvironmentTable:
    """The environment that shows `observations[h, a]` first, and then 0."""
    shows = [[[Fraction(int(o == shown)) for o in range(2)] for shown in observations[0]]]
    return as_table(shows), as_table([[[ONE, ZERO]] * 2] * 4)


def reactive_example() -> tuple[PolicyTable, PolicyTable, EnvironmentTable]:
    """Uniform beta; `o_1 = a_1`; `pi_2` takes action 0 for certain iff `o_1 = a_1`."""
    fair: Row = (HALF, HALF)
    sure: Row = (ONE, ZERO)
    pi = policy_of_two_steps([fair, sure, fair, fair, sure])
    beta = policy_of_two_steps([fair] * 5)
    tree = HistoryTree(n_actions=2, n_observations=2, horizon=2)
    echo = environment_table(tree, lambda h: [Fraction(int(o == h[-1])) for o in range(2)])
    return pi, beta, echo


def static_example() -> tuple[PolicyTable, PolicyTable, EnvironmentTable]:
    """As `reactive_example` with `o_1 = 0` always, and `pi_2` certain iff `o_1 = 1`."""
    fair: Row = (HALF, HALF)
    sure: Row = (ONE, ZERO)
    pi = policy_of_two_steps([fair, fair, sure, fair, sure])
    beta = policy_of_two_steps([fair] * 5)
    tree = HistoryTree(n_actions=2, n_observations=2, horizon=2)
    return pi, beta, environment_table(tree, lambda _: [ONE, ZERO])


def fixed_and_expected_are_not_ordered(
    effort: Effort, *, fixed_in_ln_2: Fraction = HALF, expected_in_ln_2: Fraction = ONE
) -> Outcome:
    """Expected above fixed (ln 2 against ln 2 / 2), and fixed above expected (ln 2 against 0)."""
    del effort
    ln_2 = LogSum.log(2)
    pi, beta, nu = reactive_example()
    fixed = constraints.fixed_kl_nats(pi, beta)
    expected = constraints.expected_kl_nats(pi, beta, nu)
    pi_s, beta_s, nu_s = static_example()
    stands = (
        fixed == ln_2 * fixed_in_ln_2
        and expected == ln_2 * expected_in_ln_2
        and constraints.expected_kl_nats(pi_s, beta_s, nu_s) == LogSum.rational(0)
        and constraints.fixed_kl_nats(pi_s, beta_s) == ln_2
    )
    found = f"fixed {fixed}, expected {expected}"
    return Outcome(
        verdict=verdict_of(stands),
        cases=2,
        note=found if stands else "",
        counterexample="" if stands else found,
    )


def fixed_bounds_expected(effort: Effort, *, factor: Fraction = ONE) -> Outcome:
    """The false belief: `expected <= c fixed` (c = 1); refuted by the reactive example."""
    del effort
    pi, beta, nu = reactive_example()
    expected = constraints.expected_kl_nats(pi, beta, nu)
    return examine_all(
        [(pi, beta, nu)],
        lambda _: verdict_of(expected <= constraints.fixed_kl_nats(pi, beta) * factor),
        show=_show,
    )


def value_recursion(effort: Effort, *, lost_utility: Fraction = ZERO) -> Outcome:
    """Backward recursion gives `E[U_m]`; V* is the best deterministic policy's value."""
    rows = distributions(2, 2)
    deterministic = [row for row in rows if 1 in row]
    tree = HistoryTree(n_actions=2, n_observations=2, horizon=2)
    utility = utility_table(tree, lambda h: Fraction(sum(h) + h[0] * h[3], 2 * len(h)))

    def decide(case: tuple[EnvironmentTable, PolicyTable]) -> Verdict:
        nu, pi = case
        direct = (joint_law(pi, nu) * utility).sum() - lost_utility
        return verdict_of(values(pi, nu, utility)[0][0] == direct)

    environments = list(two_step_environments(rows))
    policies = list(two_step_policies(rows if effort is not Effort.SMALLEST else deterministic))
    by_recursion = examine_all(
        ((nu, pi) for nu in environments for pi in policies),
        decide,
        show=lambda case: show_tables(nu=case[0][:1], pi=case[1]),
    )
    best = list(two_step_policies(deterministic))
    by_search = examine_all(
        environments,
        lambda nu: verdict_of(
            optimal_values(nu, utility)[0][0] == max(values(pi, nu, utility)[0][0] for pi in best)
        ),
        show=lambda nu: show_tables(nu=nu[:1]),
    )
    return all_of(by_recursion, by_search)


def _order_sabotages(fixed: str, expected: str, adaptive: str) -> tuple[Sabotage, ...]:
    """Too large what is bounded, too small what bounds."""
    return tuple(
        Sabotage(name=name, owner=constraints, attribute=attribute, fault=with_result(fault))
        for name, attribute, fault in (
            ("a tenth more in advance", fixed, lambda value: value * Fraction(11, 10)),
            ("a tenth more in expectation", expected, lambda value: value * Fraction(11, 10)),
            ("a tenth less in answer", adaptive, lambda value: value * Fraction(9, 10)),
        )
    )


CHECKS: Final = (
    Check(
        label="value",
        words="Backward recursion computes the value of a policy and of the best one.",
        formula="V(h) = sum_a pi(a|h) sum_o nu(o|ha) V(hao); V*(h) = max_a sum_o nu(o|ha) V*(hao)",
        kind=Kind.EXHAUSTIVE,
        scope="2 actions, 2 observations, 2 steps; conditionals in {0, 1/2, 1}; one utility",
        examine=value_recursion,
        mutations=(Mutation(name="a little lost", constants={"lost_utility": Fraction(1, 1000)}),),
        statements=(Statement.VALUE,),
        least_informative=200,
        sabotages=tuple(
            Sabotage(
                name="a thousandth lost at the root",
                owner=process,
                attribute=name,
                fault=with_result(lambda levels: (levels[0] * Fraction(999, 1000), *levels[1:])),
            )
            for name in ("values", "optimal_values")
        ),
    ),
    Check(
        label="readings-kl-order",
        words="The adaptive reading of the KL constraint bounds the other two.",
        formula="max(KL_fixed, KL_expected) <= KL_adaptive",
        kind=Kind.EXHAUSTIVE,
        scope="2 actions, 2 observations, 2 steps; pi and nu in {0, 1/2, 1}; two betas in thirds",
        examine=order_of_kl_readings,
        mutations=(Mutation(name="99% of it", constants={"shrink_adaptive": Fraction(99, 100)}),),
        statements=(Statement.KL_CONSTRAINT,),
        least_informative=1000,
        sabotages=_order_sabotages("fixed_kl_nats", "expected_kl_nats", "adaptive_kl_nats"),
    ),
    Check(
        label="readings-tvd-order",
        words="The adaptive reading of the TVD constraint bounds the other two.",
        formula="max(TVD_fixed, TVD_expected) <= TVD_adaptive",
        kind=Kind.EXHAUSTIVE,
        scope="2 actions, 2 observations, 2 steps; pi and nu in {0, 1/2, 1}; two betas in thirds",
        examine=order_of_tvd_readings,
        mutations=(Mutation(name="99% of it", constants={"shrink_adaptive": Fraction(99, 100)}),),
        statements=(Statement.TVD_CONSTRAINT,),
        least_informative=1000,
        sabotages=(
            *_order_sabotages("fixed_tvd", "expected_tvd", "adaptive_tvd"),
            *(
                Sabotage(name=name, owner=constraints, attribute=attribute, fault=returning(value))
                for name, attribute, value in (
                    ("nothing in advance", "fixed_tvd", ZERO),
                    ("nothing in expectation", "expected_tvd", ZERO),
                    ("everything in answer", "adaptive_tvd", ONE),
                )
            ),
        ),
    ),
    Check(
        label="readings-attained",
        words="The maxima of the fixed and of the adaptive reading are attained, at the sequence "
        "and the strategy that the toolkit reports: an environment that plays it has that "
        "expected KL.",
        formula="KL_expected(worst sequence) = KL_fixed, KL_expected(worst strategy) = KL_adaptive",
        kind=Kind.EXHAUSTIVE,
        scope="2 actions, 2 observations, 2 steps; pi in {0, 1/2, 1}; two betas in thirds",
        examine=maxima_are_attained,
        mutations=(Mutation(name="99% of them", constants={"share": Fraction(99, 100)}),),
        statements=(Statement.KL_CONSTRAINT,),
        least_informative=200,
        sabotages=(
            Sabotage(
                name="the sequences in reverse",
                owner=constraints,
                attribute="fixed_kl_per_observations",
                fault=with_result(lambda kls: kls[::-1]),
            ),
            Sabotage(
                name="always observation 0 in advance",
                owner=constraints,
                attribute="observation_sequence",
                fault=returning((0,)),
            ),
            Sabotage(
                name="what follows is forgotten at the root",
                owner=constraints,
                attribute="adaptive_kl_to_go",
                fault=with_result(lambda levels: (levels[1][:1], *levels[1:])),
            ),
            Sabotage(
                name="always the other observation in answer",
                owner=constraints,
                attribute="observation_strategy",
                fault=with_result(lambda levels: tuple(1 - level for level in levels)),
            ),
        ),
    ),
    Check(
        label="readings-incomparable",
        words="The fixed and the expected reading are not ordered: in a reactive environment "
        "the expected KL is ln 2 and the fixed one half of it; in a static one it is below.",
        formula="KL_expected = ln 2 > KL_fixed = (ln 2)/2, and elsewhere KL_expected < KL_fixed",
        kind=Kind.EXHAUSTIVE,
        scope="two explicit examples, in exact sums of logarithms",
        examine=fixed_and_expected_are_not_ordered,
        mutations=(
            Mutation(name="ln 2 / 4", constants={"fixed_in_ln_2": Fraction(1, 4)}),
            Mutation(name="2 ln 2", constants={"expected_in_ln_2": Fraction(2)}),
        ),
        statements=(Statement.KL_CONSTRAINT,),
    ),
    Check(
        label="readings-fixed-bounds-expected",
        words="Refuted belief: that the maximum over fixed observations bounds the expected KL.",
        formula="KL_expected <= KL_fixed",
        kind=Kind.EXHAUSTIVE,
        scope="one counterexample with 2 actions, 2 observations, 2 steps",
        examine=fixed_bounds_expected,
        mutations=(Mutation(name="twice the fixed KL", constants={"factor": Fraction(2)}),),
        statements=(Statement.KL_CONSTRAINT,),
        expected=Verdict.FAILS,
    ),
)
