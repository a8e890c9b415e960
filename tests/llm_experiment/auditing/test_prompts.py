"""A file of prompts is read as it is meant, or refused in one line that has the line's number."""

import json

import pytest

from llm_experiment.auditing.prompts import ChatPrompt, Message, PlainPrompt, read_prompts
from tests.llm_experiment.auditing.small_models import chat, write_prompts
from theory.errors import InvalidArgumentError


def test_texts_and_chats_are_read_with_the_numbers_of_their_lines(tmp_path):
    path = tmp_path / "prompts.jsonl"
    lines = [{"prompt": "Once"}, chat("Hi?"), {"prompt": chat("Hi?", "Yes.", "And?")["messages"]}]
    path.write_text("\n\n".join(json.dumps(line) for line in lines))
    plain, single, several = read_prompts(path)
    assert plain == PlainPrompt(line=1, text="Once", follow_up="Once")
    assert single == ChatPrompt(
        line=3, messages=(Message(role="user", content="Hi?"),), follow_up="Hi?"
    )
    assert (several.line, several.last_said, several.last_answer) == (5, "And?", "Yes.")
    assert plain.last_answer is None
    assert single.last_answer is None


def test_a_follow_up_of_ones_own_stands_between_answers(tmp_path):
    lines = ({"prompt": "Once", "follow_up": " Then"}, chat("Hi?", follow_up=""))
    found = read_prompts(write_prompts(tmp_path / "p.jsonl", *lines))
    assert [prompt.follow_up for prompt in found] == [" Then", ""]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no prompt; write one a line"),
        (" \n\n", "holds no prompt"),
        ('{"prompt": "a"}\nnot json', r"line 2: not JSON \(Expecting value\)"),
        ("[" * 100_000, r"line 1: not JSON \(nested too deeply\)"),
        ('{"prompt": "a"}\n\n["b"]', "line 3: not an object"),
        ('{"text": "a"}', "line 1: no prompt, got {'text': 'a'}; write"),
        ('{"prompt": ""}', "line 1: no prompt"),
        ('{"prompt": []}', "line 1: no prompt"),
        ('{"prompt": "a", "follow_up": 3}', "line 1: follow_up must be a text, got 3"),
        ('{"messages": [{"role": "user"}]}', "a message must have a role and a content"),
        (json.dumps(chat("a", "b")), "ends with a message of the assistant"),
    ],
)
def test_what_is_no_prompt_is_refused(tmp_path, text, said):
    path = tmp_path / "prompts.jsonl"
    path.write_text(text)
    with pytest.raises(InvalidArgumentError, match=said) as error:
        read_prompts(path)
    assert "\n" not in str(error.value)


def test_no_file_and_no_text_are_refused(tmp_path):
    with pytest.raises(InvalidArgumentError, match="No such file"):
        read_prompts(tmp_path / "absent.jsonl")
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidArgumentError, match="it is not UTF-8"):
        read_prompts(path)
