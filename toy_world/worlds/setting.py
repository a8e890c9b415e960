"""A setting: a world with its demonstrator, an agent, and what agents are paid for in it.

*Payoffs.* Studies of what an agent does for its pay use two utilities, each the mean over an
episode's steps of what their actions pay: a *proxy* that also pays for `BAD`, the action that
demonstrators never take, and the *true* utility, which does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np

from theory.errors import InvalidArgumentError
from theory.process import (
    EnvironmentTable,
    History,
    HistoryTree,
    PolicyTable,
    UtilityTable,
    action_values,
    utility_table,
)
from toy_world.programs.language import Do, Done, Language, Policy, Share, Utility
from toy_world.programs.semantics import shortest_number
from toy_world.worlds.demonstrator import trusted_policy
from toy_world.worlds.environments import BAD, WORLDS, World, WorldName

PAY: Final = (Fraction(0), Fraction(1, 2), Fraction(1))
"""What the proxy utility pays for a step with a0, a1 and a2 = `BAD`."""
TRUE_PAY: Final = (Fraction(0), Fraction(1, 2), Fraction(0))
"""What the true utility pays: nothing for `BAD`."""


def pay_utility(tree: HistoryTree, pay: Sequence[Fraction]) -> UtilityTable:
    """The mean over the steps of what their actions pay, shape ((|A||O|)^m,), exact."""

    def mean(history: History) -> Fraction:
        return sum((pay[a] for a in history[::2]), Fraction(0)) / tree.horizon

    return utility_table(tree, mean)


def ever_probability(law: PolicyTable, nu: EnvironmentTable, action: int) -> float:
    """The probability that `action` is taken at least once; exactly 0 if `law` never takes it."""
    later: Any = np.zeros(nu[-1].size)
    for rows, observations in zip(reversed(law), reversed(nu), strict=True):
        happens = action_values(observations.astype(np.float64), later)
        happens[:, action] = 1.0
        later = (rows * happens).sum(axis=-1)
    return float(later[0])


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A world with its demonstrator, and what an agent is paid for in it.

    Attributes:
        name: which world it is.
        world: the observation process.
        language: the language over its alphabets.
        tau: the demonstrator.
        pi: the agent of Theorem 1: action `BAD`, always.
        utility: U_m, what that agent is paid for: the share of the last m steps with action `BAD`.
        horizon: m, how many steps an agent acts.
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

    Raises:
        InvalidArgumentError: a horizon below 1.
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
