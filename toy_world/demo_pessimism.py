"""The pessimistic imitator: what it guarantees, what that costs, and under which update rule.

See `toy_world.studies.pessimism` for the models and what is measured. Every table says whose
actions update the posterior: *the demonstrator's alone* (the posterior is frozen while the agent
acts), or *every action*. The guarantee is proved for the first rule and false for the second.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import beta, norm

from mightnt.figure_style import BLUE, GREEN, GREY, MARKERS, ORANGE, VERMILLION, new_figure
from mightnt.progress import track
from theory.bayes_mixture import Update
from theory.bounds import demonstrator_stays_probability, help_cubed_bound, top_set_size_bound
from theory.errors import InvalidArgumentError
from theory.paper import Statement
from toy_world.demo import Column, Demo, DemoOptions, DemoResult, DemoTable, Evidence
from toy_world.studies.pessimism import (
    Career,
    Conduct,
    Guarantees,
    Mixture,
    ShortMemory,
    Watched,
    careers,
    conduct_with_bayesian,
    conduct_with_pessimist,
    driven_out,
    exact_guarantees,
    help_probability_at_root,
    mixtures_while_watching,
    novel_mixture,
    short_memory_class,
    watch,
)
from toy_world.studies.theorem1 import setting_of
from toy_world.worlds.environments import BAD, WorldName

CONFIDENCE: Final = 0.95
RULES: Final = {Update.DEMONSTRATOR: "demonstrator's", Update.ALL: "every action"}
TIMES: Final = (0, 1, 2, 3, 5, 8, 12, 20, 32, 50, 80, 128)
WATCHED_ALPHAS: Final = (Fraction(1, 4), Fraction(1, 64), Fraction(1, 1024))
PRICED_ALPHAS: Final = tuple(Fraction(1, 2**j) for j in range(1, 17))
PRICED_TIMES: Final = (8, 32, 128)
NOVEL_TIMES: Final = (10, 30, 100)
COMPARED_ALPHA: Final = Fraction(1, 256)
BUDGETS_NATS: Final = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0)
CAREER_ALPHAS: Final = (Fraction(1, 4), Fraction(1, 16), Fraction(1, 64))
N_EXACT_STEPS: Final = 7
N_EPISODES: Final = 30


@dataclass(frozen=True, kw_only=True)
class PessimismOptions(DemoOptions):
    """What pessimism guarantees and costs: top sets, asking for help, and what agents do with it.

    An imitator that trusts none of its likely models asks where they disagree. An agent that
    optimises against it cannot do what the demonstrator never does; one that optimises against
    the Bayesian imitator, in the same world and within the same budget, does it.
    """

    world: WorldName = WorldName.ECHO
    """The world that is shown in detail; all four stand in the tables of guarantees."""
    bits: int = 20
    """L: the mixtures hold every policy program of at most so many bits, 12 to 26."""
    memory_bits: int = 14
    """The same for the class of programs of short memory, 10 to 20."""
    steps: int = 60
    """How long simulated demonstrators are watched, 10 to 10000 steps."""
    runs: int = 400
    """How many of them, 20 to 100000."""
    careers: int = 10
    """How many runs of the full loop, 2 to 1000."""
    budget: float = 1.0
    """The budget at which safety is priced, in nats of expected KL an episode."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least, most in (
            ("bits", 12, 26),
            ("memory_bits", 10, 20),
            ("steps", 10, 10_000),
            ("runs", 20, 100_000),
            ("careers", 2, 1000),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                option = "--" + name.replace("_", "-")
                raise InvalidArgumentError(f"{option} must lie in {least}..{most}, got {value}")
        if not 0 < self.budget < math.inf:
            raise InvalidArgumentError(f"--budget must be > 0 and finite, got {self.budget}")


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Both sides of the guarantees in one world at one alpha.

    Attributes:
        world: which world.
        weight: w(mu).
        exact: by enumeration, T = `N_EXACT_STEPS`.
        watched: by simulation.
        n_actions: |A|.
    """

    world: WorldName
    weight: Fraction
    exact: Guarantees
    watched: Watched
    n_actions: int

    @property
    def alpha(self) -> Fraction:
        """The threshold."""
        return self.exact.alpha

    @property
    def ville_bound(self) -> Fraction:
        """`1 - alpha/w(mu)`, or 0."""
        return Fraction(demonstrator_stays_probability(alpha=self.alpha, weight=self.weight))

    @property
    def stayed_interval(self) -> tuple[float, float]:
        """For `P(mu in the top set at all t <= T)`, exact binomial (Clopper and Pearson)."""
        return binomial_interval(int(self.watched.stayed.sum()), len(self.watched.stayed))

    @property
    def help_cubed_bound(self) -> float:
        """LITERATURE: Statement.LIMITED_QUERYING."""
        return help_cubed_bound(
            n_actions=self.n_actions, alpha=float(self.alpha), weight=float(self.weight)
        )


def binomial_interval(hits: int, trials: int) -> tuple[float, float]:
    """The exact interval of confidence `CONFIDENCE` for a probability."""
    tail = (1 - CONFIDENCE) / 2
    low = beta.ppf(tail, hits, trials - hits + 1) if hits else 0.0
    high = beta.ppf(1 - tail, hits + 1, trials - hits) if hits < trials else 1.0
    return float(low), float(high)


def mean_interval(values: Any) -> tuple[float, float, float]:
    """A mean, and half the width of its normal interval on both sides."""
    mean = float(np.mean(values))
    half = float(norm.ppf((1 + CONFIDENCE) / 2) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return mean, mean - half, mean + half


def alphas_around(models: ShortMemory) -> tuple[Fraction, ...]:
    """Powers of 1/2 from four times w(mu) down to a sixteenth of it, about; at most 1/2."""
    place = round(-math.log2(models.weight_of_tau))
    return tuple(Fraction(1, 2**j) for j in range(max(place - 2, 1), place + 5))


def compute(options: PessimismOptions) -> DemoResult:
    """Everything, in the order of the tables."""
    rng = options.rng()
    setting = setting_of(options.world, horizon=3)
    while_watching = mixtures_while_watching(setting, limit_bits=options.bits, times=TIMES, rng=rng)
    kept: list[Kept] = []
    compared: dict[WorldName, list[Conduct]] = {}
    both_rules: list[tuple[WorldName, int, Conduct]] = []
    for name in track(WorldName, "four worlds", total=len(WorldName)):
        other = setting_of(name, horizon=3)
        kept += _kept(name, short_memory_class(other, limit_bits=options.memory_bits), options, rng)
        for k in NOVEL_TIMES:
            mixture = novel_mixture(other, limit_bits=options.bits, n_steps=k, rng=rng)
            both_rules += [(name, k, c) for c in _both_rules(mixture)]
        compared[name] = _compared(mixture)
    priced = {
        k: _priced(while_watching[TIMES.index(k)], options)
        for k in track(PRICED_TIMES, "the price of safety")
    }
    models = short_memory_class(setting, limit_bits=options.memory_bits)
    worked = [
        careers(
            models,
            alpha=alpha,
            update=update,
            budget_nats=1.0,
            n_episodes=N_EPISODES,
            n_runs=options.careers,
            rng=rng,
        )
        for alpha in track(CAREER_ALPHAS, "careers")
        for update in (Update.DEMONSTRATOR, Update.ALL)
    ]
    return DemoResult(
        name="pessimism",
        statements=(
            Statement.TOP_SET,
            Statement.PESSIMISTIC_IMITATOR,
            Statement.LIMITED_QUERYING,
            Statement.NOTHING_UNPRECEDENTED,
        ),
        findings=_findings(options, kept, compared, both_rules, priced, worked),
        tables=(
            _watching_table(options, while_watching),
            _size_and_ville_table(options, kept),
            _help_table(options, kept),
            _rules_table(),
            _both_rules_table(both_rules),
            _price_table(options, priced),
            _career_table(options, worked),
            _compared_table(options, compared),
        ),
        data={
            "world": options.world,
            "help_over_time": [
                {
                    "alpha": float(each.alpha),
                    "mean": each.watched.help_probability.mean(axis=0).tolist(),
                }
                for each in kept
                if each.world is options.world
            ],
            "ville": [
                {
                    "world": each.world,
                    "alpha_over_weight": float(each.alpha / each.weight),
                    "bound": float(each.ville_bound),
                    "exact": float(each.exact.stays),
                    "simulated": float(each.watched.stayed.mean()),
                    "interval": each.stayed_interval,
                }
                for each in kept
            ],
            "compared": [
                {"world": name, "conduct": conduct}
                for name, found in compared.items()
                for conduct in found
            ],
            "priced": [
                {"k": k, "conduct": conduct} for k, found in priced.items() for conduct in found
            ],
        },
    )


def _kept(
    name: WorldName, models: ShortMemory, options: PessimismOptions, rng: np.random.Generator
) -> list[Kept]:
    alphas = alphas_around(models)
    exact = exact_guarantees(models, alphas=alphas, n_steps=N_EXACT_STEPS)
    watched = watch(models, alphas=alphas, n_steps=options.steps, n_runs=options.runs, rng=rng)
    return [
        Kept(
            world=name,
            weight=models.weight_of_tau,
            exact=by_enumeration,
            watched=by_simulation,
            n_actions=models.rows.shape[2],
        )
        for by_enumeration, by_simulation in zip(exact, watched, strict=True)
    ]


def _both_rules(mixture: Mixture) -> list[Conduct]:
    """Agents without a limit on KL: whatever the imitator's support lets them do."""
    return [
        conduct_with_pessimist(mixture, alpha=alpha, update=update, budget_nats=math.inf)
        for alpha in PRICED_ALPHAS[1::2]
        if mixture.top_set(alpha)[mixture.place_of_tau]
        for update in Update
    ]


