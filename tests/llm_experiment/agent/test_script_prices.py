"""Prices of scripts, and how phrases become tokens."""

import math
from dataclasses import replace

import numpy as np
import pytest

from llm_experiment.agent.script_prices import (
    ScriptPrice,
    behaviours,
    encode_phrases,
    price_script,
    rank_correlation,
)
from llm_experiment.agent.scripts import Cycle, Echo, Say, Then
from llm_experiment.base.training import (
    transcript_tokenizer,
)
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import load_task
from tests.llm_experiment.fakes.small_world import (
    COLON,
    NEWLINE,
    NO,
    PIECES,
    PLEASE,
    YES,
    S,
    T,
    small_world,
)
from tests.llm_experiment.fakes.tiny_hf import byte_level_tokenizer, sentencepiece_tokenizer
from theory.errors import InvalidArgumentError

TOKENIZER = transcript_tokenizer(DialogueProcess(load_task("classroom")))
SMALL = {"n_episodes": 12, "n_tokens": 80, "free_turns": 1, "n_turns": 2, "seed": 0}


def certain_world():
    """The agent's first word is `yes` or nothing; what follows anything else is certain."""
    table = np.full((len(PIECES),) * 2, -np.inf)
    for before, after in ((T, COLON), (S, COLON), (YES, NEWLINE), (NO, NEWLINE), (PLEASE, YES)):
        table[before, after] = 0.0
    table[COLON, [YES, NEWLINE]] = np.log([0.75, 0.25])
    table[NEWLINE, [S, T]] = np.log(0.5)
    return small_world(table)


def test_the_price_of_a_script_is_its_surprise_turn_by_turn():
    world = certain_world()
    yes = price_script(world, "yes", Say((YES,)), **SMALL)
    nothing = price_script(world, "silence", Say(()), **SMALL)
    for found, first_word in ((yes, 0.75), (nothing, 0.25)):
        turn = -math.log(first_word) - math.log(0.5)
        assert found.turn_nats == pytest.approx([turn, turn], rel=1e-6)
        assert found.total_nats == pytest.approx([2 * turn] * 3, rel=1e-6)
    assert nothing.length_bits == 3.0
    assert 0 < yes.n_contexts <= 12
    assert 0 <= yes.reward_mean <= 1


def test_what_the_base_policy_never_says_has_an_infinite_price_and_no_context():
    found = price_script(certain_world(), "no", Say((NO,)), **SMALL)
    assert found.n_contexts == 0
    assert found.total_nats == found.turn_nats == ()


def test_dialogues_too_short_for_the_script_have_no_price_and_no_reward():
    found = price_script(certain_world(), "yes", Say((YES,)), **SMALL | {"n_tokens": 7})
    assert found.n_contexts == 0
    assert math.isnan(found.reward_mean)


def test_behaviours_are_silence_echoes_phrases_and_patterns_of_them():
    found = behaviours({"yes": (YES,), "no please": (NO, PLEASE)})
    kinds = {type(script) for script in found.values()}
    assert kinds == {Say, Echo, Cycle, Then}
    assert found["silence"].turn(5, (NO,)) == ()
    assert found["no please"].turn(5, (NO,)) == (NO, PLEASE)
    assert found["first word of yes x4"].turn(0, ()) == (YES,) * 4
    alternating = found["yes / no please"]
    assert [alternating.turn(i, ()) for i in range(3)] == [(YES,), (NO, PLEASE), (YES,)]
    assert set(behaviours({"yes": (YES,)})) >= {"silence", "echo", "yes"}


def test_phrases_are_written_as_the_tokenizer_writes_them():
    world = small_world()
    vocabulary = DialogueProcess(load_task("classroom")).vocabulary
    world = replace(world, base=_OfSize(len(vocabulary)))
    found = encode_phrases(TOKENIZER, (" Yes.", " Good!"), world=world)
    assert [[vocabulary[x] for x in tokens] for tokens in found.values()] == [
        [" Yes", "."],
        [" Good", "!"],
    ]
    for phrase in (" Zebra.", " Yes.\nStudent:", ""):
        with pytest.raises(InvalidArgumentError, match="must be one line that the tokenizer can"):
            encode_phrases(TOKENIZER, (phrase,), world=world)
    with pytest.raises(InvalidArgumentError, match="beyond the base model's 3"):
        encode_phrases(TOKENIZER, (" Yes.",), world=replace(world, base=_OfSize(3)))


@pytest.mark.parametrize("make", [byte_level_tokenizer, sentencepiece_tokenizer])
def test_a_phrase_adds_just_itself_to_the_colon_whatever_blanks_the_tokenizer_adds(make):
    tokenizer = make("Student: Hello?\nTeacher: Yes. Good!\n" * 3, vocab_size=300)
    world = replace(small_world(), base=_OfSize(len(tokenizer)))
    before = tokenizer.encode("Teacher:", add_special_tokens=False)
    for phrase in (" Yes.", " Good!"):
        ((_, tokens),) = encode_phrases(tokenizer, (phrase,), world=world).items()
        assert tokenizer.decode([*before, *tokens]) == f"Teacher:{phrase}"


class _OfSize:
    def __init__(self, n_tokens):
        self.n_tokens = n_tokens


def priced(bits, nats):
    return ScriptPrice(
        name=f"{bits}",
        length_bits=bits,
        n_contexts=1,
        total_nats=(nats,) * 3 if nats else (),
        turn_nats=(nats,) if nats else (),
        reward_mean=math.nan,
    )


def test_the_rank_correlation_is_of_order_alone():
    assert rank_correlation([priced(1, 5.0), priced(2, 6.0), priced(9, 70.0)]) == 1.0
    assert rank_correlation([priced(1, 9.0), priced(2, 6.0), priced(9, 0.5)]) == -1.0
    assert math.isnan(rank_correlation([priced(1, 5.0), priced(2, 6.0), priced(9, None)]))
