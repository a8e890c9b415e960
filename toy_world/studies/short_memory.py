"""The programs of short memory: a class of models that costs nothing on long histories.

They look back one step at most and know the time modulo 2 at most. What such a program does for
ever is a finite table, so that merging programs by behaviour is exact on every history (which
Statement.TOP_SET needs: it speaks of one fixed class of models). Prior weights are
`w(p) = 2^-len(p)`, as those of the mixture of all programs.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from theory.bayes_mixture import PolicyStack
from theory.errors import InvalidArgumentError, UnreachableLengthError
from theory.process import History, HistoryTree
from toy_world.programs.language import Language, Policy
from toy_world.programs.semantics import action_probabilities, trace_of
from toy_world.studies.mixtures import Mixture
from toy_world.worlds.demonstrator import Memory, memory_of
from toy_world.worlds.setting import Setting

LONGEST_PERIOD: Final = 2
"""Programs of short memory know the time modulo this."""


@dataclass(frozen=True, kw_only=True)
class ShortMemory:
    """All programs of short memory of at most L bits, merged by behaviour on every history.

    What they do depends on a *state*: 0 before the first step, and after t steps of which the
    last was (a, o), `1 + ((t mod 2) |A| + a) |O| + o`.

    Attributes:
        setting: world and demonstrator.
        limit_bits: L.
        weights: prior weights in units of 2^-L, exact, in order of the shortest program;
            shape (n,).
        programs: the shortest program of each class.
        rows: what each does in each state, exact (dyadic), shape (n, n_states, |A|).
        place_of_tau: which class is the demonstrator's.
    """

    setting: Setting
    limit_bits: int
    weights: NDArray[np.int64]
    programs: tuple[Policy, ...]
    rows: NDArray[np.float64]
    place_of_tau: int

    @property
    def weight_of_tau(self) -> Fraction:
        """`w(mu)`, normalised."""
        return Fraction(int(self.weights[self.place_of_tau]), int(self.weights.sum()))

    @property
    def common_denominator(self) -> int:
        """The least power of 2 that makes all probabilities integers."""
        values = np.unique(self.rows).tolist()
        return math.lcm(*(value.as_integer_ratio()[1] for value in values))

    def state_after(self, t: Any, action: Any, observation: Any) -> Any:
        """The state after t >= 1 steps, the last of them (action, observation)."""
        world = self.setting.world
        parity = t % LONGEST_PERIOD
        return 1 + (parity * world.n_actions + action) * world.n_observations + observation

    def on_tree(self, t: int, state: int, horizon: int) -> PolicyStack:
        """What the models do after t steps in `state`, level j of shape (n, (|A||O|)^j, |A|)."""
        world = self.setting.world
        step = np.arange(world.n_actions * world.n_observations)
        actions, observations = np.divmod(step, world.n_observations)
        levels = [self.rows[:, [state]]]
        for j in range(1, horizon):
            states = self.state_after(t + j, actions, observations)
            levels.append(self.rows[:, np.tile(states, len(step) ** (j - 1))])
        return tuple(levels)

    def mixture(
        self, weights: NDArray[np.float64], *, t: int, state: int, world_state: int, horizon: int
    ) -> Mixture:
        """The mixture with the posterior `weights` after t steps."""
        world = self.setting.world
        models = self.on_tree(t, state, horizon)
        tree = HistoryTree(
            n_actions=world.n_actions, n_observations=world.n_observations, horizon=horizon
        )
        return Mixture(
            weights=weights,
            models=models,
            tau=tuple(level[self.place_of_tau] for level in models),
            nu=tuple(level.astype(np.float64) for level in world.table(tree, state=world_state)),
        )


def short_memory_class(setting: Setting, *, limit_bits: int) -> ShortMemory:
    """All programs of at most L bits that look back a step at most, and two for the time.

    Raises:
        UnreachableLengthError: the demonstrator is longer than L.
        InvalidArgumentError: the demonstrator's memory is longer.
    """
    language, tau = setting.language, setting.tau
    if not _is_short(memory_of(tau)):
        raise InvalidArgumentError(
            f"the demonstrator must look back one step at most, got {language.show(tau)}"
        )
    if language.length(tau) > limit_bits:
        raise UnreachableLengthError(
            f"the demonstrator's program has {language.length(tau)} bits, more than "
            f"{limit_bits}; allow at least as many"
        )
    histories = list(_histories_of_states(language))
    found: dict[bytes, tuple[Policy, NDArray[np.float64]]] = {}
    weights: dict[bytes, int] = {}
    for bits, program in language.policies.up_to(limit_bits):
        if _is_short(memory_of(program)):
            rows = _rows(program, histories, language)
            key = rows.tobytes()
            found.setdefault(key, (program, rows))
            weights[key] = weights.get(key, 0) + 2 ** (limit_bits - bits)
    return ShortMemory(
        setting=setting,
        limit_bits=limit_bits,
        weights=np.array([weights[key] for key in found], dtype=np.int64),
        programs=tuple(program for program, _ in found.values()),
        rows=np.stack([rows for _, rows in found.values()]),
        place_of_tau=list(found).index(_rows(tau, histories, language).tobytes()),
    )


def _is_short(memory: Memory | None) -> bool:
    return memory is not None and memory.n_steps <= 1 and memory.period <= LONGEST_PERIOD


def _histories_of_states(language: Language) -> Iterator[History]:
    """A history that leads to each state, in order."""
    yield ()
    for parity in range(LONGEST_PERIOD):
        for action in range(language.n_actions):
            for observation in range(language.n_observations):
                steps_before = (parity - 1) % LONGEST_PERIOD
                yield (*(0, 0) * steps_before, action, observation)


def _rows(program: Policy, histories: Sequence[History], language: Language) -> NDArray[np.float64]:
    sizes = {"n_actions": language.n_actions, "n_observations": language.n_observations}
    return np.array(
        [action_probabilities(program, trace_of(program, h, **sizes)) for h in histories],
        dtype=np.float64,
    )


def draw_symbols(rows: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A symbol for each row of probabilities; never one of probability 0."""
    bounds = np.cumsum(rows, axis=1)
    # Below the last bound, so that rounding cannot lead beyond the symbols.
    uniform = rng.random(len(rows)) * bounds[:, -1]
    return np.asarray((uniform[:, None] >= bounds).sum(axis=1))
