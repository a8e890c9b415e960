import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from llm_experiment.base.hugging_face import HuggingFaceBase, step_from_semi_distribution
from llm_experiment.base.loading import find_device, load_language_model, load_tokenizer
from llm_experiment.config import Precision
from tests.llm_experiment.tiny_hf import (
    FAMILIES,
    MAX_POSITIONS,
    N_TOKENS,
    RECURRENT,
    byte_level_tokenizer,
    save_tiny_model,
    tiny_model,
)
from theory.errors import InvalidArgumentError, InvalidShapeError, ModelError

PROMPT = 7
LENGTH = 20
# Models run in float64 here, so what is left is a few roundings of results to float32, each of
# numbers up to 16 and so at most 2^-21.
ROUNDING = 4e-6


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A folder with a complete model and its tokenizer."""
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "mixtral")
    byte_level_tokenizer("Teacher: yes\nStudent: no\n", vocab_size=260).save_pretrained(folder)
    return folder


def transcripts(n: int) -> Tensor:
    """Random transcripts that share a prompt."""
    tokens = torch.randint(N_TOKENS, (n, LENGTH), generator=torch.Generator().manual_seed(1))
    tokens[1:, :PROMPT] = tokens[0, :PROMPT]
    return tokens


def stepwise(base: HuggingFaceBase, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities and features after each token from the prompt on, read one by one."""
    session, step = base.begin(tokens[0, :PROMPT], n_episodes=len(tokens), n_positions=LENGTH)
    steps = [step, *(session.append(column) for column in tokens[:, PROMPT:].T)]
    log_probs = torch.stack([step.log_probs for step in steps], dim=1)
    return log_probs, torch.stack([step.features for step in steps], dim=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_reading_token_by_token_predicts_what_reading_the_whole_transcript_does(family):
    model = tiny_model(family).double()
    tokens = transcripts(3)
    log_probs, features = stepwise(HuggingFaceBase(model), tokens)
    with torch.no_grad():
        whole = model(tokens, output_hidden_states=True, use_cache=False)
    expected = whole.logits.log_softmax(dim=-1)[:, PROMPT - 1 :].float()
    torch.testing.assert_close(log_probs, expected, rtol=0, atol=ROUNDING)
    last_three = torch.cat(whole.hidden_states[-3:], dim=-1)[:, PROMPT - 1 :].float()
    torch.testing.assert_close(features, last_three, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prediction_is_a_full_distribution_in_single_precision(family):
    base = HuggingFaceBase(tiny_model(family))
    _, step = base.begin(transcripts(1)[0, :PROMPT], n_episodes=2, n_positions=LENGTH)
    assert step.log_probs.shape == (2, base.n_tokens)
    assert step.features.shape == (2, base.n_features)
    torch.testing.assert_close(step.log_probs.exp().sum(dim=-1), torch.ones(2))
    assert step.missing_mass.tolist() == [0.0, 0.0]
    assert {step.log_probs.dtype, step.features.dtype, step.missing_mass.dtype} == {torch.float32}


def test_in_single_precision_the_mixture_of_experts_as_it_is_loaded_is_right_to_1e_4(saved):
    log_probs, _ = stepwise(load_language_model(str(saved)), transcripts(3))
    expected, _ = stepwise(HuggingFaceBase(tiny_model("mixtral").double()), transcripts(3))
    torch.testing.assert_close(log_probs, expected, rtol=0, atol=1e-4)


def test_episodes_do_not_disturb_one_another():
    base = HuggingFaceBase(tiny_model("mixtral").double())
    tokens = transcripts(4)
    together, _ = stepwise(base, tokens)
    alone = torch.cat([stepwise(base, row[None])[0] for row in tokens])
    torch.testing.assert_close(together, alone, rtol=0, atol=ROUNDING)


def test_sessions_do_not_disturb_one_another():
    base = HuggingFaceBase(tiny_model("llama, tied"))
    tokens = transcripts(1)
    start = {"n_episodes": 1, "n_positions": LENGTH}
    first, _ = base.begin(tokens[0, :PROMPT], **start)
    second, _ = base.begin(tokens[0, :PROMPT], **start)
    for column in tokens[:, PROMPT:-1].T:
        second.append(column)
    expected = base.begin(tokens[0, : PROMPT + 1], **start)[1]
    torch.testing.assert_close(first.append(tokens[:, PROMPT]).log_probs, expected.log_probs)


def test_the_base_policy_is_frozen():
    model = tiny_model("gpt2, with dropout")
    base = HuggingFaceBase(model)
    tokens = transcripts(1)
    (first, features), (second, _) = stepwise(base, tokens), stepwise(base, tokens)
    assert torch.equal(first, second), "dropout must be off"
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not first.requires_grad
    weight = torch.ones(base.n_features, requires_grad=True)
    (features[0] @ weight).sum().backward()  # constants of somebody else's gradient
    assert weight.grad is not None


def test_a_model_without_attention_is_refused():
    with pytest.raises(ModelError, match="a MambaForCausalLM, which has layers other than full"):
        HuggingFaceBase(AutoModelForCausalLM.from_config(RECURRENT))


def test_a_row_without_mass_predicts_nothing():
    log_semi = torch.tensor([[0.5, 0.25], [0.75, 0.25], [0.0, 0.0]]).double().log()
    step = step_from_semi_distribution(log_semi, torch.zeros(3, 1))
    torch.testing.assert_close(step.missing_mass, torch.tensor([0.25, 0.0, 1.0]))
    torch.testing.assert_close(
        step.log_probs.exp(), torch.tensor([[2 / 3, 1 / 3], [0.75, 0.25], [0.5, 0.5]])
    )


def test_impossible_starts_are_refused():
    base = HuggingFaceBase(tiny_model("gpt2, with dropout"))
    prompt = torch.arange(4)
    cases = [
        (prompt, 0, 8, InvalidArgumentError, "n_episodes must be >= 1, got 0"),
        (prompt, 1, 4, InvalidArgumentError, "has 4 tokens and the episode only 4"),
        (prompt + 37, 1, 8, InvalidArgumentError, r"must lie in 0..39, got 40"),
        (prompt, 1, MAX_POSITIONS + 1, InvalidArgumentError, "reads at most 48; shorten"),
        (prompt[None], 1, 8, InvalidShapeError, r"shape \(p,\) with p >= 1, got \(1, 4\)"),
        (prompt[:0], 1, 8, InvalidShapeError, r"got \(0,\)"),
    ]
    for tokens, n_episodes, n_positions, error, message in cases:
        with pytest.raises(error, match=message):
            base.begin(tokens, n_episodes=n_episodes, n_positions=n_positions)


def test_the_longest_episode_fits_the_positions_that_the_model_has():
    base = HuggingFaceBase(tiny_model("gpt2, with dropout"))
    session, step = base.begin(torch.arange(4), n_episodes=1, n_positions=MAX_POSITIONS)
    for _ in range(MAX_POSITIONS - 4):
        step = session.append(torch.tensor([3]))
    assert torch.isfinite(step.log_probs).all()


@pytest.fixture
def damaged(saved, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def test_a_saved_model_is_loaded_as_it_was(saved):
    base = load_language_model(str(saved))
    log_probs, _ = stepwise(base, transcripts(2))
    expected, _ = stepwise(HuggingFaceBase(tiny_model("mixtral")), transcripts(2))
    assert torch.equal(log_probs, expected)
    # batched_mm copies the experts' weights for every token: far slower on a processor.
    assert base._model.config._experts_implementation in ("eager", "grouped_mm")


def test_a_model_is_loaded_in_the_precision_asked_for(saved):
    base = load_language_model(str(saved), precision=Precision.BFLOAT16)
    assert {p.dtype for p in base._model.parameters()} == {torch.bfloat16}
    _, step = base.begin(torch.arange(4), n_episodes=1, n_positions=8)
    assert step.log_probs.dtype == torch.float32
    torch.testing.assert_close(step.log_probs.exp().sum(), torch.tensor(1.0))


def test_a_saved_tokenizer_is_loaded_as_it_was(saved):
    assert load_tokenizer(str(saved)).decode(load_tokenizer(str(saved)).encode("ok\n")) == "ok\n"


def one_line_error(folder: Path, load=load_language_model) -> str:
    with pytest.raises(ModelError) as caught:
        load(str(folder))
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def test_a_missing_folder_is_named(tmp_path):
    for load, kind in ((load_language_model, "language model"), (load_tokenizer, "tokenizer")):
        message = one_line_error(tmp_path / "nowhere", load)
        assert f"cannot load the {kind}" in message
        assert "there is no such folder" in message


def test_an_unreachable_hub_id_is_named(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="cannot load the language model nobody/nothing"):
        load_language_model("nobody/nothing")


def test_a_folder_without_configuration_weights_or_tokenizer_is_incomplete(damaged):
    (damaged / "tokenizer.json").unlink()
    (damaged / "tokenizer_config.json").unlink()
    one_line_error(damaged, load_tokenizer)
    (damaged / "model.safetensors").unlink()
    assert "safetensors" in one_line_error(damaged)
    (damaged / "config.json").unlink()
    one_line_error(damaged)


def test_a_weight_file_cut_short_is_an_error_and_no_random_model(damaged):
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "complete local folder" in one_line_error(damaged)


def test_a_weight_that_is_missing_is_an_error_and_not_drawn_at_random(damaged):
    weights = load_file(damaged / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    assert "lack 1 of its weights, such as lm_head.weight" in one_line_error(damaged)


def test_a_weight_of_another_shape_is_an_error(damaged):
    config = json.loads((damaged / "config.json").read_text())
    config["vocab_size"] = N_TOKENS + 1
    (damaged / "config.json").write_text(json.dumps(config))
    one_line_error(damaged)


def test_pickled_weights_are_refused(damaged):
    weights = load_file(damaged / "model.safetensors")
    torch.save(weights, damaged / "pytorch_model.bin")
    (damaged / "model.safetensors").unlink()
    one_line_error(damaged)


def test_code_that_comes_with_a_model_is_not_run(damaged):
    config = json.loads((damaged / "config.json").read_text())
    config["model_type"] = "unheard-of"
    config["auto_map"] = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}
    (damaged / "config.json").write_text(json.dumps(config))
    (damaged / "own.py").write_text(
        "import sys\nsys.mightnt_ran_foreign_code = True\nclass Own: pass\n"
    )
    one_line_error(damaged)
    assert not hasattr(sys, "mightnt_ran_foreign_code")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_absent_is_an_error_before_anything_is_loaded(tmp_path):
    with pytest.raises(ModelError, match=r"device cuda:0 cannot be used .* choose device cpu"):
        load_language_model(str(tmp_path / "nowhere"), device="cuda:0")


def test_a_device_of_no_kind_is_an_error():
    with pytest.raises(ModelError, match="device abacus cannot be used"):
        find_device("abacus")
    assert find_device("cpu") == torch.device("cpu")
