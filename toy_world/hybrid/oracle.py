"""The oracle: from data to what every policy is worth, and how unsure that is.

An *oracle* (Huang, Li, Shi, Shen and Yang, arXiv 2505.13768, UAI 2025) makes of a data set, offline
and online episodes alike, an estimate `V_hat^pi` of the value of every policy pi and an
*uncertainty* `U_hat^pi` that covers its error: with probability at least 1 - delta

    |V^pi - V_hat^pi| <= U_hat^pi    for all policies and at all times.

Then every confidence-based algorithm takes offline data without a change. The policy that acts
online maximises `V_hat + U_hat` (optimism: what might be good is tried), and the one that is
handed over at the end maximises `V_hat - U_hat` (pessimism: what is surely good). Learning from
demonstrations alone is the same code without online episodes, pure online learning without
demonstrations.
"""

from enum import Enum, unique
from typing import Protocol

from toy_world.hybrid.mdp import Data, Floats, Ints, Optimum


@unique
class Attitude(Enum):
    """To what is uncertain: the sign with which its uncertainty counts."""

    OPTIMISM = 1
    PESSIMISM = -1


class Estimate(Protocol):
    """What an oracle makes of the data of R runs."""

    def values(self, policies: Ints) -> Floats:
        """`V_hat^pi` of each run's deterministic policy, (R, H, S) to (R,)."""
        ...

    def uncertainties(self, policies: Ints) -> Floats:
        """`U_hat^pi`, likewise."""
        ...

    def best(self, attitude: Attitude) -> Optimum:
        """The policy of greatest `V_hat + U_hat` or `V_hat - U_hat` in each run."""
        ...


class Oracle(Protocol):
    """Makes estimates."""

    def __call__(self, data: Data) -> Estimate:
        """What the data say."""
        ...