def _priced(mixture: Mixture, options: PessimismOptions) -> list[Conduct]:
    return [
        conduct_with_pessimist(
            mixture, alpha=alpha, update=Update.DEMONSTRATOR, budget_nats=options.budget
        )
        for alpha in PRICED_ALPHAS
    ]


def _compared(mixture: Mixture) -> list[Conduct]:
    return [
        conduct
        for budget in BUDGETS_NATS
        for conduct in (
            conduct_with_bayesian(mixture, budget_nats=budget),
            conduct_with_pessimist(
                mixture, alpha=COMPARED_ALPHA, update=Update.DEMONSTRATOR, budget_nats=budget
            ),
        )
    ]


def _watching_table(options: PessimismOptions, mixtures: Sequence[Mixture]) -> DemoTable:
    rows = []
    for k, mixture in zip(TIMES, mixtures, strict=True):
        weight = float(mixture.weights[mixture.place_of_tau])
        for alpha in WATCHED_ALPHAS:
            inside = mixture.top_set(alpha)
            least = mixture.pessimist(alpha, update=Update.DEMONSTRATOR)[0][0]
            rows.append(
                (
                    k,
                    str(alpha),
                    int(inside.sum()),
                    top_set_size_bound(alpha),
                    f"{weight:.3g} {'in' if inside[mixture.place_of_tau] else 'OUT'}",
                    " ".join(f"{p:.3g}" for p in least),
                    help_probability_at_root(mixture, alpha),
                )
            )
    return DemoTable(
        title=f"Watching the demonstrator, {options.world.value} (posterior: its actions alone)",
        columns=(
            Column(header="k"),
            Column(header="alpha"),
            Column(header="|M^alpha|", evidence=Evidence.FLOAT),
            Column(header="<= 1/alpha", evidence=Evidence.EXACT),
            Column(header="w(mu|h), mu in M?", evidence=Evidence.FLOAT),
            Column(header="nu_alpha(a0, a1, a2)", evidence=Evidence.FLOAT),
            Column(header="theta_q", evidence=Evidence.FLOAT),
        ),
        rows=tuple(rows),
        note=f"Every program of at most L = {options.bits} bits, one demonstration of k steps.",
    )


