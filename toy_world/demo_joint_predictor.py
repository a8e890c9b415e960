"""Theorem 1 with a joint predictor: which readings hold, and how large the residual is.

See `toy_world.studies.joint_predictor` for the families and
`toy_world.studies.ordinary_joint_worlds` for ordinary worlds. Also run by
`python -m toy_world.demo_theorem1 --imitator joint`.
"""

from dataclasses import dataclass
from typing import Final

from theory.errors import InvalidArgumentError
from toy_world.demo import Demo, DemoOptions

LEAST_BITS: Final = 20
"""The ordinary world's pair has 11 bits and its switch 9."""


@dataclass(frozen=True, kw_only=True)
class JointPredictorOptions(DemoOptions):
    """Theorem 1 when the imitator predicts observations too: where it fails, and by how much."""

    delta_bits: int = 5
    """Delta: a switched copy is 2^-Delta as heavy as its original, 1 to 12."""
    bits: int = LEAST_BITS
    """L of the ordinary worlds' joint programs, 20 to 22 (22 takes minutes)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.delta_bits <= 12:
            raise InvalidArgumentError(f"--delta-bits must lie in 1..12, got {self.delta_bits}")
        if not LEAST_BITS <= self.bits <= 22:
            raise InvalidArgumentError(
                f"--bits must lie in {LEAST_BITS}..22 ({LEAST_BITS} hold the switched version of "
                f"the trusted pair), got {self.bits}"
            )


DEMO: Final = Demo(name="joint_predictor", options_type=JointPredictorOptions)

if __name__ == "__main__":
    DEMO.main()
