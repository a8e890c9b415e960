"""A language model is asked over real HTTP, by the real client, on loopback."""

import collections
import logging
import math
import sqlite3
import sys
import threading
import time
import traceback
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_experiment.judging.endpoint import (
    AnswerCache,
    AskingConfig,
    Endpoint,
    Pace,
    ask_all,
    endpoint_from,
    question_keys,
)
from llm_experiment.judging.prompt import make_messages
from llm_experiment.measures.transcript_statistics import Question
from mightnt.results import to_jsonable
from tests.llm_experiment.fakes.openai_server import (
    KEY,
    MODEL,
    Reply,
    completion,
    failure,
    openai_server,
)
from theory.errors import InvalidArgumentError, ModelError, ResultsError

FAST = AskingConfig(requests_per_minute=60_000.0, concurrency=4, max_retries=3)


def questions(n):
    return [make_messages(Question.BETTER, f"one {i}", "two", agent="T") for i in range(n)]


class Asker:
    """Asks a server, with a cache of its own."""

    def __init__(self, server, tmp_path):
        self.endpoint = endpoint_from(server.environment)
        self.cache = tmp_path / "answers.sqlite"
        self.advanced = []

    def __call__(self, asked, config=FAST):
        return ask_all(
            self.endpoint, asked, config=config, cache=self.cache, advance=self.advanced.append
        )


def echo(number, request):
    """An answer that shows which question it belongs to."""
    del number
    return completion(request.question.splitlines()[3])


# ----------------------------------------------------------------- protocol


def test_every_question_is_sent_as_the_protocol_has_it_and_answered_in_order(tmp_path):
    asked = questions(20)
    with openai_server(echo) as server:
        ask = Asker(server, tmp_path)
        answers = ask(asked, replace(FAST, temperature=0.7))
    assert answers == [f"A| one {i}" for i in range(20)]
    assert collections.Counter(
        (request.path, request.authorization) for request in server.received
    ) == {("/v1/chat/completions", f"Bearer {KEY}"): 20}
    sent = {request.content: request.body for request in server.received}
    assert len(sent) == 20
    for body in sent.values():
        assert body["model"] == MODEL
        assert body["temperature"] == 0.7
        assert body["messages"] in asked
        assert set(body) == {"model", "temperature", "messages"}
    assert ask.advanced == [0] + [1] * 20


def test_a_trailing_slash_of_the_url_does_not_matter(tmp_path):
    with openai_server(echo) as server:
        ask = Asker(server, tmp_path)
        slashed = endpoint_from(server.environment | {"OPENAI_BASE_URL": f"{server.url}/"})
        assert slashed == ask.endpoint
        ask(questions(1))
    assert server.received[0].path == "/v1/chat/completions"


def test_questions_are_asked_side_by_side_but_not_more_than_allowed(tmp_path):
    together = threading.Barrier(4)

    def all_at_once(number, request):
        together.wait(timeout=60)
        return echo(number, request)

    with openai_server(all_at_once) as server:
        Asker(server, tmp_path)(questions(16), replace(FAST, concurrency=4))
    assert server.most_at_once == 4


# ----------------------------------------------------------------- the cache


def test_nothing_is_asked_twice(tmp_path):
    with openai_server(echo) as server:
        ask = Asker(server, tmp_path)
        first = ask(questions(5))
        assert ask(questions(5)) == first
        assert len(server.received) == 5
        ask(questions(8))
        assert len(server.received) == 8
        assert ask.advanced[-4:] == [5, 1, 1, 1]


def test_equal_questions_are_draws_of_their_own(tmp_path):
    with openai_server(lambda number, request: completion(f"A {number}")) as server:
        ask = Asker(server, tmp_path)
        answers = ask(questions(1) * 3, replace(FAST, concurrency=1))
        assert answers == ["A 0", "A 1", "A 2"]
        assert ask(questions(1) * 3) == answers
        assert ask(questions(1) * 2) == answers[:2]
    assert len(server.received) == 3


def test_another_model_temperature_server_or_text_is_another_question():
    endpoint = Endpoint(model="m", url="http://h/v1", key="k")
    asked = questions(2)
    keys = [
        question_keys(one, texts, config=config)[0]
        for one, texts, config in (
            (endpoint, asked, FAST),
            (replace(endpoint, model="n"), asked, FAST),
            (replace(endpoint, url="http://g/v1"), asked, FAST),
            (endpoint, asked[1:], FAST),
            (endpoint, asked, replace(FAST, temperature=0.5)),
        )
    ]
    assert len(set(keys)) == len(keys)
    # What an answer cannot depend on may change: how fast, and with which key.
    other = replace(endpoint, key="another")
    assert question_keys(other, asked, config=AskingConfig())[0] == keys[0]


