"""Event vetoes in small worlds: what they allow, what they ask for, and what they leave.

See `toy_world.studies.vetoes`.
"""

from dataclasses import dataclass
from typing import Final

from theory.errors import InvalidArgumentError
from toy_world.demo import Demo, DemoOptions
from toy_world.worlds.environments import WorldName


@dataclass(frozen=True, kw_only=True)
class VetoesOptions(DemoOptions):
    """Event vetoes: imitators that rule out what was never seen, beside the pessimistic one.

    Every event "where this holds, the next action is x" of up to n bits is weighed against what a
    Bayesian imitator expected of it. An agent that is paid for what the demonstrator never does
    plans against what is left.
    """

    world: WorldName = WorldName.DOORBELL
    """The world that is shown in detail; all four stand in the table of agents."""
    bits: int = 20
    """L: the imitator is the mixture of every policy program of at most so many bits, 12 to 22."""
    event_bits: int = 12
    """n: the vocabulary is every event of at most so many bits, 8 to 14."""
    steps: int = 128
    """How long demonstrators are watched, 16 to 256 steps."""
    runs: int = 10
    """Demonstrations over which help and false vetoes are averaged, 1 to 200."""
    blur: float = 0.1
    """The share of the uniform law in the blurred imitator, in (0, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least, most in (
            ("bits", 12, 22),
            ("event_bits", 8, 14),
            ("steps", 16, 256),
            ("runs", 1, 200),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                option = "--" + name.replace("_", "-")
                raise InvalidArgumentError(f"{option} must lie in {least}..{most}, got {value}")
        if not 0 < self.blur < 1:
            raise InvalidArgumentError(f"--blur must lie in (0, 1), got {self.blur}")


DEMO: Final = Demo(name="vetoes", options_type=VetoesOptions)

if __name__ == "__main__":
    DEMO.main()
