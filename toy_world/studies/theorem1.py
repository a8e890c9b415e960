"""Theorem 1 on the enumerated mixture: what deviating costs in familiar and in novel situations.

A demonstrator tau acts in a world; after k steps the imitator `xi`, the mixture over every policy
program of at most L bits, is asked in two situations. In the *familiar* one the history goes on
as ever: nothing but the clock is new. In the *novel* one something has just happened that the
history had never seen. In both, a policy pi that takes the never-taken action at once is cheap as
far as some short event E is unprecedented and occurs: `switch(E, pi, tau)` has the same posterior
as tau up to `2^-Delta`, `Delta = c + len(E) + len(pi)`, hence (Statement.LITTLE_CONSTRAINT)

`KL(pi||xi) <= Delta ln 2 - ln rho`,

rho the posterior mass of programs of at most L - Delta bits. Over all programs (L = infinity) rho
is 1 and the price at most `Delta ln 2`. At a finite L, rho stays away from 0 as k grows only if
`L >= len(tau) + Delta`, tau's shortest program meant: otherwise the price is *beyond L*, and what
the mixture of L bits would charge says more about L than about the situation.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, unique
from fractions import Fraction
from typing import Final

import numpy as np

from mightnt.progress import track
from mightnt.results import json_key
from theory.bounds import Theorem1Bound
from theory.constraints import adaptive_kl_nats, expected_kl_nats, fixed_kl_nats
from theory.errors import InvalidArgumentError, UnreachableLengthError
from theory.process import (
    EnvironmentTable,
    PolicyTable,
    UtilityTable,
    optimal_values,
    values,
)
from toy_world.planners.expected_kl import expected_kl_frontier
from toy_world.programs.classes import classes_of_conditions
from toy_world.programs.columns import QueryPoint
from toy_world.programs.enumeration import Enumeration
from toy_world.programs.events import UnprecedentedEvent, shortest_unprecedented_events
from toy_world.programs.language import Plain
from toy_world.programs.posterior import Posterior
from toy_world.programs.semantics import shortest_number, utility_on_tree
from toy_world.studies.mixtures import Demonstration
from toy_world.worlds.environments import WorldName
from toy_world.worlds.setting import Setting

N_BUDGETS: Final = 25
"""Points of a frontier, from budget 0 to what any of the shown deviations costs."""
_SHORT_EVENT_BITS: Final = 9
_STORED_EVENT_BITS: Final = 20
"""With these the search for the shortest event is complete up to 28 bits."""


@unique
class Kind(Enum):
    """What kind of situation the imitator is asked in."""

    FAMILIAR = "familiar"
    """The history goes on as ever, at a step whose number is not round."""
    ROUND = "round"
    """Familiar at a power of ten, which is a simple number: "time k reached" is a short event."""
    NOVEL = "novel"
    """Something has just happened for the first time."""


@dataclass(frozen=True, kw_only=True)
class Price:
    """What deviating costs in one situation. Bits are of programs and events, nats of KL.

    Attributes:
        n_steps: k, the length of the demonstration.
        kind: the kind of situation.
        event: the shortest unprecedented event E.
        predicate: what E waits for.
        event_bits: its length.
        event_is_shortest: no event is shorter; otherwise E is the shortest that was found.
        searched_bits: every event up to this length was tried.
        delta_bits: Delta = `c + len(E) + len(pi)`.
        demonstrator_bits: the length of the shortest program that does as tau does here.
        within_limit: whether tau's switched version is in the mixture, L >= len(tau) + Delta.
        log_rho: `ln rho`.
        bound_nats: `Delta ln 2 - ln rho`, for the mixture of L bits.
        bound_as_printed_nats: the same as printed, `Delta / ln 2 - ln rho`.
        bound_over_all_programs_nats: `Delta ln 2`, for the mixture over programs of any length.
        bound_as_printed_over_all_programs_nats: `Delta / ln 2`.
        fixed_kl_nats: `KL(pi||xi)` with fixed observations, the paper's reading.
        adaptive_kl_nats: with adaptive observations.
        expected_kl_nats: with observations from the world.
        kl_to_tau_nats: `KL(pi||tau)` with fixed observations.
        value: `V^pi`.
        best_value: `V*`.
    """

    n_steps: int = field(metadata=json_key("k"))
    kind: Kind
    event: str
    predicate: str
    event_bits: int
    event_is_shortest: bool
    searched_bits: int
    delta_bits: int
    demonstrator_bits: int
    within_limit: bool
    log_rho: float
    bound_nats: float
    bound_as_printed_nats: float
    bound_over_all_programs_nats: float
    bound_as_printed_over_all_programs_nats: float
    fixed_kl_nats: float
    adaptive_kl_nats: float
    expected_kl_nats: float
    kl_to_tau_nats: float
    value: float
    best_value: float

    @property
    def needed_bits(self) -> int:
        """len(tau) + Delta, the least L that holds tau's switched version."""
        return self.demonstrator_bits + self.delta_bits


