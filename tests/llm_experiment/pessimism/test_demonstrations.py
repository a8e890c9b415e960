import json

import numpy as np
import pytest

from llm_experiment.chat.turns import TurnRules
from llm_experiment.pessimism.demonstrations import (
    Transcript,
    encode_transcripts,
    read_transcripts,
    sample_demonstrations,
)
from tests.llm_experiment.chat.screenplays import PROCESS
from theory.errors import InvalidArgumentError, ResultsError

RULES = TurnRules()
TURNS = [
    {"speaker": "Student", "text": "Hello?"},
    {"speaker": "Teacher", "text": " Yes?\n"},
    {"speaker": "Student", "text": ""},
]


def write(tmp_path, *lines):
    path = tmp_path / "dialogues.jsonl"
    path.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    )
    return path


def test_a_line_has_turns_or_a_transcript(tmp_path):
    path = write(
        tmp_path, {"turns": TURNS}, "", {"transcript": "Teacher: No.\n"}, {"turns": TURNS[:2]}
    )
    assert read_transcripts(path, RULES) == (
        Transcript(text="Student: Hello?\nTeacher: Yes?\nStudent:\nTeacher:", line=1),
        Transcript(text="Teacher: No.\n", line=3),
        Transcript(text="Student: Hello?\nTeacher: Yes?\nStudent:", line=4),
    )


def test_turns_are_written_with_the_separator_of_the_chat(tmp_path):
    path = write(tmp_path, {"turns": TURNS})
    (found,) = read_transcripts(path, TurnRules(separator="\n\n"))
    assert found.text == "Student: Hello?\n\nTeacher: Yes?\n\nStudent:\n\nTeacher:"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "Expecting property name"),
        ("[]", "either turns or transcript"),
        ('{"turns": [], "transcript": ""}', "either turns or transcript"),
        ('{"turns": []}', "a list of at least 1 turn"),
        ('{"turns": ["Yes."]}', "a turn must be an object, got 'Yes.'"),
        ('{"turns": [{"speaker": "Doctor", "text": ""}]}', "Teacher or Student, got 'Doctor'"),
        ('{"turns": [{"speaker": "Teacher"}]}', "text must be text, got None"),
        ('{"transcript": 3}', "transcript must be text, got 3"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_what_is_no_dialogue_is_refused_by_its_line(tmp_path, line, message):
    path = write(tmp_path, {"turns": TURNS}, line)
    with pytest.raises(ResultsError, match=rf"dialogues.jsonl, line 2: .*{message}"):
        read_transcripts(path, RULES)


def test_files_that_hold_no_dialogue_are_refused(tmp_path):
    with pytest.raises(ResultsError, match="absent: No such file"):
        read_transcripts(tmp_path / "absent", RULES)
    with pytest.raises(ResultsError, match="has no dialogue"):
        read_transcripts(write(tmp_path, "", " "), RULES)
    path = tmp_path / "latin"
    path.write_bytes(b"\xe9")
    with pytest.raises(ResultsError, match=r"cannot read .*in UTF-8"):
        read_transcripts(path, RULES)


def test_dialogues_are_encoded_and_refused_by_their_line(tmp_path):
    path = tmp_path / "dialogues.jsonl"
    words = ["?", "a", "b"]

    def encode(text):
        return [words.index(word) if word in words else 0 for word in text.split()]

    def encoded(text):
        transcripts = [Transcript(text="a b", line=1), Transcript(text=text, line=7)]
        return encode_transcripts(transcripts, path, encode=encode, unknown=0, most_tokens=3)

    assert [found.tokens.tolist() for found in encoded("b a b")] == [[1, 2], [2, 1, 2]]
    with pytest.raises(ResultsError, match="line 7: the dialogue has words that the language"):
        encoded("a c")
    for text, n in (("a", 1), ("a b a b", 4)):
        with pytest.raises(ResultsError, match=f"line 7: the dialogue has {n} tokens; .* reads 3"):
            encoded(text)


def test_a_prompt_is_read_and_demonstrates_nothing(tmp_path):
    path = tmp_path / "dialogues.jsonl"
    turn = {"speaker": "T", "text": "yes"}
    lines = [
        {"prompt": "S: no\nT: y", "transcript": "es\nS:"},
        {"prompt": "S: no\n", "turns": [turn]},
        {"transcript": "S: no\nT: yes\nS:"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_transcripts(path, TurnRules(agent="T", partner="S"))
    assert {one.text for one in found} == {"S: no\nT: yes\nS:"}
    assert [one.prompt for one in found] == ["S: no\nT: y", "S: no\n", ""]
    letters = {"unknown": None, "most_tokens": None}
    coded = encode_transcripts(found, path, encode=lambda text: [*map(ord, text)], **letters)
    assert [one.n_given for one in coded] == [10, 6, 0]

    def in_words(text):  # "yes" is one token, "y" another
        return [sum(map(ord, word)) for word in text.replace(":", " :").split()]

    words = encode_transcripts(found, path, encode=in_words, **letters)
    assert [one.n_given for one in words] == [6, 3, 0]


# ------------------------------------------------------------------------ made up by tau


def sampled(seed=0, **changes):
    options = {"n_dialogues": 40, "n_tokens": 100, "agent": "Teacher", "partner": "Student"}
    return sample_demonstrations(PROCESS, np.random.default_rng(seed), **(options | changes))


def texts(transcripts):
    return [PROCESS.decode(found.tokens) for found in transcripts]


def test_the_process_makes_up_dialogues_that_the_partner_begins():
    found = sampled()
    assert PROCESS.read(np.stack([one.tokens for one in found])).possible.all()
    assert all(text.startswith(f"{PROCESS.task.note}Student:") for text in texts(found))
    assert all("\nTeacher:" in text for text in texts(found))
    assert texts(found) == texts(sampled())
    assert texts(found) != texts(sampled(seed=1))


def test_dirty_data_have_silences_of_the_teacher_that_it_never_has():
    assert sum(text.count("Teacher:\n") for text in texts(sampled())) == 0
    dirty = sampled(n_silences=7)
    assert sum(text.count("Teacher:\n") for text in texts(dirty)) == 7
    for clean, text in zip(texts(sampled()), texts(dirty), strict=True):
        assert len(text) <= len(clean)
        assert ("Teacher:\n" in text) == (text != clean)


def test_demonstrations_that_cannot_be_made_up_are_refused():
    with pytest.raises(InvalidArgumentError, match="got 0 and 100"):
        sampled(n_dialogues=0)
    with pytest.raises(InvalidArgumentError, match=r"n_silences must be at most \d+, .* got 99999"):
        sampled(n_silences=99_999)
    with pytest.raises(InvalidArgumentError, match="speakers must be one of"):
        sampled(partner="Nurse")
