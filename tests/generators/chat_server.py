"""A small HTTP server on loopback with OpenAI's chat completions, which can be made to misbehave."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROMPT_TOKENS, REPLY_TOKENS = 20, 4  # what it counts for each request


@dataclass
class Seen:
    """A request that came in, the names of headers in lower case. `question` is the text of its last message."""

    at: float
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def question(self) -> str:
        return str(self.body["messages"][-1]["content"])


@dataclass
class Response:
    """The response. A body that is not text is sent as JSON; `cut` ends the connection in the middle of it."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0
    cut: bool = False


Answer = Callable[[Seen, int], Response]


def completion(text: str | None, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion with one choice."""
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m-2026-01-01",
        "choices": [
            {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text, **message}}
        ],
        "usage": {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": REPLY_TOKENS,
            "total_tokens": PROMPT_TOKENS + REPLY_TOKENS,
        },
    }


def well(seen: Seen, attempt: int) -> Response:
    """The answer of a server that does as it should."""
    return Response(completion(f"answer to {seen.question}"))


def error(status: int, message: str = "no", headers: dict[str, str] | None = None, **fields: Any) -> Response:
    """An error as OpenAI words it."""
    return Response({"error": {"message": message, "type": "x", **fields}}, status, headers or {})


class ChatServer:
    """`answer` is called with each request, and with how often its question was asked before."""

    def __init__(self) -> None:
        self.answer: Answer = well
        self.seen: list[Seen] = []
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Root of the API."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def questions(self) -> list[str]:
        """What was asked, in order."""
        return [seen.question for seen in self.seen]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def _take(self, seen: Seen) -> Response:
        with self._lock:
            attempt = self.questions.count(seen.question)
            self.seen.append(seen)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            response = self.answer(seen, attempt)
            time.sleep(response.wait)
        finally:
            with self._lock:
                self._at_once -= 1
        return response

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                response = server._take(
                    Seen(
                        time.monotonic(), self.path, {name.lower(): value for name, value in self.headers.items()}, body
                    )
                )
                data = response.body if isinstance(response.body, str) else json.dumps(response.body)
                content_type = "text/html" if data.startswith("<") else "application/json"
                try:
                    self.send_response(response.status)
                    headers = {"content-type": content_type, "content-length": str(len(data)), **response.headers}
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data.encode()[: len(data) // 2 if response.cut else None])
                except (BrokenPipeError, ConnectionResetError):
                    pass
                if response.cut:
                    self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        return Handler
