"""Theorem 2: which probabilities a TVD-constrained optimum may raise above the base policy's.

Why it is true of the first constrained action, in every reading: let pi be optimal within c with
`pi(a) > beta(a)`. Some plan under a has more mass than under beta at every leaf of it. Moving a
little of it to an optimal plan lowers `|x - b|` there by as much as it can raise it elsewhere, so
the TVD does not grow, and the value rises unless a was optimal. For whole sequences the same
argument needs that the two plans share no observations to average over; for conditional
probabilities at later steps it says nothing, since removing a bad sequence raises the
conditional probability of its siblings.

Every linear program here is solved exactly: the optimum is verified in rational arithmetic.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from itertools import product
from typing import Final

import numpy as np

from proofs_check.finite_classes import Row, policy_of_two_steps, show_tables
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
from theory.constraints import expected_kl_nats
from theory.paper import Statement
from theory.process import (
    EnvironmentTable,
    PolicyTable,
    UtilityTable,
    action_law,
    action_values,
    as_table,
    optimal_values,
)
from toy_world.planners.problem import Reading
from toy_world.planners.tvd import tvd_optimum

HALF: Final = Fraction(1, 2)
ZERO, ONE = Fraction(0), Fraction(1)


class RaisedProbability(Enum):
    """What "every action with a higher probability than the base policy's" is about."""

    FIRST_ACTION = "of the first action"
    WHOLE_SEQUENCE = "of the whole action sequence"
    CONDITIONAL = "of the second action given the past"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A planning problem of two steps with a TVD budget."""

    beta: PolicyTable
    nu: EnvironmentTable
    utility: UtilityTable
    budget: Fraction

    def __str__(self) -> str:
        """Readable, for a counterexample."""
        utilities = ", ".join(map(str, self.utility))
        return f"{show_tables(beta=self.beta)}; U = ({utilities}); c = {self.budget}"


def _two_steps(
    *,
    beta: Row,
    utilities: tuple[Fraction, ...],
    n_observations: int,
    budget: Fraction,
) -> Problem:
    """A fair observation between two actions; `utilities` by (a1, o1, a2)."""
    n_actions = len(beta)
    branching = n_actions * n_observations
    observe = (Fraction(1, n_observations),) * n_observations
    return Problem(
        beta=policy_of_two_steps([beta] * (1 + branching)),
        nu=tuple(as_table([[observe] * n_actions] * branching**t) for t in range(2)),
        utility=as_table([u for u in utilities for _ in range(n_observations)]),
        budget=budget,
    )


