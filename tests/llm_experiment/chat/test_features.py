from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from llm_experiment.chat.features import (
    FEATURES,
    MEMORY,
    MOST_TOKENS_AS_VALUES,
    FeatureReader,
    features_for,
    find_features,
    phrase_feature,
    token_pieces,
)
from llm_experiment.chat.turns import TurnParser, TurnRules
from tests.llm_experiment.chat.feature_oracle import features_by_text, turns_by_text
from tests.llm_experiment.chat.screenplays import PROCESS, parser, screenplay
from tests.llm_experiment.chat.test_turns import PIECES, encode, parser_of_pieces
from tests.llm_experiment.fakes.tiny_hf import byte_level_tokenizer, sentencepiece_tokenizer
from theory.errors import InvalidArgumentError

DIALOGUE = (
    "Student: Hello?\nTeacher: Yes?\nStudent: Why is it so?\nTeacher: Yes?\nStudent:\nTeacher:\n"
    "Student: Yes?\nTeacher: Yes?\nStudent: Yes, it is.\nTeacher: Yes, it is.\n It is.\nStudent:"
)
RULES = TurnRules()


def assert_read_as_in_text(turn_parser, transcripts):
    """`FeatureReader` gives at every position what the text says."""
    reader, pieces = FeatureReader(turn_parser), token_pieces(turn_parser)
    tokens = torch.as_tensor(transcripts)
    state = reader.begin(len(tokens))
    for t in range(tokens.shape[1] + 1):
        acts, values = reader.agent_acts(state), reader.values(state)
        for i, row in enumerate(tokens.tolist()):
            agent, expected = features_by_text(row[:t], pieces, turn_parser.rules)
            assert bool(acts[i]) == agent, (i, t)
            if agent:
                assert {name: int(v[i]) for name, v in values.items()} == expected, (i, t)
        if t < tokens.shape[1]:
            state = reader.advance(state, tokens[:, t])


def tokenizers():
    text = "\n".join([DIALOGUE, "Teacher: No.\n\nStudent: Okay.\n"] * 4)
    yield "bytes", byte_level_tokenizer(text, vocab_size=256)
    yield "byte pairs", byte_level_tokenizer(text, vocab_size=330)
    yield "sentencepiece", sentencepiece_tokenizer(text, vocab_size=320)


TOKENIZERS = dict(tokenizers())
every_tokenizer = pytest.mark.parametrize("name", TOKENIZERS)


def parser_of(name):
    tokenizer = TOKENIZERS[name]
    return TurnParser.from_tokenizer(tokenizer, RULES, n_tokens=len(tokenizer))


# ------------------------------------------------------------------------ what they say


@pytest.mark.parametrize("which", range(3))
def test_features_of_a_screenplay_are_those_of_its_text(which):
    assert_read_as_in_text(parser(), screenplay()[which : which + 1])


def test_features_of_dialogues_are_those_of_their_text():
    rng = np.random.default_rng(0)
    assert_read_as_in_text(parser(), PROCESS.sample(rng, 4, 120, speakers=("Teacher", "Student")))


@every_tokenizer
def test_features_are_those_of_the_text_with_any_tokenizer(name):
    tokens = TOKENIZERS[name].encode(DIALOGUE, add_special_tokens=False)
    assert_read_as_in_text(parser_of(name), [tokens])


@given(st.lists(st.integers(0, len(PIECES) - 1), max_size=40))
@example(encode("Teacher:\nStudent: x\nTeacher:\n x\n\nStudent: x\nTeacher: x"))
@example([PIECES.index(piece) for piece in ("Teacher", ":\n", "x", "\n\nStudent:", "\nTeacher: x")])
@example(encode("Student: x\nTeacher: xs\nStudent: xs\nTeacher: xs.\nStudent"))
def test_features_are_those_of_the_text_however_it_is_cut(tokens):
    assert_read_as_in_text(parser_of_pieces(), torch.tensor([tokens], dtype=torch.int64))


