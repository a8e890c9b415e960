"""Theorem 2: which probabilities a TVD-constrained optimum may raise above the base policy's.

Why it is true of the first constrained action, in every reading: let pi be optimal within c with
`pi(a) > beta(a)`. Some plan under a has more mass than under beta at every leaf of it. Moving a
little of it to an optimal plan lowers `|x - b|` there by as much as it can raise it elsewhere, so
the TVD does not grow, and the value rises unless a was optimal. For whole sequences the same
argument needs that the two plans share no observations to average over; for conditional
probabilities at later steps it says nothing, since removing a bad sequence raises the
conditional probability of its siblings.

All this is of full laws. Where the environment misses mass the first part fails in the expected
reading, and where the base policy does the second fails in the adaptive one.

Every linear program here is solved exactly: the optimum is verified in rational arithmetic. A
statement is about every optimum, so what an optimum may raise at most is a second linear program
over the face of all optima.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction
from itertools import product
from typing import Any, Final

import numpy as np

from proofs_check.finite_classes import Row, policy_of_two_steps, show_tables
from proofs_check.sabotage import Sabotage, with_keyword, with_result
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
    action_values,
    as_table,
    observation_laws,
    optimal_values,
    values,
)
from toy_world.planners import tvd
from toy_world.planners.linear_program import least_over_optima
from toy_world.planners.problem import Reading
from toy_world.planners.tvd import tvd_optimum, tvd_program
from toy_world.studies.theorem2 import sequence_counterexample

HALF: Final = Fraction(1, 2)
ZERO, ONE = Fraction(0), Fraction(1)


class RaisedProbability(Enum):
    """What "every action with a higher probability than the base policy's" is about."""

    FIRST_ACTION = "of the first action"
    LAST_OF_SEQUENCE = "of the last action's whole sequence"
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
    wanted = {
        Effort.SMALLEST: 12 if n_observations > 1 else 2,
        Effort.DEFAULT: 25 if n_observations > 1 else 9,
        Effort.THOROUGH: len(patterns),
    }[effort]
    betas = [(Fraction(1, 3),) * 3, (HALF, Fraction(1, 4), Fraction(1, 4))]
    for pattern in patterns[:: max(len(patterns) // wanted, 1)]:
        for level, beta in product(levels, betas[: 1 if n_observations > 1 else 2]):
            utilities = (*pattern, *[level] * len(pattern), *[HALF] * len(pattern))
            for budget in (Fraction(1, 10), Fraction(1, 3))[n_observations > 1 :]:
                yield _two_steps(
                    beta=beta, utilities=utilities, n_observations=n_observations, budget=budget
                )


def excesses(
    problem: Problem, reading: Reading, about: RaisedProbability
) -> Iterator[tuple[int, int, int, Any]]:
    """How much every probability that must not rise does, at the optimum that raises it most.

    Yields (t, row of the history in level t, action, excess) for each action that the statement
    calls suboptimal, of a history that nu can make: the greatest excess over *all* optimal
    policies, by a second exact linear program on their face. It is `x(ha) - b(ha)`, x and b the
    probabilities of the whole action sequence, or for CONDITIONAL `x(ha) - beta(a|h) x(h)`.
    """
    program = tvd_program(
        problem.beta, problem.nu, problem.utility, budget=problem.budget, reading=reading
    )
    x_start, base = 0, np.array([ONE], dtype=object)
    levels = optimal_values(problem.nu, problem.utility)
    reached = observation_laws(problem.nu)
    lost_before = np.full(1, False)
    for t, (beta, nu) in enumerate(zip(problem.beta, problem.nu, strict=True)):
        n_actions = beta.shape[1]
        lost = action_values(nu, levels[t + 1]) < levels[t][:, None]
        if about is RaisedProbability.WHOLE_SEQUENCE:
            lost = lost | lost_before[:, None]
        law = base[:, None] * beta
        for row, action in np.argwhere(lost & (reached[t] > 0)[:, None]):
            first = x_start + row * n_actions
            functional = np.full(len(program.objective), ZERO)
            functional[first + action] = ONE
            constant = law[row, action]
            if about is RaisedProbability.CONDITIONAL:
                functional[first : first + n_actions] -= beta[row, action]
                constant = ZERO
            yield t, row, action, -least_over_optima(program, -functional) - constant
        if about is RaisedProbability.FIRST_ACTION:
            return
        x_start += beta.size
        base = np.repeat(law.reshape(-1), nu.shape[2])
        lost_before = np.repeat(lost.reshape(-1), nu.shape[2])


def _statement_holds(problem: Problem, reading: Reading, about: RaisedProbability) -> Verdict:
    """Of every optimum. Informative where something is suboptimal and the budget gains something.

    Without a suboptimal action nothing can be wrong; without a gain beta itself is optimal.
    """
    found = [excess for *_, excess in excesses(problem, reading, about)]
    gains = (
        tvd_optimum(
            problem.beta, problem.nu, problem.utility, budget=problem.budget, reading=reading
        ).value
        > values(problem.beta, problem.nu, problem.utility)[0][0]
    )
    return verdict_of(all(excess <= 0 for excess in found), informative=bool(found) and bool(gains))


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
        lambda case: _statement_holds(case[0], case[1], about),
        show=lambda case: f"{case[0]}; {case[1].value}",
    )


def holds_for_sequences_without_observations(
    effort: Effort, *, about: RaisedProbability = RaisedProbability.WHOLE_SEQUENCE
) -> Outcome:
    """With nothing observed in between, a whole action sequence made likelier is optimal."""
    return examine_all(
        _problems(effort, n_observations=1),
        lambda problem: _statement_holds(problem, Reading.FIXED, about),
    )


def _small_problems(effort: Effort) -> Iterator[Problem]:
    """Two actions and two fair observations, with patterns of utilities spread over all of them."""
    levels = (ZERO, HALF, ONE)
    patterns = [p for p in product(levels, repeat=8) if ONE in p and ZERO in p]
    wanted = {Effort.SMALLEST: 6, Effort.DEFAULT: 25, Effort.THOROUGH: 600}[effort]
    betas = [(HALF, HALF), (Fraction(1, 3), Fraction(2, 3))]
    for i, pattern in enumerate(patterns[7 :: len(patterns) // wanted]):
        yield _two_steps(
            beta=betas[i % 2],
            utilities=pattern,
            n_observations=2,
            budget=(Fraction(1, 8), Fraction(3, 16))[i // 2 % 2],
        )


def holds_for_the_mass(
    effort: Effort, *, about: RaisedProbability = RaisedProbability.LAST_OF_SEQUENCE
) -> Outcome:
    """Whatever the reading, the last action of a sequence made likelier is optimal there."""
    return examine_all(
        ((problem, reading) for problem in _mass_problems(effort) for reading in Reading),
        lambda case: _statement_holds(case[0], case[1], about),
        show=lambda case: f"{case[0]}; {case[1].value}",
    )


def _mass_problems(effort: Effort) -> Iterator[Problem]:
    """The small problems, after one in which whole sequences fail."""
    yield _sequence_problem()
    yield from _small_problems(effort)


def holds_for_sequences_adaptively(
    effort: Effort, *, readings: tuple[Reading, ...] = (Reading.ADAPTIVE,)
) -> Outcome:
    """Against adaptive observations every action of a sequence made likelier is optimal."""
    return examine_all(
        ((problem, reading) for problem in _mass_problems(effort) for reading in readings),
        lambda case: _statement_holds(case[0], case[1], RaisedProbability.WHOLE_SEQUENCE),
        show=lambda case: f"{case[0]}; {case[1].value}",
    )


def _sequence_problem() -> Problem:
    """`toy_world.studies.theorem2.sequence_counterexample`: 2 actions, 2 observations, 2 steps."""
    found = sequence_counterexample().problem
    return Problem(beta=found.beta, nu=found.nu, utility=found.utility, budget=found.budget)


def later_conditional(
    effort: Effort, *, about: RaisedProbability = RaisedProbability.CONDITIONAL
) -> Outcome:
    """The statement read as one about conditional probabilities at the second step."""
    return holds_for_sequences_without_observations(effort, about=about)


def missing_environment_mass(effort: Effort, *, missing: Fraction = Fraction(4, 5)) -> Outcome:
    """FIRST in the expected reading where nu misses mass m = 4/5 after a0; 2 steps, 2 actions.

    beta always takes a1, b0, which earns 0; a1, b1 earns 3/10; a0 leads on with probability 1 - m,
    and then earns 1 in any case. So `Q*(a0) = 1/5 < Q*(a1) = 3/10`. But a unit of probability moved
    to b1 costs 2 of the weighted sum of distances, and one moved to a0 `1 + 1/5`.
    """
    del effort
    nothing, sure = ZERO, ONE
    problem = Problem(
        beta=policy_of_two_steps([(nothing, sure), (sure, nothing), (sure, nothing)]),
        nu=(as_table([[[ONE - missing], [ONE]]]), as_table([[[ONE]] * 2] * 2)),
        utility=as_table([ONE, ONE, ZERO, Fraction(3, 10)]),
        budget=Fraction(3, 10),
    )
    return _refuted(problem, Reading.EXPECTED, RaisedProbability.FIRST_ACTION)


def missing_base_mass(effort: Effort, *, missing: Fraction = HALF) -> Outcome:
    """SEQUENCE in the adaptive reading where beta misses mass m = 1/2 after a0 o1.

    2 steps, 2 actions, 2 fair observations. Any pi exceeds beta after a0 o1, and the adversary
    shows o1 after a0. What is bought after a0 o0 costs nothing more; so a0 o1 a1, worth 1/2, rises,
    though a0 is worth 1/4 and a1 1/2.
    """
    del effort
    fair, b0, b1 = (HALF, HALF), (ONE, ZERO), (ZERO, ONE)
    utilities = {(0, 1, 1): HALF, (1, 1, 0): ONE}
    problem = Problem(
        beta=policy_of_two_steps([fair, b0, (ONE - missing, ZERO), b1, b0]),
        nu=tuple(as_table([[fair] * 2] * 4**t) for t in range(2)),
        utility=as_table(
            [utilities.get((a1, o1, a2), ZERO) for a1, o1, a2, _ in product(range(2), repeat=4)]
        ),
        budget=Fraction(1, 8),
    )
    return _refuted(problem, Reading.ADAPTIVE, RaisedProbability.WHOLE_SEQUENCE)


def _refuted(problem: Problem, reading: Reading, about: RaisedProbability) -> Outcome:
    """The statement of one problem; a counterexample is shown with its greatest excess."""

    def worst(_: Problem) -> str:
        found = max(excesses(problem, reading, about), key=lambda each: each[3])
        return f"{problem}; level {found[0]}, history {found[1]}, a{found[2]}: excess {found[3]}"

    return examine_all([problem], lambda p: _statement_holds(p, reading, about), show=worst)


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
        lambda p: _statement_holds(p, Reading.FIXED, RaisedProbability.WHOLE_SEQUENCE),
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


_WRONG_WAY: Final = (
    Sabotage(
        name="the least value in place of the greatest",
        owner=tvd,
        attribute="tvd_program",
        fault=with_result(lambda program: replace(program, objective=-program.objective)),
    ),
)

CHECKS: Final = (
    Check(
        label="theorem2-first-action",
        words="Under a TVD constraint, base policy and environment missing no mass, a first action "
        "that some optimum makes likelier than the base policy does is optimal, in all three "
        "readings.",
        formula="pi_c(a_t|h) > beta(a_t|h) => Q*(h, a_t) = V*(h), t the first constrained step",
        kind=Kind.EXHAUSTIVE,
        scope="3 actions, 2 fair observations, 2 steps; every 26th pattern of utilities in "
        "{0, 1/2, 1} after one action, constants after the others; every optimum, exact",
        examine=holds_for_the_first_action,
        mutations=(
            Mutation(
                name="of the second, given the past",
                constants={"about": RaisedProbability.CONDITIONAL},
            ),
        ),
        least_informative=60,
        sabotages=_WRONG_WAY,
        statements=(Statement.TVD_CONSTRAINT,),
    ),
    Check(
        label="theorem2-mass",
        words="The corrected statement: for full laws, the last action of a sequence that some "
        "optimum makes likelier as a whole is optimal where it is taken, in all three readings.",
        formula="prod pi_c(ha) > prod beta(ha) => Q*(h, a) = V*(h)",
        kind=Kind.EXHAUSTIVE,
        scope="2 actions, 2 fair observations, 2 steps; every 242nd pattern of utilities in "
        "{0, 1/2, 1}, 2 betas, 2 budgets; every optimum, exact",
        examine=holds_for_the_mass,
        least_informative=12,
        mutations=(
            Mutation(
                name="every action of the sequence",
                constants={"about": RaisedProbability.WHOLE_SEQUENCE},
            ),
        ),
        sabotages=_WRONG_WAY,
        statements=(Statement.TVD_CONSTRAINT,),
    ),
    Check(
        label="theorem2-sequences-adaptive",
        words="For full laws and against adaptive observations, every action of a sequence that "
        "some optimum makes likelier as a whole is optimal.",
        formula="prod pi_c(ha) > prod beta(ha) => every action in ha is optimal",
        kind=Kind.EXHAUSTIVE,
        scope="the class of theorem2-mass, adaptive reading; every optimum, exact",
        examine=holds_for_sequences_adaptively,
        least_informative=4,
        mutations=(
            Mutation(name="fixed observations", constants={"readings": (Reading.FIXED,)}),
            Mutation(name="expected observations", constants={"readings": (Reading.EXPECTED,)}),
        ),
        sabotages=_WRONG_WAY,
        statements=(Statement.TVD_CONSTRAINT,),
    ),
    Check(
        label="theorem2-environment-misses-mass",
        words="Refuted: the first part where the environment misses mass, in the expected reading. "
        "Histories that do not go on count for little in the distance.",
        formula="pi_c(a_0) > beta(a_0) => Q*(a_0) = V*",
        kind=Kind.EXHAUSTIVE,
        scope="one counterexample with 2 actions, 1 observation, 2 steps; every optimum, exact",
        examine=missing_environment_mass,
        mutations=(Mutation(name="no mass is missing", constants={"missing": ZERO}),),
        sabotages=_WRONG_WAY,
        statements=(Statement.TVD_CONSTRAINT,),
        expected=Verdict.FAILS,
    ),
    Check(
        label="theorem2-base-misses-mass",
        words="Refuted: whole sequences in the adaptive reading where the base policy misses mass.",
        formula="prod pi_c(ha) > prod beta(ha) => every action in ha is optimal",
        kind=Kind.EXHAUSTIVE,
        scope="one counterexample with 2 actions, 2 observations, 2 steps; every optimum, exact",
        examine=missing_base_mass,
        mutations=(Mutation(name="no mass is missing", constants={"missing": ZERO}),),
        statements=(Statement.TVD_CONSTRAINT,),
        expected=Verdict.FAILS,
    ),
    Check(
        label="theorem2-sequences",
        words="So is, for full laws, every action of a whole sequence, if nothing is observed in "
        "between.",
        formula="prod pi_c > prod beta => the sequence is optimal (|O| = 1)",
        kind=Kind.EXHAUSTIVE,
        scope="3 actions, 2 steps; every second pattern of utilities in {0, 1/2, 1} after one "
        "action, constants after the others, 2 betas, 2 budgets; every optimum, exact",
        examine=holds_for_sequences_without_observations,
        mutations=(
            Mutation(
                name="conditional probabilities",
                constants={"about": RaisedProbability.CONDITIONAL},
            ),
        ),
        least_informative=24,
        sabotages=_WRONG_WAY,
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
        least_informative=20,
        mutations=(Mutation(name="half of c", constants={"share": Fraction(1, 2)}),),
        sabotages=(
            Sabotage(
                name="twice the budget",
                owner=tvd,
                attribute="tvd_program",
                fault=with_keyword("budget", lambda budget: 2 * budget),
            ),
            Sabotage(
                name="the base policy itself",
                owner=tvd,
                attribute="policy_of",
                fault=lambda _: lambda _solution, beta: beta,
            ),
        ),
        statements=(Statement.TVD_CONSTRAINT, Statement.KL_CONSTRAINT),
    ),
)
