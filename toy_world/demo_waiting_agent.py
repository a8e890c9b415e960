"""Theorem 1's two loose ends: how large K(v xi(h)) is, and the agent that waits for an event.

See `toy_world.studies.waiting_agent` for both.
"""

import math
from dataclasses import dataclass
from typing import Final

from theory.errors import InvalidArgumentError, InvalidBudgetError
from toy_world.demo import Demo, DemoOptions


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


DEMO: Final = Demo(name="waiting_agent", options_type=WaitingAgentOptions)

if __name__ == "__main__":
    DEMO.main()