@given(st.lists(st.integers(0, len(PIECES) - 1), max_size=30), st.data())
@example(encode("Teacher: xs"), None)
@example([PIECES.index(piece) for piece in ("Teacher", ":\n", "x")], None)
@example([PIECES.index(piece) for piece in ("x", "\nTeacher: x", "s")], None)
def test_a_phrase_s_feature_is_whether_the_turn_so_far_is_just_that(tokens, data):
    """Drawn from what was said, so that it holds often; a token that opens may speak already."""
    turn_parser = parser_of_pieces()
    longest = min(3, len(tokens))
    length = longest if data is None else data.draw(st.integers(0, longest))
    phrase = tokens[len(tokens) - length :]
    reader = FeatureReader(turn_parser, [phrase_feature(phrase, len(PIECES))])
    ((value,),) = reader.values(reader.read(torch.tensor([tokens], dtype=torch.int64))).values()
    turns = turns_by_text(tokens, token_pieces(turn_parser), turn_parser.rules)
    now = turns[-1] if turns else None
    if now is not None:
        assert bool(value) == (list(now.tokens) == phrase and not now.rest.strip())


def test_a_turn_longer_than_the_memory_is_equal_to_no_other():
    for words, equal in ((MEMORY, 1), (MEMORY + 1, 0)):
        turn = "x" * words
        tokens = encode(f"Teacher:{turn}\nStudent:x\nTeacher:{turn}")
        reader = FeatureReader(parser_of_pieces())
        state = reader.read(torch.tensor([tokens]))
        assert int(reader.values(state)["equals_own"]) == equal
        assert_read_as_in_text(parser_of_pieces(), [tokens])


def test_transcripts_that_are_read_together_do_not_mix():
    rows = screenplay()
    reader = FeatureReader(parser())
    together = reader.values(reader.read(rows))
    for i in range(len(rows)):
        alone = reader.values(reader.read(rows[i : i + 1]))
        assert {n: int(v[i]) for n, v in together.items()} == {n: int(v) for n, v in alone.items()}


# ---------------------------------------------------------------------- what silence is


@every_tokenizer
@pytest.mark.parametrize("separator", ["\n", "\n\n", " \n", "\n \n"])
def test_silence_is_one_event_with_any_tokenizer(name, separator):
    tokenizer = TOKENIZERS[name]
    start = tokenizer.encode("Student: Hello?\nTeacher:", add_special_tokens=False)
    whole = tokenizer.encode(
        f"Student: Hello?\nTeacher:{separator}Student", add_special_tokens=False
    )
    reader = FeatureReader(parser_of(name))
    ends, opening = [], []
    for t in range(len(start), len(whole)):
        state = reader.read(torch.tensor([whole[:t]]))
        ends.append(bool(reader.ends[whole[t]]))
        opening.append(int(reader.values(state)["said_so_far"]) == 0)
    # Some token before the name ends a turn in which nothing was said.
    assert any(e and o for e, o in zip(ends, opening, strict=True))


def test_only_tokens_that_begin_with_a_line_break_end_a_turn():
    reader = FeatureReader(parser_of_pieces(), ending=[PIECES.index("x")])
    ending = {PIECES[i] for i in torch.nonzero(reader.ends)[:, 0].tolist()}
    assert ending == {
        "\n", "\n\n", " \n", "\nTeacher", "\nTeacher: x", "\n\nStudent:", "x",
    }  # fmt: skip


# ------------------------------------------------------------------------ what they cost


@pytest.mark.parametrize("n_tokens", [2, 7, 129, MOST_TOKENS_AS_VALUES, 50_000])
def test_the_priors_of_all_events_sum_to_less_than_a_half(n_tokens):
    total = 0.0
    for feature in features_for(n_tokens):
        end = 2 ** -feature.event_bits(n_tokens, ends=True)
        token = 2 ** -feature.event_bits(n_tokens, ends=False)
        total += feature.n_values(n_tokens) * (end + n_tokens * token)
    assert total < 0.5


