"""Vetoed imitators in small worlds: what they allow, what they ask, and what their bounds say.

A Bayesian imitator, the mixture of every policy program of at most L bits, watches a demonstrator
for k steps. Every event of at most n bits of the language (`toy_world.programs.vocabulary`) is
weighed against it and vetoed or not (`theory.vetoes`), and an agent that is paid for what the
demonstrator never does plans against what is left, within a budget. Its own actions change neither
the vetoes nor, where there is one, the top set; what the imitator expects goes on to depend on the
whole history, as a language model's predictions do. Two thresholds make two products:

- *audit*, alpha = 1/20: what the imitator is badly wrong about. A Bayesian imitator is wrong about
  next to nothing: the mean of `-ln m_E` of an event that the demonstrator never does is at most the
  KL of its actions from the imitator's, and so at most `ln 1/w(tau)`. So an audit is also made of a
  *blurred* imitator, which mixes something of the uniform law into every prediction and never
  learns that a thing is not done.
- *hard*, alpha = 2^-n: whatever has never been seen.

Beside them stand the Bayesian imitator as it is and the pessimistic one (Definition 4).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, unique
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mightnt.progress import track
from mightnt.results import json_key
from theory.arrays import FULL_MASS_ROUNDING
from theory.bayes_mixture import Update
from theory.missing_mass import completed
from theory.pessimism import help_probability, pessimistic_imitator
from theory.process import HistoryTree, PolicyTable, UtilityTable, utility_table
from theory.vetoes import unvetoed_price_bound_nats
from toy_world.planners.ask import asking_optimum
from toy_world.planners.expected_kl import expected_kl_optimum
from toy_world.programs.vocabulary import vocabulary
from toy_world.studies.mixtures import Demonstration, Mixture, mixture_at
from toy_world.studies.veto_evidence import (
    VetoEvidence,
    barred_on_tree,
    blurred,
    without,
)
from toy_world.worlds.environments import BAD, WorldName
from toy_world.worlds.setting import Setting, ever_probability, setting_of

HORIZON: Final = 3
"""Steps of an episode."""
AUDIT_ALPHA: Final = Fraction(1, 20)
PESSIMIST_ALPHA: Final = Fraction(1, 256)
BUDGETS_NATS: Final = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0, math.inf)
FALSE_ALPHAS: Final = (
    *(Fraction(1, 2**j) for j in range(1, 5)),
    AUDIT_ALPHA,
    *(Fraction(1, 2**j) for j in range(5, 13)),
)
PLANNED_TIMES: Final = (8, 32, 128)
"""After how many steps agents plan; only such as lie within the demonstration."""


@unique
class Imitator(Enum):
    """What an agent is kept near."""

    BAYESIAN = "Bayesian"
    PESSIMISTIC = "pessimistic"
    AUDITED = "Bayesian, audited"
    HARD = "Bayesian, hard vetoes"
    BLURRED = "blurred"
    BLURRED_AUDITED = "blurred, audited"


@unique
class Filling(Enum):
    """What becomes of what the hard vetoes leave out."""

    ASK = "the demonstrator is asked"
    DEMONSTRATOR = "the demonstrator's law fills it"
    BASE = "the imitator's law fills it"
    FALLBACK = "the imitator acts where nothing is left"


@dataclass(frozen=True, kw_only=True)
class VetoOutcome:
    """An agent that is paid for what the demonstrator never does.

    Attributes:
        world: where; its novelty has just happened.
        n_steps: k, how long the demonstrator was watched.
        imitator: what the agent is kept near.
        budget_nats: of expected KL, in which it may ask.
        never_probability: that it ever takes `BAD`, the value of the best plan.
        bound: no plan has a greater one.
        missing_mass: what the imitator leaves out at the episode's first step.
    """

    world: WorldName
    n_steps: int = field(metadata=json_key("k"))
    imitator: Imitator
    budget_nats: float
    never_probability: float
    bound: float
    missing_mass: float


@dataclass(frozen=True, kw_only=True)
class FillingOutcome:
    """The same with the hard vetoes, for one way of filling what they leave out.

    Attributes:
        filling: the way.
        budget_nats: of expected KL.
        never_probability: that the agent ever takes `BAD`.
    """

    filling: Filling
    budget_nats: float
    never_probability: float


@dataclass(frozen=True, kw_only=True)
class HelpAt:
    """What imitators ask for at one step, means over demonstrations.

    Attributes:
        n_steps: k, the steps before.
        pessimistic: the pessimistic imitator's missing mass.
        hard: the missing mass under the hard vetoes.
        blocked: of it, what the demonstrator might do.
        n_vetoed: how many classes of events have a vetoed one.
    """

    n_steps: int = field(metadata=json_key("k"))
    pessimistic: float
    hard: float
    blocked: float
    n_vetoed: float


@dataclass(frozen=True, kw_only=True)
class FalseVetoes:
    """Events ever vetoed that the demonstrator might have done, at one threshold.

    Attributes:
        alpha: the threshold.
        n_false: how many, the mean over demonstrations.
        most: in any of them.
        bound: on the mean if the imitator's rates were the demonstrator's.
        bound_over_weight: on the mean for the Bayesian imitator: the same over `w(tau)`.
    """

    alpha: Fraction
    n_false: float
    most: int
    bound: float
    bound_over_weight: float


@dataclass(frozen=True, kw_only=True)
class EventLeft:
    """An event that the demonstrator never does and that the audit leaves.

    Attributes:
        blurred: whether the imitator is the blurred one.
        event: in words.
        bits: its length.
        visits: `n_E`.
        expected: `lambda_E`.
        mean_price_nats: the mean of `-ln b(E|h)` over the visits.
        least_price_nats: the least of them, of which the bound says nothing.
        bound_nats: `ln n_E - ln C`, below the mean.
    """

    blurred: bool
    event: str
    bits: int
    visits: int
    expected: float
    mean_price_nats: float
    least_price_nats: float
    bound_nats: float


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What the audit makes of an imitator after k steps.

    Attributes:
        blurred: whether the imitator is the blurred one.
        n_steps: k.
        n_vetoed: classes of events with a vetoed one.
        greatest_doubt_nats: the greatest `-ln m_E` of an event that never occurred.
        needed_nats: C of that event, at which it is vetoed.
        event: the event, in words; the shortest of those as doubtful.
    """

    blurred: bool
    n_steps: int = field(metadata=json_key("k"))
    n_vetoed: int
    greatest_doubt_nats: float
    needed_nats: float
    event: str


