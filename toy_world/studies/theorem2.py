r"""Theorem 2 (TVD constraint): what it says of actions, in which reading it holds, and why.

The paper: if `pi_c` has the greatest value among the policies with `TVD <= c`, then every action
with `pi_c(a|h) > beta(a|h)` is optimal. Write `x(ha) = prod pi_c` and `b(ha) = prod beta` for the
probabilities of the actions in `ha` given its observations, `Q*(h, a)` and `V*(h)` for the
optimal values, and consider histories h that nu can make, `W(h) > 0`. Four claims:

- FIRST: the printed one for the first action that the constraint covers.
- CONDITIONAL: the printed one for every action, `pi_c(a|h) > beta(a|h) => Q*(h, a) = V*(h)`.
- MASS: `x(ha) > b(ha) => Q*(h, a) = V*(h)`.
- SEQUENCE: `x(ha) > b(ha) =>` every action in `ha` is optimal where it is taken.

Everything here is about *full laws*: where nu misses mass FIRST and MASS fail in the expected
reading (what ends early costs no TVD), and where beta misses mass SEQUENCE fails in the adaptive
one (any policy exceeds beta there, so that the adversary shows it and all else is free).

MASS holds in all three readings (theory/constraints.py; in the expected one for an environment
that misses no mass). It is the corrected statement: FIRST is its case `x(root) = b(root) = 1`, and
it gives the printed conclusion wherever the agent has not withdrawn from h, `x(h) >= b(h)`.

*Proof of MASS.* A *plan* below h is one action for each history that it reaches from h, so given
the observations it has one last action (leaf). Suppose `x(ha) > b(ha)` and `Q*(h, a) < V*(h)`.
(i) Some plan sigma below h starts with a and has `x > b` at all its leaves: from `x(ha) > b(ha)`
every observation leads to a history with `x > b`, where some action keeps it, as both sum over
actions. (ii) Move a small probability delta from sigma to an optimal plan sigma* below h, which
does not start with a. The value grows by `W(h) delta (V*(h) - value(sigma)) > 0`. (iii) No TVD
grows: given observations that lead through h, sigma has one leaf, where `|x - b|` falls by delta,
and sigma* one, where it grows by at most delta; given others nothing changes. That is the claim
for fixed observations and for every adaptive strategy; in the expected reading the leaves of
sigma and those of sigma* each have total weight W(h). So pi_c was not optimal. Contradiction.

CONDITIONAL fails at later steps in every reading, even without observations: taking mass from a
bad sequence raises the conditional probability of its siblings. *Smallest shapes* (steps,
actions, observations): (2, 3, 1) and (3, 2, 1), in `conditional_counterexamples`. One step: FIRST.
Two steps of two actions, whatever the observations: let a be worse than a' at h and
`pi_c(a|h) > beta(a|h)`. By MASS `x(ha) <= b(ha)`, hence `x(h) < b(h)` and
`x(ha') = x(h) pi_c(a'|h) < b(ha')`. Moving mass from a to a' then changes no `|x - b|` in sum and
raises the value, as `x(ha) > 0`. Contradiction.

SEQUENCE holds without observations between the actions (a plan then is a sequence: start (ii) at
the history where the suboptimal action is), and also in the adaptive reading, shown below. It
fails in the fixed and the expected reading from shape (2, 2, 2) on, the smallest with an
observation between two choices: `sequence_counterexample`.

*Proof of SEQUENCE, adaptive.* The constraint is a recursion, `R(h) = sum_a max_o R(hao)` with
`R = sum_a |x - b|` at the last step, and `R(h) >= |x(h) - b(h)|`, with `R(h) = b(h) - x(h)` if and
only if no leaf below h has `x > b`. Call h *reducible* if some plan below h, of positive
probability, can give up a small delta with R(h) falling by delta. Claim: h is reducible if some
leaf below it has `x > b`. At the last step that leaf will do. Before, let the leaf lie below ha,
and let o maximise `R(hao)`. If `x(ha) > b(ha)`, a leaf with `x > b` lies below every hao. If not,
`R(hao)` is at least that of the observation with the leaf, hence above `b(ha) - x(ha)`, so again a
leaf with `x > b` lies below hao. By induction all maximising hao are reducible; with any plan of
positive probability for the other observations this makes `max_o R(hao)` and so R(h) fall by
delta. Now if `x > b` at a history below `h_s a_s` with a_s suboptimal at h_s, take delta from the
reducible plan below `h_s a_s` and give it to an optimal plan from h_s, where R grows by at most
delta: R(h_s) does not grow and the value does. Contradiction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, unique
from fractions import Fraction
from typing import Any, Final

import numpy as np

from mightnt.results import json_key
from theory.process import (
    EnvironmentTable,
    HistoryTree,
    PolicyTable,
    Probability,
    Table,
    UtilityTable,
    action_values,
    environment_table,
    observation_laws,
    optimal_values,
    policy_table,
    utility_table,
)
from toy_world.planners.certificate import Plan
from toy_world.planners.linear_program import least_over_optima
from toy_world.planners.problem import Reading
from toy_world.planners.tvd import tvd_optimum, tvd_program


@unique
class Claim(Enum):
    """What the theorem may be taken to say; x and b as in the module."""

    FIRST = "first action: pi(a) > beta(a) implies a optimal"
    CONDITIONAL = "any action: pi(a|h) > beta(a|h) implies a optimal at h"
    MASS = "any action: x(ha) > b(ha) implies a optimal at h"
    SEQUENCE = "x(ha) > b(ha) implies every action in ha optimal"


READINGS: Final = (Reading.FIXED, Reading.ADAPTIVE, Reading.EXPECTED)
"""In the order in which they are shown, the paper's own first."""
HOLDS: Final = {
    Claim.FIRST: frozenset(Reading),
    Claim.CONDITIONAL: frozenset[Reading](),
    Claim.MASS: frozenset(Reading),
    Claim.SEQUENCE: frozenset({Reading.ADAPTIVE}),
}
"""The readings in which a claim is proved here; in the others it has a counterexample."""


