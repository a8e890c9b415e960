"""What a run is said to need is what it takes."""

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import profile
from transformers import (
    AutoModelForCausalLM,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    MixtralConfig,
)

from llm_experiment.agent.few_tokens import AT_ONCE, learnable
from llm_experiment.agent.ppo import LockstepPPO
from llm_experiment.agent.step_policy import step_policy
from llm_experiment.base.hugging_face import HuggingFaceBase, HuggingFaceSession
from llm_experiment.base.loading import compute_dtype, settle
from llm_experiment.base.shipped import language_model_folder, reward_model_folder
from llm_experiment.config import ActorForm, Fidelity, Precision, Preset, TargetRule, preset_config
from llm_experiment.feasibility.memory import (
    FLOAT32_BYTES,
    GB,
    MemoryEstimate,
    Part,
    Phase,
    PlannedRun,
    Shapes,
    act_workspace_bytes,
    agent_parameters,
    applies_head,
    cache_bytes,
    cgroup_bytes,
    check_memory,
    empty_classifier,
    empty_model,
    estimate_memory,
    feature_width,
    free_bytes,
    lumping_workspace_bytes,
    module_bytes,
    observation_width,
    read_shapes,
    update_workspace_bytes,
    weight_bytes,
)
from llm_experiment.measures.evaluation import BasePolicy
from llm_experiment.settings import Settings
from llm_experiment.suite import Suite
from tests.llm_experiment.fakes.small_world import small_config, small_world
from tests.llm_experiment.fakes.tiny_hf import FAMILIES, tiny_model
from tests.llm_experiment.measures.measured_world import PROCESS, evaluated, process_world
from theory.errors import ModelError

CPU = torch.device("cpu")
MIXTRAL = MixtralConfig()  # the defaults are Mixtral-8x7B's sizes
SMALL_REWARD = DistilBertConfig(vocab_size=50, dim=16, hidden_dim=32, n_heads=2, n_layers=1)


def tensors_in(*values: Any) -> Iterator[Tensor]:
    """Every tensor that can be reached from `values`, once."""
    seen: dict[int, Any] = {}  # holds them, so that no other object gets the same id
    ahead = list(values)
    while ahead:
        value = ahead.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        match value:
            case Tensor():
                yield value
            case dict():
                ahead += value.values()
            case list() | tuple():
                ahead += value
            case _ if hasattr(value, "__dict__") and not isinstance(value, type):
                ahead.append(vars(value))


def real_bytes(value: Any, *, without: Any = None) -> int:
    """Bytes of all storages that can be reached from `value` and not from `without`."""
    own, others = (
        {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors_in(v)}
        for v in (value, without)
    )
    return sum(size for at, size in own.items() if at not in others)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", Precision)
def test_weights_take_what_was_counted_without_any(family, precision):
    empty = empty_model(FAMILIES[family], precision)
    assert {p.device.type for p in empty.parameters()} == {"meta"}
    model = settle(tiny_model(family).to(compute_dtype(precision)), (CPU,), precision)
    counted = weight_bytes(empty, precision)
    stored = [*model.parameters(), *model.buffers()]
    if precision is Precision.NF4:
        scales = [m.quant_state for m in model.modules() if hasattr(m, "quant_state")]
        stored += list(tensors_in(scales))
    distinct = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in stored}
    # Tables that matrices share, and buffers that stay in another precision.
    assert sum(distinct.values()) <= counted <= 1.02 * sum(t.nbytes for t in stored) + 4096


def test_mixtral_8x7b_has_as_many_weights_as_its_architecture_says():
    width, inner, layers, experts, heads_width, vocabulary = 4096, 14336, 32, 8, 8 * 128, 32000
    attention = 2 * width * width + 2 * width * heads_width
    layer = attention + experts * 3 * width * inner + experts * width + 2 * width
    weights = layers * layer + 2 * vocabulary * width + width
    model = empty_model(MIXTRAL, Precision.BFLOAT16)
    assert sum(p.numel() for p in model.parameters()) == weights
    assert weight_bytes(model, Precision.BFLOAT16) == pytest.approx(2 * weights, rel=1e-6)
    # 4 bits, 8 for the scale of 64, 32 for the scale of 256 of these; 2 bytes outside the layers.
    bits = 4 + 8 / 64 + 32 / (64 * 256)
    outside = 2 * vocabulary * width
    expected = (weights - outside) * bits / 8 + 2 * outside
    assert weight_bytes(model, Precision.NF4) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_and_values_of_whole_episodes_take_what_was_counted(family):
    model = tiny_model(family)
    n, length = 3, 20
    session = HuggingFaceSession(model, head=None, n_positions=length)
    session.share(session.read(torch.arange(4)[None]), n)
    for _ in range(length - 4):
        session.append(torch.zeros(n, dtype=torch.int64))
    counted = cache_bytes(model.config, Precision.FLOAT32, n_episodes=n, n_positions=length)
    # A window of 5 holds 4 tokens between steps.
    assert 0.75 * counted <= real_bytes(session, without=model) <= counted + 4096