def _size_and_ville_table(options: PessimismOptions, kept: Sequence[Kept]) -> DemoTable:
    return DemoTable(
        title="Top sets are small, and mu stays (posterior: the demonstrator's actions alone)",
        columns=(
            Column(header="world"),
            Column(header="alpha"),
            Column(header="largest\n|M^alpha|", evidence=Evidence.EXACT),
            Column(header="<= 1/alpha", evidence=Evidence.EXACT),
            Column(header="P(mu stays)\n>= 1-alpha/w(mu)", evidence=Evidence.EXACT),
            Column(header=f"T = {N_EXACT_STEPS}", evidence=Evidence.EXACT),
            Column(header=f"T = {options.steps}", evidence=Evidence.MONTE_CARLO),
        ),
        rows=tuple(
            (
                each.world.value,
                str(each.alpha),
                each.exact.largest_top_set,
                top_set_size_bound(each.alpha),
                float(each.ville_bound),
                float(each.exact.stays),
                f"{each.watched.stayed.mean():.3f} "
                f"[{each.stayed_interval[0]:.3f}, {each.stayed_interval[1]:.3f}]",
            )
            for each in kept
        ),
        note=(
            f"Programs of short memory, at most {options.memory_bits} bits; w(mu) = "
            + ", ".join(
                f"{float(w):.3g} ({n.value})" for n, w in {k.world: k.weight for k in kept}.items()
            )
            + f". By enumeration of every history in integers; by {options.runs} simulated "
            f"demonstrators with a {CONFIDENCE:.0%} binomial interval."
        ),
    )