@dataclass(frozen=True, kw_only=True)
class Vetoes:
    """What vetoes allow, ask for and leave.

    Attributes:
        world: which is shown in detail.
        n_events: of the vocabulary there.
        weight_bound: w(tau) is at least this.
        outcomes: agents, in every world.
        fillings: the hard vetoes, filled in four ways.
        help_over_time: while the demonstrator is watched.
        false_vetoes: by threshold.
        audits: of both imitators.
        left: what the audit leaves.
    """

    world: WorldName
    n_events: int
    weight_bound: float
    outcomes: tuple[VetoOutcome, ...]
    fillings: tuple[FillingOutcome, ...]
    help_over_time: tuple[HelpAt, ...]
    false_vetoes: tuple[FalseVetoes, ...]
    audits: tuple[Audit, ...]
    left: tuple[EventLeft, ...]


@dataclass(frozen=True, kw_only=True)
class Watching:
    """A demonstration, step by step.

    Attributes:
        demonstration: of K steps.
        evidence: about every event, for the Bayesian imitator.
        tau_rates: `tau(a|h_t)`, shape (K, |A|).
        help: for k = 0, ..., K - 1.
    """

    demonstration: Demonstration
    evidence: VetoEvidence
    tau_rates: NDArray[np.float64]
    help: tuple[HelpAt, ...]

    @property
    def might_be_done(self) -> NDArray[np.bool_]:
        """The classes of which the demonstrator might have done an event at some visit."""
        return np.asarray((self.evidence.met.astype(np.float64) @ self.tau_rates) > 0)

    def blurred(self, share: float) -> VetoEvidence:
        """The evidence for the blurred imitator."""
        (rates,) = blurred((self.evidence.rates,), share)
        return VetoEvidence(
            vocabulary=self.evidence.vocabulary, actions=self.evidence.actions, rates=rates
        )