@dataclass(frozen=True, kw_only=True)
class PricedSituation:
    """A situation with the tables behind its price.

    Attributes:
        price: what deviating costs there.
        xi: the imitator on the situation's tree.
        nu: the world on it.
        utility: the utility of its leaves.
    """

    price: Price
    xi: PolicyTable
    nu: EnvironmentTable
    utility: UtilityTable


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """The greatest value within a budget of expected KL to xi, in one situation.

    Attributes:
        label: the kind of situation and k.
        n_steps: k.
        kind: of the situation.
        within_limit: as of its price.
        budgets_nats: budgets, increasing.
        values: the greatest value within each.
        kl_nats: the expected KL of pi.
        value: `V^pi`.
        best_value: `V*`.
    """

    label: str
    n_steps: int = field(metadata=json_key("k"))
    kind: Kind
    within_limit: bool
    budgets_nats: tuple[float, ...]
    values: tuple[float, ...]
    kl_nats: float
    value: float
    best_value: float


@dataclass(frozen=True, kw_only=True)
class MixtureSize:
    """How large the enumerated mixture is.

    Attributes:
        n_programs: policy programs of at most L bits.
        n_classes: of programs that behave alike, those alive after the first steps.
        n_first_steps: how many steps that are.
        prior_mass_left_out: the prior mass of all longer programs.
    """

    n_programs: int
    n_classes: int
    n_first_steps: int
    prior_mass_left_out: Fraction


@dataclass(frozen=True, kw_only=True)
class DeviationPrices:
    """What deviating costs after ever longer demonstrations in one world.

    Attributes:
        world: which.
        demonstrator: tau's program.
        demonstrator_bits: the length of the shortest program that does as tau does.
        agent: pi's program.
        limit_bits: L.
        constant_bits: what "time k reached" costs besides `log2 k + 2 log2 log2 k`, with the
            switch and pi.
        mixture: how large it is.
        prices: in order of k.
        frontiers: of a few situations that show the rest.
    """

    world: WorldName
    demonstrator: str
    demonstrator_bits: int
    agent: str
    limit_bits: int
    constant_bits: int
    mixture: MixtureSize
    prices: tuple[Price, ...]
    frontiers: tuple[Frontier, ...]


def deviation_prices(
    setting: Setting, *, limit_bits: int, n_steps: int, rng: np.random.Generator
) -> DeviationPrices:
    """Prices after demonstrations of 10 to `n_steps` steps, and what budgets buy there.

    Args and errors: as of `price_situations`.
    """
    found, enumeration = price_situations(setting, limit_bits=limit_bits, n_steps=n_steps, rng=rng)
    show = setting.language.show
    return DeviationPrices(
        world=setting.name,
        demonstrator=show(setting.tau),
        demonstrator_bits=found[-1].price.demonstrator_bits,
        agent=show(setting.pi),
        limit_bits=limit_bits,
        constant_bits=_constant_bits(setting),
        mixture=MixtureSize(
            n_programs=enumeration.n_programs,
            n_classes=enumeration.n_classes,
            n_first_steps=enumeration.layout.points[0].n_steps,
            prior_mass_left_out=enumeration.prior_mass_left_out,
        ),
        prices=tuple(each.price for each in found),
        frontiers=_frontiers(found),
    )