def test_an_agent_and_its_optimiser_take_what_was_counted():
    world, config = small_world(), small_config()
    agent = LockstepPPO(world, config).finish()
    actor, critic = agent_parameters(
        agent.config, n_features=world.base.n_features, n_tokens=world.base.n_tokens, width=0
    )
    assert sum(p.numel() for p in agent.policy.actor.parameters()) == actor
    assert sum(p.numel() for p in agent.policy.critic.parameters()) == critic
    parameters = list(agent.policy.parameters())
    moments = [
        state[name].nbytes
        for state in agent.policy.optimizer.state.values()
        for name in ("exp_avg", "exp_avg_sq")
    ]
    gradients = [p.grad.nbytes for p in parameters if p.grad is not None]
    total = sum(p.nbytes for p in parameters) + sum(gradients) + sum(moments)
    assert total == FLOAT32_BYTES * 4 * (actor + critic)


def test_what_the_agent_sees_at_a_step_is_as_wide_as_was_counted():
    world = small_world()
    agent = LockstepPPO(world, small_config()).finish()
    seen = agent.last_rollout.kept_observations
    wide = observation_width(
        n_features=world.base.n_features, n_tokens=world.base.n_tokens, has_head=False
    )
    assert seen[0].nbytes == FLOAT32_BYTES * wide
    assert len(seen) <= agent.last_rollout.tokens.size


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_as_wide_as_was_counted(family):
    model = tiny_model(family)
    assert feature_width(model.config.get_text_config()) == HuggingFaceBase(model).n_features


@pytest.mark.parametrize("family", FAMILIES)
def test_whether_a_model_s_head_is_applied_again_is_told_by_its_configuration(family):
    config = copy.deepcopy(FAMILIES[family])
    config.vocab_size = 100  # more than there are features
    model = AutoModelForCausalLM.from_config(config)
    assert applies_head(config.get_text_config()) == (HuggingFaceBase(model).head is not None)
    assert not applies_head(FAMILIES[family].get_text_config())


def peak_bytes(work) -> int:
    """The most memory that `work` had allocated at once."""
    work()  # whatever is only needed once
    with profile(profile_memory=True) as recorded:
        work()
    now = most = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


@pytest.mark.parametrize("rule", [*TargetRule, None])
def test_a_policy_that_acts_or_learns_needs_the_workspace_that_was_counted(rule):
    n, n_tokens, n_inputs = 64, 4000, 50
    log_b = torch.randn(n, n_tokens).log_softmax(dim=-1)
    inputs, budget = torch.randn(n, n_inputs), torch.full((n,), 3.0)
    actor = nn.Linear(n_inputs, n_tokens + 1)

    def policy():
        outputs = actor(inputs)
        return step_policy(log_b, outputs[:, :-1], outputs[:, -1], budget, rule=rule)

    def learn():
        step = policy()
        tokens = torch.zeros(n, dtype=torch.int64)
        loss = step.log_prob(tokens).mean() + step.entropy_nats().mean() + step.kl_nats.mean()
        loss.backward()
        actor.zero_grad()

    def act():
        with torch.inference_mode():
            policy().sample(generator=None)

    row = FLOAT32_BYTES * (n_tokens + n_inputs)
    update = update_workspace_bytes(n_steps=n, n_tokens=n_tokens, row_bytes=row)
    gradient = sum(parameter.nbytes for parameter in actor.parameters())
    assert update / 4 <= peak_bytes(learn) <= update + gradient
    acting = act_workspace_bytes(n_episodes=n, n_tokens=n_tokens, row_bytes=row)
    assert acting / 4 <= peak_bytes(act) <= acting