def test_what_was_answered_before_a_failure_is_kept(tmp_path):
    fails = threading.Event()
    fails.set()

    def sometimes(number, request):
        return failure(400) if fails.is_set() and number >= 3 else echo(number, request)

    with openai_server(sometimes) as server:
        ask = Asker(server, tmp_path)
        with pytest.raises(ModelError, match="answers so far are kept"):
            ask(questions(10), replace(FAST, concurrency=1))
        assert len(server.received) == 4
        fails.clear()
        assert ask(questions(10)) == [f"A| one {i}" for i in range(10)]
    times = collections.Counter(request.content for request in server.received)
    assert sorted(times.values()) == [1] * 9 + [2]  # the one that failed


def test_after_ctrl_c_what_was_under_way_is_kept_and_nothing_is_asked_twice(tmp_path):
    """Ctrl-C reaches the main thread, here out of its progress report."""

    def slow(number, request):
        while len(server.received) < FAST.concurrency:
            time.sleep(0.01)
        return replace(echo(number, request), delay_seconds=0.1)

    def interrupt(n):
        if n == 1:
            raise KeyboardInterrupt

    with openai_server(slow) as server:
        ask = Asker(server, tmp_path)
        with pytest.raises(KeyboardInterrupt):
            ask_all(ask.endpoint, questions(12), config=FAST, cache=ask.cache, advance=interrupt)
        under_way = len(server.received)
        assert FAST.concurrency <= under_way < 12
        answers = ask(questions(12))
        assert ask.advanced[0] == under_way
    assert answers == [f"A| one {i}" for i in range(12)]
    assert len({request.content for request in server.received}) == len(server.received) == 12


def test_a_cache_that_cannot_be_used_is_one_line(tmp_path):
    broken = tmp_path / "broken.sqlite"
    broken.write_text("no database at all, but long enough to be taken for one" * 100)
    endpoint = Endpoint(model="m", url="http://127.0.0.1:9/v1", key="k")
    for path in (broken, broken / "below", tmp_path):
        with pytest.raises(ResultsError, match=r"cannot use the cache .*name another --cache"):
            ask_all(endpoint, questions(1), config=FAST, cache=path, advance=[].append)


def test_a_cache_is_written_by_many_threads_and_read_by_the_next_process(tmp_path):
    path = tmp_path / "answers.sqlite"
    with AnswerCache(path) as cache:
        threads = [
            threading.Thread(target=cache.put, args=(f"k{i}", f"a{i}" if i % 2 else None))
            for i in range(30)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with AnswerCache(path) as again:
        assert again.answers() == {f"k{i}": f"a{i}" if i % 2 else None for i in range(30)}


# ----------------------------------------------------------------- failures


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504])
def test_failures_that_may_pass_are_tried_again(tmp_path, status):
    def recovers(number, request):
        return failure(status) if number < 3 else echo(number, request)

    with openai_server(recovers) as server:
        assert Asker(server, tmp_path)(questions(1)) == ["A| one 0"]
    assert len(server.received) == 4


def test_the_servers_own_waiting_time_is_kept(tmp_path):
    def busy(number, request):
        return failure(429, retry_after_ms="300") if number == 0 else echo(number, request)

    with openai_server(busy) as server:
        Asker(server, tmp_path)(questions(1))
    first, second = (request.at_seconds for request in server.received)
    assert second - first >= 0.3


def test_without_advice_the_wait_grows(tmp_path):
    def silent_server(number, request):
        return Reply(status=500, body={}) if number < 2 else echo(number, request)

    with openai_server(silent_server) as server:
        Asker(server, tmp_path)(questions(1))
    gaps = [b.at_seconds - a.at_seconds for a, b in pairwise(server.received)]
    # Half a second, then twice as long, each less at most a quarter.
    assert gaps[0] >= 0.75 * 0.5
    assert gaps[1] >= 0.75 * 1.0


def test_a_timeout_is_tried_again(tmp_path):
    def slow_at_first(number, request):
        return replace(echo(number, request), delay_seconds=2.0 if number == 0 else 0.0)

    with openai_server(slow_at_first) as server:
        answers = Asker(server, tmp_path)(questions(1), replace(FAST, timeout_seconds=0.5))
    assert answers == ["A| one 0"]
    assert len(server.received) >= 2


