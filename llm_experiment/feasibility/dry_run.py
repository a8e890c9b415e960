"""A dry run: what a run would need and how long it would take, found out in minutes.

It estimates memory for the whole protocol and refuses what will not fit; makes or loads the models
in the precision and on the devices of the configuration; trains for a few updates on episodes that
are cut short, checkpoints and evaluates; and times the parts of which a run consists:

    a position of every stage's episodes, at the middle of an episode, with the agent acting in
        all of them: a little more than the average position takes;
    what a rollout takes besides (reading the starting transcript, finding turns);
    learning from a step of the agent, in all epochs together;
    scoring a reply; writing a checkpoint.

The wall-clock of the whole protocol follows from what there is to do (`wall_clock.protocol_work`),
which depends on how much of an episode the agent writes. The projection is an interval: its low
end has the largest share of `AGENT_SHARES` and the fastest of the repeated timings, its high end
the smallest and the slowest. Nothing that a dry run prints says anything about agents.
"""

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from rich.console import Console
from rich.progress import Progress
from stable_baselines3.common.callbacks import BaseCallback

from llm_experiment.agent.ppo import LockstepPPO
from llm_experiment.agent.rollout import play_episodes
from llm_experiment.base.hugging_face import HuggingFaceBase
from llm_experiment.base.loading import find_devices, load_tokenizer
from llm_experiment.base.shipped import model_names
from llm_experiment.chat.reward import load_reward
from llm_experiment.chat.world import Models, World, check_world, load_world, make_world
from llm_experiment.config import AgentConfig, Stage, WorldConfig
from llm_experiment.feasibility.memory import (
    MemoryEstimate,
    PlannedRun,
    Shapes,
    check_memory,
    estimate_memory,
    free_bytes,
    read_shapes,
)
from llm_experiment.feasibility.random_models import (
    REWARD_MODEL,
    random_language_model,
    random_shapes,
    save_random_models,
    save_random_reward_model,
)
from llm_experiment.feasibility.sizes import RandomSize
from llm_experiment.feasibility.wall_clock import ProtocolWork, protocol_work
from llm_experiment.measures.evaluation import evaluate
from llm_experiment.records.folder import exclusive
from mightnt.progress import progress_bar
from mightnt.results import write_json
from mightnt.tables import Cell, Column, Table, print_table
from theory.errors import InvalidArgumentError, ModelError

LABEL: Final = "DRY RUN"
RESULT_FILE: Final = "dry_run.json"
MODELS: Final = "models"
AGENT_SHARES: Final = (0.4, 0.65, 0.9)
"""Shares of an episode's tokens that the agent may write: least, likely and most. With the likely
one, the published 9 million steps are 216,000 positions of 64 episodes."""
TOKENS_PER_REPLY: Final = 16
"""Tokens of an episode for each reply of the partner: two short turns."""
N_UPDATES: Final = 3
"""The first is not timed: on a GPU it compiles."""
N_LEARNT_POSITIONS: Final = 2
"""Positions that an episode has beyond the starting transcript where an update learns from it."""
N_POSITIONS: Final = 6
"""Positions that are timed, in the middle of an episode."""
N_WARM_POSITIONS: Final = 2
N_REPETITIONS: Final = 3
N_REPLIES: Final = 256
N_EVALUATED: Final = 4
_SECONDS_AN_HOUR: Final = 3600


@dataclass(frozen=True, kw_only=True)
class Range:
    """Repeated timings of one thing, in seconds.

    Attributes:
        least: the fastest.
        most: the slowest.
    """

    least: float
    most: float

    @property
    def middle(self) -> float:
        """Half-way between the two."""
        return (self.least + self.most) / 2

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Range":
        """The range of some timings."""
        return cls(least=min(seconds), most=max(seconds))


@dataclass(frozen=True, kw_only=True)
class Timings:
    """What the parts of a run take, in seconds.

    Attributes:
        position: of each episode length in tokens, one position of all episodes.
        rollout: what a rollout takes besides its positions.
        learnt_step: one step of the agent, in all epochs of an update.
        reply: scoring one reply.
        checkpoint: writing one.
    """

    position: dict[int, Range]
    rollout: Range
    learnt_step: Range
    reply: Range
    checkpoint: Range