@dataclass(frozen=True, kw_only=True)
class TvdProblem:
    """A problem under a TVD budget.

    Attributes:
        tree: its histories.
        beta: base policy.
        nu: environment.
        utility: `U_m`.
        budget: c.
    """

    tree: HistoryTree
    beta: PolicyTable
    nu: EnvironmentTable
    utility: UtilityTable
    budget: Any

    def plan(self, reading: Reading) -> Plan[Probability]:
        """The optimum in `reading`."""
        return tvd_optimum(self.beta, self.nu, self.utility, budget=self.budget, reading=reading)


@dataclass(frozen=True, kw_only=True)
class Violation:
    """An action that a claim calls optimal and that is not.

    Attributes:
        step: t, from 0.
        row: of the history in level t.
        action: a.
        excess: by how much the claim's premise holds: `pi(a|h) - beta(a|h)` or `x(ha) - b(ha)`.
        loss: the greatest `V* - Q*` of the actions that should be optimal.
    """

    step: int
    row: int
    action: int
    excess: Any
    loss: Any


@dataclass(frozen=True, kw_only=True)
class Counterexample:
    """A problem in which every optimal policy violates a claim, exactly.

    Attributes:
        claim: which.
        readings: in which it fails.
        problem: with rational numbers.
        history: h, as actions and observations in turn.
        action: a.
    """

    claim: Claim
    readings: tuple[Reading, ...]
    problem: TvdProblem
    history: tuple[int, ...]
    action: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(steps, actions, observations)."""
        tree = self.problem.tree
        return tree.horizon, tree.n_actions, tree.n_observations


@dataclass(frozen=True, kw_only=True)
class ClaimVerdict:
    """Where a claim holds.

    Attributes:
        claim: which.
        holds_in: the readings in which it is proved; in the others it has a counterexample.
        smallest_shapes: of the counterexamples, (steps, actions, observations): smaller ones
            cannot fail.
    """

    claim: Claim
    holds_in: tuple[Reading, ...]
    smallest_shapes: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, kw_only=True)
class CertifiedExample:
    """A counterexample in one reading, worked out in rational arithmetic.

    Attributes:
        claim: which it refutes.
        shape: (steps, actions, observations).
        reading: of the constraint.
        budget: c.
        value: of an optimum.
        history: h, as actions and observations in turn.
        action: a.
        loss: how much value a loses (`loss_at`).
        least_excess: over all optima; positive where every one violates the claim
            (`certified_excess`).
    """

    claim: Claim
    shape: tuple[int, int, int]
    reading: Reading
    budget: Fraction
    value: Fraction
    history: tuple[int, ...]
    action: int
    loss: Fraction
    least_excess: Fraction


@dataclass(frozen=True, kw_only=True)
class ExampleRow:
    """One history of a counterexample: base policy and optimum beside what actions earn.

    Attributes:
        beta: the base policy's probabilities.
        pi: the optimum's.
        utility: what each action earns.
        budget: c.
    """

    beta: tuple[float, ...]
    pi: tuple[float, ...]
    utility: tuple[Fraction, ...] = field(metadata=json_key("Q"))
    budget: Fraction = field(metadata=json_key("c"))


def violations(
    problem: TvdProblem, pi: PolicyTable, claim: Claim, *, tolerance: float = 0.0
) -> tuple[Violation, ...]:
    """Every history and action at which `pi`, taken for an optimum, violates `claim`.

    Args:
        problem: exact or float tables.
        pi: of the same kind.
        claim: which.
        tolerance: by how much premise and conclusion must fail to count; 0 for exact tables.
    """
    V = optimal_values(problem.nu, problem.utility)
    x, b = _sequence_form(pi, problem.nu), _sequence_form(problem.beta, problem.nu)
    world = _observation_weights(problem.nu)
    found = []
    lost_before: Table = V[0] - V[0]
    for t, observations in enumerate(problem.nu):
        loss = V[t][:, None] - action_values(observations, V[t + 1])
        lost = np.maximum(lost_before[:, None], loss) if claim is Claim.SEQUENCE else loss
        if claim in (Claim.FIRST, Claim.CONDITIONAL):
            excess = pi[t] - problem.beta[t]
            considered = x[t].sum(axis=-1) > tolerance
        else:
            excess = x[t] - b[t]
            considered = np.ones(len(excess), dtype=bool)
        considered = considered & (world[t] > 0)
        wrong = (excess > tolerance) & (lost > tolerance) & considered[:, None]
        if claim is not Claim.FIRST or t == 0:
            found += [
                Violation(
                    step=t,
                    row=int(row),
                    action=int(action),
                    excess=excess[row, action],
                    loss=lost[row, action],
                )
                for row, action in np.argwhere(wrong)
            ]
        lost_before = np.repeat(
            np.maximum(lost_before[:, None], loss).reshape(-1), observations.shape[2]
        )
    return tuple(found)


def certified_excess(example: Counterexample, reading: Reading) -> Any:
    """The least excess, over all optimal policies, at the example's history and action.

    Positive: every optimum violates the claim. It is `x(ha) - beta(a|h) x(h)` for CONDITIONAL,
    which has the sign of `pi(a|h) - beta(a|h)`, and `x(ha) - b(ha)` for the others: linear in x,
    and so minimised over the optimal face by a second exact linear program.
    """
    problem = example.problem
    t, row = len(example.history) // 2, problem.tree.index(example.history)
    program = tvd_program(
        problem.beta, problem.nu, problem.utility, budget=problem.budget, reading=reading
    )
    n_actions = problem.tree.n_actions
    start = sum(level.size for level in problem.beta[:t]) + row * n_actions
    functional = np.full(len(program.objective), Fraction(0))
    functional[start + example.action] = Fraction(1)
    constant = Fraction(0)
    if example.claim is Claim.CONDITIONAL:
        functional[start : start + n_actions] -= problem.beta[t][row, example.action]
    else:
        constant = _sequence_form(problem.beta, problem.nu)[t][row, example.action]
    return least_over_optima(program, functional) - constant


def loss_at(example: Counterexample) -> Any:
    """The greatest `V* - Q*` of the actions that the claim calls optimal in the example."""
    problem = example.problem
    V = optimal_values(problem.nu, problem.utility)
    sequence = (*example.history, example.action)
    first = 0 if example.claim is Claim.SEQUENCE else len(example.history) // 2
    losses = []
    for t in range(first, len(sequence) // 2 + 1):
        row = problem.tree.index(sequence[: 2 * t])
        Q = action_values(problem.nu[t], V[t + 1])[row, sequence[2 * t]]
        losses.append(V[t][row] - Q)
    return max(losses)


def conditional_counterexamples() -> tuple[Counterexample, ...]:
    """CONDITIONAL fails without observations: 2 steps of 3 actions, and 3 steps of 2 actions.

    beta is uniform. Action sequences that start with 0 are worse than all others, which earn 1.
    The optimum takes all of c from the worst of them. What remains below action 0 is likelier
    there than before, also where it is not the best that can still be done there.
    """
    third = Fraction(1, 3)
    wide = {(0, 0): Fraction(0), (0, 1): third, (0, 2): 2 * third}
    deep = {(0, 0, 0): Fraction(0), (0, 0, 1): 2 * third, (0, 1, 0): third, (0, 1, 1): third}
    return tuple(
        Counterexample(
            claim=Claim.CONDITIONAL,
            readings=tuple(Reading),
            problem=_uniform_problem(
                HistoryTree(n_actions=n_actions, n_observations=1, horizon=len(next(iter(worse)))),
                lambda actions, _, worse=worse: worse.get(actions, Fraction(1)),
                budget=Fraction(1, n_actions ** len(next(iter(worse)))),
            ),
            history=(0, 0),
            action=1,
        )
        for n_actions, worse in ((3, wide), (2, deep))
    )


def sequence_counterexample() -> Counterexample:
    """SEQUENCE fails in the fixed and the expected reading: 2 steps, 2 actions, 2 observations.

    beta and nu are uniform. After action 0 and observation 0 the second action 0 earns 1, and
    nothing else does after action 0: `Q*(0) = 1/2`. After action 1 one earns 1/2 on observation 0,
    and on observation 1 again 1 by the second action 0: `Q*(1) = 3/4`. Improving the second
    action where it matters gains a full 1 for each unit of budget. A move from action 0 to action
    1 gains 3/4. So the optimum leaves the first action as it was, and (0, 0, 0) gains probability
    although its first action is not optimal. An adaptive adversary shows observation 0 after
    action 0 and 1 after action 1, and makes both improvements share one budget.
    """
    half = Fraction(1, 2)
    earned = {
        (0, 0, 0): Fraction(1),
        (1, 0, 0): half,
        (1, 0, 1): half,
        (1, 1, 0): Fraction(1),
    }
    return Counterexample(
        claim=Claim.SEQUENCE,
        readings=(Reading.FIXED, Reading.EXPECTED),
        problem=_uniform_problem(
            HistoryTree(n_actions=2, n_observations=2, horizon=2),
            lambda actions, observations: earned.get(
                (actions[0], observations[0], actions[1]), Fraction(0)
            ),
            budget=Fraction(3, 16),
        ),
        history=(0, 0),
        action=0,
    )


def spec_counterexample() -> Counterexample:
    """SEQUENCE again, with three first actions of which two pay only by a good second action.

    beta gives them .4, .4 and .2. The first pays 1 for the good second action after observation
    0, the second after observation 1, the third .6 for nothing; c = .1.
    """
    tree = HistoryTree(n_actions=3, n_observations=2, horizon=2)
    first = (Fraction(2, 5), Fraction(2, 5), Fraction(1, 5))
    second = (Fraction(1, 2), Fraction(1, 2), Fraction(0))
    half = (Fraction(1, 2), Fraction(1, 2))

    def utility(history: tuple[int, ...]) -> Fraction:
        action, observation, then, _ = history
        if action == 2:
            return Fraction(3, 5)
        return Fraction(int(then == 0 and observation == action))

    return Counterexample(
        claim=Claim.SEQUENCE,
        readings=(Reading.FIXED,),
        problem=TvdProblem(
            tree=tree,
            beta=policy_table(tree, lambda history: second if history else first),
            nu=environment_table(tree, lambda _: half),
            utility=utility_table(tree, utility),
            budget=Fraction(1, 10),
        ),
        history=(0, 0),
        action=0,
    )


def claim_verdicts() -> tuple[ClaimVerdict, ...]:
    """Where each claim holds."""
    smallest = (*conditional_counterexamples(), sequence_counterexample())
    return tuple(
        ClaimVerdict(
            claim=claim,
            holds_in=tuple(reading for reading in READINGS if reading in HOLDS[claim]),
            smallest_shapes=tuple(each.shape for each in smallest if each.claim is claim),
        )
        for claim in Claim
    )


def certified_examples() -> tuple[CertifiedExample, ...]:
    """Every counterexample in every reading."""
    examples = (*conditional_counterexamples(), sequence_counterexample(), spec_counterexample())
    return tuple(
        CertifiedExample(
            claim=example.claim,
            shape=example.shape,
            reading=reading,
            budget=example.problem.budget,
            value=Fraction(example.problem.plan(reading).value),
            history=example.history,
            action=example.action,
            loss=loss_at(example),
            least_excess=certified_excess(example, reading),
        )
        for example in examples
        for reading in READINGS
    )


def first_example_row() -> ExampleRow:
    """The history of the first counterexample at which the optimum violates the claim."""
    example, _ = conditional_counterexamples()
    problem = example.problem
    t, row = len(example.history) // 2, problem.tree.index(example.history)
    n = problem.tree.n_actions
    return ExampleRow(
        beta=tuple(float(p) for p in problem.beta[t][row]),
        pi=tuple(float(p) for p in problem.plan(Reading.FIXED).pi[t][row]),
        utility=tuple(problem.utility[row * n : (row + 1) * n]),
        budget=problem.budget,
    )


def random_problem(tree: HistoryTree, *, budget: float, rng: np.random.Generator) -> TvdProblem:
    """A problem of random tables."""
    beta, nu, utility = random_tables(tree, rng=rng)
    return TvdProblem(tree=tree, beta=beta, nu=nu, utility=utility, budget=budget)


def random_tables(
    tree: HistoryTree, *, rng: np.random.Generator
) -> tuple[PolicyTable, EnvironmentTable, UtilityTable]:
    """Base policy and environment of uniformly distributed rows, uniform utilities."""
    sizes = [tree.n_histories(t) for t in range(tree.horizon)]
    return (
        tuple(rng.dirichlet(np.ones(tree.n_actions), size=n) for n in sizes),
        tuple(rng.dirichlet(np.ones(tree.n_observations), size=(n, tree.n_actions)) for n in sizes),
        rng.random(tree.n_histories(tree.horizon)),
    )


def _uniform_problem(tree: HistoryTree, earned: Any, *, budget: Fraction) -> TvdProblem:
    """Uniform beta and nu; `earned(actions, observations)` is the utility."""
    actions = (Fraction(1, tree.n_actions),) * tree.n_actions
    observations = (Fraction(1, tree.n_observations),) * tree.n_observations
    return TvdProblem(
        tree=tree,
        beta=policy_table(tree, lambda _: actions),
        nu=environment_table(tree, lambda _: observations),
        utility=utility_table(tree, lambda history: earned(history[::2], history[1::2])),
        budget=budget,
    )


def _sequence_form(pi: PolicyTable, nu: EnvironmentTable) -> tuple[Table, ...]:
    """`prod pi` up to and with every action, level t of shape ((|A||O|)^t, |A|)."""
    levels: list[Table] = []
    reach = pi[0][:, 0] * 0 + 1
    for actions, observations in zip(pi, nu, strict=True):
        levels.append(reach[:, None] * actions)
        reach = np.repeat(levels[-1].reshape(-1), observations.shape[2])
    return tuple(levels)


def _observation_weights(nu: EnvironmentTable) -> Sequence[Table]:
    return observation_laws(tuple(level.astype(np.float64) for level in nu))
