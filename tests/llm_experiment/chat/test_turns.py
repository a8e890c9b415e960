import re
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llm_experiment.base.training import transcript_tokenizer
from llm_experiment.chat.token_texts import token_bytes
from llm_experiment.chat.turn_records import Speaker
from llm_experiment.chat.turns import TurnParser, TurnRules
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import load_task
from tests.llm_experiment.fakes.tiny_hf import byte_level_tokenizer, sentencepiece_tokenizer
from theory.errors import InvalidArgumentError, ModelError

# Pieces that cut names, colons and line breaks in every way, and near misses of them.
PIECES = (
    "\n", "\n\n", " \n", ":\n", ":", " :", ": ", "::", " ", "\t", "", "x", "s", "T", "Te", "acher",
    "each", "er:", "Teacher", " Teacher", "Teacher:", "Teachers", "\nTeacher", "\nTeacher: x",
    "Stu", "dent", "Student", " Student:", "\n\nStudent:", ".\nStudent", "Students:", "\ufffd",
)  # fmt: skip


def encode(text: str) -> list[int]:
    """The longest piece first, again and again."""
    ids = []
    while text:
        token = max(
            (i for i, piece in enumerate(PIECES) if piece and text.startswith(piece)),
            key=lambda i: len(PIECES[i]),
        )
        ids.append(token)
        text = text[len(PIECES[token]) :]
    return ids


def decode(ids: Sequence[int]) -> str:
    return "".join(PIECES[i] for i in ids)


def parser_of_pieces(rules: TurnRules | None = None) -> TurnParser:
    return TurnParser(rules or TurnRules(), pieces=PIECES, encode=encode, decode=decode)


PARSER = parser_of_pieces()


def openings(text: str, rules: TurnRules) -> list[tuple[int, Speaker]]:
    """Where turns open in a text (at the character after the colon), by regular expressions."""
    speakers = {rules.agent: Speaker.AGENT, rules.partner: Speaker.PARTNER}
    names = "|".join(map(re.escape, speakers))
    found = []
    for match in re.finditer(rf"^[ \t]*({names})[ \t]*:", text, flags=re.MULTILINE):
        speaker = speakers[match[1]]
        if not found or found[-1][1] is not speaker:
            found.append((match.end(), speaker))
    return found


def speakers_by_text(pieces: Sequence[str], rules: TurnRules) -> list[Speaker]:
    """Who has the turn after each token: what `TurnParser.speakers` must say."""
    ends = np.cumsum([len(piece) for piece in pieces])
    result = [Speaker.NOBODY] * len(pieces)
    for end, speaker in openings("".join(pieces), rules):
        first = int(np.searchsorted(ends, end))
        result[first:] = [speaker] * (len(pieces) - first)
    return result


def parse(text: str) -> list[Speaker]:
    """Who has the turn after each token of a text in `PIECES`."""
    return [Speaker(int(s)) for s in PARSER.speakers(torch.tensor([encode(text)]))[0]]


def speaker_after(text: str) -> Speaker:
    return parse(text)[-1]


tokens_of_pieces = st.lists(st.integers(0, len(PIECES) - 1), min_size=1, max_size=40)


@given(tokens_of_pieces)
def test_the_parser_finds_the_turns_that_regular_expressions_find_in_the_text(ids):
    expected = speakers_by_text([PIECES[i] for i in ids], PARSER.rules)
    assert PARSER.speakers(torch.tensor([ids]))[0].tolist() == expected


@given(tokens_of_pieces, st.sampled_from(["Teach", "Teacher's aide", "Te"]))
def test_names_may_begin_alike_and_hold_blanks(ids, partner):
    rules = TurnRules(agent="Teacher", partner=partner)
    pieces = (*PIECES, partner, *partner.split(" "), *partner)
    parser = TurnParser(
        rules,
        pieces=pieces,
        encode=lambda text: [pieces.index(char) for char in re.findall("Teacher|.|\n", text)],
        decode=lambda ids: "".join(pieces[i] for i in ids),
    )
    ids = [*ids, len(PIECES), PIECES.index(":"), PIECES.index("\n"), len(PIECES), len(PIECES) + 1]
    expected = speakers_by_text([pieces[i] for i in ids], rules)
    assert parser.speakers(torch.tensor([ids]))[0].tolist() == expected


@given(st.lists(tokens_of_pieces, min_size=2, max_size=4))
def test_transcripts_of_a_batch_are_parsed_independently(rows):
    length = min(map(len, rows))
    batch = torch.tensor([row[:length] for row in rows])
    alone = [PARSER.speakers(row[None])[0].tolist() for row in batch]
    assert PARSER.speakers(batch).tolist() == alone


