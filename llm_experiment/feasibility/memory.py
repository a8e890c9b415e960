"""How much memory a run needs on each device, from configurations alone, before anything is loaded.

Parameters are counted on torch's `meta` device, where a model of any size takes no memory, so
that weights, the actor and its optimiser are known to the byte. What depends on how a run goes is
bounded: every episode as long as the longest, every token written by the agent. Workspace is a
number of arrays of known shape (`_ACT_ARRAYS` and `_UPDATE_ARRAYS` were measured, and tests keep
them so). On GPUs an allowance for the driver's context and for fragmentation is added, which was
not measured.

A language model on several devices is divided evenly; each of several processes needs everything.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Final

import psutil
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    DynamicCache,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.cache_utils import DynamicSlidingWindowLayer

from llm_experiment.agent.actor import actor_parameters
from llm_experiment.agent.few_tokens import AT_ONCE, N_LUMPED
from llm_experiment.agent.policy import CRITIC_WIDTH
from llm_experiment.base.hugging_face import N_FEATURE_LAYERS
from llm_experiment.base.loading import (
    NF4_BLOCK,
    compute_dtype,
    find_device,
    find_devices,
    nf4_weights,
    one_line_errors,
    read_configuration,
    reads_through_host,
    release_memory,
)
from llm_experiment.chat.observation import N_SCALARS
from llm_experiment.chat.reward_sources import RewardKind, reward_kind
from llm_experiment.config import AgentConfig, Precision
from llm_experiment.settings import Settings
from llm_experiment.suite import suite_jobs
from mightnt.tables import Cell, Column, Table
from theory.errors import ModelError

GB: Final = 10**9
FLOAT32_BYTES: Final = 4
FLOAT64_BYTES: Final = 8

ADAM_COPIES: Final = 4
"""A parameter, its gradient and Adam's two moments."""
_OPTIMISER_WORKSPACE_COPIES: Final = 1
_BUFFER_COPIES: Final = 3
"""What the agent saw: as it came, joined, and in order."""
_LUMPED_COPIES: Final = 2
"""What an actor of few tokens learns from: some at a time, and joined."""
_LUMPING_ARRAYS: Final = 6
"""Arrays of float64, steps x vocabulary, alive at once while that is made."""
_ACT_ARRAYS: Final = 12
"""Arrays of float64, episodes x vocabulary, alive at once while the agent acts."""
_UPDATE_ARRAYS: Final = 22
"""The same of a micro-batch while it learns; without a budget, which takes three times as many
as with one."""
_RECORDED_NUMBERS: Final = 14
"""Numbers that an evaluation records of a token: `Rollout.arrays` and `Departure`, by token."""
_RECORD_COPIES: Final = 2
"""Batch by batch, and joined."""
_NF4_SCALE_GROUP: Final = 256
_NF4_TABLE_BYTES: Final = 4 * (16 + 256 + 1)
"""The levels of the weights and of their scales, and the scales' mean."""
_GPU_ALLOWANCE_BYTES: Final = 2 * GB
_WORTH_SAYING: Final = 0.95
_N_NAMED: Final = 3
_LOGIT_CHANGES: Final = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""Fields of configurations whose models do more for logits than apply their last layer."""
_CGROUP: Final = Path("/sys/fs/cgroup")


class Phase(Enum):
    """When memory is needed."""

    LOADING = "loading"
    """Only until the language model lies where it is to be."""
    RUNNING = "running"
    """From then on."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Something that takes memory.

    Attributes:
        what: for a person.
        device: where, such as `cpu` or `cuda:0`.
        n_bytes: how much, at most.
        phase: when.
    """

    what: str
    device: str
    n_bytes: int
    phase: Phase = Phase.RUNNING


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """The models of a run without their weights.

    Attributes:
        language_model: its configuration.
        reward_model: its configuration; None if the reward is no model.
    """

    language_model: PreTrainedConfig
    reward_model: PreTrainedConfig | None


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """What memory and time are estimated for.

    Attributes:
        agent: what all agents share.
        n_agents: that are trained.
        n_evaluation_episodes: played together after training.
        evaluation_lengths: their lengths in tokens.
        n_base_episodes: of the base policy's evaluation, `n_evaluation_episodes` at a time.
        n_processes: jobs that are done side by side.
    """

    agent: AgentConfig
    n_agents: int
    n_evaluation_episodes: int
    evaluation_lengths: tuple[int, ...]
    n_base_episodes: int
    n_processes: int = 1

    @classmethod
    def of(cls, settings: Settings, *, n_processes: int) -> "PlannedRun":
        """The run of `settings` on so many processes."""
        suite = settings.agents
        return cls(
            agent=settings.agent,
            n_agents=len(suite_jobs(settings.agent, suite)),
            n_evaluation_episodes=suite.n_evaluation_episodes,
            evaluation_lengths=suite.evaluation_lengths,
            n_base_episodes=suite.n_base_episodes,
            n_processes=n_processes,
        )


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """What a run needs.

    Attributes:
        parts: everything that was counted.
    """

    parts: tuple[Part, ...]

    def needed(self) -> dict[str, int]:
        """Bytes that each device needs: those of its larger phase."""
        devices = dict.fromkeys(part.device for part in self.parts)
        return {device: sum(part.n_bytes for part in self.peak(device)) for device in devices}

    def peak(self, device: str) -> list[Part]:
        """The parts that `device` holds in its larger phase, largest first."""
        own = [part for part in self.parts if part.device == device]
        phases = [[part for part in own if part.phase is phase] for phase in Phase]
        larger = max(phases, key=lambda parts: sum(part.n_bytes for part in parts))
        return sorted(larger, key=lambda part: -part.n_bytes)

    def table(self, free: Mapping[str, int]) -> Table:
        """The parts, largest first, and for each device the sum beside what is `free`, bytes."""
        rows: list[tuple[Cell, ...]] = [
            (part.what, part.device, part.phase.value, part.n_bytes / GB)
            for part in sorted(self.parts, key=lambda part: -part.n_bytes)
        ]
        for device, n_bytes in self.needed().items():
            rows.append(("needed", device, "", n_bytes / GB))
            rows.append(("free", device, "", free[device] / GB))
        return Table(
            title="Memory that the run needs, at most",
            columns=(
                Column(header="memory"),
                Column(header="device"),
                Column(header="when"),
                Column(header="GB", format=",.3f"),
            ),
            rows=tuple(rows),
        )


def read_shapes(language_model: str, reward_model: str) -> Shapes:
    """The shapes of models at local folders or hub ids.

    Args:
        language_model: folder or hub id.
        reward_model: the same, or another name of `--reward`, which weighs nothing.

    Raises:
        ModelError: one of them cannot be read.
    """
    return Shapes(
        language_model=read_configuration("language model", language_model),
        reward_model=(
            read_configuration("reward model", reward_model)
            if reward_kind(reward_model) is RewardKind.MODEL
            else None
        ),
    )


def estimate_memory(run: PlannedRun, shapes: Shapes) -> MemoryEstimate:
    """What agents need while they are trained and evaluated.

    Args:
        run: what is planned.
        shapes: of its models.

    Raises:
        ModelError: a device that is absent, or an architecture that is unknown.
    """
    agent = run.agent
    places = find_devices(agent.world.device)
    base_devices = [str(place) for place in places]
    agent_device = str(find_device(agent.world.agent_device))
    model = empty_model(shapes.language_model, agent.world.dtype)
    text = shapes.language_model.get_text_config(decoder=True)
    episodes = [(agent.n_episodes, stage.n_tokens) for stage in agent.stages]
    episodes += [(run.n_evaluation_episodes, length) for length in run.evaluation_lengths]
    most = max(n for n, _ in episodes)
    cache = max(
        cache_bytes(shapes.language_model, agent.world.dtype, n_episodes=n, n_positions=t)
        for n, t in episodes
    )
    n_tokens, n_features = text.vocab_size, feature_width(text)

    def everywhere() -> Iterator[Part]:
        weights = weight_bytes(model, agent.world.dtype)
        work = 3 * FLOAT32_BYTES * most * n_tokens + expanded_bytes(model, agent.world.dtype)
        work += 2 * _repeats(text) * cache // max(len(DynamicCache(config=text).layers), 1)
        for device in base_devices:
            share = len(base_devices)
            yield Part(what="language model", device=device, n_bytes=-(-weights // share))
            yield Part(what="keys and values", device=device, n_bytes=-(-cache // share))
            yield Part(what="language model's workspace", device=device, n_bytes=work)
        if reads_through_host(places, agent.world.dtype):
            whole = module_bytes(model)
            yield Part(what="weights as read", device="cpu", n_bytes=whole, phase=Phase.LOADING)
        has_head = applies_head(text)
        if has_head:
            head = FLOAT32_BYTES * (n_tokens * int(text.hidden_size))
            for device in {base_devices[0], agent_device}:
                yield Part(what="head in single precision", device=device, n_bytes=head)
        if shapes.reward_model is not None:
            reward = empty_classifier(shapes.reward_model)
            yield Part(what="reward model", device=base_devices[0], n_bytes=module_bytes(reward))
        actor, critic = agent_parameters(
            agent, n_features=n_features, n_tokens=n_tokens, width=int(text.hidden_size)
        )
        yield Part(
            what="actor and critic, gradients, Adam",
            device=agent_device,
            n_bytes=FLOAT32_BYTES * ADAM_COPIES * (actor + critic),
        )
        row = FLOAT32_BYTES * observation_width(
            n_features=n_features,
            n_tokens=n_tokens,
            # What a pessimist leaves out cannot be told from features.
            has_head=has_head and not agent.world.is_pessimistic,
        )
        carried = FLOAT32_BYTES * observation_width(
            n_features=n_features, n_tokens=n_tokens, has_head=False
        )
        few = agent.n_acted(n_tokens) < n_tokens
        n_symbols = agent.n_acted(n_tokens) + N_LUMPED if few else n_tokens
        learnt = carried - FLOAT32_BYTES * (n_tokens - n_symbols) if few else row
        steps = max(agent.n_episodes * stage.n_tokens for stage in agent.stages)
        yield Part(
            what="what the agent saw in a rollout",
            device=agent_device,
            n_bytes=_BUFFER_COPIES * steps * row + (_LUMPED_COPIES * steps * learnt if few else 0),
        )
        yield Part(
            what="an update's workspace, or a step's",
            device=agent_device,
            n_bytes=max(
                FLOAT32_BYTES * _OPTIMISER_WORKSPACE_COPIES * actor,
                act_workspace_bytes(n_episodes=most, n_tokens=n_tokens, row_bytes=carried),
                lumping_workspace_bytes() if few else 0,
                min(agent.ppo.batch_size, steps) * learnt
                + update_workspace_bytes(
                    n_steps=min(agent.ppo.micro_batch_size, steps),
                    n_tokens=n_symbols,
                    row_bytes=learnt,
                ),
            ),
        )
        longest = max(run.evaluation_lengths, default=0)
        yield Part(
            what="what an evaluation records",
            device="cpu",
            n_bytes=_RECORD_COPIES
            * _RECORDED_NUMBERS
            * FLOAT64_BYTES
            * max(run.n_evaluation_episodes, run.n_base_episodes)
            * longest,
        )
        for device in {*base_devices, agent_device} - {"cpu"}:
            yield Part(what="context, fragmentation", device=device, n_bytes=_GPU_ALLOWANCE_BYTES)

    parts = (replace(part, n_bytes=run.n_processes * part.n_bytes) for part in everywhere())
    return MemoryEstimate(parts=tuple(parts))


def check_memory(
    run: PlannedRun, shapes: Shapes, estimate: MemoryEstimate, free: Mapping[str, int]
) -> None:
    """Raise unless every device has what a run needs.

    Args:
        run: what is planned.
        shapes: of its models.
        estimate: what `estimate_memory` says of it.
        free: bytes free on each device.

    Raises:
        ModelError: it does not fit; the message says what would help.
    """
    for device, needed in estimate.needed().items():
        if needed > free[device]:
            largest = estimate.peak(device)[:_N_NAMED]
            names = ", ".join(f"{part.what} {part.n_bytes / GB:.1f} GB" for part in largest)
            raise ModelError(
                f"the run needs up to {needed / GB:.1f} GB on {device}, where "
                f"{free[device] / GB:.1f} GB are free ({names}); what would help: "
                f"{_help(run, shapes, device, needed=needed, free=free[device])}"
            )


def _help(run: PlannedRun, shapes: Shapes, device: str, *, needed: int, free: int) -> str:
    """Changes that would lower what `device` needs, and to what."""
    found = []
    for words, changed in _remedies(run):
        lower = estimate_memory(changed, shapes).needed().get(device, 0)
        if lower < _WORTH_SAYING * needed:
            fits = ", which fits" if lower <= free else ""
            found.append(f"{words} (needs {lower / GB:.1f} GB{fits})")
    more = "a machine with more memory, or GPUs"
    if device != "cpu":
        more = f"more GPUs (--device auto), or --agent-device on another than {device}"
    return "; ".join([*found, more])


def _remedies(run: PlannedRun) -> Iterator[tuple[str, PlannedRun]]:
    """What could be changed, in words, and the run so changed."""
    agent = run.agent
    narrower = {
        Precision.FLOAT32: (Precision.BFLOAT16, Precision.NF4),
        Precision.BFLOAT16: (Precision.NF4,),
        Precision.FLOAT16: (Precision.NF4,),
        Precision.NF4: (),
    }
    for precision in narrower[agent.world.dtype]:
        changed = replace(agent, world=replace(agent.world, dtype=precision))
        yield f"--dtype {precision.value}", replace(run, agent=changed)
    episodes = max(agent.n_episodes // 4, 1)
    steps = max(agent.ppo.micro_batch_size // 4, 1)
    evaluated = min(episodes, run.n_evaluation_episodes)
    changed = replace(agent, n_episodes=episodes, ppo=replace(agent.ppo, micro_batch_size=steps))
    yield (
        f"--n-episodes {episodes} --n-evaluation-episodes {evaluated} --ppo.micro-batch-size "
        f"{steps}",
        replace(run, agent=changed, n_evaluation_episodes=evaluated),
    )
    if run.n_processes > 1:
        yield "--processes 1", replace(run, n_processes=1)


def free_bytes(devices: Iterable[str]) -> dict[str, int]:
    """Memory that each of `devices` has left for this process, in bytes."""
    return {name: _free_on(torch.device(name)) for name in devices}


def _free_on(device: torch.device) -> int:
    if device.type == "cuda":
        release_memory()
        return int(torch.cuda.mem_get_info(device)[0])
    return int(min(psutil.virtual_memory().available, cgroup_bytes(_CGROUP)))


def cgroup_bytes(folder: Path) -> float:
    """Memory left under a container's limit (cgroup v2), in bytes; infinite without one."""
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
    except (OSError, ValueError):  # no such files, or `max`
        return math.inf
    return max(limit - used, 0)


