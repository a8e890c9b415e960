"""KL has no triangle inequality: near an imitator of the demonstrator, infinitely far from it.

See `toy_world.studies.no_triangle` for the witness, the policies and the census.
"""

from dataclasses import dataclass
from typing import Final

from theory.errors import InvalidArgumentError
from toy_world.demo import Demo, DemoOptions


@dataclass(frozen=True, kw_only=True)
class Proposition1Options(DemoOptions):
    """How near the imitator, how far from the demonstrator: KL has no triangle inequality.

    An exact witness for any epsilon, and a census: every short program in turn as demonstrator.
    """

    bits: int = 24
    """L: the imitator is the mixture of every policy program of at most so many bits, 14 to 26."""
    census_bits: int = 18
    """The same in the census, 16 to 22."""
    demonstrator_bits: int = 10
    """In the census every program of at most so many bits is the demonstrator once, 2 to 14;
    and every one of at most 16 that rules no action out."""
    steps: int = 1000
    """The longest demonstration by the worlds' own demonstrators, 10 to 1000000 steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least, most in (
            ("bits", 14, 26),
            ("census_bits", 16, 22),
            ("demonstrator_bits", 2, 14),
            ("steps", 10, 10**6),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                option = "--" + name.replace("_", "-")
                raise InvalidArgumentError(f"{option} must lie in {least}..{most}, got {value}")


DEMO: Final = Demo(name="proposition1", options_type=Proposition1Options)

if __name__ == "__main__":
    DEMO.main()
