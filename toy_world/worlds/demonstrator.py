"""Demonstrators: trusted policies tau, programs of the language that never take action `BAD`.

Each world has its own. Demonstrations are drawn step by step; a program that looks back a bounded
number of steps (and at the time modulo some period) cannot tell a history from its last steps, so
what it does there is worked out once and looked up afterwards.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, product
from math import lcm
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from theory.errors import InvalidArgumentError
from theory.process import History
from toy_world.programs.language import (
    And,
    CopyAction,
    CopyObservation,
    Cycle,
    Did,
    Do,
    Ends,
    If,
    Language,
    Mix,
    Not,
    Or,
    Policy,
    Program,
)
from toy_world.programs.semantics import Trace, action_probabilities, latched_in, trace_of
from toy_world.worlds.environments import World, WorldName

_TEXTS: Final[Mapping[WorldName, str]] = MappingProxyType(
    {
        # Answers every bell: a1 after o1, a0 after silence.
        WorldName.DOORBELL: "copy_observation",
        # Taps along, half the time.
        WorldName.METRONOME: "mix(1/2, copy_observation, do(a0))",
        # Calls one or the other by the toss of a coin.
        WorldName.ECHO: "mix(1/2, do(a0), do(a1))",
        # Looks after two posts in turn.
        WorldName.ALARM: "cycle(a0 a1)",
    }
)


def trusted_policy(name: WorldName, language: Language) -> Policy:
    """The demonstrator of a world."""
    policy: Policy = language.policies.parse(_TEXTS[name])
    return policy


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What a program needs to know of the past.

    Attributes:
        n_steps: how many steps it looks back at most.
        period: it knows the time modulo this, and no more of it.
    """

    n_steps: int = 0
    period: int = 1


def memory_of(program: Program) -> Memory | None:  # noqa: PLR0911 - one case a constructor
    """The bounded memory that suffices for a program, or None if it may need all of the past."""
    match program:
        case Do():
            return Memory()
        case Cycle(word):
            return Memory(period=len(word))
        case CopyObservation() | CopyAction() | Did():
            return Memory(n_steps=1)
        case Ends(suffix):
            return Memory(n_steps=(len(suffix) + 1) // 2)
        case Not(part):
            return memory_of(part)
        case And(left, right) | Or(left, right) | Mix(_, left, right):
            return _joint(map(memory_of, (left, right)))
        case If(condition, then, otherwise):
            return _joint(map(memory_of, (condition, then, otherwise)))
        case _:
            return None


def _joint(memories: Iterable[Memory | None]) -> Memory | None:
    n_steps, period = 0, 1
    for memory in memories:
        if memory is None:
            return None
        n_steps, period = max(n_steps, memory.n_steps), lcm(period, memory.period)
    return Memory(n_steps=n_steps, period=period)


def sufficient_history(policy: Policy, history: History) -> History:
    """The shortest end of `history` that `policy` cannot tell from all of it."""
    memory = memory_of(policy)
    if memory is None:
        return history
    surplus = max(len(history) // 2 - memory.n_steps, 0)
    return history[2 * memory.period * (surplus // memory.period) :]


def likeliest_steps(
    policy: Policy, history: History, observations: Sequence[int], *, language: Language
) -> History:
    """Steps after `history` with given observations and the action that `policy` likes best.

    The first of these, if it likes several alike.
    """
    sizes = {"n_actions": language.n_actions, "n_observations": language.n_observations}
    trace = trace_of(policy, sufficient_history(policy, history), **sizes)
    steps: list[int] = []
    for observation in observations:
        probabilities = action_probabilities(policy, trace)
        action = probabilities.index(max(probabilities))
        trace.advance(action, observation)
        steps += [action, observation]
    return tuple(steps)


def demonstrate(
    world: World, policy: Policy, n_steps: int, *, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw a history: actions from `policy`, observations from `world`.

    Args:
        world: the observation process, from its first state.
        policy: the demonstrator.
        n_steps: how many steps, at least 0.
        rng: source of randomness; one draw a step.

    Returns:
        a_1 ... a_T and o_1 ... o_T, shape (n_steps,) each.
    """
    if n_steps < 0:
        raise InvalidArgumentError(f"n_steps must be >= 0, got {n_steps}")
    draw = _with_full_memory if memory_of(policy) is None else _with_bounded_memory
    return draw(world, policy, n_steps, rng)


_Law = tuple[list[float], list[tuple[int, int]]]
"""Cumulated probabilities of the possible steps (action, observation), and these steps."""


def _law(world: World, state: int, probabilities: tuple[Fraction, ...]) -> _Law:
    steps, masses = [], []
    for action, observation in product(range(world.n_actions), range(world.n_observations)):
        mass = probabilities[action] * world.emission[state][action][observation]
        if mass:
            steps.append((action, observation))
            masses.append(mass)
    # The last bound is never looked at, so that rounding cannot lead beyond the steps.
    return [float(bound) for bound in accumulate(masses)][:-1], steps


def _with_bounded_memory(
    world: World, policy: Policy, n_steps: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    sizes = {"n_actions": world.n_actions, "n_observations": world.n_observations}
    places: dict[tuple[int, History], int] = {}
    laws: list[_Law] = []
    successors: list[list[int]] = []
    known: list[tuple[int, History]] = []

    def place_of(state: int, recent: History) -> int:
        recent = sufficient_history(policy, recent)
        if (state, recent) not in places:
            places[state, recent] = len(laws)
            known.append((state, recent))
            trace = trace_of(policy, recent, **sizes)
            laws.append(_law(world, state, action_probabilities(policy, trace)))
            successors.append([-1] * len(laws[-1][1]))
        return places[state, recent]

    drawn = []
    place = place_of(0, ())
    for uniform in rng.random(n_steps).tolist():
        bounds, steps = laws[place]
        index = bisect_right(bounds, uniform)
        step = steps[index]
        drawn.append(step)
        if successors[place][index] < 0:
            state, recent = known[place]
            later = world.successor[state][step[0]][step[1]]
            successors[place][index] = place_of(later, recent + step)
        place = successors[place][index]
    actions, observations = np.array(drawn, dtype=np.int64).reshape(-1, 2).T
    return actions, observations


def _with_full_memory(
    world: World, policy: Policy, n_steps: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    trace = Trace(
        n_actions=world.n_actions,
        n_observations=world.n_observations,
        latched=latched_in(policy),
    )
    state = 0
    for uniform in rng.random(n_steps).tolist():
        bounds, steps = _law(world, state, action_probabilities(policy, trace))
        action, observation = steps[bisect_right(bounds, uniform)]
        trace.advance(action, observation)
        state = world.successor[state][action][observation]
    return np.array(trace.actions, dtype=np.int64), np.array(trace.observations, dtype=np.int64)
