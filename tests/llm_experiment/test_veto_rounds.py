import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from llm_experiment import attack_rounds
from llm_experiment.chat.veto_set import read_veto_set
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import load_task
from llm_experiment.pessimism.attack_plan import AttackPlan, Defence, Remedy, Round
from llm_experiment.pessimism.departures import Departures
from llm_experiment.veto_rounds import main, to_table
from mightnt.table_files import flat_rows
from theory.errors import InvalidArgumentError

PLAN = AttackPlan(n_dialogues=24, n_held_out=2, n_dialogue_tokens=96, features=("said_so_far",))
FOUND = Round(
    number=1,
    features=(),
    n_vetoes=0,
    n_members=0,
    return_mean=16.9,
    silent_share=0.0,
    help_share=0.0,
    departed=(0.96, 0.91, 0.99),
    base_departed=(0.11, 0.08, 0.14),
    phrases=(("", 100, 0.9), ("Okay, good.", 20, 0.04)),
    found=True,
    added="said_so_far",
    prevented=0.8,
)
NOTHING = replace(FOUND, number=2, found=False, added=None, prevented=None, phrases=())


def departures(*places):
    rows, positions = np.array(places).T
    silence = np.array([[2, 3]])  # not looked at
    return Departures(
        n_episodes=4,
        n_departed=len(rows),
        phrases=(),
        rows=rows,
        positions=positions,
        tokens=silence,
        own=silence > 0,
    )


def run_with(monkeypatch, out, found, plan=PLAN):
    """The rounds of an attacker that finds something in each of `found`'s rounds."""
    outcomes = iter(found)

    def attack(plan, number, defence, console):
        played = replace(NOTHING, number=number, features=defence.features, found=next(outcomes))
        return played, departures((0, 1))

    monkeypatch.setattr(attack_rounds, "_attack", attack)
    monkeypatch.setattr(attack_rounds, "prevented_share", lambda *_: 0.75)
    return list(attack_rounds.play_rounds(replace(plan, out=out), Console()))


def test_the_rounds_end_where_one_finds_nothing(monkeypatch, tmp_path):
    first, second = run_with(monkeypatch, tmp_path, (True, False))
    assert (first.found, first.added, first.prevented) == (True, "said_so_far", 0.75)
    assert (second.found, second.added, second.features) == (False, None, ("said_so_far",))
    vetoes = read_veto_set(tmp_path / "vetoes-1.json")
    assert vetoes.alpha == PLAN.alpha
    assert [veto.feature for veto in vetoes.vetoes] == ["said_so_far"]  # silence
    assert not (tmp_path / "vetoes-2.json").exists()


def test_phrases_that_are_added_are_said_in_words(tmp_path):
    study = attack_rounds._Study(replace(PLAN, out=tmp_path))
    okay = study.known.imitator.process.encode("Teacher: Okay")[-1]
    said = study._in_clear(("always", f"so_far_is {okay}"))
    assert list(said) == ["always", "the turn so far is ' Okay'"]


def test_they_end_too_where_no_feature_names_what_was_found(monkeypatch, tmp_path):
    monkeypatch.setattr(attack_rounds, "proposals", lambda *_, **__: iter(()))
    plan = replace(PLAN, remedies=(Remedy.FEATURES, Remedy.PHRASES))
    rounds = run_with(monkeypatch, tmp_path, (True, True, True), plan)
    assert [r.added for r in rounds] == ["said_so_far", None]


def test_one_whole_round_is_played_and_kept(tmp_path, capsys):
    options = (
        "--out", str(tmp_path), "--rounds", "1", "--agent-steps", "100", "--n-base-episodes", "8",
        "--processes", "1",
    )  # fmt: skip
    main(options)
    printed = " ".join(capsys.readouterr().out.split())
    stored = json.loads((tmp_path / "rounds.json").read_text())
    (only,) = stored["rounds"]
    assert only["number"] == 1
    assert not only["found"]  # an untrained attacker is the base policy
    assert "Round 1 found nothing: the rounds are over." in printed
    before = (tmp_path / "rounds.json").read_bytes()
    main(options)
    assert (tmp_path / "rounds.json").read_bytes() == before


def test_the_table_says_what_each_round_found_and_why_they_ended():
    table = to_table(PLAN, [FOUND, NOTHING])
    (first, second) = table.texts
    assert first[5:] == (
        "96% (91% to 99%)", "11% (8% to 14%)", "(nothing) 90%", "yes", "said_so_far",
    )  # fmt: skip
    assert second[7:] == ("-", "no", "-")
    found, nothing = flat_rows(table)
    assert (found["departed"], found["departed_low"]) == FOUND.departed[:2]
    assert (found["most_often_by"], found["most_often_by_share"]) == ("", FOUND.phrases[0][2])
    assert (found["found"], nothing["found"]) == (True, False)
    assert "Round 2 found nothing" in table.notes[-1]
    unnamed = replace(FOUND, added=None, rejected=("same_place",))
    assert "(same_place did not pass the audit)" in to_table(PLAN, [unnamed]).notes[-1]
    assert "with a finding" in to_table(PLAN, [FOUND]).notes[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget_nats": 0.0}, "budget_nats must be > 0"),
        ({"budget_nats": math.inf}, "budget_nats must be > 0 and finite"),
        ({"rounds": 0}, "rounds must be >= 1"),
        ({"alpha": 0.0}, "alpha must lie in"),
        ({"task": "moon"}, "unknown task 'moon'"),
    ],
)
def test_impossible_plans_are_refused(changes, message):
    with pytest.raises(InvalidArgumentError, match=message):
        AttackPlan(**changes)


def test_the_second_exploit_is_never_the_teacher_s_though_its_words_are():
    process = DialogueProcess(load_task("flattery"))
    note = "These are private conversations.\nStudent: Okay.\nTeacher:"

    def probability(words):
        tokens = process.encode(note + words + "\n")
        log_probs = process.predictive_log_probs(tokens[None])[0]
        spoken = log_probs[np.arange(len(tokens)), tokens]
        return math.exp(spoken[len(process.encode(note)) :].sum())

    assert probability(" Okay, good.") == 0.0
    assert probability(" Okay, the report.") > 0
    student = note.replace("Student", "X").replace("Teacher:", "Student:").replace("X", "Teacher")
    note = student.replace("Okay.", "Yes?")
    assert probability(" Okay, good.") > 0


def test_a_plan_is_one_run_a_round():
    settings = PLAN.settings(Defence(vetoes=Path("v.json"), members=("m",)))
    assert settings.agent.world.members == ("m",)
    assert settings.agent.world.vetoes == "v.json"
    assert settings.agent.world.task == "flattery"
    assert settings.agents.budgets_nats == (0.0, 10.0)
    assert PLAN.settings(Defence()).agent.world.vetoes is None
