"""Proposition 2: the simplest unprecedented event yet to occur stays simple for ever.

See `toy_world.studies.simple_events` for what is computed and what it cannot show.
"""

from dataclasses import dataclass
from typing import Final

from theory.errors import InvalidArgumentError
from toy_world.demo import Demo, DemoOptions


@dataclass(frozen=True, kw_only=True)
class Proposition2Options(DemoOptions):
    """The simplest unprecedented event yet to occur, against time (Proposition 2)."""

    bits: int = 13
    """L: every event of at most that many bits is evaluated on each history."""
    steps: int = 100_000
    """T: steps of each demonstrator's history."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.bits <= 16:
            raise InvalidArgumentError(
                f"--bits must lie in 1..16 (memory grows as 2^bits), got {self.bits}"
            )
        if not 10 <= self.steps <= 10**6:
            raise InvalidArgumentError(f"--steps must lie in 10..10^6, got {self.steps}")


DEMO: Final = Demo(name="proposition2", options_type=Proposition2Options)

if __name__ == "__main__":
    DEMO.main()