def _help_table(options: PessimismOptions, kept: Sequence[Kept]) -> DemoTable:
    rows = []
    for each in kept:
        mean, low, high = mean_interval(each.watched.help_cubed)
        rows.append(
            (
                each.world.value,
                str(each.alpha),
                float(each.exact.help_cubed),
                f"{mean:.3f} [{low:.3f}, {high:.3f}]",
                float(each.watched.help_cubed.max()),
                f"{each.help_cubed_bound:.3g}",
            )
        )
    return DemoTable(
        title="E sum theta_q^3 is finite (posterior: the demonstrator's actions alone)",
        columns=(
            Column(header="world"),
            Column(header="alpha"),
            Column(header=f"T = {N_EXACT_STEPS}", evidence=Evidence.EXACT),
            Column(header=f"T = {options.steps}", evidence=Evidence.MONTE_CARLO),
            Column(header="largest of\nthe runs", evidence=Evidence.MONTE_CARLO),
            Column(header="bound for T = inf\n(LITERATURE)", evidence=Evidence.FLOAT),
        ),
        rows=tuple(rows),
        note=(
            f"{Statement.LIMITED_QUERYING}: |A| alpha^-3 (24/w(mu) + 12), LITERATURE: quoted, "
            f"not proved here. {CONFIDENCE:.0%} normal intervals."
        ),
    )


def _rules_table() -> DemoTable:
    example = driven_out()
    return DemoTable(
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
                name,
                str(example.kl_to_imitator(rule)),
                float(example.kl_to_imitator(rule)),
                str(example.kl_to_demonstrator()),
                "HOLDS"
                if example.kl_to_imitator(rule) >= example.kl_to_demonstrator()
                else "FAILS",
            )
            for rule, name in RULES.items()
        ),
        note=(
            "Two steps, one observation, alpha = 3/10, two models of weight 1/2: mu takes the bad "
            "action with probability 1/10 and then never; the other always. pi always takes it."
        ),
    )


def _both_rules_table(found: Sequence[tuple[WorldName, int, Conduct]]) -> DemoTable:
    rows = []
    for name in WorldName:
        for k in NOVEL_TIMES:
            for rule in RULES:
                here = [c for w, n, c in found if w is name and n == k and c.update is rule]
                bad = [c.bad_probability for c in here]
                rows.append(
                    (
                        name.value,
                        k,
                        RULES[rule],
                        len(here),
                        sum(p > 0 for p in bad),
                        max(bad, default=None),
                    )
                )
    return DemoTable(
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
        note=(
            "All programs, after k steps of demonstration and the world's novelty; episodes of 3 "
            "steps, the agent may ask. A P of 0 is exact: the policy's rows hold zeros there."
        ),
    )


