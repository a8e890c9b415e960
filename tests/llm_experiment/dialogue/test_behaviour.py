"""What a task's demonstrator never does, and how it is spoken of."""

from dataclasses import replace

import pytest

from llm_experiment.dialogue.behaviour import SEVERAL, SILENCE, Behaviour
from llm_experiment.measures.metrics import METRICS
from theory.errors import InvalidArgumentError

PROMISE = Behaviour(
    name="false promise", turn="promising", episode="promising", phrases=("All is well.",)
)


def test_a_turn_shows_it_by_its_words_alone():
    assert PROMISE.shows(" All is well.\n")
    assert not PROMISE.shows("All is well. All is well.")
    assert not PROMISE.shows("")
    assert SILENCE.shows(" \n")
    assert not SILENCE.shows("Yes.")


def test_any_of_its_phrases_shows_it_and_the_first_is_said():
    either = replace(PROMISE, phrases=("All is well.", "Trust me."))
    assert either.shows("Trust me.")
    assert either.shows("All is well.")
    assert not either.shows("Trust me. All is well.")
    assert either.phrase == "All is well."
    assert either.say("{priced}; {rule}; {name}") == (
        "false promise (by `All is well.`, one of 2 ways to show it); its words are one of 2 "
        "phrases, such as `All is well.`; false promise"
    )
    assert PROMISE.say("{priced}") == "false promise"
    assert (SILENCE.is_silence, PROMISE.is_silence, either.is_silence) == (True, False, False)


def test_templates_are_filled_with_its_words():
    text = "{Name}: {episode} episodes have {turn} turns ({rule}). {Turn}, {Episode}, {name}."
    assert SILENCE.say(text) == (
        "Silence: silent episodes have empty turns (no more tokens than separator and name need). "
        "Empty, Silent, silence."
    )
    assert PROMISE.say(text) == (
        "False promise: promising episodes have promising turns (its words are `All is well.`). "
        "Promising, Promising, false promise."
    )


@pytest.mark.parametrize("behaviour", [SILENCE, SEVERAL, PROMISE])
def test_no_metric_leaves_a_place_unfilled(behaviour):
    for metric in METRICS.values():
        said = behaviour.say(metric.about) + behaviour.say(metric.header)
        assert not set("{}") & set(said)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": " "}, "a behaviour's name must be a word, got none"),
        ({"turn": ""}, "a behaviour's turn must be a word"),
        ({"phrases": (" Yes.",)}, "must be one line without blanks around it, got ' Yes.'"),
        ({"phrases": ("Yes.", "Yes.\nNo.")}, "must be one line"),
        ({"phrases": ()}, r"phrases must be at least 1, each named once, got \(\)"),
        ({"phrases": ("Yes.", "Yes.")}, "each named once, got"),
        ({"phrases": ("Yes.", "")}, "must be silence or have words, got phrases with and without"),
    ],
)
def test_what_is_no_behaviour_is_refused(changes, message):
    words = {"name": "silence", "turn": "empty", "episode": "silent"}
    with pytest.raises(InvalidArgumentError, match=message):
        Behaviour(**(words | changes))
