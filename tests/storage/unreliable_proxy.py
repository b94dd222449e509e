"""An HTTP proxy before an S3 server that fails a share of all requests, in every way that a network or a server does.

It changes nothing that it forwards. Which requests fail is drawn by a seeded generator, in the order of arrival.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
FAULTS = (
    "503 SlowDown",
    "503",
    "429",
    "cut before",  # the server never hears of the request
    "cut after",  # the server does it, the client never hears of that
    "cut within",  # half of the answer's body
    "delay",
)


class UnreliableProxy:
    """`share` of the requests meet one of FAULTS; `struck` counts them, `requests` all."""

    def __init__(self, endpoint: str, share: float, seed: int) -> None:
        self.target = endpoint.removeprefix("http://")
        self.requests = 0
        self.struck: Counter[str] = Counter()
        self._share, self._random, self._lock = share, random.Random(seed), threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with suppress(ConnectionError):  # the client may go as it likes
                    super().handle_one_request()
                    return
                self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return lambda: proxy.serve(self)
                raise AttributeError(name)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        """Forward one request, or let it fail."""
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        fault = self._draw()
        if fault == "cut before":
            return self._cut(request)
        if fault in ("503 SlowDown", "503", "429"):
            return self._refuse(request, int(fault[:3]), SLOW_DOWN if "SlowDown" in fault else b"")
        if fault == "delay":
            time.sleep(0.3)
        connection = HTTPConnection(self.target, timeout=60)
        try:
            connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name.lower() not in ("expect", "connection"):
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if fault == "cut after":
            return self._cut(request)
        request.send_response_only(answer.status, answer.reason)
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _OWN]
        # The answer to HEAD has no body, and the length of the one that GET would have.
        length = answer.getheader("Content-Length", "0") if request.command == "HEAD" else str(len(data))
        for name, value in [*headers, ("Content-Length", length)]:
            request.send_header(name, value)
        request.end_headers()
        if fault == "cut within":
            request.wfile.write(data[: len(data) // 2])
            request.wfile.flush()
            return self._cut(request)
        request.wfile.write(data)
        return None

    def _draw(self) -> str | None:
        with self._lock:
            self.requests += 1
            if self._random.random() >= self._share:
                return None
            fault = self._random.choice(FAULTS)
            self.struck[fault] += 1
            return fault

    @staticmethod
    def _cut(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        with suppress(OSError):
            request.connection.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _refuse(request: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
        request.send_response_only(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)


_OWN = {"content-length", "transfer-encoding", "connection"}


@contextmanager
def unreliable(endpoint: str, share: float = 0.125, seed: int = 1) -> Iterator[UnreliableProxy]:
    """A proxy before the server at `endpoint`."""
    proxy = UnreliableProxy(endpoint, share, seed)
    try:
        yield proxy
    finally:
        proxy.close()
