"""The command prints the checks, writes them, and exits with 1 if a check fails."""

import json

import pytest

import proofs_check.__main__ as command
from mightnt.command_line import BAD_USAGE
from proofs_check import checks
from proofs_check.verdict import CheckResult, Effort, Outcome, Verdict


def test_one_check_is_printed_with_its_verdict_scope_and_place(capsys):
    command.main(["--only", "pinsker", "readings-incomparable"])
    printed = capsys.readouterr().out
    assert "HOLDS pinsker" in printed
    assert "proofs_check.divergence_lemmas.pinsker" in printed
    assert "2 of 2 checks came out as stated" in printed


def test_sources_counterexamples_and_notes_are_printed(capsys):
    command.main(["--only", "simple-events-printed", "theorem1-joint-as-printed"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "source: the paper, Proposition 2" in printed
    assert "FAILS theorem1-joint-as-printed" in printed
    assert "counterexample: Delta = 1" in printed


def test_listing_runs_nothing_and_shows_the_labels(capsys, monkeypatch):
    monkeypatch.setattr(checks, "run_check", lambda *_: pytest.fail("ran a check"))
    command.main(["--list"])
    assert "pinsker" in capsys.readouterr().out


def test_json_and_markdown_are_written(tmp_path, capsys):
    command.main(
        [
            "--only",
            "pinsker",
            "--json",
            str(tmp_path / "checks.json"),
            "--markdown",
            str(tmp_path / "PROOFS.md"),
        ]
    )
    (found,) = json.loads((tmp_path / "checks.json").read_text())
    assert found["verdict"] == "HOLDS"
    assert found["passed"] is True
    assert (tmp_path / "PROOFS.md").read_text() == checks.markdown()


def test_thorough_asks_for_the_larger_scope(capsys, monkeypatch):
    efforts = []

    def record(check, effort):
        efforts.append(effort)
        return CheckResult(
            check=check, outcome=Outcome(verdict=Verdict.HOLDS, cases=1), seconds=0.0
        )

    monkeypatch.setattr(checks, "run_check", record)
    command.main(["--only", "pinsker", "--thorough"])
    command.main(["--only", "pinsker"])
    assert efforts == [Effort.THOROUGH, Effort.DEFAULT]


def test_an_unexpected_verdict_is_marked_and_exits_with_1(capsys, monkeypatch):
    def fail(check, effort):
        outcome = Outcome(verdict=Verdict.FAILS, cases=1, counterexample="here")
        return CheckResult(check=check, outcome=outcome, seconds=0.0)

    monkeypatch.setattr(checks, "run_check", fail)
    with pytest.raises(SystemExit) as exit_:
        command.main(["--only", "pinsker"])
    assert exit_.value.code == command.CHECK_FAILED
    assert "UNEXPECTED FAILS pinsker" in capsys.readouterr().out


def test_vacuous_cases_are_counted_apart(capsys, monkeypatch):
    def vacuous(check, effort):
        outcome = Outcome(verdict=Verdict.HOLDS, cases=9, vacuous=8)
        return CheckResult(check=check, outcome=outcome, seconds=0.0)

    monkeypatch.setattr(checks, "run_check", vacuous)
    with pytest.raises(SystemExit) as exit_:
        command.main(["--only", "pinsker"])
    assert exit_.value.code == command.CHECK_FAILED
    printed = " ".join(capsys.readouterr().out.split())
    assert "UNEXPECTED HOLDS pinsker SYMBOLIC, 1 informative of 9 cases" in printed
    assert "1 of 9 cases are informative; 1 and 1/2 of them are needed" in printed


def test_sabotages_are_counted_and_one_that_passes_exits_with_1(capsys, monkeypatch):
    command.main(["--only", "accounting-exact", "--sabotage"])
    assert "5 of 5 sabotages were noticed" in capsys.readouterr().out
    monkeypatch.setattr(checks, "catches", lambda check, sabotage: False)
    with pytest.raises(SystemExit) as exit_:
        command.main(["--only", "accounting-floor", "--sabotage"])
    assert exit_.value.code == command.CHECK_FAILED
    printed = capsys.readouterr().out
    assert "NOT NOTICED accounting-floor: half of every step is charged" in printed
    assert "0 of 1 sabotages were noticed" in printed


@pytest.mark.parametrize("argv", [["--only", "nonsense"], ["--fast"]])
def test_bad_options_are_one_line_with_exit_code_2(capsys, argv):
    with pytest.raises(SystemExit) as exit_:
        command.main(argv)
    assert exit_.value.code == BAD_USAGE
    assert len(capsys.readouterr().err.splitlines()) == 1