# --------------------------------------------------------------------------- what takes memory


def empty_model(config: PreTrainedConfig, precision: Precision) -> PreTrainedModel:
    """A causal language model whose weights, of the dtype to compute in, take no memory."""
    with one_line_errors("language model", config.model_type), torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call] # untyped
            copy.deepcopy(config),
            dtype=compute_dtype(precision),  # it would note the dtype
        )
    return model


def empty_classifier(config: PreTrainedConfig) -> PreTrainedModel:
    """A sequence classifier whose weights, in single precision, take no memory."""
    with one_line_errors("reward model", config.model_type), torch.device("meta"):
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call] # untyped
    return model


def module_bytes(module: nn.Module) -> int:
    """Bytes of all parameters and buffers; tied ones count once."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def weight_bytes(model: PreTrainedModel, precision: Precision) -> int:
    """Bytes of a language model's weights and buffers once it is loaded in `precision`.

    Args:
        model: in the dtype to compute in, without data.
        precision: of the loaded model.
    """
    total = module_bytes(model)
    if precision is Precision.NF4:
        for module, name in nf4_weights(model):
            weight = getattr(module, name)
            total += nf4_bytes(weight.numel()) - weight.numel() * weight.element_size()
    return total


def nf4_bytes(n_weights: int) -> int:
    """Bytes of an NF4 matrix with double quantisation.

    Half a byte a weight, a byte for each block's scale, and single precision for each group of
    these, beside tables.
    """
    blocks = math.ceil(n_weights / NF4_BLOCK)
    groups = math.ceil(blocks / _NF4_SCALE_GROUP)
    return math.ceil(n_weights / 2) + blocks + FLOAT32_BYTES * groups + _NF4_TABLE_BYTES


def expanded_bytes(model: PreTrainedModel, precision: Precision) -> int:
    """Bytes of NF4 matrices expanded at once: those of the largest module."""
    if precision is not Precision.NF4:
        return 0
    sizes: dict[int, int] = defaultdict(int)
    for module, name in nf4_weights(model):
        weight = getattr(module, name)
        sizes[id(module)] += weight.numel() * weight.element_size()
    return max(sizes.values(), default=0)


def cache_bytes(
    config: PreTrainedConfig, precision: Precision, *, n_episodes: int, n_positions: int
) -> int:
    """Bytes of the keys and values of episodes; a layer with a window keeps that many tokens."""
    text = config.get_text_config(decoder=True)
    itemsize = compute_dtype(precision).itemsize
    n_heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    n_kept = sum(
        min(layer.sliding_window, n_positions)
        if isinstance(layer, DynamicSlidingWindowLayer)
        else n_positions
        for layer in DynamicCache(config=config).layers
    )
    return int(2 * n_episodes * n_kept * n_heads * width * itemsize)


def _repeats(text: PreTrainedConfig) -> int:
    """How many heads share a key: a layer may repeat its keys so often while it runs."""
    n_heads: int = text.num_attention_heads
    return n_heads // (getattr(text, "num_key_value_heads", None) or n_heads)


def feature_width(text: PreTrainedConfig) -> int:
    """Features of a language model: its last hidden states."""
    n_layers: int = min(N_FEATURE_LAYERS, text.num_hidden_layers + 1)
    return n_layers * int(text.hidden_size)


def applies_head(text: PreTrainedConfig) -> bool:
    """Whether log-probabilities are made of features when they are needed, not carried along.

    See `hugging_face.HuggingFaceBase`. What a model does to its logits is tried out when it is
    loaded; here its configuration has to tell.
    """
    changes_logits = any(getattr(text, name, None) for name in _LOGIT_CHANGES)
    return int(text.vocab_size) > feature_width(text) and not changes_logits


def observation_width(*, n_features: int, n_tokens: int, has_head: bool) -> int:
    """Numbers that the agent sees at a step."""
    return n_features + N_SCALARS + (0 if has_head else n_tokens)


def agent_parameters(
    config: AgentConfig, *, n_features: int, n_tokens: int, width: int
) -> tuple[int, int]:
    """Parameters of the actor and of the critic.

    Args:
        config: says which actor.
        n_features: of the language model.
        n_tokens: size of its vocabulary.
        width: of its hidden state.
    """
    inputs = n_features + N_SCALARS
    actor = actor_parameters(
        config.actor,
        n_inputs=inputs,
        n_tokens=config.n_acted(n_tokens),
        rank=config.actor_rank,
        width=width,
    )
    critic = (inputs + 1) * CRITIC_WIDTH + (CRITIC_WIDTH + 1) * CRITIC_WIDTH + CRITIC_WIDTH + 1
    return actor, critic


def act_workspace_bytes(*, n_episodes: int, n_tokens: int, row_bytes: int) -> int:
    """Bytes that a step of the agent in all episodes needs beside what stays."""
    return n_episodes * (_ACT_ARRAYS * FLOAT64_BYTES * n_tokens + 2 * row_bytes)


def lumping_workspace_bytes() -> int:
    """Bytes that making what an actor of few tokens learns from needs beside what stays."""
    return _LUMPING_ARRAYS * FLOAT64_BYTES * AT_ONCE


def update_workspace_bytes(*, n_steps: int, n_tokens: int, row_bytes: int) -> int:
    """Bytes that a forward and backward pass of `n_steps` steps need beside what stays."""
    return n_steps * (_UPDATE_ARRAYS * FLOAT64_BYTES * n_tokens + 2 * row_bytes)