def test_the_features_have_a_prefix_code():
    assert sum(Fraction(1, 2**feature.bits) for feature in FEATURES) <= 1
    assert len({feature.name for feature in FEATURES}) == len(FEATURES)


@pytest.mark.parametrize("n_tokens", [2, 3])
def test_with_all_phrases_the_priors_sum_to_less_than_nine_sixteenths(n_tokens):
    """Exactly, over lengths that a turn is remembered by; a length stands for its phrases."""
    table = sum(Fraction(1, 2 ** int(feature.bits)) for feature in FEATURES)
    lengths = range(MEMORY + 1)
    by_length = [n_tokens**m * 2.0 ** -phrase_feature([0] * m, n_tokens).bits for m in lengths]
    assert by_length == pytest.approx([2.0 ** -(3 + 2 * (m + 1).bit_length() - 1) for m in lengths])
    assert (float(table) + sum(by_length)) * (1 / 2 + 1 / 8) < 9 / 16


def test_a_phrase_is_named_by_its_tokens_and_said_in_clear():
    pieces = ("\n", " yes", " no")
    (feature,) = find_features(["so_far_is 1 2"], 3)
    assert feature.phrase == (1, 2)
    assert feature.name == phrase_feature([1, 2], 3).name
    assert feature.in_clear(0, pieces) == "the turn so far is not ' yes no'"
    assert feature.in_clear(1, pieces) == "the turn so far is ' yes no'"
    found = find_features(["so_far_is", "so_far_is 1", "always"], 3)
    assert [each.name for each in found] == ["always", "so_far_is", "so_far_is 1"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("so_far_is 3", r"tokens of a phrase must lie in 0\.\.2, got 3"),
        ("so_far_is x", "or 'so_far_is' and the numbers of tokens, got so_far_is x"),
        ("so_far_is" + " 1" * (MEMORY + 1), f"a phrase must have at most {MEMORY} tokens"),
    ],
)
def test_a_phrase_of_other_tokens_is_refused(name, message):
    with pytest.raises(InvalidArgumentError, match=message):
        find_features([name], 3)


def test_silence_costs_a_few_bits_whatever_the_vocabulary():
    (feature,) = find_features(["said_so_far"], 50_000)
    assert feature.event_bits(50_000, ends=True) == 3 + 2 + 1
    assert feature.event_bits(1024, ends=False) == 3 + 2 + 3 + 10


# ------------------------------------------------------------------------------ naming


def test_large_vocabularies_have_no_features_of_tokens():
    assert features_for(MOST_TOKENS_AS_VALUES) == FEATURES
    assert [f.name for f in features_for(MOST_TOKENS_AS_VALUES + 1)] == [
        f.name for f in FEATURES if not f.n_tokens_in_value
    ]


def test_values_are_said_in_clear():
    pieces = ("\n", " yes", " no")
    named = {feature.name: feature for feature in FEATURES}
    assert named["said_so_far"].in_clear(1, pieces) == "1 token"
    assert named["previous_token"].in_clear(2, pieces) == "' no'"
    assert named["previous_token"].in_clear(3, pieces) == "nothing"
    assert named["previous_two_tokens"].in_clear(1 * 4 + 2, pieces) == "' yes' ' no'"


def test_features_are_found_by_name_in_the_order_of_the_table():
    found = find_features(["previous_token", "always"], 100)
    assert [feature.name for feature in found] == ["always", "previous_token"]
    with pytest.raises(
        InvalidArgumentError, match=r"features must be some of always, .*, got mood"
    ):
        find_features(["mood"], 100)
    with pytest.raises(InvalidArgumentError, match=r"5000 tokens.*, got previous_token"):
        find_features(["previous_token"], 5000)
    with pytest.raises(InvalidArgumentError, match="got none"):
        find_features([], 100)
