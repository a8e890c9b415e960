"""The full-scale experiment's parts at a vocabulary of 32,000, on a GPU where there is one.

Four tables. *Positions*: a language model alone, and a rollout with agent, turns, ledger, against
the floor that reading the weights once sets (`llm_experiment.feasibility.wall_clock`). *Step
policy*: seconds of the projection in float64, acting and learning, and what it would move on a GPU,
counted on torch's `meta` device. *Log-probabilities of a stored step*: kept, made again by the
frozen head, or their top part. *Protocol*: the floor of the whole of it on a GPU of 141 GB, by
arithmetic alone.

On a processor the Mixtral is scaled down and in float32, and 64 episodes are bound by arithmetic
rather than by reading; a few episodes come closer to what a GPU does with 64.
"""

import gc
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, MixtralConfig

from llm_experiment.agent.policy import FixedKLPolicy
from llm_experiment.agent.rollout import play_episodes
from llm_experiment.agent.step_policy import StepPolicy, step_policy
from llm_experiment.base.hugging_face import HuggingFaceBase, HuggingFaceSession, OutputHead
from llm_experiment.chat.turns import TurnParser, TurnRules
from llm_experiment.chat.world import World
from llm_experiment.config import Preset, TargetRule, preset_config
from llm_experiment.feasibility.wall_clock import (
    GPU_141_GB,
    floor_seconds,
    protocol_work,
    read_bytes_per_second,
    update_flops_per_agent_step,
    weight_bytes_per_position,
)
from mightnt.progress import track
from theory.budget import Accounting

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ON_GPU = DEVICE.type == "cuda"
DTYPE = torch.bfloat16 if ON_GPU else torch.float32

N_TOKENS = 32_000
N_POSITIONS = 24
PROMPT_TOKENS = 8
N_EPISODES = (4, 64)
REPETITIONS = 3
SEED = 20241006
PUBLISHED_PROMPT_TOKENS = 60
AGENT_SHARE = 0.65
"""What the agent writes of the tokens after the prompt; the issue's 216,000 positions have it."""
TOP_TOKENS = 1024
HEAD_WIDTH = 4096
STORED_STEPS = 64

SCALED_DOWN = MixtralConfig(
    vocab_size=N_TOKENS,
    hidden_size=4096 if ON_GPU else 512,
    intermediate_size=14336 if ON_GPU else 1792,
    num_hidden_layers=8 if ON_GPU else 4,
    num_attention_heads=32 if ON_GPU else 8,
    num_key_value_heads=8 if ON_GPU else 2,
    num_local_experts=8,
    num_experts_per_tok=2,
)


def best_seconds(run: Callable[[], object], repetitions: int = REPETITIONS) -> float:
    """The shortest of several runs: the clock's on a GPU, its work included, else the processor's.

    Other users of a processor disturb its own time less.
    """
    clock = time.perf_counter if ON_GPU else time.process_time
    run()
    best = float("inf")
    for _ in range(repetitions):
        start = clock()
        run()
        if ON_GPU:
            torch.cuda.synchronize()
        best = min(best, clock() - start)
    return best


# ------------------------------------------------------------------------------------- positions


