"""Prompts and answers become the tokens that the tokenizer's own template writes."""

import pytest

from llm_experiment.auditing.behaviours import Behaviour
from llm_experiment.auditing.conversation import Writer
from llm_experiment.auditing.prompts import read_prompts
from llm_experiment.auditing.scripts import write_script
from llm_experiment.base.loading import load_tokenizer
from llm_experiment.base.shipped import language_model_folder
from llm_experiment.chat.token_texts import decode_tokens
from tests.llm_experiment.auditing.small_models import (
    SPOKEN,
    TEMPLATE,
    chat,
    chat_tokenizer,
    write_prompts,
)
from tests.llm_experiment.fakes.tiny_hf import sentencepiece_tokenizer
from theory.errors import InvalidArgumentError, ModelError

BIG = 10_000


def writer(tokenizer=None, **options):
    tokenizer = chat_tokenizer() if tokenizer is None else tokenizer
    return Writer(tokenizer, **({"end_text": None, "n_tokens": BIG} | options))


def prompt(tmp_path, line):
    (only,) = read_prompts(write_prompts(tmp_path / "p.jsonl", line))
    return only


def says(text, *, ends=True):
    return Behaviour(name="it", says=lambda _: text, ends=ends)


def written(tmp_path, line, behaviour, **options):
    limits = {"n_times": 1, "n_tokens": 50, "n_positions": BIG} | options
    return write_script(writer(), prompt(tmp_path, line), behaviour, **limits)


def test_a_chat_answered_again_and_again_reads_as_its_template_writes_it(tmp_path):
    line = chat("Hello there.", follow_up="How are you today?")
    script = written(tmp_path, line, says("Yes."), n_times=3)
    tokenizer = chat_tokenizer()
    said = ("Hello there.", "Yes.", "How are you today?", "Yes.", "How are you today?", "Yes.")
    whole = tokenizer.apply_chat_template(chat(*said)["messages"], tokenize=False)
    assert tokenizer.decode(script.tokens) == whole.removesuffix("\n")
    answers = [tokenizer.decode(script.tokens[a:b]) for a, b in script.answers]
    assert answers == ["Yes.<|im_end|>"] * 3


def test_a_text_answered_again_and_again_has_its_follow_up_between(tmp_path):
    line = {"prompt": "Hello there.", "follow_up": " How are"}
    script = written(tmp_path, line, says(" Yes."), n_times=2)
    text = chat_tokenizer().decode(script.tokens)
    assert text == "Hello there. Yes.<|im_end|> How are Yes.<|im_end|>"


def test_what_does_not_end_is_cut_and_comes_once(tmp_path):
    script = written(tmp_path, chat("No."), says("Yes." * 50, ends=False), n_times=3, n_tokens=7)
    ((start, end),) = script.answers
    assert (end - start, end) == (7, len(script.tokens))
    cut = written(tmp_path, chat("No."), says("Yes. No. " * 50), n_times=3, n_tokens=7)
    assert len(cut.answers) == 1


def test_answers_for_which_there_is_no_room_are_left_out(tmp_path):
    one = written(tmp_path, chat("No."), says("Yes."))
    assert len(written(tmp_path, chat("No."), says("Yes."), n_times=9, n_positions=60).answers) == 3
    assert written(tmp_path, chat("No."), says("Yes."), n_positions=len(one.tokens)) == one
    assert written(tmp_path, chat("No."), says("Yes."), n_positions=len(one.tokens) - 1) is None
    assert written(tmp_path, chat("No."), says(None)) is None


def test_what_a_tokenizer_cannot_write_is_no_answer(tmp_path):
    said = prompt(tmp_path, {"prompt": "No."})
    assert writer().answer(said, "Да ✓") is not None  # in bytes
    sentences = sentencepiece_tokenizer(SPOKEN, vocab_size=320)
    pieces = writer(sentences)
    # As it goes on with the prompt, and not as it would begin a text.
    tokens = [*pieces.context(said), *pieces.answer(said, "Yes.")]
    assert decode_tokens(sentences, tokens) == "No.Yes."
    known = load_tokenizer(str(language_model_folder("classroom")))
    words = Writer(known, end_text="\n", n_tokens=BIG)
    start = prompt(tmp_path, {"prompt": "Teacher:"})
    assert decode_tokens(known, words.answer(start, " Yes.")) == " Yes."
    assert words.answer(start, "I'm sorry.") is None


def test_a_chat_needs_a_template_and_a_template_needs_its_chats(tmp_path):
    with pytest.raises(ModelError, match="line 1 is a chat and the tokenizer has no chat template"):
        writer(chat_tokenizer(template=None)).context(prompt(tmp_path, chat("No.")))
    strict = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ModelError, match="refuses line 1: roles must alternate"):
        writer(chat_tokenizer(template=strict)).context(prompt(tmp_path, chat("No.")))


def test_a_template_that_rewrites_what_was_said_is_refused(tmp_path):
    last = TEMPLATE.replace("messages %}", "messages[-1:] %}")
    line = prompt(tmp_path, chat("No."))
    with pytest.raises(ModelError, match=r"once it is answered.*--n-times 1"):
        writer(chat_tokenizer(template=last)).between(line, ["Yes."])


def test_an_end_is_the_templates_or_the_texts_or_asked_for(tmp_path):
    plain, spoken = prompt(tmp_path, {"prompt": "No."}), prompt(tmp_path, chat("No."))
    tokenizer = chat_tokenizer()
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert writer(tokenizer).end_token(spoken) == end
    assert writer(tokenizer).end_token(plain) == tokenizer.eos_token_id
    (line_break,) = tokenizer.encode("\n")
    assert writer(tokenizer, end_text="\n").end_token(plain) == line_break
    assert writer(tokenizer, end_text="\n").end_token(spoken) == end
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match=r"no token for the end of a text; say .* --end-text"):
        writer(tokenizer).end_token(plain)
    endless = chat_tokenizer(template=TEMPLATE.replace("<|im_end|>\n", ""))
    endless.eos_token = None
    with pytest.raises(ModelError, match="neither the chat template nor the tokenizer"):
        writer(endless).end_token(spoken)


def test_tokens_that_the_models_lack_and_empty_prompts_are_refused(tmp_path):
    with pytest.raises(InvalidArgumentError, match=r"line 1 has token .* and the models only 5"):
        writer(n_tokens=5).context(prompt(tmp_path, chat("No.")))
    with pytest.raises(InvalidArgumentError, match="end_text must be a text that"):
        writer(sentencepiece_tokenizer(SPOKEN, vocab_size=320), end_text="")
