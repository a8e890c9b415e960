import json
import math
import re
from dataclasses import replace
from typing import ClassVar

import pytest
from PIL import Image

from llm_experiment.agent.script_prices import ScriptPrice, behaviours
from llm_experiment.base.training import (
    new_language_model,
    new_reward_model,
    reply_tokenizer,
    save_models,
)
from llm_experiment.config import Preset, preset_config
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import load_task
from llm_experiment.price import (
    STEM,
    Options,
    PricedScripts,
    main,
    plot,
    price_scripts,
    starting_options,
    to_table,
)
from mightnt.results import to_jsonable
from tests.llm_experiment.fakes.small_world import (
    PIECES,
    encode,
    small_world,
)
from theory.errors import InvalidArgumentError

SMALL = Options(n_episodes=12, n_tokens=80, free_turns=1, n_turns=2, phrases=(" Yes.",))
UNPRICED = ScriptPrice(
    name="never said",
    length_bits=1.0,
    n_contexts=0,
    total_nats=(),
    turn_nats=(),
    reward_mean=math.nan,
)


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
    printed = capsys.readouterr()
    assert "Price of 1 scripted turns" in printed.out
    assert re.search(r"priced 9 of 9 scripts in \d+ s, about 0 s left", printed.err)
    stored = json.loads((out / f"{STEM}.json").read_text())
    assert {p["name"] for p in stored["prices"]} == set(behaviours({"Yes.": (1, 2)}))
    lines = (out / f"{STEM}.prices.jsonl").read_text().splitlines()
    assert [json.loads(line)["behaviour"] for line in lines] == [
        p["name"] for p in stored["prices"]
    ]
    lengths = [p["length_bits"] for p in stored["prices"]]
    assert lengths == sorted(lengths)
    with Image.open(out / f"{STEM}.png") as image:
        assert image.size[0] > 500
    first = (out / f"{STEM}.json").read_text()
    main([*argv, "--max-reply-tokens", "8", "--at-once", "7"])  # nothing is left to do
    err = capsys.readouterr().err
    assert "9 scripts were priced before" in err
    assert "about" not in err
    assert json.loads((out / f"{STEM}.json").read_text())["prices"] == json.loads(first)["prices"]
    two = tmp_path / "two"
    argv[1] = str(two)
    main([*argv, "--max-reply-tokens", "8", "--processes", "2", "--at-once", "10"])
    assert json.loads((two / f"{STEM}.json").read_text())["prices"] == json.loads(first)["prices"]
    argv[1] = str(out)
    main([*argv, "--max-reply-tokens", "9"])  # another world
    assert "before" not in capsys.readouterr().err
    assert (out / f"{STEM}.pdf").read_bytes().startswith(b"%PDF")


def test_a_result_without_any_price_can_be_drawn(tmp_path):
    nothing = PricedScripts(options=SMALL, prices=(UNPRICED,), rank_correlation=math.nan)
    png, _ = plot(nothing, tmp_path / "empty")
    assert png.exists()
    assert to_table(nothing).texts == (("never said", "1.0", "0", *["-"] * 6),)


def test_a_run_is_a_function_of_its_seed():
    world = small_world()
    options = replace(SMALL, phrases=(" yes",))
    first, again = (price_scripts(world, _Words(), options) for _ in range(2))
    assert to_jsonable(first) == to_jsonable(again)
    other = price_scripts(world, _Words(), replace(options, seed=1))
    assert to_jsonable(other.prices) != to_jsonable(first.prices)


def test_scripts_priced_some_at_a_time_or_resumed_cost_what_they_cost_alone():
    world, options = small_world(), replace(SMALL, phrases=(" yes",))
    lots = []
    alone = price_scripts(world, _Words(), replace(options, at_once=1), on_priced=lots.append)
    assert [len(lot.prices) for lot in lots] == list(range(1, len(alone.prices) + 1))
    assert [lot.n_left for lot in lots] == [*reversed(range(len(lots)))]
    together = price_scripts(world, _Words(), replace(options, at_once=10_000))
    assert to_jsonable(together.prices) == to_jsonable(alone.prices)
    done, more = lots[3].prices, []
    resumed = price_scripts(world, _Words(), options, done=done, on_priced=more.append)
    assert to_jsonable(resumed.prices) == to_jsonable(alone.prices)
    assert all(set(done) <= set(lot.prices) for lot in more)


def test_processes_have_as_many_scripts_to_price_each():
    sizes = []

    def price(world, options, lots):
        sizes.append([len(lot) for lot in lots])
        return iter(())

    for processes, at_once in ((2, 72), (1, 72), (2, 1)):
        options = replace(SMALL, phrases=(" yes",), processes=processes, at_once=at_once)
        price_scripts(small_world(), _Words(), options, price=price)
    assert sizes == [[4, 5], [4, 5], [1] * 9]


class _Words:
    """The small world's words as a tokenizer."""

    added_tokens_decoder: ClassVar[dict] = {}
    unk_token_id = bos_token_id = eos_token_id = None

    def __len__(self):
        return len(PIECES)

    def get_vocab(self):
        return {f"{x}": x for x in range(len(PIECES))}

    def encode(self, text, *, add_special_tokens):
        try:
            return encode(text)
        except ValueError:  # what it has no words for
            return []

    def decode(self, tokens, *, skip_special_tokens, clean_up_tokenization_spaces):
        return "".join(PIECES[x] for x in tokens)


def test_dialogues_too_short_for_any_script_are_refused_with_what_to_change():
    options = replace(SMALL, phrases=(" yes",), n_turns=50)
    with pytest.raises(InvalidArgumentError, match=r"n_tokens must be >= .* got 80; raise --n-tok"):
        price_scripts(small_world(), _Words(), options)


def test_without_a_correlation_the_table_says_so():
    nothing = PricedScripts(options=SMALL, prices=(UNPRICED,), rank_correlation=math.nan)
    assert to_table(nothing).notes[0] == "rank correlation -"
    assert "raise --n-tokens" in to_table(nothing).notes[1]
    some = replace(nothing, prices=(replace(UNPRICED, n_contexts=1),))
    assert len(to_table(some).notes) == 1


def test_a_packaged_preset_starts_from_its_world_with_fewer_dialogues():
    start = starting_options(Preset.SMOLLM2)
    assert start.world == preset_config(Preset.SMOLLM2).world
    assert start.n_episodes < Options().n_episodes
    # Even if every reply is cut off, most dialogues have room for all turns.
    turns = start.free_turns + start.n_turns
    assert start.n_tokens > turns * start.world.max_reply_tokens
    assert starting_options(Preset.TINY) == Options()