def _problems(effort: Effort, *, n_observations: int) -> Iterator[Problem]:
    """Three actions; the first one's sequel pays as a pattern says, the others' a constant."""
    levels = (ZERO, HALF, ONE)
    patterns = [p for p in product(levels, repeat=3 * n_observations) if ONE in p]
    wanted = {Effort.SMALLEST: 12, Effort.DEFAULT: 60, Effort.THOROUGH: len(patterns)}[effort]
    betas = [(Fraction(1, 3),) * 3, (HALF, Fraction(1, 4), Fraction(1, 4))]
    for pattern in patterns[:: max(len(patterns) // wanted, 1)]:
        for level, beta in product(levels, betas[: 1 if n_observations > 1 else 2]):
            utilities = (*pattern, *[level] * len(pattern), *[HALF] * len(pattern))
            for budget in (Fraction(1, 10), Fraction(1, 3))[n_observations > 1 :]:
                yield _two_steps(
                    beta=beta, utilities=utilities, n_observations=n_observations, budget=budget
                )


def _statement_holds(problem: Problem, reading: Reading, about: RaisedProbability) -> bool:
    pi = tvd_optimum(
        problem.beta, problem.nu, problem.utility, budget=problem.budget, reading=reading
    ).pi
    levels = optimal_values(problem.nu, problem.utility)
    n_actions, n_observations = problem.nu[0].shape[1:]
    match about:
        case RaisedProbability.FIRST_ACTION:
            values, best = action_values(problem.nu[0], levels[1]), levels[0][:, None]
            raised = pi[0] > problem.beta[0]
        case RaisedProbability.CONDITIONAL:
            values, best = action_values(problem.nu[1], levels[2]), levels[1][:, None]
            reached = np.repeat(pi[0].reshape(-1) > 0, n_observations)
            raised = (pi[1] > problem.beta[1]) & reached[:, None]
        case _:
            # A whole sequence is optimal if its first action is, and its second in its turn.
            first = action_values(problem.nu[0], levels[1])
            second = action_values(problem.nu[1], levels[2])
            optimal_first = np.repeat((first == levels[0][:, None]).reshape(-1), n_observations)
            values = (second == levels[1][:, None]) & optimal_first[:, None]
            best = np.ones((len(values), 1), dtype=bool)
            laws = [
                action_law(policy, n_observations=n_observations).reshape(-1, n_actions)
                for policy in (pi, problem.beta)
            ]
            raised = laws[0] > laws[1]
    return bool(np.all((values == best) | ~raised.astype(bool)))


def holds_for_the_first_action(
    effort: Effort, *, about: RaisedProbability = RaisedProbability.FIRST_ACTION
) -> Outcome:
    """Whatever the reading, a first action made likelier is optimal."""
    return examine_all(
        (
            (problem, reading)
            for problem in _problems(effort, n_observations=2)
            for reading in Reading
        ),
        lambda case: verdict_of(_statement_holds(case[0], case[1], about)),
        show=lambda case: f"{case[0]}; {case[1].value}",
    )


def holds_for_sequences_without_observations(
    effort: Effort, *, about: RaisedProbability = RaisedProbability.WHOLE_SEQUENCE
) -> Outcome:
    """With nothing observed in between, a whole action sequence made likelier is optimal."""
    return examine_all(
        _problems(effort, n_observations=1),
        lambda problem: verdict_of(_statement_holds(problem, Reading.FIXED, about)),
    )


def later_conditional(
    effort: Effort, *, about: RaisedProbability = RaisedProbability.CONDITIONAL
) -> Outcome:
    """The statement read as one about conditional probabilities at the second step."""
    return holds_for_sequences_without_observations(effort, about=about)


def sequences_with_observations(effort: Effort, *, paid_anyway: Fraction = ZERO) -> Outcome:
    """Root actions a0, a1, a2 with beta 2/5, 2/5, 1/5; c = 1/10; a fair observation.

    After a0 the second action 0 pays 1 if o0 was seen (else u = 0), after a1 if o1 was; a2 pays
    3/5. The sequence (a0, 0) gains at o0 though a0 is worth 1/2 and a2 3/5.
    """
    del effort
    pays = {0: 0, 1: 1}
    utilities = []
    for a1, o1, a2, _ in product(range(3), range(2), range(3), range(2)):
        good = a2 == 0 and pays.get(a1) == o1
        utilities.append(Fraction(3, 5) if a1 == 2 else ONE if good else paid_anyway)
    observe = (HALF, HALF)
    third = (Fraction(1, 3),) * 3
    problem = Problem(
        beta=policy_of_two_steps([(Fraction(2, 5), Fraction(2, 5), Fraction(1, 5)), *[third] * 6]),
        nu=tuple(as_table([[observe] * 3] * 6**t) for t in range(2)),
        utility=as_table(utilities),
        budget=Fraction(1, 10),
    )
    return examine_all(
        [problem],
        lambda p: verdict_of(_statement_holds(p, Reading.FIXED, RaisedProbability.WHOLE_SEQUENCE)),
        show=lambda p: (
            "a0 pays after o0, a1 after o1, a2 pays 3/5; beta = (2/5, 2/5, 1/5), "
            f"c = {p.budget}: (a0, 0) becomes likelier at o0"
        ),
    )


def tvd_spends_what_kl_cannot(effort: Effort, *, share: Fraction = ONE) -> Outcome:
    """Perfect base policy: under TVD the bad action gets probability `s c` (s = 1); KL is inf."""
    del effort
    beta = (as_table([[ONE, ZERO]]),)
    nu = (as_table([[[ONE], [ONE]]]),)
    utility = as_table([ZERO, ONE])

    def decide(budget: Fraction) -> Verdict:
        verdicts = []
        for reading in Reading:
            pi = tvd_optimum(beta, nu, utility, budget=budget, reading=reading).pi
            kl = expected_kl_nats(pi, beta, nu)
            verdicts.append(pi[0][0, 1] == share * budget and kl == float("inf"))
        return verdict_of(all(verdicts))

    return examine_all((Fraction(n, 20) for n in range(1, 21)), decide, show=lambda c: f"c = {c}")


CHECKS: Final = (
    Check(
        label="theorem2-first-action",
        words="Under a TVD constraint, a first action made likelier than under the base policy is "
        "optimal, in all three readings.",
        formula="pi_c(a_t|h) > beta(a_t|h) => Q*(h, a_t) = V*(h), t the first constrained step",
        kind=Kind.EXHAUSTIVE,
        scope="3 actions, 2 fair observations, 2 steps; every 11th pattern of utilities in "
        "{0, 1/2, 1} after one action, constants after the others; optima exact",
        examine=holds_for_the_first_action,
        mutations=(
            Mutation(
                name="of the second, given the past",
                constants={"about": RaisedProbability.CONDITIONAL},
            ),
        ),
        statements=(Statement.TVD_CONSTRAINT,),
    ),
    Check(
        label="theorem2-sequences",
        words="So is a whole action sequence, if nothing is observed in between.",
        formula="prod pi_c > prod beta => the sequence is optimal (|O| = 1)",
        kind=Kind.EXHAUSTIVE,
        scope="3 actions, 2 steps; every pattern of utilities in {0, 1/2, 1} after one action, "
        "constants after the others, 2 betas, 2 budgets; optima exact",
        examine=holds_for_sequences_without_observations,
        mutations=(
            Mutation(
                name="conditional probabilities",
                constants={"about": RaisedProbability.CONDITIONAL},
            ),
        ),
        statements=(Statement.TVD_CONSTRAINT,),
    ),
    Check(
        label="theorem2-later-conditionals",
        words="Refuted reading: that a conditional probability at a later step rises only for "
        "optimal actions. Removing a bad sequence raises its siblings.",
        formula="pi_c(a_2|a_1) > beta(a_2|a_1) => Q*(a_1 a_2) = V*(a_1)",
        kind=Kind.EXHAUSTIVE,
        scope="the class of theorem2-sequences, in which the first counterexample is shown",
        examine=later_conditional,
        mutations=(
            Mutation(name="whole sequences", constants={"about": RaisedProbability.WHOLE_SEQUENCE}),
        ),
        statements=(Statement.TVD_CONSTRAINT,),
        expected=Verdict.FAILS,
    ),
    Check(
        label="theorem2-sequences-observed",
        words="Refuted reading: that with observations in between only optimal whole sequences "
        "become likelier.",
        formula="prod pi_c > prod beta => the sequence is optimal (|O| = 2)",
        kind=Kind.EXHAUSTIVE,
        scope="one counterexample with 3 actions, 2 observations, 2 steps",
        examine=sequences_with_observations,
        mutations=(Mutation(name="it pays 1 in any case", constants={"paid_anyway": Fraction(1)}),),
        statements=(Statement.TVD_CONSTRAINT,),
        expected=Verdict.FAILS,
    ),
    Check(
        label="theorem2-perfect-base",
        words="Even with a perfect base policy, a TVD budget c buys the bad action with "
        "probability c; no finite KL budget buys any of it.",
        formula="beta(bad) = 0: pi_c(bad) = c, KL(pi_c||beta) = inf",
        kind=Kind.EXHAUSTIVE,
        scope="one step, c = 1/20, 2/20 ... 1, three readings; optima exact",
        examine=tvd_spends_what_kl_cannot,
        mutations=(Mutation(name="half of c", constants={"share": Fraction(1, 2)}),),
        statements=(Statement.TVD_CONSTRAINT, Statement.KL_CONSTRAINT),
    ),
)
