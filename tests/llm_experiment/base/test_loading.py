"""What a loaded model is made of: precisions, devices, and libraries that may be missing."""

import gc
import json
import shutil
import sys
import weakref
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MixtralConfig, MixtralForCausalLM

from llm_experiment.base import loading
from llm_experiment.base.hugging_face import HuggingFaceBase
from llm_experiment.base.loading import (
    check_weights,
    compute_dtype,
    find_device,
    find_devices,
    load_language_model,
    load_tokenizer,
    nf4_weights,
    read_configuration,
    require,
    settle,
)
from llm_experiment.config import ALL_GPUS, Precision
from tests.llm_experiment.fakes.tiny_hf import (
    N_TOKENS,
    byte_level_tokenizer,
    save_tiny_model,
    tiny_model,
)
from theory.errors import ModelError

CPU = (torch.device("cpu"),)
# Of 16 levels between -1 and 1 the largest gap of NF4 is 0.304, so half of it bounds the error
# of a weight as a share of its block's largest; a little more for the 8-bit scale and bfloat16.
NF4_ERROR = 0.304 / 2 + 0.03


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A folder with a small Mixtral and its tokenizer."""
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "mixtral")
    byte_level_tokenizer("Teacher: yes\nStudent: no\n", vocab_size=260).save_pretrained(folder)
    return folder


def wide_mixtral() -> MixtralForCausalLM:
    """A model whose matrices are many blocks of NF4, in bfloat16."""
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
    )
    return MixtralForCausalLM(config).to(torch.bfloat16)


def test_nf4_replaces_every_matrix_of_the_layers_the_fused_experts_too():
    model = wide_mixtral()
    names = {
        name.rpartition("layers.")[2]
        for name, weight in model.named_parameters()
        if weight.ndim > 1 and "layers." in name
    }
    assert len(nf4_weights(model)) == len(names) == 2 * (4 + 1 + 2)  # attention, router, experts
    assert any("experts" in name for name in names)
    settle(model, CPU, Precision.NF4)
    for layer in model.model.layers:
        stored = dict(layer.mlp.experts.named_parameters())
        assert {weight.dtype for weight in stored.values()} == {torch.uint8}
    assert model.lm_head.weight.dtype == torch.bfloat16
    assert model.model.embed_tokens.weight.dtype == torch.bfloat16


def test_an_nf4_weight_is_its_weight_to_within_half_the_widest_gap_of_its_levels():
    model = wide_mixtral()
    before = [getattr(module, name).detach().float() for module, name in nf4_weights(model)]
    weights = nf4_weights(model)
    settle(model, CPU, Precision.NF4)
    for weight, (module, name) in zip(before, weights, strict=True):
        after = getattr(module, name)
        assert (after.shape, after.dtype) == (weight.shape, torch.bfloat16)
        blocks = weight.reshape(-1, loading.NF4_BLOCK)
        error = (after.float().reshape_as(blocks) - blocks).abs()
        assert (error <= NF4_ERROR * blocks.abs().amax(dim=1, keepdim=True)).all()
        assert error.max() > 0


def test_a_model_in_nf4_predicts_what_its_expanded_weights_predict(saved):
    tokens = torch.tensor([3, 1, 4, 1, 5])
    base = load_language_model(str(saved), precision=Precision.NF4)
    _, step = base.begin(tokens, n_episodes=2, n_positions=8)
    plain = tiny_model("mixtral").to(torch.bfloat16)
    for path, module in plain.named_modules():
        for changed, name in nf4_weights(plain):
            if changed is module:
                expanded = getattr(base._model.get_submodule(path), name)
                getattr(module, name).data.copy_(expanded)
    plain.eval()
    with torch.no_grad():
        logits = plain(tokens[None], use_cache=False).logits[:, -1].float()
    expected = logits.log_softmax(dim=-1).expand(2, -1)
    torch.testing.assert_close(step.log_probs, expected, rtol=0, atol=0.25)  # bfloat16


@pytest.mark.parametrize("precision", Precision)
def test_every_precision_is_loaded_and_gives_normalised_single_precision(saved, precision):
    base = load_language_model(str(saved), precision=precision)
    assert base._model.lm_head.weight.dtype == compute_dtype(precision)
    _, step = base.begin(torch.arange(4), n_episodes=2, n_positions=8)
    assert step.log_probs.dtype == torch.float32
    torch.testing.assert_close(step.log_probs.exp().sum(dim=-1), torch.ones(2))


def test_a_missing_library_names_the_extra_that_brings_it(saved, monkeypatch):
    with pytest.raises(ModelError, match=r"juggling needs unheard_of; .* mightnt\[circus\]"):
        require("unheard_of", extra="circus", purpose="juggling")
    monkeypatch.setattr(loading, "find_spec", lambda library: None)
    with pytest.raises(ModelError, match=r"dtype nf4 needs bitsandbytes; .*mightnt\[quantised\]"):
        load_language_model(str(saved), precision=Precision.NF4)
    # Nothing else needs an optional library on one device.
    load_language_model(str(saved), precision=Precision.BFLOAT16)


def test_a_model_that_nobody_uses_any_more_is_gone_before_the_next_is_loaded(saved):
    base = load_language_model(str(saved))
    base.itself = base  # a cycle, such as agents have
    before = weakref.ref(base._model)
    gc.disable()
    try:
        del base
        assert before() is not None
        load_language_model(str(saved))
        assert before() is None
    finally:
        gc.enable()


def test_nf4_stays_on_one_device():
    two = (torch.device("cuda:0"), torch.device("cuda:1"))
    with pytest.raises(ModelError, match="dtype nf4 needs one device, got 2"):
        settle(wide_mixtral(), two, Precision.NF4)


def test_one_device_may_be_named_and_several_must_be_gpus():
    assert find_devices("cpu") == CPU
    with pytest.raises(ModelError, match=r"must be numbered GPUs such as cuda:0,cuda:1, got cpu,"):
        find_devices("cpu,cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_all_gpus_of_a_machine_without_any_is_an_error():
    with pytest.raises(ModelError, match=r"device auto spreads .* has none .* choose device cpu"):
        find_devices(ALL_GPUS)


# ----------------------------------------------------------------- files


@pytest.fixture
def damaged(saved, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def test_a_saved_model_is_loaded_as_it_was(saved):
    base = load_language_model(str(saved))
    start = {"n_episodes": 1, "n_positions": 8}
    _, step = base.begin(torch.arange(4), **start)
    _, expected = HuggingFaceBase(tiny_model("mixtral")).begin(torch.arange(4), **start)
    assert torch.equal(step.log_probs, expected.log_probs)
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


def test_weights_are_checked_by_the_headers_of_their_files(damaged):
    check_weights("language model", str(damaged))
    check_weights("language model", "some/hub-id")  # nothing is known of it yet
    weights = load_file(damaged / "model.safetensors")
    (damaged / "model.safetensors").unlink()
    shards = {f"model-0000{i}-of-00002.safetensors": list(weights)[i - 1 :: 2] for i in (1, 2)}
    for file, names in shards.items():
        save_file({name: weights[name] for name in names}, damaged / file)
    index = {"weight_map": {name: file for file, names in shards.items() for name in names}}
    (damaged / "model.safetensors.index.json").write_text(json.dumps(index))
    check_weights("language model", str(damaged))
    second = damaged / list(shards)[1]
    whole = second.read_bytes()
    second.write_bytes(whole[:-1])
    with pytest.raises(ModelError, match=r"cannot load the language model .*complete local folder"):
        check_weights("language model", str(damaged))
    second.unlink()
    with pytest.raises(ModelError, match=r"model-00002-of-00002\.safetensors"):
        check_weights("language model", str(damaged))


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


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_a_checkpoint_that_another_library_quantised_is_refused_in_one_line(damaged, method):
    config = json.loads((damaged / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4}
    (damaged / "config.json").write_text(json.dumps(config))
    message = one_line_error(damaged)
    assert "needs a library that is not here" in message
    assert "name a checkpoint that is not quantised" in message


def test_an_adapter_is_refused_with_what_to_do(damaged):
    (damaged / "config.json").unlink()
    (damaged / "adapter_config.json").write_text("{}")
    for load in (load_language_model, partial(read_configuration, "language model")):
        assert "merge it" in one_line_error(damaged, load)


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