@dataclass(frozen=True, kw_only=True)
class Projection:
    """The wall-clock of the whole protocol for one agent, in hours.

    Attributes:
        shares: of an episode's tokens that the agent writes: least, likely, most.
        low: with the most and the fastest timings.
        likely: with the likely share and timings between the two.
        high: with the least and the slowest timings.
        stages: the likely hours of each stage.
        updates: the hours of `likely` that are updates.
    """

    shares: tuple[float, float, float]
    low: float
    likely: float
    high: float
    stages: tuple[float, ...]
    updates: float


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What a dry run found out.

    Attributes:
        label: that it is one, and of what.
        machine: where.
        memory: of the whole protocol.
        needed_bytes: by device.
        free_bytes: by device, before anything was loaded.
        fits: whether the whole protocol does.
        n_prompt_tokens: of the starting transcript.
        timings: what was measured.
        projection: what follows.
        assumptions: on which, in words.
        n_agents: of the protocol.
    """

    label: str
    machine: str
    memory: MemoryEstimate
    needed_bytes: dict[str, int]
    free_bytes: dict[str, int]
    fits: bool
    n_prompt_tokens: int
    timings: Timings
    projection: Projection
    assumptions: tuple[str, ...]
    n_agents: int


def dry_run(run: PlannedRun, *, size: RandomSize | None, out: Path, console: Console) -> DryRun:
    """Do everything that a run does, for minutes.

    Args:
        run: what is planned.
        size: of random models in place of the configured ones; None for those.
        out: folder; gets `dry_run.json`, and random models that are small enough.
        console: progress goes there.

    Raises:
        ModelError: a model cannot be loaded, a device is absent, or memory is too small.
        ResultsError: the folder cannot be written.
    """
    label = f"{LABEL}, {'the configured models' if size is None else f'{size.value} random models'}"
    console.print(f"{label}: only memory and times mean anything", highlight=False, soft_wrap=True)
    agent = replace(run.agent, world=on_this_machine(run.agent.world, console))
    run = replace(run, agent=agent)
    if size is None:
        check_world(agent.world, lengths=[stage.n_tokens for stage in agent.stages])
    shapes = read_shapes(*model_names(agent.world)) if size is None else random_shapes(size)
    memory = estimate_memory(run, shapes)
    free = free_bytes(memory.needed())
    print_table(memory.table(free), console)
    fits = _say_whether_it_fits(run, shapes, memory, free, console)
    cut_short = replace(run, agent=_shortened(agent), evaluation_lengths=())
    check_memory(cut_short, shapes, estimate_memory(cut_short, shapes), free)
    with exclusive(out), progress_bar() as bar:
        trial = _Trial(agent, shapes, size, out, bar)
        timings, n_prompt_tokens = trial.run()
        result = DryRun(
            label=label,
            machine=_machine(agent.world),
            memory=memory,
            needed_bytes=memory.needed(),
            free_bytes=free,
            fits=fits,
            n_prompt_tokens=n_prompt_tokens,
            timings=timings,
            projection=project(agent, timings, n_prompt_tokens=n_prompt_tokens),
            assumptions=_assumptions(agent),
            n_agents=run.n_agents,
        )
        write_json(out / RESULT_FILE, result)
    return result


def on_this_machine(world: WorldConfig, console: Console) -> WorldConfig:
    """`world` on the processor, in place of GPUs that this machine does not have."""
    if torch.cuda.is_available() or {world.device, world.agent_device} == {"cpu"}:
        return world
    console.print(
        f"no GPU here: device cpu in place of {world.device} and {world.agent_device}",
        highlight=False,
        soft_wrap=True,
    )
    return replace(world, device="cpu", agent_device="cpu")


def _say_whether_it_fits(
    run: PlannedRun,
    shapes: Shapes,
    memory: MemoryEstimate,
    free: dict[str, int],
    console: Console,
) -> bool:
    try:
        check_memory(run, shapes, memory, free)
    except ModelError as error:
        console.print(
            f"the whole protocol would be refused here: {error}", highlight=False, soft_wrap=True
        )
        return False
    console.print("the whole protocol fits", highlight=False, soft_wrap=True)
    return True


def _shortened(agent: AgentConfig) -> AgentConfig:
    """The configuration, with one stage as long as the longest episode that is timed."""
    longest = max(stage.n_tokens for stage in agent.stages)
    stage = Stage(agent_steps=1, n_tokens=longest // 2 + N_WARM_POSITIONS + N_POSITIONS)
    return replace(agent, stages=(stage,))


class _Trial:
    """The part of a dry run that has models."""

    def __init__(
        self, agent: AgentConfig, shapes: Shapes, size: RandomSize | None, out: Path, bar: Progress
    ) -> None:
        self._agent = agent
        self._shapes = shapes
        self._size = size
        self._out = out
        self._bar = bar
        lengths = {stage.n_tokens for stage in self._agent.stages}
        self._lengths = sorted(lengths)
        n_steps = 1 + N_UPDATES + 1 + N_REPETITIONS * len(lengths) + 2
        self._task = bar.add_task(LABEL, total=n_steps)
        self._started = time.perf_counter()

    def run(self) -> tuple[Timings, int]:
        """The timings, and the tokens of the starting transcript."""
        self._say("models")
        world = self._world()
        n_prompt_tokens = len(world.prompt_tokens)
        if n_prompt_tokens >= min(self._lengths) // 2:
            raise InvalidArgumentError(
                f"a dry run times the middle of episodes, so the prompt must have fewer than "
                f"{min(self._lengths) // 2} tokens, got {n_prompt_tokens}; shorten the prompt"
            )
        learnt_step, agent = self._train(world)
        checkpoint = self._checkpoint(agent)
        position, rollout = {}, []
        for length in self._lengths:
            position[length], besides = self._positions(agent, world, length)
            rollout += besides
        reply = self._score(world)
        self._evaluate(agent, world)
        timings = Timings(
            position=position,
            rollout=Range.of(rollout),
            learnt_step=learnt_step,
            reply=reply,
            checkpoint=checkpoint,
        )
        return timings, n_prompt_tokens

    def _say(self, what: str) -> None:
        self._bar.update(self._task, description=f"{LABEL}: {what}", advance=1)
        seconds = time.perf_counter() - self._started
        self._bar.console.print(f"{LABEL}: {seconds:6.1f} s  {what}", highlight=False)

    def _world(self) -> World:
        config, folder = self._agent.world, self._out / MODELS
        if self._size is None:
            return load_world(config)
        if self._size is not RandomSize.MIXTRAL_8X7B:
            names = save_random_models(self._shapes, folder, seed=self._agent.seed)
            language_model, reward_model = map(str, names)
            return load_world(replace(config, base_model=language_model, reward_model=reward_model))
        # Too large to be written first.
        devices = find_devices(config.device)
        base = HuggingFaceBase(
            random_language_model(self._shapes, devices, config.dtype, seed=self._agent.seed)
        )
        save_random_reward_model(self._shapes, folder / REWARD_MODEL, seed=self._agent.seed)
        models = Models(
            base=base,
            tokenizer=load_tokenizer(str(folder / REWARD_MODEL)),  # the same one
            score=load_reward(str(folder / REWARD_MODEL), device=base.device),
        )
        return make_world(config, models)

    def _train(self, world: World) -> tuple[Range, LockstepPPO]:
        n_tokens = len(world.prompt_tokens) + N_LEARNT_POSITIONS
        # The agent cannot write more than all tokens, so an update more would be too many.
        steps = (N_UPDATES - 1) * self._agent.n_episodes * N_LEARNT_POSITIONS + 1
        config = replace(
            self._agent, stages=(Stage(agent_steps=steps, n_tokens=n_tokens, ramp_fraction=0.0),)
        )
        agent = LockstepPPO(world, config)
        clock = _UpdateClock(lambda: self._say("learnt"))
        agent.finish(clock)
        return Range.of(clock.seconds_per_step[1:]), agent

    def _checkpoint(self, agent: LockstepPPO) -> Range:
        self._say("checkpoint")
        path = self._out / f"{LABEL.lower().replace(' ', '_')}_agent.safetensors"
        seconds = _timed(lambda: agent.save(path))
        path.unlink()
        return Range.of([seconds])

    def _positions(
        self, agent: LockstepPPO, world: World, length: int
    ) -> tuple[Range, list[float]]:
        """Seconds of a position in the middle of an episode, and of a rollout besides."""
        n_read = length // 2
        copies = -(-n_read // len(world.prompt_tokens))
        # Ends as the prompt does, so that it leaves the turn to the agent.
        prompt = world.prompt_tokens.repeat(copies)[-n_read:]
        middle = replace(world, prompt_tokens=prompt)
        _play(agent, middle, N_WARM_POSITIONS, stream=0)
        short: list[float] = []
        long: list[float] = []
        for repetition in range(N_REPETITIONS):
            self._say(f"positions at {length}")
            for n, seconds in ((N_WARM_POSITIONS, short), (N_WARM_POSITIONS + N_POSITIONS, long)):
                seconds.append(_timed(partial(_play, agent, middle, n, stream=repetition)))
        # What a machine is busy with besides can only add to a timing: the fastest is the best.
        positions = Range.of([max(s - min(short), 0.0) / N_POSITIONS for s in long])
        besides = [max(s - N_WARM_POSITIONS * positions.least, 0.0) for s in short]
        return positions, besides

    def _score(self, world: World) -> Range:
        self._say("replies")
        # No two the same, since equal ones are scored once.
        replies = [f"I don't understand what is number {i}." for i in range(N_REPLIES)]
        world.reward(replies[:1])
        seconds = [_timed(lambda: world.reward(replies)) for _ in range(N_REPETITIONS)]
        return Range.of([s / N_REPLIES for s in seconds])

    def _evaluate(self, agent: LockstepPPO, world: World) -> None:
        self._say("evaluation")
        evaluate(
            agent.policy,
            world,
            process=None,
            n_episodes=N_EVALUATED,
            n_tokens=len(world.prompt_tokens) + N_LEARNT_POSITIONS,
            budget_nats=self._agent.constraint.episode_budget_nats,
            accounting=self._agent.constraint.accounting,
            seed=self._agent.seed,
            stream=(N_UPDATES + 1,),
        )


class _UpdateClock(BaseCallback):
    """What each update takes for each step that it learns from."""

    model: LockstepPPO

    def __init__(self, on_update: Callable[[], None]) -> None:
        super().__init__()
        self._on_update = on_update
        self._started: float | None = None
        self._steps_before = 0
        self.seconds_per_step: list[float] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self._stop()

    def _on_rollout_end(self) -> None:
        self._started = time.perf_counter()

    def _on_training_end(self) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._started is None:
            return
        seconds = time.perf_counter() - self._started
        steps = self.model.num_timesteps - self._steps_before
        self.seconds_per_step.append(seconds / steps)
        self._steps_before = self.model.num_timesteps
        self._started = None
        self._on_update()


def _play(agent: LockstepPPO, world: World, n_positions: int, *, stream: int) -> None:
    """A rollout of so many positions, kept as training keeps it."""
    config = agent.config
    play_episodes(
        agent.policy,
        world,
        n_episodes=config.n_episodes,
        n_tokens=len(world.prompt_tokens) + n_positions,
        budget_nats=config.constraint.episode_budget_nats,
        accounting=config.constraint.accounting,
        seed=config.seed,
        stream=(N_UPDATES, stream),
        keep_observations=True,
    )


def _timed(work: Callable[[], Any]) -> float:
    """Seconds of `work`, which waits for its device before it returns."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def project(agent: AgentConfig, timings: Timings, *, n_prompt_tokens: int) -> Projection:
    """The wall-clock of the whole protocol for one agent.

    Args:
        agent: the protocol.
        timings: what its parts take.
        n_prompt_tokens: of the starting transcript.
    """

    def hours(share: float, pick: Callable[[Range], float]) -> list[tuple[float, float]]:
        """Of each stage, the whole and its updates."""
        found = []
        for stage in agent.stages:
            work = protocol_work(
                replace(agent, stages=(stage,)), prompt_tokens=n_prompt_tokens, agent_share=share
            )
            seconds = work.seconds(
                seconds_per_position=pick(timings.position[stage.n_tokens]),
                update_seconds_per_agent_step=pick(timings.learnt_step),
            )
            seconds += _besides(work, agent, timings, pick)
            updates = work.agent_steps * pick(timings.learnt_step)
            found.append((seconds / _SECONDS_AN_HOUR, updates / _SECONDS_AN_HOUR))
        return found

    least, likely, most = AGENT_SHARES
    middle = hours(likely, lambda timing: timing.middle)
    return Projection(
        shares=AGENT_SHARES,
        low=sum(whole for whole, _ in hours(most, lambda timing: timing.least)),
        likely=sum(whole for whole, _ in middle),
        high=sum(whole for whole, _ in hours(least, lambda timing: timing.most)),
        stages=tuple(whole for whole, _ in middle),
        updates=sum(updates for _, updates in middle),
    )


