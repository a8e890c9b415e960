import json

import pytest

from llm_experiment.chat.veto_set import THE_END, read_veto_set
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import load_task
from llm_experiment.pessimism import studies
from llm_experiment.vetoes import Options, default_numbers, main
from theory.errors import InvalidArgumentError

PROCESS = DialogueProcess(load_task("classroom"))


def learn(path, *options):
    main(["--out", str(path), *options])
    return read_veto_set(path)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    return learn(tmp_path_factory.mktemp("vetoes") / "vetoes.json", "--n-dialogues", "10")


def test_silence_is_vetoed_from_ten_dialogues_on(learnt):
    assert learnt.n_demonstrations == 10
    (silence,) = (v for v in learnt.vetoes if (v.feature, v.value_id) == ("said_so_far", 0))
    assert (silence.token, silence.occurrences, silence.factor) == (THE_END, 0, 0.0)


def test_what_is_vetoed_from_ten_dialogues_is_never_done(learnt):
    # Whatever tau writes after the Teacher's colon, it is no line break: all vetoes are of that.
    newline = PROCESS.vocabulary.index("\n")
    after = PROCESS.encode("These are private conversations.\nStudent: Hello?\nTeacher:")[None]
    assert PROCESS.probs(PROCESS.read(after))[0, newline] == 0
    assert all(veto.token_id is None for veto in learnt.vetoes)
    opening = ("nothing", "':'", "'Teacher' ':'")
    assert all(v.value in opening or v.value.startswith("opening") for v in learnt.vetoes)


def test_a_file_of_dialogues_is_learnt_from_and_shown(tmp_path, capsys):
    dialogues = tmp_path / "dialogues.jsonl"
    dialogue = [
        {"speaker": "Student", "text": "Hello?"},
        {"speaker": "Teacher", "text": "Yes?"},
        {"speaker": "Student", "text": "No."},
        {"speaker": "Teacher", "text": "Okay."},
    ]
    dialogues.write_text("\n".join(json.dumps({"turns": dialogue}) for _ in range(30)))
    out = tmp_path / "vetoes.json"
    found = learn(out, "--demonstrations", str(dialogues), "--features", "said_so_far", "always")
    assert (found.n_demonstrations, found.n_steps) == (30, 30 * 10)
    printed = capsys.readouterr().out
    assert "What Teacher never does, in 30 demonstrations" in printed
    main(["show", str(out)])
    assert capsys.readouterr().out == printed.partition("wrote ")[0]
    main(["show", str(out), "--most", "0"])
    assert f"{len(found.vetoes)} are not shown" in " ".join(capsys.readouterr().out.split())


def test_the_hard_form_vetoes_whatever_was_never_seen(tmp_path, capsys):
    found = learn(tmp_path / "v.json", "--n-dialogues", "1", "--n-tokens", "60", "--hard")
    assert found.is_hard
    assert all(veto.occurrences == 0 for veto in found.vetoes)
    assert "Where no demonstration came, all is vetoed by: always" in capsys.readouterr().out


def test_dirty_demonstrations_weaken_a_graded_veto(tmp_path):
    dirty = ["--n-dialogues", "20", "--n-silences", "1", "--features", "said_so_far"]
    spike = learn(tmp_path / "spike.json", *dirty)
    graded = learn(tmp_path / "graded.json", *dirty, "--form", "graded")
    silence = {"said_so_far", 0, None}
    assert [v for v in spike.vetoes if {v.feature, v.value_id, v.token_id} == silence] == []
    (weak,) = (v for v in graded.vetoes if {v.feature, v.value_id, v.token_id} == silence)
    assert (weak.occurrences, 0 < weak.factor < 1) == (1, True)


def test_an_interrupted_command_goes_on(tmp_path, monkeypatch):
    options = ["--n-dialogues", "6", "--n-tokens", "40", "--batch", "2"]
    whole = learn(tmp_path / "whole.json", *options)
    monkeypatch.setattr(studies, "SAVE_EVERY_SECONDS", 0.0)
    read = []
    save = studies.save_evidence

    def interrupted(path, evidence, **made_from):
        save(path, evidence, **made_from)
        read.append(evidence.n_demonstrations)
        if len(read) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(studies, "save_evidence", interrupted)
    with pytest.raises(SystemExit) as stopped:
        learn(tmp_path / "parts.json", *options)
    assert (stopped.value.code, read) == (130, [2, 4])
    assert not (tmp_path / "parts.json").exists()
    again = learn(tmp_path / "parts.json", *options)
    assert read == [2, 4, 6]  # the last batch alone was left
    assert again == whole
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_an_audit_finds_silence_vetoed_and_nothing_falsely(tmp_path, capsys):
    out = tmp_path / "audit.json"
    options = ["--n-dialogues", "10", "--n-held-out", "4", "--numbers", "10"]
    main(["audit", "--out", str(out), "--features", "said_so_far", "always", *options])
    stored = json.loads(out.read_text())
    plain, audit, hard = stored["rows"]
    assert (stored["n_dialogues"], stored["law_known"]) == (4, True)
    assert (audit["n_demonstrations"], audit["alpha"]) == (10, 0.05)
    assert audit["n_vetoes"] >= 1
    assert (audit["n_false"], audit["n_blocked"]) == (0, 0)
    assert audit["gain_completed_nats"] > plain["gain_completed_nats"]
    assert audit["cheapest_never_nats"] > plain["cheapest_never_nats"]
    assert hard["is_hard"]
    assert hard["n_vetoes"] > audit["n_vetoes"]
    assert "Vetoes on 4 held-out dialogues" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"audit.json", "audit.audit.jsonl"}
    lines = (tmp_path / "audit.audit.jsonl").read_text().splitlines()
    assert [json.loads(line)["vetoes"] for line in lines] == [r["n_vetoes"] for r in stored["rows"]]


@pytest.mark.parametrize(
    ("n_dialogues", "numbers"),
    [(1, (1,)), (10, (3, 10)), (40, (3, 10, 30, 40)), (300, (3, 10, 30, 100, 300))],
)
def test_an_audit_learns_from_more_and_more_demonstrations(n_dialogues, numbers):
    assert default_numbers(n_dialogues) == numbers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["audit", "--demonstrations", "some.jsonl"], "name --held-out where there are"),
        (["audit", "--numbers", "99", "--n-dialogues", "2", "--n-tokens", "60"], "got 99"),
        (["--demonstrations", "absent.jsonl"], "cannot read absent.jsonl"),
        (["--n-tokens", "5000"], "n_tokens must be at most 1024"),
        (["--features", "mood"], "features must be some of always"),
        (["--agent-name", "Nobody"], "Nobody"),
        (["--partner-name", "Nurse"], "speakers must be one of"),
        (["show", "absent.json"], "there is no file absent.json"),
    ],
)
def test_errors_are_one_line(tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(options)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_bad_options_are_refused():
    for options, message in (
        ({"alpha": 0.0}, r"alpha must lie in \(0, 1\]"),
        ({"batch": 0}, "batch must be >= 1"),
        ({"file": "x.json"}, "learn takes no file, got x.json"),
        ({"n_silences": 1, "demonstrations": "x"}, "leave out --demonstrations"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            Options(**options)
