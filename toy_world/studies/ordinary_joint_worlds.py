"""Joint predictors over programs in ordinary worlds: how far Theorem 1's bound is off.

Here the models of `toy_world.studies.joint_predictor` are programs: pairs of a policy program and
an observation program, and joint switches of both at one event, weighed by their lengths (see
`ordinary_mixture`). Novelty itself can then be news about the actions. The bound, with what is
called the *residual* added, holds; the residual is small where the news says little.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from theory.bayes_mixture import (
    EnvironmentStack,
    PolicyStack,
    joint_predictor,
    observation_mixture,
    observation_ratios,
)
from theory.bounds import NATS_PER_BIT, Theorem1Bound
from theory.constraints import expected_kl_nats, fixed_kl_nats
from theory.errors import InvalidArgumentError, UnreachableLengthError
from theory.process import (
    EnvironmentTable,
    History,
    HistoryTree,
    PolicyTable,
    Table,
    reach_probabilities,
)
from toy_world.programs.language import Event, Language, Policy, Switch
from toy_world.programs.semantics import (
    Trace,
    action_probabilities,
    first_time,
    has_happened,
    latched_in,
    policy_on_tree,
)

LANGUAGE: Final = Language(n_actions=2, n_observations=2)
TAG_BITS: Final = 1
"""The bit that tells a pair from a joint switch."""


@dataclass(frozen=True, kw_only=True)
class OrdinaryCosts:
    """What `switch(E, pi, p)` costs against a joint predictor over programs, after training.

    Attributes:
        n_models: joint programs of positive posterior weight.
        bound: Theorem 1's, Delta and rho as for a policy mixture; rho is the posterior weight
            of the pairs that have a switched version in the class.
        fixed_nats: KL, worst observations chosen in advance, float64.
        expected_nats: KL, observations from the world's own program.
        residual_nats: the largest residual along pi's actions, over all observation sequences:
            `ln prod_j xi(o_j|h_j a_j) / xi~(o||a)`, xi~ of the credited pairs.
    """

    n_models: int
    bound: Theorem1Bound
    fixed_nats: float
    expected_nats: float
    residual_nats: float


@dataclass(frozen=True, kw_only=True)
class OrdinaryWorld:
    """A world and its trusted policy, both short programs.

    Attributes:
        trusted: tau, a policy program.
        observations: a policy program over the swapped alphabets; it predicts o_t from
            `o_0 a_1 o_1 ... a_t`, o_0 = 0.
        event: the novel event E.
        news: the observation that comes with the situation and makes E happen.
        agent: pi, a policy program.
    """

    trusted: Policy
    observations: Policy
    event: Event
    news: int
    agent: Policy


def ordinary_world() -> OrdinaryWorld:
    """The trusted policy always does a0; o1 is the news, o0 all that was seen before."""
    return OrdinaryWorld(
        trusted=LANGUAGE.policies.parse("do(a0)"),
        observations=LANGUAGE.policies.parse("mix(1/2, do(a1), do(a0))"),
        event=LANGUAGE.events.parse("latch(ends(o1))"),
        news=1,
        agent=LANGUAGE.policies.parse("do(a1)"),
    )


def ordinary_mixture(
    world: OrdinaryWorld,
    *,
    n_training_steps: int,
    bits: int,
    horizon: int,
    rng: np.random.Generator,
) -> OrdinaryCosts:
    """Joint programs up to `bits` bits, trained on `world`, then met by the novel event.

    A joint program is a pair (policy, observation program), one tag bit and both codes, or a
    joint switch `(E; pair'; pair)`, which acts *and* observes as the second pair until E and as
    the first from then on: novelty itself can then be news about the actions. Two actions, two
    observations.

    Args:
        world: the world.
        n_training_steps: k, steps of the trusted policy before the last one brings the news.
        bits: L, at least the length of the world's own pair.
        horizon: steps of the constrained agent.
        rng: draws the trusted policy's actions and the world's observations.
    """
    history = _training_history(world, n_training_steps, rng)
    tree = HistoryTree(n_actions=2, n_observations=2, horizon=horizon, root=history)
    models = _joint_models(tree, bits=bits)
    if not models.lengths.size:
        raise UnreachableLengthError(
            f"no joint program of at most {bits} bits gives the history a positive probability; "
            "allow more bits"
        )
    delta_bits = LANGUAGE.policies.length(
        Switch(event=world.event, then=world.agent, until=world.trusted)
    ) - LANGUAGE.policies.length(world.trusted)
    weights = np.exp(models.log_weights - models.log_weights.max())
    credited = models.is_pair & (models.lengths + delta_bits <= bits)
    if not credited.any():
        raise UnreachableLengthError(
            f"no pair of at most {bits - delta_bits} bits survives the history, so that none has "
            f"a switched version of at most {bits} bits; allow more bits"
        )
    base, own = joint_predictor(weights, models.policies, models.environments)
    xi_tilde = observation_mixture(
        weights[credited], tuple(level[credited] for level in models.environments)
    )
    agent = tuple(level.astype(np.float64) for level in policy_on_tree(world.agent, tree))
    world_observations = tuple(_observer_levels(world.observations, tree))
    ratios = observation_ratios(own, xi_tilde)[-1]
    taken = reach_probabilities(agent, _uniform(agent))[-1] > 0
    return OrdinaryCosts(
        n_models=int(models.lengths.size),
        bound=Theorem1Bound(
            delta_bits=delta_bits, log_rho=float(np.log(weights[credited].sum() / weights.sum()))
        ),
        fixed_nats=float(fixed_kl_nats(agent, base)),
        expected_nats=float(expected_kl_nats(agent, base, world_observations)),
        residual_nats=float(np.log(ratios[taken].max())),
    )


@dataclass(frozen=True, kw_only=True)
class _JointModels:
    """All joint programs that the history leaves alive."""

    lengths: NDArray[np.int64]
    is_pair: NDArray[np.bool_]
    log_weights: NDArray[np.float64]
    policies: PolicyStack
    environments: EnvironmentStack


@dataclass(frozen=True, kw_only=True)
class _Traced:
    """Programs of one kind on the history and the tree.

    Attributes:
        lengths: bits, shape (n,).
        log_probs: of each of the history's K symbols that they predict, shape (n, K).
        levels: predictions on the tree, level t of shape (n, n_histories, ...).
    """

    lengths: NDArray[np.int64]
    log_probs: NDArray[np.float64]
    levels: tuple[Table, ...]


def _training_history(world: OrdinaryWorld, n_steps: int, rng: np.random.Generator) -> History:
    """A history of tau in the world: k steps, none of them the news, then the news."""
    act = Trace(n_actions=2, n_observations=2, latched=latched_in(world.trusted))
    observe = Trace(n_actions=2, n_observations=2, latched=latched_in(world.observations))
    observation = 0
    for step in range(n_steps + 1):
        action = _draw(action_probabilities(world.trusted, act), rng)
        observe.advance(observation, action)
        news = step == n_steps
        observation = world.news if news else 1 - world.news
        if action_probabilities(world.observations, observe)[observation] == 0:
            raise InvalidArgumentError(
                f"the world never shows observation {observation} at step {step}; its program "
                "must leave both observations possible"
            )
        act.advance(action, observation)
    return tuple(
        symbol for pair in zip(act.actions, act.observations, strict=True) for symbol in pair
    )


def _draw(probabilities: Sequence[Fraction], rng: np.random.Generator) -> int:
    return int(rng.random() >= probabilities[0])


def _joint_models(tree: HistoryTree, *, bits: int) -> _JointModels:
    shortest = next(LANGUAGE.policies.up_to(bits), (bits,))[0]
    programs = list(LANGUAGE.policies.up_to(bits - TAG_BITS - shortest))
    policies = _traced(programs, tree, _policy_symbols, _policy_levels)
    observers = _traced(programs, tree, _observer_symbols, _observer_levels)
    pairs = _pairs(policies, observers, limit=bits - TAG_BITS)
    switches = [
        _switches(length, event, policies, observers, tree, limit=bits - TAG_BITS - length)
        for length, event in LANGUAGE.events.up_to(bits - TAG_BITS - 4 * shortest)
    ]
    parts = [pairs, *switches]
    alive = [np.isfinite(part.log_weights) for part in parts]
    return _JointModels(
        lengths=_concatenated([p.lengths for p in parts], alive),
        is_pair=_concatenated([p.is_pair for p in parts], alive),
        log_weights=_concatenated([p.log_weights for p in parts], alive),
        policies=_concatenated_levels([p.policies for p in parts], alive),
        environments=_concatenated_levels([p.environments for p in parts], alive),
    )


def _pairs(policies: _Traced, observers: _Traced, *, limit: int) -> _JointModels:
    i, j = np.nonzero(policies.lengths[:, None] + observers.lengths <= limit)
    lengths = TAG_BITS + policies.lengths[i] + observers.lengths[j]
    log_likelihoods = policies.log_probs.sum(axis=1)[i] + observers.log_probs.sum(axis=1)[j]
    return _JointModels(
        lengths=lengths,
        is_pair=np.ones(len(i), dtype=np.bool_),
        log_weights=log_likelihoods - lengths * NATS_PER_BIT,
        policies=tuple(level[i] for level in policies.levels),
        environments=tuple(level[j] for level in observers.levels),
    )


def _switches(
    event_bits: int,
    event: Event,
    policies: _Traced,
    observers: _Traced,
    tree: HistoryTree,
    *,
    limit: int,
) -> _JointModels:
    """`(event; i', j'; i, j)` for all pairs of pairs that fit into `limit` bits together."""
    steps = zip(tree.root[::2], tree.root[1::2], strict=True)
    trace = Trace(n_actions=2, n_observations=2, latched=latched_in(event))
    time = first_time(event, steps, trace=trace)
    before, after = slice(0, time), slice(len(tree.root) if time is None else time, None)
    # Pairs are long before they are combined, so the long ones are dropped first.
    pair_lengths = policies.lengths[:, None] + observers.lengths
    i, j = np.nonzero(pair_lengths <= limit - pair_lengths.min())
    length = pair_lengths[i, j]
    log_before, log_after = (
        policies.log_probs[:, part].sum(axis=1)[i] + observers.log_probs[:, part].sum(axis=1)[j]
        for part in (before, after)
    )
    can_be_first, can_be_then = (np.flatnonzero(np.isfinite(x)) for x in (log_before, log_after))
    rows, columns = np.nonzero(length[can_be_first, None] + length[can_be_then] <= limit)
    first, then = can_be_first[rows], can_be_then[columns]
    lengths = TAG_BITS + event_bits + length[first] + length[then]
    happened = _event_levels(event, tree)
    return _JointModels(
        lengths=lengths,
        is_pair=np.zeros(len(first), dtype=np.bool_),
        log_weights=log_before[first] + log_after[then] - lengths * NATS_PER_BIT,
        policies=tuple(
            np.where(on[:, None], level[i[then]], level[i[first]])
            for on, level in zip(happened, policies.levels, strict=True)
        ),
        environments=tuple(
            np.where(on[:, None, None], level[j[then]], level[j[first]])
            for on, level in zip(happened, observers.levels, strict=True)
        ),
    )


def _traced(
    programs: Sequence[tuple[int, Policy]],
    tree: HistoryTree,
    symbols: Callable[[Policy, History], list[Fraction]],
    levels: Callable[[Policy, HistoryTree], list[Table]],
) -> _Traced:
    """Programs with their lengths, on the tree's root and on the tree."""
    with np.errstate(divide="ignore"):
        log_probs = np.log(np.array([symbols(p, tree.root) for _, p in programs], dtype=float))
    tables = [levels(p, tree) for _, p in programs]
    return _Traced(
        lengths=np.array([length for length, _ in programs]),
        log_probs=log_probs,
        levels=tuple(
            np.stack([table[t] for table in tables]).astype(np.float64) for t in range(tree.horizon)
        ),
    )


