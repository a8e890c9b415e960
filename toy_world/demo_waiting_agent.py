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
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from mightnt.figure_style import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILLION, new_figure
from theory.bounds import Theorem1Bound, third_term_bits
from theory.constraints import step_kl_nats
from theory.errors import InvalidArgumentError, InvalidBudgetError
from theory.paper import Statement
from theory.process import HistoryTree, environment_table, reach_probabilities, utility_table
from toy_world.demo import Column, Demo, DemoOptions, DemoResult, DemoTable, Evidence
from toy_world.planners.expected_kl import expected_kl_frontier
from toy_world.programs.columns import ColumnLayout, QueryPoint
from toy_world.programs.enumeration import Enumeration, enumerate_policies
from toy_world.programs.language import Do, Ends, Language, Latch
from toy_world.programs.posterior import posterior
from toy_world.worlds.demonstrator import demonstrate
from toy_world.worlds.environments import BAD, WORLDS, WorldName

LANGUAGE: Final = Language(n_actions=3, n_observations=2)
HORIZON: Final = 4
ROUND_TIME: Final = 1000
BELL: Final = 1
MANTISSA_BITS: Final = (2, 4, 8)
_NEW, _CLOCK, _BELL = "nothing new", f"time {ROUND_TIME}", "the bell"


@dataclass(frozen=True, kw_only=True)
class WaitingAgentOptions(DemoOptions):
    """Theorem 1's third term against k, and the agent that waits for a simple event."""

    bits: int = 20
    """L: the imitator is the mixture of every policy program of at most so many bits, 18 to 24
    (18 hold the switch at step 1000)."""
    budget_nats: float = 3.0
    """The waiting agent's budget of expected KL to the imitator."""
    bell_probability: float = 0.1
    """How likely the bell is to ring at each step, in (0, 1)."""
    steps: int = 10_000
    """The longest history for the third term, 100 to 1000000."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 18 <= self.bits <= 24:
            raise InvalidArgumentError(
                f"--bits must lie in 18..24 (18 hold the switch at step 1000), got {self.bits}"
            )
        if not 0 <= self.budget_nats < math.inf:
            raise InvalidBudgetError(
                f"--budget-nats must be >= 0 and finite, got {self.budget_nats}"
            )
        if not 0 < self.bell_probability < 1:
            raise InvalidArgumentError(
                f"--bell-probability must lie in (0, 1), got {self.bell_probability}"
            )
        if not 100 <= self.steps <= 10**6:
            raise InvalidArgumentError(f"--steps must lie in 100..10^6, got {self.steps}")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Where the waiting agent deviates.

    Attributes:
        budget_nats: its budget.
        value: the probability that it has deviated by the end.
        kl_nats: the expected KL that it spends.
        shares: of the probability of deviating, by what was new just before.
        rates: probability of deviating at once, in that situation, given that it has not yet.
    """

    budget_nats: float
    value: float
    kl_nats: float
    shares: dict[str, float]
    rates: dict[str, float]


def log2_probability(enumeration: Enumeration, index: int) -> float:
    """`log2 xi(h)` at a situation: of the actions, under the mixture as a semi-measure."""
    logs = enumeration.log_likelihoods[:, index] + np.log(enumeration.weights)
    largest = logs.max()
    total = largest + math.log(np.exp(logs - largest).sum())
    return float(total / math.log(2)) - enumeration.limit_bits


def third_terms(options: WaitingAgentOptions) -> list[dict[str, Any]]:
    """`-log2 xi(h)` and the third term's bits against k, in two worlds."""
    rows = []
    lengths = [int(k) for k in np.geomspace(10, options.steps, 10)]
    for name, text in ((WorldName.METRONOME, "copy_observation"), (WorldName.ECHO, None)):
        world = WORLDS[name]
        policy = LANGUAGE.policies.parse(text or "mix(1/2, do(a0), do(a1))")
        actions, observations = demonstrate(world, policy, options.steps, rng=options.rng())
        layout = ColumnLayout(
            actions,
            observations,
            [QueryPoint(n_steps=k) for k in lengths],
            n_actions=3,
            n_observations=2,
            horizon=1,
        )
        enumeration = enumerate_policies(LANGUAGE, layout, 14)
        for index, k in enumerate(lengths):
            log2_xi = log2_probability(enumeration, index)
            rows.append(
                {
                    "world": name.value,
                    "demonstrator": LANGUAGE.show(policy),
                    "k": k,
                    "minus_log2_xi": -log2_xi,
                    "bits": [third_term_bits(n_bits=n, log2_value=log2_xi) for n in MANTISSA_BITS],
                }
            )
    return rows


