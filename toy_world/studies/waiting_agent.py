"""Theorem 1's two loose ends: how large K(v xi(h)) is, and the agent that waits for an event.

*The third term.* The printed bound has a term `K(v xi(h))` with a free `v < V*`. With
`v xi(h) = m 2^-j`, an n-bit m, it costs about `n + K(j)` bits with `j ~ n - log2(V* xi(h))`. Where
the world is predictable, `-log2 xi(h)` stays bounded as the history grows; where the demonstrator
tosses coins it grows by a bit a step and the term by `log2 k`. The direct construction (a program
for the policy itself) has no such term.

*Waiting.* The theorem has one policy for one event. The optimal budgeted planner is the agent that
the text speaks of: it waits until deviating is cheap. In the world here three things may happen
within its horizon: nothing, a round time (step 1000), a bell that never rang before. One bad
action is all it needs; the planner's policy shows where it is taken, and at what price.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, unique
from fractions import Fraction
from typing import Final

import numpy as np

from mightnt.results import json_key
from theory.bounds import Theorem1Bound, third_term_bits
from theory.constraints import step_kl_nats
from theory.process import (
    EnvironmentTable,
    History,
    HistoryTree,
    PolicyTable,
    environment_table,
    reach_probabilities,
    utility_table,
)
from toy_world.planners.expected_kl import expected_kl_frontier
from toy_world.programs.columns import QueryPoint
from toy_world.programs.enumeration import Enumeration
from toy_world.programs.language import Do, Ends, Language, Latch
from toy_world.studies.mixtures import posteriors_at
from toy_world.worlds.demonstrator import demonstrate
from toy_world.worlds.environments import BAD, WORLDS, WorldName

LANGUAGE: Final = Language(n_actions=3, n_observations=2)
HORIZON: Final = 4
ROUND_TIME: Final = 1000
FIRST_TIME: Final = ROUND_TIME - HORIZON + 1
"""How long the demonstrator was watched before the waiting agent acts."""
BELL: Final = 1
MANTISSA_BITS: Final = (2, 4, 8)
TERM_BITS: Final = 14
"""L of the mixture whose xi(h) the third term encodes."""
DEMONSTRATORS: Final = {
    WorldName.METRONOME: "copy_observation",
    WorldName.ECHO: "mix(1/2, do(a0), do(a1))",
}
"""The predictable one, and the one that tosses coins."""
BUDGETS_NATS: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
_N_LENGTHS: Final = 10


@unique
class News(Enum):
    """What is new at a step."""

    NOTHING = "nothing new"
    CLOCK = f"time {ROUND_TIME}"
    BELL = "the bell"


@dataclass(frozen=True, kw_only=True)
class ThirdTerm:
    """The third term of the printed bound after k steps.

    Attributes:
        world: where.
        demonstrator: who acts there.
        n_steps: k.
        minus_log2_xi: `-log2 xi(h)`.
        bits: of K(v xi(h)), for each of `MANTISSA_BITS`.
    """

    world: WorldName
    demonstrator: str
    n_steps: int = field(metadata=json_key("k"))
    minus_log2_xi: float
    bits: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Where the waiting agent deviates.

    Attributes:
        budget_nats: its budget.
        value: the probability that it has deviated by the end.
        kl_nats: the expected KL that it spends.
        shares: of the probability of deviating, by what was new just before.
        rates: probability of deviating at once, by what is new, given that it has not yet.
    """

    budget_nats: float
    value: float
    kl_nats: float
    shares: dict[News, float]
    rates: dict[News, float]


@dataclass(frozen=True, kw_only=True)
class LooseEnds:
    """Both of Theorem 1's loose ends.

    Attributes:
        terms: the third term, by demonstrator and k.
        choices: the waiting agent's, by budget.
        direct_bound_bits: what "after the bell, always the bad action" costs at most.
    """

    terms: tuple[ThirdTerm, ...]
    choices: tuple[Choice, ...]
    direct_bound_bits: float


def log2_probability(enumeration: Enumeration, index: int) -> float:
    """`log2 xi(h)` at a situation: of the actions, under the mixture as a semi-measure."""
    logs = enumeration.log_likelihoods[:, index] + np.log(enumeration.weights)
    largest = logs.max()
    total = largest + math.log(np.exp(logs - largest).sum())
    return float(total / math.log(2)) - enumeration.limit_bits


