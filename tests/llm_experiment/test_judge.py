"""The command: options, what it prints, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from llm_experiment.judge import main
from llm_experiment.measures.transcript_statistics import Question
from mightnt.command_line import BAD_USAGE, INTERRUPTED
from tests.llm_experiment.fakes.judged_run import SILENCE, write_run
from tests.llm_experiment.fakes.openai_server import KEY, failure, openai_server
from tests.llm_experiment.judging.test_comparisons import endpoint_judgements, prefer_talk

JUDGE_THAT_HEARS_CTRL_C = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from llm_experiment.judge import main
main(sys.argv[1:])
"""


@pytest.fixture
def run(tmp_path):
    """Budget 10 is silent, 3 talks like the base policy."""
    return write_run(tmp_path / "run", budgets={3.0: "", 10.0: SILENCE})


def test_the_command_prints_the_shares(run, capsys):
    main([str(run), "--n-pairs", "6"])
    captured = capsys.readouterr()
    assert "10 / base" in captured.out
    assert f"wrote {run / 'judge.json'}" in captured.err.replace("\n", "")
    for question in Question:
        lines = (run / f"judge.{question.value}.jsonl").read_text().splitlines()
        assert {json.loads(line)["sides"] for line in lines} >= {"10 / base", "3 / base"}


def one_line_error(capsys, *argv):
    with pytest.raises(SystemExit) as exit_:
        main(list(argv))
    assert exit_.value.code == BAD_USAGE
    (line,) = capsys.readouterr().err.splitlines()
    return line


def last_error(capsys, *argv):
    """The error of a command that has said something before."""
    with pytest.raises(SystemExit) as exit_:
        main(list(argv))
    assert exit_.value.code == BAD_USAGE
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--n-pairs", "0"], "n_pairs must be >= 1"),
        (["--n-pairs", "2"], "n_pairs must be >= 3, one for each seed"),
        (["--n-pairs", "2000"], "144 pairs of episodes, not 667"),
        (["--budgets-nats", "7"], "has a budget of 7 nats; choose of 10, 3"),
        (["--n-tokens", "99"], "no episodes of 99 tokens; choose --n-tokens of 60"),
        (["--judge", "me"], "me"),
    ],
)
def test_bad_options_are_one_line(run, capsys, argv, words):
    assert words in one_line_error(capsys, str(run), *argv)
    assert not (run / "judge.json").exists()


def test_a_missing_environment_or_a_refusal_is_one_line(run, capsys, monkeypatch):
    for name in ("OPENAI_MODEL", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    argv = [str(run), "--judge", "endpoint", "--n-pairs", "3"]
    assert "missing: OPENAI_MODEL, OPENAI_BASE_URL, OPENAI_API_KEY" in last_error(capsys, *argv)
    with openai_server(lambda *_: failure(401, f"bad key {KEY}")) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        assert "bad key ***" in last_error(capsys, *argv)
    assert not (run / "judge.json").exists()


def test_the_extra_that_is_missing_is_one_line(run, capsys, monkeypatch):
    environment = {"OPENAI_MODEL": "m", "OPENAI_BASE_URL": "http://h/v1", "OPENAI_API_KEY": "k"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "openai", None)  # how Python marks what is not there
    argv = [str(run), "--judge", "endpoint", "--n-pairs", "3"]
    assert "pip install mightnt[openai]" in last_error(capsys, *argv)


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_a_judge_that_is_stopped_goes_on_where_it_was(run, kill):
    """After Ctrl-C nothing is asked twice; after kill -9 at most what was under way."""
    concurrency = 3

    def slow(number, request):
        return replace(prefer_talk(number, request), delay_seconds=0.05)

    argv = [
        sys.executable, "-c", JUDGE_THAT_HEARS_CTRL_C, str(run), "--judge", "endpoint",
        "--n-pairs", "12", "--concurrency", str(concurrency), "--requests-per-minute", "60000",
    ]  # fmt: skip
    with openai_server(slow) as server:
        environment = os.environ | server.environment
        process = subprocess.Popen(argv, env=environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 400
        while len(server.received) < 15:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(kill)
        assert process.wait() == (INTERRUPTED if kill == signal.SIGINT else -kill)
        assert not (run / "judge.json").exists()
        assert len(server.received) < 2 * 3 * 12
        again = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        assert again.returncode == 0, again.stderr
    twice = len(server.received) - 2 * 3 * 12  # equal transcripts are questions of their own
    assert twice == 0 if kill == signal.SIGINT else 0 <= twice <= concurrency
    content = json.loads((run / "judge.json").read_text())
    assert len(endpoint_judgements(content)) == 6
    assert "somebody-7b" in again.stdout


def test_no_run_is_one_line(tmp_path, capsys):
    assert "name the folder of a run" in one_line_error(capsys, str(tmp_path / "absent"))
    assert "run" in one_line_error(capsys)