def test_a_name_with_a_colon_at_the_start_of_a_line_takes_the_turn():
    assert speaker_after("Teacher:") is Speaker.AGENT
    assert speaker_after("Teacher: x\nStudent:") is Speaker.PARTNER
    assert speaker_after("Teacher: x\n\n Student :") is Speaker.PARTNER
    assert speaker_after("Teacher:\nStudent:\nTeacher:") is Speaker.AGENT


@pytest.mark.parametrize(
    "line",
    [
        "Student",  # the transcript ends in the middle of the opening
        "Stu",
        "Students:",  # a longer word
        "xStudent:",
        "sStudent:",
        "x Student:",  # in the middle of a line
        "Teacher x Student: x",
        "Student x",  # a name without its colon
        "Student\n:",
        "T Student:",
        "Studentx:",
    ],
)
def test_anything_else_is_only_text(line):
    assert speaker_after(f"Teacher: x\n{line}") is Speaker.AGENT


def test_a_name_typed_by_the_other_speaker_inside_a_line_does_not_take_the_turn():
    turns = PARSER.find_turns(
        torch.tensor([encode("Teacher: x Student: x\nStudent: Teacher: x\nTeacher: x")])
    )
    assert turns.speaker.tolist() == [Speaker.AGENT, Speaker.PARTNER, Speaker.AGENT]


def test_a_speaker_who_opens_a_line_with_the_own_name_keeps_the_turn():
    turns = PARSER.find_turns(torch.tensor([encode("Teacher: x\nTeacher: x\nStudent:")]))
    assert turns.speaker.tolist() == [Speaker.AGENT, Speaker.PARTNER]
    text = "Student: x\nStudent: s\nTeacher:"
    tokens = encode(text)
    assert PARSER.turn_text(tokens, opened=1, closed=len(tokens) - 1) == "x\nStudent: s"


def test_nobody_has_the_turn_before_the_first_name():
    assert parse("x\nTeacher:") == [Speaker.NOBODY, Speaker.NOBODY, Speaker.AGENT]
    assert PARSER.find_turns(torch.tensor([encode("x\nx")])).episode.size == 0


def test_turns_are_delimited_by_the_tokens_that_complete_a_colon():
    #                    0        1    2    3        4    5    6        7    8
    pieces = ["Teacher", ":", "x", "\n", "Student", ":", "\n", "Teacher", ":", "x", "Te"]
    turns = PARSER.find_turns(torch.tensor([[PIECES.index(piece) for piece in pieces]] * 2))
    assert turns.episode.tolist() == [0, 0, 0, 1, 1, 1]
    assert turns.opened.tolist() == [1, 5, 8] * 2
    assert turns.closed.tolist() == [5, 8, 10] * 2
    assert turns.finished.tolist() == [True, True, False] * 2
    assert turns.n_tokens.tolist() == [4, 3, 2] * 2


@given(st.lists(tokens_of_pieces, min_size=1, max_size=3))
def test_every_token_belongs_to_the_turn_of_its_writer(rows):
    length = min(map(len, rows))
    tokens = torch.tensor([row[:length] for row in rows])
    writers = PARSER.writers(tokens).numpy()
    turns = PARSER.find_turns(tokens)
    expected = np.full(tokens.shape, Speaker.NOBODY)
    for episode, speaker, opened, closed in zip(
        turns.episode, turns.speaker, turns.opened, turns.closed, strict=True
    ):
        expected[episode, opened + 1 : closed + 1] = speaker
    assert (writers == expected).all()
    assert turns.n_tokens.sum() == (writers != Speaker.NOBODY).sum()


@given(tokens_of_pieces)
@example(encode("Teacher:\nTeacher:x"))
def test_reading_token_by_token_leaves_the_state_of_the_last_turn(ids):
    state = PARSER.read(torch.tensor([ids]))
    turns = PARSER.find_turns(torch.tensor([ids]))
    assert state.position == len(ids)
    assert int(state.opened) == (turns.opened[-1] if turns.opened.size else -1)
    assert int(state.speaker) == (turns.speaker[-1] if turns.speaker.size else Speaker.NOBODY)


def empty(text: str, rules: TurnRules | None = None) -> list[bool]:
    """Which turns of a text are empty turns of the agent."""
    parser = parser_of_pieces(rules)
    return parser.are_empty(parser.find_turns(torch.tensor([encode(text)]))).tolist()


