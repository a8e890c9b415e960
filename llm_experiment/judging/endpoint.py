"""Ask a language model at a server that speaks OpenAI's protocol, and keep every answer.

Which model, where, and with what key, the environment says: `OPENAI_MODEL`, `OPENAI_BASE_URL`
(such as `https://api.openai.com/v1` or `http://localhost:8000/v1`) and `OPENAI_API_KEY` (any word
for a server that wants none). The key goes into requests and nowhere else: not into files, and
out of whatever the server says.

Answers are kept on disk as they come, by the hash of all that was asked: server, model,
temperature, messages, and for messages that occur several times in one call the number of the
occurrence, so that each is a draw of its own. What is kept is never asked again. After Ctrl-C the
questions under way are waited for and kept too.

Failures that may pass (status 408, 409, 429 or from 500 on, timeouts, lost connections) are tried
again by the client library, with exponential back-off and as the server's `Retry-After` says;
every try waits for its turn under the rate limit. Any other failure, and one try too many, ends
the call with one line.
"""

import hashlib
import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from llm_experiment.config import at_least
from llm_experiment.judging.prompt import Message
from theory.errors import InvalidArgumentError, ModelError, ResultsError

if TYPE_CHECKING:
    import openai

MODEL_VARIABLE: Final = "OPENAI_MODEL"
URL_VARIABLE: Final = "OPENAI_BASE_URL"
KEY_VARIABLE: Final = "OPENAI_API_KEY"
HIDDEN: Final = "***"
_SHORTEST_SECRET: Final = 8
"""Servers without keys are given words like `EMPTY`; hiding those would garble answers."""
_NOT_IN_KEYS: Final = frozenset(" \"'\\")
"""What a server's message may spell differently, so that the key could not be found in it."""
_LONGEST_MESSAGE: Final = 200
_CONTENT_FILTER: Final = "content_filter"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A language model somewhere.

    Attributes:
        model: its name there.
        url: base of the server's paths; holds no secret.
        key: the secret that the server asks for.
    """

    model: str
    url: str
    key: str = field(repr=False)

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            complete = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # such as a port of seven digits
            complete = False
        if not complete:
            raise InvalidArgumentError(
                f"{URL_VARIABLE} must be a URL such as http://localhost:8000/v1"
            )
        if parts.username or parts.password or parts.query or parts.fragment:
            raise InvalidArgumentError(
                f"{URL_VARIABLE} must hold no user, password, query or fragment, because it is "
                f"written down; put the key into {KEY_VARIABLE}"
            )
        if not self.key.isascii() or not self.key.isprintable() or set(self.key) & _NOT_IN_KEYS:
            raise InvalidArgumentError(
                f"{KEY_VARIABLE} must be printable ASCII without blanks, quotes or backslashes"
            )

    def hide_key(self, text: str) -> str:
        """`text` without the key."""
        return text.replace(self.key, HIDDEN) if len(self.key) >= _SHORTEST_SECRET else text


def endpoint_from(environment: Mapping[str, str]) -> Endpoint:
    """The endpoint that environment variables name.

    Raises:
        InvalidArgumentError: some are missing or wrong; the message names them, not their values.
    """
    names = (MODEL_VARIABLE, URL_VARIABLE, KEY_VARIABLE)
    model, url, key = (environment.get(name, "").strip() for name in names)
    missing = [name for name, value in zip(names, (model, url, key), strict=True) if not value]
    if missing:
        raise InvalidArgumentError(
            f"judge endpoint needs the environment variables {', '.join(names)}; missing: "
            f"{', '.join(missing)}"
        )
    return Endpoint(model=model, url=url.rstrip("/"), key=key)


@dataclass(frozen=True, kw_only=True)
class AskingConfig:
    """How a language model is asked."""

    temperature: float = 1.0
    """Temperature at which the language model answers; 1 as published."""
    concurrency: int = 8
    """Questions under way at the same time."""
    requests_per_minute: float = 240.0
    """Requests sent in a minute at most, evenly spaced, repeated ones included."""
    timeout_seconds: float = 60.0
    """How long to wait for an answer before asking again."""
    max_retries: int = 6
    """How often a question is asked again after a failure that may pass."""

    def __post_init__(self) -> None:
        at_least("temperature", self.temperature, 0.0)
        at_least("concurrency", self.concurrency, 1)
        at_least("max_retries", self.max_retries, 0)
        for name in ("requests_per_minute", "timeout_seconds"):
            if not getattr(self, name) > 0:
                raise InvalidArgumentError(f"{name} must be > 0, got {getattr(self, name)}")


class _StoppedError(BaseException):
    """The call ends; no handler of failures that may pass may catch it."""


class Pace:
    """A rate limit: turns are handed out evenly spaced, to whatever threads ask.

    Args:
        per_minute: turns in a minute.
        clock: the time in seconds.
    """

    def __init__(self, per_minute: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._spacing = 60.0 / per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._next = -float("inf")

    def delay(self) -> float:
        """Take a turn; the seconds to wait for it."""
        with self._lock:
            now = self._clock()
            turn = max(now, self._next)
            self._next = turn + self._spacing
        return turn - now


class AnswerCache:
    """Answers on disk; each is there for good once `put` returns. Threads may share it.

    Args:
        path: of the SQLite file; made if need be.

    Raises:
        ResultsError: the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT) STRICT"
            )

    def __enter__(self) -> "AnswerCache":
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def put(self, key: str, answer: str | None) -> None:
        """Keep an answer; None is the answer of a model that said nothing."""
        with self._errors(), self._lock:
            self._database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, answer))

    def answers(self) -> dict[str, str | None]:
        """Everything that is kept, by key."""
        with self._errors(), self._lock:
            return dict(self._database.execute("SELECT key, answer FROM answers"))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise ResultsError(
                f"cannot use the cache of answers {self._path}: {error}; name another --cache"
            ) from error


