"""What a budget buys: V*(budget) under every constraint, each point with its certificate.

See `toy_world.studies.frontiers` for the shop in which this is shown, and
`toy_world.studies.single_multiplier` for what a shortcut loses.
"""

from dataclasses import dataclass
from typing import Final

from theory.errors import InvalidArgumentError
from toy_world.demo import Demo, DemoOptions


@dataclass(frozen=True, kw_only=True)
class PlannersOptions(DemoOptions):
    """What a budget buys an optimal agent under every constraint, with certificates."""

    horizon: int = 5
    """Steps in the shop, 2 to 7 (5: seconds; 7: minutes)."""
    problems: int = 20
    """Random problems for each shape on which a single multiplier is tried, 1 to 10000."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least, most in (("horizon", 2, 7), ("problems", 1, 10_000)):
            value = getattr(self, name)
            if not least <= value <= most:
                raise InvalidArgumentError(f"--{name} must lie in {least}..{most}, got {value}")


DEMO: Final = Demo(name="planners", options_type=PlannersOptions)

if __name__ == "__main__":
    DEMO.main()
