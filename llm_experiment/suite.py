"""Which agents a run trains and how each is evaluated: a list of jobs, from a configuration.

A *job* is one agent. The jobs of a suite share everything but what sets them apart: the budget,
the seed and, for the comparisons, one more choice (accounting, reward, regulariser or length).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from llm_experiment.config import (
    AgentConfig,
    Fidelity,
    Preset,
    Regulariser,
    Stage,
    at_least,
)
from theory.budget import Accounting
from theory.errors import InvalidArgumentError, InvalidBudgetError

WITHOUT_VETOES: Final = "without vetoes"
"""The variant of the agent of a vetoed run whose base policy has none."""


class Suite(Enum):
    """How many agents."""

    DEFAULT = "default"
    """What the claims of the experiment need."""
    FULL = "full"
    """More seeds, the other regularisers, and agents trained on long episodes."""


@dataclass(frozen=True, kw_only=True)
class SuiteConfig:
    """The agents to train, and how to evaluate them."""

    budgets_nats: tuple[float, ...] = (0.0, 1.0, 3.0, 6.0, 10.0)
    """Budgets of the main agents, in nats. 0 stands for the base policy, which every run evaluates
    and none trains (unless targets are as published: these spend 1e-6 nats a step even then)."""
    n_seeds: int = 3
    """Agents for each budget; their seeds are 0, 1, ..."""
    n_comparison_seeds: int = 1
    """Agents of each kind that the main ones are compared with, which the next six options name;
    their seeds are 0, 1, ..., too."""
    realized_budgets_nats: tuple[float, ...] = (1.0, 3.0)
    """Budgets of agents whose budget is charged with the realised log-ratio."""
    control_shifts: tuple[float, ...] = (-0.5,)
    """Agents whose replies all earn so much more; the largest budget."""
    penalties_per_nat: tuple[float, ...] = ()
    """Agents with the usual per-token penalty instead of a budget, by coefficient."""
    unconstrained: bool = False
    """Also agents without any constraint."""
    without_vetoes: bool = True
    """Of a run with vetoes, also agents without them; the largest budget."""
    long_lengths: tuple[int, ...] = ()
    """Agents trained on episodes of so many tokens; the largest budget."""
    evaluation_lengths: tuple[int, ...] = (256, 512)
    """Episode lengths at which every agent is evaluated, whatever it was trained on."""
    n_evaluation_episodes: int = 128
    """Episodes of an agent's evaluation at each length."""
    n_base_episodes: int = 2048
    """Episodes of the base policy's evaluation at each length, --n-evaluation-episodes at a time.
    They need no training, and what the base policy rarely does is seen in many only."""

    def __post_init__(self) -> None:
        at_least("n_seeds", self.n_seeds, 1)
        at_least("n_comparison_seeds", self.n_comparison_seeds, 1)
        at_least("n_evaluation_episodes", self.n_evaluation_episodes, 1)
        at_least("n_base_episodes", self.n_base_episodes, 1)
        for budget in (*self.budgets_nats, *self.realized_budgets_nats):
            if not budget >= 0:
                raise InvalidBudgetError(f"budgets must be >= 0 nats, got {budget}")
        if not self.budgets_nats:
            raise InvalidArgumentError("budgets_nats must name at least 1 budget, got none")
        for length in (*self.long_lengths, *self.evaluation_lengths):
            at_least("episode lengths", length, 2)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One agent to train and evaluate.

    Attributes:
        name: unlike any other in its suite; also its folder's.
        variant: what the agent is apart from budget and seed, for tables.
        config: everything it depends on.
    """

    name: str
    variant: str
    config: AgentConfig


def suite_jobs(agent: AgentConfig, suite: SuiteConfig) -> tuple[Job, ...]:
    """The jobs of a suite, main agents first, seed by seed.

    An agent that is the base policy whatever it learns (`ConstraintConfig.is_base_policy`) is no
    job: the base policy's own evaluation says all of it.

    Args:
        agent: what all agents share; its budget and seed do not matter.
        suite: what sets them apart.

    Raises:
        InvalidArgumentError: two jobs would be the same.
    """
    agents = suite_agents(agent, suite)
    return tuple(job for job in agents if not job.config.constraint.is_base_policy)


def suite_agents(agent: AgentConfig, suite: SuiteConfig) -> tuple[Job, ...]:
    """`suite_jobs`, and in their places the agents that are the base policy.

    These were trained, too, in runs that were made before they were left out.

    Raises:
        InvalidArgumentError: two would be the same.
    """
    agents = tuple(_agents(agent, suite))
    names = [job.name for job in agents]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidArgumentError(f"a suite must name every agent once, got {twice[0]} twice")
    return agents


def default_suite(preset: Preset, fidelity: Fidelity, suite: Suite, *, quick: bool) -> SuiteConfig:
    """The suite of a preset.

    Args:
        preset: `paper` trains the published budgets and nothing else by default; a packaged model's
            adds two for the curve, one seed each, and evaluates fewer episodes.
        fidelity: with the published constraint there is nothing to compare it with inside a run.
        suite: how much.
        quick: one seed of two budgets in place of anything else; of a packaged model, of one.
    """
    if quick:
        looked = SuiteConfig(
            budgets_nats=(3.0, 10.0),
            n_seeds=1,
            realized_budgets_nats=(),
            control_shifts=(),
            evaluation_lengths=(256,),
            n_base_episodes=1024,
        )
        if preset.is_packaged:
            return replace(
                looked, budgets_nats=(10.0,), n_evaluation_episodes=16, n_base_episodes=32
            )
        return looked
    if preset.is_packaged:
        return SuiteConfig(
            budgets_nats=(0.0, 10.0, 20.0, 3.0, 6.0),
            n_seeds=3 if suite is Suite.FULL else 1,
            realized_budgets_nats=(),
            control_shifts=(-0.5,) if suite is Suite.FULL else (),
            long_lengths=(512,) if suite is Suite.FULL else (),
            n_evaluation_episodes=64,
            n_base_episodes=128,
        )
    full = suite is Suite.FULL
    main = (
        SuiteConfig()
        if preset is Preset.TINY
        else SuiteConfig(budgets_nats=(10.0, 20.0), control_shifts=())
    )
    return replace(
        main,
        n_seeds=5 if full else 3,
        n_comparison_seeds=5 if full and preset is Preset.TINY else 1,
        realized_budgets_nats=(
            main.realized_budgets_nats
            if preset is Preset.TINY and fidelity is Fidelity.OURS
            else ()
        ),
        penalties_per_nat=(0.03, 0.1, 0.3, 1.0) if full else (),
        unconstrained=full,
        long_lengths=(512,) if full and preset is Preset.TINY else (),
    )


def _agents(agent: AgentConfig, suite: SuiteConfig) -> Iterator[Job]:
    accounting = agent.constraint.accounting
    for seed in range(suite.n_seeds):
        for budget in suite.budgets_nats:
            yield _job(accounting.value, f"{accounting.value} budget", agent, budget, seed)
    for seed in range(suite.n_comparison_seeds):
        yield from _comparisons(agent, suite, seed)


def _comparisons(agent: AgentConfig, suite: SuiteConfig, seed: int) -> Iterator[Job]:
    """One agent of each kind that the main ones are compared with."""
    largest = max(suite.budgets_nats)
    realized = _constrained(agent, accounting=Accounting.REALIZED)
    for budget in suite.realized_budgets_nats:
        yield _job("realized", "realized budget", realized, budget, seed)
    for shift in suite.control_shifts:
        shifted = replace(agent, world=replace(agent.world, reward_shift=shift))
        yield _job(f"shift{shift:+g}", f"reward shift {shift:+g}", shifted, largest, seed)
    if suite.without_vetoes and agent.world.vetoes is not None:
        way = agent.world.missing_mass if agent.world.members else None
        plain = replace(agent, world=replace(agent.world, vetoes=None, missing_mass=way))
        yield _job("plain", WITHOUT_VETOES, plain, largest, seed)
    for length in suite.long_lengths:
        stages = tuple(lengthened(stage, length) for stage in agent.stages)
        long = replace(agent, stages=stages)
        yield _job(f"length{length}", f"trained at {length}", long, largest, seed)
    for penalty in suite.penalties_per_nat:
        penalised = _constrained(
            agent, regulariser=Regulariser.TOKEN_PENALTY, penalty_per_nat=penalty
        )
        yield _job(f"penalty{penalty:g}", f"penalty {penalty:g} a nat", penalised, None, seed)
    if suite.unconstrained:
        free = _constrained(agent, regulariser=Regulariser.NONE)
        yield _job("unconstrained", "no constraint", free, None, seed)


def _job(stem: str, variant: str, agent: AgentConfig, budget_nats: float | None, seed: int) -> Job:
    budget = ""
    if budget_nats is not None:
        budget = f"-budget{budget_nats:g}"
        agent = _constrained(agent, budget_nats=budget_nats)
    return Job(name=f"{stem}{budget}-seed{seed}", variant=variant, config=replace(agent, seed=seed))


def _constrained(agent: AgentConfig, **changes: Any) -> AgentConfig:
    return replace(agent, constraint=replace(agent.constraint, **changes))


def lengthened(stage: Stage, n_tokens: int) -> Stage:
    """The stage on longer episodes, with about as many updates."""
    agent_steps = stage.agent_steps * n_tokens // stage.n_tokens
    return replace(stage, agent_steps=agent_steps, n_tokens=n_tokens)
