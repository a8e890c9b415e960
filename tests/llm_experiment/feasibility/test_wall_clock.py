import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, MixtralConfig

from llm_experiment.agent.actor import make_actor
from llm_experiment.chat.observation import N_SCALARS
from llm_experiment.config import ActorForm, Preset, Stage, preset_config
from llm_experiment.feasibility.wall_clock import (
    GPU_141_GB,
    Machine,
    floor_seconds,
    protocol_work,
    read_bytes_per_second,
    update_flops_per_agent_step,
    weight_bytes_per_position,
)
from tests.llm_experiment.fakes.tiny_hf import tiny_model
from theory.errors import InvalidArgumentError

AGENT_SHARE = 0.65


@pytest.fixture(scope="module")
def mixtral_8x7b():
    """The published architecture, whose defaults are transformers' own, without any data."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(MixtralConfig(dtype="bfloat16"))


def test_a_stage_is_played_in_whole_rollouts():
    config = preset_config(Preset.PAPER)
    stages = (Stage(agent_steps=1000, n_tokens=30), Stage(agent_steps=1, n_tokens=50))
    work = protocol_work(
        replace(config, stages=stages, n_episodes=8), prompt_tokens=10, agent_share=0.5
    )
    # 8 episodes of 20 tokens, half of them the agent's: 80 steps; then 160 of one rollout.
    assert work.rollouts == 13 + 1
    assert work.positions == 13 * 20 + 40
    assert work.agent_steps == 13 * 80 + 160
    assert work.tokens == 8 * work.positions
    seconds = work.seconds(seconds_per_position=2.0, update_seconds_per_agent_step=0.5)
    assert seconds == 2 * work.positions + 0.5 * work.agent_steps


def test_the_published_protocol_takes_some_216_000_positions_of_64_episodes():
    work = protocol_work(preset_config(Preset.PAPER), prompt_tokens=60, agent_share=AGENT_SHARE)
    assert work.positions == pytest.approx(9e6 / (64 * AGENT_SHARE), rel=0.005)
    assert work.positions == pytest.approx(216_000, rel=0.01)


def test_reading_mixtral_8x7b_in_bfloat16_takes_22_ms_and_the_protocol_1_3_hours(mixtral_8x7b):
    config = preset_config(Preset.PAPER)
    n_bytes = weight_bytes_per_position(mixtral_8x7b, n_episodes=config.n_episodes)
    per_position = n_bytes / GPU_141_GB.bytes_per_second
    assert per_position == pytest.approx(0.022, rel=0.03)
    work = protocol_work(config, prompt_tokens=60, agent_share=AGENT_SHARE)
    flops = update_flops_per_agent_step(
        config, n_features=3 * 4096, n_tokens=32_000, width=4096, has_head=True
    )
    rollouts, updates = floor_seconds(
        work, GPU_141_GB, weight_bytes=n_bytes, update_flops_per_step=flops
    )
    assert rollouts / 3600 == pytest.approx(1.3, rel=0.02)
    # Forward and weight gradient of 393 million weights, 9 million steps, 8 epochs.
    actor = 2 * 2 * 393e6 * 9e6 * 8
    head = 2 * 4096 * 32_000 * 9e6 * 8
    assert updates == pytest.approx((actor + head) / 67e12, rel=0.01)


def test_weights_of_the_published_architecture_by_hand(mixtral_8x7b):
    attention = 2 * 4096 * 4096 + 2 * 4096 * 1024
    experts = 8 * 3 * 4096 * 14336
    layer = attention + experts + 8 * 4096 + 2 * 4096
    read = 32 * layer + 4096 + 32_000 * 4096 + 64 * 4096  # final norm, head, rows of embedding
    assert weight_bytes_per_position(mixtral_8x7b, n_episodes=64) == pytest.approx(2 * read)


def test_few_tokens_pass_some_experts_by(rng):
    model = tiny_model("mixtral")
    n, experts, chosen = 2, 4, 2
    hit = [
        len(np.unique([rng.permutation(experts)[:chosen] for _ in range(n)])) for _ in range(20_000)
    ]
    expert_bytes = sum(4 * p.numel() for p in model.parameters() if p.ndim == 3)
    others = sum(4 * p.numel() for p in model.parameters() if p.ndim < 3)
    embedding = model.get_input_embeddings().weight
    others -= 4 * (embedding.numel() - n * embedding.shape[1])
    expected = others + expert_bytes * np.mean(hit) / experts
    assert weight_bytes_per_position(model, n_episodes=n) == pytest.approx(expected, rel=0.01)


def test_a_tied_embedding_is_the_head_and_read_whole():
    model = tiny_model("llama, tied").bfloat16()
    parameters = sum(p.numel() for p in model.parameters())
    assert weight_bytes_per_position(model, n_episodes=3) == 2 * parameters


def counted_flops(form: ActorForm, n_inputs: int, n_tokens: int, *, rank: int, width: int) -> int:
    """What torch counts in an actor's pass forward and back, for one step of several."""
    n_steps = 5
    head = SimpleNamespace(weight=torch.randn(n_tokens, width))
    actor = make_actor(form, n_inputs=n_inputs, n_tokens=n_tokens, rank=rank, head=head)
    with FlopCounterMode(display=False) as counter:
        actor(torch.randn(n_steps, n_inputs)).sum().backward()
    return counter.get_total_flops() // n_steps