@pytest.mark.parametrize(
    ("status", "tries"), [(400, 1), (401, 1), (403, 1), (404, 1), (422, 1), (429, 4), (500, 4)]
)
def test_a_server_that_refuses_or_keeps_failing_is_one_line(tmp_path, status, tries):
    with openai_server(lambda *_: failure(status, "no such\nthing")) as server:
        ask = Asker(server, tmp_path)
        with pytest.raises(ModelError) as error:
            ask(questions(1))
    assert len(server.received) == tries
    message = str(error.value)
    for words in (server.url, MODEL, f"status {status}", "OPENAI_API_KEY", "goes on from there"):
        assert words in message
    assert "\n" not in message


def test_a_server_that_is_not_there_is_one_line(tmp_path):
    with openai_server(echo) as server:
        ask = Asker(server, tmp_path)
    with pytest.raises(ModelError, match=r"Connection error"):
        ask(questions(1), replace(FAST, max_retries=0))


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body={"detail": "hello"}),
        Reply(body={"choices": []}),
        Reply(body={"choices": None}),
        Reply(body={"choices": [{"index": 0}]}),
        Reply(body=[1]),
        Reply(body=b"{"),
        Reply(body=b"<html>hello</html>", headers={"Content-Type": "text/html"}),
    ],
)
def test_a_server_of_another_protocol_is_one_line(tmp_path, reply):
    with openai_server(lambda *_: reply) as server, pytest.raises(ModelError, match="no chat comp"):
        Asker(server, tmp_path)(questions(1))


def test_a_model_that_says_nothing_and_a_filter_that_refuses_are_answers_too(tmp_path):
    def nothing(number, request):
        del request
        return completion(None) if number == 0 else failure(400, code="content_filter")

    with openai_server(nothing) as server:
        ask = Asker(server, tmp_path)
        one_by_one = replace(FAST, concurrency=1)
        assert ask(questions(2), one_by_one) == [None, None]
        assert ask(questions(2), one_by_one) == [None, None]
    assert len(server.received) == 2


def test_an_answer_that_is_no_text_is_kept_as_one(tmp_path):
    with openai_server(lambda *_: completion("A \ud800")) as server:
        assert Asker(server, tmp_path)(questions(1)) == ["A ?"]


# ----------------------------------------------------------------- the rate limit


@given(
    st.floats(1.0, 1000.0),
    st.lists(st.floats(0.0, 5.0), min_size=1, max_size=30),
)
def test_turns_are_evenly_spaced_and_none_waits_longer_than_it_must(per_minute, gaps):
    """With a clock that stands still but for the gaps between those who ask."""
    now = 0.0
    pace = Pace(per_minute, clock=lambda: now)
    spacing = 60.0 / per_minute
    turns = []
    for gap in gaps:
        now += gap
        delay = pace.delay()
        assert delay >= 0
        turns.append((now, now + delay))
    earliest = -math.inf
    for asked, turn in turns:
        assert turn == pytest.approx(max(asked, earliest), abs=1e-9)
        earliest = turn + spacing


def test_the_server_sees_no_more_requests_than_allowed_retries_included(tmp_path):
    def every_other_fails(number, request):
        return failure(503) if number % 2 == 0 else echo(number, request)

    config = replace(FAST, requests_per_minute=1200.0, max_retries=30)
    with openai_server(every_other_fails) as server:
        ask = Asker(server, tmp_path)
        started = time.monotonic()
        ask(questions(8), config)
    assert len(server.received) == 16
    # The i-th request is sent no earlier than i spacings of 0.05 s after the first could be.
    for i, received_at in enumerate(sorted(r.at_seconds for r in server.received)):
        assert received_at - started >= 0.05 * i - 1e-3  # what timers promise


# ----------------------------------------------------------------- the key


def tattling(number, request):
    """Servers that repeat the key: in an answer, and in messages of every kind."""
    del request
    if number == 0:
        return completion(f"A, says {KEY}")
    return failure(401, f"wrong key provided: {KEY} (Bearer {KEY})")