def test_an_empty_turn_is_separator_and_name_alone():
    assert PARSER.empty_turn_tokens == 3
    assert empty("Teacher:\nStudent :\nTeacher:x\nStudent:") == [True, False, False, False]
    assert empty("Teacher: x\nStudent:\nTeacher:") == [False, False, False], "a partner's is not"
    assert empty("Teacher:\n") == [False], "a turn that has not ended"


def test_in_the_published_setting_an_empty_turn_has_at_most_four_tokens():
    tokenizer = byte_level_tokenizer("Teacher: yes\nStudent: no\n" * 4, vocab_size=300)
    rules = TurnRules(separator="\n\n")
    parser = TurnParser.from_tokenizer(tokenizer, rules, n_tokens=len(tokenizer))
    assert [tokenizer.decode([token]) for token in parser.partner_opening] == [
        "\n", "\n", "Student", ":",
    ]  # fmt: skip
    assert parser.empty_turn_tokens == 4


@pytest.mark.parametrize("said", ["x", "", "x\nx", " x: Student: s", "x\n\n"])
def test_the_text_of_a_turn_is_what_stands_between_the_openings(said):
    tokens = encode(f"Teacher: x\nStudent:{said}\n\nTeacher:")
    turns = PARSER.find_turns(torch.tensor([tokens]))
    reply = {"opened": int(turns.opened[1]), "closed": int(turns.closed[1])}
    assert PARSER.turn_text(tokens, **reply) == said.strip()


def test_what_shares_a_token_with_an_opening_is_part_of_the_text():
    pieces = ["Student", ":\n", "x", "\nTeacher: x"]
    tokens = [PIECES.index(piece) for piece in pieces]
    assert PARSER.turn_text(tokens, opened=1, closed=3) == "x"
    pieces = ["\nTeacher: x", "s", "\n", "Student", ":\n"]
    tokens = [PIECES.index(piece) for piece in pieces]
    assert PARSER.turn_text(tokens, opened=0, closed=4) == "xs"


@given(tokens_of_pieces, tokens_of_pieces)
def test_the_forced_opening_takes_the_turn_at_its_last_token_whatever_came_before(before, reply):
    forced = list(PARSER.agent_opening)
    tokens = [*before, *encode("\nStudent:"), *reply, *forced]
    speakers = PARSER.speakers(torch.tensor([tokens]))[0].tolist()
    assume(speakers[-len(forced) - 1] == Speaker.PARTNER)
    assert speakers[-len(forced) :] == [Speaker.PARTNER] * (len(forced) - 1) + [Speaker.AGENT]


CORPUS = "Teacher: Do you understand?\nStudent: Not the discussion section, Teacher.\n" * 3
TOKENIZERS = {
    # Names in pieces, names whole, and in between; with line breaks of their own.
    "bytes": byte_level_tokenizer(CORPUS, vocab_size=256),
    "byte pairs": byte_level_tokenizer(CORPUS, vocab_size=275),
    "many byte pairs": byte_level_tokenizer(CORPUS, vocab_size=330),
    "sentencepiece": sentencepiece_tokenizer(CORPUS, vocab_size=280),
    "large sentencepiece": sentencepiece_tokenizer(CORPUS, vocab_size=330),
    "words": transcript_tokenizer(DialogueProcess(load_task("classroom"))),
}
PARSERS = {
    name: TurnParser.from_tokenizer(
        tokenizer, TurnRules(separator="\n\n"), n_tokens=len(tokenizer) + 3
    )
    for name, tokenizer in TOKENIZERS.items()
}
fragments = st.sampled_from(
    [
        "Teacher", "Student", ":", " :", "\n", "\n\n", " ", "s", " you", "Do", "Teachers:", "é",
        "\nTeacher:", "\nStudent:", "\n Student:", "\U0001f600", "Stu", "discussion", ".", "?\n",
    ]
)  # fmt: skip


@pytest.mark.parametrize("name", TOKENIZERS)
@given(st.lists(fragments, min_size=1, max_size=25))
def test_any_tokenizer_s_tokens_are_parsed_as_their_text(name, parts):
    tokenizer, parser = TOKENIZERS[name], PARSERS[name]
    ids = tokenizer.encode("x" + "".join(parts), add_special_tokens=False)
    # What the tokenizer makes of the text, token by token: each adds to what stood before.
    prefixes = [tokenizer.decode(ids[:i]) for i in range(len(ids) + 1)]
    expected = [
        (openings(prefix, parser.rules) or [(0, Speaker.NOBODY)])[-1][1] for prefix in prefixes[1:]
    ]
    assert parser.speakers(torch.tensor([ids]))[0].tolist() == expected