@pytest.mark.parametrize("form", ActorForm)
def test_an_updates_products_are_those_that_torch_counts(form):
    config = replace(preset_config(Preset.TINY), actor=form, actor_rank=3)
    sizes = {"n_features": 6, "n_tokens": 10, "width": 4}
    actor = counted_flops(form, 6 + N_SCALARS, 10, rank=3, width=4)
    n_epochs = config.ppo.n_epochs
    kept = update_flops_per_agent_step(config, has_head=False, **sizes)
    assert kept == n_epochs * actor
    made = update_flops_per_agent_step(config, has_head=True, **sizes)
    assert made - kept == n_epochs * 2 * 4 * 10


def test_an_actor_of_few_tokens_has_shorter_products_and_one_head():
    config = replace(preset_config(Preset.TINY), actor_tokens=5)
    sizes = {"n_features": 6, "n_tokens": 10, "width": 4}
    actor = counted_flops(ActorForm.LINEAR, 6 + N_SCALARS, 5, rank=3, width=4)
    kept = update_flops_per_agent_step(config, has_head=False, **sizes)
    assert kept == config.ppo.n_epochs * actor
    assert update_flops_per_agent_step(config, has_head=True, **sizes) - kept == 2 * 4 * 10


def test_twice_the_bandwidth_halves_the_rollouts_floor():
    work = protocol_work(preset_config(Preset.TINY), prompt_tokens=20, agent_share=0.5)
    slow = Machine(bytes_per_second=1e9, flops_per_second=1e12)
    fast = replace(slow, bytes_per_second=2e9)
    costs = {"weight_bytes": 1e9, "update_flops_per_step": 1e6}
    (a, update), (b, same) = (floor_seconds(work, m, **costs) for m in (slow, fast))
    assert a == 2 * b == work.positions
    assert update == same == work.agent_steps * 1e6 / 1e12


def test_a_machine_reads_at_some_rate():
    rate = read_bytes_per_second("cpu", n_bytes=2**22, repetitions=2)
    assert 0 < rate < math.inf


def test_impossible_protocols_are_refused():
    config = preset_config(Preset.TINY)
    for share in (0.0, 1.5, math.nan):
        with pytest.raises(InvalidArgumentError, match=r"agent_share must lie in \(0, 1\]"):
            protocol_work(config, prompt_tokens=20, agent_share=share)
    with pytest.raises(InvalidArgumentError, match=r"must be < the 256 tokens .* got 256"):
        protocol_work(config, prompt_tokens=256, agent_share=0.5)