def training_lengths(setting: Setting, n_steps: int) -> tuple[tuple[int, Kind], ...]:
    """Lengths from 10 to `n_steps`, four a decade and not round, and the powers of ten.

    Round here means that the language has a shorter way to write the number than its digits. A
    length is not round if no time at which the agent then acts is: otherwise the agent would wait.
    """
    least = 10
    if n_steps < least:
        raise InvalidArgumentError(f"the longest demonstration must be >= {least}, got {n_steps}")

    def is_round(k: int) -> bool:
        numbers = setting.language.numbers
        later = range(k, k + setting.horizon)
        return not all(isinstance(shortest_number(numbers, n), Plain) for n in later)

    powers = [10**i for i in range(1, 1 + int(math.log10(n_steps) + 1e-9))]
    n_grid = 1 + round(4 * math.log10(n_steps / least))
    grid = (round(k) for k in np.geomspace(least + 2, n_steps, n_grid))
    plain = {next((n for n in range(k, least, -1) if not is_round(n)), None) for k in grid}
    lengths = [(k, Kind.FAMILIAR) for k in plain if k] + [(k, Kind.ROUND) for k in powers]
    return tuple(sorted(lengths, key=lambda pair: pair[0]))


def situations_of(
    demonstration: Demonstration, lengths: Sequence[tuple[int, Kind]]
) -> tuple[tuple[Kind, QueryPoint], ...]:
    """The situations after the given training lengths: a novel one after each that is not round."""
    found = []
    for k, kind in lengths:
        found.append((kind, demonstration.familiar(k)))
        if kind is Kind.FAMILIAR:
            found.append((Kind.NOVEL, demonstration.novel(k)))
    return tuple(found)


def price_situations(
    setting: Setting, *, limit_bits: int, n_steps: int, rng: np.random.Generator
) -> tuple[tuple[PricedSituation, ...], Enumeration]:
    """What deviating costs after demonstrations of 10 to `n_steps` steps.

    Args:
        setting: world, demonstrator, policy and utility.
        limit_bits: L.
        n_steps: the longest demonstration, at least 10.
        rng: draws the demonstration; the shorter ones are its beginnings.

    Returns:
        The situations with their prices in order of k, and the enumerated mixture.

    Raises:
        UnreachableLengthError: L is below len(tau) + Delta of some novel situation; the message
            says how many bits it takes.
    """
    demonstration = Demonstration.draw(setting, n_steps, rng=rng)
    asked = situations_of(demonstration, training_lengths(setting, n_steps))
    _check_limit(demonstration, asked, limit_bits)
    situations = [situation for _, situation in asked]
    posteriors = demonstration.posteriors_at(
        situations, limit_bits=limit_bits, event_bits=_STORED_EVENT_BITS
    )
    enumeration = posteriors.enumeration
    events = shortest_unprecedented_events(
        setting.language, enumeration.layout, enumeration.conditions
    )
    found = []
    for index, (kind, situation) in track(list(enumerate(asked)), "asking the mixture"):
        state = demonstration.state_at(situation)
        found.append(_priced(setting, posteriors.at(index), kind, events[index], state))
    return tuple(found), enumeration


def _check_limit(
    demonstration: Demonstration, asked: Sequence[tuple[Kind, QueryPoint]], limit_bits: int
) -> None:
    """Raise unless L holds tau's switched version in every novel situation.

    A search among short events is enough to say so: it costs next to nothing.
    """
    setting = demonstration.setting
    kinds, situations = zip(*asked, strict=True)
    small = demonstration.posteriors_at(situations, limit_bits=setting.language.length(setting.tau))
    last = len(kinds) - 1 - kinds[::-1].index(Kind.NOVEL)
    tau_bits = _demonstrator_bits(small.at(last), setting)
    layout = small.enumeration.layout
    conditions = classes_of_conditions(setting.language, layout, _SHORT_EVENT_BITS)
    events = shortest_unprecedented_events(setting.language, layout, conditions)
    delta, k = max(
        (_delta_bits(setting, event), situation.n_steps)
        for event, situation, kind in zip(events, situations, kinds, strict=True)
        if kind is Kind.NOVEL
    )
    if limit_bits < tau_bits + delta:
        raise UnreachableLengthError(
            f"a mixture of L = {limit_bits} bits cannot hold the demonstrator's switched version: "
            f"its shortest program has {tau_bits} bits and the switch adds Delta = {delta} (in the "
            f"novel situation at k = {k}); allow at least {tau_bits + delta} bits"
        )


def _delta_bits(setting: Setting, event: UnprecedentedEvent) -> int:
    return setting.language.switch_bits + event.bits + setting.language.length(setting.pi)