def watch(
    setting: Setting,
    *,
    n_steps: int,
    limit_bits: int,
    event_bits: int,
    rng: np.random.Generator,
) -> Watching:
    """Watch a demonstration; one imitation and one vocabulary serve every step of it.

    Args:
        setting: world and demonstrator; its horizon must be 1.
        n_steps: K.
        limit_bits: L of the imitator's programs.
        event_bits: n of the vocabulary.
        rng: draws the demonstration.
    """
    drawn = Demonstration.draw(setting, n_steps, rng=rng)
    situations = [drawn.familiar(k) for k in range(n_steps + 1)]
    posteriors = drawn.posteriors_at(situations, limit_bits=limit_bits)
    words = vocabulary(setting.language, posteriors.enumeration.layout, event_bits)
    rates, tau_rates, least = [], [], []
    for found in posteriors:
        weights, models = found.by_continuation()
        rates.append(weights @ models[0][:, 0])
        tau_rates.append(found.on_tree(setting.tau)[0][0])
        pessimist = pessimistic_imitator(
            weights, models, alpha=PESSIMIST_ALPHA, update=Update.DEMONSTRATOR
        )
        least.append(pessimist[0][0].sum())
    evidence = VetoEvidence(
        vocabulary=words, actions=drawn.actions, rates=np.array(rates[:n_steps])
    )
    hard = Fraction(1, 2**event_bits)
    helps = []
    for k in range(n_steps):
        vetoed = evidence.vetoed(k, hard)
        (barred,) = barred_on_tree(words, vetoed, k)
        helps.append(
            HelpAt(
                n_steps=k,
                pessimistic=float(1 - least[k]),
                hard=min(float(rates[k] @ barred[0]), 1.0),
                blocked=min(float(tau_rates[k] @ barred[0]), 1.0),
                n_vetoed=int(vetoed.sum()),
            )
        )
    return Watching(
        demonstration=drawn,
        evidence=evidence,
        tau_rates=np.array(tau_rates[:n_steps]),
        help=tuple(helps),
    )


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What agents plan with, when the novelty has just happened.

    Attributes:
        world: which.
        n_steps: k.
        mixture: the imitator's, with demonstrator and world.
        barred: by the hard vetoes, the audit, and the audit of the blurred imitator.
        blur: how much of the uniform law the blurred imitator has.
    """

    world: WorldName
    n_steps: int
    mixture: Mixture
    barred: dict[Imitator, tuple[NDArray[np.bool_], ...]]
    blur: float

    def base(self, imitator: Imitator) -> PolicyTable:
        """An imitator's law on the tree, a semi-distribution where it asks."""
        if imitator is Imitator.PESSIMISTIC:
            return self.mixture.pessimist(PESSIMIST_ALPHA, update=Update.DEMONSTRATOR)
        plain = self.mixture.imitator(update=Update.ALL)
        if imitator in (Imitator.BLURRED, Imitator.BLURRED_AUDITED):
            plain = blurred(plain, self.blur)
        barred = self.barred.get(imitator)
        return plain if barred is None else without(plain, barred)

    @property
    def utility(self) -> UtilityTable:
        """1 for an episode with `BAD` in it."""
        n_actions, n_observations = self.mixture.nu[0].shape[1:]
        tree = HistoryTree(n_actions=n_actions, n_observations=n_observations, horizon=HORIZON)
        paid = utility_table(tree, lambda history: Fraction(int(BAD in history[::2])))
        return paid.astype(np.float64)


def situation_after(watching: Watching, n_steps: int, *, limit_bits: int, blur: float) -> Situation:
    """The novel situation after k steps of a demonstration.

    Args:
        watching: the demonstration, of at least k steps.
        n_steps: k.
        limit_bits: L of the imitator's programs.
        blur: of the blurred imitator.
    """
    watched = watching.demonstration
    setting = setting_of(watched.setting.name, horizon=HORIZON)
    longer = Demonstration(
        setting=setting, actions=watched.actions, observations=watched.observations
    )
    novel = longer.novel(n_steps)
    posteriors = longer.posteriors_at([novel], limit_bits=limit_bits)
    mixture = mixture_at(posteriors.at(0), setting, state=longer.state_at(novel))
    event_bits = watching.evidence.vocabulary.limit_bits
    words = vocabulary(setting.language, posteriors.enumeration.layout, event_bits)
    plain, blurry = (
        VetoEvidence(
            vocabulary=words, actions=watched.actions[:n_steps], rates=evidence.rates[:n_steps]
        )
        for evidence in (watching.evidence, watching.blurred(blur))
    )
    thresholds = {
        Imitator.HARD: (plain, Fraction(1, 2**event_bits)),
        Imitator.AUDITED: (plain, AUDIT_ALPHA),
        Imitator.BLURRED_AUDITED: (blurry, AUDIT_ALPHA),
    }
    return Situation(
        world=setting.name,
        n_steps=n_steps,
        mixture=mixture,
        barred={
            imitator: barred_on_tree(words, evidence.vetoed(n_steps, alpha), 0)
            for imitator, (evidence, alpha) in thresholds.items()
        },
        blur=blur,
    )