def _besides(
    work: ProtocolWork, agent: AgentConfig, timings: Timings, pick: Callable[[Range], float]
) -> float:
    """Seconds of a run that are neither positions nor updates."""
    replies = work.tokens / TOKENS_PER_REPLY
    checkpoints = work.rollouts / agent.checkpoint_every
    return (
        work.rollouts * pick(timings.rollout)
        + replies * pick(timings.reply)
        + checkpoints * pick(timings.checkpoint)
    )


def _assumptions(agent: AgentConfig) -> tuple[str, ...]:
    least, likely, most = AGENT_SHARES
    return (
        f"the agent writes {least:.0%} (high) to {most:.0%} (low) of an episode's tokens, likely "
        f"{likely:.0%}; each reply and the turn before it have {TOKENS_PER_REPLY} tokens",
        f"every position takes what one in the middle of an episode does, the agent acting in all "
        f"{agent.n_episodes} episodes",
        f"an update takes as long for each step as one of {agent.n_episodes * N_LEARNT_POSITIONS} "
        "steps or fewer, which has more optimiser steps for each",
        f"the range is that of {N_REPETITIONS} timings ({N_UPDATES - 1} updates, 1 checkpoint); "
        "the machine stays as busy as it was",
        "evaluation and loading are left out",
    )