def ask_all(
    endpoint: Endpoint,
    questions: Sequence[Sequence[Message]],
    *,
    config: AskingConfig,
    cache: Path,
    advance: Callable[[int], None],
) -> list[str | None]:
    """The answer to every question, from the cache where it has them.

    Args:
        endpoint: who is asked.
        questions: messages; equal ones are asked as often as they occur.
        config: how.
        cache: where answers are kept.
        advance: called with the number of answers found, then with 1 for each that comes.

    Returns:
        One answer a question, None where the model said nothing or the server's filter refused.

    Raises:
        ModelError: the client library is missing, or the server refuses or keeps failing; what
            was answered is kept.
        ResultsError: the cache cannot be used.
    """
    keys = question_keys(endpoint, questions, config=config)
    with AnswerCache(cache) as kept:
        known = kept.answers()
        open_ones = [
            (key, messages)
            for key, messages in zip(keys, questions, strict=True)
            if key not in known
        ]
        advance(len(keys) - len(open_ones))
        if open_ones:
            _ask_open_ones(endpoint, open_ones, config=config, kept=kept, advance=advance)
            known = kept.answers()
    return [known[key] for key in keys]


def question_keys(
    endpoint: Endpoint, questions: Sequence[Sequence[Message]], *, config: AskingConfig
) -> list[str]:
    """What each question is kept under: a hash of its content and of who is asked how."""
    seen: Counter[str] = Counter()
    keys = []
    for messages in questions:
        asked = json.dumps([endpoint.url, endpoint.model, config.temperature, list(messages)])
        seen[asked] += 1
        keys.append(hashlib.sha256(f"{seen[asked]} {asked}".encode()).hexdigest())
    return keys


def _ask_open_ones(
    endpoint: Endpoint,
    questions: Sequence[tuple[str, Sequence[Message]]],
    *,
    config: AskingConfig,
    kept: AnswerCache,
    advance: Callable[[int], None],
) -> None:
    stop = threading.Event()
    pace = Pace(config.requests_per_minute)

    def wait_for_turn(_: object) -> None:
        if stop.wait(pace.delay()):
            raise _StoppedError

    with _connect(endpoint, config, before_request=wait_for_turn) as client:

        def ask_and_keep(key: str, messages: Sequence[Message]) -> None:
            if stop.is_set():
                return
            try:
                kept.put(key, _ask(client, endpoint, config, messages))
            except _StoppedError:
                return  # another question failed, and its own answer says how
            except BaseException:
                stop.set()  # here and not where it is reported: no other question may begin
                raise

        pool = ThreadPoolExecutor(max_workers=config.concurrency)
        try:
            answers = [pool.submit(ask_and_keep, *question) for question in questions]
            for answer in as_completed(answers):
                answer.result()
                advance(1)
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _connect(
    endpoint: Endpoint, config: AskingConfig, *, before_request: Callable[[object], None]
) -> "openai.OpenAI":
    try:
        import openai  # noqa: PLC0415 - an optional library
    except ImportError:
        raise ModelError(
            "judge endpoint needs openai; install it with: pip install mightnt[openai]"
        ) from None

    return openai.OpenAI(
        api_key=endpoint.key,
        base_url=endpoint.url,
        timeout=config.timeout_seconds,
        max_retries=config.max_retries,
        http_client=openai.DefaultHttpxClient(event_hooks={"request": [before_request]}),
    )


def _ask(
    client: "openai.OpenAI", endpoint: Endpoint, config: AskingConfig, messages: Sequence[Message]
) -> str | None:
    """One answer, the key taken out.

    Raises:
        ModelError: the server refuses, keeps failing, or speaks another protocol.
    """
    import openai  # noqa: PLC0415 - an optional library

    typed: Any = list(messages)
    try:
        completion: Any = client.chat.completions.create(
            model=endpoint.model, messages=typed, temperature=config.temperature
        )
        content = completion.choices[0].message.content
    except openai.APIStatusError as error:
        if error.code == _CONTENT_FILTER:
            return None
        raise _failure(endpoint, f"status {error.status_code}, {error.message}") from None
    except openai.APIError as error:
        raise _failure(endpoint, f"{error.message} {error.__cause__ or ''}") from None
    except (ValueError, AttributeError, TypeError, LookupError):
        # The library checks types only in part, and other servers say other things.
        raise _failure(endpoint, "it sends what is no chat completion") from None
    if not isinstance(content, str):
        return None
    return endpoint.hide_key(content).encode(errors="replace").decode()


def _failure(endpoint: Endpoint, reason: str) -> ModelError:
    said = " ".join(endpoint.hide_key(reason).split())[:_LONGEST_MESSAGE]
    return ModelError(
        f"{endpoint.url} does not answer as {endpoint.model}: {said}; check {URL_VARIABLE}, "
        f"{MODEL_VARIABLE} and {KEY_VARIABLE}; answers so far are kept, and the same command goes "
        "on from there"
    )