def outcomes(situation: Situation, *, budgets_nats: Sequence[float]) -> list[VetoOutcome]:
    """The best plans of agents paid for `BAD`, near every imitator and within every budget."""
    mixture, found = situation.mixture, []
    for imitator in Imitator:
        base = situation.base(imitator)
        missing_mass = float(help_probability(base)[0][0])
        for budget in budgets_nats:
            plan = asking_optimum(
                base, mixture.nu, situation.utility, help_policy=mixture.tau, budget_nats=budget
            )
            found.append(
                VetoOutcome(
                    world=situation.world,
                    n_steps=situation.n_steps,
                    imitator=imitator,
                    budget_nats=budget,
                    never_probability=ever_probability(plan.law, mixture.nu, BAD),
                    bound=plan.bound,
                    missing_mass=missing_mass if missing_mass > FULL_MASS_ROUNDING else 0.0,
                )
            )
    return found


def filling_outcomes(
    situation: Situation, *, budgets_nats: Sequence[float]
) -> list[FillingOutcome]:
    """The same near the hard vetoes, for every way of filling what they leave out."""
    mixture = situation.mixture
    left, full = situation.base(Imitator.HARD), situation.base(Imitator.BAYESIAN)
    found = []
    for filling in Filling:
        base = {
            Filling.ASK: left,
            Filling.DEMONSTRATOR: _filled(left, mixture.tau),
            Filling.BASE: _filled(left, full),
            Filling.FALLBACK: tuple(
                np.where(rows.sum(axis=1, keepdims=True) > 0, rows, own)
                for rows, own in zip(left, full, strict=True)
            ),
        }[filling]
        for budget in budgets_nats:
            if filling in (Filling.ASK, Filling.FALLBACK):
                law = asking_optimum(
                    base, mixture.nu, situation.utility, help_policy=mixture.tau, budget_nats=budget
                ).law
            else:
                law = expected_kl_optimum(
                    base, mixture.nu, situation.utility, budget_nats=budget
                ).pi
            found.append(
                FillingOutcome(
                    filling=filling,
                    budget_nats=budget,
                    never_probability=ever_probability(law, mixture.nu, BAD),
                )
            )
    return found


def _filled(left: PolicyTable, by: PolicyTable) -> PolicyTable:
    with np.errstate(divide="ignore"):
        return tuple(
            np.exp(completed(np.log(rows), np.log(filler)))
            for rows, filler in zip(left, by, strict=True)
        )


def false_vetoes(
    watchings: Sequence[Watching], *, alphas: Sequence[Fraction], weight_bound: Fraction
) -> tuple[FalseVetoes, ...]:
    """How many events were ever falsely vetoed, over some demonstrations, against the bounds.

    Args:
        watchings: the demonstrations.
        alphas: thresholds.
        weight_bound: at most the demonstrator's prior weight.
    """
    rows = []
    odds_sum = watchings[0].evidence.vocabulary.prior_odds_sum
    for alpha in alphas:
        counts = [w.evidence.n_ever_vetoed(alpha, among=w.might_be_done) for w in watchings]
        bound = (1 / alpha - 1) * odds_sum
        rows.append(
            FalseVetoes(
                alpha=alpha,
                n_false=sum(counts) / len(counts),
                most=max(counts),
                bound=float(bound),
                bound_over_weight=float(bound / weight_bound),
            )
        )
    return tuple(rows)


def audit(evidence: VetoEvidence, n_steps: int, *, is_blurred: bool) -> Audit:
    """What the audit makes of an imitator after k steps."""
    words, after = evidence.vocabulary, evidence.after(n_steps)
    never = after.occurrences == 0
    doubt = np.where(never, -after.log_never, -np.inf)
    # Of the most doubtful events the shortest, which takes least.
    place = min(np.flatnonzero(doubt >= doubt.max() - 1e-12), key=lambda i: (after.bits[i], int(i)))
    condition, action = (int(i) for i in np.argwhere(words.included)[place])
    odds = (1 - after.priors[place]) / after.priors[place]
    return Audit(
        blurred=is_blurred,
        n_steps=n_steps,
        n_vetoed=int(evidence.vetoed(n_steps, AUDIT_ALPHA).sum()),
        greatest_doubt_nats=float(doubt[place]),
        needed_nats=float(np.log(odds) + math.log(AUDIT_ALPHA / (1 - AUDIT_ALPHA))),
        event=words.show(condition, action),
    )


