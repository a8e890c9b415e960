"""A position in fixed shapes equals a plain one, and nothing between positions waits for a GPU."""

import copy
import warnings

import pytest
import torch
from transformers import AutoModelForCausalLM

from llm_experiment.base.hugging_face import HuggingFaceBase, HuggingFaceSession, ReplayedSession
from tests.llm_experiment.fakes.host_sync import WaitsForDeviceError, nothing_waits
from tests.llm_experiment.fakes.tiny_hf import FAMILIES, N_TOKENS, tiny_model

PROMPT = 7
LENGTH = 20
N_EPISODES = 3
NARROW = {"mistral, sliding", "gemma2, alternating"}
"""Families whose windows are narrower than an episode here."""


def transcripts():
    return torch.randint(N_TOKENS, (N_EPISODES, LENGTH), generator=torch.Generator().manual_seed(1))


def shared_session(model, prompt, *, n_positions=LENGTH):
    session = HuggingFaceSession(model, head=None, n_positions=n_positions)
    return session, session.share(session.read(prompt[None]), N_EPISODES)


def assert_fixed_shapes_change_nothing(model):
    tokens = transcripts()
    prompt = tokens[0, :PROMPT]
    plain, _ = shared_session(model, prompt)
    session, _ = shared_session(model, prompt)
    position = torch.tensor([PROMPT])
    forward = session.fixed_forward(position)
    for column in tokens[:, PROMPT:].T:
        expected, step = plain.append(column), forward(column)
        torch.testing.assert_close(step.log_probs, expected.log_probs, rtol=1e-6, atol=4e-6)
        torch.testing.assert_close(step.features, expected.features, rtol=1e-6, atol=4e-6)
    assert position.tolist() == [LENGTH]


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - NARROW))
def test_fixed_shapes_change_no_prediction(family):
    model = tiny_model(family).double().eval()
    session, _ = shared_session(model, transcripts()[0, :PROMPT])
    assert session.has_fixed_room
    assert_fixed_shapes_change_nothing(model)


@pytest.mark.parametrize("family", sorted(NARROW))
def test_a_window_as_wide_as_the_episode_has_fixed_room_and_a_narrower_one_has_not(family):
    model = tiny_model(family).double().eval()
    session, _ = shared_session(model, transcripts()[0, :PROMPT])
    assert not session.has_fixed_room
    model.config.sliding_window = LENGTH
    for layer in model.model.layers:
        layer.self_attn.sliding_window = LENGTH
    session, _ = shared_session(model, transcripts()[0, :PROMPT])
    assert session.has_fixed_room
    assert_fixed_shapes_change_nothing(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_position_waits_for_the_device(family):
    session, _ = session_without_data(family)
    tokens = torch.zeros(N_EPISODES, dtype=torch.int64, device="meta")
    with nothing_waits():
        for _ in range(3):
            step = session.append(tokens)
    assert step.log_probs.shape == (N_EPISODES, N_TOKENS)
    if not session.has_fixed_room:
        return
    forward = session.fixed_forward(torch.zeros(1, dtype=torch.int64, device="meta"))
    with nothing_waits():
        for _ in range(3):
            step = forward(tokens)
    assert step.log_probs.shape == (N_EPISODES, N_TOKENS)


def session_without_data(family):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(copy.deepcopy(FAMILIES[family]))
    model = model.bfloat16().eval()  # grouped matrix products on GPUs know no other precision
    prompt = torch.zeros(PROMPT, dtype=torch.int64, device="meta")
    return shared_session(model, prompt)


def test_what_would_wait_is_found():
    x = torch.zeros(3, 2, device="meta")
    waits = [
        lambda: x.sum().item(),
        lambda: bool(x.any()),
        (x > 0).nonzero,
        lambda: x[x > 0],
        x.cpu,
        lambda: torch.ones(3).to("meta"),
        lambda: torch.tensor([1.0], device="meta"),
        lambda: x.new_tensor(0.5),
        lambda: x.__setitem__(x[:, 0] > 0, torch.zeros(2, device="meta")),
    ]
    for wait in waits:
        with (
            pytest.raises((WaitsForDeviceError, RuntimeError, NotImplementedError)),
            nothing_waits(),
        ):
            wait()
    with nothing_waits():
        x[:, 0] = 0.5
        assert torch.where(x > 0, x, 0.0)[:, None].shape == (3, 1, 2)


def test_experts_one_by_one_would_wait_so_models_are_loaded_with_grouped_ones():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            copy.deepcopy(FAMILIES["mixtral"]), experts_implementation="eager"
        ).eval()
    with pytest.raises(NotImplementedError, match="nonzero"):
        model(torch.zeros(1, 1, dtype=torch.int64, device="meta"))


def test_where_recording_fails_the_plain_session_goes_on():
    """There is no CUDA device here, so recording always fails."""
    model = tiny_model("llama, tied").eval()
    tokens = transcripts()
    prompt = tokens[0, :PROMPT]
    plain, _ = shared_session(model, prompt)
    replayed = ReplayedSession(shared_session(model, prompt)[0], n_read=PROMPT)
    with pytest.warns(UserWarning, match="positions are not replayed"):
        first = replayed.append(tokens[:, PROMPT])
    assert torch.equal(first.log_probs, plain.append(tokens[:, PROMPT]).log_probs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for column in tokens[:, PROMPT + 1 :].T:
            assert torch.equal(replayed.append(column).log_probs, plain.append(column).log_probs)


@pytest.mark.gpu
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_replayed_positions_predict_what_plain_ones_do(family, dtype):
    if family == "mixtral" and dtype != torch.bfloat16:
        pytest.skip("grouped matrix products on GPUs know bfloat16 only")
    model = tiny_model(family).to("cuda", dtype)
    if family == "mixtral":
        model.set_experts_implementation("grouped_mm")
    base = HuggingFaceBase(model)
    tokens = transcripts().cuda()
    session, _ = base.begin(tokens[0, :PROMPT], n_episodes=N_EPISODES, n_positions=LENGTH)
    assert isinstance(session, ReplayedSession) == (family not in NARROW)
    plain, _ = shared_session(model, tokens[0, :PROMPT])
    for column in tokens[:, PROMPT:].T:
        expected, step = plain.append(column), session.append(column)
        torch.testing.assert_close(
            step.log_probs.exp(), expected.log_probs.exp(), rtol=0, atol=0.02
        )


@pytest.mark.gpu
def test_on_a_gpu_no_position_waits_for_the_device():
    model = tiny_model("mixtral").to("cuda", torch.bfloat16)
    model.set_experts_implementation("grouped_mm")
    tokens = transcripts().cuda()
    session, _ = shared_session(model, tokens[0, :PROMPT])
    torch.cuda.set_sync_debug_mode("error")
    try:
        for column in tokens[:, PROMPT:].T:
            session.append(column)
    finally:
        torch.cuda.set_sync_debug_mode("default")