def waiting_choices(options: WaitingAgentOptions) -> list[Choice]:
    """The planner's choices at several budgets, three steps before a round time."""
    n_steps = ROUND_TIME - HORIZON + 1
    actions = np.zeros(n_steps, dtype=np.int64)
    layout = ColumnLayout(
        actions,
        np.zeros(n_steps, dtype=np.int64),
        [QueryPoint(n_steps=n_steps)],
        n_actions=3,
        n_observations=2,
        horizon=HORIZON,
    )
    beta = posterior(enumerate_policies(LANGUAGE, layout, options.bits), 0).imitator()
    tree = HistoryTree(n_actions=3, n_observations=2, horizon=HORIZON)
    ring = Fraction(options.bell_probability)
    nu = environment_table(tree, lambda _: (1 - ring, ring))
    nu = tuple(level.astype(np.float64) for level in nu)
    utility = utility_table(tree, lambda h: Fraction(int(BAD in h[::2]))).astype(np.float64)
    budgets = sorted({0.5, 1.0, 2.0, 4.0, 8.0, options.budget_nats})
    return [
        _choice(budget, plan.pi, beta, nu, float(plan.value), n_steps)
        for budget, plan in zip(
            budgets, expected_kl_frontier(beta, nu, utility, budgets), strict=True
        )
    ]


def _choice(budget: float, pi: Any, beta: Any, nu: Any, value: float, n_steps: int) -> Choice:
    deviates = dict.fromkeys((_NEW, _CLOCK, _BELL), 0.0)
    present = dict.fromkeys((_NEW, _CLOCK, _BELL), 0.0)
    spent = 0.0
    reach = reach_probabilities(pi, nu)
    tree = HistoryTree(n_actions=3, n_observations=2, horizon=HORIZON)
    for t, (level, kl) in enumerate(zip(pi, step_kl_nats(pi, beta), strict=True)):
        for row, history in enumerate(tree.continuations(t)):
            spent += reach[t][row] * kl[row]
            if BAD not in history[::2]:
                new = _what_is_new(history, n_steps + t)
                present[new] += reach[t][row]
                deviates[new] += reach[t][row] * level[row, BAD]
    return Choice(
        budget_nats=budget,
        value=value,
        kl_nats=float(spent),
        shares={name: mass / sum(deviates.values()) for name, mass in deviates.items()},
        rates={name: deviates[name] / present[name] for name in present},
    )


def _what_is_new(history: tuple[int, ...], time: int) -> str:
    if BELL in history[1::2]:
        return _BELL
    return _CLOCK if time >= ROUND_TIME else _NEW


def compute(options: WaitingAgentOptions) -> DemoResult:
    """Both tables."""
    terms = third_terms(options)
    choices = waiting_choices(options)
    (chosen,) = (c for c in choices if c.budget_nats == options.budget_nats)
    readiest = max(chosen.rates, key=lambda name: chosen.rates[name])
    first, last = ([r for r in terms if r["world"] == w] for w in ("metronome", "echo"))
    return DemoResult(
        name="waiting_agent",
        statements=(Statement.LITTLE_CONSTRAINT,),
        findings=(
            f"The third term, n = 8: {first[0]['bits'][2]} to {first[-1]['bits'][2]} bits where "
            f"the demonstrator is predictable, {last[0]['bits'][2]} to {last[-1]['bits'][2]} where "
            f"it tosses coins (k = {terms[0]['k']} to {terms[-1]['k']:,}): small, but not "
            "independent of k. The direct bound has no such term.",
            f"With {options.budget_nats:g} nats the waiting agent deviates with probability "
            f"{chosen.value:.3f}: once the bell has rung, at a rate of {chosen.rates[_BELL]:.3f} a "
            f"step; at time {ROUND_TIME} {chosen.rates[_CLOCK]:.3f}; with nothing new "
            f"{chosen.rates[_NEW]:.3f}. It deviates most readily after {readiest}.",
        ),
        tables=(_term_table(terms), _choice_table(choices, options)),
        data={
            "terms": terms,
            "choices": choices,
            "direct_bound_bits": Theorem1Bound(delta_bits=_bell_delta_bits()).bound_bits,
        },
    )


