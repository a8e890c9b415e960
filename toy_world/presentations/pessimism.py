"""What pessimism guarantees and costs.

See `toy_world.studies.pessimism`.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mightnt.figure_style import BLUE, GREEN, GREY, MARKERS, ORANGE, VERMILLION, new_figure
from mightnt.statistics import CONFIDENCE
from mightnt.tables import Column, Evidence, Table, Written, as_fraction
from theory.bayes_mixture import Update
from theory.bounds import top_set_size_bound
from theory.paper import Statement
from toy_world.demo import Presentation
from toy_world.demo_pessimism import PessimismOptions
from toy_world.studies.guarantees import N_EXACT_STEPS, GuaranteeRow
from toy_world.studies.lifelong_runs import LifelongRow
from toy_world.studies.pessimism import (
    BUDGETS_NATS,
    COMPARED_ALPHA,
    N_EPISODES,
    NOVEL_TIMES,
    PRICED_TIMES,
    ComparedOutcome,
    HelpOverTime,
    NovelOutcome,
    Pessimism,
    PricedOutcome,
    WatchedImitator,
    pessimism,
)
from toy_world.studies.posterior_manipulation import ManipulationRow
from toy_world.worlds.environments import BAD, WorldName

RULES: Final = {Update.DEMONSTRATOR: "demonstrator's", Update.ALL: "every action"}
SHOWN_BUDGETS_NATS: Final = (1.0, 4.0, 8.0)


def compute(options: PessimismOptions) -> Pessimism:
    """Guarantees, agents, and whole lives."""
    return pessimism(
        world=options.world,
        limit_bits=options.bits,
        memory_bits=options.memory_bits,
        n_steps=options.steps,
        n_runs=options.runs,
        n_lives=options.careers,
        budget_nats=options.budget,
        rng=options.rng(),
    )


def tables(options: PessimismOptions, data: Pessimism) -> tuple[Table, ...]:
    """Watching, the guarantees, both update rules, the price, whole lives, both imitators."""
    return (
        _watching_table(options, data.watching),
        _size_and_ville_table(options, data.guarantees),
        _help_table(options, data.guarantees),
        _rules_table(data.manipulation),
        _both_rules_table(data.both_rules),
        _price_table(options, data.priced),
        _lifelong_table(options, data.lifelong),
        _compared_table(options, data.compared),
    )


def _watching_table(options: PessimismOptions, watching: Sequence[WatchedImitator]) -> Table:
    return Table(
        name="watching",
        title=f"Watching the demonstrator, {options.world.value} (posterior: its actions alone)",
        columns=(
            Column(header="k"),
            Column(header="alpha"),
            Column(header="|M^alpha|", evidence=Evidence.FLOAT),
            Column(header="<= 1/alpha", evidence=Evidence.EXACT, key="most_by_alpha"),
            Column(header="w(mu|h), mu in M?", evidence=Evidence.FLOAT, key="w(mu|h)"),
            Column(header="nu_alpha(a0, a1, a2)", evidence=Evidence.FLOAT, key="nu_alpha"),
            Column(header="theta_q", evidence=Evidence.FLOAT),
        ),
        rows=tuple(
            (
                each.n_steps,
                as_fraction(each.alpha),
                each.top_set_size,
                top_set_size_bound(each.alpha),
                Written(
                    f"{each.weight:.3g} {'in' if each.demonstrator_inside else 'OUT'}",
                    {"": each.weight, "is_inside": each.demonstrator_inside},
                ),
                Written(
                    " ".join(f"{p:.3g}" for p in each.probabilities),
                    {f"a{action}": p for action, p in enumerate(each.probabilities)},
                ),
                each.help_probability,
            )
            for each in watching
        ),
        notes=(f"Every program of at most L = {options.bits} bits, one demonstration of k steps.",),
    )


def _size_and_ville_table(options: PessimismOptions, rows: Sequence[GuaranteeRow]) -> Table:
    weights = {row.world: row.weight for row in rows}
    return Table(
        name="top_sets",
        title="Top sets are small, and mu stays (posterior: the demonstrator's actions alone)",
        columns=(
            Column(header="world"),
            Column(header="alpha"),
            Column(header="largest\n|M^alpha|", evidence=Evidence.EXACT),
            Column(header="<= 1/alpha", evidence=Evidence.EXACT, key="most_by_alpha"),
            Column(
                header="P(mu stays)\n>= 1-alpha/w(mu)",
                evidence=Evidence.EXACT,
                key="stays_at_least",
            ),
            Column(header=f"T = {N_EXACT_STEPS}", evidence=Evidence.EXACT),
            Column(header=f"T = {options.steps}", evidence=Evidence.MONTE_CARLO),
        ),
        rows=tuple(
            (
                row.world.value,
                as_fraction(row.alpha),
                row.largest_top_set,
                top_set_size_bound(row.alpha),
                row.stays_bound,
                row.stays_rounded,
                _with_interval(row.stays_simulated, row.stays_interval),
            )
            for row in rows
        ),
        notes=(
            f"Programs of short memory, at most {options.memory_bits} bits; w(mu) = "
            + ", ".join(f"{float(weight):.3g} ({name.value})" for name, weight in weights.items())
            + f". By enumeration of every history in integers; by {options.runs} simulated "
            f"demonstrators with a {CONFIDENCE:.0%} binomial interval.",
        ),
    )


def _help_table(options: PessimismOptions, rows: Sequence[GuaranteeRow]) -> Table:
    return Table(
        name="help",
        title="E sum theta_q^3 is finite (posterior: the demonstrator's actions alone)",
        columns=(
            Column(header="world"),
            Column(header="alpha"),
            Column(header=f"T = {N_EXACT_STEPS}", evidence=Evidence.EXACT),
            Column(header=f"T = {options.steps}", evidence=Evidence.MONTE_CARLO),
            Column(header="largest of\nthe runs", evidence=Evidence.MONTE_CARLO),
            Column(header="bound for T = inf\n(LITERATURE)", evidence=Evidence.FLOAT, format=".3g"),
        ),
        rows=tuple(
            (
                row.world.value,
                as_fraction(row.alpha),
                row.help_cubed,
                _with_interval(row.help_cubed_simulated, row.help_cubed_interval),
                row.help_cubed_largest,
                row.help_cubed_bound,
            )
            for row in rows
        ),
        notes=(
            f"{Statement.LIMITED_QUERYING}: |A| alpha^-3 (24/w(mu) + 12), LITERATURE: quoted, "
            f"not proved here. {CONFIDENCE:.0%} normal intervals.",
        ),
    )


def _with_interval(mean: float, ends: tuple[float, float]) -> Written:
    text = f"{mean:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]"
    return Written(text, {"": mean, "low": ends[0], "high": ends[1]})


def _rules_table(rows: Sequence[ManipulationRow]) -> Table:
    return Table(
        name="guarantee",
        title="The example in which the guarantee KL(pi||nu_alpha) >= KL(pi||mu) fails",
        columns=(
            Column(header="posterior updated by"),
            Column(header="KL(pi||nu_alpha)", evidence=Evidence.EXACT),
            Column(header="nats", evidence=Evidence.EXACT),
            Column(header="KL(pi||mu)", evidence=Evidence.EXACT),
            Column(header="guarantee", evidence=Evidence.EXACT),
        ),
        rows=tuple(
            (
                RULES[row.update],
                row.kl_to_imitator,
                row.kl_to_imitator_nats,
                row.kl_to_demonstrator,
                "HOLDS" if row.holds else "FAILS",
            )
            for row in rows
        ),
        notes=(
            "Two steps, one observation, alpha = 3/10, two models of weight 1/2: mu takes the bad "
            "action with probability 1/10 and then never; the other always. pi always takes it.",
        ),
    )


def _both_rules_table(found: Sequence[NovelOutcome]) -> Table:
    rows = []
    for name in WorldName:
        for k in NOVEL_TIMES:
            for rule in RULES:
                bad = [
                    each.outcome.bad_probability
                    for each in found
                    if (each.world, each.n_steps, each.outcome.update) == (name, k, rule)
                ]
                rows.append(
                    (
                        name.value,
                        k,
                        RULES[rule],
                        len(bad),
                        sum(p > 0 for p in bad),
                        max(bad, default=None),
                    )
                )
    return Table(
        name="update_rules",
        title="Both rules in ordinary worlds: an agent with nu_alpha's support as only limit",
        columns=(
            Column(header="world"),
            Column(header="k"),
            Column(header="posterior updated by"),
            Column(header="alphas with mu in M", evidence=Evidence.FLOAT),
            Column(header="of them: does a2", evidence=Evidence.FLOAT),
            Column(header="greatest P(a2)", evidence=Evidence.FLOAT),
        ),
        rows=tuple(rows),
        notes=(
            "All programs, after k steps of demonstration and the world's novelty; episodes of 3 "
            "steps, the agent may ask. A P of 0 is exact: the policy's rows hold zeros there.",
        ),
    )


def _price_table(options: PessimismOptions, priced: Sequence[PricedOutcome]) -> Table:
    # Every second alpha, after each time.
    shown = [
        (k, outcome)
        for k in PRICED_TIMES
        for outcome in [each.outcome for each in priced if each.n_steps == k][1::2]
    ]
    widest = max(each.outcome.bound - each.outcome.value for each in priced)
    return Table(
        name="price_of_safety",
        title=(
            f"The price of safety, {options.world.value}, {options.budget:g} nats (posterior: the "
            "demonstrator's actions alone)"
        ),
        columns=(
            Column(header="k"),
            Column(header="alpha"),
            Column(header="value", evidence=Evidence.CERTIFIED),
            Column(header="steps asked, of 3", evidence=Evidence.FLOAT),
            Column(header="P(a2 ever)", evidence=Evidence.FLOAT),
        ),
        rows=tuple(
            (
                k,
                None if c.alpha is None else as_fraction(c.alpha),
                c.value,
                c.n_asks,
                c.bad_probability,
            )
            for k, c in shown
        ),
        notes=(
            "a1 pays 1/2 and a2, which the demonstrator never does, 1; the mean over 3 steps. k "
            "steps were watched, nothing new happens. "
            f"Widest duality gap: {widest:.1e}.",
        ),
    )


def _lifelong_table(options: PessimismOptions, rows: Sequence[LifelongRow]) -> Table:
    return Table(
        name="lifelong",
        title=f"The full loop, {options.world.value}: {N_EPISODES} episodes of 3 steps, 1 nat each",
        columns=(
            Column(header="posterior updated by"),
            Column(header="alpha"),
            Column(header="asked in\nthe first", evidence=Evidence.MONTE_CARLO),
            Column(header="in the\nlast five", evidence=Evidence.MONTE_CARLO, key="asked, last"),
            Column(header="paid in\nthe first", evidence=Evidence.MONTE_CARLO, format=".3f"),
            Column(header="in the\nlast five", evidence=Evidence.MONTE_CARLO, key="paid, last"),
            Column(header="a2, ever", evidence=Evidence.MONTE_CARLO),
        ),
        rows=tuple(
            (
                RULES[row.update],
                as_fraction(row.alpha),
                row.asked_first,
                row.asked_last,
                row.paid_first,
                _with_interval(row.paid_last, row.paid_last_interval),
                row.n_bad_steps,
            )
            for row in rows
        ),
        notes=(
            f"Means of {options.careers} runs that begin with the prior over programs of short "
            "memory and learn from the answers (the second rule: from every action). "
            f"{CONFIDENCE:.0%} normal intervals.",
        ),
    )


def _compared_table(options: PessimismOptions, compared: Sequence[ComparedOutcome]) -> Table:
    return Table(
        name="compared",
        title=f"Bayesian and pessimistic imitator (alpha = {COMPARED_ALPHA}) side by side",
        columns=(
            Column(header="world"),
            Column(header="imitator"),
            Column(header="posterior updated by"),
            Column(header="budget (nats)"),
            Column(header="value\nby the proxy", evidence=Evidence.CERTIFIED),
            Column(header="true value", evidence=Evidence.FLOAT),
            Column(header="asked", evidence=Evidence.FLOAT),
            Column(header="P(a2 ever)", evidence=Evidence.FLOAT),
        ),
        rows=tuple(
            (
                each.world.value,
                "Bayesian" if each.outcome.alpha is None else "pessimistic",
                RULES[each.outcome.update],
                each.outcome.budget_nats,
                each.outcome.value,
                each.outcome.true_value,
                each.outcome.n_asks,
                each.outcome.bad_probability,
            )
            for each in compared
            if each.outcome.budget_nats in SHOWN_BUDGETS_NATS
        ),
        notes=(
            f"After {NOVEL_TIMES[-1]} steps of demonstration and the world's novelty, all "
            f"programs of at most {options.bits} bits. The true utility pays nothing for a2.",
        ),
    )


def findings(options: PessimismOptions, data: Pessimism) -> tuple[str, ...]:
    """Guarantees, the update rules, what both imitators allow, and the price of safety."""
    bounded = [row for row in data.guarantees if row.exact_stays_bound > 0]
    tightest = min(bounded, key=lambda row: row.stays - row.exact_stays_bound)
    help_share = max(row.help_cubed_simulated / row.help_cubed_bound for row in data.guarantees)
    outcomes = [each.outcome for each in data.compared]
    bayesian = [
        each.bad_probability
        for each in outcomes
        if each.alpha is None and each.budget_nats == max(BUDGETS_NATS)
    ]
    pessimistic = [each.bad_probability for each in outcomes if each.alpha == COMPARED_ALPHA]
    (by_every_action,) = (row for row in data.manipulation if row.update is Update.ALL)
    n_broken = {
        rule: sum(
            each.outcome.update is rule and each.outcome.bad_probability > 0
            for each in data.both_rules
        )
        for rule in RULES
    }
    priced = {k: [each.outcome for each in data.priced if each.n_steps == k] for k in PRICED_TIMES}
    frozen = [row for row in data.lifelong if row.update is Update.DEMONSTRATOR]
    return (
        f"Posterior of the demonstrator's actions alone: |M^alpha| <= 1/alpha at every history, "
        f"and P(mu stays in the top set) >= 1 - alpha/w(mu) in all {len(bounded)} cases in "
        f"which that is positive, by "
        f"enumeration up to T = {N_EXACT_STEPS}; the closest call is {tightest.world.value} at "
        f"alpha = {tightest.alpha}: {tightest.stays_rounded:.3f} against "
        f"{tightest.stays_bound:.3f}.",
        f"{Statement.LIMITED_QUERYING} (LITERATURE) is very loose here: E sum theta_q^3 over "
        f"{options.steps} steps is at most {help_share:.1e} of its bound.",
        f"The guarantee depends on the update rule. In the two-step example KL(pi||mu) is "
        f"infinite; KL(pi||nu_alpha) is infinite if the demonstrator's actions alone update the "
        f"posterior, and {by_every_action.kl_to_imitator_nats:.4f} nats "
        f"({by_every_action.kl_to_imitator}) if every action does.",
        f"In ordinary worlds, KL without limit and mu in the top set: of "
        f"{len(data.both_rules) // 2} agents with a frozen posterior "
        f"{n_broken[Update.DEMONSTRATOR]} do what mu never does (0 is proved), with one that "
        f"every action updates {n_broken[Update.ALL]}.",
        f"Same world, same budget: at {max(BUDGETS_NATS):g} nats the agent with the Bayesian "
        f"imitator (every action updates) takes a{BAD} with probability {min(bayesian):.2f} to "
        f"{max(bayesian):.2f}; with the pessimistic one (frozen, alpha = {COMPARED_ALPHA}) the "
        f"greatest probability at any budget is {max(pessimistic):g}.",
        f"The price of safety ({options.world.value}, {options.budget:g} nats, frozen): "
        + "; ".join(
            f"after {k} steps the value falls from {found[0].value:.3f} (alpha = {found[0].alpha}) "
            f"to {found[-1].value:.3f} ({found[-1].alpha}), and the agent asks in "
            f"{found[0].n_asks:.2f} to {found[-1].n_asks:.2f} of 3 steps"
            for k, found in priced.items()
        )
        + ".",
        f"The full loop ({options.world.value}, frozen): at first the agent asks in "
        f"{np.mean([row.asked_first for row in frozen]):.2f} of 3 steps on average, in the last "
        f"five of {N_EPISODES} episodes in {np.mean([row.asked_last for row in frozen]):.2f}; it "
        f"took a{BAD} in {sum(row.n_bad_episodes for row in frozen)} of "
        f"{sum(row.n_episodes for row in frozen)} episodes.",
    )


def draw(options: PessimismOptions, data: Pessimism) -> Figure:
    """Help over time, Ville's bound, the price of safety, and the two imitators."""
    del options
    figure = new_figure(height_inches=5.4)
    (over_time, ville), (price, side) = figure.subplots(2, 2)
    _draw_help(over_time, data.help_over_time, data.world)
    _draw_ville(ville, data.guarantees)
    _draw_price(price, data.priced)
    _draw_side_by_side(side, data.compared)
    return figure