@pytest.mark.parametrize("name", TOKENIZERS)
def test_any_tokenizer_can_be_made_to_hand_over_the_turn(name):
    tokenizer, parser = TOKENIZERS[name], PARSERS[name]
    start = tokenizer.encode("Student: you\nStu", add_special_tokens=False)
    tokens = [*start, *parser.agent_opening]
    assert parser.speakers(torch.tensor([tokens]))[0, -1] == Speaker.AGENT
    assert tokenizer.decode(tokens).endswith("\n\nTeacher:")
    assert len(parser.agent_opening) == len(tokens) - len(start) > 0


@pytest.mark.parametrize("name", ["bytes", "byte pairs", "sentencepiece"])
def test_characters_split_over_tokens_are_whole_in_the_text_of_a_turn(name):
    tokenizer, parser = TOKENIZERS[name], PARSERS[name]
    text = "Student: caf\u00e9 \U0001f600\nTeacher:"
    tokens = tokenizer.encode(text, add_special_tokens=False)
    turns = parser.find_turns(torch.tensor([tokens]))
    reply = {"opened": int(turns.opened[0]), "closed": int(turns.closed[0])}
    assert parser.turn_text(tokens, **reply) == "caf\u00e9 \U0001f600"


def test_a_reply_cut_off_within_a_character_keeps_its_words():
    tokenizer, parser = TOKENIZERS["sentencepiece"], PARSERS["sentencepiece"]
    pieces = ["<0xF0>", "<0x9F>", "<0x0A>", "<0x0A>"]
    tokens = [
        *tokenizer.encode("Student: Do you understand", add_special_tokens=False),
        *tokenizer.convert_tokens_to_ids(pieces),
        *parser.agent_opening[-len(parser.agent_opening) + 2 :],
    ]
    turns = parser.find_turns(torch.tensor([tokens]))
    assert turns.speaker.tolist() == [Speaker.PARTNER, Speaker.AGENT]
    reply = {"opened": int(turns.opened[0]), "closed": int(turns.closed[0])}
    assert parser.turn_text(tokens, **reply) == "Do you understand\ufffd\ufffd"


@pytest.mark.parametrize("make", [byte_level_tokenizer, sentencepiece_tokenizer])
def test_special_tokens_neither_hide_a_turn_nor_are_said(make):
    tokenizer = make(CORPUS, vocab_size=330)
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "<eos>"})
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    parser = TurnParser.from_tokenizer(tokenizer, TurnRules(), n_tokens=len(tokenizer))
    said, rest = (
        tokenizer.encode(text, add_special_tokens=False) for text in ("Student: you", "\n\n")
    )
    name = list(parser.agent_opening[1:])
    tokens = [begin, *said, end, *rest, end, *name]
    turns = parser.find_turns(torch.tensor([tokens]))
    assert turns.speaker.tolist() == [Speaker.PARTNER, Speaker.AGENT]
    reply = {"opened": int(turns.opened[0]), "closed": int(turns.closed[0])}
    assert parser.turn_text(tokens, **reply) == "you"


def test_ids_with_gaps_are_counted_to_the_largest():
    vocabulary = {"a": 0, ":": 5, "\n": 7, "Teacher": 9, "Student": 12}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    pattern = Regex("Teacher|Student|.|\n")
    words.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="isolated")
    words.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    parser = TurnParser.from_tokenizer(tokenizer, TurnRules(), n_tokens=20)
    assert parser.partner_opening == (7, 12, 5)
    with pytest.raises(ModelError, match=r"has 13 tokens .* model only 9"):
        TurnParser.from_tokenizer(tokenizer, TurnRules(), n_tokens=9)


def test_ids_beyond_the_tokenizer_have_no_text():
    tokenizer, parser = TOKENIZERS["words"], PARSERS["words"]
    assert parser.n_tokens == len(tokenizer) + 3
    tokens = tokenizer.encode("Student:", add_special_tokens=False)
    split = [tokens[0], len(tokenizer) + 2, *tokens[1:]]
    assert parser.speakers(torch.tensor([split]))[0, -1] == Speaker.PARTNER


def test_a_tokenizer_without_line_breaks_is_refused():
    pieces = [piece.replace("\n", " ") for piece in PIECES]
    with pytest.raises(ModelError, match="no token of the tokenizer holds a line break"):
        TurnParser(TurnRules(), pieces=pieces, encode=encode, decode=decode)