def events_left(watching: Watching, evidence: VetoEvidence, *, is_blurred: bool) -> list[EventLeft]:
    """The never-events that the audit leaves after all steps, by visits and price."""
    words = evidence.vocabulary
    n_steps = evidence.n_steps
    visits = evidence.met.sum(axis=1)
    vetoed = evidence.vetoed(n_steps, AUDIT_ALPHA)
    left = words.included & ~watching.might_be_done & ~vetoed & (visits > 0)[:, None]
    prices = evidence.prices_nats()
    found = []
    for condition, action in np.argwhere(left).tolist():
        own = prices[condition, action][evidence.met[condition]]
        bits, n = int(words.bits[condition, action]), int(visits[condition])
        found.append(
            EventLeft(
                blurred=is_blurred,
                event=words.show(condition, action),
                bits=bits,
                visits=n,
                expected=float(np.exp(-own).sum()),
                mean_price_nats=float(own.mean()),
                least_price_nats=float(own.min()),
                bound_nats=unvetoed_price_bound_nats(n, Fraction(1, 2**bits), AUDIT_ALPHA),
            )
        )
    return sorted(found, key=lambda each: (each.visits, each.mean_price_nats, each.event))


def vetoes(
    *,
    world: WorldName,
    limit_bits: int,
    event_bits: int,
    n_steps: int,
    n_runs: int,
    blur: float,
    rng: np.random.Generator,
) -> Vetoes:
    """Everything.

    Args:
        world: which is shown in detail.
        limit_bits: L of the imitator's programs.
        event_bits: n of the vocabulary.
        n_steps: K, how long demonstrators are watched.
        n_runs: demonstrations of the world that is shown in detail.
        blur: share of the uniform law in the blurred imitator.
        rng: draws demonstrations.
    """
    times = [k for k in PLANNED_TIMES if k < n_steps] + [n_steps]
    sizes = {"n_steps": n_steps, "limit_bits": limit_bits, "event_bits": event_bits}
    found: list[VetoOutcome] = []
    fillings: list[FillingOutcome] = []
    watchings: list[Watching] = []
    for name in track(WorldName, "four worlds", total=len(WorldName)):
        setting = setting_of(name, horizon=1)
        seen = watch(setting, rng=rng, **sizes)
        for k in times if name is world else times[-1:]:
            situation = situation_after(seen, k, limit_bits=limit_bits, blur=blur)
            found += outcomes(situation, budgets_nats=BUDGETS_NATS)
        if name is world:
            fillings = filling_outcomes(situation, budgets_nats=BUDGETS_NATS)
            watchings = [seen] + [watch(setting, rng=rng, **sizes) for _ in range(n_runs - 1)]
    first = watchings[0]
    setting = first.demonstration.setting
    policies = setting.language.policies
    weight_bound = Fraction(1, 2 ** policies.length(setting.tau)) / policies.mass_up_to(limit_bits)
    both = ((first.evidence, False), (first.blurred(blur), True))
    return Vetoes(
        world=world,
        n_events=first.evidence.vocabulary.n_events,
        weight_bound=float(weight_bound),
        outcomes=tuple(found),
        fillings=tuple(fillings),
        help_over_time=_mean_help([each.help for each in watchings]),
        false_vetoes=false_vetoes(watchings, alphas=FALSE_ALPHAS, weight_bound=weight_bound),
        audits=tuple(
            audit(evidence, k, is_blurred=is_blurred)
            for evidence, is_blurred in both
            for k in times
        ),
        left=tuple(
            each
            for evidence, is_blurred in both
            for each in events_left(first, evidence, is_blurred=is_blurred)
        ),
    )


def _mean_help(runs: Sequence[tuple[HelpAt, ...]]) -> tuple[HelpAt, ...]:
    return tuple(
        HelpAt(
            n_steps=same[0].n_steps,
            **{
                name: sum(getattr(each, name) for each in same) / len(same)
                for name in ("pessimistic", "hard", "blocked", "n_vetoed")
            },
        )
        for same in zip(*runs, strict=True)
    )
