"""Learning from demonstrations and from interaction, beside staying near the demonstrator.

See `toy_world.studies.hybrid` and `toy_world.studies.hybrid_doorbell`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from theory.errors import InvalidArgumentError
from toy_world.demo import Demo, DemoOptions


@dataclass(frozen=True, kw_only=True)
class HybridOptions(DemoOptions):
    """Hybrid learning: the same demonstrations, used for learning and for imitation.

    Learners with demonstrations of the best policy, of its opposite and of mixtures of the two, on
    four stages: what they would hand over, and what they lose on the way. Then the doorbell world,
    where imitators within a KL budget have the same demonstrations.
    """

    runs: int = 64
    """Runs over which everything measured is averaged, 2 to 1000."""
    offline: int = 300
    """N_0: episodes of demonstration, 10 to 100000."""
    online: int = 600
    """N_1: episodes of the learner's own, 40 to 100000."""
    scale: float = 0.1
    """Of the learners' uncertainties; 1 is the width that is proved to cover, in (0, 1]."""
    bits: int = 20
    """L: the imitator is the mixture of every policy program of at most so many bits, 12 to 22."""
    steps: int = 200
    """How long the doorbell's demonstrator is watched, 16 to 1000 steps."""
    ratings: Path | None = None
    """A file of MovieLens ratings for the bandit (u.data, ratings.dat or ratings.csv); drawn from
    a fixed seed if left out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least, most in (
            ("runs", 2, 1000),
            ("offline", 10, 100_000),
            ("online", 40, 100_000),
            ("bits", 12, 22),
            ("steps", 16, 1000),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise InvalidArgumentError(f"--{name} must lie in {least}..{most}, got {value}")
        if not 0 < self.scale <= 1:
            raise InvalidArgumentError(f"--scale must lie in (0, 1], got {self.scale}")


DEMO: Final = Demo(name="hybrid", options_type=HybridOptions)

if __name__ == "__main__":
    DEMO.main()
