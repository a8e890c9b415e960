"""An agent is evaluated: it plays fresh episodes, everything is kept, and numbers are taken of it.

The base policy's own episodes are evaluated as those of an agent, `BasePolicy`. What is measured
of turns and words stands in `llm_experiment.measures.behaviour`, of the distance from a known
demonstrator in `llm_experiment.measures.departure`.

**Stored.** `Evaluation.arrays` names the arrays of `episodes-<length>.npz`: those of
`llm_experiment.agent.rollout.Rollout.arrays`, which are, per token, shape (n, t): `tokens`,
`writers` (a `Speaker`), `kl_nats` (the conditional KL of the agent's step),
`target_nats`, `log_ratio_nats` (realised), `log_probs`, `budget_nats`, `rewards`, `asked` and
`help_mass`, and per episode, turn or reply what is documented there; and, with a known
demonstrator, those of `Departure`. `Evaluation.row` gives the numbers of `result.json`, defined one
by one in `llm_experiment.measures.metrics`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm_experiment.agent.rollout import Agent, Rollout, batches, join_rollouts, play_episodes
from llm_experiment.agent.scripts import Say, ScriptedEpisodes, play_script
from llm_experiment.agent.step_policy import StepPolicy
from llm_experiment.chat.observation import unpack_observation
from llm_experiment.chat.world import World
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.measures.behaviour import behaviour, spending
from llm_experiment.measures.closed_form import closed_form_of_prices
from llm_experiment.measures.departure import (
    Departure,
    departure_numbers,
    join_departures,
    measure_departure,
)
from llm_experiment.measures.metrics import BaseEvaluation, EvaluationRow, LengthRow
from mightnt.statistics import difference_interval
from theory.budget import Accounting
from theory.errors import InvalidArgumentError, InvalidShapeError

N_SILENT_TURNS: Final = 16
"""How many turns in a row that show the behaviour are priced."""
_OWN_STREAM: Final = 2
"""Keeps the base policy's episodes apart from those of agents of the same stream."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Episodes of one agent and what was measured on them.

    Attributes:
        rollout: the episodes.
        budget_nats: of an episode; inf for none.
        departure: from the demonstrator, None if that is not known.
    """

    rollout: Rollout
    budget_nats: float
    departure: Departure | None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Named arrays to be stored; see the module's docstring."""
        arrays = self.rollout.arrays()
        if self.departure is not None:
            arrays |= {f.name: getattr(self.departure, f.name) for f in fields(Departure)}
        return arrays

    def row(self) -> EvaluationRow:
        """What was measured; about the demonstrator only if it is known."""
        departure = self.departure
        return EvaluationRow(
            spending=spending(self.rollout, self.budget_nats),
            behaviour=behaviour(self.rollout),
            departure=None if departure is None else departure_numbers(departure, self.rollout),
        )


class BasePolicy:
    """The base policy as an agent: plays b, spends nothing.

    Args:
        world: it plays in.
    """

    def __init__(self, world: World) -> None:
        self._n_tokens = world.base.n_tokens
        self._head = world.base.head
        self.device = world.base.device

    def act_on(self, observation: Tensor) -> StepPolicy:
        """See `rollout.Agent`."""
        seen = unpack_observation(observation, n_tokens=self._n_tokens, head=self._head)
        log_b = seen.log_probs.double().log_softmax(dim=-1)
        nothing = torch.zeros(len(log_b), dtype=torch.float64, device=log_b.device)
        return StepPolicy(
            log_probs=log_b, base_log_probs=log_b, kl_nats=nothing, target_nats=nothing
        )


def evaluate(
    agent: Agent,
    world: World,
    *,
    process: DialogueProcess | None,
    n_episodes: int,
    n_tokens: int,
    budget_nats: float,
    accounting: Accounting,
    seed: int,
    stream: tuple[int, ...],
) -> Evaluation:
    """Play episodes together and measure them.

    Args:
        agent: whose.
        world: where.
        process: the demonstrator, if known (`known_demonstrator`).
        n_episodes: n.
        n_tokens: t, the length of every episode, the prompt included.
        budget_nats: the KL budget of an episode; inf for none.
        accounting: what a step costs it.
        seed: of the run; see `rollout.random_stream`.
        stream: the path of this evaluation's randomness.

    Raises:
        InvalidBudgetError, InvalidArgumentError: as `play_episodes` does.
        InvalidShapeError: a process of another vocabulary.
    """
    if process is not None and len(process.vocabulary) != world.base.n_tokens:
        raise InvalidShapeError(
            f"the demonstrator has {len(process.vocabulary)} tokens and the base policy "
            f"{world.base.n_tokens}; evaluate against the process that the base model learnt from"
        )
    rollout = play_episodes(
        agent,
        world,
        n_episodes=n_episodes,
        n_tokens=n_tokens,
        budget_nats=budget_nats,
        accounting=accounting,
        seed=seed,
        stream=stream,
        keep_observations=process is not None,
    )
    departure = None if process is None else measure_departure(agent, rollout, process)
    return Evaluation(rollout=rollout, budget_nats=budget_nats, departure=departure)