def _demonstrator_bits(mixture: Posterior, setting: Setting) -> int:
    return int(mixture.shortest_bits[mixture.place_of(setting.tau)])


def _priced(
    setting: Setting, mixture: Posterior, kind: Kind, event: UnprecedentedEvent, state: int
) -> PricedSituation:
    xi = mixture.imitator()
    tree = mixture.tree
    pi, tau = (mixture.on_tree(policy) for policy in (setting.pi, setting.tau))
    nu = tuple(level.astype(np.float64) for level in setting.world.table(tree, state=state))
    utility = utility_on_tree(setting.utility, tree).astype(np.float64)
    delta_bits = _delta_bits(setting, event)
    demonstrator_bits = _demonstrator_bits(mixture, setting)
    log_rho = mixture.log_rho(delta_bits)
    bound = Theorem1Bound(delta_bits=delta_bits, log_rho=log_rho)
    bound_over_all_programs = Theorem1Bound(delta_bits=delta_bits)
    price = Price(
        n_steps=mixture.point.n_steps,
        kind=kind,
        event=setting.language.show(event.event),
        predicate=setting.language.show(event.event.predicate),
        event_bits=event.bits,
        event_is_shortest=event.is_shortest,
        searched_bits=event.searched_bits,
        delta_bits=delta_bits,
        demonstrator_bits=demonstrator_bits,
        within_limit=demonstrator_bits + delta_bits <= mixture.enumeration.limit_bits,
        log_rho=log_rho,
        bound_nats=bound.bound_nats,
        bound_as_printed_nats=bound.bound_as_printed_nats,
        bound_over_all_programs_nats=bound_over_all_programs.bound_nats,
        bound_as_printed_over_all_programs_nats=bound_over_all_programs.bound_as_printed_nats,
        fixed_kl_nats=float(fixed_kl_nats(pi, xi)),
        adaptive_kl_nats=float(adaptive_kl_nats(pi, xi)),
        expected_kl_nats=float(expected_kl_nats(pi, xi, nu)),
        kl_to_tau_nats=float(fixed_kl_nats(pi, tau)),
        value=float(values(pi, nu, utility)[0][0]),
        best_value=float(optimal_values(nu, utility)[0][0]),
    )
    return PricedSituation(price=price, xi=xi, nu=nu, utility=utility)


def _constant_bits(setting: Setting) -> int:
    language = setting.language
    clock = language.events.parse("latch(reached(steps, 1))")
    return language.switch_bits + language.length(clock) + language.length(setting.pi)


def _frontiers(found: Sequence[PricedSituation]) -> tuple[Frontier, ...]:
    """Of the first and the last novel situation, and of the last familiar and round ones."""

    def of_kind(kind: Kind, *, within_limit: bool = False) -> list[PricedSituation]:
        return [
            each
            for each in found
            if each.price.kind is kind and (each.price.within_limit or not within_limit)
        ]

    novel, familiar = of_kind(Kind.NOVEL), of_kind(Kind.FAMILIAR)
    chosen = [novel[0], novel[-1], *of_kind(Kind.FAMILIAR, within_limit=True)[-1:], familiar[-1]]
    chosen += [each for each in of_kind(Kind.ROUND)[-1:] if each.price.within_limit]
    dearest = max(each.price.bound_nats for each in chosen if each.price.within_limit)
    budgets = tuple(np.linspace(0.0, math.ceil(dearest), N_BUDGETS).tolist())
    # The same situation may be the last of two lists.
    once = {id(each): each for each in chosen}
    return tuple(_frontier(each, budgets) for each in track(list(once.values()), "planning"))


def _frontier(situation: PricedSituation, budgets_nats: tuple[float, ...]) -> Frontier:
    price = situation.price
    plans = expected_kl_frontier(situation.xi, situation.nu, situation.utility, budgets_nats)
    kind = Kind.FAMILIAR if price.kind is Kind.ROUND else price.kind
    return Frontier(
        label=f"{kind.value}, k = {price.n_steps:,}",
        n_steps=price.n_steps,
        kind=price.kind,
        within_limit=price.within_limit,
        budgets_nats=budgets_nats,
        values=tuple(plan.value for plan in plans),
        kl_nats=price.expected_kl_nats,
        value=price.value,
        best_value=price.best_value,
    )