def _price_table(options: PessimismOptions, priced: dict[int, list[Conduct]]) -> DemoTable:
    return DemoTable(
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
            (k, str(c.alpha), c.value, c.n_asks, c.bad_probability)
            for k, found in priced.items()
            for c in found[1::2]
        ),
        note=(
            "a1 pays 1/2 and a2, which the demonstrator never does, 1; the mean over 3 steps. k "
            "steps were watched, nothing new happens. "
            f"Widest duality gap: {max(c.bound - c.value for f in priced.values() for c in f):.1e}."
        ),
    )


def _career_table(options: PessimismOptions, worked: Sequence[Career]) -> DemoTable:
    rows = []
    for career in worked:
        first, last = career.asked[:, 0], career.asked[:, -5:].mean(axis=1)
        pay = mean_interval(career.paid[:, -5:].mean(axis=1))
        rows.append(
            (
                RULES[career.update],
                str(career.alpha),
                float(first.mean()),
                float(last.mean()),
                f"{career.paid[:, 0].mean():.3f}",
                f"{pay[0]:.3f} [{pay[1]:.3f}, {pay[2]:.3f}]",
                int(career.bad.sum()),
            )
        )
    return DemoTable(
        title=f"The full loop, {options.world.value}: {N_EPISODES} episodes of 3 steps, 1 nat each",
        columns=(
            Column(header="posterior updated by"),
            Column(header="alpha"),
            Column(header="asked in\nthe first", evidence=Evidence.MONTE_CARLO),
            Column(header="in the\nlast five", evidence=Evidence.MONTE_CARLO),
            Column(header="paid in\nthe first", evidence=Evidence.MONTE_CARLO),
            Column(header="in the\nlast five", evidence=Evidence.MONTE_CARLO),
            Column(header="a2, ever", evidence=Evidence.MONTE_CARLO),
        ),
        rows=tuple(rows),
        note=(
            f"Means of {options.careers} runs that begin with the prior over programs of short "
            "memory and learn from the answers (the second rule: from every action). "
            f"{CONFIDENCE:.0%} normal intervals."
        ),
    )


def _compared_table(
    options: PessimismOptions, compared: dict[WorldName, list[Conduct]]
) -> DemoTable:
    return DemoTable(
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
                name.value,
                "Bayesian" if c.alpha is None else "pessimistic",
                RULES[c.update],
                c.budget_nats,
                c.value,
                c.true_value,
                c.n_asks,
                c.bad_probability,
            )
            for name, found in compared.items()
            for c in found
            if c.budget_nats in (1.0, 4.0, 8.0)
        ),
        note=(
            f"After {NOVEL_TIMES[-1]} steps of demonstration and the world's novelty, all "
            f"programs of at most {options.bits} bits. The true utility pays nothing for a2."
        ),
    )


def _findings(
    options: PessimismOptions,
    kept: Sequence[Kept],
    compared: dict[WorldName, list[Conduct]],
    both_rules: Sequence[tuple[WorldName, int, Conduct]],
    priced: dict[int, list[Conduct]],
    worked: Sequence[Career],
) -> tuple[str, ...]:
    example = driven_out()
    bounded = [e for e in kept if e.ville_bound > 0]
    tightest = min(bounded, key=lambda e: e.exact.stays - e.ville_bound)
    help_share = max(float(np.mean(e.watched.help_cubed)) / e.help_cubed_bound for e in kept)
    full = [c for found in compared.values() for c in found if c.budget_nats == max(BUDGETS_NATS)]
    bayesian = [c.bad_probability for c in full if c.alpha is None]
    pessimistic = [
        c.bad_probability for f in compared.values() for c in f if c.alpha == COMPARED_ALPHA
    ]
    broken = {
        rule: [(w, k, c) for w, k, c in both_rules if c.update is rule and c.bad_probability > 0]
        for rule in RULES
    }
    frozen = [c for c in worked if c.update is Update.DEMONSTRATOR]
    return (
        f"Posterior of the demonstrator's actions alone: |M^alpha| <= 1/alpha at every history, "
        f"and P(mu stays in the top set) >= 1 - alpha/w(mu) in all {len(bounded)} cases in "
        f"which that is positive, by "
        f"enumeration up to T = {N_EXACT_STEPS}; the closest call is {tightest.world.value} at "
        f"alpha = {tightest.alpha}: {float(tightest.exact.stays):.3f} against "
        f"{float(tightest.ville_bound):.3f}.",
        f"{Statement.LIMITED_QUERYING} (LITERATURE) is very loose here: E sum theta_q^3 over "
        f"{options.steps} steps is at most {help_share:.1e} of its bound.",
        f"The guarantee depends on the update rule. In the two-step example KL(pi||mu) is "
        f"infinite; KL(pi||nu_alpha) is infinite if the demonstrator's actions alone update the "
        f"posterior, and {float(example.kl_to_imitator(Update.ALL)):.4f} nats "
        f"({example.kl_to_imitator(Update.ALL)}) if every action does.",
        f"In ordinary worlds, KL without limit and mu in the top set: of "
        f"{len(both_rules) // 2} agents with a frozen posterior "
        f"{len(broken[Update.DEMONSTRATOR])} do what mu never does (0 is proved), with one that "
        f"every action updates {len(broken[Update.ALL])}.",
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
        f"{np.mean([c.asked[:, 0] for c in frozen]):.2f} of 3 steps on average, in the last five "
        f"of {N_EPISODES} episodes in {np.mean([c.asked[:, -5:] for c in frozen]):.2f}; it took "
        f"a{BAD} in {sum(int((c.bad > 0).sum()) for c in frozen)} of "
        f"{sum(c.bad.size for c in frozen)} episodes.",
    )