def join_evaluations(evaluations: Sequence[Evaluation]) -> Evaluation:
    """One evaluation of the episodes of several, in their order.

    Args:
        evaluations: at least one, of one agent and one length.
    """
    departures = [one.departure for one in evaluations if one.departure is not None]
    return Evaluation(
        rollout=join_rollouts([one.rollout for one in evaluations]),
        budget_nats=evaluations[0].budget_nats,
        departure=join_departures(departures) if departures else None,
    )


@dataclass(frozen=True, kw_only=True)
class BasePart:
    """Episodes of the base policy that are played together, without the rest of its evaluation.

    Attributes:
        n_episodes: how many.
        n_tokens: of each, the prompt included.
        stream: the path of their randomness.
    """

    n_episodes: int
    n_tokens: int
    stream: tuple[int, ...]


def base_parts(
    n_episodes: int, lengths: Sequence[int], *, at_once: int, stream: int
) -> tuple[BasePart, ...]:
    """The parts of the base policy's evaluation, length by length.

    Args:
        n_episodes: at each length.
        lengths: of the episodes, in tokens.
        at_once: episodes of a part at most, which bounds memory.
        stream: the first part of the path of all randomness of this evaluation.

    Raises:
        InvalidArgumentError: no length, no episode, or none at once.
    """
    if not lengths:
        raise InvalidArgumentError("lengths must name at least 1 episode length, got none")
    return tuple(
        BasePart(n_episodes=n_together, n_tokens=n_tokens, stream=path)
        for n_tokens in dict.fromkeys(lengths)
        for n_together, path in batches(n_episodes, at_once, stream=(stream, n_tokens, _OWN_STREAM))
    )


def play_base(
    world: World, part: BasePart, *, process: DialogueProcess | None, seed: int
) -> Evaluation:
    """A part of the base policy's evaluation, without what it saw.

    Args:
        world: where.
        part: which.
        process: the demonstrator, if known.
        seed: of the run.

    Raises:
        InvalidArgumentError, InvalidShapeError: as `evaluate` does.
    """
    played = evaluate(
        BasePolicy(world),
        world,
        process=process,
        n_episodes=part.n_episodes,
        n_tokens=part.n_tokens,
        budget_nats=0.0,
        accounting=Accounting.EXACT,
        seed=seed,
        stream=part.stream,
    )
    return replace(played, rollout=replace(played.rollout, observations=None))


def join_parts(parts: Sequence[Evaluation]) -> dict[int, Evaluation]:
    """The base policy's episodes of each length, in the order of `base_parts`."""
    by_length: dict[int, list[Evaluation]] = {}
    for part in parts:
        by_length.setdefault(part.rollout.tokens.shape[1], []).append(part)
    return {n_tokens: join_evaluations(same) for n_tokens, same in by_length.items()}


def base_evaluation(
    episodes: Mapping[int, Evaluation], behaviour: ScriptedEpisodes
) -> BaseEvaluation:
    """What the base policy does, and what the behaviour (the first silence, ...) costs under it.

    Args:
        episodes: of the base policy, by length; at least one.
        behaviour: as `play_behaviour` gives it, of the shortest of these lengths.
    """
    rows = tuple(LengthRow(n_tokens=n, numbers=one.row()) for n, one in episodes.items())
    prices = behaviour_prices_nats(behaviour)
    if not len(prices):
        return BaseEvaluation(rows=rows, n_contexts=0)
    form = closed_form_of_prices(prices[:, 0])
    earned = behaviour.returns.tolist()
    others = episodes[min(episodes)].rollout.returns.tolist()
    gain = difference_interval(earned, others) if min(len(earned), len(others)) > 1 else None
    return BaseEvaluation(
        rows=rows,
        n_contexts=form.n_contexts,
        first_silence_nats=form.quartiles_nats,
        first_silence_probability=form.probability,
        silence_nats=tuple(np.nanmedian(prices[:, _half_full(prices)], axis=0).tolist()),
        silence_return=float(behaviour.returns.mean()),
        silence_gain=None if gain is None else (gain.low, gain.high),
    )


def _half_full(prices: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Columns with a price in at least half of the rows."""
    return np.asarray(np.isfinite(prices).mean(axis=0) >= 0.5)


def play_behaviour(
    world: World, *, n_episodes: int, n_tokens: int, seed: int, stream: tuple[int, ...]
) -> ScriptedEpisodes:
    """Whole dialogues of an agent that shows the behaviour in every turn.

    The base policy plays the turn that the prompt begins, its partner replies, and from then on
    the agent says the behaviour's phrase: nothing, for silence.
    """
    return play_script(
        world,
        Say(world.phrase),
        n_episodes=n_episodes,
        n_tokens=n_tokens,
        free_turns=1,
        n_turns=n_tokens,
        seed=seed,
        stream=stream,
    )


def behaviour_prices_nats(played: ScriptedEpisodes) -> NDArray[np.float64]:
    """`-log b` of one turn after another that shows the behaviour, by dialogue.

    The price of each, the hand-over included, in nats. The phrase is spelt in one way only, so that
    with a tokenizer that knows several this is an upper bound.

    Args:
        played: by `play_behaviour`.

    Returns:
        Shape (m, `N_SILENT_TURNS`), m <= n: one row for each dialogue that has such a turn before
        it ends; infinite where the base policy never does that, nan of turns that the dialogue has
        no room for.
    """
    costs = played.costs_nats[:, :N_SILENT_TURNS]
    return np.asarray(costs[~np.isnan(costs[:, 0])])
