"""A tokenizer read from its file says what transformers says."""

import json
import shutil

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llm_experiment.base.shipped import language_model_folder
from llm_experiment.chat.token_texts import (
    PlainTokenizer,
    TextDecoder,
    decode_tokens,
    encode_start,
    encode_text,
    encode_words,
    read_tokenizer,
    spelt_texts,
    token_bytes,
    token_texts,
    vocabulary_size,
)
from tests.llm_experiment.fakes.tiny_hf import byte_level_tokenizer, sentencepiece_tokenizer
from theory.errors import ModelError

TEXT = "Teacher: Do you like it?\nStudent: Yes, I do.\n"
SENTENCEPIECE = sentencepiece_tokenizer(TEXT, vocab_size=330)


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


def with_marks(tokenizer, *, ends=False):
    """The same tokenizer, which puts `<s>` before every text and, if so asked, `</s>` behind."""
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    rules = tokenizer.backend_tokenizer
    rules.post_processor = TemplateProcessing(
        single="<s> $A </s>" if ends else "<s> $A",
        special_tokens=[(mark, rules.token_to_id(mark)) for mark in ("<s>", "</s>")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=rules,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>" if "<unk>" in tokenizer.get_vocab() else "<s>",
    )


@pytest.mark.parametrize("make", [byte_level_tokenizer, sentencepiece_tokenizer])
def test_special_tokens_have_no_text(make):
    tokenizer = with_marks(make(TEXT, vocab_size=330))
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    words = encode_text(tokenizer, "Great!\nTeacher:")
    decode = TextDecoder(tokenizer)
    assert decode([begin, *words[:2], end, *words[2:], end]) == "Great!\nTeacher:"
    texts = token_texts(tokenizer, speaker="Teacher", n_tokens=500)
    assert texts[begin] == texts[end] == ""
    if "<unk>" in tokenizer.get_vocab():  # stands for text, and is no mark
        assert texts[tokenizer.convert_tokens_to_ids("<unk>")] == "<unk>"
    assert "\n" in texts  # a byte's token is no mark, even if it is listed among them


@pytest.mark.parametrize("make", [byte_level_tokenizer, sentencepiece_tokenizer])
@pytest.mark.parametrize("ends", [True, False])
def test_a_prompt_gets_the_mark_of_its_beginning_once_and_none_of_an_end(make, ends):
    tokenizer = with_marks(make(TEXT, vocab_size=330), ends=ends)
    plain = encode_text(tokenizer, TEXT)
    assert encode_start(tokenizer, TEXT) == [tokenizer.bos_token_id, *plain]
    marked = encode_text(tokenizer, "<s>" + TEXT)
    assert marked[0] == tokenizer.bos_token_id
    assert encode_start(tokenizer, "<s>" + TEXT) == marked
    bare = make(TEXT, vocab_size=330)
    assert encode_start(bare, TEXT) == encode_text(bare, TEXT)


def expected_text(words):
    """Text and bytes to text: every byte that is part of no character is one replacement sign."""
    text = ""
    rest = b"".join(word if isinstance(word, bytes) else word.encode() for word in words)
    while rest:
        for length in range(1, 5):
            try:
                text, rest = text + rest[:length].decode(), rest[length:]
                break
            except UnicodeDecodeError:
                continue
        else:
            text, rest = text + "\ufffd", rest[1:]
    return text


written = st.one_of(st.sampled_from(["Teacher:", " you", "e"]), st.binary(max_size=5))


@given(st.lists(written, max_size=6), st.booleans())
@example([b"\xf0\x9f\n\n", "Teacher:"], True)
def test_an_incomplete_character_takes_nothing_else_away(words, plain):
    tokenizer = SENTENCEPIECE
    pieces = ["T"]
    for word in words:
        if isinstance(word, bytes):
            pieces += [f"<0x{byte:02X}>" for byte in word]
        else:
            pieces += word.replace(" ", "\u2581")
    ids = tokenizer.convert_tokens_to_ids(pieces)
    assert tokenizer.unk_token_id not in ids
    decode = TextDecoder(PlainTokenizer(tokenizer.backend_tokenizer) if plain else tokenizer)
    assert decode(ids) == expected_text(["T", *words])


BYTE_LEVEL = byte_level_tokenizer(TEXT, vocab_size=256)
PIECES_OF = {
    tokenizer: token_bytes(tokenizer, speaker="T", n_tokens=vocabulary_size(tokenizer))
    for tokenizer in (SENTENCEPIECE, BYTE_LEVEL)
}


@given(st.lists(written, max_size=6), st.sampled_from([SENTENCEPIECE, BYTE_LEVEL]))
@example([b"\xf0\x9f\n\n", "Teacher:"], SENTENCEPIECE)
def test_texts_of_tokens_add_up_to_the_transcript_whatever_is_split(words, tokenizer):
    bare = "".join(word for word in words if isinstance(word, str))
    alphabet = {piece: i for i, piece in enumerate(PIECES_OF[tokenizer])}
    whole = b"".join(word if isinstance(word, bytes) else word.encode() for word in words)
    tokens = [alphabet[bytes([byte])] for byte in whole]
    texts = spelt_texts(PIECES_OF[tokenizer], tokens)
    assert len(texts) == len(tokens)
    assert "".join(texts) == expected_text([whole])
    assert all(text in "".join(texts) for text in bare)


def test_a_split_character_belongs_to_the_token_that_begins_it():
    pieces = [b"\xc3", b"\xa9", b"x", b"\xf0\x9f", b"\x98\x80!"]
    assert spelt_texts(pieces, [2, 0, 1, 2]) == ["x", "é", "", "x"]
    assert spelt_texts(pieces, [3, 4]) == ["\U0001f600", "!"]
    assert spelt_texts(pieces, [0, 2, 3]) == ["\ufffd", "x", "\ufffd\ufffd"]


def test_texts_that_only_look_like_bytes_are_texts():
    rules = Tokenizer(models.WordLevel({"<0x0A>": 0, "<0xF0>": 1, ":": 2}, unk_token=":"))
    rules.decoder = decoders.Fuse()
    assert TextDecoder(PlainTokenizer(rules))([1, 0]) == "<0xF0><0x0A>"


def test_ids_may_have_gaps():
    vocabulary = {"a": 0, ":": 3, "\n": 7, "T": 9}
    rules = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    rules.pre_tokenizer = Split(Regex(r"[a:\nT]"), behavior="isolated")
    rules.decoder = decoders.Fuse()
    for tokenizer in (PlainTokenizer(rules), PreTrainedTokenizerFast(tokenizer_object=rules)):
        assert vocabulary_size(tokenizer) == 10
        texts = token_texts(tokenizer, speaker="T", n_tokens=11)
        assert texts == ("a", "", "", ":", "", "", "", "\n", "", "T", "")


def test_words_are_what_follows_the_colon():
    tokenizer = AutoTokenizer.from_pretrained(language_model_folder("classroom"))
    assert encode_words(tokenizer, "", speaker="Teacher") == ()
    ids = encode_words(tokenizer, "Yes, good.", speaker="Teacher")
    assert tokenizer.convert_ids_to_tokens(ids) == [" Yes", ",", " good", "."]


def test_words_that_a_tokenizer_writes_into_the_colon_are_refused():
    class Merging:
        def encode(self, text, *, add_special_tokens):
            assert not add_special_tokens
            return list(text.replace(": Y", "#").encode())

    with pytest.raises(ModelError, match="writes 'Yes' after T: only together with the colon"):
        encode_words(Merging(), "Yes", speaker="T")