def random_world() -> World:
    """A random Mixtral; tokens are words, but for the few that turns are made of."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = AutoModelForCausalLM.from_config(SCALED_DOWN, dtype=DTYPE)
    model.set_experts_implementation("grouped_mm")
    base = HuggingFaceBase(model.to(DEVICE))
    pieces = ("\n", "Teacher", "Student", ":", *(f" {i}" for i in range(N_TOKENS - 4)))
    ids = {piece: i for i, piece in enumerate(pieces)}
    texts = {"\nTeacher:": (0, 1, 3), "\nStudent:": (0, 2, 3)}
    parser = TurnParser(
        TurnRules(),
        pieces=pieces,
        encode=lambda text: texts[text],
        decode=lambda tokens: "".join(pieces[i] for i in tokens),
    )
    prompt = [ids[piece] for piece in ("Student", ":", " 1", " 2", " 3", "\n", "Teacher", ":")]
    return World(
        base=base,
        parser=parser,
        prompt_tokens=torch.tensor(prompt, device=DEVICE),
        score=lambda replies: np.full(len(replies), 0.5),
    )


def random_agent(world: World) -> FixedKLPolicy:
    """An agent whose proposals are some nats from the base policy."""
    env = world.env(preset_config(Preset.TINY))
    agent = FixedKLPolicy(
        env.observation_space,
        env.action_space,
        lambda _: 1e-3,
        actor_learning_rate=1e-3,
        target_rule=TargetRule.ATTAINABLE,
        head=world.base.head,
    )
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        agent.actor.weight.normal_(std=0.02, generator=generator)
    return agent.to(DEVICE)


def positions_table() -> Table:
    """Tokens a second against the floor."""
    world = random_world()
    agent = random_agent(world)
    rate = read_bytes_per_second(DEVICE)
    model = world.base._model  # type: ignore[attr-defined]  # a HuggingFaceBase
    n_tokens = PROMPT_TOKENS + N_POSITIONS
    weights = sum(p.nbytes for p in model.parameters())
    table = Table(
        title=f"Positions of a Mixtral of {weights / 1e9:.2f} GB ({DTYPE}, {DEVICE}), memory read "
        f"at {rate / 1e9:.0f} GB/s"
    )
    for header in ("episodes", "floor, tokens/s", "model alone", "of floor", "rollout", "of floor"):
        table.add_column(header, justify="right")
    for n in N_EPISODES:
        columns = torch.randint(4, N_TOKENS, (N_POSITIONS, n), device=DEVICE)

        def forward(n: int = n, columns: Tensor = columns) -> None:
            session, _ = world.base.begin(world.prompt_tokens, n_episodes=n, n_positions=n_tokens)
            for tokens in columns:
                session.append(tokens)

        def rollout(n: int = n) -> None:
            play_episodes(
                agent,
                world,
                n_episodes=n,
                n_tokens=n_tokens,
                budget_nats=10.0,
                accounting=Accounting.EXACT,
                seed=SEED,
                stream=(0,),
                keep_observations=True,
            )

        floor = n * rate / weight_bytes_per_position(model, n_episodes=n)
        alone, whole = (n * N_POSITIONS / best_seconds(run) for run in (forward, rollout))
        table.add_row(
            str(n),
            f"{floor:,.0f}",
            f"{alone:,.0f}",
            f"{alone / floor:.0%}",
            f"{whole:,.0f}",
            f"{whole / floor:.0%}",
        )
    return table


# ----------------------------------------------------------------------------------- step policy


class Traffic(TorchDispatchMode):
    """What operations read and write, and how much is alive at once, in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = 0
        self.moved = 0
        self.alive = 0
        self.most_alive = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Count one operation."""
        made = func(*args, **(kwargs or {}))
        if func.is_view:
            return made
        self.kernels += 1
        tensors = [x for x in tree_leaves((args, kwargs, made)) if isinstance(x, Tensor)]
        self.moved += sum(x.nbytes for x in tensors)
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._watch(tensor.untyped_storage())
        return made

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.alive += size
        self.most_alive = max(self.most_alive, self.alive)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.alive -= size


@dataclass(frozen=True, kw_only=True)
class StepInputs:
    """What `step_policy` reads of n steps."""

    base_log_probs: Tensor
    residual: Tensor
    budget_neuron: Tensor
    budget_nats: Tensor

    def decide(self) -> StepPolicy:
        """The step policy."""
        return step_policy(
            self.base_log_probs,
            self.residual,
            self.budget_neuron,
            self.budget_nats,
            rule=TargetRule.ATTAINABLE,
        )

    def learn(self) -> None:
        """The step policy and a loss's gradient with respect to what the actor said."""
        residual = self.residual.detach().requires_grad_()
        neuron = self.budget_neuron.detach().requires_grad_()
        step = replace(self, residual=residual, budget_neuron=neuron).decide()
        loss = step.log_probs[:, 0].sum() + step.entropy_nats().sum() + step.kl_nats.sum()
        loss.backward()


def step_inputs(n: int, device: torch.device) -> StepInputs:
    """Proposals some nats from peaked bases, budgets up to 10 nats."""
    generator = torch.Generator().manual_seed(SEED)

    def normal(*shape: int) -> Tensor:
        if device.type == "meta":
            return torch.empty(*shape, device=device)
        return torch.randn(*shape, generator=generator).to(device)

    return StepInputs(
        base_log_probs=(3 * normal(n, N_TOKENS)).log_softmax(dim=-1),
        residual=normal(n, N_TOKENS),
        budget_neuron=normal(n),
        budget_nats=5 * normal(n).abs(),
    )


def step_policy_table() -> Table:
    """Seconds here, and passes on a GPU."""
    table = Table(
        title=f"Step policy over {N_TOKENS:,} tokens in float64 ({DEVICE}); unfused on a GPU: "
        "operations, traffic, time at "
        f"{GPU_141_GB.bytes_per_second / 1e12:.1f} TB/s, workspace"
    )
    for header in ("rows", "", "seconds here", "operations", "GB moved", "ms", "GB alive"):
        table.add_column(header, justify="right")
    for n, learns in ((64, False), (512, True)):
        inputs = step_inputs(n, DEVICE)
        mode: AbstractContextManager[None] = torch.inference_mode(mode=not learns)
        run = inputs.learn if learns else inputs.decide
        with mode:
            seconds = best_seconds(run, 1)
        empty = step_inputs(n, torch.device("meta"))
        gc.collect()
        with torch.inference_mode(mode=not learns), Traffic() as traffic:
            (empty.learn if learns else empty.decide)()
        table.add_row(
            str(n),
            "learning" if learns else "acting",
            f"{seconds:.2f}",
            str(traffic.kernels),
            f"{traffic.moved / 1e9:.0f}",
            f"{1e3 * traffic.moved / GPU_141_GB.bytes_per_second:.1f}",
            f"{traffic.most_alive / 1e9:.1f}",
        )
    return table