def _policy_symbols(policy: Policy, history: History) -> list[Fraction]:
    """The probabilities that `policy` gave to the history's actions."""
    trace = Trace(n_actions=2, n_observations=2, latched=latched_in(policy))
    probabilities = []
    for action, observation in zip(history[::2], history[1::2], strict=True):
        probabilities.append(action_probabilities(policy, trace)[action])
        trace.advance(action, observation)
    return probabilities


def _observer_symbols(observer: Policy, history: History) -> list[Fraction]:
    """The probabilities that `observer` gave to the history's observations."""
    trace = Trace(n_actions=2, n_observations=2, latched=latched_in(observer))
    probabilities, last = [], 0
    for action, observation in zip(history[::2], history[1::2], strict=True):
        trace.advance(last, action)
        probabilities.append(action_probabilities(observer, trace)[observation])
        last = observation
    return probabilities


def _policy_levels(policy: Policy, tree: HistoryTree) -> list[Table]:
    return list(policy_on_tree(policy, tree))


def _observer_levels(observer: Policy, tree: HistoryTree) -> list[Table]:
    """`observer` as an environment table on the tree."""
    root = Trace(n_actions=2, n_observations=2, latched=latched_in(observer))
    last = 0
    for action, observation in zip(tree.root[::2], tree.root[1::2], strict=True):
        root.advance(last, action)
        last = observation

    def predicts(continuation: History) -> Sequence[Fraction]:
        trace, before = root.copy(), last
        for place, symbol in enumerate(continuation):
            if place % 2:
                before = symbol
            else:
                trace.advance(before, symbol)
        return action_probabilities(observer, trace)

    return [
        np.array(
            [[predicts((*h, a)) for a in range(2)] for h in tree.continuations(t)], dtype=float
        )
        for t in range(tree.horizon)
    ]


def _event_levels(event: Event, tree: HistoryTree) -> list[NDArray[np.bool_]]:
    """Whether `event` has happened, at every history of the tree with an action to come."""
    root = Trace(n_actions=2, n_observations=2, latched=latched_in(event)).extend(tree.root)
    return [
        np.array([has_happened(event, root.copy().extend(h)) for h in tree.continuations(t)])
        for t in range(tree.horizon)
    ]


def _uniform(pi: PolicyTable) -> EnvironmentTable:
    return tuple(np.full((*level.shape, 2), 0.5) for level in pi)


def _concatenated(parts: Sequence[Any], alive: Sequence[NDArray[np.bool_]]) -> Any:
    return np.concatenate([part[keep] for part, keep in zip(parts, alive, strict=True)])


def _concatenated_levels(
    parts: Sequence[tuple[Table, ...]], alive: Sequence[NDArray[np.bool_]]
) -> tuple[Table, ...]:
    return tuple(_concatenated(level, alive) for level in zip(*parts, strict=True))