def _draw_help(axes: Axes, lines: Sequence[HelpOverTime], world: WorldName) -> None:
    chosen = lines[:: max(1, (len(lines) - 1) // 2)]  # of which three have a colour
    for line, color, style in zip(chosen, (BLUE, GREEN, ORANGE), ("-", "--", "-."), strict=False):
        axes.plot(line.mean, color=color, linestyle=style, label=f"α = 1/{1 / line.alpha:g}")
    axes.set_xlabel(f"steps of demonstration watched ({world.value})")
    axes.set_ylabel("mean help probability θ")
    axes.set_ylim(0, 1.02)
    axes.set_title("Help is needed less and less, ...")
    axes.legend()


def _draw_ville(axes: Axes, points: Sequence[GuaranteeRow]) -> None:
    ratio = np.geomspace(1 / 64, 8, 100)
    axes.plot(ratio, np.maximum(1 - ratio, 0), color="black", linewidth=1)
    axes.text(1.0, 0.2, "bound 1 − α/w(μ)")
    for name, color, marker, size in zip(
        WorldName, (BLUE, GREEN, VERMILLION, ORANGE), MARKERS, (7.0, 4.0, 4.0, 4.0), strict=False
    ):
        own = [p for p in points if p.world is name]
        middle = np.array([p.stays_simulated for p in own])
        ends = np.array([p.stays_interval for p in own]).T
        axes.errorbar(
            [p.alpha_over_weight for p in own],
            middle,
            yerr=np.abs(ends - middle),
            color=color,
            marker=marker,
            linestyle="",
            elinewidth=0.8,
            fillstyle="none",
            markersize=size,
            label=name.value,
        )
    axes.set_xscale("log", base=2)
    axes.set_xlabel("α / w(μ)")
    axes.set_ylabel("P(μ always in the top set)")
    axes.set_title("... and the demonstrator stays a candidate, ...")
    axes.legend(loc="lower left")


def _draw_price(axes: Axes, points: Sequence[PricedOutcome]) -> None:
    for k, color, marker in zip(PRICED_TIMES, (ORANGE, GREEN, BLUE), MARKERS, strict=False):
        own = [p.outcome for p in points if p.n_steps == k]
        alphas = [float(c.alpha or 0) for c in own]
        axes.plot(
            alphas,
            [c.n_asks / 3 for c in own],
            color=color,
            marker=marker,
            fillstyle="none",
            linestyle=":",
        )
        axes.plot(
            alphas, [c.value for c in own], color=color, marker=marker, label=f"k = {k}: value"
        )
    axes.plot([], [], color=GREY, linestyle=":", marker="o", fillstyle="none", label="steps asked")
    axes.set_xscale("log", base=2)
    axes.invert_xaxis()
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("α (more pessimistic to the right)")
    axes.set_ylabel("value reached; share of steps asked")
    axes.set_title("... at a price that falls with experience.")
    axes.legend(loc="upper left", fontsize=7.0, handlelength=1.4, borderaxespad=0.1)


def _draw_side_by_side(axes: Axes, points: Sequence[ComparedOutcome]) -> None:
    for name, color, marker in zip(
        WorldName, (BLUE, GREEN, VERMILLION, ORANGE), MARKERS, strict=False
    ):
        own = [p.outcome for p in points if p.world is name]
        for bayesian in (True, False):
            line = [c for c in own if (c.alpha is None) is bayesian]
            axes.plot(
                [c.budget_nats for c in line],
                [c.bad_probability for c in line],
                color=color if bayesian else "black",
                marker=marker if bayesian else "",
                linestyle="-" if bayesian else "--",
                linewidth=1.3 if bayesian else 2.0,
                label=f"Bayesian, {name.value}" if bayesian else None,
            )
    axes.plot([], [], color="black", linestyle="--", linewidth=2.0, label="pessimistic, all four")
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("budget, nats of KL to the imitator")
    axes.set_ylabel("P(the never-done action)")
    axes.set_xlim(-0.5, 26)
    axes.set_title("Who does what the demonstrator never does?")
    axes.legend(loc="upper right")


PRESENTATION: Final = Presentation(
    name="pessimism",
    statements=(
        Statement.TOP_SET,
        Statement.PESSIMISTIC_IMITATOR,
        Statement.LIMITED_QUERYING,
        Statement.NOTHING_UNPRECEDENTED,
    ),
    options_type=PessimismOptions,
    data_type=Pessimism,
    compute=compute,
    tables=tables,
    findings=findings,
    draw=draw,
)
