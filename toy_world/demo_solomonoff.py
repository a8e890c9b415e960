"""What a first deviation after n zeros costs on a universal machine.

See `toy_world.studies.first_deviation` for the mixtures that are asked and what is proved.
"""

from dataclasses import dataclass
from typing import Final

from theory.errors import InvalidArgumentError
from toy_world.demo import Demo, DemoOptions


@dataclass(frozen=True, kw_only=True)
class SolomonoffOptions(DemoOptions):
    """What a first deviation after n zeros costs, by every program of a universal machine."""

    bits: int = 28
    """L: all programs of up to so many bits are run, 20 to 40; each bit more takes twice the
    time (28 bits: a few seconds)."""
    steps: int = 2000
    """T: the steps a program may take, at least 4 n-max."""
    n_max: int = 256
    """The longest run of zeros, 32 to 1024."""
    more_bits: int = 512
    """L': the estimate takes programs of up to so many bits, 32 to 4096."""
    continuations: int = 1
    """How often each program that wants more is continued with coin flips for the estimate."""
    jobs: int = 2
    """Threads, or joblib's worker count."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least, most in (
            ("bits", 20, min(40, self.more_bits)),
            ("n_max", 32, 1024),
            ("steps", 4 * self.n_max, 10**9),
            ("more_bits", 32, 4096),
            ("continuations", 1, 10**6),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                option = "--" + name.replace("_", "-")
                raise InvalidArgumentError(f"{option} must lie in {least}..{most}, got {value}")
        if self.jobs == 0:
            raise InvalidArgumentError("--jobs must not be 0 (negative counts from all cores)")


DEMO: Final = Demo(name="solomonoff", options_type=SolomonoffOptions)

if __name__ == "__main__":
    DEMO.main()
