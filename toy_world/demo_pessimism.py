"""The pessimistic imitator: what it guarantees, what that costs, and under which update rule.

See `toy_world.studies.guarantees`, `posterior_manipulation`, `pessimism` and `lifelong_runs`.
Every table says whose actions update the posterior: *the demonstrator's alone* (the posterior is
frozen while the agent acts), or *every action*. The guarantee is proved for the first rule and
false for the second.
"""

import math
from dataclasses import dataclass
from typing import Final

from theory.errors import InvalidArgumentError
from toy_world.demo import Demo, DemoOptions
from toy_world.worlds.environments import WorldName


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


DEMO: Final = Demo(name="pessimism", options_type=PessimismOptions)

if __name__ == "__main__":
    DEMO.main()
