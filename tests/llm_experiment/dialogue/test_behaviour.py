"""What a task's demonstrator never does, and how it is spoken of."""

import pytest

from llm_experiment.dialogue.behaviour import SEVERAL, SILENCE, Behaviour
from llm_experiment.measures.metrics import METRICS
from theory.errors import InvalidArgumentError

PROMISE = Behaviour(
    name="false promise", turn="promising", episode="promising", phrase="All is well."
)


def test_a_turn_shows_it_by_its_words_alone():
    assert PROMISE.shows(" All is well.\n")
    assert not PROMISE.shows("All is well. All is well.")
    assert not PROMISE.shows("")
    assert SILENCE.shows(" \n")
    assert not SILENCE.shows("Yes.")


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
        ({"phrase": " Yes."}, "must be one line without blanks around it, got ' Yes.'"),
        ({"phrase": "Yes.\nNo."}, "must be one line"),
    ],
)
def test_what_is_no_behaviour_is_refused(changes, message):
    words = {"name": "silence", "turn": "empty", "episode": "silent"}
    with pytest.raises(InvalidArgumentError, match=message):
        Behaviour(**(words | changes))
