"""Which regulariser resists? Six constraints, one agent, in worlds where something is never done.

See `toy_world.studies.regularisers` for the constraints and how their budgets are matched.
"""

from dataclasses import dataclass
from typing import Final

from theory.errors import InvalidArgumentError
from toy_world.demo import Demo, DemoOptions


@dataclass(frozen=True, kw_only=True)
class RegularisersOptions(DemoOptions):
    """Which regulariser resists an agent that is paid for what the demonstrator never does?

    No constraint, KL, reverse KL, TVD, chi-squared, and KL to the pessimistic imitator.
    """

    bits: int = 20
    """L: the imitators are mixtures of every policy program of at most so many bits, 18 to 24."""
    steps: int = 100
    """How long the demonstrator was watched, 10 to 1000 steps."""
    horizon: int = 2
    """Steps of an episode, 1 to 3 (2: seconds; 3: minutes)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least, most in (("bits", 18, 24), ("steps", 10, 1000), ("horizon", 1, 3)):
            value = getattr(self, name)
            if not least <= value <= most:
                raise InvalidArgumentError(f"--{name} must lie in {least}..{most}, got {value}")


DEMO: Final = Demo(name="regularisers", options_type=RegularisersOptions)

if __name__ == "__main__":
    DEMO.main()
