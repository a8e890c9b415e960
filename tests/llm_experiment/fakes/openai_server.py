"""A server on loopback that speaks OpenAI's chat protocol, answers as told, and fails as told."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-very-secret-0123456789"
MODEL = "somebody-7b"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the server says to one request."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Received:
    """One request."""

    at_seconds: float
    path: str
    authorization: str | None
    body: dict[str, Any]

    @property
    def content(self) -> str:
        return json.dumps(self.body["messages"])

    @property
    def question(self) -> str:
        """What the user said last."""
        return str(self.body["messages"][-1]["content"])


def completion(text: str | None) -> Reply:
    """A chat completion, as the protocol has it."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
    }
    return Reply(
        body={
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": MODEL,
            "choices": [choice],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
    )


def failure(status: int, message: str = "no", *, code: str | None = None, **headers: str) -> Reply:
    """An error, as the protocol has it; the client may try again at once."""
    error = {"message": message, "type": "error", "param": None, "code": code}
    again = {"retry-after-ms": "1"} | {k.replace("_", "-"): v for k, v in headers.items()}
    return Reply(status=status, body={"error": error}, headers=again)


class Server:
    """Requests received so far, and where to send them.

    Args:
        respond: what to say to the i-th request, i = 0, 1, ...
    """

    def __init__(self, respond: Callable[[int, Received], Reply]) -> None:
        self._respond = respond
        self._lock = threading.Lock()
        self.received: list[Received] = []
        self.most_at_once = 0
        self._under_way = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer.handle(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)

    @property
    def environment(self) -> dict[str, str]:
        return {"OPENAI_MODEL": MODEL, "OPENAI_BASE_URL": self.url, "OPENAI_API_KEY": KEY}

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        size = int(handler.headers["Content-Length"])
        with self._lock:
            number = len(self.received)
            request = Received(
                at_seconds=time.monotonic(),
                path=handler.path,
                authorization=handler.headers["Authorization"],
                body=json.loads(handler.rfile.read(size)),
            )
            self.received.append(request)
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
        reply = self._respond(number, request)
        time.sleep(reply.delay_seconds)
        with self._lock:
            self._under_way -= 1
        data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        with contextlib.suppress(ConnectionError):  # the client may have given up
            handler.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@contextlib.contextmanager
def openai_server(respond: Callable[[int, Received], Reply]) -> Iterator[Server]:
    """A running server; gone at the end."""
    server = Server(respond)
    server.start()
    try:
        yield server
    finally:
        server.stop()