# -------------------------------------------------------------------- stored log-probabilities


def stored_table() -> Table:
    """Bytes, seconds and error of three ways to know a stored step's log-probabilities."""
    generator = torch.Generator().manual_seed(SEED)
    weight = torch.randn(N_TOKENS, HEAD_WIDTH, generator=generator) * (3 / HEAD_WIDTH**0.5)
    head = OutputHead(weight=weight.to(DTYPE).float(), bias=None).to(DEVICE)
    hidden = torch.randn(STORED_STEPS, HEAD_WIDTH, generator=generator)
    hidden = hidden.bfloat16().float().to(DEVICE)
    # Acted on one by one: sums are rounded otherwise than in a batch.
    acted = torch.cat([head(row[None]) for row in hidden])

    def top() -> Tensor:
        kept, index = acted.topk(TOP_TOKENS, dim=-1)
        rest = torch.log1p(-kept.exp().sum(dim=-1, keepdim=True)) - np.log(N_TOKENS - TOP_TOKENS)
        return rest.expand(-1, N_TOKENS).scatter(1, index, kept)

    table = Table(
        title=f"Log-probabilities of {N_TOKENS:,} tokens for a stored step, {STORED_STEPS} steps"
    )
    for header in ("way", "bytes/step", "ms/step", "largest error, nats", "KL, nats"):
        table.add_column(header, justify="right" if header != "way" else "left")
    ways: tuple[tuple[str, int, Callable[[], Tensor]], ...] = (
        ("kept", 4 * N_TOKENS, acted.clone),
        (f"head of {HEAD_WIDTH} (its input is kept anyway)", 0, lambda: head(hidden)),
        (f"top {TOP_TOKENS}, remainder exact", 8 * TOP_TOKENS + 4, top),
    )
    for name, n_bytes, way in ways:
        again = way()
        kl = (acted.double().exp() * (acted.double() - again.double())).sum(dim=-1)
        table.add_row(
            name,
            f"{n_bytes:,}",
            f"{1e3 * best_seconds(way) / STORED_STEPS:.3f}",
            f"{float((again - acted).abs().max()):.1e}",
            f"{float(kl.abs().max()):.1e}",
        )
    return table


# ---------------------------------------------------------------------------------------- protocol


def protocol_table() -> Table:
    """Floors of the published protocol, derived."""
    config = preset_config(Preset.PAPER)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(MixtralConfig(dtype="bfloat16"))
    n_bytes = weight_bytes_per_position(model, n_episodes=config.n_episodes)
    work = protocol_work(config, prompt_tokens=PUBLISHED_PROMPT_TOKENS, agent_share=AGENT_SHARE)
    flops = update_flops_per_agent_step(
        config,
        n_features=3 * model.config.hidden_size,
        n_tokens=model.config.vocab_size,
        width=model.config.hidden_size,
        has_head=True,
    )
    rollouts, updates = floor_seconds(
        work, GPU_141_GB, weight_bytes=n_bytes, update_flops_per_step=flops
    )
    prompt = torch.zeros(1, PUBLISHED_PROMPT_TOKENS, dtype=torch.int64, device="meta")
    session = HuggingFaceSession(model.eval(), head=None, n_positions=config.stages[0].n_tokens)
    session.share(session.read(prompt), config.n_episodes)
    with Traffic() as traffic:
        session.append(prompt[0, :1].expand(config.n_episodes))
    table = Table(title="The published protocol on one GPU of 141 GB: arithmetic, not measured")
    for header in ("quantity", "value"):
        table.add_column(header, justify="right" if header == "value" else "left")
    steps = work.agent_steps / work.rollouts
    for name, value in (
        ("weights read a position", f"{n_bytes / 1e9:.1f} GB"),
        ("operations of a position", f"{traffic.kernels:,}"),
        ("floor of a position", f"{1e3 * n_bytes / GPU_141_GB.bytes_per_second:.1f} ms"),
        ("positions of 64 episodes", f"{work.positions:,}"),
        ("updates, steps each", f"{work.rollouts:,}, {steps:,.0f}"),
        ("floor of the rollouts", f"{rollouts / 3600:.2f} h"),
        ("matrix products of an update", f"{steps * flops / 1e12:.0f} TFLOP"),
        ("floor of the updates, float32", f"{updates / 3600:.2f} h"),
    ):
        table.add_row(name, value)
    return table


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    console = Console(width=120)
    tables = (protocol_table, stored_table, step_policy_table, positions_table)
    for table in track(tables, "scale"):
        console.print(table())


if __name__ == "__main__":
    main()