def test_a_reward_model_takes_what_was_counted():
    real = DistilBertForSequenceClassification(SMALL_REWARD)
    assert module_bytes(empty_classifier(SMALL_REWARD)) == real_bytes(
        [*real.parameters(), *real.buffers()]
    )


PUBLISHED = Shapes(language_model=MIXTRAL, reward_model=SMALL_REWARD)


def planned(**world) -> PlannedRun:
    """The published protocol with Mixtral-8x7B, on the processor."""
    agent = preset_config(Preset.PAPER)
    world = {"device": "cpu", "agent_device": "cpu"} | world
    return PlannedRun(
        agent=replace(agent, world=replace(agent.world, **world)),
        n_agents=6,
        n_evaluation_episodes=64,
        evaluation_lengths=(256, 512),
        n_base_episodes=2048,
    )


def part(estimate: MemoryEstimate, what: str) -> int:
    return sum(part.n_bytes for part in estimate.parts if part.what == what)


def test_under_vetoes_every_observation_carries_the_vocabulary():
    saw = "what the agent saw in a rollout"
    plain, vetoed = (
        part(estimate_memory(planned(**pessimism), PUBLISHED), saw)
        for pessimism in ({}, {"vetoes": "some.json"})
    )
    width = 3 * 4096 + 2
    assert vetoed / plain == pytest.approx((width + 32_000) / width)


def test_a_reward_that_is_no_model_takes_nothing():
    estimate = estimate_memory(planned(), replace(PUBLISHED, reward_model=None))
    assert part(estimate, "reward model") == 0
    assert part(estimate_memory(planned(), PUBLISHED), "reward model") > 0


def test_an_actor_of_low_rank_is_counted_as_one():
    run = planned()
    low = replace(run, agent=replace(run.agent, actor=ActorForm.LOW_RANK, actor_rank=64))
    name = "actor and critic, gradients, Adam"
    sizes = [part(estimate_memory(each, PUBLISHED), name) for each in (run, low)]
    assert sizes[1] < sizes[0] / 50


def test_an_actor_of_few_tokens_is_counted_as_one():
    run = planned()
    few = replace(run, agent=replace(run.agent, actor_tokens=2000))
    name = "actor and critic, gradients, Adam"
    sizes = [part(estimate_memory(each, PUBLISHED), name) for each in (run, few)]
    assert sizes[1] < sizes[0] / 15
    as_many = replace(run, agent=replace(run.agent, actor_tokens=32_000))
    assert estimate_memory(as_many, PUBLISHED) == estimate_memory(run, PUBLISHED)


def test_an_agent_of_few_tokens_takes_what_was_counted():
    world, config = small_world(), replace(small_config(), actor_tokens=4)
    agent = LockstepPPO(world, config).finish()
    actor, _ = agent_parameters(
        config, n_features=world.base.n_features, n_tokens=world.base.n_tokens, width=0
    )
    assert sum(p.numel() for p in agent.policy.actor.parameters()) == actor


def test_what_an_actor_of_few_tokens_learns_from_needs_the_workspace_that_was_counted():
    n_tokens, n_steps = 2**15, 2**8
    log_probs = torch.randn(n_steps, n_tokens).log_softmax(dim=-1)
    acted, tokens = torch.arange(100), torch.zeros(n_steps, dtype=torch.int64)
    most = peak_bytes(lambda: learnable(torch.zeros(n_steps, 5), log_probs, acted, tokens))
    assert n_steps * n_tokens == AT_ONCE
    assert lumping_workspace_bytes() / 4 <= most <= lumping_workspace_bytes()


def test_the_published_run_needs_what_the_published_sizes_say():
    estimate = estimate_memory(planned(), PUBLISHED)
    # 8 heads of 128 keys and values in 32 layers, 2 bytes each, 64 episodes of 512 tokens.
    assert part(estimate, "keys and values") == 2 * 8 * 128 * 32 * 2 * 64 * 512
    # A layer from 3 x 4096 + 2 inputs to 32,001 outputs: 393 million weights.
    actor = part(estimate, "actor and critic, gradients, Adam") / 16
    assert actor == pytest.approx(393e6, rel=0.01)