def test_the_key_is_in_no_answer_file_message_or_log(tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    with openai_server(tattling) as server:
        ask = Asker(server, tmp_path)
        (answer,) = ask(questions(1))
        with pytest.raises(ModelError) as error:
            ask(questions(3))
    assert answer == "A, says ***"
    assert "wrong key provided: ***" in str(error.value)
    assert KEY not in "".join(traceback.format_exception(error.value))
    assert caplog.records
    assert KEY not in caplog.text
    assert KEY not in "".join(capfd.readouterr())
    files = list(tmp_path.iterdir())
    assert files
    for path in files:
        assert KEY.encode() not in path.read_bytes()


def test_an_endpoint_shows_no_key():
    endpoint = Endpoint(model="m", url="http://h/v1", key=KEY)
    assert KEY not in repr(endpoint)
    assert KEY not in str(endpoint)
    assert KEY not in f"{to_jsonable({'model': endpoint.model, 'url': endpoint.url})}"


def test_a_word_in_place_of_a_key_does_not_garble_answers(tmp_path):
    with openai_server(lambda *_: completion("A")) as server:
        endpoint = endpoint_from(server.environment | {"OPENAI_API_KEY": "A"})
        cache = tmp_path / "c"
        assert ask_all(endpoint, questions(1), config=FAST, cache=cache, advance=[].append) == ["A"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("OPENAI_MODEL", "", "missing: OPENAI_MODEL"),
        ("OPENAI_BASE_URL", " ", "missing: OPENAI_BASE_URL"),
        ("OPENAI_API_KEY", "\n", "missing: OPENAI_API_KEY"),
        ("OPENAI_BASE_URL", "localhost:8000", "must be a URL"),
        ("OPENAI_BASE_URL", "ftp://localhost/v1", "must be a URL"),
        ("OPENAI_BASE_URL", "http://", "must be a URL"),
        ("OPENAI_BASE_URL", "http://[::1/v1", "must be a URL"),
        ("OPENAI_BASE_URL", "http://h:99999999/v1", "must be a URL"),
        ("OPENAI_BASE_URL", f"http://me:{KEY}@h/v1", "no user, password"),
        ("OPENAI_BASE_URL", f"http://h/v1?key={KEY}", "no user, password, query"),
        ("OPENAI_API_KEY", "two words", "printable ASCII"),
        ("OPENAI_API_KEY", "quoted'key", "printable ASCII"),
        ("OPENAI_API_KEY", "schlüssel", "printable ASCII"),
    ],
)
def test_an_environment_that_does_not_fit_is_one_line_without_its_values(name, value, words):
    good = {"OPENAI_MODEL": "m", "OPENAI_BASE_URL": "http://h/v1", "OPENAI_API_KEY": "k"}
    with pytest.raises(InvalidArgumentError, match=words) as error:
        endpoint_from(good | {name: value})
    assert KEY not in str(error.value)
    assert name != "OPENAI_API_KEY" or not value.strip() or value not in str(error.value)


def test_all_that_is_missing_is_named_at_once():
    with pytest.raises(InvalidArgumentError, match="missing: OPENAI_MODEL, OPENAI_BASE_URL, OPEN"):
        endpoint_from({})


def test_the_library_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)  # how Python marks what is not there
    endpoint = Endpoint(model="m", url="http://h/v1", key="k")
    with pytest.raises(
        ModelError, match=r"needs openai; install it with: pip install mightnt.open"
    ):
        ask_all(endpoint, questions(1), config=FAST, cache=tmp_path / "c", advance=[].append)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"temperature": -1.0}, "temperature must be >= 0"),
        ({"concurrency": 0}, "concurrency must be >= 1"),
        ({"max_retries": -1}, "max_retries must be >= 0"),
        ({"requests_per_minute": 0.0}, "requests_per_minute must be > 0, got 0.0"),
        ({"timeout_seconds": math.nan}, "timeout_seconds must be > 0, got nan"),
    ],
)
def test_ways_of_asking_are_validated(changes, words):
    with pytest.raises(InvalidArgumentError, match=words):
        AskingConfig(**changes)


def test_the_cache_holds_hashes_and_answers_only(tmp_path):
    """Nothing of a transcript, a server or a key is in it."""
    with openai_server(lambda *_: completion("A")) as server:
        ask = Asker(server, tmp_path)
        ask(questions(2))
    with sqlite3.connect(ask.cache) as database:
        rows = database.execute("SELECT * FROM answers").fetchall()
    database.close()
    assert sorted(rows) == sorted(
        (key, "A") for key in question_keys(ask.endpoint, questions(2), config=FAST)
    )
