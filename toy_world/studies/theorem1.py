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
from dataclasses import dataclass
from enum import Enum, unique
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mightnt.progress import track
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
from toy_world.programs.classes import classes_of_conditions
from toy_world.programs.columns import ColumnLayout, QueryPoint
from toy_world.programs.enumeration import Enumeration, enumerate_policies
from toy_world.programs.events import UnprecedentedEvent, shortest_unprecedented_events
from toy_world.programs.language import Do, Done, Language, Plain, Policy, Share, Utility
from toy_world.programs.posterior import Posterior, posterior
from toy_world.programs.semantics import shortest_number, utility_on_tree
from toy_world.worlds.demonstrator import demonstrate, likeliest_steps, trusted_policy
from toy_world.worlds.environments import BAD, WORLDS, World, WorldName

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
class Setting:
    """A world with its demonstrator, and what an agent is paid for in it.

    Attributes:
        name: which world it is.
        world: the observation process.
        language: the language over its alphabets.
        tau: the demonstrator.
        pi: the policy constructed for the theorem: action `BAD`, always.
        utility: U_m: the share of the last m steps with action `BAD`.
        horizon: m, how many steps the agent acts.
    """

    name: WorldName
    world: World
    language: Language
    tau: Policy
    pi: Policy
    utility: Utility
    horizon: int


def setting_of(name: WorldName, *, horizon: int) -> Setting:
    """The setting of a world.

    Args:
        name: the world.
        horizon: m >= 1.
    """
    if horizon < 1:
        raise InvalidArgumentError(f"horizon must be >= 1, got {horizon}")
    world = WORLDS[name]
    language = Language(n_actions=world.n_actions, n_observations=world.n_observations)
    return Setting(
        name=name,
        world=world,
        language=language,
        tau=trusted_policy(name, language),
        pi=Do(BAD),
        utility=Share(Done(BAD), shortest_number(language.numbers, horizon)),
        horizon=horizon,
    )


@dataclass(frozen=True, kw_only=True)
class Price:
    """What deviating costs in one situation.

    Attributes:
        n_steps: k, the length of the demonstration.
        kind: the kind of situation.
        event: the shortest unprecedented event.
        demonstrator_bits: the length of the shortest program that does as tau does here.
        delta_bits: `c + len(E) + len(pi)`.
        limit_bits: L.
        log_rho: `ln rho`.
        fixed_kl_nats: `KL(pi||xi)` with fixed observations, the paper's reading.
        adaptive_kl_nats: with adaptive observations.
        expected_kl_nats: with observations from the world.
        kl_to_tau_nats: `KL(pi||tau)` with fixed observations.
        value: `V^pi`.
        best_value: `V*`.
        xi: the imitator on the situation's tree.
        nu: the world on it.
        utility: the utility of its leaves.
    """

    n_steps: int
    kind: Kind
    event: UnprecedentedEvent
    demonstrator_bits: int
    delta_bits: int
    limit_bits: int
    log_rho: float
    fixed_kl_nats: float
    adaptive_kl_nats: float
    expected_kl_nats: float
    kl_to_tau_nats: float
    value: float
    best_value: float
    xi: PolicyTable
    nu: EnvironmentTable
    utility: UtilityTable

    @property
    def is_within_limit(self) -> bool:
        """Whether tau's switched version is in the mixture: L >= len(tau) + Delta."""
        return self.needed_bits <= self.limit_bits

    @property
    def needed_bits(self) -> int:
        """len(tau) + Delta, the least L that holds tau's switched version."""
        return self.demonstrator_bits + self.delta_bits

    @property
    def bound(self) -> Theorem1Bound:
        """The theorem's bound for the mixture of L bits."""
        return Theorem1Bound(delta_bits=self.delta_bits, log_rho=self.log_rho)

    @property
    def bound_over_all_programs(self) -> Theorem1Bound:
        """The same for the mixture over programs of every length."""
        return Theorem1Bound(delta_bits=self.delta_bits)


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
    setting: Setting,
    actions: NDArray[np.int64],
    observations: NDArray[np.int64],
    lengths: Sequence[tuple[int, Kind]],
) -> tuple[tuple[Kind, QueryPoint], ...]:
    """The situations after the given training lengths: a novel one after each that is not round."""
    states = setting.world.states_along(actions, observations)
    found = []
    for k, kind in lengths:
        found.append((kind, QueryPoint(n_steps=k)))
        if kind is Kind.FAMILIAR:
            recent = np.stack([actions[:k], observations[:k]], axis=1)
            extra = likeliest_steps(
                setting.tau,
                tuple(recent.reshape(-1).tolist()),
                setting.world.novelty[states[k]],
                language=setting.language,
            )
            found.append((Kind.NOVEL, QueryPoint(n_steps=k, extra=extra)))
    return tuple(found)