def test_a_run_that_does_not_fit_is_refused_with_the_numbers_and_what_would_help():
    run = planned()
    estimate = estimate_memory(run, PUBLISHED)
    needed = estimate.needed()["cpu"]
    check_memory(run, PUBLISHED, estimate, {"cpu": needed})
    with pytest.raises(ModelError) as caught:
        check_memory(run, PUBLISHED, estimate, {"cpu": needed - 1})
    message = str(caught.value)
    assert "\n" not in message
    assert f"needs up to {needed / GB:.1f} GB on cpu, where" in message
    assert "language model 93.4 GB" in message
    assert "--dtype nf4 (needs 93.4 GB, which fits)" in message  # it is read in bfloat16 first
    assert "--n-episodes 16 --n-evaluation-episodes 16 --ppo.micro-batch-size 128 (needs" in message


def test_every_process_needs_everything_and_one_alone_would_help():
    run = planned(dtype=Precision.FLOAT32)
    twice = replace(run, n_processes=2)
    one, two = estimate_memory(run, PUBLISHED), estimate_memory(twice, PUBLISHED)
    assert two.needed()["cpu"] == 2 * one.needed()["cpu"]
    with pytest.raises(ModelError, match=r"--processes 1 \(needs [0-9.]+ GB, which fits\)"):
        check_memory(twice, PUBLISHED, two, {"cpu": one.needed()["cpu"]})
    with pytest.raises(ModelError, match=r"--dtype bfloat16 \(needs .*--dtype nf4 \(needs "):
        check_memory(run, PUBLISHED, one, {"cpu": 0})


def test_what_an_evaluation_records_is_counted_with_its_departure():
    n, length = 20, 40
    world = process_world()
    found = evaluated(BasePolicy(world), world, process=PROCESS, n_episodes=n, n_tokens=length)
    recorded = sum(a.nbytes for a in found.arrays().values() if a.shape == (n, length))
    run = replace(
        planned(), n_evaluation_episodes=4, evaluation_lengths=(length,), n_base_episodes=n
    )
    counted = part(estimate_memory(run, PUBLISHED), "what an evaluation records")
    assert recorded <= counted / 2 <= 1.2 * recorded, "batch by batch, and joined"


def test_a_run_is_planned_as_its_settings_say():
    settings = Settings.start(Preset.TINY, Fidelity.OURS, Suite.DEFAULT, quick=True)
    run = PlannedRun.of(settings, n_processes=2)
    assert run == PlannedRun(
        agent=settings.agent,
        n_agents=2,
        n_evaluation_episodes=128,
        evaluation_lengths=(256,),
        n_base_episodes=1024,
        n_processes=2,
    )


def test_a_device_needs_what_its_larger_phase_does():
    estimate = MemoryEstimate(
        parts=(
            Part(what="a", device="cpu", n_bytes=5, phase=Phase.LOADING),
            Part(what="b", device="cpu", n_bytes=3),
            Part(what="c", device="cpu", n_bytes=4),
            Part(what="d", device="cuda:0", n_bytes=6),
        )
    )
    assert estimate.needed() == {"cpu": 7, "cuda:0": 6}
    assert [p.what for p in estimate.peak("cpu")] == ["c", "b"]
    table = estimate.table({"cpu": 1, "cuda:0": 1})
    assert len(table.rows) == len(estimate.parts) + 2 * 2


def test_shapes_are_read_without_weights():
    folder, rewards = language_model_folder("classroom"), reward_model_folder("classroom")
    shapes = read_shapes(str(folder), str(rewards))
    model = empty_model(shapes.language_model, Precision.FLOAT32)
    weights = (folder / "model.safetensors").stat().st_size
    assert sum(4 * p.numel() for p in model.parameters()) == pytest.approx(weights, rel=0.02)
    with pytest.raises(ModelError, match=r"cannot load the reward model .*nowhere: there is no"):
        read_shapes(str(folder), str(folder / "nowhere"))


def test_the_free_memory_of_a_container_is_what_its_limit_leaves(tmp_path):
    assert cgroup_bytes(tmp_path) == math.inf
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("300\n")
    assert cgroup_bytes(tmp_path) == math.inf
    (tmp_path / "memory.max").write_text("1000\n")
    assert cgroup_bytes(tmp_path) == 700
    assert 0 < free_bytes(["cpu"])["cpu"] < 2**50
