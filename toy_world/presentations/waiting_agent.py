"""The third term of Theorem 1's printed bound, and the agent that waits for an event.

See `toy_world.studies.waiting_agent`.
"""

from collections.abc import Sequence
from typing import Final

from matplotlib.figure import Figure

from mightnt.figure_style import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILLION, new_figure
from mightnt.tables import Column, Evidence, Table
from theory.paper import Statement
from toy_world.demo import Presentation
from toy_world.demo_waiting_agent import WaitingAgentOptions
from toy_world.studies.waiting_agent import (
    FIRST_TIME,
    HORIZON,
    MANTISSA_BITS,
    ROUND_TIME,
    TERM_BITS,
    Choice,
    LooseEnds,
    News,
    ThirdTerm,
    loose_ends,
)
from toy_world.worlds.environments import WorldName


def compute(options: WaitingAgentOptions) -> LooseEnds:
    """The third term, and the agent's choices."""
    return loose_ends(
        most_steps=options.steps,
        new_rng=options.rng,
        limit_bits=options.bits,
        budget_nats=options.budget_nats,
        bell_probability=options.bell_probability,
    )


def tables(options: WaitingAgentOptions, data: LooseEnds) -> tuple[Table, ...]:
    """The third term, and the agent's choices."""
    return (_term_table(data.terms), _choice_table(data.choices, options))


def _term_table(terms: Sequence[ThirdTerm]) -> Table:
    return Table(
        name="third_term",
        title="The third term of the printed bound, against k",
        columns=(
            Column(header="world"),
            Column(header="demonstrator"),
            Column(header="k"),
            Column(header="-log2 xi(h)", evidence=Evidence.FLOAT),
            *(Column(header=f"bits, n = {n}", evidence=Evidence.EXACT) for n in MANTISSA_BITS),
        ),
        rows=tuple(
            (term.world.value, term.demonstrator, term.n_steps, term.minus_log2_xi, *term.bits)
            for term in terms
        ),
        notes=(
            "v is within a factor 1 - 2^(1-n) of V*: 1/2, 7/8, 127/128. Bits of Elias' delta code "
            "for m and j; xi is the mixture of every policy program of at most "
            f"{TERM_BITS} bits.",
        ),
    )


def _choice_table(choices: Sequence[Choice], options: WaitingAgentOptions) -> Table:
    return Table(
        name="waiting",
        title=f"The waiting agent, {HORIZON} steps from k = {FIRST_TIME} on",
        columns=(
            Column(header="budget (nats)"),
            Column(header="P(deviates)", evidence=Evidence.CERTIFIED),
            Column(header="KL spent (nats)", evidence=Evidence.FLOAT),
            *(Column(header=f"rate, {new.value}", evidence=Evidence.FLOAT) for new in News),
        ),
        rows=tuple(
            (c.budget_nats, c.value, c.kl_nats, *(c.rates[new] for new in News)) for c in choices
        ),
        notes=(
            "rate: probability of the first bad action at a step, given what is new there. "
            f"The bell rings with probability "
            f"{options.bell_probability:g} a step. Imitator: every policy program of at most "
            f"{options.bits} bits after {FIRST_TIME} steps of do(a0) in silence.",
        ),
    )


def findings(options: WaitingAgentOptions, data: LooseEnds) -> tuple[str, ...]:
    """How the third term drifts, and when the agent deviates."""
    (chosen,) = (c for c in data.choices if c.budget_nats == options.budget_nats)
    readiest = max(chosen.rates, key=lambda new: chosen.rates[new])
    predictable, coins = (
        [term for term in data.terms if term.world is world]
        for world in (WorldName.METRONOME, WorldName.ECHO)
    )
    return (
        f"The third term, n = 8: {predictable[0].bits[2]} to {predictable[-1].bits[2]} bits where "
        f"the demonstrator is predictable, {coins[0].bits[2]} to {coins[-1].bits[2]} where "
        f"it tosses coins (k = {data.terms[0].n_steps} to {data.terms[-1].n_steps:,}): small, but "
        "not independent of k. The direct bound has no such term.",
        f"With {options.budget_nats:g} nats the waiting agent deviates with probability "
        f"{chosen.value:.3f}: once the bell has rung, at a rate of {chosen.rates[News.BELL]:.3f} a "
        f"step; at time {ROUND_TIME} {chosen.rates[News.CLOCK]:.3f}; with nothing new "
        f"{chosen.rates[News.NOTHING]:.3f}. It deviates most readily after {readiest.value}.",
    )


def draw(options: WaitingAgentOptions, data: LooseEnds) -> Figure:
    """The third term against k, and the deviation rates against the budget."""
    del options
    figure = new_figure(height_inches=2.9)
    terms, waiting = figure.subplots(1, 2)
    for world, label, colour, marker in (
        (WorldName.ECHO, "coin tosses", VERMILLION, "s"),
        (WorldName.METRONOME, "predictable", BLUE, "o"),
    ):
        rows = [term for term in data.terms if term.world is world]
        terms.plot(
            [term.n_steps for term in rows],
            [term.bits[2] for term in rows],
            f"{marker}-",
            color=colour,
            label=f"K(v ξ(h)), n = 8: {label}",
        )
    terms.axhline(data.direct_bound_bits, color=BLACK, label="direct bound: Δ, all there is")
    terms.set(xscale="log", xlabel="k, steps of demonstration", ylabel="bits")
    terms.set_ylim(0, None)
    terms.set_title("(a) The third term drifts with k")
    terms.legend(loc="lower right")

    budgets = [c.budget_nats for c in data.choices]
    for new, colour, marker in (
        (News.BELL, GREEN, "o"),
        (News.CLOCK, ORANGE, "D"),
        (News.NOTHING, GREY, "s"),
    ):
        waiting.plot(
            budgets,
            [c.rates[new] for c in data.choices],
            f"{marker}-",
            color=colour,
            label=new.value,
        )
    waiting.set(xlabel="budget, nats of expected KL", ylabel="rate of deviating, per step")
    waiting.set_title("(b) The agent waits for what is simple to name")
    waiting.legend(title="new just before", loc="center right")
    return figure


PRESENTATION: Final = Presentation(
    name="waiting_agent",
    statements=(Statement.LITTLE_CONSTRAINT,),
    options_type=WaitingAgentOptions,
    data_type=LooseEnds,
    compute=compute,
    tables=tables,
    findings=findings,
    draw=draw,
)
