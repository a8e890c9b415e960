"""Tasks are data: which make sense, and how a new one is found."""

from dataclasses import replace

import pytest

from llm_experiment.dialogue.task import (
    Silence,
    load_task,
    parse_template,
    task_names,
)
from tests.llm_experiment.fakes.tiny_task import TINY_TASK
from theory.errors import InvalidArgumentError


def test_tasks_are_found_by_name():
    for name in task_names():
        assert load_task(name).name == name
    assert "classroom" in task_names()
    with pytest.raises(InvalidArgumentError, match=r"unknown task 'moon'; there are .*classroom"):
        load_task("moon")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"style_redraw": 1.5}, r"style_redraw must lie in \[0, 1\], got 1.5"),
        ({"positive": {"fair": 2.0, "foul": 0.0}}, r"positive\['fair'\] must lie in \[0, 1\]"),
        ({"positive": {"fair": 0.5}}, r"positive must name the moods \('fair', 'foul'\)"),
        ({"pairs": (("Ann", "Ann"),)}, "two different roles, got"),
        ({"pairs": (("Ann", "Dan"),)}, "two different roles, got"),
        ({"pairs": (("Ann", "Bob"), ("Bob", "Ann"))}, "a pair must be listed once"),
        ({"partner": "Cyd"}, "must be one of the pairs"),
        ({"note": "Ann.\n"}, "the note must name no role"),
        ({"note": "Talk.  \n"}, "single spaces before words"),
        ({"roles": TINY_TASK.roles | {"Al Bo": TINY_TASK.roles["Ann"]}}, "must be one word"),
        ({"roles": TINY_TASK.roles | {"Ann": replace(TINY_TASK.roles["Ann"], styles={})}}, "least"),
        (
            {"roles": TINY_TASK.roles | {"Bob": replace(TINY_TASK.roles["Bob"], styles={"x": 1})}},
            "'x' is not among",
        ),
        (
            {
                "roles": {
                    **TINY_TASK.roles,
                    "Bob": replace(TINY_TASK.roles["Bob"], styles={"cold": -1}),
                }
            },
            "weight of 'cold' must be > 0, got -1",
        ),
        ({"slots": TINY_TASK.slots | {"very": ("{good}",)}}, "holds itself"),
        ({"slots": {"good": ("good",)}}, "has no phrases"),
        ({"slots": TINY_TASK.slots | {"very": ("a:b",)}}, "cannot read the template"),
    ],
)
def test_a_task_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(InvalidArgumentError, match=message):
        replace(TINY_TASK, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"says": {"fair": (), "foul": ("No.",)}}, "has no template for 'fair'"),
        ({"says": {"fair": ("{very}",), "foul": ("No.",)}}, "may be empty"),
        ({"says": {"fair": ("Hello Bob.",), "foul": ("No.",)}}, "names a role"),
        ({"says": {"fair": ("{oh}",), "foul": ("No.",)}}, r"slot \{oh\} has no phrases"),
        ({"says": {"empty": ("No.",), "fair": ("Yes.",), "foul": ("No.",)}}, "no mood of a turn"),
        ({"replies": {"start": {"fair": 1}}}, "must reply to the moods"),
    ],
)
def test_a_style_that_makes_no_sense_is_refused(changes, message):
    warm = replace(TINY_TASK.styles["warm"], **changes)
    styles = TINY_TASK.styles | {"warm": warm}
    positive = {mood: 0.5 for style in styles.values() for mood in style.says}
    with pytest.raises(InvalidArgumentError, match=message):
        replace(TINY_TASK, styles=styles, positive=positive)


def test_a_probability_of_silence_must_be_one():
    with pytest.raises(InvalidArgumentError, match=r"Silence.after_empty must lie in \[0, 1\]"):
        Silence(unprompted=0, after_empty=1.2, once_silent=0)


def test_a_template_knows_words_marks_and_slots_only():
    assert parse_template("So, {x} don't!") == (" So", ",", ("x",), " don't", "!")
    for text in ("{x", "a: b", "a\nb", "{}"):
        with pytest.raises(InvalidArgumentError, match="cannot read the template"):
            parse_template(text)
