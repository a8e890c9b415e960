"""Little constraint in novel situations: what deviating from an enumerated imitator costs.

The imitator is the policy mixture over every program of at most L bits; see
`toy_world.studies.theorem1` for the situations and the bound. All KL are in nats and for a
posterior that every action goes on updating (with that, Theorem 1 telescopes).
"""

from dataclasses import dataclass, fields
from enum import Enum, unique
from typing import Any, Final

from mightnt.clusters import Cluster
from theory.errors import InvalidArgumentError
from toy_world import demo_joint_predictor
from toy_world.demo import Demo, DemoOptions, DemoResult
from toy_world.demo_joint_predictor import JointPredictorOptions
from toy_world.worlds.environments import WorldName

_RANGES: Final = (("bits", 2, 34), ("steps", 100, 10**6), ("horizon", 1, 5))


@unique
class Imitator(Enum):
    """What the imitator's models predict."""

    POLICY = "policy"
    JOINT = "joint"


@dataclass(frozen=True, kw_only=True)
class Theorem1Options(DemoOptions):
    """What deviating costs in familiar and in novel situations, by every policy up to L bits."""

    imitator: Imitator = Imitator.POLICY
    """policy: a mixture of policies; joint: runs toy_world.demo_joint_predictor with its defaults
    instead, so that of the options below none may be given."""
    bits: int = 26
    """L: the imitator is the mixture of every policy program of at most so many bits, up to 34. It
    has to hold the demonstrator's switched version, which takes 17 bits with the defaults of the
    other options; where more are needed, the error says how many. Two bits more take about three
    times the time and memory (30: minutes, 3 GiB)."""
    world: WorldName = WorldName.DOORBELL
    """The world, with its demonstrator; `toy_world/worlds/environments.py` describes each."""
    steps: int = 100_000
    """The longest demonstration, 100 to 1000000 steps."""
    horizon: int = 3
    """How many steps the agent acts, 1 to 5."""
    jobs: int | None = None
    """How many threads enumerate; as many as there are processors if left out."""
    cluster: str | None = None
    """Enumerate there, on all processors, in place of threads here; the result is the same. A
    running Ray or Dask cluster: `ray`, `ray:HOST:PORT` or `dask:HOST:PORT`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least, most in _RANGES:
            value = getattr(self, name)
            if not least <= value <= most:
                raise InvalidArgumentError(f"--{name} must lie in {least}..{most}, got {value}")
        if self.jobs is not None and self.jobs < 1:
            raise InvalidArgumentError(f"--jobs must be >= 1, got {self.jobs}")
        if self.cluster is not None:
            Cluster.parse(self.cluster)
        if self.imitator is Imitator.JOINT:
            self._check_joint()

    def _check_joint(self) -> None:
        shared = {f.name for f in fields(DemoOptions)} | {"imitator"}
        own = [f for f in fields(self) if f.name not in shared]
        given = [f"--{f.name}" for f in own if getattr(self, f.name) != f.default]
        if given:
            raise InvalidArgumentError(
                f"--imitator joint has other worlds and programs and takes no {', '.join(given)}; "
                "leave that out, or see `python -m toy_world.demo_joint_predictor --help`"
            )


class _Theorem1(Demo[Theorem1Options]):
    """The demo; with a joint imitator it is another one."""

    def run(self, options: Theorem1Options) -> DemoResult[Any, Any]:
        if options.imitator is Imitator.JOINT:
            return demo_joint_predictor.DEMO.run(
                JointPredictorOptions(out=options.out, seed=options.seed, json=options.json)
            )
        return super().run(options)


DEMO: Final = _Theorem1(name="theorem1", options_type=Theorem1Options)

if __name__ == "__main__":
    DEMO.main()