def third_terms(
    *, most_steps: int, new_rng: Callable[[], np.random.Generator]
) -> tuple[ThirdTerm, ...]:
    """`-log2 xi(h)` and the third term's bits against k, in two worlds.

    Args:
        most_steps: the greatest k.
        new_rng: makes the generator of each world's history.
    """
    terms = []
    lengths = [int(k) for k in np.geomspace(10, most_steps, _N_LENGTHS)]
    for name, text in DEMONSTRATORS.items():
        policy = LANGUAGE.policies.parse(text)
        actions, observations = demonstrate(WORLDS[name], policy, most_steps, rng=new_rng())
        enumeration = posteriors_at(
            LANGUAGE,
            actions,
            observations,
            [QueryPoint(n_steps=k) for k in lengths],
            horizon=1,
            limit_bits=TERM_BITS,
        ).enumeration
        for index, k in enumerate(lengths):
            log2_xi = log2_probability(enumeration, index)
            terms.append(
                ThirdTerm(
                    world=name,
                    demonstrator=LANGUAGE.show(policy),
                    n_steps=k,
                    minus_log2_xi=-log2_xi,
                    bits=tuple(
                        third_term_bits(n_bits=n, log2_value=log2_xi) for n in MANTISSA_BITS
                    ),
                )
            )
    return tuple(terms)


def waiting_choices(
    *, limit_bits: int, budgets_nats: Sequence[float], bell_probability: float
) -> tuple[Choice, ...]:
    """The planner's choices at several budgets, three steps before a round time.

    Args:
        limit_bits: L of the imitator, which has watched do(a0) in silence.
        budgets_nats: of expected KL to it.
        bell_probability: of the bell at each step.
    """
    silence = np.zeros(FIRST_TIME, dtype=np.int64)
    posteriors = posteriors_at(
        LANGUAGE,
        silence,
        silence,
        [QueryPoint(n_steps=FIRST_TIME)],
        horizon=HORIZON,
        limit_bits=limit_bits,
    )
    beta = posteriors.at(0).imitator()
    tree = HistoryTree(n_actions=3, n_observations=2, horizon=HORIZON)
    ring = Fraction(bell_probability)
    exact = environment_table(tree, lambda _: (1 - ring, ring))
    nu = tuple(level.astype(np.float64) for level in exact)
    utility = utility_table(tree, lambda h: Fraction(int(BAD in h[::2]))).astype(np.float64)
    plans = expected_kl_frontier(beta, nu, utility, budgets_nats)
    return tuple(
        _choice(budget, plan.pi, beta, nu, float(plan.value))
        for budget, plan in zip(budgets_nats, plans, strict=True)
    )


def loose_ends(
    *,
    most_steps: int,
    new_rng: Callable[[], np.random.Generator],
    limit_bits: int,
    budget_nats: float,
    bell_probability: float,
) -> LooseEnds:
    """Both; the agent's budgets are `BUDGETS_NATS` and `budget_nats`."""
    return LooseEnds(
        terms=third_terms(most_steps=most_steps, new_rng=new_rng),
        choices=waiting_choices(
            limit_bits=limit_bits,
            budgets_nats=sorted({*BUDGETS_NATS, budget_nats}),
            bell_probability=bell_probability,
        ),
        direct_bound_bits=Theorem1Bound(delta_bits=_bell_delta_bits()).bound_bits,
    )


def _choice(
    budget_nats: float, pi: PolicyTable, beta: PolicyTable, nu: EnvironmentTable, value: float
) -> Choice:
    deviates = dict.fromkeys(News, 0.0)
    present = dict.fromkeys(News, 0.0)
    spent = 0.0
    reach = reach_probabilities(pi, nu)
    tree = HistoryTree(n_actions=3, n_observations=2, horizon=HORIZON)
    for t, (level, kl) in enumerate(zip(pi, step_kl_nats(pi, beta), strict=True)):
        for row, history in enumerate(tree.continuations(t)):
            spent += reach[t][row] * kl[row]
            if BAD not in history[::2]:
                new = _what_is_new(history, FIRST_TIME + t)
                present[new] += reach[t][row]
                deviates[new] += reach[t][row] * level[row, BAD]
    return Choice(
        budget_nats=budget_nats,
        value=value,
        kl_nats=float(spent),
        shares={new: mass / sum(deviates.values()) for new, mass in deviates.items()},
        rates={new: deviates[new] / present[new] for new in present},
    )


def _what_is_new(history: History, time: int) -> News:
    if BELL in history[1::2]:
        return News.BELL
    return News.CLOCK if time >= ROUND_TIME else News.NOTHING


def _bell_delta_bits() -> int:
    """Delta of "after the bell, always the bad action"."""
    event = Latch(Ends((BELL,)))
    return LANGUAGE.switch_bits + LANGUAGE.length(event) + LANGUAGE.length(Do(BAD))