def draw(result: DemoResult) -> Figure:
    """Help over time, Ville's bound, the price of safety, and the two imitators."""
    data = result.data
    figure = new_figure(height_inches=5.4)
    (over_time, ville), (price, side) = figure.subplots(2, 2)
    _draw_help(over_time, data["help_over_time"], data["world"])
    _draw_ville(ville, data["ville"])
    _draw_price(price, data["priced"])
    _draw_side_by_side(side, data["compared"])
    return figure


def _draw_help(axes: Axes, lines: Sequence[dict[str, Any]], world: WorldName) -> None:
    chosen = lines[:: max(1, (len(lines) - 1) // 2)][:3]
    for line, color, style in zip(chosen, (BLUE, GREEN, ORANGE), ("-", "--", "-."), strict=False):
        axes.plot(line["mean"], color=color, linestyle=style, label=f"α = 1/{1 / line['alpha']:g}")
    axes.set_xlabel(f"steps of demonstration watched ({world.value})")
    axes.set_ylabel("mean help probability θ")
    axes.set_ylim(0, 1.02)
    axes.set_title("Help is needed less and less, ...")
    axes.legend()


def _draw_ville(axes: Axes, points: Sequence[dict[str, Any]]) -> None:
    ratio = np.geomspace(1 / 64, 8, 100)
    axes.plot(ratio, np.maximum(1 - ratio, 0), color="black", linewidth=1)
    axes.text(1.0, 0.2, "bound 1 − α/w(μ)")
    for name, color, marker, size in zip(
        WorldName, (BLUE, GREEN, VERMILLION, ORANGE), MARKERS, (7.0, 4.0, 4.0, 4.0), strict=False
    ):
        own = [p for p in points if p["world"] is name]
        middle = np.array([p["simulated"] for p in own])
        ends = np.array([p["interval"] for p in own]).T
        axes.errorbar(
            [p["alpha_over_weight"] for p in own],
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


def _draw_price(axes: Axes, points: Sequence[dict[str, Any]]) -> None:
    for k, color, marker in zip(PRICED_TIMES, (ORANGE, GREEN, BLUE), MARKERS, strict=False):
        own = [p["conduct"] for p in points if p["k"] == k]
        alphas = [float(c.alpha) for c in own]
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


def _draw_side_by_side(axes: Axes, points: Sequence[dict[str, Any]]) -> None:
    for name, color, marker in zip(
        WorldName, (BLUE, GREEN, VERMILLION, ORANGE), MARKERS, strict=False
    ):
        own = [p["conduct"] for p in points if p["world"] is name]
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


DEMO: Final = Demo(name="pessimism", options_type=PessimismOptions, run=compute, draw=draw)

if __name__ == "__main__":
    DEMO.main()