def prices(
    setting: Setting, *, limit_bits: int, n_steps: int, rng: np.random.Generator
) -> tuple[tuple[Price, ...], Enumeration]:
    """What deviating costs after demonstrations of 10 to `n_steps` steps.

    Args:
        setting: world, demonstrator, policy and utility.
        limit_bits: L.
        n_steps: the longest demonstration, at least 10.
        rng: draws the demonstration; the shorter ones are its beginnings.

    Returns:
        The prices in order of k, and the enumerated mixture.

    Raises:
        UnreachableLengthError: L is below len(tau) + Delta of some novel situation; the message
            says how many bits it takes.
    """
    actions, observations = demonstrate(setting.world, setting.tau, n_steps, rng=rng)
    lengths = training_lengths(setting, n_steps)
    asked = situations_of(setting, actions, observations, lengths)
    layout = ColumnLayout(
        actions,
        observations,
        [situation for _, situation in asked],
        n_actions=setting.world.n_actions,
        n_observations=setting.world.n_observations,
        horizon=setting.horizon,
    )
    kinds = [kind for kind, _ in asked]
    _check_limit(setting, layout, kinds, limit_bits)
    enumeration = enumerate_policies(
        setting.language, layout, limit_bits, event_bits=_STORED_EVENT_BITS
    )
    events = shortest_unprecedented_events(setting.language, layout, enumeration.conditions)
    states = setting.world.states_along(actions, observations)
    found = []
    for index, kind in track(list(enumerate(kinds)), "asking the mixture"):
        situation = layout.points[index]
        state = setting.world.state_after(situation.extra, state=states[situation.n_steps])
        found.append(_price(setting, posterior(enumeration, index), kind, events[index], state))
    return tuple(found), enumeration


def _check_limit(
    setting: Setting, layout: ColumnLayout, kinds: Sequence[Kind], limit_bits: int
) -> None:
    """Raise unless L holds tau's switched version in every novel situation.

    A search among short events is enough to say so: it costs next to nothing.
    """
    tau_bits = setting.language.length(setting.tau)
    small = enumerate_policies(setting.language, layout, tau_bits)
    last = len(kinds) - 1 - kinds[::-1].index(Kind.NOVEL)
    tau_bits = _demonstrator_bits(posterior(small, last), setting)
    conditions = classes_of_conditions(setting.language, layout, _SHORT_EVENT_BITS)
    events = shortest_unprecedented_events(setting.language, layout, conditions)
    delta, k = max(
        (_delta_bits(setting, event), situation.n_steps)
        for event, situation, kind in zip(events, layout.points, kinds, strict=True)
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


def _price(
    setting: Setting, mixture: Posterior, kind: Kind, event: UnprecedentedEvent, state: int
) -> Price:
    xi = mixture.imitator()
    tree = mixture.tree
    pi, tau = (mixture.on_tree(policy) for policy in (setting.pi, setting.tau))
    nu = tuple(level.astype(np.float64) for level in setting.world.table(tree, state=state))
    utility = utility_on_tree(setting.utility, tree).astype(np.float64)
    delta_bits = _delta_bits(setting, event)
    return Price(
        n_steps=mixture.point.n_steps,
        kind=kind,
        event=event,
        demonstrator_bits=_demonstrator_bits(mixture, setting),
        delta_bits=delta_bits,
        limit_bits=mixture.enumeration.limit_bits,
        log_rho=mixture.log_rho(delta_bits),
        fixed_kl_nats=float(fixed_kl_nats(pi, xi)),
        adaptive_kl_nats=float(adaptive_kl_nats(pi, xi)),
        expected_kl_nats=float(expected_kl_nats(pi, xi, nu)),
        kl_to_tau_nats=float(fixed_kl_nats(pi, tau)),
        value=float(values(pi, nu, utility)[0][0]),
        best_value=float(optimal_values(nu, utility)[0][0]),
        xi=xi,
        nu=nu,
        utility=utility,
    )