def _machine(world: WorldConfig) -> str:
    devices = find_devices(world.device)
    names = [
        torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
        for device in devices
    ]
    return f"{', '.join(names)}; {torch.get_num_threads()} threads of {os.cpu_count()} processors"


def to_table(result: DryRun) -> Table:
    """The timings and the projection, for a person."""
    timings, projection, n = result.timings, result.projection, result.n_agents
    rows: list[tuple[Cell, ...]] = []

    def add(what: str, timing: Range, unit: str = "s", scale: float = 1.0) -> None:
        rows.append((what, unit, timing.least * scale, timing.most * scale))

    for length, timing in timings.position.items():
        add(f"a position at {length} tokens", timing, "ms", 1000)
    add("a rollout besides", timings.rollout)
    add("learning from a step", timings.learnt_step, "ms", 1000)
    add("scoring a reply", timings.reply, "ms", 1000)
    add("a checkpoint", timings.checkpoint)
    rows.append(("one agent, all stages", "h", projection.low, projection.high))
    rows.append(("one agent, likely", "h", projection.likely, projection.likely))
    rows.append(("of it updates", "h", projection.updates, projection.updates))
    for number, hours in enumerate(projection.stages, start=1):
        rows.append((f"stage {number}, likely", "h", hours, hours))
    together = f"all {n} agents, one after the other"
    rows.append((together, "h", n * projection.low, n * projection.high))
    columns = (
        Column(header="what"),
        Column(header="unit"),
        Column(header="least", format=",.3g"),
        Column(header="most", format=",.3g"),
    )
    return Table(title=result.label, columns=columns, rows=tuple(rows), notes=result.assumptions)