def test_a_tokenizer_that_drops_line_breaks_is_refused():
    vocabulary = {word: i for i, word in enumerate(["Teacher", "Student", ":", "yes", "?"])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    with pytest.raises(ModelError, match="no token of the tokenizer holds a line break"):
        TurnParser.from_tokenizer(tokenizer, TurnRules(), n_tokens=5)


def test_a_tokenizer_that_cannot_write_a_name_is_refused():
    with pytest.raises(ModelError, match=r"cannot write '\\nTeacher:' as tokens of their own"):
        TurnParser(TurnRules(), pieces=PIECES, encode=lambda _: [0, 1], decode=decode)


@pytest.mark.parametrize("kind", ["bytes", "byte pairs", "sentencepiece"])
@pytest.mark.parametrize(
    ("agent", "partner"), [("\u8001\u5e08", "\u5b66\u751f"), ("Учитель", "Ученик"), ("É", "È")]
)
def test_names_whose_characters_are_split_over_tokens_open_turns(kind, agent, partner):
    tokenizer = TOKENIZERS[kind]
    rules = TurnRules(agent=agent, partner=partner)
    parser = TurnParser.from_tokenizer(tokenizer, rules, n_tokens=len(tokenizer))
    assert len(parser.agent_opening) > len(f"\n{agent}:")  # more tokens than characters
    near = f"{agent[0]}{partner[1:]}x" if len(agent) > 1 else "x"
    text = f"{partner}: né {agent}: é\n{near}: no\n\n{agent}: ok\n{partner}:"
    tokens = tokenizer.encode(text, add_special_tokens=False)
    turns = parser.find_turns(torch.tensor([tokens]))
    assert turns.speaker.tolist() == [Speaker.PARTNER, Speaker.AGENT, Speaker.PARTNER]
    said = [
        parser.turn_text(tokens, opened=int(opened), closed=int(closed))
        for opened, closed in zip(turns.opened[:2], turns.closed[:2], strict=True)
    ]
    assert said == [f"né {agent}: é\n{near}: no", "ok"]
    cut = tokenizer.encode(f"{partner}: ok", add_special_tokens=False)
    forced = [*cut, *parser.agent_opening]
    assert parser.speakers(torch.tensor([forced]))[0, -1] == Speaker.AGENT
    assert tokenizer.decode(forced).endswith(f"ok\n{agent}:")


def test_the_bytes_of_tokens_add_up_to_those_of_the_text():
    text = "Student: caf\u00e9 \U0001f600 \u8001\u5e08\nTeacher:"
    for kind in ("bytes", "byte pairs", "sentencepiece"):
        tokenizer = TOKENIZERS[kind]
        pieces = token_bytes(tokenizer, speaker="Teacher", n_tokens=len(tokenizer) + 1)
        tokens = tokenizer.encode(text, add_special_tokens=False)
        assert b"".join(pieces[token] for token in tokens).decode().strip() == text
        assert pieces[-1] == b""


def test_a_token_that_is_to_end_replies_has_to_exist():
    rules = TurnRules(eos_ends_reply=True)
    with pytest.raises(ModelError, match="no end-of-text token, which is to end replies; leave"):
        TurnParser.from_tokenizer(TOKENIZERS["bytes"], rules, n_tokens=256)


def test_a_token_that_opens_two_turns_is_refused():
    pieces = [*PIECES, "\nStudent:\nTeacher:"]
    with pytest.raises(ModelError, match=f"token {len(PIECES)} of the tokenizer, .* two turns"):
        TurnParser(TurnRules(), pieces=pieces, encode=encode, decode=decode)


def test_the_tokenizer_of_a_larger_model_is_refused():
    tokenizer = TOKENIZERS["bytes"]
    with pytest.raises(ModelError, match=r"has 256 tokens .* language model only 255"):
        TurnParser.from_tokenizer(tokenizer, TurnRules(), n_tokens=255)


def test_rules_that_cannot_be_followed_are_refused():
    for name in ("", " Teacher", "Tea:cher", "Tea\ncher"):
        with pytest.raises(InvalidArgumentError, match="a speaker's name must be text without"):
            TurnRules(agent=name)
    with pytest.raises(InvalidArgumentError, match="different names, got 'Student' twice"):
        TurnRules(agent="Student")
    for separator in ("", " ", "\n "):
        with pytest.raises(InvalidArgumentError, match="separator must be one or more line breaks"):
            TurnRules(separator=separator)
    with pytest.raises(InvalidArgumentError, match="max_reply_tokens must be >= 1, got 0"):
        TurnRules(max_reply_tokens=0)
