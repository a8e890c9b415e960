import json
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from llm_experiment.agent.scripts import Cycle, Echo, Say, Then
from llm_experiment.base.training import (
    new_language_model,
    new_reward_model,
    reply_tokenizer,
    save_models,
    transcript_tokenizer,
)
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import load_task
from llm_experiment.price import (
    STEM,
    Options,
    Price,
    Result,
    behaviours,
    encode_phrases,
    main,
    plot,
    price,
    rank_correlation,
    run,
)
from mightnt.results import to_jsonable
from tests.llm_experiment.small_world import (
    COLON,
    NEWLINE,
    NO,
    PIECES,
    PLEASE,
    YES,
    S,
    T,
    encode,
    small_world,
)
from tests.llm_experiment.tiny_hf import byte_level_tokenizer, sentencepiece_tokenizer
from theory.errors import InvalidArgumentError

TOKENIZER = transcript_tokenizer(DialogueProcess(load_task("classroom")))
SMALL = Options(n_episodes=12, n_tokens=80, free_turns=1, n_turns=2, phrases=(" Yes.",))


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
    yes = price(world, "yes", Say((YES,)), SMALL, stream=0)
    nothing = price(world, "silence", Say(()), SMALL, stream=0)
    for found, first_word in ((yes, 0.75), (nothing, 0.25)):
        turn = -math.log(first_word) - math.log(0.5)
        assert found.turn_nats == pytest.approx([turn, turn], rel=1e-6)
        assert found.total_nats == pytest.approx([2 * turn] * 3, rel=1e-6)
    assert nothing.length_bits == 3.0
    assert 0 < yes.n_contexts <= 12
    assert 0 <= yes.reward_mean <= 1


def test_what_the_base_policy_never_says_has_an_infinite_price_and_no_context():
    found = price(certain_world(), "no", Say((NO,)), SMALL, stream=0)
    assert found.n_contexts == 0
    assert found.total_nats == found.turn_nats == ()


def test_dialogues_too_short_for_the_script_have_no_price_and_no_reward():
    found = price(certain_world(), "yes", Say((YES,)), replace(SMALL, n_tokens=7), stream=0)
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
    return Price(
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


def test_bad_options_are_refused():
    with pytest.raises(InvalidArgumentError, match="at least 1 text, got none"):
        Options(phrases=())
    with pytest.raises(InvalidArgumentError, match="n_turns must be >= 1"):
        Options(n_turns=0)


def test_the_command_writes_table_and_figure_of_any_base_model(tmp_path, capsys):
    process = DialogueProcess(load_task("classroom"))
    models = tmp_path / "models"
    save_models(
        models,
        process,
        new_language_model(process, seed=0),
        new_reward_model(reply_tokenizer(process), seed=0),
        {},
    )
    out = tmp_path / "out"
    argv = ["--out", str(out), "--base-model", str(models / "language_model")]
    argv += ["--reward-model", str(models / "reward_model"), "--phrases", " Yes."]
    argv += ["--n-episodes", "2", "--n-tokens", "80", "--free-turns", "1", "--n-turns", "1"]
    main([*argv, "--max-reply-tokens", "8"])
    printed = capsys.readouterr().out
    assert "Price of 1 scripted turns" in printed
    stored = json.loads((out / f"{STEM}.json").read_text())
    assert {p["name"] for p in stored["prices"]} == set(behaviours({"Yes.": (1, 2)}))
    lengths = [p["length_bits"] for p in stored["prices"]]
    assert lengths == sorted(lengths)
    with Image.open(out / f"{STEM}.png") as image:
        assert image.size[0] > 500
    assert (out / f"{STEM}.pdf").read_bytes().startswith(b"%PDF")


def test_a_result_without_any_price_can_be_drawn(tmp_path):
    nothing = Result(options=SMALL, prices=(priced(1, None),), rank_correlation=math.nan)
    png, _ = plot(nothing, tmp_path / "empty")
    assert png.exists()


def test_a_run_is_a_function_of_its_seed():
    world = small_world()
    options = replace(SMALL, phrases=(" yes",))
    first, again = (run(world, _Words(), options) for _ in range(2))
    assert to_jsonable(first) == to_jsonable(again)
    other = run(world, _Words(), replace(options, seed=1))
    assert to_jsonable(other.prices) != to_jsonable(first.prices)


class _Words:
    """The small world's words as a tokenizer."""

    def encode(self, text, *, add_special_tokens):
        try:
            return encode(text)
        except ValueError:  # what it has no words for
            return []

    def decode(self, tokens, *, skip_special_tokens, clean_up_tokenization_spaces):
        return "".join(PIECES[x] for x in tokens)
