"""A tokenizer read from its file says what transformers says."""

import json
import shutil

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llm_experiment.base.shipped import language_model_folder
from llm_experiment.chat.token_texts import (
    PlainTokenizer,
    decode_tokens,
    encode_text,
    read_tokenizer,
    token_texts,
)
from tests.llm_experiment.tiny_hf import byte_level_tokenizer, sentencepiece_tokenizer
from theory.errors import ModelError

TEXT = "Teacher: Do you like it?\nStudent: Yes, I do.\n"


@pytest.fixture(scope="module", params=["shipped", "byte level", "sentencepiece"])
def folder(request, tmp_path_factory):
    if request.param == "shipped":
        return language_model_folder("classroom")
    make = byte_level_tokenizer if request.param == "byte level" else sentencepiece_tokenizer
    path = tmp_path_factory.mktemp("tokenizer")
    make(TEXT, vocab_size=300).save_pretrained(path)
    return path


def test_a_tokenizer_that_is_its_file_is_read_without_transformers(folder):
    plain, whole = read_tokenizer(str(folder)), AutoTokenizer.from_pretrained(str(folder))
    assert isinstance(plain, PlainTokenizer)
    assert len(plain) == len(whole)
    assert encode_text(plain, TEXT) == encode_text(whole, TEXT)
    ids = [*encode_text(whole, TEXT), *range(len(whole))]
    assert decode_tokens(plain, ids) == decode_tokens(whole, ids)
    size = len(whole) + 2
    texts = token_texts(plain, speaker="Teacher", n_tokens=size)
    assert texts == token_texts(whole, speaker="Teacher", n_tokens=size)
    assert len(texts) == size
    assert texts[-2:] == ("", "")


@pytest.mark.parametrize(
    "change", [{"tokenizer_class": "LlamaTokenizerFast"}, {"eos_token": "<not in the file>"}]
)
def test_a_tokenizer_that_is_more_than_its_file_is_left_to_transformers(tmp_path, change):
    copy = shutil.copytree(language_model_folder("classroom"), tmp_path / "copy")
    config = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps(config | change))
    assert not isinstance(read_tokenizer(str(copy)), PlainTokenizer)


def test_other_tokenizers_are_loaded_by_transformers(tmp_path):
    byte_level_tokenizer(TEXT, vocab_size=300).save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    assert isinstance(read_tokenizer(str(tmp_path)), PreTrainedTokenizerFast)
    with pytest.raises(ModelError, match="cannot load the tokenizer"):
        read_tokenizer(str(tmp_path / "nothing"))