def _bell_delta_bits() -> int:
    """Delta of "after the bell, always the bad action"."""
    event = Latch(Ends((BELL,)))
    return LANGUAGE.switch_bits + LANGUAGE.length(event) + LANGUAGE.length(Do(BAD))


def _term_table(terms: list[dict[str, Any]]) -> DemoTable:
    return DemoTable(
        title="The third term of the printed bound, against k",
        columns=(
            Column(header="world"),
            Column(header="demonstrator"),
            Column(header="k"),
            Column(header="-log2 xi(h)", evidence=Evidence.FLOAT),
            *(Column(header=f"bits, n = {n}", evidence=Evidence.EXACT) for n in MANTISSA_BITS),
        ),
        rows=tuple(
            (r["world"], r["demonstrator"], r["k"], r["minus_log2_xi"], *r["bits"]) for r in terms
        ),
        note="v is within a factor 1 - 2^(1-n) of V*: 1/2, 7/8, 127/128. Bits of Elias' delta code "
        "for m and j; xi is the mixture of every policy program of at most 14 bits.",
    )


def _choice_table(choices: list[Choice], options: WaitingAgentOptions) -> DemoTable:
    names = (_NEW, _CLOCK, _BELL)
    return DemoTable(
        title=f"The waiting agent, {HORIZON} steps from k = {ROUND_TIME - HORIZON + 1} on",
        columns=(
            Column(header="budget (nats)"),
            Column(header="P(deviates)", evidence=Evidence.CERTIFIED),
            Column(header="KL spent (nats)", evidence=Evidence.FLOAT),
            *(Column(header=f"rate, {name}", evidence=Evidence.FLOAT) for name in names),
        ),
        rows=tuple(
            (
                c.budget_nats,
                c.value,
                c.kl_nats,
                *(c.rates[name] for name in names),
            )
            for c in choices
        ),
        note="rate: probability of the first bad action at a step, given what is new there. "
        f"The bell rings with probability "
        f"{options.bell_probability:g} a step. Imitator: every policy program of at most "
        f"{options.bits} bits after {ROUND_TIME - HORIZON + 1} steps of do(a0) in silence.",
    )


def draw(result: DemoResult) -> Figure:
    """The third term against k, and the deviation rates against the budget."""
    figure = new_figure(height_inches=2.9)
    terms, waiting = figure.subplots(1, 2)
    for world, label, colour, marker in (
        ("echo", "coin tosses", VERMILLION, "s"),
        ("metronome", "predictable", BLUE, "o"),
    ):
        rows = [r for r in result.data["terms"] if r["world"] == world]
        terms.plot(
            [r["k"] for r in rows],
            [r["bits"][2] for r in rows],
            f"{marker}-",
            color=colour,
            label=f"K(v ξ(h)), n = 8: {label}",
        )
    terms.axhline(
        result.data["direct_bound_bits"], color=BLACK, label="direct bound: Δ, all there is"
    )
    terms.set(xscale="log", xlabel="k, steps of demonstration", ylabel="bits")
    terms.set_ylim(0, None)
    terms.set_title("(a) The third term drifts with k")
    terms.legend(loc="lower right")

    choices = result.data["choices"]
    budgets = [c.budget_nats for c in choices]
    for name, colour, marker in ((_BELL, GREEN, "o"), (_CLOCK, ORANGE, "D"), (_NEW, GREY, "s")):
        waiting.plot(
            budgets, [c.rates[name] for c in choices], f"{marker}-", color=colour, label=name
        )
    waiting.set(xlabel="budget, nats of expected KL", ylabel="rate of deviating, per step")
    waiting.set_title("(b) The agent waits for what is simple to name")
    waiting.legend(title="new just before", loc="center right")
    return figure


DEMO: Final = Demo(name="waiting_agent", options_type=WaitingAgentOptions, run=compute, draw=draw)

if __name__ == "__main__":
    DEMO.main()
