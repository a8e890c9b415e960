"""Which reading of Theorem 2 (the TVD constraint) holds, and what it is a warning against.

See `toy_world.studies.theorem2` for the claims that the theorem may be taken for, with a proof or
counterexamples each, `toy_world.studies.claim_frequencies` for how often random problems violate
them, and `toy_world.studies.perfect_base` for the warning.
"""

from dataclasses import dataclass
from typing import Final

from theory.errors import InvalidArgumentError
from toy_world.demo import Demo, DemoOptions


@dataclass(frozen=True, kw_only=True)
class Theorem2Options(DemoOptions):
    """Which reading of Theorem 2 holds, and what a TVD constraint allows that KL does not."""

    problems: int = 100
    """Random problems for each shape and reading, 1 to 100000 (100: about 20 seconds)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.problems <= 100_000:
            raise InvalidArgumentError(f"--problems must lie in 1..100000, got {self.problems}")


DEMO: Final = Demo(name="theorem2", options_type=Theorem2Options)

if __name__ == "__main__":
    DEMO.main()
